//! The Function URL front door: HTTP in, payload format 2.0 to the function, its response out.
//! <https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use base64_simd::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::limits::MAX_LAMBDA_PAYLOAD_BYTES;
use shared::timestamp::UnixMillis;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::function::{Function, MAX_ENVIRONMENTS, new_request_id};
use crate::server::Port;
use crate::template::{ACCOUNT_ID, REGION};

/// Bytes of requests that may wait for an environment. Lambda would start more environments, up to the function's concurrency.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// A smaller request counts as this many, so at most 1,024 wait.
const MIN_QUEUE_BYTES: usize = 64 * 1024;
/// The longest wait for an environment: a player that waits longer has given up.
const QUEUE_TIME: Duration = Duration::from_secs(5);

pub(crate) struct FrontDoor {
    function: Arc<Function>,
    clock: Clock,
    queue: Queue,
    accepted: Arc<AtomicU64>,
}

impl FrontDoor {
    /// Requests get the clock's time, and the events that are answered as accepted are counted.
    pub(crate) fn new(function: Arc<Function>, clock: Clock, accepted: Arc<AtomicU64>) -> Self {
        let queue = Queue::new(function.places());
        Self { function, clock, queue, accepted }
    }

    /// Serves a port until the stack stops: invokes the function for each request.
    pub(crate) async fn serve(self, port: Port, stopping: watch::Receiver<bool>) {
        let front_door = Arc::new(self);
        let invoke = move |peer, request| {
            let front_door = front_door.clone();
            async move { Ok(front_door.invoke(peer, request).await) }
        };
        port.serve(invoke, stopping).await;
    }

    async fn invoke(self: Arc<Self>, peer: SocketAddr, request: Request<Bytes>) -> Response<Body> {
        let request_id = new_request_id();
        let payload = payload(&request, peer, &request_id, self.clock.now()).to_string();
        if payload.len() > MAX_LAMBDA_PAYLOAD_BYTES {
            return too_large();
        }
        let body_bytes = request.body().len();
        drop(request);
        // A task of its own: a client that hangs up does not stop its invocation.
        let answer = tokio::spawn(async move { self.answer(body_bytes, request_id, payload.into()).await });
        answer.await.unwrap_or_else(|panic| {
            warn!(%panic, "an HTTP invocation panicked");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        })
    }

    async fn answer(&self, body_bytes: usize, request_id: String, payload: Bytes) -> Response<Body> {
        let Some(place) = self.queue.place(body_bytes).await else {
            self.function.note_throttle();
            return too_many();
        };
        let problem = match self.function.invoke_in(place, request_id, payload).await.0 {
            Ok(answer) => match response(&answer) {
                Ok((response, accepted)) => {
                    self.accepted.fetch_add(accepted, Ordering::Relaxed);
                    return response;
                }
                Err(problem) => format!("the function's answer is no HTTP response: {problem}"),
            },
            Err(problem) => problem.to_string(),
        };
        warn!(problem, "an HTTP invocation failed");
        plain(StatusCode::BAD_GATEWAY, "Internal Server Error")
    }
}

/// Requests that wait for an environment, within bounds of bytes and of time.
struct Queue {
    environments: Arc<Semaphore>,
    /// An environment for requests without a body, such as those for `/health`: they don't queue behind events.
    without_body: Arc<Semaphore>,
    /// In KiB.
    room: Semaphore,
    is_full: AtomicBool,
}

impl Queue {
    fn new(environments: Arc<Semaphore>) -> Self {
        let (without_body, room) = (Arc::new(Semaphore::new(1)), Semaphore::new(QUEUE_BYTES / 1024));
        Self { environments, without_body, room, is_full: AtomicBool::new(false) }
    }

    /// A place for a request with a body of so many bytes. `None` when the queue is full, or no place came free in time.
    async fn place(&self, body_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let lane = if body_bytes == 0 { &self.without_body } else { &self.environments };
        let place = match lane.clone().try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => self.wait(body_bytes, lane.clone()).await,
        };
        let refused = place.is_none();
        // Said once, not with each request.
        if self.is_full.swap(refused, Ordering::Relaxed) != refused && refused {
            warn!("{MAX_ENVIRONMENTS} environments are busy, and requests are answered 429 now");
        }
        place
    }

    async fn wait(&self, body_bytes: usize, lane: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(body_bytes.max(MIN_QUEUE_BYTES).div_ceil(1024)).ok()?;
        let _room = self.room.try_acquire_many(kib).ok()?;
        timeout(QUEUE_TIME, lane.acquire_owned()).await.ok()?.ok()
    }
}

