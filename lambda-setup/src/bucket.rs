//! A bucket as the checks and loaders see it, by the S3 SDK.

use std::collections::HashMap;
use std::time::Duration;

use crate::s3::{self, status};
use crate::sdk::{SdkConfig, with_retries};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use shared::timestamp::UnixMillis;

/// Which objects to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct List<'a> {
    /// Keys begin with it.
    pub prefix: &'a str,
    /// Keys are grouped by what precedes its first occurrence after the prefix.
    pub delimiter: Option<&'a str>,
    /// Only keys after this one.
    pub start_after: Option<&'a str>,
    /// The most keys and prefixes; 1,000 is S3's own limit.
    pub limit: Option<u16>,
}

/// A page of a listing, in the order of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Those whose keys are not in a group.
    pub objects: Vec<Listed>,
    /// Groups made by the delimiter.
    pub prefixes: Vec<String>,
    /// Whether more follows, after the last key.
    pub is_truncated: bool,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// As S3 quotes it.
    pub etag: String,
    /// When it was stored, by S3's clock.
    pub modified: UnixMillis,
}

/// An object without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// As S3 quotes it.
    pub etag: String,
    /// What its writer said of it, by names without `x-amz-meta-`.
    pub metadata: HashMap<String, String>,
    /// When it was stored, by S3's clock.
    pub modified: UnixMillis,
}

/// A small object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// As S3 quotes it.
    pub etag: String,
    /// All of it.
    pub body: Bytes,
}

/// What a write requires of the object that it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Nothing.
    Always,
    /// There is none.
    Absent,
    /// It has this `ETag`.
    Matches(&'a str),
}

impl<'a> Condition<'a> {
    /// That nothing has changed since this `ETag` was seen, or none.
    pub fn unchanged(etag: Option<&'a str>) -> Self {
        etag.map_or(Self::Absent, Self::Matches)
    }

    fn if_none_match(self) -> Option<String> {
        (self == Self::Absent).then(|| "*".to_owned())
    }

    fn if_match(self) -> Option<String> {
        if let Self::Matches(etag) = self { Some(etag.to_owned()) } else { None }
    }
}

/// A part of a multipart upload that S3 has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    /// From 1.
    pub number: i32,
    /// As S3 quotes it.
    pub etag: String,
}

/// A call that S3 refused or did not answer, after the SDK's retries.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The object is not as the condition says.
    #[error("{key} was changed meanwhile")]
    ConditionFailed {
        /// The object's.
        key: String,
    },
    /// The multipart upload is not there any more, or its parts are not what they were.
    #[error("the upload of {key} is gone")]
    UploadGone {
        /// The object's.
        key: String,
    },
    /// Anything else.
    #[error("{operation} of {key}: {problem}")]
    Failed {
        /// What was called.
        operation: &'static str,
        /// The object's, or the prefix of a listing.
        key: String,
        /// What S3 said, or why it said nothing.
        problem: String,
    },
}

type Result<T> = std::result::Result<T, BucketError>;

