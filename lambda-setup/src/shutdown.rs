//! The end of an environment. Lambda sends SIGTERM only to a function that has an extension, and half a second later SIGKILL:
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-shutdown>
//!
//! So an internal extension is registered that subscribes to no events: Lambda never waits for it. The feature
//! `graceful-shutdown` of `lambda_runtime` does the same, but panics where registration is refused, writes lines of plain
//! text into a JSON log, and brings an HTTP server.

use http::{Request, StatusCode};
use lambda_runtime_api_client::body::Body;
use lambda_runtime_api_client::{BoxError, PooledClient};
use tokio::signal::unix::{SignalKind, signal};

const NAME: &str = "playhead-shutdown";
const NAME_HEADER: &str = "lambda-extension-name";
const IDENTIFIER: &str = "lambda-extension-identifier";

/// Why a process will not learn of its end.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The system does not let the process catch SIGTERM.
    #[error("SIGTERM can't be caught: {0}")]
    Signal(#[from] std::io::Error),
    /// The Extensions API does not answer.
    #[error("the Extensions API does not answer: {0}")]
    Call(#[source] BoxError),
    /// The Extensions API answers otherwise than it should.
    #[error("the Extensions API refuses the extension {NAME}: {0}")]
    Refused(StatusCode),
}

/// Runs `last` when Lambda ends the environment, and then exits. Call it before the runtime asks for its first invocation:
/// Lambda takes no extensions after that.
///
/// # Errors
///
/// When the extension can't be registered: the process then ends without a signal.
pub async fn on_shutdown(last: impl FnOnce() + Send + 'static) -> Result<(), ShutdownError> {
    let mut terminated = signal(SignalKind::terminate())?;
    let client = PooledClient::builder().build();
    let id = register(&client).await?;
    // The first request for an event ends the extension's start; as it subscribes to none, no answer ever comes.
    let next = Request::get("/2020-01-01/extension/event/next").header(IDENTIFIER, id).body(Body::empty());
    let next = client.call(next.map_err(|error| ShutdownError::Call(error.into()))?);
    tokio::spawn(async move {
        if let Err(error) = next.await {
            tracing::warn!(%error, "the Extensions API ended the wait for an event");
        }
    });
    tokio::spawn(async move {
        terminated.recv().await;
        last();
        std::process::exit(0);
    });
    Ok(())
}

/// The extension's identifier.
async fn register(client: &PooledClient) -> Result<http::HeaderValue, ShutdownError> {
    let register = Request::post("/2020-01-01/extension/register").header(NAME_HEADER, NAME);
    let register = register.body(Body::from(r#"{"events":[]}"#)).map_err(|error| ShutdownError::Call(error.into()))?;
    let mut answer = client.call(register).await.map_err(ShutdownError::Call)?;
    answer.headers_mut().remove(IDENTIFIER).ok_or(ShutdownError::Refused(answer.status()))
}
