//! The files that describe a partition: `_MANIFEST.json` with all of its objects, `_SUCCESS` with the sums, and `_INCOMPLETE`.

mod incomplete;
mod keys;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::line::Kind;
use shared::object::{ObjectMetadata, ReceivedIn};
use shared::timestamp::UnixMillis;

pub use incomplete::{Accepted, Incomplete, MAX_KEYS, Missing};
pub use keys::incomplete_key;
pub(crate) use keys::{
    BROKEN_PREFIX, CHECKPOINT_SUFFIX, DELETED_PREFIX, HELD_SUFFIX, LATE_PREFIX, REPLACED_PREFIX, RESEAL_SUFFIX,
    SEALING_PREFIX, accepted_key, broken_key, checkpoint_key, deleted_key, held_key, late_key, replaced_key,
    reseal_key,
};

/// The version of all three formats.
pub const VERSION: u8 = 1;

/// One landed object in an hour's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub key: String,
    /// Compressed, as S3 keeps it.
    pub bytes: u64,
    /// What its metadata says; absent when that can't be read.
    #[serde(flatten)]
    pub content: Option<EntryContent>,
}

/// What an object's metadata says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryContent {
    pub records: u64,
    pub lines: u64,
    pub uncompressed_bytes: u64,
    /// Both absent where the lines never were on the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sequence_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sequence_number: Option<String>,
    pub earliest_received_at: UnixMillis,
    pub latest_received_at: UnixMillis,
}

/// An object that begins before an earlier one of the same shard and kind ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    pub key: String,
    pub first_sequence_number: String,
    /// The end of what was there before it.
    pub reaches: String,
}

/// An hour in a date's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourOfDate {
    pub partition: String,
    /// As in the hour's `_SUCCESS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
    pub totals: Totals,
}

/// The sums of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Objects under `events/`.
    pub objects: u64,
    /// Objects under `rejected/`.
    pub rejected_objects: u64,
    /// Objects whose metadata can't be read: their lines are in no other sum.
    pub unreadable_objects: u64,
    /// Objects that begin before another of the same shard and kind ends.
    pub overlaps: u64,
    /// Kinesis records, of both kinds.
    pub records: u64,
    /// Lines under `events/`.
    pub events: u64,
    /// Lines under `rejected/`.
    pub rejected: u64,
    /// Rejected lines by reason, as `shared::rejection::Reason` names it.
    pub rejected_by_reason: BTreeMap<String, u64>,
    /// Compressed bytes under `events/`.
    pub bytes: u64,
    /// Compressed bytes under `rejected/`.
    pub rejected_bytes: u64,
    /// Bytes of all lines, of both kinds.
    pub uncompressed_bytes: u64,
    /// The smallest and the largest time of receipt, of both kinds; absent in an empty partition.
    pub earliest_received_at: Option<UnixMillis>,
    pub latest_received_at: Option<UnixMillis>,
    /// Events by the hour of their receipt; all zero in a date's.
    pub events_received_in: Received,
    /// Rejected lines by the hour of their receipt; all zero in a date's.
    pub rejected_received_in: Received,
    /// Of `events` and `deleted_events`, those that redrive made of rejected lines, without the repeated ones.
    #[serde(default)]
    pub redriven_events: u64,
    /// Of `events`, those that ingest wrote to S3 because Kinesis did not confirm them.
    #[serde(default)]
    pub spilled_events: u64,
    /// Lines that delete-viewer took out of objects under `events/` and `rejected/`: in no other sum but those that are compared
    /// with what was sent: by the hour of receipt, redriven, and repeated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted_events: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted_rejected: u64,
    /// What the sums above count once more than it is there; all zero in a date's.
    #[serde(default)]
    pub repeated: Repeated,
}

/// What is certainly in another object of the hour too: all of an object that lies within another's sequence numbers, and
/// the first record of one that begins within them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    pub records: u64,
    pub events: u64,
    pub events_received_in: Received,
    pub rejected_received_in: Received,
}

impl Repeated {
    /// Adds an object of which all is in another one.
    pub(crate) fn add_object(&mut self, kind: Kind, metadata: &ObjectMetadata) {
        add(&mut self.records, metadata.record_count);
        match kind {
            Kind::Event => {
                add(&mut self.events, metadata.event_count);
                self.events_received_in.add(metadata.received_in);
            }
            Kind::Rejected => self.rejected_received_in.add(metadata.received_in),
        }
    }

    pub(crate) fn add_record(&mut self) {
        add(&mut self.records, 1);
    }

