//! One request and its answer.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use shared::metric::Metric;
use shared::timestamp::UnixMillis;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::body::SMALL_BYTES;
use super::progress::Progress;
use super::{Phase, Server};
use crate::answer::{Answer, Reply, Unread};
use crate::inflate::GZIP_MAGIC;
use crate::intake::{Arrival, Draft, Head, Headers};
use crate::metrics;
use crate::put::PutReport;

/// A compressed body of more bytes than this may be too much work to decode between other requests.
const SMALL_COMPRESSED_BYTES: usize = 512;

/// Whose connection it is.
pub(super) struct Client {
    pub(super) server: Arc<Server>,
    pub(super) address: IpAddr,
    pub(super) progress: Progress,
    /// What the thread waits for before it ends.
    pub(super) alive: mpsc::Sender<()>,
}

/// A request that was read whole.
struct Received {
    method: Method,
    uri: Uri,
    headers: Headers,
    client: IpAddr,
    body: Result<Bytes, Unread>,
    at: UnixMillis,
    began: Instant,
}

impl Client {
    pub(super) async fn exchange(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let _active = self.progress.begin();
        let (began, at) = (Instant::now(), lambda_setup::now());
        let (Parts { method, uri, headers, version, .. }, body) = request.into_parts();
        if uri.path() == "/ready" {
            return Ok(self.finish(self.server.readiness(), version, false));
        }
        let body = self.server.bodies.read(body).await;
        let is_unread = body.is_err();
        let headers = headers_of(&headers);
        let client = self.server.config.trusted_proxies.client(self.address, headers.forwarded_for.as_deref());
        let received = Received { method, uri, headers, client, body, at, began };
        // A task of its own: what a client that goes away has sent is stored and counted all the same.
        let (server, alive) = (self.server.clone(), self.alive.clone());
        let handled = tokio::spawn(async move {
            let reply = server.handle(received).await;
            drop(alive);
            reply
        });
        let reply = handled.await;
        Ok(self.finish(reply.unwrap_or_else(|panic| failed(&panic)), version, is_unread))
    }

    fn finish(&self, reply: Reply, version: Version, is_last: bool) -> Response<Full<Bytes>> {
        let Reply { status, headers, body } = reply;
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let map = response.headers_mut();
        for (name, value) in headers {
            // Those that clients chose were looked at when they were echoed.
            if let Ok(value) = HeaderValue::try_from(value) {
                map.insert(HeaderName::from_static(name), value);
            }
        }
        if version < Version::HTTP_2 && (is_last || self.server.phase() != Phase::Serving) {
            map.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Server {
    fn readiness(&self) -> Reply {
        let (status, body) = match self.phase() {
            Phase::Serving => (200, r#"{"status":"ready"}"#),
            Phase::Draining | Phase::Stopping => (503, r#"{"status":"draining"}"#),
        };
        Reply { status, headers: vec![("content-type", "application/json".into())], body: body.into() }
    }

    async fn handle(self: Arc<Self>, received: Received) -> Reply {
        let body_bytes = received.body.as_ref().map_or(0, Bytes::len);
        let (answer, report, received) = match received.body {
            Err(unread) => (Answer::Unread(unread), PutReport::default(), received),
            Ok(_) => self.clone().store(received).await,
        };
        let times = [(Metric::HandlingTime, received.began.elapsed().as_micros() as u64)];
        let values = metrics::of_request(&report, answer.answered(), body_bytes, &times);
        self.tally.add(received.at, &values);
        answer.into_reply(received.head(), &self.intake.config().allowed_origins)
    }

    async fn store(self: Arc<Self>, received: Received) -> (Answer, PutReport, Received) {
        let (draft, mut received) = self.clone().read(received).await;
        // Its lines are what waits from here on.
        received.body = Ok(Bytes::new());
        let (records, conclusion) = draft.into_parts();
        if records.is_empty() {
            return (conclusion.answer(&PutReport::default()), PutReport::default(), received);
        }
        let report = match self.commit.submit(records) {
            // It is answered unless the thread that does it is gone, and then the process ends.
            Ok(report) => report.await.ok(),
            Err(report) => Some(report),
        };
        match report {
            Some(report) => (conclusion.answer(&report), report, received),
            None => (Answer::Unread(Unread::NoRoom), PutReport::default(), received),
        }
    }

    /// Reads a request: beside the others on this thread, unless it may be much work.
    async fn read(self: Arc<Self>, received: Received) -> (Draft, Received) {
        if !received.is_heavy() {
            return (received.read(&self), received);
        }
        let read = move || (received.read(&self), received);
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

impl Received {
    fn head(&self) -> Head<'_> {
        Head { method: self.method.as_str(), path: self.uri.path(), headers: &self.headers }
    }

    fn is_heavy(&self) -> bool {
        let Ok(body) = &self.body else { return false };
        let is_compressed = self.headers.content_encoding.is_some() || body.starts_with(GZIP_MAGIC);
        body.len() > if is_compressed { SMALL_COMPRESSED_BYTES } else { SMALL_BYTES }
    }

    fn read(&self, server: &Server) -> Draft {
        let request_id = Uuid::now_v7().to_string();
        server.intake.read(&Arrival {
            head: self.head(),
            body: self.body.as_deref().unwrap_or_default(),
            damage: None,
            client: Some(self.client),
            at: self.at,
            request_id: &request_id,
        })
    }
}

/// The values of a repeated header are joined with commas, as front doors of AWS do.
fn headers_of(map: &HeaderMap) -> Headers {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers = Headers::default();
    for (name, value) in map {
        match headers.wanted(name.as_str()) {
            Some(Some(before)) => {
                before.push(',');
                before.push_str(&text(value));
            }
            Some(slot) => *slot = Some(text(value)),
            None => {}
        }
    }
    headers
}

fn failed(panic: &tokio::task::JoinError) -> Reply {
    tracing::error!(%panic, "a request failed");
    let body = r#"{"error":{"code":"internal_error","message":"send all again later"}}"#;
    Reply { status: 500, headers: vec![("content-type", "application/json".into())], body: body.into() }
}
