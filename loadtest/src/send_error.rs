//! Why a POST has no answer.

use std::error::Error;
use std::io;

use tokio_rustls::rustls;

/// Of an answer: enough to name a few thousand events.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("no answer within the time of --timeout")]
    Timeout,
    #[error("it was not sent")]
    NotSent,
    #[error("{0}")]
    Connect(Box<dyn Error + Send + Sync>),
    #[error("the server does not speak HTTP/2 over TLS: it chose another protocol")]
    NoHttp2,
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer has more than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
}

impl SendError {
    /// The word for a POST whose time ran out.
    pub(crate) const TIMEOUT: &str = "timeout";

    /// In a word, of which there are few.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Timeout => Self::TIMEOUT,
            Self::NotSent => "not_sent",
            Self::Connect(error) => cause(&**error).unwrap_or("connect"),
            Self::NoHttp2 => "tls",
            Self::Http(error) => cause(error).unwrap_or_else(|| {
                let is_closed = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
                if is_closed { "closed" } else { "protocol" }
            }),
            Self::TooLarge => "too_large",
        }
    }
}

/// What the operating system or TLS said.
fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'static str> {
    std::iter::successors(Some(error), |error| inner(*error)).find_map(|error| {
        if error.is::<rustls::Error>() {
            return Some("tls");
        }
        match error.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::ConnectionRefused => Some("refused"),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Some("reset"),
            io::ErrorKind::UnexpectedEof => Some("closed"),
            io::ErrorKind::TimedOut => Some(SendError::TIMEOUT),
            _ => None,
        }
    })
}

/// The source of an `io::Error` is that of the error it wraps: the wrapped one would be left out.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
