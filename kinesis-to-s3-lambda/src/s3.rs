//! The bucket behind the AWS SDK: the only file here that knows it.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use lambda_setup::sdk::SdkConfig;
use shared::object::Writing;

use crate::encode::Object;
use crate::landing::{Condition, Found, HeadError, ObjectStore, PutError};

/// An S3 bucket.
pub struct Bucket {
    client: Client,
    name: String,
}

/// A client for S3. With a custom endpoint (`AWS_ENDPOINT_URL`), the bucket stands in the path: stand-ins have no name for
/// each bucket.
#[must_use]
pub fn client(config: &SdkConfig) -> Client {
    let path_style = config.endpoint_url().is_some();
    Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(path_style).build())
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

/// Answers that say what is wrong with the request stay wrong. A 400 does not always say that: S3 gives it too for a body
/// that did not arrive whole.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
fn is_permanent(status: Option<u16>, code: Option<&str>) -> bool {
    const PERMANENT_400: [&str; 8] = [
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidArgument",
        "InvalidBucketName",
        "InvalidRequest",
        "InvalidToken",
        "KMS.DisabledException",
        "MetadataTooLarge",
    ];
    // A clock that is off may be set right.
    if matches!(code, Some("RequestTimeTooSkewed")) {
        return false;
    }
    match status {
        Some(301 | 307 | 401 | 403 | 404 | 405 | 411 | 501) => true,
        Some(400) => code.is_some_and(|code| PERMANENT_400.contains(&code)),
        _ => false,
    }
}

/// For the log, in a line: the SDK's own description of an answer without a body is a page.
fn describe<E>(error: SdkError<E, HttpResponse>) -> String
where
    SdkError<E, HttpResponse>: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match (error.code(), status(&error)) {
        (Some(code), _) => format!("{code}: {}", error.message().unwrap_or_default()),
        (None, Some(status)) => format!("HTTP {status}"),
        (None, None) => DisplayErrorContext(error).to_string(),
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_permanent_when_they_say_what_is_wrong_with_the_request() {
        for (status, code) in [
            (403, "AccessDenied"),
            (404, "NoSuchBucket"),
            (400, "ExpiredToken"),
            (400, "MetadataTooLarge"),
            (301, "PermanentRedirect"),
        ] {
            assert!(is_permanent(Some(status), Some(code)), "{status} {code}");
        }
        for (status, code) in [
            (503, "SlowDown"),
            (500, "InternalError"),
            (400, "RequestTimeout"),
            (400, "IncompleteBody"),
            (403, "RequestTimeTooSkewed"),
            (429, "TooManyRequests"),
        ] {
            assert!(!is_permanent(Some(status), Some(code)), "{status} {code}");
        }
        assert!(!is_permanent(None, None));
    }
}
