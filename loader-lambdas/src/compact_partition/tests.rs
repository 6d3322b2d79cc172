//! Hours in a bucket in memory: sealed, sealed again, compacted by runs that are killed at any call or run at once. What is in Parquet
//! at the end is compared with a count that knows nothing of plans and parts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;

use bytes::Bytes;
use lambda_setup::memory_bucket::MemoryBucket;
use monitoring_lambdas::manifest::{Entry, EntryContent, Success, Totals as SealedTotals};
use proptest::prelude::*;
use serde_json::json;
use shared::object::{manifest_key, success_key};

use super::columnar::{Compacted, Keys};
use super::parquet_file::PartReader;
use super::*;
use crate::sweep::QUARTER_MILLIS;

const HOUR: &str = "dt=2026-11-21/hour=09";
const PROMOTED: &str = "type:type|event|e";

fn hour() -> UtcHour {
    UtcHour::parse(HOUR).unwrap()
}

fn limits(part_bytes: u64, window_lines: u64) -> Limits {
    Limits {
        event_format: EventFormat::Envelope,
        promoted_fields: PROMOTED.into(),
        part_bytes,
        window_lines,
        part_time: Duration::ZERO,
    }
}

fn bzip2(text: &str) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn line(id: &str, event: &str) -> String {
    let envelope =
        json!({"v": 1, "id": id, "received_at": "2026-11-21T09:32:08.006Z", "request_id": "r", "client": {}});
    let envelope = envelope.to_string();
    format!("{},\"event\":{event}}}\n", &envelope[..envelope.len() - 1])
}

/// A landing bucket with one hour, and what was put into it.
#[derive(Default)]
struct World {
    bucket: MemoryBucket,
    /// By object: its lines as ids and events.
    landed: RefCell<BTreeMap<String, Vec<(String, String)>>>,
    /// By each run that was to commit: how many lines did not become rows.
    said: RefCell<Vec<u64>>,
}

impl World {
    /// Lands an object, or more of it.
    fn land(&self, name: &str, lines: &[(&str, &str)]) {
        let mut landed = self.landed.borrow_mut();
        let landed = landed.entry(format!("events/{HOUR}/{name}.jsonl.bz2")).or_default();
        landed.extend(lines.iter().map(|(id, event)| ((*id).to_owned(), (*event).to_owned())));
        let text: String = landed.iter().map(|(id, event)| line(id, event)).collect();
        self.bucket.insert(&format!("events/{HOUR}/{name}.jsonl.bz2"), bzip2(&text), HashMap::new());
    }

    /// As seal-partition does it.
    fn seal(&self, at: i64) {
        let landed = self.landed.borrow();
        let entries = landed.iter().map(|(key, lines)| Entry {
            key: key.clone(),
            bytes: self.bucket.objects.borrow().get(key).map_or(0, |object| object.content.body.len() as u64),
            content: Some(EntryContent {
                records: 1,
                lines: lines.len() as u64,
                uncompressed_bytes: lines.iter().map(|(id, event)| line(id, event).len() as u64).sum(),
                first_sequence_number: None,
                last_sequence_number: None,
                earliest_received_at: UnixMillis(0),
                latest_received_at: UnixMillis(0),
            }),
        });
        let manifest = json!({"v": 1, "partition": HOUR, "objects": entries.collect::<Vec<_>>()});
        self.bucket.insert(&manifest_key(HOUR), manifest.to_string(), HashMap::new());
        let success = Success {
            v: 1,
            partition: HOUR.into(),
            first_sealed_at: UnixMillis(at),
            sealed_at: UnixMillis(at),
            late_objects: 0,
            manifest: Some(self.bucket.etag(&manifest_key(HOUR))),
            accepted: None,
            totals: SealedTotals::default(),
        };
        self.bucket.insert(&success_key(HOUR), serde_json::to_vec(&success).unwrap(), HashMap::new());
    }

    async fn run(&self, limits: &Limits) -> Result<Outcome, CompactError> {
        let deadline = Deadline::after(Duration::from_secs(60));
        let report = |added: &Totals| self.said.borrow_mut().push(added.difference());
        Compaction::new(&&self.bucket, hour(), limits, deadline).run(&report).await
    }

