//! Axes: which values are shown where, and the ticks with their texts.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::quantity::{significant, thousands};

/// An axis. Positions on it are values, their logarithm, or the number of nines of a percentile.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// What is on it and in which unit.
    pub(super) title: String,
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

/// Ticks of an axis at most, beside 0: a step is no smaller.
const TICKS: f64 = 6.0;

impl Axis {
    /// From 0 to a little above the largest value, so that no line lies on the frame.
    pub(super) fn linear(title: impl Into<String>, largest: f64) -> Self {
        Self::linear_to(title, if largest > 0.0 { largest * 1.05 } else { 1.0 })
    }

    /// From 0 to exactly this value.
    pub(super) fn linear_to(title: impl Into<String>, to: f64) -> Self {
        let step = nice_step(to / TICKS);
        // Multiples, not sums: 0.1 three times is not 0.3.
        let places = (0u32..).map(|times| f64::from(times) * step).take_while(|place| *place <= to * 1.000_001);
        let text = |place: f64| if place < 10_000.0 { significant(place) } else { thousands(place) };
        Self { title: title.into(), from: 0.0, to, ticks: places.map(|place| (place, text(place))).collect() }
    }

    /// Logarithmic, over all of the values, which are in units of `unit` values each. Positions are [`log`]s.
    pub(super) fn logarithmic(title: impl Into<String>, values: impl Iterator<Item = f64>, unit: f64) -> Self {
        let places = values.map(log);
        let (from, to) = places.fold((f64::MAX, f64::MIN), |(from, to), place| (from.min(place), to.max(place)));
        let (from, to) =
            if from <= to { a_decade_at_least(from - 0.05, to + 0.05) } else { (log(unit), log(unit) + 1.0) };
        // Few decades get ticks inside of each.
        let inside: &[f64] = if to - from < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        #[allow(clippy::cast_possible_truncation)]
        let decades = (from - log(unit)).floor() as i32..=(to - log(unit)).ceil() as i32;
        let values = decades.flat_map(|decade| inside.iter().map(move |first| first * 10f64.powi(decade)));
        let text = |value: f64| if value < 1.0 { format!("{value}") } else { thousands(value) };
        let ticks = values.map(|value| (log(value * unit), text(value)));
        let ticks = ticks.filter(|(place, _)| (from..=to).contains(place)).collect();
        Self { title: title.into(), from, to, ticks }
    }

    /// Percentiles, each nine as wide as the one before: from 0 to so many nines.
    pub(super) fn percentiles(nines: f64) -> Self {
        let to = nines.clamp(1.0, MAX_NINES);
        let ticks = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
        let ticks = ticks.into_iter().map(|(share, text)| (self::nines(share), text.to_owned()));
        let ticks = ticks.filter(|(place, _)| *place <= to + 0.001).collect();
        Self { title: "percentile".into(), from: 0.0, to, ticks }
    }

    /// Whole minutes from 0.
    pub(super) fn minutes(to: f64) -> Self {
        let mut axis = Self::linear_to("minutes", to);
        axis.ticks.retain(|(place, _)| place.fract() == 0.0);
        axis
    }
}

/// p99.99: what a histogram of three digits and a run of usual length can say.
pub(super) const MAX_NINES: f64 = 4.0;

/// The place of a value on a logarithmic axis. Microseconds and whole counts have nothing below 1.
pub(super) fn log(value: f64) -> f64 {
    value.max(1.0).log10()
}

/// How many nines a share has: 0.99 has two.
pub(super) fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// Of less than that, what is noise would look large, and there would be few ticks.
fn a_decade_at_least(from: f64, to: f64) -> (f64, f64) {
    let more = (1.0 - (to - from)).max(0.0) / 2.0;
    (from - more, to + more)
}

/// The smallest of 1, 2 and 5 times a power of ten that is no smaller.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| step <= times * power * 1.000_001);
    times.unwrap_or(10.0) * power
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    #[allow(clippy::cast_possible_truncation)]
    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let share = (value - self.from) / (self.to - self.from);
        low + (share * f64::from(high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(place, _)| *place).collect()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let is_it = |(place, _): &&(f64, String)| (place - value).abs() < f64::EPSILON * value.abs().max(1.0);
        self.ticks.iter().find(is_it).map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn texts(axis: &Axis) -> Vec<String> {
        axis.key_points(10).iter().map(|place| axis.format_ext(place)).collect()
    }

    #[rstest]
    #[case(1_000.0, &["0", "200", "400", "600", "800", "1000"])]
    #[case(0.0, &["0", "0.2", "0.4", "0.6", "0.8", "1"])]
    #[case(7.0, &["0", "2", "4", "6"])]
    #[case(60_000.0, &["0", "20,000", "40,000", "60,000"])]
    fn linear_ticks_are_round(#[case] largest: f64, #[case] expected: &[&str]) {
        assert_eq!(texts(&Axis::linear("", largest)), expected);
    }

    #[rstest]
    #[case::microseconds_as_milliseconds(&[900.0, 1_100_000.0], &["1", "10", "100", "1,000"])]
    #[case::below_one(&[90.0, 11_000.0], &["0.1", "0.2", "0.5", "1", "2", "5", "10"])]
    #[case::one_value(&[1_000.0], &["0.5", "1", "2"])]
    #[case::none(&[], &["1", "2", "5", "10"])]
    fn logarithmic_ticks_are_powers_of_ten(#[case] values: &[f64], #[case] expected: &[&str]) {
        assert_eq!(texts(&Axis::logarithmic("ms", values.iter().copied(), 1_000.0)), expected);
    }

    #[rstest]
    #[case(2.0, &["0", "50", "90", "99"])]
    #[case(0.3, &["0", "50", "90"])]
    #[case(9.0, &["0", "50", "90", "99", "99.9", "99.99"])]
    fn percentiles_reach_as_far_as_there_are_values(#[case] nines: f64, #[case] expected: &[&str]) {
        assert_eq!(texts(&Axis::percentiles(nines)), expected);
    }

    #[test]
    fn values_lie_between_the_ends() {
        let axis = Axis::linear_to("", 10.0);
        assert_eq!([0.0, 5.0, 10.0].map(|value| axis.map(&value, (100, 300))), [100, 200, 300]);
        assert_eq!(axis.map(&5.0, (300, 100)), 200);
    }
}
