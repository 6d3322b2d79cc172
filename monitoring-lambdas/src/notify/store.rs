//! Ledgers in the bucket: read, changed, and written back unless somebody else has written meanwhile.

use std::time::Duration;

use bytes::Bytes;
use lambda_setup::deadline::backoff_ceiling;

use super::incident::Incident;
use super::ledger::Ledger;
use super::reporter::Reporter;
use lambda_setup::bucket::{Bucket, BucketError, Condition, List};

/// Attempts at a change while others are faster. A storm is some dozens of notices at once.
pub(crate) const ATTEMPTS: u32 = 12;
const BACKOFF_BASE: Duration = Duration::from_millis(50);
const BACKOFF_CAP: Duration = Duration::from_secs(1);
/// The most ledgers that a run of the schedule looks at: each is a request, and all are made at once.
pub(crate) const MAX_LEDGERS: u16 = 500;

/// A ledger that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("the ledger can't be made JSON")]
    Json(#[from] serde_json::Error),
}

const OPEN: &str = "incidents/open/";

/// The name of a group's ledger of notify's own alarms, `platform`, or of those of another account and region,
/// `platform.111122223333.eu-west-1`: equal alarms of two accounts are two incidents. A group's name has no dot.
pub(crate) fn name(group: &str, reporter: Option<&Reporter>) -> String {
    match reporter {
        None => group.to_owned(),
        Some(Reporter { account, region }) => format!("{group}.{account}.{region}"),
    }
}

/// `incidents/open/platform.json`
fn key(name: &str) -> String {
    format!("{OPEN}{name}.json")
}

/// Whose ledger it is: a group's, and of which other account and region, if of one.
pub(crate) type Owner = (String, Option<Reporter>);

/// Whose ledgers there are: the first [`MAX_LEDGERS`].
pub(crate) async fn owners(bucket: &impl Bucket) -> Result<Vec<Owner>, StoreError> {
    let page = bucket.list(List { prefix: OPEN, limit: Some(MAX_LEDGERS), ..List::default() }).await?;
    if page.is_truncated {
        tracing::error!(
            most = MAX_LEDGERS,
            "more ledgers are under {OPEN}: the last get no reminders, and stay open without their group; delete old ones"
        );
    }
    let parsed = |key: &str| {
        let name = key.strip_prefix(OPEN)?.strip_suffix(".json")?;
        let Some((group, place)) = name.split_once('.') else { return Some((name.to_owned(), None)) };
        let (account, region) = place.split_once('.')?;
        Some((group.to_owned(), Some(Reporter::new(account, region)?)))
    };
    Ok(page.objects.iter().filter_map(|listed| parsed(&listed.key)).collect())
}

/// Whether this is the key of an incident of another account or region that is over. A group's name has no dot.
pub(crate) fn is_reported(key: &str) -> bool {
    key.rsplit('/').next().and_then(|file| file.strip_suffix(".json")).is_some_and(|name| name.contains('.'))
}

/// A ledger; a new one when there is none.
pub(crate) async fn load(bucket: &impl Bucket, name: &str) -> Result<Ledger, StoreError> {
    Ok(load_version(bucket, name).await?.0)
}

async fn load_version(bucket: &impl Bucket, name: &str) -> Result<(Ledger, Option<String>), StoreError> {
    let key = key(name);
    let Some(content) = bucket.get(&key).await? else { return Ok((Ledger::default(), None)) };
    let ledger = serde_json::from_slice(&content.body).unwrap_or_else(|error| {
        // An alarm that reaches nobody is worse than one that is announced twice.
        tracing::error!(key, %error, "the ledger can't be read; a new one is started");
        Ledger::default()
    });
    Ok((ledger, Some(content.etag)))
}

/// Changes a ledger. `change` is called again when somebody else changed the ledger first, and must do the same each time.
/// Nothing is written if it changes nothing.
pub(crate) async fn update<T>(
    bucket: &impl Bucket,
    name: &str,
    mut change: impl FnMut(&mut Ledger) -> T,
) -> Result<(Ledger, T), StoreError> {
    let mut retry = 0;
    loop {
        let (before, etag) = load_version(bucket, name).await?;
        let mut ledger = before.clone();
        let result = change(&mut ledger);
        if ledger == before {
            return Ok((ledger, result));
        }
        let body = Bytes::from(serde_json::to_vec_pretty(&ledger)?);
        let condition = etag.as_deref().map_or(Condition::Absent, Condition::Matches);
        match bucket.put(&key(name), body, condition).await {
            Ok(_) => return Ok((ledger, result)),
            Err(BucketError::ConditionFailed { .. }) if retry + 1 < ATTEMPTS => {
                let wait = backoff_ceiling(retry, BACKOFF_BASE, BACKOFF_CAP).mul_f64(rand::random::<f64>());
                tokio::time::sleep(wait).await;
                retry += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Archives an incident that is over. Idempotent.
pub(crate) async fn keep(bucket: &impl Bucket, incident: &Incident) -> Result<(), StoreError> {
    let body = Bytes::from(serde_json::to_vec_pretty(incident)?);
    bucket.put(&incident.key(), body, Condition::Always).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda_setup::memory_bucket::MemoryBucket;
    use std::collections::HashMap;

    #[tokio::test]
    async fn so_many_ledgers_are_looked_at_and_no_more() {
        let bucket = MemoryBucket::default();
        let add = |number: u16| {
            bucket.insert(&format!("{OPEN}platform.{number:012}.eu-west-1.json"), "{}", HashMap::new());
        };
        (0..MAX_LEDGERS).for_each(add);
        assert_eq!(owners(&&bucket).await.unwrap().len(), usize::from(MAX_LEDGERS));
        add(MAX_LEDGERS);
        assert_eq!(owners(&&bucket).await.unwrap().len(), usize::from(MAX_LEDGERS));
    }

    #[tokio::test]
    async fn a_ledgers_name_says_whose_it_is() {
        let bucket = MemoryBucket::default();
        for name in ["ads", "ads.111122223333.eu-west-1", "ads.1.eu-west-1", "ads.111122223333", "ads.111122223333.EU"]
        {
            bucket.insert(&key(name), "{}", HashMap::new());
        }
        let reporter = Reporter::new("111122223333", "eu-west-1").unwrap();
        assert_eq!(name("ads", Some(&reporter)), "ads.111122223333.eu-west-1");
        assert_eq!(owners(&&bucket).await.unwrap(), [("ads".to_owned(), Some(reporter)), ("ads".to_owned(), None)]);
    }
}