    fn compacted(&self) -> Option<Compacted> {
        let text = self.bucket.text(&Keys::of(hour()).success())?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn part(&self, key: &str) -> PartReader {
        let objects = self.bucket.objects.borrow();
        PartReader::new(Bytes::copy_from_slice(&objects.get(key).unwrap().content.body)).unwrap()
    }

    /// The rows of the parts that `_SUCCESS` names, after a check of what it says of them.
    fn rows(&self) -> Vec<(String, String)> {
        let compacted = self.compacted().unwrap();
        let mut rows = Vec::new();
        let mut totals = Totals::default();
        for part in &compacted.parts {
            let before = rows.len();
            let reader = self.part(&part.key);
            reader.for_each_id(|id, event| rows.push((id.to_owned(), event.to_owned()))).unwrap();
            assert_eq!(reader.totals().unwrap(), part.totals);
            assert_eq!((rows.len() - before) as u64, part.totals.rows);
            assert_eq!(self.bucket.etag(&part.key), part.etag);
            totals.add(&part.totals);
        }
        assert_eq!(totals, compacted.totals);
        assert_eq!(Some(compacted.manifest), Some(self.bucket.etag(&manifest_key(HOUR))));
        rows
    }

    /// The rows that there must be.
    fn expected(&self) -> BTreeSet<(String, String)> {
        self.landed.borrow().values().flatten().cloned().collect()
    }

    fn check(&self) {
        let rows = self.rows();
        assert_eq!(rows.len(), self.expected().len());
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), self.expected());
    }

    fn parts(&self) -> BTreeMap<String, String> {
        let keys = self.bucket.keys().into_iter().filter(|key| key.ends_with(".parquet"));
        keys.map(|key| (key.clone(), self.bucket.etag(&key))).collect()
    }
}

