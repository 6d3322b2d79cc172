//! The parts of template.yaml that the one-machine stack plays: functions, streams, buckets, and what invokes functions.
//!
//! Parameters take their defaults or overrides. Of CloudFormation's functions `Ref`, `Fn::GetAtt`, `Fn::Sub`, `Fn::If` and,
//! in conditions, `Fn::Equals` and `Fn::Not` are known, as far as the properties that are read use them; any other in such
//! a place is an error that names it.

mod events;
mod resolve;
pub mod schedule;

use std::collections::BTreeMap;
use std::time::Duration;

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use resolve::{Properties, Template, binary, to_json};
use schedule::Expression;

/// The account that local ARNs name.
pub const ACCOUNT_ID: &str = "000000000000";
/// The region in local ARNs and in the functions' environment.
pub const REGION: &str = "us-east-1";

/// The deployed system, as far as it is played; resources in the order of their logical ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stack {
    pub functions: Vec<Function>,
    pub streams: Vec<Stream>,
    pub buckets: Vec<String>,
    pub mappings: Vec<Mapping>,
    pub notifications: Vec<Notification>,
    pub schedules: Vec<Schedule>,
    /// The binary of the function that has a Function URL.
    pub front_door: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// The logical id in the template.
    pub id: String,
    /// The name of the cargo binary: the local name of the function too.
    pub binary: String,
    pub timeout: Duration,
    pub memory_mb: u64,
    pub environment: BTreeMap<String, String>,
    /// How often an event that failed is tried again, of those whose senders don't wait.
    pub event_retries: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    pub name: String,
    pub shards: u64,
    pub retention_hours: u64,
}

/// A Kinesis event source mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// The logical id of the function.
    pub function: String,
    pub stream: String,
    pub batch_size: usize,
    pub window: Duration,
    /// `None` is for ever.
    pub maximum_retries: Option<u64>,
    /// `None` is for ever.
    pub maximum_record_age: Option<Duration>,
    /// The bucket that takes batches which failed for good.
    pub on_failure_bucket: Option<String>,
}

/// Objects whose creation invokes a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The logical id of the function.
    pub function: String,
    pub bucket: String,
    /// `s3:ObjectCreated:*`, `s3:ObjectCreated:Put` and the like; any of them.
    pub kinds: Vec<String>,
    /// What a key must begin with.
    pub prefix: String,
    /// What a key must end with.
    pub suffix: String,
}

/// Times at which a function is invoked.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The logical id of the function.
    pub function: String,
    /// The logical id that SAM gives the schedule.
    pub name: String,
    pub scheduler: Scheduler,
    pub expression: Expression,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        let key = |schedule: &Self| (schedule.name.clone(), schedule.scheduler, schedule.expression.to_string());
        key(self) == key(other)
    }
}

/// The service that keeps a schedule: their events differ a little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// SAM's `Schedule`.
    EventBridgeRule,
    /// SAM's `ScheduleV2`.
    EventBridgeScheduler,
}

/// A template that can't be played; the message names the place in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct TemplateError {
    place: String,
    problem: String,
}

type Result<T> = std::result::Result<T, TemplateError>;

fn error<T>(place: impl Into<String>, problem: impl Into<String>) -> Result<T> {
    Err(TemplateError { place: place.into(), problem: problem.into() })
}

impl Stack {
    /// Reads a template. `overrides` are parameter values by name.
    ///
    /// # Errors
    ///
    /// When the text is no template, or a property that is read uses something that is not played.
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

/// The shards of a new on-demand stream.
/// <https://docs.aws.amazon.com/streams/latest/dev/how-do-i-size-a-stream.html>
const ON_DEMAND_SHARDS: u64 = 4;

/// The ARN of a stream here.
#[must_use]
pub fn stream_arn(name: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT_ID}:stream/{name}")
}

/// The ARN of a function here.
#[must_use]
pub fn function_arn(binary: &str) -> String {
    format!("arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{binary}")
}

fn topic_arn(name: &str) -> String {
    format!("arn:aws:sns:{REGION}:{ACCOUNT_ID}:{name}")
}

/// `EventStream` is `event-stream`: what CloudFormation would name it, less the stack and the random part.
fn local_name(logical_id: &str) -> String {
    let mut name = String::new();
    for character in logical_id.chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

/// Two unless the function says otherwise, as in Lambda.
fn event_retries(function: &Properties<'_>) -> Result<u64> {
    let values = &function.values["EventInvokeConfig"];
    let id = format!("{}.EventInvokeConfig", function.id);
    let config = Properties { template: function.template, id: &id, values };
    Ok(config.number("MaximumRetryAttempts")?.unwrap_or(MOST_EVENT_RETRIES).min(MOST_EVENT_RETRIES))
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>
const MOST_EVENT_RETRIES: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const TEMPLATE: &str = include_str!("../../../template.yaml");

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
