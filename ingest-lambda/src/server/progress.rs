//! How far a connection is with its requests, seen from outside of the HTTP library.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a request's head may take from its first byte.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may have no request. Browsers keep theirs for some minutes, load balancers for six.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Both while there is no place for another connection, or was none a moment ago.
pub(super) const CROWDED_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection looks whether it is crowded.
const CROWDED_INTERVAL: Duration = Duration::from_secs(5);
/// How much is still read after the last answer, as of a body that is too large, and for how long. Closing a connection on which
/// bytes wait resets it, and the client may lose the answer.
const LINGER_BYTES: usize = 8 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Requests whose heads were read and that are not answered.
    requests: usize,
    /// Whether a part of a head was read.
    in_head: bool,
    /// When the first byte of a head came, or the last request ended.
    since: Instant,
    /// Whether bytes may come that nobody reads.
    left_unread: bool,
}

/// A request that is not answered.
pub(super) struct Active(Progress);

impl Progress {
    /// Of a connection whose first bytes were read.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { requests: 0, in_head: true, since: Instant::now(), left_unread: false })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request's head was read.
    pub(super) fn begin(&self) -> Active {
        let mut state = self.state();
        state.requests += 1;
        state.in_head = false;
        Active(self.clone())
    }

    fn note_bytes(&self) {
        let mut state = self.state();
        if state.requests == 0 && !state.in_head {
            state.in_head = true;
            state.since = Instant::now();
        }
    }

    /// Notes that what comes from now on is not read.
    pub(super) fn leave_unread(&self) {
        self.state().left_unread = true;
    }

    pub(super) fn is_in_head(&self) -> bool {
        self.state().in_head
    }

    /// When to look again, or `None` if the connection's time is over.
    pub(super) fn next_look(&self, now: Instant, multiplexed: bool, crowded: bool) -> Option<Instant> {
        let state = self.state();
        if state.requests > 0 {
            return Some(now + CROWDED_INTERVAL);
        }
        let timeout = match (state.in_head && !multiplexed, crowded) {
            (_, true) => CROWDED_TIMEOUT,
            (true, false) => HEAD_TIMEOUT,
            (false, false) => IDLE_TIMEOUT,
        };
        let end = state.since + timeout;
        (now < end).then(|| end.min(now + CROWDED_INTERVAL))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        state.since = Instant::now();
    }
}

/// A stream that notes when bytes come; of those that were read already it gives them once more.
pub(super) struct Watched<I> {
    io: I,
    read: BytesMut,
    progress: Progress,
    lingering: Option<Lingering>,
}

/// A connection that was closed for writing, and what may still be read of it.
struct Lingering {
    end: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<I> Watched<I> {
    pub(super) const fn new(io: I, read: BytesMut, progress: Progress) -> Self {
        Self { io, read, progress, lingering: None }
    }
}

impl<I: AsyncRead + Unpin> Watched<I> {
    /// Reads what a client still sends, within bounds.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let fresh = || Lingering { end: Box::pin(sleep(LINGER_TIME)), bytes: LINGER_BYTES };
        let lingering = self.lingering.get_or_insert_with(fresh);
        let mut discarded = [0; 4096];
        while lingering.bytes > 0 && lingering.end.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    lingering.bytes = lingering.bytes.saturating_sub(buffer.filled().len());
                }
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.read.is_empty() {
            ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        } else {
            let length = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read[..length]);
            self.read.advance(length);
            if self.read.is_empty() {
                self.read = BytesMut::new();
            }
        }
        if buffer.filled().len() > before {
            self.progress.note_bytes();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(context))?;
        }
        if self.progress.state().left_unread {
            ready!(self.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_half_sent_head_has_ten_seconds_whatever_else_comes_of_it() {
        let progress = Progress::new();
        progress.note_bytes();
        let began = progress.state().since;
        progress.note_bytes();
        assert!(progress.next_look(began + 9 * SECOND, false, false).is_some());
        assert_eq!(progress.next_look(began + HEAD_TIMEOUT, false, false), None);
        assert_eq!(progress.next_look(began + CROWDED_TIMEOUT, false, true), None);
    }

    #[test]
    fn a_connection_without_requests_is_kept_unless_another_waits_for_its_place() {
        let progress = Progress::new();
        drop(progress.begin());
        let began = progress.state().since;
        assert!(progress.next_look(began + 74 * SECOND, false, false).is_some());
        assert_eq!(progress.next_look(began + IDLE_TIMEOUT, false, false), None);
        assert_eq!(progress.next_look(began + CROWDED_TIMEOUT, false, true), None);
    }

    #[test]
    fn a_request_under_way_has_its_own_time() {
        let progress = Progress::new();
        progress.note_bytes();
        let active = progress.begin();
        let later = Instant::now() + 1_000 * SECOND;
        assert!(progress.next_look(later, false, true).is_some() && !progress.is_in_head());
        drop(active);
        assert_eq!(progress.next_look(later, false, false), None);
    }
}
