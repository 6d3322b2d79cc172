//! What should land of a record, worked out by other means than the function's own.

use std::io::Read;

use bytes::Bytes;
use generators::strict_reader::{Members, depth};
use kinesis_to_s3_lambda::kpl::deaggregate;
use shared::limits::MAX_EVENT_DEPTH;
use shared::line::EventFormat;
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

/// What a frame may hold.
const MAX_FRAMED_BYTES: u64 = 1 << 20;

/// How many lines of a record of so many bytes may be rejected one by one.
fn most_rejected(bytes: usize) -> usize {
    (bytes / 128).clamp(2, 100)
}

/// The lines of a record. Whether it is an aggregated one is taken from the function: a property of its own is about that.
pub(crate) fn lines_of(data: &Bytes, partition_key: &str, format: EventFormat) -> Vec<Line> {
    let rejects = format == EventFormat::Envelope || partition_key.starts_with("r-");
    let lines = match deaggregate(data) {
        None if data.starts_with(ZSTD) => lines_of_frame(data, rejects),
        None => lines_of_payload(data, rejects),
        Some(user_records) => {
            user_records.flat_map(|data| lines_of_payload(&data, format == EventFormat::Envelope)).collect()
        }
    };
    with_surplus_in_one_line(lines, most_rejected(data.len()))
}

/// How a zstd frame begins, and how an aggregated record does.
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const AGGREGATED: &[u8] = b"\xf3\x89\x9a\xc2";

/// A frame that holds no object's line, or can't be read, is kept itself.
fn lines_of_frame(frame: &[u8], rejects: bool) -> Vec<Line> {
    let lines = unframed(frame).map(|text| lines_of_payload(&text, rejects));
    lines
        .filter(|lines| lines.iter().any(|line| !matches!(line, Line::Rejected(_))))
        .unwrap_or_else(|| vec![Line::Rejected(frame.to_vec())])
}

/// What the one frame holds, read as a stream.
fn unframed(frame: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame).unwrap().single_frame();
    decoder.window_log_max(31).unwrap();
    let mut text = Vec::new();
    decoder.by_ref().take(MAX_FRAMED_BYTES + 1).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= MAX_FRAMED_BYTES && decoder.finish().is_empty()).then_some(text)
}

fn rejected(lines: &[Line]) -> usize {
    lines.iter().filter(|line| matches!(line, Line::Rejected(_))).count()
}

fn with_surplus_in_one_line(lines: Vec<Line>, most: usize) -> Vec<Line> {
    let (mut kept, mut surplus) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::Rejected(body) if rejected(&kept) == most => surplus.push(body),
            line => kept.push(line),
        }
    }
    kept.extend((!surplus.is_empty()).then(|| Line::Rejected(surplus.join(&b'\n'))));
    kept
}

/// `rejects`: whether lines may say that they are rejected ones.
fn lines_of_payload(data: &[u8], rejects: bool) -> Vec<Line> {
    let whole = || vec![Line::Rejected(data.to_vec())];
    let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    if text.starts_with(ZSTD) || text.starts_with(AGGREGATED) {
        return whole();
    }
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
    if bad == lines.len() || bad > 0 && goes_over_lines(&texts) { whole() } else { lines }
}

fn unmarked(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    line.strip_prefix(b"\xef\xbb\xbf").map_or(line, unmarked)
}

/// Whether the lines, put together again, have a bracket pair that begins in one and ends in another, or a value that goes on
/// from line to line. What is open is kept with the number of the line that opened it.
fn goes_over_lines(lines: &[&[u8]]) -> bool {
    let mut open: Vec<(u8, usize)> = Vec::new();
    let (mut goes_on, mut stops, mut surely) = (0, 0, false);
    for (number, line) in lines.iter().enumerate().map(|(number, line)| (number, unmarked(line))) {
        if let Some((innermost, _)) = open.last() {
            let before = unmarked(lines[number - 1]);
            if follows(*innermost, &outside_strings(before), line[0]) {
                goes_on += 1;
                let between_objects = *innermost == b'['
                    && before.ends_with(b",")
                    && before[..before.len() - 1].trim_ascii_end().ends_with(b"}");
                surely |= open[0].0 == b'[' || between_objects;
            } else {
                stops += 1;
            }
        }
        for byte in outside_strings(line) {
            let opening = match byte {
                b'{' | b'[' | b'(' => {
                    open.push((byte, number));
                    continue;
                }
                b'}' => b'{',
                b']' => b'[',
                b')' => b'(',
                _ => continue,
            };
            if let Some(at) = open.iter().rposition(|(bracket, _)| *bracket == opening) {
                if open[at].1 < number {
                    return true;
                }
                open.truncate(at);
            }
        }
    }
    goes_on > stops && (goes_on >= 2 || surely)
}

/// Whether a line that begins with `first` goes on where another ended, by the grammar of JSON.
fn follows(innermost: u8, before: &[u8], first: u8) -> bool {
    let wants = match (before.last(), innermost) {
        (Some(b':'), _) | (Some(b'{' | b'[' | b','), b'[') => return first != b',' && first != b':',
        (Some(b'{' | b'[' | b','), _) => "\"",
        (_, b'[') => ",",
        _ => ",:",
    };
    wants.contains(char::from(first))
}

/// A line without what stands in its strings; each is left as its quotes, and one that does not end as a quote.
fn outside_strings(line: &[u8]) -> Vec<u8> {
    let (mut kept, mut rest) = (Vec::new(), line.iter());
    while let Some(byte) = rest.next() {
        kept.push(*byte);
        if *byte == b'"' && skip_string(&mut rest) {
            kept.push(b'"');
        }
    }
    kept
}

/// Whether the string ends.
fn skip_string(rest: &mut std::slice::Iter<'_, u8>) -> bool {
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return true,
            b'\\' => rest.next(),
            _ => None,
        };
    }
    false
}

/// The line that an object becomes; `None` for anything else.
fn landing(text: &[u8], rejects: bool) -> Option<Line> {
    let text = std::str::from_utf8(text).ok()?;
    let shallow = depth(text).is_ok_and(|depth| depth <= MAX_EVENT_DEPTH + 1);
    let members = serde_json::from_str::<Members>(text).ok().filter(|_| shallow)?;
    let line = without_lone_surrogates(&text.replace(['\n', '\r'], " ")).into_bytes();
    Some(if rejects && is_own_rejected(&members) { Line::OwnRejected(line) } else { Line::Event(line) })
}

/// Each escape of half a pair becomes `\ufffd`. Pieces between backslashes are looked at, so that no code is shared.
fn without_lone_surrogates(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let unit = |text: &str| u32::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
        let length = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                out.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out + rest
}

fn is_own_rejected(members: &Members) -> bool {
    let last = |name: &str| members.0.iter().rfind(|(own, _)| *own == name).map(|(_, value)| *value);
    last("\"v\"") == Some("1")
        && last("\"received_at\"").is_some_and(|time| UnixMillis::parse(time.trim_matches('"')).is_some())
        && last("\"rejected\"")
            .is_some_and(|rejected| rejected.starts_with("{\"reason\":\"") && rejected.matches('"').count() >= 4)
        && last("\"event\"").is_none()
}
