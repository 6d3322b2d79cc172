//! docs/METRICS.md names every metric as the code does, and no other.

// .cargo/clippy.toml allows it in the tests themselves only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use shared::metric::Metric;

const PAGE: &str = include_str!("../../docs/METRICS.md");

/// What is wrong with a page. A row whose first cell is a name in backticks is about a metric of ours; rows about AWS's
/// own have their namespace there.
fn problems(page: &str) -> BTreeSet<String> {
    let mut units: BTreeMap<&str, &str> =
        Metric::all().map(|metric| (metric.as_str(), metric.unit().as_str())).collect();
    let (mut found, mut problems) = (BTreeSet::new(), BTreeSet::new());
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`');
        let is_new = found.insert(name);
        let problem = match (units.remove(name), &cells[1..]) {
            _ if !is_new => format!("{name} is there twice"),
            (None, _) => format!("{name} is no metric"),
            (Some(unit), [found, from, meaning, off]) => match [from, meaning, off].contains(&&"") {
                true => format!("{name} has an empty cell"),
                false if *found != unit => format!("{name} has the unit {unit}"),
                false => continue,
            },
            (Some(_), _) => format!("{name} has not five cells"),
        };
        problems.insert(problem);
    }
    problems.extend(units.into_keys().map(|name| format!("{name} is missing")));
    problems
}

#[test]
fn the_page_lists_every_metric_with_its_unit_and_no_other() {
    assert_eq!(problems(PAGE), BTreeSet::new());
}

#[test]
fn a_page_that_says_otherwise_is_noticed() {
    for metric in Metric::all() {
        let (name, unit) = (metric.as_str(), metric.unit().as_str());
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
        let with = |other: &str| problems(&PAGE.replace(&format!("{row}\n"), other));
        assert_eq!(with(""), [format!("{name} is missing")].into());
        let renamed = row.replacen(name, "Renamed", 1) + "\n";
        assert_eq!(with(&renamed), [format!("{name} is missing"), "Renamed is no metric".into()].into());
        let in_other_unit = row.replacen(&format!("| {unit} |"), "| Furlongs |", 1) + "\n";
        assert_eq!(with(&in_other_unit), [format!("{name} has the unit {unit}")].into());
        assert_eq!(with(&format!("{row}\n{row}\n")), [format!("{name} is there twice")].into());
        assert_eq!(with(&format!("| `{name}` | {unit} | ingest |\n")), [format!("{name} has not five cells")].into());
        let empty = format!("| `{name}` | {unit} | ingest | | x |\n");
        assert_eq!(with(&empty), [format!("{name} has an empty cell")].into());
    }
}
