//! S3's event notifications: an object that is created is reported to the functions and topics whose filters it matches.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
//!
//! Events wait in memory, some 10,000 of them, those in queues behind topics included: then whoever writes waits for its answer
//! until there is room, and nothing is lost. The functions that take events themselves don't wait, as they would wait for
//! themselves; each of their invocations writes a few objects at most, so that what waits stays bounded.
//!
//! The test that S3 sends to a topic when a notification is set up is not played: it names no object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use shared::timestamp::UnixMillis;

use crate::asynchronous::{InFlight, Source};
use crate::clock::Clock;
use crate::event_queues::EventQueues;
use crate::sns::{Message, Topics};
use crate::template::{Notification, REGION, Target};

/// Events that may wait before writers do.
const MAX_WAITING: u64 = 10_000;
/// Of a topic's messages, as S3 words it.
const SUBJECT: &str = "Amazon S3 Notification";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub bucket: String,
    pub key: String,
    pub size: u64,
    /// Without quotes.
    pub e_tag: String,
    /// `Put`, `Post`, `Copy` or `CompleteMultipartUpload`.
    pub by: &'static str,
}

pub struct Notifications {
    rules: Vec<Notification>,
    functions: Arc<EventQueues>,
    topics: Topics,
    /// The local names of the functions that take events, however they get them.
    handlers: Vec<String>,
    in_flight: InFlight,
    clock: Clock,
    sequencer: AtomicU64,
}

/// Where events go.
pub(crate) struct Targets {
    pub(crate) functions: Arc<EventQueues>,
    pub(crate) topics: Topics,
    /// The local names of the functions that take them, be it by a topic or a queue behind it.
    pub(crate) handlers: Vec<String>,
}

impl Notifications {
    /// Notifications by these rules.
    pub(crate) fn new(rules: Vec<Notification>, targets: Targets, in_flight: InFlight, clock: Clock) -> Arc<Self> {
        let Targets { functions, topics, handlers } = targets;
        // From the time on, so that it grows over restarts too.
        let started = u64::try_from(lambda_setup::now().0).unwrap_or(0) << 20;
        Arc::new(Self { rules, functions, topics, handlers, in_flight, clock, sequencer: AtomicU64::new(started) })
    }

    /// Queues the event of an object for all that want it. To be called in the order of the writes.
    pub fn created(&self, created: &Created) {
        let wanted: Vec<&Notification> = self.rules.iter().filter(|rule| wants(rule, created)).collect();
        if wanted.is_empty() {
            return;
        }
        let sequencer = self.sequencer.fetch_add(1, Ordering::SeqCst);
        let at = self.clock.now();
        let source = Source::Object(created.key.clone());
        for rule in wanted {
            let (Target::Function(name) | Target::Topic(name)) = &rule.target;
            let text = event(created, name, at, sequencer).to_string();
            match &rule.target {
                Target::Function(function) => self.functions.send(function, &source, text.into()),
                Target::Topic(topic) => {
                    self.topics.publish(topic, &Message { text: &text, subject: SUBJECT, at, source: &source });
                }
            }
        }
    }

    /// Resolves when there is room for more events, as far as this sender has to wait for it.
    pub async fn wait_for_room(&self, sender: Option<&str>) {
        let handles_events = |name: &str| self.handlers.iter().any(|handler| handler == name);
        // Environments are named after their function, with a number.
        if sender.and_then(|sender| sender.rsplit_once('-')).is_some_and(|(name, _)| handles_events(name)) {
            return;
        }
        self.in_flight.fewer_than(MAX_WAITING).await;
    }
}

fn wants(rule: &Notification, created: &Created) -> bool {
    let kind = |kind: &String| match kind.strip_prefix("s3:ObjectCreated:") {
        Some("*") => true,
        Some(kind) => kind == created.by,
        None => false,
    };
    rule.bucket == created.bucket
        && rule.kinds.iter().any(kind)
        && created.key.starts_with(&rule.prefix)
        && created.key.ends_with(&rule.suffix)
}

