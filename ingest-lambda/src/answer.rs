//! The HTTP answer: status, JSON body, CORS headers.

use serde::Serialize;
use shared::limits::MAX_HEADER_BYTES;
use shared::rejection::{Reason, Rejection};

use crate::front_door::{Request, Response};
use crate::origins::AllowedOrigins;

/// Named by its index in the body, from 0.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct RejectedItem {
    pub index: usize,
    pub reason: Reason,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct ErrorBody {
    pub code: &'static str,
    pub message: String,
}

/// The outcome of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// `GET /health`.
    Healthy,
    /// A CORS preflight.
    Preflight,
    /// The request as a whole was rejected; what it brought is on the stream as rejected.
    Refused(Rejection),
    /// The body was taken apart and all of it is on the stream.
    Stored { accepted: usize, rejected: Vec<RejectedItem>, first: Option<Rejection> },
    /// Some or all of it is not on the stream.
    NotStored { accepted: usize, not_stored: Vec<usize>, rejected: Vec<RejectedItem> },
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_stored: Option<&'a [usize]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<&'a [RejectedItem]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

impl Answer {
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Healthy => 200,
            Self::Preflight => 204,
            Self::Refused(rejection) => rejection.reason.status(),
            Self::Stored { accepted: 0, rejected, .. } => shared_reason(rejected).map_or(400, Reason::status),
            Self::Stored { .. } => 200,
            Self::NotStored { .. } => 503,
        }
    }

    fn body(&self) -> String {
        let body = match self {
            Self::Healthy => return String::from("{\"status\":\"ok\"}"),
            Self::Preflight => return String::new(),
            Self::Refused(rejection) => {
                Body { accepted: None, not_stored: None, rejected: None, error: Some(error_of(rejection)) }
            }
            Self::Stored { accepted, rejected, first } => Body {
                accepted: Some(*accepted),
                not_stored: None,
                rejected: Some(rejected),
                error: first.as_ref().filter(|_| *accepted == 0).map(|first| nothing_accepted(rejected, first)),
            },
            Self::NotStored { accepted, not_stored, rejected } => Body {
                accepted: Some(*accepted),
                not_stored: Some(not_stored),
                rejected: Some(rejected),
                error: Some(ErrorBody {
                    code: "not_stored",
                    message: "the events at the indexes in not_stored are not stored; send just these again later"
                        .into(),
                }),
            },
        };
        #[allow(clippy::expect_used)]
        serde_json::to_string(&body).expect("strings, numbers and lists have a JSON form")
    }

    /// The HTTP response, with CORS headers for the request's origin.
    #[must_use]
    pub fn into_response(self, request: &Request, allowed_origins: &AllowedOrigins) -> Response {
        let is_preflight = matches!(self, Self::Preflight);
        let mut headers = vec![("vary", if is_preflight { PREFLIGHT_VARIES_BY } else { "origin" }.into())];
        headers.extend(cors_headers(request, allowed_origins));
        match &self {
            Self::Preflight => headers.extend(preflight_headers(request)),
            Self::Refused(rejection) if rejection.reason == Reason::MethodNotAllowed => {
                let health = request.path.trim_start_matches('/').starts_with("health");
                headers.push(("allow", if health { "GET, HEAD" } else { ALLOWED_METHODS }.into()));
            }
            Self::NotStored { .. } => headers.push(("retry-after", RETRY_AFTER_SECONDS.into())),
            Self::Healthy | Self::Refused(_) | Self::Stored { .. } => {}
        }
        if !is_preflight {
            headers.push(("content-type", "application/json".into()));
        }
        Response::new(self.status(), headers, self.body(), request.multi_value_headers_only)
    }
}

const ALLOWED_METHODS: &str = "POST, OPTIONS";
/// Whoever asks from where else gets another answer, so that no cache may give it the same.
const PREFLIGHT_VARIES_BY: &str = "origin, access-control-request-headers";
const RETRY_AFTER_SECONDS: &str = "5";
/// A day; browsers cap it (Chromium at two hours).
const PREFLIGHT_MAX_AGE_SECONDS: &str = "86400";

/// The reason that all rejected items share.
fn shared_reason(rejected: &[RejectedItem]) -> Option<Reason> {
    let (first, rest) = rejected.split_first()?;
    rest.iter().all(|item| item.reason == first.reason).then_some(first.reason)
}

fn nothing_accepted(rejected: &[RejectedItem], first: &Rejection) -> ErrorBody {
    match shared_reason(rejected) {
        Some(_) => error_of(first),
        None => ErrorBody {
            code: "nothing_accepted",
            message: format!("none of the {} items is an event; the first: {}", rejected.len(), first.detail),
        },
    }
}

fn error_of(rejection: &Rejection) -> ErrorBody {
    ErrorBody { code: rejection.reason.as_str(), message: rejection.detail.clone() }
}

/// The origin is echoed, with credentials allowed, even when any is: `navigator.sendBeacon` always sends credentials, and
/// for such a request browsers take no `*`. There is nothing here that a cookie would protect. Without the name of
/// `Retry-After` here no page can read it.
fn cors_headers(request: &Request, allowed_origins: &AllowedOrigins) -> Vec<(&'static str, String)> {
    let origin = request.headers.origin.as_deref().filter(|origin| may_be_echoed(origin));
    let Some(origin) = origin.filter(|origin| allowed_origins.allow(origin)) else { return Vec::new() };
    vec![
        ("access-control-allow-origin", origin.to_owned()),
        ("access-control-allow-credentials", "true".into()),
        ("access-control-expose-headers", "retry-after".into()),
    ]
}

