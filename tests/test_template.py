"""template.yaml and alarms.yaml: what exactly-once rests on, who may do what, and that alarms say what is there."""

import json
import os
import re
import tomllib
from collections import defaultdict
from unittest import mock

import pytest
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from failed_batches import template_with
from stack import REPOSITORY
from test_shutdown import run_to_the_end


def document(name="template.yaml"):
    return yaml_parse((REPOSITORY / name).read_text())


def test_what_must_not_be_changed_is_as_it_must_be():
    """The settings that exactly-once rests on are as they must be in the template, and the one-machine stack refuses the first three if they are not."""
    resources = document()["Resources"]
    mappings = [
        event["Properties"] for resource in resources.values()
        for event in resource.get("Properties", {}).get("Events", {}).values() if event["Type"] == "Kinesis"
    ]
    mapping, = mappings
    assert mapping["ParallelizationFactor"] == 1
    assert mapping["BisectBatchOnFunctionError"] is False
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["MaximumRetryAttempts"] == -1
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    assert mapping["DestinationConfig"]["OnFailure"]["Type"] == "S3"
    parameters = document()["Parameters"]
    age = parameters[mapping["MaximumRecordAgeInSeconds"]["Ref"]]
    retention = parameters[resources["EventStream"]["Properties"]["RetentionPeriodHours"]["Ref"]]
    assert age["MaxValue"] <= (retention["MinValue"] - 24) * 3600
    encryption = resources["LandingBucket"]["Properties"]["BucketEncryption"]
    rules = encryption["ServerSideEncryptionConfiguration"]
    assert [rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] for rule in rules] == ["AES256"]


@pytest.mark.parametrize(
    "old, new, named",
    [
        ("ParallelizationFactor: 1", "ParallelizationFactor: 2", "ParallelizationFactor"),
        ("BisectBatchOnFunctionError: false", "BisectBatchOnFunctionError: true", "BisectBatchOnFunctionError"),
        ("FunctionResponseTypes: [ReportBatchItemFailures]", "FunctionResponseTypes: []", "FunctionResponseTypes"),
    ],
)
def test_the_one_machine_stack_refuses_what_would_break_exactly_once(tmp_path, old, new, named):
    """A template with a setting that the write protocol can't live with does not start, and is told which."""
    code, output = run_to_the_end(tmp_path, template=template_with(tmp_path, {old: new}))
    assert code == 1 and named in output, output


# ---- Alarms and dashboards ----

# What AWS's own services measure, and how the template's alarms and dashboards name it.
AWS_METRICS = {
    ("AWS/Lambda", name) for name in ("Duration", "DroppedEventCount", "Errors", "Invocations", "IteratorAge",
                                      "OnFailureDestinationDeliveredEventCount", "Throttles")
} | {("AWS/Kinesis", name) for name in ("IncomingBytes", "IncomingRecords", "WriteProvisionedThroughputExceeded")} | {
    ("AWS/S3", "NumberOfObjects"), ("AWS/Events", "Invocations"), ("AWS/Lambda", "AsyncEventsDropped")}


def metrics():
    """All metrics that there are, ours as `shared/src/metric.rs` names them."""
    source = (REPOSITORY / "shared/src/metric.rs").read_text()
    declared = source.split("metrics! {", 1)[1].split("\n}", 1)[0]
    ours = re.findall(r"^    (\w+): \w+,$", declared, re.MULTILINE)
    assert len(ours) >= 30
    return AWS_METRICS | {("Playhead", name) for name in ours}


