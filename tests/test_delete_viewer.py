"""tools/delete-viewer: one viewer's events are gone from all that landed, nobody else's is, and the checks see no loss.

What is a viewer's is decided here by Python's json alone, and what is left is read by bz2, DuckDB and base64.
"""

import base64
import bz2
import gzip
import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from support import landed
from support.fast_clock import START, FastClock, partition
from support.stack import LANDING_BUCKET, REPOSITORY, STREAM, Stack, wait_for, without_aws

TOOL = REPOSITORY / "tools/delete-viewer"
DUCKDB = Path(sys.executable).parent / "duckdb"
sys.path.insert(0, str(TOOL))
import lines as tool_lines  # noqa: E402
from landed_object import ATTEMPTS, Landed, Problem, counted, delete_lines, rewritten  # noqa: E402
from rejected import MAX_BODY_BYTES, MAX_MEMBERS, RejectedLines, Search, TooMuch  # noqa: E402

JSON = {"content-type": "application/json"}
SPEED = 720
PARAMETERS = "BatchingWindowSeconds=0 SealGraceMinutes=60 RecencyDueMinutes=150 MinimumHourBytes=0 MinimumDateBytes=0"
HOURS = [START + timedelta(hours=number) for number in range(4)]
# What shells, JSON, LIKE and regular expressions take for something else.
HOSTILE = "o'Neil\"; %s-1 \\u0041 $HOME ü .*"
VICTIMS = ("s-1", HOSTILE)
PATHS = ("session_id", "sessionId", "viewer_id", "viewerId", "xid", "sid")
QUIET = ("check-object", "seal-partition", "check-completeness", "check-deletions", "compact-partition", "kinesis-to-s3-lambda")


def viewer_of(event):
    return next((event[name] for name in PATHS if event.get(name) is not None), None)


def is_victims(line):
    return viewer_of(line.json["event"]) in VICTIMS


def tell(number, hour):
    return {"id": f"{hour:%d-%H}-{number}", "type": "play", "n": number}


