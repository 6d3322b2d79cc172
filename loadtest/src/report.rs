//! The report of a run: one HTML file that needs nothing else, neither a network nor a font.

mod axis;
mod chart;
mod figures;
pub(crate) mod numbers;
pub(crate) mod page;
pub(crate) mod quantity;

use maud::{Markup, html};

use crate::result::{MetricSeries, Outcome, Plan, Posts, RunResult, Truth, Verdict};
pub(crate) use figures::percentile_curves;
use numbers::Group;

/// A plot that could not be drawn.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("a plot can't be drawn: {0}")]
    Plot(String),
}

/// The whole page. Whatever text the result holds is escaped.
///
/// # Errors
///
/// When a plot can't be drawn.
pub(crate) fn html(result: &RunResult) -> Result<String, ReportError> {
    let figures = figures::of_run(result)?;
    let (silent, moving): (Vec<_>, Vec<_>) = result.system_metrics.iter().partition(|metric| is_zero(metric));
    let metrics = moving.into_iter().map(|metric| figures::of_metric(metric, result.started_unix_ms));
    let metrics = metrics.collect::<Result<Vec<_>, _>>()?;
    let body = html! {
        h1 { "Load test " (result.plan.run_id) }
        (verdict(&result.verdict))
        h2 { "What was asked" }
        (plan(&result.plan))
        h2 { "What was found" }
        div.groups { @for group in numbers::groups(result) { (table(&group)) } }
        (errors(&result.posts))
        @if let Some(truth) = &result.truth { (landed(truth)) }
        @for figure in &figures { (page::figure(figure)) }
        @if !result.system_metrics.is_empty() {
            h2 { "The system's own metrics, by the whole minute" }
            div.small { @for figure in &metrics { (page::figure(figure)) } }
            @if !silent.is_empty() { p { "0 all the time: " (names(&silent)) } }
        }
    };
    Ok(page::page(&format!("Load test {}", result.plan.run_id), &body))
}

/// The verdict in words.
pub(crate) fn outcome_words(verdict: &Verdict) -> (&'static str, String) {
    let broken = verdict.thresholds.iter().filter(|threshold| !threshold.holds).count();
    let all = verdict.thresholds.len();
    match verdict.outcome {
        Outcome::Pass if all == 0 => ("PASS", "No threshold was given.".into()),
        Outcome::Pass => ("PASS", "Every threshold holds.".into()),
        Outcome::Fail => ("FAIL", format!("{broken} of {all} thresholds do not hold.")),
        Outcome::Invalid => {
            ("INVALID", "The generator fell behind its plan: what was measured is not the system.".into())
        }
    }
}

fn is_zero(metric: &MetricSeries) -> bool {
    metric.points.iter().all(|(_, value)| *value == 0.0)
}

fn names(metrics: &[&MetricSeries]) -> String {
    metrics.iter().map(|metric| metric.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn verdict(verdict: &Verdict) -> Markup {
    let (word, words) = outcome_words(verdict);
    html! {
        div.verdict.(word.to_lowercase()) {
            p { span.word { (word) } " " (words) }
            @for reason in &verdict.invalid_because { p { (reason) } }
            @if !verdict.thresholds.is_empty() {
                table {
                    tr { th { "threshold" } th { "found" } th {} }
                    @for threshold in &verdict.thresholds {
                        tr {
                            td { code { (threshold.threshold) } }
                            td { (threshold.found.as_deref().unwrap_or("not known")) }
                            td { @if threshold.holds { "holds" } @else { b { "does not hold" } } }
                        }
                    }
                }
            }
        }
    }
}

/// What was asked, each with its name.
pub(crate) fn asked(plan: &Plan) -> Vec<(&'static str, String)> {
    vec![
        ("URL", plan.url.clone()),
        ("workload", plan.workload.clone()),
        ("rate", format!("{} POSTs a second", plan.rate)),
        ("duration", quantity::Quantity::Seconds.show(plan.duration_seconds)),
        ("protocol", plan.protocol.clone()),
        ("connections", format!("{} to {}", plan.connections, plan.max_connections)),
        ("seed", plan.seed.to_string()),
    ]
}

fn plan(plan: &Plan) -> Markup {
    html! { table { @for (name, what) in asked(plan) { tr { td { (name) } td { code { (what) } } } } } }
}

fn table(group: &Group) -> Markup {
    html! {
        div {
            h3 { (group.title) }
            table { @for number in &group.numbers { tr { td { (number.label) } td.number { (number.show()) } } } }
        }
    }
}

fn errors(posts: &Posts) -> Markup {
    if posts.errors() == 0 {
        return html! {};
    }
    let count = |count: &u64| quantity::thousands(numbers::float(*count));
    html! {
        h2 { "Errors" }
        table {
            @for (status, posts) in &posts.unexpected {
                tr { td { "status " (status) ", not as expected" } td.number { (count(posts)) } }
            }
            @for (what, posts) in &posts.unanswered { tr { td { "no answer: " (what) } td.number { (count(posts)) } } }
        }
    }
}

fn landed(truth: &Truth) -> Markup {
    html! {
        @if truth.resolution_ms >= 1_000 && truth.landed > 0 {
            p { "S3 gives whole seconds: end-to-end times may be up to a second longer than shown." }
        }
        @if !truth.examples.is_empty() {
            h2 { "Not as it should be" }
            p { @for example in &truth.examples { code { (example) } br; } }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::sample;
