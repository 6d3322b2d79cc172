//! A JSON Schema, compiled: which rules an event breaks. Pure.

use std::collections::BTreeSet;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde::Serialize;
use serde_json::Value;

use crate::overlap::{UnboundedSchema, most_rules_a_value};

/// Bytes of a schema at most.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// Bytes of a rule's name and of a place in an event at most.
const MAX_RULE_BYTES: usize = 200;
/// Bytes of a compiled pattern at most: some thousand states, each of which a byte of text may cost a step.
const MAX_PATTERN_BYTES: usize = 64 * 1024;
/// Of an event: its bytes times the rules that can apply to one value. The validator collects all that is wrong, in choices with copies of
/// what is: a step more than this, and the event is known to break a rule, but not which.
const MAX_STEPS_AN_EVENT: usize = 512 * 1024;
/// Of all events of a request.
pub const MAX_STEPS_A_REQUEST: usize = 16 * 1024 * 1024;
/// Stands for the rules of which it was not found out which they are.
pub const OTHER: &str = "other";

/// A rule of the schema that an event breaks, and where. No value of the event is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The keyword's location in the schema, such as `/properties/type/enum`.
    pub rule: String,
    /// The place in the event, such as `/type`; empty for the event itself.
    pub path: String,
}

/// Why bytes are no schema that events are validated by.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Over [`MAX_SCHEMA_BYTES`].
    #[error("is larger than {MAX_SCHEMA_BYTES} bytes")]
    TooLarge,
    /// Not even JSON.
    #[error("is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// What it makes of an event has no bound, or too high a one.
    #[error("would be too much work: {0}")]
    Unbounded(#[from] UnboundedSchema),
    /// JSON, but not of the draft that it names.
    #[error("is not a JSON Schema: {0}")]
    NotASchema(#[from] Box<ValidationError<'static>>),
}

/// The rules of a schema.
#[derive(Debug)]
pub struct Rules {
    validator: Validator,
    /// How many can apply to one value.
    a_value: usize,
}

impl Rules {
    /// # Errors
    ///
    /// When the bytes are no schema, or one whose work has no bound.
    pub fn parse(schema: &[u8]) -> Result<Self, SchemaError> {
        if schema.len() > MAX_SCHEMA_BYTES {
            return Err(SchemaError::TooLarge);
        }
        let schema: Value = serde_json::from_slice(schema)?;
        let a_value = most_rules_a_value(&schema)?;
        // Formats are comments: to check some of them is to compile what a client sent.
        let options = jsonschema::options().offline().should_validate_formats(false);
        let patterns = PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = options.with_pattern_options(patterns).build(&schema).map_err(Box::new)?;
        Ok(Self { validator, a_value })
    }

    /// All rules that an event breaks, by name; `None` if there are none. Takes what naming them costs from `steps`.
    pub fn all(&self, event: &str, steps: &mut usize) -> Option<BTreeSet<String>> {
        self.broken_by(event).map(|broken| broken.all(steps))
    }

    /// The first rule that an event breaks, and where; `None` if there is none. Takes what naming it costs from `steps`.
    pub fn first(&self, event: &str, steps: &mut usize) -> Option<Violation> {
        self.broken_by(event).map(|broken| broken.first(steps))
    }

    /// `None` for an event that breaks no rule.
    fn broken_by(&self, event: &str) -> Option<Broken<'_>> {
        let steps = event.len().saturating_mul(self.a_value);
        match serde_json::from_str(event) {
            Ok(event) if self.validator.is_valid(&event) => None,
            Ok(event) => Some(Broken { rules: self, event: Some(event), steps }),
            // It was read as JSON before: it holds a number beyond what a double is, which no schema can judge.
            Err(_) => Some(Broken { rules: self, event: None, steps }),
        }
    }
}

/// An event that breaks rules. To find out which takes longer than to know that it does.
struct Broken<'r> {
    rules: &'r Rules,
    event: Option<Value>,
    steps: usize,
}

