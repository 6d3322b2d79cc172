use super::*;
use rstest::rstest;

const TEMPLATE: &str = include_str!("../../../template.yaml");

fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn parse(pairs: &[(&str, &str)]) -> Result<Stack> {
    Stack::parse(TEMPLATE, &overrides(pairs))
}

#[test]
fn the_template_of_the_project_is_played() {
    let stack = parse(&[]).unwrap();
    let function = |binary: &str| stack.functions.iter().find(|function| function.binary == binary).unwrap();
    assert_eq!(stack.front_door.as_deref(), Some("ingest-lambda"));
    assert_eq!(function("ingest-lambda").environment["STREAM_NAME"], "event-stream");
    assert_eq!(function("kinesis-to-s3-lambda").environment["BUCKET_NAME"], "landing-bucket");
    assert_eq!(stack.streams, [Stream { name: "event-stream".into(), shards: 2, retention_hours: 168 }]);
    assert_eq!(stack.buckets, ["failed-batches-bucket", "landing-bucket"]);
    assert_eq!(
        stack.mappings,
        [Mapping {
            function: "LandingFunction".into(),
            stream: "event-stream".into(),
            batch_size: 100,
            window: Duration::from_secs(5),
            maximum_retries: None,
            maximum_record_age: Some(Duration::from_secs(518_400)),
            on_failure_bucket: Some("failed-batches-bucket".into()),
        }]
    );
}

#[test]
fn the_project_hears_of_objects_by_topics() {
    let stack = parse(&[]).unwrap();
    let notification = |target, prefix: &str, suffix: &str| Notification {
        target,
        bucket: "landing-bucket".into(),
        kinds: vec!["s3:ObjectCreated:*".into()],
        prefix: prefix.into(),
        suffix: suffix.into(),
    };
    let topic = |name: &str| Target::Topic(name.into());
    let expected = [
        notification(topic("landed-topic"), "events/", ".jsonl.bz2"),
        notification(topic("landed-topic"), "rejected/", ".jsonl.bz2"),
        notification(topic("sealed-topic"), "events/", "_SUCCESS"),
        notification(topic("compacted-topic"), "columnar/", "_SUCCESS"),
        notification(Target::Function("SealPartitionFunction".into()), "sealing/", ".json"),
    ];
    assert_eq!(stack.notifications, expected);
    let subscription = |id: &str, topic: &str, function: &str| Subscription {
        id: id.into(),
        topic: topic.into(),
        endpoint: Endpoint::Function(function.into()),
        key_prefix: String::new(),
    };
    let expected = [
        subscription("CheckObjectFunctionLanded", "landed-topic", "CheckObjectFunction"),
        subscription("CheckSizeFunctionSealed", "sealed-topic", "CheckSizeFunction"),
        subscription("CompactPartitionFunctionSealed", "sealed-topic", "CompactPartitionFunction"),
        subscription("NotifyFunctionAlarm", "alarms-topic", "NotifyFunction"),
    ];
    assert_eq!(stack.subscriptions, expected);
}

#[test]
fn functions_get_their_log_format_and_level_and_their_own_overrides_the_global_one() {
    let variables = |stack: &Stack| -> Vec<[Option<String>; 2]> {
        let of = |name: &str, function: &Function| function.environment.get(name).cloned();
        let both = |function| ["AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL"].map(|name| of(name, function));
        stack.functions.iter().map(both).collect()
    };
    let json = [Some("JSON".to_owned()), Some("INFO".to_owned())];
    assert!(variables(&parse(&[]).unwrap()).iter().all(|found| *found == json));
    let check = "{Binary: check}}\n    Properties:\n";
    let own = NAMES.replace(check, &format!("{check}      LoggingConfig: {{ApplicationLogLevel: WARN}}\n"));
    let globals = "Globals: {Function: {LoggingConfig: {LogFormat: JSON, ApplicationLogLevel: INFO}}}";
    let stack = Stack::parse(&format!("{globals}\n{own}"), &BTreeMap::new()).unwrap();
    assert_eq!(variables(&stack), [[Some("JSON".to_owned()), Some("WARN".to_owned())], json]);
    assert_eq!(variables(&Stack::parse(NAMES, &BTreeMap::new()).unwrap()), [[None, None], [None, None]]);
}

#[test]
fn parameters_can_be_overridden() {
    let stack = parse(&[("BatchSize", "7"), ("EventFormat", "raw")]).unwrap();
    assert_eq!(stack.mappings[0].batch_size, 7);
    let ingest = stack.functions.iter().find(|function| function.binary == "ingest-lambda").unwrap();
    assert_eq!(ingest.environment["EVENT_FORMAT"], "raw");
}

