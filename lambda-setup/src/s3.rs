//! What is the same for all who write to S3 by the SDK: the client, and what its errors mean.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::sdk::SdkConfig;

/// A client for S3. With a custom endpoint (`AWS_ENDPOINT_URL`), the bucket stands in the path: stand-ins have no name for
/// each bucket.
#[must_use]
pub fn client(config: &SdkConfig) -> Client {
    let path_style = config.endpoint_url().is_some();
    Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(path_style).build())
}

/// Answers that say what is wrong with the request stay wrong. A 400 does not always say that: S3 gives it too for a body
/// that did not arrive whole.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
#[must_use]
pub fn is_permanent(status: Option<u16>, code: Option<&str>) -> bool {
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
pub fn describe<E>(error: SdkError<E, HttpResponse>) -> String
where
    SdkError<E, HttpResponse>: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match (error.code(), status(&error)) {
        (Some(code), _) => format!("{code}: {}", error.message().unwrap_or_default()),
        (None, Some(status)) => format!("HTTP {status}"),
        (None, None) => DisplayErrorContext(error).to_string(),
    }
}

/// Of the answer, if there was one.
pub fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
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
