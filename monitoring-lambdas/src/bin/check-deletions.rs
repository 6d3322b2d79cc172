//! Says which objects are gone since their hour was sealed.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use monitoring_lambdas::bucket::{self, S3Bucket};
use monitoring_lambdas::check_deletions::{Config, Handler};
use monitoring_lambdas::cloudwatch::CloudWatch;
use monitoring_lambdas::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let Config { bucket_name } = Config::from_environment().context("check-deletions can't start")?;
    let config = lambda_setup::sdk::config()?;
    let bucket = S3Bucket::new(bucket::client(&config), bucket_name);
    let handler = Handler::new(bucket, CloudWatch::new(&config));
    serve(async |event, context| handler.handle(event, context).await).await.map_err(anyhow::Error::from_boxed)
}
