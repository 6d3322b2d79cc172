//! Runs against a bucket in memory: what is stored at the end.

mod arrivals;
mod faults;
mod incomplete;
mod large;

use std::collections::HashMap;

use serde_json::Value;
use shared::line::{EventFormat, Kind};
use shared::object::{Attempt, BlockSize, ObjectKey, ObjectMetadata, ReceivedIn, SpillId, object_key};
use shared::rejection::Reason;
use shared::timestamp::UtcHour;

use super::*;
use crate::manifest::Totals;
use crate::rules::completeness::{Balance, Counted, Hour, Sent, balances};
use crate::tests::memory_metrics::MemoryMetrics;
use lambda_setup::memory_bucket::MemoryBucket;

pub(crate) const NIGHT: &str = "2026-11-22T00:20:00.000Z";

pub(crate) fn at(text: &str) -> UnixMillis {
    UnixMillis::parse(text).unwrap()
}

pub(crate) fn hour(of_day: i64) -> UtcHour {
    UtcHour::parse("dt=2026-11-21/hour=00").unwrap().plus(of_day)
}

/// Lands an object of an hour of 21 November, with lines from one number to another.
pub(crate) fn land(bucket: &MemoryBucket, kind: Kind, hour: UtcHour, shard: u8, (first, last): (u64, u64)) -> String {
    let key = object_key(kind, hour, &format!("shardId-{shard:012}"), &first.to_string());
    put_object(bucket, &key, metadata(kind, hour, (first, last)));
    key
}

fn put_object(bucket: &MemoryBucket, key: &str, metadata: ObjectMetadata) {
    bucket.insert(key, "ten bytes.", metadata.to_entries());
}

fn metadata(kind: Kind, hour: UtcHour, (first, last): (u64, u64)) -> ObjectMetadata {
    let lines = last - first + 1;
    let reasons = if kind == Kind::Rejected { vec![(Reason::TooDeep, lines)] } else { Vec::new() };
    ObjectMetadata {
        event_format: EventFormat::Envelope,
        last_sequence_number: Some(last.to_string()),
        record_count: lines,
        event_count: lines,
        uncompressed_bytes: 100 * lines,
        uncompressed_sha256: "0".repeat(64),
        received_in: ReceivedIn { this: lines, ..ReceivedIn::default() },
        rejected_reasons: reasons.into_iter().collect(),
        earliest_received_at: UnixMillis(hour.start().0 + i64::try_from(first % 1_000).unwrap()),
        latest_received_at: UnixMillis(hour.start().0 + i64::try_from(last % 1_000).unwrap()),
        block_size: BlockSize::fitting(1),
        attempt: Attempt { began: UnixMillis(0), deadline: UnixMillis(0), request_id: "r".into() },
    }
}

pub(crate) fn put_late(bucket: &MemoryBucket, hour: UtcHour) {
    bucket.insert(&crate::manifest::late_key(&hour.partition()), "", HashMap::new());
}

pub(crate) fn config() -> Config {
    Config {
        bucket_name: "landing".into(),
        failed_batches_bucket_name: "failed-batches".into(),
        stream_name: "event-stream".into(),
        landing_function_name: "landing".into(),
        landing_timeout_seconds: 60,
        grace_minutes: 15,
        due_minutes: 40,
    }
}

pub(crate) fn handler<'a>(
    bucket: &'a MemoryBucket,
    failed_batches: &'a MemoryBucket,
    metrics: &'a MemoryMetrics,
) -> Handler<&'a MemoryBucket, &'a MemoryBucket, &'a MemoryMetrics> {
    Handler { part_bytes: 600, ..Handler::new(bucket, failed_batches, metrics, config()) }
}

/// Of a minute, the age of what landing read then.
pub(crate) fn put_iterator_age(metrics: &MemoryMetrics, at: UnixMillis, minutes: i64) {
    metrics.values.borrow_mut().push(crate::tests::memory_metrics::Value {
        namespace: "AWS/Kinesis",
        name: "GetRecords.IteratorAgeMilliseconds",
        dimensions: vec![("StreamName".into(), "event-stream".into())],
        at,
        value: (minutes * MILLIS_PER_MINUTE) as f64,
    });
}

