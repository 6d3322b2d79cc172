//! How many a second over the time of a run, and from that the planned time of each.
//!
//! Request `k` (from 0) is planned where the rate, summed up from the start, reaches `k` and a half: the first of a constant
//! rate comes half an interval after the start and the last half an interval before the end, whatever rounding does.

use std::str::FromStr;
use std::time::Duration;

/// A second at most. More can't be told apart by a clock of a microsecond.
const MAX_RATE: f64 = 1_000_000.0;
/// In one run at most: each event of it takes eight bytes in the ledger.
const MAX_TOTAL: f64 = 1_000_000_000.0;

/// As on the command line.
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

/// Why a rate is none, or can't be planned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum RateError {
    #[error("{0:?} is no rate; write 1000, 100..2000 (ramp), 100,500,1000 (steps) or 100^2000 (spike)")]
    NotANumber(String),
    #[error("a rate is more than 0 and at most {MAX_RATE}, and {0} is not (only a ramp may begin or end with 0)")]
    OutOfRange(f64),
    #[error("a ramp from 0 to 0 sends nothing")]
    NothingToRamp,
    #[error("in so short a time not one is due at this rate; make --duration or --rate larger")]
    TooFew,
    #[error("these are more than {MAX_TOTAL} in one run; make --duration or --rate smaller")]
    TooMany,
}

impl FromStr for Shape {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if let Some((from, to)) = text.split_once("..") {
            return ramp(number(from)?, number(to)?);
        }
        if let Some((usual, spike)) = text.split_once('^') {
            return Ok(Self::Spike(positive(usual)?, positive(spike)?));
        }
        if text.contains(',') {
            return Ok(Self::Steps(text.split(',').map(positive).collect::<Result<_, _>>()?));
        }
        Ok(Self::Constant(positive(text)?))
    }
}

fn ramp(from: f64, to: f64) -> Result<Shape, RateError> {
    for rate in [from, to] {
        if rate != 0.0 {
            in_range(rate)?;
        }
    }
    if from + to == 0.0 { Err(RateError::NothingToRamp) } else { Ok(Shape::Ramp(from, to)) }
}

fn number(text: &str) -> Result<f64, RateError> {
    let number: f64 = text.trim().parse().map_err(|_| RateError::NotANumber(text.to_owned()))?;
    if number.is_finite() { Ok(number) } else { Err(RateError::NotANumber(text.to_owned())) }
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
    /// What all segments before it sum up to.
    before: f64,
}

impl Segment {
    fn slope(&self) -> f64 {
        (self.to - self.from) / self.seconds
    }

    fn sum(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// The sum of the rate from the segment's start on.
    #[cfg(test)]
    fn sum_after(&self, seconds: f64) -> f64 {
        (self.from + self.slope() * seconds / 2.0) * seconds
    }

    /// The inverse of [`Segment::sum_after`]: the quadratic formula in the form that is exact for flat slopes.
    fn seconds_to(&self, sum: f64) -> f64 {
        let root = (self.from * self.from + 2.0 * self.slope() * sum).max(0.0).sqrt();
        2.0 * sum / (self.from + root)
    }
}

/// A rate over a time of a given length.
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

    /// How many there are in the whole time.
    #[cfg(test)]
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// When the one with this number, from 0, is due; from the start. `None` from the total on.
    pub(crate) fn time_of(&self, number: u64) -> Option<Duration> {
        if number >= self.total {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // Below MAX_TOTAL.
        let sum = number as f64 + 0.5;
        let place = self.segments.partition_point(|segment| segment.before <= sum).saturating_sub(1);
        let segment = self.segments.get(place)?;
        let within = segment.seconds_to(sum - segment.before).clamp(0.0, segment.seconds);
        Some(Duration::from_secs_f64(segment.starts + within))
    }

    /// How many are due by a time from the start.
    #[cfg(test)]
    fn due_by(&self, time: Duration) -> u64 {
        let seconds = time.as_secs_f64();
        let place = self.segments.partition_point(|segment| segment.starts <= seconds).saturating_sub(1);
        let segment = self.segments[place];
        let within = (seconds - segment.starts).clamp(0.0, segment.seconds);
        whole(segment.before + segment.sum_after(within)).min(self.total)
    }
}

/// The nearest whole number, as of a sum of half intervals.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // From 0 to MAX_TOTAL.
fn whole(sum: f64) -> u64 {
    (sum + 0.5).floor() as u64
}

fn segments(shape: &Shape, seconds: f64) -> Vec<Segment> {
    let parts: Vec<(f64, f64, f64)> = match shape {
        Shape::Constant(rate) => vec![(1.0, *rate, *rate)],
        Shape::Ramp(from, to) => vec![(1.0, *from, *to)],
        #[allow(clippy::cast_precision_loss)] // What stands on a command line is short.
        Shape::Steps(rates) => rates.iter().map(|rate| (1.0 / rates.len() as f64, *rate, *rate)).collect(),
        Shape::Spike(usual, spike) => vec![(0.4, *usual, *usual), (0.2, *spike, *spike), (0.4, *usual, *usual)],
    };
    let (mut starts, mut before) = (0.0, 0.0);
    let mut segments = Vec::with_capacity(parts.len());
    for (share, from, to) in parts {
        let segment = Segment { starts, seconds: share * seconds, from, to, before };
        starts += segment.seconds;
        before += segment.sum();
        segments.push(segment);
    }
    segments
}

#[cfg(test)]
mod tests;
