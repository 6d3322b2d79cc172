//! The handler against a bucket and metrics in memory.

use std::sync::Arc;

use rstest::rstest;

use super::*;
use crate::manifest::Received;
use crate::success::tests::seal;
use crate::tests::memory_metrics::{MemoryMetrics, Value};
use lambda_setup::memory_bucket::MemoryBucket;

fn hour(of_day: i64) -> UtcHour {
    UtcHour::parse("dt=2026-11-21/hour=00").unwrap().plus(of_day)
}

/// At 12:50 the hours to 11 are sealed, each at its end: 10 is the newest that is balanced, and 5 the oldest.
fn event() -> ScheduledEvent {
    event_at("2026-11-21T12:50:00Z")
}

fn event_at(time: &str) -> ScheduledEvent {
    serde_json::from_value(serde_json::json!({ "time": time })).unwrap()
}

fn context() -> Context {
    let mut context = Context::default();
    context.env_config =
        Arc::new(lambda_runtime::Config { function_name: "check-completeness".into(), ..Default::default() });
    context
}

fn config(event_format: EventFormat) -> Config {
    Config {
        bucket_name: "landing".into(),
        stream_name: "events".into(),
        ingest_function_name: "ingest".into(),
        event_format,
    }
}

/// Each hour takes in 1,000 events of which ten land in the next, and 20 rejected lines.
fn totals() -> Totals {
    Totals {
        records: 102,
        events: 1_007,
        rejected: 20,
        events_received_in: Received { previous: 10, this: 990, next: 0, elsewhere: 7 },
        rejected_received_in: Received { this: 20, ..Received::default() },
        ..Totals::default()
    }
}

fn sealed(hours: std::ops::RangeInclusive<i64>) -> MemoryBucket {
    let bucket = MemoryBucket::default();
    for of_day in hours {
        seal_hour(&bucket, of_day, totals());
    }
    bucket
}

fn seal_hour(bucket: &MemoryBucket, of_day: i64, totals: Totals) {
    seal(bucket, Partition::Hour(hour(of_day)), hour(of_day).end(), totals);
}

fn value(namespace: &'static str, name: &'static str, dimension: (&str, &str), at: UnixMillis, value: f64) -> Value {
    Value { namespace, name, dimensions: vec![(dimension.0.into(), dimension.1.into())], at, value }
}

/// Sums of what the hours took in, in two pieces each.
fn sent() -> MemoryMetrics {
    let metrics = MemoryMetrics::default();
    for of_day in -340..13 {
        for minute in [0, 59] {
            let at = UnixMillis(hour(of_day).start().0 + minute * 60_000);
            metrics.values.borrow_mut().extend([
                value("Playhead", "AcceptedEvents", ("FunctionName", "ingest"), at, 500.0),
                value("Playhead", "RejectedLines", ("FunctionName", "ingest"), at, 10.0),
                value("Playhead", "Requests", ("FunctionName", "ingest"), at, 25.0),
                value("AWS/Lambda", "Invocations", ("FunctionName", "ingest"), at, 25.0),
                value("AWS/Kinesis", "IncomingRecords", ("StreamName", "events"), at, 51.0),
                value("Playhead", "AcceptedEvents", ("FunctionName", "another"), at, 7.0),
            ]);
        }
    }
    metrics
}

async fn check(bucket: &MemoryBucket, metrics: &MemoryMetrics) -> [Option<f64>; 4] {
    let handler = Handler::new(bucket, metrics, config(EventFormat::Envelope));
    handler.handle(event(), context()).await.unwrap();
    put(metrics)
}

fn put(metrics: &MemoryMetrics) -> [Option<f64>; 4] {
    [Metric::LostEvents, Metric::DoubledEvents, Metric::LostRecords, Metric::DoubledRecords]
        .map(|metric| metrics.last(metric))
}

#[tokio::test]
async fn metrics_are_0_where_everything_landed_once() {
    let (bucket, metrics) = (sealed(0..=11), sent());
    assert_eq!(check(&bucket, &metrics).await, [Some(0.0); 4]);
    assert_eq!((bucket.calls.get(), metrics.calls.get()), (14 * 24, 7), "requests");
    for datum in metrics.data.borrow().iter() {
        assert_eq!(datum.at.rfc3339(), "2026-11-21T12:50:00.000Z");
        assert_eq!(datum.dimensions, [("FunctionName", "check-completeness".to_owned())]);
    }
}

