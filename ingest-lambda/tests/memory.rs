//! What the worst known requests cost: memory within a bound that the function has several times over, and work that grows
//! with the input, not with its square. Allocations are counted, because time on a shared machine says little.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use allocation_counter::{AllocationInfo, measure};
use flate2::Compression;
use flate2::write::GzEncoder;
use ingest_lambda::bucket::Buckets;
use ingest_lambda::client_context::ClientContext;
use ingest_lambda::config::{ClientIp, Config, RecordCompression};
use ingest_lambda::front_door::Request;
use ingest_lambda::handler::Handler;
use ingest_lambda::origins::AllowedOrigins;
use ingest_lambda::pack::Record;
use ingest_lambda::put::{EntryOutcome, PutError, RecordStream};
use ingest_lambda::spill::{CreateError, SpillBucket, Spilled};
use ingest_lambda::write_keys::{MAX_APP_CHARS, MAX_KEY_CHARS, WriteKeys};
use lambda_runtime::Context;
use rstest::rstest;
use serde_json::{Value, json};
use shared::limits::{
    DEFAULT_MAX_BODY_BYTES, DEFAULT_MAX_RECORD_BYTES, MAX_CMCD_REPORT_BYTES, MAX_EVENTS_PER_REQUEST,
    MAX_LAMBDA_PAYLOAD_BYTES, MAX_ORIGIN_BYTES, MAX_PAGE_BYTES, MAX_PATH_BYTES, MAX_USER_AGENT_BYTES,
};
use shared::line::EventFormat;

/// Live bytes at any moment, the front door's JSON included: 24 times the largest body. The function has 256 MB; what its
/// process takes before the first request and what the SDK takes to send 5 MiB come on top.
const MOST_BYTES: u64 = 24 * DEFAULT_MAX_BODY_BYTES as u64;

/// Keeps nothing of what it takes.
#[derive(Debug, Clone, Copy)]
enum Kinesis {
    Takes(RecordCompression),
    /// All goes to S3.
    Fails(RecordCompression),
}

impl RecordStream for Kinesis {
    async fn put(&self, records: &[&Record], _: Duration) -> Result<Vec<EntryOutcome>, PutError> {
        match self {
            Self::Takes(_) => Ok(vec![EntryOutcome::Stored; records.len()]),
            Self::Fails(_) => Err(PutError::Transient("500".into())),
        }
    }
}

struct S3;

impl SpillBucket for S3 {
    async fn create(&self, _: &Spilled, _: Duration) -> Result<(), CreateError> {
        Ok(())
    }
}

/// What a request costs, from its front door's JSON to the answer, and the answer's status. The user agent, the origin and the
/// path are as long as they are kept, in characters that JSON escapes.
fn cost(kinesis: Kinesis, content_type: &str, encoding: &str, body: &[u8]) -> (AllocationInfo, u16) {
    let limits = [MAX_USER_AGENT_BYTES, MAX_ORIGIN_BYTES, MAX_PATH_BYTES];
    cost_from(limits.map(|bytes| "\"".repeat(bytes)), kinesis, [content_type, encoding], body)
}

fn cost_from(
    [user_agent, origin, path]: [String; 3],
    kinesis: Kinesis,
    [content_type, encoding]: [&str; 2],
    body: &[u8],
) -> (AllocationInfo, u16) {
    let headers =
        json!({"content-type": content_type, "content-encoding": encoding, "user-agent": user_agent, "origin": origin});
    cost_with(config(kinesis), &headers, &path, kinesis, body)
}

