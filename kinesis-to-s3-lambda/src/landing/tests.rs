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
