use rstest::rstest;

use super::*;
use crate::result::tests::sample;
use crate::thresholds::{as_ratio, parse};

fn compared(a: &RunResult, b: &RunResult, limits: &[&str]) -> (String, ExitCode) {
    let limits = parse(&limits.join("\n"), as_ratio).unwrap();
    let (a, b) = (Saved::Run(Box::new(a.clone())), Saved::Run(Box::new(b.clone())));
    let comparison = Comparison::new(&a, &b, &limits).unwrap();
    (comparison.text(), comparison.exit_code())
}

fn text(a: &RunResult, b: &RunResult) -> String {
    compared(a, b, &[]).0
}

fn line_of<'t>(text: &'t str, label: &str) -> Vec<&'t str> {
    let line = text.lines().find(|line| line.starts_with(label));
    line.map(|line| line[30..].split("  ").map(str::trim).filter(|word| !word.is_empty()).collect()).unwrap_or_default()
}

#[test]
fn figures_are_side_by_side_with_their_ratio() {
    let (a, mut b) = (sample(), sample());
    b.latency.p99_us = a.latency.p99_us * 3;
    b.generator.held_back = 5;
    let text = text(&a, &b);
    assert_eq!(line_of(&text, "p99 "), ["9 ms", "27 ms", "3.00"]);
    // 5 is not a multiple of 0.
    assert_eq!(line_of(&text, "POSTs held back"), ["0", "5"]);
    assert!(!text.contains("different plans") && !text.contains("INVALID") && !text.contains("differs"), "{text}");
}

#[test]
fn different_plans_are_named_and_what_differs_is_marked() {
    let (a, mut b) = (sample(), sample());
    b.plan.rate = "99".into();
    b.plan.run_id = "other".into();
    let text = text(&a, &b);
    assert!(text.contains("These were different plans; what differs: rate."), "{text}");
    assert_eq!(line_of(&text, "rate"), ["50 POSTs a second", "99 POSTs a second", "differs"]);
}

#[test]
fn an_invalid_run_is_named() {
    let (a, mut b) = (sample(), sample());
    b.verdict.outcome = Outcome::Invalid;
    b.verdict.invalid_because = vec!["lag p99 of 80 ms".into()];
    assert!(text(&a, &b).contains("B is INVALID, so its numbers are not the system's: lag p99 of 80 ms"));
    assert!(text(&b, &a).contains("A is INVALID"));
}

#[test]
fn figures_known_for_one_run_only_are_shown() {
    let (a, mut b) = (sample(), sample());
    b.truth = None;
    assert_eq!(line_of(&text(&a, &b), "missing"), ["1", "not known"]);
    assert_eq!(line_of(&text(&b, &a), "missing"), ["not known", "1"]);
}

/// B's p99 is 1.5 times A's, it has no errors where A has 1 of 100, and misses 1 event like A.
#[rstest]
#[case::none(&[], 0)]
#[case::within(&["p99<=1.5"], 0)]
#[case::beyond(&["p99<1.5"], 1)]
#[case::percentage(&["p99<149%"], 1)]
#[case::one_of_two(&["p99<2", "missing<1"], 1)]
#[case::unchanged(&["missing<=1,doubled<=1"], 0)]
#[case::from_nothing(&["unknown<=1"], 1)]
#[case::to_nothing(&["errors<=1"], 0)]
#[case::of_no_bucket(&["landed_p99<1000"], 1)]
fn limits_of_the_ratio_decide_the_exit_code(#[case] limits: &[&str], #[case] expected: u8) {
    let (mut a, mut b) = (sample(), sample());
    b.latency.p99_us = a.latency.p99_us * 3 / 2;
    b.posts.unexpected.clear();
    (a.events.unknown, b.events.unknown) = (0, 1);
    if limits == ["landed_p99<1000"] {
        b.truth = None;
    }
    assert_eq!(compared(&a, &b, limits).1, ExitCode::from(expected));
}

#[test]
fn an_invalid_run_meets_no_limit() {
    let (a, mut b) = (sample(), sample());
    b.verdict.outcome = Outcome::Invalid;
    assert_eq!(compared(&a, &b, &["p99<2"]).1, ExitCode::from(3));
    assert_eq!(compared(&a, &b, &[]).1, ExitCode::SUCCESS);
}
