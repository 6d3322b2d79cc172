//! The server's counts, written to standard output when they are due.

use std::io::{self, Write};
use std::sync::Arc;

use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use crate::counts::{Counts, FrontDoor};
use crate::schema::EventSchema;

/// Counts of this process, whose metrics have this name.
#[derive(Debug)]
pub struct Tally {
    counts: Arc<Counts>,
    name: String,
    /// What it counts is written with the rest.
    schema: Option<EventSchema>,
}

impl Tally {
    #[must_use]
    pub fn new(name: String) -> Arc<Self> {
        Self::with_schema(name, None)
    }

    #[must_use]
    pub fn with_schema(name: String, schema: Option<EventSchema>) -> Arc<Self> {
        Arc::new(Self { counts: Counts::new(FrontDoor::Server), name, schema })
    }

    #[must_use]
    pub(crate) fn schema(&self) -> Option<&EventSchema> {
        self.schema.as_ref()
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
        self.schema.iter().for_each(|schema| print(&schema.lines()));
    }
}

/// A log that nobody reads must not stop the server.
fn print(lines: &[String]) {
    let mut out = io::stdout().lock();
    if let Err(error) = lines.iter().try_for_each(|line| writeln!(out, "{line}")) {
        tracing::debug!(%error, "nobody reads standard output");
    }
}
