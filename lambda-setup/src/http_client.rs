//! HTTP calls that a function makes by hand: the SDK's HTTP client, and what the SDK's clients of services do around it.

use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::http::{Headers, StatusCode};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::display::DisplayErrorContext;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};

/// The largest body of an answer that is read, in bytes. Those that are asked for here have at most some hundred thousand.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// A client with its connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    connector: SharedHttpConnector,
}

/// A whole answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: Headers,
    /// Its body, of at most [`MAX_ANSWER_BYTES`].
    pub body: Bytes,
}

/// Why there is no answer. Its text may name the address.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// What was to be sent is no request.
    #[error("the request can't be sent: {0}")]
    Request(String),
    /// No connection, or one that broke before the end of the answer. The request may have been carried out all the same.
    #[error("{0}")]
    Connection(String),
}

impl HttpClient {
    pub(crate) fn over(connector: impl HttpConnector + 'static) -> Self {
        Self { connector: SharedHttpConnector::new(connector) }
    }

    /// A client over something that is no network, for tests.
    #[cfg(feature = "test-util")]
    pub fn for_tests(connector: impl HttpConnector + 'static) -> Self {
        Self::over(connector)
    }

    /// Sends a request and reads the answer. A connection that gave no whole answer, or a 500 or above, takes no other
    /// request, also when whoever called waits no longer: what answers it may be broken for longer than that.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is larger than [`MAX_ANSWER_BYTES`].
    pub async fn call(&self, mut request: Request<SdkBody>) -> Result<Answer, CallError> {
        let mut connection = Connection { captured: CaptureSmithyConnection::new(), is_sound: false };
        request.extensions_mut().insert(connection.captured.clone());
        let request = request.try_into().map_err(|error| CallError::Request(described(&error)))?;
        let mut answer =
            self.connector.call(request).await.map_err(|error| CallError::Connection(described(&error)))?;
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| CallError::Connection(described(&*error)))?.to_bytes();
        connection.is_sound = !status.is_server_error();
        Ok(Answer { status, headers, body })
    }
}

fn described(error: &(dyn std::error::Error + 'static)) -> String {
    DisplayErrorContext(error).to_string()
}

/// The connection that a request went out on.
struct Connection {
    captured: CaptureSmithyConnection,
    is_sound: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_sound
            && let Some(connection) = self.captured.get()
        {
            connection.poison();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdk::{TrustStore, http_client};
    use rstest::rstest;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Answers each request on a connection with the same, if with anything, and counts connections.
    async fn serve(answer: String) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let (heads, received) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer_all(stream, answer.clone(), connection, heads.clone()));
            }
        });
        (address, received)
    }

    async fn answer_all(
        mut stream: TcpStream,
        answer: String,
        connection: u32,
        heads: tokio::sync::mpsc::UnboundedSender<String>,
    ) {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            let head = String::from_utf8_lossy(&buffer[..length]).to_lowercase();
            heads.send(format!("{connection} {head}")).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    async fn call(client: &HttpClient, address: &str) -> Option<Result<Answer, CallError>> {
        let request = Request::get(address).body(SdkBody::empty()).unwrap();
        tokio::time::timeout(Duration::from_millis(500), client.call(request)).await.ok()
    }

    fn answer(status: u16, length: usize, body: &str) -> String {
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}")
    }

    #[rstest]
    #[case::whole(answer(200, 2, "{}"), "1")]
    #[case::refused(answer(400, 2, "{}"), "1")]
    #[case::fault(answer(500, 2, "{}"), "2")]
    #[case::nothing(String::new(), "2")]
    #[case::half(answer(200, 3, "{}"), "2")]
    #[case::too_large(answer(200, MAX_ANSWER_BYTES + 1, &"x".repeat(MAX_ANSWER_BYTES + 1)), "2")]
    #[tokio::test]
    async fn what_may_be_broken_is_not_used_again(#[case] answer: String, #[case] second_connection: &str) {
        let (address, mut heads) = serve(answer).await;
        let client = http_client(TrustStore::empty());
        for connection in ["1", second_connection] {
            let _ = call(&client, &address).await;
            let head = heads.recv().await.unwrap();
            assert!(head.starts_with(connection), "{head}");
            // As it is signed.
            assert!(head.contains(&format!("\r\nhost: {}\r\n", &address[7..address.len() - 1])), "{head}");
        }
    }

    #[tokio::test]
    async fn answers_are_bounded() {
        let (address, _heads) = serve(answer(200, MAX_ANSWER_BYTES + 1, &"x".repeat(MAX_ANSWER_BYTES + 1))).await;
        let error = call(&http_client(TrustStore::empty()), &address).await.unwrap().unwrap_err();
        assert!(matches!(&error, CallError::Connection(why) if why.contains("length limit exceeded")), "{error}");
    }
}
