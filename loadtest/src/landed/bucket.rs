//! The landing bucket: the only file here that knows the S3 SDK.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;
use bytes::Bytes;

use super::LandedError;
use crate::aws;

/// A bucket and who may read it.
#[derive(Debug, Clone)]
pub(crate) struct BucketAccess {
    client: Client,
    bucket: String,
}

/// With a custom endpoint the bucket is part of the path: stand-ins have no host name for each bucket.
pub(crate) async fn access(bucket: String, endpoint_url: Option<&str>) -> BucketAccess {
    let config = aws::config(endpoint_url).await;
    let path_style = config.endpoint_url().is_some();
    let builder = aws_sdk_s3::config::Builder::from(&config).force_path_style(path_style);
    BucketAccess { client: Client::from_conf(builder.build()), bucket }
}

impl BucketAccess {
    fn failed(&self, key: &str, problem: String) -> LandedError {
        LandedError::Bucket { bucket: self.bucket.clone(), key: key.to_owned(), problem }
    }
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) etag: String,
    /// When it was stored by S3's clock, in milliseconds since 1970.
    pub(super) modified_ms: u64,
    pub(super) bytes: u64,
}

/// An object as it was read, which may be newer than the listing.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) etag: String,
    pub(super) bytes: Bytes,
}

/// Objects to list and read.
pub(super) trait Objects: Clone + Send + Sync + 'static {
    /// All under a prefix.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<Listed>, LandedError>> + Send;
    /// `None` when it is not there any more.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Stored>, LandedError>> + Send;
}

impl Objects for BucketAccess {
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, LandedError> {
        let failed = |problem| self.failed(prefix, problem);
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
            for object in page.contents() {
                objects.push(listed(object).ok_or_else(|| failed(format!("incomplete: {object:?}")))?);
            }
        }
        Ok(objects)
    }

    async fn get(&self, key: &str) -> Result<Option<Stored>, LandedError> {
        let failed = |problem| self.failed(key, problem);
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => return Ok(None),
            Err(error) => return Err(failed(DisplayErrorContext(error).to_string())),
        };
        let etag = object.e_tag.ok_or_else(|| failed("the answer has no ETag".into()))?;
        let body = object.body.collect().await.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        Ok(Some(Stored { etag, bytes: body.into_bytes() }))
    }
}

fn listed(object: &aws_sdk_s3::types::Object) -> Option<Listed> {
    Some(Listed {
        key: object.key()?.to_owned(),
        etag: object.e_tag()?.to_owned(),
        modified_ms: u64::try_from(object.last_modified()?.to_millis().ok()?).ok()?,
        bytes: u64::try_from(object.size()?).ok()?,
    })
}
