//! What becomes of a line: a document for the search cluster.

use sha2::{Digest, Sha256};
use shared::json::{for_each_member, write_string};
use shared::line::EventFormat;
use shared::timestamp::UnixMillis;

use crate::promoted::PromotedFields;

/// Why a line has no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    #[error("not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the documents of one object have in common.
pub(super) struct Documents<'c> {
    /// Up to the document's id: the action `create` and the index.
    action: String,
    format: EventFormat,
    promoted: &'c PromotedFields,
}

impl<'c> Documents<'c> {
    /// For the lines of an object of this format. `index` needs no escapes in JSON.
    pub(super) fn new(index: &str, format: EventFormat, promoted: &'c PromotedFields) -> Self {
        Self { action: format!(r#"{{"create":{{"_index":"{index}","_id":""#), format, promoted }
    }

    /// Appends two lines of a `_bulk` request: the action, and the document. Says when the event was received, if the line does.
    ///
    /// The id is the line's SHA-256: a line that is sent again is the same document. What is not in an envelope of ours is all
    /// event.
    /// <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>
    pub(super) fn write(&self, out: &mut Vec<u8>, line: &[u8]) -> Result<Option<UnixMillis>, LineError> {
        let text = std::str::from_utf8(line)?;
        let members = Members::read(text)?;
        let received_at = members.received_at().filter(|_| self.format == EventFormat::Envelope);
        out.extend_from_slice(self.action.as_bytes());
        out.extend_from_slice(hex::encode(Sha256::digest(line)).as_bytes());
        out.extend_from_slice(b"\"}}\n");
        let event = if received_at.is_some() { members.write_envelope(out) } else { write_bare(out, text) };
        self.write_promoted(out, event);
        out.extend_from_slice(b"}\n");
        Ok(received_at)
    }

    fn write_promoted(&self, out: &mut Vec<u8>, event: &str) {
        let mut values = Vec::new();
        self.promoted.extract(event, &mut values);
        for (name, value) in self.promoted.names().zip(values) {
            if let Some(value) = value {
                write_name(out, name);
                write_string(out, &value);
            }
        }
    }
}

/// The envelope's members, as they stand in the line.
#[derive(Default)]
struct Members<'a> {
    v: Option<&'a str>,
    id: Option<&'a str>,
    received_at: Option<&'a str>,
    request_id: Option<&'a str>,
    app: Option<&'a str>,
    client: Option<&'a str>,
    event: Option<&'a str>,
}

impl<'a> Members<'a> {
    fn read(line: &'a str) -> Result<Self, serde_json::Error> {
        let mut members = Self::default();
        for_each_member(line, |key, value| {
            let member = match key {
                "\"v\"" => &mut members.v,
                "\"id\"" => &mut members.id,
                "\"received_at\"" => &mut members.received_at,
                "\"request_id\"" => &mut members.request_id,
                "\"app\"" => &mut members.app,
                "\"client\"" => &mut members.client,
                "\"event\"" => &mut members.event,
                _ => return,
            };
            *member = Some(value);
        })?;
        Ok(members)
    }

    /// `None` for what is no event in an envelope.
    fn received_at(&self) -> Option<UnixMillis> {
        let is_envelope = self.v == Some("1") && self.event.is_some_and(|event| event.starts_with('{'));
        let received_at = self.received_at?.strip_prefix('"')?.strip_suffix('"')?;
        UnixMillis::parse(received_at).filter(|_| is_envelope)
    }

    /// Leaves the object open. Returns the event.
    fn write_envelope(&self, out: &mut Vec<u8>) -> &'a str {
        out.extend_from_slice(b"{\"v\":1");
        for (name, value) in [
            ("id", self.id),
            ("received_at", self.received_at),
            ("request_id", self.request_id),
            // Another producer's may be anything, which the cluster would refuse in a field of text.
            ("app", self.app.filter(|app| app.starts_with('"'))),
            ("client", self.client),
            ("event", self.event),
        ] {
            if let Some(value) = value {
                write_name(out, name);
                out.extend_from_slice(value.as_bytes());
            }
        }
        self.event.unwrap_or_default()
    }
}

