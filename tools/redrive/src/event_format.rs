//! The format of the events that are landed again.
//!
//! The wrong format is dangerous: read as envelopes, raw lines are believed what a client wrote into them, and lines that
//! landed in the other format land twice. So the format comes from what landed around them. An operator is asked only
//! where that can't tell, and contradicted where it says otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use shared::line::{EventFormat, Kind};
use shared::object::{ObjectKey, ObjectMetadata, prefix};
use shared::sequence_number::compare;
use shared::timestamp::{UtcDate, UtcHour};
use tokio::sync::Mutex;

use crate::bucket::Bucket;

/// How far from an hour in which nothing landed others are looked at: twice the time after which a batch is given up.
const MAX_DISTANCE_HOURS: i64 = 14 * 24;

/// What the landed objects say of an hour's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Objects of the hour, or those before and after it, all have this format.
    Certain(EventFormat),
    /// The last object before the hour has this format, and nothing has landed since: it may have been changed.
    Earlier(EventFormat),
    /// Both formats are there: it was changed in this hour, or between the objects before and after it.
    Mixed,
    /// No object says its format.
    Absent,
}

/// Why it is not known how events are to be landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("what landed around {hour} is {found}, not {passed}: leave --event-format out", hour = .0.partition(), found = .1.as_str(), passed = .2.as_str())]
    Contradicted(UtcHour, EventFormat, EventFormat),
    #[error(
        "nothing has landed since {hour}, and what landed before it is {found}: pass --event-format {found}, or the other one \
         if the stack's parameter EventFormat was changed since", hour = .0.partition(), found = .1.as_str()
    )]
    OnlyEarlier(UtcHour, EventFormat),
    #[error("both formats landed around {hour}: pass --event-format with the stack's EventFormat of that time", hour = .0.partition())]
    Mixed(UtcHour),
    #[error("nothing landed around {hour}: pass --event-format with the stack's parameter EventFormat", hour = .0.partition())]
    Absent(UtcHour),
}

/// The format for an hour, by what landed and by what the operator passed.
pub(crate) fn choose(
    hour: UtcHour,
    passed: Option<EventFormat>,
    evidence: Evidence,
) -> Result<EventFormat, FormatError> {
    match (evidence, passed) {
        (Evidence::Certain(found), Some(passed)) if passed != found => {
            Err(FormatError::Contradicted(hour, found, passed))
        }
        (Evidence::Certain(found), _) => Ok(found),
        (_, Some(passed)) => Ok(passed),
        (Evidence::Earlier(found), None) => Err(FormatError::OnlyEarlier(hour, found)),
        (Evidence::Mixed, None) => Err(FormatError::Mixed(hour)),
        (Evidence::Absent, None) => Err(FormatError::Absent(hour)),
    }
}

/// What the objects nearest to an hour say, if none of its own does.
fn from_neighbours(before: &BTreeSet<EventFormat>, after: &BTreeSet<EventFormat>) -> Evidence {
    match (only(before), only(after)) {
        (_, Some(format)) if before.is_empty() || only(before) == Some(format) => Evidence::Certain(format),
        (Some(format), None) if after.is_empty() => Evidence::Earlier(format),
        _ if before.is_empty() && after.is_empty() => Evidence::Absent,
        _ => Evidence::Mixed,
    }
}

fn only(formats: &BTreeSet<EventFormat>) -> Option<EventFormat> {
    formats.first().copied().filter(|_| formats.len() == 1)
}

/// The first and the last object of each shard by their place on the stream: a format changes once, between two of them.
/// What was spilled says how ingest wrote its lines, not how landing read the stream.
fn first_and_last(keys: &[String]) -> BTreeSet<&String> {
    let mut shards: BTreeMap<String, Vec<(String, &String)>> = BTreeMap::new();
    for key in keys {
        if let Some(first) = ObjectKey::parse(key).and_then(|parsed| parsed.name.into_landed()) {
            shards.entry(first.shard_id).or_default().push((first.sequence_number, key));
        }
    }
    let mut ends = BTreeSet::new();
    for mut objects in shards.into_values() {
        objects.sort_by(|(one, _), (other, _)| compare(one, other));
        ends.extend(objects.first().into_iter().chain(objects.last()).map(|(_, key)| *key));
    }
    ends
}

/// The formats of hours.
pub(crate) struct Formats {
    bucket: Bucket,
    passed: Option<EventFormat>,
    hours: Mutex<HashMap<UtcHour, Evidence>>,
}

impl Formats {
    /// Of the landing bucket's hours; `passed` is what the operator named.
    pub(crate) fn new(bucket: Bucket, passed: Option<EventFormat>) -> Self {
        Self { bucket, passed, hours: Mutex::default() }
    }

    /// The format of what arrived in an hour.
    pub(crate) async fn of_hour(&self, hour: UtcHour) -> anyhow::Result<EventFormat> {
        let mut hours = self.hours.lock().await;
        let evidence = match hours.get(&hour) {
            Some(evidence) => *evidence,
            None => self.evidence(hour).await?,
        };
        hours.insert(hour, evidence);
        Ok(choose(hour, self.passed, evidence)?)
    }

    /// The format of what an object holds, which usually says so itself.
    ///
    /// # Errors
    ///
    /// As [`Formats::of_hour`]; when the operator named another one; and when its metadata is malformed.
    pub(crate) async fn of_object(
        &self,
        hour: UtcHour,
        entries: &HashMap<String, String>,
    ) -> anyhow::Result<EventFormat> {
        match ObjectMetadata::event_format_entry(entries)? {
            Some(own) => Ok(choose(hour, self.passed, Evidence::Certain(own))?),
            None => self.of_hour(hour).await,
        }
    }

