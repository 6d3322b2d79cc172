//! What invokes a function: the `Events` of its properties.

use std::time::Duration;

use serde_json::{Value, json};

use super::messaging;
use super::resolve::Properties;
use super::resources::{Endpoint, Mapping, Notification, QueueMapping, Result, Schedule, Subscription, Target, error};
use super::schedule::Expression;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Events {
    pub(super) mappings: Vec<Mapping>,
    pub(super) queue_mappings: Vec<QueueMapping>,
    pub(super) notifications: Vec<Notification>,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) schedules: Vec<Schedule>,
}

pub(super) fn events(function: &Properties<'_>) -> Result<Events> {
    let mut events = Events::default();
    for (name, event) in function.members("Events")?.into_iter().flatten() {
        let id = format!("{}.Events.{name}", function.id);
        let properties = Properties { template: function.template, id: &id, values: &event["Properties"] };
        match event["Type"].as_str() {
            Some("Kinesis") => events.mappings.push(mapping(function.id, &properties)?),
            Some("S3") => events.notifications.push(notification(function.id, &properties)?),
            Some("Schedule") => events.schedules.extend(schedule(function.id, name, &properties)?),
            Some("SNS") => events.subscriptions.push(subscription(function.id, name, &properties)?),
            Some("SQS") => events.queue_mappings.extend(queue_mapping(function.id, &properties)?),
            other => return error(id, format!("events of the type {other:?} are not supported locally")),
        }
    }
    Ok(events)
}

fn notification(function: &str, properties: &Properties<'_>) -> Result<Notification> {
    let target = Target::Function(function.to_owned());
    messaging::notification(target, properties.text("Bucket")?, properties, "Events")
}

fn subscription(function: &str, name: &str, properties: &Properties<'_>) -> Result<Subscription> {
    properties.refuse(&["FilterPolicy", "FilterPolicyScope", "RedrivePolicy", "SqsSubscription"])?;
    Ok(Subscription {
        id: format!("{function}{name}"),
        topic: properties.name_in_arn("Topic", "sns")?,
        endpoint: Endpoint::Function(function.to_owned()),
        key_prefix: String::new(),
    })
}

/// A schedule; `None` when it is switched off.
fn schedule(function: &str, name: &str, properties: &Properties<'_>) -> Result<Option<Schedule>> {
    if properties.get("Enabled")? == json!(false) || properties.get("State")? == json!("DISABLED") {
        return Ok(None);
    }
    if !properties.values["Input"].is_null() {
        return error(properties.place("Input"), "is not supported locally");
    }
    let expression = properties.text("Schedule")?.parse::<Expression>();
    let expression = expression.or_else(|problem| error(properties.place("Schedule"), problem.to_string()))?;
    Ok(Some(Schedule { function: function.to_owned(), name: format!("{function}{name}"), expression }))
}

fn mapping(function: &str, properties: &Properties<'_>) -> Result<Mapping> {
    if properties.number("ParallelizationFactor")?.unwrap_or(1) != 1 {
        return error(
            properties.place("ParallelizationFactor"),
            "must be 1: the write protocol needs one batch at a time",
        );
    }
    if properties.get("BisectBatchOnFunctionError")? == json!(true) {
        return error(properties.place("BisectBatchOnFunctionError"), "must be false: a batch needs its first record");
    }
    reports_batch_item_failures(properties)?;
    let destination = &properties.values["DestinationConfig"]["OnFailure"]["Destination"];
    let destination = properties.template.resolve(&properties.place("DestinationConfig"), destination)?;
    let on_failure_bucket = match destination.as_str().map(|arn| arn.strip_prefix("arn:aws:s3:::")) {
        None => None,
        Some(Some(bucket)) => Some(bucket.to_owned()),
        Some(None) => return error(properties.place("DestinationConfig"), "only an S3 bucket is supported locally"),
    };
    Ok(Mapping {
        function: function.to_owned(),
        stream: name_in_arn(&properties.get("Stream")?),
        batch_size: usize::try_from(properties.number("BatchSize")?.unwrap_or(100)).unwrap_or(usize::MAX),
        window: Duration::from_secs(properties.number("MaximumBatchingWindowInSeconds")?.unwrap_or(0)),
        maximum_retries: properties.limit("MaximumRetryAttempts")?,
        maximum_record_age: properties.limit("MaximumRecordAgeInSeconds")?.map(Duration::from_secs),
        on_failure_bucket,
    })
}

/// The most messages that a batch may have without a window, and with one.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html>
const MAX_BATCHES: (u64, u64) = (10, 10_000);

