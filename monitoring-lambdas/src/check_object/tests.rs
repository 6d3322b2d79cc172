//! Objects as landing writes them, and everything that can be wrong with them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::time::Duration;

use allocation_counter::measure;
use bzip2::Compression;
use bzip2::write::BzEncoder;
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::limits::{MAX_OBJECT_BYTES, MAX_OBJECT_LINE_BYTES};
use shared::line::{Client, Envelope, EventFormat, IdLiteral, Kind, Rejected};
use shared::object::{Attempt, ReceivedIn, SpillId, object_key};
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UtcHour;

use super::*;
use lambda_setup::memory_bucket::MemoryBucket;

const IN_TIME: &str = "2026-11-21T09:32:20.000Z";

fn hour() -> UtcHour {
    UtcHour::parse("dt=2026-11-21/hour=09").unwrap()
}

fn minute(minute: i64) -> UnixMillis {
    UnixMillis(hour().start().0 + minute * 60_000)
}

fn event_line(at_minute: i64, event: &str) -> String {
    let mut line = Vec::new();
    Envelope::new(minute(at_minute), "r", &Client::default()).write_event(&mut line, IdLiteral::new("\"i\""), event);
    String::from_utf8(line).unwrap()
}

fn rejected_line(at_minute: i64, reason: Reason, body: &[u8]) -> String {
    let rejection = Rejection::new(reason, "d");
    let rejected = Rejected { rejection: &rejection, content_type: None, content_encoding: None, part: None, body };
    let mut line = Vec::new();
    Envelope::new(minute(at_minute), "r", &Client::default()).write_rejected(
        &mut line,
        IdLiteral::new("\"i\""),
        &rejected,
    );
    String::from_utf8(line).unwrap()
}

fn compress(text: &[u8], units: u8) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::new(units.into()));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn sha256(text: &[u8]) -> String {
    hex::encode(Sha256::digest(text))
}

/// An object that landed.
#[derive(Debug, Clone)]
struct Object {
    key: String,
    body: Vec<u8>,
    metadata: ObjectMetadata,
}

impl Object {
    /// Of lines that were all received in the hour, from minute 3 to 9.
    fn new(kind: Kind, text: &str) -> Self {
        let lines = text.matches('\n').count() as u64;
        let key = object_key(kind, hour(), "shardId-000000000000", "100");
        let metadata = ObjectMetadata {
            event_format: EventFormat::Envelope,
            last_sequence_number: Some("109".into()),
            record_count: lines,
            event_count: lines,
            uncompressed_bytes: text.len() as u64,
            uncompressed_sha256: sha256(text.as_bytes()),
            received_in: ReceivedIn { this: lines, ..ReceivedIn::default() },
            rejected_reasons: std::collections::BTreeMap::new(),
            earliest_received_at: minute(3),
            latest_received_at: minute(9),
            block_size: BlockSize::fitting(text.len()),
            attempt: Attempt { began: minute(0), deadline: minute(1), request_id: "r".into() },
        };
        let body = compress(text.as_bytes(), metadata.block_size.units());
        Self { key, body, metadata }
    }

    fn events() -> Self {
        Self::new(Kind::Event, &(event_line(3, "{\"a\":1}") + &event_line(9, "{}") + &event_line(5, "{\"b\":[]}")))
    }

    fn rejected() -> Self {
        let text = rejected_line(3, Reason::TooDeep, b"x") + &rejected_line(9, Reason::ForeignRecord, b"\xff");
        let mut object = Self::new(Kind::Rejected, &text);
        object.metadata.rejected_reasons = [(Reason::TooDeep, 1), (Reason::ForeignRecord, 1)].into();
        object.metadata.received_in = ReceivedIn { this: 1, elsewhere: 1, ..ReceivedIn::default() };
        object
    }

    /// The same lines as ingest writes them while Kinesis is away.
    fn spilled(mut self) -> Self {
        let kind = ObjectKey::parse(&self.key).unwrap().kind;
        self.key = ObjectKey::spilled(kind, hour(), SpillId(0x019a_a5d1)).to_string();
        self.metadata.last_sequence_number = None;
        self.metadata.record_count = 0;
        self
    }