    async fn evidence(&self, hour: UtcHour) -> anyhow::Result<Evidence> {
        let own = self.formats_in(hour).await?;
        if !own.is_empty() {
            return Ok(only(&own).map_or(Evidence::Mixed, Evidence::Certain));
        }
        let hours = self.hours_near(hour).await?;
        let before = self.nearest(hours.range(..hour).rev()).await?;
        let after = self.nearest(hours.range(hour.plus(1)..)).await?;
        Ok(from_neighbours(&before, &after))
    }

    async fn nearest<'h>(&self, hours: impl Iterator<Item = &'h UtcHour>) -> anyhow::Result<BTreeSet<EventFormat>> {
        for hour in hours {
            let formats = self.formats_in(*hour).await?;
            if !formats.is_empty() {
                return Ok(formats);
            }
        }
        Ok(BTreeSet::new())
    }

    async fn formats_in(&self, hour: UtcHour) -> anyhow::Result<BTreeSet<EventFormat>> {
        let mut formats = BTreeSet::new();
        let mut keys = Vec::new();
        for kind in [Kind::Event, Kind::Rejected] {
            keys.extend(self.bucket.keys(&format!("{}/{}/", prefix(kind), hour.partition())).await?);
        }
        for key in first_and_last(&keys) {
            let Some(entries) = self.bucket.metadata(key).await? else { continue };
            // One whose metadata can't be read says nothing.
            formats.extend(ObjectMetadata::event_format_entry(&entries).ok().flatten());
        }
        Ok(formats)
    }

    async fn hours_near(&self, hour: UtcHour) -> anyhow::Result<BTreeSet<UtcHour>> {
        let dates = hour.plus(-MAX_DISTANCE_HOURS).date()..=hour.plus(MAX_DISTANCE_HOURS).date();
        let first = dates.start().partition();
        let mut hours = BTreeSet::new();
        for kind in [Kind::Event, Kind::Rejected] {
            let root = format!("{}/", prefix(kind));
            for date in self.bucket.folders(&root, &format!("{root}{first}")).await? {
                if UtcDate::parse(partition(&date, &root)).is_some_and(|date| dates.contains(&date)) {
                    let folders = self.bucket.folders(&date, &date).await?;
                    hours.extend(folders.iter().filter_map(|hour| UtcHour::parse(partition(hour, &root))));
                }
            }
        }
        Ok(hours)
    }
}

/// What a folder's partition is called.
fn partition<'f>(folder: &'f str, root: &str) -> &'f str {
    folder.strip_prefix(root).unwrap_or(folder).trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use shared::line::EventFormat::{Envelope, Raw};

    fn hour() -> UtcHour {
        UtcHour::parse("dt=2026-11-21/hour=09").unwrap()
    }

    #[rstest]
    #[case::read_from_what_landed(None, Evidence::Certain(Raw), Ok(Raw))]
    #[case::passed_alike(Some(Raw), Evidence::Certain(Raw), Ok(Raw))]
    #[case::passed_otherwise(
        Some(Envelope),
        Evidence::Certain(Raw),
        Err(FormatError::Contradicted(hour(), Raw, Envelope))
    )]
    #[case::nothing_landed_since(None, Evidence::Earlier(Raw), Err(FormatError::OnlyEarlier(hour(), Raw)))]
    #[case::changed_since(Some(Envelope), Evidence::Earlier(Raw), Ok(Envelope))]
    #[case::both(None, Evidence::Mixed, Err(FormatError::Mixed(hour())))]
    #[case::both_and_passed(Some(Raw), Evidence::Mixed, Ok(Raw))]
    #[case::nothing(None, Evidence::Absent, Err(FormatError::Absent(hour())))]
    #[case::nothing_and_passed(Some(Raw), Evidence::Absent, Ok(Raw))]
    fn what_landed_decides_and_the_operator_where_it_cannot(
        #[case] passed: Option<EventFormat>,
        #[case] evidence: Evidence,
        #[case] expected: Result<EventFormat, FormatError>,
    ) {
        assert_eq!(choose(hour(), passed, evidence), expected);
    }

    #[rstest]
    #[case(&[Raw], &[Raw], Evidence::Certain(Raw))]
    #[case(&[], &[Raw], Evidence::Certain(Raw))]
    #[case(&[Raw], &[], Evidence::Earlier(Raw))]
    #[case(&[Envelope], &[Raw], Evidence::Mixed)]
    #[case(&[Envelope, Raw], &[Raw], Evidence::Mixed)]
    #[case(&[Raw], &[Envelope, Raw], Evidence::Mixed)]
    #[case(&[Envelope, Raw], &[], Evidence::Mixed)]
    #[case(&[], &[], Evidence::Absent)]
    fn an_empty_hour_has_the_format_of_its_neighbours(
        #[case] before: &[EventFormat],
        #[case] after: &[EventFormat],
        #[case] expected: Evidence,
    ) {
        let set = |formats: &[EventFormat]| formats.iter().copied().collect();
        assert_eq!(from_neighbours(&set(before), &set(after)), expected);
    }

    #[test]
    fn the_ends_of_each_shard_are_looked_at_and_nothing_that_was_redriven_or_spilled() {
        let key = |name: &str| format!("events/dt=2026-11-21/hour=09/{name}.jsonl.bz2");
        let keys = [
            "shardId-000000000000-9",
            "shardId-000000000000-10",
            "shardId-000000000000-8",
            "shardId-000000000000-1-redriven",
            "shardId-000000000001-5",
            "spill-019aa5d1c2f67b3a9f1e0123456789ab",
        ]
        .map(key);
        assert_eq!(first_and_last(&keys), BTreeSet::from([&keys[2], &keys[1], &keys[4]]));
        assert!(first_and_last(&["events/dt=2026-11-21/hour=09/_SUCCESS".to_owned()]).is_empty());
    }
}
