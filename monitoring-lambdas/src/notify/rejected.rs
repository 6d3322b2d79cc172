//! Counts what is rejected most, and from whom, in a few of the newest rejected files, for the messages. Only reasons, origins,
//! user agents and paths: never an address or a body.

use std::collections::BTreeMap;
use std::io::Read;

use bzip2::read::BzDecoder;
use serde::Deserialize;
use shared::object::SPILL_PREFIX;
use shared::timestamp::{UnixMillis, UtcHour};

use lambda_setup::bucket::{Bucket, BucketError, List, Stream, Streams};

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

/// Lines of a message about what was rejected in the hour of `now` and the one before, of one app if it is named, if anything was.
pub(super) async fn most_frequent<B: Streams>(
    bucket: &B,
    now: UnixMillis,
    app: Option<&str>,
) -> Result<Vec<String>, BucketError> {
    let mut tally = Tally::of(app);
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
    app: Option<String>,
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
    /// Whose lines are counted; `None` for all.
    app: Option<String>,
    files: usize,
    rejected: u64,
    reasons: Counts,
    origins: Counts,
    user_agents: Counts,
    paths: Counts,
}

impl Tally {
    fn of(app: Option<&str>) -> Self {
        Self { app: app.map(str::to_owned), ..Self::default() }
    }

    /// Counts the complete lines of a file's beginning; lines that are not ours are skipped.
    fn add(&mut self, content: &[u8]) {
        for line in content.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let Ok(Line { app, client, rejected }) = serde_json::from_slice(line) else { continue };
            if self.app.is_some() && self.app != app {
                continue;
            }
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
mod tests;
