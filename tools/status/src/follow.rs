//! The newest objects of a kind, found without listing an hour of hundreds of thousands.
//!
//! Within an hour the keys of each shard are in the order of their sequence numbers, so the end of such a series is searched for
//! once, and then followed: each look begins after the last key.

use std::collections::BTreeMap;

use lambda_setup::bucket::{BucketError, List, Listed, Page};
use shared::line::Kind;
use shared::object::{SPILL_PREFIX, prefix};
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis, UtcHour};

use crate::series_end::{after_key, end_of, end_of_spilled, spilled_after};
use crate::store::Store;

/// The newest objects that are kept.
pub(crate) const MAX_OBJECTS: usize = 20;
/// How many hours back there may be something.
const LOOKBACK_HOURS: i64 = 48;
/// Shards of an hour that a look follows; where there are more, the next look goes on from there.
const SHARDS_A_LOOK: u16 = 64;
/// The most shards of an hour that are followed: what comes after them is left out.
pub(crate) const MAX_SHARDS: usize = 4_096;
/// The most hours that landing may be behind: the stream keeps records for a week, unless its retention was raised.
const MAX_BACKLOG_HOURS: i64 = 168;
/// While landing is behind, a look follows so many hours from the one that it is said to be in: CloudWatch says it late.
const OLDEST_HOURS: usize = 2;
/// And so many of those between them and the newest two, in turn: other shards may be ahead.
const HOURS_IN_TURN: usize = 2;
/// Spilled objects that are older than this when the page first looks are not searched for.
const SPILLED_MINUTES: i64 = 15;

/// What is known of a kind's objects.
pub(crate) struct Follower {
    kind: Kind,
    /// What is known of the hours that are followed.
    hours: BTreeMap<UtcHour, Followed>,
    /// The newest objects, the newest first.
    recent: Vec<Listed>,
    /// Hours up to this one have been looked at.
    looked_until: Option<UtcHour>,
    /// When the newest object of the stream's records landed: spilled objects came by another way.
    landed: Option<UnixMillis>,
    /// Where the hours that are looked at in turn go on.
    turn: usize,
}

/// What is known of an hour.
#[derive(Default)]
struct Followed {
    /// The last key of each series, by its prefix.
    last_keys: BTreeMap<String, String>,
    /// Where the next look at its shards begins, and how many were looked at before; at the first one without.
    shards_after: Option<(String, usize)>,
    /// Whether it has more shards than are followed.
    has_more: bool,
}

