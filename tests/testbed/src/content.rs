//! What an object holds. The bucket needs to know little of it, so that the same model serves bytes in memory, files, and
//! whatever a test wants to know of an object.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::{Digest, Md5};

/// Bytes of an object's user metadata, names and values.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
pub(crate) const MAX_METADATA_BYTES: usize = 2 * 1024;

/// A body and the metadata that was stored with it.
pub trait Content: Clone {
    /// Bytes of the body.
    fn size(&self) -> u64;

    /// The MD5 of the body.
    fn md5(&self) -> [u8; 16];

    /// Bytes of the names and values of the user metadata.
    fn metadata_bytes(&self) -> usize;

    /// The object that a multipart upload makes of its parts. `self` is what the upload was begun with: metadata, no body.
    #[must_use]
    fn assembled(&self, parts: &[Self]) -> Self;
}

/// Content in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blob {
    pub body: Bytes,
    /// `x-amz-meta-…`, without that prefix.
    pub metadata: BTreeMap<String, String>,
}

impl Blob {
    pub fn new(body: impl Into<Bytes>, metadata: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { body: body.into(), metadata: metadata.into_iter().collect() }
    }
}

impl<B: Into<Bytes>> From<B> for Blob {
    fn from(body: B) -> Self {
        Self::new(body, [])
    }
}

impl Content for Blob {
    fn size(&self) -> u64 {
        self.body.len() as u64
    }

    fn md5(&self) -> [u8; 16] {
        Md5::digest(&self.body).into()
    }

    fn metadata_bytes(&self) -> usize {
        self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn assembled(&self, parts: &[Self]) -> Self {
        let body: Vec<u8> = parts.iter().flat_map(|part| part.body.iter().copied()).collect();
        Self { body: body.into(), metadata: self.metadata.clone() }
    }
}
