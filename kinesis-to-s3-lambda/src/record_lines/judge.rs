//! Judges what a record holds: which of its lines land as events, and which as rejected lines.

use bytes::Bytes;
use shared::frame::{FrameError, is_frame};
use shared::json::as_line;
use shared::line::{Client, Envelope, IdLiteral, Kind, LineHead, Rejected};
use shared::object::receipt;
use shared::rejection::{Reason, Rejection};

use super::{RecordLines, Source};
use crate::counts::{Counts, Receipt};
use crate::kpl::is_aggregate;
use crate::multiline::holds_a_value_over_lines;

const NO_OBJECT: &str = "the record holds no JSON object, or a damaged one over several lines";

/// A UTF-8 byte order mark. It is not part of the text that follows it.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is judged by itself: a record, or one user record of an aggregate.
pub(super) struct Payload<'a> {
    /// As [`Source::name`].
    pub(super) name: &'a str,
    /// As it came.
    pub(super) data: &'a [u8],
    /// What should be its lines.
    pub(super) text: &'a [u8],
}

/// Judges the payloads of a record.
pub(super) struct Judge<'a> {
    source: Source<'a>,
    lines: &'a mut RecordLines,
    /// How many rejected lines were made here: of the record, and of it before this payload; and how many may be.
    rejected: usize,
    rejected_before: usize,
    max_rejected: usize,
    /// Bad lines beyond those, with a line feed each. They share one rejected line in the end.
    surplus: Vec<u8>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(source: Source<'a>, max_rejected: usize, lines: &'a mut RecordLines) -> Self {
        Self { source, lines, rejected: 0, rejected_before: 0, max_rejected, surplus: Vec::new() }
    }

    pub(super) fn take_user_records(&mut self, user_records: impl Iterator<Item = Bytes>) {
        // Ingest aggregates nothing, so no aggregate has a key of ours.
        self.source.trust = self.source.trust.of_other_producers();
        for (number, data) in user_records.enumerate() {
            let name = format!("{}/{number}", self.source.name);
            self.rejected_before = self.rejected;
            self.take(&Payload { name: &name, data: &data, text: &data });
        }
        self.rejected_before = 0;
    }

    pub(super) fn take_frame(&mut self, frame: &[u8], lines: Result<&[u8], FrameError>) {
        let name = self.source.name;
        match lines {
            Ok(text) => self.take(&Payload { name, data: frame, text }),
            Err(error) => self.reject(name, frame, || error.to_string()),
        }
    }

    pub(super) fn take(&mut self, payload: &Payload<'_>) {
        let before = self.mark();
        if !self.take_lines(payload) {
            self.return_to(&before);
            self.reject(payload.name, payload.data, || NO_OBJECT.to_owned());
        }
    }

    /// `false` when the payload is to be rejected whole.
    fn take_lines(&mut self, payload: &Payload<'_>) -> bool {
        let text = payload.text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(payload.text);
        if is_frame(text) || is_aggregate(text) {
            return false;
        }
        let (mut has_object, mut has_bad_line) = (false, false);
        for line in text.split(|byte| *byte == b'\n') {
            let content = without_mark(line);
            if content.is_empty() {
                continue;
            }
            if let Some((head, object)) = self.source.parse(content) {
                has_object = true;
                self.land(head, object);
                continue;
            }
            if !std::mem::replace(&mut has_bad_line, true) {
                if !has_object && self.take_one_object(text) {
                    return true;
                }
                if holds_a_value_over_lines(contents(text)) {
                    return false;
                }
            }
            let source = self.source;
            self.reject(payload.name, line.trim_ascii(), || source.problem_of(content));
        }
        has_object
    }

    /// Whether the text is one object, over several lines.
    fn take_one_object(&mut self, text: &[u8]) -> bool {
        let object = self.source.parse(without_mark(text));
        if let Some((head, object)) = object {
            self.land(head, object);
        }
        object.is_some()
    }

    /// Adds an object, on one line and with its lone surrogates replaced.
    fn land(&mut self, head: LineHead, object: &str) {
        let (line, replaced_surrogates) = as_line(object);
        self.lines.push(line.as_bytes(), head, self.source.receipt(head));
        self.lines.of_mut(head.kind).counts.replaced_surrogates += replaced_surrogates;
    }

    /// Keeps bad bytes in a rejected line of their own, while there may be more of those.
    fn reject(&mut self, name: &str, bad: &[u8], problem: impl FnOnce() -> String) {
        if self.rejected < self.max_rejected {
            self.push_rejected(name, bad, &problem());
        } else {
            self.surplus.extend_from_slice(bad);
            self.surplus.push(b'\n');
        }
    }

    pub(super) fn reject_surplus(mut self) {
        let mut surplus = std::mem::take(&mut self.surplus);
        // The last line feed separates nothing.
        if surplus.pop().is_some() {
            let detail =
                format!("more than {} lines of the record are no JSON objects; these are the others", self.rejected);
            self.push_rejected(self.source.name, &surplus, &detail);
        }
    }

    /// Adds a line that keeps `body`. Nothing in it differs when the same record is sent again.
    fn push_rejected(&mut self, name: &str, body: &[u8], detail: &str) {
        let arrival = self.source.arrival;
        let id = serde_json::Value::from(format!("{name}/{}", self.rejected - self.rejected_before)).to_string();
        let rejection = Rejection::new(Reason::ForeignRecord, detail);
        let rejected = Rejected { rejection: &rejection, content_type: None, content_encoding: None, part: None, body };
        let receipt = Receipt { received_at: arrival, arrived_in: arrival.hour() };
        let head = LineHead { kind: Kind::Rejected, received_at: Some(arrival), reason: Some(rejection.reason) };
        let envelope = Envelope::new(arrival, name, &Client::default());
        self.lines.first.get_or_insert(Kind::Rejected);
        envelope.write_rejected(&mut self.lines.rejected.text, IdLiteral::new(&id), &rejected);
        self.lines.rejected.counts.add_line(head, receipt);
        self.rejected += 1;
    }

    fn mark(&self) -> Mark {
        let RecordLines { events, rejected, first, .. } = &*self.lines;
        let lines = [events, rejected].map(|lines| (lines.counts, lines.text.len()));
        Mark { lines, first: *first, rejected: self.rejected, surplus: self.surplus.len() }
    }

    /// Takes back all that was added since.
    fn return_to(&mut self, mark: &Mark) {
        let RecordLines { events, rejected, first, .. } = &mut *self.lines;
        for (lines, (counts, length)) in [events, rejected].into_iter().zip(mark.lines) {
            lines.counts = counts;
            lines.text.truncate(length);
        }
        *first = mark.first;
        self.rejected = mark.rejected;
        self.surplus.truncate(mark.surplus);
    }
}

