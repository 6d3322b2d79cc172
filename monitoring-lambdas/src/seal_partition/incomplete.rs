//! Hours that are not whole: `_SUCCESS` is held back, past their due time `_INCOMPLETE` stands in its place, and a person may
//! accept one as it is.
//!
//! What is missing is asked for before anything is listed, landing before the failed batches: a batch that moves from the
//! one to the other, or into the hour, is seen in one of them.

use futures_util::future::try_join_all;
use shared::line::Kind;
use shared::object::{ObjectKey, ObjectMetadata, prefix, success_key};
use shared::timestamp::UtcHour;

use super::SealError;
use super::failed_batches::{self, FailedBatch};
use super::landing::{self, Landing};
use super::progress::Progress;
use super::run::{Done, Named, Published, Run};
use crate::bucket::{Bucket, BucketError, Condition, Head, List, Streams, Uploads};
use crate::cloudwatch::Metrics;
use crate::manifest::{
    Acceptance, Accepted, BROKEN_PREFIX, Incomplete, MAX_KEYS, Missing, VERSION, accepted_key, held_key, incomplete_key,
};
use crate::rules::partition::Partition;
use crate::rules::recency::is_last_run;

/// What may be owed to any hour, as of the beginning of a run.
#[derive(Debug)]
pub(super) struct Arrears {
    landing: Landing,
    failed_batches: Vec<FailedBatch>,
}

/// On what terms an hour may be sealed.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// Not for an hour whose `_SUCCESS` is out: what comes later is added to it.
    must_be_whole: bool,
    /// What is known to be missing before the hour is listed.
    missing: Vec<Missing>,
    acceptance: Option<Acceptance>,
}

impl Terms {
    /// Whether there is anything to be sealed, as far as that is known before the hour is listed.
    pub(super) fn refusal(&self) -> Option<&[Missing]> {
        (!self.missing.is_empty() && self.acceptance.is_none()).then_some(self.missing.as_slice())
    }

    /// What `_SUCCESS` says of what is missing, if it may be written.
    fn verdict(&self, found: Vec<Missing>) -> Result<Option<Accepted>, Vec<Missing>> {
        let missing: Vec<Missing> = self.missing.iter().cloned().chain(found).collect();
        match &self.acceptance {
            _ if missing.is_empty() => Ok(None),
            Some(acceptance) => Ok(Some(Accepted { acceptance: acceptance.clone(), missing })),
            None => Err(missing),
        }
    }
}

