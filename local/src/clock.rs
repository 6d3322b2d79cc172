//! The stack's time: the real one, or one that starts elsewhere and runs faster, so that hours and days can be tried.
//!
//! It is a pure mapping of the real time. What is known by its real time, such as a record's arrival on the stream, thus
//! has one time of this clock, however often it is looked at. What AWS waits or counts, such as batching windows, retry
//! pauses and the age of records, passes at the clock's pace. The functions' own deadlines and pauses stay real: the
//! machine does not get faster.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use shared::timestamp::UnixMillis;

/// The factors that a clock may have. At the largest an hour takes a second: an event that needed longer than an hour from its receipt to
/// the stream would be in neither of the hours that the checks look for it in.
const FACTORS: std::ops::RangeInclusive<f64> = 1.0..=3_600.0;

/// What `CLOCK` says: `2026-11-18T00:00:00Z x1440` starts then, and an hour takes 2.5 seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    origin: UnixMillis,
    factor: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// The real time at which it shows its origin.
    started: UnixMillis,
    pace: Pace,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaceError {
    #[error("is {0:?}; it takes a start and a factor: 2026-11-18T00:00:00Z x1440")]
    Form(String),
    #[error("starts at {0:?}; it takes a time in UTC: 2026-11-18T00:00:00Z")]
    Start(String),
    #[error("has the factor {0:?}; it takes x1 to x3600, with which an hour takes a second")]
    Factor(String),
}

impl FromStr for Pace {
    type Err = PaceError;

    fn from_str(text: &str) -> Result<Self, PaceError> {
        let form = || PaceError::Form(text.to_owned());
        let (start, factor) = text.trim().split_once(char::is_whitespace).ok_or_else(form)?;
        let with_millis = start.replace('Z', ".000Z");
        let origin = UnixMillis::parse(start).or_else(|| UnixMillis::parse(&with_millis));
        let origin = origin.ok_or_else(|| PaceError::Start(start.to_owned()))?;
        let number = factor.trim().strip_prefix('x').and_then(|factor| factor.parse().ok());
        let factor = number.filter(|factor| FACTORS.contains(factor));
        let factor = factor.ok_or_else(|| PaceError::Factor(text.trim().to_owned()))?;
        Ok(Self { origin, factor })
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} x{}", self.origin.rfc3339(), self.factor)
    }
}

impl Clock {
    /// A clock that starts at this real time; without a pace it shows the real time.
    pub fn new(pace: Option<Pace>, started: UnixMillis) -> Self {
        Self { started, pace: pace.unwrap_or(Pace { origin: started, factor: 1.0 }) }
    }

    pub fn now(&self) -> UnixMillis {
        self.at(lambda_setup::now())
    }

    /// What it shows at a real time, also at one before it started.
    pub fn at(&self, real: UnixMillis) -> UnixMillis {
        // Exact for whole factors as far as f64 counts milliseconds: some 285,000 years.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let elapsed = (real.0.saturating_sub(self.started.0) as f64 * self.pace.factor).round() as i64;
        UnixMillis(self.pace.origin.0.saturating_add(elapsed))
    }

    /// The real time from one of its times to a later one; zero if that is past.
    pub(crate) fn real_time(&self, from: UnixMillis, to: UnixMillis) -> Duration {
        self.really(between(from, to))
    }

    /// The real length of a time on this clock.
    pub fn really(&self, shown: Duration) -> Duration {
        shown.div_f64(self.pace.factor)
    }

    /// How far it goes on in a real time.
    pub(crate) fn shown(&self, real: Duration) -> Duration {
        real.mul_f64(self.pace.factor)
    }

    /// How long ago, on this clock, something really happened.
    pub fn age(&self, real: UnixMillis) -> Duration {
        between(self.at(real), self.now())
    }

    pub(crate) fn is_fast(&self) -> bool {
        self.pace.factor > 1.0
    }
}

/// Zero when they are the other way round.
fn between(from: UnixMillis, to: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const STARTED: UnixMillis = UnixMillis(1_700_000_000_123);

    fn clock(text: &str) -> Clock {
        Clock::new(Some(text.parse().unwrap()), STARTED)
    }

    #[test]
    fn a_fast_clock_starts_at_its_origin_and_passes_an_hour_in_two_and_a_half_seconds() {
        let clock = clock("2026-11-18T00:00:00Z x1440");
        assert_eq!(clock.at(STARTED).rfc3339(), "2026-11-18T00:00:00.000Z");
        assert_eq!(clock.at(UnixMillis(STARTED.0 + 2500)).rfc3339(), "2026-11-18T01:00:00.000Z");
        assert_eq!(clock.at(UnixMillis(STARTED.0 - 1)).rfc3339(), "2026-11-17T23:59:58.560Z");
        let (start, hour) = (clock.at(STARTED), clock.at(UnixMillis(STARTED.0 + 2500)));
        assert_eq!(clock.real_time(start, hour), Duration::from_millis(2500));
        assert_eq!(clock.real_time(hour, start), Duration::ZERO);
        assert_eq!(clock.really(Duration::from_secs(3_600)), Duration::from_millis(2_500));
    }

    #[test]
    fn without_a_pace_it_is_the_real_time() {
        let clock = Clock::new(None, STARTED);
        for real in [0, STARTED.0, STARTED.0 + 86_400_001] {
            assert_eq!(clock.at(UnixMillis(real)), UnixMillis(real));
        }
    }

    #[test]
    fn milliseconds_and_fractions_are_accepted() {
        let pace: Pace = " 2026-11-18T09:30:00.500Z   x1.5 ".parse().unwrap();
        assert_eq!(pace.to_string(), "2026-11-18T09:30:00.500Z x1.5");
    }

    #[rstest]
    #[case("2026-11-18T00:00:00Z", "takes a start and a factor")]
    #[case("", "takes a start and a factor")]
    #[case("tomorrow x2", "tomorrow")]
    #[case("2026-11-18T00:00:00Z 1440", "factor")]
    #[case("2026-11-18T00:00:00Z x0.5", "factor")]
    #[case("2026-11-18T00:00:00Z x3601", "factor")]
    #[case("2026-11-18T00:00:00Z xNaN", "factor")]
    fn errors_in_a_plan_are_named(#[case] text: &str, #[case] named: &str) {
        let problem = text.parse::<Pace>().unwrap_err().to_string();
        assert!(problem.contains(named), "{problem}");
    }

    proptest! {
        #[test]
        fn the_clock_keeps_the_order_of_times(factor in 1u32..=3_600, real in 0i64..4_000_000_000_000, later in 1i64..1_000_000_000) {
            let clock = clock(&format!("2026-11-18T00:00:00Z x{factor}"));
            prop_assert!(clock.at(UnixMillis(real)) < clock.at(UnixMillis(real + later)));
        }
    }
}
