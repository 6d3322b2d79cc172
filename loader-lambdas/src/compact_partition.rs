//! compact-partition: a sealed hour as Parquet, for those who read it by columns.
//!
//! An hour's `_SUCCESS` has it made; a schedule goes on with what one invocation had no time for, and finds what nobody asked for.
//! Under `columnar/dt=…/hour=…/` are the parts, then `_SUCCESS` with their names, `ETag`s and counts. Objects that land after the first
//! seal get parts of their own: what was read once never changes.
//!
//! Memory: 16 bytes a row of the hour (at most 2.3 GB, at [`distinct::MAX_ROWS`]), a row group (128 MiB), the file of a part (512 MiB at
//! most, and as much for each promoted field that is most of each event), and the objects under way (96 MiB, or one of 227 MiB and its
//! compressed form).

pub(crate) mod columnar;
mod distinct;
mod objects;
pub(crate) mod parquet_file;
mod plan;
pub(crate) mod row;
mod run;
#[cfg(test)]
mod tests;

use std::time::Duration;

use lambda_runtime::Context;
use lambda_setup::bucket::{BucketError, S3Bucket, Streams};
use lambda_setup::deadline::Deadline;
use lambda_setup::environment::{self, EnvironmentError};
use lambda_setup::event::{EventError, Invocation};
use lambda_setup::function::{serve, start};
use lambda_setup::s3;
use lambda_setup::sdk::with_retries;
use monitoring_lambdas::rules::partition::Partition;
use monitoring_lambdas::success::SuccessError;
use parquet::errors::ParquetError;
use shared::emf;
use shared::line::EventFormat;
use shared::metric::Metric;
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis, UtcHour};

use crate::promoted::{self, PromotedError, PromotedFields};
use crate::sweep::{is_past, swept};
use columnar::Totals;
pub use plan::PlanError;
use run::{Compaction, Outcome};

/// From an hour's seal to when it counts as late.
const DUE_MILLIS: i64 = 60 * MILLIS_PER_MINUTE;

/// What a part may take, with the rows before it read back: it takes some 20 s on two processors.
const PART_TIME: Duration = Duration::from_secs(180);

/// Attempts at a call of S3, and how long each may take: files have up to some hundred MB.
const ATTEMPTS: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Kept for the answer and for `_SUCCESS`.
const IN_HAND: Duration = Duration::from_secs(10);

/// What an invocation says that has to be repeated; `delete-viewer` looks for it.
const UNFINISHED: &str = "the time was over before all parts were written";

/// What the environment says, and the bounds of a run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `EVENT_FORMAT`: of raw lines nothing is compacted.
    event_format: EventFormat,
    /// `PROMOTED_FIELDS`, which was parsed once.
    promoted_fields: String,
    part_bytes: u64,
    window_lines: u64,
    /// What a part may take: none is begun with less time than that.
    part_time: Duration,
}

impl Limits {
    /// # Errors
    ///
    /// When `EVENT_FORMAT` or `PROMOTED_FIELDS` can't be read.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        let promoted_fields = environment::optional("PROMOTED_FIELDS")?.unwrap_or_else(|| promoted::DEFAULT.to_owned());
        if let Err(problem) = PromotedFields::parse(&promoted_fields) {
            return Err(EnvironmentError::new("PROMOTED_FIELDS", problem.to_string()));
        }
        let event_format = environment::choice("EVENT_FORMAT", &EventFormat::NAMES)?;
        Ok(Self {
            event_format,
            promoted_fields,
            part_bytes: plan::PART_BYTES,
            window_lines: distinct::MAX_ROWS,
            part_time: PART_TIME,
        })
    }
}

/// Why an hour was not compacted; what was done so far is kept, and goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Success(#[from] SuccessError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("a plan's promoted fields can't be read: {0}")]
    Promoted(#[from] PromotedError),
    #[error("{key} has no JSON form, or is not as this function writes it: {source}")]
    Malformed { key: String, source: serde_json::Error },
    #[error("{key} has version {version}, which this release does not know")]
    Version { key: String, version: u8 },
    #[error("{key} can't be written or read: {source}")]
    Part { key: String, source: ParquetError },
    #[error("{key} was deleted meanwhile")]
    PartMissing { key: String },
    /// An object was replaced or deleted between two runs. The next run takes the part as it is.
    #[error("another run made {key}, and not the same")]
    PartDiffers { key: String },
    #[error("other runs kept changing {partition}")]
    Contended { partition: String },
    /// Lambda invokes the function again, twice.
    #[error("{UNFINISHED}, and {partition} is too old for the schedule to go on with")]
    Unfinished { partition: String },
}

