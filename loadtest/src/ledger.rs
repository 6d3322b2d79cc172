//! Every event of a run by its number: when it was planned and what the answer said of it.
//!
//! An event carries its number in its id, `lt-<run id>-<number>`; bad input carries the same text somewhere in its bytes.
//! So every landed line can be traced to what was sent.

use shared::line::Kind;

/// What the answer said of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    /// Accepted or, if bad, rejected: either way it is kept.
    Stored,
    NotStored,
    /// No answer, or one that does not say.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Milliseconds from the start of the run.
    pub(crate) planned_ms: u32,
    /// Where it belongs: what is bad on purpose, under `rejected/`.
    pub(crate) kind: Kind,
    pub(crate) reported: Reported,
}

/// All entries of a run; an entry's number is its place.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    /// Appends an entry, and returns its number.
    pub(crate) fn add(&mut self, planned_ms: u32, kind: Kind) -> u64 {
        self.entries.push(Entry { planned_ms, kind, reported: Reported::Nothing });
        self.entries.len() as u64 - 1
    }

    /// Records what the answer said about an entry.
    pub(crate) fn report(&mut self, number: u64, reported: Reported) {
        self.entries[number as usize].reported = reported;
    }

    /// How many were said to be stored.
    pub(crate) fn stored(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.reported == Reported::Stored).count() as u64
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// What comes before the number in an id.
pub(crate) fn id_prefix(run_id: &str) -> String {
    format!("lt-{run_id}-")
}

/// An entry's id: `lt-<run id>-<number>`, with ten digits or more so that all ids of a run are equally long.
pub(crate) fn id(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:010}")
}
