//! What the functions are given: made up, but with the size and shape of real traffic.

use base64_simd::STANDARD as BASE64;
use serde_json::{Value, json};
use shared::frame::FrameWriter;

/// Viewers whose events are mixed in one batch.
const VIEWERS: usize = 25;
const TYPES: [&str; 5] = ["heartbeat", "play", "pause", "rebuffer", "ad_impression"];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64) Chrome/148.0.0.0",
    "AppleTV14,1/26.1 PlayerKit/5.19.0",
    "Mozilla/5.0 (SMART-TV; Tizen 9.0) TV Safari/538.1",
    "ExoPlayerLib/2.19.1 (Linux;Android 16)",
];
/// 2026-11-21T09:32:00Z.
const MINUTE_BEGAN_MS: u64 = 1_795_253_520_000;

/// The same unpredictable number for the same seed (SplitMix64), so that payloads compress as real ones do.
fn noise(seed: usize) -> u64 {
    let mut mixed = (seed as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn uuid(seed: usize) -> String {
    let (high, low) = (noise(2 * seed), noise(2 * seed + 1));
    format!("{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}", high >> 32, high as u16, low as u16 & 0xfff, low >> 48, low >> 16)
}

/// An event of some 300 bytes, as players send them.
fn event(number: usize, viewer: usize) -> Value {
    json!({
        "id": uuid(1_000 + number),
        "type": TYPES[noise(number) as usize % TYPES.len()],
        "session_id": uuid(viewer),
        "video_id": format!("video-{}", noise(viewer) % 1_000),
        "position_ms": noise(3 * number) % 3_600_000,
        "buffer_ms": noise(5 * number) % 30_000,
        "bitrate_kbps": noise(7 * number) % 8_000,
        "dropped_frames": number % 7,
        "player": {"name": "web-player", "version": "5.19.0"},
        "sent_at": MINUTE_BEGAN_MS + noise(number) % 60_000,
    })
}

/// That many events of one viewer.
pub(crate) fn events(count: usize) -> Vec<Value> {
    events_of(0, count)
}

/// Another viewer's have other ids.
pub(crate) fn events_of(viewer: usize, count: usize) -> Vec<Value> {
    (0..count).map(|number| event(viewer * count + number, viewer)).collect()
}

/// A browser's request with these events, as one over a connection of its own.
pub(crate) fn request(events: &[Value]) -> String {
    let body = Value::from(events).to_string();
    format!(
        "POST /events HTTP/1.1\r\n\
         Host: events.example.com\r\n\
         Connection: keep-alive\r\n\
         Content-Length: {}\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36\r\n\
         Content-Type: application/json\r\n\
         Accept: */*\r\n\
         Origin: https://player.example\r\n\
         Referer: https://player.example/watch\r\n\
         Accept-Encoding: gzip, deflate, br\r\n\
         Accept-Language: en-US,en;q=0.9\r\n\r\n{body}",
        body.len()
    )
}

/// A Function URL's request with such a body.
pub(crate) fn post(body: &str) -> String {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/events",
        "rawQueryString": "",
        "headers": {
            "accept": "*/*",
            "accept-encoding": "gzip, deflate, br",
            "accept-language": "en-US,en;q=0.9",
            "content-type": "application/json",
            "host": "abcdef.lambda-url.eu-central-1.on.aws",
            "origin": "https://player.example",
            "referer": "https://player.example/watch",
            "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36",
            "x-forwarded-for": "198.51.100.7",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef",
            "domainName": "abcdef.lambda-url.eu-central-1.on.aws",
            "http": {
                "method": "POST",
                "path": "/events",
                "protocol": "HTTP/1.1",
                "sourceIp": "198.51.100.7",
                "userAgent": "Mozilla/5.0",
            },
            "requestId": "0b2c2a1e-6a5d-4f6a-8f3a-0d8f0c1b2a3d",
            "stage": "$default",
            "timeEpoch": MINUTE_BEGAN_MS + 8_006,
        },
        "body": body,
        "isBase64Encoded": false,
    })
    .to_string()
}

/// That many records, each with the lines of a POST of so many events, as ingest makes them.
pub(crate) fn records(count: usize, events: usize) -> Vec<String> {
    let lines = |post: usize| (0..events).map(move |number| line(post, event(post * events + number, post % VIEWERS)));
    (0..count).map(|post| lines(post).collect()).collect()
}

/// An event's line, of some 550 bytes with its line feed.
fn line(post: usize, event: Value) -> String {
    let milliseconds = noise(11 * post) % 60_000;
    let line = json!({
        "v": 1,
        "id": event["id"],
        "received_at": format!("2026-11-21T09:32:{:02}.{:03}Z", milliseconds / 1_000, milliseconds % 1_000),
        "request_id": uuid(900_000 + post),
        "client": {"user_agent": AGENTS[post % VIEWERS % AGENTS.len()]},
        "event": event,
    });
    format!("{line}\n")
}

/// These records, compressed as ingest does it.
pub(crate) fn frames(records: &[String]) -> Vec<Vec<u8>> {
    let mut writer = FrameWriter::default();
    let frame = |lines: &String| writer.compress(lines.as_bytes()).unwrap_or_else(|| lines.clone().into_bytes());
    records.iter().map(frame).collect()
}

/// A batch of these records' data, as the mapping hands it over. They arrived in the same hour.
pub(crate) fn batch<T: AsRef<[u8]>>(records: &[T]) -> String {
    let record = |(number, data): (usize, &T)| {
        let sequence_number = format!("49590338271490256608559692538361571095921575989{number:09}");
        json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": uuid(number % VIEWERS),
                "sequenceNumber": sequence_number,
                "data": BASE64.encode_to_string(data),
                "approximateArrivalTimestamp": 1_795_253_528.006,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": format!("shardId-000000000000:{sequence_number}"),
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::123456789012:role/landing",
            "awsRegion": "eu-central-1",
            "eventSourceARN": "arn:aws:kinesis:eu-central-1:123456789012:stream/event-stream",
        })
    };
    json!({"Records": records.iter().enumerate().map(record).collect::<Vec<_>>()}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bzip2::Compression;
    use bzip2::read::BzEncoder;
    use std::io::Read;

    /// The lines must be no easier to compress than recorded sessions are: in one batch, those of tests/fixtures become 2.8 to
    /// 6.0 times smaller.
    #[test]
    fn lines_have_the_size_and_variety_of_real_ones() {
        let lines = records(100, 1).concat();
        assert!((50_000..=60_000).contains(&lines.len()), "{}", lines.len());
        let mut compressed = Vec::new();
        BzEncoder::new(lines.as_bytes(), Compression::best()).read_to_end(&mut compressed).unwrap();
        let ratio = lines.len() as f64 / compressed.len() as f64;
        assert!((2.8..=6.0).contains(&ratio), "{ratio}");
    }
}
