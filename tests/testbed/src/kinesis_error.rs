//! The errors of Kinesis that the model can answer.
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html>

/// Why Kinesis refused a call, or one record of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KinesisError {
    /// A parameter that no stream would take.
    #[error("{0}")]
    Validation(String),
    /// A parameter that this stream does not take as it is.
    #[error("{0}")]
    InvalidArgument(String),
    #[error("Shard {0} does not exist")]
    ResourceNotFound(String),
    #[error("Rate exceeded for shard {0}")]
    ThroughputExceeded(String),
    #[error("Iterator expired: it is older than 5 minutes")]
    ExpiredIterator,
}

impl KinesisError {
    /// Kinesis' own name for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Validation(_) => "ValidationException",
            Self::InvalidArgument(_) => "InvalidArgumentException",
            Self::ResourceNotFound(_) => "ResourceNotFoundException",
            Self::ThroughputExceeded(_) => "ProvisionedThroughputExceededException",
            Self::ExpiredIterator => "ExpiredIteratorException",
        }
    }
}
