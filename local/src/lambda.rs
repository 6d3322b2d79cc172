//! Lambda's `Invoke`: any function by hand, as the AWS CLI and the SDKs call it. None of Lambda's other operations.
//! <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
//!
//! A function has one version here, so a qualifier makes no difference. A caller waits while the most invocations by hand
//! are in flight; Lambda would answer 429.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64_simd::STANDARD as BASE64;
use serde::de::IgnoredAny;
use serde_json::json;
use shared::limits::MAX_LAMBDA_PAYLOAD_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::asynchronous::{self, InFlight, Source};
use crate::clock::Clock;
use crate::function::{Function, InvokeError, new_request_id};
use crate::log::Tail;
use crate::runtime_api::FunctionError;
use crate::template::{ACCOUNT_ID, function_arn};

/// The most bytes of an asynchronous event: 1 MB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The most invocations by hand in flight, retries included: each may hold a payload.
const MAX_UNDER_WAY: usize = 16;
/// How long an invocation's last log lines are waited for.
const LOG_TIME: Duration = Duration::from_millis(100);

/// No bucket of the template may be named like its first segment.
const FUNCTIONS_PATH: &str = "/2015-03-31/functions/";
const INVOCATIONS: &str = "/invocations";

pub(crate) fn handles(path: &str) -> bool {
    path.strip_prefix(FUNCTIONS_PATH).is_some_and(|rest| rest.ends_with(INVOCATIONS))
}

/// The service that invokes these functions. Events whose senders don't wait are counted as in flight.
pub fn router(functions: Vec<Arc<Function>>, in_flight: InFlight, clock: Clock) -> Router {
    let under_way = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let lambda = Lambda { functions: functions.into(), in_flight, clock, under_way };
    let path = format!("{FUNCTIONS_PATH}{{name}}{INVOCATIONS}");
    // The server has its own limit.
    Router::new().route(&path, post(invoke)).layer(DefaultBodyLimit::disable()).with_state(lambda)
}

#[derive(Clone)]
struct Lambda {
    functions: Arc<[Arc<Function>]>,
    in_flight: InFlight,
    clock: Clock,
    under_way: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString)]
enum InvocationType {
    /// The function's answer.
    RequestResponse,
    /// That the event was accepted.
    Event,
    /// Whether it could invoke the function.
    DryRun,
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("Missing Authentication Token")]
    Unsigned,
    #[error("Function not found: {0}")]
    NoFunction(String),
    #[error("InvocationType is {0:?}; it is RequestResponse, Event or DryRun")]
    InvocationType(String),
    #[error("Could not parse request body into json: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("{bytes} byte payload is too large for the {invocation:?} invocation type (limit {limit} bytes)")]
    TooLarge { bytes: usize, invocation: InvocationType, limit: usize },
    #[error("the invocation panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Refusal {
    /// Lambda's status and code for it. For payloads that are too large its own answers have another code than its
    /// documentation: <https://github.com/ASFHyP3/hyp3/issues/2241>.
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unsigned => (StatusCode::FORBIDDEN, "MissingAuthenticationTokenException"),
            Self::NoFunction(_) => (StatusCode::NOT_FOUND, "ResourceNotFoundException"),
            Self::InvocationType(_) => (StatusCode::BAD_REQUEST, "InvalidParameterValueException"),
            Self::NotJson(_) => (StatusCode::BAD_REQUEST, "InvalidRequestContentException"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException"),
            Self::Panicked(_) => (StatusCode::INTERNAL_SERVER_ERROR, "ServiceException"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        let kind = if status.is_server_error() { "Service" } else { "User" };
        let body = json!({"Type": kind, "Message": self.to_string()}).to_string();
        (status, [("x-amzn-errortype", code), ("content-type", "application/json")], body).into_response()
    }
}

