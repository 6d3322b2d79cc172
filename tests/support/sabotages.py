"""Ways to break the promises of docs/DELIVERY.md: each is something that a proxy does to the requests of the functions, and of
the redrive command, to Kinesis and S3. test_promises.py runs tests under them."""

import base64
import bz2
import hashlib
import json
import os
import re
import signal
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from support import proxy
from support.frames import text_of, with_text
from support.stack import FAILED_BATCHES_BUCKET

# By name: `function(request, send)` returns the reply to a request, and sends on what the stack shall see of it.
SABOTAGES = {}
# One entry each time that a sabotage changed something.
WORK = []

LANDING_OBJECT = re.compile(r"/landing-bucket/(events|rejected)/.*/shardId-[^/]*\.jsonl\.bz2")
ENVELOPE_ID = re.compile(rb'^\{"v":1,"id":"[^"]*"', re.MULTILINE)


def sabotage(function):
    SABOTAGES[function.__name__] = function
    return function


def at_work():
    WORK.append(1)


# ---- Kinesis ----

def put_records(request):
    """The records of a call of PutRecords; empty for any other request."""
    target = request.headers.get("x-amz-target", "")
    return json.loads(request.body)["Records"] if target.endswith(".PutRecords") else []


def with_records(request, records):
    return proxy.signed(request, json.dumps(json.loads(request.body) | {"Records": records}).encode(), {})


def with_data(request, change):
    """The call of PutRecords with another text in its records."""
    def changed(record):
        data = base64.b64decode(record["Data"])
        return record | {"Data": base64.b64encode(with_text(data, change(text_of(data)))).decode()}

    return with_records(request, [changed(record) for record in put_records(request)])


STORED = {"SequenceNumber": "1", "ShardId": "shardId-000000000000"}


def answer_of(records):
    failed = sum("ErrorCode" in record for record in records)
    body = json.dumps({"FailedRecordCount": failed, "Records": records}).encode()
    return proxy.Reply(200, [("content-type", "application/x-amz-json-1.1")], body)


@sabotage
def confirm_and_forget(request, send):
    """Kinesis says that it has stored the last record of each call, and has not."""
    records = put_records(request)
    if not records:
        return send(request)
    at_work()
    if len(records) == 1:
        return answer_of([STORED])
    reply = send(with_records(request, records[:-1]))
    return reply if reply.status != 200 else answer_of([*json.loads(reply.body)["Records"], STORED])


@sabotage
def hide_a_failure(request, send):
    """The first failed entry of all is said to be stored."""
    reply = send(request)
    if not put_records(request) or reply.status != 200 or WORK:
        return reply
    entries = json.loads(reply.body)["Records"]
    failed = next((index for index, entry in enumerate(entries) if "ErrorCode" in entry), None)
    if failed is None:
        return reply
    at_work()
    return answer_of([STORED if index == failed else entry for index, entry in enumerate(entries)])


@sabotage
def call_failures_stored(request, send):
    """A call that Kinesis refuses is answered as if all were stored."""
    reply = send(request)
    records = put_records(request)
    if reply.status == 200 or not records:
        return reply
    at_work()
    return answer_of([STORED] * len(records))


@sabotage
def forget_what_is_spilled(request, send):
    """S3 says that it has created a spilled object, and has removed it."""
    reply = send(request)
    if request.method == "PUT" and "/spill-" in request.path and reply.status == 200:
        at_work()
        assert send(proxy.signed(replace(request, method="DELETE"), b"", {})).status == 204
    return reply


@sabotage
def give_new_ids(request, send):
    """Each try at storing an event gives it another id."""
    def change(data):
        at_work()
        return ENVELOPE_ID.sub(lambda _: b'{"v":1,"id":"%s"' % str(uuid.uuid4()).encode(), data)

    return send(with_data(request, change) if put_records(request) else request)


def putting_other_data(pattern, replacement):
    """A sabotage of PutRecords: records hold other data."""
    def change(data):
        changed, count = re.subn(pattern, replacement, data)
        if count:
            at_work()
        return changed

    return lambda request, send: send(with_data(request, change) if put_records(request) else request)


SABOTAGES |= {
    # What is rejected loses its first bytes.
    "cut_rejected_bodies": putting_other_data(rb'(?<="body_base64":")[A-Za-z0-9+/=]{4}', b""),
    # What is rejected has a reason that it was not rejected for.
    "give_another_reason": putting_other_data(rb'(?<="rejected":\{"reason":")[a-z_]+', b"foreign_record"),
}