/// An SQS queue's event source mapping; `None` when it is switched off.
fn queue_mapping(function: &str, properties: &Properties<'_>) -> Result<Option<QueueMapping>> {
    if properties.get("Enabled")? == json!(false) {
        return Ok(None);
    }
    properties.refuse(&["FilterCriteria", "ProvisionedPollerConfig"])?;
    reports_batch_item_failures(properties)?;
    let window = properties.number("MaximumBatchingWindowInSeconds")?.unwrap_or(0);
    let most = if window == 0 { MAX_BATCHES.0 } else { MAX_BATCHES.1 };
    let batch_size = properties.number("BatchSize")?.unwrap_or(MAX_BATCHES.0);
    if !(1..=most).contains(&batch_size) {
        return error(properties.place("BatchSize"), format!("is {batch_size}; with this window it is 1 to {most}"));
    }
    let id = properties.place("ScalingConfig");
    let scaling = Properties { id: &id, values: &properties.values["ScalingConfig"], ..*properties };
    let maximum_concurrency = scaling.number("MaximumConcurrency")?;
    if maximum_concurrency.is_some_and(|most| !(2..=1_000).contains(&most)) {
        return error(scaling.place("MaximumConcurrency"), "is 2 to 1000");
    }
    Ok(Some(QueueMapping {
        function: function.to_owned(),
        queue: properties.name_in_arn("Queue", "sqs")?,
        batch_size: usize::try_from(batch_size).unwrap_or(usize::MAX),
        window: Duration::from_secs(window),
        maximum_concurrency: maximum_concurrency.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
    }))
}

fn reports_batch_item_failures(properties: &Properties<'_>) -> Result<()> {
    let response_types = properties.values["FunctionResponseTypes"].as_array();
    if response_types.is_some_and(|types| types.contains(&json!("ReportBatchItemFailures"))) {
        return Ok(());
    }
    error(
        properties.place("FunctionResponseTypes"),
        "must hold ReportBatchItemFailures: else what a function gives back counts as done",
    )
}

