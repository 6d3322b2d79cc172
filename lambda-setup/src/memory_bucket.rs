//! The testbed's bucket for tests, with calls that fail on demand. What does not hold in it panics: it is for tests.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use shared::timestamp::UnixMillis;
use testbed::{Blob, Content as _, Object, S3Error};

use crate::bucket::{
    Bucket, BucketError, Condition, Content, Head, List, Listed, Page, Part, Stream, Streams, Uploads,
};

type Result<T> = std::result::Result<T, BucketError>;

/// A bucket in memory.
#[derive(Default)]
pub struct MemoryBucket {
    /// What is in it.
    pub objects: RefCell<testbed::Bucket>,
    /// Calls so far: requests that S3 would bill.
    pub calls: Cell<usize>,
    /// The call, counted from 1, from which on all fail: a function that was killed there.
    pub fails_from: Cell<Option<usize>>,
    /// An operation that always fails, with its key.
    pub refuses: Cell<Option<(&'static str, &'static str)>>,
    /// Keys and prefixes a page at most.
    pub page_size: Cell<Option<usize>>,
    /// What they were.
    pub calls_by_operation: RefCell<BTreeMap<&'static str, usize>>,
    /// The call, counted from 1, that waits until this is `None` again.
    pub pauses_at: Cell<Option<usize>>,
    /// A call whose bit is set lets others run before it; the bits go round.
    pub turns: Cell<u64>,
    /// What else happens in the world at each call, before it has its effect.
    pub meanwhile: RefCell<Option<Meanwhile>>,
}

