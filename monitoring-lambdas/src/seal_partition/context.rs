//! What a run of seal-partition works with, and what it knows of the partitions.

use std::cell::Cell;
use std::collections::BTreeMap;

use shared::object::{manifest_key, success_key};
use shared::timestamp::{UnixMillis, UtcHour};
use tokio::sync::OnceCell;

use super::arrears::Arrears;
use super::progress::{Replaced, Reseal, Stopped};
use super::{Config, SealError};
use crate::bucket::{Bucket, BucketError, Streams, Uploads};
use crate::cloudwatch::Metrics;
use crate::manifest::{Missing, Success};

/// What a run works with.
pub(super) struct Run<'a, B, F, M, T> {
    pub(super) bucket: &'a B,
    pub(super) failed_batches: &'a F,
    pub(super) metrics: &'a M,
    pub(super) config: &'a Config,
    /// The oldest hour of which a seal has to find out what is missing.
    pub(super) oldest: Cell<Option<UtcHour>>,
    /// Read when the first hour needs it.
    pub(super) arrears: OnceCell<Arrears>,
    /// The time of the event that it began with.
    pub(super) at: UnixMillis,
    /// The partition whose marker called it: the invocations before have done what comes before that. `None` for a schedule's.
    pub(super) resumes_at: Option<String>,
    /// No other run has it, not even one of the same event.
    pub(super) id: String,
    /// Bytes of a manifest that are uploaded at once.
    pub(super) part_bytes: usize,
    pub(super) time_is_up: &'a T,
    /// Whether this run has made progress: it does not stop before, so that runs which call one another come to an end.
    pub(super) has_worked: Cell<bool>,
}

/// What is published of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// `None` also for a `_SUCCESS` of others: a seal replaces it, or it is removed.
    pub(super) success: Option<Success>,
    pub(super) etags: Replaced,
}

impl Published {
    /// What `_SUCCESS` says, if it stands for the manifest that is there. It does not when a run was killed between the two,
    /// after another one had replaced the manifest.
    pub(super) fn sealed(&self) -> Option<&Success> {
        self.success.as_ref().filter(|success| success.manifest.is_none() || success.manifest == self.etags.manifest)
    }

    /// Whether a seal has to find out what is missing: not of an hour that was whole once.
    pub(super) fn names_missing(&self) -> bool {
        self.success.as_ref().is_none_or(|success| success.accepted.is_some())
    }

    pub(super) fn is_torn(&self) -> bool {
        self.success.is_some() && self.sealed().is_none()
    }
}

/// A partition that was sealed by this run, or by one that crashed before it reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) success: Success,
    /// Objects that came since the seal before.
    pub(super) late_objects: u64,
}

/// Why an hour may have to be sealed, besides that it has closed.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) late: bool,
    /// The keys of its reseals.
    pub(super) reseals: Vec<String>,
    pub(super) progress: bool,
    /// Whether it has an `_INCOMPLETE`.
    pub(super) incomplete: bool,
}

/// Reseals by their keys.
pub(super) type Reseals = BTreeMap<String, Reseal>;

/// An hour that may have to be sealed.
pub(super) struct Candidate {
    pub(super) hour: UtcHour,
    pub(super) named: Named,
    pub(super) published: Published,
    pub(super) reseals: Reseals,
    /// Where an earlier run stopped.
    pub(super) stopped: Option<Stopped>,
}

impl Candidate {
    pub(super) fn partition(&self) -> String {
        self.hour.partition()
    }

    pub(super) fn needs_seal(&self) -> bool {
        let is_asked_for = self.named.late || self.reseals.values().any(|reseal| !reseal.is_sealed);
        is_asked_for || self.published.sealed().is_none()
    }
}

/// How a seal ended.
pub(super) enum Sealing {
    Sealed {
        success: Box<Success>,
        /// The keys of the reseals that it satisfies.
        covers: Vec<String>,
    },
    /// The hour is not whole. Never empty.
    Held(Vec<Missing>),
}

/// Why a run or a seal does not go on.
pub(super) enum Halt {
    /// Something changed meanwhile: begin anew.
    Conflict,
    /// The time is up; the next run goes on, by a marker that is in the bucket.
    Stopped,
    Failed(SealError),
}

impl From<BucketError> for Halt {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::ConditionFailed { .. } | BucketError::UploadGone { .. } => Self::Conflict,
            error @ BucketError::Failed { .. } => Self::Failed(error.into()),
        }
    }
}

impl From<serde_json::Error> for Halt {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SealError> for Halt {
    fn from(error: SealError) -> Self {
        Self::Failed(error)
    }
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

impl<B: Bucket + Uploads, F: Bucket + Streams, M: Metrics, T: Fn() -> bool> Run<'_, B, F, M, T> {
    /// Whether the time is up, and something was done in it.
    pub(super) fn must_stop(&self) -> bool {
        self.has_worked.get() && (self.time_is_up)()
    }

    /// Removes a `_SUCCESS` that seal-partition did not write: readers would take the partition for whole.
    pub(super) async fn remove_foreign_success(
        &self,
        partition: &str,
        published: &Published,
    ) -> Result<(), BucketError> {
        let (None, Some(etag)) = (&published.success, &published.etags.success) else { return Ok(()) };
        let key = success_key(partition);
        tracing::warn!(key, "removing a _SUCCESS that seal-partition did not write: the partition is not whole");
        match self.bucket.delete_matching(&key, etag).await {
            // Another run has sealed the partition meanwhile.
            Ok(()) | Err(BucketError::ConditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn published(&self, partition: &str) -> Result<Published, SealError> {
        let content = self.bucket.get(&success_key(partition)).await?;
        let manifest = self.bucket.head(&manifest_key(partition)).await?.map(|manifest| manifest.etag);
        let success = content.as_ref().and_then(|content| serde_json::from_slice(&content.body).ok());
        Ok(Published { success, etags: Replaced { success: content.map(|content| content.etag), manifest } })
    }
}
