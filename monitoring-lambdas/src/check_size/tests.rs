//! The handler against a bucket and metrics in memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::success::tests::seal;
use crate::tests::memory_metrics::MemoryMetrics;
use lambda_setup::memory_bucket::MemoryBucket;
use rstest::rstest;

const HOUR: &str = "events/dt=2026-11-21/hour=09/_SUCCESS";
const DATE: &str = "events/dt=2026-11-21/_SUCCESS";

fn event(key: &str) -> S3Event {
    let key = key.replace('=', "%3D");
    serde_json::from_value(serde_json::json!({"Records": [{
        "eventTime": "2026-11-22T00:20:03.000Z", "s3": {"bucket": {"name": "landing"}, "object": {"key": key}},
    }]}))
    .unwrap()
}

fn context() -> Context {
    let mut context = Context::default();
    context.env_config = Arc::new(lambda_runtime::Config { function_name: "check-size".into(), ..Default::default() });
    context
}

fn totals(bytes: u64) -> Totals {
    Totals { bytes, events: bytes / 10, rejected: bytes / 1_000, ..Totals::default() }
}

/// A bucket in which a partition and those before it, by days, have so many bytes.
fn bucket(key: &str, sizes: &[(i64, u64)]) -> MemoryBucket {
    let bucket = MemoryBucket::default();
    for (days, bytes) in sizes {
        let partition = Partition::of_success_key(key).unwrap().days_before(*days);
        seal(&bucket, partition, partition.end(), totals(*bytes));
    }
    bucket
}

async fn check(bucket: &MemoryBucket, metrics: &MemoryMetrics, key: &str) -> Result<(), CheckSizeError> {
    Handler::new(|_| bucket, metrics, Limits::SHIPPED).handle(event(key), context()).await
}

#[tokio::test]
async fn a_topic_delivers_the_event_of_a_success() {
    let (bucket, metrics) = (bucket(HOUR, &[(0, 1_000_000)]), MemoryMetrics::default());
    let record = |message: &str| {
        let sns = serde_json::json!({"Message": message, "Timestamp": "2026-11-22T00:20:03.100Z"});
        serde_json::json!({"Records": [{"Sns": sns}]})
    };
    let created = serde_json::json!({"Records": [{
        "eventTime": "2026-11-22T00:20:03.000Z",
        "s3": {"bucket": {"name": "landing"}, "object": {"key": HOUR.replace('=', "%3D")}},
    }]});
    let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"landing"}"#;
    for (message, puts) in [(test, 0), (&created.to_string(), 1)] {
        let event = serde_json::from_value(record(message)).unwrap();
        Handler::new(|_| &bucket, &metrics, Limits::SHIPPED).handle(event, context()).await.unwrap();
        assert_eq!(metrics.calls.get(), puts);
    }
}

const USUAL: [(i64, u64); 9] = [
    (1, 1_000_000),
    (7, 1_010_000),
    (14, 1_000_000),
    (21, 990_000),
    (28, 1_020_000),
    (35, 980_000),
    (42, 1_000_000),
    (49, 1_010_000),
    (56, 990_000),
];

#[rstest]
#[case::usual(1_005_000, 0.0)]
#[case::cut_by_half(500_000, 2.0)]
#[case::doubled(2_000_000, 2.0)]
#[case::nearly_nothing(100_000, 3.0)]
#[case::nothing(0, 3.0)]
#[tokio::test]
async fn a_date_is_judged_by_all_rules(#[case] bytes: u64, #[case] violations: f64) {
    let bucket = bucket(DATE, &[&[(0, bytes)], &USUAL[..]].concat());
    let metrics = MemoryMetrics::default();
    check(&bucket, &metrics, DATE).await.unwrap();
    assert_eq!(metrics.last(Metric::SizeViolations), Some(violations));
    assert_eq!(metrics.last(Metric::TotalFileSize), Some(bytes as f64));
    assert_eq!(metrics.last(Metric::TotalFileSizeDifference), Some(bytes as f64 - 1_000_000.0));
    assert!(metrics.last(Metric::SeasonalScore).is_some());
    assert_eq!((bucket.calls.get(), metrics.calls.get()), (10, 1), "requests");
}

