//! The plot of docs/PERFORMANCE.md: CPU an invocation and peak memory over each size, on logarithmic axes.

use std::path::Path;

use anyhow::anyhow;
use plotters::chart::{ChartBuilder, LabelAreaPosition};
use plotters::coord::combinators::IntoLogRange;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::Circle;
use plotters::prelude::SVGBackend;
use plotters::series::{DashedLineSeries, LineSeries};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, WHITE};

use crate::growth::{Point, Series};

/// Pixels of one chart.
const CHART_SIZE: (u32, u32) = (420, 220);
const CPU: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const MEMORY: RGBColor = RGBColor(0xb0, 0x48, 0x1e);
const LINEAR: RGBColor = RGBColor(0x90, 0x90, 0x90);

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// One row a series: CPU on the left, memory on the right.
pub(crate) fn draw(path: &Path, all: &[Series]) -> anyhow::Result<()> {
    let size = (CHART_SIZE.0 * 2, CHART_SIZE.1 * u32::try_from(all.len())?);
    let root = SVGBackend::new(path, size).into_drawing_area();
    let failed = |problem: &dyn std::fmt::Display| anyhow!("the plot {} failed: {problem}", path.display());
    root.fill(&WHITE).map_err(|problem| failed(&problem))?;
    let cpu = Curve { value: |point| point.cpu_us / 1e3, unit: "CPU, ms", colour: CPU, linear: true };
    let memory = Curve { value: |point| point.peak_rss_mib, unit: "peak memory, MiB", colour: MEMORY, linear: false };
    let areas = root.split_evenly((all.len(), 2));
    let curves = all.iter().flat_map(|series| [(series, &cpu), (series, &memory)]);
    for (area, (series, curve)) in areas.iter().zip(curves) {
        chart(area, series, curve).map_err(|problem| failed(&problem))?;
    }
    root.present().map_err(|problem| failed(&problem))
}

struct Curve {
    value: fn(&Point) -> f64,
    unit: &'static str,
    colour: RGBColor,
    /// Whether to show what linear growth to the last point would be.
    linear: bool,
}

fn chart(area: &Area<'_>, series: &Series, curve: &Curve) -> Result<(), Box<dyn std::error::Error>> {
    let points: Vec<(f64, f64)> = series.points.iter().map(|point| (point.size as f64, (curve.value)(point))).collect();
    let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) else { return Ok(()) };
    let (low, high) = decades(points.iter().map(|(_, value)| *value));
    let (title, horizontal) = series.name.title().split_once(": ").unwrap_or(("", series.name.title()));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15).into_font())
        .margin(10)
        .margin_right(24)
        .set_label_area_size(LabelAreaPosition::Left, 58)
        .set_label_area_size(LabelAreaPosition::Bottom, 42)
        .build_cartesian_2d((first.0..last.0).log_scale(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(6)
        .y_labels(5)
        .x_desc(horizontal)
        .y_desc(curve.unit)
        .axis_desc_style(("sans-serif", 13))
        .label_style(("sans-serif", 12))
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    if curve.linear {
        let from = first.0.max(last.0 * low / last.1);
        let line = [(from, last.1 * from / last.0), last];
        chart.draw_series(DashedLineSeries::new(line, 4, 4, LINEAR.stroke_width(1)))?;
    }
    chart.draw_series(LineSeries::new(points.iter().copied(), curve.colour.stroke_width(2)))?;
    let filled: ShapeStyle = curve.colour.filled();
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, filled)))?;
    Ok(())
}

/// The powers of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
    if low < high { (low, high) } else { (low, low * 10.0) }
}

/// 0.1, 10, 10k.
fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e3 {
        format!("{}k", value / 1e3)
    } else {
        format!("{}", (value * 1e3).round() / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::SeriesName;
    use rstest::rstest;

    #[test]
    fn each_series_has_its_charts() {
        let point = |size: usize| Point {
            size,
            payload_bytes: 1,
            cpu_us: size as f64 * 10.0,
            cpu_us_per_event: 10.0,
            peak_rss_mib: 8.0,
        };
        let series = |name| Series { name, points: [1, 10, 100].map(point).to_vec(), exponent: 1.0 };
        let path = std::env::temp_dir().join(format!("playhead-growth-plot-{}.svg", std::process::id()));
        draw(&path, &SeriesName::ALL.map(series)).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for text in ["records a batch", "keys of 500 events", "CPU, ms", "peak memory, MiB"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("peak memory, MiB").count(), SeriesName::ALL.len());
    }

    #[rstest]
    #[case(&[0.2, 30.0], (0.1, 100.0))]
    #[case(&[1.0, 10.0], (1.0, 10.0))]
    #[case(&[10.0], (10.0, 100.0))]
    fn axes_end_at_powers_of_ten(#[case] values: &[f64], #[case] expected: (f64, f64)) {
        assert_eq!(decades(values.iter().copied()), expected);
    }

    #[rstest]
    #[case(0.1, "0.1")]
    #[case(100.0, "100")]
    #[case(10_000.0, "10k")]
    #[case(1_000_000.0, "1M")]
    fn labels_are_short(#[case] value: f64, #[case] expected: &str) {
        assert_eq!(short(value), expected);
    }
}
