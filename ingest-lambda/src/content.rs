//! From a request's body as it came to the bytes that hold events.

use std::borrow::Cow;

use shared::rejection::{Reason, Rejection};

use crate::front_door::Request;
use crate::inflate::{Container, GZIP_MAGIC, InflateError, inflate};
use crate::lines::trimmed;

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

/// The form that a `Content-Type` names; JSON if there is none, since some players send none. Where a player and a library on
/// its page both set it, it arrives twice, separated by a comma, which is fine if both name the same form.
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
        "application/cmcd" | "text/cmcd" => Ok(BodyForm::Cmcd),
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

/// Decompresses a body, to at most `max_bytes`. A plain body is taken as it is, whatever its `Content-Encoding`: API Gateway's
/// REST API decompresses bodies and leaves the header, and some clients name their charset in it.
///
/// # Errors
///
/// For an encoding that we don't decode, several at once, bytes that don't decompress, and bodies over the limit.
pub fn decompress<'a>(
    body: &'a [u8],
    content_encoding: Option<&str>,
    max_bytes: usize,
) -> Result<Cow<'a, [u8]>, Rejection> {
    let decompressed = match encoding_of(content_encoding.unwrap_or_default()) {
        Ok(None) => Cow::Borrowed(body),
        Ok(Some(Encoding::Gzip)) => ungzipped(body, max_bytes)?,
        Ok(Some(Encoding::Deflate)) => undeflated(body, max_bytes)?,
        // What other encodings produce may begin like JSON, but it is not UTF-8.
        Err(_) if begins_as_json(body) && std::str::from_utf8(body).is_ok() => Cow::Borrowed(body),
        Err(unsupported) => return Err(unsupported),
    };
    if decompressed.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    Ok(decompressed)
}

#[derive(Clone, Copy)]
enum Encoding {
    Gzip,
    Deflate,
}

/// The encoding that a `Content-Encoding` names. It is a list, in the order in which encodings were applied; `identity` and
/// empty members don't count.
fn encoding_of(header: &str) -> Result<Option<Encoding>, Rejection> {
    let names = header.split(',').map(|name| name.trim().to_ascii_lowercase());
    let names: Vec<String> = names.filter(|name| !matches!(name.as_str(), "" | "identity")).collect();
    match &names[..] {
        [] => Ok(None),
        [name] => match name.as_str() {
            "gzip" | "x-gzip" => Ok(Some(Encoding::Gzip)),
            "deflate" => Ok(Some(Encoding::Deflate)),
            other => {
                Err(unsupported(format!("Content-Encoding {other:?} is not decoded here; send gzip, deflate or none")))
            }
        },
        _ => Err(unsupported(format!(
            "Content-Encoding {header:?} names several encodings; compress the body once, with gzip or deflate"
        ))),
    }
}

fn unsupported(detail: String) -> Rejection {
    Rejection::new(Reason::UnsupportedEncoding, detail)
}

fn ungzipped(body: &[u8], max_bytes: usize) -> Result<Cow<'_, [u8]>, Rejection> {
    if body.starts_with(GZIP_MAGIC) {
        return inflated(inflate(body, Container::Gzip, max_bytes), "gzip");
    }
    if is_plain(body) {
        return Ok(Cow::Borrowed(body));
    }
    let detail = "the body does not begin as gzip does, nor is it plain text";
    Err(Rejection::new(Reason::InvalidCompression, detail))
}

/// The standard says zlib, but some clients send bare deflate, and servers have always accepted both. Bare deflate can begin
/// with any byte, so a body is plain only if it can't be inflated; one that reaches a limit is compressed.
fn undeflated(body: &[u8], max_bytes: usize) -> Result<Cow<'_, [u8]>, Rejection> {
    let container = if is_zlib(body) { Container::Zlib } else { Container::Bare };
    match inflate(body, container, max_bytes) {
        Err(InflateError::Damaged | InflateError::CutOff | InflateError::TrailingBytes(_)) if is_plain(body) => {
            Ok(Cow::Borrowed(body))
        }
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
    begins_as_json(body) || std::str::from_utf8(body).is_ok()
}

