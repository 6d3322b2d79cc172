//! Metrics in the functions' logs, in CloudWatch's embedded metric format.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use crate::metric_store::{MetricId, MetricStore, NotKept, Sample};

/// The format's limit for the values of one member.
const MAX_VALUES: usize = 100;

/// Landing measures these from records' arrival, in the stack's time, to the machine's time: where the two differ, so do these from
/// any latency.
const BETWEEN_CLOCKS: [&str; 2] = [Metric::LandingLatency.as_str(), Metric::BatchAge.as_str()];

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("it breaks the format: {0}")]
    Form(#[from] serde_json::Error),
    #[error("the member {0} is neither a number nor a list of up to {MAX_VALUES} numbers")]
    Values(String),
    #[error("the dimension {0} is not text")]
    Dimension(String),
    #[error("the metric {0} is not kept: {1}")]
    NotKept(String, NotKept),
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "_aws")]
    aws: Metadata,
    #[serde(flatten)]
    members: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    timestamp: i64,
    cloud_watch_metrics: Vec<Directive>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Directive {
    namespace: String,
    dimensions: Vec<Vec<String>>,
    metrics: Vec<Definition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    name: String,
    unit: Option<String>,
}

type Recorded = (MetricId, Option<String>, Sample);

/// The metrics of one line: each directive's metrics under each of its sets of dimensions.
fn read(line: &[u8]) -> Result<(UnixMillis, Vec<Recorded>), EmbeddedError> {
    let line: Line = serde_json::from_slice(line)?;
    let mut found = Vec::new();
    for directive in &line.aws.cloud_watch_metrics {
        for metric in &directive.metrics {
            // A metric that is defined and has no member has no value this time.
            let Some(value) = line.members.get(&metric.name) else { continue };
            let sample = sample(value).ok_or_else(|| EmbeddedError::Values(metric.name.clone()))?;
            for names in &directive.dimensions {
                let dimensions = dimensions(&line.members, names)?;
                let id = MetricId { namespace: directive.namespace.clone(), name: metric.name.clone(), dimensions };
                found.push((id, metric.unit.clone(), sample));
            }
        }
    }
    Ok((UnixMillis(line.aws.timestamp), found))
}

fn dimensions(members: &Map<String, Value>, names: &[String]) -> Result<BTreeMap<String, String>, EmbeddedError> {
    let dimension = |name: &String| match members.get(name).and_then(Value::as_str) {
        Some(value) => Ok((name.clone(), value.to_owned())),
        None => Err(EmbeddedError::Dimension(name.clone())),
    };
    names.iter().map(dimension).collect()
}

fn sample(value: &Value) -> Option<Sample> {
    match value {
        Value::Array(values) if values.len() <= MAX_VALUES => {
            let samples: Option<Vec<Sample>> = values.iter().map(|value| value.as_f64().map(Sample::of)).collect();
            samples?.into_iter().reduce(Sample::and)
        }
        value => value.as_f64().map(Sample::of),
    }
}

/// Whose time a function stamps its lines with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineTime {
    /// The stack's, which it has from the event that invoked it.
    Stack,
    /// The machine's, whatever the stack's clock shows.
    Machine,
}

/// Takes the metrics out of one function's lines.
#[derive(Clone)]
pub struct EmbeddedMetrics {
    store: MetricStore,
    times: LineTime,
}

impl EmbeddedMetrics {
    pub fn new(store: MetricStore, times: LineTime) -> Self {
        Self { store, times }
    }

