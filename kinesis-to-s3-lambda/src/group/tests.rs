use super::*;
use crate::kinesis_event::KinesisData;
use proptest::prelude::*;
use rstest::rstest;

pub(crate) fn record(sequence_number: u64, data: &str, seconds: f64) -> Record {
    Record {
        event_id: format!("shardId-000000000000:{sequence_number}"),
        kinesis: KinesisData {
            sequence_number: sequence_number.to_string(),
            partition_key: "e-1".into(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            approximate_arrival_timestamp: seconds,
        },
    }
}

const NINE_FIFTY_NINE: f64 = 1_795_255_199.9;

#[test]
fn a_batch_over_two_hours_is_two_objects() {
    let records = [(1, 0.0), (2, 0.0), (3, 1.0)].map(|(number, later)| record(number, "{}\n", NINE_FIFTY_NINE + later));
    let groups = group(&records, EventFormat::Envelope);
    let keys: Vec<String> = groups.iter().map(Group::key).collect();
    assert_eq!(
        keys,
        [
            "events/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2",
            "events/dt=2026-11-21/hour=10/shardId-000000000000-3.jsonl.bz2"
        ]
    );
    assert_eq!((groups[0].record_count, groups[0].lines()), (2, 2));
    assert_eq!((&*groups[0].last_sequence_number, &*groups[1].last_sequence_number), ("2", "3"));
}

#[test]
fn rejected_lines_are_their_own_objects() {
    let groups = group(&[record(1, "{}", 0.0), record(2, "x", 0.0), record(3, "{}\ny", 0.0)], EventFormat::Envelope);
    let found: Vec<_> = groups
        .iter()
        .map(|group| (group.kind, group.record_count, group.lines(), &*group.first_sequence_number))
        .collect();
    assert_eq!(found, [(Kind::Event, 2, 2, "1"), (Kind::Rejected, 1, 2, "2")]);
}

#[test]
fn a_record_of_both_kinds_is_counted_with_its_first_line() {
    let counts = |data: &str| -> Vec<_> {
        let groups = group(&[record(1, data, 0.0)], EventFormat::Envelope);
        groups.iter().map(|group| (group.kind, group.record_count)).collect()
    };
    assert_eq!(counts("{}\nx\n{}"), [(Kind::Event, 1), (Kind::Rejected, 0)]);
    assert_eq!(counts("x\n{}\nx"), [(Kind::Rejected, 1), (Kind::Event, 0)]);
}

fn keyed(number: u64, partition_key: &str, data: &str) -> Record {
    let mut record = record(number, data, 1_795_253_528.0);
    record.kinesis.partition_key = partition_key.to_owned();
    record
}

const REJECTED: &str =
    "{\"v\":1,\"received_at\":\"2026-11-21T09:32:00.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}\n";

#[rstest]
#[case(EventFormat::Raw, "r-request/0", Kind::Rejected)]
#[case(EventFormat::Raw, "e-r-", Kind::Event)]
#[case(EventFormat::Raw, "viewer", Kind::Event)]
#[case(EventFormat::Envelope, "viewer", Kind::Rejected)]
fn raw_lines_are_rejected_only_under_a_key_of_ours(#[case] format: EventFormat, #[case] key: &str, #[case] kind: Kind) {
    let groups = group(&[keyed(1, key, REJECTED)], format);
    let found: Vec<_> = groups.iter().map(|group| (group.kind, group.event_format, group.lines())).collect();
    assert_eq!(found, [(kind, format, 1)]);
    assert_eq!(groups[0].counts.reasons.total(), u64::from(kind == Kind::Rejected));
}

#[test]
fn raw_lines_in_an_aggregated_record_are_events_whatever_its_keys() {
    use md5::{Digest, Md5};
    let data = REJECTED.as_bytes();
    let user_record = [&[0x1a, u8::try_from(data.len()).unwrap()], data].concat();
    let message = [&[0x1a, u8::try_from(user_record.len()).unwrap()], &user_record[..]].concat();
    let aggregated = [&[0xF3, 0x89, 0x9A, 0xC2], &message[..], &Md5::digest(&message)].concat();
    let mut record = keyed(1, "r-request/0", "");
    record.kinesis.data = aggregated.into();
    assert_eq!(group(&[record.clone()], EventFormat::Raw)[0].kind, Kind::Event);
    assert_eq!(group(&[record], EventFormat::Envelope)[0].kind, Kind::Rejected);
}

fn texts(group: &Group) -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    let take = |text: &[u8]| {
        texts.push(text.to_vec());
        Ok::<_, FrameError>(())
    };
    group.for_each_text(take).unwrap();
    texts
}

pub(crate) fn framed(number: u64, lines: &str) -> Record {
    let mut record = record(number, "", 0.0);
    record.kinesis.data = zstd::bulk::compress(lines.as_bytes(), 1).unwrap().into();
    record
}

#[test]
fn a_group_has_the_lines_of_its_kind_whatever_stands_beside_them_and_in_frames_or_not() {
    let data = ["{\"a\":1}\n{\"b\":2}\n", "{\"a\":\"\\ud83d\"}\n", "x\n{}", "{ }"];
    let of = |record: fn(u64, &str) -> Record| {
        let records: Vec<_> = (1..).zip(data).map(|(number, data)| record(number, data)).collect();
        group(&records, EventFormat::Envelope)
    };
    for groups in [of(|number, data| record(number, data, 0.0)), of(framed)] {
        let [events, rejected] = &groups[..] else { panic!("{groups:?}") };
        let without_line_feeds: Vec<_> = texts(events).iter().map(|text| text.trim_ascii_end().to_vec()).collect();
        assert_eq!(without_line_feeds, ["{\"a\":1}\n{\"b\":2}", "{\"a\":\"\\ufffd\"}", "{}", "{ }"].map(Vec::from));
        assert_eq!((events.bytes, events.lines(), rejected.lines()), (16 + 15 + 3 + 4, 5, 1));
        assert_eq!(texts(rejected).concat().len(), rejected.bytes);
    }
}

proptest! {
    /// The write protocol rests on it: an attempt with more or fewer records at the end gives its objects the same names. And
    /// each record is counted once.
    #[test]
    fn names_are_the_same_wherever_a_batch_ends(
        records in prop::collection::vec((prop::sample::select(vec!["{}", "x", "{}\nx", "x\n{}"]), 0u32..3), 1..20), cut: prop::sample::Index,
    ) {
        let mut hour = 0.0;
        let records: Vec<Record> = records.iter().enumerate().map(|(number, (data, hours_later))| {
            hour += f64::from(*hours_later / 2);
            record(number as u64, data, hour * 3600.0)
        }).collect();
        let whole = group(&records, EventFormat::Envelope);
        prop_assert_eq!(whole.iter().map(|group| group.record_count).sum::<u64>(), records.len() as u64);
        let shorter = group(&records[..cut.index(records.len())], EventFormat::Envelope);
        prop_assert!(shorter.len() <= whole.len());
        for (short, long) in shorter.iter().zip(&whole) {
            prop_assert_eq!(short.key(), long.key());
            prop_assert!(texts(long).starts_with(&texts(short)));
        }
    }
}
