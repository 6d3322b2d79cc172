//! S3: the testbed's bucket, and requests that are in its hands until it does them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;
use std::task::Poll;

use kinesis_to_s3_lambda::encode::Object;
use kinesis_to_s3_lambda::landing::{Condition, Found, HeadError, ObjectStore, PutError};
use md5::{Digest, Md5};
use shared::object::Writing;
use testbed::{Bucket, Content};

use crate::Rules;
use crate::seen::{Happening, Seen};
use crate::stream::Line;

/// The block sizes of bzip2, and so the ways to write the same lines. A tenth write can bring back the first one's `ETag`, and
/// a write that was conditional on that takes effect then: the promise holds as long as no object is written more often
/// while S3 has a write of it in its hands.
pub(crate) const DISTINCT_WRITES: usize = 9;

/// A write that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) key: String,
    object: Object,
    condition: Condition,
}

/// Where the answer to a request is put for its sender, who may be gone.
pub(crate) type Reply<T> = Rc<RefCell<Option<T>>>;

pub(crate) enum Request {
    Put(Box<Write>, Reply<Result<(), PutError>>),
    Head(String, Reply<Result<Option<Found>, HeadError>>),
}

/// One attempt's connection to S3, with the request that it waits for.
#[derive(Clone, Default)]
pub(crate) struct Connection {
    pub(crate) request: Rc<RefCell<Option<Request>>>,
}

impl Connection {
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> T {
        let reply = Reply::default();
        *self.request.borrow_mut() = Some(request(reply.clone()));
        // Nothing wakes the sender: it is polled again whenever something was done about its request.
        std::future::poll_fn(|_| reply.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

impl ObjectStore for Connection {
    async fn put(&self, key: &str, object: &Object, condition: &Condition) -> Result<(), PutError> {
        let write = Write { key: key.to_owned(), object: object.clone(), condition: condition.clone() };
        self.ask(|reply| Request::Put(Box::new(write), reply)).await
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, HeadError> {
        self.ask(|reply| Request::Head(key.to_owned(), reply)).await
    }
}

/// An object as a reader finds it.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) object: Object,
    pub(crate) text: String,
    pub(crate) lines: Vec<Line>,
    md5: [u8; 16],
}

impl Content for Stored {
    fn size(&self) -> u64 {
        self.object.body.len() as u64
    }

    fn md5(&self) -> [u8; 16] {
        self.md5
    }

    fn metadata_bytes(&self) -> usize {
        self.object.metadata.to_entries().iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn assembled(&self, _: &[Self]) -> Self {
        unreachable!("objects are put whole")
    }
}

/// The bucket.
pub(crate) struct S3 {
    pub(crate) bucket: Bucket<Stored>,
    /// How often each key was written.
    writes: BTreeMap<String, usize>,
    /// How often one object may be written; more is refused.
    writes_allowed: usize,
    rules: Rules,
}

impl S3 {
    pub(crate) fn new(rules: Rules) -> Self {
        // One write of each object is left for the end.
        let writes_allowed = if rules == Rules::AnyNumberOfWrites { usize::MAX - 1 } else { DISTINCT_WRITES - 1 };
        Self { bucket: Bucket::default(), writes: BTreeMap::new(), writes_allowed, rules }
    }

    /// Lets each object be written once more.
    pub(crate) fn allow_last_writes(&mut self) {
        self.writes_allowed += 1;
    }

    /// Does a write, if its condition holds.
    pub(crate) fn put(&mut self, write: Write, seen: &mut Seen) -> Result<(), PutError> {
        let condition = match &write.condition {
            _ if self.rules == Rules::PlainOverwriting => testbed::Condition::None,
            Condition::Absent => testbed::Condition::Absent,
            Condition::Matches(etag) => testbed::Condition::Matches(etag),
        };
        if self.bucket.check(&write.key, condition).is_err() {
            seen.note(Happening::ConditionFailed);
            return Err(PutError::ConditionFailed);
        }
        let writes = self.writes.entry(write.key.clone()).or_default();
        if *writes == self.writes_allowed {
            return Err(PutError::Uncertain("503 SlowDown".into()));
        }
        *writes += 1;
        if *writes > 1 {
            seen.note(Happening::Replaced);
        }
        let stored = self.stored(write.object);
        let put = self.bucket.put(0, &write.key, stored, condition);
        put.map(drop).map_err(|error| PutError::Permanent(error.into()))
    }

    pub(crate) fn head(&self, key: &str) -> Option<Found> {
        self.bucket.get(key).map(|found| Found {
            etag: found.etag.clone(),
            writing: Writing::from_entries(&found.content.object.metadata.to_entries()),
        })
    }

    fn stored(&self, object: Object) -> Stored {
        let mut text = String::new();
        bzip2::read::BzDecoder::new(&object.body[..]).read_to_string(&mut text).unwrap();
        let bytes = if self.rules == Rules::EtagOfTheLines { text.as_bytes() } else { &object.body };
        let md5 = Md5::digest(bytes).into();
        let lines = text.lines().map(Line::parse).collect();
        Stored { object, text, lines, md5 }
    }
}
