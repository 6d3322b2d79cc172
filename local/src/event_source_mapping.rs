//! The Kinesis event source mapping: reads shards in order and hands batches to the function until they are
//! acknowledged.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html>

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use lambda_setup::deadline::backoff_ceiling;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::limits::LAMBDA_PAYLOAD_MAX_BYTES;
use shared::timestamp::UnixMillis;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::failed_batches::{FailedBatches, Failure};
use crate::faults::Faults;
use crate::faults::plan::Fault;
use crate::function::{Function, InvokeError, new_request_id};
use crate::kinesis::{Kinesis, KinesisError, Record, Shard};
use crate::landed_until::LandedUntil;
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

/// One mapping of a stream to a function.
pub(crate) struct EventSourceMapping {
    spec: Mapping,
    kinesis: Kinesis,
    function: Arc<Function>,
    failed_batches: Option<FailedBatches>,
    faults: Arc<Faults>,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    unlanded: Arc<AtomicU64>,
    landed_until: LandedUntil,
    /// Shards that took no more records when the stream was last listed.
    closed_shards: RwLock<HashSet<String>>,
}

/// What all mappings need.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub kinesis: Kinesis,
    pub faults: Arc<Faults>,
    pub clock: Clock,
    pub landed_until: LandedUntil,
    pub phase: watch::Receiver<Phase>,
}

/// The outcome of one attempt at a batch.
enum Outcome {
    Acknowledged,
    /// To be sent again from this record.
    FailedFrom(usize),
    Failed(InvokeError),
}

impl Outcome {
    /// How many of so many records it acknowledges.
    fn acknowledged(&self, records: usize) -> usize {
        match self {
            Self::Acknowledged => records,
            Self::FailedFrom(index) => *index,
            Self::Failed(_) => 0,
        }
    }
}

impl EventSourceMapping {
    /// A mapping whose batches, when they are given up, go to `failed_batches`.
    #[must_use]
    pub(crate) fn new(
        spec: Mapping,
        function: Arc<Function>,
        failed_batches: Option<FailedBatches>,
        surroundings: Surroundings,
    ) -> Self {
        let Surroundings { kinesis, faults, clock, landed_until, phase } = surroundings;
        let (unlanded, closed_shards) = (Arc::default(), RwLock::default());
        Self { spec, kinesis, function, failed_batches, faults, clock, phase, unlanded, landed_until, closed_shards }
    }

    /// The number of records in flight, for the message of a stack that can't drain.
    #[must_use]
    pub(crate) fn unlanded(&self) -> Arc<AtomicU64> {
        self.unlanded.clone()
    }

    /// Reads all shards, including those that resharding makes, parents before children. Returns once drained.
    ///
    /// # Errors
    ///
    /// When the embedded Kinesis refuses a call, which is a fault of the stack itself.
    pub(crate) async fn run(self) -> Result<(), KinesisError> {
        let mapping = Arc::new(self);
        let (mut begun, mut ended) = (HashSet::new(), HashSet::new());
        let mut readers = JoinSet::new();
        loop {
            let shards = mapping.kinesis.shards(&mapping.spec.stream)?;
            mapping.note_closed(&shards);
            let known: HashSet<&String> = shards.iter().map(|shard| &shard.shard_id).collect();
            for shard in &shards {
                // A parent that is gone has no records that anyone could still read.
                let ready = shard.parents.iter().all(|parent| ended.contains(parent) || !known.contains(parent));
                if ready && begun.insert(shard.shard_id.clone()) {
                    mapping.landed_until.note(&shard.shard_id, UnixMillis(0));
                    readers.spawn(ShardReader::new(mapping.clone(), shard.shard_id.clone()).run());
                }
            }
            tokio::select! {
                Some(reader) = readers.join_next() => match reader {
                    Ok(shard) => {
                        let shard = shard?;
                        mapping.landed_until.forget(&shard);
                        ended.insert(shard);
                    }
                    // Nobody would read the shard any more: better no stack than half of one.
                    Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                },
                () = sleep(SHARD_INTERVAL) => {}
            }
            if readers.is_empty() && mapping.is_draining() {
                // What resharding made meanwhile may hold records too.
                let shards = mapping.kinesis.shards(&mapping.spec.stream)?;
                if shards.iter().all(|shard| begun.contains(&shard.shard_id)) {
                    return Ok(());
                }
            }
        }
    }

