//! How many events a second a key may bring: a token bucket that may go into debt.

use std::num::NonZeroU32;

use shared::timestamp::UnixMillis;

/// A clock that goes back by less than this is not one that was set: requests are looked at in another order than they came in.
const REORDERED_MILLIS: i64 = 10_000;

/// What one key may still bring. A request's events are known only once it is read, so one is let in as long as something is left,
/// and what it brings beyond that is paid back before the next one: over time the rate holds, whatever a request's size.
#[derive(Debug)]
pub struct Allowance {
    per_second: NonZeroU32,
    /// In thousandths of an event: so many of them come back in a millisecond as events in a second.
    left: i64,
    at: UnixMillis,
}

/// Nothing is left for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// At least 1.
    pub seconds: u64,
}

impl Allowance {
    /// With a second's events, which are never exceeded however long nothing comes.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, left: most(per_second), at: UnixMillis(i64::MIN) }
    }

    /// Whether a request that was received at `at` is let in.
    ///
    /// # Errors
    ///
    /// While nothing is left.
    pub fn admit(&mut self, at: UnixMillis) -> Result<(), Exhausted> {
        self.refill(at);
        if self.left > 0 {
            return Ok(());
        }
        let millis = self.left.unsigned_abs() / u64::from(self.per_second.get()) + 1;
        Err(Exhausted { seconds: millis.div_ceil(1_000) })
    }

    /// Takes what a request that was let in has brought.
    pub fn charge(&mut self, events: usize) {
        let thousandths = i64::try_from(events).unwrap_or(i64::MAX).saturating_mul(1_000);
        self.left = self.left.saturating_sub(thousandths);
    }

    fn refill(&mut self, at: UnixMillis) {
        let millis = at.0.saturating_sub(self.at.0);
        if millis <= -REORDERED_MILLIS {
            self.at = at;
        }
        if millis > 0 {
            let more = millis.saturating_mul(i64::from(self.per_second.get()));
            (self.left, self.at) = (self.left.saturating_add(more).min(most(self.per_second)), at);
        }
    }
}

fn most(per_second: NonZeroU32) -> i64 {
    i64::from(per_second.get()) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allowance(per_second: u32) -> Allowance {
        Allowance::new(NonZeroU32::new(per_second).unwrap())
    }

    const NOW: i64 = 1_795_253_520_000;

    #[test]
    fn a_second_of_events_may_come_at_once_and_a_large_request_is_paid_back() {
        let mut allowance = allowance(100);
        for _ in 0..100 {
            assert_eq!(allowance.admit(UnixMillis(NOW)), Ok(()));
            allowance.charge(1);
        }
        assert_eq!(allowance.admit(UnixMillis(NOW)), Err(Exhausted { seconds: 1 }));
        assert_eq!(allowance.admit(UnixMillis(NOW + 10)), Ok(()));
        allowance.charge(10_000);
        assert_eq!(allowance.admit(UnixMillis(NOW + 10)), Err(Exhausted { seconds: 100 }));
        assert!(allowance.admit(UnixMillis(NOW + 10 + 99_990)).is_err());
        assert_eq!(allowance.admit(UnixMillis(NOW + 10 + 99_991)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_shut_a_key_out() {
        let mut allowance = allowance(10);
        allowance.admit(UnixMillis(NOW)).unwrap();
        allowance.charge(20);
        let back = NOW - 3_600_000;
        assert_eq!(allowance.admit(UnixMillis(back)), Err(Exhausted { seconds: 2 }));
        assert_eq!(allowance.admit(UnixMillis(back + 1_001)), Ok(()));
    }

    proptest! {
        /// However requests come, what is let in is no more than the rate allows, but for the first second's and the last request's.
        #[test]
        fn the_mean_holds(
            per_second in 1..5_000u32, requests in prop::collection::vec((-9_000..2_000i64, 1..10_000usize), 1..200),
        ) {
            let (mut allowance, mut events, mut last) = (allowance(per_second), 0u64, 0);
            prop_assert!(allowance.admit(UnixMillis(NOW)).is_ok());
            let (mut at, mut newest) = (NOW, NOW);
            for (later, brought) in requests {
                at = (newest + later).max(at - 9_000).max(newest - 9_000);
                newest = newest.max(at);
                if allowance.admit(UnixMillis(at)).is_ok() {
                    allowance.charge(brought);
                    (events, last) = (events + brought as u64, brought as u64);
                }
            }
            let allowed = u64::from(per_second) * (newest - NOW + 1_000) as u64;
            prop_assert!((events - last) * 1_000 <= allowed, "{} events in {} ms", events, newest - NOW);
        }

        /// Who waits as long as is said is let in, and not much sooner.
        #[test]
        fn who_waits_as_long_as_is_said_is_let_in(per_second in 1..2_000_000u32, brought in 1..20_000usize) {
            let mut allowance = allowance(per_second);
            prop_assert!(allowance.admit(UnixMillis(NOW)).is_ok());
            allowance.charge(brought);
            if let Err(Exhausted { seconds }) = allowance.admit(UnixMillis(NOW)) {
                let millis = seconds as i64 * 1_000;
                prop_assert!(seconds == 1 || allowance.admit(UnixMillis(NOW + millis - 1_000)).is_err());
                prop_assert!(allowance.admit(UnixMillis(NOW + millis)).is_ok());
            }
        }

        #[test]
        fn no_time_and_no_count_overflows(steps in prop::collection::vec((any::<i64>(), any::<usize>()), 0..50), per_second in 1..=u32::MAX) {
            let mut allowance = allowance(per_second);
            for (at, events) in steps {
                if let Err(Exhausted { seconds }) = allowance.admit(UnixMillis(at)) {
                    prop_assert!(seconds >= 1);
                }
                allowance.charge(events);
            }
        }
    }
}
