//! Facts become lines that a person reads. Pure: the same facts make the same digest.

use shared::timestamp::{UnixMillis, UtcDate, UtcHour};

use super::facts::{DayBalance, Facts, HourState, IncidentFact, Incidents, Known, Sizes};
use crate::check_size::Found;
use crate::manifest::Totals;
use crate::notify::Chart;
use crate::notify::formatting::{between, duration, grouped, moment};
use crate::notify::line::one_line;
use crate::notify::message::MAX_SUBJECT_CHARACTERS;
use crate::rules::rejected::Lines;
use crate::rules::size::{Outcome, Rule};

/// The most reasons and incidents that are listed; others are counted.
pub(crate) const MAX_REASONS: usize = 20;
pub(crate) const MAX_INCIDENTS: usize = 50;
/// The most alarms and groups that an incident's line names.
const MAX_NAMED: usize = 3;

/// A day in lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    /// ASCII, at most [`MAX_SUBJECT_CHARACTERS`].
    pub(crate) subject: String,
    pub(crate) sections: Vec<Section>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// A line, visible from end to end and of bounded length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) value: String,
    /// Whether somebody should look at it.
    pub(crate) is_notable: bool,
}

impl Line {
    fn plain(label: &str, value: impl AsRef<str>) -> Self {
        Self { label: one_line(label), value: one_line(value.as_ref()), is_notable: false }
    }

    fn notable(label: &str, value: impl AsRef<str>) -> Self {
        Self { is_notable: true, ..Self::plain(label, value) }
    }

    /// A count that should be zero.
    fn zero(label: &str, count: f64) -> Self {
        Self { is_notable: count > 0.0, ..Self::plain(label, grouped(count)) }
    }

    fn unknown(problem: &str) -> Self {
        Self::notable("Not known", problem)
    }
}

impl Digest {
    /// `due_minutes` is how long after its end an hour should be sealed.
    pub(crate) fn compose(facts: &Facts, stack: &str, due_minutes: i64) -> Self {
        let sections = vec![
            Section { title: "Hours", lines: hours(facts, due_minutes) },
            Section { title: "Landed", lines: landed(facts) },
            Section { title: "Size against the usual", lines: known(&facts.sizes, sizes) },
            Section { title: "Completeness", lines: completeness(facts) },
            Section { title: "Rejected, by reason", lines: reasons(&facts.totals()) },
            Section { title: "Incidents", lines: known(&facts.incidents, |found| incidents(found, facts.date)) },
            Section { title: "Cost so far this month", lines: vec![cost(&facts.month_usd)] },
        ];
        let notable = sections.iter().flat_map(|section| &section.lines).filter(|line| line.is_notable).count();
        Self { subject: subject(stack, facts.date, notable), sections }
    }

    /// As a message: a block a section.
    pub(crate) fn text(&self) -> String {
        let block = |section: &Section| {
            let lines = section.lines.iter().map(|line| {
                let mark = if line.is_notable { '!' } else { '-' };
                format!("{mark} {}: {}", line.label, line.value)
            });
            std::iter::once(section.title.to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
        };
        let blocks = self.sections.iter().map(block);
        std::iter::once(self.subject.clone()).chain(blocks).collect::<Vec<_>>().join("\n\n")
    }
}

fn subject(stack: &str, date: UtcDate, notable: usize) -> String {
    let found = match notable {
        0 => "all well".to_owned(),
        1 => "1 line to look at".to_owned(),
        more => format!("{more} lines to look at"),
    };
    let rest = format!(" for {} (UTC): {found}", &date.partition()["dt=".len()..]);
    let of = format!("DIGEST of {stack}");
    // A stack's name may have 128 characters, all of them ASCII.
    format!("{}{rest}", &of[..of.floor_char_boundary(MAX_SUBJECT_CHARACTERS.saturating_sub(rest.len()))])
}

fn known<T>(fact: &Known<T>, lines: impl FnOnce(&T) -> Vec<Line>) -> Vec<Line> {
    match fact {
        Ok(fact) => lines(fact),
        Err(problem) => vec![Line::unknown(problem)],
    }
}

fn hours(facts: &Facts, due_minutes: i64) -> Vec<Line> {
    let (sealed, due) = (facts.sealed().count(), facts.due());
    let mut lines = vec![Line { is_notable: sealed < due, ..Line::plain("Sealed", format!("{sealed} of {due}")) }];
    lines.extend(not_expected(facts));
    let which = |is_one: &dyn Fn(&HourState) -> bool| -> Vec<UtcHour> {
        facts.hours.iter().filter(|fact| is_one(&fact.state)).map(|fact| fact.hour).collect()
    };
    lines.extend(named("Not sealed, no reason recorded", &which(&|state| *state == HourState::Unsealed)));
    for fact in &facts.hours {
        match &fact.state {
            HourState::Incomplete(incomplete) => {
                let missing: Vec<_> = incomplete.missing.iter().map(ToString::to_string).collect();
                lines.push(Line::notable(&format!("Incomplete: {}", clock(fact.hour)), missing.join("; ")));
            }
            HourState::Unreadable(problem) => {
                lines.push(Line::notable(&format!("Not known: {}", clock(fact.hour)), problem));
            }
            HourState::Sealed(_) | HourState::Unsealed | HourState::BeforeFirst | HourState::NotDue => {}
        }
    }
    let due = |hour: UtcHour| UnixMillis(hour.end().0.saturating_add(due_minutes.saturating_mul(60_000)));
    let late: Vec<_> = facts.sealed().filter(|(hour, success)| success.first_sealed_at > due(*hour)).collect();
    lines.extend(named("Sealed after their time", &late.iter().map(|(hour, _)| *hour).collect::<Vec<_>>()));
    let accepted: Vec<_> = facts.sealed().filter(|(_, success)| success.accepted.is_some()).collect();
    lines.extend(named("Accepted as incomplete", &accepted.iter().map(|(hour, _)| *hour).collect::<Vec<_>>()));
    lines.extend(late_objects(facts));
    lines
}

/// The hours that need not be sealed, if there are any.
fn not_expected(facts: &Facts) -> impl Iterator<Item = Line> {
    let count = |state: &HourState| facts.hours.iter().filter(|fact| fact.state == *state).count();
    let counts =
        [("Before anything landed", count(&HourState::BeforeFirst)), ("Not due yet", count(&HourState::NotDue))];
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(label, count)| Line::plain(label, plural(count, "hour")))
}