fn begins_as_json(body: &[u8]) -> bool {
    matches!(trimmed(body), [b'{' | b'[', ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflate::FREE_BLOCKS;
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
    #[case(Some("text/cmcd"), BodyForm::Cmcd)]
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
    fn the_rejection_of_another_content_type_names_what_to_send() {
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
    fn bare_deflate_that_begins_like_json_is_inflated() {
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
    fn damaged_or_truncated_gzip_is_not_called_too_large() {
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

    #[rstest]
    #[case("br")]
    #[case("zstd")]
    #[case("gzip, gzip")]
    #[case("gzip,deflate")]
    #[case("deflate, x-gzip, identity")]
    #[case("gzip;q=1")]
    fn unknown_and_stacked_encodings_are_refused(#[case] encoding: &str) {
        for body in [&b"x"[..], &gzip(b"{}"), &gzip(&gzip(b"{}"))] {
            assert_eq!(decompress(body, Some(encoding), 10).unwrap_err().reason, Reason::UnsupportedEncoding);
        }
    }

    #[rstest]
    #[case("utf-8")]
    #[case("gzip, br")]
    #[case("application/json")]
    fn plain_json_is_taken_whatever_its_encoding_is_said_to_be(#[case] encoding: &str) {
        for body in ["{\"a\":\"é\"}", " [{}]", "\u{feff}{}"] {
            assert_eq!(decompress(body.as_bytes(), Some(encoding), 100).unwrap(), body.as_bytes());
        }
        for body in [&b"[\x1f\xff"[..], b"e=t", b""] {
            assert_eq!(decompress(body, Some(encoding), 100).unwrap_err().reason, Reason::UnsupportedEncoding);
        }
    }

    #[rstest]
    #[case("identity, gzip")]
    #[case("gzip, identity")]
    #[case(" gzip ,")]
    #[case(",X-GZIP")]
    fn members_of_the_list_that_encode_nothing_are_ignored(#[case] encoding: &str) {
        assert_eq!(decompress(&gzip(b"{}"), Some(encoding), 10).unwrap(), &b"{}"[..]);
    }

    /// Bits from the least significant on, as deflate packs them.
    fn packed(bits: &str) -> Vec<u8> {
        let bits: Vec<u8> = bits.bytes().filter(u8::is_ascii_digit).map(|bit| bit - b'0').collect();
        bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |value, bit| value << 1 | bit)).collect()
    }

    #[test]
    fn a_body_that_inflates_past_a_limit_is_not_taken_as_plain() {
        // A last block with fixed codes: a literal, and 258 times the byte before, four times.
        let large = packed(&format!("1 10 111100000 {} 0000000", "11000101 00000".repeat(4)));
        assert!(large.starts_with(b"{"), "{large:?}");
        assert_eq!(decompress(&large, Some("deflate"), 1032).unwrap_err().reason, Reason::BodyTooLarge);
        assert_eq!(decompress(&large, Some("deflate"), 1033).unwrap(), &[0xe0; 1033][..]);
        // One with two literals, which begins as JSON does behind a line feed, and empty ones.
        let blocks = |empty: usize| {
            packed(&format!("0 10 10000110 111100000 0000000 {} 1 10 0000000", "0 10 0000000".repeat(empty)))
        };
        assert!(blocks(0).starts_with(b"\n{"));
        assert_eq!(decompress(&blocks(FREE_BLOCKS - 100), Some("deflate"), 100).unwrap().len(), 2);
        assert_eq!(
            decompress(&blocks(2 * FREE_BLOCKS), Some("deflate"), 100).unwrap_err().reason,
            Reason::InvalidCompression
        );
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
