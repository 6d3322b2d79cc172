//! Where the flow runs and where it stops. Pure: each rule stands here once, with its bound.

use std::time::Duration;

use serde::Serialize;
use shared::timestamp::UnixMillis;

use crate::alarms::{Alarm, Alarms, WARNING};
use crate::hour_state::{self, Mark, State as HourState};
use crate::hours::Hour;
use crate::metrics::{Name, Values};
use monitoring_lambdas::rules::rejected::Lines;
use monitoring_lambdas::rules::size::Outcome;

/// The state of a part of the flow, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Nothing to do, and nothing wrong.
    Quiet,
    Ok,
    /// What there is to know is not there: neither good nor bad.
    Unknown,
    /// Nothing is lost; somebody should look.
    Warning,
    /// It stops, or something is lost.
    Stopped,
}

/// A part of the flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Stage {
    pub(crate) id: &'static str,
    pub(crate) state: State,
    /// In words, each of them; the worst first.
    pub(crate) why: Vec<String>,
}

/// What the flow is judged by. `None` is what could not be read.
pub(crate) struct Signals<'a> {
    pub(crate) now: UnixMillis,
    pub(crate) values: Option<&'a Values>,
    /// How many of the last steps are recent, with the time that CloudWatch needs.
    pub(crate) recent_steps: usize,
    /// When the newest object of the stream's records landed; the inner `None` if there is none.
    pub(crate) newest_object: Option<Option<UnixMillis>>,
    /// Since when records are on the stream without anything that has landed since: [`waiting_since`].
    pub(crate) waiting_since: Option<UnixMillis>,
    /// How long landing waits for a batch to fill.
    pub(crate) batching_window: Duration,
    pub(crate) hours: Option<&'a [Hour]>,
    pub(crate) alarms: &'a Alarms,
    /// Whether the stack is to have alarms.
    pub(crate) has_alarms: bool,
    pub(crate) has_search: bool,
    pub(crate) has_warehouse: bool,
    /// Of raw lines nothing is compacted.
    pub(crate) is_raw: bool,
    pub(crate) maximum_rejected_percent: f64,
}

/// Numbers on the page are of so many steps beside what is recent.
pub(crate) const SHOWN_STEPS: usize = 5;
/// How long events may be on the stream before anything lands, in steps after the one in which they came, beside the time that
/// landing waits for a batch. A retry takes some seconds more.
const STUCK_STEPS: i64 = 1;
/// How far landing may be behind the stream, in milliseconds.
const AGE_WARNING: f64 = 30_000.0;
const AGE_STOPPED: f64 = 120_000.0;
/// How long a sealed hour may wait for its Parquet: as the alarm on `UncompactedHours`.
const COMPACTION_MILLIS: i64 = 3_600_000;

/// How far the search cluster may be behind, in milliseconds: half an hour, as the alarm on its queue.
const LOAD_LAG: f64 = 1_800_000.0;

/// The stages, in the order of the flow.
pub(crate) fn stages(signals: &Signals<'_>) -> Vec<Stage> {
    let judged = [
        ("accepted", accepted(signals)),
        ("rejected", rejected(signals)),
        ("stream", stream(signals)),
        ("spilled", spilled(signals)),
        ("landed", landed(signals)),
        ("sealed", sealed(signals)),
        ("compacted", compacted(signals)),
        ("loaded", loaded(signals)),
    ];
    judged.into_iter().map(|(id, found)| stage(id, found, signals.alarms)).collect()
}

/// The worst of the stages, and of alarms that are no stage's. Where alarms should be and can't be read, it is not green. A quiet
/// flow without a fault is quiet.
pub(crate) fn overall(stages: &[Stage], signals: &Signals<'_>) -> State {
    let alarms = match signals.alarms {
        Alarms::Known { alarms } => alarms.iter().filter(|alarm| alarm.is_on).map(state_of).max(),
        Alarms::NotAvailable { .. } => signals.has_alarms.then_some(State::Unknown),
    };
    let worst = stages.iter().map(|stage| stage.state).chain(alarms).max().unwrap_or(State::Unknown);
    let is_quiet = stages.iter().any(|stage| stage.id == "accepted" && stage.state == State::Quiet);
    if worst == State::Ok && is_quiet { State::Quiet } else { worst }
}

/// Findings, of which the worst decides.
type Findings = Vec<(State, String)>;

