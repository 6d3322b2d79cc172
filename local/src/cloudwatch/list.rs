//! `ListMetrics`.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html>

use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{Result, position};
use crate::metric_store::{MetricId, MetricStore};

/// Metrics on one page, as in CloudWatch.
const PAGE: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Input {
    namespace: Option<String>,
    metric_name: Option<String>,
    #[serde(default)]
    dimensions: Vec<Filter>,
    next_token: Option<String>,
}

/// A dimension that a metric must have, with any value when there is none.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    name: String,
    value: Option<String>,
}

impl Input {
    fn wants(&self, id: &MetricId) -> bool {
        let is = |wanted: &Option<String>, name: &String| wanted.as_ref().is_none_or(|wanted| wanted == name);
        let has = |filter: &Filter| id.dimensions.get(&filter.name).is_some_and(|value| is(&filter.value, value));
        is(&self.namespace, &id.namespace) && is(&self.metric_name, &id.name) && self.dimensions.iter().all(has)
    }
}

pub(super) fn list_metrics(store: &MetricStore, input: Input) -> Result<Value> {
    let from = position(input.next_token.as_deref())?;
    let found = store.list(|id| input.wants(id));
    let metrics: Vec<Value> = found.iter().skip(from).take(PAGE).map(metric).collect();
    let mut output = json!({"Metrics": metrics});
    if from + PAGE < found.len() {
        output["NextToken"] = json!((from + PAGE).to_string());
    }
    Ok(output)
}

fn metric(id: &MetricId) -> Value {
    let dimension = |(name, value): (&String, &String)| json!({"Name": name, "Value": value});
    let dimensions: Vec<Value> = id.dimensions.iter().map(dimension).collect();
    json!({"Namespace": id.namespace, "MetricName": id.name, "Dimensions": dimensions})
}

#[cfg(test)]
mod tests {
    use super::super::request::{read, with_values};
    use super::*;
    use crate::metric_store::Sample;
    use rstest::rstest;

    fn list(store: &MetricStore, input: Value) -> Value {
        list_metrics(store, read(input).unwrap()).unwrap()
    }

    #[rstest]
    #[case(json!({}), 2)]
    #[case(json!({"Namespace": "Playhead"}), 1)]
    #[case(json!({"MetricName": "AcceptedEvents", "Dimensions": [{"Name": "FunctionName"}]}), 1)]
    #[case(json!({"Dimensions": [{"Name": "FunctionName", "Value": "f"}]}), 1)]
    #[case(json!({"Dimensions": [{"Name": "FunctionName", "Value": "g"}]}), 0)]
    #[case(json!({"Namespace": "None"}), 0)]
    fn metrics_are_found_by_what_handles(#[case] input: Value, #[case] count: usize) {
        let (store, _) = with_values(&[1.0]);
        store.record(&MetricId::new("Other", "X", &[]), None, store.now(), Sample::of(1.0)).unwrap();
        assert_eq!(list(&store, input)["Metrics"].as_array().unwrap().len(), count);
    }

    #[test]
    fn a_long_list_is_paged() {
        let (store, _) = with_values(&[]);
        for number in 0..=PAGE {
            store.record(&MetricId::new("N", &number.to_string(), &[]), None, store.now(), Sample::of(1.0)).unwrap();
        }
        let first = list(&store, json!({}));
        let second = list(&store, json!({"NextToken": first["NextToken"]}));
        let lengths = [&first, &second].map(|page| page["Metrics"].as_array().unwrap().len());
        assert_eq!((lengths, second.get("NextToken")), ([PAGE, 1], None));
    }
}
