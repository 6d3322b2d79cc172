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
        waiting_since: waiting_since(None, values, None),
        batching_window: Duration::ZERO,
        hours: Some(&[]),
        alarms,
        has_alarms: false,
        has_search: true,
        has_warehouse: false,
        is_raw: false,
        maximum_rejected_percent: 5.0,
    }
}

fn all(signals: &Signals<'_>) -> State {
    overall(&stages(signals), signals)
}

fn state(stages: &[Stage], id: &str) -> State {
    stages.iter().find(|stage| stage.id == id).unwrap().state
}

#[rstest]
#[case::nothing(&[], "accepted", State::Quiet)]
#[case::events(&[(Name::Accepted, 1.0)], "accepted", State::Ok)]
#[case::one_not_stored(&[(Name::Accepted, 9.0), (Name::NotStored, 1.0)], "accepted", State::Stopped)]
#[case::no_key(&[(Name::Accepted, 9.0), (Name::Unauthorized, 1.0)], "accepted", State::Warning)]
#[case::no_key_of_any(&[(Name::Unauthorized, 10.0)], "accepted", State::Stopped)]
#[case::no_key_of_few(&[(Name::Unauthorized, 9.0)], "accepted", State::Warning)]
#[case::over_a_limit(&[(Name::Accepted, 9.0), (Name::Limited, 1.0)], "accepted", State::Warning)]
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
        waiting_since: waiting_since(None, Some(&values), landed.map(UnixMillis)),
        ..signals(Some(&values), &alarms)
    };
    assert_eq!(state(&stages(&signals), "landed"), expected);
    let unread = Signals { newest_object: None, ..signals };
    let expected = if later > 120_000 && landed != Some(NOW) { State::Unknown } else { State::Quiet };
    assert_eq!(state(&stages(&unread), "landed"), expected);
    let slow = Signals { batching_window: Duration::from_millis(1), newest_object: Some(None), ..unread };
    let expected = if later > 120_001 { State::Stopped } else { State::Quiet };
    assert_eq!(state(&stages(&slow), "landed"), expected);
}

