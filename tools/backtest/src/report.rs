//! The results, as Markdown.

use std::fmt::{Display, Write};

use crate::detectors::{Detector, Parameters};
use crate::history::History;
use crate::incidents::{Baseline, Incident};
use crate::trials::{Found, Trials};

/// False alarms a week that one rule may cost: one in two weeks.
const TOLERABLE: f64 = 0.5;

/// All tables.
pub(crate) fn report(history: &History, trials: &Trials, parameters: &Parameters) -> String {
    let events: u64 = history.hours.iter().map(|hour| hour.events).sum();
    let bytes: u64 = history.hours.iter().map(|hour| hour.bytes).sum();
    let (first, hours) = (history.first.partition(), history.hours.len());
    let mut text = format!(
        "{hours} hours from {first}: {events} events, {bytes} bytes.\n\n\
         With MINIMUM_DATE_BYTES={}, MINIMUM_HOUR_BYTES={}, MAXIMUM_CHANGE_PERCENT={}, MAXIMUM_SEASONAL_SCORE={}, \
         RECENCY_DUE_MINUTES={}, and scores that stand for more than {} %:\n\n",
        parameters.limits.minimum_date_bytes,
        parameters.limits.minimum_hour_bytes,
        parameters.limits.maximum_change_percent,
        parameters.limits.maximum_seasonal_score,
        parameters.due_minutes,
        parameters.limits.minimum_seasonal_percent,
    );
    text.push_str(&rules(trials, parameters));
    text.push('\n');
    text.push_str(&limits(trials, parameters));
    text
}

fn rules(trials: &Trials, parameters: &Parameters) -> String {
    let mut table = Table::default();
    let names = Baseline::ALL.map(Baseline::name).into_iter().chain(Incident::ALL.map(Incident::name));
    table.heading(["rule"].into_iter().chain(names).chain(["echoes"]));
    for detector in Detector::ALL {
        table.row(rule(trials, detector.name(), &[detector], parameters));
    }
    table.row(rule(trials, "any of them", &Detector::ALL, parameters));
    table.text
}

fn rule(trials: &Trials, name: &str, detectors: &[Detector], parameters: &Parameters) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    cells.extend(Baseline::ALL.map(|baseline| format!("{:.2}", trials.false_alarms(baseline, detectors, parameters))));
    cells.extend(Incident::ALL.map(|incident| {
        let is_asked = detectors.iter().any(|detector| detector.is_of_size() == incident.is_of_size());
        if is_asked { cell(&trials.found(|one| one == incident, detectors, parameters)) } else { "-".to_owned() }
    }));
    cells.push(echoes(&trials.found(|_| true, detectors, parameters)));
    cells
}

/// `38/40 in 1 h 20`
fn cell(found: &Found) -> String {
    match found.median_minutes() {
        None => format!("0/{}", found.of),
        Some(minutes) => format!("{}/{} in {}", found.minutes.len(), found.of, time(minutes)),
    }
}

fn time(minutes: i64) -> String {
    if minutes < 60 { format!("{minutes} min") } else { format!("{} h {:02}", minutes / 60, minutes % 60) }
}

fn echoes(found: &Found) -> String {
    format!("{:.2}", found.echoes as f64 / found.of.max(1) as f64)
}

/// One parameter with several values, the others as they are.
struct Sweep {
    name: &'static str,
    values: &'static [f64],
    detectors: [Detector; 2],
    parameter: fn(&mut Parameters) -> &mut f64,
    incidents: fn(Incident) -> bool,
}

fn sweeps() -> [Sweep; 4] {
    [
        Sweep {
            name: "MAXIMUM_CHANGE_PERCENT",
            values: &[25.0, 30.0, 35.0, 40.0, 50.0],
            detectors: [Detector::ChangeOfHours, Detector::ChangeOfDates],
            parameter: |parameters| &mut parameters.limits.maximum_change_percent,
            incidents: Incident::is_of_size,
        },
        Sweep {
            name: "MAXIMUM_SEASONAL_SCORE",
            values: &[4.0, 5.0, 6.0, 8.0, 10.0],
            detectors: [Detector::ScoreOfHours, Detector::ScoreOfDates],
            parameter: |parameters| &mut parameters.limits.maximum_seasonal_score,
            incidents: Incident::is_of_size,
        },
        Sweep {
            name: "per cent from the median (fixed)",
            values: &[20.0, 30.0, 35.0, 40.0, 50.0],
            detectors: [Detector::ScoreOfHours, Detector::ScoreOfDates],
            parameter: |parameters| &mut parameters.limits.minimum_seasonal_percent,
            incidents: Incident::is_of_size,
        },
        Sweep {
            name: "RECENCY_DUE_MINUTES",
            values: &[30.0, 35.0, 40.0, 60.0, 100.0],
            detectors: [Detector::Recency; 2],
            parameter: |parameters| &mut parameters.due_minutes,
            incidents: |incident| !incident.is_of_size(),
        },
    ]
}

/// What one value does.
struct Tried {
    value: f64,
    /// A week, in the noisiest baseline.
    false_alarms: f64,
    found: Found,
}

