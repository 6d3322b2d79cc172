//! Two results side by side: what was asked, and what was found.

use maud::{Markup, html};

use crate::report::numbers::{Group, Number, groups};
use crate::report::page;
use crate::report::{ReportError, asked, outcome_words, percentile_curves};
use crate::result::{Outcome, RunResult};

/// A row of the comparison.
#[derive(Debug)]
struct Row {
    label: &'static str,
    a: String,
    b: String,
    /// B over A; empty where A is 0 or one of them has no such number.
    ratio: String,
}

/// As text for a terminal.
pub(crate) fn text(a: &RunResult, b: &RunResult) -> String {
    let mut lines = vec![line("", "A", "B", "B/A"), line("run", &a.plan.run_id, &b.plan.run_id, "")];
    lines.extend(asked_rows(a, b).iter().map(|row| line(row.label, &row.a, &row.b, &row.ratio)));
    lines.push(line("verdict", outcome_words(&a.verdict).0, outcome_words(&b.verdict).0, ""));
    let warnings = warnings(a, b);
    if !warnings.is_empty() {
        lines.push(String::new());
        lines.extend(warnings);
    }
    for (title, rows) in found(a, b) {
        lines.extend([String::new(), title.to_owned()]);
        lines.extend(rows.iter().map(|row| line(row.label, &row.a, &row.b, &row.ratio)));
    }
    lines.join("\n") + "\n"
}

/// As a page, with the percentiles of both in one plot.
///
/// # Errors
///
/// When the plot can't be drawn.
pub(crate) fn html(a: &RunResult, b: &RunResult) -> Result<String, ReportError> {
    let plot = percentile_curves("Latency by percentile", [("A", &a.latency), ("B", &b.latency)])?;
    let title = format!("{} and {}", a.plan.run_id, b.plan.run_id);
    let body = html! {
        h1 { "Load tests " (a.plan.run_id) " (A) and " (b.plan.run_id) " (B)" }
        @for result in [a, b] { (verdict(result)) }
        @for warning in warnings(a, b) { p { b { (warning) } } }
        h2 { "What was asked" }
        (table(&asked_rows(a, b), true))
        (page::figure(&plot))
        h2 { "What was found" }
        div.groups { @for (title, rows) in found(a, b) { div { h3 { (title) } (table(&rows, false)) } } }
    };
    Ok(page::page(&title, &body))
}

fn verdict(result: &RunResult) -> Markup {
    let (word, words) = outcome_words(&result.verdict);
    html! { div.verdict.(word.to_lowercase()) { p { (result.plan.run_id) ": " b { (word) } " " (words) } } }
}

fn table(rows: &[Row], marks_differences: bool) -> Markup {
    html! {
        table {
            tr { th {} th.number { "A" } th.number { "B" } th.number { @if !marks_differences { "B/A" } } }
            @for row in rows {
                tr class=(if marks_differences && row.a != row.b { "differs" } else { "" }) {
                    td { (row.label) } td.number { (row.a) } td.number { (row.b) } td.number { (row.ratio) }
                }
            }
        }
    }
}

fn line(label: &str, a: &str, b: &str, ratio: &str) -> String {
    format!("{label:<30} {a:>26} {b:>26} {ratio:>10}").trim_end().to_owned()
}

fn asked_rows(a: &RunResult, b: &RunResult) -> Vec<Row> {
    let pairs = asked(&a.plan).into_iter().zip(asked(&b.plan));
    let mark = |a: &str, b: &str| if a == b { String::new() } else { "differs".into() };
    pairs.map(|((label, a), (_, b))| Row { label, ratio: mark(&a, &b), a, b }).collect()
}

