//! Group commit: which lines of many requests share a record, when it is put on the stream, put again, or spilled. Pure: time
//! and chance are arguments. The `committer` does what [`Commits::next`] says and reports how it went.
//!
//! Lines of one kind and one bucket of keys are in one lane. A lane has one record in flight, so that its lines keep their
//! order, and no lane waits for another.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lambda_setup::deadline::backoff_ceiling;
use shared::frame::FrameWriter;
use shared::limits::{MAX_PUT_RECORDS, MAX_PUT_RECORDS_BYTES};
use shared::line::Kind;
use tokio::time::Instant;

use crate::breaker::{Admission, Breaker};
use crate::bucket::Bucket;
use crate::pack::Record;
use crate::put::{BACKOFF_BASE, BACKOFF_CAP, CALL_TIMEOUT, LEAST_RETRY_TIME, Tried};
use crate::store::PATIENCE;

/// Lines of a lane that are not held back any longer: more of them would not compress noticeably better.
const ENOUGH_BYTES: usize = 256 * 1024;
/// Bytes of lines that become one S3 object at most: compressing them takes some 0.1 s of CPU.
pub(crate) const MAX_SPILL_BYTES: usize = 1024 * 1024;
/// Full objects of one kind that are made and written at once: one is compressed while S3 answers for the others.
const MAX_SPILLS: usize = 4;
/// The age at which lines are given up for which neither Kinesis nor S3 had time: it leaves one call of S3 within [`PATIENCE`].
const MAX_WAIT: Duration = Duration::from_millis(2_200);
/// What a request's lines take in memory beside their bytes: the request itself, which waits for them.
const REQUEST_BYTES: usize = 1024;
/// What is kept of each line until its request is answered: its item's index.
const LINE_BYTES: usize = size_of::<usize>();

/// How much is held back, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long lines wait for others.
    pub interval: Duration,
    /// How long a record is tried again after its first try.
    pub kinesis_retry: Duration,
    /// Bytes of all lines that are not stored yet.
    pub max_bytes: usize,
    /// Bytes of those of one lane.
    pub max_lane_bytes: usize,
    /// Bytes of the lines of one record, unless it is a single line.
    pub max_record_bytes: usize,
    /// Bytes of the lines of one S3 object, unless it is a single record's.
    pub max_spill_bytes: usize,
}

/// There is no room for a request's lines; none of them was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes wait to be stored")]
pub struct Full;

/// A record of many requests' lines, with what tells each request.
#[derive(Debug)]
pub struct Batch<T> {
    /// Its `items` are empty: they mean nothing outside of their request.
    pub record: Record,
    /// One for each of the requests' records, in order.
    pub tickets: Vec<T>,
    /// What it counts against the limits.
    bytes: usize,
    /// When the first of its lines came.
    oldest: Instant,
    tries: u32,
    /// When it is no longer tried again; set by the first try.
    last_retry: Option<Instant>,
    /// The last error of its tries.
    pub error: Option<String>,
}

/// What is to be done now.
#[derive(Debug)]
pub enum Step<T> {
    /// Put these records in one call of that time, and then [`Commits::put`].
    Put(Vec<Batch<T>>, Duration),
    /// Write these records' lines to one object, and then [`Commits::spilled`].
    Spill(Kind, Vec<Batch<T>>),
    /// Answer that these are not stored.
    GiveUp(Vec<Batch<T>>),
    /// Nothing, until then or until [`Commits::submit`] says otherwise.
    Wait(Option<Instant>),
    /// Nothing ever again: it was closed, and all lines have their outcome.
    Done,
}

/// All lines that have no outcome yet.
#[derive(Debug)]
pub struct Commits<T> {
    limits: Limits,
    lanes: BTreeMap<(Kind, Bucket), Lane<T>>,
    spills: BTreeMap<Kind, Spills<T>>,
    breaker: Breaker,
    bytes: usize,
    closed: bool,
    /// Until when the caller of `next` sleeps.
    sleeps_until: Option<Instant>,
}

#[derive(Debug)]
struct Lane<T> {
    /// The last of them takes more lines.
    waiting: VecDeque<Batch<T>>,
    /// The record that failed, and when it is put again, before all that waits.
    retry: Option<(Batch<T>, Instant)>,
    is_in_flight: bool,
    /// Of all lines that came by this lane.
    bytes: usize,
}

