//! What a run has to keep to: `p99<50ms`, `errors<0.1%`, `missing=0`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::result::{Distribution, RunResult, Second, ThresholdOutcome, Truth};

/// Something that is found, by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Latency(Statistic),
    ServiceTime(Statistic),
    /// End to end, planned to landed.
    Landed(Statistic),
    Errors,
    Missing,
    Doubled,
    Misplaced,
    /// Events without an answer that says what became of them.
    Unknown,
    Rate,
    EventsRate,
}

/// Of a distribution of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statistic {
    P50,
    P90,
    P95,
    P99,
    P99Point9,
    P99Point99,
    Max,
    Mean,
}

const STATISTICS: [(&str, Statistic); 8] = [
    ("p50", Statistic::P50),
    ("p90", Statistic::P90),
    ("p95", Statistic::P95),
    ("p99", Statistic::P99),
    ("p99.9", Statistic::P99Point9),
    ("p99.99", Statistic::P99Point99),
    ("max", Statistic::Max),
    ("mean", Statistic::Mean),
];

const COUNTS_AND_RATES: [(&str, Name); 7] = [
    ("errors", Name::Errors),
    ("missing", Name::Missing),
    ("doubled", Name::Doubled),
    ("misplaced", Name::Misplaced),
    ("unknown", Name::Unknown),
    ("rate", Name::Rate),
    ("events_rate", Name::EventsRate),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Time,
    Share,
    Count,
    PerSecond,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        if let Some((_, name)) = COUNTS_AND_RATES.iter().find(|(name, _)| *name == text) {
            return Some(*name);
        }
        let statistic = |text: &str| STATISTICS.iter().find(|(name, _)| *name == text).map(|(_, found)| *found);
        match text.split_once('_') {
            Some(("service", rest)) => statistic(rest).map(Self::ServiceTime),
            Some(("landed", rest)) => statistic(rest).map(Self::Landed),
            _ => statistic(text).map(Self::Latency),
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Latency(_) | Self::ServiceTime(_) | Self::Landed(_) => Unit::Time,
            Self::Errors => Unit::Share,
            Self::Missing | Self::Doubled | Self::Misplaced | Self::Unknown => Unit::Count,
            Self::Rate | Self::EventsRate => Unit::PerSecond,
        }
    }

    /// In microseconds, as a share of 1, as a count or a second; `None` when it can't be known.
    fn find(self, result: &RunResult) -> Option<f64> {
        // Where nothing was stored, that nothing is missing says nothing.
        let truth = result.truth.as_ref().filter(|truth| truth.expected > 0);
        let count = |find: fn(&Truth) -> u64| truth.map(|truth| float(find(truth)));
        match self {
            Self::Latency(statistic) => statistic.of(&result.latency),
            Self::ServiceTime(statistic) => statistic.of(&result.service_time),
            Self::Landed(statistic) => result.truth.as_ref().and_then(|truth| statistic.of(&truth.end_to_end)),
            Self::Errors => Some(float(result.posts.errors()) / float(result.posts.planned.max(1))),
            Self::Missing => count(|truth| truth.missing),
            Self::Doubled => count(|truth| truth.doubled),
            Self::Misplaced => count(|truth| truth.misplaced),
            Self::Unknown => Some(float(result.events.unknown)),
            Self::Rate => Some(a_second(result, result.posts.as_expected)),
            Self::EventsRate => Some(a_second(result, result.events.accepted)),
        }
    }
}

/// Only what was answered within the run's time counts: a system that needs longer does not carry the rate.
fn a_second(result: &RunResult, count: u64) -> f64 {
    let answered = |seconds: &[Second]| float(seconds.iter().map(|second| second.answered).sum());
    let (all, duration) = (answered(&result.seconds), result.plan.duration_seconds);
    let in_time = result.seconds.iter().zip(1_u32..).take_while(|(_, end)| f64::from(*end) < duration + 1.0).count();
    float(count) * answered(&result.seconds[..in_time]) / all.max(1.0) / duration
}

impl Statistic {
    fn of(self, times: &Distribution) -> Option<f64> {
        let us = match self {
            Self::P50 => times.p50_us,
            Self::P90 => times.p90_us,
            Self::P95 => times.p95_us,
            Self::P99 => times.p99_us,
            Self::P99Point9 => times.p99_9_us,
            Self::P99Point99 => times.p99_99_us,
            Self::Max => times.max_us,
            Self::Mean => return (times.count > 0).then_some(times.mean_us),
        };
        (times.count > 0).then(|| float(us))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    AtMost,
    Less,
    AtLeast,
    More,
    Equal,
}

/// The longer ones first: `<` begins `<=`.
const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::More),
    ("=", Comparison::Equal),
];

