//! Hours that are not whole: no `_SUCCESS`, once they are due `_INCOMPLETE`, and `_SUCCESS` by itself when they are.

use std::rc::Rc;

use generators::sabotage::asked_for;
use rstest::rstest;

use super::*;
use crate::manifest::{accepted_key, broken_key, held_key, incomplete_key, late_key};

const HOUR: &str = "dt=2026-11-21/hour=09";
const SUCCESS: &str = "events/dt=2026-11-21/hour=09/_SUCCESS";
const BATCH: &str = "aws/lambda/4a8f/shardId-000000000000/2026/11/21/2026-11-21T10.12.08-9b1c";
const PLAIN: &str = "events/dt=2026-11-21/hour=09/shardId-000000000002-1.jsonl.bz2";

/// What an hour lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    UnreadRecords,
    UnlandedRecords,
    GivenBack,
    FailedInvocation,
    ThrottledInvocation,
    FailedBatch,
    UnreadableObject,
    BrokenObject,
    MissingRecords,
}

impl Lack {
    const ALL: [Self; 9] = [
        Self::UnreadRecords,
        Self::UnlandedRecords,
        Self::GivenBack,
        Self::FailedInvocation,
        Self::ThrottledInvocation,
        Self::FailedBatch,
        Self::UnreadableObject,
        Self::BrokenObject,
        Self::MissingRecords,
    ];

    const fn what(self) -> &'static str {
        match self {
            Self::UnreadRecords => "unread_records",
            Self::UnlandedRecords => "unlanded_records",
            Self::GivenBack | Self::FailedInvocation | Self::ThrottledInvocation => "failing_batches",
            Self::FailedBatch => "failed_batches",
            Self::UnreadableObject => "unreadable_objects",
            Self::BrokenObject => "broken_objects",
            Self::MissingRecords => "missing_records",
        }
    }
}

/// A bucket whose newest hour is 09 with two events, and what is around it.
struct World {
    bucket: MemoryBucket,
    failed_batches: MemoryBucket,
    metrics: MemoryMetrics,
}

impl World {
    fn new() -> Self {
        let world = Self {
            bucket: MemoryBucket::default(),
            failed_batches: MemoryBucket::default(),
            metrics: MemoryMetrics::default(),
        };
        land(&world.bucket, Kind::Event, hour(9), 0, (100, 101));
        world
    }

    fn put_value(&self, namespace: &'static str, name: &'static str, at: UnixMillis, value: f64) {
        let dimension =
            if namespace == "AWS/Kinesis" { ("StreamName", "event-stream") } else { ("FunctionName", "landing") };
        let dimensions = vec![(dimension.0.to_owned(), dimension.1.to_owned())];
        self.metrics.values.borrow_mut().push(crate::tests::memory_metrics::Value {
            namespace,
            name,
            dimensions,
            at,
            value,
        });
    }

    /// A run at which this is lacking.
    async fn run(&self, time: &str, lack: Option<Lack>) {
        self.metrics.values.borrow_mut().clear();
        self.run_with_values(time, lack).await;
    }

    /// Records arrived in the hour, at a minute of it.
    fn put_arrived(&self, minute: i64, records: f64) {
        let at = UnixMillis(hour(9).start().0 + minute * MILLIS_PER_MINUTE);
        self.put_value("AWS/Kinesis", "IncomingRecords", at, records);
    }

