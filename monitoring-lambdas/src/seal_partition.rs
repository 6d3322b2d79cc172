//! seal-partition: lists what is in an hour (`_MANIFEST.json`) and marks it as complete (`_SUCCESS`); then the same for a
//! date when all of its hours are.
//!
//! `_SUCCESS` means whole ([`verdict`]). It is held back while landing may owe the hour records ([`landing`]), while a batch
//! of it is in the failed-batches bucket ([`failed_batches`]), and while an object of it can't be read. Once the hour is due,
//! `_INCOMPLETE` says what is missing ([`held`]). What comes after `_SUCCESS` is added by another seal.
//!
//! A run every ten minutes seals the hours that have closed since the last one, and again those in which something
//! landed late. When it runs out of time it leaves a [`checkpoint`] under `sealing/`, whose arrival in S3 invokes it again with the
//! same time: one run in several pieces. If S3's event is lost, the next run finds the checkpoint.
//!
//! How far an hour has got is one value, [`state::HourState`]. Whatever crashes, and however often it is retried, the files
//! are the same. Each object that lands, at any moment of any run, is in the manifest or another seal is requested for it: a
//! late marker is deleted only after a [`markers::Reseal`] has replaced it, and that only after the report of a seal whose
//! listing began later. Two runs at once do no harm: manifest and `_SUCCESS` replace only what was there when the run began to
//! list, otherwise it starts again; each run puts reseals of its own; and an hour whose `_SUCCESS` does not name the current
//! manifest is sealed again.
//!
//! Requests, with n objects in the hour: n HEADs, a LIST for each thousand of `events/` and of `rejected/`, two GETs, two
//! HEADs, two LISTs and two PUTs, and a value of CloudWatch; beyond some 11,000 objects one more PUT for each 5 MiB of
//! manifest, and two. A run takes 6 LISTs, 50 GETs and 50 HEADs besides, and while an hour is to be sealed six values of
//! CloudWatch, a LIST of the failed batches and a GET for each that was given up since that hour. An hour that is sealed
//! again takes all that once more, three PUTs, a copy and a GET.
//!
//! Memory: at most two parts of a manifest, a page of the listing and [`CONCURRENCY`] requests; 13 MB for any number of
//! objects. A run that crashed leaves its uploads behind: the bucket needs a lifecycle rule that aborts them.

mod backlog;
mod checkpoint;
mod context;
mod date;
mod draft;
mod failed_batches;
mod held;
mod hour;
pub mod landing;
mod manifest_text;
mod markers;
mod overlaps;
mod published;
mod run;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod verdict;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use lambda_runtime::Context;
use lambda_setup::deadline::Deadline;
use lambda_setup::environment::{self, EnvironmentError};
use shared::metric::Metric;
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis};
use tokio::sync::OnceCell;

use crate::cloudwatch::{self, Metrics, MetricsError};
use crate::rules::partition::Partition;
use crate::rules::recency;
use checkpoint::Checkpoint;
use context::{Done, Interrupt, Outcome, Run};
use lambda_setup::bucket::{BucketError, Streams, Uploads};
use lambda_setup::event::{EventError, Invocation};
use markers::Marker;
pub use markers::first_hour;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `BUCKET_NAME`
    pub bucket_name: String,
    /// `FAILED_BATCHES_BUCKET_NAME`
    pub failed_batches_bucket_name: String,
    /// `STREAM_NAME`
    pub stream_name: String,
    /// `LANDING_FUNCTION_NAME`
    pub landing_function_name: String,
    /// `LANDING_TIMEOUT_SECONDS`: how long an invocation of that function may take.
    pub landing_timeout_seconds: i64,
    /// `SEAL_GRACE_MINUTES`: from the end of an hour to when nothing more is expected of it.
    pub grace_minutes: i64,
    /// `RECENCY_DUE_MINUTES`: from the end of an hour to when it must be sealed.
    pub due_minutes: i64,
}

