//! The lines of one record's payload, whoever wrote it: ours, another producer's JSON, or anything else.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use shared::json::as_line;
use shared::line::{Client, Envelope, IdLiteral, Kind, LineHead, Rejected};
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;
use shared::trust::Trust;

use crate::chunk::{Chunk, Lines};
use crate::multiline::holds_a_value_over_lines;
use crate::tally::Tally;

/// What became of one payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// In order: every byte but blank lines is in one of them.
    pub chunks: Vec<Chunk>,
    /// Their lines.
    pub tally: Tally,
    /// How many rejected lines were made of it here.
    pub rejected: usize,
}

impl Payload {
    fn of_line(head: LineHead, arrival: UnixMillis, chunk: Chunk, rejected: usize) -> Self {
        let mut tally = Tally::default();
        tally.count(head, arrival.hour());
        Self { chunks: vec![chunk], tally, rejected }
    }
}

/// Lines of one payload that may be rejected one by one at most. With more, it is no file of JSON lines and is rejected
/// whole.
pub const MAX_REJECTED_LINES: usize = 100;

/// How many lines of a payload of so many bytes may be rejected one by one: two, or one in 128 bytes. A bad line of two bytes costs
/// some 600 in memory, and a batch can hold 10,000 payloads that are full of them.
#[must_use]
pub fn max_rejected_lines(payload_bytes: usize) -> usize {
    (payload_bytes / 128).clamp(2, MAX_REJECTED_LINES)
}

/// How far our own time of receipt can lie from the arrival on the stream: retries and clocks that differ. A time farther
/// off was made up by whoever wrote the line.
const MAX_RECEIPT_DISTANCE_MILLIS: i64 = 3_600_000;

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

/// Takes a payload apart.
///
/// - JSON objects, one a line, pass as they are, without copying. Beside at least one of them, up to `max_rejected` bad
///   lines are rejected one by one.
/// - One JSON object over several lines passes, folded into one.
/// - In both, surrogate escapes without a partner are replaced, as ingest does.
/// - All else is rejected whole: a text without an object in it, too many bad lines, and a value over several lines that is
///   damaged or has lines beside it, since a line of it would be a piece of something.
#[must_use]
pub fn read_payload(payload: &Bytes, source: &Source<'_>, max_rejected: usize) -> Payload {
    let marked = payload.starts_with(BYTE_ORDER_MARK);
    let text = if marked { payload.slice(BYTE_ORDER_MARK.len()..) } else { payload.clone() };
    read_lines(&text, source, max_rejected).unwrap_or_else(|| {
        source.whole(payload, "the record holds no JSON object, a damaged one, or too many lines that are none")
    })
}

/// A payload kept whole as rejected, without a look into it.
#[must_use]
pub fn rejected_whole(payload: &[u8], source: &Source<'_>, detail: &str) -> Payload {
    source.whole(payload, detail)
}

/// `None` when the payload is to be rejected whole.
fn read_lines(payload: &Bytes, source: &Source<'_>, max_rejected: usize) -> Option<Payload> {
    let mut reader = Reader::new(payload, source);
    let mut start = 0;
    for line in payload.split_inclusive(|byte| *byte == b'\n') {
        let range = start..start + line.len();
        start = range.end;
        let text = without_mark(line);
        if text.is_empty() {
            continue;
        }
        match source.read(text) {
            Ok((head, text)) => reader.land(head, text, range),
            Err(problem) => {
                if reader.lines.is_empty()
                    && let Some(object) = one_object(payload, source)
                {
                    return Some(object);
                }
                if reader.rejected == max_rejected || reader.rejected == 0 && holds_a_value_over_lines(texts(payload)) {
                    return None;
                }
                reader.reject(line.trim_ascii(), &problem);
            }
        }
    }
    reader.finish()
}

/// What was read of a payload so far.
struct Reader<'a> {
    payload: &'a Bytes,
    source: &'a Source<'a>,
    lines: Lines<'a>,
    tally: Tally,
    has_object: bool,
    rejected: usize,
}

