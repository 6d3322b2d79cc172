//! What invokes the checks and loaders: S3 event notifications, most of them by an SNS topic, and EventBridge schedules.
//!
//! Few members of many are read. The types of `aws_lambda_events` require more of a schedule's event, so that one made
//! by hand, with a time alone, would be refused; they leave S3's keys encoded and the bucket's name optional.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use shared::timestamp::UnixMillis;

/// What S3 reports: as it is, or in an SNS event.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct S3Event(Delivery);

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Delivery {
    /// From S3 itself, by a queue, or made by hand.
    Direct(Notification),
    /// A topic's event, whose messages are S3's.
    Topic(SnsEvent),
}

/// What S3 sends.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Notification {
    Created {
        #[serde(rename = "Records")]
        records: Vec<S3Record>,
    },
    /// Sent to a topic once when a notification is set up; it names no object.
    Test {
        #[serde(rename = "Event")]
        _event: TestEvent,
    },
}

#[derive(Debug, Clone, Deserialize)]
enum TestEvent {
    #[serde(rename = "s3:TestEvent")]
    TestEvent,
}

/// An SNS event.
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html>
#[derive(Debug, Clone, Deserialize)]
pub struct SnsEvent {
    #[serde(rename = "Records")]
    records: Vec<SnsRecord>,
}

#[derive(Debug, Clone, Deserialize)]
struct SnsRecord {
    #[serde(rename = "Sns")]
    sns: SnsMessage,
}

/// A message of a topic.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SnsMessage {
    /// As it was published.
    pub message: String,
    /// When SNS took it, as RFC 3339.
    pub timestamp: String,
    /// The topic; absent from an event made by hand.
    pub topic_arn: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct S3Record {
    event_time: String,
    s3: S3Entity,
}

#[derive(Debug, Clone, Deserialize)]
struct S3Entity {
    bucket: BucketName,
    object: S3Object,
}

#[derive(Debug, Clone, Deserialize)]
struct BucketName {
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct S3Object {
    /// Encoded.
    key: String,
    #[serde(rename = "eTag")]
    etag: Option<String>,
}

/// An object that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The bucket's name.
    pub bucket: String,
    /// Decoded.
    pub key: String,
    /// Of its content, without quotes; absent from an event made by hand.
    pub etag: Option<String>,
    /// When S3 took it.
    pub at: UnixMillis,
}

/// An EventBridge schedule's event.
/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html>
#[derive(Debug, Clone, Deserialize)]
pub struct ScheduledEvent {
    time: String,
}

/// Either of the two.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Invocation {
    /// S3 reports something.
    S3(S3Event),
    /// It is time.
    Schedule(ScheduledEvent),
}

/// An event that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The time.
    #[error("the event's time {0:?} is not an RFC 3339 time")]
    Time(String),
    /// An object's key.
    #[error("the object key {0:?} is not percent-encoded UTF-8")]
    Key(String),
    /// A topic's message.
    #[error("a topic's message is not a notification of S3: {0}")]
    Message(#[from] serde_json::Error),
}

impl S3Event {
    /// The objects that it names: none when it is S3's test alone.
    ///
    /// # Errors
    ///
    /// When a message, a key or a time can't be read.
    pub fn created(self) -> Result<Vec<Created>, EventError> {
        let event = match self.0 {
            Delivery::Direct(notification) => return notification.created(),
            Delivery::Topic(event) => event,
        };
        let mut created = Vec::new();
        for message in event.messages() {
            created.extend(serde_json::from_str::<Notification>(&message.message)?.created()?);
        }
        Ok(created)
    }
}

impl Notification {
    fn created(self) -> Result<Vec<Created>, EventError> {
        match self {
            Self::Created { records } => records.into_iter().map(S3Record::created).collect(),
            Self::Test { .. } => {
                tracing::info!("S3's test of a new notification: there is nothing to do");
                Ok(Vec::new())
            }
        }
    }
}

impl SnsEvent {
    /// Its messages, in their order.
    pub fn messages(self) -> impl Iterator<Item = SnsMessage> {
        self.records.into_iter().map(|record| record.sns)
    }
}

impl S3Record {
    fn created(self) -> Result<Created, EventError> {
        let S3Entity { bucket, object } = self.s3;
        // S3 encodes keys as HTML forms do.
        let spaced = object.key.replace('+', " ");
        let key = percent_decode_str(&spaced).decode_utf8();
        let key = key.map_err(|_| EventError::Key(object.key.clone()))?.into_owned();
        Ok(Created { bucket: bucket.name, key, etag: object.etag, at: time(&self.event_time)? })
    }
}

impl ScheduledEvent {
    /// The time that it was scheduled for.
    ///
    /// # Errors
    ///
    /// When the time can't be read.
    pub fn at(&self) -> Result<UnixMillis, EventError> {
        time(&self.time)
    }
}

