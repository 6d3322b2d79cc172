//! One run: each POST leaves at its planned time, whatever the answers do.
//!
//! A worker sends one POST after the other on its connection: with HTTP/1.1 on one of its own, with HTTP/2 on one that it shares
//! with others. When all workers are busy there are more of them, up to a limit; beyond it POSTs wait. All is on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::Connection;
use crate::exchange::{Job, Shared, exchange};
use crate::ledger::Ledger;
use crate::recorder::Recorder;
use crate::result::{Generator, Plan, RunResult};
use crate::send_error::SendError;
use crate::target::{Protocol, Target};
use crate::usage::Usage;
use crate::workload::{Post, Workload};

/// POSTs that leave in a row, when several are due, before answers are looked at.
const BURST: u32 = 16;
/// Requests at once on one connection of HTTP/2: what servers allow that say nothing else.
/// <https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2>
const HTTP_2_STREAMS: usize = 100;
/// How often to look whether the last answers have come.
const LAST_ANSWERS_POLL: Duration = Duration::from_millis(2);

/// What a run needs beside its POSTs.
#[derive(Debug, Clone)]
pub(crate) struct RunPlan {
    pub(crate) asked: Plan,
    pub(crate) duration: Duration,
    /// For opening the first connections, and for each POST.
    pub(crate) timeout: Duration,
    /// The last POST must leave at most this long after the end.
    pub(crate) max_lag: Duration,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{url}: {source}")]
    Connect { url: String, source: SendError },
    #[error("a request can't be made: {0}")]
    Request(#[from] http::Error),
    #[error("times can't be counted: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("the generator's own usage can't be read: {0}")]
    Usage(#[from] nix::Error),
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Without what landed and the verdict.
    pub(crate) result: RunResult,
    pub(crate) ledger: Ledger,
    /// When the last answer came, in milliseconds since 1970.
    pub(crate) ended_unix_ms: u64,
}

/// Those that send.
struct Workers {
    shared: Rc<Shared>,
    /// Opened from the start, and workers at most.
    opened: usize,
    limit: usize,
    /// Of workers that share a connection.
    streams: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    connections: Vec<Rc<Connection>>,
    workers: usize,
    /// Those that have nothing to send. The longest idle comes first, so that all connections are kept alive.
    idle: VecDeque<oneshot::Sender<Job>>,
    waiting: VecDeque<Job>,
    is_over: bool,
}

/// Opens the connections, sends all POSTs, and waits for the answers. `watch` is given what is shared, to show it meanwhile.
pub(crate) async fn run(
    target: Target,
    mut workload: Workload,
    plan: RunPlan,
    watch: impl FnOnce(Rc<Shared>),
) -> Result<Ran, RunError> {
    let connections = open(&target, &plan).await?;
    let recorder = RefCell::new(Recorder::new(plan.duration + plan.max_lag)?);
    let (before, started, started_unix_ms) = (Usage::until_now()?, Instant::now(), unix_ms());
    let shared = Rc::new(Shared { target, started, timeout: plan.timeout, recorder, ledger: RefCell::default() });
    let workers = Rc::new(Workers::new(shared.clone(), connections, &plan.asked));
    watch(shared.clone());
    send_all(&workers, &mut workload).await?;
    workers.wait_for_answers(plan.duration + plan.timeout).await;
    let usage = Usage::until_now()?.since(&before);
    let recorded = shared.recorder.replace(Recorder::new(Duration::ZERO)?).finish(plan.asked);
    let generator = Generator {
        cpu_seconds: usage.cpu.as_secs_f64(),
        cores_used: usage.cpu.as_secs_f64() / shared.elapsed().as_secs_f64(),
        run_queue_seconds: usage.run_queue.as_secs_f64(),
        peak_rss_bytes: usage.peak_rss_bytes,
        connections_opened: shared.target.opened.get(),
        ..recorded.generator
    };
    let result = RunResult { started_unix_ms, generator, ..recorded };
    Ok(Ran { result, ledger: shared.ledger.take(), ended_unix_ms: unix_ms() })
}

async fn open(target: &Target, plan: &RunPlan) -> Result<Vec<Rc<Connection>>, RunError> {
    let connections: Vec<_> = (0..plan.asked.connections).map(|_| Rc::new(Connection::default())).collect();
    let open_all = async {
        for connection in &connections {
            connection.open(target).await?;
        }
        Ok(())
    };
    let opened = tokio::time::timeout(plan.timeout, open_all).await.unwrap_or(Err(SendError::Timeout));
    opened.map_err(|source| RunError::Connect { url: target.text.clone(), source })?;
    Ok(connections)
}

async fn send_all(workers: &Rc<Workers>, workload: &mut Workload) -> Result<(), RunError> {
    let shared = &workers.shared;
    let mut without_a_pause = 0;
    while let Some(post) = next(shared, workload) {
        let due = shared.started + post.planned;
        if Instant::now() < due {
            sleep_until(due).await;
            without_a_pause = 0;
        } else if without_a_pause == BURST {
            yield_now().await;
            without_a_pause = 0;
        }
        without_a_pause += 1;
        let request = shared.target.request(&post)?;
        let lag = shared.elapsed().saturating_sub(post.planned);
        shared.recorder.borrow_mut().turned_to(post.planned, lag, post.pieces.count, post.body.len() as u64)?;
        workers.dispatch(Job { planned: post.planned, pieces: post.pieces, request });
    }
    Ok(())
}

fn next(shared: &Shared, workload: &mut Workload) -> Option<Post> {
    workload.next(&mut shared.ledger.borrow_mut())
}

impl Workers {
    fn new(shared: Rc<Shared>, connections: Vec<Rc<Connection>>, plan: &Plan) -> Self {
        let streams = match shared.target.protocol {
            Protocol::Http1 => 1,
            Protocol::Http2 => HTTP_2_STREAMS,
        };
        let (opened, limit) = (connections.len(), plan.max_connections as usize * streams);
        Self { shared, opened, limit, streams, state: RefCell::new(State { connections, ..State::default() }) }
    }

    /// Hands a POST to a worker; it waits if all that there may be are busy.
    fn dispatch(self: &Rc<Self>, mut job: Job) {
        let mut state = self.state.borrow_mut();
        // Each open connection gets a worker before any gets a second POST.
        if state.workers >= self.opened
            && let Some(worker) = state.idle.pop_front()
        {
            match worker.send(job) {
                Ok(()) => return,
                Err(unsent) => job = unsent,
            }
        }
        if state.workers < self.limit {
            let connection = state.next_connection(self.opened, self.streams);
            tokio::task::spawn_local(self.clone().work(connection, job));
        } else {
            self.shared.recorder.borrow_mut().held_back += 1;
            state.waiting.push_back(job);
        }
    }

    async fn work(self: Rc<Self>, connection: Rc<Connection>, mut job: Job) {
        loop {
            exchange(&self.shared, &connection, job).await;
            connection.ready().await;
            let Some(next) = self.next_job().await else { return };
            job = next;
        }
    }

    /// `None` when the run is over.
    async fn next_job(&self) -> Option<Job> {
        let receiver = {
            let mut state = self.state.borrow_mut();
            if let Some(job) = state.waiting.pop_front() {
                return Some(job);
            }
            if state.is_over {
                return None;
            }
            let (sender, receiver) = oneshot::channel();
            state.idle.push_back(sender);
            receiver
        };
        receiver.await.ok()
    }

    /// Until all are answered or have timed out, and ends the workers. What still waits after `last_start` is not sent.
    async fn wait_for_answers(&self, last_start: Duration) {
        while self.shared.recorder.borrow().pending() > 0 {
            if self.shared.elapsed() > last_start {
                let waiting = std::mem::take(&mut self.state.borrow_mut().waiting);
                waiting.iter().for_each(|job| self.shared.never_sent(job));
            }
            sleep(LAST_ANSWERS_POLL).await;
        }
        *self.state.borrow_mut() = State { is_over: true, ..State::default() };
    }
}

impl State {
    /// Of a new worker: the connections that were opened first are filled in turn, then each new one by itself.
    fn next_connection(&mut self, opened: usize, streams: usize) -> Rc<Connection> {
        let worker = self.workers;
        self.workers += 1;
        let place = if worker < opened * streams { worker % opened } else { worker / streams };
        if place == self.connections.len() {
            self.connections.push(Rc::default());
        }
        self.connections[place].clone()
    }
}

/// In milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(lambda_setup::now().0).unwrap_or_default()
}
