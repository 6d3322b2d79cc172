//! The lines that travel in Kinesis records and land in files: one JSON object each, ended by a line feed.
//!
//! An event:
//! `{"v":1,"id":"…","received_at":"…Z","request_id":"…","client":{…},"event":{…}}`
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
        text.extend_from_slice(b",\"client\":{");
        write_client_member(&mut text, "user_agent", client.user_agent.as_deref());
        write_client_member(&mut text, "ip", client.ip.as_deref());
        Self { origin_start: text.len(), path_start: text.len(), text }
    }

    /// Adds what rejected lines say besides: the request's path and its `Origin` header, as far as they are kept.
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
mod tests {
    use super::*;
    use crate::json::fold_line_breaks;
    use generators::json::{json_object, json_string};
    use proptest::prelude::*;
    use rstest::rstest;
    use serde::Deserialize;
    use serde_json::value::RawValue;

    /// Decodes with serde, as a reader would; shares no code with the encoder.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Decoded<'a> {
        v: u8,
        #[serde(borrow)]
        id: &'a RawValue,
        received_at: String,
        request_id: String,
        client: DecodedClient,
        #[serde(borrow)]
        event: Option<&'a RawValue>,
        rejected: Option<DecodedRejected>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct DecodedClient {
        user_agent: Option<String>,
        ip: Option<String>,
        origin: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct DecodedRejected {
        reason: String,
        path: Option<String>,
        detail: String,
        content_type: Option<String>,
        content_encoding: Option<String>,
        part: Option<u32>,
        parts: Option<u32>,
        body_base64: String,
    }

    fn arrival() -> UnixMillis {
        UnixMillis(1_795_253_528_006)
    }

    #[test]
    fn an_event_line_is_what_the_format_says() {
        let client = Client { user_agent: Some("UA \"1\"".into()), ip: Some("192.0.2.0".into()) };
        let mut line = Vec::new();
        Envelope::new(arrival(), "req-1", &client).write_event(&mut line, IdLiteral::new("\"e1\""), "{\"a\": 1}");
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"v\":1,\"id\":\"e1\",\"received_at\":\"2026-11-21T09:32:08.006Z\",\"request_id\":\"req-1\",\
             \"client\":{\"user_agent\":\"UA \\\"1\\\"\",\"ip\":\"192.0.2.0\"},\"event\":{\"a\": 1}}\n"
        );
    }

    #[test]
    fn rejected_parts_fill_their_line_and_never_overflow_it() {
        let rejection = Rejection::new(Reason::BodyTooLarge, "d".repeat(100));
        let envelope = Envelope::new(arrival(), "r", &Client::default());
        let id = IdLiteral::new("\"x\"");
        let body = vec![7u8; 5000];
        let whole = Rejected {
            rejection: &rejection,
            content_type: Some("a/b"),
            content_encoding: None,
            part: None,
            body: &body,
        };
        for max in [600, 601, 602, 603, 1024] {
            let capacity = envelope.rejected_body_capacity(id, &whole, max);
            let part = Some(Part { number: u32::MAX, of: u32::MAX });
            let line_len = |bytes: usize| {
                let mut line = Vec::new();
                envelope.write_rejected(&mut line, id, &Rejected { part, body: &body[..bytes], ..whole.clone() });
                line.len()
            };
            assert!(line_len(capacity) <= max);
            assert!(line_len(capacity + 3) > max);
        }
        assert_eq!(envelope.rejected_body_capacity(id, &whole, 10), 1);
    }

    #[test]
    fn foreign_lines_are_events_whatever_their_members_are_called() {
        for line in
            ["{}", "{\"rejected\":{}}", "{\"v\":1,\"rejected\":{}}", "{\"v\":2,\"received_at\":\"x\",\"rejected\":{}}"]
        {
            assert_eq!(
                read_head(line).unwrap(),
                LineHead { kind: Kind::Event, received_at: None, reason: None },
                "{line}"
            );
        }
    }

    #[rstest]
    #[case::ours("{\"reason\":\"too_deep\",\"detail\":\"\"}", Some(Reason::TooDeep))]
    #[case::ours_alone("{\"reason\":\"too_deep\"}", Some(Reason::TooDeep))]
    #[case::none_of_ours("{\"reason\":\"bored\"}", Some(Reason::ForeignRecord))]
    #[case::nothing("{\"reason\":\"\"}", Some(Reason::ForeignRecord))]
    #[case::longer_than_ours("{\"reason\":\"too_deep_\"}", Some(Reason::ForeignRecord))]
    #[case::with_escapes("{\"reason\":\"too\\u005fdeep\"}", Some(Reason::ForeignRecord))]
    #[case::not_first("{\"detail\":\"\",\"reason\":\"too_deep\"}", None)]
    #[case::no_text("{\"reason\":1}", None)]
    fn the_reason_of_a_rejected_line_is_one_of_the_closed_set(#[case] rejected: &str, #[case] reason: Option<Reason>) {
        let line = format!("{{\"v\":1,\"received_at\":\"{}\",\"rejected\":{rejected}}}", arrival().rfc3339());
        let kind = if reason.is_some() { Kind::Rejected } else { Kind::Event };
        assert_eq!(read_head(&line).unwrap(), LineHead { kind, received_at: Some(arrival()), reason });
        let without_version = line.replace("\"v\":1", "\"v\":2");
        assert_eq!(read_head(&without_version).unwrap().reason, None);
    }

