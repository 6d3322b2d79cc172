//! Reading a request's body whole, within a limit of bytes and of time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use axum::{BoxError, Json};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::time::timeout;

/// The largest body on any port: larger objects come in parts.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive within {} s; send it faster, or in smaller requests", .0.as_secs())]
    TooSlow(Duration),
    #[error("the body broke off: {0}")]
    Broken(#[source] BoxError),
}

impl BodyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn response(&self) -> Response<Body> {
        (self.status(), Json(json!({"message": self.to_string()}))).into_response()
    }
}

/// Reads a body of at most `limit` bytes that arrives within a time, however steadily it trickles.
pub(crate) async fn read<B>(body: B, limit: usize, time: Duration) -> Result<Bytes, BodyError>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    match timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(problem)) if problem.is::<LengthLimitError>() => Err(BodyError::TooLarge(limit)),
        Ok(Err(problem)) => Err(BodyError::Broken(problem)),
        Err(_) => Err(BodyError::TooSlow(time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Frame;
    use rstest::rstest;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::time::{Sleep, sleep};

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
    #[case::at_the_limit_and_just_in_time(9, 9)]
    #[tokio::test(start_paused = true)]
    async fn a_body_within_its_limits_is_read(#[case] seconds: u32, #[case] limit: usize) {
        assert_eq!(read(trickle(seconds, None), limit, TIME).await.unwrap().len(), limit);
    }

    #[rstest]
    #[case::one_byte_too_large(trickle(6, None), StatusCode::PAYLOAD_TOO_LARGE)]
    #[case::too_slow_though_it_trickles(trickle(1_000, None), StatusCode::REQUEST_TIMEOUT)]
    #[case::broken(trickle(2, Some(io::ErrorKind::ConnectionReset.into())), StatusCode::BAD_REQUEST)]
    #[tokio::test(start_paused = true)]
    async fn each_reason_has_its_own_status(#[case] body: Trickle, #[case] status: StatusCode) {
        let limit = if status == StatusCode::PAYLOAD_TOO_LARGE { 5 } else { 5_000 };
        let problem = read(body, limit, TIME).await.unwrap_err();
        assert_eq!(problem.status(), status, "{problem}");
    }
}
