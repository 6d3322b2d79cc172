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
/// More than a record's members take in an event beside its data and its key (each byte of which may need an escape).
const RECORD_FRAME_BYTES: usize = 1_000;
/// The longest that a mapping which an injected fault restarts is away: often less than an invocation takes.
const RESTART_TIME: Duration = Duration::from_millis(200);
const BACKOFF_BASE: Duration = Duration::from_millis(200);
const BACKOFF_CAP: Duration = Duration::from_secs(10);

/// Whether the stack still takes events or is landing what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Running,
    /// Nothing comes any more: batches don't wait to fill, and a shard that is read to its end is done.
    Draining,
}

/// One mapping of a stream to a function.
pub struct EventSourceMapping {
    spec: Mapping,
    kinesis: Kinesis,
    function: Arc<Function>,
    failed_batches: Option<FailedBatches>,
    faults: Arc<Faults>,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    unlanded: Arc<AtomicU64>,
    landed_until: LandedUntil,
    /// Shards that take no more records, as of the last look.
    closed_shards: RwLock<HashSet<String>>,
}

/// What all mappings need.
#[derive(Clone)]
pub struct Surroundings {
    pub kinesis: Kinesis,
    pub faults: Arc<Faults>,
    pub clock: Clock,
    pub landed_until: LandedUntil,
    pub phase: watch::Receiver<Phase>,
}

/// The end of one attempt at a batch.
enum Outcome {
    Acknowledged,
    /// To be sent again from this record.
    FailedFrom(usize),
    Failed(InvokeError),
}

impl EventSourceMapping {
    /// A mapping whose batches, when they are given up, go to `failed_batches`.
    #[must_use]
    pub fn new(
        spec: Mapping,
        function: Arc<Function>,
        failed_batches: Option<FailedBatches>,
        surroundings: Surroundings,
    ) -> Self {
        let Surroundings { kinesis, faults, clock, landed_until, phase } = surroundings;
        let (unlanded, closed_shards) = (Arc::default(), RwLock::default());
        Self { spec, kinesis, function, failed_batches, faults, clock, phase, unlanded, landed_until, closed_shards }
    }

    /// How many records of started batches are not acknowledged; for the message of a stack that can't drain.
    #[must_use]
    pub fn unlanded(&self) -> Arc<AtomicU64> {
        self.unlanded.clone()
    }

