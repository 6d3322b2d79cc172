//! Turns alarms into messages that a person can act on.

// The types of the SDK and of the runtime nest deeper than the compiler's default.
#![recursion_limit = "256"]

use anyhow::Context;
use lambda_setup::sdk::TrustStore;
use monitoring_lambdas::bucket::{self, S3Bucket};
use monitoring_lambdas::cloudwatch::CloudWatch;
use monitoring_lambdas::notify::config::Config;
use monitoring_lambdas::notify::handler::Handler;
use monitoring_lambdas::notify::topic::SnsTopic;
use monitoring_lambdas::notify::webhook::HttpWebhooks;
use monitoring_lambdas::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    lambda_setup::log::init()?;
    let config = Config::from_environment().context("notify can't start")?;
    let sdk = lambda_setup::sdk::config()?;
    let handler = Handler {
        recipients: config.recipients,
        rules: config.rules,
        stack_name: config.stack_name,
        runbook_url: config.runbook_url,
        bucket: S3Bucket::new(bucket::client(&sdk), config.bucket_name),
        metrics: CloudWatch::new(&sdk),
        webhooks: HttpWebhooks::new(lambda_setup::sdk::http_client(TrustStore::default())),
        topic: SnsTopic::new(&sdk, config.topic_arn),
    };
    serve(async |event, context| handler.handle(event, context).await).await.map_err(anyhow::Error::from_boxed)
}
