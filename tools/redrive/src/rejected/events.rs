//! The events that are found in a rejected body, as lines.

use std::borrow::Cow;

use bytes::Bytes;
use ingest_lambda::content::{BodyForm, body_form, decompress};
use ingest_lambda::event::{Event, KeyFields};
use ingest_lambda::split::split;
use kinesis_to_s3_lambda::kpl::is_aggregate;
use kinesis_to_s3_lambda::record_lines::{RecordReader, Source};
use shared::frame::is_frame;
use shared::line::{Envelope, EventFormat, IdLiteral};
use shared::rejection::{Reason, Rejection};
use shared::trust::Trust;

use crate::rejected::line::RejectedLine;
use crate::rejected::read_options::ReadOptions;

/// Bytes of a body after decompression at most: four times what ingest takes unless configured.
pub(crate) const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// How bodies are read, and how their events are written.
#[derive(Clone, Copy)]
pub(crate) struct EventReader<'a> {
    pub(crate) options: &'a ReadOptions,
    pub(crate) event_format: EventFormat,
}

impl EventReader<'_> {
    /// Passes on the line of each event in the body of a rejected line, without a line feed. Events beside something
    /// that is still rejected are taken.
    ///
    /// # Errors
    ///
    /// When no event is in it, and [`Reason::BodyTooLarge`] when it is larger than [`MAX_BODY_BYTES`].
    pub(crate) fn for_each_event(
        &self,
        line: &RejectedLine,
        body: &[u8],
        mut visit: impl FnMut(&str),
    ) -> Result<(), Rejection> {
        let body = decompress(body, line.rejected.content_encoding.as_deref(), MAX_BODY_BYTES)?;
        let mut found = false;
        let visit = |event: &str| {
            found = true;
            visit(event);
        };
        if line.rejected.reason == Reason::ForeignRecord {
            self.for_each_foreign(line, &body, visit);
        } else {
            self.for_each_own(line, &body, visit)?;
        }
        if found { Ok(()) } else { Err(Rejection::new(Reason::NoEvents, "no event is in it")) }
    }

    /// A record that landing rejected had no key of ours, or none of our lines; or it is a frame, and landing could not read those
    /// yet.
    fn for_each_foreign(&self, line: &RejectedLine, body: &[u8], mut visit: impl FnMut(&str)) {
        if !self.may_be_read(line, body) {
            return;
        }
        let trust = Trust::in_record(self.event_format, "");
        let source = Source { arrival: line.received_at, name: &line.id, trust };
        let mut reader = RecordReader::default();
        let read = reader.read(&Bytes::copy_from_slice(body), &source);
        String::from_utf8_lossy(&read.events.text).split_terminator('\n').for_each(&mut visit);
    }

    /// What landing never reads stays rejected: frames and aggregates in user records. So do frames of raw lines: whether they are
    /// events or rejected lines, their record's key said, which is gone.
    fn may_be_read(&self, line: &RejectedLine, body: &[u8]) -> bool {
        let is_user_record = line.id.matches('/').count() > 1;
        match (is_frame(body), self.event_format) {
            (true, EventFormat::Raw) => false,
            (true, EventFormat::Envelope) => !is_user_record,
            (false, _) => !(is_user_record && is_aggregate(body)),
        }
    }

    fn for_each_own(&self, line: &RejectedLine, body: &[u8], mut visit: impl FnMut(&str)) -> Result<(), Rejection> {
        let envelope = Envelope::new(line.received_at, &line.request_id, &line.client());
        for (index, item) in split(body, self.form(line, body)?, &KeyFields::new(&[]))?.into_iter().enumerate() {
            if let Ok(event) = item.event {
                visit(&event_line(&envelope, &event, &format!("{}/{index}", line.id), self.event_format));
            }
        }
        Ok(())
    }

    /// How a body is to be read: as its type says, or, for one line or member of a body, as what it was taken for.
    fn form(&self, line: &RejectedLine, body: &[u8]) -> Result<BodyForm, Rejection> {
        match (&line.rejected.content_type, line.rejected.reason) {
            (None, Reason::InvalidCmcd) => Ok(BodyForm::Cmcd),
            // An event that was read as JSON, or else from a report.
            (None, Reason::SchemaViolation) if !is_json(body) => Ok(BodyForm::Cmcd),
            (content_type, _) => body_form(self.options.content_type.as_deref().or(content_type.as_deref())),
        }
    }
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// An event's line; without an id of its own the event has one that is the same each time.
fn event_line<'a>(envelope: &Envelope, event: &'a Event<'_>, id: &str, format: EventFormat) -> Cow<'a, str> {
    match format {
        EventFormat::Raw => Cow::Borrowed(&event.json),
        EventFormat::Envelope => {
            let derived = serde_json::Value::from(id).to_string();
            let mut line = Vec::new();
            envelope.write_event(&mut line, IdLiteral::new(event.id.as_deref().unwrap_or(&derived)), &event.json);
            line.pop();
            Cow::Owned(String::from_utf8_lossy(&line).into_owned())
        }
    }
}
