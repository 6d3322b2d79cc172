//! A landed line as a row: the envelope's members by name, and the event as it came.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::timestamp::UnixMillis;

/// The version of the envelope that is read.
const VERSION: i32 = 1;

/// What a line becomes. A line of another producer has no envelope: all of it is the event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) v: Option<i32>,
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) received_at: Option<UnixMillis>,
    pub(crate) request_id: Option<Cow<'a, str>>,
    pub(crate) user_agent: Option<Cow<'a, str>>,
    pub(crate) ip: Option<Cow<'a, str>>,
    pub(crate) app: Option<Cow<'a, str>>,
    /// JSON, as it came.
    pub(crate) event: &'a str,
}

/// A line that is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotJson;

impl<'a> Row<'a> {
    /// Reads a line, without its line feed.
    pub(crate) fn read(line: &'a [u8]) -> Result<Self, NotJson> {
        let line = std::str::from_utf8(line).map_err(|_| NotJson)?;
        match serde_json::from_str(line).ok().and_then(Self::of_envelope) {
            Some(row) => Ok(row),
            None => Ok(Self {
                event: serde_json::from_str::<&RawValue>(line).map_err(|_| NotJson)?.get(),
                ..Self::default()
            }),
        }
    }

    /// `None` for JSON that only resembles an envelope.
    fn of_envelope(envelope: Envelope<'a>) -> Option<Self> {
        let received_at = UnixMillis::parse(envelope.received_at)?;
        let text = |text: Option<Text<'a>>| text.map(|text| text.0);
        (envelope.v == VERSION).then(|| Self {
            v: Some(envelope.v),
            id: Some(envelope.id.0),
            received_at: Some(received_at),
            request_id: text(envelope.request_id),
            user_agent: text(envelope.client.user_agent),
            ip: text(envelope.client.ip),
            // Another producer's may be anything, and is no reason to leave the envelope's other members.
            app: envelope.app.and_then(|app| text(serde_json::from_str(app.get()).ok())),
            event: envelope.event.get(),
        })
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    v: i32,
    #[serde(borrow)]
    id: Text<'a>,
    received_at: &'a str,
    request_id: Option<Text<'a>>,
    app: Option<&'a RawValue>,
    #[serde(default)]
    client: Client<'a>,
    event: &'a RawValue,
}

#[derive(Default, Deserialize)]
struct Client<'a> {
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
    ip: Option<Text<'a>>,
}

/// A string that is copied only where it has escapes. An `Option<Cow<str>>` would always be copied.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const LINE: &str = r#"{"v":1,"id":"i-1","received_at":"2026-11-21T09:32:08.006Z","request_id":"r-1","client":{"user_agent":"a \"b\"","ip":"192.0.2.0"},"event":{"type": "play", "n":1.50}}"#;

    #[test]
    fn an_envelope_becomes_columns_and_its_event_stays_as_it_came() {
        let row = Row::read(LINE.as_bytes()).unwrap();
        assert_eq!((row.v, row.id.as_deref(), row.request_id.as_deref()), (Some(1), Some("i-1"), Some("r-1")));
        assert_eq!(row.received_at.unwrap().rfc3339(), "2026-11-21T09:32:08.006Z");
        assert_eq!((row.user_agent.as_deref(), row.ip.as_deref()), (Some("a \"b\""), Some("192.0.2.0")));
        assert_eq!(row.event, r#"{"type": "play", "n":1.50}"#);
        assert!(matches!(row.id, Some(Cow::Borrowed(_))) && matches!(row.user_agent, Some(Cow::Owned(_))));
    }

    #[test]
    fn an_app_is_a_column() {
        let with_app = LINE.replace("\"client\"", "\"app\":\"web\",\"client\"");
        let (row, plain) = (Row::read(with_app.as_bytes()).unwrap(), Row::read(LINE.as_bytes()).unwrap());
        assert_eq!((row.app.as_deref(), plain.app.as_deref()), (Some("web"), None));
        assert_eq!(Row { app: None, ..row }, plain);
        let with_another = LINE.replace("\"client\"", "\"app\":{\"name\":7},\"client\"");
        assert_eq!(Row::read(with_another.as_bytes()).unwrap(), plain);
    }

    #[rstest]
    #[case::foreign(r#"{"type":"play"}"#)]
    #[case::another_version(&LINE.replace("\"v\":1", "\"v\":2"))]
    #[case::no_time(&LINE.replace("2026-11-21T", "yesterday "))]
    #[case::an_id_that_is_no_text(&LINE.replace("\"i-1\"", "7"))]
    #[case::repeated_members(&LINE.replace("\"v\":1", "\"v\":1,\"v\":1"))]
    #[case::no_event(&LINE.replace("\"event\"", "\"rejected\""))]
    fn what_is_no_envelope_is_an_event_as_a_whole(#[case] line: &str) {
        assert_eq!(Row::read(line.as_bytes()), Ok(Row { event: line, ..Row::default() }));
    }

    #[rstest]
    #[case(b"")]
    #[case(b"{\"a\":1")]
    #[case(b"{\"a\":1} x")]
    #[case(b"{\"a\":\"\xff\"}")]
    fn what_is_not_json_is_no_row(#[case] line: &[u8]) {
        assert_eq!(Row::read(line), Err(NotJson));
    }
}
