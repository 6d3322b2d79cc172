//! From events and rejections to as few Kinesis records as hold them.

use std::collections::HashMap;

use shared::line::{Envelope, EventFormat, IdLiteral, Kind, Part, Rejected};
use shared::rejection::{Reason, Rejection};
use uuid::Uuid;

use crate::event::Event;

/// A Kinesis record: lines of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub partition_key: String,
    pub data: Vec<u8>,
    /// For each line the index of the item that it is of.
    pub items: Vec<usize>,
    /// For each rejected line its reason; of events there are none.
    pub reasons: Vec<Reason>,
    /// Lone surrogates that were replaced in its events.
    pub replaced_surrogates: u64,
}

impl Record {
    /// What Kinesis counts against its limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// Packs the events of one request that share a partition key into the same records, in their order.
pub struct Packer<'a, NewId> {
    max_record_bytes: usize,
    format: EventFormat,
    envelope: &'a Envelope,
    /// The partition key of events that have none of their own.
    request_id: &'a str,
    new_id: NewId,
    records: Vec<Record>,
    /// For each key of a client's the last of the records that hold its events.
    open_events: HashMap<String, usize>,
    /// The last record that holds rejected lines.
    open_rejected: Option<usize>,
}

impl<'a, NewId: FnMut() -> Uuid> Packer<'a, NewId> {
    pub fn new(
        max_record_bytes: usize,
        format: EventFormat,
        envelope: &'a Envelope,
        request_id: &'a str,
        new_id: NewId,
    ) -> Self {
        Self {
            max_record_bytes,
            format,
            envelope,
            request_id,
            new_id,
            records: Vec::new(),
            open_events: HashMap::new(),
            open_rejected: None,
        }
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
        let line_bytes = match self.format {
            EventFormat::Envelope => self.envelope.event_len(id, &event.json),
            EventFormat::Raw => event.json.len() + 1,
        };
        let key = event.partition_key.as_deref().unwrap_or(self.request_id);
        let key_bytes = KEY_PREFIX_BYTES + key.len();
        if line_bytes + key_bytes > self.max_record_bytes {
            return Err(too_large(line_bytes, self.max_record_bytes - key_bytes));
        }
        let record = match self.open_events.get(key) {
            Some(&open) if self.records[open].size() + line_bytes <= self.max_record_bytes => open,
            _ => {
                let fresh = self.start_record(Kind::Event, key, line_bytes);
                self.open_events.insert(key.to_owned(), fresh);
                fresh
            }
        };
        let record = &mut self.records[record];
        record.items.push(index);
        record.replaced_surrogates += event.replaced_surrogates;
        match self.format {
            EventFormat::Envelope => self.envelope.write_event(&mut record.data, id, &event.json),
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
        let max_line_bytes = self.max_record_bytes - KEY_PREFIX_BYTES - self.request_id.len() - KEY_SUFFIX_BYTES;
        let capacity = self.envelope.rejected_body_capacity(id, whole, max_line_bytes);
        if whole.body.len() <= capacity {
            return self.rejected_line(index, id, whole);
        }
        let of = u32::try_from(whole.body.len().div_ceil(capacity)).unwrap_or(u32::MAX);
        for (number, body) in (1..).zip(whole.body.chunks(capacity)) {
            self.rejected_line(index, id, &Rejected { part: Some(Part { number, of }), body, ..whole.clone() });
        }
    }

    /// The records, all of them within the limit.
    #[must_use]
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    fn rejected_line(&mut self, index: usize, id: IdLiteral<'_>, rejected: &Rejected<'_>) {
        let mut line = Vec::new();
        self.envelope.write_rejected(&mut line, id, rejected);
        let record = match self.open_rejected {
            Some(open) if self.records[open].size() + line.len() <= self.max_record_bytes => open,
            // Under a key of its own: rejected lines have no order to keep, and those of one request can fill many records,
            // which would keep one shard busy for seconds.
            _ => self.start_record(Kind::Rejected, &format!("{}/{}", self.request_id, self.records.len()), 0),
        };
        self.open_rejected = Some(record);
        let record = &mut self.records[record];
        record.items.push(index);
        record.reasons.push(rejected.rejection.reason);
        if record.data.is_empty() {
            record.data = line;
        } else {
            record.data.extend_from_slice(&line);
        }
    }

    fn start_record(&mut self, kind: Kind, key: &str, capacity: usize) -> usize {
        let data = Vec::with_capacity(capacity);
        let partition_key = [kind.key_prefix(), key].concat();
        let (items, reasons) = (Vec::new(), Vec::new());
        self.records.push(Record { kind, partition_key, data, items, reasons, replaced_surrogates: 0 });
        self.records.len() - 1
    }
}

/// Before each key: `e-` or `r-`.
const KEY_PREFIX_BYTES: usize = Kind::Event.key_prefix().len();

/// A slash and the number of a record.
const KEY_SUFFIX_BYTES: usize = 11;

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
    use rstest::rstest;
    use shared::line::Client;
    use shared::timestamp::UnixMillis;
    use std::borrow::Cow;

