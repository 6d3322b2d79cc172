//! What the page knows at a moment, and how the API shows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use monitoring_lambdas::notify::Incident;
use monitoring_lambdas::rules::size::{Outcome, Rule};
use serde::Serialize;
use serde_json::{Value, json};
use shared::timestamp::UnixMillis;

use crate::alarms::Alarms;
use crate::checks::Check;
use crate::flow::Stage;
use crate::hours::Hour;
use crate::lines::{Line, Lines};
use crate::metrics::{Name, Values};

/// A newest object whose lines were read.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) landed_at: UnixMillis,
    pub(crate) bytes: u64,
    pub(crate) lines: Arc<Lines>,
}

/// The newest objects of each kind, the newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Newest {
    pub(crate) events: Vec<Object>,
    pub(crate) rejected: Vec<Object>,
    /// Newest objects that are not read yet, or can't be.
    pub(crate) unread: usize,
}

/// Rises with each change, so that a page knows what to ask for again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Versions {
    pub(crate) events: u64,
    pub(crate) hours: u64,
    pub(crate) incidents: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) at: UnixMillis,
    /// When it began to be read, however fast the stack's clock is.
    pub(crate) read_at: Instant,
    pub(crate) stages: Vec<Stage>,
    pub(crate) state: crate::flow::State,
    pub(crate) values: Option<Values>,
    pub(crate) recent_steps: usize,
    pub(crate) newest: Arc<Newest>,
    /// `None` while they have not been read, or can't be: that is not that there are none.
    pub(crate) hours: Option<Arc<Vec<Hour>>>,
    /// `None` until they are read for the first time.
    pub(crate) incidents: Option<Arc<Vec<Incident>>>,
    pub(crate) unreadable_incidents: Arc<Vec<String>>,
    pub(crate) checks: Option<Arc<Vec<Check>>>,
    pub(crate) alarms: Arc<Alarms>,
    /// What could not be read, and why.
    pub(crate) problems: BTreeMap<&'static str, String>,
    pub(crate) requests: u64,
    pub(crate) versions: Versions,
}

/// What is read later than the first snapshot, and must not look empty until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Hours,
    Incidents,
}

impl Part {
    /// Its name among the problems.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hours => "hours",
            Self::Incidents => "incidents",
        }
    }
}

/// What never changes while the program runs.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct About {
    pub(crate) bucket: String,
    pub(crate) events_url: Option<String>,
    pub(crate) runbook_url: Option<String>,
    pub(crate) refresh_milliseconds: u128,
    pub(crate) metrics_delay_seconds: u64,
}

impl Snapshot {
    pub(crate) fn overview(&self, about: &About) -> Value {
        let newest = self.newest.events.first();
        let first = newest.and_then(|object| object.lines.lines.first());
        json!({
            "at": self.at,
            "state": self.state,
            "stages": self.stages,
            "alarms": &*self.alarms,
            "metrics": self.metrics(),
            "newest": newest.map(|object| json!({
                "file": object.key, "landed_at": object.landed_at, "bytes": object.bytes,
                "received_at": first.and_then(|line| line.received_at.as_ref()),
            })),
            "problems": self.problems,
            "s3_requests": self.requests,
            "versions": self.versions,
            "about": about,
        })
    }

    /// The last hour of each metric, and its numbers now; `null` where CloudWatch could not be read.
    fn metrics(&self) -> Value {
        let Some(values) = &self.values else { return Value::Null };
        let steps = self.recent_steps + crate::flow::SHOWN_STEPS;
        let one = |(name, series): (&Name, &Vec<Option<f64>>)| {
            let numbers = json!({
                "values": series, "recent": values.sum(*name, steps), "newest": values.newest(*name, steps),
                "maximum": values.maximum(*name, steps),
            });
            (serde_json::to_value(name).ok().and_then(|name| name.as_str().map(str::to_owned)), numbers)
        };
        let series: serde_json::Map<String, Value> =
            values.series.iter().map(one).filter_map(|(name, numbers)| Some((name?, numbers))).collect();
        json!({"step_seconds": values.step.as_secs(), "last": values.last, "recent_steps": steps, "series": series})
    }

    /// Whether a part has been read, or it is known why not.
    pub(crate) fn has(&self, part: Part) -> bool {
        let is_read = match part {
            Part::Hours => self.hours.is_some(),
            Part::Incidents => self.incidents.is_some(),
        };
        is_read || self.problems.contains_key(part.name())
    }

    /// `None` when they are not read.
    pub(crate) fn hours(&self, count: usize) -> Option<Value> {
        let hours = self.hours.as_ref()?;
        let from = hours.len().saturating_sub(count);
        Some(json!({"at": self.at, "hours": hours[from..].iter().map(hour).collect::<Vec<_>>()}))
    }

    /// `None` when they were never read.
    pub(crate) fn incidents(&self) -> Option<Value> {
        let incidents = self.incidents.as_ref()?;
        Some(
            json!({"at": self.at, "incidents": &**incidents, "unreadable": &*self.unreadable_incidents, "alarms": &*self.alarms,
               "problem": self.problems.get(Part::Incidents.name())}),
        )
    }

    pub(crate) fn checks(&self) -> Value {
        json!({"at": self.at, "checks": self.checks.as_deref(), "problem": self.problems.get("checks")})
    }
}