/// What is not as it should be in one hour: (events of this hour, rejected lines, records), less or more.
#[rstest]
#[case::lost_events(10, (-3, 0, 0), [3.0, 0.0, 0.0, 0.0])]
#[case::doubled_events(10, (3, 0, 0), [0.0, 3.0, 0.0, 0.0])]
#[case::lost_rejected(8, (0, -2, 0), [2.0, 0.0, 0.0, 0.0])]
#[case::doubled_rejected(8, (0, 2, 0), [0.0, 2.0, 0.0, 0.0])]
#[case::lost_records(7, (0, 0, -4), [0.0, 0.0, 4.0, 0.0])]
#[case::doubled_records(7, (0, 0, 4), [0.0, 0.0, 0.0, 4.0])]
#[case::all_at_once(7, (-900, 5, -90), [900.0, 5.0, 90.0, 0.0])]
#[case::the_oldest_hour_that_is_looked_at(5, (-3, 0, -1), [3.0, 0.0, 1.0, 0.0])]
#[case::one_before_it(4, (-3, 0, -1), [0.0, 0.0, 0.0, 0.0])]
#[case::one_whose_next_is_not_sealed(11, (-3, 0, -1), [0.0, 0.0, 0.0, 0.0])]
#[tokio::test]
async fn losses_and_doubles_are_finite_numbers(
    #[case] of_day: i64,
    #[case] (events, rejected, records): (i64, i64, i64),
    #[case] expected: [f64; 4],
) {
    let (bucket, metrics) = (sealed(0..=11), sent());
    let mut totals = totals();
    let add = |number: &mut u64, more: i64| *number = number.checked_add_signed(more).unwrap();
    add(&mut totals.events_received_in.this, events);
    add(&mut totals.rejected_received_in.this, rejected);
    add(&mut totals.records, records);
    seal_hour(&bucket, of_day, totals);
    assert_eq!(check(&bucket, &metrics).await, expected.map(Some));
}

/// Spilled events landed in an object without records, as they never were on the stream.
#[rstest]
#[case::all_of_it(0)]
#[case::half_of_it(51)]
#[tokio::test]
async fn an_hour_in_which_kinesis_was_away_is_even_and_its_losses_are_seen(#[case] records: u64) {
    let (bucket, metrics, away) = (sealed(0..=11), sent(), hour(8));
    for value in metrics.values.borrow_mut().iter_mut().filter(|value| value.name == "IncomingRecords") {
        if value.at.hour() == away {
            value.value = records as f64 / 2.0;
        }
    }
    seal_hour(&bucket, 8, Totals { records, ..totals() });
    assert_eq!(check(&bucket, &metrics).await, [Some(0.0); 4]);
    seal_hour(&bucket, 8, Totals { records, ..totals_of_less(3) });
    assert_eq!(check(&bucket, &metrics).await, [Some(3.0), Some(0.0), Some(0.0), Some(0.0)]);
}

#[tokio::test]
async fn the_worst_hour_counts_until_it_is_resealed() {
    let (bucket, metrics) = (sealed(0..=11), sent());
    seal_hour(&bucket, 6, totals_of_less(5));
    seal_hour(&bucket, 9, totals_of_less(2));
    assert_eq!(check(&bucket, &metrics).await[0], Some(5.0));
    seal_hour(&bucket, 6, totals_of_less(0));
    assert_eq!(check(&bucket, &metrics).await[0], Some(2.0));
}

#[tokio::test]
async fn without_counts_from_ingest_what_landed_is_doubled() {
    let (bucket, metrics) = (sealed(0..=11), MemoryMetrics::default());
    assert_eq!(check(&bucket, &metrics).await, [Some(0.0), Some(1_020.0), Some(0.0), Some(102.0)]);
    let bucket = MemoryBucket::default();
    (0..=11).for_each(|of_day| seal_hour(&bucket, of_day, Totals::default()));
    assert_eq!(check(&bucket, &metrics).await, [Some(0.0); 4]);
}

#[rstest]
#[case::one_hour(11..=11)]
#[case::two_hours(10..=11)]
#[tokio::test]
async fn without_neighbours_there_is_nothing_to_compare(#[case] hours: std::ops::RangeInclusive<i64>) {
    let (bucket, metrics) = (sealed(hours), sent());
    assert_eq!(check(&bucket, &metrics).await, [None; 4]);
    assert_eq!(metrics.calls.get(), 0);
}

fn totals_of_less(lost: u64) -> Totals {
    let mut totals = totals();
    totals.events_received_in.this -= lost;
    totals
}