    fn store(&self, bucket: &MemoryBucket) {
        bucket.insert(&self.key, self.body.clone(), self.metadata.to_entries());
    }
}

fn s3_event(keys: &[&str], time: &str) -> S3Event {
    let record = |key: &&str| serde_json::json!({"eventTime": time, "s3": {"bucket": {"name": "landing"}, "object": {"key": key.replace('=', "%3D")}}});
    let records: Vec<Value> = keys.iter().map(record).collect();
    serde_json::from_value(serde_json::json!({"Records": records})).unwrap()
}

/// As the topic delivers an event of S3.
fn by_topic(event: &str) -> S3Event {
    let sns = serde_json::json!({"Message": event, "Timestamp": IN_TIME});
    serde_json::from_value(serde_json::json!({"Records": [{"Sns": sns}]})).unwrap()
}

#[tokio::test]
async fn the_test_of_a_new_notification_checks_nothing() {
    let bucket = MemoryBucket::default();
    let test = by_topic(r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"landing"}"#);
    assert_eq!(Handler::new(|_| &bucket, 15).handle(test, Context::default()).await.unwrap(), []);
}

async fn check_at(bucket: &MemoryBucket, key: &str, time: &str) -> Verdict {
    let mut verdicts = Handler::new(|_| bucket, 15).handle(s3_event(&[key], time), Context::default()).await.unwrap();
    verdicts.pop().unwrap()
}

async fn findings(object: &Object) -> Vec<Finding> {
    let bucket = MemoryBucket::default();
    object.store(&bucket);
    match check_at(&bucket, &object.key, IN_TIME).await {
        Verdict::Good => Vec::new(),
        Verdict::Broken { findings } => findings,
    }
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(Finding::code).collect()
}

fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[tokio::test]
async fn good_objects_cost_one_request_and_leave_nothing() {
    let spilled = [Object::events().spilled(), Object::rejected().spilled()];
    for object in [Object::events(), Object::rejected()].into_iter().chain(spilled) {
        let bucket = MemoryBucket::default();
        object.store(&bucket);
        assert_eq!(check_at(&bucket, &object.key, IN_TIME).await, Verdict::Good);
        assert_eq!((bucket.calls.get(), bucket.keys().len()), (1, 1));
    }
}

#[tokio::test]
async fn raw_lines_and_lines_from_other_hours_are_good() {
    let text = String::from("{\"a\":1}\n") + &event_line(-1, "{}") + &event_line(61, "{}") + &event_line(-200, "{}");
    let mut object = Object::new(Kind::Event, &text);
    object.metadata.received_in = ReceivedIn { previous: 1, this: 0, next: 1, elsewhere: 2 };
    object.metadata.earliest_received_at = minute(-1);
    object.metadata.latest_received_at = minute(61);
    assert_eq!(findings(&object).await, []);
}

/// Clients of a raw stack write whole lines, so that they can look like ours, and say any time of receipt.
#[tokio::test]
async fn raw_lines_that_look_like_ours_are_judged_as_landing_counted_them() {
    let text = rejected_line(3, Reason::TooDeep, b"x") + &event_line(500, "{}") + &event_line(30, "{}");
    let mut object = Object::new(Kind::Event, &text);
    object.metadata.event_format = EventFormat::Raw;
    object.metadata.received_in = ReceivedIn { elsewhere: 3, ..ReceivedIn::default() };
    assert_eq!(findings(&object).await, []);
    object.metadata.latest_received_at = minute(500);
    assert_eq!(codes(&findings(&object).await), ["value"]);
}

#[tokio::test]
async fn rejected_lines_of_a_raw_stack_are_judged_by_their_members() {
    let mut object = Object::rejected();
    object.metadata.event_format = EventFormat::Raw;
    assert_eq!(findings(&object).await, []);
    let mut misplaced = Object::new(Kind::Rejected, &event_line(3, "{}"));
    misplaced.metadata.event_format = EventFormat::Raw;
    assert_eq!(findings(&misplaced).await[0], Finding::Line { number: 1, problem: LineProblem::Event });
}

