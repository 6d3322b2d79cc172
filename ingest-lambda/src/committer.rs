//! Carries out what [`Commits`] decides: calls Kinesis and S3, and answers the requests that wait.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use lambda_setup::deadline::Deadline;
use shared::frame::FrameWriter;
use shared::line::Kind;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::commit::{Batch, Commits, Full, Limits, Step};
use crate::metrics;
use crate::pack::Record;
use crate::put::{CALL_TIMEOUT, Place, PutReport, RecordStream};
use crate::spill::SpillBucket;
use crate::store::{Origin, SPILL_TIME, Services};
use crate::tally::Tally;

/// Where front ends hand in records.
#[derive(Clone)]
pub struct Commit(Arc<Shared>);

struct Shared {
    commits: Mutex<Commits<Ticket>>,
    /// Fires when there is something to be done earlier than was known.
    wake: Notify,
}

/// One record of a request that waits.
#[derive(Debug)]
struct Ticket {
    request: Arc<Mutex<Option<Waiting>>>,
    index: usize,
}

/// A request that waits until each of its records has an outcome.
#[derive(Debug)]
struct Waiting {
    report: PutReport,
    pending: usize,
    done: oneshot::Sender<PutReport>,
}

impl Commit {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared { commits: Mutex::new(Commits::new(limits)), wake: Notify::new() }))
    }

    /// Hands in a request's records. What became of each is in the report, without their data. It comes whether it is waited
    /// for or not.
    ///
    /// # Errors
    ///
    /// When there is no room: a report of which nothing is stored.
    pub fn submit(&self, mut records: Vec<Record>) -> Result<oneshot::Receiver<PutReport>, PutReport> {
        let (done, report) = oneshot::channel();
        let request = Arc::default();
        let mut commits = self.0.commits();
        let ticket = |index| Ticket { request: Arc::clone(&request), index };
        match commits.submit(&mut records, Instant::now(), ticket) {
            Ok(is_earlier) => {
                let pending = records.len();
                *locked(&request) = Some(Waiting { report: PutReport::new(records), pending, done });
                drop(commits);
                if is_earlier {
                    self.0.wake.notify_one();
                }
                Ok(report)
            }
            Err(full @ Full) => Err(PutReport { last_error: Some(full.to_string()), ..PutReport::new(records) }),
        }
    }

    /// Bytes of lines that have no outcome yet, and of their requests.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.commits().bytes()
    }

    /// No more records will be handed in: those that are here are stored at once, and then [`Committer::run`] ends.
    pub fn close(&self) {
        self.0.commits().close();
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn commits(&self) -> MutexGuard<'_, Commits<Ticket>> {
        locked(&self.commits)
    }
}

/// Nothing in between can panic half way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores what is handed in to its [`Commit`].
pub struct Committer<S, B> {
    shared: Arc<Shared>,
    services: Services<S, B>,
    /// `None` where records are not compressed. Nothing waits while it is borrowed.
    frames: Option<RefCell<FrameWriter>>,
    tally: Arc<Tally>,
    /// Of this process: what wrote a spilled object.
    name: String,
}

impl<S: RecordStream, B: SpillBucket> Committer<S, B> {
    pub fn new(
        commit: &Commit,
        services: Services<S, B>,
        frames: Option<FrameWriter>,
        (name, tally): (String, Arc<Tally>),
    ) -> Self {
        Self { shared: commit.0.clone(), services, frames: frames.map(RefCell::new), tally, name }
    }

