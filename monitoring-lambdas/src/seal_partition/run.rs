//! One run: everything that is to be sealed at one time, for as long as there is time. Hours that are held back come last; each
//! kind oldest first.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use shared::timestamp::{UtcDate, UtcHour};

use super::checkpoint::{Checkpoint, Found};
use super::context::{Done, Interrupt, Outcome, Run};
use super::hour::Sealing;
use super::markers::Markers;
use super::published::{ETags, Published};
use super::state::HourState;
use super::{CONCURRENCY, SealError};
use crate::cloudwatch::Metrics;
use crate::manifest::{Missing, checkpoint_key, held_key, incomplete_key};
use crate::rules::partition::Partition;
use crate::rules::recency::is_closed;
use lambda_setup::bucket::{BucketError, Condition, Streams, Uploads};

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    /// Seals everything. It remains to report that, and then to [`forget`](Self::forget) the markers.
    pub(super) async fn run(&self) -> Result<Done, Interrupt> {
        let mut work = self.work().await?;
        let mut known = self.published_of(work.hours.keys().copied().collect()).await?;
        let mut done = Done { incomplete: self.leave_out_seen(&mut work.hours, &known), ..Done::default() };
        self.oldest.set(known.iter().find(|(_, published)| !published.was_whole()).map(|(hour, _)| *hour));
        // Held hours may take all the time there is, run after run: what is whole comes first.
        let (held, others): (Vec<_>, Vec<_>) = work.hours.into_iter().partition(|(_, markers)| markers.held);
        for (hour, markers) in others.into_iter().chain(held) {
            self.stop_if_out_of_time(Partition::Hour(hour)).await?;
            let published = known.entry(hour).or_default();
            self.hour(hour, markers, published, &mut done).await?;
        }
        for date in self.dates(&known) {
            self.stop_if_out_of_time(Partition::Date(date)).await?;
            self.date(date, &known, &mut done).await?;
        }
        for date in work.dates {
            self.bucket.delete(&checkpoint_key(&date.partition())).await?;
        }
        Ok(done)
    }

    /// Leaves out the held hours that earlier invocations of this run have checked, so that a run in pieces ends; how many.
    fn leave_out_seen(&self, hours: &mut BTreeMap<UtcHour, Markers>, known: &BTreeMap<UtcHour, Published>) -> u64 {
        let first_held = match self.resumes_at {
            None => return 0,
            Some(Partition::Hour(hour)) if hours.get(&hour).is_some_and(|markers| markers.held) => Some(hour),
            // All held hours come after it.
            Some(Partition::Hour(_)) => return 0,
            // All held hours come before it.
            Some(Partition::Date(_)) => None,
        };
        let before = hours.len();
        let is_sealed = |hour: &UtcHour| known.get(hour).is_some_and(|published| published.sealed().is_some());
        let is_left = |hour: &UtcHour| first_held.is_some_and(|first| *hour >= first);
        hours.retain(|hour, markers| !markers.held || is_left(hour) || is_sealed(hour));
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

    /// The dates that are over and may have to be sealed.
    fn dates(&self, known: &BTreeMap<UtcHour, Published>) -> BTreeSet<UtcDate> {
        let sealed = known.iter().filter(|(_, published)| published.sealed().is_some());
        let dates = sealed.map(|(hour, _)| hour.date());
        dates.filter(|date| is_closed(date.hour(23), self.at, self.config.grace_millis())).collect()
    }

    /// Stops before a partition when the time is up: puts the partition's checkpoint, with the draft that it has, if any, and S3
    /// invokes seal-partition again.
    async fn stop_if_out_of_time(&self, partition: Partition) -> Result<(), Interrupt> {
        if !self.is_out_of_time() {
            return Ok(());
        }
        let key = checkpoint_key(&partition.text());
        let found = self.bucket.get(&key).await?.as_ref().map(Found::new);
        let condition = Condition::unchanged(found.as_ref().map(|found| found.etag.as_str()));
        let draft = found.as_ref().and_then(|found| found.draft.clone());
        let checkpoint = Checkpoint { at: self.at, draft }.encode()?;
        match self.bucket.put(&key, checkpoint, condition).await {
            // Another run has put it: that invokes as well.
            Ok(_) | Err(BucketError::ConditionFailed { .. }) => Err(Interrupt::OutOfTime),
            Err(error) => Err(error.into()),
        }
    }

    /// Seals an hour if necessary, and if it is whole; updates `published`.
    async fn hour(
        &self,
        hour: UtcHour,
        markers: Markers,
        published: &mut Published,
        done: &mut Done,
    ) -> Result<(), Interrupt> {
        let mut state = self.state(hour, markers, published).await?;
        if !state.needs_seal() {
            self.drop_checkpoint(&mut state).await?;
        } else if let Some(missing) = self.seal(&mut state).await? {
            return Ok(self.hold(&state, missing, done).await?);
        }
        if state.markers.held {
            self.bucket.delete(&incomplete_key(&state.partition())).await?;
            done.released.push(hour);
        }
        self.conclude(&state, done);
        *published = state.published;
        Ok(())
    }

    /// Seals an hour; what is missing, if it is not whole.
    async fn seal(&self, state: &mut HourState) -> Result<Option<Vec<Missing>>, Interrupt> {
        let assessment = self.assess(state).await?;
        if let Some(missing) = assessment.refusal() {
            self.drop_checkpoint(state).await?;
            return Ok(Some(missing.to_vec()));
        }
        if state.needs_reseal() {
            self.put_reseal(state).await?;
        }
        let (success, satisfied) = match self.seal_hour(state, &assessment).await? {
            Sealing::Held(missing) => return Ok(Some(missing)),
            Sealing::Sealed { success, reseals } => (success, reseals),
        };
        self.note_satisfied(state, &satisfied).await?;
        // The ETag of `_SUCCESS` is not needed any more.
        let etags = ETags { manifest: success.manifest.clone(), success: None };
        state.published = Published { success: Some(*success), etags };
        self.has_worked.set(true);
        Ok(None)
    }

    /// Adds a sealed hour to the report.
    fn conclude(&self, state: &HourState, done: &mut Done) {
        let Some(success) = state.published.sealed() else { return };
        let satisfied: BTreeMap<_, _> = state.reseals.iter().filter(|(_, reseal)| reseal.is_sealed).collect();
        if !satisfied.is_empty() || success.sealed_at == self.at {
            let before = satisfied.values().filter_map(|reseal| reseal.late_objects).min();
            let late_objects = before.map_or(0, |before| success.late_objects.saturating_sub(before));
            done.outcomes.push(Outcome { success: success.clone(), late_objects });
        }
        if !satisfied.is_empty() {
            done.reseals.insert(state.hour, satisfied.into_keys().cloned().collect());
        }
    }

    /// Deletes the markers of what was reported. Until then a run after a crash finds the hours, and their dates, however old they
    /// are.
    pub(super) async fn forget(&self, done: &Done) -> Result<(), SealError> {
        for key in done.reseals.values().flatten() {
            self.bucket.delete(key).await?;
        }
        for hour in &done.released {
            self.bucket.delete(&held_key(&hour.partition())).await?;
        }
        Ok(())
    }
}
