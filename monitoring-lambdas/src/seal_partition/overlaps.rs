//! Finds the objects of a shard that begin before another one ends, in one pass in the order of keys.

use serde::{Deserialize, Serialize};
use shared::object::{FirstRecord, ObjectKey, ObjectName, RejectedName, prefix};
use shared::sequence_number::compare;

/// How far the objects of one shard and kind that were seen so far reach.
///
/// Keys of one shard follow one another, so no more than one shard is remembered. Within it, numbers with as many digits
/// follow one another in the order of their values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extents {
    /// Kind and shard, as in the keys.
    of: String,
    extents: Vec<Extent>,
}

/// The objects whose first numbers have as many digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Extent {
    /// Redriven objects cover the ones that they were made of.
    redriven: bool,
    digits: usize,
    first: String,
    last: String,
}

/// What an object overlaps with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overlapped {
    /// Where it begins.
    pub(super) first: String,
    /// Where the earlier objects end.
    pub(super) reaches: String,
    /// Whether one of them holds all of it.
    pub(super) is_within: bool,
}

impl Extents {
    /// Takes the next object, in the order of keys; what it overlaps with of those before it. Objects that never were on the
    /// stream overlap with nothing.
    pub(super) fn add(&mut self, key: &ObjectKey, last: Option<&str>) -> Option<Overlapped> {
        let (FirstRecord { shard_id, sequence_number: first }, redriven) = match &key.name {
            ObjectName::Landed(first) => (first, false),
            ObjectName::Redriven(RejectedName::Landed(first)) => (first, true),
            ObjectName::Spilled(_) | ObjectName::Redriven(RejectedName::Spilled(_)) => return None,
        };
        let last = last?;
        let of = format!("{}/{shard_id}", prefix(key.kind));
        if of != self.of {
            *self = Self { of, extents: Vec::new() };
        }
        let overlaps = |extent: &&Extent| {
            extent.redriven == redriven && compare(first, &extent.last).is_le() && compare(&extent.first, last).is_le()
        };
        let found = self.extents.iter().find(overlaps).map(|extent| Overlapped {
            first: first.clone(),
            reaches: extent.last.clone(),
            // An object with as many digits that reaches as far began no later: it has all of this one's records.
            is_within: extent.digits == first.len() && compare(last, &extent.last).is_le(),
        });
        self.extend(first, last, redriven);
        found
    }

    fn extend(&mut self, first: &str, last: &str, redriven: bool) {
        let digits = first.len();
        let same = self.extents.iter_mut().find(|extent| extent.redriven == redriven && extent.digits == digits);
        match same {
            Some(extent) if compare(last, &extent.last).is_gt() => last.clone_into(&mut extent.last),
            Some(_) => {}
            None => self.extents.push(Extent { redriven, digits, first: first.to_owned(), last: last.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::line::Kind;
    use shared::object::object_key;
    use shared::timestamp::UnixMillis;

    fn key(shard: u8, first: &str) -> String {
        object_key(Kind::Event, UnixMillis(0).hour(), &format!("shardId-{shard:012}"), first)
    }

    fn overlapped(objects: &[(String, String)]) -> Vec<Option<Overlapped>> {
        let mut extents = Extents::default();
        objects.iter().map(|(key, last)| extents.add(&ObjectKey::parse(key).unwrap(), Some(last.as_str()))).collect()
    }

    fn overlaps(objects: &[(String, String)]) -> Vec<Option<String>> {
        overlapped(objects).into_iter().map(|overlapped| Some(overlapped?.reaches)).collect()
    }

    #[test]
    fn an_object_that_ends_where_another_does_or_before_is_within_it() {
        let objects = [("10", "20"), ("12", "13"), ("13", "20"), ("14", "21"), ("20", "21"), ("21", "22")];
        let objects = objects.map(|(first, last)| (key(0, first), last.to_owned()));
        let within: Vec<_> = overlapped(&objects).into_iter().map(|found| found.map(|found| found.is_within)).collect();
        assert_eq!(within, [None, Some(true), Some(true), Some(false), Some(true), Some(false)]);
        // Keys sort by digits first: "10" comes before "9", and nothing says that it holds all of it.
        let objects = [("10", "12"), ("9", "11")].map(|(first, last)| (key(0, first), last.to_owned()));
        assert_eq!(overlapped(&objects)[1].as_ref().map(|found| found.is_within), Some(false));
    }

    #[test]
    fn an_object_that_begins_at_the_end_of_another_overlaps() {
        let objects = [("10", "12"), ("12", "13"), ("14", "20"), ("15", "16"), ("20", "21"), ("22", "22")];
        let objects = objects.map(|(first, last)| (key(0, first), last.to_owned()));
        let reached = |text: &str| Some(text.to_owned());
        assert_eq!(overlaps(&objects), [None, reached("12"), None, reached("20"), reached("20"), None]);
    }

    #[test]
    fn shards_and_redriven_objects_are_compared_separately() {
        let objects = [(0, "10-redriven", "10"), (0, "10", "15"), (0, "12-redriven", "12"), (1, "11", "12")];
        let objects = objects.map(|(shard, first, last)| (key(shard, first), last.to_owned()));
        assert_eq!(overlaps(&objects), [None, None, None, None]);
    }

    proptest! {
        /// Of ranges that don't contain one another's ends, none is found; where there is an overlap, one is.
        #[test]
        fn there_are_overlaps_if_and_only_if_two_ranges_share_a_number(
            ranges in prop::collection::btree_map((0u8..2, 1u64..400), 0u64..12, 0..30),
        ) {
            let mut objects: Vec<(String, String)> = ranges.iter()
                .map(|((shard, first), more)| (key(*shard, &first.to_string()), (first + more).to_string())).collect();
            objects.sort();
            let share = |a: (&(u8, u64), &u64), b: (&(u8, u64), &u64)| {
                a.0 != b.0 && a.0.0 == b.0.0 && a.0.1 <= b.0.1 + b.1 && b.0.1 <= a.0.1 + a.1
            };
            let any = ranges.iter().any(|one| ranges.iter().any(|other| share(one, other)));
            let found = overlaps(&objects);
            prop_assert_eq!(found.iter().any(Option::is_some), any);
            // With equally many digits, each object that begins within an earlier one is found.
            if ranges.keys().all(|(_, first)| (100..388).contains(first)) {
                let expected = ranges.iter().filter(|one| ranges.iter().any(|other| other.0 < one.0 && share(*one, other)));
                prop_assert_eq!(found.iter().flatten().count(), expected.count());
            }
        }
    }
}
