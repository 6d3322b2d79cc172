//! The lines of a batch by kind and hour: what becomes one object each.

use bytes::Bytes;
use shared::line::Kind;
use shared::object::{ReceivedIn, object_key};
use shared::rejection::ReasonCounts;
use shared::timestamp::{UnixMillis, UtcHour};

use crate::chunk::{Chunk, join_small};
use crate::kinesis_event::Record;
use crate::kpl::deaggregate;
use crate::payload::{Payload, max_rejected_lines, read_payload, rejected_whole};
use crate::tally::Tally;

/// The lines of one kind and hour, in the order of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub kind: Kind,
    pub hour: UtcHour,
    pub shard_id: String,
    pub first_sequence_number: String,
    pub last_sequence_number: String,
    pub record_count: u64,
    /// Its lines by the hour of their receipt.
    pub received_in: ReceivedIn,
    /// Its lines by the reason of their rejection: none for events.
    pub reasons: ReasonCounts,
    pub chunks: Vec<Chunk>,
}

impl Group {
    /// The key of the group's object. It does not depend on where the batch ends.
    #[must_use]
    pub fn key(&self) -> String {
        object_key(self.kind, self.hour, &self.shard_id, &self.first_sequence_number)
    }

    #[must_use]
    pub fn lines(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.lines).sum()
    }

    /// Bytes of all lines, less the line feeds that chunks may lack.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.len()).sum()
    }

    /// When the earliest and the latest of its lines were received.
    #[must_use]
    pub fn received_at(&self) -> (UnixMillis, UnixMillis) {
        let earliest = self.chunks.iter().map(|chunk| chunk.earliest_received_at).min();
        let latest = self.chunks.iter().map(|chunk| chunk.latest_received_at).max();
        (earliest.unwrap_or(UnixMillis(0)), latest.unwrap_or(UnixMillis(0)))
    }
}

/// Groups the records of a batch. Each record has all its lines of one kind in one group.
///
/// What becomes of a record depends on nothing but the record: the names of objects must be the same wherever a batch
/// begins and ends.
#[must_use]
pub fn group(records: &[Record]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for record in records {
        let hour = record.arrival().hour();
        let Payload { chunks, tally, .. } = read_record(record);
        let beside = |group: &Group| group.hour == hour && group.shard_id == record.shard_id();
        for chunk in chunks {
            match groups.iter_mut().find(|group| group.kind == chunk.kind && beside(group)) {
                Some(group) => add(group, record, chunk),
                None => groups.push(start(record, hour, chunk)),
            }
        }
        groups.iter_mut().filter(|group| beside(group)).for_each(|group| count(group, &tally));
    }
    groups
}

fn read_record(record: &Record) -> Payload {
    let data = &record.kinesis.data;
    let max_rejected = max_rejected_lines(data.len());
    match deaggregate(data) {
        None => read_payload(data, record.arrival(), &record.event_id, max_rejected),
        Some(user_records) => read_user_records(record, &user_records, max_rejected).unwrap_or_else(|| {
            let detail = format!("more than {max_rejected} lines of the aggregated record are no JSON objects");
            rejected_whole(data, record.arrival(), &record.event_id, &detail)
        }),
    }
}

/// `None` when too many lines are bad.
fn read_user_records(record: &Record, user_records: &[Bytes], max_rejected: usize) -> Option<Payload> {
    let (mut chunks, mut tally, mut rejected) = (Vec::new(), Tally::default(), 0);
    for (number, data) in user_records.iter().enumerate() {
        let name = format!("{}/{number}", record.event_id);
        let read = read_payload(data, record.arrival(), &name, max_rejected);
        rejected += read.rejected;
        if rejected > max_rejected {
            return None;
        }
        tally.add_all(&read.tally);
        chunks.extend(read.chunks);
    }
    Some(Payload { chunks: join_small(chunks), tally, rejected })
}

fn start(record: &Record, hour: UtcHour, chunk: Chunk) -> Group {
    Group {
        kind: chunk.kind,
        hour,
        shard_id: record.shard_id().to_owned(),
        first_sequence_number: record.kinesis.sequence_number.clone(),
        last_sequence_number: record.kinesis.sequence_number.clone(),
        record_count: 1,
        received_in: ReceivedIn::default(),
        reasons: ReasonCounts::default(),
        chunks: vec![chunk],
    }
}

fn add(group: &mut Group, record: &Record, chunk: Chunk) {
    if group.last_sequence_number != record.kinesis.sequence_number {
        group.record_count += 1;
        group.last_sequence_number.clone_from(&record.kinesis.sequence_number);
    }
    group.chunks.push(chunk);
}

/// Counts the lines that a record has in a group.
fn count(group: &mut Group, tally: &Tally) {
    group.received_in.add_all(tally.received_in(group.kind));
    group.reasons.add_all(&tally.reasons(group.kind));
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kinesis_event::KinesisData;
    use proptest::prelude::*;

    pub(crate) fn record(sequence_number: u64, data: &str, seconds: f64) -> Record {
        Record {
            event_id: format!("shardId-000000000000:{sequence_number}"),
            kinesis: KinesisData {
                sequence_number: sequence_number.to_string(),
                data: Bytes::copy_from_slice(data.as_bytes()),
                approximate_arrival_timestamp: seconds,
            },
        }
    }

    const NINE_FIFTY_NINE: f64 = 1_795_255_199.9;

    #[test]
    fn a_batch_over_two_hours_is_two_objects() {
        let groups = group(&[
            record(1, "{}\n", NINE_FIFTY_NINE),
            record(2, "{}\n", NINE_FIFTY_NINE),
            record(3, "{}\n", NINE_FIFTY_NINE + 1.0),
        ]);
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
        let groups = group(&[record(1, "{}", 0.0), record(2, "x", 0.0), record(3, "{}\ny", 0.0)]);
        let found: Vec<_> = groups
            .iter()
            .map(|group| (group.kind, group.record_count, group.lines(), &*group.first_sequence_number))
            .collect();
        assert_eq!(found, [(Kind::Event, 2, 2, "1"), (Kind::Rejected, 2, 2, "2")]);
    }

    proptest! {
        /// The ground of the write protocol: an attempt with more or fewer records at the end names its objects alike.
        #[test]
        fn names_don_t_depend_on_where_a_batch_ends(
            records in prop::collection::vec((prop::sample::select(vec!["{}", "x", "{}\nx"]), 0u32..3), 1..20), cut: prop::sample::Index,
        ) {
            let mut hour = 0.0;
            let records: Vec<Record> = records.iter().enumerate().map(|(number, (data, hours_later))| {
                hour += f64::from(*hours_later / 2);
                record(number as u64, data, hour * 3600.0)
            }).collect();
            let whole = group(&records);
            let shorter = group(&records[..cut.index(records.len())]);
            prop_assert!(shorter.len() <= whole.len());
            for (short, long) in shorter.iter().zip(&whole) {
                prop_assert_eq!(short.key(), long.key());
                prop_assert!(short.chunks.iter().eq(long.chunks.iter().take(short.chunks.len())));
            }
        }
    }
}