impl Follower {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, hours: BTreeMap::new(), recent: Vec::new(), looked_until: None, landed: None, turn: 0 }
    }

    /// When the newest object of the stream's records landed.
    pub(crate) const fn landed(&self) -> Option<UnixMillis> {
        self.landed
    }

    /// The newest first.
    pub(crate) fn recent(&self) -> &[Listed] {
        &self.recent
    }

    /// Whether an hour has more than [`MAX_SHARDS`].
    pub(crate) fn has_more_shards(&self) -> bool {
        self.hours.values().any(|hour| hour.has_more)
    }

    /// Looks for newer objects, and for older ones at the first look. An object lands in the hour in which its records came onto
    /// the stream: `read_until` says up to when all of the stream has been read, if that is known.
    pub(crate) async fn look(
        &mut self,
        store: &impl Store,
        now: UnixMillis,
        read_until: Option<UnixMillis>,
    ) -> Result<(), BucketError> {
        let last = now.hour();
        // After a gap it is as at the start: each hour between would be searched, of which hardly any object is among the newest.
        if self.looked_until.is_some_and(|until| until < last.plus(-1)) {
            *self = Self { landed: self.landed, ..Self::new(self.kind) };
        }
        let oldest = self.looked_until.map_or_else(|| last.plus(-LOOKBACK_HOURS), |until| until.min(last.plus(-1)));
        let mut hour = last;
        while hour >= oldest {
            self.look_at_shards(store, hour).await?;
            self.look_at_spilled(store, hour, now).await?;
            let has_enough = self.looked_until.is_none() && !self.recent.is_empty() && hour < last;
            if has_enough {
                break;
            }
            hour = hour.plus(-1);
        }
        let backlog = backlog(read_until, last);
        for hour in self.due(&backlog) {
            self.look_at_shards(store, hour).await?;
        }
        self.looked_until = Some(last);
        let oldest = backlog.first().copied().unwrap_or_else(|| last.plus(-1));
        self.hours.retain(|hour, _| *hour >= oldest);
        Ok(())
    }

    /// The hours of the backlog that are looked at now.
    fn due(&mut self, backlog: &[UtcHour]) -> Vec<UtcHour> {
        let (oldest, others) = backlog.split_at(backlog.len().min(OLDEST_HOURS));
        let count = others.len().min(HOURS_IN_TURN);
        let in_turn = (0..count).map(|number| others[(self.turn + number) % others.len()]);
        let due = oldest.iter().copied().chain(in_turn).collect();
        self.turn = (self.turn + count).checked_rem(others.len()).unwrap_or_default();
        due
    }

    /// So many of an hour's shards, from where the last look at it ended.
    async fn look_at_shards(&mut self, store: &impl Store, hour: UtcHour) -> Result<(), BucketError> {
        let shards = format!("{}shardId-", folder(self.kind, hour));
        let (after, before) = self.hours.entry(hour).or_default().shards_after.clone().unzip();
        let list = List { delimiter: Some("-"), limit: Some(SHARDS_A_LOOK), ..after_key(&shards, after.as_deref()) };
        let page = store.list(list).await?;
        let count = before.unwrap_or_default() + usize::from(SHARDS_A_LOOK);
        let next = after_page(&page).map(|after| (after, count));
        for series in page.prefixes {
            self.follow(store, hour, series).await?;
        }
        let followed = self.hours.entry(hour).or_default();
        if next.is_none() || count >= MAX_SHARDS {
            followed.has_more = next.is_some();
        }
        followed.shards_after = next.filter(|_| count < MAX_SHARDS);
        Ok(())
    }

    async fn look_at_spilled(&mut self, store: &impl Store, hour: UtcHour, now: UnixMillis) -> Result<(), BucketError> {
        // The ids of spilled objects begin with their time.
        let series = format!("{}{SPILL_PREFIX}", folder(self.kind, hour));
        if self.last_key(hour, &series).is_none() {
            let since = u64::try_from(now.0 - SPILLED_MINUTES * MILLIS_PER_MINUTE).unwrap_or_default();
            self.remember(hour, &series, spilled_after(&series, since));
        }
        let after = self.last_key(hour, &series).cloned().unwrap_or_default();
        let found = end_of_spilled(store, &series, after, now).await?;
        self.keep(hour, series, &found);
        Ok(())
    }

    async fn follow(&mut self, store: &impl Store, hour: UtcHour, series: String) -> Result<(), BucketError> {
        let after = self.last_key(hour, &series).cloned();
        let found = end_of(store, &series, after.as_deref()).await?;
        self.landed = found.iter().map(|one| one.modified).chain(self.landed).max();
        self.keep(hour, series, &found);
        Ok(())
    }

    fn keep(&mut self, hour: UtcHour, series: String, found: &[Listed]) {
        let Some(last) = found.last() else { return };
        self.remember(hour, &series, last.key.clone());
        // An hour that was not followed for a while is searched again.
        self.recent.retain(|one| found.iter().all(|newer| newer.key != one.key));
        let from = found.len().saturating_sub(MAX_OBJECTS);
        self.recent.extend_from_slice(&found[from..]);
        self.recent.sort_by(|one, other| (other.modified, &other.key).cmp(&(one.modified, &one.key)));
        self.recent.truncate(MAX_OBJECTS);
    }

    fn last_key(&self, hour: UtcHour, series: &str) -> Option<&String> {
        self.hours.get(&hour)?.last_keys.get(series)
    }

    fn remember(&mut self, hour: UtcHour, series: &str, key: String) {
        self.hours.entry(hour).or_default().last_keys.insert(series.to_owned(), key);
    }
}

fn folder(kind: Kind, hour: UtcHour) -> String {
    format!("{}/{}/", prefix(kind), hour.partition())
}

/// The hours that records may still land in, before the newest two, which are always looked at.
fn backlog(read_until: Option<UnixMillis>, last: UtcHour) -> Vec<UtcHour> {
    let Some(read_until) = read_until else { return Vec::new() };
    (2..=MAX_BACKLOG_HOURS).rev().map(|back| last.plus(-back)).filter(|hour| *hour >= read_until.hour()).collect()
}

/// Where the listing of an hour's shards goes on after a page: after all keys of its last shard.
fn after_page(page: &Page) -> Option<String> {
    let shard = page.prefixes.last().map(|shard| format!("{shard}~"));
    // What is no shard's comes between, such as `shardId-x`.
    let other = page.objects.last().map(|other| other.key.clone());
    shard.max(other).filter(|_| page.is_truncated)
}

#[cfg(test)]
mod tests;