fn cost_with(config: Config, headers: &Value, path: &str, kinesis: Kinesis, body: &[u8]) -> (AllocationInfo, u16) {
    let base64 = || (base64_simd::STANDARD.encode_to_string(body), true);
    let (body, is_base64) = String::from_utf8(body.to_vec()).map_or_else(|_| base64(), |text| (text, false));
    let path = format!("/events/{path}");
    let context = json!({"http": {"method": "POST", "sourceIp": "203.0.113.77"}});
    let payload = json!({"rawPath": path, "requestContext": context, "headers": headers, "body": body, "isBase64Encoded": is_base64});
    let payload = payload.to_string().into_bytes();
    let (handler, mut status) = (Handler::new(config, kinesis, S3), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_mins(10);
    let mut context = Context::default();
    context.request_id = "8b4a4f0e-6c1b-4f7e-9a55-2f1f0c3b7d11".into();
    context.deadline = u64::try_from(end.as_millis()).unwrap();
    let info = measure(|| {
        // The runtime holds the payload while the request is read from it and handled.
        let payload = payload.clone();
        let request: Request = serde_json::from_slice(&payload).unwrap();
        status = runtime.block_on(handler.handle(request, context)).unwrap().status_code;
    });
    (info, status)
}

fn config(kinesis: Kinesis) -> Config {
    let (Kinesis::Takes(record_compression) | Kinesis::Fails(record_compression)) = kinesis;
    Config {
        stream_name: "stream".into(),
        bucket_name: "bucket".into(),
        kinesis_retry: Duration::from_secs(1),
        event_format: EventFormat::Envelope,
        client_ip: ClientIp::Full,
        client_context: ClientContext::default(),
        partition_key_fields: vec!["sid".into()],
        key_buckets: Buckets::default(),
        record_compression,
        allowed_origins: AllowedOrigins::Any,
        write_keys: WriteKeys::default(),
        key_events_per_second: None,
        event_schema: None,
        max_body_bytes: DEFAULT_MAX_BODY_BYTES,
        max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As many copies as the largest body holds.
fn filled_with(piece: &[u8]) -> Vec<u8> {
    piece.repeat(DEFAULT_MAX_BODY_BYTES / piece.len())
}

/// As many gzip members as an invocation's payload holds in base64.
fn members_of(bytes: &[u8]) -> Vec<u8> {
    let member = gzip(bytes);
    member.repeat((MAX_LAMBDA_PAYLOAD_BYTES - 1000) / 4 * 3 / member.len())
}

/// Reports as long as they may be, of one inner list each.
fn lists_of(item: &str, reports: usize) -> Vec<u8> {
    let items = item.repeat((MAX_CMCD_REPORT_BYTES - 4) / item.len());
    format!("a=({items})\n").repeat(reports).into_bytes()
}

fn most_events(event: impl Fn(usize) -> String) -> Vec<u8> {
    format!("[{}]", (0..MAX_EVENTS_PER_REQUEST).map(event).collect::<Vec<_>>().join(",")).into_bytes()
}

const USUAL: Kinesis = Kinesis::Takes(RecordCompression::Off);

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const CMCD: &str = "application/cmcd";

#[rstest]
#[case::bomb(JSON, "gzip", members_of(&vec![b'0'; 64 << 20]), 413)]
#[case::bomb_of_white_space_that_fits(JSON, "gzip", gzip(&filled_with(b" ")), 400)]
#[case::bomb_of_events_that_fits(JSON, "gzip", gzip(&most_events(|number| format!("{{\"sid\":\"{number:>400}\"}}"))), 200)]
#[case::members_of_nothing(JSON, "gzip", members_of(b""), 400)]
#[case::empty_blocks(JSON, "deflate", [b"\0\0\0\xff\xff".repeat(900_000), vec![3, 0]].concat(), 400)]
#[case::long_gzip_names(JSON, "gzip", [b"\x1f\x8b\x08\x08\0\0\0\0\0\0", &b"n".repeat(4_000_000)[..], b"\0\x03\0\0\0\0\0\0\0\0\0"].concat(), 400)]
#[case::tiny_events(JSON, "", most_events(|_| "{}".into()), 200)]
#[case::tiny_events_with_a_key_each(JSON, "", most_events(|number| format!("{{\"sid\":{number}}}")), 200)]
#[case::folded_events(JSON, "", most_events(|number| format!("{{\"sid\":\n\"{number:>400}\"}}")), 200)]
#[case::one_good_among_bad(JSON, "", most_events(|number| (if number == 0 { "{}" } else { "1" }).into()), 200)]
#[case::long_bad_lines(LINES, "", format!("{{}}\n{}", format!("{:400}!\n", 'x').repeat(9_999)).into_bytes(), 200)]
#[case::more_events_than_may_be(JSON, "", [b"[", &filled_with(b"{},")[3..], b"{}]"].concat(), 413)]
#[case::more_lines_than_may_be(LINES, "", filled_with(b"{}\n"), 413)]
#[case::open_arrays(JSON, "", filled_with(b"["), 400)]
#[case::open_objects(JSON, "", filled_with(b"{\"a\":"), 400)]
#[case::open_objects_in_a_list(JSON, "", [b"[{},", &filled_with(b"{\"a\":")[4..]].concat(), 200)]
#[case::brackets_that_close_others(JSON, "", [b"[{},{", &b"[".repeat(1 << 20)[..], &b"}".repeat(1 << 20)[..], &b"]".repeat(1 << 20)[..]].concat(), 200)]
#[case::brackets_that_close_nothing(JSON, "", [b"[{},[", &b"}".repeat(1 << 20)[..], &b"[".repeat(1 << 20)[..], &b"}".repeat(1 << 20)[..]].concat(), 200)]
#[case::commas(JSON, "", [b"[{}", &b",".repeat(4_000_000)[..]].concat(), 200)]
#[case::commas_before_white_space(JSON, "", [b"[{},[", &filled_with(b",                              ")[5..]].concat(), 200)]
#[case::objects_that_are_not_closed(JSON, "", [b"[{}", &filled_with(b",{\"a\":{")[7..]].concat(), 413)]
#[case::a_long_name_before_objects(JSON, "", [b"[{},", &b"a".repeat(1 << 20)[..], b":", &b"{}".repeat(1 << 20)[..]].concat(), 200)]
#[case::slashes_behind_white_space(JSON, "", [b"[{},", &b" ".repeat(2_000_000)[..], b"a", &b"/".repeat(2_000_000)[..]].concat(), 200)]
#[case::frames_of_comments(JSON, "", filled_with(b"{\"events\":[/*]}"), 400)]
#[case::bad_members(JSON, "", most_events(|number| (if number == 0 { "{}" } else { "{\"a\":NaN}" }).into()), 200)]
#[case::keys_named_events(JSON, "", [b"{\"a\":NaN", &filled_with(b",\"events\"    ")[9..]].concat(), 400)]
#[case::lines_that_open_objects(JSON, "", filled_with(b"{\"a\":\n"), 400)]
#[case::lines_that_are_nearly_values(JSON, "", [&b"x\n".repeat(3)[..], &format!("{{\"a\":{}\n", "[1,".repeat(30)).into_bytes().repeat(40_000)[..]].concat(), 400)]
#[case::surrogates(JSON, "", most_events(|_| format!("{{\"sid\":\"{}\"}}", "\\ud83d".repeat(65))), 200)]
#[case::wide_strings(CMCD, "", format!("a=\"{}\"\n", "é".repeat(MAX_CMCD_REPORT_BYTES / 2 - 3)).repeat(63).into_bytes(), 200)]
#[case::deep_arrays(JSON, "", format!("{}{}", "[".repeat(1 << 21), "]".repeat(1 << 21)).into_bytes(), 400)]
#[case::one_long_string(JSON, "", format!("[\"{}\"]", "x".repeat(4_000_000)).into_bytes(), 400)]
#[case::one_object_of_many_members(JSON, "", format!("{{{}\"a\":1}}", "\"a\":1,".repeat(690_000)).into_bytes(), 413)]
#[case::reports_of_lists(CMCD, "", lists_of("1 ", 63), 200)]
#[case::reports_of_parameters(CMCD, "", lists_of("a;a ", 63), 200)]
#[case::reports_of_strings(CMCD, "", lists_of("\"\" ", 63), 200)]
#[case::reports_of_equal_keys(CMCD, "", format!("{}a\n", "a,".repeat(32_000)).repeat(65).into_bytes(), 200)]
#[case::tiny_reports(CMCD, "", b"a\n".repeat(MAX_EVENTS_PER_REQUEST), 200)]
#[case::noise(JSON, "", vec![0xff; 4_500_000], 413)]
fn memory_is_bounded(
    #[case] content_type: &str,
    #[case] encoding: &str,
    #[case] body: Vec<u8>,
    #[case] status: u16,
    #[values(
        Kinesis::Takes(RecordCompression::Off),
        Kinesis::Fails(RecordCompression::Off),
        Kinesis::Fails(RecordCompression::Zstd)
    )]
    kinesis: Kinesis,
) {
    let (info, answered) = cost(kinesis, content_type, encoding, &body);
    println!("{kinesis:?}: {} bytes sent, {} live at most, {} in all", body.len(), info.bytes_max, info.bytes_total);
    assert_eq!(answered, status);
    assert!(info.bytes_max < MOST_BYTES, "{info:?}");
}

/// What each line repeats is longest with keys and all of the client's context.
#[rstest]
#[case::tiny_events(most_events(|_| "{}".into()))]
#[case::tiny_events_with_a_key_each(most_events(|number| format!("{{\"sid\":{number}}}")))]
#[case::one_good_among_bad(most_events(|number| (if number == 0 { "{}" } else { "1" }).into()))]
#[case::folded_events(most_events(|number| format!("{{\"sid\":\n\"{number:>400}\"}}")))]
fn memory_is_bounded_with_all_that_a_line_can_say_of_its_request(
    #[case] body: Vec<u8>,
    #[values(
        Kinesis::Takes(RecordCompression::Off),
        Kinesis::Fails(RecordCompression::Off),
        Kinesis::Fails(RecordCompression::Zstd)
    )]
    kinesis: Kinesis,
) {
    let (app, key) = ("a".repeat(MAX_APP_CHARS), "k".repeat(MAX_KEY_CHARS));
    let config = Config {
        client_context: ClientContext { origin: true, page: true, country: true },
        write_keys: WriteKeys::parse(&format!("{app}={key}")).unwrap(),
        key_events_per_second: NonZeroU32::new(1_000_000),
        ..config(kinesis)
    };
    let headers = json!({
        "content-type": JSON,
        "user-agent": "\"".repeat(MAX_USER_AGENT_BYTES),
        "origin": format!("https://{}", "o".repeat(MAX_ORIGIN_BYTES - "https://".len())),
        "referer": format!("https://a.example/{}", "p".repeat(MAX_PAGE_BYTES - 1)),
        "cloudfront-viewer-country": "DE",
        "x-playhead-key": key,
    });
    let (info, answered) = cost_with(config, &headers, &"\"".repeat(MAX_PATH_BYTES), kinesis, &body);
    println!("{kinesis:?}: {} bytes sent, {} live at most, {} in all", body.len(), info.bytes_max, info.bytes_total);
    assert_eq!(answered, 200);
    assert!(info.bytes_max < MOST_BYTES, "{info:?}");
}

