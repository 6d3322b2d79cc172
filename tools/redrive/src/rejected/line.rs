//! A rejected line, as ingest and the landing function write it.

use anyhow::ensure;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use shared::line::Client;
use shared::rejection::Reason;
use shared::timestamp::UnixMillis;

/// A rejected line whose members are what they must be.
#[derive(Debug, Deserialize)]
pub(crate) struct RejectedLine {
    pub(crate) id: String,
    #[serde(deserialize_with = "time")]
    pub(crate) received_at: UnixMillis,
    pub(crate) request_id: String,
    #[serde(default, with = "ClientMembers")]
    client: Client,
    app: Option<String>,
    pub(crate) rejected: Rejected,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Rejected {
    #[serde(deserialize_with = "reason")]
    pub(crate) reason: Reason,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    /// From 1 to `parts`.
    #[serde(default = "one")]
    pub(crate) part: usize,
    #[serde(default = "one")]
    pub(crate) parts: usize,
    /// The whole body, or the part of it.
    #[serde(rename = "body_base64", deserialize_with = "base64")]
    pub(crate) body: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(remote = "Client")]
struct ClientMembers {
    user_agent: Option<String>,
    ip: Option<String>,
    /// Rejected lines have it whatever is configured, so it does not tell whether events are to have it.
    #[serde(skip)]
    origin: Option<String>,
    page: Option<String>,
    country: Option<String>,
    /// It stands beside `client`.
    #[serde(skip)]
    app: Option<String>,
}

fn one() -> usize {
    1
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixMillis, D::Error> {
    let text = String::deserialize(deserializer)?;
    UnixMillis::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a time")))
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
    let text = String::deserialize(deserializer)?;
    Reason::parse(&text).ok_or_else(|| D::Error::custom("this version does not know its reason"))
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let body = base64_simd::STANDARD.decode_to_vec(String::deserialize(deserializer)?);
    body.map_err(|problem| D::Error::custom(format!("its body is not base64: {problem}")))
}

impl RejectedLine {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// When ingest and landing would not write it: other producers can put lines on the stream that only look like theirs.
    pub(crate) fn parse(line: &[u8]) -> anyhow::Result<Self> {
        let line: Self = serde_json::from_slice(line)?;
        let Rejected { part, parts, .. } = line.rejected;
        ensure!((1..=parts).contains(&part), "it is part {part} of {parts}");
        Ok(line)
    }

    /// Who sent it, as the events that are found in it say.
    pub(crate) fn client(&self) -> Client {
        Client { app: self.app.clone(), ..self.client.clone() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use shared::object::{BlockSize, LineWriter};

    /// A line as ingest writes it.
    pub(crate) fn line(id: &str, content_encoding: &str, body: &[u8]) -> String {
        let body = base64_simd::STANDARD.encode_to_string(body);
        format!(
            "{{\"v\":1,\"id\":\"{id}\",\"received_at\":\"2026-11-21T09:32:08.006Z\",\"request_id\":\"r\",\"client\":{{}},\
             \"rejected\":{{\"reason\":\"invalid_json\",\"detail\":\"d\",\"content_type\":\"application/x-ndjson\",\
             \"content_encoding\":\"{content_encoding}\",\"body_base64\":\"{body}\"}}}}\n"
        )
    }

    /// A line with one part of a body.
    pub(crate) fn line_of_part(id: &str, part: usize, parts: usize, body: &[u8]) -> String {
        let members = format!("\"detail\":\"d\",\"part\":{part},\"parts\":{parts}");
        line(id, "", body).replace("\"detail\":\"d\"", &members)
    }

    /// The lines of an object, compressed.
    pub(crate) fn compressed(text: &[u8]) -> Vec<u8> {
        let mut writer = LineWriter::new(BlockSize::fitting(text.len()));
        writer.write(text).unwrap();
        writer.finish().unwrap().body
    }

    const OURS: &str = r#"{"v":1,"id":"i","received_at":"2026-11-21T09:32:08.006Z","request_id":"r","client":{},"rejected":{"reason":"invalid_json","detail":"d","part":2,"parts":3,"body_base64":"e30="}}"#;

    #[test]
    fn ours_is_read() {
        let line = RejectedLine::parse(OURS.as_bytes()).unwrap();
        let Rejected { reason, part, parts, body, .. } = line.rejected;
        assert_eq!((reason, part, parts, &body[..]), (Reason::InvalidJson, 2, 3, &b"{}"[..]));
    }

    #[test]
    fn events_say_who_sent_them_as_the_line_does_but_for_the_origin_that_each_rejected_line_has() {
        let client =
            r#""app":"web","client":{"ip":"192.0.2.0","page":"/watch","country":"DE","origin":"https://a.example"}"#;
        let line = RejectedLine::parse(OURS.replace(r#""client":{}"#, client).as_bytes()).unwrap();
        let text = |text: &str| Some(text.to_owned());
        let expected = Client {
            ip: text("192.0.2.0"),
            page: text("/watch"),
            country: text("DE"),
            app: text("web"),
            ..Client::default()
        };
        assert_eq!(line.client(), expected);
    }

    #[rstest]
    #[case::no_json("", "x")]
    #[case::no_id("\"id\":\"i\",", "")]
    #[case::no_time("09:32:08.006", "9 o'clock")]
    #[case::a_reason_that_is_none("invalid_json", "no_such_reason")]
    #[case::part_zero("\"part\":2", "\"part\":0")]
    #[case::past_the_last_part("\"part\":2", "\"part\":4")]
    #[case::no_base64("e30=", "{}")]
    #[case::no_text("e30=", "\u{0}")]
    fn other_lines_are_errors(#[case] old: &str, #[case] new: &str) {
        let line = if old.is_empty() { new.to_owned() } else { OURS.replace(old, new) };
        assert_ne!(line, OURS);
        assert!(RejectedLine::parse(line.as_bytes()).is_err(), "{line}");
    }
}
