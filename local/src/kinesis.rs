//! The embedded Kinesis: ferrokinesis, with a gate that makes reads see every record that will ever precede what they
//! return.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use ferrokinesis::actions::{Operation, dispatch};
use ferrokinesis::store::{Store, StoreOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::timestamp::UnixMillis;
use tokio::sync::RwLock;

use crate::body;
use crate::clock::Clock;
use crate::iterator_age::IteratorAges;
use crate::kinesis_puts::{Put, Puts};
use crate::metric_store::MetricStore;
use crate::template::{ACCOUNT_ID, REGION, Stream};

/// ferrokinesis draws sequence numbers first and stores the records afterwards. Of two puts at once the later number may
/// be stored first; a reader that came between would go on past the earlier one and never see it. So puts share this
/// lock and reads have it alone. It holds whether records are still taken.
type Gate = Arc<RwLock<bool>>;

/// An in-memory Kinesis.
#[derive(Clone)]
pub struct Kinesis {
    store: Store,
    gate: Gate,
    iterator_ages: IteratorAges,
}

/// A record of a shard.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    pub sequence_number: String,
    pub partition_key: String,
    /// Base64.
    pub data: String,
    /// Seconds since 1970.
    pub approximate_arrival_timestamp: f64,
}

impl Record {
    /// When it really arrived.
    #[must_use]
    pub fn arrival(&self) -> UnixMillis {
        UnixMillis::from_seconds(self.approximate_arrival_timestamp)
    }
}

/// A shard and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub shard_id: String,
    /// The shards that must be read to their end before this one.
    pub parents: Vec<String>,
    /// Whether it takes no more records.
    pub is_closed: bool,
}

