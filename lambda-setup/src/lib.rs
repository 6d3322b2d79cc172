//! What each function needs around its handler: its environment read once, the event that invokes it, SDK configuration,
//! S3, an HTTP client, its log, a deadline to keep, its vital signs as metrics, and word of its end.

#![warn(missing_docs)]

pub mod bucket;
pub mod deadline;
pub mod environment;
pub mod event;
pub mod function;
pub mod http_client;
pub mod log;
#[cfg(feature = "testing")]
pub mod memory_bucket;
pub mod s3;
pub mod sdk;
pub mod shutdown;
pub mod vital_signs;

use std::time::{SystemTime, UNIX_EPOCH};

use shared::timestamp::UnixMillis;

/// The time now, in milliseconds since 1970.
#[must_use]
pub fn now() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
