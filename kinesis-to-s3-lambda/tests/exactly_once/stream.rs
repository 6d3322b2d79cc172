//! The stream: one shard whose records name their own lines, so that each line can be found again wherever it landed.

use std::ops::Range;

use base64_simd::STANDARD as BASE64;
use kinesis_to_s3_lambda::kinesis_event::{KinesisData, KinesisEvent, Record};
use proptest::prelude::*;
use serde_json::Value;
use shared::frame::is_frame;

const SHARD: &str = "shardId-000000000000";
/// 2026-11-21T00:00:00Z, in milliseconds since 1970.
const MIDNIGHT_MS: i64 = 1_795_219_200_000;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Event,
    TwoEvents,
    /// No JSON: it lands as rejected.
    Foreign,
    /// An event and a line that is no JSON: it lands in two objects.
    Both,
}

/// A record that arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) content: Content,
    /// Whether its data are a zstd frame.
    pub(crate) framed: bool,
    /// Whether it is the first of another hour: a batch that holds it becomes more than one object.
    pub(crate) next_hour: bool,
}

/// A line's name: its record and its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) record: usize,
    number: usize,
}

/// All records that will ever arrive. A batch may end anywhere, so that it needs no model of which have arrived already.
pub(crate) struct Stream {
    records: Vec<(Content, u32)>,
    shard: testbed::Stream,
}

impl Stream {
    pub(crate) fn new(arrivals: &[Arrival]) -> Self {
        let (mut hour, mut records) = (9, Vec::new());
        let mut shard = testbed::Stream::new(MIDNIGHT_MS, 1, testbed::Limits::default());
        for (record, arrival) in arrivals.iter().enumerate() {
            hour += u32::from(arrival.next_hour);
            records.push((arrival.content, hour));
            let arrived_at = MIDNIGHT_MS + i64::from(hour) * 3_600_000 + record as i64 * 1_000;
            let data = data(record, *arrival).into();
            let entry = testbed::Entry { partition_key: "e-viewer".into(), data, ..testbed::Entry::default() };
            shard.put(arrived_at, entry).unwrap();
        }
        Self { records, shard }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn batch(&self, records: Range<usize>) -> KinesisEvent {
        let batch = self.shard.records().skip(records.start).take(records.len());
        KinesisEvent { records: batch.map(event_record).collect() }
    }

    /// A record's sequence number.
    pub(crate) fn number(&self, record: usize) -> String {
        self.shard.records().nth(record).unwrap().sequence_number.to_string()
    }

    /// The end of the key of an object whose first record this is.
    pub(crate) fn key_end(&self, first: usize) -> String {
        format!("/{SHARD}-{}.jsonl.bz2", self.number(first))
    }

    /// The first record of the object with this key.
    pub(crate) fn first_record(&self, key: &str) -> usize {
        (0..self.len()).find(|record| key.ends_with(&self.key_end(*record))).unwrap()
    }

    /// Every line of the stream with the partition that it belongs to.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Line, String)> {
        self.records.iter().enumerate().flat_map(|(record, (content, hour))| {
            let prefixes: &[&str] = match content {
                Content::Event => &["events"],
                Content::TwoEvents => &["events", "events"],
                Content::Foreign => &["rejected"],
                Content::Both => &["events", "rejected"],
            };
            let lines = prefixes.iter().enumerate();
            lines.map(move |(number, prefix)| {
                (Line { record, number }, format!("{prefix}/dt=2026-11-21/hour={hour:02}/"))
            })
        })
    }
}

fn data(record: usize, arrival: Arrival) -> Vec<u8> {
    let lines = match arrival.content {
        Content::Event => format!("{{\"line\":\"{record}/0\"}}"),
        Content::TwoEvents => format!("{{\"line\":\"{record}/0\"}}\n{{\"line\":\"{record}/1\"}}\n"),
        Content::Foreign => format!("{record}/0"),
        Content::Both => format!("{{\"line\":\"{record}/0\"}}\n{record}/1"),
    };
    if arrival.framed { zstd::bulk::compress(lines.as_bytes(), 1).unwrap() } else { lines.into_bytes() }
}

fn event_record(record: &testbed::Record) -> Record {
    let sequence_number = record.sequence_number.to_string();
    Record {
        event_id: format!("{SHARD}:{sequence_number}"),
        kinesis: KinesisData {
            sequence_number,
            partition_key: record.partition_key.clone(),
            data: record.data.clone(),
            approximate_arrival_timestamp: record.arrived_at as f64 / 1_000.0,
        },
    }
}

impl Line {
    pub(crate) fn is_first_of_its_record(self) -> bool {
        self.number == 0
    }

    /// From a landed line, be it an event or rejected.
    pub(crate) fn parse(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).unwrap();
        match json["rejected"]["body_base64"].as_str() {
            Some(body) => Self::kept(&BASE64.decode_to_vec(body).unwrap()),
            None => Self::named(json["line"].as_str().unwrap()),
        }
    }

    /// From what a rejected line keeps: a line, or a whole frame of one.
    fn kept(body: &[u8]) -> Self {
        let line = if is_frame(body) { zstd::bulk::decompress(body, 100).unwrap() } else { body.to_vec() };
        Self::named(&String::from_utf8(line).unwrap())
    }

    fn named(name: &str) -> Self {
        let (record, number) = name.split_once('/').unwrap();
        Self { record: record.parse().unwrap(), number: number.parse().unwrap() }
    }
}

pub(crate) fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let content = prop::sample::select(vec![Content::Event, Content::TwoEvents, Content::Foreign, Content::Both]);
    let arrival = (content, any::<bool>(), prop::bool::weighted(0.2));
    let arrival = arrival.prop_map(|(content, framed, next_hour)| Arrival { content, framed, next_hour });
    prop::collection::vec(arrival, 1..=8)
}
