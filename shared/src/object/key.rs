//! The keys of landed objects, and of the files beside them.

use std::fmt;

use crate::line::Kind;
use crate::timestamp::UtcHour;

/// The key of an object of lines: `<kind>/dt=2026-11-21/hour=09/<name>.jsonl.bz2`. [`Display`](fmt::Display) writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKey {
    /// From the prefix.
    pub kind: Kind,
    /// From the partition.
    pub hour: UtcHour,
    /// What the object is named after.
    pub name: ObjectName,
}

/// What an object is named after, and so who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectName {
    /// Landing wrote a group of a batch, named after its first record: `<shard-id>-<sequence-number>`.
    Landed(FirstRecord),
    /// Ingest wrote lines that Kinesis did not confirm: `spill-<id>`.
    Spilled(SpillId),
    /// Redrive wrote the events that it found in this rejected object: `<name>-redriven`.
    Redriven(RejectedName),
}

/// What a rejected object is named after: redrive writes events alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectedName {
    /// As [`ObjectName::Landed`].
    Landed(FirstRecord),
    /// As [`ObjectName::Spilled`].
    Spilled(SpillId),
}

/// The first record of a group. It is the same each time a batch is sent: a re-sent batch finds its object again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstRecord {
    /// The shard that the record is on.
    pub shard_id: String,
    /// Decimal digits.
    pub sequence_number: String,
}

/// A `UUIDv7`, drawn before the object is written for the first time: the names of later objects sort after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpillId(pub u128);

/// How the names of spilled objects begin. A shard's id begins with `shardId-`.
pub const SPILL_PREFIX: &str = "spill-";
/// What redrive appends to the name of the object that it read.
const REDRIVEN_SUFFIX: &str = "-redriven";
const FILE_SUFFIX: &str = ".jsonl.bz2";

/// The key of the object that landing makes of a group.
#[must_use]
pub fn object_key(kind: Kind, hour: UtcHour, shard_id: &str, first_sequence_number: &str) -> String {
    let first = FirstRecord { shard_id: shard_id.to_owned(), sequence_number: first_sequence_number.to_owned() };
    ObjectKey { kind, hour, name: ObjectName::Landed(first) }.to_string()
}

impl ObjectKey {
    /// The key of what ingest writes while Kinesis is away; `hour` is that of the first attempt to write it.
    #[must_use]
    pub const fn spilled(kind: Kind, hour: UtcHour, id: SpillId) -> Self {
        Self { kind, hour, name: ObjectName::Spilled(id) }
    }

    /// The inverse of its text; `None` for any other key.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (partition, file) = key.rsplit_once('/')?;
        let (prefix_text, partition) = partition.split_once('/')?;
        let kind = [Kind::Event, Kind::Rejected].into_iter().find(|kind| prefix(*kind) == prefix_text)?;
        let hour = UtcHour::parse(partition)?;
        let name = ObjectName::parse(file.strip_suffix(FILE_SUFFIX)?)?;
        let is_possible = match name {
            ObjectName::Landed(_) | ObjectName::Spilled(_) => true,
            ObjectName::Redriven(_) => kind == Kind::Event,
        };
        is_possible.then_some(Self { kind, hour, name })
    }

    /// The key of the object that takes the events of this rejected one.
    #[must_use]
    pub fn redriven(&self) -> Self {
        let rejected = match self.name.clone() {
            ObjectName::Landed(first) => RejectedName::Landed(first),
            ObjectName::Spilled(id) => RejectedName::Spilled(id),
            ObjectName::Redriven(rejected) => rejected,
        };
        Self { kind: Kind::Event, hour: self.hour, name: ObjectName::Redriven(rejected) }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}{FILE_SUFFIX}", prefix(self.kind), self.hour.partition(), self.name)
    }
}

