//! What is sent: recorded and generated bodies, damaged, compressed, damaged again, in the front doors' JSON.

use std::io::Write;

use base64_simd::STANDARD as BASE64;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use generators::damage::{damaged, hostile_text};
use generators::json::{json_object, json_value};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::cmcd::{cmcd_report, hostile_cmcd};
use crate::memory_stream::MAX_BODY_BYTES;

/// Bodies that players have sent, from the recorded sessions.
fn recorded_body() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let sessions = [
        include_str!("../../../tests/fixtures/mux-embed-session.jsonl"),
        include_str!("../../../tests/fixtures/dashjs-cmcd-v2-session.jsonl"),
        include_str!("../../../tests/fixtures/made-up-session.jsonl"),
    ];
    let requests = sessions.iter().flat_map(|session| session.lines());
    let requests: Vec<Value> = requests.map(|request| serde_json::from_str(request).unwrap()).collect();
    select(requests).prop_map(|request| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let is_cmcd = text(&request["headers"]["content-type"]) == "application/cmcd";
        (if is_cmcd { CMCD } else { "text/plain" }, text(&request["body"]).into_bytes())
    })
}

const CMCD: &str = "application/cmcd";
const LINES: &str = "application/x-ndjson";

/// Valid bodies with the content type that names their form.
fn valid_body() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let objects = || vec(prop_oneof![8 => json_object(), 1 => json_value()], 1..12);
    let lines = |objects: Vec<String>, end: &str| -> String {
        objects.iter().map(|object| object.replace(['\n', '\r'], " ") + end).collect()
    };
    prop_oneof![
        3 => recorded_body(),
        2 => objects().prop_map(|objects| ("application/json", format!("[{}]", objects.join(",")).into_bytes())),
        1 => objects().prop_map(|objects| ("text/plain", format!("{{\"a\":[],\"events\":[{}]}}", objects.join(",")).into_bytes())),
        1 => json_object().prop_map(|object| ("", object.into_bytes())),
        2 => objects().prop_map(move |objects| (LINES, lines(objects, "\r\n").into_bytes())),
        1 => objects().prop_map(move |objects| ("application/json; charset=utf-8", lines(objects, "\n").into_bytes())),
        3 => vec(cmcd_report(), 1..12).prop_map(|reports| {
            (CMCD, reports.into_iter().map(|(text, _)| text + "\n").collect::<String>().into_bytes())
        }),
    ]
}

fn body() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let damaged_body = |content_type: &'static str, body: Vec<u8>| {
        let tokens = if content_type == CMCD { hostile_cmcd().boxed() } else { hostile_text().boxed() };
        damaged(Just(body), tokens).prop_map(move |body| (content_type, body))
    };
    let other_type = select(vec!["application/json", LINES, CMCD, "application/xml", "\u{fc}/;;", "TEXT/JSON"]);
    valid_body().prop_flat_map(move |(content_type, body)| damaged_body(content_type, body)).prop_flat_map(
        move |(content_type, body)| {
            let content_type = prop_oneof![9 => Just(content_type), 1 => other_type.clone()];
            (content_type, Just(body))
        },
    )
}

#[derive(Debug, Clone)]
enum Coding {
    None,
    /// As so many members.
    Gzip(usize),
    Zlib,
    Deflate,
    Unknown,
}

impl Coding {
    fn name(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip(_) => Some("gzip"),
            Self::Zlib | Self::Deflate => Some("deflate"),
            Self::Unknown => Some("gzip, br"),
        }
    }

    fn encode(&self, body: &[u8]) -> Vec<u8> {
        match self {
            Self::None | Self::Unknown => body.to_vec(),
            Self::Gzip(members) => body.chunks(body.len() / members + 1).flat_map(gzip).collect(),
            Self::Zlib => written(ZlibEncoder::new(Vec::new(), Compression::default()), body, ZlibEncoder::finish),
            Self::Deflate => {
                written(DeflateEncoder::new(Vec::new(), Compression::default()), body, DeflateEncoder::finish)
            }
        }
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    written(GzEncoder::new(Vec::new(), Compression::default()), body, GzEncoder::finish)
}

fn written<W: Write>(mut encoder: W, body: &[u8], finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    encoder.write_all(body).unwrap();
    finish(encoder).unwrap()
}

