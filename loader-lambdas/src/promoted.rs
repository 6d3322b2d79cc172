//! Fields of the client's JSON that readers get by a name of their own: which they are, and what an event has of them.
//!
//! Configured as `name:path|path,…`. A path is member names with dots between them; the first that an event has counts.

use std::borrow::Cow;

use shared::json::for_each_member;

/// What is promoted unless configured: the names under which players of several makes send the same.
pub(crate) const DEFAULT: &str = "type:type|event|e,session_id:session_id|sessionId|viewer_id|viewerId|xid|sid";

/// The most fields, and the most paths a field.
const MAX_FIELDS: usize = 32;
const MAX_PATHS: usize = 8;
/// The most bytes of a path, and of a name.
const MAX_PATH_BYTES: usize = 256;
const MAX_NAME_BYTES: usize = 63;

/// What readers have of each line under these names already. `client` is a member of documents alone; `dt` and `hour`
/// are columns by the folders' names.
const RESERVED: [&str; 11] =
    ["v", "id", "received_at", "request_id", "user_agent", "ip", "app", "event", "client", "dt", "hour"];

/// Text that does not say which fields to promote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromotedError {
    #[error("{0:?} is not of the form name:path|path")]
    NoPaths(String),
    #[error("the name {0:?} is not one of a-z, then up to 62 of a-z, 0-9 and _")]
    Name(String),
    #[error("the name {0:?} is used for something else")]
    Reserved(String),
    #[error("the name {0:?} is given twice")]
    Twice(String),
    #[error("{0:?} is not a path of 1 to {MAX_PATH_BYTES} bytes of member names with dots between them")]
    Path(String),
    #[error("more than {MAX_FIELDS} fields")]
    TooManyFields,
    #[error("{0:?} has more than {MAX_PATHS} paths")]
    TooManyPaths(String),
}

/// The fields that are promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromotedFields {
    fields: Vec<Field>,
    /// What the paths begin with, each once.
    heads: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: String,
    paths: Vec<Path>,
}

/// A member of the event, by its place in [`PromotedFields::heads`], and the members' names below it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Path {
    head: usize,
    below: Vec<String>,
}

impl PromotedFields {
    /// Reads `name:path|path,…`; spaces around names and paths don't count.
    ///
    /// # Errors
    ///
    /// When it is not of this form, a name is reserved or used twice, or there are more than the bounds allow.
    pub(crate) fn parse(text: &str) -> Result<Self, PromotedError> {
        let mut promoted = Self { fields: Vec::new(), heads: Vec::new() };
        for field in text.split(',') {
            promoted.add(field.trim())?;
        }
        Ok(promoted)
    }

    fn add(&mut self, field: &str) -> Result<(), PromotedError> {
        let (name, paths) = field.split_once(':').ok_or_else(|| PromotedError::NoPaths(field.to_owned()))?;
        let name = valid_name(name.trim())?;
        if self.names().any(|other| other == name) {
            return Err(PromotedError::Twice(name));
        }
        if self.fields.len() == MAX_FIELDS {
            return Err(PromotedError::TooManyFields);
        }
        if paths.split('|').count() > MAX_PATHS {
            return Err(PromotedError::TooManyPaths(name));
        }
        let paths = paths.split('|').map(|path| self.path(path.trim())).collect::<Result<_, _>>()?;
        self.fields.push(Field { name, paths });
        Ok(())
    }

    fn path(&mut self, path: &str) -> Result<Path, PromotedError> {
        let mut members = path.split('.').map(str::to_owned);
        let head = members.next().unwrap_or_default();
        let below: Vec<_> = members.collect();
        let has_unnamed = head.is_empty() || below.iter().any(String::is_empty);
        if has_unnamed || path.len() > MAX_PATH_BYTES {
            return Err(PromotedError::Path(path.to_owned()));
        }
        let known = self.heads.iter().position(|known| *known == head);
        let head = known.unwrap_or_else(|| {
            self.heads.push(head);
            self.heads.len() - 1
        });
        Ok(Path { head, below })
    }

    /// The fields' names, in the order in which they are configured.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// Replaces what is in `out` with an entry a field, in the order of the names: a string's content, or any other value's JSON
    /// text; `None` where the event has none of the field's paths. null counts as absent. Of a repeated member the last counts,
    /// as for most readers, also when it is null. An event that is not one JSON object has no fields.
    pub(crate) fn extract<'a>(&self, event: &'a str, out: &mut Vec<Option<Cow<'a, str>>>) {
        let values = members(event, &self.heads);
        let at = |path: &Path| below(values[path.head]?, &path.below);
        out.clear();
        out.extend(self.fields.iter().map(|field| field.paths.iter().find_map(at).map(text)));
    }
}

fn valid_name(name: &str) -> Result<String, PromotedError> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    let is_valid = name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit() || byte == b'_');
    match name.to_owned() {
        name if !is_valid => Err(PromotedError::Name(name)),
        name if RESERVED.contains(&name.as_str()) => Err(PromotedError::Reserved(name)),
        name => Ok(name),
    }
}

