//! ingest-server beside nginx: what a POST over a connection that is kept costs, how long it takes, and what of it is on the stream.

pub(crate) mod bars;
mod load;
mod process;
pub(crate) mod report;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use load::{Load, Pace, Running};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use process::ServerProcess;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::implementation::Folders;
use crate::measure::median;
use crate::payloads;
use crate::results::{Plan, progress};
use crate::services::{Services, Stored};
use crate::workload::lines;

/// What PutRecords takes.
const PUT_TIME: Duration = Duration::from_millis(8);
/// POSTs a second of a server that is mostly idle.
const SLOW: u32 = 1_000;
/// Different POSTs, each of another session.
const SESSIONS: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Server {
    /// The binary that is deployed.
    Ingest { commit_interval_ms: u64 },
    /// nginx that answers 200: the floor of any server.
    NginxReturn,
    /// nginx that passes requests on to such an nginx, which is not counted, and writes their bodies to a file. By default it opens
    /// a connection for each; here it may keep them.
    NginxProxy { keeps_upstream: bool },
}

/// What a server is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) server: Server,
    pub(crate) events: usize,
    pub(crate) connections: u32,
    /// POSTs a second; without it, as many as the connections carry, and then half as many.
    pub(crate) rate: Option<u32>,
}

/// A case with what it cost: the medians of several processes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ServerRow {
    #[serde(flatten)]
    pub(crate) case: Case,
    #[serde(flatten)]
    pub(crate) cost: ServerCost,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerCost {
    /// POSTs that were answered a second, by the rate of the case or as many as the connections carry.
    pub(crate) posts_a_second: f64,
    /// A POST's user and system time at that rate, of all threads.
    pub(crate) cpu_us: f64,
    /// At the rate of the case, or at half of the highest.
    pub(crate) p99_ms: f64,
    pub(crate) peak_rss_mib: f64,
    /// Of the largest answer, with its head.
    pub(crate) answer_bytes: f64,
    /// Bytes on the stream at `posts_a_second`, with the keys; 0 of nginx, as what follows.
    pub(crate) stored_bytes_an_event: f64,
    pub(crate) events_a_record: f64,
    pub(crate) records_a_call: f64,
}

/// What one load cost.
struct Phase {
    posts_a_second: f64,
    cpu_us: f64,
    p99_ms: f64,
    answer_bytes: f64,
    posts: u64,
}

impl Case {
    /// ingest-server holds each answer back for its commit interval, so 200 connections with single events can't keep it busy: it
    /// is measured with more of them too. A POST costs any server more when it is idle between POSTs: nginx is measured at a low
    /// rate too.
    pub(crate) fn all() -> Vec<Self> {
        let both = |server| [1, 20].map(|events| Self { server, events, connections: 200, rate: None });
        let ingest = |commit_interval_ms| Server::Ingest { commit_interval_ms };
        let single = Self { server: ingest(200), events: 1, connections: 4_000, rate: None };
        let slow = |server| Self { server, connections: 400, rate: Some(SLOW), ..single };
        [
            both(Server::NginxReturn),
            both(Server::NginxProxy { keeps_upstream: false }),
            both(Server::NginxProxy { keeps_upstream: true }),
            both(ingest(10)),
            both(ingest(200)),
            [Server::NginxReturn, Server::NginxProxy { keeps_upstream: false }].map(slow),
            [single, slow(ingest(200))],
        ]
        .concat()
    }

    fn requests(&self) -> Arc<[Bytes]> {
        (0..SESSIONS).map(|session| payloads::request(&payloads::events_of(session, self.events)).into()).collect()
    }
}

impl ServerRow {
    pub(crate) fn events_a_cpu_second(&self) -> f64 {
        self.case.events as f64 * 1e6 / self.cost.cpu_us
    }
}

impl ServerCost {
    /// Each number's own median.
    fn median(costs: &[Self]) -> Option<Self> {
        Some(Self {
            posts_a_second: median(costs, |cost| cost.posts_a_second)?,
            cpu_us: median(costs, |cost| cost.cpu_us)?,
            p99_ms: median(costs, |cost| cost.p99_ms)?,
            peak_rss_mib: median(costs, |cost| cost.peak_rss_mib)?,
            answer_bytes: median(costs, |cost| cost.answer_bytes)?,
            stored_bytes_an_event: median(costs, |cost| cost.stored_bytes_an_event)?,
            events_a_record: median(costs, |cost| cost.events_a_record)?,
            records_a_call: median(costs, |cost| cost.records_a_call)?,
        })
    }
}

