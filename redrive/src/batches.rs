//! Batches that were given up: from the on-failure destination to where they belong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, anyhow};
use kinesis_to_s3_lambda::group::{Group, group};
use kinesis_to_s3_lambda::kinesis_event::KinesisEvent;
use serde::Deserialize;
use shared::line::EventFormat;
use shared::object::{Attempt, ObjectKey, ObjectMetadata};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::bucket::Bucket;
use crate::decision::{Decision, Range, compare, decide};
use crate::land::Lander;

/// Shards that are worked on at once; the batches of one go one after the other, in the order of their failure.
const SHARDS_AT_ONCE: usize = 16;

/// What Lambda writes to the on-failure destination, as far as it matters here.
#[derive(Deserialize)]
struct FailedBatch {
    #[serde(rename = "KinesisBatchInfo")]
    info: BatchInfo,
    /// The whole event, as a string of JSON.
    payload: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo {
    start_sequence_number: String,
    batch_size: usize,
}

pub(crate) struct Redrive {
    from: Bucket,
    to: Bucket,
    lander: Lander,
    format: EventFormat,
    total: usize,
    done: AtomicUsize,
    left: AtomicUsize,
}

/// The keys of each shard in the order of time: `aws/lambda/<mapping>/<shard>/<year>/<month>/<day>/<time>-<uuid>`.
fn by_shard(keys: Vec<String>) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut shards: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for key in keys {
        let pieces: Vec<&str> = key.splitn(5, '/').collect();
        let [_, _, _, shard, time] = pieces[..] else {
            return Err(anyhow!("{key} is not the key of a failed batch; --prefix leaves others out"));
        };
        shards.entry(shard.to_owned()).or_default().push((time.to_owned(), key));
    }
    let in_order = |mut keys: Vec<(String, String)>| {
        keys.sort();
        keys.into_iter().map(|(_, key)| key).collect()
    };
    Ok(shards.into_iter().map(|(shard, keys)| (shard, in_order(keys))).collect())
}

