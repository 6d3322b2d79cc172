use super::*;
use crate::rejected::line::tests::{compressed, line, line_of_part};
use crate::rejected::object_lines::for_each_line;
use crate::rejected::redriven_object::tests::stored;
use allocation_counter::measure;
use flate2::Compression;
use flate2::write::GzEncoder;
use kinesis_to_s3_lambda::encode::Object;
use rstest::rstest;
use shared::frame::FrameWriter;
use shared::line::EventFormat::{self, Envelope, Raw};
use shared::object::{Attempt, ObjectKey};
use shared::timestamp::UnixMillis;
use std::io::Write;

use crate::rejected::events::MAX_BODY_BYTES;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn merge(rejected: &[u8], earlier: Option<&Object>, event_format: EventFormat) -> (Option<Object>, Outcomes) {
    merge_with_parts(&[rejected], earlier, event_format)
}

/// Redrives the first of the objects; the parts of its bodies are in all of them.
fn merge_with_parts(
    objects: &[&[u8]],
    earlier: Option<&Object>,
    event_format: EventFormat,
) -> (Option<Object>, Outcomes) {
    let (mut outcomes, mut parts) = (Outcomes::default(), BodyParts::default());
    let reasons = vec![Reason::InvalidJson, Reason::ForeignRecord];
    let options = ReadOptions { reasons, content_type: None };
    for (number, object) in objects.iter().enumerate() {
        parts.note(&number.to_string(), object, &options).unwrap();
    }
    let bodies = whole_bodies(objects[0], &options, &parts, &mut outcomes).unwrap();
    let open = async |number: &str| Ok(Bytes::copy_from_slice(objects[number.parse::<usize>()?]));
    let reader = BodyReader { events: EventReader { options: &options, event_format }, parts: &parts, open };
    let key = ObjectKey::parse("rejected/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2").unwrap();
    let attempt = Attempt { began: UnixMillis(0), deadline: UnixMillis(1), request_id: "r".into() };
    let redriven = futures_util::FutureExt::now_or_never(async {
        let bodies = Bodies::measure(bodies, reader, &mut outcomes).await?;
        bodies.add_to(earlier.map(stored).as_ref(), &mut outcomes).await
    });
    (redriven.unwrap().unwrap().finish(&key, attempt).unwrap(), outcomes)
}

fn lines(object: &Object) -> Vec<String> {
    let mut lines = Vec::new();
    for_each_line(&object.body, |_, line| {
        lines.push(String::from_utf8(line.to_vec())?);
        Ok(())
    })
    .unwrap();
    lines
}

#[test]
fn a_line_that_is_twice_on_the_stream_is_read_once_and_equal_bodies_are_read_each() {
    let rejected = [line("a", "", b"{}"), line("b", "", b"{}"), line("a", "", b"{}")].concat();
    let (object, outcomes) = merge(&compressed(rejected.as_bytes()), None, Raw);
    assert_eq!((outcomes.bodies, outcomes.landed, outcomes.malformed.len()), (2, 2, 0));
    assert_eq!(lines(&object.unwrap()), ["{}", "{}"]);
}

#[test]
fn lines_that_are_not_ours_are_named_and_the_others_are_read() {
    let malformed = "{\"v\":1,\"received_at\":\"2026-11-21T09:32:08.006Z\",\"rejected\":{\"reason\":\"x\"}}\n";
    let (first, last) = (line("a", "", b"{}"), line("b", "", b"{}"));
    let rejected = [first.as_bytes(), malformed.as_bytes(), b"\xff\n", last.as_bytes()].concat();
    let (object, outcomes) = merge(&compressed(&rejected), None, Envelope);
    assert_eq!((outcomes.bodies, object.unwrap().metadata.event_count), (2, 2));
    assert_eq!((outcomes.malformed, outcomes.described.len()), (vec![2, 3], 2));
}

