//! One connection: whose it is, which protocol it speaks, how long it may stay, and how it ends with the server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{self, Duration};

use bytes::{Buf, BytesMut};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use super::aside::Aside;
use super::exchange::Client;
use super::progress::{CROWDED_TIMEOUT, HEAD_TIMEOUT, Progress, Watched};
use super::proxy_protocol::{self, Header};
use super::{Phase, Server, tls};

/// Bytes of a request's head at most, and of what is read ahead of a connection.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Headers of a request at most.
const MAX_HEADERS: usize = 100;
/// Requests of an HTTP/2 connection at once.
const MAX_STREAMS: u32 = 100;
/// What a client may send ahead on one stream and on all of a connection: a body of a usual batch in one go.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Streams that a client may reset before they are looked at. More is an attack: CVE-2023-44487.
const MAX_PENDING_RESETS: usize = 20;
/// How long requests may take that have begun when the server stops: a head, a body and storing what they hold.
const STOP_TIMEOUT: Duration = Duration::from_secs(35);
/// How old a connection gets, and up to half as old again so that those of one moment don't end in one: a load balancer sends
/// only new ones to a new task.
const MAX_AGE: Duration = Duration::from_mins(10);
/// How long the server still counts as full after a connection has ended. The next one takes the place a moment later, and all that
/// look for a crowd in that moment would stay. Those that look meanwhile end, whether or not somebody waits: some 2 % of the idle.
const STILL_FULL: Duration = Duration::from_millis(100);
/// How an HTTP/2 connection begins.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The connections of one thread.
pub(super) struct Connections {
    server: Arc<Server>,
    aside: Arc<Aside>,
    phase: watch::Receiver<Phase>,
}

/// What a connection takes of the server's bound, until it is dropped.
struct Place {
    server: Arc<Server>,
    _permit: OwnedSemaphorePermit,
}

struct Accepted {
    server: Arc<Server>,
    aside: Arc<Aside>,
    stream: TcpStream,
    peer: SocketAddr,
    /// Dropped with the connection, or with the last of its requests if that takes longer.
    alive: mpsc::Sender<()>,
}

/// A connection whose first bytes were read.
struct Opened {
    read: BytesMut,
    address: IpAddr,
}

