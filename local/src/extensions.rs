//! The Lambda Extensions API for one execution environment.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>
//!
//! Only internal extensions, which are part of the function's own process: external ones come with layers, and no function
//! has one. Lambda does not let internal extensions subscribe to SHUTDOWN: the process of a function with an extension gets
//! SIGTERM instead, and half a second. They could subscribe to INVOKE; no function's does, so that is refused here, too.
//! Other errors are those of AWS's Runtime Interface Emulator.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::mutex::Mutex;

/// Lambda's own limit for one environment.
const MAX_EXTENSIONS: usize = 10;
const NAME: &str = "lambda-extension-name";
const IDENTIFIER: &str = "lambda-extension-identifier";

pub(crate) struct Extensions {
    function_name: String,
    registry: Mutex<Registry>,
    changed: Notify,
}

#[derive(Default)]
struct Registry {
    /// The runtime has asked for work, which ends the time for registrations.
    is_closed: bool,
    extensions: Vec<Extension>,
}

struct Extension {
    id: String,
    name: String,
    /// Whether it has asked for an event: it is then ready.
    is_ready: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("Empty extension name")]
    NoName,
    #[error("{0}")]
    Malformed(String),
    #[error("{0}: this stack has no events for extensions; SIGTERM tells the process that it is shut down")]
    EventType(String),
    #[error("Extension registration closed already: register before the runtime asks for its first invocation")]
    Closed,
    #[error("Extension with this name already registered")]
    NameTaken,
    #[error("Extension limit ({MAX_EXTENSIONS}) reached")]
    TooMany,
    #[error("Missing Lambda-Extension-Identifier header")]
    NoIdentifier,
    #[error("Unknown extension {0}")]
    UnknownIdentifier(String),
}

impl Refusal {
    fn error_type(&self) -> &'static str {
        match self {
            Self::NoName => "Extension.InvalidExtensionName",
            Self::Malformed(_) => "InvalidRequestFormat",
            Self::EventType(_) => "Extension.InvalidEventType",
            Self::Closed => "Extension.RegistrationClosed",
            Self::NameTaken => "Extension.InvalidExtensionState",
            Self::TooMany => "Extension.TooManyExtensions",
            Self::NoIdentifier => "Extension.MissingExtensionIdentifier",
            Self::UnknownIdentifier(_) => "Extension.UnknownExtensionIdentifier",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"errorType": self.error_type(), "errorMessage": self.to_string()});
        (StatusCode::FORBIDDEN, Json(body)).into_response()
    }
}

#[derive(Deserialize)]
struct Subscription {
    #[serde(default)]
    events: Vec<String>,
}

/// The operations of extensions, to be served with those of the runtime.
pub(crate) fn router(extensions: Arc<Extensions>) -> Router {
    Router::new()
        .route("/2020-01-01/extension/register", post(register))
        .route("/2020-01-01/extension/event/next", get(next))
        .with_state(extensions)
}

async fn register(
    State(extensions): State<Arc<Extensions>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let subscription: Subscription =
        serde_json::from_slice(&body).map_err(|problem| Refusal::Malformed(problem.to_string()))?;
    let id = extensions.register(header(&headers, NAME), &subscription.events)?;
    let function = &extensions.function_name;
    let answer = json!({"functionName": function, "functionVersion": "$LATEST", "handler": function});
    Ok(([(IDENTIFIER, id)], Json(answer)).into_response())
}