#[derive(Debug)]
struct Spills<T> {
    waiting: VecDeque<Batch<T>>,
    /// Of the lines that wait.
    bytes: usize,
    in_flight: usize,
}

impl<T> Default for Spills<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, in_flight: 0 }
    }
}

impl<T> Spills<T> {
    /// While an object is in flight, what comes is collected for the next, up to a full one.
    fn is_ready(&self, limits: &Limits) -> bool {
        match self.in_flight {
            0 => !self.waiting.is_empty(),
            1..MAX_SPILLS => self.bytes >= limits.max_spill_bytes,
            _ => false,
        }
    }

    fn push(&mut self, batch: Batch<T>) {
        self.bytes += batch.record.lines_len();
        self.waiting.push_back(batch);
    }

    fn pop_if(&mut self, condition: impl Fn(&Batch<T>) -> bool) -> Option<Batch<T>> {
        let batch = self.waiting.pop_front_if(|batch| condition(batch))?;
        self.bytes -= batch.record.lines_len();
        Some(batch)
    }
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), retry: None, is_in_flight: false, bytes: 0 }
    }
}

impl<T> Batch<T> {
    fn new(record: &Record, now: Instant) -> Self {
        let record = Record::new(record.kind, record.bucket, record.data.len());
        let (tickets, bytes, tries) = (Vec::new(), 0, 0);
        Self { record, tickets, bytes, oldest: now, tries, last_retry: None, error: None }
    }

    fn has_room(&self, bytes: usize, limits: &Limits) -> bool {
        self.record.data.len() + bytes <= limits.max_record_bytes
    }

    fn append(&mut self, record: &mut Record, ticket: T) {
        let Record { data, reasons, receipts, replaced_surrogates, .. } = &mut self.record;
        self.bytes += cost(record);
        data.append(&mut record.data);
        reasons.extend(&record.reasons);
        receipts.append(&mut record.receipts);
        *replaced_surrogates += record.replaced_surrogates;
        self.tickets.push(ticket);
    }

    fn lane(&self) -> (Kind, Bucket) {
        (self.record.kind, self.record.bucket)
    }

    /// Takes the record out, to be put back into `record`.
    pub fn take_record(&mut self) -> Record {
        let empty = Record::new(self.record.kind, self.record.bucket, 0);
        std::mem::replace(&mut self.record, empty)
    }

    /// How long its first lines may still wait for their outcome.
    #[must_use]
    pub fn patience(&self) -> Duration {
        PATIENCE.saturating_sub(self.oldest.elapsed())
    }

    /// Whether it was tried before.
    #[must_use]
    pub const fn is_retry(&self) -> bool {
        self.tries > 1
    }

    /// Makes one frame of its lines, if that is smaller. A batch that is tried again is compressed already.
    pub fn compress(&mut self, frames: &mut FrameWriter) {
        if !self.is_retry() {
            self.record.compress(frames);
        }
    }
}

impl<T> Lane<T> {
    /// When something is to be put next; `None` while a record is in flight or there is nothing.
    fn due(&self, limits: &Limits, closed: bool) -> Option<Instant> {
        if self.is_in_flight {
            return None;
        }
        if let Some((_, at)) = &self.retry {
            return Some(*at);
        }
        let first = self.waiting.front()?;
        let is_enough = self.waiting.len() > 1 || first.record.data.len() >= ENOUGH_BYTES;
        Some(if is_enough || closed { first.oldest } else { first.oldest + limits.interval })
    }

    /// The next record, if it fits.
    fn pop_if(&mut self, fits: impl Fn(&Batch<T>) -> bool) -> Option<Batch<T>> {
        if self.retry.is_some() {
            return self.retry.take_if(|(batch, _)| fits(batch)).map(|(batch, _)| batch);
        }
        self.waiting.pop_front_if(|batch| fits(batch))
    }

    /// Sends a record off. It is tried again until `last_retry`, unless an earlier try said otherwise.
    fn try_put(&mut self, mut batch: Batch<T>, last_retry: Instant) -> Batch<T> {
        self.is_in_flight = true;
        batch.tries += 1;
        batch.last_retry.get_or_insert(last_retry);
        batch
    }
}

