//! The bucket, read only, with its requests counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lambda_setup::bucket::{Bucket, BucketError, Content, Head, List, Page, Stream as _, Streams};

/// What the page reads of S3. It has no way to write.
pub(crate) trait Store {
    fn list(&self, list: List<'_>) -> impl Future<Output = Result<Page, BucketError>>;
    /// `None` when there is no such object. For small ones: it is held in memory whole.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Content>, BucketError>>;
    /// The beginning of an object, of at least `limit` bytes if there are as many, and whether it is all of it.
    fn beginning(&self, key: &str, limit: usize) -> impl Future<Output = Result<Option<Beginning>, BucketError>>;
}

pub(crate) struct Beginning {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_all: bool,
}

/// How many requests S3 has had from this program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<AtomicU64>);

impl Requests {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone)]
pub(crate) struct Counted<B> {
    bucket: B,
    pub(crate) requests: Requests,
}

impl<B> Counted<B> {
    pub(crate) fn new(bucket: B) -> Self {
        Self { bucket, requests: Requests::default() }
    }
}

impl<B: Streams> Store for Counted<B> {
    async fn list(&self, list: List<'_>) -> Result<Page, BucketError> {
        self.requests.add();
        self.bucket.list(list).await
    }

    async fn get(&self, key: &str) -> Result<Option<Content>, BucketError> {
        self.requests.add();
        self.bucket.get(key).await
    }

    async fn beginning(&self, key: &str, limit: usize) -> Result<Option<Beginning>, BucketError> {
        self.requests.add();
        let Some((_, mut stream)) = self.bucket.open(key).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        while bytes.len() < limit {
            match stream.next().await? {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => return Ok(Some(Beginning { bytes, is_all: true })),
            }
        }
        bytes.truncate(limit);
        Ok(Some(Beginning { bytes, is_all: false }))
    }
}

/// The same bucket for what checks share, such as the first hour that there is.
impl<B: Streams> Bucket for Counted<B> {
    async fn list(&self, list: List<'_>) -> Result<Page, BucketError> {
        Store::list(self, list).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, BucketError> {
        self.requests.add();
        self.bucket.head(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Content>, BucketError> {
        Store::get(self, key).await
    }

    async fn put(&self, key: &str, _: Bytes, _: lambda_setup::bucket::Condition<'_>) -> Result<String, BucketError> {
        Err(read_only("PUT", key))
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        Err(read_only("DELETE", key))
    }

    async fn delete_matching(&self, key: &str, _: &str) -> Result<(), BucketError> {
        Err(read_only("DELETE", key))
    }
}

fn read_only(operation: &'static str, key: &str) -> BucketError {
    BucketError::Failed { operation, key: key.to_owned(), problem: "the page writes nothing".to_owned() }
}