/// A shard as `ListShards` gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedShard {
    shard_id: String,
    hash_key_range: HashKeyRange,
    sequence_number_range: SequenceNumberRange,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRange {
    ending_sequence_number: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HashKeyRange {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl ListedShard {
    fn is_closed(&self) -> bool {
        self.sequence_number_range.ending_sequence_number.is_some()
    }

    /// The hash keys that it takes. A bound that is no number is taken for the widest: better to wait for a shard too many.
    fn bounds(&self) -> (u128, u128) {
        let HashKeyRange { starting_hash_key, ending_hash_key } = &self.hash_key_range;
        (starting_hash_key.parse().unwrap_or(u128::MIN), ending_hash_key.parse().unwrap_or(u128::MAX))
    }

    /// Whether records of one partition key may be in both.
    fn overlaps(&self, other: &Self) -> bool {
        let ((start, end), (other_start, other_end)) = (self.bounds(), other.bounds());
        start <= other_end && other_start <= end
    }
}

/// A call that the embedded Kinesis refused.
#[derive(Debug, thiserror::Error)]
#[error("the embedded Kinesis refused {operation}: {message}")]
pub struct KinesisError {
    operation: String,
    message: String,
}

/// Bytes of a request at most: ten MiB of records as base64, and their frame.
pub(crate) const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// Shards that fit into the stack; resharding under test needs a few, and closed ones count for a while.
const SHARD_LIMIT: u32 = 1_000;
/// How often records past their retention are dropped.
const RETENTION_CHECK_SECONDS: u64 = 60;

impl Kinesis {
    /// Starts with no streams, and the HTTP service for its API. What is put is noted as metrics in the time of a clock.
    pub fn start(metrics: MetricStore, clock: Clock) -> (Self, Router) {
        let (router, store) = ferrokinesis::create_app(StoreOptions {
            create_stream_ms: 0,
            delete_stream_ms: 0,
            update_stream_ms: 100,
            shard_limit: SHARD_LIMIT,
            retention_check_interval_secs: RETENTION_CHECK_SECONDS,
            aws_account_id: ACCOUNT_ID.into(),
            aws_region: REGION.into(),
            ..StoreOptions::default()
        });
        let gate = Gate::new(RwLock::new(true));
        let iterator_ages = IteratorAges::new(metrics.clone(), clock);
        let puts = Puts { store: store.clone(), metrics, clock };
        let router = router
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
            .layer(middleware::from_fn_with_state((gate.clone(), puts), through_the_gate));
        (Self { store, gate, iterator_ages }, router)
    }

    /// Creates a stream and waits until it takes records.
    ///
    /// # Errors
    ///
    /// When ferrokinesis refuses one of the calls.
    pub async fn create(&self, stream: &Stream) -> Result<(), KinesisError> {
        let name = &stream.name;
        self.call(Operation::CreateStream, json!({"StreamName": name, "ShardCount": stream.shards})).await?;
        self.wait_until_active(name).await?;
        let retention = json!({"StreamName": name, "RetentionPeriodHours": stream.retention_hours});
        if stream.retention_hours > 24 {
            self.call(Operation::IncreaseStreamRetentionPeriod, retention).await?;
        }
        Ok(())
    }

    /// All shards of a stream, the closed ones too. A shard's parents are the earlier closed ones that took its keys:
    /// ferrokinesis names them itself after a split or a merge, but not after `UpdateShardCount`.
    ///
    /// # Errors
    ///
    /// When ferrokinesis refuses the call.
    pub async fn shards(&self, stream: &str) -> Result<Vec<Shard>, KinesisError> {
        let listed = self.list(stream).await?;
        let parents = |shard: &ListedShard| {
            let earlier = listed.iter().take_while(|earlier| earlier.shard_id != shard.shard_id);
            let taken_over = earlier.filter(|earlier| earlier.is_closed() && earlier.overlaps(shard));
            taken_over.map(|parent| parent.shard_id.clone()).collect()
        };
        let shard = |listed: &ListedShard| Shard {
            shard_id: listed.shard_id.clone(),
            parents: parents(listed),
            is_closed: listed.is_closed(),
        };
        Ok(listed.iter().map(shard).collect())
    }

    /// The shards that take records, neighbours side by side.
    ///
    /// # Errors
    ///
    /// When ferrokinesis refuses the call.
    pub async fn open_shards(&self, stream: &str) -> Result<Vec<ListedShard>, KinesisError> {
        let mut open = self.list(stream).await?;
        open.retain(|shard| !shard.is_closed());
        open.sort_by_key(ListedShard::bounds);
        Ok(open)
    }

    /// Splits a shard in the middle and waits until its children take records.
    ///
    /// # Errors
    ///
    /// When ferrokinesis refuses one of the calls.
    pub async fn split(&self, stream: &str, shard: &ListedShard) -> Result<(), KinesisError> {
        let (start, end) = shard.bounds();
        let middle = (start + (end - start) / 2).to_string();
        let request = json!({"StreamName": stream, "ShardToSplit": shard.shard_id, "NewStartingHashKey": middle});
        self.call(Operation::SplitShard, request).await?;
        self.wait_until_active(stream).await
    }

    /// Merges two neighbours and waits until their child takes records.
    ///
    /// # Errors
    ///
    /// When ferrokinesis refuses one of the calls.
    pub async fn merge(&self, stream: &str, one: &ListedShard, next: &ListedShard) -> Result<(), KinesisError> {
        let request = json!({
            "StreamName": stream, "ShardToMerge": one.shard_id, "AdjacentShardToMerge": next.shard_id,
        });
        self.call(Operation::MergeShards, request).await?;
        self.wait_until_active(stream).await
    }

    async fn list(&self, stream: &str) -> Result<Vec<ListedShard>, KinesisError> {
        let answer = self.call(Operation::ListShards, json!({"StreamName": stream})).await?;
        parse("ListShards", &answer["Shards"])
    }

    async fn wait_until_active(&self, stream: &str) -> Result<(), KinesisError> {
        loop {
            let summary = self.call(Operation::DescribeStreamSummary, json!({"StreamName": stream})).await?;
            if summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE" {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// From now on no record is taken: whoever puts one is told to try later.
    pub async fn close(&self) {
        *self.gate.write().await = false;
    }

    /// The records of a shard after a sequence number, or from its start. No put is under way meanwhile: a shard that was
    /// closed before has no more than it has now.
    ///
    /// # Errors
    ///
    /// When ferrokinesis refuses one of the calls.
    pub async fn read(
        &self,
        stream: &str,
        shard_id: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, KinesisError> {
        let position = match after {
            None => json!({"ShardIteratorType": "TRIM_HORIZON"}),
            Some(number) => {
                json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number})
            }
        };
        let mut request = position;
        request["StreamName"] = json!(stream);
        request["ShardId"] = json!(shard_id);

        let _alone = self.gate.write().await;
        let read_at = lambda_setup::now();
        let iterator = self.call(Operation::GetShardIterator, request).await?;
        let request = json!({"ShardIterator": iterator["ShardIterator"], "Limit": limit});
        let mut answer = self.call(Operation::GetRecords, request).await?;
        let records: Vec<Record> = parse("GetRecords", &answer["Records"].take())?;
        self.iterator_ages.note(stream, shard_id, read_at, records.first().map(Record::arrival));
        Ok(records)
    }

    async fn call(&self, operation: Operation, request: Value) -> Result<Value, KinesisError> {
        let name = format!("{operation:?}");
        let answer = dispatch(&self.store, operation, request).await.map_err(|error| KinesisError {
            operation: name,
            message: error.body.message.unwrap_or(error.body.error_type),
        })?;
        Ok(answer.unwrap_or_default())
    }
}

fn parse<T: for<'de> Deserialize<'de>>(operation: &str, answer: &Value) -> Result<T, KinesisError> {
    T::deserialize(answer).map_err(|error| KinesisError { operation: operation.to_owned(), message: error.to_string() })
}

/// An error as Kinesis gives it.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"__type": code, "message": message}).to_string();
    (status, [("content-type", "application/x-amz-json-1.1")], body).into_response()
}

/// Lets puts through together and reads alone. The body is read first, so that nobody waits for a slow sender.
async fn through_the_gate(State((gate, puts)): State<(Gate, Puts)>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = match body::read(body, MAX_REQUEST_BYTES).await {
        Ok(body) => body,
        Err(problem) => return (problem.status(), problem.to_string()).into_response(),
    };
    let operation = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = operation.rsplit('.').next().unwrap_or_default().to_owned();
    let put = matches!(operation.as_str(), "PutRecord" | "PutRecords").then(|| Put::read(&parts.headers, &body));
    let request = Request::from_parts(parts, Body::from(body));
    match operation.as_str() {
        "PutRecord" | "PutRecords" => {
            let takes_records = gate.read().await;
            if *takes_records {
                let arrival = lambda_setup::now();
                let answer = next.run(request).await;
                match put.flatten() {
                    Some(put) => puts.note(put, arrival, answer).await,
                    // What can't be read is not stored either.
                    None => answer,
                }
            } else {
                error(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "the stack is stopping")
            }
        }
        "GetRecords" => {
            let _alone = gate.write().await;
            next.run(request).await
        }
        _ => next.run(request).await,
    }
}
