"""template.yaml and alarms.yaml: what exactly-once rests on, who may do what, and that alarms say what is there."""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from fnmatch import fnmatch

import pytest

from support import metric_math
from support.deployment import script
from support.stack import REPOSITORY
from support.template import (
    alarms, app_alarms, canary_alarms, document, expanded, functions, given, metrics, notifications, of_type, optional_alarms, overlapping,
    server_alarms, suffix, translated, watched,
)


def test_the_settings_of_exactly_once_are_right():
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


# ---- What is notified of objects ----

def test_no_two_notifications_of_a_bucket_overlap():
    """S3 refuses them. What else is to be notified of the same objects subscribes to their topic."""
    buckets = of_type(translated(), "AWS::S3::Bucket")
    assert len(notifications(buckets["LandingBucket"])) == 5
    for name, bucket in buckets.items():
        assert overlapping(notifications(bucket)) == [], name


CREATED = "s3:ObjectCreated:*"


@pytest.mark.parametrize(("one", "other", "is_refused"), [
    pytest.param((CREATED, "events/", ".bz2"), (CREATED, "events/", ".bz2"), True, id="the same"),
    pytest.param((CREATED, "events/", ".jsonl.bz2"), (CREATED, "events/dt=", ".bz2"), True, id="within another"),
    pytest.param((CREATED, "", ".bz2"), (CREATED, "events/", ""), True, id="all of a prefix and all of a suffix"),
    pytest.param((CREATED, "events/", ""), ("s3:ObjectCreated:Put", "events/", "_SUCCESS"), True, id="a kind within another"),
    pytest.param(("s3:ObjectCreated:Copy", "events/", ""), ("s3:ObjectCreated:Put", "events/", ""), False, id="other kinds"),
    pytest.param((CREATED, "events/", ".jsonl.bz2"), (CREATED, "events/", "_SUCCESS"), False, id="other suffixes"),
    pytest.param((CREATED, "events/", ".bz2"), (CREATED, "rejected/", ".bz2"), False, id="other prefixes"),
])
def test_overlapping_notifications_are_found(one, other, is_refused):
    assert overlapping([one, ("s3:ObjectRemoved:*", "", ""), other]) == [(one, other)] * is_refused


def test_a_function_that_hears_of_objects_by_itself_is_found():
    """What check-object had before there were topics, beside what the topic has."""
    template = document()
    rules = [{"Name": "prefix", "Value": "events/"}, {"Name": "suffix", "Value": ".jsonl.bz2"}]
    template["Resources"]["CheckObjectFunction"]["Properties"]["Events"]["Direct"] = {"Type": "S3", "Properties": {
        "Bucket": {"Ref": "LandingBucket"}, "Events": CREATED, "Filter": {"S3Key": {"Rules": rules}}}}
    bucket = translated(template)["LandingBucket"]["Properties"]
    notification = (CREATED, "events/", ".jsonl.bz2")
    assert overlapping(notifications(bucket)) == [(notification, notification)]


def test_no_object_lands_before_a_topic_has_its_subscriptions():
    """What a topic gets before is lost: the bucket, and a change of its notifications, wait for subscriptions and permissions.
    A loader's may come later than the objects, which can be loaded again: CloudFormation can't wait for what has a condition."""
    resources = translated()
    waits_for = {key for kind, member in (("AWS::SNS::Subscription", "TopicArn"), ("AWS::Lambda::Permission", "SourceArn"))
                 for key, properties in of_type(resources, kind).items()
                 if properties.get(member) in ({"Ref": "LandedTopic"}, {"Ref": "SealedTopic"}, {"Ref": "CompactedTopic"})
                 and resources[key].get("Condition") not in ("HasSearch", "HasWarehouse")}
    assert len(waits_for) == 6
    assert {*waits_for, "LandedTopicPolicy", "SealedTopicPolicy", "CompactedTopicPolicy"} <= set(resources["LandingBucket"]["DependsOn"])


# ---- Alarms and dashboards ----

def test_each_alarm_says_what_is_wrong_in_which_unit_and_where_to_read_on():
    """An alarm's description has a unit and ends with an entry of the runbook; its metric exists; it tells the topic."""
    entries = set(re.findall(r"^### (\S+)$", (REPOSITORY / "docs/RUNBOOK.md").read_text(), re.MULTILINE))
    named = set()
    for alarm in (alarms() | server_alarms() | optional_alarms() | app_alarms("web", "tv-app")).values():
        text, entry = alarm["AlarmDescription"].rsplit(" #", 1)
        assert entry in entries, entry
        assert suffix(alarm).endswith(entry), alarm
        assert re.search(r"\((count|seconds|milliseconds|bytes|percent|share)\b.*\)", text), text
        for namespace, name, dimensions in watched(alarm):
            assert (namespace, name) in metrics() and dimensions, alarm
        # notify does not report on itself.
        topic = "LastResortTopic" if suffix(alarm).startswith("notify-") else "AlarmsTopic"
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic}]
        named.add(entry)
    assert named == entries, "the runbook's entries are those of alarms"


# What must never be, or is already a number of an hour, a date, or five minutes: one value is enough. A batch that landing is
# behind with has waited for five minutes.
FACTS = {
    "broken-objects", "date-size", "deleted-objects", "doubled-events", "doubled-records", "dropped", "failed-batches", "given-up", "hour-size",
    "incomplete-partitions", "landing-behind", "late-objects", "late-partitions", "lost-events", "lost-records", "missing-partitions", "overlapping-objects", "stale-data",
    "compact-partition", "load-warehouse",
}


def test_nobody_is_woken_for_one_event_in_100_million():
    """An alarm is a fact that one value shows, or lasts for some of the last minutes; what grows with the traffic is a share
    of it."""
    for alarm in (alarms() | server_alarms() | optional_alarms() | app_alarms("web", "tv-app")).values():
        entry = alarm["AlarmDescription"].rsplit(" #", 1)[1]
        if entry == "events-dropped":
            assert "-warning-" in str(alarm["AlarmName"])
        if entry in FACTS or entry in ("did-not-run", "events-dropped", "notify-errors"):
            continue
        if alarm.get("Period") == 3600:
            assert entry == "slow" or (entry, alarm["Statistic"], alarm["Threshold"]) == ("errors", "Sum", 1)
            continue  # Of a function that runs a few times an hour at most, and whose retries are 15 minutes apart.
        assert alarm["EvaluationPeriods"] >= 3, suffix(alarm)
        assert alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"]) >= 2 or entry == "slow", suffix(alarm)
        if entry == "errors":
            assert alarm["Statistic"] == "Average"
        if entry in ("not-stored-events", "spilled-events", "front-door-4xx", "front-door-5xx", "turned-away"):
            percent, *parts = alarm["Metrics"]
            assert "100 * " in percent["Expression"] and " / " in percent["Expression"]
            assert all(part["ReturnData"] is False for part in parts)


def test_an_expression_names_the_metrics_beside_it():
    """Each metric that an expression names is there, and the other way around; CloudWatch refuses the alarm otherwise."""
    for alarm in [*alarms().values(), *server_alarms().values(), *canary_alarms().values()]:
        if "Metrics" not in alarm:
            continue
        expression, = (query["Expression"] for query in alarm["Metrics"] if "Expression" in query)
        text = expression["Fn::Sub"] if isinstance(expression, dict) else expression
        named = set(re.findall(r"\b[a-z]\w*", re.sub(r"\$\{\w+\}", "1", text)))
        assert named == {query["Id"] for query in alarm["Metrics"] if "MetricStat" in query}, suffix(alarm)


def test_warnings_come_at_80_percent_of_what_is_full():
    """The stream's bytes and records against its shards, and ingest's concurrency and requests against its limit."""
    resources = expanded()
    limits = {
        "StreamBytesAlarm": "100 * bytes / (${ShardCount} * 60 * 1048576)",
        "StreamRecordsAlarm": "100 * records / (${ShardCount} * 60 * 1000)",
        "IngestConcurrencyAlarm": "100 * running / ${IngestMaximumConcurrency}",
        "IngestRequestsAlarm": "100 * invocations / (${IngestMaximumConcurrency} * 60 * 10)",
    }
    for name, expression in limits.items():
        properties = resources[name]["Properties"]
        assert properties["Metrics"][0]["Expression"] == {"Fn::Sub": expression}
        assert properties["Threshold"] == 80 and suffix(properties).startswith("warning-")


def test_each_app_that_is_named_has_the_alarm_of_all_apps_for_itself():
    nested = document()["Resources"]["AppAlarms"]
    assert (nested["Condition"], nested["Properties"]["TemplateURL"]) == ("HasAlarmedApps", "nested/app-alarms.yaml")
    assert nested["Properties"]["Parameters"]["Apps"] == {"Ref": "AlarmedApps"}
    of_all, of_each = alarms()["RejectedShareAlarm"], app_alarms("web", "tv-app")
    assert of_each.keys() == {"RejectedShareOfwebAlarm", "RejectedShareOftvappAlarm"}
    of_app = of_each["RejectedShareOftvappAlarm"]
    assert of_app["AlarmName"] == "${Deployment}-app-tv-app-rejected-share"
    for query in of_app["Metrics"][1:]:
        assert query["MetricStat"]["Metric"]["Dimensions"].pop() == {"Name": "App", "Value": "tv-app"}
    described = ("AlarmName", "AlarmDescription")
    assert {key: of_app[key] for key in of_app if key not in described} == {key: of_all[key] for key in of_all if key not in described}


def test_no_parameter_removes_an_alarm():
    """An alarm that a deployment removes while it is on never sends an OK, and its incident stays open. So none has a
    condition; where there is no limit, the nested stack gets one that nothing reaches."""
    assert [key for key, resource in expanded().items() if "Condition" in resource] == []
    passed = document()["Resources"]["Alarms"]["Properties"]["Parameters"]
    for name, condition in (("ShardCount", "IsProvisioned"), ("IngestMaximumConcurrency", "LimitsConcurrency")):
        has_limit, limit, none = passed[name]["Fn::If"]
        assert (has_limit, limit) == (condition, {"Ref": name}) and none >= 1_000_000


# ---- Alarms on runs: Lambda dates a value to the beginning of a run, and CloudWatch gets it at the end ----

