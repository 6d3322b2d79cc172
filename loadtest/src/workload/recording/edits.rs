//! Where the copies of a recorded body differ: in the identity of viewer and session, and in each event's id.

use std::ops::Range;

use serde_json::value::RawValue;
use shared::json::for_each_member;

/// Members that name a viewer, a session or a view of it, in the players whose sessions we know.
const IDENTITIES: [&str; 9] =
    ["session_id", "sessionId", "viewer_id", "viewerId", "xid", "sid", "uusid", "mvrid", "pinid"];
/// Before an event's id in a CMCD report. CTA-5004 wants custom keys to begin with a domain's name and a hyphen.
const CMCD_ID: &str = ",com.playhead-id=\"";

/// What a copy has in place of what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// Of the recorded body, in bytes.
    pub(super) range: Range<usize>,
    pub(super) own: Own,
    /// Around it.
    pub(super) before: &'static str,
    pub(super) after: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// The suffix that sets the copy's viewer and session apart from those of others.
    Copy,
    /// The id of an event.
    Id,
}

/// Before the closing quote of a viewer's or session's id.
fn identity(end: usize) -> Edit {
    Edit { range: end - 1..end - 1, own: Own::Copy, before: "-", after: "" }
}

/// In order, and one with an event's id for each event.
pub(super) fn of(body: &str, content_type: &str) -> Result<Vec<Edit>, String> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let events = match essence.as_str() {
        "application/cmcd" => return Ok(lines(body).flat_map(|line| of_report(body, line)).collect()),
        "application/x-ndjson" => lines(body).collect(),
        _ => events(body.trim_ascii())?,
    };
    let edits: Vec<_> = events.into_iter().map(|event| of_object(body, event)).collect::<Result<_, _>>()?;
    Ok(edits.concat())
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

fn of_object(body: &str, object: &str) -> Result<Vec<Edit>, String> {
    let (mut edits, mut id, mut members) = (Vec::new(), None, 0);
    for_each_member(object, |key, value| {
        members += 1;
        let start = offset(body, value);
        if key == "\"id\"" {
            // Of several the last counts, as for most readers.
            id = Some(Edit { range: start..start + value.len(), own: Own::Id, before: "\"", after: "\"" });
        } else if IDENTITIES.contains(&key.trim_matches('"')) && value.starts_with('"') {
            edits.push(identity(start + value.len()));
        }
    })
    .map_err(|error| format!("an event: {error}"))?;
    let first = offset(body, object) + 1;
    let after = if members > 0 { "\"," } else { "\"" };
    edits.push(id.unwrap_or(Edit { range: first..first, own: Own::Id, before: "\"id\":\"", after }));
    edits.sort_by_key(|edit| edit.range.start);
    Ok(edits)
}

/// Members of a structured-field dictionary end at commas outside of quotes; more is not needed here.
fn of_report(body: &str, line: &str) -> Vec<Edit> {
    let mut edits = Vec::new();
    for member in members_of_dictionary(line) {
        let Some((key, value)) = member.split_once('=') else { continue };
        if IDENTITIES.contains(&key.trim()) && value.len() > 1 && value.starts_with('"') && value.ends_with('"') {
            edits.push(identity(offset(body, value) + value.len()));
        }
    }
    let end = offset(body, line) + line.len();
    edits.push(Edit { range: end..end, own: Own::Id, before: CMCD_ID, after: "\"" });
    edits
}

fn members_of_dictionary(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let is_end = move |character: char| {
        quoted ^= character == '"' && !escaped;
        escaped = quoted && !escaped && character == '\\';
        character == ',' && !quoted
    };
    line.split(is_end).map(str::trim_ascii)
}
