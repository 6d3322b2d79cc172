//! A bucket in memory for tests, with S3's conditions, paging and multipart uploads, and calls that fail on demand.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::bucket::{
    Bucket, BucketError, Condition, Content, Head, List, Listed, Page, Part, Stream, Streams, Uploads,
};

type Result<T> = std::result::Result<T, BucketError>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) body: Bytes,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) etag: String,
}

#[derive(Default)]
pub(crate) struct MemoryBucket {
    pub(crate) objects: RefCell<BTreeMap<String, Stored>>,
    pub(crate) uploads: RefCell<BTreeMap<String, BTreeMap<i32, Bytes>>>,
    /// Calls so far: requests that S3 would bill.
    pub(crate) calls: Cell<usize>,
    /// The call, counted from 1, from which on all fail: a function that was killed there.
    pub(crate) fails_from: Cell<Option<usize>>,
    /// An operation that always fails, with its key.
    pub(crate) refuses: Cell<Option<(&'static str, &'static str)>>,
    /// Keys and prefixes a page at most.
    pub(crate) page_size: Cell<Option<usize>>,
    /// What they were.
    pub(crate) calls_by_operation: RefCell<BTreeMap<&'static str, usize>>,
    /// The call, counted from 1, that waits until this is `None` again.
    pub(crate) pauses_at: Cell<Option<usize>>,
    /// A call whose bit is set lets others run before it; the bits go round.
    pub(crate) turns: Cell<u64>,
    /// What else happens in the world at each call, before it has its effect.
    pub(crate) meanwhile: RefCell<Option<Meanwhile>>,
    created_uploads: Cell<u64>,
}

/// Gets the bucket, the operation and its key.
pub(crate) type Meanwhile = Box<dyn FnMut(&MemoryBucket, &'static str, &str)>;

/// Equal for equal content, as S3's is.
fn content_etag(bytes: &Bytes) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};

    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

impl MemoryBucket {
    pub(crate) fn insert(&self, key: &str, body: impl Into<Bytes>, metadata: HashMap<String, String>) {
        let body = body.into();
        let etag = content_etag(&body);
        self.objects.borrow_mut().insert(key.to_owned(), Stored { body, metadata, etag });
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.objects.borrow().get(key).map(|stored| String::from_utf8_lossy(&stored.body).into_owned())
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.objects.borrow().keys().cloned().collect()
    }

    pub(crate) fn etag(&self, key: &str) -> String {
        self.objects.borrow().get(key).map(|stored| stored.etag.clone()).unwrap_or_default()
    }

    fn require(&self, key: &str, condition: Condition<'_>) -> Result<()> {
        let holds = match (condition, self.objects.borrow().get(key)) {
            (Condition::Always, _) | (Condition::Absent, None) => true,
            (Condition::Matches(etag), Some(stored)) => stored.etag == etag,
            _ => false,
        };
        if holds { Ok(()) } else { Err(BucketError::ConditionFailed { key: key.to_owned() }) }
    }

