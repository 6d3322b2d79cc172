//! Did all that was sent in an hour land, and once?

use shared::line::EventFormat;

use crate::manifest::Totals;

/// Something of an hour and of its two neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Around<T> {
    pub previous: T,
    pub this: T,
    pub next: T,
}

impl<T: Copy> Around<T> {
    pub fn map<U>(self, change: impl Fn(T) -> U) -> Around<U> {
        Around { previous: change(self.previous), this: change(self.this), next: change(self.next) }
    }
}

/// What was counted where it was sent: numbers as CloudWatch gives them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sent {
    /// Events that ingest accepted, by their receipt.
    pub accepted: f64,
    /// Rejected lines that ingest put on the stream, by their receipt.
    pub rejected: f64,
    /// Records that arrived on the stream.
    pub records: f64,
}

/// What is missing in an hour, and what is too much.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Balance {
    /// Events and rejected lines that were sent and did not land.
    pub lost_events: f64,
    /// Events and rejected lines that landed and were not sent, or not so often.
    pub doubled_events: f64,
    /// Records that arrived on the stream and did not land.
    pub lost_records: f64,
}

/// Compares the middle hour.
///
/// Lines that carry their time of receipt are compared to the line. Raw events and records are not: what is under way at
/// the full hour is counted in one hour there and in the other here, so that an hour's shortfall is made good by what its
/// neighbours have too much.
#[must_use]
pub fn balance(sent: Around<Sent>, landed: Around<&Totals>, format: EventFormat) -> Balance {
    let accepted = sent.map(|hour| hour.accepted);
    let (lost, doubled) = match format {
        EventFormat::Envelope => differences(accepted.this, received_events(landed)),
        EventFormat::Raw => {
            let events = landed.map(|totals| totals.events as f64);
            (shortfall(accepted, events), shortfall(events, accepted))
        }
    };
    let (lost_rejected, doubled_rejected) = differences(sent.this.rejected, received_rejected(landed));
    Balance {
        lost_events: lost + lost_rejected,
        doubled_events: doubled + doubled_rejected,
        lost_records: shortfall(sent.map(|hour| hour.records), landed.map(|totals| totals.records as f64)),
    }
}

/// Events that ingest received in the middle hour, in whichever hour they landed.
#[must_use]
pub fn received_events(landed: Around<&Totals>) -> f64 {
    let Around { previous, this, next } = landed.map(|totals| totals.events_received_in);
    (previous.next + this.this + next.previous) as f64
}

/// Rejected lines that ingest received in the middle hour, in whichever hour they landed.
#[must_use]
pub fn received_rejected(landed: Around<&Totals>) -> f64 {
    let Around { previous, this, next } = landed.map(|totals| totals.rejected_received_in);
    (previous.next + this.this + next.previous) as f64
}

/// What is missing, and what is too much.
fn differences(sent: f64, landed: f64) -> (f64, f64) {
    ((sent - landed).max(0.0), (landed - sent).max(0.0))
}

