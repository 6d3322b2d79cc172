use std::collections::BTreeMap;

use rstest::rstest;

use super::*;
use crate::result::{Distribution, Events, Generator, MetricSeries, Second, ThresholdOutcome};

fn times() -> Distribution {
    Distribution {
        count: 100,
        mean_us: 2_000.0,
        p50_us: 1_000,
        p90_us: 4_000,
        p95_us: 5_000,
        p99_us: 9_000,
        p99_9_us: 20_000,
        p99_99_us: 20_000,
        max_us: 20_000,
        buckets: vec![(1_000, 60), (4_000, 30), (9_000, 9), (20_000, 1)],
    }
}

/// A run of two seconds with one of everything.
pub(crate) fn sample() -> RunResult {
    let second = Second {
        planned: 50,
        sent: 50,
        answered: 50,
        accepted_events: 50,
        p50_us: 1_000,
        p90_us: 4_000,
        p99_us: 9_000,
        p99_9_us: 20_000,
        max_us: 20_000,
        lag_p99_us: 80,
        ..Second::default()
    };
    RunResult {
        version: 1,
        plan: Plan {
            run_id: "sample".into(),
            seed: 1,
            url: "http://127.0.0.1:8080/events".into(),
            rate: "50".into(),
            duration_seconds: 2.0,
            protocol: "HTTP/1.1".into(),
            connections: 10,
            max_connections: 100,
            workload: "players, 1 event a POST".into(),
        },
        started_unix_ms: 1_795_219_200_000,
        posts: Posts {
            planned: 100,
            as_expected: 99,
            unexpected: BTreeMap::from([(503, 1)]),
            unanswered: BTreeMap::new(),
        },
        events: Events { sent: 100, accepted: 99, not_stored: 1, body_bytes: 40_000, ..Events::default() },
        latency: times(),
        service_time: times(),
        generator: Generator {
            lag: times(),
            cpu_seconds: 0.1,
            cores_used: 0.05,
            peak_rss_bytes: 9_000_000,
            connections_opened: 10,
            ..Generator::default()
        },
        seconds: vec![second; 2],
        truth: Some(Truth {
            expected: 99,
            landed: 98,
            missing: 1,
            examples: vec!["missing lt-sample-0000000007".into()],
            files: 3,
            end_to_end: times(),
            resolution_ms: 1,
            landed_by_second: vec![40, 90, 98],
            waited_seconds: 3.0,
            ..Truth::default()
        }),
        system_metrics: vec![MetricSeries {
            name: "Playhead LandedEvents (kinesis-to-s3-lambda)".into(),
            statistic: "Sum".into(),
            points: vec![(1_795_219_200, 98.0)],
        }],
        verdict: Verdict {
            outcome: Outcome::Fail,
            thresholds: vec![
                ThresholdOutcome { threshold: "p99<50ms".into(), found: Some("9 ms".into()), holds: true },
                ThresholdOutcome { threshold: "missing=0".into(), found: Some("1".into()), holds: false },
            ],
            invalid_because: Vec::new(),
        },
    }
}

#[rstest]
#[case::pass(Outcome::Pass, "PASS", "Every threshold holds.")]
#[case::fail(Outcome::Fail, "FAIL", "1 of 2 thresholds do not hold.")]
#[case::invalid(Outcome::Invalid, "INVALID", "The generator fell behind")]
fn the_verdict_comes_first_in_words(#[case] outcome: Outcome, #[case] word: &str, #[case] words: &str) {
    let mut result = sample();
    result.verdict.outcome = outcome;
    result.verdict.invalid_because = vec!["lag p99 of 80 ms".into()];
    let page = html(&result).unwrap();
    let before_the_plan = &page[..page.find("What was asked").unwrap()];
    for text in [word, words, "p99&lt;50ms", "9 ms", "missing=0", "does not hold", "lag p99 of 80 ms"] {
        assert!(before_the_plan.contains(text), "{text} is not in {before_the_plan}");
    }
}

#[test]
fn the_plots_are_there_and_those_without_data_are_not() {
    let mut result = sample();
    let plots = |result: &RunResult| html(result).unwrap().matches("<svg").count();
    assert_eq!(plots(&result), 7);
    result.system_metrics.clear();
    assert_eq!(plots(&result), 6);
    result.truth = None;
    assert_eq!(plots(&result), 5);
    result.latency = Distribution::default();
    assert_eq!(plots(&result), 3);
}

#[test]
fn a_metric_that_is_0_all_the_time_is_named_and_not_plotted() {
    let mut result = sample();
    result.system_metrics[0].points = vec![(1_795_219_200, 0.0), (1_795_219_260, 0.0)];
    let page = html(&result).unwrap();
    assert_eq!(page.matches("<svg").count(), 6);
    assert!(page.contains("0 all the time: Playhead LandedEvents (kinesis-to-s3-lambda)"));
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
    for page in [html(&result).unwrap(), crate::compare::html(&result, &result).unwrap()] {
        assert!(!page.contains("<script") && !page.contains("'x')</"), "a tag of the result's got through");
    }
    let page = html(&result).unwrap();
    // Each of the texts: the title and the heading have the run's id.
    assert_eq!(page.matches("&lt;script&gt;alert('x')&lt;/script&gt;&quot;&amp;").count(), 6 + 1 + 1 + 2 + 2 + 1);
}

#[test]
fn nothing_is_fetched() {
    let page = html(&sample()).unwrap();
    for fetching in ["src=", "href", "url(", "@import", "<link", "<script", "<img", "<iframe", "<object"] {
        assert!(!page.contains(fetching), "{fetching}");
    }
    // What is left are the name of SVG, which no browser fetches, and what was asked.
    let addresses = page.match_indices("://").map(|(place, _)| &page[place - 4..place + 20]);
    for address in addresses {
        assert!(
            ["http://www.w3.org/2000", "http://127.0.0.1:8080/"].iter().any(|known| address.contains(known)),
            "{address}"
        );
    }
}
