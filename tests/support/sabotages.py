"""Ways to break the promises of docs/DELIVERY.md: each is something that a proxy does to the requests of the functions, and of
the redrive command, to Kinesis and S3. test_promises.py runs tests under them."""

import base64
import bz2
import hashlib
import json
import re
import uuid
from dataclasses import replace
from urllib.parse import urlsplit

from support import proxy
from support.stack import FAILED_BATCHES_BUCKET

# By name: `function(request, send)` returns the reply to a request, and sends on what the stack shall see of it.
SABOTAGES = {}
# One entry each time that a sabotage changed something.
WORK = []

LANDING_OBJECT = re.compile(r"/landing-bucket/(events|rejected)/.*\.jsonl\.bz2")
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
    """The call of PutRecords with other data in its records."""
    records = [record | {"Data": base64.b64encode(change(base64.b64decode(record["Data"]))).decode()}
               for record in put_records(request)]
    return with_records(request, records)


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
def give_new_ids(request, send):
    """Each try at storing an event gives it another id."""
    def change(data):
        at_work()
        return ENVELOPE_ID.sub(lambda _: b'{"v":1,"id":"%s"' % str(uuid.uuid4()).encode(), data)

    return send(with_data(request, change) if put_records(request) else request)


@sabotage
def cut_rejected_bodies(request, send):
    """What is rejected loses its first bytes."""
    def change(data):
        body = b'"body_base64":"'
        if body in data:
            at_work()
        return re.sub(body + rb"....", body, data)

    return send(with_data(request, change) if put_records(request) else request)


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
    described = {
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


SABOTAGES |= {
    "drop_a_line_untold": landing_other_lines(any_write, without_the_first, describe=False),
    "drop_a_line_of_redrive": landing_other_lines(is_of_redrive, without_the_first),
    "reverse_lines": landing_other_lines(any_write, lambda lines: lines[::-1]),
    "double_lines_of_child_shards": landing_other_lines(is_of_a_child_shard, lambda lines: [*lines, lines[-1]]),
}


# ---- Failed batches ----

@sabotage
def hide_failed_batches(request, send):
    """The functions find no batch in the bucket for failed batches; who redrives does."""
    reply = send(request)
    is_list = request.method == "GET" and urlsplit(request.path).path.strip("/") == FAILED_BATCHES_BUCKET
    if not is_list or is_of_redrive(request) or b"<Contents>" not in reply.body:
        return reply
    at_work()
    return replace(reply, body=re.sub(rb"<Contents>.*</Contents>", b"", reply.body, flags=re.DOTALL), length=None)


# ---- Nothing, for the control ----

@sabotage
def change_nothing(request, send):
    """Takes apart, puts together and signs what the others change."""
    at_work()
    if put_records(request):
        return send(with_data(request, lambda data: data))
    lines = lines_of(request)
    return send(request if lines is None else with_lines(request, lines))
