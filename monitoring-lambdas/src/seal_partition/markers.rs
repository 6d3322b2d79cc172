//! The small objects under `late/` and `sealing/` by which check-object, check-deletions and the runs of seal-partition ask
//! for seals.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shared::line::Kind;
use shared::object::prefix;
use shared::timestamp::{UtcDate, UtcHour};

use super::SealError;
use super::context::Run;
use crate::cloudwatch::Metrics;
use crate::manifest::{CHECKPOINT_SUFFIX, HELD_SUFFIX, LATE_PREFIX, RESEAL_SUFFIX, SEALING_PREFIX};
use crate::rules::partition::Partition;
use crate::rules::recency::{closed_hours, is_closed};
use lambda_setup::bucket::{Bucket, BucketError, List, Streams, Uploads};

/// What a key under `late/` or `sealing/` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// An object of the hour landed after the hour's time to be sealed.
    Late(UtcHour),
    /// A run stopped in or before the partition.
    Checkpoint(Partition),
    /// The hour has an `_INCOMPLETE`.
    Held(UtcHour),
    /// The hour is to be sealed again.
    Reseal(UtcHour),
}

impl Marker {
    pub(super) fn parse(key: &str) -> Option<Self> {
        if let Some(late) = key.strip_prefix(LATE_PREFIX) {
            return UtcHour::parse(late).map(Self::Late);
        }
        let name = key.strip_prefix(SEALING_PREFIX)?;
        if let Some(partition) = name.strip_suffix(CHECKPOINT_SUFFIX) {
            return Partition::parse(partition).map(Self::Checkpoint);
        }
        if let Some(hour) = name.strip_suffix(HELD_SUFFIX) {
            return UtcHour::parse(hour).map(Self::Held);
        }
        let name = name.strip_suffix(RESEAL_SUFFIX)?;
        // Earlier versions had one for each hour, without the id of a run.
        UtcHour::parse(name.split_once('.').map_or(name, |(hour, _)| hour)).map(Self::Reseal)
    }
}

/// The markers of an hour.
#[derive(Debug, Clone, Default)]
pub(super) struct Markers {
    pub(super) late: bool,
    pub(super) checkpoint: bool,
    pub(super) held: bool,
    /// The keys of its reseals.
    pub(super) reseals: Vec<String>,
}

/// A request for another seal. It is put before the `late/` marker is deleted, which happens
/// before the hour is listed; only a seal whose listing began later satisfies it, and it stays until that seal is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reseal {
    /// Of the `_SUCCESS` that was there, if there was one: what has come since is to be reported.
    pub(super) late_objects: Option<u64>,
    pub(super) is_sealed: bool,
}

/// What a run has to look at.
pub(super) struct Work {
    pub(super) hours: BTreeMap<UtcHour, Markers>,
    /// Dates before which an earlier run stopped.
    pub(super) dates: BTreeSet<UtcDate>,
}

impl Work {
    fn add(&mut self, marker: Marker, key: String) {
        match marker {
            Marker::Late(hour) => self.hours.entry(hour).or_default().late = true,
            Marker::Checkpoint(Partition::Hour(hour)) => self.hours.entry(hour).or_default().checkpoint = true,
            Marker::Checkpoint(Partition::Date(date)) => _ = self.dates.insert(date),
            Marker::Held(hour) => self.hours.entry(hour).or_default().held = true,
            Marker::Reseal(hour) => self.hours.entry(hour).or_default().reseals.push(key),
        }
    }
}

impl<B: Uploads, F: Streams, M: Metrics> Run<'_, B, F, M> {
    /// The hours that may have to be sealed, the closed ones and those with markers; and the dates with markers.
    pub(super) async fn work(&self) -> Result<Work, SealError> {
        let grace = self.config.grace_millis();
        let closed = closed_hours(self.at, grace, first_hour(self.bucket).await?);
        let hours = closed.into_iter().map(|hour| (hour, Markers::default())).collect();
        let mut work = Work { hours, dates: BTreeSet::new() };
        for prefix in [LATE_PREFIX, SEALING_PREFIX] {
            // Beyond a page, the next run takes the rest.
            let page = self.bucket.list(List { prefix, ..List::default() }).await?;
            for key in page.objects.into_iter().map(|listed| listed.key) {
                match Marker::parse(&key) {
                    Some(Marker::Late(hour)) if !is_closed(hour, self.at, grace) => {}
                    Some(marker) => work.add(marker, key),
                    None => {}
                }
            }
        }
        Ok(work)
    }
}

/// The first hour that anything landed in.
pub async fn first_hour(bucket: &impl Bucket) -> Result<Option<UtcHour>, BucketError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{checkpoint_key, held_key, late_key, reseal_key};
    use rstest::rstest;

    fn hour() -> UtcHour {
        UtcHour::parse("dt=2026-11-21/hour=09").unwrap()
    }

    #[test]
    fn marker_keys_round_trip() {
        let (hour, partition, date) = (hour(), hour().partition(), hour().date());
        assert_eq!(Marker::parse(&late_key(&partition)), Some(Marker::Late(hour)));
        assert_eq!(Marker::parse(&held_key(&partition)), Some(Marker::Held(hour)));
        assert_eq!(Marker::parse(&reseal_key(&partition, "0a")), Some(Marker::Reseal(hour)));
        assert_eq!(Marker::parse("sealing/dt=2026-11-21/hour=09.late"), Some(Marker::Reseal(hour)));
        let checkpoint = |partition: Partition| Marker::parse(&checkpoint_key(&partition.text()));
        for partition in [Partition::Hour(hour), Partition::Date(date)] {
            assert_eq!(checkpoint(partition), Some(Marker::Checkpoint(partition)));
        }
    }

    #[rstest]
    #[case("late/dt=2026-11-21")]
    #[case("sealing/dt=2026-11-21.incomplete")]
    #[case("sealing/dt=2026-11-21/hour=24.json")]
    #[case("sealing/dt=2026-11-21/hour=09")]
    #[case("events/dt=2026-11-21/hour=09")]
    fn other_keys_are_not_markers(#[case] key: &str) {
        assert_eq!(Marker::parse(key), None);
    }
}
