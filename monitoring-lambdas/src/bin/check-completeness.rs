//! Says how many events were lost or doubled in an hour.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use monitoring_lambdas::bucket::{self, S3Bucket};
use monitoring_lambdas::check_completeness::{Config, Handler};
use monitoring_lambdas::cloudwatch::CloudWatch;
use monitoring_lambdas::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let config = Config::from_environment().context("check-completeness can't start")?;
    let sdk = lambda_setup::sdk::config()?;
    let bucket = S3Bucket::new(bucket::client(&sdk), config.bucket_name.clone());
    let handler = Handler::new(bucket, CloudWatch::new(&sdk), config);
    serve(async |event, context| handler.handle(event, context).await).await.map_err(anyhow::Error::from_boxed)
}
