//! What the worst known batches cost: memory within a bound that the function has several times over, and work that grows
//! with the input, not with its square. Allocations are counted, because time on a shared machine says little.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use base64_simd::STANDARD as BASE64;
use kinesis_to_s3_lambda::encode::{EncodeError, encode};
use kinesis_to_s3_lambda::group::{Group, group};
use kinesis_to_s3_lambda::kinesis_event::KinesisEvent;
use lambda_setup::deadline::Deadline;
use md5::{Digest, Md5};
use rstest::rstest;
use serde_json::json;
use shared::frame::MAX_LINES_BYTES;
use shared::limits::{
    DEFAULT_MAX_RECORD_BYTES, MAX_BATCH_RECORDS, MAX_CONFIGURED_RECORD_BYTES, MAX_LAMBDA_PAYLOAD_BYTES,
};
use shared::line::EventFormat;
use shared::object::{Attempt, BlockSize};
use shared::timestamp::UnixMillis;

/// Live bytes at any moment, the mapping's JSON included: six times the largest payload. The function has 1,769 MB, for its CPU.
const MOST_BYTES: u64 = 6 * MAX_LAMBDA_PAYLOAD_BYTES as u64;
/// The part of them that is left for everything but compression, which takes about as much whatever the lines are.
const MOST_BYTES_OF_LINES: u64 = 5 * MAX_LAMBDA_PAYLOAD_BYTES as u64;

/// The same for a batch of frames, beside the payload: the lines of one of them, in a few forms.
const MOST_BYTES_OF_A_FRAME: u64 = 8 * MAX_LINES_BYTES as u64;

/// Plain records in a batch at most, as older versions of the template allowed.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html>
const MAX_PLAIN_RECORDS: usize = 10_000;

fn record(number: usize, data: &str) -> String {
    let kinesis = json!({
        "kinesisSchemaVersion": "1.0",
        "partitionKey": "1",
        "sequenceNumber": format!("4959033827149025660855969{number:031}"),
        "data": data,
        "approximateArrivalTimestamp": 1_795_253_528.006,
    });
    let event_id = format!("shardId-000000000006:4959033827149025660855969{number:031}");
    let arn = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream";
    json!({"kinesis": kinesis, "eventID": event_id, "eventSource": "aws:kinesis", "eventSourceARN": arn}).to_string()
}

/// A payload of at most so many equal records, as many as it holds.
fn payload_of(data: &[u8], at_most: usize) -> Vec<u8> {
    let data = BASE64.encode_to_string(data);
    let fitting = (MAX_LAMBDA_PAYLOAD_BYTES - 100) / (record(0, &data).len() + 1);
    let records: Vec<String> = (0..fitting.min(at_most)).map(|number| record(number, &data)).collect();
    assert!(!records.is_empty());
    format!("{{\"Records\":[{}]}}", records.join(",")).into_bytes()
}

/// What a batch costs, from the mapping's JSON to what is done with its groups.
fn cost(payload: &[u8], land: impl Fn(&Group)) -> AllocationInfo {
    measure(|| {
        // The runtime holds the payload while the batch is read from it and landed.
        let payload = payload.to_vec();
        let event: KinesisEvent = serde_json::from_slice(&payload).unwrap();
        let groups = group(&event.records, EventFormat::Envelope);
        groups.iter().for_each(land);
        drop((payload, event, groups));
    })
}

fn compress(group: &Group) {
    let attempt = Attempt {
        began: UnixMillis(1_795_253_528_006),
        deadline: UnixMillis(1_795_253_588_006),
        request_id: "request-1".into(),
    };
    let deadline = Deadline::after(Duration::from_secs(600));
    std::hint::black_box(encode(group, BlockSize::fitting(group.bytes), &attempt, deadline).unwrap());
}

/// Reads the lines again, as compression does.
fn read_again(group: &Group) {
    let take = |text: &[u8]| {
        std::hint::black_box(text);
        Ok::<_, EncodeError>(())
    };
    group.for_each_text(take).unwrap();
}

fn filled_with(piece: &[u8], bytes: usize) -> Vec<u8> {
    piece.repeat(bytes / piece.len())
}

/// A zstd frame of as much as may be in one, which is a few hundred bytes.
fn bomb(piece: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(&filled_with(piece, MAX_LINES_BYTES), 1).unwrap()
}