#[test]
fn without_data_nothing_is_green() {
    let alarms = none();
    let found = stages(&Signals { hours: None, ..signals(None, &alarms) });
    assert!(found.iter().all(|stage| stage.state == State::Unknown), "{found:?}");
    assert_eq!(overall(&found, &signals(None, &alarms)), State::Unknown);
    // Nor where the metrics are read, and one that must be there is not.
    let mut values = values(&[(Name::Accepted, 1.0)]);
    values.series.remove(&Name::StreamAge);
    assert_eq!(all(&signals(Some(&values), &alarms)), State::Unknown);
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
#[case("check-size-errors", "sealed", State::Stopped)]
#[case("front-door-5xx", "accepted", State::Stopped)]
#[case("ingest-throttles", "accepted", State::Stopped)]
#[case("warning-behind-of-load-warehouse", "loaded", State::Warning)]
fn an_alarm_colours_its_part(#[case] name: &str, #[case] id: &str, #[case] expected: State) {
    let alarm = |is_on| Alarm { name: name.into(), is_on, is_unknown: false, reason: "1 > 0".into(), since: None };
    let values = values(&[(Name::Accepted, 1.0)]);
    let on = Alarms::Known { alarms: vec![alarm(true)] };
    let found = stages(&signals(Some(&values), &on));
    assert_eq!((state(&found, id), all(&signals(Some(&values), &on))), (expected, expected));
    let off = Alarms::Known { alarms: vec![alarm(false)] };
    assert!(all(&signals(Some(&values), &off)) <= State::Ok);
}

#[test]
fn a_quiet_flow_is_quiet_and_not_green() {
    let (values, alarms) = (values(&[]), none());
    assert_eq!(all(&signals(Some(&values), &alarms)), State::Quiet);
    let worse = values_with_spill();
    assert_eq!(all(&signals(Some(&worse), &alarms)), State::Warning);
}

fn values_with_spill() -> Values {
    values(&[(Name::Spilled, 1.0)])
}

#[test]
fn what_is_known_to_wait_waits_until_something_lands() {
    let quiet = values(&[]);
    let came = Some(UnixMillis(NOW - 9_000_000));
    assert_eq!(waiting_since(came, Some(&quiet), None), came);
    assert_eq!(waiting_since(came, None, Some(UnixMillis(NOW - 9_000_001))), came);
    assert_eq!(waiting_since(came, None, Some(UnixMillis(NOW - 9_000_000))), None);
}

/// It may land in an hour that is not looked at.
#[rstest]
#[case::in_the_step_in_which_they_came(0, 1.0, None)]
#[case::in_the_step_before(60_000, 1.0, Some(60_000))]
#[case::nothing(0, 0.0, Some(0))]
fn what_landing_counts_as_landed_has_landed(#[case] came: i64, #[case] objects: f64, #[case] expected: Option<i64>) {
    let values = values(&[(Name::Objects, objects)]);
    let waits = waiting_since(Some(UnixMillis(NOW + came)), Some(&values), Some(UnixMillis(NOW - 9_000_000)));
    assert_eq!(waits, expected.map(|after| UnixMillis(NOW + after)));
}

/// Ages of the last steps, which CloudWatch shows late.
#[rstest]
#[case::none(&[None, None], None)]
#[case::at_the_tip(&[Some(0.0)], Some(NOW))]
#[case::behind(&[Some(7_200_000.0), Some(3_600_000.0)], Some(NOW - 7_200_000))]
#[case::over(&[Some(7_200_000.0), Some(0.0), Some(0.0)], Some(NOW))]
#[case::senseless(&[Some(f64::INFINITY)], Some(NOW - i64::MAX))]
fn the_oldest_recent_age_says_up_to_when_the_stream_is_read(
    #[case] ages: &[Option<f64>],
    #[case] expected: Option<i64>,
) {
    let mut values = values(&[]);
    values.series.insert(Name::StreamAge, ages.to_vec());
    assert_eq!(read_until(Some(&values), 2, UnixMillis(NOW)), expected.map(UnixMillis));
    assert_eq!(read_until(None, 2, UnixMillis(NOW)), None);
}

/// Traffic that goes on does not put off what has long been waiting.
#[test]
fn each_step_brings_records_and_nothing_lands() {
    let (mut values, alarms) = (values(&[]), none());
    values.series.insert(Name::OnStream, vec![Some(1.0); STEPS]);
    for (landed, expected) in [(NOW, State::Quiet), (NOW - 60_000, State::Quiet), (NOW - 180_001, State::Stopped)] {
        let waiting_since = waiting_since(None, Some(&values), Some(UnixMillis(landed)));
        let signals = Signals { now: UnixMillis(NOW + 1), waiting_since, ..signals(Some(&values), &alarms) };
        assert_eq!(state(&stages(&signals), "landed"), expected, "{landed}");
    }
}

#[test]
fn alarms_that_can_not_be_read_are_not_green() {
    let (values, alarms) = (values(&[(Name::Accepted, 1.0)]), none());
    assert_eq!(all(&signals(Some(&values), &alarms)), State::Ok);
    assert_eq!(all(&Signals { has_alarms: true, ..signals(Some(&values), &alarms) }), State::Unknown);
    let worse = values_with_spill();
    assert_eq!(all(&Signals { has_alarms: true, ..signals(Some(&worse), &alarms) }), State::Warning);
}

#[test]
fn an_alarm_on_the_way_to_people_is_no_part_of_the_flow() {
    let alarm =
        Alarm { name: "notify-errors".into(), is_on: true, is_unknown: false, reason: String::new(), since: None };
    let (values, on) = (values(&[(Name::Accepted, 1.0)]), Alarms::Known { alarms: vec![alarm] });
    let signals = signals(Some(&values), &on);
    assert!(stages(&signals).iter().all(|stage| stage.state <= State::Ok));
    assert_eq!(all(&signals), State::Stopped);
}

#[test]
fn raw_lines_are_not_compacted() {
    let facts = Facts { success: Some(success(hour().end(), Totals::default())), ..Facts::default() };
    let hours = [one(HourState::Sealed, Vec::new(), facts)];
    let (values, alarms) = (values(&[]), none());
    let signals = Signals { hours: Some(&hours), is_raw: true, ..signals(Some(&values), &alarms) };
    assert_eq!(state(&stages(&signals), "compacted"), State::Quiet);
}

#[rstest]
#[case::at_the_bound(1_800_000.0, State::Ok)]
#[case::one_past_it(1_800_001.0, State::Warning)]
fn the_search_cluster_may_be_half_an_hour_behind(#[case] lag: f64, #[case] expected: State) {
    let (values, alarms) = (values(&[(Name::Loaded, 1.0), (Name::LoadLag, lag)]), none());
    assert_eq!(state(&stages(&signals(Some(&values), &alarms)), "loaded"), expected);
}

/// Where each alarm of alarms.yaml and nested/server.yaml belongs, by its name, and the warehouse's.
const TABLE: &[(&str, &str)] = &[
    ("backed-up-of-load-search", "loaded"),
    ("broken-objects", "landed"),
    ("check-completeness-did-not-run", "sealed"),
    ("check-completeness-errors", "sealed"),
    ("check-deletions-did-not-run", "sealed"),
    ("check-deletions-errors", "sealed"),
    ("check-object-errors", "landed"),
    ("check-recency-did-not-run", "sealed"),
    ("check-recency-errors", "sealed"),
    ("check-size-did-not-run", "sealed"),
    ("check-size-errors", "sealed"),
    ("date-size", "sealed"),
    ("dead-letters-of-load-search", "loaded"),
    ("deleted-objects", "sealed"),
    ("difference-of-compact-partition", "compacted"),
    ("doubled-events", "landed"),
    ("doubled-records", "landed"),
    ("dropped", "landed"),
    ("failed-batches", "landed"),
    ("front-door-5xx", "accepted"),
    ("given-back", "landed"),
    ("given-up", "landed"),
    ("hour-size", "sealed"),
    ("incomplete-partitions", "sealed"),
    ("ingest-errors", "accepted"),
    ("ingest-throttles", "accepted"),
    ("landing-behind", "landed"),
    ("landing-errors", "landed"),
    ("lost-events", "landed"),
    ("lost-records", "landed"),
    ("missing-partitions", "sealed"),
    ("not-stored-events", "accepted"),
    ("overlapping-objects", "sealed"),
    ("over-limit-turned-away", "accepted"),
    ("rejected-share", "rejected"),
    ("seal-partition-did-not-run", "sealed"),
    ("seal-partition-errors", "sealed"),
    ("server-down", "accepted"),
    ("stale-data", "landed"),
    ("unknown-key-turned-away", "accepted"),
    ("warning-behind-of-compact-partition", "compacted"),
    ("warning-behind-of-load-search", "loaded"),
    ("warning-behind-of-load-warehouse", "loaded"),
    ("warning-check-completeness-slow", "sealed"),
    ("warning-check-completeness-throttles", "sealed"),
    ("warning-check-deletions-slow", "sealed"),
    ("warning-check-deletions-throttles", "sealed"),
    ("warning-check-object-events-dropped", "landed"),
    ("warning-check-object-slow", "landed"),
    ("warning-check-object-throttles", "landed"),
    ("warning-check-recency-slow", "sealed"),
    ("warning-check-recency-throttles", "sealed"),
    ("warning-check-size-events-dropped", "sealed"),
    ("warning-check-size-slow", "sealed"),
    ("warning-check-size-throttles", "sealed"),
    ("warning-front-door-4xx", "accepted"),
    ("warning-ingest-concurrency", "accepted"),
    ("warning-ingest-requests", "accepted"),
    ("warning-ingest-slow", "accepted"),
    ("warning-landed-topic-events-dropped", "landed"),
    ("warning-landing-slow", "landed"),
    ("warning-landing-throttles", "landed"),
    ("warning-late-objects", "sealed"),
    ("warning-late-partitions", "sealed"),
    ("warning-seal-partition-slow", "sealed"),
    ("warning-seal-partition-throttles", "sealed"),
    ("warning-sealed-topic-events-dropped", "sealed"),
    ("warning-server-full", "accepted"),
    ("warning-server-restarts", "accepted"),
    ("warning-spilled-events", "spilled"),
    ("warning-stream-bytes", "stream"),
    ("warning-stream-records", "stream"),
    ("warning-stream-throttled", "stream"),
    ("warning-unloadable-of-load-search", "loaded"),
    ("warning-unvalidated-events", "accepted"),
];

fn names() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let nested = |path: &str| std::fs::read_to_string(root.join(path));
    let alarms = local::template::Stack::alarms(&nested("template.yaml").unwrap(), &BTreeMap::new(), nested).unwrap();
    let mut names: Vec<String> = alarms.into_iter().map(|alarm| alarm.name).collect();
    names.sort();
    names
}

#[test]
fn every_alarm_has_its_part() {
    for (name, part) in TABLE {
        assert_eq!(part_of(name), Some(Part::Stage(part)), "{name}");
    }
    for name in names().iter().filter(|name| !name.contains("notify-")) {
        assert!(TABLE.iter().any(|(known, _)| name.ends_with(&format!("-{known}"))), "{name} is not in the table");
    }
    assert_eq!(part_of("app-web-tv-rejected-share"), Some(Part::Stage("rejected")), "nested/app-alarms.yaml");
    for notice in ["notify-errors", "notify-did-not-run", "warning-send-digest-errors"] {
        assert_eq!(part_of(notice), Some(Part::Notices));
    }
}

#[test]
fn the_alarms_of_a_stack_whose_name_begins_as_this_ones_are_not_its_own() {
    for (name, _) in TABLE {
        assert_eq!(part_of(&format!("eu-{name}")), None, "{name}");
    }
}
