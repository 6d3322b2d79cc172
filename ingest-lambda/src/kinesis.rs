//! The stream behind the AWS SDK: the only file here that knows it.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::put_records::PutRecordsError;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use lambda_setup::sdk::SdkConfig;

use crate::pack::Record;
use crate::put::{EntryOutcome, PutError, RecordStream};

/// A Kinesis data stream.
pub struct KinesisStream {
    client: Client,
    name: String,
}

impl KinesisStream {
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self { client: Client::new(config), name }
    }
}

impl RecordStream for KinesisStream {
    async fn put(&self, records: &[&Record]) -> Result<Vec<EntryOutcome>, PutError> {
        let entries = records.iter().map(|record| entry(record)).collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(|error| PutError::Permanent(error.into()))?;
        let call = self.client.put_records().stream_name(&self.name).set_records(Some(entries));
        // Boxed, so that not each future around it has room for it.
        let answer = Box::pin(call.send()).await.map_err(classify)?;
        if answer.records().len() != records.len() {
            let message = format!("{} outcomes for {} records", answer.records().len(), records.len());
            return Err(PutError::Transient(message.into()));
        }
        Ok(answer.records().iter().map(outcome).collect())
    }
}

fn entry(record: &Record) -> Result<PutRecordsRequestEntry, aws_sdk_kinesis::error::BuildError> {
    PutRecordsRequestEntry::builder()
        .partition_key(&record.partition_key)
        .data(Blob::new(record.data.as_slice()))
        .build()
}

fn outcome(entry: &PutRecordsResultEntry) -> EntryOutcome {
    match entry.error_code() {
        None => EntryOutcome::Stored,
        Some(code) if is_throttling(code) => EntryOutcome::Throttled(code.to_owned()),
        Some(code) => EntryOutcome::Failed(code.to_owned()),
    }
}

fn classify(error: SdkError<PutRecordsError>) -> PutError {
    let permanent = error.code().is_some_and(is_permanent) || matches!(error, SdkError::ConstructionFailure(_));
    let throttled = error.code().is_some_and(is_throttling);
    let described = describe(error).into();
    match (permanent, throttled) {
        (true, _) => PutError::Permanent(described),
        (false, true) => PutError::Throttled(described),
        (false, false) => PutError::Transient(described),
    }
}

/// Errors that say that it is too much: for a shard, for calls of this kind, or for the stream's key.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>
fn is_throttling(code: &str) -> bool {
    const THROTTLING: [&str; 5] = [
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "Throttling",
        "KMSThrottlingException",
    ];
    THROTTLING.contains(&code)
}

/// Errors that say what is wrong with the call or its sender stay wrong; all others may pass.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html>
fn is_permanent(code: &str) -> bool {
    const PERMANENT: [&str; 16] = [
        "ResourceNotFoundException",
        "InvalidArgumentException",
        "ValidationException",
        "SerializationException",
        "AccessDeniedException",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "ExpiredTokenException",
        "OptInRequired",
        "KMSAccessDeniedException",
        "KMSDisabledException",
        "KMSNotFoundException",
    ];
    PERMANENT.contains(&code)
}

/// For the log: Kinesis's messages may quote a partition key, which may be a person's, so only its code is kept.
fn describe(error: SdkError<PutRecordsError>) -> String {
    match error.code() {
        Some(code) => code.to_owned(),
        None => DisplayErrorContext(error).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_and_faults_of_the_service_may_pass_and_faults_of_ours_may_not() {
        for code in [
            "ProvisionedThroughputExceededException",
            "ThrottlingException",
            "KMSThrottlingException",
            "InternalFailure",
            "ServiceUnavailable",
            "LimitExceededException",
        ] {
            assert!(!is_permanent(code), "{code}");
            let throttling = code.contains("Throttling") || code.contains("Exceeded");
            assert_eq!(is_throttling(code), throttling, "{code}");
        }
        for code in ["ResourceNotFoundException", "AccessDeniedException", "ExpiredTokenException"] {
            assert!(is_permanent(code) && !is_throttling(code), "{code}");
        }
    }
}
