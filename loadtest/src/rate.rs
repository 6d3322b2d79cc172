//! The rate over the time of a run, and from it the planned time of each request.
//!
//! Request `k` (from 0) is planned where the rate, integrated from the start, reaches `k` and a half: at a constant rate the
//! first comes half an interval after the start and the last half an interval before the end, whatever rounding does.

use std::str::FromStr;
use std::time::Duration;

/// Requests a second: the clock has microseconds.
const MAX_RATE: f64 = 1_000_000.0;
/// Requests in one run: the ledger takes eight bytes for each event.
const MAX_TOTAL: f64 = 1_000_000_000.0;

/// A rate as written on the command line, and as meant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rate {
    pub(crate) text: String,
    parts: Vec<Part>,
}

/// A part of the run, in which the rate changes evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    /// Of the time; those of all parts add up to 1.
    share: f64,
    from: f64,
    to: f64,
}

impl Part {
    fn even(share: f64, rate: f64) -> Self {
        Self { share, from: rate, to: rate }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum RateError {
    #[error("{0:?} is not a rate; write 1000, 100..2000 (ramp), 100,500,1000 (steps) or 100^2000 (spike)")]
    NotANumber(String),
    #[error("a rate is more than 0 and at most {MAX_RATE}, and {0} is not (only a ramp may begin or end with 0)")]
    OutOfRange(f64),
    #[error("a ramp from 0 to 0 sends nothing")]
    NothingToRamp,
    #[error("at this rate nothing is due in so short a time; make --duration or --rate larger")]
    TooFew,
    #[error("these are more than {MAX_TOTAL} in one run; make --duration or --rate smaller")]
    TooMany,
}

impl Rate {
    pub(crate) fn constant(rate: f64) -> Self {
        Self { text: rate.to_string(), parts: vec![Part::even(1.0, rate)] }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let parts = if let Some((from, to)) = text.split_once("..") {
            vec![ramp(number(from)?, number(to)?)?]
        } else if let Some((usual, spike)) = text.split_once('^') {
            let (usual, spike) = (positive(usual)?, positive(spike)?);
            vec![Part::even(0.4, usual), Part::even(0.2, spike), Part::even(0.4, usual)]
        } else {
            let rates: Vec<f64> = text.split(',').map(positive).collect::<Result<_, _>>()?;
            rates.iter().map(|rate| Part::even(1.0 / rates.len() as f64, *rate)).collect()
        };
        Ok(Self { text: text.to_owned(), parts })
    }
}

fn ramp(from: f64, to: f64) -> Result<Part, RateError> {
    if from == 0.0 && to == 0.0 {
        return Err(RateError::NothingToRamp);
    }
    for rate in [from, to].into_iter().filter(|rate| *rate != 0.0) {
        in_range(rate)?;
    }
    Ok(Part { share: 1.0, from, to })
}

fn number(text: &str) -> Result<f64, RateError> {
    let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| RateError::NotANumber(text.to_owned()))
}

/// A rate that does not change.
pub(crate) fn positive(text: &str) -> Result<f64, RateError> {
    in_range(number(text)?)
}

fn in_range(rate: f64) -> Result<f64, RateError> {
    if rate > 0.0 && rate <= MAX_RATE { Ok(rate) } else { Err(RateError::OutOfRange(rate)) }
}

/// A part in a schedule.
#[derive(Debug, Clone, Copy)]
struct Segment {
    starts: f64,
    seconds: f64,
    from: f64,
    to: f64,
    /// The integral up to its start.
    before: f64,
}

impl Segment {
    fn slope(&self) -> f64 {
        (self.to - self.from) / self.seconds
    }

    /// From its start until the integral from there on is this: the quadratic formula in the form that is exact for flat slopes.
    fn seconds_to(&self, sum: f64) -> f64 {
        let root = (self.from * self.from + 2.0 * self.slope() * sum).max(0.0).sqrt();
        2.0 * sum / (self.from + root)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    segments: Vec<Segment>,
    pub(crate) duration: Duration,
    total: u64,
}

impl Schedule {
    pub(crate) fn new(rate: &Rate, duration: Duration) -> Result<Self, RateError> {
        let (mut starts, mut sum) = (0.0, 0.0);
        let segment = |Part { share, from, to }: &Part| {
            let seconds = share * duration.as_secs_f64();
            let segment = Segment { starts, seconds, from: *from, to: *to, before: sum };
            starts += seconds;
            sum += (from + to) / 2.0 * seconds;
            segment
        };
        let segments = rate.parts.iter().map(segment).collect();
        if sum > MAX_TOTAL {
            return Err(RateError::TooMany);
        }
        match whole(sum) {
            0 => Err(RateError::TooFew),
            total => Ok(Self { segments, duration, total }),
        }
    }

    /// When the request with this number, from 0, is due after the start; `None` from the total on.
    pub(crate) fn time_of(&self, number: u64) -> Option<Duration> {
        if number >= self.total {
            return None;
        }
        let sum = number as f64 + 0.5;
        let place = self.segments.partition_point(|segment| segment.before <= sum).saturating_sub(1);
        let segment = self.segments.get(place)?;
        let within = segment.seconds_to(sum - segment.before).clamp(0.0, segment.seconds);
        Some(Duration::from_secs_f64(segment.starts + within))
    }
}

/// The nearest whole number of a sum of half intervals.
fn whole(sum: f64) -> u64 {
    (sum + 0.5).floor() as u64
}

#[cfg(test)]
mod tests;
