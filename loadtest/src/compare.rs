//! Two results side by side: what was asked, what was found, and whether the difference is within limits.

use std::process::ExitCode;

use crate::figures::{Quantity, Row, Table, plan, results};
use crate::result::{Outcome, RunResult, ThresholdOutcome};
use crate::saved::Saved;
use crate::thresholds::Threshold;

pub(crate) struct Comparison<'r> {
    pub(crate) runs: [&'r RunResult; 2],
    pub(crate) plan: Table,
    pub(crate) warnings: Vec<String>,
    pub(crate) results: Vec<Table>,
    pub(crate) thresholds: Vec<ThresholdOutcome>,
}

/// A search in which no rate passed has no run to compare.
#[derive(Debug, thiserror::Error)]
#[error("{0} is a search in which no rate passed, so there is nothing to compare")]
pub(crate) struct NothingPassed(&'static str);

impl<'r> Comparison<'r> {
    pub(crate) fn new(a: &'r Saved, b: &'r Saved, limits: &[Threshold]) -> Result<Self, NothingPassed> {
        let runs = [a.run().ok_or(NothingPassed("A"))?, b.run().ok_or(NothingPassed("B"))?];
        let (mut plan, mut results) = (plan(&runs), results(&runs));
        if let (Saved::FindMax(a), Saved::FindMax(b)) = (a, b) {
            // The rate is then what was found.
            plan.rows.retain(|row| row.label != "rate");
            let highest = [a.highest_passing, b.highest_passing];
            let lowest = [a.lowest_not_passing, b.lowest_not_passing];
            let rows = [
                Row::figure("highest rate that passed", Quantity::Rate, &highest),
                Row::figure("lowest that did not", Quantity::Rate, &lowest),
            ];
            results.insert(0, Table { title: "Search", rows: rows.into_iter().flatten().collect() });
        }
        let warnings = warnings(runs, &plan);
        let thresholds = limits.iter().map(|limit| limit.judge_ratio(runs[0], runs[1])).collect();
        Ok(Self { runs, plan, warnings, results, thresholds })
    }

    /// For a terminal; ends with a line break.
    pub(crate) fn text(&self) -> String {
        let mut text = line("", ["A", "B", "B/A"]);
        text += &line("run", self.runs.map(|run| run.plan.run_id.clone()));
        text += &line("started", self.runs.map(RunResult::started));
        text += &line("verdict", self.runs.map(|run| run.verdict.outcome.to_string()));
        text.extend(self.plan.rows.iter().map(row_line));
        text.extend(self.warnings.iter().map(|warning| format!("\n{warning}\n")));
        for table in &self.results {
            text += &format!("\n{}\n", table.title);
            text.extend(table.rows.iter().map(row_line));
        }
        if !self.thresholds.is_empty() {
            text += "\nB/A\n";
            text.extend(self.thresholds.iter().map(|threshold| threshold.line() + "\n"));
        }
        text
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

fn row_line(row: &Row) -> String {
    line(row.label, row.cells.iter().chain([&row.note]))
}

fn line(label: &str, cells: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let cells = cells.into_iter().zip([26, 26, 10]).map(|(cell, width)| format!(" {:>width$}", cell.as_ref()));
    format!("{label:<30}{}", cells.collect::<String>()).trim_end().to_owned() + "\n"
}

fn warnings(runs: [&RunResult; 2], plan: &Table) -> Vec<String> {
    let different: Vec<&str> = plan.rows.iter().filter(|row| row.differs()).map(|row| row.label).collect();
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

#[cfg(test)]
mod tests;