/// So many records arrive in the middle of an hour.
fn arrive(metrics: &MemoryMetrics, hour: UtcHour, records: f64) {
    metrics.values.borrow_mut().push(crate::tests::memory_metrics::Value {
        namespace: "AWS/Kinesis",
        name: "IncomingRecords",
        dimensions: vec![("StreamName".into(), "event-stream".into())],
        at: UnixMillis(hour.start().0 + 30 * MILLIS_PER_MINUTE),
        value: records,
    });
}

/// Landing has read all that arrived until a minute ago.
pub(crate) fn catch_up(metrics: &MemoryMetrics, at: UnixMillis) {
    put_iterator_age(metrics, UnixMillis(at.0 - MILLIS_PER_MINUTE), 0);
}

pub(crate) async fn run(bucket: &MemoryBucket, metrics: &MemoryMetrics, time: &str) -> Result<(), SealError> {
    catch_up(metrics, at(time));
    handler(bucket, &MemoryBucket::default(), metrics).run(at(time), None, &|| false, "seal-partition").await
}

pub(crate) fn json(bucket: &MemoryBucket, key: &str) -> Value {
    serde_json::from_str(&bucket.text(key).unwrap_or_else(|| panic!("{key} is not there"))).unwrap()
}

pub(crate) fn success(bucket: &MemoryBucket, partition: &str) -> Value {
    json(bucket, &format!("events/{partition}/_SUCCESS"))
}

/// All but the manifests that were replaced: of a run that was killed there may be more.
pub(crate) fn files(bucket: &MemoryBucket) -> BTreeMap<String, String> {
    bucket
        .keys()
        .into_iter()
        .filter(|key| !key.starts_with("replaced/"))
        .map(|key| (key.clone(), bucket.text(&key).unwrap()))
        .collect()
}

/// A bucket in which the first hours of 21 November are sealed, each with an object.
pub(crate) async fn sealed_until(of_day: i64) -> MemoryBucket {
    let bucket = MemoryBucket::default();
    for number in 0..of_day {
        land(&bucket, Kind::Event, hour(number), 0, (100, 101));
    }
    let time = UnixMillis(hour(of_day).start().0 + 20 * MILLIS_PER_MINUTE).rfc3339();
    run(&bucket, &MemoryMetrics::default(), &time).await.unwrap();
    bucket
}

#[tokio::test]
async fn an_hour_is_sealed_with_its_sums() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    land(&bucket, Kind::Event, hour(9), 0, (100, 109));
    land(&bucket, Kind::Event, hour(9), 0, (110, 119));
    let overlapping = land(&bucket, Kind::Event, hour(9), 0, (115, 120));
    land(&bucket, Kind::Event, hour(9), 1, (115, 120));
    land(&bucket, Kind::Rejected, hour(9), 0, (111, 112));
    land(&bucket, Kind::Event, hour(10), 0, (121, 122));
    bucket.insert("events/dt=2026-11-21/hour=09/notes.txt", "12345", HashMap::new());
    let plain = object_key(Kind::Event, hour(9), "shardId-000000000002", "1");
    bucket.insert(&plain, "123", HashMap::new());
    let keys = [&plain, "events/dt=2026-11-21/hour=09/notes.txt"];
    let missing = serde_json::json!([{"what": "unreadable_objects", "count": 2, "keys": keys}]);
    let acceptance = serde_json::json!({"by": "kim", "reason": "two files of others", "missing": missing}).to_string();
    bucket.insert(&crate::manifest::accepted_key("dt=2026-11-21/hour=09"), acceptance, HashMap::new());
    run(&bucket, &metrics, "2026-11-21T10:20:00.000Z").await.unwrap();

    let manifest = json(&bucket, "events/dt=2026-11-21/hour=09/_MANIFEST.json");
    let success = success(&bucket, "dt=2026-11-21/hour=09");
    assert_eq!(manifest["totals"], success["totals"]);
    assert_eq!(manifest["objects"].as_array().unwrap().len(), 7);
    let text = bucket.text("events/dt=2026-11-21/hour=09/_MANIFEST.json").unwrap();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("{\"key\"")).count(),
        8,
        "a line an object, and an overlap's"
    );
    let expected = serde_json::json!({
        "objects": 6, "rejected_objects": 1, "unreadable_objects": 2, "overlaps": 1, "records": 34, "events": 32,
        "rejected": 2, "rejected_by_reason": {"too_deep": 2}, "bytes": 48, "rejected_bytes": 10,
        "uncompressed_bytes": 3_400,
        "earliest_received_at": "2026-11-21T09:00:00.100Z", "latest_received_at": "2026-11-21T09:00:00.120Z",
        "events_received_in": {"previous": 0, "this": 32, "next": 0, "elsewhere": 0},
        "rejected_received_in": {"previous": 0, "this": 2, "next": 0, "elsewhere": 0},
        "redriven_events": 0, "spilled_events": 0,
        "repeated": {
            "records": 1, "events": 0,
            "events_received_in": {"previous": 0, "this": 0, "next": 0, "elsewhere": 0},
            "rejected_received_in": {"previous": 0, "this": 0, "next": 0, "elsewhere": 0},
        },
    });
    assert_eq!(success["totals"], expected);
    let overlap = serde_json::json!([{"key": overlapping, "first_sequence_number": "115", "reaches": "119"}]);
    assert_eq!(manifest["overlaps"], overlap);
    assert_eq!((&success["v"], &success["late_objects"]), (&1.into(), &0.into()));
    assert_eq!(
        (&success["first_sealed_at"], &success["sealed_at"]),
        (&"2026-11-21T10:20:00.000Z".into(), &success["first_sealed_at"])
    );
    assert_eq!(
        [Metric::SealedPartitions, Metric::LateObjects, Metric::OverlappingObjects].map(|metric| metrics.last(metric)),
        [Some(1.0), Some(0.0), Some(1.0)]
    );
    assert_eq!(metrics.calls.get(), 8, "seven values are read, and one put");
    let read: crate::manifest::Success = serde_json::from_value(success).unwrap();
    assert_eq!(read.totals.all_objects(), 7);
}

