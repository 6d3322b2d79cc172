//! Whether landing may still owe an hour records, and what the hour held when it was sealed.

use anyhow::{Context, ensure};
use monitoring_lambdas::cloudwatch::{Metrics, MetricsError};
use monitoring_lambdas::manifest::{Entry, Incomplete, Missing, Success, incomplete_key};
use monitoring_lambdas::seal_partition::landing::{Landing, Watched};
use serde::Deserialize;
use shared::object::{manifest_key, success_key};
use shared::timestamp::{UnixMillis, UtcHour};

use crate::bucket::Bucket;
use crate::lander::LONGEST_INVOCATION_MILLIS;

/// An hour that landing is done with.
pub(crate) struct SealedHour {
    /// Records that arrived later may be landing's to land.
    pub(crate) before: UnixMillis,
    /// The objects that its manifest names; none where it has no manifest.
    pub(crate) objects: Vec<Entry>,
}

#[derive(Deserialize)]
struct Manifest {
    objects: Vec<Entry>,
}

/// How far landing is at the time of the replay, according to CloudWatch.
pub(crate) struct LandingNow<M> {
    pub(crate) metrics: M,
    pub(crate) stream: String,
    pub(crate) function: String,
    pub(crate) now: UnixMillis,
}

impl<M: Metrics> LandingNow<M> {
    /// Why landing may still land what arrived before a time.
    ///
    /// It must have been past that time as long ago as an invocation can last, so that what it had in hand then has ended, and
    /// nothing may have failed since.
    async fn owes(&self, before: UnixMillis) -> Result<Vec<Missing>, MetricsError> {
        let watched = Watched {
            stream_name: &self.stream,
            landing_function_name: &self.function,
            landing_timeout_millis: LONGEST_INVOCATION_MILLIS,
        };
        let mut owed = Vec::new();
        for millis_ago in [LONGEST_INVOCATION_MILLIS, 0] {
            let at = UnixMillis(self.now.0 - millis_ago);
            owed.extend(owed_then(Landing::read(&self.metrics, &watched, at).await?, before));
        }
        Ok(owed)
    }
}

/// The stream's age is that of the reader that is furthest behind, which may be a replay, or of the only one left when landing's
/// mapping is disabled. So only what landing itself says shows that it has been past a time.
fn owed_then(landing: Landing, before: UnixMillis) -> Vec<Missing> {
    let mut owed = landing.owes(before);
    match (landing.landed_up_to, landing.read_up_to) {
        (Some(_), _) => owed.retain(|missing| !matches!(missing, Missing::UnreadRecords { .. })),
        (None, _) => owed.push(Missing::UnknownProgress),
    }
    owed
}

/// Whether landing may still land records by itself when this is missing. They would land twice if they were replayed.
fn may_still_land(missing: &Missing) -> bool {
    !matches!(
        missing,
        Missing::MissingRecords { .. }
            | Missing::FailedBatches { .. }
            | Missing::UnreadableObjects { .. }
            | Missing::BrokenObjects { .. }
    )
}

impl SealedHour {
    /// An hour that nothing lands in any more, because its stack was deleted.
    pub(crate) async fn without_landing(bucket: &Bucket, hour: UtcHour) -> anyhow::Result<Self> {
        Ok(Self { before: hour.end(), objects: named_objects(bucket, hour).await? })
    }

    /// An hour that landing was done with when it was sealed or, where its seal does not say so, is done with now.
    ///
    /// # Errors
    ///
    /// When landing may still owe the hour records, and when the bucket or CloudWatch can't be read.
    pub(crate) async fn read(
        bucket: &Bucket,
        hour: UtcHour,
        landing: &LandingNow<impl Metrics>,
    ) -> anyhow::Result<Self> {
        let sealed = last_seal(bucket, hour).await?;
        let before = sealed.as_ref().map_or(hour.end(), |(said_at, _)| hour.end().min(*said_at));
        let was_done = sealed.is_some_and(|(_, missing)| !missing.iter().any(may_still_land));
        if !was_done {
            let owed = landing.owes(before).await?;
            ensure!(
                owed.is_empty(),
                "landing may still owe {} records, as CloudWatch has it: {}. Replay the hour when landing has been past it for \
                 half an hour (without traffic, post an event now and one then), or with --landing-is-gone if its stack was deleted",
                hour.partition(),
                owed.iter().map(Missing::to_string).collect::<Vec<_>>().join("; ")
            );
        }
        Ok(Self { before, objects: named_objects(bucket, hour).await? })
    }
}

