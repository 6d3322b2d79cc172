"""From a metric to a person: the real template's alarms, MiniStack's CloudWatch and SNS, the real notify, a webhook."""

import bz2
import html
import json
import time

import pytest

from support.chat import Chat
from support.cloud import ACCOUNT, REGION, MiniStack
from support.deployment import Deployment
from support.stack import wait_for

STACK = "playhead-test"
BUCKET = f"{STACK}-landing-{ACCOUNT}-{REGION}"
RUNBOOK = "https://git.example.com/playhead/docs/RUNBOOK.md"
# The alarms' period is five minutes: a value of so long ago counts now and no more in twenty seconds.
ALMOST_A_PERIOD = 280


# An object's key, which anybody who may write to the bucket can choose.
HOSTILE = "events/<!channel> <https://evil.example|see & click> *b* [x](https://evil.example) {{DATE(2026-11-21T09:00:00Z)}}.jsonl.bz2"


@pytest.fixture(scope="module")
def chat():
    chat = Chat()
    yield chat
    chat.stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, chat):
    cloud = MiniStack(tmp_path_factory.mktemp("ministack"))
    try:
        recipients = [{"group": "platform", "alarms": ["*"], "webhook": chat.slack, "email": True},
                      {"group": "teams", "alarms": ["*"], "webhook": chat.teams, "format": "adaptive-card"}]
        deployment = Deployment(cloud, "dev", STACK, f"RunbookUrl={RUNBOOK}", json.dumps(recipients))
        # The webhook is a secret: nobody who reads CI's log may see it.
        assert f"recipients: 2 groups in /{STACK}/recipients" in deployment.said and "/secret" not in deployment.said
        # What the schedules would find, in a stack without events, is not this test's.
        events = cloud.client("events")
        for rule in events.list_rules()["Rules"]:
            events.disable_rule(Name=rule["Name"])
        # What notices for e-mail become, where a test can read it.
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:mail"
        sns_may_send = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage",
                        "Resource": arn}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [sns_may_send]})
        queue = cloud.client("sqs").create_queue(QueueName="mail", Attributes={"Policy": policy})["QueueUrl"]
        cloud.client("sns").subscribe(
            TopicArn=cloud.resources(STACK)["NoticesTopic"], Protocol="sqs", Endpoint=arn,
            Attributes={"FilterPolicy": json.dumps({"group": ["platform"]})},
        )
        cloud.queue = queue
        yield cloud
    finally:
        cloud.stop()


def put(cloud, metric, function, value, seconds_ago):
    at = time.time() - seconds_ago
    dimensions = [{"Name": "FunctionName", "Value": cloud.resources(STACK)[function]}]
    datum = {"MetricName": metric, "Dimensions": dimensions, "Value": value, "Unit": "Count", "Timestamp": at}
    cloud.client("cloudwatch").put_metric_data(Namespace="Playhead", MetricData=[datum])


def state(cloud, alarm):
    found, = cloud.client("cloudwatch").describe_alarms(AlarmNames=[f"{STACK}-{alarm}"])["MetricAlarms"]
    return found["StateValue"]


def tick(cloud, at):
    """What the schedule would send at that time."""
    event = {"source": "aws.events", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))}
    answer = cloud.client("lambda").invoke(
        FunctionName=cloud.resources(STACK)["NotifyFunction"], Payload=json.dumps(event).encode())
    assert "FunctionError" not in answer, answer["Payload"].read()


def objects(cloud, prefix):
    listed = cloud.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    get = cloud.client("s3").get_object
    return {item["Key"]: json.loads(get(Bucket=BUCKET, Key=item["Key"])["Body"].read()) for item in listed}


