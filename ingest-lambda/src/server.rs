//! The server: the front end for containers behind a load balancer. Requests share calls of Kinesis by group commit.
//!
//! A thread a core serves connections, each with a runtime of its own; one more calls Kinesis and S3. The main thread waits for
//! SIGTERM, serves the metrics and stops the others in their order: no more connections, no more requests, no more records.

mod address;
mod admin;
mod aside;
mod body;
mod config;
mod connection;
mod detached;
mod exchange;
mod open_files;
mod progress;
mod proxy_protocol;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use shared::frame::FrameWriter;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::commit::{Limits, MAX_SPILL_BYTES};
use crate::committer::{Commit, Committer};
use crate::config::RecordCompression;
use crate::intake::Intake;
use crate::put::RecordStream;
use crate::spill::SpillBucket;
use crate::store::Services;
use crate::tally::Tally;
pub use config::Config;
use connection::Connections;
use tls::{Tls, TlsError};

/// Connections that the kernel holds until they are accepted; it may hold fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4_096;
/// How often counts are written while no request does it.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);

/// How far the server is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// It serves on, and asks its clients to go elsewhere.
    Draining,
    /// It takes no more connections, and no more requests than those that have begun.
    Stopping,
}

/// Why the server ended otherwise than by SIGTERM.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{variable}: can't listen on {address}: {error}")]
    Listen { variable: &'static str, address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the thread {0} ended before its time")]
    ThreadEnded(&'static str),
}

/// What all connections share.
struct Server {
    intake: Intake,
    config: Config,
    commit: Commit,
    tally: Arc<Tally>,
    bodies: Arc<body::Room>,
    tls: Option<Tls>,
    /// Connections that may still come.
    places: Arc<Semaphore>,
    /// Those that are open.
    connections: AtomicUsize,
    /// When one of them last ended while there was no place for another.
    last_full: Mutex<Option<Instant>>,
    /// Requests of HTTP/2 that may still come. Each takes some 5 KB, and a connection may have a hundred.
    streams: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
}

/// Serves until SIGTERM or Ctrl-C, and until all that was taken is stored.
///
/// # Errors
///
/// When a port is not available, or a thread has ended that never should.
pub fn run<S, B>(config: Config, intake: Intake, services: Services<S, B>) -> Result<(), ServerError>
where
    S: RecordStream + Send + 'static,
    B: SpillBucket + Send + 'static,
{
    runtime(1)?.block_on(serve(config, intake, services))
}

/// What the events of any request become at most where each line repeats the page: half of the least `MAX_IN_FLIGHT_BYTES`. Without it
/// they are less than a quarter.
const LARGEST_LINES_BYTES: usize = 32 * 1024 * 1024;

/// With so many threads for what blocks: large bodies, joins, compression, looking up addresses.
fn runtime(blocking_threads: usize) -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(blocking_threads).build()
}

async fn serve<S, B>(config: Config, intake: Intake, services: Services<S, B>) -> Result<(), ServerError>
where
    S: RecordStream + Send + 'static,
    B: SpillBucket + Send + 'static,
{
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    open_files::raise_limit(config.max_connections)?;
    let (set_phase, phase) = watch::channel(Phase::Serving);
    let listener = listen("LISTEN", config.listen)?;
    let admin = config.admin_listen.map(|address| listen("ADMIN_LISTEN", address)).transpose()?;
    let (drain_time, commit) = (config.drain_time, Commit::new(limits(&config, &intake)));
    let tally = Tally::with_schema(config.metrics_name.clone(), intake.schema().cloned());
    let committer = committer(&commit, &intake, services, &tally);
    let server = Arc::new(Server::new(intake, config, (commit.clone(), tally.clone()), phase)?);

    let (ended, mut first_ended) = mpsc::channel(1);
    let commit_thread = spawn("commit", ended.clone(), move || {
        // S3's address must not wait until what is for it is compressed.
        runtime(2)?.block_on(committer.run());
        Ok(())
    })?;
    let workers = workers(&server, &listener, &ended)?;
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    println!("listening: {scheme}://{}", listener.local_addr()?);
    if let Some(admin) = admin {
        println!("metrics: http://{}{}", admin.local_addr()?, admin::METRICS_PATH);
        tokio::spawn(admin::serve(admin, server.clone()));
    }
    drop(listener);
    tokio::spawn(flush(tally.clone()));
    tokio::spawn(reload_tls(server));
    let [terminate, interrupt] = &mut signals;
    let drained = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        set_phase.send_replace(Phase::Draining);
        tokio::time::sleep(drain_time).await;
    };
    tokio::select! {
        () = drained => {}
        Some(name) = first_ended.recv() => return Err(ServerError::ThreadEnded(name)),
    }
    set_phase.send_replace(Phase::Stopping);
    for worker in workers {
        join("worker", worker).await?;
    }
    commit.close();
    join("commit", commit_thread).await?;
    tally.flush();
    Ok(())
}

async fn flush(tally: Arc<Tally>) {
    loop {
        tokio::time::sleep(FLUSH_INTERVAL).await;
        tally.flush();
    }
}

async fn reload_tls(server: Arc<Server>) {
    if let Some(tls) = &server.tls {
        tls.reload().await;
    }
}

fn limits(config: &Config, intake: &Intake) -> Limits {
    // A lane that could never take the largest request would refuse it however often it comes.
    let largest = if intake.config().client_context.page { LARGEST_LINES_BYTES } else { 0 };
    Limits {
        interval: config.commit_interval,
        kinesis_retry: intake.config().kinesis_retry,
        // The other half is for bodies.
        max_bytes: config.max_in_flight_bytes / 2,
        max_lane_bytes: (config.max_in_flight_bytes / 4).max(largest),
        max_record_bytes: intake.packing().max_shared_bytes(),
        max_spill_bytes: MAX_SPILL_BYTES,
    }
}

