//! SNS topics: what is published to one goes to each of its subscriptions, to functions and to queues.
//! <https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html>
//!
//! Signatures are placeholders: nobody here could check them.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::timestamp::UnixMillis;
use uuid::Uuid;

use crate::asynchronous::Source;
use crate::event_queues::EventQueues;
use crate::sqs::Queues;
use crate::template::{Endpoint, Subscription, topic_arn};

#[derive(Clone)]
pub(crate) struct Topics {
    subscriptions: Arc<[Subscription]>,
    functions: Arc<EventQueues>,
    queues: Arc<Queues>,
}

/// A message that is published.
pub(crate) struct Message<'a> {
    pub(crate) text: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) at: UnixMillis,
    pub(crate) source: &'a Source,
}

impl Topics {
    pub(crate) fn new(subscriptions: Vec<Subscription>, functions: Arc<EventQueues>, queues: Arc<Queues>) -> Self {
        Self { subscriptions: subscriptions.into(), functions, queues }
    }

    /// Hands a message to a topic's subscriptions; the message's id.
    pub(crate) fn publish(&self, topic: &str, message: &Message<'_>) -> String {
        let id = Uuid::new_v4().to_string();
        let key = message.source.key().unwrap_or_default();
        for subscription in self.subscriptions.iter().filter(|subscription| subscription.takes(topic, key)) {
            match &subscription.endpoint {
                Endpoint::Function(function) => {
                    let event = lambda_event(subscription, &id, message).to_string();
                    self.functions.send(function, message.source, event.into());
                }
                Endpoint::Queue { name, is_raw: true } => self.queues.send(name, message.text.to_owned()),
                Endpoint::Queue { name, is_raw: false } => {
                    self.queues.send(name, notification(subscription, &id, message).to_string());
                }
            }
        }
        id
    }
}

impl Subscription {
    fn takes(&self, topic: &str, key: &str) -> bool {
        self.topic == topic && key.starts_with(&self.key_prefix)
    }
}

const SIGNATURE: &str = "bG9jYWw=";
const CERTIFICATE_URL: &str = "https://sns.us-east-1.amazonaws.com/local.pem";

fn lambda_event(subscription: &Subscription, id: &str, message: &Message<'_>) -> Value {
    json!({"Records": [{
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscription_arn(subscription),
        "Sns": {
            "Type": "Notification",
            "MessageId": id,
            "TopicArn": topic_arn(&subscription.topic),
            "Subject": message.subject,
            "Message": message.text,
            "Timestamp": message.at.rfc3339(),
            "SignatureVersion": "1",
            "Signature": SIGNATURE,
            "SigningCertUrl": CERTIFICATE_URL,
            "UnsubscribeUrl": unsubscribe_url(subscription),
            "MessageAttributes": {},
        },
    }]})
}

/// What a queue gets that does not ask for the message alone.
/// <https://docs.aws.amazon.com/sns/latest/dg/sns-sqs-as-subscriber.html>
fn notification(subscription: &Subscription, id: &str, message: &Message<'_>) -> Value {
    json!({
        "Type": "Notification",
        "MessageId": id,
        "TopicArn": topic_arn(&subscription.topic),
        "Subject": message.subject,
        "Message": message.text,
        "Timestamp": message.at.rfc3339(),
        "SignatureVersion": "1",
        "Signature": SIGNATURE,
        "SigningCertURL": CERTIFICATE_URL,
        "UnsubscribeURL": unsubscribe_url(subscription),
    })
}

/// AWS ends it with a UUID; here it is the logical id, so that it is the same each time.
fn subscription_arn(subscription: &Subscription) -> String {
    format!("{}:{}", topic_arn(&subscription.topic), subscription.id)
}

