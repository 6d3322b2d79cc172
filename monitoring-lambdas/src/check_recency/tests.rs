//! The handler against a bucket and metrics in memory.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rstest::rstest;
use shared::line::{EventFormat, Kind};
use shared::object::{Attempt, BlockSize, ObjectKey, ReceivedIn, SpillId, object_key};
use shared::timestamp::UtcHour;

use super::*;
use crate::manifest::Totals;
use crate::rules::partition::Partition;
use crate::success::tests::seal;
use crate::tests::memory_metrics::MemoryMetrics;
use lambda_setup::bucket::{Condition, Content, Head, List, Page};
use lambda_setup::memory_bucket::MemoryBucket;

const MINUTE: i64 = 60_000;

fn time(text: &str) -> UnixMillis {
    UnixMillis::parse(text).unwrap()
}

fn now() -> UnixMillis {
    time("2026-11-21T12:55:00.000Z")
}

fn event(at: UnixMillis) -> ScheduledEvent {
    serde_json::from_value(serde_json::json!({"time": at.rfc3339()})).unwrap()
}

fn context() -> Context {
    let mut context = Context::default();
    context.deadline = u64::try_from(lambda_setup::now().0).unwrap() + 60_000;
    context.env_config =
        Arc::new(lambda_runtime::Config { function_name: "check-recency".into(), ..Default::default() });
    context
}

fn metadata(received_at: UnixMillis) -> shared::object::ObjectMetadata {
    shared::object::ObjectMetadata {
        event_format: EventFormat::Envelope,
        last_sequence_number: Some("1".into()),
        record_count: 1,
        event_count: 1,
        uncompressed_bytes: 1,
        uncompressed_sha256: String::from("0"),
        received_in: ReceivedIn::default(),
        rejected_reasons: Default::default(),
        earliest_received_at: UnixMillis(0),
        latest_received_at: received_at,
        block_size: BlockSize::new(1).unwrap(),
        attempt: Attempt { began: UnixMillis(0), deadline: UnixMillis(0), request_id: "r".into() },
    }
}

fn object(bucket: &MemoryBucket, shard: u32, sequence_number: u64, arrived_at: UnixMillis, received_at: UnixMillis) {
    let shard = format!("shardId-{shard:012}");
    let key = object_key(Kind::Event, arrived_at.hour(), &shard, &sequence_number.to_string());
    bucket.insert(&key, "x", metadata(received_at).to_entries());
}

fn spill(bucket: &MemoryBucket, id: u128, written_at: UnixMillis, received_at: UnixMillis) {
    let key = ObjectKey::spilled(Kind::Event, written_at.hour(), SpillId(id)).to_string();
    let metadata =
        shared::object::ObjectMetadata { last_sequence_number: None, record_count: 0, ..metadata(received_at) };
    bucket.insert(&key, "x", metadata.to_entries());
}

/// Sealed without a gap in the last hours, with an event that is a minute old.
fn sound(hours: i64) -> MemoryBucket {
    let bucket = MemoryBucket::default();
    // The last hour that is expected at 12:55 is 11.
    let last = UtcHour::parse("dt=2026-11-21/hour=11").unwrap();
    for hour in (0..hours).map(|back| last.plus(-back)) {
        seal(&bucket, Partition::Hour(hour), UnixMillis(hour.end().0 + 20 * MINUTE), Totals::default());
        if hour.of_day() == 23 {
            let date = Partition::Date(hour.date());
            seal(&bucket, date, UnixMillis(hour.end().0 + 20 * MINUTE), Totals::default());
        }
    }
    object(&bucket, 0, 4_959, now(), UnixMillis(now().0 - MINUTE));
    bucket
}

