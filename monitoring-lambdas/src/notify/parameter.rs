//! A parameter of Parameter Store, and the only file here that knows the SSM SDK.

use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::get_parameter::GetParameterError;
use lambda_setup::deadline::Deadline;
use lambda_setup::sdk::{SdkConfig, with_retries};

/// Attempts at a call, how long each may take, and all together: alarms wait for it.
const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_READING_TIME: Duration = Duration::from_secs(5);

/// Parameter Store refused the call, or did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't be read: {0}")]
pub struct ParameterError(pub String);

/// A parameter that may change at any time.
pub trait Parameter {
    /// What error messages call it.
    fn name(&self) -> &str;
    /// Its value, with retries, never past the deadline; `None` when there is no such parameter.
    fn read(&self, deadline: Deadline) -> impl Future<Output = Result<Option<String>, ParameterError>>;
}

/// A parameter of Parameter Store, decrypted.
#[derive(Clone)]
pub struct SsmParameter {
    client: Client,
    name: String,
}

impl SsmParameter {
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self { client: Client::new(&with_retries(config, ATTEMPTS, ATTEMPT_TIMEOUT)), name }
    }
}

impl Parameter for SsmParameter {
    fn name(&self) -> &str {
        &self.name
    }

    async fn read(&self, deadline: Deadline) -> Result<Option<String>, ParameterError> {
        let call = self.client.get_parameter().name(&self.name).with_decryption(true).send();
        match deadline.bound(MAX_READING_TIME, call).await {
            Ok(Ok(found)) => Ok(found.parameter.and_then(|parameter| parameter.value)),
            Ok(Err(SdkError::ServiceError(error))) if error.err().is_parameter_not_found() => Ok(None),
            Ok(Err(error)) => Err(ParameterError(problem(&error))),
            Err(time_is_up) => Err(ParameterError(time_is_up.to_string())),
        }
    }
}

/// AWS's code, or what kind of failure it was: an answer that can't be read holds the value, and the SDK's own text would quote it.
fn problem<R>(error: &SdkError<GetParameterError, R>) -> String {
    let kind = match error {
        SdkError::ServiceError(_) => "Parameter Store refused without a code",
        SdkError::ResponseError(_) => "Parameter Store's answer can't be read",
        _ => "Parameter Store did not answer",
    };
    error.code().unwrap_or(kind).to_owned()
}
