//! The warehouse as the loader sees it.

use super::sql::Transaction;

/// What is known of a transaction that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits or runs.
    UnderWay,
    /// All of it is there.
    Committed,
    /// Nothing of it is there; what the warehouse says.
    Failed(String),
}

/// A call that was refused or not answered, after the SDK's retries. A transaction may have been taken all the same.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {problem}")]
pub(super) struct WarehouseError {
    /// What was called.
    pub(super) operation: &'static str,
    /// What the service said, or why it said nothing.
    pub(super) problem: String,
}

/// Takes transactions, and runs them later.
pub(super) trait Warehouse {
    /// Sends a transaction; the id by which its progress can be asked for. Within hours, one of the same token is the same transaction.
    fn submit(&self, transaction: &Transaction, token: &str) -> impl Future<Output = Result<String, WarehouseError>>;
    /// `None` when it is not known any more, which is after a day.
    fn progress(&self, id: &str) -> impl Future<Output = Result<Option<Progress>, WarehouseError>>;
}
