//! Puts records on the stream: in calls within Kinesis's limits, failed entries again, until all are stored or the time
//! is up. What became of each record is known at the end.

use std::future::Future;
use std::time::Duration;

use lambda_setup::deadline::{Deadline, TimeIsUp, backoff_ceiling};
use shared::limits::{PUT_RECORDS_MAX_BYTES, PUT_RECORDS_MAX_RECORDS};
use shared::rejection::ReasonCounts;

use crate::pack::Record;

/// A stream that takes records.
pub trait RecordStream {
    /// Puts records within the limits of one call. On success there is one outcome a record, in order.
    fn put(&self, records: &[&Record]) -> impl Future<Output = Result<Vec<EntryOutcome>, PutError>>;
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
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// A call is not begun with less time than this: encoding and signing 5 MiB can't be interrupted.
const LEAST_CALL_TIME: Duration = Duration::from_millis(100);
const BACKOFF_BASE: Duration = Duration::from_millis(25);
const BACKOFF_CAP: Duration = Duration::from_secs(1);

/// Puts all records, with retries until the deadline. `jitter` gives numbers from 0 to 1.
pub async fn put_all(
    stream: &impl RecordStream,
    records: Vec<Record>,
    deadline: Deadline,
    mut jitter: impl FnMut() -> f64,
) -> PutReport {
    let mut report = PutReport::new(records);
    for retry in 0.. {
        report.try_pending(stream, deadline).await;
        let wait = backoff_ceiling(retry, BACKOFF_BASE, BACKOFF_CAP).mul_f64(jitter());
        if report.is_final() || deadline.remaining() < wait + LEAST_CALL_TIME {
            break;
        }
        let pending = report.pending().len();
        if retry == 0 {
            // At once: with Kinesis away, the last failure is seconds later. Those between say nothing new.
            let failure = report.last_error.as_deref().unwrap_or_default();
            tracing::warn!(records = pending, failure, "records are not stored at the first try; trying again");
        }
        tokio::time::sleep(wait).await;
        report.retried_entries += pending as u64;
    }
    report
}

/// The records of a request and what became of them.
#[derive(Debug, Default)]
pub struct PutReport {
    pub(crate) records: Vec<Record>,
    /// For each record whether it is stored.
    pub(crate) stored: Vec<bool>,
    /// Whether Kinesis refused a call for good.
    pub(crate) is_refused: bool,
    /// Entries that failed and were tried again.
    pub retried_entries: u64,
    /// Entries that were throttled, by themselves or with their call, each time anew.
    pub throttled_entries: u64,
    /// The last error of those that are not stored.
    pub last_error: Option<String>,
}

impl PutReport {
    fn new(records: Vec<Record>) -> Self {
        Self { stored: vec![false; records.len()], records, ..Self::default() }
    }

    /// Tries each record once that is not stored, unless time or Kinesis' permission ends.
    async fn try_pending(&mut self, stream: &impl RecordStream, deadline: Deadline) {
        let pending = self.pending();
        for call in calls(&self.records, &pending) {
            if self.is_refused || deadline.remaining() < LEAST_CALL_TIME {
                break;
            }
            let entries: Vec<&Record> = call.iter().map(|&index| &self.records[index]).collect();
            let answer = deadline.bound(CALL_TIMEOUT, stream.put(&entries)).await;
            self.note(call, answer);
        }
    }

    fn note(&mut self, call: &[usize], answer: Result<Result<Vec<EntryOutcome>, PutError>, TimeIsUp>) {
        match answer {
            Ok(Ok(outcomes)) => call.iter().zip(outcomes).for_each(|(&index, outcome)| self.note_entry(index, outcome)),
            Ok(Err(error)) => {
                self.last_error = Some(error.to_string());
                match error {
                    PutError::Throttled(_) => self.throttled_entries += call.len() as u64,
                    PutError::Transient(_) => {}
                    PutError::Permanent(_) => self.is_refused = true,
                }
            }
            Err(no_answer) => self.last_error = Some(format!("Kinesis did not answer: {no_answer}")),
        }
    }

    fn note_entry(&mut self, index: usize, outcome: EntryOutcome) {
        match outcome {
            EntryOutcome::Stored => self.stored[index] = true,
            EntryOutcome::Throttled(code) => {
                self.throttled_entries += 1;
                self.last_error = Some(code);
            }
            EntryOutcome::Failed(code) => self.last_error = Some(code),
        }
    }

    /// Whether no further try can store more.
    fn is_final(&self) -> bool {
        self.is_refused || self.is_stored()
    }

    /// Whether all records are stored.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.stored.iter().all(|stored| *stored)
    }

    /// The indexes of the records that are not stored.
    fn pending(&self) -> Vec<usize> {
        (0..self.records.len()).filter(|&index| !self.stored[index]).collect()
    }

    /// The indexes of items of which a line is missing on the stream, in order, each once.
    #[must_use]
    pub fn not_stored(&self) -> Vec<usize> {
        let pending = self.pending();
        let mut items: Vec<usize> = pending.iter().flat_map(|&index| &self.records[index].items).copied().collect();
        items.sort_unstable();
        items.dedup();
        items
    }

    /// The rejected lines that are on the stream, each part of a large body for itself.
    #[must_use]
    pub fn rejected_lines(&self) -> ReasonCounts {
        let mut lines = ReasonCounts::default();
        self.stored_records().flat_map(|record| &record.reasons).for_each(|reason| lines.add(*reason, 1));
        lines
    }

