//! Runs the deployed rules on volume and recency on a history with injected incidents: false alarms, incidents found, and
//! how soon. docs/BACKTEST.md says how to read it.

mod detectors;
mod history;
mod incidents;
mod report;
mod synthetic;
mod trials;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Parser;

use detectors::Parameters;
use history::History;
use trials::{MINIMUM_WEEKS, Trials};

/// Runs the deployed rules on volume and recency on a history with injected incidents. Without a file or a folder the
/// history is synthetic.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A history as CSV: hour,bytes,events,sealed_minutes_after
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    csv: Option<PathBuf>,
    /// A history from a copy of the landing bucket, which holds events/dt=…/hour=…/_SUCCESS
    #[arg(long, value_name = "FOLDER")]
    manifests: Option<PathBuf>,
    /// Weeks of the synthetic history
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(3..=520))]
    weeks: u16,
    /// Seed of the synthetic history and of the places of incidents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Places at which each incident is injected
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    places: u16,
    /// Another limit than the shipped one, as of check-size
    #[arg(long, value_name = "BYTES")]
    minimum_date_bytes: Option<u64>,
    #[arg(long, value_name = "PER CENT")]
    maximum_change_percent: Option<f64>,
    #[arg(long, value_name = "SCORE")]
    maximum_seasonal_score: Option<f64>,
    /// The least distance from the median, in per cent of it, for a score to count; fixed in the check
    #[arg(long, value_name = "PER CENT")]
    minimum_seasonal_percent: Option<f64>,
    /// Another time than the shipped one, as of check-recency
    #[arg(long, value_name = "MINUTES")]
    recency_due_minutes: Option<u16>,
}

impl Arguments {
    fn parameters(&self) -> Parameters {
        let Parameters { mut limits, mut due_minutes } = Parameters::SHIPPED;
        limits.minimum_date_bytes = self.minimum_date_bytes.unwrap_or(limits.minimum_date_bytes);
        limits.maximum_change_percent = self.maximum_change_percent.unwrap_or(limits.maximum_change_percent);
        limits.maximum_seasonal_score = self.maximum_seasonal_score.unwrap_or(limits.maximum_seasonal_score);
        limits.minimum_seasonal_percent = self.minimum_seasonal_percent.unwrap_or(limits.minimum_seasonal_percent);
        due_minutes = self.recency_due_minutes.map_or(due_minutes, f64::from);
        Parameters { limits, due_minutes }
    }
}

fn main() -> anyhow::Result<()> {
    print!("{}", run(&Arguments::parse())?);
    Ok(())
}

fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let history = match (&arguments.csv, &arguments.manifests) {
        (Some(file), _) => {
            let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
            History::from_csv(&text).with_context(|| format!("{}", file.display()))?
        }
        (None, Some(folder)) => History::from_manifests(folder)?,
        (None, None) => synthetic::history(usize::from(arguments.weeks), arguments.seed),
    };
    if history.weeks() < MINIMUM_WEEKS {
        bail!("the history is {:.1} weeks long; it takes {MINIMUM_WEEKS} to try anything", history.weeks());
    }
    let trials = Trials::of(&history, usize::from(arguments.places), arguments.seed);
    Ok(report::report(&history, &trials, &arguments.parameters()))
}
