//! Pages of listings as S3 shows them: with ETags and in the stack's time, keys encoded when that is asked.

use std::path::Path;

use base64_simd::STANDARD;
use s3s::dto::{CommonPrefix, ETag, Object, ObjectStorageClass};
use s3s::{S3Result, s3_error};

use crate::clock::Clock;
use crate::s3_listing::{Entry, Page};
use crate::s3_notifications::url_encoded;
use crate::s3_store::{beside, e_tag_in, in_stack_time};

/// S3's own limit for a page.
const MAX_KEYS: i32 = 1_000;

/// A page of a listing with what S3 tells of each object.
pub(crate) struct ShownPage {
    pub(crate) objects: Vec<Object>,
    pub(crate) prefixes: Vec<CommonPrefix>,
    /// The last key or prefix.
    pub(crate) last: Option<String>,
    pub(crate) next: Option<String>,
}

pub(crate) fn shown_page(page: Page, root: &Path, bucket: &str, clock: Clock, encoded: bool) -> ShownPage {
    let (mut objects, mut prefixes, mut last) = (Vec::new(), Vec::new(), None);
    for entry in page.entries {
        match entry {
            Entry::Object { key, metadata } => {
                let info = std::fs::read(beside(root, bucket, &key, "internal")).ok();
                objects.push(Object {
                    key: Some(shown_key(&key, encoded)),
                    size: i64::try_from(metadata.len()).ok(),
                    last_modified: metadata.modified().ok().map(|real| in_stack_time(clock, real)),
                    e_tag: info.and_then(|info| e_tag_in(&info)).map(ETag::Strong),
                    storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                    ..Object::default()
                });
                last = Some(key);
            }
            Entry::Prefix(prefix) => {
                prefixes.push(CommonPrefix { prefix: Some(shown_key(&prefix, encoded)) });
                last = Some(prefix);
            }
        }
    }
    ShownPage { objects, prefixes, last, next: page.next }
}

pub(crate) fn shown_key(key: &str, encoded: bool) -> String {
    if encoded { url_encoded(key) } else { key.to_owned() }
}

pub(crate) fn limit(max_keys: Option<i32>) -> S3Result<i32> {
    match max_keys.unwrap_or(MAX_KEYS) {
        0.. => Ok(max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS)),
        _ => Err(s3_error!(InvalidArgument, "max-keys must not be negative")),
    }
}

/// Continuation tokens are opaque to clients, and safe in XML whatever the key.
pub(crate) fn token_of(key: &str) -> String {
    STANDARD.encode_to_string(key)
}

pub(crate) fn key_in(token: &str) -> S3Result<String> {
    let bytes = STANDARD.decode_to_vec(token).ok();
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3_listing::after_all;

    #[test]
    fn tokens_are_read_back_and_others_are_refused() {
        let key = after_all("events/dt=2026-11-18/");
        assert_eq!(key_in(&token_of(&key)).unwrap(), key);
        assert!(key_in("events/").is_err());
    }

    #[test]
    fn pages_are_at_most_s3_s() {
        assert_eq!(limit(None).unwrap(), 1_000);
        assert_eq!(limit(Some(1_001)).unwrap(), 1_000);
        assert_eq!(limit(Some(0)).unwrap(), 0);
        assert!(limit(Some(-1)).is_err());
    }
}
