use std::collections::HashMap;

use super::*;
use crate::store::Counted;
use lambda_setup::memory_bucket::MemoryBucket;
use proptest::prelude::*;
use rstest::rstest;
use shared::object::object_key;

fn now() -> UnixMillis {
    UnixMillis::parse("2026-11-21T12:55:00.000Z").unwrap()
}

const FIRST: &str = "49590338271490256608559692538361571095";

fn object(bucket: &MemoryBucket, kind: Kind, hour: UtcHour, shard: usize, number: u64) -> String {
    let key = object_key(kind, hour, &format!("shardId-{shard:012}"), &format!("{FIRST}{number:018}"));
    bucket.insert(&key, "x", HashMap::new());
    key
}

async fn newest(bucket: &MemoryBucket, follower: &mut Follower) -> Vec<String> {
    newest_behind(bucket, follower, None).await
}

/// While all of the stream has been read up to the beginning of an hour.
async fn newest_behind(bucket: &MemoryBucket, follower: &mut Follower, behind: Option<UtcHour>) -> Vec<String> {
    let store = Counted::new(bucket);
    follower.look(&store, now(), behind.map(UtcHour::start)).await.unwrap();
    let mut keys: Vec<String> = follower.recent().iter().map(|one| one.key.clone()).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn the_end_of_a_large_hour_is_found_in_few_requests_and_followed_with_three() {
    let bucket = MemoryBucket::default();
    bucket.page_size.set(Some(10));
    let mut keys: Vec<String> = Vec::new();
    for number in 0..2_000 {
        keys.push(object(&bucket, Kind::Event, now().hour(), 0, 1_000 + number * 37));
    }
    let mut follower = Follower::new(Kind::Event);
    let found = newest(&bucket, &mut follower).await;
    assert_eq!(found.last(), keys.last());
    assert!(bucket.calls.get() < 40, "{} requests for 2,000 objects on 200 pages", bucket.calls.get());
    bucket.calls.set(0);
    keys.push(object(&bucket, Kind::Event, now().hour(), 0, 999_999));
    assert_eq!(newest(&bucket, &mut follower).await.last(), keys.last());
    // Shards, the series and spilled objects, of this hour and the one before, which has no shards.
    assert_eq!(bucket.calls.get(), 5);
}

#[tokio::test]
async fn objects_of_all_shards_and_of_the_hour_before_are_found_and_an_older_hour_is_left_out() {
    let bucket = MemoryBucket::default();
    let hour = now().hour();
    let keys = [
        object(&bucket, Kind::Event, hour.plus(-1), 0, 1),
        object(&bucket, Kind::Event, hour, 0, 2),
        object(&bucket, Kind::Event, hour, 3, 1),
    ];
    object(&bucket, Kind::Event, hour.plus(-2), 0, 1);
    object(&bucket, Kind::Rejected, hour, 0, 1);
    let mut found = newest(&bucket, &mut Follower::new(Kind::Event)).await;
    found.sort();
    let mut expected = keys.to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn without_objects_the_hours_before_are_searched_once() {
    let bucket = MemoryBucket::default();
    let mut follower = Follower::new(Kind::Rejected);
    assert!(newest(&bucket, &mut follower).await.is_empty());
    assert_eq!(bucket.calls.replace(0), 2 * 49);
    assert!(newest(&bucket, &mut follower).await.is_empty());
    assert_eq!(bucket.calls.get(), 4);
}

#[tokio::test]
async fn after_a_gap_it_starts_anew_at_the_newest() {
    let bucket = MemoryBucket::default();
    let mut follower = Follower::new(Kind::Event);
    object(&bucket, Kind::Event, now().hour(), 0, 1);
    assert_eq!(newest(&bucket, &mut follower).await.len(), 1);
    let later = UnixMillis(now().hour().plus(40).start().0);
    let last = object(&bucket, Kind::Event, later.hour(), 0, 2);
    bucket.calls.set(0);
    follower.look(&Counted::new(&bucket), later, None).await.unwrap();
    assert_eq!(follower.recent().iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), [last]);
    assert!(bucket.calls.get() <= 6, "{}", bucket.calls.get());
}

#[tokio::test]
async fn the_newest_of_many_spilled_objects_are_found_and_do_not_count_as_landed() {
    let bucket = MemoryBucket::default();
    bucket.page_size.set(Some(10));
    let mut last = String::new();
    for number in 0..500_i64 {
        let at = now().0 - (500 - number) * 1_000;
        last = format!("events/{}/{SPILL_PREFIX}{at:012x}{number:020x}.jsonl.bz2", now().hour().partition());
        bucket.insert(&last, "x", HashMap::new());
    }
    let mut follower = Follower::new(Kind::Event);
    assert!(newest(&bucket, &mut follower).await.contains(&last));
    assert_eq!(follower.landed(), None);
    object(&bucket, Kind::Event, now().hour(), 0, 1);
    newest(&bucket, &mut follower).await;
    assert!(follower.landed().is_some());
}

/// After an outage of half a day, say: what came onto the stream then lands in the hours in which it came.
#[tokio::test]
async fn what_lands_in_old_hours_is_found_while_landing_catches_up() {
    let (bucket, mut follower) = (MemoryBucket::default(), Follower::new(Kind::Event));
    let last = now().hour();
    let behind = last.plus(-12);
    newest_behind(&bucket, &mut follower, Some(behind)).await;
    for back in [12, 11] {
        let key = object(&bucket, Kind::Event, last.plus(-back), 0, 1);
        assert!(newest_behind(&bucket, &mut follower, Some(behind)).await.contains(&key), "{back} hours before");
    }
    // Of the nine hours between these and the newest two, two a look.
    let keys: Vec<String> = (2..11).map(|back| object(&bucket, Kind::Event, last.plus(-back), 1, 1)).collect();
    bucket.calls.set(0);
    for _ in 0..5 {
        newest_behind(&bucket, &mut follower, Some(behind)).await;
    }
    let found = newest_behind(&bucket, &mut follower, Some(behind)).await;
    assert!(keys.iter().all(|key| found.contains(key)), "{found:?}");
    // Four of the newest hours, two of each of the oldest two, and at most two of each of two others.
    assert!(bucket.calls.get() <= 6 * 12, "{}", bucket.calls.get());
    // It has caught up: nothing is kept of the old hours, and a look is as it was.
    bucket.calls.set(0);
    newest_behind(&bucket, &mut follower, Some(last.plus(-1))).await;
    assert_eq!((bucket.calls.get(), follower.hours.len()), (4, 2));
}

#[tokio::test]
async fn what_is_found_again_is_kept_once() {
    let (bucket, mut follower) = (MemoryBucket::default(), Follower::new(Kind::Event));
    let behind = now().hour().plus(-5);
    let key = object(&bucket, Kind::Event, behind, 0, 1);
    assert_eq!(newest(&bucket, &mut follower).await, std::slice::from_ref(&key));
    assert_eq!(newest_behind(&bucket, &mut follower, Some(behind)).await, [key]);
}

#[tokio::test]
async fn spilled_objects_of_old_hours_are_not_searched_for() {
    let (bucket, mut follower) = (MemoryBucket::default(), Follower::new(Kind::Event));
    let behind = now().hour().plus(-3);
    newest_behind(&bucket, &mut follower, Some(behind)).await;
    bucket.calls.set(0);
    newest_behind(&bucket, &mut follower, Some(behind)).await;
    assert_eq!(bucket.calls.get(), 4 + 2);
}

#[rstest]
#[case::unknown(None, &[])]
#[case::the_hour_before(Some(1), &[])]
#[case::two_hours(Some(2), &[2])]
#[case::five_hours(Some(5), &[5, 4, 3, 2])]
#[case::more_than_are_looked_at(Some(6), &[6, 5, 4, 3])]
#[case::at_the_bound(Some(MAX_BACKLOG_HOURS), &[168, 167, 166, 165])]
#[case::one_past_it(Some(MAX_BACKLOG_HOURS + 1), &[168, 167, 166, 165])]
#[case::ahead_of_the_clock(Some(-1), &[])]
fn four_hours_of_a_backlog_are_looked_at(#[case] behind: Option<i64>, #[case] expected: &[i64]) {
    let last = now().hour();
    let backlog = backlog(behind.map(|back| last.plus(-back).start()), last);
    let due = Follower::new(Kind::Event).due(&backlog);
    assert_eq!(due, expected.iter().map(|back| last.plus(-back)).collect::<Vec<_>>());
}

fn shards(bucket: &MemoryBucket, count: usize) -> Vec<String> {
    (0..count).map(|shard| object(bucket, Kind::Event, now().hour(), shard, 1)).collect()
}

/// How many looks find all of these, which are kept one by one.
async fn looks_that_find(bucket: &MemoryBucket, follower: &mut Follower, keys: &[String]) -> Option<usize> {
    let mut left: Vec<&String> = keys.iter().collect();
    for look in 1..=keys.len() {
        newest(bucket, follower).await;
        let known = follower.hours[&now().hour()].last_keys.values().collect::<Vec<_>>();
        left.retain(|key| !known.contains(key));
        if left.is_empty() {
            return Some(look);
        }
    }
    None
}

#[rstest]
#[case::at_the_bound(64, 1)]
#[case::one_past_it(65, 2)]
#[case::two_turns(128, 2)]
#[case::three_turns(129, 3)]
#[tokio::test]
async fn the_shards_of_a_large_stream_are_followed_in_turn(#[case] count: usize, #[case] looks: usize) {
    let (bucket, mut follower) = (MemoryBucket::default(), Follower::new(Kind::Event));
    let keys = shards(&bucket, count);
    assert_eq!(looks_that_find(&bucket, &mut follower, &keys).await, Some(looks));
    // And again from the first one.
    let newer: Vec<String> = (0..count).map(|shard| object(&bucket, Kind::Event, now().hour(), shard, 2)).collect();
    assert_eq!(looks_that_find(&bucket, &mut follower, &newer).await, Some(looks));
    assert!(!follower.has_more_shards());
}

#[tokio::test]
async fn what_is_no_shards_is_passed_over() {
    let (bucket, mut follower) = (MemoryBucket::default(), Follower::new(Kind::Event));
    for number in 0..SHARDS_A_LOOK {
        let key = format!("events/{}/shardId-!{number:03}", now().hour().partition());
        bucket.insert(&key, "x", HashMap::new());
    }
    let keys = shards(&bucket, 1);
    assert_eq!(looks_that_find(&bucket, &mut follower, &keys).await, None, "the first look is the others'");
    assert_eq!(looks_that_find(&bucket, &mut follower, &keys).await, Some(1));
}

#[rstest]
#[case::at_the_bound(MAX_SHARDS, false)]
#[case::one_past_it(MAX_SHARDS + 1, true)]
#[tokio::test]
async fn more_shards_than_are_followed_are_said(#[case] count: usize, #[case] has_more: bool) {
    let (bucket, mut follower) = (MemoryBucket::default(), Follower::new(Kind::Event));
    shards(&bucket, count);
    for _ in 0..=MAX_SHARDS / usize::from(SHARDS_A_LOOK) {
        newest(&bucket, &mut follower).await;
    }
    assert_eq!(follower.has_more_shards(), has_more);
    assert_eq!(
        follower.hours[&now().hour()].last_keys.keys().filter(|key| key.contains("shardId")).count(),
        MAX_SHARDS
    );
}

#[tokio::test]
async fn at_most_twenty_are_kept() {
    let bucket = MemoryBucket::default();
    (0..=20).for_each(|number| drop(object(&bucket, Kind::Event, now().hour(), 0, number)));
    assert_eq!(newest(&bucket, &mut Follower::new(Kind::Event)).await.len(), MAX_OBJECTS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_last_object_is_found_however_the_numbers_lie(gaps in prop::collection::vec(0u32..50, 1..400)) {
        let bucket = MemoryBucket::default();
        bucket.page_size.set(Some(10));
        let mut number = 0;
        let mut last = String::new();
        for gap in gaps {
            number += 1 + (1u64 << gap);
            last = object(&bucket, Kind::Event, now().hour(), 0, number % 1_000_000_000_000_000_000);
            last = last.max(bucket.keys().last().unwrap().clone());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut follower = Follower::new(Kind::Event);
        // What one look does not reach, the next ones do.
        let found = (0..20).any(|_| runtime.block_on(newest(&bucket, &mut follower)).contains(&last));
        prop_assert!(found);
    }
}
