//! One process of a function behind a Runtime API of its own.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::body::Bytes;
use local::runtime_api::{Invocation, Reply, RuntimeApi};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::implementation::{Endpoints, Folders, Function, Implementation};
use crate::services::Services;

/// The time that a function has to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct FunctionProcess {
    api: RuntimeApi,
    child: Child,
    /// From the start of the process to its first request for work.
    pub(crate) start_up: Duration,
}

impl FunctionProcess {
    /// Starts a function and waits until it asks for work.
    pub(crate) async fn start(
        folders: &Folders,
        implementation: Implementation,
        function: Function,
        services: &Services,
    ) -> anyhow::Result<Self> {
        let api = RuntimeApi::start("bench").await?;
        let endpoints = Endpoints { runtime_api: api.address, services: services.address };
        let mut command: Command = folders.command(implementation, function, endpoints)?;
        let began = Instant::now();
        let mut child = command.stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        tokio::select! {
            started = api.started() => started?,
            ended = child.wait() => bail!("the function ended: {}", ended?),
        }
        Ok(Self { start_up: began.elapsed(), api, child })
    }

    pub(crate) async fn invoke(&mut self, payload: &Bytes) -> anyhow::Result<Reply> {
        let (reply, answer) = oneshot::channel();
        let invocation = Invocation { request_id: "bench".into(), payload: payload.clone(), timeout: TIMEOUT, reply };
        self.api.invoke(invocation).await;
        tokio::select! {
            answer = tokio::time::timeout(TIMEOUT, answer) => {
                answer.context("the function did not answer in time")?.context("the Runtime API ended")
            }
            ended = self.child.wait() => bail!("the function ended: {}", ended?),
        }
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(self.id()?)
    }

    pub(crate) fn peak_rss_mib(&self) -> anyhow::Result<f64> {
        peak_rss_mib(self.id()?)
    }

    /// Kills the process and waits for its end, so that it takes no CPU from the next.
    pub(crate) async fn end(mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    fn id(&self) -> anyhow::Result<Pid> {
        id(&self.child)
    }
}

pub(crate) fn id(child: &Child) -> anyhow::Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id().context("the process ended")?)?))
}

/// User and system time of all threads, ended ones too, in nanoseconds. Nothing that is measured has child processes, whose time
/// would be missing.
pub(crate) fn cpu(process: Pid) -> anyhow::Result<Duration> {
    Ok(clock_getcpuclockid(process)?.now()?.into())
}

/// The most memory that was resident at once, the program and its libraries included.
pub(crate) fn peak_rss_mib(process: Pid) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}