async fn check<B: Bucket>(handler: &Handler<B, &MemoryMetrics>, at: UnixMillis) -> Vec<String> {
    match handler.handle(event(at), context()).await {
        Ok(()) => Vec::new(),
        Err(CheckRecencyError(problems)) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn put(metrics: &MemoryMetrics) -> [Option<f64>; 3] {
    [Metric::MissingPartitions, Metric::LatePartitions, Metric::DataFreshness].map(|metric| metrics.last(metric))
}

#[tokio::test]
async fn a_complete_bucket_passes_the_check_at_little_cost() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let handler = Handler::new(&bucket, &metrics, 40);
    assert_eq!(check(&handler, now()).await, [""; 0]);
    assert_eq!(put(&metrics), [Some(0.0), Some(0.0), Some(60.0)]);
    for datum in metrics.data.borrow().iter() {
        assert_eq!(datum.dimensions, [("FunctionName", "check-recency".to_owned())]);
        assert_eq!(datum.at, now());
    }
    // Three LISTs for the first hour, 50 GETs, one LIST for broken objects, three LISTs and a HEAD for the newest event.
    assert_eq!(bucket.calls.replace(0), 58);
    assert_eq!(check(&handler, UnixMillis(now().0 + MINUTE)).await, [""; 0]);
    assert_eq!((bucket.calls.get(), metrics.calls.get()), (5, 2));
    assert_eq!(metrics.last(Metric::DataFreshness), Some(120.0));
}

#[tokio::test]
async fn a_deleted_success_is_missed_from_the_next_full_hour_on() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let handler = Handler::new(&bucket, &metrics, 40);
    assert_eq!(check(&handler, now()).await, [""; 0]);
    bucket.objects.borrow_mut().remove("events/dt=2026-11-21/hour=09/_SUCCESS");
    assert_eq!(check(&handler, UnixMillis(now().0 + 4 * MINUTE)).await, [""; 0]);
    let said = check(&handler, now().hour().end()).await;
    assert_eq!(said, ["NOT_RUN: 1 partitions are not sealed: dt=2026-11-21/hour=09"]);
}

#[tokio::test]
async fn a_missing_hour_and_date_are_named_until_they_are_sealed() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let gone = ["events/dt=2026-11-20/hour=07/_SUCCESS", "events/dt=2026-11-20/_SUCCESS"];
    bucket.objects.borrow_mut().retain(|key, _| !gone.contains(&key));
    let handler = Handler::new(&bucket, &metrics, 40);
    for _ in 0..2 {
        let said = check(&handler, now()).await;
        assert_eq!(said, ["NOT_RUN: 2 partitions are not sealed: dt=2026-11-20/hour=07, dt=2026-11-20"]);
        assert_eq!(put(&metrics), [Some(2.0), Some(0.0), Some(60.0)]);
    }
    // Sealed at last, which is late, and reported for two hours.
    let sealed = UnixMillis(now().0 - 119 * MINUTE);
    for key in gone {
        seal(&bucket, Partition::of_success_key(key).unwrap(), sealed, Totals::default());
    }
    let said = check(&handler, now()).await;
    assert!(
        said[0]
            .starts_with("LATE: 2 partitions were sealed too late: dt=2026-11-20/hour=07 (sealed at 2026-11-21T10:56")
    );
    assert_eq!(put(&metrics), [Some(0.0), Some(2.0), Some(60.0)]);
    assert_eq!(check(&handler, UnixMillis(now().0 + MINUTE)).await, [""; 0]);
    assert_eq!(put(&metrics), [Some(0.0), Some(0.0), Some(120.0)]);
}

#[tokio::test]
async fn a_held_hour_and_its_date_are_not_missing() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let gone = ["events/dt=2026-11-20/hour=07/_SUCCESS", "events/dt=2026-11-20/_SUCCESS"];
    bucket.objects.borrow_mut().retain(|key, _| !gone.contains(&key));
    bucket.insert("events/dt=2026-11-20/hour=07/_INCOMPLETE", "{}", HashMap::new());
    let handler = Handler::new(&bucket, &metrics, 40);
    assert_eq!(check(&handler, now()).await, [""; 0]);
    assert_eq!(put(&metrics), [Some(0.0), Some(0.0), Some(60.0)]);
    bucket.objects.borrow_mut().remove("events/dt=2026-11-20/hour=07/_INCOMPLETE");
    let said = check(&handler, UnixMillis(now().0 + MINUTE)).await;
    assert_eq!(said, ["NOT_RUN: 2 partitions are not sealed: dt=2026-11-20/hour=07, dt=2026-11-20"]);
}

