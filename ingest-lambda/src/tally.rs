//! The server's counts, written to standard output when they are due.

use std::io::{self, Write};
use std::sync::Arc;

use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use crate::counts::{Counts, FrontDoor};

/// Counts of this process, whose metrics have this name.
#[derive(Debug)]
pub struct Tally {
    counts: Arc<Counts>,
    name: String,
}

impl Tally {
    #[must_use]
    pub fn new(name: String) -> Arc<Self> {
        Arc::new(Self { counts: Counts::new(FrontDoor::Server), name })
    }

    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts what was received at that time, of an app if it is known.
    pub fn add(&self, at: UnixMillis, app: Option<&str>, values: &[(Metric, u64)]) {
        print(&self.counts.add(at, &self.name, app, values));
    }

    /// Writes all that is not written yet.
    pub fn flush(&self) {
        print(&self.counts.rest());
    }
}

/// A log that nobody reads must not stop the server.
fn print(lines: &[String]) {
    let mut out = io::stdout().lock();
    if let Err(error) = lines.iter().try_for_each(|line| writeln!(out, "{line}")) {
        tracing::debug!(%error, "nobody reads standard output");
    }
}
