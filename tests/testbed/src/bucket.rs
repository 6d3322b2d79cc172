//! Objects under keys, with conditional reads, writes and deletions.

use std::collections::BTreeMap;

use crate::S3Error;
use crate::content::{Blob, Content, MAX_METADATA_BYTES};
use crate::upload::{MIN_PART_BYTES, Upload};

/// Bytes of a key in UTF-8. Any text is a key: `.`, `..` and empty segments are characters like others.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>
const MAX_KEY_BYTES: usize = 1024;

/// An S3 general purpose bucket without versioning.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket<C = Blob> {
    /// Bytes of each part of an upload but the last, at least. Tests may have smaller ones.
    pub min_part_bytes: u64,
    pub(crate) objects: BTreeMap<String, Object<C>>,
    pub(crate) uploads: BTreeMap<String, Upload<C>>,
    pub(crate) uploads_begun: u64,
}

impl<C> Default for Bucket<C> {
    fn default() -> Self {
        Self { min_part_bytes: MIN_PART_BYTES, objects: BTreeMap::new(), uploads: BTreeMap::new(), uploads_begun: 0 }
    }
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<C = Blob> {
    pub content: C,
    /// In quotes, as in the header.
    pub etag: String,
    /// Milliseconds since 1970.
    pub last_modified: i64,
}

/// What a write or a deletion requires of the current object.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition<'a> {
    #[default]
    None,
    /// `If-None-Match: *`: there is no object.
    Absent,
    /// `If-Match`: there is one with this `ETag`, in quotes or without.
    Matches(&'a str),
}

impl<C: Content> Bucket<C> {
    /// Whether a write under a condition would take place now.
    ///
    /// # Errors
    ///
    /// `NoSuchKey` for a `Matches` without an object, as S3 has it; else `PreconditionFailed`.
    pub fn check(&self, key: &str, condition: Condition<'_>) -> Result<(), S3Error> {
        match (condition, self.objects.get(key)) {
            (Condition::None, _) | (Condition::Absent, None) => Ok(()),
            (Condition::Matches(_), None) => Err(S3Error::NoSuchKey),
            (Condition::Matches(etag), Some(object)) if same_etag(etag, &object.etag) => Ok(()),
            (Condition::Absent | Condition::Matches(_), Some(_)) => Err(S3Error::PreconditionFailed),
        }
    }

    /// `PutObject`; the object's `ETag`.
    ///
    /// # Errors
    ///
    /// When the key or the metadata is too long, or the condition does not hold.
    pub fn put(&mut self, now: i64, key: &str, content: C, condition: Condition<'_>) -> Result<String, S3Error> {
        self.admit(key, &content, condition)?;
        let etag = etag_of(&content);
        self.restore(key, Object { content, etag: etag.clone(), last_modified: now });
        Ok(etag)
    }

    /// Whether [`Bucket::put`] would take this.
    ///
    /// # Errors
    ///
    /// Those of `put`.
    pub fn admit(&self, key: &str, content: &C, condition: Condition<'_>) -> Result<(), S3Error> {
        check_key(key)?;
        check_metadata(content)?;
        self.check(key, condition)
    }

    /// Puts an object as it was, with its `ETag` and its time: one of an earlier life of the bucket.
    pub fn restore(&mut self, key: &str, object: Object<C>) {
        self.objects.insert(key.to_owned(), object);
    }

    /// What `GetObject` and `HeadObject` find.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Object<C>> {
        self.objects.get(key)
    }

    /// `DeleteObject`; what was there. Without a condition it succeeds where there is nothing too.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html>
    ///
    /// # Errors
    ///
    /// When the condition does not hold.
    pub fn delete(&mut self, key: &str, condition: Condition<'_>) -> Result<Option<Object<C>>, S3Error> {
        self.check(key, condition)?;
        Ok(self.remove(key))
    }

    /// Takes an object away, whatever it is.
    pub fn remove(&mut self, key: &str) -> Option<Object<C>> {
        self.objects.remove(key)
    }

    /// Keeps the objects for which this holds.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&str, &Object<C>) -> bool) {
        self.objects.retain(|key, object| is_kept(key, object));
    }

    /// All objects, in the order of their keys.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &Object<C>)> {
        self.objects.iter().map(|(key, object)| (key.as_str(), object))
    }
}

/// Whether two `ETag`s are the same, with quotes or without.
fn same_etag(one: &str, other: &str) -> bool {
    one.trim_matches('"') == other.trim_matches('"')
}

/// The `ETag`, in quotes, of an object that is put whole, or of a part.
#[must_use]
pub fn etag_of(content: &impl Content) -> String {
    format!("\"{}\"", hex::encode(content.md5()))
}

pub(crate) fn check_key(key: &str) -> Result<(), S3Error> {
    match key.len() {
        0 => Err(S3Error::InvalidArgument("A key has at least one character")),
        1..=MAX_KEY_BYTES => Ok(()),
        _ => Err(S3Error::KeyTooLong),
    }
}

