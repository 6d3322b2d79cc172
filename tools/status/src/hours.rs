//! The last 48 hours, read with few requests: a listing of an hour's files that begin with an underscore says whether any
//! changed, and `_SUCCESS` has the sums of manifests that may be many megabytes.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use lambda_setup::bucket::{BucketError, List, Listed};
use monitoring_lambdas::manifest::{Incomplete, Success, Totals};
use monitoring_lambdas::rules::partition::Partition;
use monitoring_lambdas::rules::rejected::Lines;
use monitoring_lambdas::rules::size::{self, Limits, Outcome, Rule, Sizes};
use monitoring_lambdas::seal_partition;
use monitoring_lambdas::success;
use serde::Deserialize;
use shared::timestamp::{UnixMillis, UtcHour};

use crate::hour_state::{self, Due, Facts, Mark, State};
use crate::size_band::{self, Band};
use crate::store::{Counted, Store};
use lambda_setup::bucket::Streams;

/// Hours that are shown, with the current one.
pub(crate) const HOURS: i64 = 48;
/// The newest hours, which change, are looked at each time; of the others so many, in turn.
const NEWEST: i64 = 3;
const IN_TURN: usize = 4;
/// Requests at once.
const AT_ONCE: usize = 8;
/// Sizes of earlier hours that are read in one look: what is shown first must not wait for them.
const HISTORY_A_LOOK: usize = 48;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HoursError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Success(#[from] success::SuccessError),
    #[error("{key} can't be read: {source}")]
    Malformed { key: String, source: serde_json::Error },
}

/// What is known of an hour, and the files that it was read from.
#[derive(Debug, Clone, Default)]
struct Known {
    facts: Facts,
    success_etag: Option<String>,
    incomplete_etag: Option<String>,
    /// Why the last look at it failed: what was read before it is not shown as if it still held.
    problem: Option<String>,
}

pub(crate) struct Hours {
    limits: Limits,
    due: Due,
    known: BTreeMap<UtcHour, Known>,
    first: Option<UtcHour>,
    /// Bytes of hours that others are compared with; `None` where there is no `_SUCCESS`.
    history: BTreeMap<UtcHour, Option<u64>>,
    turn: usize,
    unread_history: Vec<String>,
}

/// An hour, as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Hour {
    pub(crate) hour: UtcHour,
    pub(crate) state: State,
    pub(crate) marks: Vec<Mark>,
    pub(crate) facts: Facts,
    pub(crate) problem: Option<String>,
    /// `None` until its history is read.
    pub(crate) size: Option<Size>,
}

#[derive(Debug, Clone)]
pub(crate) struct Size {
    pub(crate) sizes: Sizes,
    pub(crate) band: Option<Band>,
    pub(crate) judged: Vec<(Rule, Outcome)>,
}

/// What is read of `columnar/dt=…/hour=…/_SUCCESS`.
#[derive(Deserialize)]
struct Compacted {
    manifest: String,
}

impl Hours {
    pub(crate) fn new(limits: Limits, due: Due) -> Self {
        let (known, history) = (BTreeMap::new(), BTreeMap::new());
        Self { limits, due, known, first: None, history, turn: 0, unread_history: Vec::new() }
    }

    /// The first hour that anything landed in.
    pub(crate) const fn first(&self) -> Option<UtcHour> {
        self.first
    }

    /// Looks at the hours that may have changed; at all of them the first time.
    pub(crate) async fn look<B: Streams>(&mut self, store: &Counted<B>, now: UnixMillis) -> Result<(), HoursError> {
        let last = now.hour();
        self.known.retain(|hour, _| *hour > last.plus(-HOURS));
        if self.first.is_none() {
            self.first = seal_partition::first_hour(store).await?;
        }
        let due = self.looked_at(last);
        let known = |hour: &UtcHour| self.known.get(hour).cloned().unwrap_or_default();
        let reads = due.iter().map(|hour| {
            let known = known(hour);
            async move { (*hour, read(store, *hour, known).await) }
        });
        let found: Vec<(UtcHour, Known)> = stream::iter(reads).buffer_unordered(AT_ONCE).collect().await;
        self.known.extend(found);
        self.turn = self.turn.wrapping_add(IN_TURN);
        self.look_back(store).await;
        Ok(())
    }