#[tokio::test]
async fn an_unreadable_success_counts_as_missing() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    bucket.insert("events/dt=2026-11-21/hour=03/_SUCCESS", "{", HashMap::new());
    let said = check(&Handler::new(&bucket, &metrics, 40), now()).await;
    assert_eq!(said, ["NOT_RUN: 1 partitions are not sealed: dt=2026-11-21/hour=03 (its _SUCCESS can't be read)"]);
    assert_eq!(put(&metrics), [Some(1.0), Some(0.0), Some(60.0)]);
}

#[tokio::test]
async fn at_most_twenty_missing_partitions_are_named() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    bucket.objects.borrow_mut().retain(|key, _| key < "events/dt=2026-11-20" || key.contains("shardId"));
    let said = check(&Handler::new(&bucket, &metrics, 40), now()).await;
    assert!(said[0].starts_with("NOT_RUN: 37 partitions") && said[0].ends_with("hour=19 and 17 more"), "{said:?}");
}

#[tokio::test]
async fn nothing_is_expected_from_before_a_new_buckets_first_hour() {
    let (bucket, metrics) = (sound(3), MemoryMetrics::default());
    bucket.insert("events/_temporary/0/_SUCCESS", "", HashMap::new());
    assert_eq!(check(&Handler::new(&bucket, &metrics, 40), now()).await, [""; 0]);
    assert_eq!(put(&metrics), [Some(0.0), Some(0.0), Some(60.0)]);
}

#[tokio::test]
async fn in_an_empty_bucket_nothing_is_missing_yet_and_nothing_is_fresh() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    let said = check(&Handler::new(&bucket, &metrics, 40), now()).await;
    assert_eq!(said, [""; 0]);
    assert_eq!(put(&metrics), [Some(0.0), Some(0.0), Some((48 * 60 + 55) as f64 * 60.0)]);
}

#[rstest]
#[case::a_new_object(&[(0, 4_960, 10)], 10.0)]
#[case::another_shard(&[(7, 1, 30)], 30.0)]
#[case::an_older_one_last(&[(0, 4_960, 300)], 300.0)]
#[case::of_two_shards_the_newer(&[(0, 4_960, 300), (1, 5, 7)], 7.0)]
#[case::a_clock_that_is_ahead(&[(1, 5, -7)], 0.0)]
#[case::the_last_one_replaced(&[(0, 4_959, 3)], 3.0)]
#[tokio::test]
async fn the_newest_event_is_that_of_some_shards_last_object(#[case] more: &[(u32, u64, i64)], #[case] age: f64) {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let handler = Handler::new(&bucket, &metrics, 40);
    check(&handler, now()).await;
    for (shard, sequence_number, seconds) in more {
        object(&bucket, *shard, *sequence_number, now(), UnixMillis(now().0 - seconds * 1_000));
    }
    // With what it remembers, and without.
    for handler in [handler, Handler::new(&bucket, &metrics, 40)] {
        check(&handler, now()).await;
        assert_eq!(metrics.last(Metric::DataFreshness), Some(age));
    }
}