fn stage(id: &'static str, mut found: Findings, alarms: &Alarms) -> Stage {
    if let Alarms::Known { alarms } = alarms {
        found.extend(
            alarms
                .iter()
                .filter(|alarm| alarm.is_on && part_of(&alarm.name) == Some(Part::Stage(id)))
                .map(|alarm| (state_of(alarm), format!("alarm {}: {}", alarm.name, alarm.reason))),
        );
    }
    found.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    let state = found.first().map_or(State::Ok, |(state, _)| *state);
    Stage { id, state, why: found.into_iter().map(|(_, why)| why).collect() }
}

fn state_of(alarm: &Alarm) -> State {
    if alarm.is_warning() { State::Warning } else { State::Stopped }
}

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Stage(&'static str),
    /// The way from alarms to people.
    Notices,
}

/// How the names of alarms begin, after `warning-`, and where they belong. Any of a function's own may fail, be slow or be throttled.
const PARTS: [(Part, &[&str]); 9] = [
    (Part::Notices, &["notify-", "send-digest-"]),
    (
        Part::Stage("accepted"),
        &[
            "ingest-",
            "canary-ingest-",
            "front-door-",
            "server-",
            "not-stored-events",
            "unknown-key-turned-away",
            "over-limit-turned-away",
            "unvalidated-events",
        ],
    ),
    (Part::Stage("rejected"), &["rejected-share"]),
    (Part::Stage("stream"), &["stream-"]),
    (Part::Stage("spilled"), &["spilled-events"]),
    (
        Part::Stage("landed"),
        &[
            "landing-",
            "canary-landing-",
            "check-object-",
            "landed-topic-",
            "stale-data",
            "given-back",
            "given-up",
            "dropped",
            "failed-batches",
            "broken-objects",
            "lost-",
            "doubled-",
        ],
    ),
    (
        Part::Stage("sealed"),
        &[
            "seal-partition-",
            "check-size-",
            "check-recency-",
            "check-completeness-",
            "check-deletions-",
            "sealed-topic-",
            "missing-partitions",
            "incomplete-partitions",
            "late-partitions",
            "late-objects",
            "overlapping-objects",
            "deleted-objects",
            "hour-size",
            "date-size",
        ],
    ),
    (
        Part::Stage("compacted"),
        &["compact-partition-", "behind-of-compact-partition", "difference-of-compact-partition"],
    ),
    (
        Part::Stage("loaded"),
        &[
            "load-search-",
            "load-warehouse-",
            "behind-of-load-",
            "backed-up-of-load-search",
            "dead-letters-of-load-search",
            "unloadable-of-load-search",
        ],
    ),
];

/// Where an alarm of alarms.yaml belongs. `None` is not one of this stack's: `playhead-prod-` begins those of playhead-prod-eu too.
pub(crate) fn part_of(alarm: &str) -> Option<Part> {
    let name = alarm.strip_prefix(WARNING).unwrap_or(alarm);
    // As that of all apps.
    let name = if name.starts_with("app-") && name.ends_with("-rejected-share") { "rejected-share" } else { name };
    let is_of = |beginnings: &[&str]| beginnings.iter().any(|one| name.starts_with(one));
    PARTS.iter().find(|(_, beginnings)| is_of(beginnings)).map(|(part, _)| *part)
}

const UNREADABLE: &str = "CloudWatch has not been read";

/// The values, or what to say without them.
fn judged(signals: &Signals<'_>, judge: impl FnOnce(&Values) -> Findings) -> Findings {
    signals.values.map_or_else(|| vec![(State::Unknown, UNREADABLE.to_owned())], judge)
}

fn accepted(signals: &Signals<'_>) -> Findings {
    judged(signals, |values| {
        let not_stored = values.sum(Name::NotStored, signals.recent_steps);
        let mut found = Vec::new();
        if not_stored > 0.0 {
            let why = format!("not stored: {not_stored}. Neither Kinesis nor S3 took them, and players got 503");
            found.push((State::Stopped, why));
        }
        let is_empty = values.sum(Name::Accepted, signals.recent_steps + SHOWN_STEPS) == 0.0;
        found.extend(turned_away(signals, values, is_empty));
        if is_empty && found.is_empty() {
            found.push((State::Quiet, "no events come in".to_owned()));
        }
        found
    })
}

/// Fewer requests may be a scanner's, or somebody's who tries.
const MANY_TURNED_AWAY: f64 = 10.0;

