//! What must hold of a run: `p99<50ms`, `errors<0.1%`, `missing=0`; and of the ratio of two runs: `p99<1.1`.

use std::io;

use crate::figures::{Find, FindTimes, Quantity, error_share};
use crate::result::{RunResult, STATISTICS, Second, Statistic, ThresholdOutcome, Truth};

/// Unknown where nothing was stored: that nothing is missing then proves nothing.
fn truth(result: &RunResult, count: fn(&Truth) -> u64) -> Option<f64> {
    result.truth.as_ref().filter(|truth| truth.expected > 0).map(|truth| count(truth) as f64)
}

const FIGURES: [(&str, Quantity, Find); 7] = [
    ("errors", Quantity::Share, |result| Some(error_share(result))),
    ("missing", Quantity::Count, |result| truth(result, |truth| truth.missing)),
    ("doubled", Quantity::Count, |result| truth(result, |truth| truth.doubled)),
    ("misplaced", Quantity::Count, |result| truth(result, |truth| truth.misplaced)),
    ("unknown", Quantity::Count, |result| Some(result.events.unknown as f64)),
    ("rate", Quantity::Rate, |result| Some(in_time(result, result.posts.as_expected))),
    ("events_rate", Quantity::Rate, |result| Some(in_time(result, result.events.accepted))),
];

/// By prefix; the empty one comes last, for every name begins with it.
const TIMES: [(&str, FindTimes); 3] = [
    ("service_", |result| Some(&result.service_time)),
    ("landed_", |result| result.truth.as_ref().map(|truth| &truth.end_to_end)),
    ("", |result| Some(&result.latency)),
];

/// The longer ones first: `<` begins `<=`.
const COMPARISONS: [(&str, Comparison); 5] =
    [("<=", f64::le), (">=", f64::ge), ("<", f64::lt), (">", f64::gt), ("=", f64::eq)];

type Comparison = fn(&f64, &f64) -> bool;

/// Only what was answered within the run's time counts: a system that needs longer does not carry the rate.
fn in_time(result: &RunResult, count: u64) -> f64 {
    let answered = |seconds: &[Second]| seconds.iter().map(|second| second.answered).sum::<u64>() as f64;
    let duration = result.plan.duration_seconds;
    let seconds = result.seconds.len().min(duration.ceil() as usize);
    count as f64 * answered(&result.seconds[..seconds]) / answered(&result.seconds).max(1.0) / duration
}

/// A figure that a threshold can be about.
#[derive(Debug, Clone, Copy)]
enum Figure {
    Times(FindTimes, Statistic),
    Other(Quantity, Find),
}

impl Figure {
    fn named(name: &str) -> Option<Self> {
        if let Some((_, quantity, find)) = FIGURES.iter().find(|(own, ..)| *own == name) {
            return Some(Self::Other(*quantity, *find));
        }
        let (prefix, find) = TIMES.iter().find(|(prefix, _)| name.starts_with(prefix))?;
        let (_, statistic) = STATISTICS.iter().find(|(own, _)| *own == &name[prefix.len()..])?;
        Some(Self::Times(*find, *statistic))
    }

    fn quantity(self) -> Quantity {
        match self {
            Self::Times(..) => Quantity::Time,
            Self::Other(quantity, _) => quantity,
        }
    }

    /// In the quantity's unit; `None` when it is not known.
    fn find(self, result: &RunResult) -> Option<f64> {
        match self {
            Self::Times(find, statistic) => find(result).filter(|times| times.count > 0).map(statistic),
            Self::Other(_, find) => find(result),
        }
    }
}

