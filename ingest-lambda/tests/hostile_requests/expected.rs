//! What should become of a body, worked out by other means than the function's own.

use std::io::Read;

use base64_simd::STANDARD as BASE64;
use flate2::{Decompress, FlushDecompress, Status};
use ingest_lambda::cmcd::report_to_json;
use ingest_lambda::front_door::Request;
use serde_json::value::RawValue;
use shared::limits::{MAX_CMCD_REPORT_BYTES, MAX_EVENT_DEPTH};
use shared::strict_reader::{Members, depth};

/// The bytes that a client sent, as far as the front door tells.
pub(crate) fn sent_bytes(request: &Request) -> Vec<u8> {
    let decoded = request.body_is_base64.then(|| BASE64.decode_to_vec(&request.body).ok());
    decoded.flatten().unwrap_or_else(|| request.body.clone().into_bytes())
}

/// Decompresses all of a body or nothing. `None` for what does not decompress to its last byte.
pub(crate) fn decoded(body: &[u8], encoding: Option<&str>) -> Option<Vec<u8>> {
    match encoding.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Some(body.to_vec()),
        "gzip" | "x-gzip" => {
            let (mut rest, mut all) = (body, Vec::new());
            while !rest.is_empty() {
                let mut member = flate2::bufread::GzDecoder::new(rest);
                member.read_to_end(&mut all).ok()?;
                rest = member.into_inner();
            }
            Some(all)
        }
        "deflate" => inflated(body, true).or_else(|| inflated(body, false)),
        _ => None,
    }
}

/// Step by step, as decoders of streams do: at once, this one would find distances that point before the start of a bare
/// stream, which has no checksum.
fn inflated(body: &[u8], zlib_header: bool) -> Option<Vec<u8>> {
    let mut inflate = Decompress::new(zlib_header);
    let (mut all, mut step, mut status) = (Vec::new(), [0; 1000], Status::Ok);
    while status != Status::StreamEnd {
        let [read, written] = [inflate.total_in(), inflate.total_out()].map(|total| usize::try_from(total).unwrap());
        status = inflate.decompress(&body[read..], &mut step, FlushDecompress::None).ok()?;
        let more = usize::try_from(inflate.total_out()).unwrap() - written;
        all.extend_from_slice(&step[..more]);
        if status == Status::BufError {
            return None;
        }
    }
    (inflate.total_in() == body.len() as u64).then_some(all)
}

/// The pieces of a body of which something was accepted, by the rules of the README: JSON values if it is one list of them,
/// else lines.
pub(crate) fn pieces<'a>(body: &'a [u8], content_type: Option<&str>) -> Vec<&'a [u8]> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let by_line = ["ndjson", "jsonl", "cmcd"].iter().any(|form| content_type.contains(form));
    let json = std::str::from_utf8(body).ok().map(str::trim_ascii).filter(|_| !by_line);
    if let Some(json) = json.filter(|json| serde_json::from_str::<&RawValue>(json).is_ok()) {
        return listed(json)
            .map_or_else(|| vec![json.as_bytes()], |list| list.into_iter().map(str::as_bytes).collect());
    }
    let list = if by_line || std::str::from_utf8(body).is_ok() { None } else { damaged_list(body) };
    let lines = || body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
    list.unwrap_or_else(lines)
}

/// The pieces of a list that is one but for bytes that are not UTF-8. All that holds JSON together is ASCII: the other bytes
/// are covered up, and the pieces taken from where they stand.
fn damaged_list(body: &[u8]) -> Option<Vec<&[u8]>> {
    let covered: Vec<u8> = body.iter().map(|byte| if byte.is_ascii() { *byte } else { b'x' }).collect();
    let covered = std::str::from_utf8(&covered).ok()?;
    let json = covered.trim_ascii();
    serde_json::from_str::<&RawValue>(json).ok()?;
    let place = |piece: &str| piece.as_ptr().addr() - covered.as_ptr().addr();
    Some(listed(json)?.into_iter().map(|piece| &body[place(piece)..place(piece) + piece.len()]).collect())
}

fn listed(json: &str) -> Option<Vec<&str>> {
    let items = |array| {
        serde_json::from_str::<Vec<&RawValue>>(array).map(|items| items.into_iter().map(RawValue::get).collect())
    };
    if json.starts_with('[') {
        return items(json).ok();
    }
    let Members(members) = serde_json::from_str(json).ok()?;
    let mut events = members.into_iter().filter(|(key, _)| *key == "\"events\"");
    let list: Vec<&str> = events.next().and_then(|(_, value)| items(value).ok()).filter(|_| events.next().is_none())?;
    (list.is_empty() || list.iter().any(|item| item.starts_with('{'))).then_some(list)
}

/// What is to land of a piece as an event; `None` for what is none, whatever its size.
pub(crate) fn event_of(piece: &[u8], content_type: Option<&str>) -> Option<String> {
    let text = std::str::from_utf8(piece).ok()?;
    if content_type.is_some_and(|name| name.contains("application/cmcd")) {
        return report_to_json(text).ok().filter(|_| piece.len() <= MAX_CMCD_REPORT_BYTES);
    }
    let fine = depth(text).is_ok_and(|depth| depth <= MAX_EVENT_DEPTH) && serde_json::from_str::<Members>(text).is_ok();
    fine.then(|| text.replace(['\n', '\r'], " "))
}
