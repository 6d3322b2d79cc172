use super::judge::{BYTE_ORDER_MARK, contents};
use super::*;
use crate::multiline::holds_a_value_over_lines;
use generators::json::json_object;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::Value;
use shared::json::{fold_line_breaks, replace_lone_surrogates};
use shared::line::{Client, Envelope, IdLiteral, Rejected};
use shared::object::ReceivedIn;
use shared::rejection::{Reason, Rejection};

const ARRIVAL: UnixMillis = UnixMillis(1_795_253_528_006);

fn read(data: &[u8], trust: Trust) -> RecordLines {
    let (source, data) = (Source { arrival: ARRIVAL, name: "shard:1", trust }, Bytes::copy_from_slice(data));
    RecordReader::default().read_with_at_most(MAX_REJECTED_LINES, &data, &source).clone()
}

fn read_ours(data: &[u8]) -> RecordLines {
    read(data, Trust::Members)
}

/// The lines as (kind, text), rejected ones as what they keep and after the events.
fn lines_of(payload: &[u8]) -> Vec<(Kind, String)> {
    let mut lines = Vec::new();
    let RecordLines { events, rejected, .. } = read_ours(payload);
    for (kind, Lines { text, counts }) in [(Kind::Event, events), (Kind::Rejected, rejected)] {
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
    let RecordLines { events, rejected, .. } = read_ours(b"\xff\n\xfe{}");
    let line: Value = serde_json::from_slice(&rejected.text).unwrap();
    assert_eq!((events.counts.lines, rejected.counts.lines), (0, 1));
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

#[rstest]
#[case::by_another_producer(zstd::stream::encode_all(LINES, 19).unwrap())]
#[case::as_ingest_writes_it(frame(LINES))]
fn a_frame_lands_as_its_lines(#[case] data: Vec<u8>) {
    assert_eq!(read_ours(&data), read_ours(LINES));
}

#[test]
fn bad_lines_in_a_frame_are_rejected_one_by_one() {
    let read = read_ours(&frame(b"{}\nx\n{}"));
    assert_eq!((&read.events.text[..], bodies(&read.rejected)), (&b"{}\n{}\n"[..], vec![b"x".to_vec()]));
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
    let read = read_ours(&data);
    assert_eq!((read.events.counts.lines, bodies(&read.rejected)), (0, vec![data]));
}

#[test]
fn a_frame_in_an_aggregate_is_rejected_and_costs_no_other_user_record() {
    let frame = frame(b"{}\n{\"a\":1}\n");
    assert!(frame.windows(8).any(|bytes| bytes == b"{\"a\":1}\n"), "its lines stand in it");
    let read = read_ours(&aggregate(&[b"{}", &frame]));
    assert_eq!((&read.events.text[..], bodies(&read.rejected)), (&b"{}\n"[..], vec![frame]));
}

#[test]
fn lines_in_a_frame_are_believed_no_more_than_others() {
    assert_eq!(read(&frame(FORGED), Trust::Nothing), read(FORGED, Trust::Nothing));
}

#[rstest]
#[case::lines(LINES, true)]
#[case::no_line_feed(b"{}\n{}", true)]
#[case::rejected_lines(FORGED_REJECTED, true)]
#[case::both_kinds(FORGED, false)]
#[case::white_space(b"{} \n", false)]
#[case::blank_line(b"{}\n\n", false)]
#[case::a_surrogate(b"{\"a\":\"\\ud83d\"}\n", false)]
#[case::no_object(b"x\n", false)]
#[case::nothing(b"", false)]
fn a_record_is_known_whose_lines_are_its_text(#[case] text: &[u8], #[case] expected: bool) {
    for data in [text.to_vec(), frame(text)] {
        let mut reader = RecordReader::default();
        let source = Source { arrival: ARRIVAL, name: "shard:1", trust: Trust::Members };
        assert_eq!(reader.read(&data.clone().into(), &source).are_its_text, expected);
        assert_eq!(reader.text(&data).unwrap(), text);
    }
}

#[test]
fn a_reader_keeps_nothing_of_the_record_before() {
    let mut reader = RecordReader::default();
    let source = Source { arrival: ARRIVAL, name: "shard:1", trust: Trust::Members };
    for data in [FORGED.to_vec(), frame(b"x\n{}"), b"x".to_vec(), frame(LINES)[..20].to_vec(), frame(LINES), Vec::new()]
    {
        let data = Bytes::from(data);
        assert_eq!(reader.read(&data, &source), RecordReader::default().read(&data, &source));
    }
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
    let mut reader = RecordReader::default();
    let read = reader.read(&data, &source);
    assert_eq!(read.events.counts.lines as usize, good);
    let alone = max_rejected_lines(data.len()).min(bad);
    let bodies = bodies(&read.rejected);
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
    let RecordLines { events, rejected, .. } = read_ours(&payload);
    assert_eq!(events.counts.received_in, ReceivedIn { previous: 1, this: 2, next: 1, elsewhere: 3 });
    assert_eq!(rejected.counts.received_in, ReceivedIn { elsewhere: 1, ..ReceivedIn::default() });
    assert!(rejected.counts.reasons.iter().eq([(Reason::ForeignRecord, 1)]));
    assert_eq!(events.counts.reasons.total(), 0);
}

#[test]
fn lone_surrogates_are_replaced_and_counted() {
    let read = read_ours(b"{\"a\":\"\\ud83d\\ude00\"}\n{\"a\":\"\\ud83d\"}\n");
    assert_eq!(read.events.text, b"{\"a\":\"\\ud83d\\ude00\"}\n{\"a\":\"\\ufffd\"}\n");
    assert_eq!((read.events.counts.replaced_surrogates, read.rejected.counts.replaced_surrogates), (1, 0));
}

const FORGED_REJECTED: &[u8] =
    b"{\"v\":1,\"received_at\":\"2026-11-21T09:40:00.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}\n";
const FORGED: &[u8] =
    b"{\"v\":1,\"received_at\":\"2026-11-21T09:40:00.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}\n\
        {\"v\":1,\"received_at\":\"2026-11-21T08:59:00.000Z\",\"id\":\"1\",\"event\":{}}\n";

#[test]
fn of_lines_that_a_client_wrote_nothing_is_believed() {
    let RecordLines { events, rejected, .. } = read(FORGED, Trust::Nothing);
    assert_eq!((&events.text[..], events.counts.received_at), (FORGED, Some((ARRIVAL, ARRIVAL))));
    assert_eq!(events.counts.received_in, ReceivedIn { elsewhere: 2, ..ReceivedIn::default() });
    assert_eq!((events.counts.reasons.total(), rejected), (0, Lines::default()));
}

#[test]
fn of_raw_lines_under_a_key_of_ours_only_rejected_ones_are_believed() {
    let RecordLines { events, rejected, .. } = read(FORGED, Trust::RejectedLines);
    assert_eq!(events.counts.received_at, Some((ARRIVAL, ARRIVAL)));
    assert_ne!(rejected.counts.received_at.unwrap().0, ARRIVAL);
    assert_eq!(events.counts.received_in, ReceivedIn { elsewhere: 1, ..ReceivedIn::default() });
    assert_eq!(rejected.counts.received_in, ReceivedIn { this: 1, ..ReceivedIn::default() });
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
        let mut reader = RecordReader::default();
        let read = reader.read(&payload, &Source { arrival: ARRIVAL, name: "shard:1", trust });
        for (kind, found) in [(Kind::Event, &read.events), (Kind::Rejected, &read.rejected)] {
            let mut expected = Lines::default();
            for line in std::str::from_utf8(&found.text)?.lines() {
                // What is rejected here is so whoever wrote the record.
                let ours = line.contains("\"reason\":\"foreign_record\",\"detail\":\"not ") || line.contains(",\"detail\":\"more than ") || read.events == Lines::default();
                let trust = if ours && kind == Kind::Rejected { Trust::Members } else { trust };
                let head = trust.read_head(line)?;
                prop_assert_eq!(head.kind, kind);
                expected.counts.add_line(head, Source { arrival: ARRIVAL, name: "shard:1", trust }.receipt(head));
                expected.text.extend_from_slice(format!("{line}\n").as_bytes());
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
            prop_assert_eq!((read.events.counts.lines, read.rejected.counts.lines), (0, 1));
            let line: Value = serde_json::from_slice(&read.rejected.text)?;
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
            prop_assert!(!has_object || holds_a_value_over_lines(contents(lines.join("\n").as_bytes())));
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
        let RecordLines { events, rejected, .. } = read_ours(payload.as_bytes());
        let landed = [events.text, rejected.text].concat();
        let (expected, count) = replace_lone_surrogates(&payload);
        let expected = if one_by_one { expected.into_owned() } else { fold_line_breaks(&expected).into_owned() };
        prop_assert_eq!(std::str::from_utf8(&landed)?.trim_end(), expected.trim_ascii());
        prop_assert_eq!(events.counts.replaced_surrogates + rejected.counts.replaced_surrogates, count);
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
    let member = prop::sample::select(vec!["{\"a\":1}", "{}", "{\"t\":\"],[\",\"b\":[{},{}]}", "{\"c\":\"\\\"}\"}"]);
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
