//! Seals an hour: one listing, a look at each object, the manifest, then `_SUCCESS`.

use shared::object::{manifest_key, success_key};
use shared::timestamp::UtcHour;

use super::checkpoint::{Checkpoint, Draft, Found};
use super::context::{Interrupt, Run};
use super::manifest_text::{self, Manifest};
use super::published::{ETags, Published};
use super::state::HourState;
use super::verdict::{Assessment, Verdict};
use super::{MAX_ATTEMPTS, SealError};
use crate::cloudwatch::Metrics;
use crate::manifest::{Missing, Success, checkpoint_key};
use lambda_setup::bucket::{BucketError, Condition, Streams, Uploads};

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

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    /// Seals an hour if it is whole, or accepted as it is.
    pub(super) async fn seal_hour(&self, state: &mut HourState, assessment: &Assessment) -> Result<Sealing, Interrupt> {
        let partition = state.partition();
        let reseals: Vec<String> = state.reseals.keys().cloned().collect();
        let mut found = state.checkpoint.take();
        for _ in 0..MAX_ATTEMPTS {
            let published = self.published(&partition).await?;
            let earlier = found.as_mut().and_then(|found| found.draft.take());
            let mut draft = self.begin(&partition, earlier, &published.etags, &reseals).await?;
            match self.attempt(state.hour, assessment, published.success.as_ref(), &mut draft).await {
                Ok(sealing) => {
                    if found.is_some() {
                        self.bucket.delete(&checkpoint_key(&partition)).await?;
                    }
                    return Ok(sealing);
                }
                Err(Interrupt::Conflict) => self.abort(&partition, draft.upload.as_deref()).await?,
                Err(Interrupt::OutOfTime) => {
                    self.put_checkpoint(&partition, draft, found.as_ref()).await?;
                    return Err(Interrupt::OutOfTime);
                }
                Err(failed) => return Err(failed),
            }
        }
        Err(SealError::Contended { partition, attempts: MAX_ATTEMPTS }.into())
    }

    /// Continues the draft of an earlier run, unless the hour was sealed since.
    async fn begin(
        &self,
        partition: &str,
        earlier: Option<Draft>,
        replaces: &ETags,
        reseals: &[String],
    ) -> Result<Draft, SealError> {
        if let Some(earlier) = earlier {
            if earlier.replaces == *replaces {
                return Ok(earlier);
            }
            self.abort(partition, earlier.upload.as_deref()).await?;
        }
        let mut draft = Draft { replaces: replaces.clone(), reseals: reseals.to_vec(), ..Draft::default() };
        manifest_text::begin(&mut draft.buffer, partition, "objects");
        Ok(draft)
    }

    /// Writes the manifest and, if nothing is missing, `_SUCCESS`.
    async fn attempt(
        &self,
        hour: UtcHour,
        assessment: &Assessment,
        before: Option<&Success>,
        draft: &mut Draft,
    ) -> Result<Sealing, Interrupt> {
        let etag = self.write_manifest(hour, before.is_some(), draft).await?;
        // The upload is over.
        draft.upload = None;
        let accepted = match self.verdict(hour, assessment, draft).await? {
            Verdict::Seal(accepted) => accepted,
            Verdict::Hold(missing) => return Ok(Sealing::Held(missing)),
        };
        let manifest = Manifest { etag, totals: draft.totals.clone() };
        let success = manifest_text::success((&hour.partition(), self.at), before, manifest, accepted);
        let condition = Condition::unchanged(draft.replaces.success.as_deref());
        if !self.put_success(&success, condition).await? {
            return Err(Interrupt::Conflict);
        }
        Ok(Sealing::Sealed { success: Box::new(success), reseals: draft.reseals.clone() })
    }

    /// Writes `_SUCCESS`; `false` when it changed meanwhile.
    pub(super) async fn put_success(&self, success: &Success, condition: Condition<'_>) -> Result<bool, SealError> {
        let key = success_key(&success.partition);
        let body = serde_json::to_vec(success)?;
        match self.bucket.put(&key, body.clone().into(), condition).await {
            Ok(_) => Ok(true),
            // It may have been this very write, whose answer was lost, or another run that found the same.
            Err(BucketError::ConditionFailed { .. }) => {
                Ok(self.bucket.get(&key).await?.is_some_and(|found| found.body == body))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where an earlier run stopped. The draft of a seal that another run has overtaken is dropped.
    pub(super) async fn checkpoint(&self, partition: &str, published: &Published) -> Result<Option<Found>, SealError> {
        let Some(content) = self.bucket.get(&checkpoint_key(partition)).await? else { return Ok(None) };
        let mut found = Found::new(&content);
        if let Some(overtaken) = found.draft.take_if(|draft| draft.replaces != published.etags) {
            self.abort(partition, overtaken.upload.as_deref()).await?;
        }
        Ok(Some(found))
    }

    /// Drops a seal that is not needed any more, or not possible.
    pub(super) async fn drop_checkpoint(&self, state: &mut HourState) -> Result<(), SealError> {
        let Some(found) = state.checkpoint.take() else { return Ok(()) };
        let partition = state.partition();
        self.abort(&partition, found.draft.and_then(|draft| draft.upload).as_deref()).await?;
        Ok(self.bucket.delete(&checkpoint_key(&partition)).await?)
    }

    /// Makes another invocation continue. If another run has put a checkpoint since, that one is continued.
    async fn put_checkpoint(&self, partition: &str, draft: Draft, found: Option<&Found>) -> Result<(), SealError> {
        let upload = draft.upload.clone();
        let condition = Condition::unchanged(found.map(|found| found.etag.as_str()));
        let checkpoint = Checkpoint { at: self.at, draft: Some(draft) }.encode()?;
        match self.bucket.put(&checkpoint_key(partition), checkpoint, condition).await {
            Ok(_) => Ok(()),
            Err(BucketError::ConditionFailed { .. }) if found.is_some_and(|found| found.upload == upload) => Ok(()),
            Err(BucketError::ConditionFailed { .. }) => self.abort(partition, upload.as_deref()).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn abort(&self, partition: &str, upload: Option<&str>) -> Result<(), SealError> {
        if let Some(upload) = upload {
            self.bucket.abort_upload(&manifest_key(partition), upload).await?;
        }
        Ok(())
    }
}
