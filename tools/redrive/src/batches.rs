//! Batches that were given up: from the on-failure destination to where they belong.

mod decision;

use std::cell::Cell;
use std::collections::BTreeSet;

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, stream};
use kinesis_to_s3_lambda::group::{Group, group};
use kinesis_to_s3_lambda::kinesis_event::Record;
use shared::line::EventFormat;
use shared::object::{Attempt, ObjectKey, ObjectMetadata};
use shared::timestamp::UtcHour;

use crate::bucket::Bucket;
use crate::event_format::Formats;
use crate::failed_batch::{FailedBatch, by_shard};
use crate::lander::Lander;
use crate::stream::SHARDS_AT_ONCE;
use decision::{Decision, Range, decide};
use shared::sequence_number::compare;

pub(crate) struct Redrive<'a> {
    /// The failed batches' bucket.
    pub(crate) from: Bucket,
    /// The landing bucket, whose formats are given.
    pub(crate) to: Bucket,
    pub(crate) lander: &'a Lander,
    pub(crate) formats: Formats,
}

/// How many batches there are, how many of them were tried, and how many could not be landed.
#[derive(Default)]
struct Tally {
    total: usize,
    tried: Cell<usize>,
    left: Cell<usize>,
}

impl Redrive<'_> {
    /// Redrives all batches under a prefix; whether all of them are done.
    pub(crate) async fn all(&self, prefix: &str) -> anyhow::Result<bool> {
        let failed = by_shard(self.from.keys(prefix).await?)?;
        let tally = Tally { total: failed.values().map(Vec::len).sum(), ..Tally::default() };
        // The batches of a shard go one after the other, in the order of their failure.
        let shards = stream::iter(failed.values()).map(|keys| self.shard(keys, &tally));
        shards.buffer_unordered(SHARDS_AT_ONCE).collect::<()>().await;
        let (total, left) = (tally.total, tally.left.get());
        println!("{} of {total} batches are landed and removed, {left} are left", total - left);
        Ok(left == 0)
    }

    async fn shard(&self, keys: &[String], tally: &Tally) {
        for key in keys {
            let outcome = match self.batch(key, keys).await {
                Ok(Some(outcome)) => outcome,
                Ok(None) => "landed and removed by someone else meanwhile".to_owned(),
                Err(problem) => {
                    tally.left.update(|left| left + 1);
                    format!("LEFT: {problem:#}")
                }
            };
            tally.tried.update(|tried| tried + 1);
            println!("{} of {}: {key}: {outcome}", tally.tried.get(), tally.total);
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
        let records = FailedBatch::parse(document)?.records()?;
        let format = self.format(&records).await?;
        let (mut landed, mut already_there) = (0, 0);
        for group in group(&records, format) {
            match self.decide(&group, keys_of_shard).await? {
                Decision::Land { is_there } => {
                    // Also where its records have landed: that fences off late writes of earlier attempts.
                    self.lander.land(&group, attempt).await?;
                    *(if is_there { &mut already_there } else { &mut landed }) += 1;
                }
                Decision::Covered => already_there += 1,
                Decision::Wait => {
                    return Err(anyhow!(
                        "{} holds records beyond this batch; redrive again when what follows on the shard has landed (if nothing \
                         follows any more, all of this batch is in that object, and this document may be removed)",
                        group.key()
                    ));
                }
            }
        }
        Ok(match (landed, already_there) {
            (0, 1..) => "all of its records were already there".to_owned(),
            (landed, 0) => format!("landed, {landed} objects"),
            (landed, there) => format!("landed, {landed} objects; the records of {there} more were already there"),
        })
    }

    /// The one format of a batch's records, which may be of two hours.
    async fn format(&self, records: &[Record]) -> anyhow::Result<EventFormat> {
        let hours: BTreeSet<UtcHour> = records.iter().map(|record| record.arrival().hour()).collect();
        let mut formats = BTreeSet::new();
        for hour in hours {
            formats.insert(self.formats.of_hour(hour).await?);
        }
        match formats.pop_first() {
            Some(format) if formats.is_empty() => Ok(format),
            Some(_) => Err(anyhow!("the format changed while its records arrived; pass --event-format")),
            None => Ok(EventFormat::default()),
        }
    }

    async fn decide(&self, group: &Group, keys_of_shard: &[String]) -> anyhow::Result<Decision> {
        let key = group.key();
        let found = self.to.metadata(&key).await?;
        let found = found
            .map(|entries| ObjectMetadata::from_entries(&group.name(), &entries).with_context(|| key.clone()))
            .transpose()?;
        if let Some(other) =
            found.as_ref().map(|metadata| metadata.event_format).filter(|own| *own != group.event_format)
        {
            let other = other.as_str();
            return Err(anyhow!("{key} was landed as {other}: redrive this batch with --event-format {other}"));
        }
        let found_last = found.and_then(|metadata| metadata.last_sequence_number);
        let folder = key.strip_suffix(&format!("{}.jsonl.bz2", group.first_sequence_number)).unwrap_or(&key);
        let mut beginnings = Vec::new();
        // Usually nothing is there, or just this batch. Else it matters where the other failed batches begin. They are read
        // before the landed objects: one that somebody else lands and removes meanwhile is seen in the one place or the other.
        if found_last.as_deref().is_some_and(|last| compare(last, &group.last_sequence_number).is_ne()) {
            beginnings = self.failed_beginnings(keys_of_shard).await?;
        }
        let first_landed = |key: &String| Some(ObjectKey::parse(key)?.name.into_landed()?.sequence_number);
        beginnings.extend(self.to.keys(folder).await?.iter().filter_map(first_landed));
        let range = Range { first: &group.first_sequence_number, last: &group.last_sequence_number };
        Ok(decide(range, found_last.as_deref(), beginnings.iter().map(String::as_str)))
    }

    async fn failed_beginnings(&self, keys: &[String]) -> anyhow::Result<Vec<String>> {
        let mut beginnings = Vec::new();
        for key in keys {
            if let Some(document) = self.from.get(key).await? {
                beginnings.push(FailedBatch::parse(&document)?.info.start_sequence_number);
            }
        }
        Ok(beginnings)
    }
}
