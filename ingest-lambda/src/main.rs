//! Takes the events that players post and stores them: on the Kinesis stream or, while Kinesis is away, in S3.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use ingest_lambda::config::Config;
use ingest_lambda::handler::Handler;
use ingest_lambda::kinesis::KinesisStream;
use ingest_lambda::s3::Bucket;
use ingest_lambda::schema::{EventSchema, SchemaReader};
use lambda_runtime::{LambdaEvent, service_fn};
use lambda_setup::environment::{self, EnvironmentError};
use lambda_setup::sdk::SdkConfig;
use lambda_setup::{sdk, shutdown};

/// Lambda sets it.
const FUNCTION_NAME: &str = "AWS_LAMBDA_FUNCTION_NAME";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let config = Config::from_environment().context("ingest-lambda can't start")?;
    let sdk_config = sdk::config()?;
    let stream = KinesisStream::new(&sdk_config, config.stream_name.clone());
    let bucket = Bucket::new(&sdk_config, config.bucket_name.clone());
    let reader = schema(&config, &sdk_config).await.context("ingest-lambda can't start")?;
    let schema = reader.as_ref().map(|reader| reader.schema().clone());
    let handler = Handler::new(config, stream, bucket).with_schema(schema.clone());
    let counts = handler.counts();
    let rest = move || counts.rest().into_iter().chain(schema.iter().flat_map(EventSchema::lines).collect::<Vec<_>>());
    // Without it a few seconds of counts are missing at the end. That is no reason to take no events.
    if let Err(error) = shutdown::on_shutdown(move || rest().for_each(|line| println!("{line}"))).await {
        tracing::warn!(%error, "what this environment counts last will be missing from the metrics");
    }
    let (handler, reader) = (&handler, &reader);
    // Boxed, because the runtime's layers each move it: all states of an invocation would be copied five times.
    let handle = |event: LambdaEvent<_>| {
        Box::pin(async move {
            if let Some(reader) = reader {
                reader.before_request().await;
            }
            handler.handle(event.payload, event.context).await
        })
    };
    lambda_runtime::run(service_fn(handle)).await.map_err(anyhow::Error::from_boxed)
}

async fn schema(config: &Config, sdk_config: &SdkConfig) -> Result<Option<SchemaReader<Bucket>>, EnvironmentError> {
    let Some(schema) = config.event_schema.clone() else { return Ok(None) };
    let bucket = Bucket::new(sdk_config, config.bucket_name.clone());
    let name = environment::required(FUNCTION_NAME)?;
    Ok(Some(EventSchema::open_in_function(schema, bucket, name).await))
}
