//! Objects land at any call of runs that are stopped, killed or doubled, and check-object's marker follows when it likes. At
//! the end each object is in the manifest, `_SUCCESS` names that manifest, and late objects are counted once.
//!
//! The same model finds what is lost when one of the rules that this rests on is taken away.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use generators::sabotage::{asked_for, shrink_steps};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use rstest::rstest;

use super::*;
use crate::manifest::{BROKEN_PREFIX, RESEAL_SUFFIX, broken_key, late_key};
use lambda_setup::bucket::{Bucket, BucketError, Condition, Content, Head, List, Page, Part, Uploads};

const PARTITION: &str = "dt=2026-11-21/hour=05";
const SUCCESS: &str = "events/dt=2026-11-21/hour=05/_SUCCESS";
const MANIFEST: &str = "events/dt=2026-11-21/hour=05/_MANIFEST.json";

/// A rule that is taken away, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Who goes on with a listing leaves `late/` to the next run.
    LeavingMarkers,
    /// Each run asks for a seal of its own.
    OwnReseals,
    /// Nothing that changed meanwhile is replaced.
    Conditions,
}

/// An object that lands at a call, counted over all runs, and how many calls later its `late/` marker is put.
#[derive(Debug, Clone)]
struct Arrival {
    call: usize,
    marker_after: usize,
    kind: Kind,
    number: u64,
}

/// What happens to an invocation.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// All of its calls from this one on fail.
    Crash(usize),
    /// The time is up after so many calls.
    TimeUp(usize),
}

/// One or two invocations at once.
#[derive(Debug, Clone)]
struct Round {
    /// The event of a marker, if there is one, instead of the schedule's next.
    follows_marker: bool,
    fault: Fault,
    /// A second one, of the same event or of the schedule's next.
    second: Option<(bool, Fault)>,
    /// At which calls the other one goes on; the bits go round.
    turns: u64,
}

/// What has become of the hour when objects begin to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Open,
    /// What arrives is late.
    Sealed,
    /// An object of it is broken until the end.
    Held,
}

#[derive(Debug, Clone)]
struct History {
    start: Start,
    /// Whether the hour is further back than a run looks by itself: only what names it has it sealed.
    is_old: bool,
    arrivals: Vec<Arrival>,
    rounds: Vec<Round>,
}

/// Histories of any kind, and those in which most can go wrong.
fn history() -> impl Strategy<Value = History> {
    prop_oneof![any_history(), doubled_reseals()]
}

fn any_history() -> impl Strategy<Value = History> {
    let fault = prop_oneof![
        2 => Just(Fault::None),
        2 => (1..60usize).prop_map(Fault::Crash),
        2 => (0..40usize).prop_map(Fault::TimeUp),
    ];
    let second = prop::option::weighted(0.7, (any::<bool>(), fault.clone()));
    let round = (any::<bool>(), fault, second, any::<u64>(), any::<u64>());
    let round = round.prop_map(|(follows_marker, fault, second, turns, fewer)| Round {
        follows_marker,
        fault,
        second,
        turns: turns & fewer,
    });
    let arrivals = prop::collection::vec(arrival(150, 60), 1..4);
    let start = prop_oneof![Just(Start::Open), Just(Start::Sealed), Just(Start::Held)];
    let parts = (start, prop::bool::weighted(0.1), arrivals, prop::collection::vec(round, 1..5));
    parts.prop_map(|(start, is_old, arrivals, rounds)| History { start, is_old, arrivals, rounds })
}

/// Late objects and their markers come during two runs of which one does not finish.
fn doubled_reseals() -> impl Strategy<Value = History> {
    let cut = prop_oneof![(10..45usize).prop_map(Fault::Crash), (10..40usize).prop_map(Fault::TimeUp)];
    let round = (any::<bool>(), cut, any::<u64>()).prop_map(|(same_event, cut, turns)| Round {
        follows_marker: false,
        fault: Fault::None,
        second: Some((same_event, cut)),
        turns,
    });
    let parts = (prop::collection::vec(arrival(80, 6), 2..4), prop::collection::vec(round, 1..3));
    parts.prop_map(|(arrivals, rounds)| History { start: Start::Sealed, is_old: false, arrivals, rounds })
}

