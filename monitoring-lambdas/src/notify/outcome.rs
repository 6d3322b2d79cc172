//! What became of a message on one way.

/// What became of a message on one way. The words name no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    /// Trying again does not help.
    Refused(String),
    /// Trying again may help.
    Failed(String),
}
