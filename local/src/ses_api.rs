//! SES's `SendEmail`, as far as notify and send-digest call it. Each mail becomes a file that mail programs open, under
//! `DATA_DIR/mail`, and a notice that names the file.
//! <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;
use shared::timestamp::UnixMillis;
use uuid::Uuid;

use crate::clock::Clock;
use crate::mutex::Mutex;
use crate::notices::Notices;

pub(crate) const PATH: &str = "/v2/email/outbound-emails";

/// SES's own limit of recipients, and less than its limit of bytes.
const MAX_RECIPIENTS: usize = 50;
const MAX_MAIL_BYTES: usize = 1024 * 1024;
/// The most files; the oldest are deleted.
const MAX_FILES: usize = 200;

#[derive(Clone)]
pub(crate) struct Ses {
    folder: Arc<Mutex<PathBuf>>,
    notices: Notices,
    clock: Clock,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SesError {
    #[error("the request is not signed")]
    Unsigned,
    #[error("{0}")]
    Request(String),
    #[error("the mail can't be kept: {0}")]
    File(String),
}

impl SesError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unsigned => (StatusCode::FORBIDDEN, "MissingAuthenticationTokenException"),
            Self::Request(_) => (StatusCode::BAD_REQUEST, "BadRequestException"),
            Self::File(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendEmail {
    from_email_address: String,
    destination: Destination,
    content: Content,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Destination {
    to_addresses: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    simple: Simple,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Simple {
    subject: Text,
    body: Bodies,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bodies {
    text: Text,
    html: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Text {
    data: String,
}

impl Ses {
    pub(crate) fn new(folder: &Path, notices: Notices, clock: Clock) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: Arc::new(Mutex::new(folder.to_owned())), notices, clock })
    }

    /// Answers a request, if it is for SES.
    pub(crate) fn answer(&self, request: &Request<Bytes>) -> Option<Response<Body>> {
        if request.uri().path() != PATH || request.method() != Method::POST {
            return None;
        }
        let signed = request.headers().contains_key(header::AUTHORIZATION);
        let sent = if signed { self.send(request.body()) } else { Err(SesError::Unsigned) };
        Some(match sent {
            Ok(id) => axum::Json(json!({ "MessageId": id })).into_response(),
            Err(problem) => {
                let (status, code) = problem.code();
                let message = axum::Json(json!({"message": problem.to_string()}));
                (status, [("x-amzn-errortype", code)], message).into_response()
            }
        })
    }

    fn send(&self, body: &[u8]) -> Result<String, SesError> {
        if body.len() > MAX_MAIL_BYTES {
            return Err(SesError::Request(format!("the mail has more than {MAX_MAIL_BYTES} bytes")));
        }
        let mail: SendEmail = serde_json::from_slice(body)
            .map_err(|problem| SesError::Request(format!("not supported locally: {problem}")))?;
        if !(1..=MAX_RECIPIENTS).contains(&mail.destination.to_addresses.len()) {
            return Err(SesError::Request(format!("a mail has 1 to {MAX_RECIPIENTS} recipients")));
        }
        let headers = [&mail.from_email_address, &mail.content.simple.subject.data];
        if headers.into_iter().chain(&mail.destination.to_addresses).any(|text| text.contains(char::is_control)) {
            return Err(SesError::Request("a header has a control character".into()));
        }
        let (id, at) = (Uuid::new_v4(), self.clock.now());
        let name = format!("{}-{}.eml", at.rfc3339().replace(['-', ':', '.'], ""), &id.simple().to_string()[..8]);
        self.keep(&name, &message(&mail, id, at)).map_err(|problem| SesError::File(problem.to_string()))?;
        let Simple { subject, body } = &mail.content.simple;
        self.notices.add(at, &subject.data, &format!("mail/{name}\n\n{}", body.text.data));
        Ok(id.to_string())
    }

    fn keep(&self, name: &str, message: &str) -> io::Result<()> {
        let folder = self.folder.lock();
        let names = std::fs::read_dir(&*folder)?.map(|entry| Ok(entry?.file_name()));
        let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
        names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "eml"));
        names.sort();
        for oldest in names.iter().take((names.len() + 1).saturating_sub(MAX_FILES)) {
            std::fs::remove_file(folder.join(oldest))?;
        }
        std::fs::write(folder.join(name), message)
    }
}

/// RFC 5322, with parts as they are: <https://www.rfc-editor.org/rfc/rfc2046#section-5.1.4>
fn message(mail: &SendEmail, id: Uuid, at: UnixMillis) -> String {
    let Simple { subject, body } = &mail.content.simple;
    let part = |kind: &str, text: &str| {
        format!(
            "--{id}\r\nContent-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n"
        )
    };
    format!(
        "From: {}\r\nTo: {}\r\nSubject: {}\r\nX-Sent-At: {}\r\nMessage-ID: <{id}@localhost>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=\"{id}\"\r\n\r\n{}{}--{id}--\r\n",
        mail.from_email_address,
        mail.destination.to_addresses.join(", "),
        subject.data,
        at.rfc3339(),
        part("plain", &body.text.data),
        part("html", &body.html.data),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn ses() -> (Ses, PathBuf) {
        let folder = std::env::temp_dir().join(format!("mail-{}", Uuid::new_v4()));
        let notices = Notices::open(&folder).unwrap();
        let ses = Ses::new(&folder.join("mail"), notices, Clock::new(None, lambda_setup::now())).unwrap();
        (ses, folder)
    }

    fn mail(to: usize, text: &str) -> String {
        let content = json!({"Simple": {
            "Subject": {"Data": "DIGEST"},
            "Body": {"Text": {"Data": text}, "Html": {"Data": "<p>It was.</p>"}},
        }});
        let to = vec!["a@example.com"; to];
        json!({"FromEmailAddress": "p@example.com", "Destination": {"ToAddresses": to}, "Content": content}).to_string()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            std::fs::read_dir(folder.join("mail")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn a_mail_is_a_file_that_a_notice_names() {
        let (ses, folder) = ses();
        ses.send(mail(2, "It was.").as_bytes()).unwrap();
        let [file] = &files(&folder)[..] else { panic!("not one file") };
        let kept = std::fs::read_to_string(file).unwrap();
        assert!(kept.contains("To: a@example.com, a@example.com\r\nSubject: DIGEST\r\n"), "{kept}");
        assert!(kept.contains("\r\n\r\nIt was.\r\n--") && kept.contains("\r\n\r\n<p>It was.</p>\r\n--"), "{kept}");
        let notices = std::fs::read_to_string(folder.join("notices.log")).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(notices.contains(&format!("DIGEST\n\nmail/{name}\n\nIt was.")) && !notices.contains('@'), "{notices}");
    }

    #[rstest]
    #[case::nobody(mail(0, "t"))]
    #[case::too_many(mail(MAX_RECIPIENTS + 1, "t"))]
    #[case::too_large(mail(1, &"x".repeat(MAX_MAIL_BYTES)))]
    #[case::a_header_of_two_lines(mail(1, "t").replace("p@example.com", "p@example.com\\r\\nBcc: b@example.com"))]
    #[case::a_template(r#"{"FromEmailAddress":"p@example.com","Content":{"Template":{}}}"#.into())]
    fn what_ses_would_not_take_is_refused(#[case] body: String) {
        let (ses, folder) = ses();
        assert!(matches!(ses.send(body.as_bytes()), Err(SesError::Request(_))));
        assert_eq!(files(&folder).len(), 0);
    }

    #[test]
    fn the_oldest_files_are_deleted() {
        let (ses, folder) = ses();
        for number in 0..=MAX_FILES {
            ses.keep(&format!("{number:04}.eml"), "").unwrap();
        }
        let files = files(&folder);
        assert_eq!(files.len(), MAX_FILES);
        assert!(files[0].ends_with("0001.eml"));
    }
}
