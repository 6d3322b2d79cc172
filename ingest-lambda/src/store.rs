//! Where a request's records are stored: on the stream or, when Kinesis does not take them, in S3.

use std::cell::RefCell;
use std::time::Duration;

use lambda_setup::deadline::Deadline;
use shared::line::{EventFormat, Kind};
use shared::object::{Attempt, SpillId};
use shared::timestamp::UnixMillis;
use tokio::time::Instant;
use uuid::Uuid;

use crate::breaker::{Admission, Breaker};
use crate::pack::Record;
use crate::put::{CALL_TIMEOUT, LastCall, PutReport, RecordStream};
use crate::spill::{Source, SpillBucket, SpillError, Spilled, create};

/// The longest that a probe may take: what a request loses to it while Kinesis is away.
const PROBE_TIME: Duration = Duration::from_millis(300);
/// The time for S3, behind that for Kinesis: where both are away, players are told so within three seconds.
const SPILL_TIME: Duration = Duration::from_millis(1_300);

/// The stream, and the bucket behind it.
pub struct Store<S, B> {
    stream: S,
    bucket: B,
    format: EventFormat,
    kinesis_retry: Duration,
    /// Nothing waits while it is borrowed.
    breaker: RefCell<Breaker>,
}

/// The request whose records are stored.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub request_id: &'a str,
    pub received_at: UnixMillis,
    /// When all must be over.
    pub deadline: Deadline,
}

impl<S: RecordStream, B: SpillBucket> Store<S, B> {
    /// A store that tries Kinesis again for so long.
    pub fn new(stream: S, bucket: B, format: EventFormat, kinesis_retry: Duration) -> Self {
        Self { stream, bucket, format, kinesis_retry, breaker: RefCell::default() }
    }

    /// Stores the records; what became of each is in the report.
    pub async fn store(&self, records: Vec<Record>, origin: Origin<'_>) -> PutReport {
        let mut report = PutReport::new(records);
        if report.is_stored() {
            return report;
        }
        self.put(&mut report, origin.deadline).await;
        if !report.is_stored() {
            self.spill(&mut report, origin).await;
        }
        if !report.is_stored() && report.last_call == LastCall::NotMade {
            self.try_once(&mut report, origin.deadline).await;
        }
        report
    }

    /// With S3 away too, an open breaker is no reason to lose anything: Kinesis may be back since.
    async fn try_once(&self, report: &mut PutReport, deadline: Deadline) {
        let s3_error = report.last_error.take();
        report.try_pending(&self.stream, deadline.within(CALL_TIMEOUT)).await;
        self.note_last_call(report);
        s3_error.iter().for_each(|error| report.add_error(error));
    }

    async fn put(&self, report: &mut PutReport, deadline: Deadline) {
        let admission = self.breaker.borrow_mut().admit(Instant::now());
        if admission == Admission::Probe {
            report.try_pending(&self.stream, deadline.within(PROBE_TIME)).await;
        }
        if admission == Admission::Try || report.last_call == LastCall::Answered && !report.is_stored() {
            report.put(&self.stream, deadline.within(self.kinesis_retry), rand::random::<f64>).await;
        }
        self.note_last_call(report);
    }

    fn note_last_call(&self, report: &PutReport) {
        match report.last_call {
            LastCall::NotMade => {}
            LastCall::Answered => self.breaker.borrow_mut().answered(),
            LastCall::Failed | LastCall::Refused => self.breaker.borrow_mut().failed(Instant::now()),
        }
    }

    async fn spill(&self, report: &mut PutReport, origin: Origin<'_>) {
        let objects = [Kind::Event, Kind::Rejected].map(|kind| (kind, self.object(kind, report, origin)));
        let deadline = origin.deadline.within(SPILL_TIME);
        for (kind, object) in objects {
            let Some(object) = object else { continue };
            match self.create(object, deadline).await {
                Ok(key) => log_spilled(report, &key, origin),
                Err(error) => {
                    report.add_error(&error.to_string());
                    continue;
                }
            }
            report.note_spilled(kind);
        }
    }

    /// The object of the records of a kind that are not stored, if there are any.
    fn object(&self, kind: Kind, report: &PutReport, origin: Origin<'_>) -> Option<Result<Spilled, SpillError>> {
        let records = report.pending_of(kind);
        let (id, began) = (SpillId(Uuid::now_v7().as_u128()), lambda_setup::now());
        let left = i64::try_from(origin.deadline.remaining().as_millis()).unwrap_or(i64::MAX);
        let deadline = UnixMillis(began.0.saturating_add(left));
        let attempt = Attempt { began, deadline, request_id: origin.request_id.to_owned() };
        let source = Source { format: self.format, received_at: origin.received_at, attempt };
        (!records.is_empty()).then(|| source.object(kind, &records, id))
    }

    async fn create(&self, object: Result<Spilled, SpillError>, deadline: Deadline) -> Result<String, SpillError> {
        let object = object?;
        create(&self.bucket, &object, deadline, rand::random::<f64>).await?;
        Ok(object.key)
    }
}

/// Where Kinesis was tried: requests that left it alone follow one that says why.
fn log_spilled(report: &PutReport, key: &str, origin: Origin<'_>) {
    if report.last_call == LastCall::NotMade {
        return;
    }
    let (request_id, reason) = (origin.request_id, report.last_error.as_deref().unwrap_or_default());
    tracing::warn!(
        request_id,
        key,
        reason,
        "Kinesis did not take all records in time; these are in S3, nothing is lost"
    );
}
