//! What should land of a record, worked out by other means than the function's own.

use bytes::Bytes;
use kinesis_to_s3_lambda::kpl::deaggregate;
use shared::limits::MAX_EVENT_DEPTH;
use shared::line::EventFormat;
use shared::strict_reader::{Members, depth};
use shared::timestamp::UnixMillis;

/// A line that is expected somewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    /// Among the events, with no change but spaces in place of line breaks.
    Event(Vec<u8>),
    /// Among the rejected lines, likewise.
    OwnRejected(Vec<u8>),
    /// One made by landing, that keeps these bytes.
    Rejected(Vec<u8>),
}

/// How many lines of a record of so many bytes may be rejected one by one.
fn most_rejected(bytes: usize) -> usize {
    (bytes / 128).clamp(2, 100)
}

/// The lines of a record. Whether it is an aggregated one is taken from the function: a property of its own is about that.
pub(crate) fn lines_of(data: &Bytes, partition_key: &str, format: EventFormat) -> Vec<Line> {
    let most = most_rejected(data.len());
    let Some(user_records) = deaggregate(data) else {
        let rejects = format == EventFormat::Envelope || partition_key.starts_with("r-");
        return lines_of_payload(data, rejects, most);
    };
    let rejects = format == EventFormat::Envelope;
    let lines: Vec<Line> = user_records.iter().flat_map(|data| lines_of_payload(data, rejects, most)).collect();
    if rejected(&lines) > most { vec![Line::Rejected(data.to_vec())] } else { lines }
}

fn rejected(lines: &[Line]) -> usize {
    lines.iter().filter(|line| matches!(line, Line::Rejected(_))).count()
}

/// `rejects`: whether lines may say that they are rejected ones.
fn lines_of_payload(data: &[u8], rejects: bool, most: usize) -> Vec<Line> {
    let whole = || vec![Line::Rejected(data.to_vec())];
    if let Some(object) = landing(unmarked(data.trim_ascii_end()), rejects) {
        return vec![object];
    }
    let texts: Vec<&[u8]> = data.split(|byte| *byte == b'\n').filter(|line| !unmarked(line).is_empty()).collect();
    // The mark of the record is none of its first line.
    let kept = |at: usize, line: &[u8]| {
        let first = at == 0 && data.starts_with(line);
        let line = if first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        Line::Rejected(line.trim_ascii().to_vec())
    };
    let lines: Vec<Line> = texts
        .iter()
        .enumerate()
        .map(|(at, line)| landing(unmarked(line), rejects).unwrap_or_else(|| kept(at, line)))
        .collect();
    let bad = rejected(&lines);
    if bad == lines.len() || bad > most || bad > 0 && goes_over_lines(&texts) { whole() } else { lines }
}

fn unmarked(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    line.strip_prefix(b"\xef\xbb\xbf").map_or(line, unmarked)
}

/// Whether two of the lines look like the ends of one value, or like two of its middle.
fn goes_over_lines(lines: &[&[u8]]) -> bool {
    let lines: Vec<&[u8]> = lines.iter().map(|line| unmarked(line)).collect();
    let opening = lines.iter().position(|line| line.ends_with(b"{") || line.ends_with(b"["));
    let closing = lines.iter().rposition(|line| line.starts_with(b"}") || line.starts_with(b"]"));
    let member = lines.windows(2).any(|pair| pair[0].ends_with(b"{") && pair[1].starts_with(b"\""));
    member || opening.zip(closing).is_some_and(|(opening, closing)| opening < closing)
}

/// The line that an object becomes; `None` for anything else.
fn landing(text: &[u8], rejects: bool) -> Option<Line> {
    let text = std::str::from_utf8(text).ok()?;
    let shallow = depth(text).is_ok_and(|depth| depth <= MAX_EVENT_DEPTH + 1);
    let members = serde_json::from_str::<Members>(text).ok().filter(|_| shallow)?;
    let line = text.replace(['\n', '\r'], " ").into_bytes();
    Some(if rejects && is_own_rejected(&members) { Line::OwnRejected(line) } else { Line::Event(line) })
}

fn is_own_rejected(members: &Members) -> bool {
    let last = |name: &str| members.0.iter().rfind(|(own, _)| *own == name).map(|(_, value)| *value);
    last("\"v\"") == Some("1")
        && last("\"received_at\"").is_some_and(|time| UnixMillis::parse(time.trim_matches('"')).is_some())
        && last("\"rejected\"")
            .is_some_and(|rejected| rejected.starts_with("{\"reason\":\"") && rejected.matches('"').count() >= 4)
        && last("\"event\"").is_none()
}