    fn looked_at(&self, last: UtcHour) -> Vec<UtcHour> {
        let all: Vec<UtcHour> = (0..HOURS).map(|back| last.plus(-back)).collect();
        let is_new = |hour: &UtcHour| !self.known.contains_key(hour) || *hour > last.plus(-NEWEST);
        let mut due: Vec<UtcHour> = all.iter().copied().filter(is_new).collect();
        // One that has a problem, or is sealed and not compacted, is about to change.
        let changes = |known: &Known| known.problem.is_some() || !hour_state::is_compacted(&known.facts);
        let restless = self.known.iter().rev().filter(|(_, known)| changes(known)).map(|(hour, _)| *hour).take(IN_TURN);
        let in_turn = (0..IN_TURN).map(|number| all[(self.turn + number) % all.len()]);
        due.extend(restless.chain(in_turn));
        due.sort();
        due.dedup();
        due
    }

    /// Reads sizes that are still missing, those of the newest hours first.
    async fn look_back<B: Streams>(&mut self, store: &Counted<B>) {
        let sealed = self.known.iter().rev().filter(|(_, known)| known.facts.success.is_some());
        let wanted = sealed.flat_map(|(hour, _)| references(*hour));
        let mut missing: Vec<UtcHour> = wanted.filter(|hour| self.bytes(*hour).is_none()).collect();
        missing.truncate(HISTORY_A_LOOK * 2);
        missing.sort();
        missing.dedup();
        missing.reverse();
        missing.truncate(HISTORY_A_LOOK);
        let reads = missing.into_iter().map(|hour| async move {
            match success::read(store, Partition::Hour(hour)).await {
                Ok(success) => Ok((hour, success.map(|success| success.totals.bytes))),
                // As in check-size: what can't be read is left out of the comparison.
                Err(error) if error.is_content() => Ok((hour, None)),
                Err(error) => Err((hour, error)),
            }
        });
        let found: Vec<Result<_, _>> = stream::iter(reads).buffer_unordered(AT_ONCE).collect().await;
        let mut unread = Vec::new();
        for read in found {
            match read {
                Ok((hour, bytes)) => drop(self.history.insert(hour, bytes)),
                // Only what is compared with it is not known: the next look tries again.
                Err((hour, error)) => unread.push(format!("{hour}: {error}", hour = hour.partition())),
            }
        }
        if let Some(oldest) = self.known.keys().next().map(|hour| hour.plus(-24 * 7 * 9)) {
            self.history.retain(|hour, _| *hour >= oldest);
        }
        self.unread_history = unread;
    }

    /// Why earlier hours that others are compared with could not be read, the first of them.
    pub(crate) fn unread_history(&self) -> Option<String> {
        let first = self.unread_history.first()?;
        Some(format!("{} of the hours that others are compared with, such as {first}", self.unread_history.len()))
    }

    /// The bytes of an earlier hour; the outer `None` while they are not read.
    fn bytes(&self, hour: UtcHour) -> Option<Option<u64>> {
        if self.first.is_some_and(|first| hour < first) {
            return Some(None);
        }
        match self.known.get(&hour) {
            Some(known) => Some(known.facts.success.as_ref().map(|success| success.totals.bytes)),
            None => self.history.get(&hour).copied(),
        }
    }

    /// All hours as they are at a time, the oldest first.
    pub(crate) fn at(&self, now: UnixMillis) -> Vec<Hour> {
        (0..HOURS).rev().map(|back| self.hour(now.hour().plus(-back), now)).collect()
    }

