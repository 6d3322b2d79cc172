//! E-mail by SES, and the only file here that knows its SDK.

use std::time::Duration;

use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::operation::send_email::SendEmailError;
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message};
use lambda_setup::deadline::Deadline;
use lambda_setup::sdk::{SdkConfig, with_retries};

use super::mail_address::MailAddress;
use super::outcome::Outcome;

/// Attempts at a call, and how long each may take.
const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// A message in both of its forms; a mail program shows the one that it can.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    pub subject: &'a str,
    pub text: &'a str,
    pub html: &'a str,
}

/// Where mails go.
pub trait Mailer {
    /// Sends one mail to all of a group, with retries, never past the deadline.
    fn send(&self, to: &[MailAddress], mail: Mail<'_>, deadline: Deadline) -> impl Future<Output = Outcome>;
}

/// Without `MAIL_FROM`, mails fail and are retried as others are: its absence must be seen, and lose nothing while it is mended.
impl<M: Mailer> Mailer for Option<M> {
    async fn send(&self, to: &[MailAddress], mail: Mail<'_>, deadline: Deadline) -> Outcome {
        match self {
            Some(mailer) => mailer.send(to, mail, deadline).await,
            None => Outcome::Failed("MAIL_FROM is not set".into()),
        }
    }
}

/// SES.
#[derive(Clone)]
pub struct SesMailer {
    client: Client,
    from: MailAddress,
}

impl SesMailer {
    pub fn new(config: &SdkConfig, from: MailAddress) -> Self {
        Self { client: Client::new(&with_retries(config, ATTEMPTS, ATTEMPT_TIMEOUT)), from }
    }
}

impl Mailer for SesMailer {
    async fn send(&self, to: &[MailAddress], mail: Mail<'_>, deadline: Deadline) -> Outcome {
        let content = match content(mail) {
            Ok(content) => content,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let addresses = to.iter().map(|address| address.as_str().to_owned()).collect();
        let destination = Destination::builder().set_to_addresses(Some(addresses)).build();
        let send = self.client.send_email().from_email_address(self.from.as_str());
        let send = send.destination(destination).content(content).send();
        match deadline.bound(Duration::MAX, send).await {
            Ok(Ok(_)) => Outcome::Sent,
            Ok(Err(error)) => judge(&error),
            Err(time_is_up) => Outcome::Failed(time_is_up.to_string()),
        }
    }
}

fn content(mail: Mail<'_>) -> Result<EmailContent, BuildError> {
    let utf8 = |data: &str| Content::builder().data(data).charset("UTF-8").build();
    let body = Body::builder().text(utf8(mail.text)?).html(utf8(mail.html)?).build();
    let message = Message::builder().subject(utf8(mail.subject)?).body(body).build();
    Ok(EmailContent::builder().simple(message).build())
}

/// SES's own texts quote addresses, so its codes must do. A malformed mail is refused again; an identity that is not verified
/// (`MessageRejected`), a missing permission, a quota or a paused account can be mended.
/// <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>
fn judge<R>(error: &SdkError<SendEmailError, R>) -> Outcome {
    let Some(problem) = error.as_service_error() else {
        return Outcome::Failed("SES did not answer, or its answer can't be read".into());
    };
    let code = problem.code().unwrap_or("no code").to_owned();
    if problem.is_bad_request_exception() { Outcome::Refused(code) } else { Outcome::Failed(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda_setup::sdk;
    use rstest::rstest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// SES that answers each request in turn, and the requests' bodies.
    async fn serve(answers: &[(u16, &str)]) -> (SesMailer, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let answers: Vec<_> = answers.iter().map(|(status, code)| (*status, (*code).to_owned())).collect();
        let requests = tokio::spawn(async move {
            let mut requests = Vec::new();
            for (status, code) in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                requests.push(body(&mut connection).await);
                let json = r#"{"MessageId":"m","message":"secret@example.com is not verified"}"#;
                let head = format!("HTTP/1.1 {status} X\r\nx-amzn-errortype: {code}\r\nconnection: close");
                let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{json}", json.len());
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        let config = sdk::testing_config(&endpoint);
        (SesMailer::new(&config, MailAddress::parse("playhead@example.com").unwrap()), requests)
    }

    async fn body(connection: &mut tokio::net::TcpStream) -> String {
        let mut request = Vec::new();
        loop {
            connection.read_buf(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if length.is_none_or(|length: usize| body.len() >= length) {
                return body.to_owned();
            }
        }
    }

    #[rstest]
    #[case(&[(200, "")], Outcome::Sent)]
    #[case(&[(500, "InternalFailure"), (429, "TooManyRequestsException"), (200, "")], Outcome::Sent)]
    #[case(&[(400, "MessageRejected")], Outcome::Failed("MessageRejected".into()))]
    #[case(&[(400, "BadRequestException")], Outcome::Refused("BadRequestException".into()))]
    #[case(&[(403, "AccessDeniedException")], Outcome::Failed("AccessDeniedException".into()))]
    #[tokio::test]
    async fn failures_that_may_pass_are_retried_and_no_address_is_said(
        #[case] answers: &[(u16, &str)],
        #[case] expected: Outcome,
    ) {
        let (mailer, requests) = serve(answers).await;
        let to = ["a@example.com", "b@example.com"].map(|address| MailAddress::parse(address).unwrap());
        let mail = Mail { subject: "S", text: "T", html: "<p>H</p>" };
        let outcome = mailer.send(&to, mail, Deadline::after(Duration::from_secs(20))).await;
        assert_eq!(outcome, expected);
        let requests = requests.await.unwrap();
        assert_eq!(requests.len(), answers.len());
        let sent: serde_json::Value = serde_json::from_str(&requests[0]).unwrap();
        assert_eq!(sent["FromEmailAddress"], "playhead@example.com");
        assert_eq!(sent["Destination"]["ToAddresses"], serde_json::json!(["a@example.com", "b@example.com"]));
        let body = &sent["Content"]["Simple"]["Body"];
        assert_eq!((&body["Text"]["Data"], &body["Html"]["Data"]), (&"T".into(), &"<p>H</p>".into()));
    }

    #[tokio::test]
    async fn nothing_is_sent_past_the_deadline() {
        let (mailer, _) = serve(&[]).await;
        let to = [MailAddress::parse("a@example.com").unwrap()];
        let mail = Mail { subject: "S", text: "T", html: "H" };
        assert!(matches!(mailer.send(&to, mail, Deadline::after(Duration::ZERO)).await, Outcome::Failed(_)));
    }
}
