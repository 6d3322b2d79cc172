//! Statistics that outliers don't move: the median, and the median distance from it.

/// How far a value is from what is usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seasonal {
    /// In robust standard deviations, which equal ordinary ones for a normal distribution.
    Score {
        score: f64,
        median: f64,
        /// One robust standard deviation.
        deviation: f64,
        points: usize,
    },
    /// Too few earlier values.
    InsufficientHistory { points: usize },
    /// More than half of the earlier values are equal, so the usual distance is 0 and any other value would be infinitely far.
    NoSpread { median: f64, points: usize },
}

/// The median distance times this is the standard deviation of a normal distribution.
const NORMAL: f64 = 1.4826;

/// The median: the mean of the two middle values if their number is even. `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The score of a value against earlier ones (not including it) if there are at least `minimum` of them.
pub(crate) fn seasonal(value: f64, earlier: &[f64], minimum: usize) -> Seasonal {
    let points = earlier.len();
    let Some(median_value) = median(earlier).filter(|_| points >= minimum) else {
        return Seasonal::InsufficientHistory { points };
    };
    let distances: Vec<f64> = earlier.iter().map(|one| (one - median_value).abs()).collect();
    let deviation = NORMAL * median(&distances).unwrap_or_default();
    if deviation == 0.0 {
        return Seasonal::NoSpread { median: median_value, points };
    }
    Seasonal::Score { score: (value - median_value) / deviation, median: median_value, deviation, points }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[], None)]
    #[case(&[3.0], Some(3.0))]
    #[case(&[4.0, 1.0], Some(2.5))]
    #[case(&[9.0, 1.0, 2.0], Some(2.0))]
    #[case(&[9.0, 1.0, 2.0, 4.0], Some(3.0))]
    fn medians(#[case] values: &[f64], #[case] expected: Option<f64>) {
        assert_eq!(median(values), expected);
    }

    #[rstest]
    #[case(&[1.0, 2.0, 3.0], Seasonal::InsufficientHistory { points: 3 })]
    #[case(&[7.0, 7.0, 7.0, 7.0], Seasonal::NoSpread { median: 7.0, points: 4 })]
    #[case(&[7.0, 7.0, 7.0, 9.0], Seasonal::NoSpread { median: 7.0, points: 4 })]
    #[case(&[9.0, 10.0, 10.0, 11.0, 12.0, 8.0],
        Seasonal::Score { score: 10.0 / 1.4826, median: 10.0, deviation: 1.4826, points: 6 })]
    fn scores(#[case] earlier: &[f64], #[case] expected: Seasonal) {
        assert_eq!(seasonal(20.0, earlier, 4), expected);
    }

    fn score(seasonal: Seasonal) -> Option<f64> {
        match seasonal {
            Seasonal::Score { score, .. } => Some(score),
            _ => None,
        }
    }

    fn history() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((0u32..1_000_000).prop_map(f64::from), 4..=8)
    }

    proptest! {
        #[test]
        fn the_order_of_history_does_not_matter(history in history(), value in 0u32..1_000_000) {
            let mut reversed = history.clone();
            reversed.reverse();
            let value = f64::from(value);
            prop_assert_eq!(seasonal(value, &history, 4), seasonal(value, &reversed, 4));
        }

        #[test]
        fn the_unit_does_not_matter(history in history(), value in 0u32..1_000_000, shift in 0u32..1_000_000) {
            let value = f64::from(value);
            let expected = score(seasonal(value, &history, 4));
            // Powers of two and whole numbers are exact.
            let scaled: Vec<f64> = history.iter().map(|one| one * 1024.0).collect();
            prop_assert_eq!(score(seasonal(value * 1024.0, &scaled, 4)), expected);
            let shift = f64::from(shift);
            let shifted: Vec<f64> = history.iter().map(|one| one + shift).collect();
            prop_assert_eq!(score(seasonal(value + shift, &shifted, 4)), expected);
        }

        #[test]
        fn the_tested_value_moves_nothing_that_it_is_measured_by(
            history in history(), one in 0u32..1_000_000, other in 0u32..1_000_000,
        ) {
            let spread = |value: u32| match seasonal(f64::from(value), &history, 4) {
                Seasonal::Score { median, deviation, .. } => (median, deviation),
                Seasonal::NoSpread { median, .. } => (median, 0.0),
                Seasonal::InsufficientHistory { .. } => (0.0, 0.0),
            };
            prop_assert_eq!(spread(one), spread(other));
        }

        #[test]
        fn a_larger_value_never_scores_lower(history in history(), one in 0u32..1_000_000, more in 0u32..1_000_000) {
            let (low, high) = (f64::from(one), f64::from(one) + f64::from(more));
            prop_assert!(score(seasonal(low, &history, 4)) <= score(seasonal(high, &history, 4)));
        }

        #[test]
        fn three_outliers_of_eight_leave_the_median_among_the_others(
            usual in prop::collection::vec((1_000u32..2_000).prop_map(f64::from), 5),
            wild in prop::collection::vec((0u32..1_000_000_000).prop_map(f64::from), 3),
        ) {
            let all = [usual.clone(), wild].concat();
            let middle = median(&all).unwrap();
            prop_assert!((1_000.0..2_000.0).contains(&middle), "{middle}");
        }
    }
}
