//! The data of a Kinesis record: lines as they are, or one zstd frame of them, which a reader tells by its first bytes.
//!
//! <https://www.rfc-editor.org/rfc/rfc8878>. A frame has no dictionary, and nothing follows it.

use zstd::zstd_safe::{self, CCtx, DCtx};

/// How a frame begins. A line begins with `{`.
const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Bytes of lines that a frame can hold: 1 MiB. It bounds what reading a record costs, whoever wrote it.
pub const MAX_LINES_BYTES: usize = 1024 * 1024;

/// At level 1 frames of events are a few percent larger than at level 3, and take half the time.
const LEVEL: i32 = 1;

/// Why a record that begins like a frame can not be read as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is cut off, or a checksum differs, or it needs a dictionary.
    #[error("the zstd frame is damaged or needs a dictionary")]
    Damaged,
    /// It says or holds more than [`MAX_LINES_BYTES`].
    #[error("the zstd frame holds more than {MAX_LINES_BYTES} bytes")]
    TooLarge,
    /// There is more than one frame, or something else after it.
    #[error("{0} bytes follow the zstd frame")]
    TrailingBytes(usize),
}

/// Whether a record's data claim to be a frame.
#[must_use]
pub fn is_frame(data: &[u8]) -> bool {
    data.starts_with(&MAGIC)
}

/// Bytes of lines that a frame says it holds, if it says so: those of [`FrameWriter`] do.
#[must_use]
pub fn content_size(frame: &[u8]) -> Option<usize> {
    let bytes = zstd_safe::get_frame_content_size(frame).ok()??;
    usize::try_from(bytes).ok()
}

/// Writes frames. It keeps its tables, some hundred KiB, from one frame to the next.
pub struct FrameWriter(CCtx<'static>);

impl Default for FrameWriter {
    fn default() -> Self {
        Self(CCtx::create())
    }
}

impl FrameWriter {
    /// The frame of some lines, at most [`MAX_LINES_BYTES`] of them; `None` if it would be no smaller.
    #[must_use]
    pub fn compress(&mut self, lines: &[u8]) -> Option<Vec<u8>> {
        debug_assert!(lines.len() <= MAX_LINES_BYTES);
        // Room for all but the last byte: what doesn't fit is not smaller.
        let mut frame = Vec::with_capacity(lines.len().checked_sub(1)?);
        self.0.compress(&mut frame, lines, LEVEL).ok()?;
        Some(frame)
    }
}

/// Reads frames. It keeps its tables, some hundred KiB, and room for the lines from one frame to the next.
pub struct FrameReader {
    context: DCtx<'static>,
    /// Of [`MAX_LINES_BYTES`], and no more: a frame need not say how much it holds.
    lines: Vec<u8>,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self { context: DCtx::create(), lines: Vec::with_capacity(MAX_LINES_BYTES) }
    }
}

impl FrameReader {
    /// The lines of a frame.
    ///
    /// # Errors
    ///
    /// When it is none, or not one of those that [`FrameWriter`] could have written.
    pub fn lines(&mut self, frame: &[u8]) -> Result<&[u8], FrameError> {
        let end = zstd_safe::find_frame_compressed_size(frame).map_err(|_| FrameError::Damaged)?;
        if end < frame.len() {
            return Err(FrameError::TrailingBytes(frame.len() - end));
        }
        let says = zstd_safe::get_frame_content_size(frame).map_err(|_| FrameError::Damaged)?;
        if says.is_some_and(|bytes| bytes > MAX_LINES_BYTES as u64) {
            return Err(FrameError::TooLarge);
        }
        self.lines.clear();
        match self.context.decompress(&mut self.lines, frame) {
            Ok(_) => Ok(&self.lines),
            Err(DESTINATION_TOO_SMALL) => Err(FrameError::TooLarge),
            Err(_) => Err(FrameError::Damaged),
        }
    }
}

