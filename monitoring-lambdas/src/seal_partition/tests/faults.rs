//! Crashes, ends of time, duplicates and runs at once, at every call: the files are those of an undisturbed run.

use proptest::prelude::*;

use super::*;
use lambda_setup::bucket::BucketError;

/// Three hours to be sealed, with parts and pages; one to be sealed again; and the date that they complete.
async fn world() -> MemoryBucket {
    let bucket = sealed_until(21).await;
    for (number, of_day) in [21, 22, 22, 22, 22, 23, 23].into_iter().enumerate() {
        let first = 300 + 10 * number as u64;
        land(&bucket, Kind::Event, hour(of_day), u8::from(number % 2 == 0), (first, first + 9));
        land(&bucket, Kind::Rejected, hour(of_day), 0, (first, first + 1));
    }
    land(&bucket, Kind::Event, hour(5), 0, (200, 201));
    put_late(&bucket, hour(5));
    bucket
}

fn copy(bucket: &MemoryBucket) -> MemoryBucket {
    let copy = MemoryBucket::default();
    copy.objects.replace(bucket.objects.borrow().clone());
    copy.page_size.set(Some(3));
    copy
}

fn marker_event(bucket: &MemoryBucket) -> Option<Invocation> {
    let markers = bucket.keys().into_iter().filter(|key| key.starts_with("sealing/") && key.ends_with(".json"));
    let record =
        |key: String| serde_json::json!({"eventTime": NIGHT, "s3": {"bucket": {"name": "b"}, "object": {"key": key}}});
    let records: Vec<Value> = markers.map(record).collect();
    (!records.is_empty()).then(|| serde_json::from_value(serde_json::json!({"Records": records})).unwrap())
}

fn schedule() -> Invocation {
    serde_json::from_value(serde_json::json!({"time": "2026-11-22T00:20:00Z"})).unwrap()
}

/// What can happen to an invocation.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// All calls from this one on fail.
    Crash(usize),
    /// The time is up after so many calls.
    TimeUp(usize),
}

async fn invoke(
    bucket: &MemoryBucket,
    metrics: &MemoryMetrics,
    event: Invocation,
    fault: Fault,
) -> Result<(), SealError> {
    let begun = bucket.calls.get();
    bucket.fails_from.set(if let Fault::Crash(call) = fault { Some(begun + call) } else { None });
    let time_is_up = || matches!(fault, Fault::TimeUp(calls) if bucket.calls.get() >= begun + calls);
    let failed_batches = MemoryBucket::default();
    let handler = handler(bucket, &failed_batches, metrics);
    catch_up(metrics, at(NIGHT));
    let starts = handler.starts(event).await;
    let mut result = starts.as_ref().map(|_| ()).map_err(|error| {
        SealError::Bucket(BucketError::Failed { operation: "test", key: String::new(), problem: error.to_string() })
    });
    for (at, resumes_at) in starts.unwrap_or_default() {
        result = result.and(handler.run(at, resumes_at, &time_is_up, "seal-partition").await);
    }
    bucket.fails_from.set(None);
    result
}

/// Calls for as long as there is a marker, each event as often as said.
async fn drive(bucket: &MemoryBucket, metrics: &MemoryMetrics, mut fault: impl FnMut() -> Fault, times: usize) {
    for _ in 0..200 {
        let Some(event) = marker_event(bucket) else { return };
        for _ in 0..times {
            let fault = fault();
            let result = invoke(bucket, metrics, event.clone(), fault).await;
            assert!(result.is_ok() || matches!(fault, Fault::Crash(_)), "{result:?}");
        }
    }
    panic!("there is no end");
}

/// The maximum, as the alarm has it: what is reported may be reported again.
fn most_late(metrics: &MemoryMetrics) -> f64 {
    let data = metrics.data.borrow();
    data.iter().filter(|datum| datum.metric == Metric::LateObjects).fold(0.0, |most, datum| most.max(datum.value))
}

fn assert_same(bucket: &MemoryBucket, expected: &BTreeMap<String, String>, what: &dyn std::fmt::Display) {
    let files = files(bucket);
    let keys: std::collections::BTreeSet<&String> = files.keys().chain(expected.keys()).collect();
    for key in keys {
        assert_eq!(files.get(key), expected.get(key), "{key}: {what}");
    }
}

