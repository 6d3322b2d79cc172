//! The HTTP answer: status, JSON body, CORS headers.

use std::borrow::Cow;

use serde::Serialize;
use shared::limits::MAX_HEADER_BYTES;
use shared::metric::Metric;
use shared::rejection::{Reason, Rejection};

use crate::intake::{Head, Headers};
use crate::metrics::Answered;
use crate::origins::AllowedOrigins;
use crate::schema::Violation;

/// Named by its index in the body, from 0.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct RejectedItem {
    pub index: usize,
    pub reason: Reason,
    /// Only of the first [`MAX_VIOLATIONS`]; the rejected lines have them all.
    #[serde(flatten)]
    pub violation: Option<Violation>,
}

/// Violations that an answer says in full: ten thousand with all that they may quote would be larger than Lambda lets an answer be.
pub const MAX_VIOLATIONS: usize = 100;

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
    /// Its body was not looked at; nothing of it is stored.
    TurnedAway(TurnedAway),
    /// Nothing was accepted; what the request brought is stored as one rejected body.
    Refused(Refusal),
    /// At least one event was accepted, and all of the body is stored.
    Stored { accepted: usize, rejected: Vec<RejectedItem> },
    /// Its body was not read to the end; nothing of it is stored.
    Unread(Unread),
    /// Some or all of it is not stored.
    NotStored { accepted: usize, not_stored: Vec<usize>, rejected: Vec<RejectedItem> },
}

/// Why a request was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// It names no key, one that is not configured, or several.
    UnknownKey,
    /// Its key has had its events for so many seconds.
    RateLimited { seconds: u64 },
}

impl TurnedAway {
    const fn status(self) -> u16 {
        match self {
            Self::UnknownKey => 401,
            Self::RateLimited { .. } => 429,
        }
    }

    const fn metric(self) -> Metric {
        match self {
            Self::UnknownKey => Metric::UnauthorizedRequests,
            Self::RateLimited { .. } => Metric::LimitedRequests,
        }
    }

    fn body(self) -> Body<'static> {
        let (code, message) = match self {
            Self::UnknownKey => (
                "unknown_key",
                "send one known key: as the header X-Playhead-Key, as the user name of Basic authorization, or as ?key= in the address",
            ),
            Self::RateLimited { .. } => (
                "rate_limited",
                "this key's events come too fast; send all of it again after the seconds in Retry-After",
            ),
        };
        Body { error: Some(ErrorBody { code, message: message.into() }), ..Body::default() }
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    TooLarge,
    TooSlow,
    /// Too many bytes wait to be stored.
    NoRoom,
    /// The connection ended, or what came is not HTTP.
    Broken,
}

impl Unread {
    const fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::TooSlow => 408,
            Self::NoRoom => 503,
            Self::Broken => 400,
        }
    }

    fn body(self) -> Body<'static> {
        let (code, message) = match self {
            Self::TooLarge => ("body_too_large", "the body is larger than 6 MiB; send fewer events at a time"),
            Self::TooSlow => ("body_too_slow", "the body did not arrive in time; send fewer events at a time"),
            Self::NoRoom => ("overloaded", "too much waits to be stored; send all of it again later"),
            Self::Broken => ("body_broken", "the body ended early, or is no HTTP; send it again"),
        };
        Body { error: Some(ErrorBody { code, message: message.into() }), ..Body::default() }
    }
}

/// Why nothing of a request was accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the request as a whole, or of the first item.
    pub rejection: Rejection,
    /// All items of a body that was taken apart.
    pub items: Vec<RejectedItem>,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, items: Vec::new() }
    }
}

impl Refusal {
    /// The reason, unless the items have several.
    fn reason(&self) -> Option<Reason> {
        let reason = self.rejection.reason;
        self.items.iter().all(|item| item.reason == reason).then_some(reason)
    }

    fn body(&self) -> Body<'_> {
        let detail = &self.rejection.detail;
        let (code, message) = match self.reason() {
            Some(reason) => (reason.as_str(), detail.clone()),
            None => {
                let count = self.items.len();
                ("nothing_accepted", format!("none of the {count} items is an event; the first: {detail}"))
            }
        };
        let error = Some(ErrorBody { code, message });
        match &self.items[..] {
            [] => Body { error, ..Body::default() },
            items => Body { accepted: Some(0), rejected: Some(items), error, ..Body::default() },
        }
    }
}

