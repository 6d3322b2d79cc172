//! What is said of a partition that is complete: `_MANIFEST.json`, all of it, and `_SUCCESS`, the sums.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::line::Kind;
use shared::object::{ObjectMetadata, ReceivedIn};
use shared::timestamp::UnixMillis;

/// The version of both formats.
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
    /// Of `events`, those that redrive made of rejected lines, without the repeated ones.
    #[serde(default)]
    pub redriven_events: u64,
    /// Of `events`, those that ingest wrote to S3 because Kinesis did not confirm them.
    #[serde(default)]
    pub spilled_events: u64,
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
    pub fn add_object(&mut self, kind: Kind, metadata: &ObjectMetadata) {
        add(&mut self.records, metadata.record_count);
        match kind {
            Kind::Event => {
                add(&mut self.events, metadata.event_count);
                self.events_received_in.add(metadata.received_in);
            }
            Kind::Rejected => self.rejected_received_in.add(metadata.received_in),
        }
    }

    pub fn add_record(&mut self) {
        add(&mut self.records, 1);
    }
}

/// The numbers of manifests come from what anybody may have written: a sum that is too large is the largest one.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

impl Totals {
    /// Objects of both kinds.
    pub const fn all_objects(&self) -> u64 {
        self.objects.saturating_add(self.rejected_objects)
    }

    /// Compressed bytes of both kinds.
    pub const fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.rejected_bytes)
    }

    /// Adds an object of so many bytes; `None` for metadata that can't be read.
    pub fn add_object(&mut self, kind: Kind, bytes: u64, metadata: Option<&ObjectMetadata>) {
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
    pub fn add_redriven(&mut self, metadata: &ObjectMetadata) {
        add(&mut self.redriven_events, metadata.event_count);
    }

    /// Of an object that was added: that ingest wrote it.
    pub fn add_spilled(&mut self, kind: Kind, metadata: &ObjectMetadata) {
        match kind {
            Kind::Event => add(&mut self.spilled_events, metadata.event_count),
            Kind::Rejected => {}
        }
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
    pub fn add_hour(&mut self, hour: &Self) {
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
    /// The `ETag` of the `_MANIFEST.json` that it stands for. While the manifest has another one, a run is replacing both;
    /// absent in what earlier versions sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Who had the hour sealed although something was missing; absent when it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
    pub totals: Totals,
}

/// The content of `_INCOMPLETE`, which stands where `_SUCCESS` should be by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    /// [`VERSION`]
    pub v: u8,
    pub partition: String,
    /// The time of the event that wrote it first.
    pub since: UnixMillis,
    /// Never empty.
    pub missing: Vec<Missing>,
}

/// What keeps an hour from being whole. Of keys, the first [`MAX_KEYS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Missing {
    /// Landing has read the stream up to this time of arrival, which is before the hour's end.
    #[error("landing has read the stream up to {read_up_to}")]
    UnreadRecords { read_up_to: UnixMillis },
    /// Landing works at records that arrived before this time, which is before the hour's end.
    #[error("records have landed up to {landed_up_to}")]
    UnlandedRecords { landed_up_to: UnixMillis },
    /// Landing has just given batches back or failed: they are sent again, and may be of this hour.
    #[error("batches are failing")]
    FailingBatches,
    /// Records arrive and landing is not invoked: they may be of this hour.
    #[error("landing is not invoked")]
    IdleLanding,
    /// CloudWatch has no values of the stream: nothing shows whether landing has read the hour.
    #[error("CloudWatch has no values of the stream")]
    UnknownProgress,
    /// Fewer records landed than arrived, and nothing else that is missing explains it.
    #[error("{arrived} records arrived and {landed} landed")]
    MissingRecords { arrived: u64, landed: u64 },
    /// Batches with records of the hour lie in the failed-batches bucket.
    #[error("{count} failed batches: {}", .keys.join(", "))]
    FailedBatches { count: u64, keys: Vec<String> },
    /// Objects of the hour have metadata that can't be read.
    #[error("{count} unreadable objects: {}", .keys.join(", "))]
    UnreadableObjects { count: u64, keys: Vec<String> },
    /// check-object found that objects of the hour are broken.
    #[error("broken objects: {}", .keys.join(", "))]
    BrokenObjects { keys: Vec<String> },
}

/// Keys that are named at most.
pub const MAX_KEYS: usize = 100;

/// A person's decision that an hour is to be sealed as it is: the content of [`accepted_key`], and a member of `_SUCCESS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub by: String,
    pub reason: String,
    /// What was missing when the person accepted it; in `_SUCCESS`, when the hour was sealed.
    pub missing: Vec<Missing>,
}

impl Accepted {
    /// Whether the person knew of this, or of more of the same.
    pub fn includes(&self, missing: &Missing) -> bool {
        self.missing.iter().any(|known| known.includes(missing))
    }
}

