//! The Function URL front door: HTTP in, payload format 2.0 to the function, its response out.
//! <https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use base64_simd::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::limits::LAMBDA_PAYLOAD_MAX_BYTES;
use shared::timestamp::UnixMillis;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::function::{Function, new_request_id};
use crate::gate::Door;
use crate::server;
use crate::template::{ACCOUNT_ID, REGION};

/// The longest that a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a port until the stack stops: invokes the function for each request, which has the clock's time.
pub async fn serve(listener: TcpListener, function: Arc<Function>, clock: Clock, stopping: watch::Receiver<bool>) {
    let invoke = move |peer, request| {
        let function = function.clone();
        async move { Ok(invoke(function, clock, peer, request).await) }
    };
    server::serve(listener, Door::Events, invoke, stopping).await;
}

async fn invoke(function: Arc<Function>, clock: Clock, peer: SocketAddr, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, LAMBDA_PAYLOAD_MAX_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(problem)) if problem.to_string().contains("length limit") => return too_large(),
        Ok(Err(problem)) => {
            debug!(%problem, "a body did not arrive whole");
            return plain(StatusCode::BAD_REQUEST, "Bad Request");
        }
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "Request Timeout"),
    };
    let request_id = new_request_id();
    let payload = payload(&parts, peer, &body, &request_id, clock.now()).to_string();
    if payload.len() > LAMBDA_PAYLOAD_MAX_BYTES {
        return too_large();
    }
    // A task of its own: a client that hangs up does not stop its invocation.
    let invocation = tokio::spawn(async move { function.invoke(request_id, payload.into()).await });
    match invocation.await {
        Ok(Ok(answer)) => response(&answer).unwrap_or_else(|problem| {
            warn!(problem, "the function's answer is no HTTP response");
            plain(StatusCode::BAD_GATEWAY, "Internal Server Error")
        }),
        Ok(Err(problem)) => {
            warn!(%problem, "an HTTP invocation failed");
            plain(StatusCode::BAD_GATEWAY, "Internal Server Error")
        }
        Err(panic) => {
            warn!(%panic, "an HTTP invocation panicked");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
    }
}

/// Lambda refuses it before the function sees it.
fn too_large() -> Response<Body> {
    warn!("a request over Lambda's 6 MiB was refused at the front door; no function saw it");
    plain(StatusCode::PAYLOAD_TOO_LARGE, "Request must be smaller than 6291456 bytes for the InvokeFunction operation")
}

fn plain(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({"message": message}).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn payload(
    parts: &axum::http::request::Parts,
    peer: SocketAddr,
    body: &Bytes,
    request_id: &str,
    at: UnixMillis,
) -> Value {
    let path = parts.uri.path();
    let headers = joined_headers(&parts.headers);
    let user_agent = headers.get("user-agent").cloned();
    let text = text_body(&parts.headers, body);
    let mut payload = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": parts.uri.query().unwrap_or_default(),
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT_ID,
            "apiId": "local",
            "domainName": format!("local.lambda-url.{REGION}.on.aws"),
            "domainPrefix": "local",
            "http": {
                "method": parts.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": peer.ip(),
                "userAgent": user_agent,
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": common_log_time(at),
            "timeEpoch": at.0,
        },
        "isBase64Encoded": text.is_none(),
    });
    if !body.is_empty() {
        payload["body"] = text.map_or_else(|| json!(BASE64.encode_to_string(body)), |text| json!(text));
    }
    payload
}

/// `21/Nov/2026:09:32:08 +0000`
fn common_log_time(at: UnixMillis) -> String {
    let text = at.rfc3339();
    let month = match &text[5..7] {
        "01" => "Jan",
        "02" => "Feb",
        "03" => "Mar",
        "04" => "Apr",
        "05" => "May",
        "06" => "Jun",
        "07" => "Jul",
        "08" => "Aug",
        "09" => "Sep",
        "10" => "Oct",
        "11" => "Nov",
        _ => "Dec",
    };
    format!("{}/{month}/{}:{} +0000", &text[8..10], &text[..4], &text[11..19])
}

/// Lower-case names; several values of one name with commas between.
fn joined_headers(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut joined: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.as_str())
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    joined
}

/// The body as text, where Lambda takes it for text; all else travels as base64. What Lambda does with text that is not UTF-8
/// is not documented; that it travels as base64 too is our assumption.
fn text_body<'b>(headers: &HeaderMap, body: &'b Bytes) -> Option<&'b str> {
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = header(header::CONTENT_TYPE).to_ascii_lowercase();
    let is_text = content_type.starts_with("text/")
        || ["application/json", "application/javascript", "application/xml"]
            .iter()
            .any(|text_type| content_type.starts_with(text_type));
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

fn response(answer: &[u8]) -> Result<Response<Body>, String> {
    let answer: FunctionResponse = serde_json::from_slice(answer).map_err(|problem| problem.to_string())?;
    let body = if answer.is_base64_encoded {
        BASE64.decode_to_vec(&answer.body).map_err(|problem| problem.to_string())?
    } else {
        answer.body.into_bytes()
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status_code).map_err(|problem| problem.to_string())?;
    for (name, value) in answer.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("header name {name:?}"))?;
        let value: HeaderValue = value.parse().map_err(|_| format!("value of the header {name}"))?;
        response.headers_mut().insert(name, value);
    }
    debug!(status = answer.status_code, "answered");
    Ok(response)
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

    #[test]
    fn the_request_s_time_is_the_clock_s() {
        let (parts, ()) = Request::new(()).into_parts();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let payload = payload(&parts, peer, &Bytes::new(), "r-1", UnixMillis(1_795_253_528_006));
        assert_eq!(payload["requestContext"]["timeEpoch"], 1_795_253_528_006_i64);
        assert_eq!(payload["requestContext"]["time"], "21/Nov/2026:09:32:08 +0000");
    }

    #[test]
    fn repeated_headers_are_joined() {
        let headers = headers(&[("accept", "a"), ("accept", "b")]);
        assert_eq!(joined_headers(&headers)["accept"], "a,b");
    }

    #[test]
    fn answers_that_are_no_response_are_errors() {
        for answer in ["", "null", "{}", "{\"statusCode\":99}", "{\"statusCode\":200,\"headers\":{\"a b\":\"c\"}}"] {
            assert!(response(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