#[derive(Serialize, Default)]
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
            Self::TurnedAway(why) => why.status(),
            Self::Refused(refusal) => refusal.reason().map_or(400, Reason::status),
            Self::Stored { .. } => 200,
            Self::Unread(unread) => unread.status(),
            Self::NotStored { .. } => 503,
        }
    }

    fn body(&self) -> String {
        let body = match self {
            Self::Healthy => return String::from("{\"status\":\"ok\"}"),
            Self::Preflight => return String::new(),
            Self::TurnedAway(why) => why.body(),
            Self::Refused(refusal) => refusal.body(),
            Self::Unread(unread) => unread.body(),
            Self::Stored { accepted, rejected } => {
                Body { accepted: Some(*accepted), rejected: Some(rejected), ..Body::default() }
            }
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

    /// What it says about the events; `None` for health checks and preflights.
    #[must_use]
    pub fn answered(&self) -> Option<Answered> {
        match self {
            Self::Healthy | Self::Preflight => None,
            Self::Unread(Unread::NoRoom) => Some(Answered { accepted: 0, not_stored: 1 }),
            Self::TurnedAway(_) | Self::Refused(_) | Self::Unread(_) => Some(Answered { accepted: 0, not_stored: 0 }),
            Self::Stored { accepted, .. } => Some(Answered { accepted: *accepted, not_stored: 0 }),
            Self::NotStored { accepted, not_stored, .. } => {
                Some(Answered { accepted: *accepted, not_stored: not_stored.len() })
            }
        }
    }

    /// The count of requests that were turned away like this one.
    #[must_use]
    pub fn turned_away(&self) -> Option<(Metric, u64)> {
        match self {
            Self::TurnedAway(why) => Some((why.metric(), 1)),
            Self::Healthy
            | Self::Preflight
            | Self::Refused(_)
            | Self::Stored { .. }
            | Self::Unread(_)
            | Self::NotStored { .. } => None,
        }
    }

    /// When to send the request again, or what is not stored of it.
    fn retry_after(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NotStored { .. } | Self::Unread(Unread::NoRoom) => Some(RETRY_AFTER_SECONDS.into()),
            Self::TurnedAway(TurnedAway::RateLimited { seconds }) => Some(seconds.to_string().into()),
            Self::TurnedAway(TurnedAway::UnknownKey)
            | Self::Healthy
            | Self::Preflight
            | Self::Refused(_)
            | Self::Stored { .. }
            | Self::Unread(Unread::TooLarge | Unread::TooSlow | Unread::Broken) => None,
        }
    }

    /// The HTTP response, with CORS headers for the request's origin.
    #[must_use]
    pub fn into_reply(self, head: Head<'_>, allowed_origins: &AllowedOrigins) -> Reply {
        let is_preflight = matches!(self, Self::Preflight);
        // No cache keeps what answers a POST: <https://www.rfc-editor.org/rfc/rfc9110#name-post>
        let varies_by = if is_preflight { PREFLIGHT_VARIES_BY } else { "origin" };
        let mut headers = Vec::with_capacity(USUAL_HEADERS);
        headers.extend((head.method != "POST").then(|| ("vary", varies_by.into())));
        headers.extend(cors_headers(head.headers, allowed_origins));
        let allows_origin = headers.iter().any(|(name, _)| *name == ALLOW_ORIGIN);
        match &self {
            Self::Preflight => headers.extend(preflight_headers(head.headers)),
            Self::Refused(refusal) if refusal.rejection.reason == Reason::MethodNotAllowed => {
                let health = head.path.trim_start_matches('/').starts_with("health");
                headers.push(("allow", if health { "GET, HEAD" } else { ALLOWED_METHODS }.into()));
            }
            Self::TurnedAway(TurnedAway::UnknownKey) => headers.push(("www-authenticate", CHALLENGE.into())),
            Self::TurnedAway(TurnedAway::RateLimited { .. })
            | Self::Healthy
            | Self::Refused(_)
            | Self::Unread(_)
            | Self::Stored { .. }
            | Self::NotStored { .. } => {}
        }
        if let Some(seconds) = self.retry_after() {
            headers.push(("retry-after", seconds));
            // Without its name here no page can read it.
            headers.extend(allows_origin.then(|| ("access-control-expose-headers", "retry-after".into())));
        }
        if !is_preflight {
            headers.push(("content-type", "application/json".into()));
        }
        Reply { status: self.status(), headers, body: self.body() }
    }
}

/// An HTTP response, whichever front end sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: String,
}

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const USUAL_HEADERS: usize = 4;
const ALLOWED_METHODS: &str = "POST, OPTIONS";
/// The answer depends on these headers, so a cache must not reuse it for other values.
const PREFLIGHT_VARIES_BY: &str = "origin, access-control-request-headers";
const RETRY_AFTER_SECONDS: &str = "5";
/// Each 401 has one (<https://www.rfc-editor.org/rfc/rfc9110#name-www-authenticate>). Not Basic: for that, browsers ask viewers for a
/// password.
const CHALLENGE: &str = "PlayheadKey";
/// A day; browsers cap it (Chromium at two hours).
const PREFLIGHT_MAX_AGE_SECONDS: &str = "86400";