    /// Runs until its [`Commit`] is closed and all records have their outcome.
    pub async fn run(self) {
        let mut work = FuturesUnordered::new();
        loop {
            let step = self.shared.commits().next(Instant::now());
            match step {
                Step::Put(batches, time_limit) => work.push(self.work(Work::Put(batches, time_limit))),
                Step::Spill(kind, batches) => work.push(self.work(Work::Spill(kind, batches))),
                Step::GiveUp(batches) => settle(batches, None),
                Step::Done => return,
                Step::Wait(until) => {
                    let until = until.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
                    tokio::select! {
                        Some(()) = work.next() => {}
                        () = self.shared.wake.notified() => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
            }
        }
    }

    async fn work(&self, work: Work) {
        match work {
            Work::Put(batches, time_limit) => self.put(batches, time_limit).await,
            Work::Spill(kind, batches) => self.spill(kind, batches).await,
        }
    }

    async fn put(&self, mut batches: Vec<Batch<Ticket>>, time_limit: Duration) {
        if let Some(frames) = &self.frames {
            batches.iter_mut().for_each(|batch| batch.compress(&mut frames.borrow_mut()));
        }
        let mut report = PutReport::new(batches.iter_mut().map(Batch::take_record).collect());
        report.retried_entries = batches.iter().filter(|batch| batch.is_retry()).count() as u64;
        let tried = report.put_once(&self.services.stream, Deadline::after(time_limit)).await;
        self.count(&report);
        let outcomes = outcomes(batches, report);
        let outcomes = outcomes.map(|(batch, place)| (batch, place.is_some())).collect();
        let stored = self.shared.commits().put(outcomes, tried, Instant::now(), rand::random::<f64>);
        settle(stored, Some(Place::Stream));
    }

    async fn spill(&self, kind: Kind, mut batches: Vec<Batch<Ticket>>) {
        let mut report = PutReport::new(batches.iter_mut().map(Batch::take_record).collect());
        report.last_error = batches.iter_mut().rev().find_map(|batch| batch.error.take());
        let patience = batches.iter().map(Batch::patience).min().unwrap_or_default();
        // Half of the time for compression, which needs little of it.
        let (deadline, s3_time) = (Deadline::after(patience), SPILL_TIME.min(patience / 2));
        self.services.spill(&mut report, Origin { request_id: &self.name, deadline }, s3_time, true).await;
        let mut tried = None;
        if !report.is_stored() {
            tried = self.services.put_at_last(&mut report, deadline.within(CALL_TIMEOUT)).await;
        }
        self.count(&report);
        let mut settled: Vec<_> = outcomes(batches, report).collect();
        self.shared.commits().spilled(kind, settled.iter().map(|(batch, _)| batch), tried, Instant::now());
        for place in [Some(Place::Spilled), Some(Place::Stream), None] {
            settle(settled.extract_if(.., |(_, of)| *of == place).map(|(batch, _)| batch).collect(), place);
        }
    }

    /// Counts what was put, in the minute in which the first line of it was received.
    fn count(&self, report: &PutReport) {
        let values: Vec<_> = metrics::of_puts(report).collect();
        let received_at = report.records.iter().find_map(|record| record.receipts.first());
        if let Some((at, _)) = received_at.filter(|_| !values.is_empty()) {
            self.tally.add(*at, None, &values);
        }
    }
}

/// What runs beside each other.
enum Work {
    Put(Vec<Batch<Ticket>>, Duration),
    Spill(Kind, Vec<Batch<Ticket>>),
}

/// Gives batches their records back, each with where it is stored.
fn outcomes(batches: Vec<Batch<Ticket>>, report: PutReport) -> impl Iterator<Item = (Batch<Ticket>, Option<Place>)> {
    let PutReport { records, stored, last_error, .. } = report;
    batches.into_iter().zip(records).zip(stored).map(move |((mut batch, record), place)| {
        batch.record = record;
        batch.error = if place.is_none() { last_error.clone() } else { None };
        (batch, place)
    })
}

/// Gives their outcome to the requests whose lines these are, and answers those that wait for nothing else.
fn settle(batches: Vec<Batch<Ticket>>, place: Option<Place>) {
    if let (None, Some(Batch { error: reason, .. })) = (place, batches.last()) {
        let lines: usize = batches.iter().flat_map(|batch| &batch.record.receipts).map(|(_, lines)| lines).sum();
        tracing::error!(lines, reason, "neither Kinesis nor S3 took these lines; the answers name them");
    }
    for batch in batches {
        for Ticket { request, index } in batch.tickets {
            let mut request = locked(&request);
            if let Some(waiting) = request.as_mut() {
                waiting.report.stored[index] = place;
                waiting.pending -= 1;
            }
            if let Some(waiting) = request.take_if(|waiting| waiting.pending == 0)
                && waiting.done.send(waiting.report).is_err()
            {
                tracing::debug!("a request ended before its lines were stored");
            }
        }
    }
}

#[cfg(test)]
mod tests;
