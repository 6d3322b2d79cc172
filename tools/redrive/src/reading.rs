//! Which rejected lines are read again, and as what.

use std::collections::{BTreeSet, HashSet};

use anyhow::anyhow;
use ingest_lambda::content::body_form;
use shared::rejection::Reason;

use crate::object_lines::{fingerprint, for_each_line};
use crate::rejected_line::RejectedLine;

/// What is read, and how.
pub(crate) struct Reading {
    reasons: BTreeSet<Reason>,
    /// What whole bodies are read as, whatever their senders called it.
    pub(crate) content_type: Option<String>,
}

impl Reading {
    /// # Errors
    ///
    /// When a reason or the content type is none that there is.
    pub(crate) fn new(reasons: &[String], content_type: Option<String>) -> anyhow::Result<Self> {
        let named = |name: &String| {
            let names = || Reason::ALL.map(Reason::as_str).join(", ");
            let found = Reason::ALL.into_iter().find(|reason| reason.as_str() == name);
            found.ok_or_else(|| anyhow!("--reasons: there is no reason {name:?}; there are {}", names()))
        };
        let reasons = reasons.iter().map(named).collect::<anyhow::Result<_>>()?;
        if let Some(content_type) = &content_type {
            body_form(Some(content_type)).map_err(|rejection| anyhow!("--content-type: {}", rejection.detail))?;
        }
        Ok(Self { reasons, content_type })
    }

    /// Hands on the lines of a rejected object that are to be read, each once and with its number from 1: one that ingest
    /// put on the stream twice, because an answer was lost, is the same to the byte. Lines that are not in our form come
    /// as what is wrong with them.
    ///
    /// # Errors
    ///
    /// When the object can't be read.
    pub(crate) fn for_each_rejected(
        &self,
        compressed: &[u8],
        mut see: impl FnMut(usize, anyhow::Result<RejectedLine>),
    ) -> anyhow::Result<()> {
        let mut known = HashSet::new();
        for_each_line(compressed, |number, line| {
            match RejectedLine::parse(line) {
                Ok(parsed) if !self.reasons.contains(&parsed.reason) => {}
                Ok(parsed) if known.insert(fingerprint(line)) => see(number, Ok(parsed)),
                Ok(_) => {}
                Err(problem) => see(number, Err(problem)),
            }
            Ok(())
        })
    }
}
