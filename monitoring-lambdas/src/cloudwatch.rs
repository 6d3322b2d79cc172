//! Metrics that the checks put and read, and the only file here that knows the CloudWatch SDK.

use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::Region;
use aws_sdk_cloudwatch::error::DisplayErrorContext;
use aws_sdk_cloudwatch::operation::get_metric_data::GetMetricDataOutput;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    Dimension, MessageData, Metric as SdkMetric, MetricDataQuery, MetricDataResult, MetricDatum, MetricStat, ScanBy,
    StandardUnit, StatusCode,
};
use lambda_setup::sdk::{SdkConfig, with_retries};
use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::UnixMillis;

/// A value of one of our metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    pub metric: Metric,
    pub value: f64,
    pub at: UnixMillis,
    /// Names and values. Each combination is a metric of its own, so there must be few.
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
    /// What each value sums up.
    pub period: Duration,
}

impl Query {
    /// A metric of one resource, with a value for each minute from one time to another.
    pub fn by_minute(
        (namespace, name): (&str, &str),
        (dimension, value): (&str, &str),
        statistic: &str,
        (from, to): (UnixMillis, UnixMillis),
    ) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            dimensions: vec![(dimension.to_owned(), value.to_owned())],
            statistic: statistic.to_owned(),
            from,
            to,
            period: MINUTE,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// A call that CloudWatch refused, did not answer, or answered in part, after the SDK's retries.
#[derive(Debug, thiserror::Error)]
#[error("CloudWatch, {operation}: {problem}")]
pub struct MetricsError {
    operation: &'static str,
    problem: String,
}

impl MetricsError {
    /// For stores in tests, too.
    pub fn new(operation: &'static str, problem: String) -> Self {
        Self { operation, problem }
    }
}

/// Metrics that are put and read.
pub trait Metrics {
    /// Takes up to 1,000 at once.
    fn put(&self, data: &[Datum]) -> impl Future<Output = Result<(), MetricsError>>;
    /// Times and values, oldest first; nothing where there is no data. An answer that may lack values is an error, never an
    /// empty one. At most [`MAX_PAGES`] pages of 1,000 values.
    fn read(&self, query: &Query) -> impl Future<Output = Result<Vec<(UnixMillis, f64)>, MetricsError>>;
}

/// Puts what one function has found.
pub(crate) async fn put(
    metrics: &impl Metrics,
    function_name: &str,
    at: UnixMillis,
    values: &[(Metric, f64)],
) -> Result<(), MetricsError> {
    let datum = |&(metric, value): &(Metric, f64)| {
        let dimensions = vec![("FunctionName", function_name.to_owned())];
        Datum { metric, value, at, dimensions }
    };
    metrics.put(&values.iter().map(datum).collect::<Vec<_>>()).await
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
    pub fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(&with_retries(config, ATTEMPTS, ATTEMPT_TIMEOUT)) }
    }

    /// The one that has AWS's estimate of the bill, whatever the region is that it is for.
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/monitor_estimated_charges_with_cloudwatch.html>
    pub fn of_billing(config: &SdkConfig) -> Self {
        let config = with_retries(config, ATTEMPTS, ATTEMPT_TIMEOUT);
        let config = aws_sdk_cloudwatch::config::Builder::from(&config).region(Region::from_static("us-east-1"));
        Self { client: Client::from_conf(config.build()) }
    }
}

impl Metrics for CloudWatch {
    async fn put(&self, data: &[Datum]) -> Result<(), MetricsError> {
        let put = self.client.put_metric_data().namespace(NAMESPACE);
        let put = put.set_metric_data(Some(data.iter().map(datum).collect()));
        put.send().await.map(|_| ()).map_err(|error| failed("PutMetricData", error))
    }

