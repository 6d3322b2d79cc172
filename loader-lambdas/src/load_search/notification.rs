//! What invokes the function: messages of a queue that an SNS topic feeds with S3's notifications.

use lambda_setup::event::{Created, EventError, S3Event};
use serde::{Deserialize, Serialize};

/// Messages of an SQS queue.
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>
#[derive(Debug, Deserialize)]
pub(super) struct SqsEvent {
    #[serde(rename = "Records")]
    pub(super) messages: Vec<SqsMessage>,
}

/// A message whose body is an S3 notification, bare or in an envelope of SNS.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SqsMessage {
    pub(super) message_id: String,
    pub(super) body: String,
}

/// The messages that the queue is to send again; it deletes all others.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SqsAnswer {
    batch_item_failures: Vec<BatchItemFailure>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchItemFailure {
    item_identifier: String,
}

impl SqsAnswer {
    pub(super) fn send_again(&mut self, message_id: String) {
        self.batch_item_failures.push(BatchItemFailure { item_identifier: message_id });
    }

    #[cfg(test)]
    pub(super) fn failed(&self) -> impl Iterator<Item = &str> {
        self.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str())
    }
}

/// A message that can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotificationError {
    #[error("the message is no S3 notification, and none in an envelope of SNS: {0}")]
    Unknown(#[from] serde_json::Error),
    #[error("the message is an envelope of SNS in another one")]
    Nested,
    #[error(transparent)]
    Event(#[from] EventError),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Notification {
    /// Objects, or the test that S3 sends when notifications are set up.
    S3(S3Event),
    /// <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>
    Sns {
        #[serde(rename = "Message")]
        message: String,
    },
}

/// The objects that a message names; S3's test names none.
pub(super) fn created(body: &str) -> Result<Vec<Created>, NotificationError> {
    let notification = match serde_json::from_str(body)? {
        Notification::Sns { message } => serde_json::from_str(&message)?,
        bare => bare,
    };
    match notification {
        Notification::S3(event) => Ok(event.created()?),
        Notification::Sns { .. } => Err(NotificationError::Nested),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn s3_event() -> Value {
        let object = json!({"bucket": {"name": "b"}, "object": {"key": "events/dt%3D2026-11-21/a+b"}});
        json!({"Records": [{"eventTime": "2026-11-21T09:32:08.006Z", "s3": object}]})
    }

    fn in_envelope(message: &Value) -> Value {
        json!({"Type": "Notification", "MessageId": "m", "TopicArn": "t", "Message": message.to_string()})
    }

    #[rstest]
    #[case::raw_delivery(s3_event(), 1)]
    #[case::in_an_envelope(in_envelope(&s3_event()), 1)]
    #[case::test(json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}), 0)]
    #[case::test_in_an_envelope(in_envelope(&json!({"Service": "Amazon S3", "Event": "s3:TestEvent"})), 0)]
    #[case::no_records(json!({"Records": []}), 0)]
    fn messages_are_read_with_and_without_an_envelope(#[case] body: Value, #[case] objects: usize) {
        let created = created(&body.to_string()).unwrap();
        assert_eq!(created.len(), objects);
        assert!(created.iter().all(|created| created.key == "events/dt=2026-11-21/a b" && created.bucket == "b"));
    }

    #[rstest]
    #[case::not_json("events/x")]
    #[case::another_event(r#"{"Event":"s3:ObjectRemoved"}"#)]
    #[case::bad_time(r#"{"Records":[{"eventTime":"today","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}"#)]
    #[case::other_message(&in_envelope(&json!("hello")).to_string())]
    #[case::nested(&in_envelope(&in_envelope(&s3_event())).to_string())]
    fn other_messages_are_errors(#[case] body: &str) {
        assert!(created(body).is_err());
    }

    #[test]
    fn the_answer_names_what_is_to_be_sent_again() {
        let mut answer = SqsAnswer::default();
        assert_eq!(serde_json::to_value(&answer).unwrap(), json!({"batchItemFailures": []}));
        answer.send_again("m-1".into());
        assert_eq!(serde_json::to_value(&answer).unwrap(), json!({"batchItemFailures": [{"itemIdentifier": "m-1"}]}));
    }
}
