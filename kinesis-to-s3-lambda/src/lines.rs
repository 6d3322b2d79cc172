//! Lines of one kind: their text, and what is counted of them.

use bytes::Bytes;
use shared::line::LineHead;
use shared::object::ReceivedIn;
use shared::rejection::ReasonCounts;
use shared::timestamp::{UnixMillis, UtcHour};

/// What is counted of lines of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub lines: u64,
    /// When the earliest and the latest of them were received; `None` without a line.
    pub received_at: Option<(UnixMillis, UnixMillis)>,
    /// By the hour of their receipt.
    pub received_in: ReceivedIn,
    /// By the reason of their rejection: none for events.
    pub reasons: ReasonCounts,
    /// Lone surrogates that were replaced in them.
    pub replaced_surrogates: u64,
}

impl Counts {
    /// Counts all that another has counted.
    pub fn add_all(&mut self, other: &Self) {
        self.lines += other.lines;
        if let Some((earliest, latest)) = other.received_at {
            self.extend_received_at(earliest, latest);
        }
        self.received_in.add_all(other.received_in);
        self.reasons.add_all(&other.reasons);
        self.replaced_surrogates += other.replaced_surrogates;
    }

    fn extend_received_at(&mut self, earliest: UnixMillis, latest: UnixMillis) {
        let (first, last) = self.received_at.unwrap_or((earliest, latest));
        self.received_at = Some((first.min(earliest), last.max(latest)));
    }
}

/// The lines of one kind that one record holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lines {
    pub counts: Counts,
    /// As they land, each with its line feed.
    pub text: Vec<u8>,
}

/// When a line was received and when it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    /// As far as it is believed.
    pub received_at: UnixMillis,
    /// The hour in which the record arrived on the stream.
    pub arrived_in: UtcHour,
}

impl Lines {
    /// Adds a line, with or without its line feed.
    pub fn push(&mut self, line: &[u8], head: LineHead, receipt: Receipt) {
        self.counts.lines += 1;
        self.counts.extend_received_at(receipt.received_at, receipt.received_at);
        self.counts.received_in.count(head, receipt.arrived_in);
        if let Some(reason) = head.reason {
            self.counts.reasons.add(reason, 1);
        }
        self.text.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            self.text.push(b'\n');
        }
    }

    /// Adds all lines of another part of the same record.
    pub fn append(&mut self, other: &Self) {
        self.counts.add_all(&other.counts);
        self.text.extend_from_slice(&other.text);
    }

    /// The text. Of a record that lands as it is, it is the record's own memory, which the batch holds anyway.
    #[must_use]
    pub fn into_text(self, record: &Bytes) -> Bytes {
        if self.text == **record { record.clone() } else { self.text.into() }
    }
}
