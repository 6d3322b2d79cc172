//! What is on the stream: our own lines, other producers' and what the Kinesis Producer Library made of them, damaged at
//! each step.

use base64_simd::STANDARD as BASE64;
use generators::damage::{damaged, hostile_text};
use generators::json::{json_object, json_string};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use shared::line::{Client, Envelope, IdLiteral, Rejected};
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;

use crate::aggregated::{Field, hostile_field, message, sealed};

fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

fn envelope(millis: i64) -> Envelope {
    Envelope::new(
        UnixMillis(millis),
        "request-1",
        &Client { user_agent: Some("\"\\\u{2028}".into()), ..Client::default() },
    )
}

/// A line as ingest writes it.
fn own_line() -> impl Strategy<Value = String> {
    let millis = || prop_oneof![4 => 1_795_253_520_000i64..1_795_253_530_000, 1 => any::<i64>()];
    let event = (millis(), json_string(), json_object()).prop_map(|(millis, id, event)| {
        let mut line = Vec::new();
        envelope(millis).write_event(&mut line, IdLiteral::new(&id), &one_line(&event));
        line
    });
    let rejected = (millis(), select(Reason::ALL.to_vec()), any::<Vec<u8>>()).prop_map(|(millis, reason, body)| {
        let rejection = Rejection::new(reason, "\"why\"");
        let rejected = Rejected {
            rejection: &rejection,
            content_type: Some("a/b"),
            content_encoding: None,
            part: None,
            body: &body,
        };
        let mut line = Vec::new();
        envelope(millis).write_rejected(&mut line, IdLiteral::new("\"1\""), &rejected);
        line
    });
    prop_oneof![event, rejected].prop_map(|line| String::from_utf8(line).unwrap().trim_end().to_owned())
}

/// Lines that look almost like ours: members in another order, twice, of another type.
fn almost_own_line() -> impl Strategy<Value = String> {
    let member = select(vec![
        "\"v\":1",
        "\"v\":1.0",
        "\"v\":\"1\"",
        "\"\\u0076\":1",
        "\"received_at\":\"2026-11-21T09:32:08.006Z\"",
        "\"received_at\":\"0000-00-00T00:00:00.000Z\"",
        "\"received_at\":\"2026-11-21T09:32:60.006Z\"",
        "\"received_at\":null",
        "\"received_at\":\"9999-12-31T23:59:59.999Z\"",
        "\"event\":{}",
        "\"event\":null",
        "\"rejected\":{\"reason\":\"x\"}",
        "\"rejected\":{\"reason\":\"foreign_record\",\"detail\":\"\",\"body_base64\":\"eA==\"}",
        "\"rejected\":{}",
        "\"rejected\":1",
        "\"id\":\"1\"",
        "\"client\":{}",
        "\"request_id\":\"r\"",
    ]);
    vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// Bodies that players have sent.
fn recorded_line() -> impl Strategy<Value = String> {
    let sessions = include_str!("../../../tests/fixtures/mux-embed-session.jsonl").lines();
    let sessions = sessions.chain(include_str!("../../../tests/fixtures/made-up-session.jsonl").lines());
    let bodies: Vec<String> = sessions
        .map(|request| serde_json::from_str::<Value>(request).unwrap()["body"].as_str().unwrap().to_owned())
        .collect();
    select(bodies)
}

/// Lines, or something like them.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => own_line(),
        2 => almost_own_line(),
        2 => json_object().prop_map(|object| one_line(&object)),
        // Over several lines.
        1 => json_object(),
        1 => recorded_line(),
        1 => "[ -~]{0,20}",
    ];
    let end = select(vec!["\n", "\n", "\n", "\r\n", "\n\n", " \n", "\n\t"]);
    let lines =
        vec((line, end), 1..8).prop_map(|lines| lines.into_iter().map(|(line, end)| line + end).collect::<String>());
    let pretty = json_object().prop_map(|object| object.replace([',', ' '], ",\n").replace(",\n,\n", ",\n"));
    let lines = prop_oneof![9 => lines, 1 => pretty].prop_map(String::into_bytes);
    prop_oneof![6 => damaged(lines, hostile_text()), 1 => any::<Vec<u8>>()]
}

/// An aggregated record of payloads, damaged under its checksum, and sometimes with it.
pub(crate) fn aggregated_record() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        2 => payload().prop_map(|data| Field::UserRecord { before: vec![0x08, 0x00], data: Some(data), after: Vec::new() }),
        1 => any::<Field>(),
    ];
    let message = vec(field, 1..6).prop_map(|fields| message(&fields));
    let message = prop_oneof![2 => message.clone(), 1 => damaged(message, hostile_field())];
    let record = message.prop_map(|message| sealed(&message)).boxed();
    prop_oneof![9 => record.clone(), 1 => damaged(record, hostile_field())]
}

/// A zstd frame of a payload, of a frame or of an aggregated record, by whatever writer, and damaged or not.
pub(crate) fn framed_record() -> impl Strategy<Value = Vec<u8>> {
    let framed = |(data, framing): (Vec<u8>, Framing)| framing.of(&data);
    let frame = (prop_oneof![8 => payload(), 1 => aggregated_record()], framing()).prop_map(framed).boxed();
    let frame = prop_oneof![9 => frame.clone(), 1 => (frame, framing()).prop_map(framed)].boxed();
    prop_oneof![2 => frame.clone(), 1 => damaged(frame, hostile_frame())]
}

/// How a writer of frames is set.
#[derive(Debug, Clone, Copy)]
struct Framing {
    level: i32,
    says_its_size: bool,
    has_checksum: bool,
}

fn framing() -> impl Strategy<Value = Framing> {
    (select(vec![-100, 1, 3, 19]), any::<bool>(), any::<bool>())
        .prop_map(|(level, says_its_size, has_checksum)| Framing { level, says_its_size, has_checksum })
}

