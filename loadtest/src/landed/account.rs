//! The account of a run: what was said of each event against where it is.

use std::collections::BTreeSet;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use shared::line::Kind;

use super::RunIdentity;
use super::inventory::{Inventory, LandedObject};
use super::parts;
use crate::ledger::{Entry, Ledger, Said, Sort, id};
use crate::result::{Distribution, Truth};

/// Ids that are named of what is wrong.
const MAX_EXAMPLES: usize = 20;
/// What the distribution of times reaches to, a day in microseconds, and how exact it is.
const LONGEST_US: u64 = 24 * 3_600 * 1_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Where one event was seen.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    /// Lines and whole rejected bodies that hold it.
    count: u32,
    /// When the first of them was stored, in milliseconds from the start of the run; 0 for what S3's clock has earlier.
    first_ms: u32,
}

/// Where each event of a ledger was seen.
#[derive(Debug)]
pub(super) struct Sightings {
    started_unix_ms: u64,
    by_number: Vec<Sighting>,
    /// In a place that is not theirs, or never sent.
    misplaced: BTreeSet<u64>,
}

impl Sightings {
    pub(super) fn of<'i>(inventory: &'i Inventory, run: &RunIdentity, ledger: &Ledger) -> Self {
        let unseen = Sighting { count: 0, first_ms: u32::MAX };
        let by_number = vec![unseen; ledger.entries().len()];
        let mut seen = Self { started_unix_ms: run.started_unix_ms, by_number, misplaced: BTreeSet::new() };
        for object in inventory.objects.values() {
            seen.misplaced.extend(&object.holdings.mixed);
            for number in &object.holdings.numbers {
                seen.add(ledger, *number, object.kind, 1, object.modified_ms);
            }
        }
        let parts_of = |object: &'i LandedObject| object.holdings.parts.iter().map(|part| (part, object.modified_ms));
        let parts = inventory.objects.values().flat_map(parts_of);
        for whole in parts::join(parts, &inventory.scanner) {
            for number in whole.numbers {
                seen.add(ledger, number, Kind::Rejected, whole.copies, whole.landed_ms);
            }
        }
        seen
    }

    fn add(&mut self, ledger: &Ledger, number: u64, kind: Kind, copies: u32, landed_ms: u64) {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(entry) = ledger.entries().get(place) else {
            self.misplaced.insert(number);
            return;
        };
        if kind != home(entry.sort) {
            self.misplaced.insert(number);
        }
        let since_start_ms = landed_ms.saturating_sub(self.started_unix_ms);
        let sighting = &mut self.by_number[place];
        sighting.count = sighting.count.saturating_add(copies);
        sighting.first_ms = sighting.first_ms.min(u32::try_from(since_start_ms).unwrap_or(u32::MAX));
    }

    /// Entries with their numbers and where they were seen.
    fn entries<'s>(&'s self, ledger: &'s Ledger) -> impl Iterator<Item = (u64, &'s Entry, Sighting)> {
        (0..).zip(ledger.entries()).zip(&self.by_number).map(|((number, entry), sighting)| (number, entry, *sighting))
    }

    /// Different events that were seen.
    pub(super) fn landed(&self) -> u64 {
        self.by_number.iter().filter(|sighting| sighting.count > 0).count() as u64
    }

    /// Events that were said to be stored, seen or not.
    pub(super) fn expected(&self, ledger: &Ledger) -> u64 {
        ledger.entries().iter().filter(|entry| entry.said == Said::Stored).count() as u64
    }

    /// Those of the expected that were seen.
    pub(super) fn found(&self, ledger: &Ledger) -> u64 {
        self.entries(ledger).filter(|(_, entry, seen)| entry.said == Said::Stored && seen.count > 0).count() as u64
    }
}

/// Where an entry belongs.
fn home(sort: Sort) -> Kind {
    match sort {
        Sort::Event => Kind::Event,
        Sort::Bad => Kind::Rejected,
    }
}