impl ObjectName {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.strip_suffix(REDRIVEN_SUFFIX) {
            Some(rejected) => Self::Redriven(RejectedName::parse(rejected)?),
            None => match RejectedName::parse(text)? {
                RejectedName::Landed(first) => Self::Landed(first),
                RejectedName::Spilled(id) => Self::Spilled(id),
            },
        })
    }

    /// The first record of what landed from the stream, also where redrive has read it since; `None` for what never was on
    /// the stream.
    #[must_use]
    pub const fn first_record(&self) -> Option<&FirstRecord> {
        match self {
            Self::Landed(first) | Self::Redriven(RejectedName::Landed(first)) => Some(first),
            Self::Spilled(_) | Self::Redriven(RejectedName::Spilled(_)) => None,
        }
    }

    /// As [`ObjectName::first_record`], for what landing wrote alone: its lines are the records' from here on.
    #[must_use]
    pub fn into_landed(self) -> Option<FirstRecord> {
        match self {
            Self::Landed(first) => Some(first),
            Self::Spilled(_) | Self::Redriven(_) => None,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Landed(first) => first.fmt(f),
            Self::Spilled(id) => id.fmt(f),
            Self::Redriven(RejectedName::Landed(first)) => write!(f, "{first}{REDRIVEN_SUFFIX}"),
            Self::Redriven(RejectedName::Spilled(id)) => write!(f, "{id}{REDRIVEN_SUFFIX}"),
        }
    }
}

impl RejectedName {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(SPILL_PREFIX) {
            Some(id) => SpillId::parse(id).map(Self::Spilled),
            None => FirstRecord::parse(text).map(Self::Landed),
        }
    }
}

impl FirstRecord {
    fn parse(text: &str) -> Option<Self> {
        // `shardId-000000000000`: the second dash ends it.
        let (shard_id, sequence_number) = text.split_at_checked(text.match_indices('-').nth(1)?.0)?;
        let sequence_number = &sequence_number[1..];
        let is_number = !sequence_number.is_empty() && sequence_number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Self { shard_id: shard_id.to_owned(), sequence_number: sequence_number.to_owned() })
    }
}

impl fmt::Display for FirstRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard_id, self.sequence_number)
    }
}

impl SpillId {
    fn parse(digits: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_id = digits.len() == 32 && digits.bytes().all(is_digit);
        is_id.then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for SpillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SPILL_PREFIX}{:032x}", self.0)
    }
}

/// What seal-partition says of an hour or a date that is complete: `events/<partition>/_MANIFEST.json`. Readers of
/// Hive partitions pass over names that begin with an underscore.
#[must_use]
pub fn manifest_key(partition: &str) -> String {
    format!("{}/{partition}/_MANIFEST.json", prefix(Kind::Event))
}

/// What says that a partition is complete: `events/<partition>/_SUCCESS`. It is written after the manifest.
#[must_use]
pub fn success_key(partition: &str) -> String {
    format!("{}/{partition}/_SUCCESS", prefix(Kind::Event))
}

