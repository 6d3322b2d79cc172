//! The parts of template.yaml that the one-machine stack plays: functions, streams, buckets, and what invokes functions.
//!
//! Parameters take their defaults or overrides. Of CloudFormation's functions `Ref`, `Fn::GetAtt`, `Fn::Sub`, `Fn::If` and,
//! in conditions, `Fn::Equals` and `Fn::Not` are known, as far as the properties that are read use them; any other in such
//! a place is an error that names it.

mod events;
mod resolve;
mod resources;
pub(crate) mod schedule;

use std::collections::BTreeMap;
use std::time::Duration;

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use resolve::{Properties, Template, binary, text_of, to_json};
pub use resources::{
    ACCOUNT_ID, Function, Mapping, Notification, REGION, Schedule, Scheduler, Stack, Stream, TemplateError,
    function_arn, stream_arn,
};
use resources::{Result, error, local_name};

impl Stack {
    /// Reads a template. `overrides` are parameter values by name.
    pub fn parse(text: &str, overrides: &BTreeMap<String, String>) -> Result<Self> {
        let documents = Yaml::load_from_str(text)
            .map_err(|problem| TemplateError { place: "template".into(), problem: problem.to_string() })?;
        let Some(document) = documents.first() else { return error("template", "is empty") };
        Self::read(&Template::new(&to_json(document), overrides)?)
    }

    fn read(template: &Template) -> Result<Self> {
        let mut stack = Self::default();
        for (id, resource) in &template.resources {
            let kind = resource["Type"].as_str().unwrap_or_default();
            if let Some(condition) = resource["Condition"].as_str()
                && !template.holds(&format!("{id}.Condition"), condition)?
            {
                continue;
            }
            let properties = Properties { template, id, values: &resource["Properties"] };
            match kind {
                "AWS::Kinesis::Stream" => stack.streams.push(Stream {
                    name: local_name(id),
                    shards: properties.number("ShardCount")?.unwrap_or(ON_DEMAND_SHARDS),
                    retention_hours: properties.number("RetentionPeriodHours")?.unwrap_or(24),
                }),
                "AWS::S3::Bucket" => stack.buckets.push(local_name(id)),
                "AWS::Lambda::Url" => stack.front_door = Some(properties.text("TargetFunctionArn")?),
                // Logs, alarms, tables and the like have no part in the way of the data.
                other if other != "AWS::Serverless::Function" => {}
                _ => {
                    stack.functions.push(function(id, resource, &properties)?);
                    let events = events::events(&properties)?;
                    stack.mappings.extend(events.mappings);
                    stack.notifications.extend(events.notifications);
                    stack.schedules.extend(events.schedules);
                }
            }
        }
        Ok(stack)
    }
}

fn function(id: &str, resource: &Value, properties: &Properties<'_>) -> Result<Function> {
    let template = properties.template;
    let globals = Value::Object(template.function_globals.clone());
    let globals = Properties { template, id: "Globals.Function", values: &globals };
    let mut environment = globals.variables()?;
    environment.extend(properties.variables()?);
    environment.extend(log_variables(properties, &globals)?);
    let number = |name| match properties.number(name)? {
        Some(number) => Ok(Some(number)),
        None => globals.number(name),
    };
    Ok(Function {
        id: id.to_owned(),
        binary: binary(id, resource)?.to_owned(),
        // Lambda's own defaults.
        timeout: Duration::from_secs(number("Timeout")?.unwrap_or(3)),
        memory_mb: number("MemorySize")?.unwrap_or(128),
        environment,
        event_retries: event_retries(properties)?,
    })
}

/// What Lambda says of a function's `LoggingConfig` in its environment. Its own lines about invocations, which `SystemLogLevel`
/// filters, are not played.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime>
fn log_variables(function: &Properties<'_>, globals: &Properties<'_>) -> Result<Vec<(String, String)>> {
    let configs = [function.members("LoggingConfig")?, globals.members("LoggingConfig")?];
    let mut variables = Vec::new();
    for (name, variable) in [("LogFormat", "AWS_LAMBDA_LOG_FORMAT"), ("ApplicationLogLevel", "AWS_LAMBDA_LOG_LEVEL")] {
        let Some(value) = configs.iter().flatten().find_map(|config| config.get(name)) else { continue };
        let value = function.template.resolve(&function.place(&format!("LoggingConfig.{name}")), value)?;
        variables.push((variable.to_owned(), text_of(&value)));
    }
    Ok(variables)
}

