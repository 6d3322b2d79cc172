//! Reads an hour's manifest entry by entry, as seal-partition writes it: one object a line.

use bytes::BytesMut;

use crate::manifest::Entry;
use lambda_setup::bucket::{BucketError, Stream};

/// The most bytes of a line: a key of 1,024 bytes, each of which may be escaped, and 2 KB of metadata.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Why the next entry was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntriesError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("it does not begin like an hour's manifest")]
    Begin,
    #[error("a line has more than {MAX_LINE_BYTES} bytes")]
    LongLine,
    #[error("it ends within its objects")]
    Truncated,
    #[error("an entry can't be read: {0}")]
    Entry(#[from] serde_json::Error),
    #[error("{key} comes after {after}, which sorts after it")]
    Order { key: String, after: String },
}

/// The entries not yet read.
pub(super) struct Entries<S> {
    stream: S,
    buffer: BytesMut,
    /// `None` before the first line, then the last key.
    last_key: Option<String>,
    is_done: bool,
}

impl<S: Stream> Entries<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new(), last_key: None, is_done: false }
    }

    /// The next entry; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, EntriesError> {
        if self.is_done {
            return Ok(None);
        }
        if self.last_key.is_none() {
            let line = self.line().await?;
            if !line.starts_with(b"{\"v\":1,") || !line.ends_with(b"\"objects\":[") {
                return Err(EntriesError::Begin);
            }
            self.last_key = Some(String::new());
        }
        let line = self.line().await?;
        self.entry(&line)
    }

    fn entry(&mut self, line: &[u8]) -> Result<Option<Entry>, EntriesError> {
        if line.starts_with(b"]") {
            self.is_done = true;
            return Ok(None);
        }
        let entry: Entry = serde_json::from_slice(line.strip_suffix(b",").unwrap_or(line))?;
        let after = self.last_key.replace(entry.key.clone()).unwrap_or_default();
        if entry.key <= after {
            return Err(EntriesError::Order { key: entry.key, after });
        }
        Ok(Some(entry))
    }

    /// The next line without its end.
    async fn line(&mut self) -> Result<BytesMut, EntriesError> {
        loop {
            if let Some(end) = self.buffer.iter().take(MAX_LINE_BYTES + 1).position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                return Ok(line);
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(EntriesError::LongLine);
            }
            match self.stream.next().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Err(EntriesError::Truncated),
            }
        }
    }
}
