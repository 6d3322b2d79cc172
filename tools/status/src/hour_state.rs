//! What an hour is: open, sealed, missing … Pure: it takes what was read of the hour, and the time.

use monitoring_lambdas::manifest::{Incomplete, Success};
use monitoring_lambdas::rules::partition::Partition;
use monitoring_lambdas::rules::recency;
use monitoring_lambdas::rules::size::{Outcome, Rule};
use serde::Serialize;
use shared::timestamp::{MILLIS_PER_HOUR, UnixMillis, UtcHour};

/// How far an hour has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It could not be read yet: nothing is known.
    Unknown,
    /// It is before the first hour that anything landed in.
    Before,
    /// Events still arrive.
    Open,
    /// It is over, and not due yet.
    Closing,
    /// It has `_SUCCESS`.
    Sealed,
    /// It has `_INCOMPLETE`: something is missing.
    Incomplete,
    /// It is past its time and has neither.
    Missing,
}

/// What else is to be said of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    /// It was sealed after it was due.
    SealedLate,
    /// Objects came after the first seal.
    LateObjects,
    /// It breaks a rule on size, and is smaller than expected.
    Small,
    /// It breaks a rule on size, and is larger than expected.
    Large,
    /// More of it was rejected than may be.
    Rejected,
    /// Some of it is there twice.
    Doubled,
    /// A person accepted it as it is.
    Accepted,
    /// It is in Parquet as it is sealed.
    Compacted,
}

/// What was read of an hour.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) success: Option<Success>,
    pub(crate) incomplete: Option<Incomplete>,
    /// The manifest that its Parquet was made of.
    pub(crate) compacted: Option<String>,
}

/// How long hours that were due before the one-machine stack started may take: as its alarms on hours that are sealed late.
const START_GRACE_MILLIS: i64 = 3 * MILLIS_PER_HOUR;

/// When hours count as missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) minutes: i64,
    /// When the one-machine stack started.
    pub(crate) started: Option<UnixMillis>,
}

impl Due {
    /// The last moment at which an hour need not be sealed.
    fn verdict(&self, hour: UtcHour) -> UnixMillis {
        let verdict = recency::verdict_at(Partition::Hour(hour), self.minutes);
        match self.started {
            Some(started) if verdict < started => UnixMillis(started.0.saturating_add(START_GRACE_MILLIS)),
            _ => verdict,
        }
    }
}

/// `facts` are `None` while it could not be read; `first` is the first hour that anything landed in.
pub(crate) fn state(hour: UtcHour, facts: Option<&Facts>, first: Option<UtcHour>, now: UnixMillis, due: &Due) -> State {
    let Some(facts) = facts else { return State::Unknown };
    if facts.success.is_some() {
        return State::Sealed;
    }
    if facts.incomplete.is_some() {
        return State::Incomplete;
    }
    if now < hour.end() {
        return State::Open;
    }
    if first.is_none_or(|first| hour < first) {
        return State::Before;
    }
    if now <= due.verdict(hour) { State::Closing } else { State::Missing }
}

/// The marks of a sealed hour; `judged` are the outcomes of the rules on size, and whether it has more bytes than expected.
pub(crate) fn marks(
    hour: UtcHour,
    facts: &Facts,
    judged: Option<(&[(Rule, Outcome)], bool)>,
    due_minutes: i64,
) -> Vec<Mark> {
    let Some(success) = &facts.success else { return Vec::new() };
    let totals = &success.totals;
    let is_violated = |wanted: &dyn Fn(Rule) -> bool| {
        let violations = judged.iter().flat_map(|(judged, _)| judged.iter());
        violations.filter(|(_, outcome)| *outcome == Outcome::Violation).any(|(rule, _)| wanted(*rule))
    };
    let has_wrong_size = is_violated(&|rule| rule != Rule::RejectedShare);
    let is_large = judged.is_some_and(|(_, is_large)| is_large);
    let is_late = success.first_sealed_at > recency::due(Partition::Hour(hour), due_minutes);
    let marks = [
        (Mark::SealedLate, is_late),
        (Mark::LateObjects, success.late_objects > 0),
        (Mark::Small, has_wrong_size && !is_large),
        (Mark::Large, has_wrong_size && is_large),
        (Mark::Rejected, is_violated(&|rule| rule == Rule::RejectedShare)),
        (Mark::Doubled, totals.overlaps > 0 || totals.repeated.events > 0 || totals.repeated.records > 0),
        (Mark::Accepted, success.accepted.is_some()),
        (Mark::Compacted, is_compacted(facts)),
    ];
    marks.into_iter().filter(|(_, holds)| *holds).map(|(mark, _)| mark).collect()
}