TIMEOUTS = document()["Parameters"]["LandingTimeoutSeconds"]["AllowedValues"]


def landing_alarm(name, timeout):
    """An alarm of landing's, with the values that the parameters have at this timeout."""
    row = document()["Mappings"]["LandingTimeouts"][str(timeout)]
    return given(alarms()[name], LandingPeriodSeconds=row["PeriodSeconds"], LandingSlowMilliseconds=row["SlowMilliseconds"],
                 MaximumIteratorAgeMilliseconds=document()["Parameters"]["MaximumIteratorAgeMilliseconds"]["Default"])


def attempts(alarm, timeout, pause, count):
    """What a batch makes that runs into the timeout each time: one value an attempt."""
    number = {"Errors": lambda began: 1, "GivenBackBatches": lambda began: 1, "Duration": lambda began: 1_000 * timeout,
              "IteratorAge": lambda began: 1_000 * began}[alarm["MetricName"]]
    begins = [number * (timeout + pause) for number in range(count)]
    return [metric_math.run(began, timeout, number(began)) for began in begins]


@pytest.mark.parametrize("pause", [0, 1, 10, 29])
@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("name", ["GivenBackAlarm", "LandingBehindAlarm", "LandingErrorsAlarm", "LandingSlowAlarm"])
def test_a_batch_that_never_lands_raises_each_alarm_for_good_at_every_timeout(name, timeout, pause):
    """Each of them is on from the third attempt that is too old on, or five minutes later, and until the end."""
    alarm, interval = landing_alarm(name, timeout), timeout + pause
    too_old = alarm["Threshold"] / 1_000 if name == "LandingBehindAlarm" else 0
    seconds = too_old + max(3 * interval, 300)
    count = int((seconds + 7_200) / interval)
    on = range(-(-int(seconds + 60) // 60), int(count * interval / 60))
    assert set(metric_math.states(alarm, attempts(alarm, timeout, pause, count), on)) == {"ALARM"}


@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("name", ["GivenBackAlarm", "LandingErrorsAlarm", "LandingSlowAlarm"])
def test_a_single_failed_attempt_raises_no_alarm(name, timeout):
    alarm = landing_alarm(name, timeout)
    assert set(metric_math.states(alarm, attempts(alarm, timeout, 0, 1), range(120))) == {"OK"}


@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("name", ["Errors", "GivenBack", "Slow"])
def test_a_hanging_canary_of_landing_is_noticed_within_five_minutes_or_refused(name, timeout):
    rule = document()["Rules"]["WatchedCanary"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "Rollout"}, "Canary"]}
    allowed, parameter = rule["Assertions"][0]["Assert"]["Fn::Contains"]
    assert parameter == {"Ref": "LandingTimeoutSeconds"}
    assert str(document()["Parameters"]["LandingTimeoutSeconds"]["Default"]) in allowed
    if str(timeout) not in allowed:
        return
    alarm = canary_alarms()[f"LandingCanary{name}Alarm"]
    if name == "Slow":
        alarm = alarm | {"Threshold": document()["Mappings"]["LandingTimeouts"][str(timeout)]["SlowMilliseconds"]}
    found = metric_math.states(alarm, attempts(alarm, timeout, 10, 300 // timeout), range(CANARY_SECONDS // 60))
    assert "ALARM" in found


# Lambda invokes anew after a minute, and after two more: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
PAUSES = (60, 120)


def tries(seconds, outcomes):
    """Runs that are tried again; 1 is one that fails."""
    began, found = 0, []
    for outcome, pause in zip(outcomes, (*PAUSES, 0)):
        found.append(metric_math.run(began, seconds, outcome))
        began += seconds + pause
    return found


@pytest.mark.parametrize(("outcomes", "on"), [((1, 0), False), ((1, 1, 0), True), ((1, 1, 1), True)])
@pytest.mark.parametrize("is_cut_off", [False, True])
@pytest.mark.parametrize("function", ["SealPartition", "CheckSize", "CheckCompleteness", "CheckDeletions"])
def test_a_failed_run_raises_an_alarm_once_its_retry_fails_too(function, is_cut_off, outcomes, on):
    """At no minute is one failure an alarm, not even while its retry runs; two are."""
    alarm, timeout = alarms()[f"{function}ErrorsAlarm"], functions()[function]["Timeout"]
    values = tries(timeout if is_cut_off else 1, outcomes)
    if function == "SealPartition":
        values += [metric_math.run(600 * tick + 30, 1, 0) for tick in range(-6, 12) if tick]
    assert ("ALARM" in metric_math.states(alarm, values, range(180))) == on


@pytest.mark.parametrize("function", ["SealPartition", "CheckSize", "CheckCompleteness", "CheckDeletions"])
def test_a_single_run_that_uses_up_its_timeout_raises_a_warning(function):
    """Also where it takes longer than CloudWatch's usual minutes."""
    timeout = functions()[function]["Timeout"]
    value = metric_math.run(0, timeout, 1_000 * timeout)
    assert "ALARM" in metric_math.states(alarms()[f"{function}SlowAlarm"], [value], range(180))


@pytest.mark.parametrize("minutes", [[0], [3, 8, 13]], ids=["a receiver that refuses", "one that is away"])
def test_each_failure_of_notify_raises_an_alarm_that_lasts_as_long_as_they_go_on(minutes):
    """A message fails once where its receiver refuses it, and once a run where it is away."""
    values = [metric_math.run(60 * minute, 5, 1) for minute in minutes]
    found = metric_math.states(alarms()["NotifyErrorsAlarm"], values, range(60))
    assert "ALARM" in found[minutes[0]:] and found[-1] == "OK"
    first = found.index("ALARM")
    assert set(found[first:minutes[-1] + 1]) <= {"ALARM"}


def test_missing_data_breaches_only_where_a_check_did_not_run():
    """An alarm breaches for want of data exactly where that is what it watches for: each scheduled function, and
    check-size, which runs each hour whatever comes."""
    breaching = {key for key, alarm in (alarms() | optional_alarms()).items() if alarm["TreatMissingData"] == "breaching"}
    scheduled = {name for name, properties in functions().items()
                 if any(event["Type"] == "Schedule" for event in properties.get("Events", {}).values())}
    assert breaching == {f"{function}DidNotRunAlarm" for function in scheduled - LOADERS - {"SendDigest"} | {"CheckSize"}} | {
        "UncompactedHoursAlarm", "UnloadedHoursAlarm"}
    others = {alarm["TreatMissingData"] for key, alarm in alarms().items() if key not in breaching}
    assert others == {"notBreaching", "missing", "ignore"}


# What fails, is throttled, slow or not run shows in what they have not done: hours that wait, and the age of messages.
LOADERS = {"CompactPartition", "LoadSearch", "LoadWarehouse"}


def test_each_function_has_its_alarms_and_they_know_its_timeout():
    """Errors, throttles, and 95 % of the timeout, of each function but the loaders."""
    found = alarms()
    assert found["NotifyErrorsAlarm"]["Dimensions"][0]["Value"] == {"Ref": "NotifyFunction"}
    for function, properties in functions().items():
        if function == "Notify" or function in LOADERS:
            continue
        if function == "SendDigest":  # People miss what does not come.
            found_alarm = optional_alarms()["SendDigestErrorsAlarm"]
            assert list(watched(found_alarm)) == 2 * [
                ("AWS/Lambda", "Errors", [{"Name": "FunctionName", "Value": {"Ref": "SendDigestFunction"}}])]
            continue
        for kind in ("Errors", "Throttles", "Slow"):
            for namespace, _, dimensions in watched(found[f"{function}{kind}Alarm"]):
                assert (namespace, dimensions) == (
                    "AWS/Lambda", [{"Name": "FunctionName", "Value": {"Ref": f"{function}Function"}}])
        threshold, timeout = found[f"{function}SlowAlarm"]["Threshold"], properties["Timeout"]
        if isinstance(threshold, dict):
            assert threshold == {"Ref": "LandingSlowMilliseconds"}
            passed = document()["Resources"]["Alarms"]["Properties"]["Parameters"]["LandingSlowMilliseconds"]
            assert passed == {"Fn::FindInMap": ["LandingTimeouts", {"Ref": "LandingTimeoutSeconds"}, "SlowMilliseconds"]}
            slow = {int(key): row["SlowMilliseconds"] for key, row in document()["Mappings"]["LandingTimeouts"].items()}
            assert slow == {value: 950 * value for value in document()["Parameters"][timeout["Ref"]]["AllowedValues"]}
            continue
        # These stop themselves thirty seconds before their time is up: they are slow when they do not.
        stops_itself = function in ("SealPartition", "CheckDeletions")
        assert threshold == (1_000 * timeout - 15_000 if stops_itself else 950 * timeout), function


NIGHT = {"accepted": None, "rejected": None}


@pytest.mark.parametrize(("minutes", "state"), [
    pytest.param([{"accepted": 700, "rejected": 300}] * 2, "OK", id="30 % for two minutes"),
    pytest.param([{"accepted": 700, "rejected": 300}] * 3, "ALARM", id="30 % for three minutes"),
    pytest.param([{"accepted": 700, "rejected": 300}, NIGHT] * 3, "OK", id="30 % in two of five minutes"),
    pytest.param([{"accepted": 700, "rejected": 300}] * 5 + [{"accepted": 700, "rejected": None}] * 3, "OK", id="over"),
    pytest.param([{"accepted": None, "rejected": 1_000}] * 3, "ALARM", id="all, so that nothing is accepted"),
    pytest.param([{"accepted": 949, "rejected": 51}] * 5, "ALARM", id="just above 5 %"),
    pytest.param([{"accepted": 950, "rejected": 50}] * 5, "OK", id="5 %"),
    pytest.param([NIGHT, {"accepted": None, "rejected": 10_000}, NIGHT, NIGHT], "OK", id="one bad POST at night"),
    pytest.param([{"accepted": None, "rejected": 9}] * 5, "OK", id="a scanner"),
    pytest.param([NIGHT] * 5, "OK", id="nothing"),
])
def test_minutes_of_rejects_raise_an_alarm_and_one_bad_post_none(minutes, state):
    alarm = alarms()["RejectedShareAlarm"]
    queries = {query["Id"]: query["MetricStat"] for query in alarm["Metrics"] if "MetricStat" in query}
    assert queries.keys() == NIGHT.keys() and {(one["Period"], one["Stat"]) for one in queries.values()} == {(60, "Sum")}
    threshold = document()["Parameters"][alarm["Threshold"]["Ref"]]["Default"]
    assert metric_math.state(alarm, threshold, [NIGHT] * 5 + minutes) == state


BUSY = {"turned": None, "requests": 10_000}


@pytest.mark.parametrize(("minutes", "state"), [
    pytest.param([BUSY | {"turned": 101}] * 3, "ALARM", id="a small app"),
    pytest.param([BUSY | {"turned": 100}] * 5, "OK", id="1 %"),
    pytest.param([BUSY | {"turned": 5_000}, BUSY, BUSY] * 2, "OK", id="in two of five minutes"),
    pytest.param([BUSY | {"turned": 9, "requests": 9}] * 5, "OK", id="a scanner at night"),
    pytest.param([BUSY | {"requests": None}] * 5, "OK", id="nothing"),
])
@pytest.mark.parametrize("reason", ["Unauthorized", "Limited"])
def test_players_that_are_turned_away_for_their_keys_raise_an_alarm(reason, minutes, state):
    assert metric_math.state(alarms()[f"TurnedAway{reason}Alarm"], 1, minutes) == state


QUIET = {"spilled": None, "accepted": None}


@pytest.mark.parametrize(("minutes", "state"), [
    pytest.param([{"spilled": 500, "accepted": 500}] * 2, "ALARM", id="everything for two minutes"),
    pytest.param([{"spilled": 500, "accepted": 500}, QUIET, QUIET, QUIET, QUIET], "OK", id="for a minute"),
    pytest.param([{"spilled": 2, "accepted": 1_000}] * 2, "ALARM", id="0.2 % for two minutes"),
    pytest.param([{"spilled": 1, "accepted": 1_000}] * 5, "OK", id="0.1 %"),
    pytest.param([{"spilled": None, "accepted": 1_000}] * 5, "OK", id="none"),
    pytest.param([{"spilled": 1, "accepted": 1}, QUIET, QUIET, QUIET, QUIET], "OK", id="one at night"),
    pytest.param([QUIET] * 5, "OK", id="nothing"),
])
def test_minutes_of_spilled_events_raise_a_warning_and_one_none(minutes, state):
    alarm = alarms()["SpilledEventsAlarm"]
    assert suffix(alarm) == "warning-spilled-events"
    queries = {query["Id"]: query["MetricStat"] for query in alarm["Metrics"] if "MetricStat" in query}
    assert queries.keys() == QUIET.keys() and {(one["Period"], one["Stat"]) for one in queries.values()} == {(60, "Sum")}
    assert metric_math.state(alarm, alarm["Threshold"], [QUIET] * 5 + minutes) == state


@pytest.mark.parametrize(("minutes", "state"), [
    pytest.param([{"throttled": 11, "invoked": 989}] * 3, "ALARM", id="1.1 % for three minutes"),
    pytest.param([{"throttled": 10, "invoked": 990}] * 5, "OK", id="1 %"),
    pytest.param([{"throttled": 11, "invoked": 989}] * 2, "OK", id="two minutes"),
    pytest.param([{"throttled": 50, "invoked": None}] * 3, "ALARM", id="all"),
    pytest.param([{"throttled": 0, "invoked": 1_000}] * 5, "OK", id="none"),
    pytest.param([{"throttled": 0, "invoked": None}, {"throttled": None, "invoked": None}] * 3, "OK", id="nothing"),
])
@pytest.mark.parametrize("name", ["IngestThrottlesAlarm", "LandingThrottlesAlarm"])
def test_throttles_are_a_share_of_the_requests_to_invoke(name, minutes, state):
    alarm = alarms()[name]
    queries = {query["Id"]: query["MetricStat"] for query in alarm["Metrics"] if "MetricStat" in query}
    assert {key: one["Metric"]["MetricName"] for key, one in queries.items()} == {"throttled": "Throttles", "invoked": "Invocations"}
    assert {(one["Period"], one["Stat"]) for one in queries.values()} == {(60, "Sum")}
    assert metric_math.state(alarm, alarm["Threshold"], minutes) == state


@pytest.mark.parametrize(("minutes", "state"), [
    pytest.param([{"answers": 3, "requests": 200}] * 3, "ALARM", id="1.5 % for three minutes"),
    pytest.param([{"answers": 2, "requests": 2}] * 5, "OK", id="two at night"),
    pytest.param([{"answers": 20, "requests": 2_000}] * 5, "OK", id="1 %"),
    pytest.param([{"answers": None, "requests": None}] * 5, "OK", id="nothing"),
])
def test_a_few_5xx_raise_no_alarm(minutes, state):
    alarm = alarms()["FrontDoor5xxAlarm"]
    assert metric_math.state(alarm, alarm["Threshold"], minutes) == state


def test_parents_are_alarms():
    """What explains and what is explained are ends of alarms' names."""
    parents = json.loads(functions()["Notify"]["Environment"]["Variables"]["PARENTS"])
    names = {suffix(alarm) for alarm in (alarms() | server_alarms()).values()}
    assert names >= {*parents, *parents.values()}


# ---- Who may do what ----

LANDING = "arn:${AWS::Partition}:s3:::${AWS::StackName}-landing-${AWS::AccountId}-${AWS::Region}"
PUT_METRICS = {"*": ["cloudwatch:PutMetricData"]}
READ_METRICS = {"*": ["cloudwatch:GetMetricData"]}
LIST = {LANDING: ["s3:ListBucket"]}

# All that each function may do besides writing its log: the actions that it calls, by what it calls them on.
CLUSTER = ["redshift-data:BatchExecuteStatement", "redshift:GetClusterCredentialsWithIAM"]
SES = "arn:${AWS::Partition}:ses:${AWS::Region}:${AWS::AccountId}"
# By whatever identity the sender is verified; a condition fixes the sender.
SEND_MAIL = {f"{SES}:identity/*": ["ses:SendEmail"], f"{SES}:configuration-set/*": ["ses:SendEmail"]}
RECIPIENTS = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter/${AWS::StackName}/recipients"
ALLOWED = {
    "Ingest": {
        "EventStream": ["kinesis:PutRecords"],
        f"{LANDING}/events/*/spill-*": ["s3:PutObject"],
        f"{LANDING}/rejected/*/spill-*": ["s3:PutObject"],
        f"{LANDING}/schemas/*": ["s3:GetObject"],
    },
    "Landing": {
        f"{LANDING}/events/*": ["s3:GetObject", "s3:PutObject"],
        f"{LANDING}/rejected/*": ["s3:GetObject", "s3:PutObject"],
        LANDING: ["s3:ListBucket"],
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
    "SealPartition": LIST | {
        "*": ["cloudwatch:GetMetricData", "cloudwatch:PutMetricData"],
        "FailedBatchesBucket": ["s3:ListBucket"],
        f"{LANDING}/events/*": ["s3:GetObject"],
        f"{LANDING}/rejected/*": ["s3:GetObject"],
        f"{LANDING}/events/*/_MANIFEST.json": ["s3:AbortMultipartUpload", "s3:PutObject"],
        f"{LANDING}/events/*/_SUCCESS": ["s3:DeleteObject", "s3:PutObject"],
        f"{LANDING}/events/*/_INCOMPLETE": ["s3:DeleteObject", "s3:PutObject"],
        f"{LANDING}/accepted/*": ["s3:GetObject"],
        "${FailedBatchesBucket.Arn}/aws/lambda/*": ["s3:GetObject"],
        f"{LANDING}/sealing/*": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
        f"{LANDING}/late/*": ["s3:DeleteObject", "s3:GetObject"],
        f"{LANDING}/replaced/*": ["s3:PutObject"],
    },
    "CheckSize": LIST | PUT_METRICS | {f"{LANDING}/events/*/_SUCCESS": ["s3:GetObject"]},
    "CheckRecency": LIST | PUT_METRICS | {f"{LANDING}/events/*": ["s3:GetObject"]},
    "CheckCompleteness": LIST | {f"{LANDING}/events/*/_SUCCESS": ["s3:GetObject"],
                                 "*": ["cloudwatch:GetMetricData", "cloudwatch:PutMetricData"]},
    "CheckDeletions": LIST | PUT_METRICS | {
        f"{LANDING}/events/*": ["s3:GetObject"],
        f"{LANDING}/rejected/*": ["s3:GetObject"],
        f"{LANDING}/deleted/*": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
        f"{LANDING}/replaced/*": ["s3:DeleteObject", "s3:GetObject"],
        f"{LANDING}/late/*": ["s3:PutObject"],
    },
    "Notify": LIST | READ_METRICS | SEND_MAIL | {
        f"{LANDING}/incidents/*": ["s3:GetObject", "s3:PutObject"],
        f"{LANDING}/broken/*": ["s3:GetObject"],
        f"{LANDING}/deleted/*": ["s3:GetObject"],
        f"{LANDING}/rejected/*": ["s3:GetObject"],
        "NoticesTopic": ["sns:Publish"],
        "LastResortTopic": ["sns:Publish"],
        RECIPIENTS: ["ssm:GetParameter"],
    },
    "SendDigest": LIST | READ_METRICS | SEND_MAIL | {
        f"{LANDING}/events/*/_SUCCESS": ["s3:GetObject"],
        f"{LANDING}/events/*/_INCOMPLETE": ["s3:GetObject"],
        f"{LANDING}/incidents/*": ["s3:GetObject"],
        f"{LANDING}/digests/*": ["s3:GetObject", "s3:PutObject"],
        "NoticesTopic": ["sns:Publish"],
        RECIPIENTS: ["ssm:GetParameter"],
    },
    "CompactPartition": LIST | {
        f"{LANDING}/events/*": ["s3:GetObject"],
        f"{LANDING}/columnar/*": ["s3:GetObject", "s3:PutObject"],
    },
    "LoadSearch": LIST | {
        f"{LANDING}/events/*": ["s3:GetObject"],
        f"{LANDING}/unloadable/search/*": ["s3:PutObject"],
        "LoadSearchQueue": ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"],
        "arn:${AWS::Partition}:es:${AWS::Region}:${AWS::AccountId}:domain/${SearchDomain}/*":
            ["es:ESHttpGet", "es:ESHttpPost", "es:ESHttpPut"],
    },
    "LoadWarehouse": LIST | {
        f"{LANDING}/columnar/*": ["s3:GetObject"],
        f"{LANDING}/warehouse/*": ["s3:GetObject", "s3:PutObject"],
        # The one or the other.
        "WarehouseWorkgroup": ["redshift-data:BatchExecuteStatement", "redshift-serverless:GetCredentials"],
        "arn:${AWS::Partition}:redshift:${AWS::Region}:${AWS::AccountId}:cluster:${WarehouseCluster}": CLUSTER,
        "arn:${AWS::Partition}:redshift:${AWS::Region}:${AWS::AccountId}:dbname:${WarehouseCluster}/${WarehouseDatabase}": CLUSTER,
        "*": ["redshift-data:DescribeStatement"],
    },
}


def listed(value):
    return value if isinstance(value, list) else [value]


def text_of(resource):
    """A policy's resource as text: what it is substituted or joined from, or whose ARN it is."""
    if isinstance(resource, str):
        return resource
    (function, argument), = resource.items()
    if function == "Fn::Join":
        return argument[0].join(map(text_of, argument[1]))
    if function == "Fn::Select":
        number, parts = argument
        separator, whole = parts["Fn::Split"]
        return f"{text_of(whole)} split by {separator}, {number}"
    return {"Fn::Sub": argument, "Ref": argument, "Fn::GetAtt": argument[0]}[function]


def permissions(role):
    """The actions that a role allows, by what they are allowed on."""
    found = defaultdict(set)
    for policy in role["Policies"]:
        choices = [one for choice in policy["PolicyDocument"]["Statement"] for one in choice.get("Fn::If", [None, choice])[1:]]
        for statement in (one for one in choices if one != {"Ref": "AWS::NoValue"}):
            assert statement["Effect"] == "Allow" and not {"NotAction", "NotResource"} & statement.keys()
            for resource in map(text_of, listed(statement["Resource"])):
                found[resource].update(listed(statement["Action"]))
            if "cloudwatch:PutMetricData" in listed(statement["Action"]):
                assert statement["Condition"] == {"StringEquals": {"cloudwatch:namespace": "Playhead"}}
            if "ses:SendEmail" in listed(statement["Action"]):
                assert statement["Condition"] == {"StringEquals": {"ses:FromAddress": {"Ref": "MailFrom"}}}
            if "redshift-data:DescribeStatement" in listed(statement["Action"]):
                assert statement["Condition"] == {"StringEquals": {"redshift-data:statement-owner-iam-userid": "${aws:userid}"}}
    return {resource: sorted(actions) for resource, actions in found.items()}


def check_roles(resources):
    """Each function has a role of its own, which nobody but Lambda may assume, and which allows exactly what is listed."""
    roles = of_type(resources, "AWS::IAM::Role")
    canary = roles.pop("CanaryRole")
    assert canary["ManagedPolicyArns"] == [
        {"Fn::Sub": "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSCodeDeployRoleForLambdaLimited"}]
    assert "Policies" not in canary
    check_reports(resources, roles.pop("CentralRole"))
    assert roles.keys() == {f"{function}Role" for function in ALLOWED}
    for function, allowed in ALLOWED.items():
        assert resources[f"{function}Function"]["Properties"]["Role"] == {"Fn::GetAtt": [f"{function}Role", "Arn"]}
        role = roles[f"{function}Role"]
        assert role.keys() == {"AssumeRolePolicyDocument", "PermissionsBoundary", "Policies"}, "no managed policies"
        statement, = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement == {
            "Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        log = {f"{function}LogGroup": ["logs:CreateLogStream", "logs:PutLogEvents"]}
        assert permissions(role) == allowed | log, function


KINDS = ["CloudWatch Alarm State Change", "CloudWatch Alarm Configuration Change"]
OWN_ALARMS = {"prefix": {"Fn::Sub": "arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:${AWS::StackName}-"}}
OF_NO_CANARY = {"alarmName": [{"anything-but": {"prefix": {"Fn::Sub": "${AWS::StackName}-canary-"}}}]}


def changes_and_deletions(**also):
    """The pattern for states that are acted on, and for deletions alone of changed configurations."""
    details = ({"state": {"value": ["ALARM", "OK"]}}, {"operation": ["delete"]})
    return {"source": ["aws.cloudwatch"], "$or": [{"detail-type": [kind], "detail": detail | also} for kind, detail in zip(KINDS, details)]}


TRUSTED = {"Fn::Split": [",", {"Ref": "TrustedAccounts"}]}


def check_reports(resources, role):
    """Trusted accounts may put CloudWatch's alarms on the bus of reports, and nothing else, and its rule takes no others'; a stack that
    reports may put its own alarms on that one bus. Without the parameters there is nothing of either."""
    bus, rule = resources["ReportsBus"]["Properties"], resources["ReportsRule"]["Properties"]
    statement, = bus["Policy"]["Statement"]
    arn = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/" + bus["Name"]["Fn::Sub"]
    assert statement == {
        "Sid": "TrustedAccounts", "Effect": "Allow", "Principal": {"AWS": TRUSTED}, "Action": "events:PutEvents", "Resource": {"Fn::Sub": arn},
        "Condition": {"StringEquals": {"events:source": "aws.cloudwatch", "events:detail-type": KINDS}}}
    assert rule["EventBusName"] == {"Ref": "ReportsBus"} and rule["EventPattern"] == changes_and_deletions() | {"account": TRUSTED}
    assert rule["Targets"] == [{"Id": "notify", "Arn": {"Fn::GetAtt": ["NotifyFunction", "Arn"]}}]
    assert resources["ReportsPermission"]["Properties"]["SourceArn"] == {"Fn::GetAtt": ["ReportsRule", "Arn"]}
    central = resources["CentralRule"]["Properties"]
    assert central["EventPattern"] == changes_and_deletions(**OF_NO_CANARY) | {"resources": [OWN_ALARMS]}
    names = [one["AlarmName"]["Fn::Sub"] for one in canary_alarms().values()]
    assert names and all(name[0].startswith("${AWS::StackName}-canary-") for name in names)
    assert central["Targets"] == [{"Id": "central", "Arn": {"Ref": "CentralNotify"}, "RoleArn": {"Fn::GetAtt": ["CentralRole", "Arn"]}}]
    assert permissions(role) == {"CentralNotify": ["events:PutEvents"]}
    statement, = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}, "ArnLike": {"aws:SourceArn": {
            "Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/${AWS::StackName}-*"}}}}
    conditions = {name: one.get("Condition") for name, one in resources.items() if re.match("Reports|Central", name)}
    assert conditions == {**dict.fromkeys(("ReportsBus", "ReportsRule", "ReportsPermission"), "HasTrustedAccounts"),
                          **dict.fromkeys(("CentralRule", "CentralRole", "CentralReportsAlarm"), "HasCentralNotify")}


def test_notify_is_told_of_the_stacks_own_alarms_that_are_deleted():
    """No notice comes of their end."""
    resources = translated()
    rule = resources["DeletedAlarmsRule"]["Properties"]
    assert rule["EventPattern"] == {"source": ["aws.cloudwatch"], "detail-type": KINDS[1:], "resources": [OWN_ALARMS],
                                    "detail": {"operation": ["delete"]} | OF_NO_CANARY}
    assert rule["Targets"] == [{"Id": "notify", "Arn": {"Fn::GetAtt": ["NotifyFunction", "Arn"]}}]
    permission = resources["DeletedAlarmsPermission"]["Properties"]
    assert permission["FunctionName"] == {"Ref": "NotifyFunction"} and permission["SourceArn"] == {"Fn::GetAtt": ["DeletedAlarmsRule", "Arn"]}


def test_the_rule_that_reports_outlives_the_alarms():
    """CloudFormation deletes what refers to a resource before it: so the deletion of alarms that are on is reported. A reference in the
    metadata counts, and may be to what is not always there."""
    resources = document()["Resources"]
    nested = {"AWS::CloudFormation::Stack", "AWS::CloudWatch::Alarm"}
    has_alarms = {name for name, one in resources.items() if one["Type"] in nested and one.get("Condition") != "IsCanary"}
    assert {"Alarms", "AppAlarms", "Server", "UnloadedHoursAlarm", "SendDigestErrorsAlarm", "CentralReportsAlarm"} <= has_alarms
    reference = {"Fn::If": ["HasCentralNotify", {"Ref": "CentralRule"}, "none"]}
    unordered = {name for name in has_alarms if resources[name].get("Metadata") != {"ReportedBy": reference}}
    assert unordered == {"CentralReportsAlarm"} and {"Ref": "CentralRule"} in [
        one["Value"] for one in resources["CentralReportsAlarm"]["Properties"]["Dimensions"]]
    assert resources["CentralRule"]["Properties"]["Targets"][0]["RoleArn"] == {"Fn::GetAtt": ["CentralRole", "Arn"]}


@pytest.mark.parametrize("accounts,is_taken", [
    ("", True), ("111122223333", True), (",".join(["111122223333"] * 20), True), (",".join(["111122223333"] * 21), False),
    ("111122223333,", False), ("11112222333", False), ("*", False), ("111122223333 444455556666", False)])
def test_at_most_twenty_accounts_are_trusted(accounts, is_taken):
    assert bool(re.search(document()["Parameters"]["TrustedAccounts"]["AllowedPattern"], accounts)) == is_taken


def test_every_alarm_is_reported():
    """The rule of a stack that reports goes by the beginning of its alarms' names."""
    templates = (document()["Resources"], expanded(), document("nested/server.yaml")["Resources"])
    named = [one["Properties"]["AlarmName"] for resources in templates for one in resources.values()
             if one["Type"] == "AWS::CloudWatch::Alarm"]
    assert len(named) > 45
    for name in named:
        assert re.match(r"\$\{(AWS::StackName|Deployment)\}-", listed(text_of(name))[0]), name


@pytest.mark.parametrize("rollout", ["AtOnce", "Canary"])
def test_a_permissions_boundary_bounds_every_role(rollout):
    """Each role that is made, also for CodeDeploy, has the boundary that the parameter names, and none without it."""
    roles = of_type(translated(Rollout=rollout, PermissionsBoundary="arn:aws:iam::123456789012:policy/boundary"), "AWS::IAM::Role")
    assert len(roles) >= 9
    for name, role in roles.items():
        assert role["PermissionsBoundary"] == {
            "Fn::If": ["HasPermissionsBoundary", {"Ref": "PermissionsBoundary"}, {"Ref": "AWS::NoValue"}]}, name


# Who may invoke what, and for whom: all that is in the template, whichever front door it has.
SERVICES = {
    "CheckObject": {"sns.amazonaws.com"}, "SealPartition": {"s3.amazonaws.com", "events.amazonaws.com"},
    "CheckSize": {"sns.amazonaws.com"}, "CheckRecency": {"events.amazonaws.com"},
    "CheckCompleteness": {"events.amazonaws.com"}, "CheckDeletions": {"events.amazonaws.com"},
    "CompactPartition": {"sns.amazonaws.com", "events.amazonaws.com"}, "LoadWarehouse": {"sns.amazonaws.com", "events.amazonaws.com"},
    "Notify": {"sns.amazonaws.com", "events.amazonaws.com"}, "SendDigest": {"events.amazonaws.com"},
}
EVERYBODY = {"IngestFunctionUrlPermission", "IngestFunctionUrlInvokePermission"}


def check_callers(resources):
    """One service, for one source of this stack; everybody only by the Function URL."""
    found = defaultdict(set)
    for key, permission in of_type(resources, "AWS::Lambda::Permission").items():
        if permission["Principal"] == "*":
            assert key in EVERYBODY
            assert permission.get("FunctionUrlAuthType") == "NONE" or permission.get("InvokedViaFunctionUrl") is True
            continue
        # A bucket's name is not known before it is made: its account is.
        if permission["Principal"] == "s3.amazonaws.com":
            assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}
        else:
            assert permission["SourceArn"]
        if key != "HttpApiPermission":
            found[permission["FunctionName"]["Ref"].removesuffix("Function")].add(permission["Principal"])
    assert found == SERVICES