    async fn call(&self, operation: &'static str, key: &str) -> Result<()> {
        self.calls.set(self.calls.get() + 1);
        *self.calls_by_operation.borrow_mut().entry(operation).or_default() += 1;
        if self.pauses_at.get() == Some(self.calls.get()) {
            while self.pauses_at.get().is_some() {
                tokio::task::yield_now().await;
            }
        }
        // Taken out while it runs: what it does is no call.
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

impl Bucket for &MemoryBucket {
    async fn list(&self, list: List<'_>) -> Result<Page> {
        self.call("listing", list.prefix).await?;
        let limit = usize::from(list.limit.unwrap_or(1_000)).min(self.page_size.get().unwrap_or(1_000));
        let (mut page, mut prefixes) = (Page::default(), BTreeSet::new());
        for (key, stored) in self.objects.borrow().iter() {
            let Some(rest) = key.strip_prefix(list.prefix) else { continue };
            if list.start_after.is_some_and(|after| key.as_str() <= after) {
                continue;
            }
            let folded = list.delimiter.and_then(|delimiter| {
                rest.find(delimiter).map(|at| format!("{}{}", list.prefix, &rest[..at + delimiter.len()]))
            });
            let is_new = folded.as_ref().is_none_or(|prefix| !prefixes.contains(prefix));
            if is_new && page.objects.len() + prefixes.len() == limit {
                page.is_truncated = true;
                break;
            }
            match folded {
                Some(prefix) => drop(prefixes.insert(prefix)),
                None => page.objects.push(Listed {
                    key: key.clone(),
                    size: stored.body.len() as u64,
                    etag: stored.etag.clone(),
                }),
            }
        }
        page.prefixes = prefixes.into_iter().collect();
        Ok(page)
    }

    async fn head(&self, key: &str) -> Result<Option<Head>> {
        self.call("HEAD", key).await?;
        let objects = self.objects.borrow();
        Ok(objects.get(key).map(|stored| Head { etag: stored.etag.clone(), metadata: stored.metadata.clone() }))
    }

    async fn get(&self, key: &str) -> Result<Option<Content>> {
        self.call("GET", key).await?;
        let objects = self.objects.borrow();
        Ok(objects.get(key).map(|stored| Content { etag: stored.etag.clone(), body: stored.body.clone() }))
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition<'_>) -> Result<String> {
        self.call("PUT", key).await?;
        self.require(key, condition)?;
        self.insert(key, body, HashMap::new());
        Ok(self.etag(key))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.call("DELETE", key).await?;
        self.objects.borrow_mut().remove(key);
        Ok(())
    }

    async fn delete_matching(&self, key: &str, etag: &str) -> Result<()> {
        self.call("DELETE", key).await?;
        self.require(key, Condition::Matches(etag))?;
        self.objects.borrow_mut().remove(key);
        Ok(())
    }
}

impl Uploads for &MemoryBucket {
    async fn create_upload(&self, key: &str) -> Result<String> {
        self.call("starting the upload", key).await?;
        self.created_uploads.set(self.created_uploads.get() + 1);
        let id = format!("upload-{}", self.created_uploads.get());
        self.uploads.borrow_mut().insert(id.clone(), BTreeMap::new());
        Ok(id)
    }

    async fn upload_part(&self, key: &str, upload: &str, number: i32, body: Bytes) -> Result<Part> {
        self.call("uploading a part", key).await?;
        let etag = content_etag(&body);
        match self.uploads.borrow_mut().get_mut(upload) {
            Some(parts) => parts.insert(number, body),
            None => return Err(BucketError::UploadGone { key: key.to_owned() }),
        };
        Ok(Part { number, etag })
    }

    async fn complete_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[Part],
        condition: Condition<'_>,
    ) -> Result<String> {
        self.call("completing the upload", key).await?;
        let gone = || BucketError::UploadGone { key: key.to_owned() };
        let stored = self.uploads.borrow().get(upload).cloned().ok_or_else(gone)?;
        self.require(key, condition)?;
        let mut body = Vec::new();
        for part in parts {
            let bytes = stored.get(&part.number).ok_or_else(gone)?;
            if part.etag != content_etag(bytes) {
                return Err(gone());
            }
            body.extend_from_slice(bytes);
        }
        self.uploads.borrow_mut().remove(upload);
        self.insert(key, body, HashMap::new());
        Ok(self.etag(key))
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.call("ending the upload", key).await?;
        self.uploads.borrow_mut().remove(upload);
        Ok(())
    }
}

/// Content in pieces of so many bytes.
pub(crate) struct MemoryStream(Bytes);

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
        let body = self.objects.borrow().get(key).map(|stored| stored.body.clone()).unwrap_or_default();
        Ok(Some((head, MemoryStream(body))))
    }
}