#[tokio::test]
async fn redriven_lines_are_good() {
    let mut object = Object::new(Kind::Event, &(event_line(-500, "{}") + "{}\n"));
    object.key = object_key(Kind::Event, hour(), "shardId-000000000000", "100-redriven");
    object.metadata.last_sequence_number = Some("100".into());
    object.metadata.record_count = 0;
    object.metadata.received_in = ReceivedIn { elsewhere: 2, ..ReceivedIn::default() };
    object.metadata.earliest_received_at = minute(-500);
    assert_eq!(findings(&object).await, []);
    let spilled = ObjectKey::spilled(Kind::Rejected, hour(), SpillId(1));
    object.key = spilled.redriven().to_string();
    object.metadata.last_sequence_number = None;
    assert_eq!(findings(&object).await, []);
}

#[tokio::test]
async fn a_broken_object_gets_the_same_verdict_for_every_event() {
    let bucket = MemoryBucket::default();
    let mut object = Object::events();
    object.metadata.event_count = 5;
    object.store(&bucket);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let verdict = check_at(&bucket, &object.key, IN_TIME).await;
        let finding = Finding::Count { what: "lines", said: 5, found: 3 };
        assert_eq!(verdict, Verdict::Broken { findings: vec![finding] });
        seen.push(bucket.text(&broken_key(&object.key)).unwrap());
    }
    assert_eq!(seen[0], seen[1]);
    let broken: Value = serde_json::from_str(&seen[0]).unwrap();
    assert_eq!((&broken["key"], &broken["findings"][0]["code"]), (&object.key.as_str().into(), &"count".into()));
    assert_eq!(broken["findings"][0]["text"], "the metadata says 5 lines, and there are 3");
    assert!(broken["etag"].is_string());

    // Landing replaces it by a good one, with another block size.
    let mut good = Object::events();
    good.metadata.block_size = good.metadata.block_size.next();
    good.body = compress(&text_of(&good.body), good.metadata.block_size.units());
    good.store(&bucket);
    assert_eq!(check_at(&bucket, &object.key, IN_TIME).await, Verdict::Good);
    assert_eq!(bucket.keys(), [object.key]);
}

fn text_of(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    bzip2::read::BzDecoder::new(body).read_to_end(&mut text).unwrap();
    text
}

#[rstest]
#[case::bytes(|m: &mut ObjectMetadata| m.uncompressed_bytes += 1, "count")]
#[case::fewer_bytes(|m: &mut ObjectMetadata| m.uncompressed_bytes -= 1, "too_many_bytes")]
#[case::no_bytes(|m: &mut ObjectMetadata| m.uncompressed_bytes = 0, "too_many_bytes")]
#[case::absurd_bytes(|m: &mut ObjectMetadata| m.uncompressed_bytes = u64::MAX, "says_too_much")]
#[case::sha(|m: &mut ObjectMetadata| m.uncompressed_sha256 = "0".repeat(64), "value")]
#[case::earliest(|m: &mut ObjectMetadata| m.earliest_received_at = minute(4), "value")]
#[case::latest(|m: &mut ObjectMetadata| m.latest_received_at = minute(10), "value")]
#[case::received_in(|m: &mut ObjectMetadata| m.received_in.previous += 1, "value")]
#[case::reasons(|m: &mut ObjectMetadata| m.rejected_reasons = [(Reason::TooDeep, 1)].into(), "value")]
#[case::block_size(|m: &mut ObjectMetadata| m.block_size = BlockSize::new(9).unwrap(), "value")]
#[case::last_number(|m: &mut ObjectMetadata| m.last_sequence_number = Some("99".into()), "sequence_numbers")]
fn metadata_that_differs_from_the_content_is_found(#[case] change: fn(&mut ObjectMetadata), #[case] code: &str) {
    let mut object = Object::events();
    change(&mut object.metadata);
    assert_eq!(codes(&now(findings(&object))), [code]);
}

