//! Which faults fire, and how often.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use strum::{EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

/// Something that goes wrong in the one-machine stack on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumIter, EnumString, IntoStaticStr)]
pub enum Fault {
    /// `PutRecords` stores the entries of some partition keys and refuses the others, as a hot shard does.
    #[strum(serialize = "kinesis.partial")]
    KinesisPartial,
    /// `PutRecords` is throttled as a whole.
    #[strum(serialize = "kinesis.throttled")]
    KinesisThrottled,
    /// `PutRecords` fails with 500.
    #[strum(serialize = "kinesis.error")]
    KinesisError,
    /// `PutRecords` takes up to two seconds.
    #[strum(serialize = "kinesis.slow")]
    KinesisSlow,
    /// `PutRecords` stores everything and answers when ingest has given up waiting.
    #[strum(serialize = "kinesis.late")]
    KinesisLate,
    /// `PutRecords` stores everything, and the connection breaks before the answer.
    #[strum(serialize = "kinesis.unanswered")]
    KinesisUnanswered,
    /// Ingest is killed when its `PutRecords` arrives, which is lost or not.
    #[strum(serialize = "kinesis.kill")]
    KinesisKill,
    /// S3 answers 503 `SlowDown`.
    #[strum(serialize = "s3.slow-down")]
    S3SlowDown,
    /// S3 answers 500.
    #[strum(serialize = "s3.error")]
    S3Error,
    /// S3 answers a write with 409: another write of the key is under way.
    #[strum(serialize = "s3.conflict")]
    S3Conflict,
    /// S3 takes up to six seconds.
    #[strum(serialize = "s3.slow")]
    S3Slow,
    /// S3 does what it is asked, and the connection breaks before the answer.
    #[strum(serialize = "s3.unanswered")]
    S3Unanswered,
    /// The connection breaks, and the write takes place up to fifteen seconds later.
    #[strum(serialize = "s3.late")]
    S3Late,
    /// The landing function is killed when its write arrives, which is lost.
    #[strum(serialize = "s3.kill-before")]
    S3KillBefore,
    /// The landing function is killed when its write arrives, which takes place up to fifteen seconds later.
    #[strum(serialize = "s3.kill-during")]
    S3KillDuring,
    /// The landing function is killed when its write is done, before the answer.
    #[strum(serialize = "s3.kill-after")]
    S3KillAfter,
    /// The event source mapping forgets a batch that it handed over, and sends a shorter or a longer one from the same
    /// record while the function may still be at work.
    #[strum(serialize = "mapping.restart")]
    MappingRestart,
    /// A shard is split. The probability is that of a second.
    #[strum(serialize = "shard.split")]
    ShardSplit,
    /// Two shards are merged. The probability is that of a second.
    #[strum(serialize = "shard.merge")]
    ShardMerge,
}

impl Fault {
    /// The name in `FAULTS`, in counts and in the journal.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The probability of each fault, and the seed that draws them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub seed: u64,
    rates: BTreeMap<Fault, f64>,
}

impl Plan {
    pub fn rate(&self, fault: Fault) -> f64 {
        self.rates.get(&fault).copied().unwrap_or(0.0)
    }

    pub fn is_active(&self) -> bool {
        !self.rates.is_empty()
    }

    fn set(&mut self, fault: Fault, rate: f64) {
        if rate > 0.0 {
            self.rates.insert(fault, rate);
        } else {
            self.rates.remove(&fault);
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}", self.seed)?;
        self.rates.iter().try_for_each(|(fault, rate)| write!(f, " {}={rate}", fault.name()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("{0:?} is not NAME=PROBABILITY")]
    NotAPair(String),
    #[error("the probability of {name} is {value:?}; it takes a number from 0 to 1")]
    Probability { name: String, value: String },
    #[error("the seed is {0:?}; it takes a whole number")]
    Seed(String),
    #[error("there is no fault {name:?}; it takes all, {known}", known = names())]
    Unknown { name: String },
}

fn names() -> String {
    Fault::iter().map(Fault::name).collect::<Vec<_>>().join(", ")
}

impl FromStr for Plan {
    type Err = PlanError;

    /// `seed=1 all=0.01 s3.slow=0.1`: what comes later overrides what came earlier.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        for pair in text.split_whitespace() {
            let (name, value) = pair.split_once('=').ok_or_else(|| PlanError::NotAPair(pair.to_owned()))?;
            if name == "seed" {
                plan.seed = value.parse().map_err(|_| PlanError::Seed(value.to_owned()))?;
                continue;
            }
            let faults = match (name, name.parse().ok()) {
                ("all", _) => Fault::iter().collect(),
                (_, Some(fault)) => vec![fault],
                (_, None) => return Err(PlanError::Unknown { name: name.to_owned() }),
            };
            let rate = value.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
            let rate = rate.ok_or_else(|| PlanError::Probability { name: name.into(), value: value.into() })?;
            faults.into_iter().for_each(|fault| plan.set(fault, rate));
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn later_pairs_override_earlier_ones() {
        let plan: Plan = " all=0.5 s3.slow=0\nkinesis.error=1 seed=7 ".parse().unwrap();
        assert_eq!((plan.seed, plan.rate(Fault::S3Slow), plan.rate(Fault::KinesisError)), (7, 0.0, 1.0));
        assert!((plan.rate(Fault::ShardMerge) - 0.5).abs() < f64::EPSILON);
        assert_eq!(plan.to_string().parse::<Plan>(), Ok(plan));
        assert!(!"seed=3".parse::<Plan>().unwrap().is_active());
    }

    #[rstest]
    #[case("s3.slow", "NAME=PROBABILITY")]
    #[case("s3.slow=2", "s3.slow")]
    #[case("s3.slow=NaN", "s3.slow")]
    #[case("s3.slwo=1", "s3.slow-down")]
    #[case("seed=x", "seed")]
    fn errors_in_a_plan_are_named(#[case] text: &str, #[case] named: &str) {
        let problem = text.parse::<Plan>().unwrap_err().to_string();
        assert!(problem.contains(named), "{problem}");
    }

    #[test]
    fn names_are_distinct_and_found() {
        for fault in Fault::iter() {
            assert_eq!(fault.name().parse().ok(), Some(fault));
        }
    }
}
