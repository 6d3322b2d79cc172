//! A data stream: records go to the shard whose hash keys theirs is among, and are read from each shard in order.

use std::ops::RangeInclusive;

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::KinesisError;
use crate::sequence_number::SequenceNumber;
use crate::shard::{Record, Shard};

/// The most that the stream takes and gives.
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of a record's data and partition key. A stream's default is 1 MiB, its highest setting 10 MiB.
    pub record_bytes: usize,
    /// Of one `PutRecords`. AWS takes 10 MiB by now; 5 MiB is what older accounts and emulators take, so that who keeps
    /// to it here may put anywhere.
    pub call_bytes: usize,
    /// `None`: a shard takes whatever comes.
    pub shard_rate: Option<ShardRate>,
    /// How long records are kept, in milliseconds.
    pub retention_ms: i64,
}

/// What a shard takes in one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardRate {
    pub bytes_per_second: usize,
    pub records_per_second: usize,
}

const MIB: usize = 1024 * 1024;
const HOUR_MS: i64 = 3_600_000;

impl Default for Limits {
    fn default() -> Self {
        Self { record_bytes: MIB, call_bytes: 5 * MIB, shard_rate: None, retention_ms: 24 * HOUR_MS }
    }
}

impl Default for ShardRate {
    fn default() -> Self {
        Self { bytes_per_second: MIB, records_per_second: 1_000 }
    }
}

/// Records of one `PutRecords`.
const CALL_RECORDS: usize = 500;
/// Characters of a partition key.
const PARTITION_KEY_CHARACTERS: usize = 256;
/// The most that one `GetRecords` gives.
const READ_RECORDS: usize = 10_000;
const READ_BYTES: usize = 10 * MIB;
/// How long a shard iterator is good.
const ITERATOR_LIFE_MS: i64 = 5 * 60 * 1_000;

/// A record that is to be put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    pub partition_key: String,
    /// Decides on the shard in place of the partition key's MD5.
    pub explicit_hash_key: Option<u128>,
    pub data: Bytes,
}

/// Where a record went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub shard_id: String,
    pub sequence_number: SequenceNumber,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    TrimHorizon,
    Latest,
    AtSequenceNumber(SequenceNumber),
    AfterSequenceNumber(SequenceNumber),
    /// Milliseconds since 1970.
    AtTimestamp(i64),
}

/// A place in a shard, which is good for five minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIterator {
    pub shard_id: String,
    /// Records that there ever were before it.
    pub offset: u64,
    pub issued_at: i64,
}

/// What `GetRecords` gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub records: Vec<Record>,
    /// `None` at the end of a closed shard.
    pub next: Option<ShardIterator>,
    /// How long ago the last of these records arrived, if there are more; 0 at the tip.
    pub millis_behind_latest: i64,
    /// At the end of a closed shard, the shards that took over its keys.
    pub child_shards: Vec<String>,
}

/// A Kinesis data stream.
#[derive(Debug, Clone)]
pub struct Stream {
    pub limits: Limits,
    /// Milliseconds since 1970.
    pub created_at: i64,
    shards: Vec<Shard>,
    shards_made: usize,
    last_number: SequenceNumber,
}

impl Stream {
    /// A stream of so many shards with equal ranges of hash keys. It has at least one.
    #[must_use]
    pub fn new(now: i64, shards: usize, limits: Limits) -> Self {
        let start = SequenceNumber { millis: 0, count: 0 }.next(now);
        let mut stream = Self { limits, created_at: now, shards: Vec::new(), shards_made: 0, last_number: start };
        equal_ranges(shards.max(1)).into_iter().for_each(|range| stream.open(range, Vec::new()));
        stream
    }

    /// All shards that have records or take some, in the order in which they were made.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// # Errors
    ///
    /// When there is no such shard, or no more.
    pub fn shard(&self, id: &str) -> Result<&Shard, KinesisError> {
        Ok(&self.shards[self.index(id)?])
    }