/// Lines from one number to another, as `redrive` lands what it makes of rejected ones.
fn redrive(bucket: &MemoryBucket, hour: UtcHour, (first, last): (u64, u64)) {
    let key = object_key(Kind::Event, hour, "shardId-000000000000", &format!("{first}-redriven"));
    let metadata = metadata(Kind::Event, hour, (first, last));
    let received_in = ReceivedIn { elsewhere: metadata.event_count, ..ReceivedIn::default() };
    put_object(bucket, &key, ObjectMetadata { record_count: 0, received_in, ..metadata });
}

/// So many lines, as ingest writes them while Kinesis is away; the key.
fn spill(bucket: &MemoryBucket, kind: Kind, hour: UtcHour, (id, lines): (u128, u64)) -> ObjectKey {
    let key = ObjectKey::spilled(kind, hour, SpillId(id));
    put_object(bucket, &key.to_string(), spilled_metadata(kind, hour, lines));
    key
}

fn spilled_metadata(kind: Kind, hour: UtcHour, lines: u64) -> ObjectMetadata {
    ObjectMetadata { last_sequence_number: None, record_count: 0, ..metadata(kind, hour, (1, lines)) }
}

/// Takes lines out of an object as delete-viewer does.
fn delete_lines(bucket: &MemoryBucket, key: &str, hour: UtcHour, (kept, deleted): (u64, u64)) {
    let whole = metadata(ObjectKey::parse(key).unwrap().kind, hour, (100, 109));
    let received_in = ReceivedIn { this: kept, ..ReceivedIn::default() };
    let mut entries = ObjectMetadata { event_count: kept, received_in, ..whole }.to_entries();
    entries.insert("deleted-in".to_owned(), format!("previous=0,this={deleted},next=0,elsewhere=0"));
    bucket.insert(key, "seven b", entries);
}

