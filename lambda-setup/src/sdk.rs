//! The AWS SDK's configuration.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
pub use aws_config::{ConfigLoader, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::environment::{self, EnvironmentError};

/// What the SDK's own loader takes: <https://docs.aws.amazon.com/sdk-for-rust/latest/dg/timeouts.html>
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);

/// The SDK's configuration in a Lambda function, from the variables that Lambda sets: `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; and `AWS_ENDPOINT_URL`, where there is another AWS.
///
/// Nothing else is looked at. The SDK's own loader knows profiles, other roles and instances' metadata, which no function
/// has; they would be a tenth of each package.
///
/// The SDK does not retry: the functions do, with knowledge of what a retry means and of the time that is left.
///
/// # Errors
///
/// When a variable is missing or not Unicode. Credentials are looked at when the first request needs them.
pub fn config() -> Result<SdkConfig, EnvironmentError> {
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(environment::required("AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()))
        .identity_cache(IdentityCache::lazy().build())
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .time_source(SharedTimeSource::new(SystemTimeSource::new()))
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .http_client(http_client())
        .retry_config(RetryConfig::disabled());
    config.set_endpoint_url(environment::optional("AWS_ENDPOINT_URL")?);
    Ok(config.build())
}

/// The SDK's own loader, for commands that people run: profiles and roles are theirs to choose. As in the functions, the
/// SDK does not retry.
#[must_use]
pub fn loader() -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).retry_config(RetryConfig::disabled())
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https()
}
