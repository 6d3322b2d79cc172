//! When an hour is sealed, and whether its `_SUCCESS` is there in time.

use std::collections::BTreeSet;

use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis, UtcHour};

use super::partition::Partition;

/// How many hours back seal-partition and check-recency look.
pub(crate) const LOOKBACK_HOURS: i64 = 48;

/// A date is sealed after its last hour.
pub(crate) const DATE_EXTRA_MINUTES: i64 = 10;

/// The shipped time from the end of an hour to when it must be sealed, in minutes.
pub const SHIPPED_DUE_MINUTES: i64 = 40;

/// Minutes between the runs of seal-partition, from the full hour on, in template.yaml.
const SEAL_INTERVAL_MINUTES: i64 = 10;

/// How long a late seal is reported, in milliseconds: then the alarm ends.
const LATE_REPORT_MILLIS: i64 = 2 * 60 * MILLIS_PER_MINUTE;

/// Whether a partition was sealed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ok,
    /// It is sealed, but was not when it was due.
    Late {
        first_sealed_at: UnixMillis,
    },
    /// It is past its time and not sealed.
    NotRun,
}

/// The time by which nothing more is expected of an hour.
pub(crate) const fn closes_at(hour: UtcHour, grace_millis: i64) -> UnixMillis {
    UnixMillis(hour.end().0 + grace_millis)
}

pub(crate) fn is_closed(hour: UtcHour, at: UnixMillis, grace_millis: i64) -> bool {
    closes_at(hour, grace_millis) <= at
}

/// The closed hours, of the last [`LOOKBACK_HOURS`] and not before the first one that there is. In an empty bucket the last
/// closed hour is sealed as empty: from then on none is left out.
pub(crate) fn closed_hours(at: UnixMillis, grace_millis: i64, first: Option<UtcHour>) -> BTreeSet<UtcHour> {
    let last = UnixMillis(at.0 - grace_millis).hour().plus(-1);
    let hours = (0..LOOKBACK_HOURS).map(|back| last.plus(-back));
    match first {
        Some(first) => hours.filter(|hour| *hour >= first).collect(),
        None => BTreeSet::from([last]),
    }
}

/// The last moment to be sealed in time.
pub const fn due(partition: Partition, due_minutes: i64) -> UnixMillis {
    let extra = match partition {
        Partition::Hour(_) => 0,
        Partition::Date(_) => DATE_EXTRA_MINUTES,
    };
    UnixMillis(partition.end().0 + (due_minutes + extra) * MILLIS_PER_MINUTE)
}

/// Minutes from the end of an hour to the run that seals it, with so many minutes of grace.
pub(crate) const fn sealing_minutes(grace_minutes: i64) -> i64 {
    (grace_minutes + SEAL_INTERVAL_MINUTES - 1) / SEAL_INTERVAL_MINUTES * SEAL_INTERVAL_MINUTES
}

/// Whether no later run of seal-partition begins by the time that a partition is due.
pub(crate) const fn is_last_run(partition: Partition, at: UnixMillis, due_minutes: i64) -> bool {
    at.0 + SEAL_INTERVAL_MINUTES * MILLIS_PER_MINUTE > due(partition, due_minutes).0
}

/// When a partition must have `_SUCCESS` or `_INCOMPLETE`.
pub const fn verdict_at(partition: Partition, due_minutes: i64) -> UnixMillis {
    due(partition, verdict_minutes(due_minutes))
}

/// Minutes from the end of an hour to when it must have a verdict: the last run in time may take until the next one begins.
const fn verdict_minutes(due_minutes: i64) -> i64 {
    (due_minutes / SEAL_INTERVAL_MINUTES + 1) * SEAL_INTERVAL_MINUTES
}

/// The state of a partition that is past its time.
pub fn judge(partition: Partition, first_sealed_at: Option<UnixMillis>, due_minutes: i64) -> State {
    match first_sealed_at {
        None => State::NotRun,
        Some(at) if at <= due(partition, due_minutes) => State::Ok,
        Some(first_sealed_at) => State::Late { first_sealed_at },
    }
}

