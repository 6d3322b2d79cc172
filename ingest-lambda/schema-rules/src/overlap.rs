//! How much work a schema can make of a value, proved from the schema alone, before the first event comes.
//!
//! The validator has no limit of its own, and its work multiplies where many rules apply to one value, or where a schema that refers to
//! itself meets a deep event. So a schema may refer to itself only without circles, and only so many rules may meet in one place.
//! Whatever an event holds, validating it is then at most so many checks for each of its values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Rules that may apply to one value. A choice among 50 types of event, each with ten rules of its own about the event, has 500.
pub(super) const MAX_RULES_A_VALUE: usize = 1_000;
/// Levels of a schema, with those of what it refers to. Events have a hundred.
pub(super) const MAX_DEPTH: usize = 100;

/// Why the work that a schema makes has no bound, or too high a one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnboundedSchema {
    #[error("{0} rules can apply to one value; at most {MAX_RULES_A_VALUE} may")]
    TooManyRules(usize),
    #[error("it is nested deeper than {MAX_DEPTH} levels, with what it refers to")]
    TooDeep,
    #[error("it refers to itself in a circle, by {0:?}")]
    Circle(String),
    #[error("it refers to {0:?}; a schema may refer to its own parts alone, such as \"#/$defs/name\"")]
    Foreign(String),
    #[error("it refers to {0:?}, where nothing is")]
    Dangling(String),
    #[error("{0:?} is not supported here: its work depends on other parts of the schema, or on what players send")]
    Unsupported(&'static str),
}

/// How many rules of a schema apply at most to one value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Overlap {
    /// To the value that the schema is about.
    here: usize,
    /// To any one value inside it.
    below: usize,
}

impl Overlap {
    fn most(self) -> usize {
        self.here.max(self.below)
    }
}

/// The number of rules that can apply to one value.
pub(super) fn most_rules_a_value(schema: &Value) -> Result<usize, UnboundedSchema> {
    let mut walk = Walk { root: schema, known: BTreeMap::new(), deepest: 0, open: BTreeSet::new() };
    let most = walk.root(schema)?.most();
    if most > MAX_RULES_A_VALUE { Err(UnboundedSchema::TooManyRules(most)) } else { Ok(most) }
}

struct Walk<'a> {
    root: &'a Value,
    /// By reference, with the levels that they have.
    known: BTreeMap<&'a str, (Overlap, usize)>,
    /// The deepest level so far.
    deepest: usize,
    /// References that are being followed.
    open: BTreeSet<&'a str>,
}

const IN_PLACE: [&str; 5] = ["not", "if", "then", "else", "propertyNames"];
const IN_PLACE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// What they refer to, or compare, is known with the event alone.
const UNSUPPORTED: [&str; 5] =
    ["$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties", "uniqueItems"];

impl<'a> Walk<'a> {
    fn root(&mut self, schema: &'a Value) -> Result<Overlap, UnboundedSchema> {
        self.object_or_boolean(schema, 0)
    }

    fn schema(&mut self, schema: &'a Value, depth: usize) -> Result<Overlap, UnboundedSchema> {
        // What stands in it would be resolved against another base than ours.
        if let Some(name) = ["$id", "id"].into_iter().find(|name| schema.get(name).is_some_and(Value::is_string)) {
            return Err(UnboundedSchema::Unsupported(name));
        }
        self.object_or_boolean(schema, depth)
    }

    fn object_or_boolean(&mut self, schema: &'a Value, depth: usize) -> Result<Overlap, UnboundedSchema> {
        self.reach(depth)?;
        let Some(members) = schema.as_object() else { return Ok(Overlap { here: 1, below: 0 }) };
        if let Some(name) = UNSUPPORTED.into_iter().find(|name| members.contains_key(*name)) {
            return Err(UnboundedSchema::Unsupported(name));
        }
        let in_place = self.in_place(members, depth + 1)?;
        let below = self.in_object(members, depth + 1)?.max(self.in_array(members, depth + 1)?);
        let own = 1 + members.len() + members.iter().map(names_in).fold(0, usize::saturating_add);
        Ok(Overlap { here: own.saturating_add(in_place.here), below: below.saturating_add(in_place.below) })
    }