    /// With the values that exist, too. `SABOTAGE` names a lack that the run does not see.
    async fn run_with_values(&self, time: &str, lack: Option<Lack>) {
        let lack = lack.filter(|lack| asked_for(Lack::ALL) != Some(*lack));
        let now = at(time);
        let just_now = UnixMillis(now.0 - 2 * MILLIS_PER_MINUTE);
        match lack {
            Some(Lack::UnreadRecords) => {
                // Most reads of the minute were at the tip.
                put_iterator_age(&self.metrics, just_now, 0);
                put_iterator_age(&self.metrics, just_now, 60 * 24);
            }
            Some(Lack::MissingRecords) => self.put_value("AWS/Kinesis", "IncomingRecords", hour(9).start(), 3.0),
            _ => catch_up(&self.metrics, now),
        }
        match lack {
            Some(Lack::GivenBack) => self.put_value("Playhead", "GivenBackBatches", just_now, 1.0),
            Some(Lack::FailedInvocation) => {
                self.put_value("AWS/Lambda", "Errors", just_now, 0.0);
                self.put_value("AWS/Lambda", "Errors", just_now, 1.0);
            }
            Some(Lack::ThrottledInvocation) => self.put_value("AWS/Lambda", "Throttles", just_now, 1.0),
            Some(Lack::UnlandedRecords) => {
                self.put_value("AWS/Lambda", "IteratorAge", just_now, 0.0);
                self.put_value("AWS/Lambda", "IteratorAge", just_now, (24 * 60 * MILLIS_PER_MINUTE) as f64);
            }
            _ => {}
        }
        self.set(
            Some(Lack::FailedBatch) == lack,
            &self.failed_batches,
            BATCH,
            r#"{"KinesisBatchInfo":{
            "approximateArrivalOfFirstRecord":"2026-11-21T09:10:00.000Z",
            "approximateArrivalOfLastRecord":"2026-11-21T09:11:00.000Z"},"payload":""}"#,
        );
        self.set(Some(Lack::UnreadableObject) == lack, &self.bucket, PLAIN, "x");
        let broken = broken_key("events/dt=2026-11-21/hour=09/shardId-000000000000-100.jsonl.bz2");
        self.set(Some(Lack::BrokenObject) == lack, &self.bucket, &broken, "{}");
        handler(&self.bucket, &self.failed_batches, &self.metrics)
            .run(now, None, &|| false, "seal-partition")
            .await
            .unwrap();
    }

    fn set(&self, is_there: bool, bucket: &MemoryBucket, key: &str, body: &'static str) {
        if is_there {
            bucket.insert(key, body, HashMap::new());
        } else {
            bucket.objects.borrow_mut().remove(key);
        }
    }

    fn has(&self, key: &str) -> bool {
        self.bucket.text(key).is_some()
    }

    fn is_sealed(&self) -> bool {
        self.has(SUCCESS)
    }

    fn incomplete(&self) -> Option<Value> {
        let text = self.bucket.text(&incomplete_key(HOUR))?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// As tools/scripts/accept-hour does.
    fn accept(&self, reason: &str) {
        let missing = &self.incomplete().unwrap()["missing"];
        let accepted = serde_json::json!({"by": "kim", "reason": reason, "missing": missing}).to_string();
        self.bucket.insert(&accepted_key(HOUR), accepted, HashMap::new());
    }

    fn level(&self) -> Option<f64> {
        self.metrics.last(Metric::IncompletePartitions)
    }
}

/// `_SUCCESS` of an hour means that every record which arrived in it has landed and can be read, or that a person has
/// accepted the hour as it is.
#[rstest]
#[case(Lack::UnreadRecords)]
#[case(Lack::UnlandedRecords)]
#[case(Lack::GivenBack)]
#[case(Lack::FailedInvocation)]
#[case(Lack::ThrottledInvocation)]
#[case(Lack::FailedBatch)]
#[case(Lack::UnreadableObject)]
#[case(Lack::BrokenObject)]
#[case(Lack::MissingRecords)]
#[tokio::test]
async fn an_incomplete_hour_is_held_back_until_it_is_whole(#[case] lack: Lack) {
    let world = World::new();
    world.run("2026-11-21T10:20:00.000Z", Some(lack)).await;
    assert!(!world.is_sealed() && world.incomplete().is_none(), "not due yet");
    assert_eq!(world.level(), Some(0.0));
    for time in ["2026-11-21T10:40:00.000Z", "2026-11-21T10:50:00.000Z"] {
        world.run(time, Some(lack)).await;
        let incomplete = world.incomplete().unwrap();
        assert_eq!(
            (&incomplete["since"], &incomplete["partition"]),
            (&"2026-11-21T10:40:00.000Z".into(), &HOUR.into())
        );
        assert_eq!(incomplete["missing"][0]["what"], lack.what());
        assert_eq!(incomplete["missing"].as_array().unwrap().len(), 1);
        assert!(!world.is_sealed());
        assert_eq!(world.level(), Some(1.0));
    }
    // What was missing lands, which is late.
    land(&world.bucket, Kind::Event, hour(9), 0, (200, 209));
    put_late(&world.bucket, hour(9));
    world.run("2026-11-21T11:00:00.000Z", None).await;
    let success = success(&world.bucket, HOUR);
    assert_eq!((&success["totals"]["events"], &success["late_objects"]), (&12.into(), &0.into()));
    assert_eq!(success["accepted"], Value::Null);
    assert_eq!(world.incomplete(), None);
    assert_eq!(world.level(), Some(0.0));
    assert!(!world.bucket.keys().iter().any(|key| key.starts_with("late/") || key.starts_with("sealing/")));
}

