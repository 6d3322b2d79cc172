//! The search cluster as the loader sees it.

use std::time::Duration;

use bytes::Bytes;

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Why there is no answer. The request may have been carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("no connection, or it broke: {0}")]
    Connection(String),
    #[error("the request can't be made: {0}")]
    Request(String),
}

/// An OpenSearch or Elasticsearch cluster. Each call is one attempt.
pub(super) trait SearchCluster {
    /// `GET /`: what it is.
    fn root(&self) -> impl Future<Output = Result<Answer, CallError>>;
    /// `PUT /_index_template/<name>`.
    fn put_index_template(&self, name: &str, template: Bytes) -> impl Future<Output = Result<Answer, CallError>>;
    /// `POST /_bulk`, with lines of JSON.
    fn bulk(&self, lines: Bytes) -> impl Future<Output = Result<Answer, CallError>>;
}
