//! How far landing has got in the stream, according to CloudWatch.
//!
//! Kinesis reports the age of the last record that each `GetRecords` call returned, 0 at the tip of a shard and without
//! traffic. So all that arrived before a minute less the largest age of that minute has been read, by every consumer that read
//! then.
//! <https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html>
//!
//! What was read need not have landed: the mapping buffers batches, and keeps one that was given back. Lambda reports the age
//! of the last record of each batch that it invokes landing with; landing, or Lambda in its place, counts each attempt that
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
use shared::timestamp::{UnixMillis, UtcHour};

use super::{Config, MILLIS_PER_MINUTE};
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
const MINUTE: Duration = Duration::from_secs(60);
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
    pub async fn look(metrics: &impl Metrics, watched: &Watched<'_>, at: UnixMillis) -> Result<Self, MetricsError> {
        let (stream, landing) = (watched.stream_name, watched.landing_function_name);
        let minutes = |millis: i64| (UnixMillis(at.0 - millis), at);
        let age = Series { namespace: "AWS/Kinesis", name: "GetRecords.IteratorAgeMilliseconds", statistic: "Maximum" };
        let read = age.read(metrics, ("StreamName", stream), minutes(WINDOW_MILLIS)).await?;
        let age = Series { namespace: "AWS/Lambda", name: "IteratorAge", statistic: "Maximum" };
        let landed = age.read(metrics, ("FunctionName", landing), minutes(WINDOW_MILLIS)).await?;
        let mut is_failing = false;
        let given_back = Metric::GivenBackBatches.as_str();
        for (namespace, name) in [(NAMESPACE, given_back), ("AWS/Lambda", "Errors"), ("AWS/Lambda", "Throttles")] {
            let failures = Series { namespace, name, statistic: "Sum" };
            let window = watched.landing_timeout_millis + RETRY_MILLIS;
            let counts = failures.read(metrics, ("FunctionName", landing), minutes(window)).await?;
            is_failing |= counts.iter().any(|(_, count)| *count > 0.0);
        }
        let incoming = Series { namespace: "AWS/Kinesis", name: "IncomingRecords", statistic: "Sum" };
        let a_while_ago = (UnixMillis(at.0 - WINDOW_MILLIS), UnixMillis(at.0 - INVOKED_AFTER_MILLIS));
        let arrived = incoming.read(metrics, ("StreamName", stream), a_while_ago).await?;
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
    let period = if at.0 - from.0 < MINUTES_KEPT_MILLIS { MINUTE } else { FIVE_MINUTES };
    let query = Query {
        namespace: "AWS/Kinesis".to_owned(),
        name: "IncomingRecords".to_owned(),
        dimensions: vec![("StreamName".to_owned(), config.stream_name.clone())],
        statistic: "Sum".to_owned(),
        from,
        to: hour.plus(1).end(),
        period,
    };
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

/// A metric and how its values become one a minute.
struct Series<'a> {
    namespace: &'a str,
    name: &'a str,
    statistic: &'a str,
}

impl Series<'_> {
    async fn read(
        &self,
        metrics: &impl Metrics,
        (dimension, value): (&str, &str),
        (from, to): (UnixMillis, UnixMillis),
    ) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
        let query = Query {
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            dimensions: vec![(dimension.to_owned(), value.to_owned())],
            statistic: self.statistic.to_owned(),
            from,
            to,
            period: MINUTE,
        };
        metrics.read(&query).await
    }
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
