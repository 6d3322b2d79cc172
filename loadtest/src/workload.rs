//! What is sent: POSTs in the order of their planned times.
//!
//! The same seed, run id and plan give the same bytes in the same order, on any machine. Times inside of events therefore
//! count from the start of the run.

mod catalog;
mod players;
mod random;
mod recording;
mod replay;
mod viewer;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::ledger::Ledger;

pub(crate) use players::Players;
pub(crate) use recording::{Recording, RecordingError};
pub(crate) use replay::Replay;

#[derive(Debug, Clone)]
pub(crate) struct Post {
    /// From the start of the run.
    pub(crate) planned: Duration,
    /// What follows the URL's path, such as `/cmcd`; mostly empty.
    pub(crate) path: Rc<str>,
    /// All but those of the connection.
    pub(crate) headers: Rc<HeaderMap>,
    pub(crate) body: Bytes,
    pub(crate) pieces: Pieces,
}

/// The entries of the ledger that a POST carries, in the order of its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pieces {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) bad: Bad,
}

/// What is bad on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    Nothing,
    /// The piece at this index, from 0. The others are accepted.
    Piece(u64),
    /// All of it, which is refused with this status.
    Whole(u16),
}

/// Where POSTs come from.
#[derive(Debug)]
pub(crate) enum Workload {
    Players(Players),
    Replay(Replay),
}

impl Workload {
    /// The next POST, and its pieces into the ledger; `None` when there are no more.
    pub(crate) fn next(&mut self, ledger: &mut Ledger) -> Option<Post> {
        match self {
            Self::Players(players) => players.next(ledger),
            Self::Replay(replay) => replay.next(ledger),
        }
    }
}

/// A time from the start as the ledger keeps it; runs are far shorter than its 49 days.
fn whole_ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
