//! load-warehouse: each hour that is Parquet, in Redshift.
//!
//! The `_SUCCESS` of a compacted hour has it loaded; a schedule finds out what became of the transaction, sends again what failed,
//! and finds hours that nobody asked for. An hour is replaced by one transaction that is sent whole and ends without this function: what is
//! killed, sent twice or overtaken by a newer compaction leaves each hour once. Under `warehouse/dt=…/hour=…/` are `_LOAD.json`, the
//! last transaction, COPY's manifests, and copies of the few parts whose texts Redshift would refuse.
//!
//! Memory: a part (512 MiB at most), a copy of it, and a batch of its rows.

mod config;
mod copy_manifest;
mod fit;
mod handler;
mod load;
mod redshift_data;
mod sql;
#[cfg(test)]
mod tests;
mod warehouse;

use std::time::Duration;

use lambda_setup::bucket::S3Bucket;
use lambda_setup::function::{serve, start};
use lambda_setup::s3;
use lambda_setup::sdk::with_retries;

use config::Config;
use handler::Handler;
use redshift_data::RedshiftData;

/// Attempts at a call of S3, and how long each may take: parts have up to some hundred MB.
const ATTEMPTS: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the function.
///
/// # Errors
///
/// When it can't start, or the Runtime API does not answer.
pub fn run() -> anyhow::Result<()> {
    start("load-warehouse", Config::from_environment, async |config, sdk| {
        let client = s3::client(&with_retries(&sdk, ATTEMPTS, ATTEMPT_TIMEOUT));
        let handler = Handler {
            bucket: S3Bucket::new(client, config.bucket.clone()),
            warehouse: RedshiftData::new(&config, &sdk),
            bucket_name: config.bucket,
            tables: config.tables,
        };
        serve(async |event, context| handler.handle(event, context).await).await
    })
}
