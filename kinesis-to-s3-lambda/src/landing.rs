//! The write protocol: a group's object holds exactly the batch that is about to be acknowledged, whatever earlier
//! attempts did, whether they are over or not.
//!
//! An object is created with `If-None-Match: *`. If that does not simply succeed, an earlier attempt may have been here
//! or may still be on its way: the object is looked at and replaced with `If-Match: <its ETag>`, always, also when it
//! seems right already, and always with other bytes. S3's `ETag` is the MD5 of the bytes, so a write of a dead attempt
//! that was conditional on the old one fails when it arrives at last.
//!
//! A large group is looked at before it is compressed: what is replaced need not be compressed twice.
//!
//! An attempt that is not over, although its batch was sent again (a mapping that restarts does that), looks and
//! replaces too, perhaps after the later attempt was acknowledged. So an object also says which attempt wrote it. An
//! attempt replaces other lines than its own only if it was certainly sent later than the one that wrote them; else it
//! stops, and the batch, if it is still wanted, is sent again.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>

use std::future::Future;
use std::time::Duration;

use lambda_setup::deadline::{Deadline, TimeIsUp, backoff_ceiling};
use shared::object::{Attempt, BlockSize, Writing};

use crate::encode::{EncodeError, Object, encode};
use crate::group::Group;

/// A store of objects with conditional writes.
pub trait ObjectStore {
    /// Writes the object if the condition holds.
    fn put(&self, key: &str, object: &Object, condition: &Condition) -> impl Future<Output = Result<(), PutError>>;

    /// What there is under a key.
    fn head(&self, key: &str) -> impl Future<Output = Result<Option<Found>, HeadError>>;
}

/// What must hold for a write to take place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is no object.
    Absent,
    /// The object's `ETag` is this.
    Matches(String),
}

/// An object of an earlier attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub etag: String,
    /// What it says of how it was written; nothing, if no attempt at landing wrote it.
    pub writing: Writing,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A write that did not succeed, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The condition did not hold.
    #[error("the object is not what the write was conditional on")]
    ConditionFailed,
    /// Another write of the same key was under way.
    #[error("another write of the same object is under way")]
    Conflict,
    /// A fault of the service or of the way to it: the write may have taken place, or may yet.
    #[error("the write was not answered as done: {0}")]
    Uncertain(#[source] Source),
    /// No try can succeed: no such bucket, no permission, a malformed call.
    #[error("S3 refused the write: {0}")]
    Permanent(#[source] Source),
}

/// A look that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    #[error("the look at the object failed: {0}")]
    Transient(#[source] Source),
    #[error("S3 refused the look at the object: {0}")]
    Permanent(#[source] Source),
}

/// Why a group is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum LandingError {
    #[error("the invocation's time ran out; the last failure: {last_failure}")]
    TimeIsUp { last_failure: String },
    #[error("request {request_id} wrote other records into the object, and may have been sent later")]
    Superseded { request_id: String },
    #[error(transparent)]
    Put(PutError),
    #[error(transparent)]
    Head(HeadError),
    #[error("compression failed: {0}")]
    Encode(#[source] EncodeError),
}

impl From<EncodeError> for LandingError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TimeIsUp(TimeIsUp) => Self::TimeIsUp { last_failure: "compression took too long".into() },
            EncodeError::Sort(_) | EncodeError::Frame(_) => Self::Encode(error),
        }
    }
}

impl LandingError {
    /// Whether a person is needed: no later attempt will succeed by itself.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Put(PutError::Permanent(_)) | Self::Head(HeadError::Permanent(_)) | Self::Encode(_) => true,
            Self::TimeIsUp { .. } | Self::Superseded { .. } | Self::Put(_) | Self::Head(_) => false,
        }
    }
}

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landed {
    pub uncompressed_bytes: u64,
    pub compressed_bytes: usize,
    /// Whether an earlier attempt's object was replaced.
    pub replaced: bool,
}

impl Landed {
    fn new(object: &Object, replaced: bool) -> Self {
        let uncompressed_bytes = object.metadata.uncompressed_bytes;
        Self { uncompressed_bytes, compressed_bytes: object.body.len(), replaced }
    }
}

/// Of a group of so many bytes of lines, compression takes seconds. So S3 is asked first what is there, and the lines are
/// compressed once.
const LOOK_FIRST_BYTES: usize = 16 * 1024 * 1024;
/// The longest that one request may take: S3 answers in some 50 ms; one that hangs must leave time for another.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_BASE: Duration = Duration::from_millis(50);
const BACKOFF_CAP: Duration = Duration::from_secs(2);