    async fn read(&self, query: &Query) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
        let page = async |token: Option<String>| {
            let get = self
                .client
                .get_metric_data()
                .start_time(DateTime::from_millis(query.from.0))
                .end_time(DateTime::from_millis(query.to.0))
                .scan_by(ScanBy::TimestampAscending)
                .max_datapoints(PAGE_VALUES)
                .metric_data_queries(metric_data_query(query))
                .set_next_token(token);
            get.send().await.map_err(|error| failed(GET_METRIC_DATA, error))
        };
        read_pages(&query.name, page).await
    }
}

const GET_METRIC_DATA: &str = "GetMetricData";
/// The most values a page.
const PAGE_VALUES: i32 = 1_000;
/// The most pages that are read of one metric.
pub(crate) const MAX_PAGES: usize = 20;

/// Reads pages until there is no token; an error if that was not the end.
async fn read_pages(
    metric: &str,
    page: impl AsyncFn(Option<String>) -> Result<GetMetricDataOutput, MetricsError>,
) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
    let incomplete = |problem: String| MetricsError::new(GET_METRIC_DATA, format!("{metric}: {problem}"));
    let (mut values, mut token) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let answer = page(token.take()).await?;
        if !answer.messages().is_empty() {
            return Err(incomplete(format!("CloudWatch answered in part: {}", messages(answer.messages()))));
        }
        let is_last = answer.next_token().is_none();
        match answer.metric_data_results() {
            [result] => {
                check_status(result, is_last).map_err(incomplete)?;
                add_values(result, &mut values).map_err(incomplete)?;
            }
            [] if !is_last => {}
            results => return Err(incomplete(format!("{} results for one query", results.len()))),
        }
        if is_last {
            return Ok(values);
        }
        token = answer.next_token;
    }
    Err(incomplete(format!("more than {MAX_PAGES} pages")))
}

/// Whether a page has what it should: all that is left, or a part if a token follows.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDataResult.html>
fn check_status(result: &MetricDataResult, is_last: bool) -> Result<(), String> {
    match result.status_code() {
        Some(StatusCode::Complete) => Ok(()),
        Some(StatusCode::PartialData) if !is_last => Ok(()),
        status => {
            let status = status.map_or("none", StatusCode::as_str);
            Err(format!("StatusCode is {status}: {}", messages(result.messages())))
        }
    }
}

fn add_values(result: &MetricDataResult, values: &mut Vec<(UnixMillis, f64)>) -> Result<(), String> {
    let (times, sums) = (result.timestamps(), result.values());
    if times.len() != sums.len() {
        return Err(format!("{} times for {} values", times.len(), sums.len()));
    }
    for (time, value) in times.iter().zip(sums) {
        let millis = time.to_millis().map_err(|error| format!("{time:?} is no time: {error}"))?;
        values.push((UnixMillis(millis), *value));
    }
    Ok(())
}