impl Comparison {
    #[allow(clippy::float_cmp)] // Counts and times in whole numbers.
    fn holds(self, found: f64, limit: f64) -> bool {
        match self {
            Self::AtMost => found <= limit,
            Self::Less => found < limit,
            Self::AtLeast => found >= limit,
            Self::More => found > limit,
            Self::Equal => found == limit,
        }
    }
}

/// One of them, as it was written and as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Threshold {
    text: String,
    name: Name,
    comparison: Comparison,
    limit: f64,
}

/// Why a text is no threshold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ThresholdError {
    #[error("{0:?} is no threshold; write a name, one of < <= > >= =, and a value, such as p99<50ms")]
    NoComparison(String),
    #[error(
        "{0:?} is nothing that is measured; there are p50 p90 p95 p99 p99.9 p99.99 max mean, the same as service_p99 and \
         landed_p99, errors, missing, doubled, misplaced, unknown, rate and events_rate"
    )]
    NoSuchName(String),
    #[error("{text:?}: {expected}")]
    Value { text: String, expected: &'static str },
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let text = text.trim();
        let no_comparison = || ThresholdError::NoComparison(text.to_owned());
        let at = text.find(['<', '>', '=']).ok_or_else(no_comparison)?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let (sign, comparison) =
            COMPARISONS.iter().find(|(sign, _)| rest.starts_with(sign)).ok_or_else(no_comparison)?;
        let name = Name::parse(name).ok_or_else(|| ThresholdError::NoSuchName(name.to_owned()))?;
        let failed = |expected| ThresholdError::Value { text: text.to_owned(), expected };
        let limit = value(rest[sign.len()..].trim(), name.unit()).map_err(failed)?;
        Ok(Self { text: text.to_owned(), name, comparison: *comparison, limit })
    }
}

/// In the unit in which it is found.
fn value(text: &str, unit: Unit) -> Result<f64, &'static str> {
    match unit {
        Unit::Time => time_us(text).ok_or("a time has a unit, such as 50ms, 1s or 800us"),
        Unit::Share => share(text).ok_or("a share is from 0 to 1, or from 0% to 100%"),
        Unit::Count => text.parse::<u32>().map(f64::from).map_err(|_| "a count is a whole number from 0"),
        Unit::PerSecond => {
            number(text.strip_suffix("/s").unwrap_or(text)).ok_or("a rate is a number a second, such as 1000 or 1000/s")
        }
    }
}

#[allow(clippy::cast_precision_loss)] // Nobody waits 285 years.
fn time_us(text: &str) -> Option<f64> {
    let time: Duration = humantime::parse_duration(text).ok()?;
    Some(time.as_micros() as f64)
}

/// A share of 1, or a percentage.
pub(crate) fn share(text: &str) -> Option<f64> {
    let share = match text.strip_suffix('%') {
        Some(percent) => number(percent)? / 100.0,
        None => number(text)?,
    };
    (share <= 1.0).then_some(share)
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

impl fmt::Display for Threshold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Threshold {
    /// Whether both are about the same finding.
    pub(crate) fn is_about(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// The latency's statistic that it is about, of another distribution; in microseconds.
    pub(crate) fn same_of(&self, times: &Distribution) -> Option<f64> {
        match self.name {
            Name::Latency(statistic) => statistic.of(times),
            _ => None,
        }
    }

    pub(crate) fn judge(&self, result: &RunResult) -> ThresholdOutcome {
        let found = self.name.find(result);
        ThresholdOutcome {
            threshold: self.text.clone(),
            found: found.map(|found| show(found, self.name.unit())),
            holds: found.is_some_and(|found| self.comparison.holds(found, self.limit)),
        }
    }
}

fn show(found: f64, unit: Unit) -> String {
    match unit {
        Unit::Time if found < 1_000.0 => format!("{found:.0}us"),
        Unit::Time if found < 10_000_000.0 => format!("{:.2}ms", found / 1_000.0),
        Unit::Time => format!("{:.2}s", found / 1_000_000.0),
        Unit::Share => format!("{:.4}%", found * 100.0),
        Unit::Count => format!("{found:.0}"),
        Unit::PerSecond => format!("{found:.1}/s"),
    }
}

/// Of a list as on the command line or in a file: with commas or one a line, `#` begins a comment.
pub(crate) fn parse(text: &str) -> Result<Vec<Threshold>, ThresholdError> {
    let without_comments = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let parts = without_comments.flat_map(|line| line.split(',')).map(str::trim).filter(|part| !part.is_empty());
    parts.map(Threshold::from_str).collect()
}

/// What a run keeps to unless it is told otherwise.
pub(crate) fn usual(reads_bucket: bool) -> Result<Vec<Threshold>, ThresholdError> {
    parse(if reads_bucket { "errors<0.1%,missing=0,doubled=0,misplaced=0" } else { "errors<0.1%" })
}

/// Counts of a run are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
