"""template.yaml and alarms.yaml as the tests read them: with loops unrolled, and as SAM translates them."""

import os
import re
from copy import deepcopy
from functools import cache
from itertools import combinations
from unittest import mock

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from support.stack import REPOSITORY

# What AWS's own services measure, and how the template's alarms and dashboards name it.
AWS_METRICS = {
    ("AWS/Lambda", name) for name in ("ConcurrentExecutions", "Duration", "DroppedEventCount", "Errors", "Invocations",
                                      "IteratorAge", "OnFailureDestinationDeliveredEventCount", "Throttles",
                                      "Url4xxCount", "Url5xxCount", "UrlRequestCount")
} | {("AWS/ApiGateway", name) for name in ("4xx", "5xx", "Count")} | {
    ("AWS/Kinesis", name) for name in ("GetRecords.IteratorAgeMilliseconds", "IncomingBytes", "IncomingRecords",
                                       "WriteProvisionedThroughputExceeded")} | {
    ("AWS/NetworkELB", name) for name in ("ActiveFlowCount", "HealthyHostCount")} | {
    ("AWS/SQS", name) for name in ("ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible")} | {
    ("AWS/ECS", "CPUUtilization"), ("AWS/S3", "NumberOfObjects"), ("AWS/Events", "Invocations"), ("AWS/Events", "FailedInvocations"), ("AWS/Lambda", "AsyncEventsDropped"),
    ("AWS/SNS", "NumberOfNotificationsFailed")}


@cache
def parsed(name):
    return yaml_parse((REPOSITORY / name).read_text())


def document(name="template.yaml"):
    """A template, to change at will."""
    return deepcopy(parsed(name))


def metrics():
    """All metrics that there are, ours as `shared/src/metric.rs` names them."""
    source = (REPOSITORY / "shared/src/metric.rs").read_text()
    declared = source.split("metrics! {", 1)[1].split("\n}", 1)[0]
    ours = re.findall(r"^    (\w+): \w+,$", declared, re.MULTILINE)
    assert len(ours) >= 30
    return AWS_METRICS | {("Playhead", name) for name in ours}


def expanded(template=None, lists=None):
    """The resources of alarms.yaml, or of another template, with its loops unrolled, some over parameters that are lists, and what
    stands in its mappings in place."""
    template = template or document("alarms.yaml")
    mappings = template.get("Mappings")

    def substituted(text, values):
        for key, part in values.items():
            text = text.replace("${%s}" % key, part).replace("&{%s}" % key, re.sub("[^0-9A-Za-z]", "", part))
        return text

    def filled(node, item):
        """As CloudFormation does: the loop's variable stands for its value in keys, references and Fn::Sub, and in no other text."""
        name, value = item
        if isinstance(node, list):
            return [filled(part, item) for part in node]
        if not isinstance(node, dict):
            return node
        if node == {"Ref": name}:
            return value
        node = {substituted(key, {name: value}): filled(part, item) for key, part in node.items()}
        if "Fn::FindInMap" in node:
            table, row, column, *default = node["Fn::FindInMap"]
            return mappings[table][row].get(column, default[0]["DefaultValue"] if default else None)
        if text := node.get("Fn::Sub"):
            text, values = text if isinstance(text, list) else (text, {})
            return substituted(text, {name: value} | values)
        return node

    resources = {}
    for key, resource in template["Resources"].items():
        if not key.startswith("Fn::ForEach::"):
            resources[key] = resource
            continue
        variable, items, body = resource
        for value in lists[items["Ref"]] if isinstance(items, dict) else items:
            resources |= filled(body, (variable, value))
    return resources


def functions():
    """The properties of each function, by its name in alarms.yaml's loops."""
    found = {key.removesuffix("Function"): resource["Properties"] for key, resource in document()["Resources"].items()
             if resource["Type"] == "AWS::Serverless::Function"}
    assert len(found) == 13
    return found


def alarms():
    """Of alarms.yaml."""
    found = of_type(expanded(), "AWS::CloudWatch::Alarm")
    assert len(found) >= 45
    return found


def server_alarms():
    """Of nested/server.yaml: they come and go with the server."""
    return of_type(document("nested/server.yaml")["Resources"], "AWS::CloudWatch::Alarm")


