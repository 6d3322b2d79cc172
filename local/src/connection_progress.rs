//! What a connection is doing, and since when it has made no progress.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::mutex::Mutex;

/// Shared by a connection and its handler.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Whether a handler runs: HTTP/1.1 answers one request after the other.
    is_handling: bool,
    /// Whether the client has not taken what was last written to it.
    is_blocked: bool,
    last: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// A handler runs. Handlers have bounds of their own.
    Handling,
    /// An answer is on its way; the client has read nothing of it for so long.
    Answering(Duration),
    /// Nothing, for so long. Headers that are still incomplete count as nothing.
    Idle(Duration),
}

impl Progress {
    pub(crate) fn begin() -> Self {
        Self(Arc::new(Mutex::new(State { is_handling: false, is_blocked: false, last: Instant::now() })))
    }

    pub(crate) fn activity(&self) -> Activity {
        let state = self.0.lock();
        let since = state.last.elapsed();
        match &*state {
            State { is_handling: true, .. } => Activity::Handling,
            State { is_blocked: true, .. } => Activity::Answering(since),
            State { .. } => Activity::Idle(since),
        }
    }

    /// A handler runs until the guard is dropped.
    pub(crate) fn handling(&self) -> Handling {
        self.note(|state| state.is_handling = true);
        Handling(self.clone())
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        state.last = Instant::now();
    }
}

pub(crate) struct Handling(Progress);

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.note(|state| state.is_handling = false);
    }
}

/// A connection's stream. What is written to it counts as progress; what is read does not, or a client could hold a
/// connection for ever with a header of one byte a second.
pub(crate) struct WatchedStream {
    pub(crate) stream: TcpStream,
    pub(crate) progress: Progress,
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
        match &written {
            Poll::Ready(_) => self.progress.note(|state| state.is_blocked = false),
            // Since the last write.
            Poll::Pending => self.progress.0.lock().is_blocked = true,
        }
        written
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

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_before_and_after_its_handler_runs() {
        let progress = Progress::begin();
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.activity(), Activity::Idle(SECOND));
        let handling = progress.handling();
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.activity(), Activity::Handling);
        drop(handling);
        tokio::time::advance(SECOND).await;
        assert_eq!(progress.activity(), Activity::Idle(SECOND));
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_blocks_its_connection_until_it_does() {
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