#[tokio::test]
async fn each_value_has_the_same_three_dimensions_and_the_time_of_the_event() {
    let bucket = bucket(HOUR, &[(0, 1_000_000), (1, 1_000_000)]);
    let metrics = MemoryMetrics::default();
    check(&bucket, &metrics, HOUR).await.unwrap();
    let names: Vec<_> = metrics.data.borrow().iter().map(|datum| datum.metric).collect();
    assert_eq!(
        names,
        [
            Metric::TotalFileSize,
            Metric::TotalEvents,
            Metric::RejectedShare,
            Metric::SizeViolations,
            Metric::TotalFileSizeDifference
        ]
    );
    for datum in metrics.data.borrow().iter() {
        let expected = [("BucketName", "landing"), ("Key", "events/dt=*/hour=*/"), ("FunctionName", "check-size")];
        let dimensions: Vec<_> = datum.dimensions.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(dimensions, expected);
        assert_eq!(datum.at.rfc3339(), "2026-11-22T00:20:03.000Z");
    }
    let share = metrics.last(Metric::RejectedShare).unwrap();
    assert!((share - 100.0 / 101.0).abs() < 1e-9, "{share}");
}

#[tokio::test]
async fn without_history_only_the_floor_is_judged() {
    let bucket = bucket(DATE, &[(0, 194_999)]);
    let metrics = MemoryMetrics::default();
    check(&bucket, &metrics, DATE).await.unwrap();
    assert_eq!(metrics.last(Metric::SizeViolations), Some(1.0));
    assert_eq!(metrics.last(Metric::TotalFileSizeDifference), None);
    assert_eq!(metrics.last(Metric::SeasonalScore), None);
}

#[tokio::test]
async fn an_hour_has_no_floor_and_an_empty_one_no_rejected_share() {
    let bucket = bucket(HOUR, &[(0, 0)]);
    let metrics = MemoryMetrics::default();
    check(&bucket, &metrics, HOUR).await.unwrap();
    assert_eq!(metrics.last(Metric::SizeViolations), Some(0.0));
    assert_eq!(metrics.last(Metric::RejectedShare), Some(0.0));
}

/// An hour in which so many lines of each reason were rejected.
fn rejected_hour(events: u64, reasons: &[(&str, u64)]) -> MemoryBucket {
    let bucket = MemoryBucket::default();
    let totals = Totals {
        events,
        rejected: reasons.iter().map(|(_, count)| count).sum(),
        rejected_by_reason: reasons.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        ..Totals::default()
    };
    let partition = Partition::of_success_key(HOUR).unwrap();
    seal(&bucket, partition, partition.end(), totals);
    bucket
}

#[rstest]
#[case::a_third(700, 300, 1.0)]
#[case::just_above(949, 51, 1.0)]
#[case::the_limit(950, 50, 0.0)]
#[case::one_bad_post_at_night(0, 9, 0.0)]
#[tokio::test]
async fn too_many_rejected_lines_are_a_violation(#[case] events: u64, #[case] rejected: u64, #[case] violations: f64) {
    let metrics = MemoryMetrics::default();
    check(&rejected_hour(events, &[("invalid_json", rejected)]), &metrics, HOUR).await.unwrap();
    assert_eq!(metrics.last(Metric::SizeViolations), Some(violations));
}

#[tokio::test]
async fn the_share_of_each_known_reason_is_put() {
    let metrics = MemoryMetrics::default();
    let bucket = rejected_hour(700, &[("invalid_json", 200), ("not_an_object", 50), ("of_nobody", 50)]);
    check(&bucket, &metrics, HOUR).await.unwrap();
    let data = metrics.data.borrow();
    let shares: Vec<_> = data
        .iter()
        .filter(|datum| datum.metric == Metric::RejectedShare)
        .map(|datum| {
            let reason = datum.dimensions.iter().find(|(name, _)| *name == "Reason").map(|(_, reason)| reason.as_str());
            (reason, datum.value.round())
        })
        .collect();
    assert_eq!(shares, [(Some("invalid_json"), 20.0), (Some("not_an_object"), 5.0), (None, 30.0)]);
}

#[tokio::test]
async fn the_same_event_again_puts_the_same_values() {
    let bucket = bucket(DATE, &[&[(0, 1_000_000)], &USUAL[..]].concat());
    let metrics = MemoryMetrics::default();
    check(&bucket, &metrics, DATE).await.unwrap();
    check(&bucket, &metrics, DATE).await.unwrap();
    let data = metrics.data.borrow();
    let (first, second) = data.split_at(data.len() / 2);
    assert_eq!(first, second);
}

#[tokio::test]
async fn an_unreadable_earlier_success_is_left_out() {
    let bucket = bucket(DATE, &[&[(0, 500_000)], &USUAL[..]].concat());
    bucket.insert("events/dt=2026-11-20/_SUCCESS", "", HashMap::new());
    let metrics = MemoryMetrics::default();
    check(&bucket, &metrics, DATE).await.unwrap();
    assert_eq!(metrics.last(Metric::TotalFileSizeDifference), None);
    assert_eq!(metrics.last(Metric::SizeViolations), Some(2.0));
}