#[rstest]
#[case::lines(|o: &mut Object| o.metadata.event_count += 1, "count")]
#[case::sha(|o: &mut Object| o.metadata.uncompressed_sha256 = "0".repeat(64), "value")]
#[case::received_in(|o: &mut Object| o.metadata.received_in.previous += 1, "value")]
#[case::latest(|o: &mut Object| o.metadata.latest_received_at = minute(10), "value")]
#[case::cut_off(|o: &mut Object| o.body.truncate(o.body.len() - 1), "truncated")]
#[case::records(|o: &mut Object| o.metadata.record_count = 1, "metadata")]
#[case::sequence_number(|o: &mut Object| o.metadata.last_sequence_number = Some("1".into()), "metadata")]
fn a_spilled_object_is_checked_like_any_other(#[case] change: fn(&mut Object), #[case] code: &str) {
    let mut object = Object::events().spilled();
    change(&mut object);
    assert_eq!(codes(&now(findings(&object))), [code]);
}

#[rstest]
#[case::no_json("x\n", &["line"])]
#[case::array("[]\n", &["line"])]
#[case::empty_line("\n", &["line"])]
#[case::no_text("{\"a\":\"\u{1}\"}\n", &["line"])]
#[case::no_line_feed("{}", &["no_line_feed_at_end"])]
fn lines_that_are_not_objects_are_found(#[case] line: &str, #[case] expected: &[&str]) {
    let text = event_line(3, "{}") + &event_line(9, "{}") + line;
    let mut object = Object::new(Kind::Event, &text);
    object.metadata.event_count = 3;
    object.metadata.received_in = ReceivedIn { this: 2, elsewhere: u64::from(line == "{}"), next: 0, previous: 0 };
    assert_eq!(
        codes(&now(findings(&object))).iter().filter(|code| **code != "value").collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
}

#[test]
fn lines_in_the_wrong_place_and_without_number_are_found() {
    let text: String = (0..12).map(|_| rejected_line(3, Reason::TooDeep, b"")).collect();
    let found = now(findings(&Object::new(Kind::Event, &text)));
    assert_eq!(found[0], Finding::Line { number: 1, problem: LineProblem::Rejected });
    assert_eq!(found[10], Finding::MoreLines { count: 2 });
    let found = now(findings(&Object::new(Kind::Rejected, &event_line(3, "{}"))));
    assert_eq!(found[0], Finding::Line { number: 1, problem: LineProblem::Event });
}

#[test]
fn a_line_at_the_limit_is_good_and_one_byte_more_is_not() {
    let frame = event_line(3, "{\"a\":\"\"}").len() - 1;
    let line = |bytes: usize| event_line(3, &format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - frame)));
    let lines_of = |bytes| {
        let mut object = Object::new(Kind::Event, &(line(bytes) + &event_line(9, "{}")));
        object.metadata.received_in.this = if bytes > MAX_OBJECT_LINE_BYTES { 1 } else { 2 };
        now(findings(&object))
    };
    assert_eq!(lines_of(MAX_OBJECT_LINE_BYTES), []);
    let too_long = LineProblem::TooLong(MAX_OBJECT_LINE_BYTES);
    assert_eq!(lines_of(MAX_OBJECT_LINE_BYTES + 1)[0], Finding::Line { number: 1, problem: too_long });
}

#[rstest]
#[case::as_much_as_landing_writes(MAX_OBJECT_BYTES, "count")]
#[case::more(MAX_OBJECT_BYTES + 1, "says_too_much")]
fn an_object_at_the_limit_is_good_and_one_byte_more_is_not(#[case] says: u64, #[case] code: &str) {
    let mut object = Object::events();
    object.metadata.uncompressed_bytes = says;
    assert_eq!(codes(&now(findings(&object))), [code]);
}

