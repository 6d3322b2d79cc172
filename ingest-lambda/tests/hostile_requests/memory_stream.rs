//! A stream in memory, and the function in front of it, as small as its configuration allows: records and bodies then reach
//! their limits in tests that stay fast.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ingest_lambda::bucket::Buckets;
use ingest_lambda::client_context::ClientContext;
use ingest_lambda::config::{ClientIp, Config, RecordCompression};
use ingest_lambda::front_door::Request;
use ingest_lambda::handler::Handler;
use ingest_lambda::origins::AllowedOrigins;
use ingest_lambda::pack::Record;
use ingest_lambda::put::{EntryOutcome, PutError, RecordStream};
use ingest_lambda::spill::{CreateError, SpillBucket, Spilled};
use ingest_lambda::write_keys::WriteKeys;
use lambda_runtime::Context;
use shared::line::EventFormat;
use testbed::{Entry, Limits, Stream};

/// The smallest that `MAX_RECORD_BYTES` can be set to.
pub(crate) const MAX_RECORD_BYTES: usize = 16 * 1024;
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// How often a record is kept that is said to be stored.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Keeps {
    #[default]
    Once,
    Never,
    Twice,
}

/// The testbed's stream, unless it breaks its word.
#[derive(Debug)]
pub(crate) struct MemoryStream {
    stream: RefCell<Stream>,
    /// Records whose length divides by this are refused, however often they come.
    refused: Option<usize>,
    keeps: Keeps,
}

impl Default for MemoryStream {
    fn default() -> Self {
        let limits = Limits { record_bytes: MAX_RECORD_BYTES, ..Limits::default() };
        Self { stream: RefCell::new(Stream::new(0, 1, limits)), refused: None, keeps: Keeps::Once }
    }
}

impl MemoryStream {
    pub(crate) fn refusing(divisor: usize) -> Self {
        Self { refused: Some(divisor), ..Self::default() }
    }

    /// A stream that breaks its word.
    pub(crate) fn keeping(keeps: Keeps) -> Self {
        Self { keeps, ..Self::default() }
    }

    pub(crate) fn records(&self) -> Vec<testbed::Record> {
        self.stream.borrow().records().cloned().collect()
    }

    fn put_one(&self, entry: &Entry) -> EntryOutcome {
        if self.refused.is_some_and(|divisor| entry.data.len().is_multiple_of(divisor)) {
            return EntryOutcome::Throttled("ProvisionedThroughputExceededException".into());
        }
        let times = match self.keeps {
            Keeps::Once => 1,
            Keeps::Never => 0,
            Keeps::Twice => 2,
        };
        for _ in 0..times {
            self.stream.borrow_mut().put(0, entry.clone()).unwrap();
        }
        EntryOutcome::Stored
    }
}

impl RecordStream for &MemoryStream {
    async fn put(&self, records: &[&Record], _: Duration) -> Result<Vec<EntryOutcome>, PutError> {
        let entry = |record: &&Record| Entry {
            partition_key: record.partition_key(),
            explicit_hash_key: Some(record.bucket.first_hash_key),
            data: record.data.clone().into(),
        };
        let entries: Vec<Entry> = records.iter().map(entry).collect();
        self.stream.borrow().check_call(&entries).unwrap();
        Ok(entries.iter().map(|entry| self.put_one(entry)).collect())
    }
}

struct S3IsAway;

impl SpillBucket for S3IsAway {
    async fn create(&self, _: &Spilled, _: Duration) -> Result<(), CreateError> {
        Err(CreateError::Permanent("NoSuchBucket".into()))
    }
}

/// The status and the body that the function answers. Waits take no time.
pub(crate) fn answer(request: Request, stream: &MemoryStream) -> (u16, String) {
    let config = Config {
        stream_name: "stream".into(),
        bucket_name: "bucket".into(),
        kinesis_retry: Duration::from_millis(1_500),
        event_format: EventFormat::Envelope,
        client_ip: ClientIp::Full,
        client_context: ClientContext::default(),
        partition_key_fields: vec!["session_id".into(), "xid".into(), "sid".into()],
        key_buckets: Buckets::default(),
        record_compression: RecordCompression::Zstd,
        allowed_origins: AllowedOrigins::Any,
        write_keys: WriteKeys::default(),
        key_events_per_second: None,
        event_schema: None,
        max_body_bytes: MAX_BODY_BYTES,
        max_record_bytes: MAX_RECORD_BYTES,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3);
    let mut context = Context::default();
    context.request_id = "request-1".into();
    context.deadline = u64::try_from(end.as_millis()).unwrap();
    let response = runtime.block_on(Handler::new(config, stream, S3IsAway).handle(request, context)).unwrap();
    // As it goes to the front door.
    let response: serde_json::Value = serde_json::from_slice(&serde_json::to_vec(&response).unwrap()).unwrap();
    let status = response["statusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
    (status.unwrap(), response["body"].as_str().unwrap().to_owned())
}
