//! Bodies as they arrive: whole, and checked against what their senders say of them.

use axum::body::Bytes;
use base64_simd::STANDARD as BASE64;
use md5::{Digest, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{Body, S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};

use crate::body::MAX_BYTES;

/// What a sender says of a body, in its headers and trailers.
pub(crate) struct Digests {
    pub(crate) content_md5: Option<String>,
    pub(crate) checksum: Checksum,
    pub(crate) trailing_headers: Option<TrailingHeaders>,
}

impl Digests {
    /// The body, if it is what its sender says.
    pub(crate) async fn checked(self, body: Option<StreamingBlob>) -> S3Result<Bytes> {
        let body = match body {
            Some(body) => Body::from(body).store_all_limited(MAX_BYTES).await,
            None => Ok(Bytes::new()),
        };
        let body = body.map_err(|source| S3Error::with_source(S3ErrorCode::IncompleteBody, source))?;
        if let Some(content_md5) = &self.content_md5
            && *content_md5 != BASE64.encode_to_string(Md5::digest(&body))
        {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        let claimed = self.with_trailers();
        if checksum_of(&body, &claimed) != claimed {
            return Err(s3_error!(BadDigest, "The checksum you specified did not match what we received."));
        }
        Ok(body)
    }

    /// With the checksums in the trailers, which are known once the body has been read.
    fn with_trailers(self) -> Checksum {
        let mut claimed = self.checksum;
        let Some(trailing) = self.trailing_headers.and_then(|headers| headers.take()) else { return claimed };
        for (name, checksum) in [
            ("x-amz-checksum-crc32", &mut claimed.checksum_crc32),
            ("x-amz-checksum-crc32c", &mut claimed.checksum_crc32c),
            ("x-amz-checksum-crc64nvme", &mut claimed.checksum_crc64nvme),
            ("x-amz-checksum-sha1", &mut claimed.checksum_sha1),
            ("x-amz-checksum-sha256", &mut claimed.checksum_sha256),
        ] {
            if let Some(value) = trailing.get(name) {
                *checksum = Some(String::from_utf8_lossy(value.as_bytes()).into_owned());
            }
        }
        claimed
    }
}

/// The checksums of the kinds that somebody gave.
fn checksum_of(body: &[u8], given: &Checksum) -> Checksum {
    let mut hasher = ChecksumHasher {
        crc32: given.checksum_crc32.as_ref().map(|_| Default::default()),
        crc32c: given.checksum_crc32c.as_ref().map(|_| Default::default()),
        crc64nvme: given.checksum_crc64nvme.as_ref().map(|_| Default::default()),
        sha1: given.checksum_sha1.as_ref().map(|_| Default::default()),
        sha256: given.checksum_sha256.as_ref().map(|_| Default::default()),
    };
    hasher.update(body);
    hasher.finalize()
}
