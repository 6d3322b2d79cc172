//! The bucket behind the AWS SDK: the only file here that knows it.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use lambda_setup::s3::{client, describe, is_permanent, status};
use lambda_setup::sdk::SdkConfig;
use shared::object::Writing;

use crate::encode::Object;
use crate::landing::{Condition, Found, HeadError, ObjectStore, PutError};

/// An S3 bucket.
pub struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self { client: client(config), name }
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
        // Boxed, so that not each future around it has room for it.
        Box::pin(put.send()).await.map(|_| ()).map_err(|error| put_error(error, condition))
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, HeadError> {
        match Box::pin(self.client.head_object().bucket(&self.name).key(key).send()).await {
            Ok(head) => {
                let etag = head.e_tag().ok_or_else(|| HeadError::Transient("no ETag in the answer".into()))?.to_owned();
                let writing = head.metadata().map(Writing::from_entries).unwrap_or_default();
                Ok(Some(Found { etag, writing }))
            }
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(head_error(error)),
        }
    }
}

fn put_error<E>(error: SdkError<E, HttpResponse>, condition: &Condition) -> PutError
where
    SdkError<E, HttpResponse>: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match (status(&error), condition) {
        (Some(412), _) => PutError::ConditionFailed,
        (Some(409), _) => PutError::Conflict,
        // The object that the write was conditional on is gone.
        (Some(404), Condition::Matches(_)) if error.code() == Some("NoSuchKey") => PutError::ConditionFailed,
        (status, _) => {
            let permanent = is_permanent(status, error.code());
            let source = describe(error).into();
            if permanent { PutError::Permanent(source) } else { PutError::Uncertain(source) }
        }
    }
}

fn head_error<E>(error: SdkError<E, HttpResponse>) -> HeadError
where
    SdkError<E, HttpResponse>: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let permanent = is_permanent(status(&error), error.code());
    let source = describe(error).into();
    if permanent { HeadError::Permanent(source) } else { HeadError::Transient(source) }
}