fn unsubscribe_url(subscription: &Subscription) -> String {
    let arn = subscription_arn(subscription);
    format!("https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={arn}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asynchronous::InFlight;
    use crate::clock::Clock;
    use crate::template::Queue;
    use std::time::Duration;

    fn subscription(id: &str, topic: &str, endpoint: Endpoint) -> Subscription {
        Subscription { id: id.into(), topic: topic.into(), endpoint, key_prefix: String::new() }
    }

    const TEXT: &str = "{\"Records\":[]}";

    fn publish(topics: &Topics, topic: &str) -> String {
        let source = Source::Object("k".into());
        let (subject, at) = ("Amazon S3 Notification", UnixMillis(1_795_253_528_006));
        topics.publish(topic, &Message { text: TEXT, subject, at, source: &source })
    }

    /// Functions `A` and `B`, and the queues `raw` and `wrapped`, subscribe to one topic, and `A` to another.
    fn topics(in_flight: &InFlight) -> Topics {
        let clock = Clock::new(None, lambda_setup::now());
        let function = |id: &str| Endpoint::Function(id.into());
        let queue = |name: &str, is_raw| Endpoint::Queue { name: name.into(), is_raw };
        let subscriptions = vec![
            subscription("ALanded", "landed-topic", function("A")),
            subscription("BLanded", "landed-topic", function("B")),
            subscription("Raw", "landed-topic", queue("raw", true)),
            subscription("Wrapped", "landed-topic", queue("wrapped", false)),
            subscription("ASealed", "sealed-topic", function("A")),
        ];
        let functions = EventQueues::new(["A", "B"].map(str::to_owned), in_flight.clone(), clock);
        let timeout = Duration::from_secs(30);
        let queues =
            ["raw", "wrapped"].map(|name| Queue { name: name.into(), visibility_timeout: timeout, redrive: None });
        let queues = Queues::new(&queues, |_| true, in_flight.clone(), clock);
        Topics::new(subscriptions, functions, queues)
    }

    #[tokio::test]
    async fn each_function_of_a_topic_gets_the_event_that_sns_sends() {
        let in_flight = InFlight::default();
        let topics = topics(&in_flight);
        publish(&topics, "landed-topic");
        assert_eq!(in_flight.count(), 4);
        let mut event = topics.functions.next("A").await;
        let id = event["Records"][0]["Sns"]["MessageId"].take();
        assert_eq!(id.as_str().unwrap().len(), 36);
        let topic = "arn:aws:sns:us-east-1:000000000000:landed-topic";
        let expected = json!({"Records": [{
            "EventSource": "aws:sns",
            "EventVersion": "1.0",
            "EventSubscriptionArn": format!("{topic}:ALanded"),
            "Sns": {
                "Type": "Notification",
                "MessageId": null,
                "TopicArn": topic,
                "Subject": "Amazon S3 Notification",
                "Message": "{\"Records\":[]}",
                "Timestamp": "2026-11-21T09:32:08.006Z",
                "SignatureVersion": "1",
                "Signature": SIGNATURE,
                "SigningCertUrl": CERTIFICATE_URL,
                "UnsubscribeUrl": format!(
                    "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={topic}:ALanded"
                ),
                "MessageAttributes": {},
            },
        }]});
        assert_eq!(event, expected);
        assert_eq!(topics.functions.next("B").await["Records"][0]["Sns"]["MessageId"], id);
        assert_eq!(in_flight.count(), 2);
    }

    #[tokio::test]
    async fn a_queue_gets_the_message_alone_or_in_its_envelope() {
        let topics = topics(&InFlight::default());
        publish(&topics, "landed-topic");
        assert_eq!(topics.queues.bodies("raw"), [TEXT]);
        let wrapped: Value = serde_json::from_str(&topics.queues.bodies("wrapped")[0]).unwrap();
        assert_eq!((&wrapped["Type"], &wrapped["Message"]), (&json!("Notification"), &json!(TEXT)));
        assert_eq!(wrapped["SigningCertURL"], CERTIFICATE_URL);
    }

    #[tokio::test]
    async fn a_subscription_takes_the_keys_of_its_filter_alone() {
        let filtered = |prefix: &str| Subscription {
            key_prefix: prefix.into(),
            ..subscription("Raw", "landed-topic", Endpoint::Queue { name: "raw".into(), is_raw: true })
        };
        for (prefix, takes) in [("", true), ("k", true), ("keys/", false)] {
            let topics = Topics { subscriptions: [filtered(prefix)].into(), ..topics(&InFlight::default()) };
            publish(&topics, "landed-topic");
            assert_eq!(topics.queues.bodies("raw").len(), usize::from(takes), "{prefix}");
        }
    }

    #[tokio::test]
    async fn a_topic_reaches_its_own_subscriptions_alone() {
        let in_flight = InFlight::default();
        let topics = topics(&in_flight);
        publish(&topics, "sealed-topic");
        publish(&topics, "alarms-topic");
        assert_eq!(in_flight.count(), 1);
        let event = topics.functions.next("A").await;
        assert!(event["Records"][0]["EventSubscriptionArn"].as_str().unwrap().ends_with(":ASealed"));
    }
}
