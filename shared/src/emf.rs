//! CloudWatch's embedded metric format: a log line that CloudWatch turns into metrics, with no call of its own.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! Written here because it is one line of JSON with a fixed shape. The `metrique` crate, which was looked at, brings a
//! queue, a sink and macros for what is two dozen numbers at the end of an invocation. It is streamed from what it is made
//! of: a tree of values would cost more than the rest of a small request.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::metric::{Metric, NAMESPACE};
use crate::timestamp::UnixMillis;

const FUNCTION_NAME: &str = "FunctionName";
/// As AWS calls the dimension of its own metrics that tells a function's versions apart.
const EXECUTED_VERSION: &str = "ExecutedVersion";
/// Whose write key a request named.
pub const APP: &str = "App";
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-versions.html>
const UNPUBLISHED: &str = "$LATEST";
/// Which rule of a schema was broken.
const RULE: &str = "Rule";

/// One line, without a line feed, with each metric once, under the dimension `FunctionName`. The members of `properties`
/// are logged with the metrics and can be searched for, but are not metrics.
///
/// CloudWatch takes at most 100 metrics in a line; there are fewer in all.
#[must_use]
pub fn line(time: UnixMillis, function_name: &str, values: &[(Metric, u64)], properties: &[(&str, &str)]) -> String {
    Line { time, function_name, beside: None, values, properties }.text()
}

/// One line, as [`line`] writes it, of what requests of one app counted, under the dimensions `FunctionName` and `App`: metrics
/// of their own beside those of all apps.
#[must_use]
pub fn line_of_app(
    time: UnixMillis,
    function_name: &str,
    app: &str,
    values: &[(Metric, u64)],
    properties: &[(&str, &str)],
) -> String {
    Line { time, function_name, beside: Some((APP, app)), values, properties }.text()
}

/// One line with a metric of one version of a function, under the dimensions `FunctionName` and `ExecutedVersion`: what the
/// alarms of a canary watch (template.yaml). `None` for what is not published, and so never rolled out.
#[must_use]
pub fn line_of_version(time: UnixMillis, function_name: &str, version: &str, value: (Metric, u64)) -> Option<String> {
    let beside = Some((EXECUTED_VERSION, version));
    let line = Line { time, function_name, beside, values: &[value], properties: &[] };
    (version != UNPUBLISHED).then(|| line.text())
}

/// One line with a metric of one rule, under the dimensions `FunctionName` and `Rule`. CloudWatch takes ASCII alone in a dimension.
#[must_use]
pub fn line_of_rule(
    time: UnixMillis,
    function_name: &str,
    rule: &str,
    value: (Metric, u64),
    properties: &[(&str, &str)],
) -> String {
    Line { time, function_name, beside: Some((RULE, rule)), values: &[value], properties }.text()
}

struct Line<'a> {
    time: UnixMillis,
    function_name: &'a str,
    /// The dimension beside the name, with its value.
    beside: Option<(&'static str, &'a str)>,
    values: &'a [(Metric, u64)],
    properties: &'a [(&'a str, &'a str)],
}

impl Line<'_> {
    fn text(&self) -> String {
        #[allow(clippy::expect_used)]
        serde_json::to_string(self).expect("text and numbers have a JSON form")
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let dimensions: Vec<_> = [FUNCTION_NAME].into_iter().chain(self.beside.map(|(name, _)| name)).collect();
        let directive =
            Directive { namespace: NAMESPACE, dimensions: [&dimensions], metrics: Definitions(self.values) };
        map.serialize_entry("_aws", &Metadata { timestamp: self.time.0, cloud_watch_metrics: [directive] })?;
        map.serialize_entry(FUNCTION_NAME, self.function_name)?;
        self.beside.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        self.properties.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        self.values.iter().try_for_each(|(metric, value)| map.serialize_entry(metric.as_str(), value))?;
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata<'a> {
    timestamp: i64,
    cloud_watch_metrics: [Directive<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'static str,
    dimensions: [&'a [&'static str]; 1],
    metrics: Definitions<'a>,
}

struct Definitions<'a>(&'a [(Metric, u64)]);

impl Serialize for Definitions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let definition =
            |(metric, _): &(Metric, u64)| Definition { name: metric.as_str(), unit: metric.unit().as_str() };
        serializer.collect_seq(self.0.iter().map(definition))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    name: &'static str,
    unit: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn the_line_is_what_the_specification_asks_for() {
        let line = line(
            UnixMillis(1_795_253_528_006),
            "ingest-lambda",
            &[(Metric::AcceptedEvents, 19), (Metric::RequestBytes, 2897)],
            &[("request_id", "r-1")],
        );
        let expected = json!({
            "_aws": {
                "Timestamp": 1_795_253_528_006_i64,
                "CloudWatchMetrics": [{
                    "Namespace": "Playhead",
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [
                        {"Name": "AcceptedEvents", "Unit": "Count"},
                        {"Name": "RequestBytes", "Unit": "Bytes"},
                    ],
                }],
            },
            "FunctionName": "ingest-lambda",
            "request_id": "r-1",
            "AcceptedEvents": 19,
            "RequestBytes": 2897,
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn a_metric_of_a_version_has_both_dimensions() {
        let line = |version| line_of_version(UnixMillis(1), "ingest-lambda", version, (Metric::NotStoredEvents, 3));
        let expected = json!({
            "_aws": {
                "Timestamp": 1,
                "CloudWatchMetrics": [{
                    "Namespace": "Playhead",
                    "Dimensions": [["FunctionName", "ExecutedVersion"]],
                    "Metrics": [{"Name": "NotStoredEvents", "Unit": "Count"}],
                }],
            },
            "FunctionName": "ingest-lambda",
            "ExecutedVersion": "7",
            "NotStoredEvents": 3,
        });
        assert_eq!(serde_json::from_str::<Value>(&line("7").unwrap()).unwrap(), expected);
        assert_eq!(line("$LATEST"), None);
    }

    #[test]
    fn a_metric_of_a_rule_has_both_dimensions() {
        let value = (Metric::SchemaViolations, 4);
        let line = line_of_rule(UnixMillis(1), "ingest-lambda", "/required", value, &[("front_door", "server")]);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["FunctionName", "Rule"]]));
        assert_eq!((&line["Rule"], &line["SchemaViolations"]), (&json!("/required"), &json!(4)));
        assert_eq!(line["front_door"], "server");
    }

    #[test]
    fn all_metrics_fit_into_a_line() {
        assert!(Metric::all().count() <= 100);
    }

    proptest! {
        #[test]
        fn any_names_and_values_make_one_line(
            function_name in any::<String>(), request_id in any::<String>(), values in prop::collection::vec(any::<u64>(), 0..60),
        ) {
            let values: Vec<_> = Metric::all().zip(values).collect();
            let line = line(UnixMillis(0), &function_name, &values, &[("request_id", &request_id)]);
            prop_assert!(!line.contains(['\n', '\r']));
            let line: Value = serde_json::from_str(&line)?;
            prop_assert_eq!(line["FunctionName"].as_str(), Some(&*function_name));
            prop_assert_eq!(line["request_id"].as_str(), Some(&*request_id));
            let definitions = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().expect("a list");
            prop_assert_eq!(definitions.len(), values.len());
            for ((metric, value), definition) in values.iter().zip(definitions) {
                prop_assert_eq!(definition, &json!({"Name": metric.as_str(), "Unit": metric.unit().as_str()}));
                prop_assert_eq!(line[metric.as_str()].as_u64(), Some(*value));
            }
        }
    }
}