/// A threshold as written, and as meant.
#[derive(Debug, Clone)]
pub(crate) struct Threshold {
    text: String,
    name: String,
    figure: Figure,
    comparison: Comparison,
    limit: f64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ThresholdError {
    #[error("{0:?} is not a threshold; write a name, one of < <= > >= =, and a value, such as p99<50ms")]
    NoComparison(String),
    #[error(
        "{0:?} is not measured; there are p50 p90 p95 p99 p99.9 p99.99 max mean, the same as service_p99 and landed_p99, \
         errors, missing, doubled, misplaced, unknown, rate and events_rate"
    )]
    NoSuchName(String),
    #[error("{text:?}: {expected}")]
    Value { text: String, expected: &'static str },
    #[error(transparent)]
    File(#[from] io::Error),
}

/// How a value is read: in the quantity's unit, or as a ratio.
pub(crate) type ReadValue = fn(&str, Quantity) -> Result<f64, &'static str>;

impl Threshold {
    fn parse(text: &str, value: ReadValue) -> Result<Self, ThresholdError> {
        let no_comparison = || ThresholdError::NoComparison(text.to_owned());
        let at = text.find(['<', '>', '=']).ok_or_else(no_comparison)?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let comparison = COMPARISONS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (sign, comparison) = comparison.ok_or_else(no_comparison)?;
        let figure = Figure::named(name).ok_or_else(|| ThresholdError::NoSuchName(name.to_owned()))?;
        let limit = value(rest[sign.len()..].trim(), figure.quantity());
        let limit = limit.map_err(|expected| ThresholdError::Value { text: text.to_owned(), expected })?;
        Ok(Self { text: text.to_owned(), name: name.to_owned(), figure, comparison: *comparison, limit })
    }

    /// Of a threshold of the latency itself.
    pub(crate) fn latency_statistic(&self) -> Option<Statistic> {
        STATISTICS.iter().find(|(name, _)| *name == self.name).map(|(_, statistic)| *statistic)
    }

    pub(crate) fn judge(&self, result: &RunResult) -> ThresholdOutcome {
        self.outcome(self.figure.find(result), self.figure.quantity())
    }

    /// Judges B/A. From 0 to 0 nothing changed; from 0 to anything else is more than any limit.
    pub(crate) fn judge_ratio(&self, a: &RunResult, b: &RunResult) -> ThresholdOutcome {
        let ratio = match (self.figure.find(a), self.figure.find(b)) {
            (Some(0.0), Some(0.0)) => Some(1.0),
            (Some(a), Some(b)) => Some(b / a),
            _ => None,
        };
        self.outcome(ratio, Quantity::Ratio)
    }

    fn outcome(&self, found: Option<f64>, quantity: Quantity) -> ThresholdOutcome {
        ThresholdOutcome {
            threshold: self.text.clone(),
            found: found.map(|found| quantity.show(found)),
            holds: found.is_some_and(|found| (self.comparison)(&found, &self.limit)),
        }
    }
}

pub(crate) fn in_unit(text: &str, quantity: Quantity) -> Result<f64, &'static str> {
    match quantity {
        Quantity::Time => {
            let time = humantime::parse_duration(text).map_err(|_| "a time has a unit, such as 50ms, 1s or 800us")?;
            Ok(time.as_micros() as f64)
        }
        Quantity::Share => share(text).ok_or("a share is from 0 to 1, or from 0% to 100%"),
        Quantity::Rate => {
            number(text.strip_suffix("/s").unwrap_or(text)).ok_or("a rate is a number a second, such as 1000 or 1000/s")
        }
        _ => text.parse::<u32>().map(f64::from).map_err(|_| "a count is a whole number from 0"),
    }
}

pub(crate) fn as_ratio(text: &str, _: Quantity) -> Result<f64, &'static str> {
    factor(text).ok_or("what B/A is held to is a factor or a percentage, such as 1.1 or 110%")
}

/// A share of 1, or a percentage.
pub(crate) fn share(text: &str) -> Option<f64> {
    factor(text).filter(|share| *share <= 1.0)
}

fn factor(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => number(text),
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

/// Those given, and the defaults for names that are not among them.
pub(crate) fn with_defaults(mut given: Thresholds, reads_bucket: bool) -> Result<Thresholds, ThresholdError> {
    let defaults = if reads_bucket { "errors<0.1%,missing=0,doubled=0,misplaced=0" } else { "errors<0.1%" };
    let mut defaults = parse(defaults, in_unit)?;
    defaults.retain(|default| !given.iter().any(|threshold| threshold.name == default.name));
    given.extend(defaults);
    Ok(given)
}

pub(crate) type Thresholds = Vec<Threshold>;

pub(crate) fn in_file(path: &str, value: ReadValue) -> Result<Thresholds, ThresholdError> {
    parse(&std::fs::read_to_string(path)?, value)
}

/// With commas or line breaks between them; `#` begins a comment.
pub(crate) fn parse(text: &str, value: ReadValue) -> Result<Thresholds, ThresholdError> {
    let without_comments = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let parts = without_comments.flat_map(|line| line.split(',')).map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| Threshold::parse(part, value)).collect()
}

#[cfg(test)]
pub(crate) mod tests;
