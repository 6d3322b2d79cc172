//! What is in the newest objects, as far as a page shows it: the last lines of each, and of a long line its beginning.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Cursor, Read};

use base64_simd::STANDARD as BASE64;
use bzip2::read::MultiBzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::line::Kind;

/// Compressed bytes of an object that are read at most.
pub(crate) const MAX_OBJECT_BYTES: usize = 1024 * 1024;
/// Bytes that these may become: more is not decompressed.
const MAX_TEXT_BYTES: u64 = 16 * 1024 * 1024;
/// Lines of an object that are kept, the last ones.
pub(crate) const MAX_LINES: usize = 200;
/// Bytes that the kept lines of an object may have.
const MAX_KEPT_BYTES: usize = 256 * 1024;
/// Bytes of a player's text that are shown.
pub(crate) const MAX_SHOWN_BYTES: usize = 16 * 1024;

/// A line, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    pub(crate) kind: &'static str,
    pub(crate) id: Option<String>,
    pub(crate) received_at: Option<String>,
    /// What the event says that it is: its `type`, or else its `event` or `e`, as players name it.
    pub(crate) r#type: Option<String>,
    /// The value that decides the order: of the first member of `PARTITION_KEY_FIELDS` that it has.
    pub(crate) key: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// Of rejected input, as are the next two.
    pub(crate) reason: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) path: Option<String>,
    /// The event's JSON, or the input that was rejected, as the client sent it.
    pub(crate) text: String,
    /// Whether `text` is only the beginning.
    pub(crate) is_cut: bool,
    /// Whether the input was not UTF-8: then `text` has replacement characters.
    pub(crate) is_binary: bool,
    pub(crate) file: String,
    /// In the file, from 1.
    pub(crate) line: u64,
}

/// An object's last lines, and how far it was read.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The last one first.
    pub(crate) lines: Vec<Line>,
    /// Whether there are more lines than these.
    pub(crate) is_cut: bool,
}

/// Which object, and what its lines are searched for.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    pub(crate) file: String,
    pub(crate) key_fields: Vec<String>,
    /// Whether an event's line is what a client sent, alone: nothing in it is ours then.
    pub(crate) is_raw: bool,
}

/// The last lines of an object, or of its beginning if that is all that was read.
pub(crate) fn read(source: &Source, bytes: Vec<u8>, is_all: bool) -> Lines {
    let mut kept: VecDeque<Line> = VecDeque::new();
    let (mut bytes_kept, mut number, mut is_cut) = (0, 0, !is_all);
    let mut reader = BufReader::new(MultiBzDecoder::new(Cursor::new(bytes)).take(MAX_TEXT_BYTES));
    let mut text = Vec::new();
    loop {
        text.clear();
        match reader.read_until(b'\n', &mut text) {
            Ok(0) => break,
            // A line that is cut off says nothing.
            Ok(_) if text.last() != Some(&b'\n') => {
                is_cut = true;
                break;
            }
            Ok(_) => {}
            // Damaged, or only the beginning was read: what came before it stands.
            Err(_) => {
                is_cut = true;
                break;
            }
        }
        number += 1;
        let line = parse(source, &text[..text.len() - 1], number);
        bytes_kept += line.text.len();
        kept.push_back(line);
        while kept.len() > MAX_LINES || (bytes_kept > MAX_KEPT_BYTES && kept.len() > 1) {
            bytes_kept -= kept.pop_front().map_or(0, |dropped| dropped.text.len());
            is_cut = true;
        }
    }
    Lines { lines: kept.into_iter().rev().collect(), is_cut }
}

#[derive(Default, Deserialize)]
struct Envelope<'a> {
    v: Option<u64>,
    id: Option<String>,
    received_at: Option<String>,
    #[serde(default)]
    client: Client,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    rejected: Option<Rejected>,
}

#[derive(Default, Deserialize)]
struct Client {
    user_agent: Option<String>,
}

#[derive(Deserialize)]
struct Rejected {
    reason: Option<String>,
    detail: Option<String>,
    path: Option<String>,
    body_base64: Option<String>,
}

fn parse(source: &Source, text: &[u8], line: u64) -> Line {
    let text = String::from_utf8_lossy(text);
    // What is no envelope is a client's JSON, or another producer's: shown whole.
    let is_envelope = |envelope: &Envelope<'_>| envelope.v.is_some();
    let parsed = (!source.is_raw || source.kind == Kind::Rejected).then(|| serde_json::from_str(&text).ok()).flatten();
    let envelope: Envelope<'_> = parsed.filter(is_envelope).unwrap_or_default();
    let event = envelope.event.map_or(&*text, RawValue::get);
    let (r#type, key) = match source.kind {
        Kind::Event => members(event, &source.key_fields),
        Kind::Rejected => (None, None),
    };
    let (reason, detail, path, body) = match envelope.rejected.filter(|_| source.kind == Kind::Rejected) {
        Some(Rejected { reason, detail, path, body_base64 }) => (reason, detail, path, body_base64),
        None => (None, None, None, None),
    };
    let body = body.map(|body| BASE64.decode_to_vec(body.as_bytes()).unwrap_or_else(|_| body.into_bytes()));
    let (shown, is_cut, is_binary) = shown(body.as_deref().unwrap_or(event.as_bytes()));
    Line {
        kind: match source.kind {
            Kind::Event => "event",
            Kind::Rejected => "rejected",
        },
        id: envelope.id.map(cut),
        received_at: envelope.received_at.map(cut),
        r#type,
        key,
        user_agent: envelope.client.user_agent.map(cut),
        reason: reason.map(cut),
        detail: detail.map(cut),
        path: path.map(cut),
        text: shown,
        is_cut,
        is_binary,
        file: source.file.clone(),
        line,
    }
}

