//! What the seal says of an hour: whether landing may still owe it records, and what it held.

use anyhow::{Context, bail, ensure};
use monitoring_lambdas::manifest::{Entry, Incomplete, Missing, Success, incomplete_key};
use serde::Deserialize;
use shared::object::{manifest_key, success_key};
use shared::timestamp::{UnixMillis, UtcHour};

use crate::bucket::Bucket;

/// An hour that landing is done with.
pub(crate) struct SealedHour {
    /// Records that arrived later may be landing's to land.
    pub(crate) before: UnixMillis,
    /// The objects that its manifest names; none where it has no manifest.
    pub(crate) objects: Vec<Entry>,
}

#[derive(Deserialize)]
struct Manifest {
    objects: Vec<Entry>,
}

/// Whether landing may still land records by itself when this is missing. They would land twice if they were replayed.
fn may_still_land(missing: &Missing) -> bool {
    !matches!(
        missing,
        Missing::MissingRecords { .. }
            | Missing::FailedBatches { .. }
            | Missing::UnreadableObjects { .. }
            | Missing::BrokenObjects { .. }
    )
}

impl SealedHour {
    /// An hour that nothing lands in any more, because its stack was deleted. What its seal says of landing is out of date.
    ///
    /// # Errors
    ///
    /// When the bucket can't be read.
    pub(crate) async fn without_landing(bucket: &Bucket, hour: UtcHour) -> anyhow::Result<Self> {
        Ok(Self { before: hour.end(), objects: named_objects(bucket, hour).await? })
    }

    /// # Errors
    ///
    /// When landing may still owe the hour records, and when the bucket can't be read.
    pub(crate) async fn read(bucket: &Bucket, hour: UtcHour) -> anyhow::Result<Self> {
        let partition = hour.partition();
        let (success, incomplete) = (success_key(&partition), incomplete_key(&partition));
        let (said_at, missing) = if let Some(stored) = bucket.read(&success).await? {
            let sealed: Success = serde_json::from_slice(&stored.bytes).with_context(|| success.clone())?;
            (stored.modified, sealed.accepted.map(|accepted| accepted.missing).unwrap_or_default())
        } else if let Some(stored) = bucket.read(&incomplete).await? {
            let found: Incomplete = serde_json::from_slice(&stored.bytes).with_context(|| incomplete.clone())?;
            (stored.modified, found.missing)
        } else {
            bail!(
                "{partition} has neither _SUCCESS nor _INCOMPLETE: landing may still owe it records. Replay it when it has one"
            );
        };
        let owed = missing.iter().find(|missing| may_still_land(missing));
        ensure!(
            owed.is_none(),
            "landing may still owe {partition} records, as its seal says ({}). Replay it when landing has caught up",
            serde_json::to_string(&owed)?
        );
        Ok(Self { before: said_at.min(hour.end()), objects: named_objects(bucket, hour).await? })
    }
}

/// What the manifest of an hour names.
async fn named_objects(bucket: &Bucket, hour: UtcHour) -> anyhow::Result<Vec<Entry>> {
    let key = manifest_key(&hour.partition());
    let manifest = bucket.get(&key).await?.map(|bytes| serde_json::from_slice::<Manifest>(&bytes)).transpose();
    Ok(manifest.with_context(|| key)?.map(|manifest| manifest.objects).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::unread(Missing::UnreadRecords { read_up_to: String::new() }, true)]
    #[case::unlanded(Missing::UnlandedRecords { landed_up_to: String::new() }, true)]
    #[case::failing(Missing::FailingBatches, true)]
    #[case::unknown(Missing::UnknownProgress, true)]
    #[case::lost(Missing::MissingRecords { arrived: 2, landed: 1 }, false)]
    #[case::failed(Missing::FailedBatches { count: 1, keys: Vec::new() }, false)]
    #[case::broken(Missing::BrokenObjects { keys: Vec::new() }, false)]
    fn records_that_landing_may_still_land_are_not_replayed(#[case] missing: Missing, #[case] expected: bool) {
        assert_eq!(may_still_land(&missing), expected);
    }
}
