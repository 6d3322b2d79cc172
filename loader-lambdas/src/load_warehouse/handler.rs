//! One invocation from beginning to end: the hours that it is about, and how many are late.

use std::time::Duration;

use lambda_runtime::Context;
use lambda_setup::bucket::Bucket;
use lambda_setup::deadline::Deadline;
use lambda_setup::event::{EventError, Invocation};
use serde::Deserialize;
use shared::emf;
use shared::metric::Metric;
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis, UtcHour};

use super::load::{LoadError, Loading, Outcome};
use super::sql::Tables;
use super::warehouse::Warehouse;
use crate::sweep::swept;

/// From an hour's seal to when it counts as late: it has an hour to become Parquet, and one to be loaded.
const DUE_MILLIS: i64 = 120 * MILLIS_PER_MINUTE;

/// The most transactions that the schedule leaves under way. They wait for each other; of all clients the service takes 500 at once.
/// <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api.html>
pub(super) const MAX_UNDER_WAY: usize = 8;

/// Kept for the answer.
const IN_HAND: Duration = Duration::from_secs(5);

/// The object whose creation says that an hour is Parquet.
const PREFIX: &str = "columnar/";
const SUFFIX: &str = "/_SUCCESS";

/// What invokes the function.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Request {
    /// By hand.
    Reload { reload: String },
    /// S3, or the schedule.
    Invocation(Invocation),
}

/// Why an invocation failed. Hours that it did not load are found by the schedule.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandleError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{0:?} is not an hour, as dt=2026-11-21/hour=09 is")]
    Hour(String),
    #[error("{0} is not Parquet, so there is nothing to load again")]
    NotCompacted(String),
}

/// Loads hours.
pub(super) struct Handler<B, W> {
    pub(super) bucket: B,
    pub(super) warehouse: W,
    pub(super) bucket_name: String,
    pub(super) tables: Tables,
}

/// What a look at the hours found.
#[derive(Debug, Default)]
struct Counts {
    late: u64,
    failed: u64,
    under_way: usize,
    problem: Option<LoadError>,
}

impl<B: Bucket, W: Warehouse> Handler<B, W> {
    /// Loads the hours whose `_SUCCESS` an S3 event names, those that are due, or one again.
    pub(super) async fn handle(&self, request: Request, context: Context) -> Result<(), HandleError> {
        let deadline = Deadline::reserving(context.deadline, IN_HAND);
        match request {
            Request::Reload { reload } => self.reload(&reload, deadline).await,
            Request::Invocation(Invocation::S3(event)) => {
                for created in event.created()? {
                    match hour(&created.key) {
                        Some(hour) => self.load(hour, deadline, created.at).await?,
                        None => tracing::warn!(key = created.key, "not the _SUCCESS of a compacted hour: not loaded"),
                    }
                }
                Ok(())
            }
            Request::Invocation(Invocation::Schedule(event)) => {
                self.sweep(event.at()?, deadline, &context.env_config.function_name).await
            }
        }
    }

    async fn load(&self, hour: UtcHour, deadline: Deadline, at: UnixMillis) -> Result<(), HandleError> {
        let (partition, loading) = (hour.partition(), self.of(hour, at));
        let outcome = deadline.bound(Duration::MAX, async {
            match loading.found().await? {
                Some(found) => loading.run(&found, true).await,
                None => Ok(Outcome::NotCompacted),
            }
        });
        let outcome = outcome.await.map_err(LoadError::from)??;
        tracing::info!(partition, ?outcome, "asked for by a notification");
        Ok(())
    }

    /// Sends an hour of any age whether it is in the warehouse or not. The schedule, or a notification, finds out what becomes of it.
    async fn reload(&self, partition: &str, deadline: Deadline) -> Result<(), HandleError> {
        let hour = UtcHour::parse(partition).ok_or_else(|| HandleError::Hour(partition.to_owned()))?;
        let loading = self.of(hour, lambda_setup::now());
        let sent = deadline.bound(Duration::MAX, async {
            match loading.found().await? {
                Some(found) => loading.reload(&found).await,
                None => Ok(Outcome::NotCompacted),
            }
        });
        match sent.await.map_err(LoadError::from)?? {
            Outcome::NotCompacted => Err(HandleError::NotCompacted(partition.to_owned())),
            outcome => {
                tracing::info!(partition, ?outcome, "to be loaded again");
                Ok(())
            }
        }
    }

    /// The oldest hour first. One that can't be loaded does not stop the others; the last such problem is the invocation's.
    async fn sweep(&self, at: UnixMillis, deadline: Deadline, function_name: &str) -> Result<(), HandleError> {
        let mut counts = Counts::default();
        for hour in swept(at).map(|hours| at.hour().plus(hours)) {
            let swept = deadline.bound(Duration::MAX, self.sweep_hour(hour, at, &mut counts)).await;
            if let Err(error) = swept.map_err(LoadError::from).flatten() {
                tracing::error!(%error, partition = hour.partition(), "the hour was not loaded");
                counts.late += 1;
                let is_over = matches!(error, LoadError::TimeIsUp(_));
                counts.problem = Some(error);
                if is_over {
                    break;
                }
            }
        }
        let values = [(Metric::UnloadedHours, counts.late), (Metric::FailedLoads, counts.failed)];
        println!("{}", emf::line(at, function_name, &values, &[]));
        counts.problem.map_or(Ok(()), |problem| Err(problem.into()))
    }

    async fn sweep_hour(&self, hour: UtcHour, at: UnixMillis, counts: &mut Counts) -> Result<(), LoadError> {
        let loading = self.of(hour, at);
        let Some(found) = loading.found().await? else { return Ok(()) };
        let outcome = loading.run(&found, counts.under_way < MAX_UNDER_WAY).await?;
        let is_late = found.compacted.sealed_at.0.saturating_add(DUE_MILLIS) <= at.0;
        match outcome {
            Outcome::NotCompacted | Outcome::Loaded => return Ok(()),
            Outcome::Waits => {}
            Outcome::UnderWay | Outcome::Sent => counts.under_way += 1,
            Outcome::SentAgain => {
                counts.under_way += 1;
                counts.failed += 1;
            }
        }
        counts.late += u64::from(is_late);
        Ok(())
    }

    fn of(&self, hour: UtcHour, at: UnixMillis) -> Loading<'_, B, W> {
        let Self { bucket, warehouse, bucket_name, tables } = self;
        Loading { bucket, bucket_name, warehouse, tables, hour, at }
    }
}

/// The hour of a compacted hour's `_SUCCESS`.
fn hour(key: &str) -> Option<UtcHour> {
    UtcHour::parse(key.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?)
}