/// The id of a line that landing rejected ends with its number, after that of the user record that it was in.
#[rstest]
#[case::lines("shard:1/0", b"{}\nx\n{}", [2, 2])]
#[case::lines_in_a_user_record("shard:1/7/0", b"{}\nx\n{}", [2, 2])]
#[case::a_frame("shard:1/0", &frame(&"{}\n".repeat(20)), [20, 0])]
#[case::a_frame_of_rejected_lines("shard:1/0", &frame(&line("a", "", b"x").repeat(3)), [0, 0])]
#[case::a_frame_in_a_user_record("shard:1/7/0", &frame(&"{}\n".repeat(20)), [0, 0])]
#[case::an_aggregate("shard:1/0", AGGREGATE, [1, 1])]
#[case::an_aggregate_in_a_user_record("shard:1/7/0", AGGREGATE, [0, 0])]
fn records_of_other_producers_are_read_as_landing_reads_them(
    #[case] id: &str,
    #[case] body: &[u8],
    #[case] events: [u64; 2],
) {
    let rejected = line(id, "", body).replace("invalid_json", "foreign_record");
    for (format, events) in [Envelope, Raw].into_iter().zip(events) {
        let (object, outcomes) = merge(&compressed(rejected.as_bytes()), None, format);
        assert_eq!(object.map_or(0, |object| object.metadata.event_count), events, "{format:?}");
        assert_eq!(outcomes.still_rejected, usize::from(events == 0));
    }
}

fn frame(lines: &str) -> Vec<u8> {
    FrameWriter::default().compress(lines.as_bytes()).unwrap()
}

/// An aggregated record of one user record, `{}`.
const AGGREGATE: &[u8] = b"\xf3\x89\x9a\xc2\x1a\x04\x1a\x02{}\x0a4&\xb3\x04\xc4\x15\x83\xea\xf2\x05\xc6>\x81T\xfa";

#[test]
fn what_is_redriven_again_was_already_there() {
    let rejected = compressed([line("a", "", b"{}\n{}"), line("b", "", b"{}")].concat().as_bytes());
    let (object, outcomes) = merge(&rejected, None, Envelope);
    assert_eq!((outcomes.landed, outcomes.already_there), (3, 0));
    let (again, outcomes) = merge(&rejected, object.as_ref(), Envelope);
    assert!(again.is_none());
    assert_eq!((outcomes.landed, outcomes.already_there), (0, 3));
}

#[test]
fn raw_events_may_look_like_ours_and_say_nothing_of_their_receipt() {
    let forged = b"{\"v\":1,\"received_at\":\"2027-01-01T00:00:00.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}";
    let rejected = compressed(line("a", "", forged).as_bytes());
    let (object, _) = merge(&rejected, None, Raw);
    let object = object.unwrap();
    assert_eq!(lines(&object), [std::str::from_utf8(forged).unwrap()]);
    assert_eq!(object.metadata.event_format, Raw);
    assert_eq!(object.metadata.latest_received_at.rfc3339(), "2026-11-21T09:32:08.006Z");
    assert!(merge(&rejected, Some(&object), Raw).0.is_none());
}

const GOOD: &[u8] = b"{\"good\":1}\n{\"good\":2}";

fn long_events(bytes: usize) -> Vec<u8> {
    format!("{{\"a\":\"{}\"}}\n", "x".repeat(bytes)).repeat(4).into_bytes()
}

