//! Where a request's records are stored: on the stream or, when Kinesis does not take them, in S3.

use std::cell::RefCell;
use std::time::Duration;

use lambda_setup::deadline::Deadline;
use shared::line::{EventFormat, Kind};
use shared::object::Attempt;
use shared::timestamp::UnixMillis;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::breaker::{Admission, Breaker};
use crate::pack::Record;
use crate::put::{CALL_TIMEOUT, LEAST_CALL_TIME, LEAST_RETRY_TIME, PutReport, RecordStream, Tried};
use crate::spill::{Source, SpillBucket, SpillError, Spilled, create};

/// How long Kinesis and S3 are waited for: where both are away, players get their 503 within three seconds.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2_900);
/// S3's share of it, without what it takes to compress.
pub(crate) const SPILL_TIME: Duration = Duration::from_millis(1_300);
/// Bytes of records that a probe has little time for. On a seventh of a processor, more would take most of it to send.
const SMALL_BYTES: usize = 64 * 1024;

/// The stream, and the bucket behind it.
pub struct Store<S, B> {
    services: Services<S, B>,
    /// How long a request tries Kinesis.
    kinesis_time: Duration,
    /// Nothing waits while it is borrowed.
    breaker: RefCell<Breaker>,
}

/// Kinesis and S3, without memory of how they did.
pub struct Services<S, B> {
    pub(crate) stream: S,
    bucket: B,
    format: EventFormat,
    compressing: Semaphore,
}

/// The request whose records are stored.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub request_id: &'a str,
    /// When all must be over.
    pub deadline: Deadline,
}

impl<S: RecordStream, B: SpillBucket> Store<S, B> {
    /// A store that tries Kinesis for so long, and for one call at least.
    pub fn new(stream: S, bucket: B, format: EventFormat, kinesis_retry: Duration) -> Self {
        let kinesis_time = kinesis_retry.max(CALL_TIMEOUT);
        let services = Services::new(stream, bucket, format);
        Self { services, kinesis_time, breaker: RefCell::default() }
    }

    /// Stores the records; what became of each is in the report.
    pub async fn store(&self, records: Vec<Record>, origin: Origin<'_>) -> PutReport {
        let mut report = PutReport::new(records);
        if report.is_stored() {
            return report;
        }
        let patience = origin.deadline.within(PATIENCE);
        let admission = self.breaker.borrow_mut().admit(Instant::now());
        self.put(&mut report, admission, patience).await;
        if !report.is_stored() {
            // While a shard is full each request tries Kinesis, and has the same to say as the one that found it so.
            self.services.spill(&mut report, origin, SPILL_TIME, admission != Admission::Once).await;
        }
        if !report.is_stored() {
            let tried = self.services.put_at_last(&mut report, patience.within(self.kinesis_time)).await;
            tried.into_iter().for_each(|tried| self.breaker.borrow_mut().note(tried, Instant::now()));
        }
        report
    }

    async fn put(&self, report: &mut PutReport, admission: Admission, patience: Deadline) {
        let stream = &self.services.stream;
        if patience.remaining() < LEAST_CALL_TIME {
            return;
        }
        let tried = match admission {
            Admission::Retry => report.put(stream, patience.within(self.kinesis_time), rand::random::<f64>).await,
            Admission::Once => report.put_once(stream, patience.within(CALL_TIMEOUT)).await,
            Admission::Probe => report.put_once(stream, patience.within(probe_time(report))).await,
            Admission::Refuse => return,
        };
        self.breaker.borrow_mut().note(tried, Instant::now());
    }
}

fn probe_time(report: &PutReport) -> Duration {
    let bytes: usize = report.records.iter().map(Record::size).sum();
    if bytes > SMALL_BYTES { CALL_TIMEOUT } else { LEAST_RETRY_TIME }
}

impl<S: RecordStream, B: SpillBucket> Services<S, B> {
    pub const fn new(stream: S, bucket: B, format: EventFormat) -> Self {
        Self { stream, bucket, format, compressing: Semaphore::const_new(1) }
    }

    /// With S3 away too, no breaker is a reason to lose anything. Says how Kinesis did, if there was time to try it.
    pub(crate) async fn put_at_last(&self, report: &mut PutReport, deadline: Deadline) -> Option<Tried> {
        if deadline.remaining() < LEAST_CALL_TIME {
            return None;
        }
        let known = report.last_error.take();
        let tried = report.put(&self.stream, deadline, rand::random::<f64>).await;
        known.iter().for_each(|error| report.add_error(error));
        Some(tried)
    }

    /// Writes what is not stored to S3, which has so much of the time: events first, rejected lines in the time that they leave.
    /// `warns` of why, if known.
    pub(crate) async fn spill(&self, report: &mut PutReport, origin: Origin<'_>, mut s3_time: Duration, warns: bool) {
        let (reason, mut keys) = (report.last_error.clone(), Vec::new());
        for kind in [Kind::Event, Kind::Rejected] {
            let pending = report.pending_of(kind);
            if pending.is_empty() {
                continue;
            }
            let object = self.object(report, (kind, pending.clone()), origin, s3_time).await;
            let began = Instant::now();
            match self.create(object, origin.deadline.within(s3_time)).await {
                Ok(object) => {
                    report.note_spilled(&pending[..object.records]);
                    if object.records < pending.len() {
                        report.add_error(&SpillError::TooLong.to_string());
                    }
                    keys.push(object.key);
                }
                Err(error) => report.add_error(&error.to_string()),
            }
            s3_time = s3_time.saturating_sub(began.elapsed());
        }
        // Only the requests that tried Kinesis know a reason: in an outage they are few.
        if report.is_stored()
            && let Some(reason) = reason.filter(|_| warns)
        {
            let (request_id, keys) = (origin.request_id, keys.join(" "));
            tracing::warn!(
                request_id,
                keys,
                reason,
                "Kinesis did not take all records; these are in S3, nothing is lost"
            );
        }
    }

    /// The object of these records. Compressing it takes long enough to hold up what else the thread does, so another does it.
    async fn object(
        &self,
        report: &mut PutReport,
        (kind, pending): (Kind, Vec<usize>),
        origin: Origin<'_>,
        s3_time: Duration,
    ) -> Result<Spilled, SpillError> {
        let (records, source, deadline) = (std::mem::take(&mut report.records), self.source(origin), origin.deadline);
        let compress = move || {
            let pending: Vec<&Record> = pending.iter().map(|&index| &records[index]).collect();
            let object = source.object(kind, &pending, deadline.remaining().saturating_sub(s3_time));
            (records, object)
        };
        // One at a time: what looks up S3's address needs a thread, too. It is never closed.
        let turn = self.compressing.acquire().await;
        let compressed = tokio::task::spawn_blocking(compress).await;
        drop(turn);
        match compressed {
            Ok((records, object)) => {
                report.records = records;
                object
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    async fn create(&self, object: Result<Spilled, SpillError>, deadline: Deadline) -> Result<Spilled, SpillError> {
        let object = object?;
        create(&self.bucket, &object, deadline, rand::random::<f64>).await?;
        Ok(object)
    }

    fn source(&self, origin: Origin<'_>) -> Source {
        let began = lambda_setup::now();
        let left = i64::try_from(origin.deadline.remaining().as_millis()).unwrap_or(i64::MAX);
        let deadline = UnixMillis(began.0.saturating_add(left));
        let attempt = Attempt { began, deadline, request_id: origin.request_id.to_owned() };
        Source { format: self.format, attempt }
    }
}