/// Twice the input makes at most three times the allocations and bytes: a buffer that doubles may double once more. Work
/// that grew with the square would make four times as many.
#[rstest]
#[case::events(JSON, &|n| format!("[{}{{}}]", "{\"sid\":1},".repeat(n / 4)).into_bytes())]
#[case::events_with_a_key_each(JSON, &|n| format!("[{}{{}}]", (0..n / 4).map(|key| format!("{{\"sid\":\"{key}\"}},")).collect::<String>()).into_bytes())]
#[case::one_event(JSON, &|n| format!("{{\"sid\":\"1\",\"title\":\"{}\"}}", "x".repeat(n * 50)).into_bytes())]
#[case::bad_lines(LINES, &|n| format!("{{}}\n{}", "x\n".repeat(n / 4)).into_bytes())]
#[case::bad_members(JSON, &|n| format!("[{{}},{}]", "{\"sid\":NaN},".repeat(n / 4)).into_bytes())]
#[case::objects_that_are_not_closed(JSON, &|n| format!("[{{}},{}", "{\"sid\":{},".repeat(n / 4)).into_bytes())]
#[case::members(JSON, &|n| format!("{{{}\"a\":1}}", "\"a\":1,".repeat(n * 10)).into_bytes())]
#[case::open_arrays(JSON, &|n| "[".repeat(n * 50).into_bytes())]
#[case::deep_arrays(JSON, &|n| format!("{}{}", "[".repeat(n * 50), "]".repeat(n * 50)).into_bytes())]
#[case::keys(CMCD, &|n| (0..n).map(|number| format!("a{number},")).chain(["b".into()]).collect::<String>().into_bytes())]
#[case::parameters(CMCD, &|n| format!("a{}", (0..n).map(|number| format!(";a{number}")).collect::<String>()).into_bytes())]
#[case::lists(CMCD, &|n| format!("a=({})", "1;a ".repeat(n)).into_bytes())]
#[case::wide_strings(CMCD, &|n| format!("a=\"{}\"", "é\\\\".repeat(n * 2)).into_bytes())]
#[case::surrogates(JSON, &|n| format!("{{\"a\":\"{}\"}}", "\\ud83d".repeat(n)).into_bytes())]
#[case::escapes(CMCD, &|n| format!("a=\"{}\"", "\\\\".repeat(n * 4)).into_bytes())]
fn work_grows_with_the_input(#[case] content_type: &str, #[case] body: &dyn Fn(usize) -> Vec<u8>) {
    let [(once, _), (twice, _)] = [4_000, 8_000].map(|n| cost(USUAL, content_type, "", &body(n)));
    assert!(twice.count_total <= 3 * once.count_total, "{once:?} {twice:?}");
    assert!(twice.bytes_total <= 3 * once.bytes_total, "{once:?} {twice:?}");
}