async fn undisturbed(world: &MemoryBucket) -> (BTreeMap<String, String>, usize) {
    let bucket = copy(world);
    let metrics = MemoryMetrics::default();
    invoke(&bucket, &metrics, schedule(), Fault::None).await.unwrap();
    assert_eq!(metrics.last(Metric::SealedPartitions), Some(5.0));
    assert_eq!(metrics.last(Metric::LateObjects), Some(1.0));
    assert!(marker_event(&bucket).is_none() && bucket.end_uploads() == 0);
    assert!(bucket.calls_by_operation.borrow()["uploading a part"] > 3);
    (files(&bucket), bucket.calls.get())
}

#[tokio::test]
async fn after_a_crash_at_any_call_the_next_attempt_writes_the_same_files() {
    let world = world().await;
    let (expected, calls) = undisturbed(&world).await;
    for call in 1..=calls {
        let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
        invoke(&bucket, &metrics, schedule(), Fault::Crash(call)).await.unwrap_err();
        invoke(&bucket, &metrics, schedule(), Fault::None).await.unwrap();
        assert_same(&bucket, &expected, &format!("crashed at call {call}"));
        assert_eq!(most_late(&metrics), 1.0, "crashed at call {call}");
    }
}

#[tokio::test]
async fn after_a_crash_at_any_call_the_next_hour_counts_late_objects_once() {
    let world = world().await;
    let (_, calls) = undisturbed(&world).await;
    for call in 1..=calls {
        let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
        invoke(&bucket, &metrics, schedule(), Fault::Crash(call)).await.unwrap_err();
        run(&bucket, &metrics, "2026-11-22T01:20:00.000Z").await.unwrap();
        let hour = success(&bucket, "dt=2026-11-21/hour=05");
        assert_eq!(
            (&hour["late_objects"], &hour["totals"]["objects"]),
            (&1.into(), &2.into()),
            "crashed at call {call}"
        );
        assert_eq!(success(&bucket, "dt=2026-11-21")["totals"]["events"], 114);
        assert!(!bucket.keys().iter().any(|key| key.starts_with("late/") || key.starts_with("sealing/")));
        assert_eq!(most_late(&metrics), 1.0, "crashed at call {call}");
    }
}

#[tokio::test]
async fn without_cloudwatch_nothing_is_sealed_or_it_is_reported_later() {
    let world = world().await;
    let (expected, _) = undisturbed(&world).await;
    let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
    metrics.fails_from.set(Some(1));
    assert!(matches!(invoke(&bucket, &metrics, schedule(), Fault::None).await, Err(SealError::Metrics(_))));
    assert!(bucket.text("events/dt=2026-11-21/_SUCCESS").is_none(), "nothing shows whether the hours are whole");
    // Of the values that are read, six in each run and one for each of four hours, each may be the one that fails: what
    // was sealed before stays so. The next call puts.
    for call in 2..=11 {
        metrics.calls.set(0);
        metrics.fails_from.set(Some(if bucket.text("events/dt=2026-11-21/_SUCCESS").is_some() { 1 } else { call }));
        assert!(matches!(invoke(&bucket, &metrics, schedule(), Fault::None).await, Err(SealError::Metrics(_))));
    }
    assert!(bucket.text("events/dt=2026-11-21/_SUCCESS").is_some());
    metrics.fails_from.set(None);
    invoke(&bucket, &metrics, schedule(), Fault::None).await.unwrap();
    assert_same(&bucket, &expected, &"at the end");
    assert_eq!(metrics.last(Metric::SealedPartitions), Some(5.0));
    assert_eq!(metrics.last(Metric::LateObjects), Some(1.0));
}

#[tokio::test]
async fn runs_with_little_time_continue_until_everything_is_sealed() {
    let world = world().await;
    let (expected, calls) = undisturbed(&world).await;
    for (limit, times) in (0..=calls).flat_map(|limit| [(limit, 1), (limit, 2)]) {
        let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
        invoke(&bucket, &metrics, schedule(), Fault::TimeUp(limit)).await.unwrap();
        // Duplicates of the marker's event too.
        drive(&bucket, &metrics, || Fault::TimeUp(limit), times).await;
        assert_same(&bucket, &expected, &format!("{limit} calls, each event {times} times"));
        assert_eq!(metrics.last(Metric::LateObjects), Some(1.0));
    }
}

