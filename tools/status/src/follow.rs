//! The newest objects of a kind, found without listing an hour of hundreds of thousands.
//!
//! S3 lists keys in their order only, from the first. Within an hour the keys of each shard are in the order of their sequence
//! numbers, so the end of such a series is searched for once by halving, and then followed: each look begins after the last key.

use std::collections::BTreeMap;

use lambda_setup::bucket::{BucketError, List, Listed, Page};
use shared::line::Kind;
use shared::object::{SPILL_PREFIX, prefix};
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis, UtcHour};

use crate::store::Store;

/// The newest objects that are kept.
pub(crate) const MAX_OBJECTS: usize = 20;
/// How many hours back there may be something.
const LOOKBACK_HOURS: i64 = 48;
/// The most shards of an hour that are followed; a stream with more has its first ones shown.
const MAX_SERIES: usize = 64;
/// The most listings in search of the end of a series: enough for millions of objects. Where they don't suffice, the next look
/// goes on from there.
const MAX_SEARCH: usize = 48;
/// Spilled objects that are older than this when the page first looks are not searched for.
const SPILLED_MINUTES: i64 = 15;
/// The most listings in search of the newest of them: each halves the time.
const MAX_SPILL_SEARCH: usize = 12;

/// What is known of a kind's objects.
pub(crate) struct Follower {
    kind: Kind,
    /// The last key of each series, by its prefix, of the newest hours that have any.
    last_keys: BTreeMap<UtcHour, BTreeMap<String, String>>,
    /// The newest objects, the newest first.
    recent: Vec<Listed>,
    /// Hours up to this one have been looked at.
    looked_until: Option<UtcHour>,
    /// When the newest object of the stream's records landed: spilled objects came by another way.
    landed: Option<UnixMillis>,
}

/// Hours whose series are followed: objects of an hour land some seconds after its end.
const FOLLOWED_HOURS: usize = 2;

impl Follower {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, last_keys: BTreeMap::new(), recent: Vec::new(), looked_until: None, landed: None }
    }

    /// When the newest object of the stream's records landed.
    pub(crate) const fn landed(&self) -> Option<UnixMillis> {
        self.landed
    }

    /// The newest first.
    pub(crate) fn recent(&self) -> &[Listed] {
        &self.recent
    }

    /// Looks for newer objects, and for older ones at the first look.
    pub(crate) async fn look(&mut self, store: &impl Store, now: UnixMillis) -> Result<(), BucketError> {
        let last = now.hour();
        // After a gap it is as at the start: each hour between would be searched, of which hardly any object is among the newest.
        if self.looked_until.is_some_and(|until| until < last.plus(-1)) {
            *self = Self { landed: self.landed, ..Self::new(self.kind) };
        }
        let oldest = self.looked_until.map_or_else(|| last.plus(-LOOKBACK_HOURS), |until| until.min(last.plus(-1)));
        let mut hour = last;
        while hour >= oldest {
            self.look_at_hour(store, hour, now).await?;
            let has_enough = self.looked_until.is_none() && !self.recent.is_empty() && hour < last;
            if has_enough {
                break;
            }
            hour = hour.plus(-1);
        }
        self.looked_until = Some(last);
        self.forget();
        Ok(())
    }

    async fn look_at_hour(&mut self, store: &impl Store, hour: UtcHour, now: UnixMillis) -> Result<(), BucketError> {
        let folder = format!("{}/{}/", prefix(self.kind), hour.partition());
        let shards = format!("{folder}shardId-");
        let page = store.list(List { prefix: &shards, delimiter: Some("-"), ..List::default() }).await?;
        for series in page.prefixes.into_iter().take(MAX_SERIES) {
            self.follow(store, hour, series).await?;
        }
        // The ids of spilled objects begin with their time.
        let series = format!("{folder}{SPILL_PREFIX}");
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
        let from = found.len().saturating_sub(MAX_OBJECTS);
        self.recent.extend_from_slice(&found[from..]);
        self.recent.sort_by(|one, other| (other.modified, &other.key).cmp(&(one.modified, &one.key)));
        self.recent.truncate(MAX_OBJECTS);
    }

    fn last_key(&self, hour: UtcHour, series: &str) -> Option<&String> {
        self.last_keys.get(&hour)?.get(series)
    }

    fn remember(&mut self, hour: UtcHour, series: &str, key: String) {
        self.last_keys.entry(hour).or_default().insert(series.to_owned(), key);
    }

    fn forget(&mut self) {
        while self.last_keys.len() > FOLLOWED_HOURS {
            self.last_keys.pop_first();
        }
    }
}

/// The end of a series after a key: its last objects, a page of them at most; nothing when there are no more.
async fn end_of(store: &impl Store, series: &str, after: Option<&str>) -> Result<Vec<Listed>, BucketError> {
    let mut page = store.list(after_key(series, after)).await?;
    let Some(mut search) = Search::begin(series, &page) else { return Ok(page.objects) };
    for _ in 0..MAX_SEARCH {
        let Some(guess) = search.guess() else { break };
        let further = store.list(after_key(series, Some(&guess))).await?;
        let is_end = !further.is_truncated && !further.objects.is_empty();
        search.learn(series, &further);
        if !further.objects.is_empty() {
            page = further;
        }
        if is_end {
            return Ok(page.objects);
        }
    }
    // The numbers lie too unevenly: what follows the last page is listed, by this look or the next.
    let last = page.objects.last().map(|last| last.key.as_str());
    let rest = store.list(after_key(series, last)).await?;
    Ok(if rest.objects.is_empty() { page.objects } else { rest.objects })
}

