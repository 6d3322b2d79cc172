//! Waits until something holds, for tests and scripts that would otherwise sleep.

use std::time::Duration;

use serde_json::{Value, json};
use shared::timestamp::UtcHour;

use crate::api::{ApiError, Query, parse_hour};
use crate::hour_state::{self, State};
use crate::observer::Watch;
use crate::snapshot::{Snapshot, search};

/// Lines that may be waited for.
const MAX_COUNT: u64 = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// So many of the newest lines of a kind match.
    Landed {
        kind: &'static str,
        text: String,
        count: usize,
    },
    Sealed(UtcHour),
    Compacted(UtcHour),
}

impl Condition {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        match query.choice("for", &["landed", "sealed", "compacted"])? {
            "landed" => Ok(Self::Landed {
                kind: query.choice("kind", &["event", "rejected"])?,
                text: query.search()?.to_owned(),
                count: usize::try_from(query.number("count", 1, 1..=MAX_COUNT)?).unwrap_or(usize::MAX),
            }),
            "sealed" => hour(query).map(Self::Sealed),
            _ => hour(query).map(Self::Compacted),
        }
    }

    /// What holds, if it does.
    fn holds(&self, snapshot: &Snapshot) -> Option<Value> {
        match self {
            Self::Landed { kind, text, count } => {
                let newest = &snapshot.newest;
                let objects = if *kind == "event" { &newest.events } else { &newest.rejected };
                let (found, _) = search(objects, text, usize::MAX);
                let first = found.first().map(|(_, line)| line);
                (found.len() >= *count).then(|| json!({"count": found.len(), "newest": first}))
            }
            Self::Sealed(hour) => is(snapshot, *hour, |one| one.state == State::Sealed),
            Self::Compacted(hour) => is(snapshot, *hour, |one| hour_state::is_compacted(&one.facts)),
        }
    }
}

fn hour(query: &Query) -> Result<UtcHour, ApiError> {
    let hour = query.text("hour").and_then(parse_hour);
    hour.ok_or_else(|| ApiError::Parameter { name: "hour", problem: "takes an hour like 2026-11-21T09".to_owned() })
}

fn is(snapshot: &Snapshot, hour: UtcHour, holds: impl Fn(&crate::hours::Hour) -> bool) -> Option<Value> {
    let found = snapshot.hours.as_ref()?.iter().find(|one| one.hour == hour)?;
    holds(found).then(|| crate::snapshot::hour(found))
}

/// What holds at last; `None` when it does not in time.
pub(crate) async fn until(mut watch: Watch, condition: Condition, limit: Duration) -> Option<Value> {
    // What was read before somebody asked may be long past.
    drop(watch.snapshots.borrow_and_update());
    let held = async {
        loop {
            watch.look();
            watch.snapshots.changed().await.ok()?;
            let snapshot = watch.snapshots.borrow_and_update().clone()?;
            if let Some(held) = condition.holds(&snapshot) {
                return Some(json!({"at": snapshot.at, "holds": held}));
            }
        }
    };
    // The time is measured here: what is read may hang.
    tokio::time::timeout(limit, held).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        let parse = |text: &str| Condition::parse(&Query::parse(text).unwrap());
        let landed = |text: &str, count| Condition::Landed { kind: "event", text: text.into(), count };
        assert_eq!(parse("for=landed&q=a&count=200"), Ok(landed("a", 200)));
        assert_eq!(parse(""), Ok(landed("", 1)));
        assert_eq!(parse("for=sealed&hour=2026-11-21T09"), Ok(Condition::Sealed(parse_hour("2026-11-21T09").unwrap())));
        for wrong in ["for=x", "for=sealed", "for=compacted&hour=9", "for=landed&count=201", "for=landed&kind=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
