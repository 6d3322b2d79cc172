//! Lines on their way into an object.

use bzip2_encoder::{Encoder, Level, SortError};
use sha2::{Digest, Sha256};

use super::BlockSize;

/// Compresses lines as they come, and notes what was written.
pub struct LineWriter {
    encoder: Encoder,
    bytes: u64,
    sha256: Sha256,
}

/// Lines that were compressed.
pub struct Compressed {
    /// One bzip2 stream.
    pub body: Vec<u8>,
    /// Bytes of the lines.
    pub uncompressed_bytes: u64,
    /// As lower-case hexadecimal.
    pub uncompressed_sha256: String,
}

impl LineWriter {
    /// A writer without lines.
    #[must_use]
    pub fn new(block_size: BlockSize) -> Self {
        Self { encoder: Encoder::new(Level::nearest(block_size.units())), bytes: 0, sha256: Sha256::new() }
    }

    /// Appends lines, and a line feed if the last has none.
    ///
    /// # Errors
    ///
    /// Only if the compressor has no memory.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), SortError> {
        self.append(lines)?;
        if lines.ends_with(b"\n") { Ok(()) } else { self.append(b"\n") }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SortError> {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
        self.encoder.write(bytes)
    }

    /// Bytes that were written so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The end of the object.
    ///
    /// # Errors
    ///
    /// Only if the compressor has no memory.
    pub fn finish(self) -> Result<Compressed, SortError> {
        Ok(Compressed {
            body: self.encoder.finish()?,
            uncompressed_bytes: self.bytes,
            uncompressed_sha256: hex::encode(self.sha256.finalize()),
        })
    }
}