/// A key before those of spilled objects of a millisecond and later: their ids begin with their time, in twelve hexadecimal digits.
fn spilled_after(series: &str, since: u64) -> String {
    format!("{series}{since:012x}")
}

/// The newest spilled objects after a key. Where there are more than a page, what follows is looked for nearer and nearer to now.
async fn end_of_spilled(
    store: &impl Store,
    series: &str,
    after: String,
    now: UnixMillis,
) -> Result<Vec<Listed>, BucketError> {
    let mut page = store.list(after_key(series, Some(&after))).await?;
    let now = u64::try_from(now.0).unwrap_or_default();
    let time = |key: &str| u64::from_str_radix(key.strip_prefix(series)?.get(..12)?, 16).ok();
    for _ in 0..MAX_SPILL_SEARCH {
        let last = page.objects.last().filter(|_| page.is_truncated).and_then(|last| time(&last.key));
        let Some(since) = last.filter(|last| *last < now).map(|last| last.midpoint(now)) else { break };
        let nearer = store.list(after_key(series, Some(&spilled_after(series, since)))).await?;
        if nearer.objects.is_empty() {
            break;
        }
        page = nearer;
    }
    Ok(page.objects)
}

fn after_key<'a>(prefix: &'a str, start_after: Option<&'a str>) -> List<'a> {
    List { prefix, start_after, ..List::default() }
}

/// The search for the last sequence number: it lies at or above `low` and below `high`.
struct Search {
    /// The digits that all of the series' numbers have in common, as far as they are beyond 128 bits.
    common: String,
    digits: usize,
    low: u128,
    high: Option<u128>,
    step: u128,
    prefix: String,
}

/// Digits that fit into 128 bits, whatever they are.
const DIGITS: usize = 38;

impl Search {
    /// `None` when the page is the end, or when its keys are not numbers that can be searched.
    fn begin(series: &str, page: &Page) -> Option<Self> {
        if !page.is_truncated {
            return None;
        }
        let (first, last) = (number(series, &page.objects.first()?.key)?, number(series, &page.objects.last()?.key)?);
        let cut = first.len().saturating_sub(DIGITS);
        if first.len() != last.len() || first[..cut] != last[..cut] {
            return None;
        }
        let (from, low): (u128, u128) = (first[cut..].parse().ok()?, last[cut..].parse().ok()?);
        let step = low.saturating_sub(from).max(1);
        let digits = first.len() - cut;
        Some(Self { common: first[..cut].to_owned(), digits, low, high: None, step, prefix: series.to_owned() })
    }

    /// The key to list after: farther and farther away until nothing follows, then half way between.
    fn guess(&self) -> Option<String> {
        let number = match self.high {
            Some(high) if high - self.low <= 1 => return None,
            Some(high) => self.low + (high - self.low) / 2,
            None => self.low.saturating_add(self.step),
        };
        let number = number.min(10_u128.pow(u32::try_from(self.digits).ok()?) - 1);
        Some(format!("{}{}{number:0width$}", self.prefix, self.common, width = self.digits))
    }

    /// What a listing after the guess has shown.
    fn learn(&mut self, series: &str, further: &Page) {
        let guessed = match self.high {
            Some(high) => self.low + (high - self.low) / 2,
            None => self.low.saturating_add(self.step),
        };
        let last = further.objects.last().and_then(|last| number(series, &last.key));
        match last.and_then(|last| last.get(self.common.len()..)?.parse::<u128>().ok()) {
            Some(last) => {
                self.low = last.max(self.low);
                self.step = self.step.saturating_mul(2);
                self.high = self.high.filter(|high| *high > self.low);
            }
            None => self.high = Some(guessed.max(self.low + 1)),
        }
    }
}

