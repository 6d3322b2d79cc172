//! CloudWatch alarms: what they watch, and when they change their state. What is not played is an error that names its place:
//! an alarm that is left out would never go off, and nobody would know.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudwatch-alarm.html>

use serde_json::Value;
use strum::{EnumString, IntoStaticStr};

use super::resolve::{Properties, Template, text_of};
use super::resources::{Result, error, topic_name};
use crate::alarms::math::Expression;
use crate::metric_store::{MetricId, Statistic};

/// CloudWatch's own limits.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html>
const MAX_METRICS: usize = 10;
const MAX_PERIOD_SECONDS: u64 = 604_800;
const MAX_EVALUATION_PERIODS: u64 = 10_080;

/// An alarm as it is deployed, its names and numbers resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    /// The logical id in its template.
    pub id: String,
    pub name: String,
    pub description: String,
    pub watched: Watched,
    pub evaluation_periods: usize,
    pub datapoints_to_alarm: usize,
    pub threshold: f64,
    pub comparison: Comparison,
    pub missing_data: MissingData,
    /// ARNs of topics.
    pub alarm_actions: Vec<String>,
    pub ok_actions: Vec<String>,
    pub insufficient_data_actions: Vec<String>,
}

/// What is compared with the threshold.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    Metric(MetricStat),
    Calculation(Calculation),
}

/// A metric's statistic over periods.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricStat {
    pub id: MetricId,
    /// `None` for a percentile, of which no values are kept.
    pub statistic: Option<Statistic>,
    /// As the template names it: `Sum`, `p99` …
    pub statistic_name: String,
    /// A multiple of 60.
    pub period_seconds: u64,
}

/// Metric math over the statistics of metrics, all with the same period.
#[derive(Debug, Clone, PartialEq)]
pub struct Calculation {
    pub id: String,
    pub label: Option<String>,
    pub text: String,
    pub expression: Expression,
    /// With the ids that the expression uses, in the order of the template: notices describe the first.
    pub metrics: Vec<(String, MetricStat)>,
}

impl Calculation {
    /// Its value in a period, by those of its metrics.
    pub fn value(&self, of: impl Fn(&MetricStat) -> Option<f64>) -> Option<f64> {
        let stat = |wanted: &str| self.metrics.iter().find(|(id, _)| id == wanted).map(|(_, stat)| stat);
        self.expression.value(&|id| of(stat(id)?))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
pub enum Comparison {
    GreaterThanThreshold,
    GreaterThanOrEqualToThreshold,
    LessThanThreshold,
    LessThanOrEqualToThreshold,
}

impl Comparison {
    pub fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::GreaterThanThreshold => value > threshold,
            Self::GreaterThanOrEqualToThreshold => value >= threshold,
            Self::LessThanThreshold => value < threshold,
            Self::LessThanOrEqualToThreshold => value <= threshold,
        }
    }
}

/// How a period without data counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
pub enum MissingData {
    #[default]
    Missing,
    Ignore,
    Breaching,
    NotBreaching,
}

impl Watched {
    pub fn period_seconds(&self) -> u64 {
        match self {
            Self::Metric(stat) => stat.period_seconds,
            // Reading it has seen that there is one, and that all are equal.
            Self::Calculation(calculation) => calculation.metrics.first().map_or(60, |(_, stat)| stat.period_seconds),
        }
    }
}

pub(super) fn of_nested_stacks(
    template: &Template,
    nested: impl Fn(&str) -> std::io::Result<String>,
) -> Result<Vec<Alarm>> {
    let mut alarms = Vec::new();
    for (id, resource) in &template.resources {
        if resource["Type"] != "AWS::CloudFormation::Stack" || !is_there(template, id, resource)? {
            continue;
        }
        let properties = Properties { template, id, values: &resource["Properties"] };
        let url = properties.text("TemplateURL")?;
        let text =
            nested(&url).or_else(|problem| error(properties.place("TemplateURL"), format!("{url}: {problem}")))?;
        let parameters = template.resolve_all(&properties.place("Parameters"), &properties.values["Parameters"])?;
        let parameters = parameters.as_object().into_iter().flatten();
        let parameters = parameters.map(|(name, value)| (name.clone(), text_of(value))).collect();
        alarms.extend(of_template(&super::template(&text, &parameters)?)?);
    }
    Ok(alarms)
}