/// Of some 300 bytes, as players send them.
fn usual_event(number: usize) -> String {
    json!({
        "id": format!("0193a5c2-7d1e-7b3a-9c4f-{number:012}"),
        "type": "heartbeat",
        "sid": "8f0e2a34-6c1b-4f7e-9a55-2f1f0c3b7d11",
        "position_ms": 1_234_567 + number,
        "player": {"name": "web-player", "version": "5.19.0"},
        "title": "x".repeat(100),
    })
    .to_string()
}

/// The guard of the hot path: allocations are the same on each machine, as times are not. More than these are a mistake, or to
/// be written down here; a twentieth and five are left for what libraries change.
#[rstest]
#[case::one_event(1, 48)]
#[case::twenty_events(20, 102)]
#[case::five_hundred_events(500, 1_078)]
fn usual_requests_allocate_as_often_as_ever(#[case] events: usize, #[case] allocations: u64) {
    let body = format!("[{}]", (0..events).map(usual_event).collect::<Vec<_>>().join(","));
    let sender = ["Mozilla/5.0", "https://player.example", ""].map(str::to_owned);
    let (info, status) = cost_from(sender, USUAL, [JSON, ""], body.as_bytes());
    assert_eq!(status, 200);
    assert!(info.count_total <= allocations + allocations / 20 + 5, "{} instead of {allocations}", info.count_total);
}
