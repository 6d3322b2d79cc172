//! One process of a function behind a Runtime API of its own: it is started, invoked, and what it cost is read.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::body::Bytes;
use local::runtime_api::{Invocation, Reply, RuntimeApi};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::functions::{Endpoints, Function, Places, Subject};
use crate::stand_ins::StandIns;

/// What a function has to answer an invocation.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct FunctionProcess {
    api: RuntimeApi,
    pub(crate) stand_ins: StandIns,
    child: Child,
    /// From the start of the process to its first request for work.
    pub(crate) start_up: Duration,
}

impl FunctionProcess {
    /// Starts a function and waits until it asks for work.
    pub(crate) async fn start(
        places: &Places,
        subject: Subject,
        function: Function,
        stand_ins: StandIns,
    ) -> anyhow::Result<Self> {
        let api = RuntimeApi::start("arn:aws:lambda:eu-central-1:123456789012:function:bench".into()).await?;
        let endpoints = Endpoints { runtime_api: api.address, services: stand_ins.address };
        let mut command = Command::from(places.command(subject, function, endpoints)?);
        let began = Instant::now();
        let mut child = command.stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        tokio::select! {
            started = api.started() => started?,
            ended = child.wait() => bail!("the function ended: {}", ended?),
        }
        Ok(Self { start_up: began.elapsed(), api, stand_ins, child })
    }

    /// Ends the process, and returns when it is gone: it takes no CPU from the next.
    pub(crate) async fn end(mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Hands over one invocation and waits for what the function makes of it.
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

    /// User and system time of all threads of the process, also of those that ended, in nanoseconds.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let id = i32::try_from(self.id()?)?;
        let now = clock_getcpuclockid(Pid::from_raw(id))?.now()?;
        Ok(Duration::from(now))
    }

    /// The most memory that the process had at once, program and libraries included.
    pub(crate) fn peak_rss_bytes(&self) -> anyhow::Result<u64> {
        let path = PathBuf::from(format!("/proc/{}/status", self.id()?));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in status")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }

    /// The CPU of other processes is not in [`FunctionProcess::cpu`]: a function that has some can't be measured.
    pub(crate) fn check_that_it_is_alone(&self) -> anyhow::Result<()> {
        let id = self.id()?;
        let own = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let ended_children_ticks: u64 = stat_fields(&own, [15, 16]).context("stat is malformed")?.iter().sum();
        if ended_children_ticks > 0 {
            bail!("the function had child processes, whose CPU is not counted");
        }
        for entry in std::fs::read_dir("/proc")? {
            // Most entries are no processes, and some processes end meanwhile.
            let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
            if stat_fields(&stat, [3]) == Some([u64::from(id)]) {
                bail!("the function has child processes, whose CPU is not counted");
            }
        }
        Ok(())
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the function ended")
    }
}

/// Fields of /proc/<pid>/stat, counted from 0. The second is the command's name, which may hold anything.
pub(crate) fn stat_fields<const COUNT: usize>(stat: &str, wanted: [usize; COUNT]) -> Option<[u64; COUNT]> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let mut found = [0; COUNT];
    for (slot, index) in found.iter_mut().zip(wanted) {
        *slot = fields.get(index - 2)?.parse().ok()?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat_are_those_after_the_name() {
        let stat = "42 (a) b (c) S 7 42 1 0 -1 4194304 1 2 3 4 100 50 11 12 20 0 1\n";
        assert_eq!(stat_fields(stat, [3]), Some([7]));
        assert_eq!(stat_fields(stat, [15, 16]), Some([11, 12]));
        assert_eq!(stat_fields(stat, [99]), None);
        assert_eq!(stat_fields("nothing", [3]), None);
    }
}
