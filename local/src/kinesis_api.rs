//! Kinesis' API as the AWS CLI and the SDKs speak it: JSON, or CBOR as some of them prefer.
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_Operations.html>
//!
//! It has what reads and writes records, shows streams and changes their shards: streams come from the template. Consumers of enhanced
//! fan-out, tags, encryption and on-demand mode are absent.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use base64_simd::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::timestamp::MILLIS_PER_HOUR;
use testbed::{Entry, KinesisError as Refusal, Placed, Position, SequenceNumber, ShardIterator};

use crate::cbor::{self, TimeUnit};
use crate::kinesis::Kinesis;
use crate::template::stream_arn;

pub(crate) const JSON: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";
/// Shards on a page at most, unless asked for fewer.
const SHARDS_OF_A_PAGE: usize = 1_000;

type Answer = Result<Value, ApiError>;

#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Malformed(String),
    #[error("the embedded Kinesis has no operation {0}")]
    Unknown(String),
    #[error("the stack is stopping")]
    Stopping,
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Refused(refusal) => (StatusCode::BAD_REQUEST, refusal.code()),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "SerializationException"),
            Self::Unknown(_) => (StatusCode::BAD_REQUEST, "UnknownOperationException"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        }
    }
}

/// The members of all requests that are read; each operation has some of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Call {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_id: Option<String>,
    shard_iterator: Option<String>,
    shard_iterator_type: Option<String>,
    starting_sequence_number: Option<String>,
    timestamp: Option<f64>,
    limit: Option<usize>,
    max_results: Option<usize>,
    next_token: Option<String>,
    exclusive_start_shard_id: Option<String>,
    exclusive_start_stream_name: Option<String>,
    records: Vec<PutEntry>,
    #[serde(flatten)]
    record: PutEntry,
    target_shard_count: Option<usize>,
    shard_to_split: Option<String>,
    new_starting_hash_key: Option<String>,
    shard_to_merge: Option<String>,
    adjacent_shard_to_merge: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PutEntry {
    partition_key: String,
    explicit_hash_key: Option<String>,
    /// Base64.
    data: String,
}

pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    response(status, JSON, json!({"__type": code, "message": message}).to_string().into())
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn answer(kinesis: &Kinesis, headers: &HeaderMap, body: &[u8]) -> Response<Bytes> {
    let is_cbor = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(CBOR.as_bytes()));
    let answer = read(body, is_cbor).and_then(|call| call.answer(&operation(headers), kinesis));
    let (status, answer) = match answer {
        Ok(answer) => (StatusCode::OK, answer),
        Err(problem) => {
            let (status, code) = problem.status_and_code();
            (status, json!({"__type": code, "message": problem.to_string()}))
        }
    };
    let body = match &answer {
        Value::Null => Vec::new(),
        answer if is_cbor => cbor::write(answer, TimeUnit::Milliseconds),
        answer => answer.to_string().into_bytes(),
    };
    response(status, if is_cbor { CBOR } else { JSON }, body.into())
}

/// What follows the dot of `Kinesis_20131202.PutRecords`.
fn operation(headers: &HeaderMap) -> String {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    target.rsplit('.').next().unwrap_or_default().to_owned()
}

fn read(body: &[u8], is_cbor: bool) -> Result<Call, ApiError> {
    let value = if is_cbor {
        cbor::read(body, TimeUnit::Milliseconds)
    } else {
        serde_json::from_slice(body).map_err(|problem| problem.to_string())
    };
    let call = value.and_then(|value: Value| serde_json::from_value(value).map_err(|problem| problem.to_string()));
    call.map_err(ApiError::Malformed)
}

impl Call {
    fn answer(self, operation: &str, kinesis: &Kinesis) -> Answer {
        match operation {
            "PutRecord" => self.put_record(kinesis),
            "PutRecords" => self.put_records(kinesis),
            "GetShardIterator" => self.get_shard_iterator(kinesis),
            "GetRecords" => self.get_records(kinesis),
            "ListShards" => self.list_shards(kinesis),
            "ListStreams" => self.list_streams(kinesis),
            "DescribeStream" => self.describe_stream(kinesis),
            "DescribeStreamSummary" => self.describe_stream_summary(kinesis),
            "SplitShard" => self.split_shard(kinesis),
            "MergeShards" => self.merge_shards(kinesis),
            "UpdateShardCount" => self.update_shard_count(kinesis),
            _ => Err(ApiError::Unknown(operation.to_owned())),
        }
    }

