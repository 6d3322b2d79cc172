//! Puts records on the stream: in calls within Kinesis' limits, failed entries again, until all are stored or the time
//! is up. What became of each record is known at the end.

use std::future::Future;
use std::time::Duration;

use lambda_setup::deadline::{Deadline, TimeIsUp, backoff_ceiling};
use shared::limits::{PUT_RECORDS_MAX_BYTES, PUT_RECORDS_MAX_RECORDS};
use shared::line::Kind;
use shared::rejection::ReasonCounts;

use crate::pack::Record;

/// A stream that takes records.
pub trait RecordStream {
    /// Puts records within the limits of one call, in that time. On success there is one outcome a record, in order.
    fn put(
        &self,
        records: &[&Record],
        time_limit: Duration,
    ) -> impl Future<Output = Result<Vec<EntryOutcome>, PutError>>;
}

/// What became of one record of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryOutcome {
    Stored,
    /// Its shard is at its limit, with Kinesis's error code; a later try may succeed.
    Throttled(String),
    /// With Kinesis's error code; another try may succeed.
    Failed(String),
}

/// A call that stored nothing, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// A later try may succeed: there were too many calls.
    #[error("the call was throttled: {0}")]
    Throttled(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another try may succeed: a fault of the service, or no answer. Without an answer the records may be
    /// on the stream all the same; trying again may then double them, under the same ids.
    #[error("the call failed: {0}")]
    Transient(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No try can succeed: no such stream, no permission, a malformed call.
    #[error("Kinesis refused the call: {0}")]
    Permanent(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The longest that one call may take. Kinesis answers in some 10 ms; a call that hangs must leave time for another.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_millis(700);
/// What the SDK is given of a call's time: it gives up before its caller, because only a call that the SDK itself gives up
/// takes its connection out of use, and the next call would go out on the one that hangs.
#[must_use]
pub(crate) const fn sdk_time_limit(time_limit: Duration) -> Duration {
    time_limit.saturating_sub(Duration::from_millis(20))
}

/// A call is not begun with less time than this: encoding and signing 5 MiB can't be interrupted.
pub(crate) const LEAST_CALL_TIME: Duration = Duration::from_millis(100);
const BACKOFF_BASE: Duration = Duration::from_millis(25);
const BACKOFF_CAP: Duration = Duration::from_secs(1);

/// The records of a request and what became of them.
#[derive(Debug, Default)]
pub struct PutReport {
    pub(crate) records: Vec<Record>,
    /// For each record where it is stored; `None` until it is known to be.
    pub(crate) stored: Vec<Option<Place>>,
    /// How the last call of Kinesis ended.
    pub(crate) last_call: LastCall,
    /// Entries that failed and were tried again.
    pub retried_entries: u64,
    /// Entries that were throttled, by themselves or with their call, each time anew.
    pub throttled_entries: u64,
    /// The last error of those that are not stored.
    pub last_error: Option<String>,
}

/// Where a record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Stream,
    /// In S3, because Kinesis did not confirm it in time.
    Spilled,
}

/// How a call of Kinesis ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum LastCall {
    #[default]
    NotMade,
    /// Also by throttling some or all of it.
    Answered,
    /// Without an answer, or with a fault of the service.
    Failed,
    /// For good: no such stream, no permission.
    Refused,
}

impl PutReport {
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        Self { stored: vec![None; records.len()], records, ..Self::default() }
    }

    /// Puts all records that are not stored, with retries until the deadline. `jitter` gives numbers from 0 to 1.
    pub async fn put(&mut self, stream: &impl RecordStream, deadline: Deadline, mut jitter: impl FnMut() -> f64) {
        for retry in 0.. {
            self.try_pending(stream, deadline).await;
            let wait = backoff_ceiling(retry, BACKOFF_BASE, BACKOFF_CAP).mul_f64(jitter());
            let is_final = self.is_stored() || self.last_call == LastCall::Refused;
            if is_final || deadline.remaining() < wait + LEAST_CALL_TIME {
                break;
            }
            tokio::time::sleep(wait).await;
            self.retried_entries += self.pending().len() as u64;
        }
    }

    /// Tries each record once that is not stored, unless time or Kinesis' permission ends.
    pub async fn try_pending(&mut self, stream: &impl RecordStream, deadline: Deadline) {
        let pending = self.pending();
        for call in calls(&self.records, &pending) {
            if self.last_call == LastCall::Refused || deadline.remaining() < LEAST_CALL_TIME {
                break;
            }
            let entries: Vec<&Record> = call.iter().map(|&index| &self.records[index]).collect();
            let time_limit = CALL_TIMEOUT.min(deadline.remaining());
            let answer = deadline.bound(time_limit, stream.put(&entries, time_limit)).await;
            self.note(call, answer);
        }
    }

    fn note(&mut self, call: &[usize], answer: Result<Result<Vec<EntryOutcome>, PutError>, TimeIsUp>) {
        let (last_call, error) = match answer {
            Ok(Ok(outcomes)) => {
                self.last_call = LastCall::Answered;
                return call.iter().zip(outcomes).for_each(|(&index, outcome)| self.note_entry(index, outcome));
            }
            Ok(Err(error @ PutError::Throttled(_))) => {
                self.throttled_entries += call.len() as u64;
                (LastCall::Answered, error.to_string())
            }
            Ok(Err(error @ PutError::Transient(_))) => (LastCall::Failed, error.to_string()),
            Ok(Err(error @ PutError::Permanent(_))) => (LastCall::Refused, error.to_string()),
            Err(TimeIsUp) => (LastCall::Failed, "Kinesis did not answer in time".to_owned()),
        };
        (self.last_call, self.last_error) = (last_call, Some(error));
    }

    fn note_entry(&mut self, index: usize, outcome: EntryOutcome) {
        match outcome {
            EntryOutcome::Stored => self.stored[index] = Some(Place::Stream),
            EntryOutcome::Throttled(code) => {
                self.throttled_entries += 1;
                self.last_error = Some(code);
            }
            EntryOutcome::Failed(code) => self.last_error = Some(code),
        }
    }

    /// Notes another error behind those that are known.
    pub(crate) fn add_error(&mut self, error: &str) {
        self.last_error = Some(match self.last_error.take() {
            Some(known) => format!("{known}; {error}"),
            None => error.to_owned(),
        });
    }

    /// Whether all records are stored.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.stored.iter().all(Option::is_some)
    }

    /// The indexes of the records that are not stored.
    fn pending(&self) -> Vec<usize> {
        (0..self.records.len()).filter(|&index| self.stored[index].is_none()).collect()
    }

    /// The records of a kind that are not stored.
    pub(crate) fn pending_of(&self, kind: Kind) -> Vec<&Record> {
        let pending = self.pending().into_iter().map(|index| &self.records[index]);
        pending.filter(|record| record.kind == kind).collect()
    }

    /// Notes that all records of a kind that were not stored are in S3.
    pub(crate) fn note_spilled(&mut self, kind: Kind) {
        let stored = self.records.iter().zip(&mut self.stored);
        stored.filter(|(record, _)| record.kind == kind).for_each(|(_, place)| {
            place.get_or_insert(Place::Spilled);
        });
    }

    /// The indexes of items of which a line is not stored, in order, each once.
    #[must_use]
    pub fn not_stored(&self) -> Vec<usize> {
        let pending = self.pending();
        let mut items: Vec<usize> = pending.iter().flat_map(|&index| &self.records[index].items).copied().collect();
        items.sort_unstable();
        items.dedup();
        items
    }

    /// The rejected lines that are stored, each part of a large body for itself.
    #[must_use]
    pub fn rejected_lines(&self) -> ReasonCounts {
        let mut lines = ReasonCounts::default();
        let reasons = self.stored_records().flat_map(|(record, _)| &record.reasons);
        reasons.for_each(|reason| lines.add(*reason, 1));
        lines
    }

    /// Bytes of data that are on the stream, without partition keys.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let on_stream = self.stored_records().filter(|(_, place)| *place == Place::Stream);
        on_stream.map(|(record, _)| record.data.len() as u64).sum()
    }

    /// Events that are in S3.
    #[must_use]
    pub fn spilled_events(&self) -> u64 {
        let spilled = |record: &Record, place| place == Place::Spilled && record.kind == Kind::Event;
        let spilled = self.stored_records().filter(|(record, place)| spilled(record, *place));
        spilled.map(|(record, _)| record.items.len() as u64).sum()
    }

    /// Lone surrogates that were replaced in events that are stored.
    #[must_use]
    pub fn replaced_surrogates(&self) -> u64 {
        self.stored_records().map(|(record, _)| record.replaced_surrogates).sum()
    }

    fn stored_records(&self) -> impl Iterator<Item = (&Record, Place)> {
        self.records.iter().zip(&self.stored).filter_map(|(record, place)| Some((record, (*place)?)))
    }
}

