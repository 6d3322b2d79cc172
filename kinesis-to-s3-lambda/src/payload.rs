//! The lines of one record, whoever wrote it: ours, another producer's JSON or aggregate, or anything else.

use bytes::Bytes;
use shared::frame::{FrameReader, is_frame};
use shared::json::as_line;
use shared::line::{Client, Envelope, IdLiteral, Kind, LineHead, Rejected};
use shared::object::receipt;
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;
use shared::trust::Trust;

use crate::kpl::{deaggregate, is_aggregate};
use crate::lines::{Lines, Receipt};
use crate::multiline::holds_a_value_over_lines;

/// What became of one payload: every byte but blank lines is in one of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    pub events: Lines,
    pub rejected_lines: Lines,
    /// The kind of its first line.
    first: Option<Kind>,
    /// How many rejected lines were made of it here, and how many may be.
    rejected: usize,
    max_rejected: usize,
    /// Bad lines beyond those, with a line feed each. They share one rejected line in the end.
    surplus: Vec<u8>,
}

impl Payload {
    fn with_at_most(max_rejected: usize) -> Self {
        Self { max_rejected, ..Self::default() }
    }

    fn push(&mut self, line: &[u8], head: LineHead, receipt: Receipt) {
        self.first.get_or_insert(head.kind);
        self.lines_mut(head.kind).push(line, head, receipt);
    }

    fn lines_mut(&mut self, kind: Kind) -> &mut Lines {
        match kind {
            Kind::Event => &mut self.events,
            Kind::Rejected => &mut self.rejected_lines,
        }
    }

    /// Adds what became of the next payload of the same record.
    fn append(&mut self, next: &Self) {
        self.first = self.first.or(next.first);
        self.events.append(&next.events);
        self.rejected_lines.append(&next.rejected_lines);
        self.rejected += next.rejected;
        self.surplus.extend_from_slice(&next.surplus);
    }

    /// The kinds of lines that there are, that of the first line first.
    pub fn into_kinds(self) -> impl Iterator<Item = (Kind, Lines)> {
        let mut kinds = [(Kind::Event, self.events), (Kind::Rejected, self.rejected_lines)];
        if self.first == Some(Kind::Rejected) {
            kinds.reverse();
        }
        kinds.into_iter().filter(|(_, lines)| lines.counts.lines > 0)
    }
}

/// Lines of one record that are rejected one by one at most; further ones share a rejected line.
pub const MAX_REJECTED_LINES: usize = 100;

/// How many lines of a record of so many bytes are rejected one by one: two, or one in 128 bytes. A bad line of two bytes costs
/// some 600 in memory, and a batch can hold 10,000 records that are full of them.
fn max_rejected_lines(record_bytes: usize) -> usize {
    (record_bytes / 128).clamp(2, MAX_REJECTED_LINES)
}

/// A UTF-8 byte order mark. It is no part of what it stands before.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What the lines of one payload have in common.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub arrival: UnixMillis,
    /// Identifies the payload, and is the same each time it is sent; rejected lines are named after it.
    pub name: &'a str,
    pub trust: Trust,
}

/// Takes a record's data apart: one payload, a zstd frame of one ([`shared::frame`]), or an aggregate of payloads, each judged by
/// itself.
///
/// Of the payload,
///
/// - JSON objects, one a line, pass as they are. Beside at least one of them, bad lines are rejected one by one up to
///   [`max_rejected_lines`]; what is bad beyond that shares one more rejected line, and costs no good line.
/// - One JSON object over several lines passes, folded into one.
/// - In both, surrogate escapes without a partner are replaced, as ingest does.
/// - All else is rejected whole: a text without an object in it, and a value over several lines that is damaged or has lines
///   beside it, since a line of it would be a piece of something. So are frames that can't be read, and frames anywhere but in a
///   record of their own, whose bytes may look like lines.
#[must_use]
pub fn read_record(data: &Bytes, source: &Source<'_>) -> Payload {
    let max_rejected = max_rejected_lines(data.len());
    let mut read = match deaggregate(data) {
        None if is_frame(data) => read_frame(data, source, max_rejected),
        None => read_payload(data, source, max_rejected),
        Some(user_records) => {
            // Ingest aggregates nothing, so no aggregate has a key of ours.
            let source = Source { trust: source.trust.of_other_producers(), ..*source };
            read_user_records(user_records, &source, max_rejected)
        }
    };
    source.reject_surplus(&mut read);
    read
}

fn read_user_records(user_records: impl Iterator<Item = Bytes>, record: &Source<'_>, max_rejected: usize) -> Payload {
    let mut read = Payload::with_at_most(max_rejected);
    for (number, data) in user_records.enumerate() {
        let name = format!("{}/{number}", record.name);
        let left = max_rejected - read.rejected;
        read.append(&read_payload(&data, &Source { name: &name, ..*record }, left));
    }
    read
}

const NO_OBJECT: &str = "the record holds no JSON object, or a damaged one over several lines";

