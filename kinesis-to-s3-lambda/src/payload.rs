//! The lines of one record's payload, whoever wrote it: ours, another producer's JSON, or anything else.

use bytes::Bytes;
use shared::json::fold_line_breaks;
use shared::line::{Client, Envelope, IdLiteral, Kind, LineHead, Rejected, read_head};
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;

use crate::chunk::{Chunk, Lines};
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

/// Takes a payload apart. `name` tells it from all others and is the same each time it is sent; rejected lines are named
/// after it.
///
/// - JSON objects, one a line, pass as they are, without copying; after a good first one up to `max_rejected` bad lines are
///   rejected one by one.
/// - One JSON object over several lines passes, folded into one.
/// - All else is rejected whole.
#[must_use]
pub fn read_payload(payload: &Bytes, arrival: UnixMillis, name: &str, max_rejected: usize) -> Payload {
    let rejecting = Rejecting { arrival, name };
    let whole = |detail: &str| rejecting.whole(payload, detail);
    match std::str::from_utf8(payload) {
        Ok(text) => read_lines(payload, text, &rejecting, max_rejected)
            .or_else(|| one_object(text, arrival))
            .unwrap_or_else(|| whole("the record holds no JSON object, or too many lines that are none")),
        Err(error) => whole(&format!("the record is not UTF-8: {error}")),
    }
}

/// A payload kept whole as rejected, without a look into it.
#[must_use]
pub fn rejected_whole(payload: &[u8], arrival: UnixMillis, name: &str, detail: &str) -> Payload {
    Rejecting { arrival, name }.whole(payload, detail)
}

/// `None` when the first line is not good, or too many are bad.
fn read_lines(payload: &Bytes, text: &str, rejecting: &Rejecting<'_>, max_rejected: usize) -> Option<Payload> {
    let mut lines = Lines::new(payload);
    let mut tally = Tally::default();
    let hour = rejecting.arrival.hour();
    let mut rejected = 0;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let range = start..start + line.len();
        start = range.end;
        let trimmed = line.trim_ascii();
        if trimmed.is_empty() {
            continue;
        }
        match read_head(trimmed) {
            Ok(head) => {
                tally.count(head, hour);
                let received_at = received_at(head, rejecting.arrival);
                let as_it_stands = !trimmed.contains('\r') && line.strip_suffix('\n').unwrap_or(line) == trimmed;
                if as_it_stands {
                    lines.slice(head.kind, received_at, range);
                } else {
                    lines.copy(head.kind, received_at, fold_line_breaks(trimmed).as_bytes());
                }
            }
            Err(_) if lines.is_empty() || rejected == max_rejected => return None,
            Err(error) => {
                tally.count(rejecting.head(), hour);
                lines.whole(rejecting.chunk(rejected, trimmed.as_bytes(), &error.to_string()));
                rejected += 1;
            }
        }
    }
    let chunks = lines.finish();
    (!chunks.is_empty()).then_some(Payload { chunks, tally, rejected })
}

fn received_at(head: LineHead, arrival: UnixMillis) -> UnixMillis {
    let near = |time: &UnixMillis| time.0.abs_diff(arrival.0) <= MAX_RECEIPT_DISTANCE_MILLIS.unsigned_abs();
    head.received_at.filter(near).unwrap_or(arrival)
}

fn one_object(text: &str, arrival: UnixMillis) -> Option<Payload> {
    let text = text.trim_ascii();
    let head = read_head(text).ok()?;
    let chunk = Chunk::of_line(head.kind, received_at(head, arrival), fold_line_breaks(text).into_owned().into());
    Some(Payload::of_line(head, arrival, chunk, 0))
}

/// What rejected lines of one payload have in common.
struct Rejecting<'a> {
    arrival: UnixMillis,
    name: &'a str,
}

impl Rejecting<'_> {
    /// What there is to see of its lines.
    fn head(&self) -> LineHead {
        LineHead { kind: Kind::Rejected, received_at: Some(self.arrival), reason: Some(Reason::ForeignRecord) }
    }

    /// A payload that is kept in one line.
    fn whole(&self, payload: &[u8], detail: &str) -> Payload {
        Payload::of_line(self.head(), self.arrival, self.chunk(0, payload, detail), 1)
    }

    /// A line that keeps `body`. Nothing in it differs when the same record is sent again.
    fn chunk(&self, number: usize, body: &[u8], detail: &str) -> Chunk {
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
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::Value;
    use shared::object::ReceivedIn;
    use shared::strategies::json_object;

    const ARRIVAL: UnixMillis = UnixMillis(1_795_253_528_006);

    fn chunks_of(payload: &[u8]) -> Vec<Chunk> {
        read_payload(&Bytes::copy_from_slice(payload), ARRIVAL, "shard:1", MAX_REJECTED_LINES).chunks
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
    #[case::bad_first_line(b"x\n{}\n", &[(Kind::Rejected, "x\n{}\n")])]
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
        let chunks = read_payload(&payload, ARRIVAL, "n", MAX_REJECTED_LINES).chunks;
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
        let tally = read_payload(&payload.into(), ARRIVAL, "shard:1", MAX_REJECTED_LINES).tally;
        assert_eq!(tally.received_in(Kind::Event), ReceivedIn { previous: 1, this: 2, next: 1, elsewhere: 3 });
        assert_eq!(tally.received_in(Kind::Rejected), ReceivedIn { elsewhere: 1, ..ReceivedIn::default() });
        assert!(tally.reasons(Kind::Rejected).iter().eq([(Reason::ForeignRecord, 1)]));
        assert_eq!(tally.reasons(Kind::Event).total(), 0);
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
            ], 0..12),
        ) {
            let payload = Bytes::from(lines.join("\n"));
            let read = read_payload(&payload, ARRIVAL, "shard:1", 4);
            let mut expected = Tally::default();
            for chunk in &read.chunks {
                for line in std::str::from_utf8(&chunk.bytes)?.lines() {
                    let head = read_head(line)?;
                    prop_assert_eq!(head.kind, chunk.kind);
                    expected.count(head, ARRIVAL.hour());
                }
            }
            prop_assert_eq!(read.tally, expected);
        }

        #[test]
        fn any_bytes_that_are_no_json_are_kept_whole_and_alike_each_time(payload: Vec<u8>) {
            let chunks = chunks_of(&payload);
            prop_assert_eq!(&chunks, &chunks_of(&payload));
            if std::str::from_utf8(&payload).is_err() {
                let line: Value = serde_json::from_slice(&chunks[0].bytes)?;
                let kept = line["rejected"]["body_base64"].as_str().expect("a body");
                prop_assert_eq!(base64_simd::STANDARD.decode_to_vec(kept).expect("base64"), payload);
            }
        }

        #[test]
        fn no_line_is_skipped_whatever_stands_beside_it(
            lines in prop::collection::vec(prop_oneof![json_object().prop_map(|json| fold_line_breaks(&json).into_owned()), "[ -~]{0,20}"], 1..20),
        ) {
            let found = lines_of(lines.join("\n").as_bytes());
            let expected: Vec<String> = lines.iter().map(|line| line.trim_ascii().to_owned()).filter(|line| !line.is_empty()).collect();
            if expected.first().is_some_and(|line| read_head(line).is_ok()) {
                let found: Vec<String> = found.into_iter().map(|(_, text)| text.trim_ascii().to_owned()).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