    /// Adds the lines that were deleted from such an object.
    pub(crate) fn add_deleted(&mut self, kind: Kind, lines: ReceivedIn) {
        match kind {
            Kind::Event => {
                add(&mut self.events, lines.total());
                self.events_received_in.add(lines);
            }
            Kind::Rejected => self.rejected_received_in.add(lines),
        }
    }
}

/// Manifests of hours from which nothing was deleted stay as they are.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The numbers in manifests come from metadata that anybody may have written: sums saturate.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

impl Totals {
    /// Objects of both kinds.
    pub(crate) const fn all_objects(&self) -> u64 {
        self.objects.saturating_add(self.rejected_objects)
    }

    /// Compressed bytes of both kinds.
    pub const fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.rejected_bytes)
    }

    /// Adds an object of so many bytes; `None` for metadata that can't be read.
    pub(crate) fn add_object(&mut self, kind: Kind, bytes: u64, metadata: Option<&ObjectMetadata>) {
        let (objects, compressed) = match kind {
            Kind::Event => (&mut self.objects, &mut self.bytes),
            Kind::Rejected => (&mut self.rejected_objects, &mut self.rejected_bytes),
        };
        add(objects, 1);
        add(compressed, bytes);
        match metadata {
            Some(metadata) => self.add_content(kind, metadata),
            None => add(&mut self.unreadable_objects, 1),
        }
    }

    /// Of an object that was added: that redrive made it of rejected lines, and no other object has them.
    pub(crate) fn add_redriven(&mut self, metadata: &ObjectMetadata, deleted: ReceivedIn) {
        add(&mut self.redriven_events, metadata.event_count);
        add(&mut self.redriven_events, deleted.total());
    }

    /// Of an object that was added: that ingest wrote it.
    pub(crate) fn add_spilled(&mut self, kind: Kind, metadata: &ObjectMetadata) {
        match kind {
            Kind::Event => add(&mut self.spilled_events, metadata.event_count),
            Kind::Rejected => {}
        }
    }

    /// Of an object that was added: that lines of it were deleted.
    pub(crate) fn add_deleted(&mut self, kind: Kind, lines: ReceivedIn) {
        let (deleted, received_in) = match kind {
            Kind::Event => (&mut self.deleted_events, &mut self.events_received_in),
            Kind::Rejected => (&mut self.deleted_rejected, &mut self.rejected_received_in),
        };
        add(deleted, lines.total());
        received_in.add(lines);
    }

    fn add_content(&mut self, kind: Kind, metadata: &ObjectMetadata) {
        let (lines, received_in) = match kind {
            Kind::Event => (&mut self.events, &mut self.events_received_in),
            Kind::Rejected => (&mut self.rejected, &mut self.rejected_received_in),
        };
        add(lines, metadata.event_count);
        received_in.add(metadata.received_in);
        add(&mut self.records, metadata.record_count);
        add(&mut self.uncompressed_bytes, metadata.uncompressed_bytes);
        for (reason, count) in &metadata.rejected_reasons {
            add_reason(&mut self.rejected_by_reason, reason.as_str(), *count);
        }
        self.add_times(Some(metadata.earliest_received_at), Some(metadata.latest_received_at));
    }

    /// Adds an hour's sums to its date's.
    pub(crate) fn add_hour(&mut self, hour: &Self) {
        add(&mut self.objects, hour.objects);
        add(&mut self.rejected_objects, hour.rejected_objects);
        add(&mut self.unreadable_objects, hour.unreadable_objects);
        add(&mut self.overlaps, hour.overlaps);
        add(&mut self.bytes, hour.bytes);
        add(&mut self.rejected_bytes, hour.rejected_bytes);
        add(&mut self.records, hour.records);
        add(&mut self.events, hour.events);
        add(&mut self.rejected, hour.rejected);
        add(&mut self.uncompressed_bytes, hour.uncompressed_bytes);
        add(&mut self.redriven_events, hour.redriven_events);
        add(&mut self.spilled_events, hour.spilled_events);
        add(&mut self.deleted_events, hour.deleted_events);
        add(&mut self.deleted_rejected, hour.deleted_rejected);
        for (reason, count) in &hour.rejected_by_reason {
            add_reason(&mut self.rejected_by_reason, reason, *count);
        }
        self.add_times(hour.earliest_received_at, hour.latest_received_at);
    }

    fn add_times(&mut self, earliest: Option<UnixMillis>, latest: Option<UnixMillis>) {
        self.earliest_received_at = self.earliest_received_at.into_iter().chain(earliest).min();
        self.latest_received_at = self.latest_received_at.max(latest);
    }
}

fn add_reason(counts: &mut BTreeMap<String, u64>, reason: &str, count: u64) {
    add(counts.entry(reason.to_owned()).or_default(), count);
}

