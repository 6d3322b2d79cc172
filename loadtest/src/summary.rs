//! A result in under thirty lines, for a terminal.

use crate::result::{Distribution, RunResult, ThresholdOutcome, Truth, Verdict};

/// How many are printed; the result has the rest.
const MAX_THRESHOLDS: usize = 5;
const MAX_EXAMPLES: usize = 2;

/// Ends with a line break.
pub(crate) fn text(result: &RunResult) -> String {
    let (plan, generator) = (&result.plan, &result.generator);
    let mut lines = vec![
        format!("run {}: {} POSTs a second for {} s, {}", plan.run_id, plan.rate, plan.duration_seconds, plan.workload),
        format!(
            "at {}, to {} ({}, {} connections opened)",
            result.started(),
            plan.url,
            plan.protocol,
            generator.connections_opened
        ),
        String::new(),
        posts(result),
        events(result),
        String::new(),
        row("milliseconds", ["p50", "p90", "p99", "p99.9", "p99.99", "max"].map(str::to_owned)),
        times("latency", &result.latency),
        times("service time", &result.service_time),
        times("lag", &generator.lag),
    ];
    if let Some(truth) = &result.truth {
        lines.push(times("end to end", &truth.end_to_end));
        lines.push(String::new());
        lines.extend(landed(truth));
    }
    lines.push(format!(
        "generator     {:.2} cores, {:.2} s without a CPU, {} MiB, {} POSTs held back",
        generator.cores_used,
        generator.run_queue_seconds,
        generator.peak_rss_bytes >> 20,
        generator.held_back
    ));
    lines.push(String::new());
    lines.extend(verdict(&result.verdict));
    lines.join("\n") + "\n"
}

fn posts(result: &RunResult) -> String {
    let posts = &result.posts;
    let mut line = format!("POSTs         {} planned, {} as expected", posts.planned, posts.as_expected);
    line.extend(posts.unexpected.iter().map(|(status, count)| format!(", {count} unexpected {status}")));
    line.extend(posts.unanswered.iter().map(|(why, count)| format!(", {count} without an answer ({why})")));
    line
}

fn events(result: &RunResult) -> String {
    let events = &result.events;
    let others = [(events.rejected, "rejected"), (events.not_stored, "not stored"), (events.unknown, "unknown")];
    let mut line = format!("events        {} sent, {} accepted", events.sent, events.accepted);
    line.extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}")));
    line
}

fn row(label: &str, cells: [String; 6]) -> String {
    format!("{label:<14}") + &cells.map(|cell| format!("{cell:>10}")).concat()
}

fn times(label: &str, times: &Distribution) -> String {
    if times.count == 0 {
        return format!("{label:<14}{:>10}", "none");
    }
    let us = [times.p50_us, times.p90_us, times.p99_us, times.p99_9_us, times.p99_99_us, times.max_us];
    row(label, us.map(|us| format!("{:.2}", us as f64 / 1_000.0)))
}

fn landed(truth: &Truth) -> Vec<String> {
    let found = truth.landed - truth.landed_unknown;
    let wrong = format!("{} missing, {} doubled, {} misplaced", truth.missing, truth.doubled, truth.misplaced);
    let mut lines =
        vec![format!("landed        {found} of {} stored: {wrong}; in {} files", truth.expected, truth.files)];
    if truth.landed_unknown > 0 {
        lines.push(format!("              {} more, whose POST was not answered", truth.landed_unknown));
    }
    lines.extend(truth.examples.iter().take(MAX_EXAMPLES).map(|example| format!("              {example}")));
    lines
}

/// Thresholds that do not hold come first.
fn verdict(verdict: &Verdict) -> Vec<String> {
    let (holding, broken): (Vec<_>, Vec<_>) = verdict.thresholds.iter().partition(|threshold| threshold.holds);
    let shown = broken.into_iter().chain(holding).take(MAX_THRESHOLDS);
    let mut lines: Vec<String> = shown.map(ThresholdOutcome::line).collect();
    lines.push(format!("{}: {}", verdict.outcome, verdict.sentence()));
    lines.extend(verdict.invalid_because.iter().map(|reason| format!("  {reason}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::sample;

    #[test]
    fn a_summary_has_what_counts_in_under_thirty_lines() {
        let mut result = sample();
        let threshold = result.verdict.thresholds.first().cloned();
        result.verdict.thresholds = vec![threshold.unwrap(); 20];
        result.verdict.invalid_because = vec!["it was slow".into(); 5];
        let truth = result.truth.as_mut().unwrap();
        (truth.landed, truth.landed_unknown) = (103, 5);
        truth.examples = vec!["missing".into(); 20];
        let text = text(&result);
        assert!(text.lines().count() < 30, "{text}");
        let when = "2026-11-21T00:00:00";
        for expected in
            ["100 planned, 99 as expected, 1 unexpected 503", "98 of 99 stored: 1 missing", "it was slow", when]
        {
            assert!(text.contains(expected), "{text}");
        }
    }
}
