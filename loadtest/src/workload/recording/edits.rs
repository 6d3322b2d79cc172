//! Where the copies of a recorded body differ: in the identity of viewer and session, and in each event's id.

use serde_json::value::RawValue;
use shared::json::for_each_member;

/// Members that name a viewer, a session or a view of it, in the players whose sessions we know.
const IDENTITIES: [&str; 9] =
    ["session_id", "sessionId", "viewer_id", "viewerId", "xid", "sid", "uusid", "mvrid", "pinid"];
/// CTA-5004 wants custom keys to begin with a domain's name and a hyphen.
const CMCD_ID_KEY: &str = "com.playhead-id";

/// Something that a copy has in place of what was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    /// In bytes from the start of the body.
    pub(super) at: usize,
    pub(super) removed: usize,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the closing quote of a viewer's or session's id.
    EndOfIdentity,
    /// The value of an event's `id`.
    Id,
    /// An `id` member in front of the others of an object, if there are any.
    IdMember { others: bool },
    /// At the end of a CMCD report.
    CmcdId,
}

impl Place {
    pub(super) fn is_event_id(self) -> bool {
        self != Self::EndOfIdentity
    }

    /// What stands there, of an id that needs no escapes.
    pub(super) fn with_id(self, id: &str) -> String {
        match self {
            Self::EndOfIdentity | Self::Id => format!("\"{id}\""),
            Self::IdMember { others: true } => format!("\"id\":\"{id}\","),
            Self::IdMember { others: false } => format!("\"id\":\"{id}\""),
            Self::CmcdId => format!(",{CMCD_ID_KEY}=\"{id}\""),
        }
    }
}

/// In order, and one with an event's id for each event.
pub(super) fn of(body: &str, content_type: &str) -> Result<Vec<Edit>, String> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut edits = Vec::new();
    match essence.as_str() {
        "application/cmcd" => lines(body).for_each(|line| edits.extend(of_report(line, offset(body, line)))),
        "application/x-ndjson" => {
            for line in lines(body) {
                edits.extend(of_object(line, offset(body, line))?);
            }
        }
        _ => {
            for event in events(body.trim_ascii())? {
                edits.extend(of_object(event, offset(body, event))?);
            }
        }
    }
    Ok(edits)
}

fn lines(body: &str) -> impl Iterator<Item = &str> {
    body.split('\n').map(str::trim_ascii).filter(|line| !line.is_empty())
}

/// Where a part of a text is in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

/// The events of a body that is one JSON value.
fn events(text: &str) -> Result<Vec<&str>, String> {
    if text.starts_with('[') {
        return members(text);
    }
    let mut list = None;
    let see = |key: &str, value| {
        if key == "\"events\"" {
            list = Some(value);
        }
    };
    for_each_member(text, see).map_err(|error| format!("the body: {error}"))?;
    match list {
        Some(list) => members(list),
        None => Ok(vec![text]),
    }
}

fn members(array: &str) -> Result<Vec<&str>, String> {
    let members: Vec<&RawValue> = serde_json::from_str(array).map_err(|error| format!("the body: {error}"))?;
    Ok(members.into_iter().map(RawValue::get).collect())
}

fn of_object(object: &str, at: usize) -> Result<Vec<Edit>, String> {
    let (mut edits, mut id, mut members) = (Vec::new(), None, 0);
    for_each_member(object, |key, value| {
        members += 1;
        let start = at + offset(object, value);
        if key == "\"id\"" {
            id = Some(Edit { at: start, removed: value.len(), place: Place::Id });
        } else if IDENTITIES.contains(&key.trim_matches('"')) && value.starts_with('"') {
            edits.push(Edit { at: start + value.len() - 1, removed: 0, place: Place::EndOfIdentity });
        }
    })
    .map_err(|error| format!("an event: {error}"))?;
    // Of several members `id` the last counts, as for most readers.
    let member = Edit { at: at + 1, removed: 0, place: Place::IdMember { others: members > 0 } };
    edits.push(id.unwrap_or(member));
    edits.sort_by_key(|edit| edit.at);
    Ok(edits)
}

