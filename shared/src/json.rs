//! Looking into JSON text without building a tree of values: slices of the text are all that comes out.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Walks the members of a JSON object and checks the whole text on the way.
///
/// `member` gets each key and value as they stand in the text: the key with its quotes and escapes, the value without
/// the white space around it. Nothing is copied and nesting costs no stack.
///
/// # Errors
///
/// When `text` is not one JSON object with nothing but white space around it. `member` may have been called before.
pub fn for_each_member<'a>(text: &'a str, member: impl FnMut(&'a str, &'a str)) -> Result<(), serde_json::Error> {
    struct Members<F>(F);

    impl<'a, F: FnMut(&'a str, &'a str)> Visitor<'a> for Members<F> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((key, value)) = map.next_entry::<&'a RawValue, &'a RawValue>()? {
                (self.0)(key.get(), value.get());
            }
            Ok(())
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Members(member))?;
    deserializer.end()
}

/// Whether arrays and objects in `json`, which must be valid JSON, are nested more than `limit` deep.
#[must_use]
pub fn is_deeper_than(json: &str, limit: usize) -> bool {
    // Most events have fewer brackets than the limit has levels: one pass that the compiler vectorises settles those.
    let opening = json.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    opening > limit && deepest_level(json) > limit
}

fn deepest_level(json: &str) -> usize {
    let (mut level, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Makes one line of valid JSON text: each line break becomes a space.
///
/// A raw line break can only stand between tokens (inside a string it must be escaped), so no value changes.
#[must_use]
pub fn fold_line_breaks(json: &str) -> Cow<'_, str> {
    match memchr2(b'\n', b'\r', json.as_bytes()) {
        Some(_) => Cow::Owned(json.replace(['\n', '\r'], " ")),
        None => Cow::Borrowed(json),
    }
}

/// Replaces each surrogate escape that has no partner, such as the `\ud83d` of an emoji cut in half, by `\ufffd`, and
/// says how many it replaced.
///
/// The grammar of JSON allows them, but they encode no character: DuckDB, jq, orjson and pyarrow refuse a whole file for
/// one of them. `json` must be valid JSON; its length does not change.
#[must_use]
pub fn replace_lone_surrogates(json: &str) -> (Cow<'_, str>, u64) {
    let (mut replaced, mut copied, mut count) = (String::new(), 0, 0);
    for digits in lone_surrogates(json) {
        replaced.reserve(json.len() - replaced.len());
        replaced.push_str(&json[copied..digits]);
        replaced.push_str("fffd");
        copied = digits + 4;
        count += 1;
    }
    if count == 0 {
        return (Cow::Borrowed(json), 0);
    }
    replaced.push_str(&json[copied..]);
    (Cow::Owned(replaced), count)
}

/// Where the four digits of each lone surrogate stand.
fn lone_surrogates(json: &str) -> impl Iterator<Item = usize> {
    let mut from = 0;
    std::iter::from_fn(move || {
        while let Some(backslash) = memchr(b'\\', json.as_bytes().get(from..)?) {
            let at = from + backslash;
            let (length, is_lone) = match (code_unit(json, at), code_unit(json, at + 6)) {
                (None, _) => (2, false),
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
                (Some(unit), _) => (6, (0xd800..=0xdfff).contains(&unit)),
            };
            from = at + length;
            if is_lone {
                return Some(at + 2);
            }
        }
        None
    })
}

/// The UTF-16 code unit of the `\uXXXX` at this place, if there is one.
fn code_unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

/// Makes a line of valid JSON text, as it lands: without line breaks and lone surrogates. Says how many of these were
/// replaced.
#[must_use]
pub fn as_line(json: &str) -> (Cow<'_, str>, u64) {
    let folded = fold_line_breaks(json);
    match replace_lone_surrogates(&folded) {
        (Cow::Owned(replaced), count) => (Cow::Owned(replaced), count),
        (Cow::Borrowed(_), _) => (folded, 0),
    }
}

/// Appends `text` as a JSON string, with quotes and escapes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    #[allow(clippy::expect_used)]
    serde_json::to_writer(out, text).expect("a Vec takes all that is written to it");
}

#[cfg(test)]
mod tests;
