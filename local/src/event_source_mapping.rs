//! The Kinesis event source mapping: reads shards in order and hands batches to the function until they are
//! acknowledged.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html>

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use base64_simd::STANDARD as BASE64;
use lambda_setup::deadline::backoff_ceiling;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::limits::LAMBDA_PAYLOAD_MAX_BYTES;
use shared::timestamp::UnixMillis;
use testbed::{KinesisError, Record, SequenceNumber};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use crate::clock::Clock;
use crate::failed_batches::{FailedBatches, Failure};
use crate::faults::Faults;
use crate::faults::plan::Fault;
use crate::function::{Function, InvokeError, new_request_id};
use crate::kinesis::Kinesis;
use crate::kinesis_api::seconds;
use crate::template::{Mapping, REGION};

/// How often a shard without enough records is read: Lambda reads once a second.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Nobody here waits so long, and however fast the clock is, the machine needs time for other things too.
const REAL_POLL_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(50);
/// How often the stream is asked for new shards.
const SHARD_INTERVAL: Duration = Duration::from_millis(500);
/// An upper bound for a record's members in an event, apart from its data and its key (each byte of which may need an escape).
const RECORD_FRAME_BYTES: usize = 1_000;
/// The longest absence of a mapping that an injected fault restarts: often less than an invocation takes.
const RESTART_TIME: Duration = Duration::from_millis(200);
const BACKOFF_BASE: Duration = Duration::from_millis(200);
const BACKOFF_CAP: Duration = Duration::from_secs(10);

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
type Outcome = Result<usize, InvokeError>;

impl EventSourceMapping {
    /// Reads all shards, including those that resharding makes, parents before children. Returns once drained.
    pub(crate) async fn run(self) -> Result<(), KinesisError> {
        let mapping = Arc::new(self);
        let (mut begun, mut ended) = (HashSet::new(), HashSet::new());
        let mut readers = JoinSet::new();
        loop {
            let stream = &mapping.spec.stream;
            let shards = mapping.kinesis.shards(stream)?;
            let known: HashSet<&String> = shards.iter().map(|(shard, _)| shard).collect();
            for (shard, parents) in &shards {
                // A parent that is gone has no records that anyone could still read.
                let ready = parents.iter().all(|parent| ended.contains(parent) || !known.contains(parent));
                if ready && begun.insert(shard.clone()) {
                    mapping.kinesis.progress.begin(stream, shard);
                    readers.spawn(ShardReader::new(mapping.clone(), shard.clone()).run());
                }
            }
            tokio::select! {
                Some(reader) = readers.join_next() => match reader {
                    Ok(shard) => {
                        let shard = shard?;
                        mapping.kinesis.progress.end(stream, &shard);
                        ended.insert(shard);
                    }
                    // Nobody would read the shard any more: better no stack than half of one.
                    Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                },
                () = sleep(SHARD_INTERVAL) => {}
            }
            if readers.is_empty() && mapping.is_draining() {
                // What resharding made meanwhile may hold records too.
                let shards = mapping.kinesis.shards(stream)?;
                if shards.iter().all(|(shard, _)| begun.contains(shard)) {
                    return Ok(());
                }
            }
        }
    }

    fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    fn poll_interval(&self) -> Duration {
        self.clock.really(POLL_INTERVAL).clamp(*REAL_POLL_INTERVAL.start(), *REAL_POLL_INTERVAL.end())
    }

    /// How many of the records fit into one invocation: at least one, as in Lambda.
    fn payload_limit(&self, shard_id: &str, records: &[Record]) -> usize {
        // Most batches are far from the limit, and this runs at each poll.
        let at_most =
            |record: &Record| record.data.len().div_ceil(3) * 4 + 6 * record.partition_key.len() + RECORD_FRAME_BYTES;
        if records.iter().map(at_most).sum::<usize>() < LAMBDA_PAYLOAD_MAX_BYTES {
            return records.len();
        }
        let mut bytes = br#"{"Records":[]}"#.len();
        let fits = records.iter().take_while(|record| {
            bytes += self.event_record(shard_id, record).to_string().len() + 1;
            bytes <= LAMBDA_PAYLOAD_MAX_BYTES
        });
        fits.count().max(1).min(records.len())
    }

