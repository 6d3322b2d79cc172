//! Faults of Kinesis, and of functions while they write to it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::ServiceExt;

use super::plan::Fault;
use super::{Faults, NoAnswer};
use crate::kinesis_api::{MAX_REQUEST_BYTES, error};

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
const SLOWEST: Duration = Duration::from_secs(2);
/// Longer than that.
const LATE: Duration = Duration::from_secs(4);

/// Answers a function's `PutRecords`, unless a fault does.
///
/// # Errors
///
/// When the fault is that there is no answer.
pub async fn answer(
    faults: &Arc<Faults>,
    environment: &str,
    request: Request<Body>,
    kinesis: Router,
) -> Result<Response<Body>, NoAnswer> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_REQUEST_BYTES).await.map_err(|_| NoAnswer)?;
    let put = Put { faults: faults.clone(), request: Request::from_parts(parts, body), kinesis };
    match faults.draw(&OF_PUT_RECORDS, &format!("{environment} PutRecords")) {
        None => Ok(put.store().await?.into_response()),
        Some(Fault::KinesisPartial) => put.store_some().await,
        Some(Fault::KinesisThrottled) => Ok(error(StatusCode::BAD_REQUEST, THROTTLED, "injected")),
        Some(Fault::KinesisSlow) => {
            sleep(faults.up_to(SLOWEST)).await;
            Ok(put.store().await?.into_response())
        }
        Some(Fault::KinesisLate) => {
            let stored = put.store().await?;
            sleep(LATE).await;
            Ok(stored.into_response())
        }
        Some(Fault::KinesisUnanswered) => put.store().await.and(Err(NoAnswer)),
        Some(Fault::KinesisKill) => {
            faults.environments.kill(environment);
            if faults.count_up_to(2) == 1 { put.store().await.and(Err(NoAnswer)) } else { Err(NoAnswer) }
        }
        Some(_) => Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", "injected")),
    }
}

/// A call, whole.
struct Put {
    faults: Arc<Faults>,
    request: Request<Bytes>,
    kinesis: Router,
}

impl Put {
    /// Hands the call on, in a task of its own: a sender that stops waiting does not stop it.
    async fn store(self) -> Result<Stored, NoAnswer> {
        let Self { faults, request, kinesis } = self;
        let call = tokio::spawn(async move {
            let answer = kinesis.oneshot(request.map(Body::from)).await.unwrap_or_else(|never| match never {});
            let (parts, body) = answer.into_parts();
            let body = to_bytes(body, MAX_REQUEST_BYTES).await.unwrap_or_default();
            Stored { faults, response: Some(Response::from_parts(parts, body)) }
        });
        call.await.map_err(|_| NoAnswer)
    }

    /// Stores the entries of some partition keys, always the same, and refuses the others: at least one.
    async fn store_some(mut self) -> Result<Response<Body>, NoAnswer> {
        let mut call: Value = serde_json::from_slice(self.request.body()).map_err(|_| NoAnswer)?;
        let Some(Value::Array(entries)) = call.get_mut("Records").map(Value::take) else { return Err(NoAnswer) };
        let mut refused: Vec<bool> = entries.iter().map(|entry| is_hot(&entry["PartitionKey"])).collect();
        if !refused.contains(&true) {
            refused[0] = true;
        }
        let good = entries.into_iter().zip(&refused).filter(|(_, refused)| !**refused).map(|(entry, _)| entry);
        let good: Vec<Value> = good.collect();
        let mut stored = json!({"FailedRecordCount": 0, "Records": []});
        let mut sent = None;
        if !good.is_empty() {
            call["Records"] = Value::Array(good);
            *self.request.body_mut() = Bytes::from(call.to_string());
            self.request.headers_mut().remove("content-length");
            let answer = self.store().await?;
            stored = answer.outcomes();
            sent = Some(answer);
        }
        let mut outcomes = stored["Records"].take().as_array().cloned().unwrap_or_default().into_iter();
        let throttled = || json!({"ErrorCode": THROTTLED, "ErrorMessage": "injected"});
        let merged = refused.iter().map(|refused| if *refused { None } else { outcomes.next() });
        let merged: Vec<Value> = merged.map(|outcome| outcome.unwrap_or_else(throttled)).collect();
        let failed = merged.iter().filter(|outcome| outcome.get("ErrorCode").is_some()).count();
        drop(sent.map(Stored::into_response));
        let body = json!({"FailedRecordCount": failed, "Records": merged}).to_string();
        Ok(([("content-type", "application/x-amz-json-1.1")], body).into_response())
    }
}

/// Half of all partition keys, as if a shard were hot.
fn is_hot(partition_key: &Value) -> bool {
    let mut hasher = DefaultHasher::new();
    partition_key.as_str().hash(&mut hasher);
    hasher.finish().is_multiple_of(2)
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

    fn outcomes(&self) -> Value {
        let body = self.response.as_ref().map(|response| serde_json::from_slice(response.body()));
        body.and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        if self.response.is_none() {
            return;
        }
        let outcomes = self.outcomes();
        let records = outcomes["Records"].as_array().into_iter().flatten();
        let numbers: Vec<&Value> = records.filter_map(|record| record.get("SequenceNumber")).collect();
        if !numbers.is_empty() {
            self.faults.journal.write(json!({"stored_untold": numbers}));
        }
    }
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
