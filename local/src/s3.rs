//! The embedded S3: s3s speaks its protocol, [`crate::s3_operations`] does what is asked.

use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, HttpResponse, S3Result, s3_error};
use tracing::warn;

use crate::body;
use crate::clock::Clock;
use crate::s3_folder::Attributes;
use crate::s3_notifications::Notifications;
use crate::s3_store::{Condition, Name, New, Store};

/// An S3 whose objects are files: `<root>/<bucket>/<key>`.
#[derive(Clone)]
pub struct S3 {
    service: S3Service,
    store: Store,
    notifications: Arc<Notifications>,
}

/// The largest body of one request; larger objects come in parts.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// A folder that can't serve as a store.
#[derive(Debug, thiserror::Error)]
#[error("DATA_DIR: {path} can't hold buckets: {source}")]
pub struct FolderError {
    path: String,
    source: std::io::Error,
}

/// An object that could not be put.
#[derive(Debug, thiserror::Error)]
#[error("{key} is not stored: {source}")]
pub struct PutError {
    key: String,
    source: s3s::S3Error,
}

/// Takes any access key whose secret is the same text (`local`/`local`, `test`/`test`): nothing here needs protection,
/// but clients sign, and a signature needs a secret.
struct SecretIsKey;

#[async_trait::async_trait]
impl S3Auth for SecretIsKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(access_key))
    }
}

/// Lets signed requests through: any page that is open in a browser on this machine could send others.
struct MustBeSigned;

#[async_trait::async_trait]
impl S3Access for MustBeSigned {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        match context.credentials() {
            Some(_) => Ok(()),
            None => Err(s3_error!(AccessDenied, "Signature is required")),
        }
    }
}

impl S3 {
    /// Serves a folder, with these buckets in it, in the time of a clock.
    ///
    /// # Errors
    ///
    /// When the folder or a bucket's can't be made.
    pub fn start(
        root: &Path,
        buckets: &[String],
        notifications: Arc<Notifications>,
        clock: Clock,
    ) -> Result<Self, FolderError> {
        let store = Store::open(root, buckets, notifications.clone(), clock)
            .map_err(|source| FolderError { path: root.display().to_string(), source })?;
        let mut builder = S3ServiceBuilder::new(store.clone());
        builder.set_auth(SecretIsKey);
        builder.set_access(MustBeSigned);
        Ok(Self { service: builder.build(), store, notifications })
    }

    /// Puts an object as AWS' own services do, without a request.
    ///
    /// # Errors
    ///
    /// When there is no such bucket, or the folder does not take it.
    pub async fn put(&self, bucket: &str, key: &str, body: Bytes) -> Result<(), PutError> {
        let error = |source| PutError { key: key.to_owned(), source };
        let body = self.store.write_body(body, Attributes::default()).await.map_err(error)?;
        let created = self.store.create(Name { bucket, key }, New { body, by: "Put" }, Condition::None).await;
        created.map(drop).map_err(error)
    }

    /// Answers one request. What it began it finishes, also when the client is gone: half of a write would be seen.
    pub async fn call(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = match body::read(body, MAX_BODY_BYTES).await {
            Ok(body) => body,
            Err(problem) => return (problem.status(), format!("{problem}\n")).into_response(),
        };
        let request = Request::from_parts(parts, s3s::Body::from(body));
        match tokio::spawn(self.answer(request)).await {
            Ok(Ok(response)) => response.map(Body::new),
            Ok(Err(problem)) => failed(&format!("{problem:?}")),
            Err(panic) => failed(&panic),
        }
    }

    async fn answer(self, request: Request<s3s::Body>) -> Result<HttpResponse, HttpError> {
        let writer = (!is_read(request.method())).then(|| access_key(request.headers()));
        let answer = self.service.call(request).await;
        if let Some(sender) = writer {
            // Whoever makes events waits until there is room for them.
            self.notifications.room(sender.as_deref()).await;
        }
        answer
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Who signed a request.
fn access_key(headers: &HeaderMap) -> Option<String> {
    let signed = headers.get(AUTHORIZATION)?.to_str().ok()?;
    Some(signed.split_once("Credential=")?.1.split('/').next()?.to_owned())
}

fn failed(problem: &dyn std::fmt::Display) -> Response<Body> {
    warn!(%problem, "the embedded S3 could not answer a request");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
