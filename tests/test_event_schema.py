"""Events that a JSON Schema judges, in the function and in the server: what is answered, what lands, what is counted, and what a process does
whose schema is no good or out of reach."""

import base64
import http.client
import json
import re
import subprocess
import threading
import time
import uuid
from collections import Counter

import pytest

from support import redrive
from support.function import Bucket, running
from support.proxy import Reply
from support.stack import FAST, INGEST, INGEST_SERVER, LANDING_BUCKET, STREAM, Stack, built, cpu_seconds, request, wait_for

KEY = "schemas/events-1.json"
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "required": ["name", "type"],
    "properties": {
        "name": {"type": "string", "pattern": "^[0-9a-f-]{36}$"},
        "type": {"enum": ["play", "pause"]},
        "position": {"$ref": "#/$defs/seconds"},
        "cid": {"not": {"const": "secret"}},
    },
    "$defs": {"seconds": {"type": "number", "minimum": 0}},
}
JSON, LINES, CMCD = ({"Content-Type": f"application/{kind}"} for kind in ("json", "x-ndjson", "cmcd"))
# Longer than a process waits before it asks S3 again.
ASKS_AGAIN_SECONDS = 50


def put_schema(directory, schema=SCHEMA, key=KEY):
    """Where the landing bucket's objects are, also before there is a stack."""
    path = directory / "data/s3" / LANDING_BUCKET / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(schema if isinstance(schema, bytes) else json.dumps(schema).encode())


def parameters(mode, key=KEY, more=""):
    return f"{FAST} EventSchema={key} EventSchemaMode={mode} {more}".strip()


def new_name():
    return str(uuid.uuid4())


def event(kind="play", **members):
    return {"name": new_name(), "type": kind, **members}


def post(stack, *events, headers=JSON):
    return stack.post(body=json.dumps(events).encode(), headers=headers)


def landed(stack, name):
    return stack.wait_for_lines(lambda line: line.json.get("event", line.json).get("name") == name, 1)[0]


def rejected_lines(stack, count, reason="schema_violation"):
    return stack.wait_for_lines(lambda line: line.json["rejected"]["reason"] == reason, count, "rejected")


def counted(stack):
    """Violations by rule and events that were not validated, of a stack that has stopped."""
    lines = [json.loads(line) for line in stack.function_log(stack.ingest).splitlines() if '"_aws"' in line]
    rules, other = Counter(), Counter()
    for line in lines:
        if "Rule" in line:
            assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["FunctionName", "Rule"]]
            rules[line["Rule"]] += line["SchemaViolations"]
        elif "ExecutedVersion" not in line:
            other.update({name: value for name, value in line.items() if isinstance(value, int)})
    return rules, other


@pytest.fixture(scope="module", params=["lambda", "server"])
def front_door(request):
    return request.param


@pytest.fixture(scope="module")
def rejecting(tmp_path_factory, front_door):
    directory = tmp_path_factory.mktemp("rejecting")
    put_schema(directory)
    stack = Stack(directory, FRONT_DOOR=front_door, parameters=parameters("reject"))
    yield stack
    assert stack.stop() == 0, stack.tail()


# ---- reject ----

def test_of_a_mixture_good_events_land_and_the_answer_names_rule_and_place_of_the_others(rejecting):
    good, later = event(position=1.5), event("pause")
    answer = post(rejecting, good, event("stop"), later, event(position=-7), {"name": new_name()}, 7)
    assert (answer.status, answer.json["accepted"]) == (200, 2), answer
    violation = lambda index, rule, path: {"index": index, "reason": "schema_violation", "rule": rule, "path": path}
    assert answer.json["rejected"] == [
        violation(1, "/properties/type/enum", "/type"), violation(3, "/$defs/seconds/minimum", "/position"),
        violation(4, "/required", ""), {"index": 5, "reason": "not_an_object"}]
    for one in (good, later):
        assert landed(rejecting, one["name"]).json["event"] == one


def test_a_rejected_line_says_rule_and_place_and_the_value_is_in_its_body_alone(rejecting):
    bad = event("stop-secret-value")
    answer = post(rejecting, bad, event())
    assert answer.status == 200 and "secret" not in answer.body.decode()
    body = base64.b64encode(json.dumps(bad).encode()).decode()
    line, = rejecting.wait_for_lines(lambda line: line.json["rejected"]["body_base64"] == body, 1, "rejected")
    assert line.json["rejected"]["reason"] == "schema_violation"
    detail = line.json["rejected"]["detail"]
    assert "/properties/type/enum" in detail and "/type" in detail and "secret" not in detail


