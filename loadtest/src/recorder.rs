//! Counts and histograms of a run while it goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{Counter, CreationError, Histogram};

use crate::answer::Account;
use crate::result::{Distribution, Events, Generator, Plan, Posts, RunResult, Second, VERSION, Verdict};
use crate::send_error::SendError;

/// Times are kept up to an hour, in microseconds, with three significant digits; what takes longer counts as an hour.
const LONGEST_US: u64 = 3_600 * 1_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// 30 hours at most are kept apart by the second. What comes later counts for the last.
const MAX_SECONDS: usize = 30 * 3_600;

/// What became of a POST.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Answered {
        status: u16,
        account: Account,
    },
    /// In a word.
    Unanswered {
        why: &'static str,
        account: Account,
    },
}

/// Times of one POST, each from the start of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) planned: Duration,
    /// When it was given to an open connection; `None` if it never was.
    pub(crate) left: Option<Duration>,
    pub(crate) ended: Duration,
}

/// For the display: totals, and the latency of what was answered since the last look.
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
    posts: Posts,
    events: Events,
    pub(crate) held_back: u64,
    /// POSTs that left, and those of them that did when the run should have been over.
    sent: u64,
    sent_after_end: u64,
    answered: u64,
    ended: u64,
    latency: Histogram<u64>,
    service_time: Histogram<u64>,
    lag: Histogram<u64>,
    since_last_look: Histogram<u32>,
    seconds: Vec<Second>,
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
            posts: Posts::default(),
            events: Events::default(),
            held_back: 0,
            sent: 0,
            sent_after_end: 0,
            answered: 0,
            ended: 0,
            latency: histogram()?,
            service_time: histogram()?,
            lag: histogram()?,
            since_last_look: histogram()?,
            seconds: Vec::new(),
            open: BTreeMap::new(),
            ends,
        })
    }

    /// The generator turned to a POST, this long after its time.
    pub(crate) fn turned_to(
        &mut self,
        planned: Duration,
        lag: Duration,
        pieces: u64,
        body_bytes: u64,
    ) -> Result<(), CreationError> {
        self.posts.planned += 1;
        self.events.sent += pieces;
        self.events.body_bytes += body_bytes;
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
    pub(crate) fn left(&mut self, at: Duration) {
        self.sent += 1;
        self.sent_after_end += u64::from(at > self.ends);
        self.second(place(at)).sent += 1;
    }

    pub(crate) fn ended(&mut self, times: Times, outcome: Outcome) {
        self.ended += 1;
        let (account, has_latency) = match outcome {
            Outcome::Answered { status, account } => {
                self.answered += 1;
                self.second(place(times.ended)).answered += 1;
                match account.as_expected {
                    true => self.posts.as_expected += 1,
                    false => *self.posts.unexpected.entry(status).or_default() += 1,
                }
                (account, true)
            }
            Outcome::Unanswered { why, account } => {
                *self.posts.unanswered.entry(why.to_owned()).or_default() += 1;
                (account, why == SendError::TIMEOUT)
            }
        };
        self.count(account);
        let planned = place(times.planned);
        let second = self.second(planned);
        second.errors += u64::from(!account.as_expected);
        second.accepted_events += account.accepted;
        if has_latency {
            self.record_latency(planned, times);
        }
        if let Some(open) = self.open.get_mut(&planned) {
            open.pending -= 1;
        }
    }

    fn count(&mut self, account: Account) {
        self.events.accepted += account.accepted;
        self.events.rejected += account.rejected;
        self.events.not_stored += account.not_stored;
        self.events.unknown += account.unknown;
    }

    fn record_latency(&mut self, planned: usize, times: Times) {
        let latency = micros(times.ended.saturating_sub(times.planned));
        self.latency.saturating_record(latency);
        self.since_last_look.saturating_record(latency);
        if let Some(left) = times.left {
            self.service_time.saturating_record(micros(times.ended.saturating_sub(left)));
        }
        if let Some(open) = self.open.get_mut(&planned) {
            open.latency.saturating_record(latency);
        }
    }

    fn second(&mut self, place: usize) -> &mut Second {
        if self.seconds.len() <= place {
            self.seconds.resize_with(place + 1, Second::default);
        }
        &mut self.seconds[place]
    }

    /// Histograms take a hundred kilobytes each: those of seconds that are over become percentiles.
    fn close_before(&mut self, end: usize) {
        let done = self.open.range(..end).filter(|(_, open)| open.pending == 0);
        for place in done.map(|(place, _)| *place).collect::<Vec<_>>() {
            self.close(place);
        }
    }

    fn close(&mut self, place: usize) {
        let Some(OpenSecond { latency, lag, .. }) = self.open.remove(&place) else { return };
        let second = self.second(place);
        second.p50_us = latency.value_at_quantile(0.5);
        second.p90_us = latency.value_at_quantile(0.9);
        second.p99_us = latency.value_at_quantile(0.99);
        second.p99_9_us = latency.value_at_quantile(0.999);
        second.max_us = latency.max();
        second.lag_p99_us = lag.value_at_quantile(0.99);
    }

    /// POSTs that the generator turned to and that have no outcome yet.
    pub(crate) fn pending(&self) -> u64 {
        self.posts.planned - self.ended
    }

    pub(crate) fn look(&mut self) -> Live {
        let p99_us = self.since_last_look.value_at_quantile(0.99);
        self.since_last_look.reset();
        let (planned, errors) = (self.posts.planned, self.posts.errors());
        Live { planned, sent: self.sent, answered: self.answered, errors, p99_us }
    }

    /// What was recorded, as a result without all else.
    pub(crate) fn finish(mut self, plan: Plan) -> RunResult {
        for place in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(place);
        }
        RunResult {
            version: VERSION,
            plan,
            started_unix_ms: 0,
            posts: self.posts,
            events: self.events,
            latency: Distribution::from(&self.latency),
            service_time: Distribution::from(&self.service_time),
            generator: Generator {
                lag: Distribution::from(&self.lag),
                held_back: self.held_back,
                sent_after_end: self.sent_after_end,
                ..Generator::default()
            },
            seconds: self.seconds,
            truth: None,
            system_metrics: Vec::new(),
            verdict: Verdict::default(),
        }
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
