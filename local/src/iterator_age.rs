//! Kinesis' `GetRecords.IteratorAgeMilliseconds`: how far behind its readers are, 0 at the tip of a shard and without traffic.
//! <https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html>
//!
//! Kinesis takes the last record that a call returned. Here it is the first one: the mapping reads on when all of a batch
//! is done with, and reads the batch itself again until then. Between two reads the age grows, in the time of the clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::timestamp::UnixMillis;

use crate::clock::Clock;
use crate::metric_store::{MetricId, MetricStore};

const MINUTE_MS: i64 = 60_000;
/// How often ages are noted: each minute of the clock, within these bounds.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);

/// The real arrival of the first record that a shard's reader has not finished, by stream and shard.
type Waiting = HashMap<(String, String), UnixMillis>;

/// Notes the iterator age of each read.
#[derive(Clone)]
pub(crate) struct IteratorAges {
    waiting: Arc<Mutex<Waiting>>,
    metrics: MetricStore,
    clock: Clock,
}

impl IteratorAges {
    pub(crate) fn new(metrics: MetricStore, clock: Clock) -> Self {
        let ages = Self { waiting: Arc::default(), metrics, clock };
        tokio::spawn(ages.clone().run());
        ages
    }

    /// Notes a read that began at a real time, and when the first record that it returned arrived.
    pub(crate) fn note(&self, stream: &str, shard_id: &str, read_at: UnixMillis, first_arrival: Option<UnixMillis>) {
        let shard = (stream.to_owned(), shard_id.to_owned());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match first_arrival {
            Some(arrival) => waiting.insert(shard, arrival),
            None => waiting.remove(&shard),
        };
        drop(waiting);
        self.put(stream, read_at, first_arrival.unwrap_or(read_at));
    }

    async fn run(self) {
        let now = self.clock.now();
        let minute = self.clock.real_time(now, UnixMillis(now.0 + MINUTE_MS));
        loop {
            tokio::time::sleep(minute.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)).await;
            self.put_waiting();
        }
    }

    fn put_waiting(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((stream, _), arrival) in waiting {
            self.put(&stream, lambda_setup::now(), arrival);
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
    async fn a_shard_that_waits_ages_in_the_time_of_the_clock_and_one_that_is_read_is_at_the_tip() {
        let now = lambda_setup::now();
        let clock = Clock::new(Some("2026-11-18T00:00:00Z x60".parse().unwrap()), UnixMillis(now.0 - 600_000));
        let metrics = MetricStore::new(clock);
        let ages = IteratorAges::new(metrics.clone(), clock);
        let id = MetricId::new("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", &[("StreamName", "s")]);
        let most = || {
            let minute = crate::metric_store::minute_of(clock.now());
            let (_, minutes) = metrics.minutes(&id, minute - 5, minute + 5).unwrap();
            minutes.into_iter().map(|(_, sample)| sample.max).fold(0.0, f64::max)
        };
        ages.note("s", "shard-0", now, None);
        assert_eq!(most(), 0.0);
        ages.note("s", "shard-1", now, Some(UnixMillis(now.0 - 10_000)));
        assert_eq!(most(), 600_000.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
        ages.put_waiting();
        assert!(most() >= 603_000.0);
        ages.note("s", "shard-1", now, None);
        assert!(ages.waiting.lock().unwrap().is_empty());
    }
}