async fn lost_events_at(bucket: &MemoryBucket, time: &str) -> Option<f64> {
    let metrics = sent();
    let handler = Handler::new(bucket, &metrics, config(EventFormat::Envelope));
    handler.handle(event_at(time), context()).await.unwrap();
    metrics.last(Metric::LostEvents)
}

/// An hour that was held back for days is sealed at 12:20. It or a neighbour, which had to wait for it, lost three events.
#[rstest]
#[case::itself(0)]
#[case::the_hour_before(-1)]
#[case::the_hour_after(1)]
#[tokio::test]
async fn a_held_hour_is_balanced_for_six_hours_after_its_seal(#[case] which: i64) {
    for held in [-13, -300] {
        let bucket = sealed(held - 3..=11);
        seal_hour(&bucket, held + which, totals_of_less(3));
        assert_eq!(lost_events_at(&bucket, "2026-11-21T11:50:00Z").await, Some(0.0), "that was long ago");
        bucket.objects.borrow_mut().remove(&Partition::Hour(hour(held)).success_key());
        assert_eq!(lost_events_at(&bucket, "2026-11-21T11:50:00Z").await, Some(0.0), "not sealed yet");
        let sealed_at = UnixMillis::parse("2026-11-21T12:20:00.000Z").unwrap();
        let lost = if which == 0 { 3 } else { 0 };
        seal(&bucket, Partition::Hour(hour(held)), sealed_at, totals_of_less(lost));
        for (time, expected) in [("12:50", 3.0), ("17:50", 3.0)] {
            assert_eq!(lost_events_at(&bucket, &format!("2026-11-21T{time}:00Z")).await, Some(expected));
        }
        assert_eq!(lost_events_at(&bucket, "2026-11-21T18:50:00Z").await, None, "nothing is new");
    }
}

#[rstest]
#[case::of_this_day(7)]
#[case::of_long_ago(-300)]
#[tokio::test]
async fn an_unreadable_success_fails_the_check_and_the_other_hours_are_balanced(#[case] of_day: i64) {
    let (bucket, metrics) = (sealed(0..=11), sent());
    seal_hour(&bucket, 10, totals_of_less(3));
    bucket.insert(&Partition::Hour(hour(of_day)).success_key(), "", std::collections::HashMap::new());
    let handler = Handler::new(&bucket, &metrics, config(EventFormat::Envelope));
    let error = handler.handle(event(), context()).await.unwrap_err();
    let expected = hour(of_day).partition();
    assert!(
        matches!(&error, CheckCompletenessError::Unreadable { partition, .. } if *partition == expected),
        "{error}"
    );
    assert_eq!(put(&metrics), [Some(3.0), Some(0.0), Some(0.0), Some(0.0)]);
}

#[tokio::test]
async fn an_unsealed_hour_leaves_its_neighbours_unbalanced() {
    let (bucket, metrics) = (sealed(0..=11), sent());
    bucket.objects.borrow_mut().remove("events/dt=2026-11-21/hour=09/_SUCCESS");
    let mut totals = totals();
    totals.events_received_in.this -= 1;
    for of_day in [8, 10] {
        seal_hour(&bucket, of_day, totals.clone());
    }
    assert_eq!(check(&bucket, &metrics).await[0], Some(0.0));
}

#[tokio::test]
async fn raw_events_are_compared_as_they_landed() {
    let metrics = sent();
    let bucket = MemoryBucket::default();
    let raw = |events| Totals {
        events,
        records: 102,
        rejected_received_in: totals().rejected_received_in,
        ..Totals::default()
    };
    (0..=11).for_each(|of_day| seal_hour(&bucket, of_day, raw(1_000)));
    // Three of 9 o'clock landed in the next hour, four are gone.
    seal_hour(&bucket, 9, raw(993));
    seal_hour(&bucket, 10, raw(1_003));
    let handler = Handler::new(&bucket, &metrics, config(EventFormat::Raw));
    handler.handle(event(), context()).await.unwrap();
    assert_eq!(put(&metrics), [Some(4.0), Some(0.0), Some(0.0), Some(0.0)]);

    // Three of the four were deleted for a viewer.
    let metrics = sent();
    seal_hour(&bucket, 9, Totals { deleted_events: 3, ..raw(993) });
    let handler = Handler::new(&bucket, &metrics, config(EventFormat::Raw));
    handler.handle(event(), context()).await.unwrap();
    assert_eq!(put(&metrics), [Some(1.0), Some(0.0), Some(0.0), Some(0.0)]);
}

