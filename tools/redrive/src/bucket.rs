//! A bucket over the checks' S3 client: whole listings, and whole objects within a limit.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use bytes::Bytes;
pub(crate) use lambda_setup::bucket::Listed;
use lambda_setup::bucket::{self, Bucket as _, Head, List, S3Bucket, Stream, Streams};
use lambda_setup::sdk::SdkConfig;
use shared::timestamp::UnixMillis;

/// Bytes of an object that is read. The largest that Playhead writes is a failed batch, of some 12 MiB.
const MAX_STORED_BYTES: usize = 256 * 1024 * 1024;

#[derive(Clone)]
pub(crate) struct Bucket(S3Bucket);

/// An object as it was read.
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) etag: String,
    /// Its metadata.
    pub(crate) entries: HashMap<String, String>,
    /// When it was written.
    pub(crate) modified: UnixMillis,
}

impl Bucket {
    pub(crate) fn new(config: &SdkConfig, name: String) -> Self {
        Self(S3Bucket::new(bucket::client(config), name))
    }

    /// All keys under a prefix, in order.
    pub(crate) async fn keys(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        Ok(self.list(prefix).await?.into_iter().map(|object| object.key).collect())
    }

    /// All objects under a prefix, in the order of their keys.
    pub(crate) async fn list(&self, prefix: &str) -> anyhow::Result<Vec<Listed>> {
        self.0.list_all(prefix).await.with_context(|| self.url(prefix))
    }

    /// What keys under a prefix have up to the next slash, that slash included, in order: the first thousand after `after`.
    pub(crate) async fn folders(&self, prefix: &str, after: &str) -> anyhow::Result<Vec<String>> {
        let list = List { prefix, delimiter: Some("/"), start_after: Some(after), limit: None };
        Ok(self.0.list(list).await.with_context(|| self.url(prefix))?.prefixes)
    }

    /// An object's bytes; `None` when there is none.
    pub(crate) async fn get(&self, key: &str) -> anyhow::Result<Option<Bytes>> {
        Ok(self.read(key).await?.map(|stored| stored.bytes))
    }

    /// An object; `None` when there is none.
    pub(crate) async fn read(&self, key: &str) -> anyhow::Result<Option<Stored>> {
        let url = || self.url(key);
        let Some((head, mut stream)) = self.0.open(key).await.with_context(url)? else { return Ok(None) };
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await.with_context(url)? {
            bytes.extend_from_slice(&piece);
            ensure!(bytes.len() <= MAX_STORED_BYTES, "{} has more than {MAX_STORED_BYTES} bytes", url());
        }
        let Head { etag, metadata: entries, modified } = head;
        Ok(Some(Stored { bytes: bytes.into(), etag, entries, modified }))
    }

    /// An object's metadata; `None` when there is none.
    pub(crate) async fn metadata(&self, key: &str) -> anyhow::Result<Option<HashMap<String, String>>> {
        Ok(self.0.head(key).await.with_context(|| self.url(key))?.map(|head| head.metadata))
    }

    pub(crate) async fn delete(&self, key: &str) -> anyhow::Result<()> {
        self.0.delete(key).await.with_context(|| self.url(key))
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.0.name())
    }
}
