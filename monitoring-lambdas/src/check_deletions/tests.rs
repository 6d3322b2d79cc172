//! Runs against a bucket and metrics in memory: what is reported at the end.

use std::collections::HashMap;

use rstest::rstest;
use shared::line::Kind;
use shared::object::manifest_key;

use super::report::{Missing, What};
use super::*;
use crate::manifest::{LATE_PREFIX, late_key};
use crate::seal_partition::tests::{at, hour, land, put_late, run as seal, sealed_until};
use crate::tests::memory_metrics::MemoryMetrics;
use lambda_setup::memory_bucket::MemoryBucket;

const NOON: &str = "2026-11-21T12:40:00.000Z";
const HOUR_3: &str = "deleted/dt=2026-11-21/hour=03.json";

async fn check_within(bucket: &MemoryBucket, time: &str, left: Duration) -> Result<Option<f64>, CheckDeletionsError> {
    let metrics = MemoryMetrics::default();
    let handler = Handler::new(bucket, &metrics);
    handler.run(at(time), Deadline::after(left), "check-deletions").await?;
    Ok(metrics.last(Metric::DeletedObjects))
}

/// A run that has all the time it takes: the metric.
async fn check(bucket: &MemoryBucket, time: &str) -> f64 {
    check_within(bucket, time, Duration::from_secs(60)).await.unwrap().unwrap()
}

fn report(bucket: &MemoryBucket, key: &str) -> Option<Report> {
    bucket.text(key).map(|text| serde_json::from_str(&text).unwrap())
}

fn delete(bucket: &MemoryBucket, key: &str) -> testbed::Object {
    bucket.objects.borrow_mut().remove(key).unwrap()
}

fn restore(bucket: &MemoryBucket, key: &str, stored: testbed::Object) {
    bucket.objects.borrow_mut().restore(key, stored);
}

/// The keys of an hour's data.
fn data(bucket: &MemoryBucket, hour: UtcHour) -> Vec<String> {
    let partition = format!("/{}/shardId-", hour.partition());
    bucket.keys().into_iter().filter(|key| key.contains(&partition)).collect()
}

/// Twelve sealed hours; the third has objects of two shards and both kinds.
async fn sealed() -> MemoryBucket {
    let bucket = MemoryBucket::default();
    for shard in [0, 1] {
        land(&bucket, Kind::Event, hour(3), shard, (200, 201));
        land(&bucket, Kind::Rejected, hour(3), shard, (210, 210));
    }
    for number in 0..12 {
        land(&bucket, Kind::Event, hour(number), 0, (100, 101));
    }
    seal(&bucket, &MemoryMetrics::default(), "2026-11-21T12:20:00.000Z").await.unwrap();
    bucket
}

async fn reseal(bucket: &MemoryBucket, hour: UtcHour) {
    put_late(bucket, hour);
    seal(bucket, &MemoryMetrics::default(), "2026-11-21T12:30:00.000Z").await.unwrap();
}

#[tokio::test]
async fn nothing_is_reported_when_nothing_is_gone() {
    let bucket = sealed().await;
    let before = bucket.calls.get();
    assert_eq!(check(&bucket, NOON).await, 0.0);
    assert_eq!(
        bucket.calls.get() - before,
        168 + 3 * 12 + 5,
        "a GET an hour, a HEAD and two LISTs a sealed one, reports, replaced manifests and state"
    );
    let deleted: Vec<_> = bucket.keys().into_iter().filter(|key| key.starts_with("deleted/")).collect();
    assert_eq!(deleted, ["deleted/_state.json"]);
}