/// What could not be read of the newest events, or is left out.
pub(crate) fn events_problem<'p>(problems: &'p BTreeMap<&'static str, String>) -> Option<&'p String> {
    problems.get("events").or_else(|| problems.get("shards"))
}

/// An hour in the grid: `2026-11-21T09`.
pub(crate) fn hour(hour: &Hour) -> Value {
    let totals = hour.facts.success.as_ref().map(|success| &success.totals);
    json!({
        "hour": hour.hour.start().rfc3339()[..13],
        "partition": hour.hour.partition(),
        "state": hour.state,
        "marks": hour.marks,
        "is_compared": hour.size.is_some(),
        "events": totals.map(|totals| totals.events),
        "rejected": totals.map(|totals| totals.rejected),
        "bytes": totals.map(|totals| totals.bytes),
        "objects": totals.map(|totals| totals.objects),
    })
}

/// An hour with all that is known of it.
pub(crate) fn details(one: &Hour) -> Value {
    let mut details = hour(one);
    let facts = &one.facts;
    details["success"] = json!(facts.success);
    details["missing"] = json!(facts.incomplete.as_ref().map(|incomplete| {
        let texts = incomplete.missing.iter().map(|missing| json!({"what": missing, "text": missing.to_string()}));
        json!({"since": incomplete.since, "missing": texts.collect::<Vec<_>>()})
    }));
    details["problem"] = json!(one.problem);
    details["size"] = json!(one.size.as_ref().map(|size| {
        let judged = size
            .judged
            .iter()
            .map(|(rule, outcome)| json!({"rule": rule_name(*rule), "outcome": outcome_name(*outcome)}));
        json!({
            "bytes": size.sizes.bytes, "day_before": size.sizes.day_before, "weeks_before": size.sizes.weeks_before,
            "band": size.band, "rules": judged.collect::<Vec<_>>(),
        })
    }));
    details
}

const fn rule_name(rule: Rule) -> &'static str {
    match rule {
        Rule::Floor => "floor",
        Rule::Change => "change",
        Rule::SeasonalScore => "seasonal_score",
        Rule::RejectedShare => "rejected_share",
    }
}

const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Fine => "fine",
        Outcome::Violation => "violation",
        Outcome::InsufficientHistory => "insufficient_history",
    }
}

/// How far a search went.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Searched {
    pub(crate) files: usize,
    pub(crate) lines: usize,
    /// Bytes of texts.
    pub(crate) bytes: usize,
    /// When the oldest of these files landed.
    pub(crate) back_to: Option<UnixMillis>,
    /// Whether there is more that was not looked at: older files, long files' first lines, ends of long texts.
    pub(crate) is_partial: bool,
}

/// The newest lines that match, the newest first, and how far was searched. All of them are counted, up to `limit` are returned.
pub(crate) fn search<'a>(objects: &'a [Object], query: &str, limit: usize) -> (Vec<(&'a Object, &'a Line)>, Searched) {
    let lower = query.to_lowercase();
    let mut searched = Searched { is_partial: objects.len() >= crate::follow::MAX_OBJECTS, ..Searched::default() };
    let mut found = Vec::new();
    for object in objects {
        searched.files += 1;
        searched.back_to = Some(object.landed_at);
        searched.is_partial |= object.lines.is_cut;
        for line in &object.lines.lines {
            searched.lines += 1;
            searched.bytes += line.text.len();
            searched.is_partial |= line.is_cut;
            if line.matches(&lower) {
                found.push((object, line));
            }
        }
    }
    // Files of several shards land side by side.
    found.sort_by(|(_, one), (_, other)| other.received_at.cmp(&one.received_at));
    found.truncate(limit);
    (found, searched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{Source, read};
    use shared::line::Kind;

    fn object(key: &str, landed_at: i64, lines: &[&str]) -> Object {
        use std::io::Write;
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes()).unwrap();
        let source = Source { kind: Kind::Event, file: key.to_owned(), key_fields: Vec::new(), is_raw: false };
        let lines = Arc::new(read(&source, encoder.finish().unwrap(), true));
        Object { key: key.to_owned(), landed_at: UnixMillis(landed_at), bytes: 1, lines }
    }

    #[test]
    fn the_newest_that_match_are_found_and_how_far_was_looked_is_said() {
        let line = |id: &str, second: u32| {
            format!(
                r#"{{"v":1,"id":"{id}","received_at":"2026-11-21T09:32:0{second}.000Z","event":{{"type":"play"}}}}"#
            )
        };
        let objects =
            [object("b", 9, &[&line("b", 2), &line("d", 4)]), object("a", 8, &[&line("a", 1), &line("c", 3)])];
        let ids = |query, limit| {
            let (found, searched) = search(&objects, query, limit);
            (found.iter().map(|(_, line)| line.id.clone().unwrap()).collect::<String>(), searched)
        };
        assert_eq!(ids("", 3).0, "dcb");
        let (found, searched) = ids("\"PLAY\"", 10);
        assert_eq!((found.as_str(), searched.files, searched.lines), ("dcba", 2, 4));
        assert_eq!((searched.back_to, searched.is_partial), (Some(UnixMillis(8)), false));
        assert_eq!(ids("pause", 10).0, "");
        let many: Vec<Object> = (0..20).map(|number| object("x", number, &[])).collect();
        assert!(search(&many, "", 1).1.is_partial);
        assert!(!search(&many[1..], "", 1).1.is_partial);
    }
}