/// An event's type and its key, if they are texts or numbers.
fn members(event: &str, key_fields: &[String]) -> (Option<String>, Option<String>) {
    let Ok(members) = serde_json::from_str::<std::collections::HashMap<String, &RawValue>>(event) else {
        return (None, None);
    };
    let text = |name: &str| {
        let raw = members.get(name)?.get();
        let text = serde_json::from_str::<String>(raw).ok();
        text.or_else(|| serde_json::from_str::<serde_json::Number>(raw).ok().map(|number| number.to_string())).map(cut)
    };
    // A number or an object of that name may be anything.
    let string = |name: &&str| text(name).filter(|_| members[*name].get().starts_with('"'));
    let r#type = text("type").or_else(|| ["event", "e"].iter().find_map(string));
    (r#type, key_fields.iter().find_map(|name| text(name)))
}

/// The most bytes of a member other than the text.
const MAX_MEMBER_BYTES: usize = 512;

fn cut(text: String) -> String {
    if text.len() <= MAX_MEMBER_BYTES { text } else { text[..text.floor_char_boundary(MAX_MEMBER_BYTES)].to_owned() }
}

fn shown(text: &[u8]) -> (String, bool, bool) {
    let is_binary = std::str::from_utf8(text).is_err();
    let is_cut = text.len() > MAX_SHOWN_BYTES;
    let mut shown = String::from_utf8_lossy(&text[..text.len().min(MAX_SHOWN_BYTES)]).into_owned();
    if is_cut && !is_binary {
        // The cut may have gone through a character.
        while shown.ends_with('\u{fffd}') {
            shown.pop();
        }
    }
    (shown, is_cut, is_binary)
}

impl Line {
    /// Whether a lower-case text occurs in what is shown of it.
    pub(crate) fn matches(&self, lower: &str) -> bool {
        let members = [&self.id, &self.r#type, &self.key, &self.user_agent, &self.reason, &self.detail, &self.path];
        let texts = members.into_iter().flatten().chain([&self.text, &self.file]);
        lower.is_empty() || texts.into_iter().any(|text| text.to_lowercase().contains(lower))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use bzip2::Compression;
    use bzip2::write::BzEncoder;
    use rstest::rstest;

    fn source(kind: Kind) -> Source {
        let key_fields = vec!["session_id".into(), "sid".into()];
        Source { kind, file: "events/x.jsonl.bz2".into(), key_fields, is_raw: false }
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn lines(kind: Kind, text: &str) -> Lines {
        read(&source(kind), packed(text), true)
    }

    #[test]
    fn an_event_is_shown_as_it_came() {
        let text = concat!(
            r#"{"v":1,"id":"a","received_at":"2026-11-21T09:32:08.006Z","request_id":"r","client":{"user_agent":"x"},"#,
            r#""event":{"type":"play", "sid":7,"n":1.50}}"#,
            "\n"
        );
        let line = lines(Kind::Event, text).lines.remove(0);
        assert_eq!(line.text, r#"{"type":"play", "sid":7,"n":1.50}"#);
        assert_eq!((line.r#type.as_deref(), line.key.as_deref(), line.line), (Some("play"), Some("7"), 1));
        assert_eq!((line.user_agent.as_deref(), line.is_cut, line.is_binary), (Some("x"), false, false));
    }

    #[rstest]
    #[case::type_first(r#"{"e":"ps","event":"viewstart","type":"play"}"#, Some("play"))]
    #[case::event_before_e(r#"{"e":"hb","event":"viewstart"}"#, Some("viewstart"))]
    #[case::e(r#"{"e":"ps","sid":"s"}"#, Some("ps"))]
    #[case::a_type_that_is_no_text(r#"{"type":null,"event":{"e":"x"},"e":"ps"}"#, Some("ps"))]
    #[case::numbers(r#"{"event":1,"e":2}"#, None)]
    #[case::a_number_as_a_type(r#"{"type":3,"e":"ps"}"#, Some("3"))]
    #[case::none(r#"{"kind":"play"}"#, None)]
    fn an_event_has_the_type_that_its_player_gives_it(#[case] event: &str, #[case] expected: Option<&str>) {
        let line = lines(Kind::Event, &format!("{{\"v\":1,\"id\":\"a\",\"event\":{event}}}\n")).lines.remove(0);
        assert_eq!(line.r#type.as_deref(), expected);
    }

    #[rstest]
    #[case("eyBub3QgSlNPTg==", "{ not JSON", false)]
    #[case("/w==", "\u{fffd}", true)]
    #[case("no base64!", "no base64!", false)]
    fn rejected_input_is_decoded(#[case] body: &str, #[case] shown: &str, #[case] is_binary: bool) {
        let text = format!(r#"{{"v":1,"id":"a","rejected":{{"reason":"invalid_json","body_base64":"{body}"}}}}"#);
        let line = lines(Kind::Rejected, &format!("{text}\n")).lines.remove(0);
        assert_eq!((line.text.as_str(), line.is_binary), (shown, is_binary));
        assert_eq!(line.reason.as_deref(), Some("invalid_json"));
    }

    #[test]
    fn raw_lines_and_lines_that_are_no_json_are_shown_whole() {
        let found = lines(Kind::Event, "{\"type\":\"play\",\"session_id\":\"s\"}\nnonsense\n").lines;
        assert_eq!((found[0].text.as_str(), found[0].line), ("nonsense", 2));
        assert_eq!((found[1].key.as_deref(), found[1].r#type.as_deref()), (Some("s"), Some("play")));
    }

    #[rstest]
    #[case::raw(true, r#"{"v":1,"event":"play","session_id":"s","id":"i"}"#)]
    #[case::of_another_producer(false, r#"{"event":"play","session_id":"s","id":"i"}"#)]
    #[case::that_says_it_was_rejected(
        true,
        r#"{"session_id":"s","event":{},"rejected":{"reason":"r","body_base64":"aGVsbG8="}}"#
    )]
    fn what_is_no_envelope_is_shown_whole(#[case] is_raw: bool, #[case] text: &str) {
        let source = Source { is_raw, ..source(Kind::Event) };
        let line = read(&source, packed(&format!("{text}\n")), true).lines.remove(0);
        assert_eq!((line.text.as_str(), line.key.as_deref(), line.reason), (text, Some("s"), None));
        assert_eq!(line.id, None);
    }

    #[test]
    fn an_accepted_event_is_never_shown_as_rejected() {
        let text = r#"{"v":1,"id":"a","event":{"n":1},"rejected":{"reason":"r","body_base64":"aGVsbG8="}}"#;
        let line = lines(Kind::Event, &format!("{text}\n")).lines.remove(0);
        assert_eq!((line.text.as_str(), line.reason), (r#"{"n":1}"#, None));
    }

    #[rstest]
    #[case::at_the_bound(200, 200, 1, false)]
    #[case::one_past_it(201, 200, 2, true)]
    fn the_last_lines_are_kept(#[case] written: usize, #[case] kept: usize, #[case] first: u64, #[case] is_cut: bool) {
        let found = lines(Kind::Event, &"{}\n".repeat(written));
        assert_eq!((found.lines.len(), found.lines.last().unwrap().line, found.is_cut), (kept, first, is_cut));
    }

    #[rstest]
    #[case::at_the_bound(MAX_SHOWN_BYTES, false)]
    #[case::one_past_it(MAX_SHOWN_BYTES + 1, true)]
    fn a_long_text_is_cut(#[case] bytes: usize, #[case] is_cut: bool) {
        let found = lines(Kind::Event, &format!("{}\n", "x".repeat(bytes)));
        assert_eq!((found.lines[0].text.len(), found.lines[0].is_cut), (MAX_SHOWN_BYTES, is_cut));
    }

    #[test]
    fn long_lines_leave_room_for_others() {
        let found = lines(Kind::Event, &format!("{}\n", "é".repeat(MAX_SHOWN_BYTES)).repeat(40));
        assert_eq!((found.lines.len(), found.is_cut), (MAX_KEPT_BYTES / MAX_SHOWN_BYTES, true));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let found = lines(Kind::Event, &" ".repeat(usize::try_from(MAX_TEXT_BYTES).unwrap() + 10));
        assert_eq!((found.lines.len(), found.is_cut), (0, true));
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_read_as_far_as_it_goes() {
        let whole = packed(&"{\"n\":1}\n".repeat(100));
        assert!(read(&source(Kind::Event), whole[..whole.len() / 2].to_vec(), false).is_cut);
        assert!(read(&source(Kind::Event), b"BZh9 nothing".to_vec(), true).is_cut);
        assert!(read(&source(Kind::Event), Vec::new(), true).lines.is_empty());
    }

    #[test]
    fn a_search_ignores_case_and_looks_at_all_that_is_shown() {
        let line = lines(Kind::Event, "{\"Type\":\"PLAY\"}\n").lines.remove(0);
        for (text, expected) in [("play", true), ("", true), ("events/x", true), ("pause", false)] {
            assert_eq!(line.matches(text), expected, "{text}");
        }
    }
}
