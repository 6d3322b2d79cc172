//! What of template.yaml the one-machine stack plays: functions, streams, buckets, event source mappings.
//!
//! Parameters take their defaults or overrides. Of CloudFormation's functions `Ref`, `Fn::GetAtt` and `Fn::Sub` are
//! known, as far as the properties that are read use them; any other in such a place is an error that names it.

use std::collections::BTreeMap;
use std::time::Duration;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};

/// The account that local ARNs name.
pub const ACCOUNT_ID: &str = "000000000000";
/// The region that local ARNs name and that functions and clients are told.
pub const REGION: &str = "us-east-1";

/// The deployed system, as far as it is played; resources in the order of their logical ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    pub functions: Vec<Function>,
    pub streams: Vec<Stream>,
    pub buckets: Vec<String>,
    pub mappings: Vec<Mapping>,
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
    /// Whether it has a Function URL.
    pub has_url: bool,
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
    /// When the text is no template, or uses what is not played in a property that is read.
    pub fn parse(text: &str, overrides: &BTreeMap<String, String>) -> Result<Self> {
        let documents = Yaml::load_from_str(text)
            .map_err(|problem| TemplateError { place: "template".into(), problem: problem.to_string() })?;
        let Some(document) = documents.first() else { return error("template", "is empty") };
        Template::new(&to_json(document), overrides)?.stack()
    }
}

/// A template with its parameters' values.
struct Template {
    parameters: BTreeMap<String, Value>,
    resources: Map<String, Value>,
    function_globals: Map<String, Value>,
}

impl Template {
    fn new(document: &Value, overrides: &BTreeMap<String, String>) -> Result<Self> {
        let declared = document["Parameters"].as_object().cloned().unwrap_or_default();
        if let Some(unknown) = overrides.keys().find(|name| !declared.contains_key(*name)) {
            return error(format!("parameter {unknown}"), "is not declared in the template");
        }
        let mut parameters = BTreeMap::new();
        for (name, declaration) in declared {
            let value = match overrides.get(&name) {
                Some(value) => checked(&name, value, &declaration)?,
                None if declaration["Default"].is_null() => {
                    return error(format!("parameter {name}"), "has no default; give it a value in PARAMETERS");
                }
                None => declaration["Default"].clone(),
            };
            parameters.insert(name, value);
        }
        let Some(resources) = document["Resources"].as_object().cloned() else {
            return error("Resources", "is missing");
        };
        let function_globals = document["Globals"]["Function"].as_object().cloned().unwrap_or_default();
        Ok(Self { parameters, resources, function_globals })
    }

    fn stack(&self) -> Result<Stack> {
        let mut stack = Stack { functions: Vec::new(), streams: Vec::new(), buckets: Vec::new(), mappings: Vec::new() };
        for (id, resource) in &self.resources {
            let properties = Properties { template: self, id, values: &resource["Properties"] };
            match resource["Type"].as_str() {
                Some("AWS::Serverless::Function") => {
                    stack.functions.push(self.function(id, &resource["Metadata"], &properties)?);
                    stack.mappings.extend(mappings(&properties)?);
                }
                Some("AWS::Kinesis::Stream") => stack.streams.push(Stream {
                    name: local_name(id),
                    shards: properties.number("ShardCount")?.unwrap_or(1),
                    retention_hours: properties.number("RetentionPeriodHours")?.unwrap_or(24),
                }),
                Some("AWS::S3::Bucket") => stack.buckets.push(local_name(id)),
                // Logs, alarms, tables and the like have no part in the way of the data.
                _ => {}
            }
        }
        Ok(stack)
    }

    fn function(&self, id: &str, metadata: &Value, properties: &Properties<'_>) -> Result<Function> {
        let Some(binary) = metadata["BuildProperties"]["Binary"].as_str() else {
            return error(format!("{id}.Metadata.BuildProperties.Binary"), "is missing; it names the cargo binary");
        };
        let globals = Value::Object(self.function_globals.clone());
        let globals = Properties { template: self, id: "Globals.Function", values: &globals };
        let mut environment = globals.variables()?;
        environment.extend(properties.variables()?);
        let number = |name| match properties.number(name)? {
            Some(number) => Ok(Some(number)),
            None => globals.number(name),
        };
        Ok(Function {
            id: id.to_owned(),
            binary: binary.to_owned(),
            // Lambda's own defaults.
            timeout: Duration::from_secs(number("Timeout")?.unwrap_or(3)),
            memory_mb: number("MemorySize")?.unwrap_or(128),
            environment,
            has_url: !properties.values["FunctionUrlConfig"].is_null(),
        })
    }