@pytest.mark.parametrize(("headers", "body"), [
    (JSON, lambda events: json.dumps(events[0])),
    (JSON, lambda events: json.dumps({"events": events})),
    (LINES, lambda events: "".join(json.dumps(one) + "\n" for one in events)),
    (CMCD, lambda events: "\n".join(f'name="{one["name"]}",type="{one["type"]}"' for one in events)),
])
def test_every_form_of_a_body_is_judged(rejecting, headers, body):
    events = [event("stop"), event()]
    answer = rejecting.post(body=body(events).encode(), headers=headers)
    if headers is JSON and "events" not in answer.json and answer.status == 400:
        assert answer.json["error"]["code"] == "schema_violation" and "/properties/type/enum" in answer.json["error"]["message"]
        assert answer.json["rejected"] == [{"index": 0, "reason": "schema_violation", "rule": "/properties/type/enum", "path": "/type"}]
        return
    assert (answer.status, answer.json["accepted"]) == (200, 1), answer
    assert [(one["index"], one["rule"]) for one in answer.json["rejected"]] == [(0, "/properties/type/enum")]


def test_ten_thousand_violations_fit_into_an_answer_whose_first_hundred_are_explained(rejecting):
    answer = post(rejecting, *[{"\u0001" * 50: n, "type": "x"} for n in range(9_999)], event())
    assert (answer.status, answer.json["accepted"], len(answer.json["rejected"])) == (200, 1, 9_999)
    assert [("rule" in one) for one in answer.json["rejected"]] == [True] * 100 + [False] * 9_899


def test_raw_events_are_judged_and_land_byte_by_byte_as_they_came(fresh_stack, tmp_path, front_door):
    put_schema(tmp_path)
    stack = fresh_stack(tmp_path, FRONT_DOOR=front_door, parameters=parameters("reject", more="EventFormat=raw"))
    name = new_name()
    text = f'{{"position":123456789012345678901234567890.10,  "b":1e2,"name":"{name}","type":"play","b":-0.0}}'
    answer = stack.post(body=f'[{text},{{"type":1}}]'.encode(), headers=JSON)
    assert answer.status == 200 and answer.json["rejected"][0]["reason"] == "schema_violation", answer
    assert stack.wait_for_lines(lambda line: name in line.text, 1)[0].text.rstrip("\n") == text


# ---- report ----

def test_a_report_changes_no_event_and_counts_each_rule_once_an_event(fresh_stack, tmp_path, front_door):
    put_schema(tmp_path)
    stack = fresh_stack(tmp_path, FRONT_DOOR=front_door, parameters=parameters("report"))
    events = [event("stop", position=-1), event("stop"), event(), {"name": new_name(), "position": "x", "type": "play"}]
    answer = post(stack, *events)
    assert (answer.status, answer.json) == (200, {"accepted": 4, "rejected": []})
    for one in events:
        assert landed(stack, one["name"]).json["event"] == one
    assert stack.stop() == 0, stack.tail()
    rules, _ = counted(stack)
    assert rules == {"/properties/type/enum": 2, "/$defs/seconds/minimum": 1, "/$defs/seconds/type": 1}
    assert not stack.lines("rejected")


def test_of_many_rules_twenty_are_counted_apart(fresh_stack, tmp_path, front_door):
    put_schema(tmp_path, {"properties": {f"m{n:02}": {"type": "string"} for n in range(30)}})
    stack = fresh_stack(tmp_path, FRONT_DOOR=front_door, parameters=parameters("report"))
    for n in range(30):
        assert post(stack, {f"m{n:02}": n}).status == 200
    assert stack.stop() == 0, stack.tail()
    rules, _ = counted(stack)
    assert (sum(rules.values()), len(rules), rules["other"]) == (30, 21, 10)


def test_without_a_schema_nothing_is_counted(fresh_stack, front_door):
    stack = fresh_stack(FRONT_DOOR=front_door)
    assert post(stack, {"type": 7}).status == 200
    assert stack.stop() == 0, stack.tail()
    log = stack.function_log(stack.ingest)
    assert "Schema" not in log and "schema" not in log


# ---- After a mistake in the schema ----

