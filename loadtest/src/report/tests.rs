use rstest::rstest;

use super::*;
use crate::compare::Comparison;
use crate::result::tests::sample;
use crate::result::{Distribution, Outcome};
use crate::saved::Saved;

#[rstest]
#[case::pass(Outcome::Pass, "PASS", "Every threshold holds.")]
#[case::fail(Outcome::Fail, "FAIL", "1 of 2 thresholds do not hold.")]
#[case::invalid(Outcome::Invalid, "INVALID", "The generator fell behind")]
fn the_verdict_comes_first_in_words(#[case] outcome: Outcome, #[case] word: &str, #[case] words: &str) {
    let mut result = sample();
    result.verdict.outcome = outcome;
    result.verdict.invalid_because = vec!["lag p99 of 80 ms".into()];
    let page = of_run(&result);
    let before_the_plan = &page[..page.find("<h2>Plan</h2>").unwrap()];
    for text in [word, words, "p99&lt;50ms", "9 ms", "missing=0", "does not hold", "lag p99 of 80 ms"] {
        assert!(before_the_plan.contains(text), "{text} is not in {before_the_plan}");
    }
}

#[test]
fn charts_without_data_are_left_out() {
    let mut result = sample();
    let plots = |result: &RunResult| of_run(result).matches("<figure").count();
    assert_eq!(plots(&result), 7);
    result.system_metrics.clear();
    assert_eq!(plots(&result), 6);
    result.truth = None;
    assert_eq!(plots(&result), 5);
    result.latency = Distribution::default();
    assert_eq!(plots(&result), 3);
}

#[test]
fn a_metric_that_is_always_0_is_named_and_not_drawn() {
    let mut result = sample();
    result.system_metrics[0].points = vec![(1_795_219_200, 0.0), (1_795_219_260, 0.0)];
    let page = of_run(&result);
    assert_eq!(page.matches("<figure").count(), 6);
    assert!(page.contains("Always 0: Playhead LandedEvents (kinesis-to-s3-lambda)"));
}

#[test]
fn all_text_of_the_result_is_escaped() {
    let mut result = sample();
    let evil = "<script>alert('x')</script>\"&";
    let plan = &mut result.plan;
    for text in [&mut plan.run_id, &mut plan.url, &mut plan.rate, &mut plan.protocol, &mut plan.workload] {
        *text = evil.into();
    }
    result.posts.unanswered.insert(evil.into(), 1);
    result.verdict.invalid_because = vec![evil.into()];
    result.verdict.thresholds[0] = ThresholdOutcome { threshold: evil.into(), found: Some(evil.into()), holds: false };
    result.system_metrics[0].name = evil.into();
    result.system_metrics[0].statistic = evil.into();
    let truth = result.truth.as_mut().unwrap();
    truth.examples = vec![evil.into()];
    let saved = Saved::Run(Box::new(result.clone()));
    let comparison = Comparison::new(&saved, &saved, &[]).unwrap();
    let search = search_of(&result);
    for page in [of_run(&result), of_search(&search), of_comparison(&comparison)] {
        assert_eq!(page.matches("<script").count(), 3, "a tag of the result's got through");
        assert!(!page.contains("'x')</"));
        assert_eq!(page.matches("</script>").count(), 3);
    }
    let page = of_run(&result);
    // Each of the texts: the title and the heading have the run's id.
    assert_eq!(page.matches("&lt;script&gt;alert('x')&lt;/script&gt;&quot;&amp;").count(), 6 + 1 + 1 + 2 + 2 + 1);
}

fn search_of(result: &RunResult) -> FindMaxResult {
    let steps = vec![Step { rate: 50.0, result: result.clone() }];
    let (highest_passing, limit) = (Some(50.0), crate::find_max::Limit::None);
    let (from, to, step_seconds, lowest_not_passing) = (50.0, 50.0, 2.0, None);
    FindMaxResult { version: 1, from, to, step_seconds, highest_passing, lowest_not_passing, limit, steps }
}

/// The JSON in a page, as a browser reads it.
fn data(page: &str) -> serde_json::Value {
    let json = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_page_has_its_whole_result_as_json_and_says_when_it_ran() {
    let mut result = sample();
    result.plan.workload = "</script><script>alert(1)</script><!--".into();
    let page = of_run(&result);
    assert_eq!(data(&page)["runs"][0], serde_json::to_value(&result).unwrap());
    assert!(page.contains("started 2026-11-21T00:00:00"));
    let page = of_search(&search_of(&result));
    assert_eq!(data(&page)["search"]["steps"][0]["result"], serde_json::to_value(&result).unwrap());
    assert!(page.contains("started 2026-11-21T00:00:00"));
}

#[test]
fn a_page_fetches_nothing() {
    let page = of_run(&sample());
    for fetching in
        ["src=", "href=", "url(", "@import", "<link", "<img", "<iframe", "<object", "fetch(", "XMLHttpRequest"]
    {
        assert!(!page.contains(fetching), "{fetching}");
    }
}

#[test]
fn a_comparison_marks_what_differs() {
    let (a, mut b) = (sample(), sample());
    b.plan.rate = "99".into();
    let (a, b) = (Saved::Run(Box::new(a)), Saved::Run(Box::new(b)));
    let page = of_comparison(&Comparison::new(&a, &b, &[]).unwrap());
    assert_eq!(page.matches("<tr class=\"differs\">").count(), 1);
}
