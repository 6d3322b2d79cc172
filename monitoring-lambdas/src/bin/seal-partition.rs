//! Seals the hours and dates that are complete.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use monitoring_lambdas::bucket::{self, S3Bucket};
use monitoring_lambdas::cloudwatch::CloudWatch;
use monitoring_lambdas::seal_partition::{Config, Handler};
use monitoring_lambdas::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let config = Config::from_environment().context("seal-partition can't start")?;
    let sdk_config = lambda_setup::sdk::config()?;
    let client = bucket::client(&sdk_config);
    let bucket = S3Bucket::new(client.clone(), config.bucket_name.clone());
    let failed_batches = S3Bucket::new(client, config.failed_batches_bucket_name.clone());
    let handler = Handler::new(bucket, failed_batches, CloudWatch::new(&sdk_config), config);
    serve(async |event, context| handler.handle(event, context).await).await.map_err(anyhow::Error::from_boxed)
}
