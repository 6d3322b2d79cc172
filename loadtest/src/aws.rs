//! How AWS is called: as by the AWS CLI, with credentials and the region from the environment variables or the profile.

use lambda_setup::sdk::{SdkConfig, loader};

pub(crate) async fn config(endpoint_url: Option<&str>) -> SdkConfig {
    match endpoint_url {
        Some(url) => loader().endpoint_url(url).load().await,
        None => loader().load().await,
    }
}
