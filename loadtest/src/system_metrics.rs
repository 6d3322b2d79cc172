//! The system's own metrics of a run's time, from CloudWatch: the only file here that knows its SDK.
//!
//! CloudWatch keeps them by the minute and is a minute or two late; the one-machine stack is not.

use std::collections::BTreeSet;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::DisplayErrorContext;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Metric as SdkMetric, MetricDataQuery, MetricStat, ScanBy, StatusCode};
use shared::metric::{Metric, NAMESPACE, Unit};

use crate::aws;
use crate::result::MetricSeries;
use crate::run::unix_ms;

/// CloudWatch refused, or did not answer after the SDK's retries.
#[derive(Debug, thiserror::Error)]
#[error("CloudWatch, {operation}: {problem}")]
pub(crate) struct MetricsError {
    operation: &'static str,
    problem: String,
}

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

/// The finest that CloudWatch keeps of them, in seconds.
const PERIOD_SECONDS: i32 = 60;
const MINUTE_MS: u64 = 60_000;
/// What one `GetMetricData` takes.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html>
const MAX_SERIES: usize = 500;

/// The wanted metrics of functions and streams whose names begin with `prefix`, by the minute, from the minute of the start
/// until now: what was sent lands after the end.
pub(crate) async fn read(
    endpoint_url: Option<&str>,
    started_unix_ms: u64,
    prefix: &str,
) -> Result<Vec<MetricSeries>, MetricsError> {
    let client = Client::new(&aws::config(endpoint_url).await);
    let found = find(&client, prefix).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut series: Vec<MetricSeries> = found.iter().map(Found::series).collect();
    let get = client
        .get_metric_data()
        .start_time(minute(started_unix_ms / MINUTE_MS))
        .end_time(minute(unix_ms() / MINUTE_MS + 1))
        .scan_by(ScanBy::TimestampAscending)
        .set_metric_data_queries(Some((0..).zip(&found).map(|(place, found)| found.query(place)).collect()));
    let mut pages = get.into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| failed("GetMetricData", error))?;
        for result in page.metric_data_results() {
            // Before the last page, PartialData means that more follows.
            let is_whole = match result.status_code() {
                Some(StatusCode::PartialData) => page.next_token().is_some(),
                status => status == Some(&StatusCode::Complete),
            };
            if !is_whole {
                let problem = format!("StatusCode is {:?}: {:?}", result.status_code(), result.messages());
                return Err(MetricsError { operation: "GetMetricData", problem });
            }
            let place = result.id().and_then(|id| id.strip_prefix('m')?.parse::<usize>().ok());
            let Some(series) = place.and_then(|place| series.get_mut(place)) else { continue };
            let seconds = result.timestamps().iter().map(|time| u64::try_from(time.secs()).unwrap_or_default());
            series.points.extend(seconds.zip(result.values().iter().copied()));
        }
    }
    series.retain(|series| !series.points.is_empty());
    Ok(series)
}

/// A wanted metric of one function or stream.
#[derive(Debug)]
struct Found {
    wanted: Wanted,
    metric: SdkMetric,
    /// The function's or the stream's name.
    of: String,
}

impl Found {
    /// Without its points.
    fn series(&self) -> MetricSeries {
        MetricSeries {
            name: format!("{} {} ({})", self.wanted.namespace, self.wanted.name, self.of),
            statistic: self.wanted.statistic.to_owned(),
            unit: self.wanted.unit.as_str().to_owned(),
            points: Vec::new(),
        }
    }

    fn query(&self, place: usize) -> MetricDataQuery {
        let stat = MetricStat::builder().metric(self.metric.clone()).stat(self.wanted.statistic).period(PERIOD_SECONDS);
        MetricDataQuery::builder().id(format!("m{place}")).metric_stat(stat.build()).build()
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
            let page = page.map_err(|error| failed("ListMetrics", error))?;
            let of_the_deployment = |metric: &SdkMetric| {
                let of = name_of(metric, wanted.dimension, prefix)?;
                Some(Found { wanted, of, metric: metric.clone() })
            };
            found.extend(page.metrics().iter().filter_map(of_the_deployment));
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

/// Minutes since 1970.
fn minute(minutes: u64) -> DateTime {
    DateTime::from_millis(i64::try_from(minutes * MINUTE_MS).unwrap_or(i64::MAX))
}

fn failed(operation: &'static str, error: impl std::error::Error) -> MetricsError {
    MetricsError { operation, problem: DisplayErrorContext(error).to_string() }
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
