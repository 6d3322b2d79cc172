//! What the worst lines cost, in the largest batch that the template allows: 200 frames of 1 MiB of lines each.
//!
//! Landing has a minute for a batch. How much of it the worst batch takes depends on the machine, and hardly on it how many times as long
//! it takes as usual lines. So CPU times are compared with those of usual lines in the same run, of few frames: what a frame costs does
//! not depend on how many there are (`memory.rs`). docs/PERFORMANCE.md has the seconds.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use kinesis_to_s3_lambda::encode::encode;
use kinesis_to_s3_lambda::group::group;
use kinesis_to_s3_lambda::kinesis_event::{KinesisData, Record};
use lambda_setup::deadline::Deadline;
use nix::time::{ClockId, clock_gettime};
use shared::frame::MAX_LINES_BYTES;
use shared::limits::{MAX_BATCH_RECORDS, MAX_OBJECT_BYTES};
use shared::line::EventFormat;
use shared::object::{Attempt, BlockSize};
use shared::timestamp::UnixMillis;

/// How many frames are measured.
const FRAMES: usize = 3;
/// CPU time of landing them at most, against that of usual lines, of which 200 frames take 6 s where this was measured: then the
/// worst take 36 s, and on Lambda, which is assumed to take half as long again, 54 of landing's 58.
const TIMES_AS_LONG: f64 = 6.0;

fn filled_with(piece: &[u8]) -> Vec<u8> {
    piece.repeat(MAX_LINES_BYTES / piece.len())
}

fn behind_an_event(piece: &[u8]) -> Vec<u8> {
    let room = MAX_LINES_BYTES - b"{}\n".len();
    [b"{}\n", &piece.repeat(room / piece.len())[..]].concat()
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

/// A hundred lines whose problems quote them, each of which is rejected alone, in a frame that is large enough for so many.
fn quoted_lines() -> Vec<u8> {
    let mut lines = Vec::from(b"{}\n");
    for number in 0..100_u64 {
        let hash = |at: u64| (number * 1_000 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let text: String = (0..600).map(|at| format!("\\\"{:016x}", hash(at))).collect();
        lines.extend_from_slice(format!("\"{}\"\n", &text[..10_240]).as_bytes());
    }
    lines
}

/// Lines that fill a frame, by what is bad about them.
fn worst_lines() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("shortest events", filled_with(b"{}\n")),
        ("events to trim", filled_with(b"{} \n")),
        ("one event", [b"{\"t\":\"", &[b'x'; MAX_LINES_BYTES - 9][..], b"\"}\n"].concat()),
        ("lone surrogates", filled_with(b"{\"\\ud800\":0}\n")),
        ("many members", [b"{", &b"\"\":0,".repeat(MAX_LINES_BYTES / 5 - 3)[..], b"\"\":0}\n"].concat()),
        ("bad lines", behind_an_event(b"x\n")),
        ("bad objects", behind_an_event(b"{x}\n")),
        ("bad bytes", behind_an_event(b"{\xff}\n")),
        ("quoted lines", quoted_lines()),
        ("no object", filled_with(b"x\n")),
        ("blank lines", behind_an_event(b"\n")),
    ]
}

fn batch(lines: &[u8], records: usize) -> Vec<Record> {
    let data = Bytes::from(zstd::bulk::compress(lines, 1).unwrap());
    let record = |number: usize| Record {
        event_id: format!("shardId-000000000000:4959033827149025660855969{number:031}"),
        kinesis: KinesisData {
            sequence_number: format!("4959033827149025660855969{number:031}"),
            partition_key: "e-1".into(),
            data: data.clone(),
            approximate_arrival_timestamp: 1_795_253_528.0,
        },
    };
    (0..records).map(record).collect()
}

/// Judges a batch and compresses it: once, because landing looks first at what is there if a batch is large.
fn land(records: &[Record]) {
    let attempt = Attempt { began: UnixMillis(0), deadline: UnixMillis(60_000), request_id: "request".into() };
    for group in group(records, EventFormat::Envelope) {
        let deadline = Deadline::after(Duration::from_secs(600));
        std::hint::black_box(encode(&group, BlockSize::LARGEST, &attempt, deadline).unwrap());
    }
}

/// The least of five measurements: what else the machine does only adds to it.
fn cpu_time(records: &[Record]) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let measure = |_| {
        let began = now();
        land(records);
        now() - began
    };
    (0..5).map(measure).min().unwrap()
}

#[test]
#[ignore = "measures times: docs/PERFORMANCE.md"]
fn the_worst_lines_take_no_more_than_a_few_times_as_long_as_usual_ones() {
    let usual = cpu_time(&batch(&envelopes(), FRAMES));
    println!("envelopes: {usual:?}");
    for (name, lines) in worst_lines() {
        let times = cpu_time(&batch(&lines, FRAMES)).div_duration_f64(usual);
        println!("{name}: {times:.1} times as long");
        assert!(times < TIMES_AS_LONG, "{name}: {times:.1} times as long");
    }
}

#[test]
fn the_largest_batch_makes_no_object_that_check_object_calls_too_large() {
    for (name, lines) in worst_lines() {
        for group in group(&batch(&lines, 1), EventFormat::Envelope) {
            let bytes = group.bytes * MAX_BATCH_RECORDS;
            println!("{name}: {} MiB", bytes >> 20);
            assert!(bytes as u64 <= MAX_OBJECT_BYTES, "{name}: {bytes}");
        }
    }
}
