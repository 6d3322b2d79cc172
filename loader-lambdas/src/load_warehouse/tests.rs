//! Compacted hours in a bucket in memory, and a warehouse in memory whose transactions run a statement at a time: killed anywhere, run
//! at once, overtaken by newer ones. At any moment an hour is there as one compaction has it, each row once; at the end as the newest
//! has it.
//!
//! The rules on which that rests are taken away one by one ([`Mutant`]), and each time it does not hold any more.

mod model_warehouse;
pub(super) mod parquet;

use std::collections::HashMap;

use lambda_runtime::{Config as RuntimeConfig, Context};
use lambda_setup::event::Invocation;
use lambda_setup::memory_bucket::MemoryBucket;
use proptest::collection::vec;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use shared::timestamp::{MILLIS_PER_HOUR, MILLIS_PER_MINUTE, UnixMillis, UtcHour};

use super::fit::MAX_TEXT_BYTES;
use super::handler::{HandleError, Handler, MAX_UNDER_WAY};
use super::load::{Load, LoadError, MAX_PART_BYTES};
use super::sql::{CopyRole, Tables, Transaction};
use crate::compact_partition::columnar::{Compacted, Keys, Part, Totals};
use model_warehouse::{LoadRow, ModelWarehouse, Mutant};
use parquet::Row;

fn hour() -> UtcHour {
    UtcHour::parse("dt=2026-11-21/hour=09").unwrap()
}

/// Of the schedule, some minutes after the hour was sealed: not the first of an hour.
fn at() -> UnixMillis {
    UnixMillis(hour().end().0 + MILLIS_PER_HOUR / 2)
}

fn row(id: usize) -> Row {
    Row {
        v: Some(1),
        received_at: Some(7),
        id: Some(format!("{id:03}")),
        kind: Some("play".into()),
        event: format!("{{\"n\":{id}}}"),
    }
}

/// Writes an hour as compaction does: `parts` by their promoted field and their rows.
fn compact(bucket: &MemoryBucket, hour: UtcHour, sealed_at: i64, parts: &[(&str, Vec<Row>)]) {
    let mut compacted = Compacted {
        v: 1,
        partition: hour.partition(),
        sealed_at: UnixMillis(sealed_at),
        manifest: format!("\"m-{sealed_at}\""),
        plans: 1,
        parts: Vec::new(),
        totals: Totals::default(),
    };
    for (number, (promoted, rows)) in parts.iter().enumerate() {
        let key = Keys::of(hour).part(number);
        let file = parquet::file(&[promoted], rows);
        let totals = Totals { rows: rows.len() as u64, ..Totals::default() };
        let bytes = file.len() as u64;
        bucket.insert(&key, file, HashMap::new());
        compacted.parts.push(Part { etag: bucket.etag(&key), key, bytes, totals });
        compacted.totals.add(&totals);
    }
    bucket.insert(&Keys::of(hour).success(), serde_json::to_vec(&compacted).unwrap(), HashMap::new());
}

fn schedule(at: UnixMillis) -> Invocation {
    serde_json::from_value(json!({"time": at.rfc3339()})).unwrap()
}

fn notification(hour: UtcHour) -> Invocation {
    let object =
        json!({"bucket": {"name": "landing"}, "object": {"key": Keys::of(hour).success().replace('=', "%3D")}});
    serde_json::from_value(json!({"Records": [{"eventTime": at().rfc3339(), "s3": object}]})).unwrap()
}

async fn invoke(
    bucket: &MemoryBucket,
    warehouse: &ModelWarehouse<'_>,
    invocation: Invocation,
) -> Result<(), HandleError> {
    let tables = Tables { schema: "playhead".into(), copy_role: CopyRole::Default };
    let handler = Handler { bucket, warehouse, bucket_name: "landing".into(), tables };
    let mut context = Context::default();
    context.deadline = u64::try_from(lambda_setup::now().0 + 60_000).unwrap();
    context.env_config = RuntimeConfig::default().into();
    handler.handle(invocation, context).await
}