def expanded():
    """The resources of alarms.yaml with its loops unrolled, and what stands in its mappings in place."""
    template = document("alarms.yaml")
    mappings = template["Mappings"]

    def filled(node, item):
        name, value = item
        if isinstance(node, list):
            return [filled(part, item) for part in node]
        if isinstance(node, str):
            return node.replace("${%s}" % name, value)
        if not isinstance(node, dict):
            return node
        if node == {"Ref": name}:
            return value
        node = {filled(key, item): filled(part, item) for key, part in node.items()}
        if "Fn::FindInMap" in node:
            table, row, column, *default = node["Fn::FindInMap"]
            return mappings[table][row].get(column, default[0]["DefaultValue"] if default else None)
        if isinstance(text := node.get("Fn::Sub"), list):
            text, values = text
            for key, part in values.items():
                text = text.replace("${%s}" % key, part)
            return text
        # A reference to what a loop names.
        return {"Ref": node["Ref"].get("Fn::Sub", node["Ref"])} if isinstance(node.get("Ref"), dict) else node

    resources = {}
    for key, resource in template["Resources"].items():
        if not key.startswith("Fn::ForEach::"):
            resources[key] = resource
            continue
        variable, items, body = resource
        for value in items:
            resources |= filled(body, (variable, value))
    return resources


def functions():
    """The properties of each function, by its name in alarms.yaml's loops."""
    found = {key.removesuffix("Function"): resource["Properties"] for key, resource in document()["Resources"].items()
             if resource["Type"] == "AWS::Serverless::Function"}
    assert len(found) == 8
    return found


def alarms():
    found = {key: resource["Properties"] for key, resource in expanded().items()
             if resource["Type"] == "AWS::CloudWatch::Alarm"}
    assert len(found) >= 45
    return found


def suffix(alarm):
    name = alarm["AlarmName"]
    return (name["Fn::Sub"] if isinstance(name, dict) else name).removeprefix("${Deployment}-")


def test_each_alarm_says_what_is_wrong_in_which_unit_and_where_to_read_on():
    """An alarm's description has a unit and ends with an entry of the runbook; its metric exists; it tells the topic."""
    entries = set(re.findall(r"^### (\S+)$", (REPOSITORY / "docs/RUNBOOK.md").read_text(), re.MULTILINE))
    named = set()
    for alarm in alarms().values():
        text, entry = alarm["AlarmDescription"].rsplit(" #", 1)
        assert entry in entries, entry
        assert suffix(alarm).endswith(entry), alarm
        assert re.search(r"\((count|seconds|milliseconds|bytes)\b.*\)", text), text
        assert (alarm["Namespace"], alarm["MetricName"]) in metrics(), alarm
        # notify does not tell of itself.
        topic = "LastResortTopic" if suffix(alarm).startswith("notify-") else "AlarmsTopic"
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic}]
        assert alarm["Dimensions"]
        named.add(entry)
    assert named == entries, "the runbook's entries are those of alarms"


def test_no_data_is_wrong_only_where_a_check_did_not_run():
    """An alarm breaches for want of data exactly where that is what it watches for: each scheduled function, and
    check-size, which runs each hour whatever comes."""
    breaching = {key for key, alarm in alarms().items() if alarm["TreatMissingData"] == "breaching"}
    scheduled = {name for name, properties in functions().items()
                 if any(event["Type"] == "Schedule" for event in properties.get("Events", {}).values())}
    assert breaching == {f"{function}DidNotRunAlarm" for function in scheduled | {"CheckSize"}}
    others = {alarm["TreatMissingData"] for key, alarm in alarms().items() if key not in breaching}
    assert others == {"notBreaching", "missing"}


def test_each_function_has_its_alarms_and_its_time_is_what_they_think():
    """Errors, throttles, and 95 % of the timeout, of each function."""
    found = alarms()
    assert found["NotifyErrorsAlarm"]["Dimensions"][0]["Value"] == {"Ref": "NotifyFunction"}
    for function, properties in functions().items():
        if function == "Notify":
            continue
        for kind in ("Errors", "Throttles", "Slow"):
            assert found[f"{function}{kind}Alarm"]["Dimensions"][0]["Value"] in (
                f"{function}Function", {"Ref": f"{function}Function"})
        threshold, timeout = found[f"{function}SlowAlarm"]["Threshold"], properties["Timeout"]
        if isinstance(threshold, dict):
            threshold, timeout = (document()["Parameters"][value["Ref"]]["Default"] for value in (threshold, timeout))
        # The sealer stops itself thirty seconds before its time is up: it is slow when it does not.
        assert threshold == (1_000 * timeout - 15_000 if function == "SealPartition" else 950 * timeout), function


