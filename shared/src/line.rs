//! The lines that travel in Kinesis records and land in files: one JSON object each, ended by a line feed.
//!
//! An event:
//! `{"v":1,"id":"…","received_at":"…Z","request_id":"…","client":{…},"event":{…}}`
//!
//! With `"app":"…"` before `client` where the request named a key.
//!
//! Something rejected, whole or in numbered parts that share an id:
//! `{"v":1,"id":"…","received_at":"…Z","request_id":"…","client":{…},"rejected":{"reason":"…","path":"…","detail":"…",…,"body_base64":"…"}}`

use base64_simd::STANDARD as BASE64;

use crate::json::{for_each_member, is_deeper_than, write_string};
use crate::limits::MAX_EVENT_DEPTH;
use crate::rejection::{Reason, Rejection};
use crate::timestamp::UnixMillis;

/// How an event's line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum EventFormat {
    /// The client's JSON inside an envelope that says which, when and from whom.
    #[default]
    Envelope,
    /// The client's JSON alone.
    Raw,
}

impl EventFormat {
    /// Each format by its name in configuration and metadata; the default comes first.
    pub const NAMES: [(&'static str, Self); 2] = [("envelope", Self::Envelope), ("raw", Self::Raw)];

    /// Its name in configuration and metadata.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Raw => "raw",
        }
    }

    /// The inverse of [`EventFormat::as_str`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(own, _)| *own == name).map(|(_, format)| format)
    }
}

/// Who sent a request, as far as it is configured to be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The address, whole or truncated.
    pub ip: Option<String>,
    /// The `Origin` header.
    pub origin: Option<String>,
    /// The path of the page that sent it.
    pub page: Option<String>,
    /// Two letters.
    pub country: Option<String>,
    /// Whose key the request named. It stands beside `client`, of which clients say the rest themselves.
    pub app: Option<String>,
}

/// What the lines of one request have in common, encoded once.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// What all lines say, from `,"received_at":` to the last member of `client`; then the origin and the path, which only
    /// rejected lines have. One buffer, because every request makes one.
    text: Vec<u8>,
    origin_start: usize,
    path_start: usize,
}

const BEFORE_ID: &[u8] = b"{\"v\":1,\"id\":";
const BEFORE_EVENT: &[u8] = b"},\"event\":";
const BEFORE_REJECTED: &[u8] = b"},\"rejected\":{\"reason\":\"";
const END: &[u8] = b"}\n";

/// A JSON string literal, quotes included, that serves as a line's id.
#[derive(Debug, Clone, Copy)]
pub struct IdLiteral<'a>(&'a str);

impl<'a> IdLiteral<'a> {
    /// Takes a literal that is known to be a valid JSON string.
    #[must_use]
    pub fn new(literal: &'a str) -> Self {
        debug_assert!(literal.len() >= 2 && literal.starts_with('"') && literal.ends_with('"'));
        Self(literal)
    }
}

impl Envelope {
    /// Encodes what the lines of one request share.
    #[must_use]
    pub fn new(received_at: UnixMillis, request_id: &str, client: &Client) -> Self {
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(b",\"received_at\":\"");
        text.extend_from_slice(received_at.rfc3339().as_bytes());
        text.extend_from_slice(b"\",\"request_id\":");
        write_string(&mut text, request_id);
        if let Some(app) = &client.app {
            text.extend_from_slice(b",\"app\":");
            write_string(&mut text, app);
        }
        text.extend_from_slice(b",\"client\":{");
        let Client { user_agent, ip, origin, page, country, app: _ } = client;
        let members =
            [("user_agent", user_agent), ("ip", ip), ("origin", origin), ("page", page), ("country", country)];
        members.into_iter().for_each(|(name, value)| write_client_member(&mut text, name, value.as_deref()));
        Self { origin_start: text.len(), path_start: text.len(), text }
    }

    /// Adds what rejected lines say besides: the request's path and, unless it is the client's already, its `Origin` header, as far
    /// as they are kept.
    #[must_use]
    pub fn with_request(mut self, path: &str, origin: Option<&str>) -> Self {
        write_client_member(&mut self.text, "origin", origin);
        self.path_start = self.text.len();
        self.text.extend_from_slice(b",\"path\":");
        write_string(&mut self.text, path);
        self
    }

    /// The bytes of the line that [`Envelope::write_event`] would append.
    #[must_use]
    pub fn event_len(&self, id: IdLiteral<'_>, event: &str) -> usize {
        BEFORE_ID.len() + id.0.len() + self.origin_start + BEFORE_EVENT.len() + event.len() + END.len()
    }

    /// Appends an event's line. `event` must be valid JSON without line breaks.
    pub fn write_event(&self, out: &mut Vec<u8>, id: IdLiteral<'_>, event: &str) {
        debug_assert!(!event.contains(['\n', '\r']));
        let common = &self.text[..self.origin_start];
        for piece in [BEFORE_ID, id.0.as_bytes(), common, BEFORE_EVENT, event.as_bytes(), END] {
            out.extend_from_slice(piece);
        }
    }

