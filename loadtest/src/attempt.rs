//! From the command line to a result: one run, what landed of it, and the verdict.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::{LoadArgs, Rate};
use crate::landed::{self, LandedError, Patience, RunIdentity};
use crate::ledger::{Ledger, id_prefix};
use crate::progress::Display;
use crate::rate::{RateError, Schedule};
use crate::result::{Generator, Outcome, Plan, RunResult, Truth, Verdict};
use crate::run::{Ran, RunError, RunPlan, run, unix_ms};
use crate::system_metrics::{self, FunctionNames};
use crate::target::{Protocol, Target, TargetError, Trust};
use crate::thresholds::{self, Threshold, ThresholdError};
use crate::verdict::{self, Conduct};
use crate::workload::{Players, PlayersPlan, Recording, RecordingError, Replay, Workload};

/// Of the result's format.
const VERSION: u32 = 1;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    Rate(#[from] RateError),
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    #[error("the thresholds of {path} can't be read: {source}")]
    ThresholdsFile { path: PathBuf, source: std::io::Error },
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

/// What is tried, beside what the command line says of the load.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) rate: Rate,
    pub(crate) duration: Duration,
    pub(crate) run_id: String,
    pub(crate) thresholds: Vec<Threshold>,
}

/// The thresholds of the command line and its file, and the usual ones of what they don't name.
pub(crate) fn thresholds(load: &LoadArgs) -> Result<Vec<Threshold>, AttemptError> {
    let mut found = Vec::new();
    for text in &load.threshold {
        found.extend(thresholds::parse(text)?);
    }
    if let Some(path) = &load.thresholds {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| AttemptError::ThresholdsFile { path: path.clone(), source })?;
        found.extend(thresholds::parse(&text)?);
    }
    let usual = thresholds::usual(load.bucket.is_some())?;
    let unnamed: Vec<_> = usual.into_iter().filter(|usual| !found.iter().any(|one| one.is_about(usual))).collect();
    found.extend(unnamed);
    Ok(found)
}

/// The run's id: the given one, or one of chance.
pub(crate) fn run_id(load: &LoadArgs) -> String {
    let of_chance = || uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    load.run_id.clone().unwrap_or_else(of_chance)
}

/// Sends, waits for what landed, and judges.
pub(crate) async fn attempt(load: &LoadArgs, what: &Attempt, display: &Display) -> Result<RunResult, AttemptError> {
    let workload = workload(load, what)?;
    let protocol = if load.http2 { Protocol::Http2 } else { Protocol::Http1 };
    let target = Target::new(&load.url, protocol, &trust(load)).await?;
    let mut follower = None;
    let ran = run(target, &load.url, workload, &run_plan(load, what), |shared| {
        follower = Some(display.follow(shared));
    })
    .await;
    if let Some(follower) = follower {
        follower.abort();
    }
    let ran = ran?;
    let truth = truth(load, what, &ran, display).await;
    let system_metrics = system_metrics(load, &ran).await;
    display.clear();
    let conduct = Conduct { max_lag: load.max_lag, sent_after_end: ran.recorded.sent_after_end };
    let mut result = result(plan(load, what, protocol), ran);
    (result.truth, result.system_metrics) = (truth, system_metrics);
    result.verdict = verdict::judge(&result, &what.thresholds, &conduct);
    Ok(result)
}

/// Reads the bucket, if there is one, so that it is not after a long run that nobody may; and refuses an id under which events
/// landed just now, for they would be taken for this run's.
pub(crate) async fn check_bucket(load: &LoadArgs, run_id: &str) -> Result<(), AttemptError> {
    let Some(bucket) = load.bucket.clone() else { return Ok(()) };
    let access = landed::access(bucket, load.endpoint_url.clone()).await;
    let now = unix_ms();
    let run = RunIdentity { prefix: id_prefix(run_id), started_unix_ms: now, ended_unix_ms: now };
    let patience = Patience { nothing_new: Duration::ZERO, settle: Duration::ZERO };
    let truth = landed::find(&access, &run, &Ledger::default(), patience, |_, _| {}).await?;
    // With nothing sent yet, whatever bears the id is out of place.
    if truth.misplaced > 0 { Err(AttemptError::RunIdTaken(run_id.to_owned())) } else { Ok(()) }
}

