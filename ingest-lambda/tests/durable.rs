//! An answer of 2xx means durable in Kinesis or in S3; 503 means that both are away.
//!
//! Stream and bucket are models that fail on either side of a call's effect: what is said to be stored is stored, and in S3
//! at most once, whatever answers are lost.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::Duration;

use ingest_lambda::bucket::{Buckets, HashKey};
use ingest_lambda::pack::Record;
use ingest_lambda::put::{EntryOutcome, PutError, PutReport, RecordStream};
use ingest_lambda::spill::{CreateError, SpillBucket, Spilled};
use ingest_lambda::store::{Origin, Store};
use lambda_setup::deadline::Deadline;
use proptest::prelude::*;
use rstest::rstest;
use shared::frame::FrameWriter;
use shared::line::{EventFormat, Kind};
use shared::object::{BlockSize, ObjectKey, ObjectMetadata, ObjectName};
use shared::rejection::Reason;
use testbed::{Blob, Bucket, Condition, Fault, Faults};
use tokio::time::Instant;

/// The items that the stream holds, in order, and the faults of its calls.
#[derive(Default)]
struct MemoryStream {
    items: RefCell<Vec<usize>>,
    faults: RefCell<Faults<PutError>>,
    /// Of each call the entries whose position divides by this are throttled.
    throttled: Option<usize>,
    calls: RefCell<usize>,
}

impl RecordStream for &MemoryStream {
    async fn put(&self, records: &[&Record], _: Duration) -> Result<Vec<EntryOutcome>, PutError> {
        *self.calls.borrow_mut() += 1;
        let put_one = |(position, record): (usize, &&Record)| {
            if self.throttled.is_some_and(|nth| position.is_multiple_of(nth)) {
                return EntryOutcome::Throttled("ProvisionedThroughputExceededException".into());
            }
            self.items.borrow_mut().extend(&record.items);
            EntryOutcome::Stored
        };
        let answer = self.faults.borrow_mut().call(|| Ok(records.iter().enumerate().map(put_one).collect()));
        answer.arrives(tokio::time::sleep).await
    }
}

/// The testbed's bucket, and the faults of its calls.
#[derive(Default)]
struct MemoryBucket {
    bucket: RefCell<Bucket>,
    faults: RefCell<Faults<CreateError>>,
}

impl SpillBucket for &MemoryBucket {
    async fn create(&self, object: &Spilled, _: Duration) -> Result<(), CreateError> {
        let content = Blob::new(object.body.clone(), object.metadata.to_entries());
        let create = || {
            let created = self.bucket.borrow_mut().put(0, &object.key, content, Condition::Absent);
            // As S3's adapter takes a 412.
            created.map(drop).or(Ok(()))
        };
        let answer = self.faults.borrow_mut().call(create);
        answer.arrives(tokio::time::sleep).await
    }
}

impl MemoryBucket {
    /// The numbers in the objects' lines, after a look at whether each object is what its metadata says.
    fn items(&self) -> Vec<usize> {
        let bucket = self.bucket.borrow();
        let mut items = Vec::new();
        for (key, object) in bucket.objects() {
            let key = ObjectKey::parse(key).unwrap();
            assert!(matches!(key.name, ObjectName::Spilled(_)));
            let mut text = String::new();
            bzip2::read::BzDecoder::new(&object.content.body[..]).read_to_string(&mut text).unwrap();
            let entries = object.content.metadata.clone().into_iter().collect();
            let metadata = ObjectMetadata::from_entries(&key.name, &entries).unwrap();
            assert_eq!((metadata.record_count, metadata.event_count), (0, text.lines().count() as u64));
            assert_eq!(
                metadata.block_size,
                BlockSize::fitting(text.len()),
                "or check-object takes it for a replaced one"
            );
            assert_eq!(metadata.rejected_reasons.is_empty(), key.kind == Kind::Event);
            items.extend(text.lines().map(|line| line.parse::<usize>().unwrap()));
        }
        items
    }
}

/// Records of two items each, whose lines are their numbers; each third is of rejected lines, and some are frames.
fn records(items: std::ops::Range<usize>) -> Vec<Record> {
    let record = |number: usize| {
        let (kind, reasons) = match number % 3 {
            2 => (Kind::Rejected, vec![Reason::TooDeep; 2]),
            _ => (Kind::Event, Vec::new()),
        };
        let items = vec![2 * number, 2 * number + 1];
        // Long enough to be compressed.
        let text = items.iter().map(|item| format!("{item:0>40}\n")).collect::<String>().into_bytes();
        let data = if number.is_multiple_of(2) { FrameWriter::default().compress(&text).unwrap() } else { text };
        let bucket = Buckets::default().bucket_of(HashKey::of(&[]));
        Record { kind, bucket, data, items, reasons, replaced_surrogates: 0, receipts: vec![(lambda_setup::now(), 2)] }
    };
    items.map(record).collect()
}