fn messages(all: &[MessageData]) -> String {
    if all.is_empty() {
        return "CloudWatch gives no reason".into();
    }
    let message = |message: &MessageData| {
        format!("{} {}", message.code().unwrap_or_default(), message.value().unwrap_or_default())
    };
    all.iter().map(message).collect::<Vec<_>>().join("; ")
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use rstest::rstest;

    /// A page that ends with a token, or the last one.
    fn page(result: Option<MetricDataResult>, token: Option<&str>) -> GetMetricDataOutput {
        let page = GetMetricDataOutput::builder().set_next_token(token.map(str::to_owned));
        page.set_metric_data_results(Some(result.into_iter().collect())).build()
    }

    fn result(status: Option<StatusCode>, values: &[(i64, f64)]) -> MetricDataResult {
        let times = values.iter().map(|(seconds, _)| DateTime::from_secs(*seconds)).collect();
        let values = values.iter().map(|(_, value)| *value).collect();
        let result = MetricDataResult::builder().id("m").set_status_code(status);
        result.set_timestamps(Some(times)).set_values(Some(values)).build()
    }

    /// Reads pages that follow one another, and the tokens that were sent.
    async fn read(
        pages: Vec<GetMetricDataOutput>,
    ) -> (Result<Vec<(UnixMillis, f64)>, MetricsError>, Vec<Option<String>>) {
        let pages = RefCell::new(pages.into_iter());
        let tokens: RefCell<Vec<Option<String>>> = RefCell::default();
        let next = async |token: Option<String>| {
            tokens.borrow_mut().push(token);
            pages.borrow_mut().next().ok_or_else(|| MetricsError::new("test", "there is no such page".into()))
        };
        let read = read_pages("AcceptedEvents", next).await;
        (read, tokens.into_inner())
    }

    #[tokio::test]
    async fn pages_are_read_to_the_end() {
        let (partial, complete) = (Some(StatusCode::PartialData), Some(StatusCode::Complete));
        let pages = vec![
            page(Some(result(partial, &[(60, 1.0), (120, 2.0)])), Some("a")),
            page(None, Some("b")),
            page(Some(result(complete.clone(), &[(180, 3.0)])), Some("c")),
            page(Some(result(complete, &[(240, 4.0)])), None),
        ];
        let (read, tokens) = read(pages).await;
        let expected = [(60_000, 1.0), (120_000, 2.0), (180_000, 3.0), (240_000, 4.0)];
        assert_eq!(read.unwrap(), expected.map(|(at, value)| (UnixMillis(at), value)));
        assert_eq!(tokens, [None, Some("a".into()), Some("b".into()), Some("c".into())]);
    }

    #[rstest]
    #[case::no_data(Some(StatusCode::Complete), true)]
    #[case::a_part_without_a_token(Some(StatusCode::PartialData), false)]
    #[case::internal_error(Some(StatusCode::InternalError), false)]
    #[case::forbidden(Some(StatusCode::from("Forbidden")), false)]
    #[case::a_status_that_is_not_known(Some(StatusCode::from("Later")), false)]
    #[case::no_status(None, false)]
    #[tokio::test]
    async fn an_empty_answer_is_no_data_only_if_it_is_complete(
        #[case] status: Option<StatusCode>,
        #[case] is_read: bool,
    ) {
        let (read, _) = read(vec![page(Some(result(status, &[])), None)]).await;
        assert_eq!(read.is_ok_and(|values| values.is_empty()), is_read);
    }

    #[rstest]
    #[case::internal_error(StatusCode::InternalError)]
    #[case::forbidden(StatusCode::from("Forbidden"))]
    #[tokio::test]
    async fn a_failed_page_fails_the_read_even_if_more_follow(#[case] status: StatusCode) {
        let last = page(Some(result(Some(StatusCode::Complete), &[(60, 1.0)])), None);
        let (read, _) = read(vec![page(Some(result(Some(status), &[])), Some("a")), last]).await;
        assert!(read.is_err());
    }

    #[tokio::test]
    async fn an_answer_without_a_result_or_with_a_message_is_an_error() {
        assert!(read(vec![page(None, None)]).await.0.is_err());
        let mut answer = page(Some(result(Some(StatusCode::Complete), &[(60, 1.0)])), None);
        answer.messages = Some(vec![MessageData::builder().code("MaxMetricsExceeded").value("too many").build()]);
        let (read, _) = read(vec![answer]).await;
        assert!(read.unwrap_err().to_string().contains("MaxMetricsExceeded too many"));
    }

    #[tokio::test]
    async fn times_without_values_are_an_error() {
        let mut uneven = result(Some(StatusCode::Complete), &[(60, 1.0), (120, 2.0)]);
        uneven.values = Some(vec![1.0]);
        assert!(read(vec![page(Some(uneven), None)]).await.0.is_err());
    }

    #[tokio::test]
    async fn at_most_the_allowed_number_of_pages_is_read() {
        let pages = |count: usize| {
            let mut pages: Vec<_> = (0..count).map(|_| page(None, Some("on"))).collect();
            pages.push(page(Some(result(Some(StatusCode::Complete), &[])), None));
            pages
        };
        assert!(read(pages(MAX_PAGES - 1)).await.0.is_ok());
        let (read, tokens) = read(pages(MAX_PAGES)).await;
        assert!(read.is_err());
        assert_eq!(tokens.len(), MAX_PAGES);
    }
}
