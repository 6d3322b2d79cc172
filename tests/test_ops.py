"""scripts/ops beside the one-machine stack; test_runbook.py has it beside a deployment."""

import json
import re

import pytest

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
    keys = [line.split()[2] for line in ops(landed_stack, "files", "events/")]
    assert {file.key for file in landed_stack.landed_files("events")} <= set(keys)
    metric = ["metric", "Playhead", "AcceptedEvents", "Ingest", "Sum"]
    wait_for(lambda: ops(landed_stack, *metric), what="a value of AcceptedEvents")
    assert all(re.fullmatch(VALUE, line) for line in ops(landed_stack, *metric))
    logged = ops(landed_stack, "log", "Ingest", "AcceptedEvents")
    assert logged and all("AcceptedEvents" in line for line in logged)
    assert ops(landed_stack, "log", "Ingest", "said by nobody") == []
    assert re.fullmatch(r"event-stream ACTIVE .*2 open shards.*", ops(landed_stack, "stream")[0])


def test_it_names_what_there_is_instead_of_what_there_is_not(landed_stack):
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


def test_each_look_runs_to_its_end(landed_stack, monkeypatch, capsys):
    """Also where the one-machine stack has nothing to show."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", landed_stack.aws_address)
    monkeypatch.setenv("DATA_DIR", str(landed_stack.data))
    module = script("ops")
    place = module.places.this_machine()
    for alarm, commands in module.looks().items():
        of = "Landing" if any(line.startswith("metric") and "$OF" in line for line in commands) else "dt=2026-11-21/hour=09"
        module.run(place, module.arguments().parse_args(["look", alarm, of]))
        assert capsys.readouterr().out.count("$ ") == len(commands), alarm
