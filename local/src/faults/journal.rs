//! A record of what was done to the functions: one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

pub(super) struct Journal(Mutex<File>);

impl Journal {
    /// Appends to `<folder>/faults.jsonl`.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = OpenOptions::new().create(true).append(true).open(folder.join("faults.jsonl"))?;
        Ok(Self(Mutex::new(file)))
    }

    pub(super) fn write(&self, mut entry: Value) {
        entry["at"] = json!(lambda_setup::now().rfc3339());
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(problem) = file.write_all(format!("{entry}\n").as_bytes()) {
            tracing::error!(%problem, %entry, "the journal of faults lacks an entry");
        }
    }
}
