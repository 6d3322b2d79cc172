//! How cost grows with what there is to do.

use anyhow::Context;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::bars::{Bar, Bound};
use crate::functions::{Places, Subject};
use crate::job::Job;
use crate::measure::{Cost, Invocations, measure};
use crate::payloads;
use crate::rows::progress;

/// Fresh processes a point; medians.
const PROCESSES: u32 = 3;
/// CPU that a process gets at each point, so that small work is done often enough to be seen.
const POINT_CPU_US: f64 = 200_000.0;
const MOST_INVOCATIONS: f64 = 500.0;
const FEWEST_INVOCATIONS: f64 = 3.0;
/// Points at a series' upper end that its exponent is fitted to.
const UPPER_END: usize = 3;
/// What is linear has an exponent of 1; the rest is measurement, and caches that large work does not fit into.
const LARGEST_EXPONENT: f64 = 1.1;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SeriesName {
    /// Records in a batch, of some 45 bytes each: 10,000 of them just fit into the 6 MiB that Lambda hands over.
    BatchSize,
    /// Bytes of the one event in a POST.
    IngestedEventSize,
    /// Bytes of the one event in a batch.
    LandedEventSize,
    /// Events in a POST, all of one key.
    EventsAPost,
    /// Keys of the 500 events in a POST.
    KeysAPost,
}

impl SeriesName {
    pub(crate) const ALL: [Self; 5] =
        [Self::BatchSize, Self::IngestedEventSize, Self::LandedEventSize, Self::EventsAPost, Self::KeysAPost];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::BatchSize => "landing: records a batch, of 45 bytes",
            Self::IngestedEventSize => "ingest: bytes of the one event",
            Self::LandedEventSize => "landing: bytes of the one event",
            Self::EventsAPost => "ingest: events a POST, of one key",
            Self::KeysAPost => "ingest: keys of 500 events",
        }
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::BatchSize | Self::EventsAPost => &[1, 10, 100, 300, 1_000, 3_000, 10_000],
            Self::IngestedEventSize | Self::LandedEventSize => &[100, 1_000, 10_000, 100_000, 300_000, 900_000],
            Self::KeysAPost => &[1, 5, 20, 50, 100, 200, 500],
        }
    }

    fn job(self, size: usize) -> Job {
        match self {
            Self::BatchSize => Job::batch(&(0..size).map(payloads::short_line).collect::<Vec<_>>()),
            Self::IngestedEventSize => Job::post(vec![payloads::event_of(size)], Some(1)),
            Self::LandedEventSize => Job::batch(&[format!("{}\n", payloads::event_of(size))]),
            Self::EventsAPost => Job::post(payloads::events(size, 1), None),
            Self::KeysAPost => Job::post(payloads::events(500, size), Some(size as u64)),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) name: SeriesName,
    pub(crate) points: Vec<Point>,
    /// The power of the size that CPU per invocation grows with, at the upper end.
    pub(crate) exponent: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(crate) size: usize,
    /// Bytes that Lambda hands over.
    pub(crate) payload_bytes: usize,
    pub(crate) cpu_us: f64,
    pub(crate) cpu_us_per_event: f64,
    pub(crate) peak_rss_mib: f64,
}

pub(crate) fn measure_series(runtime: &Runtime, places: &Places, name: SeriesName) -> anyhow::Result<Series> {
    let mut points = Vec::new();
    for size in name.sizes() {
        progress(&format!("growth, {}: {size}", name.title()));
        let point = measure_point(runtime, places, name, *size);
        points.push(point.with_context(|| format!("{}, {size}", name.title()))?);
    }
    Ok(Series { name, exponent: exponent(&points), points })
}

fn measure_point(runtime: &Runtime, places: &Places, name: SeriesName, size: usize) -> anyhow::Result<Point> {
    let job = name.job(size);
    let run = |often| runtime.block_on(measure(places, Subject::Rust, &job, often));
    let first = run(Invocations { warm_up: 1, counted: 3 })?;
    let counted = (POINT_CPU_US / first.cpu_us).clamp(FEWEST_INVOCATIONS, MOST_INVOCATIONS) as u32;
    let costs: Vec<Cost> =
        (0..PROCESSES).map(|_| run(Invocations { warm_up: 2, counted })).collect::<anyhow::Result<_>>()?;
    let cost = Cost::median(&costs).context("nothing was measured")?;
    Ok(Point {
        size,
        payload_bytes: job.payload.len(),
        cpu_us: cost.cpu_us,
        cpu_us_per_event: cost.cpu_us / job.events as f64,
        peak_rss_mib: cost.peak_rss_mib,
    })
}

/// The slope of the least squares' line through the logarithms of the last points.
fn exponent(points: &[Point]) -> f64 {
    let upper_end = &points[points.len().saturating_sub(UPPER_END)..];
    let logarithms: Vec<(f64, f64)> =
        upper_end.iter().map(|point| ((point.size as f64).ln(), point.cpu_us.ln())).collect();
    let count = logarithms.len() as f64;
    let mean_x = logarithms.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logarithms.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = logarithms.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = logarithms.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    covariance / variance
}

/// Nothing may grow faster than linearly.
pub(crate) fn bar(series: &Series) -> Bar {
    let sizes: Vec<String> = series.points.iter().map(|point| point.size.to_string()).collect();
    let from = format!("CPU at {}", sizes[sizes.len().saturating_sub(UPPER_END)..].join(", "));
    Bar::new(format!("{}: exponent", series.name.title()), Bound::AtMost(LARGEST_EXPONENT), series.exponent, from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn points(power: f64) -> Vec<Point> {
        let point = |size: usize| Point {
            size,
            payload_bytes: 1,
            // What an invocation costs anyway hides growth at the lower end.
            cpu_us: if size < 100 { 500.0 } else { (size as f64).powf(power) },
            cpu_us_per_event: 1.0,
            peak_rss_mib: 1.0,
        };
        [1, 10, 100, 1_000, 10_000].map(point).to_vec()
    }

    #[rstest]
    #[case::less_than_linear(0.5, true)]
    #[case::linear(1.0, true)]
    #[case::just_within(1.0999, true)]
    #[case::just_beyond(1.1001, false)]
    #[case::quadratic(2.0, false)]
    fn the_exponent_is_that_of_the_upper_end(#[case] power: f64, #[case] holds: bool) {
        let series = Series { name: SeriesName::BatchSize, exponent: exponent(&points(power)), points: points(power) };
        assert!((series.exponent - power).abs() < 1e-9, "{}", series.exponent);
        assert_eq!(bar(&series).holds, holds);
    }

    #[test]
    fn too_few_points_hold_nothing() {
        let series = Series { name: SeriesName::BatchSize, exponent: exponent(&points(1.0)[..1]), points: Vec::new() };
        assert!(!bar(&series).holds);
    }
}
