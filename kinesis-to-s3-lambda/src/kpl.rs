//! Takes apart records that the Kinesis Producer Library put together.
//!
//! The format: four magic bytes, a protobuf message, the MD5 of the message.
//! <https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md>

use bytes::{Buf, Bytes};
use md5::{Digest, Md5};
use prost::encoding::{self, DecodeContext};
use prost::{DecodeError, Message};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const MD5_BYTES: usize = 16;
/// The field of the user records. Partition keys, hash keys and tags are not needed here.
const USER_RECORDS: u32 = 3;

#[derive(Message)]
struct UserRecord {
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

/// Whether data claim to be an aggregated record.
#[must_use]
pub fn is_aggregate(data: &[u8]) -> bool {
    data.starts_with(&MAGIC)
}

/// The user records of an aggregated record, without copying; `None` if it is none, or a damaged one. They are decoded one at
/// a time: a record of 1 MiB can hold half a million empty ones.
#[must_use]
pub fn deaggregate(data: &Bytes) -> Option<impl Iterator<Item = Bytes> + use<>> {
    let message_end = data.len().checked_sub(MD5_BYTES)?;
    if !is_aggregate(data) || message_end < MAGIC.len() {
        return None;
    }
    let mut message = data.slice(MAGIC.len()..message_end);
    if Md5::digest(&message)[..] != data[message_end..] {
        return None;
    }
    // Once through all of it first: a damaged message is rejected whole.
    let (mut whole, mut is_empty) = (message.clone(), true);
    while next_user_record(&mut whole).ok()?.is_some() {
        is_empty = false;
    }
    (!is_empty).then(|| std::iter::from_fn(move || next_user_record(&mut message).ok().flatten()))
}

/// Decodes the next user record of the message; `None` at its end.
fn next_user_record(message: &mut Bytes) -> Result<Option<Bytes>, DecodeError> {
    while message.has_remaining() {
        let (field, wire_type) = encoding::decode_key(message)?;
        if field == USER_RECORDS {
            let mut record = Bytes::new();
            encoding::bytes::merge(wire_type, &mut record, message, DecodeContext::default())?;
            return Ok(Some(UserRecord::decode(record)?.data));
        }
        encoding::skip_field(wire_type, field, message, DecodeContext::default())?;
    }
    Ok(None)
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
        assert_eq!(records_of(record).unwrap(), [Bytes::from("{}"), Bytes::from("[]")]);
    }

    fn records_of(record: Vec<u8>) -> Option<Vec<Bytes>> {
        deaggregate(&record.into()).map(Iterator::collect)
    }

    #[test]
    fn any_number_of_user_records_comes_apart_and_none_is_no_aggregate() {
        assert_eq!(records_of(aggregate(&vec![Vec::new(); 100_000])).unwrap().len(), 100_000);
        assert!(records_of(aggregate(&[])).is_none());
    }

    proptest! {
        #[test]
        fn what_was_aggregated_comes_apart(user_records in prop::collection::vec(any::<Vec<u8>>(), 1..20)) {
            prop_assert_eq!(records_of(aggregate(&user_records)), Some(user_records.into_iter().map(Bytes::from).collect()));
        }

        #[test]
        fn one_flipped_bit_is_noticed(user_records in prop::collection::vec(any::<Vec<u8>>(), 1..4), at: prop::sample::Index, bit in 0u8..8) {
            let mut record = aggregate(&user_records);
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            prop_assert_eq!(records_of(record), None);
        }

        #[test]
        fn any_message_ends_in_a_result(message: Vec<u8>) {
            let record = [&MAGIC[..], &message, &Md5::digest(&message)].concat();
            let _records = records_of(record);
        }
    }
}
