//! The Lambda's front end: one invocation, from what the front door hands over to the answer.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_runtime::Context;
use lambda_setup::deadline::Deadline;
use lambda_setup::vital_signs::remaining_time;
use shared::emf;
use shared::frame::FrameWriter;
use shared::metric::Metric;

use crate::answer::Answer;
use crate::config::{Config, RecordCompression};
use crate::content::body_as_sent;
use crate::counts::{Counts, FrontDoor};
use crate::front_door::{Request, Response};
use crate::intake::{Arrival, Intake};
use crate::metrics;
use crate::pack::Record;
use crate::put::{PutReport, RecordStream};
use crate::schema::EventSchema;
use crate::spill::SpillBucket;
use crate::store::{Origin, Store};

/// What it takes to answer after the last attempt to store.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Answers requests, one at a time.
pub struct Handler<S, B> {
    intake: Intake,
    /// Nothing waits while it is borrowed.
    frames: RefCell<FrameWriter>,
    store: Store<S, B>,
    counts: Arc<Counts>,
}

impl<S: RecordStream, B: SpillBucket> Handler<S, B> {
    pub fn new(config: Config, stream: S, bucket: B) -> Self {
        let store = Store::new(stream, bucket, config.event_format, config.kinesis_retry);
        Self { intake: Intake::new(config), frames: RefCell::default(), store, counts: Counts::new(FrontDoor::Lambda) }
    }

    /// Validates events by a schema, if there is one.
    #[must_use]
    pub fn with_schema(self, schema: Option<EventSchema>) -> Self {
        Self { intake: self.intake.with_schema(schema), ..self }
    }

    /// What this environment counts.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// # Errors
    ///
    /// Never: whatever a request holds, there is an answer to it.
    pub async fn handle(&self, request: Request, context: Context) -> Result<Response, std::convert::Infallible> {
        let began = Instant::now();
        let at = request.received_at.unwrap_or_else(lambda_setup::now);
        let (body, damage) = match body_as_sent(&request) {
            Ok(body) => (body, None),
            Err(rejection) => (Cow::Borrowed(request.body.as_bytes()), Some(rejection)),
        };
        let (head, client, request_id) = (request.head(), request.source_ip, context.request_id.as_str());
        let arrival = Arrival { head, body: &body, damage: damage.as_ref(), client, at, request_id };
        let deadline = Deadline::before(context.deadline, ANSWER_TIME);
        let (answer, report) = self.answer(&arrival, deadline).await;
        log_loss(&answer, &report, &arrival, &context);
        let times = [
            (Metric::HandlingTime, began.elapsed().as_micros() as u64),
            remaining_time(context.deadline, lambda_setup::now()),
        ];
        let mut values = metrics::of_request(&report, answer.answered(), request.body_bytes(), &times);
        values.extend(answer.turned_away());
        values.extend(metrics::of_puts(&report));
        let app = self.intake.app(head.headers);
        let due = self.counts.add(at, &context.env_config.function_name, app, &values);
        due.iter().for_each(|line| println!("{line}"));
        if !due.is_empty() {
            self.intake.schema().iter().flat_map(|schema| schema.lines()).for_each(|line| println!("{line}"));
        }
        let reply = answer.into_reply(head, &self.intake.config().allowed_origins);
        Ok(Response::new(reply, request.multi_value_headers_only))
    }

    async fn answer(&self, arrival: &Arrival<'_>, deadline: Deadline) -> (Answer, PutReport) {
        let (mut records, conclusion) = self.intake.read(arrival).into_parts();
        if self.intake.config().record_compression == RecordCompression::Zstd {
            self.compress(&mut records);
        }
        let report = self.store.store(records, Origin { request_id: arrival.request_id, deadline }).await;
        (conclusion.answer(&report), report)
    }

    fn compress(&self, records: &mut [Record]) {
        let mut frames = self.frames.borrow_mut();
        records.iter_mut().for_each(|record| record.compress(&mut frames));
    }
}