#[tokio::test]
async fn while_everything_is_spilled_the_newest_event_is_in_the_last_spilled_object() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let handler = Handler::new(&bucket, &metrics, 40);
    check(&handler, now()).await;
    // The hour after the last that landed from the stream.
    let later = UnixMillis(now().0 + 60 * MINUTE);
    for (id, seconds) in [(1, 40), (0x10, 20), (2, 30)] {
        spill(&bucket, id, later, UnixMillis(later.0 - seconds * 1_000));
    }
    for handler in [&handler, &Handler::new(&bucket, &metrics, 40)] {
        check(handler, later).await;
        assert_eq!(metrics.last(Metric::DataFreshness), Some(20.0));
    }
    spill(&bucket, 0x11, later, UnixMillis(later.0 - 5_000));
    check(&handler, later).await;
    assert_eq!(metrics.last(Metric::DataFreshness), Some(5.0));
    object(&bucket, 0, 4_960, later, UnixMillis(later.0 - 2_000));
    check(&handler, later).await;
    assert_eq!(metrics.last(Metric::DataFreshness), Some(2.0));
}

#[tokio::test]
async fn freshness_follows_the_newest_hour_that_has_objects() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let handler = Handler::new(&bucket, &metrics, 40);
    let later = UnixMillis(now().0 + 5 * 60 * MINUTE);
    check(&handler, later).await;
    assert_eq!(metrics.last(Metric::DataFreshness), Some(301.0 * 60.0));
    object(&bucket, 0, 9, later, UnixMillis(later.0 - 2_000));
    check(&handler, later).await;
    assert_eq!(metrics.last(Metric::DataFreshness), Some(2.0));
}

#[tokio::test]
async fn a_listing_of_many_pages_is_followed_and_bounded() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    for sequence_number in 5_000..5_150 {
        let received_at = UnixMillis(now().0 - (5_200 - i64::try_from(sequence_number).unwrap()) * 1_000);
        object(&bucket, 0, sequence_number, now(), received_at);
    }
    bucket.page_size.set(Some(2));
    let handler = Handler::new(&bucket, &metrics, 40);
    check(&handler, now()).await;
    assert_eq!(metrics.last(Metric::DataFreshness), Some(51.0), "76 pages");
    bucket.page_size.set(Some(1));
    let handler = Handler::new(&bucket, &metrics, 40);
    check(&handler, now()).await;
    // One object a page, 102 pages for two series: 4959 and 5000 to 5100.
    assert_eq!(metrics.last(Metric::DataFreshness), Some(100.0));
    check(&handler, now()).await;
    assert_eq!(metrics.last(Metric::DataFreshness), Some(51.0), "it went on where it stopped");
}

/// S3 fails now and then where an hour has very many objects: a listing that started again each minute would never end.
#[tokio::test]
async fn a_failed_listing_resumes_after_its_last_page() {
    let (bucket, mut memory) = (MemoryBucket::default(), freshness::Memory::default());
    (10..30).for_each(|number| object(&bucket, 0, number, now(), UnixMillis(now().0 - 30_000 + number as i64)));
    bucket.page_size.set(Some(1));
    // A LIST for shards, and four of twenty pages. The first failure without a page left is that of the spilled objects.
    for _ in 0..5 {
        bucket.calls.set(0);
        bucket.fails_from.set(Some(6));
        freshness::find(&&bucket, now(), &mut memory).await.unwrap_err();
    }
    bucket.calls.set(0);
    let newest = freshness::find(&&bucket, now(), &mut memory).await.unwrap();
    assert_eq!(newest.received_at, UnixMillis(now().0 - 30_000 + 29));
}

#[rstest]
#[case(0, 0.0)]
#[case(3, 3.0)]
#[case::one_page_at_most(1_001, 1_000.0)]
#[tokio::test]
async fn objects_count_as_broken_until_their_verdicts_are_gone(#[case] verdicts: usize, #[case] level: f64) {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let handler = Handler::new(&bucket, &metrics, 40);
    for number in 0..verdicts {
        bucket.insert(&format!("broken/events/{number}.json"), "{}", HashMap::new());
    }
    for _ in 0..2 {
        // That objects are broken is check-object's to say: it fails no run of this check.
        assert_eq!(check(&handler, now()).await, [""; 0]);
        assert_eq!(metrics.last(Metric::BrokenObjects), Some(level));
    }
    bucket.objects.borrow_mut().retain(|key, _| !key.starts_with("broken/"));
    check(&handler, now()).await;
    assert_eq!(metrics.last(Metric::BrokenObjects), Some(0.0));
}