/// Small objects, and listings. Calls are retried a few times before they fail.
pub trait Bucket {
    /// One page.
    fn list(&self, list: List<'_>) -> impl Future<Output = Result<Page>>;
    /// `None` when there is no such object.
    fn head(&self, key: &str) -> impl Future<Output = Result<Option<Head>>>;
    /// `None` when there is no such object. It is held in memory whole.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Content>>>;
    /// The `ETag` of what is there now.
    fn put(&self, key: &str, body: Bytes, condition: Condition<'_>) -> impl Future<Output = Result<String>>;
    /// Succeeds whether it was there or not.
    fn delete(&self, key: &str) -> impl Future<Output = Result<()>>;
    /// Only while it has this `ETag`.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html>
    fn delete_matching(&self, key: &str, etag: &str) -> impl Future<Output = Result<()>>;

    /// All objects under a prefix, for those who have room for them: the checks read a page at a time.
    fn list_all(&self, prefix: &str) -> impl Future<Output = Result<Vec<Listed>>> {
        async move {
            let mut objects: Vec<Listed> = Vec::new();
            loop {
                let start_after = objects.last().map(|last| last.key.clone());
                let page = self.list(List { prefix, start_after: start_after.as_deref(), ..List::default() }).await?;
                objects.extend(page.objects);
                if !page.is_truncated {
                    return Ok(objects);
                }
            }
        }
    }
}

/// An object that is written in parts and appears whole.
pub trait Uploads: Bucket {
    /// The id of a new upload.
    fn create_upload(&self, key: &str) -> impl Future<Output = Result<String>>;
    /// All parts but the last have 5 MiB or more.
    fn upload_part(&self, key: &str, upload: &str, number: i32, body: Bytes) -> impl Future<Output = Result<Part>>;
    /// The `ETag` of what is there now; [`BucketError::UploadGone`] when it can't be completed with these parts any more.
    fn complete_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[Part],
        condition: Condition<'_>,
    ) -> impl Future<Output = Result<String>>;
    /// Succeeds whether it was there or not.
    fn abort_upload(&self, key: &str, upload: &str) -> impl Future<Output = Result<()>>;
    /// Copies an object of at most 5 GB within the bucket, if it has this `ETag`. Keys must not need encoding in URLs.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>
    fn copy(&self, key: &str, etag: &str, to: &str) -> impl Future<Output = Result<()>>;
}

/// Content that is read piece by piece.
pub trait Stream {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>>;
}

/// Objects of any size.
pub trait Streams: Bucket {
    /// An object's content.
    type Stream: Stream;
    /// Metadata and content of one version of an object; `None` when there is none.
    fn open(&self, key: &str) -> impl Future<Output = Result<Option<(Head, Self::Stream)>>>;
}

/// An S3 bucket.
#[derive(Clone)]
pub struct S3Bucket {
    client: Client,
    name: String,
}

/// Attempts at a call, and how long each may take.
const ATTEMPTS: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for S3 that retries: all calls of the checks may be repeated.
pub fn client(config: &SdkConfig) -> Client {
    s3::client(&with_retries(config, ATTEMPTS, ATTEMPT_TIMEOUT))
}

impl S3Bucket {
    /// The bucket of this name.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Bucket for S3Bucket {
    async fn list(&self, list: List<'_>) -> Result<Page> {
        let listing = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .prefix(list.prefix)
            .set_delimiter(list.delimiter.map(str::to_owned))
            .set_start_after(list.start_after.map(str::to_owned))
            .set_max_keys(list.limit.map(i32::from));
        let page = listing.send().await.map_err(|error| failed("listing", list.prefix, error))?;
        let objects =
            page.contents().iter().map(|object| listed(object).ok_or_else(|| incomplete(list.prefix, object)));
        let prefixes = page.common_prefixes().iter().filter_map(|prefix| prefix.prefix().map(str::to_owned));
        Ok(Page {
            objects: objects.collect::<Result<_>>()?,
            prefixes: prefixes.collect(),
            is_truncated: page.is_truncated().unwrap_or_default(),
        })
    }

    async fn head(&self, key: &str) -> Result<Option<Head>> {
        match self.client.head_object().bucket(&self.name).key(key).send().await {
            Ok(head) => Ok(Some(Head {
                etag: head.e_tag().unwrap_or_default().to_owned(),
                modified: millis(head.last_modified()).ok_or_else(|| incomplete(key, &head))?,
                metadata: head.metadata.unwrap_or_default(),
            })),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("HEAD", key, error)),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Content>> {
        let Some((head, mut stream)) = self.open(key).await? else { return Ok(None) };
        let mut body = Vec::new();
        while let Some(piece) = stream.next().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Some(Content { etag: head.etag, body: body.into() }))
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition<'_>) -> Result<String> {
        let put = self.client.put_object().bucket(&self.name).key(key).content_type(content_type(key));
        let put = put.set_if_none_match(condition.if_none_match()).set_if_match(condition.if_match());
        match put.body(ByteStream::from(body)).send().await {
            Ok(put) => Ok(put.e_tag.unwrap_or_default()),
            Err(error) if condition == Condition::Always => Err(failed("PUT", key, error)),
            Err(error) => Err(conditional("PUT", key, error)),
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let deleted = self.client.delete_object().bucket(&self.name).key(key).send().await;
        deleted.map(|_| ()).map_err(|error| failed("DELETE", key, error))
    }

    async fn delete_matching(&self, key: &str, etag: &str) -> Result<()> {
        let deleted = self.client.delete_object().bucket(&self.name).key(key).if_match(etag).send().await;
        deleted.map(|_| ()).map_err(|error| conditional("DELETE", key, error))
    }
}

impl Uploads for S3Bucket {
    async fn create_upload(&self, key: &str) -> Result<String> {
        let create = self.client.create_multipart_upload().bucket(&self.name).key(key);
        let created = create.content_type("application/json").send().await;
        let upload = created.map_err(|error| failed("starting the upload", key, error))?.upload_id;
        upload.ok_or_else(|| BucketError::UploadGone { key: key.to_owned() })
    }