/// Gets the bucket, the operation and its key.
pub type Meanwhile = Box<dyn FnMut(&MemoryBucket, &'static str, &str)>;

impl MemoryBucket {
    /// Writes an object, whatever was there.
    pub fn insert(&self, key: &str, body: impl Into<Bytes>, metadata: HashMap<String, String>) {
        let put = self.objects.borrow_mut().put(0, key, Blob::new(body, metadata), testbed::Condition::None);
        put.unwrap();
    }

    /// An object's content.
    pub fn text(&self, key: &str) -> Option<String> {
        let objects = self.objects.borrow();
        Some(String::from_utf8_lossy(&objects.get(key)?.content.body).into_owned())
    }

    /// An object's metadata.
    pub fn metadata(&self, key: &str) -> HashMap<String, String> {
        self.objects.borrow().get(key).unwrap().content.metadata.clone().into_iter().collect()
    }

    /// The keys of all objects, in order.
    pub fn keys(&self) -> Vec<String> {
        self.objects.borrow().objects().map(|(key, _)| key.to_owned()).collect()
    }

    /// An object's `ETag`; empty when there is none.
    pub fn etag(&self, key: &str) -> String {
        self.objects.borrow().get(key).map(|object| object.etag.clone()).unwrap_or_default()
    }

    /// Ends all uploads, as a rule of the bucket's life cycle may; how many there were.
    pub fn end_uploads(&self) -> usize {
        let mut objects = self.objects.borrow_mut();
        let uploads: Vec<_> = objects.uploads().map(|(key, id)| (key.to_owned(), id.to_owned())).collect();
        uploads.iter().for_each(|(key, id)| objects.abort_upload(key, id).unwrap());
        uploads.len()
    }

    async fn call(&self, operation: &'static str, key: &str) -> Result<()> {
        self.calls.set(self.calls.get() + 1);
        *self.calls_by_operation.borrow_mut().entry(operation).or_default() += 1;
        if self.pauses_at.get() == Some(self.calls.get()) {
            while self.pauses_at.get().is_some() {
                tokio::task::yield_now().await;
            }
        }
        // Taken out while it runs: what it does does not count as a call.
        let meanwhile = self.meanwhile.take();
        if let Some(mut happens) = meanwhile {
            happens(self, operation, key);
            self.meanwhile.replace(Some(happens));
        }
        let turns = self.turns.get();
        self.turns.set(turns.rotate_right(1));
        if turns & 1 == 1 {
            tokio::task::yield_now().await;
        }
        let is_killed = self.fails_from.get().is_some_and(|first| self.calls.get() >= first);
        if is_killed || self.refuses.get() == Some((operation, key)) {
            return Err(BucketError::Failed { operation, key: key.to_owned(), problem: "injected".into() });
        }
        Ok(())
    }
}

fn condition(condition: Condition<'_>) -> testbed::Condition<'_> {
    match condition {
        Condition::Always => testbed::Condition::None,
        Condition::Absent => testbed::Condition::Absent,
        Condition::Matches(etag) => testbed::Condition::Matches(etag),
    }
}

/// As the S3 client sees it.
fn failed(operation: &'static str, key: &str, error: S3Error) -> BucketError {
    let key = key.to_owned();
    match (operation, error) {
        (_, S3Error::PreconditionFailed) | ("PUT" | "DELETE", S3Error::NoSuchKey) => {
            BucketError::ConditionFailed { key }
        }
        (_, S3Error::NoSuchUpload | S3Error::InvalidPart | S3Error::InvalidPartOrder | S3Error::EntityTooSmall) => {
            BucketError::UploadGone { key }
        }
        (operation, error) => BucketError::Failed { operation, key, problem: error.code().into() },
    }
}

impl Bucket for &MemoryBucket {
    async fn list(&self, list: List<'_>) -> Result<Page> {
        self.call("listing", list.prefix).await?;
        let List { prefix, delimiter, start_after, limit } = list;
        let max_keys = usize::from(limit.unwrap_or(1_000)).min(self.page_size.get().unwrap_or(1_000));
        let list = testbed::List { prefix, delimiter, start_after, max_keys, ..testbed::List::default() };
        let objects = self.objects.borrow();
        let page = objects.list(&list).map_err(|error| failed("listing", prefix, error))?;
        let listed = |(key, object): (&str, &Object)| Listed {
            key: key.to_owned(),
            size: object.content.size(),
            etag: object.etag.clone(),
            modified: UnixMillis(object.last_modified),
        };
        Ok(Page {
            is_truncated: page.truncated_at.is_some(),
            objects: page.objects.into_iter().map(listed).collect(),
            prefixes: page.common_prefixes,
        })
    }

    async fn head(&self, key: &str) -> Result<Option<Head>> {
        self.call("HEAD", key).await?;
        let head = |object: &Object| Head {
            etag: object.etag.clone(),
            metadata: object.content.metadata.clone().into_iter().collect(),
            modified: UnixMillis(object.last_modified),
        };
        Ok(self.objects.borrow().get(key).map(head))
    }

    async fn get(&self, key: &str) -> Result<Option<Content>> {
        self.call("GET", key).await?;
        let content = |object: &Object| Content { etag: object.etag.clone(), body: object.content.body.clone() };
        Ok(self.objects.borrow().get(key).map(content))
    }

    async fn put(&self, key: &str, body: Bytes, required: Condition<'_>) -> Result<String> {
        self.call("PUT", key).await?;
        let put = self.objects.borrow_mut().put(0, key, body.into(), condition(required));
        put.map_err(|error| failed("PUT", key, error))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.call("DELETE", key).await?;
        self.objects.borrow_mut().remove(key);
        Ok(())
    }

    async fn delete_matching(&self, key: &str, etag: &str) -> Result<()> {
        self.call("DELETE", key).await?;
        let deleted = self.objects.borrow_mut().delete(key, testbed::Condition::Matches(etag));
        deleted.map(drop).map_err(|error| failed("DELETE", key, error))
    }
}

impl Uploads for &MemoryBucket {
    async fn create_upload(&self, key: &str) -> Result<String> {
        self.call("starting the upload", key).await?;
        let mut objects = self.objects.borrow_mut();
        objects.min_part_bytes = 0;
        objects.create_upload(key, Blob::default()).map_err(|error| failed("starting the upload", key, error))
    }

    async fn upload_part(&self, key: &str, upload: &str, number: i32, body: Bytes) -> Result<Part> {
        self.call("uploading a part", key).await?;
        let uploaded = self.objects.borrow_mut().upload_part(key, upload, number_of(number), body.into());
        uploaded.map(|etag| Part { number, etag }).map_err(|error| failed("uploading a part", key, error))
    }

    async fn complete_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[Part],
        required: Condition<'_>,
    ) -> Result<String> {
        self.call("completing the upload", key).await?;
        let part = |part: &Part| testbed::Part { number: number_of(part.number), etag: part.etag.clone() };
        let parts: Vec<_> = parts.iter().map(part).collect();
        let completed = self.objects.borrow_mut().complete_upload(0, key, upload, &parts, condition(required));
        completed.map_err(|error| failed("completing the upload", key, error))
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.call("ending the upload", key).await?;
        // Whether it was there or not.
        self.objects.borrow_mut().abort_upload(key, upload).ok();
        Ok(())
    }

    async fn copy(&self, key: &str, etag: &str, to: &str) -> Result<()> {
        self.call("copying", key).await?;
        let mut objects = self.objects.borrow_mut();
        let source = objects.get(key).filter(|object| object.etag == etag).map(|object| object.content.clone());
        let source = source.ok_or_else(|| BucketError::ConditionFailed { key: key.to_owned() })?;
        objects.put(0, to, source, testbed::Condition::None).map(drop).map_err(|error| failed("copying", key, error))
    }
}

/// 0 for what can't be one, which S3 refuses.
fn number_of(part: i32) -> u16 {
    u16::try_from(part).unwrap_or_default()
}

/// Content in pieces of so many bytes.
pub struct MemoryStream(Bytes);

const PIECE_BYTES: usize = 1_000;

impl Stream for MemoryStream {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let piece = self.0.split_to(self.0.len().min(PIECE_BYTES));
        Ok((!piece.is_empty()).then_some(piece))
    }
}

impl Streams for &MemoryBucket {
    type Stream = MemoryStream;

    async fn open(&self, key: &str) -> Result<Option<(Head, MemoryStream)>> {
        let Some(head) = self.head(key).await? else { return Ok(None) };
        let body = self.objects.borrow().get(key).map(|object| object.content.body.clone()).unwrap_or_default();
        Ok(Some((head, MemoryStream(body))))
    }
}
