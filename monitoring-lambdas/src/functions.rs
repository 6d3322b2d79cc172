//! The functions from start to end: each reads its configuration, makes its clients and serves invocations with its handler.
//!
//! They are here and not in the binaries because async code is compiled with the crate that runs it: the SDK's calls and the
//! runtime once, instead of once for each of eight binaries.

use std::time::Duration;

use anyhow::Context as _;
use lambda_setup::bucket::{self, S3Bucket};
use lambda_setup::deadline::Deadline;
use lambda_setup::function::{serve, start};
use lambda_setup::sdk::{SdkConfig, TrustStore};

use crate::cloudwatch::CloudWatch;
use crate::notify::Channels;
use crate::notify::handler::Handler as Notify;
use crate::notify::mail::SesMailer;
use crate::notify::mail_address::MailAddress;
use crate::notify::parameter::SsmParameter;
use crate::notify::recipients::{Recipients, RecipientsError};
use crate::notify::topic::SnsTopic;
use crate::notify::webhook::HttpWebhooks;
use crate::{
    check_completeness, check_deletions, check_object, check_recency, check_size, notify, seal_partition, send_digest,
};

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

/// What reading the recipients may take: of a start, Lambda waits ten seconds for all.
const START_TIME: Duration = Duration::from_secs(8);

pub fn notify() -> anyhow::Result<()> {
    start("notify", notify::config::Config::from_environment, async |config, sdk| {
        let recipients = recipients(&sdk, config.recipients_parameter).await;
        let handler = Notify {
            recipients: recipients.context("notify can't start")?,
            rules: config.rules,
            trusted: config.trusted,
            home: config.home,
            stack_name: config.stack_name,
            runbook_url: config.runbook_url,
            bucket: S3Bucket::new(bucket::client(&sdk), config.bucket_name),
            metrics: CloudWatch::new(&sdk),
            channels: channels(&sdk, config.topic_arn, config.mail_from),
        };
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

pub fn send_digest() -> anyhow::Result<()> {
    start("send-digest", send_digest::Config::from_environment, async |config, sdk| {
        let recipients = recipients(&sdk, config.recipients_parameter).await;
        let handler = send_digest::Handler {
            recipients: recipients.context("send-digest can't start")?,
            bucket: S3Bucket::new(bucket::client(&sdk), config.completeness.bucket_name.clone()),
            metrics: CloudWatch::new(&sdk),
            billing: CloudWatch::of_billing(&sdk),
            channels: channels(&sdk, config.topic_arn, config.mail_from),
            completeness: config.completeness,
            settings: config.settings,
        };
        serve(async |event, context| handler.handle(event, context).await).await
    })
}

async fn recipients(sdk: &SdkConfig, parameter: String) -> Result<Recipients<SsmParameter>, RecipientsError> {
    let parameter = SsmParameter::new(sdk, parameter);
    Recipients::start(parameter, lambda_setup::now(), Deadline::after(START_TIME)).await
}

fn channels(
    sdk: &SdkConfig,
    topic_arn: String,
    mail_from: Option<MailAddress>,
) -> Channels<HttpWebhooks, SnsTopic, Option<SesMailer>> {
    Channels {
        webhooks: HttpWebhooks::new(lambda_setup::sdk::http_client(TrustStore::default())),
        topic: SnsTopic::new(sdk, topic_arn),
        mailer: mail_from.map(|from| SesMailer::new(sdk, from)),
    }
}
