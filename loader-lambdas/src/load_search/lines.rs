//! The lines of an object, decompressed as they are needed.
//!
//! Memory: one piece of the stream, bzip2's tables (under 4 MB), a line of at most some 6 MiB, and 64 KiB.

use std::ops::Range;

use bytes::{Buf, Bytes};
use bzip2::{Decompress, Status};
use lambda_setup::bucket::{BucketError, Stream};
use memchr::memchr;
use shared::limits::{MAX_OBJECT_BYTES, MAX_OBJECT_LINE_BYTES};

/// How many bytes are decompressed at once.
const OUTPUT_BYTES: usize = 64 * 1024;

/// Why the lines of an object end early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("the object is not bzip2, or damaged, after {0} bytes of lines")]
    Damaged(u64),
    #[error("the object has more than {MAX_OBJECT_BYTES} bytes of lines")]
    TooManyBytes,
    #[error("a line has more than {MAX_OBJECT_LINE_BYTES} bytes")]
    LineTooLong,
}

/// An object's lines, of all bzip2 streams in it.
pub(super) struct Lines<S> {
    stream: S,
    piece: Bytes,
    /// `None` between streams.
    decompress: Option<Decompress>,
    output: Vec<u8>,
    bytes: u64,
    /// What is decompressed and not taken: the current line begins at `start` and has no line feed before `scanned`.
    text: Vec<u8>,
    start: usize,
    scanned: usize,
}

impl<S: Stream> Lines<S> {
    pub(super) fn new(stream: S) -> Self {
        let output = Vec::with_capacity(OUTPUT_BYTES);
        let (piece, text) = (Bytes::new(), Vec::new());
        Self { stream, piece, decompress: None, output, bytes: 0, text, start: 0, scanned: 0 }
    }

    /// The next line, without its line feed; `None` after the last. A last line may do without.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        let line = self.next_range().await?;
        Ok(line.map(|line| &self.text[line]))
    }

    async fn next_range(&mut self) -> Result<Option<Range<usize>>, ReadError> {
        loop {
            let line_feed = memchr(b'\n', &self.text[self.scanned..]);
            let end = line_feed.map_or(self.text.len(), |at| self.scanned + at);
            if end - self.start > MAX_OBJECT_LINE_BYTES {
                return Err(ReadError::LineTooLong);
            }
            if line_feed.is_some() {
                return Ok(Some(self.take_until(end)));
            }
            self.scanned = end;
            if !self.fill().await? {
                let end = self.text.len();
                return Ok((end > self.start).then(|| self.take_until(end)));
            }
        }
    }

    fn take_until(&mut self, end: usize) -> Range<usize> {
        let line = self.start..end;
        self.start = (end + 1).min(self.text.len());
        self.scanned = self.start;
        line
    }

    /// Decompresses some more; `false` at the end.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        self.text.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        loop {
            // What filled the output may have more to come of the bytes that were read.
            let may_have_more = self.decompress.is_some() && self.output.len() == OUTPUT_BYTES;
            if self.piece.is_empty() && !may_have_more {
                match self.stream.next().await? {
                    Some(piece) => self.piece = piece,
                    None if self.decompress.is_some() => return Err(ReadError::Damaged(self.bytes)),
                    None => return Ok(false),
                }
                continue;
            }
            self.step()?;
            if !self.output.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Decompresses what fits into the output.
    fn step(&mut self) -> Result<(), ReadError> {
        let decompress = self.decompress.get_or_insert_with(|| Decompress::new(false));
        let before = decompress.total_in();
        self.output.clear();
        let status = decompress.decompress_vec(&self.piece, &mut self.output);
        let taken = usize::try_from(decompress.total_in() - before).unwrap_or(self.piece.len());
        let is_stuck = taken == 0 && self.output.is_empty() && !self.piece.is_empty();
        self.piece.advance(taken.min(self.piece.len()));
        self.bytes += self.output.len() as u64;
        match status {
            Ok(Status::StreamEnd) => self.decompress = None,
            Ok(Status::MemNeeded) | Err(_) => return Err(ReadError::Damaged(self.bytes)),
            Ok(_) if is_stuck => return Err(ReadError::Damaged(self.bytes)),
            Ok(_) => {}
        }
        if self.bytes > MAX_OBJECT_BYTES {
            return Err(ReadError::TooManyBytes);
        }
        self.text.extend_from_slice(&self.output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bzip2::Compression;
    use bzip2::write::BzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    /// Content in pieces of so many bytes.
    struct Pieces(Bytes, usize);

    impl Stream for Pieces {
        async fn next(&mut self) -> Result<Option<Bytes>, BucketError> {
            let piece = self.0.split_to(self.0.len().min(self.1));
            Ok((!piece.is_empty()).then_some(piece))
        }
    }

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn for_each_line(object: Vec<u8>, piece_bytes: usize, mut each: impl FnMut(&[u8])) -> Result<(), ReadError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut lines = Lines::new(Pieces(object.into(), piece_bytes));
            while let Some(line) = lines.next().await? {
                each(line);
            }
            Ok(())
        })
    }

    fn read(object: Vec<u8>, piece_bytes: usize) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut lines = Vec::new();
        for_each_line(object, piece_bytes, |line| lines.push(line.to_vec()))?;
        Ok(lines)
    }

    #[test]
    fn a_line_ends_at_the_bound_and_not_one_past_it() {
        let line = |bytes| compressed(&[vec![b'x'; bytes], b"\n{}\n".to_vec()].concat());
        let lengths: Vec<_> = read(line(MAX_OBJECT_LINE_BYTES), 4096).unwrap().iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_OBJECT_LINE_BYTES, 2]);
        assert!(matches!(read(line(MAX_OBJECT_LINE_BYTES + 1), 4096), Err(ReadError::LineTooLong)));
    }

    #[test]
    fn what_decompresses_to_too_much_is_not_read_to_its_end() {
        const LINE_BYTES: u64 = 1024 * 1024;
        let line = compressed(&[vec![b'x'; LINE_BYTES as usize - 1], b"\n".to_vec()].concat());
        let lines = |bytes: u64| {
            let mut count = 0;
            for_each_line(line.repeat((bytes / LINE_BYTES) as usize), 4096, |_| count += 1).map(|()| count)
        };
        assert_eq!(lines(MAX_OBJECT_BYTES).unwrap(), MAX_OBJECT_BYTES / LINE_BYTES);
        assert!(matches!(lines(MAX_OBJECT_BYTES + LINE_BYTES), Err(ReadError::TooManyBytes)));
    }

    #[test]
    fn an_object_that_was_cut_off_is_damaged() {
        let object = compressed(b"{}\n");
        assert!(matches!(read(b"{}\n".to_vec(), 10), Err(ReadError::Damaged(0))));
        for length in 1..object.len() {
            assert!(matches!(read(object[..length].to_vec(), 10), Err(ReadError::Damaged(_))), "{length}");
        }
        assert!(matches!(read([&object[..], b"x"].concat(), 10), Err(ReadError::Damaged(3))));
    }

    proptest! {
        #[test]
        fn lines_are_those_of_all_streams(
            streams in prop::collection::vec("[ab\n]{0,40}", 0..4), piece_bytes in 1usize..50, ends in any::<bool>(),
        ) {
            let text = streams.concat() + if ends { "\n" } else { "" };
            let mut object: Vec<u8> = streams.iter().flat_map(|stream| compressed(stream.as_bytes())).collect();
            if ends {
                object.extend(compressed(b"\n"));
            }
            let expected: Vec<_> = text.split_terminator('\n').map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(read(object, piece_bytes).unwrap(), expected);
        }
    }
}