/// Everything about what landed.
pub(super) fn truth(
    inventory: &Inventory,
    run: &RunIdentity,
    ledger: &Ledger,
    waited: Duration,
) -> Result<Truth, CreationError> {
    let seen = Sightings::of(inventory, run, ledger);
    let is_of_the_run =
        |object: &&LandedObject| !object.holdings.numbers.is_empty() || !object.holdings.parts.is_empty();
    let files: Vec<&LandedObject> = inventory.objects.values().filter(is_of_the_run).collect();
    let (landed, expected, found) = (seen.landed(), seen.expected(ledger), seen.found(ledger));
    Ok(Truth {
        expected,
        landed,
        missing: expected - found,
        doubled: seen.by_number.iter().filter(|sighting| sighting.count > 1).count() as u64,
        landed_unknown: landed - found,
        misplaced: seen.misplaced.len() as u64,
        examples: examples(&seen, run, ledger),
        files: files.len() as u64,
        compressed_bytes: files.iter().map(|object| object.compressed_bytes).sum(),
        uncompressed_bytes: files.iter().map(|object| object.holdings.uncompressed_bytes).sum(),
        end_to_end: end_to_end(&seen, ledger)?,
        resolution_ms: resolution_ms(&files),
        landed_by_second: landed_by_second(&seen, run, ledger),
        waited_seconds: waited.as_secs_f64(),
    })
}

/// The first ids of what is wrong, of each kind in turn, so that many of one kind don't hide another.
fn examples(seen: &Sightings, run: &RunIdentity, ledger: &Ledger) -> Vec<String> {
    let name = |word: &str, number: u64| format!("{word} {}", id(&run.prefix, number));
    let is_missing = |entry: &Entry, sighting: Sighting| entry.said == Said::Stored && sighting.count == 0;
    let missing = seen.entries(ledger).filter(|(_, entry, sighting)| is_missing(entry, *sighting));
    let doubled = seen.entries(ledger).filter(|(_, _, sighting)| sighting.count > 1);
    let mut missing = missing.map(|(number, ..)| name("missing", number));
    let mut doubled =
        doubled.map(|(number, _, sighting)| format!("{} ({} times)", name("doubled", number), sighting.count));
    let mut misplaced = seen.misplaced.iter().map(|number| match ledger.entries().get(*number as usize) {
        Some(_) => name("misplaced", *number),
        None => name("never sent", *number),
    });
    let in_turn = std::iter::from_fn(|| {
        let round: Vec<String> = [missing.next(), doubled.next(), misplaced.next()].into_iter().flatten().collect();
        (!round.is_empty()).then_some(round)
    });
    in_turn.flatten().take(MAX_EXAMPLES).collect()
}

/// From the planned time to when S3 says that the file was stored, in microseconds; 0 where its clock is behind ours.
fn end_to_end(seen: &Sightings, ledger: &Ledger) -> Result<Distribution, CreationError> {
    let mut histogram = Histogram::<u64>::new_with_max(LONGEST_US, SIGNIFICANT_DIGITS)?;
    for (_, entry, sighting) in seen.entries(ledger).filter(|(_, _, sighting)| sighting.count > 0) {
        let took_ms = sighting.first_ms.saturating_sub(entry.planned_ms);
        histogram.saturating_record(u64::from(took_ms) * 1_000);
    }
    Ok(Distribution::of(&histogram))
}

fn resolution_ms(files: &[&LandedObject]) -> u64 {
    if files.iter().all(|object| object.modified_ms % 1_000 == 0) { 1_000 } else { 1 }
}

/// Events, without what was bad on purpose, that had landed by the end of each second; at least as many seconds as the
/// run had, and until the last one landed.
fn landed_by_second(seen: &Sightings, run: &RunIdentity, ledger: &Ledger) -> Vec<u64> {
    let events = seen.entries(ledger).filter(|(_, entry, sighting)| entry.sort == Sort::Event && sighting.count > 0);
    let seconds: Vec<usize> = events.map(|(_, _, sighting)| (sighting.first_ms / 1_000) as usize).collect();
    let run_seconds = run.ended_unix_ms.saturating_sub(run.started_unix_ms).div_ceil(1_000);
    let last = seconds.iter().max().map_or(0, |second| second + 1);
    let mut landed = vec![0; last.max(usize::try_from(run_seconds).unwrap_or(0))];
    for second in seconds {
        landed[second] += 1;
    }
    let mut sum = 0;
    for second in &mut landed {
        sum += *second;
        *second = sum;
    }
    landed
}

#[cfg(test)]
mod tests;
