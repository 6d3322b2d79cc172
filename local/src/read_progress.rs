//! How far the shards have been read and landed: the mapping reads on when all of a batch is done with.
//!
//! Kinesis' `GetRecords.IteratorAgeMilliseconds` is how far behind its readers are, 0 at the tip of a shard and without traffic.
//! <https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html>
//! Kinesis takes the last record that a call returned. Here it is the first one, since the mapping reads a batch again until
//! all of it is done with. Between two reads the age grows, in the time of the clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis};

use crate::clock::Clock;
use crate::metric_store::{MetricId, MetricStore};
use crate::mutex::Mutex;

/// How often ages are noted: each minute of the clock, within these bounds.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);

/// What a shard's reader found when it last asked, in real times.
#[derive(Clone, Copy)]
struct Read {
    at: UnixMillis,
    /// When the first record arrived that is not done with, if there is one.
    first_arrival: Option<UnixMillis>,
}

/// The reads of all shards, by stream and shard, and their ages as metrics.
#[derive(Clone)]
pub(crate) struct ReadProgress {
    reads: Arc<Mutex<HashMap<(String, String), Read>>>,
    metrics: MetricStore,
    clock: Clock,
}

impl ReadProgress {
    pub(crate) fn new(metrics: MetricStore, clock: Clock) -> Self {
        let progress = Self { reads: Arc::default(), metrics, clock };
        tokio::spawn(progress.clone().run());
        progress
    }

    /// A shard will be read: until then nothing of it has landed.
    pub(crate) fn begin(&self, stream: &str, shard_id: &str) {
        self.reads
            .lock()
            .insert((stream.to_owned(), shard_id.to_owned()), Read { at: UnixMillis(0), first_arrival: None });
    }

    /// A shard has been read to its end.
    pub(crate) fn end(&self, stream: &str, shard_id: &str) {
        self.reads.lock().remove(&(stream.to_owned(), shard_id.to_owned()));
    }

    /// Notes a read that began at a real time, and when the first record that it returned arrived.
    pub(crate) fn note(&self, stream: &str, shard_id: &str, at: UnixMillis, first_arrival: Option<UnixMillis>) {
        self.reads.lock().insert((stream.to_owned(), shard_id.to_owned()), Read { at, first_arrival });
        self.put(stream, at, first_arrival.unwrap_or(at));
    }

    /// The real time up to which all that arrived has landed. `None` while no shard is read.
    pub(crate) fn landed_until(&self) -> Option<UnixMillis> {
        self.reads.lock().values().map(|read| read.first_arrival.unwrap_or(read.at)).min()
    }

    async fn run(self) {
        let now = self.clock.now();
        let minute = self.clock.real_time(now, UnixMillis(now.0 + MILLIS_PER_MINUTE));
        loop {
            tokio::time::sleep(minute.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)).await;
            self.put_waiting();
        }
    }

    fn put_waiting(&self) {
        for ((stream, _), read) in self.reads.lock().clone() {
            if let Some(arrival) = read.first_arrival {
                self.put(&stream, lambda_setup::now(), arrival);
            }
        }
    }

    fn put(&self, stream: &str, now: UnixMillis, arrival: UnixMillis) {
        let id = MetricId::new("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", &[("StreamName", stream)]);
        let at = self.clock.at(now);
        // Far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let age = at.0.saturating_sub(self.clock.at(arrival).0).max(0) as f64;
        self.metrics.note(&id, "Milliseconds", at, age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiting_shard_ages_by_the_clock_and_a_read_one_is_at_the_tip() {
        let now = lambda_setup::now();
        let clock = Clock::new(Some("2026-11-18T00:00:00Z x60".parse().unwrap()), UnixMillis(now.0 - 600_000));
        let metrics = MetricStore::new(clock);
        let progress = ReadProgress::new(metrics.clone(), clock);
        let id = MetricId::new("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", &[("StreamName", "s")]);
        let most = || {
            let minute = crate::metric_store::minute_of(clock.now());
            let (_, minutes) = metrics.minutes(&id, minute - 5, minute + 5).unwrap();
            minutes.into_iter().map(|(_, sample)| sample.max).fold(0.0, f64::max)
        };
        progress.note("s", "shard-0", now, None);
        assert_eq!(most(), 0.0);
        progress.note("s", "shard-1", now, Some(UnixMillis(now.0 - 10_000)));
        assert_eq!(most(), 600_000.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
        progress.put_waiting();
        assert!(most() >= 603_000.0);
        progress.note("s", "shard-1", now, None);
        let before = most();
        progress.put_waiting();
        assert_eq!(most(), before);
    }

    #[tokio::test]
    async fn landing_is_as_far_as_the_slowest_shard_that_has_not_ended() {
        let clock = Clock::new(None, lambda_setup::now());
        let progress = ReadProgress::new(MetricStore::new(clock), clock);
        assert_eq!(progress.landed_until(), None);
        let now = lambda_setup::now();
        progress.begin("s", "a");
        progress.note("s", "b", now, Some(UnixMillis(now.0 - 5)));
        assert_eq!(progress.landed_until(), Some(UnixMillis(0)));
        progress.note("s", "a", now, None);
        assert_eq!(progress.landed_until(), Some(UnixMillis(now.0 - 5)));
        progress.end("s", "b");
        assert_eq!(progress.landed_until(), Some(now));
    }
}