/// What the largest objects take of the function's time: CPU time a byte, against that of decompressing and hashing alone.
/// docs/PERFORMANCE.md has the seconds.
#[rstest]
#[ignore = "measures times: docs/PERFORMANCE.md"]
#[case::shortest_events("{}\n".to_owned())]
#[case::many_members(format!("{{{}\"\":0}}\n", "\"\":0,".repeat(100_000)))]
#[case::deep(format!("{{\"a\":{}{}}}\n", "[".repeat(100), "]".repeat(100)))]
#[case::envelopes(event_line(3, "{\"type\":\"heartbeat\",\"position\":1.5}"))]
#[case::rejected_frames(rejected_line(3, Reason::ForeignRecord, &[b'x'; 1 << 20]))]
fn reading_the_worst_lines_takes_no_more_than_a_few_times_as_long_as_decompressing_them(#[case] line: String) {
    const TIMES_AS_LONG: f64 = 5.0;
    const BYTES: usize = 4 << 20;
    let kind = if line.contains("rejected") { Kind::Rejected } else { Kind::Event };
    let text = line.repeat(BYTES.div_ceil(line.len()));
    let object = Object::new(kind, &text);
    let checking = cpu_time(|| drop(now(findings(&object))));
    let alone = cpu_time(|| drop(sha256(&text_of(&object.body))));
    let (times, nanos) = (checking.div_duration_f64(alone), checking.as_nanos() / text.len() as u128);
    println!("{nanos} ns a byte, {times:.1} times as long");
    assert!(times < TIMES_AS_LONG, "{times:.1} times as long");
}

/// The least of five measurements: what else the machine does only adds to it.
fn cpu_time(mut work: impl FnMut()) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let measure = |_| {
        let began = now();
        work();
        now() - began
    };
    (0..5).map(measure).min().unwrap()
}

#[tokio::test]
async fn an_object_cut_anywhere_is_truncated() {
    let object = Object::events();
    for bytes in 0..object.body.len() {
        let cut = Object { body: object.body[..bytes].to_vec(), ..object.clone() };
        assert_eq!(codes(&findings(&cut).await), ["truncated"], "cut to {bytes} bytes");
    }
}

#[tokio::test]
async fn trailing_bytes_are_found() {
    for more in [&b"x"[..], b"\0", &Object::events().body] {
        let mut object = Object::events();
        object.body.extend_from_slice(more);
        assert_eq!(codes(&findings(&object).await), ["trailing_bytes"]);
    }
}

#[rstest]
#[case(b"{}\n")]
#[case(b"\x1f\x8b\x08\x00")]
#[case(b"BZx1")]
fn content_that_is_not_bzip2_is_found(#[case] body: &[u8]) {
    let object = Object { body: body.to_vec(), ..Object::events() };
    assert_eq!(codes(&now(findings(&object))), ["not_bzip2"]);
}

#[tokio::test]
async fn metadata_and_objects_may_be_missing() {
    let bucket = MemoryBucket::default();
    let object = Object::events();
    let broken = |finding| Verdict::Broken { findings: vec![finding] };
    assert_eq!(check_at(&bucket, &object.key, IN_TIME).await, broken(Finding::Gone));
    bucket.insert(&object.key, object.body.clone(), HashMap::new());
    let Verdict::Broken { findings } = check_at(&bucket, &object.key, IN_TIME).await else { panic!("good") };
    assert_eq!(codes(&findings), ["metadata"]);
    bucket.insert("events/mine.jsonl.bz2", object.body.clone(), object.metadata.to_entries());
    assert_eq!(check_at(&bucket, "events/mine.jsonl.bz2", IN_TIME).await, broken(Finding::Key));
}

#[tokio::test]
async fn an_object_after_the_grace_is_late_however_often_its_event_repeats() {
    let (bucket, object) = (MemoryBucket::default(), Object::events());
    object.store(&bucket);
    check_at(&bucket, &object.key, "2026-11-21T10:14:59.999Z").await;
    assert_eq!(bucket.keys().len(), 1);
    for _ in 0..2 {
        assert_eq!(check_at(&bucket, &object.key, "2026-11-21T10:15:00.000Z").await, Verdict::Good);
        assert_eq!(bucket.keys(), [object.key.as_str(), "late/dt=2026-11-21/hour=09"]);
    }
}

