//! Hostile records, from the mapping's JSON to the objects: nothing panics, no batch fails by what is in it, and every byte of
//! every record but blank lines lands exactly once, in lines that any reader can read.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

mod aggregated;
mod expected;
mod memory_store;
mod sent;

use std::collections::BTreeMap;

use aggregated::{Field, message, sealed, user_records};
use base64_simd::STANDARD as BASE64;
use expected::{Line, lines_of};
use generators::damage::{damaged, hostile_text};
use generators::sabotage::{asked_for, shrink_steps};
use generators::strict_reader::read_line;
use kinesis_to_s3_lambda::handler::Handler;
use kinesis_to_s3_lambda::kinesis_event::{BatchAnswer, KinesisEvent, Record};
use kinesis_to_s3_lambda::kpl::deaggregate;
use lambda_runtime::Context;
use memory_store::{Keeps, Landed, MemoryStore};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sent::{aggregated_record, batch, event_members, fixture, record_data};
use shared::frame::is_frame;
use shared::line::EventFormat;
use shared::object::ReceivedIn;
use shared::rejection::Reason;
use shared::timestamp::{UnixMillis, UtcHour};

type Checked = Result<(), TestCaseError>;

/// Lands a batch as Lambda would have it done. Waits take no time.
fn land(event: KinesisEvent, format: EventFormat, keeps: Keeps) -> (BatchAnswer, BTreeMap<String, Landed>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let store = MemoryStore::keeping(keeps);
    let mut context = Context::default();
    // In 2096.
    context.deadline = 4_000_000_000_000;
    context.request_id = "request-1".into();
    let handler = Handler::new(&store, format);
    let answer = runtime.block_on(handler.handle_at(event, context, UnixMillis(1_795_253_528_006))).unwrap();
    (answer, store.landed())
}

/// Lands the batch, if the payload is one, and accounts for all of it.
fn check(payload: &[u8], format: EventFormat) -> Checked {
    check_where_the_bucket(asked_for([Keeps::Never, Keeps::Twice]).unwrap_or_default(), payload, format)
}

fn check_where_the_bucket(keeps: Keeps, payload: &[u8], format: EventFormat) -> Checked {
    let parse = || serde_json::from_slice::<KinesisEvent>(payload);
    let Some(event) = parse().ok().filter(|event| event.records.iter().all(fits_into_a_key)) else { return Ok(()) };
    let (answer, objects) = land(parse()?, format, keeps);
    prop_assert_eq!(answer, BatchAnswer::landed());
    prop_assert_eq!(&land(parse()?, format, keeps).1, &objects, "the batch lands otherwise when it is sent again");
    let lines = event.records.iter().map(|record| &record.kinesis);
    let mut expected = counted(lines.flat_map(|record| lines_of(&record.data, &record.partition_key, format)));
    for (key, object) in &objects {
        prop_assert_eq!(object.metadata.event_format, format);
        check_object(key, object, &mut expected)?;
    }
    let skipped: Vec<_> = expected.into_iter().filter(|(_, count)| *count > 0).collect();
    prop_assert!(skipped.is_empty(), "skipped: {:?}", skipped);
    Ok(())
}

/// S3 takes keys of 1,024 bytes. Kinesis' names are a tenth of that.
fn fits_into_a_key(record: &Record) -> bool {
    record.event_id.len() + record.kinesis.sequence_number.len() < 900
}

/// Takes each line of an object from those that are expected.
fn check_object(key: &str, object: &Landed, expected: &mut BTreeMap<Line, usize>) -> Checked {
    let text = object.text.strip_suffix(b"\n").ok_or_else(|| TestCaseError::fail("no line feed at the end"))?;
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    prop_assert_eq!(lines.len() as u64, object.metadata.event_count);
    prop_assert_eq!(object.text.len() as u64, object.metadata.uncompressed_bytes);
    check_counts(key, object)?;
    for line in lines {
        let members = read_line(line).map_err(TestCaseError::fail)?;
        if key.starts_with("events/") {
            prop_assert!(take(expected, &Line::Event(line.to_vec())), "{} is no event", String::from_utf8_lossy(line));
            continue;
        }
        if take(expected, &Line::OwnRejected(line.to_vec())) {
            continue;
        }
        let rejected = members.get("rejected").ok_or_else(|| TestCaseError::fail("not rejected"))?;
        let rejected = read_line(rejected.as_bytes()).map_err(TestCaseError::fail)?;
        prop_assert_eq!(rejected.get("reason"), Some("\"foreign_record\""));
        let body = rejected.text("body_base64").and_then(|base64| BASE64.decode_to_vec(base64).ok());
        let body = body.ok_or_else(|| TestCaseError::fail("no base64"))?;
        prop_assert!(take(expected, &Line::Rejected(body)), "{} came from nowhere", rejected.0[1].1);
    }
    Ok(())
}

