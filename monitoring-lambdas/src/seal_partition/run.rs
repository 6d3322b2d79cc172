//! One run: everything that is to be sealed at one time, oldest first, as far as the time reaches.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use shared::object::{manifest_key, prefix, success_key};
use shared::timestamp::{UnixMillis, UtcDate, UtcHour};
use tokio::sync::OnceCell;

use super::hour::Stopped;
use super::incomplete::Arrears;
use super::plan::{closed_hours, is_closed};
use super::progress::{Marker, Replaced, Reseal};
use super::{Config, SealError};
use crate::bucket::{Bucket, BucketError, Condition, List, Streams, Uploads};
use crate::cloudwatch::Metrics;
use crate::manifest::{
    HELD_SUFFIX, LATE_PREFIX, Missing, PROGRESS_SUFFIX, RESEAL_SUFFIX, SEALING_PREFIX, Success, held_key,
    incomplete_key, late_key, progress_key, reseal_key,
};
use shared::line::Kind;

/// Requests that are under way at once.
pub(super) const CONCURRENCY: usize = 64;

/// What a run works with.
pub(super) struct Run<'a, B, F, M, T> {
    pub(super) bucket: &'a B,
    pub(super) failed_batches: &'a F,
    pub(super) metrics: &'a M,
    pub(super) config: &'a Config,
    /// Read when the first hour needs it.
    pub(super) arrears: OnceCell<Arrears>,
    /// The time of the event that it began with.
    pub(super) at: UnixMillis,
    /// No other run has it, not even one of the same event.
    pub(super) id: String,
    /// Bytes of a manifest that are uploaded at once.
    pub(super) part_bytes: usize,
    pub(super) time_is_up: &'a T,
    /// Whether this run has moved anything forward: it stops no earlier, so that runs that call one another come to an end.
    pub(super) has_worked: Cell<bool>,
}

/// What there is of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// `None` also for a `_SUCCESS` that is not ours: the partition is sealed over it, or it is removed.
    pub(super) success: Option<Success>,
    pub(super) etags: Replaced,
}

impl Published {
    /// What `_SUCCESS` says, if it stands for the manifest that is there. It does not when a run was killed between the two,
    /// after another one had replaced the manifest.
    pub(super) fn sealed(&self) -> Option<&Success> {
        self.success.as_ref().filter(|success| success.manifest.is_none() || success.manifest == self.etags.manifest)
    }

    fn is_torn(&self) -> bool {
        self.success.is_some() && self.sealed().is_none()
    }
}

/// A partition that was sealed in this run, or in one before that did not come to report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) success: Success,
    /// Objects that came since the seal before.
    pub(super) late_objects: u64,
}

/// What became of an hour.
pub(super) enum Sealing {
    Sealed(Box<Success>),
    /// It is not whole. Never empty.
    Held(Vec<Missing>),
    /// The time was up.
    Stopped,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Done(Done),
    /// The time was up; the next run goes on, by a marker that is in the bucket.
    Stopped,
}

/// What is left when all is sealed: to report it, then to forget why it was sealed anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) outcomes: Vec<Outcome>,
    /// The keys of the reseals of each hour that are satisfied.
    pub(super) reseals: BTreeMap<UtcHour, Vec<String>>,
    /// Hours that have an `_INCOMPLETE`.
    pub(super) incomplete: u64,
    /// Hours that have none any more.
    pub(super) released: Vec<UtcHour>,
}

/// What the bucket says of an hour that may be to be sealed.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) late: bool,
    /// The keys of its reseals.
    pub(super) reseals: Vec<String>,
    pub(super) progress: bool,
    /// Whether it has an `_INCOMPLETE`.
    pub(super) incomplete: bool,
}

/// Reseals by their keys.
type Reseals = BTreeMap<String, Reseal>;

