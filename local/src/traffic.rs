//! A line on the terminal while there is traffic: `12:03:07 1,234 events/s, 12 files, lag 0.8 s`.
//!
//! It reads what is counted anyway. `lag` is how long the oldest record on the streams has waited to land, in the stack's time.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shared::metric::{Metric, NAMESPACE};
use shared::timestamp::UnixMillis;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::event_source_mapping::Phase;
use crate::metric_store::{MetricId, MetricStore};
use crate::read_progress::ReadProgress;

/// How often a person sees a line, and how often a file or a pipe gets one.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Where the number of accepted events is found.
pub(crate) enum Accepted {
    /// What the front door counts as it answers.
    Answered(Arc<AtomicU64>),
    /// What this function counts, some ten seconds later.
    Counted(String),
}

pub(crate) struct Traffic {
    accepted: Accepted,
    /// The functions that land.
    landing: Vec<String>,
    metrics: MetricStore,
    progress: ReadProgress,
    clock: Clock,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Count {
    events: f64,
    files: f64,
}

impl Traffic {
    pub(crate) fn new(
        accepted: Accepted,
        landing: Vec<String>,
        (metrics, progress, clock): (MetricStore, ReadProgress, Clock),
    ) -> Self {
        Self { accepted, landing, metrics, progress, clock }
    }

    /// Says what goes on until the stack drains; nothing while nothing does.
    pub(crate) async fn run(self, mut phase: watch::Receiver<Phase>) {
        let interval = if io::stdout().is_terminal() { INTERVALS.0 } else { INTERVALS.1 };
        let (mut before, mut at) = (self.count(), Instant::now());
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                // A stack that is gone drains too.
                _ = phase.wait_for(|phase| *phase == Phase::Draining) => return,
            }
            let now = self.count();
            if now != before {
                let lag = self.progress.landed_until().map(|until| self.clock.age(until)).unwrap_or_default();
                let line = line(self.clock.now(), since(before, now), at.elapsed(), lag);
                if let Err(problem) = writeln!(io::stdout(), "{line}") {
                    tracing::debug!(%problem, "nobody reads standard output");
                }
            }
            (before, at) = (now, Instant::now());
        }
    }

    fn count(&self) -> Count {
        let total = |metric: Metric, function: &str| {
            self.metrics.total(&MetricId::new(NAMESPACE, metric.as_str(), &[("FunctionName", function)]))
        };
        #[allow(clippy::cast_precision_loss)]
        let events = match &self.accepted {
            Accepted::Answered(events) => events.load(Ordering::Relaxed) as f64,
            Accepted::Counted(function) => total(Metric::AcceptedEvents, function),
        };
        let files = self.landing.iter().map(|function| total(Metric::LandedObjects, function)).sum();
        Count { events, files }
    }
}

fn since(before: Count, now: Count) -> Count {
    Count { events: now.events - before.events, files: now.files - before.files }
}

fn line(at: UnixMillis, count: Count, elapsed: Duration, lag: Duration) -> String {
    let rate = grouped(count.events / elapsed.as_secs_f64().max(0.001));
    let (files, lag) = (grouped(count.files), lag.as_secs_f64());
    format!("{} {rate} events/s, {files} files, lag {lag:.1} s", &at.rfc3339()[11..19])
}

/// A whole number with commas: `1,234,567`.
fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_line_says_rate_files_and_lag() {
        let at = UnixMillis::parse("2026-11-21T12:03:07.006Z").unwrap();
        let count = Count { events: 12_340.0, files: 12.0 };
        let line = line(at, count, Duration::from_secs(10), Duration::from_millis(830));
        assert_eq!(line, "12:03:07 1,234 events/s, 12 files, lag 0.8 s");
    }

    #[rstest]
    #[case(0.0, "0")]
    #[case(999.4, "999")]
    #[case(1_000.0, "1,000")]
    #[case(1_234_567.0, "1,234,567")]
    fn numbers_have_commas(#[case] number: f64, #[case] expected: &str) {
        assert_eq!(grouped(number), expected);
    }
}
