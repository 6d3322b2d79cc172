//! Decompresses gzip and deflate within bounds of output and of work.
//!
//! The work of inflating is that of its input, its output and its blocks: each block may bring codes of its own, for which
//! tables are filled, even if it holds nothing, and 4 MiB hold three million of them. So blocks are counted, as no more than
//! the output can justify. (flate2 hides where blocks end; its decoder, which is called here, does not.)

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use shared::limits::MAX_EVENTS_PER_REQUEST;

use crate::steps;

/// Blocks that data may have whatever they hold. Compressors end a block after some 16 KiB, and when they are flushed, which
/// adds an empty one: a body may be flushed after each event.
pub const FREE_BLOCKS: usize = 2 * MAX_EVENTS_PER_REQUEST + 1024;
/// Bytes of output that justify one more block.
pub const OUTPUT_BYTES_PER_BLOCK: usize = 64;

/// What every gzip member begins with.
pub const GZIP_MAGIC: &[u8] = b"\x1f\x8b";

/// The container of compressed data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 1950.
    Zlib,
    /// RFC 1951 alone.
    Bare,
}

/// Why compressed data don't decompress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    #[error("it is damaged")]
    Damaged,
    #[error("the compressed data is truncated")]
    CutOff,
    #[error("{0} extra bytes follow the compressed data; remove them")]
    TrailingBytes(usize),
    #[error("it decompresses to more than {0} bytes")]
    TooLarge(usize),
    #[error(
        "its first {bytes} decompressed bytes are cut into {blocks} blocks; it may have {FREE_BLOCKS} and one more for \
         each {OUTPUT_BYTES_PER_BLOCK} bytes; compress the body in one piece, without flushing"
    )]
    TooManyBlocks { blocks: usize, bytes: usize },
}

/// Decompresses all of `data`, to at most `max_bytes`.
///
/// # Errors
///
/// When the data are damaged, end too early or too late, or are over a limit.
pub fn inflate(data: &[u8], container: Container, max_bytes: usize) -> Result<Vec<u8>, InflateError> {
    let mut inflater = Inflater::new(data, max_bytes);
    match container {
        Container::Gzip => inflater.gzip()?,
        Container::Zlib => inflater.stream(TINFL_FLAG_PARSE_ZLIB_HEADER)?,
        Container::Bare => inflater.stream(0)?,
    }
    inflater.finish()
}

struct Inflater<'a> {
    /// What is not read yet.
    input: &'a [u8],
    /// What is decompressed, and room behind it.
    output: Vec<u8>,
    filled: usize,
    max_bytes: usize,
    blocks: usize,
    decoder: DecompressorOxide,
}

impl<'a> Inflater<'a> {
    fn new(input: &'a [u8], max_bytes: usize) -> Self {
        let room = (input.len() * 4).min(max_bytes) + 1;
        Self { input, output: vec![0; room], filled: 0, max_bytes, blocks: 0, decoder: DecompressorOxide::new() }
    }

    fn gzip(&mut self) -> Result<(), InflateError> {
        loop {
            let behind_header = behind_gzip_header(self.input)?;
            steps::count(self.input.len() - behind_header.len());
            self.input = behind_header;
            let start = self.filled;
            self.stream(0)?;
            self.check_gzip_trailer(start)?;
            if !self.input.starts_with(GZIP_MAGIC) {
                return Ok(());
            }
        }
    }

    /// The member's checksum and length, as they stand behind it.
    fn check_gzip_trailer(&mut self, start: usize) -> Result<(), InflateError> {
        let (trailer, rest) = self.input.split_first_chunk::<8>().ok_or(InflateError::CutOff)?;
        let member = &self.output[start..self.filled];
        steps::count(member.len());
        // The upper half is the length modulo 2^32.
        let expected = u64::from(crc32fast::hash(member)) | (member.len() as u64) << 32;
        self.input = rest;
        if u64::from_le_bytes(*trailer) == expected { Ok(()) } else { Err(InflateError::Damaged) }
    }

