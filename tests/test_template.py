"""template.yaml: what exactly-once rests on, and that its alarms and dashboards say what is there."""

import json
import re

import pytest
import yaml
from samtranslator.yaml_helper import yaml_parse

from failed_batches import template_with
from stack import REPOSITORY
from test_shutdown import run_to_the_end


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short functions as their arguments."""


Loader.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node)
                             if isinstance(node, yaml.ScalarNode) else loader.construct_sequence(node))


def template():
    return yaml.load((REPOSITORY / "template.yaml").read_text(), Loader)


def test_what_must_not_be_changed_is_as_it_must_be():
    """The settings that exactly-once rests on are as they must be in the template, and the one-machine stack refuses the first three if they are not."""
    resources = template()["Resources"]
    mappings = [
        event["Properties"] for resource in resources.values() if isinstance(resource, dict)
        for event in resource.get("Properties", {}).get("Events", {}).values() if event["Type"] == "Kinesis"
    ]
    mapping, = mappings
    assert mapping["ParallelizationFactor"] == 1
    assert mapping["BisectBatchOnFunctionError"] is False
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["MaximumRetryAttempts"] == -1
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    assert mapping["DestinationConfig"]["OnFailure"]["Type"] == "S3"
    age = template()["Parameters"][mapping["MaximumRecordAgeInSeconds"]]
    retention = resources["EventStream"]["Properties"]["RetentionPeriodHours"] * 3600
    assert age["MaxValue"] <= retention - 24 * 3600
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
    """The resources of the template with its loops unrolled, and what stands in its mappings in place."""
    document = yaml_parse((REPOSITORY / "template.yaml").read_text())
    mappings = document["Mappings"]

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
    for key, resource in document["Resources"].items():
        if not key.startswith("Fn::ForEach::"):
            resources[key] = resource
            continue
        variable, items, body = resource
        for value in items:
            resources |= filled(body, (variable, value))
    return document, resources


def alarms():
    _, resources = expanded()
    found = {key: resource["Properties"] for key, resource in resources.items()
             if resource["Type"] == "AWS::CloudWatch::Alarm"}
    assert len(found) >= 45
    return found


def suffix(alarm):
    name = alarm["AlarmName"]
    return (name["Fn::Sub"] if isinstance(name, dict) else name).removeprefix("${AWS::StackName}-")


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
    document, _ = expanded()
    breaching = {key for key, alarm in alarms().items() if alarm["TreatMissingData"] == "breaching"}
    scheduled = {
        key.removesuffix("Function") for key, resource in document["Resources"].items()
        if isinstance(resource, dict) and any(
            event["Type"] == "Schedule" for event in resource.get("Properties", {}).get("Events", {}).values())
    }
    assert breaching == {f"{function}DidNotRunAlarm" for function in scheduled | {"CheckSize"}}
    others = {alarm["TreatMissingData"] for key, alarm in alarms().items() if key not in breaching}
    assert others == {"notBreaching", "missing"}


def test_each_function_has_its_alarms_and_its_time_is_what_they_think():
    """Errors, throttles, and 95 % of the timeout, of each function."""
    document, resources = expanded()
    found = alarms()
    functions = {key.removesuffix("Function"): resource["Properties"] for key, resource in resources.items()
                 if resource["Type"] == "AWS::Serverless::Function"}
    assert len(functions) == 8
    assert found["NotifyErrorsAlarm"]["Dimensions"][0]["Value"] == {"Ref": "NotifyFunction"}
    for function, properties in functions.items():
        if function == "Notify":
            continue
        for kind in ("Errors", "Throttles", "Slow"):
            assert found[f"{function}{kind}Alarm"]["Dimensions"][0]["Value"] in (
                f"{function}Function", {"Ref": f"{function}Function"})
        threshold, timeout = found[f"{function}SlowAlarm"]["Threshold"], properties["Timeout"]
        if isinstance(threshold, dict):
            threshold, timeout = (document["Parameters"][value["Ref"]]["Default"] for value in (threshold, timeout))
        # The sealer stops itself thirty seconds before its time is up: it is slow when it does not.
        assert threshold == (1_000 * timeout - 15_000 if function == "SealPartition" else 950 * timeout), function


def test_parents_are_alarms():
    """What explains and what is explained are ends of alarms' names."""
    document, resources = expanded()
    parents = json.loads(resources["NotifyFunction"]["Properties"]["Environment"]["Variables"]["PARENTS"])
    names = {suffix(alarm) for alarm in alarms().values()}
    assert names >= {*parents, *parents.values()}


def test_functions_may_do_no_more_than_is_named():
    """No action has a wildcard, and no resource is `*` but where CloudWatch knows no other."""
    _, resources = expanded()
    for resource in resources.values():
        for policy in resource.get("Properties", {}).get("Policies", []):
            for statement in policy["Statement"]:
                actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
                assert not [action for action in actions if "*" in action]
                if statement["Resource"] == "*":
                    assert actions in (["cloudwatch:PutMetricData"], ["cloudwatch:GetMetricData"])
                    assert actions != ["cloudwatch:PutMetricData"] or "cloudwatch:namespace" in str(statement)


def cloudwatch_panels():
    _, resources = expanded()
    widgets = resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::ToJsonString"]["widgets"]
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
