//! The functions from start to end: each reads its configuration, makes its clients and serves invocations with its handler.

use std::time::Duration;

use lambda_setup::bucket::S3Bucket;
use lambda_setup::function::{serve, start};
use lambda_setup::sdk::with_retries;
use lambda_setup::{environment, s3};

use crate::compact_partition;

/// Attempts at a call of S3, and how long each may take: files have up to some hundred MB.
const ATTEMPTS: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs compact-partition.
///
/// # Errors
///
/// When it can't start, or the Runtime API does not answer.
pub fn compact_partition() -> anyhow::Result<()> {
    let configuration = || {
        Ok::<_, environment::EnvironmentError>((
            environment::required("BUCKET_NAME")?,
            compact_partition::Limits::from_environment()?,
        ))
    };
    start("compact-partition", configuration, async |(bucket_name, limits), sdk| {
        let client = s3::client(&with_retries(&sdk, ATTEMPTS, ATTEMPT_TIMEOUT));
        let handler = compact_partition::Handler::new(S3Bucket::new(client, bucket_name), limits);
        serve(async |event, context| handler.handle(event, context).await).await
    })
}
