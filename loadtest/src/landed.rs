//! What landed, from the files themselves: each event of a run by the number in its id.
//!
//! Nothing that the system says of itself counts here except S3's listing. Only what is in the bucket at the end counts: a file
//! that was deleted meanwhile is missing.

mod account;
mod bucket;
mod content;
mod inventory;
mod scan;
mod watch;

use std::time::Duration;

use lambda_setup::bucket::{BucketError, S3Bucket};

use crate::ledger::Ledger;
use crate::result::Truth;
use crate::run::unix_ms;

pub(crate) use bucket::access;

/// What is looked for, and for how long.
#[derive(Debug)]
pub(crate) struct Search<'l> {
    /// What precedes the number in each id: [`crate::ledger::id_prefix`].
    pub(crate) prefix: String,
    pub(crate) ledger: &'l Ledger,
    /// When the first POST was planned, in milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    /// When the last answer came.
    pub(crate) ended_unix_ms: u64,
    /// For how long nothing new may come while something is missing.
    pub(crate) patience: Duration,
    /// From the look that found everything to the last one, which shows what came twice.
    pub(crate) settle: Duration,
}

/// Why what landed is not known. No file is skipped: one that can't be read might hold what is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LandedError {
    #[error("s3://{bucket} can't be read: {problem}")]
    Bucket { bucket: String, problem: BucketError },
    #[error("the content of {key}: {problem}")]
    Content { key: String, problem: content::ContentError },
    #[error("{key} changed or went away each time that it was read")]
    Unsettled { key: String },
    #[error("reading was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
    #[error("times can't be counted: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

/// Waits until everything that the answers called stored is in the bucket, or patience runs out, and reports what is there.
/// After each look `progress` gets how many of the expected events have landed, and how many are expected.
pub(crate) async fn find(
    bucket: &S3Bucket,
    search: &Search<'_>,
    progress: impl FnMut(u64, u64),
) -> Result<Truth, LandedError> {
    let inventory = watch::watch(bucket, search, progress).await?;
    let waited_ms = unix_ms().saturating_sub(search.ended_unix_ms);
    Ok(account::truth(&inventory, search, Duration::from_millis(waited_ms))?)
}
