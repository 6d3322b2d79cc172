//! From one piece of a body to an event: its JSON as a line holds it, its id and its key.

use std::borrow::Cow;

use serde_json::value::RawValue;
use shared::json::{as_line, for_each_member, is_deeper_than, replace_lone_surrogates};
use shared::limits::{MAX_CMCD_REPORT_BYTES, MAX_EVENT_DEPTH, MAX_EVENT_ID_BYTES};
use shared::rejection::{Reason, Rejection};

use crate::bucket::HashKey;
use crate::cmcd::report_to_json;
use crate::steps;

/// An event, ready to be put into a line.
#[derive(Debug, PartialEq)]
pub struct Event<'a> {
    /// A JSON object without line breaks and without lone surrogates.
    pub json: Cow<'a, str>,
    /// The client's `id` as a JSON string literal.
    pub id: Option<String>,
    /// Of the value of the first of the configured fields that the event has. Events of one key keep their order.
    pub key: Option<HashKey>,
    /// Lone surrogates that were replaced in `json`.
    pub replaced_surrogates: u64,
}

/// The members whose value may be an event's key, best first, as JSON string literals.
#[derive(Debug, Clone)]
pub struct KeyFields(Vec<String>);

impl KeyFields {
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| serde_json::Value::from(name.as_str()).to_string()).collect())
    }
}

/// Reads an event from JSON.
///
/// # Errors
///
/// When it is no JSON object that readers can read.
pub(crate) fn from_json<'a>(json: &'a [u8], key_fields: &KeyFields) -> Result<Event<'a>, Rejection> {
    steps::count(json.len());
    let text = utf8(json)?;
    let mut fields = Fields::new(key_fields);
    for_each_member(text, |key, value| fields.see(key, value)).map_err(|error| not_one_object(text, &error))?;
    fields.into_event(text)
}

/// Reads an event from a CMCD report.
///
/// # Errors
///
/// When it is no report, or one that is too large or too deep.
pub(crate) fn from_cmcd(line: &[u8], key_fields: &KeyFields) -> Result<Event<'static>, Rejection> {
    if line.len() > MAX_CMCD_REPORT_BYTES {
        let detail = format!("a CMCD report is one line of at most {MAX_CMCD_REPORT_BYTES} bytes");
        return Err(Rejection::new(Reason::EventTooLarge, detail));
    }
    let invalid = |error: &dyn std::fmt::Display| Rejection::new(Reason::InvalidCmcd, error.to_string());
    let json = report_to_json(utf8(line)?).map_err(|error| invalid(&error))?;
    let mut fields = Fields::new(key_fields);
    for_each_member(&json, |key, value| fields.see(key, value)).map_err(|error| invalid(&error))?;
    let Event { id, key, replaced_surrogates, .. } = fields.into_event(&json)?;
    Ok(Event { json: Cow::Owned(json), id, key, replaced_surrogates })
}

/// What is picked from an event's members on the way through them.
pub(crate) struct Fields<'f> {
    key_fields: &'f KeyFields,
    key: Option<(usize, HashKey)>,
    id: Option<String>,
}

impl<'f> Fields<'f> {
    pub(crate) fn new(key_fields: &'f KeyFields) -> Self {
        Self { key_fields, key: None, id: None }
    }

    pub(crate) fn see(&mut self, name: &str, value: &str) {
        if name == "\"id\"" {
            self.id = id_literal(value);
        }
        if let Some(rank) = self.key_fields.0.iter().position(|field| field == name)
            && self.key.as_ref().is_none_or(|(best, _)| rank <= *best)
            && let Some(key) = hash_key(value)
        {
            self.key = Some((rank, key));
        }
    }

    /// `json` is the object whose members were seen.
    pub(crate) fn into_event(self, json: &str) -> Result<Event<'_>, Rejection> {
        if is_deeper_than(json, MAX_EVENT_DEPTH) {
            let detail = format!("the event is nested deeper than {MAX_EVENT_DEPTH} levels; flatten it");
            return Err(Rejection::new(Reason::TooDeep, detail));
        }
        let (json, replaced_surrogates) = as_line(json);
        let id = self.id.map(|id| match replace_lone_surrogates(&id) {
            (Cow::Owned(replaced), _) => replaced,
            (Cow::Borrowed(_), _) => id,
        });
        Ok(Event { json, id, key: self.key.map(|(_, key)| key), replaced_surrogates })
    }
}

/// Strings as they stand, numbers in quotes; nothing else, nothing empty, nothing long.
fn id_literal(value: &str) -> Option<String> {
    match value.as_bytes() {
        [b'"', b'"'] => None,
        _ if value.len() > MAX_EVENT_ID_BYTES => None,
        [b'"', ..] => Some(value.to_owned()),
        [b'-' | b'0'..=b'9', ..] => Some(format!("\"{value}\"")),
        _ => None,
    }
}

/// Of a string's text or of a number's digits; an empty string is no key.
fn hash_key(value: &str) -> Option<HashKey> {
    let text: Cow<'_, str> = match value.as_bytes() {
        [b'"', b'"'] => return None,
        // A string with lone surrogates has no Rust form; its literal is as good a key.
        [b'"', ..] => serde_json::from_str(value).map_or(Cow::Borrowed(value), Cow::Owned),
        [b'-' | b'0'..=b'9', ..] => Cow::Borrowed(value),
        _ => return None,
    };
    Some(HashKey::of(text.as_bytes()))
}

/// # Errors
///
/// When it is not UTF-8.
pub(crate) fn utf8(text: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(text).map_err(|error| Rejection::new(Reason::InvalidUtf8, format!("not UTF-8: {error}")))
}

pub(crate) fn not_one_object(text: &str, error: &serde_json::Error) -> Rejection {
    steps::count(text.len());
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Rejection::new(Reason::NotAnObject, "an event is a JSON object, such as {\"type\":\"play\"}"),
        Err(_) => Rejection::new(Reason::InvalidJson, error.to_string()),
    }
}
