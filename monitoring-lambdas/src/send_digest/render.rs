//! A digest as a page: a table a section, readable on a phone, light or dark.

use super::digest::{Digest, Line, Section};
use crate::notify::chart::{LEVELS, NOTHING};
use crate::notify::html::{escape, page};

/// The page.
pub(crate) fn html(digest: &Digest) -> String {
    let blocks: Vec<_> = digest.sections.iter().map(section).collect();
    page(&digest.subject, &blocks)
}

fn section(section: &Section) -> String {
    let rows: String = section.lines.iter().map(row).collect();
    format!(
        "<h2 style=\"font-size:16px;margin:20px 0 4px\">{}</h2>\
         <table role=\"presentation\" style=\"border-collapse:collapse;width:100%\">{rows}</table>",
        escape(section.title)
    )
}

/// Whether a line is a chart of the day's hours.
fn is_chart(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|character| character == NOTHING || LEVELS.contains(&character))
}

/// What is notable is bold behind a bar: no colour says it alone.
fn row(line: &Line) -> String {
    let (bar, weight) = if line.is_notable { ("#d9480f", "700") } else { ("transparent", "400") };
    let cell = "padding:3px 8px;vertical-align:top;border-bottom:1px solid rgba(128,128,128,.3)";
    if is_chart(&line.value) {
        let (label, chart) = (escape(&line.label), escape(&line.value));
        return format!(
            "<tr><td colspan=\"2\" style=\"{cell};border-left:4px solid {bar};white-space:nowrap\">{label}<br>{chart}</td></tr>"
        );
    }
    format!(
        "<tr><td style=\"{cell};border-left:4px solid {bar};width:38%;font-weight:{weight}\">{}</td>\
         <td style=\"{cell};font-weight:{weight};overflow-wrap:anywhere\">{}</td></tr>",
        escape(&line.label),
        escape(&line.value)
    )
}
