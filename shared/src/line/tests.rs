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
    app: Option<String>,
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
    page: Option<String>,
    country: Option<String>,
}

impl DecodedClient {
    /// As it is to be in a line.
    fn of(client: Client) -> Self {
        let Client { user_agent, ip, origin, page, country, app: _ } = client;
        Self { user_agent, ip, origin, page, country }
    }
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
    let client = Client { user_agent: Some("UA \"1\"".into()), ip: Some("192.0.2.0".into()), ..Client::default() };
    let mut line = Vec::new();
    Envelope::new(arrival(), "req-1", &client).write_event(&mut line, IdLiteral::new("\"e1\""), "{\"a\": 1}");
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"v\":1,\"id\":\"e1\",\"received_at\":\"2026-11-21T09:32:08.006Z\",\"request_id\":\"req-1\",\
             \"client\":{\"user_agent\":\"UA \\\"1\\\"\",\"ip\":\"192.0.2.0\"},\"event\":{\"a\": 1}}\n"
    );
}

#[test]
fn an_app_stands_before_the_client_and_its_context_behind_the_address() {
    let text = |text: &str| Some(text.to_owned());
    let (origin, page) = (text("https://a.example"), text("/watch"));
    let client =
        Client { ip: text("192.0.2.0"), origin, page, country: text("DE"), app: text("web"), ..Client::default() };
    let mut line = Vec::new();
    Envelope::new(arrival(), "req-1", &client).write_event(&mut line, IdLiteral::new("\"e1\""), "{}");
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"v\":1,\"id\":\"e1\",\"received_at\":\"2026-11-21T09:32:08.006Z\",\"request_id\":\"req-1\",\"app\":\"web\",\
             \"client\":{\"ip\":\"192.0.2.0\",\"origin\":\"https://a.example\",\"page\":\"/watch\",\"country\":\"DE\"},\"event\":{}}\n"
    );
}

#[test]
fn rejected_parts_fill_their_line_and_never_overflow_it() {
    let rejection = Rejection::new(Reason::BodyTooLarge, "d".repeat(100));
    let envelope = Envelope::new(arrival(), "r", &Client::default());
    let id = IdLiteral::new("\"x\"");
    let body = vec![7u8; 5000];
    let whole =
        Rejected { rejection: &rejection, content_type: Some("a/b"), content_encoding: None, part: None, body: &body };
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
        assert_eq!(read_head(line).unwrap(), LineHead { kind: Kind::Event, received_at: None, reason: None }, "{line}");
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
        path in any::<String>(), of_rejected in any::<Option<String>>(),
        [origin, page, country, app] in any::<[Option<String>; 4]>(),
    ) {
        let event = fold_line_breaks(&event);
        let client = Client { user_agent, ip, origin, page, country, app };
        let envelope = Envelope::new(UnixMillis(millis), &request_id, &client).with_request(&path, of_rejected.as_deref());
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
        prop_assert_eq!(&decoded.app, &client.app);
        prop_assert_eq!(decoded.client, DecodedClient::of(client));
        prop_assert_eq!(decoded.event.map(RawValue::get), Some(event.trim()));
        prop_assert!(decoded.rejected.is_none());
        prop_assert_eq!(read_head(text)?, LineHead { kind: Kind::Event, received_at: Some(UnixMillis(millis)), reason: None });
    }

    #[test]
    fn a_rejected_body_survives_its_line_to_the_byte(
        body in any::<Vec<u8>>(), detail in any::<String>(), reason in prop::sample::select(Reason::ALL.to_vec()),
        content_type in any::<Option<String>>(), content_encoding in any::<Option<String>>(),
        part in any::<Option<(u32, u32)>>(), user_agent in any::<Option<String>>(),
        request in any::<Option<(String, Option<String>)>>(), [page, app] in any::<[Option<String>; 2]>(),
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
        let client = Client { user_agent, page, app, ..Client::default() };
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
        prop_assert_eq!(&decoded.app, &client.app);
        prop_assert_eq!(decoded.client, DecodedClient { origin, ..DecodedClient::of(client) });
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