/// The origin is echoed, with credentials allowed, even when any is: `navigator.sendBeacon` always sends credentials, and
/// for such a request browsers take no `*`. There is nothing here that a cookie would protect.
fn cors_headers(headers: &Headers, allowed_origins: &AllowedOrigins) -> Vec<(&'static str, Cow<'static, str>)> {
    let origin = headers.origin.as_deref().filter(|origin| may_be_echoed(origin));
    let Some(origin) = origin.filter(|origin| allowed_origins.allow(origin)) else { return Vec::new() };
    vec![(ALLOW_ORIGIN, origin.to_owned().into()), ("access-control-allow-credentials", "true".into())]
}

/// A value that no browser sends could make the front door refuse the whole answer after the events were stored.
fn may_be_echoed(header: &str) -> bool {
    header.len() <= MAX_HEADER_BYTES && header.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn preflight_headers(headers: &Headers) -> [(&'static str, Cow<'static, str>); 3] {
    let requested = headers.requested_headers.as_deref().filter(|requested| may_be_echoed(requested));
    let requested = requested.map_or("content-type, content-encoding".into(), |requested| requested.to_owned().into());
    [
        ("access-control-allow-methods", ALLOWED_METHODS.into()),
        ("access-control-allow-headers", requested),
        ("access-control-max-age", PREFLIGHT_MAX_AGE_SECONDS.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn reply(answer: Answer, headers: &Headers, allowed_origins: &AllowedOrigins) -> Reply {
        answer.into_reply(Head { method: "POST", path: "/events", headers }, allowed_origins)
    }

    fn respond(answer: Answer) -> (u16, Value) {
        let response = reply(answer, &Headers::default(), &AllowedOrigins::Any);
        (response.status, serde_json::from_str(&response.body).unwrap())
    }

    fn rejected(items: &[(usize, Reason)]) -> Vec<RejectedItem> {
        items.iter().map(|&(index, reason)| RejectedItem { index, reason, violation: None }).collect()
    }

    #[test]
    fn accepted_in_part() {
        let answer = Answer::Stored { accepted: 19, rejected: rejected(&[(3, Reason::NotAnObject)]) };
        let expected = json!({"accepted": 19, "rejected": [{"index": 3, "reason": "not_an_object"}]});
        assert_eq!(respond(answer), (200, expected));
    }

    #[test]
    fn nothing_accepted_says_why() {
        let refused = |items: &[(usize, Reason)]| {
            let rejection = Rejection::new(items[0].1, "the first's detail");
            respond(Answer::Refused(Refusal { rejection, items: rejected(items) }))
        };
        let (status, body) = refused(&[(0, Reason::NotAnObject)]);
        assert_eq!((status, &body["error"]["code"], &body["accepted"]), (400, &json!("not_an_object"), &json!(0)));
        let (status, body) = refused(&[(0, Reason::EventTooLarge), (1, Reason::NotAnObject)]);
        assert_eq!((status, &body["error"]["code"]), (400, &json!("nothing_accepted")));
        assert_eq!(refused(&[(0, Reason::EventTooLarge), (1, Reason::EventTooLarge)]).0, 413);
        let (status, body) = respond(Answer::Refused(Rejection::new(Reason::BodyTooLarge, "d").into()));
        assert_eq!((status, body), (413, json!({"error": {"code": "body_too_large", "message": "d"}})));
    }

    #[test]
    fn a_violation_names_rule_and_place() {
        let violation = Violation { rule: "/properties/n/type".into(), path: "/n".into() };
        let item = RejectedItem { index: 3, reason: Reason::SchemaViolation, violation: Some(violation) };
        let expected = json!([{"index": 3, "reason": "schema_violation", "rule": "/properties/n/type", "path": "/n"}]);
        assert_eq!(respond(Answer::Stored { accepted: 1, rejected: vec![item] }).1["rejected"], expected);
    }

    #[test]
    fn what_is_not_stored_is_named() {
        let answer = Answer::NotStored { accepted: 12, not_stored: vec![3, 4], rejected: Vec::new() };
        let response = reply(answer, &Headers::default(), &AllowedOrigins::Any);
        assert_eq!(response.status, 503);
        assert!(response.headers.contains(&("retry-after", "5".into())));
        let body: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(
            (&body["accepted"], &body["not_stored"], &body["rejected"]),
            (&json!(12), &json!([3, 4]), &json!([]))
        );
        assert_eq!(body["error"]["code"], "not_stored");
    }

    fn headers_for(
        origin: Option<&str>,
        answer: Answer,
        allowed: &[&str],
    ) -> BTreeMap<&'static str, Cow<'static, str>> {
        let headers = Headers { origin: origin.map(str::to_owned), ..Headers::default() };
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        reply(answer, &headers, &AllowedOrigins::parse(&allowed).unwrap()).headers.into_iter().collect()
    }

    #[test]
    fn an_allowed_origin_is_echoed_and_may_read_when_to_send_again() {
        let not_stored = || Answer::NotStored { accepted: 0, not_stored: vec![0], rejected: Vec::new() };
        for allowed in [&["*"][..], &["https://a.example"], &["https://b.example", "https://*.example"]] {
            let headers = headers_for(Some("https://a.example"), not_stored(), allowed);
            assert_eq!(headers["access-control-allow-origin"], "https://a.example");
            assert_eq!(headers["access-control-expose-headers"], "retry-after");
            assert_eq!(headers["retry-after"], "5");
        }
    }

    #[test]
    fn who_is_turned_away_may_read_why_and_when_to_come_again() {
        let limited = || Answer::TurnedAway(TurnedAway::RateLimited { seconds: 70 });
        assert_eq!((limited().status(), limited().turned_away()), (429, Some((Metric::LimitedRequests, 1))));
        assert_eq!(respond(limited()).1["error"]["code"], "rate_limited");
        let headers = headers_for(Some("https://a.example"), limited(), &["*"]);
        assert_eq!((&*headers["retry-after"], &*headers["access-control-expose-headers"]), ("70", "retry-after"));

        let unknown = || Answer::TurnedAway(TurnedAway::UnknownKey);
        assert_eq!((unknown().status(), unknown().turned_away()), (401, Some((Metric::UnauthorizedRequests, 1))));
        let (_, body) = respond(unknown());
        let message = body["error"]["message"].as_str().unwrap();
        assert!(body["error"]["code"] == "unknown_key" && message.contains("X-Playhead-Key"), "{body}");
        let headers = headers_for(Some("https://a.example"), unknown(), &["*"]);
        assert_eq!(headers[ALLOW_ORIGIN], "https://a.example");
        // Viewers would be asked for a password.
        assert!(!headers["www-authenticate"].to_lowercase().contains("basic") && !headers.contains_key("retry-after"));
    }

    #[test]
    fn a_preflight_allows_the_headers_that_name_a_key() {
        let requested = Some("authorization,x-playhead-key".to_owned());
        let headers =
            Headers { origin: Some("https://a.example".into()), requested_headers: requested, ..Headers::default() };
        let reply = reply(Answer::Preflight, &headers, &AllowedOrigins::Any);
        assert!(reply.headers.contains(&("access-control-allow-headers", "authorization,x-playhead-key".into())));
    }

    #[test]
    fn another_origin_may_read_nothing() {
        for origin in [None, Some("https://b.example"), Some("null")] {
            for answer in [Answer::Healthy, Answer::Unread(Unread::NoRoom)] {
                let headers = headers_for(origin, answer, &["https://a.example"]);
                assert!(!headers.keys().any(|name| name.starts_with("access-control")));
            }
        }
    }

    #[test]
    fn answers_that_a_cache_might_keep_say_that_they_depend_on_the_origin() {
        let vary = |method, answer: Answer| {
            let head = Head { method, path: "/", headers: &Headers::default() };
            let headers: BTreeMap<_, _> = answer.into_reply(head, &AllowedOrigins::Any).headers.into_iter().collect();
            headers.get("vary").cloned()
        };
        assert_eq!(vary("GET", Answer::Healthy).as_deref(), Some("origin"));
        assert_eq!(vary("OPTIONS", Answer::Preflight).as_deref(), Some(PREFLIGHT_VARIES_BY));
        assert_eq!(vary("POST", Answer::Stored { accepted: 1, rejected: Vec::new() }), None);
    }

    #[test]
    fn where_all_is_well_a_page_gets_few_headers() {
        let headers =
            headers_for(Some("https://player.example"), Answer::Stored { accepted: 1, rejected: Vec::new() }, &["*"]);
        let names: Vec<_> = headers.keys().copied().collect();
        assert_eq!(names, ["access-control-allow-credentials", ALLOW_ORIGIN, "content-type"]);
    }

    #[test]
    fn no_origin_that_a_front_door_could_choke_on_is_echoed() {
        for hostile in ["https://ü.example".to_owned(), "a\r\nx: y".to_owned(), "x".repeat(2_000)] {
            let headers = headers_for(Some(&hostile), Answer::Healthy, &["*"]);
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
    }
}
