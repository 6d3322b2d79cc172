//! S3's operations, from s3s's requests to the store and back.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use testbed::{Content, MAX_KEYS, Part};

use crate::s3_body::Digests;
use crate::s3_folder::{Attributes, Body};
use crate::s3_notifications::url_encoded;
use crate::s3_store::{Condition, Name, New, Object, Store, bucket, bucket_mut, etag_of, refused, strong};

macro_rules! name {
    ($input:ident) => {
        Name { bucket: &$input.bucket, key: &$input.key }
    };
}

type Answer<O> = S3Result<S3Response<O>>;

/// What a request says about an object besides its body.
macro_rules! attributes {
    ($input:ident) => {
        Attributes {
            metadata: $input.metadata.take().unwrap_or_default().into_iter().collect(),
            content_type: $input.content_type.take(),
            content_encoding: $input.content_encoding.take(),
            content_disposition: $input.content_disposition.take(),
            content_language: $input.content_language.take(),
            cache_control: $input.cache_control.take(),
        }
    };
}

/// What a request says of its body.
macro_rules! digests {
    ($request:ident) => {
        Digests {
            content_md5: $request.input.content_md5.take(),
            checksum: Checksum {
                checksum_crc32: $request.input.checksum_crc32.take(),
                checksum_crc32c: $request.input.checksum_crc32c.take(),
                checksum_crc64nvme: $request.input.checksum_crc64nvme.take(),
                checksum_sha1: $request.input.checksum_sha1.take(),
                checksum_sha256: $request.input.checksum_sha256.take(),
                ..Checksum::default()
            },
            trailing_headers: $request.trailing_headers.take(),
        }
    };
}

/// What `GetObject` and `HeadObject` both answer.
macro_rules! described {
    ($output:ident, $store:ident, $object:ident) => {
        $output {
            e_tag: Some(etag_of(&$object)),
            last_modified: Some($store.timestamp($object.last_modified)),
            accept_ranges: Some("bytes".into()),
            metadata: Some($object.content.attributes.metadata.clone().into_iter().collect()),
            content_type: $object.content.attributes.content_type.clone(),
            content_encoding: $object.content.attributes.content_encoding.clone(),
            content_disposition: $object.content.attributes.content_disposition.clone(),
            content_language: $object.content.attributes.content_language.clone(),
            cache_control: $object.content.attributes.cache_control.clone(),
            ..$output::default()
        }
    };
}

fn encoded_key(key: &str, encoding: Option<&EncodingType>) -> String {
    let is_encoded = encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
    if is_encoded { url_encoded(key) } else { key.to_owned() }
}

fn limit(max_keys: Option<i32>) -> S3Result<usize> {
    let limit = max_keys.map_or(Ok(MAX_KEYS), usize::try_from);
    Ok(limit.map_err(|_| s3_error!(InvalidArgument, "max-keys must not be negative"))?.min(MAX_KEYS))
}

fn condition<'a>(matches: Option<&'a IfMatch>, none_match: Option<&IfNoneMatch>) -> S3Result<Condition<'a>> {
    match (matches, none_match) {
        (None, None) => Ok(Condition::None),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::Matches(etag.value())),
        _ => Err(s3_error!(NotImplemented, "If-None-Match takes *, If-Match an ETag, and not both")),
    }
}

/// Whether a read with these conditions gets the object.
fn check_read(object: &Object, matches: Option<&IfMatch>, none_match: Option<&IfNoneMatch>) -> S3Result<()> {
    let etag = etag_of(object);
    if let Some(ETagCondition::ETag(expected)) = matches
        && !etag.strong_cmp(expected)
    {
        return Err(s3_error!(PreconditionFailed));
    }
    match none_match {
        Some(ETagCondition::ETag(known)) if etag.weak_cmp(known) => Err(s3_error!(NotModified)),
        Some(ETagCondition::Any) => Err(s3_error!(NotModified)),
        _ => Ok(()),
    }
}

fn source(source: &CopySource) -> S3Result<Name<'_>> {
    match source {
        CopySource::Bucket { bucket, key, .. } => Ok(Name { bucket, key }),
        _ => Err(s3_error!(NotImplemented, "objects are copied from buckets")),
    }
}

