//! One plot as SVG. All its text is SVG text: the browser draws it with a font that it has.

use plotters::prelude::*;

use super::ReportError;
use super::axis::Axis;

/// How something is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    Line,
    Dashed,
    /// Wide and pale, under what is to be compared with it.
    Wide,
    /// From 0 up, each as wide as to the next point; the last point only ends it.
    Bars,
}

/// Points in the order in which they are joined, and what they are.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) label: &'static str,
    pub(super) colour: Colour,
    pub(super) stroke: Stroke,
    /// Not joined with one another: between them there is no data.
    pub(super) runs: Vec<Vec<(f64, f64)>>,
}

/// Okabe and Ito's colours, which the colour-blind tell apart, and a grey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour(u8, u8, u8);

impl Colour {
    pub(super) const GREY: Self = Self(0xc4, 0xc4, 0xc4);
    pub(super) const SKY: Self = Self(0x56, 0xb4, 0xe9);
    pub(super) const BLUE: Self = Self(0x00, 0x72, 0xb2);
    pub(super) const GREEN: Self = Self(0x00, 0x9e, 0x73);
    pub(super) const ORANGE: Self = Self(0xe6, 0x9f, 0x00);
    pub(super) const RED: Self = Self(0xd5, 0x5e, 0x00);

    /// As CSS has it.
    pub(super) fn css(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    fn plotted(self) -> RGBColor {
        RGBColor(self.0, self.1, self.2)
    }
}

/// A plot's size in CSS pixels.
pub(super) type Size = (u32, u32);

const TEXT_PIXELS: u32 = 15;
const TEXT_COLOUR: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID_COLOUR: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);

/// The plot's SVG.
pub(super) fn draw(size: Size, x: Axis, y: Axis, series: &[Series]) -> Result<String, ReportError> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw_on(&area, x, y, series).map_err(|problem| ReportError::Plot(problem.to_string()))?;
        area.present().map_err(|problem| ReportError::Plot(problem.to_string()))?;
    }
    Ok(svg)
}

type Area<'s> = DrawingArea<SVGBackend<'s>, plotters::coord::Shift>;
type Problem<'s> = DrawingAreaErrorKind<<SVGBackend<'s> as DrawingBackend>::ErrorType>;

fn draw_on<'s>(area: &Area<'s>, x: Axis, y: Axis, series: &[Series]) -> Result<(), Problem<'s>> {
    let (x_title, y_title) = (x.title.clone(), y.title.clone());
    let text = ("sans-serif", TEXT_PIXELS).into_font().color(&TEXT_COLOUR);
    let mut chart = ChartBuilder::on(area)
        .margin_top(8)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID_COLOUR)
        .axis_style(TEXT_COLOUR)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(x_title)
        .y_desc(y_title)
        .draw()?;
    for one in series {
        let colour = one.colour.plotted();
        for run in &one.runs {
            match one.stroke {
                Stroke::Bars => {
                    let bar = |ends: &[(f64, f64)]| {
                        Rectangle::new([(ends[0].0, 0.0), (ends[1].0, ends[0].1)], colour.filled())
                    };
                    chart.draw_series(run.windows(2).filter(|ends| ends[0].1 > 0.0).map(bar))?;
                }
                // One point makes no line.
                _ if run.len() == 1 => {
                    chart.draw_series(run.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
                }
                Stroke::Line => {
                    chart.draw_series(LineSeries::new(run.iter().copied(), colour.stroke_width(2)))?;
                }
                Stroke::Wide => {
                    chart.draw_series(LineSeries::new(run.iter().copied(), colour.stroke_width(7)))?;
                }
                Stroke::Dashed => {
                    let dashes = DashedLineSeries::new(run.iter().copied(), 6, 4, colour.stroke_width(2));
                    chart.draw_series(dashes)?;
                }
            }
        }
    }
    Ok(())
}
