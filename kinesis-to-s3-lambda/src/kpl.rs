//! Takes apart records that the Kinesis Producer Library put together.
//!
//! The format: four magic bytes, a protobuf message, the MD5 of the message.
//! <https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md>

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const MD5_BYTES: usize = 16;

/// User records in one aggregated record at most. The library stops at 4,294,967,295 by count, but at 50 KiB by size; more
/// than this is no player's traffic, and each costs memory however small it is.
const MAX_USER_RECORDS: usize = 10_000;

/// The message, without what is not needed here: partition keys, hash keys, tags.
#[derive(Message)]
struct AggregatedRecord {
    #[prost(message, repeated, tag = "3")]
    records: Vec<UserRecord>,
}

/// The same message, to count its user records: a list of `()` takes no memory, however long it is.
#[derive(Message)]
struct CountedRecord {
    #[prost(message, repeated, tag = "3")]
    records: Vec<()>,
}

#[derive(Message)]
struct UserRecord {
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

/// The user records of an aggregated record, without copying; `None` if it is none, or a damaged one.
#[must_use]
pub fn deaggregate(data: &Bytes) -> Option<Vec<Bytes>> {
    let message_end = data.len().checked_sub(MD5_BYTES)?;
    if !data.starts_with(&MAGIC) || message_end < MAGIC.len() {
        return None;
    }
    let message = data.slice(MAGIC.len()..message_end);
    if Md5::digest(&message)[..] != data[message_end..] {
        return None;
    }
    let count = CountedRecord::decode(message.clone()).ok()?.records.len();
    if !(1..=MAX_USER_RECORDS).contains(&count) {
        return None;
    }
    let records = AggregatedRecord::decode(message).ok()?.records;
    Some(records.into_iter().map(|record| record.data).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The full message, as the library's protobuf file has it, to write what the library would.
    #[derive(Message)]
    struct FullRecord {
        #[prost(string, repeated, tag = "1")]
        partition_key_table: Vec<String>,
        #[prost(string, repeated, tag = "2")]
        explicit_hash_key_table: Vec<String>,
        #[prost(message, repeated, tag = "3")]
        records: Vec<FullUserRecord>,
    }

    #[derive(Message)]
    struct FullUserRecord {
        #[prost(uint64, required, tag = "1")]
        partition_key_index: u64,
        #[prost(uint64, optional, tag = "2")]
        explicit_hash_key_index: Option<u64>,
        #[prost(bytes = "vec", required, tag = "3")]
        data: Vec<u8>,
    }

    fn aggregate(user_records: &[Vec<u8>]) -> Vec<u8> {
        let records = user_records.iter().map(|data| FullUserRecord {
            partition_key_index: 0,
            explicit_hash_key_index: None,
            data: data.clone(),
        });
        let message = FullRecord {
            partition_key_table: vec!["key".into()],
            explicit_hash_key_table: vec!["1".into()],
            records: records.collect(),
        }
        .encode_to_vec();
        [&MAGIC[..], &message, &Md5::digest(&message)].concat()
    }

    /// Bytes put together by hand from the format's description, so that the test does not rest on one protobuf crate.
    #[test]
    fn takes_apart_a_record_written_by_hand() {
        let mut message = vec![0x0a, 0x01, b'k'];
        for data in [b"{}", b"[]"] {
            message.extend([0x1a, 0x06, 0x08, 0x00, 0x1a, 0x02]);
            message.extend(data);
        }
        let record = [&MAGIC[..], &message, &Md5::digest(&message)].concat();
        assert_eq!(deaggregate(&record.into()).unwrap(), [Bytes::from("{}"), Bytes::from("[]")]);
    }

    #[test]
    fn the_number_of_user_records_stands_on_the_bound_and_one_past_it() {
        let aggregated = |count| Bytes::from(aggregate(&vec![Vec::new(); count]));
        assert_eq!(deaggregate(&aggregated(MAX_USER_RECORDS)).unwrap().len(), MAX_USER_RECORDS);
        assert!(deaggregate(&aggregated(MAX_USER_RECORDS + 1)).is_none());
        assert!(deaggregate(&aggregated(0)).is_none());
    }

    proptest! {
        #[test]
        fn what_was_aggregated_comes_apart(user_records in prop::collection::vec(any::<Vec<u8>>(), 1..20)) {
            prop_assert_eq!(deaggregate(&aggregate(&user_records).into()), Some(user_records.into_iter().map(Bytes::from).collect()));
        }

        #[test]
        fn one_flipped_bit_is_noticed(user_records in prop::collection::vec(any::<Vec<u8>>(), 1..4), at: prop::sample::Index, bit in 0u8..8) {
            let mut record = aggregate(&user_records);
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            prop_assert_eq!(deaggregate(&record.into()), None);
        }

        #[test]
        fn any_message_ends_in_a_result(message: Vec<u8>) {
            let record = [&MAGIC[..], &message, &Md5::digest(&message)].concat();
            let _records = deaggregate(&record.into());
        }
    }
}