    fn in_place(&mut self, members: &'a Map<String, Value>, depth: usize) -> Result<Overlap, UnboundedSchema> {
        let single = IN_PLACE.iter().filter_map(|name| members.get(*name));
        let listed = IN_PLACE_LISTS.iter().filter_map(|name| members.get(*name)?.as_array()).flatten();
        let dependent = ["dependentSchemas", "dependencies"].iter().filter_map(|name| members.get(*name)?.as_object());
        let dependent = dependent.flat_map(Map::values).filter(|schema| !schema.is_array());
        let mut total = Overlap::default();
        for schema in single.chain(listed).chain(dependent) {
            add(&mut total, self.schema(schema, depth)?);
        }
        if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
            add(&mut total, self.reference(reference, depth)?);
        }
        Ok(total)
    }

    fn reference(&mut self, reference: &'a str, depth: usize) -> Result<Overlap, UnboundedSchema> {
        if let Some((known, levels)) = self.known.get(reference).copied() {
            self.reach(depth + levels)?;
            return Ok(known);
        }
        let pointer = reference.strip_prefix('#').filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let pointer = pointer.ok_or_else(|| UnboundedSchema::Foreign(reference.to_owned()))?;
        // A pointer with percent-encoding is not resolved, and so not found.
        let target = self.root.pointer(pointer).filter(|_| !pointer.contains('%'));
        let target = target.ok_or_else(|| UnboundedSchema::Dangling(reference.to_owned()))?;
        if pointer.is_empty() || !self.open.insert(reference) {
            return Err(UnboundedSchema::Circle(reference.to_owned()));
        }
        let outer = std::mem::replace(&mut self.deepest, depth);
        let overlap = self.schema(target, depth)?;
        self.open.remove(reference);
        self.known.insert(reference, (overlap, self.deepest - depth));
        self.deepest = self.deepest.max(outer);
        Ok(overlap)
    }

    fn reach(&mut self, depth: usize) -> Result<(), UnboundedSchema> {
        self.deepest = self.deepest.max(depth);
        if depth > MAX_DEPTH { Err(UnboundedSchema::TooDeep) } else { Ok(()) }
    }

    /// Rules about one member of an object: those of its name and of all patterns, or else those of what has no rule of its own.
    fn in_object(&mut self, members: &'a Map<String, Value>, depth: usize) -> Result<usize, UnboundedSchema> {
        let maps = |name| members.get(name).and_then(Value::as_object).into_iter().flat_map(Map::values);
        let (mut named, mut patterns) = (0, 0_usize);
        for schema in maps("properties") {
            named = named.max(self.schema(schema, depth)?.most());
        }
        for schema in maps("patternProperties") {
            patterns = patterns.saturating_add(self.schema(schema, depth)?.most());
        }
        let additional = self.sum(members, &["additionalProperties"], depth)?;
        Ok(patterns.saturating_add(named).max(additional))
    }

    fn in_array(&mut self, members: &'a Map<String, Value>, depth: usize) -> Result<usize, UnboundedSchema> {
        let mut placed = 0;
        for schema in ["prefixItems", "items"].iter().filter_map(|name| members.get(*name)?.as_array()).flatten() {
            placed = placed.max(self.schema(schema, depth)?.most());
        }
        let all = self.sum(members, &["items", "additionalItems", "contains"], depth)?;
        Ok(all.saturating_add(placed))
    }

    fn sum(&mut self, members: &'a Map<String, Value>, names: &[&str], depth: usize) -> Result<usize, UnboundedSchema> {
        let mut total = 0_usize;
        for schema in names.iter().filter_map(|name| members.get(*name)).filter(|schema| !schema.is_array()) {
            total = total.saturating_add(self.schema(schema, depth)?.most());
        }
        Ok(total)
    }
}

fn add(total: &mut Overlap, other: Overlap) {
    total.here = total.here.saturating_add(other.here);
    total.below = total.below.saturating_add(other.below);
}