def app_alarms(*apps):
    """Of nested/app-alarms.yaml: those of these apps."""
    return of_type(expanded(document("nested/app-alarms.yaml"), {"Apps": apps}), "AWS::CloudWatch::Alarm")


def optional_alarms():
    """Of template.yaml: they come and go with the warehouse, the digest, the schema and the central notify."""
    found = {key: one for key, one in document()["Resources"].items() if one.get("Condition") in ("HasWarehouse", "HasDigest", "HasCentralNotify", "HasEventSchema")}
    return of_type(found, "AWS::CloudWatch::Alarm")


def suffix(alarm):
    name = alarm["AlarmName"]
    return (name["Fn::Sub"] if isinstance(name, dict) else name).removeprefix("${Deployment}-").removeprefix("${AWS::StackName}-")


def given(node, **parameters):
    """A node of a template with these parameters' values."""
    if isinstance(node, list):
        return [given(part, **parameters) for part in node]
    if not isinstance(node, dict):
        return node
    if node.keys() == {"Ref"} and node["Ref"] in parameters:
        return parameters[node["Ref"]]
    return {key: given(part, **parameters) for key, part in node.items()}


def chosen(node, holds):
    """A node of a template with each Fn::If decided."""
    if isinstance(node, list):
        return [chosen(part, holds) for part in node]
    if not isinstance(node, dict):
        return node
    if "Fn::If" in node:
        condition, yes, no = node["Fn::If"]
        return chosen(yes if holds[condition] else no, holds)
    return {key: chosen(part, holds) for key, part in node.items()}


def watched(alarm):
    """The namespace, name and dimensions of each metric that an alarm watches, with either front door."""
    for is_url in (True, False):
        decided = chosen(alarm, {"HasFunctionUrl": is_url})
        stats = [query["MetricStat"]["Metric"] for query in decided.get("Metrics", []) if "MetricStat" in query]
        for metric in stats or [decided]:
            yield metric["Namespace"], metric["MetricName"], metric["Dimensions"]


def metrics_paid_for(alarm):
    """CloudWatch bills an alarm by the metrics that it watches."""
    return sum("MetricStat" in query for query in alarm.get("Metrics", [])) or 1


def translated(template=None, **parameters):
    """What SAM makes of template.yaml: all that is deployed, also what it adds."""
    if template is None:
        return deepcopy(translated_as_it_is(frozenset(parameters.items())))
    # What is uploaded has an address.
    template["Globals"]["Function"]["CodeUri"] = "s3://packages/package.zip"
    with mock.patch.dict(os.environ, AWS_DEFAULT_REGION="us-east-1"):
        return transform(template, parameters, NoManagedPolicies())["Resources"]


@cache
def translated_as_it_is(parameters):
    return translated(document(), **dict(parameters))


def of_type(resources, kind):
    return {key: resource["Properties"] for key, resource in resources.items() if resource["Type"] == kind}


def notifications(bucket):
    """The kind of event, prefix and suffix of each notification that a bucket sends, to whatever."""
    found = []
    for configurations in bucket.get("NotificationConfiguration", {}).values():
        for one in configurations:
            rules = one.get("Filter", {}).get("S3Key", {}).get("Rules", [])
            named = {rule["Name"].lower(): rule["Value"] for rule in rules}
            found.append((one["Event"], named.get("prefix", ""), named.get("suffix", "")))
    return found


def overlapping(found):
    """Pairs of notifications that S3 refuses: of one kind of event, with prefixes and suffixes that one key may have both of.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html"""
    def both(one, other, has):
        return has(one, other) or has(other, one)

    def overlap(one, other):
        kinds = [notification[0].removesuffix("*") for notification in (one, other)]
        return (both(*kinds, str.startswith) and both(one[1], other[1], str.startswith) and both(one[2], other[2], str.endswith))

    return [(one, other) for one, other in combinations(found, 2) if overlap(one, other)]


class NoManagedPolicies:
    """Names of AWS's managed policies. None is used, but by CodeDeploy, whose SAM knows itself."""

    def load(self):
        return {}


def canary_alarms(**parameters):
    """The alarms that CodeDeploy watches while a new version has a tenth of the traffic."""
    resources = translated(Rollout="Canary", **parameters)
    return {key: one for key, one in of_type(resources, "AWS::CloudWatch::Alarm").items() if key not in optional_alarms()}
