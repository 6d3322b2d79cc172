//! POSTs over keep-alive connections, by a thread of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use axum::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// The longest that an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// Whole requests, which are sent in turn. At least one.
    pub(crate) requests: Arc<[Bytes]>,
    pub(crate) connections: u32,
    pub(crate) pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Each connection posts again as soon as it has its answer.
    Closed,
    /// So many POSTs a second, evenly over the connections. A POST whose connection is busy is late, and its latency counts
    /// from its planned time.
    Planned(f64),
}

/// What became of a load.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) posts: u64,
    /// Of the POSTs of the window.
    pub(crate) latencies: Vec<Duration>,
    /// Of the largest answer, with its head.
    pub(crate) answer_bytes: usize,
}

#[derive(Debug, Default)]
struct Progress {
    posts: AtomicU64,
    is_in_window: AtomicBool,
    is_over: AtomicBool,
}

/// A load that goes on until it is ended.
pub(crate) struct Running {
    progress: Arc<Progress>,
    thread: JoinHandle<anyhow::Result<Answered>>,
}

impl Running {
    pub(crate) fn start(load: Load) -> anyhow::Result<Self> {
        let progress = Arc::<Progress>::default();
        let shared = progress.clone();
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(load, shared))
        })?;
        Ok(Self { progress, thread })
    }

    /// POSTs that were answered so far.
    pub(crate) fn posts(&self) -> u64 {
        self.progress.posts.load(Ordering::Relaxed)
    }

    /// Whether it has ended by itself: because it failed.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// From now on latencies are kept.
    pub(crate) fn begin_window(&self) {
        self.progress.is_in_window.store(true, Ordering::Relaxed);
    }

    /// Waits for the answers to what was sent.
    ///
    /// # Errors
    ///
    /// When a connection failed, or an answer was anything but 200.
    pub(crate) async fn end(self) -> anyhow::Result<Answered> {
        self.progress.is_over.store(true, Ordering::Relaxed);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        joined.map_err(|_| anyhow!("the load's thread panicked"))?
    }
}

async fn run(load: Load, progress: Arc<Progress>) -> anyhow::Result<Answered> {
    let mut connections = JoinSet::new();
    for index in 0..load.connections {
        let stream = TcpStream::connect(load.address).await.context("no connection")?;
        stream.set_nodelay(true)?;
        connections.spawn(Connection::new(stream, &load, index, progress.clone()).run());
    }
    let mut sum = Answered::default();
    while let Some(answered) = connections.join_next().await {
        let Answered { posts, latencies, answer_bytes } = answered??;
        sum.posts += posts;
        sum.latencies.extend(latencies);
        sum.answer_bytes = sum.answer_bytes.max(answer_bytes);
    }
    Ok(sum)
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    requests: Arc<[Bytes]>,
    /// Of the next request, and how many are between two of this connection.
    next: usize,
    step: usize,
    /// Between two planned POSTs.
    period: Option<Duration>,
    planned: Instant,
    progress: Arc<Progress>,
}

impl Connection {
    fn new(stream: TcpStream, load: &Load, index: u32, progress: Arc<Progress>) -> Self {
        let (period, delay) = match load.pace {
            Pace::Closed => (None, Duration::ZERO),
            Pace::Planned(rate) => (
                Some(Duration::from_secs_f64(f64::from(load.connections) / rate)),
                Duration::from_secs_f64(f64::from(index) / rate),
            ),
        };
        Self {
            stream,
            received: Vec::with_capacity(1024),
            requests: load.requests.clone(),
            next: index as usize,
            step: load.connections as usize,
            period,
            planned: Instant::now() + delay,
            progress,
        }
    }

    async fn run(mut self) -> anyhow::Result<Answered> {
        let mut answered = Answered::default();
        loop {
            match self.period {
                Some(_) => sleep_until(self.planned).await,
                None => self.planned = Instant::now(),
            }
            if self.progress.is_over.load(Ordering::Relaxed) {
                return Ok(answered);
            }
            let is_in_window = self.progress.is_in_window.load(Ordering::Relaxed);
            let bytes = timeout(ANSWER_TIMEOUT, self.post()).await.context("no answer in time")??;
            if is_in_window {
                answered.latencies.push(self.planned.elapsed());
            }
            answered.posts += 1;
            answered.answer_bytes = answered.answer_bytes.max(bytes);
            self.progress.posts.fetch_add(1, Ordering::Relaxed);
            self.planned += self.period.unwrap_or_default();
        }
    }

    /// Returns the bytes of the answer.
    async fn post(&mut self) -> anyhow::Result<usize> {
        let request = &self.requests[self.next % self.requests.len()];
        self.next += self.step;
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.received).await? > 0, "the server closed a connection");
            match answer_bytes(&self.received)? {
                Some(bytes) if bytes <= self.received.len() => return Ok(bytes),
                _ => ensure!(self.received.len() < MAX_ANSWER_BYTES, "an answer is too long"),
            }
        }
    }
}

/// The bytes that an answer has in all, once its head is there.
///
/// # Errors
///
/// When it is not an answer with the status 200 and a length.
fn answer_bytes(received: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&received[..end])?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "the server answered {}", String::from_utf8_lossy(received));
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let length =
        fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length")).context("an answer has no length")?;
    Ok(Some(end + 4 + length.1.trim().parse::<usize>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::part_of_a_head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", None)]
    #[case::head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Some(40))]
    #[case::whole("HTTP/1.1 200 OK\r\na: b\r\ncontent-length:2\r\n\r\n{}", Some(45))]
    fn an_answer_ends_where_its_length_says(#[case] received: &str, #[case] expected: Option<usize>) {
        assert_eq!(answer_bytes(received.as_bytes()).unwrap(), expected);
    }

    #[rstest]
    #[case::no_success("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")]
    #[case::no_length("HTTP/1.1 200 OK\r\n\r\n")]
    #[case::bad_length("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n")]
    fn anything_but_success_with_a_length_is_an_error(#[case] received: &str) {
        assert!(answer_bytes(received.as_bytes()).is_err());
    }
}
