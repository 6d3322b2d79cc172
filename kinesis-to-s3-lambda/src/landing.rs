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
pub(crate) mod tests {
    use super::*;
    use crate::encode::tests::attempt;
    use crate::group::group;
    use crate::group::tests::{framed, record};
    use shared::frame::MAX_LINES_BYTES;
    use shared::line::EventFormat;
    use std::cell::RefCell;
    use std::io::Read;
    use testbed::{Blob, Bucket, Fault, Faults};

    /// The testbed's bucket, whose calls fail as their scripts say.
    #[derive(Default)]
    pub(crate) struct MemoryStore {
        pub(crate) bucket: RefCell<Bucket>,
        puts: RefCell<Faults<PutError>>,
        looks: RefCell<Faults<HeadError>>,
        calls: RefCell<Vec<&'static str>>,
    }

    impl MemoryStore {
        pub(crate) fn scripted(puts: impl IntoIterator<Item = Fault<PutError>>) -> Self {
            Self { puts: RefCell::new(Faults::script(puts)), ..Self::default() }
        }

        fn apply(&self, key: &str, object: &Object, condition: &Condition) -> Result<(), PutError> {
            let condition = match condition {
                Condition::Absent => testbed::Condition::Absent,
                Condition::Matches(etag) => testbed::Condition::Matches(etag),
            };
            let content = Blob::new(object.body.clone(), object.metadata.to_entries());
            let put = self.bucket.borrow_mut().put(0, key, content, condition);
            put.map(drop).map_err(|_| PutError::ConditionFailed)
        }

        fn found(&self, key: &str) -> Option<Found> {
            let bucket = self.bucket.borrow();
            let object = bucket.get(key)?;
            let entries = object.content.metadata.clone().into_iter().collect();
            Some(Found { etag: object.etag.clone(), writing: Writing::from_entries(&entries) })
        }

        fn etag(&self, key: &str) -> String {
            self.found(key).unwrap().etag
        }

