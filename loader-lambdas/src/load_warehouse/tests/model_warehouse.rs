//! A warehouse in memory that is as careless as Redshift: no keys, and each transaction sees the tables as they were when its first
//! statement ran that looks at data. Transactions run a statement at a time, when the test says so, and are killed anywhere.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use lambda_setup::memory_bucket::MemoryBucket;
use serde_json::Value;
use shared::timestamp::{UnixMillis, UtcHour};

use super::parquet::{self, Row};
use crate::load_warehouse::sql::{Statement, Transaction};
use crate::load_warehouse::warehouse::{Progress, Warehouse, WarehouseError};

thread_local! {
    /// Rows by parts: thousands of transactions read the same few.
    static READ: RefCell<BTreeMap<Vec<u8>, Vec<Row>>> = RefCell::default();
}

/// What one rule less makes of a transaction: each must be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// As it is.
    None,
    /// Nothing waits.
    WithoutLock,
    /// The snapshot is older than the lock: a statement that looks at data came before it.
    LockAfterSnapshot,
    /// Whatever was loaded meanwhile, it is replaced.
    WithoutCondition,
    /// What was there stays.
    WithoutDelete,
    /// The hour is committed before the row of the loads table is.
    TwoTransactions,
    /// COPY may take fewer rows.
    WithoutCheck,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoadRow {
    pub(super) hour: UtcHour,
    pub(super) etag: String,
    pub(super) sealed_at: UnixMillis,
    pub(super) rows: u64,
}

/// Rows by numbers that nobody sees.
#[derive(Debug, Clone, Default)]
struct Tables {
    events: BTreeMap<usize, (UtcHour, Row)>,
    loads: BTreeMap<usize, LoadRow>,
}

struct Run {
    transaction: Transaction,
    next: usize,
    /// As the transaction sees them, its own changes included.
    view: Option<Tables>,
    deleted: BTreeSet<usize>,
    staged: Vec<Vec<Row>>,
    progress: Progress,
}

pub(super) struct ModelWarehouse<'b> {
    pub(super) mutant: Mutant,
    bucket: &'b MemoryBucket,
    committed: RefCell<Tables>,
    runs: RefCell<Vec<Run>>,
    tokens: RefCell<BTreeMap<String, usize>>,
    forgotten: RefCell<BTreeSet<usize>>,
    locked_by: Cell<Option<usize>>,
    rows: Cell<usize>,
    /// Rows that each COPY loses.
    pub(super) loses: Cell<usize>,
    /// Whether calls are refused.
    pub(super) is_away: Cell<bool>,
}

impl<'b> ModelWarehouse<'b> {
    pub(super) fn new(bucket: &'b MemoryBucket, mutant: Mutant) -> Self {
        Self {
            mutant,
            bucket,
            committed: RefCell::default(),
            runs: RefCell::default(),
            tokens: RefCell::default(),
            forgotten: RefCell::default(),
            locked_by: Cell::default(),
            rows: Cell::default(),
            loses: Cell::default(),
            is_away: Cell::default(),
        }
    }

    pub(super) fn sent(&self) -> usize {
        self.runs.borrow().len()
    }

    /// As it was sent.
    pub(super) fn transaction(&self, number: usize) -> Transaction {
        self.runs.borrow()[number].transaction.clone()
    }

    /// What everybody sees of an hour, in order.
    pub(super) fn events(&self, hour: UtcHour) -> Vec<Row> {
        let committed = self.committed.borrow();
        let mut rows: Vec<_> =
            committed.events.values().filter(|(of, _)| *of == hour).map(|(_, row)| row.clone()).collect();
        rows.sort();
        rows
    }

    pub(super) fn loads(&self, hour: UtcHour) -> Vec<LoadRow> {
        self.committed.borrow().loads.values().filter(|load| load.hour == hour).cloned().collect()
    }

    /// Sends a transaction past the loader.
    pub(super) fn add(&self, transaction: Transaction) -> usize {
        let staged = vec![Vec::new(); transaction.groups.len()];
        let run =
            Run { transaction, next: 0, view: None, deleted: BTreeSet::new(), staged, progress: Progress::UnderWay };
        self.runs.borrow_mut().push(run);
        self.sent() - 1
    }

    /// Runs a transaction's next statement; whether there was one to run. One that waits for the lock runs none.
    pub(super) fn step(&self, number: usize) -> bool {
        let mut runs = self.runs.borrow_mut();
        let Some(run) = runs.get_mut(number).filter(|run| run.progress == Progress::UnderWay) else { return false };
        let Some(statement) = run.transaction.statements().get(run.next).copied() else {
            self.commit(run);
            run.progress = Progress::Committed;
            self.unlock(number);
            return true;
        };
        if statement == Statement::Lock {
            if self.mutant == Mutant::LockAfterSnapshot {
                run.view.get_or_insert_with(|| self.committed.borrow().clone());
            }
            if self.mutant != Mutant::WithoutLock {
                if self.locked_by.get().is_some_and(|by| by != number) {
                    return false;
                }
                self.locked_by.set(Some(number));
            }
        } else {
            run.view.get_or_insert_with(|| self.committed.borrow().clone());
            if let Err(problem) = self.execute(run, statement) {
                run.progress = Progress::Failed(problem);
                drop(runs);
                self.unlock(number);
                return true;
            }
        }
        run.next += 1;
        true
    }

    /// Ends a transaction wherever it is.
    pub(super) fn kill(&self, number: usize) {
        let mut runs = self.runs.borrow_mut();
        if let Some(run) = runs.get_mut(number).filter(|run| run.progress == Progress::UnderWay) {
            run.progress = Progress::Failed("killed".into());
            self.unlock(number);
        }
    }

