//! Each rule on its bound, and one past it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::hour_state::Facts;
use crate::hour_state::tests::{hour, success};
use crate::metrics::STEPS;
use monitoring_lambdas::manifest::Totals;
use rstest::rstest;

const NOW: i64 = 1_795_253_520_000;

fn none() -> Alarms {
    Alarms::NotAvailable { why: "not here".into() }
}

/// With these values in the last step, and 0 before.
fn values(last: &[(Name, f64)]) -> Values {
    let mut series = BTreeMap::from([(Name::StreamAge, vec![Some(0.0); STEPS])]);
    for (name, value) in last {
        let mut values = vec![Some(0.0); STEPS];
        values[STEPS - 1] = Some(*value);
        series.insert(*name, values);
    }
    Values { step: Duration::from_secs(60), last: UnixMillis(NOW), series }
}

fn signals<'a>(values: Option<&'a Values>, alarms: &'a Alarms) -> Signals<'a> {
    Signals {
        now: UnixMillis(NOW),
        values,
        recent_steps: 2,
        newest_object: Some(None),
        hours: Some(&[]),
        alarms,
        has_loader: true,
        maximum_rejected_percent: 5.0,
    }
}

fn state(stages: &[Stage], id: &str) -> State {
    stages.iter().find(|stage| stage.id == id).unwrap().state
}

#[rstest]
#[case::nothing(&[], "accepted", State::Quiet)]
#[case::events(&[(Name::Accepted, 1.0)], "accepted", State::Ok)]
#[case::one_not_stored(&[(Name::Accepted, 9.0), (Name::NotStored, 1.0)], "accepted", State::Stopped)]
#[case::none_spilled(&[(Name::Spilled, 0.0)], "spilled", State::Quiet)]
#[case::one_spilled(&[(Name::Spilled, 1.0)], "spilled", State::Warning)]
#[case::none_rejected(&[(Name::Accepted, 1.0)], "rejected", State::Quiet)]
#[case::rejected_at_the_bound(&[(Name::Accepted, 950.0), (Name::Rejected, 50.0)], "rejected", State::Ok)]
#[case::one_past_it(&[(Name::Accepted, 949.0), (Name::Rejected, 51.0)], "rejected", State::Warning)]
#[case::behind_at_the_bound(&[(Name::OnStream, 1.0), (Name::StreamAge, 30_000.0)], "stream", State::Ok)]
#[case::behind(&[(Name::StreamAge, 30_001.0)], "stream", State::Warning)]
#[case::far_behind_at_the_bound(&[(Name::StreamAge, 120_000.0)], "stream", State::Warning)]
#[case::far_behind(&[(Name::StreamAge, 120_001.0)], "stream", State::Stopped)]
#[case::given_back(&[(Name::GivenBack, 1.0)], "landed", State::Warning)]
#[case::failed(&[(Name::LandingErrors, 1.0)], "landed", State::Warning)]
#[case::landed(&[(Name::Landed, 1.0)], "landed", State::Ok)]
#[case::loaded(&[(Name::Loaded, 1.0)], "loaded", State::Ok)]
fn metrics_decide(#[case] last: &[(Name, f64)], #[case] id: &str, #[case] expected: State) {
    let (values, alarms) = (values(last), none());
    assert_eq!(state(&stages(&signals(Some(&values), &alarms)), id), expected);
}

#[test]
fn what_is_not_recent_any_more_is_over() {
    let mut values = values(&[]);
    for (back, expected) in [(2, State::Stopped), (3, State::Quiet)] {
        let mut series = vec![Some(0.0); STEPS];
        series[STEPS - back] = Some(1.0);
        values.series.insert(Name::NotStored, series);
        assert_eq!(state(&stages(&signals(Some(&values), &none())), "accepted"), expected);
    }
}

/// Records came in the step that begins at `NOW`, and so until a minute later.
#[rstest]
#[case::at_the_bound(120_000, None, State::Quiet)]
#[case::one_past_it(120_001, None, State::Stopped)]
#[case::landed_before_they_came(120_001, Some(NOW - 1), State::Stopped)]
#[case::landed_since(120_001, Some(NOW), State::Quiet)]
fn nothing_that_lands_is_a_stop_after_a_while(
    #[case] later: i64,
    #[case] landed: Option<i64>,
    #[case] expected: State,
) {
    let (values, alarms) = (values(&[(Name::OnStream, 1.0)]), none());
    let signals = Signals {
        now: UnixMillis(NOW + later),
        newest_object: Some(landed.map(UnixMillis)),
        ..signals(Some(&values), &alarms)
    };
    assert_eq!(state(&stages(&signals), "landed"), expected);
    let unread = Signals { newest_object: None, ..signals };
    let expected = if later > 120_000 { State::Unknown } else { State::Quiet };
    assert_eq!(state(&stages(&unread), "landed"), expected);
}