#[tokio::test]
async fn without_s3_the_event_is_retried() {
    let mut object = Object::events();
    object.metadata.event_count = 5;
    let undisturbed = MemoryBucket::default();
    object.store(&undisturbed);
    let late = "2026-11-21T11:00:00.000Z";
    check_at(&undisturbed, &object.key, late).await;
    for call in 1..=undisturbed.calls.get() {
        let bucket = MemoryBucket::default();
        object.store(&bucket);
        bucket.fails_from.set(Some(call));
        let event = s3_event(&[&object.key], late);
        Handler::new(|_| &bucket, 15).handle(event, Context::default()).await.unwrap_err();
        bucket.fails_from.set(None);
        check_at(&bucket, &object.key, late).await;
        assert_eq!(*bucket.objects.borrow(), *undisturbed.objects.borrow());
    }
}

#[tokio::test]
async fn an_event_may_name_several_objects() {
    let bucket = MemoryBucket::default();
    let (events, rejected) = (Object::events(), Object::rejected());
    events.store(&bucket);
    rejected.store(&bucket);
    let event = s3_event(&[&events.key, &rejected.key], IN_TIME);
    let verdicts = Handler::new(|_| &bucket, 15).handle(event, Context::default()).await.unwrap();
    assert_eq!(verdicts, [Verdict::Good, Verdict::Good]);
}

#[test]
fn a_bomb_costs_no_more_than_the_metadata_says() {
    let bomb = compress(&vec![b'{'; 30_000_000], 9);
    assert!(bomb.len() < 1_000);
    let mut object = Object { body: bomb, ..Object::events() };
    for said in [1_000, 10_000_000] {
        object.metadata.uncompressed_bytes = said;
        let mut found = Vec::new();
        let cost = measure(|| found = now(findings(&object)));
        assert_eq!(codes(&found), ["too_many_bytes"]);
        assert!(cost.bytes_max < 24 * 1024 * 1024, "{said}: {}", cost.bytes_max);
    }
}

#[test]
fn twelve_megabytes_are_checked_in_half_as_much_memory() {
    let line = |number: u64| {
        event_line(
            if number == 0 { 3 } else { 9 },
            &format!("{{\"n\":{},\"text\":\"{}\"}}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15), "x".repeat(400)),
        )
    };
    let text: String = (0..28_000).map(line).collect();
    assert!(text.len() > 12 * 1024 * 1024);
    let object = Object::new(Kind::Event, &text);
    let bucket = MemoryBucket::default();
    object.store(&bucket);
    drop(text);
    let mut verdict = None;
    let cost = measure(|| verdict = Some(now(check_at(&bucket, &object.key, IN_TIME))));
    println!("{} bytes of memory at most", cost.bytes_max);
    assert_eq!(verdict, Some(Verdict::Good));
    assert!(cost.bytes_max < 6 * 1024 * 1024, "{}", cost.bytes_max);
}

proptest! {
    /// Only what changes nothing of the lines can stay unseen: the bits that fill up the last byte, and the flag of an old way
    /// of writing blocks, behind the block's magic and checksum, which only says something of longer blocks.
    #[test]
    fn a_changed_bit_is_found(index: prop::sample::Index, bit in 0u8..8) {
        let object = Object::events();
        let mut changed = object.clone();
        let at = index.index(object.body.len());
        changed.body[at] ^= 1 << bit;
        let found = now(findings(&changed));
        if found.is_empty() {
            prop_assert!(at == object.body.len() - 1 || (at, bit) == (4 + 6 + 4, 7), "{} {}", at, bit);
            prop_assert_eq!(text_of(&changed.body), text_of(&object.body));
        }
    }

    #[test]
    fn any_content_gets_the_same_verdict_each_time(body: Vec<u8>, header: bool) {
        let body = if header { [&b"BZh11AY&SY"[..], &body].concat() } else { body };
        let object = Object { body, ..Object::events() };
        let found = now(findings(&object));
        prop_assert!(!found.is_empty());
        prop_assert_eq!(found, now(findings(&object)));
    }

    #[test]
    fn lines_are_read_the_same_wherever_the_pieces_end(cuts in prop::collection::vec(1usize..60, 1..40), bad: bool) {
        let mut object = Object::events();
        object.metadata.event_count += u64::from(bad);
        let parsed = ObjectKey::parse(&object.key).unwrap();
        let mut inspection = Inspection::new(&parsed, &object.metadata);
        let mut rest = &object.body[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            inspection.feed(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(inspection.finish(), now(findings(&object)));
    }
}