impl<B: Bucket + Uploads, F: Bucket + Streams, M: Metrics, T: Fn() -> bool> Run<'_, B, F, M, T> {
    /// On what terms an hour may be sealed. Nothing of it is listed before this.
    pub(super) async fn terms(&self, hour: UtcHour, named: &Named, published: &Published) -> Result<Terms, SealError> {
        if published.success.as_ref().is_some_and(|success| success.accepted.is_none()) {
            return Ok(Terms::default());
        }
        let arrears = self.arrears(hour).await?;
        let mut missing = arrears.landing.owes(hour);
        missing.extend(failed_batches::missing(&arrears.failed_batches, hour));
        missing.extend(self.broken(hour).await?);
        if named.incomplete {
            missing.extend(self.still_unreadable(hour).await?);
        }
        let acceptance = self.bucket.get(&accepted_key(&hour.partition())).await?;
        // What is none leaves the hour as it is.
        let acceptance = acceptance.and_then(|content| serde_json::from_slice(&content.body).ok());
        let earlier = || published.success.as_ref()?.accepted.as_ref().map(|accepted| accepted.acceptance.clone());
        let acceptance = acceptance.or_else(earlier);
        Ok(Terms { must_be_whole: true, missing, acceptance })
    }

    /// What the listing showed to be missing beside that; what `_SUCCESS` says of it, if it may be written.
    pub(super) async fn verdict(
        &self,
        hour: UtcHour,
        terms: &Terms,
        progress: &Progress,
    ) -> Result<Result<Option<Accepted>, Vec<Missing>>, SealError> {
        if !terms.must_be_whole {
            return Ok(Ok(None));
        }
        let count = progress.totals.unreadable_objects;
        let keys = progress.unreadable.clone();
        let mut found = Vec::from_iter((count > 0).then_some(Missing::UnreadableObjects { count, keys }));
        if self.arrears(hour).await?.landing.read_up_to.is_none() {
            found.extend(self.fewer_than_arrived(hour, progress.totals.records).await?);
        }
        // It has been found to be unreadable before the listing already.
        found.retain(|found| !terms.missing.contains(found));
        Ok(terms.verdict(found))
    }

    /// Reads what may be owed to this hour and to later ones, once in a run: nothing has been listed by then.
    async fn arrears(&self, hour: UtcHour) -> Result<&Arrears, SealError> {
        let look = || async move {
            let landing = Landing::look(self.metrics, self.config, self.at).await?;
            Ok::<_, SealError>(Arrears {
                landing,
                failed_batches: failed_batches::list(self.failed_batches, hour).await?,
            })
        };
        self.arrears.get_or_try_init(look).await
    }

    /// Where CloudWatch does not say how far landing has read, the records that arrived decide, and without those the time.
    async fn fewer_than_arrived(&self, hour: UtcHour, landed: u64) -> Result<Option<Missing>, SealError> {
        let Some(arrived) = landing::arrived(self.metrics, self.config, hour).await? else {
            return Ok((!self.is_last_run(hour)).then_some(Missing::UnknownProgress));
        };
        // A count of records.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let arrived = arrived.max(0.0) as u64;
        Ok((landed < arrived).then_some(Missing::MissingRecords { arrived, landed }))
    }

    /// Objects of the hour that check-object has found broken.
    async fn broken(&self, hour: UtcHour) -> Result<Option<Missing>, BucketError> {
        let mut keys = Vec::new();
        for kind in [Kind::Event, Kind::Rejected] {
            let folder = format!("{BROKEN_PREFIX}{}/{}/", prefix(kind), hour.partition());
            let limit = u16::try_from(MAX_KEYS).ok();
            let page = self.bucket.list(List { prefix: &folder, limit, ..List::default() }).await?;
            let key = |verdict: &str| verdict.strip_prefix(BROKEN_PREFIX)?.strip_suffix(".json").map(str::to_owned);
            keys.extend(page.objects.iter().filter_map(|listed| key(&listed.key)));
        }
        keys.truncate(MAX_KEYS);
        Ok((!keys.is_empty()).then_some(Missing::BrokenObjects { keys }))
    }

    /// What an earlier run could not read, if all of it is as it was: then the hour need not be listed again.
    async fn still_unreadable(&self, hour: UtcHour) -> Result<Option<Missing>, SealError> {
        let incomplete = self.incomplete(hour).await?.map(|incomplete| incomplete.missing).unwrap_or_default();
        let unreadable = incomplete.into_iter().find(|missing| matches!(missing, Missing::UnreadableObjects { .. }));
        let Some(Missing::UnreadableObjects { count, keys }) = unreadable else { return Ok(None) };
        let heads = try_join_all(keys.iter().map(|key| self.bucket.head(key))).await?;
        let is_unreadable = |(key, head): (&String, &Option<Head>)| match head {
            Some(head) => ObjectKey::parse(key).is_none() || ObjectMetadata::from_entries(&head.metadata).is_err(),
            None => false,
        };
        let is_as_it_was = keys.iter().zip(&heads).all(is_unreadable);
        Ok(is_as_it_was.then_some(Missing::UnreadableObjects { count, keys }))
    }

    async fn incomplete(&self, hour: UtcHour) -> Result<Option<Incomplete>, SealError> {
        let content = self.bucket.get(&incomplete_key(&hour.partition())).await?;
        Ok(content.and_then(|content| serde_json::from_slice(&content.body).ok()))
    }

    fn is_last_run(&self, hour: UtcHour) -> bool {
        is_last_run(Partition::Hour(hour), self.at, self.config.due_minutes)
    }

    /// Holds `_SUCCESS` back; once the hour is due, `_INCOMPLETE` says why.
    pub(super) async fn hold(
        &self,
        hour: UtcHour,
        named: &Named,
        missing: &[Missing],
        done: &mut Done,
    ) -> Result<(), SealError> {
        let partition = hour.partition();
        if !named.incomplete && !self.is_last_run(hour) {
            tracing::info!(partition, ?missing, "not whole yet");
            return Ok(());
        }
        let found = if named.incomplete { self.incomplete(hour).await? } else { None };
        let since = found.as_ref().map_or_else(|| self.at.rfc3339(), |found| found.since.clone());
        let incomplete = Incomplete { v: VERSION, partition: partition.clone(), since, missing: missing.to_vec() };
        if found.as_ref() != Some(&incomplete) {
            self.put_incomplete(hour, &incomplete).await?;
        }
        if found.is_none() {
            tracing::error!(partition, ?missing, "due, and not whole: _SUCCESS is held back");
        }
        done.incomplete += 1;
        Ok(())
    }

    async fn put_incomplete(&self, hour: UtcHour, incomplete: &Incomplete) -> Result<(), SealError> {
        let partition = hour.partition();
        // This first: a file that is not named here would never be removed.
        self.bucket.put(&held_key(&partition), bytes::Bytes::new(), Condition::Always).await?;
        let body = serde_json::to_vec(incomplete)?;
        self.bucket.put(&incomplete_key(&partition), body.into(), Condition::Always).await?;
        // Another run may have found the hour whole meanwhile.
        if self.bucket.head(&success_key(&partition)).await?.is_some() {
            self.release(hour).await?;
        }
        Ok(())
    }

    /// Removes `_INCOMPLETE`.
    pub(super) async fn release(&self, hour: UtcHour) -> Result<(), BucketError> {
        let partition = hour.partition();
        self.bucket.delete(&incomplete_key(&partition)).await?;
        self.bucket.delete(&held_key(&partition)).await
    }
}
