//! When each check ran last, by Lambda's own count.

use futures_util::future::try_join_all;
use monitoring_lambdas::cloudwatch::{Metrics, MetricsError, Query};
use serde::Serialize;
use shared::timestamp::{MILLIS_PER_HOUR, MILLIS_PER_MINUTE, UnixMillis};

use crate::config::Config;

/// How far back a run is searched for: two periods of check-deletions, which runs every six hours, and one hour more. Of what
/// runs less often, two periods of its own, and one hour more.
const LOOKBACK_HOURS: i64 = 13;

const fn lookback_hours(every_minutes: i64) -> i64 {
    let periods = (PERIODS * every_minutes) / 60 + 1;
    if periods > LOOKBACK_HOURS { periods } else { LOOKBACK_HOURS }
}

/// The functions that check or load, by their logical ids in template.yaml, with what they do and how often at the least, in
/// minutes; 0 for those that run when something comes.
const CHECKS: [(&str, &str, &str, i64); 11] = [
    ("CheckObjectFunction", "check-object", "each landed object is intact", 0),
    ("SealPartitionFunction", "seal-partition", "the hour that closed is whole", 10),
    ("CheckSizeFunction", "check-size", "a sealed hour is as large as it should be", 0),
    ("CheckRecencyFunction", "check-recency", "hours are sealed in time, data is fresh", 1),
    ("CheckCompletenessFunction", "check-completeness", "accepted = on the stream = landed", 60),
    ("CheckDeletionsFunction", "check-deletions", "what was sealed is still there", 360),
    ("CompactPartitionFunction", "compact-partition", "sealed hours as Parquet", 15),
    ("LoadSearchFunction", "load-search", "events into the search cluster", 0),
    ("LoadWarehouseFunction", "load-warehouse", "Parquet into the warehouse", 15),
    ("NotifyFunction", "notify", "alarms to people", 5),
    // Where there is a DigestHour.
    ("SendDigestFunction", "send-digest", "the day before to people", 1_440),
];

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) state: State,
    /// The minute in which it ran last.
    pub(crate) last_run: Option<UnixMillis>,
    /// How far back was looked.
    pub(crate) searched_hours: i64,
    /// In these hours.
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

/// `since` is when anything could run at the earliest, if that is known.
pub(crate) async fn read(
    metrics: &impl Metrics,
    config: &Config,
    since: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<Vec<Check>, MetricsError> {
    let config = &config;
    let slack = i64::try_from(config.metrics_delay.as_millis()).unwrap_or(i64::MAX);
    let reads = CHECKS.iter().filter_map(|check| {
        let function = config.function(check.0)?;
        let from = UnixMillis(now.0 - lookback_hours(check.3) * MILLIS_PER_HOUR);
        let from = UnixMillis(from.0 - from.0.rem_euclid(MILLIS_PER_MINUTE));
        let query = move |metric| {
            let times = (from, UnixMillis(now.0 + MILLIS_PER_MINUTE));
            let query = Query::by_minute(("AWS/Lambda", metric), ("FunctionName", function), "Sum", times);
            Query { period: crate::metrics::step(config), ..query }
        };
        Some(async move {
            let (runs, errors) = (metrics.read(&query("Invocations")).await?, metrics.read(&query("Errors")).await?);
            Ok::<_, MetricsError>(judge(*check, &runs, &errors, since, UnixMillis(now.0 - slack)))
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
    since: Option<UnixMillis>,
    now: UnixMillis,
) -> Check {
    let last_run = runs.iter().rev().find(|(_, count)| *count > 0.0).map(|(time, _)| *time);
    let failed = |at: UnixMillis| errors.iter().any(|(time, count)| *time == at && *count > 0.0);
    let latest = UnixMillis(now.0 - (PERIODS * every_minutes + 1) * MILLIS_PER_MINUTE);
    let is_late = |at: UnixMillis| every_minutes > 0 && at < latest;
    let state = match last_run {
        // Where events have long landed it should have run.
        None if since.is_some_and(is_late) => State::Overdue,
        None => State::Quiet,
        Some(at) if failed(at) => State::Failed,
        Some(at) if is_late(at) => State::Overdue,
        Some(_) => State::Ok,
    };
    let sum = |values: &Values| values.iter().fold(0.0, |sum, (_, count)| sum + count);
    let searched_hours = lookback_hours(every_minutes);
    Check { name, about, state, last_run, searched_hours, runs: sum(runs), failures: sum(errors), every_minutes }
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
        assert_eq!(judge(("X", "x", "", 10), &values(runs), &values(errors), None, UnixMillis(now)).state, expected);
    }

    #[rstest]
    #[case::at_the_bound(10, 21, State::Quiet)]
    #[case::one_past_it(10, 22, State::Overdue)]
    #[case::runs_when_something_comes(0, 22, State::Quiet)]
    #[case::every_six_hours(360, 721, State::Quiet)]
    #[case::one_past_it(360, 722, State::Overdue)]
    #[case::daily(1_440, 2_881, State::Quiet)]
    #[case::one_past_the_longest(1_440, 2_882, State::Overdue)]
    fn one_that_never_ran_is_overdue_where_there_was_time(
        #[case] every_minutes: i64,
        #[case] minutes: i64,
        #[case] expected: State,
    ) {
        let now = 1_795_253_520_000;
        let since = Some(UnixMillis(now - minutes * MILLIS_PER_MINUTE));
        let found = judge(("X", "x", "", every_minutes), &Vec::new(), &Vec::new(), since, UnixMillis(now));
        assert_eq!(found.state, expected);
    }

    #[test]
    fn a_run_is_searched_for_as_long_as_one_may_be_late() {
        assert!(CHECKS.iter().all(|check| lookback_hours(check.3) * 60 > PERIODS * check.3 + 1));
        assert_eq!((lookback_hours(360), lookback_hours(1_440)), (13, 49));
    }
}
