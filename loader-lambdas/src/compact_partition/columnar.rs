//! What a compacted hour consists of: its plans, its parts, and `_SUCCESS`.

use serde::{Deserialize, Serialize};
use shared::timestamp::{UnixMillis, UtcHour};

/// The version of the formats.
pub(crate) const VERSION: u8 = 1;

/// Where an hour's files are. Readers pass over names that begin with an underscore.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    folder: String,
}

impl Keys {
    pub(crate) fn of(hour: UtcHour) -> Self {
        Self { folder: format!("columnar/{}/", hour.partition()) }
    }

    pub(crate) fn plan(&self, number: usize) -> String {
        format!("{}_PLAN-{number:05}.jsonl", self.folder)
    }

    /// What all parts' keys begin with.
    pub(crate) fn parts(&self) -> String {
        format!("{}part-", self.folder)
    }

    pub(crate) fn part(&self, number: usize) -> String {
        format!("{}{number:05}.parquet", self.parts())
    }

    pub(crate) fn success(&self) -> String {
        format!("{}_SUCCESS", self.folder)
    }
}

/// The content of a compacted hour's `_SUCCESS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compacted {
    /// [`VERSION`]
    pub(crate) v: u8,
    /// `dt=2026-11-21/hour=09`
    pub(crate) partition: String,
    /// When the manifest was sealed that the last part was made of.
    pub(crate) sealed_at: UnixMillis,
    /// That manifest's `ETag`, as the hour's `_SUCCESS` names it.
    pub(crate) manifest: String,
    /// Plans that the parts were made by: one for the first manifest, and one for each that came after it.
    pub(crate) plans: usize,
    pub(crate) parts: Vec<Part>,
    pub(crate) totals: Totals,
}

/// A Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) key: String,
    pub(crate) etag: String,
    pub(crate) bytes: u64,
    #[serde(flatten)]
    pub(crate) totals: Totals,
}

/// What became of the lines of a part, or of an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Rows in Parquet.
    pub(crate) rows: u64,
    /// Lines of which the hour has an equal one, by id and event: they are no rows.
    pub(crate) doubled: u64,
    /// Rows whose id another row of the hour has, with another event.
    pub(crate) clashing: u64,
    /// Lines that are not JSON: they are no rows.
    pub(crate) not_json: u64,
    /// Lines that were read: the sum of rows, doubled and `not_json`.
    pub(crate) lines: u64,
    /// Lines that the manifest says.
    pub(crate) expected_lines: u64,
    /// Objects that the manifest names.
    pub(crate) objects: u64,
    /// Those that are not there any more.
    pub(crate) missing_objects: u64,
    /// Those that are not bzip2, are damaged, or hold more than a landed object can.
    pub(crate) unreadable_objects: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, more: &Self) {
        let pairs = [
            (&mut self.rows, more.rows),
            (&mut self.doubled, more.doubled),
            (&mut self.clashing, more.clashing),
            (&mut self.not_json, more.not_json),
            (&mut self.lines, more.lines),
            (&mut self.expected_lines, more.expected_lines),
            (&mut self.objects, more.objects),
            (&mut self.missing_objects, more.missing_objects),
            (&mut self.unreadable_objects, more.unreadable_objects),
        ];
        // Manifests say what anybody may have written: sums saturate.
        pairs.into_iter().for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }

    /// Whether all objects were read.
    pub(crate) const fn is_complete(&self) -> bool {
        self.missing_objects == 0 && self.unreadable_objects == 0
    }

    /// How many lines are missing from the rows, or more than was said. Zero where all is well.
    pub(crate) const fn difference(&self) -> u64 {
        let objects = self.missing_objects.saturating_add(self.unreadable_objects);
        let lines = self.lines.abs_diff(self.expected_lines).saturating_add(self.not_json);
        if lines > objects { lines } else { objects }
    }
}