/// Whole requests of which nothing is kept: players without their key, or with too many events.
fn turned_away(signals: &Signals<'_>, values: &Values, is_nothing_accepted: bool) -> Findings {
    let reasons =
        [(Name::Unauthorized, "for want of a known key (401)"), (Name::Limited, "over their key's limit (429)")];
    let state = |count| match is_nothing_accepted && count >= MANY_TURNED_AWAY {
        true => State::Stopped,
        false => State::Warning,
    };
    let counted = reasons.map(|(name, why)| (values.sum(name, signals.recent_steps), why));
    let some = counted.into_iter().filter(|(count, _)| *count > 0.0);
    some.map(|(count, why)| (state(count), format!("turned away {why}, with nothing stored: {count}"))).collect()
}

fn rejected(signals: &Signals<'_>) -> Findings {
    judged(signals, |values| {
        let steps = signals.recent_steps + SHOWN_STEPS;
        let count = |name| whole(values.sum(name, steps));
        let lines = Lines { events: count(Name::Accepted), rejected: count(Name::Rejected) };
        match lines.judge(signals.maximum_rejected_percent) {
            Outcome::Violation => {
                let percent = lines.percent(lines.rejected);
                vec![(State::Warning, format!("{percent:.0} % of what came in was rejected"))]
            }
            _ if lines.rejected == 0 => vec![(State::Quiet, "nothing was rejected".to_owned())],
            _ => Vec::new(),
        }
    })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
const fn whole(count: f64) -> u64 {
    count as u64
}

fn stream(signals: &Signals<'_>) -> Findings {
    judged(signals, |values| {
        // The newest: an age that has passed is not one any more.
        let Some(age) = values.newest(Name::StreamAge, signals.recent_steps) else {
            return vec![(State::Unknown, "CloudWatch has no age of the stream".to_owned())];
        };
        let seconds = age / 1_000.0;
        let why = format!("landing is {seconds:.0} s behind the stream");
        match age {
            _ if age > AGE_STOPPED => vec![(State::Stopped, why)],
            _ if age > AGE_WARNING => vec![(State::Warning, why)],
            _ if values.sum(Name::OnStream, signals.recent_steps + SHOWN_STEPS) == 0.0 => {
                vec![(State::Quiet, "no records come in".to_owned())]
            }
            _ => Vec::new(),
        }
    })
}

fn spilled(signals: &Signals<'_>) -> Findings {
    judged(signals, |values| match values.sum(Name::Spilled, signals.recent_steps) {
        0.0 => vec![(State::Quiet, "Kinesis takes all".to_owned())],
        count => vec![(State::Warning, format!("Kinesis did not take {count} events: they are safe in S3"))],
    })
}

fn landed(signals: &Signals<'_>) -> Findings {
    judged(signals, |values| {
        let mut found = stuck(signals, values);
        let given_back = values.sum(Name::GivenBack, signals.recent_steps);
        let errors = values.sum(Name::LandingErrors, signals.recent_steps);
        if given_back + errors > 0.0 {
            found.push((State::Warning, "batches did not land and are sent again".to_owned()));
        }
        if found.is_empty() && values.sum(Name::Landed, signals.recent_steps + SHOWN_STEPS) == 0.0 {
            found.push((State::Quiet, "nothing lands".to_owned()));
        }
        found
    })
}

/// Up to when all of the stream has been read, by the oldest of the recent ages: those that CloudWatch shows late have passed.
pub(crate) fn read_until(values: Option<&Values>, recent_steps: usize, now: UnixMillis) -> Option<UnixMillis> {
    let age = values?.maximum(Name::StreamAge, recent_steps)?;
    // Saturates, so that no value can fail the page.
    #[allow(clippy::cast_possible_truncation)]
    Some(UnixMillis(now.0.saturating_sub(age as i64)))
}

/// Since when records are on the stream, and nothing has landed since; what was known before counts until something lands. What
/// lands in an hour that is not looked at is known by landing's own count alone.
pub(crate) fn waiting_since(
    before: Option<UnixMillis>,
    values: Option<&Values>,
    landed: Option<UnixMillis>,
) -> Option<UnixMillis> {
    let landed = landed.max(values.and_then(|values| values.last_above_zero(Name::Objects)));
    let still = before.filter(|came| landed.is_none_or(|landed| landed < *came));
    still.or_else(|| values?.first_above_zero_after(Name::OnStream, landed))
}

/// Records came onto the stream, and nothing has landed since.
fn stuck(signals: &Signals<'_>, values: &Values) -> Findings {
    let Some(came) = signals.waiting_since else { return Vec::new() };
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let (step, window) = (millis(values.step), millis(signals.batching_window));
    let waited = signals.now.0.saturating_sub(came.0.saturating_add(step));
    if waited <= STUCK_STEPS.saturating_mul(step).saturating_add(window) {
        return Vec::new();
    }
    match signals.newest_object {
        None => vec![(State::Unknown, "S3 has not been read".to_owned())],
        Some(_) => {
            vec![(State::Stopped, format!("records came onto the stream at {came}, and nothing has landed since"))]
        }
    }
}

fn hours(signals: &Signals<'_>, judge: impl FnOnce(&[Hour]) -> Findings) -> Findings {
    signals.hours.map_or_else(|| vec![(State::Unknown, "the hours have not been read".to_owned())], judge)
}

fn sealed(signals: &Signals<'_>) -> Findings {
    hours(signals, |hours| {
        let are = |wanted: HourState| hours.iter().filter(move |hour| hour.state == wanted);
        let is_odd = |mark: &Mark| matches!(mark, Mark::Small | Mark::Large | Mark::Doubled | Mark::Rejected);
        // Of a day: what is older was looked at, or will not be.
        let since = signals.now.hour().plus(-24);
        let odd = hours.iter().filter(|hour| hour.hour > since && hour.marks.iter().any(is_odd));
        let mut found: Findings = [
            named(State::Stopped, "overdue, without _SUCCESS", are(HourState::Missing)),
            named(State::Stopped, "incomplete, _SUCCESS is held back", are(HourState::Incomplete)),
            named(State::Unknown, "can't be read", are(HourState::Unknown)),
            named(State::Warning, "small, large, doubled or much rejected", odd),
        ]
        .into_iter()
        .flatten()
        .collect();
        if found.is_empty() && are(HourState::Sealed).next().is_none() {
            found.push((State::Quiet, "no hour is over yet".to_owned()));
        }
        found
    })
}

/// Hours that are named one by one.
const MAX_NAMED: usize = 3;

/// `overdue: 2026-11-21T09, 2026-11-21T10 and 3 more`, the newest first; nothing without hours.
fn named<'h>(state: State, what: &str, hours: impl Iterator<Item = &'h Hour>) -> Option<(State, String)> {
    let mut names: Vec<String> = hours.map(|hour| hour.hour.start().rfc3339()[..13].to_owned()).collect();
    names.reverse();
    let more = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| (state, format!("{what}: {}{more}", names.join(", "))))
}

