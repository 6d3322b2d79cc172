//! CloudWatch's embedded metric format: a log line that CloudWatch turns into metrics, with no call of its own.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! Written by hand because it is one line of JSON with a fixed shape. The `metrique` crate, which was looked at, brings a
//! queue, a sink and macros for what is a dozen numbers at the end of an invocation.

use serde_json::{Map, Value, json};

use crate::metric::{Metric, NAMESPACE};
use crate::timestamp::UnixMillis;

/// One line, without a line feed, with each metric once, under the dimension `FunctionName`. The members of `properties`
/// stand beside the metrics and can be searched for, but make no metric.
#[must_use]
pub fn line(time: UnixMillis, function_name: &str, values: &[(Metric, u64)], properties: &[(&str, &str)]) -> String {
    let metrics: Vec<Value> =
        values.iter().map(|(metric, _)| json!({"Name": metric.as_str(), "Unit": metric.unit().as_str()})).collect();
    let mut line = Map::new();
    line.insert(
        "_aws".into(),
        json!({
            "Timestamp": time.0,
            "CloudWatchMetrics": [
                {"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": metrics}
            ],
        }),
    );
    line.insert("FunctionName".into(), function_name.into());
    line.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    line.extend(values.iter().map(|(metric, value)| (metric.as_str().to_owned(), Value::from(*value))));
    Value::Object(line).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
