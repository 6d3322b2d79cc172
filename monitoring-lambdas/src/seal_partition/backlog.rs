//! What may be owed to any hour.

use shared::timestamp::UtcHour;

use super::failed_batches::{self, FailedBatch};
use super::landing::Landing;
use crate::manifest::Missing;

/// What landing has not landed yet and what it has given up, of any hour, when the run began.
#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) landing: Landing,
    pub(super) failed_batches: Vec<FailedBatch>,
}

impl Backlog {
    pub(super) fn of(&self, hour: UtcHour) -> Vec<Missing> {
        let failed = failed_batches::missing(&self.failed_batches, hour);
        self.landing.owes(hour.end()).into_iter().chain(failed).collect()
    }

    /// Whether it is known how far the stream has been read.
    pub(super) fn is_read(&self) -> bool {
        self.landing.read_up_to.is_some()
    }
}