async fn store(store: &Store<&MemoryStream, &MemoryBucket>, records: Vec<Record>) -> (PutReport, Duration) {
    let began = Instant::now();
    let deadline = Deadline::after(Duration::from_secs(9));
    let origin = Origin { request_id: "r", deadline };
    (store.store(records, origin).await, began.elapsed())
}

fn new_store<'a>(stream: &'a MemoryStream, bucket: &'a MemoryBucket) -> Store<&'a MemoryStream, &'a MemoryBucket> {
    Store::new(stream, bucket, EventFormat::Envelope, Duration::from_secs(1))
}

fn kinesis_is_away(hangs: bool) -> MemoryStream {
    let fault = move |_| Some(if hangs { Fault::Lost } else { Fault::Fails(PutError::Transient("500".into())) });
    MemoryStream { faults: RefCell::new(Faults::planned(fault)), ..MemoryStream::default() }
}

fn s3_is_away(hangs: bool) -> MemoryBucket {
    let fault = move |_| Some(if hangs { Fault::Lost } else { Fault::Fails(CreateError::Uncertain("503".into())) });
    MemoryBucket { faults: RefCell::new(Faults::planned(fault)), ..MemoryBucket::default() }
}

/// A probe of a Kinesis that never answers costs its request 0.35 s.
#[rstest]
#[case::fails(false, 0)]
#[case::hangs(true, 6)]
#[tokio::test(start_paused = true)]
async fn in_two_minutes_without_kinesis_the_first_request_takes_0_7_s_a_few_probes_0_35_s_and_others_no_time(
    #[case] hangs: bool,
    #[case] probes: usize,
) {
    let (stream, bucket) = (kinesis_is_away(hangs), MemoryBucket::default());
    let kept = new_store(&stream, &bucket);
    let mut slow = Vec::new();
    for number in 0..200 {
        let (report, time) = store(&kept, records(number..number + 1)).await;
        assert!(report.is_stored());
        let longest = Duration::from_millis(if number == 0 { 800 } else { 400 });
        assert!(time <= longest, "{number}: {time:?}");
        slow.extend((number > 0 && time > Duration::from_millis(10)).then_some(time));
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert_eq!(slow.len(), probes, "{slow:?}");
    assert!(stream.items.borrow().is_empty());
    let items = bucket.items();
    assert_eq!((items.len(), items.into_iter().collect::<BTreeSet<_>>()), (400, (0..400).collect()));
}

/// One request finds an outage, and one probes.
#[rstest]
#[case::soon(10)]
#[case::just_in_time(300)]
#[tokio::test(start_paused = true)]
async fn a_kinesis_that_answers_in_time_is_used_again_from_the_first_probe_on(#[case] millis: u64) {
    let (on_stream, in_s3) = stored_after_an_outage(Duration::from_millis(millis)).await;
    assert!(in_s3.len() <= 2 * 8, "{in_s3:?}");
    assert!(in_s3.iter().all(|item| !on_stream.contains(item)), "probes double nothing");
}

/// To send much takes long by itself, on little of a processor.
#[tokio::test(start_paused = true)]
async fn a_probe_with_much_data_has_the_time_of_any_other_call() {
    let fault = |call| Some(if call == 1 { Fault::Lost } else { Fault::Slow(Duration::from_millis(600)) });
    let stream = MemoryStream { faults: RefCell::new(Faults::planned(fault)), ..MemoryStream::default() };
    let bucket = MemoryBucket::default();
    let kept = new_store(&stream, &bucket);
    for number in 0..10 {
        let mut records = records(number..number + 1);
        records[0].data.resize(64 * 1024, b' ');
        records[0].data.extend(b"\n");
        assert!(store(&kept, records).await.0.is_stored());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (on_stream, in_s3) = (stream.items.borrow().clone(), bucket.items());
    assert!(!on_stream.is_empty() && in_s3.iter().all(|item| !on_stream.contains(item)), "{on_stream:?} {in_s3:?}");
}

/// What probes it stores all the same, so their events are in both places.
#[tokio::test(start_paused = true)]
async fn a_kinesis_that_answers_probes_late_is_left_alone_and_all_is_in_s3() {
    let (on_stream, in_s3) = stored_after_an_outage(Duration::from_millis(400)).await;
    assert_eq!(in_s3.into_iter().collect::<BTreeSet<_>>(), (0..40).collect());
    assert!(on_stream.len() <= 2 * 3, "{on_stream:?}");
}

/// The items of twenty requests within ten seconds that are on the stream, and those in S3, where Kinesis does not answer the
/// first call, and the later ones after so long.
async fn stored_after_an_outage(answers_after: Duration) -> (Vec<usize>, Vec<usize>) {
    let fault = move |call| Some(if call == 1 { Fault::Lost } else { Fault::Slow(answers_after) });
    let stream = MemoryStream { faults: RefCell::new(Faults::planned(fault)), ..MemoryStream::default() };
    let bucket = MemoryBucket::default();
    let kept = new_store(&stream, &bucket);
    for number in 0..20 {
        assert!(store(&kept, records(number..number + 1)).await.0.is_stored());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    (stream.items.borrow().clone(), bucket.items())
}

#[tokio::test(start_paused = true)]
async fn kinesis_is_used_again_within_seconds_of_its_return() {
    let fault = |call| (call <= 2).then(|| Fault::Fails(PutError::Permanent("AccessDenied".into())));
    let stream = MemoryStream { faults: RefCell::new(Faults::planned(fault)), ..MemoryStream::default() };
    let (bucket, began) = (MemoryBucket::default(), Instant::now());
    let kept = new_store(&stream, &bucket);
    while stream.items.borrow().is_empty() {
        assert!(store(&kept, records(0..1)).await.0.is_stored());
        assert!(began.elapsed() < Duration::from_secs(12));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let calls = *stream.calls.borrow();
    assert_eq!((store(&kept, records(1..2)).await.0.spilled_events(), *stream.calls.borrow()), (0, calls + 1));
}

#[rstest]
#[case::both_fail(false, false)]
#[case::both_hang(true, true)]
#[case::kinesis_hangs(true, false)]
#[case::s3_hangs(false, true)]
#[tokio::test(start_paused = true)]
async fn with_both_away_all_items_are_named_within_three_seconds(#[case] kinesis: bool, #[case] s3: bool) {
    let (stream, bucket) = (kinesis_is_away(kinesis), s3_is_away(s3));
    let kept = new_store(&stream, &bucket);
    for _ in 0..5 {
        let (report, time) = store(&kept, records(0..3)).await;
        assert_eq!(report.not_stored(), (0..6).collect::<Vec<_>>());
        assert!(time <= Duration::from_secs(3), "{time:?}");
        let errors = report.last_error.unwrap();
        assert!(kinesis || errors.contains("the call failed"), "{errors}");
        assert!(s3 || errors.contains("the write was not answered"), "{errors}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_s3_away_kinesis_is_asked_once_more_whether_the_breaker_is_open_or_not() {
    let fault = |call| [1, 2, 4].contains(&call).then_some(Fault::Lost);
    let stream = MemoryStream { faults: RefCell::new(Faults::planned(fault)), ..MemoryStream::default() };
    let bucket = s3_is_away(false);
    let kept = new_store(&stream, &bucket);
    assert!(!store(&kept, records(0..1)).await.0.is_stored());
    assert!(store(&kept, records(1..2)).await.0.is_stored(), "the breaker was open");
    assert!(store(&kept, records(3..4)).await.0.is_stored(), "its first call was lost");
    assert_eq!(*stream.items.borrow(), [2, 3, 6, 7]);
}

/// The throttled records of one request would have to wait again and again, and any other with a record of that shard.
#[tokio::test(start_paused = true)]
async fn throttled_entries_are_spilled_and_for_some_seconds_nothing_waits_for_their_shard() {
    let (stream, bucket) = (MemoryStream { throttled: Some(2), ..MemoryStream::default() }, MemoryBucket::default());
    let kept = new_store(&stream, &bucket);
    let (report, time) = store(&kept, records(0..2)).await;
    assert!(report.is_stored() && time <= Duration::from_millis(1_100), "{time:?}");
    assert_eq!((stream.items.borrow().clone(), bucket.items()), (vec![2, 3], vec![0, 1]));
    for _ in 0..2 {
        let calls = *stream.calls.borrow();
        let (report, time) = store(&kept, records(2..4)).await;
        assert_eq!((report.spilled_events(), *stream.calls.borrow(), time), (0, calls + 1, Duration::ZERO));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = *stream.calls.borrow();
    store(&kept, records(2..4)).await;
    assert!(*stream.calls.borrow() > calls + 1, "tried again and again, as with a closed breaker");
}

/// Records of 1 MB of lines.
fn large_records(items: std::ops::Range<usize>, kind: Kind) -> Vec<Record> {
    let enlarge = |mut record: Record| {
        let line = |item| format!("{}{item}\n", "0".repeat(499_998));
        let text = record.items.iter().map(line).collect::<String>().into_bytes();
        record.data = FrameWriter::default().compress(&text).unwrap();
        record.kind = kind;
        record.reasons = if kind == Kind::Rejected { vec![Reason::TooDeep; 2] } else { Vec::new() };
        record
    };
    records(items).into_iter().map(enlarge).collect()
}

#[rstest]
#[case::all_fit(3_900, 0..0)]
#[case::one_does_not(2_100, 4..6)]
#[case::no_rejected_line_does(1_700, 2..6)]
#[tokio::test(start_paused = true)]
async fn what_can_not_be_compressed_in_time_is_named_and_costs_nothing_else(
    #[case] millis: u64,
    #[case] expected: std::ops::Range<usize>,
) {
    let (stream, bucket) = (kinesis_is_away(false), MemoryBucket::default());
    let kept = new_store(&stream, &bucket);
    let records = [records(0..1), large_records(1..3, Kind::Rejected)].concat();
    let origin = Origin { request_id: "r", deadline: Deadline::after(Duration::from_millis(millis)) };
    let report = kept.store(records, origin).await;
    assert_eq!(report.not_stored(), expected.clone().collect::<Vec<_>>());
    assert_eq!(report.last_error.is_some_and(|error| error.contains("would take longer")), !expected.is_empty());
    assert_eq!(bucket.items(), (0..6).filter(|item| !expected.contains(item)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_answer_was_lost_is_there_once() {
    let lost = || Fault::DoneButFails(CreateError::Uncertain("500".into()));
    let faults = RefCell::new(Faults::script([lost(), Fault::AnswerLost, lost()]));
    let (stream, bucket) = (kinesis_is_away(false), MemoryBucket { faults, ..MemoryBucket::default() });
    assert!(store(&new_store(&stream, &bucket), records(0..1)).await.0.is_stored());
    assert_eq!(bucket.items(), [0, 1]);
}

fn faults_of_kinesis() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..9, 0..40)
}

fn kinesis_fault(kind: u8) -> Option<Fault<PutError>> {
    Some(match kind {
        0 => Fault::Fails(PutError::Transient("500".into())),
        1 => Fault::Fails(PutError::Throttled("LimitExceededException".into())),
        2 => Fault::DoneButFails(PutError::Transient("500".into())),
        3 => Fault::AnswerLost,
        4 => Fault::Lost,
        5 => Fault::Slow(Duration::from_millis(200)),
        6 => Fault::Slow(Duration::from_millis(690)),
        7 => Fault::Fails(PutError::Permanent("ResourceNotFoundException".into())),
        _ => return None,
    })
}

fn s3_fault(kind: u8) -> Option<Fault<CreateError>> {
    Some(match kind {
        0 => Fault::Fails(CreateError::Uncertain("503".into())),
        1 => Fault::Fails(CreateError::Permanent("AccessDenied".into())),
        2 => Fault::DoneButFails(CreateError::Uncertain("500".into())),
        3 => Fault::AnswerLost,
        4 => Fault::Lost,
        5 => Fault::Slow(Duration::from_millis(200)),
        6 => Fault::Slow(Duration::from_millis(590)),
        _ => return None,
    })
}

/// Faults by the number of the call; the last is there for good.
fn planned<E: 'static>(kinds: Vec<u8>, fault: impl Fn(u8) -> Option<Fault<E>> + 'static) -> RefCell<Faults<E>> {
    RefCell::new(Faults::planned(move |call| {
        kinds.get(call.min(kinds.len()).checked_sub(1)?).and_then(|kind| fault(*kind))
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_to_be_stored_is_on_the_stream_or_once_in_s3(
        kinesis in faults_of_kinesis(), s3 in faults_of_kinesis(), throttled in prop::option::of(1usize..4),
        requests in prop::collection::vec((1usize..6, 0u64..2_000), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let stream = MemoryStream { faults: planned(kinesis, kinesis_fault), throttled, ..MemoryStream::default() };
        let bucket = MemoryBucket { faults: planned(s3, s3_fault), ..MemoryBucket::default() };
        let kept = new_store(&stream, &bucket);
        let (mut first, mut stored, mut spilled) = (0, BTreeSet::new(), 0);
        for (count, wait) in requests {
            let sent = first..first + count;
            first += count;
            let (report, time) = runtime.block_on(async {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                store(&kept, records(sent.clone())).await
            });
            prop_assert!(time <= Duration::from_secs(3), "{:?}", time);
            let not_stored: BTreeSet<usize> = report.not_stored().into_iter().collect();
            stored.extend((2 * sent.start..2 * sent.end).filter(|item| !not_stored.contains(item)));
            spilled += report.spilled_events();
        }
        let in_s3 = bucket.items().into_iter().fold(BTreeMap::new(), |mut counts, item| {
            *counts.entry(item).or_insert(0) += 1;
            counts
        });
        prop_assert!(in_s3.values().all(|count| *count == 1));
        prop_assert!(spilled <= in_s3.len() as u64);
        let on_stream: BTreeSet<usize> = stream.items.borrow().iter().copied().collect();
        for item in stored {
            prop_assert!(on_stream.contains(&item) || in_s3.contains_key(&item), "{} is nowhere", item);
        }
    }
}
