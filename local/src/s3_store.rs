//! The buckets behind s3s's protocol: the testbed's model decides, a folder keeps the bodies, and what is created is notified.

use std::collections::BTreeMap;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use s3s::dto::{ETag, StreamingBlob, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use shared::timestamp::UnixMillis;
use testbed::Bucket;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::RwLock;
use tokio_util::io::ReaderStream;

use crate::clock::Clock;
use crate::s3_folder::{Attributes, Body, Folder};
use crate::s3_notifications::{Created, Notifications};

pub(crate) type Condition<'a> = testbed::Condition<'a>;
pub(crate) type Object = testbed::Object<Body>;
type Buckets = BTreeMap<String, Bucket<Body>>;

#[derive(Clone)]
pub(crate) struct Store {
    folder: Folder,
    /// Whoever writes has all of them alone, with their files.
    pub(crate) buckets: Arc<RwLock<Buckets>>,
    notifications: Arc<Notifications>,
    clock: Clock,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
}

/// What is to become of a body that was written.
pub(crate) struct New {
    pub(crate) body: Body,
    /// As events of objects call the operation.
    pub(crate) by: &'static str,
}

impl Store {
    /// Opens a folder with these buckets and those that it holds already.
    pub(crate) fn open(
        root: &Path,
        buckets: &[String],
        notifications: Arc<Notifications>,
        clock: Clock,
    ) -> io::Result<Self> {
        let folder = Folder::open(root)?;
        let names = buckets.iter().cloned().chain(folder.buckets()?);
        let load = |name: String| {
            folder.create_bucket(&name)?;
            Ok((name.clone(), folder.load(&name)?))
        };
        let buckets = names.map(load).collect::<io::Result<Buckets>>()?;
        Ok(Self { folder, buckets: Arc::new(RwLock::new(buckets)), notifications, clock })
    }

    /// Does something to the folder, off the threads of others.
    pub(crate) async fn files<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let folder = self.folder.clone();
        let done = tokio::task::spawn_blocking(move || action(&folder)).await;
        let done = done.map_err(|problem| s3_error!(problem, InternalError))?;
        done.map_err(|problem| s3_error!(problem, InternalError))
    }

    /// Writes a body that does not belong to an object yet.
    pub(crate) async fn write_body(&self, bytes: Bytes, attributes: Attributes) -> S3Result<Body> {
        let body = self.files(move |folder| folder.write(&bytes[..])).await?;
        Ok(body.with_attributes(Arc::new(attributes)))
    }

    /// Makes a body that was written an object, if the condition holds.
    pub(crate) async fn create(&self, name: Name<'_>, new: New, condition: Condition<'_>) -> S3Result<Object> {
        let mut buckets = self.buckets.write().await;
        let objects = bucket_mut(&mut buckets, name.bucket)?;
        if let Err(error) = objects.admit(name.key, &new.body, condition) {
            self.forget(name, new.body).await?;
            return Err(refused(error));
        }
        let etag = testbed::etag_of(&new.body);
        self.replace(objects, name, new, etag).await
    }

    /// Replaces an object's body, in the folder first.
    pub(crate) async fn replace(
        &self,
        objects: &mut Bucket<Body>,
        name: Name<'_>,
        New { body, by }: New,
        etag: String,
    ) -> S3Result<Object> {
        let old = objects.get(name.key).map(|object| object.content.clone());
        let (bucket, key, kept_etag) = (name.bucket.to_owned(), name.key.to_owned(), etag.clone());
        let keep = move |folder: &Folder| folder.keep(&bucket, &key, &kept_etag, body, old.as_ref());
        let content = self.files(keep).await?;
        let object = Object { content, etag, last_modified: lambda_setup::now().0 };
        objects.restore(name.key, object.clone());
        self.notifications.created(&Created {
            bucket: name.bucket.to_owned(),
            key: name.key.to_owned(),
            size: testbed::Content::size(&object.content),
            e_tag: object.etag.trim_matches('"').to_owned(),
            by,
        });
        Ok(object)
    }

    pub(crate) async fn delete(
        &self,
        objects: &mut Bucket<Body>,
        name: Name<'_>,
        condition: Condition<'_>,
    ) -> S3Result<()> {
        match objects.delete(name.key, condition).map_err(refused)? {
            Some(object) => self.forget(name, object.content).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn forget(&self, name: Name<'_>, body: Body) -> S3Result<()> {
        let (bucket, key) = (name.bucket.to_owned(), name.key.to_owned());
        self.files(move |folder| folder.remove(&bucket, &key, &body)).await
    }

    pub(crate) async fn object(&self, name: Name<'_>) -> S3Result<Object> {
        found(&*self.buckets.read().await, name)
    }

    /// An object and a range of its body, which stays the same whatever happens to the object meanwhile.
    pub(crate) async fn open_object(
        &self,
        name: Name<'_>,
        range: impl FnOnce(&Object) -> S3Result<Range<u64>>,
    ) -> S3Result<(Object, Range<u64>, StreamingBlob)> {
        let buckets = self.buckets.read().await;
        let object = found(&buckets, name)?;
        let range = range(&object)?;
        let (bucket, key, body) = (name.bucket.to_owned(), name.key.to_owned(), object.content.clone());
        let file = self.files(move |folder| folder.read(&bucket, &key, &body)).await?;
        drop(buckets);
        let Some(file) = file else {
            let mut buckets = self.buckets.write().await;
            bucket_mut(&mut buckets, name.bucket)?.remove(name.key);
            return Err(s3_error!(NoSuchKey));
        };
        let mut file = tokio::fs::File::from_std(file);
        file.seek(SeekFrom::Start(range.start)).await.map_err(|problem| s3_error!(problem, InternalError))?;
        let stream = ReaderStream::new(file.take(range.end - range.start));
        Ok((object, range, StreamingBlob::wrap(stream)))
    }

    /// An object, and a range of its body as a new one that can be put elsewhere.
    pub(crate) async fn copy(
        &self,
        name: Name<'_>,
        range: impl FnOnce(&Object) -> S3Result<Range<u64>>,
    ) -> S3Result<(Object, Body)> {
        let buckets = self.buckets.read().await;
        let object = found(&buckets, name)?;
        let range = range(&object)?;
        let (bucket, key, body) = (name.bucket.to_owned(), name.key.to_owned(), object.content.clone());
        let copy = self.files(move |folder| folder.copy(&bucket, &key, &body, range)).await?;
        Ok((object, copy))
    }

    /// A real time as the stack's clock shows it.
    pub(crate) fn timestamp(&self, real_ms: i64) -> Timestamp {
        let shown = i128::from(self.clock.at(UnixMillis(real_ms)).0) * 1_000_000;
        let shown = OffsetDateTime::from_unix_timestamp_nanos(shown);
        Timestamp::from(shown.unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }

    pub(crate) fn system_timestamp(&self, real: SystemTime) -> Timestamp {
        let nanos = OffsetDateTime::from(real).unix_timestamp_nanos();
        self.timestamp(i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or_default())
    }
}

fn found(buckets: &Buckets, name: Name<'_>) -> S3Result<Object> {
    bucket(buckets, name.bucket)?.get(name.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
}

pub(crate) fn bucket<'b>(buckets: &'b Buckets, name: &str) -> S3Result<&'b Bucket<Body>> {
    buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket))
}

pub(crate) fn bucket_mut<'b>(buckets: &'b mut Buckets, name: &str) -> S3Result<&'b mut Bucket<Body>> {
    buckets.get_mut(name).ok_or_else(|| s3_error!(NoSuchBucket))
}

/// What the model refuses, as s3s answers it.
pub(crate) fn refused(error: testbed::S3Error) -> S3Error {
    let code = S3ErrorCode::from_bytes(error.code().as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    S3Error::with_message(code, error.to_string())
}

pub(crate) fn etag_of(object: &Object) -> ETag {
    strong(&object.etag)
}

/// An `ETag` as the model has it, which is in quotes.
pub(crate) fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.trim_matches('"').to_owned())
}
