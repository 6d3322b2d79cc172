//! One run: everything that is to be sealed at one time, oldest first, as far as the time reaches.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use shared::object::{prefix, success_key};
use shared::timestamp::{UnixMillis, UtcDate, UtcHour};

use super::SealError;
use super::plan::{closed_hours, is_closed};
use super::progress::{Before, Marker, Resealing};
use crate::bucket::{Bucket, BucketError, Condition, List, Uploads};
use crate::manifest::{
    LATE_PREFIX, PROGRESS_SUFFIX, RESEALING_SUFFIX, SEALING_PREFIX, Success, late_key, progress_key, resealing_key,
};
use shared::line::Kind;

/// Requests that are under way at once.
pub(super) const CONCURRENCY: usize = 64;

/// What a run works with.
pub(super) struct Run<'a, B, T> {
    pub(super) bucket: &'a B,
    /// The time of the event that it began with.
    pub(super) at: UnixMillis,
    pub(super) grace_millis: i64,
    /// Bytes of a manifest that are uploaded at once.
    pub(super) part_bytes: usize,
    pub(super) time_is_up: &'a T,
    /// Whether this run has moved anything forward: it stops no earlier, so that runs that call one another come to an end.
    pub(super) has_worked: Cell<bool>,
}

/// A partition's `_SUCCESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) etag: String,
    /// `None` for one that is not ours: the partition is sealed over it.
    pub(super) success: Option<Success>,
}

/// A partition that was sealed in this run, or in one before that did not come to report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) success: Success,
    /// Objects that came since the seal before.
    pub(super) late_objects: u64,
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
    pub(super) resealings: BTreeMap<UtcHour, Resealing>,
}

/// What the bucket says of an hour that may be to be sealed.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) late: bool,
    pub(super) resealing: bool,
    pub(super) progress: bool,
}