/// Records that go out together.
struct Call<T> {
    batches: Vec<Batch<T>>,
    bytes: usize,
    time_limit: Duration,
}

impl<T> Call<T> {
    fn has_room(&self, batch: &Batch<T>) -> bool {
        let bytes = self.bytes + batch.record.size();
        self.batches.is_empty() || bytes <= MAX_PUT_RECORDS_BYTES && self.batches.len() < MAX_PUT_RECORDS
    }

    fn push(&mut self, batch: Batch<T>) {
        self.bytes += batch.record.size();
        self.batches.push(batch);
    }
}

/// What a record counts against the limits.
fn cost(record: &Record) -> usize {
    record.data.len() + record.items.len() * LINE_BYTES + REQUEST_BYTES
}

impl<T> Commits<T> {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (lanes, spills, breaker) = (BTreeMap::new(), BTreeMap::new(), Breaker::default());
        Self { limits, lanes, spills, breaker, bytes: 0, closed: false, sleeps_until: None }
    }

    /// Takes all of a request's records, of which only the lines go, or none. `ticket` names a record by its index. True if
    /// `next` has more to do, or something earlier than it said.
    ///
    /// # Errors
    ///
    /// When there is no room.
    pub fn submit(
        &mut self,
        records: &mut [Record],
        now: Instant,
        mut ticket: impl FnMut(usize) -> T,
    ) -> Result<bool, Full> {
        if !self.has_room(records) {
            return Err(Full);
        }
        let mut is_earlier = false;
        for (index, record) in records.iter_mut().enumerate() {
            let lane = self.lanes.entry((record.kind, record.bucket)).or_default();
            self.bytes += cost(record);
            lane.bytes += cost(record);
            let open = lane.waiting.back().is_some_and(|batch| batch.has_room(record.data.len(), &self.limits));
            if !open {
                lane.waiting.push_back(Batch::new(record, now));
            }
            lane.waiting.back_mut().into_iter().for_each(|batch| batch.append(record, ticket(index)));
            let due = lane.due(&self.limits, self.closed);
            is_earlier |= due.is_some_and(|due| self.sleeps_until.is_none_or(|until| due < until));
        }
        if is_earlier {
            // Said once: until the next `next`, it is due at once.
            self.sleeps_until = Some(now);
        }
        Ok(is_earlier)
    }

    fn has_room(&self, records: &[Record]) -> bool {
        let total: usize = records.iter().map(cost).sum();
        let fits_lane = |record: &Record| {
            let lane = (record.kind, record.bucket);
            let of_lane = records.iter().filter(|other| (other.kind, other.bucket) == lane).map(cost).sum::<usize>();
            self.lanes.get(&lane).map_or(0, |lane| lane.bytes) + of_lane <= self.limits.max_lane_bytes
        };
        self.bytes + total <= self.limits.max_bytes && records.iter().all(fits_lane)
    }

    /// Bytes of the lines that have no outcome yet, and of their requests.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// From now on nothing is held back, and when all have their outcome it is done.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// What is to be done now. To be called again until it says to wait.
    pub fn next(&mut self, now: Instant) -> Step<T> {
        let given_up = self.given_up(now);
        if !given_up.is_empty() {
            return Step::GiveUp(given_up);
        }
        let call = self.next_call(now);
        if !call.batches.is_empty() {
            return Step::Put(call.batches, call.time_limit);
        }
        if let Some((kind, batches)) = self.next_spill() {
            return Step::Spill(kind, batches);
        }
        if self.closed && self.bytes == 0 {
            return Step::Done;
        }
        self.sleeps_until = self.next_time();
        Step::Wait(self.sleeps_until)
    }

    fn next_time(&self) -> Option<Instant> {
        let due = self.lanes.values().filter_map(|lane| lane.due(&self.limits, self.closed));
        let spills = self.spills.values().filter_map(|spills| spills.waiting.front());
        due.chain(spills.map(|batch| batch.oldest + MAX_WAIT)).min()
    }

    /// The records of one call. Those that may not be put now go to S3.
    fn next_call(&mut self, now: Instant) -> Call<T> {
        let Self { limits, lanes, spills, breaker, closed, .. } = self;
        let mut call = Call { batches: Vec::new(), bytes: 0, time_limit: CALL_TIMEOUT };
        if !lanes.values().any(|lane| lane.due(limits, *closed).is_some_and(|due| due <= now)) {
            return call;
        }
        // What would be due in a moment goes along: from there on the lanes share calls.
        let soon = now + limits.interval / 8;
        for lane in lanes.values_mut() {
            // A record that failed keeps its time: it is what keeps those that failed together from coming back together.
            let at = if lane.retry.is_some() { now } else { soon };
            while lane.due(limits, *closed).is_some_and(|due| due <= at)
                && let Some(batch) = lane.pop_if(|batch| call.has_room(batch))
            {
                match breaker.admit(now) {
                    Admission::Refuse => spills.entry(batch.record.kind).or_default().push(batch),
                    Admission::Once => call.push(lane.try_put(batch, now)),
                    Admission::Probe => {
                        call.time_limit = LEAST_RETRY_TIME;
                        call.push(lane.try_put(batch, now));
                    }
                    Admission::Retry => {
                        // What waited for the record before it has no more time than that one had.
                        let last_retry = batch.oldest + limits.interval + limits.kinesis_retry;
                        call.push(lane.try_put(batch, last_retry));
                    }
                }
            }
        }
        call
    }

    fn next_spill(&mut self) -> Option<(Kind, Vec<Batch<T>>)> {
        let limits = &self.limits;
        let (kind, spills) = self.spills.iter_mut().find(|(_, spills)| spills.is_ready(limits))?;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while let Some(batch) =
            spills.pop_if(|batch| bytes == 0 || bytes + batch.record.lines_len() <= limits.max_spill_bytes)
        {
            bytes += batch.record.lines_len();
            batches.push(batch);
        }
        spills.in_flight += 1;
        Some((*kind, batches))
    }

    /// What waited for S3 for too long.
    fn given_up(&mut self, now: Instant) -> Vec<Batch<T>> {
        let mut given_up = Vec::new();
        for spills in self.spills.values_mut() {
            while let Some(batch) = spills.pop_if(|batch| batch.oldest + MAX_WAIT <= now) {
                given_up.push(batch);
            }
        }
        given_up.iter().for_each(|batch| self.release(batch));
        given_up
    }

    /// Notes how a call went: of each of its batches whether it is stored. Gives those that are; the others are put again or
    /// spilled. `jitter` gives numbers from 0 to 1.
    pub fn put(
        &mut self,
        batches: Vec<(Batch<T>, bool)>,
        tried: Tried,
        now: Instant,
        mut jitter: impl FnMut() -> f64,
    ) -> Vec<Batch<T>> {
        let (mut stored, mut is_given_up) = (Vec::new(), false);
        for (batch, is_stored) in batches {
            if let Some(lane) = self.lanes.get_mut(&batch.lane()) {
                lane.is_in_flight = false;
            }
            if is_stored {
                self.release(&batch);
                stored.push(batch);
                continue;
            }
            let wait = backoff_ceiling(batch.tries - 1, BACKOFF_BASE, BACKOFF_CAP).mul_f64(jitter());
            let in_time = batch.last_retry.is_some_and(|last| now + wait + LEAST_RETRY_TIME <= last);
            match self.lanes.get_mut(&batch.lane()) {
                Some(lane) if tried == Tried::Partly && in_time => lane.retry = Some((batch, now + wait)),
                _ => {
                    is_given_up = true;
                    self.spills.entry(batch.record.kind).or_default().push(batch);
                }
            }
        }
        // As long as a record is tried again, it is not known how Kinesis did.
        if tried != Tried::Partly || is_given_up {
            self.breaker.note(tried, now);
        }
        stored
    }

    /// Notes that an object's lines have their outcome; in its stead Kinesis may have been asked once more.
    pub fn spilled<'b>(
        &mut self,
        kind: Kind,
        batches: impl Iterator<Item = &'b Batch<T>>,
        tried: Option<Tried>,
        now: Instant,
    ) where
        T: 'b,
    {
        batches.for_each(|batch| self.release(batch));
        self.spills.entry(kind).or_default().in_flight -= 1;
        tried.into_iter().for_each(|tried| self.breaker.note(tried, now));
    }

    fn release(&mut self, batch: &Batch<T>) {
        self.bytes -= batch.bytes;
        if let Some(lane) = self.lanes.get_mut(&batch.lane()) {
            lane.bytes -= batch.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
