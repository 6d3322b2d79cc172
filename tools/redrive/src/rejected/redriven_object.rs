//! The object that takes the events of a rejected one: its lines stay, and others are appended.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use kinesis_to_s3_lambda::encode::Object;
use shared::json::replace_lone_surrogates;
use shared::limits::MAX_OBJECT_LINE_BYTES;
use shared::line::{EventFormat, Kind};
use shared::object::{Attempt, BlockSize, Compressed, LineWriter, ObjectKey, ObjectMetadata, ReceivedIn};
use shared::timestamp::UnixMillis;
use shared::trust::Trust;

use crate::bucket::Stored;
use crate::rejected::object_lines::{fingerprint, for_each_line};

/// Bytes of lines in it at most, so that it stays small however bodies are compressed.
pub(crate) const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Lines in it at most; each is remembered by some 40 bytes.
pub(crate) const MAX_LINES: u64 = 1_000_000;
/// How many bytes there will be is not known when the first is compressed.
const BLOCK_SIZE: BlockSize = BlockSize::LARGEST;

/// The object while it is written.
pub(crate) struct RedrivenObject {
    format: EventFormat,
    writer: LineWriter,
    /// The lines that were there, and how often each has not been met again.
    landed: HashMap<u128, u32>,
    lines: u64,
    /// Events that were added.
    pub(crate) added: u64,
    /// Events that were there before.
    pub(crate) already_there: u64,
    /// Events that there was no room for.
    pub(crate) left_out: u64,
    received_at: Option<(UnixMillis, UnixMillis)>,
}

impl RedrivenObject {
    /// Begins with what was landed earlier.
    pub(crate) fn continuing(earlier: Option<&Stored>, format: EventFormat) -> anyhow::Result<Self> {
        let mut redriven = Self {
            format,
            writer: LineWriter::new(BLOCK_SIZE),
            landed: HashMap::new(),
            lines: 0,
            added: 0,
            already_there: 0,
            left_out: 0,
            received_at: None,
        };
        if let Some(earlier) = earlier {
            redriven.keep(earlier).context("what an earlier run landed")?;
        }
        Ok(redriven)
    }

    fn keep(&mut self, earlier: &Stored) -> anyhow::Result<()> {
        let (own, found) = (self.format, ObjectMetadata::event_format_entry(&earlier.entries)?.unwrap_or_default());
        ensure!(
            found == own,
            "it is {} and should be {}: delete it and redrive all of its reasons again",
            found.as_str(),
            own.as_str()
        );
        for_each_line(&earlier.bytes, |_, line| {
            // As it would be found today: earlier versions kept lone surrogates.
            let (line, _) = replace_lone_surrogates(std::str::from_utf8(line)?);
            *self.landed.entry(fingerprint(line.as_bytes())).or_default() += 1;
            self.write(&line)
        })
    }

    /// Adds an event's line, unless it is there: equal events are kept as often as in the place that has more of them, so that what
    /// was found before is not landed twice.
    pub(crate) fn add(&mut self, line: &str) -> anyhow::Result<()> {
        if let Some(left @ 1..) = self.landed.get_mut(&fingerprint(line.as_bytes())) {
            *left -= 1;
            self.already_there += 1;
            return Ok(());
        }
        let bytes = line.len() as u64 + 1;
        if line.len() >= MAX_OBJECT_LINE_BYTES || self.writer.bytes() + bytes > MAX_BYTES || self.lines >= MAX_LINES {
            self.left_out += 1;
            return Ok(());
        }
        self.added += 1;
        self.write(line)
    }

    fn write(&mut self, line: &str) -> anyhow::Result<()> {
        if let Some(time) = Trust::in_object(self.format, Kind::Event).read_head(line)?.received_at {
            self.include(time);
        }
        self.lines += 1;
        Ok(self.writer.write(line.as_bytes())?)
    }

    /// Notes when something that it was made of was received.
    pub(crate) fn include(&mut self, time: UnixMillis) {
        let (earliest, latest) = self.received_at.unwrap_or((time, time));
        self.received_at = Some((earliest.min(time), latest.max(time)));
    }

