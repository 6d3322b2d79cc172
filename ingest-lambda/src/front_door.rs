//! The forms in which AWS hands an HTTP request to a function and takes the response back.
//!
//! One struct reads them all, because their members don't contradict each other: Lambda Function URL and API Gateway
//! HTTP API (payload 2.0), API Gateway REST API (1.0), Application Load Balancer. The `lambda_http` crate was looked at
//! and not taken: it tries the forms one after another on the same text, builds a URL and maps of all headers and query
//! parameters that nobody here reads, and panics where it can't build a request.
//!
//! - <https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>
//! - <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>
//! - <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html>

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use shared::timestamp::UnixMillis;

use crate::answer::Reply;
use crate::intake::{Head, Headers, OptionalHeader};
use crate::write_keys::NamedKey;

/// An HTTP request, as far as ingest reads it.
#[derive(Debug, Default)]
pub struct Request {
    pub method: String,
    /// Without the stage that API Gateway puts before it.
    pub path: String,
    pub headers: Headers,
    pub source_ip: Option<IpAddr>,
    /// When the front door received it; `None` from a load balancer, which does not say.
    pub received_at: Option<UnixMillis>,
    pub body: String,
    pub body_is_base64: bool,
    /// Whether the response's headers must be lists too (ALB with multi-value headers switched on).
    pub multi_value_headers_only: bool,
}

impl Request {
    #[must_use]
    pub fn head(&self) -> Head<'_> {
        Head { method: &self.method, path: &self.path, headers: &self.headers }
    }

    /// The bytes of the body that the client sent.
    pub(crate) fn body_bytes(&self) -> usize {
        if self.body_is_base64 { self.body.trim_end_matches('=').len() * 3 / 4 } else { self.body.len() }
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;

        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = Headers;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of headers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Headers::default();
                while let Some(Name(name)) = map.next_key()? {
                    if let Some(slot) = headers.wanted(&name) {
                        *slot = map.next_value::<Values>()?.last();
                    } else if let Some(header) = OptionalHeader::named(&name) {
                        map.next_value::<Values>()?.each(|value| headers.add_optional(header, value.into()));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(headers)
            }
        }

        deserializer.deserialize_map(HeadersVisitor)
    }
}

/// Of a header, or of a parameter of a query.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Its value or list of values.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(Option<String>),
    Many(Vec<String>),
}

impl Values {
    fn each(self, take: impl FnMut(String)) {
        match self {
            Self::One(value) => value.into_iter().for_each(take),
            Self::Many(values) => values.into_iter().for_each(take),
        }
    }

    fn last(self) -> Option<String> {
        match self {
            Self::One(value) => value,
            Self::Many(mut values) => values.pop(),
        }
    }
}

/// The key in a query as it stands in the address.
struct RawQuery(NamedKey);

impl<'de> Deserialize<'de> for RawQuery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Name(query) = Name::deserialize(deserializer)?;
        let mut key = NamedKey::default();
        key.add_query(&query);
        Ok(Self(key))
    }
}

/// The key in a map of a query's parameters: as they stand in the address from a load balancer, decoded from a REST API.
struct Parameters(NamedKey);

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ParametersVisitor;

        impl<'de> Visitor<'de> for ParametersVisitor {
            type Value = Parameters;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut key = NamedKey::default();
                while let Some(Name(name)) = map.next_key()? {
                    if name == "key" {
                        map.next_value::<Values>()?.each(|value| key.add_parameter(&name, &value));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Parameters(key))
            }
        }

        deserializer.deserialize_map(ParametersVisitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    raw_path: Option<String>,
    raw_query_string: Option<RawQuery>,
    query_string_parameters: Option<Parameters>,
    multi_value_query_string_parameters: Option<Parameters>,
    path: Option<String>,
    http_method: Option<String>,
    headers: Option<Headers>,
    multi_value_headers: Option<Headers>,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
    request_context: RequestContext,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext {
    stage: Option<String>,
    http: Option<HttpContext>,
    identity: Option<Identity>,
    /// Of payload 2.0.
    time_epoch: Option<Time>,
    /// Of payload 1.0.
    request_time_epoch: Option<Time>,
}

/// Milliseconds since 1970. Anything else is no reason to lose a request.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Millis(i64),
    Other(IgnoredAny),
}

