//! The bucket behind the AWS SDK: the only file here that knows it.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{DisplayErrorContext, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use lambda_setup::SdkConfig;
use shared::object::block_size;

use crate::encode::Object;
use crate::landing::{Condition, Found, HeadError, ObjectStore, PutError};

/// An S3 bucket.
pub struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    /// With a custom endpoint (`AWS_ENDPOINT_URL`), the bucket stands in the path: stand-ins have no name for each bucket.
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        let path_style = config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
        let config = aws_sdk_s3::config::Builder::from(config).force_path_style(path_style).build();
        Self { client: Client::from_conf(config), name }
    }
}

impl ObjectStore for Bucket {
    async fn put(&self, key: &str, object: &Object, condition: &Condition) -> Result<(), PutError> {
        let put = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .content_type("application/x-bzip2")
            .set_metadata(Some(object.metadata.to_entries()))
            .body(ByteStream::from(object.body.clone()));
        let put = match condition {
            Condition::Absent => put.if_none_match("*"),
            Condition::Matches(etag) => put.if_match(etag),
        };
        put.send().await.map(|_| ()).map_err(|error| put_error(error, condition))
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, HeadError> {
        match self.client.head_object().bucket(&self.name).key(key).send().await {
            Ok(head) => {
                let etag = head.e_tag().ok_or_else(|| HeadError::Transient("no ETag in the answer".into()))?.to_owned();
                Ok(Some(Found { etag, block_size: head.metadata().and_then(block_size) }))
            }
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(head_error(error)),
        }
    }
}

fn put_error<E>(error: SdkError<E, HttpResponse>, condition: &Condition) -> PutError
where
    SdkError<E, HttpResponse>: std::error::Error + Send + Sync + 'static,
{
    match (status(&error), condition) {
        (Some(412), _) => PutError::ConditionFailed,
        (Some(409), _) => PutError::Conflict,
        // The object that the write was conditional on is gone.
        (Some(404), Condition::Matches(_)) => PutError::ConditionFailed,
        (status, _) => {
            let source = DisplayErrorContext(error).to_string().into();
            if is_permanent(status) { PutError::Permanent(source) } else { PutError::Uncertain(source) }
        }
    }
}

fn head_error<E>(error: SdkError<E, HttpResponse>) -> HeadError
where
    SdkError<E, HttpResponse>: std::error::Error + Send + Sync + 'static,
{
    let permanent = is_permanent(status(&error));
    let source = DisplayErrorContext(error).to_string().into();
    if permanent { HeadError::Permanent(source) } else { HeadError::Transient(source) }
}

/// Answers that say what is wrong with the request stay wrong. 408 and 429 don't say that, nor does 400, which S3 gives
/// for a body that did not arrive whole (`RequestTimeout`, `IncompleteBody`).
fn is_permanent(status: Option<u16>) -> bool {
    matches!(status, Some(401 | 403 | 404 | 405))
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}