    /// The value of a node in which CloudFormation's functions may stand.
    fn resolve(&self, place: &str, node: &Value) -> Result<Value> {
        let Some((function, argument)) = intrinsic(node) else { return Ok(node.clone()) };
        match (function, argument) {
            ("Ref", Value::String(name)) => self.reference(place, name),
            ("Fn::GetAtt", argument) => self.attribute(place, argument),
            ("Fn::Sub", Value::String(text)) => self.substitute(place, text).map(Value::String),
            (function, _) => error(place, format!("{function} in this form is not played locally")),
        }
    }

    fn reference(&self, place: &str, name: &str) -> Result<Value> {
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        match name {
            "AWS::Region" => Ok(json!(REGION)),
            "AWS::AccountId" => Ok(json!(ACCOUNT_ID)),
            _ if self.resources.contains_key(name) => Ok(json!(local_name(name))),
            _ => error(place, format!("refers to {name}, which the template does not declare")),
        }
    }

    fn attribute(&self, place: &str, argument: &Value) -> Result<Value> {
        let parts: Vec<String> = match argument {
            Value::String(text) => text.splitn(2, '.').map(str::to_owned).collect(),
            Value::Array(items) => items.iter().filter_map(|item| Some(item.as_str()?.to_owned())).collect(),
            _ => Vec::new(),
        };
        let [id, attribute] = &parts[..] else { return error(place, "Fn::GetAtt takes a resource and an attribute") };
        let resource_type = self.resources.get(id).and_then(|resource| resource["Type"].as_str());
        let name = local_name(id);
        match (resource_type, attribute.as_str()) {
            (Some("AWS::Kinesis::Stream"), "Arn") => Ok(json!(stream_arn(&name))),
            (Some("AWS::S3::Bucket"), "Arn") => Ok(json!(format!("arn:aws:s3:::{name}"))),
            (None, _) => error(place, format!("refers to {id}, which the template does not declare")),
            (Some(kind), attribute) => error(place, format!("{attribute} of a {kind} is not played locally")),
        }
    }

    fn substitute(&self, place: &str, text: &str) -> Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else { return error(place, "a ${ is not closed") };
            out.push_str(before);
            let value = match name.split_once('.') {
                Some(_) => self.attribute(place, &json!(name))?,
                None => self.reference(place, name)?,
            };
            out.push_str(&text_of(&value));
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// The properties of one resource.
struct Properties<'t> {
    template: &'t Template,
    id: &'t str,
    values: &'t Value,
}

impl Properties<'_> {
    fn place(&self, name: &str) -> String {
        format!("{}.{name}", self.id)
    }

    fn get(&self, name: &str) -> Result<Value> {
        self.template.resolve(&self.place(name), &self.values[name])
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let value = self.get(name)?;
        if value.is_null() {
            return Ok(None);
        }
        match text_of(&value).parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => error(self.place(name), format!("is {value}; a whole number from 0 is needed")),
        }
    }

    /// A number of which -1 means that there is no limit.
    fn limit(&self, name: &str) -> Result<Option<u64>> {
        if text_of(&self.get(name)?) == "-1" { Ok(None) } else { self.number(name) }
    }

    fn variables(&self) -> Result<BTreeMap<String, String>> {
        let Some(variables) = self.values["Environment"]["Variables"].as_object() else { return Ok(BTreeMap::new()) };
        let resolve = |(name, value): (&String, &Value)| {
            let place = self.place(&format!("Environment.Variables.{name}"));
            Ok((name.clone(), text_of(&self.template.resolve(&place, value)?)))
        };
        variables.iter().map(resolve).collect()
    }
}

/// The Kinesis mappings among a function's events.
fn mappings(function: &Properties<'_>) -> Result<Vec<Mapping>> {
    let Some(events) = function.values["Events"].as_object() else { return Ok(Vec::new()) };
    let kinesis = events.iter().filter(|(_, event)| event["Type"] == "Kinesis");
    kinesis.map(|(name, event)| mapping(function, name, &event["Properties"])).collect()
}