impl Sweep {
    fn try_all(&self, trials: &Trials, parameters: &Parameters) -> Vec<Tried> {
        let one = |value: &f64| {
            let mut parameters = *parameters;
            *(self.parameter)(&mut parameters) = *value;
            let false_alarms = Baseline::ALL.map(|one| trials.false_alarms(one, &self.detectors, &parameters));
            Tried {
                value: *value,
                false_alarms: false_alarms.into_iter().fold(0.0, f64::max),
                found: trials.found(self.incidents, &self.detectors, &parameters),
            }
        };
        self.values.iter().map(one).collect()
    }

    fn add_rows(&self, table: &mut Table, trials: &Trials, parameters: &Parameters) {
        let tried = self.try_all(trials, parameters);
        let shipped = *(self.parameter)(&mut Parameters::SHIPPED.clone());
        let best = best(&tried);
        for one in &tried {
            let marks = [(best == Some(one.value), "best"), (shipped == one.value, "shipped")];
            let marks: Vec<_> = marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
            table.row(vec![
                format!("{}: {}", self.name, one.value),
                format!("{:.2}", one.false_alarms),
                format!("{}/{}", one.found.minutes.len(), one.found.of),
                one.found.median_minutes().map_or_else(|| "never".to_owned(), time),
                echoes(&one.found),
                marks.join(", "),
            ]);
        }
    }
}

/// Each limit with several values, the others as they are.
fn limits(trials: &Trials, parameters: &Parameters) -> String {
    let mut table = Table::default();
    table.heading(["limit", "false alarms a week at worst", "found", "median", "echoes", ""]);
    for sweep in sweeps() {
        sweep.add_rows(&mut table, trials, parameters);
    }
    table.text
}

/// The value that finds most with tolerable false alarms; among equals the quietest, then the fastest, then the first.
fn best(tried: &[Tried]) -> Option<f64> {
    let tolerable = tried.iter().filter(|one| one.false_alarms <= TOLERABLE);
    let first = tolerable.min_by(|one, other| {
        let found = other.found.minutes.len().cmp(&one.found.minutes.len());
        let median = |tried: &Tried| tried.found.median_minutes().unwrap_or(i64::MAX);
        found.then(one.false_alarms.total_cmp(&other.false_alarms)).then(median(one).cmp(&median(other)))
    });
    first.map(|one| one.value)
}

#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn heading<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let line = vec!["---"; names.len()];
        self.row(names);
        self.row(line);
    }

    fn row<T: Display>(&mut self, cells: Vec<T>) {
        self.text.push('|');
        for cell in cells {
            // Writing to a string can't fail.
            if write!(self.text, " {cell} |").is_err() {
                unreachable!("a string takes all");
            }
        }
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    const DOCUMENT: &str = include_str!("../../../docs/BACKTEST.md");

    #[test]
    fn the_document_shows_what_the_command_prints_for_seed_1() {
        let history = synthetic::history(16, 1);
        let printed = report(&history, &Trials::of(&history, 40, 1), &Parameters::SHIPPED);
        assert!(DOCUMENT.contains(&printed), "docs/BACKTEST.md should hold:\n{printed}");
    }

    #[test]
    fn the_document_quotes_what_is_shipped() {
        let Parameters { limits, due_minutes } = Parameters::SHIPPED;
        for (name, value) in [
            ("MINIMUM_DATE_BYTES", limits.minimum_date_bytes as f64),
            ("MINIMUM_HOUR_BYTES", limits.minimum_hour_bytes as f64),
            ("MAXIMUM_CHANGE_PERCENT", limits.maximum_change_percent),
            ("MAXIMUM_SEASONAL_SCORE", limits.maximum_seasonal_score),
            ("RECENCY_DUE_MINUTES", due_minutes),
        ] {
            let row = format!("| `{name}` | {value} |");
            assert!(DOCUMENT.contains(&row), "docs/BACKTEST.md should hold {row}");
        }
    }

    #[test]
    fn what_is_shipped_is_what_is_best() {
        let history = synthetic::history(16, 1);
        let trials = Trials::of(&history, 40, 1);
        for sweep in sweeps() {
            let best = best(&sweep.try_all(&trials, &Parameters::SHIPPED));
            assert_eq!(best, Some(*(sweep.parameter)(&mut Parameters::SHIPPED.clone())), "{}", sweep.name);
        }
    }

    #[test]
    fn of_values_that_find_the_same_the_quieter_is_best_and_a_noisy_one_never() {
        let tried = |value, false_alarms, minutes: &[i64]| Tried {
            value,
            false_alarms,
            found: Found { of: 2, minutes: minutes.to_vec(), echoes: 0 },
        };
        let all =
            [tried(1.0, 0.51, &[5, 5]), tried(2.0, 0.4, &[5, 5]), tried(3.0, 0.3, &[5, 9]), tried(4.0, 0.0, &[5])];
        assert_eq!(best(&all), Some(3.0));
        assert_eq!(best(&all[..1]), None);
    }
}
