//! Decompresses an object piece by piece. Neither memory nor work depends on what the content decompresses to.

use bzip2::{Decompress, Error, Status};
use sha2::{Digest, Sha256};
use shared::limits::MAX_OBJECT_BYTES;
use shared::object::{ObjectKey, ObjectMetadata, ObjectName, ReceivedIn};
use shared::sequence_number::compare;

use super::finding::Finding;
use super::lines::Lines;

/// How many bytes are decompressed at once.
const OUTPUT_BYTES: usize = 64 * 1024;

/// `BZh` and a digit: bzip2's header.
const HEADER_BYTES: usize = 4;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Running,
    /// The compressed content is complete.
    Ended,
    /// No more of it is read.
    Failed(Finding),
}

/// The check of one object's content.
pub(super) struct Inspection<'a> {
    key: &'a ObjectKey,
    metadata: &'a ObjectMetadata,
    decompress: Decompress,
    output: Vec<u8>,
    header: Vec<u8>,
    state: State,
    lines: Lines<'a>,
    bytes: u64,
    sha256: Sha256,
}

impl<'a> Inspection<'a> {
    /// An object that says that it has more than [`MAX_OBJECT_BYTES`] of lines is not decompressed.
    pub(super) fn new(key: &'a ObjectKey, metadata: &'a ObjectMetadata) -> Self {
        let (said, at_most) = (metadata.uncompressed_bytes, MAX_OBJECT_BYTES);
        let too_much = Finding::SaysTooMuch { said, at_most };
        Self {
            key,
            metadata,
            decompress: Decompress::new(false),
            output: Vec::with_capacity(OUTPUT_BYTES),
            header: Vec::with_capacity(HEADER_BYTES),
            state: if said > at_most { State::Failed(too_much) } else { State::Running },
            lines: Lines::new(key, metadata.event_format),
            bytes: 0,
            sha256: Sha256::new(),
        }
    }

    /// Takes the next piece; `false` when no more is needed.
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> bool {
        let header = &piece[..piece.len().min(HEADER_BYTES - self.header.len())];
        self.header.extend_from_slice(header);
        if self.state == State::Ended && !piece.is_empty() {
            self.state = State::Failed(Finding::TrailingBytes);
        }
        while self.state == State::Running {
            let taken = self.step(piece);
            piece = &piece[taken..];
            if piece.is_empty() && self.output.len() < self.output.capacity() {
                break;
            }
        }
        !matches!(self.state, State::Failed(_))
    }

    /// Decompresses what fits into the output; how much of the piece was used.
    fn step(&mut self, piece: &[u8]) -> usize {
        let before = self.decompress.total_in();
        self.output.clear();
        let status = self.decompress.decompress_vec(piece, &mut self.output);
        // No more than the piece's length.
        let taken = usize::try_from(self.decompress.total_in() - before).unwrap_or(piece.len());
        self.take_output();
        match status {
            _ if self.state != State::Running => {}
            Ok(Status::StreamEnd) if taken < piece.len() => self.state = State::Failed(Finding::TrailingBytes),
            Ok(Status::StreamEnd) => self.state = State::Ended,
            Ok(Status::MemNeeded) => self.state = State::Failed(Finding::Damaged { bytes: self.bytes }),
            Ok(_) => {}
            Err(Error::DataMagic) if self.bytes == 0 => self.state = State::Failed(Finding::NotBzip2),
            Err(_) => self.state = State::Failed(Finding::Damaged { bytes: self.bytes }),
        }
        taken
    }

    fn take_output(&mut self) {
        let said = self.metadata.uncompressed_bytes;
        let left = usize::try_from(said - self.bytes).unwrap_or(usize::MAX);
        let output = &self.output[..self.output.len().min(left)];
        self.lines.take(output);
        self.sha256.update(output);
        self.bytes += output.len() as u64;
        if self.output.len() > left {
            self.state = State::Failed(Finding::TooManyBytes { said });
        }
    }

    /// What is wrong, after the last piece. Content that ended early is not compared.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Failed(finding) => vec![finding],
            State::Running => vec![Finding::Truncated { bytes: self.bytes }],
            State::Ended => {
                let mut findings = self.lines.finish();
                findings.extend(self.compare());
                findings
            }
        }
    }

    /// Compares the metadata with what was found.
    fn compare(&self) -> Vec<Finding> {
        let (metadata, lines) = (self.metadata, &self.lines);
        let [earliest, latest] = lines.times.check(metadata.earliest_received_at, metadata.latest_received_at);
        let sha256 = hex::encode(self.sha256.clone().finalize());
        let value = |what, said: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            let (said, found) = (format!("{said:?}"), format!("{found:?}"));
            (said != found).then_some(Finding::Value { what, said, found })
        };
        let count = |what, said: u64, found: u64| (said != found).then_some(Finding::Count { what, said, found });
        let time = |what, said: String, found: Option<String>| Some(Finding::Value { what, said, found: found? });
        [
            count("lines", metadata.event_count, lines.count),
            count("bytes of lines", metadata.uncompressed_bytes, self.bytes),
            (metadata.uncompressed_sha256 != sha256).then(|| Finding::Value {
                what: "the SHA-256",
                said: metadata.uncompressed_sha256.clone(),
                found: sha256,
            }),
            value("bzip2's header", &header(metadata), &String::from_utf8_lossy(&self.header)),
            value("lines by the hour of their receipt:", &metadata.received_in, &self.received_in()),
            value("rejected lines by reason:", &metadata.rejected_reasons, &lines.reasons),
            time("the earliest receipt", metadata.earliest_received_at.rfc3339(), earliest),
            time("the latest receipt", metadata.latest_received_at.rfc3339(), latest),
            self.sequence_numbers(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Lines that were redriven are not compared with what ingest counted: all are elsewhere.
    fn received_in(&self) -> ReceivedIn {
        match self.key.name {
            ObjectName::Landed(_) | ObjectName::Spilled(_) => self.lines.received_in,
            ObjectName::Redriven(_) => ReceivedIn { elsewhere: self.lines.count, ..ReceivedIn::default() },
        }
    }

    fn sequence_numbers(&self) -> Option<Finding> {
        let first = self.key.name.first_record()?.sequence_number.as_str();
        let last = self.metadata.last_sequence_number.as_deref()?;
        compare(first, last)
            .is_gt()
            .then(|| Finding::SequenceNumbers { first: first.to_owned(), last: last.to_owned() })
    }
}

/// The header that the metadata's block size implies. No checksum protects it.
fn header(metadata: &ObjectMetadata) -> String {
    format!("BZh{}", metadata.block_size.units())
}
