//! The results as Markdown, for a terminal and for docs/PERFORMANCE.md.

use anyhow::Context;

use crate::implementation::Implementation;
use crate::measure::Cost;
use crate::results::{Results, Row};
use crate::servers;
use crate::targets::Target;

const BEGIN: &str = "<!-- `make bench` writes this part -->\n";
const END: &str = "<!-- end of that part -->\n";

/// The page with this between its marks.
pub(crate) fn replace(page: &str, content: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("there is no line {BEGIN:?}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("there is no line {END:?}"))?;
    Ok(format!("{before}{BEGIN}\n{content}\n{END}{after}"))
}

pub(crate) fn costs(results: &Results) -> String {
    let rows = results.rows.iter().flat_map(cost_rows);
    let costs = table(&["", "CPU", "CPU an event", "start-up", "first answer", "peak memory", "stored bytes"], rows);
    format!("{}\n\n{costs}\n{}", results.conditions, servers::report::costs(&results.servers))
}

/// For those who change the functions; the page has costs alone.
pub(crate) fn met_targets(results: &Results) -> String {
    table(&["", "target", "measured", ""], results.targets().iter().map(target_row))
}

fn cost_rows(row: &Row) -> Vec<Vec<String>> {
    let mut rows: Vec<_> =
        row.costs.iter().map(|(implementation, cost)| cost_row(row, *implementation, cost)).collect();
    rows.extend(row.libbz2.map(|libbz2| {
        let name = format!("{}: libbz2 alone", row.workload.title());
        let [cpu, an_event] = cpu(row, libbz2.cpu_us);
        vec![name, cpu, an_event, "-".into(), "-".into(), "-".into(), libbz2.compressed_bytes.to_string()]
    }));
    rows
}

fn cost_row(row: &Row, implementation: Implementation, cost: &Cost) -> Vec<String> {
    let [cpu, an_event] = cpu(row, cost.cpu_us);
    let stored =
        if implementation == Implementation::EmptyHandler { "-".into() } else { format!("{:.0}", cost.stored_bytes) };
    vec![
        format!("{}: {}", row.workload.title(), implementation.name()),
        cpu,
        an_event,
        format!("{:.1} ms", cost.start_up_ms),
        format!("{:.1} ms", cost.first_answer_ms),
        format!("{:.1} MiB", cost.peak_rss_mib),
        stored,
    ]
}

fn cpu(row: &Row, cpu_us: f64) -> [String; 2] {
    [format!("{cpu_us:.0} µs"), format!("{:.1} µs", cpu_us / row.events as f64)]
}

fn target_row(target: &Target) -> Vec<String> {
    let verdict = if target.is_met() { "met" } else { "missed" };
    let what = format!("{}: {}", target.of, target.what);
    vec![what, target.bound.to_string(), format!("{:.2}", target.measured), verdict.into()]
}

/// Padded, so that it can be read in a terminal too. The first column is text; the others are numbers.
pub(crate) fn table(heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let heading: Vec<String> = heading.iter().map(ToString::to_string).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!(" {cell:<width$} |"),
            _ => format!(" {cell:>width$} |"),
        });
        format!("|{}\n", padded.collect::<String>())
    };
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => format!(" {} |", "-".repeat(*width)),
        _ => format!(" {}: |", "-".repeat(width - 1)),
    });
    let rule = format!("|{}\n", rule.collect::<String>());
    format!("{}{rule}{}", line(&lines[0]), lines[1..].iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_measured_json_holds() {
        let results: Results = serde_json::from_str(include_str!("../../../docs/measured.json")).unwrap();
        let page = include_str!("../../../docs/PERFORMANCE.md");
        let is_fresh = replace(page, &costs(&results)).unwrap() == page;
        assert!(is_fresh, "docs/PERFORMANCE.md does not show docs/measured.json: run `make bench`");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("a\n{BEGIN}old\n{END}z\n");
        let once = replace(&page, "new\n").unwrap();
        assert_eq!(once, format!("a\n{BEGIN}\nnew\n\n{END}z\n"));
        assert_eq!(replace(&once, "new\n").unwrap(), once);
        assert!(replace(&page.replace(END, ""), "new").is_err());
        assert!(replace("a\n", "new").is_err());
    }

    #[test]
    fn tables_are_padded_markdown() {
        let rows = [vec!["a row".to_owned(), "1 µs".to_owned()], vec!["b".to_owned(), "10 µs".to_owned()]];
        let expected = "|       |   CPU |\n| ----- | ----: |\n| a row |  1 µs |\n| b     | 10 µs |\n";
        assert_eq!(table(&["", "CPU"], rows.into_iter()), expected);
    }
}
