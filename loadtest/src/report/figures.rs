//! The plots of a run: which numbers are in each.

use super::ReportError;
use super::axis::{Axis, MAX_NINES, log, nines};
use super::chart::{Colour, Series, Size, Stroke, draw};
use super::numbers::float;
use crate::result::{Distribution, MetricSeries, RunResult, Second};
use crate::system_metrics::unit;
use shared::metric::Unit;

/// A plot with what stands above it.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    /// Colours with what they stand for; empty when there is one thing.
    pub(crate) legend: Vec<(String, &'static str)>,
    pub(crate) svg: String,
}

const WIDE: Size = (920, 300);
const SMALL: Size = (300, 170);
const MS: f64 = 1_000.0;
const FROM_START: &str = "seconds from the start";

/// All plots of a run, without those that would be empty.
pub(super) fn of_run(result: &RunResult) -> Result<Vec<Figure>, ReportError> {
    let mut figures = vec![rate(&result.seconds)?, percentiles_over_time(&result.seconds)?];
    let times = [
        ("latency, from the planned time", &result.latency),
        ("service time, from the real sending", &result.service_time),
    ];
    if result.latency.count > 0 {
        figures.push(percentile_curves("Latency by percentile", times)?);
        figures.push(histogram(times)?);
    }
    if let Some(truth) = &result.truth {
        figures.push(landed(&result.seconds, &truth.landed_by_second)?);
    }
    figures.push(lag(&result.seconds)?);
    Ok(figures)
}

fn figure(title: impl Into<String>, size: Size, x: Axis, y: Axis, series: &[Series]) -> Result<Figure, ReportError> {
    let legend = series.iter().filter(|one| !one.label.is_empty()).map(|one| (one.colour.css(), one.label)).collect();
    Ok(Figure { title: title.into(), legend, svg: draw(size, x, y, series)? })
}

#[allow(clippy::cast_precision_loss)]
fn seconds_axis(seconds: usize) -> Axis {
    Axis::linear_to(FROM_START, seconds.max(1) as f64)
}

