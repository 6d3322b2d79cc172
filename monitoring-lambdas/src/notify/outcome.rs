//! The outcome of sending a message through one channel.

/// The outcome of sending a message through one channel. Texts contain no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    /// A retry does not help.
    Refused(String),
    /// A retry may help.
    Failed(String),
}
