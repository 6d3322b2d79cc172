//! The rate over the time of a run, and from it the planned time of each request.
//!
//! Request `k` (from 0) is planned where the rate, integrated from the start, reaches `k` and a half: at a constant rate the
//! first comes half an interval after the start and the last half an interval before the end, whatever rounding does.

use std::str::FromStr;
use std::time::Duration;

/// A second at most: the clock has microseconds.
const MAX_RATE: f64 = 1_000_000.0;
/// In one run at most: the ledger takes eight bytes for each event.
const MAX_TOTAL: f64 = 1_000_000_000.0;

/// A rate as written on the command line, and as meant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rate {
    pub(crate) text: String,
    pub(crate) shape: Shape,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    Constant(f64),
    /// From the first to the second, evenly over the whole run.
    Ramp(f64, f64),
    /// Each for an equal part of the run.
    Steps(Vec<f64>),
    /// The first, but the second in the middle fifth of the run.
    Spike(f64, f64),
}

/// Why a rate can't be planned.
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
        Self { text: rate.to_string(), shape: Shape::Constant(rate) }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let shape = if let Some((from, to)) = text.split_once("..") {
            ramp(number(from)?, number(to)?)?
        } else if let Some((usual, spike)) = text.split_once('^') {
            Shape::Spike(positive(usual)?, positive(spike)?)
        } else if text.contains(',') {
            Shape::Steps(text.split(',').map(positive).collect::<Result<_, _>>()?)
        } else {
            Shape::Constant(positive(text)?)
        };
        Ok(Self { text: text.to_owned(), shape })
    }
}

fn ramp(from: f64, to: f64) -> Result<Shape, RateError> {
    if from == 0.0 && to == 0.0 {
        return Err(RateError::NothingToRamp);
    }
    for rate in [from, to].into_iter().filter(|rate| *rate != 0.0) {
        in_range(rate)?;
    }
    Ok(Shape::Ramp(from, to))
}

fn number(text: &str) -> Result<f64, RateError> {
    let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| RateError::NotANumber(text.to_owned()))
}

fn positive(text: &str) -> Result<f64, RateError> {
    in_range(number(text)?)
}

fn in_range(rate: f64) -> Result<f64, RateError> {
    if rate > 0.0 && rate <= MAX_RATE { Ok(rate) } else { Err(RateError::OutOfRange(rate)) }
}

/// A part of the run in which the rate changes evenly.
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

    fn sum(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// From its start until the integral from there on is this: the quadratic formula in the form that is exact for flat slopes.
    fn seconds_to(&self, sum: f64) -> f64 {
        let root = (self.from * self.from + 2.0 * self.slope() * sum).max(0.0).sqrt();
        2.0 * sum / (self.from + root)
    }
}

/// A rate over the time of a run.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    segments: Vec<Segment>,
    total: u64,
}

impl Schedule {
    /// # Errors
    ///
    /// When nothing would be due in the time, or more than one run can hold.
    pub(crate) fn new(shape: &Shape, duration: Duration) -> Result<Self, RateError> {
        let segments = segments(shape, duration.as_secs_f64());
        let sum = segments.last().map_or(0.0, |last| last.before + last.sum());
        if sum > MAX_TOTAL {
            return Err(RateError::TooMany);
        }
        match whole(sum) {
            0 => Err(RateError::TooFew),
            total => Ok(Self { segments, total }),
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

fn segments(shape: &Shape, seconds: f64) -> Vec<Segment> {
    let parts: Vec<(f64, f64, f64)> = match shape {
        Shape::Constant(rate) => vec![(1.0, *rate, *rate)],
        Shape::Ramp(from, to) => vec![(1.0, *from, *to)],
        Shape::Steps(rates) => rates.iter().map(|rate| (1.0 / rates.len() as f64, *rate, *rate)).collect(),
        Shape::Spike(usual, spike) => vec![(0.4, *usual, *usual), (0.2, *spike, *spike), (0.4, *usual, *usual)],
    };
    let (mut starts, mut before) = (0.0, 0.0);
    let segment = |(share, from, to): (f64, f64, f64)| {
        let segment = Segment { starts, seconds: share * seconds, from, to, before };
        starts += segment.seconds;
        before += segment.sum();
        segment
    };
    parts.into_iter().map(segment).collect()
}

#[cfg(test)]
mod tests;
