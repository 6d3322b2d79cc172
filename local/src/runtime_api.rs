//! The Lambda Runtime API for one execution environment, and its Extensions API.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
//!
//! Each environment has a port of its own, so that it is known which process asks. The `lambda-simulator` crate was
//! looked at and not taken: it keeps every invocation for ever, and its one queue can't tell which of several processes
//! took an invocation and died with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use shared::limits::MAX_LAMBDA_PAYLOAD_BYTES;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tower::ServiceExt;

use crate::extensions::{self, Extensions};
use crate::gate::Door;
use crate::mutex::Mutex;
use crate::server::Port;
use crate::template::function_arn;

/// Of one environment: its runtime and its extensions have one or two each.
const MAX_CONNECTIONS: usize = 32;

#[derive(Debug)]
pub struct Invocation {
    pub request_id: String,
    pub payload: Bytes,
    /// The time that the function has.
    pub timeout: Duration,
    pub reply: oneshot::Sender<Reply>,
}

pub type Reply = Result<Bytes, FunctionError>;

/// An error that a function itself reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{error_type}: {error_message}")]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionError {
    pub error_type: String,
    pub error_message: String,
}

/// The server's side of one environment's Runtime API. Dropping it ends the server.
pub struct RuntimeApi {
    pub address: SocketAddr,
    invocations: mpsc::Sender<Invocation>,
    state: Arc<ApiState>,
    server: AbortHandle,
}

struct ApiState {
    function_arn: String,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Invocation>>,
    current: Mutex<Option<(String, oneshot::Sender<Reply>)>>,
    asked_for_work: Notify,
    failed_to_start: Mutex<Option<FunctionError>>,
    extensions: Arc<Extensions>,
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl RuntimeApi {
    pub async fn start(function_name: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (invocations, waiting) = mpsc::channel(1);
        let state = Arc::new(ApiState {
            function_arn: function_arn(function_name),
            waiting: tokio::sync::Mutex::new(waiting),
            current: Mutex::new(None),
            asked_for_work: Notify::new(),
            failed_to_start: Mutex::new(None),
            extensions: Extensions::new(function_name.to_owned()),
        });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{request_id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{request_id}/error", post(invocation_error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .route("/2020-01-01/extension/init/error", post(init_error))
            .route("/2020-01-01/extension/exit/error", post(init_error))
            .layer(DefaultBodyLimit::max(MAX_LAMBDA_PAYLOAD_BYTES))
            .with_state(state.clone())
            .merge(extensions::router(state.extensions.clone()));
        let server = tokio::spawn(serve(listener, router)).abort_handle();
        Ok(Self { address, invocations, state, server })
    }

    /// Resolves when the function and its extensions first ask for work: the environment has started.
    pub async fn started(&self) -> Result<(), FunctionError> {
        self.state.asked_for_work.notified().await;
        if self.state.failed_to_start.lock().is_none() {
            self.state.extensions.ready().await;
        }
        match self.state.failed_to_start.lock().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether the function has an extension: its process then gets a SIGTERM before its end.
    pub(crate) fn has_extensions(&self) -> bool {
        self.state.extensions.are_registered()
    }

    /// Hands an invocation to the function. The reply comes through the invocation's own channel; when that closes without
    /// one, the environment is gone.
    pub async fn invoke(&self, invocation: Invocation) {
        if self.invocations.send(invocation).await.is_err() {
            tracing::debug!("a Runtime API ended before it took an invocation");
        }
    }
}

async fn serve(listener: TcpListener, router: Router) {
    let (_never, stopping) = watch::channel(false);
    let port = Port { listener, door: Door::Runtime, max_connections: MAX_CONNECTIONS };
    let answer = move |_, request: Request<Bytes>| {
        let router = router.clone();
        async move { Ok(router.oneshot(request.map(Body::from)).await.unwrap_or_else(|never| match never {})) }
    };
    port.serve(answer, stopping).await;
}

/// When an invocation that begins now must have ended, in milliseconds since 1970.
fn deadline_ms(timeout: Duration) -> u128 {
    (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + timeout).as_millis()
}

async fn next(State(state): State<Arc<ApiState>>) -> Response {
    state.extensions.close();
    state.asked_for_work.notify_one();
    let Some(invocation) = state.waiting.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let headers = [
        ("lambda-runtime-aws-request-id", invocation.request_id.clone()),
        ("lambda-runtime-deadline-ms", deadline_ms(invocation.timeout).to_string()),
        ("lambda-runtime-invoked-function-arn", state.function_arn.clone()),
        ("content-type", "application/json".into()),
    ];
    *state.current.lock() = Some((invocation.request_id, invocation.reply));
    (headers, invocation.payload).into_response()
}

async fn response(State(state): State<Arc<ApiState>>, Path(request_id): Path<String>, body: Bytes) -> Response {
    conclude(&state, &request_id, Ok(body))
}

async fn invocation_error(
    State(state): State<Arc<ApiState>>,
    Path(request_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    conclude(&state, &request_id, Err(function_error(&headers, &body)))
}

async fn init_error(State(state): State<Arc<ApiState>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    *state.failed_to_start.lock() = Some(function_error(&headers, &body));
    state.asked_for_work.notify_one();
    StatusCode::ACCEPTED
}

fn function_error(headers: &HeaderMap, body: &[u8]) -> FunctionError {
    let header = headers.get("lambda-runtime-function-error-type").and_then(|value| value.to_str().ok());
    serde_json::from_slice(body).unwrap_or_else(|_| FunctionError {
        error_type: header.unwrap_or("Unknown").to_owned(),
        error_message: String::from_utf8_lossy(body).into_owned(),
    })
}

fn conclude(state: &ApiState, request_id: &str, reply: Reply) -> Response {
    let mut current = state.current.lock();
    match current.take_if(|(id, _)| id == request_id) {
        Some((_, waiting)) => match waiting.send(reply) {
            Ok(()) => StatusCode::ACCEPTED.into_response(),
            // The invoker gave up: too late.
            Err(_) => StatusCode::GONE.into_response(),
        },
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}