#[tokio::test]
async fn any_failing_call_fails_the_invocation_which_puts_nothing() {
    for call in [1, 2, CONCURRENCY + 1, 14 * 24] {
        let (bucket, metrics) = (sealed(0..=11), sent());
        bucket.fails_from.set(Some(call));
        let handler = Handler::new(&bucket, &metrics, config(EventFormat::Envelope));
        let error = handler.handle(event(), context()).await.unwrap_err();
        assert!(matches!(error, CheckCompletenessError::Success(_)), "{error}");
        assert_eq!(put(&metrics), [None; 4]);
    }
    for call in 1..=7 {
        let (bucket, metrics) = (sealed(0..=11), sent());
        metrics.fails_from.set(Some(call));
        let handler = Handler::new(&bucket, &metrics, config(EventFormat::Envelope));
        let error = handler.handle(event(), context()).await.unwrap_err();
        assert!(matches!(error, CheckCompletenessError::Metrics(_)), "{error}");
        assert_eq!(put(&metrics), [None; 4]);
    }
}

/// So many more in the hour of one metric, for a line of ingest's log that is missing or was taken twice.
fn add(metrics: &MemoryMetrics, of_day: i64, [requests, events]: [f64; 2]) {
    let at = UnixMillis(hour(of_day).start().0 + 30 * 60_000);
    metrics.values.borrow_mut().extend([
        value("Playhead", "Requests", ("FunctionName", "ingest"), at, requests),
        value("Playhead", "AcceptedEvents", ("FunctionName", "ingest"), at, events),
    ]);
}

#[rstest]
#[case::missing(-3.0, -60.0, [0.0, 0.0, 0.0, 0.0])]
#[case::taken_twice(3.0, 60.0, [0.0, 0.0, 0.0, 0.0])]
#[case::a_single_event_lost(0.0, 1.0, [1.0, 0.0, 0.0, 0.0])]
#[case::a_single_event_doubled(0.0, -1.0, [0.0, 1.0, 0.0, 0.0])]
#[tokio::test]
async fn missing_or_repeated_log_lines_of_ingest_are_neither_a_loss_nor_a_double(
    #[case] requests: f64,
    #[case] events: f64,
    #[case] expected: [f64; 4],
) {
    let (bucket, metrics) = (sealed(0..=11), sent());
    add(&metrics, 8, [requests, events]);
    assert_eq!(check(&bucket, &metrics).await, expected.map(Some));
}

/// The server counts under the same name, and Lambda does not count its requests.
#[rstest]
#[case::all_counted(0.0, [0.0, 0.0, 0.0, 0.0])]
#[case::a_killed_task_took_counts_with_it(-100.0, [0.0, 0.0, 0.0, 0.0])]
#[case::a_single_event_lost(1.0, [1.0, 0.0, 0.0, 0.0])]
#[tokio::test]
async fn beside_a_server_a_loss_is_seen_and_uncounted_events_are_no_doubles(
    #[case] events: f64,
    #[case] expected: [f64; 4],
) {
    let (bucket, metrics) = (sealed(0..=11), sent());
    add(&metrics, 8, [40.0, events]);
    let at = UnixMillis(hour(8).start().0 + 30 * 60_000);
    let of_the_server = value("Playhead", "ServerRequests", ("FunctionName", "ingest"), at, 40.0);
    metrics.values.borrow_mut().push(of_the_server);
    assert_eq!(check(&bucket, &metrics).await, expected.map(Some));
}

#[tokio::test]
async fn doubles_are_found_once_delayed_counts_are_written() {
    let (bucket, metrics) = (sealed(0..=11), sent());
    let mut doubled = totals();
    doubled.events_received_in.this += 2;
    seal_hour(&bucket, 9, doubled);
    add(&metrics, 9, [-5.0, -100.0]);
    assert_eq!(check(&bucket, &metrics).await[1], Some(0.0));
    add(&metrics, 9, [5.0, 100.0]);
    assert_eq!(check(&bucket, &metrics).await[1], Some(2.0));
}

#[tokio::test]
async fn records_doubled_an_hour_away_do_not_offset_lost_ones() {
    let bucket = MemoryBucket::default();
    let metrics = MemoryMetrics::default();
    for of_day in 0..12 {
        let at = UnixMillis(hour(of_day).start().0 + 30 * 60_000);
        metrics.values.borrow_mut().push(value("AWS/Kinesis", "IncomingRecords", ("StreamName", "events"), at, 100.0));
        let records = match of_day {
            7 => 90,
            8 => 110,
            _ => 100,
        };
        seal_hour(&bucket, of_day, Totals { records, ..Totals::default() });
    }
    assert_eq!(check(&bucket, &metrics).await[2], Some(10.0));
}
