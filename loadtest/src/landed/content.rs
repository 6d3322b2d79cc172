//! Reads one landed file: which of a run's events are in it.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};

use bzip2::read::MultiBzDecoder;
use serde::Deserialize;
use shared::line::Kind;

use super::scan::Scanner;

/// A record has at most 10 MiB, and the base64 of a foreign one a third more.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that are decompressed at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a file holds of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// The number of each line's event; of a rejected line, each in its body. No bad body of ours is so large that it lands in parts.
    pub(super) numbers: Vec<u64>,
    /// Those that share an event line with another.
    pub(super) mixed: Vec<u64>,
    pub(super) uncompressed_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    #[error("it does not decompress: {0}")]
    Damaged(#[from] io::Error),
    #[error("line {0} is longer than {MAX_LINE_BYTES} bytes")]
    TooLong(u64),
    #[error("line {number} is not a rejected line: {problem}")]
    Rejected { number: u64, problem: String },
}

pub(super) fn read(kind: Kind, compressed: &[u8], scanner: &Scanner) -> Result<Holdings, ContentError> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, MultiBzDecoder::new(compressed));
    let (mut holdings, mut line) = (Holdings::default(), Vec::new());
    for number in 1.. {
        line.clear();
        let bytes = reader.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        if bytes == 0 {
            break;
        }
        if bytes > MAX_LINE_BYTES {
            return Err(ContentError::TooLong(number));
        }
        holdings.uncompressed_bytes += bytes as u64;
        match kind {
            Kind::Event => holdings.add_event(&line, scanner),
            Kind::Rejected => {
                let added = holdings.add_rejected(&line, scanner);
                added.map_err(|problem| ContentError::Rejected { number, problem })?;
            }
        }
    }
    Ok(holdings)
}

/// As much of a rejected line as matters here.
#[derive(Deserialize)]
struct RejectedLine<'l> {
    #[serde(borrow)]
    rejected: RejectedMember<'l>,
}

#[derive(Deserialize)]
struct RejectedMember<'l> {
    body_base64: &'l str,
}

impl Holdings {
    /// A line is one event, and has its number twice: in the envelope and in the event.
    fn add_event(&mut self, line: &[u8], scanner: &Scanner) {
        let mut numbers = scanner.numbers(line);
        let Some(first) = numbers.next() else { return };
        let others: BTreeSet<u64> = numbers.filter(|number| *number != first).collect();
        self.numbers.push(first);
        if others.is_empty() {
            return;
        }
        self.numbers.extend(&others);
        self.mixed.push(first);
        self.mixed.extend(others);
    }

    fn add_rejected(&mut self, line: &[u8], scanner: &Scanner) -> Result<(), String> {
        let RejectedLine { rejected } = serde_json::from_slice(line).map_err(|problem| problem.to_string())?;
        let body = base64_simd::STANDARD.decode_to_vec(rejected.body_base64);
        let body = body.map_err(|problem| format!("its body is not base64: {problem}"))?;
        self.numbers.extend(scanner.numbers(&body).collect::<BTreeSet<_>>());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bzip2::{Compression, write::BzEncoder};
    use rstest::rstest;
    use std::io::Write;

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn holdings(kind: Kind, text: &str) -> Result<Holdings, ContentError> {
        read(kind, &compressed(text.as_bytes()), &Scanner::new("lt-r-"))
    }

    fn event(envelope: &str, own: &str) -> String {
        format!("{{\"v\":1,\"id\":\"{envelope}\",\"event\":{{\"id\":\"{own}\"}}}}\n")
    }

    fn rejected(body: &[u8]) -> String {
        let body = base64_simd::STANDARD.encode_to_string(body);
        format!("{{\"v\":1,\"id\":\"x\",\"rejected\":{{\"reason\":\"too_deep\",\"body_base64\":\"{body}\"}}}}\n")
    }

    #[test]
    fn an_event_line_counts_once_although_it_has_its_number_twice() {
        let text =
            event("lt-r-0000000001", "lt-r-0000000001") + &event("else", "else") + &event("u", "lt-r-0000000002");
        let found = holdings(Kind::Event, &text).unwrap();
        assert_eq!((found.numbers, found.mixed), (vec![1, 2], vec![]));
        assert_eq!(found.uncompressed_bytes, text.len() as u64);
    }

    #[test]
    fn the_same_event_in_two_lines_counts_twice() {
        let text = event("lt-r-0000000001", "lt-r-0000000001").repeat(2);
        assert_eq!(holdings(Kind::Event, &text).unwrap().numbers, [1, 1]);
    }

    #[test]
    fn two_events_in_one_line_are_mixed() {
        let found = holdings(Kind::Event, &event("lt-r-0000000001", "lt-r-0000000002")).unwrap();
        assert_eq!((found.numbers, found.mixed), (vec![1, 2], vec![1, 2]));
    }

    #[test]
    fn a_rejected_body_may_hold_many_events_and_counts_each_once() {
        let text = rejected(b"[lt-r-0000000001,lt-r-0000000002,lt-r-0000000001\x00\xff");
        let found = holdings(Kind::Rejected, &text).unwrap();
        assert_eq!((found.numbers, found.mixed), (vec![1, 2], vec![]));
    }

    #[rstest]
    #[case::no_json("lt-r-0000000001\n")]
    #[case::an_event("{\"v\":1,\"id\":\"lt-r-0000000001\",\"event\":{}}\n")]
    #[case::no_base64("{\"id\":\"x\",\"rejected\":{\"body_base64\":\"?\"}}\n")]
    fn malformed_rejected_lines_are_errors(#[case] bad: &str) {
        let text = rejected(b"") + bad;
        assert!(matches!(holdings(Kind::Rejected, &text), Err(ContentError::Rejected { number: 2, .. })));
    }

    #[test]
    fn several_streams_in_a_file_are_all_read() {
        let one = |number| compressed(event("else", &format!("lt-r-000000000{number}")).as_bytes());
        let file = [one(1), one(2)].concat();
        assert_eq!(read(Kind::Event, &file, &Scanner::new("lt-r-")).unwrap().numbers, [1, 2]);
    }

    #[test]
    fn damaged_files_are_errors() {
        let whole = compressed(&b"{\"v\":1}\n".repeat(1_000));
        let scanner = Scanner::new("lt-r-");
        for file in [&whole[..whole.len() - 1], b"plain text, and no bzip2", b""] {
            assert!(matches!(read(Kind::Event, file, &scanner), Err(ContentError::Damaged(_))), "{file:?}");
        }
    }

    #[test]
    fn lines_are_bounded() {
        let line = |bytes: usize| compressed(&[&vec![b' '; bytes - 1][..], b"\n"].concat());
        let scanner = Scanner::new("lt-r-");
        assert!(read(Kind::Event, &line(MAX_LINE_BYTES), &scanner).is_ok());
        assert!(matches!(read(Kind::Event, &line(MAX_LINE_BYTES + 1), &scanner), Err(ContentError::TooLong(1))));
    }
}