    fn stream(&self) -> Result<String, ApiError> {
        let by_arn = || Some(self.stream_arn.as_ref()?.rsplit_once('/')?.1.to_owned());
        self.stream_name.clone().or_else(by_arn).ok_or_else(|| missing("StreamName"))
    }

    fn put_record(self, kinesis: &Kinesis) -> Answer {
        let (stream, now) = (self.stream()?, lambda_setup::now());
        let entry = self.record.entry()?;
        let size = entry.size();
        let placed = {
            let mut streams = kinesis.streams();
            if streams.is_closed {
                return Err(ApiError::Stopping);
            }
            streams.stream_mut(&stream)?.put(now.0, entry)?
        };
        kinesis.note_put(&stream, now, &[size], 0);
        Ok(place_json(&placed))
    }

    fn put_records(self, kinesis: &Kinesis) -> Answer {
        let (stream, now) = (self.stream()?, lambda_setup::now());
        let entries = self.records.into_iter().map(PutEntry::entry).collect::<Result<Vec<_>, _>>()?;
        let sizes: Vec<usize> = entries.iter().map(Entry::size).collect();
        let outcomes = {
            let mut streams = kinesis.streams();
            if streams.is_closed {
                return Err(ApiError::Stopping);
            }
            let stream = streams.stream_mut(&stream)?;
            stream.trim(now.0);
            stream.put_records(now.0, entries)?
        };
        let stored = outcomes.iter().zip(sizes).filter(|(outcome, _)| outcome.is_ok()).map(|(_, size)| size);
        let stored: Vec<usize> = stored.collect();
        kinesis.note_put(&stream, now, &stored, outcomes.len() - stored.len());
        let record_json = |outcome: &Result<Placed, Refusal>| match outcome {
            Ok(placed) => place_json(placed),
            Err(refusal) => json!({"ErrorCode": refusal.code(), "ErrorMessage": refusal.to_string()}),
        };
        let records: Vec<Value> = outcomes.iter().map(record_json).collect();
        Ok(json!({"FailedRecordCount": records.len() - stored.len(), "Records": records}))
    }

    fn get_shard_iterator(self, kinesis: &Kinesis) -> Answer {
        let (stream, position) = (self.stream()?, self.position()?);
        let shard_id = self.shard_id.ok_or_else(|| missing("ShardId"))?;
        let iterator = kinesis.streams().stream(&stream)?.iterator(lambda_setup::now().0, &shard_id, position)?;
        Ok(json!({"ShardIterator": iterator_text(&stream, &iterator)}))
    }

    fn position(&self) -> Result<Position, ApiError> {
        let number = || {
            let text = self.starting_sequence_number.as_deref().ok_or_else(|| missing("StartingSequenceNumber"))?;
            text.parse::<SequenceNumber>().map_err(|problem| invalid(&problem.to_string()))
        };
        match self.shard_iterator_type.as_deref() {
            Some("TRIM_HORIZON") => Ok(Position::TrimHorizon),
            Some("LATEST") => Ok(Position::Latest),
            Some("AT_SEQUENCE_NUMBER") => number().map(Position::AtSequenceNumber),
            Some("AFTER_SEQUENCE_NUMBER") => number().map(Position::AfterSequenceNumber),
            #[allow(clippy::cast_possible_truncation)]
            Some("AT_TIMESTAMP") => {
                let seconds = self.timestamp.ok_or_else(|| missing("Timestamp"))?;
                Ok(Position::AtTimestamp((seconds * 1_000.0).round() as i64))
            }
            _ => Err(missing("ShardIteratorType")),
        }
    }

    fn get_records(self, kinesis: &Kinesis) -> Answer {
        let text = self.shard_iterator.ok_or_else(|| missing("ShardIterator"))?;
        let (stream, iterator) = iterator_in(&text).ok_or_else(|| invalid("ShardIterator is none of this Kinesis"))?;
        let now = lambda_setup::now().0;
        let streams = kinesis.streams();
        let stream_of = streams.stream(&stream)?;
        let batch = stream_of.get_records(now, &iterator, self.limit.unwrap_or(10_000))?;
        let record = |record: &testbed::Record| {
            json!({
                "SequenceNumber": record.sequence_number.to_string(),
                "PartitionKey": record.partition_key,
                "Data": BASE64.encode_to_string(&record.data),
                "ApproximateArrivalTimestamp": seconds(record.arrived_at),
            })
        };
        let mut answer = json!({
            "Records": batch.records.iter().map(record).collect::<Vec<_>>(),
            "MillisBehindLatest": batch.millis_behind_latest,
        });
        match batch.next {
            Some(next) => answer["NextShardIterator"] = json!(iterator_text(&stream, &next)),
            None => answer["ChildShards"] = batch.child_shards.iter().map(|id| child_shard(stream_of, id)).collect(),
        }
        Ok(answer)
    }

