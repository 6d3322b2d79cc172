//! Searches for the highest rate at which all thresholds hold.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::{FindMaxArgs, LoadArgs, RunArgs};
use crate::figures::Quantity;
use crate::measure::{MeasureError, measure};
use crate::progress::Display;
use crate::rate::Rate;
use crate::result::{Outcome, RunResult, VERSION};

/// The search ends when the lowest rate that did not pass is at most this many times the highest that did.
const PRECISION: f64 = 1.05;
/// Pause between two steps, for POSTs still in flight.
const SETTLE: Duration = Duration::from_secs(1);
/// The longest search, from a rate below one to the highest, takes some 40.
const MAX_STEPS: usize = 64;

/// What a search found; all of it is written as JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct FindMaxResult {
    pub(crate) version: u32,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) step_seconds: f64,
    /// POSTs a second; `None` when even the first rate did not pass.
    pub(crate) highest_passing: Option<f64>,
    /// The lowest that did not pass.
    pub(crate) lowest_not_passing: Option<f64>,
    pub(crate) limit: Limit,
    /// In the order in which they were tried.
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) rate: f64,
    pub(crate) result: RunResult,
}

/// What kept the search from going higher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Limit {
    /// A threshold that did not hold.
    System,
    /// A run that was INVALID: what the system carries is not known.
    Generator,
    /// Even the highest rate passed.
    #[default]
    None,
}

/// To three digits, which is finer than the precision.
fn round(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor() - 2.0);
    (rate / unit).round() * unit
}

/// The run id of a step: no step's events count for another.
pub(crate) fn step_id(args: &FindMaxArgs, step: usize) -> String {
    format!("{}s{step}", args.load.run_id)
}

/// Tries one rate after the other, and prints a line for each.
pub(crate) async fn find_max(args: &FindMaxArgs, display: &Display) -> Result<FindMaxResult, MeasureError> {
    let mut search = FindMaxResult::new(args.from, args.to);
    search.step_seconds = args.duration.as_secs_f64();
    while let Some(rate) = search.next().filter(|_| search.steps.len() < MAX_STEPS) {
        if !search.steps.is_empty() {
            tokio::time::sleep(SETTLE).await;
        }
        let load = LoadArgs { run_id: step_id(args, search.steps.len()), ..args.load.clone() };
        let run = RunArgs { rate: Rate::constant(rate), duration: args.duration, load };
        let step = Step { rate, result: measure(&run, display).await? };
        println!("{}", step.line());
        search.learn(rate, step.result.verdict.outcome);
        search.steps.push(step);
    }
    Ok(search)
}

impl Step {
    fn line(&self) -> String {
        let outcome = self.result.verdict.outcome.to_string();
        let p99 = Quantity::Time.show(self.result.latency.p99_us as f64);
        format!("{:>10} POSTs/s  {outcome:<8} p99 {p99} {}", self.rate, self.why()).trim_end().to_owned()
    }

    /// Why it did not pass; empty if it did.
    pub(crate) fn why(&self) -> String {
        let verdict = &self.result.verdict;
        let broken = verdict.thresholds.iter().filter(|threshold| !threshold.holds);
        let broken = broken.map(|threshold| format!("{} (found {})", threshold.threshold, threshold.found()));
        broken.chain(verdict.invalid_because.iter().cloned()).collect::<Vec<_>>().join("; ")
    }
}

impl FindMaxResult {
    fn new(from: f64, to: f64) -> Self {
        Self { version: VERSION, from, to: to.max(from), ..Self::default() }
    }

    /// The rate to try next.
    fn next(&self) -> Option<f64> {
        match (self.highest_passing, self.lowest_not_passing) {
            (None, None) => Some(self.from),
            (None, Some(_)) => None,
            (Some(low), None) => (low < self.to).then(|| (low * 2.0).min(self.to)),
            (Some(low), Some(high)) => (high / low > PRECISION).then(|| round((low + high) / 2.0)),
        }
    }

