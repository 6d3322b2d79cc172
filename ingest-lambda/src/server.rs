//! The server: the front end for containers behind a load balancer. Requests share calls of Kinesis by group commit.
//!
//! A thread a core serves connections, each with a runtime of its own; one more calls Kinesis and S3. The main thread waits for
//! SIGTERM, serves the metrics and stops the others in their order: no more connections, no more requests, no more records.

mod address;
mod admin;
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
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use shared::frame::FrameWriter;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
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
    let tally = Tally::new(config.metrics_name.clone());
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
    Limits {
        interval: config.commit_interval,
        kinesis_retry: intake.config().kinesis_retry,
        // The other half is for bodies.
        max_bytes: config.max_in_flight_bytes / 2,
        max_lane_bytes: config.max_in_flight_bytes / 4,
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
            let runtime = runtime(1)?;
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
        let places = Arc::new(Semaphore::new(config.max_connections));
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        Ok(Self { intake, config, commit, tally, bodies, tls, places, phase })
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Connections that are open.
    fn connections(&self) -> usize {
        self.config.max_connections - self.places.available_permits()
    }
}
