//! The functions' logs: each line goes into the function's file, embedded metrics into the metric store, and what a person
//! should see onto the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::embedded_metrics::{EmbeddedError, EmbeddedMetrics};
use crate::mutex::Mutex;
use crate::terminal;

/// The bytes of an invocation's log that `Invoke` returns.
/// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
const TAIL_BYTES: usize = 4096;

/// The log of one function, shared by its environments.
#[derive(Clone)]
pub struct FunctionLog {
    name: Arc<str>,
    file: Arc<Mutex<File>>,
    file_fails: Arc<AtomicBool>,
    metrics: EmbeddedMetrics,
}

/// The end of what an environment has written since it was last emptied.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<Vec<u8>>>);

impl FunctionLog {
    /// Appends to `<folder>/<name>.log`.
    pub fn open(folder: &Path, name: &str, metrics: EmbeddedMetrics) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log")))?;
        Ok(Self { name: name.into(), file: Arc::new(Mutex::new(file)), file_fails: Arc::default(), metrics })
    }

    pub async fn follow(self, output: Option<impl AsyncRead + Unpin>, tail: Tail) {
        let Some(output) = output else { return };
        let mut lines = BufReader::new(output).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            tail.push(&line);
            self.take(&line);
        }
    }

    /// A line that can't be written to the file still counts: its metrics are kept, and it is shown on the terminal.
    fn take(&self, line: &[u8]) {
        if is_metrics(line) {
            self.keep_metrics(line);
        } else if let Some(shown) = terminal::format(&self.name, line) {
            terminal::say(&shown);
        }
        let written = self.file.lock().write_all(&[line, b"\n"].concat());
        let fails = written.is_err();
        // A full disk is said once, not with each line.
        if self.file_fails.swap(fails, Ordering::Relaxed) != fails
            && let Err(problem) = written
        {
            tracing::error!(function = %self.name, %problem, "its log file can't be written; lines are missing from now on");
        }
    }

    fn keep_metrics(&self, line: &[u8]) {
        match self.metrics.keep(line) {
            // The store counts those, and has said so.
            Ok(()) | Err(EmbeddedError::NotKept(..)) => {}
            Err(problem) => {
                tracing::warn!(function = %self.name, %problem, "a line of embedded metrics can't be read")
            }
        }
    }
}

impl Tail {
    fn push(&self, line: &[u8]) {
        let mut tail = self.0.lock();
        tail.extend_from_slice(&line[line.len().saturating_sub(TAIL_BYTES)..]);
        tail.push(b'\n');
        let excess = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..excess);
    }

    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// One line of metrics for each invocation would flood the terminal.
fn is_metrics(line: &[u8]) -> bool {
    const MEMBER: &[u8] = b"\"CloudWatchMetrics\":";
    line.windows(MEMBER.len()).any(|window| window == MEMBER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::embedded_metrics::LineTime;
    use crate::metric_store::MetricStore;
    use shared::emf;
    use shared::metric::Metric;

    /// `/dev/full` takes no byte, like a disk without room.
    #[test]
    fn a_line_that_the_log_file_refuses_still_has_its_metrics() {
        let metrics = MetricStore::new(Clock::new(None, lambda_setup::now()));
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (file, file_fails) = (Arc::new(Mutex::new(file)), Arc::default());
        let own = EmbeddedMetrics::new(metrics.clone(), LineTime::Stack);
        let log = FunctionLog { name: "f".into(), file, file_fails, metrics: own };
        let line = emf::line(lambda_setup::now(), "f", &[(Metric::AcceptedEvents, 3)], &[]);
        log.take(line.as_bytes());
        log.take(line.as_bytes());
        let mut sums = Vec::new();
        metrics.visit(|id, series| sums.push((id.name.clone(), series.total.sum)));
        assert_eq!(sums, [("AcceptedEvents".to_owned(), 6.0)]);
    }

    #[test]
    fn a_tail_is_the_last_4096_bytes() {
        let tail = Tail::default();
        for number in 0..1_000 {
            tail.push(format!("{number:07}").as_bytes());
        }
        let end = tail.take();
        assert_eq!(end.len(), TAIL_BYTES);
        assert!(end.starts_with(b"0000488\n") && end.ends_with(b"0000999\n"));
        tail.push(&[b'x'; 5000]);
        assert_eq!(tail.take(), [&[b'x'; TAIL_BYTES - 1][..], b"\n"].concat());
        assert_eq!(tail.take(), b"");
    }
}