/// The sequence number in a key of a series.
fn number<'k>(series: &str, key: &'k str) -> Option<&'k str> {
    let digits = key.strip_prefix(series)?.split(['.', '-']).next()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(digits)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::store::Counted;
    use lambda_setup::memory_bucket::MemoryBucket;
    use proptest::prelude::*;
    use shared::object::object_key;

    fn now() -> UnixMillis {
        UnixMillis::parse("2026-11-21T12:55:00.000Z").unwrap()
    }

    const FIRST: &str = "49590338271490256608559692538361571095";

    fn object(bucket: &MemoryBucket, kind: Kind, hour: UtcHour, shard: usize, number: u64) -> String {
        let key = object_key(kind, hour, &format!("shardId-{shard:012}"), &format!("{FIRST}{number:018}"));
        bucket.insert(&key, "x", HashMap::new());
        key
    }

    async fn newest(bucket: &MemoryBucket, follower: &mut Follower) -> Vec<String> {
        let store = Counted::new(bucket);
        follower.look(&store, now()).await.unwrap();
        let mut keys: Vec<String> = follower.recent().iter().map(|one| one.key.clone()).collect();
        keys.sort();
        keys
    }

    #[tokio::test]
    async fn the_end_of_a_large_hour_is_found_in_few_requests_and_followed_with_three() {
        let bucket = MemoryBucket::default();
        bucket.page_size.set(Some(10));
        let mut keys: Vec<String> = Vec::new();
        for number in 0..2_000 {
            keys.push(object(&bucket, Kind::Event, now().hour(), 0, 1_000 + number * 37));
        }
        let mut follower = Follower::new(Kind::Event);
        let found = newest(&bucket, &mut follower).await;
        assert_eq!(found.last(), keys.last());
        assert!(bucket.calls.get() < 40, "{} requests for 2,000 objects on 200 pages", bucket.calls.get());
        bucket.calls.set(0);
        keys.push(object(&bucket, Kind::Event, now().hour(), 0, 999_999));
        assert_eq!(newest(&bucket, &mut follower).await.last(), keys.last());
        // Shards, the series and spilled objects, of this hour and the one before, which has no shards.
        assert_eq!(bucket.calls.get(), 5);
    }

    #[tokio::test]
    async fn objects_of_all_shards_and_of_the_hour_before_are_found_and_an_older_hour_is_left_out() {
        let bucket = MemoryBucket::default();
        let hour = now().hour();
        let keys = [
            object(&bucket, Kind::Event, hour.plus(-1), 0, 1),
            object(&bucket, Kind::Event, hour, 0, 2),
            object(&bucket, Kind::Event, hour, 3, 1),
        ];
        object(&bucket, Kind::Event, hour.plus(-2), 0, 1);
        object(&bucket, Kind::Rejected, hour, 0, 1);
        let mut found = newest(&bucket, &mut Follower::new(Kind::Event)).await;
        found.sort();
        let mut expected = keys.to_vec();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn without_objects_the_hours_before_are_searched_once() {
        let bucket = MemoryBucket::default();
        let mut follower = Follower::new(Kind::Rejected);
        assert!(newest(&bucket, &mut follower).await.is_empty());
        assert_eq!(bucket.calls.replace(0), 2 * 49);
        assert!(newest(&bucket, &mut follower).await.is_empty());
        assert_eq!(bucket.calls.get(), 4);
    }

    #[tokio::test]
    async fn after_a_gap_it_starts_anew_at_the_newest() {
        let bucket = MemoryBucket::default();
        let mut follower = Follower::new(Kind::Event);
        object(&bucket, Kind::Event, now().hour(), 0, 1);
        assert_eq!(newest(&bucket, &mut follower).await.len(), 1);
        let later = UnixMillis(now().hour().plus(40).start().0);
        let last = object(&bucket, Kind::Event, later.hour(), 0, 2);
        bucket.calls.set(0);
        follower.look(&Counted::new(&bucket), later).await.unwrap();
        assert_eq!(follower.recent().iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), [last]);
        assert!(bucket.calls.get() <= 6, "{}", bucket.calls.get());
    }

    #[tokio::test]
    async fn the_newest_of_many_spilled_objects_are_found_and_do_not_count_as_landed() {
        let bucket = MemoryBucket::default();
        bucket.page_size.set(Some(10));
        let mut last = String::new();
        for number in 0..500_i64 {
            let at = now().0 - (500 - number) * 1_000;
            last = format!("events/{}/{SPILL_PREFIX}{at:012x}{number:020x}.jsonl.bz2", now().hour().partition());
            bucket.insert(&last, "x", HashMap::new());
        }
        let mut follower = Follower::new(Kind::Event);
        assert!(newest(&bucket, &mut follower).await.contains(&last));
        assert_eq!(follower.landed(), None);
        object(&bucket, Kind::Event, now().hour(), 0, 1);
        newest(&bucket, &mut follower).await;
        assert!(follower.landed().is_some());
    }

    #[tokio::test]
    async fn at_most_twenty_are_kept() {
        let bucket = MemoryBucket::default();
        (0..=20).for_each(|number| drop(object(&bucket, Kind::Event, now().hour(), 0, number)));
        assert_eq!(newest(&bucket, &mut Follower::new(Kind::Event)).await.len(), MAX_OBJECTS);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_last_object_is_found_however_the_numbers_lie(gaps in prop::collection::vec(0u32..50, 1..400)) {
            let bucket = MemoryBucket::default();
            bucket.page_size.set(Some(10));
            let mut number = 0;
            let mut last = String::new();
            for gap in gaps {
                number += 1 + (1u64 << gap);
                last = object(&bucket, Kind::Event, now().hour(), 0, number % 1_000_000_000_000_000_000);
                last = last.max(bucket.keys().last().unwrap().clone());
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut follower = Follower::new(Kind::Event);
            // What one look does not reach, the next ones do.
            let found = (0..20).any(|_| runtime.block_on(newest(&bucket, &mut follower)).contains(&last));
            prop_assert!(found);
        }
    }
}
