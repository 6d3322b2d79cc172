"""Input that can't be accepted is named to its sender, kept whole under rejected/, and harms nothing
beside it."""

import gzip
import hashlib
import json
import random
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from support import landed
from support.stack import wait_for

MEBIBYTE = 1024 * 1024
MAX_BODY_BYTES = 4 * MEBIBYTE
JSON = {"content-type": "application/json"}
XML = {"content-type": "application/xml"}
CMCD = {"content-type": "application/cmcd"}
GZIP = JSON | {"content-encoding": "gzip"}
GZIP_TWICE = JSON | {"content-encoding": "gzip, gzip"}
DEFLATE = JSON | {"content-encoding": "deflate"}
ORIGIN = "https://player.example"


@dataclass
class Row:
    """A row of the table: what is sent, what is answered, and what is then kept."""

    name: str
    status: int
    reason: str
    body: bytes
    headers: dict = field(default_factory=lambda: JSON)
    method: str = "POST"
    path: str = "/events"
    kept: list = None
    # What the message must name.
    says: str = ""

    def __post_init__(self):
        if self.kept is None:
            self.kept = [self.body]


def event_of(size):
    """An event of exactly so many bytes."""
    frame = b'{"session_id":"large","text":"%s"}'
    return frame % (b"x" * (size - len(frame % b"")))


def deep_array(levels):
    return b"[" * levels + b"]" * levels


def noise(size):
    """Bytes that don't repeat, so that parts that are mixed up are noticed."""
    return random.Random(size).randbytes(size)


