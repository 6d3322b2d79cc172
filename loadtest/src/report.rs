//! The report: one HTML file that needs nothing else, with the result as JSON in it and uPlot to draw it.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Value, json};

use crate::compare::Comparison;
use crate::figures::{Quantity, Table, plan, results};
use crate::find_max::{FindMaxResult, Step};
use crate::result::{MetricSeries, Posts, RunResult, ThresholdOutcome, Truth, Verdict};

const UPLOT_STYLE: &str = include_str!("../vendor/uplot/uPlot.min.css");
const UPLOT: &str = include_str!("../vendor/uplot/uPlot.iife.min.js");
const STYLE: &str = include_str!("report/style.css");
const CHARTS: &str = include_str!("report/charts.js");

pub(crate) fn of_run(result: &RunResult) -> String {
    let body = html! {
        h1 { "Load test " (result.plan.run_id) }
        p { time datetime=(result.started()) { "started " (result.started()) } }
        (verdict(&result.verdict))
        (run(result))
    };
    page(&format!("Load test {}", result.plan.run_id), &body, &json!({ "runs": [result] }))
}

pub(crate) fn of_search(result: &FindMaxResult) -> String {
    let runs = Vec::from_iter(result.best());
    let started = result.steps.first().map(|step| step.result.started()).unwrap_or_default();
    let body = html! {
        h1 { "Search for the highest rate" }
        p { time datetime=(started) { "started " (started) } }
        div.verdict.(result.outcome().to_string().to_lowercase()) { p { (result.conclusion()) } }
        (chart("search", "Latency by rate"))
        div.wide { table {
            tr { th.number { "POSTs/s" } th {} th.number { "p50" } th.number { "p99" } th.number { "p99.9" } th { "why" } }
            @for step in &result.steps { (step_row(step)) }
        } }
        @for best in &runs {
            h1 { "At " (best.plan.rate) " POSTs a second" }
            (thresholds(&best.verdict.thresholds))
            (run(best))
        }
    };
    page("Search for the highest rate", &body, &json!({ "runs": runs, "search": result }))
}

pub(crate) fn of_comparison(comparison: &Comparison<'_>) -> String {
    let [a, b] = comparison.runs.map(|run| run.plan.run_id.as_str());
    let body = html! {
        h1 { "Load tests " (a) " (A) and " (b) " (B)" }
        @for (name, run) in ["A", "B"].into_iter().zip(comparison.runs) {
            div.verdict.(run.verdict.outcome.to_string().to_lowercase()) {
                p { (name) ", started " (run.started()) ": " b { (run.verdict.outcome) } " " (run.verdict.sentence()) }
            }
        }
        @for warning in &comparison.warnings { p { b { (warning) } } }
        @if !comparison.thresholds.is_empty() { h2 { "B/A" } (thresholds(&comparison.thresholds)) }
        h2 { "Plan" }
        (table(&comparison.plan, ""))
        (chart("percentiles", "Latency by percentile"))
        h2 { "Results" }
        (groups(&comparison.results))
    };
    page(&format!("{a} and {b}"), &body, &json!({ "runs": comparison.runs }))
}

/// The charts are drawn from `data`: the run or the two that are compared, and the search if it is one. No `<` is left in its
/// strings, and everything else in the page's scripts is ours.
fn page(title: &str, body: &Markup, data: &Value) -> String {
    let json = data.to_string().replace('<', "\\u003c");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(UPLOT_STYLE)) (PreEscaped(STYLE)) }
            }
            body {
                (body)
                script type="application/json" id="data" { (PreEscaped(json)) }
                script { (PreEscaped(UPLOT)) }
                script { (PreEscaped(CHARTS)) }
            }
        }
    };
    page.into_string()
}

/// Where `charts.js` draws the chart of this name.
fn chart(name: &str, title: &str) -> Markup {
    html! { figure data-chart=(name) { figcaption { (title) } } }
}

fn verdict(verdict: &Verdict) -> Markup {
    html! {
        div.verdict.(verdict.outcome.to_string().to_lowercase()) {
            p { span.word { (verdict.outcome) } " " (verdict.sentence()) }
            @for reason in &verdict.invalid_because { p { (reason) } }
            (thresholds(&verdict.thresholds))
        }
    }
}

