//! Reads lines as they come out of the decompressor: at most one is held in memory.

use std::collections::BTreeMap;

use shared::limits::MAX_OBJECT_LINE_BYTES;
use shared::line::{EventFormat, Kind};
use shared::object::{ObjectKey, ReceivedIn};
use shared::rejection::Reason;
use shared::trust::Trust;

use super::finding::{Finding, LineProblem};
use super::times::Times;

/// The most lines that a verdict names; the others are counted.
pub(super) const MAX_NAMED_LINES: usize = 10;

/// What was read of the lines so far.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    key: &'a ObjectKey,
    trust: Trust,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// Whether that line is too long to be kept.
    is_too_long: bool,
    pub(super) count: u64,
    pub(super) received_in: ReceivedIn,
    pub(super) reasons: BTreeMap<Reason, u64>,
    pub(super) times: Times,
    findings: Vec<Finding>,
    bad: u64,
}

impl<'a> Lines<'a> {
    /// `format` is how landing read the lines.
    pub(super) fn new(key: &'a ObjectKey, format: EventFormat) -> Self {
        Self {
            key,
            trust: Trust::in_object(format, key.kind),
            begun: Vec::new(),
            is_too_long: false,
            count: 0,
            received_in: ReceivedIn::default(),
            reasons: BTreeMap::new(),
            times: Times::new(key),
            findings: Vec::new(),
            bad: 0,
        }
    }

    /// Takes the next bytes, wherever they begin and end.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(line) if self.begun.is_empty() && !self.is_too_long => self.line(line),
                Some(end) => {
                    self.keep(end);
                    self.end();
                }
                None => self.keep(piece),
            }
        }
    }

    /// What is wrong with the lines, after the last bytes.
    pub(super) fn finish(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.begun.is_empty() || self.is_too_long {
            findings.push(Finding::NoLineFeedAtEnd);
            self.end();
        }
        findings.splice(0..0, std::mem::take(&mut self.findings));
        let more = self.bad.saturating_sub(MAX_NAMED_LINES as u64);
        if more > 0 {
            findings.push(Finding::MoreLines { count: more });
        }
        findings
    }

    fn keep(&mut self, piece: &[u8]) {
        self.is_too_long |= self.begun.len() + piece.len() > MAX_OBJECT_LINE_BYTES;
        if self.is_too_long {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }

    fn end(&mut self) {
        let line = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.is_too_long) {
            self.count += 1;
            self.bad(LineProblem::TooLong(MAX_OBJECT_LINE_BYTES));
        } else {
            self.line(&line);
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.count += 1;
        let text = std::str::from_utf8(line).map_err(|error| error.to_string());
        let head = match text.and_then(|text| self.trust.read_head(text).map_err(|error| error.to_string())) {
            Ok(head) => head,
            Err(problem) => return self.bad(LineProblem::NotAnObject(problem)),
        };
        match (self.key.kind, head.kind) {
            (Kind::Event, Kind::Rejected) => self.bad(LineProblem::Rejected),
            (Kind::Rejected, Kind::Event) => self.bad(LineProblem::Event),
            (Kind::Event, Kind::Event) | (Kind::Rejected, Kind::Rejected) => {}
        }
        self.received_in.count(head, self.key.hour);
        self.times.add(head.received_at);
        if let Some(reason) = head.reason {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    fn bad(&mut self, problem: LineProblem) {
        self.bad += 1;
        if self.findings.len() < MAX_NAMED_LINES {
            self.findings.push(Finding::Line { number: self.count, problem });
        }
    }
}
