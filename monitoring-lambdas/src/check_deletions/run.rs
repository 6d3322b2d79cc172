//! One run: the hours of the last seven days, oldest first, for as long as there is time.

use std::collections::BTreeMap;

use lambda_setup::deadline::Deadline;
use shared::object::{ObjectKey, ObjectMetadata, manifest_key, success_key};
use shared::timestamp::{UnixMillis, UtcHour};

use super::CheckDeletionsError;
use super::comparison::{Compared, compare, compare_replaced};
use super::manifest_lines::Entries;
use super::report::{Missing, Report, State};
use crate::manifest::{deleted_key, late_key};
use lambda_setup::bucket::{BucketError, Condition, Streams};

/// Hours that are compared: a day less than the shortest time that the lifecycle keeps files.
const WINDOW_HOURS: i64 = 7 * 24;

/// What a run works with.
pub(super) struct Run<'a, B> {
    pub(super) bucket: &'a B,
    /// The time of the event that it began with.
    pub(super) at: UnixMillis,
    /// No hour but the first is begun after it.
    pub(super) deadline: Deadline,
    /// The hours that had a report before.
    pub(super) reported: Vec<UtcHour>,
    /// The manifests of each hour that others replaced since they were compared.
    pub(super) replaced: BTreeMap<UtcHour, Vec<String>>,
}