    fn hour(&self, hour: UtcHour, now: UnixMillis) -> Hour {
        let known = self.known.get(&hour);
        let facts = known.filter(|known| known.problem.is_none()).map(|known| &known.facts);
        let state = hour_state::state(hour, facts, self.first, now, &self.due);
        let totals = facts.and_then(|facts| facts.success.as_ref()).map(|success| &success.totals);
        let size = totals.and_then(|totals| self.size(hour, totals));
        let judged = size.as_ref().map(|size| (&size.judged[..], is_large(size)));
        let marks = facts.map(|facts| hour_state::marks(hour, facts, judged, self.due.minutes)).unwrap_or_default();
        let problem = known.and_then(|known| known.problem.clone());
        Hour { hour, state, marks, facts: facts.cloned().unwrap_or_default(), problem, size }
    }

    fn size(&self, hour: UtcHour, totals: &Totals) -> Option<Size> {
        let partition = Partition::Hour(hour);
        let mut earlier = references(hour).map(|hour| self.bytes(hour));
        let day_before = earlier.next()??;
        let weeks: Option<Vec<_>> = earlier.collect();
        let sizes = Sizes { bytes: totals.bytes, day_before, weeks_before: weeks?.try_into().ok()? };
        let minimum = self.limits.minimum_bytes(partition);
        let mut judged = sizes.measure().judge(minimum, &self.limits).to_vec();
        let lines = Lines { events: totals.events, rejected: totals.rejected };
        judged.push((Rule::RejectedShare, lines.judge(self.limits.maximum_rejected_percent)));
        let band = size_band::band(partition, &sizes, &self.limits);
        Some(Size { sizes, band, judged })
    }
}

/// Whether it has more bytes than the middle of what it is compared with.
fn is_large(size: &Size) -> bool {
    let others: Vec<u64> = [size.sizes.day_before].into_iter().chain(size.sizes.weeks_before).flatten().collect();
    let most = others.iter().filter(|bytes| **bytes < size.sizes.bytes).count();
    !others.is_empty() && 2 * most > others.len()
}

/// The hours that an hour is compared with: the day before, then the weeks before.
fn references(hour: UtcHour) -> impl Iterator<Item = UtcHour> {
    let partition = Partition::Hour(hour);
    let partitions = [size::day_before(partition)].into_iter().chain(size::weeks_before(partition));
    partitions.filter_map(|partition| match partition {
        Partition::Hour(hour) => Some(hour),
        Partition::Date(_) => None,
    })
}

async fn read(store: &impl Store, hour: UtcHour, mut known: Known) -> Known {
    known.problem = read_again(store, hour, &mut known).await.err().map(|problem| problem.to_string());
    known
}

async fn read_again(store: &impl Store, hour: UtcHour, known: &mut Known) -> Result<(), HoursError> {
    let prefix = format!("events/{}/_", hour.partition());
    let page = store.list(List { prefix: &prefix, limit: Some(10), ..List::default() }).await?;
    let file = |name: &str| page.objects.iter().find(|one| one.key.strip_prefix(&prefix) == Some(name));
    let (success, incomplete) = (file("SUCCESS"), file("INCOMPLETE"));
    if etag(success) != known.success_etag {
        known.facts.success = json::<Success>(store, success).await?;
        known.success_etag = etag(success);
    }
    if etag(incomplete) != known.incomplete_etag {
        known.facts.incomplete = json::<Incomplete>(store, incomplete).await?;
        known.incomplete_etag = etag(incomplete);
    }
    let is_sealed = known.facts.success.as_ref().is_some_and(|success| success.manifest.is_some());
    if is_sealed && !hour_state::is_compacted(&known.facts) {
        let key = format!("columnar/{}/_SUCCESS", hour.partition());
        known.facts.compacted = parsed::<Compacted>(store, &key).await?.map(|compacted| compacted.manifest);
    }
    Ok(())
}

fn etag(listed: Option<&Listed>) -> Option<String> {
    listed.map(|listed| listed.etag.clone())
}

async fn json<T: serde::de::DeserializeOwned>(
    store: &impl Store,
    listed: Option<&Listed>,
) -> Result<Option<T>, HoursError> {
    match listed {
        Some(listed) => parsed(store, &listed.key).await,
        None => Ok(None),
    }
}