fn load(bucket: &MemoryBucket, hour: UtcHour) -> Option<Load> {
    let text = bucket.text(&format!("warehouse/{}/_LOAD.json", hour.partition()))?;
    Some(serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn a_compacted_hour_is_loaded_once_and_then_left_alone() {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    let rows: Vec<_> = (0..5).map(row).collect();
    compact(&bucket, hour(), 1, &[("type", rows[..3].to_vec()), ("type", rows[3..].to_vec()), ("type", Vec::new())]);
    invoke(&bucket, &warehouse, notification(hour())).await.unwrap();
    assert!(!load(&bucket, hour()).unwrap().is_committed);
    invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
    assert_eq!(warehouse.sent(), 1, "it is under way");
    warehouse.run_all();
    for _ in 0..3 {
        invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
    }
    assert_eq!(warehouse.events(hour()), rows);
    let loads = warehouse.loads(hour());
    assert!(matches!(&loads[..], [LoadRow { rows: 5, sealed_at: UnixMillis(1), .. }]), "{loads:?}");
    assert!(load(&bucket, hour()).unwrap().is_committed);
    assert_eq!(warehouse.sent(), 1);
}

#[tokio::test]
async fn an_hour_without_events_is_loaded_too() {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    compact(&bucket, hour(), 1, &[]);
    invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
    warehouse.run_all();
    assert_eq!(warehouse.loads(hour()).len(), 1);
}

/// Promoted fields were changed between two seals of an hour.
#[tokio::test]
async fn parts_of_other_columns_are_staged_apart() {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    compact(&bucket, hour(), 1, &[("type", vec![row(1)]), ("kind", vec![row(2)]), ("type", vec![row(3)])]);
    invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
    warehouse.run_all();
    assert_eq!(warehouse.events(hour()), [row(1), row(2), row(3)]);
    let manifests = bucket.keys().into_iter().filter(|key| key.contains("/COPY-")).count();
    assert_eq!(manifests, 2);
}

#[tokio::test]
async fn texts_that_are_too_long_are_cut() {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    let long = Row { event: "x".repeat(MAX_TEXT_BYTES + 1), ..row(1) };
    compact(&bucket, hour(), 1, &[("type", vec![long]), ("type", vec![row(2)])]);
    let part = Keys::of(hour()).part(0);
    let before = bucket.etag(&part);
    invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
    warehouse.run_all();
    let cut = Row { event: "x".repeat(MAX_TEXT_BYTES), ..row(1) };
    assert_eq!(warehouse.events(hour()), [cut, row(2)]);
    assert_eq!(load(&bucket, hour()).unwrap().changed_texts, 1);
    assert_eq!(bucket.etag(&part), before, "the part itself stays");
}

#[tokio::test]
async fn what_the_warehouse_does_not_commit_is_sent_again() {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    compact(&bucket, hour(), 1, &[("type", vec![row(1), row(2)])]);
    invoke(&bucket, &warehouse, notification(hour())).await.unwrap();
    warehouse.loses.set(1);
    warehouse.run_all();
    assert!(warehouse.loads(hour()).is_empty(), "COPY took too few rows");
    warehouse.loses.set(0);
    invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
    assert_eq!((warehouse.sent(), load(&bucket, hour()).unwrap().attempt), (2, 2));
    warehouse.run_all();
    assert_eq!(warehouse.events(hour()), [row(1), row(2)]);
}

#[tokio::test]
async fn while_the_warehouse_refuses_calls_nothing_is_lost() {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    compact(&bucket, hour(), 1, &[("type", vec![row(1)])]);
    warehouse.is_away.set(true);
    assert!(invoke(&bucket, &warehouse, notification(hour())).await.is_err());
    assert!(invoke(&bucket, &warehouse, schedule(at())).await.is_err());
    warehouse.is_away.set(false);
    invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
    warehouse.run_all();
    assert_eq!(warehouse.events(hour()), [row(1)]);
}

#[tokio::test]
async fn a_part_that_is_not_the_one_named_is_not_loaded() {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    compact(&bucket, hour(), 1, &[("type", vec![row(1)])]);
    bucket.insert(&Keys::of(hour()).part(0), parquet::file(&["type"], &[row(2)]), HashMap::new());
    assert!(invoke(&bucket, &warehouse, notification(hour())).await.is_err());
    assert_eq!(warehouse.sent(), 0);
}

#[tokio::test]
async fn the_schedule_leaves_so_many_under_way_at_most() {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    let hours: Vec<_> = (0..i64::try_from(MAX_UNDER_WAY).unwrap() + 1).map(|number| hour().plus(-number)).collect();
    hours.iter().for_each(|hour| compact(&bucket, *hour, 1, &[("type", vec![row(1)])]));
    for _ in 0..2 {
        invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
        assert_eq!(warehouse.sent(), MAX_UNDER_WAY);
    }
    warehouse.run_all();
    invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
    warehouse.run_all();
    assert!(hours.iter().all(|hour| warehouse.events(*hour) == [row(1)]));
}

/// Further back than two days in the first quarter of an hour alone.
#[rstest]
#[case::two_days(48, 30, 1)]
#[case::more_than_two_days(49, 30, 0)]
#[case::eight_days(192, 5, 1)]
#[case::more_than_eight_days(193, 5, 0)]
#[tokio::test]
async fn the_schedule_finds_hours_that_nobody_asked_for(#[case] hours: i64, #[case] minute: i64, #[case] sent: usize) {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    compact(&bucket, hour(), 1, &[("type", vec![row(1)])]);
    let at = UnixMillis(hour().plus(hours).start().0 + minute * MILLIS_PER_MINUTE);
    invoke(&bucket, &warehouse, schedule(at)).await.unwrap();
    assert_eq!(warehouse.sent(), sent);
}

#[rstest]
#[case::on_the_bound(json!({"bytes": MAX_PART_BYTES}), |error: &LoadError| matches!(error, LoadError::PartDiffers { .. }))]
#[case::one_past_it(json!({"bytes": MAX_PART_BYTES + 1}), |error: &LoadError| matches!(error, LoadError::LargePart { .. }))]
#[case::no_bytes(json!({"bytes": -1}), |error: &LoadError| matches!(error, LoadError::Malformed { .. }))]
#[tokio::test]
async fn parts_are_bounded(#[case] changed: Value, #[case] is_expected: fn(&LoadError) -> bool) {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    compact(&bucket, hour(), 1, &[("type", vec![row(1)])]);
    let (success, part) = (Keys::of(hour()).success(), Keys::of(hour()).part(0));
    let mut compacted: Value = serde_json::from_str(&bucket.text(&success).unwrap()).unwrap();
    compacted["parts"][0]["bytes"] = changed["bytes"].clone();
    bucket.insert(&success, compacted.to_string(), HashMap::new());
    bucket.objects.borrow_mut().remove(&part);
    let failed = invoke(&bucket, &warehouse, notification(hour())).await.unwrap_err();
    assert!(matches!(&failed, HandleError::Load(error) if is_expected(error)), "{failed}");
}

/// What a later release wrote is left to it.
#[rstest]
#[case::of_the_compaction(Keys::of(hour()).success())]
#[case::of_the_load(format!("warehouse/{}/_LOAD.json", hour().partition()))]
#[tokio::test]
async fn unknown_versions_are_errors(#[case] key: String) {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    compact(&bucket, hour(), 1, &[("type", vec![row(1)])]);
    invoke(&bucket, &warehouse, notification(hour())).await.unwrap();
    let mut content: Value = serde_json::from_str(&bucket.text(&key).unwrap()).unwrap();
    content["v"] = json!(2);
    bucket.insert(&key, content.to_string(), HashMap::new());
    let failed = invoke(&bucket, &warehouse, notification(hour())).await.unwrap_err();
    assert!(matches!(failed, HandleError::Load(LoadError::Version { version: 2, .. })), "{failed}");
}

#[rstest]
#[case::of_lines("events/dt=2026-11-21/hour=09/_SUCCESS")]
#[case::a_part("columnar/dt=2026-11-21/hour=09/part-00000.parquet")]
#[case::a_date("columnar/dt=2026-11-21/_SUCCESS")]
#[tokio::test]
async fn other_objects_are_passed_over(#[case] key: &str) {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
    let object: Value = json!({"bucket": {"name": "landing"}, "object": {"key": key}});
    let event = json!({"Records": [{"eventTime": at().rfc3339(), "s3": object}]});
    invoke(&bucket, &warehouse, serde_json::from_value(event).unwrap()).await.unwrap();
    assert_eq!(bucket.calls.get(), 0);
}

// ---- The transaction: every order of two, and each rule that is taken away ----

/// Two compactions of an hour, the second of a later seal with other rows, as the transactions that load them.
async fn transactions(bucket: &MemoryBucket) -> [(Transaction, Vec<Row>); 2] {
    let warehouse = ModelWarehouse::new(bucket, Mutant::None);
    let mut both = Vec::new();
    for (sealed_at, rows) in [(1, vec![row(1), row(2)]), (2, vec![row(1), row(2), row(3)])] {
        // Parts never change: each compaction has keys of its own here.
        let of_its_own = hour().plus(sealed_at);
        compact(bucket, of_its_own, sealed_at, &[("type", rows.clone())]);
        invoke(bucket, &warehouse, notification(of_its_own)).await.unwrap();
        let transaction = warehouse.transaction(warehouse.sent() - 1);
        both.push((Transaction { hour: hour(), ..transaction }, rows));
    }
    both.try_into().unwrap()
}

/// What is wrong with what everybody sees, which must be nothing or one of the compactions, and never an older one again.
fn seen(warehouse: &ModelWarehouse<'_>, both: &[(Transaction, Vec<Row>); 2], newest: &mut i64) -> Result<(), String> {
    let (events, loads) = (warehouse.events(hour()), warehouse.loads(hour()));
    let sealed_at = match &loads[..] {
        [] if events.is_empty() => 0,
        [load] => {
            let (_, rows) = both.iter().find(|(transaction, _)| transaction.etag == load.etag).unwrap();
            if events != *rows {
                return Err(format!("{load:?} with {events:?}"));
            }
            load.sealed_at.0
        }
        _ => return Err(format!("{loads:?} with {events:?}")),
    };
    if sealed_at < *newest {
        return Err(format!("{sealed_at} after {newest}"));
    }
    *newest = sealed_at;
    Ok(())
}

/// Runs two transactions in an order: of its bits, a set one is a step of the second. At `kill` steps, the first ends.
fn run_both(
    bucket: &MemoryBucket,
    mutant: Mutant,
    both: &[(Transaction, Vec<Row>); 2],
    (first, second): (usize, usize),
    (order, kill): (u32, Option<u32>),
) -> Result<(), String> {
    let warehouse = ModelWarehouse::new(bucket, mutant);
    let numbers = [first, second].map(|number| warehouse.add(both[number].0.clone()));
    let mut newest = 0;
    for step in 0..STEPS * 2 {
        if kill == Some(step) {
            warehouse.kill(numbers[0]);
        }
        warehouse.step(numbers[(order >> step & 1) as usize]);
        seen(&warehouse, both, &mut newest)?;
    }
    warehouse.run_all();
    // What was killed comes again.
    warehouse.add(both[first].0.clone());
    warehouse.run_all();
    seen(&warehouse, both, &mut newest)?;
    let expected = i64::try_from(first.max(second)).unwrap() + 1;
    if newest == expected { Ok(()) } else { Err(format!("{newest} at the end")) }
}

/// Statements of a transaction with one group, and its end.
const STEPS: u32 = 10;

/// Of all orders of two transactions in which each runs to its end, one in so many; and of these, one in so many with each kill.
const EACH: u32 = 41;
const EACH_WITH_KILLS: u32 = 7;

/// Runs the orders of two transactions; how many there were.
fn many_orders(mutant: Mutant, bucket: &MemoryBucket, both: &[(Transaction, Vec<Row>); 2]) -> Result<usize, String> {
    let mut runs = 0;
    for pair in [(0, 1), (1, 0), (1, 1)] {
        let orders = (0u32..1 << (STEPS * 2)).filter(|order| order.count_ones() == STEPS);
        for order in orders.filter(|order| order % EACH == 0) {
            let kills = (0..STEPS * 2).filter(|_| order % EACH_WITH_KILLS == 0).map(Some);
            for kill in kills.chain([None]) {
                runs += 1;
                let ran = run_both(bucket, mutant, both, pair, (order, kill));
                ran.map_err(|problem| format!("{pair:?}, order {order:b}, kill {kill:?}: {problem}"))?;
            }
        }
    }
    Ok(runs)
}

#[tokio::test]
async fn two_transactions_in_any_order_leave_the_newer_hour_once() {
    let bucket = MemoryBucket::default();
    let both = transactions(&bucket).await;
    assert!(many_orders(Mutant::None, &bucket, &both).unwrap() > 30_000);
}

#[rstest]
#[tokio::test]
async fn without_any_one_of_its_rules_a_transaction_goes_wrong(
    #[values(
        Mutant::WithoutLock,
        Mutant::LockAfterSnapshot,
        Mutant::WithoutCondition,
        Mutant::WithoutDelete,
        Mutant::TwoTransactions
    )]
    mutant: Mutant,
) {
    let bucket = MemoryBucket::default();
    let both = transactions(&bucket).await;
    assert!(many_orders(mutant, &bucket, &both).is_err());
}