/// Runs the function.
///
/// # Errors
///
/// When it can't start, or the Runtime API does not answer.
pub fn run() -> anyhow::Result<()> {
    let configuration =
        || Ok::<_, EnvironmentError>((environment::required("BUCKET_NAME")?, Limits::from_environment()?));
    start("compact-partition", configuration, async |(bucket_name, limits), sdk| {
        let client = s3::client(&with_retries(&sdk, ATTEMPTS, ATTEMPT_TIMEOUT));
        let handler = Handler::new(S3Bucket::new(client, bucket_name), limits);
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

/// Compacts hours.
pub struct Handler<B> {
    bucket: B,
    limits: Limits,
}

impl<B: Streams> Handler<B> {
    /// For the hours of one bucket.
    pub fn new(bucket: B, limits: Limits) -> Self {
        Self { bucket, limits }
    }

    /// Compacts the hours whose `_SUCCESS` an S3 event names, or those that are due.
    ///
    /// # Errors
    ///
    /// When S3 does not answer, or what is there can't be read.
    pub async fn handle(&self, invocation: Invocation, context: Context) -> Result<(), CompactError> {
        let deadline = Deadline::reserving(context.deadline, IN_HAND);
        let name = &context.env_config.function_name;
        match invocation {
            Invocation::S3(_) if self.limits.event_format == EventFormat::Raw => Ok(()),
            Invocation::S3(event) => {
                for created in event.created()? {
                    match Partition::of_success_key(&created.key) {
                        Some(Partition::Hour(hour)) => self.compact(hour, deadline, created.at, name).await?,
                        Some(Partition::Date(_)) => {}
                        None => tracing::warn!(key = created.key, "not the _SUCCESS of a partition: not compacted"),
                    }
                }
                Ok(())
            }
            Invocation::Schedule(event) => self.sweep(event.at()?, deadline, name).await,
        }
    }

    /// Compacts what is due, and says how many hours are late.
    async fn sweep(&self, at: UnixMillis, deadline: Deadline, function_name: &str) -> Result<(), CompactError> {
        let (late, failed) = self.sweep_hours(at, deadline, function_name).await;
        println!("{}", emf::line(at, function_name, &[(Metric::UncompactedHours, late)], &[]));
        failed.map_or(Ok(()), Err)
    }

    /// The oldest hour first. One that fails does not stop the others; the last such failure.
    async fn sweep_hours(&self, at: UnixMillis, deadline: Deadline, name: &str) -> (u64, Option<CompactError>) {
        let (mut late, mut failed) = (0, None);
        let hours = match self.limits.event_format {
            EventFormat::Envelope => swept(at),
            EventFormat::Raw => 0..0,
        };
        for hour in hours.map(|hours| at.hour().plus(hours)) {
            match self.sweep_hour(hour, deadline, at, name).await {
                Ok(is_late) => late += u64::from(is_late),
                Err(error) => {
                    tracing::error!(%error, partition = hour.partition(), "the hour was not compacted");
                    failed = Some(error);
                    late += 1;
                }
            }
        }
        (late, failed)
    }

    /// Whether the hour is late even so.
    async fn sweep_hour(
        &self,
        hour: UtcHour,
        deadline: Deadline,
        at: UnixMillis,
        name: &str,
    ) -> Result<bool, CompactError> {
        let Some(sealed) = self.of(hour, deadline).is_due().await? else { return Ok(false) };
        self.compact(hour, deadline, at, name).await?;
        let is_late = sealed.sealed_at.0.saturating_add(DUE_MILLIS) <= at.0;
        Ok(is_late && self.of(hour, deadline).is_due().await?.is_some())
    }

    fn of(&self, hour: UtcHour, deadline: Deadline) -> Compaction<'_, B> {
        Compaction::new(&self.bucket, hour, &self.limits, deadline)
    }

    async fn compact(&self, hour: UtcHour, deadline: Deadline, at: UnixMillis, name: &str) -> Result<(), CompactError> {
        let partition = hour.partition();
        match self.of(hour, deadline).run(&|added| report(&partition, added, at, name)).await? {
            Outcome::Compacted(added) => tracing::info!(partition, ?added, "compacted"),
            Outcome::Unfinished if is_past(hour, at) => {
                let now = lambda_setup::now();
                println!("{}", emf::line(now, name, &[(Metric::UncompactedHours, 1)], &[("partition", &partition)]));
                return Err(CompactError::Unfinished { partition });
            }
            Outcome::Unfinished => tracing::info!(partition, "the time is over: the schedule goes on"),
            outcome @ (Outcome::NotSealed | Outcome::Resealing | Outcome::Unchanged) => {
                tracing::info!(partition, ?outcome, "nothing was compacted");
            }
        }
        Ok(())
    }
}

fn report(partition: &str, added: &Totals, at: UnixMillis, function_name: &str) {
    let difference = added.difference();
    if difference > 0 {
        tracing::error!(partition, ?added, "not all lines that the manifest says became rows");
    }
    println!(
        "{}",
        emf::line(at, function_name, &[(Metric::CompactionDifference, difference)], &[("partition", partition)])
    );
}