    async fn attempt(&self, shard_id: &str, batch: &[Record]) -> Outcome {
        let request_id = new_request_id();
        if let Some(last) = batch.last() {
            self.function.note_iterator_age(self.clock.age(UnixMillis(last.arrived_at)));
        }
        let answer = self.function.invoke(request_id, self.event(shard_id, batch)).await?;
        Ok(acknowledged(&answer, batch))
    }

    fn event(&self, shard_id: &str, batch: &[Record]) -> Bytes {
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

    fn is_too_old(&self, batch: &[Record]) -> bool {
        let oldest = batch.first().map_or(Duration::ZERO, |first| self.clock.age(UnixMillis(first.arrived_at)));
        self.spec.maximum_record_age.is_some_and(|limit| oldest > limit)
    }
}

/// Reads one shard in order, and hands its batches over until they are acknowledged or given up.
struct ShardReader {
    mapping: Arc<EventSourceMapping>,
    shard_id: String,
    /// The last record that was acknowledged or given up.
    checkpoint: Option<SequenceNumber>,
    /// Failures of the batch behind the checkpoint.
    attempts: u32,
    /// The most records of the next batch, after an injected restart.
    restarted_with: Option<usize>,
}

impl ShardReader {
    fn new(mapping: Arc<EventSourceMapping>, shard_id: String) -> Self {
        Self { mapping, shard_id, checkpoint: None, attempts: 0, restarted_with: None }
    }

    /// Reads the shard to its end, and returns its id. An open shard has no end while the stack runs.
    async fn run(mut self) -> Result<String, KinesisError> {
        while let Some(batch) = self.next_batch().await? {
            if self.mapping.faults.draw(&[Fault::MappingRestart], &self.shard_id).is_some() {
                self.restart(batch).await;
                continue;
            }
            let outcome = if self.attempts == 0 && self.mapping.is_too_old(&batch) {
                Ok(0)
            } else {
                self.mapping.attempt(&self.shard_id, &batch).await
            };
            self.settle(&batch, &outcome).await;
        }
        Ok(self.shard_id)
    }

    /// The next records, as many as belong into one batch: when the batch is full, or its window is over. A batch that is
    /// sent again does not wait. `None` when the shard is at its end, or drained.
    async fn next_batch(&mut self) -> Result<Option<Vec<Record>>, KinesisError> {
        let again = self.attempts > 0 || self.restarted_with.is_some();
        let limit = self.restarted_with.take().unwrap_or(self.mapping.spec.batch_size);
        let (mapping, shard_id) = (&self.mapping, self.shard_id.as_str());
        let mut window_ends: Option<Instant> = None;
        loop {
            let draining = mapping.is_draining();
            let (mut records, ends_here) =
                mapping.kinesis.read(&mapping.spec.stream, shard_id, self.checkpoint, limit)?;
            let read = records.len();
            records.truncate(mapping.payload_limit(shard_id, &records));
            let full = records.len() == limit || records.len() < read;
            if records.is_empty() && (ends_here || draining) {
                return Ok(None);
            }
            if !records.is_empty() {
                let ends =
                    *window_ends.get_or_insert_with(|| Instant::now() + mapping.clock.really(mapping.spec.window));
                if full || again || ends_here || draining || Instant::now() >= ends {
                    return Ok(Some(records));
                }
            }
            sleep(mapping.poll_interval()).await;
        }
    }

    /// Plays a mapping that restarts: the batch is handed over and its outcome is not noticed, not even whether there is one
    /// before it is sent again.
    async fn restart(&mut self, batch: Vec<Record>) {
        let faults = &self.mapping.faults;
        let (wait, limit) = (faults.up_to(RESTART_TIME), faults.count_up_to(self.mapping.spec.batch_size));
        let (mapping, shard_id) = (self.mapping.clone(), self.shard_id.clone());
        tokio::spawn(async move { mapping.attempt(&shard_id, &batch).await });
        sleep(wait).await;
        self.restarted_with = Some(limit);
    }