/// Each name or value of a list is a rule of its own: the validator looks for each.
fn names_in((keyword, value): (&String, &Value)) -> usize {
    match (keyword.as_str(), value) {
        ("required" | "enum", Value::Array(names)) => names.len(),
        ("properties", Value::Object(members)) => members.len(),
        ("dependentRequired" | "dependencies", Value::Object(members)) => {
            members.values().filter_map(Value::as_array).map(Vec::len).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!(true), 1)]
    #[case(json!({"type": "object", "required": ["a", "b"]}), 5)]
    #[case(json!({"properties": {"a": {"type": "string"}, "b": {"type": "string", "minLength": 1, "maxLength": 9}}}), 4)]
    #[case(json!({"allOf": [{"type": "object"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"minProperties": 1}}}), 9)]
    #[case(json!({"properties": {"a": {}}, "patternProperties": {"a": {}, "b": {}}, "additionalProperties": {"enum": [1, 2]}}), 5)]
    fn rules_are_counted_where_they_meet(#[case] schema: Value, #[case] expected: usize) {
        assert_eq!(most_rules_a_value(&schema), Ok(expected));
    }

    #[test]
    fn rules_about_one_value_stand_on_the_bound_and_one_past_it() {
        let choice = |count: usize| json!({"oneOf": vec![json!(true); count]});
        assert_eq!(most_rules_a_value(&choice(MAX_RULES_A_VALUE - 2)), Ok(MAX_RULES_A_VALUE));
        let error = Err(UnboundedSchema::TooManyRules(MAX_RULES_A_VALUE + 1));
        assert_eq!(most_rules_a_value(&choice(MAX_RULES_A_VALUE - 1)), error);
        let names =
            |count: usize| (0..count).map(|n| (n.to_string(), json!({"type": "string"}))).collect::<Map<_, _>>();
        assert_eq!(most_rules_a_value(&json!({"properties": names(MAX_RULES_A_VALUE - 2)})), Ok(MAX_RULES_A_VALUE));
        assert_eq!(most_rules_a_value(&json!({"properties": names(MAX_RULES_A_VALUE - 1)})), error);
    }

    /// Little text that doubles at each of forty steps.
    #[test]
    fn references_that_double_are_counted_without_being_followed_twice() {
        let twice = |n: usize| json!({"anyOf": [{"$ref": format!("#/$defs/{n}")}, {"$ref": format!("#/$defs/{n}")}]});
        let mut defs: Map<String, Value> = (0..40).map(|n| (n.to_string(), twice(n + 1))).collect();
        defs.insert("40".into(), json!(true));
        let schema = json!({"$ref": "#/$defs/0", "$defs": defs});
        assert!(matches!(most_rules_a_value(&schema), Err(UnboundedSchema::TooManyRules(_))));
    }

    #[test]
    fn depth_stands_on_the_bound_and_one_past_it() {
        let nested = |levels: usize| (0..levels).fold(json!({}), |schema, _| json!({"properties": {"a": schema}}));
        assert!(most_rules_a_value(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(most_rules_a_value(&nested(MAX_DEPTH + 1)), Err(UnboundedSchema::TooDeep));
    }

    /// Whichever is looked at first: the schema that refers, or what it refers to.
    #[rstest]
    #[case::outermost_first(false)]
    #[case::innermost_first(true)]
    fn depth_is_that_of_what_is_referred_to_as_well(#[case] is_innermost_first: bool) {
        let levels = |count: usize, end: Value| (0..count).fold(end, |schema, _| json!({"properties": {"a": schema}}));
        let schema = |inner: usize| {
            let inner = levels(inner, json!({"type": "string"}));
            let outer = levels(49, json!({"$ref": "#/$defs/inner"}));
            let first = if is_innermost_first { json!({"$ref": "#/$defs/inner"}) } else { json!({}) };
            json!({"allOf": [first, outer], "$defs": {"inner": inner}})
        };
        assert!(most_rules_a_value(&schema(49)).is_ok());
        assert_eq!(most_rules_a_value(&schema(50)), Err(UnboundedSchema::TooDeep));
    }

    #[rstest]
    #[case(json!({"properties": {"a": {"$ref": "#"}}}), UnboundedSchema::Circle("#".into()))]
    #[case(json!({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}), UnboundedSchema::Circle("#/$defs/a".into()))]
    #[case(json!({"$ref": "https://a.example/b.json"}), UnboundedSchema::Foreign("https://a.example/b.json".into()))]
    #[case(json!({"items": {"$ref": "other.json#/a"}}), UnboundedSchema::Foreign("other.json#/a".into()))]
    #[case(json!({"$ref": "#name"}), UnboundedSchema::Foreign("#name".into()))]
    #[case(json!({"$ref": "#/$defs/none"}), UnboundedSchema::Dangling("#/$defs/none".into()))]
    #[case(json!({"items": {"$dynamicRef": "#a"}}), UnboundedSchema::Unsupported("$dynamicRef"))]
    #[case(json!({"items": {"uniqueItems": true}}), UnboundedSchema::Unsupported("uniqueItems"))]
    #[case(json!({"unevaluatedProperties": false}), UnboundedSchema::Unsupported("unevaluatedProperties"))]
    #[case(json!({"items": {"$id": "https://a.example/b.json"}}), UnboundedSchema::Unsupported("$id"))]
    fn what_has_no_bound_is_refused(#[case] schema: Value, #[case] expected: UnboundedSchema) {
        assert_eq!(most_rules_a_value(&schema), Err(expected));
    }

    #[test]
    fn names_of_members_and_values_are_no_keywords() {
        let schema = json!({"$id": "https://a.example/b.json", "properties": {"$ref": {"enum": [{"$ref": "#"}]}, "$id": {}, "id": {}}});
        assert_eq!(most_rules_a_value(&schema), Ok(6));
    }
}
