//! The system's own metrics of a run's time, from CloudWatch.
//!
//! CloudWatch keeps them by the minute and is a minute or two late; the one-machine stack is not.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::DisplayErrorContext;
use aws_sdk_cloudwatch::types::Metric as SdkMetric;
use lambda_setup::sdk::with_retries;
use monitoring_lambdas::cloudwatch::{CloudWatch, Metrics, MetricsError, Query};
use shared::metric::{Metric, NAMESPACE, Unit};
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis};

use crate::aws;
use crate::result::MetricSeries;
use crate::run::unix_ms;

/// Attempts at `ListMetrics`, and how long each may take.
const ATTEMPTS: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A metric to look for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    namespace: &'static str,
    name: &'static str,
    /// Its series differ by this.
    dimension: &'static str,
    statistic: &'static str,
    unit: Unit,
}

const fn ours(metric: Metric, statistic: &'static str) -> Wanted {
    Wanted { namespace: NAMESPACE, name: metric.as_str(), dimension: FUNCTION, statistic, unit: metric.unit() }
}

const fn lambda(name: &'static str, statistic: &'static str, unit: Unit) -> Wanted {
    Wanted { namespace: "AWS/Lambda", name, dimension: FUNCTION, statistic, unit }
}

const fn kinesis(name: &'static str) -> Wanted {
    Wanted { namespace: "AWS/Kinesis", name, dimension: "StreamName", statistic: SUM, unit: Unit::Count }
}

const FUNCTION: &str = "FunctionName";
const SUM: &str = "Sum";
const AVERAGE: &str = "Average";
const MAXIMUM: &str = "Maximum";

/// In the order in which an event passes. AWS's own names are those of docs/METRICS.md.
const WANTED: [Wanted; 18] = [
    ours(Metric::AcceptedEvents, SUM),
    ours(Metric::RejectedLines, SUM),
    ours(Metric::NotStoredEvents, SUM),
    ours(Metric::ThrottledEntries, SUM),
    kinesis("IncomingRecords"),
    kinesis("WriteProvisionedThroughputExceeded"),
    ours(Metric::LandedRecords, SUM),
    ours(Metric::LandedEvents, SUM),
    ours(Metric::LandingLatency, AVERAGE),
    ours(Metric::LandingLatency, MAXIMUM),
    lambda("IteratorAge", MAXIMUM, Unit::Milliseconds),
    lambda("Invocations", SUM, Unit::Count),
    lambda("Duration", AVERAGE, Unit::Milliseconds),
    lambda("Duration", MAXIMUM, Unit::Milliseconds),
    lambda("Errors", SUM, Unit::Count),
    lambda("Throttles", SUM, Unit::Count),
    ours(Metric::PeakMemory, MAXIMUM),
    ours(Metric::GivenBackBatches, SUM),
];

/// The most series that are read, with a call each: a deployment has some sixty.
const MAX_SERIES: usize = 500;

/// The wanted metrics of functions and streams whose names begin with `prefix`, by the minute, from the minute of the start
/// until now: what was sent lands after the end.
pub(crate) async fn read(
    endpoint_url: Option<&str>,
    started_unix_ms: u64,
    prefix: &str,
) -> Result<Vec<MetricSeries>, MetricsError> {
    let config = aws::config(endpoint_url).await;
    let cloudwatch = CloudWatch::new(&config);
    let (from, to) = (minute(started_unix_ms, 0), minute(unix_ms(), 1));
    let mut series = Vec::new();
    for found in find(&Client::new(&with_retries(&config, ATTEMPTS, ATTEMPT_TIMEOUT)), prefix).await? {
        let values = cloudwatch.read(&found.query(from, to)).await?;
        if !values.is_empty() {
            series.push(found.series(&values));
        }
    }
    Ok(series)
}

/// A wanted metric of one function or stream.
#[derive(Debug)]
struct Found {
    wanted: Wanted,
    /// The function's or the stream's name.
    of: String,
}