    /// Reads all shards, those that resharding makes too, parents before children. Ends when it is drained.
    ///
    /// # Errors
    ///
    /// When the embedded Kinesis refuses a call, which is a fault of the stack itself.
    pub async fn run(self) -> Result<(), KinesisError> {
        let mapping = Arc::new(self);
        let (mut begun, mut ended) = (HashSet::new(), HashSet::new());
        let mut readers = JoinSet::new();
        loop {
            let shards = mapping.kinesis.shards(&mapping.spec.stream).await?;
            mapping.note_closed(&shards);
            let known: HashSet<&String> = shards.iter().map(|shard| &shard.shard_id).collect();
            for shard in &shards {
                // A parent that is gone has no records that anyone could still read.
                let ready = shard.parents.iter().all(|parent| ended.contains(parent) || !known.contains(parent));
                if ready && begun.insert(shard.shard_id.clone()) {
                    mapping.landed_until.note(&shard.shard_id, UnixMillis(0));
                    readers.spawn(mapping.clone().read_shard(shard.shard_id.clone()));
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
                let shards = mapping.kinesis.shards(&mapping.spec.stream).await?;
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

    /// Reads one shard to its end; while the stack runs, an open shard has none.
    async fn read_shard(self: Arc<Self>, shard_id: String) -> Result<String, KinesisError> {
        let mut checkpoint: Option<String> = None;
        let mut attempts = 0u32;
        let mut counted = 0;
        let mut restarted_with = None;
        loop {
            let again = attempts > 0 || restarted_with.is_some();
            let limit = restarted_with.take().unwrap_or(self.spec.batch_size);
            let batch = self.next_batch(&shard_id, checkpoint.as_deref(), again, limit).await?;
            let Some(batch) = batch else { return Ok(shard_id) };
            self.count_unlanded(&mut counted, batch.len() as u64);
            if self.faults.draw(&[Fault::MappingRestart], &shard_id).is_some() {
                restarted_with = Some(self.clone().restart(&shard_id, batch).await);
                continue;
            }
            let outcome = if attempts == 0 && self.is_too_old(&batch) {
                Outcome::FailedFrom(0)
            } else {
                self.attempt(&shard_id, &batch).await
            };
            let end = match &outcome {
                Outcome::Acknowledged => batch.len(),
                Outcome::FailedFrom(index) => *index,
                Outcome::Failed(_) => 0,
            };
            if let Some(last) = end.checked_sub(1).and_then(|last| batch.get(last)) {
                checkpoint = Some(last.sequence_number.clone());
                attempts = 0;
            }
            let failed = &batch[end..];
            self.count_unlanded(&mut counted, failed.len() as u64);
            if failed.is_empty() {
                continue;
            }
            attempts += 1;
            if self.give_up(&shard_id, failed, attempts, &outcome).await {
                self.count_unlanded(&mut counted, 0);
                checkpoint = failed.last().map(|last| last.sequence_number.clone());
                attempts = 0;
            } else {
                sleep(self.clock.really(backoff(attempts)).max(*REAL_POLL_INTERVAL.start())).await;
            }
        }
    }

    /// Plays a mapping that restarts: the batch is handed over and what becomes of it is not noticed, not even whether it
    /// is over when it is sent again. How many records the next one may have.
    async fn restart(self: Arc<Self>, shard_id: &str, batch: Vec<Record>) -> usize {
        let (wait, limit) = (self.faults.up_to(RESTART_TIME), self.faults.count_up_to(self.spec.batch_size));
        let (mapping, shard_id) = (self, shard_id.to_owned());
        tokio::spawn(async move { mapping.attempt(&shard_id, &batch).await });
        sleep(wait).await;
        limit
    }

    /// Notes how many records of one shard are under way.
    fn count_unlanded(&self, counted: &mut u64, now: u64) {
        self.unlanded.fetch_add(now, Ordering::Relaxed);
        self.unlanded.fetch_sub(std::mem::replace(counted, now), Ordering::Relaxed);
    }

    /// The next records, as many as belong into one batch: when there are `limit`, or the window is over. A batch that is
    /// sent again does not wait. `None` when the shard is at its end, or drained.
    async fn next_batch(
        &self,
        shard_id: &str,
        after: Option<&str>,
        again: bool,
        limit: usize,
    ) -> Result<Option<Vec<Record>>, KinesisError> {
        let mut window_ends: Option<Instant> = None;
        loop {
            let (draining, closed) = (self.is_draining(), self.is_closed(shard_id));
            let looked_at = lambda_setup::now();
            let mut records = self.kinesis.read(&self.spec.stream, shard_id, after, limit).await?;
            self.landed_until.note(shard_id, records.first().map_or(looked_at, Record::arrival));
            let read = records.len();
            let ends_here = closed && read < limit;
            records.truncate(self.payload_limit(shard_id, &records));
            let full = records.len() == limit || records.len() < read;
            if records.is_empty() && (ends_here || draining) {
                return Ok(None);
            }
            if !records.is_empty() {
                let ends = *window_ends.get_or_insert_with(|| Instant::now() + self.clock.really(self.spec.window));
                if full || again || ends_here || draining || Instant::now() >= ends {
                    return Ok(Some(records));
                }
            }
            sleep(self.poll_interval()).await;
        }
    }

    fn poll_interval(&self) -> Duration {
        self.clock.really(POLL_INTERVAL).clamp(*REAL_POLL_INTERVAL.start(), *REAL_POLL_INTERVAL.end())
    }

    /// How many of the records fit into one invocation; always one, as Lambda has it.
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
            self.function.note_iterator_age(self.clock.age(last.arrival()));
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
                "approximateArrivalTimestamp": in_seconds(self.clock.at(record.arrival())),
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
        let oldest = batch.first().map_or(Duration::ZERO, |first| self.clock.age(first.arrival()));
        self.spec.maximum_record_age.is_some_and(|limit| oldest > limit)
    }

    /// Whether the batch is given to the failed batches instead of being sent again.
    async fn give_up(&self, shard_id: &str, batch: &[Record], attempts: u32, outcome: &Outcome) -> bool {
        let retries_over = self.spec.maximum_retries.is_some_and(|limit| u64::from(attempts) > limit);
        let condition = match (self.is_too_old(batch), retries_over) {
            (true, _) => "RecordAgeExceeded",
            (false, true) => "RetryAttemptsExhausted",
            (false, false) => {
                report(shard_id, batch, attempts, outcome);
                return false;
            }
        };
        let Some(destination) = &self.failed_batches else {
            error!(
                shard_id,
                records = batch.len(),
                condition,
                "a batch is given up and there is no on-failure destination"
            );
            return true;
        };
        let function_error = matches!(outcome, Outcome::Failed(_));
        let stream = &self.spec.stream;
        let function_arn = self.function.arn();
        let payload = self.event(shard_id, batch);
        let failure = Failure { condition, attempts, function_error, function_arn, stream, shard_id, batch, payload };
        match destination.put(&failure).await {
            Ok(key) => {
                error!(shard_id, records = batch.len(), condition, key, "a batch is given up and kept whole");
                // A mapping that restarts before it has noted that gives the batch up once more.
                self.faults.draw(&[Fault::MappingRestart], shard_id).is_none()
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
            approximate_arrival_timestamp: 0.0,
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