#[tokio::test]
async fn deleted_lines_count_as_received_and_make_no_object_late() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    let landed = land(&bucket, Kind::Event, hour(9), 0, (100, 109));
    let rejected = land(&bucket, Kind::Rejected, hour(9), 0, (100, 109));
    arrive(&metrics, hour(9), 20.0);
    run(&bucket, &metrics, "2026-11-21T10:20:00.000Z").await.unwrap();
    assert!(success(&bucket, "dt=2026-11-21/hour=09")["totals"].get("deleted_events").is_none());

    delete_lines(&bucket, &landed, hour(9), (7, 3));
    delete_lines(&bucket, &rejected, hour(9), (0, 10));
    put_late(&bucket, hour(9));
    run(&bucket, &metrics, "2026-11-21T10:30:00.000Z").await.unwrap();
    let read: crate::manifest::Success = serde_json::from_value(success(&bucket, "dt=2026-11-21/hour=09")).unwrap();
    let totals = &read.totals;
    assert_eq!((totals.events, totals.deleted_events, totals.rejected, totals.deleted_rejected), (7, 3, 0, 10));
    assert_eq!((totals.events_received_in.this, totals.rejected_received_in.this, totals.records), (10, 10, 20));
    assert_eq!((read.late_objects, metrics.last(Metric::LateObjects)), (0, Some(0.0)));

    // Landing's own replacement is late, deleted lines or not.
    put_object(&bucket, &landed, metadata(Kind::Event, hour(9), (100, 111)));
    put_late(&bucket, hour(9));
    run(&bucket, &metrics, "2026-11-21T10:40:00.000Z").await.unwrap();
    assert_eq!(success(&bucket, "dt=2026-11-21/hour=09")["late_objects"], 1);

    let mut entries = metadata(Kind::Event, hour(9), (100, 109)).to_entries();
    entries.insert("deleted-in".to_owned(), "many".to_owned());
    bucket.insert(&landed, "ten bytes.", entries);
    put_late(&bucket, hour(9));
    run(&bucket, &metrics, "2026-11-21T10:50:00.000Z").await.unwrap();
    assert_eq!(success(&bucket, "dt=2026-11-21/hour=09")["totals"]["unreadable_objects"], 1);
}

/// The same records and one deletion fewer, as when a batch is sent to landing once more.
#[tokio::test]
async fn an_object_that_has_its_deleted_lines_again_is_late() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    let landed = land(&bucket, Kind::Event, hour(9), 0, (100, 109));
    let rejected = land(&bucket, Kind::Rejected, hour(9), 0, (100, 109));
    arrive(&metrics, hour(9), 20.0);
    delete_lines(&bucket, &landed, hour(9), (7, 3));
    run(&bucket, &metrics, "2026-11-21T10:20:00.000Z").await.unwrap();
    assert_eq!(success(&bucket, "dt=2026-11-21/hour=09")["totals"]["deleted_events"], 3);

    // Beside it, lines of another object are deleted.
    put_object(&bucket, &landed, metadata(Kind::Event, hour(9), (100, 109)));
    delete_lines(&bucket, &rejected, hour(9), (9, 1));
    put_late(&bucket, hour(9));
    run(&bucket, &metrics, "2026-11-21T10:30:00.000Z").await.unwrap();
    let success = success(&bucket, "dt=2026-11-21/hour=09");
    assert_eq!((&success["totals"]["deleted_rejected"], &success["late_objects"]), (&1.into(), &1.into()));
}

/// How hour 9 balances with `EVENT_FORMAT=raw`, when ten events were accepted in it.
fn balance_of_raw(bucket: &MemoryBucket) -> Balance {
    let read: crate::manifest::Success = serde_json::from_value(success(bucket, "dt=2026-11-21/hour=09")).unwrap();
    let accepted = Counted { whole: 10.0, ..Counted::default() };
    let records = Counted { whole: read.totals.records as f64, ..Counted::default() };
    let sent = [Sent::default(), Sent { accepted, records, ..Sent::default() }, Sent::default()];
    let landed = [Totals::default(), read.totals, Totals::default()];
    let hours: Vec<_> = [8, 9, 10]
        .iter()
        .zip(sent)
        .zip(&landed)
        .map(|((of_day, sent), landed)| Hour { hour: hour(*of_day), sent, landed })
        .collect();
    balances(&hours, EventFormat::Raw)[0]
}

#[rstest::rstest]
#[case::of_a_redriven_object("110-redriven", 0, 0.0)]
#[case::of_an_object_that_is_in_another("104", 4, 4.0)]
#[tokio::test]
async fn deleted_lines_change_no_balance_of_raw_events(#[case] name: &str, #[case] records: u64, #[case] doubled: f64) {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    let first = name.trim_end_matches("-redriven").parse().unwrap();
    let key = object_key(Kind::Event, hour(9), "shardId-000000000000", name);
    let whole = ObjectMetadata { record_count: records, ..metadata(Kind::Event, hour(9), (first, first + 3)) };
    land(&bucket, Kind::Event, hour(9), 0, (100, 109));
    put_object(&bucket, &key, whole.clone());
    arrive(&metrics, hour(9), 10.0);
    run(&bucket, &metrics, "2026-11-21T10:20:00.000Z").await.unwrap();
    let before = balance_of_raw(&bucket);
    assert_eq!((before.lost_events, before.doubled_events), (0.0, doubled));

    let received_in = ReceivedIn { this: 1, ..ReceivedIn::default() };
    let mut entries = ObjectMetadata { event_count: 1, received_in, ..whole }.to_entries();
    entries.insert("deleted-in".to_owned(), "previous=0,this=3,next=0,elsewhere=0".to_owned());
    bucket.insert(&key, "one", entries);
    put_late(&bucket, hour(9));
    run(&bucket, &metrics, "2026-11-21T10:30:00.000Z").await.unwrap();
    assert_eq!(success(&bucket, "dt=2026-11-21/hour=09")["totals"]["deleted_events"], 3);
    assert_eq!(balance_of_raw(&bucket), before);
}

