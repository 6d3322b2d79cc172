//! The cluster over HTTP. The only file here that knows HTTP and signatures.

use std::error::Error;
use std::time::SystemTime;

use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use lambda_setup::http_client::HttpClient;
use lambda_setup::sdk::{SdkConfig, TrustStore, http_client};

use super::answer::FILTER_PATH;
use super::cluster::{Answer, CallError, SearchCluster};
use super::config::{Auth, Config};

/// The most bytes of an answer. It repeats at most what a request holds, in its reasons, and some hundred bytes a document.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The name of the service in signatures.
const SERVICE: &str = "es";

/// A cluster at an address.
pub(super) struct HttpCluster {
    client: HttpClient,
    /// Scheme and authority, without a slash at the end.
    base: String,
    auth: Auth,
    sdk: SdkConfig,
}

type Signed<T> = Result<T, Box<dyn Error + Send + Sync>>;

impl HttpCluster {
    pub(super) fn new(config: &Config, sdk: SdkConfig) -> Self {
        let base = config.endpoint.to_string().trim_end_matches('/').to_owned();
        // Not AWS's roots alone: the cluster may be anybody's.
        let client = http_client(TrustStore::default()).with_max_answer_bytes(MAX_ANSWER_BYTES);
        Self { client, base, auth: config.auth.clone(), sdk }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, content_type)
            .body(SdkBody::from(body.clone()));
        let mut request = request.map_err(|error| CallError::Request(error.to_string()))?;
        self.authorize(&mut request, &body).await.map_err(|error| CallError::Request(error.to_string()))?;
        let answer = self.client.call(request).await;
        let answer = answer.map_err(|error| CallError::Connection(error.to_string()))?;
        Ok(Answer { status: answer.status.as_u16(), body: answer.body })
    }

    async fn authorize(&self, request: &mut Request<SdkBody>, body: &[u8]) -> Signed<()> {
        match &self.auth {
            Auth::None => {}
            Auth::Basic(credentials) => {
                request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::clone(credentials));
            }
            Auth::SigV4 => self.sign(request, body).await?,
        }
        Ok(())
    }

    /// <https://docs.aws.amazon.com/opensearch-service/latest/developerguide/request-signing.html>
    async fn sign(&self, request: &mut Request<SdkBody>, body: &[u8]) -> Signed<()> {
        let provider = self.sdk.credentials_provider().ok_or("there are no credentials")?;
        let identity = provider.provide_credentials().await?.into();
        let region = self.sdk.region().ok_or("there is no region")?;
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region.as_ref())
            .name(SERVICE)
            .time(SystemTime::now())
            .settings(settings)
            .build()?
            .into();
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let (method, uri) = (request.method().as_str(), request.uri().to_string());
        let signable = SignableRequest::new(method, uri, headers, SignableBody::Bytes(body))?;
        let (instructions, _) = sign(signable, &params)?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

impl SearchCluster for HttpCluster {
    async fn root(&self) -> Result<Answer, CallError> {
        self.call(Method::GET, "/", JSON, Bytes::new()).await
    }

    async fn put_index_template(&self, name: &str, template: Bytes) -> Result<Answer, CallError> {
        self.call(Method::PUT, &format!("/_index_template/{name}"), JSON, template).await
    }

    async fn bulk(&self, lines: Bytes) -> Result<Answer, CallError> {
        self.call(Method::POST, &format!("/_bulk?filter_path={FILTER_PATH}"), NDJSON, lines).await
    }
}