/// Whether a copy with these conditions gets its source.
fn check_source(object: &Object, matches: Option<&IfMatch>, none_match: Option<&IfNoneMatch>) -> S3Result<()> {
    check_read(object, matches, none_match).map_err(|_| s3_error!(PreconditionFailed))
}

/// The bytes that `UploadPartCopy` copies: unlike those that `GetObject` reads, all of them must exist.
fn copied_range(range: Option<&str>, size: u64) -> S3Result<std::ops::Range<u64>> {
    let Some(range) = range else { return Ok(0..size) };
    match Range::parse(range) {
        Ok(Range::Int { first, last: Some(last) }) if last < size => Ok(first..last + 1),
        Ok(Range::Int { last: Some(_), .. }) => {
            Err(s3_error!(InvalidArgument, "Range specified is not valid for source object of size: {size}"))
        }
        _ => Err(s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last")),
    }
}

fn part_number(number: PartNumber) -> u16 {
    // None that S3 takes: the model refuses it.
    u16::try_from(number).unwrap_or(0)
}

fn parts(upload: Option<CompletedMultipartUpload>) -> Vec<Part> {
    let parts = upload.and_then(|upload| upload.parts).unwrap_or_default();
    let part = |part: CompletedPart| Part {
        number: part_number(part.part_number.unwrap_or_default()),
        etag: part.e_tag.map(ETag::into_value).unwrap_or_default(),
    };
    parts.into_iter().map(part).collect()
}

impl Store {
    fn listed(&self, key: String, object: &Object) -> s3s::dto::Object {
        s3s::dto::Object {
            key: Some(key),
            size: i64::try_from(object.content.size()).ok(),
            last_modified: Some(self.timestamp(object.last_modified)),
            e_tag: Some(etag_of(object)),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..s3s::dto::Object::default()
        }
    }

    async fn keep_part(&self, name: Name<'_>, upload: &str, number: PartNumber, body: Body) -> S3Result<ETag> {
        let mut buckets = self.buckets.write().await;
        let objects = bucket_mut(&mut buckets, name.bucket)?;
        let number = part_number(number);
        let replaced = objects.parts(name.key, upload).ok().and_then(|mut parts| parts.find(|part| part.0 == number));
        let replaced = replaced.map(|(_, part)| part.clone());
        let etag = objects.upload_part(name.key, upload, number, body.clone());
        if let Some(part) = if etag.is_ok() { replaced } else { Some(body) } {
            self.forget(name, part).await?;
        }
        Ok(strong(&etag.map_err(refused)?))
    }

    async fn end_upload(&self, objects: &mut testbed::Bucket<Body>, name: Name<'_>, upload: &str) -> S3Result<()> {
        let parts: Vec<Body> =
            objects.parts(name.key, upload).map_err(refused)?.map(|(_, part)| part.clone()).collect();
        objects.abort_upload(name.key, upload).map_err(refused)?;
        for part in parts {
            self.forget(name, part).await?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn get_bucket_location(&self, request: S3Request<GetBucketLocationInput>) -> Answer<GetBucketLocationOutput> {
        bucket(&*self.buckets.read().await, &request.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        bucket(&*self.buckets.read().await, &request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let mut listed = Vec::new();
        for name in self.buckets.read().await.keys().cloned() {
            let looked_at = name.clone();
            let created = self.files(move |folder| folder.bucket_created(&looked_at)).await?;
            let creation_date = Some(self.system_timestamp(created));
            listed.push(s3s::dto::Bucket { name: Some(name), creation_date, ..s3s::dto::Bucket::default() });
        }
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(listed), ..ListBucketsOutput::default() }))
    }

    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let by = if request.method == hyper::Method::POST { "Post" } else { "Put" };
        let digests = digests!(request);
        let mut input = request.input;
        let condition = condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let bytes = digests.checked(input.body.take()).await?;
        let body = self.write_body(bytes, attributes!(input)).await?;
        let object = self.create(name!(input), New { body, by }, condition).await?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(etag_of(&object)), ..PutObjectOutput::default() }))
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        let mut input = request.input;
        let all = |object: &Object| {
            let (matches, none_match) = (input.copy_source_if_match.as_ref(), input.copy_source_if_none_match.as_ref());
            check_source(object, matches, none_match)?;
            Ok(0..object.content.size())
        };
        let (object, body) = self.copy(source(&input.copy_source)?, all).await?;
        let directive = input.metadata_directive.as_ref().map(MetadataDirective::as_str);
        let is_new = directive == Some(MetadataDirective::REPLACE);
        let attributes = if is_new { Arc::new(attributes!(input)) } else { object.content.attributes };
        let new = New { body: body.with_attributes(attributes), by: "Copy" };
        let copy = self.create(name!(input), new, Condition::None).await?;
        let copied = CopyObjectResult {
            e_tag: Some(etag_of(&copy)),
            last_modified: Some(self.timestamp(copy.last_modified)),
            ..CopyObjectResult::default()
        };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(copied), ..CopyObjectOutput::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let input = request.input;
        let range = |object: &Object| {
            check_read(object, input.if_match.as_ref(), input.if_none_match.as_ref())?;
            let size = object.content.size();
            input.range.map_or(Ok(0..size), |range| range.check(size).map_err(Into::into))
        };
        let (object, range, body) = self.open_object(name!(input), range).await?;
        let size = object.content.size();
        let mut output = described!(GetObjectOutput, self, object);
        output.content_length = i64::try_from(range.end - range.start).ok();
        output.content_range = input.range.map(|_| format!("bytes {}-{}/{size}", range.start, range.end - 1));
        output.body = Some(body);
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let input = request.input;
        let object = self.object(name!(input)).await?;
        check_read(&object, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let mut output = described!(HeadObjectOutput, self, object);
        output.content_length = i64::try_from(object.content.size()).ok();
        Ok(S3Response::new(output))
    }

    /// No object has tags here. The AWS CLI asks before it copies an object in parts.
    async fn get_object_tagging(&self, request: S3Request<GetObjectTaggingInput>) -> Answer<GetObjectTaggingOutput> {
        let input = request.input;
        self.object(name!(input)).await?;
        Ok(S3Response::new(GetObjectTaggingOutput::default()))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let input = request.input;
        let condition = condition(input.if_match.as_ref(), None)?;
        let mut buckets = self.buckets.write().await;
        self.delete(bucket_mut(&mut buckets, &input.bucket)?, name!(input), condition).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, request: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        let input = request.input;
        let mut buckets = self.buckets.write().await;
        let objects = bucket_mut(&mut buckets, &input.bucket)?;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for ObjectIdentifier { key, e_tag, .. } in input.delete.objects {
            let condition = e_tag.as_ref().map_or(Condition::None, |etag| Condition::Matches(etag.value()));
            match self.delete(objects, Name { bucket: &input.bucket, key: &key }, condition).await {
                Ok(()) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
                Err(error) => errors.push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(key),
                    ..Error::default()
                }),
            }
        }
        let is_quiet = input.delete.quiet.unwrap_or_default();
        let (deleted, errors) = ((!is_quiet).then_some(deleted), Some(errors));
        Ok(S3Response::new(DeleteObjectsOutput { deleted, errors, ..DeleteObjectsOutput::default() }))
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        let input = request.input;
        let (max_keys, encoding) = (limit(input.max_keys)?, input.encoding_type.as_ref());
        let list = testbed::List {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref(),
            start_after: input.start_after.as_deref(),
            continuation_token: input.continuation_token.as_deref(),
            max_keys,
        };
        let buckets = self.buckets.read().await;
        let page = bucket(&buckets, &input.bucket)?.list(&list).map_err(refused)?;
        let encoded_key = |key: &str| encoded_key(key, encoding);
        let object = |(key, object): &(&str, &Object)| self.listed(encoded_key(key), object);
        let prefix = |prefix: &String| CommonPrefix { prefix: Some(encoded_key(prefix)) };
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(page.objects.len() + page.common_prefixes.len()).ok(),
            max_keys: i32::try_from(max_keys).ok(),
            is_truncated: Some(page.truncated_at.is_some()),
            next_continuation_token: page.next_continuation_token(),
            contents: Some(page.objects.iter().map(object).collect()),
            common_prefixes: Some(page.common_prefixes.iter().map(prefix).collect()),
            prefix: Some(encoded_key(list.prefix)),
            delimiter: list.delimiter.map(encoded_key),
            start_after: list.start_after.map(encoded_key),
            encoding_type: encoding.cloned(),
            continuation_token: input.continuation_token.clone(),
            name: Some(input.bucket.clone()),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let mut input = request.input;
        let head = Body::empty(attributes!(input));
        let mut buckets = self.buckets.write().await;
        let upload_id = bucket_mut(&mut buckets, &input.bucket)?.create_upload(&input.key, head).map_err(refused)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(&self, mut request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let digests = digests!(request);
        let mut input = request.input;
        let bytes = digests.checked(input.body.take()).await?;
        let body = self.write_body(bytes, Attributes::default()).await?;
        let etag = self.keep_part(name!(input), &input.upload_id, input.part_number, body).await?;
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(etag), ..UploadPartOutput::default() }))
    }

    async fn upload_part_copy(&self, request: S3Request<UploadPartCopyInput>) -> Answer<UploadPartCopyOutput> {
        let input = request.input;
        let range = |object: &Object| {
            let (matches, none_match) = (input.copy_source_if_match.as_ref(), input.copy_source_if_none_match.as_ref());
            check_source(object, matches, none_match)?;
            copied_range(input.copy_source_range.as_deref(), object.content.size())
        };
        let (_, body) = self.copy(source(&input.copy_source)?, range).await?;
        let etag = self.keep_part(name!(input), &input.upload_id, input.part_number, body).await?;
        let copied = CopyPartResult {
            e_tag: Some(etag),
            last_modified: Some(self.timestamp(lambda_setup::now().0)),
            ..CopyPartResult::default()
        };
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(copied), ..UploadPartCopyOutput::default() }))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        let input = request.input;
        let (max_parts, after) = (limit(input.max_parts)?, input.part_number_marker.map_or(0, part_number));
        let buckets = self.buckets.read().await;
        let parts = bucket(&buckets, &input.bucket)?.parts(&input.key, &input.upload_id).map_err(refused)?;
        let mut rest = parts.filter(|(number, _)| *number > after).map(|(number, body)| s3s::dto::Part {
            part_number: Some(number.into()),
            size: i64::try_from(body.size()).ok(),
            e_tag: Some(strong(&testbed::etag_of(body))),
            ..s3s::dto::Part::default()
        });
        let page: Vec<_> = rest.by_ref().take(max_parts).collect();
        Ok(S3Response::new(ListPartsOutput {
            next_part_number_marker: page.last().and_then(|part| part.part_number),
            is_truncated: Some(rest.next().is_some()),
            max_parts: i32::try_from(max_parts).ok(),
            parts: Some(page),
            part_number_marker: input.part_number_marker,
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            upload_id: Some(input.upload_id.clone()),
            ..ListPartsOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let mut input = request.input;
        let (name, upload) = (name!(input), input.upload_id.as_str());
        let condition = condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let mut buckets = self.buckets.write().await;
        let objects = bucket_mut(&mut buckets, name.bucket)?;
        let parts = parts(input.multipart_upload.take());
        let Object { content, etag, .. } = objects.assembled(0, name.key, upload, &parts).map_err(refused)?;
        objects.check(name.key, condition).map_err(refused)?;
        let body = self.files(move |folder| folder.join(&content)).await?;
        self.end_upload(objects, name, upload).await?;
        let object = self.replace(objects, name, New { body, by: "CompleteMultipartUpload" }, etag).await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            e_tag: Some(etag_of(&object)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let input = request.input;
        let mut buckets = self.buckets.write().await;
        self.end_upload(bucket_mut(&mut buckets, &input.bucket)?, name!(input), &input.upload_id).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_at_most_a_thousand_keys() {
        assert_eq!(limit(None).unwrap(), 1_000);
        assert_eq!(limit(Some(1_001)).unwrap(), 1_000);
        assert_eq!(limit(Some(0)).unwrap(), 0);
        assert!(limit(Some(-1)).is_err());
    }
}