#[test]
fn conditions_decide() {
    let stack = parse(&[("StreamMode", "ON_DEMAND"), ("ShardCount", "9")]).unwrap();
    assert_eq!(stack.streams[0].shards, 4);
    assert_eq!(parse(&[("ShardCount", "9")]).unwrap().streams[0].shards, 9);
    assert_eq!(parse(&[("FrontDoor", "HttpApi")]).unwrap().front_door, None);
}

#[rstest]
#[case("BatchSize", "0")]
#[case("BatchSize", "10001")]
#[case("BatchSize", "many")]
#[case("EventFormat", "csv")]
#[case("NoSuchParameter", "1")]
fn bad_overrides_are_named(#[case] name: &str, #[case] value: &str) {
    assert!(parse(&[(name, value)]).unwrap_err().to_string().contains(name));
}

#[rstest]
#[case("ParallelizationFactor: 1", "ParallelizationFactor: 2", "ParallelizationFactor")]
#[case("BisectBatchOnFunctionError: false", "BisectBatchOnFunctionError: true", "BisectBatchOnFunctionError")]
#[case("FunctionResponseTypes: [ReportBatchItemFailures]", "FunctionResponseTypes: []", "FunctionResponseTypes")]
#[case("!Ref EventStream", "!ImportValue EventStream", "STREAM_NAME")]
#[case("!Ref EventStream", "!Ref NoStream", "NoStream")]
fn unsupported_parts_of_a_template_are_named(#[case] from: &str, #[case] to: &str, #[case] named: &str) {
    assert!(TEMPLATE.contains(from));
    let error = Stack::parse(&TEMPLATE.replace(from, to), &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains(named), "{error}");
}

#[test]
fn text_that_is_not_a_template_is_an_error() {
    for text in ["", "a: [", "just text", "Resources: 3"] {
        assert!(Stack::parse(text, &BTreeMap::new()).is_err(), "{text}");
    }
}

const NAMES: &str = "
Resources:
  AlarmsTopic:
    Type: AWS::SNS::Topic
  LandingBucket:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: !Sub ${AWS::StackName}-landing-${AWS::AccountId}-${AWS::Region}
  OtherFunction:
    Type: AWS::Serverless::Function
    Metadata: {BuildProperties: {Binary: other-lambda}}
  CheckFunction:
    Type: AWS::Serverless::Function
    Metadata: {BuildProperties: {Binary: check}}
    Properties:
      Environment:
        Variables:
          BUCKET: !Sub ${AWS::StackName}-landing-${AWS::AccountId}-${AWS::Region}
          BUCKET_BY_REF: !Ref LandingBucket
          TOPIC: !Ref AlarmsTopic
          OTHER: !Ref OtherFunction
          STACK: !Ref AWS::StackName
  OldAlarm:
    Type: AWS::CloudWatch::Alarm
    Condition: Never
    Properties: !If [A, B, C]
Conditions:
  Never: !Equals [a, b]
  Odd: !Or [a, b]
";

#[test]
fn deployed_names_become_local_names() {
    let stack = Stack::parse(NAMES, &BTreeMap::new()).unwrap();
    let environment = &stack.functions[0].environment;
    assert_eq!(environment["BUCKET"], "landing-bucket");
    assert_eq!(environment["BUCKET_BY_REF"], "landing-bucket");
    assert_eq!(environment["TOPIC"], "arn:aws:sns:us-east-1:000000000000:alarms-topic");
    assert_eq!(environment["OTHER"], "other-lambda");
    assert_eq!(environment["STACK"], "playhead");
}

#[rstest]
#[case("!And [!Equals [a, a], !Not [!Equals [a, b]]]", true)]
#[case("!And [!Equals [a, a], !Condition Never]", false)]
#[case("!Or [!Equals [a, a], !Condition Never]", true)]
#[case("!Or [!Condition Never, !Equals [a, b]]", false)]
fn a_condition_may_combine_others(#[case] condition: &str, #[case] holds: bool) {
    let template = NAMES.replace("!Or [a, b]", condition).replace("!Ref AlarmsTopic", "!If [Odd, yes, no]");
    let stack = Stack::parse(&template, &BTreeMap::new()).unwrap();
    assert_eq!(stack.functions[0].environment["TOPIC"], if holds { "yes" } else { "no" });
}

#[rstest]
#[case("Metadata: {BuildProperties: {Binary: check}}", "Condition: Sometimes", "condition Sometimes")]
#[case("!Ref AlarmsTopic", "!If [A, B, C]", "Variables.TOPIC: refers to the condition A")]
#[case("!Ref AlarmsTopic", "!If [Odd, B, C]", "Conditions.Odd")]
#[case("Variables:", "Variables: !If [A, B, C]\n        Others:", "Fn::If")]
fn conditions_are_named(#[case] from: &str, #[case] to: &str, #[case] named: &str) {
    assert!(NAMES.contains(from));
    let error = Stack::parse(&NAMES.replace(from, to), &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains(named), "{error}");
}