/// An object that lands within so many calls, and its marker so many calls later at most.
fn arrival(calls: usize, marker_after: usize) -> impl Strategy<Value = Arrival> {
    let kind = prop_oneof![3 => Just(Kind::Event), 1 => Just(Kind::Rejected)];
    let arrival = (0..calls, 0..marker_after, kind, 1..60u64);
    arrival.prop_map(|(call, marker_after, kind, number)| Arrival { call, marker_after, kind, number })
}

/// What one invocation sees of the bucket.
struct Client<'a> {
    bucket: &'a MemoryBucket,
    without: Without,
    fault: Fault,
    calls: Cell<usize>,
}

type Result<T> = std::result::Result<T, BucketError>;

/// Calls for these are not counted: with an old hour there are many at the beginning of each run.
fn is_of_another_hour(key: &str) -> bool {
    key.contains("/hour=") && !key.contains(PARTITION)
}

impl Client<'_> {
    fn time_is_up(&self) -> bool {
        matches!(self.fault, Fault::TimeUp(calls) if self.calls.get() >= calls)
    }

    fn call(&self, key: &str) -> Result<()> {
        self.calls.set(self.calls.get() + usize::from(!is_of_another_hour(key)));
        match self.fault {
            Fault::Crash(first) if self.calls.get() >= first => {
                Err(BucketError::Failed { operation: "call", key: key.to_owned(), problem: "killed".into() })
            }
            _ => Ok(()),
        }
    }

    fn condition<'c>(&self, condition: Condition<'c>) -> Condition<'c> {
        if self.without == Without::Conditions { Condition::Always } else { condition }
    }

    /// One record of a reseal for all runs: whoever is done with it is done with all.
    fn share_reseals(&self, key: &str) {
        if self.without == Without::OwnReseals && key.ends_with(RESEAL_SUFFIX) {
            self.bucket.objects.borrow_mut().retain(|other, _| other == key || !other.ends_with(RESEAL_SUFFIX));
        }
    }
}

impl Bucket for &Client<'_> {
    async fn list(&self, list: List<'_>) -> Result<Page> {
        self.call(list.prefix)?;
        self.bucket.list(list).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>> {
        self.call(key)?;
        self.bucket.head(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Content>> {
        self.call(key)?;
        let found = self.bucket.get(key).await?;
        if self.without == Without::LeavingMarkers && key.starts_with("sealing/") && key.ends_with(".json") {
            self.bucket.objects.borrow_mut().remove(&late_key(PARTITION));
        }
        Ok(found)
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition<'_>) -> Result<String> {
        self.call(key)?;
        let is_done = body.ends_with(b"true}");
        let etag = self.bucket.put(key, body, self.condition(condition)).await?;
        if is_done {
            self.share_reseals(key);
        }
        Ok(etag)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.call(key)?;
        self.bucket.delete(key).await?;
        self.share_reseals(key);
        Ok(())
    }

    async fn delete_matching(&self, key: &str, etag: &str) -> Result<()> {
        self.call(key)?;
        self.bucket.delete_matching(key, etag).await
    }
}

impl Uploads for &Client<'_> {
    async fn create_upload(&self, key: &str) -> Result<String> {
        self.call(key)?;
        self.bucket.create_upload(key).await
    }

    async fn upload_part(&self, key: &str, upload: &str, number: i32, body: Bytes) -> Result<Part> {
        self.call(key)?;
        self.bucket.upload_part(key, upload, number, body).await
    }

    async fn complete_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[Part],
        condition: Condition<'_>,
    ) -> Result<String> {
        self.call(key)?;
        self.bucket.complete_upload(key, upload, parts, self.condition(condition)).await
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        self.call(key)?;
        self.bucket.abort_upload(key, upload).await
    }

    async fn copy(&self, key: &str, etag: &str, to: &str) -> Result<()> {
        self.call(key)?;
        self.bucket.copy(key, etag, to).await
    }
}

/// The objects that land while runs are at work.
#[derive(Default)]
struct Landing {
    calls: usize,
    arrivals: Vec<Arrival>,
    /// The calls at which markers are put.
    markers: Vec<usize>,
    /// Objects in the hour's first `_SUCCESS`.
    first_sealed: Option<u64>,
}

