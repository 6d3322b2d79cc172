//! How far landing has got in the stream, according to CloudWatch.
//!
//! Kinesis reports the age of the last record that each `GetRecords` call returned, 0 at the tip of a shard and without
//! traffic. So all that arrived before a minute less the largest age of that minute has been read, by every consumer that read
//! then.
//! <https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html>
//!
//! What was read need not have landed: the mapping buffers batches, and keeps one that was given back. Lambda reports the age
//! of the last record of each batch that it invokes landing with; landing, or Lambda instead of it, counts each attempt that
//! failed, at the time at which it began.
//! <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html>
//!
//! Neither shows a mapping that is disabled while another consumer reads the stream: then records arrive and landing is not
//! invoked.
//!
//! Other consumers of the stream may lag, and a batch that failed may be of another hour. So the count of the records that
//! landed has the last word ([`super::verdict`]).

use std::time::Duration;

use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis, UtcHour};

use super::Config;
use crate::check_completeness::counted;
use crate::cloudwatch::{Metrics, MetricsError, Query};
use crate::manifest::Missing;
use crate::rules::completeness::Counted;

/// CloudWatch has values within a few minutes.
const WINDOW_MILLIS: i64 = 15 * MILLIS_PER_MINUTE;
/// A shard may be read once in several minutes.
const RECENT_MILLIS: i64 = 5 * MILLIS_PER_MINUTE;
/// From the end of an attempt that failed to the next one, and for CloudWatch to show it.
const RETRY_MILLIS: i64 = 10 * MILLIS_PER_MINUTE;
/// By then a record that arrived has invoked landing, and CloudWatch shows it: a batching window may have five minutes.
const INVOKED_AFTER_MILLIS: i64 = 8 * MILLIS_PER_MINUTE;
const INCOMING_RECORDS: (&str, &str) = ("AWS/Kinesis", "IncomingRecords");
const FIVE_MINUTES: Duration = Duration::from_secs(300);
/// CloudWatch keeps values of a minute for 15 days, and of five minutes for 63.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html>
const MINUTES_KEPT_MILLIS: i64 = 15 * 24 * 60 * MILLIS_PER_MINUTE;

/// Whose progress is read.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    pub stream_name: &'a str,
    pub landing_function_name: &'a str,
    /// The longest that an invocation of it takes.
    pub landing_timeout_millis: i64,
}

/// How far landing has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landing {
    /// What arrived before this has been read; `None` when CloudWatch has no values.
    pub read_up_to: Option<UnixMillis>,
    /// Landing is working at what arrived after this; `None` when it was not invoked lately.
    pub landed_up_to: Option<UnixMillis>,
    /// Whether batches were given back, failed or were throttled lately.
    is_failing: bool,
    /// Whether records arrived lately and landing was not invoked.
    is_idle: bool,
}

impl Landing {
    /// Looks at the minutes before a time.
    ///
    /// # Errors
    ///
    /// When CloudWatch does not answer, or only in part.
    pub async fn read(metrics: &impl Metrics, watched: &Watched<'_>, at: UnixMillis) -> Result<Self, MetricsError> {
        let stream = ("StreamName", watched.stream_name);
        let landing = ("FunctionName", watched.landing_function_name);
        let window = (UnixMillis(at.0 - WINDOW_MILLIS), at);
        let age = ("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds");
        let read = metrics.read(&Query::by_minute(age, stream, "Maximum", window)).await?;
        let landed = metrics.read(&Query::by_minute(("AWS/Lambda", "IteratorAge"), landing, "Maximum", window)).await?;
        let attempts = (UnixMillis(at.0 - watched.landing_timeout_millis - RETRY_MILLIS), at);
        let given_back = (NAMESPACE, Metric::GivenBackBatches.as_str());
        let mut is_failing = false;
        for failures in [given_back, ("AWS/Lambda", "Errors"), ("AWS/Lambda", "Throttles")] {
            let counts = metrics.read(&Query::by_minute(failures, landing, "Sum", attempts)).await?;
            is_failing |= counts.iter().any(|(_, count)| *count > 0.0);
        }
        let a_while_ago = (window.0, UnixMillis(at.0 - INVOKED_AFTER_MILLIS));
        let arrived = metrics.read(&Query::by_minute(INCOMING_RECORDS, stream, "Sum", a_while_ago)).await?;
        let is_idle = landed.is_empty() && arrived.iter().any(|(_, records)| *records > 0.0);
        Ok(Self { read_up_to: up_to(&read), landed_up_to: up_to(&landed), is_failing, is_idle })
    }

