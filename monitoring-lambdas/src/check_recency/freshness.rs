//! The newest event that landed: the last object of each shard in the newest hour that has any.
//!
//! S3 lists keys in their order only, from the first. So the last key of each shard is remembered, and the next minute's
//! listing begins behind it. A new environment lists the hour once.

use std::collections::BTreeMap;

use shared::object::ObjectMetadata;
use shared::timestamp::{UnixMillis, UtcHour};

use crate::bucket::{Bucket, BucketError, List};
use crate::rules::recency::LOOKBACK_HOURS;

/// The last key of each shard, by the prefix of the shard's keys, in one hour.
#[derive(Debug, Default)]
pub(super) struct Memory {
    hour: Option<UtcHour>,
    last_keys: BTreeMap<String, String>,
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

/// Pages of listings in one invocation at most, beyond one for each shard. Where it takes more, the age is too high for a
/// minute or two, never too low.
const MAX_FURTHER_PAGES: usize = 100;

/// Finds the newest event, going back from the hour of `now`.
pub(super) async fn find(bucket: &impl Bucket, now: UnixMillis, memory: &mut Memory) -> Result<Newest, BucketError> {
    for back in 0..=LOOKBACK_HOURS {
        let hour = now.hour().plus(-back);
        let shards = shards(bucket, hour).await?;
        if !shards.is_empty() {
            if memory.hour != Some(hour) {
                *memory = Memory { hour: Some(hour), last_keys: BTreeMap::new() };
            }
            go_on_listing(bucket, &shards, memory).await?;
            return newest(bucket, hour, memory).await;
        }
    }
    tracing::debug!(hours = LOOKBACK_HOURS, "nothing landed: the age is a lower bound");
    Ok(Newest { received_at: now.hour().plus(-LOOKBACK_HOURS).start() })
}

/// The prefixes of the keys of each shard that has objects in the hour; the first thousand.
async fn shards(bucket: &impl Bucket, hour: UtcHour) -> Result<Vec<String>, BucketError> {
    let prefix = format!("events/{}/shardId-", hour.partition());
    let page = bucket.list(List { prefix: &prefix, delimiter: Some("-"), ..List::default() }).await?;
    Ok(page.prefixes)
}

async fn go_on_listing(bucket: &impl Bucket, shards: &[String], memory: &mut Memory) -> Result<(), BucketError> {
    let mut pages = MAX_FURTHER_PAGES + shards.len();
    for shard in shards {
        loop {
            if pages == 0 {
                tracing::warn!(shard, "the hour's listing goes on in the next minute: until then the age is too high");
                return Ok(());
            }
            pages -= 1;
            let start_after = memory.last_keys.get(shard).map(String::as_str);
            let page = bucket.list(List { prefix: shard, start_after, ..List::default() }).await?;
            if let Some(last) = page.objects.last() {
                memory.last_keys.insert(shard.clone(), last.key.clone());
            }
            if !page.is_truncated {
                break;
            }
        }
    }
    Ok(())
}

/// The newest event of the shards' last objects. Each is looked at again each minute: one that was replaced by an attempt
/// that had more records is newer than it was.
async fn newest(bucket: &impl Bucket, hour: UtcHour, memory: &Memory) -> Result<Newest, BucketError> {
    let mut newest = None;
    for key in memory.last_keys.values() {
        let Some(head) = bucket.head(key).await? else { continue };
        match ObjectMetadata::from_entries(&head.metadata) {
            Ok(metadata) => newest = newest.max(Some(metadata.latest_received_at)),
            Err(error) => tracing::warn!(key, %error, "it says nothing of its newest event"),
        }
    }
    // Where no metadata can be read, something of the hour is there all the same.
    Ok(Newest { received_at: newest.unwrap_or(hour.start()) })
}