    fn event(json: String, key: Option<&str>) -> Event<'static> {
        Event {
            json: Cow::Owned(json),
            id: Some("\"i\"".into()),
            partition_key: key.map(str::to_owned),
            replaced_surrogates: 0,
        }
    }

    fn rejected<'a>(rejection: &'a Rejection, body: &'a [u8]) -> Rejected<'a> {
        Rejected { rejection, content_type: None, content_encoding: None, part: None, body }
    }

    fn envelope() -> Envelope {
        Envelope::new(UnixMillis(0), "request", &Client::default())
    }

    fn packer(envelope: &Envelope, max_record_bytes: usize) -> Packer<'_, impl FnMut() -> Uuid> {
        Packer::new(max_record_bytes, EventFormat::Envelope, envelope, "request", || Uuid::from_u128(7))
    }

    #[test]
    fn twenty_events_with_one_key_are_one_record() {
        let envelope = envelope();
        let mut packer = packer(&envelope, 1 << 20);
        for index in 0..20 {
            packer.event(index, &event(format!("{{\"n\":{index}}}"), Some("viewer"))).unwrap();
        }
        let records = packer.into_records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].partition_key, "e-viewer");
        assert_eq!(records[0].items, (0..20).collect::<Vec<_>>());
        assert_eq!(records[0].data.iter().filter(|byte| **byte == b'\n').count(), 20);
    }

    #[test]
    fn events_without_a_key_go_with_the_request() {
        let envelope = envelope();
        let mut packer = packer(&envelope, 1 << 20);
        packer.event(0, &event("{}".into(), None)).unwrap();
        assert_eq!(packer.into_records()[0].partition_key, "e-request");
    }

    #[test]
    fn an_event_stands_on_the_bound_and_one_past_it() {
        let envelope = envelope();
        let fitting = envelope.event_len(IdLiteral::new("\"i\""), "{}") + "e-key".len();
        assert!(packer(&envelope, fitting).event(0, &event("{}".into(), Some("key"))).is_ok());
        let error = packer(&envelope, fitting).event(0, &event("{ }".into(), Some("key"))).unwrap_err();
        assert_eq!(error.reason, Reason::EventTooLarge);
    }

    #[test]
    fn events_and_rejected_lines_never_share_a_record() {
        let envelope = envelope();
        let rejection = Rejection::new(Reason::NotAnObject, "d");
        let mut packer = packer(&envelope, 1 << 20);
        packer.event(0, &event("{}".into(), None)).unwrap();
        packer.rejected(1, &rejected(&rejection, b"7"));
        packer.rejected(2, &rejected(&rejection, b"8"));
        let records = packer.into_records();
        let found: Vec<_> = records.iter().map(|record| (&record.items[..], &record.reasons[..])).collect();
        let expected: [(&[usize], &[Reason]); 2] = [(&[0], &[]), (&[1, 2], &[Reason::NotAnObject; 2])];
        assert_eq!(found, expected);
    }

    /// Landing recognises rejected lines by this: no client's text makes a key that begins with `r-`.
    #[rstest]
    #[case("viewer", "e-viewer")]
    #[case("r-1", "e-r-1")]
    fn keys_of_events_are_prefixed(#[case] key: &str, #[case] expected: &str) {
        let envelope = envelope();
        let mut packer = packer(&envelope, 1 << 20);
        packer.event(0, &event("{}".into(), Some(key))).unwrap();
        assert_eq!(packer.into_records()[0].partition_key, expected);
    }

    #[rstest]
    #[case(EventFormat::Envelope)]
    #[case(EventFormat::Raw)]
    fn keys_of_rejected_lines_have_a_prefix_of_their_own(#[case] format: EventFormat) {
        let envelope = envelope();
        let rejection = Rejection::new(Reason::NotAnObject, "d");
        let mut packer = Packer::new(1_000, format, &envelope, "request", Uuid::max);
        packer.rejected(0, &rejected(&rejection, b"7"));
        packer.rejected(1, &rejected(&rejection, &[7; 2_000]));
        let keys: Vec<_> = packer.into_records().into_iter().map(|record| record.partition_key).collect();
        assert!(keys.len() > 2 && keys.iter().all(|key| key.starts_with("r-request/")), "{keys:?}");
    }

    #[test]
    fn raw_lines_are_json_as_it_was_sent() {
        let envelope = envelope();
        let mut packer = Packer::new(1 << 20, EventFormat::Raw, &envelope, "request", Uuid::max);
        packer.event(0, &event("{\"a\":1}".into(), None)).unwrap();
        assert_eq!(packer.into_records()[0].data, b"{\"a\":1}\n");
    }

    proptest! {
        #[test]
        fn no_record_is_too_large_and_nothing_is_left_out(
            events in prop::collection::vec((0usize..400, 0u8..4), 0..60), max_record_bytes in 300usize..2000,
        ) {
            let envelope = envelope();
            let mut packer = packer(&envelope, max_record_bytes);
            let mut expected = Vec::new();
            for (index, (padding, key)) in events.iter().enumerate() {
                let event = event(format!("{{\"n\":{index},\"p\":\"{}\"}}", "x".repeat(*padding)), Some(&format!("k{key}")));
                if packer.event(index, &event).is_ok() {
                    expected.push((index, event));
                }
            }
            let records = packer.into_records();
            let mut packed: Vec<usize> = records.iter().flat_map(|record| record.items.clone()).collect();
            packed.sort_unstable();
            prop_assert_eq!(packed, expected.iter().map(|(index, _)| *index).collect::<Vec<_>>());
            for record in &records {
                prop_assert!(record.size() <= max_record_bytes);
                prop_assert!(record.items.is_sorted());
                prop_assert_eq!(record.data.iter().filter(|byte| **byte == b'\n').count(), record.items.len());
            }
        }

        #[test]
        fn a_rejected_body_is_kept_whole_in_parts(body in prop::collection::vec(any::<u8>(), 0..6000)) {
            let envelope = envelope();
            let rejection = Rejection::new(Reason::InvalidJson, "why");
            let mut packer = packer(&envelope, 1000);
            packer.rejected(0, &Rejected { content_type: Some("text/plain"), ..rejected(&rejection, &body) });
            let mut kept = Vec::new();
            for record in packer.into_records() {
                prop_assert!(record.size() <= 1000);
                prop_assert_eq!(&record.reasons, &[Reason::InvalidJson]);
                let line: serde_json::Value = serde_json::from_slice(&record.data)?;
                let base64 = line["rejected"]["body_base64"].as_str().expect("a body");
                kept.extend(base64_simd::STANDARD.decode_to_vec(base64).expect("base64"));
            }
            prop_assert_eq!(kept, body);
        }
    }
}
