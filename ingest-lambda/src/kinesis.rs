//! The stream behind the AWS SDK: the only file here that knows it. One operation is called, PutRecords:
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::{BuildError, DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::put_records::{PutRecordsError, PutRecordsOutput};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use lambda_setup::sdk::SdkConfig;

use crate::pack::Record;
use crate::put::{EntryOutcome, PutError, RecordStream, sdk_time_limit};

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
    async fn put(&self, records: &[&Record], time_limit: Duration) -> Result<Vec<EntryOutcome>, PutError> {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(sdk_time_limit(time_limit)).build();
        let entries = records.iter().map(|record| entry(record)).collect::<Result<_, _>>();
        let entries = entries.map_err(|error| PutError::Permanent(error.into()))?;
        let call = self.client.put_records().stream_name(&self.name).set_records(Some(entries)).customize();
        let call = call.config_override(Builder::new().timeout_config(timeouts));
        // Boxed, so that not each future around it has room for it.
        match Box::pin(call.send()).await {
            Ok(answer) => outcomes(answer, records.len()),
            Err(error) => Err(put_error(&error)),
        }
    }
}

fn entry(record: &Record) -> Result<PutRecordsRequestEntry, BuildError> {
    let data = Blob::new(record.data.clone());
    PutRecordsRequestEntry::builder()
        .partition_key(record.partition_key())
        .explicit_hash_key(record.bucket.first_hash_key.to_string())
        .data(data)
        .build()
}

fn outcomes(answer: PutRecordsOutput, records: usize) -> Result<Vec<EntryOutcome>, PutError> {
    let entries = answer.records;
    if entries.len() != records {
        return Err(PutError::Transient(format!("{} outcomes for {records} records", entries.len()).into()));
    }
    Ok(entries.into_iter().map(outcome).collect())
}

/// A record is on the stream when Kinesis says where: an entry with neither an error nor a sequence number is no receipt.
fn outcome(entry: PutRecordsResultEntry) -> EntryOutcome {
    match entry.error_code {
        None if entry.sequence_number.is_some_and(|number| is_sequence_number(&number)) => EntryOutcome::Stored,
        None => EntryOutcome::Failed("an entry without a sequence number".into()),
        Some(code) if is_throttling(&code) => EntryOutcome::Throttled(code),
        Some(code) => EntryOutcome::Failed(code),
    }
}

fn is_sequence_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Kinesis' messages may quote a partition key, which may be personal data: of an answer only the code and the status are kept.
fn put_error(error: &SdkError<PutRecordsError>) -> PutError {
    if let Some(code) = error.code() {
        let kind = if is_permanent(code) {
            PutError::Permanent
        } else if is_throttling(code) {
            PutError::Throttled
        } else {
            PutError::Transient
        };
        return kind(code.into());
    }
    match (error, error.raw_response()) {
        (SdkError::ConstructionFailure(_), _) => PutError::Permanent(DisplayErrorContext(error).to_string().into()),
        (_, Some(answer)) => {
            PutError::Transient(format!("status {}, and no answer that can be read", answer.status().as_u16()).into())
        }
        (_, None) => PutError::Transient(DisplayErrorContext(error).to_string().into()),
    }
}

