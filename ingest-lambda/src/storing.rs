//! The records of a request and what became of them.

use shared::rejection::ReasonCounts;

use crate::pack::Record;
use crate::put::PutReport;

/// The records of a request and what became of them.
#[derive(Debug, Default)]
pub struct Storing {
    pub records: Vec<Record>,
    pub report: PutReport,
}

impl Storing {
    /// The indexes of items of which a line is missing on the stream, in order, each once.
    #[must_use]
    pub fn not_stored(&self) -> Vec<usize> {
        let missing = self.records.iter().zip(&self.report.stored).filter(|(_, stored)| !**stored);
        let mut indexes: Vec<usize> = missing.flat_map(|(record, _)| record.items.iter().copied()).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    }

    /// The rejected lines that are on the stream, each part of a large body for itself.
    #[must_use]
    pub fn rejected_lines(&self) -> ReasonCounts {
        let mut lines = ReasonCounts::default();
        self.stored_records().flat_map(|record| &record.reasons).for_each(|reason| lines.add(*reason, 1));
        lines
    }

    /// Bytes of data that are on the stream, without partition keys.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_records().map(|record| record.data.len() as u64).sum()
    }

    /// Lone surrogates that were replaced in events that are on the stream.
    #[must_use]
    pub fn replaced_surrogates(&self) -> u64 {
        self.stored_records().map(|record| record.replaced_surrogates).sum()
    }

    fn stored_records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().zip(&self.report.stored).filter(|(_, stored)| **stored).map(|(record, _)| record)
    }
}
