//! The readers of an event source mapping: one a shard, in order, parents before children.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lambda_setup::deadline::backoff_ceiling;
use testbed::{KinesisError, Record, SequenceNumber};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use crate::clock::Clock;
use crate::event_source_mapping::{EventSourceMapping, Outcome};
use crate::failed_batches::Failure;
use crate::faults::plan::Fault;

/// How often a shard without enough records is read: Lambda reads once a second.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Nobody here waits so long, and however fast the clock is, the machine needs time for other things too.
const REAL_POLL_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(50);
/// How often the stream is asked for new shards.
const SHARD_INTERVAL: Duration = Duration::from_millis(500);
/// The longest absence of a mapping that an injected fault restarts: often less than an invocation takes.
const RESTART_TIME: Duration = Duration::from_millis(200);
const BACKOFF_BASE: Duration = Duration::from_millis(200);
const BACKOFF_CAP: Duration = Duration::from_secs(10);

/// Reads all shards, including those that resharding makes, parents before children. Returns once drained.
pub(crate) async fn run(mapping: EventSourceMapping) -> Result<(), KinesisError> {
    let mapping = Arc::new(mapping);
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

/// Reads one shard in order, and hands its batches over until they are acknowledged or given up.
struct ShardReader {
    mapping: Arc<EventSourceMapping>,
    shard_id: String,
    /// The last record that was acknowledged or given up.
    checkpoint: Option<SequenceNumber>,
    /// Failures of the batch after the checkpoint.
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
            sleep(poll_interval(&mapping.clock)).await;
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
                error!(shard_id, %problem, "a batch could not be kept in the on-failure destination; it is sent again");
                false
            }
        }
    }
}

fn report(shard_id: &str, batch: &[Record], attempts: u32, outcome: &Outcome) {
    let records = batch.len();
    match outcome {
        Err(problem) => warn!(shard_id, records, attempts, %problem, "a batch failed and is sent again"),
        Ok(_) => warn!(shard_id, records, attempts, "the function gave a batch back; it is sent again"),
    }
}

fn backoff(attempts: u32) -> Duration {
    backoff_ceiling(attempts - 1, BACKOFF_BASE, BACKOFF_CAP)
}

fn poll_interval(clock: &Clock) -> Duration {
    clock.really(POLL_INTERVAL).clamp(*REAL_POLL_INTERVAL.start(), *REAL_POLL_INTERVAL.end())
}