/// Whether a late seal is still reported.
pub(crate) const fn is_reported(first_sealed_at: UnixMillis, now: UnixMillis) -> bool {
    now.0 < first_sealed_at.0 + LATE_REPORT_MILLIS
}

/// The partitions of which the last run in time is over, of the last [`LOOKBACK_HOURS`] and not from before the first hour that there
/// is; a date that began before it is never sealed. Of a stack that is so new that there is none, nothing is expected yet: the
/// age of its newest event and a sealer that does not run have alarms of their own.
pub fn expected(now: UnixMillis, first: Option<UtcHour>, due_minutes: i64) -> Vec<Partition> {
    // A run that ends this very millisecond is still in time.
    let past = UnixMillis(now.0 - verdict_minutes(due_minutes) * MILLIS_PER_MINUTE - 1);
    let last_hour = past.hour().plus(-1);
    let Some(first) = first else { return Vec::new() };
    let hours = (0..LOOKBACK_HOURS).map(|back| last_hour.plus(-back)).filter(|hour| *hour >= first);
    let last_date = UnixMillis(past.0 - DATE_EXTRA_MINUTES * MILLIS_PER_MINUTE).hour().date().plus(-1);
    let dates = (0..LOOKBACK_HOURS / 24).map(|back| last_date.plus(-back)).filter(|date| date.hour(0) >= first);
    hours.map(Partition::Hour).chain(dates.map(Partition::Date)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use shared::timestamp::UtcDate;

    fn time(text: &str) -> UnixMillis {
        UnixMillis::parse(text).unwrap()
    }

    fn hour(text: &str) -> UtcHour {
        UtcHour::parse(text).unwrap()
    }

    const GRACE: i64 = 15 * MILLIS_PER_MINUTE;

    fn morning(text: &str) -> UnixMillis {
        time(&format!("2026-11-21T{text}.000Z"))
    }

    #[test]
    fn an_hour_closes_when_its_grace_is_over() {
        let nine = hour("dt=2026-11-21/hour=09");
        let last = |time| closed_hours(morning(time), GRACE, None).pop_first().unwrap();
        assert_eq!(last("10:15:00"), nine);
        assert_eq!(last("10:14:59"), nine.plus(-1));
        assert!(is_closed(nine, morning("10:15:00"), GRACE) && !is_closed(nine, morning("10:14:59"), GRACE));
    }

    #[test]
    fn hours_go_back_to_the_first_and_no_further_than_two_days() {
        let nine = hour("dt=2026-11-21/hour=09");
        let from = |first| closed_hours(morning("10:20:00"), GRACE, Some(first));
        assert_eq!(from(nine.plus(-2)), BTreeSet::from([nine.plus(-2), nine.plus(-1), nine]));
        assert!(from(nine.plus(1)).is_empty());
        let all = from(nine.plus(-1000));
        assert_eq!((all.len(), all.first().copied()), (48, Some(nine.plus(-47))));
    }

    #[rstest]
    #[case(None, State::NotRun)]
    #[case(Some("2026-11-21T10:20:00.000Z"), State::Ok)]
    #[case(Some("2026-11-21T10:40:00.000Z"), State::Ok)]
    #[case(Some("2026-11-21T10:40:00.001Z"), State::Late { first_sealed_at: UnixMillis(1_795_257_600_001) })]
    fn a_seal_is_judged_by_its_time(#[case] sealed_at: Option<&str>, #[case] expected: State) {
        let partition = Partition::Hour(hour("dt=2026-11-21/hour=09"));
        assert_eq!(judge(partition, sealed_at.map(time), 40), expected);
    }

    #[rstest]
    #[case::the_last_run_begins(40, "2026-11-21T10:40:00.001Z", "dt=2026-11-21/hour=08")]
    #[case::it_may_take_until_the_next_one(40, "2026-11-21T10:50:00.000Z", "dt=2026-11-21/hour=08")]
    #[case::it_is_over(40, "2026-11-21T10:50:00.001Z", "dt=2026-11-21/hour=09")]
    #[case::due_between_two_runs(49, "2026-11-21T10:50:00.000Z", "dt=2026-11-21/hour=08")]
    #[case::due_between_two_runs(49, "2026-11-21T10:50:00.001Z", "dt=2026-11-21/hour=09")]
    #[case::over_midnight(40, "2026-11-22T00:50:01.000Z", "dt=2026-11-21/hour=23")]
    fn an_hour_is_expected_once_the_last_run_in_time_is_over(#[case] due: i64, #[case] now: &str, #[case] last: &str) {
        let all = expected(time(now), Some(hour("dt=2026-01-01/hour=00")), due);
        let hours: Vec<_> = all.iter().filter(|one| matches!(one, Partition::Hour(_))).collect();
        assert_eq!((hours.len(), hours[0].text()), (48, last.to_owned()));
        assert_eq!(expected(time(now), None, due), []);
    }

    #[rstest]
    #[case("2026-11-22T01:00:00.000Z", "dt=2026-11-20")]
    #[case("2026-11-22T01:00:00.001Z", "dt=2026-11-21")]
    fn dates_are_expected_ten_minutes_after_their_last_hour(#[case] now: &str, #[case] last: &str) {
        let all = expected(time(now), Some(hour("dt=2026-01-01/hour=00")), 40);
        let dates: Vec<_> = all.iter().filter(|one| matches!(one, Partition::Date(_))).collect();
        assert_eq!((dates.len(), dates[0].text()), (2, last.to_owned()));
    }

    #[rstest]
    #[case("dt=2026-11-21/hour=22", &["dt=2026-11-21/hour=23", "dt=2026-11-21/hour=22"])]
    #[case("dt=2026-11-22/hour=00", &[])]
    fn nothing_is_expected_from_before_the_first_hour(#[case] first: &str, #[case] texts: &[&str]) {
        let all = expected(time("2026-11-22T01:10:00.000Z"), Some(hour(first)), 40);
        assert_eq!(all.iter().map(|one| one.text()).collect::<Vec<_>>(), texts);
    }

    #[rstest]
    #[case("dt=2026-11-21/hour=00", true)]
    #[case("dt=2026-11-21/hour=01", false)]
    fn the_first_date_is_only_expected_if_it_is_whole(#[case] first: &str, #[case] is_expected: bool) {
        let all = expected(time("2026-11-22T01:10:00.000Z"), Some(hour(first)), 40);
        let date = UtcDate::parse("dt=2026-11-21").map(Partition::Date).unwrap();
        assert_eq!(all.contains(&date), is_expected);
    }

    #[rstest]
    #[case(1, 10)]
    #[case(15, 20)]
    #[case(20, 20)]
    #[case(21, 30)]
    #[case(180, 180)]
    fn an_hour_is_sealed_by_the_first_run_after_its_grace(#[case] grace: i64, #[case] minutes: i64) {
        assert_eq!(sealing_minutes(grace), minutes);
    }

    #[rstest]
    #[case(40, "10:30:00", false)]
    #[case(40, "10:30:01", true)]
    #[case(45, "10:35:00", false)]
    #[case(45, "10:40:00", true)]
    #[case(45, "12:00:00", true)]
    fn the_last_run_in_time_is_the_one_before_the_due_time(#[case] due: i64, #[case] at: &str, #[case] is_last: bool) {
        let at = time(&format!("2026-11-21T{at}.000Z"));
        assert_eq!(is_last_run(Partition::Hour(hour("dt=2026-11-21/hour=09")), at, due), is_last);
    }

    #[test]
    fn a_late_seal_is_reported_for_two_hours() {
        let sealed = time("2026-11-21T12:00:00.000Z");
        assert!(is_reported(sealed, time("2026-11-21T13:59:59.999Z")));
        assert!(!is_reported(sealed, time("2026-11-21T14:00:00.000Z")));
    }

    proptest! {
        #[test]
        fn expected_partitions_are_overdue_and_few(now in 0i64..4_000_000_000_000, due_minutes in 1i64..=720) {
            let all = expected(UnixMillis(now), Some(UnixMillis(0).hour().plus(-10_000)), due_minutes);
            prop_assert_eq!(all.len(), 50);
            for partition in all {
                let late_by = now - due(partition, due_minutes).0;
                prop_assert!(late_by > 0 && late_by <= LOOKBACK_HOURS * 3_600_000 + 600_000, "{late_by}");
            }
        }
    }
}
