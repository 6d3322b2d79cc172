"""Write keys and the client's context, over both front doors: who may send, what the lines say of it, and that no key is ever written
down."""

import base64
import json
import subprocess
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow.parquet
import pytest

from support.fast_clock import FastClock
from support.stack import FAST, INGEST, INGEST_SERVER, LANDING_BUCKET, Stack, built, wait_for

WEB, ROTATED, IOS = "web-key-0123456789", "Web_Key.~9876543210", "ios-key-0123456789"
UNKNOWN = "unknown-key-0123456789"
KEYS = f"WriteKeys=web={WEB},web={ROTATED},ios-app={IOS}"
PAGE = {"Origin": "https://player.example", "Referer": "https://u:secret@player.example/watch/7?token=secret#secret", "CloudFront-Viewer-Country": "DE"}


def basic(key, password=""):
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:{password}".encode()).decode()}


def encoded(key):
    return "".join(f"%{ord(character):02x}" for character in key)


@pytest.fixture(scope="module", params=["lambda", "server"])
def keyed(request, tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("keyed"), FRONT_DOOR=request.param, parameters=f"{FAST} {KEYS} ClientContext=origin,page,country")
    yield stack
    if not stack.killed:
        assert stack.stop() == 0, stack.tail()


def send(stack, path="/events", headers=None, count=1):
    """An answer, and the name that is in the events."""
    name = str(uuid.uuid4())
    body = json.dumps([{"name": name, "session_id": name}] * count).encode()
    return stack.post(path, body, {"Content-Type": "text/plain"} | (headers or {})), name


def landed(stack, name, prefix="events"):
    return stack.wait_for_lines(lambda line: line.json.get("event", {}).get("name") == name, 1, prefix)[0].json


@pytest.mark.parametrize(("path", "headers", "app"), [
    ("/events", {"X-Playhead-Key": WEB}, "web"),
    ("/events", {"x-playhead-key": ROTATED}, "web"),
    ("/", {"X-PLAYHEAD-KEY": IOS}, "ios-app"),
    ("/events/mux", basic(IOS), "ios-app"),
    ("/events", basic(WEB, "nobody reads it: not even this"), "web"),
    (f"/events?key={IOS}", {}, "ios-app"),
    (f"/events?a=%20b&key={encoded(WEB)}&c", {}, "web"),
    (f"/events?key={WEB}", basic(WEB) | {"X-Playhead-Key": WEB}, "web"),
    ("/events", basic("viewer", "not even this") | {"X-Playhead-Key": WEB}, "web"),
    (f"/events?key={ROTATED}", basic(IOS), "web"),
    (f"/events?key={WEB}", {"Authorization": "Bearer somebody-elses-token"}, "web"),
])
def test_a_request_that_names_a_key_lands_with_its_app(keyed, path, headers, app):
    answer, name = send(keyed, path, headers)
    assert answer.status == 200, answer
    assert landed(keyed, name)["app"] == app


@pytest.mark.parametrize(("path", "headers"), [
    ("/events", {}),
    ("/events", {"X-Playhead-Key": UNKNOWN}),
    ("/events", {"X-Playhead-Key": ""}),
    ("/events", basic(UNKNOWN)),
    ("/events", {"Authorization": "Basic !"}),
    ("/events", {"Authorization": f"Bearer {WEB}"}),
    (f"/events?key={UNKNOWN}", {}),
    (f"/events?key={WEB}&key={ROTATED}", {}),
    (f"/events?key={WEB}", {"X-Playhead-Key": IOS}),
    (f"/events?Key={WEB}", {}),
    (f"/events?key={'%41' * 4000}", {}),
    ("/elsewhere", {}),
])
def test_a_request_without_a_known_key_is_answered_401_which_a_page_can_read_and_nothing_is_stored(keyed, path, headers):
    answer, name = send(keyed, path, headers | {"Origin": "https://player.example"})
    assert (answer.status, answer.json["error"]["code"]) == (401, "unknown_key"), answer
    assert answer.headers["access-control-allow-origin"] == "https://player.example"
    assert "basic" not in answer.headers["www-authenticate"].lower(), "browsers would ask viewers for a password"
    # What came later has landed, so this would have, too.
    _, later = send(keyed, headers={"X-Playhead-Key": WEB})
    landed(keyed, later)
    assert not [line for prefix in ("events", "rejected") for line in keyed.lines(prefix) if name in line.text]