fn of_template(template: &Template) -> Result<Vec<Alarm>> {
    let mut alarms = Vec::new();
    for (id, resource) in &template.resources {
        match resource["Type"].as_str() {
            Some("AWS::CloudWatch::Alarm") if is_there(template, id, resource)? => {
                alarms.push(alarm(template, id, &resource["Properties"])?);
            }
            Some(other @ "AWS::CloudWatch::CompositeAlarm") => {
                return error(id, format!("{other} is not supported locally"));
            }
            _ => {}
        }
    }
    Ok(alarms)
}

fn is_there(template: &Template, id: &str, resource: &Value) -> Result<bool> {
    match resource["Condition"].as_str() {
        Some(condition) => template.holds(&format!("{id}.Condition"), condition),
        None => Ok(true),
    }
}

/// The properties that are read; any other could change when the alarm goes off.
const PROPERTIES: [&str; 17] = [
    "AlarmName",
    "AlarmDescription",
    "Namespace",
    "MetricName",
    "Dimensions",
    "Statistic",
    "ExtendedStatistic",
    "Period",
    "Metrics",
    "EvaluationPeriods",
    "DatapointsToAlarm",
    "Threshold",
    "ComparisonOperator",
    "TreatMissingData",
    "AlarmActions",
    "OKActions",
    "InsufficientDataActions",
];

fn alarm(template: &Template, id: &str, properties: &Value) -> Result<Alarm> {
    let values = template.resolve_all(id, properties)?;
    let properties = Properties { template, id, values: &values };
    refuse_others(&properties, &PROPERTIES)?;
    let evaluation_periods = count(&properties, "EvaluationPeriods", MAX_EVALUATION_PERIODS)?;
    let datapoints_to_alarm = match values["DatapointsToAlarm"] {
        Value::Null => evaluation_periods,
        _ => count(&properties, "DatapointsToAlarm", evaluation_periods)?,
    };
    Ok(Alarm {
        id: id.to_owned(),
        name: properties.text("AlarmName")?,
        description: text_of(&values["AlarmDescription"]),
        watched: watched(&properties)?,
        evaluation_periods: usize::try_from(evaluation_periods).unwrap_or(usize::MAX),
        datapoints_to_alarm: usize::try_from(datapoints_to_alarm).unwrap_or(usize::MAX),
        threshold: threshold(&properties)?,
        comparison: one_of(&properties, "ComparisonOperator")?,
        missing_data: match values["TreatMissingData"] {
            Value::Null => MissingData::default(),
            _ => one_of(&properties, "TreatMissingData")?,
        },
        alarm_actions: actions(&properties, "AlarmActions")?,
        ok_actions: actions(&properties, "OKActions")?,
        insufficient_data_actions: actions(&properties, "InsufficientDataActions")?,
    })
}

/// The topics that a change to a state is published to.
fn actions(properties: &Properties<'_>, name: &str) -> Result<Vec<String>> {
    let arns: Vec<String> = properties.values[name].as_array().into_iter().flatten().map(text_of).collect();
    match arns.iter().find(|arn| topic_name(arn).is_none()) {
        Some(other) => error(properties.place(name), format!("{other} is no topic; only those are supported locally")),
        None => Ok(arns),
    }
}

fn watched(properties: &Properties<'_>) -> Result<Watched> {
    let Some(queries) = properties.values["Metrics"].as_array() else {
        return stat(properties, "Period", statistic_name(properties)?).map(Watched::Metric);
    };
    let mut metrics = Vec::new();
    let mut calculated = None;
    for values in queries {
        let id = text_of(&values["Id"]);
        let place = properties.place(&format!("Metrics.{id}"));
        let query = Properties { template: properties.template, id: &place, values };
        refuse_others(&query, &["Id", "Expression", "Label", "MetricStat", "ReturnData"])?;
        if values["Expression"].is_null() {
            metrics.push((id, queried(&query)?));
        } else if calculated.replace(values).is_some() {
            return error(place, "is a second Expression; one is supported locally");
        }
    }
    let Some(query) = calculated else { return error(properties.place("Metrics"), "holds no Expression") };
    calculation(properties, query, metrics).map(Watched::Calculation)
}

