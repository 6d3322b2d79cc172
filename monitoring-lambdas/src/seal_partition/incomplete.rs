//! Hours that are not whole: `_SUCCESS` is held back, past their due time `_INCOMPLETE` stands in its place, and a person may
//! accept one as it is.
//!
//! As many records landed as arrived: then neither other consumers that lag nor batches that just failed hold the hour
//! back. Fewer landed than arrived: then nothing that says that landing is up to date seals it.
//!
//! What is missing is asked for before anything is listed, landing before the failed batches: a batch that moves from the
//! one to the other, or into the hour, is seen in one of them.

use futures_util::future::try_join_all;
use shared::line::Kind;
use shared::object::{ObjectKey, ObjectMetadata, prefix, success_key};
use shared::timestamp::UtcHour;

use super::SealError;
use super::arrears::Arrears;
use super::context::{Candidate, Done, Run};
use super::failed_batches;
use super::landing::{self, Landing, Watched};
use super::progress::Progress;
use crate::bucket::{Bucket, BucketError, Condition, Head, List, Streams, Uploads};
use crate::cloudwatch::Metrics;
use crate::manifest::{
    Accepted, BROKEN_PREFIX, Incomplete, MAX_KEYS, Missing, Totals, VERSION, accepted_key, held_key, incomplete_key,
};
use crate::rules::completeness::{LandedRecords, lost_records};
use crate::rules::partition::Partition;
use crate::rules::recency::is_last_run;

/// On what terms an hour may be sealed.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// Not for an hour whose `_SUCCESS` is out: what comes later is added to it, whatever is missing.
    may_be_held: bool,
    /// Whether `_SUCCESS` says what is missing: not where it was whole once.
    names_missing: bool,
    /// What is known to be missing before the hour is listed.
    missing: Vec<Missing>,
    accepted: Option<Accepted>,
}

impl Terms {
    /// What is certainly missing, as far as that is known before the hour is listed.
    pub(super) fn refusal(&self) -> Option<&[Missing]> {
        let refuses = |missing: &Missing| !is_suspicion(missing) && !self.is_accepted(missing);
        (self.may_be_held && self.missing.iter().any(refuses)).then_some(self.missing.as_slice())
    }

    fn is_accepted(&self, missing: &Missing) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| accepted.covers(missing))
    }

    fn verdict(&self, missing: Vec<Missing>) -> Verdict {
        if missing.is_empty() {
            return Verdict::Seal(None);
        }
        if self.may_be_held && !missing.iter().all(|missing| self.is_accepted(missing)) {
            return Verdict::Hold(missing);
        }
        Verdict::Seal(self.accepted.clone().map(|accepted| Accepted { missing, ..accepted }))
    }
}

/// Whether an hour that was listed is sealed.
pub(super) enum Verdict {
    /// With what its `_SUCCESS` says to be missing, if anything is.
    Seal(Option<Accepted>),
    /// Never empty.
    Hold(Vec<Missing>),
}

fn in_words(missing: &[Missing]) -> String {
    missing.iter().map(Missing::to_string).collect::<Vec<_>>().join("; ")
}

/// What says that landing is late with something, which need not be of the hour: the count of its records decides.
const fn is_suspicion(missing: &Missing) -> bool {
    matches!(missing, Missing::UnreadRecords { .. } | Missing::FailingBatches | Missing::IdleLanding)
}

/// Whether what is missing may be why fewer records landed than arrived. Those of a broken object are counted by its metadata.
fn explains(missing: &[Missing]) -> bool {
    missing.iter().any(|missing| !matches!(missing, Missing::BrokenObjects { .. }))
}

/// Whether the records that arrived in an hour have landed.
enum Count {
    All,
    /// The neighbouring hours, which are not sealed yet, may have what is missing here.
    Unsure(Missing),
    Fewer(Missing),
    /// CloudWatch has no values.
    Unknown,
}

