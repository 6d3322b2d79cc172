//! The documents of one `_bulk` request, with what is needed to send a part of them again or to keep their lines.

use std::ops::Range;

use bytes::Bytes;

/// The most bytes of a request's body; a single larger document goes alone. AWS's smallest instances take 10 MiB.
/// <https://docs.aws.amazon.com/opensearch-service/latest/developerguide/limits.html>
pub(super) const MAX_REQUEST_BYTES: usize = 5 * 1024 * 1024;
/// The most documents of a request: it bounds the answer, which says some hundred bytes of each.
pub(super) const MAX_REQUEST_DOCUMENTS: usize = 5_000;

/// Documents in the order of their lines.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bulk: Vec<u8>,
    lines: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    bulk: Range<usize>,
    line: Range<usize>,
}

impl Batch {
    /// Whether a document with so many bytes, its action included, goes into the same request.
    pub(super) fn has_room_for(&self, bulk_bytes: usize) -> bool {
        let fits = self.bulk.len() + bulk_bytes <= MAX_REQUEST_BYTES && self.entries.len() < MAX_REQUEST_DOCUMENTS;
        self.entries.is_empty() || fits
    }

    /// Adds a line and what it is in a request: its action and its document.
    pub(super) fn push(&mut self, bulk: &[u8], line: &[u8]) {
        let append = |to: &mut Vec<u8>, bytes: &[u8]| {
            let start = to.len();
            to.extend_from_slice(bytes);
            start..to.len()
        };
        let entry = Entry { bulk: append(&mut self.bulk, bulk), line: append(&mut self.lines, line) };
        self.entries.push(entry);
    }

    pub(super) fn clear(&mut self) {
        self.bulk.clear();
        self.lines.clear();
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn line(&self, number: usize) -> &[u8] {
        &self.lines[self.entries[number].line.clone()]
    }

    /// The body of a request with these documents.
    pub(super) fn body(&self, numbers: &[usize]) -> Bytes {
        let pieces = || numbers.iter().map(|number| &self.bulk[self.entries[*number].bulk.clone()]);
        let mut body = Vec::with_capacity(pieces().map(<[u8]>::len).sum());
        pieces().for_each(|piece| body.extend_from_slice(piece));
        body.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_full_at_its_bounds() {
        let mut batch = Batch::default();
        assert!(batch.has_room_for(MAX_REQUEST_BYTES + 1));
        batch.push(b"1234", b"1");
        assert!(batch.has_room_for(MAX_REQUEST_BYTES - 4));
        assert!(!batch.has_room_for(MAX_REQUEST_BYTES - 3));
        (2..MAX_REQUEST_DOCUMENTS).for_each(|_| batch.push(b"2", b"2"));
        assert!(batch.has_room_for(1));
        batch.push(b"3", b"3");
        assert!(!batch.has_room_for(1));
        batch.clear();
        assert!(batch.has_room_for(MAX_REQUEST_BYTES + 1));
    }

    #[test]
    fn a_body_has_the_documents_that_it_is_asked_for() {
        let mut batch = Batch::default();
        for (bulk, line) in [("a\nA\n", "1"), ("b\nB\n", "2"), ("c\nC\n", "3")] {
            batch.push(bulk.as_bytes(), line.as_bytes());
        }
        assert_eq!(batch.body(&[0, 2]), "a\nA\nc\nC\n");
        assert_eq!((batch.line(1), batch.len()), (&b"2"[..], 3));
    }
}