/// A value a second, in the middle of it; where there is none, the line is broken.
fn by_second(seconds: &[Second], value: impl Fn(&Second) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let values: Vec<Option<f64>> = seconds.iter().map(value).collect();
    let mut place = 0.0;
    let mut runs = Vec::new();
    for run in values.split(Option::is_none) {
        let points = run.iter().flatten().zip(0u32..).map(|(value, later)| (place + f64::from(later) + 0.5, *value));
        runs.push(points.collect::<Vec<_>>());
        place += f64::from(u32::try_from(run.len()).unwrap_or(u32::MAX)) + 1.0;
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn rate(seconds: &[Second]) -> Result<Figure, ReportError> {
    // A line ends with its last POST: answers come, and are shown, after nothing is planned any more.
    let series = |label, colour, stroke, value: fn(&Second) -> u64| {
        let last = seconds.iter().rposition(|second| value(second) > 0).map_or(0, |last| last + 1);
        Series { label, colour, stroke, runs: by_second(&seconds[..last], |second| Some(float(value(second)))) }
    };
    let largest = seconds.iter().flat_map(|second| [second.planned, second.sent, second.answered]).max().unwrap_or(0);
    let series = [
        series("planned", Colour::GREY, Stroke::Wide, |second| second.planned),
        series("sent", Colour::BLUE, Stroke::Line, |second| second.sent),
        series("answered", Colour::ORANGE, Stroke::Dashed, |second| second.answered),
        series("errors", Colour::RED, Stroke::Line, |second| second.errors),
    ];
    figure("Rate", WIDE, seconds_axis(seconds.len()), Axis::linear("POSTs a second", float(largest)), &series)
}

fn percentiles_over_time(seconds: &[Second]) -> Result<Figure, ReportError> {
    type Value = fn(&Second) -> u64;
    let shown: [(&str, Colour, Value); 5] = [
        ("max", Colour::RED, |second| second.max_us),
        ("p99.9", Colour::ORANGE, |second| second.p99_9_us),
        ("p99", Colour::GREEN, |second| second.p99_us),
        ("p90", Colour::SKY, |second| second.p90_us),
        ("p50", Colour::BLUE, |second| second.p50_us),
    ];
    let series = shown.map(|(label, colour, value)| Series {
        label,
        colour,
        stroke: Stroke::Line,
        // A second of which nothing was answered has no times.
        runs: by_second(seconds, |second| (second.max_us > 0).then(|| log(float(value(second))))),
    });
    let answered = seconds.iter().filter(|second| second.max_us > 0);
    let y = Axis::logarithmic("ms", answered.flat_map(|second| [float(second.p50_us), float(second.max_us)]), MS);
    figure("Latency over time", WIDE, seconds_axis(seconds.len()), y, &series)
}

/// The times of one or two distributions up to p99.99.
pub(crate) fn percentile_curves(title: &str, times: [(&'static str, &Distribution); 2]) -> Result<Figure, ReportError> {
    let styles = [(Colour::BLUE, Stroke::Line), (Colour::ORANGE, Stroke::Dashed)];
    let series: Vec<Series> = times
        .into_iter()
        .zip(styles)
        .map(|((label, times), (colour, stroke))| Series { label, colour, stroke, runs: vec![curve(times)] })
        .collect();
    let largest = times.iter().map(|(_, times)| times.count).max().unwrap_or(0);
    let places = series.iter().flat_map(|one| &one.runs).flatten().map(|(_, place)| 10f64.powf(*place));
    let (x, y) = (Axis::percentiles(float(largest).log10()), Axis::logarithmic("ms", places, MS));
    figure(title, WIDE, x, y, &series)
}

/// Which time each percentile has: each bucket's from where the one before ended.
fn curve(times: &Distribution) -> Vec<(f64, f64)> {
    let total = float(times.buckets.iter().map(|(_, count)| count).sum());
    let (mut below, mut points) = (0.0, Vec::new());
    for (micros, count) in &times.buckets {
        let from = nines(below / total);
        below += float(*count);
        let to = if below < total { nines(below / total) } else { total.log10() };
        let place = log(float(*micros));
        points.extend([(from, place), (to.max(from), place)]);
    }
    points.retain(|(nines, _)| *nines <= MAX_NINES);
    if total.log10() > MAX_NINES {
        points.push((MAX_NINES, log(float(times.p99_99_us))));
    }
    points
}

/// Bars of the first of two distributions and the outline of the second, in equal steps of the logarithm.
fn histogram(times: [(&'static str, &Distribution); 2]) -> Result<Figure, ReportError> {
    let micros = times.iter().flat_map(|(_, times)| &times.buckets).map(|(micros, _)| float(*micros));
    let x = Axis::logarithmic("ms", micros, MS);
    let [latency, service] = times.map(|(_, times)| steps(times));
    let largest = latency.iter().chain(&service).map(|(_, share)| *share).fold(0.0, f64::max);
    let outline = service.windows(2).flat_map(|ends| [ends[0], (ends[1].0, ends[0].1)]).collect();
    let series = [
        Series { label: times[0].0, colour: Colour::SKY, stroke: Stroke::Bars, runs: vec![latency] },
        Series { label: times[1].0, colour: Colour::RED, stroke: Stroke::Line, runs: vec![outline] },
    ];
    figure("Histogram", WIDE, x, Axis::linear("% of POSTs", largest), &series)
}

/// Steps of a histogram in a decade.
const STEPS: f64 = 20.0;

/// Where each step begins, and the percentage of the times in it; ends with an empty one.
#[allow(clippy::cast_possible_truncation)]
fn steps(times: &Distribution) -> Vec<(f64, f64)> {
    let mut shares = std::collections::BTreeMap::<i64, u64>::new();
    for (micros, count) in &times.buckets {
        *shares.entry((log(float(*micros)) * STEPS).floor() as i64).or_default() += count;
    }
    let (Some((first, _)), Some((last, _))) = (shares.first_key_value(), shares.last_key_value()) else {
        return Vec::new();
    };
    let total = float(times.buckets.iter().map(|(_, count)| count).sum());
    // At most 20 steps in each of the 20 decades that 64 bits hold.
    #[allow(clippy::cast_precision_loss)]
    let step = |step: i64| (step as f64 / STEPS, float(shares.get(&step).copied().unwrap_or(0)) / total * 100.0);
    (*first..=*last + 1).map(step).collect()
}

fn landed(seconds: &[Second], landed: &[u64]) -> Result<Figure, ReportError> {
    let mut accepted = 0;
    let sums = seconds.iter().map(|second| {
        accepted += second.accepted_events;
        accepted
    });
    let accepted: Vec<u64> = sums.collect();
    let series = [
        Series { label: "accepted", colour: Colour::GREY, stroke: Stroke::Wide, runs: vec![at_ends(&accepted)] },
        Series { label: "landed", colour: Colour::BLUE, stroke: Stroke::Line, runs: vec![at_ends(landed)] },
    ];
    let largest = accepted.last().max(landed.last()).copied().unwrap_or(0);
    let x = seconds_axis(seconds.len().max(landed.len()));
    figure("Landed over accepted", WIDE, x, Axis::linear("events", float(largest)), &series)
}

/// Sums at the end of each second, and 0 at the start.
fn at_ends(sums: &[u64]) -> Vec<(f64, f64)> {
    let ends = (1u32..).zip(sums).map(|(second, sum)| (f64::from(second), float(*sum)));
    std::iter::once((0.0, 0.0)).chain(ends).collect()
}

fn lag(seconds: &[Second]) -> Result<Figure, ReportError> {
    let runs = by_second(seconds, |second| (second.sent > 0).then(|| log(float(second.lag_p99_us))));
    let series = [Series { label: "", colour: Colour::BLUE, stroke: Stroke::Line, runs }];
    let sent = seconds.iter().filter(|second| second.sent > 0).map(|second| float(second.lag_p99_us));
    let y = Axis::logarithmic("ms", sent, MS);
    figure("The generator's lag behind its plan, p99", WIDE, seconds_axis(seconds.len()), y, &series)
}

/// One of the system's own metrics: a bar a minute.
pub(super) fn of_metric(metric: &MetricSeries, started_unix_ms: u64) -> Result<Figure, ReportError> {
    let first_minute = started_unix_ms / 60_000;
    let (scale, unit) = scale(metric);
    let minute = |seconds: u64| float((seconds / 60).saturating_sub(first_minute));
    let mut minutes = std::collections::BTreeMap::new();
    for (seconds, value) in &metric.points {
        minutes.insert((seconds / 60).saturating_sub(first_minute), value / scale);
    }
    let runs =
        minutes.iter().map(|(minute, value)| vec![(float(*minute), *value), (float(*minute) + 1.0, 0.0)]).collect();
    let largest = minutes.values().copied().fold(0.0, f64::max);
    let last = metric.points.iter().map(|(seconds, _)| minute(*seconds) + 1.0).fold(1.0, f64::max);
    let series = [Series { label: "", colour: Colour::BLUE, stroke: Stroke::Bars, runs }];
    let title = format!("{}, {}", metric.name, metric.statistic);
    figure(title, SMALL, Axis::minutes(last), Axis::linear(unit, largest), &series)
}

/// How many of its units make one of those that are shown, and their name.
fn scale(metric: &MetricSeries) -> (f64, &'static str) {
    match unit(&metric.name) {
        Some(Unit::Milliseconds) => (1.0, "ms"),
        Some(Unit::Seconds) => (1.0, "s"),
        Some(Unit::Bytes) => (1e6, "MB"),
        Some(Unit::Percent) => (1.0, "%"),
        Some(Unit::Count) => (1.0, "count a minute"),
        Some(Unit::None) | None => (1.0, "value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn seconds(values: &[u64]) -> Vec<Second> {
        values.iter().map(|value| Second { max_us: *value, ..Second::default() }).collect()
    }

    #[rstest]
    #[case(&[], vec![])]
    #[case(&[0, 0], vec![])]
    #[case(&[1, 2], vec![vec![(0.5, 1.0), (1.5, 2.0)]])]
    #[case(&[1, 0, 3, 4, 0], vec![vec![(0.5, 1.0)], vec![(2.5, 3.0), (3.5, 4.0)]])]
    fn lines_are_broken_where_there_is_nothing(#[case] values: &[u64], #[case] expected: Vec<Vec<(f64, f64)>>) {
        let found = by_second(&seconds(values), |second| (second.max_us > 0).then(|| float(second.max_us)));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_curve_says_each_percentiles_time() {
        let times = Distribution { buckets: vec![(10, 90), (100, 9), (1_000, 1)], ..Distribution::default() };
        let points = curve(&times);
        let expected = [(0.0, 1.0), (1.0, 1.0), (1.0, 2.0), (2.0, 2.0), (2.0, 3.0), (2.0, 3.0)];
        assert_eq!(points.len(), expected.len());
        for (found, expected) in points.iter().zip(expected) {
            assert!((found.0 - expected.0).abs() < 1e-9 && (found.1 - expected.1).abs() < 1e-9, "{points:?}");
        }
    }

    #[test]
    fn a_curve_ends_at_the_largest_percentile() {
        let times = Distribution { buckets: vec![(10, 1_000_000), (100, 1)], p99_99_us: 10, ..Distribution::default() };
        assert_eq!(curve(&times), [(0.0, 1.0), (MAX_NINES, 1.0)]);
    }

    #[test]
    fn a_histogram_has_all_times() {
        let times = Distribution { buckets: vec![(1, 1), (10, 2), (1_000, 1)], ..Distribution::default() };
        let steps = steps(&times);
        assert_eq!(steps.iter().map(|(_, share)| share).sum::<f64>(), 100.0);
        assert_eq!((steps[0], steps[20], steps.last()), ((0.0, 25.0), (1.0, 50.0), Some(&(3.05, 0.0))));
    }

    #[test]
    fn a_run_without_any_answer_has_its_plots() {
        assert!(
            rate(&[]).is_ok() && percentiles_over_time(&[]).is_ok() && lag(&[]).is_ok() && landed(&[], &[]).is_ok()
        );
        assert!(percentile_curves("", [("", &Distribution::default()); 2]).is_ok());
    }
}
