//! Says whether a sealed hour or date is as large as it should be.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use monitoring_lambdas::bucket::{self, S3Bucket};
use monitoring_lambdas::check_size::{self, Handler};
use monitoring_lambdas::cloudwatch::CloudWatch;
use monitoring_lambdas::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let limits = check_size::limits().context("check-size can't start")?;
    let config = lambda_setup::sdk::config()?;
    let client = bucket::client(&config);
    let open = |name| S3Bucket::new(client.clone(), name);
    let handler = Handler::new(open, CloudWatch::new(&config), limits);
    serve(async |event, context| handler.handle(event, context).await).await.map_err(anyhow::Error::from_boxed)
}