    fn note_closed(&self, shards: &[Shard]) {
        let closed = shards.iter().filter(|shard| shard.is_closed).map(|shard| shard.shard_id.clone()).collect();
        *self.closed_shards.write().unwrap_or_else(PoisonError::into_inner) = closed;
    }

    fn is_closed(&self, shard_id: &str) -> bool {
        self.closed_shards.read().unwrap_or_else(PoisonError::into_inner).contains(shard_id)
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
        let at_most = |record: &Record| record.data.len() + 6 * record.partition_key.len() + RECORD_FRAME_BYTES;
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
            self.function.note_iterator_age(self.clock.age(last.arrival));
        }
        match self.function.invoke(request_id, self.event(shard_id, batch)).await {
            Ok(answer) => failed_from(&answer, batch),
            Err(problem) => Outcome::Failed(problem),
        }
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
                "sequenceNumber": record.sequence_number,
                "data": record.data,
                "approximateArrivalTimestamp": in_seconds(self.clock.at(record.arrival)),
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
        let oldest = batch.first().map_or(Duration::ZERO, |first| self.clock.age(first.arrival));
        self.spec.maximum_record_age.is_some_and(|limit| oldest > limit)
    }
}

/// Reads one shard in order, and hands its batches over until they are acknowledged or given up.
struct ShardReader {
    mapping: Arc<EventSourceMapping>,
    shard_id: String,
    /// The last record that was acknowledged or given up.
    checkpoint: Option<String>,
    /// Failures of the batch behind the checkpoint.
    attempts: u32,
    /// Records of this shard that the mapping counts as not landed.
    unlanded: u64,
    /// The most records of the next batch, after an injected restart.
    restarted_with: Option<usize>,
}

impl ShardReader {
    fn new(mapping: Arc<EventSourceMapping>, shard_id: String) -> Self {
        Self { mapping, shard_id, checkpoint: None, attempts: 0, unlanded: 0, restarted_with: None }
    }

