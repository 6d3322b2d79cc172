//! The embedded CloudWatch: `PutMetricData`, `GetMetricData`, `GetMetricStatistics` and `ListMetrics` over the
//! [`MetricStore`]. No alarms, dashboards or metric math.
//!
//! `winterbaume-cloudwatch` was looked at and not taken: it speaks the same protocols, and brings two hundred crates with a
//! C library that takes minutes to compile.

mod get;
mod list;
mod protocol;
mod put;
mod request;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, header};
use serde_json::{Value, json};

use crate::body;
use crate::metric_store::MetricStore;
use protocol::Form;
use request::{CloudWatchError, Result, read};

/// CloudWatch's limit for a request, as it travels.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// The service.
#[derive(Clone)]
pub struct CloudWatch {
    store: MetricStore,
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
