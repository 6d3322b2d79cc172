//! What readers see of a partition.

use serde::{Deserialize, Serialize};
use shared::object::{manifest_key, success_key};

use super::SealError;
use super::context::Run;
use crate::cloudwatch::Metrics;
use crate::manifest::Success;
use lambda_setup::bucket::{BucketError, Streams, Uploads};

/// The `ETag`s of what is published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ETags {
    pub(super) success: Option<String>,
    pub(super) manifest: Option<String>,
}

/// What is published of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// `None` also for a foreign `_SUCCESS`: a seal replaces it, or it is removed.
    pub(super) success: Option<Success>,
    pub(super) etags: ETags,
}

impl Published {
    /// What `_SUCCESS` says, if it belongs to the current manifest. It does not when a run was killed between the two, after
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