impl<B: Bucket + Uploads, T: Fn() -> bool> Run<'_, B, T> {
    pub(super) async fn run(&self) -> Result<Ended, SealError> {
        let named = self.named().await?;
        let hours: Vec<UtcHour> = named.keys().copied().collect();
        let mut known: BTreeMap<UtcHour, Sealed> = BTreeMap::new();
        for hours in hours.chunks(CONCURRENCY) {
            let sealed = try_join_all(hours.iter().map(|hour| self.sealed(hour.partition()))).await?;
            known.extend(hours.iter().copied().zip(sealed).filter_map(|(hour, sealed)| Some((hour, sealed?))));
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
        for date in self.dates(&known, &done) {
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

    /// Seals an hour if that is needed; `false` if the time was up.
    async fn hour(
        &self,
        hour: UtcHour,
        named: &Named,
        known: &mut BTreeMap<UtcHour, Sealed>,
        done: &mut Done,
    ) -> Result<bool, SealError> {
        let resealing = self.resealing(hour, named, known.get(&hour)).await?;
        let is_sealed = known.get(&hour).is_some_and(|sealed| sealed.success.is_some());
        let is_stale = |resealing: &Resealing| resealing.replaces == known.get(&hour).map(|sealed| sealed.etag.clone());
        if !is_sealed || named.late || resealing.as_ref().is_some_and(is_stale) {
            let before = resealing.as_ref().and_then(|resealing| resealing.before.clone());
            let Some(sealed) = self.seal_hour(hour, named, before).await? else { return Ok(false) };
            known.insert(hour, sealed);
            self.has_worked.set(true);
        } else if named.progress {
            self.forget_progress(hour).await?;
        }
        if let Some(Sealed { success: Some(success), .. }) = known.get(&hour)
            && (resealing.is_some() || success.sealed_at == self.at.rfc3339())
        {
            let before = resealing.as_ref().and_then(|resealing| resealing.before.as_ref());
            let late_objects = before.map_or(0, |before| success.late_objects.saturating_sub(before.late_objects));
            done.outcomes.push(Outcome { success: success.clone(), late_objects });
        }
        done.resealings.extend(resealing.map(|resealing| (hour, resealing)));
        Ok(true)
    }

    /// Why an hour is sealed anew. A `late/` marker is made into one first and deleted then, so that the reason is at no
    /// moment nowhere, and what comes from now on puts the marker again.
    async fn resealing(
        &self,
        hour: UtcHour,
        named: &Named,
        sealed: Option<&Sealed>,
    ) -> Result<Option<Resealing>, SealError> {
        let partition = hour.partition();
        let key = resealing_key(&partition);
        let mut earlier = None;
        if named.resealing {
            let content = self.bucket.get(&key).await?;
            earlier = content.and_then(|content| serde_json::from_slice::<Resealing>(&content.body).ok());
        }
        if !named.late {
            return Ok(earlier);
        }
        // What was late before is not reported yet: it stays counted from there.
        let before = earlier.and_then(|earlier| earlier.before);
        let before = before.or_else(|| sealed.and_then(|sealed| sealed.success.as_ref()).map(Before::of));
        let resealing = Resealing { replaces: sealed.map(|sealed| sealed.etag.clone()), before };
        self.bucket.put(&key, serde_json::to_vec(&resealing)?.into(), Condition::Always).await?;
        self.bucket.delete(&late_key(&partition)).await?;
        Ok(Some(resealing))
    }

    /// Forgets why hours were sealed anew, unless there is another reason by now.
    pub(super) async fn forget(&self, resealings: BTreeMap<UtcHour, Resealing>) -> Result<(), SealError> {
        for (hour, resealing) in resealings {
            let key = resealing_key(&hour.partition());
            let Some(content) = self.bucket.get(&key).await? else { continue };
            if serde_json::from_slice::<Resealing>(&content.body).is_ok_and(|found| found == resealing) {
                self.bucket.delete(&key).await?;
            }
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
            Ok(()) | Err(BucketError::ConditionFailed { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The hours that may be to be sealed: the closed ones, and those that `late/` and `sealing/` name.
    async fn named(&self) -> Result<BTreeMap<UtcHour, Named>, SealError> {
        let first = first_hour(self.bucket).await?;
        let closed = closed_hours(self.at, self.grace_millis, first);
        let mut hours: BTreeMap<UtcHour, Named> = closed.into_iter().map(|hour| (hour, Named::default())).collect();
        // With more than a page, the next run takes the rest.
        let late = self.bucket.list(List { prefix: LATE_PREFIX, ..List::default() }).await?;
        for hour in late.objects.iter().filter_map(|late| UtcHour::parse(late.key.strip_prefix(LATE_PREFIX)?)) {
            if is_closed(hour, self.at, self.grace_millis) {
                hours.entry(hour).or_default().late = true;
            }
        }
        let sealing = self.bucket.list(List { prefix: SEALING_PREFIX, ..List::default() }).await?;
        for name in sealing.objects.iter().filter_map(|sealing| sealing.key.strip_prefix(SEALING_PREFIX)) {
            let hour_before = |suffix| UtcHour::parse(name.strip_suffix(suffix)?);
            if let Some(hour) = hour_before(PROGRESS_SUFFIX) {
                hours.entry(hour).or_default().progress = true;
            } else if let Some(hour) = hour_before(RESEALING_SUFFIX) {
                hours.entry(hour).or_default().resealing = true;
            }
        }
        Ok(hours)
    }

    /// The dates that are over and may be to be sealed.
    fn dates(&self, known: &BTreeMap<UtcHour, Sealed>, done: &Done) -> BTreeSet<UtcDate> {
        let hours = known.keys().chain(done.resealings.keys());
        hours.map(|hour| hour.date()).filter(|date| is_closed(date.hour(23), self.at, self.grace_millis)).collect()
    }

    pub(super) async fn sealed(&self, partition: String) -> Result<Option<Sealed>, SealError> {
        let content = self.bucket.get(&success_key(&partition)).await?;
        Ok(content.map(|content| Sealed { success: serde_json::from_slice(&content.body).ok(), etag: content.etag }))
    }
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
