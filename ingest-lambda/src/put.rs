//! Puts records on the stream: in calls within Kinesis' limits, throttled entries again, until all are stored, the time is up
//! or Kinesis fails. What became of each record is known at the end.

use std::future::Future;
use std::time::Duration;

use lambda_setup::deadline::{Deadline, TimeIsUp, backoff_ceiling};
use shared::limits::{MAX_PUT_RECORDS, MAX_PUT_RECORDS_BYTES};
use shared::line::Kind;
use shared::rejection::ReasonCounts;
use tokio::time::Instant;

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

/// The longest that one call may take. Kinesis answers in some 10 ms; one that takes longer than this is as good as away.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_millis(700);
/// What the SDK is given of a call's time: it gives up before its caller, because only a call that the SDK itself gives up
/// takes its connection out of use, and the next call would go out on the one that hangs.
#[must_use]
pub(crate) const fn sdk_time_limit(time_limit: Duration) -> Duration {
    time_limit.saturating_sub(Duration::from_millis(20))
}

/// A call is not begun with less time than this: encoding and signing 5 MiB can't be interrupted.
pub(crate) const LEAST_CALL_TIME: Duration = Duration::from_millis(100);
/// Nor is a retry with less than this: a call that is cut short says nothing about Kinesis, and may double its records. A
/// probe of little data has as much: a Kinesis that takes longer is not back.
pub(crate) const LEAST_RETRY_TIME: Duration = Duration::from_millis(350);
/// A call that fails within this time is made again, once. Lambda freezes environments between requests, and Kinesis closes
/// connections meanwhile: the first call finds that out at once.
const QUICK_FAILURE: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(25);
pub(crate) const BACKOFF_CAP: Duration = Duration::from_secs(1);

/// The records of a request and what became of them.
#[derive(Debug, Default)]
pub struct PutReport {
    pub(crate) records: Vec<Record>,
    /// For each record where it is stored; `None` until it is known to be.
    pub(crate) stored: Vec<Option<Place>>,
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

/// How Kinesis did when it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It has all records.
    All,
    /// It answered, but some records are not stored: their shards were throttled, or the time is over.
    Partly,
    /// A call was not answered in time, failed, or stored nothing though nothing was throttled.
    Failed,
}