/// The first part of the keys of one kind, without a slash.
#[must_use]
pub const fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Event => "events",
        Kind::Rejected => "rejected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::UnixMillis;
    use proptest::prelude::*;

    #[test]
    fn keys_are_hive_partitions() {
        let hour = UnixMillis(1_795_253_528_006).hour();
        assert_eq!(
            object_key(
                Kind::Event,
                hour,
                "shardId-000000000000",
                "49590338271490256608559692538361571095921575989136588898"
            ),
            "events/dt=2026-11-21/hour=09/shardId-000000000000-49590338271490256608559692538361571095921575989136588898.jsonl.bz2"
        );
        assert!(object_key(Kind::Rejected, hour, "s", "1").starts_with("rejected/dt=2026-11-21/hour=09/s-1."));
    }

    #[test]
    fn keys_are_read_back_and_no_others() {
        let key = "rejected/dt=2026-11-21/hour=09/shardId-000000000003-4959.jsonl.bz2";
        let parsed = ObjectKey::parse(key).unwrap();
        let first = FirstRecord { shard_id: "shardId-000000000003".into(), sequence_number: "4959".into() };
        assert_eq!((parsed.kind, parsed.name), (Kind::Rejected, ObjectName::Landed(first)));
        assert_eq!(parsed.hour.partition(), "dt=2026-11-21/hour=09");
        for other in [
            "",
            "x/y",
            "events/dt=2026-11-21/hour=09/_SUCCESS",
            "events/dt=2026-11-21/hour=24/shardId-1-2.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/shardId-1-.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/shardId-1-2x.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/shardId-1-2-redriven-redriven.jsonl.bz2",
            "rejected/dt=2026-11-21/hour=09/shardId-1-2-redriven.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/spill-.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/spill-0-1.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/spill-019aa5d1c2f67b3a9f1e0123456789AB.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/spill-+19aa5d1c2f67b3a9f1e0123456789ab.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/spill-019aa5d1c2f67b3a9f1e0123456789ab0.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/spill-é19aa5d1c2f67b3a9f1e0123456789a.jsonl.bz2",
        ] {
            assert_eq!(ObjectKey::parse(other), None, "{other}");
        }
        assert_eq!(ObjectKey::parse(&format!("{key}/x")), None);
        assert_eq!(ObjectKey::parse(&format!("x/{key}")), None);
    }

    #[test]
    fn a_spilled_object_is_named_after_its_id() {
        let hour = UnixMillis(1_795_253_528_006).hour();
        let key = ObjectKey::spilled(Kind::Rejected, hour, SpillId(0x019a_a5d1_c2f6_7b3a_9f1e_0123_4567_89ab));
        let text = "rejected/dt=2026-11-21/hour=09/spill-019aa5d1c2f67b3a9f1e0123456789ab.jsonl.bz2";
        assert_eq!((key.to_string().as_str(), key.name.first_record()), (text, None));
        let redriven = key.redriven();
        assert_eq!(redriven.to_string(), text.replace("rejected/", "events/").replace(".jsonl", "-redriven.jsonl"));
        assert_eq!(redriven.name.into_landed(), None);
    }

    #[test]
    fn what_was_redriven_has_a_first_record_and_is_not_landed() {
        let rejected = ObjectKey::parse("rejected/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2").unwrap();
        let redriven = rejected.redriven();
        assert_eq!(redriven.to_string(), "events/dt=2026-11-21/hour=09/shardId-000000000000-1-redriven.jsonl.bz2");
        assert_eq!((redriven.name.first_record(), &redriven.redriven()), (rejected.name.first_record(), &redriven));
        assert_eq!(redriven.name.into_landed(), None);
        assert_eq!(rejected.name.into_landed().unwrap().sequence_number, "1");
    }

    fn any_name() -> impl Strategy<Value = RejectedName> {
        let first = ("shardId-[0-9]{12}", "[0-9]{1,128}");
        prop_oneof![
            first.prop_map(|(shard_id, sequence_number)| RejectedName::Landed(FirstRecord {
                shard_id,
                sequence_number
            })),
            any::<u128>().prop_map(|id| RejectedName::Spilled(SpillId(id))),
        ]
    }

    proptest! {
        #[test]
        fn any_key_is_read_back(
            kind in prop::sample::select(vec![Kind::Event, Kind::Rejected]), millis in 0i64..4_000_000_000_000, name in any_name(),
        ) {
            let name = match name {
                RejectedName::Landed(first) => ObjectName::Landed(first),
                RejectedName::Spilled(id) => ObjectName::Spilled(id),
            };
            let key = ObjectKey { kind, hour: UnixMillis(millis).hour(), name };
            for key in [key.redriven(), key] {
                prop_assert_eq!(ObjectKey::parse(&key.to_string()), Some(key));
            }
        }

        #[test]
        fn a_text_is_no_key_or_that_of_the_key_that_it_is_taken_for(
            text in "((events|rejected|x)/dt=2026-11-21/hour=09/)?(shardId-[0-9]{1,3}-|spill-)?.{0,40}(-redriven)?(\\.jsonl\\.bz2)?",
        ) {
            let parsed = ObjectKey::parse(&text);
            prop_assert!(parsed.is_none_or(|key| key.to_string() == text));
        }

        #[test]
        fn spilled_objects_sort_by_their_ids(one: u128, other: u128) {
            prop_assert_eq!(SpillId(one).to_string().cmp(&SpillId(other).to_string()), one.cmp(&other));
        }
    }
}
