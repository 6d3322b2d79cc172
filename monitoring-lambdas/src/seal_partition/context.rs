//! What a run works with, and how it ends.

use std::cell::Cell;
use std::collections::BTreeMap;

use shared::timestamp::{UnixMillis, UtcHour};
use tokio::sync::OnceCell;

use super::backlog::Backlog;
use super::{Config, SealError};
use crate::manifest::Success;
use crate::rules::partition::Partition;
use lambda_setup::bucket::BucketError;

/// What a run works with.
pub(super) struct Run<'a, B, F, M> {
    pub(super) bucket: &'a B,
    pub(super) failed_batches: &'a F,
    pub(super) metrics: &'a M,
    pub(super) config: &'a Config,
    /// The oldest hour of which a seal has to find out what is missing.
    pub(super) oldest: Cell<Option<UtcHour>>,
    /// Read when the first hour needs it.
    pub(super) backlog: OnceCell<Backlog>,
    /// The time of the event that it began with.
    pub(super) at: UnixMillis,
    /// The partition whose checkpoint invoked it: the invocations before have done what comes before that. `None` for a
    /// schedule's.
    pub(super) resumes_at: Option<Partition>,
    /// No other run has it, not even one of the same event.
    pub(super) id: String,
    /// Bytes of a manifest that are uploaded at once.
    pub(super) part_bytes: usize,
    pub(super) time_is_up: &'a dyn Fn() -> bool,
    /// Whether this piece has got anything done: it does not stop before, so that a run in pieces ends.
    pub(super) has_worked: Cell<bool>,
}

/// A partition that was sealed by this run, or by one that crashed before it reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) success: Success,
    /// Objects that came since the seal before.
    pub(super) late_objects: u64,
}

/// What a run sealed, to be reported, and why, to be forgotten after that.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) outcomes: Vec<Outcome>,
    /// The keys of the reseals of each hour that are satisfied.
    pub(super) reseals: BTreeMap<UtcHour, Vec<String>>,
    /// Hours that have an `_INCOMPLETE`.
    pub(super) incomplete: u64,
    /// Hours that no longer have one.
    pub(super) released: Vec<UtcHour>,
}

impl<B, F, M> Run<'_, B, F, M> {
    /// Whether the time is up, and something was done in it.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.has_worked.get() && (self.time_is_up)()
    }
}

/// Why a run or a seal does not go on.
pub(super) enum Interrupt {
    /// Something changed meanwhile: start again.
    Conflict,
    /// The time is up, and a checkpoint is in the bucket.
    OutOfTime,
    Failed(SealError),
}

impl From<BucketError> for Interrupt {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::ConditionFailed { .. } | BucketError::UploadGone { .. } => Self::Conflict,
            error @ BucketError::Failed { .. } => Self::Failed(error.into()),
        }
    }
}

impl From<serde_json::Error> for Interrupt {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SealError> for Interrupt {
    fn from(error: SealError) -> Self {
        Self::Failed(error)
    }
}
