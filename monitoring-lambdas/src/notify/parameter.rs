//! A parameter that may change at any time.

use lambda_setup::deadline::Deadline;

/// It could not be read: the call was refused, or there was no answer in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't be read: {0}")]
pub struct ParameterError(pub String);

/// Where a value is that is read now and again.
pub trait Parameter {
    /// What error messages call it.
    fn name(&self) -> &str;
    /// Its value, with retries, never past the deadline; `None` when there is no such parameter.
    fn read(&self, deadline: Deadline) -> impl Future<Output = Result<Option<String>, ParameterError>>;
}
