//! How AWS is called: as by the AWS CLI, with credentials and the region from the environment variables or the profile.

use std::time::Duration;

use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::config::timeout::TimeoutConfig;
use lambda_setup::sdk::{SdkConfig, loader};

/// Attempts at a call, and how long each may take. All of them only read, and so may be repeated.
const ATTEMPTS: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn config(endpoint_url: Option<&str>) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
    let loader = loader().retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS)).timeout_config(timeouts);
    match endpoint_url {
        Some(url) => loader.endpoint_url(url).load().await,
        None => loader.load().await,
    }
}
