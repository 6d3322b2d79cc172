//! Consecutive lines of one kind, and how the lines of a record become few such chunks whatever pattern they make: a chunk
//! costs more memory than a hostile line.

use std::ops::Range;

use bytes::Bytes;
use shared::line::Kind;
use shared::timestamp::UnixMillis;

/// Consecutive lines of one kind, as they will stand in a file. The last may lack its line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub kind: Kind,
    pub lines: u64,
    pub earliest_received_at: UnixMillis,
    pub latest_received_at: UnixMillis,
    pub bytes: Bytes,
}

impl Chunk {
    /// A single line.
    #[must_use]
    pub fn of_line(kind: Kind, received_at: UnixMillis, bytes: Bytes) -> Self {
        Self { kind, lines: 1, earliest_received_at: received_at, latest_received_at: received_at, bytes }
    }

    fn count_in(&mut self, other: &Self) {
        self.lines += other.lines;
        self.earliest_received_at = self.earliest_received_at.min(other.earliest_received_at);
        self.latest_received_at = self.latest_received_at.max(other.latest_received_at);
    }
}

/// Makes chunks of the lines of one payload. Lines that follow one another become a slice of it. Where that ends without
/// another kind, by a blank line or one that must be changed, all further lines are copied together.
pub struct Lines<'a> {
    payload: &'a Bytes,
    chunks: Vec<Chunk>,
    /// The text of the last chunk while it grows.
    open: Text,
}

enum Text {
    None,
    Slice(Range<usize>),
    Copy(Vec<u8>),
}

impl<'a> Lines<'a> {
    #[must_use]
    pub fn new(payload: &'a Bytes) -> Self {
        Self { payload, chunks: Vec::new(), open: Text::None }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds a line that stands in the payload, at `range`, as it is to stand in the file.
    pub fn slice(&mut self, kind: Kind, received_at: UnixMillis, range: Range<usize>) {
        match (&mut self.open, self.chunks.last_mut()) {
            (Text::Slice(grown), Some(last)) if last.kind == kind && grown.end == range.start => {
                grown.end = range.end;
                last.count_in(&Chunk::of_line(kind, received_at, Bytes::new()));
            }
            (Text::Slice(_) | Text::Copy(_), Some(last)) if last.kind == kind => {
                self.copy(kind, received_at, &self.payload[range]);
            }
            _ => {
                self.whole(Chunk::of_line(kind, received_at, Bytes::new()));
                self.open = Text::Slice(range);
            }
        }
    }

    /// Adds a line that stands otherwise in the payload.
    pub fn copy(&mut self, kind: Kind, received_at: UnixMillis, line: &[u8]) {
        let chunk = Chunk::of_line(kind, received_at, Bytes::new());
        match (&mut self.open, self.chunks.last_mut()) {
            (Text::Copy(copied), Some(last)) if last.kind == kind => {
                append_lines(copied, line);
                last.count_in(&chunk);
            }
            _ => {
                self.whole(chunk);
                let mut copied = Vec::new();
                append_lines(&mut copied, line);
                self.open = Text::Copy(copied);
            }
        }
    }

    /// Adds a chunk that is not joined with others.
    pub fn whole(&mut self, chunk: Chunk) {
        self.close();
        self.chunks.push(chunk);
    }

    /// The chunks, in the order of their lines.
    #[must_use]
    pub fn finish(mut self) -> Vec<Chunk> {
        self.close();
        self.chunks
    }

    fn close(&mut self) {
        if let Some(last) = self.chunks.last_mut() {
            match std::mem::replace(&mut self.open, Text::None) {
                Text::None => {}
                Text::Slice(range) => last.bytes = self.payload.slice(range),
                Text::Copy(copied) => last.bytes = copied.into(),
            }
        }
    }
}

/// Chunks of fewer bytes are copied together by [`join_small`].
const SMALL_BYTES: usize = 1024;

/// Copies small chunks of one kind that follow one another into one.
#[must_use]
pub fn join_small(chunks: Vec<Chunk>) -> Vec<Chunk> {
    let mut joined: Vec<Chunk> = Vec::new();
    // The text of the last chunk while it grows.
    let mut copied: Vec<u8> = Vec::new();
    for chunk in chunks {
        let small = chunk.bytes.len() < SMALL_BYTES;
        match joined.last_mut() {
            Some(last) if small && !copied.is_empty() && last.kind == chunk.kind => {
                append_lines(&mut copied, &chunk.bytes);
                last.count_in(&chunk);
            }
            last => {
                close(last, &mut copied);
                if small {
                    append_lines(&mut copied, &chunk.bytes);
                }
                joined.push(chunk);
            }
        }
    }
    close(joined.last_mut(), &mut copied);
    joined
}

fn close(last: Option<&mut Chunk>, copied: &mut Vec<u8>) {
    if let Some(last) = last
        && !copied.is_empty()
    {
        last.bytes = std::mem::take(copied).into();
    }
}

fn append_lines(copied: &mut Vec<u8>, lines: &[u8]) {
    copied.extend_from_slice(lines);
    if !lines.ends_with(b"\n") {
        copied.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(kind: Kind, millis: i64, text: &str) -> Chunk {
        Chunk::of_line(kind, UnixMillis(millis), Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn small_chunks_of_one_kind_are_joined_and_large_ones_stay() {
        let large = "x".repeat(SMALL_BYTES);
        let joined = join_small(vec![
            chunk(Kind::Event, 7, "a"),
            chunk(Kind::Event, 5, "b\n"),
            chunk(Kind::Rejected, 6, "c"),
            chunk(Kind::Event, 6, &large),
            chunk(Kind::Event, 6, "d"),
        ]);
        let found: Vec<_> = joined.iter().map(|chunk| (chunk.kind, chunk.lines, &chunk.bytes[..])).collect();
        let expected: [(Kind, u64, &[u8]); 4] = [
            (Kind::Event, 2, b"a\nb\n"),
            (Kind::Rejected, 1, b"c\n"),
            (Kind::Event, 1, large.as_bytes()),
            (Kind::Event, 1, b"d\n"),
        ];
        assert_eq!(found, expected);
        assert_eq!((joined[0].earliest_received_at, joined[0].latest_received_at), (UnixMillis(5), UnixMillis(7)));
    }

    proptest! {
        /// Slices and copies in any order make the same text, and a chunk ends only with its kind or, once, when a slice
        /// can grow no more.
        #[test]
        fn lines_become_few_chunks_and_none_is_lost(
            lines in prop::collection::vec((any::<bool>(), any::<bool>(), "[a-z]{1,5}", any::<bool>()), 0..40),
        ) {
            let payload: Bytes = lines.iter()
                .map(|(.., text, blank_after)| format!("{text}\n{}", if *blank_after { "\n" } else { "" }))
                .collect::<String>().into();
            let (mut joining, mut start, mut expected) = (Lines::new(&payload), 0, String::new());
            for (event, slice, text, blank_after) in &lines {
                let kind = if *event { Kind::Event } else { Kind::Rejected };
                let end = start + text.len() + 1;
                if *slice {
                    joining.slice(kind, UnixMillis(0), start..end);
                } else {
                    joining.copy(kind, UnixMillis(0), text.as_bytes());
                }
                start = end + usize::from(*blank_after);
                expected += &format!("{text}\n");
            }
            let chunks = joining.finish();
            let text: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
            prop_assert_eq!(String::from_utf8(text)?, expected);
            prop_assert_eq!(chunks.iter().map(|chunk| chunk.lines).sum::<u64>(), lines.len() as u64);
            let changes = lines.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
            prop_assert!(chunks.len() <= 2 * (changes + 1));
        }
    }
}