def test_what_is_rejected_lands_with_its_app_and_without_its_key(keyed):
    name = str(uuid.uuid4())
    answer = keyed.post(f"/events?key={IOS}", f'{{"name":"{name}'.encode(), {"Content-Type": "text/plain"} | PAGE)
    assert answer.status == 400
    body = base64.b64encode(f'{{"name":"{name}'.encode()).decode()
    line, = keyed.wait_for_lines(lambda line: line.json["rejected"]["body_base64"] == body, 1, "rejected")
    assert (line.json["app"], line.json["rejected"]["path"]) == ("ios-app", "/events")


def test_health_checks_and_preflights_need_no_key_and_a_preflight_allows_the_headers_that_name_one(keyed):
    assert keyed.post("/health", method="GET").status == 200
    asked = "authorization,x-playhead-key"
    answer = keyed.post(method="OPTIONS", headers={"Origin": "https://player.example", "Access-Control-Request-Method": "POST",
                                                   "Access-Control-Request-Headers": asked})
    assert (answer.status, answer.headers["access-control-allow-headers"]) == (204, asked)


@pytest.mark.parametrize(("headers", "client"), [
    (PAGE, {"origin": "https://player.example", "page": "/watch/7", "country": "DE"}),
    ({"Referer": "https://player.example", "Origin": "null"}, {"origin": "null", "page": "/"}),
    ({"Referer": "https://a.example/" + "p" * 1023}, {"page": "/" + "p" * 1023}),
    ({"Referer": "https://a.example/" + "p" * 1024}, {}),
    ({"Origin": "https://a.example/path", "Referer": "about:blank", "CloudFront-Viewer-Country": "Germany"}, {}),
])
def test_lines_say_where_a_request_came_from(keyed, headers, client):
    answer, name = send(keyed, headers=headers | {"X-Playhead-Key": WEB})
    assert answer.status == 200
    line = landed(keyed, name)
    assert {part: text for part, text in line["client"].items() if part != "user_agent"} == client
    assert list(line) == ["v", "id", "received_at", "request_id", "app", "client", "event"]


def test_no_key_and_no_secret_of_a_page_is_written_down(keyed):
    """After all of the above, in which they were sent in every way: in no line, record, log or file."""
    send(keyed, f"/events?key={WEB}", PAGE)
    assert keyed.stop() == 0, keyed.tail()
    written = [path for path in keyed.data.rglob("*") if path.is_file()]
    lines = [line.text for prefix in ("events", "rejected") for line in keyed.lines(prefix)]
    texts = [path.read_bytes() for path in written] + ["\n".join(lines).encode(), keyed.tail(10**6).encode()]
    assert len(lines) > 10 and len(written) > 10
    for secret in (WEB, ROTATED, IOS, UNKNOWN, "not even this", "token=secret", "u:secret"):
        forms = [secret, base64.b64encode(f"{secret}:".encode()).decode().rstrip("=")[:-1], encoded(secret)]
        assert not [form for text in texts for form in forms if form.encode() in text], secret
    logged = [json.loads(line) for line in keyed.function_log(keyed.ingest).splitlines() if '"_aws"' in line]
    assert sum(line.get("UnauthorizedRequests", 0) for line in logged) == 12


