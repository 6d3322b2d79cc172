//! The two forms in which SDKs speak to CloudWatch: JSON 1.0 (boto3, the AWS CLI) and Smithy RPC v2 with CBOR (the Rust
//! SDK). Both become JSON here, and answers go back in the form of the question.
//! <https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html>

use std::io::Read;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use base64_simd::STANDARD as BASE64;
use ciborium::Value as Cbor;
use flate2::read::GzDecoder;
use serde_json::{Map, Number, Value, json};

use super::request::CloudWatchError;

/// CloudWatch's name in targets and paths.
const SERVICE: &str = "GraniteServiceVersion20100801";
/// The most that a request may decompress to. CloudWatch's own limit for one as it travels is 1 MB.
const MAX_DECOMPRESSED_BYTES: u64 = 16 * 1024 * 1024;
/// RFC 8949: seconds since 1970.
const EPOCH_TAG: u64 = 1;

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Cbor,
}

/// The operation that a request asks of CloudWatch, and its form; `None` when it is for another service.
pub(super) fn operation<'r>(path: &'r str, headers: &'r HeaderMap) -> Option<(&'r str, Form)> {
    if let Some(operation) = path.strip_prefix("/service/").and_then(|rest| rest.strip_prefix(SERVICE)) {
        return Some((operation.strip_prefix("/operation/")?, Form::Cbor));
    }
    let target = headers.get("x-amz-target")?.to_str().ok()?;
    Some((target.strip_prefix(SERVICE)?.strip_prefix('.')?, Form::Json))
}

/// A request's input, decompressed.
pub(super) fn decode(form: Form, headers: &HeaderMap, body: &Bytes) -> Result<Value, CloudWatchError> {
    let malformed = |problem: &dyn std::fmt::Display| CloudWatchError::Malformed(problem.to_string());
    let compressed = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let mut decompressed = Vec::new();
    let input: &[u8] = if compressed {
        let mut reader = GzDecoder::new(&body[..]).take(MAX_DECOMPRESSED_BYTES + 1);
        reader.read_to_end(&mut decompressed).map_err(|problem| malformed(&problem))?;
        if decompressed.len() as u64 > MAX_DECOMPRESSED_BYTES {
            return Err(malformed(&format_args!("it is larger than {MAX_DECOMPRESSED_BYTES} bytes")));
        }
        &decompressed
    } else {
        body
    };
    match form {
        _ if input.is_empty() => Ok(json!({})),
        Form::Json => serde_json::from_slice(input).map_err(|problem| malformed(&problem)),
        Form::Cbor => {
            let value: Cbor = ciborium::from_reader(input).map_err(|problem| malformed(&problem))?;
            Ok(to_json(value))
        }
    }
}

/// What there is in both; times are numbers.
fn to_json(value: Cbor) -> Value {
    match value {
        Cbor::Integer(integer) => {
            let integer = i128::from(integer);
            i64::try_from(integer).map_or_else(|_| json!(integer.to_string()), |integer| json!(integer))
        }
        Cbor::Float(number) => Number::from_f64(number).map_or_else(|| json!(number.to_string()), Value::Number),
        Cbor::Text(text) => json!(text),
        Cbor::Bool(boolean) => json!(boolean),
        Cbor::Bytes(bytes) => json!(BASE64.encode_to_string(bytes)),
        Cbor::Tag(_, value) => to_json(*value),
        Cbor::Array(items) => items.into_iter().map(to_json).collect(),
        Cbor::Map(members) => {
            let member = |(name, value): (Cbor, Cbor)| Some((name.into_text().ok()?, to_json(value)));
            Value::Object(members.into_iter().filter_map(member).collect::<Map<_, _>>())
        }
        _ => Value::Null,
    }
}

/// The inverse: the members that hold times get their tag.
fn to_cbor(name: &str, value: &Value) -> Cbor {
    match value {
        Value::Number(_) if name.starts_with("Timestamp") => {
            Cbor::Tag(EPOCH_TAG, Box::new(Cbor::Float(value.as_f64().unwrap_or_default())))
        }
        Value::Null => Cbor::Null,
        Value::Bool(boolean) => Cbor::Bool(*boolean),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Cbor::Integer(integer.into()),
            None => Cbor::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cbor::Text(text.clone()),
        Value::Array(items) => Cbor::Array(items.iter().map(|item| to_cbor(name, item)).collect()),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| (Cbor::Text(name.clone()), to_cbor(name, value));
            Cbor::Map(members.iter().map(member).collect())
        }
    }
}

