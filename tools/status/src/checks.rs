//! When each check ran last, by Lambda's own count.

use futures_util::future::try_join_all;
use monitoring_lambdas::cloudwatch::{Metrics, MetricsError, Query};
use serde::Serialize;
use shared::timestamp::{MILLIS_PER_HOUR, MILLIS_PER_MINUTE, UnixMillis};

use crate::config::Config;

/// How far back a run is searched for: check-deletions runs every six hours.
const LOOKBACK_HOURS: i64 = 7;

/// The functions that check or load, by their logical ids in template.yaml, with what they do and how often at the least, in
/// minutes; 0 for those that run when something comes.
const CHECKS: [(&str, &str, &str, i64); 9] = [
    ("CheckObjectFunction", "check-object", "each landed object is intact", 0),
    ("SealPartitionFunction", "seal-partition", "the hour that closed is whole", 10),
    ("CheckSizeFunction", "check-size", "a sealed hour is as large as it should be", 0),
    ("CheckRecencyFunction", "check-recency", "hours are sealed in time, data is fresh", 1),
    ("CheckCompletenessFunction", "check-completeness", "accepted = on the stream = landed", 60),
    ("CheckDeletionsFunction", "check-deletions", "what was sealed is still there", 360),
    ("CompactPartitionFunction", "compact-partition", "sealed hours as Parquet", 15),
    ("LoadSearchFunction", "load-search", "events into the search cluster", 0),
    ("NotifyFunction", "notify", "alarms to people", 5),
];

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) state: State,
    /// The minute in which it ran last.
    pub(crate) last_run: Option<UnixMillis>,
    /// In the time that was looked at.
    pub(crate) runs: f64,
    pub(crate) failures: f64,
    pub(crate) every_minutes: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Ok,
    /// Its last run failed.
    Failed,
    /// It should have run since.
    Overdue,
    /// It has not run in the time that was looked at, and need not have.
    Quiet,
}

/// Values of a minute each, the oldest first, as CloudWatch has them.
type Values = Vec<(UnixMillis, f64)>;

pub(crate) async fn read(metrics: &impl Metrics, config: &Config, now: UnixMillis) -> Result<Vec<Check>, MetricsError> {
    let (config, from) = (&config, UnixMillis(now.0 - LOOKBACK_HOURS * MILLIS_PER_HOUR));
    let from = UnixMillis(from.0 - from.0.rem_euclid(MILLIS_PER_MINUTE));
    let slack = i64::try_from(config.metrics_delay.as_millis()).unwrap_or(i64::MAX);
    let reads = CHECKS.iter().filter_map(|check| {
        let function = config.function(check.0)?;
        let query = move |metric| {
            let times = (from, UnixMillis(now.0 + MILLIS_PER_MINUTE));
            let query = Query::by_minute(("AWS/Lambda", metric), ("FunctionName", function), "Sum", times);
            Query { period: crate::metrics::step(config), ..query }
        };
        Some(async move {
            let (runs, errors) = (metrics.read(&query("Invocations")).await?, metrics.read(&query("Errors")).await?);
            Ok::<_, MetricsError>(judge(*check, &runs, &errors, UnixMillis(now.0 - slack)))
        })
    });
    try_join_all(reads).await
}

/// How many of its periods a check may be late, with the minute that its values are of.
const PERIODS: i64 = 2;

fn judge(
    (_, name, about, every_minutes): (&str, &'static str, &'static str, i64),
    runs: &Values,
    errors: &Values,
    now: UnixMillis,
) -> Check {
    let last_run = runs.iter().rev().find(|(_, count)| *count > 0.0).map(|(time, _)| *time);
    let failed = |at: UnixMillis| errors.iter().any(|(time, count)| *time == at && *count > 0.0);
    let latest = UnixMillis(now.0 - (PERIODS * every_minutes + 1) * MILLIS_PER_MINUTE);
    // Before its first run nobody knows since when it is there.
    let state = match last_run {
        None => State::Quiet,
        Some(at) if failed(at) => State::Failed,
        Some(at) if every_minutes > 0 && at < latest => State::Overdue,
        Some(_) => State::Ok,
    };
    let sum = |values: &Values| values.iter().fold(0.0, |sum, (_, count)| sum + count);
    Check { name, about, state, last_run, runs: sum(runs), failures: sum(errors), every_minutes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::never(&[], &[], State::Quiet)]
    #[case::at_the_bound(&[(-21, 1.0), (-5, 0.0)], &[], State::Ok)]
    #[case::one_past_it(&[(-22, 1.0)], &[], State::Overdue)]
    #[case::failed(&[(-3, 1.0)], &[(-3, 1.0)], State::Failed)]
    #[case::failed_before(&[(-3, 1.0), (-2, 1.0)], &[(-3, 1.0)], State::Ok)]
    fn checks_are_judged(#[case] runs: &[(i64, f64)], #[case] errors: &[(i64, f64)], #[case] expected: State) {
        let now = 1_795_253_520_000;
        let values = |of: &[(i64, f64)]| of.iter().map(|(at, count)| (UnixMillis(now + at * 60_000), *count)).collect();
        assert_eq!(judge(("X", "x", "", 10), &values(runs), &values(errors), UnixMillis(now)).state, expected);
    }
}
