//! Two results side by side: what was asked, what was found, and whether the difference is within limits.

use std::process::ExitCode;

use crate::figures::{Figure, Quantity, asked, groups};
use crate::result::{Outcome, RunResult, ThresholdOutcome};
use crate::saved::Saved;
use crate::thresholds::Threshold;

/// A row of the comparison.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) label: &'static str,
    pub(crate) a: String,
    pub(crate) b: String,
    /// B over A, empty where that says nothing; of what was asked, whether it differs.
    pub(crate) note: String,
}

impl Row {
    fn new(label: &'static str, a: impl Into<String>, b: impl Into<String>, note: impl Into<String>) -> Self {
        Self { label, a: a.into(), b: b.into(), note: note.into() }
    }

    pub(crate) fn differs(&self) -> bool {
        self.a != self.b
    }

    fn line(&self) -> String {
        format!("{:<30} {:>26} {:>26} {:>10}", self.label, self.a, self.b, self.note).trim_end().to_owned()
    }
}

pub(crate) struct Comparison<'r> {
    pub(crate) runs: [&'r RunResult; 2],
    pub(crate) asked: Vec<Row>,
    pub(crate) warnings: Vec<String>,
    pub(crate) found: Vec<(&'static str, Vec<Row>)>,
    pub(crate) thresholds: Vec<ThresholdOutcome>,
}

/// A search in which no rate passed has no run to compare.
#[derive(Debug, thiserror::Error)]
#[error("{0} is a search in which no rate passed, so there is nothing to compare")]
pub(crate) struct NothingPassed(&'static str);

impl<'r> Comparison<'r> {
    /// # Errors
    ///
    /// When one of them is a search in which no rate passed.
    pub(crate) fn new(a: &'r Saved, b: &'r Saved, limits: &[Threshold]) -> Result<Self, NothingPassed> {
        let runs @ [run_a, run_b] = [run_of(a).ok_or(NothingPassed("A"))?, run_of(b).ok_or(NothingPassed("B"))?];
        let mut asked = asked_rows(run_a, run_b);
        let mut found = found(run_a, run_b);
        if let (Saved::FindMax(a), Saved::FindMax(b)) = (a, b) {
            // The rate is then what was found.
            asked.retain(|row| row.label != "rate");
            found.insert(0, ("Search", rows(&a.figures(), &b.figures())));
        }
        let warnings = warnings(runs, &asked);
        let thresholds = limits.iter().map(|limit| limit.judge_ratio(run_a, run_b)).collect();
        Ok(Self { runs, asked, warnings, found, thresholds })
    }

    /// For a terminal; ends with a line break.
    pub(crate) fn text(&self) -> String {
        let [a, b] = self.runs;
        let head = [
            Row::new("", "A", "B", "B/A"),
            Row::new("run", &a.plan.run_id, &b.plan.run_id, ""),
            Row::new("started", a.started(), b.started(), ""),
            Row::new("verdict", a.verdict.outcome.to_string(), b.verdict.outcome.to_string(), ""),
        ];
        let mut lines: Vec<String> = head.iter().chain(&self.asked).map(Row::line).collect();
        lines.extend(self.warnings.iter().map(|warning| format!("\n{warning}")));
        for (title, rows) in &self.found {
            lines.push(format!("\n{title}"));
            lines.extend(rows.iter().map(Row::line));
        }
        if !self.thresholds.is_empty() {
            lines.push("\nB/A".to_owned());
            lines.extend(self.thresholds.iter().map(ThresholdOutcome::line));
        }
        lines.join("\n") + "\n"
    }

    /// Success without limits; else as a run's verdict.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let is_invalid = self.runs.iter().any(|run| run.verdict.outcome == Outcome::Invalid);
        let outcome = match &self.thresholds[..] {
            [] => Outcome::Pass,
            _ if is_invalid => Outcome::Invalid,
            thresholds if thresholds.iter().all(|threshold| threshold.holds) => Outcome::Pass,
            _ => Outcome::Fail,
        };
        outcome.exit_code()
    }
}

/// Of a search, the run at the highest rate that passed.
fn run_of(saved: &Saved) -> Option<&RunResult> {
    match saved {
        Saved::Run(result) => Some(result),
        Saved::FindMax(result) => result.best(),
    }
}

fn asked_rows(a: &RunResult, b: &RunResult) -> Vec<Row> {
    let row = |((label, a), (_, b)): ((&'static str, String), (_, String))| {
        let note = if a == b { "" } else { "differs" };
        Row::new(label, a, b, note)
    };
    asked(&a.plan).into_iter().zip(asked(&b.plan)).map(row).collect()
}

/// What a reader must know before comparing anything.
fn warnings(runs: [&RunResult; 2], asked: &[Row]) -> Vec<String> {
    let different: Vec<&str> = asked.iter().filter(|row| row.differs()).map(|row| row.label).collect();
    let plans = format!("These were different plans; what differs: {}.", different.join(", "));
    let mut warnings = Vec::from_iter((!different.is_empty()).then_some(plans));
    for (name, result) in ["A", "B"].into_iter().zip(runs) {
        if result.verdict.outcome == Outcome::Invalid {
            let why = result.verdict.invalid_because.join("; ");
            warnings.push(format!("{name} is INVALID, so its numbers are not the system's: {why}"));
        }
    }
    warnings
}

fn found(a: &RunResult, b: &RunResult) -> Vec<(&'static str, Vec<Row>)> {
    let both = groups(a).into_iter().zip(groups(b));
    let both = both.map(|(a, b)| (a.title, rows(&a.figures, &b.figures)));
    both.filter(|(_, rows)| !rows.is_empty()).collect()
}

/// Without figures that neither has.
fn rows(a: &[Figure], b: &[Figure]) -> Vec<Row> {
    let known = a.iter().zip(b).filter(|(a, b)| a.value.or(b.value).is_some());
    let row = |(a, b): (&Figure, &Figure)| {
        let ratio = b.value.zip(a.value.filter(|a| *a != 0.0)).map(|(b, a)| Quantity::Ratio.show(b / a));
        Row::new(a.label, a.show(), b.show(), ratio.unwrap_or_default())
    };
    known.map(row).collect()
}

#[cfg(test)]
mod tests;