fn read_payload(payload: &[u8], source: &Source<'_>, max_rejected: usize) -> Payload {
    let read = read_lines(payload, source, max_rejected);
    read.unwrap_or_else(|| source.reject_whole(payload, max_rejected, NO_OBJECT))
}

/// A frame whose lines can't be read is kept as it came.
fn read_frame(frame: &[u8], source: &Source<'_>, max_rejected: usize) -> Payload {
    match FrameReader::default().lines(frame) {
        Ok(lines) => {
            let read = read_lines(&lines, source, max_rejected);
            read.unwrap_or_else(|| source.reject_whole(frame, max_rejected, NO_OBJECT))
        }
        Err(error) => source.reject_whole(frame, max_rejected, &error.to_string()),
    }
}

/// `None` when the payload is to be rejected whole.
fn read_lines(payload: &[u8], source: &Source<'_>, max_rejected: usize) -> Option<Payload> {
    let payload = payload.strip_prefix(BYTE_ORDER_MARK).unwrap_or(payload);
    if is_frame(payload) || is_aggregate(payload) {
        return None;
    }
    let mut read = Payload::with_at_most(max_rejected);
    let (mut has_object, mut has_bad_line) = (false, false);
    for line in payload.split(|byte| *byte == b'\n') {
        let text = without_mark(line);
        if text.is_empty() {
            continue;
        }
        match source.read(text) {
            Ok((head, text)) => {
                has_object = true;
                source.land(&mut read, head, text);
            }
            Err(problem) => {
                if !has_bad_line {
                    has_bad_line = true;
                    if !has_object && let Some(object) = one_object(payload, source) {
                        return Some(object);
                    }
                    if holds_a_value_over_lines(texts(payload)) {
                        return None;
                    }
                }
                source.reject(&mut read, line.trim_ascii(), &problem);
            }
        }
    }
    has_object.then_some(read)
}

/// A line without the white space around it and the byte order marks before it.
fn without_mark(line: &[u8]) -> &[u8] {
    let mut line = line.trim_ascii();
    while let Some(unmarked) = line.strip_prefix(BYTE_ORDER_MARK) {
        line = unmarked.trim_ascii();
    }
    line
}

fn one_object(payload: &[u8], source: &Source<'_>) -> Option<Payload> {
    let (head, text) = source.read(without_mark(payload)).ok()?;
    let mut object = Payload::default();
    source.land(&mut object, head, text);
    Some(object)
}

/// The lines that hold more than white space, without what stands around their text.
fn texts(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    payload.split(|byte| *byte == b'\n').map(without_mark).filter(|text| !text.is_empty())
}