impl Broken<'_> {
    /// All rules that it breaks, by name; takes what that costs from `steps`.
    fn all(self, steps: &mut usize) -> BTreeSet<String> {
        match self.affordable(steps) {
            Some(event) => self.rules.validator.iter_errors(event).map(|error| rule(&error)).collect(),
            None => [OTHER.to_owned()].into(),
        }
    }

    /// The first rule that it breaks, and where.
    fn first(self, steps: &mut usize) -> Violation {
        let error = self.affordable(steps).and_then(|event| self.rules.validator.validate(event).err());
        error.map_or_else(
            || Violation { rule: OTHER.to_owned(), path: String::new() },
            |error| Violation { rule: rule(&error), path: cut(error.instance_path().as_str()).to_owned() },
        )
    }

    fn affordable(&self, steps: &mut usize) -> Option<&Value> {
        let event = self.event.as_ref().filter(|_| self.steps <= MAX_STEPS_AN_EVENT)?;
        *steps = steps.checked_sub(self.steps)?;
        Some(event)
    }
}

/// The keyword's location, as CloudWatch takes it in a dimension: not empty, and of printable ASCII.
fn rule(error: &ValidationError<'_>) -> String {
    let location = error.schema_path().as_str();
    if location.is_empty() {
        return String::from("/");
    }
    cut(location).chars().map(|character| if matches!(character, ' '..='~') { character } else { '_' }).collect()
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_RULE_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn rules(schema: &Value) -> Rules {
        Rules::parse(schema.to_string().as_bytes()).unwrap()
    }

    fn all(schema: &Value, event: &str) -> Vec<String> {
        let rules = rules(schema);
        let broken = rules.broken_by(event);
        broken.map_or_else(Vec::new, |broken| broken.all(&mut usize::MAX.clone()).into_iter().collect())
    }

    fn first(schema: &Value, event: &str) -> Option<(String, String)> {
        let violation = rules(schema).broken_by(event)?.first(&mut usize::MAX.clone());
        Some((violation.rule, violation.path))
    }

    #[rstest]
    #[case(json!({"properties": {"type": {"enum": ["play"]}}}), r#"{"type":"x"}"#, "/properties/type/enum", "/type")]
    #[case(json!({"required": ["a"]}), "{}", "/required", "")]
    #[case(json!({"additionalProperties": false}), r#"{"a/b~":1}"#, "/additionalProperties", "")]
    #[case(json!({"additionalProperties": {"type": "string"}}), r#"{"a/b~":1}"#, "/additionalProperties/type", "/a~1b~0")]
    #[case(json!({"properties": {"a": {"items": {"type": "string"}}}}), r#"{"a":["",1]}"#, "/properties/a/items/type", "/a/1")]
    #[case(json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}), "{}", "/oneOf", "")]
    #[case(json!({"properties": {"a": {"$ref": "#/$defs/s"}}, "$defs": {"s": {"type": "string"}}}), r#"{"a":1}"#, "/$defs/s/type", "/a")]
    #[case(json!({"properties": {"ü\n": {"type": "string"}}}), r#"{"ü\n":1}"#, "/properties/__/type", "/ü\n")]
    #[case(json!(false), "{}", "/", "")]
    fn a_rule_is_named_by_its_place(
        #[case] schema: Value,
        #[case] event: &str,
        #[case] rule: &str,
        #[case] path: &str,
    ) {
        assert_eq!(first(&schema, event), Some((rule.into(), path.into())));
        assert_eq!(all(&schema, event), [rule]);
    }

    #[test]
    fn an_event_breaks_a_rule_once_however_often() {
        let schema = json!({"properties": {"a": {"items": {"type": "string"}}}, "required": ["b", "c"]});
        assert_eq!(all(&schema, r#"{"a":[1,2,3]}"#), ["/properties/a/items/type", "/required"]);
        assert_eq!(all(&schema, r#"{"a":["1"],"b":1,"c":2}"#), [""; 0]);
    }

    #[test]
    fn names_of_rules_and_places_are_cut_at_the_bound() {
        for name in ["n".repeat(300), "é".repeat(150)] {
            let schema = json!({"properties": {&name: {"type": "string"}}});
            let (rule, path) = first(&schema, &json!({&name: 1}).to_string()).unwrap();
            assert!(rule.len() <= MAX_RULE_BYTES && rule.is_ascii() && path.len() <= MAX_RULE_BYTES, "{rule} {path}");
        }
    }

    #[test]
    fn no_schema_of_another_draft_or_dialect_is_read_as_if_it_were_one() {
        let draft_4 = json!({"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"n": {"minimum": 1, "exclusiveMinimum": true}}});
        assert_eq!(all(&draft_4, r#"{"n":1}"#).len(), 1);
        // In 2020-12, the default, it is a number.
        let without = json!({"properties": {"n": {"minimum": 1, "exclusiveMinimum": true}}});
        assert!(matches!(Rules::parse(without.to_string().as_bytes()), Err(SchemaError::NotASchema(_))));
        let unknown = json!({"$schema": "https://a.example/own"});
        assert!(matches!(Rules::parse(unknown.to_string().as_bytes()), Err(SchemaError::NotASchema(_))));
    }

    #[rstest]
    #[case(b"{", "is not JSON")]
    #[case(b"\xff", "is not JSON")]
    #[case(b"[]", "is not a JSON Schema")]
    #[case(br#"{"type": "play"}"#, "is not a JSON Schema")]
    #[case(br#"{"properties": {"a": {"pattern": "("}}}"#, "is not a JSON Schema")]
    #[case(br#"{"pattern": "^(?=a)"}"#, "is not a JSON Schema")]
    #[case(br#"{"pattern": "^(([a-z]{1,100}){1,100}){1,100}$"}"#, "is not a JSON Schema")]
    #[case(br#"{"$ref": "file:///etc/passwd"}"#, "would be too much work")]
    fn what_is_no_schema_is_refused(#[case] schema: &[u8], #[case] expected: &str) {
        let error = Rules::parse(schema).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn the_size_of_a_schema_stands_on_the_bound_and_one_past_it() {
        let schema = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
        assert!(Rules::parse(schema(MAX_SCHEMA_BYTES).as_bytes()).is_ok());
        assert!(matches!(Rules::parse(schema(MAX_SCHEMA_BYTES + 1).as_bytes()), Err(SchemaError::TooLarge)));
    }

    #[test]
    fn formats_are_not_checked() {
        let schema =
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"format": "regex"}}});
        assert_eq!(all(&schema, r#"{"a":"("}"#), [""; 0]);
    }

    #[test]
    fn a_number_that_no_double_holds_breaks_the_schema() {
        assert_eq!(first(&json!(true), r#"{"n":1e999}"#), Some((OTHER.into(), String::new())));
        assert_eq!(first(&json!(true), r#"{"n":123456789012345678901234567890.5}"#), None);
    }

    #[test]
    fn what_it_takes_to_name_rules_stands_on_the_bound_and_one_past_it() {
        // Two rules about the event: itself, and `minProperties`.
        let rules = rules(&json!({"minProperties": 9}));
        let event = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
        let (mut steps, most) = (usize::MAX, MAX_STEPS_AN_EVENT / rules.a_value);
        let name = |bytes: usize, steps: &mut usize| rules.broken_by(&event(bytes)).unwrap().first(steps).rule;
        assert_eq!(name(most, &mut steps), "/minProperties");
        assert_eq!(name(most + 1, &mut steps), OTHER);
        let mut steps = 200 * rules.a_value;
        assert_eq!(name(200, &mut steps), "/minProperties");
        assert_eq!((name(2, &mut steps), steps), (OTHER.into(), 0));
    }

    /// `cargo test --release -p schema-rules what_judging_costs -- --ignored --nocapture`, beside reading the same events.
    #[test]
    #[ignore = "prints times"]
    fn what_judging_costs() {
        let rules = Rules::parse(include_bytes!("fixtures/event-schema.json")).unwrap();
        let event = |number: u64| {
            format!(
                r#"{{"id":"0197bd6e-5f2c-7000-8000-{number:012}","type":"heartbeat","session_id":"0197bd6e-5f2c-4000-8000-{number:012}","video_id":"video-{number}","position_ms":{number},"buffer_ms":12000,"bitrate_kbps":4500,"dropped_frames":0,"player":{{"name":"html5","version":"1.12.3"}},"sent_at":1795253520000}}"#
            )
        };
        let events: Vec<String> = (0..100_000).map(event).collect();
        let time = |name: &str, work: &dyn Fn(&str) -> bool| {
            let began = std::time::Instant::now();
            assert!(events.iter().all(|event| work(event)));
            println!("{name}: {:.2} µs an event", began.elapsed().as_secs_f64() * 1e6 / events.len() as f64);
        };
        println!("{} bytes an event, {} rules a value", events[0].len(), rules.a_value);
        time("reading as text", &|event| serde_json::from_str::<&serde_json::value::RawValue>(event).is_ok());
        time("reading into a tree", &|event| serde_json::from_str::<Value>(event).is_ok());
        time("reading and judging", &|event| rules.first(event, &mut usize::MAX.clone()).is_none());
    }
}
