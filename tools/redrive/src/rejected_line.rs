//! A rejected line, as ingest and the landing function write it.

use anyhow::{Context, ensure};
use serde::Deserialize;
use shared::rejection::Reason;
use shared::timestamp::UnixMillis;

/// A rejected line whose members are what they must be.
#[derive(Debug)]
pub(crate) struct RejectedLine {
    pub(crate) id: String,
    pub(crate) received_at: UnixMillis,
    pub(crate) request_id: String,
    pub(crate) user_agent: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) reason: Reason,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    /// From 1 to `parts`.
    pub(crate) part: usize,
    pub(crate) parts: usize,
    /// The whole body, or the part of it.
    pub(crate) body: Vec<u8>,
}

#[derive(Deserialize)]
struct Members {
    id: String,
    received_at: String,
    request_id: String,
    #[serde(default)]
    client: ClientMembers,
    rejected: RejectedMembers,
}

#[derive(Deserialize, Default)]
struct ClientMembers {
    user_agent: Option<String>,
    ip: Option<String>,
}

#[derive(Deserialize)]
struct RejectedMembers {
    reason: String,
    content_type: Option<String>,
    content_encoding: Option<String>,
    #[serde(default = "one")]
    part: usize,
    #[serde(default = "one")]
    parts: usize,
    body_base64: String,
}

fn one() -> usize {
    1
}

impl RejectedLine {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// When it is none of ours: whoever writes to the stream can write lines that look like them at first sight.
    pub(crate) fn parse(line: &[u8]) -> anyhow::Result<Self> {
        let Members { id, received_at, request_id, client, rejected } = serde_json::from_slice(line)?;
        let RejectedMembers { reason, content_type, content_encoding, part, parts, body_base64 } = rejected;
        let received_at =
            UnixMillis::parse(&received_at).with_context(|| format!("{received_at:?} is no time of receipt"))?;
        let reason = Reason::parse(&reason).context("its reason is none of this version")?;
        ensure!((1..=parts).contains(&part), "it is part {part} of {parts}");
        let body = base64_simd::STANDARD.decode_to_vec(body_base64);
        let body = body.map_err(|problem| anyhow::anyhow!("its body is no base64: {problem}"))?;
        let ClientMembers { user_agent, ip } = client;
        Ok(Self {
            id,
            received_at,
            request_id,
            user_agent,
            ip,
            reason,
            content_type,
            content_encoding,
            part,
            parts,
            body,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kinesis_to_s3_lambda::encode::LineWriter;
    use rstest::rstest;
    use shared::object::BlockSize;

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
        writer.finish().unwrap().body.to_vec()
    }

    const OURS: &str = r#"{"v":1,"id":"i","received_at":"2026-11-21T09:32:08.006Z","request_id":"r","client":{},"rejected":{"reason":"invalid_json","detail":"d","part":2,"parts":3,"body_base64":"e30="}}"#;

    #[test]
    fn ours_is_read() {
        let line = RejectedLine::parse(OURS.as_bytes()).unwrap();
        assert_eq!((line.reason, line.part, line.parts, &line.body[..]), (Reason::InvalidJson, 2, 3, &b"{}"[..]));
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
