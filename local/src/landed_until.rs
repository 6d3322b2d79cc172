//! How far the streams have landed: the arrival time up to which every record has been acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::timestamp::UnixMillis;

/// By shard, in real time.
#[derive(Debug, Clone, Default)]
pub(crate) struct LandedUntil(Arc<Mutex<BTreeMap<String, UnixMillis>>>);

impl LandedUntil {
    /// All that arrived on a shard before this has landed.
    pub(crate) fn note(&self, shard_id: &str, until: UnixMillis) {
        self.shards().insert(shard_id.to_owned(), until);
    }

    /// A shard has been read to its end.
    pub(crate) fn forget(&self, shard_id: &str) {
        self.shards().remove(shard_id);
    }

    /// What arrived before this has landed. `None` while no shard is read.
    #[must_use]
    pub(crate) fn earliest(&self) -> Option<UnixMillis> {
        self.shards().values().min().copied()
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<String, UnixMillis>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_shard_decides_until_it_is_read_to_its_end() {
        let landed = LandedUntil::default();
        assert_eq!(landed.earliest(), None);
        landed.note("a", UnixMillis(7));
        landed.note("b", UnixMillis(5));
        assert_eq!(landed.earliest(), Some(UnixMillis(5)));
        landed.forget("b");
        assert_eq!(landed.earliest(), Some(UnixMillis(7)));
    }
}