/// The answer to a request of this form.
pub(super) fn answer(form: Form, output: Result<Value, CloudWatchError>) -> Response<Body> {
    let (status, output, query_error) = match output {
        Ok(output) => (StatusCode::OK, output, None),
        Err(problem) => {
            let body = json!({"__type": problem.code(), "message": problem.to_string()});
            // The Rust SDK takes the code from here.
            let query_error = HeaderValue::from_str(&format!("{};Sender", problem.code())).ok();
            (problem.status(), body, query_error)
        }
    };
    let (content_type, bytes) = match form {
        Form::Json => ("application/x-amz-json-1.0", Ok(output.to_string().into_bytes())),
        Form::Cbor => ("application/cbor", encoded(&output)),
    };
    let (status, bytes) = match bytes {
        Ok(bytes) => (status, bytes),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, problem.to_string().into_bytes()),
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if form == Form::Cbor {
        headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    }
    if let Some(query_error) = query_error {
        headers.insert("x-amzn-query-error", query_error);
    }
    response
}

fn encoded(output: &Value) -> Result<Vec<u8>, ciborium::ser::Error<std::io::Error>> {
    let mut bytes = Vec::new();
    ciborium::into_writer(&to_cbor("", output), &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use rstest::rstest;
    use std::io::Write;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::HeaderName::from_static(name), value.parse().unwrap())])
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    #[rstest]
    #[case("/", "GraniteServiceVersion20100801.PutMetricData", Some(("PutMetricData", Form::Json)))]
    #[case("/", "Kinesis_20131202.PutRecords", None)]
    #[case("/service/GraniteServiceVersion20100801/operation/ListMetrics", "", Some(("ListMetrics", Form::Cbor)))]
    #[case("/service/key", "", None)]
    fn requests_for_cloudwatch_are_known(
        #[case] path: &str,
        #[case] target: &str,
        #[case] expected: Option<(&str, Form)>,
    ) {
        assert_eq!(operation(path, &headers("x-amz-target", target)), expected);
    }

    #[test]
    fn cbor_is_read_with_its_times() {
        let request = Cbor::Map(vec![
            (Cbor::Text("Timestamp".into()), Cbor::Tag(1, Box::new(Cbor::Float(1.5)))),
            (Cbor::Text("Values".into()), Cbor::Array(vec![Cbor::Float(2.0), Cbor::Integer(3.into())])),
        ]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&request, &mut bytes).unwrap();
        let read = decode(Form::Cbor, &HeaderMap::new(), &bytes.into()).unwrap();
        assert_eq!(read, json!({"Timestamp": 1.5, "Values": [2.0, 3]}));
    }

    #[test]
    fn answers_in_cbor_tag_their_times_and_keep_fractions_apart_from_whole_numbers() {
        let bytes = encoded(&json!({"Timestamps": [60], "Values": [2.0], "Count": 3})).unwrap();
        let value: Cbor = ciborium::from_reader(&bytes[..]).unwrap();
        let member =
            |name: &str| value.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some(name)).unwrap().1.clone();
        assert_eq!(member("Timestamps"), Cbor::Array(vec![Cbor::Tag(1, Box::new(Cbor::Float(60.0)))]));
        assert_eq!(member("Values"), Cbor::Array(vec![Cbor::Float(2.0)]));
        assert_eq!(member("Count"), Cbor::Integer(3.into()));
    }

    #[test]
    fn compressed_requests_are_read_and_bombs_are_not() {
        let gzipped = headers("content-encoding", "gzip");
        assert_eq!(decode(Form::Json, &gzipped, &gzip(b"{\"a\":1}")).unwrap(), json!({"a": 1}));
        let bomb = gzip(&vec![b' '; usize::try_from(MAX_DECOMPRESSED_BYTES).unwrap() + 1]);
        assert!(decode(Form::Json, &gzipped, &bomb).is_err());
        assert!(decode(Form::Json, &gzipped, &Bytes::from_static(b"{}")).is_err());
    }

    #[test]
    fn what_is_no_cbor_is_an_error() {
        assert!(decode(Form::Cbor, &HeaderMap::new(), &Bytes::from_static(b"\xff\xff")).is_err());
    }
}
