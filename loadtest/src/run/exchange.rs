//! One POST's way: to a connection, out, and back with the answer.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use crate::answer::{judge, unknown};
use crate::connections::{Connection, Turn};
use crate::recorder::{Outcome, TIMEOUT, Times};
use crate::target::{ConnectError, Protocol};
use crate::workload::{Pieces, Post};

/// Of an answer: a POST of 10,000 events all of which are named does not fit, and is not sent by anyone.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Connections that a request may find closed before any of it was sent.
const MAX_STALE: u32 = 8;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("timeout")]
    Timeout,
    #[error("not_sent")]
    NotSent,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the answer has more than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
}

impl Failure {
    /// In a word, of which there are few.
    fn word(&self) -> &'static str {
        match self {
            Self::Timeout | Self::Connect(ConnectError::Timeout) => TIMEOUT,
            Self::NotSent => "not_sent",
            Self::Connect(ConnectError::Tcp(error)) => of_io(error.kind()).unwrap_or("connect"),
            Self::Connect(ConnectError::Tls(_) | ConnectError::NoHttp2) => "tls",
            Self::Connect(ConnectError::Http(error)) | Self::Http(error) => of_http(error),
            Self::TooLarge => "too_large",
        }
    }
}

fn of_io(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some("refused"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Some("reset"),
        io::ErrorKind::UnexpectedEof => Some("closed"),
        io::ErrorKind::TimedOut => Some(TIMEOUT),
        _ => None,
    }
}

fn of_http(error: &hyper::Error) -> &'static str {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(word) = error.downcast_ref::<io::Error>().and_then(|error| of_io(error.kind())) {
            return word;
        }
        cause = error.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() { "closed" } else { "protocol" }
}

struct Answer {
    status: u16,
    body: Bytes,
}

pub(super) fn request(shared: &Shared, post: &Post) -> Result<Request<Full<Bytes>>, http::Error> {
    let target = shared.connections.target();
    let mut request = Request::new(Full::new(post.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.uri(&post.path)?;
    *request.headers_mut() = (*post.headers).clone();
    if target.protocol == Protocol::Http1 {
        request.headers_mut().insert(HOST, shared.host.clone());
    }
    Ok(request)
}

pub(super) async fn exchange(
    shared: Rc<Shared>,
    planned: Duration,
    pieces: Pieces,
    request: Request<Full<Bytes>>,
    turn: Turn,
) {
    let mut left = None;
    let answer = match turn {
        Turn::Wait(receiver) => match receiver.await {
            Ok(turn) => timed(&shared, request, turn, &mut left).await,
            Err(_) => Err(Failure::NotSent),
        },
        turn => timed(&shared, request, turn, &mut left).await,
    };
    let ended = shared.started.elapsed();
    let outcome = match answer {
        Ok(Answer { status, body }) => {
            Outcome::Answered { status, account: judge(pieces, status, &body, &mut shared.ledger.borrow_mut()) }
        }
        Err(failure) => Outcome::Unanswered { why: failure.word(), account: unknown(pieces) },
    };
    shared.recorder.borrow_mut().ended(Times { planned, left, ended }, outcome);
}

async fn timed(
    shared: &Rc<Shared>,
    request: Request<Full<Bytes>>,
    turn: Turn,
    left: &mut Option<Duration>,
) -> Result<Answer, Failure> {
    let deadline = Instant::now() + shared.timeout;
    let mut held = Held { shared: shared.clone(), connection: None };
    let answer = timeout_at(deadline, send(&mut held, request, turn, left)).await;
    let answer = answer.unwrap_or(Err(Failure::Timeout));
    held.let_go(answer.is_ok());
    answer
}

/// The connection that a POST has its place on, so that it is given back however the POST ends.
struct Held {
    shared: Rc<Shared>,
    connection: Option<Rc<Connection>>,
}

impl Held {
    fn let_go(&mut self, is_well: bool) {
        let Some(connection) = self.connection.take() else { return };
        if !is_well {
            return self.shared.connections.discard(connection);
        }
        // It takes the connection a moment to see that the answer was read: no latency of this POST.
        let shared = self.shared.clone();
        tokio::task::spawn_local(async move { shared.connections.release(connection).await });
    }
}

async fn send(
    held: &mut Held,
    mut request: Request<Full<Bytes>>,
    mut turn: Turn,
    left: &mut Option<Duration>,
) -> Result<Answer, Failure> {
    let shared = held.shared.clone();
    for _ in 0..MAX_STALE {
        let connection = connection(&shared, turn).await?;
        held.connection = Some(connection.clone());
        if left.is_none() {
            *left = Some(shared.started.elapsed());
            shared.recorder.borrow_mut().left(shared.started.elapsed());
        }
        let mut error = match connection.send(request).await {
            Ok(response) => return read(response).await,
            Err(error) => error,
        };
        // Nothing was sent: the server had closed a connection that was kept alive. Another is as good.
        let Some(unsent) = error.take_message() else { return Err(error.into_error().into()) };
        request = unsent;
        held.let_go(false);
        turn = shared.connections.turn();
    }
    Err(Failure::NotSent)
}

async fn connection(shared: &Shared, mut turn: Turn) -> Result<Rc<Connection>, Failure> {
    loop {
        turn = match turn {
            Turn::Ready(connection) => return Ok(connection),
            Turn::Open => return Ok(shared.connections.open().await?),
            Turn::Wait(receiver) => receiver.await.map_err(|_| Failure::NotSent)?,
        };
    }
}

async fn read(response: hyper::Response<Incoming>) -> Result<Answer, Failure> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(of_body)?;
    Ok(Answer { status, body: body.to_bytes() })
}

fn of_body(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    match error.downcast::<hyper::Error>() {
        Ok(error) => Failure::Http(*error),
        // The other of the two errors that there are: `LengthLimitError`.
        Err(_) => Failure::TooLarge,
    }
}
