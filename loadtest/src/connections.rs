//! The connections of a run: some from the start, kept alive; more when all are busy, up to a limit.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::oneshot;

use crate::target::{ConnectError, Protocol, Stream, Target};

/// Requests at once on one connection of HTTP/2: what servers allow that say nothing else.
/// <https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2>
const HTTP_2_STREAMS: usize = 100;

type Body = Full<Bytes>;
type Sent = Result<Response<Incoming>, TrySendError<Request<Body>>>;
type Answer = Pin<Box<dyn Future<Output = Sent>>>;

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// An open connection.
pub(crate) struct Connection {
    sender: RefCell<Sender>,
    in_flight: Cell<usize>,
    capacity: usize,
}

impl Connection {
    fn new(sender: Sender) -> Self {
        let capacity = match sender {
            Sender::Http1(_) => 1,
            Sender::Http2(_) => HTTP_2_STREAMS,
        };
        Self { sender: RefCell::new(sender), in_flight: Cell::new(0), capacity }
    }

    fn is_closed(&self) -> bool {
        match &*self.sender.borrow() {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Sends a request, and gives it back if the connection turns out to be closed before any of it was sent.
    pub(crate) async fn send(&self, request: Request<Body>) -> Sent {
        // Both take the request at once; the borrow ends before anything is waited for.
        let answer: Answer = match &mut *self.sender.borrow_mut() {
            Sender::Http1(sender) => Box::pin(sender.try_send_request(request)),
            Sender::Http2(sender) => Box::pin(sender.try_send_request(request)),
        };
        answer.await
    }

    /// Until the connection takes another request, or is closed.
    async fn ready(&self) -> Result<(), hyper::Error> {
        poll_fn(|context| self.poll_ready(context)).await
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        match &mut *self.sender.borrow_mut() {
            Sender::Http1(sender) => sender.poll_ready(context),
            Sender::Http2(sender) => sender.poll_ready(context),
        }
    }
}

/// How a request comes to a connection.
pub(crate) enum Turn {
    /// On this one, now.
    Ready(Rc<Connection>),
    /// On one that it opens.
    Open,
    /// On whichever is free next. The sender is dropped when there will be none.
    Wait(oneshot::Receiver<Turn>),
}

pub(crate) struct Connections {
    target: Target,
    limit: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Those with room for a request.
    ready: VecDeque<Rc<Connection>>,
    /// Open and being opened.
    open: usize,
    opened: u64,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

impl Connections {
    /// At most `limit` at once.
    pub(crate) fn new(target: Target, limit: usize) -> Self {
        Self { target, limit, state: RefCell::default() }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// How many were opened in all.
    pub(crate) fn opened(&self) -> u64 {
        self.state.borrow().opened
    }

    /// Opens so many, each of which must be there.
    pub(crate) async fn open_some(&self, count: usize) -> Result<(), ConnectError> {
        for _ in 0..count.min(self.limit) {
            self.state.borrow_mut().open += 1;
            let connection = self.open().await?;
            self.give_back(connection);
        }
        Ok(())
    }

    /// What the next request is to do.
    pub(crate) fn turn(&self) -> Turn {
        let mut state = self.state.borrow_mut();
        if let Some(connection) = state.take_ready() {
            return Turn::Ready(connection);
        }
        if state.open < self.limit {
            state.open += 1;
            return Turn::Open;
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        Turn::Wait(receiver)
    }

    /// Opens a connection, for whom [`Turn::Open`] was told; it has the first place on it.
    pub(crate) async fn open(&self) -> Result<Rc<Connection>, ConnectError> {
        let mut opening = Opening { connections: self, is_done: false };
        let sender = match self.target.connect().await? {
            Stream::Plain(stream) => self.shake_hands(TokioIo::new(stream)).await?,
            Stream::Tls(stream) => self.shake_hands(TokioIo::new(stream)).await?,
        };
        opening.is_done = true;
        let connection = Rc::new(Connection::new(sender));
        connection.in_flight.set(1);
        let mut state = self.state.borrow_mut();
        state.opened += 1;
        if connection.capacity > 1 {
            state.ready.push_back(connection.clone());
        }
        Ok(connection)
    }

    async fn shake_hands<I>(&self, stream: I) -> Result<Sender, ConnectError>
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        // How a connection ends is told to its requests.
        match self.target.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::task::spawn_local(async move { connection.await.ok() });
                Ok(Sender::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::task::spawn_local(async move { connection.await.ok() });
                Ok(Sender::Http2(sender))
            }
        }
    }

    /// A request's place on a connection is free again, once the connection is ready for another.
    pub(crate) async fn release(&self, connection: Rc<Connection>) {
        match connection.ready().await {
            Ok(()) => self.give_back(connection),
            Err(_) => self.discard(connection),
        }
    }

    fn give_back(&self, connection: Rc<Connection>) {
        let mut state = self.state.borrow_mut();
        let was_full = connection.in_flight.get() == connection.capacity;
        connection.in_flight.set(connection.in_flight.get() - 1);
        if was_full {
            state.ready.push_back(connection);
        }
        while !state.waiting.is_empty() {
            let turn = match state.take_ready() {
                Some(connection) => Turn::Ready(connection),
                // What was given back had been closed meanwhile.
                None if state.open < self.limit => {
                    state.open += 1;
                    Turn::Open
                }
                None => return,
            };
            if let Some(unwanted) = state.hand(turn) {
                drop(state);
                return self.return_unwanted(unwanted);
            }
        }
    }

    /// Nobody waited any more.
    fn return_unwanted(&self, turn: Turn) {
        match turn {
            Turn::Ready(connection) => self.give_back(connection),
            Turn::Open => self.state.borrow_mut().open -= 1,
            Turn::Wait(_) => {}
        }
    }

    /// A request's place on a connection is free, and the connection is of no more use; unless it is one of HTTP/2, where
    /// what ends one request need not end the others.
    pub(crate) fn discard(&self, connection: Rc<Connection>) {
        if connection.capacity > 1 && !connection.is_closed() {
            return self.give_back(connection);
        }
        connection.in_flight.set(connection.in_flight.get() - 1);
        // Each request on it finds that it is closed; the last one counts it as lost.
        if connection.in_flight.get() == 0 {
            self.state.borrow_mut().ready.retain(|ready| !Rc::ptr_eq(ready, &connection));
            self.lose();
        }
    }

    /// A connection is gone: who waits may open another.
    fn lose(&self) {
        let mut state = self.state.borrow_mut();
        if state.hand(Turn::Open).is_some() {
            state.open -= 1;
        }
    }

    /// Whoever still waits is told that there will be none.
    pub(crate) fn stop_waiting(&self) {
        self.state.borrow_mut().waiting.clear();
    }
}

/// A connection that is being opened. When that fails, or is given up, its place is free again.
struct Opening<'c> {
    connections: &'c Connections,
    is_done: bool,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.connections.lose();
        }
    }
}

impl State {
    /// In turn, so that all are kept alive.
    fn take_ready(&mut self) -> Option<Rc<Connection>> {
        while let Some(connection) = self.ready.pop_front() {
            if connection.is_closed() {
                // With requests in flight the last of them counts it as lost.
                if connection.in_flight.get() == 0 {
                    self.open -= 1;
                }
                continue;
            }
            connection.in_flight.set(connection.in_flight.get() + 1);
            if connection.in_flight.get() < connection.capacity {
                self.ready.push_back(connection.clone());
            }
            return Some(connection);
        }
        None
    }

    /// To the first that still waits; else it is given back.
    fn hand(&mut self, mut turn: Turn) -> Option<Turn> {
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(turn) {
                Ok(()) => return None,
                Err(unwanted) => turn = unwanted,
            }
        }
        Some(turn)
    }
}

#[cfg(test)]
mod tests;
