"""tools/scripts/ops beside the one-machine stack; test_runbook.py has it beside a deployment."""

import base64
import bz2
import io
import json
import re
import types
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from support.deployment import script
from support.stack import LANDING_BUCKET, wait_for

VALUE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [\d,.]+ \S+"


@pytest.fixture(scope="module")
def landed_stack(stack):
    """The shared stack, once an event has landed."""
    assert stack.post(body=b'{"id":"of test_ops"}').status == 200
    stack.wait_for_lines(lambda line: line.json.get("id") == "of test_ops", 1)
    return stack


def ops(stack, *arguments):
    """What it prints, a line each."""
    done = stack.run_script("ops", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_it_shows_files_metrics_logs_and_the_stream(landed_stack):
    there = {file.key for file in landed_stack.landed_files("events")}
    assert there <= {line.split()[2] for line in ops(landed_stack, "files", "events/")}
    metric = ["metric", "Playhead", "AcceptedEvents", "Ingest", "Sum"]
    wait_for(lambda: ops(landed_stack, *metric), what="a value of AcceptedEvents")
    assert all(re.fullmatch(VALUE, line) for line in ops(landed_stack, *metric))
    logged = ops(landed_stack, "log", "Ingest", "AcceptedEvents")
    assert logged and all("AcceptedEvents" in line for line in logged)
    assert ops(landed_stack, "log", "Ingest", "said by nobody") == []
    assert re.fullmatch(r"event-stream ACTIVE .*2 open shards.*", ops(landed_stack, "stream")[0])


def test_an_unknown_name_is_refused_with_the_known_ones(landed_stack):
    for arguments in (["output", "NoSuchOutput"], ["physical", "NoSuchFunction"], ["look", "no-such-alarm"]):
        done = landed_stack.run_script("ops", *arguments)
        assert done.returncode == 1 and arguments[1] in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert landed_stack.run_script("ops", "reseal", "events/dt=2026-11-21").returncode == 2


def test_a_file_is_checked_and_its_hour_marked(landed_stack):
    key = landed_stack.landed_files("events")[-1].key
    assert ops(landed_stack, "check", key) == [f"checked {key}"]
    hour = key.removeprefix("events/").rsplit("/", 1)[0]
    ops(landed_stack, "reseal", hour)
    s3 = landed_stack.s3()
    assert s3.head_object(Bucket=LANDING_BUCKET, Key=f"late/{hour}")["ContentLength"] == 0
    s3.delete_object(Bucket=LANDING_BUCKET, Key=f"late/{hour}")
    verdict = {"key": "events/broken", "findings": ["cut"]}
    s3.put_object(Bucket=LANDING_BUCKET, Key="broken/of-test-ops.json", Body=json.dumps(verdict).encode())
    assert json.loads("".join(ops(landed_stack, "show", "broken/of-test-ops")[1:])) == verdict
    s3.delete_object(Bucket=LANDING_BUCKET, Key="broken/of-test-ops.json")


def test_each_alarm_s_diagnostics_run_to_their_end(landed_stack, monkeypatch, capsys):
    """Also where the one-machine stack has nothing to show."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", landed_stack.aws_address)
    monkeypatch.setenv("DATA_DIR", str(landed_stack.data))
    module = script("ops")
    stack = module.stacks.this_machine()
    for alarm, commands in module.diagnostics().items():
        of = "Landing" if any(line.startswith("metric") and "$OF" in line for line in commands) else "dt=2026-11-21/hour=09"
        module.run(stack, module.arguments().parse_args(["look", alarm, of]))
        assert capsys.readouterr().out.count("$ ") == len(commands), alarm


# ---- Beside no stack ----

HOUR = "dt=2026-11-21/hour=09"


class Account:
    """A stack, and all of its clients, in one object."""

    name, landing_bucket = "playhead-dev", "files"

    def __init__(self, files=(), broken=()):
        self.files, self.broken, self.calls = dict(files), broken, []

    def client(self, _):
        return self

    def physical(self, name):
        return name

    def get_paginator(self, name):
        return types.SimpleNamespace(paginate=getattr(self, f"pages_of_{name}"))

    # ---- S3 and Lambda ----

    def pages_of_list_objects_v2(self, **_):
        return [{"Contents": [{"Key": key} for key in self.files]}]

    def pages_of_list_object_versions(self, **_):
        deletion = {"VersionId": "deletion", "IsLatest": True, "LastModified": datetime.now(UTC)}
        return [{"DeleteMarkers": [{"Key": key} | deletion for key in self.files]}]

    def get_object(self, Bucket, Key):
        return {"Body": io.BytesIO(self.files[Key])}

    def delete_object(self, Bucket, Key, VersionId):
        if "refused" in Key:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not yours"}}, "DeleteObject")

    def invoke(self, FunctionName, Payload):
        key = json.loads(Payload)["Records"][0]["s3"]["object"]["key"]
        self.calls.append(key)
        return {"Payload": io.BytesIO(b"out of memory")} | ({"FunctionError": "Unhandled"} if "broken" in key else {})

    # ---- CloudFormation ----

    def describe_stacks(self, StackName):
        return {"Stacks": [{"Parameters": [{"ParameterKey": "BatchSize", "ParameterValue": "100"}]}]}

    def delete_change_set(self, **_):
        self.calls.append("delete")

    def create_change_set(self, **_):
        self.calls.append("create")

    def describe_change_set(self, **_):
        return {"Status": "FAILED" if self.broken else "CREATE_COMPLETE"}

    def pages_of_describe_change_set(self, **_):
        return [{"Changes": [{"ResourceChange": {"Action": "Modify", "LogicalResourceId": name}}]} for name in ("One", "Two")]


def run(account, *arguments):
    """Runs a command beside an account."""
    module = script("ops")
    module.run(account, module.arguments().parse_args(arguments))


def rejected_line(body, **client):
    rejected = {"reason": "invalid_json", "detail": "d", "body_base64": base64.b64encode(body).decode()}
    return json.dumps({"v": 1, "client": client, "rejected": rejected})


FOREIGN = [
    '{"v":1,"received_at":"2026-11-21T09:32:00.000Z","rejected":{"reason":"too_deep"}}', "no json", "[" * 100_000, "7", "{}",
    '{"rejected":{"reason":["invalid_json"],"body_base64":""}}', '{"rejected":null}', '{"client":7,"rejected":{"reason":"r"}}',
    '{"rejected":{"reason":"r","body_base64":"e"}}',
]


def test_what_is_rejected_is_shown_beside_what_cannot_be_read(capsys):
    """Foreign lines and damaged files are counted and named, and the others shown."""
    ours = [rejected_line(b"{oops", origin="https://example.com"), rejected_line(b"{oops").replace('"client": {}', '"client": null')]
    good = bz2.compress("\n".join([ours[0], *FOREIGN, ours[1]]).encode())
    run(Account({"a.bz2": good[:-9], "b.bz2": b"no bzip2", "c.bz2": good, "_SUCCESS": b""}), "rejected", HOUR)
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["       1 invalid_json https://example.com -", "       1 invalid_json - -", "invalid_json: d: b'{oops'"]
    assert [line.split(": ")[1] for line in said[3:]] == ["a.bz2", "b.bz2", "c.bz2"]
    assert said[-1] == f"can't be read: c.bz2: {len(FOREIGN)} of {len(FOREIGN) + 2} lines, the first is line 2"


@pytest.mark.parametrize("command", ["restore", "check"])
def test_one_failing_file_does_not_stop_the_others(capsys, command):
    """The others are restored and checked, and the end has the commands that try again."""
    names = ["broken-1", "fine-1", "broken-2", "refused", "fine-2"]
    keys = [f"events/{HOUR}/{name}.jsonl.bz2" for name in (names if command == "restore" else names[:3])]
    account = Account(dict.fromkeys(keys))
    with pytest.raises(SystemExit) as ended:
        run(account, command, f"events/{HOUR}/")
    again = [f"tools/scripts/ops {'restore' if 'refused' in key else 'check'} {key} --stack playhead-dev" for key in keys if "fine" not in key]
    assert sorted(ended.value.code.splitlines()[1:]) == sorted(again)
    assert sorted(account.calls) == sorted(key for key in keys if "refused" not in key)
    assert capsys.readouterr().out.count("checked") == sum("fine" in key for key in keys)


@pytest.mark.parametrize(("broken", "calls"), [(False, ["delete", "create"]), (True, ["delete", "create", "delete"])])
def test_drift_replaces_its_last_change_set_and_prints_every_page(capsys, broken, calls):
    account = Account(broken=broken)
    run(account, "drift")
    assert account.calls == calls
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["One", "Two"]
