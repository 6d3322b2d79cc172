//! The embedded CloudWatch: `PutMetricData`, `GetMetricData`, `GetMetricStatistics` and `ListMetrics` over the
//! [`MetricStore`], `DescribeAlarms` and `SetAlarmState` over the [`Alarms`]. No dashboards, and no metric math in queries.
//!
//! `winterbaume-cloudwatch` was looked at and not taken: it speaks the same protocols, and brings two hundred crates with a
//! C library that takes minutes to compile.

mod alarms;
mod get;
mod list;
mod protocol;
mod put;
mod request;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response, header};
use serde_json::{Value, json};

use crate::alarms::Alarms;
use crate::metric_store::MetricStore;
use request::{CloudWatchError, Result, read};

/// CloudWatch's limit for a request, as it travels.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

#[derive(Clone)]
pub struct CloudWatch {
    store: MetricStore,
    alarms: Alarms,
}

impl CloudWatch {
    pub fn new(store: MetricStore, alarms: Alarms) -> Self {
        Self { store, alarms }
    }

    /// Answers a request, if it is for CloudWatch.
    pub fn answer(&self, path: &str, headers: &HeaderMap, body: &Bytes) -> Option<Response<Body>> {
        let (operation, form) = protocol::operation(path, headers)?;
        let output = match body.len() {
            // Any page that is open in a browser on this machine could send such requests.
            _ if !headers.contains_key(header::AUTHORIZATION) => Err(CloudWatchError::Unsigned),
            ..=MAX_REQUEST_BYTES => protocol::decode(form, headers, body).and_then(|input| self.call(operation, input)),
            _ => Err(CloudWatchError::Malformed(format!("it has more than {MAX_REQUEST_BYTES} bytes"))),
        };
        Some(protocol::answer(form, output))
    }

    fn call(&self, operation: &str, input: Value) -> Result<Value> {
        match operation {
            "PutMetricData" => put::put_metric_data(&self.store, read(input)?).map(|()| json!({})),
            "GetMetricData" => get::get_metric_data(&self.store, read(input)?),
            "GetMetricStatistics" => get::get_metric_statistics(&self.store, read(input)?),
            "DescribeAlarms" => alarms::describe_alarms(&self.alarms, read(input)?),
            "SetAlarmState" => alarms::set_alarm_state(&self.alarms, &read(input)?).map(|()| json!({})),
            "ListMetrics" => list::list_metrics(&self.store, read(input)?),
            other => Err(CloudWatchError::Operation(other.to_owned())),
        }
    }
}