#[tokio::test]
async fn any_failing_call_fails_the_invocation_which_puts_nothing() {
    for call in 1..=10 {
        let bucket = bucket(DATE, &[&[(0, 1_000_000)], &USUAL[..]].concat());
        bucket.fails_from.set(Some(call));
        let metrics = MemoryMetrics::default();
        let error = check(&bucket, &metrics, DATE).await.unwrap_err();
        assert!(matches!(error, CheckSizeError::Success(SuccessError::Bucket(_))), "{error}");
        assert!(metrics.data.borrow().is_empty());
    }
    let bucket = bucket(DATE, &[(0, 1_000_000)]);
    let metrics = MemoryMetrics::default();
    metrics.fails_from.set(Some(1));
    assert!(matches!(check(&bucket, &metrics, DATE).await, Err(CheckSizeError::Metrics(_))));
}

#[tokio::test]
async fn a_missing_success_fails_the_check_and_other_keys_are_skipped() {
    let bucket = MemoryBucket::default();
    let metrics = MemoryMetrics::default();
    assert!(matches!(check(&bucket, &metrics, DATE).await, Err(CheckSizeError::Gone { key }) if key == DATE));
    check(&bucket, &metrics, "events/copy_SUCCESS").await.unwrap();
    assert_eq!((bucket.calls.get(), metrics.calls.get()), (1, 0));
}

#[test]
fn explanations_name_units_and_missing_history() {
    let mut sizes = Sizes { bytes: 500_000, day_before: Some(1_000_000), ..Sizes::default() };
    sizes.weeks_before[..4].copy_from_slice(&[Some(1_000_000), Some(1_010_000), Some(990_000), Some(1_000_000)]);
    let partition = Partition::of_success_key(DATE).unwrap();
    let lines = Lines { events: 700, rejected: 300 };
    let words = |sizes: Sizes, rule| {
        let measured = sizes.measure();
        let judged = measured.judge(195_000, &Limits::SHIPPED).to_vec();
        explanation::explain(rule, &Checked { partition, sizes, measured, lines, judged }, &Limits::SHIPPED)
    };
    let (expected, actual) = words(sizes.clone(), Rule::Floor);
    assert_eq!((&*expected, &*actual), ("at least 195000 bytes", "500000 bytes"));
    let (expected, actual) = words(sizes.clone(), Rule::RejectedShare);
    assert_eq!(expected, "at most 5 % of the lines rejected, or fewer than 10 lines");
    assert_eq!(actual, "30.0 %: 300 rejected lines beside 700 events");
    assert_eq!(
        words(sizes.clone(), Rule::Change).1,
        "500000 bytes: -50.0 % against 1000000 bytes the day before; -50.0 % against 1000000 bytes the week before"
    );
    assert_eq!(
        words(sizes.clone(), Rule::SeasonalScore).1,
        "500000 bytes: score -67.4, of 4 weeks with a median of 1000000 bytes and a robust standard deviation of 7413 bytes"
    );
    let alone = Sizes { bytes: 5, day_before: Some(0), ..Sizes::default() };
    assert_eq!(
        words(alone.clone(), Rule::Change).1,
        "5 bytes: nothing the day before, of which there is no percentage; \
         insufficient_history: not sealed the week before"
    );
    assert_eq!(words(alone, Rule::SeasonalScore).1, "5 bytes: insufficient_history: 0 earlier weeks; it takes 4");
    let same = Sizes { bytes: 5, weeks_before: [Some(7); size::WEEKS], ..Sizes::default() };
    assert_eq!(
        words(same, Rule::SeasonalScore).1,
        "5 bytes: insufficient_history: most of 8 earlier weeks have the same 7 bytes, which gives no measure"
    );
}

#[tokio::test]
async fn fabricated_sums_are_judged_like_any_others() {
    let bucket = MemoryBucket::default();
    let partition = Partition::of_success_key(DATE).unwrap();
    let most = Totals { bytes: u64::MAX, events: u64::MAX, rejected: u64::MAX, ..Totals::default() };
    for days in [0, 1, 7, 14, 21, 28] {
        let earlier = partition.days_before(days);
        seal(&bucket, earlier, earlier.end(), most.clone());
    }
    let metrics = MemoryMetrics::default();
    check(&bucket, &metrics, DATE).await.unwrap();
    assert_eq!(metrics.last(Metric::RejectedShare), Some(50.0));
    assert_eq!(metrics.last(Metric::TotalFileSizeDifference), Some(0.0));
    assert_eq!(metrics.last(Metric::SizeViolations), Some(1.0));
}
