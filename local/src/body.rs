//! Reading a request's body whole, within a limit of bytes and of time.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http_body_util::LengthLimitError;
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// A body that did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("{0}; send it faster, or in smaller requests")]
    TooSlow(TooSlow),
    #[error("the body did not arrive whole: {0}")]
    Broken(#[source] axum::Error),
}

/// The body's deadline passed while it was still arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body did not arrive within {} s", .0.as_secs())]
pub(crate) struct TooSlow(Duration);

impl BodyError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
///
/// When it is larger, misses the deadline that [`with_deadline`] gave it, or breaks off.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, BodyError> {
    to_bytes(body, limit).await.map_err(|problem| {
        if cause::<LengthLimitError>(&problem).is_some() {
            return BodyError::TooLarge(limit);
        }
        match cause::<TooSlow>(&problem) {
            Some(too_slow) => BodyError::TooSlow(*too_slow),
            None => BodyError::Broken(problem),
        }
    })
}

/// The first error of a type among an error and its sources.
fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// A body that fails with [`TooSlow`] when it has not arrived by then, however steadily it trickles.
pub(crate) fn with_deadline<B>(body: B, time: Duration) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    Body::new(WithDeadline { body: Body::new(body), time, deadline: Box::pin(sleep(time)) })
}

struct WithDeadline {
    body: Body,
    time: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl HttpBody for WithDeadline {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(TooSlow(self.time)))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::io;

    const TIME: Duration = Duration::from_secs(10);

    /// What a client sends: a byte each second, for so many seconds, and then what comes last.
    struct Trickle {
        seconds: u32,
        then: Option<io::Error>,
        wait: Pin<Box<Sleep>>,
    }

    fn trickle(seconds: u32, then: Option<io::Error>) -> Trickle {
        Trickle { seconds, then, wait: Box::pin(sleep(Duration::from_secs(1))) }
    }

    impl HttpBody for Trickle {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            if self.seconds == 0 {
                return Poll::Ready(self.then.take().map(Err));
            }
            std::task::ready!(self.wait.as_mut().poll(context));
            self.wait = Box::pin(sleep(Duration::from_secs(1)));
            self.seconds -= 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[rstest]
    #[case::empty(0, 0)]
    #[case::at_the_limit(5, 5)]
    #[tokio::test]
    async fn a_body_within_its_limit_is_read(#[case] bytes: usize, #[case] limit: usize) {
        assert_eq!(read(Body::from(vec![b'x'; bytes]), limit).await.unwrap().len(), bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_arrives_by_its_deadline_is_read() {
        assert_eq!(read(with_deadline(trickle(9, None), TIME), 100).await.unwrap().len(), 9);
    }

    #[rstest]
    #[case::one_byte_too_large(trickle(6, None), StatusCode::PAYLOAD_TOO_LARGE)]
    #[case::too_slow_though_it_trickles(trickle(1_000, None), StatusCode::REQUEST_TIMEOUT)]
    #[case::broken(trickle(2, Some(io::ErrorKind::ConnectionReset.into())), StatusCode::BAD_REQUEST)]
    #[tokio::test(start_paused = true)]
    async fn each_reason_has_its_own_status(#[case] body: Trickle, #[case] status: StatusCode) {
        let limit = if status == StatusCode::PAYLOAD_TOO_LARGE { 5 } else { 5_000 };
        let problem = read(with_deadline(body, TIME), limit).await.unwrap_err();
        assert_eq!(problem.status(), status, "{problem}");
    }
}
