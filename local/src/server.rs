//! The HTTP server behind every port: who is admitted, how long a connection may be idle, and how many there may be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use shared::limits::MAX_LAMBDA_PAYLOAD_BYTES;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::body;
use crate::connection_progress::{Activity, Progress, WatchedStream};
use crate::faults::NoAnswer;
use crate::gate::Door;

/// How long a connection may go without its next request's headers, or its client without taking a byte of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection may be idle while another waits for its place, or the stack stops.
const CROWDED_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

impl Door {
    /// The bytes that a body may have at most, and how long it may take to arrive.
    const fn body_limits(self) -> (usize, Duration) {
        match self {
            // A page that takes longer is gone.
            Self::Events => (MAX_LAMBDA_PAYLOAD_BYTES, Duration::from_secs(10)),
            Self::Runtime => (MAX_LAMBDA_PAYLOAD_BYTES, Duration::from_secs(60)),
            // A part of a large object.
            Self::Aws => (body::MAX_BYTES, Duration::from_secs(60)),
            // It is read, never written.
            Self::Page => (0, Duration::from_secs(10)),
        }
    }

    const fn idle_timeout(self) -> Duration {
        match self {
            Self::Events | Self::Aws | Self::Page => IDLE_TIMEOUT,
            // While an invocation runs, its runtime asks for nothing. It must not find its connection just being closed when
            // it answers.
            Self::Runtime => Duration::MAX,
        }
    }
}

pub struct Port {
    pub listener: TcpListener,
    pub door: Door,
    /// Connections that are served at once. One more is accepted and waits; the rest wait in the kernel.
    pub max_connections: usize,
}

impl Port {
    /// Serves the port until the stack stops, then finishes the requests that are under way.
    pub async fn serve<H, F>(self, handler: H, mut stopping: watch::Receiver<bool>)
    where
        H: Fn(SocketAddr, Request<Bytes>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, NoAnswer>> + Send + 'static,
    {
        let Self { listener, door, max_connections } = self;
        let free = Arc::new(Semaphore::new(max_connections));
        let places = Arc::new(Places { free, one_waits: AtomicBool::new(false) });
        let mut connections = JoinSet::new();
        while let Some((stream, peer, place)) = next_connection(&listener, &places, &mut stopping).await {
            let (progress, places) = (Progress::begin(), places.clone());
            let connection = Connection { door, peer, progress, places, _place: place };
            let (handler, stopping) = (handler.clone(), stopping.clone());
            connections.spawn(connection.serve(stream, handler, stopping));
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        connections.join_all().await;
    }
}

/// The next connection once there is a place for it; `None` when the stack stops.
async fn next_connection(
    listener: &TcpListener,
    places: &Places,
    stopping: &mut watch::Receiver<bool>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let accepted = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, places.take().await?)),
                Err(problem) => {
                    // Out of file descriptors, mostly: it passes.
                    warn!(%problem, "a connection can't be accepted yet");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accepted => accepted,
        // A stack that is gone stops too.
        _ = stopping.wait_for(|stopping| *stopping) => None,
    }
}

struct Places {
    free: Arc<Semaphore>,
    /// Whether an accepted connection waits for one, and none has made room for it yet.
    one_waits: AtomicBool,
}

impl Places {
    /// A place; the semaphore is never closed.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.one_waits.store(self.free.available_permits() == 0, Ordering::SeqCst);
        let place = self.free.clone().acquire_owned().await.ok();
        self.one_waits.store(false, Ordering::SeqCst);
        place
    }

    /// Whether the caller must end to make room: true for one caller for each connection that waits.
    fn must_make_room(&self) -> bool {
        self.one_waits.swap(false, Ordering::SeqCst)
    }
}

struct Connection {
    door: Door,
    peer: SocketAddr,
    progress: Progress,
    places: Arc<Places>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve<H, F>(self, stream: TcpStream, handler: H, mut stopping: watch::Receiver<bool>)
    where
        H: Fn(SocketAddr, Request<Bytes>) -> F,
        F: Future<Output = Result<Response<Body>, NoAnswer>>,
    {
        let peer = self.peer;
        if let Err(problem) = stream.set_nodelay(true) {
            debug!(%problem, "no TCP_NODELAY");
        }
        let stream = WatchedStream { stream, progress: self.progress.clone() };
        let service = service_fn(|request: Request<Incoming>| self.answer(request, &handler));
        // No HTTP/2: its clients can keep a connection busy without a request, and nobody here needs it.
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let mut served = std::pin::pin!(served);
        tokio::select! {
            ended = served.as_mut() => return report(peer, ended),
            () = self.stalls(|| self.places.must_make_room()) => return debug!(%peer, "an idle connection is closed"),
            _ = stopping.wait_for(|stopping| *stopping) => served.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            ended = served => report(peer, ended),
            () = self.stalls(|| true) => debug!(%peer, "an idle connection is closed"),
        }
    }

    /// Resolves when the connection is to be closed for what it is not doing.
    async fn stalls(&self, is_crowded: impl Fn() -> bool) {
        while !has_stalled(self.progress.activity(), self.door.idle_timeout(), &is_crowded) {
            sleep(CROWDED_IDLE_TIMEOUT / 4).await;
        }
    }