/// An aggregated record of so many user records.
fn aggregated(data: &[u8], user_records: usize) -> Vec<u8> {
    let delimited = |bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 0x80).expect("one byte of length");
        [&[0x1a, length], bytes].concat()
    };
    let message = delimited(&delimited(data)).repeat(user_records);
    [&[0xF3, 0x89, 0x9A, 0xC2][..], &message, &Md5::digest(&message)].concat()
}

/// An aggregated record of so many bytes, with as many user records as fit: two bytes each.
fn aggregated_of_nothing(bytes: usize) -> Vec<u8> {
    let message = filled_with(b"\x1a\x00", bytes - 20);
    [&[0xF3, 0x89, 0x9A, 0xC2][..], &message, &Md5::digest(&message)].concat()
}

/// A rejected line as ours, and an event.
const REJECTED_AND_EVENT: &[u8] =
    b"{\"v\":1,\"received_at\":\"2026-11-21T09:32:08.006Z\",\"rejected\":{\"reason\":\"\"}}\n{}\n";
const MIB: usize = DEFAULT_MAX_RECORD_BYTES;
const LARGEST: usize = MAX_CONFIGURED_RECORD_BYTES;

/// The rest of what a batch may be is in `memory_of_lines_is_bounded`, where nothing waits for compression.
#[rstest]
#[case::noise(vec![0xff; LARGEST])]
#[case::bad_lines_as_many_as_may_be([&b"{}\n"[..], &b"x\n".repeat(100), &b"{    }\n".repeat(1_850)].concat())]
fn memory_is_bounded(#[case] data: Vec<u8>) {
    let payload = payload_of(&data, MAX_PLAIN_RECORDS);
    let info = cost(&payload, compress);
    println!("{} bytes sent, {} live at most, {} in all", payload.len(), info.bytes_max, info.bytes_total);
    assert!(info.bytes_max < MOST_BYTES, "{info:?}");
}

#[rstest]
#[case::lines_as_short_as_may_be(filled_with(b"{}\n", MIB))]
#[case::lines_that_must_be_trimmed(filled_with(b"{} \n", LARGEST))]
#[case::lines_that_must_be_folded(filled_with(b"{\r}\n", LARGEST))]
#[case::blank_lines_between(filled_with(b"{}\n\n", LARGEST))]
#[case::lines_of_both_kinds(filled_with(REJECTED_AND_EVENT, MIB))]
#[case::bad_lines_as_many_as_may_be([&b"{}\n"[..], &b"x\n".repeat(100), &b"{    }\n".repeat(1_850)].concat())]
#[case::bad_lines_in_payloads_as_small_as_may_be(b"{}\nx".to_vec())]
#[case::bad_lines_past_the_bound([&b"{}\n"[..], &b"x\n".repeat(101)].concat())]
#[case::bad_lines_far_past_the_bound([&b"{}\n"[..], &filled_with(b"x\n", LARGEST / 2)].concat())]
#[case::bad_lines_in_user_records(aggregated(b"", 100))]
#[case::bad_user_records_as_many_as_fit(aggregated(b"x", LARGEST / 8))]
#[case::user_records_of_nothing(aggregated_of_nothing(LARGEST))]
#[case::user_records_as_small_as_may_be(aggregated(b"{}", 10_000))]
#[case::noise(vec![0xff; LARGEST])]
fn memory_of_lines_is_bounded(#[case] data: Vec<u8>) {
    let payload = payload_of(&data, MAX_PLAIN_RECORDS);
    let info = cost(&payload, read_again);
    println!("{} bytes sent, {} live at most, {} in all", payload.len(), info.bytes_max, info.bytes_total);
    assert!(info.bytes_max < MOST_BYTES_OF_LINES, "{info:?}");
}

