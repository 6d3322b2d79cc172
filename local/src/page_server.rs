//! The status page: `status` as a process of its own, at the address of the AWS port, started again whenever it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use shared::timestamp::UnixMillis;
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::clock::Pace;
use crate::template::{self, Function, REGION, STACK_NAME};

const BINARY: &str = "status";
/// The name that it signs with. The faults are for the functions: no environment has this name.
const ACCESS_KEY: &str = "status";

/// How long it may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before it is started again, so that one which can't start does not keep the machine busy.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Listings here cost nothing, and a newcomer waits for an event to appear.
const REFRESH_MILLISECONDS: u32 = 500;

pub(crate) struct PageServer {
    pub(crate) address: SocketAddr,
    binary: PathBuf,
    environment: Vec<(String, String)>,
    /// Bound, and never listening: it keeps the port while no server runs.
    _port: TcpSocket,
}

/// What the page reads, and by which clock.
pub(crate) struct Watched<'a> {
    pub(crate) template: &'a template::Stack,
    pub(crate) aws: SocketAddr,
    pub(crate) front_door: SocketAddr,
    /// With the real time at which the clock began.
    pub(crate) clock: (Option<Pace>, UnixMillis),
}

/// The page's process, until it is dropped.
pub(crate) struct Serving(JoinHandle<()>);

impl PageServer {
    /// On a port; 0 is any that is free.
    pub(crate) fn new(port: u16) -> anyhow::Result<Self> {
        // It is no function, so it is not where these may be: it is beside this program.
        let binary = std::env::current_exe()?.with_file_name(BINARY);
        anyhow::ensure!(binary.is_file(), "{} is not built; `make build-local` builds it", binary.display());
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        let bound = socket.bind(SocketAddr::from(([127, 0, 0, 1], port)));
        bound.with_context(|| format!("STATUS_PORT: port {port} is not available; STATUS_PORT=0 picks a free one"))?;
        Ok(Self { address: socket.local_addr()?, binary, environment: Vec::new(), _port: socket })
    }

    /// Starts the page, and keeps it running until what is returned is dropped.
    pub(crate) async fn start(mut self, watched: &Watched<'_>) -> anyhow::Result<Serving> {
        self.environment = watched.environment();
        let mut process = self.spawn()?;
        tokio::select! {
            listening = timeout(START_TIMEOUT, self.listens()) => {
                listening.map_err(|_| anyhow!("{BINARY} does not listen after {} s", START_TIMEOUT.as_secs()))?;
            }
            // Somebody listens on the port whose sockets may share it.
            status = process.wait() => {
                let port = self.address.port();
                let hint = format!("if port {port} is taken, STATUS_PORT=0 picks a free one");
                return Err(anyhow!("STATUS_PORT: {BINARY} ended with {}; {hint}", status?));
            }
        }
        Ok(Serving(tokio::spawn(self.keep_running(process))))
    }

    async fn listens(&self) {
        while TcpStream::connect(self.address).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn keep_running(self, mut process: Child) {
        loop {
            let status = process.wait().await;
            warn!(?status, "the page's {BINARY} ended, and is started again");
            process = loop {
                sleep(RESTART_PAUSE).await;
                match self.spawn() {
                    Ok(process) => break process,
                    Err(problem) => warn!(%problem, "{BINARY} can't be started"),
                }
            };
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let mut command = Command::new("nice");
        command
            .args(["-n", "10"])
            .arg(&self.binary)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("PORT", self.address.port().to_string())
            // As the functions: Ctrl-C is for the stack.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().with_context(|| self.binary.display().to_string())
    }
}

/// The functions whose settings the page needs: the bucket, the stream and the keys of events; the rules on size and on time.
const SETTINGS: [&str; 3] = ["IngestFunction", "CheckSizeFunction", "CheckRecencyFunction"];

impl Watched<'_> {
    fn environment(&self) -> Vec<(String, String)> {
        let is_needed = |function: &&Function| SETTINGS.contains(&function.id.as_str());
        let settings = self.template.functions.iter().filter(is_needed).flat_map(|one| one.environment.clone());
        let names = self.template.functions.iter().map(|function| format!("{}={}", function.id, function.binary));
        let (pace, started) = &self.clock;
        let clock = pace.as_ref().map(|pace| ("CLOCK", pace.to_string()));
        let own = [
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.aws)),
            ("EVENTS_URL", format!("http://{}/events", self.front_door)),
            ("ALARM_PREFIX", format!("{STACK_NAME}-")),
            ("FUNCTIONS", names.collect::<Vec<_>>().join(",")),
            ("METRICS_DELAY_SECONDS", "0".to_owned()),
            ("REFRESH_MILLISECONDS", REFRESH_MILLISECONDS.to_string()),
            ("CLOCK_STARTED", started.rfc3339()),
        ];
        let own = own.into_iter().chain(clock).map(|(name, value)| (name.to_owned(), value));
        settings.chain(own).collect()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // With the task goes its process.
        self.0.abort();
    }
}