impl<B: Bucket + Uploads, F: Bucket + Streams, M: Metrics, T: Fn() -> bool> Run<'_, B, F, M, T> {
    pub(super) async fn run(&self) -> Result<Ended, SealError> {
        let named = self.named().await?;
        let hours: Vec<UtcHour> = named.keys().copied().collect();
        let mut known: BTreeMap<UtcHour, Published> = BTreeMap::new();
        for hours in hours.chunks(CONCURRENCY) {
            let read = |hour: UtcHour| async move { self.published(&hour.partition()).await };
            let published = try_join_all(hours.iter().copied().map(read)).await?;
            known.extend(hours.iter().copied().zip(published));
        }
        let mut done = Done::default();
        for (hour, named) in named {
            if self.must_stop() {
                self.call_again(hour).await?;
                return Ok(Ended::Stopped);
            }
            if !self.hour(hour, &named, &mut known, &mut done).await? {
                return Ok(Ended::Stopped);
            }
        }
        for date in self.dates(&known) {
            if self.must_stop() {
                // There is no marker for dates: the last hour's has nothing to do for the hour itself.
                self.call_again(date.hour(23)).await?;
                return Ok(Ended::Stopped);
            }
            self.date(date, &known, &mut done).await?;
        }
        Ok(Ended::Done(done))
    }

    pub(super) fn must_stop(&self) -> bool {
        self.has_worked.get() && (self.time_is_up)()
    }

    /// Seals an hour if that is needed and it is whole; `false` if the time was up.
    async fn hour(
        &self,
        hour: UtcHour,
        named: &Named,
        known: &mut BTreeMap<UtcHour, Published>,
        done: &mut Done,
    ) -> Result<bool, SealError> {
        let published = known.entry(hour).or_default();
        let mut reseals = self.reseals(named).await?;
        if !reseals.is_empty() {
            // Another run may have satisfied them since the hour was looked at.
            *published = self.published(&hour.partition()).await?;
        }
        let stopped = self.stopped(hour, named, published).await?;
        let is_asked_for = named.late || reseals.values().any(|reseal| !reseal.is_sealed);
        if published.sealed().is_none() || is_asked_for {
            let sealing = self.seal(hour, named, published, (stopped, &mut reseals)).await?;
            match sealing {
                Sealing::Sealed(success) => {
                    // The ETag of `_SUCCESS` is not needed any more.
                    let etags = Replaced { manifest: success.manifest.clone(), success: None };
                    *published = Published { success: Some(*success), etags };
                    self.has_worked.set(true);
                }
                Sealing::Held(missing) => {
                    self.remove_foreign_success(&hour.partition(), published).await?;
                    self.hold(hour, named, &missing, done).await?;
                    return Ok(true);
                }
                Sealing::Stopped => return Ok(false),
            }
        } else if let Some(stopped) = stopped {
            self.forget_progress(hour, stopped).await?;
        }
        if named.incomplete {
            self.bucket.delete(&incomplete_key(&hour.partition())).await?;
            done.released.push(hour);
        }
        if let Some(success) = published.sealed() {
            self.conclude(success, (hour, &reseals), done);
        }
        Ok(true)
    }

    /// Seals an hour if it is whole, or accepted as it is.
    async fn seal(
        &self,
        hour: UtcHour,
        named: &Named,
        published: &Published,
        (stopped, reseals): (Option<Stopped>, &mut Reseals),
    ) -> Result<Sealing, SealError> {
        let terms = self.terms(hour, named, published).await?;
        if let Some(missing) = terms.refusal() {
            if let Some(stopped) = stopped {
                self.forget_progress(hour, stopped).await?;
            }
            return Ok(Sealing::Held(missing.to_vec()));
        }
        // A listing that has begun says nothing of what came since: whoever goes on with one leaves that to the next run.
        // That one begins anew, and a large hour that objects trickle into is sealed all the same.
        if !stopped.as_ref().is_some_and(Stopped::has_progress) && (named.late || published.is_torn()) {
            let (key, reseal) = self.put_reseal(hour, named, published).await?;
            reseals.insert(key, reseal);
        }
        let covers: Vec<String> = reseals.keys().cloned().collect();
        let (sealing, covers) = self.seal_hour(hour, &terms, stopped, covers).await?;
        if matches!(sealing, Sealing::Sealed(_)) {
            self.note_sealed(reseals, &covers).await?;
        }
        Ok(sealing)
    }

    /// Notes what is to be reported of a sealed hour.
    fn conclude(&self, success: &Success, (hour, reseals): (UtcHour, &Reseals), done: &mut Done) {
        let satisfied: Vec<String> =
            reseals.iter().filter(|(_, reseal)| reseal.is_sealed).map(|(key, _)| key.clone()).collect();
        if !satisfied.is_empty() || success.sealed_at == self.at.rfc3339() {
            let before = satisfied.iter().filter_map(|key| reseals[key].late_objects).min();
            let late_objects = before.map_or(0, |before| success.late_objects.saturating_sub(before));
            done.outcomes.push(Outcome { success: success.clone(), late_objects });
        }
        if !satisfied.is_empty() {
            done.reseals.insert(hour, satisfied);
        }
    }

    /// Why an hour is sealed anew, as it is in the bucket. What can't be read asks for a seal all the same.
    async fn reseals(&self, named: &Named) -> Result<Reseals, SealError> {
        let mut reseals = Reseals::new();
        for key in &named.reseals {
            if let Some(content) = self.bucket.get(key).await? {
                reseals.insert(key.clone(), serde_json::from_slice(&content.body).unwrap_or_default());
            }
        }
        Ok(reseals)
    }

    /// Makes a `late/` marker into a reseal. It is put before the marker is deleted, so that the reason is at no moment
    /// nowhere; what comes from now on puts the marker again.
    async fn put_reseal(
        &self,
        hour: UtcHour,
        named: &Named,
        published: &Published,
    ) -> Result<(String, Reseal), SealError> {
        let partition = hour.partition();
        let key = reseal_key(&partition, &self.id);
        let late_objects = published.success.as_ref().map(|success| success.late_objects);
        let reseal = Reseal { late_objects, is_sealed: false };
        self.bucket.put(&key, serde_json::to_vec(&reseal)?.into(), Condition::Always).await?;
        if named.late {
            self.bucket.delete(&late_key(&partition)).await?;
        }
        Ok((key, reseal))
    }

    /// Notes in the bucket which reseals are satisfied: a run that comes after a crash needs no seal for them.
    async fn note_sealed(&self, reseals: &mut Reseals, covers: &[String]) -> Result<(), SealError> {
        for (key, reseal) in reseals.iter_mut().filter(|(key, reseal)| !reseal.is_sealed && covers.contains(key)) {
            reseal.is_sealed = true;
            self.bucket.put(key, serde_json::to_vec(reseal)?.into(), Condition::Always).await?;
        }
        Ok(())
    }

    /// Forgets why hours were looked at. Until here a run that comes after a crash finds them, and their dates, however old
    /// they are.
    pub(super) async fn forget(&self, done: &Done) -> Result<(), SealError> {
        for key in done.reseals.values().flatten() {
            self.bucket.delete(key).await?;
        }
        for hour in &done.released {
            self.bucket.delete(&held_key(&hour.partition())).await?;
        }
        Ok(())
    }

    /// Has S3 invoke seal-partition again: puts the hour's marker, with the progress that it has, if any.
    async fn call_again(&self, hour: UtcHour) -> Result<(), SealError> {
        let key = progress_key(&hour.partition());
        let found = self.bucket.get(&key).await?;
        let progress = found.as_ref().and_then(|found| Marker::decode(&found.body)?.progress);
        let marker = Marker::new(self.at, progress).encode()?;
        let condition = Condition::unchanged(found.as_ref().map(|found| found.etag.as_str()));
        match self.bucket.put(&key, marker, condition).await {
            // Another run has put it: that calls as well.
            Ok(_) | Err(BucketError::ConditionFailed { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The hours that may be to be sealed: the closed ones, and those that `late/` and `sealing/` name.
    async fn named(&self) -> Result<BTreeMap<UtcHour, Named>, SealError> {
        let first = first_hour(self.bucket).await?;
        let closed = closed_hours(self.at, self.config.grace_millis(), first);
        let mut hours: BTreeMap<UtcHour, Named> = closed.into_iter().map(|hour| (hour, Named::default())).collect();
        // With more than a page, the next run takes the rest.
        let late = self.bucket.list(List { prefix: LATE_PREFIX, ..List::default() }).await?;
        for hour in late.objects.iter().filter_map(|late| UtcHour::parse(late.key.strip_prefix(LATE_PREFIX)?)) {
            if is_closed(hour, self.at, self.config.grace_millis()) {
                hours.entry(hour).or_default().late = true;
            }
        }
        let sealing = self.bucket.list(List { prefix: SEALING_PREFIX, ..List::default() }).await?;
        for name in sealing.objects.iter().filter_map(|sealing| sealing.key.strip_prefix(SEALING_PREFIX)) {
            let hour_before = |suffix| UtcHour::parse(name.strip_suffix(suffix)?);
            if let Some(hour) = hour_before(PROGRESS_SUFFIX) {
                hours.entry(hour).or_default().progress = true;
            } else if let Some(hour) = hour_before(HELD_SUFFIX) {
                hours.entry(hour).or_default().incomplete = true;
            } else if let Some(hour) = hour_of_reseal(name) {
                hours.entry(hour).or_default().reseals.push(format!("{SEALING_PREFIX}{name}"));
            }
        }
        Ok(hours)
    }

    /// The dates that are over and may be to be sealed.
    fn dates(&self, known: &BTreeMap<UtcHour, Published>) -> BTreeSet<UtcDate> {
        let sealed = known.iter().filter(|(_, published)| published.sealed().is_some());
        let dates = sealed.map(|(hour, _)| hour.date());
        dates.filter(|date| is_closed(date.hour(23), self.at, self.config.grace_millis())).collect()
    }

    /// Removes a `_SUCCESS` that seal-partition did not write: readers would take the partition for whole.
    pub(super) async fn remove_foreign_success(
        &self,
        partition: &str,
        published: &Published,
    ) -> Result<(), BucketError> {
        let (None, Some(etag)) = (&published.success, &published.etags.success) else { return Ok(()) };
        let key = success_key(partition);
        tracing::warn!(key, "removing a _SUCCESS of others: the partition is not whole");
        match self.bucket.delete_matching(&key, etag).await {
            // Another run has sealed the partition meanwhile.
            Ok(()) | Err(BucketError::ConditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn published(&self, partition: &str) -> Result<Published, SealError> {
        let content = self.bucket.get(&success_key(partition)).await?;
        let manifest = self.bucket.head(&manifest_key(partition)).await?.map(|manifest| manifest.etag);
        let success = content.as_ref().and_then(|content| serde_json::from_slice(&content.body).ok());
        Ok(Published { success, etags: Replaced { success: content.map(|content| content.etag), manifest } })
    }
}

/// `dt=2026-11-21/hour=09.<id of the run>.late`
fn hour_of_reseal(name: &str) -> Option<UtcHour> {
    let name = name.strip_suffix(RESEAL_SUFFIX)?;
    // Earlier versions had one for each hour, without an id.
    UtcHour::parse(name.split_once('.').map_or(name, |(hour, _)| hour))
}

/// The first hour that anything landed in.
async fn first_hour(bucket: &impl Bucket) -> Result<Option<UtcHour>, BucketError> {
    let mut first: Option<UtcHour> = None;
    for kind in [Kind::Event, Kind::Rejected] {
        let folder = format!("{}/", prefix(kind));
        let dates = format!("{folder}dt=");
        let Some(date) = first_folder(bucket, &folder, &dates, UtcDate::parse).await? else { continue };
        let hours = format!("{folder}{}/hour=", date.partition());
        let hour = first_folder(bucket, &folder, &hours, UtcHour::parse).await?;
        first = first.into_iter().chain(hour).min();
    }
    Ok(first)
}

/// The first folder that is a partition, of a page: a thousand that are none hide it.
async fn first_folder<P>(
    bucket: &impl Bucket,
    folder: &str,
    prefix: &str,
    parse: impl Fn(&str) -> Option<P>,
) -> Result<Option<P>, BucketError> {
    let page = bucket.list(List { prefix, delimiter: Some("/"), ..List::default() }).await?;
    Ok(page.prefixes.iter().find_map(|found| parse(found.strip_prefix(folder)?.strip_suffix('/')?)))
}
