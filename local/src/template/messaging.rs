//! Notifications of buckets, subscriptions of topics, and queues; and that what they name is there.

use std::time::Duration;

use serde_json::{Value, json};

use super::resolve::{Properties, text_of};
use super::resources::{
    Endpoint, Notification, Queue, Redrive, Result, Stack, Subscription, Target, error, local_name,
};

/// SQS's own default.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

/// A notification. S3's `Event` and SAM's `Events` hold its kinds.
pub(super) fn notification(
    target: Target,
    bucket: String,
    properties: &Properties<'_>,
    kinds: &str,
) -> Result<Notification> {
    let place = properties.place(kinds);
    let kinds: Vec<String> = match properties.get(kinds)? {
        Value::Array(kinds) => kinds.iter().map(text_of).collect(),
        Value::Null => return error(place, "is missing"),
        kind => vec![text_of(&kind)],
    };
    if let Some(other) = kinds.iter().find(|kind| !kind.starts_with("s3:ObjectCreated:")) {
        return error(place, format!("{other} is not supported locally; s3:ObjectCreated:* is"));
    }
    let mut notification = Notification { target, bucket, kinds, prefix: String::new(), suffix: String::new() };
    let place = properties.place("Filter.S3Key.Rules");
    let key = properties.members("Filter.S3Key")?;
    for rule in key.and_then(|key| key["Rules"].as_array()).into_iter().flatten() {
        let value = text_of(&properties.template.resolve(&place, &rule["Value"])?);
        match rule["Name"].as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("prefix") => notification.prefix = value,
            Some("suffix") => notification.suffix = value,
            _ => return error(place, "takes rules with the Name prefix or suffix"),
        }
    }
    Ok(notification)
}

/// The notifications that a bucket sends to topics. Functions have theirs in their `Events`.
pub(super) fn bucket_notifications(bucket: &Properties<'_>) -> Result<Vec<Notification>> {
    let id = bucket.place("NotificationConfiguration");
    let values = bucket.get("NotificationConfiguration")?;
    let properties = Properties { template: bucket.template, id: &id, values: &values };
    let others = values.as_object().into_iter().flatten().find(|(name, _)| *name != "TopicConfigurations");
    if let Some((other, _)) = others {
        return error(properties.place(other), "is not supported locally; TopicConfigurations are");
    }
    let id = properties.place("TopicConfigurations");
    let mut notifications = Vec::new();
    for configuration in properties.get("TopicConfigurations")?.as_array().into_iter().flatten() {
        let values = bucket.template.resolve(&id, configuration)?;
        if values.is_null() {
            continue;
        }
        let properties = Properties { template: bucket.template, id: &id, values: &values };
        let target = Target::Topic(properties.name_in_arn("Topic", "sns")?);
        notifications.push(notification(target, local_name(bucket.id), &properties, "Event")?);
    }
    Ok(notifications)
}

/// A subscription that is a resource of its own; `None` when it is a person's, who gets nothing here.
pub(super) fn subscription(properties: &Properties<'_>) -> Result<Option<Subscription>> {
    match properties.text("Protocol")?.as_str() {
        "sqs" => {}
        "email" => return Ok(None),
        other => {
            let problem = format!("{other} is not supported locally; sqs is, and functions subscribe by their Events");
            return error(properties.place("Protocol"), problem);
        }
    }
    properties.refuse(&["RedrivePolicy"])?;
    let topic = properties.name_in_arn("TopicArn", "sns")?;
    let name = properties.name_in_arn("Endpoint", "sqs")?;
    let endpoint = Endpoint::Queue { name, is_raw: properties.is_true("RawMessageDelivery")? };
    Ok(Some(Subscription { id: properties.id.to_owned(), topic, endpoint, key_prefix: key_prefix(properties)? }))
}

/// Of a filter on the keys in S3's messages, the one kind that is supported.
fn key_prefix(subscription: &Properties<'_>) -> Result<String> {
    let policy = subscription.get("FilterPolicy")?;
    if policy.is_null() {
        subscription.refuse(&["FilterPolicyScope"])?;
        return Ok(String::new());
    }
    let prefix = policy.pointer("/Records/s3/object/key/0/prefix").map(text_of).unwrap_or_default();
    let supported = json!({"Records": {"s3": {"object": {"key": [{"prefix": prefix}]}}}});
    if policy != supported || subscription.text("FilterPolicyScope")? != "MessageBody" {
        return error(
            subscription.place("FilterPolicy"),
            "is not supported locally; a prefix of Records.s3.object.key in the MessageBody is",
        );
    }
    Ok(prefix)
}

pub(super) fn queue(properties: &Properties<'_>) -> Result<Queue> {
    if properties.is_true("FifoQueue")? || properties.number("DelaySeconds")?.unwrap_or(0) > 0 {
        return error(properties.id, "is a FIFO queue or delays its messages, which is not supported locally");
    }
    let timeout = properties.number("VisibilityTimeout")?.map(Duration::from_secs);
    Ok(Queue {
        name: local_name(properties.id),
        visibility_timeout: timeout.unwrap_or(VISIBILITY_TIMEOUT),
        redrive: redrive(properties)?,
    })
}