/// What a reader must know before he compares anything.
fn warnings(a: &RunResult, b: &RunResult) -> Vec<String> {
    let mut warnings = Vec::new();
    let different: Vec<&str> = asked_rows(a, b).iter().filter(|row| row.a != row.b).map(|row| row.label).collect();
    if !different.is_empty() {
        warnings.push(format!("These were different plans; what differs: {}.", different.join(", ")));
    }
    for (name, result) in [("A", a), ("B", b)] {
        if result.verdict.outcome == Outcome::Invalid {
            let why = result.verdict.invalid_because.join("; ");
            warnings.push(format!("{name} is INVALID, and its numbers are not the system's: {why}"));
        }
    }
    warnings
}

/// The main numbers of both; a group that only one has is left out of neither.
fn found(a: &RunResult, b: &RunResult) -> Vec<(&'static str, Vec<Row>)> {
    let (a, b) = (groups(a), groups(b));
    let more = if a.len() >= b.len() { &a } else { &b };
    let of = |groups: &[Group], title: &str| groups.iter().position(|group| group.title == title);
    let both = |group: &Group| {
        let (a, b) = (of(&a, group.title).map(|place| &a[place]), of(&b, group.title).map(|place| &b[place]));
        let number =
            |place: usize| row(group.numbers[place].label, a.map(|a| &a.numbers[place]), b.map(|b| &b.numbers[place]));
        (group.title, (0..group.numbers.len()).map(number).collect())
    };
    more.iter().map(both).collect()
}

fn row(label: &'static str, a: Option<&Number>, b: Option<&Number>) -> Row {
    let show = |number: Option<&Number>| number.map_or_else(|| String::from("not known"), Number::show);
    let ratio = match (a, b) {
        (Some(a), Some(b)) if a.value != 0.0 => format!("{:.2}", b.value / a.value),
        _ => String::new(),
    };
    Row { label, a: show(a), b: show(b), ratio }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn line_of<'t>(text: &'t str, label: &str) -> Vec<&'t str> {
        let line = text.lines().find(|line| line.starts_with(label));
        line.map(|line| line[30..].split("  ").map(str::trim).filter(|word| !word.is_empty()).collect())
            .unwrap_or_default()
    }

    #[test]
    fn numbers_stand_beside_each_other_with_their_ratio() {
        let (a, mut b) = (sample(), sample());
        b.latency.p99_us = a.latency.p99_us * 3;
        b.generator.held_back = 5;
        let text = text(&a, &b);
        assert_eq!(line_of(&text, "p99 "), ["9 ms", "27 ms", "3.00"]);
        // Nothing is so many times nothing.
        assert_eq!(line_of(&text, "POSTs held back"), ["0", "5"]);
        assert!(!text.contains("different plans") && !text.contains("INVALID") && !text.contains("differs"), "{text}");
    }

    #[test]
    fn different_plans_are_called_so_and_what_differs_is_marked() {
        let (a, mut b) = (sample(), sample());
        b.plan.rate = "99".into();
        b.plan.run_id = "other".into();
        let text = text(&a, &b);
        assert!(text.contains("These were different plans; what differs: rate."), "{text}");
        assert_eq!(line_of(&text, "rate"), ["50 POSTs a second", "99 POSTs a second", "differs"]);
        let page = html(&a, &b).unwrap();
        assert_eq!(page.matches("<tr class=\"differs\">").count(), 1);
    }

    #[test]
    fn an_invalid_run_is_called_so() {
        let (a, mut b) = (sample(), sample());
        b.verdict.outcome = Outcome::Invalid;
        b.verdict.invalid_because = vec!["lag p99 of 80 ms".into()];
        let words = "B is INVALID, and its numbers are not the system's: lag p99 of 80 ms";
        assert!(text(&a, &b).contains(words));
        assert!(html(&b, &a).unwrap().contains("A is INVALID"));
    }

    #[test]
    fn what_only_one_of_them_knows_is_shown() {
        let (a, mut b) = (sample(), sample());
        b.truth = None;
        assert_eq!(line_of(&text(&a, &b), "missing"), ["1", "not known"]);
        assert_eq!(line_of(&text(&b, &a), "missing"), ["not known", "1"]);
    }
}
