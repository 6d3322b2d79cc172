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
    #[error("compressing {0} more records would take longer than the function has")]
    TooLong(usize),
}

/// An object, ready to be written. Its name, its hour and its bytes stay the same from the first try to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spilled {
    pub key: String,
    pub body: Vec<u8>,
    pub metadata: ObjectMetadata,
}

/// What compressing a byte of lines takes at most, on the seventh of a processor that 256 MB of memory come with.
const TIME_PER_BYTE: Duration = Duration::from_nanos(500);

/// Those of some lengths, by index, that can be compressed in that time, the first ones first.
#[must_use]
pub(crate) fn fitting(lengths: impl IntoIterator<Item = (usize, usize)>, mut time: Duration) -> Vec<usize> {
    let fits = |(index, bytes)| {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        time = time.checked_sub(TIME_PER_BYTE.saturating_mul(bytes))?;
        Some(index)
    };
    lengths.into_iter().filter_map(fits).collect()
}

/// What all objects of a request have in common.
#[derive(Debug, Clone)]
pub struct Source {
    pub format: EventFormat,
    /// When the request was received, which its lines say too.
    pub received_at: UnixMillis,
    /// The request. It began when its objects were made, as the hour of their names says.
    pub attempt: Attempt,
}

impl Source {
    /// The object of some records of one kind. Of their lines it holds one record's at a time.
    ///
    /// # Errors
    ///
    /// None that the records are to blame for: see [`SpillError`].
    pub fn object(&self, kind: Kind, records: &[&Record], id: SpillId) -> Result<Spilled, SpillError> {
        let block_size = BlockSize::fitting(records.iter().map(|record| record.lines_len()).sum());
        let (mut reader, mut lines) = (FrameReader::default(), LineWriter::new(block_size));
        for record in records {
            lines.write(&record.lines(&mut reader)?)?;
        }
        let Compressed { body, uncompressed_bytes, uncompressed_sha256 } = lines.finish()?;
        let hour = self.attempt.began.hour();
        // Raw events say nothing of their receipt: nobody could check another time than that of their arrival here.
        let said = (kind == Kind::Rejected || self.format == EventFormat::Envelope).then_some(self.received_at);
        let (mut received_in, mut reasons) = (ReceivedIn::default(), ReasonCounts::default());
        for record in records {
            for line in 0..record.items.len() {
                let reason = record.reasons.get(line).copied();
                received_in.count(LineHead { kind, received_at: said, reason }, hour);
                reason.iter().for_each(|reason| reasons.add(*reason, 1));
            }
        }
        let received_at = receipt(said, self.attempt.began);
        let metadata = ObjectMetadata {
            event_format: self.format,
            last_sequence_number: None,
            record_count: 0,
            event_count: received_in.total(),
            uncompressed_bytes,
            uncompressed_sha256,
            received_in,
            rejected_reasons: reasons.iter().collect(),
            earliest_received_at: received_at,
            latest_received_at: received_at,
            block_size,
            attempt: self.attempt.clone(),
        };
        Ok(Spilled { key: ObjectKey::spilled(kind, hour, id).to_string(), body, metadata })
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