    async fn answer<H, F>(&self, request: Request<Incoming>, handler: &H) -> Result<Response<Body>, NoAnswer>
    where
        H: Fn(SocketAddr, Request<Bytes>) -> F,
        F: Future<Output = Result<Response<Body>, NoAnswer>>,
    {
        let _handling = self.progress.handling();
        if let Err(refusal) = self.door.admit(request.uri(), request.headers()) {
            return Ok(refusal.response());
        }
        let (parts, body) = request.into_parts();
        let (limit, time) = self.door.body_limits();
        match body::read(body, limit, time).await {
            Ok(body) => handler(self.peer, Request::from_parts(parts, body)).await,
            Err(problem) => {
                debug!(peer = %self.peer, %problem, "a request was not read whole");
                Ok(problem.response())
            }
        }
    }
}

fn report<E: std::fmt::Display>(peer: SocketAddr, ended: Result<(), E>) {
    if let Err(problem) = ended {
        debug!(%peer, %problem, "a connection broke");
    }
}

/// Whether a connection has been idle for too long, or its client has taken nothing of an answer for too long.
fn has_stalled(activity: Activity, idle_timeout: Duration, is_crowded: impl Fn() -> bool) -> bool {
    match activity {
        Activity::Handling => false,
        Activity::Answering(since) => since >= idle_timeout,
        Activity::Idle(since) => since >= idle_timeout || since >= CROWDED_IDLE_TIMEOUT && is_crowded(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::io;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LESS: Duration = Duration::from_millis(1);
    /// More than the kernel's buffers hold.
    const LARGE_ANSWER: usize = 32 * 1024 * 1024;
    /// When an idle connection of a crowded port is gone for sure.
    const CROWDED_OUT: Duration = CROWDED_IDLE_TIMEOUT.saturating_mul(2);

    #[rstest]
    #[case::handler(Activity::Handling, false, false)]
    #[case::idle(Activity::Idle(CROWDED_IDLE_TIMEOUT - LESS), false, false)]
    #[case::idle_in_a_crowd(Activity::Idle(CROWDED_IDLE_TIMEOUT), false, true)]
    #[case::idle_for_long(Activity::Idle(IDLE_TIMEOUT), true, true)]
    #[case::answer(Activity::Answering(IDLE_TIMEOUT - LESS), false, false)]
    #[case::answer_that_nobody_takes(Activity::Answering(IDLE_TIMEOUT), true, true)]
    fn a_connection_stalls_by_what_it_does(
        #[case] activity: Activity,
        #[case] in_any_case: bool,
        #[case] in_a_crowd: bool,
    ) {
        assert_eq!(has_stalled(activity, IDLE_TIMEOUT, || false), in_any_case);
        assert_eq!(has_stalled(activity, IDLE_TIMEOUT, || true), in_a_crowd);
    }

    /// A port with so many places that answers each request with so many bytes.
    async fn port(max_connections: usize, answer_bytes: usize) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = Port { listener, door: Door::Events, max_connections };
        let (running, stopping) = watch::channel(false);
        let answer = move |_, _| async move { Ok(Response::new(Body::from(vec![b'x'; answer_bytes]))) };
        tokio::spawn(async move {
            let _running = running;
            port.serve(answer, stopping).await;
        });
        address
    }

    /// Asks on a kept connection, without reading the answer.
    async fn ask(client: &mut TcpStream) -> io::Result<()> {
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await
    }

    /// Asks, and whether the whole answer came.
    async fn is_answered(client: &mut TcpStream, answer_bytes: usize) -> bool {
        ask(client).await.is_ok() && takes_answer(client, answer_bytes).await
    }

    async fn takes_answer(client: &mut TcpStream, answer_bytes: usize) -> bool {
        let (mut taken, mut buffer) = (Vec::new(), vec![0; 65_536]);
        let ends = |taken: &[u8]| taken.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4);
        let mut head = None;
        while head.is_none_or(|head| taken.len() < head + answer_bytes) {
            match client.read(&mut buffer).await {
                Ok(bytes @ 1..) => taken.extend_from_slice(&buffer[..bytes]),
                _ => return false,
            }
            head = head.or_else(|| ends(&taken));
        }
        taken.starts_with(b"HTTP/1.1 200")
    }

    #[tokio::test]
    async fn a_full_port_ends_an_idle_connection_only_when_another_waits() {
        let address = port(2, 1).await;
        let mut kept = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        for client in &mut kept {
            assert!(is_answered(client, 1).await);
        }
        sleep(CROWDED_OUT).await;
        for client in &mut kept {
            assert!(is_answered(client, 1).await, "closed though nobody waits");
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        assert!(is_answered(&mut third, 1).await);
        let [one, other] = &mut kept;
        assert_ne!(is_answered(one, 1).await, is_answered(other, 1).await);
    }

    #[tokio::test]
    async fn an_answer_that_is_read_late_arrives_whole_while_another_waits() {
        let address = port(1, LARGE_ANSWER).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        ask(&mut slow).await.unwrap();
        let mut waiting = TcpStream::connect(address).await.unwrap();
        sleep(CROWDED_OUT).await;
        assert!(takes_answer(&mut slow, LARGE_ANSWER).await);
        assert!(is_answered(&mut waiting, LARGE_ANSWER).await);
    }
}