fn time(text: &str) -> Result<UnixMillis, EventError> {
    UnixMillis::parse_aws(text).ok_or_else(|| EventError::Time(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    /// As S3 writes it, with the members that are not read.
    fn notification(key: &str) -> Value {
        json!({"Records": [{
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
            "eventTime": "2026-11-21T09:32:08.006Z", "eventName": "ObjectCreated:Put",
            "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "b", "arn": "arn:aws:s3:::b"},
                   "object": {"key": key, "size": 3, "eTag": "x", "sequencer": "0A"}},
        }]})
    }

    fn test_event() -> Value {
        json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-21T09:32:08.006Z", "Bucket": "b",
               "RequestId": "5582815E1AEA5ADF", "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR"})
    }

    /// As SNS hands messages to Lambda.
    fn delivered(messages: &[String]) -> String {
        let record = |message: &String| {
            json!({"EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": "arn:aws:sns:…:landed:1",
                   "Sns": {"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:…:landed",
                           "Subject": "Amazon S3 Notification", "Message": message,
                           "Timestamp": "2026-11-21T09:32:08.106Z", "MessageAttributes": {}}})
        };
        json!({"Records": messages.iter().map(record).collect::<Vec<_>>()}).to_string()
    }

    fn created(event: &str) -> Result<Vec<Created>, EventError> {
        serde_json::from_str::<S3Event>(event).unwrap().created()
    }

    fn object(key: &str) -> Created {
        Created { bucket: "b".into(), key: key.into(), etag: Some("x".into()), at: UnixMillis(1_795_253_528_006) }
    }

    const ENCODED: &str = "events/dt%3D2026-11-21/hour%3D09/a+b%2Bc.jsonl.bz2";
    const KEY: &str = "events/dt=2026-11-21/hour=09/a b+c.jsonl.bz2";

    #[test]
    fn keys_are_decoded_and_times_read() {
        assert_eq!(created(&notification(ENCODED).to_string()).unwrap(), [object(KEY)]);
    }

    #[test]
    fn a_topic_delivers_the_same_objects_from_several_records() {
        let event = delivered(&[ENCODED, "x"].map(|key| notification(key).to_string()));
        assert_eq!(created(&event).unwrap(), [object(KEY), object("x")]);
    }

    #[test]
    fn the_test_of_a_new_notification_names_no_object_and_is_no_error() {
        assert_eq!(created(&test_event().to_string()).unwrap(), []);
        let event = delivered(&[test_event().to_string(), notification("x").to_string()]);
        assert_eq!(created(&event).unwrap(), [object("x")]);
    }

    #[rstest]
    #[case::text("hello")]
    #[case::another_event_of_s3(r#"{"Service":"Amazon S3","Event":"s3:ReducedRedundancyLostObject"}"#)]
    #[case::a_topic_in_a_topic(r#"{"Records":[{"Sns":{"Message":"{}","Timestamp":""}}]}"#)]
    fn another_message_of_a_topic_is_an_error(#[case] message: &str) {
        assert!(matches!(created(&delivered(&[message.to_owned()])), Err(EventError::Message(_))));
    }

    #[test]
    fn one_bad_key_or_time_fails_the_event() {
        assert!(matches!(created(&notification("%FF").to_string()), Err(EventError::Key(key)) if key == "%FF"));
        let late = notification("x").to_string().replace("2026-11-21T09:32:08.006Z", "late");
        assert!(matches!(created(&delivered(&[late])), Err(EventError::Time(time)) if time == "late"));
    }

    #[test]
    fn an_invocation_is_an_s3_event_or_a_schedule() {
        let read = |text: &str| serde_json::from_str::<Invocation>(text);
        assert!(matches!(read(r#"{"Records":[]}"#), Ok(Invocation::S3(_))));
        assert!(matches!(read(&delivered(&[])), Ok(Invocation::S3(_))));
        assert!(matches!(read(r#"{"time":"2026-11-21T09:20:00Z"}"#), Ok(Invocation::Schedule(_))));
        assert!(matches!(read(&test_event().to_string()), Ok(Invocation::S3(_))));
        assert!(read(r#"{"Service":"Amazon S3","Event":"s3:ReducedRedundancyLostObject"}"#).is_err());
    }

    #[test]
    fn scheduled_times_in_whole_seconds_are_read() {
        let event: ScheduledEvent = serde_json::from_str(
            r#"{"version":"0","detail-type":"Scheduled Event","source":"aws.events","time":"2026-11-21T09:20:00Z",
            "resources":[],"detail":{}}"#,
        )
        .unwrap();
        assert_eq!(event.at().unwrap().rfc3339(), "2026-11-21T09:20:00.000Z");
        let today = ScheduledEvent { time: "today".into() }.at();
        assert!(matches!(today, Err(EventError::Time(time)) if time == "today"));
    }
}
