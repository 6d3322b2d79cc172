"""notify alone, as the central one of other accounts and regions, by `make deploy ENV=central` to MiniStack: its recipients in Parameter
Store, and the alarms that are reported to it."""

import itertools
import json
import shlex

import pytest
from botocore.exceptions import ClientError

from support.chat import Chat
from support.cloud import ACCOUNT, REGION, MiniStack
from support.deployment import Deployment, script
from support.stack import wait_for

STACK = "playhead-central"
PARAMETER = f"/{STACK}/recipients"
NORTH, WEST, STRANGER = ("111122223333", "eu-north-1"), ("444455556666", "eu-west-1"), ("777788889999", "eu-west-1")
TRUSTED = f"TrustedAccounts={NORTH[0]},{WEST[0]}"


@pytest.fixture(scope="module")
def chat():
    chat = Chat()
    yield chat
    chat.stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    cloud = MiniStack(tmp_path_factory.mktemp("ministack"))
    yield cloud
    cloud.stop()


def groups(address):
    return json.dumps([{"group": "platform", "alarms": ["*"], "webhook": address}])


@pytest.fixture(scope="module")
def older(cloud, chat):
    """A central stack of a version that had its recipients in notify's environment, deployed as that version was."""
    variables = Deployment.variables(cloud) | {"YES": "1", "STACK": STACK, "PARAMETERS": f"{TRUSTED} " + shlex.quote(f"Recipients={groups(chat.slack)}")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("RECIPIENTS", raising=False)
        module = script("deploy")
        document = module.yaml_parse(module.BUILT.read_text())
        document["Parameters"]["Recipients"] = {"Type": "String", "NoEcho": True, "Default": "[]"}
        environment = document["Resources"]["NotifyFunction"]["Properties"]["Environment"]["Variables"]
        del environment["RECIPIENTS_PARAMETER"]
        environment["RECIPIENTS"] = {"Ref": "Recipients"}
        template = module.BUILT.with_name("older-notify.yaml")
        template.write_text(json.dumps(document))
        patch.setattr(module, "BUILT", template)
        module.main("central")
        template.unlink()
    deployment = Deployment.existing(cloud, "central", STACK)
    assert variables_of(deployment)["RECIPIENTS"] == groups(chat.slack)
    return deployment


def variables_of(deployment):
    configuration = deployment.cloud.client("lambda").get_function_configuration(FunctionName=deployment.resources["NotifyFunction"])
    return configuration["Environment"]["Variables"]


def stored(cloud):
    return cloud.client("ssm").get_parameter(Name=PARAMETER, WithDecryption=True)["Parameter"]


@pytest.fixture(scope="module")
def central(older):
    older.deploy(TRUSTED)
    return older


def report(at, alarm, state, time, **changed):
    """What EventBridge delivers of an alarm elsewhere."""
    account, region = at
    event = {
        "version": "0", "id": "c4c1c1c9", "detail-type": "CloudWatch Alarm State Change", "source": "aws.cloudwatch", "account": account,
        "time": f"2026-11-21T{time}Z", "region": region, "resources": [f"arn:aws:cloudwatch:{region}:{account}:alarm:{alarm}"],
        "detail": {
            "alarmName": alarm,
            "configuration": {"description": "Landed objects are not what their metadata says (count). #broken-objects", "metrics": [
                {"id": "m", "returnData": True, "metricStat": {"period": 300, "stat": "Maximum", "metric": {
                    "namespace": "Playhead", "name": "BrokenObjects", "dimensions": {"FunctionName": "check-recency"}}}}]},
            "state": {"value": state, "timestamp": f"2026-11-21T{time}.000+0000",
                      "reason": "Threshold Crossed: 1 datapoint [3.0 (21/11/26 09:35:00)] was greater than the threshold (0.0)."}}}
    return event | changed


def deletion(at, alarm, time, operation="delete"):
    """What EventBridge delivers of an alarm whose configuration changed, as by its deletion."""
    event = report(at, alarm, "ALARM", time) | {"detail-type": "CloudWatch Alarm Configuration Change"}
    event["detail"] |= {"operation": operation, "state": {"value": "ALARM", "timestamp": "2026-11-21T09:40:12.345+0000"}}
    return event


def test_recipients_of_an_older_version_move_to_parameter_store(older, chat):
    """A deployment over a stack that has them in its environment loses none, and prints none."""
    with pytest.raises(ClientError, match="ParameterNotFound"):
        stored(older.cloud)
    older.deploy(TRUSTED)
    found = stored(older.cloud)
    assert (found["Value"], found["Type"]) == (groups(chat.slack), "SecureString")
    assert f"recipients: 1 group in {PARAMETER}" in older.said and "/secret" not in older.said
    variables = variables_of(older)
    assert variables["RECIPIENTS_PARAMETER"] == PARAMETER and "RECIPIENTS" not in variables


def test_a_deployment_without_recipients_leaves_them_alone(central, chat):
    version = stored(central.cloud)["Version"]
    central.deploy(TRUSTED)
    assert stored(central.cloud)["Version"] == version and "recipients:" not in central.said


def test_a_central_stack_has_notify_and_nothing_that_lands(central):
    kinds = {name for name in central.resources if name.endswith("Function")}
    assert kinds == {"NotifyFunction"} and not {"EventStream", "LandedTopic", "Alarms"} & central.resources.keys()
    alarms = central.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert {alarm["AlarmName"]: alarm["AlarmActions"] for alarm in alarms} == {
        f"{STACK}-notify-{name}": [central.resources["LastResortTopic"]] for name in ("errors", "did-not-run")}
    assert central.outputs["ReportsBusArn"] == f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{STACK}-reports"


def test_an_alarm_of_another_account_and_region_reaches_people(central, chat):
    """With account and region; equal alarms of two accounts are two incidents."""
    del chat.texts[:]
    alarm = "playhead-prod-broken-objects"
    for at, time in ((NORTH, "09:40:12"), (WEST, "09:41:12"), (NORTH, "09:40:12")):
        central.invoke("NotifyFunction", report(at, alarm, "ALARM", time))
    assert len(chat.texts) == 2, "the same report again changes nothing"
    for text, (account, region) in zip(chat.texts, (NORTH, WEST)):
        lines = dict(line.split(": ", 1) for line in text.splitlines())
        assert lines[f"ALARM in account {account}, {region}"] == "Landed objects are not what their metadata says (count)."
        assert lines["Where"] == f"function check-recency, account {account}, {region}"
        assert lines["Expected"] == "BrokenObjects at most 0 (count), as Maximum of 5 min" and lines["Actual"] == "3 (count)"
        assert "Last values" not in lines and lines["Alarm"] == alarm
    central.invoke("NotifyFunction", report(NORTH, alarm, "OK", "09:50:12"))
    assert chat.texts[2].startswith(f"RESOLVED after 10 min in account {NORTH[0]}, {NORTH[1]}: no alarm is on any more.")
    central.invoke("NotifyFunction", {"source": "aws.events", "time": "2026-11-21T11:00:00Z"})
    assert len(chat.texts) == 4 and chat.texts[3].startswith(f"STILL ON after 1 h 18 min in account {WEST[0]}, {WEST[1]}: 1 alarm.")
    ledgers = [key.removeprefix("incidents/open/") for key in central.keys("incidents/open/")]
    assert set(ledgers) - {"platform.json"} == {f"platform.{account}.{region}.json" for account, region in (NORTH, WEST)}


def test_an_alarm_of_another_account_that_is_deleted_while_it_is_on_is_over(central, chat):
    del chat.texts[:]
    alarm = "playhead-prod-lost-events"
    central.invoke("NotifyFunction", report(NORTH, alarm, "ALARM", "09:40:12"))
    for event in (deletion(WEST, alarm, "09:45:00"), deletion(NORTH, alarm, "09:45:00", "update"), deletion(STRANGER, alarm, "09:45:00")):
        central.invoke("NotifyFunction", event)
    assert len(chat.texts) == 1, "an equal name elsewhere, a change, and an account that is not trusted end nothing"
    central.invoke("NotifyFunction", deletion(NORTH, alarm, "09:50:12"))
    assert chat.texts[1].startswith(f"RESOLVED after 10 min in account {NORTH[0]}, {NORTH[1]}: the alarm was deleted.")
    central.invoke("NotifyFunction", deletion(NORTH, alarm, "09:50:12"))
    assert len(chat.texts) == 2


def test_reports_that_lie_or_are_not_trusted_reach_nobody(central, chat):
    del chat.texts[:]
    before = central.keys("incidents/")
    arn = "arn:aws:cloudwatch:eu-north-1:111122223333:alarm:x"
    for event in (report(STRANGER, "x", "ALARM", "10:00:00"), report(WEST, "x", "ALARM", "10:00:00", resources=[arn]),
                  report(NORTH, "x", "ALARM", "10:00:00", region="us-east-1"), report(NORTH, "x", "ALARM", "10:00:00", source="custom"),
                  report(NORTH, "x" * 256, "ALARM", "10:00:00"), report(NORTH, "x", "INSUFFICIENT_DATA", "10:00:00")):
        central.invoke("NotifyFunction", event)
    assert chat.texts == [] and central.keys("incidents/") == before
    log = central.log("NotifyFunction")
    assert "TrustedAccounts does not have" in log and "not of the account and region that it comes from" in log
    assert "longer than CloudWatch's can be" in log


def test_the_bus_leads_what_trusted_accounts_report_to_notify_and_nothing_else(central):
    events = central.cloud.client("events")
    rule, = events.list_rules(EventBusName=central.resources["ReportsBus"])["Rules"]
    target, = events.list_targets_by_rule(Rule=rule["Name"], EventBusName=central.resources["ReportsBus"])["Targets"]
    assert target["Arn"].endswith(f":function:{central.resources['NotifyFunction']}")
    matches = lambda event: events.test_event_pattern(EventPattern=rule["EventPattern"], Event=json.dumps(event))["Result"]
    assert matches(report(NORTH, "x", "ALARM", "10:00:00")) and matches(report(WEST, "x", "OK", "10:00:00"))
    assert not matches(report(STRANGER, "x", "ALARM", "10:00:00"))
    assert not matches(report(NORTH, "x", "INSUFFICIENT_DATA", "10:00:00"))
    assert not matches(report(NORTH, "x", "ALARM", "10:00:00", source="custom"))
    assert matches(deletion(NORTH, "x", "10:00:00")) and not matches(deletion(STRANGER, "x", "10:00:00"))
    assert not matches(deletion(NORTH, "x", "10:00:00", "create")) and not matches(deletion(NORTH, "x", "10:00:00", "update"))
    # Nobody but AWS puts events of aws.cloudwatch.
    entry = {"EventBusName": central.resources["ReportsBus"], "Source": "aws.cloudwatch", "DetailType": "CloudWatch Alarm State Change",
             "Detail": json.dumps(report(NORTH, "x", "ALARM", "10:00:00")["detail"])}
    result, = events.put_events(Entries=[entry])["Entries"]
    assert result["ErrorCode"] == "NotAuthorizedForSourceException"


def test_rotated_recipients_are_put_checked_and_used(central, chat):
    """A function that starts anew, as with another timeout, has them at once; one that runs, within five minutes: monitoring-lambdas' own tests."""
    refused = central.run_by_hand("tools/scripts/deploy", "central", variables={
        "STACK": STACK, "YES": "1", "RECIPIENTS": '[{"group":"a","alarms":["*"],"webhook":"http://example.com/secret"}]'})
    assert refused.returncode != 0 and "RECIPIENTS[0].webhook" in refused.stdout and "/secret" not in refused.stdout
    assert stored(central.cloud)["Value"] == groups(chat.slack)
    rotated = chat.slack + "-rotated"
    central.deploy(TRUSTED, groups(rotated))
    assert stored(central.cloud)["Value"] == groups(rotated) and "/secret" not in central.said
    chat.paths[:] = []
    functions = central.cloud.client("lambda")
    functions.update_function_configuration(FunctionName=central.resources["NotifyFunction"], Timeout=59)
    wait_for(lambda: used(central, chat, rotated), 30, lambda: f"the rotated webhook in {chat.paths}")


ROUNDS = itertools.count()


def used(central, chat, address):
    """Whether the address gets what opens an incident and what ends it."""
    alarm = f"x-{next(ROUNDS)}"
    for state, time in (("ALARM", "12:00:00"), ("OK", "12:00:01")):
        central.invoke("NotifyFunction", report(NORTH, alarm, state, time))
    return any(address.endswith(path) for path in chat.paths)


def test_notify_does_not_start_with_a_malformed_parameter_and_names_it(central):
    cloud = central.cloud
    cloud.client("ssm").put_parameter(Name=PARAMETER, Value='[{"group":"secret!"}]', Type="SecureString", Overwrite=True)
    cloud.client("lambda").update_function_configuration(FunctionName=central.resources["NotifyFunction"], Timeout=58)

    def is_named():
        answer = cloud.client("lambda").invoke(FunctionName=central.resources["NotifyFunction"], Payload=b'{"time":"2026-11-21T12:00:00Z"}')
        return "FunctionError" in answer and f"parameter {PARAMETER} can't be used" in cloud.tail(400)
    wait_for(is_named, 60, "a start that fails")
    assert "secret!" not in cloud.tail(400)


def test_a_whole_stack_reports_to_a_central_one(cloud, central):
    """Its rule takes its own alarms alone, and puts them on that bus."""
    bus = "arn:aws:events:eu-central-1:111122223333:event-bus/playhead-central-reports"
    whole = Deployment(cloud, "dev", "playhead-reporting", f"BatchingWindowSeconds=0 CentralNotify={bus}")
    events = cloud.client("events")
    target, = events.list_targets_by_rule(Rule=whole.resources["CentralRule"])["Targets"]
    assert (target["Arn"], target["RoleArn"].rsplit("/", 1)[-1]) == (bus, whole.resources["CentralRole"])
    pattern = events.describe_rule(Name=whole.resources["CentralRule"])["EventPattern"]
    matches = lambda event: events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"]
    own = (ACCOUNT, REGION)
    assert matches(report(own, "playhead-reporting-broken-objects", "ALARM", "10:00:00"))
    assert not matches(report(own, "playhead-dev-broken-objects", "ALARM", "10:00:00"))
    assert matches(deletion(own, "playhead-reporting-broken-objects", "10:00:00"))
    for other in (deletion(own, "playhead-dev-broken-objects", "10:00:00"), deletion(own, "playhead-reporting-canary-x", "10:00:00"),
                  deletion(own, "playhead-reporting-broken-objects", "10:00:00", "update"), report(own, "playhead-reporting-canary-x", "ALARM", "10:00:00")):
        assert not matches(other)
    refused = central.run_by_hand("tools/scripts/deploy", "central", variables={"STACK": "playhead-reporting", "YES": "1"})
    assert refused.returncode != 0 and "unset STACK" in refused.stdout


def test_a_central_stack_is_removed_once_its_name_is_typed(central):
    """Its incidents stay, its recipients don't."""
    with pytest.raises(AssertionError, match="is left as it is"):
        central.run("destroy", {}, answer="yes\n")
    said = central.run("destroy", {}, answer=f"{STACK}\n")
    assert f"kept: s3://{central.bucket}" in said and f"removed: {PARAMETER}" in said
    with pytest.raises(ClientError, match="ParameterNotFound"):
        stored(central.cloud)