/// The last value of each of these members; none at all of what is not an object.
fn members<'a>(json: &'a str, names: &[String]) -> Vec<Option<&'a str>> {
    let mut values = vec![None; names.len()];
    let whole = for_each_member(json, |key, value| {
        let key = text(key);
        if let Some(place) = names.iter().position(|name| **name == *key) {
            values[place] = Some(value);
        }
    });
    if whole.is_err() {
        values.fill(None);
    }
    values
}

/// The value at the end of a path that is left below `value`, unless it is null.
fn below<'a>(value: &'a str, path: &[String]) -> Option<&'a str> {
    let value = path.iter().try_fold(value, |value, name| {
        let is_object = value.starts_with('{');
        is_object.then(|| members(value, std::slice::from_ref(name))[0]).flatten()
    })?;
    (value != "null").then_some(value)
}

/// A string's content, copied only if it has escapes, or the text itself.
fn text(json: &str) -> Cow<'_, str> {
    let content = || json.strip_prefix('"')?.strip_suffix('"');
    match content() {
        None => Cow::Borrowed(json),
        Some(content) if !content.contains('\\') => Cow::Borrowed(content),
        // An escape that stands for nothing, as half of a pair does, stays as it is written.
        Some(content) => serde_json::from_str(json).map_or(Cow::Borrowed(content), Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use generators::json::json_object;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::Value;

    fn extracted(fields: &str, event: &str) -> Vec<Option<String>> {
        let mut out = vec![Some(Cow::Borrowed("from another event"))];
        PromotedFields::parse(fields).unwrap().extract(event, &mut out);
        out.into_iter().map(|value| value.map(Cow::into_owned)).collect()
    }

    #[rstest]
    #[case::first_path_that_is_there(r#"{"y":"2","x":"1"}"#, Some("1"))]
    #[case::next_path(r#"{"y":"2"}"#, Some("2"))]
    #[case::below(r#"{"z":{"a":{"b":"3"}}}"#, Some("3"))]
    #[case::nothing(r#"{"w":1}"#, None)]
    #[case::null_is_absent(r#"{"x":null,"y":"2"}"#, Some("2"))]
    #[case::last_of_a_repeated_member(r#"{"x":"1","x":"2"}"#, Some("2"))]
    #[case::last_of_a_repeated_member_is_null(r#"{"x":"1","x":null}"#, None)]
    #[case::last_of_a_repeated_object(r#"{"z":{"a":{"b":"3"}},"z":{}}"#, None)]
    #[case::escaped_key(r#"{"\u0078":"1"}"#, Some("1"))]
    #[case::escaped_text(r#"{"x":"\u00e9\n"}"#, Some("é\n"))]
    #[case::half_a_pair(r#"{"x":"\ud83d"}"#, Some("\\ud83d"))]
    #[case::empty_text(r#"{"x":"","y":"2"}"#, Some(""))]
    #[case::number(r#"{"x": 1.50 }"#, Some("1.50"))]
    #[case::boolean(r#"{"x":false}"#, Some("false"))]
    #[case::array(r#"{"x":[1, null]}"#, Some("[1, null]"))]
    #[case::object(r#"{"x":{"a": "b"}}"#, Some(r#"{"a": "b"}"#))]
    #[case::text_like_an_object(r#"{"z":"{\"a\":1}"}"#, None)]
    #[case::key_with_dots(r#"{"z.a.b":"3"}"#, None)]
    #[case::no_object(r#"["x"]"#, None)]
    #[case::damaged(r#"{"x":"1","#, None)]
    #[case::empty("", None)]
    fn an_event_has_the_first_of_a_fields_paths(#[case] event: &str, #[case] expected: Option<&str>) {
        assert_eq!(extracted("f:x|y|z.a.b", event), [expected.map(str::to_owned)]);
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let mut out = Vec::new();
        PromotedFields::parse(DEFAULT).unwrap().extract(r#"{"type":"play","xid":7}"#, &mut out);
        assert!(matches!(&out[..], [Some(Cow::Borrowed("play")), Some(Cow::Borrowed("7"))]), "{out:?}");
    }

    #[test]
    fn fields_keep_the_order_in_which_they_are_configured() {
        let fields = PromotedFields::parse(" b:x , a : y | x.y,c:x").unwrap();
        assert_eq!(fields.names().collect::<Vec<_>>(), ["b", "a", "c"]);
        let values = extracted("b:x,a:y|x.y,c:x", r#"{"x":{"y":1}}"#);
        assert_eq!(values, [Some("{\"y\":1}"), Some("1"), Some("{\"y\":1}")].map(|value| value.map(str::to_owned)));
    }

    #[rstest]
    #[case("", PromotedError::NoPaths(String::new()))]
    #[case("a:x,", PromotedError::NoPaths(String::new()))]
    #[case("a", PromotedError::NoPaths("a".into()))]
    #[case(":x", PromotedError::Name(String::new()))]
    #[case("A:x", PromotedError::Name("A".into()))]
    #[case("1a:x", PromotedError::Name("1a".into()))]
    #[case("_id:x", PromotedError::Name("_id".into()))]
    #[case("a-b:x", PromotedError::Name("a-b".into()))]
    #[case("event:x", PromotedError::Reserved("event".into()))]
    #[case("client:x", PromotedError::Reserved("client".into()))]
    #[case("a:x,a:y", PromotedError::Twice("a".into()))]
    #[case("a:", PromotedError::Path(String::new()))]
    #[case("a:x|", PromotedError::Path(String::new()))]
    #[case("a:x..y", PromotedError::Path("x..y".into()))]
    #[case("a:.x", PromotedError::Path(".x".into()))]
    #[case("a:x.", PromotedError::Path("x.".into()))]
    fn other_text_is_an_error(#[case] text: &str, #[case] expected: PromotedError) {
        assert_eq!(PromotedFields::parse(text), Err(expected));
    }

    #[test]
    fn names_paths_and_fields_are_bounded() {
        let fields = |count| (0..count).map(|number| format!("f{number}:x")).collect::<Vec<_>>().join(",");
        assert!(PromotedFields::parse(&fields(MAX_FIELDS)).is_ok());
        assert_eq!(PromotedFields::parse(&fields(MAX_FIELDS + 1)), Err(PromotedError::TooManyFields));
        let paths = |count| format!("f:{}", vec!["x"; count].join("|"));
        assert!(PromotedFields::parse(&paths(MAX_PATHS)).is_ok());
        assert_eq!(PromotedFields::parse(&paths(MAX_PATHS + 1)), Err(PromotedError::TooManyPaths("f".into())));
        let path = |bytes| "x".repeat(bytes);
        assert!(PromotedFields::parse(&format!("f:{}", path(MAX_PATH_BYTES))).is_ok());
        let long = path(MAX_PATH_BYTES + 1);
        assert_eq!(PromotedFields::parse(&format!("f:{long}")), Err(PromotedError::Path(long)));
        assert!(PromotedFields::parse(&format!("{}:x", path(MAX_NAME_BYTES))).is_ok());
        let long = path(MAX_NAME_BYTES + 1);
        assert_eq!(PromotedFields::parse(&format!("{long}:x")), Err(PromotedError::Name(long)));
    }

    /// Objects whose members are those of the paths, escaped or not, some more than once.
    fn event() -> impl Strategy<Value = String> {
        let text = prop::sample::select(vec![r#""""#, r#""é""#, r#""\n\u00e9""#, "null", "true"]);
        let leaf =
            prop_oneof![text.prop_map(str::to_owned), "[0-9]{1,3}\\.5".prop_filter("JSON", |n| !n.starts_with('0'))];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = prop::sample::select(vec![r#""a""#, r#""\u0061""#, r#""b""#, r#""a.b""#, r#""c""#]);
            let object = vec((key, inner.clone()), 0..4).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(key, value)| format!("{key} : {value}")).collect();
                format!("{{{}}}", members.join(" ,"))
            });
            prop_oneof![4 => object, 1 => inner.prop_map(|inner| format!("[ {inner} ]"))]
        })
    }

    /// By a tree of values, which keeps the last of repeated members.
    fn by_a_tree(event: &str, paths: &[&[&str]]) -> Option<Value> {
        let tree: Value = serde_json::from_str(event).unwrap();
        let at = |path: &&[&str]| path.iter().try_fold(&tree, |value, name| value.as_object()?.get(*name)).cloned();
        paths.iter().filter_map(at).find(|value| !value.is_null())
    }

    proptest! {
        #[test]
        fn values_are_those_of_a_tree(event in event()) {
            let fields = [&[&["a"][..], &["b", "a"]][..], &[&["a", "b", "a"], &["b"]], &[&["c", "c"], &["a", "a"]]];
            let found = extracted("f:a|b.a,g:a.b.a|b,h:c.c|a.a", &event);
            for (found, paths) in found.into_iter().zip(fields) {
                let expected = by_a_tree(&event, paths);
                let is_text = matches!(expected, Some(Value::String(_)));
                let found = found.map(|found| if is_text { Value::String(found) } else { serde_json::from_str(&found).unwrap() });
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn any_event_has_an_entry_a_field(event in json_object()) {
            prop_assert_eq!(extracted(DEFAULT, &event).len(), 2);
        }

        #[test]
        fn any_text_is_fields_or_an_error(text in "([a-c_:|.,]|é){0,20}") {
            let names = PromotedFields::parse(&text).map(|fields| fields.names().map(str::to_owned).collect::<Vec<_>>());
            prop_assert!(names.is_err() || names.is_ok_and(|names| !names.is_empty()));
        }
    }
}
