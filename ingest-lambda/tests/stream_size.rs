//! What a POST costs on the stream, in bytes and records: shards, retention and PUT units are paid by these.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ingest_lambda::bucket::Buckets;
use ingest_lambda::client_context::ClientContext;
use ingest_lambda::config::{ClientIp, Config, RecordCompression};
use ingest_lambda::front_door::Request;
use ingest_lambda::handler::Handler;
use ingest_lambda::intake::Headers;
use ingest_lambda::origins::AllowedOrigins;
use ingest_lambda::pack::Record;
use ingest_lambda::put::{EntryOutcome, PutError, RecordStream};
use ingest_lambda::spill::{CreateError, SpillBucket, Spilled};
use ingest_lambda::write_keys::WriteKeys;
use lambda_runtime::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use shared::frame::FrameReader;
use shared::limits::{DEFAULT_MAX_BODY_BYTES, DEFAULT_MAX_RECORD_BYTES};
use shared::line::EventFormat;
use uuid::Uuid;

#[derive(Default)]
struct MemoryStream(RefCell<Vec<Record>>);

impl RecordStream for &MemoryStream {
    async fn put(&self, records: &[&Record], _: Duration) -> Result<Vec<EntryOutcome>, PutError> {
        self.0.borrow_mut().extend(records.iter().map(|record| (*record).clone()));
        Ok(vec![EntryOutcome::Stored; records.len()])
    }
}

struct S3IsAway;

impl SpillBucket for S3IsAway {
    async fn create(&self, _: &Spilled, _: Duration) -> Result<(), CreateError> {
        Err(CreateError::Permanent("NoSuchBucket".into()))
    }
}

/// The records that a POST becomes.
fn records_of(events: &[Value]) -> Vec<Record> {
    let config = Config {
        stream_name: "stream".into(),
        bucket_name: "bucket".into(),
        kinesis_retry: Duration::from_millis(1_500),
        event_format: EventFormat::Envelope,
        client_ip: ClientIp::Off,
        client_context: ClientContext::default(),
        partition_key_fields: vec!["session_id".into()],
        key_buckets: Buckets::default(),
        record_compression: RecordCompression::Zstd,
        allowed_origins: AllowedOrigins::Any,
        write_keys: WriteKeys::default(),
        key_events_per_second: None,
        event_schema: None,
        max_body_bytes: DEFAULT_MAX_BODY_BYTES,
        max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
    };
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36";
    let headers = Headers { user_agent: Some(agent.into()), ..Headers::default() };
    let body = Value::from(events).to_string();
    let request = Request { method: "POST".into(), path: "/events".into(), headers, body, ..Request::default() };
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_mins(1);
    let mut context = Context::default();
    context.request_id = Uuid::new_v4().to_string();
    context.deadline = u64::try_from(end.as_millis()).unwrap();
    let stream = MemoryStream::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let response = runtime.block_on(Handler::new(config, &stream, S3IsAway).handle(request, context)).unwrap();
    assert_eq!(response.status_code, 200);
    let mut reader = FrameReader::default();
    let lines = |record: &Record| reader.lines(&record.data).unwrap().iter().filter(|byte| **byte == b'\n').count();
    let records = stream.0.into_inner();
    assert_eq!(records.iter().map(lines).sum::<usize>(), events.len());
    records
}

fn bytes_of(records: &[Record]) -> usize {
    records.iter().map(|record| record.data.len() + record.partition_key().len()).sum()
}

/// An event of some 300 bytes, whose numbers are as random as in life.
fn event(session: Uuid, random: &mut StdRng) -> Value {
    let types = ["heartbeat", "play", "pause", "rebuffer", "ad_impression"];
    json!({
        "id": Uuid::from_u128(random.random()).to_string(),
        "type": types[random.random_range(0..types.len())],
        "session_id": session.to_string(),
        "video_id": "video-271",
        "position_ms": random.random_range(0..3_600_000),
        "buffer_ms": random.random_range(0..30_000),
        "bitrate_kbps": random.random_range(0..8_000),
        "dropped_frames": random.random_range(0..7),
        "player": {"name": "web-player", "version": "5.19.0"},
        "sent_at": 1_795_253_520_000_u64 + random.random_range(0..60_000),
    })
}

#[test]
fn twenty_events_of_a_session_take_at_most_110_bytes_each() {
    let mut random = StdRng::seed_from_u64(15);
    let events: Vec<_> = (0..20).map(|_| event(Uuid::from_u128(7), &mut random)).collect();
    let records = records_of(&events);
    assert_eq!(records.len(), 1);
    assert!(bytes_of(&records) <= 20 * 110, "{} bytes an event", bytes_of(&records) / 20);
}

#[test]
fn nine_thousand_keys_are_at_most_six_records() {
    let events: Vec<_> = (0..9_000).map(|key| json!({"session_id": format!("invented key {key}")})).collect();
    let records = records_of(&events);
    assert!(records.len() <= 6, "{} records", records.len());
    let buckets: BTreeSet<_> = records.iter().map(|record| record.bucket).collect();
    assert_eq!(buckets.len(), 4, "spread over the stream");
}