#[rstest]
#[case::the_first(0)]
#[case::one_between(1)]
#[case::the_last_event(2)]
#[case::a_rejected_one(3)]
#[case::the_last_of_all(4)]
#[tokio::test]
async fn a_deleted_object_is_reported_until_it_is_restored(#[case] which: usize) {
    let bucket = sealed().await;
    let key = &data(&bucket, hour(3))[which];
    let stored = delete(&bucket, key);
    assert_eq!(check(&bucket, NOON).await, 1.0);
    let found = report(&bucket, HOUR_3).unwrap();
    let missing = [Missing { key: key.clone(), what: What::Deleted }];
    assert_eq!((&found.missing[..], found.missing_objects, found.found_at), (&missing[..], 1, at(NOON)));

    assert_eq!(check(&bucket, "2026-11-21T18:40:00.000Z").await, 1.0);
    assert_eq!(report(&bucket, HOUR_3), Some(found), "and when it was found");
    restore(&bucket, key, stored);
    assert_eq!(check(&bucket, "2026-11-22T00:40:00.000Z").await, 0.0);
    assert_eq!(report(&bucket, HOUR_3), None);
}

#[tokio::test]
async fn page_size_does_not_change_the_comparison() {
    for page_size in [1, 2, 3, 5] {
        let bucket = sealed().await;
        let keys = data(&bucket, hour(3));
        delete(&bucket, &keys[1]);
        delete(&bucket, &keys[4]);
        bucket.page_size.set(Some(page_size));
        check(&bucket, NOON).await;
        bucket.page_size.set(None);
        let found: Vec<String> =
            report(&bucket, HOUR_3).unwrap().missing.into_iter().map(|missing| missing.key).collect();
        assert_eq!(found, [keys[1].clone(), keys[4].clone()], "{page_size} a page");
    }
}

/// Another run of seal-partition, and what it counts as late.
async fn seal_again(bucket: &MemoryBucket) -> Option<f64> {
    let metrics = MemoryMetrics::default();
    seal(bucket, &metrics, "2026-11-21T12:50:00.000Z").await.unwrap();
    metrics.last(Metric::LateObjects)
}

fn marked(bucket: &MemoryBucket) -> Vec<String> {
    bucket.keys().into_iter().filter(|key| key.starts_with(LATE_PREFIX)).collect()
}