/// A line that names hours, if there are any.
fn named(label: &str, hours: &[UtcHour]) -> Option<Line> {
    let clocks: Vec<_> = hours.iter().copied().map(clock).collect();
    (!hours.is_empty()).then(|| Line::notable(label, clocks.join(", ")))
}

fn clock(hour: UtcHour) -> String {
    format!("{:02}:00", hour.of_day())
}

fn late_objects(facts: &Facts) -> Option<Line> {
    let late: Vec<_> = facts.sealed().filter(|(_, success)| success.late_objects > 0).collect();
    let objects = late.iter().fold(0_u64, |sum, (_, success)| sum.saturating_add(success.late_objects));
    let hours: Vec<_> = late.iter().map(|(hour, _)| clock(*hour)).collect();
    let text = || format!("{}, added to {}", grouped(objects as f64), hours.join(", "));
    (objects > 0).then(|| Line::notable("Objects that landed late", text()))
}

fn landed(facts: &Facts) -> Vec<Line> {
    let totals = facts.totals();
    let mut by_hour: Vec<Option<f64>> = vec![None; facts.hours.len()];
    for (hour, success) in facts.sealed() {
        if let Some(slot) = usize::try_from(hour.of_day()).ok().and_then(|at| by_hour.get_mut(at)) {
            *slot = Some(success.totals.events as f64);
        }
    }
    let chart = Chart { values: by_hour, until: facts.date.end() };
    let mut lines = vec![
        Line::plain("Events", grouped(totals.events as f64)),
        Line::plain("Files", format!("{}, {} bytes", grouped(totals.objects as f64), grouped(totals.bytes as f64))),
    ];
    if let Some((least, most)) = chart.range() {
        lines.push(Line::plain("An hour", format!("{} to {} events", grouped(least), grouped(most))));
        lines.push(Line::plain("By hour", chart.line()));
    }
    let counts = [
        ("Written by ingest itself, while Kinesis was away", totals.spilled_events),
        ("Objects whose metadata can't be read", totals.unreadable_objects),
        ("Objects that overlap others", totals.overlaps),
    ];
    lines.extend(counts.iter().filter(|(_, count)| *count > 0).map(|(label, count)| Line::zero(label, *count as f64)));
    let redriven = [("Redriven", totals.redriven_events), ("Deleted on request", totals.deleted_events)];
    let redriven = redriven.iter().filter(|(_, count)| *count > 0);
    lines.extend(redriven.map(|(label, count)| Line::plain(label, grouped(*count as f64))));
    lines
}

fn sizes(sizes: &Sizes) -> Vec<Line> {
    let mut lines = match &sizes.date {
        Some(found) => found.iter().map(size_line).collect(),
        None => vec![Line::plain("The day", "not compared: not all of its hours are sealed")],
    };
    let hour = |(hour, found): &(UtcHour, Found)| Line::notable(&format!("Hour {}", clock(*hour)), unusual(found));
    lines.extend(sizes.hours.iter().map(hour));
    lines
}

