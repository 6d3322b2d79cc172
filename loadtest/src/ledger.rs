//! Every event of a run by its number: when it was planned, what was said of it, and later whether it landed.
//!
//! An event carries its number in its id, `lt-<run id>-<number>`; bad input carries the same text somewhere in its bytes.
//! Whoever reads landed files needs no more than that to tell whose each line is.

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Event,
    /// Bad on purpose: it belongs under `rejected/`.
    Bad,
}

/// What the answer said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// Accepted or, when bad, rejected: in either case it is kept.
    Stored,
    NotStored,
    /// No answer, or one that does not say.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Milliseconds from the start of the run.
    pub(crate) planned_ms: u32,
    pub(crate) sort: Sort,
    pub(crate) said: Said,
}

/// All entries of a run; an entry's number is its place.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    /// The number of the next entry, which is now there.
    pub(crate) fn add(&mut self, planned_ms: u32, sort: Sort) -> u64 {
        self.entries.push(Entry { planned_ms, sort, said: Said::Nothing });
        self.entries.len() as u64 - 1
    }

    pub(crate) fn say(&mut self, number: u64, said: Said) {
        if let Some(entry) = usize::try_from(number).ok().and_then(|place| self.entries.get_mut(place)) {
            entry.said = said;
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// What stands before an entry's number in its id.
pub(crate) fn id_prefix(run_id: &str) -> String {
    format!("lt-{run_id}-")
}

/// An entry's id: `lt-<run id>-<number>`, the number with at least ten digits so that all ids of a run are equally long.
pub(crate) fn id(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:010}")
}

/// The run that a prefix belongs to may be named by letters and digits alone: whatever holds ids, nothing in it is escaped.
pub(crate) fn is_run_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_RUN_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Of a run's id.
pub(crate) const MAX_RUN_ID_BYTES: usize = 40;