fn sealed_keys(bucket: &MemoryBucket, hour: UtcHour) -> Vec<String> {
    let manifest: serde_json::Value =
        serde_json::from_str(&bucket.text(&manifest_key(&hour.partition())).unwrap()).unwrap();
    manifest["objects"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
}

/// S3's event of the object is lost, so check-object puts no marker.
#[rstest]
#[case::before_all_others(Kind::Event, 0, 50)]
#[case::between_others(Kind::Event, 0, 150)]
#[case::behind_the_events(Kind::Event, 7, 150)]
#[case::behind_all_others(Kind::Rejected, 7, 150)]
#[tokio::test]
async fn an_object_in_no_manifest_is_in_one_after_the_next_seal(
    #[case] kind: Kind,
    #[case] shard: u8,
    #[case] first: u64,
) {
    let bucket = sealed().await;
    let late = land(&bucket, kind, hour(3), shard, (first, first + 1));
    assert_eq!(check(&bucket, NOON).await, 0.0);
    assert_eq!(marked(&bucket), [late_key(&hour(3).partition())]);
    assert_eq!(seal_again(&bucket).await, Some(1.0));
    assert!(sealed_keys(&bucket, hour(3)).contains(&late));
    check(&bucket, NOON).await;
    assert!(marked(&bucket).is_empty());
}

#[tokio::test]
async fn an_object_replaced_by_landing_is_resealed_and_not_reported() {
    let bucket = sealed().await;
    let key = &data(&bucket, hour(3))[0];
    let metadata = bucket.metadata(key);
    bucket.insert(key, "bytes of another block size", metadata);
    assert_eq!(check(&bucket, NOON).await, 0.0);
    assert_eq!(marked(&bucket), [late_key(&hour(3).partition())]);
    assert_eq!(seal_again(&bucket).await, Some(1.0));
    check(&bucket, NOON).await;
    assert!(marked(&bucket).is_empty());
}

#[rstest]
#[case::a_note("events/dt=2026-11-21/hour=03/notes.txt")]
#[case::what_readers_pass_over("events/dt=2026-11-21/hour=03/_temporary")]
#[case::below_the_hour("rejected/dt=2026-11-21/hour=03/x/shardId-000000000000-1.jsonl.bz2")]
#[tokio::test]
async fn a_foreign_file_requests_no_seal(#[case] key: &str) {
    let bucket = sealed().await;
    bucket.insert(key, "x", HashMap::new());
    assert_eq!(check(&bucket, NOON).await, 0.0);
    assert!(marked(&bucket).is_empty());
}

#[tokio::test]
async fn foreign_overwrites_are_reported() {
    let bucket = sealed().await;
    let key = &data(&bucket, hour(3))[0];
    bucket.insert(key, "something else", HashMap::new());
    assert_eq!(check(&bucket, NOON).await, 1.0);
    assert_eq!(report(&bucket, HOUR_3).unwrap().missing, [Missing { key: key.clone(), what: What::Overwritten }]);
}

#[tokio::test]
async fn overwritten_objects_stay_reported_after_a_reseal() {
    let bucket = sealed().await;
    let key = &data(&bucket, hour(3))[0];
    let stored = delete(&bucket, key);
    bucket.insert(key, "something else", HashMap::new());
    assert_eq!(check(&bucket, NOON).await, 1.0);
    reseal(&bucket, hour(3)).await;
    assert_eq!(check(&bucket, NOON).await, 1.0);
    restore(&bucket, key, stored);
    assert_eq!(check(&bucket, NOON).await, 0.0);
}

#[tokio::test]
async fn a_key_stays_reported_when_its_hour_is_sealed_again_without_it() {
    let bucket = sealed().await;
    let key = &data(&bucket, hour(3))[0];
    let stored = delete(&bucket, key);
    check(&bucket, NOON).await;
    land(&bucket, Kind::Event, hour(3), 0, (300, 301));
    reseal(&bucket, hour(3)).await;
    assert_eq!(check(&bucket, NOON).await, 1.0);
    restore(&bucket, key, stored);
    assert_eq!(check(&bucket, NOON).await, 0.0);
}

fn missing_keys(bucket: &MemoryBucket) -> Vec<String> {
    report(bucket, HOUR_3)
        .map_or_else(Vec::new, |report| report.missing.into_iter().map(|missing| missing.key).collect())
}

fn replaced(bucket: &MemoryBucket) -> usize {
    bucket.keys().iter().filter(|key| key.starts_with("replaced/")).count()
}

#[rstest]
#[case::of_an_hour_that_was_never_compared(false, 1)]
#[case::of_one_that_was(true, 1)]
#[case::sealed_three_times_more(false, 3)]
#[tokio::test]
async fn objects_deleted_between_two_seals_are_reported_by_key(#[case] is_compared: bool, #[case] reseals: u64) {
    let bucket = sealed().await;
    if is_compared {
        check(&bucket, NOON).await;
    }
    let key = data(&bucket, hour(3))[0].clone();
    let stored = delete(&bucket, &key);
    for number in 0..reseals {
        land(&bucket, Kind::Event, hour(3), 5, (300 + 10 * number, 301 + 10 * number));
        reseal(&bucket, hour(3)).await;
    }
    assert_eq!(check(&bucket, NOON).await, 1.0);
    assert_eq!(missing_keys(&bucket), std::slice::from_ref(&key));
    assert_eq!(replaced(&bucket), 0, "each replaced manifest is compared once");
    assert!(marked(&bucket).is_empty());
    restore(&bucket, &key, stored);
    assert_eq!(check(&bucket, NOON).await, 0.0);
}

#[tokio::test]
async fn an_object_only_in_an_intermediate_manifest_is_reported_unless_landing_replaced_it() {
    let bucket = sealed().await;
    let between = land(&bucket, Kind::Rejected, hour(3), 5, (300, 301));
    reseal(&bucket, hour(3)).await;
    delete(&bucket, &between);
    let metadata = bucket.metadata(&data(&bucket, hour(3))[0]);
    bucket.insert(&data(&bucket, hour(3))[0], "bytes of another block size", metadata);
    reseal(&bucket, hour(3)).await;
    assert_eq!(check(&bucket, NOON).await, 1.0);
    assert_eq!(missing_keys(&bucket), [between]);
}

#[tokio::test]
async fn overwrites_between_two_seals_are_reported() {
    let bucket = sealed().await;
    let key = &data(&bucket, hour(3))[0];
    bucket.insert(key, "something else", HashMap::new());
    reseal(&bucket, hour(3)).await;
    assert_eq!(check(&bucket, NOON).await, 1.0);
    assert_eq!(report(&bucket, HOUR_3).unwrap().missing, [Missing { key: key.clone(), what: What::Overwritten }]);
}

/// Whatever call of the second seal it is that the run is killed at.
#[tokio::test]
async fn objects_deleted_before_a_killed_seal_are_reported() {
    for call in 1.. {
        let bucket = sealed().await;
        let key = data(&bucket, hour(3))[0].clone();
        delete(&bucket, &key);
        land(&bucket, Kind::Event, hour(3), 5, (300, 301));
        put_late(&bucket, hour(3));
        bucket.fails_from.set(Some(bucket.calls.get() + call));
        let killed = seal(&bucket, &MemoryMetrics::default(), "2026-11-21T12:30:00.000Z").await;
        bucket.fails_from.set(None);
        seal_again(&bucket).await;
        assert_eq!(check(&bucket, NOON).await, 1.0, "killed at call {call}");
        assert_eq!(missing_keys(&bucket), [key], "killed at call {call}");
        assert_eq!(replaced(&bucket), 0, "killed at call {call}");
        if killed.is_ok() {
            return;
        }
    }
}

/// As a redriven batch has it sealed.
#[tokio::test]
async fn replaced_manifests_of_hours_that_are_no_longer_compared_are_deleted() {
    let bucket = sealed().await;
    delete(&bucket, &data(&bucket, hour(3))[0]);
    reseal(&bucket, hour(3)).await;
    assert_eq!(replaced(&bucket), 1);
    assert_eq!(check(&bucket, "2026-12-01T12:40:00.000Z").await, 0.0);
    assert_eq!(replaced(&bucket), 0);
}

/// By the runbook: the note that keeps the hour from being whole is deleted, and the hour is sealed without it.
#[tokio::test]
async fn an_hour_is_compared_from_its_first_success_on() {
    let bucket = sealed_until(3).await;
    land(&bucket, Kind::Event, hour(3), 0, (100, 101));
    let note = "events/dt=2026-11-21/hour=03/notes.txt";
    bucket.insert(note, "x", HashMap::new());
    seal(&bucket, &MemoryMetrics::default(), "2026-11-21T04:40:00.000Z").await.unwrap();
    assert_eq!(sealed_keys(&bucket, hour(3)).len(), 2, "held back, with a manifest");
    assert_eq!(check(&bucket, NOON).await, 0.0);
    delete(&bucket, note);
    seal_again(&bucket).await;
    assert_eq!(sealed_keys(&bucket, hour(3)).len(), 1);
    assert_eq!(check(&bucket, NOON).await, 0.0);
    assert_eq!(report(&bucket, HOUR_3), None);
}

/// `aws s3 rm --recursive` of an hour; it is sealed again as an empty one before anybody looks.
#[tokio::test]
async fn an_hour_deleted_and_resealed_as_empty_is_reported_by_its_object_count() {
    let bucket = sealed().await;
    check(&bucket, NOON).await;
    let gone: Vec<_> = bucket
        .keys()
        .into_iter()
        .filter(|key| key.contains("dt=2026-11-21/hour=03/"))
        .map(|key| (key.clone(), delete(&bucket, &key)))
        .collect();
    seal(&bucket, &MemoryMetrics::default(), "2026-11-21T12:30:00.000Z").await.unwrap();
    assert_eq!(check(&bucket, NOON).await, 5.0);
    assert!(report(&bucket, HOUR_3).unwrap().missing.is_empty());
    gone.into_iter().for_each(|(key, stored)| restore(&bucket, &key, stored));
    assert_eq!(check(&bucket, NOON).await, 0.0);
}

#[tokio::test]
async fn a_deleted_manifest_is_reported() {
    let bucket = sealed().await;
    check(&bucket, NOON).await;
    let manifest = manifest_key(&hour(3).partition());
    let stored = delete(&bucket, &manifest);
    assert_eq!(check(&bucket, NOON).await, 1.0);
    assert_eq!(report(&bucket, HOUR_3).unwrap().missing[0].key, manifest);
    assert_eq!(marked(&bucket), [late_key(&hour(3).partition())]);
    restore(&bucket, &manifest, stored);
    assert_eq!(check(&bucket, NOON).await, 0.0);
}

#[tokio::test]
async fn keys_are_named_up_to_a_bound_and_all_are_counted() {
    let bucket = MemoryBucket::default();
    for number in 0..=report::MAX_KEYS as u64 {
        land(&bucket, Kind::Event, hour(3), 0, (100_000 + number, 100_000 + number));
    }
    seal(&bucket, &MemoryMetrics::default(), "2026-11-21T04:20:00.000Z").await.unwrap();
    data(&bucket, hour(3)).iter().for_each(|key| drop(delete(&bucket, key)));
    for _ in 0..2 {
        assert_eq!(check(&bucket, NOON).await, 1.0 + report::MAX_KEYS as f64);
        assert_eq!(report(&bucket, HOUR_3).unwrap().missing.len(), report::MAX_KEYS);
    }
}

#[rstest]
#[case::the_oldest_hour("2026-11-28T03:40:00.000Z", 1.0)]
#[case::one_older("2026-11-28T04:40:00.000Z", 0.0)]
#[tokio::test]
async fn hours_are_compared_for_seven_days(#[case] time: &str, #[case] expected: f64) {
    let bucket = sealed_until(5).await;
    delete(&bucket, &data(&bucket, hour(3))[0]);
    assert_eq!(check(&bucket, time).await, expected);
}

#[tokio::test]
async fn an_old_report_stays_until_its_keys_are_back_or_a_person_deletes_it() {
    let bucket = sealed_until(5).await;
    let key = &data(&bucket, hour(3))[0];
    let stored = delete(&bucket, key);
    check(&bucket, NOON).await;
    // The lifecycle deletes what is left of the hour.
    delete(&bucket, &manifest_key(&hour(3).partition()));
    assert_eq!(check(&bucket, "2026-12-01T12:40:00.000Z").await, 1.0);
    restore(&bucket, key, stored.clone());
    assert_eq!(check(&bucket, "2026-12-01T18:40:00.000Z").await, 0.0);

    let bucket = sealed_until(5).await;
    delete(&bucket, &data(&bucket, hour(3))[0]);
    check(&bucket, NOON).await;
    // S3 keeps the version for 14 days: that it is gone for good makes nothing good.
    for time in ["2026-12-05T12:40:00.000Z", "2027-12-05T12:40:00.000Z"] {
        assert_eq!(check(&bucket, time).await, 1.0);
    }
    delete(&bucket, HOUR_3);
    assert_eq!(check(&bucket, "2027-12-05T18:40:00.000Z").await, 0.0);
}

#[tokio::test]
async fn runs_without_time_continue_one_another_and_finish() {
    let bucket = sealed().await;
    for of_day in [2, 5, 11] {
        delete(&bucket, &data(&bucket, hour(of_day))[0]);
    }
    let mut seen = Vec::new();
    for _ in 0..168 {
        seen.push(check_within(&bucket, NOON, Duration::ZERO).await.unwrap().unwrap());
    }
    assert_eq!(seen.first(), Some(&0.0));
    assert_eq!(seen.last(), Some(&3.0));
    assert!(seen.is_sorted());
    // The next one starts again with the oldest.
    assert_eq!(bucket.text("deleted/_state.json").unwrap().matches("\"next\":null").count(), 1);
}

#[rstest]
#[case::empty("")]
#[case::another_version("{\"v\":2,\"partition\":\"p\",\"objects\":[\n],\"overlaps\":[\n]}")]
#[case::cut("{\"v\":1,\"partition\":\"p\",\"objects\":[\n{\"key\":\"a\",\"bytes\":1},\n")]
#[case::no_entry("{\"v\":1,\"partition\":\"p\",\"objects\":[\n{}\n],")]
#[case::out_of_order(
    "{\"v\":1,\"partition\":\"p\",\"objects\":[\n{\"key\":\"b\",\"bytes\":1},\n{\"key\":\"a\",\"bytes\":1}\n],"
)]
#[case::a_long_line(&format!("{{\"v\":1,\"partition\":\"{}", "p".repeat(20_000)))]
#[case::made_up_keys(
    "{\"v\":1,\"partition\":\"p\",\"objects\":[\n{\"key\":\"a\",\"bytes\":1},\n{\"key\":\"b\",\"bytes\":1},\nx"
)]
#[tokio::test]
async fn an_unreadable_manifest_is_reported_until_the_hour_is_resealed(#[case] text: &str) {
    let bucket = sealed().await;
    let manifest = manifest_key(&hour(2).partition());
    bucket.insert(&manifest, text.to_owned(), HashMap::new());
    delete(&bucket, &data(&bucket, hour(3))[0]);
    assert_eq!(check(&bucket, NOON).await, 2.0);
    let found = report(&bucket, "deleted/dt=2026-11-21/hour=02.json").unwrap();
    assert_eq!((found.missing_objects, found.missing), (1, vec![Missing { key: manifest, what: What::Overwritten }]));
    seal_again(&bucket).await;
    assert_eq!(sealed_keys(&bucket, hour(2)), data(&bucket, hour(2)));
    assert_eq!(check(&bucket, NOON).await, 1.0);
}

