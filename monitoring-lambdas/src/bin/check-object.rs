//! Looks into each object that landed.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use monitoring_lambdas::bucket::{self, S3Bucket};
use monitoring_lambdas::check_object::{Config, Handler};
use monitoring_lambdas::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let config = Config::from_environment().context("check-object can't start")?;
    let client = bucket::client(&lambda_setup::sdk::config()?);
    let open = |name| S3Bucket::new(client.clone(), name);
    let handler = Handler::new(open, config.grace_minutes);
    // The log and the bucket have the verdicts.
    serve(async |event, context| handler.handle(event, context).await.map(drop))
        .await
        .map_err(anyhow::Error::from_boxed)
}
