//! What the bucket keeps of an unfinished seal.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

use super::reaches::Reaches;
use crate::bucket::{Content, Part};
use crate::manifest::{Overlap, Totals};
use crate::rules::completeness::LandedRecords;

/// The `ETag`s of what a seal is to replace: if they change meanwhile, another run has sealed the partition, and perhaps
/// seen more of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replaced {
    pub(super) success: Option<String>,
    pub(super) manifest: Option<String>,
}

/// How far the manifest of an hour is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) replaced: Replaced,
    /// The keys of the [`Reseal`]s that were there before the listing began: these alone it satisfies.
    #[serde(default)]
    pub(super) covers: Vec<String>,
    /// The multipart upload, once there is one, and what it has.
    pub(super) upload: Option<String>,
    pub(super) parts: Vec<Part>,
    /// The last key that was written, counted or skipped.
    pub(super) last_key: Option<String>,
    pub(super) totals: Totals,
    pub(super) landed_records: LandedRecords,
    pub(super) reaches: Reaches,
    pub(super) overlaps: Vec<Overlap>,
    /// The first objects whose metadata can't be read.
    #[serde(default)]
    pub(super) unreadable: Vec<String>,
    /// What is not uploaded yet, less than a part.
    #[serde(skip)]
    pub(super) buffer: Vec<u8>,
}

/// A seal that ran out of time: a line of JSON, then the bytes of the manifest that are not uploaded yet, as they are.
/// S3 invokes seal-partition when it is put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// The time of the event that the seal began with.
    at: String,
    /// `None` when nothing of the hour was done yet.
    pub(super) progress: Option<Progress>,
}

impl Marker {
    pub(super) fn new(at: UnixMillis, progress: Option<Progress>) -> Self {
        Self { at: at.rfc3339(), progress }
    }

    pub(super) fn at(&self) -> Option<UnixMillis> {
        UnixMillis::parse(&self.at)
    }

    pub(super) fn encode(&self) -> Result<Bytes, serde_json::Error> {
        let mut body = serde_json::to_vec(self)?;
        body.push(b'\n');
        body.extend_from_slice(self.progress.as_ref().map_or(&[], |progress| progress.buffer.as_slice()));
        Ok(body.into())
    }

    /// `None` for anything else: the seal begins anew then.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let end = body.iter().position(|byte| *byte == b'\n')?;
        let mut marker: Self = serde_json::from_slice(&body[..end]).ok()?;
        if let Some(progress) = &mut marker.progress {
            progress.buffer = body[end + 1..].to_vec();
        }
        Some(marker)
    }
}

/// Where an earlier run stopped.
pub(super) struct Stopped {
    /// The marker as it is in the bucket.
    pub(super) content: Content,
    /// `None` when nothing of the hour was done yet.
    pub(super) progress: Option<Progress>,
}

/// That an hour is to be sealed anew. It is put before the `late/` marker is deleted, which happens before the hour is listed;
/// only a seal whose listing began later satisfies it, and it stays until that seal is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reseal {
    /// Of the `_SUCCESS` that was there, if there was one: what has come since is to be reported.
    pub(super) late_objects: Option<u64>,
    pub(super) is_sealed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_to_the_byte() {
        let progress = Progress {
            upload: Some("u".into()),
            parts: vec![Part { number: 1, etag: "\"e\"".into() }],
            last_key: Some("k".into()),
            buffer: b"{\n\xff\n".to_vec(),
            ..Progress::default()
        };
        for progress in [Some(progress), None] {
            let marker = Marker::new(UnixMillis(1_795_253_528_006), progress);
            let decoded = Marker::decode(&marker.encode().unwrap()).unwrap();
            assert_eq!(decoded, marker);
            assert_eq!(decoded.at(), Some(UnixMillis(1_795_253_528_006)));
        }
        for other in [&b""[..], b"{}\n", b"x", b"{\"at\":\"now\",\"progress\":null}"] {
            assert_eq!(Marker::decode(other), None);
        }
    }
}
