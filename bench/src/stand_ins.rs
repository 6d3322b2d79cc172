//! Kinesis and S3 that say yes at once, and remember what they were given.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64_simd::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A record that was put on the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamRecord {
    pub(crate) partition_key: String,
    pub(crate) data: Vec<u8>,
}

/// An object that was put into the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredObject {
    pub(crate) key: String,
    /// Entries of `x-amz-meta-…`.
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) body: Bytes,
}

/// What came since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) records: u64,
    /// Bytes of all records' data and keys.
    pub(crate) record_bytes: u64,
    pub(crate) objects: u64,
    /// Bytes of all objects as they were stored.
    pub(crate) object_bytes: u64,
    /// What came after [`StandIns::keep`].
    pub(crate) kept_records: Vec<StreamRecord>,
    pub(crate) kept_objects: Vec<StoredObject>,
}

/// Both services on one free port. They end with this.
pub(crate) struct StandIns {
    pub(crate) address: SocketAddr,
    store: Arc<Store>,
    server: JoinHandle<()>,
}

struct Store {
    keeps: AtomicBool,
    received: Mutex<Received>,
}

impl Drop for StandIns {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StandIns {
    /// Answers from now on, and counts.
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let store = Arc::new(Store { keeps: AtomicBool::new(false), received: Mutex::default() });
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(store.clone());
        let server = tokio::spawn(serve(listener, router));
        Ok(Self { address, store, server })
    }

    /// From now on what comes is kept whole, so that it can be looked at.
    pub(crate) fn keep(&self) {
        self.store.keeps.store(true, Ordering::Relaxed);
    }

    /// What came since the last call of this.
    pub(crate) fn take(&self) -> Received {
        std::mem::take(&mut *self.store.received())
    }
}

impl Store {
    /// A poisoned lock only means that another task panicked; what it guards is still whole.
    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, router: Router) {
    if let Err(problem) = axum::serve(listener, router).await {
        eprintln!("the stand-ins ended: {problem}");
    }
}

async fn answer(
    State(store): State<Arc<Store>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
        Some(target) if target.ends_with(".PutRecords") => put_records(&store, &body),
        None if method == Method::PUT => put_object(&store, &uri, &headers, body),
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecords {
    records: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    data: String,
    partition_key: String,
}

fn put_records(store: &Store, body: &[u8]) -> Response {
    let records: Option<Vec<StreamRecord>> = serde_json::from_slice(body).ok().and_then(|call: PutRecords| {
        let record = |entry: Entry| {
            let data = BASE64.decode_to_vec(entry.data).ok()?;
            Some(StreamRecord { partition_key: entry.partition_key, data })
        };
        call.records.into_iter().map(record).collect()
    });
    let Some(records) = records else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let stored = json!({
        "SequenceNumber": "49590338271490256608559692538361571095921575989136588898",
        "ShardId": "shardId-000000000000",
    });
    let answer = json!({"FailedRecordCount": 0, "Records": vec![stored; records.len()]});
    let mut received = store.received();
    received.records += records.len() as u64;
    received.record_bytes +=
        records.iter().map(|record| record.data.len() + record.partition_key.len()).sum::<usize>() as u64;
    if store.keeps.load(Ordering::Relaxed) {
        received.kept_records.extend(records);
    }
    ([(header::CONTENT_TYPE, "application/x-amz-json-1.1")], answer.to_string()).into_response()
}

fn put_object(store: &Store, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
    // Path style: the bucket comes first.
    let key = uri.path().splitn(3, '/').nth(2).unwrap_or_default().replace("%3D", "=");
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("x-amz-meta-")?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    let object = StoredObject { key, metadata: metadata.collect(), body };
    let mut received = store.received();
    received.objects += 1;
    received.object_bytes += object.body.len() as u64;
    if store.keeps.load(Ordering::Relaxed) {
        received.kept_objects.push(object);
    }
    (StatusCode::OK, [(header::ETAG, "\"9b2cf535f27731c974343645a3985328\"")]).into_response()
}