/// The largest batch of frames that the template allows, each full of lines: some 200 MiB of them.
#[rstest]
#[case::lines(bomb(b"{}\n"))]
#[case::one_line(zstd::bulk::compress(format!("{{\"t\":\"{}\"}}", "x".repeat(MAX_LINES_BYTES - 9)).as_bytes(), 1).unwrap())]
#[case::lines_that_must_be_trimmed(bomb(b"{} \n"))]
#[case::lines_of_both_kinds(bomb(REJECTED_AND_EVENT))]
#[case::bad_lines(zstd::bulk::compress(&[&b"{}\n"[..], &filled_with(b"x\n", MAX_LINES_BYTES - 3)].concat(), 1).unwrap())]
#[case::no_object(bomb(b"x\n"))]
#[case::a_value_over_lines(bomb(b"[\n"))]
#[case::more_lines_than_may_be(zstd::bulk::compress(&filled_with(b"{}\n", 1 << 30), 1).unwrap())]
#[case::more_lines_than_may_be_and_says_nothing(zstd::stream::encode_all(&filled_with(b"{}\n", 1 << 30)[..], 1).unwrap())]
fn memory_of_frames_is_bounded(#[case] data: Vec<u8>) {
    let payload = payload_of(&data, MAX_BATCH_RECORDS);
    let info = cost(&payload, read_again);
    println!("{} bytes sent, {} live at most, {} in all", payload.len(), info.bytes_max, info.bytes_total);
    assert!(info.bytes_max < payload.len() as u64 + MOST_BYTES_OF_A_FRAME, "{info:?}");
}

/// Twice the input makes at most three times the allocations and bytes: a buffer that doubles may double once more. Work
/// that grew with the square would make four times as many.
#[rstest]
#[case::records(&|n| (b"{}\nx\n".to_vec(), n))]
#[case::lines(&|n| (b"{}\n{} \n\n{\r}\n".repeat(n), 1))]
#[case::lines_in_a_frame(&|n| (zstd::bulk::compress(&b"{}\n{} \n\n{\r}\nx\n".repeat(n), 1).unwrap(), 1))]
#[case::frames(&|n| (zstd::bulk::compress(&b"{}\nx\n".repeat(100), 1).unwrap(), n / 10))]
#[case::one_line(&|n| (format!("{{\"title\":\"{}\"}}\n", "x".repeat(n * 50)).into_bytes(), 1))]
#[case::bad_lines(&|n| (b"{}\nx".repeat(n), 1))]
#[case::open_arrays(&|n| (b"[".repeat(n * 10), 1))]
#[case::user_records(&|n| (aggregated(b"{} \n", n), 1))]
#[case::bad_user_records(&|n| (aggregated(b"x", n), 1))]
fn work_grows_with_the_input(#[case] batch: &dyn Fn(usize) -> (Vec<u8>, usize)) {
    let [once, twice] = [4_000, 8_000].map(|n| {
        let (data, records) = batch(n);
        cost(&payload_of(&data, records), compress)
    });
    assert!(twice.count_total <= 3 * once.count_total, "{once:?} {twice:?}");
    assert!(twice.bytes_total <= 3 * once.bytes_total, "{once:?} {twice:?}");
}

/// The guard of the hot path: allocations are the same on each machine, as times are not. More than these are a mistake, or to
/// be written down here; a twentieth and five are left for what libraries change. A record takes seven, one of them for its
/// partition key and one for its lines.
#[rstest]
#[case::one_record(1, 54)]
#[case::a_hundred_records(100, 867)]
#[case::a_thousand_records(1_000, 8_076)]
fn usual_batches_allocate_as_often_as_ever(#[case] records: usize, #[case] allocations: u64) {
    let info = cost(&payload_of(usual_line().as_bytes(), records), compress);
    assert!(info.count_total <= allocations + allocations / 20 + 5, "{} instead of {allocations}", info.count_total);
}

/// As many as without frames, and some for the reader of frames.
#[test]
fn usual_frames_allocate_no_more() {
    let frame = zstd::bulk::compress(usual_line().repeat(20).as_bytes(), 1).unwrap();
    let info = cost(&payload_of(&frame, 100), compress);
    assert!(info.count_total <= 800, "{}", info.count_total);
}

fn usual_line() -> String {
    let head = "{\"v\":1,\"id\":\"0193a5c2-7d1e-7b3a-9c4f-2f1f0c3b7d11\",\"received_at\":\"2026-11-21T09:32:08.006Z\",\"request_id\":\"r\"";
    format!("{head},\"client\":{{}},\"event\":{{\"title\":\"{:>260}\"}}}}\n", 'x')
}