    fn list_shards(self, kinesis: &Kinesis) -> Answer {
        // A token is the stream and the last shard of the page before.
        let token = self.next_token.as_deref().and_then(|token| token.split_once('/'));
        let stream = token.map_or_else(|| self.stream(), |(stream, _)| Ok(stream.to_owned()))?;
        let after = token.map(|(_, shard)| shard).or(self.exclusive_start_shard_id.as_deref());
        let streams = kinesis.streams();
        let page = ShardPage::of(streams.stream(&stream)?, after, self.max_results);
        let mut answer = json!({"Shards": page.json()});
        if let (true, Some(last)) = (page.has_more, page.shards.last()) {
            answer["NextToken"] = json!(format!("{stream}/{}", last.id));
        }
        Ok(answer)
    }

    fn list_streams(self, kinesis: &Kinesis) -> Answer {
        let after = self.exclusive_start_stream_name.or(self.next_token).unwrap_or_default();
        let streams = kinesis.streams();
        let mut rest = streams.by_name.keys().filter(|name| **name > after);
        let names: Vec<&String> = rest.by_ref().take(self.limit.unwrap_or(100)).collect();
        Ok(json!({"StreamNames": names, "HasMoreStreams": rest.next().is_some()}))
    }

    fn describe_stream(self, kinesis: &Kinesis) -> Answer {
        let name = self.stream()?;
        let streams = kinesis.streams();
        let stream = streams.stream(&name)?;
        let page = ShardPage::of(stream, self.exclusive_start_shard_id.as_deref(), self.limit);
        let mut description = description(&name, stream);
        description["Shards"] = page.json();
        description["HasMoreShards"] = json!(page.has_more);
        Ok(json!({"StreamDescription": description}))
    }

    fn describe_stream_summary(self, kinesis: &Kinesis) -> Answer {
        let name = self.stream()?;
        let streams = kinesis.streams();
        let stream = streams.stream(&name)?;
        let mut description = description(&name, stream);
        description["OpenShardCount"] = json!(stream.shards().iter().filter(|shard| shard.is_open()).count());
        description["ConsumerCount"] = json!(0);
        description["MaxRecordSizeInKiB"] = json!(stream.limits.record_bytes / 1024);
        Ok(json!({"StreamDescriptionSummary": description}))
    }

    fn split_shard(self, kinesis: &Kinesis) -> Answer {
        let shard = self.shard_to_split.as_deref().ok_or_else(|| missing("ShardToSplit"))?;
        let at = self.new_starting_hash_key.as_deref().and_then(|key| key.parse().ok());
        let at = at.ok_or_else(|| invalid("NewStartingHashKey is no hash key"))?;
        kinesis.streams().stream_mut(&self.stream()?)?.split(lambda_setup::now().0, shard, at)?;
        Ok(Value::Null)
    }

    fn merge_shards(self, kinesis: &Kinesis) -> Answer {
        let one = self.shard_to_merge.as_deref().ok_or_else(|| missing("ShardToMerge"))?;
        let other = self.adjacent_shard_to_merge.as_deref().ok_or_else(|| missing("AdjacentShardToMerge"))?;
        kinesis.streams().stream_mut(&self.stream()?)?.merge(lambda_setup::now().0, one, other)?;
        Ok(Value::Null)
    }

    fn update_shard_count(self, kinesis: &Kinesis) -> Answer {
        let name = self.stream()?;
        let target = self.target_shard_count.ok_or_else(|| missing("TargetShardCount"))?;
        let mut streams = kinesis.streams();
        let stream = streams.stream_mut(&name)?;
        let current = stream.shards().iter().filter(|shard| shard.is_open()).count();
        // As AWS has it: at most twice as many, at least half.
        if target > 2 * current || 2 * target < current {
            return Err(invalid(&format!(
                "TargetShardCount of {current} shards is {current} doubled or halved at most"
            )));
        }
        stream.update_shard_count(lambda_setup::now().0, target)?;
        Ok(json!({"StreamName": name, "CurrentShardCount": current, "TargetShardCount": target}))
    }
}

