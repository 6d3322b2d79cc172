//! The metrics of the flow by the minute, for the last hour.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use monitoring_lambdas::cloudwatch::{Metrics, MetricsError, Query};
use serde::Serialize;
use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::UnixMillis;

use crate::config::Config;

/// Values that are shown of each metric.
pub(crate) const STEPS: usize = 60;

/// A metric of the flow. The API names it as it is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    Accepted,
    Rejected,
    Unauthorized,
    Limited,
    NotStored,
    Spilled,
    OnStream,
    StreamAge,
    Landed,
    LandedRejected,
    Objects,
    Latency,
    GivenBack,
    LandingErrors,
    Loaded,
    LoadLag,
}

/// Whose metric it is.
#[derive(Debug, Clone, Copy)]
enum Of {
    Function(&'static str),
    Stream,
}

const INGEST: Of = Of::Function("IngestFunction");
const LANDING: Of = Of::Function("LandingFunction");
const LOADER: Of = Of::Function("LoadSearchFunction");

/// What each is in CloudWatch.
const SERIES: [(Name, Of, &str, &str, &str); 16] = [
    (Name::Accepted, INGEST, NAMESPACE, Metric::AcceptedEvents.as_str(), "Sum"),
    (Name::Rejected, INGEST, NAMESPACE, Metric::RejectedLines.as_str(), "Sum"),
    (Name::Unauthorized, INGEST, NAMESPACE, Metric::UnauthorizedRequests.as_str(), "Sum"),
    (Name::Limited, INGEST, NAMESPACE, Metric::LimitedRequests.as_str(), "Sum"),
    (Name::NotStored, INGEST, NAMESPACE, Metric::NotStoredEvents.as_str(), "Sum"),
    (Name::Spilled, INGEST, NAMESPACE, Metric::SpilledEvents.as_str(), "Sum"),
    (Name::OnStream, Of::Stream, "AWS/Kinesis", "IncomingRecords", "Sum"),
    (Name::StreamAge, Of::Stream, "AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", "Maximum"),
    (Name::Landed, LANDING, NAMESPACE, Metric::LandedEvents.as_str(), "Sum"),
    (Name::LandedRejected, LANDING, NAMESPACE, Metric::LandedRejected.as_str(), "Sum"),
    (Name::Objects, LANDING, NAMESPACE, Metric::LandedObjects.as_str(), "Sum"),
    (Name::Latency, LANDING, NAMESPACE, Metric::LandingLatency.as_str(), "Maximum"),
    (Name::GivenBack, LANDING, NAMESPACE, Metric::GivenBackBatches.as_str(), "Sum"),
    (Name::LandingErrors, LANDING, "AWS/Lambda", "Errors", "Sum"),
    (Name::Loaded, LOADER, NAMESPACE, Metric::LoadedDocuments.as_str(), "Sum"),
    (Name::LoadLag, LOADER, NAMESPACE, Metric::LoadLag.as_str(), "Maximum"),
];

/// Values by the step, the oldest first, up to the step that a time lies in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Values {
    pub(crate) step: Duration,
    /// The beginning of the last step.
    pub(crate) last: UnixMillis,
    pub(crate) series: BTreeMap<Name, Vec<Option<f64>>>,
}

impl Values {
    /// The values of the last so many steps; none of a metric that this stack does not have.
    fn last(&self, name: Name, steps: usize) -> impl Iterator<Item = f64> {
        let series = self.series.get(&name).map(Vec::as_slice).unwrap_or_default();
        series[series.len().saturating_sub(steps)..].iter().flatten().copied()
    }

    pub(crate) fn sum(&self, name: Name, steps: usize) -> f64 {
        self.last(name, steps).fold(0.0, |sum, value| sum + value)
    }

    /// `None` without a value.
    pub(crate) fn maximum(&self, name: Name, steps: usize) -> Option<f64> {
        self.last(name, steps).reduce(f64::max)
    }

    pub(crate) fn newest(&self, name: Name, steps: usize) -> Option<f64> {
        self.last(name, steps).last()
    }

    /// The first step that begins after a time, and in which there was any of it: its beginning. Without a time, the first of all.
    pub(crate) fn first_above_zero_after(&self, name: Name, after: Option<UnixMillis>) -> Option<UnixMillis> {
        let series = self.series.get(&name)?;
        let some = series.iter().enumerate().filter(|(_, value)| value.is_some_and(|value| value > 0.0));
        some.map(|(at, _)| self.at(series.len() - 1 - at)).find(|at| after.is_none_or(|after| *at > after))
    }

