//! Did everything that was sent in an hour land, exactly once?

use serde::{Deserialize, Serialize};
use shared::limits::MAX_EVENTS_PER_REQUEST;
use shared::line::EventFormat;
use shared::timestamp::UtcHour;

use crate::manifest::{Received, Totals};

/// CloudWatch's count for one hour.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counted {
    pub(crate) whole: f64,
    /// The parts of `whole` in CloudWatch's first and last period of the hour.
    pub(crate) first: f64,
    pub(crate) last: f64,
}

impl Counted {
    /// What is left without a part of it.
    pub(crate) fn without(self, part: Self) -> Self {
        Self { whole: self.whole - part.whole, first: self.first - part.first, last: self.last - part.last }
    }
}

/// Counts at the sending side.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sent {
    /// Events that ingest accepted, by their receipt.
    pub(crate) accepted: Counted,
    /// Rejected lines that ingest put on the stream, by their receipt.
    pub(crate) rejected: Counted,
    /// Requests that ingest's function counted, by their receipt.
    pub(crate) requests: Counted,
    /// Requests that ingest-server counted, by their receipt.
    pub(crate) server_requests: Counted,
    /// Invocations of ingest that Lambda counted.
    pub(crate) invocations: Counted,
    /// Records that arrived on the stream.
    pub(crate) records: Counted,
}

/// A sealed hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Hour<'a> {
    pub(crate) hour: UtcHour,
    pub(crate) sent: Sent,
    pub(crate) landed: &'a Totals,
}

/// What an hour lacks, and what it has too often.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Balance {
    /// Events and rejected lines that were sent and did not land.
    pub(crate) lost_events: f64,
    /// Events and rejected lines that landed but were not sent, or landed more often than they were sent.
    pub(crate) doubled_events: f64,
    /// Records that arrived on the stream and did not land.
    pub(crate) lost_records: f64,
    /// Records that landed more often than they arrived.
    pub(crate) doubled_records: f64,
    /// Events and rejected lines by which ingest's counts may be wrong: that many more may be lost, or doubled.
    pub(crate) unknown_events: f64,
}

impl Balance {
    /// Whether nothing is certainly lost or doubled.
    pub(crate) fn is_even(&self) -> bool {
        *self == Self { unknown_events: self.unknown_events, ..Self::default() }
    }
}

