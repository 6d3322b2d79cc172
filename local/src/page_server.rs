//! The status page: `status` as a process of its own, at the address of the AWS port, started again whenever it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use shared::timestamp::UnixMillis;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
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
/// The line that says where it listens.
const MAX_LINE_BYTES: u64 = 256;
/// The pause before it is started again, so that one which can't start does not keep the machine busy.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Listings here cost nothing, and a newcomer waits for an event to appear.
const REFRESH_MILLISECONDS: u32 = 250;

pub(crate) struct PageServer {
    port: u16,
    binary: PathBuf,
    environment: Vec<(String, String)>,
}

/// A process of the page.
struct Running {
    process: Child,
    /// Nothing is written to it: it ends with this program, however that ends, and then the page does.
    _stdin: Option<ChildStdin>,
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
        Ok(Self { port, binary, environment: Vec::new() })
    }

    /// Starts the page, and keeps it running until what is returned is dropped.
    pub(crate) async fn start(mut self, watched: &Watched<'_>) -> anyhow::Result<(SocketAddr, Serving)> {
        self.environment = watched.environment();
        let port = self.port;
        let hint = || format!("STATUS_PORT: if port {port} is taken, STATUS_PORT=0 picks a free one");
        let (running, address) = self.launch().await.with_context(hint)?;
        // One that is started again is where it was.
        self.port = address.port();
        Ok((address, Serving(tokio::spawn(self.keep_running(running)))))
    }

    async fn keep_running(self, mut running: Running) {
        loop {
            let status = running.process.wait().await;
            warn!(?status, "the page's {BINARY} ended, and is started again");
            running = loop {
                sleep(RESTART_PAUSE).await;
                match self.launch().await {
                    Ok((running, _)) => break running,
                    Err(problem) => warn!(problem = format!("{problem:#}"), "{BINARY} can't be started"),
                }
            };
        }
    }

    /// A process that listens, and where. It takes the port itself: not every system lets two programs bind one.
    async fn launch(&self) -> anyhow::Result<(Running, SocketAddr)> {
        let mut process = self.command().spawn().with_context(|| self.binary.display().to_string())?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().context("no standard output")?;
        let mut line = String::new();
        let mut first_line = BufReader::new(stdout.take(MAX_LINE_BYTES));
        let read = timeout(START_TIMEOUT, first_line.read_line(&mut line)).await;
        read.map_err(|_| anyhow!("{BINARY} does not listen after {} s", START_TIMEOUT.as_secs()))??;
        let address = line.trim_end().strip_prefix("page: http://").and_then(|text| text.strip_suffix('/'));
        let address = address.and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| anyhow!("{BINARY} ended, or said {line:?} in place of its address"))?;
        Ok((Running { process, _stdin: stdin }, address))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nice");
        command
            .args(["-n", "10"])
            .arg(&self.binary)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("PORT", self.port.to_string())
            .env("UNTIL_STDIN_ENDS", "yes")
            // As the functions: Ctrl-C is for the stack.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }
}

/// What the address to post to ends with where players need a key. The page shows none.
const KEY_TO_ADD: &str = "?key=YOUR_KEY";

/// The functions whose settings the page needs: the bucket, the stream and the keys of events; the rules on size and on time.
const SETTINGS: [&str; 3] = ["IngestFunction", "CheckSizeFunction", "CheckRecencyFunction"];

impl Watched<'_> {
    fn environment(&self) -> Vec<(String, String)> {
        let is_needed = |function: &&Function| SETTINGS.contains(&function.id.as_str());
        let settings = self.template.functions.iter().filter(is_needed).flat_map(|one| one.environment.clone());
        let names = self.template.functions.iter().map(|function| format!("{}={}", function.id, function.binary));
        let (pace, started) = &self.clock;
        let key = if self.has_keys() { KEY_TO_ADD } else { "" };
        let clock = pace.as_ref().map(|pace| ("CLOCK", pace.to_string()));
        let own = [
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.aws)),
            ("EVENTS_URL", format!("http://{}/events{key}", self.front_door)),
            ("ALARM_PREFIX", format!("{STACK_NAME}-")),
            ("FUNCTIONS", names.collect::<Vec<_>>().join(",")),
            ("METRICS_DELAY_SECONDS", "0".to_owned()),
            ("REFRESH_MILLISECONDS", REFRESH_MILLISECONDS.to_string()),
            ("CLOCK_STARTED", started.rfc3339()),
        ];
        let own = own.into_iter().chain(clock).map(|(name, value)| (name.to_owned(), value));
        settings.chain(own).collect()
    }

    fn has_keys(&self) -> bool {
        let ingest = self.template.functions.iter().find(|function| function.id == "IngestFunction");
        let mut environment = ingest.into_iter().flat_map(|ingest| &ingest.environment);
        environment.any(|(name, value)| name == "WRITE_KEYS" && !value.is_empty())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // With the task goes its process.
        self.0.abort();
    }
}