#[rstest]
#[case(Mutant::None, false)]
#[case(Mutant::WithoutCheck, true)]
#[tokio::test]
async fn rows_that_copy_loses_are_noticed(#[case] mutant: Mutant, #[case] is_committed: bool) {
    let bucket = MemoryBucket::default();
    let warehouse = ModelWarehouse::new(&bucket, mutant);
    let [(transaction, _), _] = transactions(&bucket).await;
    warehouse.loses.set(1);
    warehouse.add(transaction);
    warehouse.run_all();
    assert_eq!(!warehouse.loads(hour()).is_empty(), is_committed);
}

// ---- The whole loader: whatever happens, in the end the newest compaction is there ----

#[derive(Debug, Clone)]
enum Happens {
    /// The hour is compacted again, with one more part.
    Compacted,
    /// The function runs, and is killed at this call of S3.
    Invoked {
        by_schedule: bool,
        killed_at: Option<usize>,
    },
    Stepped(usize),
    Killed(usize),
    Forgotten(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    let killed_at = prop::option::of(1usize..8);
    prop_oneof![
        1 => Just(Happens::Compacted),
        3 => (any::<bool>(), killed_at)
            .prop_map(|(by_schedule, killed_at)| Happens::Invoked { by_schedule, killed_at }),
        8 => (0usize..6).prop_map(Happens::Stepped),
        1 => (0usize..6).prop_map(Happens::Killed),
        1 => (0usize..6).prop_map(Happens::Forgotten),
    ]
}

/// The parts of each compaction so far, one row each.
fn compact_again(bucket: &MemoryBucket, versions: &mut usize) {
    *versions += 1;
    let parts: Vec<_> = (0..*versions).map(|number| ("type", vec![row(number)])).collect();
    compact(bucket, hour(), i64::try_from(*versions).unwrap(), &parts);
}

async fn happen(bucket: &MemoryBucket, warehouse: &ModelWarehouse<'_>, what: Happens, versions: &mut usize) {
    match what {
        Happens::Compacted => compact_again(bucket, versions),
        Happens::Invoked { by_schedule, killed_at } => {
            bucket.fails_from.set(killed_at.map(|call| bucket.calls.get() + call));
            let invocation = if by_schedule { schedule(at()) } else { notification(hour()) };
            // A killed one says so, and is forgotten.
            invoke(bucket, warehouse, invocation).await.ok();
            bucket.fails_from.set(None);
        }
        Happens::Stepped(number) => drop(warehouse.step(number)),
        Happens::Killed(number) => warehouse.kill(number),
        Happens::Forgotten(number) => warehouse.forget(number),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_newest_compaction_is_there_once(course in vec(happens(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bucket = MemoryBucket::default();
            let warehouse = ModelWarehouse::new(&bucket, Mutant::None);
            let (mut versions, mut newest) = (0, 0);
            compact_again(&bucket, &mut versions);
            for what in course {
                happen(&bucket, &warehouse, what, &mut versions).await;
                let (events, loads) = (warehouse.events(hour()), warehouse.loads(hour()));
                let loaded = loads.first().map_or(0, |load| usize::try_from(load.sealed_at.0).unwrap());
                prop_assert!(loads.len() <= 1 && loaded >= newest);
                prop_assert_eq!(events, (0..loaded).map(row).collect::<Vec<_>>());
                newest = loaded;
            }
            for _ in 0..3 {
                invoke(&bucket, &warehouse, schedule(at())).await.unwrap();
                warehouse.run_all();
            }
            prop_assert_eq!(warehouse.events(hour()), (0..versions).map(row).collect::<Vec<_>>());
            prop_assert!(load(&bucket, hour()).unwrap().is_committed);
            Ok(())
        })?;
    }
}
