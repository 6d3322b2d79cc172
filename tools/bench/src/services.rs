//! Kinesis and S3 as the functions see them: calls succeed, and what they store is kept to be looked at.
//!
//! Nothing is modelled but success: the bench measures the functions, and needs to know only what they stored.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64_simd::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition_key: String,
    pub(crate) data: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) key: String,
    /// Headers `x-amz-meta-…` without that prefix.
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) body: Bytes,
}

/// What was stored, in order.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) records: Vec<Record>,
    pub(crate) objects: Vec<Object>,
    /// Of PutRecords.
    pub(crate) calls: u32,
}

/// Both services on one free port. Dropping it ends them.
pub(crate) struct Services {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    stored: Mutex<Stored>,
    put_time: Duration,
}

impl Shared {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services {
    /// PutRecords takes that time.
    pub(crate) async fn start(put_time: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { stored: Mutex::default(), put_time });
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(shared.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the fake services ended: {error}");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// What was stored since the start, or since it was last taken.
    pub(crate) fn take_stored(&self) -> Stored {
        std::mem::take(&mut *self.shared.stored())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
        Some(target) if target.ends_with(".PutRecords") => {
            let answer = put_records(&mut shared.stored(), &body);
            if !shared.put_time.is_zero() {
                tokio::time::sleep(shared.put_time).await;
            }
            answer.unwrap_or_else(|| StatusCode::BAD_REQUEST.into_response())
        }
        None if method == Method::PUT => put_object(&mut shared.stored(), &uri, &headers, body),
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

/// `None` if the call is malformed.
fn put_records(stored: &mut Stored, body: &[u8]) -> Option<Response> {
    let call: Value = serde_json::from_slice(body).ok()?;
    let entries = call["Records"].as_array()?;
    stored.calls += 1;
    for entry in entries {
        let data = BASE64.decode_to_vec(entry["Data"].as_str()?).ok()?;
        stored.records.push(Record { partition_key: entry["PartitionKey"].as_str()?.to_owned(), data });
    }
    let result = json!({
        "SequenceNumber": "49590338271490256608559692538361571095921575989136588898",
        "ShardId": "shardId-000000000000",
    });
    let answer = json!({"FailedRecordCount": 0, "Records": vec![result; entries.len()]});
    Some(([(header::CONTENT_TYPE, "application/x-amz-json-1.1")], answer.to_string()).into_response())
}

fn put_object(stored: &mut Stored, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
    // Path style: the bucket comes first.
    let key = uri.path().splitn(3, '/').nth(2).unwrap_or_default().replace("%3D", "=");
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("x-amz-meta-")?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    stored.objects.push(Object { key, metadata: metadata.collect(), body });
    (StatusCode::OK, [(header::ETAG, "\"9b2cf535f27731c974343645a3985328\"")]).into_response()
}