#[tokio::test]
async fn equal_lines_are_one_row_and_clashing_ids_stay() {
    let world = World::default();
    world.land("a", &[("1", r#"{"n":1.50}"#), ("2", "{}"), ("1", r#"{"n":1.50}"#)]);
    world.land("b", &[("1", r#"{"n":1.5}"#), ("2", "{}"), ("3", "{}")]);
    world.seal(7);
    let Outcome::Compacted(added) = world.run(&limits(1, 100)).await.unwrap() else { panic!("not compacted") };
    let counts = (added.rows, added.doubled, added.clashing, added.lines, added.objects, added.difference());
    assert_eq!(counts, (4, 2, 1, 6, 2, 0));
    world.check();
    assert_eq!(world.parts().len(), 2);
    assert_eq!(world.run(&limits(1, 100)).await.unwrap(), Outcome::Unchanged);
}

#[tokio::test]
async fn what_comes_late_gets_parts_of_its_own() {
    let world = World::default();
    world.land("a", &[("1", "{}"), ("2", "{}")]);
    world.land("c", &[("3", "{}")]);
    world.seal(7);
    world.run(&limits(10_000, 100)).await.unwrap();
    let before = world.parts();
    world.land("b", &[("2", "{}"), ("4", "{}")]);
    // Landing came back with a longer batch.
    world.land("c", &[("5", "{}")]);
    world.seal(8);
    let Outcome::Compacted(added) = world.run(&limits(10_000, 100)).await.unwrap() else { panic!("not compacted") };
    assert_eq!((added.rows, added.doubled, added.objects), (2, 2, 2));
    world.check();
    let after = world.parts();
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|(key, etag)| after.get(key) == Some(etag)));
    assert_eq!(world.compacted().unwrap().sealed_at, UnixMillis(8));
}

#[tokio::test]
async fn an_hour_without_events_has_a_success_and_no_parts() {
    let world = World::default();
    assert_eq!(world.run(&limits(1, 1)).await.unwrap(), Outcome::NotSealed);
    world.seal(7);
    assert_eq!(world.run(&limits(1, 1)).await.unwrap(), Outcome::Compacted(Totals::default()));
    assert_eq!(world.compacted().unwrap().parts, []);
    world.check();
}

#[tokio::test]
async fn a_manifest_that_is_being_replaced_is_left_alone() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    world.seal(7);
    world.bucket.insert(&manifest_key(HOUR), "{}", HashMap::new());
    assert_eq!(world.run(&limits(1, 1)).await.unwrap(), Outcome::Resealing);
    assert!(world.compacted().is_none() && world.parts().is_empty());
}

#[tokio::test]
async fn objects_that_are_gone_or_damaged_are_counted_and_stop_no_others() {
    let world = World::default();
    for name in ["a", "b", "c"] {
        world.land(name, &[(name, "{}"), ("x", "{}")]);
    }
    world.seal(7);
    world.bucket.objects.borrow_mut().remove(&format!("events/{HOUR}/a.jsonl.bz2"));
    world.bucket.insert(&format!("events/{HOUR}/b.jsonl.bz2"), "BZh9", HashMap::new());
    let Outcome::Compacted(added) = world.run(&limits(10_000, 100)).await.unwrap() else { panic!("not compacted") };
    let counts = (added.rows, added.objects, added.missing_objects, added.unreadable_objects, added.lines);
    assert_eq!((counts, added.expected_lines, added.difference()), ((2, 3, 1, 1, 2), 6, 4));
}

#[tokio::test]
async fn lines_without_an_envelope_are_rows_and_what_is_not_json_is_counted() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    world.seal(7);
    let text = format!("{}{{\"foreign\":1}}\n{{\"foreign\":1}}\nnot JSON\n", line("1", "{}"));
    world.bucket.insert(&format!("events/{HOUR}/a.jsonl.bz2"), bzip2(&text), HashMap::new());
    let Outcome::Compacted(added) = world.run(&limits(10_000, 100)).await.unwrap() else { panic!("not compacted") };
    assert_eq!((added.rows, added.doubled, added.not_json, added.lines, added.difference()), (3, 0, 1, 4, 4));
}

#[tokio::test]
async fn without_time_for_a_part_a_run_stops_and_the_next_goes_on() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    world.seal(7);
    let hurried = Limits { part_time: Duration::from_secs(61), ..limits(1, 100) };
    assert_eq!(world.run(&hurried).await.unwrap(), Outcome::Unfinished);
    assert!(world.compacted().is_none());
    assert!(matches!(world.run(&limits(1, 100)).await.unwrap(), Outcome::Compacted(_)));
    world.check();
}

/// The schedule would not go on with it.
#[tokio::test]
async fn without_time_for_a_part_of_an_old_hour_a_run_fails() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    world.seal(7);
    let handler = Handler::new(&world.bucket, Limits { part_time: Duration::from_secs(61), ..limits(1, 100) });
    let deadline = Deadline::after(Duration::from_secs(60));
    let last = hour().plus(8 * 24).start().0 - 1;
    assert!(handler.compact(hour(), deadline, UnixMillis(last), "f").await.is_ok());
    let unfinished = handler.compact(hour(), deadline, UnixMillis(last + 1), "f").await.unwrap_err();
    assert!(unfinished.to_string().starts_with("the time was over before all parts were written"), "{unfinished}");
}

#[tokio::test]
async fn a_difference_is_said_before_it_is_committed() {
    let world = World::default();
    world.land("a", &[("1", "{}"), ("2", "{}")]);
    world.seal(7);
    world.bucket.objects.borrow_mut().remove(&format!("events/{HOUR}/a.jsonl.bz2"));
    world.bucket.refuses.set(Some(("PUT", "columnar/dt=2026-11-21/hour=09/_SUCCESS")));
    assert!(world.run(&limits(1, 100)).await.is_err());
    assert_eq!(*world.said.borrow(), [2]);
}

#[tokio::test]
async fn rows_are_compared_within_their_window() {
    let world = World::default();
    for name in ["a", "b", "c"] {
        world.land(name, &[("1", "{}"), ("1", "{}")]);
    }
    world.seal(7);
    // Two objects a window: the third begins another one.
    let Outcome::Compacted(added) = world.run(&limits(1, 4)).await.unwrap() else { panic!("not compacted") };
    assert_eq!((added.rows, added.doubled), (2, 4));
}

