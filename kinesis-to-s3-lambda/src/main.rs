//! Lands batches of Kinesis records in S3, each record in exactly one object.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use kinesis_to_s3_lambda::handler::Handler;
use kinesis_to_s3_lambda::s3::Bucket;
use lambda_runtime::{LambdaEvent, service_fn};
use lambda_setup::environment;
use shared::line::EventFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let bucket_name = environment::required("BUCKET_NAME").context("kinesis-to-s3-lambda can't start")?;
    let format =
        environment::choice("EVENT_FORMAT", &EventFormat::NAMES).context("kinesis-to-s3-lambda can't start")?;
    let handler = Handler::new(Bucket::new(&lambda_setup::sdk::config()?, bucket_name), format);
    // Boxed, because the runtime's layers each move it: all states of an invocation would be copied five times.
    let handle = |event: LambdaEvent<_>| Box::pin(handler.handle(event.payload, event.context));
    lambda_runtime::run(service_fn(handle)).await.map_err(anyhow::Error::from_boxed)
}