/// The statistic of a metric that is an operand alone.
fn queried(query: &Properties<'_>) -> Result<MetricStat> {
    if query.values["ReturnData"] != false {
        return error(query.place("ReturnData"), "must be false: an alarm has one value, that of its Expression");
    }
    let place = query.place("MetricStat");
    let values = &query.values["MetricStat"];
    refuse_others(&Properties { template: query.template, id: &place, values }, &["Metric", "Period", "Stat"])?;
    // As an alarm on one metric has them.
    let mut flat = values["Metric"].clone();
    flat["Period"] = values["Period"].clone();
    let properties = Properties { template: query.template, id: &place, values: &flat };
    refuse_others(&properties, &["Namespace", "MetricName", "Dimensions", "Period"])?;
    stat(&properties, "Period", text_of(&values["Stat"]))
}

fn calculation(properties: &Properties<'_>, query: &Value, metrics: Vec<(String, MetricStat)>) -> Result<Calculation> {
    let (id, text) = (text_of(&query["Id"]), text_of(&query["Expression"]));
    let place = properties.place(&format!("Metrics.{id}.Expression"));
    let expression: Expression = match text.parse() {
        Ok(expression) => expression,
        Err(problem) => return error(place, format!("{text:?}: {problem}")),
    };
    if let Some(unknown) = expression.metrics().into_iter().find(|used| !metrics.iter().any(|(id, _)| id == used)) {
        return error(place, format!("uses {unknown}, which is no metric of the alarm"));
    }
    if metrics.is_empty() || metrics.len() > MAX_METRICS {
        return error(place, format!("has {} metrics; 1 to {MAX_METRICS} are supported", metrics.len()));
    }
    let periods: Vec<_> = metrics.iter().map(|(_, stat)| stat.period_seconds).collect();
    if periods.windows(2).any(|two| two[0] != two[1]) {
        return error(place, "has metrics of several periods");
    }
    let label = query["Label"].as_str().map(str::to_owned);
    Ok(Calculation { id, label, text, expression, metrics })
}

fn stat(properties: &Properties<'_>, period: &str, statistic_name: String) -> Result<MetricStat> {
    let period_seconds = count(properties, period, MAX_PERIOD_SECONDS)?;
    if period_seconds % 60 != 0 {
        return error(properties.place(period), format!("is {period_seconds} s; a multiple of 60 is kept locally"));
    }
    let is_percentile = statistic_name.strip_prefix('p').is_some_and(|number| number.parse::<f64>().is_ok());
    let statistic = statistic_name.parse().ok();
    if statistic.is_none() && !is_percentile {
        return error(properties.place("Statistic"), format!("{statistic_name:?} is not supported locally"));
    }
    let dimensions = properties.values["Dimensions"].as_array().into_iter().flatten();
    let dimensions = dimensions.map(|one| (text_of(&one["Name"]), text_of(&one["Value"]))).collect();
    let (namespace, name) = (properties.text("Namespace")?, properties.text("MetricName")?);
    Ok(MetricStat { id: MetricId { namespace, name, dimensions }, statistic, statistic_name, period_seconds })
}

fn statistic_name(properties: &Properties<'_>) -> Result<String> {
    let names = ["Statistic", "ExtendedStatistic"];
    let [plain, extended] = names.map(|name| text_of(&properties.values[name]));
    match (plain.is_empty(), extended.is_empty()) {
        (false, true) => Ok(plain),
        (true, false) => Ok(extended),
        _ => error(properties.place("Statistic"), "or ExtendedStatistic is needed, one of them"),
    }
}

/// A whole number from 1 to `most`.
fn count(properties: &Properties<'_>, name: &str, most: u64) -> Result<u64> {
    match properties.number(name)? {
        Some(number) if (1..=most).contains(&number) => Ok(number),
        other => error(properties.place(name), format!("is {other:?}; 1 to {most} is needed")),
    }
}

fn threshold(properties: &Properties<'_>) -> Result<f64> {
    let text = properties.text("Threshold")?;
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => error(properties.place("Threshold"), format!("is {text:?}, not a number")),
    }
}

fn one_of<T: std::str::FromStr>(properties: &Properties<'_>, name: &str) -> Result<T> {
    let text = properties.text(name)?;
    text.parse().or_else(|_| error(properties.place(name), format!("{text} is not supported locally")))
}

fn refuse_others(properties: &Properties<'_>, known: &[&str]) -> Result<()> {
    let mut names = properties.values.as_object().into_iter().flatten().map(|(name, _)| name);
    match names.find(|name| !known.contains(&name.as_str())) {
        Some(other) => error(properties.place(other), "is not supported locally"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
