//! One POST: out, and back with the answer.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::answer::{judge, unknown};
use crate::connection::Connection;
use crate::ledger::Ledger;
use crate::recorder::{Outcome, Recorder, Times};
use crate::send_error::{MAX_ANSWER_BYTES, SendError};
use crate::target::{Body, Target};
use crate::workload::Pieces;

/// Connections that a request may find ended before any of it was sent.
const MAX_STALE: u32 = 8;

/// What all POSTs of a run share. All of it is on one thread.
pub(crate) struct Shared {
    pub(crate) target: Target,
    pub(crate) started: Instant,
    /// From when a worker turns to a POST until the end of the answer.
    pub(crate) timeout: Duration,
    pub(crate) recorder: RefCell<Recorder>,
    pub(crate) ledger: RefCell<Ledger>,
}

impl Shared {
    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A POST that is not sent at all.
    pub(crate) fn never_sent(&self, job: &Job) {
        let times = Times { planned: job.planned, left: None, ended: self.elapsed() };
        let outcome = Outcome::Unanswered { why: SendError::NotSent.word(), account: unknown(job.pieces) };
        self.recorder.borrow_mut().ended(times, outcome);
    }
}

/// A POST to send.
pub(crate) struct Job {
    pub(crate) planned: Duration,
    pub(crate) pieces: Pieces,
    pub(crate) request: Request<Body>,
}

struct Answer {
    status: u16,
    body: Bytes,
}

/// Sends a POST on a connection, and records what became of it.
pub(crate) async fn exchange(shared: &Shared, connection: &Connection, job: Job) {
    let Job { planned, pieces, request } = job;
    let mut left = None;
    let deadline = Instant::now() + shared.timeout;
    let answer = timeout_at(deadline, send(shared, connection, request, &mut left)).await;
    let times = Times { planned, left, ended: shared.elapsed() };
    let outcome = match answer.unwrap_or(Err(SendError::Timeout)) {
        Ok(Answer { status, body }) => {
            Outcome::Answered { status, account: judge(pieces, status, &body, &mut shared.ledger.borrow_mut()) }
        }
        Err(error) => {
            connection.abandon();
            Outcome::Unanswered { why: error.word(), account: unknown(pieces) }
        }
    };
    shared.recorder.borrow_mut().ended(times, outcome);
}

async fn send(
    shared: &Shared,
    connection: &Connection,
    mut request: Request<Body>,
    left: &mut Option<Duration>,
) -> Result<Answer, SendError> {
    for _ in 0..MAX_STALE {
        connection.open(&shared.target).await?;
        if left.is_none() {
            *left = Some(shared.elapsed());
            shared.recorder.borrow_mut().left(shared.elapsed());
        }
        let mut error = match connection.send(request).await {
            Some(Ok(response)) => return read(response).await,
            Some(Err(error)) => error,
            None => return Err(SendError::NotSent),
        };
        // The server had closed a connection that was kept alive, and nothing was sent: another is as good.
        let Some(unsent) = error.take_message() else { return Err(error.into_error().into()) };
        request = unsent;
        connection.abandon();
    }
    Err(SendError::NotSent)
}

async fn read(response: Response<Incoming>) -> Result<Answer, SendError> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => SendError::Http(*error),
        Err(error) if error.is::<LengthLimitError>() => SendError::TooLarge,
        Err(error) => SendError::Connect(error),
    })?;
    Ok(Answer { status, body: body.to_bytes() })
}
