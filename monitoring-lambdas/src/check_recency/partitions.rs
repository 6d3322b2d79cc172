//! Which partitions should be sealed by now, and are they?

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use shared::timestamp::{UnixMillis, UtcHour};

use crate::manifest::incomplete_key;
use crate::rules::partition::Partition;
use crate::rules::recency::{self, LOOKBACK_HOURS, State};
use crate::seal_partition;
use crate::success::{self, SuccessError};
use lambda_setup::bucket::{Bucket, BucketError};

/// What is looked up at most once an hour. A `_SUCCESS` that somebody deletes is noticed after that.
#[derive(Debug, Default)]
pub(super) struct Memory {
    hour: Option<UtcHour>,
    /// Partitions that were found sealed.
    sealed: BTreeMap<Partition, State>,
    /// The first hour of the bucket, once it is older than the lookback.
    first: Option<UtcHour>,
}

/// The partitions that are not as they should be, oldest first, as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) missing: Vec<String>,
    pub(super) late: Vec<String>,
}

/// Checks every partition that is past its time.
pub(super) async fn check(
    bucket: &impl Bucket,
    now: UnixMillis,
    due_minutes: i64,
    memory: &mut Memory,
) -> Result<Report, SuccessError> {
    if memory.hour != Some(now.hour()) {
        *memory = Memory { hour: Some(now.hour()), first: memory.first, ..Memory::default() };
    }
    let first = first_hour(bucket, now, memory).await?;
    let expected: BTreeSet<Partition> = recency::expected(now, first, due_minutes).into_iter().collect();
    memory.sealed.retain(|partition, _| expected.contains(partition));
    let mut report = Report::default();
    for partition in expected {
        let text = partition.text();
        match state(bucket, partition, due_minutes, memory).await {
            Ok(None | Some(State::Ok)) => {}
            Ok(Some(State::Late { first_sealed_at })) if recency::is_reported(first_sealed_at, now) => {
                report.late.push(format!("{text} (sealed at {})", first_sealed_at.rfc3339()));
            }
            Ok(Some(State::Late { .. })) => {}
            Ok(Some(State::NotRun)) => report.missing.push(text),
            Err(error) if error.is_content() => {
                tracing::error!(%error, "a _SUCCESS that can't be read counts as missing");
                report.missing.push(format!("{text} (its _SUCCESS can't be read)"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// `None` for a partition that is held back, because something of it is missing.
async fn state(
    bucket: &impl Bucket,
    partition: Partition,
    due_minutes: i64,
    memory: &mut Memory,
) -> Result<Option<State>, SuccessError> {
    if let Some(state) = memory.sealed.get(&partition) {
        return Ok(Some(*state));
    }
    let first_sealed_at = success::read(bucket, partition).await?.map(|success| success.first_sealed_at);
    let state = recency::judge(partition, first_sealed_at, due_minutes);
    if state == State::NotRun && is_incomplete(bucket, partition).await? {
        // seal-partition reports it, with an alarm of its own.
        return Ok(None);
    }
    if state != State::NotRun {
        memory.sealed.insert(partition, state);
    }
    Ok(Some(state))
}

/// Whether an hour has an `_INCOMPLETE`, or any hour of a date.
async fn is_incomplete(bucket: &impl Bucket, partition: Partition) -> Result<bool, BucketError> {
    let hours: Vec<UtcHour> = match partition {
        Partition::Hour(hour) => vec![hour],
        Partition::Date(date) => date.hours().collect(),
    };
    let keys: Vec<String> = hours.iter().map(|hour| incomplete_key(&hour.partition())).collect();
    let heads = try_join_all(keys.iter().map(|key| bucket.head(key))).await?;
    Ok(heads.iter().any(Option::is_some))
}

/// The first hour in the bucket.
async fn first_hour(
    bucket: &impl Bucket,
    now: UnixMillis,
    memory: &mut Memory,
) -> Result<Option<UtcHour>, BucketError> {
    if memory.first.is_some() {
        return Ok(memory.first);
    }
    let first = seal_partition::first_hour(bucket).await?;
    memory.first = first.filter(|hour| hour.plus(LOOKBACK_HOURS + 24) < now.hour());
    Ok(first)
}