/// Leaves the object open. Returns the event, which is the line.
fn write_bare<'a>(out: &mut Vec<u8>, line: &'a str) -> &'a str {
    out.extend_from_slice(b"{\"event\":");
    out.extend_from_slice(line.as_bytes());
    line
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    for piece in [",\"", name, "\":"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use generators::json::json_object;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};
    use shared::line::{Client, Envelope, IdLiteral};

    const FIELDS: &str = "type:type|e,session_id:sid";

    fn written(format: EventFormat, line: &str) -> Result<(Value, Value, Option<UnixMillis>), LineError> {
        let promoted = PromotedFields::parse(FIELDS).unwrap();
        let mut out = Vec::new();
        let received_at = Documents::new("playhead-2026.11.21", format, &promoted).write(&mut out, line.as_bytes())?;
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(text.ends_with('\n') && lines.len() == 2, "{text}");
        Ok((lines[0].clone(), lines[1].clone(), received_at))
    }

    #[test]
    fn an_event_becomes_its_envelope_and_its_promoted_fields() {
        let client = Client {
            user_agent: Some("UA".into()),
            ip: Some("192.0.2.0".into()),
            app: Some("web".into()),
            ..Client::default()
        };
        let envelope = Envelope::new(UnixMillis(1_795_253_528_006), "r-1", &client);
        let mut line = Vec::new();
        envelope.write_event(&mut line, IdLiteral::new("\"i-1\""), r#"{"type":"pl\u0061y","sid":7,"x":{"y":[]}}"#);
        let line = String::from_utf8(line).unwrap();
        let (action, document, received_at) = written(EventFormat::Envelope, line.trim_end()).unwrap();
        let id = hex::encode(Sha256::digest(line.trim_end()));
        assert_eq!(action, json!({"create": {"_index": "playhead-2026.11.21", "_id": id}}));
        let expected = json!({
            "v": 1, "id": "i-1", "received_at": "2026-11-21T09:32:08.006Z", "request_id": "r-1",
            "app": "web", "client": {"user_agent": "UA", "ip": "192.0.2.0"},
            "event": {"type": "play", "sid": 7, "x": {"y": []}}, "type": "play", "session_id": "7",
        });
        assert_eq!((document, received_at), (expected, Some(UnixMillis(1_795_253_528_006))));
    }

    #[rstest]
    #[case::no_envelope(r#"{"type":"play"}"#)]
    #[case::another_version(r#"{"v":2,"received_at":"2026-11-21T09:32:08.006Z","event":{}}"#)]
    #[case::no_time(r#"{"v":1,"received_at":"today","event":{}}"#)]
    #[case::no_event(r#"{"v":1,"received_at":"2026-11-21T09:32:08.006Z","event":[]}"#)]
    fn a_line_without_our_envelope_is_all_event(#[case] line: &str) {
        let (_, document, received_at) = written(EventFormat::Envelope, line).unwrap();
        assert_eq!((&document["event"], received_at), (&serde_json::from_str(line).unwrap(), None));
        assert!(document.get("received_at").is_none());
    }

    #[test]
    fn a_raw_line_is_not_believed() {
        let line = r#"{"v":1,"received_at":"2026-11-21T09:32:08.006Z","event":{"e":"play"},"e":"pause"}"#;
        let (_, document, received_at) = written(EventFormat::Raw, line).unwrap();
        assert_eq!((&document["type"], received_at), (&json!("pause"), None));
        assert_eq!(document["event"]["v"], json!(1));
    }

    #[rstest]
    #[case("")]
    #[case("[]")]
    #[case("{} {}")]
    #[case("{\"a\":}")]
    fn what_is_no_json_object_has_no_document(#[case] line: &str) {
        assert!(matches!(written(EventFormat::Envelope, line), Err(LineError::Json(_))));
    }

    #[test]
    fn what_is_not_text_has_no_document() {
        let promoted = PromotedFields::parse(FIELDS).unwrap();
        let documents = Documents::new("i", EventFormat::Envelope, &promoted);
        let mut out = Vec::new();
        assert!(matches!(documents.write(&mut out, b"{\"\xff\":1}"), Err(LineError::Utf8(_))));
        assert_eq!(out, b"");
    }

    proptest! {
        #[test]
        fn the_event_stays_as_it_was_sent(event in json_object()) {
            let event = shared::json::as_line(&event).0.into_owned();
            let line = format!(r#"{{"v":1,"id":"i","received_at":"2026-11-21T09:32:08.006Z","client":{{}},"event":{event}}}"#);
            let promoted = PromotedFields::parse(FIELDS).unwrap();
            let mut out = Vec::new();
            Documents::new("i", EventFormat::Envelope, &promoted).write(&mut out, line.as_bytes()).unwrap();
            let document = String::from_utf8(out).unwrap();
            let mut kept = None;
            for_each_member(document.lines().nth(1).unwrap(), |key, value| if key == "\"event\"" { kept = Some(value) }).unwrap();
            prop_assert_eq!(kept, Some(event.as_str().trim()));
            prop_assert_eq!(document.lines().count(), 2);
        }
    }
}
