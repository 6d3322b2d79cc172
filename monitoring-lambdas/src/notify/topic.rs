//! The notices topic, whose subscriptions are e-mail addresses, and the only file here that knows the SNS SDK.

use std::time::Duration;

use aws_sdk_sns::Client;
use aws_sdk_sns::error::{DisplayErrorContext, SdkError};
use aws_sdk_sns::types::MessageAttributeValue;
use lambda_setup::deadline::Deadline;
use lambda_setup::sdk::{SdkConfig, with_retries};

use super::outcome::Outcome;

/// Attempts at a call, and how long each may take.
const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where messages for e-mail go.
pub trait Topic {
    /// Publishes one message, with retries, never past the deadline. Subscriptions can filter by the message attribute `group`.
    fn publish(&self, group: &str, subject: &str, text: &str, deadline: Deadline) -> impl Future<Output = Outcome>;
}

/// An SNS topic.
#[derive(Clone)]
pub struct SnsTopic {
    client: Client,
    arn: String,
}

impl SnsTopic {
    pub fn new(config: &SdkConfig, arn: String) -> Self {
        Self { client: Client::new(&with_retries(config, ATTEMPTS, ATTEMPT_TIMEOUT)), arn }
    }
}

impl Topic for SnsTopic {
    async fn publish(&self, group: &str, subject: &str, text: &str, deadline: Deadline) -> Outcome {
        let attribute = MessageAttributeValue::builder().data_type("String").string_value(group).build();
        let attribute = match attribute {
            Ok(attribute) => attribute,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let publish = self.client.publish().topic_arn(&self.arn).subject(subject).message(text);
        let publish = publish.message_attributes("group", attribute).send();
        match deadline.bound(Duration::MAX, publish).await {
            Ok(Ok(_)) => Outcome::Sent,
            // SNS refuses an invalid parameter again; but a missing permission can be fixed.
            Ok(Err(SdkError::ServiceError(error))) if error.err().is_invalid_parameter_exception() => {
                Outcome::Refused(DisplayErrorContext(error.into_err()).to_string())
            }
            Ok(Err(error)) => Outcome::Failed(DisplayErrorContext(error).to_string()),
            Err(time_is_up) => Outcome::Failed(time_is_up.to_string()),
        }
    }
}
