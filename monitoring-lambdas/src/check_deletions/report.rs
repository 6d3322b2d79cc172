//! What is stored under `deleted/`: a report of each hour that lacks something, and where the last run stopped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::timestamp::{UnixMillis, UtcHour};

use super::CheckDeletionsError;
use crate::manifest::{DELETED_PREFIX, VERSION, deleted_key};
use lambda_setup::bucket::{Bucket, BucketError, Condition};

/// The most keys in a report; its number counts all missing objects.
pub(super) const MAX_KEYS: usize = 1_000;
/// The most keys in a line of the log.
const MAX_LOGGED_KEYS: usize = 5;

/// What happened to a sealed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Deleted,
    /// Replaced by something that landing did not write.
    Overwritten,
}

/// A sealed object that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    pub(crate) key: String,
    pub(crate) what: What,
}

/// What an hour lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    v: u8,
    pub(crate) partition: String,
    /// The time of the event of the run that found it first.
    pub(crate) found_at: UnixMillis,
    pub(crate) missing_objects: u64,
    /// The first of them; empty if only their number is known.
    pub(crate) missing: Vec<Missing>,
}

impl Report {
    pub(super) fn new(partition: &str, found_at: UnixMillis, missing_objects: u64, missing: Vec<Missing>) -> Self {
        Self { v: VERSION, partition: partition.to_owned(), found_at, missing_objects, missing }
    }

    /// `None` where there is no report, or none that can be read.
    pub(super) async fn read(bucket: &impl Bucket, partition: &str) -> Result<Option<Self>, BucketError> {
        let content = bucket.get(&deleted_key(partition)).await?;
        Ok(content.and_then(|content| serde_json::from_slice(&content.body).ok()))
    }

    /// Counts one more object, and names it while there is room.
    pub(super) fn add(&mut self, missing: Missing) {
        self.missing_objects = self.missing_objects.saturating_add(1);
        if !self.is_full() {
            self.missing.push(missing);
        }
    }

    /// Whether it has no room for another name.
    pub(super) fn is_full(&self) -> bool {
        self.missing.len() == MAX_KEYS
    }

    pub(super) fn names(&self, key: &str) -> bool {
        self.missing.iter().any(|missing| missing.key == key)
    }

    pub(super) fn log(&self) {
        let keys: Vec<&str> = self.missing.iter().take(MAX_LOGGED_KEYS).map(|missing| missing.key.as_str()).collect();
        tracing::error!(
            partition = self.partition,
            objects = self.missing_objects,
            found_at = %self.found_at,
            first = keys.join(", "),
            "objects that were sealed are deleted or overwritten"
        );
    }
}

/// What one run leaves for the next. Without it every hour is compared again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The hour that the next run begins with; `None` for the oldest.
    next: Option<String>,
    /// The largest number of objects that each hour's manifest ever had.
    objects: BTreeMap<String, u64>,
}

fn state_key() -> String {
    format!("{DELETED_PREFIX}_state.json")
}

impl State {
    pub(super) async fn read(bucket: &impl Bucket) -> Result<Self, BucketError> {
        let content = bucket.get(&state_key()).await?;
        Ok(content.and_then(|content| serde_json::from_slice(&content.body).ok()).unwrap_or_default())
    }

    pub(super) async fn put(&self, bucket: &impl Bucket) -> Result<(), CheckDeletionsError> {
        let body = serde_json::to_vec(self)?;
        bucket.put(&state_key(), body.into(), Condition::Always).await?;
        Ok(())
    }

    pub(super) fn take_next(&mut self) -> Option<UtcHour> {
        UtcHour::parse(&self.next.take()?)
    }

    pub(super) fn set_next(&mut self, hour: UtcHour) {
        self.next = Some(hour.partition());
    }

    /// The largest known number of objects in the hour's manifest.
    pub(super) fn objects(&self, partition: &str) -> u64 {
        self.objects.get(partition).copied().unwrap_or_default()
    }

    /// Records the number of objects in the hour's manifest; returns the largest that it ever had.
    pub(super) fn note(&mut self, partition: &str, objects: u64) -> u64 {
        let most = self.objects.entry(partition.to_owned()).or_default();
        *most = objects.max(*most);
        *most
    }

    pub(super) fn forget_before(&mut self, oldest: UtcHour) {
        // Names of hours sort as the hours do.
        self.objects = self.objects.split_off(&oldest.partition());
    }
}
