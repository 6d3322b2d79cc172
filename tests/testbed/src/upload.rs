//! Multipart uploads: an object that is sent in parts and appears whole.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use crate::S3Error;
use crate::bucket::{Bucket, Condition, Object, check_key, check_metadata, etag_of};
use crate::content::Content;

/// Parts of an upload at most, which are numbered from 1.
const MAX_PARTS: u16 = 10_000;
/// Bytes of each part but the last, at least, unless a bucket says otherwise.
pub(crate) const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;

/// A part as the completion of an upload names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub number: u16,
    pub etag: String,
}

/// An upload that is under way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Upload<C> {
    key: String,
    head: C,
    parts: BTreeMap<u16, C>,
}

impl<C: Content> Bucket<C> {
    /// `CreateMultipartUpload`; the upload's id. `head` has the object's metadata and no body.
    ///
    /// # Errors
    ///
    /// When the key or the metadata is too long.
    pub fn create_upload(&mut self, key: &str, head: C) -> Result<String, S3Error> {
        check_key(key)?;
        check_metadata(&head)?;
        self.uploads_begun += 1;
        let id = format!("upload-{}", self.uploads_begun);
        self.uploads.insert(id.clone(), Upload { key: key.to_owned(), head, parts: BTreeMap::new() });
        Ok(id)
    }

    /// `UploadPart`; the part's `ETag`. It replaces an earlier part of the same number.
    ///
    /// # Errors
    ///
    /// When there is no such upload, or the number is none of a part.
    pub fn upload_part(&mut self, key: &str, upload: &str, number: u16, body: C) -> Result<String, S3Error> {
        if !(1..=MAX_PARTS).contains(&number) {
            return Err(S3Error::InvalidArgument("Part number must be an integer between 1 and 10000, inclusive"));
        }
        let etag = etag_of(&body);
        self.upload(key, upload)?;
        self.uploads.entry(upload.to_owned()).and_modify(|upload| drop(upload.parts.insert(number, body)));
        Ok(etag)
    }

    /// The uploaded parts, in order.
    ///
    /// # Errors
    ///
    /// When there is no such upload.
    pub fn parts(&self, key: &str, upload: &str) -> Result<impl Iterator<Item = (u16, &C)>, S3Error> {
        Ok(self.upload(key, upload)?.parts.iter().map(|(number, part)| (*number, part)))
    }

    /// The uploads that are under way, by key and id.
    pub fn uploads(&self) -> impl Iterator<Item = (&str, &str)> {
        self.uploads.iter().map(|(id, upload)| (upload.key.as_str(), id.as_str()))
    }

    /// `CompleteMultipartUpload`; the object's `ETag`. An upload whose condition does not hold stays.
    ///
    /// # Errors
    ///
    /// When there is no such upload, the parts are not those that were uploaded, or the condition does not hold.
    pub fn complete_upload(
        &mut self,
        now: i64,
        key: &str,
        upload: &str,
        parts: &[Part],
        condition: Condition<'_>,
    ) -> Result<String, S3Error> {
        let object = self.assembled(now, key, upload, parts)?;
        self.check(key, condition)?;
        self.uploads.remove(upload);
        let etag = object.etag.clone();
        self.restore(key, object);
        Ok(etag)
    }

    /// The object that completing an upload with these parts would make.
    ///
    /// # Errors
    ///
    /// When there is no such upload or the parts are not those that were uploaded.
    pub fn assembled(&self, now: i64, key: &str, upload: &str, parts: &[Part]) -> Result<Object<C>, S3Error> {
        let upload = self.upload(key, upload)?;
        if parts.is_empty() {
            return Err(S3Error::MalformedXml);
        }
        if !parts.is_sorted_by(|one, next| one.number < next.number) {
            return Err(S3Error::InvalidPartOrder);
        }
        let contents = parts.iter().map(|part| upload.part(part)).collect::<Result<Vec<C>, S3Error>>()?;
        let all_but_last = contents.split_last().map_or(&[][..], |(_, others)| others);
        if all_but_last.iter().any(|part| part.size() < self.min_part_bytes) {
            return Err(S3Error::EntityTooSmall);
        }
        let etag = etag_of_parts(&contents);
        Ok(Object { content: upload.head.assembled(&contents), etag, last_modified: now })
    }

    /// `AbortMultipartUpload`.
    ///
    /// # Errors
    ///
    /// When there is no such upload.
    pub fn abort_upload(&mut self, key: &str, upload: &str) -> Result<(), S3Error> {
        self.upload(key, upload)?;
        self.uploads.remove(upload);
        Ok(())
    }

    fn upload(&self, key: &str, upload: &str) -> Result<&Upload<C>, S3Error> {
        self.uploads.get(upload).filter(|upload| upload.key == key).ok_or(S3Error::NoSuchUpload)
    }
}

