//! The load of one hour: is it there, under way or to be sent, and what is sent.
//!
//! `_LOAD.json` has the last transaction, and is written after it was sent. Whoever is killed in between sends it again, with the same
//! token; whoever finds that it failed sends another. The warehouse is asked for that one transaction alone: a query of its tables each
//! quarter of an hour would keep a serverless workgroup awake, which bills by the second.

use bytes::Bytes;
use lambda_setup::bucket::{Bucket, BucketError, Condition};
use lambda_setup::deadline::TimeIsUp;
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::timestamp::{UnixMillis, UtcHour};

use super::copy_manifest::{File, copy_manifest, uri};
use super::fit::fit;
use super::sql::{Group, MAX_GROUPS, Tables, Transaction};
use super::warehouse::{Progress, Warehouse, WarehouseError};
use crate::compact_partition::columnar::{Compacted, Keys, Part, VERSION as COMPACTED_VERSION};

/// The version of `_LOAD.json`.
const VERSION: u8 = 1;

/// The most bytes of a part that are read: a quarter more than compaction makes of the largest. It and a copy fit into the memory.
pub(super) const MAX_PART_BYTES: u64 = 640 << 20;

/// An `ETag` without its quotes becomes part of keys and of SQL.
const MAX_ETAG_BYTES: usize = 64;

/// Why an hour was not loaded. The schedule tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    #[error(transparent)]
    TimeIsUp(#[from] TimeIsUp),
    #[error("{key} has no JSON form, or is not as it is written: {source}")]
    Malformed { key: String, source: serde_json::Error },
    #[error("{key} has version {version}, which this release does not know")]
    Version { key: String, version: u8 },
    #[error("{key} has the ETag {etag:?}")]
    ETag { key: String, etag: String },
    #[error("{key} can't be read: {source}")]
    Part { key: String, source: ParquetError },
    #[error("{key} has {bytes} bytes; at most {MAX_PART_BYTES} are read")]
    LargePart { key: String, bytes: u64 },
    /// The hour was compacted again, or is being written from the beginning.
    #[error("{key} was changed while the hour was read")]
    Overtaken { key: String },
    /// As above.
    #[error("{key} is not the part that _SUCCESS names")]
    PartDiffers { key: String },
    #[error("COPY's manifest can't be written: {0}")]
    Manifest(serde_json::Error),
    #[error("the parts of the hour have more than {MAX_GROUPS} sets of columns")]
    Groups,
}

/// What became of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has no `_SUCCESS` under `columnar/`.
    NotCompacted,
    /// It is in the warehouse as it is in Parquet.
    Loaded,
    /// Its transaction waits or runs.
    UnderWay,
    /// A transaction was sent.
    Sent,
    /// The last transaction failed, and another was sent.
    SentAgain,
    /// There is one to be sent, but not now.
    Waits,
}

/// The content of `_LOAD.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Load {
    /// [`VERSION`]
    pub(super) v: u8,
    /// Of the compacted hour's `_SUCCESS`, without quotes.
    pub(super) etag: String,
    /// The warehouse, its database and the schema.
    pub(super) target: String,
    /// The Data API's id of the transaction.
    pub(super) transaction: String,
    /// From 1.
    pub(super) attempt: u32,
    /// Whether the hour was to be loaded again, though it was there. It is so until it is committed.
    pub(super) is_reload: bool,
    pub(super) sent_at: UnixMillis,
    pub(super) is_committed: bool,
    /// Of the hour.
    pub(super) rows: u64,
    /// Texts that were cut, or had the character NUL.
    pub(super) changed_texts: u64,
}

/// One hour of one bucket.
pub(super) struct Loading<'a, B, W> {
    pub(super) bucket: &'a B,
    pub(super) bucket_name: &'a str,
    pub(super) warehouse: &'a W,
    pub(super) tables: &'a Tables,
    pub(super) hour: UtcHour,
    /// The event's.
    pub(super) at: UnixMillis,
}

/// An hour as `_SUCCESS` has it, with its `ETag` without quotes.
pub(super) struct Found {
    pub(super) compacted: Compacted,
    etag: String,
}

/// How far the last transaction is.
enum State {
    Loaded,
    UnderWay,
    Due(Due),
}

/// A transaction that is to be sent.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    attempt: u32,
    has_failed: bool,
    is_reload: bool,
}

