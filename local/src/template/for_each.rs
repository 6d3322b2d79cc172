//! `Fn::ForEach`: resources that are written once and declared for each value of a list.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference-foreach.html>

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::resources::{Result, error};

const PREFIX: &str = "Fn::ForEach::";

/// The resources, with those of each loop in its place. A list may be a parameter's. A loop in a loop, and a list that is no list
/// of texts, are errors.
pub(super) fn expanded(
    resources: &Map<String, Value>,
    parameters: &BTreeMap<String, Value>,
) -> Result<Map<String, Value>> {
    let mut expanded = Map::new();
    for (id, resource) in resources {
        let Some(name) = id.strip_prefix(PREFIX) else {
            expanded.insert(id.clone(), resource.clone());
            continue;
        };
        let parts = resource.as_array().map(Vec::as_slice).unwrap_or_default();
        let [Value::String(variable), values, Value::Object(body)] = parts else {
            return error(id, "takes a name, a list of values and a mapping");
        };
        for value in &items(id, values, parameters)? {
            let Value::String(value) = value else {
                return error(id, format!("{value} is no text; write it in quotes"));
            };
            for (id, resource) in body {
                let id = with(id, variable, value);
                if id.starts_with(PREFIX) || expanded.contains_key(&id) {
                    return error(id, format!("of the loop {name} is another loop, or is declared twice"));
                }
                expanded.insert(id, substituted(resource, variable, value));
            }
        }
    }
    Ok(expanded)
}

fn items(id: &str, values: &Value, parameters: &BTreeMap<String, Value>) -> Result<Vec<Value>> {
    match values {
        Value::Array(values) => Ok(values.clone()),
        Value::Object(_) => match values["Ref"].as_str().and_then(|name| parameters.get(name)) {
            Some(Value::String(list)) => Ok(list.split(',').map(|item| json!(item.trim())).collect()),
            _ => error(id, "takes a list, or a parameter that is one"),
        },
        _ => error(id, "takes a name, a list of values and a mapping"),
    }
}

/// `&{…}` stands for the value's letters and digits alone.
fn with(text: &str, variable: &str, value: &str) -> String {
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    text.replace(&format!("${{{variable}}}"), value).replace(&format!("&{{{variable}}}"), &plain)
}

fn substituted(node: &Value, variable: &str, value: &str) -> Value {
    match node {
        Value::String(text) => json!(with(text, variable, value)),
        Value::Array(items) => items.iter().map(|item| substituted(item, variable, value)).collect(),
        Value::Object(members) if members.len() == 1 && members.get("Ref") == Some(&json!(variable)) => json!(value),
        Value::Object(members) => {
            let member =
                |(name, node): (&String, &Value)| (with(name, variable, value), substituted(node, variable, value));
            Value::Object(members.iter().map(member).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn expand(resources: Value) -> Result<Map<String, Value>> {
        let parameters = BTreeMap::from([("Apps".into(), json!("web, set-top-box")), ("Number".into(), json!(1))]);
        expanded(resources.as_object().unwrap(), &parameters)
    }

    #[test]
    fn a_loop_declares_its_resources_once_for_each_value() {
        let body =
            json!({"${X}Alarm": {"Name": {"Fn::Sub": "a-${X}-${Y}"}, "Of": {"Ref": "X"}, "List": [{"Ref": "Z"}]}});
        let found = expand(json!({"Plain": {"n": 1}, "Fn::ForEach::L": ["X", ["4xx", "5xx"], body]})).unwrap();
        let alarm = |x: &str| json!({"Name": {"Fn::Sub": format!("a-{x}-${{Y}}")}, "Of": x, "List": [{"Ref": "Z"}]});
        let expected = json!({"Plain": {"n": 1}, "4xxAlarm": alarm("4xx"), "5xxAlarm": alarm("5xx")});
        assert_eq!(Value::Object(found), expected);
    }

    #[test]
    fn a_list_may_be_a_parameters_and_an_ampersand_leaves_letters_and_digits() {
        let found = expand(json!({"Fn::ForEach::L": ["X", {"Ref": "Apps"}, {"Of&{X}": "${X}"}]})).unwrap();
        assert_eq!(Value::Object(found), json!({"Ofweb": "web", "Ofsettopbox": "set-top-box"}));
    }

    #[rstest]
    #[case::no_parameter(json!({"Fn::ForEach::L": ["X", {"Ref": "Apes"}, {}]}), "takes a list, or a parameter")]
    #[case::no_list_of_texts(json!({"Fn::ForEach::L": ["X", {"Ref": "Number"}, {}]}), "takes a list, or a parameter")]
    #[case::no_list(json!({"Fn::ForEach::L": {"X": 1}}), "Fn::ForEach::L: takes")]
    #[case::no_text(json!({"Fn::ForEach::L": ["X", [4], {}]}), "4 is no text")]
    #[case::the_same_twice(json!({"Fn::ForEach::L": ["X", ["a", "b"], {"Alarm": {}}]}), "Alarm: of the loop L")]
    #[case::a_loop_in_a_loop(json!({"Fn::ForEach::L": ["X", ["a"], {"Fn::ForEach::M": []}]}), "Fn::ForEach::M: of the loop L")]
    fn loops_that_are_not_supported_are_named(#[case] resources: Value, #[case] named: &str) {
        let problem = expand(resources).unwrap_err().to_string();
        assert!(problem.contains(named), "{problem}");
    }
}