impl<C: Content> Upload<C> {
    fn part(&self, named: &Part) -> Result<C, S3Error> {
        let found = self.parts.get(&named.number).ok_or(S3Error::InvalidPart)?;
        let is_named = etag_of(found).trim_matches('"') == named.etag.trim_matches('"');
        if is_named { Ok(found.clone()) } else { Err(S3Error::InvalidPart) }
    }
}

/// The MD5 of the parts' MD5s, and how many there are.
fn etag_of_parts(parts: &[impl Content]) -> String {
    let md5s: Vec<u8> = parts.iter().flat_map(Content::md5).collect();
    format!("\"{}-{}\"", hex::encode(Md5::digest(md5s)), parts.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Blob;
    use bytes::Bytes;

    const LARGE: usize = MIN_PART_BYTES as usize;

    fn zeros(bytes: usize) -> Blob {
        Bytes::from(vec![0; bytes]).into()
    }

    struct World {
        bucket: Bucket,
        upload: String,
    }

    impl World {
        fn new() -> Self {
            let mut bucket: Bucket = Bucket::default();
            let head = Blob { metadata: [("n".into(), "v".into())].into(), ..Blob::default() };
            let upload = bucket.create_upload("k", head).unwrap();
            Self { bucket, upload }
        }

        fn part(&mut self, number: u16, body: Blob) -> Part {
            let etag = self.bucket.upload_part("k", &self.upload, number, body).unwrap();
            Part { number, etag }
        }

        fn complete(&mut self, parts: &[Part]) -> Result<String, S3Error> {
            self.bucket.complete_upload(0, "k", &self.upload, parts, Condition::None)
        }
    }

    #[test]
    fn a_completed_upload_is_its_parts_in_order_with_the_metadata_it_was_begun_with() {
        let mut world = World::new();
        let last = world.part(7, "end".into());
        world.part(2, "replaced".into());
        let first = world.part(2, zeros(LARGE));
        let etag = world.complete(&[first, last]).unwrap();
        assert_eq!(etag, "\"76b2438ee89d0d54dbb3eb6005874976-2\"");
        let object = world.bucket.get("k").unwrap();
        assert_eq!((object.content.body.len(), &object.content.body[LARGE..]), (LARGE + 3, &b"end"[..]));
        assert_eq!(object.content.metadata["n"], "v");
        assert_eq!(world.bucket.uploads().count(), 0);
    }

    #[test]
    fn parts_that_are_not_those_uploaded_complete_nothing() {
        let mut world = World::new();
        let (one, two) = (world.part(1, zeros(LARGE)), world.part(2, "2".into()));
        let other = Part { etag: two.etag.clone(), ..one.clone() };
        let absent = Part { number: 3, etag: two.etag.clone() };
        assert_eq!(world.complete(&[]), Err(S3Error::MalformedXml));
        assert_eq!(world.complete(&[other]), Err(S3Error::InvalidPart));
        assert_eq!(world.complete(&[one.clone(), absent]), Err(S3Error::InvalidPart));
        assert_eq!(world.complete(&[two.clone(), one.clone()]), Err(S3Error::InvalidPartOrder));
        assert_eq!(world.complete(&[one.clone(), one.clone()]), Err(S3Error::InvalidPartOrder));
        world.complete(&[one.clone(), two]).unwrap();
        assert_eq!(world.complete(&[one]), Err(S3Error::NoSuchUpload));
    }

    #[test]
    fn all_parts_but_the_last_have_five_mebibytes() {
        let mut world = World::new();
        let parts = [world.part(1, zeros(LARGE)), world.part(2, zeros(LARGE - 1)), world.part(3, zeros(1))];
        assert_eq!(world.complete(&parts), Err(S3Error::EntityTooSmall));
        world.complete(&parts[..2]).unwrap();
    }

    #[test]
    fn an_upload_whose_condition_fails_stays_and_one_that_is_aborted_does_not() {
        let mut world = World::new();
        world.bucket.put(0, "k", "there".into(), Condition::None).unwrap();
        let parts = [world.part(1, "1".into())];
        let completed = world.bucket.complete_upload(0, "k", &world.upload, &parts, Condition::Absent);
        assert_eq!(completed, Err(S3Error::PreconditionFailed));
        assert_eq!(world.bucket.parts("k", &world.upload).unwrap().count(), 1);
        world.bucket.abort_upload("k", &world.upload).unwrap();
        assert_eq!(world.complete(&parts), Err(S3Error::NoSuchUpload));
        assert_eq!(world.bucket.abort_upload("k", &world.upload), Err(S3Error::NoSuchUpload));
    }

    #[test]
    fn an_upload_belongs_to_its_key_and_parts_are_numbered_from_1_to_10000() {
        let World { mut bucket, upload } = World::new();
        assert_eq!(bucket.upload_part("other", &upload, 1, "".into()), Err(S3Error::NoSuchUpload));
        for (number, fits) in [(0, false), (1, true), (MAX_PARTS, true), (MAX_PARTS + 1, false)] {
            assert_eq!(bucket.upload_part("k", &upload, number, "".into()).is_ok(), fits, "{number}");
        }
    }
}