def test_the_app_is_a_column_of_the_hours_parquet(fresh_stack):
    stack, began = fresh_stack(parameters=f"{FAST} {KEYS}"), datetime.now(UTC)
    names = {send(stack, f"/events?key={key}")[1]: app for key, app in ((WEB, "web"), (ROTATED, "web"), (IOS, "ios-app"))}
    for name in names:
        landed(stack, name)
    # By then the hour of the last event is over, too.
    done = stack.run_script("invoke", "seal-partition", "--at", f"{began + timedelta(hours=1.5):%Y-%m-%dT%H:%M:%SZ}")
    assert done.returncode == 0, done.stdout + done.stderr

    def rows():
        parts = (stack.data / "s3" / LANDING_BUCKET / "columnar").rglob("*.parquet")
        found = [row for part in parts for row in pyarrow.parquet.read_table(part, columns=["app", "event"]).to_pylist()]
        return len(found) == len(names) and found

    assert {json.loads(row["event"])["name"]: row["app"] for row in wait_for(rows, what=stack.tail)} == names


@pytest.mark.parametrize("front_door", ["lambda", "server"])
def test_without_keys_lines_are_what_they_were(fresh_stack, front_door):
    """Nothing is needed, nothing of a page is kept, and a key that is sent all the same is nobody's business."""
    stack = fresh_stack(FRONT_DOOR=front_door)
    answer, name = send(stack, f"/events?key={WEB}", PAGE | {"X-Playhead-Key": IOS})
    assert answer.status == 200
    line = landed(stack, name)
    assert list(line) == ["v", "id", "received_at", "request_id", "client", "event"] and line["client"] == {}


def test_an_apps_rejected_share_has_an_alarm_of_its_own_by_whose_name_a_group_takes_it(fresh_stack):
    """Of all apps' lines a twentieth is rejected; the threshold is a tenth."""
    group = {"group": "web", "alarms": ["*-app-web-*"], "email": True}
    stack = fresh_stack(
        CLOCK=FastClock(60).setting,
        parameters=f"{KEYS} AlarmedApps=web,ios-app MaximumRejectedPercent=10", RECIPIENTS=json.dumps([group]),
    )
    bad, good = ("web", WEB, b"[" + b"1," * 19 + b"1]"), ("ios-app", IOS, b"[" + b"{}," * 379 + b"{}]")

    def notices():
        for _, key, body in (bad, good):
            assert stack.post("/events", body, {"Content-Type": "text/plain", "X-Playhead-Key": key}).status in (200, 400)
        return (stack.data / "logs/notices.log").read_text()

    wait_for(lambda: " ALARM: playhead-app-web-rejected-share" in notices(), 60, stack.tail)
    states = {alarm["AlarmName"]: alarm["StateValue"] for alarm in stack.cloudwatch().describe_alarms(AlarmNamePrefix="playhead-")["MetricAlarms"]
              if alarm["AlarmName"].endswith("rejected-share")}
    assert states == {"playhead-app-web-rejected-share": "ALARM", "playhead-app-ios-app-rejected-share": "OK", "playhead-rejected-share": "OK"}
    assert notices().count("ALARM: playhead-") == 1


@pytest.mark.parametrize("front_door", ["lambda", "server"])
def test_accepted_and_rejected_are_counted_by_app(fresh_stack, front_door):
    stack = fresh_stack(FRONT_DOOR=front_door, parameters=f"{FAST} {KEYS}")
    began = datetime.now(UTC) - timedelta(minutes=5)
    for key, body in ((WEB, b"[{},{},1]"), (ROTATED, b"[{}]"), (IOS, b"[{},{},{},{}]"), (IOS, b"1")):
        stack.post("/events", body, {"Content-Type": "text/plain", "X-Playhead-Key": key})
    assert send(stack, headers={"X-Playhead-Key": UNKNOWN})[0].status == 401

    def counted():
        of = {app: {"FunctionName": INGEST} | ({"App": app} if app else {}) for app in (None, "web", "ios-app")}
        return {app: [sum(stack.metric(name, began, "Sum", **dimensions)) for name in ("AcceptedEvents", "RejectedLines", "UnauthorizedRequests")]
                for app, dimensions in of.items()}

    expected = {None: [7, 2, 1], "web": [3, 1, 0], "ios-app": [4, 1, 0]}
    wait_for(lambda: counted() == expected, 60, lambda: f"{counted()}\n{stack.tail()}")


