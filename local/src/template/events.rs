//! What invokes a function: the `Events` of its properties.

use std::time::Duration;

use serde_json::{Value, json};

use super::resolve::{Properties, text_of};
use super::resources::{Mapping, Notification, Result, Schedule, error};
use super::schedule::Expression;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Events {
    pub(super) mappings: Vec<Mapping>,
    pub(super) notifications: Vec<Notification>,
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
            // There are no alarms here, so nothing is ever published.
            Some("SNS") => {}
            other => return error(id, format!("events of the type {other:?} are not supported locally")),
        }
    }
    Ok(events)
}

fn notification(function: &str, properties: &Properties<'_>) -> Result<Notification> {
    let kinds = match properties.get("Events")? {
        Value::Array(kinds) => kinds,
        Value::Null => return error(properties.place("Events"), "is missing"),
        kind => vec![kind],
    };
    let kinds: Vec<String> = kinds.iter().map(text_of).collect();
    if let Some(other) = kinds.iter().find(|kind| !kind.starts_with("s3:ObjectCreated:")) {
        return error(properties.place("Events"), format!("{other} is not supported locally; s3:ObjectCreated:* is"));
    }
    let mut notification = Notification {
        function: function.to_owned(),
        bucket: properties.text("Bucket")?,
        kinds,
        prefix: String::new(),
        suffix: String::new(),
    };
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
    let response_types = properties.values["FunctionResponseTypes"].as_array();
    if !response_types.is_some_and(|types| types.contains(&json!("ReportBatchItemFailures"))) {
        return error(
            properties.place("FunctionResponseTypes"),
            "must hold ReportBatchItemFailures: else a batch that is given back counts as landed",
        );
    }
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
            function: "CheckFunction".into(),
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
    fn topics_are_tolerated() {
        let stack = parse("{Alarm: {Type: SNS, Properties: {Topic: !Ref Topic}}}").unwrap();
        assert!(stack.notifications.is_empty() && stack.schedules.is_empty() && stack.mappings.is_empty());
    }

    #[rstest]
    #[case("{A: {Type: SQS, Properties: {}}}", "Events.A")]
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
