//! One port that speaks Kinesis, S3 and CloudWatch, for the functions and for anyone who wants to look around, that takes
//! Lambda's `Invoke`, and that shows all metrics to Prometheus.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
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
use crate::server;

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
    /// Serves until the process ends: what is in S3 can be looked at as long as anything runs.
    pub async fn serve(self, listener: TcpListener) {
        let (_runs_on, stopping) = watch::channel(false);
        server::serve(listener, Door::Aws, move |_, request| self.clone().answer(request), stopping).await;
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, NoAnswer> {
        let target = request.headers().get("x-amz-target");
        let puts_records = target.is_some_and(|target| target.as_bytes().ends_with(b".PutRecords"));
        match (target.is_some(), self.faults.sender(request.headers())) {
            _ if request.uri().path() == CONTROL_PATH => Ok(self.faults.control(request).await),
            _ if request.uri().path() == METRICS_PATH => Ok(metrics(request.method(), &self.metrics)),
            _ if self.cloudwatch.is_asked(request.uri().path(), request.headers()) => {
                Ok(self.cloudwatch.answer(request).await)
            }
            _ if lambda::is_asked(request.uri().path()) => {
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
    let mut response = Response::new(Body::empty());
    if method == Method::GET {
        *response.body_mut() = Body::from(prometheus::page(store));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(prometheus::CONTENT_TYPE));
    } else {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}