    /// One stream, block by block. Nothing in it can refer to what was decompressed before it.
    fn stream(&mut self, container: u32) -> Result<(), InflateError> {
        let flags = container | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        let start = self.filled;
        self.decoder.init();
        loop {
            let window = &mut self.output[start..];
            let (status, read, written) = decompress(&mut self.decoder, self.input, window, self.filled - start, flags);
            self.input = &self.input[read..];
            self.filled += written;
            steps::count(1 + read + written);
            match status {
                TINFLStatus::Done => return self.count_block(),
                TINFLStatus::BlockBoundary => self.count_block()?,
                TINFLStatus::HasMoreOutput => self.make_room()?,
                TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                    return Err(InflateError::CutOff);
                }
                _ => return Err(InflateError::Damaged),
            }
        }
    }

    fn count_block(&mut self) -> Result<(), InflateError> {
        self.blocks += 1;
        let (blocks, bytes) = (self.blocks, self.filled);
        let justified = FREE_BLOCKS + bytes / OUTPUT_BYTES_PER_BLOCK;
        if blocks > justified { Err(InflateError::TooManyBlocks { blocks, bytes }) } else { Ok(()) }
    }

    /// Twice the room, but no more than a byte over the limit, which is enough to know that it is too much.
    fn make_room(&mut self) -> Result<(), InflateError> {
        if self.output.len() > self.max_bytes {
            return Err(InflateError::TooLarge(self.max_bytes));
        }
        let room = (self.output.len() * 2).min(self.max_bytes + 1);
        steps::count(room);
        self.output.resize(room, 0);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, InflateError> {
        if self.filled > self.max_bytes {
            return Err(InflateError::TooLarge(self.max_bytes));
        }
        if !self.input.is_empty() {
            return Err(InflateError::TrailingBytes(self.input.len()));
        }
        self.output.truncate(self.filled);
        Ok(self.output)
    }
}

