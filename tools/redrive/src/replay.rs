//! An hour read from the stream again: the records that are in no object land.
//!
//! No record may land twice. So an hour is replayed only when landing is done with it; records in failed batches are left to be
//! redriven; and the first and last records of objects show what has landed. The rest lands by landing's own rules: an object
//! is named by its first record and holds what landing makes of the records. It is written only where there is none, so that two
//! replays at once write each object once or stop.

mod coverage;
mod gaps;
mod seal;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, stream};
use kinesis_to_s3_lambda::encode::encode;
use kinesis_to_s3_lambda::group::Group;
use lambda_setup::deadline::Deadline;
use monitoring_lambdas::cloudwatch::CloudWatch;
use monitoring_lambdas::manifest::Entry;
use shared::line::Kind;
use shared::object::{BlockSize, ObjectKey, ObjectMetadata, ObjectName, prefix};
use shared::timestamp::{UnixMillis, UtcHour};

use crate::bucket::{Bucket, Listed, Stored};
use crate::event_format::Formats;
use crate::failed_batch::{self, FailedBatch};
use crate::lander::{self, Lander};
use crate::stream::{SHARDS_AT_ONCE, Stream};

use coverage::{Coverage, Reach};
use gaps::{Counts, Gaps, Wanted};
pub(crate) use seal::LandingNow;
use seal::SealedHour;

/// How far records of a shard may be from the order of their arrival.
const DISORDER: Duration = Duration::from_secs(60);

/// The buckets and the stream of a stack.
pub(crate) struct Replay<'a> {
    pub(crate) stream: Stream,
    pub(crate) landing: Bucket,
    pub(crate) failed_batches: Bucket,
    pub(crate) lander: &'a Lander,
    pub(crate) formats: Formats,
    /// How far landing is; `None` when the stack was deleted, so that nothing lands by itself any more.
    pub(crate) landing_now: Option<LandingNow<CloudWatch>>,
}

/// What is known of the hour before its shards are read.
struct Hour {
    wanted: Wanted,
    /// By key.
    named: HashMap<String, Entry>,
    failed: BTreeMap<String, Vec<String>>,
}

/// What became of a shard's records.
#[derive(Debug, Default)]
struct Replayed {
    counts: Counts,
    /// Objects that landed.
    objects: u64,
}