/// A structured-field dictionary is not taken apart further than this needs: its members end at commas outside of quotes.
fn of_report(line: &str, at: usize) -> Vec<Edit> {
    let mut edits = Vec::new();
    for member in members_of_dictionary(line) {
        let Some((key, value)) = member.split_once('=') else { continue };
        if IDENTITIES.contains(&key.trim()) && value.len() > 1 && value.starts_with('"') && value.ends_with('"') {
            let end = at + offset(line, value) + value.len();
            edits.push(Edit { at: end - 1, removed: 0, place: Place::EndOfIdentity });
        }
    }
    edits.push(Edit { at: at + line.len(), removed: 0, place: Place::CmcdId });
    edits
}

fn members_of_dictionary(line: &str) -> Vec<&str> {
    let (mut members, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (place, character) in line.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                members.push(line[start..place].trim_ascii());
                start = place + 1;
            }
            _ => {}
        }
    }
    members.push(line[start..].trim_ascii());
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn copy(body: &str, content_type: &str) -> String {
        let (mut text, mut from) = (String::new(), 0);
        for edit in of(body, content_type).unwrap() {
            text.push_str(&body[from..edit.at]);
            text.push_str(&if edit.place.is_event_id() { edit.place.with_id("X") } else { "-2".into() });
            from = edit.at + edit.removed;
        }
        text + &body[from..]
    }

    #[rstest]
    #[case::object(r#"{"a":1}"#, r#"{"id":"X","a":1}"#)]
    #[case::nothing_in_it(" {} ", r#" {"id":"X"} "#)]
    #[case::its_own_id(r#"{"a":1, "id" : 42 }"#, r#"{"a":1, "id" : "X" }"#)]
    #[case::identities(
        r#"[{"xid":"a","sid":"b"},{"sid" : "c"}]"#,
        r#"[{"id":"X","xid":"a-2","sid":"b-2"},{"id":"X","sid" : "c-2"}]"#
    )]
    #[case::wrapped(
        r#"{"metadata":{"sid":"m"},"events":[{"a":{"sid":"n"}}]}"#,
        r#"{"metadata":{"sid":"m"},"events":[{"id":"X","a":{"sid":"n"}}]}"#
    )]
    #[case::numbers_stay(r#"{"sid":7}"#, r#"{"id":"X","sid":7}"#)]
    fn json(#[case] body: &str, #[case] expected: &str) {
        assert_eq!(copy(body, "application/json; charset=utf-8"), expected);
    }

    #[test]
    fn lines_have_an_event_each() {
        let expected = "{\"id\":\"X\",\"sid\":\"a-2\"}\n\n {\"id\":\"X\"}\n";
        assert_eq!(copy("{\"sid\":\"a\"}\n\n {\"id\":\"\"}\n", "application/x-ndjson"), expected);
    }

    #[rstest]
    #[case("e=t,sid=\"a\",v=2\n", "e=t,sid=\"a-2\",v=2,com.playhead-id=\"X\"\n")]
    #[case("e=t\nsid=\"b\"\n", "e=t,com.playhead-id=\"X\"\nsid=\"b-2\",com.playhead-id=\"X\"\n")]
    #[case("cid=\",sid=\\\"\",sid=\"c\"", "cid=\",sid=\\\"\",sid=\"c-2\",com.playhead-id=\"X\"")]
    fn reports(#[case] body: &str, #[case] expected: &str) {
        assert_eq!(copy(body, "application/cmcd"), expected);
    }

    #[rstest]
    #[case("[1]", "application/json")]
    #[case("{\"a\":", "text/plain")]
    #[case("{\"a\":1}\nnull", "application/x-ndjson")]
    fn what_is_no_event_is_not_replayed(#[case] body: &str, #[case] content_type: &str) {
        assert!(of(body, content_type).is_err());
    }
}