fn mapping(function: &Properties<'_>, name: &str, values: &Value) -> Result<Mapping> {
    let id = format!("{}.Events.{name}", function.id);
    let properties = Properties { template: function.template, id: &id, values };
    if properties.number("ParallelizationFactor")?.unwrap_or(1) != 1 {
        return error(
            properties.place("ParallelizationFactor"),
            "must be 1: the write protocol needs one batch at a time",
        );
    }
    if properties.get("BisectBatchOnFunctionError")? == json!(true) {
        return error(properties.place("BisectBatchOnFunctionError"), "must be false: a batch needs its first record");
    }
    let response_types = values["FunctionResponseTypes"].as_array();
    if !response_types.is_some_and(|types| types.contains(&json!("ReportBatchItemFailures"))) {
        return error(
            properties.place("FunctionResponseTypes"),
            "must hold ReportBatchItemFailures: else a batch that is given back counts as landed",
        );
    }
    let destination = &values["DestinationConfig"]["OnFailure"]["Destination"];
    let destination = properties.template.resolve(&properties.place("DestinationConfig"), destination)?;
    let on_failure_bucket = match destination.as_str().map(|arn| arn.strip_prefix("arn:aws:s3:::")) {
        None => None,
        Some(Some(bucket)) => Some(bucket.to_owned()),
        Some(None) => return error(properties.place("DestinationConfig"), "only an S3 bucket is played locally"),
    };
    Ok(Mapping {
        function: function.id.to_owned(),
        stream: name_in_arn(&properties.get("Stream")?),
        batch_size: usize::try_from(properties.number("BatchSize")?.unwrap_or(100)).unwrap_or(usize::MAX),
        window: Duration::from_secs(properties.number("MaximumBatchingWindowInSeconds")?.unwrap_or(0)),
        maximum_retries: properties.limit("MaximumRetryAttempts")?,
        maximum_record_age: properties.limit("MaximumRecordAgeInSeconds")?.map(Duration::from_secs),
        on_failure_bucket,
    })
}

/// The ARN of a stream here.
#[must_use]
pub fn stream_arn(name: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT_ID}:stream/{name}")
}

fn name_in_arn(arn: &Value) -> String {
    arn.as_str().and_then(|arn| arn.rsplit('/').next()).unwrap_or_default().to_owned()
}

/// An override, checked as CloudFormation would.
fn checked(name: &str, value: &str, declaration: &Value) -> Result<Value> {
    let place = format!("parameter {name}");
    if let Some(allowed) = declaration["AllowedValues"].as_array()
        && !allowed.iter().any(|allowed| text_of(allowed) == value)
    {
        return error(place, format!("is {value:?}, which is not among its AllowedValues"));
    }
    if declaration["Type"] != "Number" {
        return Ok(json!(value));
    }
    let Ok(number) = value.parse::<i64>() else { return error(place, format!("is {value:?}, not a number")) };
    let bound = |bound: &str| declaration[bound].as_i64();
    if bound("MinValue").is_some_and(|least| number < least) || bound("MaxValue").is_some_and(|most| number > most) {
        return error(place, format!("is {number}, outside its MinValue and MaxValue"));
    }
    Ok(json!(number))
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

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A function and its argument, if the node is one.
fn intrinsic(node: &Value) -> Option<(&str, &Value)> {
    let object = node.as_object().filter(|object| object.len() == 1)?;
    let (name, argument) = object.iter().next()?;
    (name == "Ref" || name.starts_with("Fn::")).then_some((name, argument))
}

/// YAML as JSON, with CloudFormation's tags in their long form: `!Ref X` as `{"Ref":"X"}`.
fn to_json(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(Scalar::Boolean(boolean)) => json!(boolean),
        Yaml::Value(Scalar::Integer(integer)) => json!(integer),
        Yaml::Value(Scalar::FloatingPoint(number)) => json!(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Sequence(items) => items.iter().map(to_json).collect(),
        Yaml::Mapping(members) => {
            let member = |(key, value): (&Yaml<'_>, &Yaml<'_>)| (text_of(&to_json(key)), to_json(value));
            Value::Object(members.iter().map(member).collect())
        }
        Yaml::Tagged(tag, node) => match tag.suffix.as_str() {
            "Ref" => json!({"Ref": to_json(node)}),
            function => json!({format!("Fn::{function}"): to_json(node)}),
        },
        Yaml::Value(Scalar::Null) | Yaml::Representation(..) | Yaml::Alias(_) | Yaml::BadValue => Value::Null,
    }
}

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
    fn the_project_s_template_is_played() {
        let stack = parse(&[]).unwrap();
        let binaries: Vec<_> = stack.functions.iter().map(|function| (&*function.binary, function.has_url)).collect();
        assert_eq!(binaries, [("ingest-lambda", true), ("kinesis-to-s3-lambda", false)]);
        assert_eq!(stack.functions[0].environment["STREAM_NAME"], "event-stream");
        assert_eq!(stack.functions[1].environment["BUCKET_NAME"], "landing-bucket");
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
        assert_eq!(stack.functions[0].environment["EVENT_FORMAT"], "raw");
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
}
