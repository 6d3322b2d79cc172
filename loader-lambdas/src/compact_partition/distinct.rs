//! Which rows of an hour were there before: by id and event, in 16 bytes a row.
//!
//! An id and an event are each known by 64 bits of SHA-256, the event's over both, so that two rows are taken for the same only if
//! 128 bits agree. Nobody can choose texts that do, nor texts that fall into one place of the tables, whose hashing has keys of its own.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

/// The most rows that are compared with each other: as many as fit into a table of 2^26 places, seven eighths full. The two tables take
/// 1.7 GB at most, and 2.3 GB while one of them grows.
pub(super) const MAX_ROWS: u64 = (1 << 26) / 8 * 7;

/// What a row is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its id is new.
    New,
    /// Another event has its id.
    Clashing,
    /// Its id and its event were there.
    Double,
}

/// The rows so far.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    /// The first event of each id.
    by_id: HashMap<u64, u64>,
    /// The other events of ids, with their ids.
    clashing: HashSet<u128>,
}

impl Distinct {
    /// Adds a row, unless it was there.
    pub(super) fn add(&mut self, id: &str, event: &str) -> Seen {
        let (id, event) = (first_64_bits([id, ""]), first_64_bits([id, event]));
        let first = match self.by_id.entry(id) {
            Entry::Vacant(place) => {
                place.insert(event);
                return Seen::New;
            }
            Entry::Occupied(first) => *first.get(),
        };
        if first == event || !self.clashing.insert(u128::from(id) << 64 | u128::from(event)) {
            return Seen::Double;
        }
        Seen::Clashing
    }
}

/// The length keeps the two texts apart.
fn first_64_bits([id, event]: [&str; 2]) -> u64 {
    let hash =
        Sha256::new().chain_update((id.len() as u64).to_le_bytes()).chain_update(id).chain_update(event).finalize();
    hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_told_apart_by_id_and_event() {
        let mut distinct = Distinct::default();
        let seen = [("1", "a"), ("2", "a"), ("1", "a"), ("1", "b"), ("1", "b"), ("1", "a"), ("", "1a"), ("1a", "")];
        let seen = seen.map(|(id, event)| distinct.add(id, event));
        use Seen::{Clashing, Double, New};
        assert_eq!(seen, [New, New, Double, Clashing, Double, Double, New, New]);
    }

    proptest! {
        #[test]
        fn each_pair_is_new_once(rows in prop::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..60)) {
            let mut distinct = Distinct::default();
            let mut known = HashSet::new();
            for (id, event) in &rows {
                let has_id = known.iter().any(|(known, _)| known == id);
                let expected = match (known.insert((id.clone(), event.clone())), has_id) {
                    (false, _) => Seen::Double,
                    (true, true) => Seen::Clashing,
                    (true, false) => Seen::New,
                };
                prop_assert_eq!(distinct.add(id, event), expected);
            }
        }
    }
}