def mail(cloud):
    messages = cloud.client("sqs").receive_message(QueueUrl=cloud.queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


def test_an_incident_reaches_people_and_its_end_does_too(cloud, chat):
    """A metric above its threshold becomes a message that says all; a storm is one message, and so is its end."""
    put_verdict(cloud, HOSTILE)
    put(cloud, "BrokenObjects", "CheckRecencyFunction", 0, 900)
    put(cloud, "BrokenObjects", "CheckRecencyFunction", 3, ALMOST_A_PERIOD)
    assert state(cloud, "broken-objects") == "ALARM"
    wait_for(lambda: chat.texts, 30, lambda: f"a message\n{cloud.tail()}")
    assert not set("<>") & set(chat.texts[0])
    shown = html.unescape(chat.texts[0])
    lines = dict(line.split(": ", 1) for line in shown.splitlines())
    assert lines[f"ALARM in {STACK}"] == "Landed objects are not what their metadata says (count)."
    function = cloud.resources(STACK)["CheckRecencyFunction"]
    assert lines["Where"] == f"function {function}, stack {STACK}"
    assert lines["Since"].startswith(time.strftime("%Y-%m-%d", time.gmtime())) and lines["Since"].endswith(" UTC")
    assert lines["Expected"] == "BrokenObjects at most 0 (count), as Maximum of 5 min"
    assert lines["Actual"] == "3 (count)"
    assert lines[f"- {HOSTILE}"] == "the object is gone"
    chart, rest = lines["Last values"].split(" ", 1)
    assert len(chart) == 20 and "▁" in chart and "▇" in chart and rest.startswith("(0 to 3 (count); 5 min each")
    assert lines["Alarm"] == f"{STACK}-broken-objects"
    assert lines["What to do"] == f"{RUNBOOK}#broken-objects"
    # Teams gets the same, line by line, with the one link that is ours.
    wait_for(lambda: chat.cards, 30, lambda: f"a card\n{cloud.tail()}")
    assert [run["text"] for run in chat.cards[0]] == shown.replace("{DATE(", "{ DATE(").splitlines()
    link = {"type": "Action.OpenUrl", "url": f"{RUNBOOK}#broken-objects"}
    assert [run["selectAction"] for run in chat.cards[0] if "selectAction" in run] == [link]

    # A second alarm of the same storm.
    put(cloud, "MissingPartitions", "CheckRecencyFunction", 2, ALMOST_A_PERIOD)
    assert state(cloud, "missing-partitions") == "ALARM"
    ledger = "incidents/open/platform.json"
    alarms = lambda: objects(cloud, ledger)[ledger]["open"]["alarms"]
    wait_for(lambda: len(alarms()) == 2, 30, lambda: f"two alarms in {objects(cloud, ledger)}\n{cloud.tail()}")
    assert len(chat.texts) == 1
    tick(cloud, time.time() + 300)
    assert len(chat.texts) == 2 and chat.texts[1].startswith(f"1 alarm more in {STACK}, in the incident since")

    # Both are over: the webhook is overloaded for a moment, and the message comes all the same.
    chat.statuses[:] = [503, 429]
    time.sleep(300 - ALMOST_A_PERIOD + 2)
    put(cloud, "BrokenObjects", "CheckRecencyFunction", 0, 1)
    put(cloud, "MissingPartitions", "CheckRecencyFunction", 0, 1)
    assert state(cloud, "broken-objects") == state(cloud, "missing-partitions") == "OK"
    wait_for(lambda: len(chat.texts) == 3, 30, lambda: f"the end in {chat.texts}\n{cloud.tail()}")
    assert chat.texts[2].startswith("RESOLVED after ") and f"in {STACK}: no alarm is on any more." in chat.texts[2]
    assert f"- {STACK}-broken-objects: on for" in chat.texts[2]

    over = lambda: [one for key, one in objects(cloud, "incidents/dt=").items() if key.endswith("-platform.json")]
    incident, = wait_for(over, 30, "the incident that is over")
    assert incident["opened_at"] < incident["resolved_at"]
    assert [(message["kind"], message["webhook"], message["email"]) for message in incident["messages"]] == [
        ("opened", "sent", "sent"), ("update", "sent", "sent"), ("resolved", "sent", "sent")]
    wait_for(lambda: objects(cloud, ledger)[ledger]["closed"] == [], 30, "an empty ledger")
    assert objects(cloud, ledger)[ledger]["open"] is None
    letters = mail(cloud)
    assert [letter["Subject"] for letter in letters] == [
        f"ALARM: {STACK}-broken-objects", f"MORE ALARMS: {STACK}-missing-partitions",
        f"RESOLVED: {STACK}-broken-objects and 1 more"]
    assert letters[0]["Message"] == shown, "mail is plain text"


def put_verdict(cloud, key):
    verdict = {"key": key, "etag": None, "findings": [{"code": "gone", "text": "the object is gone"}]}
    cloud.client("s3").put_object(Bucket=BUCKET, Key=f"broken/{key}.json", Body=json.dumps(verdict))


def test_broken_objects_stays_on_until_the_verdict_is_gone(cloud, chat):
    """The alarm's level is what lies under broken/, which check-recency counts each minute."""
    before = len(chat.texts)
    put_verdict(cloud, "events/x.jsonl.bz2")
    for key in objects(cloud, "broken/").keys() - {"broken/events/x.jsonl.bz2.json"}:
        cloud.client("s3").delete_object(Bucket=BUCKET, Key=key)
    recency = cloud.resources(STACK)["CheckRecencyFunction"]

    def count(seconds_ago):
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds_ago))
        answer = cloud.client("lambda").invoke(FunctionName=recency, Payload=json.dumps({"time": at}).encode())
        assert "FunctionError" not in answer, answer["Payload"].read()
        return state(cloud, "broken-objects")

    # Each value is over within seconds, and the file is broken still.
    for _ in range(2):
        assert count(ALMOST_A_PERIOD) == "ALARM"
        time.sleep(300 - ALMOST_A_PERIOD + 2)
    assert state(cloud, "broken-objects") == "ALARM"
    cloud.client("s3").delete_object(Bucket=BUCKET, Key="broken/events/x.jsonl.bz2.json")
    assert count(1) == "OK"
    # Else they come while the next test counts messages.
    said = lambda: [text for text in chat.texts[before:] if "broken-objects" in text]
    wait_for(lambda: len(said()) == 2, 30, lambda: f"that it began and that it is over in {chat.texts[before:]}\n{cloud.tail()}")


