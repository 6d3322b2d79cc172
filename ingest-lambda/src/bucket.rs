//! Which events share records and shards: keys fall into buckets, each a range of the stream's hash-key space.
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html>

use md5::{Digest, Md5};

/// A key's place in the hash-key space: its MD5, as Kinesis takes that of a partition key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(u128);

impl HashKey {
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(u128::from_be_bytes(Md5::digest(key).into()))
    }
}

/// The hash-key space in equal ranges. Their number bounds the records of a request, whatever keys it invents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// The leading bits of a hash key that tell its bucket.
    bits: u32,
}

/// One of the ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    pub number: u8,
    /// The first hash key of the range, which puts all of the bucket on one shard.
    pub first_hash_key: u128,
}

impl Buckets {
    /// Each number that `KEY_BUCKETS` can be; the default comes first. 256 records fit into one `PutRecords` call, and more
    /// shards than that are another design.
    pub const COUNTS: [(&'static str, Self); 9] = [
        ("4", Self { bits: 2 }),
        ("1", Self { bits: 0 }),
        ("2", Self { bits: 1 }),
        ("8", Self { bits: 3 }),
        ("16", Self { bits: 4 }),
        ("32", Self { bits: 5 }),
        ("64", Self { bits: 6 }),
        ("128", Self { bits: 7 }),
        ("256", Self { bits: 8 }),
    ];

    #[must_use]
    pub fn bucket_of(self, key: HashKey) -> Bucket {
        let low_bits = u128::BITS - self.bits;
        let number = key.0.checked_shr(low_bits).unwrap_or(0);
        let first_hash_key = number.checked_shl(low_bits).unwrap_or(0);
        #[allow(clippy::cast_possible_truncation)] // Of at most 8 bits.
        Bucket { number: number as u8, first_hash_key }
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self::COUNTS[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    #[test]
    fn a_key_is_hashed_as_kinesis_hashes_partition_keys() {
        // printf viewer-1 | md5sum
        assert_eq!(HashKey::of(b"viewer-1"), HashKey(0x16f5_27f2_2123_88d1_43c3_d92d_bc38_ddc2));
    }

    #[test]
    fn four_buckets_are_quarters_of_the_space() {
        let bucket_of = |key: u128| Buckets::default().bucket_of(HashKey(key));
        let quarter = 1u128 << 126;
        for number in 0..4 {
            let first_hash_key = u128::from(number) * quarter;
            for key in [first_hash_key, first_hash_key + (quarter - 1)] {
                assert_eq!(bucket_of(key), Bucket { number, first_hash_key });
            }
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_the_range_that_a_key_is_in((count, buckets) in select(Buckets::COUNTS.to_vec()), key: u128) {
            let Bucket { number, first_hash_key } = buckets.bucket_of(HashKey(key));
            let count: u128 = count.parse().expect("a number");
            let width = (u128::MAX / count).saturating_add(u128::from(count > 1));
            prop_assert!(u128::from(number) < count);
            prop_assert_eq!(first_hash_key, width * u128::from(number));
            prop_assert!(key >= first_hash_key && (key - first_hash_key) < width || count == 1);
        }
    }
}