impl Landing {
    fn go_on(&mut self, bucket: &MemoryBucket) {
        self.calls += 1;
        let now = self.calls;
        if let (None, Some(text)) = (self.first_sealed, bucket.text(SUCCESS)) {
            let success: crate::manifest::Success = serde_json::from_str(&text).unwrap();
            self.first_sealed = Some(success.totals.all_objects());
        }
        for arrival in self.arrivals.extract_if(.., |arrival| arrival.call < now) {
            land(bucket, arrival.kind, hour(5), 0, (10 * arrival.number, 10 * arrival.number + 1));
            self.markers.push(now + arrival.marker_after);
        }
        for _ in self.markers.extract_if(.., |marker| *marker <= now) {
            put_late(bucket, hour(5));
        }
    }

    fn is_over(&self) -> bool {
        self.arrivals.is_empty() && self.markers.is_empty()
    }
}

struct World {
    bucket: MemoryBucket,
    metrics: MemoryMetrics,
    landing: Rc<RefCell<Landing>>,
    without: Without,
    /// The time of the next scheduled run.
    next: UnixMillis,
}

impl World {
    fn new(without: Without) -> Self {
        let bucket = MemoryBucket::default();
        bucket.page_size.set(Some(2));
        for number in [105, 205, 305, 405] {
            land(&bucket, Kind::Event, hour(5), 0, (number, number + 1));
        }
        land(&bucket, Kind::Rejected, hour(5), 0, (205, 205));
        let landing = Rc::default();
        let next = at("2026-11-21T06:20:00.000Z");
        Self { bucket, metrics: MemoryMetrics::default(), landing, without, next }
    }

    async fn begin(&mut self, history: &History) {
        if history.start == Start::Held {
            let broken = broken_key(&format!("events/{PARTITION}/shardId-000000000000-105.jsonl.bz2"));
            self.bucket.insert(&broken, "{}", HashMap::new());
            self.next = at("2026-11-21T06:50:00.000Z");
        }
        if history.start != Start::Open {
            let event = self.schedule();
            self.invoke(event, Fault::None).await;
        }
        if history.is_old {
            self.next = at("2026-11-25T10:20:00.000Z");
            let event = self.schedule();
            self.invoke(event, Fault::None).await;
        }
    }

    /// From now on objects land.
    fn expect(&self, arrivals: Vec<Arrival>) {
        self.landing.borrow_mut().arrivals = arrivals;
        let landing = self.landing.clone();
        self.bucket.meanwhile.replace(Some(Box::new(move |bucket, _, key| {
            if !is_of_another_hour(key) {
                landing.borrow_mut().go_on(bucket);
            }
        })));
    }

    fn schedule(&mut self) -> Invocation {
        let time = self.next.rfc3339();
        self.next.0 += 10 * MILLIS_PER_MINUTE;
        serde_json::from_value(serde_json::json!({"time": time})).unwrap()
    }

    /// Of a marker that is there, as S3 sends it.
    fn marker_event(&self) -> Option<Invocation> {
        let markers =
            self.bucket.keys().into_iter().filter(|key| key.starts_with("sealing/") && key.ends_with(".json"));
        let record = |key: String| serde_json::json!({"eventTime": NIGHT, "s3": {"bucket": {"name": "b"}, "object": {"key": key}}});
        let records: Vec<Value> = markers.map(record).collect();
        (!records.is_empty()).then(|| serde_json::from_value(serde_json::json!({"Records": records})).unwrap())
    }

    async fn invoke(&self, event: Invocation, fault: Fault) {
        let client = Client { bucket: &self.bucket, without: self.without, fault, calls: Cell::new(0) };
        let client = &client;
        let time_is_up = || client.time_is_up();
        let failed_batches = MemoryBucket::default();
        let handler = Handler { part_bytes: 600, ..Handler::new(client, &failed_batches, &self.metrics, config()) };
        // What fails is tried again by what comes next.
        if let Ok(starts) = handler.starts(event).await {
            for (at, resumes_at) in starts {
                catch_up(&self.metrics, at);
                let (Ok(()) | Err(_)) = handler.run(at, resumes_at, &time_is_up, "seal-partition").await;
            }
        }
    }

    async fn round(&mut self, round: &Round) {
        let marker = self.marker_event().filter(|_| round.follows_marker);
        let event = marker.unwrap_or_else(|| self.schedule());
        let Some((same_event, second)) = round.second else { return self.invoke(event, round.fault).await };
        let other = if same_event { event.clone() } else { self.schedule() };
        self.bucket.turns.set(round.turns);
        tokio::join!(self.invoke(event, round.fault), self.invoke(other, second));
        self.bucket.turns.set(0);
    }