ROWS = [
    Row("not_json", 400, "invalid_json", b"hello"),
    Row("truncated_json", 400, "invalid_json", b'{"type":"play","of":{"type":"pau'),
    Row("truncated_only_event", 400, "invalid_json", b'[{"type":"pau'),
    Row("number", 400, "not_an_object", b"17"),
    Row("string", 400, "not_an_object", b'"play"'),
    Row("null", 400, "not_an_object", b"null"),
    Row("empty_array", 400, "no_events", b"[]"),
    Row("empty_events_member", 400, "no_events", b'{"events":[]}'),
    Row("empty_body", 400, "no_events", b"", says="the body is empty"),
    Row("invalid_utf8", 400, "invalid_utf8", b'{"title":"caf\xe9 \xff\x00"}'),
    Row("object_10000_deep", 400, "too_deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    Row("array_10000_deep", 400, "not_an_object", deep_array(10_000)),
    Row("only_bad_members", 400, "not_an_object", b"[1, null,\n [2]]"),
    Row("unbalanced_10000_deep", 400, "invalid_json", b"[" * 10_000),
    Row("gzip_of_10_million_zeros", 413, "body_too_large", gzip.compress(bytes(10_000_000)), GZIP),
    Row("gzip_corrupt", 400, "invalid_compression", b"\x1f\x8b\x08\x00" + noise(500), GZIP),
    Row("gzip_cut_off", 400, "invalid_compression", gzip.compress(b'{"type":"play"}' * 9)[:-9], GZIP),
    Row("gzip_with_more_behind", 400, "invalid_compression", gzip.compress(b'{"type":"play"}') + b"\n", GZIP,
        says="1 extra byte"),
    Row("neither_gzip_nor_text", 400, "invalid_compression", b"\xff\xfe" + noise(300), GZIP),
    Row("200000_empty_gzip_members", 400, "invalid_compression", gzip.compress(b"", mtime=0) * 200_000, GZIP),
    Row("800000_empty_blocks", 400, "invalid_compression", b"\0\0\0\xff\xff" * 800_000 + b"\3\0", DEFLATE),
    Row("gzip_twice", 415, "unsupported_encoding", gzip.compress(gzip.compress(b"{}")), GZIP_TWICE),
    Row("unknown_encoding", 415, "unsupported_encoding", noise(300), JSON | {"content-encoding": "br"}),
    Row("unknown_content_type", 415, "unsupported_content_type", b"<play/>", XML),
    Row("binary_content_type", 415, "unsupported_content_type", noise(300), {"content-type": "image/png"}),
    Row("invalid_cmcd", 400, "invalid_cmcd", b"e=t,sn=1,", CMCD),
    Row("event_larger_than_a_record", 413, "event_too_large", event_of(MEBIBYTE + 1)),
    Row("body_larger_than_the_limit", 413, "body_too_large", event_of(MAX_BODY_BYTES + 1)),
    Row("binary_body_larger_than_the_limit", 413, "body_too_large", noise(MAX_BODY_BYTES + 1), {}),
    Row("10001_events", 413, "too_many_events", b"[" + b",".join([b"{}"] * 10_001) + b"]"),
    Row("put", 405, "method_not_allowed", b'{"type":"play"}', method="PUT"),
    Row("put_to_the_root", 405, "method_not_allowed", b'{"type":"play"}', method="PUT", path="/"),
    Row("unknown_path", 404, "unknown_path", b'{"type":"play"}', path="/evnts"),
    Row("unknown_path_with_slashes", 404, "unknown_path", b'{"type":"play"}', path="//evnts//" + "x" * 300),
]


def post_good(stack):
    """Posts a good event and returns its id."""
    event = str(uuid.uuid4())
    answer = stack.post(body=json.dumps({"id": event, "type": "good"}).encode(), headers=JSON)
    assert (answer.status, answer.json) == (200, {"accepted": 1, "rejected": []})
    return event


def post_between_good_ones(stack, row):
    """Posts a row under a user agent of its own, by which what is kept of it is found; the good ones
    must land."""
    user_agent = f"row/{uuid.uuid4()}"
    before = post_good(stack)
    headers = row.headers | {"user-agent": user_agent, "origin": ORIGIN}
    answer = stack.post(row.path, row.body, headers, row.method)
    after = post_good(stack)
    good = stack.wait_for_lines(lambda line: line.json.get("id") in (before, after), 2)
    landed.assert_once(good, [before, after])
    return user_agent, answer


def summary(body):
    """What tells one body from another. In CI pytest writes the whole difference of what is compared: minutes for a mebibyte."""
    return len(body), hashlib.sha256(body).hexdigest(), body[:80]


def sender(line):
    return line.json["client"].get("user_agent")


def kept_of(stack, user_agent, count):
    """What is kept of a row, once there is so much; there must not be more."""
    found = []

    def enough():
        lines = stack.lines("rejected")
        found[:] = landed.rejected([line for line in lines if sender(line) == user_agent])
        return len(found) >= count

    wait_for(enough, what=lambda: f"{count} rejected inputs kept; there are {found}\n{stack.tail()}")
    return list(found)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_row_is_answered_with_its_reason_and_kept_whole(stack, row):
    """Rejected input is kept whole, with its reason, and never stops the good input beside it.

    Each row of the table gets its status and reason, and the rejected input is found under rejected/ to
    the byte; the good events posted before and after it land."""
    user_agent, answer = post_between_good_ones(stack, row)
    assert (answer.status, answer.json["error"]["code"]) == (row.status, row.reason), answer.body
    message = answer.json["error"]["message"]
    assert len(message) > 10 and row.says in message, message
    kept = kept_of(stack, user_agent, len(row.kept))
    assert [summary(one.body) for one in kept] == [summary(body) for body in row.kept]
    assert {one.reason for one in kept} == {row.reason}
    assert {one.line["client"]["origin"] for one in kept} == {ORIGIN}
    assert {one.line["rejected"]["path"] for one in kept} == {row.path[:256]}
    assert all(one.line["v"] == 1 and landed.TIME.fullmatch(one.line["received_at"]) for one in kept)


# Pieces that cost nobody but themselves, wherever in a list they stand.
BAD_MEMBERS = {
    "number": (b'{"n":NaN}', "invalid_json"),
    "undefined": (b"undefined", "invalid_json"),
    "raw_tab": (b'{"t":"a\tb"}', "invalid_json"),
    "raw_line_feed": (b'{"t":"a\nb"}', "invalid_json"),
    "bad_escape": (b'{"t":"\\x41"}', "invalid_json"),
    "single_quotes": (b"{'n':1}", "invalid_json"),
    "comma_too_many": (b'{"n":1,}', "invalid_json"),
    "bracket_missing": (b'{"a":[1}', "invalid_json"),
    "not_utf8": (b'{"t":"caf\xe9"}', "invalid_utf8"),
}
LISTS = {"array": b"[%s]", "frame": b'{"metadata":{"a":[]},"events":[%s],"version":2}', "cut_off": b"[%s"}
LARGE = event_of(2 * MEBIBYTE)
# Bodies in which each %s is a good event, and what is bad in them, by its index.
MIXED = {
    "array": (JSON, b"[%s, 7, %s, [{}], %s]", {1: (b"7", "not_an_object"), 3: (b"[{}]", "not_an_object")}),
    "event_larger_than_a_record": (JSON, b"[%s," + LARGE + b",%s]", {1: (LARGE, "event_too_large")}),
    # Nobody can tell what it was.
    "damage_around_the_list": (JSON, b'{"v":NaN,"events":[%s],"z":1}',
                               {0: (b'{"v":NaN,"events":', "invalid_json"), 2: (b',"z":1}', "invalid_json")}),
    # Who sends lines as text can't say so; a first line that is no JSON doesn't hide that there are more.
    "lines_as_text": ({"content-type": "text/plain"}, b'{"n":NaN}\n%s\n{"n":',
                      {0: (b'{"n":NaN}', "invalid_json"), 2: (b'{"n":', "invalid_json")}),
    "lines": ({"content-type": "application/x-ndjson"}, b'%s\n{"a":\nnull\n{"t":"\xff"}\n%s',
              {1: (b'{"a":', "invalid_json"), 2: (b"null", "not_an_object"), 3: (b'{"t":"\xff"}', "invalid_utf8")}),
} | {
    # There is nothing between two commas that could be rejected.
    f"no_member-{form}": (JSON, frame % b",%s, ,%s,", {}) for form, frame in LISTS.items()
} | {
    f"{bad}-{form}": (JSON, frame % b" ,\n".join([b"%s", member, b"%s"]), {1: (member, reason)})
    for form, frame in LISTS.items() for bad, (member, reason) in BAD_MEMBERS.items()
}


@pytest.mark.parametrize("headers, body, bad", MIXED.values(), ids=MIXED)
def test_good_pieces_land_and_bad_ones_beside_them_are_named_and_kept(stack, headers, body, bad):
    """Rejected input is kept whole, with its reason, and never stops the good input beside it."""
    ids = [str(uuid.uuid4()) for _ in range(body.count(b"%s"))]
    body %= tuple(json.dumps({"id": value}).encode() for value in ids)
    user_agent, answer = post_between_good_ones(stack, Row("mixed", 200, "", body, headers))
    named = [{"index": index, "reason": reason} for index, (_, reason) in bad.items()]
    assert (answer.status, answer.json) == (200, {"accepted": len(ids), "rejected": named})
    lines = stack.wait_for_lines(lambda line: line.json.get("id") in ids, len(ids))
    landed.assert_once(lines, ids)
    assert all("origin" not in line.json["client"] for line in lines)
    kept = kept_of(stack, user_agent, len(bad))
    assert [(summary(one.body), one.reason) for one in kept] == [(summary(piece), reason) for piece, reason in bad.values()]
    assert all(one.line["client"]["origin"] == ORIGIN for one in kept)
    assert all(("parts" in one.line["rejected"]) == (len(one.body) > MEBIBYTE) for one in kept)


def test_a_get_is_refused_and_leaves_nothing(stack):
    """A GET brings nothing that could be kept; the answer says what to send instead."""
    user_agent, answer = post_between_good_ones(stack, Row("get", 405, "", None, {}, method="GET"))
    assert (answer.status, answer.json["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert user_agent not in map(sender, stack.lines("rejected"))


def test_a_cors_preflight_lets_any_page_post(stack):
    """A browser's preflight is answered so that a page of any origin may post; it leaves nothing behind."""
    asked = {
        "origin": "https://player.example", "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,content-encoding",
    }
    row = Row("preflight", 204, "", None, asked, method="OPTIONS")
    user_agent, answer = post_between_good_ones(stack, row)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "https://player.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "content-type,content-encoding"
    assert answer.headers["vary"] == "origin, access-control-request-headers"
    assert user_agent not in map(sender, stack.lines("rejected"))


def test_a_page_may_read_the_answer(stack):
    """Browsers show a page no answer that does not name the page's origin."""
    answer = stack.post(body=b'{"type":"play"}', headers=JSON | {"origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_600_events_with_600_keys_all_land(stack):
    """600 events with 600 keys are more records than one PutRecords call takes; all of them land."""
    name = uuid.uuid4()
    events = [{"id": f"{name}/{n}", "session_id": f"{name}/{n}"} for n in range(600)]
    answer = stack.post(body=json.dumps(events).encode(), headers=JSON)
    assert (answer.status, answer.json) == (200, {"accepted": 600, "rejected": []})
    lines = stack.wait_for_lines(lambda line: str(line.json.get("id")).startswith(str(name)), 600)
    assert len(lines) == 600
    landed.assert_once(lines, [event["id"] for event in events])


def test_a_body_of_exactly_the_limit_is_accepted(stack):
    """The limit itself is still allowed: a body of 4 MiB with events that each fit into a record."""
    name = str(uuid.uuid4())
    events = [b'{"session_id":"%s","text":"%s"}' % (name.encode(), b"x" * 900_000) for _ in range(4)]
    body = b"[" + b",".join(events) + b"]"
    body += b" " * (MAX_BODY_BYTES - len(body))
    answer = stack.post(body=body, headers=JSON)
    assert (answer.status, answer.json) == (200, {"accepted": 4, "rejected": []})
    lines = stack.wait_for_lines(lambda line: line.json.get("event", {}).get("session_id") == name, 4)
    assert [line.event_text.encode() for line in lines] == events


def of_ingests_log(stack, metric):
    """A metric's values in the function's log."""
    return [int(value) for value in re.findall(rf'"{metric}":(\d+)', stack.function_log(stack.ingest))]


def test_what_lambda_would_not_take_never_reaches_the_function(stack):
    """A payload over Lambda's 6 MiB is refused with 413 by the front door; the function never sees it."""
    row = Row("too_large_for_lambda", 413, "", event_of(6 * MEBIBYTE + 1))
    before = sum(of_ingests_log(stack, "Requests"))
    user_agent, answer = post_between_good_ones(stack, row)
    assert answer.status == 413
    wait_for(lambda: sum(of_ingests_log(stack, "Requests")) >= before + 2, what="the numbers of the good ones beside it")
    assert max(of_ingests_log(stack, "LargestRequest")) < 6 * MEBIBYTE
    assert user_agent not in map(sender, stack.lines("rejected"))


def test_all_rows_at_once_neither_stop_nor_lose_the_good_ones(stack):
    """None of the rows stops or loses the good events posted beside them, all at the same time."""
    with ThreadPoolExecutor(16) as pool:
        bad = [pool.submit(stack.post, row.path, row.body, row.headers, row.method) for row in ROWS]
        good = [pool.submit(post_good, stack) for _ in range(200)]
    assert [future.result().status for future in bad] == [row.status for row in ROWS]
    ids = [future.result() for future in good]
    lines = stack.wait_for_lines(lambda line: line.json.get("id") in ids, len(ids), timeout=60)
    landed.assert_once(lines, ids)


def test_the_files_of_rejected_lines_are_what_their_metadata_says(stack):
    """Rejected lines land like events: readable by anyone, with a count that others can check."""
    user_agent, _ = post_between_good_ones(stack, ROWS[0])
    kept_of(stack, user_agent, 1)
    landed.verify_all(stack)
    assert stack.landed_files("rejected")
