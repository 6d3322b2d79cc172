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

    /// User and system time of all threads, ended ones too, in nanoseconds. None of the implementations has child
    /// processes, whose time would be missing.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let id = i32::try_from(self.id()?)?;
        Ok(clock_getcpuclockid(Pid::from_raw(id))?.now()?.into())
    }

    /// The most memory that was resident at once, the program and its libraries included.
    pub(crate) fn peak_rss_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in status")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }

    /// Kills the process and waits for its end, so that it takes no CPU from the next.
    pub(crate) async fn end(mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the function ended")
    }
}