#[tokio::test]
async fn an_hour_without_traffic_is_sealed_on_time() {
    let world = World::new();
    world.run("2026-11-21T11:20:00.000Z", None).await;
    assert_eq!(success(&world.bucket, "dt=2026-11-21/hour=10")["totals"]["objects"], 0);
}

#[tokio::test]
async fn without_any_value_of_the_stream_the_due_time_decides() {
    let world = World::new();
    let run = async |time: &str| {
        handler(&world.bucket, &world.failed_batches, &world.metrics)
            .run(at(time), None, &|| false, "f")
            .await
            .unwrap();
    };
    run("2026-11-21T10:20:00.000Z").await;
    assert!(!world.is_sealed());
    run("2026-11-21T10:40:00.000Z").await;
    assert!(world.is_sealed() && world.incomplete().is_none());
}

#[tokio::test]
async fn without_the_age_an_hour_that_has_all_arrived_records_is_sealed() {
    let world = World::new();
    world.put_value("AWS/Kinesis", "IncomingRecords", hour(9).start(), 2.0);
    handler(&world.bucket, &world.failed_batches, &world.metrics)
        .run(at("2026-11-21T10:20:00.000Z"), None, &|| false, "f")
        .await
        .unwrap();
    assert!(world.is_sealed());
}

#[rstest]
#[case::other_consumers_lag(Lack::UnreadRecords, true)]
#[case::a_batch_was_given_back(Lack::GivenBack, true)]
#[case::landing_failed(Lack::FailedInvocation, true)]
#[case::landing_was_throttled(Lack::ThrottledInvocation, true)]
#[case::landing_itself_is_behind(Lack::UnlandedRecords, false)]
#[case::a_batch_was_given_up(Lack::FailedBatch, false)]
#[case::an_object_is_broken(Lack::BrokenObject, false)]
#[tokio::test]
async fn an_hour_that_has_all_arrived_records_is_sealed_whatever_lags(#[case] lack: Lack, #[case] is_sealed: bool) {
    let world = World::new();
    world.put_arrived(30, 2.0);
    world.run_with_values("2026-11-21T10:20:00.000Z", Some(lack)).await;
    assert_eq!(world.is_sealed(), is_sealed);
}

/// The mapping is disabled, and nobody posts: no value shows that landing has read the hour.
#[tokio::test]
async fn missing_records_of_an_hour_not_known_to_be_read_may_still_land() {
    let world = World::new();
    world.put_arrived(30, 3.0);
    handler(&world.bucket, &world.failed_batches, &world.metrics)
        .run(at("2026-11-21T10:40:00.000Z"), None, &|| false, "f")
        .await
        .unwrap();
    let missing = world.incomplete().unwrap()["missing"].clone();
    let names: Vec<_> = missing.as_array().unwrap().iter().map(|missing| missing["what"].clone()).collect();
    assert_eq!(names, ["missing_records", "unknown_progress"]);
}

#[rstest]
#[case::in_the_middle(30, 3.0, false)]
#[case::in_the_minute_before_the_full_hour(59, 3.0, true)]
#[case::a_minute_before_that(58, 3.0, false)]
#[case::in_the_minute_after_the_full_hour(0, 3.0, true)]
#[case::a_minute_after_that(1, 3.0, false)]
#[tokio::test]
async fn missing_records_hold_back_an_hour_that_has_been_read(
    #[case] minute: i64,
    #[case] arrived: f64,
    #[case] is_sealed: bool,
) {
    let world = World::new();
    world.put_arrived(minute, arrived);
    world.run_with_values("2026-11-21T10:40:00.000Z", None).await;
    assert_eq!(world.is_sealed(), is_sealed);
    let what = world.incomplete().map(|incomplete| incomplete["missing"][0]["what"].clone());
    assert_eq!(what, (!is_sealed).then(|| "missing_records".into()));
}