impl Missing {
    /// Whether the other is this, or less of it.
    fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::UnreadRecords { read_up_to: known }, Self::UnreadRecords { read_up_to: found })
            | (Self::UnlandedRecords { landed_up_to: known }, Self::UnlandedRecords { landed_up_to: found }) => {
                found >= known
            }
            (Self::FailingBatches, Self::FailingBatches)
            | (Self::IdleLanding, Self::IdleLanding)
            | (Self::UnknownProgress, Self::UnknownProgress) => true,
            (
                Self::MissingRecords { arrived, landed },
                Self::MissingRecords { arrived: found_arrived, landed: found_landed },
            ) => found_arrived.saturating_sub(*found_landed) <= arrived.saturating_sub(*landed),
            (Self::FailedBatches { count, keys }, Self::FailedBatches { count: found_count, keys: found }) => {
                found_count <= count && (*count > keys.len() as u64 || is_subset(found, keys))
            }
            // The same object may be found by check-object first, and then by the listing.
            (
                Self::UnreadableObjects { keys, .. } | Self::BrokenObjects { keys },
                Self::UnreadableObjects { keys: found, .. } | Self::BrokenObjects { keys: found },
            ) => is_subset(found, keys),
            _ => false,
        }
    }
}

fn is_subset(found: &[String], known: &[String]) -> bool {
    found.iter().all(|key| known.contains(key))
}

/// "An object of this hour was created after the hour's time to be sealed", put by check-object, taken by seal-partition.
pub fn late_key(partition: &str) -> String {
    format!("{LATE_PREFIX}{partition}")
}

/// Where a run of seal-partition stopped in a partition. S3 invokes seal-partition when it is put.
pub fn checkpoint_key(partition: &str) -> String {
    format!("{SEALING_PREFIX}{partition}{CHECKPOINT_SUFFIX}")
}

/// That a partition is to be sealed anew. Each run puts its own, so that none removes what another one asked for; S3 invokes
/// nothing for it.
pub fn reseal_key(partition: &str, run_id: &str) -> String {
    format!("{SEALING_PREFIX}{partition}.{run_id}{RESEAL_SUFFIX}")
}

/// The key of an hour's `_INCOMPLETE`.
pub fn incomplete_key(partition: &str) -> String {
    format!("events/{partition}/_INCOMPLETE")
}

/// That an hour has an `_INCOMPLETE`, so that it is looked at however old it is.
pub fn held_key(partition: &str) -> String {
    format!("{SEALING_PREFIX}{partition}{HELD_SUFFIX}")
}

/// Where `tools/scripts/accept-hour` puts an [`Accepted`].
pub fn accepted_key(partition: &str) -> String {
    format!("accepted/{partition}.json")
}

/// What is wrong with an object.
pub fn broken_key(object_key: &str) -> String {
    format!("{BROKEN_PREFIX}{object_key}.json")
}

/// What of an hour has been deleted since it was sealed.
pub fn deleted_key(partition: &str) -> String {
    format!("{DELETED_PREFIX}{partition}.json")
}

/// Where a sealed hour's manifest is kept when another replaces it, until check-deletions has compared it.
pub fn replaced_key(partition: &str, etag: &str) -> String {
    format!("{REPLACED_PREFIX}{partition}/{}.json", etag.trim_matches('"'))
}

pub const BROKEN_PREFIX: &str = "broken/";
pub const DELETED_PREFIX: &str = "deleted/";
pub const LATE_PREFIX: &str = "late/";
pub const REPLACED_PREFIX: &str = "replaced/";
pub const SEALING_PREFIX: &str = "sealing/";
pub const CHECKPOINT_SUFFIX: &str = ".json";
pub const HELD_SUFFIX: &str = ".incomplete";
pub const RESEAL_SUFFIX: &str = ".late";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

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

    #[rstest]
    #[case::the_same(failed(2, &["a", "b"]), failed(2, &["a", "b"]), true)]
    #[case::less(failed(2, &["a", "b"]), failed(1, &["b"]), true)]
    #[case::another(failed(1, &["a"]), failed(1, &["b"]), false)]
    #[case::more(failed(1, &["a"]), failed(2, &["a", "b"]), false)]
    #[case::of_more_than_are_named(failed(200, &["a"]), failed(199, &["b"]), true)]
    #[case::more_than_are_named(failed(200, &["a"]), failed(201, &["a"]), false)]
    #[case::fewer_records(records(9, 4), records(9, 5), true)]
    #[case::more_records(records(9, 4), records(9, 3), false)]
    #[case::read_further(unread(10), unread(11), true)]
    #[case::read_less_far(unread(10), unread(9), false)]
    #[case::found_by_either(Missing::BrokenObjects { keys: vec!["a".into()] }, unreadable("a"), true)]
    #[case::another_object(Missing::BrokenObjects { keys: vec!["a".into()] }, unreadable("b"), false)]
    #[case::another_kind(records(9, 4), Missing::FailingBatches, false)]
    fn an_acceptance_includes_what_it_names_and_less(
        #[case] known: Missing,
        #[case] found: Missing,
        #[case] expected: bool,
    ) {
        let accepted =
            Accepted { by: "kim".into(), reason: "r".into(), missing: vec![Missing::UnknownProgress, known] };
        assert_eq!(accepted.includes(&found), expected);
    }

    fn failed(count: u64, keys: &[&str]) -> Missing {
        Missing::FailedBatches { count, keys: keys.iter().map(|key| (*key).to_owned()).collect() }
    }

    fn records(arrived: u64, landed: u64) -> Missing {
        Missing::MissingRecords { arrived, landed }
    }

    fn unread(read_up_to: i64) -> Missing {
        Missing::UnreadRecords { read_up_to: UnixMillis(read_up_to) }
    }

    fn unreadable(key: &str) -> Missing {
        Missing::UnreadableObjects { count: 1, keys: vec![key.into()] }
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
        fn no_sum_wraps_around(one in any_totals(), other in any_totals()) {
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
