//! Seals a date: the sums of its 24 hours.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use shared::object::manifest_key;
use shared::timestamp::{UtcDate, UtcHour};

use super::SealError;
use super::hour::{MAX_ATTEMPTS, Written, written};
use super::manifest_text;
use super::progress::Before;
use super::run::{Done, Outcome, Run, Sealed};
use crate::bucket::{Bucket, Condition, Uploads};
use crate::manifest::{HourOfDate, Success, Totals};

impl<B: Bucket + Uploads, T: Fn() -> bool> Run<'_, B, T> {
    /// Seals a date if all of its hours are sealed, and it is not, or one of them later than it. The first date of a bucket,
    /// whose hours before the first landing are not sealed, never is.
    pub(super) async fn date(
        &self,
        date: UtcDate,
        known: &BTreeMap<UtcHour, Sealed>,
        done: &mut Done,
    ) -> Result<(), SealError> {
        let partition = date.partition();
        let sealed = self.sealed(partition.clone()).await?.and_then(|sealed| sealed.success);
        if let Some(success) = sealed.filter(|sealed| !is_stale(date, sealed, known, done)) {
            if success.sealed_at == self.at.rfc3339() {
                done.outcomes.push(Outcome { success, late_objects: 0 });
            }
            return Ok(());
        }
        let Some(hours) = self.hours_of(date, known).await? else { return Ok(()) };
        let success = self.seal_date(&partition, &hours).await?;
        done.outcomes.push(Outcome { success, late_objects: 0 });
        self.has_worked.set(true);
        Ok(())
    }

    async fn seal_date(&self, partition: &str, hours: &[HourOfDate]) -> Result<Success, SealError> {
        let mut totals = Totals::default();
        hours.iter().for_each(|hour| totals.add_hour(&hour.totals));
        let text = manifest_text::of_date(partition, hours, &totals)?;
        for _ in 0..MAX_ATTEMPTS {
            let (sealed, replaced) = self.replaced(partition).await?;
            let unchanged = Condition::unchanged(replaced.manifest.as_deref());
            let put = self.bucket.put(&manifest_key(partition), text.clone().into(), unchanged).await;
            if written(put)? != Written::Yes {
                continue;
            }
            let before = sealed.and_then(|sealed| sealed.success).as_ref().map(Before::of);
            let success = manifest_text::success(partition, self.at, before.as_ref(), totals.clone());
            let unchanged = Condition::unchanged(replaced.success.as_deref());
            if self.put_success(&success, unchanged).await?.is_some() {
                return Ok(success);
            }
        }
        Err(SealError::Contended { partition: partition.to_owned(), attempts: MAX_ATTEMPTS })
    }

    /// All 24; `None` when one is not sealed.
    async fn hours_of(
        &self,
        date: UtcDate,
        known: &BTreeMap<UtcHour, Sealed>,
    ) -> Result<Option<Vec<HourOfDate>>, SealError> {
        let read = |hour: UtcHour| async move {
            match known.get(&hour) {
                Some(sealed) => Ok(Some(sealed.clone())),
                None => self.sealed(hour.partition()).await,
            }
        };
        let hours = try_join_all(date.hours().map(read)).await?;
        let success = |sealed: Option<Sealed>| sealed.and_then(|sealed| sealed.success);
        let of_date = |Success { partition, totals, .. }| HourOfDate { partition, totals };
        Ok(hours.into_iter().map(|hour| success(hour).map(of_date)).collect())
    }
}

/// Whether an hour was sealed after its date. Times of one form sort as texts do. An hour that was sealed anew may have been
/// so by the same event as the date.
fn is_stale(date: UtcDate, success: &Success, known: &BTreeMap<UtcHour, Sealed>, done: &Done) -> bool {
    date.hours().any(|hour| {
        let sealed = known.get(&hour).and_then(|sealed| sealed.success.as_ref());
        done.resealings.contains_key(&hour) || sealed.is_some_and(|sealed| sealed.sealed_at > success.sealed_at)
    })
}
