//! How long the worst batches take that the template allows: 200 frames of 1 MiB of lines each. Landing has a minute for one, also
//! when it must look at what an earlier attempt landed and write it again.
//!
//! Times are the machine's, so this is run by hand, in the profile that is deployed:
//! `cargo test --release -p kinesis-to-s3-lambda --test worst_batches -- --ignored --nocapture --test-threads 1`

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use kinesis_to_s3_lambda::encode::encode;
use kinesis_to_s3_lambda::group::group;
use kinesis_to_s3_lambda::kinesis_event::{KinesisData, Record};
use rstest::rstest;
use shared::frame::MAX_LINES_BYTES;
use shared::line::EventFormat;
use shared::object::{Attempt, BlockSize};
use shared::timestamp::UnixMillis;

/// `BatchSize` at most.
const RECORDS: usize = 200;
/// Of one encoding more than landing does when its first write finds an object.
const ENOUGH: Duration = Duration::from_secs(57);

fn frame(lines: &[u8]) -> Bytes {
    zstd::bulk::compress(lines, 1).unwrap().into()
}

fn filled_with(piece: &[u8]) -> Vec<u8> {
    piece.repeat(MAX_LINES_BYTES / piece.len())
}

/// Envelopes of one request, whose events have the ids that their player gave them.
fn envelopes() -> Vec<u8> {
    let mut lines = String::new();
    for number in 0.. {
        let line = format!(
            "{{\"v\":1,\"id\":\"{number}\",\"received_at\":\"2026-11-21T09:32:08.006Z\",\"request_id\":\"0193a5c2-7d1e-7b3a-9c4f-2f1f0c3b7d11\",\
             \"client\":{{}},\"event\":{{\"type\":\"heartbeat\",\"session_id\":\"0193a5c2\",\"position\":{number}.5,\"id\":\"{number}\"}}}}\n"
        );
        if lines.len() + line.len() > MAX_LINES_BYTES {
            return lines.into_bytes();
        }
        lines.push_str(&line);
    }
    unreachable!()
}

#[rstest]
#[case::envelopes(&envelopes())]
#[case::shortest_events(&filled_with(b"{}\n"))]
#[case::events_to_trim(&filled_with(b"{} \n"))]
#[case::one_event(&[b"{\"t\":\"", &[b'x'; MAX_LINES_BYTES - 9][..], b"\"}\n"].concat())]
#[case::lone_surrogates(&filled_with(b"{\"\\ud800\":0}\n"))]
#[case::many_members(&[b"{", &b"\"\":0,".repeat(MAX_LINES_BYTES / 5 - 3)[..], b"\"\":0}\n"].concat())]
#[case::bad_lines(&[b"{}\n", &filled_with(b"x\n")[4..]].concat())]
#[case::bad_objects(&[b"{}\n", &filled_with(b"{x}\n")[4..]].concat())]
#[case::bad_bytes(&[b"{}\n", &filled_with(b"{\xff}\n")[4..]].concat())]
#[case::no_object(&filled_with(b"x\n"))]
#[case::blank_lines(&[b"{}\n", &filled_with(b"\n")[4..]].concat())]
#[ignore = "takes minutes, and its times are the machine's"]
fn the_worst_batch_lands_in_time(#[case] lines: &[u8]) {
    let data = frame(lines);
    let record = |number: usize| Record {
        event_id: format!("shardId-000000000000:{number}"),
        kinesis: KinesisData {
            sequence_number: number.to_string(),
            partition_key: "e-1".into(),
            data: data.clone(),
            approximate_arrival_timestamp: 1_795_253_528.0,
        },
    };
    let records: Vec<_> = (0..RECORDS).map(record).collect();
    let attempt = Attempt { began: UnixMillis(0), deadline: UnixMillis(60_000), request_id: "request".into() };
    let began = Instant::now();
    let groups = group(&records, EventFormat::Envelope);
    let judged = began.elapsed();
    let landed =
        groups.iter().map(|group| encode(group, BlockSize::fitting(group.bytes), &attempt).unwrap().body.len());
    let landed: usize = landed.sum();
    let once = began.elapsed();
    let bytes: usize = groups.iter().map(|group| group.bytes).sum();
    println!(
        "{} bytes of frames, {} MiB of lines land as {landed}: judged in {judged:?}, encoded in {:?}, {:.0} ns a byte",
        data.len() * RECORDS,
        bytes >> 20,
        once - judged,
        once.as_secs_f64() * 1e9 / bytes as f64
    );
    assert!(judged + 2 * (once - judged) < ENOUGH);
}