impl Time {
    /// The time, if it lies between the year 1970 and the year 9999. It is not compared with the clock: a stack on one
    /// machine may run on a clock of its own.
    fn plausible(self) -> Option<UnixMillis> {
        match self {
            Self::Millis(millis) => {
                Some(UnixMillis(millis)).filter(|time| (UnixMillis(1)..=UnixMillis::LATEST).contains(time))
            }
            Self::Other(IgnoredAny) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpContext {
    method: Option<String>,
    source_ip: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    source_ip: Option<String>,
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        let payload = Payload::deserialize(deserializer)?;
        let context = payload.request_context;
        let (http_method, http_ip) = context.http.map_or((None, None), |http| (http.method, http.source_ip));
        let method =
            http_method.or(payload.http_method).ok_or_else(|| D::Error::custom("an HTTP request has a method"))?;
        let path = payload.raw_path.or(payload.path).ok_or_else(|| D::Error::custom("an HTTP request has a path"))?;
        let multi_value_headers_only = payload.headers.is_none() && payload.multi_value_headers.is_some();
        let mut headers = payload.headers.or(payload.multi_value_headers).unwrap_or_default();
        match payload.raw_query_string {
            // Its parameters are also there as a map, in which repeated ones are joined with commas.
            Some(RawQuery(key)) => headers.key.merge(&key),
            None => {
                let maps = [payload.query_string_parameters, payload.multi_value_query_string_parameters];
                maps.into_iter().flatten().for_each(|Parameters(key)| headers.key.merge(&key));
            }
        }
        let source_ip = http_ip
            .or(context.identity.and_then(|identity| identity.source_ip))
            .or_else(|| last_hop(headers.forwarded_for.as_deref()));
        Ok(Self {
            path: without_stage(path, context.stage.as_deref()),
            source_ip: source_ip.as_deref().and_then(client_address),
            received_at: context.time_epoch.or(context.request_time_epoch).and_then(Time::plausible),
            method,
            headers,
            body: payload.body.unwrap_or_default(),
            body_is_base64: payload.is_base64_encoded.unwrap_or(false),
            multi_value_headers_only,
        })
    }
}

/// The address that the load balancer itself saw: it appends it to whatever the client claimed.
fn last_hop(forwarded_for: Option<&str>) -> Option<String> {
    forwarded_for?.rsplit(',').next().map(|address| address.trim().to_owned())
}

/// An address as front doors write it: with or without a port, IPv6 with or without brackets. An IPv4 address in IPv6 form is
/// an IPv4 address: cut to the 48 bits of an IPv6 network, nothing of it would be left.
pub(crate) fn client_address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

fn without_stage(path: String, stage: Option<&str>) -> String {
    let rest = stage.and_then(|stage| path.trim_start_matches('/').strip_prefix(stage));
    match rest {
        Some("") => String::from("/"),
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        _ => path,
    }
}

/// An HTTP response in the form that all front doors take.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    pub status_code: u16,
    #[serde(serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    #[serde(serialize_with = "as_map_of_lists", skip_serializing_if = "Vec::is_empty")]
    pub multi_value_headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: String,
    pub is_base64_encoded: bool,
}

impl Response {
    /// A response with its headers in the form that the front door of the request wants.
    #[must_use]
    pub fn new(reply: Reply, as_lists: bool) -> Self {
        let Reply { status: status_code, headers, body } = reply;
        let (headers, multi_value_headers) = if as_lists { (Vec::new(), headers) } else { (headers, Vec::new()) };
        Self { status_code, headers, multi_value_headers, body, is_base64_encoded: false }
    }
}

fn as_map<S: Serializer>(headers: &[(&'static str, Cow<'static, str>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.iter().map(|(name, value)| (name, value)))
}

fn as_map_of_lists<S: Serializer>(
    headers: &[(&'static str, Cow<'static, str>)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(headers.len()))?;
    for (name, value) in headers {
        map.serialize_entry(name, &[value])?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    const FUNCTION_URL: &str = include_str!("../fixtures/function-url.json");
    const HTTP_API: &str = include_str!("../fixtures/http-api.json");
    const REST_API: &str = include_str!("../fixtures/rest-api.json");
    const ALB: &str = include_str!("../fixtures/alb.json");
    const ALB_MULTI_VALUE: &str = include_str!("../fixtures/alb-multi-value.json");

    #[rstest]
    #[case::function_url(FUNCTION_URL, "198.51.100.7")]
    #[case::http_api(HTTP_API, "198.51.100.7")]
    #[case::rest_api(REST_API, "198.51.100.7")]
    #[case::alb(ALB, "198.51.100.7")]
    #[case::alb_multi_value(ALB_MULTI_VALUE, "198.51.100.7")]
    fn every_front_door_gives_the_same_request(#[case] payload: &str, #[case] source_ip: &str) {
        let request: Request = serde_json::from_str(payload).unwrap();
        assert_eq!(request.method, "POST");
        assert_eq!(request.path, "/events");
        assert_eq!(request.headers.content_type.as_deref(), Some("application/json"));
        assert_eq!(request.headers.origin.as_deref(), Some("https://player.example"));
        assert_eq!(request.headers.user_agent.as_deref(), Some("ExamplePlayer/1.0"));
        assert_eq!(request.source_ip, Some(source_ip.parse().unwrap()));
        let body = if request.body_is_base64 {
            String::from_utf8(base64_simd::STANDARD.decode_to_vec(&request.body).unwrap()).unwrap()
        } else {
            request.body
        };
        assert_eq!(body, "{\"type\":\"play\"}");
    }

    const KEY: &str = "web-key-1234567890";

    #[rstest]
    #[case::function_url(json!({"rawPath": "/", "rawQueryString": format!("a=b&key={KEY}"), "queryStringParameters": {"a": "b", "key": KEY}}))]
    #[case::function_url_of_a_repeated_one(json!({"rawPath": "/", "rawQueryString": format!("key={KEY}&key={KEY}"), "queryStringParameters": {"key": format!("{KEY},{KEY}")}}))]
    #[case::encoded(json!({"rawPath": "/", "rawQueryString": "key=web%2Dkey-1234567890"}))]
    #[case::rest_api(json!({"path": "/", "queryStringParameters": {"key": KEY}, "multiValueQueryStringParameters": {"key": [KEY, KEY]}}))]
    #[case::alb(json!({"path": "/", "queryStringParameters": {"a": "b", "key": "web%2Dkey-1234567890"}}))]
    #[case::alb_multi_value(json!({"path": "/", "multiValueQueryStringParameters": {"key": ["web%2Dkey-1234567890"]}}))]
    #[case::header(json!({"path": "/", "headers": {"X-Playhead-Key": KEY}}))]
    #[case::repeated_header(json!({"path": "/", "headers": {"x-playhead-key": format!("{KEY},{KEY}")}}))]
    #[case::lists_of_headers(json!({"path": "/", "multiValueHeaders": {"x-playhead-key": [KEY, KEY]}}))]
    #[case::basic(json!({"path": "/", "headers": {"authorization": "Basic d2ViLWtleS0xMjM0NTY3ODkwOg=="}}))]
    #[case::in_every_way(json!({"path": "/", "queryStringParameters": {"key": KEY}, "headers": {"x-playhead-key": KEY, "authorization": "Basic d2ViLWtleS0xMjM0NTY3ODkwOg=="}}))]
    fn every_front_door_gives_the_same_key(#[case] members: serde_json::Value) {
        assert_eq!(key_of(&members), NamedKey::One(KEY.into()));
    }

    #[rstest]
    #[case::none(json!({"path": "/", "queryStringParameters": null, "multiValueQueryStringParameters": null}), NamedKey::None)]
    #[case::nulls(json!({"path": "/", "queryStringParameters": {"key": null}, "rawQueryString": null}), NamedKey::None)]
    #[case::rest_api_of_two(json!({"path": "/", "queryStringParameters": {"key": KEY}, "multiValueQueryStringParameters": {"key": ["web-key-0987654321", KEY]}}), NamedKey::Unusable)]
    #[case::header_and_query(json!({"path": "/", "rawQueryString": "key=web-key-0987654321", "headers": {"x-playhead-key": KEY}}), NamedKey::Unusable)]
    #[case::two_headers(json!({"path": "/", "multiValueHeaders": {"x-playhead-key": ["web-key-0987654321", KEY]}}), NamedKey::Unusable)]
    fn several_keys_are_none(#[case] members: serde_json::Value, #[case] expected: NamedKey) {
        assert_eq!(key_of(&members), expected);
    }

    fn key_of(members: &serde_json::Value) -> NamedKey {
        let mut payload = json!({"httpMethod": "POST", "requestContext": {}});
        payload.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        serde_json::from_value::<Request>(payload).unwrap().headers.key
    }

    #[rstest]
    #[case::function_url(FUNCTION_URL, Some(1_795_253_528_006))]
    #[case::http_api(HTTP_API, Some(1_795_253_528_006))]
    #[case::rest_api(REST_API, Some(1_795_253_528_006))]
    #[case::alb(ALB, None)]
    #[case::alb_multi_value(ALB_MULTI_VALUE, None)]
    fn api_gateways_and_function_urls_say_when_they_received_it(#[case] payload: &str, #[case] millis: Option<i64>) {
        let request: Request = serde_json::from_str(payload).unwrap();
        assert_eq!(request.received_at, millis.map(UnixMillis));
    }

    #[rstest]
    #[case("0", None)]
    #[case("1", Some(1))]
    #[case("253402300799999", Some(253_402_300_799_999))]
    #[case("253402300800000", None)]
    #[case("-1", None)]
    #[case("18446744073709551615", None)]
    #[case("1.5", None)]
    #[case("1e12", None)]
    #[case("\"1795253528006\"", None)]
    #[case("null", None)]
    #[case("{\"a\":[1]}", None)]
    fn a_time_that_is_none_is_left_to_the_clock(#[case] time: &str, #[case] millis: Option<i64>) {
        for name in ["timeEpoch", "requestTimeEpoch"] {
            let payload = format!("{{\"path\":\"/\",\"httpMethod\":\"GET\",\"requestContext\":{{\"{name}\":{time}}}}}");
            let request: Request = serde_json::from_str(&payload).unwrap();
            assert_eq!(request.received_at, millis.map(UnixMillis), "{payload}");
        }
    }

    #[test]
    fn only_an_alb_with_lists_wants_lists_back() {
        for (payload, lists) in
            [(FUNCTION_URL, false), (HTTP_API, false), (REST_API, false), (ALB, false), (ALB_MULTI_VALUE, true)]
        {
            let request: Request = serde_json::from_str(payload).unwrap();
            assert_eq!(request.multi_value_headers_only, lists);
        }
    }

    #[test]
    fn responses_carry_headers_in_the_form_asked_for() {
        let headers = || vec![("content-type", Cow::from("application/json"))];
        let reply = || Reply { status: 200, headers: headers(), body: "{}".into() };
        assert_eq!(
            serde_json::to_value(Response::new(reply(), false)).unwrap(),
            json!({"statusCode": 200, "headers": {"content-type": "application/json"}, "body": "{}", "isBase64Encoded": false})
        );
        assert_eq!(
            serde_json::to_value(Response::new(reply(), true)).unwrap()["multiValueHeaders"],
            json!({"content-type": ["application/json"]})
        );
    }

    #[rstest]
    #[case("/prod/events", Some("prod"), "/events")]
    #[case("/prod//events", Some("prod"), "//events")]
    #[case("//prod/events", Some("prod"), "/events")]
    #[case("/prod", Some("prod"), "/")]
    #[case("/prod/", Some("prod"), "/")]
    #[case("/", Some("prod"), "/")]
    #[case("/production", Some("prod"), "/production")]
    #[case("/events", Some("$default"), "/events")]
    #[case("/events", None, "/events")]
    fn the_stage_is_taken_off(#[case] path: &str, #[case] stage: Option<&str>, #[case] expected: &str) {
        assert_eq!(without_stage(path.to_owned(), stage), expected);
    }

    #[test]
    fn a_client_cannot_choose_its_address_behind_a_load_balancer() {
        assert_eq!(last_hop(Some("10.0.0.1, 203.0.113.9")).as_deref(), Some("203.0.113.9"));
    }

    #[rstest]
    #[case("198.51.100.7", Some("198.51.100.7"))]
    #[case("198.51.100.7:54321", Some("198.51.100.7"))]
    #[case("2001:db8::7", Some("2001:db8::7"))]
    #[case("[2001:db8::7]", Some("2001:db8::7"))]
    #[case("[2001:db8::7]:443", Some("2001:db8::7"))]
    #[case("::ffff:198.51.100.7", Some("198.51.100.7"))]
    #[case("::ffff:c633:6407", Some("198.51.100.7"))]
    #[case("[::ffff:198.51.100.7]:443", Some("198.51.100.7"))]
    #[case("::1", Some("::1"))]
    #[case("", None)]
    #[case("unknown", None)]
    #[case("198.51.100.7:", None)]
    #[case("198.51.100.7:65536", None)]
    #[case("[198.51.100.7]", None)]
    #[case("198.51.100", None)]
    #[case("2001:db8::7]:443", None)]
    fn addresses_lose_their_ports_and_ipv4_is_ipv4(#[case] text: &str, #[case] expected: Option<&str>) {
        let expected: Option<IpAddr> = expected.map(|address| address.parse().unwrap());
        assert_eq!(client_address(text), expected);
        let forwarded = format!("10.0.0.1:1, {text}");
        let payloads = [
            json!({"path": "/", "httpMethod": "GET", "requestContext": {}, "headers": {"X-Forwarded-For": forwarded}}),
            json!({"path": "/", "httpMethod": "GET", "requestContext": {"identity": {"sourceIp": text}}}),
            json!({"rawPath": "/", "requestContext": {"http": {"method": "GET", "sourceIp": text}}}),
        ];
        for payload in payloads {
            assert_eq!(serde_json::from_value::<Request>(payload).unwrap().source_ip, expected);
        }
    }

    #[rstest]
    #[case("", false, 0)]
    #[case("e30=", false, 4)]
    #[case("e30=", true, 2)]
    #[case("eyB9", true, 3)]
    fn bytes_are_those_that_the_client_sent(#[case] body: &str, #[case] base64: bool, #[case] bytes: usize) {
        let request = Request { body: body.into(), body_is_base64: base64, ..Request::default() };
        assert_eq!(request.body_bytes(), bytes);
    }

    #[rstest]
    #[case("{}")]
    #[case("[]")]
    #[case("{\"requestContext\":{}}")]
    #[case("{\"requestContext\":{},\"httpMethod\":\"GET\"}")]
    #[case("{\"Records\":[]}")]
    fn what_is_no_http_request_is_an_error(#[case] payload: &str) {
        assert!(serde_json::from_str::<Request>(payload).is_err());
    }
}
