//! The newest event that landed: the last object of each shard, and the last that was spilled, in the newest hour that has
//! any.
//!
//! S3 lists keys in their order only, from the first. So the last key of each of these series is remembered, and the next
//! minute's listing begins after it. A new environment lists the hour once.

use std::collections::BTreeMap;

use shared::object::{ObjectKey, ObjectMetadata, SPILL_PREFIX};
use shared::timestamp::{UnixMillis, UtcHour};

use crate::rules::recency::LOOKBACK_HOURS;
use lambda_setup::bucket::{Bucket, BucketError, List};

/// The last key of each series, by the prefix of its keys, in one hour.
#[derive(Debug, Default)]
pub(super) struct Memory {
    hour: Option<UtcHour>,
    last_keys: BTreeMap<String, String>,
}

impl Memory {
    /// Takes out what is remembered of an hour. What is remembered of another one stays.
    fn take(&mut self, hour: UtcHour) -> Self {
        let other = Self { hour: Some(hour), last_keys: BTreeMap::new() };
        if self.hour == Some(hour) { std::mem::replace(self, other) } else { other }
    }
}

/// When the newest event was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newest {
    /// At the latest, if nothing landed in the hours that are looked at.
    pub(super) received_at: UnixMillis,
}

impl Newest {
    /// Not less than 0: a schedule's time is the full minute that is already over.
    pub(super) fn age_seconds(self, now: UnixMillis) -> f64 {
        now.0.saturating_sub(self.received_at.0).max(0) as f64 / 1_000.0
    }
}

/// The most pages of listings in one invocation, beyond one for each series. If there are more, the age is too high for a
/// minute or two, never too low.
const MAX_FURTHER_PAGES: usize = 100;

/// Finds the newest event, going back from the hour of `now`.
pub(super) async fn find(bucket: &impl Bucket, now: UnixMillis, memory: &mut Memory) -> Result<Newest, BucketError> {
    for back in 0..=LOOKBACK_HOURS {
        let hour = now.hour().plus(-back);
        let mut found = memory.take(hour);
        let listed = continue_listing(bucket, hour, &mut found).await;
        let has_objects = !found.last_keys.is_empty();
        if has_objects {
            *memory = found;
        }
        listed?;
        if has_objects {
            return newest(bucket, hour, memory).await;
        }
    }
    tracing::debug!(hours = LOOKBACK_HOURS, "nothing landed: the age is a lower bound");
    Ok(Newest { received_at: now.hour().plus(-LOOKBACK_HOURS).start() })
}

/// The prefixes of keys that are in the order of time: those of each shard that has objects in the hour, the first thousand,
/// and those of spilled objects.
async fn series(bucket: &impl Bucket, hour: UtcHour) -> Result<Vec<String>, BucketError> {
    let folder = format!("events/{}/", hour.partition());
    let shards = format!("{folder}shardId-");
    let page = bucket.list(List { prefix: &shards, delimiter: Some("-"), ..List::default() }).await?;
    Ok(page.prefixes.into_iter().chain([format!("{folder}{SPILL_PREFIX}")]).collect())
}

/// What was listed before an error is remembered, too.
async fn continue_listing(bucket: &impl Bucket, hour: UtcHour, memory: &mut Memory) -> Result<(), BucketError> {
    let series = series(bucket, hour).await?;
    let mut pages = MAX_FURTHER_PAGES + series.len();
    for prefix in &series {
        loop {
            if pages == 0 {
                tracing::warn!(prefix, "the hour's listing goes on in the next minute: until then the age is too high");
                return Ok(());
            }
            pages -= 1;
            let start_after = memory.last_keys.get(prefix).map(String::as_str);
            let page = bucket.list(List { prefix, start_after, ..List::default() }).await?;
            if let Some(last) = page.objects.last() {
                memory.last_keys.insert(prefix.clone(), last.key.clone());
            }
            if !page.is_truncated {
                break;
            }
        }
    }
    Ok(())
}

/// The newest event of the last objects. Each is looked at again each minute: one that was replaced by an attempt
/// that had more records is newer than it was.
async fn newest(bucket: &impl Bucket, hour: UtcHour, memory: &Memory) -> Result<Newest, BucketError> {
    let mut newest = None;
    for key in memory.last_keys.values() {
        let Some(parsed) = ObjectKey::parse(key) else {
            tracing::warn!(key, "not an object of ours: the time of its newest event can't be read");
            continue;
        };
        let Some(head) = bucket.head(key).await? else { continue };
        match ObjectMetadata::from_entries(&parsed.name, &head.metadata) {
            Ok(metadata) => newest = newest.max(Some(metadata.latest_received_at)),
            Err(error) => tracing::warn!(key, %error, "the time of its newest event can't be read"),
        }
    }
    // Even if no metadata can be read, something landed in the hour.
    Ok(Newest { received_at: newest.unwrap_or(hour.start()) })
}