fn workload(load: &LoadArgs, what: &Attempt) -> Result<Workload, AttemptError> {
    let schedule = Schedule::new(&what.rate.shape, what.duration)?;
    if let Some(path) = &load.replay {
        let recording = Recording::read(path)?;
        return Ok(Workload::Replay(Replay::new(recording, schedule, load.speed, what.duration, &what.run_id)));
    }
    Ok(Workload::Players(Players::new(PlayersPlan {
        run_id: what.run_id.clone(),
        seed: load.seed,
        schedule,
        viewers: load.viewers,
        events_per_post: (load.events_per_post.fewest, load.events_per_post.most),
        event_bytes: load.event_bytes,
        bad_of_a_million: load.bad,
    })))
}

fn trust(load: &LoadArgs) -> Trust {
    match &load.cacert {
        _ if load.insecure => Trust::Anyone,
        Some(path) => Trust::File(path.clone()),
        None => Trust::System,
    }
}

fn run_plan(load: &LoadArgs, what: &Attempt) -> RunPlan {
    RunPlan {
        duration: what.duration,
        connections: load.connections,
        max_connections: load.max_connections.max(load.connections),
        timeout: load.timeout,
        max_lag: load.max_lag,
    }
}

fn plan(load: &LoadArgs, what: &Attempt, protocol: Protocol) -> Plan {
    let run = run_plan(load, what);
    Plan {
        run_id: what.run_id.clone(),
        seed: load.seed,
        url: load.url.clone(),
        rate: what.rate.text.clone(),
        duration_seconds: what.duration.as_secs_f64(),
        protocol: protocol.as_str().to_owned(),
        connections: run.connections,
        max_connections: run.max_connections,
        workload: workload_in_words(load),
    }
}

fn workload_in_words(load: &LoadArgs) -> String {
    if let Some(path) = &load.replay {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return format!("replay of {name} at {} times its speed, sessions a second", load.speed);
    }
    let events = load.events_per_post;
    let mut words = match (events.fewest, events.most) {
        (1, 1) => "players, 1 event a POST".to_owned(),
        (fewest, most) if fewest == most => format!("players, {most} events a POST"),
        (fewest, most) => format!("players, {fewest} to {most} events a POST"),
    };
    if load.event_bytes > 0 {
        words.push_str(&format!(" of some {} bytes", load.event_bytes));
    }
    if load.bad > 0 {
        words.push_str(&format!(", {}% bad", f64::from(load.bad) / 10_000.0));
    }
    words
}

/// `None` without a bucket, and when it can't be read: what can't be known fails its thresholds.
async fn truth(load: &LoadArgs, what: &Attempt, ran: &Ran, display: &Display) -> Option<Truth> {
    let access = landed::access(load.bucket.clone()?, load.endpoint_url.clone()).await;
    let run = RunIdentity {
        prefix: id_prefix(&what.run_id),
        started_unix_ms: ran.started_unix_ms,
        ended_unix_ms: ran.ended_unix_ms,
    };
    let patience = Patience { nothing_new: load.landing_timeout, settle: load.settle };
    let found = landed::find(&access, &run, &ran.ledger, patience, display.landing()).await;
    found.inspect_err(|error| eprintln!("loadtest: what landed is not known: {error}")).ok()
}

async fn system_metrics(load: &LoadArgs, ran: &Ran) -> Vec<crate::result::MetricSeries> {
    if load.bucket.is_none() && load.endpoint_url.is_none() {
        return Vec::new();
    }
    let functions = FunctionNames { prefix: load.metrics_prefix.clone() };
    let found = system_metrics::read(load.endpoint_url.as_deref(), ran.started_unix_ms, &functions).await;
    found.inspect_err(|error| eprintln!("loadtest: without the system's own metrics: {error}")).unwrap_or_default()
}

fn result(plan: Plan, ran: Ran) -> RunResult {
    let recorded = ran.recorded;
    let generator = Generator {
        lag: recorded.lag,
        cpu_seconds: ran.taken.cpu.as_secs_f64(),
        cores_used: ran.taken.cpu.as_secs_f64() / ran.lasted.as_secs_f64(),
        run_queue_seconds: ran.taken.run_queue.as_secs_f64(),
        peak_rss_bytes: ran.taken.peak_rss_bytes,
        connections_opened: ran.connections_opened,
        held_back: recorded.held_back,
    };
    RunResult {
        version: VERSION,
        plan,
        started_unix_ms: ran.started_unix_ms,
        posts: recorded.posts,
        events: recorded.events,
        latency: recorded.latency,
        service_time: recorded.service_time,
        generator,
        seconds: recorded.seconds,
        truth: None,
        system_metrics: Vec::new(),
        verdict: Verdict { outcome: Outcome::Fail, thresholds: Vec::new(), invalid_because: Vec::new() },
    }
}
