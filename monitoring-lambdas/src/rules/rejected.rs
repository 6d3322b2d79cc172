//! Is too much of a sealed partition rejected?

use super::size::Outcome;

/// Fewer rejected lines are no violation, whatever their share: at night one bad POST can be a third of an hour. The alarm
/// rejected-share requires the same number in a minute.
pub(crate) const MINIMUM_REJECTED: u64 = 10;

/// Lines of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    pub events: u64,
    pub rejected: u64,
}

impl Lines {
    /// This many lines as a percentage of all lines; 0 if there are none.
    pub fn percent(self, count: u64) -> f64 {
        let all = self.events as f64 + self.rejected as f64;
        if all == 0.0 { 0.0 } else { count as f64 / all * 100.0 }
    }

    pub fn judge(self, maximum_percent: f64) -> Outcome {
        let is_too_much = self.percent(self.rejected) > maximum_percent;
        if is_too_much && self.rejected >= MINIMUM_REJECTED { Outcome::Violation } else { Outcome::Fine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::empty(0, 0, Outcome::Fine)]
    #[case::none(1_000, 0, Outcome::Fine)]
    #[case::at_the_limit(950, 50, Outcome::Fine)]
    #[case::above_it(949, 51, Outcome::Violation)]
    #[case::a_third(700, 300, Outcome::Violation)]
    #[case::all(0, 10, Outcome::Violation)]
    #[case::one_bad_post_at_night(0, 9, Outcome::Fine)]
    #[case::counts_that_no_sum_holds(u64::MAX, u64::MAX, Outcome::Violation)]
    fn a_share_is_judged(#[case] events: u64, #[case] rejected: u64, #[case] expected: Outcome) {
        assert_eq!(Lines { events, rejected }.judge(5.0), expected);
    }

    proptest! {
        #[test]
        fn any_share_is_a_percentage(events: u64, rejected: u64) {
            let percent = Lines { events, rejected }.percent(rejected);
            prop_assert!((0.0..=100.0).contains(&percent));
        }
    }
}