impl Connections {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self { phase: server.phase.clone(), aside: Arc::default(), server }
    }

    /// Serves until the server stops and all connections have ended.
    pub(super) async fn serve(mut self, listener: TcpListener) -> io::Result<()> {
        // Closed when all of its clones are dropped, with the connections that hold them.
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        while let Some((stream, peer, place)) = self.next(&listener).await {
            let (server, aside) = (self.server.clone(), self.aside.clone());
            let connection = Accepted { server, aside, stream, peer, alive: alive.clone() };
            let phase = self.phase.clone();
            tokio::spawn(async move {
                connection.serve(phase).await;
                drop(place);
            });
        }
        drop((listener, alive));
        // Whoever has not ended by then never answers what ends a connection, or sends nothing.
        if tokio::time::timeout(STOP_TIMEOUT, all_ended.recv()).await.is_err() {
            tracing::warn!("connections that did not end are dropped");
        }
        Ok(())
    }

    /// The next connection once there is a place for it; `None` when the server stops.
    async fn next(&mut self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr, Place)> {
        let server = &self.server;
        let accepted = async {
            // The semaphore is never closed.
            let permit = server.places.clone().acquire_owned().await.ok()?;
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => return Some((stream, peer, Place::take(server.clone(), permit))),
                    Err(error) => {
                        // A client that was gone at once, or too many open files, which passes.
                        tracing::warn!(%error, "a connection can't be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        };
        tokio::select! {
            accepted = accepted => accepted,
            () = stopping(&mut self.phase) => None,
        }
    }
}

impl Place {
    fn take(server: Arc<Server>, permit: OwnedSemaphorePermit) -> Self {
        server.connections.fetch_add(1, Ordering::Relaxed);
        Self { server, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // First, so that whoever looks meanwhile sees one or the other.
        if self.server.connections() >= self.server.config.max_connections {
            *self.server.last_full() = Some(Instant::now());
        }
        self.server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Resolves when the server stops, and also if what would say so is gone.
async fn stopping(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase == Phase::Stopping).await.is_err() {
        tracing::debug!("the main thread has ended");
    }
}

impl Accepted {
    async fn serve(mut self, mut phase: watch::Receiver<Phase>) {
        let mut read = BytesMut::new();
        let first_bytes = tokio::select! {
            first_bytes = self.server.in_time(more(&mut self.stream, &mut read)) => first_bytes,
            () = stopping(&mut phase) => return,
        };
        let served = match first_bytes {
            Ok(()) => self.serve_from(read, phase).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended before its first request");
        }
    }

    async fn serve_from(mut self, read: BytesMut, phase: watch::Receiver<Phase>) -> io::Result<()> {
        let server = self.server.clone();
        let opened = server.in_time(self.open(read)).await?;
        Box::pin(self.http(opened, phase)).await
    }

    /// Reads the proxy's header, if there must be one, and as much as tells the protocol.
    async fn open(&mut self, mut read: BytesMut) -> io::Result<Opened> {
        let stream = &mut self.stream;
        stream.set_nodelay(true)?;
        let mut address = self.peer.ip().to_canonical();
        if self.server.config.has_proxy_header {
            address = proxy_header(stream, &mut read).await?.unwrap_or(address);
        }
        // With TLS, the handshake tells.
        while self.server.tls.is_none() && read.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&read) {
            more(stream, &mut read).await?;
        }
        Ok(Opened { read, address })
    }

    async fn http(self, opened: Opened, phase: watch::Receiver<Phase>) -> io::Result<()> {
        let Self { server, aside, stream, alive, .. } = self;
        let (Opened { read, address }, progress) = (opened, Progress::new());
        let ends_at = Instant::now() + MAX_AGE.mul_f64(1.0 + rand::random::<f64>() / 2.0);
        let client =
            Arc::new(Client { server: server.clone(), aside, address, progress: progress.clone(), ends_at, alive });
        let Some(tls) = &server.tls else {
            let multiplexed = read.starts_with(HTTP2_PREFACE);
            client.serve(Watched::new(stream, read, progress), multiplexed, phase).await;
            return Ok(());
        };
        // The bytes of the handshake are none of a request.
        let handshake = tls.acceptor().accept(Watched::new(stream, read, Progress::new()));
        let stream = Box::new(server.in_time(handshake).await?);
        let multiplexed = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
        client.serve(Watched::new(stream, BytesMut::new(), progress), multiplexed, phase).await;
        Ok(())
    }
}

impl Server {
    fn is_crowded(&self) -> bool {
        self.connections() >= self.config.max_connections
            || self.last_full().is_some_and(|last| last.elapsed() < STILL_FULL)
    }

    fn last_full(&self) -> MutexGuard<'_, Option<Instant>> {
        self.last_full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For as long as a head may take.
    async fn in_time<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let (mut work, end) = (pin!(work), Instant::now() + HEAD_TIMEOUT);
        loop {
            match tokio::time::timeout(CROWDED_TIMEOUT, work.as_mut()).await {
                Ok(result) => return result,
                Err(_) if self.is_crowded() || Instant::now() >= end => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {}
            }
        }
    }
}

impl Client {
    async fn serve<I>(self: Arc<Self>, io: Watched<I>, multiplexed: bool, phase: watch::Receiver<Phase>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (server, progress, ends_at) = (self.server.clone(), self.progress.clone(), self.ends_at);
        let (io, watch) = (TokioIo::new(io), Watch { server, progress, multiplexed, phase, ends_at });
        // Each in a box of its own: a connection then takes the memory of the protocol that it speaks, not that of the largest.
        if multiplexed {
            Box::pin(http2(io, self, watch)).await;
        } else {
            Box::pin(http1(io, self, watch)).await;
        }
    }
}

async fn proxy_header(stream: &mut TcpStream, read: &mut BytesMut) -> io::Result<Option<IpAddr>> {
    loop {
        match proxy_protocol::parse(read) {
            Header::Incomplete => more(stream, read).await?,
            Header::Invalid => {
                return Err(io::Error::other("it has no PROXY protocol header, and PROXY_PROTOCOL is v2"));
            }
            Header::Complete { source, length } => {
                read.advance(length);
                return Ok(source);
            }
        }
    }
}

async fn more(stream: &mut TcpStream, read: &mut BytesMut) -> io::Result<()> {
    read.reserve(proxy_protocol::MAX_BYTES);
    match stream.read_buf(read).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn http1<I>(io: TokioIo<I>, client: Arc<Client>, watch: Watch)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| client.clone().exchange(request));
    let mut connection = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            // A client that has gone is one that has sent all: what it sent is still read and stored.
            .half_close(true)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            // 37 bytes of each answer, and nobody reads them.
            .auto_date_header(false)
            // An answer has 200 bytes: one piece.
            .writev(false)
            .serve_connection(io, service)
    );
    watch.run(connection.as_mut(), |connection| connection.graceful_shutdown()).await;
}

async fn http2<I>(io: TokioIo<I>, client: Arc<Client>, watch: Watch)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| client.clone().exchange(request));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .auto_date_header(false)
            .serve_connection(io, service)
    );
    watch.run(connection.as_mut(), |connection| connection.graceful_shutdown()).await;
}

/// Ends a connection when its time is over, or with the server.
struct Watch {
    server: Arc<Server>,
    progress: Progress,
    multiplexed: bool,
    phase: watch::Receiver<Phase>,
    ends_at: Instant,
}