    /// Appends a rejected line that holds `body` or a part of it.
    pub fn write_rejected(&self, out: &mut Vec<u8>, id: IdLiteral<'_>, rejected: &Rejected<'_>) {
        let (before_path, path) = self.text.split_at(self.path_start);
        let reason = rejected.rejection.reason.as_str();
        for piece in [BEFORE_ID, id.0.as_bytes(), before_path, BEFORE_REJECTED, reason.as_bytes(), b"\""] {
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(path);
        rejected.write_before_body(out);
        BASE64.encode_append(rejected.body, out);
        out.extend_from_slice(b"\"}");
        out.extend_from_slice(END);
    }

    /// How many bytes of a body fit into one rejected line of at most `max_line_bytes`; at least 1, so that numbering
    /// always ends.
    #[must_use]
    pub fn rejected_body_capacity(&self, id: IdLiteral<'_>, rejected: &Rejected<'_>, max_line_bytes: usize) -> usize {
        let numbered = Rejected { part: Some(Part { number: u32::MAX, of: u32::MAX }), body: &[], ..rejected.clone() };
        let mut line = Vec::new();
        self.write_rejected(&mut line, id, &numbered);
        (max_line_bytes.saturating_sub(line.len()) / 4 * 3).max(1)
    }
}

/// Appends a member to the open object of `client`.
fn write_client_member(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let quote: &[u8] = if out.ends_with(b"{") { b"\"" } else { b",\"" };
        for piece in [quote, name.as_bytes(), b"\":"] {
            out.extend_from_slice(piece);
        }
        write_string(out, value);
    }
}

/// What a rejected line says.
#[derive(Debug, Clone)]
pub struct Rejected<'a> {
    /// Why.
    pub rejection: &'a Rejection,
    /// The request's `Content-Type`, if the body was not taken apart.
    pub content_type: Option<&'a str>,
    /// The request's `Content-Encoding`, if the body was not decompressed.
    pub content_encoding: Option<&'a str>,
    /// Which part of the body this is, if one line is too small for it.
    pub part: Option<Part>,
    /// The bytes that could not be accepted.
    pub body: &'a [u8],
}

/// A numbered part of a rejected body. All parts have the same id; their bodies, in order, are the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Rejected<'_> {
    fn write_before_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"detail\":");
        write_string(out, &self.rejection.detail);
        for (name, value) in [("content_type", self.content_type), ("content_encoding", self.content_encoding)] {
            if let Some(value) = value {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                write_string(out, value);
            }
        }
        if let Some(Part { number, of }) = self.part {
            out.extend_from_slice(format!(",\"part\":{number},\"parts\":{of}").as_bytes());
        }
        out.extend_from_slice(b",\"body_base64\":\"");
    }
}

/// Where a line lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Under `events/`.
    Event,
    /// Under `rejected/`.
    Rejected,
}

impl Kind {
    /// How ingest begins the partition keys of records that hold lines of this kind: a bucket's number follows. Clients write no
    /// part of a key.
    #[must_use]
    pub const fn key_prefix(self) -> &'static str {
        match self {
            Self::Event => "e-",
            Self::Rejected => "r-",
        }
    }
}

/// What the landing side sees of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineHead {
    /// Where it lands.
    pub kind: Kind,
    /// When ingest received it; `None` for a line without an envelope.
    pub received_at: Option<UnixMillis>,
    /// Why a rejected line was rejected; `None` for events. A reason that is none of ours, or is written with escapes, is
    /// another producer's: [`Reason::ForeignRecord`].
    pub reason: Option<Reason>,
}

/// Why a line is none that may land as it is.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    NotAnObject(#[from] serde_json::Error),
    /// Deeper than an event in its envelope can be.
    #[error("nested deeper than {MAX_EVENT_DEPTH} levels")]
    TooDeep,
}

/// Reads what the landing side needs of a line and checks all of it.
///
/// Any JSON object passes, whoever wrote it; only lines as ours for what is rejected are [`Kind::Rejected`].
///
/// # Errors
///
/// When the line is not one JSON object or is nested too deep for common readers.
pub fn read_head(line: &str) -> Result<LineHead, LineError> {
    let (mut version, mut received_at, mut rejected, mut event) = (false, None, None, false);
    for_each_member(line, |key, value| match key {
        "\"v\"" => version = value == "1",
        "\"received_at\"" => received_at = UnixMillis::parse(value.trim_matches('"')),
        "\"rejected\"" => rejected = rejected_reason(value),
        "\"event\"" => event = true,
        _ => {}
    })?;
    if is_deeper_than(line, MAX_EVENT_DEPTH + 1) {
        return Err(LineError::TooDeep);
    }
    let received_at = received_at.filter(|_| version);
    let reason = rejected.filter(|_| received_at.is_some() && !event);
    let kind = if reason.is_some() { Kind::Rejected } else { Kind::Event };
    Ok(LineHead { kind, received_at, reason })
}

/// The reason in a `rejected` member; `None` for a member that is not as ours.
fn rejected_reason(member: &str) -> Option<Reason> {
    let name = member.strip_prefix("{\"reason\":\"")?.split('"').next()?;
    Some(Reason::parse(name).unwrap_or(Reason::ForeignRecord))
}

#[cfg(test)]
mod tests;