/// <https://www.rfc-editor.org/rfc/rfc1952#section-2.3>
fn behind_gzip_header(member: &[u8]) -> Result<&[u8], InflateError> {
    const HAS_CHECKSUM: u8 = 2;
    const HAS_EXTRA: u8 = 4;
    const HAS_NAME: u8 = 8;
    const HAS_COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;
    let (&[magic, more_magic, method, flags, ..], mut rest) =
        member.split_first_chunk::<10>().ok_or(InflateError::CutOff)?;
    if [magic, more_magic] != GZIP_MAGIC || method != 8 || flags & RESERVED != 0 {
        return Err(InflateError::Damaged);
    }
    if flags & HAS_EXTRA != 0 {
        let (length, behind) = rest.split_first_chunk::<2>().ok_or(InflateError::CutOff)?;
        rest = behind.get(usize::from(u16::from_le_bytes(*length))..).ok_or(InflateError::CutOff)?;
    }
    for text in [HAS_NAME, HAS_COMMENT] {
        if flags & text != 0 {
            let end = memchr::memchr(0, rest).ok_or(InflateError::CutOff)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HAS_CHECKSUM != 0 {
        let header = &member[..member.len() - rest.len()];
        let (checksum, behind) = rest.split_first_chunk::<2>().ok_or(InflateError::CutOff)?;
        if crc32fast::hash(header).to_le_bytes()[..2] != checksum[..] {
            return Err(InflateError::Damaged);
        }
        rest = behind;
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use flate2::{Compress, FlushCompress, GzBuilder};
    use proptest::prelude::*;
    use rstest::rstest;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn compressed(bytes: &[u8], container: Container) -> Vec<u8> {
        let level = Compression::default();
        match container {
            Container::Gzip => gzip(bytes),
            Container::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Container::Bare => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    /// Bits from the least significant on, as deflate packs them.
    #[derive(Default)]
    struct Bits {
        bytes: Vec<u8>,
        used: usize,
    }

    impl Bits {
        fn push(&mut self, bits: &str) {
            for bit in bits.bytes().filter(u8::is_ascii_digit) {
                if self.used.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                *self.bytes.last_mut().unwrap() |= (bit - b'0') << (self.used % 8);
                self.used += 1;
            }
        }
    }

    /// Blocks of which each is written as these bits, and a last one that is empty.
    fn blocks_of(bits: &str, blocks: usize) -> Vec<u8> {
        let mut stream = Bits::default();
        (0..blocks).for_each(|_| stream.push(bits));
        stream.push(LAST_BLOCK);
        stream.bytes
    }

    /// Fixed codes: not the last block, codes 1, the end.
    const EMPTY_FIXED: &str = "0 10 0000000";
    /// The literal `0`, which is 01100000.
    const FIXED_OF_ONE_BYTE: &str = "0 10 01100000 0000000";
    const LAST_BLOCK: &str = "1 10 0000000";
    /// Own codes, of which only the end is used: HLIT 0, HDIST 0, HCLEN 14 up to the code of length 1; lengths 1 and 18 have one
    /// bit each; 138 and 118 zeros, then lengths 1 for the end and for one distance; then the end itself.
    const EMPTY_DYNAMIC: &str = "0 01 00000 00000 0111 \
        000 000 100 000 000 000 000 000 000 000 000 000 000 000 000 000 000 100 \
        1 1111111 1 1101011 0 0 0";

    fn stored(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap();
        [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), bytes].concat()
    }

    #[test]
    fn the_limit_of_output_holds_to_the_byte() {
        for body in [b"x".repeat(1000), (0..1000u16).flat_map(|n| (n * 7919).to_le_bytes()).take(1000).collect()] {
            for container in [Container::Gzip, Container::Zlib, Container::Bare] {
                let data = compressed(&body, container);
                assert_eq!(inflate(&data, container, 1000).as_ref(), Ok(&body));
                assert_eq!(inflate(&data, container, 999), Err(InflateError::TooLarge(999)));
            }
        }
    }

    #[rstest]
    #[case::empty_fixed(EMPTY_FIXED, 0)]
    #[case::empty_dynamic(EMPTY_DYNAMIC, 0)]
    #[case::one_byte_each(FIXED_OF_ONE_BYTE, 1)]
    fn blocks_stand_on_their_limit_and_one_past_it(#[case] block: &str, #[case] bytes: usize) {
        // The last, empty block counts too.
        let most =
            (0..).find(|blocks| blocks + 2 > FREE_BLOCKS + (blocks + 1) * bytes / OUTPUT_BYTES_PER_BLOCK).unwrap();
        let inflated = inflate(&blocks_of(block, most), Container::Bare, 1 << 20);
        assert_eq!(inflated, Ok(b"0".repeat(most * bytes)));
        for too_many in [most + 1, 100_000] {
            let refused = inflate(&blocks_of(block, too_many), Container::Bare, 1 << 20);
            let Err(InflateError::TooManyBlocks { blocks, .. }) = refused else { panic!("{refused:?}") };
            // Work ends at the limit, however much more there is.
            assert!(blocks <= most + 2, "{blocks} of {most}");
        }
    }

    #[test]
    fn empty_stored_blocks_and_empty_members_count_too() {
        let blocks = [stored(b"").repeat(800_000), vec![3, 0]].concat();
        let members = gzip(b"").repeat(230_000);
        for (data, container) in [(blocks, Container::Bare), (members, Container::Gzip)] {
            let expected = InflateError::TooManyBlocks { blocks: FREE_BLOCKS + 1, bytes: 0 };
            assert_eq!(inflate(&data, container, 4 << 20), Err(expected));
        }
    }

    /// Twice the input takes twice the steps, or three times where the output doubles once more, and never more than a few for
    /// each byte read and written. Where blocks run out, it takes no more than they allow, however long the input is.
    #[rstest]
    #[case::one_stream(&|n| compressed(&b"{\"n\":1}\n".repeat(n), Container::Gzip), Container::Gzip)]
    #[case::small_members(&|n| gzip(b"{\"n\":1}\n").repeat(n / 16), Container::Gzip)]
    #[case::empty_members(&|n| gzip(b"").repeat(n), Container::Gzip)]
    #[case::members_with_long_names(&|n| GzBuilder::new().filename("n".repeat(1_000)).write(Vec::new(), Compression::default()).finish().unwrap().repeat(n / 16), Container::Gzip)]
    #[case::empty_stored_blocks(&|n| [stored(b"").repeat(n), vec![3, 0]].concat(), Container::Bare)]
    #[case::stored_blocks(&|n| [stored(b"{\"n\":1}\n").repeat(n), vec![3, 0]].concat(), Container::Bare)]
    #[case::empty_fixed_blocks(&|n| blocks_of(EMPTY_FIXED, n), Container::Bare)]
    #[case::empty_dynamic_blocks(&|n| blocks_of(EMPTY_DYNAMIC, n), Container::Bare)]
    #[case::blocks_of_one_byte(&|n| blocks_of(FIXED_OF_ONE_BYTE, n), Container::Bare)]
    #[case::bomb(&|n| compressed(&vec![0; n * 1_000], Container::Zlib), Container::Zlib)]
    fn work_grows_with_input_and_output(#[case] data: &dyn Fn(usize) -> Vec<u8>, #[case] container: Container) {
        let steps = [8_000, 16_000].map(|n| {
            let (data, mut output) = (data(n), 0);
            let steps = steps::steps_of(|| {
                output = match inflate(&data, container, 4 << 20) {
                    Ok(inflated) => inflated.len(),
                    Err(InflateError::TooManyBlocks { bytes, .. } | InflateError::TooLarge(bytes)) => bytes,
                    Err(error) => panic!("{error}"),
                }
            });
            assert!(steps <= 8 * (data.len() + output) + FREE_BLOCKS, "{steps} for {} and {output}", data.len());
            steps
        });
        assert!(steps[1] <= 3 * steps[0], "{steps:?}");
    }

    #[rstest]
    #[case::small(20, MAX_EVENTS_PER_REQUEST)]
    #[case::usual(100, 2_400)]
    #[case::tiny(2, MAX_EVENTS_PER_REQUEST)]
    fn a_body_may_be_flushed_after_each_event(#[case] bytes: usize, #[case] events: usize) {
        let event = format!("{:bytes$}", "{}");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        for _ in 0..events {
            encoder.write_all(event.as_bytes()).unwrap();
            encoder.flush().unwrap();
        }
        let inflated = inflate(&encoder.finish().unwrap(), Container::Gzip, 4 << 20);
        assert_eq!(inflated.map(|body| body.len()), Ok(bytes * events));
    }

    #[test]
    fn large_bodies_stored_or_compressed_are_far_from_the_limit() {
        let noise: Vec<u8> = (0..4_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for level in [0, 1, 6, 9] {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&noise).unwrap();
            let data = encoder.finish().unwrap();
            let mut inflater = Inflater::new(&data, noise.len());
            inflater.gzip().unwrap();
            assert!(inflater.blocks * 10 < noise.len() / OUTPUT_BYTES_PER_BLOCK, "{} blocks", inflater.blocks);
            assert!(inflater.finish().unwrap() == noise);
        }
    }

    #[test]
    fn a_sender_may_flush_after_each_event() {
        let event = b"{\"type\":\"heartbeat\",\"sid\":\"8f0e2a34-6c1b-4f7e-9a55-2f1f0c3b7d11\",\"position_ms\":1234567,\"rate\":1,\"volume\":0.5,\"muted\":false}\n";
        let (mut encoder, mut data) = (Compress::new(Compression::default(), true), Vec::with_capacity(4 << 20));
        for _ in 0..10_000 {
            encoder.compress_vec(event, &mut data, FlushCompress::Sync).unwrap();
        }
        encoder.compress_vec(b"", &mut data, FlushCompress::Finish).unwrap();
        assert_eq!(inflate(&data, Container::Zlib, 4 << 20).unwrap(), event.repeat(10_000));
    }

    #[test]
    fn a_thousand_members_are_one_body() {
        let members: Vec<u8> = (0..1000).flat_map(|n| gzip(format!("{{\"n\":{n}}}\n").as_bytes())).collect();
        let expected: String = (0..1000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        assert_eq!(inflate(&members, Container::Gzip, 1 << 20).unwrap(), expected.as_bytes());
    }

    #[test]
    fn headers_with_everything_are_skipped_however_long() {
        let header =
            || GzBuilder::new().extra(vec![7; 65_535]).filename("n".repeat(1_000_000)).comment("c".repeat(1_000_000));
        let mut encoder = header().write(Vec::new(), Compression::default());
        encoder.write_all(b"{}").unwrap();
        let data = encoder.finish().unwrap();
        assert_eq!(inflate(&data, Container::Gzip, 10).unwrap(), b"{}");
        for length in [5, 10, 11, 1000, 70_000, 1_500_000, data.len() - 9, data.len() - 1] {
            assert_eq!(inflate(&data[..length], Container::Gzip, 10), Err(InflateError::CutOff), "{length}");
        }
    }

    #[test]
    fn the_checksum_of_a_header_is_checked() {
        let mut data = gzip(b"{}");
        data[3] = 2;
        let checksum = crc32fast::hash(&data[..10]).to_le_bytes();
        data.splice(10..10, [checksum[0], checksum[1]]);
        assert_eq!(inflate(&data, Container::Gzip, 10).unwrap(), b"{}");
        data[10] ^= 1;
        assert_eq!(inflate(&data, Container::Gzip, 10), Err(InflateError::Damaged));
    }

    #[test]
    fn what_follows_the_end_is_counted() {
        for container in [Container::Gzip, Container::Zlib, Container::Bare] {
            let data = [&compressed(b"{}", container)[..], b"\0\0\0"].concat();
            assert_eq!(inflate(&data, container, 10), Err(InflateError::TrailingBytes(3)));
        }
        let twice = compressed(b"{}", Container::Zlib).repeat(2);
        assert!(matches!(inflate(&twice, Container::Zlib, 10), Err(InflateError::TrailingBytes(_))));
    }

    #[test]
    fn a_member_refers_to_nothing_before_it() {
        // A match of three bytes from one byte before: length code 257 is 0000001, distance code 0 is 00000.
        let mut stream = Bits::default();
        stream.push("1 10 0000001 00000 0000000");
        assert_eq!(inflate(&stream.bytes, Container::Bare, 10), Err(InflateError::Damaged));
        let header = &gzip(b"")[..10];
        let trailer = [&crc32fast::hash(b"aaa").to_le_bytes()[..], &[3, 0, 0, 0]].concat();
        let members = [&gzip(b"a")[..], header, &stream.bytes, &trailer].concat();
        assert_eq!(inflate(&members, Container::Gzip, 10), Err(InflateError::Damaged));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed_or_changes_nothing(
            body in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            for container in [Container::Gzip, Container::Zlib] {
                let mut data = compressed(&body, container);
                let inflated = inflate(&data, container, 1000);
                prop_assert_eq!(inflated.as_ref(), Ok(&body));
                let at = at.index(data.len());
                data[at] ^= flip;
                // Some bits say nothing of the data: a header's time and level, and those between the last block and its checksum.
                if let Ok(other) = inflate(&data, container, 1000) {
                    prop_assert_eq!(&other, &body);
                }
            }
        }

        #[test]
        fn any_bytes_end_within_the_limits(data: Vec<u8>, max_bytes in 0usize..300) {
            for container in [Container::Gzip, Container::Zlib, Container::Bare] {
                if let Ok(bytes) = inflate(&data, container, max_bytes) {
                    prop_assert!(bytes.len() <= max_bytes);
                }
            }
        }
    }
}