/// Twenty bodies of 16 MiB each, from an object of some hundred kilobytes, in front of a good one: one of them is held at
/// a time, each has its own outcome, and the good one lands.
#[rstest]
#[case::events_as_many_as_may_be(format!("{{\"a\":\"{}\"}}\n", "x".repeat(1_660)).repeat(10_000).into_bytes(), Ends::WithoutRoom(17))]
#[case::long_events(long_events(4_000_000), Ends::WithoutRoom(16))]
#[case::no_events("[".repeat(MAX_BODY_BYTES).into_bytes(), Ends::Rejected)]
#[case::too_large("{}\n".repeat(MAX_BODY_BYTES / 3 + 1).into_bytes(), Ends::TooLarge)]
fn twenty_bombs_take_bounded_memory_and_the_body_behind_them_lands(#[case] body: Vec<u8>, #[case] ends: Ends) {
    const MOST_BYTES: u64 = 96 * 1024 * 1024;
    let body = gzip(&body);
    let bombs: String = (0..20).map(|number| line(&number.to_string(), "gzip", &body)).collect();
    let rejected = compressed((bombs + &line("good", "", GOOD)).as_bytes());
    let mut merged = (None, Outcomes::default());
    let cost = measure(|| merged = merge(&rejected, None, Envelope));
    let (object, outcomes) = merged;
    assert!(cost.bytes_max < MOST_BYTES, "{}", cost.bytes_max);
    let good = lines(&object.unwrap()).iter().filter(|line| line.contains("good\":")).count();
    assert_eq!((good, outcomes.bodies), (2, 21));
    let ended = [outcomes.without_room.len(), outcomes.still_rejected, outcomes.too_large.len()];
    let expected = match ends {
        Ends::WithoutRoom(bodies) => [bodies, 0, 0],
        Ends::Rejected => [0, 20, 0],
        Ends::TooLarge => [0, 0, 20],
    };
    assert_eq!(ended, expected);
}

/// Six bodies of 12 MiB, whose parts are in objects beside the one that is redriven: one of them is held at a time.
#[test]
fn many_bodies_in_parts_take_the_memory_of_one() {
    const BODIES: usize = 6;
    const MOST_BYTES: u64 = 64 * 1024 * 1024;
    let mut objects = vec![String::new()];
    for body in 0..BODIES {
        let id = body.to_string();
        objects[0] += &line_of_part(&id, 1, 4, b"{\"good\":1}");
        objects.extend((2..=4).map(|part| line_of_part(&id, part, 4, &vec![b' '; 4 * 1024 * 1024])));
    }
    let objects: Vec<Vec<u8>> = objects.iter().map(|lines| compressed(lines.as_bytes())).collect();
    let objects: Vec<&[u8]> = objects.iter().map(Vec::as_slice).collect();
    let mut merged = (None, Outcomes::default());
    let cost = measure(|| merged = merge_with_parts(&objects, None, Envelope));
    let (object, outcomes) = merged;
    assert_eq!((outcomes.bodies, outcomes.landed, lines(&object.unwrap()).len()), (BODIES, BODIES as u64, BODIES));
    assert!(cost.bytes_max < MOST_BYTES, "{}", cost.bytes_max);
}

enum Ends {
    /// 64 MiB hold three of them and some of a fourth, or four.
    WithoutRoom(usize),
    Rejected,
    TooLarge,
}

#[test]
fn a_body_stands_on_the_bound_and_one_past_it() {
    for (bytes, too_large) in [(MAX_BODY_BYTES, vec![]), (MAX_BODY_BYTES + 1, vec![1])] {
        let body = gzip(format!("{{}}{}", " ".repeat(bytes - 2)).as_bytes());
        let (_, outcomes) = merge(&compressed(line("a", "gzip", &body).as_bytes()), None, Envelope);
        assert_eq!(outcomes.too_large, too_large);
    }
}

#[test]
fn what_landed_first_stays_and_what_does_not_fit_behind_it_is_named() {
    let large = gzip(&long_events(4_000_000));
    let bodies = |ids: std::ops::Range<u32>| ids.map(|id| line(&id.to_string(), "gzip", &large)).collect::<String>();
    let (earlier, _) = merge(&compressed(bodies(0..3).as_bytes()), None, Envelope);
    let all = bodies(0..6) + &line("good", "", GOOD);
    let (object, outcomes) = merge(&compressed(all.as_bytes()), earlier.as_ref(), Envelope);
    assert_eq!((outcomes.already_there, outcomes.without_room.len()), (12, 2));
    assert_eq!(outcomes.landed + outcomes.already_there, object.unwrap().metadata.event_count);
}
