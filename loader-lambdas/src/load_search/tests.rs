//! The handler against a bucket and a cluster in memory: whatever goes wrong, and however often a message comes, each line is
//! one document or kept as unloadable.

mod model_cluster;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::time::Duration;

use bzip2::Compression;
use bzip2::write::BzEncoder;
use lambda_runtime::Context;
use lambda_setup::memory_bucket::MemoryBucket;
use proptest::collection::vec;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::timestamp::UnixMillis;

use super::batch::MAX_REQUEST_BYTES;
use super::deliver::MIN_FAILURES;
use super::handler::Handler;
use super::notification::{SqsAnswer, SqsEvent};
use super::retry::MAX_RETRIES;
use crate::promoted::PromotedFields;
use model_cluster::{CONFLICT, Fault, ModelCluster, POISON};

const NOW: UnixMillis = UnixMillis(1_795_253_530_006);

/// The function's environment: the same over several invocations.
struct World {
    bucket: MemoryBucket,
    cluster: ModelCluster,
}

fn key(number: usize) -> String {
    format!("events/dt=2026-11-2{}/hour=09/shardId-000000000000-{number}.jsonl.bz2", number % 2)
}

fn unloadable_key(key: &str) -> String {
    format!("unloadable/search/{key}.jsonl")
}

fn message(id: &str, key: &str) -> Value {
    let entity = json!({"bucket": {"name": "landing"}, "object": {"key": key.replace('=', "%3D")}});
    let body = json!({"Records": [{"eventTime": "2026-11-21T09:32:09.006Z", "s3": entity}]}).to_string();
    json!({"messageId": id, "body": body})
}

/// As S3 sends it: its ETags have no quotes there.
fn of_version(key: &str, etag: &str) -> Value {
    let entity = json!({"bucket": {"name": "landing"}, "object": {"key": key, "eTag": etag.trim_matches('"')}});
    let body = json!({"Records": [{"eventTime": "2026-11-21T09:32:09.006Z", "s3": entity}]}).to_string();
    json!({"messageId": etag, "body": body})
}

fn event(number: u32) -> String {
    format!(
        r#"{{"v":1,"id":"{number}","received_at":"2026-11-21T09:32:08.006Z","client":{{}},"event":{{"type":"e{number}"}}}}"#
    )
}

