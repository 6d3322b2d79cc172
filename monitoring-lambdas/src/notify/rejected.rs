//! Counts what is rejected most, and from whom, in a few of the newest rejected files, for the messages. Only reasons, origins,
//! user agents and paths: never an address or a body.

use std::collections::BTreeMap;
use std::io::Read;

use bzip2::read::BzDecoder;
use serde::Deserialize;
use shared::object::SPILL_PREFIX;
use shared::timestamp::{UnixMillis, UtcHour};

use crate::bucket::{Bucket, BucketError, List, Stream, Streams};

/// The most files that are read.
const MAX_FILES: usize = 8;
/// The most bytes that are read of a file, compressed and uncompressed. bzip2 takes a second for some 2 MB at 128 MB of memory.
const MAX_COMPRESSED_BYTES: usize = 1024 * 1024;
const MAX_UNCOMPRESSED_BYTES: u64 = 512 * 1024;
/// The most pages of the listing of one shard's hour, or of what was spilled in it: 5,000 files. If there are more, the files that are read are not the newest.
const MAX_PAGES: usize = 5;
/// The most distinct values that are counted of each kind; others are counted together.
const MAX_VALUES: usize = 200;
/// The most values that a line names, and the most characters of each.
const MAX_NAMED_VALUES: usize = 3;
const MAX_VALUE_CHARACTERS: usize = 120;

/// Lines of a message about what was rejected in the hour of `now` and the one before, if anything was.
pub(super) async fn most_frequent<B: Streams>(bucket: &B, now: UnixMillis) -> Result<Vec<String>, BucketError> {
    let mut tally = Tally::default();
    for hour in [now.hour(), now.hour().plus(-1)] {
        for key in newest(bucket, hour, MAX_FILES - tally.files).await? {
            let Some((_, stream)) = bucket.open(&key).await? else { continue };
            tally.files += 1;
            tally.add(&decompressed(stream).await?);
        }
    }
    Ok(tally.lines())
}

/// The last keys of the hour: of what was spilled and of each shard about as many, until there are enough.
async fn newest(bucket: &impl Bucket, hour: UtcHour, limit: usize) -> Result<Vec<String>, BucketError> {
    let folder = format!("rejected/{}/", hour.partition());
    let shards = List { prefix: &format!("{folder}shardId-"), delimiter: Some("-"), ..List::default() };
    let mut series = vec![format!("{folder}{SPILL_PREFIX}")];
    series.extend(bucket.list(shards).await?.prefixes);
    let mut keys = Vec::new();
    for (at, prefix) in series.iter().enumerate() {
        let share = (limit - keys.len()).div_ceil(series.len() - at);
        if share == 0 {
            break;
        }
        keys.extend(last_keys(bucket, prefix, share).await?);
    }
    Ok(keys)
}

async fn last_keys(bucket: &impl Bucket, prefix: &str, limit: usize) -> Result<Vec<String>, BucketError> {
    let mut keys: Vec<String> = Vec::new();
    for _ in 0..MAX_PAGES {
        let page =
            bucket.list(List { prefix, start_after: keys.last().map(String::as_str), ..List::default() }).await?;
        keys.extend(page.objects.into_iter().map(|object| object.key));
        keys.drain(..keys.len().saturating_sub(limit));
        if !page.is_truncated {
            break;
        }
    }
    Ok(keys)
}

/// The beginning of a file's content, up to what is damaged or cut off.
async fn decompressed(mut stream: impl Stream) -> Result<Vec<u8>, BucketError> {
    let mut compressed = Vec::new();
    while let Some(piece) = stream.next().await? {
        compressed.extend_from_slice(&piece[..piece.len().min(MAX_COMPRESSED_BYTES - compressed.len())]);
        if compressed.len() == MAX_COMPRESSED_BYTES {
            break;
        }
    }
    let mut content = Vec::new();
    match BzDecoder::new(&*compressed).take(MAX_UNCOMPRESSED_BYTES).read_to_end(&mut content) {
        Ok(_) | Err(_) => Ok(content),
    }
}

/// The parts of a rejected line that are counted.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    client: Client,
    rejected: Rejected,
}

#[derive(Default, Deserialize)]
struct Client {
    user_agent: Option<String>,
    origin: Option<String>,
}

#[derive(Deserialize)]
struct Rejected {
    reason: String,
    path: Option<String>,
}