    /// Bytes of data that are on the stream, without partition keys.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_records().map(|record| record.data.len() as u64).sum()
    }

    /// Lone surrogates that were replaced in events that are on the stream.
    #[must_use]
    pub fn replaced_surrogates(&self) -> u64 {
        self.stored_records().map(|record| record.replaced_surrogates).sum()
    }

    fn stored_records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().zip(&self.stored).filter(|(_, stored)| **stored).map(|(record, _)| record)
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
    use rstest::rstest;
    use shared::line::Kind;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use tracing::span::{Attributes, Id, Record as Values};
    use tracing::{Event, Level, Metadata, Subscriber};

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
        async fn put(&self, records: &[&Record]) -> Result<Vec<EntryOutcome>, PutError> {
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

    /// Counts the lines of the log by their level.
    #[derive(Default, Clone)]
    struct CountedLines(Arc<Mutex<Vec<Level>>>);

    impl Subscriber for CountedLines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Values<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[rstest]
    #[case::nothing_failed(&[], 0)]
    #[case::one_try_failed(&[Fault::Transient], 1)]
    #[case::one_entry_was_throttled(&[Fault::Entries(2)], 1)]
    #[case::no_answer(&[Fault::Hangs], 1)]
    #[case::many_tries_failed(&[Fault::Transient, Fault::Throttled, Fault::Hangs, Fault::Internal], 1)]
    #[case::there_is_no_other_try(&[Fault::Permanent], 0)]
    #[tokio::test(start_paused = true)]
    async fn the_first_try_that_is_repeated_is_logged(#[case] script: &[Fault], #[case] warnings: usize) {
        let lines = CountedLines::default();
        let guard = tracing::subscriber::set_default(lines.clone());
        put_all(&scripted(script.to_vec()), records(3), Deadline::after(TEN_SECONDS), || 0.5).await;
        drop(guard);
        assert_eq!(*lines.0.lock().unwrap(), vec![Level::WARN; warnings]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_the_last_for_want_of_time_is_not_said_to_be_repeated() {
        for milliseconds in [0, 100, 120] {
            let (lines, deadline) = (CountedLines::default(), Deadline::after(Duration::from_millis(milliseconds)));
            let guard = tracing::subscriber::set_default(lines.clone());
            let report = put_all(&scripted([Fault::Transient]), records(1), deadline, || 1.0).await;
            drop(guard);
            assert_eq!((report.stored, report.retried_entries), (vec![false], 0));
            assert!(lines.0.lock().unwrap().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_entries_alone_are_tried_again() {
        let stream = scripted([Fault::Entries(3), Fault::Entries(2)]);
        let report = put_all(&stream, records(7), Deadline::after(TEN_SECONDS), || 0.5).await;
        assert_eq!(report.stored, [true; 7]);
        assert_eq!(*stream.call_sizes.borrow(), [7, 3, 2]);
        assert_eq!((report.retried_entries, report.throttled_entries), (5, 5));
        assert_eq!(sorted_items(&stream), (0..7).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn six_hundred_records_are_two_calls() {
        let stream = ScriptedStream::default();
        let report = put_all(&stream, records(600), Deadline::after(TEN_SECONDS), || 0.5).await;
        assert_eq!(report.stored, [true; 600]);
        assert_eq!(*stream.call_sizes.borrow(), [500, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_to_the_end_it_stops_before_the_deadline_and_says_what_is_missing() {
        let stream = scripted(std::iter::repeat_n(Fault::Entries(2), 10_000));
        let deadline = Deadline::after(TEN_SECONDS);
        let report = put_all(&stream, records(2), deadline, || 0.5).await;
        assert_eq!(report.stored, [false, true]);
        assert_eq!(report.last_error.as_deref(), Some("ProvisionedThroughputExceededException"));
        assert!(!deadline.remaining().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_leaves_time_for_another() {
        let stream = scripted([Fault::Hangs, Fault::Transient]);
        let report = put_all(&stream, records(1), Deadline::after(TEN_SECONDS), || 0.5).await;
        assert_eq!(report.stored, [true]);
        assert_eq!(stream.call_sizes.borrow().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_throttled_is_counted_each_time_and_other_failures_are_not() {
        let stream = scripted([Fault::Throttled, Fault::Internal, Fault::Entries(2), Fault::Transient]);
        let report = put_all(&stream, records(5), Deadline::after(TEN_SECONDS), || 0.5).await;
        assert_eq!(report.stored, [true; 5]);
        assert_eq!(*stream.call_sizes.borrow(), [5, 5, 5, 3, 3]);
        assert_eq!((report.retried_entries, report.throttled_entries), (5 + 5 + 3 + 3, 5 + 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_error_is_not_tried_again() {
        let stream = scripted([Fault::Permanent]);
        let report = put_all(&stream, records(3), Deadline::after(TEN_SECONDS), || 0.5).await;
        assert_eq!(report.stored, [false; 3]);
        assert_eq!(stream.call_sizes.borrow().len(), 1);
        assert!(report.last_error.unwrap().contains("no such stream"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_time_nothing_hangs() {
        let stream = scripted([Fault::Hangs]);
        let report = put_all(&stream, records(1), Deadline::after(Duration::ZERO), || 0.0).await;
        assert_eq!(report.stored, [false]);
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