#[tokio::test]
async fn unreadable_metadata_leaves_the_start_of_the_hour() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let key = bucket.keys().into_iter().find(|key| key.contains("shardId")).unwrap();
    bucket.insert(&key, "x", HashMap::new());
    check(&Handler::new(&bucket, &metrics, 40), now()).await;
    assert_eq!(metrics.last(Metric::DataFreshness), Some(55.0 * 60.0));
}

/// A bucket of which one kind of call fails, or never ends.
struct Faulty<'a> {
    bucket: &'a MemoryBucket,
    fails: &'static str,
    hangs: bool,
}

impl Faulty<'_> {
    async fn call(&self, operation: &'static str) -> Result<(), BucketError> {
        if operation != self.fails {
            return Ok(());
        }
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(BucketError::Failed { operation, key: "k".into(), problem: "injected".into() })
    }
}

impl Bucket for Faulty<'_> {
    async fn list(&self, list: List<'_>) -> Result<Page, BucketError> {
        self.call("LIST").await?;
        self.bucket.list(list).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, BucketError> {
        self.call("HEAD").await?;
        self.bucket.head(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Content>, BucketError> {
        self.call("GET").await?;
        self.bucket.get(key).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition<'_>) -> Result<String, BucketError> {
        self.bucket.put(key, body, condition).await
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.bucket.delete(key).await
    }

    async fn delete_matching(&self, key: &str, etag: &str) -> Result<(), BucketError> {
        self.bucket.delete_matching(key, etag).await
    }
}

#[rstest]
#[case("GET", [None, None, Some(60.0)], Some(1.0), 1)]
#[case("HEAD", [Some(0.0), Some(0.0), None], Some(1.0), 1)]
#[case("LIST", [None, None, None], None, 3)]
#[tokio::test(start_paused = true)]
async fn the_parts_of_the_check_are_independent(
    #[case] fails: &'static str,
    #[case] expected: [Option<f64>; 3],
    #[case] broken: Option<f64>,
    #[case] problems: usize,
    #[values(false, true)] hangs: bool,
) {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    bucket.insert("broken/events/x.json", "{}", HashMap::new());
    let handler = Handler::new(Faulty { bucket: &bucket, fails, hangs }, &metrics, 40);
    let said = check(&handler, now()).await;
    assert_eq!(said.len(), problems, "{said:?}");
    assert_eq!((put(&metrics), metrics.last(Metric::BrokenObjects)), (expected, broken));
}

#[tokio::test]
async fn without_cloudwatch_the_check_fails_and_still_names_what_is_missing() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    metrics.fails_from.set(Some(1));
    let handler = Handler::new(&bucket, &metrics, 40);
    assert_eq!(check(&handler, now()).await, ["the metrics were not put: CloudWatch, PutMetricData: injected"]);
    bucket.objects.borrow_mut().remove("events/dt=2026-11-21/hour=11/_SUCCESS");
    let said = check(&Handler::new(&bucket, &metrics, 40), now()).await;
    assert_eq!(said[0], "NOT_RUN: 1 partitions are not sealed: dt=2026-11-21/hour=11");
    assert_eq!(said[1], "the metrics were not put: CloudWatch, PutMetricData: injected");
}

#[tokio::test]
async fn an_interrupted_check_continues_where_it_stopped() {
    let (bucket, metrics) = (sound(100), MemoryMetrics::default());
    let handler = Handler::new(&bucket, &metrics, 40);
    bucket.fails_from.set(Some(40));
    assert_eq!(check(&handler, now()).await.len(), 3);
    bucket.fails_from.set(None);
    bucket.calls.set(0);
    assert_eq!(check(&handler, now()).await, [""; 0]);
    assert_eq!(bucket.calls.get(), 19, "14 GETs were left");
}