fn committer<S, B>(commit: &Commit, intake: &Intake, services: Services<S, B>, tally: &Arc<Tally>) -> Committer<S, B>
where
    S: RecordStream,
    B: SpillBucket,
{
    let frames = (intake.config().record_compression == RecordCompression::Zstd).then(FrameWriter::default);
    let name = format!("ingest-server-{}", Uuid::now_v7());
    Committer::new(commit, services, frames, (name, tally.clone()))
}

/// A thread a core.
fn workers(
    server: &Arc<Server>,
    listener: &TcpListener,
    ended: &mpsc::Sender<&'static str>,
) -> io::Result<Vec<JoinHandle<io::Result<()>>>> {
    let cores = std::thread::available_parallelism()?.get();
    let worker = |_| {
        let (connections, listener) = (Connections::new(server.clone()), duplicate(listener)?);
        spawn("worker", ended.clone(), move || {
            let runtime = runtime(aside::THREADS)?;
            runtime.block_on(async { connections.serve(TcpListener::from_std(listener)?).await })
        })
    };
    (0..cores).map(worker).collect()
}

/// A thread that says when it ends, however it does.
fn spawn(
    name: &'static str,
    ended: mpsc::Sender<&'static str>,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let says_end = SaysEnd(name, ended);
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _says_end = says_end;
        run()
    })
}

struct SaysEnd(&'static str, mpsc::Sender<&'static str>);

impl Drop for SaysEnd {
    fn drop(&mut self) {
        if self.1.try_send(self.0).is_err() {
            tracing::debug!(thread = self.0, "ended, as another before it");
        }
    }
}

async fn join(name: &'static str, thread: JoinHandle<io::Result<()>>) -> Result<(), ServerError> {
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    match joined {
        Ok(Ok(result)) => Ok(result?),
        _ => Err(ServerError::ThreadEnded(name)),
    }
}

/// Threads share a listener by a descriptor each.
fn duplicate(listener: &TcpListener) -> io::Result<std::net::TcpListener> {
    use std::os::fd::AsFd;

    listener.as_fd().try_clone_to_owned().map(std::net::TcpListener::from)
}

fn listen(variable: &'static str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    let listener = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listener().map_err(|error| ServerError::Listen { variable, address, error })
}

impl Server {
    fn new(
        intake: Intake,
        config: Config,
        (commit, tally): (Commit, Arc<Tally>),
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, TlsError> {
        let bodies = Arc::new(body::Room::new(config.max_in_flight_bytes / 4));
        let [places, streams] = [(); 2].map(|()| Arc::new(Semaphore::new(config.max_connections)));
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        let (connections, last_full) = (AtomicUsize::new(0), Mutex::new(None));
        Ok(Self { intake, config, commit, tally, bodies, tls, places, connections, last_full, streams, phase })
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Connections that are open.
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_context::ClientContext;
    use crate::config::{self, ClientIp, small_config};
    use crate::intake::{Arrival, Head, Headers};
    use crate::write_keys::{MAX_APP_CHARS, WriteKeys};
    use shared::limits::{
        MAX_EVENTS_PER_REQUEST, MAX_LAMBDA_PAYLOAD_BYTES, MAX_ORIGIN_BYTES, MAX_PAGE_BYTES, MAX_USER_AGENT_BYTES,
    };
    use shared::timestamp::UnixMillis;

    /// Each line with all that it can say of its request.
    #[test]
    fn the_lines_of_the_largest_request_fit_one_lane() {
        let config = config::Config {
            client_ip: ClientIp::Full,
            client_context: ClientContext { origin: true, page: true, country: true },
            write_keys: WriteKeys::parse(&format!("{}=0123456789abcdef", "a".repeat(MAX_APP_CHARS))).unwrap(),
            max_body_bytes: MAX_LAMBDA_PAYLOAD_BYTES,
            max_record_bytes: 1024 * 1024,
            ..small_config()
        };
        let mut headers = Headers {
            user_agent: Some("\"".repeat(MAX_USER_AGENT_BYTES)),
            origin: Some(format!("https://{}", "o".repeat(MAX_ORIGIN_BYTES - "https://".len()))),
            referer: Some(format!("https://a.example/{}", "p".repeat(MAX_PAGE_BYTES - 1))),
            viewer_country: Some("DE".into()),
            ..Headers::default()
        };
        headers.key.add_header("0123456789abcdef");
        let bytes_each = MAX_LAMBDA_PAYLOAD_BYTES / MAX_EVENTS_PER_REQUEST - 1;
        let event = format!("{{\"id\":\"{:>254}\",\"x\":\"{}\"}}", 'i', "x".repeat(bytes_each - 270));
        assert_eq!(event.len(), bytes_each);
        let body = format!("[{}]", vec![event; MAX_EVENTS_PER_REQUEST].join(","));
        let head = Head { method: "POST", path: "/events", headers: &headers };
        let (client, at) =
            (Some("2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap()), UnixMillis(1_795_253_528_006));
        let request_id = "8b4a4f0e-6c1b-4f7e-9a55-2f1f0c3b7d11";
        let arrival = Arrival { head, body: body.as_bytes(), damage: None, client, at, request_id };
        let records = Intake::new(config).read(&arrival).records;
        let lines: usize =
            records.iter().map(|record| record.data.len() + record.items.len() * size_of::<usize>()).sum();
        assert!((24 << 20..LARGEST_LINES_BYTES - (64 << 10)).contains(&lines), "{lines}");
    }
}