    /// The object; `None` when nothing was added.
    pub(crate) fn finish(self, rejected: &ObjectKey, attempt: Attempt) -> anyhow::Result<Option<Object>> {
        if self.added == 0 {
            return Ok(None);
        }
        let Compressed { body, uncompressed_bytes, uncompressed_sha256 } = self.writer.finish()?;
        let (earliest_received_at, latest_received_at) = self.received_at.unwrap_or((UnixMillis(0), UnixMillis(0)));
        let metadata = ObjectMetadata {
            event_format: self.format,
            last_sequence_number: rejected.name.first_record().map(|first| first.sequence_number.clone()),
            record_count: 0,
            event_count: self.lines,
            uncompressed_bytes,
            uncompressed_sha256,
            // Ingest has not counted these lines as events of any hour.
            received_in: ReceivedIn { elsewhere: self.lines, ..ReceivedIn::default() },
            rejected_reasons: std::collections::BTreeMap::new(),
            earliest_received_at,
            latest_received_at,
            block_size: BLOCK_SIZE,
            attempt,
        };
        Ok(Some(Object { body: body.into(), metadata }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use shared::object::SpillId;
    use std::io::Read;

    fn key() -> ObjectKey {
        ObjectKey::parse("rejected/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2").unwrap()
    }

    fn attempt() -> Attempt {
        Attempt { began: UnixMillis(0), deadline: UnixMillis(1), request_id: "r".into() }
    }

    fn with(earlier: Option<&Object>, lines: &[&str]) -> Option<Object> {
        let earlier = earlier.map(stored);
        let mut redriven = RedrivenObject::continuing(earlier.as_ref(), EventFormat::Raw).unwrap();
        lines.iter().for_each(|line| redriven.add(line).unwrap());
        redriven.finish(&key(), attempt()).unwrap()
    }

    pub(crate) fn stored(object: &Object) -> Stored {
        Stored {
            bytes: object.body.clone(),
            etag: "\"1\"".into(),
            entries: object.metadata.to_entries(),
            modified: UnixMillis(0),
        }
    }

    fn text(object: &Object) -> String {
        let mut text = String::new();
        bzip2::read::BzDecoder::new(&object.body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(object.metadata.event_count, text.lines().count() as u64);
        assert_eq!(object.metadata.uncompressed_bytes, text.len() as u64);
        text
    }

    #[rstest]
    #[case::equal_events_are_two(&["{}", "{}"], &[], Some("{}\n{}\n"))]
    #[case::the_same_again(&["{}", "{}"], &["{}", "{}"], None)]
    #[case::one_more_than_before(&["{}", "{}"], &["{}"], Some("{}\n{}\n"))]
    #[case::fewer_than_before(&["{}"], &["{}", "{}"], None)]
    #[case::others_stay_in_front(&["{}", "{\"b\":1}"], &["{\"a\":1}", "{}"], Some("{\"a\":1}\n{}\n{\"b\":1}\n"))]
    #[case::nothing(&[], &[], None)]
    fn lines_stand_as_often_as_where_they_are_more(
        #[case] lines: &[&str],
        #[case] earlier: &[&str],
        #[case] expected: Option<&str>,
    ) {
        let earlier = with(None, earlier);
        assert_eq!(with(earlier.as_ref(), lines).as_ref().map(text).as_deref(), expected);
    }

    /// `{"a":"\ud83d"}` as earlier versions landed it, `{"a":"\ufffd"}` as it is found now.
    #[test]
    fn a_lone_surrogate_that_an_earlier_version_landed_is_not_landed_again() {
        let text = b"{\"a\":\"\\ud83d\"}\n";
        let (mut writer, mut object) = (LineWriter::new(BLOCK_SIZE), with(None, &["{}"]).unwrap());
        writer.write(text).unwrap();
        object.body = writer.finish().unwrap().body.into();
        let found = "{\"a\":\"\\ufffd\"}";
        assert!(with(Some(&object), &[found]).is_none());
        let added = with(Some(&object), &[found, "{\"b\":1}"]).unwrap();
        assert_eq!(self::text(&added), format!("{found}\n{{\"b\":1}}\n"));
    }

    #[test]
    fn the_events_of_a_spilled_object_have_no_place_on_the_stream() {
        let spilled = ObjectKey::spilled(Kind::Rejected, key().hour, SpillId(1));
        let mut redriven = RedrivenObject::continuing(None, EventFormat::Raw).unwrap();
        redriven.add("{}").unwrap();
        let object = redriven.finish(&spilled, attempt()).unwrap().unwrap();
        assert_eq!((&object.metadata.last_sequence_number, object.metadata.record_count), (&None, 0));
        let (name, entries) = (spilled.redriven().name, object.metadata.to_entries());
        assert_eq!(ObjectMetadata::from_entries(&name, &entries), Ok(object.metadata));
    }

    #[test]
    fn what_landed_in_another_format_is_not_added_to() {
        let raw = stored(&with(None, &["{}"]).unwrap());
        assert!(RedrivenObject::continuing(Some(&raw), EventFormat::Envelope).is_err());
        assert!(RedrivenObject::continuing(Some(&raw), EventFormat::Raw).is_ok());
    }

    #[test]
    fn a_line_at_the_limit_is_good_and_one_byte_more_is_not() {
        let line = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        for (bytes, left_out) in [(MAX_OBJECT_LINE_BYTES - 1, 0), (MAX_OBJECT_LINE_BYTES, 1)] {
            let mut redriven = RedrivenObject::continuing(None, EventFormat::Raw).unwrap();
            redriven.add(&line(bytes)).unwrap();
            assert_eq!((redriven.left_out, redriven.added), (left_out, 1 - left_out));
        }
    }
}
