//! The parts of template.yaml that the one-machine stack plays: functions, streams, buckets, topics, queues, and what invokes
//! functions. What has a condition that does not hold is not there.
//!
//! Parameters take their defaults or overrides. Of CloudFormation's functions `Ref`, `Fn::GetAtt`, `Fn::Sub`, `Fn::If`,
//! `Fn::FindInMap`, `Fn::ForEach` around resources and, in conditions, `Fn::Equals`, `Fn::Not`, `Fn::And`, `Fn::Or` and `Condition` are known, as far as the properties that are read
//! use them; any other in such a place is an error that names it.

mod alarms;
mod events;
mod for_each;
mod messaging;
mod resolve;
mod resources;
pub(crate) mod schedule;

use std::collections::BTreeMap;
use std::time::Duration;

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

pub use alarms::{Alarm, Calculation, Comparison, MetricStat, MissingData, Watched};
pub(crate) use resolve::STACK_NAME;
use resolve::{Properties, Template, binary, text_of, to_json};
pub(crate) use resources::{ACCOUNT_ID, REGION, alarm_arn, function_arn, queue_arn, stream_arn, topic_arn, topic_name};
pub use resources::{
    Endpoint, Function, Mapping, Notification, Queue, QueueMapping, Redrive, Schedule, Stack, Stream, Subscription,
    Target, TemplateError,
};
use resources::{Result, error, local_name};

impl Stack {
    /// Reads a template. `overrides` are parameter values by name.
    pub fn parse(text: &str, overrides: &BTreeMap<String, String>) -> Result<Self> {
        Self::read(&template(text, overrides)?)
    }

    /// The alarms of a template's nested stacks, whose templates `nested` gives by their paths. Alarms of the template itself
    /// watch the roll-out of a version, which one machine does not have.
    pub fn alarms(
        text: &str,
        overrides: &BTreeMap<String, String>,
        nested: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<Vec<Alarm>> {
        alarms::of_nested_stacks(&template(text, overrides)?, nested)
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
                "AWS::Kinesis::Stream" => stack.streams.push(stream(&properties)?),
                "AWS::S3::Bucket" => {
                    stack.buckets.push(local_name(id));
                    stack.notifications.extend(messaging::bucket_notifications(&properties)?);
                }
                "AWS::SNS::Topic" => stack.topics.push(local_name(id)),
                "AWS::SNS::Subscription" => stack.subscriptions.extend(messaging::subscription(&properties)?),
                "AWS::SQS::Queue" => stack.queues.push(messaging::queue(&properties)?),
                "AWS::Lambda::Url" => stack.front_door = Some(properties.text("TargetFunctionArn")?),
                "AWS::Serverless::Function" => stack.add_function(resource, &properties)?,
                // Logs, alarms, tables and the like have no part in the way of the data.
                _ => {}
            }
        }
        messaging::check(&stack)?;
        Ok(stack)
    }

    fn add_function(&mut self, resource: &Value, properties: &Properties<'_>) -> Result<()> {
        self.functions.push(function(properties.id, resource, properties)?);
        let events = events::events(properties)?;
        self.mappings.extend(events.mappings);
        self.queue_mappings.extend(events.queue_mappings);
        self.notifications.extend(events.notifications);
        self.subscriptions.extend(events.subscriptions);
        self.schedules.extend(events.schedules);
        Ok(())
    }
}

fn template(text: &str, overrides: &BTreeMap<String, String>) -> Result<Template> {
    let documents = Yaml::load_from_str(text)
        .map_err(|problem| TemplateError { place: "template".into(), problem: problem.to_string() })?;
    let Some(document) = documents.first() else { return error("template", "is empty") };
    Template::new(&to_json(document), overrides)
}

fn stream(properties: &Properties<'_>) -> Result<Stream> {
    Ok(Stream {
        name: local_name(properties.id),
        shards: properties.number("ShardCount")?.unwrap_or(ON_DEMAND_SHARDS),
        retention_hours: properties.number("RetentionPeriodHours")?.unwrap_or(24),
    })
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
mod tests;
