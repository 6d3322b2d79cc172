//! Faults of Kinesis, and of functions while they write to it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::plan::Fault;
use super::{Faults, NoAnswer};
use crate::kinesis::Kinesis;
use crate::kinesis_api;

const OF_PUT_RECORDS: [Fault; 7] = [
    Fault::KinesisPartial,
    Fault::KinesisThrottled,
    Fault::KinesisError,
    Fault::KinesisSlow,
    Fault::KinesisLate,
    Fault::KinesisUnanswered,
    Fault::KinesisKill,
];
const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// Shorter than ingest waits for an answer.
const SLOWEST: Duration = Duration::from_millis(500);
/// Longer than that.
const LATE: Duration = Duration::from_secs(1);

/// Answers a function's `PutRecords`, unless a fault does.
pub async fn answer(
    faults: &Arc<Faults>,
    environment: &str,
    request: Request<Bytes>,
    kinesis: Kinesis,
) -> Result<Response<Body>, NoAnswer> {
    let (parts, body) = request.into_parts();
    let put = Put { faults: faults.clone(), headers: parts.headers, body, kinesis };
    match faults.draw(&OF_PUT_RECORDS, &format!("{environment} PutRecords")) {
        None => Ok(put.store().into_response()),
        Some(Fault::KinesisPartial) => put.store_some(),
        Some(Fault::KinesisThrottled) => Ok(injected(StatusCode::BAD_REQUEST, THROTTLED)),
        Some(Fault::KinesisSlow) => {
            sleep(faults.up_to(SLOWEST)).await;
            Ok(put.store().into_response())
        }
        Some(Fault::KinesisLate) => {
            let stored = put.store();
            sleep(LATE).await;
            Ok(stored.into_response())
        }
        Some(Fault::KinesisUnanswered) => {
            drop(put.store());
            Err(NoAnswer)
        }
        Some(Fault::KinesisKill) => {
            faults.environments.kill(environment);
            if faults.count_up_to(2) == 1 {
                drop(put.store());
            }
            Err(NoAnswer)
        }
        Some(_) => Ok(injected(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure")),
    }
}

fn injected(status: StatusCode, code: &str) -> Response<Body> {
    kinesis_api::error(status, code, "injected").map(Body::from)
}

struct Put {
    faults: Arc<Faults>,
    headers: HeaderMap,
    body: Bytes,
    kinesis: Kinesis,
}

impl Put {
    fn store(self) -> Stored {
        let answer = kinesis_api::answer(&self.kinesis, &self.headers, &self.body);
        Stored { faults: self.faults, response: Some(answer) }
    }

    /// Stores the entries of some partition keys, always the same, and refuses the others: at least one.
    fn store_some(mut self) -> Result<Response<Body>, NoAnswer> {
        let mut call: Value = serde_json::from_slice(&self.body).map_err(|_| NoAnswer)?;
        let Some(Value::Array(entries)) = call.get_mut("Records").map(Value::take) else { return Err(NoAnswer) };
        let mut refused: Vec<bool> = entries.iter().map(|entry| is_hot(&entry["PartitionKey"])).collect();
        if !refused.contains(&true) {
            refused[0] = true;
        }
        let good = entries.into_iter().zip(&refused).filter(|(_, refused)| !**refused).map(|(entry, _)| entry);
        call["Records"] = good.collect();
        let mut outcomes = Vec::new();
        if call["Records"] != json!([]) {
            self.body = call.to_string().into();
            let stored = self.store();
            outcomes = stored.outcomes();
            drop(stored.into_response());
        }
        let mut outcomes = outcomes.into_iter();
        let throttled = || json!({"ErrorCode": THROTTLED, "ErrorMessage": "injected"});
        let merged = refused.iter().map(|refused| if *refused { None } else { outcomes.next() });
        let merged: Vec<Value> = merged.map(|outcome| outcome.unwrap_or_else(throttled)).collect();
        let failed = merged.iter().filter(|outcome| outcome.get("ErrorCode").is_some()).count();
        let body = json!({"FailedRecordCount": failed, "Records": merged}).to_string();
        Ok(([("content-type", "application/x-amz-json-1.1")], body).into_response())
    }
}

/// The answer to a call that was handed on. If it is dropped unsent, the journal says what is stored all the
/// same: a sender that tries again puts it on the stream twice.
struct Stored {
    faults: Arc<Faults>,
    response: Option<Response<Bytes>>,
}

impl Stored {
    fn into_response(mut self) -> Response<Body> {
        self.response.take().map(|response| response.map(Body::from)).unwrap_or_default()
    }

    fn outcomes(&self) -> Vec<Value> {
        let answer = self.response.as_ref().map(|response| serde_json::from_slice(response.body()));
        let answer: Value = answer.and_then(Result::ok).unwrap_or_default();
        answer["Records"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let outcomes = self.outcomes();
        let numbers: Vec<&Value> = outcomes.iter().filter_map(|record| record.get("SequenceNumber")).collect();
        if !numbers.is_empty() {
            self.faults.journal.write(json!({"stored_unacknowledged": numbers}));
        }
    }
}

/// Half of all partition keys, as if a shard were hot.
fn is_hot(partition_key: &Value) -> bool {
    let mut hasher = DefaultHasher::new();
    partition_key.as_str().hash(&mut hasher);
    hasher.finish().is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_half_of_the_keys_are_hot_and_always_the_same() {
        let hot = |key: usize| is_hot(&json!(key.to_string()));
        let count = (0..1000).filter(|key| hot(*key)).count();
        assert!((400..600).contains(&count), "{count}");
        assert!((0..100).all(|key| hot(key) == hot(key)));
    }
}
