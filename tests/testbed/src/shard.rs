//! A shard: a range of hash keys, and the records whose keys fell into it, in order.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::sequence_number::SequenceNumber;
use crate::stream::ShardRate;

/// A record on a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub sequence_number: SequenceNumber,
    pub partition_key: String,
    pub data: Bytes,
    /// Milliseconds since 1970.
    pub arrived_at: i64,
}

impl Record {
    /// What counts against the limits: data and partition key.
    pub(crate) fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// A shard, open or closed.
#[derive(Debug, Clone)]
pub struct Shard {
    pub id: String,
    pub hash_keys: RangeInclusive<u128>,
    /// The shards whose keys it took over: one after a split, two after a merge.
    pub parents: Vec<String>,
    pub starting_sequence_number: SequenceNumber,
    /// Of a closed shard: no record of it has this number or a greater one.
    pub ending_sequence_number: Option<SequenceNumber>,
    /// Records that are gone.
    pub(crate) trimmed: u64,
    pub(crate) records: VecDeque<Record>,
    pub(crate) closed_at: Option<i64>,
    load: Load,
}

/// What a shard took in the second that is under way.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    second: i64,
    bytes: usize,
    records: usize,
}

impl Shard {
    pub(crate) fn new(
        number: usize,
        hash_keys: RangeInclusive<u128>,
        parents: Vec<String>,
        start: SequenceNumber,
    ) -> Self {
        Self {
            id: format!("shardId-{number:012}"),
            hash_keys,
            parents,
            starting_sequence_number: start,
            ending_sequence_number: None,
            trimmed: 0,
            records: VecDeque::new(),
            closed_at: None,
            load: Load::default(),
        }
    }

    /// Whether it takes records.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ending_sequence_number.is_none()
    }

    /// Its records that are still there, the oldest first.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.iter()
    }

    pub(crate) fn close(&mut self, now: i64, end: SequenceNumber) {
        self.ending_sequence_number = Some(end);
        self.closed_at = Some(now);
    }

    /// Counts a record of so many bytes against the shard's rate; whether it may come.
    pub(crate) fn admit(&mut self, now: i64, bytes: usize, rate: ShardRate) -> bool {
        let second = now.div_euclid(1_000);
        if self.load.second != second {
            self.load = Load { second, ..Load::default() };
        }
        if self.load.records >= rate.records_per_second || self.load.bytes + bytes > rate.bytes_per_second {
            return false;
        }
        self.load.records += 1;
        self.load.bytes += bytes;
        true
    }

    /// Drops the records that arrived before a time.
    pub(crate) fn trim(&mut self, before: i64) {
        while self.records.front().is_some_and(|record| record.arrived_at < before) {
            self.records.pop_front();
            self.trimmed += 1;
        }
    }

    /// How many records there ever were before the first for which this holds. It holds for none or for all from one on.
    pub(crate) fn offset_of(&self, is_wanted: impl Fn(&Record) -> bool) -> u64 {
        self.trimmed + self.records.partition_point(|record| !is_wanted(record)) as u64
    }

    /// How many records there ever were.
    pub(crate) fn end(&self) -> u64 {
        self.trimmed + self.records.len() as u64
    }
}
