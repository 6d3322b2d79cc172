//! The end of a series of objects whose keys are in the order of their numbers or times, in a few listings.
//!
//! S3 lists keys in their order only, from the first: the last one is searched for by halving.

use lambda_setup::bucket::{BucketError, List, Listed, Page};
use shared::timestamp::UnixMillis;

use crate::store::Store;

/// The most listings in search of the end of a series: enough for millions of objects. Where they don't suffice, the next look
/// goes on from there.
const MAX_SEARCH: usize = 48;
/// The most listings in search of the newest spilled objects: each halves the time.
const MAX_SPILL_SEARCH: usize = 12;
/// Digits that fit into 128 bits, whatever they are.
const DIGITS: usize = 38;

/// The end of a series after a key: its last objects, a page of them at most; nothing when there are no more.
pub(crate) async fn end_of(store: &impl Store, series: &str, after: Option<&str>) -> Result<Vec<Listed>, BucketError> {
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
pub(crate) fn spilled_after(series: &str, since: u64) -> String {
    format!("{series}{since:012x}")
}

/// The newest spilled objects after a key. Where there are more than a page, what follows is looked for nearer and nearer to now.
pub(crate) async fn end_of_spilled(
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

pub(crate) fn after_key<'a>(prefix: &'a str, start_after: Option<&'a str>) -> List<'a> {
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