fn size_line(found: &Found) -> Line {
    let label = match found.rule {
        Rule::Floor => "At least",
        Rule::Change => "Against the day and the week before",
        Rule::SeasonalScore => "Against the same weekday of eight weeks",
        Rule::RejectedShare => "Rejected",
    };
    match found.outcome {
        Outcome::Violation => Line::notable(label, unusual(found)),
        Outcome::Fine | Outcome::InsufficientHistory => Line::plain(label, &found.actual),
    }
}

fn unusual(found: &Found) -> String {
    format!("{}; expected: {}", found.actual, found.expected)
}

fn completeness(facts: &Facts) -> Vec<Line> {
    let mut lines = known(&facts.balance, balance);
    lines.extend(known(&facts.turned_away, |requests| {
        let counts =
            [("Requests without a known write key", requests.unknown), ("Requests over a limit", requests.limited)];
        let line =
            |(label, count)| Line { is_notable: requests.is_notable(count), ..Line::plain(label, grouped(count)) };
        counts.into_iter().filter(|(_, count)| *count > 0.0).map(line).collect()
    }));
    lines
}

fn balance(balance: &DayBalance) -> Vec<Line> {
    if balance.hours == 0 {
        return vec![Line::plain("Balanced", "no hour yet: each needs both of its neighbours sealed")];
    }
    let mut lines = vec![
        Line::plain("Balanced", format!("{} of 24 hours", balance.hours)),
        Line::plain("Accepted", grouped(balance.accepted)),
        Line::plain("Landed of these", grouped(balance.landed)),
        Line::zero("Missing", balance.lost_events),
        Line::zero("Doubled", balance.doubled_events),
    ];
    let records = [("Records missing", balance.lost_records), ("Records doubled", balance.doubled_records)];
    lines.extend(records.into_iter().filter(|(_, count)| *count > 0.0).map(|(label, count)| Line::zero(label, count)));
    if balance.unknown_events > 0.0 {
        let value = format!("up to {} more may be missing or doubled", grouped(balance.unknown_events));
        lines.push(Line::plain("Not counted by ingest", value));
    }
    lines
}

fn reasons(totals: &Totals) -> Vec<Line> {
    let share = Lines { events: totals.events, rejected: totals.rejected }.percent(totals.rejected);
    let mut lines = vec![Line::plain("All", format!("{} ({} %)", grouped(totals.rejected as f64), grouped(share)))];
    let mut reasons: Vec<_> = totals.rejected_by_reason.iter().filter(|(_, count)| **count > 0).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let (listed, rest) = reasons.split_at(reasons.len().min(MAX_REASONS));
    lines.extend(listed.iter().map(|(reason, count)| Line::plain(reason, grouped(**count as f64))));
    lines.extend(and_more(rest.len()));
    lines
}

/// Nobody has to look at a bill that can't be read: some partitions of AWS have no estimate, and some organizations deny its region.
fn cost(month_usd: &Known<Option<f64>>) -> Line {
    match month_usd {
        Err(problem) => Line::plain("Not known", problem),
        Ok(Some(usd)) => Line::plain("The whole account, as AWS estimates it", format!("{usd:.2} USD")),
        Ok(None) => Line::plain(
            "Not known",
            "AWS publishes no estimate; switch on billing alerts in the account's billing preferences",
        ),
    }
}

fn and_more(count: usize) -> Option<Line> {
    (count > 0).then(|| Line::plain("And", format!("{count} more")))
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn incidents(found: &Incidents, date: UtcDate) -> Vec<Line> {
    let (listed, rest) = found.all.split_at(found.all.len().min(MAX_INCIDENTS));
    let mut lines: Vec<_> = listed.iter().map(|incident| incident_line(incident, date)).collect();
    lines.extend(and_more(rest.len()));
    if found.unread > 0 {
        lines.push(Line::notable("Not read", format!("{} under incidents/", plural(found.unread, "file"))));
    }
    if lines.is_empty() {
        lines.push(Line::plain("None", "no alarm was on"));
    }
    lines
}

fn incident_line(incident: &IncidentFact, date: UtcDate) -> Line {
    let day_end = date.end();
    let lasted = |until| duration(between(incident.from, until));
    let time = match incident.until {
        Some(until) => format!("{} for {}", moment(incident.from), lasted(until)),
        None => format!("{}, still on ({} by the end of the day)", moment(incident.from), lasted(day_end)),
    };
    let alarms: Vec<_> = incident.alarms.iter().map(String::as_str).collect();
    let groups: Vec<_> = incident.groups.iter().map(String::as_str).collect();
    Line::notable(&time, format!("{} (notified: {})", some_of(&alarms), some_of(&groups)))
}

fn some_of(names: &[&str]) -> String {
    let (first, rest) = names.split_at(names.len().min(MAX_NAMED));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", first.join(", "))
}