/// As Lambda answers an invocation beyond the function's concurrency.
/// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
fn too_many() -> Response<Body> {
    let body = json!({
        "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
        "Type": "User",
        "message": "Rate Exceeded.",
    });
    let headers = [("x-amzn-errortype", "TooManyRequestsException")];
    (StatusCode::TOO_MANY_REQUESTS, headers, Json(body)).into_response()
}

/// Lambda refuses it before the function sees it.
fn too_large() -> Response<Body> {
    warn!("a request over Lambda's 6 MiB was refused at the front door; no function saw it");
    plain(StatusCode::PAYLOAD_TOO_LARGE, "Request must be smaller than 6291456 bytes for the InvokeFunction operation")
}

fn plain(status: StatusCode, message: &str) -> Response<Body> {
    (status, Json(json!({"message": message}))).into_response()
}

fn payload(request: &Request<Bytes>, peer: SocketAddr, request_id: &str, at: UnixMillis) -> Value {
    let (uri, body) = (request.uri(), request.body());
    let text = text_body(request.headers(), body);
    let mut payload = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": uri.path(),
        "rawQueryString": uri.query().unwrap_or_default(),
        "headers": joined_headers(request.headers()),
        "requestContext": request_context(request, peer, request_id, at),
        "isBase64Encoded": text.is_none(),
    });
    if !body.is_empty() {
        payload["body"] = text.map_or_else(|| json!(BASE64.encode_to_string(body)), |text| json!(text));
    }
    payload
}

fn request_context(request: &Request<Bytes>, peer: SocketAddr, request_id: &str, at: UnixMillis) -> Value {
    let user_agent = request.headers().get(header::USER_AGENT);
    json!({
        "accountId": ACCOUNT_ID,
        "apiId": "local",
        "domainName": format!("local.lambda-url.{REGION}.on.aws"),
        "domainPrefix": "local",
        "http": {
            "method": request.method().as_str(),
            "path": request.uri().path(),
            "protocol": "HTTP/1.1",
            "sourceIp": peer.ip(),
            "userAgent": user_agent.map(|value| String::from_utf8_lossy(value.as_bytes())),
        },
        "requestId": request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": common_log_time(at),
        "timeEpoch": at.0,
    })
}

/// `21/Nov/2026:09:32:08 +0000`
fn common_log_time(at: UnixMillis) -> String {
    let format = format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
    let time = OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000)).ok();
    time.and_then(|time| time.format(format).ok()).unwrap_or_default()
}

/// Lower-case names; the values of a repeated header are joined with commas.
fn joined_headers(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let joined = |name: &HeaderName| headers.get_all(name).iter().map(text).collect::<Vec<_>>().join(",");
    headers.keys().map(|name| (name.as_str(), joined(name))).collect()
}

/// The body as text, if Lambda treats it as text; everything else travels as base64. It is not documented what Lambda does
/// with text that is not UTF-8; we assume base64.
fn text_body<'b>(headers: &HeaderMap, body: &'b Bytes) -> Option<&'b str> {
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = header(header::CONTENT_TYPE).to_ascii_lowercase();
    let text_types = ["text/", "application/json", "application/javascript", "application/xml"];
    let is_text = text_types.iter().any(|text_type| content_type.starts_with(text_type));
    let encoded = !header(header::CONTENT_ENCODING).is_empty();
    (body.is_empty() || is_text && !encoded).then(|| std::str::from_utf8(body).ok()).flatten()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionResponse {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// The response, and how many events it calls accepted.
fn response(answer: &[u8]) -> Result<(Response<Body>, u64), String> {
    let answer: FunctionResponse = serde_json::from_slice(answer).map_err(|problem| problem.to_string())?;
    let body = if answer.is_base64_encoded {
        BASE64.decode_to_vec(&answer.body).map_err(|problem| problem.to_string())?
    } else {
        answer.body.into_bytes()
    };
    let accepted = accepted(&body);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status_code).map_err(|problem| problem.to_string())?;
    for (name, value) in answer.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("header name {name:?}"))?;
        let value: HeaderValue = value.parse().map_err(|_| format!("value of the header {name}"))?;
        response.headers_mut().insert(name, value);
    }
    debug!(status = answer.status_code, "answered");
    Ok((response, accepted))
}