    #[test]
    fn depth_stands_on_the_bound_and_one_past_it() {
        let nested = |levels: usize| format!("{{\"event\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(read_head(&nested(MAX_EVENT_DEPTH)).is_ok());
        assert!(matches!(read_head(&nested(MAX_EVENT_DEPTH + 1)), Err(LineError::TooDeep)));
    }

    proptest! {
        #[test]
        fn an_event_survives_its_line_to_the_byte(
            event in json_object(), id in json_string(), request_id in any::<String>(),
            user_agent in any::<Option<String>>(), ip in any::<Option<String>>(), millis in 0i64..4_000_000_000_000,
            path in any::<String>(), origin in any::<Option<String>>(),
        ) {
            let event = fold_line_breaks(&event);
            let client = Client { user_agent, ip };
            let envelope = Envelope::new(UnixMillis(millis), &request_id, &client).with_request(&path, origin.as_deref());
            let mut line = Vec::new();
            envelope.write_event(&mut line, IdLiteral::new(&id), &event);
            prop_assert_eq!(line.len(), envelope.event_len(IdLiteral::new(&id), &event));

            let line = String::from_utf8(line)?;
            let text = line.strip_suffix('\n').expect("a line feed at the end");
            prop_assert!(!text.contains(['\n', '\r']));
            let decoded: Decoded = serde_json::from_str(text)?;
            prop_assert_eq!(decoded.v, 1);
            prop_assert_eq!(decoded.id.get(), id);
            prop_assert_eq!(UnixMillis::parse(&decoded.received_at), Some(UnixMillis(millis)));
            prop_assert_eq!(decoded.request_id, request_id);
            prop_assert_eq!(decoded.client, DecodedClient { user_agent: client.user_agent, ip: client.ip, origin: None });
            prop_assert_eq!(decoded.event.map(RawValue::get), Some(event.trim()));
            prop_assert!(decoded.rejected.is_none());
            prop_assert_eq!(read_head(text)?, LineHead { kind: Kind::Event, received_at: Some(UnixMillis(millis)), reason: None });
        }

        #[test]
        fn a_rejected_body_survives_its_line_to_the_byte(
            body in any::<Vec<u8>>(), detail in any::<String>(), reason in prop::sample::select(Reason::ALL.to_vec()),
            content_type in any::<Option<String>>(), content_encoding in any::<Option<String>>(),
            part in any::<Option<(u32, u32)>>(), user_agent in any::<Option<String>>(),
            request in any::<Option<(String, Option<String>)>>(),
        ) {
            let rejection = Rejection::new(reason, detail);
            let rejected = Rejected {
                rejection: &rejection,
                content_type: content_type.as_deref(),
                content_encoding: content_encoding.as_deref(),
                part: part.map(|(number, of)| Part { number, of }),
                body: &body,
            };
            let mut line = Vec::new();
            let client = Client { user_agent: user_agent.clone(), ip: None };
            let envelope = Envelope::new(arrival(), "r", &client);
            let envelope = match &request {
                Some((path, origin)) => envelope.with_request(path, origin.as_deref()),
                None => envelope,
            };
            envelope.write_rejected(&mut line, IdLiteral::new("\"x\""), &rejected);

            let line = String::from_utf8(line)?;
            let text = line.strip_suffix('\n').expect("a line feed at the end");
            let decoded: Decoded = serde_json::from_str(text)?;
            let inner = decoded.rejected.expect("a rejected member");
            prop_assert!(decoded.event.is_none());
            let (path, origin) = request.map_or((None, None), |(path, origin)| (Some(path), origin));
            prop_assert_eq!(decoded.client, DecodedClient { user_agent, ip: None, origin });
            prop_assert_eq!(inner.path, path);
            prop_assert_eq!(inner.reason, reason.as_str());
            prop_assert_eq!(inner.detail, rejection.detail);
            prop_assert_eq!(inner.content_type, content_type);
            prop_assert_eq!(inner.content_encoding, content_encoding);
            prop_assert_eq!(inner.part.zip(inner.parts), part);
            prop_assert_eq!(BASE64.decode_to_vec(inner.body_base64).expect("base64"), body);
            prop_assert_eq!(read_head(text)?, LineHead { kind: Kind::Rejected, received_at: Some(arrival()), reason: Some(reason) });
        }

        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            let _head = read_head(&text);
        }
    }
}
