//! `logs/notices.log`: what people get, whole, by whichever way; its subjects are shown on the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use shared::timestamp::UnixMillis;
use tracing::error;

use crate::mutex::Mutex;
use crate::terminal;

#[derive(Clone)]
pub(crate) struct Notices(Arc<Mutex<File>>);

impl Notices {
    /// Appends to `<folder>/notices.log`.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = OpenOptions::new().create(true).append(true).open(folder.join("notices.log"))?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    pub(crate) fn add(&self, at: UnixMillis, subject: &str, text: &str) {
        terminal::say(&format!("{} notice: {subject}", at.rfc3339()));
        let line = format!("{} {subject}\n\n{text}\n\n", at.rfc3339());
        if let Err(problem) = self.0.lock().write_all(line.as_bytes()) {
            error!(%problem, subject, "a notice is missing from its log");
        }
    }
}
