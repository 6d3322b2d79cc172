//! What can be configured of the server beside what the Lambda takes too, read once at the start.

use std::net::SocketAddr;
use std::time::Duration;

use lambda_setup::environment::{self, EnvironmentError};

use super::address::TrustedProxies;
use super::tls;

/// The server's own configuration. docs/CONFIGURATION.md says what each is for.
#[derive(Debug, Clone)]
pub struct Config {
    /// `LISTEN`
    pub listen: SocketAddr,
    /// `ADMIN_LISTEN`
    pub admin_listen: Option<SocketAddr>,
    /// `COMMIT_INTERVAL_MS`
    pub commit_interval: Duration,
    /// `MAX_IN_FLIGHT_BYTES`
    pub max_in_flight_bytes: usize,
    /// `MAX_CONNECTIONS`
    pub max_connections: usize,
    /// `DRAIN_SECONDS`
    pub drain_time: Duration,
    /// `PROXY_PROTOCOL`
    pub has_proxy_header: bool,
    /// `TRUSTED_PROXIES`
    pub trusted_proxies: TrustedProxies,
    /// `TLS_CERTIFICATE` and `TLS_KEY`
    pub tls: Option<tls::Files>,
    /// `METRICS_NAME`
    pub metrics_name: String,
}

const MIB: usize = 1024 * 1024;

impl Config {
    /// # Errors
    ///
    /// When a variable is malformed; the error names it.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        let trusted_proxies = match environment::optional("TRUSTED_PROXIES")? {
            Some(text) => TrustedProxies::parse(&text)
                .map_err(|error| EnvironmentError::new("TRUSTED_PROXIES", error.to_string()))?,
            None => TrustedProxies::default(),
        };
        Ok(Self {
            listen: address("LISTEN")?.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 8080))),
            admin_listen: address("ADMIN_LISTEN")?,
            // With the longest KINESIS_RETRY_MS, S3 has its turn before lines are given up.
            commit_interval: Duration::from_millis(environment::number("COMMIT_INTERVAL_MS", 200, 1..=500)?),
            // A quarter holds the lines of the largest body.
            max_in_flight_bytes: environment::number("MAX_IN_FLIGHT_BYTES", 128 * MIB, 64 * MIB..=16_384 * MIB)?,
            max_connections: environment::number("MAX_CONNECTIONS", 16_000, 1..=1_000_000)?,
            // Fargate kills a container at most 120 s after SIGTERM:
            // <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html>
            drain_time: Duration::from_secs(environment::number("DRAIN_SECONDS", 30, 0..=75)?),
            has_proxy_header: environment::choice("PROXY_PROTOCOL", &[("off", false), ("v2", true)])?,
            trusted_proxies,
            tls: tls_files()?,
            metrics_name: environment::optional("METRICS_NAME")?.unwrap_or_else(|| "ingest-server".into()),
        })
    }
}

fn address(name: &'static str) -> Result<Option<SocketAddr>, EnvironmentError> {
    let Some(text) = environment::optional(name)? else { return Ok(None) };
    let problem = |_| EnvironmentError::new(name, format!("is {text:?}; it takes an address and a port: 0.0.0.0:8080"));
    text.parse().map(Some).map_err(problem)
}

fn tls_files() -> Result<Option<tls::Files>, EnvironmentError> {
    match (environment::optional("TLS_CERTIFICATE")?, environment::optional("TLS_KEY")?) {
        (Some(certificate), Some(key)) => Ok(Some(tls::Files { certificate: certificate.into(), key: key.into() })),
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(EnvironmentError::new("TLS_KEY", "is not set, and TLS_CERTIFICATE is; set both or none"))
        }
        (None, Some(_)) => {
            Err(EnvironmentError::new("TLS_CERTIFICATE", "is not set, and TLS_KEY is; set both or none"))
        }
    }
}