#[tokio::test]
async fn spilled_objects_are_sealed_without_records_or_overlaps() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    let landed = land(&bucket, Kind::Event, hour(9), 0, (100, 109));
    let spilled = spill(&bucket, Kind::Event, hour(9), (0x019a, 3)).to_string();
    spill(&bucket, Kind::Event, hour(9), (0x019b, 4));
    let rejected = spill(&bucket, Kind::Rejected, hour(9), (0x019a, 2));
    let received_in = ReceivedIn { elsewhere: 1, ..ReceivedIn::default() };
    let redriven = rejected.redriven().to_string();
    put_object(&bucket, &redriven, ObjectMetadata { received_in, ..spilled_metadata(Kind::Event, hour(9), 1) });
    arrive(&metrics, hour(9), 10.0);
    run(&bucket, &metrics, "2026-11-21T10:20:00.000Z").await.unwrap();

    let totals = success(&bucket, "dt=2026-11-21/hour=09")["totals"].clone();
    let totals: Totals = serde_json::from_value(totals).unwrap();
    assert_eq!((totals.objects, totals.rejected_objects, totals.unreadable_objects), (4, 1, 0));
    assert_eq!((totals.records, totals.events, totals.rejected, totals.overlaps), (10, 18, 2, 0));
    assert_eq!((totals.spilled_events, totals.redriven_events), (7, 1));
    assert_eq!((totals.events_received_in.this, totals.events_received_in.elsewhere), (17, 1));
    let manifest = json(&bucket, "events/dt=2026-11-21/hour=09/_MANIFEST.json");
    let entry = |key: &str| {
        let entries = manifest["objects"].as_array().unwrap();
        entries.iter().find(|entry| entry["key"] == key).unwrap_or_else(|| panic!("{key} is not listed")).clone()
    };
    for key in [spilled, rejected.to_string(), redriven] {
        assert_eq!((&entry(&key)["records"], entry(&key).get("first_sequence_number")), (&0.into(), None), "{key}");
        let read: crate::manifest::Entry = serde_json::from_value(entry(&key)).unwrap();
        assert_eq!(read.content.unwrap().last_sequence_number, None);
    }
    assert_eq!(entry(&landed)["last_sequence_number"], "109");
}

/// While Kinesis takes nothing, IncomingRecords has no values.
#[tokio::test]
async fn an_hour_with_only_spilled_events_is_sealed_with_them() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    spill(&bucket, Kind::Event, hour(9), (1, 5));
    run(&bucket, &metrics, "2026-11-21T10:20:00.000Z").await.unwrap();
    let success: crate::manifest::Success = serde_json::from_value(success(&bucket, "dt=2026-11-21/hour=09")).unwrap();
    assert_eq!((success.totals.events, success.totals.records, success.accepted), (5, 0, None));
}

#[tokio::test]
async fn spilled_lines_do_not_offset_missing_records() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    land(&bucket, Kind::Event, hour(9), 0, (100, 109));
    spill(&bucket, Kind::Event, hour(9), (1, 5));
    arrive(&metrics, hour(9), 12.0);
    run(&bucket, &metrics, "2026-11-21T10:40:00.000Z").await.unwrap();
    let incomplete = json(&bucket, "events/dt=2026-11-21/hour=09/_INCOMPLETE");
    assert_eq!(incomplete["missing"], serde_json::json!([{"what": "missing_records", "arrived": 12, "landed": 10}]));
}

