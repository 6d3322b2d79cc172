//! The deployed rules, asked about each hour and date of a history.

use std::ops::Range;

use monitoring_lambdas::rules::partition::Partition;
use monitoring_lambdas::rules::recency::{self, State};
use monitoring_lambdas::rules::size::{self, Limits, Measured, Outcome, Rule, Sizes};
use shared::timestamp::UnixMillis;

use crate::history::History;

/// Everything that is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Parameters {
    pub(crate) limits: Limits,
    pub(crate) due_minutes: f64,
}

impl Parameters {
    pub(crate) const SHIPPED: Self = Self { limits: Limits::SHIPPED, due_minutes: recency::SHIPPED_DUE_MINUTES as f64 };
}

/// A rule on one kind of partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detector {
    FloorOfDates,
    ChangeOfHours,
    ChangeOfDates,
    ScoreOfHours,
    ScoreOfDates,
    Recency,
}

/// A partition as the checks see it.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) partition: Partition,
    /// Its hours in the history.
    pub(crate) hours: Range<usize>,
    sealed_at: Option<UnixMillis>,
    /// `None` when it was not sealed: check-size is never invoked for it.
    measured: Option<Measured>,
}

impl Detector {
    pub(crate) const ALL: [Self; 6] = [
        Self::FloorOfDates,
        Self::ChangeOfHours,
        Self::ChangeOfDates,
        Self::ScoreOfHours,
        Self::ScoreOfDates,
        Self::Recency,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FloorOfDates => "floor, dates",
            Self::ChangeOfHours => "change, hours",
            Self::ChangeOfDates => "change, dates",
            Self::ScoreOfHours => "score, hours",
            Self::ScoreOfDates => "score, dates",
            Self::Recency => "recency, hours",
        }
    }

    /// Whether it is about sizes, else about seals.
    pub(crate) const fn is_of_size(self) -> bool {
        !matches!(self, Self::Recency)
    }

    /// When it raises an alarm about a partition, if it does.
    pub(crate) fn alarm(self, seen: &Observation, parameters: &Parameters) -> Option<UnixMillis> {
        let is_hour = matches!(seen.partition, Partition::Hour(_));
        let rule = match (self, is_hour) {
            (Self::FloorOfDates, false) => Rule::Floor,
            (Self::ChangeOfHours, true) | (Self::ChangeOfDates, false) => Rule::Change,
            (Self::ScoreOfHours, true) | (Self::ScoreOfDates, false) => Rule::SeasonalScore,
            (Self::Recency, true) => return missed(seen, parameters.due_minutes as i64),
            _ => return None,
        };
        let limits = &parameters.limits;
        let judged = seen.measured?.judge(limits.minimum_bytes(seen.partition), limits);
        // check-size is invoked when a partition is sealed.
        if judged.contains(&(rule, Outcome::Violation)) { seen.sealed_at } else { None }
    }
}

/// check-recency sees within a minute that there is no verdict in time.
fn missed(seen: &Observation, due_minutes: i64) -> Option<UnixMillis> {
    let verdict_at = recency::verdict_at(seen.partition, due_minutes);
    match recency::judge(seen.partition, seen.sealed_at, due_minutes) {
        State::Ok => None,
        State::Late { .. } | State::NotRun => Some(UnixMillis(verdict_at.0 + 60_000)),
    }
}

/// The hours in a range, and the dates that have an hour in it.
pub(crate) fn observe(history: &History, hours: Range<usize>) -> Vec<Observation> {
    let mut seen: Vec<Observation> =
        hours.clone().map(|at| observation(history, Partition::Hour(history.hour(at)), at..at + 1)).collect();
    for (at, date) in history.dates() {
        if at < hours.end && at + 24 > hours.start {
            seen.push(observation(history, Partition::Date(date), at..at + 24));
        }
    }
    seen
}

fn observation(history: &History, partition: Partition, hours: Range<usize>) -> Observation {
    let measured = history.bytes(partition).map(|bytes| {
        let sizes = Sizes {
            bytes,
            day_before: history.bytes(size::day_before(partition)),
            weeks_before: size::weeks_before(partition).map(|earlier| history.bytes(earlier)),
        };
        sizes.measure()
    });
    Observation { partition, hours, sealed_at: history.sealed_at(partition), measured }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incidents::Incident;
    use crate::synthetic;

    #[test]
    fn an_outage_of_a_date_is_seen_by_all_rules_of_size() {
        let mut history = synthetic::history(10, 1);
        let at = 24 * 65;
        Incident::OutageOfADate.inject(&mut history, at..at + 24);
        let seen = observe(&history, at..at + 24);
        assert_eq!(seen.len(), 25);
        for detector in Detector::ALL {
            let alarms = seen.iter().filter(|one| detector.alarm(one, &Parameters::SHIPPED).is_some()).count();
            let expected = match detector {
                Detector::ChangeOfHours | Detector::ScoreOfHours => 24,
                Detector::FloorOfDates | Detector::ChangeOfDates | Detector::ScoreOfDates => 1,
                Detector::Recency => 0,
            };
            assert_eq!(alarms, expected, "{detector:?}");
        }
    }

    #[test]
    fn a_missed_seal_is_seen_a_minute_after_the_last_run_in_time() {
        let mut history = synthetic::history(2, 1);
        Incident::NoSeal.inject(&mut history, 200..201);
        let seen = observe(&history, 200..201);
        let end = seen[0].partition.end();
        let alarm = Detector::Recency.alarm(&seen[0], &Parameters::SHIPPED).unwrap();
        assert_eq!(alarm.0 - end.0, 51 * 60_000);
        assert_eq!(Detector::ChangeOfHours.alarm(&seen[0], &Parameters::SHIPPED), None);
    }
}