def test_what_a_wrong_rule_rejected_is_landed_by_redrive(fresh_stack, tmp_path, front_door):
    """A list's member, a body of one event, a report."""
    put_schema(tmp_path)
    stack = fresh_stack(tmp_path, FRONT_DOOR=front_door, parameters=parameters("reject"))
    events = [event("seek"), event("seek"), event("seek")]
    assert post(stack, events[0], event()).status == 200
    assert stack.post(body=json.dumps(events[1]).encode(), headers=JSON).status == 400
    report = f'name="{events[2]["name"]}",type="seek"\nname="{new_name()}",type="play"'
    assert stack.post(body=report.encode(), headers=CMCD).status == 200
    rejected_lines(stack, 3)
    prefix = f"rejected/dt={stack.landed_files('rejected')[0].parts['date']}/"
    code, output = redrive.run(stack, *redrive.rejected(prefix, "--reasons", "schema_violation"))
    assert code == 0, output
    assert [landed(stack, one["name"]).json["event"] for one in events] == events


# ---- What keeps a process from starting, and what does not ----

def variables(stack):
    """Of a process of its own on the stack's AWS."""
    return {"AWS_ENDPOINT_URL": stack.aws_address, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a",
            "LISTEN": "127.0.0.1:0", "DRAIN_SECONDS": "0", "AWS_LAMBDA_FUNCTION_NAME": INGEST,
            "STREAM_NAME": STREAM, "BUCKET_NAME": LANDING_BUCKET}


def start(stack, **own):
    """How a server ended, and what it said."""
    done = subprocess.run([built(INGEST_SERVER)], env=variables(stack) | own, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("schema", "problem"), [
    (None, "is missing"),
    (b"{" + b" " * 2**18 + b"}", "is larger than 262144 bytes"),
    (b'{"type":', "is not JSON"),
    (b'{"type":"play"}', "is not a JSON Schema"),
    (b'{"pattern":"(a"}', "is not a JSON Schema"),
    (b'{"$ref":"https://a.example/schema.json"}', 'refers to "https://a.example/schema.json"'),
    (b'{"properties":{"child":{"$ref":"#"}}}', "in a circle"),
    (b'{"properties":{"a":{"uniqueItems":true}}}', '"uniqueItems" is not supported'),
    (json.dumps({"allOf": [{}] * 2000}).encode(), "at most 1000"),
])
def test_a_schema_that_is_a_mistake_stops_the_servers_start_and_is_named(stack, schema, problem):
    key = f"schemas/{new_name()}.json"
    if schema is not None:
        stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=schema)
    code, said = start(stack, EVENT_SCHEMA=key)
    assert code != 0 and f"environment variable EVENT_SCHEMA: {key}: " in said and problem in said, said


def test_while_s3_is_away_a_new_server_accepts_events_unvalidated_and_validates_once_it_is_back(stack, tmp_path):
    """The server on its own, whose S3 does not give the schema at first."""
    key = f"schemas/{new_name()}.json"
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=json.dumps(SCHEMA).encode())
    away, asked = threading.Event(), Counter()
    away.set()

    def busy(method, path):
        asked[away.is_set()] += method == "GET" and key in path
        return 503 if away.is_set() and key in path else None

    with redrive.between(stack, answer_instead=busy) as address, (tmp_path / "log").open("w+") as log:
        own = variables(stack) | {"AWS_ENDPOINT_URL": address, "EVENT_SCHEMA": key, "EVENT_SCHEMA_MODE": "reject"}
        with subprocess.Popen([built(INGEST_SERVER)], env=own, stdout=log, stderr=subprocess.STDOUT) as server:
            said = lambda: (tmp_path / "log").read_text()
            port = wait_for(lambda: re.search(r"listening: http://127\.0\.0\.1:(\d+)", said()), 10, said)[1]

            def status(one):
                connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
                try:
                    return request(connection, "POST", "/events", json.dumps(one).encode(), JSON).status
                finally:
                    connection.close()

            early = event("stop")
            assert status(early) == 200 and asked == {True: 3}
            away.clear()
            wait_for(lambda: asked[False], ASKS_AGAIN_SECONDS, said)
            wait_for(lambda: status(event("stop")) == 400, 10, said)
            server.terminate()
            assert server.wait(60) == 0
        lines = [json.loads(line) for line in said().splitlines() if '"_aws"' in line]
    assert landed(stack, early["name"]).json["event"] == early
    assert sum(line.get("SchemaUnavailable", 0) for line in lines) >= 1
    assert {line["Rule"] for line in lines if "Rule" in line} == {"/properties/type/enum"}