impl Redrive {
    /// From the failed batches' bucket to the landing bucket, with events of a format.
    pub(crate) fn new(from: Bucket, to: Bucket, lander: Lander, format: EventFormat) -> Self {
        let (done, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { from, to, lander, format, total: 0, done, left }
    }

    /// Redrives all batches under a prefix; whether all of them are done.
    pub(crate) async fn all(mut self, prefix: &str) -> anyhow::Result<bool> {
        let shards = by_shard(self.from.keys(prefix).await?)?;
        let total = shards.values().map(Vec::len).sum();
        self.total = total;
        let redrive = Arc::new(self);
        let places = Arc::new(Semaphore::new(SHARDS_AT_ONCE));
        let mut tasks = JoinSet::new();
        for keys in shards.into_values() {
            let (redrive, places) = (redrive.clone(), places.clone());
            tasks.spawn(async move {
                let _place = places.acquire().await?;
                redrive.shard(&keys).await;
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let left = redrive.left.load(Ordering::Relaxed);
        println!("{} of {total} batches are landed and removed, {left} are left", total - left);
        Ok(left == 0)
    }

    async fn shard(&self, keys: &[String]) {
        for key in keys {
            let outcome = self.batch(key, keys).await;
            let number = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            let total = self.total;
            match outcome {
                Ok(Some(outcome)) => println!("{number} of {total}: {key}: {outcome}"),
                Ok(None) => println!("{number} of {total}: {key}: removed by someone else meanwhile"),
                Err(problem) => {
                    self.left.fetch_add(1, Ordering::Relaxed);
                    println!("{number} of {total}: {key}: LEFT: {problem:#}");
                }
            }
        }
    }

    /// Lands one batch and removes it; what was done, or `None` when it is gone.
    async fn batch(&self, key: &str, keys_of_shard: &[String]) -> anyhow::Result<Option<String>> {
        // Before anything is read: what is decided from it holds only against those who began earlier. Whoever removes
        // this batch and goes on to the next began that one later than this.
        let attempt = self.lander.attempt();
        let Some(document) = self.from.get(key).await? else { return Ok(None) };
        let outcome = self.land_groups(&document, keys_of_shard, &attempt).await;
        if outcome.is_err() && self.from.get(key).await?.is_none() {
            // Somebody else has landed all of it, which may be what was in the way.
            return Ok(None);
        }
        let outcome = outcome?;
        self.from.delete(key).await?;
        Ok(Some(outcome))
    }

    async fn land_groups(
        &self,
        document: &[u8],
        keys_of_shard: &[String],
        attempt: &Attempt,
    ) -> anyhow::Result<String> {
        let (mut landed, mut covered) = (0, 0);
        for group in groups(document, self.format)? {
            match self.decide(&group, keys_of_shard).await? {
                Decision::Land => {
                    self.lander.land(&group, attempt).await?;
                    landed += 1;
                }
                Decision::Covered => covered += 1,
                Decision::Wait => {
                    return Err(anyhow!(
                        "{} holds records beyond this batch; redrive again when what follows on the shard has landed (if nothing \
                         follows any more, all of this batch is in that object, and this document may be removed)",
                        group.key()
                    ));
                }
            }
        }
        Ok(match covered {
            0 => format!("landed, {landed} objects"),
            _ => format!("landed, {landed} objects; the records of {covered} more had landed in other batches"),
        })
    }

    async fn decide(&self, group: &Group, keys_of_shard: &[String]) -> anyhow::Result<Decision> {
        let key = group.key();
        let found = self.to.metadata(&key).await?;
        let found =
            found.map(|entries| ObjectMetadata::from_entries(&entries).with_context(|| key.clone())).transpose()?;
        if let Some(other) = found.as_ref().map(|metadata| metadata.event_format).filter(|own| *own != self.format) {
            let other = other.as_str();
            return Err(anyhow!("{key} was landed as {other}: redrive this batch with --event-format {other}"));
        }
        let found_last = found.map(|metadata| metadata.last_sequence_number);
        let folder = key.strip_suffix(&format!("{}.jsonl.bz2", group.first_sequence_number)).unwrap_or(&key);
        let mut beginnings = Vec::new();
        // Usually nothing is there, or just this batch. Else it matters where the other failed batches begin. They are read
        // before the landed objects: one that somebody else lands and removes meanwhile is seen in the one place or the other.
        if found_last.as_deref().is_some_and(|last| compare(last, &group.last_sequence_number).is_ne()) {
            beginnings = self.failed_beginnings(keys_of_shard).await?;
        }
        beginnings.extend(self.to.keys(folder).await?.iter().filter_map(|key| first_record(key)));
        let range = Range { first: &group.first_sequence_number, last: &group.last_sequence_number };
        Ok(decide(range, found_last.as_deref(), beginnings.iter().map(String::as_str)))
    }

    async fn failed_beginnings(&self, keys: &[String]) -> anyhow::Result<Vec<String>> {
        let mut beginnings = Vec::new();
        for key in keys {
            if let Some(document) = self.from.get(key).await? {
                beginnings.push(parse(&document)?.info.start_sequence_number);
            }
        }
        Ok(beginnings)
    }
}

/// The first record of a landed object; `None` for keys of anything else.
fn first_record(key: &str) -> Option<String> {
    let first = ObjectKey::parse(key)?.first_sequence_number;
    first.bytes().all(|byte| byte.is_ascii_digit()).then_some(first)
}

fn parse(document: &[u8]) -> anyhow::Result<FailedBatch> {
    serde_json::from_slice(document).context("this is no failed batch as Lambda writes it")
}

fn groups(document: &[u8], format: EventFormat) -> anyhow::Result<Vec<Group>> {
    let batch = parse(document)?;
    let payload = batch.payload.ok_or_else(|| anyhow!("it lacks its records: the destination must be S3"))?;
    let event: KinesisEvent = serde_json::from_str(&payload).context("its payload is no Kinesis event")?;
    anyhow::ensure!(
        event.records.len() == batch.info.batch_size,
        "it says that it has {} records and holds {}",
        batch.info.batch_size,
        event.records.len()
    );
    Ok(group(&event.records, format))
}