/// The mapping is disabled just before the full hour, and another consumer reads the stream.
#[rstest]
#[case::records_arrive(Some(9), None, false)]
#[case::they_arrived_before_what_is_looked_at(Some(16), None, true)]
#[case::landing_may_not_have_been_invoked_for_them_yet(Some(8), None, true)]
#[case::landing_is_invoked(Some(9), Some(8), true)]
#[case::nothing_arrives(None, None, true)]
#[tokio::test]
async fn records_around_the_full_hour_are_owed_while_others_arrive_and_landing_is_not_invoked(
    #[case] arrived_ago: Option<i64>,
    #[case] invoked_ago: Option<i64>,
    #[case] is_sealed: bool,
) {
    let (world, time) = (World::new(), "2026-11-21T10:40:00.000Z");
    let ago = |minutes: i64| UnixMillis(at(time).0 - minutes * MILLIS_PER_MINUTE);
    world.put_arrived(59, 3.0);
    arrived_ago.iter().for_each(|minutes| world.put_value("AWS/Kinesis", "IncomingRecords", ago(*minutes), 1.0));
    invoked_ago.iter().for_each(|minutes| world.put_value("AWS/Lambda", "IteratorAge", ago(*minutes), 0.0));
    world.run_with_values(time, None).await;
    assert_eq!(world.is_sealed(), is_sealed);
    let what = world.incomplete().map(|incomplete| incomplete["missing"][0]["what"].clone());
    assert_eq!(what, (!is_sealed).then(|| "idle_landing".into()));
}

/// As a job of a reader's writes it that puts its output into the hour, or an editor.
#[rstest]
#[case::empty("", Lack::FailedBatch)]
#[case::found_by_the_listing("", Lack::MissingRecords)]
#[case::cut(r#"{"v":1,"partition":"dt=2026-11-21/hour=09""#, Lack::UnreadableObject)]
#[tokio::test]
async fn a_foreign_success_is_removed_from_an_incomplete_hour(#[case] text: &'static str, #[case] lack: Lack) {
    let world = World::new();
    for (time, is_due) in [("2026-11-21T10:20:00.000Z", false), ("2026-11-21T10:40:00.000Z", true)] {
        world.bucket.insert(SUCCESS, text, HashMap::new());
        world.run(time, Some(lack)).await;
        assert!(!world.has(SUCCESS));
        assert_eq!(world.incomplete().is_some(), is_due);
    }
    world.bucket.insert(SUCCESS, text, HashMap::new());
    world.run("2026-11-21T10:50:00.000Z", None).await;
    assert_eq!(success(&world.bucket, HOUR)["totals"]["events"], 2);
    assert_eq!(world.incomplete(), None);
}

#[tokio::test]
async fn a_success_written_by_a_concurrent_run_is_not_removed() {
    let world = World::new();
    world.bucket.insert(SUCCESS, "", HashMap::new());
    world.bucket.meanwhile.replace(Some(Box::new(|bucket, operation, key| {
        if (operation, key) == ("DELETE", SUCCESS) {
            bucket.insert(SUCCESS, "another run's", HashMap::new());
        }
    })));
    world.run("2026-11-21T10:20:00.000Z", Some(Lack::FailedBatch)).await;
    assert_eq!(world.bucket.text(SUCCESS).unwrap(), "another run's");
}

#[tokio::test]
async fn a_foreign_success_is_removed_from_a_date_with_an_incomplete_hour() {
    let world = World::new();
    (0..24).for_each(|number| drop(land(&world.bucket, Kind::Event, hour(number), 1, (500, 501))));
    world.bucket.insert("events/dt=2026-11-21/_SUCCESS", "", HashMap::new());
    world.run("2026-11-22T00:40:00.000Z", Some(Lack::BrokenObject)).await;
    assert!(!world.has("events/dt=2026-11-21/_SUCCESS"));
    world.run("2026-11-22T00:50:00.000Z", None).await;
    assert_eq!(success(&world.bucket, "dt=2026-11-21")["totals"]["events"], 50);
}

/// Records that are in two objects do not make up for missing ones.
#[rstest]
#[case::in_another_object(1, false)]
#[case::of_another_shard(2, true)]
#[tokio::test]
async fn records_that_landed_twice_count_once(#[case] shard: u8, #[case] is_sealed: bool) {
    let world = World::new();
    land(&world.bucket, Kind::Event, hour(9), 1, (200, 207));
    land(&world.bucket, Kind::Event, hour(9), shard, (202, 205));
    world.put_arrived(30, 14.0);
    world.run_with_values("2026-11-21T10:20:00.000Z", None).await;
    assert_eq!(world.is_sealed(), is_sealed);
}

