//! Landed objects: their keys, and what their metadata says.

mod key;
mod line_writer;
mod metadata;

pub use key::{
    FirstRecord, ObjectKey, ObjectName, RejectedName, SPILL_PREFIX, SpillId, manifest_key, object_key, prefix,
    success_key,
};
pub use line_writer::{Compressed, LineWriter};
pub use metadata::{Attempt, BlockSize, LANDED_ETAG, MetadataError, ObjectMetadata, ReceivedIn, Writing, receipt};
