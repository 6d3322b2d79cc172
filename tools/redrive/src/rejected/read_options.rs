//! Which rejected lines are read again, and as what.

use std::collections::HashSet;

use shared::rejection::Reason;

use crate::rejected::line::RejectedLine;
use crate::rejected::object_lines::{fingerprint, for_each_line};

/// What is read, and how.
pub(crate) struct ReadOptions {
    pub(crate) reasons: Vec<Reason>,
    /// What whole bodies are read as, whatever their senders called it.
    pub(crate) content_type: Option<String>,
}

impl ReadOptions {
    /// Hands on the lines of a rejected object that are to be read, each once and with its number from 1: one that ingest
    /// put on the stream twice, because an answer was lost, is the same to the byte. A line of another form comes as what is
    /// wrong with it.
    pub(crate) fn for_each_rejected(
        &self,
        compressed: &[u8],
        mut visit: impl FnMut(usize, anyhow::Result<RejectedLine>),
    ) -> anyhow::Result<()> {
        let mut known = HashSet::new();
        for_each_line(compressed, |number, line| {
            match RejectedLine::parse(line) {
                Ok(parsed) if !self.reasons.contains(&parsed.rejected.reason) => {}
                Ok(parsed) if known.insert(fingerprint(line)) => visit(number, Ok(parsed)),
                Ok(_) => {}
                Err(problem) => visit(number, Err(problem)),
            }
            Ok(())
        })
    }
}
