//! The last values of a metric as a line of text: `▁▁▂▁·▇`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

use super::alarm::Watched;
use crate::cloudwatch::{Metrics, MetricsError, Query};

/// The number of periods in a chart.
pub(crate) const PERIODS: usize = 20;

pub(crate) const LEVELS: [char; 5] = ['▁', '▂', '▃', '▅', '▇'];
/// A period without a value.
pub(crate) const NOTHING: char = '·';

/// The values of [`PERIODS`] periods, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    pub values: Vec<Option<f64>>,
    /// The end of the last period.
    pub until: UnixMillis,
}

/// Reads what an alarm saw up to a time.
pub(crate) async fn read(metrics: &impl Metrics, watched: &Watched, until: UnixMillis) -> Result<Chart, MetricsError> {
    let query = query(watched, until);
    let values = metrics.read(&query).await?;
    Ok(Chart::new(&query, &values))
}

fn query(watched: &Watched, until: UnixMillis) -> Query {
    let period = i64::try_from(watched.period.saturating_mul(1_000)).unwrap_or(i64::MAX).max(1);
    let count = i64::try_from(PERIODS).unwrap_or(i64::MAX);
    // Including the current period: it may be the one that is wrong.
    let to = until.0.div_euclid(period).saturating_add(1).saturating_mul(period);
    Query {
        namespace: watched.namespace.clone(),
        name: watched.metric.clone(),
        dimensions: watched.dimensions.clone(),
        statistic: watched.statistic.clone(),
        from: UnixMillis(to.saturating_sub(period.saturating_mul(count))),
        to: UnixMillis(to),
        period: Duration::from_secs(watched.period),
    }
}

impl Chart {
    fn new(query: &Query, values: &[(UnixMillis, f64)]) -> Self {
        let period = i64::try_from(query.period.as_millis()).unwrap_or(i64::MAX).max(1);
        let mut chart = Self { values: vec![None; PERIODS], until: query.to };
        for (time, value) in values {
            let at = usize::try_from((time.0 - query.from.0).div_euclid(period)).ok();
            if let Some(slot) = at.and_then(|at| chart.values.get_mut(at)) {
                *slot = Some(*value);
            }
        }
        chart
    }

    /// The newest value.
    pub(crate) fn last(&self) -> Option<f64> {
        self.values.iter().rev().find_map(|value| *value)
    }

    /// The smallest and the largest value, if any.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        let values = || self.values.iter().flatten().copied();
        values().next()?;
        Some((values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max)))
    }

    /// One character per period. Zero, or the smallest value if negative, is the lowest.
    pub(crate) fn line(&self) -> String {
        let (least, most) = self.range().unwrap_or_default();
        let least = least.min(0.0);
        let level = |value: f64| {
            let share = if most > least { (value - least) / (most - least) } else { 0.0 };
            // From 0 to 1, so that it is one of them.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let at = (share * (LEVELS.len() - 1) as f64).ceil() as usize;
            LEVELS[at.min(LEVELS.len() - 1)]
        };
        self.values.iter().map(|value| value.map_or(NOTHING, level)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    pub(crate) fn watched() -> Watched {
        Watched {
            namespace: "Playhead".into(),
            metric: "BrokenObjects".into(),
            dimensions: Vec::new(),
            statistic: "Maximum".into(),
            period: 60,
            comparison: "GreaterThanThreshold".into(),
            threshold: 0.0,
            calculated: None,
        }
    }

    fn chart(values: &[Option<f64>]) -> Chart {
        Chart { values: values.to_vec(), until: UnixMillis(0) }
    }

    #[rstest]
    #[case(&[], "")]
    #[case(&[None, None], "··")]
    #[case(&[Some(0.0), Some(0.0), None], "▁▁·")]
    #[case(&[Some(0.0), Some(1.0), Some(2.0), Some(3.0), Some(4.0)], "▁▂▃▅▇")]
    #[case(&[Some(5.0), Some(5.0)], "▇▇")]
    #[case(&[Some(-4.0), Some(0.0)], "▁▇")]
    #[case(&[Some(0.0), Some(0.01), Some(100.0)], "▁▂▇")]
    fn lines_show_values(#[case] values: &[Option<f64>], #[case] line: &str) {
        assert_eq!(chart(values).line(), line);
    }

    #[test]
    fn values_are_put_in_their_periods() {
        let query = query(&watched(), UnixMillis(1_200_000 + 5));
        assert_eq!((query.from, query.to), (UnixMillis(60_000), UnixMillis(1_260_000)));
        let chart =
            Chart::new(&query, &[(UnixMillis(60_000), 1.0), (UnixMillis(1_200_000), 2.0), (UnixMillis(0), 9.0)]);
        assert_eq!(chart.line(), "▃··················▇");
        assert_eq!((chart.last(), chart.range()), (Some(2.0), Some((1.0, 2.0))));
    }

    proptest! {
        #[test]
        fn any_values_make_a_line(values in prop::collection::vec(prop::option::of(any::<f64>()), 0..30)) {
            prop_assert_eq!(chart(&values).line().chars().count(), values.len());
        }
    }
}
