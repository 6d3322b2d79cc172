//! From a group's lines to an object: bzip2 bytes and the metadata that says what is in them.

use bytes::Bytes;
use bzip2_encoder::SortError;
use lambda_setup::deadline::{Deadline, TimeIsUp};
use shared::frame::FrameError;
use shared::object::{Attempt, BlockSize, Compressed, LineWriter, ObjectMetadata};
use shared::timestamp::UnixMillis;

use crate::group::Group;

/// An object, ready to be put.
#[derive(Debug, Clone)]
pub struct Object {
    pub body: Bytes,
    pub metadata: ObjectMetadata,
}

/// Why lines can't be compressed.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The compressor has no memory.
    #[error(transparent)]
    Sort(#[from] SortError),
    /// A record's frame can't be read, although it was read before.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The deadline came first: the lines of a large batch take seconds.
    #[error(transparent)]
    TimeIsUp(#[from] TimeIsUp),
}

/// Compresses a group. Of the lines that it does not keep, one record's are held at a time. The deadline is looked at before each.
///
/// # Errors
///
/// None that the group's records are to blame for: see [`EncodeError`].
pub fn encode(
    group: &Group,
    block_size: BlockSize,
    attempt: &Attempt,
    deadline: Deadline,
) -> Result<Object, EncodeError> {
    let mut lines = LineWriter::new(block_size);
    group.for_each_text(|text| {
        if deadline.remaining().is_zero() {
            return Err(EncodeError::TimeIsUp(TimeIsUp));
        }
        Ok(lines.write(text)?)
    })?;
    let Compressed { body, uncompressed_bytes, uncompressed_sha256 } = lines.finish()?;
    let (earliest_received_at, latest_received_at) = group.counts.received_at.unwrap_or((UnixMillis(0), UnixMillis(0)));
    let metadata = ObjectMetadata {
        event_format: group.event_format,
        last_sequence_number: Some(group.last_sequence_number.clone()),
        record_count: group.record_count,
        event_count: group.lines(),
        uncompressed_bytes,
        uncompressed_sha256,
        received_in: group.counts.received_in,
        rejected_reasons: group.counts.reasons.iter().collect(),
        earliest_received_at,
        latest_received_at,
        block_size,
        attempt: attempt.clone(),
    };
    Ok(Object { body: body.into(), metadata })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::group::group;
    use crate::group::tests::{framed, record};
    use proptest::prelude::*;
    use shared::frame::MAX_LINES_BYTES;
    use shared::line::EventFormat;
    use shared::object::ReceivedIn;
    use std::io::Read;
    use std::time::Duration;

    fn encode(group: &Group, block_size: BlockSize, attempt: &Attempt) -> Result<Object, EncodeError> {
        super::encode(group, block_size, attempt, Deadline::after(Duration::from_secs(50)))
    }

    #[test]
    fn compression_ends_with_the_deadline() {
        let records: Vec<_> = (1..=200).map(|number| framed(number, &"{}\n".repeat(MAX_LINES_BYTES / 3))).collect();
        let groups = group(&records, EventFormat::Envelope);
        let deadline = Deadline::after(Duration::from_millis(20));
        let encoded = super::encode(&groups[0], BlockSize::LARGEST, &attempt(1), deadline);
        assert!(matches!(encoded, Err(EncodeError::TimeIsUp(_))), "{encoded:?}");
    }

    /// An attempt that begins that many milliseconds after 1970 and has a minute.
    pub(crate) fn attempt(began: i64) -> Attempt {
        let (began, deadline) = (UnixMillis(began), UnixMillis(began + 60_000));
        Attempt { began, deadline, request_id: format!("request-{}", began.0) }
    }

    fn decompress(object: &Object) -> String {
        let mut text = String::new();
        bzip2::read::MultiBzDecoder::new(&object.body[..]).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn metadata_says_what_is_in_the_object() {
        let groups =
            group(&[record(7, "{\"a\":1}\n{\"b\":2}\n", 5.0), record(8, "{\"c\":3}", 6.0)], EventFormat::Envelope);
        let object = encode(&groups[0], BlockSize::fitting(100), &attempt(1)).unwrap();
        assert_eq!(decompress(&object), "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n");
        let metadata = &object.metadata;
        assert_eq!((metadata.record_count, metadata.event_count, metadata.uncompressed_bytes), (2, 3, 24));
        assert_eq!(metadata.last_sequence_number.as_deref(), Some("8"));
        assert_eq!(metadata.earliest_received_at.rfc3339(), "1970-01-01T00:00:05.000Z");
        assert_eq!(metadata.latest_received_at.rfc3339(), "1970-01-01T00:00:06.000Z");
        assert_eq!(metadata.received_in, ReceivedIn { elsewhere: 3, ..ReceivedIn::default() });
        assert!(metadata.rejected_reasons.is_empty());
        // printf '{"a":1}\n{"b":2}\n{"c":3}\n' | sha256sum
        assert_eq!(metadata.uncompressed_sha256, "ef1c3cd9cd7c0cf0b0b7b745afbc853d1c7eebe134f3ab5b89650ff06c431e37");
    }

    #[test]
    fn metadata_says_when_lines_were_received_and_why_they_were_rejected() {
        let line = |time: &str, reason: &str| {
            format!("{{\"v\":1,\"received_at\":\"1970-01-01T{time}Z\",\"rejected\":{{\"reason\":\"{reason}\"}}}}\n")
        };
        let lines =
            [line("00:59:59.999", "too_deep"), line("01:00:00.000", "too_deep"), line("01:00:00.001", "no_events")];
        let groups = group(&[record(1, &lines.concat(), 3_600.0), record(2, "x", 3_600.0)], EventFormat::Envelope);
        let metadata = encode(&groups[0], BlockSize::fitting(1), &attempt(1)).unwrap().metadata;
        let entries = metadata.to_entries();
        assert_eq!(entries["received-in"], "previous=1,this=2,next=0,elsewhere=1");
        assert_eq!(entries["rejected-reasons"], "too_deep=2,no_events=1,foreign_record=1");
    }

    #[test]
    fn every_block_size_makes_other_bytes_of_the_same_lines() {
        let groups = group(&[record(1, "{\"a\":1}\n", 0.0)], EventFormat::Envelope);
        let objects: Vec<_> =
            (1..=9).map(|units| encode(&groups[0], BlockSize::new(units).unwrap(), &attempt(1)).unwrap()).collect();
        let distinct: std::collections::BTreeSet<_> = objects.iter().map(|object| object.body.clone()).collect();
        assert_eq!(distinct.len(), 9);
        assert!(objects.iter().all(|object| decompress(object) == "{\"a\":1}\n"));
    }

    proptest! {
        #[test]
        fn lines_survive_compression(lines in prop::collection::vec("[a-zé]{0,40}", 1..40), units in 1u8..=9) {
            let records: Vec<_> = lines.iter().enumerate()
                .map(|(number, text)| record(number as u64, &format!("{{\"t\":\"{text}\"}}"), 0.0)).collect();
            let object = encode(&group(&records, EventFormat::Envelope)[0], BlockSize::new(units).expect("in range"), &attempt(1))?;
            let expected: String = lines.iter().map(|text| format!("{{\"t\":\"{text}\"}}\n")).collect();
            prop_assert_eq!(decompress(&object), expected);
        }
    }
}
