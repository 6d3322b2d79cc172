//! The functions from start to end: each reads its configuration, makes its clients and serves invocations with its handler.
//!
//! They are here and not in the binaries because async code is compiled with the crate that runs it: the SDK's calls and the
//! runtime once, instead of once for each of seven binaries.

use std::pin::Pin;

use anyhow::Context as _;
use lambda_runtime::{Context, Diagnostic, LambdaEvent, service_fn};
use lambda_setup::sdk::{SdkConfig, TrustStore};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bucket::{self, S3Bucket};
use crate::cloudwatch::CloudWatch;
use crate::notify::handler::Handler as Notify;
use crate::notify::topic::SnsTopic;
use crate::notify::webhook::HttpWebhooks;
use crate::{check_completeness, check_deletions, check_object, check_recency, check_size, notify, seal_partition};

pub fn check_object() -> anyhow::Result<()> {
    start("check-object", check_object::Config::from_environment, async |config, sdk| {
        let client = bucket::client(&sdk);
        let open = |name| S3Bucket::new(client.clone(), name);
        let handler = check_object::Handler::new(open, config.grace_minutes);
        // The log and the bucket have the verdicts.
        serve(async |event, context| handler.handle(event, context).await.map(drop)).await
    })
}

pub fn seal_partition() -> anyhow::Result<()> {
    start("seal-partition", seal_partition::Config::from_environment, async |config, sdk| {
        let client = bucket::client(&sdk);
        let landing = S3Bucket::new(client.clone(), config.bucket_name.clone());
        let failed_batches = S3Bucket::new(client, config.failed_batches_bucket_name.clone());
        let handler = seal_partition::Handler::new(landing, failed_batches, CloudWatch::new(&sdk), config);
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

pub fn check_size() -> anyhow::Result<()> {
    start("check-size", check_size::limits, async |limits, sdk| {
        let client = bucket::client(&sdk);
        let open = |name| S3Bucket::new(client.clone(), name);
        let handler = check_size::Handler::new(open, CloudWatch::new(&sdk), limits);
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

pub fn check_recency() -> anyhow::Result<()> {
    start("check-recency", check_recency::Config::from_environment, async |config, sdk| {
        let bucket = S3Bucket::new(bucket::client(&sdk), config.bucket_name);
        let handler = check_recency::Handler::new(bucket, CloudWatch::new(&sdk), config.due_minutes);
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

pub fn check_completeness() -> anyhow::Result<()> {
    start("check-completeness", check_completeness::Config::from_environment, async |config, sdk| {
        let bucket = S3Bucket::new(bucket::client(&sdk), config.bucket_name.clone());
        let handler = check_completeness::Handler::new(bucket, CloudWatch::new(&sdk), config);
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

pub fn check_deletions() -> anyhow::Result<()> {
    start("check-deletions", check_deletions::Config::from_environment, async |config, sdk| {
        let bucket = S3Bucket::new(bucket::client(&sdk), config.bucket_name);
        let handler = check_deletions::Handler::new(bucket, CloudWatch::new(&sdk));
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

pub fn notify() -> anyhow::Result<()> {
    start("notify", notify::config::Config::from_environment, async |config, sdk| {
        let handler = Notify {
            recipients: config.recipients,
            rules: config.rules,
            stack_name: config.stack_name,
            runbook_url: config.runbook_url,
            bucket: S3Bucket::new(bucket::client(&sdk), config.bucket_name),
            metrics: CloudWatch::new(&sdk),
            webhooks: HttpWebhooks::new(lambda_setup::sdk::http_client(TrustStore::default())),
            topic: SnsTopic::new(&sdk, config.topic_arn),
        };
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

/// Runs a function that has this configuration.
fn start<C, P>(
    name: &str,
    configuration: impl FnOnce() -> Result<C, P>,
    function: impl AsyncFnOnce(C, SdkConfig) -> anyhow::Result<()>,
) -> anyhow::Result<()>
where
    P: std::error::Error + Send + Sync + 'static,
{
    lambda_setup::log::init()?;
    let configuration = configuration().with_context(|| format!("{name} can't start"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(function(configuration, lambda_setup::sdk::config()?))
}

/// Serves invocations until Lambda ends the process. One that failed is reported with its error's type and text.
async fn serve<E, Failure>(handle: impl AsyncFn(E, Context) -> Result<(), Failure>) -> anyhow::Result<()>
where
    E: DeserializeOwned,
    Failure: std::error::Error,
{
    let handle = &handle;
    run(&|LambdaEvent { payload, context }| {
        Box::pin(async move {
            let event = serde_json::from_value(payload).map_err(diagnostic)?;
            handle(event, context).await.map_err(diagnostic)
        })
    })
    .await
}

type Answer<'h> = Pin<Box<dyn Future<Output = Result<(), Diagnostic>> + 'h>>;

/// The runtime without type parameters, which would be compiled for each handler.
async fn run<'h>(answer: &dyn Fn(LambdaEvent<Value>) -> Answer<'h>) -> anyhow::Result<()> {
    lambda_runtime::run(service_fn(answer)).await.map_err(anyhow::Error::from_boxed)
}

fn diagnostic<E: std::error::Error>(error: E) -> Diagnostic {
    let path = std::any::type_name::<E>();
    let error_type = path.rsplit("::").next().unwrap_or(path).to_owned();
    Diagnostic { error_type, error_message: error.to_string() }
}
