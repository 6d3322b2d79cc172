//! `FRONT_DOOR=server`: `ingest-server` in place of the function with the Function URL, started again whenever it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::faults::environments::Registered;
use crate::function::Host;
use crate::log::{FunctionLog, Tail};
use crate::open_files;
use crate::template;

pub(crate) const BINARY: &str = "ingest-server";

/// How long it may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before it is started again, so that one which can't start does not keep the machine busy.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// How long it may take to store what it has: less than what the stack waits for its front door.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);

pub(crate) struct IngestServer {
    address: SocketAddr,
    spec: template::Function,
    binary: PathBuf,
    host: Host,
    log: FunctionLog,
    max_connections: usize,
}

/// A process of the server.
struct Running {
    process: Child,
    output: [JoinHandle<()>; 2],
    /// Of its standard output.
    tail: Tail,
    killed: Arc<Notify>,
    _registered: Registered,
}

impl IngestServer {
    /// The server with a function's configuration, on a port; 0 is any that is free.
    pub(crate) fn new(spec: template::Function, host: Host, log: FunctionLog, port: u16) -> anyhow::Result<Self> {
        let max_connections = open_files::connections_of_ingest_server()?;
        let binary = host.binary(BINARY)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Self { address, spec, binary, host, log, max_connections })
    }

    /// Starts the server, and keeps it running until the stack stops. The task ends when all that it took is stored.
    pub(crate) async fn start(
        mut self,
        stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
        let mut running = self.spawn(0)?;
        let (port, output) = (self.address.port(), running.tail.clone());
        self.address = tokio::select! {
            address = timeout(START_TIMEOUT, listening(&output)) => {
                address.map_err(|_| anyhow!("{BINARY} does not listen after {} s; see its log", START_TIMEOUT.as_secs()))?
            }
            status = running.process.wait() => {
                let hint = format!("if port {port} is taken, PORT=0 picks a free one");
                return Err(anyhow!("PORT: {BINARY} ended with {}; see its log; {hint}", status?));
            }
        };
        // One that is started again is where it was.
        Ok((self.address, tokio::spawn(self.keep_running(running, stopping))))
    }

    async fn keep_running(self, mut running: Running, mut stopping: watch::Receiver<bool>) {
        let mut starts = 0;
        loop {
            tokio::select! {
                () = stops(&mut stopping) => return running.stop().await,
                status = running.process.wait() => warn!(?status, "{BINARY} ended, and is started again"),
                () = running.killed.notified() => drop(running),
            }
            running = loop {
                sleep(RESTART_PAUSE).await;
                starts += 1;
                match self.spawn(starts) {
                    Ok(running) => break running,
                    Err(problem) => warn!(%problem, "{BINARY} can't be started"),
                }
            };
        }
    }

    fn spawn(&self, number: u64) -> anyhow::Result<Running> {
        let name = format!("{BINARY}-{number}");
        let mut process = self
            .host
            .command(&self.binary, &self.spec, &name)
            .env("LISTEN", self.address.to_string())
            // No load balancer here needs time to remove it.
            .env("DRAIN_SECONDS", "0")
            .env("METRICS_NAME", &self.spec.binary)
            .env("MAX_CONNECTIONS", self.max_connections.to_string())
            .spawn()
            .with_context(|| self.binary.display().to_string())?;
        let tail = Tail::default();
        let output = [
            tokio::spawn(self.log.clone().follow(process.stdout.take(), tail.clone())),
            tokio::spawn(self.log.clone().follow(process.stderr.take(), Tail::default())),
        ];
        let (registered, killed) = self.host.environments.register(&name);
        Ok(Running { process, output, tail, killed, _registered: registered })
    }
}

/// Resolves when the stack stops, or is gone.
async fn stops(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stopping| *stopping).await.is_err() {
        warn!("the stack is gone");
    }
}

impl Running {
    async fn stop(mut self) {
        let stopped = async {
            let status = self.terminate().await?;
            for output in self.output {
                output.await?;
            }
            anyhow::ensure!(status.success(), "it ended with {status}");
            anyhow::Ok(())
        };
        match timeout(STOP_TIMEOUT, stopped).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => warn!(%problem, "{BINARY} did not end well"),
            Err(_) => warn!("{BINARY} runs on {} s after SIGTERM, and is killed", STOP_TIMEOUT.as_secs()),
        }
    }

    async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(pid) = self.process.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        }
        Ok(self.process.wait().await?)
    }
}

/// Resolves when the server says where it listens. It takes the port itself: not every system lets two programs bind one.
async fn listening(output: &Tail) -> SocketAddr {
    loop {
        let text = String::from_utf8_lossy(&output.take()).into_owned();
        let address = text.lines().find_map(|line| line.strip_prefix("listening: http://")?.parse().ok());
        if let Some(address) = address {
            return address;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
