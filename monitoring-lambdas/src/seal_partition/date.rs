//! Seals a date: the sums of its 24 hours.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use shared::object::manifest_key;
use shared::timestamp::{UtcDate, UtcHour};

use super::context::{Done, Outcome, Run};
use super::manifest_text::{self, Manifest};
use super::published::Published;
use super::{MAX_ATTEMPTS, SealError};
use crate::cloudwatch::Metrics;
use crate::manifest::{HourOfDate, Success, Totals};
use lambda_setup::bucket::{BucketError, Condition, Streams, Uploads};

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    /// Seals a date when all of its hours are sealed; and again when one of them was sealed later than it. The first date of a
    /// bucket, whose hours before the first landing are not sealed, never is.
    pub(super) async fn date(
        &self,
        date: UtcDate,
        known: &BTreeMap<UtcHour, Published>,
        done: &mut Done,
    ) -> Result<(), SealError> {
        let partition = date.partition();
        for _ in 0..MAX_ATTEMPTS {
            let published = self.published(&partition).await?;
            if let Some(success) = published.sealed().filter(|sealed| !is_stale(date, sealed, known, done)) {
                if success.sealed_at == self.at {
                    done.outcomes.push(Outcome { success: success.clone(), late_objects: 0 });
                }
                return Ok(());
            }
            let Some(hours) = self.hours_of(date).await? else {
                return Ok(self.remove_foreign_success(&partition, &published).await?);
            };
            if let Some(success) = self.seal_date(&partition, &published, &hours).await? {
                done.outcomes.push(Outcome { success, late_objects: 0 });
                self.has_worked.set(true);
                return Ok(());
            }
        }
        Err(SealError::Contended { partition, attempts: MAX_ATTEMPTS })
    }

    /// `None` when another run sealed it meanwhile.
    async fn seal_date(
        &self,
        partition: &str,
        published: &Published,
        hours: &[HourOfDate],
    ) -> Result<Option<Success>, SealError> {
        let mut totals = Totals::default();
        hours.iter().for_each(|hour| totals.add_hour(&hour.totals));
        let text = manifest_text::of_date(partition, hours, &totals)?;
        let unchanged = Condition::unchanged(published.etags.manifest.as_deref());
        let etag = match self.bucket.put(&manifest_key(partition), text.into(), unchanged).await {
            Ok(etag) => etag,
            Err(BucketError::ConditionFailed { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let manifest = Manifest { etag, totals };
        let success = manifest_text::success((partition, self.at), published.success.as_ref(), manifest, None);
        let unchanged = Condition::unchanged(published.etags.success.as_deref());
        Ok(self.put_success(&success, unchanged).await?.then_some(success))
    }

    /// All 24; `None` when one is not sealed. They are read again: another run may have sealed one meanwhile.
    async fn hours_of(&self, date: UtcDate) -> Result<Option<Vec<HourOfDate>>, SealError> {
        let read = |hour: UtcHour| async move { self.published(&hour.partition()).await };
        let hours = try_join_all(date.hours().map(read)).await?;
        let of_date = |Success { partition, accepted, totals, .. }: &Success| HourOfDate {
            partition: partition.clone(),
            accepted: accepted.clone(),
            totals: totals.clone(),
        };
        Ok(hours.iter().map(|hour| hour.sealed().map(of_date)).collect())
    }
}

/// Whether an hour was sealed after its date. One that was sealed again may have been so by the same event as the date.
fn is_stale(date: UtcDate, success: &Success, known: &BTreeMap<UtcHour, Published>, done: &Done) -> bool {
    date.hours().any(|hour| {
        let sealed = known.get(&hour).and_then(Published::sealed);
        done.reseals.contains_key(&hour) || sealed.is_some_and(|sealed| sealed.sealed_at > success.sealed_at)
    })
}