/// Each line is counted once by the hour of its receipt, which its own text says, and by its reason.
fn check_counts(key: &str, object: &Landed) -> Checked {
    let (mut received_in, mut reasons) = (BTreeMap::<&str, u64>::new(), BTreeMap::<String, u64>::new());
    let partition = key.split('/').skip(1).take(2).collect::<Vec<_>>().join("/");
    let landed_in = UtcHour::parse(&partition).ok_or_else(|| TestCaseError::fail("no partition"))?;
    for line in object.text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let members = read_line(line).map_err(TestCaseError::fail)?;
        let versioned =
            members.0.iter().rfind(|(name, _)| *name == "\"v\"").is_some_and(|(_, version)| *version == "1");
        let time = members.0.iter().rfind(|(name, _)| *name == "\"received_at\"").filter(|_| versioned);
        let time = time.and_then(|(_, time)| UnixMillis::parse(time.trim_matches('"')));
        let rejected = members.0.iter().rfind(|(name, _)| *name == "\"rejected\"").map(|(_, rejected)| *rejected);
        let reason = rejected.filter(|_| key.starts_with("rejected/")).and_then(|rejected| rejected.split('"').nth(3));
        let reason = reason.map(|reason| Reason::parse(reason).unwrap_or(Reason::ForeignRecord).as_str().to_owned());
        let is_of_client = object.metadata.event_format == EventFormat::Raw && key.starts_with("events/");
        let ours = reason.as_deref() != Some("foreign_record") && !is_of_client;
        let hour = time.filter(|_| ours).map(|time| time.hour());
        let hours = [("previous", -1), ("this", 0), ("next", 1)];
        let hours = hours.into_iter().find(|(_, apart)| hour == Some(landed_in.plus(*apart)));
        *received_in.entry(hours.map_or("elsewhere", |(name, _)| name)).or_default() += 1;
        reason.into_iter().for_each(|reason| *reasons.entry(reason).or_default() += 1);
    }
    let ReceivedIn { previous, this, next, elsewhere } = object.metadata.received_in;
    let said = [("previous", previous), ("this", this), ("next", next), ("elsewhere", elsewhere)];
    prop_assert_eq!(said.into_iter().filter(|(_, lines)| *lines > 0).collect::<BTreeMap<_, _>>(), received_in);
    let said = object.metadata.rejected_reasons.iter().map(|(reason, lines)| (reason.as_str().to_owned(), *lines));
    prop_assert_eq!(said.collect::<BTreeMap<_, _>>(), reasons);
    Ok(())
}

fn formats() -> impl Strategy<Value = EventFormat> {
    proptest::sample::select(EventFormat::NAMES.map(|(_, format)| format).to_vec())
}

fn take(expected: &mut BTreeMap<Line, usize>, line: &Line) -> bool {
    let count = expected.get_mut(line).filter(|count| **count > 0);
    count.map(|count| *count -= 1).is_some()
}

