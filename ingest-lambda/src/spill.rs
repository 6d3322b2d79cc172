//! What Kinesis does not take becomes an object in S3: a landed file like any other, of lines that never were on the stream.

use std::future::Future;
use std::time::Duration;

use bzip2_encoder::SortError;
use lambda_setup::deadline::{Deadline, backoff_ceiling};
use shared::frame::{FrameError, FrameReader};
use shared::line::{EventFormat, Kind, LineHead};
use shared::object::{
    Attempt, BlockSize, Compressed, LineWriter, ObjectKey, ObjectMetadata, ReceivedIn, SpillId, receipt,
};
use shared::rejection::ReasonCounts;
use shared::timestamp::UnixMillis;
use tokio::time::Instant;
use uuid::Uuid;

use crate::pack::Record;
use crate::put::LEAST_CALL_TIME;

/// A bucket that takes objects under names of their own.
pub trait SpillBucket {
    /// Creates the object in that time. One that is there already under its name is that of an earlier try: success.
    fn create(&self, object: &Spilled, time_limit: Duration) -> impl Future<Output = Result<(), CreateError>>;
}

/// An object that is not known to be there.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Another try may succeed. The object may be there, or may yet come to be.
    #[error("the write was not answered as done: {0}")]
    Uncertain(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No try can succeed: no such bucket, no permission, a malformed call.
    #[error("S3 refused the write: {0}")]
    Permanent(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why records are not known to be in S3.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Sort(#[from] SortError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("S3 did not answer in time")]
    TimeIsUp,
    #[error("compressing all lines would take longer than the function has")]
    TooLong,
}

/// An object, ready to be written. Its name, its hour and its bytes stay the same from the first try to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spilled {
    pub key: String,
    pub body: Vec<u8>,
    pub metadata: ObjectMetadata,
    /// How many records' lines it holds.
    pub records: usize,
}

/// What compressing a byte of usual lines takes, on the seventh of a processor that 256 MB of memory come with. Lines that
/// hardly shrink take several times as long.
const TIME_PER_BYTE: Duration = Duration::from_nanos(500);

/// What fewer bytes took says nothing of the rate: it is the compressor's set-up, or a moment in which the process did not run.
const LEAST_SAMPLE_BYTES: u64 = 64 * 1024;

/// Whether `next` bytes after those that are `done` can be compressed in that time: going by what these took, and half as long
/// again because a part of them still waits for its block to be full.
fn is_time_for(next: usize, done: u64, elapsed: Duration, time: Duration) -> bool {
    let sample = done.max(LEAST_SAMPLE_BYTES) as f64;
    let per_byte = (elapsed.as_secs_f64() * 1.5 / sample).max(TIME_PER_BYTE.as_secs_f64());
    (done + next as u64) as f64 * per_byte <= time.as_secs_f64()
}

/// Compresses the lines of records, or of as many of the first as there is time for, and says of how many. It holds
/// one record's lines at a time.
fn compress(records: &[&Record], time: Duration) -> Result<(Compressed, BlockSize, usize), SpillError> {
    let began = Instant::now();
    let block_size = BlockSize::fitting(records.iter().map(|record| record.lines_len()).sum());
    let (mut reader, mut lines) = (FrameReader::default(), LineWriter::new(block_size));
    let mut count = 0;
    for record in records {
        if !is_time_for(record.lines_len(), lines.bytes(), began.elapsed(), time) {
            break;
        }
        lines.write(&record.lines(&mut reader)?)?;
        count += 1;
    }
    if count == 0 { Err(SpillError::TooLong) } else { Ok((lines.finish()?, block_size, count)) }
}

/// What all objects of a request have in common.
#[derive(Debug)]
pub struct Source {
    pub format: EventFormat,
    /// The request. It began when its objects were made, as the hour of their names says.
    pub attempt: Attempt,
}

impl Source {
    /// The object of some records of one kind, or of as many of the first as can be compressed in that time.
    ///
    /// # Errors
    ///
    /// When there is no time for any. The others are none that the records are to blame for: see [`SpillError`].
    pub fn object(&self, kind: Kind, records: &[&Record], time: Duration) -> Result<Spilled, SpillError> {
        let (Compressed { body, uncompressed_bytes, uncompressed_sha256 }, block_size, count) =
            compress(records, time)?;
        let hour = self.attempt.began.hour();
        // Raw events say nothing of their receipt: nobody could check another time than that of their arrival here.
        let says_receipt = kind == Kind::Rejected || self.format == EventFormat::Envelope;
        let (mut received_in, mut reasons) = (ReceivedIn::default(), ReasonCounts::default());
        let (mut earliest, mut latest) = (UnixMillis(i64::MAX), UnixMillis(i64::MIN));
        for record in &records[..count] {
            let mut line_reasons = record.reasons.iter().copied();
            for &(received_at, lines) in &record.receipts {
                let said = says_receipt.then_some(received_at);
                let received_at = receipt(said, self.attempt.began);
                (earliest, latest) = (earliest.min(received_at), latest.max(received_at));
                for reason in (0..lines).map(|_| line_reasons.next()) {
                    received_in.count(LineHead { kind, received_at: said, reason }, hour);
                    reason.iter().for_each(|reason| reasons.add(*reason, 1));
                }
            }
        }
        let metadata = ObjectMetadata {
            event_format: self.format,
            last_sequence_number: None,
            record_count: 0,
            event_count: received_in.total(),
            uncompressed_bytes,
            uncompressed_sha256,
            received_in,
            rejected_reasons: reasons.iter().collect(),
            earliest_received_at: earliest,
            latest_received_at: latest,
            block_size,
            attempt: self.attempt.clone(),
        };
        let id = SpillId(Uuid::now_v7().as_u128());
        Ok(Spilled { key: ObjectKey::spilled(kind, hour, id).to_string(), body, metadata, records: count })
    }
}

/// The longest that one call may take. S3 answers in some 50 ms; a call that hangs must leave time for another.
const CALL_TIMEOUT: Duration = Duration::from_millis(600);
const BACKOFF_BASE: Duration = Duration::from_millis(25);
const BACKOFF_CAP: Duration = Duration::from_millis(400);

/// Writes an object, with retries until the deadline. `jitter` gives numbers from 0 to 1.
///
/// # Errors
///
/// When it is not known to be there.
pub async fn create(
    bucket: &impl SpillBucket,
    object: &Spilled,
    deadline: Deadline,
    mut jitter: impl FnMut() -> f64,
) -> Result<(), SpillError> {
    let mut retry = 0;
    loop {
        let time_limit = CALL_TIMEOUT.min(deadline.remaining());
        let error = match deadline.bound(time_limit, bucket.create(object, time_limit)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error @ CreateError::Permanent(_))) => return Err(error.into()),
            Ok(Err(error)) => SpillError::from(error),
            Err(_) => SpillError::TimeIsUp,
        };
        let wait = backoff_ceiling(retry, BACKOFF_BASE, BACKOFF_CAP).mul_f64(jitter());
        if deadline.remaining() < wait + LEAST_CALL_TIME {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        retry += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SECOND: Duration = Duration::from_secs(1);

    #[rstest]
    #[case::nothing_is_known_yet(0, Duration::ZERO, 1_999_999)]
    #[case::faster_than_usual(1_000_000, SECOND / 10, 999_999)]
    #[case::as_usual(600_000, SECOND / 5, 1_399_999)]
    #[case::twice_as_slow(200_000, SECOND / 5, 466_666)]
    #[case::too_slow(500_000, SECOND, 0)]
    #[case::a_pause_at_the_first_small_record(300, SECOND / 20, 873_513)]
    fn there_is_time_for_so_many_bytes_in_a_second(#[case] done: u64, #[case] elapsed: Duration, #[case] most: usize) {
        assert_eq!(is_time_for(most, done, elapsed, SECOND), most > 0);
        assert!(!is_time_for(most + 2, done, elapsed, SECOND));
    }
}
