//! `_INCOMPLETE`, and what a person accepts as missing.

use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

/// The content of `_INCOMPLETE`, which an hour has instead of `_SUCCESS` when it is due and not whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    /// [`VERSION`](super::VERSION)
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
    /// Landing has just given batches back or failed: they will be sent again, and may be of this hour.
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

/// The most keys that are named.
pub const MAX_KEYS: usize = 100;

/// A person's decision that an hour is to be sealed as it is: the content of [`accepted_key`](super::accepted_key), and a member of `_SUCCESS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub by: String,
    pub reason: String,
    /// What was missing when the person accepted it; in `_SUCCESS`, when the hour was sealed.
    pub missing: Vec<Missing>,
}

impl Accepted {
    /// Whether the person knew of this, or of more of the same.
    pub(crate) fn includes(&self, missing: &Missing) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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
    fn an_acceptance_covers_what_it_names_and_less(
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
}
