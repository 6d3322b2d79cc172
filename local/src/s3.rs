//! The embedded S3: s3s speaks its protocol, [`crate::s3_operations`] does what is asked.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use hyper::{Method, Request, Response, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, HttpResponse, S3Result, s3_error};
use tracing::warn;

use crate::clock::Clock;
use crate::gate::access_key;
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
    pub fn start(root: &Path, buckets: &[String], notifications: Arc<Notifications>, clock: Clock) -> io::Result<Self> {
        let store = Store::open(root, buckets, notifications.clone(), clock)?;
        let mut builder = S3ServiceBuilder::new(store.clone());
        builder.set_auth(SecretIsKey);
        builder.set_access(MustBeSigned);
        Ok(Self { service: builder.build(), store, notifications })
    }

    /// Puts an object as AWS' own services do, without a request.
    pub async fn put(&self, bucket: &str, key: &str, body: Bytes) -> S3Result<()> {
        let body = self.store.write_body(body, Attributes::default()).await?;
        self.store.create(Name { bucket, key }, New { body, by: "Put" }, Condition::None).await.map(drop)
    }

    /// Answers one request. What it began it finishes, also when the client is gone: half of a write would be seen.
    pub async fn call(self, request: Request<Bytes>) -> Response<Body> {
        match tokio::spawn(self.answer(request.map(s3s::Body::from))).await {
            Ok(Ok(response)) => response.map(Body::new),
            Ok(Err(problem)) => failed(&format!("{problem:?}")),
            Err(panic) => failed(&panic),
        }
    }

    async fn answer(self, request: Request<s3s::Body>) -> Result<HttpResponse, HttpError> {
        let writer = (!is_read(request.method())).then(|| access_key(request.headers()).map(str::to_owned));
        let answer = self.service.call(request).await;
        if let Some(sender) = writer {
            // Whoever makes events waits until there is room for them.
            self.notifications.wait_for_room(sender.as_deref()).await;
        }
        answer
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn failed(problem: &dyn std::fmt::Display) -> Response<Body> {
    warn!(%problem, "the embedded S3 could not answer a request");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
