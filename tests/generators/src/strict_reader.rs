//! Reads lines as Spark, Athena or pandas would, and as strictly: what landed must be readable to them. It shares no code
//! with what writes lines, so that tests can hold the one against the other.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Levels of arrays and objects that common readers follow: `serde_json` stops here, others later.
const MAX_DEPTH: usize = 128;

/// The members of one JSON object, in order, keys and values as they are in the text.
#[derive(Debug)]
pub struct Members<'a>(pub Vec<(&'a str, &'a str)>);

impl<'a> Members<'a> {
    /// The value of the only member of that name; `None` if there is none or more than one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let mut found = self.0.iter().filter(|(key, _)| key.trim_matches('"') == name);
        found.next().filter(|_| found.next().is_none()).map(|(_, value)| *value)
    }

    /// The same as a string, if it is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Vec<(&'de str, &'de str)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push((key.get(), value.get()));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

/// The members of a line that holds one object and nothing else.
///
/// Numbers that no machine word holds and halves of surrogate pairs are let through: they are valid JSON, and what a client
/// sent is kept as it came.
///
/// # Errors
///
/// When a reader could not read the line, or would see more than one.
pub fn read_line(line: &[u8]) -> Result<Members<'_>, String> {
    let line = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    if line.contains(['\n', '\r']) {
        return Err("a line break within the line".into());
    }
    depth(line)?;
    serde_json::from_str(line).map_err(|error| error.to_string())
}

/// The levels of arrays and objects in a JSON value.
///
/// # Errors
///
/// When it is no JSON value, or has more levels than a common reader follows.
pub fn depth(json: &str) -> Result<usize, String> {
    let mut values = vec![json];
    for depth in 0..=MAX_DEPTH {
        let (mut nested, mut inner) = (false, Vec::new());
        for value in values {
            if let Some(values) = inner_values(value).map_err(|error| error.to_string())? {
                nested = true;
                inner.extend(values);
            }
        }
        if !nested {
            return Ok(depth);
        }
        values = inner;
    }
    Err(format!("more than {MAX_DEPTH} levels"))
}

/// What is in an array or an object; `None` for any other value.
fn inner_values(value: &str) -> Result<Option<Vec<&str>>, serde_json::Error> {
    match value.trim_ascii_start().as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(value)?;
            Ok(Some(members.into_iter().map(|(_, value)| value).collect()))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(value)?;
            Ok(Some(items.into_iter().map(RawValue::get).collect()))
        }
        _ => serde_json::from_str::<&RawValue>(value).map(|_| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1", 0)]
    #[case("{}", 1)]
    #[case("[[],{\"a\":[\"[[[\"]}]", 3)]
    fn levels_are_counted(#[case] json: &str, #[case] levels: usize) {
        assert_eq!(depth(json), Ok(levels));
    }

    #[rstest]
    #[case::no_object(b"[]")]
    #[case::cut_off(b"{\"a\":")]
    #[case::two(b"{}{}")]
    #[case::two_lines(b"{\n}")]
    #[case::carriage_return(b"{\r}")]
    #[case::no_text(b"{\"a\":\"\xff\"}")]
    fn what_a_reader_could_not_read_is_an_error(#[case] line: &[u8]) {
        assert!(read_line(line).is_err());
    }

    #[test]
    fn depth_stands_on_the_bound_and_one_past_it() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(read_line(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(read_line(nested(MAX_DEPTH).as_bytes()).is_err());
    }

    #[test]
    fn members_are_found_unless_there_are_two_of_a_name() {
        let members = read_line(b"{\"a\":1,\"b\":\"x\",\"a\":2}").unwrap();
        assert_eq!((members.get("a"), members.text("b").as_deref(), members.get("c")), (None, Some("x"), None));
    }
}
