//! From a request's body as it came to the bytes that hold events.

use std::borrow::Cow;

use shared::rejection::{Reason, Rejection};

use crate::front_door::Request;
use crate::inflate::{Container, GZIP_MAGIC, InflateError, inflate};

/// How the text of a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// One JSON value; or JSON values a line, since senders of `text/plain` can't say which.
    Json,
    /// JSON values a line.
    JsonLines,
    /// CMCD reports a line.
    Cmcd,
}

/// The form that a `Content-Type` names. None at all is read as JSON: some players send none. Where a player and a library
/// of its page both set it, it comes twice, with a comma between: that is one if both name the same form.
///
/// # Errors
///
/// For a type that we don't read, and for several that differ.
pub fn body_form(content_type: Option<&str>) -> Result<BodyForm, Rejection> {
    let header = content_type.unwrap_or_default();
    let mut in_quotes = false;
    let types = header.split(|character| {
        in_quotes ^= character == '"';
        character == ',' && !in_quotes
    });
    let mut forms = types.filter(|media_type| !media_type.trim().is_empty()).map(form_of_type);
    let Some(first) = forms.next() else { return Ok(BodyForm::Json) };
    let first = first?;
    for other in forms {
        if other? != first {
            let detail = format!("Content-Type {header:?} names several types; send the one that the body has");
            return Err(Rejection::new(Reason::UnsupportedContentType, detail));
        }
    }
    Ok(first)
}

fn form_of_type(media_type: &str) -> Result<BodyForm, Rejection> {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" | "application/json" | "text/json" | "text/plain" => Ok(BodyForm::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(BodyForm::JsonLines),
        "application/cmcd" => Ok(BodyForm::Cmcd),
        other => Err(Rejection::new(
            Reason::UnsupportedContentType,
            format!(
                "Content-Type {other:?} is not read here; send application/json, application/x-ndjson, text/plain \
                 or application/cmcd"
            ),
        )),
    }
}

/// The body's bytes as the client sent them: what is kept when they can't be accepted.
///
/// # Errors
///
/// When the front door says base64 and it is not; the text itself is then all there is.
pub fn body_as_sent(request: &Request) -> Result<Cow<'_, [u8]>, Rejection> {
    if !request.body_is_base64 {
        return Ok(Cow::Borrowed(request.body.as_bytes()));
    }
    base64_simd::STANDARD
        .decode_to_vec(request.body.as_bytes())
        .map(Cow::Owned)
        .map_err(|_| Rejection::new(Reason::InvalidBase64, "the body is marked as base64 and is not"))
}

/// Decompresses a body, to at most `max_bytes`. A body that is not compressed is taken as it is, whatever its
/// `Content-Encoding`: API Gateway's REST API decompresses bodies and leaves the header.
///
/// # Errors
///
/// For an encoding that we don't decode, bytes that don't decompress, and bodies over the limit.
pub fn decompress<'a>(
    body: &'a [u8],
    content_encoding: Option<&str>,
    max_bytes: usize,
) -> Result<Cow<'a, [u8]>, Rejection> {
    let encoding = content_encoding.unwrap_or_default().trim().to_ascii_lowercase();
    let decompressed = match encoding.as_str() {
        "" | "identity" => Cow::Borrowed(body),
        "gzip" | "x-gzip" if !body.starts_with(GZIP_MAGIC) && is_plain(body) => Cow::Borrowed(body),
        "gzip" | "x-gzip" if !body.starts_with(GZIP_MAGIC) => {
            let detail = format!("the body does not begin as {encoding} does, nor is it plain text");
            return Err(Rejection::new(Reason::InvalidCompression, detail));
        }
        "gzip" | "x-gzip" => inflated(inflate(body, Container::Gzip, max_bytes), &encoding)?,
        "deflate" => undeflated(body, max_bytes)?,
        other => {
            return Err(Rejection::new(
                Reason::UnsupportedEncoding,
                format!("Content-Encoding {other:?} is not decoded here; send gzip, deflate or none"),
            ));
        }
    };
    if decompressed.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    Ok(decompressed)
}

/// The standard says zlib; some clients send bare deflate, and servers have always taken both. Bare deflate begins as it
/// likes, so that a body is plain only if it can't be inflated.
fn undeflated(body: &[u8], max_bytes: usize) -> Result<Cow<'_, [u8]>, Rejection> {
    let container = if is_zlib(body) { Container::Zlib } else { Container::Bare };
    match inflate(body, container, max_bytes) {
        Err(_) if is_plain(body) => Ok(Cow::Borrowed(body)),
        result => inflated(result, "deflate"),
    }
}

