//! What can be configured, read once at the start.

use std::num::NonZeroU32;
use std::time::Duration;

use lambda_setup::environment::{self, EnvironmentError};
use shared::limits;
use shared::line::EventFormat;

use crate::bucket::Buckets;
use crate::client_context::ClientContext;
use crate::origins::AllowedOrigins;
use crate::schema::SchemaConfig;
use crate::write_keys::WriteKeys;

/// How much of a client's address is kept in the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIp {
    /// None.
    Off,
    /// The network: 24 bits of an IPv4 address, 48 of an IPv6 address.
    Truncated,
    /// All.
    Full,
}

/// What the data of a record are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordCompression {
    /// Lines.
    Off,
    /// One zstd frame of lines, where that is smaller.
    Zstd,
}

/// The function's configuration. docs/CONFIGURATION.md says what each is for.
#[derive(Debug, Clone)]
pub struct Config {
    /// `STREAM_NAME`
    pub stream_name: String,
    /// `BUCKET_NAME`
    pub bucket_name: String,
    /// `KINESIS_RETRY_MS`
    pub kinesis_retry: Duration,
    /// `EVENT_FORMAT`
    pub event_format: EventFormat,
    /// `CLIENT_IP`
    pub client_ip: ClientIp,
    /// `CLIENT_CONTEXT`
    pub client_context: ClientContext,
    /// `PARTITION_KEY_FIELDS`
    pub partition_key_fields: Vec<String>,
    /// `KEY_BUCKETS`
    pub key_buckets: Buckets,
    /// `RECORD_COMPRESSION`
    pub record_compression: RecordCompression,
    /// `ALLOWED_ORIGINS`
    pub allowed_origins: AllowedOrigins,
    /// `WRITE_KEYS`
    pub write_keys: WriteKeys,
    /// `KEY_EVENTS_PER_SECOND`, of each key; `None` for any number.
    pub key_events_per_second: Option<NonZeroU32>,
    /// `EVENT_SCHEMA` and `EVENT_SCHEMA_MODE`; `None` where events are not validated.
    pub event_schema: Option<SchemaConfig>,
    /// `MAX_BODY_BYTES`
    pub max_body_bytes: usize,
    /// `MAX_RECORD_BYTES`
    pub max_record_bytes: usize,
}

/// `xid` before `sid`: mux-embed sends its view id with every event, but its session id only when it changed; a session
/// whose events had two keys would land out of order.
const DEFAULT_PARTITION_KEY_FIELDS: &str = "session_id,sessionId,viewer_id,viewerId,xid,sid";

/// Leaves room for an envelope and a partition key of the largest size.
const MIN_CONFIGURED_RECORD_BYTES: usize = 16 * 1024;

/// No single key comes near it: above, 0 for no limit says what is meant.
const MAX_KEY_EVENTS_PER_SECOND: u32 = 1_000_000;

impl Config {
    /// # Errors
    ///
    /// When a variable is missing or malformed; the error names it.
    pub fn from_environment() -> Result<Self, EnvironmentError> {
        let allowed_origins = AllowedOrigins::parse(&environment::list("ALLOWED_ORIGINS", "*")?)
            .map_err(|error| EnvironmentError::new("ALLOWED_ORIGINS", error.to_string()))?;
        let write_keys = write_keys()?;
        Ok(Self {
            stream_name: environment::required("STREAM_NAME")?,
            bucket_name: environment::required("BUCKET_NAME")?,
            kinesis_retry: Duration::from_millis(environment::number("KINESIS_RETRY_MS", 1_000, 0..=1_500)?),
            event_format: environment::choice("EVENT_FORMAT", &EventFormat::NAMES)?,
            client_ip: environment::choice(
                "CLIENT_IP",
                &[("off", ClientIp::Off), ("truncated", ClientIp::Truncated), ("full", ClientIp::Full)],
            )?,
            client_context: client_context()?,
            partition_key_fields: environment::list("PARTITION_KEY_FIELDS", DEFAULT_PARTITION_KEY_FIELDS)?,
            key_buckets: environment::choice("KEY_BUCKETS", &Buckets::COUNTS)?,
            record_compression: environment::choice(
                "RECORD_COMPRESSION",
                &[("zstd", RecordCompression::Zstd), ("off", RecordCompression::Off)],
            )?,
            allowed_origins,
            key_events_per_second: key_events_per_second(&write_keys)?,
            write_keys,
            event_schema: SchemaConfig::from_environment()?,
            max_body_bytes: environment::number(
                "MAX_BODY_BYTES",
                limits::DEFAULT_MAX_BODY_BYTES,
                1..=limits::MAX_LAMBDA_PAYLOAD_BYTES,
            )?,
            max_record_bytes: environment::number(
                "MAX_RECORD_BYTES",
                limits::DEFAULT_MAX_RECORD_BYTES,
                MIN_CONFIGURED_RECORD_BYTES..=limits::MAX_CONFIGURED_RECORD_BYTES,
            )?,
        })
    }
}

fn client_context() -> Result<ClientContext, EnvironmentError> {
    let text = environment::optional("CLIENT_CONTEXT")?.unwrap_or_default();
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    ClientContext::parse(names).map_err(|error| EnvironmentError::new("CLIENT_CONTEXT", error.to_string()))
}

fn write_keys() -> Result<WriteKeys, EnvironmentError> {
    let text = environment::optional("WRITE_KEYS")?.unwrap_or_default();
    WriteKeys::parse(&text).map_err(|error| EnvironmentError::new("WRITE_KEYS", error.to_string()))
}

fn key_events_per_second(write_keys: &WriteKeys) -> Result<Option<NonZeroU32>, EnvironmentError> {
    const NAME: &str = "KEY_EVENTS_PER_SECOND";
    let limit = NonZeroU32::new(environment::number(NAME, 0, 0..=MAX_KEY_EVENTS_PER_SECOND)?);
    if limit.is_some() && write_keys.is_empty() {
        return Err(EnvironmentError::new(NAME, "limits each key, and WRITE_KEYS has none"));
    }
    Ok(limit)
}

/// For tests, whose bodies and records are small.
#[cfg(test)]
pub(crate) fn small_config() -> Config {
    Config {
        stream_name: "s".into(),
        bucket_name: "b".into(),
        kinesis_retry: Duration::from_secs(1),
        event_format: EventFormat::Envelope,
        client_ip: ClientIp::Off,
        client_context: ClientContext::default(),
        partition_key_fields: vec!["sid".into()],
        key_buckets: Buckets::default(),
        record_compression: RecordCompression::Off,
        allowed_origins: AllowedOrigins::Any,
        write_keys: WriteKeys::default(),
        key_events_per_second: None,
        event_schema: None,
        max_body_bytes: 1000,
        max_record_bytes: 2000,
    }
}
