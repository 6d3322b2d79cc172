//! What the embedded S3 does: s3s-fs, with what it lacks.
//!
//! - created objects are notified;
//! - listings come in S3's order at any size, with ETags, and encoded when that is asked;
//! - a multipart upload may be continued by another environment of a function than the one that began it, and a completed
//!   one keeps no checksum of the object that it replaces;
//! - reads take `If-Match` and `If-None-Match`, deletions `If-Match`, and a range may be longer than the object;
//! - a key that others begin with is no object, and keys that would leave the bucket's folder are refused;
//! - a deleted object leaves nothing behind; times are the stack's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use base64_simd::URL_SAFE_NO_PAD;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use serde_json::{Value, json};
use shared::timestamp::UnixMillis;
use time::OffsetDateTime;
use tokio::fs;

use crate::clock::Clock;
use crate::s3::{is_file_name, unfit_key};
use crate::s3_listing::{Listing, Question, after_all};
use crate::s3_notifications::{Created, Notifications};
use crate::s3_pages::{ShownPage, key_in, limit, shown_key, shown_page, token_of};

/// The objects of all buckets.
pub(crate) struct Store {
    pub(crate) files: FileSystem,
    pub(crate) root: PathBuf,
    pub(crate) listing: Arc<Listing>,
    pub(crate) notifications: Arc<Notifications>,
    pub(crate) clock: Clock,
}

impl Store {
    /// The ETag of an object, as far as it came through S3; files that were put into the folder have none here.
    async fn e_tag(&self, bucket: &str, key: &str) -> Option<String> {
        e_tag_in(&fs::read(beside(&self.root, bucket, key, "internal")).await.ok()?)
    }

    async fn created(&self, bucket: String, key: String, e_tag: Option<ETag>, by: &'static str) {
        let Ok(metadata) = fs::metadata(self.root.join(&bucket).join(&key)).await else { return };
        if !metadata.is_file() {
            return;
        }
        let e_tag = e_tag.map(ETag::into_value).unwrap_or_default();
        self.notifications.created(&Created { bucket, key, size: metadata.len(), e_tag, by });
    }

    /// Leaves the ETag of a completed upload, but no checksums of the object that was there before.
    async fn forget_old_checksums(&self, bucket: &str, key: &str) -> S3Result<Option<ETag>> {
        let Some(e_tag) = self.e_tag(bucket, key).await else { return Ok(None) };
        let info = json!({"e_tag": e_tag}).to_string();
        let written = fs::write(beside(&self.root, bucket, key, "internal"), info).await;
        written.map_err(|problem| s3_error!(problem, InternalError))?;
        Ok(Some(ETag::Strong(e_tag)))
    }

    async fn forget(&self, bucket: &str, key: &str) -> S3Result<()> {
        if fs::try_exists(self.root.join(bucket).join(key)).await.unwrap_or(true) {
            return Ok(());
        }
        for what in ["internal", "metadata"] {
            match fs::remove_file(beside(&self.root, bucket, key, what)).await {
                Ok(()) => {}
                Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => {}
                Err(problem) => return Err(s3_error!(problem, InternalError)),
            }
        }
        Ok(())
    }

    /// A key that other keys begin with is a folder here, and a key below an object would be in one that is none: neither is an object.
    async fn must_be_object(&self, bucket: &str, key: &str) -> S3Result<()> {
        let found = fs::metadata(self.root.join(bucket).join(key)).await;
        if found.is_ok_and(|metadata| metadata.is_file()) { Ok(()) } else { Err(s3_error!(NoSuchKey)) }
    }

    /// A file can't be a folder too: S3 would take a key that others begin with.
    async fn must_have_room(&self, bucket: &str, key: &str) -> S3Result<()> {
        let bucket = self.root.join(bucket);
        let is_folder = !key.ends_with('/') && bucket.join(key).is_dir();
        let below_an_object = Path::new(key).ancestors().skip(1).any(|parent| bucket.join(parent).is_file());
        if is_folder || below_an_object {
            return Err(s3_error!(
                NotImplemented,
                "The one-machine stack keeps objects as files: {key:?} can't be both an object and the beginning of other keys"
            ));
        }
        Ok(())
    }

    /// What is to be copied is in a header, where no path was checked.
    async fn must_be_source(&self, source: &CopySource) -> S3Result<()> {
        match source {
            CopySource::Bucket { bucket, key, .. } if is_file_name(key) => self.must_be_object(bucket, key).await,
            _ => Err(s3_error!(NoSuchKey)),
        }
    }

