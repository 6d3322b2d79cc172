//! Hours that are held back: no `_SUCCESS`, and past their due time, `_INCOMPLETE` instead.

use futures_util::future::try_join_all;
use shared::object::{ObjectKey, ObjectMetadata, success_key};
use shared::timestamp::UtcHour;

use super::SealError;
use super::context::{Done, Run};
use super::state::HourState;
use crate::cloudwatch::Metrics;
use crate::manifest::{Incomplete, Missing, VERSION, held_key, incomplete_key};
use crate::rules::partition::Partition;
use crate::rules::recency::is_last_run;
use lambda_setup::bucket::{Condition, Head, Streams, Uploads};

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    /// Holds `_SUCCESS` back; once the hour is due, `_INCOMPLETE` says why.
    pub(super) async fn hold(
        &self,
        state: &HourState,
        missing: Vec<Missing>,
        done: &mut Done,
    ) -> Result<(), SealError> {
        let (hour, partition) = (state.hour, state.partition());
        self.remove_foreign_success(&partition, &state.published).await?;
        let is_held = state.markers.held;
        if !is_held && !self.is_last_run(hour) {
            tracing::info!(partition, missing = text(&missing), "not whole yet");
            return Ok(());
        }
        let found = if is_held { self.incomplete(hour).await? } else { None };
        if found.is_none() {
            tracing::error!(partition, missing = text(&missing), "due, and not whole: _SUCCESS is held back");
        }
        let since = found.as_ref().map_or(self.at, |found| found.since);
        let incomplete = Incomplete { v: VERSION, partition, since, missing };
        if found.as_ref() != Some(&incomplete) {
            self.put_incomplete(hour, &incomplete).await?;
        }
        done.incomplete += 1;
        Ok(())
    }

    async fn put_incomplete(&self, hour: UtcHour, incomplete: &Incomplete) -> Result<(), SealError> {
        let partition = hour.partition();
        // This first: an `_INCOMPLETE` without its marker would never be removed.
        self.bucket.put(&held_key(&partition), bytes::Bytes::new(), Condition::Always).await?;
        let body = serde_json::to_vec(incomplete)?;
        self.bucket.put(&incomplete_key(&partition), body.into(), Condition::Always).await?;
        // Another run may have found the hour whole meanwhile; the next one forgets that it was held back.
        if self.bucket.head(&success_key(&partition)).await?.is_some() {
            self.bucket.delete(&incomplete_key(&partition)).await?;
        }
        Ok(())
    }

    /// What an earlier run could not read, if all of it is as it was: then the hour need not be listed again.
    pub(super) async fn still_unreadable(&self, hour: UtcHour) -> Result<Option<Missing>, SealError> {
        let incomplete = self.incomplete(hour).await?.map(|incomplete| incomplete.missing).unwrap_or_default();
        let unreadable = incomplete.into_iter().find(|missing| matches!(missing, Missing::UnreadableObjects { .. }));
        let Some(Missing::UnreadableObjects { count, keys }) = unreadable else { return Ok(None) };
        let heads = try_join_all(keys.iter().map(|key| self.bucket.head(key))).await?;
        let is_unreadable = |(key, head): (&String, &Option<Head>)| match head {
            Some(Head { metadata, .. }) => {
                ObjectKey::parse(key).is_none_or(|key| ObjectMetadata::from_entries(&key.name, metadata).is_err())
            }
            None => false,
        };
        let is_unchanged = keys.iter().zip(&heads).all(is_unreadable);
        Ok(is_unchanged.then_some(Missing::UnreadableObjects { count, keys }))
    }

    async fn incomplete(&self, hour: UtcHour) -> Result<Option<Incomplete>, SealError> {
        let content = self.bucket.get(&incomplete_key(&hour.partition())).await?;
        Ok(content.and_then(|content| serde_json::from_slice(&content.body).ok()))
    }

    pub(super) fn is_last_run(&self, hour: UtcHour) -> bool {
        is_last_run(Partition::Hour(hour), self.at, self.config.due_minutes)
    }
}

fn text(missing: &[Missing]) -> String {
    missing.iter().map(Missing::to_string).collect::<Vec<_>>().join("; ")
}