/// The shards of a new on-demand stream.
/// <https://docs.aws.amazon.com/streams/latest/dev/how-do-i-size-a-stream.html>
const ON_DEMAND_SHARDS: u64 = 4;

/// Two unless the function says otherwise, as in Lambda.
fn event_retries(function: &Properties<'_>) -> Result<u64> {
    let values = &function.values["EventInvokeConfig"];
    let id = format!("{}.EventInvokeConfig", function.id);
    let config = Properties { template: function.template, id: &id, values };
    Ok(config.number("MaximumRetryAttempts")?.unwrap_or(MAX_EVENT_RETRIES).min(MAX_EVENT_RETRIES))
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>
const MAX_EVENT_RETRIES: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const TEMPLATE: &str = include_str!("../../template.yaml");

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Stack> {
        Stack::parse(TEMPLATE, &overrides(pairs))
    }

    #[test]
    fn the_template_of_the_project_is_played() {
        let stack = parse(&[]).unwrap();
        let function = |binary: &str| stack.functions.iter().find(|function| function.binary == binary).unwrap();
        assert_eq!(stack.front_door.as_deref(), Some("ingest-lambda"));
        assert_eq!(function("ingest-lambda").environment["STREAM_NAME"], "event-stream");
        assert_eq!(function("kinesis-to-s3-lambda").environment["BUCKET_NAME"], "landing-bucket");
        assert_eq!(stack.streams, [Stream { name: "event-stream".into(), shards: 2, retention_hours: 168 }]);
        assert_eq!(stack.buckets, ["failed-batches-bucket", "landing-bucket"]);
        assert_eq!(
            stack.mappings,
            [Mapping {
                function: "LandingFunction".into(),
                stream: "event-stream".into(),
                batch_size: 100,
                window: Duration::from_secs(5),
                maximum_retries: None,
                maximum_record_age: Some(Duration::from_secs(518_400)),
                on_failure_bucket: Some("failed-batches-bucket".into()),
            }]
        );
    }

    #[test]
    fn functions_learn_their_log_format_and_level_and_their_own_overrides_the_global_one() {
        let variables = |stack: &Stack| -> Vec<[Option<String>; 2]> {
            let of = |name: &str, function: &Function| function.environment.get(name).cloned();
            let both = |function| ["AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL"].map(|name| of(name, function));
            stack.functions.iter().map(both).collect()
        };
        let json = [Some("JSON".to_owned()), Some("INFO".to_owned())];
        assert!(variables(&parse(&[]).unwrap()).iter().all(|found| *found == json));
        let check = "{Binary: check}}\n    Properties:\n";
        let own = NAMES.replace(check, &format!("{check}      LoggingConfig: {{ApplicationLogLevel: WARN}}\n"));
        let globals = "Globals: {Function: {LoggingConfig: {LogFormat: JSON, ApplicationLogLevel: INFO}}}";
        let stack = Stack::parse(&format!("{globals}\n{own}"), &BTreeMap::new()).unwrap();
        assert_eq!(variables(&stack), [[Some("JSON".to_owned()), Some("WARN".to_owned())], json]);
        assert_eq!(variables(&Stack::parse(NAMES, &BTreeMap::new()).unwrap()), [[None, None], [None, None]]);
    }

    #[test]
    fn parameters_can_be_overridden() {
        let stack = parse(&[("BatchSize", "7"), ("EventFormat", "raw")]).unwrap();
        assert_eq!(stack.mappings[0].batch_size, 7);
        let ingest = stack.functions.iter().find(|function| function.binary == "ingest-lambda").unwrap();
        assert_eq!(ingest.environment["EVENT_FORMAT"], "raw");
    }

    #[test]
    fn conditions_decide() {
        let stack = parse(&[("StreamMode", "ON_DEMAND"), ("ShardCount", "9")]).unwrap();
        assert_eq!(stack.streams[0].shards, 4);
        assert_eq!(parse(&[("ShardCount", "9")]).unwrap().streams[0].shards, 9);
        assert_eq!(parse(&[("FrontDoor", "HttpApi")]).unwrap().front_door, None);
    }

    #[rstest]
    #[case("BatchSize", "0")]
    #[case("BatchSize", "10001")]
    #[case("BatchSize", "many")]
    #[case("EventFormat", "csv")]
    #[case("NoSuchParameter", "1")]
    fn bad_overrides_are_named(#[case] name: &str, #[case] value: &str) {
        assert!(parse(&[(name, value)]).unwrap_err().to_string().contains(name));
    }

    #[rstest]
    #[case("ParallelizationFactor: 1", "ParallelizationFactor: 2", "ParallelizationFactor")]
    #[case("BisectBatchOnFunctionError: false", "BisectBatchOnFunctionError: true", "BisectBatchOnFunctionError")]
    #[case("FunctionResponseTypes: [ReportBatchItemFailures]", "FunctionResponseTypes: []", "FunctionResponseTypes")]
    #[case("!Ref EventStream", "!ImportValue EventStream", "STREAM_NAME")]
    #[case("!Ref EventStream", "!Ref NoStream", "NoStream")]
    fn what_can_t_be_played_is_named(#[case] from: &str, #[case] to: &str, #[case] named: &str) {
        assert!(TEMPLATE.contains(from));
        let error = Stack::parse(&TEMPLATE.replace(from, to), &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }

    #[test]
    fn text_that_is_no_template_is_an_error() {
        for text in ["", "a: [", "just text", "Resources: 3"] {
            assert!(Stack::parse(text, &BTreeMap::new()).is_err(), "{text}");
        }
    }

    const NAMES: &str = "
Resources:
  AlarmsTopic:
    Type: AWS::SNS::Topic
  LandingBucket:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: !Sub ${AWS::StackName}-landing-${AWS::AccountId}-${AWS::Region}
  OtherFunction:
    Type: AWS::Serverless::Function
    Metadata: {BuildProperties: {Binary: other-lambda}}
  CheckFunction:
    Type: AWS::Serverless::Function
    Metadata: {BuildProperties: {Binary: check}}
    Properties:
      Environment:
        Variables:
          BUCKET: !Sub ${AWS::StackName}-landing-${AWS::AccountId}-${AWS::Region}
          BUCKET_BY_REF: !Ref LandingBucket
          TOPIC: !Ref AlarmsTopic
          OTHER: !Ref OtherFunction
          STACK: !Ref AWS::StackName
  OldAlarm:
    Type: AWS::CloudWatch::Alarm
    Condition: Never
    Properties: !If [A, B, C]
Conditions:
  Never: !Equals [a, b]
  Odd: !Or [a, b]
";

    #[test]
    fn what_is_named_in_the_deployed_system_has_its_name_here() {
        let stack = Stack::parse(NAMES, &BTreeMap::new()).unwrap();
        let environment = &stack.functions[0].environment;
        assert_eq!(environment["BUCKET"], "landing-bucket");
        assert_eq!(environment["BUCKET_BY_REF"], "landing-bucket");
        assert_eq!(environment["TOPIC"], "arn:aws:sns:us-east-1:000000000000:alarms-topic");
        assert_eq!(environment["OTHER"], "other-lambda");
        assert_eq!(environment["STACK"], "playhead");
    }

    #[rstest]
    #[case("Metadata: {BuildProperties: {Binary: check}}", "Condition: Sometimes", "condition Sometimes")]
    #[case("!Ref AlarmsTopic", "!If [A, B, C]", "Variables.TOPIC: refers to the condition A")]
    #[case("!Ref AlarmsTopic", "!If [Odd, B, C]", "Conditions.Odd")]
    #[case("Variables:", "Variables: !If [A, B, C]\n        Others:", "Fn::If")]
    fn conditions_are_named(#[case] from: &str, #[case] to: &str, #[case] named: &str) {
        assert!(NAMES.contains(from));
        let error = Stack::parse(&NAMES.replace(from, to), &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}