impl InvocationType {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get("x-amz-invocation-type") else { return Ok(Self::RequestResponse) };
        let text = String::from_utf8_lossy(value.as_bytes());
        text.parse().map_err(|_| Refusal::InvocationType(text.into_owned()))
    }

    fn payload_limit(self) -> usize {
        match self {
            Self::RequestResponse | Self::DryRun => MAX_LAMBDA_PAYLOAD_BYTES,
            Self::Event => MAX_EVENT_BYTES,
        }
    }
}

async fn invoke(
    State(lambda): State<Lambda>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    if !headers.contains_key(header::AUTHORIZATION) {
        // Any page that is open in a browser on this machine could send such requests.
        return Err(Refusal::Unsigned);
    }
    let invocation = InvocationType::of(&headers)?;
    let function = lambda.function(&name)?;
    let payload = checked(body, invocation)?;
    // The semaphore is never closed.
    let place = lambda.under_way.clone().acquire_owned().await.ok();
    let request_id = new_request_id();
    match invocation {
        InvocationType::DryRun => Ok(executed(StatusCode::NO_CONTENT, &request_id, Bytes::new())),
        InvocationType::Event => {
            lambda.deliver(function, request_id.clone(), payload, place);
            Ok(executed(StatusCode::ACCEPTED, &request_id, Bytes::new()))
        }
        InvocationType::RequestResponse => {
            let wants_log = headers.get("x-amz-log-type").is_some_and(|kind| kind == "Tail");
            let (answer, tail) = answer(function, request_id, payload, place).await?;
            Ok(if wants_log { with_log(answer, tail).await } else { answer })
        }
    }
}

impl Lambda {
    /// The function of a name, an ARN or a part of one, each with or without a qualifier.
    fn function(&self, name: &str) -> Result<Arc<Function>, Refusal> {
        let is_named = |function: &&Arc<Function>| is_name_of(function.name(), name);
        let found = self.functions.iter().find(is_named).cloned();
        found.ok_or_else(|| {
            let arn = if name.starts_with("arn:") { name.to_owned() } else { function_arn(name) };
            Refusal::NoFunction(arn)
        })
    }

    /// Only a stopping stack waits for it.
    fn deliver(
        &self,
        function: Arc<Function>,
        request_id: String,
        payload: Bytes,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let (counted, clock) = (self.in_flight.one(), self.clock);
        tokio::spawn(async move {
            asynchronous::invoke(request_id, &function, &payload, &Source::ByHand, clock).await;
            drop((counted, place));
        });
    }
}

fn is_name_of(function: &str, name: &str) -> bool {
    let own = [function.to_owned(), function_arn(function), format!("{ACCOUNT_ID}:function:{function}")];
    let rests = own.iter().filter_map(|own| name.strip_prefix(own.as_str()));
    rests
        .into_iter()
        .any(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(|qualifier| !qualifier.is_empty()))
}

fn checked(payload: Bytes, invocation: InvocationType) -> Result<Bytes, Refusal> {
    let (bytes, limit) = (payload.len(), invocation.payload_limit());
    if bytes > limit {
        return Err(Refusal::TooLarge { bytes, invocation, limit });
    }
    if payload.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    serde_json::from_slice::<IgnoredAny>(&payload)?;
    Ok(payload)
}

async fn answer(
    function: Arc<Function>,
    request_id: String,
    payload: Bytes,
    place: Option<OwnedSemaphorePermit>,
) -> Result<(Response, Option<Tail>), Refusal> {
    let id = request_id.clone();
    // A task of its own: a client that hangs up does not stop its invocation.
    let invocation = tokio::spawn(async move {
        let result = function.invoke_logged(id, payload).await;
        drop(place);
        result
    });
    let (result, tail) = invocation.await?;
    let response = match result {
        Ok(answer) => executed(StatusCode::OK, &request_id, answer),
        Err(problem) => {
            let FunctionError { error_type, error_message } = function_error(problem, &request_id);
            let body = json!({"errorType": error_type, "errorMessage": error_message}).to_string();
            let response = executed(StatusCode::OK, &request_id, body.into());
            ([("x-amz-function-error", "Unhandled")], response).into_response()
        }
    };
    Ok((response, tail))
}

