//! From a request's body as it came to the bytes that hold events.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use shared::rejection::{Reason, Rejection};

use crate::front_door::Request;

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

/// The form that a `Content-Type` names. None at all is read as JSON: some players send none.
///
/// # Errors
///
/// For a type that we don't read.
pub fn body_form(content_type: Option<&str>) -> Result<BodyForm, Rejection> {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
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

/// Decompresses a body, to at most `max_bytes`.
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
        "gzip" | "x-gzip" => Cow::Owned(read_capped(&mut MultiGzDecoder::new(body), max_bytes, &encoding)?),
        "deflate" => Cow::Owned(inflate(body, max_bytes, &encoding)?),
        other => {
            return Err(Rejection::new(
                Reason::UnsupportedEncoding,
                format!("Content-Encoding {other:?} is not decoded here; send gzip, deflate or none"),
            ));
        }
    };
    if decompressed.len() > max_bytes {
        return Err(Rejection::new(
            Reason::BodyTooLarge,
            format!("the body is larger than {max_bytes} bytes; send fewer events at a time"),
        ));
    }
    Ok(decompressed)
}

/// The standard says zlib; some clients send bare deflate, and servers have always taken both.
fn inflate(body: &[u8], max_bytes: usize, encoding: &str) -> Result<Vec<u8>, Rejection> {
    let (bytes, read) = if is_zlib(body) {
        let mut decoder = ZlibDecoder::new(body);
        (read_capped(&mut decoder, max_bytes, encoding)?, decoder.total_in())
    } else {
        let mut decoder = DeflateDecoder::new(body);
        (read_capped(&mut decoder, max_bytes, encoding)?, decoder.total_in())
    };
    // These decoders stop at the end of a stream and don't mind what follows: it would be neither accepted nor rejected.
    if read < body.len() as u64 && bytes.len() <= max_bytes {
        let detail = format!("the body is not valid {encoding}: it goes on after the end of the compressed data");
        return Err(Rejection::new(Reason::InvalidCompression, detail));
    }
    Ok(bytes)
}

/// RFC 1950: compression method 8 in the low nibble, and the first two bytes are a multiple of 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

/// Reads at most one byte more than `max_bytes`, which is enough to know that it is too much.
fn read_capped(decoder: &mut impl Read, max_bytes: usize, encoding: &str) -> Result<Vec<u8>, Rejection> {
    let mut bytes = Vec::new();
    decoder.take(max_bytes as u64 + 1).read_to_end(&mut bytes).map_err(|error| {
        Rejection::new(Reason::InvalidCompression, format!("the body is not valid {encoding}: {error}"))
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use rstest::rstest;

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
    fn content_types_name_forms(#[case] content_type: Option<&str>, #[case] expected: BodyForm) {
        assert_eq!(body_form(content_type), Ok(expected));
    }

    #[test]
    fn other_content_types_are_told_what_to_send() {
        let rejection = body_form(Some("application/xml")).unwrap_err();
        assert_eq!(rejection.reason, Reason::UnsupportedContentType);
        assert!(rejection.detail.contains("application/json"), "{}", rejection.detail);
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