    /// Moves the checkpoint past what was acknowledged. The rest is given up, or sent again after a pause.
    async fn settle(&mut self, batch: &[Record], outcome: &Outcome) {
        let (acknowledged, failed) = batch.split_at(*outcome.as_ref().unwrap_or(&0));
        self.advance_past(acknowledged);
        if failed.is_empty() {
            return;
        }
        self.attempts += 1;
        if self.give_up(failed, outcome).await {
            self.advance_past(failed);
        } else {
            let pause = self.mapping.clock.really(backoff(self.attempts));
            sleep(pause.max(*REAL_POLL_INTERVAL.start())).await;
        }
    }

    fn advance_past(&mut self, records: &[Record]) {
        if let Some(last) = records.last() {
            self.checkpoint = Some(last.sequence_number);
            self.attempts = 0;
        }
    }

    /// Gives a batch up if its time or its retries are over, and returns whether it did.
    async fn give_up(&self, batch: &[Record], outcome: &Outcome) -> bool {
        let (mapping, shard_id, records) = (&self.mapping, self.shard_id.as_str(), batch.len());
        let retries_over = mapping.spec.maximum_retries.is_some_and(|limit| u64::from(self.attempts) > limit);
        let condition = match (mapping.is_too_old(batch), retries_over) {
            (true, _) => "RecordAgeExceeded",
            (false, true) => "RetryAttemptsExhausted",
            (false, false) => {
                report(shard_id, batch, self.attempts, outcome);
                return false;
            }
        };
        let Some(destination) = &mapping.failed_batches else {
            error!(shard_id, records, condition, "a batch is given up and there is no on-failure destination");
            return true;
        };
        let failure = Failure {
            condition,
            attempts: self.attempts,
            function_error: outcome.is_err(),
            function_arn: mapping.function.arn(),
            stream: &mapping.spec.stream,
            shard_id,
            batch,
            payload: mapping.event(shard_id, batch),
        };
        match destination.put(&failure).await {
            Ok(key) => {
                error!(shard_id, records, condition, key, "a batch is given up and kept whole");
                // A mapping that restarts before it has noted that gives the batch up once more.
                mapping.faults.draw(&[Fault::MappingRestart], shard_id).is_none()
            }
            Err(problem) => {
                error!(shard_id, %problem, "the on-failure destination did not take a batch; it is sent again");
                false
            }
        }
    }
}

fn report(shard_id: &str, batch: &[Record], attempts: u32, outcome: &Outcome) {
    let records = batch.len();
    match outcome {
        Err(problem) => warn!(shard_id, records, attempts, %problem, "a batch failed and is sent again"),
        Ok(_) => warn!(shard_id, records, attempts, "a batch is asked for again"),
    }
}

fn backoff(attempts: u32) -> Duration {
    backoff_ceiling(attempts - 1, BACKOFF_BASE, BACKOFF_CAP)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchAnswer {
    batch_item_failures: Option<Vec<BatchItemFailure>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchItemFailure {
    item_identifier: Option<String>,
}

/// How many records Lambda takes as done with by a function's answer: all when it is empty, null or names no failures; none when
/// it can't be read or names a record that is not there; else those before the first record named.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html>
fn acknowledged(answer: &[u8], batch: &[Record]) -> usize {
    if answer.trim_ascii().is_empty() {
        return batch.len();
    }
    let Ok(answer) = serde_json::from_slice::<Option<BatchAnswer>>(answer) else { return 0 };
    let failures = answer.and_then(|answer| answer.batch_item_failures).unwrap_or_default();
    let position = |failure: &BatchItemFailure| {
        let number: SequenceNumber = failure.item_identifier.as_deref()?.parse().ok()?;
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
