//! What should land of a record, worked out by other means than the function's own.

use bytes::Bytes;
use kinesis_to_s3_lambda::kpl::deaggregate;
use shared::limits::MAX_EVENT_DEPTH;
use shared::strict_reader::{Members, depth};

/// A line that is expected somewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    /// With no change but spaces in place of line breaks.
    AsItStood(Vec<u8>),
    /// One made by landing, that keeps these bytes.
    Rejected(Vec<u8>),
}

/// How many lines of a record of so many bytes may be rejected one by one.
fn most_rejected(bytes: usize) -> usize {
    (bytes / 128).clamp(2, 100)
}

/// The lines of a record. Whether it is an aggregated one is taken from the function: a property of its own is about that.
pub(crate) fn lines_of(data: &Bytes) -> Vec<Line> {
    let most = most_rejected(data.len());
    let Some(user_records) = deaggregate(data) else { return lines_of_payload(data, most) };
    let lines: Vec<Line> = user_records.iter().flat_map(|data| lines_of_payload(data, most)).collect();
    if rejected(&lines) > most { vec![Line::Rejected(data.to_vec())] } else { lines }
}

fn rejected(lines: &[Line]) -> usize {
    lines.iter().filter(|line| matches!(line, Line::Rejected(_))).count()
}

fn lines_of_payload(data: &[u8], most: usize) -> Vec<Line> {
    let Ok(text) = std::str::from_utf8(data) else { return vec![Line::Rejected(data.to_vec())] };
    let lines = text.split('\n').map(str::trim_ascii).filter(|line| !line.is_empty());
    let lines: Vec<Line> = lines.map(|line| landing(line).unwrap_or_else(|| Line::Rejected(line.into()))).collect();
    let starts_well = matches!(lines.first(), Some(Line::AsItStood(_)));
    if starts_well && rejected(&lines) <= most {
        return lines;
    }
    vec![landing(text.trim_ascii()).unwrap_or_else(|| Line::Rejected(data.to_vec()))]
}

/// The line that an object becomes; `None` for anything else.
fn landing(text: &str) -> Option<Line> {
    let shallow = depth(text).is_ok_and(|depth| depth <= MAX_EVENT_DEPTH + 1);
    let is_object = shallow && serde_json::from_str::<Members>(text).is_ok();
    is_object.then(|| Line::AsItStood(text.replace(['\n', '\r'], " ").into_bytes()))
}
