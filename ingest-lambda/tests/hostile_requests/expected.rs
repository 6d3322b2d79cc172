//! What should become of a body, worked out by other means than the function's own.

use std::io::Read;

use base64_simd::STANDARD as BASE64;
use flate2::{Decompress, FlushDecompress, Status};
use generators::strict_reader::{Members, depth};
use ingest_lambda::cmcd::report_to_json;
use ingest_lambda::front_door::Request;
use serde_json::value::RawValue;
use shared::limits::{MAX_CMCD_REPORT_BYTES, MAX_EVENT_DEPTH};

/// The bytes that a client sent, as far as the front door shows.
pub(crate) fn sent_bytes(request: &Request) -> Vec<u8> {
    let decoded = request.body_is_base64.then(|| BASE64.decode_to_vec(&request.body).ok());
    decoded.flatten().unwrap_or_else(|| request.body.clone().into_bytes())
}

/// Decompresses all of a body or nothing. `None` for what does not decompress to its last byte.
pub(crate) fn decoded(body: &[u8], encoding: Option<&str>) -> Option<Vec<u8>> {
    match encoding.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Some(body.to_vec()),
        // API Gateway decompresses and leaves the header.
        "gzip" | "x-gzip" if !body.starts_with(b"\x1f\x8b") => Some(body.to_vec()),
        "gzip" | "x-gzip" => {
            let (mut rest, mut all) = (body, Vec::new());
            while !rest.is_empty() {
                let mut member = flate2::bufread::GzDecoder::new(rest);
                member.read_to_end(&mut all).ok()?;
                rest = member.into_inner();
            }
            Some(all)
        }
        "deflate" => inflated(body, true).or_else(|| inflated(body, false)).or_else(|| Some(body.to_vec())),
        // Of any other name, as of a charset, a plain body is taken.
        _ => std::str::from_utf8(body).ok().filter(|text| text.contains(['{', '['])).map(|_| body.to_vec()),
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
/// else lines, of which each may be a list. `None` where a list is not JSON: then it has to be cut.
pub(crate) fn pieces<'a>(body: &'a [u8], content_type: Option<&str>) -> Option<Vec<&'a [u8]>> {
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    if content_type.contains("cmcd") {
        return Some(lines(body).collect());
    }
    let by_line = ["ndjson", "jsonl"].iter().any(|form| content_type.contains(form));
    if !by_line {
        return pieces_of_value(bare(body));
    }
    let mut pieces = Vec::new();
    for line in lines(body) {
        match pieces_of_value(line) {
            Some(more) => pieces.extend(more),
            None if line.starts_with(b"[") || line.starts_with(b"{") => return None,
            None => pieces.push(line),
        }
    }
    Some(pieces)
}

fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').map(bare).filter(|line| !line.is_empty())
}

/// Without white space, control bytes and byte order marks around it.
fn bare(mut text: &[u8]) -> &[u8] {
    let blanks: Vec<String> = ('\0'..=' ').chain(['\x7f', '\u{feff}']).map(String::from).collect();
    let without_one = |text: &'_ [u8]| -> Option<std::ops::Range<usize>> {
        let blank = |blank: &String| match blank.as_bytes() {
            blank if text.starts_with(blank) => Some(blank.len()..text.len()),
            blank if text.ends_with(blank) => Some(0..text.len() - blank.len()),
            _ => None,
        };
        blanks.iter().find_map(blank)
    };
    while let Some(rest) = without_one(text) {
        text = &text[rest];
    }
    text
}

fn pieces_of_value(json: &[u8]) -> Option<Vec<&[u8]>> {
    let json = std::str::from_utf8(json).ok()?;
    serde_json::from_str::<&RawValue>(json).ok()?;
    Some(listed(json).map_or_else(|| vec![json.as_bytes()], |list| list.into_iter().map(str::as_bytes).collect()))
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
    if content_type.is_some_and(|name| name.contains("cmcd")) {
        return report_to_json(text).ok().filter(|_| piece.len() <= MAX_CMCD_REPORT_BYTES);
    }
    let fine = depth(text).is_ok_and(|depth| depth <= MAX_EVENT_DEPTH) && serde_json::from_str::<Members>(text).is_ok();
    fine.then(|| in_unicode(&text.replace(['\n', '\r'], " ")))
}

/// JSON without halves of surrogate pairs: each run of `\uXXXX` is read as the UTF-16 that it is.
fn in_unicode(json: &str) -> String {
    let (mut out, mut run, mut rest) = (String::new(), String::new(), json);
    while !rest.is_empty() {
        let length = match rest.strip_prefix('\\') {
            Some(escape) if escape.starts_with('u') => 6,
            Some(_) => 2,
            None => rest.chars().next().map_or(0, char::len_utf8),
        };
        let (token, behind) = rest.split_at(length);
        if length == 6 {
            run.push_str(token);
        } else {
            out.push_str(&whole_characters(&std::mem::take(&mut run)));
            out.push_str(token);
        }
        rest = behind;
    }
    out + &whole_characters(&run)
}

fn whole_characters(run: &str) -> String {
    let units = run.split("\\u").skip(1).map(|digits| u16::from_str_radix(digits, 16).unwrap());
    let (mut out, mut from) = (String::new(), 0);
    for character in char::decode_utf16(units) {
        let length = 6 * character.as_ref().map_or(1, |character| character.len_utf16());
        out.push_str(if character.is_ok() { &run[from..from + length] } else { "\\ufffd" });
        from += length;
    }
    out
}

/// Text without what may change on its way: line breaks, and which character a `\uXXXX` is.
pub(crate) fn blurred(text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    for at in 0..out.len() {
        if matches!(out[at], b'\n' | b'\r') {
            out[at] = b' ';
        }
        let is_whole =
            |out: &[u8]| out.get(at + 2..at + 6).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if out[at..].starts_with(b"\\u") && is_whole(&out) {
            out[at + 2..at + 6].fill(b'?');
        }
    }
    out
}
