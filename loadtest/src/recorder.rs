//! Counts and histograms of a run while it goes on.

use std::collections::BTreeMap;
use std::mem::take;
use std::time::Duration;

use hdrhistogram::{Counter, CreationError, Histogram};

use crate::answer::Account;
use crate::result::{Distribution, Plan, RunResult, Second, VERSION};
use crate::send_error::SendError;

/// Times are kept up to an hour, in microseconds, with three significant digits; what takes longer counts as an hour.
const LONGEST_US: u64 = 3_600 * 1_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// Seconds that are counted apart: 30 hours. Anything later counts for the last one.
const MAX_SECONDS: usize = 30 * 3_600;

/// Times of one POST, each from the start of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) planned: Duration,
    /// When it was given to an open connection; `None` if it never was.
    pub(crate) sent_at: Option<Duration>,
    pub(crate) ended: Duration,
}

/// For the display: totals, and the latency of what was answered since the last snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) planned: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) p99_us: u64,
}

#[derive(Debug)]
pub(crate) struct Recorder {
    /// Counts, where they will be written.
    pub(crate) result: RunResult,
    sent: u64,
    answered: u64,
    ended: u64,
    latency: Histogram<u64>,
    service_time: Histogram<u64>,
    lag: Histogram<u64>,
    since_last_snapshot: Histogram<u32>,
    /// Seconds that are not over, or have POSTs without an outcome.
    open: BTreeMap<usize, OpenSecond>,
    /// When the last POST must have left.
    ends: Duration,
}

#[derive(Debug)]
struct OpenSecond {
    latency: Histogram<u32>,
    lag: Histogram<u32>,
    pending: u64,
}

impl Recorder {
    /// `ends` is when the last POST must have left, from the start.
    pub(crate) fn new(ends: Duration) -> Result<Self, CreationError> {
        Ok(Self {
            result: RunResult { version: VERSION, ..RunResult::default() },
            sent: 0,
            answered: 0,
            ended: 0,
            latency: histogram()?,
            service_time: histogram()?,
            lag: histogram()?,
            since_last_snapshot: histogram()?,
            open: BTreeMap::new(),
            ends,
        })
    }

    /// The generator starts on a POST, this long after its planned time.
    pub(crate) fn record_start(
        &mut self,
        planned: Duration,
        lag: Duration,
        pieces: u64,
        body_bytes: u64,
    ) -> Result<(), CreationError> {
        self.result.posts.planned += 1;
        self.result.events.sent += pieces;
        self.result.events.body_bytes += body_bytes;
        self.lag.saturating_record(micros(lag));
        let place = place(planned);
        self.second(place).planned += 1;
        if !self.open.contains_key(&place) {
            self.close_before(place);
            self.open.insert(place, OpenSecond { latency: histogram()?, lag: histogram()?, pending: 0 });
        }
        if let Some(open) = self.open.get_mut(&place) {
            open.pending += 1;
            open.lag.saturating_record(micros(lag));
        }
        Ok(())
    }

    /// A POST was given to an open connection.
    pub(crate) fn record_sent(&mut self, at: Duration) {
        self.sent += 1;
        self.result.generator.sent_after_end += u64::from(at > self.ends);
        self.second(place(at)).sent += 1;
    }

    /// A POST was answered with a status, or failed for a reason in a word.
    pub(crate) fn record_outcome(&mut self, times: Times, answer: Result<u16, &'static str>, account: Account) {
        self.ended += 1;
        let posts = &mut self.result.posts;
        match answer {
            Ok(_) if account.as_expected => posts.as_expected += 1,
            Ok(status) => *posts.unexpected.entry(status).or_default() += 1,
            Err(why) => *posts.unanswered.entry(why.to_owned()).or_default() += 1,
        }
        if answer.is_ok() {
            self.answered += 1;
            self.second(place(times.ended)).answered += 1;
        }
        let events = &mut self.result.events;
        events.accepted += account.accepted;
        events.rejected += account.rejected;
        events.not_stored += account.not_stored;
        events.unknown += account.unknown;
        let planned = place(times.planned);
        let second = self.second(planned);
        second.errors += u64::from(!account.as_expected);
        second.accepted_events += account.accepted;
        if answer.is_ok() || answer == Err(SendError::TIMEOUT) {
            self.record_latency(planned, times);
        }
        if let Some(open) = self.open.get_mut(&planned) {
            open.pending -= 1;
        }
    }

    fn record_latency(&mut self, planned: usize, times: Times) {
        let latency = micros(times.ended.saturating_sub(times.planned));
        self.latency.saturating_record(latency);
        self.since_last_snapshot.saturating_record(latency);
        if let Some(sent_at) = times.sent_at {
            self.service_time.saturating_record(micros(times.ended.saturating_sub(sent_at)));
        }
        if let Some(open) = self.open.get_mut(&planned) {
            open.latency.saturating_record(latency);
        }
    }

    fn second(&mut self, place: usize) -> &mut Second {
        let seconds = &mut self.result.seconds;
        if seconds.len() <= place {
            seconds.resize_with(place + 1, Second::default);
        }
        &mut seconds[place]
    }

    /// Histograms take a hundred kilobytes each: those of seconds that are over become percentiles.
    fn close_before(&mut self, end: usize) {
        for (place, OpenSecond { latency, lag, .. }) in self.open.extract_if(..end, |_, open| open.pending == 0) {
            let second = &mut self.result.seconds[place];
            second.p50_us = latency.value_at_quantile(0.5);
            second.p90_us = latency.value_at_quantile(0.9);
            second.p99_us = latency.value_at_quantile(0.99);
            second.p99_9_us = latency.value_at_quantile(0.999);
            second.max_us = latency.max();
            second.lag_p99_us = lag.value_at_quantile(0.99);
        }
    }

    /// POSTs that the generator turned to and that have no outcome yet.
    pub(crate) fn pending(&self) -> u64 {
        self.result.posts.planned - self.ended
    }

    pub(crate) fn snapshot(&mut self) -> Live {
        let p99_us = self.since_last_snapshot.value_at_quantile(0.99);
        self.since_last_snapshot.reset();
        let (planned, errors) = (self.result.posts.planned, self.result.posts.errors());
        Live { planned, sent: self.sent, answered: self.answered, errors, p99_us }
    }

    /// The result so far. Every POST must have its outcome.
    pub(crate) fn finish(&mut self, plan: Plan) -> RunResult {
        self.close_before(MAX_SECONDS);
        let mut result = take(&mut self.result);
        result.plan = plan;
        result.latency = Distribution::from(&self.latency);
        result.service_time = Distribution::from(&self.service_time);
        result.generator.lag = Distribution::from(&self.lag);
        result
    }
}

fn histogram<C: Counter>() -> Result<Histogram<C>, CreationError> {
    Histogram::new_with_bounds(1, LONGEST_US, SIGNIFICANT_DIGITS)
}

fn place(time: Duration) -> usize {
    usize::try_from(time.as_secs()).unwrap_or(usize::MAX).min(MAX_SECONDS - 1)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
