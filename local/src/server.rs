//! The HTTP server behind both ports: who is let in, how long a connection may be idle, and how many there may be.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tracing::{debug, warn};

use crate::faults::NoAnswer;
use crate::gate::Door;

/// How long a connection may go without a byte of a body, or before its next request has come with all its headers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The same while others wait for its place, or the stack stops.
const CROWDED_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest that a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

impl Door {
    /// Connections that are served at once. More wait in the kernel until one ends. Together they stay under the 1,024 open
    /// files that a process usually may have, with room for the functions.
    const fn max_connections(self) -> usize {
        match self {
            Self::Events => 600,
            Self::Aws => 200,
        }
    }
}

/// Serves a port until the stack stops, then finishes the requests that are under way.
pub(crate) async fn serve<H, F>(listener: TcpListener, door: Door, handler: H, mut stopping: watch::Receiver<bool>)
where
    H: Fn(SocketAddr, Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Body>, NoAnswer>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(door.max_connections()));
    let mut connections = JoinSet::new();
    while let Some((stream, peer)) = next_connection(&listener, &places, &mut stopping).await {
        let connection = Connection { door, peer, progress: Arc::default(), places: places.clone() };
        let (handler, stopping) = (handler.clone(), stopping.clone());
        connections.spawn(connection.serve(stream, handler, stopping));
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    connections.join_all().await;
}

/// The next connection once there is a place for it, which it gives back at its end; `None` when the stack stops.
async fn next_connection(
    listener: &TcpListener,
    places: &Semaphore,
    stopping: &mut watch::Receiver<bool>,
) -> Option<(TcpStream, SocketAddr)> {
    let accepted = async {
        // The semaphore is never closed.
        if let Ok(place) = places.acquire().await {
            place.forget();
        }
        loop {
            match listener.accept().await {
                Ok(accepted) => return accepted,
                Err(problem) => {
                    // Out of file descriptors, mostly: it passes.
                    warn!(%problem, "a connection can't be accepted yet");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accepted => Some(accepted),
        // A stack that is gone stops too.
        _ = stopping.wait_for(|stopping| *stopping) => None,
    }
}

/// A connection that has a place.
struct Connection {
    door: Door,
    peer: SocketAddr,
    progress: Arc<Progress>,
    places: Arc<Semaphore>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.places.add_permits(1);
    }
}

impl Connection {
    async fn serve<H, F>(self, stream: TcpStream, handler: H, mut stopping: watch::Receiver<bool>)
    where
        H: Fn(SocketAddr, Request<Body>) -> F + 'static,
        F: Future<Output = Result<Response<Body>, NoAnswer>> + Send + 'static,
    {
        let peer = self.peer;
        if let Err(problem) = stream.set_nodelay(true) {
            debug!(%problem, "no TCP_NODELAY");
        }
        let service = service_fn(|request: Request<Incoming>| self.answer(request, &handler));
        let builder = Builder::new(TokioExecutor::new());
        let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = served.as_mut() => return report(peer, ended),
            () = self.progress.idle_for(|| self.idle_timeout()) => return debug!(%peer, "an idle connection is closed"),
            _ = stopping.wait_for(|stopping| *stopping) => served.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            ended = served => report(peer, ended),
            () = self.progress.idle_for(|| CROWDED_IDLE_TIMEOUT) => debug!(%peer, "an idle connection is closed"),
        }
    }

    fn idle_timeout(&self) -> Duration {
        if self.places.available_permits() == 0 { CROWDED_IDLE_TIMEOUT } else { IDLE_TIMEOUT }
    }

    fn answer<H, F>(
        &self,
        request: Request<Incoming>,
        handler: &H,
    ) -> impl Future<Output = Result<Response<Watched>, NoAnswer>> + Send + use<H, F>
    where
        H: Fn(SocketAddr, Request<Body>) -> F,
        F: Future<Output = Result<Response<Body>, NoAnswer>> + Send + 'static,
    {
        let (progress, answering) = (self.progress.clone(), Answering::begin(&self.progress));
        let watched = |body| {
            let deadline = Some(Box::pin(sleep(BODY_TIMEOUT)));
            Body::new(Watched { body, progress: self.progress.clone(), deadline })
        };
        let answer = match self.door.admit(request.uri(), request.headers()) {
            Ok(()) => Ok(handler(self.peer, request.map(|body| watched(Body::new(body))))),
            Err(refusal) => Err(refusal.response()),
        };
        async move {
            let response = match answer {
                Ok(answer) => answer.await?,
                Err(refused) => refused,
            };
            drop(answering);
            Ok(response.map(|body| Watched { body, progress, deadline: None }))
        }
    }
}

fn report<E: std::fmt::Display>(peer: SocketAddr, ended: Result<(), E>) {
    if let Err(problem) = ended {
        debug!(%peer, %problem, "a connection broke");
    }
}

/// What a connection is doing, and since when it has done nothing.
#[derive(Debug)]
struct Progress {
    /// Requests that are being answered. They have bounds of their own.
    answering: AtomicUsize,
    last: Mutex<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { answering: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }
}

impl Progress {
    fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Resolves when nothing has happened for as long as the limit is by then.
    async fn idle_for(&self, limit: impl Fn() -> Duration) {
        loop {
            // The limit may change meanwhile.
            sleep(CROWDED_IDLE_TIMEOUT / 4).await;
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if self.answering.load(Ordering::SeqCst) == 0 && last.elapsed() >= limit() {
                return;
            }
        }
    }
}

/// A request that is being answered until this is dropped.
struct Answering(Arc<Progress>);

impl Answering {
    fn begin(progress: &Arc<Progress>) -> Self {
        progress.answering.fetch_add(1, Ordering::SeqCst);
        Self(progress.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.note();
        self.0.answering.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive in {} s", BODY_TIMEOUT.as_secs())]
struct BodyTooSlow;

/// A body whose frames count as progress.
struct Watched {
    body: Body,
    progress: Arc<Progress>,
    /// When it must have arrived.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.progress.note();
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Some(Err(axum::Error::new(BodyTooSlow))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