#[rstest::rstest]
#[case::with_a_sequence_number(|m: &mut ObjectMetadata| m.last_sequence_number = Some("1".into()))]
#[case::with_records(|m: &mut ObjectMetadata| m.record_count = 1)]
#[tokio::test]
async fn a_spilled_object_that_claims_records_of_the_stream_is_unreadable(#[case] change: fn(&mut ObjectMetadata)) {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    let key = ObjectKey::spilled(Kind::Event, hour(9), SpillId(1)).to_string();
    let mut metadata = spilled_metadata(Kind::Event, hour(9), 5);
    change(&mut metadata);
    put_object(&bucket, &key, metadata);
    run(&bucket, &metrics, "2026-11-21T10:40:00.000Z").await.unwrap();
    let incomplete = json(&bucket, "events/dt=2026-11-21/hour=09/_INCOMPLETE");
    assert_eq!(incomplete["missing"], serde_json::json!([{"what": "unreadable_objects", "count": 1, "keys": [key]}]));
}

#[tokio::test]
async fn doubled_redriven_lines_neither_hide_nor_invent_a_loss() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    land(&bucket, Kind::Event, hour(9), 0, (100, 109));
    redrive(&bucket, hour(9), (200, 205));
    redrive(&bucket, hour(9), (202, 203));
    run(&bucket, &metrics, "2026-11-21T10:20:00.000Z").await.unwrap();
    let success: crate::manifest::Success = serde_json::from_value(success(&bucket, "dt=2026-11-21/hour=09")).unwrap();
    for (accepted, lost_events) in [(10.0, 0.0), (11.0, 1.0)] {
        let counted = |whole| Counted { whole, ..Counted::default() };
        let records = counted(success.totals.records as f64);
        let sent = Sent { accepted: counted(accepted), records, ..Sent::default() };
        let nothing = Totals::default();
        let hour = |of_day, sent, landed| Hour { hour: hour(of_day), sent, landed };
        let hours =
            [hour(8, Sent::default(), &nothing), hour(9, sent, &success.totals), hour(10, Sent::default(), &nothing)];
        let expected = Balance { lost_events, doubled_events: 2.0, ..Balance::default() };
        assert_eq!(balances(&hours, EventFormat::Raw), [expected]);
    }
}

#[tokio::test]
async fn an_hour_without_traffic_is_sealed_as_empty_and_no_later_one_is_skipped() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    run(&bucket, &metrics, "2026-11-21T10:20:00.000Z").await.unwrap();
    assert_eq!(bucket.keys().len(), 2);
    assert_eq!(success(&bucket, "dt=2026-11-21/hour=09")["totals"]["earliest_received_at"], Value::Null);
    run(&bucket, &metrics, "2026-11-21T13:20:00.000Z").await.unwrap();
    assert_eq!(bucket.keys().len(), 8);
    assert_eq!(metrics.last(Metric::SealedPartitions), Some(3.0));
}

#[tokio::test]
async fn an_open_hour_is_not_sealed() {
    let (bucket, metrics) = (MemoryBucket::default(), MemoryMetrics::default());
    land(&bucket, Kind::Event, hour(9), 0, (1, 2));
    put_late(&bucket, hour(9));
    run(&bucket, &metrics, "2026-11-21T10:14:59.999Z").await.unwrap();
    assert_eq!(bucket.keys().len(), 2);
    run(&bucket, &metrics, "2026-11-21T10:15:00.000Z").await.unwrap();
    assert_eq!(success(&bucket, "dt=2026-11-21/hour=09")["totals"]["events"], 2);
    assert!(!bucket.keys().iter().any(|key| key.starts_with("late/") || key.starts_with("sealing/")));
}

#[tokio::test]
async fn an_hour_of_rejected_lines_alone_is_sealed() {
    let bucket = MemoryBucket::default();
    land(&bucket, Kind::Rejected, hour(7), 0, (1, 2));
    run(&bucket, &MemoryMetrics::default(), "2026-11-21T10:20:00.000Z").await.unwrap();
    assert_eq!(success(&bucket, "dt=2026-11-21/hour=07")["totals"]["rejected"], 2);
    assert_eq!(bucket.keys().len(), 7);
}

#[tokio::test]
async fn late_objects_are_counted_once_and_added_up() {
    let bucket = sealed_until(8).await;
    let metrics = MemoryMetrics::default();
    for (number, time) in ["2026-11-21T08:40:00.000Z", "2026-11-21T09:20:00.000Z"].into_iter().enumerate() {
        let first = 200 + 10 * number as u64;
        land(&bucket, Kind::Event, hour(5), 0, (first, first));
        land(&bucket, Kind::Rejected, hour(5), 0, (first + 1, first + 1));
        put_late(&bucket, hour(5));
        for again in [2.0, 0.0] {
            run(&bucket, &metrics, time).await.unwrap();
            assert_eq!(metrics.last(Metric::LateObjects), Some(again));
            let success = success(&bucket, "dt=2026-11-21/hour=05");
            assert_eq!(success["late_objects"], 2 * (number + 1));
            assert_eq!(
                (&success["first_sealed_at"], &success["sealed_at"]),
                (&"2026-11-21T08:20:00.000Z".into(), &time.into())
            );
        }
        assert!(!bucket.keys().iter().any(|key| key.starts_with("late/") || key.starts_with("sealing/")));
    }
}