/// Metrics of Lambda have the time at which the invocation began.
#[rstest]
#[case::of_a_batch_that_may_just_have_been_sent_again(11 * MILLIS_PER_MINUTE, false)]
#[case::long_over(11 * MILLIS_PER_MINUTE + 1, true)]
#[tokio::test]
async fn a_failure_counts_for_the_timeout_and_ten_minutes(#[case] ago: i64, #[case] is_sealed: bool) {
    let (world, time) = (World::new(), "2026-11-21T10:20:00.000Z");
    world.put_value("AWS/Lambda", "Errors", UnixMillis(at(time).0 - ago), 1.0);
    world.run_with_values(time, None).await;
    assert_eq!(world.is_sealed(), is_sealed);
}

#[tokio::test]
async fn a_batch_of_another_hour_holds_nothing_back() {
    let world = World::new();
    let body = r#"{"KinesisBatchInfo":{"approximateArrivalOfFirstRecord":"2026-11-21T10:00:00.000Z",
        "approximateArrivalOfLastRecord":"2026-11-21T10:11:00.000Z"}}"#;
    world.failed_batches.insert(BATCH, body, HashMap::new());
    run_with(&world, "2026-11-21T10:20:00.000Z").await;
    assert!(world.is_sealed());
}

async fn run_with(world: &World, time: &str) {
    catch_up(&world.metrics, at(time));
    handler(&world.bucket, &world.failed_batches, &world.metrics).run(at(time), None, &|| false, "f").await.unwrap();
}

/// Each run lists the held hours again, and has time for two of them.
#[tokio::test]
async fn slow_held_hours_delay_no_whole_hour_and_the_runs_end() {
    let world = World::new();
    for of_day in 4..9 {
        land(&world.bucket, Kind::Event, hour(of_day), 0, (100, 101));
        let middle = UnixMillis(hour(of_day).start().0 + 30 * MILLIS_PER_MINUTE);
        world.put_value("AWS/Kinesis", "IncomingRecords", middle, 3.0);
    }
    world.put_arrived(30, 2.0);
    run_with(&world, "2026-11-21T09:50:00.000Z").await;
    assert_eq!(world.level(), Some(5.0));

    catch_up(&world.metrics, at("2026-11-21T10:20:00.000Z"));
    let listed = Rc::new(Cell::new(0));
    let counted = listed.clone();
    world.bucket.meanwhile.replace(Some(Box::new(move |_, operation, key| {
        let is_hour = operation == "listing" && key.starts_with("events/dt=2026-11-21/hour=0");
        counted.set(counted.get() + usize::from(is_hour));
    })));
    let mut event = serde_json::json!({"time": "2026-11-21T10:20:00Z"});
    let mut looked_at = 0;
    for invocation in 1.. {
        assert!(invocation < 10, "there is no end");
        listed.set(0);
        let handler = handler(&world.bucket, &world.failed_batches, &world.metrics);
        let invocation_event = serde_json::from_value(std::mem::take(&mut event)).unwrap();
        handler.invoke(invocation_event, &|| listed.get() >= 2, "f").await.unwrap();
        looked_at += listed.get();
        assert!(world.is_sealed() || invocation == 1, "whole hours come first");
        let Some(marker) = marker_event(&world) else { break };
        event = marker;
    }
    assert!(looked_at >= 6, "{looked_at}: the held ones are looked at, too");
    assert_eq!(world.level(), Some(5.0));
}

/// As S3 sends it when a marker is put.
fn marker_event(world: &World) -> Option<Value> {
    let key = world.bucket.keys().into_iter().find(|key| key.starts_with("sealing/") && key.ends_with(".json"))?;
    let record = serde_json::json!({"eventTime": NIGHT, "s3": {"bucket": {"name": "b"}, "object": {"key": key}}});
    Some(serde_json::json!({"Records": [record]}))
}

