//! How far an hour has got: what of it is published, what asks for a seal, and the seal that an earlier run began.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::object::{manifest_key, success_key};
use shared::timestamp::UtcHour;

use super::SealError;
use super::checkpoint::Found;
use super::markers::{Markers, Reseal};
use super::run::Run;
use crate::bucket::{BucketError, Streams, Uploads};
use crate::cloudwatch::Metrics;
use crate::manifest::{Missing, Success};

/// An hour that may have to be sealed.
pub(super) struct HourState {
    pub(super) hour: UtcHour,
    pub(super) markers: Markers,
    pub(super) published: Published,
    /// By their keys.
    pub(super) reseals: BTreeMap<String, Reseal>,
    pub(super) checkpoint: Option<Found>,
}

impl HourState {
    pub(super) fn partition(&self) -> String {
        self.hour.partition()
    }

    pub(super) fn needs_seal(&self) -> bool {
        let is_asked_for = self.markers.late || self.reseals.values().any(|reseal| !reseal.is_sealed);
        is_asked_for || self.published.sealed().is_none()
    }

    /// Whether the seal has to ask for another one before it lists. A listing that has begun says nothing of what came since:
    /// a run that continues one leaves that to the next run, which begins anew. So a large hour that objects trickle into is
    /// sealed all the same.
    pub(super) fn needs_reseal(&self) -> bool {
        let has_begun = self.checkpoint.as_ref().is_some_and(|found| found.draft.is_some());
        !has_begun && (self.markers.late || self.published.is_torn())
    }
}

/// The `ETag`s of what is published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ETags {
    pub(super) success: Option<String>,
    pub(super) manifest: Option<String>,
}

/// What is published of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// `None` also for a `_SUCCESS` of others: a seal replaces it, or it is removed.
    pub(super) success: Option<Success>,
    pub(super) etags: ETags,
}

impl Published {
    /// What `_SUCCESS` says, if it is of the manifest that is there. It is not when a run was killed between the two, after
    /// another one had replaced the manifest.
    pub(super) fn sealed(&self) -> Option<&Success> {
        self.success.as_ref().filter(|success| success.manifest.is_none() || success.manifest == self.etags.manifest)
    }

    /// Whether `_SUCCESS` is of another manifest.
    pub(super) fn is_torn(&self) -> bool {
        self.success.is_some() && self.sealed().is_none()
    }

    /// Whether it was whole once: what comes later is added to it, whatever is missing.
    pub(super) fn was_whole(&self) -> bool {
        self.success.as_ref().is_some_and(|success| success.accepted.is_none())
    }
}

/// How a seal ended.
pub(super) enum Sealing {
    Sealed {
        success: Box<Success>,
        /// The keys of the reseals that it satisfies.
        reseals: Vec<String>,
    },
    /// The hour is not whole. Never empty.
    Held(Vec<Missing>),
}

/// Why a run or a seal does not go on.
pub(super) enum Interrupt {
    /// Something changed meanwhile: begin anew.
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

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    pub(super) async fn published(&self, partition: &str) -> Result<Published, SealError> {
        let content = self.bucket.get(&success_key(partition)).await?;
        let manifest = self.bucket.head(&manifest_key(partition)).await?.map(|manifest| manifest.etag);
        let success = content.as_ref().and_then(|content| serde_json::from_slice(&content.body).ok());
        Ok(Published { success, etags: ETags { success: content.map(|content| content.etag), manifest } })
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
}
