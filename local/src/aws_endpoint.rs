//! Kinesis, S3 and CloudWatch, Lambda's `Invoke`, and all metrics for Prometheus behind one address.
//!
//! Two ports serve it: one for anyone who wants to look around, and one for the functions alone, so that nobody else can use
//! up their connections.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::cloudwatch::CloudWatch;
use crate::faults::{self, CONTROL_PATH, Faults, NoAnswer};
use crate::gate::Door;
use crate::lambda;
use crate::metric_store::MetricStore;
use crate::prometheus;
use crate::s3::S3;
use crate::server::Port;

/// Where Prometheus finds all metrics (GET, unsigned). No bucket of the template may have this name.
pub const METRICS_PATH: &str = "/metrics";

/// All services behind one address.
#[derive(Clone)]
pub struct AwsEndpoint {
    pub kinesis: Router,
    pub s3: S3,
    pub cloudwatch: CloudWatch,
    pub lambda: Router,
    pub metrics: MetricStore,
    pub faults: Arc<Faults>,
}

impl AwsEndpoint {
    /// Serves a port until the process ends: what is in S3 can be looked at as long as anything runs.
    pub(crate) async fn serve(self, listener: TcpListener, max_connections: usize) {
        let (_runs_on, stopping) = watch::channel(false);
        let port = Port { listener, door: Door::Aws, max_connections };
        port.serve(move |_, request| self.clone().answer(request), stopping).await;
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, NoAnswer> {
        let target = request.headers().get("x-amz-target");
        let puts_records = target.is_some_and(|target| target.as_bytes().ends_with(b".PutRecords"));
        match (target.is_some(), self.faults.sender(request.headers())) {
            _ if request.uri().path() == CONTROL_PATH => Ok(self.faults.control(request).await),
            _ if request.uri().path() == METRICS_PATH => Ok(metrics(request.method(), &self.metrics)),
            _ if self.cloudwatch.handles(request.uri().path(), request.headers()) => {
                Ok(self.cloudwatch.answer(request).await)
            }
            _ if lambda::handles(request.uri().path()) => {
                Ok(self.lambda.oneshot(request).await.unwrap_or_else(|never| match never {}))
            }
            (true, Some(sender)) if puts_records => {
                faults::put_records::answer(&self.faults, &sender, request, self.kinesis).await
            }
            (true, _) => Ok(self.kinesis.oneshot(request).await.unwrap_or_else(|never| match never {})),
            (false, Some(sender)) => faults::objects::answer(&self.faults, &sender, request, self.s3).await,
            (false, None) => Ok(self.s3.call(request).await),
        }
    }
}

fn metrics(method: &Method, store: &MetricStore) -> Response<Body> {
    if method != Method::GET {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET")]).into_response();
    }
    ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], prometheus::page(store)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asynchronous::InFlight;
    use crate::body;
    use crate::clock::Clock;
    use crate::faults::plan::Plan;
    use crate::kinesis::Kinesis;
    use crate::kinesis_api;
    use crate::s3_notifications::Notifications;
    use axum::body::Bytes;
    use hyper::body::{Body as HttpBody, Frame};
    use rstest::rstest;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    const TIME: Duration = Duration::from_secs(60);

    /// A body of which nothing arrives.
    struct Never;

    impl HttpBody for Never {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Poll::Pending
        }
    }

    fn endpoint(folder: &std::path::Path) -> AwsEndpoint {
        let clock = Clock::new(None, lambda_setup::now());
        let metrics = MetricStore::new(clock);
        let in_flight = InFlight::default();
        let notifications = Notifications::new(Vec::new(), Vec::new(), in_flight.clone(), clock);
        AwsEndpoint {
            kinesis: kinesis_api::router(Kinesis::start(metrics.clone(), clock)),
            s3: S3::start(folder, &["bucket".to_owned()], notifications, clock).unwrap(),
            cloudwatch: CloudWatch::new(metrics.clone()),
            lambda: lambda::router(Vec::new(), in_flight, clock),
            metrics,
            faults: Faults::new(Plan::default(), folder).unwrap(),
        }
    }

    #[rstest]
    #[case::s3("PUT", "/bucket/key", "")]
    #[case::kinesis("POST", "/", "Kinesis_20131202.PutRecords")]
    #[case::cloudwatch("POST", "/", "GraniteServiceVersion20100801.PutMetricData")]
    #[case::faults("PUT", CONTROL_PATH, "")]
    #[tokio::test]
    async fn an_upload_that_takes_too_long_is_answered_408(
        #[case] method: &str,
        #[case] path: &str,
        #[case] target: &str,
    ) {
        let folder = std::env::temp_dir().join(format!("aws-endpoint-{}", uuid::Uuid::new_v4()));
        let endpoint = endpoint(&folder);
        tokio::time::pause();
        let request = Request::builder().method(method).uri(path).header("authorization", "signed");
        let request = if target.is_empty() { request } else { request.header("x-amz-target", target) };
        let request = request.body(body::with_deadline(Never, TIME)).unwrap();
        assert_eq!(endpoint.answer(request).await.unwrap().status(), StatusCode::REQUEST_TIMEOUT);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
