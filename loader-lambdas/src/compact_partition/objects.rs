//! The lines of a part's objects, in their order. Objects are fetched and decompressed ahead of their turn, within a bound.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bzip2::read::MultiBzDecoder;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use lambda_setup::bucket::{BucketError, Stream as _, Streams};
use shared::limits::MAX_OBJECT_BYTES;
use tokio::sync::Semaphore;

use super::plan::Planned;

/// The most objects that are fetched at once: small ones take 20 ms each, whatever their size.
const AHEAD_OBJECTS: usize = 64;
/// The most that are decompressed at once: there are two processors, and each decompression walks through 4 MB of tables.
const DECOMPRESSED_AT_ONCE: usize = 2;
/// The SDK's time limits end with an answer's headers.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// The most bytes of lines that wait for their turn, besides one object.
const AHEAD_BYTES: u64 = 96 * 1024 * 1024;

/// What was found under an object's key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Lines(Vec<u8>),
    Missing,
    /// Not bzip2, damaged, or more than a landed object can hold.
    Unreadable(String),
}

type Fetch<'o> = std::pin::Pin<Box<dyn Future<Output = Result<(&'o Planned, Found), BucketError>> + 'o>>;

/// A part's objects.
pub(super) struct Objects<'o, B> {
    bucket: &'o B,
    waiting: VecDeque<&'o Planned>,
    under_way: FuturesOrdered<Fetch<'o>>,
    decompressing: Arc<Semaphore>,
    bytes: u64,
}

impl<'o, B: Streams> Objects<'o, B> {
    pub(super) fn new(bucket: &'o B, part: &'o [Planned]) -> Self {
        Self {
            bucket,
            waiting: part.iter().collect(),
            under_way: FuturesOrdered::new(),
            decompressing: Arc::new(Semaphore::new(DECOMPRESSED_AT_ONCE)),
            bytes: 0,
        }
    }

    /// The next object; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<(&'o Planned, Found)>, BucketError> {
        while let Some(object) = self.waiting.pop_front_if(|object| {
            self.under_way.is_empty()
                || self.under_way.len() < AHEAD_OBJECTS
                    && self.bytes.saturating_add(object.uncompressed_bytes) <= AHEAD_BYTES
        }) {
            self.bytes = self.bytes.saturating_add(object.uncompressed_bytes);
            let (bucket, decompressing) = (self.bucket, self.decompressing.clone());
            self.under_way
                .push_back(Box::pin(async move { Ok((object, find(bucket, &object.key, &decompressing).await?)) }));
        }
        let found = self.under_way.next().await.transpose()?;
        if let Some((object, _)) = &found {
            self.bytes = self.bytes.saturating_sub(object.uncompressed_bytes);
        }
        Ok(found)
    }
}

async fn find(bucket: &impl Streams, key: &str, decompressing: &Semaphore) -> Result<Found, BucketError> {
    let read = tokio::time::timeout(READ_TIMEOUT, read(bucket, key)).await;
    let read = read.unwrap_or_else(|_| Err(failed("reading", key, format!("no end within {READ_TIMEOUT:?}"))))?;
    let compressed = match read {
        None => return Ok(Found::Missing),
        Some(compressed) if compressed.len() as u64 > MAX_OBJECT_BYTES => {
            return Ok(Found::Unreadable(format!("more than {MAX_OBJECT_BYTES} bytes")));
        }
        Some(compressed) => compressed,
    };
    // Most of a compaction's time is spent in here, and there is more than one processor. Nobody closes the semaphore.
    let _place = decompressing.acquire().await.ok();
    let decompressed = tokio::task::spawn_blocking(move || decompress(&compressed)).await;
    decompressed.map_err(|panic| failed("decompressing", key, panic.to_string()))
}

/// An object, or what there is of it beyond the bound; `None` when there is none.
async fn read(bucket: &impl Streams, key: &str) -> Result<Option<Vec<u8>>, BucketError> {
    let Some((_, mut stream)) = bucket.open(key).await? else { return Ok(None) };
    let mut compressed = Vec::new();
    while compressed.len() as u64 <= MAX_OBJECT_BYTES {
        let Some(piece) = stream.next().await? else { break };
        compressed.extend_from_slice(&piece);
    }
    Ok(Some(compressed))
}

fn failed(operation: &'static str, key: &str, problem: String) -> BucketError {
    BucketError::Failed { operation, key: key.to_owned(), problem }
}

fn decompress(compressed: &[u8]) -> Found {
    let mut lines = Vec::new();
    match MultiBzDecoder::new(compressed).take(MAX_OBJECT_BYTES + 1).read_to_end(&mut lines) {
        Err(error) => Found::Unreadable(error.to_string()),
        Ok(_) if lines.len() as u64 > MAX_OBJECT_BYTES => {
            Found::Unreadable(format!("more than {MAX_OBJECT_BYTES} bytes of lines"))
        }
        Ok(_) => Found::Lines(lines),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn bzip2(text: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn whole_streams_are_read_and_damage_is_named() {
        let one = bzip2(b"{}\n");
        assert_eq!(decompress(&one), Found::Lines(b"{}\n".into()));
        assert_eq!(decompress(&[&*one, &one].concat()), Found::Lines(b"{}\n{}\n".into()));
        for damaged in [b"no bzip2".as_slice(), &one[..one.len() - 3], &[&*one, b"x"].concat()] {
            assert!(matches!(decompress(damaged), Found::Unreadable(_)), "{damaged:?}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_bound() {
        let zeros = vec![0; 1 << 20];
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        (0..=MAX_OBJECT_BYTES / zeros.len() as u64).for_each(|_| encoder.write_all(&zeros).unwrap());
        assert!(matches!(decompress(&encoder.finish().unwrap()), Found::Unreadable(_)));
    }
}
