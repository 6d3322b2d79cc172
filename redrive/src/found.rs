//! The events that are found in rejected lines, as the lines of an object.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use ingest_lambda::content::{BodyForm, body_form, decompress};
use ingest_lambda::split::{Event, Item, KeyFields, split};
use kinesis_to_s3_lambda::chunk::Chunk;
use kinesis_to_s3_lambda::payload::{MAX_REJECTED_LINES, read_payload};
use shared::line::{Client, Envelope, EventFormat, IdLiteral, Kind, read_head};
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;

use crate::rejected::Reading;
use crate::rejected_line::RejectedLine;

/// Bytes of a body after decompression at most; ingest takes less.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// The lines of events that were found, and when they were received. Equal events stand as often as they were sent.
#[derive(Debug, Default)]
pub(crate) struct Found {
    lines: Vec<String>,
    received_at: BTreeSet<UnixMillis>,
}

impl Found {
    fn add(&mut self, line: &str) {
        self.lines.push(format!("{}\n", line.trim_end_matches('\n')));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// These lines behind those that were landed earlier, each as often as where it stands more often: what was found
    /// before is not landed twice. `None` when nothing is to be added.
    pub(crate) fn behind(&self, earlier: &str) -> Option<Chunk> {
        let mut landed: HashMap<&str, usize> = HashMap::new();
        earlier.split_inclusive('\n').for_each(|line| *landed.entry(line).or_default() += 1);
        let mut new = Vec::new();
        for line in self.lines.iter().map(String::as_str) {
            match landed.get_mut(line) {
                Some(left @ 1..) => *left -= 1,
                _ => new.push(line),
            }
        }
        if new.is_empty() {
            return None;
        }
        Some(self.chunk(earlier.split_inclusive('\n').chain(new)))
    }

    fn chunk<'a>(&self, lines: impl Iterator<Item = &'a str>) -> Chunk {
        let lines: Vec<&str> = lines.collect();
        let of_lines = lines.iter().filter_map(|line| read_head(line.trim_end()).ok()?.received_at);
        let received_at: BTreeSet<UnixMillis> = of_lines.chain(self.received_at.iter().copied()).collect();
        let end = |time: Option<&UnixMillis>| time.copied().unwrap_or(UnixMillis(0));
        Chunk {
            kind: Kind::Event,
            lines: lines.len() as u64,
            earliest_received_at: end(received_at.first()),
            latest_received_at: end(received_at.last()),
            bytes: lines.concat().into(),
        }
    }

    /// Reads a body again. Events beside something that is still rejected are taken.
    pub(crate) fn read(&mut self, line: &RejectedLine, body: &[u8], reading: &Reading) -> Result<(), Rejection> {
        let found_before = self.lines.len();
        if line.reason == Reason::ForeignRecord {
            self.read_foreign(&Bytes::copy_from_slice(body), line.received_at, &line.id);
        } else {
            self.read_body(line, body, reading)?;
        }
        if self.lines.len() == found_before {
            return Err(Rejection::new(Reason::NoEvents, "no event is in it"));
        }
        self.received_at.insert(line.received_at);
        Ok(())
    }

    fn read_foreign(&mut self, body: &Bytes, arrival: UnixMillis, id: &str) {
        let read = read_payload(body, arrival, id, MAX_REJECTED_LINES);
        for chunk in read.chunks.iter().filter(|chunk| chunk.kind == Kind::Event) {
            let text = String::from_utf8_lossy(&chunk.bytes);
            text.split_terminator('\n').for_each(|line| self.add(line));
        }
    }

    fn read_body(&mut self, line: &RejectedLine, body: &[u8], reading: &Reading) -> Result<(), Rejection> {
        let decoded = decompress(body, line.content_encoding.as_deref(), MAX_BODY_BYTES)?;
        let client = Client { user_agent: line.user_agent.clone(), ip: line.ip.clone() };
        let envelope = Envelope::new(line.received_at, &line.request_id, &client);
        for (index, item) in split(&decoded, form(line, reading)?, &KeyFields::new(&[]))?.into_iter().enumerate() {
            if let Item::Event(event) = item {
                self.add(&event_line(&envelope, &event, &format!("{}/{index}", line.id), reading.event_format));
            }
        }
        Ok(())
    }
}

/// How a body is to be read: as its type says, or, for one line or member of a body, as what it was taken for.
fn form(line: &RejectedLine, reading: &Reading) -> Result<BodyForm, Rejection> {
    match (&line.content_type, line.reason) {
        (None, Reason::InvalidCmcd) => Ok(BodyForm::Cmcd),
        (content_type, _) => body_form(reading.content_type.as_deref().or(content_type.as_deref())),
    }
}

/// An event's line; without an id of its own the event has one that is the same each time.
fn event_line(envelope: &Envelope, event: &Event<'_>, id: &str, format: EventFormat) -> String {
    let derived = serde_json::Value::from(id).to_string();
    match format {
        EventFormat::Raw => event.json.clone().into_owned(),
        EventFormat::Envelope => {
            let mut line = Vec::new();
            envelope.write_event(&mut line, IdLiteral::new(event.id.as_deref().unwrap_or(&derived)), &event.json);
            String::from_utf8_lossy(&line).into_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn behind(lines: &[&str], earlier: &str) -> Option<String> {
        let mut found = Found::default();
        lines.iter().for_each(|line| found.add(line));
        found.behind(earlier).map(|chunk| {
            assert_eq!(chunk.lines, chunk.bytes.iter().filter(|byte| **byte == b'\n').count() as u64);
            String::from_utf8(chunk.bytes.to_vec()).unwrap()
        })
    }

    #[rstest]
    #[case::equal_events_are_two(&["{}", "{}"], "", Some("{}\n{}\n"))]
    #[case::the_same_again(&["{}", "{}"], "{}\n{}\n", None)]
    #[case::one_more_than_before(&["{}", "{}"], "{}\n", Some("{}\n{}\n"))]
    #[case::fewer_than_before(&["{}"], "{}\n{}\n", None)]
    #[case::others_stay_in_front(&["{}", "{\"b\":1}"], "{\"a\":1}\n{}\n", Some("{\"a\":1}\n{}\n{\"b\":1}\n"))]
    #[case::nothing(&[], "", None)]
    fn lines_stand_as_often_as_where_they_are_more(
        #[case] lines: &[&str],
        #[case] earlier: &str,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(behind(lines, earlier).as_deref(), expected);
    }
}
