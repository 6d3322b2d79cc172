//! Kinesis's PutRecords, the one call of the hot path: <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>
//!
//! Endpoint, credentials, signing key and HTTP are the SDK's. Its client of Kinesis is not used, because what it does for each
//! call takes more than all else that a POST takes; docs/PERFORMANCE.md has the figures.

use std::borrow::Cow;

use anyhow::{Context, ensure};
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_kinesis::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_smithy_types::body::SdkBody;
use base64_simd::STANDARD as BASE64;
use http::{HeaderValue, Request, Uri, header};
use lambda_setup::http_client::{CallError, HttpClient};
use lambda_setup::sdk::SdkConfig;
use serde::Deserialize;
use shared::timestamp::UnixMillis;

use crate::pack::Record;
use crate::put::{EntryOutcome, PutError, RecordStream};
use crate::signature::Signer;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "Kinesis_20131202.PutRecords";
const USER_AGENT: &str = concat!("playhead/", env!("CARGO_PKG_VERSION"));
/// What a record takes in a body beside its data and its key.
const ENTRY_BYTES: usize = r#"{"Data":"","PartitionKey":""},"#.len();

const BODY_END: &[u8] = b"]}";

/// A Kinesis data stream.
pub struct KinesisStream {
    /// The start of each body, up to the first record.
    body_start: Vec<u8>,
    uri: Uri,
    /// As the HTTP client says it.
    host: String,
    signer: Signer,
    session_token: Option<HeaderValue>,
    client: HttpClient,
}

impl KinesisStream {
    /// # Errors
    ///
    /// When there are no credentials, or no endpoint that the region has.
    pub async fn new(config: &SdkConfig, client: HttpClient, name: &str) -> anyhow::Result<Self> {
        let region = config.region().context("there is no region")?.to_string();
        let credentials = config.credentials_provider().context("there are no credentials")?;
        let credentials = credentials.provide_credentials().await?;
        let params = Params::builder()
            .region(&region)
            .set_endpoint(config.endpoint_url().map(Into::into))
            .set_use_fips(config.use_fips())
            .set_use_dual_stack(config.use_dual_stack())
            .build()?;
        let endpoint = DefaultResolver::new().resolve_endpoint(&params).await.map_err(anyhow::Error::from_boxed)?;
        let uri: Uri = endpoint.url().parse().context("the endpoint is no URL")?;
        ensure!(uri.path() == "/" && uri.query().is_none(), "AWS_ENDPOINT_URL takes no path and no query");
        Ok(Self {
            body_start: format!(r#"{{"StreamName":{},"Records":["#, serde_json::to_string(name)?).into_bytes(),
            host: host(&uri).context("the endpoint has no host")?,
            uri,
            session_token: credentials.session_token().map(secret).transpose()?,
            signer: Signer::new(credentials, region, "kinesis"),
            client,
        })
    }

    fn body(&self, records: &[&Record]) -> serde_json::Result<Vec<u8>> {
        let entry_bytes =
            |record: &&Record| record.data.len().div_ceil(3) * 4 + record.partition_key.len() + ENTRY_BYTES;
        let bytes: usize = records.iter().map(entry_bytes).sum();
        let mut body = Vec::with_capacity(self.body_start.len() + bytes + BODY_END.len());
        body.extend_from_slice(&self.body_start);
        for (index, record) in records.iter().enumerate() {
            body.extend_from_slice(if index == 0 { br#"{"Data":""# } else { br#",{"Data":""# });
            BASE64.encode_append(&record.data, &mut body);
            body.extend_from_slice(br#"","PartitionKey":"#);
            serde_json::to_writer(&mut body, &record.partition_key)?;
            body.push(b'}');
        }
        body.extend_from_slice(BODY_END);
        Ok(body)
    }

    fn request(&self, body: Vec<u8>, at: UnixMillis) -> Result<Request<SdkBody>, http::Error> {
        let headers = [("content-type", CONTENT_TYPE), ("host", &self.host), ("x-amz-target", TARGET)];
        let signature = self.signer.sign(at, &headers, &body);
        // The client adds the host.
        let mut request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))
            .header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))
            .header("x-amz-date", signature.date)
            .header("x-amz-target", HeaderValue::from_static(TARGET))
            .header(header::AUTHORIZATION, signature.authorization);
        if let Some(token) = &self.session_token {
            request = request.header("x-amz-security-token", token);
        }
        request.body(SdkBody::from(body))
    }
}