fn event(created: &Created, configuration: &str, at: UnixMillis, sequencer: u64) -> Value {
    let bucket = &created.bucket;
    json!({"Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": at.rfc3339(),
        "eventName": format!("ObjectCreated:{}", created.by),
        "userIdentity": {"principalId": "LOCAL"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": format!("{sequencer:016X}"), "x-amz-id-2": "local"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": configuration,
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "LOCAL"},
                "arn": format!("arn:aws:s3:::{bucket}"),
            },
            "object": {
                "key": url_encoded(&created.key),
                "size": created.size,
                "eTag": created.e_tag,
                "sequencer": format!("{sequencer:018X}"),
            },
        },
    }]})
}

/// As S3 encodes keys in events and, if asked, in listings: a space is a plus, and slashes stay.
pub(crate) fn url_encoded(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqs::{Limits, Queues};
    use crate::template::{Endpoint, Queue, Subscription};
    use rstest::rstest;
    use std::time::Duration;

    fn rule(kind: &str, prefix: &str, suffix: &str) -> Notification {
        Notification {
            target: Target::Function("CheckFunction".into()),
            bucket: "landing-bucket".into(),
            kinds: vec![kind.into()],
            prefix: prefix.into(),
            suffix: suffix.into(),
        }
    }

    fn created(key: &str) -> Created {
        let (bucket, key, e_tag) = ("landing-bucket".into(), key.into(), "d41d8cd98f00b204e9800998ecf8427e".into());
        Created { bucket, key, size: 7, e_tag, by: "Put" }
    }

    #[rstest]
    #[case("s3:ObjectCreated:*", "events/", ".bz2", "events/a.bz2", true)]
    #[case("s3:ObjectCreated:Put", "", "", "a", true)]
    #[case("s3:ObjectCreated:Copy", "", "", "a", false)]
    #[case("s3:ObjectCreated:*", "events/", "", "rejected/a", false)]
    #[case("s3:ObjectCreated:*", "events/", "_SUCCESS", "events/a.bz2", false)]
    fn filters_match_as_in_s3(
        #[case] kind: &str,
        #[case] prefix: &str,
        #[case] suffix: &str,
        #[case] key: &str,
        #[case] wanted: bool,
    ) {
        assert_eq!(wants(&rule(kind, prefix, suffix), &created(key)), wanted);
        let elsewhere = Created { bucket: "failed-batches-bucket".into(), ..created(key) };
        assert!(!wants(&rule(kind, prefix, suffix), &elsewhere));
    }

    #[test]
    fn the_event_has_the_form_of_s3() {
        let at = UnixMillis::parse("2026-11-18T09:20:00.123Z").unwrap();
        let event = event(&created("events/dt=2026-11-18/hour=09/a b+ü.bz2"), "CheckFunction", at, 0x55AE_D6DC_D902);
        let record = &event["Records"][0];
        assert_eq!(record["eventVersion"], "2.1");
        assert_eq!(record["eventSource"], "aws:s3");
        assert_eq!(record["eventTime"], "2026-11-18T09:20:00.123Z");
        assert_eq!(record["eventName"], "ObjectCreated:Put");
        assert_eq!(record["s3"]["bucket"]["name"], "landing-bucket");
        assert_eq!(record["s3"]["bucket"]["arn"], "arn:aws:s3:::landing-bucket");
        let object = json!({
            "key": "events/dt%3D2026-11-18/hour%3D09/a+b%2B%C3%BC.bz2",
            "size": 7,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "sequencer": "00000055AED6DCD902",
        });
        assert_eq!(record["s3"]["object"], object);
    }

    /// Notifications by these rules; the queue `work`, which a function reads, and `CheckFunction` subscribe to a topic.
    fn notifications(rules: Vec<Notification>, in_flight: &InFlight) -> (Arc<Notifications>, Arc<Queues>) {
        let clock = Clock::new(None, lambda_setup::now());
        let functions = EventQueues::new(["CheckFunction".to_owned()], in_flight.clone(), clock);
        let spec = Queue { name: "work".into(), visibility_timeout: Duration::ZERO, redrive: None };
        let queues = Queues::new(&[spec], |_| true, in_flight.clone(), clock);
        let subscription = |id: &str, endpoint| Subscription {
            id: id.into(),
            topic: "landed-topic".into(),
            endpoint,
            key_prefix: String::new(),
        };
        let subscriptions = vec![
            subscription("CheckFunctionLanded", Endpoint::Function("CheckFunction".into())),
            subscription("WorkSubscription", Endpoint::Queue { name: "work".into(), is_raw: true }),
        ];
        let topics = Topics::new(subscriptions, functions.clone(), queues.clone());
        let targets = Targets { functions, topics, handlers: vec!["check-object".into()] };
        (Notifications::new(rules, targets, in_flight.clone(), clock), queues)
    }

    #[tokio::test]
    async fn writers_wait_for_room_and_event_handlers_do_not() {
        let in_flight = InFlight::default();
        let (notifications, _) = notifications(vec![rule("s3:ObjectCreated:*", "", "")], &in_flight);
        for number in 0..MAX_WAITING {
            notifications.created(&created(&number.to_string()));
        }
        let soon = Duration::from_millis(50);
        let waits = |sender: &'static str| tokio::time::timeout(soon, notifications.wait_for_room(Some(sender)));
        assert!(waits("check-object-3").await.is_ok());
        assert!(waits("kinesis-to-s3-lambda-0").await.is_err());
        notifications.functions.next("CheckFunction").await;
        assert!(waits("kinesis-to-s3-lambda-0").await.is_ok());
        assert_eq!(in_flight.count(), MAX_WAITING - 1);
    }

    #[tokio::test]
    async fn writers_wait_for_a_topics_subscribers_too() {
        let in_flight = InFlight::default();
        let topic = Notification { target: Target::Topic("landed-topic".into()), ..rule("s3:ObjectCreated:*", "", "") };
        let (notifications, queues) = notifications(vec![topic], &in_flight);
        for number in 0..MAX_WAITING / 2 {
            notifications.created(&created(&number.to_string()));
        }
        assert_eq!((in_flight.count(), queues.bodies("work").len() as u64), (MAX_WAITING, MAX_WAITING / 2));
        let soon = Duration::from_millis(50);
        let waits = || tokio::time::timeout(soon, notifications.wait_for_room(Some("kinesis-to-s3-lambda-0")));
        assert!(waits().await.is_err());
        let limits = Limits { messages: 1, bytes: usize::MAX };
        drop(queues.receive("work", limits, |_| 0, || std::future::ready(())).await);
        assert!(waits().await.is_ok());
    }

    #[tokio::test]
    async fn a_topic_carries_the_event_that_a_function_would_get() {
        let topic = Notification { target: Target::Topic("landed-topic".into()), ..rule("s3:ObjectCreated:*", "", "") };
        let (notifications, queues) = notifications(vec![topic], &InFlight::default());
        notifications.created(&created("events/a b.bz2"));
        let delivered = notifications.functions.next("CheckFunction").await;
        let sns = &delivered["Records"][0]["Sns"];
        assert_eq!(sns["Subject"], "Amazon S3 Notification");
        assert_eq!(queues.bodies("work"), [sns["Message"].as_str().unwrap()]);
        let event: Value = serde_json::from_str(sns["Message"].as_str().unwrap()).unwrap();
        assert_eq!(event["Records"][0]["s3"]["object"]["key"], "events/a+b.bz2");
        assert_eq!(event["Records"][0]["eventTime"], sns["Timestamp"]);
    }

    #[tokio::test]
    async fn sequencers_grow_with_the_writes() {
        let (notifications, _) = notifications(vec![rule("s3:ObjectCreated:*", "", "")], &InFlight::default());
        let mut sequencers = Vec::new();
        for _ in 0..20 {
            notifications.created(&created("a"));
            let event = notifications.functions.next("CheckFunction").await;
            sequencers.push(event["Records"][0]["s3"]["object"]["sequencer"].as_str().unwrap().to_owned());
        }
        assert!(sequencers.is_sorted_by(|earlier, later| earlier < later));
    }
}
