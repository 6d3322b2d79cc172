//! The keys of landed objects, and of what stands beside them.

use crate::line::Kind;
use crate::timestamp::UtcHour;

/// The key of a landed object: `events/dt=2026-11-21/hour=09/<shard-id>-<first-sequence-number>.jsonl.bz2`.
///
/// It depends on nothing but the first record of a group, which is the same each time a batch is sent: a re-sent batch
/// finds its object again.
#[must_use]
pub fn object_key(kind: Kind, hour: UtcHour, shard_id: &str, first_sequence_number: &str) -> String {
    let prefix = prefix(kind);
    format!("{prefix}/{}/{shard_id}-{first_sequence_number}.jsonl.bz2", hour.partition())
}

/// What stands behind the number of the object that redrive read.
const REDRIVEN: &str = "-redriven";

/// What a landed object's key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKey {
    /// From the prefix.
    pub kind: Kind,
    /// From the partition.
    pub hour: UtcHour,
    /// The shard that the records came from.
    pub shard_id: String,
    /// What stands behind the shard: a sequence number, except in the keys of what was redriven.
    pub first_sequence_number: String,
}

impl ObjectKey {
    /// The inverse of [`object_key`]; `None` for any other key.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let mut pieces = key.split('/');
        let (prefix_text, date, hour, name) = (pieces.next()?, pieces.next()?, pieces.next()?, pieces.next()?);
        let kind = [Kind::Event, Kind::Rejected].into_iter().find(|kind| prefix(*kind) == prefix_text)?;
        let hour = UtcHour::parse(&format!("{date}/{hour}"))?;
        // `shardId-000000000000`: the second dash ends it.
        let name = name.strip_suffix(".jsonl.bz2")?;
        let dash = name.match_indices('-').nth(1)?.0;
        let (shard_id, first) = (name[..dash].to_owned(), name[dash + 1..].to_owned());
        let parsed = Self { kind, hour, shard_id, first_sequence_number: first };
        (pieces.next().is_none() && parsed.text() == key).then_some(parsed)
    }

    /// As [`ObjectKey::parse`], for objects that landed from the stream alone.
    #[must_use]
    pub fn from_stream(key: &str) -> Option<Self> {
        Self::parse(key).filter(|key| key.first_sequence_number.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// The sequence number, and whether redrive made the object of rejected lines.
    #[must_use]
    pub fn sequence_number(&self) -> (&str, bool) {
        let number = self.first_sequence_number.as_str();
        number.strip_suffix(REDRIVEN).map_or((number, false), |number| (number, true))
    }

    /// The key of the object that takes the events of this rejected one.
    #[must_use]
    pub fn redriven(&self) -> String {
        object_key(Kind::Event, self.hour, &self.shard_id, &format!("{}{REDRIVEN}", self.first_sequence_number))
    }

    fn text(&self) -> String {
        object_key(self.kind, self.hour, &self.shard_id, &self.first_sequence_number)
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
        assert_eq!(
            (parsed.kind, &*parsed.shard_id, &*parsed.first_sequence_number),
            (Kind::Rejected, "shardId-000000000003", "4959")
        );
        assert_eq!(parsed.hour.partition(), "dt=2026-11-21/hour=09");
        for other in
            ["", "events/dt=2026-11-21/hour=09/_SUCCESS", "events/dt=2026-11-21/hour=24/s-1-2.jsonl.bz2", "x/y"]
        {
            assert_eq!(ObjectKey::parse(other), None, "{other}");
        }
        assert_eq!(ObjectKey::parse(&format!("{key}/x")), None);
    }

    #[test]
    fn what_was_redriven_is_not_from_the_stream() {
        let rejected =
            ObjectKey::from_stream("rejected/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2").unwrap();
        let redriven = rejected.redriven();
        assert_eq!(redriven, "events/dt=2026-11-21/hour=09/shardId-000000000000-1-redriven.jsonl.bz2");
        assert!(ObjectKey::from_stream(&redriven).is_none());
        assert_eq!(
            (rejected.sequence_number(), ObjectKey::parse(&redriven).unwrap().sequence_number()),
            (("1", false), ("1", true))
        );
    }

    proptest! {
        #[test]
        fn any_key_is_read_back(
            kind in prop::sample::select(vec![Kind::Event, Kind::Rejected]), millis in 0i64..4_000_000_000_000,
            shard in "shardId-[0-9]{12}", number in "[0-9]{1,128}(-redriven)?",
        ) {
            let hour = UnixMillis(millis).hour();
            let expected = ObjectKey { kind, hour, shard_id: shard.clone(), first_sequence_number: number.clone() };
            prop_assert_eq!(ObjectKey::parse(&object_key(kind, hour, &shard, &number)), Some(expected));
        }

        #[test]
        fn any_text_is_taken_for_a_key_without_panic(text in "(events|rejected|x)?/?(dt=)?.{0,60}") {
            let _key = ObjectKey::parse(&text);
        }
    }
}
