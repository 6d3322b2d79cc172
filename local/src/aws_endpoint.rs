//! Kinesis, S3 and CloudWatch, Lambda's `Invoke`, SNS's `Publish`, SES's `SendEmail`, Parameter Store's `GetParameter`, and all
//! metrics for Prometheus behind one address.
//!
//! Two ports serve it: one for anyone who wants to look around, and one for the functions alone, so that nobody else can use
//! up their connections.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::cloudwatch::CloudWatch;
use crate::faults::{self, CONTROL_PATH, Faults, NoAnswer};
use crate::gate::Door;
use crate::kinesis::Kinesis;
use crate::metric_store::MetricStore;
use crate::s3::S3;
use crate::server::Port;
use crate::ses_api::Ses;
use crate::sns_api::Sns;
use crate::ssm_api::Ssm;
use crate::{kinesis_api, lambda, prometheus};

/// Where Prometheus finds all metrics (GET, unsigned). No bucket of the template may have this name.
pub const METRICS_PATH: &str = "/metrics";

#[derive(Clone)]
pub struct AwsEndpoint {
    pub kinesis: Kinesis,
    pub s3: S3,
    pub cloudwatch: CloudWatch,
    pub lambda: Router,
    pub metrics: MetricStore,
    pub faults: Arc<Faults>,
    pub(crate) sns: Sns,
    pub(crate) ses: Ses,
    pub(crate) ssm: Ssm,
}

impl AwsEndpoint {
    /// Serves a port until the process ends: what is in S3 can be looked at as long as anything runs.
    pub(crate) async fn serve(self, listener: TcpListener, max_connections: usize) {
        let (_runs_on, stopping) = watch::channel(false);
        let port = Port { listener, door: Door::Aws, max_connections };
        port.serve(move |_, request| self.clone().answer(request), stopping).await;
    }

    async fn answer(self, request: Request<Bytes>) -> Result<Response<Body>, NoAnswer> {
        let (path, headers) = (request.uri().path(), request.headers());
        if path == CONTROL_PATH {
            return Ok(self.faults.control(&request));
        }
        if path == METRICS_PATH {
            return Ok(metrics(request.method(), &self.metrics));
        }
        if lambda::handles(path) {
            return Ok(self.lambda.oneshot(request.map(Body::from)).await.unwrap_or_else(|never| match never {}));
        }
        if let Some(answer) = self.cloudwatch.answer(path, headers, request.body()) {
            return Ok(answer);
        }
        if let Some(answer) = self.ses.answer(&request) {
            return Ok(answer);
        }
        if let Some(answer) = self.sns.answer(&request) {
            return Ok(answer);
        }
        if let Some(answer) = self.ssm.answer(headers, request.body()) {
            return Ok(answer.map(Body::from));
        }
        let target = headers.get("x-amz-target");
        let puts_records = target.is_some_and(|target| target.as_bytes().ends_with(b".PutRecords"));
        match (target.is_some(), self.faults.sender(headers)) {
            (true, Some(sender)) if puts_records => {
                faults::put_records::answer(&self.faults, &sender, request, self.kinesis).await
            }
            (true, _) => Ok(kinesis_api::answer(&self.kinesis, headers, request.body()).map(Body::from)),
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
