//! From the command line to a result: one run, what landed of it, and the verdict.

use std::time::Duration;

use lambda_setup::bucket::S3Bucket;

use crate::cli::{LoadArgs, RunArgs};
use crate::landed::{self, LandedError, Search};
use crate::ledger::{Ledger, id_prefix};
use crate::progress::Display;
use crate::rate::{RateError, Schedule};
use crate::result::{MetricSeries, Plan, RunResult, Truth};
use crate::run::{Ran, Run, RunError, unix_ms};
use crate::system_metrics;
use crate::target::{Target, TargetError};
use crate::thresholds::{self, ThresholdError};
use crate::verdict;
use crate::workload::{Players, Recording, RecordingError, Replay, Workload};

#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error(transparent)]
    Rate(#[from] RateError),
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("no access to the bucket: {0}")]
    Bucket(#[from] LandedError),
    #[error("events of a run {0} landed in the last minutes: give another --run-id, or none")]
    RunIdTaken(String),
}

/// Sends, waits for what landed, and judges.
pub(crate) async fn measure(args: &RunArgs, display: &Display) -> Result<RunResult, MeasureError> {
    let load = &args.load;
    let given = load.threshold.iter().chain(&load.thresholds).flatten().cloned().collect();
    let thresholds = thresholds::with_defaults(given, load.bucket.is_some())?;
    let run = Run {
        plan: plan(args),
        target: Target::new(&load.target)?,
        workload: workload(args)?,
        duration: args.duration,
        timeout: load.timeout,
        max_lag: load.max_lag,
    };
    let mut ran = run.send(display).await?;
    ran.result.truth = truth(load, &ran, display).await;
    ran.result.system_metrics = system_metrics(load, &ran.result).await;
    display.clear();
    ran.result.verdict = verdict::judge(&ran.result, &thresholds, load.max_lag);
    Ok(ran.result)
}

/// Fails before a long run, not after it, if the bucket can't be read; and refuses a run id whose events landed in the last
/// minutes, because they would count as this run's.
pub(crate) async fn check_bucket(load: &LoadArgs, run_id: &str) -> Result<(), MeasureError> {
    let Some(access) = access(load).await else { return Ok(()) };
    let (now, ledger) = (unix_ms(), Ledger::default());
    let search = Search {
        prefix: id_prefix(run_id),
        ledger: &ledger,
        started_unix_ms: now,
        ended_unix_ms: now,
        patience: Duration::ZERO,
        settle: Duration::ZERO,
    };
    let truth = landed::find(&access, &search, |_, _| {}).await?;
    // Nothing has been sent yet, so anything with the id is misplaced.
    if truth.misplaced > 0 { Err(MeasureError::RunIdTaken(run_id.to_owned())) } else { Ok(()) }
}

async fn access(load: &LoadArgs) -> Option<S3Bucket> {
    Some(landed::access(load.bucket.clone()?, load.endpoint_url.as_deref()).await)
}

fn workload(args: &RunArgs) -> Result<Workload, MeasureError> {
    let (load, schedule) = (&args.load, Schedule::new(&args.rate, args.duration)?);
    if let Some(path) = &load.replay {
        return Ok(Workload::Replay(Replay::new(Recording::read(path)?, schedule, load.speed, &load.run_id)));
    }
    Ok(Workload::Players(Players::new(load.players.clone(), schedule, &load.run_id)))
}

fn plan(args: &RunArgs) -> Plan {
    let load = &args.load;
    Plan {
        run_id: load.run_id.clone(),
        seed: load.players.seed,
        url: load.target.url.clone(),
        rate: args.rate.text.clone(),
        duration_seconds: args.duration.as_secs_f64(),
        protocol: if load.target.http2 { "HTTP/2" } else { "HTTP/1.1" }.to_owned(),
        connections: load.connections,
        max_connections: load.max_connections.max(load.connections),
        workload: workload_in_words(load),
    }
}

fn workload_in_words(load: &LoadArgs) -> String {
    if let Some(path) = &load.replay {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return format!("replay of {name} at {} times its speed, sessions a second", load.speed);
    }
    let players = &load.players;
    let events = players.events_per_post;
    let mut words = match (events.fewest, events.most) {
        (1, 1) => "players, 1 event a POST".to_owned(),
        (fewest, most) if fewest == most => format!("players, {most} events a POST"),
        (fewest, most) => format!("players, {fewest} to {most} events a POST"),
    };
    if players.event_bytes > 0 {
        words += &format!(" of some {} bytes", players.event_bytes);
    }
    if players.bad > 0 {
        words += &format!(", {}% bad", f64::from(players.bad) / 10_000.0);
    }
    words
}

/// `None` without a bucket or when it can't be read: thresholds on unknown figures fail.
async fn truth(load: &LoadArgs, ran: &Ran, display: &Display) -> Option<Truth> {
    let access = access(load).await?;
    let search = Search {
        prefix: id_prefix(&load.run_id),
        ledger: &ran.ledger,
        started_unix_ms: ran.result.started_unix_ms,
        ended_unix_ms: ran.ended_unix_ms,
        patience: load.landing_timeout,
        settle: load.settle,
    };
    let found = landed::find(&access, &search, display.landing()).await;
    found.inspect_err(|error| eprintln!("loadtest: what landed is not known: {error}")).ok()
}

async fn system_metrics(load: &LoadArgs, result: &RunResult) -> Vec<MetricSeries> {
    if load.bucket.is_none() && load.endpoint_url.is_none() {
        return Vec::new();
    }
    let found = system_metrics::read(load.endpoint_url.as_deref(), result.started_unix_ms, &load.metrics_prefix).await;
    found.inspect_err(|error| eprintln!("loadtest: without the system's own metrics: {error}")).unwrap_or_default()
}
