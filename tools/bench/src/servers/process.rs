//! The servers that are compared, each a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::Server;
use crate::implementation::{Folders, existing, with_aws};
use crate::process::{cpu, id, peak_rss_mib};

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is tried whether nginx listens.
const START_INTERVAL: Duration = Duration::from_millis(20);
/// What all of nginx's answers say: as long as a real answer.
const ANSWER: &str = r#"{"accepted":1,"rejected":[]}"#;

/// The proxy's file.
const BODIES: &str = "bodies.log";

/// A server, what it needs, and where it listens.
pub(crate) struct ServerProcess {
    pub(crate) address: SocketAddr,
    child: Child,
    /// Of the proxy.
    upstream: Option<Child>,
    /// Where nginx has its files. Dropping it removes them.
    folder: Option<Folder>,
}

impl ServerProcess {
    /// Starts a server and waits until it takes connections.
    pub(crate) async fn start(folders: &Folders, server: Server, services: SocketAddr) -> anyhow::Result<Self> {
        match server {
            Server::Ingest { commit_interval_ms } => start_ingest(folders, commit_interval_ms, services).await,
            Server::NginxReturn => start_nginx(folders).await,
            Server::NginxProxy { keeps_upstream } => start_proxy(folders, keeps_upstream).await,
        }
    }

    /// User and system time of all threads, ended ones too.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(id(&self.child)?)
    }

    pub(crate) fn peak_rss_mib(&self) -> anyhow::Result<f64> {
        peak_rss_mib(id(&self.child)?)
    }

    /// Bodies that the proxy has logged; `None` of the others.
    pub(crate) fn logged(&self) -> anyhow::Result<Option<u64>> {
        let Some(folder) = self.folder.as_ref().filter(|_| self.upstream.is_some()) else { return Ok(None) };
        let lines = BufReader::new(File::open(folder.0.join(BODIES))?).split(b'\n');
        Ok(Some(lines.map(|line| line.map(|line| u64::from(!line.is_empty()))).sum::<std::io::Result<u64>>()?))
    }

    /// Kills the process and waits for its end, so that it takes no CPU from the next.
    pub(crate) async fn end(mut self) -> std::io::Result<()> {
        if let Some(upstream) = &mut self.upstream {
            upstream.kill().await?;
        }
        self.child.kill().await
    }
}

async fn start_ingest(folders: &Folders, interval: u64, services: SocketAddr) -> anyhow::Result<ServerProcess> {
    let mut command = Command::new(existing(&folders.server)?);
    with_aws(&mut command, services);
    command.env("LISTEN", "127.0.0.1:0").env("COMMIT_INTERVAL_MS", interval.to_string());
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = tokio::io::BufReader::new(child.stdout.take().context("no standard output")?).lines();
    let first = timeout(START_TIMEOUT, lines.next_line()).await.context("ingest-server does not listen")??;
    let first = first.context("ingest-server ended")?;
    let address = first.strip_prefix("listening: http://").with_context(|| format!("ingest-server said {first}"))?;
    let address = address.parse()?;
    // Its lines of metrics; it would wait for someone to read them.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(ServerProcess { address, child, upstream: None, folder: None })
}

async fn start_nginx(folders: &Folders) -> anyhow::Result<ServerProcess> {
    let folder = Folder::new()?;
    let address = free_address()?;
    let mut child = nginx(folders, &folder.0, "nginx", &answering(address))?;
    listens(address, &mut child).await?;
    Ok(ServerProcess { address, child, upstream: None, folder: Some(folder) })
}

async fn start_proxy(folders: &Folders, keeps_upstream: bool) -> anyhow::Result<ServerProcess> {
    let folder = Folder::new()?;
    let (address, upstream_address) = (free_address()?, free_address()?);
    let mut upstream = nginx(folders, &folder.0, "upstream", &answering(upstream_address))?;
    listens(upstream_address, &mut upstream).await?;
    let servers = proxy(address, upstream_address, keeps_upstream, &folder.0.join(BODIES));
    let mut child = nginx(folders, &folder.0, "nginx", &servers)?;
    listens(address, &mut child).await?;
    Ok(ServerProcess { address, child, upstream: Some(upstream), folder: Some(folder) })
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

fn answering(address: SocketAddr) -> String {
    format!("server {{ listen {address}; default_type application/json; return 200 '{ANSWER}'; }}")
}

/// Passes requests on, and writes each body to a file, as a line.
fn proxy(address: SocketAddr, upstream: SocketAddr, keeps_upstream: bool, log: &Path) -> String {
    let (keepalive, http) = match keeps_upstream {
        true => {
            ("keepalive 256; keepalive_requests 1000000000;", "proxy_http_version 1.1; proxy_set_header Connection '';")
        }
        false => ("", ""),
    };
    format!(
        "log_format body escape=json '$request_body';
        upstream next {{ server {upstream}; {keepalive} }}
        server {{
            listen {address};
            access_log {} body;
            client_body_buffer_size 64k;
            client_body_in_single_buffer on;
            location / {{ proxy_pass http://next; {http} }}
        }}",
        log.display()
    )
}

/// One process without a master, so that its CPU time is all of it.
fn nginx(folders: &Folders, folder: &Path, name: &str, servers: &str) -> anyhow::Result<Child> {
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{name}-{kind};\n", folder.display()))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {0}/{name}.pid; error_log stderr warn;
        events {{ worker_connections 16384; }}
        http {{
            {paths} access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 75s;
            {servers}
        }}",
        folder.display()
    );
    let file = folder.join(format!("{name}.conf"));
    std::fs::write(&file, config)?;
    let mut command = Command::new(existing(&folders.reference.join("bin/nginx"))?);
    command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(file);
    Ok(command.env_clear().stdout(Stdio::null()).kill_on_drop(true).spawn()?)
}

async fn listens(address: SocketAddr, child: &mut Child) -> anyhow::Result<()> {
    let connected = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(START_INTERVAL).await;
        }
    };
    tokio::select! {
        connected = timeout(START_TIMEOUT, connected) => connected.context("nginx does not listen"),
        ended = child.wait() => bail!("nginx ended: {}", ended?),
    }
}

/// A folder for this process' files, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let nanoseconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let path = std::env::temp_dir().join(format!("bench-{}-{nanoseconds}", std::process::id()));
        ensure!(
            path.to_str().is_some_and(|path| !path.contains([' ', '\'', '"', ';'])),
            "{}: nginx can't read such a name; set TMPDIR",
            path.display()
        );
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}
