//! Injects incidents at many places of a history, one at a time, and asks each detector about them.

use std::collections::BTreeSet;
use std::ops::Range;

use monitoring_lambdas::rules::partition::Partition;
use monitoring_lambdas::rules::size::WEEKS;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use shared::timestamp::UnixMillis;

use crate::detectors::{Detector, Observation, Parameters, observe};
use crate::history::History;
use crate::incidents::{Baseline, Incident};

/// An incident, and what was to be seen from its first hour until it is in no comparison any more.
struct Trial {
    incident: Incident,
    hours: Range<usize>,
    begins: UnixMillis,
    seen: Vec<Observation>,
}

/// Everything that was to be seen: rules with any parameters can be asked about it.
pub(crate) struct Trials {
    trials: Vec<Trial>,
    /// Without any incident.
    baseline: Vec<(Baseline, Vec<Observation>)>,
    weeks: f64,
}

/// What became of one kind of incident.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) of: usize,
    /// From the beginning of each incident that was found to the first alarm, in minutes, in order.
    pub(crate) minutes: Vec<i64>,
    /// Alarms afterwards, about partitions that are as they should be.
    pub(crate) echoes: usize,
}

impl Found {
    pub(crate) fn median_minutes(&self) -> Option<i64> {
        self.minutes.get(self.minutes.len().checked_sub(1)? / 2).copied()
    }
}

/// Alarms of hours that follow one another are no farther apart.
const ONE_ALARM_MILLIS: i64 = 2 * 3_600_000;

/// Shorter histories have no second half that is worth trying.
pub(crate) const MINIMUM_WEEKS: f64 = 3.0;

impl Trials {
    /// Incidents begin in the second half, where there is something to compare with, and not in the last two days.
    pub(crate) fn of(history: &History, places: usize, seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let (begin, end) = (history.hours.len() / 2, history.hours.len() - 48);
        let places: Vec<usize> =
            (0..places).map(|_| begin + (random.random::<f64>() * (end - begin) as f64) as usize).collect();
        let trials = Incident::ALL.into_iter().flat_map(|incident| {
            places.iter().map(move |at| {
                let hours = incident.hours(history, *at);
                let mut changed = history.clone();
                incident.inject(&mut changed, hours.clone());
                let until = (hours.end + (WEEKS * 7 + 1) * 24).min(history.hours.len());
                let seen = observe(&changed, hours.start..until);
                Trial { incident, begins: incident.begins(history, &hours), hours, seen }
            })
        });
        let baseline = Baseline::ALL.map(|baseline| {
            let changed = baseline.of(history);
            (baseline, observe(&changed, 0..history.hours.len()))
        });
        Self { trials: trials.collect(), baseline: baseline.into(), weeks: history.weeks() }
    }

    /// Alarms a week where nothing is wrong. Those that follow one another are one: the alarm stays on.
    pub(crate) fn false_alarms(&self, baseline: Baseline, detectors: &[Detector], parameters: &Parameters) -> f64 {
        let seen = self.baseline.iter().filter(|(one, _)| *one == baseline).flat_map(|(_, seen)| seen);
        let mut times: Vec<i64> = alarms(detectors, seen, parameters).into_iter().map(|(_, at)| at.0).collect();
        times.sort_unstable();
        let going_on = times.windows(2).filter(|two| two[1] - two[0] <= ONE_ALARM_MILLIS).count();
        (times.len() - going_on) as f64 / self.weeks
    }

    /// What became of some kinds of incident.
    pub(crate) fn found(
        &self,
        incidents: impl Fn(Incident) -> bool,
        detectors: &[Detector],
        parameters: &Parameters,
    ) -> Found {
        let as_it_is = self.baseline.iter().filter(|(one, _)| *one == Baseline::AsItIs).flat_map(|(_, seen)| seen);
        let usual: BTreeSet<Partition> =
            alarms(detectors, as_it_is, parameters).into_iter().map(|(seen, _)| seen.partition).collect();
        let mut found = Found::default();
        for trial in self.trials.iter().filter(|trial| incidents(trial.incident)) {
            let alarms = alarms(detectors, &trial.seen, parameters);
            let (of_it, others): (Vec<_>, Vec<_>) =
                alarms.into_iter().partition(|(seen, _)| overlap(&seen.hours, &trial.hours));
            let first = of_it.iter().map(|(_, at)| (at.0 - trial.begins.0) / 60_000).min();
            found.of += 1;
            found.minutes.extend(first);
            found.echoes += others.iter().filter(|(seen, _)| !usual.contains(&seen.partition)).count();
        }
        found.minutes.sort_unstable();
        found
    }
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}

fn alarms<'a>(
    detectors: &[Detector],
    seen: impl IntoIterator<Item = &'a Observation>,
    parameters: &Parameters,
) -> Vec<(&'a Observation, UnixMillis)> {
    let alarm = |seen: &'a Observation| {
        let first = detectors.iter().filter_map(|detector| detector.alarm(seen, parameters)).min();
        first.map(|at| (seen, at))
    };
    seen.into_iter().filter_map(alarm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn an_outage_is_found_when_its_first_hour_is_sealed() {
        let trials = Trials::of(&synthetic::history(8, 1), 5, 1);
        let outage = |incident| incident == Incident::OutageOfAnHour;
        let found = trials.found(outage, &[Detector::ChangeOfHours], &Parameters::SHIPPED);
        assert_eq!((found.of, found.median_minutes()), (5, Some(80)));
        assert_eq!(trials.found(outage, &[Detector::Recency], &Parameters::SHIPPED).median_minutes(), None);
    }

    #[test]
    fn the_same_seed_finds_the_same() {
        let found = |seed| {
            let trials = Trials::of(&synthetic::history(6, 1), 3, seed);
            trials.found(Incident::is_of_size, &Detector::ALL, &Parameters::SHIPPED)
        };
        assert_eq!(found(3), found(3));
    }
}