    /// All records of a listing of shards: those of the first shard, then those of the second …
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.shards.iter().flat_map(Shard::records)
    }

    /// `PutRecord`.
    ///
    /// # Errors
    ///
    /// When the record is not one that the stream takes, or its shard is at its limit.
    pub fn put(&mut self, now: i64, entry: Entry) -> Result<Placed, KinesisError> {
        self.check(&entry)?;
        self.place(now, entry)
    }

    /// `PutRecords`: one outcome a record, in order. Some may be stored and others not.
    ///
    /// # Errors
    ///
    /// When the call is over a limit or one of its records is not one that the stream takes: then none is stored.
    pub fn put_records(
        &mut self,
        now: i64,
        entries: Vec<Entry>,
    ) -> Result<Vec<Result<Placed, KinesisError>>, KinesisError> {
        self.check_call(&entries)?;
        Ok(entries.into_iter().map(|entry| self.place(now, entry)).collect())
    }

    /// Whether these records may be put in one call.
    ///
    /// # Errors
    ///
    /// When there are too many, or one of them is not one that the stream takes.
    pub fn check_call(&self, entries: &[Entry]) -> Result<(), KinesisError> {
        if !(1..=CALL_RECORDS).contains(&entries.len()) {
            return Err(KinesisError::Validation(format!("PutRecords takes 1 to {CALL_RECORDS} records")));
        }
        entries.iter().try_for_each(|entry| self.check(entry))?;
        if entries.iter().map(Entry::size).sum::<usize>() > self.limits.call_bytes {
            let limit = self.limits.call_bytes;
            return Err(KinesisError::InvalidArgument(format!("Records size exceeds {limit} bytes")));
        }
        Ok(())
    }

    fn check(&self, entry: &Entry) -> Result<(), KinesisError> {
        if !(1..=PARTITION_KEY_CHARACTERS).contains(&entry.partition_key.chars().count()) {
            let limit = PARTITION_KEY_CHARACTERS;
            return Err(KinesisError::Validation(format!("A partition key has 1 to {limit} characters")));
        }
        if entry.size() > self.limits.record_bytes {
            let limit = self.limits.record_bytes;
            return Err(KinesisError::Validation(format!("A record has at most {limit} bytes with its partition key")));
        }
        Ok(())
    }

    fn place(&mut self, now: i64, entry: Entry) -> Result<Placed, KinesisError> {
        let hash_key = entry.hash_key();
        let takes = |shard: &&mut Shard| shard.is_open() && shard.hash_keys.contains(&hash_key);
        // The open shards' ranges are the whole space, whatever was split and merged.
        let shard = self.shards.iter_mut().find(takes);
        let shard = shard.ok_or_else(|| KinesisError::ResourceNotFound(format!("of hash key {hash_key}")))?;
        if self.limits.shard_rate.is_some_and(|rate| !shard.admit(now, entry.size(), rate)) {
            return Err(KinesisError::ThroughputExceeded(shard.id.clone()));
        }
        let sequence_number = self.last_number.next(now);
        self.last_number = sequence_number;
        let Entry { partition_key, data, .. } = entry;
        // A clock that is set back makes no record older than the one before.
        let arrived_at = shard.records.back().map_or(now, |last| now.max(last.arrived_at));
        shard.records.push_back(Record { sequence_number, partition_key, data, arrived_at });
        Ok(Placed { shard_id: shard.id.clone(), sequence_number })
    }

    /// `GetShardIterator`.
    ///
    /// # Errors
    ///
    /// When there is no such shard.
    pub fn iterator(&self, now: i64, shard_id: &str, position: Position) -> Result<ShardIterator, KinesisError> {
        let shard = self.shard(shard_id)?;
        let offset = match position {
            Position::TrimHorizon => shard.trimmed,
            Position::Latest => shard.end(),
            Position::AtSequenceNumber(number) => shard.offset_of(|record| record.sequence_number >= number),
            Position::AfterSequenceNumber(number) => shard.offset_of(|record| record.sequence_number > number),
            Position::AtTimestamp(time) => shard.offset_of(|record| record.arrived_at >= time),
        };
        Ok(ShardIterator { shard_id: shard_id.to_owned(), offset, issued_at: now })
    }

    /// `GetRecords`: at most `limit` records and 10 MiB, but one if there is one.
    ///
    /// # Errors
    ///
    /// When the iterator is too old, its shard is gone, or the limit is not 1 to 10,000.
    pub fn get_records(&self, now: i64, iterator: &ShardIterator, limit: usize) -> Result<Batch, KinesisError> {
        if !(1..=READ_RECORDS).contains(&limit) {
            return Err(KinesisError::Validation(format!("GetRecords takes a limit of 1 to {READ_RECORDS}")));
        }
        if now - iterator.issued_at > ITERATOR_LIFE_MS {
            return Err(KinesisError::ExpiredIterator);
        }
        let shard = self.shard(&iterator.shard_id)?;
        let start = iterator.offset.max(shard.trimmed);
        let skipped = usize::try_from(start - shard.trimmed).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fits = |(at, record): &(usize, &Record)| {
            bytes += record.size();
            *at == 0 || bytes <= READ_BYTES
        };
        let unread = shard.records().skip(skipped).take(limit).enumerate().take_while(fits);
        let records: Vec<Record> = unread.map(|(_, record)| record.clone()).collect();
        let offset = start + records.len() as u64;
        let is_at_tip = offset >= shard.end();
        let is_over = is_at_tip && !shard.is_open();
        let behind = records.last().filter(|_| !is_at_tip).map_or(0, |last| now - last.arrived_at);
        let next = ShardIterator { offset, issued_at: now, ..iterator.clone() };
        Ok(Batch {
            records,
            next: (!is_over).then_some(next),
            millis_behind_latest: behind.max(0),
            child_shards: if is_over { self.children(&shard.id) } else { Vec::new() },
        })
    }

    fn children(&self, parent: &str) -> Vec<String> {
        let is_child = |shard: &&Shard| shard.parents.iter().any(|id| id == parent);
        self.shards.iter().filter(is_child).map(|shard| shard.id.clone()).collect()
    }

    /// `SplitShard`: the keys below `new_starting_hash_key` go to one child, that key and those above it to the other.
    ///
    /// # Errors
    ///
    /// When there is no such open shard, or the key would leave a child without keys.
    pub fn split(&mut self, now: i64, shard_id: &str, new_starting_hash_key: u128) -> Result<(), KinesisError> {
        let index = self.open_index(shard_id)?;
        let (first, last) = self.shards[index].hash_keys.clone().into_inner();
        if new_starting_hash_key <= first || new_starting_hash_key > last {
            return Err(KinesisError::InvalidArgument(format!("{new_starting_hash_key} does not split {shard_id}")));
        }
        self.close(now, index);
        self.open(first..=new_starting_hash_key - 1, vec![shard_id.to_owned()]);
        self.open(new_starting_hash_key..=last, vec![shard_id.to_owned()]);
        Ok(())
    }

    /// `MergeShards`.
    ///
    /// # Errors
    ///
    /// When they are not two open shards whose ranges touch.
    pub fn merge(&mut self, now: i64, shard_id: &str, adjacent_shard_id: &str) -> Result<(), KinesisError> {
        let indexes = [self.open_index(shard_id)?, self.open_index(adjacent_shard_id)?];
        let [one, other] = indexes.map(|index| self.shards[index].hash_keys.clone());
        let touch = |lower: &RangeInclusive<u128>, upper: &RangeInclusive<u128>| {
            lower.end().checked_add(1) == Some(*upper.start())
        };
        if !touch(&one, &other) && !touch(&other, &one) {
            return Err(KinesisError::InvalidArgument(format!("{shard_id} and {adjacent_shard_id} are not adjacent")));
        }
        indexes.into_iter().for_each(|index| self.close(now, index));
        let keys = *one.start().min(other.start())..=*one.end().max(other.end());
        self.open(keys, vec![shard_id.to_owned(), adjacent_shard_id.to_owned()]);
        Ok(())
    }

    /// `UpdateShardCount`: splits and merges until so many shards have equal ranges.
    ///
    /// # Errors
    ///
    /// When the count is 0.
    pub fn update_shard_count(&mut self, now: i64, count: usize) -> Result<(), KinesisError> {
        if count == 0 {
            return Err(KinesisError::Validation("A stream has at least one shard".into()));
        }
        for range in equal_ranges(count) {
            let cut =
                |shard: &&Shard| shard.hash_keys.contains(range.start()) && shard.hash_keys.start() != range.start();
            let id = self.open_shards().find(cut).map(|shard| shard.id.clone());
            if let Some(id) = id {
                self.split(now, &id, *range.start())?;
            }
        }
        for range in equal_ranges(count) {
            while let [one, next, ..] = &self.open_within(&range)[..] {
                self.merge(now, one, next)?;
            }
        }
        Ok(())
    }

    fn open_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter(|shard| shard.is_open())
    }

    /// The open shards of a range, neighbours side by side.
    fn open_within(&self, range: &RangeInclusive<u128>) -> Vec<String> {
        let mut open: Vec<&Shard> =
            self.open_shards().filter(|shard| range.contains(shard.hash_keys.start())).collect();
        open.sort_by_key(|shard| *shard.hash_keys.start());
        open.into_iter().map(|shard| shard.id.clone()).collect()
    }

    /// Drops what is older than the retention: records, and closed shards without any.
    pub fn trim(&mut self, now: i64) {
        let before = now - self.limits.retention_ms;
        self.shards.iter_mut().for_each(|shard| shard.trim(before));
        self.shards.retain(|shard| shard.closed_at.is_none_or(|closed| closed >= before) || !shard.records.is_empty());
    }

    fn open(&mut self, hash_keys: RangeInclusive<u128>, parents: Vec<String>) {
        self.shards.push(Shard::new(self.shards_made, hash_keys, parents, self.last_number));
        self.shards_made += 1;
    }

    fn close(&mut self, now: i64, index: usize) {
        self.last_number = self.last_number.next(now);
        self.shards[index].close(now, self.last_number);
    }

    fn index(&self, id: &str) -> Result<usize, KinesisError> {
        let found = self.shards.iter().position(|shard| shard.id == id);
        found.ok_or_else(|| KinesisError::ResourceNotFound(id.to_owned()))
    }

    fn open_index(&self, id: &str) -> Result<usize, KinesisError> {
        let index = self.index(id)?;
        if self.shards[index].is_open() {
            Ok(index)
        } else {
            Err(KinesisError::InvalidArgument(format!("{id} is closed")))
        }
    }
}

impl Entry {
    /// What counts against the limits: data and partition key.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }

    fn hash_key(&self) -> u128 {
        self.explicit_hash_key.unwrap_or_else(|| u128::from_be_bytes(Md5::digest(&self.partition_key).into()))
    }
}

/// The space of hash keys in so many equal ranges; what does not divide falls to the last.
fn equal_ranges(count: usize) -> Vec<RangeInclusive<u128>> {
    let width = u128::MAX / count as u128;
    // With one shard the width is the whole space but one key.
    let end = |at: u128| if at + 1 == count as u128 { u128::MAX } else { (at + 1) * width - 1 };
    (0..count as u128).map(|at| at * width..=end(at)).collect()
}

#[cfg(test)]
mod tests;
