//! What a request may ask of Kinesis, by how Kinesis did before. While it is away, requests go to S3 at once, and now and then
//! one of them probes whether it is back; while a shard is throttled, nothing waits for that shard. Otherwise each request
//! would wait until its own time is over, and those that wait would take all the concurrency there is.

use std::time::Duration;

use lambda_setup::deadline::backoff_ceiling;
use tokio::time::Instant;

use crate::put::Tried;

/// From a failed call to the first probe; and for how long nothing waits for a throttled shard.
pub const INTERVAL: Duration = Duration::from_secs(3);
/// The longest time between probes, which doubles from one to the next: a probe of little data may cost its request 0.35 s.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(30);

/// What a request may ask of Kinesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// To take the records, and to be tried again with those that it throttles.
    Retry,
    /// To take the records, once.
    Once,
    /// To take the records, once, and soon: Kinesis was away, and a player waits for the answer.
    Probe,
    /// Nothing.
    Refuse,
}

/// A circuit breaker with a state of its own for throttling, where Kinesis is there but some of its shards are full.
#[derive(Debug, Default)]
pub enum Breaker {
    #[default]
    Closed,
    /// Entries were throttled for as long as a request could wait.
    Throttled { until: Instant },
    /// A call failed, and since then no probe was answered.
    Open { probes: u32, next_probe: Instant },
}

impl Breaker {
    /// For a request that comes now. Of those that come while a probe is due, the first alone is the probe.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match *self {
            Self::Throttled { until } if now < until => Admission::Once,
            Self::Closed | Self::Throttled { .. } => Admission::Retry,
            Self::Open { next_probe, .. } if now < next_probe => Admission::Refuse,
            Self::Open { probes, .. } => {
                *self = Self::open(probes + 1, now);
                Admission::Probe
            }
        }
    }

    /// Notes how Kinesis did just now.
    pub fn note(&mut self, tried: Tried, now: Instant) {
        match (tried, &self) {
            // One that is open stays as its last probe left it; that other shards have room empties no full one.
            (Tried::Failed, Self::Open { .. }) | (Tried::All, Self::Throttled { .. }) => {}
            (Tried::Failed, _) => *self = Self::open(0, now),
            (Tried::Partly, _) => *self = Self::Throttled { until: now + INTERVAL },
            (Tried::All, _) => *self = Self::Closed,
        }
    }

    fn open(probes: u32, now: Instant) -> Self {
        Self::Open { probes, next_probe: now + backoff_ceiling(probes, INTERVAL, LONGEST_INTERVAL) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn while_kinesis_is_away_probes_come_ever_less_often() {
        let (mut breaker, began) = (Breaker::default(), Instant::now());
        breaker.note(Tried::Failed, began);
        let mut probes = Vec::new();
        for second in 0..120 {
            if breaker.admit(began + SECOND * second) == Admission::Probe {
                probes.push(second);
                breaker.note(Tried::Failed, began + SECOND * second);
            }
        }
        assert_eq!(probes, [3, 9, 21, 45, 75, 105]);
    }

    #[test]
    fn the_first_probe_that_is_answered_closes_it_and_the_next_outage_is_probed_as_soon_as_the_first() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..2 {
            breaker.note(Tried::Failed, now);
            now += INTERVAL;
            assert_eq!((breaker.admit(now), breaker.admit(now)), (Admission::Probe, Admission::Refuse));
            breaker.note(Tried::All, now);
            assert_eq!(breaker.admit(now), Admission::Retry);
        }
    }

    #[test]
    fn while_a_shard_is_throttled_each_request_has_one_try_until_the_interval_is_over() {
        let (mut breaker, began) = (Breaker::default(), Instant::now());
        breaker.note(Tried::Partly, began);
        breaker.note(Tried::All, began);
        let later = [Duration::ZERO, INTERVAL - SECOND / 1000, INTERVAL];
        assert_eq!(
            later.map(|later| breaker.admit(began + later)),
            [Admission::Once, Admission::Once, Admission::Retry]
        );
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Wait(u64),
        Request(Tried),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let tried = || prop_oneof![Just(Tried::All), Just(Tried::Partly), Just(Tried::Failed)];
        prop::collection::vec(prop_oneof![(0u64..9_000).prop_map(Step::Wait), tried().prop_map(Step::Request)], 0..60)
    }

    proptest! {
        /// Whatever Kinesis does: nothing asks it within the interval after a failure, nothing waits for it within the interval
        /// after throttling, and it is never left alone for longer than the longest interval.
        #[test]
        fn trouble_costs_one_request_an_interval_and_kinesis_is_never_given_up(steps in steps()) {
            let (mut breaker, mut now) = (Breaker::default(), Instant::now());
            let (mut failed, mut throttled, mut asked) = (None, None, now);
            let within = |since: Option<Instant>, now: Instant| since.is_some_and(|since| now - since < INTERVAL);
            for step in steps {
                match step {
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Request(tried) => {
                        let admission = breaker.admit(now);
                        prop_assert!(!within(failed, now) || admission == Admission::Refuse);
                        prop_assert!(!within(throttled, now) || admission != Admission::Retry);
                        if admission == Admission::Refuse {
                            prop_assert!(now - asked < LONGEST_INTERVAL);
                            continue;
                        }
                        breaker.note(tried, now);
                        asked = now;
                        failed = (tried == Tried::Failed).then_some(now);
                        throttled = if tried == Tried::Partly { Some(now) } else { throttled.filter(|_| tried == Tried::All) };
                    }
                }
            }
        }
    }
}