fn inflated<'a>(result: Result<Vec<u8>, InflateError>, encoding: &str) -> Result<Cow<'a, [u8]>, Rejection> {
    result.map(Cow::Owned).map_err(|error| match error {
        InflateError::TooLarge(max_bytes) => too_large(max_bytes),
        error => Rejection::new(Reason::InvalidCompression, format!("the body is not valid {encoding}: {error}")),
    })
}

fn too_large(max_bytes: usize) -> Rejection {
    let detail = format!("the body is larger than {max_bytes} bytes; send fewer events at a time");
    Rejection::new(Reason::BodyTooLarge, detail)
}

/// RFC 1950: compression method 8 in the low nibble, and the first two bytes are a multiple of 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

/// Whether a body looks like what it is to hold once decompressed: the start of a JSON value, or text.
fn is_plain(body: &[u8]) -> bool {
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii_start();
    text.starts_with(b"{") || text.starts_with(b"[") || std::str::from_utf8(text).is_ok()
}

/// The mark that some editors and libraries put before text in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use rstest::rstest;
    use std::io::Read;

    fn all(mut encoder: impl Read) -> Vec<u8> {
        let mut bytes = Vec::new();
        encoder.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        all(GzEncoder::new(bytes, Compression::default()))
    }

    #[rstest]
    #[case(None, BodyForm::Json)]
    #[case(Some("application/json; charset=utf-8"), BodyForm::Json)]
    #[case(Some("Text/Plain;charset=UTF-8"), BodyForm::Json)]
    #[case(Some("application/x-ndjson"), BodyForm::JsonLines)]
    #[case(Some("application/cmcd"), BodyForm::Cmcd)]
    #[case(Some(""), BodyForm::Json)]
    #[case(Some(","), BodyForm::Json)]
    #[case(Some("application/json, application/json"), BodyForm::Json)]
    #[case(Some("application/json; charset=utf-8,application/json"), BodyForm::Json)]
    #[case(Some("application/json,"), BodyForm::Json)]
    #[case(Some("text/plain;charset=UTF-8, application/json"), BodyForm::Json)]
    #[case(Some("Application/CMCD, application/cmcd;v=2"), BodyForm::Cmcd)]
    #[case(Some("application/x-ndjson; profile=\"a,b;c\""), BodyForm::JsonLines)]
    fn content_types_name_forms(#[case] content_type: Option<&str>, #[case] expected: BodyForm) {
        assert_eq!(body_form(content_type), Ok(expected));
    }

    #[test]
    fn other_content_types_are_told_what_to_send() {
        let rejection = body_form(Some("application/xml")).unwrap_err();
        assert_eq!(rejection.reason, Reason::UnsupportedContentType);
        assert!(rejection.detail.contains("application/json"), "{}", rejection.detail);
    }

    #[rstest]
    #[case("application/json, application/x-ndjson")]
    #[case("application/cmcd, text/plain")]
    #[case("application/json, image/png")]
    #[case("application/json application/json")]
    fn several_types_that_differ_are_none(#[case] content_type: &str) {
        assert_eq!(body_form(Some(content_type)).unwrap_err().reason, Reason::UnsupportedContentType);
    }

    #[rstest]
    #[case::object(b"{\"type\":\"play\"}")]
    #[case::array(b" \r\n[{},{}]")]
    #[case::byte_order_mark(b"\xef\xbb\xbf{}")]
    #[case::bytes_that_are_no_text(b"[{},{\"a\":\"\xff\"}]")]
    #[case::report(b"e=t,sid=\"a\"")]
    #[case::report_that_begins_as_zlib(b"hb=1")]
    #[case::nothing(b"")]
    fn a_plain_body_is_taken_whatever_its_encoding_is_said_to_be(#[case] body: &[u8]) {
        for encoding in ["gzip", "x-gzip", "GZIP", "deflate", " deflate "] {
            assert_eq!(decompress(body, Some(encoding), 100).unwrap(), body, "{encoding}");
            if !body.is_empty() {
                let too_large = decompress(body, Some(encoding), body.len() - 1).unwrap_err();
                assert_eq!(too_large.reason, Reason::BodyTooLarge);
            }
        }
    }

    #[rstest]
    #[case("gzip", b"\x1f\x8c\x08\0\0\0\0\0\0\xff")]
    #[case("gzip", b"\x78\x9c\x03\0\0\0\0\x01")]
    #[case("deflate", b"\x1f\x8b\x08\0\0\0\0\0\0\xff")]
    #[case("deflate", b"\xff\xfe{\0}\0")]
    fn what_is_neither_compressed_nor_plain_is_refused(#[case] encoding: &str, #[case] body: &[u8]) {
        assert_eq!(decompress(body, Some(encoding), 100).unwrap_err().reason, Reason::InvalidCompression);
    }

    #[test]
    fn plain_bodies_that_happen_to_begin_as_bare_deflate_are_told_apart_from_it() {
        // A last block with fixed codes whose first literal is 0xe6.
        let body = "日本".as_bytes();
        let data = all(DeflateEncoder::new(body, Compression::default()));
        assert!(data.starts_with(b"{"), "{data:?}");
        assert_eq!(decompress(&data, Some("deflate"), 100).unwrap(), body);
    }

    #[test]
    fn the_limit_holds_to_the_byte_for_every_encoding() {
        let body = vec![b'x'; 1000];
        let encoded = [
            (None, body.clone()),
            (Some("gzip"), gzip(&body)),
            (Some("deflate"), all(ZlibEncoder::new(&body[..], Compression::default()))),
            (Some("deflate"), all(DeflateEncoder::new(&body[..], Compression::default()))),
        ];
        for (encoding, bytes) in encoded {
            assert_eq!(decompress(&bytes, encoding, 1000).unwrap(), body, "{encoding:?}");
            assert_eq!(decompress(&bytes, encoding, 999).unwrap_err().reason, Reason::BodyTooLarge, "{encoding:?}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 20_000);
        assert_eq!(decompress(&bomb, Some("gzip"), 4_000_000).unwrap_err().reason, Reason::BodyTooLarge);
    }

    #[test]
    fn damaged_and_truncated_gzip_is_told_apart_from_a_large_one() {
        let mut bytes = gzip(b"{\"type\":\"play\"}");
        assert_eq!(
            decompress(&bytes[..bytes.len() - 1], Some("gzip"), 100).unwrap_err().reason,
            Reason::InvalidCompression
        );
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        assert_eq!(decompress(&bytes, Some("gzip"), 100).unwrap_err().reason, Reason::InvalidCompression);
    }

    #[test]
    fn nothing_after_the_end_of_a_stream_is_passed_over() {
        let body = b"{\"type\":\"play\"}";
        for stream in [
            all(ZlibEncoder::new(&body[..], Compression::default())),
            all(DeflateEncoder::new(&body[..], Compression::default())),
        ] {
            assert_eq!(decompress(&stream, Some("deflate"), body.len()).unwrap(), &body[..]);
            for more in [[stream.clone(), stream.clone()].concat(), [&stream[..], b"\n"].concat()] {
                let rejection = decompress(&more, Some("deflate"), body.len()).unwrap_err();
                assert_eq!(rejection.reason, Reason::InvalidCompression);
            }
        }
        let two_members = [gzip(body), gzip(body)].concat();
        assert_eq!(decompress(&two_members, Some("gzip"), 100).unwrap(), body.repeat(2));
        let garbage = [&gzip(body)[..], b"garbage"].concat();
        assert_eq!(decompress(&garbage, Some("gzip"), 100).unwrap_err().reason, Reason::InvalidCompression);
    }

    #[test]
    fn unknown_and_stacked_encodings_are_refused() {
        for encoding in ["br", "zstd", "gzip, gzip"] {
            assert_eq!(decompress(b"x", Some(encoding), 10).unwrap_err().reason, Reason::UnsupportedEncoding);
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_in_a_result_within_the_limit(
            bytes: Vec<u8>, encoding in prop::sample::select(vec!["gzip", "deflate", "identity"]), limit in 0usize..300,
        ) {
            if let Ok(decompressed) = decompress(&bytes, Some(encoding), limit) {
                prop_assert!(decompressed.len() <= limit);
            }
        }

        #[test]
        fn what_was_compressed_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(decompress(&gzip(&bytes), Some("gzip"), bytes.len()).unwrap().into_owned(), bytes);
        }
    }
}
