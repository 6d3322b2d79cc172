use super::*;
use crate::replay::coverage::Reach;
use bytes::Bytes;
use kinesis_to_s3_lambda::kinesis_event::KinesisData;
use proptest::prelude::*;
use rstest::rstest;
use shared::frame::{FrameWriter, MAX_LINES_BYTES};
use std::collections::BTreeMap;

fn record(number: usize, data: &str) -> Record {
    Record {
        event_id: format!("shardId-000000000000:{number}"),
        kinesis: KinesisData {
            sequence_number: number.to_string(),
            partition_key: "e-1".into(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            approximate_arrival_timestamp: 1_795_253_528.0,
        },
    }
}

fn wanted() -> Wanted {
    let hour = UtcHour::parse("dt=2026-11-21/hour=09").unwrap();
    Wanted { hour, before: hour.end(), event_format: EventFormat::Envelope }
}

fn reach(group: &Group) -> Reach {
    Reach { kind: group.kind, first: group.first_sequence_number.clone(), last: group.last_sequence_number.clone() }
}

fn records_of(groups: &[Group]) -> Vec<u64> {
    groups.iter().map(|group| group.record_count).collect()
}

fn replay(records: &[Record], coverage: Coverage) -> (Vec<Group>, Counts) {
    let mut gaps = Gaps::new(wanted(), coverage);
    let mut groups: Vec<Group> = records.iter().flat_map(|record| gaps.take(record)).collect();
    groups.extend(gaps.finish());
    (groups, gaps.counts)
}

#[test]
fn a_gap_is_cut_where_it_is_as_large_as_a_batch() {
    let records: Vec<Record> = (1..=MAX_BATCH_RECORDS + 1).map(|number| record(number, "{}")).collect();
    assert_eq!(records_of(&replay(&records, Coverage::default()).0), [MAX_BATCH_RECORDS as u64, 1]);
    let large = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    for (more, objects) in [(0, 1), (1, 2)] {
        let records = [record(1, &large(MAX_BYTES / 2 - 1)), record(2, &large(MAX_BYTES / 2 - 1 + more))];
        assert_eq!(replay(&records, Coverage::default()).0.len(), objects);
    }
}

/// A frame of as many lines as it may hold.
fn full_frame(number: usize) -> Record {
    let mut record = record(number, "");
    record.kinesis.data = FrameWriter::default().compress(&b"{}\n".repeat(MAX_LINES_BYTES / 3)).unwrap().into();
    record
}

#[test]
fn a_gap_of_frames_is_cut_by_the_bytes_of_their_lines() {
    let frames: Vec<Record> = (1..=9).map(full_frame).collect();
    let (groups, counts) = replay(&frames, Coverage::default());
    assert_eq!((records_of(&groups), counts.missing), (vec![4, 4, 1], 9));
    assert!(groups.iter().all(|group| group.bytes <= MAX_BYTES));
}

#[rstest]
#[case::frames((1..=12).map(full_frame).collect())]
#[case::more_records_than_a_batch_has_today((1..=MAX_BATCH_RECORDS + 7).map(|number| record(number, "{}")).collect())]
fn an_object_that_the_manifest_names_is_made_again_however_large(#[case] records: Vec<Record>) {
    let named = group(&records[2..records.len() - 2], EventFormat::Envelope);
    let coverage = Coverage::new(Vec::new(), Vec::new(), named.iter().map(reach).collect());
    let (groups, _) = replay(&records, coverage);
    assert_eq!(records_of(&groups), [2, records.len() as u64 - 4, 2]);
    assert_eq!(groups[1].key(), named[0].key());
}

#[test]
fn records_of_other_hours_and_those_that_arrived_since_are_left() {
    let mut records = [record(1, "{}"), record(2, "{}"), record(3, "{}")];
    records[0].kinesis.approximate_arrival_timestamp -= 3600.0;
    records[2].kinesis.approximate_arrival_timestamp += 1.0;
    let mut gaps = Gaps::new(Wanted { before: records[2].arrival(), ..wanted() }, Coverage::default());
    assert!(records.iter().all(|record| gaps.take(record).is_empty()));
    assert_eq!((gaps.finish()[0].record_count, gaps.counts.missing), (1, 1));
}

proptest! {
    /// Batches land or fail as groups, some objects are lost, and the manifest names some of those.
    #[test]
    fn after_a_replay_each_line_is_in_one_object_or_in_a_failed_batch(
        data in prop::collection::vec(prop::sample::select(vec!["{}", "x", "{}\nx", "\n"]), 1..40),
        batches in prop::collection::vec((1usize..6, 0u8..4), 40),
        lost in prop::collection::vec((any::<bool>(), any::<bool>()), 80),
    ) {
        let records: Vec<Record> = data.iter().enumerate().map(|(number, data)| record(number + 1, data)).collect();
        let (mut objects, mut failed, mut rest) = (BTreeMap::new(), Vec::new(), &records[..]);
        for (size, fate) in batches {
            let (batch, more) = rest.split_at(size.min(rest.len()));
            rest = more;
            match (batch.first(), batch.last()) {
                (Some(first), Some(last)) if fate == 0 => {
                    failed.push((first.kinesis.sequence_number.clone(), last.kinesis.sequence_number.clone()));
                }
                _ => objects.extend(group(batch, EventFormat::Envelope).into_iter().map(|group| (group.key(), group))),
            }
        }
        let all = objects.clone();
        let (mut named, mut fates) = (Vec::new(), lost.iter());
        objects.retain(|_, group| {
            let (is_lost, is_named) = *fates.next().expect("a fate for each");
            if is_named || !is_lost {
                named.push(reach(group));
            }
            !is_lost
        });
        let named_keys: Vec<String> = all.iter()
            .filter(|(_, group)| named.iter().any(|named| (named.kind, &named.first) == (group.kind, &group.first_sequence_number)))
            .map(|(key, _)| key.clone()).collect();
        let landed = objects.values().map(reach).collect();
        let (groups, counts) = replay(&records, Coverage::new(landed, failed.clone(), named));
        for group in groups {
            // Existing objects are not written again.
            prop_assert!(objects.insert(group.key(), group).is_none());
        }
        // What the manifest names is as it was.
        for key in named_keys {
            prop_assert_eq!(objects.get(&key).map(reach_text), all.get(&key).map(reach_text));
        }
        let is_failed = |number: usize| failed.iter().any(|(first, last)| {
            (first.parse().expect("a number")..=last.parse().expect("a number")).contains(&number)
        });
        for kind in [Kind::Event, Kind::Rejected] {
            let landed: u64 = objects.values().filter(|group| group.kind == kind).map(Group::lines).sum();
            let expected: u64 = records.iter().enumerate().filter(|(index, _)| !is_failed(index + 1))
                .flat_map(|(_, record)| group(std::slice::from_ref(record), EventFormat::Envelope))
                .filter(|group| group.kind == kind).map(|group| group.lines()).sum();
            prop_assert_eq!(landed, expected);
        }
        prop_assert_eq!(counts.in_failed_batches > 0, records.iter().enumerate()
            .any(|(index, record)| is_failed(index + 1) && !group(std::slice::from_ref(record), EventFormat::Envelope).is_empty()));
    }
}

fn reach_text(group: &Group) -> (Kind, String, String, u64) {
    let Reach { kind, first, last } = reach(group);
    (kind, first, last, group.lines())
}
