//! One run: each POST leaves at its planned time, whatever the answers do.

mod exchange;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connections::{Connections, Turn};
use crate::generator::Taken;
use crate::ledger::Ledger;
use crate::recorder::{Recorded, Recorder};
use crate::target::{ConnectError, Target};
use crate::workload::{Post, Workload};

/// POSTs that leave one after the other, when several are due, before answers are looked at.
const BURST: u32 = 16;
/// How often it is looked whether the last answers have come.
const LAST_ANSWERS_POLL: Duration = Duration::from_millis(2);

/// What a run needs beside its POSTs.
#[derive(Debug, Clone)]
pub(crate) struct RunPlan {
    pub(crate) duration: Duration,
    /// Open from the start, and at most.
    pub(crate) connections: usize,
    pub(crate) max_connections: usize,
    /// From the sending to the end of the answer, and for opening a connection.
    pub(crate) timeout: Duration,
    /// After the end the last POST must have left within this time.
    pub(crate) max_lag: Duration,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{url}: {source}")]
    Connect { url: String, source: ConnectError },
    #[error("a request can't be made: {0}")]
    Request(#[from] http::Error),
    #[error("times can't be counted: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("the generator's own use can't be read: {0}")]
    Usage(#[from] nix::Error),
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Ran {
    /// In milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    pub(crate) ended_unix_ms: u64,
    pub(crate) recorded: Recorded,
    pub(crate) ledger: Ledger,
    /// In the run's time.
    pub(crate) taken: Taken,
    /// From the start to the last answer.
    pub(crate) lasted: Duration,
    pub(crate) connections_opened: u64,
}

/// What all POSTs of a run share. All of it is on one thread.
pub(crate) struct Shared {
    connections: Connections,
    host: HeaderValue,
    started: Instant,
    timeout: Duration,
    pub(crate) recorder: RefCell<Recorder>,
    ledger: RefCell<Ledger>,
}

impl Shared {
    /// Since the start.
    pub(crate) fn runs_for(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Opens the connections, sends all POSTs, and waits for the answers. `watch` is given what is shared, to show it meanwhile.
pub(crate) async fn run(
    target: Target,
    url: &str,
    mut workload: Workload,
    plan: &RunPlan,
    watch: impl FnOnce(Rc<Shared>),
) -> Result<Ran, RunError> {
    let host = target.host()?;
    let connections = Connections::new(target, plan.max_connections);
    open(&connections, url, plan).await?;
    let recorder = RefCell::new(Recorder::new(plan.duration + plan.max_lag)?);
    let (before, started, started_unix_ms) = (Taken::until_now()?, Instant::now(), unix_ms());
    let ledger = RefCell::default();
    let shared = Rc::new(Shared { connections, host, started, timeout: plan.timeout, recorder, ledger });
    watch(shared.clone());
    send_all(&shared, &mut workload).await?;
    wait_for_answers(&shared, plan).await;
    Ok(Ran {
        started_unix_ms,
        ended_unix_ms: unix_ms(),
        taken: Taken::until_now()?.since(&before),
        lasted: started.elapsed(),
        connections_opened: shared.connections.opened(),
        recorded: shared.recorder.replace(Recorder::new(Duration::ZERO)?).finish(),
        ledger: shared.ledger.take(),
    })
}

async fn open(connections: &Connections, url: &str, plan: &RunPlan) -> Result<(), RunError> {
    let opened = tokio::time::timeout(plan.timeout, connections.open_some(plan.connections)).await;
    let opened = opened.unwrap_or(Err(ConnectError::Timeout));
    opened.map_err(|source| RunError::Connect { url: url.to_owned(), source })
}

async fn send_all(shared: &Rc<Shared>, workload: &mut Workload) -> Result<(), RunError> {
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
        dispatch(shared, post)?;
    }
    Ok(())
}

fn next(shared: &Shared, workload: &mut Workload) -> Option<Post> {
    workload.next(&mut shared.ledger.borrow_mut())
}

/// Turns to a POST: from here on it takes its own way.
fn dispatch(shared: &Rc<Shared>, post: Post) -> Result<(), RunError> {
    let request = exchange::request(shared, &post)?;
    let lag = shared.started.elapsed().saturating_sub(post.planned);
    let turn = shared.connections.turn();
    let mut recorder = shared.recorder.borrow_mut();
    recorder.turned_to(post.planned, lag, post.pieces.count, post.body.len() as u64)?;
    if matches!(turn, Turn::Wait(_)) {
        recorder.held_back();
    }
    tokio::task::spawn_local(exchange::exchange(shared.clone(), post.planned, post.pieces, request, turn));
    Ok(())
}

/// Until all are answered or have timed out. What still waits for a connection then is not sent.
async fn wait_for_answers(shared: &Shared, plan: &RunPlan) {
    let patience = plan.duration + plan.timeout;
    while shared.recorder.borrow().pending() > 0 {
        if shared.started.elapsed() > patience {
            shared.connections.stop_waiting();
        }
        sleep(LAST_ANSWERS_POLL).await;
    }
}

/// In milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(lambda_setup::now().0).unwrap_or_default()
}
