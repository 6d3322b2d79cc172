//! All metrics as Prometheus reads them: the text exposition format.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>
//!
//! A CloudWatch metric becomes two. One is a summary without quantiles: `…_sum` and `…_count` grow from the stack's start
//! on, so that `rate(playhead_accepted_events_sum[5m])` is events a second and sum by count is the mean. The other is the
//! gauge `…_last`, the value of the newest time, for what is a state: sizes, ages, scores.

use std::collections::BTreeMap;

use heck::ToSnakeCase;
use strum::IntoEnumIterator;

use crate::metric_store::{MetricId, MetricStore, NotKept, Series};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Default)]
struct Family {
    unit: Option<String>,
    summary: String,
    last: String,
}

pub(crate) fn page(store: &MetricStore) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    store.visit(|id, series| {
        let name = metric_name(id);
        families.entry(name.clone()).or_default().add(&name, id, series);
    });
    let mut page = String::new();
    for (name, family) in &families {
        let unit = family.unit.as_deref().unwrap_or("None");
        page.push_str(&format!("# HELP {name} Values since the start, in CloudWatch's unit {unit}.\n"));
        page.push_str(&format!("# TYPE {name} summary\n{}", family.summary));
        if !family.last.is_empty() {
            page.push_str(&format!("# HELP {name}_last The newest value, in CloudWatch's unit {unit}.\n"));
            page.push_str(&format!("# TYPE {name}_last gauge\n{}", family.last));
        }
    }
    page.push_str(&dropped(&store.dropped()));
    page
}

impl Family {
    fn add(&mut self, name: &str, id: &MetricId, series: &Series) {
        let labels = labels(&id.dimensions);
        if self.unit.is_none() {
            self.unit.clone_from(&series.unit);
        }
        line(&mut self.summary, &format!("{name}_sum{labels}"), series.total.sum);
        line(&mut self.summary, &format!("{name}_count{labels}"), series.total.count);
        if let Some((_, last)) = series.last {
            line(&mut self.last, &format!("{name}_last{labels}"), last);
        }
    }
}

fn line(out: &mut String, name: &str, value: f64) {
    out.push_str(&format!("{name} {value}\n"));
}

fn dropped(counts: &BTreeMap<NotKept, u64>) -> String {
    let mut out =
        String::from("# HELP playhead_local_dropped_values_total Values that the local CloudWatch did not keep.\n");
    out.push_str("# TYPE playhead_local_dropped_values_total counter\n");
    for reason in NotKept::iter() {
        let (count, code): (_, &str) = (counts.get(&reason).copied().unwrap_or(0), reason.into());
        out.push_str(&format!("playhead_local_dropped_values_total{{reason=\"{code}\"}} {count}\n"));
    }
    out
}

/// `AWS/Kinesis` and `IncomingRecords` is `aws_kinesis_incoming_records`.
fn metric_name(id: &MetricId) -> String {
    let name = format!("{}_{}", id.namespace.to_snake_case(), id.name.to_snake_case());
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// `{function_name="ingest-lambda"}`; nothing when there are no dimensions.
fn labels(dimensions: &BTreeMap<String, String>) -> String {
    if dimensions.is_empty() {
        return String::new();
    }
    let label = |(name, value): (&String, &String)| format!("{}=\"{}\"", label_name(name), escaped(value));
    format!("{{{}}}", dimensions.iter().map(label).collect::<Vec<_>>().join(","))
}

/// A label name must not begin with a digit.
fn label_name(name: &str) -> String {
    let name = name.to_snake_case();
    if name.starts_with(|first: char| first.is_ascii_lowercase()) { name } else { format!("dimension_{name}") }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::metric_store::Sample;
    use rstest::rstest;

    #[test]
    fn a_metric_is_a_summary_and_a_gauge_of_its_last_value() {
        let store = MetricStore::new(Clock::new(None, lambda_setup::now()));
        let id = |function| MetricId::new("Playhead", "AcceptedEvents", &[("FunctionName", function)]);
        for (function, value) in [("a", 1.0), ("a", 2.5), ("b\"\\\n", 3.0)] {
            store.record(&id(function), Some("Count"), store.now(), Sample::of(value)).unwrap();
        }
        let page = page(&store);
        let expected = "\
# HELP playhead_accepted_events Values since the start, in CloudWatch's unit Count.
# TYPE playhead_accepted_events summary
playhead_accepted_events_sum{function_name=\"a\"} 3.5
playhead_accepted_events_count{function_name=\"a\"} 2
playhead_accepted_events_sum{function_name=\"b\\\"\\\\\\n\"} 3
playhead_accepted_events_count{function_name=\"b\\\"\\\\\\n\"} 1
# HELP playhead_accepted_events_last The newest value, in CloudWatch's unit Count.
# TYPE playhead_accepted_events_last gauge
playhead_accepted_events_last{function_name=\"a\"} 2.5
playhead_accepted_events_last{function_name=\"b\\\"\\\\\\n\"} 3
";
        assert!(page.starts_with(expected), "{page}");
        assert!(page.ends_with("playhead_local_dropped_values_total{reason=\"too_many_metrics\"} 0\n"), "{page}");
    }

    #[rstest]
    #[case("AWS/Kinesis", "IncomingRecords", "aws_kinesis_incoming_records")]
    #[case("AWS/Lambda", "Errors", "aws_lambda_errors")]
    #[case("Playhead", "RejectedInvalidBase64", "playhead_rejected_invalid_base64")]
    #[case("Playhead", "TotalFileSizeDifference", "playhead_total_file_size_difference")]
    #[case("My-App", "p99.Latency (ms)", "my_app_p99_latency_ms")]
    #[case("9", "HTTPErrors", "_9_http_errors")]
    fn names_are_snake_case(#[case] namespace: &str, #[case] name: &str, #[case] expected: &str) {
        assert_eq!(metric_name(&MetricId::new(namespace, name, &[])), expected);
    }

    #[test]
    fn label_names_are_what_prometheus_takes() {
        for (name, expected) in [("FunctionName", "function_name"), ("_x", "x"), ("1", "dimension_1")] {
            assert_eq!(label_name(name), expected);
        }
    }
}