    fn shown(&self, real: Option<Timestamp>) -> Option<Timestamp> {
        real.map(|real| in_stack_time(self.clock, SystemTime::from(OffsetDateTime::from(real))))
    }

    /// A page of a listing, as S3 shows it. A thousand small files are read for that: in one task, off the others' threads.
    async fn page(&self, question: Question, encoded: bool) -> S3Result<ShownPage> {
        if !self.root.join(&question.bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        let (listing, root, clock) = (self.listing.clone(), self.root.clone(), self.clock);
        let page = tokio::task::spawn_blocking(move || {
            let page = listing.page(&question)?;
            Ok::<_, std::io::Error>(shown_page(page, &root, &question.bucket, clock, encoded))
        });
        let page = page.await.map_err(|problem| s3_error!(problem, InternalError))?;
        page.map_err(|problem| s3_error!(problem, InternalError))
    }
}

/// Where s3s-fs keeps what belongs to an object besides its content.
pub(crate) fn beside(root: &Path, bucket: &str, key: &str, what: &str) -> PathBuf {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode_to_string(text);
    root.join(format!(".bucket-{}.object-{}.{what}.json", encode(bucket), encode(key)))
}

pub(crate) fn in_stack_time(clock: Clock, real: SystemTime) -> Timestamp {
    let real = OffsetDateTime::from(real);
    let millis = i64::try_from(real.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX);
    let shown = i128::from(clock.at(UnixMillis(millis)).0) * 1_000_000;
    Timestamp::from(OffsetDateTime::from_unix_timestamp_nanos(shown).unwrap_or(real))
}

pub(crate) fn e_tag_in(info: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(info).ok()?["e_tag"].as_str().map(str::to_owned)
}

/// The answer to a client that has the object already.
fn changed(condition: Option<&IfNoneMatch>, e_tag: Option<&ETag>) -> S3Result<()> {
    let is_known = match (condition, e_tag) {
        (Some(ETagCondition::Any), Some(_)) => true,
        (Some(ETagCondition::ETag(known)), Some(e_tag)) => e_tag.weak_cmp(known),
        _ => false,
    };
    if is_known { Err(s3_error!(NotModified)) } else { Ok(()) }
}

fn matches(condition: Option<&IfMatch>, e_tag: Option<&ETag>) -> S3Result<()> {
    match (condition, e_tag) {
        (Some(ETagCondition::ETag(expected)), Some(e_tag)) if !e_tag.strong_cmp(expected) => {
            Err(s3_error!(PreconditionFailed, "ETag does not match"))
        }
        _ => Ok(()),
    }
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(request).await
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.files.delete_bucket(request).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.files.get_bucket_location(request).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(request).await
    }

    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        self.files.list_buckets(request).await
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.files.list_parts(request).await
    }

    // Multipart uploads go on without the key that signed them: environments of one function have different ones, and
    // s3s-fs lets nobody else continue an upload.

    async fn create_multipart_upload(
        &self,
        mut request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        request.credentials = None;
        self.files.create_multipart_upload(request).await
    }

    async fn upload_part(&self, mut request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        request.credentials = None;
        self.files.upload_part(request).await
    }

    async fn upload_part_copy(
        &self,
        mut request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        request.credentials = None;
        self.must_be_source(&request.input.copy_source).await?;
        self.files.upload_part_copy(request).await
    }

    async fn abort_multipart_upload(
        &self,
        mut request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        request.credentials = None;
        self.files.abort_multipart_upload(request).await
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        self.must_have_room(&bucket, &key).await?;
        let by = if request.method == hyper::Method::POST { "Post" } else { "Put" };
        let response = self.files.put_object(request).await?;
        self.created(bucket, key, response.output.e_tag.clone(), by).await;
        Ok(response)
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        self.must_be_source(&request.input.copy_source).await?;
        let mut response = self.files.copy_object(request).await?;
        let mut e_tag = None;
        if let Some(result) = &mut response.output.copy_object_result {
            e_tag.clone_from(&result.e_tag);
            result.last_modified = self.shown(result.last_modified.take());
        }
        self.created(bucket, key, e_tag, "Copy").await;
        Ok(response)
    }

    async fn complete_multipart_upload(
        &self,
        mut request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        request.credentials = None;
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        let response = self.files.complete_multipart_upload(request).await?;
        let e_tag = self.forget_old_checksums(&bucket, &key).await?;
        self.created(bucket, key, e_tag, "CompleteMultipartUpload").await;
        Ok(response)
    }

    async fn get_object(&self, mut request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let (condition, known) = (request.input.if_match.clone(), request.input.if_none_match.clone());
        self.must_be_object(&request.input.bucket, &request.input.key).await?;
        if let Some(Range::Suffix { length }) = request.input.range {
            let size = fs::metadata(self.root.join(&request.input.bucket).join(&request.input.key)).await;
            if size.is_ok_and(|metadata| metadata.len() <= length) {
                request.input.range = Some(Range::Int { first: 0, last: None });
            }
        }
        let mut response = self.files.get_object(request).await?;
        matches(condition.as_ref(), response.output.e_tag.as_ref())?;
        changed(known.as_ref(), response.output.e_tag.as_ref())?;
        response.output.last_modified = self.shown(response.output.last_modified.take());
        Ok(response)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let (condition, known) = (request.input.if_match.clone(), request.input.if_none_match.clone());
        self.must_be_object(&request.input.bucket, &request.input.key).await?;
        let mut response = self.files.head_object(request).await?;
        matches(condition.as_ref(), response.output.e_tag.as_ref())?;
        changed(known.as_ref(), response.output.e_tag.as_ref())?;
        response.output.last_modified = self.shown(response.output.last_modified.take());
        Ok(response)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        let e_tag = self.e_tag(&bucket, &key).await.map(ETag::Strong);
        matches(request.input.if_match.as_ref(), e_tag.as_ref())?;
        let response = self.files.delete_object(request).await?;
        self.forget(&bucket, &key).await?;
        Ok(response)
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let bucket = request.input.bucket.clone();
        // These keys are in the body, where no path was checked.
        if let Some(unfit) = request.input.delete.objects.iter().find(|object| !is_file_name(&object.key)) {
            return Err(unfit_key(&unfit.key));
        }
        let response = self.files.delete_objects(request).await?;
        for deleted in response.output.deleted.iter().flatten() {
            self.forget(&bucket, deleted.key.as_deref().unwrap_or_default()).await?;
        }
        Ok(response)
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let max_keys = limit(input.max_keys)?;
        let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        // In this version a common prefix that ended a page is itself where the next one begins.
        let after = input.marker.as_ref().map(|marker| match delimiter {
            Some(delimiter) if marker.ends_with(delimiter) => after_all(marker),
            _ => marker.clone(),
        });
        let question = Question {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            after,
            limit: usize::try_from(max_keys).unwrap_or(0),
        };
        let encoded = input.encoding_type.as_ref().is_some_and(|kind| kind.as_str() == EncodingType::URL);
        let page = self.page(question, encoded).await?;
        let is_truncated = page.next.is_some();
        Ok(S3Response::new(ListObjectsOutput {
            next_marker: page.last.filter(|_| is_truncated).map(|last| shown_key(&last, encoded)),
            is_truncated: Some(is_truncated),
            contents: Some(page.objects),
            common_prefixes: Some(page.prefixes),
            name: Some(input.bucket),
            prefix: Some(shown_key(&input.prefix.unwrap_or_default(), encoded)),
            delimiter: input.delimiter.map(|delimiter| shown_key(&delimiter, encoded)),
            marker: Some(shown_key(&input.marker.unwrap_or_default(), encoded)),
            max_keys: Some(max_keys),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let max_keys = limit(input.max_keys)?;
        let continued = input.continuation_token.as_deref().map(key_in).transpose()?;
        let question = Question {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            after: continued.max(input.start_after.clone()),
            limit: usize::try_from(max_keys).unwrap_or(0),
        };
        let encoded = input.encoding_type.as_ref().is_some_and(|kind| kind.as_str() == EncodingType::URL);
        let page = self.page(question, encoded).await?;
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_deref().map(token_of),
            continuation_token: input.continuation_token,
            contents: Some(page.objects),
            common_prefixes: Some(page.prefixes),
            name: Some(input.bucket),
            prefix: Some(shown_key(&input.prefix.unwrap_or_default(), encoded)),
            delimiter: input.delimiter.map(|delimiter| shown_key(&delimiter, encoded)),
            start_after: input.start_after.map(|after| shown_key(&after, encoded)),
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        }))
    }
}