/// Throttling: of a shard, of calls of this kind, or of the stream's key.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{Buckets, HashKey};
    use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;
    use rstest::rstest;
    use shared::line::Kind;

    /// What stands in Kinesis' place, for each call the same.
    #[derive(Debug, Clone, Copy)]
    enum Endpoint {
        /// A status, the header with the error's code, if any, and a body.
        Answer(u16, &'static str, &'static str),
        NoAnswer,
        NoConnection,
    }

    impl HttpConnector for Endpoint {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            match *self {
                Self::Answer(status, code, body) => {
                    let answer = http::Response::builder().status(status);
                    let answer = if code.is_empty() { answer } else { answer.header("x-amzn-ErrorType", code) };
                    HttpConnectorFuture::ready(Ok(answer.body(SdkBody::from(body)).unwrap().try_into().unwrap()))
                }
                Self::NoAnswer => HttpConnectorFuture::new(std::future::pending()),
                Self::NoConnection => {
                    HttpConnectorFuture::ready(Err(ConnectorError::io("no route to kinesis.example".into())))
                }
            }
        }
    }

    const TIME_LIMIT: Duration = Duration::from_millis(300);

    async fn put(endpoint: Endpoint, records: usize) -> Result<Vec<EntryOutcome>, PutError> {
        let endpoint = SharedHttpConnector::new(endpoint);
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client_fn(move |_, _| endpoint.clone()))
            .retry_config(aws_sdk_kinesis::config::retry::RetryConfig::disabled())
            .build();
        let record = Record {
            kind: Kind::Event,
            bucket: Buckets::default().bucket_of(HashKey::of(b"key")),
            data: b"{}\n".to_vec(),
            items: Vec::new(),
            reasons: Vec::new(),
            replaced_surrogates: 0,
            receipts: Vec::new(),
        };
        KinesisStream::new(&config, "event-stream".into()).put(&vec![&record; records], TIME_LIMIT).await
    }

    #[tokio::test]
    async fn each_entry_has_its_outcome() {
        let answer = r#"{"FailedRecordCount":2,"Records":[{"SequenceNumber":"1","ShardId":"shardId-000000000000"},
            {"ErrorCode":"ProvisionedThroughputExceededException","ErrorMessage":"m"},{"ErrorCode":"InternalFailure"},
            {"ErrorCode":null,"SequenceNumber":"2"}],"EncryptionType":"KMS"}"#;
        let expected = [
            EntryOutcome::Stored,
            EntryOutcome::Throttled("ProvisionedThroughputExceededException".into()),
            EntryOutcome::Failed("InternalFailure".into()),
            EntryOutcome::Stored,
        ];
        assert_eq!(put(Endpoint::Answer(200, "", answer), 4).await.unwrap(), expected);
    }

    #[rstest]
    #[case::nothing(r#"{"Records":[{"SequenceNumber":"1"},{}]}"#)]
    #[case::a_shard_alone(r#"{"Records":[{"SequenceNumber":"1"},{"ShardId":"shardId-000000000000"}]}"#)]
    #[case::null(r#"{"Records":[{"SequenceNumber":"1"},{"SequenceNumber":null,"ErrorCode":null}]}"#)]
    #[case::empty(r#"{"Records":[{"SequenceNumber":"1"},{"SequenceNumber":""}]}"#)]
    #[case::no_number(r#"{"Records":[{"SequenceNumber":"1"},{"SequenceNumber":"-"}]}"#)]
    #[case::beside_an_error(
        r#"{"Records":[{"SequenceNumber":"1"},{"SequenceNumber":"1","ErrorCode":"InternalFailure"}]}"#
    )]
    #[tokio::test]
    async fn an_entry_without_a_receipt_is_not_stored(#[case] answer: &'static str) {
        let outcomes = put(Endpoint::Answer(200, "", answer), 2).await.unwrap();
        assert_eq!(outcomes[0], EntryOutcome::Stored);
        assert!(matches!(outcomes[1], EntryOutcome::Failed(_)), "{outcomes:?}");
    }

    #[rstest]
    #[case::too_few(r#"{"Records":[{"SequenceNumber":"1"}]}"#)]
    #[case::too_many(r#"{"Records":[{"SequenceNumber":"1"},{"SequenceNumber":"2"},{"SequenceNumber":"3"}]}"#)]
    #[case::no_list(r#"{"FailedRecordCount":0}"#)]
    #[case::no_entry(r#"{"Records":[{"SequenceNumber":"1"},null]}"#)]
    #[case::another_type(r#"{"Records":[{"SequenceNumber":"1"},{"SequenceNumber":2}]}"#)]
    #[case::cut_off(r#"{"Records":[{"SequenceNumber":"1"},{"SequenceNumber":"2"}]"#)]
    #[case::empty("")]
    #[tokio::test]
    async fn an_answer_that_does_not_fit_the_call_stores_nothing(#[case] answer: &'static str) {
        let outcomes = put(Endpoint::Answer(200, "", answer), 2).await;
        assert!(matches!(outcomes, Err(PutError::Transient(_))), "{outcomes:?}");
    }

    /// The text is all that is logged: no message of Kinesis', which may quote a key.
    #[rstest]
    #[case::code_in_the_body(
        Endpoint::Answer(400, "", r#"{"__type":"ResourceNotFoundException","message":"k"}"#),
        "Kinesis refused the call: ResourceNotFoundException"
    )]
    #[case::with_a_namespace(
        Endpoint::Answer(400, "", r#"{"__type":"com.amazonaws.kinesis#AccessDeniedException"}"#),
        "Kinesis refused the call: AccessDeniedException"
    )]
    #[case::code_in_a_header(
        Endpoint::Answer(400, "ThrottlingException:http://x/", r#"{"__type":"Other"}"#),
        "the call was throttled: ThrottlingException"
    )]
    #[case::unknown_code(
        Endpoint::Answer(400, "", r#"{"__type":"OptInRequired"}"#),
        "Kinesis refused the call: OptInRequired"
    )]
    #[case::server_error(
        Endpoint::Answer(500, "", r#"{"__type":"InternalFailure"}"#),
        "the call failed: InternalFailure"
    )]
    #[case::no_code(Endpoint::Answer(503, "", "<html>"), "the call failed: status 503, and no answer that can be read")]
    #[case::too_few_outcomes(
        Endpoint::Answer(200, "", r#"{"Records":[]}"#),
        "the call failed: 0 outcomes for 1 records"
    )]
    #[case::no_connection(
        Endpoint::NoConnection,
        "the call failed: dispatch failure: io error: no route to kinesis.example"
    )]
    #[tokio::test]
    async fn a_call_that_stores_nothing_says_why(#[case] endpoint: Endpoint, #[case] expected: &str) {
        let error = put(endpoint, 1).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(!error.to_string().contains("\"k\""), "{error}");
    }

    /// Only a call that the SDK itself gives up takes its connection out of use.
    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_before_its_caller_gives_up() {
        let outcome = tokio::time::timeout(TIME_LIMIT, put(Endpoint::NoAnswer, 1)).await;
        assert!(matches!(outcome, Ok(Err(PutError::Transient(_)))), "{outcome:?}");
    }

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
