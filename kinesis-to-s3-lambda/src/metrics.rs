//! The numbers of one batch, which become one line of metrics. docs/METRICS.md says what each means.

use shared::line::Kind;
use shared::metric::Metric;
use shared::rejection::Reason;
use shared::timestamp::UnixMillis;

use crate::group::Group;
use crate::kinesis_event::{KinesisEvent, Record};
use crate::landing::Landed;

/// When landing a batch began and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub began: UnixMillis,
    pub ended: UnixMillis,
}

/// The metrics of a batch that has landed. `vital_signs` are those of the environment that landed it.
#[must_use]
pub fn values(
    event: &KinesisEvent,
    groups: &[Group],
    landed: &[Landed],
    times: Times,
    vital_signs: impl Iterator<Item = (Metric, u64)>,
) -> Vec<(Metric, u64)> {
    let lines = |kind| groups.iter().filter(|group| group.kind == kind).map(Group::lines).sum();
    let oldest = groups.iter().filter_map(|group| group.counts.received_at).map(|(earliest, _)| earliest).min();
    let newest = event.records.iter().map(Record::arrival).max();
    let mut values = vec![
        (Metric::LandedRecords, event.records.len() as u64),
        (Metric::LandedEvents, lines(Kind::Event)),
        (Metric::LandedRejected, lines(Kind::Rejected)),
        (Metric::LandedObjects, landed.len() as u64),
        (Metric::UncompressedBytes, landed.iter().map(|one| one.uncompressed_bytes).sum()),
        (Metric::CompressedBytes, landed.iter().map(|one| one.compressed_bytes as u64).sum()),
        (Metric::ReplacedObjects, landed.iter().filter(|one| one.replaced).count() as u64),
        (Metric::LandingLatency, oldest.map_or(0, |oldest| millis_between(oldest, times.ended))),
        (Metric::BatchAge, newest.map_or(0, |newest| millis_between(newest, times.began))),
    ];
    values.extend(vital_signs);
    let replaced_surrogates = groups.iter().map(|group| group.counts.replaced_surrogates).sum();
    let foreign = groups.iter().map(|group| group.counts.reasons.of(Reason::ForeignRecord)).sum();
    let rare = [(Metric::ReplacedSurrogates, replaced_surrogates), (Metric::Rejected(Reason::ForeignRecord), foreign)];
    values.extend(rare.into_iter().filter(|(_, count)| *count > 0));
    values
}

/// 0 when they are the other way round: clocks differ.
fn millis_between(earlier: UnixMillis, later: UnixMillis) -> u64 {
    u64::try_from(later.0.saturating_sub(earlier.0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::group;
    use crate::group::tests::record;
    use rstest::rstest;
    use shared::line::EventFormat;

    fn values_of(records: Vec<Record>, began: i64, ended: i64) -> Vec<(Metric, u64)> {
        let event = KinesisEvent { records };
        let groups = group(&event.records, EventFormat::Envelope);
        let landed = Landed { uncompressed_bytes: 70, compressed_bytes: 7, replaced: true };
        let landed = vec![landed; groups.len()];
        let times = Times { began: UnixMillis(began), ended: UnixMillis(ended) };
        values(&event, &groups, &landed, times, [(Metric::RemainingTime, 50)].into_iter())
    }

    #[test]
    fn a_batch_in_numbers() {
        let lone = "{\"a\":\"\\ud83d\"}\ny\n{\"v\":1,\"received_at\":\"1970-01-01T00:00:11.000Z\",\
            \"rejected\":{\"reason\":\"too_deep\",\"detail\":\"\\udc00\"}}";
        let records = vec![record(1, "{}\n{}\n", 10.0), record(2, "x", 12.0), record(3, lone, 11.0)];
        assert_eq!(
            values_of(records, 12_500, 13_000),
            [
                (Metric::LandedRecords, 3),
                (Metric::LandedEvents, 3),
                (Metric::LandedRejected, 3),
                (Metric::LandedObjects, 2),
                (Metric::UncompressedBytes, 140),
                (Metric::CompressedBytes, 14),
                (Metric::ReplacedObjects, 2),
                (Metric::LandingLatency, 3_000),
                (Metric::BatchAge, 500),
                (Metric::RemainingTime, 50),
                (Metric::ReplacedSurrogates, 2),
                (Metric::Rejected(Reason::ForeignRecord), 2),
            ]
        );
    }

    #[rstest]
    #[case::nothing(Vec::new(), 0)]
    #[case::younger_than_the_clock_says(vec![record(1, "{}", 100.0)], 0)]
    #[case::of_no_time(vec![record(1, "{}", f64::NEG_INFINITY)], i64::MAX as u64)]
    fn ages_are_never_negative(#[case] records: Vec<Record>, #[case] age: u64) {
        let values = values_of(records, 10_000, 10_000);
        assert!(values.contains(&(Metric::BatchAge, age)) && values.contains(&(Metric::LandingLatency, age)));
        assert!(!values.iter().any(|(metric, _)| matches!(metric, Metric::Rejected(_))));
    }

    #[test]
    fn ingest_has_counted_what_it_rejected() {
        let line = "{\"v\":1,\"received_at\":\"1970-01-01T00:00:10.000Z\",\"rejected\":{\"reason\":\"too_deep\"}}";
        let values = values_of(vec![record(1, line, 10.0)], 0, 0);
        assert!(values.contains(&(Metric::LandedRejected, 1)));
        assert!(!values.iter().any(|(metric, _)| matches!(metric, Metric::Rejected(_))));
    }
}