    /// The last step in which there was any of it: its beginning.
    pub(crate) fn last_above_zero(&self, name: Name) -> Option<UnixMillis> {
        let series = self.series.get(&name)?;
        series.iter().rev().position(|value| value.is_some_and(|value| value > 0.0)).map(|back| self.at(back))
    }

    /// The beginning of the step so many before the last.
    fn at(&self, back: usize) -> UnixMillis {
        let millis = i64::try_from(self.step.as_millis()).unwrap_or(i64::MAX);
        UnixMillis(self.last.0.saturating_sub(millis.saturating_mul(i64::try_from(back).unwrap_or(i64::MAX))))
    }
}

/// A minute; with a fast clock as many as pass in a real one.
pub(crate) fn step(config: &Config) -> Duration {
    let factor = 1.0 / config.clock.really(Duration::from_secs(1)).as_secs_f64();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let minutes = factor.ceil().max(1.0) as u64;
    Duration::from_secs(60 * minutes)
}

pub(crate) async fn read(metrics: &impl Metrics, config: &Config, now: UnixMillis) -> Result<Values, MetricsError> {
    let step = step(config);
    let millis = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
    let last = UnixMillis(now.0.div_euclid(millis) * millis);
    let from = UnixMillis(last.0 - millis * (i64::try_from(STEPS).unwrap_or_default() - 1));
    let reads = SERIES.iter().filter_map(|(name, of, namespace, metric, statistic)| {
        let dimension = match of {
            Of::Function(id) => ("FunctionName", config.function(id)?),
            Of::Stream => ("StreamName", config.stream.as_str()),
        };
        let times = (from, UnixMillis(last.0 + millis));
        let query = Query { period: step, ..Query::by_minute((namespace, metric), dimension, statistic, times) };
        Some(async move { Ok::<_, MetricsError>((*name, slots(&metrics.read(&query).await?, from, millis))) })
    });
    let series = try_join_all(reads).await?.into_iter().collect();
    Ok(Values { step, last, series })
}

fn slots(values: &[(UnixMillis, f64)], from: UnixMillis, millis: i64) -> Vec<Option<f64>> {
    let mut slots = vec![None; STEPS];
    for (time, value) in values {
        let at = usize::try_from((time.0 - from.0).div_euclid(millis)).ok();
        if let Some(slot) = at.and_then(|at| slots.get_mut(at)) {
            *slot = Some(*value);
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_their_steps_and_others_are_left_out() {
        let slots = slots(
            &[(UnixMillis(-1), 9.0), (UnixMillis(0), 1.0), (UnixMillis(119), 2.0), (UnixMillis(6_000), 9.0)],
            UnixMillis(0),
            100,
        );
        assert_eq!((slots.len(), slots[0], slots[1], slots[2]), (STEPS, Some(1.0), Some(2.0), None));
    }

    #[test]
    fn the_first_step_with_a_value_is_found() {
        let values = |series: Vec<Option<f64>>| Values {
            step: Duration::from_secs(60),
            last: UnixMillis(600_000),
            series: BTreeMap::from([(Name::Accepted, series)]),
        };
        let one = values(vec![Some(3.0), Some(0.0), None]);
        assert_eq!(one.first_above_zero_after(Name::Accepted, None), Some(UnixMillis(480_000)));
        assert_eq!(one.first_above_zero_after(Name::Accepted, Some(UnixMillis(479_999))), Some(UnixMillis(480_000)));
        assert_eq!(one.first_above_zero_after(Name::Accepted, Some(UnixMillis(480_000))), None);
        let two = values(vec![Some(3.0), Some(0.0), Some(1.0)]);
        assert_eq!(two.first_above_zero_after(Name::Accepted, None), Some(UnixMillis(480_000)));
        assert_eq!(two.first_above_zero_after(Name::Accepted, Some(UnixMillis(500_000))), Some(UnixMillis(600_000)));
        assert_eq!((one.sum(Name::Accepted, 2), one.sum(Name::Accepted, 9)), (0.0, 3.0));
        assert_eq!(one.newest(Name::Accepted, 3), Some(0.0));
        assert_eq!(one.last_above_zero(Name::Accepted), Some(UnixMillis(480_000)));
        assert_eq!((two.last_above_zero(Name::Accepted), two.last_above_zero(Name::Landed)), (Some(two.last), None));
        assert_eq!(values(vec![Some(0.0), None]).last_above_zero(Name::Accepted), None);
        assert_eq!(values(vec![Some(0.0)]).first_above_zero_after(Name::Accepted, None), None);
        assert_eq!((one.first_above_zero_after(Name::Landed, None), one.maximum(Name::Landed, 3)), (None, None));
    }
}