impl PutReport {
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        Self { stored: vec![None; records.len()], records, ..Self::default() }
    }

    /// Puts all records that are not stored. Those that are throttled are retried until the deadline. `jitter` gives numbers
    /// from 0 to 1.
    pub async fn put(
        &mut self,
        stream: &impl RecordStream,
        deadline: Deadline,
        mut jitter: impl FnMut() -> f64,
    ) -> Tried {
        let mut retry = 0;
        loop {
            let tried = self.put_once(stream, deadline).await;
            let wait = backoff_ceiling(retry, BACKOFF_BASE, BACKOFF_CAP).mul_f64(jitter());
            if tried != Tried::Partly || deadline.remaining() < wait + LEAST_RETRY_TIME {
                return tried;
            }
            tokio::time::sleep(wait).await;
            self.retried_entries += self.pending().len() as u64;
            retry += 1;
        }
    }

    /// Puts each record once that is not stored. A call that fails is the last.
    pub async fn put_once(&mut self, stream: &impl RecordStream, deadline: Deadline) -> Tried {
        for call in calls(&self.records, &self.pending()) {
            if deadline.remaining() < LEAST_CALL_TIME {
                break;
            }
            let entries: Vec<&Record> = call.iter().map(|&index| &self.records[index]).collect();
            let answer = call_twice(stream, &entries, deadline, &mut self.retried_entries).await;
            if !self.note(call, answer) {
                return Tried::Failed;
            }
        }
        if self.is_stored() { Tried::All } else { Tried::Partly }
    }

    /// Notes what became of a call's records. False if the call failed.
    fn note(&mut self, call: &[usize], answer: Result<Vec<EntryOutcome>, PutError>) -> bool {
        match answer {
            Ok(outcomes) => {
                let is_failed = |outcome: &EntryOutcome| matches!(outcome, EntryOutcome::Failed(_));
                let is_failure = outcomes.iter().all(is_failed);
                call.iter().zip(outcomes).for_each(|(&index, outcome)| self.note_entry(index, outcome));
                !is_failure
            }
            Err(error) => {
                let is_throttled = matches!(error, PutError::Throttled(_));
                self.throttled_entries += if is_throttled { call.len() as u64 } else { 0 };
                self.last_error = Some(error.to_string());
                is_throttled
            }
        }
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

    /// The indexes of the records of a kind that are not stored.
    pub(crate) fn pending_of(&self, kind: Kind) -> Vec<usize> {
        self.pending().into_iter().filter(|&index| self.records[index].kind == kind).collect()
    }

    /// Notes that these records are in S3.
    pub(crate) fn note_spilled(&mut self, indexes: &[usize]) {
        indexes.iter().for_each(|&index| self.stored[index] = Some(Place::Spilled));
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

    /// Records that are on the stream.
    #[must_use]
    pub fn put_records(&self) -> u64 {
        self.on_stream().count() as u64
    }

    /// Bytes of their data, without partition keys.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.on_stream().map(|record| record.data.len() as u64).sum()
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

    fn on_stream(&self) -> impl Iterator<Item = &Record> {
        self.stored_records().filter(|(_, place)| *place == Place::Stream).map(|(record, _)| record)
    }

    fn stored_records(&self) -> impl Iterator<Item = (&Record, Place)> {
        self.records.iter().zip(&self.stored).filter_map(|(record, place)| Some((record, (*place)?)))
    }
}

/// Makes a call, and makes it again if it fails quickly.
async fn call_twice(
    stream: &impl RecordStream,
    records: &[&Record],
    deadline: Deadline,
    retried_entries: &mut u64,
) -> Result<Vec<EntryOutcome>, PutError> {
    let began = Instant::now();
    let answer = call_once(stream, records, deadline).await;
    if !matches!(answer, Err(PutError::Transient(_))) || began.elapsed() > QUICK_FAILURE {
        return answer;
    }
    *retried_entries += records.len() as u64;
    call_once(stream, records, deadline).await
}

async fn call_once(
    stream: &impl RecordStream,
    records: &[&Record],
    deadline: Deadline,
) -> Result<Vec<EntryOutcome>, PutError> {
    let time_limit = CALL_TIMEOUT.min(deadline.remaining());
    let answer = deadline.bound(time_limit, stream.put(records, time_limit)).await;
    answer.unwrap_or_else(|TimeIsUp| Err(PutError::Transient("Kinesis did not answer in time".into())))
}

/// Cuts the pending records into calls within Kinesis's limits, in order.
fn calls<'p>(records: &[Record], pending: &'p [usize]) -> Vec<&'p [usize]> {
    let mut calls = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (position, &index) in pending.iter().enumerate() {
        let size = records[index].size();
        if position - start == MAX_PUT_RECORDS || bytes + size > MAX_PUT_RECORDS_BYTES && position > start {
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
        /// Fails after that time.
        Slow(Duration),
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
                Some(Fault::Slow(late)) => {
                    tokio::time::sleep(late).await;
                    return Err(PutError::Transient("500".into()));
                }
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
            receipts: Vec::new(),
        }
    }

    fn sorted_items(stream: &ScriptedStream) -> Vec<usize> {
        let mut items = stream.stored.borrow().clone();
        items.sort_unstable();
        items
    }

    const TEN_SECONDS: Duration = Duration::from_secs(10);

    async fn put_all(stream: &ScriptedStream, records: Vec<Record>, deadline: Deadline) -> (PutReport, Tried) {
        let mut report = PutReport::new(records);
        let tried = report.put(stream, deadline, || 0.5).await;
        (report, tried)
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_entries_alone_are_tried_again() {
        let stream = scripted([Fault::Entries(3), Fault::Entries(2)]);
        let (report, tried) = put_all(&stream, records(7), Deadline::after(TEN_SECONDS)).await;
        assert_eq!((report.stored.as_slice(), tried), ([Some(Place::Stream); 7].as_slice(), Tried::All));
        assert_eq!(*stream.call_sizes.borrow(), [7, 3, 2]);
        assert_eq!((report.retried_entries, report.throttled_entries), (5, 5));
        assert_eq!(sorted_items(&stream), (0..7).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn six_hundred_records_are_two_calls() {
        let stream = ScriptedStream::default();
        let (report, _) = put_all(&stream, records(600), Deadline::after(TEN_SECONDS)).await;
        assert_eq!(report.stored, [Some(Place::Stream); 600]);
        assert_eq!(*stream.call_sizes.borrow(), [500, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_to_the_end_it_stops_before_the_deadline_and_says_what_is_missing() {
        let stream = scripted(std::iter::repeat_n(Fault::Entries(2), 10_000));
        let deadline = Deadline::after(TEN_SECONDS);
        let (report, tried) = put_all(&stream, records(2), deadline).await;
        assert_eq!((report.stored.as_slice(), tried), ([None, Some(Place::Stream)].as_slice(), Tried::Partly));
        assert_eq!(report.last_error.as_deref(), Some("ProvisionedThroughputExceededException"));
        assert!(!deadline.remaining().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_throttled_is_counted_each_time_and_other_failures_are_not() {
        let stream = scripted([Fault::Throttled, Fault::Entries(2), Fault::Transient]);
        let (report, tried) = put_all(&stream, records(5), Deadline::after(TEN_SECONDS)).await;
        assert_eq!((report.stored.as_slice(), tried), ([Some(Place::Stream); 5].as_slice(), Tried::All));
        assert_eq!(*stream.call_sizes.borrow(), [5, 5, 3, 3]);
        assert_eq!((report.retried_entries, report.throttled_entries), (5 + 3 + 3, 5 + 3));
    }

    #[rstest]
    #[case::a_quick_failure(vec![Fault::Transient], 2, Tried::All)]
    #[case::two_quick_failures(vec![Fault::Transient, Fault::Transient], 2, Tried::Failed)]
    #[case::a_slow_failure(vec![Fault::Slow(QUICK_FAILURE + Duration::from_millis(1))], 1, Tried::Failed)]
    #[case::no_answer(vec![Fault::Hangs], 1, Tried::Failed)]
    #[case::a_quick_failure_and_no_answer(vec![Fault::Transient, Fault::Hangs], 2, Tried::Failed)]
    #[case::each_entry_failed(vec![Fault::Internal], 1, Tried::Failed)]
    #[case::refused(vec![Fault::Permanent], 1, Tried::Failed)]
    #[case::a_failure_after_throttling(vec![Fault::Throttled, Fault::Hangs], 2, Tried::Failed)]
    #[tokio::test(start_paused = true)]
    async fn a_call_that_fails_is_the_last_unless_it_fails_quickly(
        #[case] script: Vec<Fault>,
        #[case] calls: usize,
        #[case] expected: Tried,
    ) {
        let (stream, began) = (scripted(script), Instant::now());
        let (report, tried) = put_all(&stream, records(3), Deadline::after(TEN_SECONDS)).await;
        assert_eq!((tried, stream.call_sizes.borrow().len()), (expected, calls));
        assert_eq!(report.is_stored(), expected == Tried::All);
        assert!(began.elapsed() < CALL_TIMEOUT + QUICK_FAILURE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_call_counts_although_others_of_its_request_are_answered() {
        let stream = scripted([Fault::Hangs]);
        let (report, tried) = put_all(&stream, records(600), Deadline::after(TEN_SECONDS)).await;
        assert_eq!((tried, report.put_records(), stream.call_sizes.borrow().clone()), (Tried::Failed, 0, vec![500]));
        let stream = scripted([Fault::Entries(501), Fault::Hangs]);
        let (report, tried) = put_all(&stream, records(600), Deadline::after(TEN_SECONDS)).await;
        assert_eq!((tried, report.put_records()), (Tried::Failed, 499));
    }

    #[tokio::test(start_paused = true)]
    async fn without_time_nothing_hangs() {
        let stream = scripted([Fault::Hangs]);
        let (report, tried) = put_all(&stream, records(1), Deadline::after(Duration::ZERO)).await;
        assert_eq!((report.stored.as_slice(), tried), ([None].as_slice(), Tried::Partly));
        assert!(stream.call_sizes.borrow().is_empty());
    }

    #[test]
    fn calls_stand_on_the_byte_limit_and_one_past_it() {
        let sized = |bytes: usize| record(bytes - record(0).size());
        let half = MAX_PUT_RECORDS_BYTES / 2;
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
                prop_assert!(!call.is_empty() && call.len() <= MAX_PUT_RECORDS);
                prop_assert!(call.iter().map(|&index| all[index].size()).sum::<usize>() <= MAX_PUT_RECORDS_BYTES);
            }
        }
    }
}