fn counted<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    items.into_iter().fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, max_shrink_iters: shrink_steps(500), ..ProptestConfig::default() })]

    /// Whatever bytes a request or a record holds, every event in them ends in one outcome, and a function that panics loses one
    /// invocation and no batch.
    ///
    /// Of a record: whoever wrote it and however it is damaged; and a batch that is
    /// sent again lands the same.
    #[test]
    fn every_byte_of_a_batch_lands_once(payload in batch(), format in formats()) {
        serde_json::from_str::<KinesisEvent>(&payload)?;
        check(payload.as_bytes(), format)?;
    }

    /// The mapping's JSON, damaged: no batch, or one that lands whole.
    #[test]
    fn every_kinesis_payload_is_no_batch_or_lands(payload in damaged(fixture(), hostile_text()), format in formats()) {
        check(&payload, format)?;
    }

    /// A member that is missing or of another type fails the invocation, so that the batch is sent again: to pass over its
    /// record would lose it. Any value of the right type lands: times before Christ, ids without a colon.
    #[test]
    fn a_record_with_odd_members_fails_its_batch_or_lands(records in vec(event_members(), 1..4)) {
        let all_fine = records.iter().all(|(_, fine)| *fine);
        let payload = format!("{{\"Records\":[{}]}}", records.iter().map(|(json, _)| json.as_str()).collect::<Vec<_>>().join(","));
        let event = serde_json::from_str::<KinesisEvent>(&payload);
        prop_assert_eq!(event.is_ok(), all_fine, "{:?}", event);
        check(payload.as_bytes(), EventFormat::Envelope)?;
    }

    /// What the Kinesis Producer Library put together comes apart, whatever members later versions of it may add.
    #[test]
    fn an_aggregated_record_comes_apart(fields in vec(any::<Field>(), 1..20)) {
        let expected: Vec<_> = fields.iter().filter_map(Field::user_data).collect();
        let found = deaggregate(&sealed(&message(&fields)).into()).map(Iterator::collect::<Vec<_>>);
        prop_assert_eq!(found, (!expected.is_empty()).then(|| expected.into_iter().map(Into::into).collect()));
    }

    /// Messages that are damaged under a valid checksum are no aggregated records, or ones of which another reader of
    /// protobuf sees the same user records.
    #[test]
    fn a_damaged_aggregated_record_is_none_or_what_another_reader_sees(record in aggregated_record()) {
        let message = record.get(4..record.len().saturating_sub(16)).unwrap_or_default().to_vec();
        if let Some(found) = deaggregate(&record.into()) {
            let seen = user_records(&message).map(|records| records.into_iter().map(Into::into).collect());
            prop_assert_eq!(Some(found.collect::<Vec<_>>()), seen);
        }
    }

    /// A record's lines don't depend on the records around it.
    #[test]
    fn a_hostile_record_does_not_harm_its_neighbours(hostile in record_data()) {
        let good = "{\"good\":1}\n";
        let record = |number: u64, data: &[u8]| sent::record_json(number, "k", data, 1_795_253_528.006);
        let records = [record(1, good.as_bytes()), record(2, &hostile), record(3, good.as_bytes())];
        let event: KinesisEvent = serde_json::from_str(&format!("{{\"Records\":[{}]}}", records.join(",")))?;
        let (_, objects) = land(event, EventFormat::Envelope, Keeps::Once);
        let events = objects.iter().find(|(key, _)| key.starts_with("events/")).map(|(_, object)| object);
        let events = events.ok_or_else(|| TestCaseError::fail("no events"))?;
        prop_assert!(events.text.starts_with(good.as_bytes()) && events.text.ends_with(good.as_bytes()));
    }
}

/// The property can fail: where the bucket loses or doubles what it says that it stored, few batches go unnoticed, which are
/// those of blank lines.
#[test]
fn a_bucket_that_loses_or_doubles_is_noticed() {
    let mut runner = TestRunner::deterministic();
    let payloads: Vec<_> = (0..200).map(|_| batch().new_tree(&mut runner).unwrap().current()).collect();
    for keeps in [Keeps::Never, Keeps::Twice] {
        let unnoticed =
            |payload: &&String| check_where_the_bucket(keeps, payload.as_bytes(), EventFormat::Envelope).is_ok();
        let unnoticed = payloads.iter().filter(unnoticed).count();
        assert!(unnoticed <= 20, "{keeps:?}: {unnoticed} of {} unnoticed", payloads.len());
    }
}

/// The properties are worth little if what is sent never gets far, or is never stopped.
#[test]
fn what_is_sent_ends_in_many_ways() {
    let mut runner = TestRunner::deterministic();
    let (mut as_it_stood, mut rejected, mut both, mut aggregated, mut framed, mut damaged_frames) = (0, 0, 0, 0, 0, 0);
    for _ in 0..500 {
        let data = record_data().new_tree(&mut runner).unwrap().current();
        let lines = lines_of(&data.clone().into(), "k", EventFormat::Envelope);
        let stood = lines.iter().filter(|line| !matches!(line, Line::Rejected(_))).count();
        let lines = lines.len();
        as_it_stood += usize::from(stood == lines);
        rejected += usize::from(stood == 0);
        both += usize::from(0 < stood && stood < lines);
        framed += usize::from(is_frame(&data) && stood > 0);
        damaged_frames += usize::from(is_frame(&data) && stood == 0);
        aggregated += usize::from(deaggregate(&data.into()).is_some());
    }
    let ways = [as_it_stood, rejected, both, aggregated, framed, damaged_frames];
    assert!(ways.iter().all(|count| *count >= 25), "{ways:?}");
}

/// As many records as Lambda puts into a batch at most, every other one no JSON.
#[test]
fn the_largest_batch_of_small_records_lands() {
    let records =
        (0..10_000).map(|number| sent::record_json(number, "k", if number % 2 == 0 { b"{}" } else { b"x" }, 0.0));
    let payload = format!("{{\"Records\":[{}]}}", records.collect::<Vec<_>>().join(","));
    check(payload.as_bytes(), EventFormat::Envelope).unwrap();
}