#[test]
fn without_data_nothing_is_green() {
    let alarms = none();
    let found = stages(&Signals { hours: None, ..signals(None, &alarms) });
    assert!(found.iter().all(|stage| stage.state == State::Unknown), "{found:?}");
    assert_eq!(overall(&found), State::Unknown);
    // Nor where the metrics are read, and one that must be there is not.
    let mut values = values(&[(Name::Accepted, 1.0)]);
    values.series.remove(&Name::StreamAge);
    assert_eq!(overall(&stages(&signals(Some(&values), &alarms))), State::Unknown);
}

fn one(state: HourState, marks: Vec<Mark>, facts: Facts) -> Hour {
    Hour { hour: UnixMillis(NOW).hour().plus(-2), state, marks, facts, problem: None, size: None }
}

#[rstest]
#[case(HourState::Sealed, Vec::new(), State::Ok)]
#[case(HourState::Open, Vec::new(), State::Quiet)]
#[case(HourState::Unknown, Vec::new(), State::Unknown)]
#[case(HourState::Missing, Vec::new(), State::Stopped)]
#[case(HourState::Incomplete, Vec::new(), State::Stopped)]
#[case(HourState::Sealed, vec![Mark::Small], State::Warning)]
#[case(HourState::Sealed, vec![Mark::Doubled], State::Warning)]
#[case(HourState::Sealed, vec![Mark::LateObjects, Mark::Compacted], State::Ok)]
fn hours_decide(#[case] hour: HourState, #[case] marks: Vec<Mark>, #[case] expected: State) {
    let (values, alarms, hours) = (values(&[]), none(), [one(hour, marks, Facts::default())]);
    let signals = Signals { hours: Some(&hours), ..signals(Some(&values), &alarms) };
    assert_eq!(state(&stages(&signals), "sealed"), expected);
}

#[rstest]
#[case::none(0, None)]
#[case::at_the_bound(3, Some("late: 2026-11-21T09, 2026-11-21T08, 2026-11-21T07"))]
#[case::one_past_it(4, Some("late: 2026-11-21T09, 2026-11-21T08, 2026-11-21T07 and 1 more"))]
fn few_hours_are_named(#[case] count: i64, #[case] expected: Option<&str>) {
    let numbered =
        |back: i64| Hour { hour: hour().plus(-back), ..one(HourState::Missing, Vec::new(), Facts::default()) };
    let hours: Vec<Hour> = (0..count).rev().map(numbered).collect();
    assert_eq!(named(State::Stopped, "late", hours.iter()).map(|(_, why)| why).as_deref(), expected);
}

#[rstest]
#[case::at_the_bound(0, State::Ok)]
#[case::one_past_it(1, State::Warning)]
fn an_hour_has_an_hour_to_become_parquet(#[case] more: i64, #[case] expected: State) {
    let facts = Facts { success: Some(success(hour().end(), Totals::default())), ..Facts::default() };
    let hours = [one(HourState::Sealed, Vec::new(), facts)];
    let (values, alarms) = (values(&[]), none());
    let now = UnixMillis(hour().end().0 + 3_600_000 + more);
    let signals = Signals { now, hours: Some(&hours), ..signals(Some(&values), &alarms) };
    assert_eq!(state(&stages(&signals), "compacted"), expected);
}

#[rstest]
#[case("stale-data", "landed", State::Stopped)]
#[case("lost-events", "landed", State::Stopped)]
#[case("warning-late-partitions", "sealed", State::Warning)]
#[case("errors-check-size", "sealed", State::Stopped)]
#[case("5xx", "accepted", State::Stopped)]
fn an_alarm_colours_its_part(#[case] name: &str, #[case] id: &str, #[case] expected: State) {
    let alarm = |is_on| Alarm { name: name.into(), is_on, is_unknown: false, reason: "1 > 0".into(), since: None };
    let values = values(&[(Name::Accepted, 1.0)]);
    let on = Alarms::Known { alarms: vec![alarm(true)] };
    let found = stages(&signals(Some(&values), &on));
    assert_eq!((state(&found, id), overall(&found)), (expected, expected));
    let off = Alarms::Known { alarms: vec![alarm(false)] };
    assert!(overall(&stages(&signals(Some(&values), &off))) <= State::Ok);
}

#[test]
fn a_quiet_flow_is_quiet_and_not_green() {
    let (values, alarms) = (values(&[]), none());
    assert_eq!(overall(&stages(&signals(Some(&values), &alarms))), State::Quiet);
    let worse = values_with_spill();
    assert_eq!(overall(&stages(&signals(Some(&worse), &alarms))), State::Warning);
}

fn values_with_spill() -> Values {
    values(&[(Name::Spilled, 1.0)])
}
