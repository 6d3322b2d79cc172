//! HTTP calls to what is not AWS, by the HTTP client that the SDK brings.

use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::http::{Headers, StatusCode};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::display::DisplayErrorContext;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};

/// The largest body of an answer that is read unless said otherwise, in bytes. Most have at most some hundred thousand.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// A client with its connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    connector: SharedHttpConnector,
    max_answer_bytes: usize,
}

/// A whole answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: Headers,
    /// Its body, of at most 1 MiB, or what [`HttpClient::with_max_answer_bytes`] says.
    pub body: Bytes,
}

/// Why there is no answer. Its text may name the address.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// What was to be sent is not a valid request.
    #[error("the request can't be sent: {0}")]
    Request(String),
    /// No connection, or one that broke before the end of the answer. The request may still have been carried out.
    #[error("{0}")]
    Connection(String),
}

impl HttpClient {
    pub(crate) fn over(connector: impl HttpConnector + 'static) -> Self {
        Self { connector: SharedHttpConnector::new(connector), max_answer_bytes: MAX_ANSWER_BYTES }
    }

    /// The same, for answers with a body of at most this many bytes.
    #[must_use]
    pub fn with_max_answer_bytes(self, max_answer_bytes: usize) -> Self {
        Self { max_answer_bytes, ..self }
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    ///
    /// When there is no answer, or its body is too large.
    pub async fn call(&self, request: Request<SdkBody>) -> Result<Answer, CallError> {
        let request = request.try_into().map_err(|error| CallError::Request(described(&error)))?;
        let mut answer =
            self.connector.call(request).await.map_err(|error| CallError::Connection(described(&error)))?;
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let body = Limited::new(answer.into_body(), self.max_answer_bytes).collect().await;
        let body = body.map_err(|error| CallError::Connection(described(&*error)))?.to_bytes();
        Ok(Answer { status, headers, body })
    }
}

fn described(error: &(dyn std::error::Error + 'static)) -> String {
    DisplayErrorContext(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdk::{TrustStore, http_client};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request.
    async fn serve(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    async fn answered(client: HttpClient, length: usize) -> Result<Answer, CallError> {
        let body = "x".repeat(length);
        let address = serve(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")).await;
        client.call(Request::get(address).body(SdkBody::empty()).unwrap()).await
    }

    #[tokio::test]
    async fn answers_are_bounded() {
        let error = answered(http_client(TrustStore::empty()), MAX_ANSWER_BYTES + 1).await.unwrap_err();
        assert!(matches!(&error, CallError::Connection(why) if why.contains("length limit exceeded")), "{error}");
    }

    #[tokio::test]
    async fn answers_may_have_another_bound() {
        let client = || http_client(TrustStore::empty()).with_max_answer_bytes(10);
        assert_eq!(answered(client(), 10).await.unwrap().body.len(), 10);
        assert!(answered(client(), 11).await.is_err());
    }
}
