use std::collections::BTreeMap;

use super::*;

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
            unit: "Count".into(),
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
