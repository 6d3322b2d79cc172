//! One run: everything that is to be sealed at one time, for as long as there is time. Hours that are held back come last; each
//! kind oldest first.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use shared::line::Kind;
use shared::object::prefix;
use shared::timestamp::{UtcDate, UtcHour};

use super::context::{Candidate, Done, Halt, Named, Outcome, Published, Reseals, Run, Sealing};
use super::plan::{closed_hours, is_closed};
use super::progress::{Marker, Replaced, Reseal};
use super::{CONCURRENCY, SealError};
use crate::bucket::{Bucket, BucketError, Condition, List, Streams, Uploads};
use crate::cloudwatch::Metrics;
use crate::manifest::{
    HELD_SUFFIX, LATE_PREFIX, Missing, PROGRESS_SUFFIX, RESEAL_SUFFIX, SEALING_PREFIX, held_key, incomplete_key,
    late_key, progress_key, reseal_key,
};

/// What a run looks at.
struct Work {
    hours: BTreeMap<UtcHour, Named>,
    /// Dates before which an earlier run stopped.
    dates: BTreeSet<UtcDate>,
}

impl<B: Bucket + Uploads, F: Bucket + Streams, M: Metrics, T: Fn() -> bool> Run<'_, B, F, M, T> {
    /// Seals everything. What is left is to report it, and then to forget why it was sealed.
    pub(super) async fn run(&self) -> Result<Done, Halt> {
        let mut work = self.work().await?;
        let mut known = self.published_of(work.hours.keys().copied().collect()).await?;
        let mut done = Done { incomplete: self.leave_out_seen(&mut work.hours, &known), ..Done::default() };
        self.oldest.set(known.iter().find(|(_, published)| published.names_missing()).map(|(hour, _)| *hour));
        // Held hours may take all the time there is, run after run: what is whole comes first.
        let (held, others): (Vec<_>, Vec<_>) = work.hours.into_iter().partition(|(_, named)| named.incomplete);
        for (hour, named) in others.into_iter().chain(held) {
            self.stop_if_due(&hour.partition()).await?;
            let published = known.entry(hour).or_default();
            self.hour(hour, named, published, &mut done).await?;
        }
        for date in self.dates(&known) {
            self.stop_if_due(&date.partition()).await?;
            self.date(date, &known, &mut done).await?;
        }
        for date in work.dates {
            self.bucket.delete(&progress_key(&date.partition())).await?;
        }
        Ok(done)
    }

    /// Leaves out the held hours that the invocations before this one have looked at, so that invocations which call one
    /// another come to an end; how many.
    fn leave_out_seen(&self, hours: &mut BTreeMap<UtcHour, Named>, known: &BTreeMap<UtcHour, Published>) -> u64 {
        let Some(partition) = &self.resumes_at else { return 0 };
        let first = UtcHour::parse(partition);
        if first.is_some_and(|first| hours.get(&first).is_none_or(|named| !named.incomplete)) {
            // All held hours come after it.
            return 0;
        }
        let before = hours.len();
        let is_sealed = |hour: &UtcHour| known.get(hour).is_some_and(|published| published.sealed().is_some());
        hours.retain(|hour, named| !named.incomplete || first.is_some_and(|first| *hour >= first) || is_sealed(hour));
        (before - hours.len()) as u64
    }

    async fn published_of(&self, hours: Vec<UtcHour>) -> Result<BTreeMap<UtcHour, Published>, SealError> {
        let mut known = BTreeMap::new();
        for hours in hours.chunks(CONCURRENCY) {
            let read = |hour: &UtcHour| {
                let partition = hour.partition();
                async move { self.published(&partition).await }
            };
            let published = try_join_all(hours.iter().map(read)).await?;
            known.extend(hours.iter().copied().zip(published));
        }
        Ok(known)
    }

    /// Stops when the time is up. The partition's marker is put, with the progress that it has, if any, and S3 invokes
    /// seal-partition again.
    async fn stop_if_due(&self, partition: &str) -> Result<(), Halt> {
        if !self.must_stop() {
            return Ok(());
        }
        let key = progress_key(partition);
        let found = self.bucket.get(&key).await?;
        let progress = found.as_ref().and_then(|found| Marker::decode(&found.body)?.progress);
        let marker = Marker::new(self.at, progress).encode()?;
        let condition = Condition::unchanged(found.as_ref().map(|found| found.etag.as_str()));
        match self.bucket.put(&key, marker, condition).await {
            // Another run has put it: that calls as well.
            Ok(_) | Err(BucketError::ConditionFailed { .. }) => Err(Halt::Stopped),
            Err(error) => Err(error.into()),
        }
    }

    /// Seals an hour if that is needed and it is whole; `published` is what there is of it then.
    async fn hour(&self, hour: UtcHour, named: Named, published: &mut Published, done: &mut Done) -> Result<(), Halt> {
        let mut candidate = self.candidate(hour, named, published).await?;
        if !candidate.needs_seal() {
            self.forget_progress(&candidate.partition(), candidate.stopped.take()).await?;
        } else if let Some(missing) = self.seal(&mut candidate).await? {
            return Ok(self.hold(&candidate, missing, done).await?);
        }
        if candidate.named.incomplete {
            self.bucket.delete(&incomplete_key(&candidate.partition())).await?;
            done.released.push(hour);
        }
        self.conclude(&candidate, done);
        *published = candidate.published;
        Ok(())
    }

    async fn candidate(&self, hour: UtcHour, named: Named, published: &Published) -> Result<Candidate, SealError> {
        let partition = hour.partition();
        let reseals = self.reseals(&named).await?;
        // Another run may have satisfied them since the hour was looked at.
        let published = if reseals.is_empty() { published.clone() } else { self.published(&partition).await? };
        let stopped = if named.progress { self.stopped(&partition, &published).await? } else { None };
        Ok(Candidate { hour, named, published, reseals, stopped })
    }

    /// Seals an hour; what is missing, if it is not whole.
    async fn seal(&self, candidate: &mut Candidate) -> Result<Option<Vec<Missing>>, Halt> {
        let terms = self.terms(candidate).await?;
        if let Some(missing) = terms.refusal() {
            self.forget_progress(&candidate.partition(), candidate.stopped.take()).await?;
            return Ok(Some(missing.to_vec()));
        }
        // A listing that has begun says nothing of what came since: a run that continues one leaves that to the next run,
        // which begins anew. So a large hour that objects trickle into is sealed all the same.
        let has_begun = candidate.stopped.as_ref().is_some_and(|stopped| stopped.progress.is_some());
        if !has_begun && (candidate.named.late || candidate.published.is_torn()) {
            self.put_reseal(candidate).await?;
        }
        let covers = candidate.reseals.keys().cloned().collect();
        let (success, covers) = match self.seal_hour(candidate, &terms, covers).await? {
            Sealing::Held(missing) => return Ok(Some(missing)),
            Sealing::Sealed { success, covers } => (success, covers),
        };
        self.note_sealed(&mut candidate.reseals, &covers).await?;
        // The ETag of `_SUCCESS` is not needed any more.
        let etags = Replaced { manifest: success.manifest.clone(), success: None };
        candidate.published = Published { success: Some(*success), etags };
        self.has_worked.set(true);
        Ok(None)
    }

    /// Notes what is to be reported of a sealed hour.
    fn conclude(&self, candidate: &Candidate, done: &mut Done) {
        let Candidate { hour, published, reseals, .. } = candidate;
        let Some(success) = published.sealed() else { return };
        let satisfied: Vec<String> =
            reseals.iter().filter(|(_, reseal)| reseal.is_sealed).map(|(key, _)| key.clone()).collect();
        if !satisfied.is_empty() || success.sealed_at == self.at.rfc3339() {
            let before = satisfied.iter().filter_map(|key| reseals[key].late_objects).min();
            let late_objects = before.map_or(0, |before| success.late_objects.saturating_sub(before));
            done.outcomes.push(Outcome { success: success.clone(), late_objects });
        }
        if !satisfied.is_empty() {
            done.reseals.insert(*hour, satisfied);
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

    /// Makes a `late/` marker into a reseal. It is put before the marker is deleted, so that the reason is always
    /// in the bucket; what comes from now on puts the marker again.
    async fn put_reseal(&self, candidate: &mut Candidate) -> Result<(), SealError> {
        let partition = candidate.partition();
        let key = reseal_key(&partition, &self.id);
        let late_objects = candidate.published.success.as_ref().map(|success| success.late_objects);
        let reseal = Reseal { late_objects, is_sealed: false };
        self.bucket.put(&key, serde_json::to_vec(&reseal)?.into(), Condition::Always).await?;
        if candidate.named.late {
            self.bucket.delete(&late_key(&partition)).await?;
        }
        candidate.reseals.insert(key, reseal);
        Ok(())
    }

    /// Notes in the bucket which reseals are satisfied: a run that comes after a crash needs no seal for them.
    async fn note_sealed(&self, reseals: &mut Reseals, covers: &[String]) -> Result<(), SealError> {
        for (key, reseal) in reseals.iter_mut().filter(|(key, reseal)| !reseal.is_sealed && covers.contains(key)) {
            reseal.is_sealed = true;
            self.bucket.put(key, serde_json::to_vec(reseal)?.into(), Condition::Always).await?;
        }
        Ok(())
    }

    /// Forgets why hours were looked at. Until then a run after a crash finds them, and their dates, however old they are.
    pub(super) async fn forget(&self, done: &Done) -> Result<(), SealError> {
        for key in done.reseals.values().flatten() {
            self.bucket.delete(key).await?;
        }
        for hour in &done.released {
            self.bucket.delete(&held_key(&hour.partition())).await?;
        }
        Ok(())
    }

    /// The hours that may have to be sealed: the closed ones, and those that `late/` and `sealing/` name.
    async fn work(&self) -> Result<Work, SealError> {
        let first = first_hour(self.bucket).await?;
        let closed = closed_hours(self.at, self.config.grace_millis(), first);
        let mut hours: BTreeMap<UtcHour, Named> = closed.into_iter().map(|hour| (hour, Named::default())).collect();
        let mut dates = BTreeSet::new();
        // Beyond a page, the next run takes the rest.
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
            } else if let Some(date) = name.strip_suffix(PROGRESS_SUFFIX).and_then(UtcDate::parse) {
                dates.insert(date);
            } else if let Some(hour) = hour_before(HELD_SUFFIX) {
                hours.entry(hour).or_default().incomplete = true;
            } else if let Some(hour) = hour_of_reseal(name) {
                hours.entry(hour).or_default().reseals.push(format!("{SEALING_PREFIX}{name}"));
            }
        }
        Ok(Work { hours, dates })
    }

    /// The dates that are over and may have to be sealed.
    fn dates(&self, known: &BTreeMap<UtcHour, Published>) -> BTreeSet<UtcDate> {
        let sealed = known.iter().filter(|(_, published)| published.sealed().is_some());
        let dates = sealed.map(|(hour, _)| hour.date());
        dates.filter(|date| is_closed(date.hour(23), self.at, self.config.grace_millis())).collect()
    }
}

/// `dt=2026-11-21/hour=09.<id of the run>.late`
fn hour_of_reseal(name: &str) -> Option<UtcHour> {
    let name = name.strip_suffix(RESEAL_SUFFIX)?;
    // Earlier versions had one for each hour, without an id.
    UtcHour::parse(name.split_once('.').map_or(name, |(hour, _)| hour))
}

/// The first hour that anything landed in.
pub(crate) async fn first_hour(bucket: &impl Bucket) -> Result<Option<UtcHour>, BucketError> {
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

/// The first folder that is a partition. A thousand others before it would hide it.
async fn first_folder<P>(
    bucket: &impl Bucket,
    folder: &str,
    prefix: &str,
    parse: impl Fn(&str) -> Option<P>,
) -> Result<Option<P>, BucketError> {
    let page = bucket.list(List { prefix, delimiter: Some("/"), ..List::default() }).await?;
    Ok(page.prefixes.iter().find_map(|found| parse(found.strip_prefix(folder)?.strip_suffix('/')?)))
}
