use std::collections::HashMap;
use std::io::Write;

use bzip2::Compression;
use bzip2::write::BzEncoder;
use proptest::prelude::*;
use serde_json::json;
use shared::line::Kind;
use shared::object::{ObjectKey, SpillId};

use super::*;
use lambda_setup::memory_bucket::MemoryBucket;

fn now() -> UnixMillis {
    UnixMillis::parse("2026-11-21T09:40:00.000Z").unwrap()
}

fn line(reason: &str, origin: Option<&str>, user_agent: Option<&str>, path: Option<&str>) -> String {
    let mut line = json!({
        "v": 1, "id": "x", "received_at": "2026-11-21T09:32:08.006Z", "request_id": "r",
        "client": {"ip": "192.0.2.7"}, "rejected": {"reason": reason, "detail": "d", "body_base64": "Ym9keQ=="},
    });
    for (parent, name, value) in
        [("client", "origin", origin), ("client", "user_agent", user_agent), ("rejected", "path", path)]
    {
        if let Some(value) = value {
            line[parent][name] = json!(value);
        }
    }
    format!("{line}\n")
}

fn put(bucket: &MemoryBucket, hour: u32, shard: u32, number: u32, lines: &[u8]) {
    let key = format!("rejected/dt=2026-11-21/hour={hour:02}/shardId-{shard:012}-{number:06}.jsonl.bz2");
    put_at(bucket, &key, lines);
}

fn spill(bucket: &MemoryBucket, id: u128, lines: &[u8]) {
    put_at(bucket, &ObjectKey::spilled(Kind::Rejected, now().hour(), SpillId(id)).to_string(), lines);
}

fn put_at(bucket: &MemoryBucket, key: &str, lines: &[u8]) {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(lines).unwrap();
    bucket.insert(key, encoder.finish().unwrap(), HashMap::new());
}

async fn said(bucket: &MemoryBucket) -> Vec<String> {
    most_frequent(&bucket, now(), None).await.unwrap()
}

#[tokio::test]
async fn the_most_frequent_are_named_with_their_counts() {
    let bucket = MemoryBucket::default();
    let page = Some("https://www.example.com");
    let mut lines = line("invalid_json", page, Some("Player/2"), Some("/events?user=7")).repeat(30);
    lines += &line("not_an_object", None, Some("Player/1"), Some("/events")).repeat(5);
    lines += &(0..4).map(|number| line("too_deep", page, Some(&format!("Bot/{number}")), None)).collect::<String>();
    put(&bucket, 9, 0, 1, lines.as_bytes());
    assert_eq!(
        said(&bucket).await,
        [
            "counted: 39 rejected lines of 1 of the newest files",
            "reasons: 30 × invalid_json · 5 × not_an_object · 4 × too_deep",
            "origins: 34 × https://www.example.com · 5 without",
            "user agents: 30 × Player/2 · 5 × Player/1 · 1 × Bot/0 · 3 others",
            "paths: 35 × /events · 4 without",
        ]
    );
}