    /// Reads the shard to its end, and returns its id. An open shard has no end while the stack runs.
    async fn run(mut self) -> Result<String, KinesisError> {
        while let Some(batch) = self.next_batch().await? {
            self.count_unlanded(batch.len());
            if self.mapping.faults.draw(&[Fault::MappingRestart], &self.shard_id).is_some() {
                self.restart(batch).await;
                continue;
            }
            let outcome = if self.attempts == 0 && self.mapping.is_too_old(&batch) {
                Outcome::FailedFrom(0)
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
            let (draining, closed) = (mapping.is_draining(), mapping.is_closed(shard_id));
            let looked_at = lambda_setup::now();
            let after = self.checkpoint.as_deref();
            let mut records = mapping.kinesis.read(&mapping.spec.stream, shard_id, after, limit)?;
            mapping.landed_until.note(shard_id, records.first().map_or(looked_at, |first| first.arrival));
            let read = records.len();
            let ends_here = closed && read < limit;
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
        let (acknowledged, failed) = batch.split_at(outcome.acknowledged(batch.len()));
        self.advance_past(acknowledged);
        self.count_unlanded(failed.len());
        if failed.is_empty() {
            return;
        }
        self.attempts += 1;
        if self.give_up(failed, outcome).await {
            self.advance_past(failed);
            self.count_unlanded(0);
        } else {
            let pause = self.mapping.clock.really(backoff(self.attempts));
            sleep(pause.max(*REAL_POLL_INTERVAL.start())).await;
        }
    }

    fn advance_past(&mut self, records: &[Record]) {
        if let Some(last) = records.last() {
            self.checkpoint = Some(last.sequence_number.clone());
            self.attempts = 0;
        }
    }

    /// Notes how many records of this shard are in flight.
    fn count_unlanded(&mut self, records: usize) {
        let now = records as u64;
        self.mapping.unlanded.fetch_add(now, Ordering::Relaxed);
        self.mapping.unlanded.fetch_sub(std::mem::replace(&mut self.unlanded, now), Ordering::Relaxed);
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
            function_error: matches!(outcome, Outcome::Failed(_)),
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

/// As Lambda gives times: seconds with a fraction.
#[allow(clippy::cast_precision_loss)]
fn in_seconds(time: UnixMillis) -> f64 {
    time.0 as f64 / 1000.0
}

fn report(shard_id: &str, batch: &[Record], attempts: u32, outcome: &Outcome) {
    let records = batch.len();
    match outcome {
        Outcome::Failed(problem) => warn!(shard_id, records, attempts, %problem, "a batch failed and is sent again"),
        Outcome::FailedFrom(_) => warn!(shard_id, records, attempts, "a batch is asked for again"),
        Outcome::Acknowledged => info!(shard_id, records, "acknowledged"),
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

/// What Lambda makes of a function's answer: all went well when it is empty, null or names no failures; the whole batch
/// failed when it can't be read or names a record that is not there; else all from the first record named.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html>
fn failed_from(answer: &[u8], batch: &[Record]) -> Outcome {
    if answer.trim_ascii().is_empty() {
        return Outcome::Acknowledged;
    }
    let Ok(answer) = serde_json::from_slice::<Option<BatchAnswer>>(answer) else { return Outcome::FailedFrom(0) };
    let failures = answer.and_then(|answer| answer.batch_item_failures).unwrap_or_default();
    if failures.is_empty() {
        return Outcome::Acknowledged;
    }
    let positions: HashMap<&str, usize> =
        batch.iter().enumerate().map(|(index, record)| (record.sequence_number.as_str(), index)).collect();
    let named = failures.iter().map(|failure| positions.get(failure.item_identifier.as_deref().unwrap_or_default()));
    let first = named.map(|position| position.copied().unwrap_or(0)).min();
    Outcome::FailedFrom(first.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn batch() -> Vec<Record> {
        let record = |number: u32| Record {
            sequence_number: number.to_string(),
            partition_key: "k".into(),
            data: String::new(),
            arrival: UnixMillis(0),
        };
        (1..=5).map(record).collect()
    }

    #[test]
    fn times_in_seconds_are_read_back_to_the_millisecond() {
        for millis in [0, 1, 1_795_253_528_006, 1_795_253_528_999, 253_402_300_799_999] {
            let text = json!(in_seconds(UnixMillis(millis))).to_string();
            assert_eq!(UnixMillis::from_seconds(text.parse().unwrap()), UnixMillis(millis));
        }
    }

    #[rstest]
    #[case::empty("", None)]
    #[case::null("null", None)]
    #[case::no_member("{}", None)]
    #[case::null_list("{\"batchItemFailures\":null}", None)]
    #[case::no_failures("{\"batchItemFailures\":[]}", None)]
    #[case::one("{\"batchItemFailures\":[{\"itemIdentifier\":\"3\"}]}", Some(2))]
    #[case::lowest("{\"batchItemFailures\":[{\"itemIdentifier\":\"4\"},{\"itemIdentifier\":\"2\"}]}", Some(1))]
    #[case::unknown("{\"batchItemFailures\":[{\"itemIdentifier\":\"9\"}]}", Some(0))]
    #[case::empty_name("{\"batchItemFailures\":[{\"itemIdentifier\":\"\"}]}", Some(0))]
    #[case::null_name("{\"batchItemFailures\":[{\"itemIdentifier\":null}]}", Some(0))]
    #[case::text("\"done\"", Some(0))]
    #[case::not_json("done", Some(0))]
    fn answers_are_read_as_lambda_reads_them(#[case] answer: &str, #[case] expected: Option<usize>) {
        let outcome = failed_from(answer.as_bytes(), &batch());
        let from = match outcome {
            Outcome::Acknowledged => None,
            Outcome::FailedFrom(index) => Some(index),
            Outcome::Failed(problem) => panic!("{problem}"),
        };
        assert_eq!(from, expected);
    }
}