impl Found {
    fn query(&self, from: UnixMillis, to: UnixMillis) -> Query {
        let Wanted { namespace, name, dimension, statistic, .. } = self.wanted;
        Query::by_minute((namespace, name), (dimension, &self.of), statistic, (from, to))
    }

    fn series(&self, values: &[(UnixMillis, f64)]) -> MetricSeries {
        let Wanted { namespace, name, statistic, unit, .. } = self.wanted;
        let seconds = |at: UnixMillis| u64::try_from(at.0 / 1_000).unwrap_or_default();
        MetricSeries {
            name: format!("{namespace} {name} ({})", self.of),
            statistic: statistic.to_owned(),
            unit: unit.as_str().to_owned(),
            points: values.iter().map(|(at, value)| (seconds(*at), *value)).collect(),
        }
    }
}

/// The series that there are, in the order of [`WANTED`]. Of Lambda's, only those of functions that put our metrics too: an
/// account has others.
async fn find(client: &Client, prefix: &str) -> Result<Vec<Found>, MetricsError> {
    let mut found = Vec::new();
    for wanted in WANTED {
        let list = client.list_metrics().namespace(wanted.namespace).metric_name(wanted.name);
        let mut pages = list.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| MetricsError::new("ListMetrics", DisplayErrorContext(error).to_string()))?;
            let names = page.metrics().iter().filter_map(|metric| name_of(metric, wanted.dimension, prefix));
            found.extend(names.map(|of| Found { wanted, of }));
        }
    }
    let ours: BTreeSet<String> =
        found.iter().filter(|one| one.wanted.namespace == NAMESPACE).map(|one| one.of.clone()).collect();
    found.retain(|one| one.wanted.dimension != FUNCTION || ours.contains(&one.of));
    found.truncate(MAX_SERIES);
    Ok(found)
}

/// Whose a metric is, if it is of one function or stream of the deployment as a whole.
fn name_of(metric: &SdkMetric, dimension: &str, prefix: &str) -> Option<String> {
    let [only] = metric.dimensions() else { return None };
    let of = only.value().filter(|of| of.starts_with(prefix))?;
    (only.name() == Some(dimension)).then(|| of.to_owned())
}

/// The beginning of the minute of a time, or of one so many minutes after it.
fn minute(unix_ms: u64, after: i64) -> UnixMillis {
    let minutes = i64::try_from(unix_ms).unwrap_or(i64::MAX) / MILLIS_PER_MINUTE;
    UnixMillis(minutes.saturating_add(after).saturating_mul(MILLIS_PER_MINUTE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_cloudwatch::types::Dimension;
    use rstest::rstest;

    fn metric(dimensions: &[(&str, &str)]) -> SdkMetric {
        let dimension = |(name, value): &(&str, &str)| Dimension::builder().name(*name).value(*value).build();
        SdkMetric::builder().set_dimensions(Some(dimensions.iter().map(dimension).collect())).build()
    }

    #[rstest]
    #[case::on_one_machine(&[("FunctionName", "ingest-lambda")], "", true)]
    #[case::of_the_stack(&[("FunctionName", "playhead-dev-IngestFunction-1")], "playhead-dev-", true)]
    #[case::of_another(&[("FunctionName", "playhead-prod-IngestFunction-1")], "playhead-dev-", false)]
    #[case::of_one_version(&[("FunctionName", "ingest-lambda"), ("Resource", "ingest-lambda:live")], "", false)]
    #[case::of_something_else(&[("StreamName", "event-stream")], "", false)]
    #[case::of_the_account(&[], "", false)]
    fn series_are_those_of_the_deployment(#[case] of: &[(&str, &str)], #[case] prefix: &str, #[case] is_taken: bool) {
        assert_eq!(name_of(&metric(of), "FunctionName", prefix).is_some(), is_taken);
    }
}
