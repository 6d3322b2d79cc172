//! Chat webhooks: one HTTP POST a message. The only file here that knows HTTP.

use std::time::Duration;

use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{Method, Request, header};
use lambda_setup::deadline::{Deadline, backoff_ceiling};
use lambda_setup::http_client::{CallError, HttpClient};

use super::outcome::Outcome;
use super::payload;
use super::recipient::Webhook;
use super::webhook_url::WebhookUrl;

/// Attempts at one message, and the time that each may take.
pub const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_BASE: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_secs(4);

/// Where messages are posted.
pub trait Webhooks {
    /// Posts one message, with retries, never past the deadline.
    fn post(&self, webhook: &Webhook, text: &str, deadline: Deadline) -> impl Future<Output = Outcome>;
}

/// Webhooks over HTTP.
pub struct HttpWebhooks {
    client: HttpClient,
}

impl HttpWebhooks {
    pub fn new(client: HttpClient) -> Self {
        Self { client }
    }

    async fn attempt(&self, url: &WebhookUrl, body: &Bytes) -> Outcome {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.uri().clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(SdkBody::from(body.clone()));
        let Ok(request) = request else { return Outcome::Refused("the request can't be made".into()) };
        match tokio::time::timeout(ATTEMPT_TIMEOUT, self.client.call(request)).await {
            Ok(Ok(answer)) => judge(answer.status),
            // The error's own text may contain the address.
            Ok(Err(CallError::Request(_))) => Outcome::Refused("the request can't be made".into()),
            Ok(Err(CallError::Connection(_))) => Outcome::Failed("no connection, or it broke".into()),
            Err(_) => Outcome::Failed(format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs())),
        }
    }
}

fn judge(status: StatusCode) -> Outcome {
    if status.is_success() {
        Outcome::Sent
    } else if status.as_u16() == 429 || status.is_server_error() {
        Outcome::Failed(format!("status {}", status.as_u16()))
    } else {
        Outcome::Refused(format!("status {}", status.as_u16()))
    }
}

impl Webhooks for HttpWebhooks {
    async fn post(&self, webhook: &Webhook, text: &str, deadline: Deadline) -> Outcome {
        let body = Bytes::from(payload::body(webhook.format, text));
        let mut retry = 0;
        loop {
            let problem = match deadline.bound(Duration::MAX, self.attempt(&webhook.url, &body)).await {
                Ok(Outcome::Failed(problem)) => problem,
                Ok(outcome) => return outcome,
                Err(time_is_up) => return Outcome::Failed(time_is_up.to_string()),
            };
            if retry + 1 == ATTEMPTS {
                return Outcome::Failed(problem);
            }
            let wait = backoff_ceiling(retry, BACKOFF_BASE, BACKOFF_CAP).mul_f64(rand::random::<f64>());
            if deadline.sleep(wait).await.is_err() {
                return Outcome::Failed(problem);
            }
            retry += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recipient::Format;
    use super::*;
    use lambda_setup::sdk::TrustStore;
    use rstest::rstest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that answers each request with the next status, and returns the requests.
    async fn serve(statuses: &[u16]) -> (Webhook, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = webhook(&format!("http://{}/hook", listener.local_addr().unwrap()));
        let statuses = statuses.to_vec();
        let requests = tokio::spawn(async move {
            let mut requests = Vec::new();
            for status in statuses {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let mut length = 0;
                while !String::from_utf8_lossy(&request[..length]).contains('}') {
                    length += connection.read(&mut request[length..]).await.unwrap();
                }
                requests.push(String::from_utf8_lossy(&request[..length]).into_owned());
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        (webhook, requests)
    }

    fn webhook(url: &str) -> Webhook {
        Webhook { url: WebhookUrl::parse(url).unwrap(), format: Format::Text }
    }

    fn webhooks() -> HttpWebhooks {
        HttpWebhooks::new(lambda_setup::sdk::http_client(TrustStore::default()))
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    #[rstest]
    #[case(&[200], Outcome::Sent)]
    #[case(&[503, 429, 200], Outcome::Sent)]
    #[case(&[500, 500, 500], Outcome::Failed("status 500".into()))]
    #[case(&[404], Outcome::Refused("status 404".into()))]
    #[case(&[429, 410], Outcome::Refused("status 410".into()))]
    #[case(&[302], Outcome::Refused("status 302".into()))]
    #[tokio::test]
    async fn failures_that_may_pass_are_retried(#[case] statuses: &[u16], #[case] expected: Outcome) {
        let (webhook, requests) = serve(statuses).await;
        let outcome = webhooks().post(&webhook, "Hello <!channel>.", soon()).await;
        assert_eq!(outcome, expected);
        let requests = requests.await.unwrap();
        assert_eq!(requests.len(), statuses.len());
        let body = payload::body(Format::Text, "Hello <!channel>.");
        assert!(requests.iter().all(|request| request.ends_with(&body)), "{requests:?}");
    }

    #[tokio::test]
    async fn an_unreachable_webhook_is_a_failure_without_its_address() {
        let webhook = webhook("http://127.0.0.1:9/secret");
        let outcome = webhooks().post(&webhook, "Hello.", soon()).await;
        assert_eq!(outcome, Outcome::Failed("no connection, or it broke".into()));
    }

    #[tokio::test]
    async fn nothing_is_posted_past_the_deadline() {
        let webhook = webhook("http://127.0.0.1:9/secret");
        let outcome = webhooks().post(&webhook, "Hello.", Deadline::after(Duration::ZERO)).await;
        assert!(matches!(outcome, Outcome::Failed(_)));
    }
}
