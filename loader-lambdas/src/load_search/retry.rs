//! Calls that may be repeated: until they are answered, the attempts are used up or the invocation's time is over.

use std::time::Duration;

use lambda_setup::deadline::{Deadline, backoff_ceiling};

use super::answer::{AnswerError, Reason};
use super::cluster::{Answer, CallError};

/// How long one call may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often what the cluster does not take is sent again in an invocation: over half a minute or so.
pub(super) const MAX_RETRIES: u32 = 10;
const BACKOFF_BASE: Duration = Duration::from_millis(200);
const BACKOFF_CAP: Duration = Duration::from_secs(10);

/// Why the cluster has not taken everything. The queue sends the message again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    #[error(transparent)]
    NoAnswer(#[from] CallError),
    #[error("the cluster answered {status}: {text}")]
    Status { status: u16, text: String },
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("the cluster does not say what it is: {0}")]
    Root(serde_json::Error),
    #[error("documents are not taken for now: {reason}")]
    Busy {
        reason: Reason,
        /// Whether other documents of the batch are done.
        others_are_done: bool,
    },
    #[error("the cluster fails at documents: {0}")]
    Failed(Reason),
    #[error("documents can't be written as the cluster is set up: {reason}")]
    Blocked {
        reason: Reason,
        /// Whether other documents of the batch are done.
        others_are_done: bool,
    },
}

impl ClusterError {
    /// The most bytes of an answer that an error quotes.
    const MAX_TEXT_BYTES: usize = 300;

    pub(super) fn status(answer: &Answer) -> Self {
        let start = &answer.body[..answer.body.len().min(Self::MAX_TEXT_BYTES)];
        Self::Status { status: answer.status, text: String::from_utf8_lossy(start).into_owned() }
    }

    /// Whether the same call may succeed soon.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::NoAnswer(CallError::TimedOut(_) | CallError::Connection(_)) | Self::Answer(_) => true,
            Self::Busy { .. } | Self::Failed(_) => true,
            Self::Status { status, .. } => matches!(status, 429 | 500..),
            Self::NoAnswer(CallError::Request(_)) | Self::Root(_) | Self::Blocked { .. } => false,
        }
    }

    /// Whether other objects would fare no better now: it is not about what this one's request holds.
    pub(super) fn is_for_all(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::Root(_) => true,
            Self::Busy { reason, others_are_done } | Self::Blocked { reason, others_are_done } => {
                !others_are_done && !reason.is_about_one_index()
            }
            Self::Status { status, .. } => matches!(status, 401 | 403 | 429 | 500..),
            Self::Answer(_) | Self::Failed(_) => false,
        }
    }
}

/// The retries of one piece of work.
pub(super) struct Retries {
    deadline: Deadline,
    /// A number from 0 to 1, drawn for each wait.
    jitter: fn() -> f64,
    made: u32,
}

impl Retries {
    pub(super) fn new(deadline: Deadline, jitter: fn() -> f64) -> Self {
        Self { deadline, jitter, made: 0 }
    }

    /// Whether there is no attempt left.
    pub(super) fn are_used_up(&self) -> bool {
        self.made == MAX_RETRIES
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// The problem, when it does not pass or there is no attempt or no time left.
    pub(super) async fn wait(&mut self, problem: ClusterError) -> Result<(), ClusterError> {
        if !problem.may_pass() || self.are_used_up() {
            return Err(problem);
        }
        let pause = backoff_ceiling(self.made, BACKOFF_BASE, BACKOFF_CAP).mul_f64((self.jitter)());
        self.made += 1;
        self.deadline.sleep(pause).await.map_err(|_| problem)
    }

    /// One call, never past the deadline.
    pub(super) async fn attempt(
        &self,
        call: impl Future<Output = Result<Answer, CallError>>,
    ) -> Result<Answer, CallError> {
        let at_most = CALL_TIMEOUT.min(self.deadline.remaining());
        self.deadline.bound(CALL_TIMEOUT, call).await.unwrap_or(Err(CallError::TimedOut(at_most)))
    }

    /// Repeats a call until its answer is a success.
    pub(super) async fn until_success<F>(&mut self, call: impl Fn() -> F) -> Result<Answer, ClusterError>
    where
        F: Future<Output = Result<Answer, CallError>>,
    {
        loop {
            let problem = match self.attempt(call()).await {
                Ok(answer) if matches!(answer.status, 200..=299) => return Ok(answer),
                Ok(answer) => ClusterError::status(&answer),
                Err(error) => error.into(),
            };
            self.wait(problem).await?;
        }
    }
}