/// What was counted.
#[derive(Debug, Default)]
struct Tally {
    files: usize,
    rejected: u64,
    reasons: Counts,
    origins: Counts,
    user_agents: Counts,
    paths: Counts,
}

impl Tally {
    /// Counts the complete lines of a file's beginning; lines that are not ours are skipped.
    fn add(&mut self, content: &[u8]) {
        for line in content.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let Ok(Line { client, rejected }) = serde_json::from_slice(line) else { continue };
            self.rejected += 1;
            self.reasons.add(Some(&rejected.reason));
            self.origins.add(client.origin.as_deref());
            self.user_agents.add(client.user_agent.as_deref());
            // A query may say who somebody is.
            self.paths.add(rejected.path.as_deref().and_then(|path| path.split('?').next()));
        }
    }

    fn lines(&self) -> Vec<String> {
        if self.rejected == 0 {
            return Vec::new();
        }
        vec![
            format!("counted: {} rejected lines of {} of the newest files", self.rejected, self.files),
            format!("reasons: {}", self.reasons.most_frequent()),
            format!("origins: {}", self.origins.most_frequent()),
            format!("user agents: {}", self.user_agents.most_frequent()),
            format!("paths: {}", self.paths.most_frequent()),
        ]
    }
}

/// Counts of values, which anybody can make up.
#[derive(Debug, Default)]
struct Counts {
    values: BTreeMap<String, u64>,
    others: u64,
    /// Lines without a value.
    without: u64,
}

impl Counts {
    fn add(&mut self, value: Option<&str>) {
        let Some(value) = value else { return self.without += 1 };
        let value: String = value.chars().take(MAX_VALUE_CHARACTERS).collect();
        if let Some(count) = self.values.get_mut(&value) {
            *count += 1;
        } else if self.values.len() < MAX_VALUES {
            self.values.insert(value, 1);
        } else {
            self.others += 1;
        }
    }

    /// `310 × okhttp/4.9 · 2 × curl/8 · 5 others · 12 without`
    fn most_frequent(&self) -> String {
        let mut values: Vec<_> = self.values.iter().collect();
        values.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let rest: u64 = values.iter().skip(MAX_NAMED_VALUES).map(|(_, count)| **count).sum();
        let named = values.into_iter().take(MAX_NAMED_VALUES).map(|(value, count)| format!("{count} × {value}"));
        let unnamed = [(rest + self.others, "others"), (self.without, "without")];
        let unnamed =
            unnamed.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        named.chain(unnamed).collect::<Vec<_>>().join(" · ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;

    use bzip2::Compression;
    use bzip2::write::BzEncoder;
    use proptest::prelude::*;
    use serde_json::json;
    use shared::line::Kind;
    use shared::object::{ObjectKey, SpillId};

    use super::*;
    use crate::tests::memory_bucket::MemoryBucket;

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
        most_frequent(&bucket, now()).await.unwrap()
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
    async fn nothing_that_identifies_a_person_is_named() {
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
    async fn what_was_spilled_is_counted_alone_and_beside_what_landed() {
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
    async fn of_many_shards_as_many_are_read_as_files() {
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
        assert_eq!(most_frequent(&&MemoryBucket::default(), now()).await.unwrap(), [""; 0]);
    }

    #[test]
    fn a_bomb_and_what_is_damaged_cost_little() {
        let bucket = MemoryBucket::default();
        put(&bucket, 9, 0, 1, &vec![b' '; 32 * 1024 * 1024]);
        put(&bucket, 9, 0, 2, line("too_deep", None, None, None).repeat(10_000).as_bytes());
        put(&bucket, 9, 0, 3, b"no JSON\n{}\n[]\n{\"rejected\":7}\n");
        bucket.insert(
            "rejected/dt=2026-11-21/hour=09/shardId-000000000000-000004.jsonl.bz2",
            "no bzip2",
            HashMap::new(),
        );
        bucket.insert("rejected/dt=2026-11-21/hour=09/shardId-000000000000-000005.jsonl.bz2", "", HashMap::new());
        let lines = MAX_UNCOMPRESSED_BYTES / line("too_deep", None, None, None).len() as u64;
        let mut said = Vec::new();
        let measured = allocation_counter::measure(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            said = runtime.block_on(most_frequent(&&bucket, now())).unwrap();
        });
        assert_eq!(said[1], format!("reasons: {lines} × too_deep"));
        assert!(measured.bytes_max < 16 * 1024 * 1024, "{measured:?}");
    }

    #[tokio::test]
    async fn made_up_values_are_bounded() {
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
}