/// What ingest's answer `{"accepted":19,…` says, for the terminal alone: its first member is read, and no other answer counts.
fn accepted(body: &[u8]) -> u64 {
    let number = body.strip_prefix(b"{\"accepted\":").unwrap_or_default();
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).take(9);
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[rstest]
    #[case::json("application/json; charset=utf-8", "", b"{}", true)]
    #[case::text("text/plain", "", b"x", true)]
    #[case::cmcd("application/cmcd", "", b"e=t", false)]
    #[case::compressed("application/json", "gzip", b"{}", false)]
    #[case::not_utf8("text/plain", "", b"\xff", false)]
    #[case::empty("", "", b"", true)]
    fn bodies_travel_as_text_or_base64(
        #[case] kind: &str,
        #[case] encoding: &str,
        #[case] body: &[u8],
        #[case] text: bool,
    ) {
        let headers = headers(&[("content-type", kind), ("content-encoding", encoding)]);
        assert_eq!(text_body(&headers, &Bytes::copy_from_slice(body)).is_some(), text);
    }

    fn queue(environments: usize) -> Queue {
        Queue::new(Arc::new(Semaphore::new(environments)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_an_environment_until_its_time_is_up() {
        let queue = queue(1);
        let place = queue.place(10).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(queue.place(10).await.is_none());
        assert_eq!(began.elapsed(), QUEUE_TIME);
        let (waited, ()) = tokio::join!(queue.place(10), async {
            tokio::time::sleep(QUEUE_TIME / 2).await;
            drop(place);
        });
        assert!(waited.is_some());
    }

    #[rstest]
    #[case::small(1, 1_024)]
    #[case::large(4 * 1024 * 1024, 16)]
    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_one_more_at_once(#[case] bytes: usize, #[case] fit: usize) {
        let queue = Arc::new(queue(0));
        let waiting: Vec<_> = (0..fit)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.place(bytes).await.is_none() })
            })
            .collect();
        while queue.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let began = tokio::time::Instant::now();
        assert!(queue.place(bytes).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
        for request in waiting {
            assert!(request.await.unwrap());
        }
        assert_eq!(queue.room.available_permits(), QUEUE_BYTES / 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_body_does_not_queue_behind_events() {
        let queue = queue(0);
        let place = queue.place(0).await;
        assert!(place.is_some());
        assert!(queue.place(0).await.is_none());
    }

    #[test]
    fn requests_carry_the_time_of_the_clock() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let payload = payload(&Request::new(Bytes::new()), peer, "r-1", UnixMillis(1_795_253_528_006));
        assert_eq!(payload["requestContext"]["timeEpoch"], 1_795_253_528_006_i64);
        assert_eq!(payload["requestContext"]["time"], "21/Nov/2026:09:32:08 +0000");
    }

    #[rstest]
    #[case(b"{\"accepted\":19,\"rejected\":[]}", 19)]
    #[case(b"{\"accepted\":0}", 0)]
    #[case(b"{\"error\":{}}", 0)]
    #[case(b"{\"accepted\":99999999999999999999", 999_999_999)]
    #[case(b"", 0)]
    fn accepted_events_are_counted_by_the_answer(#[case] body: &[u8], #[case] expected: u64) {
        assert_eq!(accepted(body), expected);
    }

    #[test]
    fn repeated_headers_are_joined() {
        let headers = headers(&[("accept", "a"), ("accept", "b")]);
        assert_eq!(joined_headers(&headers)["accept"], "a,b");
    }

    #[test]
    fn answers_that_are_not_http_responses_are_errors() {
        for answer in ["", "null", "{}", "{\"statusCode\":99}", "{\"statusCode\":200,\"headers\":{\"a b\":\"c\"}}"] {
            assert!(response(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
