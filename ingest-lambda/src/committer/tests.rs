use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;
use shared::frame::FrameReader;
use shared::line::EventFormat;
use shared::timestamp::UnixMillis;

use super::*;
use crate::bucket::Bucket;
use crate::put::{EntryOutcome, PutError};
use crate::spill::{CreateError, Spilled};

const LIMITS: Limits = Limits {
    interval: Duration::from_millis(200),
    kinesis_retry: Duration::from_millis(1_500),
    max_bytes: 4 << 20,
    max_lane_bytes: 1 << 20,
    max_record_bytes: 1 << 20,
    max_spill_bytes: 1 << 20,
};

/// How calls of Kinesis and S3 go.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Fails,
    /// It is done, and then fails.
    DoneButFails,
    Hangs,
    /// Takes no record of bucket 0.
    Throttles,
}

/// The lines that are stored, and the faults of calls, one after another; those after the last go well.
#[derive(Default)]
struct Memory {
    lines: RefCell<Vec<String>>,
    faults: RefCell<Vec<Fault>>,
    calls: RefCell<usize>,
}

impl Memory {
    fn with(faults: &[Fault]) -> Rc<Self> {
        Rc::new(Self { faults: RefCell::new(faults.iter().rev().copied().collect()), ..Self::default() })
    }

    fn next_fault(&self) -> Fault {
        *self.calls.borrow_mut() += 1;
        self.faults.borrow_mut().pop().unwrap_or(Fault::None)
    }

    fn keep(&self, text: &[u8]) {
        self.lines.borrow_mut().extend(String::from_utf8(text.to_vec()).unwrap().lines().map(str::to_owned));
    }
}

impl RecordStream for Rc<Memory> {
    async fn put(&self, records: &[&Record], _: Duration) -> Result<Vec<EntryOutcome>, PutError> {
        let fault = self.next_fault();
        tokio::time::sleep(Duration::from_millis(8)).await;
        let outcome = |record: &&Record| {
            if fault == Fault::Throttles && record.bucket.number == 0 {
                return EntryOutcome::Throttled("ProvisionedThroughputExceededException".into());
            }
            self.keep(&record.lines(&mut FrameReader::default()).unwrap());
            EntryOutcome::Stored
        };
        match fault {
            Fault::Fails => return Err(PutError::Transient("500".into())),
            Fault::Hangs => std::future::pending().await,
            Fault::None | Fault::Throttles | Fault::DoneButFails => {}
        }
        let outcomes = records.iter().map(outcome).collect();
        if fault == Fault::DoneButFails { Err(PutError::Transient("500".into())) } else { Ok(outcomes) }
    }
}

impl SpillBucket for Rc<Memory> {
    async fn create(&self, object: &Spilled, _: Duration) -> Result<(), CreateError> {
        match self.next_fault() {
            Fault::Fails | Fault::Throttles => return Err(CreateError::Uncertain("503".into())),
            Fault::Hangs => std::future::pending().await,
            Fault::None | Fault::DoneButFails => {}
        }
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut bzip2::read::BzDecoder::new(&object.body[..]), &mut text).unwrap();
        assert_eq!(object.metadata.event_count, text.split(|byte| *byte == b'\n').count() as u64 - 1);
        self.keep(&text);
        Ok(())
    }
}

fn record(bucket: u8, line: &str) -> Record {
    let bucket = Bucket { number: bucket, first_hash_key: u128::from(bucket) << 120 };
    let (data, receipts) = (format!("{line}\n").into_bytes(), vec![(UnixMillis(1_795_253_528_006), 1)]);
    Record { data, items: vec![0], receipts, ..Record::new(Kind::Event, bucket, 0) }
}

/// A committer of these services runs while `requests` does, and then to its end.
async fn with_committer<T>([stream, bucket]: [&Rc<Memory>; 2], requests: impl AsyncFnOnce(Commit) -> T) -> T {
    let commit = Commit::new(LIMITS);
    let services = Services::new(stream.clone(), bucket.clone(), EventFormat::Envelope);
    let named = ("test".to_owned(), Tally::new("test".into()));
    let committer = Committer::new(&commit, services, Some(FrameWriter::default()), named);
    let requests = async {
        let result = requests(commit.clone()).await;
        commit.close();
        result
    };
    tokio::join!(requests, committer.run()).0
}