impl PutEntry {
    fn entry(self) -> Result<Entry, ApiError> {
        let data = BASE64.decode_to_vec(self.data).map_err(|_| ApiError::Malformed("Data is no base64".into()))?;
        let hash_key =
            self.explicit_hash_key.map(|key| key.parse().map_err(|_| invalid("ExplicitHashKey is no hash key")));
        Ok(Entry { partition_key: self.partition_key, explicit_hash_key: hash_key.transpose()?, data: data.into() })
    }
}

struct ShardPage<'s> {
    shards: &'s [testbed::Shard],
    has_more: bool,
}

impl<'s> ShardPage<'s> {
    fn of(stream: &'s testbed::Stream, after: Option<&str>, limit: Option<usize>) -> Self {
        // Ids have as many digits each.
        let start = stream.shards().partition_point(|shard| after.is_some_and(|after| shard.id.as_str() <= after));
        let rest = &stream.shards()[start..];
        let limit = limit.unwrap_or(SHARDS_OF_A_PAGE).clamp(1, SHARDS_OF_A_PAGE);
        Self { shards: &rest[..rest.len().min(limit)], has_more: rest.len() > limit }
    }

    fn json(&self) -> Value {
        self.shards.iter().map(shard_json).collect()
    }
}

fn shard_json(shard: &testbed::Shard) -> Value {
    let mut value = json!({
        "ShardId": shard.id,
        "HashKeyRange": hash_key_range(shard),
        "SequenceNumberRange": {"StartingSequenceNumber": shard.starting_sequence_number.to_string()},
    });
    if let Some(end) = shard.ending_sequence_number {
        value["SequenceNumberRange"]["EndingSequenceNumber"] = json!(end.to_string());
    }
    for (name, parent) in ["ParentShardId", "AdjacentParentShardId"].into_iter().zip(&shard.parents) {
        value[name] = json!(parent);
    }
    value
}

fn child_shard(stream: &testbed::Stream, id: &str) -> Value {
    let child = stream.shards().iter().find(|shard| shard.id == id);
    child.map_or(
        Value::Null,
        |child| json!({"ShardId": child.id, "ParentShards": child.parents, "HashKeyRange": hash_key_range(child)}),
    )
}

fn hash_key_range(shard: &testbed::Shard) -> Value {
    let (start, end) = (shard.hash_keys.start().to_string(), shard.hash_keys.end().to_string());
    json!({"StartingHashKey": start, "EndingHashKey": end})
}

fn description(name: &str, stream: &testbed::Stream) -> Value {
    json!({
        "StreamName": name,
        "StreamARN": stream_arn(name),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": stream.limits.retention_ms / MILLIS_PER_HOUR,
        "StreamCreationTimestamp": seconds(stream.created_at),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    })
}

fn place_json(placed: &Placed) -> Value {
    json!({"ShardId": placed.shard_id, "SequenceNumber": placed.sequence_number.to_string()})
}

/// As Kinesis and Lambda give times: seconds with a fraction.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

fn iterator_text(stream: &str, ShardIterator { shard_id, offset, issued_at }: &ShardIterator) -> String {
    BASE64.encode_to_string(format!("{stream}/{shard_id}/{offset}/{issued_at}"))
}

fn iterator_in(text: &str) -> Option<(String, ShardIterator)> {
    let text = String::from_utf8(BASE64.decode_to_vec(text).ok()?).ok()?;
    let [stream, shard_id, offset, issued_at]: [&str; 4] = text.split('/').collect::<Vec<_>>().try_into().ok()?;
    let (offset, issued_at) = (offset.parse().ok()?, issued_at.parse().ok()?);
    Some((stream.to_owned(), ShardIterator { shard_id: shard_id.to_owned(), offset, issued_at }))
}

fn missing(member: &str) -> ApiError {
    Refusal::Validation(format!("{member} is missing or none that it may be")).into()
}

