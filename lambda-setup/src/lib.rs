//! What each function needs around its handler: its environment read once, SDK configuration, a deadline to
//! keep, and its vital signs as metrics.

#![warn(missing_docs)]

pub mod deadline;
pub mod environment;
pub mod vital_signs;

use std::time::{SystemTime, UNIX_EPOCH};

use aws_config::BehaviorVersion;
pub use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use shared::timestamp::UnixMillis;

/// The SDK's configuration from its own variables (`AWS_REGION`, `AWS_ENDPOINT_URL`, credentials …).
///
/// The SDK does not retry: the functions do, with knowledge of what a retry means and of the time that is left.
pub async fn sdk_config() -> SdkConfig {
    let http_client =
        aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client)
        .retry_config(RetryConfig::disabled())
        .load()
        .await
}

/// The time now, in milliseconds since 1970.
#[must_use]
pub fn now() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
