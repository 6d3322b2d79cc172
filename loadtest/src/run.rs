//! One run: each POST leaves at its planned time, whatever the answers do.
//!
//! A POST takes an idle connection, or opens another if all are busy; at the limit it waits.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use shared::timestamp::UnixMillis;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::exchange::{Connection, Pool, Shared};
use crate::ledger::Ledger;
use crate::progress::Display;
use crate::recorder::Recorder;
use crate::result::{Plan, RunResult};
use crate::send_error::SendError;
use crate::target::Target;
use crate::usage::Usage;
use crate::workload::Workload;

/// POSTs sent in a row, when several are due, before answers are read.
const BURST: u32 = 16;
/// Requests at once on one HTTP/2 connection: what a server allows that says nothing else.
/// <https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2>
const HTTP_2_STREAMS: u32 = 100;
/// How often to look whether the last answers have come.
const LAST_ANSWERS_POLL: Duration = Duration::from_millis(2);

pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) target: Target,
    pub(crate) workload: Workload,
    pub(crate) duration: Duration,
    /// For opening the first connections, and for each POST.
    pub(crate) timeout: Duration,
    /// The last POST must leave at most this long after the end.
    pub(crate) max_lag: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{url}: {source}")]
    Connect { url: String, source: SendError },
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

impl Run {
    /// Opens the connections, sends all POSTs, and waits for the answers.
    pub(crate) async fn send(self, display: &Display) -> Result<Ran, RunError> {
        let streams = if self.target.http2 { HTTP_2_STREAMS } else { 1 };
        let pool = Pool::new(&self.open().await?, self.plan.max_connections, streams);
        let recorder = RefCell::new(Recorder::new(self.duration + self.max_lag)?);
        let (before, started, started_unix_ms) = (Usage::until_now()?, Instant::now(), unix_ms());
        let (timeout, last_start, ledger) = (self.timeout, started + self.duration + self.timeout, RefCell::default());
        let shared = Rc::new(Shared { target: self.target, started, timeout, last_start, pool, recorder, ledger });
        let follower = display.follow(shared.clone());
        send_all(&shared, self.workload).await?;
        while shared.recorder.borrow().pending() > 0 {
            sleep(LAST_ANSWERS_POLL).await;
        }
        follower.abort();
        let mut result = shared.recorder.borrow_mut().finish(self.plan);
        result.started_unix_ms = started_unix_ms;
        result.generator.connections_opened = shared.target.opened.get();
        Usage::until_now()?.report(&before, shared.elapsed().as_secs_f64(), &mut result.generator);
        Ok(Ran { result, ledger: shared.ledger.take(), ended_unix_ms: unix_ms() })
    }

    async fn open(&self) -> Result<Vec<Rc<Connection>>, RunError> {
        let connections: Vec<_> = (0..self.plan.connections).map(|_| Rc::<Connection>::default()).collect();
        let open_all = async {
            for connection in &connections {
                connection.open(&self.target).await?;
            }
            Ok(())
        };
        let opened = timeout(self.timeout, open_all).await.unwrap_or(Err(SendError::Timeout));
        opened.map_err(|source| RunError::Connect { url: self.plan.url.clone(), source })?;
        Ok(connections)
    }
}

async fn send_all(shared: &Rc<Shared>, mut workload: Workload) -> Result<(), RunError> {
    let next = |workload: &mut Workload| workload.next(&mut shared.ledger.borrow_mut());
    let mut without_a_pause = 0;
    while let Some(post) = next(&mut workload) {
        let due = shared.started + post.planned;
        if Instant::now() < due {
            sleep_until(due).await;
            without_a_pause = 0;
        } else if without_a_pause == BURST {
            yield_now().await;
            without_a_pause = 0;
        }
        without_a_pause += 1;
        let lag = shared.elapsed().saturating_sub(post.planned);
        shared.recorder.borrow_mut().record_start(post.planned, lag, post.pieces.count, post.body.len() as u64)?;
        spawn_local(shared.clone().post(post));
    }
    Ok(())
}

/// In milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    unix_ms_of(lambda_setup::now())
}

/// 0 for a time before 1970.
pub(crate) fn unix_ms_of(time: UnixMillis) -> u64 {
    u64::try_from(time.0).unwrap_or_default()
}
