//! Waits for what the answers said is stored.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::account::Sightings;
use super::bucket::Objects;
use super::inventory::Inventory;
use super::{LandedError, Patience, RunIdentity, unix_ms};
use crate::ledger::Ledger;

/// From one look to the next.
const POLL: Duration = Duration::from_secs(1);
/// Last looks at most, until no file changes while it is read.
const LAST_LOOKS: u32 = 5;

/// The files when all is there, or when nothing new came for as long as `patience` says.
pub(super) async fn watch<O: Objects>(
    objects: &O,
    run: &RunIdentity,
    ledger: &Ledger,
    patience: Patience,
    mut progress: impl FnMut(u64, u64),
) -> Result<Inventory, LandedError> {
    let mut inventory = Inventory::new(run);
    let mut seen = Sightings::of(&inventory, run, ledger);
    let mut newest = Instant::now();
    loop {
        let look = inventory.look(objects, run, unix_ms()).await?;
        if look.changed {
            let now = Sightings::of(&inventory, run, ledger);
            if now.landed() > seen.landed() {
                newest = Instant::now();
            }
            seen = now;
        }
        let (found, expected) = (seen.found(ledger), ledger.stored());
        progress(found, expected);
        if found >= expected || newest.elapsed() >= patience.nothing_new {
            break;
        }
        sleep(POLL).await;
    }
    sleep(patience.settle).await;
    look_a_last_time(&mut inventory, objects, run).await?;
    Ok(inventory)
}

async fn look_a_last_time<O: Objects>(
    inventory: &mut Inventory,
    objects: &O,
    run: &RunIdentity,
) -> Result<(), LandedError> {
    let mut unsettled = None;
    for _ in 0..LAST_LOOKS {
        unsettled = inventory.look(objects, run, unix_ms()).await?.unsettled;
        if unsettled.is_none() {
            return Ok(());
        }
        sleep(POLL).await;
    }
    unsettled.map_or(Ok(()), |key| Err(LandedError::Unsettled { key }))
}

#[cfg(test)]
mod tests;
