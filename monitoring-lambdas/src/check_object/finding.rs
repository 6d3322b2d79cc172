//! What can be wrong with a landed object.

use serde::Serialize;
use shared::object::MetadataError;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    #[error("the object is gone")]
    Gone,
    #[error("landing writes no such key")]
    Key,
    #[error("{0}")]
    Metadata(MetadataError),
    #[error("the metadata says {said} bytes of lines; an object holds {at_most} at most")]
    SaysTooMuch { said: u64, at_most: u64 },
    #[error("the content is not bzip2")]
    NotBzip2,
    #[error("the compressed content is damaged after {bytes} bytes of lines")]
    Damaged { bytes: u64 },
    #[error("the compressed content ends early, after {bytes} bytes of lines")]
    Truncated { bytes: u64 },
    #[error("something follows the end of the compressed content")]
    TrailingBytes,
    #[error("there are more bytes of lines than the {said} that the metadata says")]
    TooManyBytes { said: u64 },
    #[error("line {number} {problem}")]
    Line { number: u64, problem: LineProblem },
    #[error("{count} more lines are not as they should be")]
    MoreLines { count: u64 },
    #[error("the last line has no line feed")]
    NoLineFeedAtEnd,
    #[error("the metadata says {said} {what}, and there are {found}")]
    Count { what: &'static str, said: u64, found: u64 },
    #[error("the metadata says {what} {said}, and it is {found}")]
    Value { what: &'static str, said: String, found: String },
    #[error("the first sequence number {first} in the key is after the last one, {last}")]
    SequenceNumbers { first: String, last: String },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    #[error("is not a JSON object: {0}")]
    NotAnObject(String),
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    #[error("is a rejected one, which has no place under events/")]
    Rejected,
    #[error("is an event, which has no place under rejected/")]
    Event,
}

impl Finding {
    /// A name to search for that does not depend on the wording.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Key => "key",
            Self::Metadata(_) => "metadata",
            Self::SaysTooMuch { .. } => "says_too_much",
            Self::NotBzip2 => "not_bzip2",
            Self::Damaged { .. } => "damaged",
            Self::Truncated { .. } => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::Line { .. } => "line",
            Self::MoreLines { .. } => "more_lines",
            Self::NoLineFeedAtEnd => "no_line_feed_at_end",
            Self::Count { .. } => "count",
            Self::Value { .. } => "value",
            Self::SequenceNumbers { .. } => "sequence_numbers",
        }
    }
}

/// What is wrong with an object, as stored under `broken/`.
#[derive(Debug, Serialize)]
pub(crate) struct Broken<'a> {
    v: u8,
    key: &'a str,
    /// Of the version that was checked; `null` when it is gone.
    etag: Option<&'a str>,
    findings: Vec<FindingText>,
}

#[derive(Debug, Serialize)]
struct FindingText {
    code: &'static str,
    text: String,
}

impl<'a> Broken<'a> {
    pub(crate) fn new(key: &'a str, etag: Option<&'a str>, findings: &[Finding]) -> Self {
        let text = |finding: &Finding| FindingText { code: finding.code(), text: finding.to_string() };
        Self { v: 1, key, etag, findings: findings.iter().map(text).collect() }
    }
}

/// All findings on one line.
pub(super) fn text(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ")
}