def post_hour(stack, connection, hour):
    """Two victims beside others, an event twice, escaped values, objects that hold nothing else, and input that is rejected."""
    def post(body, status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        assert stack.post(body=body, headers=JSON | headers, connection=connection).status == status

    mixed = [tell(n, hour) | {"session_id": viewer} for n, viewer in enumerate(["s-1", "s-10", HOSTILE, "xs-1", "S-1", "s-1 x"] * 3)]
    post(mixed)
    post(mixed[:7])
    post([tell(30, hour) | {"xid": "s-1"}, tell(31, hour) | {"session_id": None, "sid": HOSTILE}, tell(32, hour) | {"page": "about s-100"}])
    # Each alone, so that an object has no other line.
    time.sleep(0.2)
    post(b'{"id":"%s","session_id":"\\u0073-\\u0031"}' % f"{hour:%d-%H}-escaped".encode())
    time.sleep(0.2)
    for viewer in ("s-1", "s-10"):
        broken = b'{"session_id":"%s", "n": NaN' % viewer.encode()
        post(broken, status=400)
        post(broken.replace(b"s", b"\\u0073", 1).replace(b"\\u0073ession", b"session"), status=400)
        post(gzip.compress(broken * 5)[:-6], status=400, **{"content-encoding": "gzip"})


class Life:
    """A stack that has lived through some hours."""

    def __init__(self, stack, clock):
        self.stack, self.clock, self.bucket = stack, clock, stack.data / "s3" / LANDING_BUCKET

    def live(self, hours):
        for hour in hours:
            wait_for(lambda: self.clock.now() >= hour + timedelta(minutes=10), 60, "the hour")
            connection = self.stack.connect()
            post_hour(self.stack, connection, hour)
            connection.close()

    def json(self, key):
        path = self.bucket / key
        return json.loads(path.read_text()) if path.exists() else None

    def is_settled(self, hour):
        sealed, columnar = (self.json(f"{kind}/{partition(hour)}/_SUCCESS") for kind in ("events", "columnar"))
        return sealed and columnar and columnar["sealed_at"] == sealed["sealed_at"]

    def settle(self, hours):
        wait_for(lambda: all(map(self.is_settled, hours)), 60, self.stack.tail)

    def wait_for(self, hour):
        """Until all that was posted in it has landed."""
        def has_landed():
            ids = {line.json["id"] for lines in self.lines().values() for line in lines}
            bodies = [one for lines in self.lines("rejected").values() for one in landed.rejected(lines)]
            return f"{hour:%d-%H}-escaped" in ids and len([one for one in bodies if one.line["received_at"][:13] == f"{hour:%Y-%m-%dT%H}"]) == 6

        wait_for(has_landed, 30, self.stack.tail)

    def lines(self, prefix="events"):
        """The lines of each object, as texts."""
        return {file.key: lines_of(file.path) for file in self.stack.landed_files(prefix)}

    def sound_lines(self, but):
        return [lines_of(file.path) for file in self.stack.landed_files("events") if file.key not in but]

    def command(self, *arguments, **variables):
        return {"args": [sys.executable, TOOL, *arguments], "cwd": REPOSITORY, "text": True,
                "env": without_aws() | {"AWS_ENDPOINT_URL": self.stack.aws_address} | variables}

    def delete(self, *arguments, **variables):
        return subprocess.run(**self.command(*arguments, **variables), capture_output=True, timeout=120, stdin=subprocess.DEVNULL)

    def delete_until(self, text, *arguments):
        """Kills it once it has printed this."""
        with subprocess.Popen(**self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            printed = []
            for line in process.stdout:
                printed.append(line)
                if re.search(text, line):
                    process.send_signal(signal.SIGKILL)
                    break
            else:
                raise AssertionError("".join(printed))

    def errors(self):
        """What the checks say that a person must look at."""
        logs = [self.stack.data / "logs" / f"{name}.log" for name in QUIET]
        return [line for log in logs if log.exists() for line in log.read_text().splitlines() if '"ERROR"' in line or " ERROR " in line]


class Bystanders:
    """Others, who post all the time."""

    def __init__(self, stack):
        self.stack, self.ids, self.over = stack, set(), threading.Event()
        self.thread = threading.Thread(target=self.post)

    def post(self):
        while not self.over.wait(0.1):
            name = f"bystander-{len(self.ids)}"
            if self.stack.post(body=json.dumps({"id": name, "session_id": "s-10"}).encode(), headers=JSON).status == 200:
                self.ids.add(name)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def lines_of(path):
    content = bz2.decompress(path.read_bytes())
    return [landed.Line(text, json.loads(text)) for text in content.decode().split("\n")[:-1]]


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    # Made first, it is as far as the stack's, however long the start takes.
    clock = FastClock(SPEED)
    stack = Stack(tmp_path_factory.mktemp("viewer"), parameters=PARAMETERS, CLOCK=clock.setting)
    life = Life(stack, clock)
    try:
        life.live(HOURS)
        life.settle(HOURS)
        yield life
    finally:
        assert stack.stop() == 0, stack.tail()


def rows(files):
    """By DuckDB."""
    done = subprocess.run([DUCKDB, "-init", "/dev/null", "-json", "-c", f"SELECT * FROM read_parquet('{files}')"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "[]")


def everything(life):
    """All that the bucket's folder has, as it reads: files, their metadata, what is compressed, encoded or in columns."""
    for path in (path for path in life.bucket.parent.rglob("*") if path.is_file()):
        content = path.read_bytes()
        yield path, content
        if path.suffix == ".bz2" and content[:3] == b"BZh":
            content = bz2.decompress(content)
            yield path, content
            for line in content.splitlines():
                value = json.loads(line)
                yield path, json.dumps(value, ensure_ascii=False).encode()
                if "rejected" in value:
                    body = base64.b64decode(value["rejected"]["body_base64"])
                    yield path, body
                    yield path, zlib.decompressobj(47).decompress(body) if body[:2] == b"\x1f\x8b" else body
        if path.suffix == ".parquet":
            for row in rows(path):
                yield path, json.dumps(row, ensure_ascii=False).encode()


def traces(life):
    """Where a victim still is; another viewer is called "s-1 x"."""
    wanted = re.compile(rb"""(?<![\w-])(s|\\u0073)-(1|\\u0031)(?![\w-]| x)|o'Neil""")
    return [(str(path), content[max(match.start() - 30, 0):match.end() + 30]) for path, content in everything(life) for match in wanted.finditer(content)]


def test_a_viewer_is_gone_from_lines_rejected_input_and_parquet_and_nobody_else_is(life):
    """Killed twice on its way; while it runs, players post, the victims too, into the hour that is open."""
    assert life.errors() == []
    before, rejected = life.lines(), life.lines("rejected")
    life.stack.s3().put_object(Bucket=LANDING_BUCKET, Key=f"unloadable/search/events/{partition(HOURS[0])}/x.jsonl.bz2.jsonl", Body=b"".join(
        b'{"type":"t","reason":"r","line":%s}\n' % line.text.encode() for line in next(iter(before.values()))[:4]))
    # As load-warehouse has COPY read a part whose texts are too long for Redshift.
    life.stack.s3().copy_object(Bucket=LANDING_BUCKET, Key=f"warehouse/{partition(HOURS[1])}/e-part-00000.parquet",
                                CopySource=f"{LANDING_BUCKET}/columnar/{partition(HOURS[1])}/part-00000.parquet")
    values = [f"session_id={value}" for value in VICTIMS]
    asked = life.delete(values[0])
    assert asked.returncode == 1 and "YES=1" in asked.stderr and traces(life), asked.stdout + asked.stderr
    assert life.lines().items() >= before.items(), "deleted without a yes"

    life.delete_until("sealed again", values[0], "--yes")
    life.delete_until("from the beginning", values[0], "--yes")
    done = life.delete(YES="1", FIELD="session_id", VALUE=VICTIMS[0], REFERENCE="request 17")
    assert done.returncode == 0, done.stdout + done.stderr
    open_hour = (life.clock.now() + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    life.live([open_hour])
    life.wait_for(open_hour)
    before |= {key: lines for key, lines in life.lines().items() if partition(open_hour) in key}
    rejected |= {key: lines for key, lines in life.lines("rejected").items() if partition(open_hour) in key}
    with Bystanders(life.stack) as bystanders:
        for value in values:
            done = life.delete(value, "--yes")
            assert done.returncode == 0, done.stdout + done.stderr
    life.stack.post(body=b'{"id":"last"}')
    wait_for(lambda: bystanders.ids <= {line.json["id"] for lines in life.lines().values() for line in lines}, 30, life.stack.tail)

    assert traces(life) == [] and not list((life.bucket / "warehouse").rglob("*.parquet"))
    after = life.lines()
    assert before.keys() <= after.keys(), "an object is gone"
    assert {line.json["id"] for key in after.keys() - before.keys() for line in after[key]} <= bystanders.ids | {"last"}
    for key, lines in before.items():
        assert [line.text for line in after[key]] == [line.text for line in lines if not is_victims(line)], key
    assert any(not lines for lines in after.values()), "no object lost all of its lines"
    kept = [body for body in landed.rejected(line for lines in life.lines("rejected").values() for line in lines)]
    assert kept and all(b"-10" in zlib.decompressobj(47).decompress(one.body) if one.body[:2] == b"\x1f\x8b" else b"-10" in one.body for one in kept)
    assert len(kept) == sum(map(len, rejected.values())) / 2
    check_parquet(life)
    check_records(life)


def check_parquet(life):
    hours = [hour for hour in HOURS if life.is_settled(hour)]
    assert hours == HOURS
    for hour in hours:
        there = {(line.json["id"], line.event_text) for key, lines in life.lines().items() if partition(hour) in key for line in lines}
        found = rows(f"{life.bucket}/columnar/{partition(hour)}/*.parquet")
        assert sorted((row["id"], row["event"]) for row in found) == sorted(there)
        columnar = life.json(f"columnar/{partition(hour)}/_SUCCESS")
        assert columnar["plans"] == 1 and columnar["totals"]["lines"] == columnar["totals"]["expected_lines"]


def check_records(life):
    """What was done is kept, and nothing is pending."""
    found = [life.json(str(path.relative_to(life.bucket))) for path in sorted((life.bucket / "deletions").glob("*.json"))]
    assert "request 17" in [one["reference"] for one in found]
    assert {partition(hour) for hour in HOURS} <= {hour["hour"] for one in found for hour in one["hours"]}
    assert not [path for path in (life.bucket / "deletions/pending").rglob("*") if path.is_file()]


def test_the_checks_see_neither_loss_nor_late_objects(life):
    """After the deletion each hour was sealed again, balanced again and compared with its manifests."""
    now = life.clock.now()
    wait_for(lambda: life.clock.now() > now + timedelta(hours=8), 60, "the next runs of the checks")
    assert life.errors() == []
    for hour in HOURS:
        totals = life.json(f"events/{partition(hour)}/_SUCCESS")
        assert totals["totals"]["deleted_events"] > 0 and totals["totals"]["deleted_rejected"] > 0 and totals["late_objects"] == 0
    for name, function in (("LostEvents", "check-completeness"), ("LostRecords", "check-completeness"), ("DoubledEvents", "check-completeness"),
                           ("LateObjects", "seal-partition"), ("DeletedObjects", "check-deletions")):
        values = life.stack.metric(name, START, FunctionName=function)
        assert values and max(values) == 0, (name, values)
    for prefix in ("events", "rejected"):
        for file in life.stack.landed_files(prefix):
            head = life.stack.s3().head_object(Bucket=LANDING_BUCKET, Key=file.key)
            assert head["Metadata"]["event-count"] == str(len(lines_of(file.path)))
    assert not list((life.bucket / "broken").rglob("*.json"))


def test_a_second_run_finds_nothing_and_changes_nothing(life):
    before = {path: path.read_bytes() for path in life.bucket.rglob("*.bz2")}
    done = life.delete("session_id=s-1")
    assert done.returncode == 0 and "\ndone: " in done.stdout, done.stdout + done.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("bound, dates", [
    ("--from", f"{START:%Y-%m-%d} and later"), ("--to", f"{START:%Y-%m-%d} and earlier"), ("both", f"{START:%Y-%m-%d} to {START:%Y-%m-%d}"),
])
def test_a_bounded_search_says_which_dates_it_searched_and_that_others_were_not(life, bound, dates):
    records = set(life.bucket.glob("deletions/*.json"))
    bounds = [word for name in ("--from", "--to") if bound in (name, "both") for word in (name, f"{START:%Y-%m-%d}")]
    done = life.delete("session_id=nobody", *bounds)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0 and last.startswith("done: ") and f"dates {dates} (UTC)" in last and "other dates were not" in last, done.stdout
    assert f"- dates other than {dates}" in done.stdout
    record, = (json.loads(path.read_text()) for path in set(life.bucket.glob("deletions/*.json")) - records)
    said = [record[name] for name in ("from", "to")]
    assert said == [f"{START:%Y-%m-%d}" if bound in (name, "both") else None for name in ("--from", "--to")] and record["searched_hours"] >= len(HOURS)


def test_a_search_of_dates_that_have_nothing_is_not_done(life):
    done = life.delete("session_id=nobody", "--from", "2031-01-01", "--yes")
    assert done.returncode != 0 and "done" not in done.stdout and "nothing was searched" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("arguments, says", [
    (["title=x"], "not promoted"), (["session_id"], "whose events"), (["session_id=a", "session_id=b"], "twice"),
    (["session_id=s-1", "--from", "2026-11-17", "--to", "2026-11-16"], "from 2026-11-17 to 2026-11-16"),
])
def test_what_can_t_be_meant_is_refused(life, arguments, says):
    done = life.delete(*arguments, "--yes")
    assert done.returncode != 0 and says in done.stderr, done.stderr


# Lines of other producers with an event in an envelope. compact-partition takes the last two for envelopes, and of the others the whole line.
LOOKALIKE = '{"v":1,"id":"look","received_at":"TIME","client":{},"event":{"session_id":"cn"}}'
LOOKALIKES = [LOOKALIKE.replace(*change) for change in (
    ("{},", "null,"), ('"look"', "7"), ('"v":1', '"v":1.0'), ('"v":1', '"v":2'), ('"v":1', '"v":1,"\\u0076":1'), ("TIME", "today"),
    ("TIME", "\\u0032026-11-16T09:00:00.000Z"), ('"event"', '"\\u0065vent":{},"event"'), ("{},", '{"ip":7},'), ("{},", '{"ip":null,"ip":"x"},'),
    ('"client"', '"request_id":7,"client"'), ('"event"', '"\\u0065vent"'), ("{},", '{"page":{},"page":7},'),
)]


def lookalikes(viewer="cn", received_at="2026-11-16T09:00:00.000Z"):
    """Those of which the whole line is the event, and those that are taken for envelopes."""
    lines = [line.replace('"cn"', f'"{viewer}"').replace("TIME", received_at) for line in LOOKALIKES]
    return lines[:-2], lines[-2:]


def test_lines_that_only_resemble_an_envelope_are_found_in_sealed_hours(life):
    """By the viewer of what looks like the event, and by the line's own members, as Parquet has it; nobody else's goes."""
    now = f"{life.clock.now():%Y-%m-%dT%H:%M:%S.000Z}"
    (of_cn, cn_enveloped), (of_whole, _), (of_other, _) = found = [lookalikes(viewer, now) for viewer in ("cn", "cn-whole", "cn-other")]
    data = "".join(f"{line}\n" for pair in found for lines in pair for line in lines).encode()
    life.stack.kinesis().put_record(StreamName=STREAM, Data=data, PartitionKey="k")

    def left():
        return [line.text for lines in life.lines().values() for line in lines if '"cn' in line.text]

    wait_for(lambda: len(left()) == len(data.splitlines()), 30, life.stack.tail)
    hour, = {key.split("/", 1)[1].rsplit("/", 1)[0] for key, lines in life.lines().items() if any('"cn' in line.text for line in lines)}
    life.settle([datetime.strptime(hour, "dt=%Y-%m-%d/hour=%H").replace(tzinfo=UTC)])
    files = f"{life.bucket}/columnar/{hour}/*.parquet"
    assert {row["event"] for row in rows(files) if row["v"] is None} == {*of_cn, *of_whole, *of_other}
    for value, lines in (("session_id=cn", of_cn + cn_enveloped), ('type={"session_id":"cn-whole"}', of_whole)):
        before = left()
        done = life.delete(value, "--yes")
        assert done.returncode == 0 and "\ndone: " in done.stdout, done.stdout + done.stderr
        assert sorted(left()) == sorted(set(before) - set(lines))
    events = [row["event"] for row in rows(files)]
    assert not {event for event in events if '"cn"' in event} | set(events) & set(of_whole) and set(of_other[:2]) < set(events)


def test_what_is_not_as_its_metadata_says_is_named_and_left_alone_and_all_else_is_deleted(life):
    """Objects with the viewer's events: one with a false count, a damaged one, and one with a line that is none."""
    source = next(file for file in life.stack.landed_files("events") if lines_of(file.path))
    metadata = life.stack.s3().head_object(Bucket=LANDING_BUCKET, Key=source.key)["Metadata"]
    line = json.dumps(lines_of(source.path)[0].json | {"event": {"session_id": "s-77"}})
    body = bz2.compress(f"{line}\n".encode())
    folder = f"events/{partition(START - timedelta(days=1))}"
    keys = [f"{folder}/shardId-000000000000-{number}.jsonl.bz2" for number in (1, 2, 3)]
    contents = [body, body[:-5], bz2.compress(b"\xff\n" + bz2.decompress(body))]
    for key, content in zip(keys, contents):
        life.stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=content, Metadata=metadata | {"last-sequence-number": "9"})
    assert life.stack.post(body=b'{"id":"of s-77","session_id":"s-77"}').status == 200
    wait_for(lambda: any(line.json["id"] == "of s-77" for lines in life.sound_lines(keys) for line in lines), 30, life.stack.tail)
    done = life.delete("session_id=s-77", "--yes")
    assert done.returncode == 1 and "\ndone: " not in done.stdout and all(key in done.stderr for key in keys), done.stdout + done.stderr
    assert [(life.bucket / key).read_bytes() for key in keys] == contents
    assert not any(line.json["id"] == "of s-77" for lines in life.sound_lines(keys) for line in lines)


# ---- What is whose ----

FIELDS = tool_lines.promoted_fields("type:type|event|e,session_id:session_id|media.viewer|xid")


def envelope(event):
    return b'{"v":1,"id":"i","received_at":"2026-11-16T09:00:00.000Z","request_id":"r","client":{},"event":%s}' % event


@pytest.mark.parametrize("value, event, expected", [
    ("abc", b'{"session_id":"abc"}', True),
    ("abc", b'{"session_id":"\\u0061bc"}', True),
    ("abc", b'{"session_\\u0069d":"abc"}', True),
    ("abc", b'{"session_id":"abcd"}', False),
    ("abc", b'{"session_id":"ABC"}', False),
    ("abc", b'{"page":"abc"}', False),
    ("abc", b'{"session_id":null,"xid":"abc"}', True),
    ("abc", b'{"session_id":"x","xid":"abc"}', False),
    ("abc", b'{"session_id":"abc","session_id":"x"}', False),
    ("abc", b'{ "media" : { "viewer" : "abc" } , "n" : 1e400 }', True),
    ("7", b'{"session_id":7}', True),
    ("7", b'{"session_id":7.0}', False),
    ("7.0", b'{"session_id":7.0}', True),
    ('["a", 1]', b'{"session_id":["a", 1]}', True),
    ("%", b'{"session_id":"%"}', True),
    ('"', b'{"session_id":"\\""}', True),
    ("ü", '{"session_id":"ü"}'.encode(), True),
    ("ü", b'{"session_id":"\\u00fc"}', True),
    ("1" * 5000, b'{"session_id":%s}' % (b"1" * 5000), True),
    ("abc", b'{"session_id":"abc"', False),
    ("abc", b"[" * 5000, False),
])
def test_an_event_is_the_viewers_if_its_promoted_field_has_the_value(value, event, expected):
    viewer = tool_lines.Viewer({"session_id": value}, FIELDS)
    assert viewer.has_line(envelope(event)) is expected
    # As another producer writes it, and with EVENT_FORMAT=raw.
    assert viewer.has_line(event) is expected and viewer.has_line(event, "raw") is expected


# Landing replaces such halves of a pair.
SOUND = LOOKALIKE.replace("TIME", "2026-11-16T09:00:00.000Z")
HALVES = [SOUND.replace(*change) for change in (('"look"', '"\\ud83d"'), ('"client"', '"\\ud83d":7,"client"'), ("{},", '{"\\ud83d":7},'))]


@pytest.mark.parametrize("line, is_whole", [*((line, True) for line in lookalikes()[0] + HALVES), *((line, False) for line in lookalikes()[1])])
def test_of_a_line_that_only_resembles_an_envelope_the_member_and_the_line_are_examined(line, is_whole):
    def has(text, **wanted):
        return tool_lines.Viewer(wanted, FIELDS).has_line(text.encode())

    assert has(line, session_id="cn") and not has(line.replace('"cn"', '"cn-other"'), session_id="cn")
    assert has(line, type='{"session_id":"cn"}') is is_whole


@pytest.mark.parametrize("text", ["\\ud83d", "\\udc00\\ud83d"])
def test_half_a_pair_stays_as_it_is_written(text):
    assert tool_lines.Viewer({"session_id": text}, FIELDS).has_line(envelope(b'{"session_id":"%s"}' % text.encode()))


class Contended:
    """An object that landing replaces, with a line more, whenever it was read."""

    def __init__(self, times):
        self.times, self.lines = times, [envelope(b'{"session_id":"abc"}'), envelope(b'{"session_id":"x"}')]
        self.written = None

    def etag(self):
        return f'"{len(self.lines)}{self.written is not None}"'

    def get_object(self, **_):
        content = self.written or bz2.compress(b"".join(line + b"\n" for line in self.lines))
        text = bz2.decompress(content)
        metadata = {"event-count": str(len(self.lines)), "uncompressed-sha256": hashlib.sha256(text).hexdigest(), "bzip2-block-size": "9",
                    "received-in": f"previous=0,this={len(self.lines)},next=0,elsewhere=0", "earliest-received-at": "2026-11-16T09:00:00.000Z",
                    "latest-received-at": "2026-11-16T09:00:00.000Z"}
        return {"Body": io.BytesIO(content), "ETag": self.etag(), "Metadata": metadata}

    def put_object(self, Body, IfMatch, Metadata, **_):
        if self.times:
            self.times -= 1
            self.lines.append(envelope(b'{"session_id":"late"}'))
        if IfMatch != self.etag():
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.written, self.metadata = Body, Metadata
        return {"ETag": self.etag()}


def test_what_lands_in_an_object_while_it_is_rewritten_stays():
    key = "events/dt=2026-11-16/hour=09/shardId-000000000000-1.jsonl.bz2"
    is_viewers = tool_lines.Viewer({"session_id": "abc"}, FIELDS).has_line
    s3 = Contended(ATTEMPTS - 1)
    assert delete_lines(s3, "b", key, is_viewers) == 1
    assert bz2.decompress(s3.written).count(b"late") == ATTEMPTS - 1 and b"abc" not in bz2.decompress(s3.written)
    assert s3.metadata["event-count"] == str(ATTEMPTS) and s3.metadata["deleted-in"] == "previous=0,this=1,next=0,elsewhere=0"
    with pytest.raises(Problem):
        delete_lines(Contended(ATTEMPTS), "b", key, is_viewers)
    # load-search knows by it what is no landing, however often an object is rewritten.
    assert s3.metadata["landed-etag"] == f"{ATTEMPTS + 1}False"
    lines = bz2.decompress(s3.written).splitlines(keepends=True)
    _, metadata = rewritten(Landed(key, s3.etag(), "", s3.metadata, lines), lines[1:])
    assert (metadata["landed-etag"], metadata["event-count"]) == (s3.metadata["landed-etag"], str(len(lines) - 1))


def rejected_line(body, line_id="i", part=None, **members):
    numbers = {"part": part[0], "parts": part[1]} if part else {}
    found = {"reason": "not_json", "path": "/events", "detail": "", **numbers, **members, "body_base64": base64.b64encode(body).decode()}
    return json.dumps({"v": 1, "id": line_id, "received_at": "2026-11-16T09:00:00.000Z", "client": {}, "rejected": found}, separators=(",", ":")).encode()


@pytest.mark.parametrize("body, expected", [
    (b'{"session_id":"s-1"', True),
    (b'{"session_id":"s-10"', False),
    (b'{"session_id":"ws-1"', False),
    (b'{"session_id":"s-1-2"', False),
    (b'{"session_id":"\\u0073-1"', True),
    (b"sid%3Ds%2D1%26", True),
    (b'{"text":"{\\"session_id\\":\\"\\\\u0073-1\\"}"', True),
    (b"line\\ns-1", True),
    # Without the time: it would be in the names of the tests, and workers that collect them in two seconds would differ.
    (gzip.compress(b'{"session_id":"s-1"', mtime=0), True),
    (gzip.compress(b'{"session_id":"s-1"' * 50, mtime=0)[:-9], True),
    (zlib.compress(b'{"session_id":"s-1"')[2:-4], True),
    (gzip.compress(b"{}", mtime=0) + gzip.compress(b'{"session_id":"s-1"', mtime=0), True),
    (gzip.compress(b'{"session_id":"s', mtime=0) + gzip.compress(b'-1"', mtime=0), True),
    (gzip.compress(b'{"session_id":"s-1"', mtime=0) + b"no gzip", True),
    (b"\xff\xfes-1", False),
    (b"\xff\xfe s-1", True),
])
def test_rejected_input_is_the_viewers_if_it_has_the_value_by_itself(body, expected):
    lines = RejectedLines(Search(["s-1"]))
    assert lines.has_line(rejected_line(body)) is expected
    assert lines.has_line(rejected_line(b"", path="/events?sid=s-1")) and not lines.has_line(rejected_line(b"", path="/events?sid=s-10"))


def test_a_body_in_parts_is_searched_whole():
    lines = RejectedLines(Search(["s-1"]))
    parts = [rejected_line(b'{"session_id":"s', part=(1, 2)), rejected_line(b'-1"', part=(2, 2)), rejected_line(b"s-10", "other", part=(1, 2))]
    for line in parts:
        lines.add(line)
    lines.join()
    assert [lines.has_line(line) for line in parts] == [True, True, False]


def test_a_body_that_is_too_large_to_search_is_no_clean_one():
    lines = RejectedLines(Search(["s-1"]))
    assert not lines.has_line(rejected_line(gzip.compress(b" " * MAX_BODY_BYTES)))
    with pytest.raises(TooMuch):
        lines.has_line(rejected_line(gzip.compress(b" " * (MAX_BODY_BYTES + 1))))


def test_a_body_is_searched_up_to_the_limits_of_bytes_and_members(monkeypatch):
    def has(*members):
        return RejectedLines(Search(["s-1"])).has_line(rejected_line(b"".join(map(gzip.compress, members))))

    monkeypatch.setattr("rejected.MAX_BODY_BYTES", 1000)
    assert has(b" " * 996, b" s-1") and has(*[b" "] * (MAX_MEMBERS - 1), b"s-1")
    # What is found within them needs no more.
    assert has(b"s-1", b" " * 1000) and has(b"s-1", *[b" "] * MAX_MEMBERS)
    assert not has(b" " * 1000) and not has(*[b" "] * MAX_MEMBERS)
    for members in ([b" " * 1000, b" s-1"], [*[b" "] * MAX_MEMBERS, b"s-1"], [b" " * 1001], [b" "] * (MAX_MEMBERS + 1)):
        with pytest.raises(TooMuch):
            has(*members)


def test_bodies_in_parts_that_are_too_large_to_search_are_reported_and_the_others_searched(monkeypatch):
    monkeypatch.setattr("rejected.MAX_JOINED_BYTES", 10)
    bomb = gzip.compress(b" " * (MAX_BODY_BYTES + 1))
    for parts, has_problem in (((b"s-", b"1"), False), ((b"1234567", b"s-1"), False), ((b"12345678", b"s-1"), True)):
        lines = RejectedLines(Search(["s-1"]))
        for number, body in enumerate(parts, 1):
            lines.add(rejected_line(body, part=(number, 2)))
        lines.join()
        assert (lines.problem is not None) == has_problem
    monkeypatch.setattr("rejected.MAX_JOINED_BYTES", len(bomb) + 10)
    lines = RejectedLines(Search(["s-1"]))
    found = rejected_line(b"s-1", "found", part=(1, 2))
    for line in (rejected_line(bomb, "bomb", part=(1, 2)), found):
        lines.add(line)
    lines.join()
    assert isinstance(lines.problem, TooMuch) and lines.ids == {"found"} and lines.has_line(found)


def test_metadata_counts_lines_as_landing_does():
    """Of the hour, of the ones beside it, far from it, without an envelope, and rejected by landing itself."""
    times = ["09:00:00.000", "08:59:59.999", "10:00:00.000", "11:00:00.000"]
    lines = [rejected_line(b"").replace(b"09:00:00.000", time.encode()) + b"\n" for time in times]
    lines.append(rejected_line(b"", reason="foreign_record") + b"\n")
    metadata = {"rejected-reasons": "not_json=4,foreign_record=1"}
    key = "rejected/dt=2026-11-16/hour=09/shardId-000000000000-1.jsonl.bz2"
    found = counted(Landed(key, "", "", metadata, lines), lines)
    assert found.received_in == {"previous": 1, "this": 1, "next": 1, "elsewhere": 2}
    assert found.reasons == {"not_json": 4, "foreign_record": 1}
    hour = datetime(2026, 11, 16, 9, tzinfo=UTC)
    assert (found.earliest, found.latest) == ((hour - timedelta(milliseconds=1), hour), (hour, hour + timedelta(hours=1)))