fn invalid(message: &str) -> ApiError {
    Refusal::InvalidArgument(message.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::metric_store::MetricStore;
    use crate::template;

    const STREAM: &str = "event-stream";

    fn kinesis() -> Kinesis {
        let clock = Clock::new(None, lambda_setup::now());
        let kinesis = Kinesis::start(MetricStore::new(clock), clock);
        kinesis.create(&template::Stream { name: STREAM.into(), shards: 2, retention_hours: 24 });
        kinesis
    }

    fn ask(kinesis: &Kinesis, operation: &str, mut request: Value) -> Answer {
        if request["ShardIterator"].is_null() {
            request["StreamARN"] = json!(stream_arn(STREAM));
        }
        read(request.to_string().as_bytes(), false)?.answer(operation, kinesis)
    }

    #[tokio::test]
    async fn records_are_read_from_their_shard() {
        let kinesis = kinesis();
        let entries = json!([
            {"PartitionKey": "a", "Data": "QQ==", "ExplicitHashKey": "0"},
            {"PartitionKey": "b", "Data": "", "ExplicitHashKey": u128::MAX.to_string()},
        ]);
        let answer = ask(&kinesis, "PutRecords", json!({"Records": entries})).unwrap();
        assert_eq!(
            (&answer["FailedRecordCount"], &answer["Records"][1]["ShardId"]),
            (&json!(0), &json!("shardId-000000000001"))
        );
        let put =
            ask(&kinesis, "PutRecord", json!({"PartitionKey": "c", "Data": "Qg==", "ExplicitHashKey": "1"})).unwrap();
        let after = json!({
            "ShardId": put["ShardId"], "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
            "StartingSequenceNumber": answer["Records"][0]["SequenceNumber"],
        });
        let iterator = ask(&kinesis, "GetShardIterator", after).unwrap();
        let batch = ask(&kinesis, "GetRecords", iterator).unwrap();
        let read = &batch["Records"][0];
        assert_eq!(
            (&read["Data"], &read["PartitionKey"], &read["SequenceNumber"]),
            (&json!("Qg=="), &json!("c"), &put["SequenceNumber"])
        );
        assert_eq!((batch["Records"].as_array().unwrap().len(), &batch["MillisBehindLatest"]), (1, &json!(0)));
    }

    #[tokio::test]
    async fn shards_are_listed_in_pages_and_a_closed_one_names_its_children() {
        let kinesis = kinesis();
        let split = json!({"ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "7"});
        assert_eq!(ask(&kinesis, "SplitShard", split).unwrap(), Value::Null);
        let page = ask(&kinesis, "ListShards", json!({"MaxResults": 3})).unwrap();
        assert_eq!(page["Shards"].as_array().unwrap().len(), 3);
        let last = ask(&kinesis, "ListShards", json!({"NextToken": page["NextToken"]})).unwrap();
        assert_eq!(last["Shards"][0]["ParentShardId"], "shardId-000000000000");
        assert!(last["NextToken"].is_null());
        let start = json!({"ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"});
        let batch = ask(&kinesis, "GetRecords", ask(&kinesis, "GetShardIterator", start).unwrap()).unwrap();
        assert_eq!(batch["ChildShards"][1]["HashKeyRange"]["StartingHashKey"], "7");
        assert!(batch["NextShardIterator"].is_null());
    }

    #[tokio::test]
    async fn a_stopping_stack_refuses_puts_and_serves_reads() {
        let kinesis = kinesis();
        let put = || ask(&kinesis, "PutRecord", json!({"PartitionKey": "a", "Data": "QQ=="}));
        put().unwrap();
        kinesis.close();
        assert!(matches!(put(), Err(ApiError::Stopping)));
        assert_eq!(kinesis.streams().stream(STREAM).unwrap().records().count(), 1);
    }

    #[tokio::test]
    async fn invalid_calls_are_refused_with_the_codes_of_kinesis() {
        let kinesis = kinesis();
        for (operation, request, code) in [
            ("Dance", json!({}), "UnknownOperationException"),
            ("PutRecord", json!({"PartitionKey": "a", "Data": "?"}), "SerializationException"),
            ("PutRecord", json!({"Data": "QQ=="}), "ValidationException"),
            ("PutRecords", json!({"Records": []}), "ValidationException"),
            ("DescribeStream", json!({"StreamName": "no-stream"}), "ResourceNotFoundException"),
            ("UpdateShardCount", json!({"TargetShardCount": 5}), "InvalidArgumentException"),
            ("GetRecords", json!({"ShardIterator": "AAAA"}), "InvalidArgumentException"),
        ] {
            let error = ask(&kinesis, operation, request).unwrap_err();
            assert_eq!(error.status_and_code(), (StatusCode::BAD_REQUEST, code), "{operation}");
        }
    }
}
