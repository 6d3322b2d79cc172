//! Values of a template: parameters, and CloudFormation's functions as far as the properties that are read use them.

use std::collections::BTreeMap;

use saphyr::{Scalar, Yaml};
use serde_json::{Map, Value, json};

use super::for_each;
use super::resources::{
    ACCOUNT_ID, REGION, Result, error, function_arn, local_name, queue_arn, queue_url, stream_arn, topic_arn,
};

/// The stack's name, for resources that are named after it.
pub(crate) const STACK_NAME: &str = "playhead";

pub(super) struct Template {
    parameters: BTreeMap<String, Value>,
    conditions: Map<String, Value>,
    mappings: Value,
    pub(super) resources: Map<String, Value>,
    pub(super) function_globals: Map<String, Value>,
    /// The `BucketName` nodes of buckets that have one, with the buckets' local names: a bucket's deployed name means its
    /// local one wherever it occurs.
    bucket_names: Vec<(Value, String)>,
}

impl Template {
    pub(super) fn new(document: &Value, overrides: &BTreeMap<String, String>) -> Result<Self> {
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
        let Some(resources) = document["Resources"].as_object() else {
            return error("Resources", "is missing");
        };
        let resources = for_each::expanded(resources, &parameters)?;
        let mappings = document["Mappings"].clone();
        let conditions = document["Conditions"].as_object().cloned().unwrap_or_default();
        let function_globals = document["Globals"]["Function"].as_object().cloned().unwrap_or_default();
        let named = |(id, resource): (&String, &Value)| {
            let name = &resource["Properties"]["BucketName"];
            (resource["Type"] == "AWS::S3::Bucket" && !name.is_null()).then(|| (name.clone(), local_name(id)))
        };
        let bucket_names = resources.iter().filter_map(named).collect();
        Ok(Self { parameters, conditions, mappings, resources, function_globals, bucket_names })
    }

    /// The value of a node that may contain CloudFormation's functions.
    pub(super) fn resolve(&self, place: &str, node: &Value) -> Result<Value> {
        if let Some((_, bucket)) = self.bucket_names.iter().find(|(name, _)| name == node) {
            return Ok(json!(bucket));
        }
        let Some((function, argument)) = intrinsic(node) else { return Ok(node.clone()) };
        match (function, argument) {
            ("Ref", name) => self.reference(place, &text_of(&self.resolve(place, name)?)),
            ("Fn::GetAtt", argument) => self.attribute(place, argument),
            ("Fn::Sub", Value::String(text)) => self.substitute(place, text, &Map::new()).map(Value::String),
            ("Fn::Sub", Value::Array(parts)) => match &parts[..] {
                [Value::String(text), Value::Object(names)] => self.substitute(place, text, names).map(Value::String),
                _ => error(place, "Fn::Sub takes a text, or a list of a text and a mapping"),
            },
            ("Fn::FindInMap", Value::Array(parts)) => self.find_in_map(place, parts),
            ("Fn::If", Value::Array(parts)) => match &parts[..] {
                [Value::String(condition), yes, no] => {
                    self.resolve(place, if self.holds(place, condition)? { yes } else { no })
                }
                _ => error(place, "Fn::If takes a condition's name and two values"),
            },
            (function, _) => error(place, format!("{function} in this form is not supported locally")),
        }
    }