/// Whether an hour is in Parquet as it is sealed. A reseal makes another manifest, which must be compacted again.
pub(crate) fn is_compacted(facts: &Facts) -> bool {
    let sealed = facts.success.as_ref().and_then(|success| success.manifest.as_ref());
    sealed.is_some() && sealed == facts.compacted.as_ref()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use monitoring_lambdas::manifest::{Totals, VERSION};
    use monitoring_lambdas::rules::recency::{SHIPPED_DUE_MINUTES, due, verdict_at};
    use rstest::rstest;

    pub(crate) fn hour() -> UtcHour {
        UtcHour::parse("dt=2026-11-21/hour=09").unwrap()
    }

    pub(crate) fn success(first_sealed_at: UnixMillis, totals: Totals) -> Success {
        Success {
            v: VERSION,
            partition: hour().partition(),
            first_sealed_at,
            sealed_at: first_sealed_at,
            late_objects: 0,
            manifest: Some("\"m\"".into()),
            accepted: None,
            totals,
        }
    }

    fn sealed(first_sealed_at: UnixMillis, totals: Totals) -> Facts {
        Facts { success: Some(success(first_sealed_at, totals)), ..Facts::default() }
    }

    fn verdict() -> UnixMillis {
        verdict_at(Partition::Hour(hour()), SHIPPED_DUE_MINUTES)
    }

    const DUE: Due = Due { minutes: SHIPPED_DUE_MINUTES, started: None };

    #[rstest]
    #[case::before_its_end(hour().end().0 - 1, State::Open)]
    #[case::at_its_end(hour().end().0, State::Closing)]
    #[case::at_the_last_moment(verdict().0, State::Closing)]
    #[case::one_past_it(verdict().0 + 1, State::Missing)]
    fn an_hour_without_a_seal_is_judged_by_the_time(#[case] now: i64, #[case] expected: State) {
        let facts = Facts::default();
        assert_eq!(state(hour(), Some(&facts), Some(hour()), UnixMillis(now), &DUE), expected);
        assert_eq!(state(hour(), None, Some(hour()), UnixMillis(now), &DUE), State::Unknown);
    }

    #[rstest]
    #[case::started_in_time(0, 1, State::Missing)]
    #[case::started_too_late(1, 1, State::Closing)]
    #[case::at_the_end_of_the_grace(1, START_GRACE_MILLIS + 1, State::Closing)]
    #[case::one_past_it(1, START_GRACE_MILLIS + 2, State::Missing)]
    fn what_was_due_before_the_start_has_three_hours(#[case] start: i64, #[case] now: i64, #[case] expected: State) {
        let due = Due { started: Some(UnixMillis(verdict().0 + start)), ..DUE };
        let now = UnixMillis(verdict().0 + now);
        assert_eq!(state(hour(), Some(&Facts::default()), Some(hour()), now, &due), expected);
    }

    #[test]
    fn hours_before_the_first_are_not_missing() {
        let facts = Facts::default();
        let state = |first| state(hour(), Some(&facts), first, verdict(), &DUE);
        assert_eq!(state(Some(hour().plus(1))), State::Before);
        assert_eq!(state(None), State::Before);
    }

    #[test]
    fn what_lies_in_the_bucket_counts_at_any_time() {
        let incomplete = Incomplete { v: VERSION, partition: String::new(), since: UnixMillis(0), missing: Vec::new() };
        let held = Facts { incomplete: Some(incomplete), ..Facts::default() };
        let both = Facts { success: Some(success(verdict(), Totals::default())), ..held.clone() };
        for now in [hour().end(), verdict(), UnixMillis(verdict().0 + 1)] {
            assert_eq!(state(hour(), Some(&held), None, now, &DUE), State::Incomplete);
            assert_eq!(state(hour(), Some(&both), None, now, &DUE), State::Sealed);
        }
    }

    #[test]
    fn marks_say_what_is_unusual() {
        let due = due(Partition::Hour(hour()), SHIPPED_DUE_MINUTES);
        let marks = |facts: &Facts, judged| marks(hour(), facts, judged, SHIPPED_DUE_MINUTES);
        assert_eq!(marks(&sealed(due, Totals::default()), None), []);
        assert_eq!(marks(&sealed(UnixMillis(due.0 + 1), Totals::default()), None), [Mark::SealedLate]);
        assert_eq!(marks(&sealed(due, Totals { overlaps: 1, ..Totals::default() }), None), [Mark::Doubled]);
        let broken = [(Rule::Change, Outcome::Violation), (Rule::RejectedShare, Outcome::Fine)];
        assert_eq!(marks(&sealed(due, Totals::default()), Some((&broken, false))), [Mark::Small]);
        assert_eq!(marks(&sealed(due, Totals::default()), Some((&broken, true))), [Mark::Large]);
        let rejected = [(Rule::Change, Outcome::Fine), (Rule::RejectedShare, Outcome::Violation)];
        assert_eq!(marks(&sealed(due, Totals::default()), Some((&rejected, true))), [Mark::Rejected]);
    }

    #[test]
    fn parquet_of_an_older_manifest_does_not_count() {
        let mut facts = sealed(hour().end(), Totals::default());
        for (compacted, expected) in [(None, false), (Some("\"m\""), true), (Some("\"old\""), false)] {
            facts.compacted = compacted.map(str::to_owned);
            assert_eq!(is_compacted(&facts), expected);
        }
        assert!(!is_compacted(&Facts::default()));
    }
}
