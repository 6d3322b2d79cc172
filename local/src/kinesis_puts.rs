//! What is noted of records that are put: the time they arrived, and Kinesis's metrics.
//!
//! ferrokinesis keeps arrival times to the second; Kinesis has milliseconds, and with a fast clock a second may be a day.
//! So records are stored once more, the same but for their time, before any reader sees them.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Response, StatusCode, header};
use base64_simd::STANDARD as BASE64;
use ferrokinesis::store::Store;
use ferrokinesis::types::StoredRecordRef;
use serde::{Deserialize, Deserializer};
use shared::timestamp::UnixMillis;
use tracing::error;

use crate::clock::Clock;
use crate::kinesis::{MAX_REQUEST_BYTES, error as kinesis_error};
use crate::metric_store::{MetricId, MetricStore};

const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// Notes what is put.
#[derive(Clone)]
pub(crate) struct Puts {
    pub(crate) store: Store,
    pub(crate) metrics: MetricStore,
    pub(crate) clock: Clock,
}

/// A call that puts records.
#[derive(Debug, PartialEq)]
pub(crate) struct Put {
    stream: String,
    entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    partition_key: String,
    /// As ferrokinesis keeps it.
    #[serde(deserialize_with = "base64")]
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    /// Of `PutRecords`; `PutRecord` has the members of one entry.
    records: Option<Vec<Entry>>,
    partition_key: Option<String>,
    #[serde(default, deserialize_with = "optional_base64")]
    data: Option<String>,
}

/// JSON has data as base64, CBOR as bytes.
fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Visitor;
    impl serde::de::Visitor<'_> for Visitor {
        type Value = String;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("base64 or bytes")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(BASE64.encode_to_string(bytes))
        }
    }
    deserializer.deserialize_any(Visitor)
}

fn optional_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    base64(deserializer).map(Some)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    records: Option<Vec<Outcome>>,
    #[serde(flatten)]
    single: Outcome,
}

/// What became of an entry.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Outcome {
    shard_id: Option<String>,
    sequence_number: Option<String>,
    error_code: Option<String>,
}

impl Put {
    /// Reads a request; `None` when it is none that could be stored.
    pub(crate) fn read(headers: &HeaderMap, body: &Bytes) -> Option<Self> {
        let request: Request = parse(headers, body)?;
        let by_arn = request.stream_arn.and_then(|arn| Some(arn.rsplit_once('/')?.1.to_owned()));
        let stream = request.stream_name.or(by_arn)?;
        let single = || Some(vec![Entry { partition_key: request.partition_key?, data: request.data? }]);
        Some(Self { stream, entries: request.records.or_else(single)? })
    }
}

fn parse<T: for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &[u8]) -> Option<T> {
    let cbor =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-amz-cbor"));
    if cbor { ciborium::from_reader(body).ok() } else { serde_json::from_slice(body).ok() }
}

impl Puts {
    /// Notes what an answer says is stored, and gives the answer on. The gate must be held: nobody reads meanwhile.
    pub(crate) async fn note(&self, put: Put, arrival: UnixMillis, answer: Response<Body>) -> Response<Body> {
        let (parts, body) = answer.into_parts();
        let body = match to_bytes(body, MAX_REQUEST_BYTES).await {
            Ok(body) => body,
            Err(problem) => {
                return kinesis_error(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", &problem.to_string());
            }
        };
        let told: Answer = parse(&parts.headers, &body).unwrap_or_default();
        let outcomes = told.records.unwrap_or_else(|| vec![told.single]);
        let stored: Vec<_> =
            put.entries.iter().zip(&outcomes).filter_map(|(entry, outcome)| stored(entry, outcome, arrival)).collect();
        if let Err(problem) = self.store.put_records_batch(&put.stream, &stored).await {
            // They are on the stream all the same, with the second in which they came.
            error!(stream = put.stream, message = ?problem.body.message, "records keep an imprecise arrival time");
        }
        let bytes: usize = stored.iter().map(|(_, record)| decoded_bytes(record.data)).sum();
        let throttled = if parts.status == StatusCode::BAD_REQUEST && is_throttled(&body) {
            put.entries.len()
        } else {
            outcomes.iter().filter(|outcome| outcome.error_code.as_deref() == Some(THROTTLED)).count()
        };
        self.note_metrics(&put.stream, self.clock.at(arrival), stored.len(), bytes, throttled);
        Response::from_parts(parts, Body::from(body))
    }

    /// <https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html>
    fn note_metrics(&self, stream: &str, at: UnixMillis, records: usize, bytes: usize, throttled: usize) {
        let note = |name: &str, unit: &str, value: usize| {
            let id = MetricId::new("AWS/Kinesis", name, &[("StreamName", stream)]);
            #[allow(clippy::cast_precision_loss)]
            self.metrics.note(&id, unit, at, value as f64);
        };
        if records > 0 {
            note("IncomingRecords", "Count", records);
            note("IncomingBytes", "Bytes", bytes);
        }
        note("WriteProvisionedThroughputExceeded", "Count", throttled);
    }
}

/// The key under which ferrokinesis keeps a record, and the record with its time; `None` when it was not stored.
fn stored<'e>(entry: &'e Entry, outcome: &Outcome, arrival: UnixMillis) -> Option<(String, StoredRecordRef<'e>)> {
    let shard: u32 = outcome.shard_id.as_deref()?.strip_prefix("shardId-")?.parse().ok()?;
    let key = format!("{shard:08x}/{}", outcome.sequence_number.as_deref()?);
    #[allow(clippy::cast_precision_loss)]
    let approximate_arrival_timestamp = arrival.0 as f64 / 1000.0;
    let record =
        StoredRecordRef { partition_key: &entry.partition_key, data: &entry.data, approximate_arrival_timestamp };
    Some((key, record))
}

