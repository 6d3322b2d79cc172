//! The lines of a record, counted: by kind and hour of receipt, and the rejected ones by reason.
//!
//! Counted for a record, not for a chunk: a record may be a hundred thousand chunks, and all its lines of one kind go into
//! one group anyway.

use shared::line::{Kind, LineHead};
use shared::object::ReceivedIn;
use shared::rejection::ReasonCounts;
use shared::timestamp::UtcHour;

/// The lines of one payload or record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    events: ReceivedIn,
    rejected: ReceivedIn,
    /// Of the rejected lines.
    reasons: ReasonCounts,
}

impl Tally {
    /// Counts a line of a record that arrived in `hour`.
    pub fn count(&mut self, line: LineHead, hour: UtcHour) {
        match line.kind {
            Kind::Event => self.events.count(line, hour),
            Kind::Rejected => self.rejected.count(line, hour),
        }
        if let Some(reason) = line.reason {
            self.reasons.add(reason, 1);
        }
    }

    /// Counts all that another has counted.
    pub fn add_all(&mut self, other: &Self) {
        self.events.add_all(other.events);
        self.rejected.add_all(other.rejected);
        self.reasons.add_all(&other.reasons);
    }

    /// The lines of one kind by the hour of their receipt.
    #[must_use]
    pub fn received_in(&self, kind: Kind) -> ReceivedIn {
        match kind {
            Kind::Event => self.events,
            Kind::Rejected => self.rejected,
        }
    }

    /// The lines of one kind by reason: none for events.
    #[must_use]
    pub fn reasons(&self, kind: Kind) -> ReasonCounts {
        match kind {
            Kind::Event => ReasonCounts::default(),
            Kind::Rejected => self.reasons,
        }
    }
}