/// A broken object has all of its records: others that are missing are not its own.
#[tokio::test]
async fn accepting_a_broken_object_does_not_accept_missing_records() {
    let world = World::new();
    world.put_arrived(30, 2.0);
    world.run_with_values("2026-11-21T10:40:00.000Z", Some(Lack::BrokenObject)).await;
    world.accept("a copy");
    world.put_arrived(30, 7.0);
    world.run_with_values("2026-11-21T10:50:00.000Z", Some(Lack::BrokenObject)).await;
    assert!(!world.is_sealed());
    let missing = world.incomplete().unwrap()["missing"].clone();
    assert_eq!(missing[1], serde_json::json!({"what": "missing_records", "arrived": 9, "landed": 2}));
    world.accept("those too");
    world.run_with_values("2026-11-21T11:00:00.000Z", Some(Lack::BrokenObject)).await;
    assert!(world.is_sealed());
}

#[tokio::test]
async fn a_date_waits_for_its_hours_whatever_their_age() {
    let world = World::new();
    for number in 0..24 {
        land(&world.bucket, Kind::Event, hour(number), 1, (500, 501));
    }
    world.run("2026-11-22T00:40:00.000Z", Some(Lack::BrokenObject)).await;
    assert_eq!(world.level(), Some(1.0));
    assert!(world.has("events/dt=2026-11-21/hour=10/_SUCCESS") && !world.has("events/dt=2026-11-21/_SUCCESS"));
    // Further back than a run looks by itself.
    world.run("2026-11-29T00:40:00.000Z", Some(Lack::BrokenObject)).await;
    assert_eq!(world.level(), Some(1.0));
    world.run("2026-11-29T00:50:00.000Z", None).await;
    assert!(world.is_sealed() && world.has("events/dt=2026-11-21/_SUCCESS"));
}

#[tokio::test]
async fn an_unreadable_object_costs_no_further_listing() {
    let world = World::new();
    for number in 0..50 {
        land(&world.bucket, Kind::Event, hour(9), 3, (1_000 + 10 * number, 1_009 + 10 * number));
    }
    world.run("2026-11-21T10:40:00.000Z", Some(Lack::UnreadableObject)).await;
    assert_eq!(world.incomplete().unwrap()["missing"][0]["keys"], serde_json::json!([PLAIN]));
    world.bucket.calls_by_operation.take();
    world.run("2026-11-21T10:50:00.000Z", Some(Lack::UnreadableObject)).await;
    assert!(world.bucket.calls_by_operation.borrow()["HEAD"] < 5);
}

#[tokio::test]
async fn an_accepted_hour_says_who_accepted_it_and_what_was_missing_until_it_is_whole() {
    let world = World::new();
    world.run("2026-11-21T10:40:00.000Z", Some(Lack::FailedBatch)).await;
    world.accept("the batch is of a test");
    world.run("2026-11-21T10:50:00.000Z", Some(Lack::FailedBatch)).await;
    let accepted = &success(&world.bucket, HOUR)["accepted"];
    assert_eq!((&accepted["by"], &accepted["reason"]), (&"kim".into(), &"the batch is of a test".into()));
    assert_eq!(accepted["missing"][0]["what"], "failed_batches");
    assert_eq!((world.incomplete(), world.level()), (None, Some(0.0)));

    // Redriven in two pieces: the second one makes it whole.
    for (time, lack, is_accepted) in
        [("2026-11-21T11:00:00.000Z", Some(Lack::FailedBatch), true), ("2026-11-21T11:10:00.000Z", None, false)]
    {
        let first = if is_accepted { 300 } else { 400 };
        land(&world.bucket, Kind::Event, hour(9), 0, (first, first));
        put_late(&world.bucket, hour(9));
        world.run(time, lack).await;
        let success = success(&world.bucket, HOUR);
        assert_eq!(success["accepted"].is_object(), is_accepted);
        assert_eq!(success["sealed_at"], time);
    }
}

#[rstest]
#[case::the_same(Lack::BrokenObject, true)]
#[case::a_batch_that_was_given_up(Lack::FailedBatch, false)]
#[case::landing_is_behind(Lack::UnlandedRecords, false)]
#[tokio::test]
async fn an_acceptance_covers_only_what_was_known(#[case] later: Lack, #[case] is_sealed: bool) {
    let world = World::new();
    world.run("2026-11-21T10:40:00.000Z", Some(Lack::BrokenObject)).await;
    world.accept("a copy");
    world.run("2026-11-21T10:50:00.000Z", Some(later)).await;
    assert_eq!(world.is_sealed(), is_sealed);
    if !is_sealed {
        world.accept("that too");
        world.run("2026-11-21T11:00:00.000Z", Some(later)).await;
        assert!(world.is_sealed());
    }
}