/// How far the judge was before a payload.
struct Mark {
    /// Counts and bytes of the events and of the rejected lines.
    lines: [(Counts, usize); 2],
    first: Option<Kind>,
    rejected: usize,
    surplus: usize,
}

/// A line without the white space around it and the byte order marks before it.
fn without_mark(line: &[u8]) -> &[u8] {
    let mut line = line.trim_ascii();
    while let Some(unmarked) = line.strip_prefix(BYTE_ORDER_MARK) {
        line = unmarked.trim_ascii();
    }
    line
}

/// What is on the lines that hold more than white space.
pub(super) fn contents(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(without_mark).filter(|content| !content.is_empty())
}

impl Source<'_> {
    /// The head and the text of a line that is an object. A record can be full of others: the first look costs them least.
    fn parse<'t>(&self, line: &'t [u8]) -> Option<(LineHead, &'t str)> {
        let may_be_object = line.starts_with(b"{") && line.ends_with(b"}");
        let text = std::str::from_utf8(line).ok().filter(|_| may_be_object)?;
        Some((self.trust.read_head(text).ok()?, text))
    }

    /// Why a line is not an object.
    fn problem_of(&self, line: &[u8]) -> String {
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(error) => return format!("not UTF-8: {error}"),
        };
        self.trust.read_head(text).err().map_or_else(|| "not a JSON object".to_owned(), |error| error.to_string())
    }

    pub(super) fn receipt(&self, head: LineHead) -> Receipt {
        let received_at = receipt(head.received_at, self.arrival);
        Receipt { received_at, arrived_in: self.arrival.hour() }
    }
}
