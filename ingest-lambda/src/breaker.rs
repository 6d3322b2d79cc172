//! When Kinesis is tried at all: after a call that failed, requests go to S3 at once, and every few seconds one of them asks
//! whether Kinesis is back. Without it each request would wait until its time for Kinesis is over, and in a brown-out those
//! that wait would take all the concurrency there is.

use std::time::Duration;

use tokio::time::Instant;

/// From a failed call to the first probe, and between probes.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(3);

/// What a request may do with Kinesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Call it, and try again what fails.
    Try,
    /// Make one short call.
    Probe,
    /// Leave it alone.
    Refuse,
}

/// Closed, or open until a probe is answered.
#[derive(Debug, Default)]
pub struct Breaker {
    /// When the next probe is due; `None` while it is closed.
    next_probe: Option<Instant>,
}

impl Breaker {
    /// For a request that comes now. A probe is given to one request alone.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.next_probe {
            None => Admission::Try,
            Some(due) if now < due => Admission::Refuse,
            Some(_) => {
                self.next_probe = Some(now + PROBE_INTERVAL);
                Admission::Probe
            }
        }
    }

    /// Kinesis answered a call. Entries that it throttled are an answer.
    pub const fn answered(&mut self) {
        self.next_probe = None;
    }

    /// A call failed, or was not answered in time.
    pub fn failed(&mut self, now: Instant) {
        self.next_probe = Some(now + PROBE_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Wait(u64),
        Request,
        Answered,
        Failed,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u64..4_000).prop_map(Step::Wait),
            Just(Step::Request),
            Just(Step::Request),
            Just(Step::Answered),
            Just(Step::Failed),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn an_open_breaker_lets_one_request_through_in_each_interval_and_a_closed_one_all(steps in steps()) {
            let (mut breaker, mut now) = (Breaker::default(), Instant::now());
            // When Kinesis last failed or was probed since it last answered.
            let mut last_trouble = None;
            for step in steps {
                match step {
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Answered => {
                        breaker.answered();
                        last_trouble = None;
                    }
                    Step::Failed => {
                        breaker.failed(now);
                        last_trouble = Some(now);
                    }
                    Step::Request => {
                        let is_quiet = last_trouble.is_some_and(|last| now - last < PROBE_INTERVAL);
                        let expected = match last_trouble {
                            None => Admission::Try,
                            Some(_) if is_quiet => Admission::Refuse,
                            Some(_) => Admission::Probe,
                        };
                        prop_assert_eq!(breaker.admit(now), expected);
                        if expected == Admission::Probe {
                            last_trouble = Some(now);
                        }
                    }
                }
            }
        }
    }
}