impl<B: Bucket, W: Warehouse> Loading<'_, B, W> {
    /// What is there of the hour as Parquet.
    pub(super) async fn found(&self) -> Result<Option<Found>, LoadError> {
        let key = Keys::of(self.hour).success();
        let Some(content) = self.bucket.get(&key).await? else { return Ok(None) };
        let compacted: Compacted = decoded(&key, &content.body)?;
        if compacted.v != COMPACTED_VERSION {
            return Err(LoadError::Version { key, version: compacted.v });
        }
        let etag = content.etag.trim_matches('"').to_owned();
        let is_plain = etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if etag.is_empty() || etag.len() > MAX_ETAG_BYTES || !is_plain {
            return Err(LoadError::ETag { key, etag });
        }
        Ok(Some(Found { compacted, etag }))
    }

    /// Looks at the hour, and sends what is to be sent, if `may_send`.
    pub(super) async fn run(&self, found: &Found, may_send: bool) -> Result<Outcome, LoadError> {
        let last = self.last().await?;
        match self.state(found, last.as_ref()).await? {
            State::Loaded => Ok(Outcome::Loaded),
            State::UnderWay => Ok(Outcome::UnderWay),
            State::Due(_) if !may_send => Ok(Outcome::Waits),
            State::Due(due) => self.send(found, due, last.as_ref()).await,
        }
    }

    /// Sends the hour though it may be in the warehouse.
    pub(super) async fn reload(&self, found: &Found) -> Result<Outcome, LoadError> {
        let last = self.last().await?;
        let attempt = last.as_ref().map_or(1, |(load, _)| load.attempt.saturating_add(1));
        self.send(found, Due { attempt, has_failed: false, is_reload: true }, last.as_ref()).await
    }

    async fn send(&self, found: &Found, due: Due, last: Option<&(Load, String)>) -> Result<Outcome, LoadError> {
        let Due { attempt, has_failed, is_reload } = due;
        let (transaction, changed_texts) = self.transaction(found, is_reload).await?;
        let token = self.token(&found.etag, due);
        let id = self.warehouse.submit(&transaction, &token).await?;
        let (partition, rows) = (self.hour.partition(), transaction.rows());
        tracing::info!(partition, rows, changed_texts, attempt, transaction = id, "the hour was sent to the warehouse");
        let load = Load {
            v: VERSION,
            etag: found.etag.clone(),
            target: self.target(),
            transaction: id,
            attempt,
            is_reload,
            sent_at: self.at,
            is_committed: false,
            rows,
            changed_texts,
        };
        self.write(&load, last.map(|(_, etag)| &**etag)).await?;
        Ok(if has_failed { Outcome::SentAgain } else { Outcome::Sent })
    }

    /// The last transaction, with the `ETag` of what says so.
    async fn last(&self) -> Result<Option<(Load, String)>, LoadError> {
        let key = self.key("_LOAD.json");
        let Some(content) = self.bucket.get(&key).await? else { return Ok(None) };
        let load: Load = decoded(&key, &content.body)?;
        if load.v != VERSION {
            return Err(LoadError::Version { key, version: load.v });
        }
        Ok(Some((load, content.etag)))
    }

    async fn state(&self, found: &Found, last: Option<&(Load, String)>) -> Result<State, LoadError> {
        let is_same = |load: &Load| load.etag == found.etag && load.target == self.target();
        let Some((load, etag)) = last.filter(|(load, _)| is_same(load)) else {
            return Ok(State::Due(Due { attempt: 1, ..Due::default() }));
        };
        if load.is_committed {
            return Ok(State::Loaded);
        }
        let partition = self.hour.partition();
        let transaction = &load.transaction;
        let again = Due { attempt: load.attempt.saturating_add(1), has_failed: false, is_reload: load.is_reload };
        match self.warehouse.progress(transaction).await? {
            Some(Progress::UnderWay) => Ok(State::UnderWay),
            Some(Progress::Committed) => {
                tracing::info!(partition, rows = load.rows, transaction, "the hour is in the warehouse");
                self.write(&Load { is_committed: true, is_reload: false, ..load.clone() }, Some(etag)).await?;
                Ok(State::Loaded)
            }
            Some(Progress::Failed(problem)) => {
                tracing::error!(
                    partition,
                    transaction,
                    attempt = load.attempt,
                    problem,
                    "the warehouse did not load the hour"
                );
                Ok(State::Due(Due { has_failed: true, ..again }))
            }
            None => {
                tracing::warn!(partition, transaction, "the warehouse does not know the transaction any more");
                Ok(State::Due(again))
            }
        }
    }

    /// Whoever wrote first has sent the same hour, or found the same end.
    async fn write(&self, load: &Load, over: Option<&str>) -> Result<(), LoadError> {
        let key = self.key("_LOAD.json");
        let body = serde_json::to_vec(load).map_err(|source| LoadError::Malformed { key: key.clone(), source })?;
        match self.bucket.put(&key, body.into(), Condition::unchanged(over)).await {
            Ok(_) => Ok(()),
            Err(BucketError::ConditionFailed { key }) => {
                tracing::info!(key, "another run wrote first");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The transaction, once all that COPY reads is there; and how many texts were changed for it.
    async fn transaction(&self, found: &Found, is_reload: bool) -> Result<(Transaction, u64), LoadError> {
        let (mut groups, mut changed) = (Vec::<(Group, Vec<File>)>::new(), 0);
        for part in found.compacted.parts.iter().filter(|part| part.totals.rows > 0) {
            let (file, group, changed_in_part) = self.file(found, part).await?;
            changed += changed_in_part;
            match groups.iter_mut().find(|(known, _)| known.columns == group.columns) {
                Some((known, files)) => {
                    files.push(file);
                    known.rows += group.rows;
                    known.received.add(group.received);
                }
                None => groups.push((group, vec![file])),
            }
        }
        if groups.len() > MAX_GROUPS {
            return Err(LoadError::Groups);
        }
        let mut transaction = Transaction {
            tables: self.tables.clone(),
            hour: self.hour,
            etag: found.etag.clone(),
            sealed_at: found.compacted.sealed_at,
            is_reload,
            groups: Vec::new(),
        };
        for (number, (group, files)) in groups.into_iter().enumerate() {
            let key = self.key(&format!("COPY-{}-{number}.json", found.etag));
            let manifest = copy_manifest(self.bucket_name, &files).map_err(LoadError::Manifest)?;
            self.bucket.put(&key, manifest, Condition::Always).await?;
            transaction.groups.push(Group { manifest: uri(self.bucket_name, &key), ..group });
        }
        Ok((transaction, changed))
    }

    /// The part, or a copy of it that Redshift takes; what it adds to a group, and how many texts were changed.
    async fn file(&self, found: &Found, part: &Part) -> Result<(File, Group, u64), LoadError> {
        let key = part.key.clone();
        if part.bytes > MAX_PART_BYTES {
            return Err(LoadError::LargePart { key, bytes: part.bytes });
        }
        let content = self.bucket.get(&key).await?.filter(|content| content.etag == part.etag);
        let Some(content) = content else { return Err(LoadError::PartDiffers { key }) };
        let fitted = fit(content.body).map_err(|source| LoadError::Part { key: key.clone(), source })?;
        let file = match fitted.copy {
            None => File { key, bytes: part.bytes },
            Some(copy) => {
                let name = key.rsplit('/').next().unwrap_or_default();
                let key = self.key(&format!("{}-{name}", part.etag.trim_matches('"')));
                let bytes = copy.len() as u64;
                self.still_there(found).await?;
                self.bucket.put(&key, copy, Condition::Always).await?;
                File { key, bytes }
            }
        };
        let (columns, rows, received) = (fitted.columns, fitted.rows, fitted.received);
        Ok((file, Group { columns, manifest: String::new(), rows, received }, fitted.changed))
    }

    /// Before a copy is written: the hour may have lost a viewer's events since it was read, and its copies with them.
    async fn still_there(&self, found: &Found) -> Result<(), LoadError> {
        let key = Keys::of(self.hour).success();
        let content = self.bucket.get(&key).await?;
        let is_same = content.is_some_and(|content| content.etag.trim_matches('"') == found.etag);
        if is_same { Ok(()) } else { Err(LoadError::Overtaken { key }) }
    }

    fn target(&self) -> String {
        format!("{}/{}", self.warehouse.target(), self.tables.schema)
    }

    fn key(&self, name: &str) -> String {
        format!("warehouse/{}/{name}", self.hour.partition())
    }

    /// The same for the same attempt, whoever makes it: the service then takes it for the same transaction. A reload must never be
    /// taken for what was sent before, whatever is known of that: it has its own time. The service takes 64 characters.
    fn token(&self, etag: &str, due: Due) -> String {
        let (target, partition, attempt) = (self.target(), self.hour.partition(), due.attempt);
        let at = if due.is_reload { self.at.rfc3339() } else { String::new() };
        let text = format!("{}/{target}/{partition}/{etag}/{attempt}/{at}", self.bucket_name);
        hex::encode(Sha256::digest(text))
    }
}

fn decoded<T: serde::de::DeserializeOwned>(key: &str, body: &Bytes) -> Result<T, LoadError> {
    serde_json::from_slice(body).map_err(|source| LoadError::Malformed { key: key.to_owned(), source })
}