impl<'a> Reader<'a> {
    fn new(payload: &'a Bytes, source: &'a Source<'a>) -> Self {
        Self { payload, source, lines: Lines::new(payload), tally: Tally::default(), has_object: false, rejected: 0 }
    }

    /// `text` is the object in the line that stands at `range`.
    fn land(&mut self, head: LineHead, text: &str, range: Range<usize>) {
        self.has_object = true;
        self.tally.count(head, self.source.arrival.hour());
        let received_at = self.source.received_at(head);
        let (landing, replaced_surrogates) = as_line(text);
        self.tally.count_replaced_surrogates(head.kind, replaced_surrogates);
        let line = &self.payload[range.clone()];
        let stands_alone = line.strip_suffix(b"\n").unwrap_or(line).len() == text.len();
        match landing {
            Cow::Borrowed(_) if stands_alone => self.lines.slice(head.kind, received_at, range),
            landing => self.lines.copy(head.kind, received_at, landing.as_bytes()),
        }
    }

    fn reject(&mut self, line: &[u8], problem: &str) {
        self.tally.count(self.source.rejected_head(), self.source.arrival.hour());
        self.lines.whole(self.source.rejected(self.rejected, line, problem));
        self.rejected += 1;
    }

    /// `None` when there is no object among the lines.
    fn finish(self) -> Option<Payload> {
        let Self { lines, tally, rejected, .. } = self;
        self.has_object.then(|| Payload { chunks: lines.finish(), tally, rejected })
    }
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
    let (line, replaced_surrogates) = as_line(text);
    let chunk = Chunk::of_line(head.kind, source.received_at(head), line.into_owned().into());
    let mut payload = Payload::of_line(head, source.arrival, chunk, 0);
    payload.tally.count_replaced_surrogates(head.kind, replaced_surrogates);
    Some(payload)
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

    fn received_at(&self, head: LineHead) -> UnixMillis {
        let near = |time: &UnixMillis| time.0.abs_diff(self.arrival.0) <= MAX_RECEIPT_DISTANCE_MILLIS.unsigned_abs();
        head.received_at.filter(near).unwrap_or(self.arrival)
    }

    /// What there is to see of the lines that are rejected here.
    fn rejected_head(&self) -> LineHead {
        LineHead { kind: Kind::Rejected, received_at: Some(self.arrival), reason: Some(Reason::ForeignRecord) }
    }

    /// A payload that is kept in one line.
    fn whole(&self, payload: &[u8], detail: &str) -> Payload {
        Payload::of_line(self.rejected_head(), self.arrival, self.rejected(0, payload, detail), 1)
    }

    /// A line that keeps `body`. Nothing in it differs when the same record is sent again.
    fn rejected(&self, number: usize, body: &[u8], detail: &str) -> Chunk {
        let id = serde_json::Value::from(format!("{}/{number}", self.name)).to_string();
        let rejection = Rejection::new(Reason::ForeignRecord, detail);
        let rejected = Rejected { rejection: &rejection, content_type: None, content_encoding: None, part: None, body };
        let mut line = Vec::new();
        Envelope::new(self.arrival, self.name, &Client::default()).write_rejected(
            &mut line,
            IdLiteral::new(&id),
            &rejected,
        );
        Chunk::of_line(Kind::Rejected, self.arrival, line.into())
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
        read_payload(&Bytes::copy_from_slice(payload), &source, MAX_REJECTED_LINES)
    }

    fn chunks_of(payload: &[u8]) -> Vec<Chunk> {
        read(payload, Trust::Members).chunks
    }

