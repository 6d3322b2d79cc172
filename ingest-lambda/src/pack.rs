//! From events and rejections to as few Kinesis records as hold them.

use std::borrow::Cow;

use shared::frame::{FrameError, FrameReader, FrameWriter, MAX_LINES_BYTES, content_size, is_frame};
use shared::line::{Envelope, EventFormat, IdLiteral, Kind, Part, Rejected};
use shared::rejection::{Reason, Rejection};
use shared::timestamp::UnixMillis;
use uuid::Uuid;

use crate::bucket::{Bucket, Buckets, HashKey};
use crate::event::Event;

/// A Kinesis record: lines of one kind and, if they are events, of keys of one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub bucket: Bucket,
    /// The lines as they are, or a frame of them.
    pub data: Vec<u8>,
    /// For each line the index of the item that it is of.
    pub items: Vec<usize>,
    /// For each rejected line its reason; of events there are none.
    pub reasons: Vec<Reason>,
    /// Lone surrogates that were replaced in its events.
    pub replaced_surrogates: u64,
    /// When its lines were received: of each run of lines the time and how many there are, in order.
    pub receipts: Vec<(UnixMillis, usize)>,
}

impl Record {
    pub(crate) fn new(kind: Kind, bucket: Bucket, capacity: usize) -> Self {
        let (data, items, reasons) = (Vec::with_capacity(capacity), Vec::new(), Vec::new());
        Self { kind, bucket, data, items, reasons, replaced_surrogates: 0, receipts: Vec::new() }
    }

    #[must_use]
    pub fn partition_key(&self) -> String {
        format!("{}{}", self.kind.key_prefix(), self.bucket.number)
    }

    /// Its lines, as they were before compression.
    ///
    /// # Errors
    ///
    /// When its frame is damaged: never, as this process wrote it.
    pub fn lines(&self, reader: &mut FrameReader) -> Result<Cow<'_, [u8]>, FrameError> {
        if is_frame(&self.data) {
            reader.lines(&self.data).map(|lines| Cow::Owned(lines.to_vec()))
        } else {
            Ok(Cow::Borrowed(&self.data))
        }
    }

    /// Bytes of its lines, as they were before compression.
    #[must_use]
    pub fn lines_len(&self) -> usize {
        if is_frame(&self.data) { content_size(&self.data).unwrap_or(MAX_LINES_BYTES) } else { self.data.len() }
    }

    /// Makes one frame of its lines, where they fit into one and that is smaller.
    pub(crate) fn compress(&mut self, frames: &mut FrameWriter) {
        if self.data.len() <= MAX_LINES_BYTES
            && let Some(frame) = frames.compress(&self.data)
        {
            self.data = frame;
        }
    }

    /// What Kinesis counts against its limits, with the longest key.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + LONGEST_KEY_BYTES
    }
}

/// `e-255`
const LONGEST_KEY_BYTES: usize = Kind::Event.key_prefix().len() + 3;

/// What says which lines share a record.
#[derive(Debug, Clone, Copy)]
pub struct Packing {
    pub format: EventFormat,
    pub buckets: Buckets,
    /// Bytes of a record with its key, at most.
    pub max_record_bytes: usize,
}

impl Packing {
    /// Bytes of the longest line.
    pub(crate) const fn max_line_bytes(&self) -> usize {
        self.max_record_bytes - LONGEST_KEY_BYTES
    }

    /// Bytes of the lines of a record that holds more than one.
    pub(crate) fn max_shared_bytes(&self) -> usize {
        self.max_line_bytes().min(MAX_LINES_BYTES)
    }
}

/// Packs the lines of one request. Events of one key are in the records of one bucket, in their order.
pub struct Packer<'a, NewId> {
    packing: Packing,
    envelope: &'a Envelope,
    new_id: NewId,
    records: Vec<Record>,
}

impl<'a, NewId: FnMut() -> Uuid> Packer<'a, NewId> {
    pub const fn new(packing: Packing, envelope: &'a Envelope, new_id: NewId) -> Self {
        Self { packing, envelope, new_id, records: Vec::new() }
    }