/// Measures all cases. In each round every case has one process, so that a busy moment of the machine meets them all.
pub(crate) async fn measure_all(folders: &Folders, plan: &Plan) -> anyhow::Result<Vec<ServerRow>> {
    raise_open_files()?;
    let cases: Vec<Case> = Case::all().into_iter().filter(|case| plan.has_server(case)).collect();
    let mut costs = vec![Vec::new(); cases.len()];
    for round in 1..=plan.server_rounds() {
        for (case, costs) in cases.iter().zip(&mut costs) {
            progress(&format!("round {round} of {}: {}", plan.server_rounds(), report::title(case)));
            costs.push(measure(folders, case, plan.server_window()).await.with_context(|| report::title(case))?);
        }
    }
    let rows = cases.into_iter().zip(costs);
    Ok(rows.filter_map(|(case, costs)| Some(ServerRow { case, cost: ServerCost::median(&costs)? })).collect())
}

/// A connection takes a descriptor here too.
fn raise_open_files() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Starts a server, loads it, and checks what it stored.
///
/// # Errors
///
/// When an answer is no success, or not as many events were stored as were posted.
async fn measure(folders: &Folders, case: &Case, window: Duration) -> anyhow::Result<ServerCost> {
    let services = Services::start(PUT_TIME).await?;
    let process = ServerProcess::start(folders, case.server, services.address).await?;
    let requests = case.requests();
    let load =
        |pace| Load { address: process.address, requests: requests.clone(), connections: case.connections, pace };
    let pace = case.rate.map_or(Pace::Closed, |rate| Pace::Planned(f64::from(rate)));
    let full = run(&process, load(pace), window).await?;
    let stored = services.take_stored();
    let half = match case.rate {
        Some(_) => None,
        None => Some(run(&process, load(Pace::Planned(full.posts_a_second / 2.0)), window).await?),
    };
    let posts = full.posts + half.as_ref().map_or(0, |phase| phase.posts);
    let peak_rss_mib = process.peak_rss_mib()?;
    match case.server {
        Server::Ingest { .. } => {
            check_stored(&stored, full.posts * case.events as u64)?;
            check_stored(&services.take_stored(), (posts - full.posts) * case.events as u64)?;
        }
        Server::NginxProxy { .. } => {
            let logged = process.logged()?.unwrap_or(0);
            ensure!(logged == posts, "{logged} bodies were logged of {posts}");
        }
        Server::NginxReturn => {}
    }
    process.end().await?;

    let bytes: usize = stored.records.iter().map(|record| record.data.len() + record.partition_key.len()).sum();
    let (events, records) = (full.posts as f64 * case.events as f64, stored.records.len() as f64);
    Ok(ServerCost {
        posts_a_second: full.posts_a_second,
        cpu_us: full.cpu_us,
        p99_ms: half.as_ref().unwrap_or(&full).p99_ms,
        peak_rss_mib,
        answer_bytes: full.answer_bytes,
        stored_bytes_an_event: bytes as f64 / events,
        events_a_record: if records > 0.0 { events / records } else { 0.0 },
        records_a_call: records / f64::from(stored.calls.max(1)),
    })
}

/// Loads a server, first without looking at it: for half of the window, and until all connections are under way.
async fn run(process: &ServerProcess, load: Load, window: Duration) -> anyhow::Result<Phase> {
    let enough = 2 * u64::from(load.connections);
    let running = Running::start(load)?;
    sleep(window / 2).await;
    while running.posts() < enough && !running.is_over() {
        sleep(Duration::from_millis(10)).await;
    }
    running.begin_window();
    let (began, cpu, posts) = (std::time::Instant::now(), process.cpu()?, running.posts());
    sleep(window).await;
    let (cpu, posts, took) = (process.cpu()?.saturating_sub(cpu), running.posts() - posts, began.elapsed());
    let mut answered = running.end().await?;
    ensure!(posts > 0, "no POST was answered");
    answered.latencies.sort_unstable();
    let p99 = answered.latencies.get(answered.latencies.len() * 99 / 100).context("no POST was in the window")?;
    Ok(Phase {
        posts_a_second: posts as f64 / took.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / posts as f64,
        p99_ms: p99.as_secs_f64() * 1e3,
        answer_bytes: answered.answer_bytes as f64,
        posts: answered.posts,
    })
}

/// Errors unless that many events are on the stream.
fn check_stored(stored: &Stored, events: u64) -> anyhow::Result<()> {
    let mut found = 0;
    for record in &stored.records {
        found += lines(&record.data)?.len() as u64;
    }
    ensure!(found == events, "{found} events are on the stream of {events} that were posted");
    ensure!(
        stored.objects.is_empty(),
        "{} objects are in the bucket: not all went to the stream",
        stored.objects.len()
    );
    Ok(())
}
