//! What a run has to keep to: `p99<50ms`, `errors<0.1%`, `missing=0`; and what the ratio of two runs has to: `p99<1.1`.

use std::path::{Path, PathBuf};

use crate::figures::{Quantity, float};
use crate::result::{Distribution, RunResult, Second, ThresholdOutcome, Truth};

type Find = fn(&RunResult) -> Option<f64>;
type FindTimes = fn(&RunResult) -> Option<&Distribution>;
type Statistic = fn(&Distribution) -> f64;

/// Where nothing was stored, that nothing is missing says nothing.
fn truth(result: &RunResult, count: fn(&Truth) -> u64) -> Option<f64> {
    result.truth.as_ref().filter(|truth| truth.expected > 0).map(|truth| float(count(truth)))
}

const FIGURES: [(&str, Quantity, Find); 7] = [
    ("errors", Quantity::Share, |result| Some(float(result.posts.errors()) / float(result.posts.planned.max(1)))),
    ("missing", Quantity::Count, |result| truth(result, |truth| truth.missing)),
    ("doubled", Quantity::Count, |result| truth(result, |truth| truth.doubled)),
    ("misplaced", Quantity::Count, |result| truth(result, |truth| truth.misplaced)),
    ("unknown", Quantity::Count, |result| Some(float(result.events.unknown))),
    ("rate", Quantity::Rate, |result| Some(in_time(result, result.posts.as_expected))),
    ("events_rate", Quantity::Rate, |result| Some(in_time(result, result.events.accepted))),
];

/// By prefix; the empty one comes last, for every name begins with it.
const TIMES: [(&str, FindTimes); 3] = [
    ("service_", |result| Some(&result.service_time)),
    ("landed_", |result| result.truth.as_ref().map(|truth| &truth.end_to_end)),
    ("", |result| Some(&result.latency)),
];

const STATISTICS: [(&str, Statistic); 8] = [
    ("p50", |times| float(times.p50_us)),
    ("p90", |times| float(times.p90_us)),
    ("p95", |times| float(times.p95_us)),
    ("p99", |times| float(times.p99_us)),
    ("p99.9", |times| float(times.p99_9_us)),
    ("p99.99", |times| float(times.p99_99_us)),
    ("max", |times| float(times.max_us)),
    ("mean", |times| times.mean_us),
];

/// The longer ones first: `<` begins `<=`.
const COMPARISONS: [(&str, Comparison); 5] =
    [("<=", f64::le), (">=", f64::ge), ("<", f64::lt), (">", f64::gt), ("=", f64::eq)];

type Comparison = fn(&f64, &f64) -> bool;

/// Only what was answered within the run's time counts: a system that needs longer does not carry the rate.
fn in_time(result: &RunResult, count: u64) -> f64 {
    let answered = |seconds: &[Second]| float(seconds.iter().map(|second| second.answered).sum());
    let (all, duration) = (answered(&result.seconds), result.plan.duration_seconds);
    let seconds = result.seconds.iter().zip(1_u32..).take_while(|(_, end)| f64::from(*end) < duration + 1.0).count();
    float(count) * answered(&result.seconds[..seconds]) / all.max(1.0) / duration
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

/// Why a text is not a threshold, or is not there.
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
    #[error("cannot read the thresholds in {path}")]
    File { path: PathBuf, source: std::io::Error },
}

/// How a value is read: in the quantity's unit, or as a ratio.
type ReadValue = fn(&str, Quantity) -> Result<f64, &'static str>;

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

    /// Of the latencies, what the statistic is of another distribution, in microseconds.
    pub(crate) fn statistic_of(&self, times: &Distribution) -> Option<f64> {
        let is_latency = STATISTICS.iter().any(|(name, _)| *name == self.name);
        match self.figure {
            Figure::Times(_, statistic) if is_latency && times.count > 0 => Some(statistic(times)),
            _ => None,
        }
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

fn in_unit(text: &str, quantity: Quantity) -> Result<f64, &'static str> {
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

fn as_ratio(text: &str, _: Quantity) -> Result<f64, &'static str> {
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

/// What a run keeps to: what is given, and the defaults for names that are not.
///
/// # Errors
///
/// When something given is not a threshold, or the file can't be read.
pub(crate) fn of_run(
    given: &[String],
    file: Option<&Path>,
    reads_bucket: bool,
) -> Result<Vec<Threshold>, ThresholdError> {
    let mut thresholds = read(given, file, in_unit)?;
    let defaults = if reads_bucket { "errors<0.1%,missing=0,doubled=0,misplaced=0" } else { "errors<0.1%" };
    let mut defaults = parse(defaults, in_unit)?;
    defaults.retain(|default| !thresholds.iter().any(|threshold| threshold.name == default.name));
    thresholds.extend(defaults);
    Ok(thresholds)
}

/// What the ratio of two results keeps to.
///
/// # Errors
///
/// When something given is not a threshold, or the file can't be read.
pub(crate) fn ratios(given: &[String], file: Option<&Path>) -> Result<Vec<Threshold>, ThresholdError> {
    read(given, file, as_ratio)
}

fn read(given: &[String], file: Option<&Path>, value: ReadValue) -> Result<Vec<Threshold>, ThresholdError> {
    let mut text = given.join("\n");
    if let Some(path) = file {
        let file = std::fs::read_to_string(path);
        text += &("\n".to_owned() + &file.map_err(|source| ThresholdError::File { path: path.to_owned(), source })?);
    }
    parse(&text, value)
}

/// With commas or line breaks between them; `#` begins a comment.
fn parse(text: &str, value: ReadValue) -> Result<Vec<Threshold>, ThresholdError> {
    let without_comments = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let parts = without_comments.flat_map(|line| line.split(',')).map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| Threshold::parse(part, value)).collect()
}

#[cfg(test)]
pub(crate) mod tests;
