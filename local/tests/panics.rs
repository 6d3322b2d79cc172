//! "A panic in a handler ends one invocation": the process reports it and serves the next. Proved with the runtime as the
//! functions use it, in a process of its own, against the Runtime API that the one-machine stack has for them.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::Duration;

use axum::body::Bytes;
use lambda_runtime::{LambdaEvent, service_fn};
use local::runtime_api::{Invocation, Reply, RuntimeApi};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// Long enough for a slow machine, and no test waits for its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The function: not a test, but what the test below runs as a process, as `main` does it in the functions. Started like a
/// test, without a Runtime API, it has nothing to do.
#[test]
fn panicking_function() {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(lambda_runtime::run(service_fn(handle))).unwrap();
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, std::convert::Infallible> {
    match event.payload["panic"].as_str() {
        Some("at once") => panic!("told to"),
        Some("after a wait") => {
            tokio::time::sleep(Duration::from_millis(1)).await;
            // As a bug in a decoder would.
            Ok(Vec::<Value>::new().remove(0))
        }
        _ => Ok(json!({"process": std::process::id()})),
    }
}

fn start_function(api: &RuntimeApi) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "panicking_function", "--nocapture"])
        .env("AWS_LAMBDA_RUNTIME_API", api.address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "panics")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn invoke(api: &RuntimeApi, number: u32, payload: &str) -> Reply {
    let (reply, answer) = oneshot::channel();
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    api.invoke(Invocation { request_id: format!("request-{number}"), payload, timeout: PATIENCE, reply }).await;
    tokio::time::timeout(PATIENCE, answer).await.expect("the invocation ended").expect("it was answered")
}

fn served(reply: Reply) -> Value {
    serde_json::from_slice(&reply.expect("an answer")).unwrap()
}

/// Whatever bytes a request or a record holds, every event in them ends in one outcome, and a function that panics loses one
/// invocation and no batch.
#[tokio::test]
async fn a_panic_ends_one_invocation_and_the_same_process_serves_the_next() {
    let api = RuntimeApi::start("panics").await.unwrap();
    let mut function = start_function(&api);
    tokio::time::timeout(PATIENCE, api.started()).await.unwrap().unwrap();

    let first = served(invoke(&api, 1, "{}").await);
    assert_eq!(first["process"].as_u64(), function.id().map(u64::from));

    let error = invoke(&api, 2, "{\"panic\":\"at once\"}").await.unwrap_err();
    assert!(error.error_message.contains("told to"), "{error:?}");
    assert_eq!(served(invoke(&api, 3, "{}").await), first);

    let error = invoke(&api, 4, "{\"panic\":\"after a wait\"}").await.unwrap_err();
    assert!(error.error_message.contains("panicked"), "{error:?}");
    // A payload that the handler can't read ends its own invocation too.
    invoke(&api, 5, "{\"not\":\"JSON\"").await.unwrap_err();
    assert_eq!(served(invoke(&api, 6, "{}").await), first);

    assert!(matches!(function.try_wait(), Ok(None)), "the process lives");
}

/// Tests are always built to unwind, so that the test above can't see it: the deployed functions must be, too.
#[test]
fn no_profile_aborts_on_panic() {
    let manifest = include_str!("../../Cargo.toml");
    let settings: Vec<_> = manifest.lines().filter(|line| line.trim_start().starts_with("panic")).collect();
    assert_eq!(settings, ["panic = \"unwind\""], "said once: where it is not, cargo-lambda makes it abort");
}