    async fn upload_part(&self, key: &str, upload: &str, number: i32, body: Bytes) -> Result<Part> {
        let part = self.client.upload_part().bucket(&self.name).key(key).upload_id(upload).part_number(number);
        match part.body(ByteStream::from(body)).send().await {
            Ok(part) => Ok(Part { number, etag: part.e_tag.unwrap_or_default() }),
            Err(error) => Err(upload_error("uploading a part", key, error)),
        }
    }

    async fn complete_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[Part],
        condition: Condition<'_>,
    ) -> Result<String> {
        let part = |part: &Part| CompletedPart::builder().part_number(part.number).e_tag(&part.etag).build();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let complete = self.client.complete_multipart_upload().bucket(&self.name).key(key).upload_id(upload);
        let complete = complete.set_if_none_match(condition.if_none_match()).set_if_match(condition.if_match());
        match complete.multipart_upload(parts).send().await {
            Ok(completed) => Ok(completed.e_tag.unwrap_or_default()),
            // 404 may also mean that the upload is gone.
            Err(error) if matches!(status(&error), Some(409 | 412)) && condition != Condition::Always => {
                Err(BucketError::ConditionFailed { key: key.to_owned() })
            }
            Err(error) => Err(upload_error("completing the upload", key, error)),
        }
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        match self.client.abort_multipart_upload().bucket(&self.name).key(key).upload_id(upload).send().await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(failed("ending the upload", key, error)),
        }
    }

    async fn copy(&self, key: &str, etag: &str, to: &str) -> Result<()> {
        let source = format!("{}/{key}", self.name);
        let copy = self.client.copy_object().bucket(&self.name).key(to).copy_source(source).copy_source_if_match(etag);
        copy.send().await.map(|_| ()).map_err(|error| conditional("copying", key, error))
    }
}

/// The rest of an S3 object.
pub struct S3Stream {
    key: String,
    body: ByteStream,
}

impl Stream for S3Stream {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        self.body.next().await.transpose().map_err(|problem| BucketError::Failed {
            operation: "reading",
            key: self.key.clone(),
            problem: problem.to_string(),
        })
    }
}

impl Streams for S3Bucket {
    type Stream = S3Stream;

    async fn open(&self, key: &str) -> Result<Option<(Head, S3Stream)>> {
        match self.client.get_object().bucket(&self.name).key(key).send().await {
            Ok(object) => {
                let etag = object.e_tag().unwrap_or_default().to_owned();
                let modified = millis(object.last_modified()).ok_or_else(|| incomplete(key, &object))?;
                let head = Head { etag, metadata: object.metadata.unwrap_or_default(), modified };
                Ok(Some((head, S3Stream { key: key.to_owned(), body: object.body })))
            }
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("GET", key, error)),
        }
    }
}

/// <https://www.iana.org/assignments/media-types/application/vnd.apache.parquet>
fn content_type(key: &str) -> &'static str {
    if key.ends_with(".parquet") { "application/vnd.apache.parquet" } else { "application/json" }
}

/// Of a call with a condition. 409: another conditional call is under way; 404: what it was about is gone.
fn conditional<E>(operation: &'static str, key: &str, error: SdkError<E, HttpResponse>) -> BucketError
where
    SdkError<E, HttpResponse>: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match status(&error) {
        Some(404 | 409 | 412) => BucketError::ConditionFailed { key: key.to_owned() },
        _ => failed(operation, key, error),
    }
}

fn listed(object: &aws_sdk_s3::types::Object) -> Option<Listed> {
    Some(Listed {
        key: object.key()?.to_owned(),
        size: u64::try_from(object.size()?).ok()?,
        etag: object.e_tag()?.to_owned(),
        modified: millis(object.last_modified())?,
    })
}

fn millis(time: Option<&DateTime>) -> Option<UnixMillis> {
    Some(UnixMillis(time?.to_millis().ok()?))
}

/// An answer without something that S3 always says.
fn incomplete(key: &str, answer: &impl std::fmt::Debug) -> BucketError {
    BucketError::Failed { operation: "reading", key: key.to_owned(), problem: format!("incomplete: {answer:?}") }
}

fn upload_error<E>(operation: &'static str, key: &str, error: SdkError<E, HttpResponse>) -> BucketError
where
    SdkError<E, HttpResponse>: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match error.code() {
        Some("NoSuchUpload" | "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall") => {
            BucketError::UploadGone { key: key.to_owned() }
        }
        _ => failed(operation, key, error),
    }
}

fn failed<E>(operation: &'static str, key: &str, error: SdkError<E, HttpResponse>) -> BucketError
where
    SdkError<E, HttpResponse>: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    BucketError::Failed { operation, key: key.to_owned(), problem: s3::describe(error) }
}