/// What the middle hour lacks and its neighbours do not have instead.
fn shortfall(wanted: Around<f64>, there: Around<f64>) -> f64 {
    let surplus = |wanted: f64, there: f64| (there - wanted).max(0.0);
    let neighbours = surplus(wanted.previous, there.previous) + surplus(wanted.next, there.next);
    (wanted.this - there.this - neighbours).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Received;
    use proptest::prelude::*;
    use rstest::rstest;

    fn hour(previous: u64, this: u64, next: u64, elsewhere: u64) -> Totals {
        Totals {
            events: previous + this + next + elsewhere,
            events_received_in: Received { previous, this, next, elsewhere },
            ..Totals::default()
        }
    }

    fn only_this(sent: Sent) -> Around<Sent> {
        Around { previous: Sent::default(), this: sent, next: Sent::default() }
    }

    #[rstest]
    #[case(107.0, 0.0, 0.0)]
    #[case(110.0, 3.0, 0.0)]
    #[case(100.0, 0.0, 7.0)]
    fn events_count_by_their_receipt(#[case] accepted: f64, #[case] lost: f64, #[case] doubled: f64) {
        // Two of the hour landed in the hour before by a clock that differs, five in the hour after.
        let (previous, this, next) = (hour(9, 90, 2, 0), hour(8, 100, 1, 50), hour(5, 80, 0, 0));
        let landed = Around { previous: &previous, this: &this, next: &next };
        let sent = only_this(Sent { accepted, ..Sent::default() });
        let expected = Balance { lost_events: lost, doubled_events: doubled, lost_records: 0.0 };
        assert_eq!(balance(sent, landed, EventFormat::Envelope), expected);
    }

    #[test]
    fn rejected_lines_are_balanced_for_themselves() {
        // A lost event is not made good by a rejected line too many.
        let none = Totals::default();
        let this = Totals {
            rejected_received_in: Received { this: 4, elsewhere: 9, ..Received::default() },
            ..hour(0, 10, 0, 0)
        };
        let landed = Around { previous: &none, this: &this, next: &none };
        let sent = only_this(Sent { accepted: 11.0, rejected: 3.0, records: 0.0 });
        let expected = Balance { lost_events: 1.0, doubled_events: 1.0, lost_records: 0.0 };
        assert_eq!(balance(sent, landed, EventFormat::Envelope), expected);
    }

    #[rstest]
    #[case([100.0, 100.0, 100.0], [100, 100, 100], 0.0)]
    #[case([100.0, 100.0, 100.0], [100, 97, 103], 0.0)]
    #[case([100.0, 100.0, 100.0], [102, 97, 100], 1.0)]
    #[case([100.0, 100.0, 100.0], [90, 97, 90], 3.0)]
    #[case([100.0, 100.0, 100.0], [100, 104, 96], 0.0)]
    fn records_at_the_full_hour_may_be_counted_in_either(
        #[case] arrived: [f64; 3],
        #[case] landed: [u64; 3],
        #[case] lost: f64,
    ) {
        let totals = landed.map(|records| Totals { records, ..Totals::default() });
        let sent = arrived.map(|records| Sent { records, ..Sent::default() });
        let around = Around { previous: sent[0], this: sent[1], next: sent[2] };
        let landed = Around { previous: &totals[0], this: &totals[1], next: &totals[2] };
        assert_eq!(balance(around, landed, EventFormat::Envelope).lost_records, lost);
    }

    proptest! {
        #[test]
        fn events_are_lost_and_doubled_to_the_line_wherever_they_land(
            on_time in 0u64..1_000_000, before in 0u64..1_000, after in 0u64..1_000,
            others in prop::array::uniform6(0u64..1_000_000), lost in 0u64..1_000, doubled: bool,
        ) {
            let previous = hour(others[0], others[1], before, others[2]);
            let this = hour(others[3], on_time, others[4], others[5]);
            let next = hour(after, others[1], others[2], others[3]);
            let landed = Around { previous: &previous, this: &this, next: &next };
            let there = (on_time + before + after) as f64;
            let accepted = if doubled { there - lost as f64 } else { there + lost as f64 };
            let balance = balance(only_this(Sent { accepted, ..Sent::default() }), landed, EventFormat::Envelope);
            let expected = if doubled { (0.0, lost as f64) } else { (lost as f64, 0.0) };
            prop_assert_eq!((balance.lost_events, balance.doubled_events), expected);
        }

        #[test]
        fn raw_events_that_only_change_the_hour_are_not_lost(
            events in prop::array::uniform3(1_000u64..1_000_000), shift in 0u64..1_000, forwards: bool,
        ) {
            let sent = events.map(|events| Sent { accepted: events as f64, ..Sent::default() });
            let mut landed = events;
            let (from, to) = if forwards { (1, 2) } else { (0, 1) };
            landed[from] -= shift;
            landed[to] += shift;
            let totals = landed.map(|events| Totals { events, ..Totals::default() });
            let around = Around { previous: sent[0], this: sent[1], next: sent[2] };
            let landed = Around { previous: &totals[0], this: &totals[1], next: &totals[2] };
            prop_assert_eq!(balance(around, landed, EventFormat::Raw), Balance::default());
        }
    }
}