    pub fn keep(&self, line: &[u8]) -> Result<(), EmbeddedError> {
        let (given, metrics) = read(line)?;
        let at = match self.times {
            LineTime::Stack => given,
            LineTime::Machine => self.store.clock().at(given),
        };
        let has_meaning = |name: &str| at == given || !BETWEEN_CLOCKS.contains(&name);
        for (id, unit, sample) in metrics.into_iter().filter(|(id, ..)| has_meaning(&id.name)) {
            let kept = self.store.record(&id, unit.as_deref(), at, sample);
            kept.map_err(|problem| EmbeddedError::NotKept(id.name, problem))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;
    use shared::emf;

    use crate::clock::Clock;
    use crate::metric_store::minute_of;

    #[test]
    fn the_functions_lines_are_read() {
        let time = UnixMillis(1_795_253_528_006);
        let values = [(Metric::AcceptedEvents, 19), (Metric::RequestBytes, 2897)];
        let line = emf::line(time, "ingest-lambda", &values, &[("request_id", "r-1")]);
        let (at, found) = read(line.as_bytes()).unwrap();
        let id = |name| MetricId::new("Playhead", name, &[("FunctionName", "ingest-lambda")]);
        assert_eq!(at, time);
        assert_eq!(
            found,
            [
                (id("AcceptedEvents"), Some("Count".into()), Sample::of(19.0)),
                (id("RequestBytes"), Some("Bytes".into()), Sample::of(2897.0)),
            ]
        );
    }

    const DAY_MS: i64 = 86_400_000;

    /// A clock that is so many days ahead of the machine's.
    fn days_ahead(days: i64) -> Clock {
        let now = lambda_setup::now();
        Clock::new(Some(format!("{} x1", UnixMillis(now.0 + days * DAY_MS).rfc3339()).parse().unwrap()), now)
    }

    /// The metrics that are kept of landing's line with this time, and the minutes that they are kept for.
    fn kept(clock: Clock, times: LineTime, line_time: UnixMillis) -> Vec<(String, i64)> {
        let store = MetricStore::new(clock);
        let values = [(Metric::LandedEvents, 7), (Metric::LandingLatency, 900), (Metric::BatchAge, 800)];
        let line = emf::line(line_time, "landing", &values, &[]);
        EmbeddedMetrics::new(store.clone(), times).keep(line.as_bytes()).unwrap();
        let mut ids = Vec::new();
        store.visit(|id, _| ids.push(id.clone()));
        let minute = |id: &MetricId| store.minutes(id, i64::MIN, i64::MAX).unwrap().1[0].0;
        ids.iter().map(|id| (id.name.clone(), minute(id))).collect()
    }

    #[rstest]
    #[case::behind(-2_000)]
    #[case::ahead(4_000)]
    fn a_line_in_machine_time_counts_in_the_minute_of_the_stack_without_latencies(#[case] days: i64) {
        let (clock, now) = (days_ahead(days), lambda_setup::now());
        let minute = minute_of(clock.at(now));
        assert_eq!(kept(clock, LineTime::Machine, now), [("LandedEvents".to_owned(), minute)]);
    }

    #[test]
    fn a_line_in_stack_time_counts_in_its_own_minute_even_near_machine_time() {
        let clock = days_ahead(10);
        let line_time = UnixMillis(clock.now().0 - 8 * DAY_MS);
        let kept = kept(clock, LineTime::Stack, line_time);
        assert_eq!(kept.len(), 3);
        assert!(kept.iter().all(|(_, minute)| *minute == minute_of(line_time)), "{kept:?}");
    }

    #[test]
    fn landing_latencies_are_kept_when_the_stack_runs_on_machine_time() {
        let now = lambda_setup::now();
        assert_eq!(kept(Clock::new(None, now), LineTime::Machine, now).len(), 3);
    }

    #[test]
    fn every_directive_and_every_set_of_dimensions_counts() {
        let line = json!({
            "_aws": {"Timestamp": 1, "CloudWatchMetrics": [
                {"Namespace": "N", "Dimensions": [["A"], ["A", "B"], []], "Metrics": [{"Name": "x"}, {"Name": "absent"}]},
                {"Namespace": "M", "Dimensions": [["B"]], "Metrics": [{"Name": "y", "StorageResolution": 1}]},
            ]},
            "A": "a", "B": "b", "x": [1, 2.5], "y": -3,
        });
        let (_, found) = read(line.to_string().as_bytes()).unwrap();
        let x = Sample { sum: 3.5, count: 2.0, min: 1.0, max: 2.5 };
        assert_eq!(
            found,
            [
                (MetricId::new("N", "x", &[("A", "a")]), None, x),
                (MetricId::new("N", "x", &[("A", "a"), ("B", "b")]), None, x),
                (MetricId::new("N", "x", &[]), None, x),
                (MetricId::new("M", "y", &[("B", "b")]), None, Sample::of(-3.0)),
            ]
        );
    }

    #[rstest]
    #[case::no_json("x")]
    #[case::no_metadata("{\"CloudWatchMetrics\":[]}")]
    #[case::no_number(
        "{\"_aws\":{\"Timestamp\":1,\"CloudWatchMetrics\":[{\"Namespace\":\"N\",\"Dimensions\":[[]],\"Metrics\":[{\"Name\":\"x\"}]}]},\"x\":\"1\"}"
    )]
    #[case::no_dimension(
        "{\"_aws\":{\"Timestamp\":1,\"CloudWatchMetrics\":[{\"Namespace\":\"N\",\"Dimensions\":[[\"A\"]],\"Metrics\":[{\"Name\":\"x\"}]}]},\"x\":1}"
    )]
    fn lines_that_break_the_format_are_errors(#[case] line: &str) {
        assert!(read(line.as_bytes()).is_err());
    }

    #[test]
    fn a_hundred_values_are_accepted_and_one_more_is_not() {
        assert_eq!(sample(&json!(vec![1; MAX_VALUES])).unwrap().count, 100.0);
        assert_eq!(sample(&json!(vec![1; MAX_VALUES + 1])), None);
        assert_eq!(sample(&json!([])), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".{0,200}") {
            let _outcome = read(line.as_bytes());
        }
    }
}