fn compacted(signals: &Signals<'_>) -> Findings {
    if signals.is_raw {
        return vec![(State::Quiet, "raw lines are not compacted".to_owned())];
    }
    hours(signals, |hours| {
        let sealed = || hours.iter().filter_map(|hour| Some((hour, hour.facts.success.as_ref()?)));
        let is_late = |sealed_at: UnixMillis| signals.now.0.saturating_sub(sealed_at.0) > COMPACTION_MILLIS;
        let waits = |hour: &Hour| !hour_state::is_compacted(&hour.facts);
        let late = sealed().filter(|(hour, success)| waits(hour) && is_late(success.sealed_at)).map(|(hour, _)| hour);
        let unknown = hours.iter().filter(|hour| hour.state == HourState::Unknown);
        let found = [named(State::Warning, "not in Parquet", late), named(State::Unknown, "can't be read", unknown)];
        let mut found: Findings = found.into_iter().flatten().collect();
        if found.is_empty() && sealed().next().is_none() {
            found.push((State::Quiet, "no hour is sealed yet".to_owned()));
        }
        found
    })
}

fn loaded(signals: &Signals<'_>) -> Findings {
    if !signals.has_search {
        let why = if signals.has_warehouse {
            "the warehouse is loaded by the hour: its alarm says when it is behind"
        } else {
            "no search cluster or warehouse is set up"
        };
        return vec![(State::Quiet, why.to_owned())];
    }
    judged(signals, |values| {
        let lag = values.newest(Name::LoadLag, signals.recent_steps).unwrap_or_default();
        if lag > LOAD_LAG {
            let minutes = lag / 60_000.0;
            return vec![(State::Warning, format!("the search cluster is {minutes:.0} min behind"))];
        }
        match values.sum(Name::Loaded, signals.recent_steps + SHOWN_STEPS) {
            0.0 => vec![(State::Quiet, "nothing is loaded".to_owned())],
            _ => Vec::new(),
        }
    })
}

#[cfg(test)]
mod tests;