    /// Adds an event.
    ///
    /// # Errors
    ///
    /// When its line does not fit into a record.
    pub fn event(&mut self, index: usize, event: &Event<'_>) -> Result<(), Rejection> {
        let fresh_id;
        let id = match &event.id {
            Some(id) => IdLiteral::new(id),
            None => {
                fresh_id = quoted((self.new_id)());
                IdLiteral::new(&fresh_id)
            }
        };
        let line_bytes = match self.packing.format {
            EventFormat::Envelope => self.envelope.event_len(id, &event.json),
            EventFormat::Raw => event.json.len() + 1,
        };
        if line_bytes > self.packing.max_line_bytes() {
            return Err(too_large(line_bytes, self.packing.max_line_bytes()));
        }
        let (envelope, format) = (self.envelope, self.packing.format);
        let record = self.record_with_room(Kind::Event, event.key, line_bytes);
        record.items.push(index);
        record.replaced_surrogates += event.replaced_surrogates;
        match format {
            EventFormat::Envelope => envelope.write_event(&mut record.data, id, &event.json),
            EventFormat::Raw => {
                record.data.extend_from_slice(event.json.as_bytes());
                record.data.push(b'\n');
            }
        }
        Ok(())
    }

    /// Adds a rejected body, whole: in numbered parts where one record is too small for it.
    pub fn rejected(&mut self, index: usize, whole: &Rejected<'_>) {
        let id = quoted((self.new_id)());
        let id = IdLiteral::new(&id);
        let max_line_bytes = self.packing.max_shared_bytes();
        let capacity = self.envelope.rejected_body_capacity(id, whole, max_line_bytes);
        if whole.body.len() <= capacity {
            return self.rejected_line(index, id, whole);
        }
        let of = u32::try_from(whole.body.len().div_ceil(capacity)).unwrap_or(u32::MAX);
        for (number, body) in (1..).zip(whole.body.chunks(capacity)) {
            self.rejected_line(index, id, &Rejected { part: Some(Part { number, of }), body, ..whole.clone() });
        }
    }

    /// The records, all of them within the limit, of lines that were received at that time.
    #[must_use]
    pub fn into_records(mut self, received_at: UnixMillis) -> Vec<Record> {
        self.records.iter_mut().for_each(|record| record.receipts.push((received_at, record.items.len())));
        self.records
    }

    fn rejected_line(&mut self, index: usize, id: IdLiteral<'_>, rejected: &Rejected<'_>) {
        let mut line = Vec::new();
        self.envelope.write_rejected(&mut line, id, rejected);
        let record = self.record_with_room(Kind::Rejected, None, line.len());
        record.items.push(index);
        record.reasons.push(rejected.rejection.reason);
        record.data.extend_from_slice(&line);
    }

    /// The record that a line of these bytes belongs to. What has no key has no order to keep: it shares the last record
    /// and, when that is full, goes on in any bucket, so that much of it does not keep one shard busy.
    fn record_with_room(&mut self, kind: Kind, key: Option<HashKey>, line_bytes: usize) -> &mut Record {
        let max_bytes = self.packing.max_shared_bytes();
        let has_room = |record: &Record| record.data.len() + line_bytes <= max_bytes;
        let last = self.records.iter().rfind(|record| record.kind == kind);
        let bucket = match (key, last) {
            (Some(key), _) => self.packing.buckets.bucket_of(key),
            (None, Some(last)) if has_room(last) => last.bucket,
            (None, _) => self.packing.buckets.bucket_of(HashKey::of((self.new_id)().as_bytes())),
        };
        let open = self.records.iter().rposition(|record| record.kind == kind && record.bucket == bucket);
        let open = open.filter(|&open| has_room(&self.records[open])).unwrap_or_else(|| {
            self.records.push(Record::new(kind, bucket, line_bytes));
            self.records.len() - 1
        });
        &mut self.records[open]
    }
}

fn quoted(id: Uuid) -> String {
    format!("\"{id}\"")
}