        fn lines(&self, key: &str) -> Vec<String> {
            let bucket = self.bucket.borrow();
            let mut text = String::new();
            let body = &bucket.get(key).unwrap().content.body;
            bzip2::read::BzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    impl ObjectStore for &MemoryStore {
        async fn put(&self, key: &str, object: &Object, condition: &Condition) -> Result<(), PutError> {
            self.calls.borrow_mut().push("put");
            let answer = self.puts.borrow_mut().call(|| self.apply(key, object, condition));
            answer.arrives(tokio::time::sleep).await
        }

        async fn head(&self, key: &str) -> Result<Option<Found>, HeadError> {
            self.calls.borrow_mut().push("head");
            let answer = self.looks.borrow_mut().call(|| Ok(self.found(key)));
            answer.arrives(tokio::time::sleep).await
        }
    }

    fn fails() -> Fault<PutError> {
        Fault::Fails(PutError::Uncertain("503 SlowDown".into()))
    }

    fn conflict() -> Fault<PutError> {
        Fault::Fails(PutError::Conflict)
    }

    pub(crate) fn done_but_fails() -> Fault<PutError> {
        Fault::DoneButFails(PutError::Uncertain("500".into()))
    }

    pub(crate) fn permanent() -> Fault<PutError> {
        Fault::Fails(PutError::Permanent("no such bucket".into()))
    }

    fn batch(numbers: std::ops::Range<u64>) -> Group {
        let records: Vec<_> = numbers.map(|number| record(number, &format!("{{\"n\":{number}}}\n"), 0.0)).collect();
        group(&records, EventFormat::Envelope).remove(0)
    }

    async fn land_in(store: &MemoryStore, group: &Group) -> Result<Landed, LandingError> {
        // Each attempt is certainly later than the one before.
        let attempt = attempt(i64::try_from(store.calls.borrow().len()).unwrap() * 60_000);
        land_as(&attempt, store, group).await
    }

    async fn land_as(attempt: &Attempt, store: &MemoryStore, group: &Group) -> Result<Landed, LandingError> {
        land(&store, group, attempt, Deadline::after(Duration::from_secs(50)), || 0.5).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_usual_case_is_one_request() {
        let store = MemoryStore::default();
        let landed = land_in(&store, &batch(1..5)).await.unwrap();
        assert!(!landed.replaced);
        assert_eq!(*store.calls.borrow(), ["put"]);
        assert_eq!(store.lines(&batch(1..5).key()).len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_attempt_replaces_an_earlier_longer_or_shorter_one() {
        for (earlier, later) in [(1..9, 1..4), (1..4, 1..9), (1..4, 1..4)] {
            let store = MemoryStore::default();
            let key = batch(earlier.clone()).key();
            land_in(&store, &batch(earlier)).await.unwrap();
            let before = store.etag(&key);
            let landed = land_in(&store, &batch(later.clone())).await.unwrap();
            assert!(landed.replaced);
            assert_ne!(before, store.etag(&key));
            let expected: Vec<String> = later.map(|number| format!("{{\"n\":{number}}}")).collect();
            assert_eq!(store.lines(&key), expected);
        }
    }

    fn large_batch(records: u64) -> Group {
        let lines = "{}\n".repeat(MAX_LINES_BYTES / 3);
        let records: Vec<_> = (1..=records).map(|number| framed(number, &lines)).collect();
        group(&records, EventFormat::Envelope).remove(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_group_is_compressed_for_what_is_there() {
        let (store, [shorter, longer]) = (MemoryStore::default(), [17, 18].map(large_batch));
        let key = longer.key();
        assert!(shorter.bytes > LOOK_FIRST_BYTES);
        assert!(!land_as(&attempt(50_000), &store, &longer).await.unwrap().replaced);
        let mut before = store.etag(&key);
        for (began, batch, landed) in [(50_000, &longer, true), (20_000, &shorter, false), (120_000, &shorter, true)] {
            assert_eq!(land_as(&attempt(began), &store, batch).await.is_ok_and(|landed| landed.replaced), landed);
            assert_eq!(store.etag(&key) != before, landed);
            before = store.etag(&key);
        }
        assert_eq!(store.lines(&key).len() as u64, shorter.lines());
        // Not once did it write in vain.
        assert_eq!(*store.calls.borrow(), ["head", "put", "head", "put", "head", "head", "put"]);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_on_the_way_of_a_large_group_end_in_exactly_the_batch() {
        let look = || Fault::Fails(HeadError::Transient("503 SlowDown".into()));
        let looks = RefCell::new(Faults::script([look()]));
        let store = MemoryStore { looks, ..MemoryStore::scripted([done_but_fails(), conflict(), fails()]) };
        let batch = large_batch(17);
        assert!(land_in(&store, &batch).await.unwrap().replaced);
        assert_eq!(store.lines(&batch.key()).len() as u64, batch.lines());
        assert_eq!(store.bucket.borrow().objects().count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn ten_attempts_at_one_object_always_change_its_etag() {
        let store = MemoryStore::default();
        let key = batch(1..4).key();
        let mut last = None;
        for _ in 0..10 {
            land_in(&store, &batch(1..4)).await.unwrap();
            let now = store.etag(&key);
            assert_ne!(last, Some(now.clone()));
            last = Some(now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn faults_on_the_way_end_in_exactly_the_batch() {
        use Fault::{AnswerLost, Lost};
        for script in [
            vec![fails(), fails(), fails()],
            vec![conflict(), fails()],
            vec![Lost],
            vec![done_but_fails()],
            vec![AnswerLost, done_but_fails(), AnswerLost],
            vec![done_but_fails(), conflict(), AnswerLost, fails()],
        ] {
            let name = format!("{script:?}");
            let store = MemoryStore::scripted(script);
            land_in(&store, &batch(1..4)).await.unwrap();
            assert_eq!(store.lines(&batch(1..4).key()).len(), 3, "{name}");
            assert_eq!(store.bucket.borrow().objects().count(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_of_a_dead_attempt_that_arrives_late_changes_nothing() {
        let store = MemoryStore::default();
        let key = batch(1..4).key();
        land_in(&store, &batch(1..9)).await.unwrap();
        let seen_by_the_dead = Condition::Matches(store.etag(&key));
        land_in(&store, &batch(1..4)).await.unwrap();
        let in_time = Deadline::after(Duration::from_secs(50));
        let late = encode(&batch(1..7), BlockSize::fitting(1), &attempt(0), in_time).unwrap();
        for condition in [seen_by_the_dead, Condition::Absent] {
            assert!(matches!(store.apply(&key, &late, &condition), Err(PutError::ConditionFailed)));
        }
        assert_eq!(store.lines(&key).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_was_not_certainly_sent_later_leaves_other_lines_alone() {
        let store = MemoryStore::default();
        land_as(&attempt(50_000), &store, &batch(1..4)).await.unwrap();
        for earlier_or_unknown in [20_000, 45_000, 55_000] {
            let error = land_as(&attempt(earlier_or_unknown), &store, &batch(1..9)).await.unwrap_err();
            assert!(matches!(error, LandingError::Superseded { .. }) && !error.is_permanent());
            assert_eq!(store.lines(&batch(1..4).key()).len(), 3);
        }
        land_as(&attempt(61_000), &store, &batch(1..9)).await.unwrap();
        assert_eq!(store.lines(&batch(1..4).key()).len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_lines_are_written_again_by_any_attempt_and_grow_no_older() {
        let store = MemoryStore::default();
        let key = batch(1..4).key();
        land_as(&attempt(50_000), &store, &batch(1..4)).await.unwrap();
        let before = store.etag(&key);
        land_as(&attempt(20_000), &store, &batch(1..4)).await.unwrap();
        assert_ne!(store.etag(&key), before);
        assert!(land_as(&attempt(40_000), &store, &batch(1..9)).await.is_err());
        assert_eq!(store.lines(&key).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn endless_faults_leave_time_to_answer() {
        let store = MemoryStore { puts: RefCell::new(Faults::planned(|_| Some(fails()))), ..MemoryStore::default() };
        let deadline = Deadline::after(Duration::from_secs(50));
        let error = land(&&store, &batch(1..4), &attempt(0), deadline, || 0.5).await.unwrap_err();
        assert!(error.to_string().contains("503 SlowDown"), "{error}");
        assert!(!deadline.remaining().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn looks_that_fail_are_repeated() {
        let look = || Fault::Fails(HeadError::Transient("503 SlowDown".into()));
        let looks = RefCell::new(Faults::script([look(), look(), look()]));
        let store = MemoryStore { looks, ..MemoryStore::scripted([done_but_fails()]) };
        land_in(&store, &batch(1..4)).await.unwrap();
        assert_eq!(*store.calls.borrow(), ["put", "head", "head", "head", "head", "put"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_error_ends_the_attempt() {
        let store = MemoryStore::scripted([permanent()]);
        assert!(matches!(land_in(&store, &batch(1..4)).await, Err(LandingError::Put(PutError::Permanent(_)))));
        assert_eq!(*store.calls.borrow(), ["put"]);
    }
}
