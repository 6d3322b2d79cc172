//! Checks of what landed, one function each; and [`notify`].
//!
//! [`check_object`] verifies each object. [`seal_partition`] marks an hour as complete and lists what is in it;
//! [`check_size`], [`check_recency`] and [`check_completeness`] judge the sealed hours, and [`check_deletions`] makes sure that
//! they stay intact. [`notify`] sends the alarms to people.
//! They reach S3 through [`bucket`] and CloudWatch through [`cloudwatch`], and take the time from the [`event`] that invokes
//! them.

pub mod bucket;
pub mod check_completeness;
pub mod check_deletions;
pub mod check_object;
pub mod check_recency;
pub mod check_size;
pub mod cloudwatch;
mod event;
pub mod manifest;
pub mod notify;
pub mod rules;
pub mod seal_partition;
mod success;
#[cfg(test)]
pub(crate) mod tests;

use lambda_runtime::{Context, Diagnostic, Error, LambdaEvent, service_fn};
use serde::de::DeserializeOwned;

/// Serves invocations until Lambda ends the process. One that failed is reported with its error's type and text.
///
/// # Errors
///
/// When the runtime API can't be reached.
pub async fn serve<E, Failure>(handle: impl AsyncFn(E, Context) -> Result<(), Failure>) -> Result<(), Error>
where
    E: DeserializeOwned,
    Failure: std::error::Error,
{
    let handle = &handle;
    let service = |LambdaEvent { payload, context }: LambdaEvent<E>| async move {
        handle(payload, context).await.map_err(|failure| diagnostic(&failure))
    };
    lambda_runtime::run(service_fn(service)).await
}

fn diagnostic<E: std::error::Error>(error: &E) -> Diagnostic {
    let path = std::any::type_name::<E>();
    let error_type = path.rsplit("::").next().unwrap_or(path).to_owned();
    Diagnostic { error_type, error_message: error.to_string() }
}