@sabotage
def drop_events_beside_rejected(request, send):
    """Of a call that has both, Kinesis stores what is rejected, and says that it has stored all."""
    records = put_records(request)
    rejected = [record for record in records if record["PartitionKey"].startswith("r-")]
    if len(rejected) in (0, len(records)):
        return send(request)
    at_work()
    reply = send(with_records(request, rejected))
    return reply if reply.status != 200 else answer_of([STORED] * len(records))


@sabotage
def freeze_the_sender(request, send):
    """The function stands still while Kinesis answers it."""
    if put_records(request):
        at_work()
        os.kill(sender(request), signal.SIGSTOP)
    return send(request)


def sender(request):
    """The process that sent a request: each has an access key of its own."""
    key = re.search(r"Credential=([^/]+)/", request.headers["authorization"])[1]
    wanted = {f"AWS_ACCESS_KEY_ID={key}", f"AWS_ENDPOINT_URL=http://{request.headers['host']}"}
    found, = (int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if wanted <= variables(path))
    return found


def variables(environ):
    try:
        return set(environ.read_text(errors="replace").split("\0"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()


# ---- Landed objects ----

def lines_of(request):
    """The lines of an object that is about to land; None when the request is no such write."""
    path = urlsplit(request.path).path
    if request.method != "PUT" or not LANDING_OBJECT.fullmatch(path):
        return None
    return bz2.decompress(request.body).removesuffix(b"\n").split(b"\n")


def with_lines(request, lines, describe=True):
    """The write of an object with other lines, which its metadata describes if it is to be truthful."""
    content = b"".join(line + b"\n" for line in lines)
    received = sorted(json.loads(line)["received_at"] for line in lines)
    described = {
        "x-amz-meta-earliest-received-at": received[0], "x-amz-meta-latest-received-at": received[-1],
        "x-amz-meta-event-count": str(len(lines)), "x-amz-meta-uncompressed-bytes": str(len(content)),
        "x-amz-meta-uncompressed-sha256": hashlib.sha256(content).hexdigest(),
    }
    body = bz2.compress(content, int(request.headers["x-amz-meta-bzip2-block-size"]))
    return proxy.signed(request, body, described if describe else {})


def landing_other_lines(wanted, change, describe=True):
    """A sabotage of the writes that are `wanted`: their objects land with changed lines."""
    def reply_to(request, send):
        lines = lines_of(request)
        if lines is None or not wanted(request) or (changed := change(lines)) == lines:
            return send(request)
        at_work()
        return send(with_lines(request, changed, describe))

    return reply_to


def any_write(_request):
    return True


def is_of_a_child_shard(request):
    """Streams begin with two shards: those with higher numbers come from splitting and merging."""
    return int(re.search(r"shardId-(\d+)", request.path)[1]) >= 2


def is_of_redrive(request):
    return "Credential=operator/" in request.headers["authorization"]


def without_the_first(lines):
    return lines[1:] or lines


def with_the_last_twice(lines):
    return [*lines, lines[-1]]


def moving_a_line(taken_from, put_into):
    """A sabotage that takes the first line out of a write and puts it behind the lines of a later one of the same viewer."""
    moved = []

    def viewer(line):
        return json.loads(line)["event"]["viewer_id"]

    def reply_to(request, send):
        lines = lines_of(request)
        if lines is None:
            return send(request)
        if not WORK and taken_from(request) and len(lines) > 1:
            at_work()
            moved.append(lines.pop(0))
        elif moved and put_into(request) and viewer(moved[0]) in map(viewer, lines):
            lines.append(moved.pop())
        return send(with_lines(request, lines))

    return reply_to


SABOTAGES |= {
    "drop_a_line_undescribed": landing_other_lines(any_write, without_the_first, describe=False),
    "drop_a_line_of_redrive": landing_other_lines(is_of_redrive, without_the_first),
    "double_a_line_of_redrive": landing_other_lines(is_of_redrive, with_the_last_twice),
    "reverse_lines": landing_other_lines(any_write, lambda lines: lines[::-1]),
    "move_a_line_to_a_later_file": moving_a_line(any_write, any_write),
    "drop_lines_of_child_shards": landing_other_lines(is_of_a_child_shard, without_the_first),
    "double_lines_of_child_shards": landing_other_lines(is_of_a_child_shard, with_the_last_twice),
    "move_a_line_behind_a_split": moving_a_line(lambda request: not is_of_a_child_shard(request), is_of_a_child_shard),
}


@sabotage
def remove_what_is_redriven(request, send):
    """What was rejected is gone once its events have landed."""
    reply = send(request)
    if lines_of(request) is not None and "-redriven." in request.path and reply.status == 200:
        at_work()
        origin = request.path.partition("?")[0].replace("/events/", "/rejected/").replace("-redriven.", ".")
        assert send(proxy.signed(replace(request, method="DELETE", path=origin), b"", {})).status == 204
    return reply


# ---- What functions look at ----

def bucket_and_key(request):
    bucket, _, key = urlsplit(request.path).path.strip("/").partition("/")
    return bucket, key


def hiding_objects(is_hidden):
    """A sabotage of listings: those that are hidden are empty for the functions; who redrives sees them."""
    def reply_to(request, send):
        reply = send(request)
        is_list = request.method == "GET" and b"<ListBucketResult" in reply.body
        if not is_list or is_of_redrive(request) or not is_hidden(request) or b"<Contents>" not in reply.body:
            return reply
        at_work()
        return replace(reply, body=re.sub(rb"<Contents>.*</Contents>", b"", reply.body, flags=re.DOTALL), length=None)

    return reply_to


def lists_failed_batches(request):
    return bucket_and_key(request)[0] == FAILED_BATCHES_BUCKET


def lists_verdicts(request):
    return parse_qs(urlsplit(request.path).query).get("prefix", [""])[0].startswith("broken/")


hide_verdicts = hiding_objects(lists_verdicts)


@sabotage
def hide_unreadable_objects(request, send):
    """Nobody has found an object broken, and one without metadata is not there."""
    if request.method != "HEAD" or not LANDING_OBJECT.fullmatch(urlsplit(request.path).path):
        return hide_verdicts(request, send)
    reply = send(request)
    if reply.status != 200 or any(name.lower().startswith("x-amz-meta-") for name, _ in reply.headers):
        return reply
    at_work()
    return proxy.Reply(404)


@sabotage
def hide_acceptances(request, send):
    """Nobody has accepted an hour as it is."""
    reply = send(request)
    if request.method != "GET" or not bucket_and_key(request)[1].startswith("accepted/") or reply.status != 200:
        return reply
    at_work()
    return proxy.Reply(404)


SABOTAGES["hide_failed_batches"] = hiding_objects(lists_failed_batches)


# ---- Invocations ----

INVOCATION_END = re.compile(r"(/2018-06-01/runtime/invocation/[^/]+/)(error|response)")
GIVES_BACK = re.compile(rb'\{"batchItemFailures":\[\{')


def acknowledging(is_wanted):
    """A sabotage of invocations that failed or gave their batch back: those that are `wanted` are said to have landed all of it."""
    def reply_to(request, send):
        end = INVOCATION_END.fullmatch(request.path)
        if not end or (end[2] == "response" and not GIVES_BACK.match(request.body)) or not is_wanted(request):
            return send(request)
        at_work()
        return send(replace(request, path=f"{end[1]}response", body=b'{"batchItemFailures":[]}'))

    return reply_to


class EverySecondBatch:
    """The first batch that failed, the third and so on; the same each time that a batch is sent: what is given back is named by
    its first record."""

    def __init__(self):
        self.numbers, self.lock = {}, threading.Lock()

    def __call__(self, request):
        with self.lock:
            return self.numbers.setdefault(request.body, len(self.numbers)) % 2 == 0


# They see what functions answer to Lambda, too.
OF_THE_RUNTIME_API = {
    "acknowledge_what_failed": acknowledging(lambda _: True),
    # The others go on as they should.
    "acknowledge_some_that_failed": acknowledging(EverySecondBatch()),
}
SABOTAGES |= OF_THE_RUNTIME_API


# ---- Nothing, for the control ----

@sabotage
def change_nothing(request, send):
    """Takes apart, puts together and signs what the others change."""
    at_work()
    if put_records(request):
        return send(with_data(request, lambda text: text))
    lines = lines_of(request)
    return send(request if lines is None else with_lines(request, lines))
