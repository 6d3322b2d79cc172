//! The load test: how much a deployment carries.

mod answer;
mod attempt;
mod cli;
mod compare;
mod connections;
mod find_max;
mod generator;
mod landed;
mod ledger;
mod progress;
mod rate;
mod recorder;
mod report;
mod result;
mod run;
mod summary;
mod system_metrics;
mod target;
mod thresholds;
mod verdict;
mod workload;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use serde::Serialize;
use tokio::task::LocalSet;

use attempt::{Attempt, attempt};
use cli::{Cli, Command, CompareArgs, FindMaxArgs, ReportArgs, RunArgs};
use progress::Display;
use result::{Outcome, RunResult};

/// The same as for wrong usage, which clap ends with.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => on_one_thread(run(&args)),
        Command::FindMax(args) => on_one_thread(find_max(&args)),
        Command::Compare(args) => compare(&args),
        Command::Report(args) => report(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("loadtest: {error:#}");
        ExitCode::from(COULD_NOT_RUN)
    })
}

/// One thread is enough for what one core can send, and its times are the CPU's that it has.
fn on_one_thread(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let what = Attempt {
        rate: args.rate.clone(),
        duration: args.duration,
        run_id: attempt::run_id(&args.load),
        thresholds: attempt::thresholds(&args.load)?,
    };
    attempt::check_bucket(&args.load, &what.run_id).await?;
    let result = attempt(&args.load, &what, &Display::new()).await?;
    if let Some(path) = &args.load.result {
        write_json(path, &result)?;
    }
    if let Some(path) = &args.report {
        write(path, report::html(&result)?)?;
    }
    print!("{}", summary::text(&result));
    Ok(exit_code(result.verdict.outcome))
}

async fn find_max(args: &FindMaxArgs) -> anyhow::Result<ExitCode> {
    let first_step = format!("{}s0", attempt::run_id(&args.load));
    attempt::check_bucket(&args.load, &first_step).await?;
    let result = find_max::find_max(args, &Display::new()).await?;
    if let Some(path) = &args.load.result {
        write_json(path, &result)?;
    }
    print!("{}", result.text());
    Ok(exit_code(result.outcome()))
}

fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    if let Some(path) = &args.html {
        write(path, compare::html(&a, &b)?)?;
    }
    print!("{}", compare::text(&a, &b));
    Ok(ExitCode::SUCCESS)
}

fn report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let path = args.out.clone().unwrap_or_else(|| args.result.with_extension("html"));
    write(&path, report::html(&read(&args.result)?)?)?;
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Pass => ExitCode::SUCCESS,
        Outcome::Fail => ExitCode::from(1),
        Outcome::Invalid => ExitCode::from(3),
    }
}

fn read(path: &Path) -> anyhow::Result<RunResult> {
    let text = fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no result of a run", path.display()))
}

fn write_json(path: &Path, result: &impl Serialize) -> anyhow::Result<()> {
    write(path, serde_json::to_string(result)? + "\n")
}

fn write(path: &Path, text: String) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
}
