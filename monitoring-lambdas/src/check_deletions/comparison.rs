//! Compares an hour's manifest with the bucket, in one pass over both.

use shared::object::{ObjectKey, ObjectMetadata, manifest_key};
use shared::timestamp::UtcHour;

use super::listing::Listing;
use super::manifest_lines::{Entries, EntriesError};
use super::report::{MAX_KEYS, Missing, What};
use crate::manifest::Entry;
use lambda_setup::bucket::{Bucket, BucketError, Listed, Stream};

/// What the comparison of an hour found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Objects in the manifest, and in the bucket.
    pub(super) sealed: u64,
    pub(super) listed: u64,
    /// All that are missing, and the first of them.
    pub(super) missing_objects: u64,
    pub(super) missing: Vec<Missing>,
    /// Whether the hour has to be sealed again: landing added or replaced objects that the manifest doesn't have, or there is
    /// no manifest.
    pub(super) is_outdated: bool,
}

/// Compares an hour with its manifest, `None` if that is gone. The whole hour is listed in any case.
pub(super) async fn compare<B: Bucket, S: Stream>(
    bucket: &B,
    hour: UtcHour,
    entries: Option<Entries<S>>,
) -> Result<Compared, BucketError> {
    let mut listing = Listing::new(bucket, hour);
    let compared = match entries {
        Some(entries) => compare_entries(bucket, &mut listing, entries).await,
        None => Ok(Compared::without_manifest(hour, What::Deleted)),
    };
    let mut found = match compared {
        Ok(found) => found,
        Err(EntriesError::Bucket(error)) => return Err(error),
        Err(problem) => {
            tracing::warn!(partition = hour.partition(), %problem, "the manifest can't be read; the hour is sealed again");
            Compared::without_manifest(hour, What::Overwritten)
        }
    };
    while let Some(listed) = listing.next().await? {
        found.add_unsealed(&listed);
    }
    found.listed = listing.count;
    Ok(found)
}

/// What is gone of a manifest that another has replaced; nothing if it can't be read.
pub(super) async fn compare_replaced<B: Bucket, S: Stream>(
    bucket: &B,
    hour: UtcHour,
    entries: Entries<S>,
) -> Result<Compared, BucketError> {
    match compare_entries(bucket, &mut Listing::new(bucket, hour), entries).await {
        Ok(found) => Ok(found),
        Err(EntriesError::Bucket(error)) => Err(error),
        Err(problem) => {
            tracing::warn!(partition = hour.partition(), %problem, "a manifest that was replaced can't be read");
            Ok(Compared::default())
        }
    }
}

async fn compare_entries<B: Bucket, S: Stream>(
    bucket: &B,
    listing: &mut Listing<'_, B>,
    mut entries: Entries<S>,
) -> Result<Compared, EntriesError> {
    let mut found = Compared::default();
    let mut next = listing.next().await?;
    while let Some(entry) = entries.next().await? {
        while let Some(unsealed) = next.take_if(|listed| listed.key < entry.key) {
            found.add_unsealed(&unsealed);
            next = listing.next().await?;
        }
        let listed = next.take_if(|listed| listed.key == entry.key);
        if listed.is_some() {
            next = listing.next().await?;
        }
        found.sealed += 1;
        match judge(bucket, &entry, listed.as_ref()).await? {
            Change::None => {}
            Change::Replaced => found.is_outdated = true,
            Change::Missing(what) => found.add(Missing { key: entry.key, what }),
        }
    }
    next.iter().for_each(|unsealed| found.add_unsealed(unsealed));
    Ok(found)
}

impl Compared {
    /// For an hour whose manifest is gone or can't be read.
    fn without_manifest(hour: UtcHour, what: What) -> Self {
        let mut found = Self { is_outdated: true, ..Self::default() };
        found.add(Missing { key: manifest_key(&hour.partition()), what });
        found
    }

    fn add(&mut self, missing: Missing) {
        self.missing_objects += 1;
        if self.missing.len() < MAX_KEYS {
            self.missing.push(missing);
        }
    }

    /// Takes an object that the manifest doesn't have. Only landing's objects count.
    fn add_unsealed(&mut self, listed: &Listed) {
        self.is_outdated |= ObjectKey::parse(&listed.key).is_some();
    }
}

/// What happened to an object since its hour was sealed.
enum Change {
    None,
    /// By landing, with an object that has at least the same records.
    Replaced,
    Missing(What),
}

async fn judge(bucket: &impl Bucket, entry: &Entry, listed: Option<&Listed>) -> Result<Change, BucketError> {
    let Some(listed) = listed else { return Ok(Change::Missing(What::Deleted)) };
    if listed.size == entry.bytes {
        return Ok(Change::None);
    }
    let Some(head) = bucket.head(&entry.key).await? else { return Ok(Change::Missing(What::Deleted)) };
    let key = ObjectKey::parse(&entry.key);
    let is_landed = key.is_some_and(|key| ObjectMetadata::from_entries(&key.name, &head.metadata).is_ok());
    Ok(if is_landed { Change::Replaced } else { Change::Missing(What::Overwritten) })
}
