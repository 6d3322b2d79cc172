//! A result in under thirty lines, for a terminal.

use crate::report::outcome_words;
use crate::result::{Distribution, RunResult, Truth};

/// Ends with a line break.
pub(crate) fn text(result: &RunResult) -> String {
    let mut lines = vec![
        format!(
            "run {}: {} POSTs a second for {} s, {}",
            result.plan.run_id, result.plan.rate, result.plan.duration_seconds, result.plan.workload
        ),
        format!(
            "to {} ({}, {} connections opened)",
            result.plan.url, result.plan.protocol, result.generator.connections_opened
        ),
        String::new(),
        posts(result),
        events(result),
        String::new(),
        format!(
            "{:<14}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "milliseconds", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        ),
        times("latency", &result.latency),
        times("service time", &result.service_time),
        times("lag", &result.generator.lag),
    ];
    if let Some(truth) = &result.truth {
        lines.push(times("end to end", &truth.end_to_end));
        lines.push(String::new());
        lines.extend(landed(truth));
    }
    lines.push(format!(
        "generator     {:.2} cores, {:.2} s without a CPU, {} MiB, {} POSTs held back",
        result.generator.cores_used,
        result.generator.run_queue_seconds,
        result.generator.peak_rss_bytes >> 20,
        result.generator.held_back
    ));
    lines.push(String::new());
    lines.extend(verdict(result));
    lines.join("\n") + "\n"
}

fn posts(result: &RunResult) -> String {
    let posts = &result.posts;
    let mut line = format!("POSTs         {} planned, {} as expected", posts.planned, posts.as_expected);
    for (status, count) in &posts.unexpected {
        line.push_str(&format!(", {count} unexpected {status}"));
    }
    for (why, count) in &posts.unanswered {
        line.push_str(&format!(", {count} without an answer ({why})"));
    }
    line
}

fn events(result: &RunResult) -> String {
    let events = &result.events;
    let mut line = format!("events        {} sent, {} accepted", events.sent, events.accepted);
    for (count, what) in [(events.rejected, "rejected"), (events.not_stored, "not stored"), (events.unknown, "unknown")]
    {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    line
}

fn times(what: &str, times: &Distribution) -> String {
    if times.count == 0 {
        return format!("{what:<14}{:>10}", "none");
    }
    let mut line = format!("{what:<14}");
    for us in [times.p50_us, times.p90_us, times.p99_us, times.p99_9_us, times.p99_99_us, times.max_us] {
        #[allow(clippy::cast_precision_loss)] // An hour at most.
        line.push_str(&format!("{:>10.2}", us as f64 / 1_000.0));
    }
    line
}

fn landed(truth: &Truth) -> Vec<String> {
    let mut lines = vec![format!(
        "landed        {} of {} stored: {} missing, {} doubled, {} misplaced; in {} files",
        truth.landed - truth.landed_unknown,
        truth.expected,
        truth.missing,
        truth.doubled,
        truth.misplaced,
        truth.files
    )];
    if truth.landed_unknown > 0 {
        lines.push(format!("              {} more, whose POST was not answered", truth.landed_unknown));
    }
    lines.extend(truth.examples.iter().take(MAX_EXAMPLES).map(|example| format!("              {example}")));
    lines
}

/// As many lines as there is room for: the result has all of them.
const MAX_THRESHOLDS: usize = 5;
const MAX_EXAMPLES: usize = 2;

fn verdict(result: &RunResult) -> Vec<String> {
    let verdict = &result.verdict;
    let shown = verdict.thresholds.iter().filter(|threshold| !threshold.holds);
    let shown = shown.chain(verdict.thresholds.iter().filter(|threshold| threshold.holds)).take(MAX_THRESHOLDS);
    let mut lines: Vec<String> = shown
        .map(|threshold| {
            let found = threshold.found.as_deref().unwrap_or("not known");
            let holds = if threshold.holds { "holds" } else { "does not hold" };
            format!("{:<24}{found:>14}  {holds}", threshold.threshold)
        })
        .collect();
    let (word, words) = outcome_words(verdict);
    lines.push(format!("{word}: {words}"));
    lines.extend(verdict.invalid_because.iter().map(|reason| format!("  {reason}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn it_says_what_counts_in_under_thirty_lines() {
        let mut result = sample();
        let threshold = result.verdict.thresholds.first().cloned();
        result.verdict.thresholds = vec![threshold.unwrap(); 20];
        result.verdict.invalid_because = vec!["it was slow".into(); 5];
        let truth = result.truth.as_mut().unwrap();
        (truth.landed, truth.landed_unknown) = (103, 5);
        truth.examples = vec!["missing".into(); 20];
        let text = text(&result);
        assert!(text.lines().count() < 30, "{text}");
        for expected in ["100 planned, 99 as expected, 1 unexpected 503", "98 of 99 stored: 1 missing", "it was slow"] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
