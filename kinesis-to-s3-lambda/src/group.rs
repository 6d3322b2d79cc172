//! The lines of a batch by kind and hour: what becomes one object each.

use bytes::Bytes;
use shared::frame::{FrameError, is_frame};
use shared::line::{EventFormat, Kind};
use shared::object::{FirstRecord, ObjectKey, ObjectName};
use shared::timestamp::UtcHour;

use crate::counts::Counts;
use crate::kinesis_event::Record;
use crate::record_lines::{Lines, RecordReader, Source};

/// The lines of one kind and hour, in the order of the stream.
///
/// They are counted here and, but for the first MiB, read again when they are compressed: uncompressed, the frames of a batch
/// can be 200 MiB.
#[derive(Debug, Clone)]
pub struct Group {
    pub event_format: EventFormat,
    pub kind: Kind,
    pub hour: UtcHour,
    pub shard_id: String,
    pub first_sequence_number: String,
    pub last_sequence_number: String,
    /// Records whose first line is in the group, so that each record of a batch is counted once.
    pub record_count: u64,
    /// What its lines are.
    pub counts: Counts,
    /// Bytes of all lines.
    pub bytes: usize,
    records: Vec<Member>,
}

/// Bytes of a group's lines up to which those of frames are kept, so that most batches decompress them once.
const MAX_KEPT_BYTES: usize = 1024 * 1024;

/// A record with lines in a group.
#[derive(Debug, Clone)]
enum Member {
    /// The lines are all of its text: this, or what is in this frame.
    Whole(Bytes),
    /// The lines are found by judging it again.
    Part(Box<Record>),
}

impl Group {
    /// The key of the group's object. It does not depend on where the batch ends.
    #[must_use]
    pub fn key(&self) -> String {
        ObjectKey { kind: self.kind, hour: self.hour, name: self.name() }.to_string()
    }

    /// What its object is named after.
    #[must_use]
    pub fn name(&self) -> ObjectName {
        let (shard_id, sequence_number) = (self.shard_id.clone(), self.first_sequence_number.clone());
        ObjectName::Landed(FirstRecord { shard_id, sequence_number })
    }

    #[must_use]
    pub fn lines(&self) -> u64 {
        self.counts.lines
    }

    /// Hands on the lines, those of a record at a time; the last may lack its line feed.
    ///
    /// # Errors
    ///
    /// The first of `take`. (That a frame can't be read was found when the group was made.)
    pub fn for_each_text<E: From<FrameError>>(&self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut reader = RecordReader::default();
        for record in &self.records {
            match record {
                Member::Whole(data) => take(reader.text(data)?)?,
                Member::Part(record) => {
                    let lines = reader.read(&record.kinesis.data, &Source::of(record, self.event_format));
                    take(&lines.of(self.kind).text)?;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, record: &Record, lines: &Lines, are_its_text: bool) {
        self.last_sequence_number.clone_from(&record.kinesis.sequence_number);
        self.counts.add_all(&lines.counts);
        self.bytes += lines.text.len();
        let member = if are_its_text && is_frame(&record.kinesis.data) && self.bytes <= MAX_KEPT_BYTES {
            Member::Whole(Bytes::copy_from_slice(&lines.text))
        } else if are_its_text {
            Member::Whole(record.kinesis.data.clone())
        } else {
            Member::Part(Box::new(record.clone()))
        };
        self.records.push(member);
    }
}

/// Groups the records of a batch. Each record has all its lines of one kind in one group.
///
/// What becomes of a record depends on nothing but the record and the format of events: the names of objects must be the
/// same wherever a batch begins and ends.
#[must_use]
pub fn group(records: &[Record], format: EventFormat) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut reader = RecordReader::default();
    for record in records {
        let hour = record.arrival().hour();
        let lines = reader.read(&record.kinesis.data, &Source::of(record, format));
        for (index, (kind, of_kind)) in lines.kinds().enumerate() {
            let is_its =
                |group: &Group| group.kind == kind && group.hour == hour && group.shard_id == record.shard_id();
            let at = groups.iter().position(is_its).unwrap_or_else(|| {
                groups.push(empty_group(record, format, kind));
                groups.len() - 1
            });
            groups[at].record_count += u64::from(index == 0);
            groups[at].push(record, of_kind, lines.are_its_text);
        }
    }
    groups
}

fn empty_group(record: &Record, event_format: EventFormat, kind: Kind) -> Group {
    Group {
        event_format,
        kind,
        hour: record.arrival().hour(),
        shard_id: record.shard_id().to_owned(),
        first_sequence_number: record.kinesis.sequence_number.clone(),
        last_sequence_number: record.kinesis.sequence_number.clone(),
        record_count: 0,
        counts: Counts::default(),
        bytes: 0,
        records: Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