    /// Everything has landed and is marked, and scheduled runs follow until one finds nothing to do. Each takes a page of
    /// what is under `sealing/`, which is two keys here.
    async fn settle(&mut self) {
        self.bucket.objects.borrow_mut().retain(|key, _| !key.starts_with(BROKEN_PREFIX));
        while !self.landing.borrow().is_over() {
            self.landing.borrow_mut().go_on(&self.bucket);
        }
        for _ in 0..12 {
            let before = self.bucket.objects.borrow().clone();
            let event = self.schedule();
            self.invoke(event, Fault::None).await;
            if *self.bucket.objects.borrow() == before {
                break;
            }
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        let keys = self.bucket.keys();
        let landed: Vec<&String> =
            keys.iter().filter(|key| key.contains("hour=05/") && key.ends_with(".bz2")).collect();
        let manifest = json(&self.bucket, MANIFEST);
        let listed: Vec<&str> =
            manifest["objects"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect();
        let success = success(&self.bucket, PARTITION);
        let first = self.landing.borrow().first_sealed.unwrap_or(landed.len() as u64);
        let left: Vec<&String> = keys
            .iter()
            .filter(|key| key.starts_with("late/") || key.starts_with("sealing/") || key.ends_with("_INCOMPLETE"))
            .collect();
        let same = |what: &str, is: &dyn std::fmt::Debug, should: &dyn std::fmt::Debug| {
            let (is, should) = (format!("{is:?}"), format!("{should:?}"));
            if is == should { Ok(()) } else { Err(format!("{what}: {is}, should be {should}")) }
        };
        same("objects in the manifest", &listed, &landed)?;
        same("totals", &success["totals"], &manifest["totals"])?;
        same("the manifest's ETag", &success["manifest"], &Value::from(self.bucket.etag(MANIFEST)))?;
        same("late objects", &success["late_objects"], &Value::from(landed.len() as u64 - first))?;
        same("left behind", &left, &Vec::<&String>::new())
    }
}

fn play(history: &History, without: Without) -> std::result::Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(without);
        world.begin(history).await;
        world.expect(history.arrivals.clone());
        for round in &history.rounds {
            world.round(round).await;
        }
        world.settle().await;
        world.check()
    })
}

fn run_histories(cases: u32, without: Without) -> std::result::Result<(), (String, History)> {
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: shrink_steps(5_000), ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let played = runner.run(&history(), |history| play(&history, without).map_err(TestCaseError::fail));
    match played {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, history)) => Err((reason.to_string(), history)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// An object that lands at any moment of any run of seal-partition, stopped, killed or doubled, is in the manifest or in
/// that of a later run.
#[test]
fn objects_that_land_during_stopped_killed_and_doubled_runs_are_in_the_final_manifest() {
    let without = asked_for([Without::LeavingMarkers, Without::Conditions]);
    run_histories(4_000, without.unwrap_or(Without::Nothing))
        .unwrap_or_else(|(reason, history)| panic!("{reason}\n{history:#?}"));
}

#[rstest]
#[case(Without::LeavingMarkers)]
#[case(Without::OwnReseals)]
#[case(Without::Conditions)]
fn without_this_rule_objects_are_lost_or_miscounted(#[case] without: Without) {
    let (reason, history) = run_histories(100_000, without).expect_err("no history breaks the promise");
    println!("{without:?}: {reason}\n{history:?}");
    play(&history, Without::Nothing).unwrap();
}

/// Each call of a run that stops after each number of calls, and of the runs that go on; before and after what is listed.
#[test]
fn an_object_that_lands_at_any_call_of_a_run_in_pieces_is_in_the_manifest() {
    for limit in 0..40 {
        for call in 0..80 {
            for number in [1, 60] {
                let arrival = Arrival { call, marker_after: 0, kind: Kind::Event, number };
                let piece =
                    |follows_marker| Round { follows_marker, fault: Fault::TimeUp(limit), second: None, turns: 0 };
                let rounds = [false, true, true, true].map(piece).to_vec();
                let history = History { start: Start::Open, is_old: false, arrivals: vec![arrival], rounds };
                play(&history, Without::Nothing)
                    .unwrap_or_else(|problem| panic!("{limit} calls, landed at {call}, {number}: {problem}"));
            }
        }
    }
}
