//! How large an hour should be: what check-size compares it with, and the sizes between which its rules hold.

use monitoring_lambdas::rules::partition::Partition;
use monitoring_lambdas::rules::robust::Seasonal;
use monitoring_lambdas::rules::size::{Limits, Sizes};
use serde::Serialize;

/// Bytes. Every size outside breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Band {
    pub(crate) low: f64,
    /// `None` without a limit.
    pub(crate) high: Option<f64>,
}

/// The band of a partition; `None` where there is nothing to compare it with, and no floor.
pub(crate) fn band(partition: Partition, sizes: &Sizes, limits: &Limits) -> Option<Band> {
    #[allow(clippy::cast_precision_loss)]
    let floor = limits.minimum_bytes(partition) as f64;
    let ranges: Vec<(f64, f64)> = [change(sizes, limits), score(sizes, limits)].into_iter().flatten().collect();
    if ranges.is_empty() && floor == 0.0 {
        return None;
    }
    let low = ranges.iter().map(|(low, _)| *low).fold(floor, f64::max);
    Some(Band { low, high: ranges.iter().map(|(_, high)| *high).reduce(f64::min) })
}

/// Within the change from the day before or the week before, the farther one.
fn change(sizes: &Sizes, limits: &Limits) -> Option<(f64, f64)> {
    around([sizes.day_before, sizes.weeks_before[0]], limits.maximum_change_percent)
}

/// Within the score, or near enough to the median or to the week before.
fn score(sizes: &Sizes, limits: &Limits) -> Option<(f64, f64)> {
    let Seasonal::Score { median, deviation, .. } = sizes.measure().seasonal else { return None };
    let percent = limits.minimum_seasonal_percent;
    let distance = (limits.maximum_seasonal_score * deviation).max(percent / 100.0 * median);
    let (low, high) = around([sizes.weeks_before[0], None], percent).unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
    Some((low.min(median - distance), high.max(median + distance)))
}

#[allow(clippy::cast_precision_loss)]
fn around(sizes: [Option<u64>; 2], percent: f64) -> Option<(f64, f64)> {
    let sizes = sizes.into_iter().flatten().filter(|bytes| *bytes > 0).map(|bytes| bytes as f64);
    let ranges = sizes.map(|bytes| (bytes * (1.0 - percent / 100.0), bytes * (1.0 + percent / 100.0)));
    ranges.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hour_state::tests::hour;
    use monitoring_lambdas::rules::size::Outcome;
    use proptest::prelude::*;

    fn hour_of(sizes: &Sizes, limits: &Limits) -> Option<Band> {
        band(Partition::Hour(hour()), sizes, limits)
    }

    #[test]
    fn without_history_there_is_a_floor_or_nothing() {
        assert_eq!(hour_of(&Sizes::default(), &Limits::SHIPPED), None);
        let limits = Limits { minimum_hour_bytes: 7, ..Limits::SHIPPED };
        assert_eq!(hour_of(&Sizes::default(), &limits), Some(Band { low: 7.0, high: None }));
    }

    #[test]
    fn the_farther_of_day_and_week_decides() {
        let mut sizes = Sizes { day_before: Some(100), ..Sizes::default() };
        assert_eq!(hour_of(&sizes, &Limits::SHIPPED), Some(Band { low: 65.0, high: Some(135.0) }));
        sizes.weeks_before[0] = Some(200);
        assert_eq!(hour_of(&sizes, &Limits::SHIPPED), Some(Band { low: 65.0, high: Some(270.0) }));
    }

    fn size() -> impl Strategy<Value = Option<u64>> {
        prop_oneof![Just(None), (0u64..2_000).prop_map(Some)]
    }

    proptest! {
        #[test]
        fn every_size_outside_breaks_a_rule_of_check_size(
            day_before in size(), weeks_before in prop::array::uniform8(size()), bytes in 0u64..6_000,
        ) {
            let sizes = Sizes { bytes, day_before, weeks_before };
            let limits = Limits { minimum_hour_bytes: 5, ..Limits::SHIPPED };
            let Some(band) = hour_of(&sizes, &limits) else { return Ok(()) };
            let is_outside = (bytes as f64) < band.low - 1e-6 || band.high.is_some_and(|high| bytes as f64 > high + 1e-6);
            if is_outside {
                let judged = sizes.measure().judge(5, &limits);
                prop_assert!(judged.iter().any(|(_, outcome)| *outcome == Outcome::Violation), "{judged:?} {band:?}");
            }
        }
    }
}
