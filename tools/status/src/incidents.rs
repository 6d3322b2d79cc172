//! Incidents that notify keeps in the bucket: those that are open, in the groups' ledgers, and the newest that are over.

use std::collections::BTreeMap;

use lambda_setup::bucket::{BucketError, List, Listed};
use monitoring_lambdas::notify::{Incident, Ledger};
use serde::de::DeserializeOwned;

use crate::store::Store;

/// The most incidents that are over.
pub(crate) const MAX_PAST: usize = 50;
/// The most ledgers: of each group one, and one for each account and region that reports to it. As many as notify looks at.
const MAX_LEDGERS: u16 = 500;
/// The most dates that are looked at for them: incidents are rare, and each date is a listing.
const MAX_DATES: usize = 30;
/// The most listings of dates in a look: some decades.
const MAX_DATE_PAGES: usize = 10;

/// What was read, by the key, with its `ETag`.
#[derive(Default)]
pub(crate) struct Incidents {
    open: BTreeMap<String, (String, Option<Ledger>)>,
    past: BTreeMap<String, (String, Option<Incident>)>,
    /// Folders of the newest dates.
    dates: Vec<String>,
    /// Whether there are more than [`MAX_LEDGERS`].
    more_are_open: bool,
}

impl Incidents {
    /// # Errors
    ///
    /// When S3 does not answer. What can't be read is left out, and counted.
    pub(crate) async fn look(&mut self, store: &impl Store) -> Result<(), BucketError> {
        let open = store.list(List { prefix: "incidents/open/", limit: Some(MAX_LEDGERS), ..List::default() }).await?;
        self.more_are_open = open.is_truncated;
        refresh(store, &mut self.open, open.objects).await?;
        let dates = self.dates(store).await?;
        let mut past = Vec::new();
        for date in dates.iter().rev().take(MAX_DATES) {
            let mut listed = store.list(List { prefix: date, ..List::default() }).await?.objects;
            listed.reverse();
            past.extend(listed);
            if past.len() >= MAX_PAST {
                break;
            }
        }
        past.truncate(MAX_PAST);
        refresh(store, &mut self.past, past).await
    }

    /// The newest dates that have any. A listing has a thousand at most: each look goes on from the last one before.
    async fn dates(&mut self, store: &impl Store) -> Result<Vec<String>, BucketError> {
        for _ in 0..MAX_DATE_PAGES {
            let after = self.dates.last().map(|date| format!("{date}~"));
            let list =
                List { prefix: "incidents/dt=", delimiter: Some("/"), start_after: after.as_deref(), limit: None };
            let page = store.list(list).await?;
            self.dates.extend(page.prefixes);
            let older = self.dates.len().saturating_sub(MAX_DATES);
            self.dates.drain(..older);
            if !page.is_truncated {
                break;
            }
        }
        Ok(self.dates.clone())
    }

    /// Those that go on, and those that are over, the newest first.
    pub(crate) fn all(&self) -> Vec<Incident> {
        let ledgers = || self.open.values().filter_map(|(_, ledger)| ledger.as_ref());
        let open = ledgers().filter_map(|ledger| ledger.open.clone());
        let closed = ledgers().flat_map(|ledger| ledger.closed.iter().cloned());
        let past = self.past.values().rev().filter_map(|(_, incident)| incident.clone());
        let mut all: Vec<Incident> = open.chain(closed).chain(past).collect();
        all.sort_by_key(|incident| (incident.resolved_at.is_some(), std::cmp::Reverse(incident.opened_at)));
        // One that is being archived is in both places.
        all.dedup_by(|one, other| {
            (one.opened_at, &one.group, &one.reporter) == (other.opened_at, &other.group, &other.reporter)
        });
        all
    }

    /// Files that can't be read, and what there is beyond those that are.
    pub(crate) fn unreadable(&self) -> Vec<String> {
        let more = self.more_are_open.then(|| format!("incidents/open/ beyond {MAX_LEDGERS} files"));
        let open = self.open.iter().filter(|(_, (_, read))| read.is_none()).map(|(key, _)| key.clone());
        let past = self.past.iter().filter(|(_, (_, read))| read.is_none()).map(|(key, _)| key.clone());
        open.chain(past).chain(more).collect()
    }
}

async fn refresh<T: DeserializeOwned>(
    store: &impl Store,
    known: &mut BTreeMap<String, (String, Option<T>)>,
    listed: Vec<Listed>,
) -> Result<(), BucketError> {
    known.retain(|key, _| listed.iter().any(|one| one.key == *key));
    for one in listed {
        if known.get(&one.key).is_some_and(|(etag, _)| *etag == one.etag) {
            continue;
        }
        let Some(content) = store.get(&one.key).await? else { continue };
        known.insert(one.key, (one.etag, serde_json::from_slice(&content.body).ok()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::store::Counted;
    use lambda_setup::memory_bucket::MemoryBucket;
    use serde_json::json;

    fn incident(opened: &str, resolved: Option<&str>) -> serde_json::Value {
        json!({"group": "platform", "opened_at": opened, "resolved_at": resolved, "alarms": {}, "messages": [], "message_count": 0})
    }

    #[tokio::test]
    async fn open_ones_come_first_and_what_is_unchanged_is_not_read_again() {
        let bucket = MemoryBucket::default();
        let open = json!({"v": 1, "open": incident("2026-11-21T09:00:00.000Z", None), "closed": [], "seen": {}});
        bucket.insert("incidents/open/platform.json", open.to_string(), HashMap::new());
        for day in 1..=3 {
            let at = format!("2026-11-2{day}T10:00:00.000Z");
            let key = format!("incidents/dt=2026-11-2{day}/a.json");
            bucket.insert(&key, incident(&at, Some(&at)).to_string(), HashMap::new());
        }
        bucket.insert("incidents/dt=2026-11-23/b.json", "{", HashMap::new());
        let mut incidents = Incidents::default();
        incidents.look(&Counted::new(&bucket)).await.unwrap();
        let days: Vec<_> = incidents.all().iter().map(|one| one.opened_at.rfc3339()[8..13].to_owned()).collect();
        assert_eq!(days, ["21T09", "23T10", "22T10", "21T10"]);
        assert_eq!(incidents.unreadable(), ["incidents/dt=2026-11-23/b.json"]);
        bucket.calls.set(0);
        incidents.look(&Counted::new(&bucket)).await.unwrap();
        assert_eq!(bucket.calls.get(), 5, "listings alone");
    }

    #[tokio::test]
    async fn the_newest_date_is_found_behind_a_page_of_older_ones() {
        let bucket = MemoryBucket::default();
        bucket.page_size.set(Some(2));
        for day in 1..=5 {
            let at = format!("2026-11-2{day}T10:00:00.000Z");
            let key = format!("incidents/dt=2026-11-2{day}/a.json");
            bucket.insert(&key, incident(&at, Some(&at)).to_string(), HashMap::new());
        }
        let mut incidents = Incidents::default();
        incidents.look(&Counted::new(&bucket)).await.unwrap();
        assert_eq!(incidents.all().first().unwrap().opened_at.rfc3339(), "2026-11-25T10:00:00.000Z");
        assert_eq!(incidents.all().len(), 5);
    }
}