/// The balances of consecutive sealed hours, oldest first, except for the first and the last, which lack a neighbour.
///
/// Lines that carry their time of receipt are compared exactly. Raw events and records are not: what is in flight at the full
/// hour is counted in one hour when sent and in the other when landed (see [`missing`]). What is certainly in two objects is
/// doubled and does not offset a loss.
///
/// Ingest's counts of an hour may be incomplete: lines that are not written yet, processes that were killed, lines of its log
/// that CloudWatch dropped. Its count of requests is in the same lines, and Lambda counts invocations by itself. A request that
/// was not counted excuses [`MAX_EVENTS_PER_REQUEST`] events that landed and were not counted; and one too many, as CloudWatch
/// took a line twice, that many that were counted and did not land. Nobody else counts the server's requests: where it runs, a
/// task that was killed can have taken the counts of everything that landed and was not counted.
pub(crate) fn balances(hours: &[Hour<'_>], format: EventFormat) -> Vec<Balance> {
    let flows = |of: fn(&Hour<'_>) -> Flow| -> Vec<Flow> { hours.iter().map(of).collect() };
    let (records, requests) = (Differences::of(&flows(Flow::of_records)), Differences::of(&flows(Flow::of_requests)));
    let raw_events = Differences::of(&flows(Flow::of_raw_events));
    let balance = |(at, around): (usize, &[Hour<'_>])| {
        let this = &around[1];
        let events = match format {
            EventFormat::Envelope => {
                difference(this.sent.accepted, received_events(around), received(around, repeated_events))
            }
            EventFormat::Raw => raw_events.at(at, this.landed.repeated.events as f64),
        };
        let repeated = received(around, |totals| totals.repeated.rejected_received_in);
        let rejected = difference(this.sent.rejected, received_rejected(around), repeated);
        let (records, requests) = (records.at(at, this.landed.repeated.records as f64), requests.at(at, 0.0));
        let events_of = |requests: f64| requests * MAX_EVENTS_PER_REQUEST as f64;
        let surplus = events.surplus + rejected.surplus;
        let by_server = if is_by_server(around) { surplus } else { 0.0 };
        let not_counted = events_of(requests.lost).max(by_server);
        let counted_twice = events_of(requests.surplus);
        Balance {
            lost_events: (events.lost + rejected.lost - counted_twice).max(0.0),
            doubled_events: (surplus - not_counted).max(0.0) + events.repeated + rejected.repeated,
            lost_records: records.lost,
            doubled_records: records.surplus + records.repeated,
            unknown_events: not_counted + counted_twice,
        }
    };
    hours.windows(3).enumerate().map(balance).collect()
}

/// Whether the server took requests. The counts of an hour's last ones may be missing all together.
fn is_by_server(around: &[Hour<'_>]) -> bool {
    around.iter().any(|hour| hour.sent.server_requests.whole > 0.0)
}

/// What of an hour's things is lost, what of them is too much, and what is certainly in two objects.
#[derive(Debug, Clone, Copy)]
struct Difference {
    lost: f64,
    surplus: f64,
    repeated: f64,
}

/// Of lines of which so many landed, some of them `repeated`.
fn difference(sent: Counted, landed: f64, repeated: f64) -> Difference {
    let distinct = (landed - repeated).max(0.0);
    Difference { lost: (sent.whole - distinct).max(0.0), surplus: (distinct - sent.whole).max(0.0), repeated }
}

/// Of consecutive hours.
struct Differences {
    lost: Vec<f64>,
    surplus: Vec<f64>,
}

impl Differences {
    fn of(flows: &[Flow]) -> Self {
        let reversed: Vec<Flow> = flows.iter().map(Flow::reversed).collect();
        Self { lost: missing(flows), surplus: missing(&reversed) }
    }

    fn at(&self, at: usize, repeated: f64) -> Difference {
        Difference { lost: self.lost[at], surplus: self.surplus[at], repeated }
    }
}

/// Events that ingest received in the middle of three hours, whichever of them they landed in.
pub(crate) fn received_events(around: &[Hour<'_>]) -> f64 {
    received(around, |totals| totals.events_received_in)
}

/// Rejected lines that ingest received in the middle of three hours, whichever of them they landed in.
pub(crate) fn received_rejected(around: &[Hour<'_>]) -> f64 {
    received(around, |totals| totals.rejected_received_in)
}

fn repeated_events(totals: &Totals) -> Received {
    totals.repeated.events_received_in
}

fn received(around: &[Hour<'_>], of: impl Fn(&Totals) -> Received) -> f64 {
    let [previous, this, next] = around else { return 0.0 };
    of(previous.landed).next as f64 + of(this.landed).this as f64 + of(next.landed).previous as f64
}

/// Expected and actual counts of an hour, by different clocks.
#[derive(Debug, Clone, Copy)]
struct Flow {
    wanted: f64,
    there: f64,
    /// What was sent in the first and in the last period of the hour: no more than this can move to a neighbour.
    first: f64,
    last: f64,
}

impl Flow {
    fn of_records(hour: &Hour<'_>) -> Self {
        Self::new(hour.sent.records, hour.landed.records.saturating_sub(hour.landed.repeated.records))
    }

    /// Without what redrive made of rejected lines, which ingest did not accept, and with what was deleted.
    fn of_raw_events(hour: &Hour<'_>) -> Self {
        let Totals { events, deleted_events, redriven_events, repeated, .. } = hour.landed;
        let events = events.saturating_add(*deleted_events);
        Self::new(hour.sent.accepted, events.saturating_sub(*redriven_events).saturating_sub(repeated.events))
    }

    /// Lambda's clock dates invocations, and the front door's requests.
    fn of_requests(hour: &Hour<'_>) -> Self {
        let Sent { requests, invocations, .. } = hour.sent;
        Self { there: requests.whole, ..Self::new(invocations, 0) }
    }

    fn new(sent: Counted, landed: u64) -> Self {
        Self { wanted: sent.whole, there: landed as f64, first: sent.first, last: sent.last }
    }

    /// The same with the sides swapped: finds a surplus.
    fn reversed(&self) -> Self {
        Self { wanted: self.there, there: self.wanted, ..*self }
    }
}

/// Records of the stream that landed in an hour, where objects overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LandedRecords {
    /// Without the objects that overlap others.
    pub(crate) at_least: u64,
    /// Without what is certainly in another object too.
    pub(crate) at_most: u64,
}

/// How many records of the middle of three hours are certainly lost, and how many may be. A neighbour that is not sealed yet
/// (`None`) may hold everything that it could hold for this hour, or nothing.
pub(crate) fn lost_records(
    arrived: [Counted; 3],
    landed: LandedRecords,
    [previous, next]: [Option<&Totals>; 2],
) -> (f64, f64) {
    let lost = |landed: u64, in_unsealed: u64| {
        let distinct = |totals: &Totals| totals.records.saturating_sub(totals.repeated.records);
        let neighbour = |arrived, totals: Option<&Totals>| Flow::new(arrived, totals.map_or(in_unsealed, distinct));
        let flows = [neighbour(arrived[0], previous), Flow::new(arrived[1], landed), neighbour(arrived[2], next)];
        missing(&flows).first().copied().unwrap_or_default()
    };
    (lost(landed.at_most, u64::MAX), lost(landed.at_least, 0))
}

/// What each hour except the first and the last lacks and its neighbours don't have.
///
/// A neighbour's surplus offsets at most what was sent around the full hour between them; the rest is doubled. It offsets
/// only once, for the earlier hour first.
fn missing(hours: &[Flow]) -> Vec<f64> {
    let mut surplus: Vec<f64> = hours.iter().map(|hour| (hour.there - hour.wanted).max(0.0)).collect();
    let mut take = |neighbour: usize, lacks: f64, across: f64| {
        let moved = lacks.min(surplus[neighbour]).min(across);
        surplus[neighbour] -= moved;
        lacks - moved
    };
    let inner = hours.windows(3).enumerate().map(|(at, around)| {
        let [previous, this, next] = [around[0], around[1], around[2]];
        let lacks = (this.wanted - this.there).max(0.0);
        let lacks = take(at, lacks, previous.last + this.first);
        take(at + 2, lacks, this.last + next.first)
    });
    inner.collect()
}

#[cfg(test)]
mod tests;
