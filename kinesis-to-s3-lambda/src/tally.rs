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
    /// Lone surrogates that were replaced, by kind.
    replaced_surrogates: [u64; 2],
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

    /// Counts lone surrogates that were replaced in a line.
    pub fn count_replaced_surrogates(&mut self, kind: Kind, count: u64) {
        self.replaced_surrogates[kind as usize] += count;
    }

    /// Counts all that another has counted.
    pub fn add_all(&mut self, other: &Self) {
        self.events.add_all(other.events);
        self.rejected.add_all(other.rejected);
        self.reasons.add_all(&other.reasons);
        self.replaced_surrogates.iter_mut().zip(other.replaced_surrogates).for_each(|(count, more)| *count += more);
    }

    /// The lines of one kind by the hour of their receipt.
    #[must_use]
    pub fn received_in(&self, kind: Kind) -> ReceivedIn {
        match kind {
            Kind::Event => self.events,
            Kind::Rejected => self.rejected,
        }
    }

    /// Lone surrogates that were replaced in the lines of one kind.
    #[must_use]
    pub fn replaced_surrogates(&self, kind: Kind) -> u64 {
        self.replaced_surrogates[kind as usize]
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