    /// [`Template::resolve`] for all that a node contains. Members and items that become `AWS::NoValue` are left out.
    pub(super) fn resolve_all(&self, place: &str, node: &Value) -> Result<Value> {
        Ok(match self.resolve(place, node)? {
            Value::Array(items) => {
                let items = items.iter().map(|item| self.resolve_all(place, item));
                items.filter(|item| !matches!(item, Ok(Value::Null))).collect::<Result<_>>()?
            }
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| {
                    Ok((name.clone(), self.resolve_all(&format!("{place}.{name}"), value)?))
                };
                let members = members.iter().map(member);
                Value::Object(members.filter(|member| !matches!(member, Ok((_, Value::Null)))).collect::<Result<_>>()?)
            }
            plain => plain,
        })
    }

    /// `Fn::FindInMap` with a mapping, two keys and perhaps a default.
    /// <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference-findinmap-enhancements.html>
    fn find_in_map(&self, place: &str, parts: &[Value]) -> Result<Value> {
        let (keys, default) = match parts {
            [mapping, first, second] => ([mapping, first, second], &Value::Null),
            [mapping, first, second, default] => ([mapping, first, second], &default["DefaultValue"]),
            _ => return error(place, "Fn::FindInMap takes a mapping, two keys and perhaps a default"),
        };
        let mut found = &self.mappings;
        for key in keys {
            found = &found[text_of(&self.resolve(place, key)?)];
        }
        match (found, default) {
            (Value::Null, Value::Null) => error(place, format!("Fn::FindInMap finds nothing by {}", json!(keys))),
            (Value::Null, default) => self.resolve(place, default),
            (found, _) => Ok(found.clone()),
        }
    }

    pub(super) fn holds(&self, place: &str, condition: &str) -> Result<bool> {
        match self.conditions.get(condition) {
            Some(node) => self.is_true(&format!("Conditions.{condition}"), node),
            None => error(place, format!("refers to the condition {condition}, which the template does not declare")),
        }
    }

    fn is_true(&self, place: &str, node: &Value) -> Result<bool> {
        match intrinsic(node) {
            Some(("Fn::Equals", Value::Array(parts))) if parts.len() == 2 => {
                Ok(text_of(&self.resolve(place, &parts[0])?) == text_of(&self.resolve(place, &parts[1])?))
            }
            Some(("Fn::Not", Value::Array(parts))) if parts.len() == 1 => Ok(!self.is_true(place, &parts[0])?),
            Some(("Fn::And", Value::Array(parts))) => {
                Ok(self.are_true(place, parts)?.into_iter().all(|is_true| is_true))
            }
            Some(("Fn::Or", Value::Array(parts))) => {
                Ok(self.are_true(place, parts)?.into_iter().any(|is_true| is_true))
            }
            Some(("Fn::Condition", Value::String(name))) => self.holds(place, name),
            _ => error(place, "is not supported locally; Fn::Equals, Fn::Not, Fn::And, Fn::Or and Condition are"),
        }
    }

    fn are_true(&self, place: &str, parts: &[Value]) -> Result<Vec<bool>> {
        parts.iter().map(|part| self.is_true(place, part)).collect()
    }

    fn reference(&self, place: &str, name: &str) -> Result<Value> {
        // SAM's: the alias that a function is published by. Here a function has one version.
        let name = name.strip_suffix(".Alias").unwrap_or(name);
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        match name {
            "AWS::Region" => return Ok(json!(REGION)),
            "AWS::AccountId" => return Ok(json!(ACCOUNT_ID)),
            "AWS::StackName" => return Ok(json!(STACK_NAME)),
            "AWS::Partition" => return Ok(json!("aws")),
            "AWS::NoValue" => return Ok(Value::Null),
            _ => {}
        }
        let Some(resource) = self.resources.get(name) else {
            return match self.has_event(name) {
                true => Ok(json!(name)),
                false => error(place, format!("refers to {name}, which the template does not declare")),
            };
        };
        Ok(json!(match resource["Type"].as_str() {
            Some("AWS::SNS::Topic") => topic_arn(&local_name(name)),
            Some("AWS::SQS::Queue") => queue_url(&local_name(name)),
            // As in the function's own environment and in its metrics.
            Some("AWS::Serverless::Function") => binary(name, resource)?.to_owned(),
            _ => local_name(name),
        }))
    }

    /// Whether SAM makes a resource of this logical id of a function's event: a rule, or an event source mapping.
    fn has_event(&self, id: &str) -> bool {
        self.resources.iter().any(|(function, resource)| {
            let event = id.strip_prefix(function.as_str()).filter(|event| !event.is_empty());
            event.is_some_and(|event| !resource["Properties"]["Events"][event].is_null())
        })
    }

    fn attribute(&self, place: &str, argument: &Value) -> Result<Value> {
        let parts: Vec<String> = match argument {
            Value::String(text) => text.splitn(2, '.').map(str::to_owned).collect(),
            Value::Array(items) => items.iter().filter_map(|item| Some(item.as_str()?.to_owned())).collect(),
            _ => Vec::new(),
        };
        let [id, attribute] = &parts[..] else { return error(place, "Fn::GetAtt takes a resource and an attribute") };
        let Some(resource) = self.resources.get(id) else {
            return error(place, format!("refers to {id}, which the template does not declare"));
        };
        let name = local_name(id);
        match (resource["Type"].as_str().unwrap_or_default(), attribute.as_str()) {
            ("AWS::Kinesis::Stream", "Arn") => Ok(json!(stream_arn(&name))),
            ("AWS::S3::Bucket", "Arn") => Ok(json!(format!("arn:aws:s3:::{name}"))),
            ("AWS::SNS::Topic", "TopicArn") => Ok(json!(topic_arn(&name))),
            ("AWS::SNS::Topic", "TopicName") | ("AWS::SQS::Queue", "QueueName") => Ok(json!(name)),
            ("AWS::SQS::Queue", "Arn") => Ok(json!(queue_arn(&name))),
            ("AWS::SQS::Queue", "QueueUrl") => Ok(json!(queue_url(&name))),
            ("AWS::Serverless::Function", "Arn") => Ok(json!(function_arn(binary(id, resource)?))),
            (kind, attribute) => error(place, format!("{attribute} of a {kind} is not supported locally")),
        }
    }

    /// A text whose `${…}` are these names, or references.
    fn substitute(&self, place: &str, text: &str, names: &Map<String, Value>) -> Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else { return error(place, "a ${ is not closed") };
            out.push_str(before);
            let value = match (names.get(name), name.split_once('.')) {
                (Some(value), _) => self.resolve(place, value)?,
                (None, Some(_)) => self.attribute(place, &json!(name))?,
                (None, None) => self.reference(place, name)?,
            };
            out.push_str(&text_of(&value));
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