fn conflicting(number: u32) -> String {
    event(number).replace(r#""type""#, &format!("{CONFLICT:?}"))
}

fn poison(number: u32) -> String {
    event(number).replace(r#""type""#, &format!("{POISON:?}"))
}

impl World {
    fn new() -> Self {
        Self { bucket: MemoryBucket::default(), cluster: ModelCluster::default() }
    }

    fn land(&self, key: &str, lines: &[String]) {
        self.put(key, lines, HashMap::new());
    }

    fn put(&self, key: &str, lines: &[String], metadata: HashMap<String, String>) {
        let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
        lines.iter().for_each(|line| writeln!(encoder, "{line}").unwrap());
        self.bucket.insert(key, encoder.finish().unwrap(), metadata);
    }

    async fn invoke(&self, messages: &[Value]) -> SqsAnswer {
        let handler = Handler {
            open: |_| &self.bucket,
            cluster: &self.cluster,
            index_prefix: "playhead".into(),
            promoted: PromotedFields::parse("type:type").unwrap(),
            clock: || NOW,
            jitter: || 0.5,
            is_prepared: Cell::new(false),
        };
        let event: SqsEvent = serde_json::from_value(json!({"Records": messages})).unwrap();
        let mut context = Context::default();
        context.deadline = u64::try_from((lambda_setup::now().0) + 185_000).unwrap();
        let Ok(answer) = handler.handle(event, context).await;
        answer
    }

    async fn failed(&self, messages: &[Value]) -> Vec<String> {
        self.invoke(messages).await.failed().map(str::to_owned).collect()
    }

    /// The types of the events that are documents.
    fn loaded(&self) -> Vec<String> {
        let documents = self.cluster.documents.borrow();
        let mut types: Vec<_> =
            documents.values().map(|document| document["type"].as_str().unwrap().to_owned()).collect();
        types.sort();
        types
    }

    /// The lines that are kept of an object, in their order.
    fn kept(&self, key: &str) -> Vec<Value> {
        let text = self.bucket.text(&unloadable_key(key)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn each_event_is_a_document_of_its_day() {
    let world = World::new();
    world.land(&key(1), &[event(1), event(2)]);
    world.land(&key(2), &[event(1)]);
    assert!(world.failed(&[message("m-1", &key(1)), message("m-2", &key(2))]).await.is_empty());
    let documents = world.cluster.documents.borrow();
    let id = hex::encode(Sha256::digest(event(1)));
    let indexes: Vec<_> = documents.keys().filter(|(_, other)| *other == id).map(|(index, _)| index.as_str()).collect();
    assert_eq!((documents.len(), indexes), (3, vec!["playhead-2026.11.20", "playhead-2026.11.21"]));
    let templates = world.cluster.templates.borrow();
    assert_eq!((templates.len(), templates[0].0.as_str()), (1, "playhead"));
}

#[tokio::test(start_paused = true)]
async fn other_objects_are_passed_over() {
    let world = World::new();
    for other in
        ["events/dt=2026-11-21/hour=09/_SUCCESS", "rejected/dt=2026-11-21/hour=09/shardId-0-1.jsonl.bz2", &key(7)]
    {
        assert!(world.failed(&[message("m", other)]).await.is_empty(), "{other}");
    }
    assert_eq!(world.cluster.bulk_calls.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_brings_no_index_back() {
    let world = World::new();
    world.land(&key(1), &[event(1), event(2), event(3)]);
    let landed = of_version(&key(1), &world.bucket.etag(&key(1)));
    let metadata = HashMap::from([("landed-etag".to_owned(), world.bucket.etag(&key(1)).trim_matches('"').to_owned())]);
    let rewritten = [&[event(2), event(3)][..], &[event(2)]].map(|left| {
        world.put(&key(1), left, metadata.clone());
        of_version(&key(1), &world.bucket.etag(&key(1)))
    });
    assert!(world.failed(&rewritten).await.is_empty());
    assert_eq!(world.cluster.bulk_calls.get(), 0);
    // What was still in the queue is loaded, and so is what a person asks for.
    assert!(world.failed(&[landed]).await.is_empty());
    assert_eq!((world.loaded(), world.cluster.bulk_calls.get()), (vec!["e2".to_owned()], 1));
    assert!(world.failed(&[message("m", &key(1))]).await.is_empty());
    assert_eq!((world.loaded(), world.cluster.bulk_calls.get()), (vec!["e2".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_fails_alone() {
    let world = World::new();
    world.bucket.insert(&key(1), "no bzip2", HashMap::new());
    world.land(&key(2), &[event(2)]);
    let messages = [json!({"messageId": "m-0", "body": "x"}), message("m-1", &key(1)), message("m-2", &key(2))];
    assert_eq!(world.failed(&messages).await, ["m-0", "m-1"]);
    assert_eq!(world.loaded(), ["e2"]);
}

#[rstest]
#[case::unauthorized(Fault::Status(401), 1)]
#[case::forbidden(Fault::Status(403), 1)]
#[case::bad_request(Fault::Status(400), 3)]
#[case::blocked(Fault::Blocked, 1)]
#[case::busy(Fault::Status(503), 1 + MAX_RETRIES as usize)]
#[case::throttled(Fault::Status(429), 1 + MAX_RETRIES as usize)]
#[case::broken(Fault::Broken, 1 + MAX_RETRIES as usize)]
#[case::unreadable(Fault::Unreadable, 3 * (1 + MAX_RETRIES as usize))]
#[case::item_missing(Fault::ItemMissing, 3 * (1 + MAX_RETRIES as usize))]
#[case::always_busy(Fault::Busy(429, "es_rejected_execution_exception", 0), 1 + MAX_RETRIES as usize)]
#[case::silent(Fault::TimeOutAfterStoring, 6)]
#[tokio::test(start_paused = true)]
async fn a_cluster_that_takes_nothing_fails_all_messages(#[case] fault: Fault, #[case] calls: usize) {
    let world = World::new();
    world.cluster.lasting.set(Some(fault));
    (1..4).for_each(|number| world.land(&key(number), &[event(1)]));
    let messages = [message("m-1", &key(1)), message("m-2", &key(2)), message("m-3", &key(3))];
    let began = tokio::time::Instant::now();
    assert_eq!(world.failed(&messages).await, ["m-1", "m-2", "m-3"]);
    assert_eq!(world.cluster.bulk_calls.get(), calls);
    assert!(began.elapsed() <= Duration::from_secs(180));
    assert!(world.bucket.keys().iter().all(|key| key.starts_with("events/")));
    world.cluster.lasting.set(None);
    assert!(world.failed(&messages).await.is_empty());
    assert_eq!(world.loaded(), ["e1", "e1"]);
}

#[rstest]
#[case::closed(400, json!({"type": "index_closed_exception", "reason": "closed"}))]
#[case::read_only(403, json!({"type": "cluster_block_exception", "reason": "index [playhead-2026.11.21] blocked by: [F]"}))]
#[case::not_there(404, json!({"type": "index_not_found_exception", "reason": "no such index"}))]
#[tokio::test(start_paused = true)]
async fn an_index_that_can_not_be_written_does_not_stop_the_others(#[case] status: u16, #[case] error: Value) {
    let world = World::new();
    world.cluster.unwritable.replace(Some(("playhead-2026.11.21".into(), status, error)));
    (1..4).for_each(|number| world.land(&key(number), &[event(1), event(2)]));
    let messages = [message("m-1", &key(1)), message("m-2", &key(2)), message("m-3", &key(3))];
    assert_eq!(world.failed(&messages).await, ["m-1", "m-3"]);
    assert_eq!(world.loaded(), ["e1", "e2"]);
    world.cluster.unwritable.replace(None);
    assert!(world.failed(&messages).await.is_empty());
    assert_eq!((world.loaded().len(), world.kept(&key(1)).len()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn documents_that_are_not_taken_while_others_are_do_not_stop_other_objects() {
    let world = World::new();
    world.cluster.lasting.set(Some(Fault::Busy(429, "es_rejected_execution_exception", 0)));
    (1..3).for_each(|number| world.land(&key(number), &[event(1), event(2)]));
    assert_eq!(world.failed(&[message("m-1", &key(1)), message("m-2", &key(2))]).await, ["m-1", "m-2"]);
    assert_eq!((world.loaded(), world.cluster.bulk_calls.get()), (vec!["e2".into(), "e2".into()], 22));
}

#[rstest]
#[case::among_others(vec![event(1), poison(2), conflicting(3)], true)]
#[case::first(vec![poison(2), event(1)], true)]
#[case::alone(vec![poison(2)], false)]
#[case::two(vec![poison(2), poison(3), event(1)], false)]
#[tokio::test(start_paused = true)]
async fn a_document_at_which_the_cluster_always_fails_is_kept_once_all_others_are_done(
    #[case] lines: Vec<String>,
    #[case] is_kept: bool,
    #[values(None, Some(350))] max_request_bytes: Option<usize>,
) {
    let world = World::new();
    world.cluster.max_request_bytes.set(max_request_bytes);
    world.land(&key(1), &lines);
    world.land(&key(2), &[event(7)]);
    let failed = world.failed(&[message("m-1", &key(1)), message("m-2", &key(2))]).await;
    assert_eq!(failed, if is_kept { vec![] } else { vec!["m-1"] });
    assert!(world.loaded().contains(&"e7".into()), "the other object is not loaded");
    let kept = world.kept(&key(1));
    assert_eq!(kept.iter().any(|line| line["type"] == "null_pointer_exception"), is_kept, "{kept:?}");
}

#[rstest]
#[case::at_the_bound(MIN_FAILURES, true)]
#[case::one_less(MIN_FAILURES - 1, false)]
#[tokio::test(start_paused = true)]
async fn a_document_is_kept_only_if_the_cluster_failed_at_it_often_enough(
    #[case] failures: u32,
    #[case] is_kept: bool,
) {
    let world = World::new();
    world.land(&key(1), &[event(1), event(2)]);
    let busy = Fault::Busy(429, "es_rejected_execution_exception", 0);
    let fails = Fault::Busy(500, "null_pointer_exception", 0);
    let attempts = (0..=MAX_RETRIES).map(|attempt| if attempt + failures > MAX_RETRIES { fails } else { busy });
    world.cluster.faults.borrow_mut().extend(attempts);
    assert_eq!(world.failed(&[message("m", &key(1))]).await.is_empty(), is_kept);
    assert_eq!(world.kept(&key(1)).len(), usize::from(is_kept));
    assert_eq!(world.loaded(), ["e2"]);
}

fn large(number: u32) -> String {
    let text = "x".repeat(3 << 20);
    conflicting(number).replace("\"client\"", &format!("\"request_id\":\"{text}\",\"client\""))
}

/// What is kept takes two objects.
#[rstest]
#[case::refused_lines(vec![large(1), event(2), large(3), large(4), "no JSON".into()])]
#[case::no_events(vec![event(2), large(1), large(3), "x".repeat(3 << 20), "no JSON".into()])]
#[tokio::test(start_paused = true)]
async fn a_run_that_s3_fails_at_any_call_loses_no_line(
    #[case] lines: Vec<String>,
    #[values(false, true)] answers_again: bool,
    #[values(1, 2, 3, 4)] failed_call: usize,
) {
    const CALLS: usize = 3;
    let world = World::new();
    world.land(&key(1), &lines);
    world.bucket.fails_from.set(Some(failed_call));
    if answers_again {
        let fails_once = move |bucket: &MemoryBucket, _: &str, _: &str| {
            bucket.fails_from.set(Some(failed_call).filter(|call| *call == bucket.calls.get()));
        };
        world.bucket.meanwhile.replace(Some(Box::new(fails_once)));
    }
    assert_eq!(world.failed(&[message("m", &key(1))]).await.is_empty(), failed_call > CALLS);
    world.bucket.meanwhile.replace(None);
    world.bucket.fails_from.set(None);
    assert!(world.failed(&[message("m", &key(1))]).await.is_empty());
    let second = unloadable_key(&key(1)).replace(".bz2.jsonl", ".bz2.2.jsonl");
    let second = world.bucket.text(&second).map_or(0, |text| text.lines().count());
    assert_eq!((world.kept(&key(1)).len(), second, world.loaded()), (3, 1, vec!["e2".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_lines_can_not_be_kept_fails_alone() {
    let world = World::new();
    let kept = "unloadable/search/events/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2.jsonl";
    assert_eq!(kept, unloadable_key(&key(1)));
    world.land(&key(1), &[conflicting(1), event(2)]);
    world.land(&key(2), &[conflicting(3)]);
    world.bucket.refuses.set(Some(("PUT", kept)));
    assert_eq!(world.failed(&[message("m-1", &key(1)), message("m-2", &key(2))]).await, ["m-1"]);
    assert_eq!((world.kept(&key(1)).len(), world.kept(&key(2)).len()), (0, 1));
}

#[rstest]
#[case::forbidden(Fault::Status(403), 1)]
#[case::not_json(Fault::Unreadable, 1)]
#[case::busy(Fault::Status(503), 1 + MAX_RETRIES as usize)]
#[case::broken(Fault::Broken, 1 + MAX_RETRIES as usize)]
#[tokio::test(start_paused = true)]
async fn nothing_is_loaded_before_the_template_is_put(#[case] fault: Fault, #[case] calls: usize) {
    let world = World::new();
    world.land(&key(1), &[event(1)]);
    world.cluster.setup_faults.borrow_mut().extend(vec![fault; calls]);
    assert_eq!(world.failed(&[message("m", &key(1))]).await, ["m"]);
    assert_eq!((world.cluster.bulk_calls.get(), world.cluster.setup_faults.borrow().len()), (0, 0));
    assert!(world.cluster.templates.borrow().is_empty());
    assert!(world.failed(&[message("m", &key(1))]).await.is_empty());
    assert_eq!((world.loaded(), world.cluster.templates.borrow().len()), (vec!["e1".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_is_halved_and_a_single_document_refused() {
    let world = World::new();
    let large = event(9).replace("e9", &"x".repeat(1_000));
    let lines = [&[event(1), event(2), large.clone()][..], &[event(3)]].concat();
    world.land(&key(1), &lines);
    world.cluster.max_request_bytes.set(Some(800));
    assert!(world.failed(&[message("m", &key(1))]).await.is_empty());
    assert_eq!(world.loaded(), ["e1", "e2", "e3"]);
    let kept = world.kept(&key(1));
    assert_eq!((kept.len(), &kept[0]["type"]), (1, &json!("request_too_large")));
    assert_eq!(kept[0]["line"], serde_json::from_str::<Value>(&large).unwrap());
}

#[tokio::test(start_paused = true)]
async fn requests_stay_within_their_bound_and_a_larger_line_goes_alone() {
    let world = World::new();
    let long = |number: u32, bytes| {
        event(number).replace("\"client\"", &format!("\"request_id\":\"{}\",\"client\"", "x".repeat(bytes)))
    };
    let lines = [long(1, MAX_REQUEST_BYTES / 2), long(2, MAX_REQUEST_BYTES / 2), long(3, MAX_REQUEST_BYTES), event(4)];
    world.land(&key(1), &lines);
    assert!(world.failed(&[message("m", &key(1))]).await.is_empty());
    assert_eq!((world.loaded().len(), world.cluster.bulk_calls.get()), (4, 4));
    assert!(world.cluster.largest_request.get() < MAX_REQUEST_BYTES + 1_000);
}

#[tokio::test(start_paused = true)]
async fn unloadable_lines_are_kept_in_the_order_in_which_they_landed() {
    let world = World::new();
    world.land(&key(1), &[conflicting(1), "no JSON".into(), event(2), conflicting(3), "[]".into()]);
    world.cluster.faults.borrow_mut().push_back(Fault::Busy(429, "circuit_breaking_exception", 0));
    for _ in 0..2 {
        assert!(world.failed(&[message("m", &key(1))]).await.is_empty());
        let kinds: Vec<_> = world.kept(&key(1)).iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect();
        let (mapping, line) = ("mapper_parsing_exception", "not_an_event");
        assert_eq!(kinds, [mapping, line, mapping, line]);
        assert_eq!(world.loaded(), ["e2"]);
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    let kinds = vec![
        (429, "es_rejected_execution_exception"),
        (429, "circuit_breaking_exception"),
        (403, "cluster_block_exception"),
        (503, "unavailable_shards_exception"),
        (500, "null_pointer_exception"),
    ];
    prop_oneof![
        2 => Just(Fault::None),
        2 => prop::sample::select(vec![429, 500, 502, 503, 504, 401, 403]).prop_map(Fault::Status),
        4 => (prop::sample::select(kinds), 0..3usize).prop_map(|((status, kind), from)| Fault::Busy(status, kind, from)),
        1 => Just(Fault::Broken),
        1 => Just(Fault::TimeOutAfterStoring),
        1 => Just(Fault::Unreadable),
        1 => Just(Fault::ItemMissing),
        1 => Just(Fault::Blocked),
    ]
}

/// What goes wrong with a call before the first document is sent.
fn setup_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        2 => prop::sample::select(vec![429, 500, 503, 401, 403]).prop_map(Fault::Status),
        1 => Just(Fault::Broken),
        1 => Just(Fault::TimeOutAfterStoring),
        1 => Just(Fault::Unreadable),
    ]
}

/// The lines of an object, perhaps with one at which the cluster always fails, beside one that it takes.
fn object() -> impl Strategy<Value = Vec<String>> {
    (vec(line(), 0..12), prop::option::weighted(0.3, any::<prop::sample::Index>())).prop_map(|(mut lines, at)| {
        if let Some(at) = at {
            let at = at.index(lines.len() + 1);
            lines.splice(at..at, [event(90), poison(91)]);
        }
        lines
    })
}

/// Events of which some are the same, events that the cluster refuses, and what is no event.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0u32..40).prop_map(event),
        2 => (0u32..5).prop_map(conflicting),
        1 => Just("no JSON".to_owned()),
    ]
}

fn is_loadable(line: &str) -> bool {
    line.starts_with('{') && !line.contains(CONFLICT) && !line.contains(POISON)
}

/// Lines by their object's key; `None` for what is not JSON.
type Kept = BTreeMap<String, Vec<Option<Value>>>;

/// What the documents must be in the end, and the lines that are kept of each object.
fn expected(objects: &[Vec<String>]) -> (BTreeSet<(String, String)>, Kept) {
    let (mut documents, mut kept) = (BTreeSet::new(), BTreeMap::new());
    for (number, lines) in objects.iter().enumerate() {
        let index = format!("playhead-2026.11.2{}", number % 2);
        let loadable = lines.iter().filter(|line| is_loadable(line));
        documents.extend(loadable.map(|line| (index.clone(), hex::encode(Sha256::digest(line)))));
        let others = lines.iter().filter(|line| !is_loadable(line));
        kept.insert(key(number), others.map(|line| serde_json::from_str(line).ok()).collect());
    }
    (documents, kept)
}

/// `kills` are the calls of S3, counted in each invocation, from which on it answers no more.
async fn until_all_are_done(world: &World, messages: &[Value], repeats: &[bool], kills: &[Option<usize>]) {
    let (mut waiting, mut rounds) = (messages.to_vec(), 0);
    while !waiting.is_empty() {
        rounds += 1;
        assert!(rounds < 80, "the faults are over, and {} messages still fail", waiting.len());
        let killed_at = kills.get(rounds - 1).copied().flatten();
        world.bucket.fails_from.set(killed_at.map(|call| world.bucket.calls.get() + call));
        let failed = world.failed(&waiting).await;
        // A standard queue may deliver again what is done.
        let is_repeated = |number: usize| repeats.get(number + rounds).copied().unwrap_or_default();
        let again = messages
            .iter()
            .enumerate()
            .filter(|(number, message)| failed.iter().any(|id| message["messageId"] == **id) || is_repeated(*number));
        waiting = again.map(|(_, message)| message.clone()).collect();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn each_line_is_one_document_or_is_kept_whatever_goes_wrong(
        objects in vec(object(), 1..4),
        faults in vec(fault(), 0..25),
        setup_faults in vec(setup_fault(), 0..10),
        repeats in vec(any::<bool>(), 0..8),
        kills in vec(prop::option::of(1usize..9), 0..6),
        max_request_bytes in prop::option::of(500usize..3_000),
    ) {
        let world = World::new();
        world.cluster.faults.borrow_mut().extend(faults);
        world.cluster.setup_faults.borrow_mut().extend(setup_faults);
        world.cluster.max_request_bytes.set(max_request_bytes);
        objects.iter().enumerate().for_each(|(number, lines)| world.land(&key(number), lines));
        let messages: Vec<_> = (0..objects.len()).map(|number| message(&format!("m-{number}"), &key(number))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(until_all_are_done(&world, &messages, &repeats, &kills));
        let (documents, kept) = expected(&objects);
        prop_assert_eq!(world.cluster.documents.borrow().keys().cloned().collect::<BTreeSet<_>>(), documents);
        for (key, lines) in kept {
            let found: Vec<_> = world.kept(&key).iter().map(|line| line.get("line").cloned()).collect();
            prop_assert_eq!(found, lines);
        }
    }
}
