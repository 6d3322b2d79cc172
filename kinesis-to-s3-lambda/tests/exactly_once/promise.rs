//! What must hold at every moment.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use testbed::Bucket;

use crate::s3::Stored;
use crate::stream::{Line, Stream};

/// How the promise was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("{0:?} was acknowledged and is in no object")]
    Missing(Line),
    #[error("{0:?} is in {1:?}")]
    Duplicate(Line, Vec<String>),
    #[error("{0:?} is in {1}")]
    Misplaced(Line, String),
    #[error("{0} is not what its name or its metadata says")]
    Misdescribed(String),
}

impl Violation {
    pub(crate) fn is_not_exactly_once(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Duplicate(..))
    }
}

/// Every line of a record before `acknowledged` is in exactly one object, any other line in at most one, all of them where
/// they belong; and objects are what they say.
pub(crate) fn check(stream: &Stream, acknowledged: usize, bucket: &Bucket<Stored>) -> Result<(), Violation> {
    let mut places: BTreeMap<Line, Vec<&str>> = BTreeMap::new();
    for (key, stored) in bucket.objects() {
        stored.content.lines.iter().for_each(|line| places.entry(*line).or_default().push(key));
    }
    for (line, partition) in stream.lines() {
        match places.get(&line).map_or(&[][..], Vec::as_slice) {
            [] if line.record < acknowledged => return Err(Violation::Missing(line)),
            [] => {}
            [key] if key.starts_with(&partition) => {}
            [key] => return Err(Violation::Misplaced(line, (*key).to_owned())),
            keys => return Err(Violation::Duplicate(line, keys.iter().map(|key| (*key).to_owned()).collect())),
        }
    }
    Ok(())
}

/// An object that was just written has the name and the metadata that its lines call for.
pub(crate) fn check_description(stream: &Stream, key: &str, stored: &Stored) -> Result<(), Violation> {
    let metadata = &stored.object.metadata;
    let mut records: Vec<usize> = stored.lines.iter().map(|line| line.record).collect();
    records.dedup();
    let in_order = stored.lines.is_sorted();
    let named = records.first().is_some_and(|first| key.ends_with(&stream.key_end(*first)));
    let ends = records.last().is_some_and(|last| metadata.last_sequence_number == Some(stream.number(*last)));
    let first_lines = stored.lines.iter().filter(|line| line.is_first_of_its_record()).count();
    let counted = metadata.record_count == first_lines as u64
        && metadata.event_count == stored.lines.len() as u64
        && metadata.uncompressed_bytes == stored.text.len() as u64;
    let hashed = metadata.uncompressed_sha256 == hex::encode(Sha256::digest(&stored.text));
    // "BZh" and a digit open a bzip2 stream.
    let compressed = stored.object.body[3] == b'0' + metadata.block_size.units();
    let described = in_order && named && ends && counted && hashed && compressed;
    described.then_some(()).ok_or_else(|| Violation::Misdescribed(key.to_owned()))
}