fn redrive(queue: &Properties<'_>) -> Result<Option<Redrive>> {
    let (id, values) = (queue.place("RedrivePolicy"), queue.get("RedrivePolicy")?);
    if values.is_null() {
        return Ok(None);
    }
    let properties = Properties { template: queue.template, id: &id, values: &values };
    let dead_letter_queue = properties.name_in_arn("deadLetterTargetArn", "sqs")?;
    match properties.number("maxReceiveCount")? {
        Some(max_receive_count @ 1..=1_000) => Ok(Some(Redrive { dead_letter_queue, max_receive_count })),
        _ => error(properties.place("maxReceiveCount"), "is 1 to 1000"),
    }
}

/// Refuses a stack in which something is sent to what is not there, be it because its condition does not hold, or in which a
/// message would be invoked for without end.
pub(super) fn check(stack: &Stack) -> Result<()> {
    let has_queue = |name: &String| stack.queues.iter().any(|queue| queue.name == *name);
    for notification in &stack.notifications {
        if let Target::Topic(topic) = &notification.target {
            found(&notification.bucket, "topic", topic, stack.topics.contains(topic))?;
        }
    }
    for Subscription { id, topic, endpoint, .. } in &stack.subscriptions {
        found(id, "topic", topic, stack.topics.contains(topic))?;
        if let Endpoint::Queue { name, .. } = endpoint {
            found(id, "queue", name, has_queue(name))?;
        }
    }
    for Queue { name, redrive, .. } in &stack.queues {
        if let Some(Redrive { dead_letter_queue, .. }) = redrive {
            found(name, "queue", dead_letter_queue, has_queue(dead_letter_queue))?;
        }
    }
    stack.queue_mappings.iter().try_for_each(|mapping| check_source(stack, &mapping.function, &mapping.queue))
}

fn found(place: &str, kind: &str, name: &str, is_there: bool) -> Result<()> {
    if is_there {
        return Ok(());
    }
    error(place, format!("refers to the {kind} {name}, which is not in the template or whose condition does not hold"))
}

