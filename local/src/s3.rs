//! The embedded S3: s3s over a folder, one write at a time. What it does with a request is in [`crate::s3_store`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, HttpResponse, S3Error, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::RwLock;
use tracing::warn;

use crate::body;
use crate::clock::Clock;
use crate::s3_listing::Listing;
use crate::s3_notifications::Notifications;
use crate::s3_store::Store;

/// An S3 whose objects are files: `<root>/<bucket>/<key>`.
#[derive(Clone)]
pub struct S3 {
    service: S3Service,
    /// s3s-fs checks a write's condition, writes the object and then its metadata, one after the other; and it reads the
    /// same way. Whoever writes has the store alone, so that conditions hold and nobody sees half of a change.
    writing: Arc<RwLock<()>>,
    notifications: Arc<Notifications>,
}

/// The largest body of one request; larger objects come in parts.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// A folder that can't serve as a store.
#[derive(Debug, thiserror::Error)]
#[error("DATA_DIR: {path} can't hold buckets: {problem}")]
pub struct FolderError {
    path: String,
    problem: String,
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

/// Lets signed requests through to buckets that are there. s3s-fs would make the folder of one that is not, and a misspelt bucket
/// name would go unnoticed.
struct BucketMustExist {
    root: PathBuf,
}

#[async_trait::async_trait]
impl S3Access for BucketMustExist {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            // Any page that is open in a browser on this machine could send such requests.
            return Err(s3_error!(AccessDenied, "Signature is required"));
        }
        match context.s3_path().as_object() {
            Some((bucket, _)) if !self.root.join(bucket).is_dir() => Err(s3_error!(NoSuchBucket)),
            // There can be no such object.
            Some((_, key)) if !is_file_name(key) && is_read(context.method()) => Err(s3_error!(NoSuchKey)),
            Some((_, key)) if !is_file_name(key) => Err(unfit_key(key)),
            _ => Ok(()),
        }
    }
}

/// Whether a key names a file in its bucket's folder. S3 takes any text; here empty segments, `.` and `..` would name another
/// file, or one outside.
pub(crate) fn is_file_name(key: &str) -> bool {
    // A key that ends in a slash is what clients put for an empty folder.
    let segments = key.strip_suffix('/').unwrap_or(key).split('/');
    !key.contains('\0') && segments.into_iter().all(|segment| !matches!(segment, "" | "." | ".."))
}

pub(crate) fn unfit_key(key: &str) -> S3Error {
    let message = "The one-machine stack keeps objects as files: no segment of a key may be empty, \".\" or \"..\"";
    s3_error!(InvalidArgument, "{message}: {key:?}")
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
        let error = |problem: String| FolderError { path: root.display().to_string(), problem };
        for bucket in buckets {
            std::fs::create_dir_all(root.join(bucket)).map_err(|problem| error(problem.to_string()))?;
        }
        let files = FileSystem::new(root).map_err(|problem| error(format!("{problem:?}")))?;
        let listing = Arc::new(Listing::new(root));
        let store = Store { files, root: root.to_owned(), listing, notifications: notifications.clone(), clock };
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(SecretIsKey);
        builder.set_access(BucketMustExist { root: root.to_owned() });
        Ok(Self { service: builder.build(), writing: Arc::default(), notifications })
    }

    /// Answers one request. What it began it finishes, also when the client is gone: half of a write would be seen.
    pub async fn call(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = match body::read(body, MAX_BODY_BYTES).await {
            Ok(body) => body,
            Err(problem) => return failed(problem.status(), &problem),
        };
        let request = Request::from_parts(parts, s3s::Body::from(body));
        match tokio::spawn(self.call_alone(request)).await {
            Ok(Ok(response)) => response.map(Body::new),
            Ok(Err(problem)) => failed(StatusCode::INTERNAL_SERVER_ERROR, &format!("{problem:?}")),
            Err(panic) => failed(StatusCode::INTERNAL_SERVER_ERROR, &panic),
        }
    }

    async fn call_alone(self, request: Request<s3s::Body>) -> Result<HttpResponse, HttpError> {
        if is_read(request.method()) {
            let _shared = self.writing.read().await;
            return self.service.call(request).await;
        }
        let sender = access_key(request.headers());
        let answer = {
            let _alone = self.writing.write().await;
            self.service.call(request).await
        };
        // After the write, when others can go on: whoever makes events waits until there is room for them.
        self.notifications.room(sender.as_deref()).await;
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

fn failed(status: StatusCode, problem: &dyn std::fmt::Display) -> Response<Body> {
    warn!(%problem, "the embedded S3 could not answer a request");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a", true)]
    #[case("events/dt=2026-11-21/_SUCCESS", true)]
    #[case("folder/", true)]
    #[case("a/..b/.c/d...", true)]
    #[case("", false)]
    #[case("/", false)]
    #[case("/a", false)]
    #[case("a//", false)]
    #[case("a//b", false)]
    #[case(".", false)]
    #[case("..", false)]
    #[case("../other-bucket/a", false)]
    #[case("a/../b", false)]
    #[case("a/./b", false)]
    #[case("a/..", false)]
    #[case("a\0", false)]
    fn keys_that_would_name_another_file_are_none(#[case] key: &str, #[case] expected: bool) {
        assert_eq!(is_file_name(key), expected);
    }
}
