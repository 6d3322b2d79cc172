//! What events were found to break, by rule and minute of receipt. Apart from the other counts: these have a dimension more.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use schema_rules::OTHER;
use shared::emf;
use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use crate::counts::{FrontDoor, minute_of};

/// Rules that a process counts apart: each is a metric of its own, which costs money.
pub(super) const MAX_RULES: usize = 20;

#[derive(Debug)]
pub(super) struct SchemaCounts {
    pending: Mutex<Pending>,
    /// The metrics' dimension `FunctionName`.
    name: String,
    front_door: FrontDoor,
}

#[derive(Debug, Default)]
struct Pending {
    minutes: BTreeMap<UnixMillis, Sums>,
    /// Of all that was counted since the start: at most [`MAX_RULES`] rules and the others.
    totals: Sums,
}

#[derive(Debug, Default)]
struct Sums {
    violations: BTreeMap<String, u64>,
    unvalidated: u64,
}

impl SchemaCounts {
    pub(super) fn new(name: String, front_door: FrontDoor) -> Self {
        Self { pending: Mutex::default(), name, front_door }
    }

    /// Counts an event that breaks these rules.
    pub(super) fn add(&self, received_at: UnixMillis, rules: impl IntoIterator<Item = String>) {
        let mut pending = self.pending();
        let Pending { minutes, totals } = &mut *pending;
        let sums = minutes.entry(minute_of(received_at)).or_default();
        let mut is_counted_among_others = false;
        for rule in rules {
            let is_known = totals.violations.contains_key(&rule);
            let apart = totals.violations.keys().filter(|rule| *rule != OTHER).count();
            let rule = if is_known || apart < MAX_RULES { rule } else { OTHER.to_owned() };
            // An event counts once, however many of the others it breaks.
            if rule == OTHER && std::mem::replace(&mut is_counted_among_others, true) {
                continue;
            }
            *totals.violations.entry(rule.clone()).or_default() += 1;
            *sums.violations.entry(rule).or_default() += 1;
        }
    }

    /// Counts an event that was not validated.
    pub(super) fn add_unvalidated(&self, received_at: UnixMillis) {
        let mut pending = self.pending();
        pending.totals.unvalidated += 1;
        pending.minutes.entry(minute_of(received_at)).or_default().unvalidated += 1;
    }

    /// The lines of what is not written yet.
    pub(super) fn lines(&self) -> Vec<String> {
        let minutes = std::mem::take(&mut self.pending().minutes);
        let properties = [("front_door", self.front_door.as_str())];
        let mut lines = Vec::new();
        for (minute, Sums { violations, unvalidated }) in minutes {
            lines.extend(violations.into_iter().map(|(rule, count)| {
                emf::line_of_rule(minute, &self.name, &rule, (Metric::SchemaViolations, count), &properties)
            }));
            if unvalidated > 0 {
                lines.push(emf::line(minute, &self.name, &[(Metric::SchemaUnavailable, unvalidated)], &properties));
            }
        }
        lines
    }

    pub(super) fn totals(&self) -> (Vec<(String, u64)>, u64) {
        let pending = self.pending();
        let violations = pending.totals.violations.iter().map(|(rule, count)| (rule.clone(), *count));
        (violations.collect(), pending.totals.unvalidated)
    }

    /// Nothing in between can panic half way.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn counts() -> SchemaCounts {
        SchemaCounts::new("ingest".into(), FrontDoor::Server)
    }

    fn rule(number: usize) -> String {
        format!("/properties/{number:02}/type")
    }

    #[test]
    fn rules_stand_on_the_bound_and_one_past_it() {
        let counts = counts();
        (0..MAX_RULES).for_each(|number| counts.add(UnixMillis(0), [rule(number)]));
        assert!(counts.totals().0.iter().map(|(_, count)| *count).eq([1; MAX_RULES]));
        counts.add(UnixMillis(0), [rule(0), rule(MAX_RULES), rule(MAX_RULES + 1)]);
        let (totals, _) = counts.totals();
        assert_eq!(totals.len(), MAX_RULES + 1);
        assert_eq!((&totals[0], &totals[MAX_RULES]), (&(rule(0), 2), &(OTHER.to_owned(), 1)));
    }

    #[test]
    fn what_could_not_be_named_takes_the_place_of_no_rule() {
        let counts = counts();
        counts.add(UnixMillis(0), [OTHER.to_owned()]);
        (0..MAX_RULES).for_each(|number| counts.add(UnixMillis(0), [rule(number)]));
        assert_eq!(counts.totals().0.len(), MAX_RULES + 1);
    }

    #[test]
    fn each_rule_is_a_line_a_minute_that_is_written_once() {
        let counts = counts();
        counts.add(UnixMillis(59_999), ["/required".to_owned()]);
        counts.add(UnixMillis(60_000), ["/required".to_owned(), "/type".to_owned()]);
        counts.add_unvalidated(UnixMillis(61_000));
        let lines: Vec<Value> = counts.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line["_aws"]["Timestamp"].as_i64().unwrap(), line["Rule"].as_str(), &line["SchemaViolations"]))
            .collect();
        let (one, none) = (Value::from(1), Value::Null);
        let expected = [
            (0, Some("/required"), &one),
            (60_000, Some("/required"), &one),
            (60_000, Some("/type"), &one),
            (60_000, None, &none),
        ];
        assert_eq!(found, expected);
        assert_eq!((&lines[3]["SchemaUnavailable"], &lines[3]["front_door"]), (&one, &Value::from("server")));
        assert_eq!(counts.lines(), [""; 0]);
        assert_eq!(counts.totals(), (vec![("/required".to_owned(), 2), ("/type".to_owned(), 1)], 1));
    }
}