/// `ZSTD_error_dstSize_tooSmall`, which is 70, as zstd's functions return it: negated.
/// <https://github.com/facebook/zstd/blob/dev/lib/zstd_errors.h>
const DESTINATION_TOO_SMALL: zstd_safe::ErrorCode = 70_usize.wrapping_neg();

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn compress(lines: &[u8]) -> Option<Vec<u8>> {
        FrameWriter::default().compress(lines)
    }

    fn read(frame: &[u8]) -> Result<Vec<u8>, FrameError> {
        FrameReader::default().lines(frame).map(<[u8]>::to_vec)
    }

    /// As another producer writes them: a stream, whose frame doesn't say how much it holds.
    fn streamed(lines: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(lines, 3).unwrap()
    }

    #[rstest]
    #[case(MAX_LINES_BYTES, true)]
    #[case(MAX_LINES_BYTES + 1, false)]
    fn a_frame_holds_so_much_and_no_more(#[case] bytes: usize, #[case] fits: bool) {
        let lines = vec![b' '; bytes];
        let said = zstd::bulk::compress(&lines, 1).unwrap();
        for frame in [said, streamed(&lines)] {
            assert_eq!(read(&frame).map(|read| read.len()), if fits { Ok(bytes) } else { Err(FrameError::TooLarge) });
        }
    }

    #[test]
    fn a_frame_that_says_little_and_holds_more_is_damaged() {
        let mut frame = zstd::bulk::compress(&[b' '; 100], 1).unwrap();
        assert_eq!((frame[4], frame[5]), (0x20, 100), "a single segment, and its size");
        frame[5] = 99;
        assert!(read(&frame).is_err());
    }

    #[test]
    fn nothing_may_follow_a_frame() {
        let frame = compress(&[b'{'; 1000]).unwrap();
        assert_eq!(read(&[&frame[..], b"\n"].concat()), Err(FrameError::TrailingBytes(1)));
        assert_eq!(read(&[&frame[..], &frame[..]].concat()), Err(FrameError::TrailingBytes(frame.len())));
    }

    #[test]
    fn a_frame_with_a_dictionary_is_damaged() {
        let dictionary = b"{\"type\":\"heartbeat\",\"position\":".repeat(20);
        let frame = zstd::bulk::Compressor::with_dictionary(1, &dictionary).unwrap().compress(&dictionary).unwrap();
        assert_eq!(read(&frame), Err(FrameError::Damaged));
    }

    #[test]
    fn what_would_not_shrink_stays_as_it_is() {
        assert_eq!(compress(b""), None);
        assert_eq!(compress(b"{}\n"), None);
    }

    proptest! {
        #[test]
        fn lines_are_read_back(lines in prop::collection::vec("\\{\"a\":\"[a-c]{0,30}\"\\}\n", 0..60)) {
            let lines = lines.concat().into_bytes();
            if let Some(frame) = compress(&lines) {
                prop_assert!(is_frame(&frame) && frame.len() < lines.len());
                prop_assert_eq!(content_size(&frame), Some(lines.len()));
                prop_assert_eq!(read(&frame), Ok(lines.clone()));
            }
            prop_assert_eq!(read(&streamed(&lines)), Ok(lines));
        }

        #[test]
        fn any_damage_costs_bounded_memory_and_no_panic(
            lines in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
        ) {
            let mut frame = streamed(&lines);
            let (at, cut) = (at.index(frame.len()), cut.index(frame.len() + 1));
            frame[at] = byte;
            if let Ok(lines) = read(&frame[..cut]) {
                prop_assert!(lines.len() <= MAX_LINES_BYTES);
            }
        }

        #[test]
        fn any_bytes_are_no_frame_or_one(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let framed = [&MAGIC[..], &bytes].concat();
            if let Ok(lines) = read(&framed) {
                prop_assert!(lines.len() <= MAX_LINES_BYTES);
            }
        }
    }
}
