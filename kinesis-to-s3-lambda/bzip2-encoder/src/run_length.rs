//! The first layer: a run of four to 255 equal bytes becomes four and the number of those that follow. It was meant to
//! protect a sort that we don't have, and is part of the format.

use crc_fast::{CrcAlgorithm, Digest};

/// Equal bytes that are followed by a number.
const COUNTED_RUN: u8 = 4;
const LONGEST_RUN: u8 = 255;
/// libbz2 leaves as many bytes of a block unused, and some decoders were written against it.
const UNUSED_BYTES: usize = 19;

/// A block that fills. It is well-formed after each byte.
#[derive(Debug)]
pub(crate) struct Block {
    max_bytes: usize,
    bytes: Vec<u8>,
    /// Of the bytes as they came.
    checksum: Digest,
    last: u8,
    /// How many of the last bytes are the same; 0 when a new run is to begin.
    run: u8,
}

impl Block {
    pub(crate) fn new(block_bytes: usize) -> Self {
        let checksum = Digest::new(CrcAlgorithm::Crc32Bzip2);
        Self { max_bytes: block_bytes - UNUSED_BYTES, bytes: Vec::new(), checksum, last: 0, run: 0 }
    }

    /// Takes as many bytes as there is room for; how many these are. An empty block has room for some.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        self.bytes.reserve(bytes.len().min(self.max_bytes - self.bytes.len()));
        let mut taken = self.take_different(bytes);
        while let Some(byte) = bytes.get(taken)
            && self.take_one(*byte)
        {
            taken += 1;
            taken += self.take_different(&bytes[taken..]);
        }
        self.checksum.update(&bytes[..taken]);
        taken
    }

    /// Takes the bytes before the first that is like the one before it, which are most, all at once.
    fn take_different(&mut self, bytes: &[u8]) -> usize {
        // As `take_one`, which leaves room for a run's number.
        let room = self.max_bytes.saturating_sub(self.bytes.len() + 1);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() || self.run > 0 && bytes[0] == self.last {
            return 0;
        }
        let count = bytes.windows(2).position(|pair| pair[0] == pair[1]).map_or(bytes.len(), |place| place + 1);
        self.bytes.extend_from_slice(&bytes[..count]);
        (self.last, self.run) = (bytes[count - 1], 1);
        count
    }

    #[inline]
    fn take_one(&mut self, byte: u8) -> bool {
        if byte == self.last && self.run >= COUNTED_RUN {
            return self.count_one(byte);
        }
        // The fourth of a run brings its number.
        if self.bytes.len() + 2 > self.max_bytes {
            return false;
        }
        self.run = if byte == self.last { self.run + 1 } else { 1 };
        self.last = byte;
        self.bytes.push(byte);
        if self.run == COUNTED_RUN {
            self.bytes.push(0);
        }
        true
    }

    fn count_one(&mut self, byte: u8) -> bool {
        if self.run == LONGEST_RUN {
            self.run = 0;
            return self.take_one(byte);
        }
        self.run += 1;
        if let Some(number) = self.bytes.last_mut() {
            *number = self.run - COUNTED_RUN;
        }
        true
    }

    /// The block's bytes, and the checksum of those that it was made of.
    pub(crate) fn finish(&self) -> (&[u8], u32) {
        (&self.bytes, self.checksum.finalize() as u32)
    }

    /// Begins the next block: no run goes on from one into another.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.checksum.reset();
        self.run = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn block(bytes: &[u8]) -> Vec<u8> {
        let mut block = Block::new(10_000);
        assert_eq!(block.take(bytes), bytes.len());
        block.finish().0.to_vec()
    }

    #[rstest]
    #[case(b"", b"")]
    #[case(b"aaab", b"aaab")]
    #[case(b"aaaab", b"aaaa\0b")]
    #[case(b"\0\0\0\0\0", b"\0\0\0\0\x01")]
    #[case(&[7; 255], &[7, 7, 7, 7, 251])]
    #[case(&[7; 256], &[7, 7, 7, 7, 251, 7])]
    #[case(&[7; 260], &[7, 7, 7, 7, 251, 7, 7, 7, 7, 1])]
    fn runs_are_counted(#[case] bytes: &[u8], #[case] expected: &[u8]) {
        assert_eq!(block(bytes), expected);
    }

    #[test]
    fn a_full_block_takes_what_only_makes_a_run_longer() {
        let mut block = Block::new(UNUSED_BYTES + 7);
        assert_eq!(block.take(b"aaaabcd"), 5);
        assert_eq!(block.take(b"c"), 0);
        let mut block = Block::new(UNUSED_BYTES + 5);
        assert_eq!(block.take(&[7; 300]), 255);
        let (bytes, checksum) = block.finish();
        assert_eq!(bytes, [7, 7, 7, 7, 251]);
        assert_eq!(checksum, crc_fast::checksum(CrcAlgorithm::Crc32Bzip2, &[7; 255]) as u32);
    }

    proptest! {
        #[test]
        fn runs_are_those_of_the_definition(bytes in prop::collection::vec(0u8..2, 0..900)) {
            let mut expected = Vec::new();
            for run in bytes.chunk_by(|one, other| one == other).flat_map(|run| run.chunks(255)) {
                expected.extend_from_slice(&run[..run.len().min(4)]);
                expected.extend(run.len().checked_sub(4).map(|more| more as u8));
            }
            prop_assert_eq!(block(&bytes), expected);
        }

        #[test]
        fn pieces_make_the_same_block(bytes in prop::collection::vec(0u8..3, 0..600), cut: prop::sample::Index) {
            let cut = cut.index(bytes.len() + 1);
            let mut pieces = Block::new(10_000);
            pieces.take(&bytes[..cut]);
            pieces.take(&bytes[cut..]);
            prop_assert_eq!(pieces.finish().0, &block(&bytes)[..]);
        }
    }
}
