//! What the encoder makes, another's decoder reads, and another's encoder makes no smaller.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};

use bzip2::Compression;
use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;
use bzip2_encoder::{Encoder, Level};
use proptest::prelude::*;
use rstest::rstest;

fn encode(bytes: &[u8], level: u8) -> Vec<u8> {
    let mut encoder = Encoder::new(Level::nearest(level));
    encoder.write(bytes).unwrap();
    encoder.finish().unwrap()
}

fn decode(file: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    MultiBzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Lines as they land: alike for long stretches, with numbers that no encoder can shorten.
fn lines(count: u64) -> Vec<u8> {
    let line = |number: u64| {
        let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{{\"v\":1,\"id\":\"{noise:016x}\",\"event\":{{\"type\":\"heartbeat\",\"position_ms\":{}}}}}\n",
            noise >> 40
        )
    };
    (0..count).map(line).collect::<String>().into_bytes()
}

#[rstest]
#[case::nothing(Vec::new())]
#[case::a_byte(b"x".to_vec())]
#[case::two_bytes(b"ab".to_vec())]
#[case::one_run(vec![0; 1_000_000])]
#[case::all_bytes((0..=255).collect())]
#[case::each_byte_often((0..=255u8).cycle().take(70_000).collect())]
#[case::periodic(b"abcabcabd".repeat(20_000))]
#[case::lines(lines(2_000))]
fn another_s_decoder_reads_it(#[case] bytes: Vec<u8>) {
    for level in [1, 9] {
        assert_eq!(decode(&encode(&bytes, level)), bytes);
    }
}

/// Bytes that no encoder makes smaller: all symbols, and as many groups as a block can have.
fn noise(length: u64) -> Vec<u8> {
    (0..length)
        .map(|number| {
            (number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) >> 56) as u8 ^ ((number * number) >> 7) as u8
        })
        .collect()
}

#[rstest]
#[case::two_full_blocks_of_noise(noise(1_900_000))]
#[case::a_run_across_the_end_of_a_block([lines(11_000)[..899_900].to_vec(), vec![b'x'; 400], lines(100)].concat())]
#[case::one_run_over_many_blocks(vec![7; 120_000_000])]
/// Byte n as often as Fibonacci's number n, in an order that leaves few runs: codes would be longer than 17 bits.
#[case::codes_that_would_be_too_long({
    let often = (0..26).scan((1u64, 1u64), |(one, other), byte| { let now = *one; (*one, *other) = (*other, now + *other); Some((byte as u8, now)) });
    let mut bytes: Vec<u8> = often.flat_map(|(byte, times)| std::iter::repeat_n(byte * 9, times as usize)).collect();
    let length = bytes.len();
    for place in 0..length { bytes.swap(place, (place * 7_919 + 13) % length); }
    bytes
})]
fn the_largest_blocks_come_back(#[case] bytes: Vec<u8>) {
    assert!(decode(&encode(&bytes, 9)) == bytes);
}

/// A block holds 20 bytes less than its level says: on the bound and one past it.
#[test]
fn blocks_end_where_they_must() {
    let bytes = lines(3_000);
    for length in [99_979, 99_980, 99_981, 199_960, 199_961] {
        let file = encode(&bytes[..length], 1);
        assert_eq!(decode(&file), &bytes[..length], "{length}");
    }
}

#[test]
fn the_level_is_in_the_header() {
    for (level, header) in [(0, b"BZh1"), (1, b"BZh1"), (9, b"BZh9"), (10, b"BZh9")] {
        assert!(encode(b"x", level).starts_with(header), "{level}");
    }
}

#[rstest]
#[case(100)]
#[case(1_000)]
#[case(20_000)]
fn lines_are_no_larger_than_libbz2_makes_them(#[case] count: u64) {
    let bytes = lines(count);
    let mut other = BzEncoder::new(Vec::new(), Compression::best());
    other.write_all(&bytes).unwrap();
    let (ours, theirs) = (encode(&bytes, 9).len(), other.finish().unwrap().len());
    assert!(ours <= theirs, "{ours} and {theirs}");
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_come_back(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            prop::collection::vec(0u8..2, 0..400),
            (any::<u8>(), 0usize..2_000).prop_map(|(byte, times)| vec![byte; times]),
        ], 0..20),
        level in 1u8..=9,
    ) {
        let mut encoder = Encoder::new(Level::nearest(level));
        for piece in &pieces {
            encoder.write(piece)?;
        }
        prop_assert_eq!(decode(&encoder.finish()?), pieces.concat());
    }
}
