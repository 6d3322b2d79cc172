//! The account of a run: what the answers said of each event against where it is.

use std::collections::BTreeSet;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use shared::line::Kind;

use super::Search;
use super::inventory::{Inventory, LandedObject};
use crate::ledger::{Entry, Reported, id};
use crate::result::{Distribution, Truth};

/// Wrong ids to show.
const MAX_EXAMPLES: usize = 20;
/// End-to-end times are kept up to a day, in microseconds.
const LONGEST_US: u64 = 24 * 3_600 * 1_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Where one event was seen.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    /// Lines that hold it.
    count: u32,
    /// When the first of them was stored, in milliseconds from the start of the run; 0 if before it, by S3's clock.
    first_ms: u32,
}

/// Where each event of a ledger was seen.
pub(super) struct Sightings<'l> {
    search: &'l Search<'l>,
    by_number: Vec<Sighting>,
    /// Seen where they do not belong, or never sent.
    misplaced: BTreeSet<u64>,
}

impl<'l> Sightings<'l> {
    pub(super) fn of(inventory: &Inventory, search: &'l Search<'l>) -> Self {
        let by_number = vec![Sighting { count: 0, first_ms: u32::MAX }; search.ledger.entries().len()];
        let mut seen = Self { search, by_number, misplaced: BTreeSet::new() };
        for object in inventory.objects.values() {
            seen.misplaced.extend(&object.holdings.mixed);
            for number in &object.holdings.numbers {
                seen.add(*number, object);
            }
        }
        seen
    }

    fn add(&mut self, number: u64, object: &LandedObject) {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        if self.search.ledger.entries().get(place).is_none_or(|entry| entry.kind != object.kind) {
            self.misplaced.insert(number);
        }
        let Some(sighting) = self.by_number.get_mut(place) else { return };
        let since_start_ms = object.modified_ms.saturating_sub(self.search.started_unix_ms);
        sighting.count = sighting.count.saturating_add(1);
        sighting.first_ms = sighting.first_ms.min(u32::try_from(since_start_ms).unwrap_or(u32::MAX));
    }

    /// Entries with their numbers and where they were seen.
    fn entries(&self) -> impl Iterator<Item = (u64, &Entry, &Sighting)> {
        let both = self.search.ledger.entries().iter().zip(&self.by_number);
        (0..).zip(both).map(|(number, (entry, sighting))| (number, entry, sighting))
    }

    fn present(&self) -> impl Iterator<Item = (&Entry, &Sighting)> {
        self.entries().map(|(_, entry, sighting)| (entry, sighting)).filter(|(_, sighting)| sighting.count > 0)
    }

    /// Different events that were seen.
    pub(super) fn landed(&self) -> u64 {
        self.present().count() as u64
    }

    /// Those that were said to be stored and seen.
    pub(super) fn found(&self) -> u64 {
        self.present().filter(|(entry, _)| entry.reported == Reported::Stored).count() as u64
    }
}

pub(super) fn truth(inventory: &Inventory, search: &Search<'_>, waited: Duration) -> Result<Truth, CreationError> {
    let seen = Sightings::of(inventory, search);
    let files: Vec<&LandedObject> =
        inventory.objects.values().filter(|object| !object.holdings.numbers.is_empty()).collect();
    let (landed, expected, found) = (seen.landed(), search.ledger.stored(), seen.found());
    let has_fractions = files.iter().any(|object| object.modified_ms % 1_000 != 0);
    Ok(Truth {
        expected,
        landed,
        missing: expected - found,
        doubled: seen.by_number.iter().filter(|sighting| sighting.count > 1).count() as u64,
        landed_unknown: landed - found,
        misplaced: seen.misplaced.len() as u64,
        examples: examples(&seen),
        files: files.len() as u64,
        compressed_bytes: files.iter().map(|object| object.compressed_bytes).sum(),
        uncompressed_bytes: files.iter().map(|object| object.holdings.uncompressed_bytes).sum(),
        end_to_end: end_to_end(&seen)?,
        resolution_ms: if has_fractions { 1 } else { 1_000 },
        landed_by_second: landed_by_second(&seen),
        waited_seconds: waited.as_secs_f64(),
    })
}

/// The first wrong ids, of each kind in turn, so that many of one kind do not hide another.
fn examples(seen: &Sightings<'_>) -> Vec<String> {
    let name = |number: u64| id(&seen.search.prefix, number);
    let missing = seen.entries().filter(|(_, entry, seen)| entry.reported == Reported::Stored && seen.count == 0);
    let mut missing = missing.map(|(number, ..)| format!("missing {}", name(number)));
    let doubled = seen.entries().filter(|(_, _, seen)| seen.count > 1);
    let mut doubled = doubled.map(|(number, _, seen)| format!("doubled {} ({} times)", name(number), seen.count));
    let mut misplaced = seen.misplaced.iter().map(|number| {
        let was_sent = *number < seen.by_number.len() as u64;
        format!("{} {}", if was_sent { "misplaced" } else { "never sent" }, name(*number))
    });
    let in_turn = std::iter::from_fn(|| {
        let round: Vec<String> = [missing.next(), doubled.next(), misplaced.next()].into_iter().flatten().collect();
        (!round.is_empty()).then_some(round)
    });
    in_turn.flatten().take(MAX_EXAMPLES).collect()
}

/// From the planned time until the file was stored by S3's clock, in microseconds; 0 where that clock is behind ours.
fn end_to_end(seen: &Sightings<'_>) -> Result<Distribution, CreationError> {
    let mut histogram = Histogram::<u64>::new_with_max(LONGEST_US, SIGNIFICANT_DIGITS)?;
    for (entry, sighting) in seen.present() {
        histogram.saturating_record(u64::from(sighting.first_ms.saturating_sub(entry.planned_ms)) * 1_000);
    }
    Ok(Distribution::from(&histogram))
}

/// Events, without what was bad on purpose, that had landed by the end of each second; at least as many seconds as the run
/// had, and until the last one landed.
fn landed_by_second(seen: &Sightings<'_>) -> Vec<u64> {
    let run_seconds = seen.search.ended_unix_ms.saturating_sub(seen.search.started_unix_ms).div_ceil(1_000);
    let mut landed = vec![0; usize::try_from(run_seconds).unwrap_or(0)];
    for (_, sighting) in seen.present().filter(|(entry, _)| entry.kind == Kind::Event) {
        let second = sighting.first_ms as usize / 1_000;
        landed.resize(landed.len().max(second + 1), 0);
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
