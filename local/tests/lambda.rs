//! Lambda's `Invoke` against a real function: a process with the runtime that the functions have.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use local::asynchronous::InFlight;
use local::clock::Clock;
use local::embedded_metrics::{EmbeddedMetrics, LineTime};
use local::faults::environments::Environments;
use local::function::{Function, Host};
use local::lambda;
use local::log::FunctionLog;
use local::metric_store::MetricStore;
use local::template;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceExt;

const NAME: &str = "scripted";
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The function: not a test, but what the tests below run as a process. Started like a test, without a Runtime API, it has
/// nothing to do.
#[test]
fn scripted_function() {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if let Ok(path) = std::env::var("ENDED") {
            register_extension(path).await;
        }
        lambda_runtime::run(service_fn(handle)).await.unwrap();
    });
}

/// Registers an internal extension, and writes a file on SIGTERM.
async fn register_extension(path: String) {
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let answer = ask_extensions_api("POST", "register", "Lambda-Extension-Name: scripted", r#"{"events":[]}"#).await;
    let identifier = answer.lines().find(|line| line.starts_with("lambda-extension-identifier:")).unwrap().to_owned();
    tokio::spawn(async move { ask_extensions_api("GET", "event/next", &identifier, "").await });
    tokio::spawn(async move {
        terminated.recv().await.unwrap();
        std::fs::write(path, "by SIGTERM").unwrap();
        std::process::exit(0);
    });
}

async fn ask_extensions_api(method: &str, operation: &str, header: &str, body: &str) -> String {
    let api = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
    let mut connection = TcpStream::connect(&api).await.unwrap();
    let request = format!(
        "{method} /2020-01-01/extension/{operation} HTTP/1.1\r\nHost: {api}\r\n{header}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let (payload, request_id) = (event.payload, event.context.request_id);
    if let Some(path) = payload["write"].as_str() {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{request_id}").unwrap();
    }
    match payload["then"].as_str() {
        Some("fail") => Err(Diagnostic { error_type: "Scripted".into(), error_message: "scripted to fail".into() }),
        Some("sleep") => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(json!(null))
        }
        Some("exit") => std::process::exit(3),
        _ => Ok(json!({"got": payload, "request_id": request_id})),
    }
}

/// A folder with the function's binary: a script that has this test's binary run the function above. Written once and before any
/// process is started: one that is started meanwhile would keep it open.
static BINARIES: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lambda-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&folder).unwrap();
    let (this, binary) = (std::env::current_exe().unwrap(), folder.join(NAME));
    let arguments = "--exact scripted_function --nocapture";
    let script = format!("#!/bin/sh\nexec '{}' {arguments} >/dev/null 2>&1\n", this.display());
    std::fs::write(&binary, script).unwrap();
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
});

/// That function, with more in its environment.
fn function(environment: BTreeMap<String, String>) -> Arc<Function> {
    let metrics = MetricStore::new(Clock::new(None, lambda_setup::now()));
    let log = FunctionLog::open(&BINARIES, NAME, EmbeddedMetrics::new(metrics.clone(), LineTime::Stack)).unwrap();
    let spec = template::Function {
        id: "ScriptedFunction".into(),
        binary: NAME.into(),
        timeout: Duration::from_secs(2),
        memory_mb: 128,
        environment,
        event_retries: 1,
    };
    let (aws_endpoint, environments) = ("http://127.0.0.1:9".to_owned(), Environments::default());
    Function::new(spec, log, Host { binaries: BINARIES.clone(), aws_endpoint, front_door: None, environments, metrics })
        .unwrap()
}

/// Lambda with that function.
fn service() -> Router {
    let functions = vec![function(BTreeMap::new())];
    lambda::router(functions, InFlight::default(), Clock::new(None, lambda_setup::now()))
}

