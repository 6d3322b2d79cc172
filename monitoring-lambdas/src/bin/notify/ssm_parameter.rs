//! A parameter of Parameter Store, and the only file here that knows the SSM SDK. It is not in the library: each binary of that would
//! have the SDK's tables of exceptions, half a megabyte, whether or not it calls it.

use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::{DisplayErrorContext, SdkError};
use lambda_setup::deadline::Deadline;
use lambda_setup::sdk::{SdkConfig, with_retries};
use monitoring_lambdas::notify::parameter::{Parameter, ParameterError};

/// Attempts at a call, how long each may take, and all together: alarms wait for it.
const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_READING_TIME: Duration = Duration::from_secs(5);

/// A parameter of Parameter Store, decrypted.
pub(crate) struct SsmParameter {
    client: Client,
    name: String,
}

impl SsmParameter {
    pub(crate) fn new(config: &SdkConfig, name: String) -> Self {
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
            Ok(Err(error)) => Err(ParameterError(DisplayErrorContext(error).to_string())),
            Err(time_is_up) => Err(ParameterError(time_is_up.to_string())),
        }
    }
}