impl Watch {
    async fn run<C, E>(mut self, mut connection: Pin<&mut C>, shut_down: impl Fn(Pin<&mut C>))
    where
        C: Future<Output = Result<(), E>>,
        E: std::error::Error,
    {
        let mut phase = *self.phase.borrow_and_update();
        loop {
            if self.must_end(phase) {
                shut_down(connection.as_mut());
            }
            let (now, crowded) = (time::Instant::now(), self.server.is_crowded());
            let Some(look) = self.progress.next_look(now, self.multiplexed, crowded) else { return };
            tokio::select! {
                ended = connection.as_mut() => return ended.unwrap_or_else(|error| {
                    tracing::debug!(%error, "a connection ended with an error");
                }),
                () = tokio::time::sleep_until(look.into()) => {}
                changed = self.phase.changed() => match changed {
                    Ok(()) => phase = *self.phase.borrow_and_update(),
                    Err(_) => return,
                },
            }
        }
    }

    /// Whether it takes no more requests. One whose head is half read still comes; its answer says that it is the last.
    fn must_end(&self, phase: Phase) -> bool {
        match phase {
            // An answer of HTTP/1.1 says that it is the last: a connection closed between two may lose the second request.
            Phase::Serving => self.multiplexed && Instant::now() >= self.ends_at,
            Phase::Draining => self.multiplexed,
            Phase::Stopping => self.multiplexed || !self.progress.is_in_head(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::committer::Commit;
    use crate::config::small_config;
    use crate::intake::Intake;
    use crate::server::{Config, limits};
    use crate::tally::Tally;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    fn server(phase: watch::Receiver<Phase>) -> Arc<Server> {
        let config = Config {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            admin_listen: None,
            commit_interval: Duration::from_millis(200),
            max_in_flight_bytes: 1 << 20,
            max_connections: 2,
            drain_time: Duration::ZERO,
            has_proxy_header: false,
            trusted_proxies: crate::server::address::TrustedProxies::default(),
            tls: None,
            metrics_name: "ingest".into(),
        };
        let intake = Intake::new(small_config());
        let (commit, tally) = (Commit::new(limits(&config, &intake)), Tally::new("ingest".into()));
        Arc::new(Server::new(intake, config, (commit, tally), phase).unwrap())
    }

    async fn ask(io: &mut DuplexStream) -> String {
        io.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let length = io.read(&mut answer).await.unwrap();
        String::from_utf8(answer[..length].to_vec()).unwrap()
    }

    /// The client's side, and what must outlive the connection.
    fn connect(multiplexed: bool) -> (DuplexStream, (watch::Sender<Phase>, mpsc::Receiver<()>)) {
        let (set_phase, phase) = watch::channel(Phase::Serving);
        let (server, progress) = (server(phase.clone()), Progress::new());
        let (io, served) = tokio::io::duplex(1024);
        let (address, ends_at) = (Ipv4Addr::LOCALHOST.into(), Instant::now() + MAX_AGE);
        let (alive, all_ended) = mpsc::channel(1);
        let aside = Arc::default();
        let client = Arc::new(Client { server, aside, address, progress: progress.clone(), ends_at, alive });
        tokio::spawn(client.serve(Watched::new(served, BytesMut::new(), progress), multiplexed, phase));
        (io, (set_phase, all_ended))
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_says_with_its_next_answer_that_it_ends() {
        let (mut io, _guards) = connect(false);
        let young = ask(&mut io).await;
        assert!(young.starts_with("HTTP/1.1 200") && !young.contains("connection: close"), "{young}");
        tokio::time::advance(MAX_AGE).await;
        let old = ask(&mut io).await;
        assert!(old.starts_with("HTTP/1.1 200") && old.contains("connection: close"), "{old}");
        assert_eq!(io.read(&mut [0; 16]).await.unwrap(), 0, "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_was_just_left_makes_nobody_else_stay() {
        let server = server(watch::channel(Phase::Serving).1);
        assert!(!server.is_crowded());
        let take = async || Place::take(server.clone(), server.places.clone().acquire_owned().await.unwrap());
        let (first, second) = (take().await, take().await);
        tokio::time::advance(MAX_AGE).await;
        assert!(server.is_crowded());
        drop(first);
        assert!(server.is_crowded() && server.connections() == 1);
        tokio::time::advance(STILL_FULL).await;
        assert!(!server.is_crowded());
        drop(second);
        assert!(!server.is_crowded(), "there was a place before");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_http_2_connection_is_told_to_go_away() {
        let (mut io, _guards) = connect(true);
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        io.write_all(&[HTTP2_PREFACE, &settings].concat()).await.unwrap();
        // Its own settings, ours taken, and a larger window.
        let young = frame_kinds(&mut io, 3).await;
        tokio::time::advance(MAX_AGE).await;
        let go_away = 7;
        assert_eq!((young.contains(&go_away), frame_kinds(&mut io, 1).await), (false, vec![go_away]));
    }

    /// Reads so many frames. <https://www.rfc-editor.org/rfc/rfc9113#name-frame-format>
    async fn frame_kinds(io: &mut DuplexStream, count: usize) -> Vec<u8> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            let mut head = [0; 9];
            io.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            io.read_exact(&mut vec![0; length as usize]).await.unwrap();
            kinds.push(head[3]);
        }
        kinds
    }
}
