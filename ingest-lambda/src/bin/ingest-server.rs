//! The same as `ingest-lambda`, as a server: for many small requests, in containers behind a load balancer.

// The types of the SDK nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use ingest_lambda::config::Config;
use ingest_lambda::intake::Intake;
use ingest_lambda::kinesis::KinesisStream;
use ingest_lambda::s3::Bucket;
use ingest_lambda::schema::EventSchema;
use ingest_lambda::server;
use ingest_lambda::store::Services;
use lambda_setup::sdk;
use mimalloc::MiMalloc;

/// Of libc's allocators, musl's takes a lock each time, and glibc's a sixth of a POST's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let config = Config::from_environment().context("ingest-server can't start")?;
    let server_config = server::Config::from_environment().context("ingest-server can't start")?;
    let sdk_config = sdk::container_config()?;
    let stream = KinesisStream::new(&sdk_config, config.stream_name.clone());
    let bucket = Bucket::new(&sdk_config, config.bucket_name.clone());
    let schema = match config.event_schema.clone() {
        Some(schema) => {
            let (bucket, name) = (config.bucket_name.clone(), server_config.metrics_name.clone());
            let opened = EventSchema::open(schema, Bucket::new(&sdk_config, bucket), name);
            Some(opened.context("ingest-server can't start")?)
        }
        None => None,
    };
    let services = Services::new(stream, bucket, config.event_format);
    Ok(server::run(server_config, Intake::new(config).with_schema(schema), services)?)
}
