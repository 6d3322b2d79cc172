//! The page and its API: GET only, for this machine only. docs/STATUS.md describes the answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use base64_simd::STANDARD as BASE64;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::timestamp::{UnixMillis, UtcHour};
use tokio::sync::Semaphore;

use crate::hours::HOURS;
use crate::observer::Watch;
use crate::snapshot::{About, Part, Snapshot, details, events_problem, search};
use crate::stream;
use crate::wait;

const PAGE: &str = include_str!("../page/index.html");
/// Events that an answer has at most, and without a limit of its own.
const MAX_EVENTS: usize = 200;
const DEFAULT_EVENTS: usize = 50;
/// Bytes that a query may have, and a text that is searched for.
const MAX_QUERY_BYTES: usize = 2_048;
pub(crate) const MAX_SEARCH_BYTES: usize = 400;
/// A snapshot that is at most so old is not read again for one who asks.
pub(crate) const FRESH: Duration = Duration::from_secs(10);
/// How long the first snapshot may take.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(20);
/// Pages that are open at once.
const MAX_STREAMS: usize = 16;
/// Calls that wait at once.
const MAX_WAITS: usize = 16;

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) watch: Watch,
    pub(crate) about: Arc<About>,
    streams: Arc<Semaphore>,
    waits: Arc<Semaphore>,
    policy: HeaderValue,
}

/// Why a request is not answered as it asks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("there is nothing at {0}; docs/STATUS.md lists what there is")]
    NotFound(String),
    #[error("only GET is answered here")]
    Method,
    #[error("the query has more than {MAX_QUERY_BYTES} bytes")]
    LongQuery,
    #[error("{name} {problem}")]
    Parameter { name: &'static str, problem: String },
    #[error("{0} is not one of the last {HOURS} hours")]
    Hour(String),
    #[error("too many of these are open already")]
    Busy,
    #[error("nothing could be read yet; is S3 there?")]
    NotReady,
    #[error("{0} are not known: {1}")]
    NotRead(&'static str, String),
    #[error("it does not hold after {0} s")]
    Timeout(u64),
}

impl ApiError {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) | Self::Hour(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::LongQuery => StatusCode::URI_TOO_LONG,
            Self::Parameter { .. } => StatusCode::BAD_REQUEST,
            Self::Busy | Self::NotReady | Self::NotRead(..) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Hour(_) => "unknown_hour",
            Self::Method => "method_not_allowed",
            Self::LongQuery => "query_too_long",
            Self::Parameter { .. } => "bad_parameter",
            Self::Busy => "busy",
            Self::NotReady | Self::NotRead(..) => "not_ready",
            Self::Timeout(_) => "timeout",
        }
    }

    fn response(&self) -> Response<Body> {
        let body = json!({"error": {"code": self.code(), "message": self.to_string()}});
        let mut response = (self.status(), axum::Json(body)).into_response();
        if *self == Self::Method {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }
}

impl Api {
    pub(crate) fn new(watch: Watch, about: About) -> anyhow::Result<Self> {
        Ok(Self {
            watch,
            about: Arc::new(about),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            waits: Arc::new(Semaphore::new(MAX_WAITS)),
            policy: policy(PAGE)?,
        })
    }

    pub(crate) async fn answer(self, request: Request<Bytes>) -> Response<Body> {
        let policy = self.policy.clone();
        let mut response = self.route(&request).await.unwrap_or_else(|problem| problem.response());
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let same_origin = HeaderValue::from_static("same-origin");
        headers.insert(HeaderName::from_static("cross-origin-resource-policy"), same_origin.clone());
        headers.insert(HeaderName::from_static("cross-origin-opener-policy"), same_origin);
        response
    }

