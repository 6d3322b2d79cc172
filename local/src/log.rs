//! The functions' logs: all of it into a file each, what a person wants to see also onto the terminal, with the name, and
//! embedded metrics into the metric store.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::embedded_metrics::{self, EmbeddedError};
use crate::metric_store::MetricStore;

/// The log of one function, shared by its environments.
#[derive(Clone)]
pub struct FunctionLog {
    name: Arc<str>,
    file: Arc<Mutex<File>>,
    metrics: MetricStore,
}

impl FunctionLog {
    /// Appends to `<folder>/<name>.log`.
    ///
    /// # Errors
    ///
    /// When the file can't be opened.
    pub fn open(folder: &Path, name: &str, metrics: MetricStore) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log")))?;
        Ok(Self { name: name.into(), file: Arc::new(Mutex::new(file)), metrics })
    }

    /// Copies the lines of a process until it ends.
    pub fn follow(&self, output: Option<impl AsyncRead + Unpin + Send + 'static>) {
        let Some(output) = output else { return };
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                if let Err(problem) = log.write(&line) {
                    tracing::error!(function = %log.name, %problem, "a line of its log is lost");
                }
            }
        });
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&[line, b"\n"].concat())?;
        if is_metrics(line) {
            drop(file);
            self.keep_metrics(line);
            return Ok(());
        }
        writeln!(io::stderr(), "[{}] {}", self.name, String::from_utf8_lossy(line))
    }
}

impl FunctionLog {
    fn keep_metrics(&self, line: &[u8]) {
        match embedded_metrics::keep(line, &self.metrics) {
            // The store counts those, and has said so.
            Ok(()) | Err(EmbeddedError::NotKept(..)) => {}
            Err(problem) => {
                tracing::warn!(function = %self.name, %problem, "a line of embedded metrics makes no metrics")
            }
        }
    }
}

/// A line of metrics an invocation would leave no room for anything else on the terminal.
fn is_metrics(line: &[u8]) -> bool {
    contains(line, b"\"CloudWatchMetrics\":")
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len()).any(|window| window == text)
}
