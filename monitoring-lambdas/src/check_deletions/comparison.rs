//! What an hour's manifest has and the bucket does not, in one pass over both.

use shared::object::ObjectMetadata;
use shared::timestamp::UtcHour;

use super::listing::Listing;
use super::manifest_lines::{Entries, EntriesError};
use super::report::{MAX_KEYS, Missing, What};
use crate::bucket::{Bucket, BucketError, Listed, Stream};
use crate::manifest::Entry;

/// What the comparison of an hour found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Objects in the manifest, and in the bucket.
    pub(super) sealed: u64,
    pub(super) listed: u64,
    /// All that are missing, and the first of them.
    pub(super) missing_objects: u64,
    pub(super) missing: Vec<Missing>,
}

/// Compares an hour with its manifest, or if there is none, counts what is in the bucket.
pub(super) async fn compare<B: Bucket, S: Stream>(
    bucket: &B,
    hour: UtcHour,
    entries: Option<Entries<S>>,
) -> Result<Compared, EntriesError> {
    let mut listing = Listing::new(bucket, hour);
    let mut found = Compared::default();
    let mut next = listing.next().await?;
    if let Some(mut entries) = entries {
        while let Some(entry) = entries.next().await? {
            while next.as_ref().is_some_and(|listed| listed.key < entry.key) {
                next = listing.next().await?;
            }
            let listed = next.as_ref().filter(|listed| listed.key == entry.key);
            found.sealed += 1;
            if let Some(what) = what_is_wrong(bucket, &entry, listed).await? {
                found.add(Missing { key: entry.key, what });
            }
        }
    }
    while next.is_some() {
        next = listing.next().await?;
    }
    found.listed = listing.count;
    Ok(found)
}

impl Compared {
    pub(super) fn add(&mut self, missing: Missing) {
        self.missing_objects += 1;
        if self.missing.len() < MAX_KEYS {
            self.missing.push(missing);
        }
    }
}

/// Landing may replace an object with one of another size, and the hour is sealed again then: that is not looked into here.
async fn what_is_wrong(
    bucket: &impl Bucket,
    entry: &Entry,
    listed: Option<&Listed>,
) -> Result<Option<What>, BucketError> {
    let Some(listed) = listed else { return Ok(Some(What::Deleted)) };
    if listed.size == entry.bytes {
        return Ok(None);
    }
    let Some(head) = bucket.head(&entry.key).await? else { return Ok(Some(What::Deleted)) };
    let is_landed = ObjectMetadata::from_entries(&head.metadata).is_ok();
    Ok((!is_landed).then_some(What::Overwritten))
}