#[tokio::test]
async fn a_part_that_differs_from_what_another_run_made_is_an_error_and_then_taken_as_it_is() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    world.seal(7);
    let key = Keys::of(hour()).part(0);
    let other = {
        let other = World::default();
        other.land("a", &[("2", "{}")]);
        other.seal(7);
        other.run(&limits(1, 100)).await.unwrap();
        let objects = other.bucket.objects.borrow();
        objects.get(&key).unwrap().content.body.clone()
    };
    let written = key.clone();
    world.bucket.meanwhile.replace(Some(Box::new(move |bucket, operation, at| {
        if operation == "PUT" && at == written {
            bucket.insert(at, other.clone(), HashMap::new());
        }
    })));
    assert!(matches!(world.run(&limits(1, 100)).await, Err(CompactError::PartDiffers { .. })));
    world.bucket.meanwhile.take();
    assert!(matches!(world.run(&limits(1, 100)).await, Ok(Outcome::Compacted(_))));
    assert_eq!(world.rows(), [("2".to_owned(), "{}".to_owned())]);
}

#[tokio::test]
async fn the_schedule_finds_what_nobody_asked_for_and_counts_what_is_late() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    let sealed_at = hour().end();
    world.seal(sealed_at.0);
    let deadline = Deadline::after(Duration::from_secs(60));
    let hurried = Handler::new(&world.bucket, Limits { part_time: Duration::from_secs(61), ..limits(1, 100) });
    let due = UnixMillis(sealed_at.0 + 3_600_000);
    for (at, late) in [(UnixMillis(due.0 - 1), 0), (due, 1), (UnixMillis(due.0 + 47 * 3_600_000), 1)] {
        let (found, failed) = hurried.sweep_hours(at, deadline, "f").await;
        assert_eq!((found, failed.is_none()), (late, true), "{at:?}");
    }
    let handler = Handler::new(&world.bucket, limits(1, 100));
    world.bucket.refuses.set(Some(("listing", "columnar/dt=2026-11-21/hour=09/part-")));
    let (found, failed) = handler.sweep_hours(due, deadline, "f").await;
    assert_eq!((found, failed.is_some()), (1, true));
    world.bucket.refuses.set(None);
    assert!(handler.sweep(due, deadline, "f").await.is_ok());
    world.check();
}

#[tokio::test]
async fn a_week_later_an_hour_is_found_by_the_first_run_of_each_hour() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    world.seal(hour().end().0);
    let handler = Handler::new(&world.bucket, limits(1, 100));
    let deadline = Deadline::after(Duration::from_secs(60));
    let later = hour().plus(8 * 24).start().0;
    handler.sweep(UnixMillis(later + QUARTER_MILLIS), deadline, "f").await.unwrap();
    assert!(world.compacted().is_none());
    handler.sweep(UnixMillis(later + QUARTER_MILLIS - 1), deadline, "f").await.unwrap();
    world.check();
}

#[tokio::test]
async fn what_was_gone_is_read_once_it_is_restored_and_sealed_again() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    world.land("b", &[("2", "{}")]);
    world.seal(7);
    let key = format!("events/{HOUR}/a.jsonl.bz2");
    let body = world.bucket.objects.borrow_mut().remove(&key).unwrap().content;
    world.run(&limits(10_000, 100)).await.unwrap();
    assert_eq!(world.compacted().unwrap().totals.missing_objects, 1);
    world.bucket.insert(&key, body.body, HashMap::new());
    // The same manifest, to the byte.
    world.seal(8);
    let Outcome::Compacted(added) = world.run(&limits(10_000, 100)).await.unwrap() else { panic!("not compacted") };
    assert_eq!((added.rows, added.doubled, added.difference()), (1, 1, 0));
    world.check();
}

#[tokio::test]
async fn a_manifest_that_comes_back_ends_compacted_and_not_due() {
    let world = World::default();
    world.land("a", &[("1", "{}")]);
    world.seal(7);
    world.run(&limits(1, 100)).await.unwrap();
    let first = world.landed.borrow().clone();
    world.land("b", &[("2", "{}")]);
    world.seal(8);
    world.run(&limits(1, 100)).await.unwrap();
    world.landed.replace(first);
    world.seal(9);
    assert!(matches!(world.run(&limits(1, 100)).await.unwrap(), Outcome::Compacted(Totals { rows: 0, .. })));
    assert_eq!(world.compacted().unwrap().sealed_at, UnixMillis(9));
    assert_eq!(world.run(&limits(1, 100)).await.unwrap(), Outcome::Unchanged);
}