@pytest.mark.parametrize("front_door", ["lambda", "server"])
def test_a_key_gets_its_events_a_second_and_others_are_not_held_up(fresh_stack, front_door):
    """One environment or task: over some seconds its mean is the limit, whatever the size of a request."""
    limit = 50
    stack = fresh_stack(FRONT_DOOR=front_door, parameters=f"{FAST} {KEYS} KeyEventsPerSecond={limit}")
    # So that the start of an environment pays back nothing.
    assert stack.post("/health", method="GET").status == 200
    first, large = send(stack, headers={"X-Playhead-Key": WEB}, count=6 * limit)
    assert first.status == 200
    answer, name = send(stack, headers={"X-Playhead-Key": WEB, "Origin": "https://player.example"})
    assert (answer.status, answer.json["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 6 and answer.headers["access-control-expose-headers"] == "retry-after"
    assert send(stack, headers={"X-Playhead-Key": IOS})[0].status == 200
    assert send(stack, headers={"X-Playhead-Key": ROTATED})[0].status == 200, "each key has its own"
    time.sleep(int(answer.headers["retry-after"]))
    again, later = send(stack, headers={"X-Playhead-Key": WEB})
    assert again.status == 200
    landed(stack, later)
    assert stack.stop() == 0, stack.tail()
    names = Counter(line.json["event"]["name"] for line in stack.lines())
    assert (names[large], names[name]) == (6 * limit, 0)
    logged = [json.loads(line) for line in stack.function_log(stack.ingest).splitlines() if '"_aws"' in line]
    assert [sum(line.get("LimitedRequests", 0) for line in logged if line.get("App") == app) for app in (None, "web", "ios-app")] == [1, 1, 0]


def test_the_server_answers_before_a_body_that_it_will_not_read(fresh_stack):
    """A slow body without a key takes no room, and a connection whose body was left unread ends."""
    stack = fresh_stack(FRONT_DOOR="server", parameters=f"{FAST} {KEYS} KeyEventsPerSecond=1")
    large, limited = str(6 * 2**20), {"X-Playhead-Key": WEB}
    for _ in range(2):
        assert begun(stack, "POST", {"Content-Length": large}) == (401, "close")
    assert send(stack, headers=limited, count=6)[0].status == 200
    assert begun(stack, "POST", {"Content-Length": large} | limited) == (429, "close")
    assert begun(stack, "OPTIONS", {"Content-Length": large}) == (204, "close")
    assert begun(stack, "OPTIONS", {}) == (204, None)
    assert begun(stack, "POST", {"Content-Length": "0"}) == (401, None)


def begun(stack, method, headers):
    """Status and `Connection` of the answer to a head whose body never comes."""
    connection = stack.connect()
    try:
        connection.putrequest(method, "/events")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers["connection"]
    finally:
        connection.close()


@pytest.mark.parametrize("binary", [INGEST, INGEST_SERVER])
@pytest.mark.parametrize(("variable", "value"), [
    ("WRITE_KEYS", f"web={WEB},Web={IOS}"),
    ("WRITE_KEYS", f"{WEB}=web"),
    ("WRITE_KEYS", f"web={WEB}\nios={WEB}"),
    ("WRITE_KEYS", f"web={WEB}?"),
    ("KEY_EVENTS_PER_SECOND", "1000001"),
    ("KEY_EVENTS_PER_SECOND", "1"),
    ("CLIENT_CONTEXT", "origin,referer"),
])
def test_a_bad_value_stops_the_start_and_names_the_variable_but_no_key(binary, variable, value):
    variables = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "AWS_REGION": "us-east-1", "STREAM_NAME": "a", "BUCKET_NAME": "b", variable: value}
    done = subprocess.run([built(binary)], env=variables, capture_output=True, text=True, timeout=20)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and f"environment variable {variable}" in said, said
    assert WEB not in said and IOS not in said