impl Config {
    /// # Errors
    ///
    /// A variable that is missing or has no value in its range.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        let grace_minutes = grace_minutes()?;
        Ok(Self {
            bucket_name: environment::required("BUCKET_NAME")?,
            failed_batches_bucket_name: environment::required("FAILED_BATCHES_BUCKET_NAME")?,
            stream_name: environment::required("STREAM_NAME")?,
            landing_function_name: environment::required("LANDING_FUNCTION_NAME")?,
            landing_timeout_seconds: environment::number("LANDING_TIMEOUT_SECONDS", 900, 1..=900)?,
            grace_minutes,
            due_minutes: due_minutes(grace_minutes)?,
        })
    }

    const fn grace_millis(&self) -> i64 {
        self.grace_minutes * MILLIS_PER_MINUTE
    }
}

/// `SEAL_GRACE_MINUTES`
pub fn grace_minutes() -> Result<i64, EnvironmentError> {
    environment::number("SEAL_GRACE_MINUTES", 15, 1..=180)
}

/// `RECENCY_DUE_MINUTES`
pub fn due_minutes(grace_minutes: i64) -> Result<i64, EnvironmentError> {
    let due_minutes = environment::number("RECENCY_DUE_MINUTES", recency::SHIPPED_DUE_MINUTES, 1..=720)?;
    let sealing_minutes = recency::sealing_minutes(grace_minutes);
    if due_minutes > sealing_minutes {
        return Ok(due_minutes);
    }
    let problem = format!(
        "is {due_minutes}; with SEAL_GRACE_MINUTES={grace_minutes} an hour is sealed {sealing_minutes} minutes after its \
         end: set it to more than that"
    );
    Err(EnvironmentError::new("RECENCY_DUE_MINUTES", problem))
}

/// Why a run failed. The next attempt, Lambda's own or the next run, continues from what is in the bucket.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("JSON could not be written or read: {0}")]
    Json(#[from] serde_json::Error),
    /// Something changed that no other run should change.
    #[error("another run changed a marker of this one")]
    Overtaken,
    #[error("{partition} was changed by others during each of {attempts} attempts to seal it")]
    Contended { partition: String, attempts: u32 },
}

/// The bytes of a manifest that are uploaded at once: the least that S3 takes for a part that is not the last. Its 10,000 parts
/// hold some 100 million objects.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const PART_BYTES: usize = 5 * 1024 * 1024;

/// How many requests run at once.
const CONCURRENCY: usize = 64;

/// How often a seal is tried when another run changes something or an upload is gone.
const MAX_ATTEMPTS: u32 = 3;

/// The time reserved for what is under way when the time is up: a part, a checkpoint and their retries. Of a short invocation,
/// half.
const STOP_TIME: Duration = Duration::from_secs(30);

/// Seals partitions.
pub struct Handler<B, F, M> {
    bucket: B,
    failed_batches: F,
    metrics: M,
    config: Config,
    part_bytes: usize,
}

impl<B: Uploads, F: Streams, M: Metrics> Handler<B, F, M> {
    /// `failed_batches` is the bucket of [`Config::failed_batches_bucket_name`].
    pub fn new(bucket: B, failed_batches: F, metrics: M, config: Config) -> Self {
        Self { bucket, failed_batches, metrics, config, part_bytes: PART_BYTES }
    }

    /// Seals what is due at the event's time, as far as the invocation's own time allows.
    ///
    /// # Errors
    ///
    /// When S3 or CloudWatch refuses something or does not answer.
    pub async fn handle(&self, event: Invocation, context: Context) -> Result<(), SealError> {
        let deadline = Deadline::reserving(context.deadline, STOP_TIME);
        self.invoke(event, &|| deadline.remaining().is_zero(), &context.env_config.function_name).await
    }

    async fn invoke(
        &self,
        event: Invocation,
        time_is_up: &dyn Fn() -> bool,
        function_name: &str,
    ) -> Result<(), SealError> {
        for (at, resumes_at) in self.starts(event).await? {
            self.run(at, resumes_at, time_is_up, function_name).await?;
        }
        Ok(())
    }

