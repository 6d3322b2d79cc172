//! What is counted of lines of one kind.

use shared::line::LineHead;
use shared::object::ReceivedIn;
use shared::rejection::ReasonCounts;
use shared::timestamp::{UnixMillis, UtcHour};

/// Counts of lines of one kind.
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

/// When a line was received and when it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    /// As far as it is believed.
    pub received_at: UnixMillis,
    /// The hour in which the record arrived on the stream.
    pub arrived_in: UtcHour,
}

impl Counts {
    /// Counts a line.
    pub(crate) fn add_line(&mut self, head: LineHead, receipt: Receipt) {
        self.lines += 1;
        self.extend_received_at(receipt.received_at, receipt.received_at);
        self.received_in.count(head, receipt.arrived_in);
        if let Some(reason) = head.reason {
            self.reasons.add(reason, 1);
        }
    }

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