fn thresholds(thresholds: &[ThresholdOutcome]) -> Markup {
    if thresholds.is_empty() {
        return html! {};
    }
    html! {
        table {
            tr { th { "threshold" } th { "found" } th {} }
            @for threshold in thresholds {
                tr {
                    td { code { (threshold.threshold) } }
                    td { (threshold.found()) }
                    td { @if threshold.holds { "holds" } @else { b { "does not hold" } } }
                }
            }
        }
    }
}

fn run(result: &RunResult) -> Markup {
    html! {
        h2 { "Plan" }
        (table(&plan(&[result]), ""))
        h2 { "Results" }
        (groups(&results(&[result])))
        (errors(&result.posts))
        @if let Some(truth) = &result.truth { (landed(truth)) }
        (chart("rate", "Rate"))
        (chart("latency", "Latency over time"))
        @if result.latency.count > 0 {
            (chart("percentiles", "Latency by percentile"))
            (chart("histogram", "Histogram"))
        }
        @if result.truth.is_some() { (chart("landed", "Landed over accepted")) }
        (chart("lag", "The generator's lag behind its plan, p99"))
        (system_metrics(&result.system_metrics))
    }
}

fn groups(tables: &[Table]) -> Markup {
    html! { div.groups { @for group in tables { div { h3 { (group.title) } (table(group, "B/A")) } } } }
}

fn table(table: &Table, note: &str) -> Markup {
    let is_of_two = table.rows.first().is_some_and(|row| row.cells.len() > 1);
    html! {
        table {
            @if is_of_two { tr { th {} th.number { "A" } th.number { "B" } th.number { (note) } } }
            @for row in &table.rows {
                tr.differs[row.differs()] {
                    td { (row.label) }
                    @for cell in row.cells.iter().chain([&row.note]) { td.number { (cell) } }
                }
            }
        }
    }
}

fn errors(posts: &Posts) -> Markup {
    if posts.errors() == 0 {
        return html! {};
    }
    let count = |count: &u64| Quantity::Count.show(*count as f64);
    html! {
        h2 { "Errors" }
        table {
            @for (status, posts) in &posts.unexpected {
                tr { td { "status " (status) ", not as expected" } td.number { (count(posts)) } }
            }
            @for (why, posts) in &posts.unanswered { tr { td { "no answer: " (why) } td.number { (count(posts)) } } }
        }
    }
}

fn landed(truth: &Truth) -> Markup {
    html! {
        @if truth.resolution_ms >= 1_000 && truth.landed > 0 {
            p { "S3 gives whole seconds: end-to-end times may be up to a second longer than shown." }
        }
        @if !truth.examples.is_empty() {
            h2 { "Missing, doubled or misplaced" }
            p { @for example in &truth.examples { code { (example) } br; } }
        }
    }
}

/// A chart for each that was ever more than 0; the others are only named.
fn system_metrics(metrics: &[MetricSeries]) -> Markup {
    let is_zero = |metric: &MetricSeries| metric.points.iter().all(|(_, value)| *value == 0.0);
    let zero: Vec<&str> = metrics.iter().filter(|metric| is_zero(metric)).map(|metric| &*metric.name).collect();
    html! {
        @if !metrics.is_empty() {
            h2 { "The system's own metrics, by the whole minute" }
            div.small {
                @for (place, metric) in metrics.iter().enumerate().filter(|(_, metric)| !is_zero(metric)) {
                    figure data-chart="metric" data-metric=(place) {
                        figcaption { (metric.name) ", " (metric.statistic) }
                    }
                }
            }
            @if !zero.is_empty() { p { "Always 0: " (zero.join(", ")) } }
        }
    }
}

fn step_row(step: &Step) -> Markup {
    let times = &step.result.latency;
    html! {
        tr {
            td.number { (step.rate) }
            td { (step.result.verdict.outcome) }
            @for us in [times.p50_us, times.p99_us, times.p99_9_us] { td.number { (Quantity::Time.show(us as f64)) } }
            td { (step.why()) }
        }
    }
}

#[cfg(test)]
mod tests;
