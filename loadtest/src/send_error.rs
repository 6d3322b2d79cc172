//! Why a POST has no answer.

use std::error::Error;
use std::io;

use http_body_util::LengthLimitError;
use tokio_rustls::rustls;

/// Of an answer: enough to name a few thousand events.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("no answer within the time of --timeout")]
    Timeout,
    #[error("it was not sent")]
    NotSent,
    #[error("the server does not speak HTTP/2 over TLS: it chose another protocol")]
    NoHttp2,
    /// The connection could not be opened, broke, or carried something other than a short answer.
    #[error("{0}")]
    Failed(Box<dyn Error + Send + Sync>),
}

impl SendError {
    /// The word for a POST whose time ran out.
    pub(crate) const TIMEOUT: &str = "timeout";

    pub(crate) fn failed(error: hyper::Error) -> Self {
        Self::Failed(error.into())
    }

    /// In a word, of which there are few.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Timeout => Self::TIMEOUT,
            Self::NotSent => "not_sent",
            Self::NoHttp2 => "tls",
            Self::Failed(error) => {
                // The innermost error knows best: what the operating system or TLS said.
                let chain = std::iter::successors(Some(&**error as &(dyn Error + 'static)), |error| inner(*error));
                chain.filter_map(word).last().unwrap_or("connect")
            }
        }
    }
}

fn word(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if error.is::<rustls::Error>() {
        return Some("tls");
    }
    if error.is::<LengthLimitError>() {
        return Some("too_large");
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let is_closed = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
        return Some(if is_closed { "closed" } else { "protocol" });
    }
    match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Some("refused"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Some("reset"),
        io::ErrorKind::UnexpectedEof => Some("closed"),
        io::ErrorKind::TimedOut => Some(SendError::TIMEOUT),
        _ => None,
    }
}

/// The source of an `io::Error` is that of the error it wraps: the wrapped one would be left out.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