    /// The lines as (kind, text), rejected ones as what they keep.
    fn lines_of(payload: &[u8]) -> Vec<(Kind, String)> {
        let mut lines = Vec::new();
        for chunk in chunks_of(payload) {
            let text = String::from_utf8(chunk.bytes.to_vec()).unwrap();
            assert_eq!(text.lines().count() as u64, chunk.lines);
            for line in text.lines() {
                let value: Value = serde_json::from_str(line).unwrap_or_default();
                let kept = value["rejected"]["body_base64"].as_str();
                let kept = kept.map(|kept| base64_simd::STANDARD.decode_to_vec(kept).unwrap());
                let text = kept.map_or_else(|| line.to_owned(), |kept| String::from_utf8_lossy(&kept).into_owned());
                lines.push((chunk.kind, text));
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
        let expected: Vec<_> = expected.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect();
        assert_eq!(lines_of(payload), expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_whole() {
        let chunks = chunks_of(b"\xff\n\xfe{}");
        let line: Value = serde_json::from_slice(&chunks[0].bytes).unwrap();
        assert_eq!(chunks.len(), 1);
        assert_eq!(line["rejected"]["reason"], "foreign_record");
        assert_eq!(line["id"], "shard:1/0");
        let kept = base64_simd::STANDARD.decode_to_vec(line["rejected"]["body_base64"].as_str().unwrap()).unwrap();
        assert_eq!(kept, b"\xff\n\xfe{}");
    }

    #[test]
    fn lines_of_one_record_are_one_slice_of_it() {
        let payload = Bytes::from("{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n");
        let source = Source { arrival: ARRIVAL, name: "n", trust: Trust::Members };
        let chunks = read_payload(&payload, &source, MAX_REJECTED_LINES).chunks;
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].lines, 3);
        assert_eq!(chunks[0].bytes.as_ptr(), payload.as_ptr());
    }

    #[test]
    fn the_number_of_bad_lines_stands_on_the_bound_and_one_past_it() {
        let payload = |bad: usize| format!("{{}}\n{}", "x\n".repeat(bad));
        assert_eq!([0, 256, 383, 12_799, 12_800, usize::MAX].map(max_rejected_lines), [2, 2, 2, 99, 100, 100]);
        assert_eq!(chunks_of(payload(MAX_REJECTED_LINES).as_bytes()).len(), MAX_REJECTED_LINES + 1);
        let whole = lines_of(payload(MAX_REJECTED_LINES + 1).as_bytes());
        assert_eq!(whole, [(Kind::Rejected, payload(MAX_REJECTED_LINES + 1))]);
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
        let chunk = &chunks_of(&payload)[0];
        let expected = (UnixMillis(ARRIVAL.0 - 9_000), UnixMillis(ARRIVAL.0 - 3_000));
        assert_eq!((chunk.earliest_received_at, chunk.latest_received_at), expected);
        assert_eq!(chunks_of(b"{}")[0].earliest_received_at, ARRIVAL);
        let made_up = b"{\"v\":1,\"received_at\":\"0001-01-01T00:00:00.000Z\"}";
        assert_eq!(chunks_of(made_up)[0].earliest_received_at, ARRIVAL);
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
        let tally = read(&payload, Trust::Members).tally;
        assert_eq!(tally.received_in(Kind::Event), ReceivedIn { previous: 1, this: 2, next: 1, elsewhere: 3 });
        assert_eq!(tally.received_in(Kind::Rejected), ReceivedIn { elsewhere: 1, ..ReceivedIn::default() });
        assert!(tally.reasons(Kind::Rejected).iter().eq([(Reason::ForeignRecord, 1)]));
        assert_eq!(tally.reasons(Kind::Event).total(), 0);
    }

    #[test]
    fn only_lines_with_lone_surrogates_are_copied() {
        let payload = Bytes::from("{\"a\":\"\\ud83d\\ude00\"}\n{\"a\":\"\\ud83d\"}\n");
        let source = Source { arrival: ARRIVAL, name: "n", trust: Trust::Members };
        let read = read_payload(&payload, &source, MAX_REJECTED_LINES);
        let landed: Vec<_> = read.chunks.iter().map(|chunk| &chunk.bytes[..]).collect();
        assert_eq!(landed, [&payload[..21], b"{\"a\":\"\\ufffd\"}\n"]);
        assert_eq!(read.chunks[0].bytes.as_ptr(), payload.as_ptr());
        assert_eq!(
            (read.tally.replaced_surrogates(Kind::Event), read.tally.replaced_surrogates(Kind::Rejected)),
            (1, 0)
        );
    }

    const FORGED: &[u8] =
        b"{\"v\":1,\"received_at\":\"2026-11-21T09:40:00.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}\n\
        {\"v\":1,\"received_at\":\"2026-11-21T08:59:00.000Z\",\"id\":\"1\",\"event\":{}}\n";

    #[test]
    fn of_lines_that_a_client_wrote_nothing_is_believed() {
        let Payload { chunks, tally, rejected } = read(FORGED, Trust::Nothing);
        assert_eq!(chunks, [Chunk { lines: 2, ..Chunk::of_line(Kind::Event, ARRIVAL, FORGED.into()) }]);
        assert_eq!(tally.received_in(Kind::Event), ReceivedIn { elsewhere: 2, ..ReceivedIn::default() });
        assert_eq!((tally.reasons(Kind::Rejected).total(), rejected), (0, 0));
    }

    #[test]
    fn of_raw_lines_under_a_key_of_ours_only_rejected_ones_are_believed() {
        let Payload { chunks, tally, .. } = read(FORGED, Trust::RejectedLines);
        let kinds: Vec<_> = chunks.iter().map(|chunk| (chunk.kind, chunk.earliest_received_at == ARRIVAL)).collect();
        assert_eq!(kinds, [(Kind::Rejected, false), (Kind::Event, true)]);
        assert_eq!(tally.received_in(Kind::Event), ReceivedIn { elsewhere: 1, ..ReceivedIn::default() });
        assert_eq!(tally.received_in(Kind::Rejected), ReceivedIn { this: 1, ..ReceivedIn::default() });
    }

    proptest! {
        /// What is said of lines is what a look at each of them, as they landed, finds.
        #[test]
        fn the_tally_is_that_of_the_lines_that_land(
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
            let read = read_payload(&payload, &Source { arrival: ARRIVAL, name: "shard:1", trust }, 4);
            let mut expected = Tally::default();
            for chunk in &read.chunks {
                for line in std::str::from_utf8(&chunk.bytes)?.lines() {
                    // What is rejected here is so whoever wrote the record.
                    let ours = line.contains("\"reason\":\"foreign_record\",\"detail\":\"not ") || read.chunks.len() == 1;
                    let trust = if ours && chunk.kind == Kind::Rejected { Trust::Members } else { trust };
                    let head = trust.read_head(line)?;
                    prop_assert_eq!(head.kind, chunk.kind);
                    expected.count(head, ARRIVAL.hour());
                }
            }
            prop_assert_eq!(read.tally, expected);
        }

        #[test]
        fn any_bytes_without_an_object_are_kept_whole_and_alike_each_time(payload: Vec<u8>) {
            let chunks = chunks_of(&payload);
            prop_assert_eq!(&chunks, &chunks_of(&payload));
            if !payload.contains(&b'{') {
                prop_assert_eq!(chunks.len(), 1);
                let line: Value = serde_json::from_slice(&chunks[0].bytes)?;
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
            let lines_by_themselves = lines.iter().map(|line| line.trim_ascii()).filter(|line| !line.is_empty());
            let expected: Vec<String> = lines_by_themselves
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
            let read = read(payload.as_bytes(), Trust::Members);
            let landed: Vec<u8> = read.chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
            let (expected, count) = replace_lone_surrogates(&payload);
            let expected = if one_by_one { expected.into_owned() } else { fold_line_breaks(&expected).into_owned() };
            prop_assert_eq!(std::str::from_utf8(&landed)?.trim_end(), expected.trim_ascii());
            prop_assert_eq!([Kind::Event, Kind::Rejected].map(|kind| read.tally.replaced_surrogates(kind)).iter().sum::<u64>(), count);
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