class SlowStart(Bucket):
    """Kinesis, and S3 that does not give the schema at first."""

    def __init__(self):
        super().__init__()
        self.objects[KEY] = json.dumps(SCHEMA).encode()
        self.away, self.asked = True, 0

    def reply_to(self, request):
        if request.method == "POST":
            stored = [{"SequenceNumber": "1", "ShardId": "shardId-0"} for _ in json.loads(request.body)["Records"]]
            body = json.dumps({"FailedRecordCount": 0, "Records": stored}).encode()
            return Reply(200, [("Content-Type", "application/x-amz-json-1.1")], body)
        self.asked += 1
        return Reply(503) if self.away else super().reply_to(request)


def status_of(function, one):
    context = {"http": {"method": "POST", "sourceIp": "127.0.0.1"}}
    headers = {"content-type": "application/json"}
    return function.invoke({"rawPath": "/events", "headers": headers, "body": json.dumps(one), "requestContext": context})["statusCode"]


def test_while_s3_is_away_a_function_accepts_events_unvalidated_and_a_later_request_asks_again():
    bucket = SlowStart()
    settings = {"STREAM_NAME": "s", "BUCKET_NAME": bucket.name, "EVENT_SCHEMA": KEY, "EVENT_SCHEMA_MODE": "reject"}
    with running(INGEST, bucket, **settings) as function:
        outcome, _ = function.answers.get(timeout=10)
        assert outcome == "register", "of the extension"
        status = lambda one: status_of(function, one)
        assert [status(event("stop")) for _ in range(3)] == [200] * 3 and bucket.asked == 3
        bucket.away = False
        time.sleep(31)
        assert bucket.asked == 3, "an environment is frozen between requests"
        assert status(event("stop")) == 400 and bucket.asked == 4
        assert (status(event()), status(event("stop")), bucket.asked) == (200, 400, 4)
        assert not [key for key in bucket.objects if key.startswith("events/")], "the stream takes them"


def test_a_function_whose_schema_is_a_mistake_accepts_events_and_says_what_is_wrong():
    """Nobody serves in its place: players' events would be lost."""
    bucket = SlowStart()
    bucket.away, bucket.objects[KEY] = False, b'{"type":"play"}'
    settings = {"STREAM_NAME": "s", "BUCKET_NAME": bucket.name, "EVENT_SCHEMA": KEY, "EVENT_SCHEMA_MODE": "reject"}
    with running(INGEST, bucket, **settings) as function:
        assert function.answers.get(timeout=10)[0] == "register", "of the extension"
        assert status_of(function, event("stop")) == 200
        wait_for(lambda: any('"ERROR"' in line and f"{KEY}" in line and "is not a JSON Schema" in line for line in function.lines), 10,
                 lambda: function.lines)


# ---- Hostile events ----

HOSTILE = {
    "properties": {
        "has": {"contains": {"const": 1}, "minContains": 2},
        "text": {"pattern": "^(a|a)*(b|b)*$"}, "any": {"items": {"anyOf": [{"type": "string"}, {"type": "object", "required": ["a"]}, {"const": None}]}},
        "map": {"patternProperties": {"^(x+x+)+y$": False, "z$": False}, "propertyNames": {"maxLength": 9}},
    },
}


def cpu_of_ingest(stack):
    """Seconds of CPU that the process which takes events has used: others that run keep it waiting."""
    process, = stack.function_processes(stack.ingest)
    return cpu_seconds(process)


@pytest.mark.parametrize("mode", ["report", "reject"])
def test_the_largest_events_are_judged_in_a_second_or_two(fresh_stack, tmp_path, front_door, mode):
    """Each of a MiB: what would be quadratic, exponential, or an error for each of half a million members."""
    put_schema(tmp_path, HOSTILE)
    stack = fresh_stack(tmp_path, FRONT_DOOR=front_door, parameters=parameters(mode))
    assert post(stack, event()).status in (200, 400)
    size = 1_000_000
    for name, value in {
        "has": [0] * (size // 3), "text": "a" * size + "c", "any": [0] * (size // 3),
        "map": {f"{'x' * 20}{n}": 0 for n in range(size // 32)},
    }.items():
        before = cpu_of_ingest(stack)
        answer = post(stack, {name: value})
        assert answer.status == (200 if mode == "report" else 400), (name, answer.status)
        took = cpu_of_ingest(stack) - before
        print(f"{mode} {name}: {took:.2f} s of CPU")
        assert took < 5, name