impl<B: Bucket + Uploads, F: Bucket + Streams, M: Metrics, T: Fn() -> bool> Run<'_, B, F, M, T> {
    /// On what terms an hour may be sealed. Nothing of it is listed before this.
    pub(super) async fn terms(&self, candidate: &Candidate) -> Result<Terms, SealError> {
        let Candidate { hour, named, published, .. } = candidate;
        if !published.names_missing() {
            return Ok(Terms::default());
        }
        let mut missing = self.arrears(*hour).await?.of(*hour);
        missing.extend(self.broken(*hour).await?);
        if named.incomplete {
            missing.extend(self.still_unreadable(*hour).await?);
        }
        let earlier = published.success.as_ref().and_then(|success| success.accepted.clone());
        let accepted = self.accepted(*hour).await?.or(earlier);
        Ok(Terms { may_be_held: published.success.is_none(), names_missing: true, missing, accepted })
    }

    /// What a person has accepted. What can't be read leaves the hour as it is.
    async fn accepted(&self, hour: UtcHour) -> Result<Option<Accepted>, BucketError> {
        let key = accepted_key(&hour.partition());
        let Some(content) = self.bucket.get(&key).await? else { return Ok(None) };
        match serde_json::from_slice(&content.body) {
            Ok(accepted) => Ok(Some(accepted)),
            Err(problem) => {
                tracing::warn!(key, %problem, "not an acceptance; accept the hour with tools/scripts/accept-hour");
                Ok(None)
            }
        }
    }

    /// Adds to the terms what the listing and the count of records show to be missing.
    pub(super) async fn verdict(
        &self,
        hour: UtcHour,
        terms: &Terms,
        progress: &Progress,
    ) -> Result<Verdict, SealError> {
        if !terms.names_missing {
            return Ok(Verdict::Seal(None));
        }
        let mut missing = terms.missing.clone();
        let count = progress.totals.unreadable_objects;
        let keys = progress.unreadable.clone();
        let unreadable = (count > 0).then_some(Missing::UnreadableObjects { count, keys });
        // It may have been found to be unreadable before the listing already.
        missing.extend(unreadable.filter(|unreadable| !terms.missing.contains(unreadable)));
        let is_read = self.arrears(hour).await?.is_read();
        let count = self.count(hour, progress.landed_records).await?;
        let may_be_owed = match count {
            Count::Fewer(_) => true,
            Count::Unknown => !self.is_last_run(hour),
            Count::All | Count::Unsure(_) => false,
        };
        match count {
            Count::All => missing.retain(|missing| !is_suspicion(missing)),
            Count::Fewer(fewer) if !explains(&missing) => missing.push(fewer),
            Count::Unsure(fewer) if !explains(&missing) && !is_read => missing.push(fewer),
            // What is missing already explains it.
            Count::Fewer(_) | Count::Unsure(_) | Count::Unknown => {}
        }
        // Whoever replays the hour must know that landing may still land what nothing shows to have been read.
        if may_be_owed && !is_read && !missing.iter().any(is_suspicion) {
            missing.push(Missing::UnknownProgress);
        }
        Ok(terms.verdict(missing))
    }

    /// Reads what may be owed to the hours of this run, once: nothing has been listed by then.
    async fn arrears(&self, hour: UtcHour) -> Result<&Arrears, SealError> {
        let look = || async move {
            let watched = Watched {
                stream_name: &self.config.stream_name,
                landing_function_name: &self.config.landing_function_name,
                landing_timeout_millis: self.config.landing_timeout_seconds * 1_000,
            };
            let landing = Landing::look(self.metrics, &watched, self.at).await?;
            let since = self.oldest.get().unwrap_or(hour);
            let failed_batches = failed_batches::list(self.failed_batches, since).await?;
            Ok::<_, SealError>(Arrears { landing, failed_batches })
        };
        self.arrears.get_or_try_init(look).await
    }

    /// Compares the records that landed with those that arrived, where the neighbouring hours may have some of them.
    async fn count(&self, hour: UtcHour, landed: LandedRecords) -> Result<Count, SealError> {
        let Some(arrived) = landing::arrived(self.metrics, self.config, hour, self.at).await? else {
            return Ok(Count::Unknown);
        };
        let (previous, next) = (self.sealed(hour.plus(-1)).await?, self.sealed(hour.plus(1)).await?);
        let (certain, possible) = lost_records(arrived, landed, [previous.as_ref(), next.as_ref()]);
        // A count of records.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = arrived[1].whole.max(0.0) as u64;
        let fewer = Missing::MissingRecords { arrived: whole, landed: landed.at_most };
        if certain > 0.0 {
            return Ok(Count::Fewer(fewer));
        }
        Ok(if possible > 0.0 { Count::Unsure(fewer) } else { Count::All })
    }

    /// The sums of a sealed hour.
    async fn sealed(&self, hour: UtcHour) -> Result<Option<Totals>, SealError> {
        Ok(self.published(&hour.partition()).await?.success.map(|success| success.totals))
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
            Some(Head { metadata, .. }) => {
                ObjectKey::parse(key).is_none_or(|key| ObjectMetadata::from_entries(&key.name, metadata).is_err())
            }
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
        candidate: &Candidate,
        missing: Vec<Missing>,
        done: &mut Done,
    ) -> Result<(), SealError> {
        let (hour, partition) = (candidate.hour, candidate.partition());
        let is_named = candidate.named.incomplete;
        self.remove_foreign_success(&partition, &candidate.published).await?;
        if !is_named && !self.is_last_run(hour) {
            tracing::info!(partition, missing = in_words(&missing), "not whole yet");
            return Ok(());
        }
        let found = if is_named { self.incomplete(hour).await? } else { None };
        if found.is_none() {
            tracing::error!(partition, missing = in_words(&missing), "due, and not whole: _SUCCESS is held back");
        }
        let since = found.as_ref().map_or_else(|| self.at.rfc3339(), |found| found.since.clone());
        let incomplete = Incomplete { v: VERSION, partition, since, missing };
        if found.as_ref() != Some(&incomplete) {
            self.put_incomplete(hour, &incomplete).await?;
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
        // Another run may have found the hour whole meanwhile; the next one forgets that it was held back.
        if self.bucket.head(&success_key(&partition)).await?.is_some() {
            self.bucket.delete(&incomplete_key(&partition)).await?;
        }
        Ok(())
    }
}
