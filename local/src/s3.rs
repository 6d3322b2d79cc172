//! The embedded S3: s3s over a folder, with a lock for each key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, HttpResponse, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::RwLock;

/// An S3 whose objects are files: `<root>/<bucket>/<key>`.
#[derive(Clone)]
pub struct S3 {
    service: S3Service,
    /// s3s-fs checks a write's condition, writes the object and then its metadata, one after the other; and it reads the
    /// same way. Whoever writes a key has it alone, so that conditions hold and nobody sees half of a change.
    locks: Arc<[RwLock<()>; LOCKS]>,
}

/// Keys share locks by their hash: enough that different keys seldom wait for each other.
const LOCKS: usize = 64;

/// A folder that can't serve as a store.
#[derive(Debug, thiserror::Error)]
#[error("DATA_DIR: {path} can't hold buckets: {problem}")]
pub struct S3Error {
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

/// Lets all through to buckets that are there. s3s-fs would make the folder of one that is not, and a misspelt bucket
/// name would go unnoticed.
struct BucketMustExist {
    root: PathBuf,
}

#[async_trait::async_trait]
impl S3Access for BucketMustExist {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        match context.s3_path().as_object() {
            Some((bucket, _)) if !self.root.join(bucket).is_dir() => Err(s3_error!(NoSuchBucket)),
            _ => Ok(()),
        }
    }
}

impl S3 {
    /// Serves a folder, with these buckets in it.
    ///
    /// # Errors
    ///
    /// When the folder or a bucket's can't be made.
    pub fn start(root: &Path, buckets: &[String]) -> Result<Self, S3Error> {
        let error = |problem: String| S3Error { path: root.display().to_string(), problem };
        for bucket in buckets {
            std::fs::create_dir_all(root.join(bucket)).map_err(|problem| error(problem.to_string()))?;
        }
        let files = FileSystem::new(root).map_err(|problem| error(format!("{problem:?}")))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SecretIsKey);
        builder.set_access(BucketMustExist { root: root.to_owned() });
        Ok(Self { service: builder.build(), locks: Arc::new(std::array::from_fn(|_| RwLock::default())) })
    }

    /// Answers one request.
    ///
    /// # Errors
    ///
    /// When s3s can't answer at all.
    pub async fn call(&self, request: Request<Incoming>) -> Result<HttpResponse, HttpError> {
        let lock = &self.locks[lock_of(request.uri().path())];
        let request = request.map(s3s::Body::from);
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            let _shared = lock.read().await;
            self.service.call(request).await
        } else {
            let _alone = lock.write().await;
            self.service.call(request).await
        }
    }
}

fn lock_of(path: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or_default()
}