def test_parents_are_alarms():
    """What explains and what is explained are ends of alarms' names."""
    parents = json.loads(functions()["Notify"]["Environment"]["Variables"]["PARENTS"])
    names = {suffix(alarm) for alarm in alarms().values()}
    assert names >= {*parents, *parents.values()}


# ---- Who may do what ----

LANDING = "arn:${AWS::Partition}:s3:::${AWS::StackName}-landing-${AWS::AccountId}-${AWS::Region}"
PUT_METRICS = {"*": ["cloudwatch:PutMetricData"]}
READ_METRICS = {"*": ["cloudwatch:GetMetricData"]}
LIST = {LANDING: ["s3:ListBucket"]}

# All that each function may do besides writing its log: the actions that it calls, by what it calls them on.
ALLOWED = {
    "Ingest": {"EventStream": ["kinesis:PutRecords"]},
    "Landing": {
        "${LandingBucket.Arn}/events/*": ["s3:GetObject", "s3:PutObject"],
        "${LandingBucket.Arn}/rejected/*": ["s3:GetObject", "s3:PutObject"],
        "LandingBucket": ["s3:ListBucket"],
        "EventStream": ["kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords",
                        "kinesis:GetShardIterator", "kinesis:ListShards"],
        "${FailedBatchesBucket.Arn}/aws/lambda/*": ["s3:PutObject"],
        "FailedBatchesBucket": ["s3:ListBucket"],
    },
    "CheckObject": LIST | {
        f"{LANDING}/events/*": ["s3:GetObject"],
        f"{LANDING}/rejected/*": ["s3:GetObject"],
        f"{LANDING}/broken/*": ["s3:DeleteObject", "s3:PutObject"],
        f"{LANDING}/late/*": ["s3:PutObject"],
    },
    "SealPartition": LIST | PUT_METRICS | {
        f"{LANDING}/events/*": ["s3:GetObject"],
        f"{LANDING}/rejected/*": ["s3:GetObject"],
        f"{LANDING}/events/*/_MANIFEST.json": ["s3:AbortMultipartUpload", "s3:PutObject"],
        f"{LANDING}/events/*/_SUCCESS": ["s3:PutObject"],
        f"{LANDING}/sealing/*": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
        f"{LANDING}/late/*": ["s3:DeleteObject", "s3:GetObject"],
    },
    "CheckSize": LIST | PUT_METRICS | {f"{LANDING}/events/*/_SUCCESS": ["s3:GetObject"]},
    "CheckRecency": LIST | PUT_METRICS | {f"{LANDING}/events/*": ["s3:GetObject"]},
    "CheckCompleteness": LIST | {f"{LANDING}/events/*/_SUCCESS": ["s3:GetObject"],
                                 "*": ["cloudwatch:GetMetricData", "cloudwatch:PutMetricData"]},
    "Notify": LIST | READ_METRICS | {
        f"{LANDING}/incidents/*": ["s3:GetObject", "s3:PutObject"],
        f"{LANDING}/broken/*": ["s3:GetObject"],
        "NoticesTopic": ["sns:Publish"],
    },
}


def translated(**parameters):
    """What SAM makes of template.yaml: all that is deployed, also what it adds."""
    template = document()
    # What is uploaded has an address.
    template["Globals"]["Function"]["CodeUri"] = "s3://packages/package.zip"
    with mock.patch.dict(os.environ, AWS_DEFAULT_REGION="us-east-1"):
        return transform(template, parameters, NoManagedPolicies())["Resources"]


class NoManagedPolicies:
    """Names of AWS's managed policies. None is used, but by CodeDeploy, whose SAM knows itself."""

    def load(self):
        return {}


def listed(value):
    return value if isinstance(value, list) else [value]


def text_of(resource):
    """A policy's resource as text: what it is substituted from, or whose ARN it is."""
    if isinstance(resource, str):
        return resource
    (function, argument), = resource.items()
    return {"Fn::Sub": argument, "Ref": argument, "Fn::GetAtt": argument[0]}[function]


