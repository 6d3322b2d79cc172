//! `GetMetricData` and `GetMetricStatistics`.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html>

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::timestamp::UnixMillis;

use super::request::{CloudWatchError, Dimension, Result, position};
use crate::metric_store::{MetricId, MetricStore, Sample, Statistic, minute_of};

/// CloudWatch's own limits.
const MAX_QUERIES: usize = 500;
const MAX_DATAPOINTS: usize = 100_800;
const MAX_STATISTICS_DATAPOINTS: usize = 1_440;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DataInput {
    #[serde(default)]
    metric_data_queries: Vec<Query>,
    start_time: f64,
    end_time: f64,
    next_token: Option<String>,
    scan_by: Option<String>,
    max_datapoints: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Query {
    id: String,
    metric_stat: Option<MetricStat>,
    label: Option<String>,
    return_data: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricStat {
    metric: Metric,
    period: i64,
    stat: String,
    unit: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    namespace: String,
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StatisticsInput {
    #[serde(flatten)]
    metric: Metric,
    start_time: f64,
    end_time: f64,
    period: i64,
    #[serde(default)]
    statistics: Vec<String>,
    #[serde(default)]
    extended_statistics: Vec<String>,
    unit: Option<String>,
}

fn statistic(name: &str) -> Result<Statistic> {
    let kept = "Sum, SampleCount, Average, Minimum and Maximum are";
    name.parse().map_err(|_| CloudWatchError::Value(format!("the statistic {name} is not kept locally; {kept}")))
}

/// Which minutes, in which groups.
#[derive(Debug, Clone, Copy)]
struct Periods {
    from: i64,
    to: i64,
    minutes: i64,
}

impl Periods {
    /// Periods of so many seconds, the first at the start's full minute; the end is left out.
    fn new(start: f64, end: f64, period: i64) -> Result<Self> {
        if period < 60 || period % 60 != 0 {
            return Err(CloudWatchError::Value(format!("the Period is {period} s; a multiple of 60 is kept locally")));
        }
        if start >= end {
            return Err(CloudWatchError::Value("StartTime must be before EndTime".into()));
        }
        let (from, minutes) = (minute_of(UnixMillis::from_seconds(start)), period / 60);
        // The minute that the end lies in belongs to the range when it began before the end.
        let end = UnixMillis::from_seconds(end);
        let to = minute_of(end) + i64::from(end.0.rem_euclid(60_000) != 0);
        Ok(Self { from, to, minutes })
    }

    /// The periods with data, by the second they begin at.
    fn of(self, store: &MetricStore, id: &MetricId, unit: Option<&str>) -> BTreeMap<i64, Sample> {
        let mut periods: BTreeMap<i64, Sample> = BTreeMap::new();
        let Some((kept_unit, minutes)) = store.minutes(id, self.from, self.to) else { return periods };
        if unit.is_some_and(|unit| unit != kept_unit.as_deref().unwrap_or("None")) {
            return periods;
        }
        for (minute, sample) in minutes {
            let begins = (minute - (minute - self.from).rem_euclid(self.minutes)) * 60;
            periods.entry(begins).and_modify(|period| *period = period.and(sample)).or_insert(sample);
        }
        periods
    }
}

pub(super) fn get_metric_data(store: &MetricStore, input: DataInput) -> Result<Value> {
    if input.metric_data_queries.is_empty() {
        return Err(CloudWatchError::Missing("MetricDataQueries"));
    }
    if input.metric_data_queries.len() > MAX_QUERIES {
        return Err(CloudWatchError::Value(format!("there are more than {MAX_QUERIES} queries")));
    }
    let ascending = match input.scan_by.as_deref() {
        Some("TimestampAscending") => true,
        None | Some("TimestampDescending") => false,
        Some(other) => return Err(CloudWatchError::Value(format!("ScanBy is {other:?}"))),
    };
    let limit = input.max_datapoints.unwrap_or(MAX_DATAPOINTS).clamp(1, MAX_DATAPOINTS);
    let from = position(input.next_token.as_deref())?;
    // Of all queries' points one after the other, this page holds those from `from` to before `from + limit`.
    let (mut seen, mut results) = (0, Vec::new());
    for query in input.metric_data_queries.iter().filter(|query| query.return_data != Some(false)) {
        let points = points(store, query, input.start_time, input.end_time, ascending)?;
        let begin = from.saturating_sub(seen).min(points.len());
        let end = (from + limit).saturating_sub(seen).min(points.len());
        seen += points.len();
        results.push(result(query, &points[begin..end.max(begin)], end == points.len()));
    }
    let mut output = json!({"MetricDataResults": results, "Messages": []});
    if from + limit < seen {
        output["NextToken"] = json!((from + limit).to_string());
    }
    Ok(output)
}

fn points(store: &MetricStore, query: &Query, start: f64, end: f64, ascending: bool) -> Result<Vec<(i64, f64)>> {
    let stat = query.metric_stat.as_ref();
    let stat =
        stat.ok_or_else(|| CloudWatchError::Value(format!("{}: only a MetricStat is supported locally", query.id)))?;
    let statistic = statistic(&stat.stat)?;
    let periods = Periods::new(start, end, stat.period)?.of(store, &stat.metric.id(), stat.unit.as_deref());
    let mut points: Vec<(i64, f64)> =
        periods.into_iter().map(|(begins, sample)| (begins, statistic.of(sample))).collect();
    if !ascending {
        points.reverse();
    }
    Ok(points)
}

fn result(query: &Query, points: &[(i64, f64)], complete: bool) -> Value {
    let (timestamps, values): (Vec<i64>, Vec<f64>) = points.iter().copied().unzip();
    let name = query.metric_stat.as_ref().map(|stat| stat.metric.metric_name.clone());
    json!({
        "Id": query.id,
        "Label": query.label.clone().or(name),
        "Timestamps": timestamps,
        "Values": values,
        "StatusCode": if complete { "Complete" } else { "PartialData" },
    })
}

impl Metric {
    fn id(&self) -> MetricId {
        let dimensions = self.dimensions.iter().map(|one| (one.name.clone(), one.value.clone())).collect();
        MetricId { namespace: self.namespace.clone(), name: self.metric_name.clone(), dimensions }
    }
}

/// The data of one metric, oldest first.
pub(super) fn get_metric_statistics(store: &MetricStore, input: StatisticsInput) -> Result<Value> {
    if let Some(percentile) = input.extended_statistics.first() {
        statistic(percentile)?;
    }
    let names = input.statistics.iter().map(|name| Ok((name.clone(), statistic(name)?)));
    let statistics: Vec<(String, Statistic)> = names.collect::<Result<_>>()?;
    if statistics.is_empty() {
        return Err(CloudWatchError::Missing("Statistics"));
    }
    let id = input.metric.id();
    let periods = Periods::new(input.start_time, input.end_time, input.period)?;
    let found = periods.of(store, &id, input.unit.as_deref());
    if found.len() > MAX_STATISTICS_DATAPOINTS {
        let problem = format!("there are {} datapoints; at most {MAX_STATISTICS_DATAPOINTS} are given", found.len());
        return Err(CloudWatchError::Value(problem));
    }
    let unit = store.minutes(&id, 0, 0).and_then(|(unit, _)| unit).unwrap_or_else(|| "None".to_owned());
    let datapoint = |(begins, sample): (i64, Sample)| {
        let values = statistics.iter().map(|(name, statistic)| (name.clone(), json!(statistic.of(sample))));
        let mut datapoint: Map<String, Value> = values.collect();
        datapoint.insert("Timestamp".into(), json!(begins));
        datapoint.insert("Unit".into(), json!(unit));
        Value::Object(datapoint)
    };
    let datapoints: Vec<Value> = found.into_iter().map(datapoint).collect();
    Ok(json!({"Label": id.name, "Datapoints": datapoints}))
}

#[cfg(test)]
mod tests {
    use super::super::request::{read, with_values};
    use super::*;
    use rstest::rstest;

    /// The minute 1,000, in seconds.
    const FIRST: i64 = 60_000;

    fn query(stat: &str, period: i64) -> Value {
        json!({"Id": "q", "MetricStat": {
            "Metric": {
                "Namespace": "Playhead", "MetricName": "AcceptedEvents",
                "Dimensions": [{"Name": "FunctionName", "Value": "f"}],
            },
            "Period": period, "Stat": stat,
        }})
    }

    fn data(store: &MetricStore, query: &Value, more: &Value) -> Result<Value> {
        let mut input = json!({
            "MetricDataQueries": [query], "StartTime": FIRST, "EndTime": FIRST + 3600, "ScanBy": "TimestampAscending",
        });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        get_metric_data(store, read(input).unwrap())
    }

    #[rstest]
    #[case("Sum", json!([3.0, 4.0]))]
    #[case("SampleCount", json!([2.0, 1.0]))]
    #[case("Average", json!([1.5, 4.0]))]
    #[case("Minimum", json!([1.0, 4.0]))]
    #[case("Maximum", json!([2.0, 4.0]))]
    fn minutes_are_grouped_by_period(#[case] stat: &str, #[case] values: Value) {
        // Minutes 1,000, 1,003 and 1,006, of which the first two lie in one period of five minutes.
        let (store, _) = with_values(&[1.0, 2.0, 4.0]);
        let answer = data(&store, &query(stat, 300), &json!({})).unwrap();
        let result = &answer["MetricDataResults"][0];
        assert_eq!((&result["Timestamps"], &result["Values"]), (&json!([FIRST, FIRST + 300]), &values));
        assert_eq!((&result["Id"], &result["Label"]), (&json!("q"), &json!("AcceptedEvents")));
    }

    #[test]
    fn the_newest_comes_first_if_nothing_else_handles() {
        let (store, _) = with_values(&[1.0, 2.0]);
        let answer = data(&store, &query("Sum", 60), &json!({"ScanBy": null})).unwrap();
        assert_eq!(answer["MetricDataResults"][0]["Values"], json!([2.0, 1.0]));
    }

    #[rstest]
    #[case::start(json!({"StartTime": FIRST + 1}), 2)]
    #[case::after_the_first(json!({"StartTime": FIRST + 60}), 1)]
    #[case::end(json!({"EndTime": FIRST + 180}), 1)]
    #[case::just_past_the_end(json!({"EndTime": FIRST + 181}), 2)]
    #[case::unit_is_another(json!({"MetricDataQueries": [{"Id": "q", "MetricStat": {
        "Metric": {"Namespace": "Playhead", "MetricName": "AcceptedEvents"}, "Period": 60, "Stat": "Sum"}}]}), 0)]
    fn the_range_includes_its_start_and_excludes_its_end(#[case] more: Value, #[case] count: usize) {
        let (store, _) = with_values(&[1.0, 2.0]);
        let answer = data(&store, &query("Sum", 60), &more).unwrap();
        assert_eq!(answer["MetricDataResults"][0]["Values"].as_array().unwrap().len(), count);
    }

    #[test]
    fn pages_hold_the_requested_number_of_points_and_none_twice() {
        let (store, _) = with_values(&[1.0, 2.0, 3.0]);
        let mut found = Vec::new();
        let mut token = Value::Null;
        loop {
            let more = json!({"MaxDatapoints": 2, "NextToken": token});
            let answer = data(&store, &query("Sum", 60), &more).unwrap();
            found.extend(answer["MetricDataResults"][0]["Values"].as_array().unwrap().clone());
            token = answer.get("NextToken").cloned().unwrap_or_default();
            if token.is_null() {
                break;
            }
        }
        assert_eq!(json!(found), json!([1.0, 2.0, 3.0]));
    }

    #[rstest]
    #[case(query("p99", 60), json!({}), "InvalidParameterValue")]
    #[case(query("Sum", 30), json!({}), "InvalidParameterValue")]
    #[case(query("Sum", 60), json!({"EndTime": FIRST}), "InvalidParameterValue")]
    #[case(query("Sum", 60), json!({"NextToken": "x"}), "InvalidNextToken")]
    #[case(json!({"Id": "e", "Expression": "a + b"}), json!({}), "InvalidParameterValue")]
    fn queries_that_are_not_supported_are_refused(#[case] query: Value, #[case] more: Value, #[case] code: &str) {
        let (store, _) = with_values(&[1.0]);
        assert_eq!(data(&store, &query, &more).unwrap_err().code(), code);
    }

    #[test]
    fn statistics_of_one_metric_are_returned_together() {
        let (store, _) = with_values(&[1.0, 2.0]);
        let input = json!({
            "Namespace": "Playhead", "MetricName": "AcceptedEvents",
            "Dimensions": [{"Name": "FunctionName", "Value": "f"}],
            "StartTime": FIRST, "EndTime": FIRST + 3600, "Period": 3600, "Statistics": ["Sum", "Maximum"],
        });
        let answer = get_metric_statistics(&store, read(input).unwrap()).unwrap();
        let expected = json!([{"Timestamp": FIRST, "Sum": 3.0, "Maximum": 2.0, "Unit": "Count"}]);
        assert_eq!(answer["Datapoints"], expected);
    }
}
