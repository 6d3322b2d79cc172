//! The time that an invocation may still use: all that Lambda gives, less what it takes to answer.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The moment by which work must end so that there is still time to answer.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
}

/// The deadline came before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the invocation's time ran out")]
pub struct TimeIsUp;

impl Deadline {
    /// From the invocation's end, in milliseconds since 1970 (`Lambda-Runtime-Deadline-Ms`), less the time in hand.
    #[must_use]
    pub fn before(end_unix_ms: u64, in_hand: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_millis(end_unix_ms).saturating_sub(now).saturating_sub(in_hand);
        Self::after(left)
    }

    /// As [`Self::before`], but of an invocation with less than twice the time in hand, half of what is left.
    #[must_use]
    pub fn reserving(end_unix_ms: u64, in_hand: Duration) -> Self {
        let left = Self::before(end_unix_ms, Duration::ZERO).remaining();
        Self::after(left.saturating_sub(in_hand.min(left / 2)))
    }

    /// A deadline that much later than now.
    #[must_use]
    pub fn after(left: Duration) -> Self {
        Self { at: Instant::now() + left }
    }

    /// This one, or so much later than now, whichever comes first.
    #[must_use]
    pub fn within(self, left: Duration) -> Self {
        Self { at: self.at.min(Instant::now() + left) }
    }

    /// The time that is left; zero once it is over.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Runs `work` for `at_most` that long and never past the deadline.
    ///
    /// # Errors
    ///
    /// When the time was up first. What `work` had begun may still take effect elsewhere.
    pub async fn bound<T>(self, at_most: Duration, work: impl Future<Output = T>) -> Result<T, TimeIsUp> {
        tokio::time::timeout(at_most.min(self.remaining()), work).await.map_err(|_| TimeIsUp)
    }

    /// Sleeps, unless the deadline would pass meanwhile.
    ///
    /// # Errors
    ///
    /// At once, when the deadline comes before the end of the sleep.
    pub async fn sleep(self, duration: Duration) -> Result<(), TimeIsUp> {
        if duration >= self.remaining() {
            return Err(TimeIsUp);
        }
        tokio::time::sleep(duration).await;
        Ok(())
    }
}

/// The longest wait before retry number `retry` (from 0): doubling from `base` up to `cap`. The wait itself is drawn
/// evenly from zero to this ("full jitter"), so that clients that failed together don't come back together.
#[must_use]
pub fn backoff_ceiling(retry: u32, base: Duration, cap: Duration) -> Duration {
    base.saturating_mul(2u32.saturating_pow(retry)).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_cap() {
        let (base, cap) = (Duration::from_millis(20), Duration::from_millis(100));
        let ceilings = [0, 1, 2, 3, 1000].map(|retry| backoff_ceiling(retry, base, cap).as_millis());
        assert_eq!(ceilings, [20, 40, 80, 100, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_runs_past_the_deadline() {
        let deadline = Deadline::after(Duration::from_secs(1));
        assert_eq!(deadline.sleep(Duration::from_secs(1)).await, Err(TimeIsUp));
        assert_eq!(deadline.sleep(Duration::from_millis(400)).await, Ok(()));
        assert_eq!(deadline.remaining(), Duration::from_millis(600));
        assert_eq!(deadline.bound(Duration::MAX, std::future::pending::<()>()).await, Err(TimeIsUp));
        assert!(deadline.remaining().is_zero());
    }

    #[rstest::rstest]
    #[case::long(600, 30, 570)]
    #[case::short(40, 30, 20)]
    #[case::over(0, 30, 0)]
    #[tokio::test(start_paused = true)]
    async fn no_more_than_half_of_the_time_is_reserved(#[case] left: u64, #[case] in_hand: u64, #[case] expected: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let end = now + Duration::from_secs(left);
        let deadline = Deadline::reserving(u64::try_from(end.as_millis()).unwrap(), Duration::from_secs(in_hand));
        assert!(deadline.remaining().as_secs_f64() - expected as f64 <= 0.01);
        assert!(deadline.remaining().as_secs_f64() - expected as f64 > -1.0);
    }

    #[test]
    fn an_end_in_the_past_leaves_nothing() {
        assert!(Deadline::before(0, Duration::ZERO).remaining().is_zero());
    }
}
