//! One request and its answer.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use shared::metric::Metric;
use shared::timestamp::UnixMillis;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use super::admin::READY_PATH;
use super::aside::Aside;
use super::body::{Body, Held, SMALL_BYTES};
use super::detached::Detached;
use super::progress::{CROWDED_TIMEOUT, Progress};
use super::{Phase, Server};
use crate::answer::{Answer, Reply, Unread};
use crate::config::Config;
use crate::inflate::GZIP_MAGIC;
use crate::intake::{Arrival, Draft, Head, Headers, OptionalHeader};
use crate::metrics;
use crate::put::PutReport;

/// What each request may keep of its head, as [`crate::commit`] counts it. With HTTP/2 a client repeats 16 KiB for a few bytes.
const USUAL_HEAD_BYTES: usize = 1024;
/// A compressed body of more bytes than this may be too much work to decode between other requests.
const SMALL_COMPRESSED_BYTES: usize = 512;

/// Whose connection it is.
pub(super) struct Client {
    pub(super) server: Arc<Server>,
    pub(super) aside: Arc<Aside>,
    pub(super) address: IpAddr,
    pub(super) progress: Progress,
    /// From when on the connection takes no more requests.
    pub(super) ends_at: Instant,
    /// What the thread waits for before it ends.
    pub(super) alive: mpsc::Sender<()>,
}

/// A request that was read as far as it is needed.
struct Received {
    method: Method,
    uri: Uri,
    headers: Headers,
    client: IpAddr,
    /// Or the answer without it.
    body: Result<Body, Answer>,
    at: UnixMillis,
    began: Instant,
    _kept: Option<Kept>,
}

/// What a request takes of the server's bounds beside its body, until it is answered.
struct Kept {
    /// Of the room for bodies, if its head is unusually large.
    _head: Held,
    /// Only of HTTP/2: one of HTTP/1.1 is its connection's.
    stream: Option<OwnedSemaphorePermit>,
}

impl Client {
    pub(super) async fn exchange(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let _active = self.progress.begin();
        let (began, at) = (Instant::now(), lambda_setup::now());
        let (Parts { method, uri, headers: map, version, .. }, body) = request.into_parts();
        if uri.path() == READY_PATH && matches!(method, Method::GET | Method::HEAD) {
            return Ok(self.finish(self.server.readiness(), version, false));
        }
        let headers = headers_of(&map, &uri, self.server.intake.config());
        // Up to 16 KiB, which need not wait with the request.
        drop(map);
        let head = Head { method: method.as_str(), path: uri.path(), headers: &headers };
        let (has_body, by_head) = (!body.is_end_stream(), self.server.intake.answer_to_head(head, at));
        let (body, kept) = match by_head {
            Some(answer) => (Err(answer), None),
            None => self.server.read_body(body, version, &uri, &headers).await,
        };
        let is_last = (has_body && body.is_err()) || began >= self.ends_at;
        let client = self.server.config.trusted_proxies.client(self.address, headers.forwarded_for.as_deref());
        let received = Received { method, uri, headers, client, body, at, began, _kept: kept };
        let (server, aside, alive) = (self.server.clone(), self.aside.clone(), self.alive.clone());
        // What a client that goes away has sent is stored and counted all the same.
        let handled = Detached::new(async move {
            let reply = server.handle(received, &aside).await;
            drop(alive);
            reply
        });
        Ok(self.finish(handled.await.unwrap_or_else(|_panic| failed()), version, is_last))
    }

    fn finish(&self, reply: Reply, version: Version, is_last: bool) -> Response<Full<Bytes>> {
        let Reply { status, headers, body } = reply;
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let map = response.headers_mut();
        for (name, value) in headers {
            let value = match value {
                Cow::Borrowed(value) => HeaderValue::from_static(value),
                // Those that clients chose were looked at when they were echoed.
                Cow::Owned(value) => match HeaderValue::try_from(value) {
                    Ok(value) => value,
                    Err(_) => continue,
                },
            };
            map.insert(HeaderName::from_static(name), value);
        }
        if version < Version::HTTP_2 && (is_last || self.server.phase() != Phase::Serving) {
            map.insert(header::CONNECTION, HeaderValue::from_static("close"));
            self.progress.leave_unread();
        }
        response
    }
}