pub(super) struct Properties<'t> {
    pub(super) template: &'t Template,
    pub(super) id: &'t str,
    pub(super) values: &'t Value,
}

impl Properties<'_> {
    pub(super) fn place(&self, name: &str) -> String {
        format!("{}.{name}", self.id)
    }

    pub(super) fn get(&self, name: &str) -> Result<Value> {
        self.template.resolve(&self.place(name), &self.values[name])
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
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
    pub(super) fn limit(&self, name: &str) -> Result<Option<u64>> {
        if text_of(&self.get(name)?) == "-1" { Ok(None) } else { self.number(name) }
    }

    /// The members of a mapping below these properties, if it is there. A function of CloudFormation that makes a whole
    /// mapping is an error: its members would go unread.
    pub(super) fn members(&self, path: &str) -> Result<Option<&Map<String, Value>>> {
        let mut node = self.values;
        for name in path.split('.') {
            if let Some((function, _)) = intrinsic(node) {
                return error(self.place(path), format!("{function} in this form is not supported locally"));
            }
            node = &node[name];
        }
        match intrinsic(node) {
            Some((function, _)) => error(self.place(path), format!("{function} in this form is not supported locally")),
            None => Ok(node.as_object()),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<String> {
        match text_of(&self.get(name)?) {
            text if text.is_empty() => error(self.place(name), "is missing"),
            text => Ok(text),
        }
    }

    /// The name in an ARN of this service: `sns`, `sqs`.
    pub(super) fn name_in_arn(&self, name: &str, service: &str) -> Result<String> {
        let arn = self.text(name)?;
        match arn.strip_prefix(&format!("arn:aws:{service}:{REGION}:{ACCOUNT_ID}:")) {
            Some(name) => Ok(name.to_owned()),
            None => error(self.place(name), format!("is {arn}; the ARN of a resource of this template is needed")),
        }
    }

    pub(super) fn is_true(&self, name: &str) -> Result<bool> {
        match text_of(&self.get(name)?).as_str() {
            "true" => Ok(true),
            "" | "false" => Ok(false),
            other => error(self.place(name), format!("is {other}; true or false is needed")),
        }
    }

    /// Refuses properties that would change what is delivered, and are not played.
    pub(super) fn refuse(&self, names: &[&str]) -> Result<()> {
        match names.iter().find(|name| !self.values[**name].is_null()) {
            Some(name) => error(self.place(name), "is not supported locally"),
            None => Ok(()),
        }
    }

    pub(super) fn variables(&self) -> Result<BTreeMap<String, String>> {
        let variables = self.members("Environment.Variables")?;
        let resolve = |(name, value): (&String, &Value)| {
            let place = self.place(&format!("Environment.Variables.{name}"));
            Ok((name.clone(), text_of(&self.template.resolve(&place, value)?)))
        };
        variables.into_iter().flatten().map(resolve).collect()
    }
}

/// The cargo binary of a function: its local name.
pub(super) fn binary<'r>(id: &str, function: &'r Value) -> Result<&'r str> {
    match function["Metadata"]["BuildProperties"]["Binary"].as_str() {
        Some(binary) => Ok(binary),
        None => error(format!("{id}.Metadata.BuildProperties.Binary"), "is missing; it names the cargo binary"),
    }
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

pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A function and its argument, if the node is one.
pub(super) fn intrinsic(node: &Value) -> Option<(&str, &Value)> {
    let object = node.as_object().filter(|object| object.len() == 1)?;
    let (name, argument) = object.iter().next()?;
    (name == "Ref" || name.starts_with("Fn::")).then_some((name, argument))
}

/// YAML as JSON, with CloudFormation's tags in their long form: `!Ref X` as `{"Ref":"X"}`.
pub(super) fn to_json(node: &Yaml<'_>) -> Value {
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
