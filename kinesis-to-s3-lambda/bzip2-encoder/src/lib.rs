//! An encoder for bzip2. What it makes is what any bzip2 decoder reads.
//!
//! Compression is most of what landing costs, so it is worth an encoder of our own: libbz2, and its port to Rust, sort the
//! rotations of a block by comparing them, which with lines of JSON, that are alike for long stretches, takes two thirds of
//! the time. This one sorts by a suffix array ([`block_sort`]), in linear time whatever the bytes are, and chooses among
//! prefix codes in vectors ([`tables`]). `make bench` shows both side by side; docs/PERFORMANCE.md has the figures.
//!
//! The format has no standard. It is what libbz2 reads; an unofficial description is Joe Tsai's "BZIP2: Format
//! Specification" (2016). The layers of a block, in order, are a module each: [`run_length`], [`block_sort`],
//! [`move_to_front`], [`tables`] and [`prefix_code`], written by [`bits`].

#![warn(missing_docs)]

mod bits;
mod block_sort;
mod move_to_front;
mod prefix_code;
mod run_length;
mod tables;

use bits::BitWriter;
use run_length::Block;

pub use block_sort::SortError;

/// How large blocks are: the digit in a file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(u8);

impl Level {
    /// A level from 1 to 9: blocks of so many 100,000 bytes. Another number is taken for the nearest of these.
    #[must_use]
    pub fn nearest(level: u8) -> Self {
        Self(level.clamp(1, 9))
    }

    fn block_bytes(self) -> usize {
        usize::from(self.0) * 100_000
    }
}

const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
const END_MAGIC: u64 = 0x1772_4538_5090;

/// Compresses what is written to it. It holds one block of input, seven times as many bytes besides while the block is sorted,
/// and all of its output.
#[derive(Debug)]
pub struct Encoder {
    block: Block,
    out: BitWriter,
    /// Of all blocks that are written.
    checksum: u32,
}

impl Encoder {
    /// An encoder that has written a header.
    #[must_use]
    pub fn new(level: Level) -> Self {
        let mut out = BitWriter::default();
        out.write_bytes(&[b'B', b'Z', b'h', b'0' + level.0]);
        Self { block: Block::new(level.block_bytes()), out, checksum: 0 }
    }

    /// Takes bytes.
    ///
    /// # Errors
    ///
    /// When there is no memory to sort a block in.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), SortError> {
        loop {
            let taken = self.block.take(bytes);
            bytes = &bytes[taken..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.end_block()?;
        }
    }

    /// The whole file.
    ///
    /// # Errors
    ///
    /// As [`Encoder::write`].
    pub fn finish(mut self) -> Result<Vec<u8>, SortError> {
        self.end_block()?;
        self.out.write_magic(END_MAGIC);
        self.out.write(32, self.checksum);
        Ok(self.out.finish())
    }

    fn end_block(&mut self) -> Result<(), SortError> {
        let (bytes, checksum) = self.block.finish();
        if bytes.is_empty() {
            return Ok(());
        }
        self.checksum = self.checksum.rotate_left(1) ^ checksum;
        let sorted = block_sort::sort(bytes)?;
        self.out.write_magic(BLOCK_MAGIC);
        self.out.write(32, checksum);
        self.out.write(1, 0);
        self.out.write(24, sorted.original_row);
        let symbols = move_to_front::encode(&sorted.last_column);
        symbols.write_alphabet(&mut self.out);
        tables::choose(&symbols).write(&symbols, &mut self.out);
        self.block.clear();
        Ok(())
    }
}
