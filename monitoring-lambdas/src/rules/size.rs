//! Is a sealed partition as large as it should be? Three rules: an absolute floor, the change against the day before and the
//! week before, and a score against the same hour or weekday of up to eight weeks.

use super::partition::Partition;
use super::robust::{Seasonal, seasonal};

/// The number of earlier weeks that the score looks at.
pub const WEEKS: usize = 8;
/// With fewer earlier weeks there is no score.
pub const MINIMUM_WEEKS: usize = 4;

/// The limits of a partition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The least compressed bytes of a date.
    pub minimum_date_bytes: u64,
    /// The least compressed bytes of an hour; 0 for no limit.
    pub minimum_hour_bytes: u64,
    /// Change in percent, up or down.
    pub maximum_change_percent: f64,
    /// Score, up or down.
    pub maximum_seasonal_score: f64,
    /// The least distance, in percent, from both the median and the week before, for a score to count. A few weeks can be
    /// close together by chance, so that a small change scores high; and steady growth moves away from the median of earlier
    /// weeks, but not from the last one.
    pub minimum_seasonal_percent: f64,
    /// Rejected lines as a percentage of all lines, for [`rejected`](super::rejected).
    pub maximum_rejected_percent: f64,
}

impl Limits {
    /// The defaults of check-size: the best in the backtest.
    pub const SHIPPED: Self = Self {
        minimum_date_bytes: 195_000,
        minimum_hour_bytes: 0,
        maximum_change_percent: 35.0,
        maximum_seasonal_score: 6.0,
        minimum_seasonal_percent: 35.0,
        maximum_rejected_percent: 5.0,
    };

    pub const fn minimum_bytes(&self, partition: Partition) -> u64 {
        match partition {
            Partition::Hour(_) => self.minimum_hour_bytes,
            Partition::Date(_) => self.minimum_date_bytes,
        }
    }
}

/// Compressed bytes of a partition and of those that it is compared with; `None` where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    pub bytes: u64,
    pub day_before: Option<u64>,
    /// The same hour of the same weekday, or the same weekday, one week before, two weeks before …
    pub weeks_before: [Option<u64>; WEEKS],
}

/// The partition of the day before.
pub const fn day_before(partition: Partition) -> Partition {
    partition.days_before(1)
}

/// The partitions of [`Sizes::weeks_before`].
pub fn weeks_before(partition: Partition) -> [Partition; WEEKS] {
    let mut days = 0;
    [(); WEEKS].map(|()| {
        days += 7;
        partition.days_before(days)
    })
}

/// Change in percent against the two partitions; `None` where there is none, or an empty one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub day_before: Option<f64>,
    pub week_before: Option<f64>,
}

/// A rule that a partition may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    Floor,
    Change,
    SeasonalScore,
    /// [`rejected`](super::rejected).
    RejectedShare,
}

/// A rule's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Fine,
    Violation,
    /// Nothing to compare with: neither fine nor a violation.
    InsufficientHistory,
}

/// The numbers that the rules judge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    pub bytes: u64,
    pub change: Change,
    pub seasonal: Seasonal,
}

impl Sizes {
    pub fn measure(&self) -> Measured {
        let earlier: Vec<f64> = self.weeks_before.iter().flatten().map(|bytes| *bytes as f64).collect();
        Measured {
            bytes: self.bytes,
            change: Change {
                day_before: percent(self.bytes, self.day_before),
                week_before: percent(self.bytes, self.weeks_before[0]),
            },
            seasonal: seasonal(self.bytes as f64, &earlier, MINIMUM_WEEKS),
        }
    }
}

fn percent(bytes: u64, reference: Option<u64>) -> Option<f64> {
    let reference = reference.filter(|reference| *reference > 0)? as f64;
    Some((bytes as f64 - reference) / reference * 100.0)
}

impl Measured {
    /// The outcomes of the three rules about size, in the order of [`Rule`].
    pub fn judge(&self, minimum_bytes: u64, limits: &Limits) -> [(Rule, Outcome); 3] {
        let floor = if self.bytes < minimum_bytes { Outcome::Violation } else { Outcome::Fine };
        [
            (Rule::Floor, floor),
            (Rule::Change, self.change.judge(limits.maximum_change_percent)),
            (Rule::SeasonalScore, self.judge_score(limits)),
        ]
    }

    fn judge_score(&self, limits: &Limits) -> Outcome {
        match self.seasonal {
            Seasonal::Score { score, median, deviation, .. } => {
                let is_unusual = score.abs() > limits.maximum_seasonal_score;
                let minimum = limits.minimum_seasonal_percent;
                let is_far = (score * deviation).abs() > minimum / 100.0 * median
                    && self.change.week_before.is_none_or(|change| change.abs() > minimum);
                if is_unusual && is_far { Outcome::Violation } else { Outcome::Fine }
            }
            Seasonal::InsufficientHistory { .. } | Seasonal::NoSpread { .. } => Outcome::InsufficientHistory,
        }
    }
}