/// Cuts the pending records into calls within Kinesis's limits, in order.
fn calls<'p>(records: &[Record], pending: &'p [usize]) -> Vec<&'p [usize]> {
    let mut calls = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (position, &index) in pending.iter().enumerate() {
        let size = records[index].size();
        if position - start == PUT_RECORDS_MAX_RECORDS || bytes + size > PUT_RECORDS_MAX_BYTES && position > start {
            calls.push(&pending[start..position]);
            (start, bytes) = (position, 0);
        }
        bytes += size;
    }
    if start < pending.len() {
        calls.push(&pending[start..]);
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Bucket;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    /// A stream in memory that keeps what it stored and fails as its script says; with the script over, it stores.
    #[derive(Default)]
    struct ScriptedStream {
        script: RefCell<VecDeque<Fault>>,
        /// The first item of each record.
        stored: RefCell<Vec<usize>>,
        call_sizes: RefCell<Vec<usize>>,
    }

    #[derive(Debug, Clone)]
    enum Fault {
        /// Throttles the entries whose position is a multiple of this.
        Entries(usize),
        /// Fails all entries, but not because they are too many.
        Internal,
        Throttled,
        Transient,
        Permanent,
        Hangs,
    }

    impl RecordStream for ScriptedStream {
        async fn put(&self, records: &[&Record], _: Duration) -> Result<Vec<EntryOutcome>, PutError> {
            self.call_sizes.borrow_mut().push(records.len());
            let fault = self.script.borrow_mut().pop_front();
            let fails = |position: usize| matches!(fault, Some(Fault::Entries(nth)) if position.is_multiple_of(nth));
            match fault {
                Some(Fault::Throttled) => return Err(PutError::Throttled("too many".into())),
                Some(Fault::Transient) => return Err(PutError::Transient("500".into())),
                Some(Fault::Permanent) => return Err(PutError::Permanent("no such stream".into())),
                Some(Fault::Hangs) => std::future::pending().await,
                Some(Fault::Internal) => {
                    return Ok(vec![EntryOutcome::Failed("InternalFailure".into()); records.len()]);
                }
                Some(Fault::Entries(_)) | None => {}
            }
            let outcome = |(position, record): (usize, &&Record)| {
                if fails(position) {
                    return EntryOutcome::Throttled("ProvisionedThroughputExceededException".into());
                }
                self.stored.borrow_mut().push(record.items[0]);
                EntryOutcome::Stored
            };
            Ok(records.iter().enumerate().map(outcome).collect())
        }
    }

    fn scripted(script: impl IntoIterator<Item = Fault>) -> ScriptedStream {
        ScriptedStream { script: RefCell::new(script.into_iter().collect()), ..ScriptedStream::default() }
    }

    fn records(count: usize) -> Vec<Record> {
        (0..count).map(|item| Record { items: vec![item], ..record(10) }).collect()
    }

    fn record(bytes: usize) -> Record {
        Record {
            kind: Kind::Event,
            bucket: Bucket { number: 0, first_hash_key: 0 },
            data: vec![0; bytes],
            items: Vec::new(),
            reasons: Vec::new(),
            replaced_surrogates: 0,
        }
    }

    fn sorted_items(stream: &ScriptedStream) -> Vec<usize> {
        let mut items = stream.stored.borrow().clone();
        items.sort_unstable();
        items
    }

    const TEN_SECONDS: Duration = Duration::from_secs(10);

    async fn put_all(stream: &ScriptedStream, records: Vec<Record>, deadline: Deadline) -> PutReport {
        let mut report = PutReport::new(records);
        report.put(stream, deadline, || 0.5).await;
        report
    }

    #[tokio::test(start_paused = true)]
    async fn failed_entries_alone_are_tried_again() {
        let stream = scripted([Fault::Entries(3), Fault::Entries(2)]);
        let report = put_all(&stream, records(7), Deadline::after(TEN_SECONDS)).await;
        assert_eq!(report.stored, [Some(Place::Stream); 7]);
        assert_eq!(*stream.call_sizes.borrow(), [7, 3, 2]);
        assert_eq!((report.retried_entries, report.throttled_entries), (5, 5));
        assert_eq!(sorted_items(&stream), (0..7).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn six_hundred_records_are_two_calls() {
        let stream = ScriptedStream::default();
        let report = put_all(&stream, records(600), Deadline::after(TEN_SECONDS)).await;
        assert_eq!(report.stored, [Some(Place::Stream); 600]);
        assert_eq!(*stream.call_sizes.borrow(), [500, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_to_the_end_it_stops_before_the_deadline_and_says_what_is_missing() {
        let stream = scripted(std::iter::repeat_n(Fault::Entries(2), 10_000));
        let deadline = Deadline::after(TEN_SECONDS);
        let report = put_all(&stream, records(2), deadline).await;
        assert_eq!(report.stored, [None, Some(Place::Stream)]);
        assert_eq!(report.last_error.as_deref(), Some("ProvisionedThroughputExceededException"));
        assert!(!deadline.remaining().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_leaves_time_for_another() {
        let stream = scripted([Fault::Hangs, Fault::Transient]);
        let report = put_all(&stream, records(1), Deadline::after(TEN_SECONDS)).await;
        assert_eq!(report.stored, [Some(Place::Stream)]);
        assert_eq!(stream.call_sizes.borrow().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_throttled_is_counted_each_time_and_other_failures_are_not() {
        let stream = scripted([Fault::Throttled, Fault::Internal, Fault::Entries(2), Fault::Transient]);
        let report = put_all(&stream, records(5), Deadline::after(TEN_SECONDS)).await;
        assert_eq!(report.stored, [Some(Place::Stream); 5]);
        assert_eq!(*stream.call_sizes.borrow(), [5, 5, 5, 3, 3]);
        assert_eq!((report.retried_entries, report.throttled_entries), (5 + 5 + 3 + 3, 5 + 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_error_is_not_tried_again() {
        let stream = scripted([Fault::Permanent]);
        let report = put_all(&stream, records(3), Deadline::after(TEN_SECONDS)).await;
        assert_eq!(report.stored, [None; 3]);
        assert_eq!(stream.call_sizes.borrow().len(), 1);
        assert!(report.last_error.unwrap().contains("no such stream"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_time_nothing_hangs() {
        let stream = scripted([Fault::Hangs]);
        let report = put_all(&stream, records(1), Deadline::after(Duration::ZERO)).await;
        assert_eq!(report.stored, [None]);
        assert!(stream.call_sizes.borrow().is_empty());
    }

    #[test]
    fn calls_stand_on_the_byte_limit_and_one_past_it() {
        let sized = |bytes: usize| record(bytes - record(0).size());
        let half = PUT_RECORDS_MAX_BYTES / 2;
        assert_eq!(calls(&[sized(half), sized(half)], &[0, 1]), [&[0, 1]]);
        assert_eq!(calls(&[sized(half), sized(half + 1)], &[0, 1]), [&[0], &[1]]);
    }

    proptest! {
        #[test]
        fn every_pending_record_is_in_exactly_one_call(
            sizes in prop::collection::vec(1usize..2_000_000, 0..30), many in 0usize..1200,
        ) {
            let mut all: Vec<Record> = sizes.iter()
                .map(|size| record(*size)).collect();
            all.extend(records(many));
            let pending: Vec<usize> = (0..all.len()).collect();
            let calls = calls(&all, &pending);
            prop_assert_eq!(calls.concat(), pending.clone());
            for call in calls {
                prop_assert!(!call.is_empty() && call.len() <= PUT_RECORDS_MAX_RECORDS);
                prop_assert!(call.iter().map(|&index| all[index].size()).sum::<usize>() <= PUT_RECORDS_MAX_BYTES);
            }
        }
    }
}