async fn parsed<T: serde::de::DeserializeOwned>(store: &impl Store, key: &str) -> Result<Option<T>, HoursError> {
    let Some(content) = store.get(key).await? else { return Ok(None) };
    let parsed = serde_json::from_slice(&content.body);
    parsed.map(Some).map_err(|source| HoursError::Malformed { key: key.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use lambda_setup::memory_bucket::MemoryBucket;

    fn now() -> UnixMillis {
        UnixMillis::parse("2026-11-21T12:55:00.000Z").unwrap()
    }

    const DUE: Due = Due { minutes: 40, started: None };

    fn seal(bucket: &MemoryBucket, hour: UtcHour, bytes: u64) {
        let totals = Totals { bytes, events: 10, ..Totals::default() };
        let sealed = hour_state::tests::success(UnixMillis(hour.end().0 + 1), totals);
        let key = format!("events/{}/_SUCCESS", hour.partition());
        bucket.insert(&key, serde_json::to_vec(&sealed).unwrap(), HashMap::new());
    }

    fn by_state(hours: &[Hour], state: State) -> usize {
        hours.iter().filter(|hour| hour.state == state).count()
    }

    #[tokio::test]
    async fn two_days_are_read_with_a_listing_and_two_gets_an_hour_and_then_only_what_may_have_changed() {
        let bucket = MemoryBucket::default();
        (2..60).for_each(|back| seal(&bucket, now().hour().plus(-back), 1_000));
        // What makes it the first hour that there is.
        bucket.insert(&format!("events/{}/x", now().hour().plus(-60).partition()), "", HashMap::new());
        let store = Counted::new(&bucket);
        let mut hours = Hours::new(Limits::SHIPPED, DUE);
        assert_eq!(by_state(&hours.at(now()), State::Unknown), 48);
        hours.look(&store, now()).await.unwrap();
        assert_eq!(by_state(&hours.at(now()), State::Sealed), 46);
        assert_eq!((by_state(&hours.at(now()), State::Open), by_state(&hours.at(now()), State::Missing)), (1, 1));
        // The first hour, listings, `_SUCCESS`, Parquet's, and twelve hours before the window.
        assert_eq!(bucket.calls.replace(0), 4 + 48 + 2 * 46 + 12);
        hours.look(&store, now()).await.unwrap();
        assert!(bucket.calls.get() <= 24, "{}", bucket.calls.get());
    }

    #[tokio::test]
    async fn a_small_hour_is_marked_and_its_band_is_known() {
        let bucket = MemoryBucket::default();
        let hour = now().hour().plus(-2);
        for hours in references(hour) {
            seal(&bucket, hours, 1_000);
        }
        seal(&bucket, hour, 649);
        let mut hours = Hours::new(Limits::SHIPPED, DUE);
        hours.look(&Counted::new(&bucket), now()).await.unwrap();
        let found = hours.at(now()).into_iter().find(|one| one.hour == hour).unwrap();
        assert_eq!(found.marks, [Mark::Small]);
        assert_eq!(found.size.unwrap().band, Some(Band { low: 650.0, high: Some(1350.0) }));
    }

    #[tokio::test]
    async fn an_hour_that_cannot_be_read_is_unknown() {
        let bucket = MemoryBucket::default();
        let hour = now().hour().plus(-3);
        seal(&bucket, hour, 1);
        let mut hours = Hours::new(Limits::SHIPPED, DUE);
        hours.look(&Counted::new(&bucket), now()).await.unwrap();
        bucket.insert(&format!("events/{}/_SUCCESS", hour.partition()), "{", HashMap::new());
        for _ in 0..13 {
            hours.look(&Counted::new(&bucket), now()).await.unwrap();
        }
        let found = hours.at(now()).into_iter().find(|one| one.hour == hour).unwrap();
        assert_eq!((found.state, found.problem.is_some()), (State::Unknown, true));
    }
}
