//! The load test: how much a deployment carries.

mod answer;
mod aws;
mod cli;
mod compare;
mod exchange;
mod figures;
mod find_max;
mod landed;
mod ledger;
mod measure;
mod progress;
mod rate;
mod recorder;
mod report;
mod result;
mod run;
mod saved;
mod send_error;
mod summary;
mod system_metrics;
mod target;
mod thresholds;
mod usage;
mod verdict;
mod workload;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use serde::Serialize;
use tokio::task::LocalSet;

use cli::{Cli, Command, CompareArgs, FindMaxArgs, LoadArgs, ReportArgs, RunArgs};
use measure::{check_bucket, measure};
use progress::Display;
use saved::Saved;

/// Also what clap exits with on wrong usage.
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

/// One thread sends as much as one core can, and its timestamps never wait for another thread.
fn on_one_thread(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    check_bucket(&args.load, &args.load.run_id).await?;
    let result = measure(args, &Display::new()).await?;
    save(&args.load, &result, || report::of_run(&result))?;
    print!("{}", summary::text(&result));
    Ok(result.verdict.outcome.exit_code())
}

async fn find_max(args: &FindMaxArgs) -> anyhow::Result<ExitCode> {
    check_bucket(&args.load, &find_max::step_id(args, 0)).await?;
    let result = find_max::find_max(args, &Display::new()).await?;
    save(&args.load, &result, || report::of_search(&result))?;
    println!("{}", result.conclusion());
    Ok(result.outcome().exit_code())
}

fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let limits: Vec<_> = args.threshold.iter().chain(&args.thresholds).flatten().cloned().collect();
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let comparison = compare::Comparison::new(&a, &b, &limits)?;
    if let Some(path) = &args.report {
        write(path, report::of_comparison(&comparison))?;
    }
    print!("{}", comparison.text());
    Ok(comparison.exit_code())
}

fn report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let path = args.report.clone().unwrap_or_else(|| args.result.with_extension("html"));
    let page = match read(&args.result)? {
        Saved::Run(result) => report::of_run(&result),
        Saved::FindMax(result) => report::of_search(&result),
    };
    write(&path, page)?;
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Saved> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Saved::parse(&text).with_context(|| format!("{} is not a result that loadtest wrote", path.display()))
}

fn save(load: &LoadArgs, result: &impl Serialize, page: impl FnOnce() -> String) -> anyhow::Result<()> {
    if let Some(path) = &load.result {
        write(path, serde_json::to_string(result)? + "\n")?;
    }
    if let Some(path) = &load.report {
        write(path, page())?;
    }
    Ok(())
}

fn write(path: &Path, text: String) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
