//! CMCD version 2 in event mode (CTA-5004-B): a report a line, each a structured-field dictionary (RFC 9651).
//!
//! A report becomes a JSON object with its members in the order sent. Integers, decimals and dates become numbers,
//! booleans booleans, strings, tokens and display strings strings, byte sequences base64 strings, inner lists arrays.
//!
//! RFC 9651 allows only ASCII in strings and has display strings for the rest; the serializers of dash.js, hls.js and Shaka
//! Player write UTF-8 into strings as it is, so it is accepted between quotes.
//!
//! A value with parameters, such as the `0;v` of `bl=(0;v 0;a)`, becomes `{"value":0,"params":{"v":true}}`.

use std::borrow::Cow;
use std::fmt::Write;

use base64_simd::STANDARD as BASE64;
use sfv::{BareItem, Dictionary, InnerList, Item, ListEntry, Parameters, Parser};
use shared::json::write_string;

/// One report as a JSON object.
///
/// # Errors
///
/// When the line is no structured-field dictionary; the error says where.
pub fn report_to_json(line: &str) -> Result<String, sfv::Error> {
    let dictionary: Dictionary = Parser::new(&*with_display_strings(line)).parse()?;
    let mut out = Vec::with_capacity(line.len() * 2);
    write_object(&mut out, dictionary.iter().map(|(key, entry)| (key.as_str(), entry)), write_entry);
    #[allow(clippy::expect_used)]
    let json = String::from_utf8(out).expect("only ASCII and whole strings were written");
    Ok(json)
}

/// The line with each string that is not ASCII rewritten as the display string of the same text.
fn with_display_strings(line: &str) -> Cow<'_, str> {
    if line.is_ascii() {
        return Cow::Borrowed(line);
    }
    let (mut out, mut rest) = (String::with_capacity(line.len() * 2), line);
    while let Some(quote) = rest.find('"') {
        let (before, string) = rest.split_at(quote);
        out.push_str(before);
        let is_display = before.ends_with('%');
        let (string, behind) = string.split_at(string_length(string, is_display));
        if string.is_ascii() {
            out.push_str(string);
        } else {
            write_display_string(&mut out, string, is_display);
        }
        rest = behind;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The bytes of the string that the text begins with, both quotes included, or all if it does not end. Display strings have no
/// backslash escapes.
fn string_length(text: &str, is_display: bool) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped && !is_display;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Writes a string, quotes included, as a display string. An escape that is invalid in strings stays invalid.
fn write_display_string(out: &mut String, string: &str, is_display: bool) {
    if !is_display {
        out.push('%');
    }
    let mut characters = string[1..].chars().peekable();
    out.push('"');
    while let Some(character) = characters.next() {
        let escaped = character == '\\' && !is_display;
        match characters.next_if(|next| escaped && matches!(next, '"' | '\\')) {
            Some('"') => out.push_str("%22"),
            Some(_) => out.push('\\'),
            None if escaped => out.push_str("%\\"),
            None if character == '%' && !is_display => out.push_str("%25"),
            None => write_character(out, character),
        }
    }
}

fn write_character(out: &mut String, character: char) {
    if character.is_ascii() {
        return out.push(character);
    }
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        #[allow(clippy::expect_used)]
        write!(out, "%{byte:02x}").expect("a String takes all that is written to it");
    }
}

fn write_entry(out: &mut Vec<u8>, entry: &ListEntry) {
    match entry {
        ListEntry::Item(item) => write_item(out, item),
        ListEntry::InnerList(list) => with_parameters(out, &list.params, |out| write_list(out, list)),
    }
}

fn write_list(out: &mut Vec<u8>, list: &InnerList) {
    out.push(b'[');
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_item(out, item);
    }
    out.push(b']');
}

fn write_item(out: &mut Vec<u8>, item: &Item) {
    with_parameters(out, &item.params, |out| write_bare_item(out, &item.bare_item));
}

fn with_parameters(out: &mut Vec<u8>, parameters: &Parameters, write_value: impl FnOnce(&mut Vec<u8>)) {
    if parameters.is_empty() {
        return write_value(out);
    }
    out.extend_from_slice(b"{\"value\":");
    write_value(out);
    out.extend_from_slice(b",\"params\":");
    write_object(out, parameters.iter().map(|(key, value)| (key.as_str(), value)), write_bare_item);
    out.push(b'}');
}

fn write_object<'a, T: 'a>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (&'a str, &'a T)>,
    write_value: impl Fn(&mut Vec<u8>, &T),
) {
    out.push(b'{');
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, key);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