    /// As the service does after a day.
    pub(super) fn forget(&self, number: usize) {
        if number >= self.sent() {
            return;
        }
        self.forgotten.borrow_mut().insert(number);
        self.tokens.borrow_mut().retain(|_, of| *of != number);
    }

    /// Runs all transactions to their ends.
    pub(super) fn run_all(&self) {
        while (0..self.sent()).any(|number| self.step(number)) {}
    }

    fn unlock(&self, number: usize) {
        if self.locked_by.get() == Some(number) {
            self.locked_by.set(None);
        }
    }

    fn commit(&self, run: &mut Run) {
        let Some(view) = run.view.take() else { return };
        let mut committed = self.committed.borrow_mut();
        let deleted = std::mem::take(&mut run.deleted);
        committed.events.retain(|row, _| !deleted.contains(row));
        committed.loads.retain(|row, _| !deleted.contains(row));
        committed.events.extend(view.events.into_iter().filter(|(row, _)| !deleted.contains(row)));
        committed.loads.extend(view.loads.into_iter().filter(|(row, _)| !deleted.contains(row)));
    }

    fn execute(&self, run: &mut Run, statement: Statement) -> Result<(), String> {
        if self.mutant == Mutant::TwoTransactions && statement == Statement::DeleteLoad {
            self.commit(run);
            run.view = Some(self.committed.borrow().clone());
        }
        let view = run.view.as_mut().unwrap();
        let transaction = &run.transaction;
        let is_newer = |load: &LoadRow| load.sealed_at > transaction.sealed_at || load.etag == transaction.etag;
        let of_hour = |load: &&LoadRow| load.hour == transaction.hour;
        let is_new = self.mutant == Mutant::WithoutCondition || !view.loads.values().filter(of_hour).any(is_newer);
        match statement {
            Statement::Lock | Statement::CreateStaging(_) | Statement::DropStaging(_) => {}
            Statement::Copy(group) => run.staged[group] = self.copy(&transaction.groups[group].manifest)?,
            Statement::CheckRows(group) => {
                let is_whole = run.staged[group].len() as u64 == transaction.groups[group].rows;
                if !is_whole && self.mutant != Mutant::WithoutCheck {
                    return Err("division by zero".into());
                }
            }
            Statement::DeleteHour if is_new && self.mutant != Mutant::WithoutDelete => {
                let rows = view.events.iter().filter(|(_, (hour, _))| *hour == transaction.hour).map(|(row, _)| *row);
                let rows: Vec<_> = rows.collect();
                view.events.retain(|row, _| !rows.contains(row));
                run.deleted.extend(rows);
            }
            Statement::InsertHour(group) if is_new => {
                let rows = run.staged[group].iter().cloned();
                view.events.extend(rows.map(|row| (self.row(), (transaction.hour, row))));
            }
            Statement::DeleteLoad if is_new => {
                let rows = view.loads.iter().filter(|(_, load)| load.hour == transaction.hour).map(|(row, _)| *row);
                let rows: Vec<_> = rows.collect();
                view.loads.retain(|row, _| !rows.contains(row));
                run.deleted.extend(rows);
            }
            Statement::InsertLoad if is_new => {
                let Transaction { hour, sealed_at, .. } = *transaction;
                let load = LoadRow { hour, etag: transaction.etag.clone(), sealed_at, rows: transaction.rows() };
                view.loads.insert(self.row(), load);
            }
            Statement::DeleteHour | Statement::InsertHour(_) | Statement::DeleteLoad | Statement::InsertLoad => {}
        }
        Ok(())
    }

    fn row(&self) -> usize {
        self.rows.set(self.rows.get() + 1);
        self.rows.get()
    }

    /// As COPY reads a manifest.
    fn copy(&self, manifest: &str) -> Result<Vec<Row>, String> {
        let object = |url: &str| {
            let key = url.strip_prefix("s3://landing/").ok_or("not in the bucket")?;
            let objects = self.bucket.objects.borrow();
            Ok::<_, String>(objects.get(key).ok_or_else(|| format!("{key} is not there"))?.content.body.clone())
        };
        let manifest: Value = serde_json::from_slice(&object(manifest)?).map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        for entry in manifest["entries"].as_array().unwrap() {
            let file = object(entry["url"].as_str().unwrap())?;
            if entry["meta"]["content_length"] != file.len() {
                return Err("another length".into());
            }
            READ.with_borrow_mut(|read| {
                rows.extend_from_slice(read.entry(file.to_vec()).or_insert_with(|| parquet::rows(file)));
            });
        }
        rows.truncate(rows.len().saturating_sub(self.loses.get()));
        Ok(rows)
    }
}

impl Warehouse for &ModelWarehouse<'_> {
    async fn submit(&self, transaction: &Transaction, token: &str) -> Result<String, WarehouseError> {
        if self.is_away.get() {
            return Err(WarehouseError { operation: "sending", problem: "ActiveStatementsExceededException".into() });
        }
        let known = self.tokens.borrow().get(token).copied();
        let number = known.unwrap_or_else(|| self.add(transaction.clone()));
        self.tokens.borrow_mut().insert(token.to_owned(), number);
        Ok(number.to_string())
    }

    async fn progress(&self, id: &str) -> Result<Option<Progress>, WarehouseError> {
        if self.is_away.get() {
            return Err(WarehouseError { operation: "asking", problem: "ThrottlingException".into() });
        }
        let number: usize = id.parse().unwrap();
        let is_known = !self.forgotten.borrow().contains(&number);
        Ok(is_known.then(|| self.runs.borrow()[number].progress.clone()))
    }
}