#[tokio::test]
async fn reports_of_more_hours_than_a_page_are_all_counted() {
    let bucket = sealed().await;
    (0..12).for_each(|number| drop(delete(&bucket, &data(&bucket, hour(number))[0])));
    bucket.page_size.set(Some(5));
    for time in [NOON, "2026-11-29T12:40:00.000Z"] {
        assert_eq!(check(&bucket, time).await, 12.0);
    }
}

/// Which call it is that S3 always refuses: of an hour, its manifest, its listing or its report.
#[rstest]
#[case::the_manifest("HEAD", "events/dt=2026-11-21/hour=02/_MANIFEST.json")]
#[case::the_listing("listing", "events/dt=2026-11-21/hour=02/")]
#[case::the_report("PUT", "deleted/dt=2026-11-21/hour=02.json")]
#[case::the_late_marker("PUT", "late/dt=2026-11-21/hour=02")]
#[tokio::test]
async fn an_hour_that_s3_refuses_fails_the_run_and_the_others_are_compared(
    #[case] operation: &'static str,
    #[case] key: &'static str,
) {
    let bucket = sealed().await;
    delete(&bucket, &data(&bucket, hour(2))[0]);
    land(&bucket, Kind::Event, hour(2), 7, (700, 701));
    delete(&bucket, &data(&bucket, hour(3))[0]);
    bucket.refuses.set(Some((operation, key)));
    let metrics = MemoryMetrics::default();
    let handler = Handler::new(&bucket, &metrics);
    let ended = handler.run(at(NOON), Deadline::after(Duration::from_secs(60)), "check-deletions").await;
    assert!(matches!(ended, Err(CheckDeletionsError::Bucket(_))), "{ended:?}");
    assert_eq!(metrics.last(Metric::DeletedObjects), Some(1.0));
    assert!(report(&bucket, HOUR_3).is_some() && bucket.text("deleted/_state.json").is_some());
}

#[tokio::test]
async fn any_failing_call_fails_the_run_and_the_next_one_finds_the_same() {
    for call in 1..240 {
        let bucket = sealed().await;
        delete(&bucket, &data(&bucket, hour(3))[0]);
        bucket.fails_from.set(Some(bucket.calls.get() + call));
        let ended = check_within(&bucket, NOON, Duration::from_secs(60)).await;
        bucket.fails_from.set(None);
        assert_eq!(check(&bucket, NOON).await, 1.0, "after {ended:?} at call {call}");
    }
}