impl Framing {
    fn of(self, lines: &[u8]) -> Vec<u8> {
        let mut writer = zstd::bulk::Compressor::new(self.level).unwrap();
        writer.include_contentsize(self.says_its_size).unwrap();
        writer.include_checksum(self.has_checksum).unwrap();
        writer.compress(lines).unwrap()
    }
}

/// What readers of zstd have stumbled over: headers, blocks and frames where there should be none.
fn hostile_frame() -> impl Strategy<Value = Vec<u8>> {
    let bomb = zstd::bulk::compress(&b"{}\n".repeat(400_000), 1).unwrap();
    let tokens = select(vec![
        // A frame's beginning, a frame that is to be skipped, a dictionary.
        b"\x28\xb5\x2f\xfd".to_vec(),
        b"\x50\x2a\x4d\x18\x02\x00\x00\x00{}".to_vec(),
        b"\x37\xa4\x30\xec".to_vec(),
        // Frames: empty; of nothing that is repeated; of one byte 2^21 - 1 times; of a window of 2^41 bytes.
        b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00".to_vec(),
        b"\x28\xb5\x2f\xfd\x00\x58\x03\x00\x00{".to_vec(),
        b"\x28\xb5\x2f\xfd\x00\x58\xfb\xff\xff{".to_vec(),
        b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00".to_vec(),
        bomb,
    ]);
    prop_oneof![3 => tokens, 1 => hostile_text()]
}

/// An aggregated record that has a frame among its user records.
fn aggregated_frame() -> impl Strategy<Value = Vec<u8>> {
    (payload(), framed_record()).prop_map(|(data, frame)| {
        let user_record = |data| Field::UserRecord { before: vec![0x08, 0x00], data: Some(data), after: Vec::new() };
        sealed(&message(&[user_record(data), user_record(frame)]))
    })
}

/// The data of a record.
pub(crate) fn record_data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![6 => payload(), 2 => aggregated_record(), 4 => framed_record(), 1 => aggregated_frame()]
}

/// A record as the mapping hands it over.
pub(crate) fn record_json(number: u64, partition_key: &str, data: &[u8], seconds: f64) -> String {
    let kinesis = json!({
        "kinesisSchemaVersion": "1.0",
        "partitionKey": partition_key,
        "sequenceNumber": number.to_string(),
        "data": BASE64.encode_to_string(data),
        "approximateArrivalTimestamp": seconds,
    });
    json!({"eventID": format!("shardId-000000000000:{number}"), "kinesis": kinesis, "eventSource": "aws:kinesis"})
        .to_string()
}

/// A batch as the mapping hands it over.
pub(crate) fn batch() -> impl Strategy<Value = String> {
    let seconds = prop_oneof![
        8 => 1_795_253_520.0..1_795_253_530.0,
        1 => 1_795_255_199.0..1_795_255_201.0,
        1 => select(vec![0.0, -1.0, 1e300, -1e300, 253_402_300_800.0, -62_135_596_801.0, f64::MIN_POSITIVE]),
    ];
    let key = select(vec!["viewer", "e-viewer", "e-r-", "r-request-1/0", "r-"]);
    vec((key, record_data(), seconds), 1..6).prop_map(|records| {
        let records = (7..).zip(records);
        let records = records.map(|(number, (key, data, seconds))| record_json(number, key, &data, seconds));
        format!("{{\"Records\":[{}]}}", records.collect::<Vec<_>>().join(","))
    })
}

/// A batch from AWS's documentation.
pub(crate) fn fixture() -> impl Strategy<Value = Vec<u8>> {
    Just(include_bytes!("../../fixtures/kinesis-event.json").to_vec())
}

/// A record's JSON with odd members, and whether it still is one.
pub(crate) fn event_members() -> impl Strategy<Value = (String, bool)> {
    let text = || {
        odd(
            vec![
                "\"shardId-000000000006:7\"",
                "\"\"",
                "\":\"",
                "\"::::\"",
                "\"no colon\"",
                "\"é\\u0000\\n\"",
                "\"!=\"",
                "\"eA==\"",
            ],
            vec!["1", "null", "[]", "{}", "true", "[\"x\"]"],
        )
    };
    let number = odd(
        vec!["0", "-0.0", "1e308", "-1e308", "1e-400", "9223372036854775807", "18446744073709551616", "-1"],
        vec!["\"1\"", "null", "\"NaN\"", "[]", "false"],
    );
    // Nothing is known of who wrote a record without a key, and it lands.
    let key = text().prop_map(|(key, fine)| (key, fine || key.is_none()));
    (text(), text(), text(), number, key).prop_map(
        |((id, a), (sequence_number, b), (data, c), (seconds, d), (key, e))| {
            let member = |name: &str, value: Option<&str>| value.map(|value| format!("\"{name}\":{value}"));
            let kinesis = [
                member("data", data),
                member("partitionKey", key),
                member("approximateArrivalTimestamp", seconds),
                member("sequenceNumber", sequence_number),
            ];
            let kinesis = format!("{{{}}}", kinesis.into_iter().flatten().collect::<Vec<_>>().join(","));
            let members = [member("kinesis", Some(&kinesis)), member("eventID", id)];
            (format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(",")), a && b && c && d && e)
        },
    )
}

/// One of the fine values, or seldom one that is not, or none; and whether it is fine.
fn odd(fine: Vec<&'static str>, not_fine: Vec<&'static str>) -> impl Strategy<Value = (Option<&'static str>, bool)> {
    prop_oneof![
        20 => select(fine).prop_map(|value| (Some(value), true)),
        1 => select(not_fine).prop_map(|value| (Some(value), false)),
        1 => Just((None, false)),
    ]
}