/// A run that is held at each of its calls while the hour is sealed again and another run compacts it.
#[tokio::test]
async fn an_older_run_that_ends_last_changes_nothing() {
    for call in 1..=16 {
        let world = World::default();
        world.land("a", &[("1", "{}")]);
        world.land("c", &[("2", "{}")]);
        world.seal(7);
        world.bucket.pauses_at.set(Some(call));
        let limits = limits(1, 100);
        let newer = async {
            while world.bucket.calls.get() < call && world.compacted().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            world.land("b", &[("2", "{}"), ("3", "{}")]);
            world.seal(8);
            if world.bucket.calls.get() < call {
                // The older one is over: there is none to hold.
                world.bucket.pauses_at.set(None);
            }
            let newer = world.run(&limits).await;
            world.bucket.pauses_at.set(None);
            newer
        };
        let (older, newer) = tokio::join!(world.run(&limits), newer);
        assert!(matches!(newer, Ok(Outcome::Compacted(_) | Outcome::Unchanged)), "{call}: {newer:?}");
        assert!(older.is_ok(), "{call}: {older:?}");
        world.check();
        assert_eq!(world.compacted().unwrap().sealed_at, UnixMillis(8), "{call}");
    }
}

/// What happens to an hour.
#[derive(Debug, Clone)]
enum Step {
    Land(u8, Vec<(u8, u8)>),
    Seal,
    /// A run that is killed at this call.
    Killed(usize),
    /// Two runs at once, which take turns by these bits.
    Twice(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6, prop::collection::vec((0u8..9, 0u8..2), 1..5)).prop_map(|(name, lines)| Step::Land(name, lines)),
        Just(Step::Seal),
        (1usize..20).prop_map(Step::Killed),
        any::<u64>().prop_map(Step::Twice),
    ]
}

async fn history(steps: &[Step], part_bytes: u64) {
    let world = World::default();
    let limits = limits(part_bytes, 1_000);
    let mut parts = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Land(name, lines) => {
                let lines: Vec<_> = lines.iter().map(|(id, n)| (id.to_string(), format!("{{\"n\":{n}}}"))).collect();
                let lines: Vec<_> = lines.iter().map(|(id, event)| (&**id, &**event)).collect();
                world.land(&name.to_string(), &lines);
            }
            Step::Seal => world.seal(number as i64),
            Step::Killed(call) => {
                world.bucket.calls.set(0);
                world.bucket.fails_from.set(Some(*call));
                // Killed or done: either is right.
                world.run(&limits).await.ok();
                world.bucket.fails_from.set(None);
            }
            Step::Twice(turns) => {
                world.bucket.turns.set(*turns);
                let (one, other) = tokio::join!(world.run(&limits), world.run(&limits));
                world.bucket.turns.set(0);
                assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
            }
        }
        // What was read once stays.
        for (key, etag) in &parts {
            assert_eq!(world.parts().get(key), Some(etag), "{key}");
        }
        parts = world.parts();
    }
    world.seal(steps.len() as i64);
    world.run(&limits).await.unwrap();
    world.check();
    assert!(world.parts().keys().eq(world.compacted().unwrap().parts.iter().map(|part| &part.key)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn each_row_is_there_once_whatever_happened(steps in prop::collection::vec(step(), 1..14), part_bytes in 1u64..2_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(history(&steps, part_bytes));
    }
}

#[tokio::test]
async fn a_rerun_gives_the_same_bytes() {
    let mut made = Vec::new();
    for killed_at in [None, Some(6), Some(7), Some(9)] {
        let world = World::default();
        for name in ["a", "b", "c"] {
            world.land(name, &[(name, "{\"type\":\"play\"}"), ("x", "{}")]);
        }
        world.seal(7);
        world.bucket.fails_from.set(killed_at);
        assert_eq!(world.run(&limits(1, 100)).await.is_err(), killed_at.is_some());
        world.bucket.fails_from.set(None);
        world.run(&limits(1, 100)).await.unwrap();
        made.push((world.parts(), world.compacted()));
    }
    assert_eq!(made[0].0.len(), 3);
    assert!(made.iter().all(|made_by| *made_by == made[0]));
}