fn name_in_arn(arn: &Value) -> String {
    arn.as_str().and_then(|arn| arn.rsplit('/').next()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::resources::Stack;
    use super::*;
    use rstest::rstest;

    fn parse(events: &str) -> Result<Stack> {
        let template = format!(
            "
Resources:
  Topic:
    Type: AWS::SNS::Topic
  Queue:
    Type: AWS::SQS::Queue
    Properties: {{RedrivePolicy: {{deadLetterTargetArn: !GetAtt DeadLetters.Arn, maxReceiveCount: 3}}}}
  DeadLetters:
    Type: AWS::SQS::Queue
  LandingBucket:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: !Sub ${{AWS::StackName}}-landing-${{AWS::AccountId}}-${{AWS::Region}}
  CheckFunction:
    Type: AWS::Serverless::Function
    Metadata: {{BuildProperties: {{Binary: check}}}}
    Properties:
      Events: {events}
"
        );
        Stack::parse(&template, &BTreeMap::new())
    }

    #[test]
    fn created_objects_are_read_with_their_filter() {
        let stack = parse(
            "{Object: {Type: S3, Properties: {Bucket: !Ref LandingBucket, Events: 's3:ObjectCreated:*', Filter: {S3Key: \
             {Rules: [{Name: prefix, Value: events/}, {Name: Suffix, Value: .jsonl.bz2}]}}}}}",
        );
        let expected = Notification {
            target: Target::Function("CheckFunction".into()),
            bucket: "landing-bucket".into(),
            kinds: vec!["s3:ObjectCreated:*".into()],
            prefix: "events/".into(),
            suffix: ".jsonl.bz2".into(),
        };
        assert_eq!(stack.unwrap().notifications, [expected]);
    }

    #[test]
    fn schedules_are_read_and_disabled_ones_left_out() {
        let stack = parse(
            "{A: {Type: Schedule, Properties: {Schedule: 'rate(5 minutes)'}}, \
              B: {Type: Schedule, Properties: {Schedule: 'cron(20 * * * ? *)'}}, \
              C: {Type: Schedule, Properties: {Schedule: rate(1 day), Enabled: false}}}",
        );
        let schedules = stack.unwrap().schedules;
        let read: Vec<_> = schedules.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(read, ["CheckFunctionA", "CheckFunctionB"]);
    }

    #[test]
    fn a_topic_is_subscribed() {
        let stack = parse("{Alarm: {Type: SNS, Properties: {Topic: !Ref Topic}}}").unwrap();
        let endpoint = Endpoint::Function("CheckFunction".into());
        let (id, topic, key_prefix) = ("CheckFunctionAlarm".into(), "topic".into(), String::new());
        let expected = Subscription { id, topic, endpoint, key_prefix };
        assert_eq!(stack.subscriptions, [expected]);
    }

    /// An event `A` of a queue, with these properties beside those that it needs.
    fn of_queue(more: &str) -> String {
        let needed = "Queue: !GetAtt Queue.Arn, FunctionResponseTypes: [ReportBatchItemFailures]";
        format!("{{A: {{Type: SQS, Properties: {{{needed}, {more}}}}}}}")
    }

    #[rstest]
    #[case::defaults("", 10, 0, None)]
    #[case::largest_without_window("BatchSize: 10", 10, 0, None)]
    #[case::largest("BatchSize: 10000, MaximumBatchingWindowInSeconds: 1", 10_000, 1, None)]
    #[case::scaled("BatchSize: 1, ScalingConfig: {MaximumConcurrency: 2}", 1, 0, Some(2))]
    fn a_queue_is_read(
        #[case] more: &str,
        #[case] batch_size: usize,
        #[case] window: u64,
        #[case] maximum_concurrency: Option<usize>,
    ) {
        let (function, queue, window) = ("CheckFunction".into(), "queue".into(), Duration::from_secs(window));
        let expected = QueueMapping { function, queue, batch_size, window, maximum_concurrency };
        assert_eq!(parse(&of_queue(more)).unwrap().queue_mappings, [expected]);
    }

    #[test]
    fn a_mapping_that_is_switched_off_is_left_out() {
        assert_eq!(parse(&of_queue("Enabled: false")).unwrap().queue_mappings, []);
    }

    #[rstest]
    #[case::empty("BatchSize: 0", "Events.A.BatchSize")]
    #[case::too_large_without_window("BatchSize: 11", "Events.A.BatchSize")]
    #[case::too_large("BatchSize: 10001, MaximumBatchingWindowInSeconds: 1", "Events.A.BatchSize")]
    #[case::too_narrow("ScalingConfig: {MaximumConcurrency: 1}", "Events.A.ScalingConfig.MaximumConcurrency")]
    #[case::too_wide("ScalingConfig: {MaximumConcurrency: 1001}", "Events.A.ScalingConfig.MaximumConcurrency")]
    #[case::filtered("FilterCriteria: {}", "Events.A.FilterCriteria")]
    fn unsupported_parts_of_a_queues_mapping_are_named(#[case] more: &str, #[case] named: &str) {
        let problem = parse(&of_queue(more)).unwrap_err().to_string();
        assert!(problem.contains(named), "{problem}");
    }

    #[rstest]
    #[case("{A: {Type: Api, Properties: {}}}", "Events.A")]
    #[case("{A: {Type: SQS, Properties: {}}}", "Events.A.FunctionResponseTypes")]
    #[case("{A: {Type: SQS, Properties: {FunctionResponseTypes: [ReportBatchItemFailures]}}}", "Events.A.Queue")]
    #[case("{A: {Type: SNS, Properties: {}}}", "Events.A.Topic")]
    #[case("{A: {Type: SNS, Properties: {Topic: 'arn:aws:sns:eu-west-1:1:another'}}}", "Events.A.Topic")]
    #[case("{A: {Type: SNS, Properties: {Topic: !Ref Topic, FilterPolicy: {}}}}", "Events.A.FilterPolicy")]
    #[case("{A: {Type: SNS, Properties: {Topic: !Ref Topic, SqsSubscription: true}}}", "Events.A.SqsSubscription")]
    #[case("!If [X, {}, {}]", "Fn::If")]
    #[case("{A: {Type: Schedule, Properties: {Schedule: !If [X, a, b]}}}", "condition X")]
    #[case("{A: {Type: Schedule, Properties: {Schedule: 'cron(1 * * * *)'}}}", "Events.A.Schedule")]
    #[case("{A: {Type: Schedule, Properties: {}}}", "Events.A.Schedule")]
    #[case("{A: {Type: Schedule, Properties: {Schedule: 'rate(1 day)', Input: x}}}", "Events.A.Input")]
    #[case("{A: {Type: S3, Properties: {Events: 's3:ObjectCreated:*'}}}", "Events.A.Bucket")]
    #[case("{A: {Type: S3, Properties: {Bucket: !Ref LandingBucket}}}", "Events.A.Events")]
    #[case("{A: {Type: S3, Properties: {Bucket: x, Events: 's3:ObjectRemoved:*'}}}", "s3:ObjectRemoved")]
    fn unsupported_parts_of_a_template_are_named(#[case] events: &str, #[case] named: &str) {
        let problem = parse(events).unwrap_err().to_string();
        assert!(problem.contains(named), "{problem}");
    }
}
