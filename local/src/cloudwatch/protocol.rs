//! The two forms in which SDKs speak to CloudWatch: JSON 1.0 (boto3, the AWS CLI) and Smithy RPC v2 with CBOR (the Rust
//! SDK). Both become JSON here, and answers go back in the form of the question.
//! <https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html>

use std::io::Read;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::request::CloudWatchError;
use crate::cbor::{self, TimeUnit};

/// CloudWatch's name in targets and paths.
const SERVICE: &str = "GraniteServiceVersion20100801";
/// The most that a request may decompress to. CloudWatch's own limit for one as it travels is 1 MB.
const MAX_DECOMPRESSED_BYTES: u64 = 16 * 1024 * 1024;

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
        Form::Cbor => cbor::read(input, TimeUnit::Seconds).map_err(CloudWatchError::Malformed),
    }
}

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
    let (content_type, body) = match form {
        Form::Json => ("application/x-amz-json-1.0", output.to_string().into_bytes()),
        Form::Cbor => ("application/cbor", cbor::write(&output, TimeUnit::Seconds)),
    };
    let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
    let headers = response.headers_mut();
    if form == Form::Cbor {
        headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    }
    if let Some(query_error) = query_error {
        headers.insert("x-amzn-query-error", query_error);
    }
    response
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
    fn compressed_requests_are_read_and_bombs_are_not() {
        let gzipped = headers("content-encoding", "gzip");
        assert_eq!(decode(Form::Json, &gzipped, &gzip(b"{\"a\":1}")).unwrap(), json!({"a": 1}));
        let bomb = gzip(&vec![b' '; usize::try_from(MAX_DECOMPRESSED_BYTES).unwrap() + 1]);
        assert!(decode(Form::Json, &gzipped, &bomb).is_err());
        assert!(decode(Form::Json, &gzipped, &Bytes::from_static(b"{}")).is_err());
    }
}