    /// What landing may still owe of what arrived before a time, as far as it is known.
    #[must_use]
    pub fn owes(self, before: UnixMillis) -> Vec<Missing> {
        let unread = self.read_up_to.filter(|read_up_to| *read_up_to < before);
        let unread = unread.map(|read_up_to| Missing::UnreadRecords { read_up_to });
        let unlanded = self.landed_up_to.filter(|landed_up_to| *landed_up_to < before);
        let unlanded = unlanded.map(|landed_up_to| Missing::UnlandedRecords { landed_up_to });
        let failing = self.is_failing.then_some(Missing::FailingBatches);
        let idle = self.is_idle.then_some(Missing::IdleLanding);
        unread.into_iter().chain(unlanded).chain(failing).chain(idle).collect()
    }
}

/// Records that arrived in the hour before, in an hour and in the one after; `None` when CloudWatch has no values of the
/// hour itself.
pub(super) async fn arrived(
    metrics: &impl Metrics,
    config: &Config,
    hour: UtcHour,
    at: UnixMillis,
) -> Result<Option<[Counted; 3]>, MetricsError> {
    let from = hour.plus(-1).start();
    let around = (from, hour.plus(1).end());
    let query = Query::by_minute(INCOMING_RECORDS, ("StreamName", &config.stream_name), "Sum", around);
    let period = if at.0 - from.0 < MINUTES_KEPT_MILLIS { query.period } else { FIVE_MINUTES };
    let query = Query { period, ..query };
    let values = metrics.read(&query).await?;
    let is_known = values.iter().any(|(at, _)| (hour.start()..hour.end()).contains(at));
    Ok(is_known.then(|| [-1, 0, 1].map(|hours| counted(&values, hour.plus(hours), period))))
}

/// The time up to which all has been read or landed, by the newest minutes' largest ages.
fn up_to(ages: &[(UnixMillis, f64)]) -> Option<UnixMillis> {
    let (newest, _) = ages.last()?;
    let recent = ages.iter().filter(|(minute, _)| minute.0 > newest.0 - RECENT_MILLIS);
    // Ages of days in milliseconds are far below 2^53.
    #[allow(clippy::cast_possible_truncation)]
    recent.map(|(minute, age)| UnixMillis(minute.0.saturating_sub(age.ceil() as i64))).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn minute(minute: i64) -> UnixMillis {
        UnixMillis(minute * MILLIS_PER_MINUTE)
    }

    #[rstest]
    #[case::no_values(&[], None)]
    #[case::at_the_tip(&[(20, 0)], Some(20))]
    #[case::behind(&[(20, 7)], Some(13))]
    #[case::one_shard_was_behind_a_moment_ago(&[(17, 10), (20, 0)], Some(7))]
    #[case::and_caught_up_since(&[(10, 10), (20, 0)], Some(20))]
    #[case::the_newest_is_old(&[(8, 0)], Some(8))]
    fn the_worst_of_the_newest_minutes_decides_what_has_been_read(
        #[case] ages: &[(i64, i64)],
        #[case] expected: Option<i64>,
    ) {
        #[allow(clippy::cast_precision_loss)]
        let ages: Vec<(UnixMillis, f64)> =
            ages.iter().map(|(at, age)| (minute(*at), (age * MILLIS_PER_MINUTE) as f64)).collect();
        assert_eq!(up_to(&ages), expected.map(minute));
    }

    #[test]
    fn an_hour_is_owed_until_its_end_is_read_and_while_batches_fail() {
        let hour = UtcHour::parse("dt=2026-11-21/hour=09").unwrap();
        let owes = |read_up_to, landed_up_to, is_failing| {
            Landing { read_up_to, landed_up_to, is_failing, is_idle: false }.owes(hour.end()).len()
        };
        let (end, before) = (Some(hour.end()), Some(UnixMillis(hour.end().0 - 1)));
        assert_eq!(owes(end, end, false), 0);
        assert_eq!(owes(before, end, false), 1);
        assert_eq!(owes(end, before, false), 1);
        assert_eq!(owes(end, end, true), 1);
        assert_eq!(owes(None, None, false), 0);
    }
}