#[tokio::test(start_paused = true)]
async fn requests_share_one_call_and_one_record_and_each_has_its_answer() {
    let [stream, bucket] = [(); 2].map(|()| Memory::with(&[]));
    let reports = with_committer([&stream, &bucket], async |commit| {
        let waiting: Vec<_> = (0..100).map(|n| commit.submit(vec![record(0, &n.to_string())]).unwrap()).collect();
        futures_util::future::join_all(waiting).await
    })
    .await;
    assert_eq!(*stream.calls.borrow(), 1);
    assert_eq!(*stream.lines.borrow(), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(reports.into_iter().all(|report| report.unwrap().stored == [Some(Place::Stream)]));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_bucket_delays_no_other() {
    let (stream, bucket) = (Memory::with(&[Fault::Throttles; 4]), Memory::with(&[]));
    let times = with_committer([&stream, &bucket], async |commit| {
        let began = Instant::now();
        let waiting = [0, 1].map(|lane| commit.submit(vec![record(lane, "x")]).unwrap());
        let time = |report: oneshot::Receiver<PutReport>| async move { (report.await.unwrap(), began.elapsed()) };
        futures_util::future::join_all(waiting.map(time)).await
    })
    .await;
    assert!(times.iter().all(|(report, _)| report.is_stored()));
    assert_eq!(times[1].1, LIMITS.interval + Duration::from_millis(8));
    assert!(times[0].1 > times[1].1);
}

#[tokio::test(start_paused = true)]
async fn with_both_away_each_request_hears_so_in_time_and_memory_is_free_again() {
    let [stream, bucket] = [(); 2].map(|()| Memory::with(&[Fault::Hangs; 1_000]));
    with_committer([&stream, &bucket], async |commit| {
        let began = Instant::now();
        let report = commit.submit(vec![record(0, "x"), record(1, "y")]).unwrap().await.unwrap();
        assert_eq!(report.stored, [None, None]);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        // Those that come meanwhile wait for S3 behind it.
        let (later, began) = (commit.submit(vec![record(0, "z")]).unwrap(), Instant::now());
        assert_eq!(later.await.unwrap().stored, [None]);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(commit.bytes(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_lane_refuses_at_once_and_takes_again_when_it_is_empty() {
    let [stream, bucket] = [(); 2].map(|()| Memory::with(&[]));
    with_committer([&stream, &bucket], async |commit| {
        let large = || vec![record(0, &"x".repeat(LIMITS.max_lane_bytes - 2_000))];
        let waiting = commit.submit(large()).unwrap();
        let refused = commit.submit(large()).unwrap_err();
        assert_eq!(refused.not_stored(), [0]);
        assert!(waiting.await.unwrap().is_stored());
        assert!(commit.submit(large()).is_ok());
    })
    .await;
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let faults = [Fault::None, Fault::Fails, Fault::DoneButFails, Fault::Hangs, Fault::Throttles];
    prop::collection::vec(prop::sample::select(faults.to_vec()), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever fails: what is said to be stored is stored, everything is answered within seconds, and without doubtful answers
    /// nothing is stored twice.
    #[test]
    fn what_is_said_to_be_stored_is_stored(
        of_stream in faults(), of_bucket in faults(), requests in prop::collection::vec((0u8..4, 0u64..300), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (stream, bucket) = (Memory::with(&of_stream), Memory::with(&of_bucket));
        let answers = runtime.block_on(with_committer([&stream, &bucket], async |commit| {
            let mut at = Duration::ZERO;
            let requests = requests.iter().enumerate().map(|(number, (lane, pause))| {
                at += Duration::from_millis(*pause);
                let (commit, record, at) = (&commit, record(*lane, &number.to_string()), at);
                async move {
                    tokio::time::sleep(at).await;
                    let began = Instant::now();
                    (commit.submit(vec![record]).unwrap().await.unwrap(), began.elapsed())
                }
            });
            futures_util::future::join_all(requests.collect::<Vec<_>>()).await
        }));
        let mut stored = BTreeMap::<String, usize>::new();
        for line in stream.lines.borrow().iter().chain(bucket.lines.borrow().iter()) {
            *stored.entry(line.clone()).or_default() += 1;
        }
        for (number, (report, time)) in answers.iter().enumerate() {
            let times = stored.get(&number.to_string()).copied().unwrap_or(0);
            prop_assert!(!report.is_stored() || times >= 1, "{number} is lost");
            prop_assert!(times <= 1 || of_stream.contains(&Fault::DoneButFails), "{number} is stored {times} times");
            prop_assert!(*time < Duration::from_millis(3_600), "{time:?}");
        }
    }
}
