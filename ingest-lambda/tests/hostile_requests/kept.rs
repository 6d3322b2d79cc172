//! What is on the stream, read as a stranger would.

use std::collections::BTreeMap;

use base64_simd::STANDARD as BASE64;
use generators::strict_reader::read_line;
use proptest::prelude::*;
use shared::frame::{FrameReader, is_frame};

use crate::memory_stream::MemoryStream;

/// What the lines on the stream say.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The clients' JSON, in the order of the stream.
    pub(crate) events: Vec<String>,
    /// Reasons and bodies, the parts of each joined.
    pub(crate) rejected: Vec<(String, Vec<u8>)>,
}

/// A rejected body whose parts are being collected, by their number.
#[derive(Debug, Default)]
struct Parts {
    reason: String,
    of: u64,
    bodies: BTreeMap<u64, Vec<u8>>,
}

pub(crate) fn read_stream(stream: &MemoryStream) -> Result<Kept, TestCaseError> {
    let mut kept = Kept::default();
    let mut parts: BTreeMap<String, Parts> = BTreeMap::new();
    let mut reader = FrameReader::default();
    for record in stream.records() {
        let text = match is_frame(&record.data) {
            true => reader.lines(&record.data).map_err(|error| TestCaseError::fail(error.to_string()))?,
            false => &record.data,
        };
        let lines = text.strip_suffix(b"\n").ok_or_else(|| TestCaseError::fail("no line feed at the end"))?;
        for line in lines.split(|byte| *byte == b'\n') {
            let members = read_line(line).map_err(TestCaseError::fail)?;
            // Of what is JSON, this reader refuses halves of surrogate pairs, and numbers that no machine word holds.
            let problem = serde_json::from_slice::<serde_json::Value>(line).err().map(|error| error.to_string());
            prop_assert!(problem.as_ref().is_none_or(|problem| problem.contains("number")), "{:?}", problem);
            prop_assert_eq!(members.get("v"), Some("1"));
            prop_assert_eq!(members.get("request_id"), Some("\"request-1\""));
            let id = members.get("id").ok_or_else(|| TestCaseError::fail("no id"))?;
            prop_assert!(id.len() > 2 && id.starts_with('"'), "{}", id);
            match (members.get("event"), members.get("rejected")) {
                (Some(event), None) => kept.events.push(event.to_owned()),
                (None, Some(rejected)) => collect(&mut parts, id, rejected)?,
                _ => prop_assert!(false, "neither event nor rejected: {:?}", members),
            }
        }
    }
    for Parts { reason, of, bodies } in parts.into_values() {
        // Where the stream refused some, the others prove nothing.
        if bodies.len() as u64 == of {
            kept.rejected.push((reason, bodies.into_values().flatten().collect()));
        }
    }
    Ok(kept)
}

fn collect(parts: &mut BTreeMap<String, Parts>, id: &str, rejected: &str) -> Result<(), TestCaseError> {
    let members = read_line(rejected.as_bytes()).map_err(TestCaseError::fail)?;
    let number = |name| members.get(name).map_or(Ok(1), str::parse::<u64>);
    let body = members.text("body_base64").ok_or_else(|| TestCaseError::fail("no body"))?;
    let body = BASE64.decode_to_vec(body).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let whole = parts.entry(id.to_owned()).or_default();
    whole.reason = members.text("reason").ok_or_else(|| TestCaseError::fail("no reason"))?;
    whole.of = number("parts").map_err(|error| TestCaseError::fail(error.to_string()))?;
    let number = number("part").map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert!((1..=whole.of).contains(&number));
    prop_assert!(whole.bodies.insert(number, body).is_none(), "part {} twice", number);
    Ok(())
}