/// Stores a group's object. `jitter` gives numbers from 0 to 1.
///
/// # Errors
///
/// When the group is not known to be stored; the batch must not be acknowledged then.
pub async fn land(
    store: &impl ObjectStore,
    group: &Group,
    attempt: &Attempt,
    deadline: Deadline,
    jitter: impl FnMut() -> f64,
) -> Result<Landed, LandingError> {
    let key = group.key();
    let mut calls = Calls { key: &key, attempt, deadline, jitter, retries: 0, has_failed: false };
    let mut found = if group.bytes < LOOK_FIRST_BYTES { None } else { look(store, &key, &mut calls).await? };
    let (block_size, written_as) = form(group, attempt, found.as_ref());
    let mut object = encode(group, block_size, &written_as, deadline)?;
    loop {
        if let Some(found) = &found {
            refuse_if_superseded(&object, attempt, &found.writing)?;
            let (block_size, written_as) = form(group, attempt, Some(found));
            if (block_size, &written_as) != (object.metadata.block_size, &object.metadata.attempt) {
                object = encode(group, block_size, &written_as, deadline)?;
            }
        }
        let condition = found.as_ref().map_or(Condition::Absent, |found| Condition::Matches(found.etag.clone()));
        match calls.call(store.put(&key, &object, &condition)).await {
            Some(Ok(())) => return Ok(Landed::new(&object, found.is_some())),
            Some(Err(error @ PutError::Permanent(_))) => return Err(LandingError::Put(error)),
            // Somebody was here before: look at once.
            Some(Err(PutError::ConditionFailed)) if found.is_none() && calls.retries == 0 => {}
            Some(Err(error)) => calls.wait_after(&error.to_string()).await?,
            None => calls.wait_after("S3 did not answer a write").await?,
        }
        calls.retries += 1;
        found = look(store, &key, &mut calls).await?;
    }
}

/// How the group's object is to be written: with other bytes than the one that was found, and, since the same lines may be
/// written again, as no older than it.
fn form(group: &Group, attempt: &Attempt, found: Option<&Found>) -> (BlockSize, Attempt) {
    let fitting = BlockSize::fitting(group.bytes);
    let Some(Found { writing, .. }) = found else { return (fitting, attempt.clone()) };
    let attempt = writing.attempt.as_ref().map_or_else(|| attempt.clone(), |earlier| attempt.later_of(earlier));
    (writing.block_size.unwrap_or(fitting).next(), attempt)
}

/// Other lines than this attempt's are replaced only if it was certainly sent later.
fn refuse_if_superseded(object: &Object, attempt: &Attempt, found: &Writing) -> Result<(), LandingError> {
    let same_lines = found.uncompressed_sha256.as_ref() == Some(&object.metadata.uncompressed_sha256);
    match &found.attempt {
        Some(earlier)
            if !same_lines && earlier.request_id != attempt.request_id && !attempt.is_certainly_later_than(earlier) =>
        {
            Err(LandingError::Superseded { request_id: earlier.request_id.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

/// Looks at the object until there is an answer.
async fn look<J: FnMut() -> f64>(
    store: &impl ObjectStore,
    key: &str,
    calls: &mut Calls<'_, J>,
) -> Result<Option<Found>, LandingError> {
    loop {
        match calls.call(store.head(key)).await {
            Some(Ok(found)) => return Ok(found),
            Some(Err(error @ HeadError::Permanent(_))) => return Err(LandingError::Head(error)),
            Some(Err(error)) => calls.wait_after(&error.to_string()).await?,
            None => calls.wait_after("S3 did not answer a look").await?,
        }
    }
}

/// The time that is left for a group, and what became of it so far.
struct Calls<'a, J> {
    key: &'a str,
    attempt: &'a Attempt,
    deadline: Deadline,
    jitter: J,
    retries: u32,
    has_failed: bool,
}

impl<J: FnMut() -> f64> Calls<'_, J> {
    /// Makes a call; `None` when it was not answered in time.
    async fn call<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        self.deadline.bound(CALL_TIMEOUT, call).await.ok()
    }

    /// Waits before the next call.
    ///
    /// The first failure is logged at once: with S3 away, the last one is almost a timeout later. Those between say nothing new.
    async fn wait_after(&mut self, failure: &str) -> Result<(), LandingError> {
        if !std::mem::replace(&mut self.has_failed, true) {
            let (request_id, key) = (&self.attempt.request_id, self.key);
            tracing::warn!(request_id, key, failure, "the object is not stored at the first try; trying again");
        }
        let wait = backoff_ceiling(self.retries, BACKOFF_BASE, BACKOFF_CAP).mul_f64((self.jitter)());
        self.retries += 1;
        self.deadline.sleep(wait).await.map_err(|TimeIsUp| LandingError::TimeIsUp { last_failure: failure.to_owned() })
    }
}

#[cfg(test)]
pub(crate) mod tests;