# All kinds of resources that say who may do what.
POLICIES = {"AWS::IAM::Role", "AWS::Lambda::Permission", "AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy"}


def check_kinds(resources):
    kinds = {one["Type"] for one in resources.values() if re.search("Policy|Permission|IAM", one["Type"])}
    assert kinds == POLICIES


def check_publishers(resources):
    """S3 alone publishes to the topics of objects, for this bucket of this account; each policy is about its own topic, as SNS wants it."""
    policies = of_type(resources, "AWS::SNS::TopicPolicy")
    assert policies.keys() == {"LandedTopicPolicy", "SealedTopicPolicy", "CompactedTopicPolicy"} <= set(resources["LandingBucket"]["DependsOn"])
    for name, policy in policies.items():
        topic = {"Ref": name.removesuffix("Policy")}
        statement, = policy["PolicyDocument"]["Statement"]
        del statement["Sid"]
        assert policy["Topics"] == [topic]
        assert statement == {
            "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sns:Publish", "Resource": topic,
            "Condition": {"ArnEquals": {"aws:SourceArn": {"Fn::Sub": LANDING}},
                          "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}}
    published = {one["Topic"]["Ref"] for one in
                 resources["LandingBucket"]["Properties"]["NotificationConfiguration"]["TopicConfigurations"]}
    assert published == {"LandedTopic", "SealedTopic", "CompactedTopic"}


def check_queues(resources):
    """What a loader does not take is neither lost nor sent by anybody else: messages and dead letters are kept for as long as
    SQS can, days go by before a message is a dead letter, and the topic alone may send."""
    queue, dead = (resources[name]["Properties"] for name in ("LoadSearchQueue", "LoadSearchDeadLetters"))
    assert queue["MessageRetentionPeriod"] == dead["MessageRetentionPeriod"] == 14 * 24 * 3600
    timeout = resources["LoadSearchFunction"]["Properties"]["Timeout"]
    assert queue["VisibilityTimeout"] == 6 * timeout
    redrive = queue["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"] == {"Fn::GetAtt": ["LoadSearchDeadLetters", "Arn"]}
    # SQS counts from when a message was first sent, also for dead letters: a week or more is left for a person.
    assert 4 * 24 * 3600 <= redrive["maxReceiveCount"] * queue["VisibilityTimeout"] <= 7 * 24 * 3600
    mapping, = (one for one in of_type(resources, "AWS::Lambda::EventSourceMapping").values()
                if one["EventSourceArn"] == {"Fn::GetAtt": ["LoadSearchQueue", "Arn"]})
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"] and mapping["ScalingConfig"]["MaximumConcurrency"]
    policy, = of_type(resources, "AWS::SQS::QueuePolicy").values()
    statement, = policy["PolicyDocument"]["Statement"]
    assert policy["Queues"] == [{"Ref": "LoadSearchQueue"}]
    assert statement == {
        "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage",
        "Resource": {"Fn::GetAtt": ["LoadSearchQueue", "Arn"]},
        "Condition": {"ArnEquals": {"aws:SourceArn": {"Ref": "LandedTopic"}}}}
    loaders = {key: one for key, one in resources.items() if key.startswith("LoadSearch")}
    assert {one.get("Condition") for one in loaders.values()} == {"HasSearch"} and len(loaders) >= 8


def check_warehouse(resources):
    """Without a warehouse there is nothing of its loader, and with one it has what the topic and the schedule need."""
    loader = {key: one for key, one in resources.items() if key.startswith("LoadWarehouse")}
    assert {one.get("Condition") for one in loader.values()} == {"HasWarehouse"}
    assert {one["Type"] for one in loader.values()} >= {
        "AWS::Lambda::Function", "AWS::IAM::Role", "AWS::Logs::LogGroup", "AWS::SNS::Subscription", "AWS::Events::Rule"}
    subscription = resources["LoadWarehouseFunctionCompacted"]["Properties"]
    assert subscription["TopicArn"] == {"Ref": "CompactedTopic"}


def check_kept_data(resources):
    """What holds events is closed to the public, encrypted, takes nothing but TLS, and outlives its stack."""
    for bucket in ("LandingBucket", "FailedBatchesBucket"):
        assert resources[bucket]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert resources[bucket]["UpdateReplacePolicy"] == "Retain"
        properties = resources[bucket]["Properties"]
        closed = properties["PublicAccessBlockConfiguration"]
        assert len(closed) == 4 and all(closed.values())
        assert properties["BucketEncryption"]
        assert "abort-stale-uploads" in [rule.get("Id") for rule in properties["LifecycleConfiguration"]["Rules"]]
        statement, = resources[f"{bucket}Policy"]["Properties"]["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Action"], statement["Principal"]) == ("Deny", "s3:*", "*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert resources["LandingBucket"]["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    assert resources["EventStream"]["Properties"]["StreamEncryption"]["EncryptionType"] == "KMS"
    assert resources["EventStream"]["DeletionPolicy"] == "RetainExceptOnCreate"


def check_what_bounds_the_bill(resources):
    """Logs end, old versions end, and a flood or a loop meets a limit."""
    groups = of_type(resources, "AWS::Logs::LogGroup")
    assert groups.keys() == {f"{function}LogGroup" for function in ALLOWED} | {"HttpApiLogGroup"}
    assert all(group["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups.values())
    for function in ("Ingest", "SealPartition"):
        assert resources[f"{function}Function"]["Properties"]["ReservedConcurrentExecutions"]["Fn::If"][0] == "LimitsConcurrency"
    for function in ALLOWED:
        assert resources[f"{function}Function"]["Properties"]["LoggingConfig"] == {
            "LogGroup": {"Ref": f"{function}LogGroup"}, "LogFormat": "JSON", "SystemLogLevel": "WARN", "ApplicationLogLevel": "INFO"}
    rules = {rule.get("Id"): rule for rule in resources["LandingBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]}
    assert rules["remove-old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 14}
    copies = rules["remove-copies"]
    assert (copies["Prefix"], copies["ObjectSizeGreaterThan"], copies["ExpirationInDays"]) == ("warehouse/", "1024", 7)


CHECKS = (check_roles, check_callers, check_kinds, check_publishers, check_queues, check_warehouse, check_kept_data, check_what_bounds_the_bill)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("parameters", [{}, {"FrontDoor": "HttpApi", "StreamMode": "ON_DEMAND", "EventFormat": "raw"}])
def test_what_is_deployed_is_closed_kept_and_bounded(check, parameters):
    """Least privilege, nothing public, nothing lost with the stack, nothing that costs without end."""
    check(translated(**parameters))


def without(name, member):
    def change(template):
        del template["Resources"][name]["Properties"][member]
    return change


def text(old, new):
    """The template with the first of these texts changed."""
    def change(template):
        before = json.dumps(template)
        assert old in before, old
        template.update(json.loads(before.replace(old, new, 1)))
    return change


def topic_policy(template):
    statement = {"Effect": "Allow", "Principal": "*", "Action": "sns:*", "Resource": "*"}
    template["Resources"]["Opened"] = {"Type": "AWS::SNS::TopicPolicy", "Properties": {
        "Topics": [{"Ref": "AlarmsTopic"}], "PolicyDocument": {"Statement": [statement]}}}


def foreign_account(template):
    template["Resources"]["Opened"] = {"Type": "AWS::Lambda::Permission", "Properties": {
        "FunctionName": {"Ref": "IngestFunction"}, "Action": "lambda:InvokeFunction", "Principal": "123456789012",
        "SourceAccount": "123456789012"}}


@pytest.mark.parametrize("change", [
    text('"kinesis:PutRecords"', '"kinesis:*"'), text('"kinesis:PutRecords"', '"*"'), text("/events/*", "/*"),
    text('["s3:PutObject", "s3:GetObject"]', '["s3:PutObject", "s3:GetObject", "s3:DeleteObject"]'),
    text('{"Service": "lambda.amazonaws.com"}', '{"AWS": "*"}'), text('"cloudwatch:namespace": "Playhead"', '"a": "b"'),
    topic_policy, foreign_account, without("LandingBucket", "VersioningConfiguration"),
    without("LoadSearchQueue", "RedrivePolicy"), without("LoadSearchQueue", "MessageRetentionPeriod"),
    text('{"ArnEquals": {"aws:SourceArn": {"Ref": "LandedTopic"}}}', '{}'), text('"maxReceiveCount": 400', '"maxReceiveCount": 5'),
    without("LandingBucket", "LifecycleConfiguration"), without("FailedBatchesBucket", "LifecycleConfiguration"),
    without("EventStream", "StreamEncryption"), without("NotifyLogGroup", "RetentionInDays"),
    without("IngestFunction", "ReservedConcurrentExecutions"), without("LandingBucket", "BucketEncryption"),
    text('"BlockPublicPolicy": true', '"BlockPublicPolicy": false'), text('"aws:SecureTransport"', '"aws:Else"'),
    text('"aws:SourceAccount": {"Ref": "AWS::AccountId"}', '"aws:SourceAccount": "*"'), text('"aws:SourceArn"', '"aws:Else"'),
    text('{"Service": "s3.amazonaws.com"}', '"*"'), text('"sns:Publish"', '"sns:*"'),
    text('"redshift-data:DescribeStatement", "Resource": "*", "Condition"', '"redshift-data:DescribeStatement", "Resource": "*", "Id"'),
    text('"redshift-data:BatchExecuteStatement"', '"redshift-data:*"'), text('"Resource": {"Ref": "WarehouseWorkgroup"}', '"Resource": "*"'),
])
def test_every_change_that_opens_the_stack_is_found(change):
    """These tests can fail: a `*` in a policy, another caller, a missing encryption or limit each is found."""
    template = document()
    change(template)
    with pytest.raises((AssertionError, KeyError, ValueError)):
        resources = translated(template)
        for check in CHECKS:
            check(resources)


# ---- The rest of what is deployed ----

CANARY_SECONDS = 300
# CloudWatch has a minute's value a minute or two after its end.
LATENCY_SECONDS = 120


@pytest.mark.parametrize("function", ["Ingest", "Landing"])
def test_a_canary_rolls_back_on_its_own_version_alone(function):
    """With Rollout=Canary a tenth of the traffic goes to a new version for five minutes, and back if one of its alarms goes
    off: they watch that version alone, and each can be on within that time."""
    resources, found = translated(Rollout="Canary"), canary_alarms()
    group = resources[f"{function}FunctionDeploymentGroup"]["Properties"]
    assert "Canary10Percent5Minutes" in str(group["DeploymentConfigName"])
    assert group["AutoRollbackConfiguration"]["Enabled"] is True
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert group["ServiceRoleArn"] == {"Fn::GetAtt": ["CanaryRole", "Arn"]}
    version, = (key for key in resources if key.startswith(f"{function}FunctionVersion"))
    assert resources[version]["DeletionPolicy"] == "Delete", "what is kept can't be published again after a rollback"
    assert "CodeDeployLambdaAliasUpdate" in resources[f"{function}FunctionAliaslive"]["UpdatePolicy"]
    keys = [alarm["Name"]["Ref"] for alarm in group["AlarmConfiguration"]["Alarms"]]
    assert len(keys) >= 3
    for key in keys:
        alarm = found[key]
        assert resources[key]["Condition"] == "IsCanary"
        assert alarm["EvaluationPeriods"] * 60 + LATENCY_SECONDS <= CANARY_SECONDS
        # A new version has new alarms: what was on for the old one does not stop it.
        assert alarm["AlarmName"]["Fn::Sub"][1] == {"Version": {"Fn::GetAtt": [version, "Version"]}}
        assert "AlarmActions" not in alarm and alarm["TreatMissingData"] == "notBreaching"
        for namespace, name, dimensions in watched(alarm):
            assert (namespace, name) in metrics()
            if name == "BrokenObjects":
                continue  # check-object's, which can't tell who wrote an object.
            name, *alias, executed = dimensions
            assert name == {"Name": "FunctionName", "Value": {"Ref": f"{function}Function"}}
            assert executed == {"Name": "ExecutedVersion", "Value": {"Fn::GetAtt": [version, "Version"]}}
            # Lambda's own have both dimensions, ours have the version alone.
            live = {"Name": "Resource", "Value": {"Fn::Sub": f"${{{function}Function}}:live"}}
            assert alias == ([live] if namespace == "AWS/Lambda" else [])


@pytest.mark.parametrize(("minute", "state"), [
    pytest.param({"lost": 11, "requests": 1_000}, "ALARM", id="1.1 % of requests"),
    pytest.param({"lost": 10, "requests": 1_000}, "OK", id="1 % of requests, whatever was in them"),
    pytest.param({"lost": None, "requests": 1_000}, "OK", id="none"),
])
def test_a_canary_of_ingest_rolls_back_by_the_share_of_requests_not_stored(minute, state):
    """Not of events: ingest writes a value a request."""
    alarm = canary_alarms()["IngestCanaryNotStoredEventsAlarm"]
    assert {query["Id"]: query["MetricStat"]["Stat"] for query in alarm["Metrics"] if "MetricStat" in query} == {
        "lost": "SampleCount", "requests": "Sum"}
    assert metric_math.state(alarm, alarm["Threshold"], [minute] * 3) == state


def test_only_prod_has_a_canary():
    """No other environment has CodeDeploy, and nothing of it is made there."""
    resources = translated()
    assert not of_kind(resources, "AWS::CodeDeploy")
    assert {one["Condition"] for key, one in resources.items() if "Canary" in key} == {"IsCanary"}
    config = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    canaries = [environment for environment in ("dev", "staging", "prod")
                if "Rollout=Canary" in config[environment]["deploy"]["parameters"]["parameter_overrides"]]
    assert canaries == ["prod"]


# Edits of a function's properties: what each would change, and whether Lambda would publish a version for it. Tags, the
# concurrency that is kept free, recursion and a signing configuration are the function's, not a version's; all else belongs to one.
# https://github.com/aws/serverless-application-model/issues/3281
EDITS = {
    "MemorySize": (1024, True), "Timeout": (9, True), "Description": ("Another.", True), "Handler": ("other", True),
    "Role": ("arn:aws:iam::123456789012:role/other", True), "Environment": ({"Variables": {"A": "b"}}, True),
    "LoggingConfig": ({"LogGroup": "other"}, True), "Tracing": ("Active", True), "EphemeralStorage": ({"Size": 1024}, True),
    "CodeUri": ("s3://packages/another.zip", True), "Runtime": ("provided.al2", True), "Architectures": (["x86_64"], True),
    "Layers": (["arn:aws:lambda:us-east-1:123456789012:layer:one:1"], True),
    # Nothing of these is a property of the function itself.
    "AutoPublishAlias": ("live", False), "DeploymentPreference": ({"Enabled": False, "Type": "AllAtOnce"}, False),
    "EventInvokeConfig": ({"MaximumRetryAttempts": 1}, False), "VersionDeletionPolicy": ("Retain", False),
}
# These rename the version, and there is nothing new to publish: the update fails, and is rolled back.
UNSAFE = {"Tags": {"Team": "ads"}, "ReservedConcurrentExecutions": 7, "RecursiveLoop": "Allow",
          "CodeSigningConfigArn": "arn:aws:lambda:us-east-1:123456789012:code-signing-config:csc-0123456789abcdef0"}


def version_after(function, edit=None):
    """The logical id of the version that SAM makes, with some properties of the function changed."""
    template = document()
    template["Resources"][f"{function}Function"]["Properties"].update(edit or {})
    key, = (key for key in translated(template) if key.startswith(f"{function}FunctionVersion"))
    return key


@pytest.mark.parametrize("function", ["Ingest", "Landing"])
def test_an_edit_renames_the_version_where_there_is_one_to_publish(function):
    """CloudFormation publishes a version when its logical id changes, and fails when Lambda has nothing new. An edit is safe
    where both go together; docs/DEPLOYING.md names those that are not, and the template has none of them."""
    before = version_after(function)
    assert version_after(function) == before
    for name, (value, publishes) in EDITS.items():
        assert (version_after(function, {name: value}) != before) == publishes, name
    page = (REPOSITORY / "docs/DEPLOYING.md").read_text()
    for name, value in UNSAFE.items():
        assert version_after(function, {name: value}) != before, f"{name} is safe now: say so in docs/DEPLOYING.md"
        assert f"`{name}`" in page, name
    assert not {"Tags", "CodeSigningConfigArn", "RecursiveLoop"} & {*document()["Globals"]["Function"], *functions()[function]}


def test_the_deploying_role_may_do_what_the_roles_of_the_template_need():
    """docs/DEPLOYING.md's policy may attach the managed policies that roles have, and no other; it passes roles to the services
    that assume them; and both forms of GitHub's subjects are there."""
    page = (REPOSITORY / "docs/DEPLOYING.md").read_text()
    trust, roles = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL))
    assert trust["Statement"][0]["Condition"]["StringEquals"].keys() == {
        f"token.actions.githubusercontent.com:{claim}" for claim in ("aud", "sub")}
    for subject in ("repo:<owner>@<owner id>/<repository>@<repository id>:environment:prod", "repo:<owner>/<repository>:environment:prod"):
        assert f"\n{subject}\n" in page
    made = [*of_type(translated(Rollout="Canary"), "AWS::IAM::Role").values(),
            *of_type(document("nested/server.yaml")["Resources"], "AWS::IAM::Role").values()]
    attach, = (one for one in roles["Statement"] if "iam:AttachRolePolicy" in listed(one["Action"]))
    assert "iam:DetachRolePolicy" in attach["Action"]
    managed = {text_of(arn).replace("${AWS::Partition}", "aws") for role in made for arn in role.get("ManagedPolicyArns", [])}
    assert {attach["Condition"]["ArnEquals"]["iam:PolicyARN"]} == managed
    pass_role, = (one for one in roles["Statement"] if one["Action"] == "iam:PassRole")
    assumed_by = {role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"] for role in made}
    assert set(pass_role["Condition"]["StringEquals"]["iam:PassedToService"]) == assumed_by
    resource, = {one["Resource"] for one in roles["Statement"]}
    assert resource == "arn:aws:iam::<account>:role/playhead-*"
    # It may not grant itself anything.
    deploying = set(re.findall(r"--role-name (\S*deploy\S*)", page))
    assert len(deploying) == 1 and not any(fnmatch(f"arn:aws:iam::<account>:role/{name}", resource) for name in deploying)


@pytest.mark.parametrize("function", ["Ingest", "Landing"])
def test_concurrency_is_changed_by_its_parameter_without_a_new_version(function):
    """A new value of IngestMaximumConcurrency is no new text: no version is renamed."""
    ids = [{key for key in translated(**parameters) if "FunctionVersion" in key}
           for parameters in ({}, {"IngestMaximumConcurrency": "500"}, {"IngestMaximumConcurrency": "0"})]
    assert ids[0] == ids[1] == ids[2] and any(key.startswith(function) for key in ids[0])


def test_tags_of_each_environment_come_from_samconfig():
    """A stack's tags reach everything in it."""
    config = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    for environment in ("dev", "staging", "prod"):
        assert config[environment]["deploy"]["parameters"]["tags"] == ["Project=playhead", f"Environment={environment}"]


def test_an_http_api_throttles_a_flood_and_leaves_what_is_above_its_limit_to_ingest():
    """At twice what ingest takes: then more than 1 % of its invocations are throttled, which pages, before the API answers."""
    config = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    for environment in ("dev", "staging", "prod"):
        given = dict(one.split("=", 1) for one in config[environment]["deploy"]["parameters"]["parameter_overrides"])
        assert int(given["HttpApiRequestsPerSecond"]) == 20 * int(given["IngestMaximumConcurrency"]), environment
    default = {name: document()["Parameters"][name]["Default"] for name in ("HttpApiRequestsPerSecond", "IngestMaximumConcurrency")}
    assert default["HttpApiRequestsPerSecond"] == 20 * default["IngestMaximumConcurrency"]


@pytest.mark.parametrize("given", ["foo", "BatchSize=200 foo", "'BatchSize=200"])
def test_malformed_parameters_are_refused_by_name(given, monkeypatch):
    deploy = script("deploy")
    monkeypatch.setattr(deploy, "BUILT", REPOSITORY / "template.yaml")
    monkeypatch.setenv("PARAMETERS", given)
    with pytest.raises(SystemExit, match="PARAMETERS"):
        deploy.parameters([])


@pytest.mark.parametrize(("given", "refused"), [
    ("ShardCount=8", "KeyBuckets=4"),
    ("ShardCount=8 KeyBuckets=8", None),
    ("ShardCount=8 StreamMode=ON_DEMAND", None),
    ("ShardCount=3", "KeyBuckets 16"),
    ("ShardCount=3 KeyBuckets=16", None),
    ("ShardCount=5 KeyBuckets=16", "KeyBuckets 32"),
    ("ShardCount=200 KeyBuckets=256", None),
    ("LandingTimeoutSeconds=60", None),
    ("LandingTimeoutSeconds=30", "BatchSize=100 .* lower BatchSize to 70"),
    ("LandingTimeoutSeconds=60 BatchSize=200", "BatchSize=200"),
    ("LandingTimeoutSeconds=120 BatchSize=200", None),
    ("LandingTimeoutSeconds=5 BatchSize=7", None),
    ("WriteKeys=web=0123456789abcdef,web=0123456789abcdeg", None),
    ("WriteKeys=web=0123456789abcdef,web=0123456789abcdeg,ios=0123456789abcdef", "the key of pair 3 repeats an earlier key"),
])
def test_values_that_do_not_fit_each_other_are_refused_before_anything_is_deployed(given, refused):
    deploy = script("deploy")
    values = values_with(given)
    if refused:
        with pytest.raises(SystemExit, match=refused):
            deploy.refuse_what_does_not_fit(values)
    else:
        deploy.refuse_what_does_not_fit(values)


def values_with(given):
    defaults = {name: str(parameter["Default"]) for name, parameter in document()["Parameters"].items() if "Default" in parameter}
    return defaults | dict(one.split("=", 1) for one in given.split())


def stack_with(given):
    values = dict(one.split("=") for one in given.split())
    return {"Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]} if values else {}


@pytest.mark.parametrize(("running", "given", "step"), [
    ("", "ShardCount=16", None),
    ("StreamMode=PROVISIONED ShardCount=7", "ShardCount=4", None),
    ("StreamMode=PROVISIONED ShardCount=7", "ShardCount=3", "ShardCount=4 KeyBuckets=4"),
    ("StreamMode=PROVISIONED ShardCount=2", "ShardCount=4", None),
    ("StreamMode=PROVISIONED ShardCount=2", "ShardCount=5", "ShardCount=4 KeyBuckets=4"),
    ("StreamMode=PROVISIONED ShardCount=16", "ShardCount=2", "ShardCount=8 KeyBuckets=8"),
    ("StreamMode=PROVISIONED ShardCount=13", "ShardCount=2", "ShardCount=7 KeyBuckets=32"),
    ("StreamMode=ON_DEMAND ShardCount=2", "ShardCount=16", None),
    ("StreamMode=PROVISIONED ShardCount=2", "ShardCount=16 StreamMode=ON_DEMAND", None),
])
def test_shards_are_at_most_doubled_or_halved(running, given, step):
    """What is advised instead is not refused."""
    deploy = script("deploy")
    values = values_with(given)
    if step:
        with pytest.raises(SystemExit, match=f'PARAMETERS="{step}"$'):
            deploy.refuse_a_jump_in_shards("playhead-prod", stack_with(running), values)
        values |= dict(one.split("=") for one in step.split())
        deploy.refuse_what_does_not_fit(values)
    deploy.refuse_a_jump_in_shards("playhead-prod", stack_with(running), values)


@pytest.mark.parametrize(("shards", "buckets"), [(1, 4), (4, 4), (7, 32), (12, 64), (16, 16), (200, 256)])
def test_a_stack_of_an_older_version_keeps_its_shards_until_records_are_compressed(shards, buckets):
    """No shard has much more than its share of the buckets."""
    deploy = script("deploy")
    configured = values_with("ShardCount=1 RecordCompression=zstd")
    older = stack_with(f"StreamMode=PROVISIONED ShardCount={shards}")
    values = deploy.let_landing_read_first("playhead-prod", older, configured)
    assert {"RecordCompression": "off", "ShardCount": str(shards), "KeyBuckets": str(buckets)}.items() <= values.items()
    assert {name for name in values if values[name] != configured[name]} <= {"RecordCompression", "ShardCount", "KeyBuckets"}
    assert buckets in document()["Parameters"]["KeyBuckets"]["AllowedValues"]
    deploy.refuse_what_does_not_fit(values)
    newer = stack_with(f"StreamMode=PROVISIONED ShardCount={shards} RecordCompression=off")
    assert deploy.let_landing_read_first("playhead-prod", newer, configured) == configured


def test_packages_are_installed_before_there_are_credentials():
    steps = document(".github/workflows/deploy-to.yml")["jobs"]["deploy"]["steps"]
    places = {name: next(place for place, step in enumerate(steps) if name in step.get("run", step.get("uses", "")))
              for name in (".venv/installed", "configure-aws-credentials", "make deploy")}
    assert places[".venv/installed"] < places["configure-aws-credentials"] < places["make deploy"]


def test_what_is_deployed_is_what_was_tested():
    """Packages are built and uploaded once, behind the tests; each environment gets those bytes."""
    build = next(job["steps"] for job in document(".github/workflows/deploy.yml")["jobs"].values() if "steps" in job)
    deploy = document(".github/workflows/deploy-to.yml")["jobs"]["deploy"]["steps"]
    name = lambda steps, action: next(step["with"]["name"] for step in steps if action in step.get("uses", ""))
    assert name(build, "upload-artifact") == name(deploy, "download-artifact")
    runs = [step.get("run", "") for step in deploy]
    assert any("make deploy" in run and "BUILD=no" in run for run in runs)
    assert not [run for run in runs if "make build" in run or "cargo" in run]


def of_kind(resources, service):
    return [key for key, one in resources.items() if one["Type"].startswith(service)]


@pytest.mark.parametrize("function", ["Ingest", "Landing"])
def test_a_new_parameter_value_makes_a_new_version(function):
    """All parameters and resources that a function with an alias gets are in its version's description: a new value
    replaces the version, which SAM alone would not do."""
    properties = functions()[function]
    given = {name for value in [*properties["Environment"]["Variables"].values(), properties["Timeout"]]
            for name in re.findall(r"'Ref': '(\w+)'", str(value))}
    described = set(re.findall(r"\$\{(\w+)\}", properties["VersionDescription"]["Fn::Sub"]))
    digested = given & set(script("deploy").DIGESTED)
    assert given and given - digested | ({"SettingsDigest"} if digested else set()) == described
    parameters = [document()["Parameters"][name] for name in described & document()["Parameters"].keys()]
    limits = [parameter.get("MaxLength") or max(len(str(value)) for value in parameter["AllowedValues"]) for parameter in parameters]
    assert sum(limits) + 52 + 2 + len(described) <= 256, "the longest description that Lambda takes"


def test_deploy_fills_in_a_digest_that_each_value_it_stands_for_changes():
    """As many values as digests, and the same one for the same values; a template without the parameter gets none."""
    deploy, parameters = script("deploy"), document()["Parameters"]
    defaults = {name: str(one["Default"]) for name, one in parameters.items()}
    digest = lambda **given: deploy.with_digest(defaults | given)["SettingsDigest"]
    changes = [{}, {"ClientContext": "page"}, {"WriteKeys": "web=0123456789abcdef"}, {"KeyEventsPerSecond": "7"},
               {"EventSchema": "schemas/a.json"}, {"EventSchemaMode": "reject"}]
    assert {name for change in changes for name in change} == set(deploy.DIGESTED)
    digests = [digest(**change) for change in changes]
    assert len(set(digests)) == len(changes) and digests == [digest(**change) for change in changes]
    assert all(re.fullmatch(parameters["SettingsDigest"]["AllowedPattern"], one) for one in digests)
    assert deploy.with_digest({"Commit": "unknown"}) == {"Commit": "unknown"}


@pytest.mark.parametrize(("value", "fits"), [
    ("", True), ("web=0123456789abcdef", True), ("web=0123456789abcdef,web=0123456789.abc_~f\nios-2=0123456789abcdef-\n", True),
    (",".join(f"web={number:016}" for number in range(50)), True), (",".join(f"web={number:016}" for number in range(51)), False),
    ("web", False), ("web=short", False), ("Web=0123456789abcdef", False), ("web=0123456789abcdef/", False), ("0123456789abcdef=web", False),
])
def test_write_keys_that_ingest_would_not_start_with_are_refused_before_a_deployment(value, fits):
    assert bool(re.fullmatch(document()["Parameters"]["WriteKeys"]["AllowedPattern"], value)) == fits


@pytest.mark.parametrize(("template", "role"), [("template.yaml", "IngestRole"), ("nested/server.yaml", "TaskRole")])
def test_ingest_may_read_schemas_and_nothing_else(template, role):
    """Without a condition: what runs while a schema is taken away still starts with it."""
    reads = [one for policy in document(template)["Resources"][role]["Properties"]["Policies"]
             for one in policy["PolicyDocument"]["Statement"] if "s3:Get" in str(one)]
    schemas, = reads
    assert schemas["Action"] == "s3:GetObject" and re.search(r"/schemas/\*'?[\]}]", str(schemas["Resource"])), schemas


def test_a_schema_needs_no_server():
    assert "EventSchema" not in str(document()["Rules"])


@pytest.mark.parametrize(("key", "fits"), [
    ("", True), ("schemas/events-3.json", True), ("schemas/a/B_c.9", True), ("schemas/", False), ("events/a.json", False),
    ("schemas/*", False), ("schemas/a b", False), ("schemas/?", False), ("schemas/" + "a" * 120, True), ("schemas/" + "a" * 121, False),
])
def test_a_key_of_a_schema_that_would_open_more_than_one_object_is_refused(key, fits):
    assert bool(re.fullmatch(document()["Parameters"]["EventSchema"]["AllowedPattern"], key)) == fits


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


def test_an_http_api_is_throttled_and_logs_no_personal_data():
    """The stage has a rate and a burst, its access log is kept for as long as the others, and says nothing of who sent it."""
    stage = document()["Resources"]["HttpApiStage"]["Properties"]
    rate = {"Ref": "HttpApiRequestsPerSecond"}
    assert stage["DefaultRouteSettings"] == {"ThrottlingRateLimit": rate, "ThrottlingBurstLimit": 1250}
    assert stage["AccessLogSettings"]["DestinationArn"] == {"Fn::GetAtt": ["HttpApiLogGroup", "Arn"]}
    line = json.loads(stage["AccessLogSettings"]["Format"])
    assert line["requestId"] == "$context.requestId", "API Gateway takes no format without it"
    assert not re.search("sourceIp|userAgent|identity|authorizer", json.dumps(line))


def test_a_domain_name_needs_an_http_api_and_a_certificate():
    """Each way to give half of what an own domain takes is refused before anything is made, with a sentence."""
    template = document()
    rule = template["Rules"]["OwnDomain"]
    assert rule["RuleCondition"] == template["Conditions"]["HasDomainName"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "DomainName"}, ""]}]}
    doors, certificate = [one["Assert"] for one in rule["Assertions"]]
    assert {"Fn::Equals": [{"Ref": "FrontDoor"}, "HttpApi"]} in doors["Fn::Or"] and "FunctionUrl" not in str(doors)
    assert certificate == {"Fn::Not": [{"Fn::Equals": [{"Ref": "CertificateArn"}, ""]}]}
    for name in ("OwnDomain", "OwnDomainMapping"):
        assert template["Resources"][name]["Condition"] == "HasApiDomainName"


def given_by(config, environment):
    return dict(pair.split("=", 1) for pair in config[environment]["deploy"]["parameters"]["parameter_overrides"])


def cut_out():
    """The template of notify alone."""
    return script("central.py").reduced(document(), document("alarms.yaml"))


def test_a_central_template_is_the_part_of_the_whole_one_that_notify_needs():
    """notify with its topics, bucket, reminders, bus and last-resort alarms, each as the whole stack has it, and nothing that lands."""
    whole, cut = document(), cut_out()
    resources, parts = cut["Resources"], {**whole["Resources"], **expanded()}
    assert resources.keys() == {
        "AlarmsTopic", "NoticesTopic", "NoticesSubscription", "LastResortTopic", "LastResortSubscription", "NotifyFunction", "NotifyRole",
        "NotifyLogGroup", "ReportsBus", "ReportsRule", "ReportsPermission", "LandingBucket", "LandingBucketPolicy", "NotifyErrorsAlarm",
        "NotifyDidNotRunAlarm"}
    for name in resources.keys() - {"LandingBucket", "NotifyErrorsAlarm", "NotifyDidNotRunAlarm"}:
        assert resources[name] == parts[name], name
    bucket, of_whole = resources["LandingBucket"]["Properties"], parts["LandingBucket"]["Properties"]
    assert {name for name in of_whole if bucket.get(name) != of_whole[name]} == {"NotificationConfiguration", "LifecycleConfiguration"}
    kept = {rule["Id"] for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert kept == {"abort-stale-uploads", "remove-old-versions", "remove-old-incidents"}
    for name, rule in (("NotifyErrorsAlarm", "notify-errors"), ("NotifyDidNotRunAlarm", "notify-did-not-run")):
        alarm = resources[name]["Properties"]
        assert alarm["AlarmName"] == {"Fn::Sub": "${AWS::StackName}-" + rule} and alarm["AlarmActions"] == [{"Ref": "LastResortTopic"}]
    assert resources["NotifyDidNotRunAlarm"]["Properties"]["Dimensions"] == [{"Name": "RuleName", "Value": {"Ref": "NotifyFunctionReminders"}}]
    assert cut["Parameters"].keys() == {"Environment", "Architecture", "PermissionsBoundary", "Commit", "LogRetentionDays", "NoticesEmail",
                                        "TrustedAccounts", "ReminderMinutes", "GroupingSeconds", "MailFrom", "RunbookUrl"}
    assert all(whole["Parameters"][name] == one for name, one in cut["Parameters"].items())
    assert cut["Outputs"].keys() == {"Commit", "LandingBucketName", "AlarmsTopicArn", "LastResortTopicArn", "NoticesTopicArn", "ReportsBusArn"}


def test_a_central_template_that_would_refer_to_what_it_has_not_is_not_made():
    whole = document()
    whole["Resources"]["NotifyFunction"]["Properties"]["Environment"]["Variables"]["STREAM"] = {"Ref": "EventStream"}
    with pytest.raises(ValueError, match="EventStream"):
        script("central.py").reduced(whole, document("alarms.yaml"))


def test_a_central_stack_and_a_whole_one_do_not_replace_each_other():
    """STACK may be left over in a shell: a central stack over a whole one would remove the pipeline."""
    deploy = script("deploy")
    whole, alone = document()["Parameters"], cut_out()["Parameters"]
    found = lambda declared: {"Parameters": [{"ParameterKey": name, "ParameterValue": ""} for name in declared]}
    for running, values in ((whole, alone), (alone, whole)):
        with pytest.raises(SystemExit, match="unset STACK"):
            deploy.refuse_another_kind("playhead-prod", found(running), values)
    for one in (whole, alone):
        deploy.refuse_another_kind("playhead-prod", found(one), one)
        deploy.refuse_another_kind("playhead-prod", {}, one)


def test_environments_set_only_parameters_that_exist():
    """samconfig.toml has dev, staging, prod and the central notify, no secret, and only parameters and values that the template takes."""
    parameters = document()["Parameters"]
    config = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    environments = [name for name in config if name not in ("version", "default")]
    assert environments == ["dev", "staging", "prod", "central"]
    assert set(given_by(config, "central")) <= cut_out()["Parameters"].keys()
    for environment in environments:
        overrides = dict(pair.split("=", 1) for pair in config[environment]["deploy"]["parameters"]["parameter_overrides"])
        assert overrides["Environment"] == ("prod" if environment == "central" else environment)
        for name, value in overrides.items():
            declared = parameters[name]
            assert not declared.get("NoEcho"), f"{name} is a secret"
            assert value in map(str, declared.get("AllowedValues", [value]))
            if declared["Type"] == "Number":
                assert declared.get("MinValue", 0) <= int(value) <= declared.get("MaxValue", int(value))
        shards, buckets = (int(overrides.get(name, parameters[name]["Default"])) for name in ("ShardCount", "KeyBuckets"))
        assert buckets % shards == 0, "each shard has as many buckets as the others"
    # A first deployment that failed is removed where nobody needs to read what is left of it.
    assert [config[environment]["deploy"]["parameters"].get("on_failure") for environment in environments] == ["DELETE", None, None, None]


def test_profiles_name_existing_packages():
    """Cargo only warns of a profile for a package that is not there."""
    packages = {one["name"] for one in tomllib.loads((REPOSITORY / "Cargo.lock").read_text())["package"]}
    named = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["profile"]["release"]["package"].keys() - {"*"}
    assert named and named <= packages, named - packages


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


def grafana():
    script = REPOSITORY / "tools/scripts/grafana"
    return json.loads(subprocess.run([sys.executable, script], check=True, capture_output=True, text=True).stdout)


def test_both_dashboards_show_the_same_and_only_what_is_measured():
    """The panels of CloudWatch and of Grafana are the same, and each metric in them exists."""
    panels = {panel["title"]: [(target["namespace"], target["metricName"]) for target in panel["targets"]]
              for panel in grafana()["panels"]}
    assert panels == dict(cloudwatch_panels())
    shown = {metric for lines in panels.values() for metric in lines}
    assert shown <= metrics(), shown - metrics()


def test_grafana_finds_what_its_panels_show_by_the_name_of_the_stack():
    """Each variable is declared; each dimension is one that a line of CloudWatch's dashboard has; no panel covers another."""
    dashboard = grafana()
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    values = [value for panel in dashboard["panels"] for target in panel["targets"]
              for dimension in target["dimensions"].values() for value in dimension]
    used = {value[1:] for value in values if value.startswith("$")}
    assert used == variables.keys() - {"datasource", "region", "stack"} and len(used) >= 8
    for name in used - {"landing_mapping"}:
        assert variables[name]["regex"].startswith("/^$stack-")
    assert {value for value in values if not value.startswith("$")} == {"events/dt=*/hour=*/", "events/dt=*/"}
    covered = [(x, y) for at in (panel["gridPos"] for panel in dashboard["panels"])
               for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(covered) == len(set(covered)) and max(x for x, _ in covered) == 23