def rejected(reason, origin, user_agent, path):
    return json.dumps({
        "v": 1, "id": "x", "received_at": "2026-11-21T09:32:08.006Z", "request_id": "r",
        "client": {"user_agent": user_agent, "ip": "192.0.2.7", "origin": origin},
        "rejected": {"reason": reason, "detail": "d", "path": path, "body_base64": "c2VjcmV0"},
    }) + "\n"


def test_what_is_rejected_most_and_from_whom_is_in_the_notice(cloud, chat):
    """CloudWatch's notice of an alarm on metric math: the message has the share, and counts of the newest rejected lines."""
    now = time.gmtime()
    folder = time.strftime("rejected/dt=%Y-%m-%d/hour=%H/", now)
    lines = 30 * rejected("invalid_json", "https://www.example.com", "<https://evil.example|Player> 2.0", "/events")
    lines += 2 * rejected("not_an_object", None, None, "//events")
    key = f"{folder}shardId-000000000000-49680526688183764996402631902287303959145300612304470018.jsonl.bz2"
    cloud.client("s3").put_object(Bucket=BUCKET, Key=key, Body=bz2.compress(lines.encode()))
    metric = lambda name: {"MetricName": name, "Namespace": "Playhead",
                           "Dimensions": [{"name": "FunctionName", "value": "ingest"}]}
    query = lambda id, name: {"Id": id, "MetricStat": {"Metric": metric(name), "Period": 60, "Stat": "Sum"}, "ReturnData": False}
    notice = {
        "AlarmName": f"{STACK}-rejected-share", "AlarmDescription": "Too much is rejected (percent). #rejected-share",
        "NewStateValue": "ALARM", "StateChangeTime": time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", now),
        "NewStateReason": "Threshold Crossed: 3 out of the last 5 datapoints [30.1 (21/11/26 09:35:00), 29.0 (21/11/26 09:34:00)]",
        "Trigger": {
            "Period": 60, "EvaluationPeriods": 5, "ComparisonOperator": "GreaterThanThreshold", "Threshold": 5.0,
            "Metrics": [{"Id": "share", "Label": "RejectedShare", "Expression": "…", "ReturnData": True},
                        query("rejected", "RejectedLines"), query("accepted", "AcceptedEvents")],
        },
    }
    before = len(chat.texts)
    topic = cloud.resources(STACK)["AlarmsTopic"]
    cloud.client("sns").publish(TopicArn=topic, Message=json.dumps(notice))
    wait_for(lambda: len(chat.texts) > before, 30, lambda: f"a message\n{cloud.tail()}")
    message = chat.texts[-1]
    assert "Expected: RejectedShare at most 5 %, of 1 min\nActual: 30.1 %\n" in message
    assert [line for line in message.splitlines() if line.startswith("- ")] == [
        "- counted: 32 rejected lines of 1 of the newest files",
        "- reasons: 30 × invalid_json · 2 × not_an_object",
        "- origins: 30 × https://www.example.com · 2 without",
        "- user agents: 30 × &lt;https://evil.example|Player&gt; 2.0 · 2 without",
        "- paths: 30 × /events · 2 × //events",
    ]
    assert "192.0.2.7" not in message and "c2VjcmV0" not in message
    over = notice | {"NewStateValue": "OK", "StateChangeTime": time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime(time.time() + 1))}
    cloud.client("sns").publish(TopicArn=topic, Message=json.dumps(over))
    wait_for(lambda: len(chat.texts) > before + 1, 30, lambda: f"the end\n{cloud.tail()}")


