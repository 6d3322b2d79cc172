//! The records of a shard that are in no object, grouped into what becomes one object each.
//!
//! An object of events holds all records with events between its first and its last, and one of rejected lines likewise;
//! so each kind has gaps of its own. A gap is cut where an object that was lost began or ended, as far as that is known, and
//! where its object would become too large otherwise.

use kinesis_to_s3_lambda::group::{Group, group};
use kinesis_to_s3_lambda::kinesis_event::Record;
use kinesis_to_s3_lambda::record_lines::{RecordReader, Source};
use shared::limits::{MAX_BATCH_RECORDS, MAX_LAMBDA_PAYLOAD_BYTES};
use shared::line::{EventFormat, Kind};
use shared::timestamp::{UnixMillis, UtcHour};

use super::coverage::{Coverage, Place};

/// Bytes of lines in an object at most, unless it was larger when it was lost: what a batch of plain records, which are base64,
/// can hold. One record may have more.
const MAX_BYTES: usize = MAX_LAMBDA_PAYLOAD_BYTES / 4 * 3;

/// Which records are wanted, and how they are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) hour: UtcHour,
    /// Records that arrived later are left to landing.
    pub(crate) before: UnixMillis,
    pub(crate) event_format: EventFormat,
}

/// Records of the hour by where their lines are. One with lines of both kinds counts for each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) already_there: u64,
    pub(crate) in_failed_batches: u64,
    pub(crate) missing: u64,
}

/// Missing records of one kind without any other between them.
struct Run {
    kind: Kind,
    records: Vec<Record>,
    /// Of their lines.
    bytes: usize,
}

/// Finds the gaps while a shard is read.
pub(crate) struct Gaps {
    wanted: Wanted,
    coverage: Coverage,
    reader: RecordReader,
    runs: [Run; 2],
    pub(crate) counts: Counts,
}

impl Gaps {
    pub(crate) fn new(wanted: Wanted, coverage: Coverage) -> Self {
        let runs = [Kind::Event, Kind::Rejected].map(|kind| Run { kind, records: Vec::new(), bytes: 0 });
        Self { wanted, coverage, reader: RecordReader::default(), runs, counts: Counts::default() }
    }

    /// Takes the shard's next record; the groups that end before it or with it.
    pub(crate) fn take(&mut self, record: &Record) -> Vec<Group> {
        let (wanted, number) = (self.wanted, &record.kinesis.sequence_number);
        let arrival = record.arrival();
        if arrival.hour() != wanted.hour || arrival >= wanted.before {
            return Vec::new();
        }
        let lines = self.reader.read(&record.kinesis.data, &Source::of(record, wanted.event_format));
        let mut ended = Vec::new();
        for run in &mut self.runs {
            let bytes = lines.of(run.kind).text.len();
            if bytes == 0 {
                continue;
            }
            let place = self.coverage.place(run.kind, number);
            let is_full = run.is_full(bytes) && !self.coverage.is_named(run.kind, number);
            let begins = place != Place::Nowhere || self.coverage.starts(run.kind, number) || is_full;
            ended.extend(begins.then(|| run.end(wanted.event_format)).flatten());
            match place {
                Place::Landed => self.counts.already_there += 1,
                Place::FailedBatch => self.counts.in_failed_batches += 1,
                Place::Nowhere => {
                    self.counts.missing += 1;
                    run.push(record, bytes);
                }
            }
            let ends = self.coverage.ends(run.kind, number);
            ended.extend(ends.then(|| run.end(wanted.event_format)).flatten());
        }
        ended
    }

    /// The groups that end with the hour.
    pub(crate) fn finish(&mut self) -> Vec<Group> {
        let format = self.wanted.event_format;
        self.runs.iter_mut().filter_map(|run| run.end(format)).collect()
    }
}

impl Run {
    fn is_full(&self, next_bytes: usize) -> bool {
        self.records.len() >= MAX_BATCH_RECORDS || self.bytes + next_bytes > MAX_BYTES
    }

    fn push(&mut self, record: &Record, bytes: usize) {
        self.bytes += bytes;
        self.records.push(record.clone());
    }

    /// What landing makes of the run's lines of its kind; nothing of an empty one.
    fn end(&mut self, format: EventFormat) -> Option<Group> {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        group(&records, format).into_iter().find(|group| group.kind == self.kind)
    }
}

#[cfg(test)]
mod tests;
