//! Whether a run shows what it was to show: PASS, FAIL, or INVALID when it was the generator that could not.

use std::time::Duration;

use crate::result::{Outcome, RunResult, Verdict};
use crate::thresholds::Threshold;

/// Of all POSTs, how many may have waited for one of the connections: one in so many.
const HELD_BACK_ONE_IN: u64 = 1_000;

/// What beside the result speaks for or against the generator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conduct {
    /// How late behind its plan the generator may be, in 99 of 100 POSTs.
    pub(crate) max_lag: Duration,
    /// POSTs that left after the end, by more than this lag.
    pub(crate) sent_after_end: u64,
}

/// INVALID beats the others: what was measured is then not the system.
pub(crate) fn judge(result: &RunResult, thresholds: &[Threshold], conduct: &Conduct) -> Verdict {
    let mut invalid_because = invalid_because(result, conduct);
    invalid_because.extend(thresholds.iter().filter_map(|threshold| generator_s_own(threshold, result, conduct)));
    let thresholds: Vec<_> = thresholds.iter().map(|threshold| threshold.judge(result)).collect();
    let outcome = match () {
        () if !invalid_because.is_empty() => Outcome::Invalid,
        () if thresholds.iter().all(|threshold| threshold.holds) => Outcome::Pass,
        () => Outcome::Fail,
    };
    Verdict { outcome, thresholds, invalid_because }
}

/// A latency that may be too high because the generator was late: not in so many POSTs that its p99 would show it.
fn generator_s_own(threshold: &Threshold, result: &RunResult, conduct: &Conduct) -> Option<String> {
    let lag_us = threshold.same_of(&result.generator.lag)?;
    let is_late = lag_us > conduct.max_lag.as_micros() as f64 && !threshold.judge(result).holds;
    is_late.then(|| {
        format!("{threshold} does not hold, and the generator itself was {:.1} ms late there", lag_us / 1_000.0)
    })
}

fn invalid_because(result: &RunResult, conduct: &Conduct) -> Vec<String> {
    let mut reasons = Vec::new();
    let (generator, planned) = (&result.generator, result.posts.planned);
    if u128::from(generator.lag.p99_us) > conduct.max_lag.as_micros() {
        let (p99, allowed) = (ms(generator.lag.p99_us), conduct.max_lag.as_millis());
        reasons.push(format!(
            "it was {p99} ms behind its plan in one of 100 POSTs, and {allowed} ms are allowed (--max-lag)"
        ));
    }
    if conduct.sent_after_end > 0 {
        let late = conduct.sent_after_end;
        reasons.push(format!("{late} of {planned} POSTs had not left when the run should have been over"));
    }
    if let Some(not_sent) = result.posts.unanswered.get("not_sent") {
        reasons.push(format!("{not_sent} of {planned} POSTs were not sent at all"));
    }
    if generator.held_back * HELD_BACK_ONE_IN > planned {
        reasons.push(format!(
            "{} of {planned} POSTs waited because all of {} connections were busy (--max-connections)",
            generator.held_back, result.plan.max_connections
        ));
    }
    if !reasons.is_empty() {
        reasons.push(machine(result));
    }
    reasons
}

/// So that a person sees whether the machine was too small.
fn machine(result: &RunResult) -> String {
    let generator = &result.generator;
    format!(
        "it used {:.2} cores, and was ready to run but without a CPU for {:.2} of {:.0} seconds",
        generator.cores_used, generator.run_queue_seconds, result.plan.duration_seconds
    )
}

/// With one digit after the point.
fn ms(us: u64) -> String {
    format!("{}.{}", us / 1_000, us % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::thresholds::parse;
    use rstest::rstest;

    const CONDUCT: Conduct = Conduct { max_lag: Duration::from_millis(20), sent_after_end: 0 };

    fn outcome(result: &RunResult, thresholds: &str, conduct: &Conduct) -> (Outcome, usize) {
        let verdict = judge(result, &parse(thresholds).unwrap(), conduct);
        (verdict.outcome, verdict.invalid_because.len())
    }

    /// As it comes, the sample's generator was well, and its p99 is 9 ms.
    #[rstest]
    #[case("p99<10ms", Outcome::Pass)]
    #[case("p99<10ms,p50<1s", Outcome::Pass)]
    #[case("p99<10ms,p50<1us", Outcome::Fail)]
    #[case("", Outcome::Pass)]
    fn all_thresholds_must_hold(#[case] thresholds: &str, #[case] expected: Outcome) {
        assert_eq!(outcome(&sample(), thresholds, &CONDUCT), (expected, 0));
    }

    #[rstest]
    #[case(20_000, false)]
    #[case(20_001, true)]
    fn a_generator_that_lags_is_not_believed(#[case] lag_us: u64, #[case] is_invalid: bool) {
        let mut result = sample();
        result.generator.lag.p99_us = lag_us;
        for thresholds in ["p99<1s", "p99<1us"] {
            let invalid = outcome(&result, thresholds, &CONDUCT).0 == Outcome::Invalid;
            assert_eq!(invalid, is_invalid);
        }
    }

    #[rstest]
    #[case(1, false)]
    #[case(2, true)]
    fn few_may_be_held_back(#[case] held_back: u64, #[case] is_invalid: bool) {
        let mut result = sample();
        result.posts.planned = 1_000;
        result.generator.held_back = held_back;
        assert_eq!(outcome(&result, "p99<1s", &CONDUCT).0 == Outcome::Invalid, is_invalid);
    }

    /// Late in few POSTs, which its p99 does not show.
    #[rstest]
    #[case("max<1us", Outcome::Invalid)]
    #[case("max<1h", Outcome::Pass)]
    #[case("p50<1us", Outcome::Fail)]
    fn the_generator_s_own_lateness_is_not_held_against_the_system(
        #[case] thresholds: &str,
        #[case] expected: Outcome,
    ) {
        let mut result = sample();
        (result.generator.lag.count, result.generator.lag.max_us) = (1_000, 500_000);
        assert_eq!(outcome(&result, thresholds, &CONDUCT).0, expected);
    }

    #[test]
    fn all_must_have_been_sent_by_the_end() {
        assert_eq!(outcome(&sample(), "p99<1s", &Conduct { sent_after_end: 1, ..CONDUCT }), (Outcome::Invalid, 2));
        let mut result = sample();
        result.posts.unanswered.insert("not_sent".into(), 1);
        assert_eq!(outcome(&result, "p99<1s", &CONDUCT), (Outcome::Invalid, 2));
    }
}
