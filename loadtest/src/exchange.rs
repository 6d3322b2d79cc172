//! POSTs under way: each waits for a connection, leaves, and is recorded with its answer. All of it is on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::{judge, unknown};
use crate::ledger::Ledger;
use crate::recorder::{Recorder, Times};
use crate::send_error::{MAX_ANSWER_BYTES, SendError};
use crate::target::{Body, Sender, Target};
use crate::workload::Post;

/// Closed connections that a request may meet before it is given up.
const MAX_STALE: u32 = 8;

/// What all POSTs of a run share.
pub(crate) struct Shared {
    pub(crate) target: Target,
    pub(crate) started: Instant,
    /// From when a POST has a connection until the end of the answer.
    pub(crate) timeout: Duration,
    /// A POST that still waits for a connection then is not sent.
    pub(crate) last_start: Instant,
    pub(crate) pool: Pool,
    pub(crate) recorder: RefCell<Recorder>,
    pub(crate) ledger: RefCell<Ledger>,
}

type Answer = (u16, Bytes);

impl Shared {
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sends a POST as soon as there is a connection for it, and records what became of it.
    pub(crate) async fn post(self: Rc<Self>, post: Post) {
        let Some(_permit) = self.permit().await else {
            return self.record(&post, None, Err(SendError::NotSent));
        };
        let (connection, mut sent_at) = (self.pool.take(), None);
        let answer = timeout(self.timeout, self.send(&connection, &post, &mut sent_at)).await;
        let answer = answer.unwrap_or(Err(SendError::Timeout));
        let is_answered = answer.is_ok();
        self.record(&post, sent_at, answer);
        if is_answered {
            connection.ready().await
        } else {
            connection.abandon().await
        }
        self.pool.idle.borrow_mut().push_back(connection);
    }

    /// To use a connection; `None` if there is none by the last start.
    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.pool.permits.try_acquire() {
            return Some(permit);
        }
        self.recorder.borrow_mut().result.generator.held_back += 1;
        timeout_at(self.last_start, self.pool.permits.acquire()).await.ok()?.ok()
    }

    fn record(&self, post: &Post, sent_at: Option<Duration>, answer: Result<Answer, SendError>) {
        let (times, pieces) = (Times { planned: post.planned, sent_at, ended: self.elapsed() }, post.pieces);
        let (answer, account) = match answer {
            Ok((status, body)) => (Ok(status), judge(pieces, status, &body, &mut self.ledger.borrow_mut())),
            Err(error) => (Err(error.word()), unknown(pieces)),
        };
        self.recorder.borrow_mut().record_outcome(times, answer, account);
    }

    async fn send(
        &self,
        connection: &Connection,
        post: &Post,
        sent_at: &mut Option<Duration>,
    ) -> Result<Answer, SendError> {
        let mut request = self.target.request(post).map_err(|error| SendError::Failed(error.into()))?;
        for _ in 0..MAX_STALE {
            let response = connection.start(&self.target, request).await?;
            if sent_at.is_none() {
                *sent_at = Some(self.elapsed());
                self.recorder.borrow_mut().record_sent(self.elapsed());
            }
            let mut error = match response.await {
                Ok(response) => return read(response).await,
                Err(error) => error,
            };
            // The server had closed the idle connection before anything was sent: try another.
            let Some(unsent) = error.take_message() else { return Err(SendError::failed(error.into_error())) };
            request = unsent;
            connection.abandon().await;
        }
        Err(SendError::NotSent)
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, SendError> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(SendError::Failed)?;
    Ok((status, body.to_bytes()))
}

/// The connections of a run. With HTTP/1.1 each takes one POST at a time, with HTTP/2 several.
pub(crate) struct Pool {
    /// One for each POST that may be under way.
    permits: Semaphore,
    /// POSTs that a connection takes at once.
    streams: u32,
    /// Each connection once for every further POST that it can take. The longest idle comes first, which keeps all alive.
    idle: RefCell<VecDeque<Rc<Connection>>>,
}

impl Pool {
    pub(crate) fn new(connections: &[Rc<Connection>], max_connections: u32, streams: u32) -> Self {
        let idle = (0..streams).flat_map(|_| connections.iter().cloned()).collect();
        let permits = Semaphore::new((max_connections * streams) as usize);
        Self { permits, streams, idle: RefCell::new(idle) }
    }

    /// For a POST that has a permit: one that is idle, or else a new one.
    fn take(&self) -> Rc<Connection> {
        let mut idle = self.idle.borrow_mut();
        idle.pop_front().unwrap_or_else(|| {
            let new = Rc::<Connection>::default();
            idle.extend((1..self.streams).map(|_| new.clone()));
            new
        })
    }
}

/// Fails with the request itself if none of it was sent.
type Sent = Result<Response<Incoming>, TrySendError<Request<Body>>>;

/// Opened again after it has ended. With HTTP/2, other POSTs wait for the one that opens it.
#[derive(Default)]
pub(crate) struct Connection(Mutex<Option<Sender>>);

impl Connection {
    pub(crate) async fn open(&self, target: &Target) -> Result<(), SendError> {
        *self.0.lock().await = Some(target.connect().await?);
        Ok(())
    }

    /// Hands over a request, on a new connection if this one has ended.
    async fn start(
        &self,
        target: &Target,
        request: Request<Body>,
    ) -> Result<Pin<Box<dyn Future<Output = Sent>>>, SendError> {
        let mut sender = self.0.lock().await;
        let open = match sender.take().filter(|sender| !sender.is_closed()) {
            Some(open) => open,
            // Boxed, because it is large and seldom needed: each POST is a task of that size.
            None => Box::pin(target.connect()).await?,
        };
        let response: Pin<Box<dyn Future<Output = Sent>>> = match sender.insert(open) {
            Sender::Http1(sender) => Box::pin(sender.try_send_request(request)),
            Sender::Http2(sender) => Box::pin(sender.try_send_request(request)),
        };
        Ok(response)
    }

    /// Waits until it takes another request or has ended.
    async fn ready(&self) {
        let mut sender = self.0.lock().await;
        if let Some(Sender::Http1(http1)) = &mut *sender
            && http1.ready().await.is_err()
        {
            *sender = None;
        }
    }

    /// Closes it after a POST failed on it, unless other POSTs share it (HTTP/2).
    async fn abandon(&self) {
        let mut sender = self.0.lock().await;
        sender.take_if(|sender| matches!(sender, Sender::Http1(_)));
    }
}