fn is_throttled(answer: &[u8]) -> bool {
    answer.windows(THROTTLED.len()).any(|window| window == THROTTLED.as_bytes())
}

/// How many bytes a text of base64 stands for.
fn decoded_bytes(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|byte| *byte == b'=').count();
    (base64.len() * 3 / 4).saturating_sub(padding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciborium::Value as Cbor;
    use rstest::rstest;
    use serde_json::json;

    fn headers(kind: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())])
    }

    fn read(body: &serde_json::Value) -> Option<Put> {
        Put::read(&headers("application/x-amz-json-1.1"), &body.to_string().into())
    }

    fn put(entries: &[(&str, &str)]) -> Put {
        let entry = |(key, data): &(&str, &str)| Entry { partition_key: (*key).into(), data: (*data).into() };
        Put { stream: "s".into(), entries: entries.iter().map(entry).collect() }
    }

    #[test]
    fn both_calls_are_read() {
        let many = json!({"StreamName": "s", "Records": [
            {"PartitionKey": "a", "Data": "QQ=="}, {"PartitionKey": "b", "Data": "", "ExplicitHashKey": "0"},
        ]});
        assert_eq!(read(&many), Some(put(&[("a", "QQ=="), ("b", "")])));
        let one = json!({"StreamARN": "arn:aws:kinesis:r:0:stream/s", "PartitionKey": "a", "Data": "QQ=="});
        assert_eq!(read(&one), Some(put(&[("a", "QQ==")])));
        assert_eq!(read(&json!({"StreamName": "s"})), None);
        assert_eq!(read(&json!([])), None);
    }

    #[test]
    fn data_in_cbor_are_bytes() {
        let text = |text: &str| Cbor::Text(text.into());
        let entry = Cbor::Map(vec![(text("PartitionKey"), text("a")), (text("Data"), Cbor::Bytes(b"A".to_vec()))]);
        let request = Cbor::Map(vec![(text("StreamName"), text("s")), (text("Records"), Cbor::Array(vec![entry]))]);
        let mut body = Vec::new();
        ciborium::into_writer(&request, &mut body).unwrap();
        assert_eq!(Put::read(&headers("application/x-amz-cbor-1.1"), &body.into()), Some(put(&[("a", "QQ==")])));
    }

    #[test]
    fn what_failed_is_not_stored() {
        let put = put(&[("a", "QQ==")]);
        let outcome = |value| serde_json::from_value::<Outcome>(value).unwrap();
        let good = outcome(json!({"ShardId": "shardId-000000000012", "SequenceNumber": "49"}));
        let (key, record) = stored(&put.entries[0], &good, UnixMillis(1_795_253_528_006)).unwrap();
        assert_eq!((key.as_str(), record.approximate_arrival_timestamp), ("0000000c/49", 1_795_253_528.006));
        assert!(stored(&put.entries[0], &outcome(json!({"ErrorCode": THROTTLED})), UnixMillis(0)).is_none());
    }

    #[rstest]
    #[case("", 0)]
    #[case("QQ==", 1)]
    #[case("QUE=", 2)]
    #[case("QUFB", 3)]
    #[case("QUFBQQ==", 4)]
    fn base64_is_measured(#[case] text: &str, #[case] bytes: usize) {
        assert_eq!(decoded_bytes(text), bytes);
    }
}