impl Change {
    /// A violation is too large a change against both, in the same direction: a Saturday is not like a Friday, and the day after
    /// an outage is not as empty as the outage. If there is only one, it decides.
    pub fn judge(&self, maximum_percent: f64) -> Outcome {
        let changes: Vec<f64> = [self.day_before, self.week_before].into_iter().flatten().collect();
        if changes.is_empty() {
            return Outcome::InsufficientHistory;
        }
        let all_fell = changes.iter().all(|change| *change < -maximum_percent);
        let all_rose = changes.iter().all(|change| *change > maximum_percent);
        if all_fell || all_rose { Outcome::Violation } else { Outcome::Fine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    use Outcome::{Fine, InsufficientHistory, Violation};

    #[rstest]
    #[case(None, None, InsufficientHistory)]
    #[case(Some(0), Some(0), InsufficientHistory)]
    #[case(Some(100), None, Fine)]
    #[case(Some(167), None, Violation)]
    #[case(None, Some(167), Violation)]
    #[case(Some(166), Some(1_000), Fine)]
    #[case(Some(167), Some(167), Violation)]
    #[case(Some(1_000), Some(100), Fine)]
    #[case(Some(1_000), Some(10), Fine)]
    #[case(Some(71), Some(71), Violation)]
    #[case(Some(72), Some(50), Fine)]
    #[case(Some(0), Some(50), Violation)]
    fn changes_against_the_day_and_the_week_before_are_judged(
        #[case] day_before: Option<u64>,
        #[case] week_before: Option<u64>,
        #[case] expected: Outcome,
    ) {
        let mut sizes = Sizes { bytes: 100, day_before, ..Sizes::default() };
        sizes.weeks_before[0] = week_before;
        assert_eq!(sizes.measure().change.judge(40.0), expected);
    }

    #[rstest]
    #[case(195_000, Fine)]
    #[case(194_999, Violation)]
    fn the_floor(#[case] bytes: u64, #[case] expected: Outcome) {
        let judged = Sizes { bytes, ..Sizes::default() }.measure().judge(195_000, &Limits::SHIPPED);
        assert_eq!(
            judged,
            [(Rule::Floor, expected), (Rule::Change, InsufficientHistory), (Rule::SeasonalScore, InsufficientHistory),]
        );
    }

    #[rstest]
    #[case(3, 0, InsufficientHistory)]
    #[case(4, 0, Violation)]
    #[case(8, 1_000, Fine)]
    #[case::high_score_of_little(8, 1_300, Fine)]
    #[case(8, 1_351, Violation)]
    #[case(8, 640, Violation)]
    fn the_score_needs_four_weeks(#[case] weeks: usize, #[case] bytes: u64, #[case] expected: Outcome) {
        let mut sizes = Sizes { bytes, ..Sizes::default() };
        for (week, earlier) in [990, 1_010, 1_000, 1_020, 980, 1_010, 990, 1_000].into_iter().take(weeks).enumerate() {
            sizes.weeks_before[week] = Some(earlier);
        }
        assert_eq!(sizes.measure().judge_score(&Limits::SHIPPED), expected);
    }

    #[rstest]
    #[case(500, Fine)]
    #[case(5_000, Violation)]
    fn large_changes_are_normal_where_weeks_vary(#[case] bytes: u64, #[case] expected: Outcome) {
        let weeks_before = [400, 1_600, 700, 1_300, 1_000, 1_000, 600, 1_400].map(Some);
        let sizes = Sizes { bytes, day_before: None, weeks_before };
        assert_eq!(sizes.measure().judge_score(&Limits::SHIPPED), expected);
    }

    #[rstest]
    #[case(2_000, Fine)]
    #[case(1_000, Violation)]
    fn a_size_like_that_of_the_week_before_is_no_violation(#[case] week_before: u64, #[case] expected: Outcome) {
        let mut weeks_before = [1_000, 1_010, 990, 1_000, 1_020, 980, 1_010, 990].map(Some);
        weeks_before[0] = Some(week_before);
        let sizes = Sizes { bytes: 2_100, day_before: None, weeks_before };
        assert_eq!(sizes.measure().judge_score(&Limits::SHIPPED), expected);
    }

    #[test]
    fn the_weeks_are_the_same_weekday() {
        let partition = Partition::of_success_key("events/dt=2026-11-21/hour=09/_SUCCESS").unwrap();
        let weeks = weeks_before(partition);
        assert_eq!(weeks[0].text(), "dt=2026-11-14/hour=09");
        assert_eq!(weeks[7].text(), "dt=2026-09-26/hour=09");
        assert_eq!(day_before(partition).text(), "dt=2026-11-20/hour=09");
    }

    proptest! {
        #[test]
        fn any_sizes_are_judged(bytes: u64, day: Option<u64>, weeks in prop::array::uniform8(any::<Option<u64>>())) {
            let measured = Sizes { bytes, day_before: day, weeks_before: weeks }.measure();
            if let Seasonal::Score { score, .. } = measured.seasonal {
                prop_assert!(score.is_finite());
            }
            let points = weeks.iter().flatten().count();
            let unsaid = matches!(measured.seasonal, Seasonal::InsufficientHistory { .. });
            prop_assert_eq!(unsaid, points < MINIMUM_WEEKS);
        }

        #[test]
        fn an_ordinary_partition_breaks_no_rule(bytes in 1u64..1_000_000_000) {
            let sizes = Sizes { bytes, day_before: Some(bytes), weeks_before: [Some(bytes); WEEKS] };
            let judged = sizes.measure().judge(0, &Limits::SHIPPED);
            prop_assert!(judged.iter().all(|(_, outcome)| *outcome != Violation));
        }
    }
}
