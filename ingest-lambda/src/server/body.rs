//! Reads requests' bodies, within bounds of bytes and of time.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use shared::limits::MAX_LAMBDA_PAYLOAD_BYTES;

use crate::answer::Unread;

/// Bytes of a body at most, as in the Lambda: larger ones can't hold events, whatever they are compressed with.
const MAX_BYTES: usize = MAX_LAMBDA_PAYLOAD_BYTES;
/// How long a body may take to arrive. A page that takes longer is gone.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Up to so many bytes, a body counts as a small one.
pub(super) const SMALL_BYTES: usize = 16 * 1024;

/// Room for bodies, apart for small and for large ones: a few large ones must not keep all others out.
#[derive(Debug)]
pub(super) struct Room {
    small: Pool,
    large: Pool,
}

#[derive(Debug)]
struct Pool {
    used: AtomicUsize,
    max: usize,
}

/// What a body takes of the room, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

/// A whole body, which takes its room until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Bytes,
    _held: Option<Held>,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of a request.
pub(super) trait Pieces: hyper::body::Body<Data = Bytes> + Unpin {}

impl<B: hyper::body::Body<Data = Bytes> + Unpin> Pieces for B {}

impl Room {
    /// For so many bytes of each.
    pub(super) const fn new(max: usize) -> Self {
        Self { small: Pool::new(max), large: Pool::new(max) }
    }

    pub(super) fn used(&self) -> usize {
        self.small.used.load(Ordering::Relaxed) + self.large.used.load(Ordering::Relaxed)
    }

    const fn pool(&self, bytes: usize) -> &Pool {
        if bytes <= SMALL_BYTES { &self.small } else { &self.large }
    }

    /// Takes room for what is no body and stays as long.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Result<Held, Unread> {
        let mut held = Held { room: self.clone(), bytes: 0 };
        if bytes > 0 {
            held.grow(bytes)?;
        }
        Ok(held)
    }

    /// Reads a body to its end.
    pub(super) async fn read(self: &Arc<Self>, body: impl Pieces) -> Result<Body, Unread> {
        if body.size_hint().lower() > MAX_BYTES as u64 {
            return Err(Unread::TooLarge);
        }
        if body.is_end_stream() {
            return Ok(Body::default());
        }
        tokio::time::timeout(TIMEOUT, self.collect(body)).await.unwrap_or(Err(Unread::TooSlow))
    }

    async fn collect(self: &Arc<Self>, mut body: impl Pieces) -> Result<Body, Unread> {
        let mut held = Held { room: self.clone(), bytes: 0 };
        // Most bodies are one piece, which is taken as it is.
        let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            held.grow(piece.len())?;
            if first.is_empty() {
                first = piece;
                continue;
            }
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&piece);
        }
        let bytes = if whole.is_empty() { first } else { whole.freeze() };
        Ok(Body { bytes, _held: Some(held) })
    }
}

impl Pool {
    const fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    fn take(&self, bytes: usize) -> bool {
        let grown = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Held {
    fn grow(&mut self, bytes: usize) -> Result<(), Unread> {
        let grown = self.bytes + bytes;
        if grown > MAX_BYTES {
            return Err(Unread::TooLarge);
        }
        let (from, to) = (self.room.pool(self.bytes), self.room.pool(grown));
        let needed = if std::ptr::eq(from, to) { bytes } else { grown };
        if !to.take(needed) {
            return Err(Unread::NoRoom);
        }
        if !std::ptr::eq(from, to) {
            from.give_back(self.bytes);
        }
        self.bytes = grown;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.pool(self.bytes).give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_take_room_until_there_is_none_and_give_it_back() {
        let room = Arc::new(Room::new(2 * SMALL_BYTES));
        let mut held = [(); 3].map(|()| Held { room: room.clone(), bytes: 0 });
        assert_eq!(held[0].grow(SMALL_BYTES), Ok(()));
        assert_eq!(held[1].grow(SMALL_BYTES), Ok(()));
        assert_eq!(held[2].grow(1), Err(Unread::NoRoom));
        assert_eq!(held[0].grow(SMALL_BYTES), Ok(()), "it is a large one now");
        assert_eq!(held[2].grow(SMALL_BYTES), Ok(()));
        assert_eq!(held[2].grow(1), Err(Unread::NoRoom));
        drop(held);
        assert_eq!(room.used(), 0);
    }

    #[tokio::test]
    async fn a_body_takes_room_until_it_is_dropped() {
        let room = Arc::new(Room::new(1024));
        let read = || room.read(http_body_util::Full::new(Bytes::from_static(&[b' '; 600])));
        let body = read().await.unwrap();
        assert_eq!((body.len(), room.used()), (600, 600));
        assert_eq!(read().await.unwrap_err(), Unread::NoRoom);
        drop(body);
        assert_eq!((read().await.map(|body| body.len()), room.used()), (Ok(600), 0));
    }

    #[test]
    fn no_body_is_larger_than_the_largest() {
        let room = Arc::new(Room::new(2 * MAX_BYTES));
        let mut held = Held { room: room.clone(), bytes: 0 };
        assert_eq!(held.grow(MAX_BYTES), Ok(()));
        assert_eq!(held.grow(1), Err(Unread::TooLarge));
    }
}