    /// The times to seal at, each with the partition to continue with. A schedule's event has the time itself; a checkpoint has
    /// that of the run that it continues. A checkpoint that is gone is done.
    async fn starts(&self, event: Invocation) -> Result<BTreeMap<UnixMillis, Option<Partition>>, SealError> {
        let created = match event {
            Invocation::Schedule(event) => return Ok(BTreeMap::from([(event.at()?, None)])),
            Invocation::S3(event) => event.created()?,
        };
        let mut starts = BTreeMap::new();
        for created in created {
            let Some(Marker::Checkpoint(partition)) = Marker::parse(&created.key) else { continue };
            let Some(content) = self.bucket.get(&created.key).await? else { continue };
            let at = Checkpoint::decode(&content.body).map_or(created.at, |checkpoint| checkpoint.at);
            starts.entry(at).or_insert(Some(partition));
        }
        Ok(starts)
    }

    async fn run(
        &self,
        at: UnixMillis,
        resumes_at: Option<Partition>,
        time_is_up: &dyn Fn() -> bool,
        function_name: &str,
    ) -> Result<(), SealError> {
        let run = Run {
            bucket: &self.bucket,
            failed_batches: &self.failed_batches,
            metrics: &self.metrics,
            config: &self.config,
            oldest: Cell::default(),
            backlog: OnceCell::new(),
            at,
            resumes_at,
            id: format!("{:032x}", rand::random::<u128>()),
            part_bytes: self.part_bytes,
            time_is_up,
            has_worked: Cell::new(false),
        };
        match run.run().await {
            Ok(done) => {
                self.report(at, &done, function_name).await?;
                run.forget(&done).await
            }
            Err(Interrupt::OutOfTime) => {
                tracing::info!(%at, "the time is up; a checkpoint invokes the next piece");
                Ok(())
            }
            Err(Interrupt::Failed(error)) => Err(error),
            Err(Interrupt::Conflict) => Err(SealError::Overtaken),
        }
    }

    /// Reports what a run did. Of a run in several pieces, the last one reports all.
    async fn report(&self, at: UnixMillis, done: &Done, function_name: &str) -> Result<(), SealError> {
        done.outcomes.iter().for_each(log);
        // A date's overlaps are those of its hours.
        let hours = || done.outcomes.iter().filter(|outcome| outcome.success.partition.contains("/hour="));
        let mut values = vec![(Metric::IncompletePartitions, done.incomplete)];
        if !done.outcomes.is_empty() {
            values.extend([
                (Metric::SealedPartitions, done.outcomes.len() as u64),
                (Metric::LateObjects, hours().map(|outcome| outcome.late_objects).fold(0, u64::saturating_add)),
                (
                    Metric::OverlappingObjects,
                    hours().map(|outcome| outcome.success.totals.overlaps).fold(0, u64::saturating_add),
                ),
            ]);
        }
        // Counts stay far below 2^53.
        let values: Vec<_> = values.into_iter().map(|(metric, value)| (metric, value as f64)).collect();
        Ok(cloudwatch::put(&self.metrics, function_name, at, &values).await?)
    }
}

fn log(outcome: &Outcome) {
    let Outcome { success, late_objects } = outcome;
    let (partition, totals) = (success.partition.as_str(), &success.totals);
    tracing::info!(
        partition,
        objects = totals.all_objects(),
        events = totals.events,
        rejected = totals.rejected,
        bytes = totals.bytes,
        unreadable = totals.unreadable_objects,
        accepted = success.accepted.is_some(),
        "sealed"
    );
    if *late_objects > 0 {
        tracing::error!(partition, late_objects, "objects landed after the partition had been sealed");
    }
    if totals.overlaps > 0 && partition.contains("/hour=") {
        let overlaps = totals.overlaps;
        tracing::error!(partition, overlaps, "objects overlap: records may have landed twice; the manifest names them");
    }
}
