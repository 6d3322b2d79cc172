use super::super::Stack;
use super::*;
use crate::alarms::deployed;
use rstest::rstest;
use std::collections::BTreeMap;

const PARENT: &str = "
Resources:
  Alarms:
    Type: AWS::CloudFormation::Stack
    Properties:
      TemplateURL: nested.yaml
      Parameters: {Deployment: !Ref AWS::StackName, Most: 3}
";

const NESTED: &str = r#"
Parameters:
  Deployment: {Type: String}
  Most: {Type: Number}
Mappings:
  Functions:
    A: {Name: one}
    B: {Name: two, Seconds: 120}
Resources:
  Fn::ForEach::Loop:
    - Function
    - [A, B]
    - ${Function}Alarm:
        Type: AWS::CloudWatch::Alarm
        Properties:
          AlarmName: !Sub ["${Deployment}-${Name}", {Name: !FindInMap [Functions, !Ref Function, Name]}]
          Metrics:
            - {Id: share, Expression: "100 * bad / FILL(all, 1)", Label: Share}
            - {Id: bad, ReturnData: false, MetricStat: {Stat: Sum, Period: 60, Metric: {
                Namespace: N, MetricName: Bad, Dimensions: [{Name: D, Value: !Ref Function}]}}}
            - {Id: all, ReturnData: false, MetricStat: {Stat: Sum, Period: 60, Metric: {Namespace: N, MetricName: All}}}
          EvaluationPeriods: !Ref Most
          Threshold: 0.5
          ComparisonOperator: GreaterThanThreshold
          TreatMissingData: notBreaching
  Single:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmName: single
      Namespace: N
      MetricName: M
      Statistic: Maximum
      Period: !FindInMap [Functions, A, Seconds, {DefaultValue: 300}]
      EvaluationPeriods: 1
      Threshold: 0
      ComparisonOperator: LessThanThreshold
"#;

fn parse(nested: &str) -> Result<Vec<Alarm>> {
    Stack::alarms(PARENT, &BTreeMap::new(), |path| {
        assert_eq!(path, "nested.yaml");
        Ok(nested.to_owned())
    })
}

#[test]
fn loops_mappings_and_parameters_of_a_nested_stack_are_resolved() {
    let alarms = parse(NESTED).unwrap();
    let names: Vec<_> = alarms.iter().map(|alarm| (&*alarm.id, &*alarm.name)).collect();
    assert_eq!(names, [("AAlarm", "playhead-one"), ("BAlarm", "playhead-two"), ("Single", "single")]);
    let Watched::Calculation(share) = &alarms[1].watched else { panic!("{:?}", alarms[1].watched) };
    assert_eq!(share.metrics[0].1.id, MetricId::new("N", "Bad", &[("D", "B")]));
    assert_eq!((alarms[1].evaluation_periods, alarms[1].datapoints_to_alarm, alarms[1].threshold), (3, 3, 0.5));
    assert_eq!(alarms[2].watched.period_seconds(), 300);
    assert_eq!((alarms[2].missing_data, alarms[2].comparison), (MissingData::Missing, Comparison::LessThanThreshold));
}

/// Each with its names and numbers: nothing is left that only CloudFormation could read.
#[test]
fn all_alarms_of_the_project_are_played() {
    let alarms = deployed();
    assert!(alarms.len() > 60, "{}", alarms.len());
    for alarm in &alarms {
        assert!(alarm.name.starts_with("playhead-") && !alarm.name.contains(['$', '{']), "{alarm:?}");
        assert!(alarm.description.contains('#') && !alarm.description.contains("${"), "{alarm:?}");
        assert!(!alarm.alarm_actions.is_empty() && alarm.alarm_actions == alarm.ok_actions, "{alarm:?}");
    }
    let named = |name: &str| alarms.iter().find(|alarm| alarm.name == name).unwrap();
    let behind = named("playhead-landing-behind");
    let Watched::Metric(age) = &behind.watched else { panic!("{behind:?}") };
    assert_eq!(age.id, MetricId::new("AWS/Lambda", "IteratorAge", &[("FunctionName", "kinesis-to-s3-lambda")]));
    assert_eq!((behind.threshold, age.period_seconds), (300_000.0, 120));
    let Watched::Metric(ran) = &named("playhead-notify-did-not-run").watched else { panic!("no metric") };
    assert_eq!(ran.id.dimensions["RuleName"], "NotifyFunctionReminders");
}

#[rstest]
#[case("FILL(all, 1)", "MAX(all, 1)", "AAlarm.Metrics.share.Expression")]
#[case("100 * bad", "100 * worse", "uses worse")]
#[case("Threshold: 0.5", "Threshold: some", "AAlarm.Threshold")]
#[case("Threshold: 0.5", "ThresholdMetricId: share", "AAlarm.ThresholdMetricId")]
#[case("Statistic: Maximum", "Statistic: TM(10%:90%)", "Single.Statistic")]
#[case("Statistic: Maximum", "Unit: Count", "Single.Unit")]
#[case("LessThanThreshold", "LessThanLowerThreshold", "Single.ComparisonOperator")]
#[case("{DefaultValue: 300}", "{DefaultValue: 30}", "Single.Period")]
#[case("[Functions, A, Seconds, {DefaultValue: 300}]", "[Functions, A, Seconds]", "Single.Period: Fn::FindInMap")]
#[case("EvaluationPeriods: 1", "EvaluationPeriods: 0", "Single.EvaluationPeriods")]
#[case("EvaluationPeriods: 1", "{EvaluationPeriods: 1, DatapointsToAlarm: 2}", "")]
#[case(
    "Type: AWS::CloudWatch::Alarm\n    Properties:\n      AlarmName: single",
    "Type: AWS::CloudWatch::CompositeAlarm\n    Properties:\n      AlarmName: single",
    "Single: AWS::CloudWatch::CompositeAlarm"
)]
#[case(
    "Stat: Sum, Period: 60, Metric: {Namespace: N, MetricName: All}",
    "Stat: Sum, Period: 120, Metric: {Namespace: N, MetricName: All}",
    "several periods"
)]
#[case(
    "TreatMissingData: notBreaching",
    "AlarmActions: ['arn:aws:lambda:us-east-1:000000000000:function:x']",
    "AAlarm.AlarmActions"
)]
fn what_is_not_played_is_named(#[case] from: &str, #[case] to: &str, #[case] named: &str) {
    assert!(NESTED.contains(from));
    let problem = parse(&NESTED.replace(from, to)).unwrap_err().to_string();
    assert!(problem.contains(named), "{problem}");
}

#[test]
fn a_nested_template_that_is_not_there_is_named() {
    let problem = Stack::alarms(PARENT, &BTreeMap::new(), |_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err();
    assert!(problem.to_string().starts_with("Alarms.TemplateURL: nested.yaml"), "{problem}");
}
