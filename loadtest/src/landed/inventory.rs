//! The landed files of a run's time, each read once, and again after it was replaced.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::Arc;

use lambda_setup::bucket::Listed;
use shared::line::Kind;
use shared::object::prefix;
use shared::timestamp::UnixMillis;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bucket::Objects;
use super::content::{self, Holdings};
use super::scan::Scanner;
use super::{LandedError, Search};
use crate::run::{unix_ms, unix_ms_of};

/// How the names of landed files end, unlike those of manifests and markers.
const SUFFIX: &str = ".jsonl.bz2";
/// How far S3's clock may be behind ours: files that were stored before the run are not read.
const CLOCK_DIFFERENCE_MS: u64 = 5 * 60 * 1_000;
/// Compressed bytes that downloads may hold together; a larger file is read alone.
const MAX_DOWNLOAD_BYTES: u32 = 64 * 1024 * 1024;
const MAX_DOWNLOADS: u32 = 16;

#[derive(Debug)]
pub(super) struct LandedObject {
    pub(super) kind: Kind,
    pub(super) etag: String,
    /// When S3 says that it was stored, in milliseconds since 1970.
    pub(super) modified_ms: u64,
    pub(super) compressed_bytes: u64,
    pub(super) holdings: Holdings,
}

/// All files as of the last look, by key.
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) scanner: Scanner,
    pub(super) objects: BTreeMap<String, LandedObject>,
}

impl Inventory {
    pub(super) fn new(prefix: &str) -> Self {
        Self { scanner: Scanner::new(prefix), objects: BTreeMap::new() }
    }

    /// Lists the hours from one before the run until now, forgets files that are gone and reads those that are new or replaced.
    /// Returns the key of a file that changed while it was read, if any: then one more look is needed.
    pub(super) async fn refresh<O: Objects>(
        &mut self,
        objects: &O,
        search: &Search<'_>,
    ) -> Result<Option<String>, LandedError> {
        let (mut known, mut unread) = (take(&mut self.objects), Vec::new());
        for (kind, listed) in list(objects, search).await? {
            match known.remove(&listed.key).filter(|object| object.etag == listed.etag) {
                Some(object) => {
                    self.objects
                        .insert(listed.key, LandedObject { modified_ms: unix_ms_of(listed.modified), ..object });
                }
                None => unread.push((kind, listed)),
            }
        }
        self.read(objects, unread).await
    }

    /// Reads several at once; returns the key of one that was not as listed, if any.
    async fn read<O: Objects>(
        &mut self,
        objects: &O,
        unread: Vec<(Kind, Listed)>,
    ) -> Result<Option<String>, LandedError> {
        let (budget, mut running) = (Arc::new(Semaphore::new(MAX_DOWNLOAD_BYTES as usize)), JoinSet::new());
        for (kind, listed) in unread {
            let bytes = u32::try_from(listed.size).unwrap_or(u32::MAX);
            let share = bytes.clamp(MAX_DOWNLOAD_BYTES / MAX_DOWNLOADS, MAX_DOWNLOAD_BYTES);
            let permit = budget.clone().acquire_many_owned(share).await;
            let read = read_one(objects.clone(), kind, listed, self.scanner.clone());
            running.spawn(async move { read.await.inspect(|_| drop(permit)) });
        }
        let mut unsettled = None;
        while let Some(done) = running.join_next().await {
            let (listed, object) = done??;
            if object.as_ref().is_none_or(|object| object.etag != listed.etag) {
                unsettled = Some(listed.key.clone());
            }
            match object {
                Some(object) => self.objects.insert(listed.key, object),
                None => self.objects.remove(&listed.key),
            };
        }
        Ok(unsettled)
    }
}

async fn read_one<O: Objects>(
    objects: O,
    kind: Kind,
    listed: Listed,
    scanner: Scanner,
) -> Result<(Listed, Option<LandedObject>), LandedError> {
    let Some(stored) = objects.get(&listed.key).await? else { return Ok((listed, None)) };
    // Decompressing keeps a core busy: not on the thread that awaits answers.
    let bytes = stored.body.clone();
    let read = tokio::task::spawn_blocking(move || content::read(kind, &bytes, &scanner)).await?;
    let holdings = read.map_err(|problem| LandedError::Content { key: listed.key.clone(), problem })?;
    let object = LandedObject {
        kind,
        etag: stored.etag,
        modified_ms: unix_ms_of(listed.modified),
        compressed_bytes: stored.body.len() as u64,
        holdings,
    };
    Ok((listed, Some(object)))
}

/// The landed files of the run's hours that were stored since it began.
async fn list<O: Objects>(objects: &O, search: &Search<'_>) -> Result<Vec<(Kind, Listed)>, LandedError> {
    let earliest_ms = search.started_unix_ms.saturating_sub(CLOCK_DIFFERENCE_MS);
    let is_of_the_run = |listed: &Listed| listed.key.ends_with(SUFFIX) && unix_ms_of(listed.modified) >= earliest_ms;
    let mut found = Vec::new();
    for (kind, prefix) in prefixes(search.started_unix_ms, unix_ms()) {
        let listed = objects.list(&prefix).await?;
        found.extend(listed.into_iter().filter(is_of_the_run).map(|listed| (kind, listed)));
    }
    Ok(found)
}

/// `events/dt=…/hour=…/` and `rejected/dt=…/hour=…/`, from the hour before the start.
fn prefixes(started_ms: u64, now_ms: u64) -> Vec<(Kind, String)> {
    let hour = |ms: u64| UnixMillis(i64::try_from(ms).unwrap_or(i64::MAX)).hour();
    let (first, last) = (hour(started_ms).plus(-1), hour(now_ms.max(started_ms)));
    let hours = (0..).map(|hours| first.plus(hours)).take_while(|hour| *hour <= last);
    let both = |hour: shared::timestamp::UtcHour| {
        [Kind::Event, Kind::Rejected].map(|kind| (kind, format!("{}/{}/", prefix(kind), hour.partition())))
    };
    hours.flat_map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const HOUR_MS: u64 = 3_600_000;
    /// 2026-11-21T00:00:00Z
    const MIDNIGHT: u64 = 1_795_219_200_000;

    #[rstest]
    #[case::at_the_hours_end(MIDNIGHT - 1, MIDNIGHT - 1, "20", &[22, 23])]
    #[case::across_midnight(MIDNIGHT - 1, MIDNIGHT, "21", &[22, 23, 0])]
    #[case::at_the_hours_start(MIDNIGHT, MIDNIGHT + HOUR_MS - 1, "21", &[23, 0])]
    #[case::a_clock_that_went_back(MIDNIGHT, MIDNIGHT - HOUR_MS, "21", &[23, 0])]
    fn the_hours_of_a_run_are_listed(#[case] started: u64, #[case] now: u64, #[case] day: &str, #[case] hours: &[u8]) {
        let prefixes = prefixes(started, now);
        let listed: Vec<&str> = prefixes.iter().map(|(_, prefix)| prefix.as_str()).collect();
        let hour = |hour: &u8| {
            let day = if *hour > 20 { "20" } else { day };
            ["events", "rejected"].map(|kind| format!("{kind}/dt=2026-11-{day}/hour={hour:02}/"))
        };
        assert_eq!(listed, hours.iter().flat_map(hour).collect::<Vec<_>>());
    }
}
