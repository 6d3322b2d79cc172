//! Where a run stopped, as the bucket keeps it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

use super::overlaps::Extents;
use super::published::ETags;
use crate::manifest::{Overlap, Totals};
use crate::rules::completeness::LandedRecords;
use lambda_setup::bucket::{Content, Part};

/// A partition's seal that ran out of time: a line of JSON, then the bytes of the manifest that are not uploaded yet, as they
/// are. S3 invokes seal-partition when it is put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The time of the event that the run began with.
    pub(super) at: UnixMillis,
    /// `None` for a date, and when nothing of the hour was done yet.
    pub(super) draft: Option<Draft>,
}

/// The manifest of an hour, as far as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Draft {
    /// What it replaces: if that changes meanwhile, another run has sealed the hour, and perhaps seen more of it.
    pub(super) replaces: ETags,
    /// The keys of the reseals that were there before the listing began: it satisfies these and no others.
    pub(super) reseals: Vec<String>,
    /// The multipart upload, once there is one, and what it has.
    pub(super) upload: Option<String>,
    pub(super) parts: Vec<Part>,
    /// The last key that was written, counted or skipped.
    pub(super) last_key: Option<String>,
    pub(super) totals: Totals,
    pub(super) landed_records: LandedRecords,
    pub(super) extents: Extents,
    pub(super) overlaps: Vec<Overlap>,
    /// The first objects whose metadata can't be read.
    pub(super) unreadable: Vec<String>,
    /// What is not uploaded yet, less than a part.
    #[serde(skip)]
    pub(super) buffer: Vec<u8>,
}

impl Checkpoint {
    pub(super) fn encode(&self) -> Result<Bytes, serde_json::Error> {
        let mut body = serde_json::to_vec(self)?;
        body.push(b'\n');
        body.extend_from_slice(self.draft.as_ref().map_or(&[], |draft| draft.buffer.as_slice()));
        Ok(body.into())
    }

    /// `None` for anything else: then the seal starts again.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let end = body.iter().position(|byte| *byte == b'\n')?;
        let mut checkpoint: Self = serde_json::from_slice(&body[..end]).ok()?;
        if let Some(draft) = &mut checkpoint.draft {
            draft.buffer = body[end + 1..].to_vec();
        }
        Some(checkpoint)
    }
}

/// A checkpoint that was found in the bucket.
pub(super) struct Found {
    pub(super) etag: String,
    /// The upload that it continues.
    pub(super) upload: Option<String>,
    /// `None` also when it can't be read, or another run has sealed the hour since.
    pub(super) draft: Option<Draft>,
}

impl Found {
    pub(super) fn new(content: &Content) -> Self {
        let draft = Checkpoint::decode(&content.body).and_then(|checkpoint| checkpoint.draft);
        let upload = draft.as_ref().and_then(|draft| draft.upload.clone());
        Self { etag: content.etag.clone(), upload, draft }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_round_trips() {
        let draft = Draft {
            upload: Some("u".into()),
            parts: vec![Part { number: 1, etag: "\"e\"".into() }],
            last_key: Some("k".into()),
            buffer: b"{\n\xff\n".to_vec(),
            ..Draft::default()
        };
        for draft in [Some(draft), None] {
            let checkpoint = Checkpoint { at: UnixMillis(1_795_253_528_006), draft };
            assert_eq!(Checkpoint::decode(&checkpoint.encode().unwrap()), Some(checkpoint));
        }
        for other in [&b""[..], b"{}\n", b"x", b"{\"at\":\"now\",\"draft\":null}\n"] {
            assert_eq!(Checkpoint::decode(other), None);
        }
    }

    #[test]
    fn of_an_older_versions_checkpoint_only_the_time_is_kept() {
        let body = b"{\"at\":\"2026-11-21T10:20:00.000Z\",\"progress\":{\"upload\":\"u\",\"parts\":[]}}\n{\"v\":1";
        let expected = Checkpoint { at: UnixMillis(1_795_256_400_000), draft: None };
        assert_eq!(Checkpoint::decode(body), Some(expected));
    }
}
