//! `FRONT_DOOR=server`: `ingest-server` in place of the function with the Function URL, started again whenever it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpSocket, TcpStream};
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
    pub(crate) address: SocketAddr,
    spec: template::Function,
    binary: PathBuf,
    host: Host,
    log: FunctionLog,
    max_connections: usize,
    /// Bound, and never listening: it keeps the port while no server runs.
    _port: TcpSocket,
}

/// A process of the server.
struct Running {
    process: Child,
    output: [JoinHandle<()>; 2],
    killed: Arc<Notify>,
    _registered: Registered,
}

impl IngestServer {
    /// The server with a function's configuration, on a port; 0 is any that is free.
    pub(crate) fn new(spec: template::Function, host: Host, log: FunctionLog, port: u16) -> anyhow::Result<Self> {
        let max_connections = open_files::connections_of_ingest_server()?;
        let binary = host.binary(BINARY)?;
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        let bound = socket.bind(SocketAddr::from(([127, 0, 0, 1], port)));
        bound.with_context(|| format!("PORT: port {port} is not available; PORT=0 picks a free one"))?;
        Ok(Self { address: socket.local_addr()?, spec, binary, host, log, max_connections, _port: socket })
    }

    /// Starts the server, and keeps it running until the stack stops. The task ends when all that it took is stored.
    pub(crate) async fn start(self, stopping: watch::Receiver<bool>) -> anyhow::Result<JoinHandle<()>> {
        let mut running = self.spawn(0)?;
        tokio::select! {
            listening = timeout(START_TIMEOUT, self.listens()) => {
                listening.map_err(|_| anyhow!("{BINARY} does not listen after {} s; see its log", START_TIMEOUT.as_secs()))?;
            }
            status = running.process.wait() => return Err(anyhow!("{BINARY} ended with {}; see its log", status?)),
        }
        Ok(tokio::spawn(self.keep_running(running, stopping)))
    }

    async fn listens(&self) {
        while TcpStream::connect(self.address).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
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
        let output = [
            tokio::spawn(self.log.clone().follow(process.stdout.take(), Tail::default())),
            tokio::spawn(self.log.clone().follow(process.stderr.take(), Tail::default())),
        ];
        let (registered, killed) = self.host.environments.register(&name);
        Ok(Running { process, output, killed, _registered: registered })
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