    fn learn(&mut self, rate: f64, outcome: Outcome) {
        match outcome {
            Outcome::Pass => self.highest_passing = Some(rate),
            Outcome::Fail => (self.lowest_not_passing, self.limit) = (Some(rate), Limit::System),
            Outcome::Invalid => (self.lowest_not_passing, self.limit) = (Some(rate), Limit::Generator),
        }
    }

    /// In a sentence.
    pub(crate) fn conclusion(&self) -> String {
        let passed = match self.highest_passing {
            Some(rate) => format!("the highest rate that passed: {rate} POSTs/s"),
            None => format!("even {} POSTs/s did not pass", self.from),
        };
        let limit = match (self.limit, self.lowest_not_passing) {
            (Limit::System, Some(rate)) => format!("at {rate} POSTs/s a threshold did not hold"),
            (Limit::Generator, Some(rate)) => {
                format!("at {rate} POSTs/s the generator was at its limit: the system may carry more")
            }
            _ => "no limit was found: --to is not high enough".to_owned(),
        };
        format!("{passed}; {limit}")
    }

    /// The run at the highest rate that passed.
    pub(crate) fn best(&self) -> Option<&RunResult> {
        let is_best = |step: &&Step| Some(step.rate) == self.highest_passing;
        self.steps.iter().find(is_best).map(|step| &step.result)
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match (self.highest_passing, self.limit) {
            (Some(_), _) => Outcome::Pass,
            (None, Limit::Generator) => Outcome::Invalid,
            (None, _) => Outcome::Fail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(from: f64, to: f64, outcome: impl Fn(f64) -> Outcome) -> (FindMaxResult, Vec<f64>) {
        let (mut search, mut tried) = (FindMaxResult::new(from, to), Vec::new());
        while let Some(rate) = search.next() {
            tried.push(rate);
            assert!(tried.len() <= MAX_STEPS);
            search.learn(rate, outcome(rate));
        }
        (search, tried)
    }

    fn carries(capacity: f64) -> impl Fn(f64) -> Outcome {
        move |rate| if rate <= capacity { Outcome::Pass } else { Outcome::Fail }
    }

    #[test]
    fn rates_are_doubled_and_then_bisected() {
        let (search, tried) = search(100.0, 10_000.0, carries(1_000.0));
        assert_eq!(tried[..5], [100.0, 200.0, 400.0, 800.0, 1_600.0]);
        let found = (search.highest_passing, search.lowest_not_passing, search.limit);
        assert_eq!(found, (Some(1_000.0), Some(1_050.0), Limit::System));
    }

    #[test]
    fn the_highest_rate_is_tried_and_not_exceeded() {
        let (found, tried) = search(100.0, 250.0, carries(1e9));
        assert_eq!(tried, [100.0, 200.0, 250.0]);
        assert_eq!((found.highest_passing, found.lowest_not_passing), (Some(250.0), None));
    }

    #[test]
    fn a_first_rate_that_fails_ends_the_search() {
        let (found, tried) = search(100.0, 250.0, carries(1.0));
        assert_eq!((tried, found.highest_passing), (vec![100.0], None));
    }

    #[test]
    fn an_invalid_step_is_the_limit_of_the_generator_until_a_lower_one_fails() {
        let generator = |rate: f64| if rate > 500.0 { Outcome::Invalid } else { Outcome::Pass };
        assert_eq!(search(100.0, 9_999.0, generator).0.limit, Limit::Generator);
        let both = |rate: f64| match rate {
            rate if rate > 700.0 => Outcome::Invalid,
            rate if rate > 450.0 => Outcome::Fail,
            _ => Outcome::Pass,
        };
        assert_eq!(search(100.0, 9_999.0, both).0.limit, Limit::System);
    }

    proptest! {
        #[test]
        fn the_capacity_is_found_to_five_percent(from in 0.1f64..100.0, times in 1.0f64..100_000.0) {
            let capacity = from * times;
            let (found, _) = search(from, 1_000_000_000.0, carries(capacity));
            let (low, high) = (found.highest_passing.unwrap(), found.lowest_not_passing.unwrap());
            prop_assert!(low <= capacity && capacity < high && high / low <= PRECISION);
        }
    }
}
