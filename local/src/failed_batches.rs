//! The on-failure destination: a bucket that keeps whole batches which could not be handed over, in Lambda's own form.
//! <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>

use axum::body::Bytes;
use s3s::S3Result;
use serde_json::json;
use shared::timestamp::UnixMillis;
use testbed::Record;
use uuid::Uuid;

use crate::clock::Clock;
use crate::function::new_request_id;
use crate::s3::S3;
use crate::template::stream_arn;

#[derive(Clone)]
pub(crate) struct FailedBatches {
    s3: S3,
    bucket: String,
    mapping_id: Uuid,
    clock: Clock,
}

#[derive(Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) condition: &'static str,
    pub(crate) attempts: u32,
    pub(crate) function_error: bool,
    pub(crate) function_arn: String,
    pub(crate) stream: &'a str,
    pub(crate) shard_id: &'a str,
    pub(crate) batch: &'a [Record],
    pub(crate) payload: Bytes,
}

impl FailedBatches {
    pub(crate) fn new(s3: S3, bucket: String, clock: Clock) -> Self {
        Self { s3, bucket, mapping_id: Uuid::new_v4(), clock }
    }

    pub(crate) async fn put(&self, failure: &Failure<'_>) -> S3Result<String> {
        let now = self.clock.now();
        let key = self.key(failure.shard_id, now);
        self.s3.put(&self.bucket, &key, document(failure, now, self.clock).into()).await?;
        Ok(key)
    }

    /// `aws/lambda/<mapping>/<shard>/2026/11/21/2026-11-21T09.32.08-<uuid>`
    fn key(&self, shard_id: &str, now: UnixMillis) -> String {
        let time = now.rfc3339();
        let (date, seconds) = (time[..10].replace('-', "/"), time[..19].replace(':', "."));
        format!("aws/lambda/{}/{shard_id}/{date}/{seconds}-{}", self.mapping_id, Uuid::new_v4())
    }
}

fn document(failure: &Failure<'_>, now: UnixMillis, clock: Clock) -> String {
    let first = failure.batch.first();
    let last = failure.batch.last();
    let arrival = |record: Option<&Record>| record.map(|record| clock.at(UnixMillis(record.arrived_at)).rfc3339());
    json!({
        "requestContext": {
            "requestId": new_request_id(),
            "functionArn": failure.function_arn,
            "condition": failure.condition,
            "approximateInvokeCount": failure.attempts,
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": failure.function_error.then_some("Unhandled"),
        },
        "version": "1.0",
        "timestamp": now.rfc3339(),
        "KinesisBatchInfo": {
            "shardId": failure.shard_id,
            "startSequenceNumber": first.map(|record| record.sequence_number.to_string()),
            "endSequenceNumber": last.map(|record| record.sequence_number.to_string()),
            "approximateArrivalOfFirstRecord": arrival(first),
            "approximateArrivalOfLastRecord": arrival(last),
            "batchSize": failure.batch.len(),
            "streamArn": stream_arn(failure.stream),
        },
        "payload": String::from_utf8_lossy(&failure.payload),
    })
    .to_string()
}