#[tokio::test]
async fn a_function_with_an_extension_gets_a_sigterm_and_time_to_end() {
    let path = BINARIES.join("ended");
    let function = function(BTreeMap::from([("ENDED".to_owned(), path.display().to_string())]));
    function.invoke("r-1".to_owned(), "{}".into()).await.unwrap();
    assert!(!path.exists());
    function.shut_down().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "by SIGTERM");
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn invoke(service: Router, name: &str, headers: &[(&str, &str)], payload: impl Into<Body>) -> Answer {
    let request = Request::post(format!("/2015-03-31/functions/{name}/invocations"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = service.oneshot(request.body(payload.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ANSWER_BYTES).await.unwrap();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Answer { status: parts.status, headers: parts.headers, body }
}

const SIGNED: (&str, &str) = ("authorization", "AWS4-HMAC-SHA256 Credential=local/…");
const EVENT: (&str, &str) = ("x-amz-invocation-type", "Event");

#[tokio::test]
async fn the_answer_comes_from_the_function() {
    let service = service();
    for name in
        [NAME, "scripted:live", "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ascripted%3A%24LATEST"]
    {
        let answer = invoke(service.clone(), name, &[SIGNED], r#"{"a": [1]}"#).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body["got"], json!({"a": [1]}));
        assert_eq!(answer.header("x-amz-executed-version"), Some("$LATEST"));
        assert_eq!(answer.header("x-amzn-requestid"), answer.body["request_id"].as_str());
        assert_eq!(answer.header("x-amz-function-error"), None);
    }
    let answer = invoke(service, NAME, &[SIGNED], Body::empty()).await;
    assert_eq!(answer.body["got"], json!({}));
}

#[rstest]
#[case::reported("fail", "Scripted", "scripted to fail")]
#[case::timeout("sleep", "Sandbox.Timedout", "Task timed out after 2.00 seconds")]
#[case::death("exit", "Runtime.ExitError", "exit status: 3")]
#[tokio::test]
async fn a_failure_of_the_function_is_an_answer(#[case] then: &str, #[case] error_type: &str, #[case] words: &str) {
    let answer = invoke(service(), NAME, &[SIGNED], json!({"then": then}).to_string()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-amz-function-error"), Some("Unhandled"));
    assert_eq!(answer.body["errorType"], error_type);
    assert!(answer.body["errorMessage"].as_str().unwrap().contains(words), "{}", answer.body);
}

/// By the function's own number of retries, and under the request id that the caller got.
#[tokio::test]
async fn an_event_is_accepted_at_once_and_retried() {
    let written = BINARIES.join("events");
    let payload = json!({"write": written, "then": "fail"}).to_string();
    let answer = invoke(service(), NAME, &[SIGNED, EVENT], payload).await;
    assert_eq!((answer.status, &answer.body), (StatusCode::ACCEPTED, &Value::Null));
    let request_id = answer.header("x-amzn-requestid").unwrap();
    let expected = format!("{request_id}\n{request_id}\n");
    tokio::time::timeout(Duration::from_secs(60), wait_for_text(&written, &expected)).await.unwrap();
}

async fn wait_for_text(path: &Path, text: &str) {
    while std::fs::read_to_string(path).unwrap_or_default() != text {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_dry_run_invokes_nothing() {
    let written = BINARIES.join("dry-run");
    let headers = [SIGNED, ("x-amz-invocation-type", "DryRun")];
    let answer = invoke(service(), NAME, &headers, json!({"write": written}).to_string()).await;
    assert_eq!((answer.status, answer.body), (StatusCode::NO_CONTENT, Value::Null));
    assert!(!written.exists());
}

#[rstest]
#[case::no_such_function("other", &[SIGNED], "{}", 404, "ResourceNotFoundException", "function:other")]
#[case::no_json(NAME, &[SIGNED], "{", 400, "InvalidRequestContentException", "json")]
#[case::no_such_type(
    NAME, &[SIGNED, ("x-amz-invocation-type", "Soon")], "{}", 400, "InvalidParameterValueException", "Soon"
)]
#[case::unsigned(NAME, &[], "{}", 403, "MissingAuthenticationTokenException", "Token")]
#[tokio::test]
async fn refusals_are_what_sdks_read(
    #[case] name: &str,
    #[case] headers: &[(&str, &str)],
    #[case] payload: &'static str,
    #[case] status: u16,
    #[case] code: &str,
    #[case] words: &str,
) {
    let answer = invoke(service(), name, headers, payload).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-amzn-errortype")), (status, Some(code)));
    assert_eq!(answer.body["Type"], "User");
    assert!(answer.body["Message"].as_str().unwrap().contains(words), "{}", answer.body);
}