fn too_large(line_bytes: usize, limit: usize) -> Rejection {
    let detail = format!("the event with its envelope is {line_bytes} bytes; at most {limit} fit; send smaller events");
    Rejection::new(Reason::EventTooLarge, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;
    use rstest::rstest;
    use shared::line::Client;
    use shared::timestamp::UnixMillis;
    use std::collections::BTreeMap;

    fn event(json: String, key: Option<&str>) -> Event<'static> {
        Event {
            json: Cow::Owned(json),
            id: Some("\"i\"".into()),
            key: key.map(|key| HashKey::of(key.as_bytes())),
            replaced_surrogates: 0,
        }
    }

    fn rejected<'a>(rejection: &'a Rejection, body: &'a [u8]) -> Rejected<'a> {
        Rejected { rejection, content_type: None, content_encoding: None, part: None, body }
    }

    fn envelope() -> Envelope {
        Envelope::new(UnixMillis(0), "request", &Client::default())
    }

    const PACKING: Packing =
        Packing { format: EventFormat::Envelope, buckets: Buckets::COUNTS[0].1, max_record_bytes: 1 << 20 };

    fn ids() -> impl FnMut() -> Uuid {
        let mut number = 0;
        move || {
            number += 1;
            Uuid::from_u128(number)
        }
    }

    fn packer(envelope: &Envelope, packing: Packing) -> Packer<'_, impl FnMut() -> Uuid> {
        Packer::new(packing, envelope, ids())
    }

    fn lines(record: &Record) -> Vec<&[u8]> {
        record.data.split_inclusive(|byte| *byte == b'\n').collect()
    }

    #[test]
    fn twenty_events_with_one_key_are_one_record() {
        let envelope = envelope();
        let mut packer = packer(&envelope, PACKING);
        for index in 0..20 {
            packer.event(index, &event(format!("{{\"n\":{index}}}"), Some("viewer-1"))).unwrap();
        }
        let records = packer.into_records(UnixMillis(0));
        assert_eq!(records.len(), 1);
        // Its MD5 begins with 16.
        assert_eq!((records[0].partition_key(), records[0].bucket.first_hash_key), ("e-0".into(), 0));
        assert_eq!(records[0].items, (0..20).collect::<Vec<_>>());
        assert_eq!(lines(&records[0]).len(), 20);
    }

    #[test]
    fn events_without_a_key_share_the_record_of_others() {
        let envelope = envelope();
        let mut packer = packer(&envelope, PACKING);
        for (index, key) in [None, Some("viewer-1"), None, Some("viewer-1"), None].into_iter().enumerate() {
            packer.event(index, &event("{}".into(), key)).unwrap();
        }
        assert!(packer.into_records(UnixMillis(0)).len() <= 2);
    }

    #[test]
    fn an_event_stands_on_the_bound_and_one_past_it() {
        let envelope = envelope();
        let fitting = envelope.event_len(IdLiteral::new("\"i\""), "{}") + LONGEST_KEY_BYTES;
        let packing = Packing { max_record_bytes: fitting, ..PACKING };
        assert!(packer(&envelope, packing).event(0, &event("{}".into(), Some("key"))).is_ok());
        let error = packer(&envelope, packing).event(0, &event("{ }".into(), Some("key"))).unwrap_err();
        assert_eq!(error.reason, Reason::EventTooLarge);
    }

    #[test]
    fn a_line_larger_than_a_frame_may_hold_is_a_plain_record_of_its_own() {
        let (envelope, packing) = (envelope(), Packing { max_record_bytes: 4 << 20, ..PACKING });
        let mut packer = packer(&envelope, packing);
        let large = format!("\"{}\"", "x".repeat(MAX_LINES_BYTES));
        for (index, json) in ["{}", &large, "{}"].into_iter().enumerate() {
            packer.event(index, &event(json.to_owned(), Some("key"))).unwrap();
        }
        let mut records = packer.into_records(UnixMillis(0));
        records.iter_mut().for_each(|record| record.compress(&mut FrameWriter::default()));
        let items: Vec<_> = records.iter().map(|record| &record.items[..]).collect();
        assert_eq!(items, [[0], [1], [2]]);
        assert!(records[1].data.starts_with(b"{") && records[1].data.len() > MAX_LINES_BYTES);
    }

    #[test]
    fn events_and_rejected_lines_never_share_a_record() {
        let envelope = envelope();
        let rejection = Rejection::new(Reason::NotAnObject, "d");
        let mut packer = packer(&envelope, PACKING);
        packer.event(0, &event("{}".into(), None)).unwrap();
        packer.rejected(1, &rejected(&rejection, b"7"));
        packer.rejected(2, &rejected(&rejection, b"8"));
        let records = packer.into_records(UnixMillis(0));
        let found: Vec<_> = records.iter().map(|record| (&record.items[..], &record.reasons[..])).collect();
        let expected: [(&[usize], &[Reason]); 2] = [(&[0], &[]), (&[1, 2], &[Reason::NotAnObject; 2])];
        assert_eq!(found, expected);
    }

    /// Landing recognises rejected lines by this, and no client writes any of a record's key.
    #[rstest]
    #[case(EventFormat::Envelope)]
    #[case(EventFormat::Raw)]
    fn keys_say_whether_a_record_holds_events_or_rejected_lines(#[case] format: EventFormat) {
        let envelope = envelope();
        let rejection = Rejection::new(Reason::NotAnObject, "d");
        let mut packer = packer(&envelope, Packing { format, max_record_bytes: 1_000, ..PACKING });
        packer.event(0, &event("{}".into(), Some("r-1"))).unwrap();
        packer.rejected(1, &rejected(&rejection, b"7"));
        packer.rejected(2, &rejected(&rejection, &[7; 2_000]));
        let records = packer.into_records(UnixMillis(0));
        assert!(records.len() > 3);
        for record in records {
            let prefix = if record.reasons.is_empty() { "e-" } else { "r-" };
            assert_eq!(record.partition_key(), format!("{prefix}{}", record.bucket.number));
        }
    }

    #[test]
    fn raw_lines_are_json_as_it_was_sent() {
        let envelope = envelope();
        let mut packer = packer(&envelope, Packing { format: EventFormat::Raw, ..PACKING });
        packer.event(0, &event("{\"a\":1}".into(), None)).unwrap();
        assert_eq!(packer.into_records(UnixMillis(0))[0].data, b"{\"a\":1}\n");
    }

    proptest! {
        #[test]
        fn no_record_is_too_large_and_nothing_is_left_out_and_events_of_a_key_keep_their_order(
            events in prop::collection::vec((0usize..400, prop::option::of(0u8..9)), 0..60), max_record_bytes in 300usize..2000,
            (count, buckets) in select(Buckets::COUNTS.to_vec()), with_frames: bool,
        ) {
            let (envelope, packing) = (envelope(), Packing { max_record_bytes, buckets, ..PACKING });
            let mut packer = packer(&envelope, packing);
            let (mut expected, mut keys, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
            for (index, (padding, key)) in events.iter().enumerate() {
                let key = key.map(|key| format!("k{key}"));
                let event = event(format!("{{\"n\":{index},\"p\":\"{}\"}}", "x".repeat(*padding)), key.as_deref());
                if packer.event(index, &event).is_ok() {
                    expected.push(index);
                    keys.insert(index, event.key);
                    bytes += envelope.event_len(IdLiteral::new("\"i\""), &event.json);
                }
            }
            let mut frames = FrameWriter::default();
            let mut records = packer.into_records(UnixMillis(0));
            records.iter_mut().filter(|_| with_frames).for_each(|record| record.compress(&mut frames));
            let mut packed: Vec<usize> = records.iter().flat_map(|record| record.items.clone()).collect();
            packed.sort_unstable();
            prop_assert_eq!(packed, expected);
            // Each record after the first of its bucket was opened because the one before it and one line more were too large.
            let full = 2 * bytes / (max_record_bytes - LONGEST_KEY_BYTES);
            prop_assert!(records.len() <= count.parse::<usize>().expect("a number") + full);
            let mut last_of = BTreeMap::new();
            for record in &records {
                prop_assert!(record.size() <= max_record_bytes);
                let text = record.lines(&mut FrameReader::default())?;
                prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), record.items.len());
                for index in &record.items {
                    if let Some(key) = keys[index] {
                        prop_assert_eq!(buckets.bucket_of(key), record.bucket);
                        prop_assert!(last_of.insert(key, index).is_none_or(|last| last < index));
                    }
                }
            }
        }

        #[test]
        fn a_rejected_body_is_kept_whole_in_parts(body in prop::collection::vec(any::<u8>(), 0..6000)) {
            let envelope = envelope();
            let rejection = Rejection::new(Reason::InvalidJson, "why");
            let mut packer = packer(&envelope, Packing { max_record_bytes: 1000, ..PACKING });
            packer.rejected(0, &Rejected { content_type: Some("text/plain"), ..rejected(&rejection, &body) });
            let mut kept = BTreeMap::new();
            for record in packer.into_records(UnixMillis(0)) {
                prop_assert!(record.size() <= 1000);
                prop_assert!(record.reasons.iter().all(|reason| *reason == Reason::InvalidJson));
                for line in lines(&record) {
                    let line: serde_json::Value = serde_json::from_slice(line)?;
                    let base64 = line["rejected"]["body_base64"].as_str().expect("a body");
                    kept.insert(line["rejected"]["part"].as_u64(), base64_simd::STANDARD.decode_to_vec(base64).expect("base64"));
                }
            }
            prop_assert_eq!(kept.into_values().flatten().collect::<Vec<_>>(), body);
        }
    }
}