def permissions(role):
    """The actions that a role allows, by what they are allowed on."""
    found = defaultdict(set)
    for policy in role["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow" and not {"NotAction", "NotResource"} & statement.keys()
            for resource in map(text_of, listed(statement["Resource"])):
                found[resource].update(listed(statement["Action"]))
            if "cloudwatch:PutMetricData" in listed(statement["Action"]):
                assert statement["Condition"] == {"StringEquals": {"cloudwatch:namespace": "Playhead"}}
    return {resource: sorted(actions) for resource, actions in found.items()}


def test_each_role_allows_what_its_function_does_and_nothing_more():
    """Least privilege: each function has a role of its own, and that allows exactly what is listed above. Nothing has a
    wildcard but keys below a prefix, and what CloudWatch knows no narrower name for."""
    resources = translated()
    roles = {key: resource["Properties"] for key, resource in resources.items() if resource["Type"] == "AWS::IAM::Role"}
    assert roles.keys() == {f"{function}Role" for function in ALLOWED}
    for function, allowed in ALLOWED.items():
        assert resources[f"{function}Function"]["Properties"]["Role"] == {"Fn::GetAtt": [f"{function}Role", "Arn"]}
        role = roles[f"{function}Role"]
        assert role.keys() == {"AssumeRolePolicyDocument", "Policies"}, "no managed policies"
        log = {f"{function}LogGroup": ["logs:CreateLogStream", "logs:PutLogEvents"]}
        assert permissions(role) == allowed | log, function
    assert not [key for key, resource in resources.items() if resource["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")]


def test_only_players_may_call_without_being_known():
    """Whoever may invoke a function is one service, for one source; everybody only by the Function URL."""
    permissions = {key: resource["Properties"] for key, resource in translated().items()
                   if resource["Type"] == "AWS::Lambda::Permission"}
    for_all = {key for key, permission in permissions.items() if permission["Principal"] == "*"}
    assert for_all == {"IngestFunctionUrlPermission", "IngestFunctionUrlInvokePermission"}
    assert permissions["IngestFunctionUrlPermission"]["FunctionUrlAuthType"] == "NONE"
    assert permissions["IngestFunctionUrlInvokePermission"]["InvokedViaFunctionUrl"] is True
    for key in permissions.keys() - for_all:
        assert {"SourceArn", "SourceAccount"} & permissions[key].keys(), key


def test_a_wildcard_more_is_found():
    """The test of the policies fails when a `*` is added to one."""
    role = translated()["LandingRole"]["Properties"]
    before = permissions(role)
    for widened in ("s3:*", "*"):
        wider = json.loads(json.dumps(role).replace('"s3:PutObject"', f'"{widened}"', 1))
        assert permissions(wider) != before
    wider = json.loads(json.dumps(role).replace("/events/*", "/*"))
    assert permissions(wider) != before


# ---- The rest of what is deployed ----

def test_prod_gets_a_canary_that_goes_back_on_alarms_and_the_others_get_none():
    """In prod a tenth of the traffic goes to a new version for five minutes, and back if one of the alarms goes off."""
    assert not [key for key, one in translated(Environment="dev").items() if one["Type"].startswith("AWS::CodeDeploy")]
    resources = translated(Environment="prod")
    names = {f"${{AWS::StackName}}-{suffix(alarm)}" for alarm in alarms().values()}
    for function in ("Ingest", "Landing"):
        group = resources[f"{function}FunctionDeploymentGroup"]["Properties"]
        assert "Canary10Percent5Minutes" in str(group["DeploymentConfigName"])
        assert group["AutoRollbackConfiguration"]["Enabled"] is True
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
        watched = {alarm["Name"]["Fn::Sub"] for alarm in group["AlarmConfiguration"]["Alarms"]}
        assert len(watched) >= 3 and watched <= names
        assert "CodeDeployLambdaAliasUpdate" in resources[f"{function}FunctionAliaslive"]["UpdatePolicy"]


@pytest.mark.parametrize("function", ["Ingest", "Landing"])
def test_a_parameter_s_new_value_is_a_new_version(function):
    """All parameters and resources that a function with an alias is told are in its version's description: a new value
    replaces the version, which SAM alone would not do."""
    properties = functions()[function]
    told = {name for value in [*properties["Environment"]["Variables"].values(), properties["Timeout"]]
            for name in re.findall(r"'Ref': '(\w+)'", str(value))}
    described = set(re.findall(r"\$\{(\w+)\}", properties["VersionDescription"]["Fn::Sub"]))
    assert told and told == described
    limits = [document()["Parameters"][name].get("MaxLength", 12) for name in described & document()["Parameters"].keys()]
    assert sum(limits) + 52 + 2 * len(described) <= 256, "the longest description that Lambda takes"


def test_both_front_doors_lead_to_the_same_alias():
    """One of the two is made, and both are the way to what the canary moves."""
    template = document()
    live = {"Ref": "IngestFunction.Alias"}
    assert template["Resources"]["IngestFunctionUrl"]["Properties"]["TargetFunctionArn"] == live
    assert template["Resources"]["HttpApiIntegration"]["Properties"]["IntegrationUri"] == live
    conditions = template["Conditions"]
    assert conditions["HasFunctionUrl"] == {"Fn::Equals": [{"Ref": "FrontDoor"}, "FunctionUrl"]}
    assert conditions["HasHttpApi"] == {"Fn::Equals": [{"Ref": "FrontDoor"}, "HttpApi"]}
    for key, resource in template["Resources"].items():
        if key.startswith(("HttpApi", "IngestFunctionUrl")):
            assert resource["Condition"] == ("HasHttpApi" if key.startswith("HttpApi") else "HasFunctionUrl")


@pytest.mark.parametrize("bucket", ["LandingBucket", "FailedBatchesBucket"])
def test_buckets_are_private_encrypted_kept_and_take_nothing_but_tls(bucket):
    """What holds events is closed to the public, encrypted, and outlives its stack."""
    resources = document()["Resources"]
    assert resources[bucket]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert resources[bucket]["UpdateReplacePolicy"] == "Retain"
    properties = resources[bucket]["Properties"]
    assert len(properties["PublicAccessBlockConfiguration"]) == 4 and all(properties["PublicAccessBlockConfiguration"].values())
    assert properties["BucketEncryption"]
    statement, = resources[f"{bucket}Policy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Action"], statement["Principal"]) == ("Deny", "s3:*", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_environments_are_told_of_parameters_that_there_are():
    """samconfig.toml has dev, staging and prod, no secret, and only parameters and values that the template takes."""
    parameters = document()["Parameters"]
    config = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    environments = [name for name in config if name not in ("version", "default")]
    assert environments == ["dev", "staging", "prod"]
    for environment in environments:
        overrides = dict(pair.split("=", 1) for pair in config[environment]["deploy"]["parameters"]["parameter_overrides"])
        assert overrides["Environment"] == environment
        for name, value in overrides.items():
            declared = parameters[name]
            assert not declared.get("NoEcho"), f"{name} is a secret"
            assert value in map(str, declared.get("AllowedValues", [value]))
            if declared["Type"] == "Number":
                assert declared.get("MinValue", 0) <= int(value) <= declared.get("MaxValue", int(value))


# ---- Dashboards ----

def cloudwatch_panels():
    widgets = expanded()["Dashboard"]["Properties"]["DashboardBody"]["Fn::ToJsonString"]["widgets"]
    for widget in widgets:
        lines, before = [], None
        for line in widget["properties"]["metrics"]:
            # A dot stands for what the line before has there.
            before = [before[at] if part == "." else part for at, part in enumerate(line)]
            lines.append((before[0], before[1]))
        yield widget["properties"]["title"], lines


def grafana_panels():
    dashboard = json.loads((REPOSITORY / "dashboards/grafana.json").read_text())
    for panel in dashboard["panels"]:
        yield panel["title"], [(target["namespace"], target["metricName"]) for target in panel["targets"]]


def test_both_dashboards_show_the_same_and_only_what_is_measured():
    """The panels of CloudWatch and of Grafana are the same, and each metric in them exists."""
    assert dict(cloudwatch_panels()) == dict(grafana_panels())
    shown = {metric for _, lines in cloudwatch_panels() for metric in lines}
    assert shown <= metrics(), shown - metrics()
