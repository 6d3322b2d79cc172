//! The numbers of one request. docs/METRICS.md says what each means.

use shared::metric::Metric;

use crate::put::PutReport;

/// The usual number of values: a request seldom has more than one reason for rejection.
const USUAL_COUNT: usize = 16;

/// What the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Events that the client may forget.
    pub accepted: usize,
    /// Events and rejected pieces that the client may send again.
    pub not_stored: usize,
}

/// The metrics of a request; `answered` is `None` for health checks and preflights. What did not happen is left out.
#[must_use]
pub fn of_request(
    report: &PutReport,
    answered: Option<Answered>,
    body_bytes: usize,
    times: &[(Metric, u64)],
) -> Vec<(Metric, u64)> {
    let mut values = Vec::with_capacity(USUAL_COUNT);
    values.extend(times);
    values.push((Metric::Requests, 1));
    let Some(answered) = answered else {
        values.push((Metric::Preflights, 1));
        return values;
    };
    let (rejected, body_bytes) = (report.rejected_lines(), body_bytes as u64);
    values.extend([
        (Metric::AcceptedEvents, answered.accepted as u64),
        (Metric::SpilledEvents, report.spilled_events()),
        (Metric::RejectedLines, rejected.total()),
        (Metric::NotStoredEvents, answered.not_stored as u64),
        (Metric::ReplacedSurrogates, report.replaced_surrogates()),
        (Metric::RequestBytes, body_bytes),
        (Metric::LargestRequest, body_bytes),
    ]);
    values.extend(rejected.iter().map(|(reason, lines)| (Metric::Rejected(reason), lines)));
    // But not of times: nothing left is the worst that there is.
    values.retain(|(metric, value)| *value > 0 || *metric == Metric::RemainingTime);
    values
}

/// The metrics of what was put on the stream: of one request, or of many that shared records.
pub fn of_puts(report: &PutReport) -> impl Iterator<Item = (Metric, u64)> {
    let values = [
        (Metric::PutRecords, report.put_records()),
        (Metric::RetriedEntries, report.retried_entries),
        (Metric::ThrottledEntries, report.throttled_entries),
        (Metric::StoredBytes, report.stored_bytes()),
    ];
    values.into_iter().filter(|(_, value)| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{Buckets, HashKey};
    use crate::pack::Record;
    use crate::put::Place;
    use proptest::prelude::*;
    use proptest::sample::select;
    use shared::line::Kind;
    use shared::rejection::Reason;

    fn record(reasons: &[Reason], data: &[u8]) -> Record {
        Record {
            kind: if reasons.is_empty() { Kind::Event } else { Kind::Rejected },
            bucket: Buckets::default().bucket_of(HashKey::of(b"key")),
            data: data.to_vec(),
            items: vec![0; reasons.len().max(1)],
            reasons: reasons.to_vec(),
            replaced_surrogates: 1,
            receipts: Vec::new(),
        }
    }

    const TIMES: [(Metric, u64); 2] = [(Metric::HandlingTime, 700), (Metric::RemainingTime, 0)];

    fn values_of(report: &PutReport) -> Vec<(Metric, u64)> {
        let mut values = of_request(report, Some(Answered { accepted: 3, not_stored: 2 }), 2, &TIMES);
        values.extend(of_puts(report));
        values
    }

    #[test]
    fn what_did_not_happen_is_left_out() {
        assert_eq!(
            values_of(&PutReport::default()),
            [
                (Metric::HandlingTime, 700),
                (Metric::RemainingTime, 0),
                (Metric::Requests, 1),
                (Metric::AcceptedEvents, 3),
                (Metric::NotStoredEvents, 2),
                (Metric::RequestBytes, 2),
                (Metric::LargestRequest, 2),
            ]
        );
    }

    #[test]
    fn preflights_count_as_requests_and_nothing_else() {
        let values = of_request(&PutReport::default(), None, 0, &TIMES);
        assert_eq!(values[2..], [(Metric::Requests, 1), (Metric::Preflights, 1)]);
    }

    #[test]
    fn what_is_stored_is_counted_and_of_the_stream_only_what_is_on_it() {
        let records = vec![
            record(&[], b"four"),
            record(&[Reason::TooDeep, Reason::NotAnObject, Reason::TooDeep], b"seven77"),
            record(&[], b"spilled"),
            record(&[Reason::InvalidJson], b"spilled"),
            record(&[Reason::TooDeep, Reason::InvalidJson], b"lost"),
            record(&[], b"lost"),
        ];
        let (stream, spilled) = (Some(Place::Stream), Some(Place::Spilled));
        let stored = vec![stream, stream, spilled, spilled, None, None];
        let values = values_of(&PutReport { records, stored, throttled_entries: 5, ..PutReport::default() });
        for expected in [
            (Metric::SpilledEvents, 1),
            (Metric::RejectedLines, 4),
            (Metric::Rejected(Reason::TooDeep), 2),
            (Metric::Rejected(Reason::NotAnObject), 1),
            (Metric::Rejected(Reason::InvalidJson), 1),
            (Metric::PutRecords, 2),
            (Metric::StoredBytes, 11),
            (Metric::ReplacedSurrogates, 4),
            (Metric::ThrottledEntries, 5),
        ] {
            assert!(values.contains(&expected), "{expected:?} in {values:?}");
        }
        assert_eq!(values.iter().filter(|(metric, _)| matches!(metric, Metric::Rejected(_))).count(), 3);
    }

    proptest! {
        #[test]
        fn reasons_add_up_to_the_rejected_lines_and_none_stands_twice(
            records in prop::collection::vec((prop::collection::vec(select(Reason::ALL.to_vec()), 0..20), any::<bool>()), 0..20),
        ) {
            let stored = records.iter().map(|(_, stored)| stored.then_some(Place::Stream)).collect();
            let records = records.iter().map(|(reasons, _)| record(reasons, b"")).collect();
            let values = values_of(&PutReport { records, stored, ..PutReport::default() });
            let by_reason = values.iter().filter(|(metric, _)| matches!(metric, Metric::Rejected(_)));
            prop_assert!(by_reason.clone().all(|(_, lines)| *lines > 0));
            let total = values.iter().find(|(metric, _)| *metric == Metric::RejectedLines).map_or(0, |(_, lines)| *lines);
            prop_assert_eq!(by_reason.map(|(_, lines)| *lines).sum::<u64>(), total);
            let metrics: std::collections::BTreeSet<_> = values.iter().map(|(metric, _)| *metric).collect();
            prop_assert_eq!(metrics.len(), values.len());
        }
    }
}
