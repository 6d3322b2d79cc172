//! `PutMetricData`.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>

use serde::Deserialize;
use shared::timestamp::UnixMillis;

use super::request::{CloudWatchError, Dimension, Result};
use crate::metric_store::{MetricId, MetricStore, Sample};

/// CloudWatch's own limits.
const MAX_METRICS: usize = 1_000;
const MAX_VALUES: usize = 150;
const MAX_DIMENSIONS: usize = 30;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Input {
    namespace: Option<String>,
    #[serde(default)]
    metric_data: Vec<Datum>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Datum {
    metric_name: Option<String>,
    #[serde(default)]
    dimensions: Vec<Dimension>,
    timestamp: Option<f64>,
    value: Option<f64>,
    statistic_values: Option<StatisticSet>,
    values: Option<Vec<f64>>,
    counts: Option<Vec<f64>>,
    unit: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StatisticSet {
    sample_count: f64,
    sum: f64,
    minimum: f64,
    maximum: f64,
}

/// Keeps the data; none of them when one can't be read.
pub(super) fn put_metric_data(store: &MetricStore, input: Input) -> Result<()> {
    let namespace = input.namespace.filter(|name| !name.is_empty()).ok_or(CloudWatchError::Missing("Namespace"))?;
    if namespace.starts_with("AWS/") {
        return Err(CloudWatchError::Value("a Namespace that starts with AWS/ is reserved".into()));
    }
    let data = input.metric_data;
    if data.is_empty() {
        return Err(CloudWatchError::Missing("MetricData"));
    }
    if data.len() > MAX_METRICS {
        return Err(CloudWatchError::Value(format!("MetricData holds more than {MAX_METRICS} metrics")));
    }
    let read = |datum: Datum| {
        let sample = datum.sample()?;
        let at = datum.timestamp.map_or_else(|| store.now(), UnixMillis::from_seconds);
        let unit = datum.unit.clone();
        Ok((datum.id(&namespace)?, unit, at, sample))
    };
    let data: Vec<_> = data.into_iter().map(read).collect::<Result<_>>()?;
    for (id, unit, at, sample) in data {
        store.record(&id, unit.as_deref(), at, sample)?;
    }
    Ok(())
}

impl Datum {
    fn id(self, namespace: &str) -> Result<MetricId> {
        let name = self.metric_name.filter(|name| !name.is_empty()).ok_or(CloudWatchError::Missing("MetricName"))?;
        if self.dimensions.len() > MAX_DIMENSIONS {
            return Err(CloudWatchError::Value(format!("{name} has more than {MAX_DIMENSIONS} dimensions")));
        }
        if let Some(dimension) = self.dimensions.iter().find(|one| one.name.is_empty() || one.value.is_empty()) {
            return Err(CloudWatchError::Value(format!("{name}: the dimension {:?} is empty", dimension.name)));
        }
        let dimensions = self.dimensions.into_iter().map(|one| (one.name, one.value)).collect();
        Ok(MetricId { namespace: namespace.to_owned(), name, dimensions })
    }

    fn sample(&self) -> Result<Sample> {
        let sample = match (self.value, &self.statistic_values, &self.values) {
            (Some(value), None, None) => Sample::of(value),
            (None, Some(set), None) => {
                Sample { sum: set.sum, count: set.sample_count, min: set.minimum, max: set.maximum }
            }
            (None, None, Some(values)) => repeated(values, self.counts.as_deref())?,
            _ => return Err(CloudWatchError::Value("a metric takes one of Value, StatisticValues and Values".into())),
        };
        let numbers = [sample.sum, sample.count, sample.min, sample.max];
        if numbers.iter().all(|number| number.is_finite()) && sample.count > 0.0 {
            Ok(sample)
        } else {
            Err(CloudWatchError::Value("values must be finite, and counts above 0".into()))
        }
    }
}

fn repeated(values: &[f64], counts: Option<&[f64]>) -> Result<Sample> {
    let ones = vec![1.0; values.len()];
    let counts = counts.unwrap_or(&ones);
    if values.len() > MAX_VALUES || values.len() != counts.len() {
        return Err(CloudWatchError::Value(format!("Values takes at most {MAX_VALUES}, and Counts as many")));
    }
    let samples = values.iter().zip(counts).map(|(value, count)| Sample::repeated(*value, *count));
    samples.reduce(Sample::and).ok_or(CloudWatchError::Missing("Values"))
}

#[cfg(test)]
mod tests {
    use super::super::request::{read, with_values};
    use super::*;
    use crate::metric_store::minute_of;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn put(store: &MetricStore, datum: &Value) -> Result<()> {
        put_metric_data(store, read(json!({"Namespace": "Playhead", "MetricData": [datum]})).unwrap())
    }

    #[rstest]
    #[case::value(json!({"Value": 3}), Sample::of(3.0))]
    #[case::set(
        json!({"StatisticValues": {"SampleCount": 2, "Sum": 5, "Minimum": 1, "Maximum": 4}}),
        Sample { sum: 5.0, count: 2.0, min: 1.0, max: 4.0 }
    )]
    #[case::values(json!({"Values": [1, 4]}), Sample { sum: 5.0, count: 2.0, min: 1.0, max: 4.0 })]
    #[case::counts(json!({"Values": [1, 4], "Counts": [3, 1]}), Sample { sum: 7.0, count: 4.0, min: 1.0, max: 4.0 })]
    fn every_form_of_values_is_accepted(#[case] mut datum: Value, #[case] expected: Sample) {
        let (store, _) = with_values(&[]);
        datum["MetricName"] = json!("TotalEvents");
        datum["Unit"] = json!("Count");
        datum["Timestamp"] = json!(60_060.5);
        datum["Dimensions"] = json!([{"Name": "B", "Value": "b"}, {"Name": "A", "Value": "a"}]);
        put(&store, &datum).unwrap();
        let id = MetricId::new("Playhead", "TotalEvents", &[("A", "a"), ("B", "b")]);
        assert_eq!(store.minutes(&id, 0, i64::MAX), Some((Some("Count".into()), vec![(1001, expected)])));
    }

    #[test]
    fn without_a_time_it_is_now() {
        let (store, _) = with_values(&[]);
        put(&store, &json!({"MetricName": "A", "Value": 1})).unwrap();
        let minutes = store.minutes(&MetricId::new("Playhead", "A", &[]), 0, i64::MAX).unwrap().1;
        assert!(minutes[0].0 <= minute_of(store.now()));
    }

    #[rstest]
    #[case::no_name(json!({"Value": 1}), "MissingParameter")]
    #[case::no_value(json!({"MetricName": "A"}), "InvalidParameterValue")]
    #[case::two_values(json!({"MetricName": "A", "Value": 1, "Values": [1]}), "InvalidParameterValue")]
    #[case::counts(json!({"MetricName": "A", "Values": [1], "Counts": [1, 2]}), "InvalidParameterValue")]
    #[case::no_count(json!({"MetricName": "A", "Values": [1], "Counts": [0]}), "InvalidParameterValue")]
    #[case::many_values(json!({"MetricName": "A", "Values": vec![1; MAX_VALUES + 1]}), "InvalidParameterValue")]
    #[case::old(json!({"MetricName": "A", "Value": 1, "Timestamp": -2_000_000}), "InvalidParameterValue")]
    #[case::dimension(
        json!({"MetricName": "A", "Value": 1, "Dimensions": [{"Name": "A", "Value": ""}]}),
        "InvalidParameterValue"
    )]
    fn data_that_cloudwatch_refuses_are_refused(#[case] datum: Value, #[case] code: &str) {
        let (store, _) = with_values(&[]);
        assert_eq!(put(&store, &datum).unwrap_err().code(), code);
        assert!(store.list(|_| true).is_empty());
    }

    #[rstest]
    #[case("AWS/Lambda", 1, false)]
    #[case("Playhead", MAX_METRICS, true)]
    #[case("Playhead", MAX_METRICS + 1, false)]
    #[case("Playhead", 0, false)]
    fn requests_have_their_limits(#[case] namespace: &str, #[case] metrics: usize, #[case] taken: bool) {
        let (store, _) = with_values(&[]);
        let data = vec![json!({"MetricName": "A", "Value": 1}); metrics];
        let input = read(json!({"Namespace": namespace, "MetricData": data})).unwrap();
        assert_eq!(put_metric_data(&store, input).is_ok(), taken);
    }
}
