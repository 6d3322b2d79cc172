//! What the functions are given: made up, of the size and shape of real traffic.

use base64_simd::STANDARD as BASE64;
use serde_json::{Value, json};

/// Viewers whose events are mixed in one batch.
const VIEWERS: usize = 25;
const TYPES: [&str; 5] = ["heartbeat", "play", "pause", "rebuffer", "ad_impression"];

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
        "sent_at": 1_795_253_528_006 + noise(number) % 60_000,
    })
}

/// A Function URL request that posts that many events of one session.
pub(crate) fn post(events: usize) -> String {
    let body = match events {
        1 => event(1, 0),
        _ => (0..events).map(|number| event(number, 0)).collect(),
    };
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
            "timeEpoch": 1_795_253_528_006_u64,
        },
        "body": body.to_string(),
        "isBase64Encoded": false,
    })
    .to_string()
}

/// That many event lines, one after another.
pub(crate) fn lines(count: usize) -> String {
    (0..count).map(line).collect()
}

fn line(number: usize) -> String {
    let line = json!({
        "v": 1,
        "id": uuid(1_000 + number),
        "received_at": "2026-11-21T09:32:08.006Z",
        "request_id": uuid(9_000 + number),
        "client": {"user_agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/148.0.0.0"},
        "event": event(number, number % VIEWERS),
    });
    format!("{line}\n")
}

/// A batch of that many Kinesis records with one event line each.
pub(crate) fn batch(records: usize) -> String {
    let record = |number: usize| {
        let sequence_number = format!("49590338271490256608559692538361571095921575989{number:09}");
        json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "314c79d2-c081-484e-a40d-72eafd72e54b",
                "sequenceNumber": sequence_number,
                "data": BASE64.encode_to_string(line(number)),
                "approximateArrivalTimestamp": 1_795_253_528.006,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": format!("shardId-000000000000:{sequence_number}"),
            "eventName": "aws:kinesis:record",
            "awsRegion": "eu-central-1",
            "eventSourceARN": "arn:aws:kinesis:eu-central-1:123456789012:stream/event-stream",
        })
    };
    json!({"Records": (0..records).map(record).collect::<Vec<_>>()}).to_string()
}
