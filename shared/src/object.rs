//! Landed objects: their keys, and what their metadata says.

mod key;
mod metadata;

pub use key::{ObjectKey, manifest_key, object_key, prefix, success_key};
pub use metadata::{Attempt, BlockSize, MetadataError, ObjectMetadata, ReceivedIn, Writing};