/// Whether a queue can feed a function: Lambda refuses a visibility timeout that is shorter than the function's.
fn check_source(stack: &Stack, function: &str, name: &str) -> Result<()> {
    let Some(queue) = stack.queues.iter().find(|queue| queue.name == name) else {
        return found(function, "queue", name, false);
    };
    if queue.redrive.is_none() {
        return error(name, "has no RedrivePolicy: a message that fails would come back for days");
    }
    let timeout = stack.functions.iter().find(|one| one.id == function).map_or(Duration::ZERO, |one| one.timeout);
    if queue.visibility_timeout < timeout {
        return error(name, format!("has a VisibilityTimeout that is shorter than the Timeout of {function}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use rstest::rstest;

    const TEMPLATE: &str = "
Parameters:
  Loads: {Type: String, Default: 'yes'}
Conditions:
  Loads: !Equals [!Ref Loads, 'yes']
Resources:
  LandedTopic:
    Type: AWS::SNS::Topic
  LandingBucket:
    Type: AWS::S3::Bucket
    Properties:
      NotificationConfiguration:
        TopicConfigurations:
          - Topic: !Ref LandedTopic
            Event: s3:ObjectCreated:*
            Filter: {S3Key: {Rules: [{Name: prefix, Value: events/}, {Name: suffix, Value: .bz2}]}}
          - !If [Loads, {Topic: !Ref LandedTopic, Event: 's3:ObjectCreated:Put'}, !Ref AWS::NoValue]
  Letters:
    Type: AWS::SQS::Queue
    Condition: Loads
    Properties:
      VisibilityTimeout: 60
      RedrivePolicy: {deadLetterTargetArn: !GetAtt DeadLetters.Arn, maxReceiveCount: 5}
  DeadLetters:
    Type: AWS::SQS::Queue
    Condition: Loads
  LettersSubscription:
    Type: AWS::SNS::Subscription
    Condition: Loads
    Properties:
      TopicArn: !Ref LandedTopic
      Protocol: sqs
      Endpoint: !GetAtt Letters.Arn
      RawMessageDelivery: true
      FilterPolicyScope: MessageBody
      FilterPolicy: {Records: {s3: {object: {key: [{prefix: events/}]}}}}
  PeoplesSubscription:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref LandedTopic, Protocol: email, Endpoint: a@example.com}
  LoaderFunction:
    Type: AWS::Serverless::Function
    Condition: Loads
    Metadata: {BuildProperties: {Binary: loader}}
    Properties:
      Timeout: 60
      Environment: {Variables: {QUEUE: !Ref Letters, NAME: !GetAtt Letters.QueueName}}
      Events:
        Letters:
          Type: SQS
          Properties: {Queue: !GetAtt Letters.Arn, BatchSize: 5, FunctionResponseTypes: [ReportBatchItemFailures]}
";

    fn parse(text: &str, loads: &str) -> Result<Stack> {
        Stack::parse(text, &BTreeMap::from([("Loads".to_owned(), loads.to_owned())]))
    }

    #[test]
    fn a_bucket_notifies_topics_and_a_topic_feeds_a_queue() {
        let stack = parse(TEMPLATE, "yes").unwrap();
        let notification = |kind: &str, prefix: &str, suffix: &str| Notification {
            target: Target::Topic("landed-topic".into()),
            bucket: "landing-bucket".into(),
            kinds: vec![kind.into()],
            prefix: prefix.into(),
            suffix: suffix.into(),
        };
        let expected =
            [notification("s3:ObjectCreated:*", "events/", ".bz2"), notification("s3:ObjectCreated:Put", "", "")];
        assert_eq!(stack.notifications, expected);
        let endpoint = Endpoint::Queue { name: "letters".into(), is_raw: true };
        let (id, topic) = ("LettersSubscription".into(), "landed-topic".into());
        assert_eq!(stack.subscriptions, [Subscription { id, topic, endpoint, key_prefix: "events/".into() }]);
        let redrive = Redrive { dead_letter_queue: "dead-letters".into(), max_receive_count: 5 };
        let queue = |name: &str, seconds, redrive| Queue {
            name: name.into(),
            visibility_timeout: Duration::from_secs(seconds),
            redrive,
        };
        assert_eq!(stack.queues, [queue("dead-letters", 30, None), queue("letters", 60, Some(redrive))]);
        assert_eq!(stack.queue_mappings.len(), 1);
        let environment = &stack.functions[0].environment;
        assert_eq!(environment["QUEUE"], "https://sqs.us-east-1.amazonaws.com/000000000000/letters");
        assert_eq!(environment["NAME"], "letters");
    }

    #[test]
    fn what_has_a_condition_that_does_not_hold_is_not_there() {
        let stack = parse(TEMPLATE, "no").unwrap();
        assert_eq!(stack.notifications.len(), 1);
        assert!(stack.queues.is_empty() && stack.subscriptions.is_empty());
        assert!(stack.functions.is_empty() && stack.queue_mappings.is_empty());
    }

    #[rstest]
    #[case::the_queue_of_a_subscription(0, "LettersSubscription: refers to the queue letters")]
    #[case::the_queue_of_a_mapping(2, "LoaderFunction: refers to the queue letters")]
    #[case::a_dead_letter_queue(1, "letters: refers to the queue dead-letters")]
    fn a_reference_to_what_is_not_there_is_named(#[case] kept: usize, #[case] named: &str) {
        let conditional = ["  LettersSubscription:", "  Letters:", "  LoaderFunction:"];
        let place = TEMPLATE.find(conditional[kept]).unwrap();
        let (before, after) = TEMPLATE.split_at(place);
        let text = format!("{before}{}", after.replacen("    Condition: Loads\n", "", 1));
        let problem = parse(&text, "no").unwrap_err().to_string();
        assert!(problem.starts_with(named), "{problem}");
    }

    #[rstest]
    #[case("AWS::SNS::Topic", "AWS::SNS::Subject", "LandingBucket.NotificationConfiguration.TopicConfigurations.Topic")]
    #[case("TopicConfigurations:", "QueueConfigurations:", "NotificationConfiguration.QueueConfigurations")]
    #[case("'s3:ObjectCreated:Put'", "'s3:ObjectRemoved:*'", "s3:ObjectRemoved")]
    #[case("Name: prefix", "Name: infix", "Filter.S3Key.Rules")]
    #[case("Protocol: sqs", "Protocol: https", "LettersSubscription.Protocol")]
    #[case("RawMessageDelivery: true", "RawMessageDelivery: maybe", "RawMessageDelivery")]
    #[case("[{prefix: events/}]", "[{suffix: events/}]", "LettersSubscription.FilterPolicy")]
    #[case("[{prefix: events/}]", "[{prefix: a}, {prefix: b}]", "LettersSubscription.FilterPolicy")]
    #[case("      FilterPolicyScope: MessageBody", "", "FilterPolicy")]
    #[case("      FilterPolicy:", "      Other:", "FilterPolicyScope")]
    #[case("VisibilityTimeout: 60", "VisibilityTimeout: 59", "VisibilityTimeout")]
    #[case("VisibilityTimeout: 60", "FifoQueue: true", "Letters: is a FIFO queue")]
    #[case("VisibilityTimeout: 60", "DelaySeconds: 1", "Letters: is a FIFO queue or delays")]
    #[case("maxReceiveCount: 5", "maxReceiveCount: 0", "Letters.RedrivePolicy.maxReceiveCount")]
    #[case("maxReceiveCount: 5", "maxReceiveCount: 1001", "Letters.RedrivePolicy.maxReceiveCount")]
    #[case("      RedrivePolicy:", "      Redrive:", "letters: has no RedrivePolicy")]
    fn unsupported_parts_of_a_template_are_named(#[case] from: &str, #[case] to: &str, #[case] named: &str) {
        assert!(TEMPLATE.contains(from));
        let problem = parse(&TEMPLATE.replace(from, to), "yes").unwrap_err().to_string();
        assert!(problem.contains(named), "{problem}");
    }
}
