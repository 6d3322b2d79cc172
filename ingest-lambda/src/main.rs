//! Takes the events that players post and stores them: on the Kinesis stream or, while Kinesis is away, in S3.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use ingest_lambda::config::Config;
use ingest_lambda::handler::Handler;
use ingest_lambda::kinesis::KinesisStream;
use ingest_lambda::s3::Bucket;
use lambda_runtime::{LambdaEvent, service_fn};
use lambda_setup::{sdk, shutdown};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let config = Config::from_environment().context("ingest-lambda can't start")?;
    let sdk_config = sdk::config()?;
    let stream = KinesisStream::new(&sdk_config, config.stream_name.clone());
    let bucket = Bucket::new(&sdk_config, config.bucket_name.clone());
    if config.event_schema.is_some() {
        tracing::warn!("EVENT_SCHEMA is for ingest-server: this function accepts events unvalidated");
    }
    let handler = Handler::new(config, stream, bucket);
    let counts = handler.counts();
    // Without it a few seconds of counts are missing at the end. That is no reason to take no events.
    if let Err(error) = shutdown::on_shutdown(move || counts.rest().iter().for_each(|line| println!("{line}"))).await {
        tracing::warn!(%error, "what this environment counts last will be missing from the metrics");
    }
    // Boxed, because the runtime's layers each move it: all states of an invocation would be copied five times.
    let handle = |event: LambdaEvent<_>| Box::pin(handler.handle(event.payload, event.context));
    lambda_runtime::run(service_fn(handle)).await.map_err(anyhow::Error::from_boxed)
}
