//! What invokes the checks and loaders: S3 event notifications and EventBridge schedules.
//!
//! Four members of some forty are read. The types of `aws_lambda_events` require more of a schedule's event, so that one made
//! by hand, with a time alone, would be refused; they leave S3's keys encoded and the bucket's name optional.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use shared::timestamp::UnixMillis;

/// An S3 event notification.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
#[derive(Debug, Clone, Deserialize)]
pub struct S3Event {
    #[serde(rename = "Records")]
    records: Vec<S3Record>,
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
    object: EncodedKey,
}

#[derive(Debug, Clone, Deserialize)]
struct BucketName {
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct EncodedKey {
    key: String,
}

/// An object that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The bucket's name.
    pub bucket: String,
    /// Decoded.
    pub key: String,
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
    /// Objects were created.
    S3(S3Event),
    /// It is time.
    Schedule(ScheduledEvent),
}

/// An event that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The time.
    #[error("the event's time {0:?} is not an RFC 3339 time")]
    Time(String),
    /// An object's key.
    #[error("the object key {0:?} is not percent-encoded UTF-8")]
    Key(String),
}

impl S3Event {
    /// The objects that it names.
    ///
    /// # Errors
    ///
    /// When a key or a time can't be read.
    pub fn created(self) -> Result<Vec<Created>, EventError> {
        self.records.into_iter().map(S3Record::created).collect()
    }
}

impl S3Record {
    fn created(self) -> Result<Created, EventError> {
        let S3Entity { bucket, object } = self.s3;
        // S3 encodes keys as HTML forms do.
        let spaced = object.key.replace('+', " ");
        let key = percent_decode_str(&spaced).decode_utf8();
        let key = key.map_err(|_| EventError::Key(object.key.clone()))?.into_owned();
        Ok(Created { bucket: bucket.name, key, at: time(&self.event_time)? })
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

    #[test]
    fn keys_are_decoded_and_times_read() {
        let event: S3Event = serde_json::from_str(
            r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-east-1",
            "eventTime":"2026-11-21T09:32:08.006Z","eventName":"ObjectCreated:Put","s3":{"s3SchemaVersion":"1.0",
            "bucket":{"name":"b","arn":"arn:aws:s3:::b"},
            "object":{"key":"events/dt%3D2026-11-21/hour%3D09/a+b%2Bc.jsonl.bz2","size":3,"eTag":"x","sequencer":"0A"}}}]}"#,
        )
        .unwrap();
        let expected = Created {
            bucket: "b".into(),
            key: "events/dt=2026-11-21/hour=09/a b+c.jsonl.bz2".into(),
            at: UnixMillis(1_795_253_528_006),
        };
        assert_eq!(event.created(), Ok(vec![expected]));
    }

    #[test]
    fn an_invocation_is_an_s3_event_or_a_schedule() {
        let read = |text: &str| serde_json::from_str::<Invocation>(text);
        assert!(matches!(read(r#"{"Records":[]}"#), Ok(Invocation::S3(_))));
        assert!(matches!(read(r#"{"time":"2026-11-21T09:20:00Z"}"#), Ok(Invocation::Schedule(_))));
        // What S3 sends when notifications are set up names no object; the invocation fails, and nothing else does.
        assert!(read(r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#).is_err());
    }

    #[test]
    fn scheduled_times_in_whole_seconds_are_read() {
        let event: ScheduledEvent = serde_json::from_str(
            r#"{"version":"0","detail-type":"Scheduled Event","source":"aws.events","time":"2026-11-21T09:20:00Z",
            "resources":[],"detail":{}}"#,
        )
        .unwrap();
        assert_eq!(event.at().unwrap().rfc3339(), "2026-11-21T09:20:00.000Z");
        assert_eq!(ScheduledEvent { time: "today".into() }.at(), Err(EventError::Time("today".into())));
    }
}