/// What no browser sends could make the front door refuse the whole answer, after the events are stored.
fn may_be_echoed(header: &str) -> bool {
    header.len() <= MAX_HEADER_BYTES && header.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn preflight_headers(request: &Request) -> [(&'static str, String); 3] {
    let requested = request.headers.requested_headers.as_deref().filter(|requested| may_be_echoed(requested));
    let requested = requested.unwrap_or("content-type, content-encoding");
    [
        ("access-control-allow-methods", ALLOWED_METHODS.into()),
        ("access-control-allow-headers", requested.into()),
        ("access-control-max-age", PREFLIGHT_MAX_AGE_SECONDS.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn respond(answer: Answer) -> (u16, Value) {
        let response = answer.into_response(&Request::default(), &AllowedOrigins::Any);
        (response.status_code, serde_json::from_str(&response.body).unwrap())
    }

    fn rejected(items: &[(usize, Reason)]) -> Vec<RejectedItem> {
        items.iter().map(|&(index, reason)| RejectedItem { index, reason }).collect()
    }

    #[test]
    fn accepted_in_part() {
        let answer = Answer::Stored {
            accepted: 19,
            rejected: rejected(&[(3, Reason::NotAnObject)]),
            first: Some(Rejection::new(Reason::NotAnObject, "d")),
        };
        let expected = json!({"accepted": 19, "rejected": [{"index": 3, "reason": "not_an_object"}]});
        assert_eq!(respond(answer), (200, expected));
    }

    #[test]
    fn nothing_accepted_says_why() {
        let first = || Some(Rejection::new(Reason::NotAnObject, "an event is an object"));
        let (status, body) =
            respond(Answer::Stored { accepted: 0, rejected: rejected(&[(0, Reason::NotAnObject)]), first: first() });
        assert_eq!((status, &body["error"]["code"]), (400, &json!("not_an_object")));
        let mixed = rejected(&[(0, Reason::NotAnObject), (1, Reason::EventTooLarge)]);
        let (status, body) = respond(Answer::Stored { accepted: 0, rejected: mixed, first: first() });
        assert_eq!((status, &body["error"]["code"]), (400, &json!("nothing_accepted")));
        let large = rejected(&[(0, Reason::EventTooLarge), (1, Reason::EventTooLarge)]);
        assert_eq!(respond(Answer::Stored { accepted: 0, rejected: large, first: first() }).0, 413);
    }

    #[test]
    fn what_is_not_stored_is_named() {
        let answer = Answer::NotStored { accepted: 12, not_stored: vec![3, 4], rejected: Vec::new() };
        let response = answer.into_response(&Request::default(), &AllowedOrigins::Any);
        assert_eq!(response.status_code, 503);
        assert!(response.headers.contains(&("retry-after", "5".into())));
        let body: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(
            (&body["accepted"], &body["not_stored"], &body["rejected"]),
            (&json!(12), &json!([3, 4]), &json!([]))
        );
        assert_eq!(body["error"]["code"], "not_stored");
    }

    fn headers_for(origin: Option<&str>, answer: Answer, allowed: &[&str]) -> BTreeMap<&'static str, String> {
        let mut request = Request::default();
        request.headers.origin = origin.map(str::to_owned);
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        answer.into_response(&request, &AllowedOrigins::parse(&allowed).unwrap()).headers.into_iter().collect()
    }

    #[test]
    fn an_allowed_origin_is_echoed_and_may_read_when_to_send_again() {
        let not_stored = || Answer::NotStored { accepted: 0, not_stored: vec![0], rejected: Vec::new() };
        for allowed in [&["*"][..], &["https://a.example"], &["https://b.example", "https://*.example"]] {
            let headers = headers_for(Some("https://a.example"), not_stored(), allowed);
            assert_eq!(headers["access-control-allow-origin"], "https://a.example");
            assert_eq!(headers["access-control-expose-headers"], "retry-after");
            assert_eq!((&*headers["retry-after"], &*headers["vary"]), ("5", "origin"));
        }
    }

    #[test]
    fn another_origin_may_read_nothing_and_every_answer_says_that_it_depends_on_the_origin() {
        for origin in [None, Some("https://b.example"), Some("null")] {
            let headers = headers_for(origin, Answer::Healthy, &["https://a.example"]);
            assert_eq!(headers.keys().copied().collect::<Vec<_>>(), ["content-type", "vary"]);
            assert_eq!(headers["vary"], "origin");
        }
        let headers = headers_for(Some("https://a.example"), Answer::Preflight, &["*"]);
        assert_eq!(headers["vary"], PREFLIGHT_VARIES_BY);
    }

    #[test]
    fn no_origin_that_a_front_door_could_choke_on_is_echoed() {
        for hostile in ["https://ü.example".to_owned(), "a\r\nx: y".to_owned(), "x".repeat(2_000)] {
            let headers = headers_for(Some(&hostile), Answer::Healthy, &["*"]);
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
    }
}