def test_a_notice_that_comes_again_sends_nothing_again(cloud, chat):
    """SNS delivers at least once: the same notice again changes nothing."""
    before = len(chat.texts)
    message = {
        "AlarmName": f"{STACK}-lost-events", "AlarmDescription": "Lost. #lost-events", "NewStateValue": "ALARM",
        "NewStateReason": "Threshold Crossed", "StateChangeTime": "2026-11-21T09:40:12.345+0000",
    }
    for state_value, at in (("ALARM", "12"), ("OK", "13"), ("ALARM", "12"), ("OK", "13")):
        changed = message | {"NewStateValue": state_value, "StateChangeTime": f"2026-11-21T09:40:{at}.345+0000"}
        sns = {"Message": json.dumps(changed), "Timestamp": f"2026-11-21T09:40:{at}.400Z"}
        answer = cloud.client("lambda").invoke(
            FunctionName=cloud.resources(STACK)["NotifyFunction"], Payload=json.dumps({"Records": [{"Sns": sns}]}))
        assert "FunctionError" not in answer, answer["Payload"].read()
    assert [text.split()[0] for text in chat.texts[before:]] == ["ALARM", "RESOLVED"]


def test_no_log_has_the_address_of_a_webhook(cloud):
    """Whoever has a webhook's address can post to it."""
    logs = cloud.client("logs")
    groups = [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]]
    lines = [event["message"] for group in groups for event in logs.filter_log_events(logGroupName=group)["events"]]
    assert any("sent" in line for line in lines), groups
    assert not [line for line in lines if "/secret" in line]


def test_all_that_the_template_declares_is_there(cloud):
    """The whole template deploys: each alarm tells notify, those of notify itself the topic of last resort."""
    alarms = cloud.client("cloudwatch").describe_alarms(MaxRecords=100)["MetricAlarms"]
    topics = cloud.resources(STACK)
    assert len(alarms) >= 45
    for alarm in alarms:
        is_of_notify = alarm["AlarmName"].startswith(f"{STACK}-notify-")
        topic = topics["LastResortTopic" if is_of_notify else "AlarmsTopic"]
        assert alarm["AlarmActions"] == alarm["OKActions"] == [topic], alarm["AlarmName"]
        assert "${" not in json.dumps(alarm, default=str), alarm
        is_of_runs = alarm["AlarmName"].endswith(("-did-not-run", "-warning-behind-of-compact-partition"))
        assert (alarm["TreatMissingData"] == "breaching") == is_of_runs
    dashboard = json.loads(cloud.client("cloudwatch").get_dashboard(DashboardName=STACK)["DashboardBody"])
    assert len(dashboard["widgets"]) == 15
    notifications = cloud.client("s3").get_bucket_notification_configuration(Bucket=BUCKET)
    assert len(notifications["LambdaFunctionConfigurations"]) == 1
    assert [one["TopicArn"] for one in notifications["TopicConfigurations"]] == [
        topics[name] for name in ("LandedTopic", "LandedTopic", "SealedTopic", "CompactedTopic")]
    for topic, *functions in (("LandedTopic", "CheckObjectFunction"), ("SealedTopic", "CheckSizeFunction", "CompactPartitionFunction")):
        subscriptions = cloud.client("sns").list_subscriptions_by_topic(TopicArn=topics[topic])["Subscriptions"]
        assert {one["Endpoint"].rsplit(":", 1)[-1] for one in subscriptions} == {topics[function] for function in functions}