impl Replay<'_> {
    /// Lands what is missing in an hour; whether all of it has landed.
    ///
    /// # Errors
    ///
    /// When it is not known what is missing: nothing is landed then.
    pub(crate) async fn hour(&self, hour: UtcHour) -> anyhow::Result<bool> {
        let sealed = match &self.landing_now {
            None => SealedHour::without_landing(&self.landing, hour).await?,
            Some(landing) => SealedHour::read(&self.landing, hour, landing).await?,
        };
        let event_format = self.formats.of_hour(hour).await?;
        let is_kept = self.is_kept(hour).await?;
        let wanted = Wanted { hour, before: sealed.before, event_format };
        let failed = failed_batch::by_shard(self.failed_batches.keys(failed_batch::PREFIX).await?)?;
        let named = sealed.objects.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let hour = Hour { wanted, named, failed };
        let is_done = self.shards(&hour).await?;
        let is_whole = self.report_rest(&hour).await?;
        Ok(is_kept && is_done && is_whole)
    }

    /// Whether the stream still has all of the hour.
    async fn is_kept(&self, hour: UtcHour) -> anyhow::Result<bool> {
        let retention = self.stream.retention().await?;
        let oldest = UnixMillis(lambda_setup::now().0 - i64::try_from(retention.as_millis())?);
        if oldest > hour.start() {
            println!("LEFT: the stream no longer has what arrived before {}", oldest.rfc3339());
        }
        Ok(oldest <= hour.start())
    }

    /// Replays all shards; whether nothing of them is left.
    async fn shards(&self, hour: &Hour) -> anyhow::Result<bool> {
        let replay = async |shard: String| {
            let mut replayed = Replayed::default();
            let outcome = self.shard(&shard, hour, &mut replayed).await;
            report(&shard, &replayed, outcome)
        };
        let shards = stream::iter(self.stream.shards().await?).map(replay).buffer_unordered(SHARDS_AT_ONCE);
        Ok(shards.fold(true, async |are_done, is_done| are_done && is_done).await)
    }

    async fn shard(&self, shard_id: &str, hour: &Hour, replayed: &mut Replayed) -> anyhow::Result<()> {
        let coverage = self.coverage(shard_id, hour).await?;
        let mut gaps = Gaps::new(hour.wanted, coverage);
        let disorder = i64::try_from(DISORDER.as_millis())?;
        let (from, to) = (hour.wanted.hour.start().0 - disorder, hour.wanted.before.0 + disorder);
        let mut reader = self.stream.read(shard_id, UnixMillis(from)).await?;
        let mut is_past = false;
        while let Some(records) = if is_past { None } else { reader.next().await? } {
            for record in &records {
                is_past |= record.arrival().0 >= to;
                let ended = gaps.take(record);
                replayed.counts = gaps.counts;
                self.land(&ended, replayed).await?;
            }
        }
        self.land(&gaps.finish(), replayed).await
    }

    /// Where the records of a shard's hour are. The failed batches are read first: one that somebody redrives meanwhile is
    /// seen in the one place or the other.
    async fn coverage(&self, shard_id: &str, hour: &Hour) -> anyhow::Result<Coverage> {
        let mut failed = Vec::new();
        for key in hour.failed.get(shard_id).into_iter().flatten() {
            let Some(document) = self.failed_batches.get(key).await? else { continue };
            let info = FailedBatch::parse(&document).with_context(|| key.clone())?.info;
            let last = info.end_sequence_number.with_context(|| format!("{key} does not say where it ends"))?;
            failed.push((info.start_sequence_number, last));
        }
        let mut landed = Vec::new();
        for kind in [Kind::Event, Kind::Rejected] {
            let shard = format!("{}/{}/{shard_id}-", prefix(kind), hour.wanted.hour.partition());
            for object in self.landing.list(&shard).await? {
                if let Some(key) = ObjectKey::parse(&object.key)
                    && let Some(first) = key.name.clone().into_landed()
                {
                    let last = self.last(&object, &key.name, hour).await?;
                    landed.push(Reach { kind, first: first.sequence_number, last });
                }
            }
        }
        let named = hour.named.values().filter_map(|entry| {
            let key = ObjectKey::parse(&entry.key)?;
            let first = key.name.into_landed().filter(|first| first.shard_id == shard_id)?;
            let last = entry.content.as_ref()?.last_sequence_number.clone()?;
            Some(Reach { kind: key.kind, first: first.sequence_number, last })
        });
        Ok(Coverage::new(landed, failed, named.collect()))
    }

    /// The last record of what landed: by the manifest, if that means this object, else by its metadata.
    async fn last(&self, object: &Listed, name: &ObjectName, hour: &Hour) -> anyhow::Result<String> {
        let named = hour.named.get(&object.key).filter(|entry| entry.bytes == object.size);
        if let Some(last) = named.and_then(|entry| entry.content.as_ref()?.last_sequence_number.clone()) {
            return Ok(last);
        }
        let entries = self.landing.metadata(&object.key).await?;
        let entries = entries.with_context(|| format!("{} was deleted meanwhile", object.key))?;
        let metadata = ObjectMetadata::from_entries(name, &entries);
        let metadata = metadata.with_context(|| format!("{}: restore or delete it first", object.key))?;
        metadata.last_sequence_number.with_context(|| format!("{} has no sequence number", object.key))
    }

    async fn land(&self, groups: &[Group], replayed: &mut Replayed) -> anyhow::Result<()> {
        for group in groups {
            self.land_group(group).await?;
            println!("{}: landed, {} lines", group.key(), group.lines());
            replayed.objects += 1;
        }
        Ok(())
    }

    /// Writes a group's object where there is none. One with the same lines is another replay's, or an earlier try.
    async fn land_group(&self, group: &Group) -> anyhow::Result<()> {
        let key = group.key();
        let object =
            encode(group, BlockSize::fitting(group.bytes), &self.lander.attempt(), Deadline::after(lander::TIME))?;
        let mut has_written = false;
        let merge = async |found: Option<&Stored>| match found {
            None => {
                has_written = true;
                Ok(Some(object.clone()))
            }
            Some(stored) => {
                let found = ObjectMetadata::from_entries(&group.name(), &stored.entries)?;
                let is_same = found.uncompressed_sha256 == object.metadata.uncompressed_sha256;
                if is_same {
                    Ok(None)
                } else {
                    Err(anyhow!("it landed meanwhile with other records; replay the hour again"))
                }
            }
        };
        self.lander.add(&key, async || self.landing.read(&key).await, merge).await?;
        if has_written {
            self.lander.landed.add_group(group);
        }
        Ok(())
    }

    /// Reports what a replay can't restore: spilled objects that are there, and objects of the manifest that are
    /// still gone. Returns whether there are none of the latter.
    async fn report_rest(&self, hour: &Hour) -> anyhow::Result<bool> {
        let (mut gone, mut spilled) = (BTreeSet::from_iter(hour.named.keys()), 0);
        for kind in [Kind::Event, Kind::Rejected] {
            for key in self.landing.keys(&format!("{}/{}/", prefix(kind), hour.wanted.hour.partition())).await? {
                gone.remove(&key);
                let name = ObjectKey::parse(&key).map(|key| key.name);
                spilled += u64::from(matches!(name, Some(ObjectName::Spilled(_))));
            }
        }
        if spilled > 0 {
            println!("{spilled} spilled objects were already there: their lines are not taken from the stream");
        }
        let lost = gone.into_iter().filter_map(|key| Some((key, why_lost(&ObjectKey::parse(key)?.name)?)));
        let lost: Vec<(&String, &str)> = lost.collect();
        lost.iter().for_each(|(key, why)| println!("LEFT: {key} is in the manifest, but {why}"));
        Ok(lost.is_empty())
    }
}

/// Why an object that is gone could not be made again; `None` where that is not for a replay to do.
const fn why_lost(name: &ObjectName) -> Option<&'static str> {
    match name {
        ObjectName::Landed(_) => Some("its first record is not on the stream any more"),
        ObjectName::Spilled(_) => Some("it was never on the stream: restore it"),
        // Redriving the rejected object makes it again.
        ObjectName::Redriven(_) => None,
    }
}

/// Prints what became of a shard; whether nothing of it is left.
fn report(shard_id: &str, replayed: &Replayed, outcome: anyhow::Result<()>) -> bool {
    let Replayed { counts: Counts { already_there, in_failed_batches, missing }, objects } = replayed;
    let left = match (&outcome, in_failed_batches) {
        (Err(problem), _) => format!("; FAILED: {problem:#}"),
        (Ok(()), 0) => String::new(),
        (Ok(()), _) => format!("; LEFT: {in_failed_batches} records are in failed batches, redrive those"),
    };
    println!(
        "{shard_id}: {already_there} records were already there, {missing} were missing, {objects} objects landed{left}"
    );
    outcome.is_ok() && *in_failed_batches == 0
}
