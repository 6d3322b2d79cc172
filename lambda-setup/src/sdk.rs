//! The AWS SDK's configuration.

use std::path::Path;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::identity::IdentityCache;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
pub use aws_config::{ConfigLoader, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_http_client::Connector;
pub use aws_smithy_http_client::tls::TrustStore;
use aws_smithy_http_client::tls::{self, TlsContext, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpClient};
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;

use crate::environment::{self, EnvironmentError};
use crate::http_client::HttpClient;

/// What the SDK's own loader takes: <https://docs.aws.amazon.com/sdk-for-rust/latest/dg/timeouts.html>
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);

/// The SDK's configuration in a Lambda function, from the variables that Lambda sets: `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; and `AWS_ENDPOINT_URL`, where there is another AWS, and `SSL_CERT_FILE`, where
/// there are other root certificates.
///
/// Nothing else is looked at. The SDK's own loader knows profiles, other roles and instances' metadata, which no function
/// has; they would be a tenth of each package.
///
/// The SDK does not retry: the functions do, with knowledge of what a retry means and of the time that is left. It does not
/// watch how fast bodies move either: each call has a time limit of ours, and the watch takes timers in each.
///
/// # Errors
///
/// When a variable is missing or not Unicode. Credentials are not looked at.
pub fn config() -> Result<SdkConfig, EnvironmentError> {
    config_with(SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()))
}

/// The SDK's configuration in a container: as in a function, but with the credentials that ECS gives, where it does.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
///
/// # Errors
///
/// When a variable is missing or not Unicode, or the region needs root certificates that are not in the container. Credentials are
/// not looked at.
pub fn container_config() -> Result<SdkConfig, EnvironmentError> {
    let region = environment::required("AWS_REGION")?;
    let mut has_roots = SYSTEM_ROOTS.iter().any(|path| Path::new(path).exists());
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        has_roots |= environment::optional(name)?.is_some();
    }
    if is_other_partition(&region) && !has_roots {
        let problem = format!(
            "is {region}, whose root certificates are not in this image; add them, and name them in SSL_CERT_FILE"
        );
        return Err(EnvironmentError::new("AWS_REGION", problem));
    }
    for name in ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
        if environment::optional(name)?.is_some() {
            let http_client = client_of_the_sdk(aws_roots()?);
            let provider_config = ProviderConfig::without_region().with_http_client(http_client);
            let provider = EcsCredentialsProvider::builder().configure(&provider_config).build();
            return config_with(SharedCredentialsProvider::new(provider));
        }
    }
    config()
}

fn config_with(credentials: SharedCredentialsProvider) -> Result<SdkConfig, EnvironmentError> {
    let region = environment::required("AWS_REGION")?;
    let endpoint_url = environment::optional("AWS_ENDPOINT_URL")?;
    Ok(config_of(region, endpoint_url, credentials, client_of_the_sdk(aws_roots()?)))
}

fn config_of(
    region: String,
    endpoint_url: Option<String>,
    credentials: SharedCredentialsProvider,
    http_client: SharedHttpClient,
) -> SdkConfig {
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .credentials_provider(credentials)
        .identity_cache(IdentityCache::lazy().build())
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .time_source(SharedTimeSource::new(SystemTimeSource::new()))
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .http_client(http_client)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .retry_config(RetryConfig::disabled());
    config.set_endpoint_url(endpoint_url);
    config.build()
}

/// The SDK's configuration for tests of what speaks to a service: made-up credentials, and the test's own address.
#[cfg(feature = "testing")]
#[must_use]
pub fn testing_config(endpoint_url: &str) -> SdkConfig {
    let credentials = aws_credential_types::Credentials::new("test", "test", None, None, "test");
    let http_client = client_of_the_sdk(TrustStore::empty());
    config_of("us-east-1".into(), Some(endpoint_url.into()), SharedCredentialsProvider::new(credentials), http_client)
}

/// The roots of the certificates of AWS's endpoints, by Amazon Trust Services: <https://www.amazontrust.com/repository/>
const AWS_ROOTS: &str = include_str!("aws_roots.pem");

