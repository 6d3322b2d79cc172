//! How far an hour has got: what of it is published, what asks for a seal, and the seal that an earlier run began.

use std::collections::BTreeMap;

use shared::timestamp::UtcHour;

use super::SealError;
use super::checkpoint::Found;
use super::context::Run;
use super::markers::{Markers, Reseal};
use super::published::Published;
use crate::cloudwatch::Metrics;
use crate::manifest::{late_key, reseal_key};
use lambda_setup::bucket::{Condition, Streams, Uploads};

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

    /// Whether the seal has to ask for another one before it lists. A listing that has begun may lack what came since: a
    /// run that continues one leaves that to the next run, which lists again. So a large hour that objects trickle into is sealed
    /// nevertheless.
    pub(super) fn needs_reseal(&self) -> bool {
        let has_begun = self.checkpoint.as_ref().is_some_and(|found| found.draft.is_some());
        !has_begun && (self.markers.late || self.published.is_torn())
    }
}

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    pub(super) async fn state(
        &self,
        hour: UtcHour,
        markers: Markers,
        published: &Published,
    ) -> Result<HourState, SealError> {
        let partition = hour.partition();
        let reseals = self.reseals(&markers).await?;
        // Another run may have satisfied them since the hour was looked at.
        let published = if reseals.is_empty() { published.clone() } else { self.published(&partition).await? };
        let checkpoint = if markers.checkpoint { self.checkpoint(&partition, &published).await? } else { None };
        Ok(HourState { hour, markers, published, reseals, checkpoint })
    }

    /// The requests for another seal that are in the bucket. One that can't be read counts as well.
    async fn reseals(&self, markers: &Markers) -> Result<BTreeMap<String, Reseal>, SealError> {
        let mut reseals = BTreeMap::new();
        for key in &markers.reseals {
            if let Some(content) = self.bucket.get(key).await? {
                reseals.insert(key.clone(), serde_json::from_slice(&content.body).unwrap_or_default());
            }
        }
        Ok(reseals)
    }

    /// Turns a `late/` marker into a reseal, which is put before the marker is deleted: the request is always in the bucket.
    /// Objects that land from now on put the marker again.
    pub(super) async fn put_reseal(&self, state: &mut HourState) -> Result<(), SealError> {
        let partition = state.partition();
        let key = reseal_key(&partition, &self.id);
        let late_objects = state.published.success.as_ref().map(|success| success.late_objects);
        let reseal = Reseal { late_objects, is_sealed: false };
        self.bucket.put(&key, serde_json::to_vec(&reseal)?.into(), Condition::Always).await?;
        if state.markers.late {
            self.bucket.delete(&late_key(&partition)).await?;
        }
        state.reseals.insert(key, reseal);
        Ok(())
    }

    /// Records in the bucket which reseals are satisfied: a run after a crash need not seal for them.
    pub(super) async fn note_satisfied(&self, state: &mut HourState, keys: &[String]) -> Result<(), SealError> {
        for (key, reseal) in state.reseals.iter_mut().filter(|(key, reseal)| !reseal.is_sealed && keys.contains(key)) {
            reseal.is_sealed = true;
            self.bucket.put(key, serde_json::to_vec(reseal)?.into(), Condition::Always).await?;
        }
        Ok(())
    }
}