/// Pieces of compressed streams: headers with every flag and without end, empty members and blocks, wrong checksums.
fn hostile_stream() -> impl Strategy<Value = Vec<u8>> {
    let headers = select(vec![
        &b"\x1f\x8b\x08\x00\0\0\0\0\0\xff"[..],
        b"\x1f\x8b\x08\x1f\0\0\0\0\0\xff\xff\xff",
        b"\x1f\x8b\x08\x08\0\0\0\0\0\xff",
        b"\x1f\x8b\x07\x00",
        b"\x78\x9c",
        b"\x78\xbb",
        b"\x01\0\0\xff\xff",
        b"\x03\0",
        b"\0\0\0\xff\xff",
        b"\0\0\0\0",
        b"\n",
    ]);
    prop_oneof![
        6 => headers.prop_map(<[u8]>::to_vec),
        1 => Just(gzip(b"")),
        1 => Just(gzip(b"{\"id\":\"from a member of its own\"}\n")),
        1 => Just(gzip(&vec![b' '; 2 * MAX_BODY_BYTES])),
        2 => vec(any::<u8>(), 1..20),
    ]
}

/// A body on its way, compressed and damaged again.
fn compressed(body: Vec<u8>) -> impl Strategy<Value = (Coding, Vec<u8>)> {
    let coding = prop_oneof![
        3 => Just(Coding::None),
        3 => (1usize..4).prop_map(Coding::Gzip),
        1 => Just(Coding::Zlib),
        1 => Just(Coding::Deflate),
        1 => Just(Coding::Unknown),
    ];
    (coding, any::<bool>()).prop_flat_map(move |(coding, damage)| {
        let encoded = coding.encode(&body);
        let damage = damage && !matches!(coding, Coding::None);
        let bytes = if damage { damaged(Just(encoded), hostile_stream()).boxed() } else { Just(encoded).boxed() };
        (Just(coding), bytes)
    })
}

pub(crate) fn function_url_request() -> impl Strategy<Value = String> {
    let user_agent = prop_oneof![Just(String::from("ExamplePlayer/1.0")), any::<String>(), Just("\"\u{1}".repeat(300))];
    let sent = body().prop_flat_map(|(content_type, body)| (Just(content_type), compressed(body)));
    (sent, user_agent, any::<bool>()).prop_map(|((content_type, (coding, body)), user_agent, as_base64)| {
        let text = String::from_utf8(body).map_err(|no_text| no_text.into_bytes());
        let (body, is_base64) = match text {
            Ok(text) if !as_base64 => (text, false),
            Ok(text) => (BASE64.encode_to_string(text), true),
            Err(bytes) => (BASE64.encode_to_string(bytes), true),
        };
        let mut headers = json!({"user-agent": user_agent, "content-encoding": coding.name()});
        if !content_type.is_empty() {
            headers["content-type"] = content_type.into();
        }
        let context = json!({"http": {"method": "POST", "sourceIp": "203.0.113.77"}});
        json!({"rawPath": "/events", "requestContext": context, "headers": headers, "body": body, "isBase64Encoded": is_base64})
            .to_string()
    })
}

pub(crate) fn front_door_payload() -> impl Strategy<Value = Vec<u8>> {
    let payloads = [
        include_str!("../../fixtures/function-url.json"),
        include_str!("../../fixtures/http-api.json"),
        include_str!("../../fixtures/rest-api.json"),
        include_str!("../../fixtures/alb.json"),
        include_str!("../../fixtures/alb-multi-value.json"),
    ];
    let tokens = prop_oneof![
        hostile_text(),
        select(vec![
            "\"body\":\"\\ud800\",",
            "\"body\":null,",
            "\"body\":[],",
            "\"isBase64Encoded\":true,",
            "\"isBase64Encoded\":1,",
            "\"headers\":{},",
            "\"headers\":null,",
            "\"content-type\":[],",
            "\"content-type\":[null,\"text/plain\"],",
            "\"content-encoding\":\"gzip\",",
            "\"x-forwarded-for\":\",,\",",
            "\"path\":\"/\\u0000\",",
            "\"stage\":\"events\",",
            "\"rawPath\":\"/events/\",",
            "\"httpMethod\":\"OPTIONS\",",
            "\"requestContext\":{},",
        ])
        .prop_map(|token| token.as_bytes().to_vec()),
    ];
    damaged(select(payloads.to_vec()).prop_map(|payload| payload.as_bytes().to_vec()), tokens)
}