#[tokio::test]
async fn a_date_is_sealed_with_its_hours_and_resealed_for_a_late_object() {
    let bucket = sealed_until(23).await;
    let metrics = MemoryMetrics::default();
    assert!(bucket.text("events/dt=2026-11-21/_SUCCESS").is_none());
    run(&bucket, &metrics, NIGHT).await.unwrap();
    assert_eq!(metrics.last(Metric::SealedPartitions), Some(2.0));
    let date = json(&bucket, "events/dt=2026-11-21/_MANIFEST.json");
    assert_eq!((date["hours"].as_array().unwrap().len(), &date["totals"]["events"]), (24, &46.into()));
    assert_eq!(date["hours"][3]["partition"], "dt=2026-11-21/hour=03");

    // Days later than the run looks back by itself.
    land(&bucket, Kind::Event, hour(5), 0, (200, 201));
    put_late(&bucket, hour(5));
    run(&bucket, &metrics, "2026-11-26T00:20:00.000Z").await.unwrap();
    let success = success(&bucket, "dt=2026-11-21");
    assert_eq!((&success["totals"]["events"], &success["late_objects"]), (&48.into(), &1.into()));
    assert_eq!(
        (&success["first_sealed_at"], &success["sealed_at"]),
        (&NIGHT.into(), &"2026-11-26T00:20:00.000Z".into())
    );
}

#[tokio::test]
async fn a_date_whose_first_hours_were_before_the_bucket_is_not_sealed() {
    let bucket = MemoryBucket::default();
    land(&bucket, Kind::Event, hour(5), 0, (1, 2));
    run(&bucket, &MemoryMetrics::default(), NIGHT).await.unwrap();
    assert!(bucket.text("events/dt=2026-11-21/hour=23/_SUCCESS").is_some());
    assert!(bucket.text("events/dt=2026-11-21/_SUCCESS").is_none());
}

#[tokio::test]
async fn a_foreign_success_is_replaced() {
    let bucket = sealed_until(9).await;
    bucket.insert("events/dt=2026-11-21/hour=04/_SUCCESS", "", HashMap::new());
    run(&bucket, &MemoryMetrics::default(), "2026-11-21T10:20:00.000Z").await.unwrap();
    assert_eq!(success(&bucket, "dt=2026-11-21/hour=04")["totals"]["events"], 2);
}

/// As a run leaves it that was killed after another one had written `_SUCCESS` for the manifest before.
#[tokio::test]
async fn an_hour_whose_success_names_another_manifest_is_resealed() {
    let bucket = sealed_until(8).await;
    let manifest = "events/dt=2026-11-21/hour=05/_MANIFEST.json";
    bucket.insert(manifest, "{}", HashMap::new());
    run(&bucket, &MemoryMetrics::default(), "2026-11-21T08:30:00.000Z").await.unwrap();
    let success = success(&bucket, "dt=2026-11-21/hour=05");
    assert_eq!(success["manifest"], bucket.etag(manifest));
    assert_eq!(json(&bucket, manifest)["objects"].as_array().unwrap().len(), 1);
    assert_eq!((&success["late_objects"], &success["sealed_at"]), (&0.into(), &"2026-11-21T08:30:00.000Z".into()));
}

#[tokio::test]
async fn hours_are_sealed_two_days_back() {
    let bucket = MemoryBucket::default();
    land(&bucket, Kind::Event, hour(-100), 0, (1, 2));
    run(&bucket, &MemoryMetrics::default(), NIGHT).await.unwrap();
    assert_eq!(bucket.keys().iter().filter(|key| key.ends_with("hour=00/_SUCCESS")).count(), 2);
    assert_eq!(bucket.keys().iter().filter(|key| key.contains("/hour=") && key.ends_with("/_SUCCESS")).count(), 48);
    assert_eq!(bucket.keys().iter().filter(|key| !key.contains("/hour=")).count(), 4, "both dates");
}