impl Source<'_> {
    /// A line's head with its text, or what is wrong with it.
    fn read<'t>(&self, line: &'t [u8]) -> Result<(LineHead, &'t str), String> {
        let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))?;
        let head = self.trust.read_head(text).map_err(|error| error.to_string())?;
        Ok((head, text))
    }

    /// Adds an object, on one line and with its lone surrogates replaced.
    fn land(&self, payload: &mut Payload, head: LineHead, object: &str) {
        let (line, replaced_surrogates) = as_line(object);
        payload.push(line.as_bytes(), head, self.receipt(head));
        payload.lines_mut(head.kind).counts.replaced_surrogates += replaced_surrogates;
    }

    /// Keeps a bad line in a rejected one of its own, while there may be more of those.
    fn reject(&self, payload: &mut Payload, bad_line: &[u8], detail: &str) {
        if payload.rejected < payload.max_rejected {
            self.push_rejected(payload, bad_line, detail);
        } else {
            payload.surplus.extend_from_slice(bad_line);
            payload.surplus.push(b'\n');
        }
    }

    fn reject_whole(&self, payload: &[u8], max_rejected: usize, detail: &str) -> Payload {
        let mut whole = Payload::with_at_most(max_rejected);
        self.reject(&mut whole, payload, detail);
        whole
    }

    fn reject_surplus(&self, payload: &mut Payload) {
        let mut surplus = std::mem::take(&mut payload.surplus);
        // The last line feed separates nothing.
        if surplus.pop().is_some() {
            let detail =
                format!("more than {} lines of the record are no JSON objects; these are the others", payload.rejected);
            self.push_rejected(payload, &surplus, &detail);
        }
    }

    /// Adds a line that keeps `body`. Nothing in it differs when the same record is sent again.
    fn push_rejected(&self, payload: &mut Payload, body: &[u8], detail: &str) {
        let id = serde_json::Value::from(format!("{}/{}", self.name, payload.rejected)).to_string();
        let rejection = Rejection::new(Reason::ForeignRecord, detail);
        let rejected = Rejected { rejection: &rejection, content_type: None, content_encoding: None, part: None, body };
        let mut line = Vec::new();
        let envelope = Envelope::new(self.arrival, self.name, &Client::default());
        envelope.write_rejected(&mut line, IdLiteral::new(&id), &rejected);
        let reason = Some(Reason::ForeignRecord);
        let head = LineHead { kind: Kind::Rejected, received_at: Some(self.arrival), reason };
        payload.push(&line, head, self.receipt(head));
        payload.rejected += 1;
    }

    fn receipt(&self, head: LineHead) -> Receipt {
        let received_at = receipt(head.received_at, self.arrival);
        Receipt { received_at, arrived_in: self.arrival.hour() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use generators::json::json_object;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::Value;
    use shared::json::{fold_line_breaks, replace_lone_surrogates};
    use shared::object::ReceivedIn;

    const ARRIVAL: UnixMillis = UnixMillis(1_795_253_528_006);

    fn read(payload: &[u8], trust: Trust) -> Payload {
        let source = Source { arrival: ARRIVAL, name: "shard:1", trust };
        let mut read = read_payload(payload, &source, MAX_REJECTED_LINES);
        source.reject_surplus(&mut read);
        read
    }

    fn read_ours(payload: &[u8]) -> Payload {
        read(payload, Trust::Members)
    }

    /// The lines as (kind, text), rejected ones as what they keep and behind the events.
    fn lines_of(payload: &[u8]) -> Vec<(Kind, String)> {
        let mut lines = Vec::new();
        let Payload { events, rejected_lines, .. } = read_ours(payload);
        for (kind, Lines { text, counts }) in [(Kind::Event, events), (Kind::Rejected, rejected_lines)] {
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.lines().count() as u64, counts.lines);
            for line in text.lines() {
                let value: Value = serde_json::from_str(line).unwrap_or_default();
                let kept = value["rejected"]["body_base64"].as_str();
                let kept = kept.map(|kept| base64_simd::STANDARD.decode_to_vec(kept).unwrap());
                let text = kept.map_or_else(|| line.to_owned(), |kept| String::from_utf8_lossy(&kept).into_owned());
                lines.push((kind, text));
            }
        }
        lines
    }

    #[rstest]
    #[case::lines(b"{\"a\":1}\n{\"b\":2}\n", &[(Kind::Event, "{\"a\":1}"), (Kind::Event, "{\"b\":2}")])]
    #[case::no_line_feed(b"{\"a\":1}", &[(Kind::Event, "{\"a\":1}")])]
    #[case::windows(b"{\"a\":1}\r\n{\"b\":2}\r\n", &[(Kind::Event, "{\"a\":1}"), (Kind::Event, "{\"b\":2}")])]
    #[case::pretty(b"{\n \"a\": 1\n}\n", &[(Kind::Event, "{  \"a\": 1 }")])]
    #[case::bad_beside_good(b"{\"a\":1}\nx\n{\"b\":2}", &[(Kind::Event, "{\"a\":1}"), (Kind::Rejected, "x"), (Kind::Event, "{\"b\":2}")])]
    #[case::pretty_with_objects_in_it(b"{\n\"i\": [\n{\"a\": 1},\n{\"b\": 2}\n]\n}", &[(Kind::Event, "{ \"i\": [ {\"a\": 1}, {\"b\": 2} ] }")])]
    #[case::bad_first_line(b"x\n{}\n", &[(Kind::Rejected, "x"), (Kind::Event, "{}")])]
    #[case::cut_off_first_line(b"{\"a\":1,\"b\":[\n{\"c\":1}\n{\"d\":1}\n", &[(Kind::Rejected, "{\"a\":1,\"b\":["), (Kind::Event, "{\"c\":1}"), (Kind::Event, "{\"d\":1}")])]
    #[case::brackets_alone(b"{\n{\"a\":1}\n}\n", &[(Kind::Rejected, "{\n{\"a\":1}\n}\n")])]
    #[case::bracket_alone(b"{\"a\":1}\n{\n{\"b\":1}\n", &[(Kind::Event, "{\"a\":1}"), (Kind::Rejected, "{"), (Kind::Event, "{\"b\":1}")])]
    #[case::bad_token(b"{\"n\":NaN}\n{\"n\":2}", &[(Kind::Rejected, "{\"n\":NaN}"), (Kind::Event, "{\"n\":2}")])]
    #[case::tab_in_a_string(b"{\"n\":1}\n{\"n\":\"\t\"}\n{\"n\":3}", &[(Kind::Event, "{\"n\":1}"), (Kind::Rejected, "{\"n\":\"\t\"}"), (Kind::Event, "{\"n\":3}")])]
    #[case::no_text_in_a_line(b"{\"n\":1}\n{\"n\":\"\xff\"}\n{\"n\":3}", &[(Kind::Event, "{\"n\":1}"), (Kind::Rejected, "{\"n\":\"\u{fffd}\"}"), (Kind::Event, "{\"n\":3}")])]
    #[case::mark_at_the_start(b"\xef\xbb\xbf{\"a\":1}\n{\"b\":2}\n", &[(Kind::Event, "{\"a\":1}"), (Kind::Event, "{\"b\":2}")])]
    #[case::mark_in_a_line(b"{\"a\":1}\n\xef\xbb\xbf {\"b\":2}\n\xef\xbb\xbf\n", &[(Kind::Event, "{\"a\":1}"), (Kind::Event, "{\"b\":2}")])]
    #[case::mark_before_pretty(b"\xef\xbb\xbf{\n\"a\": 1\n}\n", &[(Kind::Event, "{ \"a\": 1 }")])]
    #[case::mark_alone(b"\xef\xbb\xbf", &[(Kind::Rejected, "\u{feff}")])]
    #[case::pretty_and_damaged(b"{\n\"i\": [\n{\"a\": 1}\n],\n\"n\": NaN\n}", &[(Kind::Rejected, "{\n\"i\": [\n{\"a\": 1}\n],\n\"n\": NaN\n}")])]
    #[case::pretty_and_cut_off(b"{\n\"i\": [\n{\"a\": 1},\n{\"b\": 2}", &[(Kind::Rejected, "{\n\"i\": [\n{\"a\": 1},\n{\"b\": 2}")])]
    #[case::pretty_twice(b"{\n\"i\": [\n{\"a\": 1}\n]\n}\n{\n\"a\": 1\n}", &[(Kind::Rejected, "{\n\"i\": [\n{\"a\": 1}\n]\n}\n{\n\"a\": 1\n}")])]
    #[case::pretty_behind_a_line(b"{\"a\": 1}\n{\n\"b\": 1\n}", &[(Kind::Rejected, "{\"a\": 1}\n{\n\"b\": 1\n}")])]
    #[case::array_over_lines(b"[\n{\"a\": 1},\n{\"b\": 2}\n]", &[(Kind::Rejected, "[\n{\"a\": 1},\n{\"b\": 2}\n]")])]
    #[case::array_whose_first_line_has_a_member(b"[{\"a\":1},\n{\"b\":2}\n]", &[(Kind::Rejected, "[{\"a\":1},\n{\"b\":2}\n]")])]
    #[case::array_that_is_not_closed(b"[{\"a\":1},\n{\"b\":2}\n", &[(Kind::Rejected, "[{\"a\":1},\n{\"b\":2}\n")])]
    #[case::array_of_one_that_is_not_closed(b"[\n{\"a\":1}\n", &[(Kind::Rejected, "[\n{\"a\":1}\n")])]
    #[case::bad_token_behind_an_inner_list(b"{\"id\":1,\"items\":[{\"a\":1},\n{\"b\":2}\n],\"n\":NaN}", &[(Kind::Rejected, "{\"id\":1,\"items\":[{\"a\":1},\n{\"b\":2}\n],\"n\":NaN}")])]
    #[case::inner_list_that_is_not_closed(b"{\"id\":1,\"items\":[{\"a\":1},\n{\"b\":2}", &[(Kind::Rejected, "{\"id\":1,\"items\":[{\"a\":1},\n{\"b\":2}")])]
    #[case::comma_missing(b"[{\"a\":1}\n{\"b\":2}\n]", &[(Kind::Rejected, "[{\"a\":1}\n{\"b\":2}\n]")])]
    #[case::commas_in_front(b"{\"i\":[\n{\"a\":1}\n,{\"b\":2}\n,{\"c\":NaN}", &[(Kind::Rejected, "{\"i\":[\n{\"a\":1}\n,{\"b\":2}\n,{\"c\":NaN}")])]
    #[case::value_a_line(b"{\"id\":1,\n\"item\":\n{\"a\":1}\n", &[(Kind::Rejected, "{\"id\":1,\n\"item\":\n{\"a\":1}\n")])]
    #[case::brackets_in_strings(b"{\"t\":\"[\",\"n\":NaN}\n{\"a\":1}\n{\"t\":\"]\"}x", &[(Kind::Rejected, "{\"t\":\"[\",\"n\":NaN}"), (Kind::Event, "{\"a\":1}"), (Kind::Rejected, "{\"t\":\"]\"}x")])]
    #[case::cut_off_behind_a_colon(b"{\"a\":\n{\"b\":1}\n", &[(Kind::Rejected, "{\"a\":"), (Kind::Event, "{\"b\":1}")])]
    #[case::cut_off_in_a_string(b"{\"a\":[{\"b\":\"x},\n{\"c\":1}\n", &[(Kind::Rejected, "{\"a\":[{\"b\":\"x},"), (Kind::Event, "{\"c\":1}")])]
    #[case::text(b"hello\nworld\n", &[(Kind::Rejected, "hello\nworld\n")])]
    #[case::array(b"[{}]", &[(Kind::Rejected, "[{}]")])]
    #[case::nothing(b"", &[(Kind::Rejected, "")])]
    #[case::blank_lines(b"\n\n{}\n\n", &[(Kind::Event, "{}")])]
    fn payloads_of_all_kinds(#[case] payload: &[u8], #[case] expected: &[(Kind, &str)]) {
        let mut expected: Vec<_> = expected.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect();
        expected.sort_by_key(|(kind, _)| *kind);
        assert_eq!(lines_of(payload), expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_whole() {
        let Payload { events, rejected_lines, .. } = read_ours(b"\xff\n\xfe{}");
        let line: Value = serde_json::from_slice(&rejected_lines.text).unwrap();
        assert_eq!((events.counts.lines, rejected_lines.counts.lines), (0, 1));
        assert_eq!(line["rejected"]["reason"], "foreign_record");
        assert_eq!(line["id"], "shard:1/0");
        let kept = base64_simd::STANDARD.decode_to_vec(line["rejected"]["body_base64"].as_str().unwrap()).unwrap();
        assert_eq!(kept, b"\xff\n\xfe{}");
    }

    #[test]
    fn bad_lines_past_the_bound_share_a_line_and_cost_no_good_one() {
        assert_eq!([0, 256, 383, 12_799, 12_800, usize::MAX].map(max_rejected_lines), [2, 2, 2, 99, 100, 100]);
        for surplus in [0, 1, 3] {
            let payload = format!("{{}}\n{}{{}}", "x\n".repeat(MAX_REJECTED_LINES + surplus));
            let lines = lines_of(payload.as_bytes());
            let shared = (surplus > 0).then(|| (Kind::Rejected, ["x"].repeat(surplus).join("\n")));
            assert_eq!(lines[..2], [(Kind::Event, "{}".to_owned()), (Kind::Event, "{}".to_owned())]);
            assert_eq!(lines.len(), 2 + MAX_REJECTED_LINES + shared.iter().count());
            assert!(shared.is_none_or(|shared| lines.last() == Some(&shared)));
        }
    }

    #[test]
    fn without_a_good_line_a_record_is_one_rejected_line_however_many_are_bad() {
        let payload = "x\n".repeat(MAX_REJECTED_LINES + 1);
        assert_eq!(lines_of(payload.as_bytes()), [(Kind::Rejected, payload)]);
    }

    const LINES: &[u8] = b"{\"a\":1}\n{\"b\":2}\n";

    fn frame(lines: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(lines, 1).unwrap()
    }

    fn read_data(data: &[u8]) -> Payload {
        let source = Source { arrival: ARRIVAL, name: "shard:1", trust: Trust::Members };
        read_record(&Bytes::copy_from_slice(data), &source)
    }

    #[rstest]
    #[case::by_another_producer(zstd::stream::encode_all(LINES, 19).unwrap())]
    #[case::as_ingest_writes_it(frame(LINES))]
    fn a_frame_lands_as_its_lines(#[case] data: Vec<u8>) {
        assert_eq!(read_data(&data), read_data(LINES));
    }

    #[test]
    fn bad_lines_in_a_frame_are_rejected_one_by_one() {
        let read = read_data(&frame(b"{}\nx\n{}"));
        assert_eq!((&read.events.text[..], bodies(&read.rejected_lines)), (&b"{}\n{}\n"[..], vec![b"x".to_vec()]));
    }

    /// In the compressed form of short lines each of them may stand as it is.
    #[rstest]
    #[case::cut_off(frame(LINES)[..20].to_vec())]
    #[case::with_a_line_behind_it([&frame(LINES)[..], b"\n{}\n"].concat())]
    #[case::twice(frame(LINES).repeat(2))]
    #[case::of_a_frame(frame(&frame(LINES)))]
    #[case::of_an_aggregate(frame(&aggregate(&[b"{}", b"\n{}\n"])))]
    #[case::of_no_lines(frame(b""))]
    #[case::of_no_object(frame(b"x\n[]\n"))]
    #[case::of_too_many_bytes(frame(&LINES.repeat(70_000)))]
    #[case::of_a_piece_of_a_value(frame(b"[\n{\"a\":1},\n{\"b\":2}\n"))]
    #[case::behind_a_byte_order_mark([BYTE_ORDER_MARK, &frame(LINES)].concat())]
    #[case::damaged_aggregate([&[0xF3, 0x89, 0x9A, 0xC2][..], LINES].concat())]
    fn a_frame_that_is_no_lines_is_rejected_whole(#[case] data: Vec<u8>) {
        let read = read_data(&data);
        assert_eq!((read.events.counts.lines, bodies(&read.rejected_lines)), (0, vec![data]));
    }

    #[test]
    fn a_frame_in_an_aggregate_is_rejected_and_costs_no_other_user_record() {
        let frame = frame(b"{}\n{\"a\":1}\n");
        assert!(frame.windows(8).any(|bytes| bytes == b"{\"a\":1}\n"), "its lines stand in it");
        let read = read_data(&aggregate(&[b"{}", &frame]));
        assert_eq!((&read.events.text[..], bodies(&read.rejected_lines)), (&b"{}\n"[..], vec![frame]));
    }

    #[test]
    fn lines_in_a_frame_are_believed_no_more_than_others() {
        let source = Source { arrival: ARRIVAL, name: "shard:1", trust: Trust::Nothing };
        assert_eq!(read_record(&frame(FORGED).into(), &source), read_record(&Bytes::from_static(FORGED), &source));
    }

    /// An aggregate of user records, each shorter than 128 bytes.
    fn aggregate(user_records: &[&[u8]]) -> Bytes {
        use md5::{Digest, Md5};
        let delimited = |bytes: &[u8]| [&[0x1a, u8::try_from(bytes.len()).unwrap()], bytes].concat();
        let message: Vec<u8> = user_records.iter().flat_map(|data| delimited(&delimited(data))).collect();
        [&[0xF3, 0x89, 0x9A, 0xC2][..], &message, &Md5::digest(&message)].concat().into()
    }

    fn bodies(lines: &Lines) -> Vec<Vec<u8>> {
        let kept = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            base64_simd::STANDARD.decode_to_vec(line["rejected"]["body_base64"].as_str().unwrap()).unwrap()
        };
        std::str::from_utf8(&lines.text).unwrap().lines().map(kept).collect()
    }

    #[rstest]
    #[case::one_too_many(3, 4)]
    #[case::many(10, 300)]
    #[case::more_than_ten_thousand(12_000, 12_000)]
    fn good_user_records_land_however_many_are_bad(#[case] good: usize, #[case] bad: usize) {
        let bad_data: Vec<String> = (0..bad).map(|number| format!("x{number}")).collect();
        let mut user_records: Vec<&[u8]> = bad_data.iter().map(String::as_bytes).collect();
        user_records.extend(std::iter::repeat_n(&b"{\"n\":1}"[..], good));
        let data = aggregate(&user_records);
        let source = Source { arrival: ARRIVAL, name: "shard:1", trust: Trust::Members };
        let read = read_record(&data, &source);
        assert_eq!(read.events.counts.lines as usize, good);
        let alone = max_rejected_lines(data.len()).min(bad);
        let bodies = bodies(&read.rejected_lines);
        assert_eq!(bodies.len(), alone + usize::from(bad > alone));
        assert_eq!(bodies.join(&b'\n'), bad_data.join("\n").into_bytes());
    }

    #[test]
    fn times_of_receipt_are_read_from_our_lines() {
        let client = Client::default();
        let mut payload = Vec::new();
        for millis in [5_000, 3_000, 9_000] {
            Envelope::new(UnixMillis(ARRIVAL.0 - millis), "r", &client).write_event(
                &mut payload,
                IdLiteral::new("\"i\""),
                "{}",
            );
        }
        let received_at = |payload| read_ours(payload).events.counts.received_at.unwrap();
        let expected = (UnixMillis(ARRIVAL.0 - 9_000), UnixMillis(ARRIVAL.0 - 3_000));
        assert_eq!(received_at(&payload), expected);
        assert_eq!(received_at(b"{}"), (ARRIVAL, ARRIVAL));
        let made_up = b"{\"v\":1,\"received_at\":\"0001-01-01T00:00:00.000Z\"}";
        assert_eq!(received_at(made_up), (ARRIVAL, ARRIVAL));
    }

    #[test]
    fn lines_are_counted_by_the_hour_of_their_receipt() {
        // 09:00:00.000 to 09:59:59.999, arrived at 09:32:08.006.
        let hour = ARRIVAL.hour();
        let times = [hour.start(), UnixMillis(hour.end().0 - 1), UnixMillis(hour.start().0 - 1), hour.end()];
        let mut payload = Vec::new();
        for time in times.into_iter().chain([hour.plus(-2).start(), hour.plus(2).end()]) {
            let envelope = Envelope::new(time, "r", &Client::default());
            envelope.write_event(&mut payload, IdLiteral::new("\"i\""), "{}");
        }
        payload.extend_from_slice(b"{}\nx\n");
        let Payload { events, rejected_lines, .. } = read_ours(&payload);
        assert_eq!(events.counts.received_in, ReceivedIn { previous: 1, this: 2, next: 1, elsewhere: 3 });
        assert_eq!(rejected_lines.counts.received_in, ReceivedIn { elsewhere: 1, ..ReceivedIn::default() });
        assert!(rejected_lines.counts.reasons.iter().eq([(Reason::ForeignRecord, 1)]));
        assert_eq!(events.counts.reasons.total(), 0);
    }

    #[test]
    fn lone_surrogates_are_replaced_and_counted() {
        let read = read_ours(b"{\"a\":\"\\ud83d\\ude00\"}\n{\"a\":\"\\ud83d\"}\n");
        assert_eq!(read.events.text, b"{\"a\":\"\\ud83d\\ude00\"}\n{\"a\":\"\\ufffd\"}\n");
        assert_eq!((read.events.counts.replaced_surrogates, read.rejected_lines.counts.replaced_surrogates), (1, 0));
    }

    const FORGED: &[u8] =
        b"{\"v\":1,\"received_at\":\"2026-11-21T09:40:00.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}\n\
        {\"v\":1,\"received_at\":\"2026-11-21T08:59:00.000Z\",\"id\":\"1\",\"event\":{}}\n";

    #[test]
    fn of_lines_that_a_client_wrote_nothing_is_believed() {
        let Payload { events, rejected_lines, .. } = read(FORGED, Trust::Nothing);
        assert_eq!((&events.text[..], events.counts.received_at), (FORGED, Some((ARRIVAL, ARRIVAL))));
        assert_eq!(events.counts.received_in, ReceivedIn { elsewhere: 2, ..ReceivedIn::default() });
        assert_eq!((events.counts.reasons.total(), rejected_lines), (0, Lines::default()));
    }

    #[test]
    fn of_raw_lines_under_a_key_of_ours_only_rejected_ones_are_believed() {
        let Payload { events, rejected_lines, .. } = read(FORGED, Trust::RejectedLines);
        assert_eq!(events.counts.received_at, Some((ARRIVAL, ARRIVAL)));
        assert_ne!(rejected_lines.counts.received_at.unwrap().0, ARRIVAL);
        assert_eq!(events.counts.received_in, ReceivedIn { elsewhere: 1, ..ReceivedIn::default() });
        assert_eq!(rejected_lines.counts.received_in, ReceivedIn { this: 1, ..ReceivedIn::default() });
    }

    proptest! {
        /// What is said of lines is what a look at each of them, as they landed, finds.
        #[test]
        fn the_counts_are_those_of_the_lines_that_land(
            lines in prop::collection::vec(prop_oneof![
                (-9_000_000i64..9_000_000, prop::sample::select(Reason::ALL.to_vec()), any::<bool>()).prop_map(|(millis, reason, event)| {
                    let envelope = Envelope::new(UnixMillis(ARRIVAL.0 + millis), "r", &Client::default());
                    let (mut line, rejection) = (Vec::new(), Rejection::new(reason, ""));
                    let rejected = Rejected { rejection: &rejection, content_type: None, content_encoding: None, part: None, body: b"" };
                    if event {
                        envelope.write_event(&mut line, IdLiteral::new("\"i\""), "{}");
                    } else {
                        envelope.write_rejected(&mut line, IdLiteral::new("\"i\""), &rejected);
                    }
                    String::from_utf8(line).expect("text").trim_end().to_owned()
                }),
                Just("{}".to_owned()), Just("x".to_owned()), Just("{\n}".to_owned()), Just(" {} ".to_owned()),
            ], 0..12), raw: bool,
        ) {
            let payload = Bytes::from(lines.join("\n"));
            let trust = if raw { Trust::Nothing } else { Trust::Members };
            let read = read_record(&payload, &Source { arrival: ARRIVAL, name: "shard:1", trust });
            for (kind, found) in [(Kind::Event, &read.events), (Kind::Rejected, &read.rejected_lines)] {
                let mut expected = Lines::default();
                for line in std::str::from_utf8(&found.text)?.lines() {
                    // What is rejected here is so whoever wrote the record.
                    let ours = line.contains("\"reason\":\"foreign_record\",\"detail\":\"not ") || line.contains(",\"detail\":\"more than ") || read.events == Lines::default();
                    let trust = if ours && kind == Kind::Rejected { Trust::Members } else { trust };
                    let head = trust.read_head(line)?;
                    prop_assert_eq!(head.kind, kind);
                    expected.push(line.as_bytes(), head, Source { arrival: ARRIVAL, name: "shard:1", trust }.receipt(head));
                }
                expected.counts.replaced_surrogates = found.counts.replaced_surrogates;
                prop_assert_eq!(found, &expected);
            }
        }

        #[test]
        fn any_bytes_without_an_object_are_kept_whole_and_alike_each_time(payload: Vec<u8>) {
            let read = read_ours(&payload);
            prop_assert_eq!(&read, &read_ours(&payload));
            if !payload.contains(&b'{') {
                prop_assert_eq!((read.events.counts.lines, read.rejected_lines.counts.lines), (0, 1));
                let line: Value = serde_json::from_slice(&read.rejected_lines.text)?;
                let kept = line["rejected"]["body_base64"].as_str().expect("a body");
                prop_assert_eq!(base64_simd::STANDARD.decode_to_vec(kept).expect("base64"), payload);
            }
        }

        #[test]
        fn no_line_is_skipped_whatever_stands_beside_it(
            lines in prop::collection::vec(prop_oneof![one_line_object(), "[ -~]{0,20}"], 1..20),
        ) {
            let found = lines_of(lines.join("\n").as_bytes());
            let is_object = |line: &str| Trust::Members.read_head(line).is_ok();
            let mut alone: Vec<&str> = lines.iter().map(|line| line.trim_ascii()).filter(|line| !line.is_empty()).collect();
            alone.sort_by_key(|line| !is_object(line));
            let expected: Vec<String> = alone.into_iter()
                .map(|line| if is_object(line) { replace_lone_surrogates(line).0.into_owned() } else { line.to_owned() })
                .collect();
            let one_by_one: Vec<String> = found.iter().map(|(_, text)| text.trim_ascii().to_owned()).collect();
            if one_by_one != expected {
                prop_assert_eq!(found, [(Kind::Rejected, lines.join("\n"))]);
                let has_object = expected.iter().any(|line| is_object(line));
                prop_assert!(!has_object || holds_a_value_over_lines(texts(lines.join("\n").as_bytes())));
            }
        }

        #[test]
        fn no_piece_of_a_damaged_value_over_lines_lands_as_an_event(payload in damaged_value_over_lines()) {
            prop_assert_eq!(lines_of(payload.as_bytes()), [(Kind::Rejected, payload)]);
        }

        #[test]
        fn one_bad_line_of_any_kind_costs_no_other(
            before in prop::collection::vec(one_line_object(), 0..3),
            bad in bad_line(),
            after in prop::collection::vec(one_line_object(), 2..4),
        ) {
            let good = [&before[..], &after[..]].concat();
            let lines = [before, vec![bad], after].concat().join("\n");
            let events = lines_of(lines.as_bytes()).into_iter().filter(|(kind, _)| *kind == Kind::Event);
            let expected: Vec<_> = good.iter().map(|line| replace_lone_surrogates(line).0.into_owned()).collect();
            prop_assert_eq!(events.map(|(_, text)| text).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn lone_surrogates_of_any_producer_are_replaced_and_counted(
            lines in prop::collection::vec(json_object(), 1..6), one_by_one: bool,
        ) {
            let lines: Vec<String> = if one_by_one { lines.iter().map(|line| fold_line_breaks(line).into_owned()).collect() } else { lines[..1].to_vec() };
            let payload = lines.join("\n");
            let Payload { events, rejected_lines, .. } = read_ours(payload.as_bytes());
            let landed = [events.text, rejected_lines.text].concat();
            let (expected, count) = replace_lone_surrogates(&payload);
            let expected = if one_by_one { expected.into_owned() } else { fold_line_breaks(&expected).into_owned() };
            prop_assert_eq!(std::str::from_utf8(&landed)?.trim_end(), expected.trim_ascii());
            prop_assert_eq!(events.counts.replaced_surrogates + rejected_lines.counts.replaced_surrogates, count);
        }
    }

    fn one_line_object() -> impl Strategy<Value = String> {
        json_object().prop_map(|json| fold_line_breaks(&json).into_owned())
    }

    /// An object that was cut off anywhere or holds what no JSON holds.
    fn bad_line() -> impl Strategy<Value = String> {
        let cut_off = (one_line_object(), any::<prop::sample::Index>()).prop_map(|(object, at)| {
            let end = object.floor_char_boundary(1 + at.index(object.len() - 1));
            object[..end].trim_ascii_end().to_owned()
        });
        let bad_token = prop::sample::select(vec!["NaN", "undefined", "'a'", "[1,]", "{\"a\"}", "\"a\tb\"", "[{},"])
            .prop_map(|token| format!("{{\"n\":{token}}}"));
        prop_oneof![cut_off, bad_token]
    }

    /// An array, or an object that holds one, whose members have lines of their own, damaged once.
    fn damaged_value_over_lines() -> impl Strategy<Value = String> {
        let member =
            prop::sample::select(vec!["{\"a\":1}", "{}", "{\"t\":\"],[\",\"b\":[{},{}]}", "{\"c\":\"\\\"}\"}"]);
        let around = prop::sample::select(vec![
            ("[", "]"),
            ("[\n", "\n]"),
            ("{\"id\":1,\"items\":[", "\n],\"n\":2}"),
            ("{\n\"items\": [\n", "\n]\n}\n"),
            ("{\"items\":\n[\n", "]}"),
        ]);
        let separator = prop::sample::select(vec![",\n", " ,\r\n", "\n,\n", "\n,"]);
        let damage = prop::sample::select(vec!["a bad token", "no comma", "two commas", "a bad bracket", "cut off"]);
        let members = prop::collection::vec(member, 3..6);
        (members, around, separator, damage, 1usize..3).prop_map(|(members, (head, tail), separator, damage, at)| {
            let mut members: Vec<String> = members.into_iter().map(str::to_owned).collect();
            match damage {
                "a bad token" => members[at] = "{\"n\":NaN}".into(),
                "two commas" => members[at].push(','),
                "a bad bracket" => members[at].push(']'),
                _ => {}
            }
            let list = members.join(separator);
            match damage {
                "no comma" => format!("{head}{}{tail}", list.replacen(separator, "\n", 1)),
                "cut off" => format!("{head}{list}"),
                _ => format!("{head}{list}{tail}"),
            }
        })
    }
}
