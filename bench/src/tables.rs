//! The results as text: aligned for a terminal, and the same cells as Markdown.

use crate::bars::Bar;
use crate::functions::Subject;
use crate::growth::Series;
use crate::measure::Cost;
use crate::rows::Row;

/// A table with its heading; the first column is text, the others are numbers.
pub(crate) struct Table {
    pub(crate) heading: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Columns as wide as what is in them.
    pub(crate) fn aligned(&self) -> String {
        let lines: Vec<&Vec<String>> = std::iter::once(&self.heading).chain(&self.rows).collect();
        let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.heading.len()).map(width).collect();
        let mut text = String::new();
        for cells in lines {
            let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> =
            (0..self.heading.len()).map(|column| if column == 0 { "---".into() } else { "---:".into() }).collect();
        let rows: String = self.rows.iter().map(|cells| line(cells)).collect();
        format!("{}{}{rows}", line(&self.heading), line(&rule))
    }
}

pub(crate) fn costs(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "",
        "start-up",
        "first answer",
        "CPU",
        "CPU an event",
        "a CPU second",
        "a second",
        "peak memory",
        "records",
        "stored bytes",
    ]);
    for row in rows {
        table.rows.extend(row.costs.iter().map(|(subject, cost)| cost_cells(row, *subject, cost)));
        table.rows.extend(row.bzip2.iter().map(|bzip2| {
            let mut cells = vec![String::from("-"); table.heading.len()];
            cells[0] = format!("{}: C bzip2 -9 alone", row.name.title());
            cells[3] = format!("{:.0} µs", bzip2.cpu_us);
            cells[4] = format!("{:.1} µs", bzip2.cpu_us / row.events as f64);
            cells[5] = format!("{:.0}", 1e6 / bzip2.cpu_us);
            cells[9] = bzip2.compressed_bytes.to_string();
            cells
        }));
    }
    table
}

fn cost_cells(row: &Row, subject: Subject, cost: &Cost) -> Vec<String> {
    let stored = |value: f64| if subject == Subject::Empty { "-".into() } else { format!("{value:.0}") };
    vec![
        format!("{}: {subject}", row.name.title()),
        format!("{:.1} ms", cost.start_up_ms),
        format!("{:.1} ms", cost.first_answer_ms),
        format!("{:.0} µs", cost.cpu_us),
        format!("{:.1} µs", cost.cpu_us / row.events as f64),
        format!("{:.0}", cost.invocations_per_cpu_second()),
        format!("{:.0}", cost.invocations_per_second),
        format!("{:.1} MiB", cost.peak_rss_mib),
        stored(cost.records),
        stored(cost.stored_bytes),
    ]
}

pub(crate) fn growth(all: &[Series]) -> Table {
    let mut table = Table::new(&["", "size", "payload", "CPU an invocation", "CPU an event", "peak memory"]);
    for series in all {
        table.rows.extend(series.points.iter().map(|point| {
            vec![
                series.name.title().into(),
                point.size.to_string(),
                format!("{:.1} KiB", point.payload_bytes as f64 / 1024.0),
                format!("{:.2} ms", point.cpu_us / 1e3),
                format!("{:.1} µs", point.cpu_us_per_event),
                format!("{:.1} MiB", point.peak_rss_mib),
            ]
        }));
    }
    table
}

pub(crate) fn bars(bars: &[Bar]) -> Table {
    let mut table = Table::new(&["", "", "bound", "seen", "from"]);
    table.rows.extend(bars.iter().map(|bar| {
        let seen = format!("{:.3}", bar.seen);
        vec![bar.what.clone(), bar.verdict().into(), bar.bound.to_string(), seen, bar.from.clone()]
    }));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_markdown() {
        let table = Table {
            heading: vec![String::new(), "CPU".into()],
            rows: vec![vec!["a row".into(), "1 µs".into()], vec!["b".into(), "10 µs".into()]],
        };
        assert_eq!(table.aligned(), "         CPU\na row   1 µs\nb      10 µs\n");
        assert_eq!(table.markdown(), "|  | CPU |\n| --- | ---: |\n| a row | 1 µs |\n| b | 10 µs |\n");
    }
}
