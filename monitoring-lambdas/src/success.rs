//! Reads `_SUCCESS`.

use crate::manifest::{Success, VERSION};
use crate::rules::partition::Partition;
use lambda_setup::bucket::{Bucket, BucketError};

/// Why a `_SUCCESS` was not read.
#[derive(Debug, thiserror::Error)]
pub enum SuccessError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// seal-partition did not write it.
    #[error("{key} can't be read: {source}")]
    Malformed { key: String, source: serde_json::Error },
    #[error("{key} has version {version}, which this release does not know")]
    Version { key: String, version: u8 },
}

impl SuccessError {
    /// Whether the object itself is wrong: a retry reads the same.
    pub const fn is_content(&self) -> bool {
        match self {
            Self::Bucket(_) => false,
            Self::Malformed { .. } | Self::Version { .. } => true,
        }
    }
}

/// What a partition's `_SUCCESS` says; `None` when it is not sealed.
///
/// # Errors
///
/// When S3 does not answer, or the object can't be read.
pub async fn read(bucket: &impl Bucket, partition: Partition) -> Result<Option<Success>, SuccessError> {
    let key = partition.success_key();
    let Some(content) = bucket.get(&key).await? else { return Ok(None) };
    let success: Success = match serde_json::from_slice(&content.body) {
        Ok(success) => success,
        Err(source) => return Err(SuccessError::Malformed { key, source }),
    };
    if success.v == VERSION { Ok(Some(success)) } else { Err(SuccessError::Version { key, version: success.v }) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;

    use shared::timestamp::UnixMillis;

    use super::*;
    use crate::manifest::Totals;
    use lambda_setup::memory_bucket::MemoryBucket;

    /// As seal-partition leaves it.
    pub(crate) fn seal(bucket: &MemoryBucket, partition: Partition, first_sealed_at: UnixMillis, totals: Totals) {
        let success = Success {
            v: VERSION,
            partition: partition.text(),
            first_sealed_at,
            sealed_at: first_sealed_at,
            late_objects: 0,
            manifest: None,
            accepted: None,
            totals,
        };
        bucket.insert(&partition.success_key(), serde_json::to_vec(&success).unwrap(), HashMap::new());
    }

    #[tokio::test]
    async fn only_sealed_objects_are_read() {
        let memory = MemoryBucket::default();
        let bucket = &memory;
        let partition = Partition::of_success_key("events/dt=2026-11-21/hour=09/_SUCCESS").unwrap();
        assert!(read(&bucket, partition).await.unwrap().is_none());
        let totals = Totals { bytes: 7, ..Totals::default() };
        seal(bucket, partition, partition.end(), totals.clone());
        assert_eq!(read(&bucket, partition).await.unwrap().unwrap().totals, totals);
        assert_eq!(read(&bucket, partition).await.unwrap().unwrap().first_sealed_at, partition.end());

        let text = memory.text(&partition.success_key()).unwrap();
        for wrong in ["", "{}", &text.replace("\"v\":1", "\"v\":2"), &text.replace("2026-11-21T10", "yesterday")] {
            memory.insert(&partition.success_key(), wrong.to_owned(), HashMap::new());
            assert!(read(&bucket, partition).await.unwrap_err().is_content(), "{wrong}");
        }
        memory.fails_from.set(Some(0));
        assert!(!read(&bucket, partition).await.unwrap_err().is_content());
    }
}
