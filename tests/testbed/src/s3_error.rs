//! The errors of S3 that the model can answer.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

/// Why S3 refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum S3Error {
    #[error("The specified key does not exist.")]
    NoSuchKey,
    #[error("At least one of the pre-conditions you specified did not hold")]
    PreconditionFailed,
    #[error("Your key is too long")]
    KeyTooLong,
    #[error("Your metadata headers exceed the maximum allowed metadata size")]
    MetadataTooLarge,
    #[error("{0}")]
    InvalidArgument(&'static str),
    #[error("The specified upload does not exist.")]
    NoSuchUpload,
    #[error("One or more of the specified parts could not be found, or its ETag did not match.")]
    InvalidPart,
    #[error("The list of parts was not in ascending order.")]
    InvalidPartOrder,
    #[error("Your proposed upload is smaller than the minimum allowed size")]
    EntityTooSmall,
    #[error("You must specify at least one part")]
    MalformedXml,
}

impl S3Error {
    /// S3's own name for it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoSuchKey => "NoSuchKey",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::KeyTooLong => "KeyTooLongError",
            Self::MetadataTooLarge => "MetadataTooLarge",
            Self::InvalidArgument(_) => "InvalidArgument",
            Self::NoSuchUpload => "NoSuchUpload",
            Self::InvalidPart => "InvalidPart",
            Self::InvalidPartOrder => "InvalidPartOrder",
            Self::EntityTooSmall => "EntityTooSmall",
            Self::MalformedXml => "MalformedXML",
        }
    }
}
