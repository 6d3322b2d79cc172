//! S3's event notifications: an object that is created invokes the functions whose filters it matches.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
//!
//! Each is delivered at least once: up to three times when the function fails, then an ERROR line says that it is dropped.
//! They wait in memory, some 10,000 of them: then whoever writes waits for its answer until there is room, and nothing is
//! lost. The functions that take events themselves don't wait, as they would wait for themselves; each of their
//! invocations writes a few objects at most, so that the queue stays bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use serde_json::{Value, json};
use shared::timestamp::UnixMillis;
use tokio::sync::{Mutex, mpsc};

use crate::asynchronous::{self, InFlight, InFlightEvent, Source};
use crate::clock::Clock;
use crate::function::{Function, new_request_id};
use crate::template::{Notification, REGION};

/// Events that may wait before writers do.
const MAX_WAITING: u64 = 10_000;
/// Events that one function works on at once. The functions on the way of the data need the machine too.
const AT_ONCE: usize = 4;

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

struct Event {
    payload: Bytes,
    key: String,
    _counted: InFlightEvent,
}

type Queue = (mpsc::UnboundedSender<Event>, Arc<Mutex<mpsc::UnboundedReceiver<Event>>>);

pub struct Notifications {
    rules: Vec<Notification>,
    /// By the function's logical id.
    queues: BTreeMap<String, Queue>,
    /// The local names of the functions that take events.
    handlers: Vec<String>,
    in_flight: InFlight,
    clock: Clock,
    sequencer: AtomicU64,
}

impl Notifications {
    /// Notifications by these rules. `handlers` are the local names of the functions in them. Nothing is delivered before
    /// [`Notifications::deliver_to`].
    pub fn new(rules: Vec<Notification>, handlers: Vec<String>, in_flight: InFlight, clock: Clock) -> Arc<Self> {
        let queue = |rule: &Notification| {
            let (sender, receiver) = mpsc::unbounded_channel();
            (rule.function.clone(), (sender, Arc::new(Mutex::new(receiver))))
        };
        let queues = rules.iter().map(queue).collect();
        // From the time on, so that it grows over restarts too.
        let started = u64::try_from(lambda_setup::now().0).unwrap_or(0) << 20;
        Arc::new(Self { rules, queues, handlers, in_flight, clock, sequencer: AtomicU64::new(started) })
    }

    pub(crate) fn deliver_to(&self, function: &Arc<Function>) {
        let Some((_, receiver)) = self.queues.get(&function.spec.id) else { return };
        for _ in 0..AT_ONCE {
            let (function, receiver, clock) = (function.clone(), receiver.clone(), self.clock);
            tokio::spawn(async move {
                loop {
                    let event = receiver.lock().await.recv().await;
                    let Some(event) = event else { return };
                    let source = Source::Object(event.key);
                    asynchronous::invoke(new_request_id(), &function, &event.payload, &source, clock).await;
                }
            });
        }
    }

    /// Queues the event of an object for each function that wants it. To be called in the order of the writes.
    pub fn created(&self, created: &Created) {
        let wanted: Vec<&Notification> = self.rules.iter().filter(|rule| wants(rule, created)).collect();
        if wanted.is_empty() {
            return;
        }
        let sequencer = self.sequencer.fetch_add(1, Ordering::SeqCst);
        let at = self.clock.now();
        for rule in wanted {
            let payload = event(created, &rule.function, at, sequencer).to_string().into();
            let event = Event { payload, key: created.key.clone(), _counted: self.in_flight.one() };
            let queue = self.queues.get(&rule.function);
            if queue.is_none_or(|(sender, _)| sender.send(event).is_err()) {
                tracing::error!(
                    key = created.key,
                    function = rule.function,
                    "no function takes the event of an object"
                );
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
    use rstest::rstest;
    use std::time::Duration;

    fn rule(kind: &str, prefix: &str, suffix: &str) -> Notification {
        Notification {
            function: "CheckFunction".into(),
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

    #[tokio::test]
    async fn writers_wait_for_room_and_event_handlers_do_not() {
        let in_flight = InFlight::default();
        let clock = Clock::new(None, lambda_setup::now());
        let rules = vec![rule("s3:ObjectCreated:*", "", "")];
        let notifications = Notifications::new(rules, vec!["check-object".into()], in_flight.clone(), clock);
        for number in 0..MAX_WAITING {
            notifications.created(&created(&number.to_string()));
        }
        let soon = Duration::from_millis(50);
        let waits = |sender: &'static str| tokio::time::timeout(soon, notifications.wait_for_room(Some(sender)));
        assert!(waits("check-object-3").await.is_ok());
        assert!(waits("kinesis-to-s3-lambda-0").await.is_err());
        let (_, receiver) = &notifications.queues["CheckFunction"];
        drop(receiver.lock().await.recv().await);
        assert!(waits("kinesis-to-s3-lambda-0").await.is_ok());
        assert_eq!(in_flight.count(), MAX_WAITING - 1);
    }

    #[tokio::test]
    async fn sequencers_grow_with_the_writes() {
        let clock = Clock::new(None, lambda_setup::now());
        let rules = vec![rule("s3:ObjectCreated:*", "", "")];
        let notifications = Notifications::new(rules, Vec::new(), InFlight::default(), clock);
        let mut sequencers = Vec::new();
        for _ in 0..20 {
            notifications.created(&created("a"));
            let event = notifications.queues["CheckFunction"].1.lock().await.recv().await.unwrap();
            let event: Value = serde_json::from_slice(&event.payload).unwrap();
            sequencers.push(event["Records"][0]["s3"]["object"]["sequencer"].as_str().unwrap().to_owned());
        }
        assert!(sequencers.is_sorted_by(|earlier, later| earlier < later));
    }
}
