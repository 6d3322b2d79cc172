//! Looks into each object that landed.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use futures_util::TryFutureExt;
use lambda_runtime::{LambdaEvent, service_fn};
use monitoring_lambdas::bucket::{self, S3Bucket};
use monitoring_lambdas::check_object::{Config, Handler};
use monitoring_lambdas::diagnostic;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let config = Config::from_environment().context("check-object can't start")?;
    let client = bucket::client(&lambda_setup::sdk::config()?);
    let open = |name| S3Bucket::new(client.clone(), name);
    let handler = Handler::new(open, config.grace_minutes);
    // Lambda drops the answer of an event: the log and the bucket have the verdicts.
    let handle = |event: LambdaEvent<_>| {
        handler.handle(event.payload, event.context).map_ok(|verdicts| verdicts.len()).map_err(diagnostic)
    };
    lambda_runtime::run(service_fn(handle)).await.map_err(anyhow::Error::from_boxed)
}