#[tokio::test]
async fn of_an_app_only_its_own_lines_are_counted() {
    let bucket = MemoryBucket::default();
    let of = |app: &str, reason: &str| line(reason, None, None, None).replacen('{', &format!(r#"{{"app":"{app}","#), 1);
    let lines =
        of("ios", "too_deep").repeat(5) + &of("web", "invalid_json").repeat(2) + &line("no_events", None, None, None);
    put(&bucket, 9, 0, 1, lines.as_bytes());
    let of_web = most_frequent(&&bucket, now(), Some("web")).await.unwrap();
    assert_eq!(of_web[..2], ["counted: 2 rejected lines of 1 of the newest files", "reasons: 2 × invalid_json"]);
    assert_eq!(most_frequent(&&bucket, now(), Some("tv")).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn no_personal_data_is_named() {
    let bucket = MemoryBucket::default();
    put(&bucket, 9, 0, 1, line("invalid_json", None, None, Some("/events?token=SECRET")).as_bytes());
    let said = said(&bucket).await.join("\n");
    assert!(!said.contains("192.0.2.7") && !said.contains("Ym9keQ") && !said.contains("SECRET"), "{said}");
}

#[tokio::test]
async fn the_newest_files_of_each_shard_are_read() {
    let bucket = MemoryBucket::default();
    for shard in 0..2 {
        for number in 0..15 {
            let reason = if number < 11 { "invalid_json" } else { "too_deep" };
            put(&bucket, 9, shard, number, line(reason, None, None, None).as_bytes());
        }
    }
    bucket.page_size.set(Some(10));
    assert_eq!(said(&bucket).await[1], "reasons: 8 × too_deep");
    // A LIST for shards, one for what was spilled, two pages of each shard; eight files; a LIST for the hour before.
    assert_eq!(bucket.calls.get(), 1 + 1 + 4 + 8 + 1);
}

#[tokio::test]
async fn spilled_files_are_counted_alone_and_beside_landed_ones() {
    let bucket = MemoryBucket::default();
    for id in 0..15 {
        let reason = if id < 4 { "invalid_json" } else { "too_deep" };
        spill(&bucket, id, line(reason, None, None, None).as_bytes());
    }
    bucket.page_size.set(Some(10));
    assert_eq!(
        said(&bucket).await[..2],
        ["counted: 8 rejected lines of 8 of the newest files", "reasons: 8 × too_deep"]
    );
    (0..2).for_each(|shard| put(&bucket, 9, shard, 1, line("no_events", None, None, None).as_bytes()));
    assert_eq!(said(&bucket).await[1], "reasons: 3 × too_deep · 2 × no_events");
}

#[tokio::test]
async fn at_most_the_allowed_number_of_files_is_read() {
    let bucket = MemoryBucket::default();
    (0..100).for_each(|shard| put(&bucket, 9, shard, 1, line("too_deep", None, None, None).as_bytes()));
    assert_eq!(said(&bucket).await[0], "counted: 8 rejected lines of 8 of the newest files");
}

#[tokio::test]
async fn just_after_the_full_hour_the_hour_before_is_counted() {
    let bucket = MemoryBucket::default();
    put(&bucket, 9, 0, 1, line("too_deep", None, None, None).as_bytes());
    put(&bucket, 8, 0, 1, line("invalid_json", None, None, None).repeat(2).as_bytes());
    put(&bucket, 7, 0, 1, line("no_events", None, None, None).as_bytes());
    assert_eq!(said(&bucket).await[1], "reasons: 2 × invalid_json · 1 × too_deep");
    assert_eq!(most_frequent(&&MemoryBucket::default(), now(), None).await.unwrap(), [""; 0]);
}

#[test]
fn bombs_and_damaged_files_cost_little() {
    let bucket = MemoryBucket::default();
    put(&bucket, 9, 0, 1, &vec![b' '; 32 * 1024 * 1024]);
    put(&bucket, 9, 0, 2, line("too_deep", None, None, None).repeat(10_000).as_bytes());
    put(&bucket, 9, 0, 3, b"no JSON\n{}\n[]\n{\"rejected\":7}\n");
    bucket.insert("rejected/dt=2026-11-21/hour=09/shardId-000000000000-000004.jsonl.bz2", "no bzip2", HashMap::new());
    bucket.insert("rejected/dt=2026-11-21/hour=09/shardId-000000000000-000005.jsonl.bz2", "", HashMap::new());
    let lines = MAX_UNCOMPRESSED_BYTES / line("too_deep", None, None, None).len() as u64;
    let mut said = Vec::new();
    let measured = allocation_counter::measure(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        said = runtime.block_on(most_frequent(&&bucket, now(), None)).unwrap();
    });
    assert_eq!(said[1], format!("reasons: {lines} × too_deep"));
    assert!(measured.bytes_max < 16 * 1024 * 1024, "{measured:?}");
}

#[tokio::test]
async fn fabricated_values_are_bounded() {
    let mut tally = Tally::default();
    for number in 0..10_000 {
        tally.add(line("too_deep", Some(&format!("{number}{}", "x".repeat(10_000))), None, None).as_bytes());
    }
    assert_eq!(tally.origins.values.len(), MAX_VALUES);
    assert!(tally.lines()[2].chars().count() < 500 && tally.lines()[2].ends_with(" · 9997 others"));
}

proptest! {
    #[test]
    fn any_bytes_are_counted_or_skipped(content in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut tally = Tally::default();
        tally.add(&content);
        prop_assert!(tally.rejected <= 500);
    }
}