impl Server {
    pub(super) fn readiness(&self) -> Reply {
        let (status, body) = match self.phase() {
            Phase::Serving => (200, r#"{"status":"ready"}"#),
            Phase::Draining | Phase::Stopping => (503, r#"{"status":"draining"}"#),
        };
        Reply { status, headers: vec![("content-type", "application/json".into())], body: body.into() }
    }

    /// The body, and what the request takes beside it.
    async fn read_body(
        &self,
        body: Incoming,
        version: Version,
        uri: &Uri,
        headers: &Headers,
    ) -> (Result<Body, Answer>, Option<Kept>) {
        match self.keep(version, uri, headers) {
            Ok(kept) => {
                let read = self.bodies.read(body);
                let body = if kept.stream.is_some() { self.read_stream(read).await } else { read.await };
                (body.map_err(Answer::Unread), Some(kept))
            }
            Err(full) => (Err(Answer::Unread(full)), None),
        }
    }

    fn keep(&self, version: Version, uri: &Uri, headers: &Headers) -> Result<Kept, Unread> {
        let stream = (version >= Version::HTTP_2).then(|| self.streams.clone().try_acquire_owned()).transpose();
        let path_bytes = uri.path_and_query().map_or(0, |path| path.as_str().len());
        let head = self.bodies.hold((headers.bytes() + path_bytes).saturating_sub(USUAL_HEAD_BYTES))?;
        Ok(Kept { _head: head, stream: stream.map_err(|_| Unread::NoRoom)? })
    }

    /// A body on a stream, which has less time while few are left for others.
    async fn read_stream(&self, read: impl Future<Output = Result<Body, Unread>>) -> Result<Body, Unread> {
        let mut read = pin!(read);
        loop {
            match tokio::time::timeout(CROWDED_TIMEOUT, read.as_mut()).await {
                Ok(body) => return body,
                Err(_) if self.streams.available_permits() <= self.config.max_connections / 10 => {
                    return Err(Unread::TooSlow);
                }
                Err(_) => {}
            }
        }
    }

    async fn handle(self: Arc<Self>, mut received: Received, aside: &Aside) -> Reply {
        let body_bytes = received.body.as_ref().map_or(0, |body| body.len());
        let (answer, report) = match received.body {
            Err(answer) => {
                received.body = Ok(Body::default());
                (answer, PutReport::default())
            }
            Ok(_) => {
                let draft = match received.is_heavy() {
                    false => received.read(&self),
                    true => {
                        let draft;
                        (draft, received) = read_aside(aside, self.clone(), received).await;
                        draft
                    }
                };
                // Its lines are what waits from here on.
                received.body = Ok(Body::default());
                self.store(draft).await
            }
        };
        let times = [(Metric::HandlingTime, received.began.elapsed().as_micros() as u64)];
        let mut values = metrics::of_request(&report, answer.answered(), body_bytes, &times);
        values.extend(answer.turned_away());
        self.tally.add(received.at, self.intake.app(&received.headers), &values);
        answer.into_reply(received.head(), &self.intake.config().allowed_origins)
    }

    async fn store(&self, draft: Draft) -> (Answer, PutReport) {
        let (records, conclusion) = draft.into_parts();
        if records.is_empty() {
            return (conclusion.answer(&PutReport::default()), PutReport::default());
        }
        let report = match self.commit.submit(records) {
            // It is answered unless the thread that does it is gone, and then the process ends.
            Ok(report) => report.await.ok(),
            Err(report) => Some(report),
        };
        match report {
            Some(report) => (conclusion.answer(&report), report),
            None => (Answer::Unread(Unread::NoRoom), PutReport::default()),
        }
    }
}

/// Reads a request that may be much work on another thread than that which serves its connection and others.
async fn read_aside(aside: &Aside, server: Arc<Server>, received: Received) -> (Draft, Received) {
    let client = received.client;
    let read = move || (received.read(&server), received);
    match aside.run(client, read).await {
        Ok(read) => read,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
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
fn headers_of(map: &HeaderMap, uri: &Uri, config: &Config) -> Headers {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers = Headers::default();
    let needs_key = !config.write_keys.is_empty();
    if let (true, Some(query)) = (needs_key, uri.query()) {
        headers.key.add_query(query);
    }
    let reads_optional = needs_key || config.client_context.reads_more_headers();
    for (name, value) in map {
        if reads_optional && let Some(header) = OptionalHeader::named(name.as_str()) {
            headers.add_optional(header, String::from_utf8_lossy(value.as_bytes()));
            continue;
        }
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

fn failed() -> Reply {
    tracing::error!("a request failed: the panic above says why");
    let body = r#"{"error":{"code":"internal_error","message":"send all again later"}}"#;
    Reply { status: 500, headers: vec![("content-type", "application/json".into())], body: body.into() }
}