fn write_bare_item(out: &mut Vec<u8>, value: &BareItem) {
    match value {
        BareItem::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        BareItem::Decimal(number) => out.extend_from_slice(number.to_string().as_bytes()),
        BareItem::Date(date) => out.extend_from_slice(date.unix_seconds().to_string().as_bytes()),
        BareItem::Boolean(boolean) => out.extend_from_slice(boolean.to_string().as_bytes()),
        BareItem::String(text) => write_string(out, text.as_str()),
        BareItem::Token(token) => write_string(out, token.as_str()),
        BareItem::DisplayString(text) => write_string(out, text),
        BareItem::ByteSequence(bytes) => write_string(out, &BASE64.encode_to_string(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case("e=t,sn=0,sid=\"8f\",su", json!({"e": "t", "sn": 0, "sid": "8f", "su": true}))]
    #[case("bl=(0;v 12;a),pr=1.50", json!({"bl": [{"value": 0, "params": {"v": true}}, {"value": 12, "params": {"a": true}}], "pr": 1.5}))]
    #[case("nor=(\"a\" \"b\")", json!({"nor": ["a", "b"]}))]
    #[case("l=(1 2);x=y", json!({"l": {"value": [1, 2], "params": {"x": "y"}}}))]
    #[case("url=\"http://h/\\\"q\\\\\"", json!({"url": "http://h/\"q\\"}))]
    #[case("b=:aGk=:,d=@1795253752,s=%\"f%c3%bc\",n=?0", json!({"b": "aGk=", "d": 1_795_253_752, "s": "fü", "n": false}))]
    #[case("a=1,a=2", json!({"a": 2}))]
    #[case("com.example-custom=5", json!({"com.example-custom": 5}))]
    #[case("cid=\"Café\"", json!({"cid": "Café"}))]
    #[case("cid=\"日本 🎬\",sid=\"a\"", json!({"cid": "日本 🎬", "sid": "a"}))]
    #[case("a=\"x\",cid=\"é \\\"q\\\" \\\\ 100% %41\",b=\"y%\"", json!({"a": "x", "cid": "é \"q\" \\ 100% %41", "b": "y%"}))]
    #[case("nor=(\"ä\";v \"b\");p=\"ö\"", json!({"nor": {"value": [{"value": "ä", "params": {"v": true}}, "b"], "params": {"p": "ö"}}}))]
    #[case("s=%\"f%c3%bc é\",t=%\"\\\",u=\"é\"", json!({"s": "fü é", "t": "\\", "u": "é"}))]
    #[case("a=\"\u{80}\u{2028}\u{feff}\u{10ffff}\"", json!({"a": "\u{80}\u{2028}\u{feff}\u{10ffff}"}))]
    fn reports_become_objects(#[case] line: &str, #[case] expected: Value) {
        let json = report_to_json(line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected);
    }

    #[rstest]
    #[case("{\"e\":\"t\"}")]
    #[case("e=t,")]
    #[case("E=t")]
    #[case("é=1")]
    #[case("e=é")]
    #[case("e=\"é")]
    #[case("e=\"é\\\"")]
    #[case("e=\"é\\n\"")]
    #[case("e=\"é\\é\"")]
    #[case("e=\"é\t\"")]
    #[case("e=\"é\"é")]
    #[case("e=%\"é%zz\"")]
    #[case("e=%\"%C3%A9é\"")]
    #[case("e=99999999999999999999")]
    fn other_lines_are_errors(#[case] line: &str) {
        assert!(report_to_json(line).is_err());
    }

    proptest! {
        /// As common-media-library's serializer writes strings.
        #[test]
        fn any_string_of_a_player_is_kept(values in prop::collection::vec("[^\\x00-\\x1f\\x7f]{0,12}", 1..4)) {
            let escape = |value: &String| value.replace('\\', "\\\\").replace('"', "\\\"");
            let line: Vec<String> = (0..).zip(&values).map(|(n, value)| format!("k{n}=\"{}\"", escape(value))).collect();
            let json: Value = serde_json::from_str(&report_to_json(&line.join(",")).unwrap())?;
            let expected: Value = (0..).zip(&values).map(|(n, value)| (format!("k{n}"), json!(value))).collect();
            prop_assert_eq!(json, expected);
        }

        #[test]
        fn any_line_becomes_json_or_an_error(line in "\\PC{0,80}|[a-z=;,()\"0-9 .?:@%]{0,60}") {
            if let Ok(json) = report_to_json(&line) {
                prop_assert!(serde_json::from_str::<Value>(&json)?.is_object());
            }
        }
    }
}