/// When an hour was sealed or found incomplete last, and what was missing then.
async fn last_seal(bucket: &Bucket, hour: UtcHour) -> anyhow::Result<Option<(UnixMillis, Vec<Missing>)>> {
    let partition = hour.partition();
    let (success, incomplete) = (success_key(&partition), incomplete_key(&partition));
    if let Some(stored) = bucket.read(&success).await? {
        let sealed: Success = serde_json::from_slice(&stored.bytes).with_context(|| success)?;
        return Ok(Some((stored.modified, sealed.accepted.map(|accepted| accepted.missing).unwrap_or_default())));
    }
    let Some(stored) = bucket.read(&incomplete).await? else { return Ok(None) };
    let found: Incomplete = serde_json::from_slice(&stored.bytes).with_context(|| incomplete)?;
    Ok(Some((stored.modified, found.missing)))
}

/// What the manifest of an hour names.
async fn named_objects(bucket: &Bucket, hour: UtcHour) -> anyhow::Result<Vec<Entry>> {
    let key = manifest_key(&hour.partition());
    let manifest = bucket.get(&key).await?.map(|bytes| serde_json::from_slice::<Manifest>(&bytes)).transpose();
    Ok(manifest.with_context(|| key)?.map(|manifest| manifest.objects).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use monitoring_lambdas::cloudwatch::{Datum, Query};
    use rstest::rstest;

    #[rstest]
    #[case::unread(Missing::UnreadRecords { read_up_to: UnixMillis(0) }, true)]
    #[case::unlanded(Missing::UnlandedRecords { landed_up_to: UnixMillis(0) }, true)]
    #[case::failing(Missing::FailingBatches, true)]
    #[case::unknown(Missing::UnknownProgress, true)]
    #[case::lost(Missing::MissingRecords { arrived: 2, landed: 1 }, false)]
    #[case::failed(Missing::FailedBatches { count: 1, keys: Vec::new() }, false)]
    #[case::broken(Missing::BrokenObjects { keys: Vec::new() }, false)]
    fn records_that_landing_may_still_land_are_not_replayed(#[case] missing: Missing, #[case] expected: bool) {
        assert_eq!(may_still_land(&missing), expected);
    }

    /// CloudWatch with ages of landing's batches and of the stream's reads, in minutes before now, and failures.
    #[derive(Default)]
    struct Recorded {
        landed: Vec<(i64, i64)>,
        read: Vec<(i64, i64)>,
        failed_minutes_ago: Vec<i64>,
    }

    const NOW: UnixMillis = UnixMillis(1_795_260_000_000);

    fn ago(minutes: i64) -> UnixMillis {
        UnixMillis(NOW.0 - minutes * 60_000)
    }

    impl Metrics for Recorded {
        async fn put(&self, _: &[Datum]) -> Result<(), MetricsError> {
            Err(MetricsError::new("PutMetricData", "nothing is put".into()))
        }

        async fn read(&self, query: &Query) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
            let minutes = |ages: &[(i64, i64)]| -> Vec<(UnixMillis, f64)> {
                ages.iter().map(|(at, age)| (ago(*at), (age * 60_000) as f64)).collect()
            };
            let values = match query.name.as_str() {
                "IteratorAge" => minutes(&self.landed),
                "GetRecords.IteratorAgeMilliseconds" => minutes(&self.read),
                "Errors" => self.failed_minutes_ago.iter().map(|at| (ago(*at), 1.0)).collect(),
                _ => Vec::new(),
            };
            Ok(values.into_iter().filter(|(at, _)| (query.from..query.to).contains(at)).collect())
        }
    }

    /// What arrived up to an hour ago is to be replayed.
    #[rstest]
    #[case::past_it_since(Recorded { landed: vec![(20, 0), (5, 0)], ..Recorded::default() }, "[]")]
    #[case::another_reads_and_landing_says_nothing(
        Recorded { read: vec![(20, 0), (5, 0)], ..Recorded::default() }, "unknown_progress")]
    #[case::past_it_and_another_reader_lags(
        Recorded { landed: vec![(20, 0), (5, 0)], read: vec![(20, 900), (5, 900)], ..Recorded::default() }, "[]")]
    #[case::past_it_only_just(Recorded { landed: vec![(20, 90), (5, 0)], ..Recorded::default() }, "unlanded_records")]
    #[case::behind(Recorded { landed: vec![(20, 0), (5, 90)], ..Recorded::default() }, "unlanded_records")]
    #[case::idle_and_not_read(Recorded { read: vec![(20, 90), (5, 90)], ..Recorded::default() }, "unread_records")]
    #[case::failing(
        Recorded { landed: vec![(20, 0), (5, 0)], failed_minutes_ago: vec![24], ..Recorded::default() }, "failing_batches")]
    #[case::no_values(Recorded::default(), "unknown_progress")]
    #[tokio::test]
    async fn landing_is_judged_by_how_far_it_is_now(#[case] metrics: Recorded, #[case] expected: &str) {
        let landing = LandingNow { metrics, stream: "s".into(), function: "f".into(), now: NOW };
        let owed = serde_json::to_string(&landing.owes(ago(60)).await.unwrap()).unwrap();
        assert!(if expected == "[]" { owed == expected } else { owed.contains(expected) }, "{owed}");
    }
}