#[rstest]
#[case::no_json("{")]
#[case::of_nothing(r#"{"by":"kim","reason":"r"}"#)]
#[tokio::test]
async fn an_unreadable_acceptance_accepts_nothing(#[case] text: &'static str) {
    let world = World::new();
    world.bucket.insert(&accepted_key(HOUR), text, HashMap::new());
    world.run("2026-11-21T10:40:00.000Z", Some(Lack::BrokenObject)).await;
    assert!(!world.is_sealed() && world.incomplete().is_some());
}

/// Whatever call it is that the run is killed at: the hours of the date are older than a run looks back by itself.
#[tokio::test]
async fn after_a_crash_the_date_of_an_hour_that_was_held_back_is_sealed() {
    let held = World::new();
    (0..24).filter(|number| *number != 9).for_each(|number| {
        land(&held.bucket, Kind::Event, hour(number), 1, (500, 501));
    });
    for time in ["2026-11-22T00:40:00.000Z", "2026-11-29T00:30:00.000Z"] {
        held.run(time, Some(Lack::BrokenObject)).await;
    }
    held.bucket.objects.borrow_mut().retain(|key, _| !key.starts_with("broken/"));
    for call in 1.. {
        let world = World::new();
        world.bucket.objects.replace(held.bucket.objects.borrow().clone());
        let time = "2026-11-29T00:40:00.000Z";
        catch_up(&world.metrics, at(time));
        world.bucket.fails_from.set(Some(call));
        let killed =
            handler(&world.bucket, &world.failed_batches, &world.metrics).run(at(time), None, &|| false, "f").await;
        world.bucket.fails_from.set(None);
        world.run("2026-11-29T00:50:00.000Z", None).await;
        assert!(world.has("events/dt=2026-11-21/_SUCCESS"), "killed at call {call}");
        assert!(!world.has(&held_key(HOUR)) && world.incomplete().is_none(), "killed at call {call}");
        if killed.is_ok() {
            return;
        }
    }
}

#[tokio::test]
async fn late_objects_are_added_and_never_unseal_an_hour() {
    let world = World::new();
    world.run("2026-11-21T10:20:00.000Z", None).await;
    put_late(&world.bucket, hour(9));
    world.run("2026-11-21T10:40:00.000Z", Some(Lack::UnreadableObject)).await;
    let success = success(&world.bucket, HOUR);
    assert_eq!((&success["totals"]["unreadable_objects"], &success["late_objects"]), (&1.into(), &1.into()));
    assert_eq!(world.incomplete(), None);
}

/// Whatever call it is that a run which holds back, or lets go, is killed at.
#[tokio::test]
async fn a_killed_run_leaves_no_incomplete_beside_success() {
    for call in 1..60 {
        let world = World::new();
        let kill = async |time: &str| {
            catch_up(&world.metrics, at(time));
            let calls = world.bucket.calls.get();
            world.bucket.fails_from.set(Some(calls + call));
            let handler = handler(&world.bucket, &world.failed_batches, &world.metrics);
            let ended = handler.run(at(time), None, &|| false, "f").await;
            world.bucket.fails_from.set(None);
            ended.is_err()
        };
        world.bucket.insert(PLAIN, "x", HashMap::new());
        let held_was_killed = kill("2026-11-21T10:40:00.000Z").await;
        world.run("2026-11-21T10:50:00.000Z", Some(Lack::UnreadableObject)).await;
        assert!(world.incomplete().is_some() && world.has(&held_key(HOUR)), "killed at call {call}");
        world.bucket.objects.borrow_mut().remove(PLAIN);
        let released_was_killed = kill("2026-11-21T11:00:00.000Z").await;
        world.run("2026-11-21T11:10:00.000Z", None).await;
        assert!(world.is_sealed() && !world.has(&incomplete_key(HOUR)), "killed at call {call}");
        assert!(!world.has(&held_key(HOUR)) && !world.has(&late_key(HOUR)), "killed at call {call}");
        if !held_was_killed && !released_was_killed {
            return;
        }
    }
    panic!("there is no end");
}
