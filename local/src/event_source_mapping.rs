//! The Kinesis event source mapping: what it hands to the function, and how it takes the answer. `shard_readers.rs` reads the
//! batches.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html>

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use base64_simd::STANDARD as BASE64;
use serde_json::{Value, json};
use shared::limits::MAX_LAMBDA_PAYLOAD_BYTES;
use shared::timestamp::UnixMillis;
use testbed::{Record, SequenceNumber};
use tokio::sync::watch;

use crate::batch_answer;
use crate::clock::Clock;
use crate::failed_batches::FailedBatches;
use crate::faults::Faults;
use crate::function::{Function, InvokeError, new_request_id};
use crate::kinesis::Kinesis;
use crate::kinesis_api::seconds;
use crate::template::{Mapping, REGION};

/// An upper bound for a record's members in an event, apart from its data and its key (each byte of which may need an escape).
const RECORD_FRAME_BYTES: usize = 1_000;
/// Whether the stack still takes events or is landing what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// No more records come: batches don't wait to fill, and a shard that is read to its end is done.
    Draining,
}

pub(crate) struct EventSourceMapping {
    pub(crate) spec: Mapping,
    pub(crate) kinesis: Kinesis,
    pub(crate) function: Arc<Function>,
    /// Where batches go that are given up.
    pub(crate) failed_batches: Option<FailedBatches>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) clock: Clock,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// How many of a batch's records were acknowledged, from the first on; or what went wrong with all of it.
pub(crate) type Outcome = Result<usize, InvokeError>;

impl EventSourceMapping {
    pub(crate) fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    /// How many of the records fit into one invocation: at least one, as in Lambda.
    pub(crate) fn payload_limit(&self, shard_id: &str, records: &[Record]) -> usize {
        // Most batches are far from the limit, and this runs at each poll.
        let at_most =
            |record: &Record| record.data.len().div_ceil(3) * 4 + 6 * record.partition_key.len() + RECORD_FRAME_BYTES;
        if records.iter().map(at_most).sum::<usize>() < MAX_LAMBDA_PAYLOAD_BYTES {
            return records.len();
        }
        let mut bytes = br#"{"Records":[]}"#.len();
        let fits = records.iter().take_while(|record| {
            bytes += self.event_record(shard_id, record).to_string().len() + 1;
            bytes <= MAX_LAMBDA_PAYLOAD_BYTES
        });
        fits.count().max(1).min(records.len())
    }

    pub(crate) async fn attempt(&self, shard_id: &str, batch: &[Record]) -> Outcome {
        let request_id = new_request_id();
        if let Some(last) = batch.last() {
            self.function.note_iterator_age(self.clock.age(UnixMillis(last.arrived_at)));
        }
        let answer = self.function.invoke(request_id, self.event(shard_id, batch)).await?;
        Ok(acknowledged(&answer, batch))
    }

    pub(crate) fn event(&self, shard_id: &str, batch: &[Record]) -> Bytes {
        let records: Vec<Value> = batch.iter().map(|record| self.event_record(shard_id, record)).collect();
        Bytes::from(json!({"Records": records}).to_string())
    }

    fn event_record(&self, shard_id: &str, record: &Record) -> Value {
        let arn = crate::template::stream_arn(&self.spec.stream);
        json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record.partition_key,
                "sequenceNumber": record.sequence_number.to_string(),
                "data": BASE64.encode_to_string(&record.data),
                "approximateArrivalTimestamp": seconds(self.clock.at(UnixMillis(record.arrived_at)).0),
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": format!("{shard_id}:{}", record.sequence_number),
            "eventName": "aws:kinesis:record",
            "awsRegion": REGION,
            "eventSourceARN": arn,
        })
    }

    pub(crate) fn is_too_old(&self, batch: &[Record]) -> bool {
        let oldest = batch.first().map_or(Duration::ZERO, |first| self.clock.age(UnixMillis(first.arrived_at)));
        self.spec.maximum_record_age.is_some_and(|limit| oldest > limit)
    }
}

/// How many records Lambda takes as done with by a function's answer: all when it is empty, null or names no failures; none when
/// it can't be read or names a record that is not there; else those before the first record named.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html>
fn acknowledged(answer: &[u8], batch: &[Record]) -> usize {
    let Some(failures) = batch_answer::failures(answer) else { return 0 };
    let position = |failure: &Option<String>| {
        let number: SequenceNumber = failure.as_deref()?.parse().ok()?;
        batch.iter().position(|record| record.sequence_number == number)
    };
    failures.iter().map(|failure| position(failure).unwrap_or(0)).min().unwrap_or(batch.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The sequence number that ends with this digit.
    fn number(digit: u8) -> String {
        format!("49{digit:054}")
    }

    fn batch() -> Vec<Record> {
        let record = |digit: u8| Record {
            sequence_number: number(digit).parse().unwrap(),
            partition_key: "k".into(),
            data: Bytes::new(),
            arrived_at: 0,
        };
        (1..=5).map(record).collect()
    }

    #[test]
    fn times_in_seconds_are_read_back_to_the_millisecond() {
        for millis in [0, 1, 1_795_253_528_006, 1_795_253_528_999, 253_402_300_799_999] {
            let text = json!(seconds(millis)).to_string();
            assert_eq!(UnixMillis::from_seconds(text.parse().unwrap()), UnixMillis(millis));
        }
    }

    #[rstest]
    #[case::empty("", None)]
    #[case::null("null", None)]
    #[case::no_member("{}", None)]
    #[case::null_list("{\"batchItemFailures\":null}", None)]
    #[case::no_failures("{\"batchItemFailures\":[]}", None)]
    #[case::one("{\"batchItemFailures\":[{\"itemIdentifier\":\"#3\"}]}", Some(2))]
    #[case::lowest("{\"batchItemFailures\":[{\"itemIdentifier\":\"#4\"},{\"itemIdentifier\":\"#2\"}]}", Some(1))]
    #[case::unknown("{\"batchItemFailures\":[{\"itemIdentifier\":\"#9\"}]}", Some(0))]
    #[case::empty_name("{\"batchItemFailures\":[{\"itemIdentifier\":\"\"}]}", Some(0))]
    #[case::null_name("{\"batchItemFailures\":[{\"itemIdentifier\":null}]}", Some(0))]
    #[case::text("\"done\"", Some(0))]
    #[case::not_json("done", Some(0))]
    fn answers_are_read_as_lambda_reads_them(#[case] answer: &str, #[case] expected: Option<usize>) {
        let answer = (1..=9).fold(answer.to_owned(), |text, digit| text.replace(&format!("#{digit}"), &number(digit)));
        assert_eq!(acknowledged(answer.as_bytes(), &batch()), expected.unwrap_or(batch().len()));
    }
}