impl<B: Streams> Run<'_, B> {
    fn oldest(&self) -> UtcHour {
        self.at.hour().plus(-WINDOW_HOURS)
    }

    /// Compares the hours from where the last run stopped to the newest closed one. Returns the first problem: one hour's keeps
    /// no other from being compared.
    pub(super) async fn compare_hours(&self, state: &mut State) -> Option<CheckDeletionsError> {
        let (oldest, end) = (self.oldest(), self.at.hour());
        state.forget_before(oldest);
        let first = state.take_next().filter(|next| (oldest..end).contains(next)).unwrap_or(oldest);
        let mut first_problem = None;
        let mut hour = first;
        while hour < end {
            let next = hour.plus(1);
            let compared = self.deadline.bound(self.deadline.remaining(), self.compare_hour(hour, state)).await;
            let problem = match compared {
                Ok(compared) => compared.err(),
                // The next run begins with it, and has all the time there is.
                Err(_) if hour > first => {
                    stop_before(hour, state);
                    return first_problem;
                }
                Err(source) => Some(CheckDeletionsError::TooLong { partition: hour.partition(), source }),
            };
            if let Some(problem) = problem {
                tracing::error!(%problem, "an hour was not compared");
                first_problem.get_or_insert(problem);
            }
            if next < end && self.deadline.remaining().is_zero() {
                stop_before(next, state);
                break;
            }
            hour = next;
        }
        first_problem
    }

    /// Compares an hour, if it was ever sealed, and writes its report or removes it.
    async fn compare_hour(&self, hour: UtcHour, state: &mut State) -> Result<(), CheckDeletionsError> {
        let partition = hour.partition();
        let is_reported = self.reported.contains(&hour);
        let mut earlier = if is_reported { Report::read(self.bucket, &partition).await? } else { None };
        for key in self.replaced.get(&hour).into_iter().flatten() {
            earlier = self.compare_replaced(hour, key, earlier).await?;
        }
        let entries = self.bucket.open(&manifest_key(&partition)).await?.map(|(_, stream)| Entries::new(stream));
        let was_sealed = state.objects(&partition) > 0 || earlier.is_some() || self.replaced.contains_key(&hour);
        if !was_sealed && (entries.is_none() || self.bucket.head(&success_key(&partition)).await?.is_none()) {
            return Ok(());
        }
        let compared = compare(self.bucket, hour, entries).await?;
        if compared.is_outdated {
            self.request_seal(&partition).await?;
        }
        let sealed = state.note(&partition, compared.sealed);
        let fewer = sealed.saturating_sub(compared.listed);
        let mut report = self.report(&partition, compared, earlier.as_ref()).await?;
        report.missing_objects = report.missing_objects.max(fewer);
        self.store(report, earlier).await?;
        Ok(())
    }

    /// Adds what is gone of a manifest that another has replaced to the report, and deletes the manifest: a run that has no
    /// time for all of them is nearer to the end. Returns the report.
    async fn compare_replaced(
        &self,
        hour: UtcHour,
        key: &str,
        earlier: Option<Report>,
    ) -> Result<Option<Report>, CheckDeletionsError> {
        let Some((_, stream)) = self.bucket.open(key).await? else { return Ok(earlier) };
        let compared = compare_replaced(self.bucket, hour, Entries::new(stream)).await?;
        let report = self.report(&hour.partition(), compared, earlier.as_ref()).await?;
        let report = self.store(report, earlier).await?;
        self.bucket.delete(key).await?;
        Ok(report)
    }

    /// Puts the marker that check-object puts when an object lands late.
    async fn request_seal(&self, partition: &str) -> Result<(), BucketError> {
        tracing::warn!(partition, "the manifest is out of date; the hour is sealed again");
        self.bucket.put(&late_key(partition), bytes::Bytes::new(), Condition::Always).await?;
        Ok(())
    }

    /// What is missing by the hour's manifest, and of what was reported before, which a new seal leaves out. When a report is
    /// full, earlier ones may be counted already and are not counted again.
    async fn report(
        &self,
        partition: &str,
        compared: Compared,
        earlier: Option<&Report>,
    ) -> Result<Report, BucketError> {
        let found_at = earlier.map_or(self.at, |earlier| earlier.found_at);
        let mut report = Report::new(partition, found_at, compared.missing_objects, compared.missing);
        if report.is_full() {
            return Ok(report);
        }
        for missing in earlier.into_iter().flat_map(|earlier| &earlier.missing) {
            if !report.names(&missing.key) && !self.is_back(missing).await? {
                report.add(missing.clone());
            }
        }
        Ok(report)
    }

    /// Whether an object is there, and still one of ours: something else may have overwritten it.
    async fn is_back(&self, missing: &Missing) -> Result<bool, BucketError> {
        let Some(head) = self.bucket.head(&missing.key).await? else { return Ok(false) };
        let is_landed = |key: ObjectKey| ObjectMetadata::from_entries(&key.name, &head.metadata).is_ok();
        Ok(ObjectKey::parse(&missing.key).is_none_or(is_landed))
    }

    /// Writes a report, or removes it when nothing is missing any more. Returns what is stored afterwards.
    async fn store(&self, report: Report, earlier: Option<Report>) -> Result<Option<Report>, CheckDeletionsError> {
        let key = deleted_key(&report.partition);
        if report.missing_objects == 0 {
            if earlier.is_some() {
                tracing::info!(partition = report.partition, "everything that was missing is back");
                self.bucket.delete(&key).await?;
            }
            return Ok(None);
        }
        report.log();
        if earlier.as_ref() != Some(&report) {
            self.bucket.put(&key, serde_json::to_vec(&report)?.into(), Condition::Always).await?;
        }
        Ok(Some(report))
    }

    /// Checks whether objects of hours that are no longer compared are back. Their lifecycle may have begun: earlier manifests
    /// no longer count.
    pub(super) async fn recheck_old_reports(&self) -> Result<(), CheckDeletionsError> {
        let oldest = self.oldest();
        for key in self.replaced.range(..oldest).flat_map(|(_, keys)| keys) {
            self.bucket.delete(key).await?;
        }
        for hour in self.reported.iter().filter(|hour| **hour < oldest) {
            if self.deadline.remaining().is_zero() {
                break;
            }
            if let Some(earlier) = Report::read(self.bucket, &hour.partition()).await? {
                self.recheck(earlier).await?;
            }
        }
        Ok(())
    }

    /// Checks the report's keys alone: the lifecycle may have begun to delete the hour, so its manifest no longer counts. What
    /// is not back stays reported, whether S3 still has it or not: only a person can accept the loss.
    async fn recheck(&self, earlier: Report) -> Result<(), CheckDeletionsError> {
        let mut report = earlier.clone();
        report.missing.clear();
        for missing in &earlier.missing {
            if !self.is_back(missing).await? {
                report.missing.push(missing.clone());
            }
        }
        let back = earlier.missing.len() - report.missing.len();
        report.missing_objects = report.missing_objects.saturating_sub(back as u64);
        self.store(report, Some(earlier)).await?;
        Ok(())
    }
}

fn stop_before(hour: UtcHour, state: &mut State) {
    tracing::info!(hour = hour.partition(), "the time is up; the next run continues here");
    state.set_next(hour);
}
