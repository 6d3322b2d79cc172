//! The keys of what landed from the stream, and of what is landed beside it.

use shared::line::Kind;
use shared::object::{ObjectKey, object_key};

/// The key of the object that takes the events of a rejected one.
pub(crate) fn redriven_key(rejected: &ObjectKey) -> String {
    let number = format!("{}-redriven", rejected.first_sequence_number);
    object_key(Kind::Event, rejected.hour, &rejected.shard_id, &number)
}

/// Reads the key of an object that landed from the stream; `None` for those of anything else.
pub(crate) fn from_stream(key: &str) -> Option<ObjectKey> {
    ObjectKey::parse(key).filter(|key| key.first_sequence_number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_redriven_is_not_from_the_stream() {
        let rejected = from_stream("rejected/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2").unwrap();
        let redriven = redriven_key(&rejected);
        assert_eq!(redriven, "events/dt=2026-11-21/hour=09/shardId-000000000000-1-redriven.jsonl.bz2");
        assert!(ObjectKey::parse(&redriven).is_some() && from_stream(&redriven).is_none());
    }
}