/// How regions begin that are not in AWS's commercial partition: China, GovCloud, the isolated ones, the European sovereign
/// cloud. Some have roots of their own.
const OTHER_PARTITIONS: [&str; 5] = ["cn-", "us-gov-", "us-iso", "eu-iso", "eusc-"];

/// Where Debian, Alpine and Fedora keep theirs.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt"];

fn is_other_partition(region: &str) -> bool {
    OTHER_PARTITIONS.iter().any(|start| region.starts_with(start))
}

/// The roots of certificates that a function needs for AWS.
///
/// # Errors
///
/// When a variable is missing or not Unicode.
pub(crate) fn aws_roots() -> Result<TrustStore, EnvironmentError> {
    if environment::optional("SSL_CERT_FILE")?.is_some() {
        return Ok(TrustStore::default());
    }
    Ok(roots(&environment::required("AWS_REGION")?, environment::optional("AWS_ENDPOINT_URL")?.as_deref()))
}

/// AWS's own roots alone, where they are known to suffice: to read and parse the system's hundred and more is half of what a
/// function's start takes. Where there is another AWS behind TLS, or another partition, the system's.
fn roots(region: &str, endpoint_url: Option<&str>) -> TrustStore {
    let is_other_aws =
        endpoint_url.is_some_and(|url| url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")));
    if is_other_aws || is_other_partition(region) {
        return TrustStore::default();
    }
    TrustStore::empty().with_pem_certificate(AWS_ROOTS)
}

/// The SDK's own loader, for commands that people run: profiles and roles are theirs to choose. As in the functions, the
/// SDK does not retry.
#[must_use]
pub fn loader() -> ConfigLoader {
    let http_client = client_of_the_sdk(TrustStore::default());
    aws_config::defaults(BehaviorVersion::latest()).http_client(http_client).retry_config(RetryConfig::disabled())
}

/// The same configuration for calls that may be repeated: the SDK makes so many attempts, of this length at most.
#[must_use]
pub fn with_retries(config: &SdkConfig, attempts: u32, attempt_timeout: Duration) -> SdkConfig {
    let timeouts = config.timeout_config().map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
    let timeouts = timeouts.operation_attempt_timeout(attempt_timeout).build();
    let retries = RetryConfig::standard().with_max_attempts(attempts);
    config.to_builder().retry_config(retries).timeout_config(timeouts).build()
}

fn client_of_the_sdk(roots: TrustStore) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(TLS).tls_context(trusting(roots)).build_https()
}

/// The SDK's HTTP client without a client of a service, for what is not AWS.
#[must_use]
pub fn http_client(roots: TrustStore) -> HttpClient {
    let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let connector = Connector::builder().sleep_impl(TokioSleep::new()).connector_settings(settings);
    HttpClient::over(connector.tls_provider(TLS).tls_context(trusting(roots)).build())
}

const TLS: tls::Provider = tls::Provider::Rustls(CryptoMode::Ring);

#[allow(clippy::expect_used)]
fn trusting(roots: TrustStore) -> TlsContext {
    TlsContext::builder().with_trust_store(roots).build().expect("a list of roots is a context")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The client parses them when it is made, and panics on what is none.
    #[test]
    fn aws_roots_are_certificates() {
        assert_eq!(AWS_ROOTS.matches("BEGIN CERTIFICATE").count(), 5);
        client_of_the_sdk(roots("eu-central-1", None));
    }

    #[rstest]
    #[case("us-east-1", None, false)]
    #[case("eu-central-1", Some("http://127.0.0.1:1"), false)]
    #[case("eu-central-1", Some("https://aws.example"), true)]
    #[case("eu-central-1", Some("HTTPS://aws.example"), true)]
    #[case("cn-north-1", None, true)]
    #[case("us-gov-west-1", None, true)]
    #[case("us-isob-east-1", None, true)]
    #[case("eusc-de-east-1", None, true)]
    fn other_aws_s_have_other_roots(#[case] region: &str, #[case] endpoint_url: Option<&str>, #[case] native: bool) {
        let roots = format!("{:?}", roots(region, endpoint_url));
        assert_eq!(roots.contains("enable_native_roots: true"), native, "{roots}");
    }
}