/// [`ReceivedIn`], as JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    pub previous: u64,
    pub this: u64,
    pub next: u64,
    pub elsewhere: u64,
}

impl Received {
    pub fn add(&mut self, lines: ReceivedIn) {
        add(&mut self.previous, lines.previous);
        add(&mut self.this, lines.this);
        add(&mut self.next, lines.next);
        add(&mut self.elsewhere, lines.elsewhere);
    }
}

/// The content of `_SUCCESS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// [`VERSION`]
    pub v: u8,
    /// `dt=2026-11-21/hour=09` or `dt=2026-11-21`
    pub partition: String,
    /// The time of the event that had the partition sealed first, and last.
    pub first_sealed_at: UnixMillis,
    pub sealed_at: UnixMillis,
    /// Objects that came after the first seal.
    pub late_objects: u64,
    /// The `ETag` of the `_MANIFEST.json` that it belongs to. While the manifest has another one, a run is replacing both;
    /// absent in what earlier versions sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Who had the hour sealed although something was missing; absent when it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
    pub totals: Totals,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_without_content_are_a_key_and_a_size() {
        let entry = Entry { key: "k".into(), bytes: 3, content: None };
        assert_eq!(serde_json::to_string(&entry).unwrap(), r#"{"key":"k","bytes":3}"#);
        assert_eq!(serde_json::from_str::<Entry>(r#"{"key":"k","bytes":3}"#).unwrap(), entry);
    }

    #[test]
    fn the_sums_of_a_date_are_those_of_its_hours() {
        let hour = |objects, earliest, latest| Totals {
            objects,
            events: 2 * objects,
            rejected_by_reason: BTreeMap::from([("too_deep".into(), objects)]),
            earliest_received_at: Some(UnixMillis(earliest)),
            latest_received_at: Some(UnixMillis(latest)),
            ..Totals::default()
        };
        let mut date = Totals::default();
        for hour in [hour(1, 2, 3), Totals::default(), hour(2, 1, 2)] {
            date.add_hour(&hour);
        }
        assert_eq!(date, hour(3, 1, 3));
    }

    /// What anybody may have written into `_SUCCESS` or an object's metadata.
    fn any_totals() -> impl Strategy<Value = Totals> {
        let number = || prop_oneof![Just(u64::MAX), any::<u64>()];
        let received = || {
            prop::array::uniform4(number()).prop_map(|[previous, this, next, elsewhere]| Received {
                previous,
                this,
                next,
                elsewhere,
            })
        };
        (prop::array::uniform12(number()), [received(), received(), received(), received()], number()).prop_map(
            |(numbers, received, repeated_events)| Totals {
                objects: numbers[0],
                rejected_objects: numbers[1],
                unreadable_objects: numbers[2],
                overlaps: numbers[3],
                records: numbers[4],
                events: numbers[5],
                rejected: numbers[6],
                rejected_by_reason: BTreeMap::from([("too_deep".into(), numbers[7])]),
                bytes: numbers[8],
                rejected_bytes: numbers[9],
                uncompressed_bytes: numbers[10],
                redriven_events: numbers[11],
                events_received_in: received[0],
                rejected_received_in: received[1],
                repeated: Repeated {
                    records: numbers[4],
                    events: repeated_events,
                    events_received_in: received[2],
                    rejected_received_in: received[3],
                },
                ..Totals::default()
            },
        )
    }

    proptest! {
        #[test]
        fn sums_saturate(one in any_totals(), other in any_totals()) {
            let mut sum = one.clone();
            sum.add_hour(&other);
            prop_assert_eq!(sum.objects, one.objects.saturating_add(other.objects));
            prop_assert_eq!(sum.rejected_objects, one.rejected_objects.saturating_add(other.rejected_objects));
            prop_assert_eq!(sum.unreadable_objects, one.unreadable_objects.saturating_add(other.unreadable_objects));
            prop_assert_eq!(sum.overlaps, one.overlaps.saturating_add(other.overlaps));
            prop_assert_eq!(sum.bytes, one.bytes.saturating_add(other.bytes));
            prop_assert_eq!(sum.rejected_bytes, one.rejected_bytes.saturating_add(other.rejected_bytes));
            prop_assert_eq!(sum.redriven_events, one.redriven_events.saturating_add(other.redriven_events));
            prop_assert!(sum.all_objects() >= one.objects.max(other.rejected_objects));
            prop_assert!(sum.all_bytes() >= one.bytes.max(other.rejected_bytes));
            sum.add_object(Kind::Event, u64::MAX, None);
            prop_assert_eq!((sum.bytes, sum.objects >= one.objects), (u64::MAX, true));
        }
    }
}
