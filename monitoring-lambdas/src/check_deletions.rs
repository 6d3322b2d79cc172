//! check-deletions: is everything that was sealed still there?
//!
//! Each run compares the manifests of the last seven days with listings, oldest hour first. What is gone is reported under
//! `deleted/`, in an ERROR line and in a metric, while S3 still has the versions: the bucket keeps them for 14 days after
//! deletion, and its lifecycle deletes nothing younger than eight days.
//!
//! - An object that something other than landing overwrote counts as gone; so does a manifest that seal-partition did not
//!   write.
//! - An hour is checked from its first `_SUCCESS` on: while it is held back, people may delete what keeps it from being whole.
//! - A new seal leaves out what is gone. So a key stays in the report until it is back, and seal-partition keeps each manifest
//!   that it replaces under `replaced/`: these are compared too, then deleted.
//! - If the manifest was deleted along with the objects, the largest number of objects that it ever had is known: the report
//!   then has the number of missing objects without their keys.
//! - The report of an hour that is older than seven days stays until its keys are back or a person deletes it: once the
//!   versions are gone too, the loss is final.
//! - An object that is not in the manifest, or has another size there, landed after the hour was sealed, and S3's event was
//!   lost. A `late/` marker has the hour sealed again, as check-object's would have; also if the manifest is gone or can't be
//!   read.
//!
//! A run stops when its time is up, and the next one continues there. Reports stay: the metric counts all that is under
//! `deleted/`. A repeated event finds the same.
//!
//! Requests a run: 168 GETs, and for each hour, manifest and kind a LIST for every thousand objects. Memory: a line of a manifest, a
//! page of a listing and a report of [`report::MAX_KEYS`] keys.

mod comparison;
mod listing;
mod manifest_lines;
mod report;
mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use lambda_runtime::Context;
use lambda_setup::deadline::{Deadline, TimeIsUp};
use lambda_setup::environment::{self, EnvironmentError};
use shared::metric::Metric;
use shared::timestamp::{UnixMillis, UtcHour};

use crate::cloudwatch::{self, Metrics, MetricsError};
use crate::manifest::{DELETED_PREFIX, REPLACED_PREFIX};
use lambda_setup::bucket::{Bucket, BucketError, List, Streams};
use lambda_setup::event::{EventError, ScheduledEvent};
pub(crate) use report::Report;
use report::State;
use run::Run;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `BUCKET_NAME`
    pub bucket_name: String,
}

impl Config {
    /// # Errors
    ///
    /// A variable that is missing.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        Ok(Self { bucket_name: environment::required("BUCKET_NAME")? })
    }
}

/// Why hours were not compared.
#[derive(Debug, thiserror::Error)]
pub enum CheckDeletionsError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("encoding JSON: {0}")]
    Encode(#[from] serde_json::Error),
    #[error(
        "comparing {partition} takes longer than an invocation may; give check-deletions a longer timeout or more memory"
    )]
    TooLong { partition: String, source: TimeIsUp },
}

/// The time reserved for the metric and the state, with their retries.
const REPORT_TIME: Duration = Duration::from_secs(30);

/// Compares manifests with the bucket.
pub struct Handler<B, M> {
    bucket: B,
    metrics: M,
}

impl<B: Streams, M: Metrics> Handler<B, M> {
    pub fn new(bucket: B, metrics: M) -> Self {
        Self { bucket, metrics }
    }

    /// Compares the hours before the event's time, for as long as the invocation has time.
    ///
    /// # Errors
    ///
    /// When S3 or CloudWatch does not answer, or an hour could not be compared; not when something is gone.
    pub async fn handle(&self, event: ScheduledEvent, context: Context) -> Result<(), CheckDeletionsError> {
        let deadline = Deadline::reserving(context.deadline, REPORT_TIME);
        self.run(event.at()?, deadline, &context.env_config.function_name).await
    }

    async fn run(&self, at: UnixMillis, deadline: Deadline, function_name: &str) -> Result<(), CheckDeletionsError> {
        let mut state = State::read(&self.bucket).await?;
        let (reported, replaced) = (reported(&self.bucket).await?, replaced(&self.bucket).await?);
        let run = Run { bucket: &self.bucket, at, deadline, reported, replaced };
        let problem = run.compare_hours(&mut state).await;
        let problem = problem.or(run.recheck_old_reports().await.err());
        state.put(&self.bucket).await?;
        let deleted = (Metric::DeletedObjects, self.count().await? as f64);
        cloudwatch::put(&self.metrics, function_name, at, &[deleted]).await?;
        problem.map_or(Ok(()), Err)
    }

    /// What is missing, summed over all reports.
    async fn count(&self) -> Result<u64, BucketError> {
        let mut count: u64 = 0;
        for hour in reported(&self.bucket).await? {
            let report = Report::read(&self.bucket, &hour.partition()).await?;
            count = count.saturating_add(report.map_or(0, |report| report.missing_objects));
        }
        Ok(count)
    }
}

/// The hours that have a report, oldest first.
async fn reported(bucket: &impl Bucket) -> Result<Vec<UtcHour>, BucketError> {
    let hour = |key: String| UtcHour::parse(key.strip_prefix(DELETED_PREFIX)?.strip_suffix(".json")?);
    Ok(keys(bucket, DELETED_PREFIX).await?.into_iter().filter_map(hour).collect())
}

/// The manifests of each hour that others replaced since they were compared.
async fn replaced(bucket: &impl Bucket) -> Result<BTreeMap<UtcHour, Vec<String>>, BucketError> {
    let mut replaced: BTreeMap<UtcHour, Vec<String>> = BTreeMap::new();
    for key in keys(bucket, REPLACED_PREFIX).await? {
        let name = key.strip_prefix(REPLACED_PREFIX).and_then(|name| name.rsplit_once('/'));
        if let Some(hour) = name.and_then(|(partition, _)| UtcHour::parse(partition)) {
            replaced.entry(hour).or_default().push(key);
        }
    }
    Ok(replaced)
}

async fn keys(bucket: &impl Bucket, prefix: &str) -> Result<Vec<String>, BucketError> {
    let mut keys: Vec<String> = Vec::new();
    loop {
        let list = List { prefix, start_after: keys.last().map(String::as_str), ..List::default() };
        let page = bucket.list(list).await?;
        let is_last = !page.is_truncated || page.objects.is_empty();
        keys.extend(page.objects.into_iter().map(|listed| listed.key));
        if is_last {
            return Ok(keys);
        }
    }
}
