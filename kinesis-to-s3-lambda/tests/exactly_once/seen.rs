//! What happened in the runs: a model in which nothing happens proves nothing.

use std::collections::BTreeMap;

use strum::EnumIter;

/// A thing that makes exactly-once hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumIter)]
pub(crate) enum Happening {
    Acknowledged,
    AnswerLost,
    SentAgainShorter,
    SentAgainLonger,
    TwoAtOnce,
    Crashed,
    GaveUp,
    Replaced,
    ConditionFailed,
    LateWriteDone,
    LateWriteRefused,
}

/// How often each happened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen(BTreeMap<Happening, u32>);

impl Seen {
    pub(crate) fn note(&mut self, happening: Happening) {
        *self.0.entry(happening).or_default() += 1;
    }

    pub(crate) fn times(&self, happening: Happening) -> u32 {
        self.0.get(&happening).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (happening, times) in &other.0 {
            *self.0.entry(*happening).or_default() += times;
        }
    }
}
