//! How many requests wait at once while Kinesis is in trouble: what waits takes concurrency from all. Environments are modelled
//! as Lambda runs them: a request gets one that is idle or a new one, and each knows only what it has seen itself.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ingest_lambda::bucket::Bucket;
use ingest_lambda::pack::Record;
use ingest_lambda::put::{EntryOutcome, PutError, RecordStream};
use ingest_lambda::spill::{CreateError, SpillBucket, Spilled};
use ingest_lambda::store::{Origin, Store};
use lambda_setup::deadline::Deadline;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rstest::rstest;
use shared::line::{EventFormat, Kind};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

/// As tools/cost assumes them.
const KINESIS_TIME: Duration = Duration::from_millis(15);
const S3_TIME: Duration = Duration::from_millis(40);
/// The number that a request's record falls into.
const BUCKETS: u8 = 4;

#[derive(Debug, Clone, Copy)]
enum Kinesis {
    Well,
    NeverAnswers,
    /// One call in two is never answered.
    AnswersHalf,
    Fails,
    /// One bucket's shard takes nothing.
    HotShard,
}

impl RecordStream for Kinesis {
    async fn put(&self, records: &[&Record], _: Duration) -> Result<Vec<EntryOutcome>, PutError> {
        sleep(KINESIS_TIME).await;
        match self {
            Self::NeverAnswers => std::future::pending().await,
            Self::AnswersHalf if rand::random() => std::future::pending().await,
            Self::Fails => return Err(PutError::Transient("500".into())),
            Self::Well | Self::AnswersHalf | Self::HotShard => {}
        }
        let is_hot = |record: &&Record| matches!(self, Self::HotShard) && record.bucket.number == 0;
        let throttled = || EntryOutcome::Throttled("ProvisionedThroughputExceededException".into());
        Ok(records.iter().map(|record| if is_hot(record) { throttled() } else { EntryOutcome::Stored }).collect())
    }
}

struct S3;

impl SpillBucket for S3 {
    async fn create(&self, _: &Spilled, _: Duration) -> Result<(), CreateError> {
        sleep(S3_TIME).await;
        Ok(())
    }
}

#[derive(Default)]
struct Lambda {
    idle: RefCell<Vec<Store<Kinesis, S3>>>,
    busy: Cell<usize>,
    most_busy: Cell<usize>,
    /// Of each request its bucket and the time that it took.
    times: RefCell<Vec<(u8, Duration)>>,
}

impl Lambda {
    /// An idle environment; Lambda does not say which.
    fn environment(&self, kinesis: Kinesis, random: &mut StdRng) -> Store<Kinesis, S3> {
        self.busy.update(|busy| busy + 1);
        self.most_busy.set(self.most_busy.get().max(self.busy.get()));
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return Store::new(kinesis, S3, EventFormat::Envelope, Duration::from_secs(1));
        }
        let index = random.random_range(0..idle.len());
        idle.swap_remove(index)
    }

    async fn handle(&self, store: Store<Kinesis, S3>, number: u8) {
        let began = Instant::now();
        let bucket = Bucket { number, first_hash_key: 0 };
        let (data, items) = (b"{}\n".to_vec(), vec![0]);
        let receipts = vec![(lambda_setup::now(), 1)];
        let reasons = Vec::new();
        let record = Record { kind: Kind::Event, bucket, data, items, reasons, replaced_surrogates: 0, receipts };
        let deadline = Deadline::after(Duration::from_secs(9));
        let origin = Origin { request_id: "r", deadline };
        assert!(store.store(vec![record], origin).await.is_stored());
        self.times.borrow_mut().push((number, began.elapsed()));
        self.idle.borrow_mut().push(store);
        self.busy.update(|busy| busy - 1);
    }

    /// The time that all but one in a hundred of some requests take at most.
    fn p99(&self, is_wanted: impl Fn(u8) -> bool) -> Duration {
        let times = self.times.borrow();
        let mut wanted: Vec<_> = times.iter().filter(|(bucket, _)| is_wanted(*bucket)).map(|(_, time)| *time).collect();
        wanted.sort_unstable();
        wanted[wanted.len() * 99 / 100]
    }
}

struct Seen {
    /// The most requests at once.
    at_once: usize,
    /// The most after ten seconds, when the environments know.
    at_once_later: usize,
    p99_of_other_buckets: Duration,
}

/// A minute of requests at an even rate.
async fn traffic(kinesis: Kinesis, requests_a_second: u32) -> Seen {
    let (lambda, mut random, tasks) = (Rc::new(Lambda::default()), StdRng::seed_from_u64(1), LocalSet::new());
    let (began, mut at_once) = (Instant::now(), 0);
    tasks
        .run_until(async {
            for number in 0..60 * requests_a_second {
                sleep_until(began + Duration::from_secs(1) * number / requests_a_second).await;
                if number == 10 * requests_a_second {
                    at_once = lambda.most_busy.replace(0);
                }
                let store = lambda.environment(kinesis, &mut random);
                let (lambda, bucket) = (lambda.clone(), random.random_range(0..BUCKETS));
                tokio::task::spawn_local(async move { lambda.handle(store, bucket).await });
            }
        })
        .await;
    tasks.await;
    let at_once_later = lambda.most_busy.get();
    Seen { at_once: at_once.max(at_once_later), at_once_later, p99_of_other_buckets: lambda.p99(|bucket| bucket != 0) }
}

/// `IngestMaximumConcurrency`'s default is 100.
#[rstest]
#[case::away(Kinesis::Fails, 58, 10, 10)]
#[case::silent(Kinesis::NeverAnswers, 58, 50, 45)]
#[case::half_silent(Kinesis::AnswersHalf, 58, 50, 30)]
#[case::hot_shard(Kinesis::HotShard, 58, 20, 10)]
#[case::hot_shard_at_the_peak(Kinesis::HotShard, 579, 100, 40)]
#[tokio::test(start_paused = true)]
async fn what_waits_for_kinesis_leaves_concurrency_to_others(
    #[case] kinesis: Kinesis,
    #[case] requests_a_second: u32,
    #[case] at_once: usize,
    #[case] at_once_later: usize,
) {
    let well = traffic(Kinesis::Well, requests_a_second).await;
    let seen = traffic(kinesis, requests_a_second).await;
    println!(
        "{kinesis:?}, {requests_a_second} POSTs a second: at once {} instead of {}, later {}; p99 of other buckets {:?} instead of {:?}",
        seen.at_once, well.at_once, seen.at_once_later, seen.p99_of_other_buckets, well.p99_of_other_buckets
    );
    assert!(seen.at_once <= at_once && seen.at_once_later <= at_once_later);
    if matches!(kinesis, Kinesis::HotShard) {
        assert!(seen.p99_of_other_buckets <= 2 * well.p99_of_other_buckets);
    }
}
