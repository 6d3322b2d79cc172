//! The lines of one record, whoever wrote it: ours, another producer's JSON or aggregate, or anything else.

mod judge;

use bytes::Bytes;
use shared::frame::{FrameError, FrameReader, is_frame};
use shared::line::{EventFormat, Kind, LineHead};
use shared::timestamp::UnixMillis;
use shared::trust::Trust;

use crate::counts::{Counts, Receipt};
use crate::kinesis_event::Record;
use crate::kpl::deaggregate;
use judge::{Judge, Payload};

/// The lines of one kind in a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lines {
    pub counts: Counts,
    /// As they land, each with its line feed.
    pub text: Vec<u8>,
}

/// A record's lines: every byte of it but blank lines is in one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordLines {
    pub events: Lines,
    pub rejected: Lines,
    /// The kind of the first line.
    first: Option<Kind>,
    /// Whether the lines are of one kind and are the record's text as it is, at most with a line feed after it.
    pub are_its_text: bool,
}

impl RecordLines {
    /// The kinds of lines that there are, that of the first line first.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, &Lines)> {
        let kinds = match self.first {
            Some(Kind::Rejected) => [Kind::Rejected, Kind::Event],
            _ => [Kind::Event, Kind::Rejected],
        };
        kinds.into_iter().map(|kind| (kind, self.of(kind))).filter(|(_, lines)| lines.counts.lines > 0)
    }

    /// The lines of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &Lines {
        match kind {
            Kind::Event => &self.events,
            Kind::Rejected => &self.rejected,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Lines {
        match kind {
            Kind::Event => &mut self.events,
            Kind::Rejected => &mut self.rejected,
        }
    }

    fn push(&mut self, line: &[u8], head: LineHead, receipt: Receipt) {
        self.first.get_or_insert(head.kind);
        let lines = self.of_mut(head.kind);
        lines.counts.add_line(head, receipt);
        lines.text.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            lines.text.push(b'\n');
        }
    }

    fn clear(&mut self) {
        for lines in [&mut self.events, &mut self.rejected] {
            lines.counts = Counts::default();
            lines.text.clear();
        }
        self.first = None;
    }

    fn are(&self, text: &[u8]) -> bool {
        self.kinds().any(|(_, lines)| lines.text == text || lines.text.strip_suffix(b"\n") == Some(text))
    }
}

/// Lines of one record that are rejected one by one at most; further ones share a rejected line.
pub(crate) const MAX_REJECTED_LINES: usize = 100;

/// How many lines of a record of so many bytes are rejected one by one: two, or one in 128 bytes. A bad line of two bytes
/// becomes one of some 600, so a small record full of them would become hundreds of times as large.
fn max_rejected_lines(record_bytes: usize) -> usize {
    (record_bytes / 128).clamp(2, MAX_REJECTED_LINES)
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub arrival: UnixMillis,
    /// Identifies the record, and is the same each time it is sent; rejected lines are named after it.
    pub name: &'a str,
    pub trust: Trust,
}

impl<'a> Source<'a> {
    /// Of a record on a stream whose events have this format.
    #[must_use]
    pub fn of(record: &'a Record, format: EventFormat) -> Self {
        let trust = Trust::in_record(format, &record.kinesis.partition_key);
        Self { arrival: record.arrival(), name: &record.event_id, trust }
    }
}

/// Reads records one after the other, in the same memory.
#[derive(Default)]
pub struct RecordReader {
    /// From the first frame on.
    frames: Option<FrameReader>,
    lines: RecordLines,
}

impl RecordReader {
    /// Takes a record's data apart: one payload, a zstd frame of one ([`shared::frame`]), or an aggregate of payloads, each
    /// judged by itself.
    ///
    /// Of the payload,
    ///
    /// - JSON objects, one a line, pass as they are. Beside at least one of them, bad lines are rejected one by one up to
    ///   [`max_rejected_lines`]; what is bad beyond that shares one more rejected line, and costs no good line.
    /// - One JSON object over several lines passes, folded into one.
    /// - In both, surrogate escapes without a partner are replaced, as ingest does.
    /// - All else is rejected whole, as it came: a text without an object in it, and a value over several lines that is damaged
    ///   or has lines beside it, since a line of it would be a piece of something. So are frames that can't be read, and frames
    ///   and aggregates inside of others, in whose bytes lines may stand.
    pub fn read(&mut self, data: &Bytes, source: &Source<'_>) -> &RecordLines {
        self.read_with_at_most(max_rejected_lines(data.len()), data, source)
    }

    fn read_with_at_most(&mut self, max_rejected: usize, data: &Bytes, source: &Source<'_>) -> &RecordLines {
        self.lines.clear();
        let mut judge = Judge::new(*source, max_rejected, &mut self.lines);
        let mut text = &data[..];
        if let Some(user_records) = deaggregate(data) {
            judge.take_user_records(user_records);
        } else if is_frame(data) {
            let lines = self.frames.get_or_insert_default().lines(data);
            text = lines.unwrap_or_default();
            judge.take_frame(data, lines);
        } else {
            judge.take(&Payload { name: source.name, data, text });
        }
        judge.reject_surplus();
        self.lines.are_its_text = self.lines.are(text);
        &self.lines
    }

    /// The text of data that were read before: of a frame, what is in it.
    ///
    /// # Errors
    ///
    /// For a frame that can't be read.
    pub fn text<'d>(&'d mut self, data: &'d [u8]) -> Result<&'d [u8], FrameError> {
        if is_frame(data) { self.frames.get_or_insert_default().lines(data) } else { Ok(data) }
    }
}

#[cfg(test)]
mod tests;