#[tokio::test]
async fn a_lost_upload_is_started_again() {
    let world = world().await;
    let (expected, _) = undisturbed(&world).await;
    let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
    invoke(&bucket, &metrics, schedule(), Fault::TimeUp(0)).await.unwrap();
    let mut gone = 0;
    for _ in 0..100 {
        let Some(event) = marker_event(&bucket) else { break };
        // Not each time, or it would never end.
        if gone < 3 {
            gone += bucket.end_uploads();
        }
        invoke(&bucket, &metrics, event, Fault::TimeUp(30)).await.unwrap();
    }
    assert!(gone > 0);
    assert_same(&bucket, &expected, &"at the end");
}

#[tokio::test]
async fn a_checkpoint_that_is_damaged_or_out_of_date_starts_the_seal_again() {
    let world = world().await;
    let (expected, _) = undisturbed(&world).await;
    let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
    for of_day in [3, 22] {
        bucket.insert(&crate::manifest::checkpoint_key(&hour(of_day).partition()), "{", HashMap::new());
    }
    invoke(&bucket, &metrics, schedule(), Fault::None).await.unwrap();
    assert_same(&bucket, &expected, &"at the end");
    // An event of a marker that is done with.
    let event = serde_json::json!({"Records": [{"eventTime": NIGHT, "s3": {"bucket": {"name": "b"},
        "object": {"key": crate::manifest::checkpoint_key(&hour(22).partition())}}}]});
    invoke(&bucket, &metrics, serde_json::from_value(event).unwrap(), Fault::None).await.unwrap();
    assert_same(&bucket, &expected, &"at the end");
}

#[tokio::test]
async fn a_complete_run_inside_another_at_any_call_changes_nothing() {
    let world = world().await;
    let (expected, calls) = undisturbed(&world).await;
    for call in 1..=calls {
        let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
        bucket.pauses_at.set(Some(call));
        let inner = async {
            while bucket.calls.get() < call {
                tokio::task::yield_now().await;
            }
            let inner = run(&bucket, &metrics, NIGHT).await;
            bucket.pauses_at.set(None);
            inner
        };
        let (outer, inner) = tokio::join!(run(&bucket, &metrics, NIGHT), inner);
        outer.and(inner).unwrap();
        assert_same(&bucket, &expected, &format!("within call {call}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn two_interleaved_runs_seal_what_one_does(turns: u64, more: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = world().await;
            let (expected, _) = undisturbed(&world).await;
            let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
            bucket.turns.set(turns & more);
            let (one, other) = tokio::join!(run(&bucket, &metrics, NIGHT), run(&bucket, &metrics, NIGHT));
            // Either may give up; Lambda tries it again.
            if one.and(other).is_err() {
                bucket.turns.set(0);
                run(&bucket, &metrics, NIGHT).await.unwrap();
            }
            assert_same(&bucket, &expected, &"at the end");
        });
    }

    #[test]
    fn the_files_are_the_same_whatever_happens_to_earlier_invocations(
        faults in prop::collection::vec((any::<bool>(), 0usize..150), 1..8), again in prop::collection::vec(any::<bool>(), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = world().await;
            let (expected, _) = undisturbed(&world).await;
            let (bucket, metrics) = (copy(&world), MemoryMetrics::default());
            for ((crash, calls), again) in faults.into_iter().zip(again) {
                let fault = if crash { Fault::Crash(calls + 1) } else { Fault::TimeUp(calls) };
                let event = marker_event(&bucket).filter(|_| again).unwrap_or_else(schedule);
                let result = invoke(&bucket, &metrics, event, fault).await;
                assert!(result.is_ok() || crash);
            }
            invoke(&bucket, &metrics, schedule(), Fault::None).await.unwrap();
            drive(&bucket, &metrics, || Fault::None, 1).await;
            assert_same(&bucket, &expected, &"at the end");
            assert_eq!(most_late(&metrics), 1.0);
        });
    }
}