async fn next(State(extensions): State<Arc<Extensions>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let id = header(&headers, IDENTIFIER);
    if id.is_empty() {
        return Err(Refusal::NoIdentifier);
    }
    extensions.note_ready(id)?;
    // Without a subscription it waits until its process ends.
    std::future::pending().await
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Extensions {
    pub(crate) fn new(function_name: String) -> Arc<Self> {
        Arc::new(Self { function_name, registry: Mutex::default(), changed: Notify::new() })
    }

    fn register(&self, name: &str, events: &[String]) -> Result<String, Refusal> {
        if name.is_empty() {
            return Err(Refusal::NoName);
        }
        if let Some(event) = events.first() {
            return Err(Refusal::EventType(event.clone()));
        }
        let mut registry = self.registry.lock();
        if registry.is_closed {
            return Err(Refusal::Closed);
        }
        if registry.extensions.iter().any(|extension| extension.name == name) {
            return Err(Refusal::NameTaken);
        }
        if registry.extensions.len() == MAX_EXTENSIONS {
            return Err(Refusal::TooMany);
        }
        let id = Uuid::new_v4().to_string();
        registry.extensions.push(Extension { id: id.clone(), name: name.to_owned(), is_ready: false });
        Ok(id)
    }

    pub(crate) fn close(&self) {
        self.registry.lock().is_closed = true;
    }

    pub(crate) fn are_registered(&self) -> bool {
        !self.registry.lock().extensions.is_empty()
    }

    /// Resolves when every extension has asked for its first event, which ends the start of an environment.
    pub(crate) async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.registry.lock().extensions.iter().all(|extension| extension.is_ready) {
                return;
            }
            changed.await;
        }
    }

    /// Notes that an extension has asked for an event.
    fn note_ready(&self, id: &str) -> Result<(), Refusal> {
        let mut registry = self.registry.lock();
        let extension = registry.extensions.iter_mut().find(|extension| extension.id == id);
        extension.ok_or_else(|| Refusal::UnknownIdentifier(id.to_owned()))?.is_ready = true;
        drop(registry);
        self.changed.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn extensions() -> Arc<Extensions> {
        Extensions::new("f".to_owned())
    }

    fn register(extensions: &Extensions, name: &str, events: &[&str]) -> Result<String, Refusal> {
        let events: Vec<String> = events.iter().map(|event| (*event).to_owned()).collect();
        extensions.register(name, &events)
    }

    #[rstest]
    #[case::no_name("", &[], Refusal::NoName)]
    #[case::shutdown("a", &["SHUTDOWN"], Refusal::EventType("SHUTDOWN".into()))]
    #[case::invoke("a", &["INVOKE"], Refusal::EventType("INVOKE".into()))]
    #[case::taken("first", &[], Refusal::NameTaken)]
    fn unsupported_registrations_are_refused(#[case] name: &str, #[case] events: &[&str], #[case] refusal: Refusal) {
        let extensions = extensions();
        register(&extensions, "first", &[]).unwrap();
        assert_eq!(register(&extensions, name, events), Err(refusal));
    }

    #[test]
    fn ten_extensions_are_registered_and_one_more_is_not() {
        let extensions = extensions();
        for number in 0..MAX_EXTENSIONS {
            register(&extensions, &number.to_string(), &[]).unwrap();
        }
        assert_eq!(register(&extensions, "one more", &[]), Err(Refusal::TooMany));
    }

    #[test]
    fn registration_ends_when_the_runtime_asks_for_work() {
        let extensions = extensions();
        extensions.close();
        assert_eq!(register(&extensions, "late", &[]), Err(Refusal::Closed));
        assert!(!extensions.are_registered());
    }

    #[tokio::test(start_paused = true)]
    async fn an_environment_is_ready_when_every_extension_has_asked_for_an_event() {
        let extensions = extensions();
        let ready = async || tokio::time::timeout(std::time::Duration::from_secs(1), extensions.ready()).await.is_ok();
        assert!(ready().await);
        let ids = ["a", "b"].map(|name| register(&extensions, name, &[]).unwrap());
        for id in ids {
            assert!(!ready().await);
            extensions.note_ready(&id).unwrap();
        }
        assert!(ready().await);
        assert_eq!(extensions.note_ready("unknown"), Err(Refusal::UnknownIdentifier("unknown".into())));
    }
}