    async fn route(mut self, request: &Request<Bytes>) -> Result<Response<Body>, ApiError> {
        if request.method() != Method::GET {
            return Err(ApiError::Method);
        }
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        match request.uri().path() {
            "/" => Ok(([(CONTENT_TYPE, "text/html; charset=utf-8")], PAGE).into_response()),
            "/api/overview" => Ok(reply(self.snapshot().await?.overview(&self.about))),
            "/api/events" => self.events(&query).await,
            "/api/hours" => {
                let count = query.number("hours", HOURS.unsigned_abs(), 1..=HOURS.unsigned_abs())?;
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                self.read(Part::Hours, |snapshot| snapshot.hours(count)).await.map(reply)
            }
            "/api/incidents" => self.read(Part::Incidents, Snapshot::incidents).await.map(reply),
            "/api/checks" => Ok(reply(self.snapshot().await?.checks())),
            "/api/wait" => self.wait(&query).await,
            "/api/stream" => {
                let place = self.streams.try_acquire_owned().map_err(|_| ApiError::Busy)?;
                Ok(stream::response(self.watch, self.about, place))
            }
            path => match path.strip_prefix("/api/hours/") {
                Some(hour) => self.hour(hour).await,
                None => Err(ApiError::NotFound(path.to_owned())),
            },
        }
    }

    pub(crate) async fn snapshot(&mut self) -> Result<Arc<Snapshot>, ApiError> {
        let found = tokio::time::timeout(FIRST_SNAPSHOT, self.watch.fresh(FRESH)).await;
        found.ok().flatten().ok_or(ApiError::NotReady)
    }

    /// A part of the newest snapshot. What is not read yet is waited for; what can't be read is not empty.
    async fn read<T>(&mut self, part: Part, take: impl Fn(&Snapshot) -> Option<T>) -> Result<T, ApiError> {
        let has = async {
            loop {
                let snapshot = self.snapshot().await?;
                if snapshot.has(part) {
                    return Ok(snapshot);
                }
                self.watch.look();
                self.watch.snapshots.changed().await.map_err(|_| ApiError::NotReady)?;
            }
        };
        let found = tokio::time::timeout(FIRST_SNAPSHOT, has).await;
        let snapshot = found.map_err(|_| ApiError::NotRead(part.name(), "not read yet".to_owned()))??;
        let problem = || snapshot.problems.get(part.name()).cloned().unwrap_or_else(|| "not read yet".to_owned());
        take(&snapshot).ok_or_else(|| ApiError::NotRead(part.name(), problem()))
    }

    async fn events(mut self, query: &Query) -> Result<Response<Body>, ApiError> {
        let kind = query.choice("kind", &["event", "rejected"])?;
        let text = query.search()?;
        let limit = query.number("limit", DEFAULT_EVENTS as u64, 1..=MAX_EVENTS as u64)?;
        let snapshot = self.snapshot().await?;
        let objects = if kind == "event" { &snapshot.newest.events } else { &snapshot.newest.rejected };
        let (found, mut searched) = search(objects, text, usize::try_from(limit).unwrap_or(MAX_EVENTS));
        searched.is_partial |= snapshot.newest.unread > 0;
        let events = found.iter().map(|(object, line)| {
            let mut shown = json!(line);
            shown["landed_at"] = json!(object.landed_at);
            shown
        });
        let events: Vec<Value> = events.collect();
        let problem = events_problem(&snapshot.problems);
        Ok(reply(json!({
            "at": snapshot.at, "events": events, "searched": searched, "unread_files": snapshot.newest.unread, "problem": problem,
        })))
    }

    async fn hour(mut self, text: &str) -> Result<Response<Body>, ApiError> {
        let unknown = || ApiError::Hour(text.chars().take(40).collect());
        let hour = parse_hour(text).ok_or_else(unknown)?;
        let hours = self.read(Part::Hours, |snapshot| snapshot.hours.clone()).await?;
        let found = hours.iter().find(|one| one.hour == hour).ok_or_else(unknown)?;
        Ok(reply(details(found)))
    }

    async fn wait(self, query: &Query) -> Result<Response<Body>, ApiError> {
        let _place = self.waits.clone().try_acquire_owned().map_err(|_| ApiError::Busy)?;
        let condition = wait::Condition::parse(query)?;
        let seconds = query.number("timeout_seconds", 30, 1..=300)?;
        let held = wait::until(self.watch, condition, Duration::from_secs(seconds)).await;
        held.map(reply).ok_or(ApiError::Timeout(seconds))
    }
}

