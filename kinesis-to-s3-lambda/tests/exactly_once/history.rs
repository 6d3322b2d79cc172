//! What happens, in which order: generated as steps, so that shrinking leaves those that matter.

use std::fmt;

use proptest::prelude::*;

use crate::stream::{Arrival, arrivals};

/// The longest that Lambda takes to start a function.
pub(crate) const LONGEST_START_S: u64 = 10;

/// A run: the stream and what befalls it. Numbers in steps are taken modulo what there is.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The mapping sends a batch from its checkpoint, that many seconds later, and it begins after so many more.
    Send { records: usize, later_s: u64, start_s: u64 },
    /// S3 does that many requests of a running attempt, one after the other, and says so.
    Serve { attempt: usize, requests: usize },
    /// A running attempt's request fails.
    Fail { attempt: usize, failure: Failure },
    /// A running attempt dies; S3 still has its request.
    Crash { attempt: usize },
    /// The mapping won't hear the answer of the attempt that it waits for.
    LoseAnswer,
    /// S3 does a write that nobody waits for any more: 0 is the last that was given up.
    LateWrite { write: usize },
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    DoneButError,
    DoneButSilent,
    /// Not done, and S3 says so.
    Refused,
    /// Not done: another write is under way.
    Conflict,
    /// It never reaches S3.
    Lost,
    /// It reaches S3 after its sender stopped waiting.
    Late,
    /// The same, and it was the last that the invocation had time for.
    LateAndTimeIsUp,
}

impl History {
    /// What is left of it when nothing more can be left out: proptest tries to remove each step once, but one may become
    /// needless when a later one is gone.
    pub(crate) fn shortest(mut self, still_fails: impl Fn(&Self) -> bool) -> Self {
        loop {
            let shorter = self.shorter().find(&still_fails);
            match shorter {
                Some(shorter) => self = shorter,
                None => return self,
            }
        }
    }

    fn shorter(&self) -> impl Iterator<Item = Self> {
        let without_step = (0..self.steps.len()).map(|at| {
            let mut shorter = self.clone();
            shorter.steps.remove(at);
            shorter
        });
        let without_arrival = (0..self.arrivals.len()).map(|at| {
            let mut shorter = self.clone();
            shorter.arrivals.remove(at);
            shorter
        });
        without_step.chain(without_arrival)
    }
}

impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (record, arrival) in self.arrivals.iter().enumerate() {
            writeln!(formatter, "record {record}: {arrival:?}")?;
        }
        self.steps.iter().try_for_each(|step| writeln!(formatter, "{step:?}"))
    }
}

pub(crate) fn histories() -> impl Strategy<Value = History> {
    (arrivals(), prop::collection::vec(steps(), 1..60)).prop_map(|(arrivals, steps)| History { arrivals, steps })
}

fn steps() -> impl Strategy<Value = Step> {
    use Failure::{Conflict, DoneButError, DoneButSilent, Late, LateAndTimeIsUp, Lost, Refused};
    let failure =
        prop::sample::select(vec![Refused, Conflict, Lost, DoneButError, DoneButSilent, Late, LateAndTimeIsUp]);
    let attempt = 0..3usize;
    prop_oneof![
        4 => (1..=4usize, 0..=15u64, prop_oneof![3 => Just(0), 1 => 0..=LONGEST_START_S])
            .prop_map(|(records, later_s, start_s)| Step::Send { records, later_s, start_s }),
        8 => (attempt.clone(), 1..=3usize).prop_map(|(attempt, requests)| Step::Serve { attempt, requests }),
        6 => (attempt.clone(), failure).prop_map(|(attempt, failure)| Step::Fail { attempt, failure }),
        1 => attempt.prop_map(|attempt| Step::Crash { attempt }),
        3 => Just(Step::LoseAnswer),
        5 => (0..4usize).prop_map(|write| Step::LateWrite { write }),
    ]
}
