//! What a connection is doing, and since when it has made no progress.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Shared by a connection, its requests and its answers.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Requests whose handlers run.
    handlers: usize,
    /// Answers whose bodies are being sent.
    answers: usize,
    /// Whether the client has not taken what was last written to it.
    blocked: bool,
    last: Instant,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// A handler runs. Handlers have bounds of their own.
    Handling,
    /// An answer is on its way; for so long the client has taken nothing of it.
    Answering(Duration),
    /// Nothing, for so long. Headers that are still incomplete count as nothing.
    Idle(Duration),
}

impl Progress {
    /// Of a connection that begins now.
    pub(crate) fn begin() -> Self {
        Self(Arc::new(Mutex::new(State { handlers: 0, answers: 0, blocked: false, last: Instant::now() })))
    }

    pub(crate) fn activity(&self) -> Activity {
        let state = self.state();
        let since = state.last.elapsed();
        match &*state {
            State { handlers: 1.., .. } => Activity::Handling,
            State { answers: 1.., .. } | State { blocked: true, .. } => Activity::Answering(since),
            State { .. } => Activity::Idle(since),
        }
    }

    /// Counts a handler until the guard is dropped.
    pub(crate) fn handling(&self) -> Handling {
        self.note(|state| state.handlers += 1);
        Handling(self.clone())
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.last = Instant::now();
    }

    /// A poisoned lock only means that another task panicked; what it guards is still whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handler that runs.
pub(crate) struct Handling(Progress);

impl Handling {
    /// The handler is done, and its answer's body counts until it has been sent.
    pub(crate) fn answer(self, body: Body) -> AnswerBody {
        self.0.note(|state| state.answers += 1);
        AnswerBody { body, progress: self.0.clone() }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.note(|state| state.handlers -= 1);
    }
}

/// The body of an answer that is being sent.
pub(crate) struct AnswerBody {
    body: Body,
    progress: Progress,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.progress.note(|state| state.answers -= 1);
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Whoever asks for a frame has room for it: the client has taken what came before.
        self.progress.note(|_| {});
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's stream. What is written to it counts as progress; what is read does not, or a client could hold a
/// connection for ever with a header of one byte a second.
pub(crate) struct WatchedStream {
    pub(crate) stream: TcpStream,
    pub(crate) progress: Progress,
}

impl WatchedStream {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(_) => self.progress.note(|state| state.blocked = false),
            // Since the last write.
            Poll::Pending => self.progress.state().blocked = true,
        }
        written
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_until_a_handler_runs_and_once_its_answer_is_sent() {
        let progress = Progress::begin();
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.activity(), Activity::Idle(SECOND));
        let (one, other) = (progress.handling(), progress.handling());
        let mut answer = one.answer(Body::from("x"));
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.activity(), Activity::Handling);
        drop(other);
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.activity(), Activity::Answering(SECOND));
        answer.frame().await.unwrap().unwrap();
        assert_eq!(progress.activity(), Activity::Answering(Duration::ZERO));
        drop(answer);
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.activity(), Activity::Idle(SECOND));
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_blocks_its_connection_until_it_does() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, progress) = (listener.accept().await.unwrap().0, Progress::begin());
        let mut stream = WatchedStream { stream, progress: progress.clone() };
        let chunk = vec![0; 65_536];
        let mut write = async || {
            std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut stream).poll_write(context, &chunk))).await
        };
        while write().await.is_ready() {}
        assert!(matches!(progress.activity(), Activity::Answering(_)));
        let mut taken = vec![0; 65_536];
        while write().await.is_pending() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(client.try_read(&mut taken));
        }
        assert!(matches!(progress.activity(), Activity::Idle(_)));
    }
}
