//! The verdict on a run: PASS, FAIL, or INVALID when the generator was the limit.

use std::time::Duration;

use crate::figures::Quantity;
use crate::result::{Outcome, RunResult, Verdict};
use crate::thresholds::Threshold;

/// One POST in this many may wait for a connection.
const HELD_BACK_ONE_IN: u64 = 1_000;

/// INVALID beats the others: the numbers are then not the system's.
/// `max_lag` is how late 99 of 100 POSTs may leave.
pub(crate) fn judge(result: &RunResult, thresholds: &[Threshold], max_lag: Duration) -> Verdict {
    let mut invalid_because = invalid_because(result, max_lag);
    invalid_because.extend(thresholds.iter().filter_map(|threshold| generators_fault(threshold, result, max_lag)));
    let thresholds: Vec<_> = thresholds.iter().map(|threshold| threshold.judge(result)).collect();
    let outcome = if !invalid_because.is_empty() {
        Outcome::Invalid
    } else if thresholds.iter().all(|threshold| threshold.holds) {
        Outcome::Pass
    } else {
        Outcome::Fail
    };
    Verdict { outcome, thresholds, invalid_because }
}

/// A latency that may be too high because the generator was late, in fewer POSTs than its p99 shows.
fn generators_fault(threshold: &Threshold, result: &RunResult, max_lag: Duration) -> Option<String> {
    let lag_us = threshold.latency_statistic()?(&result.generator.lag);
    let outcome = threshold.judge(result);
    let is_late = lag_us > max_lag.as_micros() as f64 && !outcome.holds;
    let lag = Quantity::Time.show(lag_us);
    is_late.then(|| format!("{} does not hold, and there the generator itself was {lag} late", outcome.threshold))
}

fn invalid_because(result: &RunResult, max_lag: Duration) -> Vec<String> {
    let mut reasons = Vec::new();
    let (generator, planned) = (&result.generator, result.posts.planned);
    if u128::from(generator.lag.p99_us) > max_lag.as_micros() {
        let (p99, allowed) = (Quantity::Time.show(generator.lag.p99_us as f64), max_lag.as_millis());
        reasons.push(format!("it was {p99} behind its plan in one of 100 POSTs; {allowed} ms are allowed (--max-lag)"));
    }
    if generator.sent_after_end > 0 {
        let late = generator.sent_after_end;
        reasons.push(format!("{late} of {planned} POSTs had not left when the run should have been over"));
    }
    if let Some(not_sent) = result.posts.unanswered.get("not_sent") {
        reasons.push(format!("{not_sent} of {planned} POSTs were never sent"));
    }
    if generator.held_back * HELD_BACK_ONE_IN > planned {
        let (waited, limit) = (generator.held_back, result.plan.max_connections);
        let busy = format!("because all {limit} connections were busy (--max-connections)");
        reasons.push(format!("{waited} of {planned} POSTs waited {busy}"));
    }
    if !reasons.is_empty() {
        // So that a person sees whether the machine was too small.
        reasons.push(format!(
            "it used {:.2} cores, and was ready to run but without a CPU for {:.2} of {:.0} seconds",
            generator.cores_used, generator.run_queue_seconds, result.plan.duration_seconds
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::sample;
    use crate::thresholds::tests::parsed;
    use rstest::rstest;

    const MAX_LAG: Duration = Duration::from_millis(20);

    fn outcome(result: &RunResult, thresholds: &str) -> (Outcome, usize) {
        let verdict = judge(result, &parsed(thresholds), MAX_LAG);
        (verdict.outcome, verdict.invalid_because.len())
    }

    /// As it comes, the sample's generator was well, and its p99 is 9 ms.
    #[rstest]
    #[case("p99<10ms", Outcome::Pass)]
    #[case("p99<10ms,p50<1s", Outcome::Pass)]
    #[case("p99<10ms,p50<1us", Outcome::Fail)]
    #[case("", Outcome::Pass)]
    fn all_thresholds_must_hold(#[case] thresholds: &str, #[case] expected: Outcome) {
        assert_eq!(outcome(&sample(), thresholds), (expected, 0));
    }

    #[rstest]
    #[case(20_000, false)]
    #[case(20_001, true)]
    fn a_run_whose_generator_lags_is_invalid(#[case] lag_us: u64, #[case] is_invalid: bool) {
        let mut result = sample();
        result.generator.lag.p99_us = lag_us;
        for thresholds in ["p99<1s", "p99<1us"] {
            let invalid = outcome(&result, thresholds).0 == Outcome::Invalid;
            assert_eq!(invalid, is_invalid);
        }
    }

    #[rstest]
    #[case(1, false)]
    #[case(2, true)]
    fn a_run_is_invalid_when_more_than_one_post_in_a_thousand_was_held_back(
        #[case] held_back: u64,
        #[case] is_invalid: bool,
    ) {
        let mut result = sample();
        result.posts.planned = 1_000;
        result.generator.held_back = held_back;
        assert_eq!(outcome(&result, "p99<1s").0 == Outcome::Invalid, is_invalid);
    }

    /// Late in few POSTs, which its p99 does not show.
    #[rstest]
    #[case("max<1us", Outcome::Invalid)]
    #[case("max<1h", Outcome::Pass)]
    #[case("p50<1us", Outcome::Fail)]
    fn the_lag_of_the_generator_does_not_count_against_the_system(#[case] thresholds: &str, #[case] expected: Outcome) {
        let mut result = sample();
        (result.generator.lag.count, result.generator.lag.max_us) = (1_000, 500_000);
        assert_eq!(outcome(&result, thresholds).0, expected);
    }

    #[test]
    fn a_run_is_invalid_unless_all_was_sent_by_the_end() {
        let mut result = sample();
        result.generator.sent_after_end = 1;
        assert_eq!(outcome(&result, "p99<1s"), (Outcome::Invalid, 2));
        let mut result = sample();
        result.posts.unanswered.insert("not_sent".into(), 1);
        assert_eq!(outcome(&result, "p99<1s"), (Outcome::Invalid, 2));
    }
}