/// One line when something was not stored, and one for the version, which a canary watches. No content, no address.
fn log_loss(answer: &Answer, report: &PutReport, arrival: &Arrival<'_>, context: &Context) {
    let not_stored = answer.answered().map_or(0, |answered| answered.not_stored);
    if not_stored == 0 {
        return;
    }
    let (request_id, reason) = (arrival.request_id, report.last_error.as_deref().unwrap_or("unknown"));
    tracing::error!(request_id, not_stored, reason, "events not stored; the answer names them");
    let lambda_runtime::Config { function_name, version, .. } = &*context.env_config;
    let value = (Metric::NotStoredEvents, not_stored as u64);
    if let Some(line) = emf::line_of_version(arrival.at, function_name, version, value) {
        println!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{Buckets, HashKey};
    use crate::client_context::ClientContext;
    use crate::config::small_config;
    use crate::intake::{Headers, OptionalHeader};
    use crate::pack::Record;
    use crate::put::{EntryOutcome, PutError};
    use crate::spill::{CreateError, Spilled};
    use crate::write_keys::WriteKeys;
    use rstest::rstest;
    use serde_json::{Value, json};
    use shared::limits::{MAX_ORIGIN_BYTES, MAX_PATH_BYTES};
    use shared::line::{EventFormat, Kind};
    use shared::rejection::Reason;
    use shared::timestamp::UnixMillis;
    use std::num::NonZeroU32;

    /// Keeps what it takes; refuses records whose key is in `full`.
    #[derive(Default)]
    struct MemoryStream {
        records: RefCell<Vec<Record>>,
        full: Vec<String>,
    }

    impl RecordStream for &MemoryStream {
        async fn put(&self, records: &[&Record], _: Duration) -> Result<Vec<EntryOutcome>, PutError> {
            let outcome = |record: &&Record| {
                if self.full.contains(&record.partition_key()) {
                    return EntryOutcome::Throttled("ProvisionedThroughputExceededException".into());
                }
                self.records.borrow_mut().push((*record).clone());
                EntryOutcome::Stored
            };
            Ok(records.iter().map(outcome).collect())
        }
    }

    /// The partition key of events with this session.
    fn key_of(sid: &str) -> String {
        format!("e-{}", Buckets::default().bucket_of(HashKey::of(sid.as_bytes())).number)
    }

    struct S3IsAway;

    impl SpillBucket for S3IsAway {
        async fn create(&self, _: &Spilled, _: Duration) -> Result<(), CreateError> {
            Err(CreateError::Permanent("NoSuchBucket".into()))
        }
    }

    impl MemoryStream {
        /// Takes no records of this kind.
        fn full(kind: Kind) -> Self {
            let full = (0..4).map(|bucket| format!("{}{bucket}", kind.key_prefix())).collect();
            Self { full, ..Self::default() }
        }

        fn lines(&self) -> Vec<Value> {
            let records = self.records.borrow();
            let lines = records.iter().flat_map(|record| record.data.split_inclusive(|byte| *byte == b'\n'));
            lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
        }
    }

    fn context(milliseconds: u64) -> Context {
        let mut context = Context::default();
        context.request_id = "req-1".into();
        context.deadline = u64::try_from(lambda_setup::now().0).unwrap() + milliseconds;
        context
    }

    async fn handle(stream: &MemoryStream, request: Request) -> (u16, Value) {
        let response = Handler::new(small_config(), stream, S3IsAway).handle(request, context(700)).await.unwrap();
        (response.status_code, serde_json::from_str(&response.body).unwrap_or(Value::Null))
    }

    fn post(body: &str) -> Request {
        Request { method: "POST".into(), path: "/events".into(), body: body.into(), ..Request::default() }
    }

    fn arrival(request: &Request) -> Arrival<'_> {
        let (head, body) = (request.head(), request.body.as_bytes());
        Arrival { head, body, damage: None, client: None, at: UnixMillis(1), request_id: "req-1" }
    }

    #[tokio::test]
    async fn good_events_land_beside_bad_ones() {
        let stream = MemoryStream::default();
        let (status, body) = handle(&stream, post("[{\"id\":\"a\"},1,{\"id\":\"b\"},null,{\"id\":\"c\"}]")).await;
        assert_eq!(status, 200);
        let bad = |index| json!({"index": index, "reason": "not_an_object"});
        assert_eq!(body, json!({"accepted": 3, "rejected": [bad(1), bad(3)]}));
        let ids: Vec<_> =
            stream.lines().iter().filter(|line| !line["event"].is_null()).map(|line| line["id"].clone()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        let kept: Vec<_> = stream
            .lines()
            .iter()
            .filter_map(|line| Some(line["rejected"]["body_base64"].as_str()?.to_owned()))
            .collect();
        assert_eq!(kept, ["MQ==", "bnVsbA=="]);
    }

    const KEY: &str = "web-key-1234567890";

    fn keyed(limit: u32) -> Config {
        let write_keys = WriteKeys::parse(&format!("web={KEY},ios=ios-key-1234567890")).unwrap();
        Config { write_keys, key_events_per_second: NonZeroU32::new(limit), ..small_config() }
    }

    fn with_key(key: &str, request: Request) -> Request {
        let mut headers = request.headers.clone();
        headers.key.add_header(key);
        Request { headers, received_at: Some(UnixMillis(1_795_253_528_006)), ..request }
    }

    #[rstest]
    #[case::event(post("{\"id\":\"a\"}"), 200)]
    #[case::rejected(post("{\"a\":"), 400)]
    #[case::elsewhere(Request { path: "/eventsx".into(), ..post("{}") }, 404)]
    #[tokio::test]
    async fn lines_say_whose_key_a_request_named(#[case] request: Request, #[case] status: u16) {
        let stream = MemoryStream::default();
        let handler = Handler::new(keyed(0), &stream, S3IsAway);
        let response = handler.handle(with_key(KEY, request), context(700)).await.unwrap();
        assert_eq!(response.status_code, status);
        let records = stream.records.borrow();
        let line = String::from_utf8(records[0].data.clone()).unwrap();
        assert!(
            line.contains("\"request_id\":\"req-1\",\"app\":\"web\",\"client\":{") && !line.contains(KEY),
            "{line}"
        );
    }

    #[rstest]
    #[case::no_key(post("{}"))]
    #[case::unknown(with_key("abc-key-1234567890", post("{}")))]
    #[case::several(with_key(&format!("{KEY},ios-key-1234567890"), post("{}")))]
    #[case::what_would_be_rejected(post("{"))]
    #[case::not_base64(Request { body_is_base64: true, ..post("!!") })]
    #[case::elsewhere(Request { path: "/eventsx".into(), ..post("{}") })]
    #[case::put(Request { method: "PUT".into(), ..post("{}") })]
    #[tokio::test]
    async fn without_a_known_key_nothing_is_stored(#[case] request: Request) {
        let stream = MemoryStream::default();
        let handler = Handler::new(keyed(0), &stream, S3IsAway);
        let response = handler.handle(request, context(700)).await.unwrap();
        assert!(response.status_code == 401 && response.body.contains("\"unknown_key\""), "{response:?}");
        assert!(stream.records.borrow().is_empty());
        assert_eq!(handler.counts().totals().get(&Metric::UnauthorizedRequests), Some(&1));
    }

    #[tokio::test]
    async fn health_checks_and_preflights_need_no_key() {
        let stream = MemoryStream::default();
        let handler = Handler::new(keyed(1), &stream, S3IsAway);
        for (method, path, status) in [("GET", "/health", 200), ("OPTIONS", "/events", 204)] {
            let request = Request { method: method.into(), path: path.into(), ..Request::default() };
            assert_eq!(handler.handle(request, context(700)).await.unwrap().status_code, status);
        }
    }

    /// All at one moment of receipt.
    #[tokio::test]
    async fn a_key_that_had_its_events_is_told_when_to_send_again_and_others_are_not_held_up() {
        let stream = MemoryStream::default();
        let handler = Handler::new(keyed(4), &stream, S3IsAway);
        let ios = "ios-key-1234567890";
        let mut statuses = Vec::new();
        for (key, body) in
            [(KEY, "[{},{},{}]"), (KEY, "[1,{},{},2]"), (KEY, "{}"), (ios, "{\"a\":"), (ios, "[{},{},{}]"), (ios, "{}")]
        {
            let response = handler.handle(with_key(key, post(body)), context(700)).await.unwrap();
            let retry_after = response.headers.iter().find(|(name, _)| *name == "retry-after");
            statuses.push((response.status_code, retry_after.map(|(_, seconds)| seconds.to_string())));
        }
        let (stored, limited) = ((200, None), (429, Some("1".to_owned())));
        assert_eq!(statuses, [stored.clone(), stored.clone(), limited.clone(), (400, None), stored, limited]);
        assert_eq!(handler.counts().totals().get(&Metric::LimitedRequests), Some(&2));
    }

    /// Two for each key at one moment.
    #[tokio::test]
    async fn what_is_not_stored_is_not_charged() {
        let stream = MemoryStream::full(Kind::Event);
        let handler = Handler::new(keyed(2), &stream, S3IsAway);
        for _ in 0..3 {
            let response = handler.handle(with_key(KEY, post("[{},{}]")), context(700)).await.unwrap();
            assert_eq!(response.status_code, 503);
        }
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let response = handler.handle(with_key(KEY, post("{\"a\":")), context(700)).await.unwrap();
            statuses.push(response.status_code);
        }
        assert_eq!(statuses, [400, 400, 429]);
    }

    #[rstest]
    #[case::a_viewers_beside_a_header("viewer", "web", 200)]
    #[case::another_apps_beside_a_header("ios-key-1234567890", "web", 200)]
    #[case::a_viewers_alone("viewer", "", 401)]
    #[case::a_key_alone("ios-key-1234567890", "", 200)]
    #[tokio::test]
    async fn basic_credentials_count_where_nothing_else_names_a_key(
        #[case] user: &str,
        #[case] app: &str,
        #[case] status: u16,
    ) {
        let stream = MemoryStream::default();
        let handler = Handler::new(keyed(0), &stream, S3IsAway);
        let mut request = if app.is_empty() { post("{}") } else { with_key(KEY, post("{}")) };
        let credentials = base64_simd::STANDARD.encode_to_string(format!("{user}:password"));
        request.headers.add_optional(OptionalHeader::Authorization, format!("Basic {credentials}").into());
        assert_eq!(handler.handle(request, context(700)).await.unwrap().status_code, status);
        assert!(stream.lines().iter().all(|line| line["app"] == if app.is_empty() { "ios" } else { app }));
    }

    #[tokio::test]
    async fn lines_say_where_a_request_came_from_as_configured() {
        let headers = Headers {
            origin: Some("https://player.example".into()),
            referer: Some("https://user:pw@player.example/watch/7?token=secret#t".into()),
            viewer_country: Some("DE".into()),
            ..Headers::default()
        };
        for (names, expected) in [
            ("", json!({})),
            ("country", json!({"country": "DE"})),
            ("origin,page,country", json!({"origin": "https://player.example", "page": "/watch/7", "country": "DE"})),
        ] {
            let stream = MemoryStream::default();
            let client_context = ClientContext::parse(names.split(',').filter(|name| !name.is_empty())).unwrap();
            let handler = Handler::new(Config { client_context, ..small_config() }, &stream, S3IsAway);
            let request = Request { headers: headers.clone(), ..post("[{},7]") };
            assert_eq!(handler.handle(request, context(700)).await.unwrap().status_code, 200);
            let clients: Vec<_> = stream.lines().iter().map(|line| line["client"].clone()).collect();
            let mut of_rejected = expected.clone();
            of_rejected["origin"] = "https://player.example".into();
            assert_eq!(clients, [expected, of_rejected], "{names}");
        }
    }

    #[rstest]
    #[case::truncated(post("{\"a\":"), 400, "invalid_json")]
    #[case::empty(post(""), 400, "no_events")]
    #[case::too_large(post(&format!("{{\"a\":\"{}\"}}", "x".repeat(1000))), 413, "body_too_large")]
    #[case::put(Request { method: "PUT".into(), ..post("{}") }, 405, "method_not_allowed")]
    #[case::put_to_the_root(Request { method: "PUT".into(), path: "/".into(), ..post("{}") }, 405, "method_not_allowed")]
    #[case::elsewhere(Request { path: "/eventsx".into(), ..post("{}") }, 404, "unknown_path")]
    #[case::not_base64(Request { body_is_base64: true, ..post("!!") }, 400, "invalid_base64")]
    #[tokio::test]
    async fn refused_bodies_are_kept_whole(#[case] request: Request, #[case] status: u16, #[case] code: &str) {
        let stream = MemoryStream::default();
        let body = request.body.clone();
        let (answered, answer) = handle(&stream, request).await;
        assert_eq!((answered, answer["error"]["code"].as_str()), (status, Some(code)));
        let rejected = &stream.lines()[0]["rejected"];
        assert_eq!(rejected["reason"], code);
        let kept = base64_simd::STANDARD.decode_to_vec(rejected["body_base64"].as_str().unwrap()).unwrap();
        assert_eq!(kept, body.as_bytes());
    }

    #[tokio::test]
    async fn without_a_single_event_the_body_is_kept_in_one_piece() {
        let stream = MemoryStream::default();
        let (status, body) = handle(&stream, post("[ [[]], 7]")).await;
        let bad = |index| json!({"index": index, "reason": "not_an_object"});
        assert_eq!((status, &body["rejected"]), (400, &json!([bad(0), bad(1)])));
        let lines = stream.lines();
        let kept = lines[0]["rejected"]["body_base64"].as_str().unwrap();
        assert_eq!((lines.len(), base64_simd::STANDARD.decode_to_vec(kept).unwrap()), (1, b"[ [[]], 7]".to_vec()));

        let stream = MemoryStream::full(Kind::Rejected);
        let (status, body) = handle(&stream, post("[[],7]")).await;
        assert_eq!((status, &body["not_stored"]), (503, &json!([0, 1])));
    }

    #[tokio::test]
    async fn requests_that_bring_nothing_leave_nothing() {
        let stream = MemoryStream::default();
        let get = |path: &str| Request { method: "GET".into(), path: path.into(), ..Request::default() };
        assert_eq!(handle(&stream, get("/health")).await, (200, json!({"status": "ok"})));
        for path in ["/events", "/events/cmcd", "/", ""] {
            let response =
                Handler::new(small_config(), &stream, S3IsAway).handle(get(path), context(700)).await.unwrap();
            assert_eq!(response.status_code, 405, "{path}");
            assert!(response.headers.contains(&("allow", "POST, OPTIONS".into())), "{path}");
        }
        assert_eq!(handle(&stream, get("/elsewhere")).await.0, 404);
        assert_eq!(handle(&stream, Request { method: "OPTIONS".into(), ..get("/events") }).await.0, 204);
        assert!(stream.records.borrow().is_empty());
    }

    #[rstest]
    #[case("/", 200)]
    #[case("", 200)]
    #[case("//", 200)]
    #[case("/events", 200)]
    #[case("/events/", 200)]
    #[case("//events", 200)]
    #[case("/events//cmcd", 200)]
    #[case("//events///a//b/", 200)]
    #[case("/eventsx", 404)]
    #[case("/x/events", 404)]
    #[case("/health/x", 404)]
    #[case("/health", 405)]
    #[case("//health/", 405)]
    #[tokio::test]
    async fn events_go_to_the_root_and_below_events_and_slashes_may_repeat(#[case] path: &str, #[case] status: u16) {
        let stream = MemoryStream::default();
        assert_eq!(handle(&stream, Request { path: path.into(), ..post("{\"n\":1}") }).await.0, status);
        let line = &stream.lines()[0];
        assert_eq!((line["event"].is_object(), line["rejected"].is_object()), (status == 200, status != 200));
    }

    #[rstest]
    #[case::whole_body(post("nonsense"))]
    #[case::one_member(post("[{},7]"))]
    #[case::unknown_path(Request { path: "/elsewhere".into(), ..post("{}") })]
    #[tokio::test]
    async fn rejected_lines_alone_keep_path_and_origin_within_their_limits(#[case] request: Request) {
        let path = format!("{}/{}", request.path, "é".repeat(200));
        let headers = Headers { origin: Some("o".repeat(300)), user_agent: Some("agent".into()), ..Headers::default() };
        let stream = MemoryStream::default();
        handle(&stream, Request { path: path.clone(), headers, ..request }).await;
        let lines = stream.lines();
        let rejected: Vec<_> = lines.iter().filter(|line| line["event"].is_null()).collect();
        assert_eq!(rejected.len(), 1);
        let kept = rejected[0]["rejected"]["path"].as_str().unwrap();
        assert!(path.starts_with(kept) && (MAX_PATH_BYTES - 1..=MAX_PATH_BYTES).contains(&kept.len()), "{kept}");
        assert_eq!(rejected[0]["client"], json!({"user_agent": "agent", "origin": "o".repeat(MAX_ORIGIN_BYTES)}));
        assert!(lines.iter().all(|line| line["event"].is_null() || line["client"] == json!({"user_agent": "agent"})));
    }

    #[tokio::test]
    async fn raw_lines_have_no_envelope_and_rejected_ones_beside_them_keep_path_and_origin() {
        let stream = MemoryStream::default();
        let config = Config { event_format: EventFormat::Raw, ..small_config() };
        let headers = Headers { origin: Some("https://a.example".into()), ..Headers::default() };
        let request = Request { headers, ..post("[{\"t\":\"\\ud83d\"},7]") };
        let answer = Handler::new(config, &stream, S3IsAway).handle(request, context(700)).await.unwrap();
        assert_eq!(answer.status_code, 200);
        let lines = stream.lines();
        assert_eq!(lines[0], json!({"t": "\u{fffd}"}));
        assert_eq!(
            (&lines[1]["client"]["origin"], &lines[1]["rejected"]["path"]),
            (&json!("https://a.example"), &json!("/events"))
        );
    }

    #[tokio::test]
    async fn lone_surrogates_are_counted_in_what_is_on_the_stream() {
        let stream = MemoryStream { full: vec![key_of("full")], ..MemoryStream::default() };
        let handler = Handler::new(small_config(), &stream, S3IsAway);
        let context = context(700);
        let deadline = Deadline::before(context.deadline, ANSWER_TIME);
        let two = r#"{"sid":"x","id":"\ud83d","a\udc00":"\ud83d\ude00"}"#;
        let request = post(&format!(r#"[{two},{{"sid":"full","a":"\ud83d"}},["\ud83d"]]"#));
        let (_, report) = handler.answer(&arrival(&request), deadline).await;
        assert_eq!(report.replaced_surrogates(), 2);
        let line = &stream.lines()[0];
        assert_eq!(
            (&line["id"], &line["event"]),
            (&json!("\u{fffd}"), &json!({"sid": "x", "id": "\u{fffd}", "a\u{fffd}": "😀"}))
        );
    }

    #[tokio::test]
    async fn what_kinesis_does_not_take_is_named_and_the_rest_is_accepted() {
        let stream = MemoryStream { full: vec![key_of("full")], ..MemoryStream::default() };
        let (status, body) = handle(&stream, post("[{\"sid\":\"x\"},{\"sid\":\"full\"},2,{\"sid\":\"full\"}]")).await;
        assert_eq!(status, 503);
        assert_eq!((&body["accepted"], &body["not_stored"]), (&json!(1), &json!([1, 3])));
        assert_eq!(body["rejected"], json!([{"index": 2, "reason": "not_an_object"}]));
    }

    #[tokio::test]
    async fn a_rejection_that_is_not_stored_is_not_answered_as_kept() {
        let stream = MemoryStream::full(Kind::Rejected);
        let (status, body) = handle(&stream, post("nonsense")).await;
        assert_eq!((status, &body["not_stored"]), (503, &json!([0])));
    }

    #[rstest]
    #[case::time_of_the_front_door(Some(UnixMillis(1_795_253_528_006)), Some("2026-11-21T09:32:08.006Z"))]
    #[case::time_of_the_clock(None, None)]
    #[tokio::test]
    async fn a_request_was_received_when_its_front_door_says(
        #[case] received_at: Option<UnixMillis>,
        #[case] expected: Option<&str>,
    ) {
        let (stream, before) = (MemoryStream::default(), lambda_setup::now());
        handle(&stream, Request { received_at, ..post("[{},7]") }).await;
        let lines = stream.lines();
        assert_eq!(lines.len(), 2);
        for line in lines {
            let found = line["received_at"].as_str().unwrap();
            match expected {
                Some(expected) => assert_eq!(found, expected),
                None => assert!((before..=lambda_setup::now()).contains(&UnixMillis::parse(found).unwrap())),
            }
        }
    }

    #[tokio::test]
    async fn reasons_are_counted_line_by_line() {
        let stream = MemoryStream::default();
        let handler = Handler::new(small_config(), &stream, S3IsAway);
        let context = context(700);
        let deadline = Deadline::before(context.deadline, ANSWER_TIME);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        let request = post(&format!("[{{}},7,{deep},8]"));
        let (_, report) = handler.answer(&arrival(&request), deadline).await;
        assert!(report.rejected_lines().iter().eq([(Reason::NotAnObject, 2), (Reason::TooDeep, 1)]));

        // In several parts, for the reason of the first.
        let request = post(&format!("[7,{deep},\"{}\"]", "x".repeat(600)));
        let small = Handler::new(Config { max_record_bytes: 600, ..small_config() }, &stream, S3IsAway);
        let (_, report) = small.answer(&arrival(&request), deadline).await;
        let parts = report.records.len() as u64;
        assert!(parts > 1 && report.rejected_lines().iter().eq([(Reason::NotAnObject, parts)]));
    }
}