async fn with_log(answer: Response, tail: Option<Tail>) -> Response {
    // The function has written its lines before it answered; they come by another way.
    sleep(LOG_TIME).await;
    let log = tail.map(|tail| BASE64.encode_to_string(tail.take())).unwrap_or_default();
    ([("x-amz-log-result", log)], answer).into_response()
}

fn executed(status: StatusCode, request_id: &str, body: Bytes) -> Response {
    let headers =
        [("x-amzn-requestid", request_id), ("x-amz-executed-version", "$LATEST"), ("content-type", "application/json")];
    (status, headers, body).into_response()
}

/// The function's own error, or Lambda's.
fn function_error(problem: InvokeError, request_id: &str) -> FunctionError {
    let error = |error_type: &str, text: String| FunctionError {
        error_type: error_type.to_owned(),
        error_message: format!("RequestId: {request_id} Error: {text}"),
    };
    match problem {
        InvokeError::Reported(error) => error,
        InvokeError::TimedOut(after) => {
            error("Sandbox.Timedout", format!("Task timed out after {:.2} seconds", after.as_secs_f64()))
        }
        InvokeError::Died(_) | InvokeError::Killed | InvokeError::NotStarted(_) => {
            error("Runtime.ExitError", problem.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("check-object", true)]
    #[case("check-object:$LATEST", true)]
    #[case("check-object:live", true)]
    #[case("000000000000:function:check-object", true)]
    #[case("arn:aws:lambda:us-east-1:000000000000:function:check-object", true)]
    #[case("arn:aws:lambda:us-east-1:000000000000:function:check-object:live", true)]
    #[case("arn:aws:lambda:eu-central-1:000000000000:function:check-object", false)]
    #[case("arn:aws:lambda:us-east-1:123456789012:function:check-object", false)]
    #[case("check-object:", false)]
    #[case("check-object-2", false)]
    #[case("check", false)]
    #[case("", false)]
    fn a_function_has_a_name_an_arn_and_qualifiers(#[case] name: &str, #[case] expected: bool) {
        assert_eq!(is_name_of("check-object", name), expected);
    }

    #[rstest]
    #[case("/2015-03-31/functions/check-object/invocations", true)]
    #[case("/2015-03-31/functions/arn%3Aaws/invocations", true)]
    #[case("/2015-03-31/functions/", false)]
    #[case("/2015-03-31/functions/check-object", false)]
    #[case("/landing-bucket/functions/check-object/invocations", false)]
    fn requests_for_lambda_are_known(#[case] path: &str, #[case] expected: bool) {
        assert_eq!(handles(path), expected);
    }

    #[test]
    fn payloads_are_json_of_a_limited_size() {
        let read = |payload: Vec<u8>, invocation| checked(payload.into(), invocation);
        let text = |bytes: usize| [b"\"".to_vec(), vec![b'x'; bytes - 2], b"\"".to_vec()].concat();
        for (invocation, limit) in
            [(InvocationType::RequestResponse, MAX_LAMBDA_PAYLOAD_BYTES), (InvocationType::Event, MAX_EVENT_BYTES)]
        {
            assert_eq!(read(text(limit), invocation).unwrap().len(), limit);
            let refusal = read(text(limit + 1), invocation).unwrap_err();
            assert!(matches!(refusal, Refusal::TooLarge { .. }), "{refusal}");
            assert_eq!(refusal.code().0, StatusCode::PAYLOAD_TOO_LARGE);
            assert!(matches!(read(b"{\"a\":".to_vec(), invocation), Err(Refusal::NotJson(_))));
            // Lambda's own: no payload is an empty object.
            assert_eq!(read(Vec::new(), invocation).unwrap(), "{}");
        }
    }
}