fn reply(body: Value) -> Response<Body> {
    axum::Json(body).into_response()
}

/// `2026-11-21T09`
pub(crate) fn parse_hour(text: &str) -> Option<UtcHour> {
    let is_hour = text.len() == 13 && text.is_ascii();
    is_hour.then(|| UnixMillis::parse(&format!("{text}:00:00.000Z"))).flatten().map(UnixMillis::hour)
}

/// A request's query.
#[derive(Debug)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.len() > MAX_QUERY_BYTES {
            return Err(ApiError::LongQuery);
        }
        let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Ok(Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decoded(name), decoded(value)))
                .collect(),
        ))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What to search for: `q`.
    pub(crate) fn search(&self) -> Result<&str, ApiError> {
        let text = self.text("q").unwrap_or_default();
        let problem = || format!("has more than {MAX_SEARCH_BYTES} bytes");
        if text.len() <= MAX_SEARCH_BYTES {
            Ok(text)
        } else {
            Err(ApiError::Parameter { name: "q", problem: problem() })
        }
    }

    pub(crate) fn number(
        &self,
        name: &'static str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ApiError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        let problem = || format!("takes a number from {} to {}", range.start(), range.end());
        number.ok_or_else(|| ApiError::Parameter { name, problem: problem() })
    }

    /// The first is the default.
    pub(crate) fn choice(&self, name: &'static str, choices: &[&'static str]) -> Result<&'static str, ApiError> {
        let wanted = self.text(name).unwrap_or(choices[0]);
        let problem = || format!("takes one of {}", choices.join(", "));
        let found = choices.iter().copied().find(|choice| *choice == wanted);
        found.ok_or_else(|| ApiError::Parameter { name, problem: problem() })
    }
}

/// What the page may do: run its own script and style, and ask its own API. The two are named by their hashes, so that no other
/// text can run, wherever it comes from.
fn policy(page: &str) -> anyhow::Result<HeaderValue> {
    let hash = |tag: &str| -> anyhow::Result<String> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let text = page.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map(|(text, _)| text);
        let text = text.ok_or_else(|| anyhow::anyhow!("the page has no {tag}"))?;
        Ok(format!("'sha256-{}'", BASE64.encode_to_string(Sha256::digest(text.as_bytes()))))
    };
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script")?,
        hash("style")?
    );
    Ok(HeaderValue::from_str(&policy)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_page_has_one_script_and_one_style_and_loads_nothing() {
        assert!(policy(PAGE).is_ok());
        for tag in ["<script", "<style"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=\"",
            "onclick=",
            "https://",
        ] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }

    #[rstest]
    #[case("2026-11-21T09", true)]
    #[case("2026-11-21T24", false)]
    #[case("2026-11-21", false)]
    #[case("2026-11-21T9é", false)]
    #[case("../../../etc/", false)]
    fn hours_are_read(#[case] text: &str, #[case] is_hour: bool) {
        assert_eq!(parse_hour(text).is_some(), is_hour);
    }

    #[test]
    fn a_query_is_decoded_and_bounded() {
        let query = Query::parse("q=a+b%3Cc&limit=200&kind=rejected&x").unwrap();
        assert_eq!((query.search().unwrap(), query.number("limit", 1, 1..=200).unwrap()), ("a b<c", 200));
        assert_eq!(query.choice("kind", &["event", "rejected"]).unwrap(), "rejected");
        assert!(Query::parse("limit=201").unwrap().number("limit", 1, 1..=200).is_err());
        assert!(Query::parse("kind=x").unwrap().choice("kind", &["event"]).is_err());
        let search = |bytes| Query::parse(&format!("q={}", "x".repeat(bytes))).unwrap().search().map(str::len);
        assert_eq!(search(MAX_SEARCH_BYTES), Ok(MAX_SEARCH_BYTES));
        assert!(search(MAX_SEARCH_BYTES + 1).is_err());
        assert!(Query::parse(&"x".repeat(MAX_QUERY_BYTES)).is_ok());
        assert_eq!(Query::parse(&"x".repeat(MAX_QUERY_BYTES + 1)).unwrap_err(), ApiError::LongQuery);
    }
}
