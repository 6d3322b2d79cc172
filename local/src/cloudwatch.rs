//! The embedded CloudWatch: `PutMetricData`, `GetMetricData`, `GetMetricStatistics` and `ListMetrics` over the
//! [`MetricStore`]. No alarms, dashboards or metric math.
//!
//! `winterbaume-cloudwatch` was looked at and not taken: it speaks the same protocols, and brings two hundred crates with a
//! C library that takes minutes to compile.

mod get;
mod list;
mod protocol;
mod put;

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::timestamp::UnixMillis;

use crate::body::{self, BodyError};
use crate::metric_store::{MetricStore, NotKept};
use protocol::Form;

/// CloudWatch's limit for a request, as it travels.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// The service.
#[derive(Clone)]
pub struct CloudWatch {
    store: MetricStore,
}

/// A request that is refused.
#[derive(Debug, thiserror::Error)]
enum CloudWatchError {
    #[error("the request can't be read: {0}")]
    Malformed(String),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("{0}")]
    Value(String),
    #[error("the parameter {0} is missing")]
    Missing(&'static str),
    #[error("the token is not one of this listing")]
    Token,
    #[error("{0} is not played locally")]
    Operation(String),
    #[error("{0}")]
    NotKept(#[from] NotKept),
    #[error("the request is not signed")]
    Unsigned,
}

impl CloudWatchError {
    /// CloudWatch's code for it.
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Body(_) => "SerializationException",
            Self::Value(_) | Self::NotKept(NotKept::TooOld | NotKept::TooNew) => "InvalidParameterValue",
            Self::NotKept(NotKept::TooManyMetrics) => "LimitExceeded",
            Self::Missing(_) => "MissingParameter",
            Self::Token => "InvalidNextToken",
            Self::Operation(_) => "UnknownOperationException",
            Self::Unsigned => "MissingAuthenticationToken",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unsigned => StatusCode::FORBIDDEN,
            Self::Body(problem) => problem.status(),
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

type Result<T> = std::result::Result<T, CloudWatchError>;

/// A metric's dimension.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dimension {
    name: String,
    value: String,
}

fn by_name(dimensions: Vec<Dimension>) -> BTreeMap<String, String> {
    dimensions.into_iter().map(|dimension| (dimension.name, dimension.value)).collect()
}

/// Seconds since 1970, as both protocols have them.
fn time(seconds: f64) -> UnixMillis {
    UnixMillis::from_seconds(seconds)
}

/// A position in a list as a token, and back.
fn position(token: Option<&str>) -> Result<usize> {
    token.map_or(Ok(0), |token| token.parse().map_err(|_| CloudWatchError::Token))
}

impl CloudWatch {
    #[must_use]
    pub fn new(store: MetricStore) -> Self {
        Self { store }
    }

    /// Whether a request is for CloudWatch.
    #[must_use]
    pub fn handles(&self, path: &str, headers: &HeaderMap) -> bool {
        protocol::operation(path, headers).is_some()
    }

    /// Answers a request that is for CloudWatch.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Some((operation, form)) = protocol::operation(parts.uri.path(), &parts.headers) else {
            let other = CloudWatchError::Operation(parts.uri.path().to_owned());
            return protocol::answer(Form::Json, Err(other));
        };
        let output = match body::read(body, MAX_REQUEST_BYTES).await {
            // Any page that is open in a browser on this machine could send such requests.
            _ if !parts.headers.contains_key(header::AUTHORIZATION) => Err(CloudWatchError::Unsigned),
            Ok(body) => protocol::decode(form, &parts.headers, &body).and_then(|input| self.call(operation, input)),
            Err(problem) => Err(problem.into()),
        };
        protocol::answer(form, output)
    }

    fn call(&self, operation: &str, input: Value) -> Result<Value> {
        match operation {
            "PutMetricData" => put::put_metric_data(&self.store, read(input)?).map(|()| json!({})),
            "GetMetricData" => get::get_metric_data(&self.store, read(input)?),
            "GetMetricStatistics" => get::get_metric_statistics(&self.store, read(input)?),
            "ListMetrics" => list::list_metrics(&self.store, read(input)?),
            other => Err(CloudWatchError::Operation(other.to_owned())),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(input: Value) -> Result<T> {
    T::deserialize(input).map_err(|problem| CloudWatchError::Malformed(problem.to_string()))
}

/// A service with one metric of these values, put at the start of the minute 1,000 and each third minute after it.
#[cfg(test)]
fn with_values(values: &[f64]) -> (MetricStore, crate::metric_store::MetricId) {
    use crate::metric_store::{MetricId, Sample};
    let origin = "1970-01-01T16:40:00.000Z x1".parse().unwrap();
    let store = MetricStore::new(crate::clock::Clock::new(Some(origin), lambda_setup::now()));
    let id = MetricId::new("Playhead", "AcceptedEvents", &[("FunctionName", "f")]);
    for (index, value) in values.iter().enumerate() {
        let minute = 1000 + 3 * i64::try_from(index).unwrap();
        store.record(&id, Some("Count"), UnixMillis(minute * 60_000), Sample::of(*value)).unwrap();
    }
    (store, id)
}
