//! SNS's `Publish`, in the form in which SDKs send it. What is published for people is shown on the terminal, and is whole in
//! `logs/notices.log`: that is where e-mail goes on one machine.
//! <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use uuid::Uuid;

use crate::asynchronous::Source;
use crate::clock::Clock;
use crate::notices::Notices;
use crate::sns::{Message, Topics};
use crate::template::topic_name;

/// SNS's own limits.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
const MAX_SUBJECT_CHARACTERS: usize = 100;

#[derive(Clone)]
pub(crate) struct Sns {
    /// By name.
    names: Arc<[String]>,
    topics: Topics,
    notices: Notices,
    clock: Clock,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SnsError {
    #[error("the request is not signed")]
    Unsigned,
    #[error("{0} is not supported locally; Publish is")]
    Action(String),
    #[error("Topic does not exist")]
    NoTopic,
    #[error("Invalid parameter: {0}")]
    Parameter(&'static str),
}

impl SnsError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unsigned => (StatusCode::FORBIDDEN, "MissingAuthenticationToken"),
            Self::Action(_) => (StatusCode::BAD_REQUEST, "InvalidAction"),
            Self::NoTopic => (StatusCode::NOT_FOUND, "NotFound"),
            Self::Parameter(_) => (StatusCode::BAD_REQUEST, "InvalidParameter"),
        }
    }
}

impl Sns {
    pub(crate) fn new(names: Vec<String>, topics: Topics, notices: Notices, clock: Clock) -> Self {
        Self { names: names.into(), topics, notices, clock }
    }

    /// Answers a request, if it is for SNS: no other service here takes forms.
    pub(crate) fn answer(&self, request: &Request<Bytes>) -> Option<Response<Body>> {
        let headers = request.headers();
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_form = content_type.starts_with("application/x-www-form-urlencoded");
        if !is_form || request.method() != Method::POST || request.uri().path() != "/" {
            return None;
        }
        // Any page that is open in a browser on this machine could send such requests.
        let signed = headers.contains_key(header::AUTHORIZATION);
        let published = if signed { self.call(request.body()) } else { Err(SnsError::Unsigned) };
        let (status, xml) = match published {
            Ok(id) => (StatusCode::OK, published_xml(&id)),
            Err(problem) => (problem.code().0, error_xml(&problem)),
        };
        Some((status, [(header::CONTENT_TYPE, "text/xml")], xml).into_response())
    }

    /// Publishes, and gives the message's id.
    fn call(&self, body: &[u8]) -> Result<String, SnsError> {
        let form: BTreeMap<Cow<'_, str>, Cow<'_, str>> = url::form_urlencoded::parse(body).collect();
        let member = |name: &str| form.get(name).map(AsRef::as_ref).unwrap_or_default();
        if member("Action") != "Publish" {
            return Err(SnsError::Action(member("Action").chars().take(100).collect()));
        }
        let topic = topic_name(member("TopicArn")).filter(|name| self.names.iter().any(|known| known == name));
        let topic = topic.ok_or(SnsError::NoTopic)?;
        let (subject, text) = (member("Subject"), member("Message"));
        if text.is_empty() || text.len() > MAX_MESSAGE_BYTES {
            return Err(SnsError::Parameter("Message"));
        }
        if subject.chars().count() > MAX_SUBJECT_CHARACTERS || subject.contains(char::is_control) {
            return Err(SnsError::Parameter("Subject"));
        }
        let at = self.clock.now();
        self.notices.add(at, subject, text);
        Ok(self.topics.publish(topic, &Message { text, subject, at, source: &Source::Topic(topic.to_owned()) }))
    }
}

fn published_xml(id: &str) -> String {
    let request = Uuid::new_v4();
    format!(
        "<PublishResponse xmlns=\"https://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>{id}</MessageId>\
         </PublishResult><ResponseMetadata><RequestId>{request}</RequestId></ResponseMetadata></PublishResponse>"
    )
}

fn error_xml(problem: &SnsError) -> String {
    let (request, code) = (Uuid::new_v4(), problem.code().1);
    let message = problem.to_string().replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<ErrorResponse xmlns=\"https://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asynchronous::InFlight;
    use crate::event_queues::EventQueues;
    use crate::sqs::Queues;
    use rstest::rstest;

    const TOPIC: &str = "TopicArn=arn%3Aaws%3Asns%3Aus-east-1%3A000000000000%3Anotices-topic";

    /// SNS with one topic, and the file of its notices.
    fn sns() -> (Sns, std::path::PathBuf) {
        let clock = Clock::new(None, lambda_setup::now());
        let functions = EventQueues::new([], InFlight::default(), clock);
        let topics = Topics::new(Vec::new(), functions, Queues::new(&[], |_| true, InFlight::default(), clock));
        let folder = std::env::temp_dir().join(format!("notices-{}", Uuid::new_v4()));
        let sns = Sns::new(vec!["notices-topic".into()], topics, Notices::open(&folder).unwrap(), clock);
        (sns, folder.join("notices.log"))
    }

    #[tokio::test]
    async fn what_is_published_is_kept_whole() {
        let (sns, file) = sns();
        let body = format!(
            "Action=Publish&{TOPIC}&Subject=ALARM%3A+x&Message=It+is+%0Aon.&MessageAttributes.entry.1.Name=group"
        );
        assert_eq!(sns.call(body.as_bytes()).unwrap().len(), 36);
        let kept = std::fs::read_to_string(file).unwrap();
        assert!(kept.ends_with("Z ALARM: x\n\nIt is \non.\n\n"), "{kept}");
    }

    #[rstest]
    #[case::another_action(format!("Action=Subscribe&{TOPIC}"), SnsError::Action("Subscribe".into()))]
    #[case::another_topic("Action=Publish&TopicArn=arn:aws:sns:us-east-1:000000000000:x&Message=a".into(), SnsError::NoTopic)]
    #[case::no_message(format!("Action=Publish&{TOPIC}&Subject=a"), SnsError::Parameter("Message"))]
    #[case::a_long_message(format!("Action=Publish&{TOPIC}&Message={}", "x".repeat(MAX_MESSAGE_BYTES + 1)), SnsError::Parameter("Message"))]
    #[case::a_long_subject(format!("Action=Publish&{TOPIC}&Message=a&Subject={}", "x".repeat(101)), SnsError::Parameter("Subject"))]
    #[tokio::test]
    async fn what_sns_would_not_take_is_refused(#[case] body: String, #[case] problem: SnsError) {
        assert_eq!(sns().0.call(body.as_bytes()), Err(problem));
    }

    #[tokio::test]
    async fn the_largest_message_and_subject_are_taken() {
        let (text, subject) = ("x".repeat(MAX_MESSAGE_BYTES), "x".repeat(MAX_SUBJECT_CHARACTERS));
        let body = format!("Action=Publish&{TOPIC}&Message={text}&Subject={subject}");
        assert!(sns().0.call(body.as_bytes()).is_ok());
    }
}
