//! Parameter Store's `GetParameter` of one parameter, the recipients of notices, as SDKs ask for it.
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kinesis_api;
use crate::template::{ACCOUNT_ID, REGION, STACK_NAME};

const SERVICE: &str = "AmazonSSM.";

/// Parameter Store.
#[derive(Clone)]
pub(crate) struct Ssm {
    /// `RECIPIENTS`; without it there is no parameter.
    recipients: Option<Arc<str>>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SsmError {
    #[error("the request is not signed")]
    Unsigned,
    #[error("{0} is not supported locally; GetParameter is")]
    Operation(String),
    #[error("the request can't be read")]
    Malformed,
    #[error("WithDecryption must be true: a SecureString is supported locally")]
    Encrypted,
    #[error("there is no parameter of this name; RECIPIENTS sets {}", name())]
    NotFound,
}

impl SsmError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unsigned => (StatusCode::FORBIDDEN, "MissingAuthenticationToken"),
            Self::Operation(_) => (StatusCode::BAD_REQUEST, "UnknownOperationException"),
            Self::Malformed => (StatusCode::BAD_REQUEST, "SerializationException"),
            Self::Encrypted => (StatusCode::BAD_REQUEST, "ValidationException"),
            Self::NotFound => (StatusCode::BAD_REQUEST, "ParameterNotFound"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameter {
    name: String,
    #[serde(default)]
    with_decryption: bool,
}

/// What template.yaml calls the parameter.
fn name() -> String {
    format!("/{STACK_NAME}/recipients")
}

impl Ssm {
    pub(crate) fn new(recipients: Option<&str>) -> Self {
        Self { recipients: recipients.map(Arc::from) }
    }

    /// Answers a request, if it is for Parameter Store.
    pub(crate) fn answer(&self, headers: &HeaderMap, body: &[u8]) -> Option<Response<Bytes>> {
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let operation = target.strip_prefix(SERVICE)?;
        let signed = headers.contains_key(header::AUTHORIZATION);
        let answer = if signed { self.call(operation, body) } else { Err(SsmError::Unsigned) };
        Some(match answer {
            Ok(value) => success(&value),
            Err(problem) => {
                let (status, code) = problem.code();
                kinesis_api::error(status, code, &problem.to_string())
            }
        })
    }

    fn call(&self, operation: &str, body: &[u8]) -> Result<Value, SsmError> {
        if operation != "GetParameter" {
            return Err(SsmError::Operation(operation.chars().take(100).collect()));
        }
        let asked: GetParameter = serde_json::from_slice(body).map_err(|_| SsmError::Malformed)?;
        let recipients = self.recipients.as_ref().filter(|_| asked.name == name()).ok_or(SsmError::NotFound)?;
        if !asked.with_decryption {
            return Err(SsmError::Encrypted);
        }
        let arn = format!("arn:aws:ssm:{REGION}:{ACCOUNT_ID}:parameter{}", name());
        Ok(
            json!({"Parameter": {"Name": name(), "ARN": arn, "Type": "SecureString", "Version": 1, "Value": **recipients}}),
        )
    }
}

fn success(value: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kinesis_api::JSON));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const ASKED: &str = r#"{"Name":"/playhead/recipients","WithDecryption":true}"#;

    #[test]
    fn the_recipients_are_a_parameter() {
        let answer = Ssm::new(Some("[]")).call("GetParameter", ASKED.as_bytes()).unwrap();
        assert_eq!(
            (&answer["Parameter"]["Value"], &answer["Parameter"]["Type"]),
            (&json!("[]"), &json!("SecureString"))
        );
    }

    #[rstest]
    #[case::none(None, "GetParameter", ASKED, SsmError::NotFound)]
    #[case::another(Some("[]"), "GetParameter", r#"{"Name":"/x","WithDecryption":true}"#, SsmError::NotFound)]
    #[case::encrypted(Some("[]"), "GetParameter", r#"{"Name":"/playhead/recipients"}"#, SsmError::Encrypted)]
    #[case::no_json(Some("[]"), "GetParameter", "[", SsmError::Malformed)]
    #[case::another_operation(Some("[]"), "PutParameter", "{}", SsmError::Operation("PutParameter".into()))]
    fn anything_else_is_refused(
        #[case] recipients: Option<&str>,
        #[case] operation: &str,
        #[case] body: &str,
        #[case] problem: SsmError,
    ) {
        assert_eq!(Ssm::new(recipients).call(operation, body.as_bytes()), Err(problem));
    }

    #[test]
    fn other_services_requests_are_left_to_them() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-target", HeaderValue::from_static("Kinesis_20131202.PutRecords"));
        assert!(Ssm::new(None).answer(&headers, b"{}").is_none());
        headers.insert("x-amz-target", HeaderValue::from_static("AmazonSSM.GetParameter"));
        let refused = Ssm::new(Some("[]")).answer(&headers, ASKED.as_bytes()).unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    }
}