pub(crate) fn check_metadata(content: &impl Content) -> Result<(), S3Error> {
    if content.metadata_bytes() > MAX_METADATA_BYTES { Err(S3Error::MetadataTooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// The MD5 of nothing.
    const EMPTY: &str = "\"d41d8cd98f00b204e9800998ecf8427e\"";

    fn put(bucket: &mut Bucket, key: &str, body: &'static str, condition: Condition<'_>) -> Result<String, S3Error> {
        bucket.put(7, key, body.into(), condition)
    }

    #[test]
    fn an_object_has_the_md5_of_its_body_as_its_etag() {
        let mut bucket: Bucket = Bucket::default();
        assert_eq!(put(&mut bucket, "a", "", Condition::None), Ok(EMPTY.into()));
        assert_eq!(bucket.get("a").map(|object| object.etag.as_str()), Some(EMPTY));
        assert_eq!(put(&mut bucket, "a", "a", Condition::None), Ok("\"0cc175b9c0f1b6a831c399e269772661\"".into()));
    }

    #[test]
    fn a_write_takes_place_only_if_its_condition_holds() {
        use Condition::{Absent, Matches, None};
        let mut bucket: Bucket = Bucket::default();
        assert_eq!(put(&mut bucket, "a", "1", Matches(EMPTY)), Err(S3Error::NoSuchKey));
        let first = put(&mut bucket, "a", "1", Absent).unwrap();
        assert_eq!(put(&mut bucket, "a", "2", Absent), Err(S3Error::PreconditionFailed));
        assert_eq!(put(&mut bucket, "a", "2", Matches(EMPTY)), Err(S3Error::PreconditionFailed));
        assert_eq!(bucket.get("a").unwrap().content, "1".into());
        let second = put(&mut bucket, "a", "2", Matches(&first)).unwrap();
        assert_eq!(put(&mut bucket, "a", "3", Matches(&first)), Err(S3Error::PreconditionFailed));
        put(&mut bucket, "a", "3", Matches(second.trim_matches('"'))).unwrap();
        put(&mut bucket, "a", "4", None).unwrap();
        assert_eq!(bucket.get("a").unwrap().content, "4".into());
    }

    #[test]
    fn a_conditional_deletion_fails_without_an_object_or_when_another_is_there() {
        let mut bucket: Bucket = Bucket::default();
        assert_eq!(bucket.delete("a", Condition::None), Ok(None));
        assert_eq!(bucket.delete("a", Condition::Matches(EMPTY)), Err(S3Error::NoSuchKey));
        let etag = put(&mut bucket, "a", "1", Condition::None).unwrap();
        assert_eq!(bucket.delete("a", Condition::Matches(EMPTY)), Err(S3Error::PreconditionFailed));
        assert!(bucket.delete("a", Condition::Matches(&etag)).unwrap().is_some());
        assert_eq!(bucket.get("a"), None);
    }

    #[rstest]
    #[case::empty("", Err(S3Error::InvalidArgument("A key has at least one character")))]
    #[case::dot(".", Ok(()))]
    #[case::parent("../../etc/passwd", Ok(()))]
    #[case::empty_segments("//a///b/", Ok(()))]
    #[case::of_1024_bytes(&"é".repeat(512), Ok(()))]
    #[case::of_1025_bytes(&["é".repeat(512), "a".into()].concat(), Err(S3Error::KeyTooLong))]
    fn a_key_is_any_text_of_at_most_1024_bytes(#[case] key: &str, #[case] expected: Result<(), S3Error>) {
        assert_eq!(put(&mut Bucket::<Blob>::default(), key, "", Condition::None).map(drop), expected);
    }

    #[test]
    fn metadata_has_at_most_two_kibibytes() {
        let with = |bytes: usize| Blob { metadata: [("n".into(), "v".repeat(bytes - 1))].into(), ..Blob::default() };
        let mut bucket: Bucket = Bucket::default();
        assert!(bucket.put(0, "a", with(MAX_METADATA_BYTES), Condition::None).is_ok());
        let error = bucket.put(0, "a", with(MAX_METADATA_BYTES + 1), Condition::None);
        assert_eq!(error, Err(S3Error::MetadataTooLarge));
    }

    proptest! {
        /// Of writes that all saw the same object, one takes place: that is what conditions are for.
        #[test]
        fn of_competing_conditional_writes_exactly_one_succeeds(bodies in prop::collection::vec("[a-z]{1,3}", 1..20), exists: bool) {
            let mut bucket: Bucket = Bucket::default();
            let seen = exists.then(|| bucket.put(0, "k", "seen by all".into(), Condition::None).unwrap());
            let condition = seen.as_deref().map_or(Condition::Absent, Condition::Matches);
            let written = |body: &String| bucket.put(0, "k", body.clone().into(), condition).is_ok();
            prop_assert_eq!(bodies.iter().map(written).collect::<Vec<_>>(), (0..bodies.len()).map(|at| at == 0).collect::<Vec<_>>());
        }
    }
}