/// A header's value that is shown nowhere and that no compression of headers remembers.
fn secret(value: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The host as a client names it in its `host`: with its port if that is not the scheme's own.
fn host(uri: &Uri) -> Option<String> {
    let host = uri.host()?;
    Some(match (uri.scheme_str(), uri.port_u16()) {
        (_, None) | (Some("https"), Some(443)) | (Some("http"), Some(80)) => host.to_owned(),
        (_, Some(port)) => format!("{host}:{port}"),
    })
}

impl RecordStream for KinesisStream {
    async fn put(&self, records: &[&Record]) -> Result<Vec<EntryOutcome>, PutError> {
        let body = self.body(records).map_err(|error| PutError::Permanent(error.into()))?;
        let request = self.request(body, lambda_setup::now()).map_err(|error| PutError::Permanent(error.into()))?;
        let answer = self.client.call(request).await.map_err(|error| match error {
            CallError::Request(_) => PutError::Permanent(error.into()),
            CallError::Connection(_) => PutError::Transient(error.into()),
        })?;
        if answer.status.is_success() {
            return outcomes(&answer.body, records.len());
        }
        let code = answer.headers.get("x-amzn-errortype").map(error_code);
        Err(refused(answer.status.as_u16(), code, &answer.body))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    #[serde(borrow)]
    records: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    error_code: Option<String>,
    #[serde(borrow)]
    sequence_number: Option<Cow<'a, str>>,
}

fn outcomes(body: &[u8], records: usize) -> Result<Vec<EntryOutcome>, PutError> {
    let Answer { records: entries } =
        serde_json::from_slice(body).map_err(|error| PutError::Transient(error.into()))?;
    if entries.len() != records {
        return Err(PutError::Transient(format!("{} outcomes for {records} records", entries.len()).into()));
    }
    Ok(entries.into_iter().map(outcome).collect())
}

/// A record is on the stream when Kinesis says where: an entry with neither an error nor a sequence number is no receipt.
fn outcome(entry: Entry<'_>) -> EntryOutcome {
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

#[derive(Default, Deserialize)]
struct Fault {
    code: Option<String>,
    #[serde(rename = "__type")]
    kind: Option<String>,
}

/// Kinesis's messages may quote a partition key, which may be a person's, so only the code is kept.
fn refused(status: u16, code: Option<String>, body: &[u8]) -> PutError {
    let code = code.or_else(|| {
        let fault: Fault = serde_json::from_slice(body).unwrap_or_default();
        fault.code.or(fault.kind).map(|code| error_code(&code))
    });
    let Some(code) = code else { return PutError::Transient(format!("status {status} without an error code").into()) };
    if is_permanent(&code) {
        PutError::Permanent(code.into())
    } else if is_throttling(&code) {
        PutError::Throttled(code.into())
    } else {
        PutError::Transient(code.into())
    }
}

/// A code may have a namespace before it and an address after it:
/// <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization>
fn error_code(text: &str) -> String {
    let code = text.split(':').next().unwrap_or(text);
    code.rsplit('#').next().unwrap_or(code).to_owned()
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::signature;
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_sdk_kinesis::config::{BehaviorVersion, Region};
    use aws_sdk_kinesis::primitives::Blob;
    use aws_sdk_kinesis::types::PutRecordsRequestEntry;
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use rstest::rstest;
    use serde_json::Value;
    use shared::line::Kind;

    /// A Kinesis that answers each call with the same, and keeps what it was sent.
    #[derive(Debug, Clone)]
    struct Kinesis {
        answer: Option<(u16, &'static str, &'static str)>,
        calls: Arc<Mutex<Vec<HttpRequest>>>,
    }

    impl Kinesis {
        fn answering(answer: Option<(u16, &'static str, &'static str)>) -> Self {
            Self { answer, calls: Arc::default() }
        }

        fn call(&self) -> HttpRequest {
            self.calls.lock().unwrap().remove(0)
        }
    }

    impl HttpConnector for Kinesis {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            self.calls.lock().unwrap().push(request);
            HttpConnectorFuture::ready(match self.answer {
                None => Err(ConnectorError::io("no route to secret.example".into())),
                Some((status, code, body)) => {
                    let answer = http::Response::builder().status(status);
                    let answer = if code.is_empty() { answer } else { answer.header("x-amzn-ErrorType", code) };
                    Ok(answer.body(SdkBody::from(body)).unwrap().try_into().unwrap())
                }
            })
        }
    }

    fn credentials(token: Option<&str>) -> Credentials {
        Credentials::new("AKIDEXAMPLE", "secret", token.map(Into::into), None, "test")
    }

    fn config(region: &'static str, endpoint_url: Option<&str>, token: Option<&str>) -> SdkConfig {
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region))
            .credentials_provider(SharedCredentialsProvider::new(credentials(token)));
        config.set_endpoint_url(endpoint_url.map(Into::into));
        config.build()
    }

    async fn stream(kinesis: &Kinesis, endpoint_url: Option<&str>) -> anyhow::Result<KinesisStream> {
        let client = HttpClient::for_tests(kinesis.clone());
        KinesisStream::new(&config("eu-central-1", endpoint_url, None), client, "event-stream").await
    }

    fn record(partition_key: &str, data: &[u8]) -> Record {
        let (partition_key, data) = (partition_key.to_owned(), data.to_vec());
        Record {
            kind: Kind::Event,
            partition_key,
            data,
            items: Vec::new(),
            reasons: Vec::new(),
            replaced_surrogates: 0,
        }
    }

    /// The same call by the SDK's own client.
    async fn call_of_the_sdk(config: &SdkConfig, records: &[Record]) -> HttpRequest {
        let kinesis = Kinesis::answering(Some((200, "", r#"{"Records":[]}"#)));
        let connector = SharedHttpConnector::new(kinesis.clone());
        let config = config.clone().into_builder().http_client(http_client_fn(move |_, _| connector.clone())).build();
        let entries = records.iter().map(|record| {
            let entry = PutRecordsRequestEntry::builder().partition_key(&record.partition_key);
            entry.data(Blob::new(&*record.data)).build().unwrap()
        });
        let call = aws_sdk_kinesis::Client::new(&config).put_records().stream_name("event-stream");
        call.set_records(Some(entries.collect())).send().await.unwrap();
        kinesis.call()
    }

    fn body_of(call: &HttpRequest) -> Value {
        serde_json::from_slice(call.body().bytes().unwrap()).unwrap()
    }

    #[rstest]
    #[case(None, Some("token/+="))]
    #[case(Some("http://127.0.0.1:4566"), None)]
    #[case(Some("https://kinesis.example:443/"), Some("token"))]
    #[tokio::test]
    async fn a_call_is_the_sdk_s(#[case] endpoint_url: Option<&str>, #[case] token: Option<&str>) {
        let records = [record("1", b"{}\n"), record("a \"key\"\n\u{1f600}", &[0, 255, 1]), record("", b"")];
        let config = config("eu-central-1", endpoint_url, token);
        let kinesis = Kinesis::answering(Some((
            200,
            "",
            r#"{"FailedRecordCount":0,"Records":[{"SequenceNumber":"1"},{"SequenceNumber":"2"},{"SequenceNumber":"3"}]}"#,
        )));
        let stream = KinesisStream::new(&config, HttpClient::for_tests(kinesis.clone()), "event-stream").await.unwrap();
        let outcomes = stream.put(&records.each_ref()).await.unwrap();
        assert_eq!(outcomes, [EntryOutcome::Stored, EntryOutcome::Stored, EntryOutcome::Stored]);
        let (ours, expected) = (kinesis.call(), call_of_the_sdk(&config, &records).await);
        assert_eq!((ours.method(), ours.uri()), (expected.method(), expected.uri()));
        assert_eq!(body_of(&ours), body_of(&expected));
        for name in ["content-type", "x-amz-target", "x-amz-security-token"] {
            assert_eq!(ours.headers().get(name), expected.headers().get(name), "{name}");
        }
        let own = ["content-type", "x-amz-target"].map(|name| (name, ours.headers().get(name).unwrap()));
        let body = ours.body().bytes().unwrap();
        let signed = signature::tests::sdk_s(&credentials(token), date_of(&ours), ours.uri(), &own, body);
        assert_eq!(ours.headers().get("authorization"), Some(&*signed));
    }

    /// `20261121T093208Z`
    fn date_of(call: &HttpRequest) -> UnixMillis {
        let date = call.headers().get("x-amz-date").unwrap();
        let [year, month, day, hour, minute] = [&date[..4], &date[4..6], &date[6..8], &date[9..11], &date[11..13]];
        UnixMillis::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{}.000Z", &date[13..15])).unwrap()
    }

    #[rstest]
    #[case("eu-central-1", "https://kinesis.eu-central-1.amazonaws.com/", "kinesis.eu-central-1.amazonaws.com")]
    #[case("cn-north-1", "https://kinesis.cn-north-1.amazonaws.com.cn/", "kinesis.cn-north-1.amazonaws.com.cn")]
    #[tokio::test]
    async fn endpoints_are_the_region_s(#[case] region: &'static str, #[case] uri: &str, #[case] host: &str) {
        let client = HttpClient::for_tests(Kinesis::answering(None));
        let stream = KinesisStream::new(&config(region, None, None), client, "event-stream").await.unwrap();
        assert_eq!((&*stream.uri.to_string(), &*stream.host), (uri, host));
    }

    #[rstest]
    #[case("http://127.0.0.1:4566", "127.0.0.1:4566")]
    #[case("http://[::1]:4566", "[::1]:4566")]
    #[case("http://127.0.0.1:80", "127.0.0.1")]
    #[case("https://kinesis.example:443", "kinesis.example")]
    #[case("https://kinesis.example:80", "kinesis.example:80")]
    fn hosts_are_as_clients_say_them(#[case] uri: &str, #[case] expected: &str) {
        assert_eq!(host(&uri.parse().unwrap()).unwrap(), expected);
    }

    #[tokio::test]
    async fn an_endpoint_with_a_path_is_refused_at_the_start() {
        let refused = stream(&Kinesis::answering(None), Some("http://127.0.0.1:4566/kinesis")).await.err().unwrap();
        assert_eq!(refused.to_string(), "AWS_ENDPOINT_URL takes no path and no query");
    }

    #[tokio::test]
    async fn each_entry_has_its_outcome() {
        let answer = r#"{"FailedRecordCount":2,"Records":[{"SequenceNumber":"1","ShardId":"shardId-000000000000"},
            {"ErrorCode":"ProvisionedThroughputExceededException","ErrorMessage":"m"},{"ErrorCode":"InternalFailure"},
            {"ErrorCode":null,"SequenceNumber":"2"}],"EncryptionType":"KMS"}"#;
        let kinesis = Kinesis::answering(Some((200, "", answer)));
        let records = [record("1", b""), record("2", b""), record("3", b""), record("4", b"")];
        let outcomes = stream(&kinesis, None).await.unwrap().put(&records.each_ref()).await.unwrap();
        let expected = [
            EntryOutcome::Stored,
            EntryOutcome::Throttled("ProvisionedThroughputExceededException".into()),
            EntryOutcome::Failed("InternalFailure".into()),
            EntryOutcome::Stored,
        ];
        assert_eq!(outcomes, expected);
    }

    #[rstest]
    #[case::nothing("{}")]
    #[case::a_shard_alone(r#"{"ShardId":"shardId-000000000000"}"#)]
    #[case::null(r#"{"SequenceNumber":null,"ErrorCode":null}"#)]
    #[case::empty(r#"{"SequenceNumber":""}"#)]
    #[case::no_number(r#"{"SequenceNumber":"-"}"#)]
    #[case::beside_an_error(r#"{"SequenceNumber":"1","ErrorCode":"InternalFailure"}"#)]
    fn an_entry_without_a_receipt_is_not_stored(#[case] entry: &str) {
        let answer = format!(r#"{{"FailedRecordCount":0,"Records":[{{"SequenceNumber":"49\u0035"}},{entry}]}}"#);
        let outcomes = outcomes(answer.as_bytes(), 2).unwrap();
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
    fn an_answer_that_does_not_fit_the_call_stores_nothing(#[case] answer: &str) {
        assert!(matches!(outcomes(answer.as_bytes(), 2), Err(PutError::Transient(_))));
    }

    /// What is said is all that is logged: no message of Kinesis's, which may quote a key.
    #[rstest]
    #[case::code_in_the_body(Some((400, "", r#"{"__type":"ResourceNotFoundException","message":"k"}"#)), "Kinesis refused the call: ResourceNotFoundException")]
    #[case::with_a_namespace(Some((400, "", r#"{"__type":"com.amazonaws.kinesis#AccessDeniedException"}"#)), "Kinesis refused the call: AccessDeniedException")]
    #[case::code_in_a_header(Some((400, "ThrottlingException:http://x/", r#"{"__type":"Other"}"#)), "the call was throttled: ThrottlingException")]
    #[case::code_of_another_name(Some((400, "", r#"{"code":"a#OptInRequired","__type":"b"}"#)), "Kinesis refused the call: OptInRequired")]
    #[case::fault(Some((500, "", r#"{"__type":"InternalFailure"}"#)), "the call failed: InternalFailure")]
    #[case::no_code(Some((503, "", "<html>")), "the call failed: status 503 without an error code")]
    #[case::too_few_outcomes(Some((200, "", r#"{"Records":[]}"#)), "the call failed: 0 outcomes for 1 records")]
    #[case::no_answer_at_all(None, "the call failed: io error: no route to secret.example")]
    #[tokio::test]
    async fn a_call_that_stores_nothing_says_why(
        #[case] answer: Option<(u16, &'static str, &'static str)>,
        #[case] expected: &str,
    ) {
        let stream = stream(&Kinesis::answering(answer), None).await.unwrap();
        let error = stream.put(&[&record("1", b"")]).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_json_may_be_better_next_time() {
        let stream = stream(&Kinesis::answering(Some((200, "", "{"))), None).await.unwrap();
        let error = stream.put(&[&record("1", b"")]).await.unwrap_err();
        assert!(matches!(error, PutError::Transient(_)), "{error}");
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
