//! A batch as the Kinesis event source mapping hands it over, and the answer that it takes.
//! <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html>
//!
//! Read here rather than with `aws_lambda_events`: of each record's dozen members five matter, and a member that could
//! not be decoded would fail the batch for ever.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use shared::timestamp::UnixMillis;

/// Records of one shard, in order.
#[derive(Debug, Deserialize)]
pub struct KinesisEvent {
    #[serde(rename = "Records")]
    pub records: Vec<Record>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Record {
    /// `<shard-id>:<sequence-number>`
    #[serde(rename = "eventID")]
    pub event_id: String,
    pub kinesis: KinesisData,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KinesisData {
    pub sequence_number: String,
    /// Every record has one; where a hand-made event lacks it, nothing is known of who wrote the record.
    #[serde(default)]
    pub partition_key: String,
    #[serde(deserialize_with = "from_base64")]
    pub data: Bytes,
    /// Seconds since 1970, with a fraction.
    pub approximate_arrival_timestamp: f64,
}

impl Record {
    /// The shard that the record came from.
    #[must_use]
    pub fn shard_id(&self) -> &str {
        self.event_id.split(':').next().unwrap_or_default()
    }

    /// When the record came onto the stream.
    #[must_use]
    pub fn arrival(&self) -> UnixMillis {
        UnixMillis::from_seconds(self.kinesis.approximate_arrival_timestamp)
    }
}

/// Lambda always encodes; text that is not base64 would be its fault and is kept as it is rather than failing the batch.
fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    let decoded = base64_simd::STANDARD.decode_to_vec(text.as_bytes());
    Ok(Bytes::from(decoded.unwrap_or_else(|_| text.into_owned().into_bytes())))
}

/// What the mapping takes as an answer (`ReportBatchItemFailures`): nothing failed, or where to start again.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BatchAnswer {
    pub batch_item_failures: Vec<BatchItemFailure>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BatchItemFailure {
    /// A sequence number.
    pub item_identifier: String,
}

impl BatchAnswer {
    /// The whole batch has landed.
    #[must_use]
    pub fn landed() -> Self {
        Self { batch_item_failures: Vec::new() }
    }

    /// The whole batch is to be sent again. Acknowledging a part would let the next attempt start at another record,
    /// and so give another name to what may already have landed.
    #[must_use]
    pub(crate) fn send_again(records: &[Record]) -> Self {
        let first = records.first().map(|record| record.kinesis.sequence_number.clone());
        Self {
            batch_item_failures: first
                .into_iter()
                .map(|item_identifier| BatchItemFailure { item_identifier })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_a_documented_event() {
        let event: KinesisEvent = serde_json::from_str(include_str!("../fixtures/kinesis-event.json")).unwrap();
        let [first, second] = &event.records[..] else { panic!("two records") };
        assert_eq!(first.shard_id(), "shardId-000000000006");
        assert_eq!(first.kinesis.data, "Hello, this is a test.");
        assert_eq!(first.kinesis.partition_key, "1");
        assert_eq!(first.arrival(), UnixMillis(1_545_084_650_987));
        assert_eq!(second.kinesis.data, "This is only a test.");
        assert_eq!(second.kinesis.sequence_number, "49590338271490256608559692540925702759324208523137515618");
    }

    #[test]
    fn the_answer_names_the_first_record_or_nothing() {
        let event: KinesisEvent = serde_json::from_str(include_str!("../fixtures/kinesis-event.json")).unwrap();
        assert_eq!(
            serde_json::to_value(BatchAnswer::send_again(&event.records)).unwrap(),
            json!({"batchItemFailures": [
                {"itemIdentifier": "49590338271490256608559692538361571095921575989136588898"}
            ]})
        );
        assert_eq!(serde_json::to_value(BatchAnswer::landed()).unwrap(), json!({"batchItemFailures": []}));
    }

    #[test]
    fn data_that_is_no_base64_is_kept_as_it_is() {
        let data: KinesisData = serde_json::from_value(
            json!({"sequenceNumber": "1", "data": "not base64!", "approximateArrivalTimestamp": 1.5}),
        )
        .unwrap();
        assert_eq!(data.data, "not base64!");
    }
}
