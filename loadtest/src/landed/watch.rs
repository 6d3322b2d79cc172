//! Waits for what the answers said is stored.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::account::Sightings;
use super::bucket::Objects;
use super::inventory::Inventory;
use super::{LandedError, Search};

/// From one look to the next.
const POLL: Duration = Duration::from_secs(1);
/// Last looks at most, until no file changes while it is read.
const MAX_LAST_LISTINGS: u32 = 5;

/// The files once everything has landed, or once nothing new has come for as long as the search waits.
pub(super) async fn watch<O: Objects>(
    objects: &O,
    search: &Search<'_>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Inventory, LandedError> {
    let (mut inventory, expected) = (Inventory::new(&search.prefix), search.ledger.stored());
    let (mut landed, mut newest) = (0, Instant::now());
    loop {
        inventory.refresh(objects, search).await?;
        let seen = Sightings::of(&inventory, search);
        if seen.landed() > landed {
            newest = Instant::now();
        }
        landed = seen.landed();
        let found = seen.found();
        progress(found, expected);
        if found >= expected || newest.elapsed() >= search.patience {
            break;
        }
        sleep(POLL).await;
    }
    sleep(search.settle).await;
    for listing in 1.. {
        match inventory.refresh(objects, search).await? {
            None => break,
            Some(key) if listing == MAX_LAST_LISTINGS => return Err(LandedError::Unsettled { key }),
            Some(_) => sleep(POLL).await,
        }
    }
    Ok(inventory)
}

#[cfg(test)]
mod tests;
