//! Metrics that the checks put and read, and the only file here that knows the CloudWatch SDK.

use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::config::timeout::TimeoutConfig;
use aws_sdk_cloudwatch::error::DisplayErrorContext;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    Dimension, Metric as SdkMetric, MetricDataQuery, MetricDatum, MetricStat, ScanBy, StandardUnit,
};
use lambda_setup::sdk::SdkConfig;
use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::UnixMillis;

/// A value of one of our metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    pub metric: Metric,
    pub value: f64,
    pub at: UnixMillis,
    /// Names and values; CloudWatch tells metrics apart by them, so there must be few.
    pub dimensions: Vec<(&'static str, String)>,
}

/// A metric of any namespace, to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub namespace: String,
    pub name: String,
    pub dimensions: Vec<(String, String)>,
    /// `Sum`, `Average`, `Maximum`, `p99` …
    pub statistic: String,
    pub from: UnixMillis,
    /// Not included.
    pub to: UnixMillis,
    /// Length of what becomes one value each.
    pub period: Duration,
}

/// A call that CloudWatch refused or did not answer, after the SDK's retries.
#[derive(Debug, thiserror::Error)]
#[error("CloudWatch, {operation}: {problem}")]
pub struct MetricsError {
    operation: &'static str,
    problem: String,
}

impl MetricsError {
    /// For stores in tests, too.
    #[must_use]
    pub fn new(operation: &'static str, problem: String) -> Self {
        Self { operation, problem }
    }
}

/// Metrics that are put and read.
pub trait Metrics {
    /// At most 1,000 at once.
    fn put(&self, data: &[Datum]) -> impl Future<Output = Result<(), MetricsError>>;
    /// Times and values, oldest first; nothing where there is no data. At most 1,000 values.
    fn read(&self, query: &Query) -> impl Future<Output = Result<Vec<(UnixMillis, f64)>, MetricsError>>;
}

/// CloudWatch.
#[derive(Clone)]
pub struct CloudWatch {
    client: Client,
}

/// Attempts at a call, and how long each may take.
const ATTEMPTS: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

impl CloudWatch {
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        let builder = aws_sdk_cloudwatch::config::Builder::from(config)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build());
        Self { client: Client::from_conf(builder.build()) }
    }
}

impl Metrics for CloudWatch {
    async fn put(&self, data: &[Datum]) -> Result<(), MetricsError> {
        let put = self.client.put_metric_data().namespace(NAMESPACE);
        let put = put.set_metric_data(Some(data.iter().map(datum).collect()));
        put.send().await.map(|_| ()).map_err(|error| failed("PutMetricData", error))
    }

    async fn read(&self, query: &Query) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
        let get = self
            .client
            .get_metric_data()
            .start_time(DateTime::from_millis(query.from.0))
            .end_time(DateTime::from_millis(query.to.0))
            .scan_by(ScanBy::TimestampAscending)
            .max_datapoints(1_000)
            .metric_data_queries(metric_data_query(query));
        let answer = get.send().await.map_err(|error| failed("GetMetricData", error))?;
        let Some(result) = answer.metric_data_results().first() else { return Ok(Vec::new()) };
        let times = result.timestamps().iter().map(|time| {
            // Milliseconds of a time that CloudWatch gave fit.
            UnixMillis(time.to_millis().unwrap_or_default())
        });
        Ok(times.zip(result.values().iter().copied()).collect())
    }
}

fn datum(datum: &Datum) -> MetricDatum {
    let dimensions = datum.dimensions.iter().map(|(name, value)| dimension(name, value)).collect();
    MetricDatum::builder()
        .metric_name(datum.metric.as_str())
        .unit(StandardUnit::from(datum.metric.unit().as_str()))
        .value(datum.value)
        .timestamp(DateTime::from_millis(datum.at.0))
        .set_dimensions(Some(dimensions))
        .build()
}

fn dimension(name: &str, value: &str) -> Dimension {
    Dimension::builder().name(name).value(value).build()
}

fn metric_data_query(query: &Query) -> MetricDataQuery {
    let dimensions = query.dimensions.iter().map(|(name, value)| dimension(name, value)).collect();
    let metric = SdkMetric::builder()
        .namespace(&query.namespace)
        .metric_name(&query.name)
        .set_dimensions(Some(dimensions))
        .build();
    let period = i32::try_from(query.period.as_secs()).unwrap_or(i32::MAX);
    let stat = MetricStat::builder().metric(metric).stat(&query.statistic).period(period).build();
    MetricDataQuery::builder().id("m").metric_stat(stat).build()
}

fn failed(operation: &'static str, error: impl std::error::Error) -> MetricsError {
    MetricsError::new(operation, DisplayErrorContext(error).to_string())
}
