"""What did not land as it should have is landed again by a command, once, however often that is run."""

import base64
import bz2
import gzip
import itertools
import json
import re
import signal
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime

from support import landed, redrive
from support.account import settle
from support.failed_batches import THREE_SECONDS, failed_batches, holding, put_failed_batch, template_with
from support.faults import Faults, read_stream
from support.players import Players
from support.spilled import put_spilled
from support.stack import FAILED_BATCHES_BUCKET, LANDING_BUCKET, STREAM, wait_for

# Longer than the time within which it is not certain which of two attempts came later.
LONG_SECONDS = 11
QUICK_TO_FAIL = "BatchSize=5 BatchingWindowSeconds=0 ShardCount=2 LandingTimeoutSeconds=5"


def settled(stack, players):
    """The account of everything on the stream, when it has landed or nothing more comes."""
    records = read_stream(stack)
    return settle(players, records, Faults(stack).stored_unacknowledged(), stack.lines("events"), stack.lines("rejected"))


def fail_for_a_while(stack, faults, plan):
    """Traffic while nothing can land, until batches are given up; then everything works again."""
    faults.set(plan)
    with Players(stack, players=4, pause=0.2) as players:
        wait_for(lambda: len(failed_batches(stack)) >= 6, 60, lambda: f"six failed batches\n{stack.tail()}")
        faults.end()
        answered = len(players.accepted)
        wait_for(lambda: len(players.accepted) > answered + 100, 60, "traffic after the faults")
    return players


def test_batches_that_were_given_up_are_landed_once_also_when_killed_half_way_and_run_twice(fresh_stack, tmp_path):
    """A batch that could not land for six days is kept whole, the next ones go on, and redriving it lands its records exactly once.

    The limit is three seconds here, and the mapping restarts now and then, so that batches are given up more than
    once and cut at different places."""
    stack = fresh_stack(template=template_with(tmp_path, THREE_SECONDS), parameters=QUICK_TO_FAIL)
    faults = Faults(stack)
    players = fail_for_a_while(stack, faults, "seed=7 s3.error=1 mapping.restart=0.3")
    last = players.accepted[-1]
    has_landed = lambda: any(line.json["id"] == last for line in stack.lines())
    wait_for(lambda: has_landed() or holding(stack, f'"{last}"'.encode()), 60, stack.tail)
    assert settled(stack, players).missing, "the given-up batches should not have landed yet"
    kill_half_way(stack)
    # Right after an attempt it is not yet certain which came later; the command then says "redrive again".
    wait_for(lambda: redrive.run(stack, *redrive.BATCHES)[0] == 0, 60, lambda: redrive.run(stack, *redrive.BATCHES))
    assert redrive.run(stack, *redrive.BATCHES) == (0, "0 of 0 batches are landed and removed, 0 are left\n")
    assert failed_batches(stack) == {}
    account = settled(stack, players)
    assert account.is_good, account
    landed.verify_all(stack)


def kill_half_way(stack):
    """When it reads its third batch, and has not got it."""
    reads = itertools.count(1)

    def kill(method, path):
        if method == "GET" and f"/{FAILED_BATCHES_BUCKET}/aws/" in path and next(reads) == 3:
            process.kill()

    with redrive.between(stack, before_answer=kill) as address:
        with redrive.start(stack, *redrive.BATCHES, address=address) as process:
            output, _ = process.communicate(timeout=redrive.SECONDS)
    assert process.returncode == -signal.SIGKILL and failed_batches(stack), f"it was not killed half way\n{output}"


def put_numbered_batch(stack, name, numbers, arrival):
    """A failed batch of one record for each number, which holds an event of that number."""
    put_failed_batch(stack, name, [
        {"SequenceNumber": str(number), "PartitionKey": "k", "Data": json.dumps({"n": number}).encode(),
         "ApproximateArrivalTimestamp": datetime.fromtimestamp(arrival, UTC)} for number in numbers
    ])


# Where nothing has landed, nothing says in which format it does.
NOTHING_LANDED = [*redrive.BATCHES, "--event-format", "envelope"]


def numbers_landed(stack):
    return Counter(line.json["n"] for line in stack.lines("events"))


def test_two_who_redrive_at_once_land_each_record_once_though_one_is_stopped_for_long(fresh_stack):
    """The mapping gave a batch up, restarted before it had noted that, and gave a longer one up. One person is stopped
    when it is decided that the first is to be landed; the other lands both meanwhile."""
    stack = fresh_stack()
    arrival = time.time() - 3600
    put_numbered_batch(stack, "1", range(1, 61), arrival)
    put_numbered_batch(stack, "2", range(1, 101), arrival)
    landed_beside = f"prefix=events/{datetime.fromtimestamp(arrival, UTC):dt=%Y-%m-%d/hour=%H}/shardId-"
    looked = lambda method, path: method == "GET" and f"/{LANDING_BUCKET}" in path and landed_beside in path
    with redrive.Stopped(stack, NOTHING_LANDED, looked) as stopped:
        code, output = redrive.run(stack, *NOTHING_LANDED)
        assert code == 0, output
        assert numbers_landed(stack) == Counter(range(1, 101))
        time.sleep(LONG_SECONDS)
        code, output = stopped.go_on()
    assert numbers_landed(stack) == Counter(range(1, 101)), output
    assert code == 0 and "removed by someone else" in output, output
    assert failed_batches(stack) == {}


def test_redrive_tries_again_when_s3_is_busy(fresh_stack):
    """Listing, reading and deleting are tried again: each is refused twice here."""
    stack = fresh_stack()
    put_numbered_batch(stack, "1", range(1, 4), time.time() - 3600)
    refused = Counter()

    def busy(method, path):
        # The writes have a protocol of their own, which tries again too.
        refused[method, path] += 1
        return 503 if refused[method, path] <= 2 else None

    with redrive.between(stack, answer_instead=busy) as address:
        code, output = redrive.run(stack, *NOTHING_LANDED, address=address)
    assert code == 0, output
    assert numbers_landed(stack) == Counter([1, 2, 3])
    assert counted_as_landed(stack) == 3
    assert {"GET", "HEAD", "PUT", "DELETE"} <= {method for method, _ in refused}


def counted_as_landed(stack):
    """The events that redrive counted, as Prometheus reads them."""
    page = urllib.request.urlopen(f"{stack.aws_address}/metrics", timeout=20).read().decode()
    return float(re.search(r'^playhead_landed_events_sum\{function_name="redrive"\} (\S+)$', page, re.MULTILINE)[1])


def redriven(stack):
    return [line for file in stack.landed_files("events") if file.key.endswith("-redriven.jsonl.bz2")
            for line in landed.read_lines(file.path)]


def test_rejected_bodies_are_landed_after_a_fix_and_stay_where_they_are(fresh_stack):
    """Rejected input can be read again after a fix, and what is found in it lands once, beside what stays rejected.

    Players called JSON lines by a name of their own; one body is so large that it is kept in parts."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=4")
    small = [{"id": f"small-{number}", "n": number} for number in range(3)] + [{"without": "an id"}]
    large = [{"id": f"large-{number}", "text": "x" * 50_000} for number in range(40)]
    for events in (small, large):
        body = "\n".join(map(json.dumps, events)).encode()
        assert stack.post(body=body, headers={"content-type": "application/vnd.player+lines"}).status == 415
    before = stack.wait_for_lines(lambda line: True, 4, prefix="rejected")
    time.sleep(1)
    date = before[0].json["received_at"][:10]
    command = redrive.rejected(
        f"rejected/dt={date}/", "--reasons", "unsupported_content_type", "--content-type", "application/x-ndjson"
    )
    texts, outputs = [], []
    for _ in range(2):
        code, output = redrive.run(stack, *command)
        assert code == 0, output
        outputs.append(output)
        texts.append(sorted(line.text for line in redriven(stack)))
        assert {one.reason for one in landed.rejected(stack.lines("rejected"))} == {"unsupported_content_type"}
    assert texts[0] == texts[1]
    assert counted_as_landed(stack) == 44
    events = [line.json["event"] for line in redriven(stack)]
    assert sorted(map(json.dumps, events)) == sorted(map(json.dumps, small + large))
    ids = {line.json["id"] for line in redriven(stack)}
    assert len(ids) == 44 and {"small-0", "large-39"} < ids
    assert "44 events landed, 0 were already there" in outputs[0] and "0 events landed, 44 were already there" in outputs[1]
    for file in stack.landed_files("events"):
        head = stack.s3().head_object(Bucket=LANDING_BUCKET, Key=file.key)["Metadata"]
        assert head["event-count"] == str(len(landed.read_lines(file.path)))


def today():
    return f"rejected/dt={datetime.now(UTC):%Y-%m-%d}/"


def test_equal_events_are_landed_as_often_as_they_were_sent(fresh_stack):
    """In raw format nothing tells the lines of two equal events apart, in one body or in two."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=1 EventFormat=raw")
    for _ in range(2):
        body = b'{"type":"heartbeat"}\n' * 3
        assert stack.post(body=body, headers={"content-type": "application/vnd.player+lines"}).status == 415
    stack.wait_for_lines(lambda line: True, 2, prefix="rejected")
    command = redrive.rejected(today(), "--reasons", "unsupported_content_type", "--content-type", "application/x-ndjson")
    code, output = redrive.run(stack, *command, "--event-format", "envelope")
    assert code == 1 and redriven(stack) == [], output
    for _ in range(2):
        code, output = redrive.run(stack, *command)
        assert code == 0, output
        assert [line.json for line in redriven(stack)] == [{"type": "heartbeat"}] * 6


def test_bodies_that_are_too_large_are_named_and_those_behind_them_land(fresh_stack):
    """Seventeen bodies of 16 MiB and more, a few kilobytes each as they were sent, in front of a good one."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=3 ShardCount=1")
    bomb = gzip.compress(b'{"type":"heartbeat"}\n' * 900_000)
    for _ in range(17):
        assert stack.post(body=bomb, headers={"content-type": "application/json", "content-encoding": "gzip"}).status == 413
    assert stack.post(body=b'{"id":"good"}', headers={"content-type": "application/vnd.player"}).status == 415
    stack.wait_for_lines(lambda line: True, 18, prefix="rejected")
    command = redrive.rejected(today(), "--reasons", "body_too_large,unsupported_content_type", "--content-type", "application/json")
    for _ in range(2):
        code, output = redrive.run(stack, *command)
        assert code == 1 and "17 were skipped as too large" in output, output
        assert [line.json["id"] for line in redriven(stack)] == ["good"], output
    named = re.search(r"larger than 16 MiB \(lines? ([\d, -]+)\)", output)
    assert named, output


def put_rejected(stack, number, *lines):
    """An object of rejected lines, each of an id and a body or (id, part, parts, body)."""
    def line(id, part, parts, body):
        rejected = {"reason": "unsupported_content_type", "detail": "d", "content_type": "x/y", "part": part, "parts": parts,
                    "body_base64": base64.b64encode(body).decode()}
        return {"v": 1, "id": id, "received_at": "2026-11-21T09:32:08.006Z", "request_id": "r", "client": {}, "rejected": rejected}

    text = "".join(json.dumps(line(*one)) + "\n" for one in lines)
    key = f"rejected/dt=2026-11-21/hour=09/shardId-000000000000-{number}.jsonl.bz2"
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=bz2.compress(text.encode()), Metadata={"event-format": "envelope"})
    return key


def test_rejected_input_that_was_spilled_is_redriven_as_any_other(fresh_stack):
    """The events land in an object of the spilled one's name, and check-object finds both good."""
    stack = fresh_stack()
    now = datetime.now(UTC)
    rejected = {"reason": "unsupported_content_type", "detail": "d", "content_type": "x/y",
                "body_base64": base64.b64encode(b'{"id":"spilled"}').decode()}
    line = {"v": 1, "id": "i", "received_at": f"{now:%Y-%m-%dT%H:%M:%S.000Z}", "request_id": "r", "client": {}, "rejected": rejected}
    key = put_spilled(stack, "rejected", f"{now:dt=%Y-%m-%d/hour=%H}", [line])
    command = redrive.rejected(today(), "--reasons", "unsupported_content_type", "--content-type", "application/json")
    for _ in range(2):
        code, output = redrive.run(stack, *command)
        assert code == 0, output
        assert [line.json["id"] for line in redriven(stack)] == ["spilled"]
    expected = key.replace("rejected/", "events/").replace(".jsonl.bz2", "-redriven.jsonl.bz2")
    assert [file.key for file in stack.landed_files("events")] == [expected]
    landed.verify_all(stack)
    wait_for(lambda: sum(stack.metric("Invocations", now.replace(second=0), "Sum", 3600, "AWS/Lambda", FunctionName="check-object"))
             == 2, what="both to be checked")
    broken = stack.s3().list_objects_v2(Bucket=LANDING_BUCKET, Prefix="broken/").get("Contents", [])
    assert [stack.s3().get_object(Bucket=LANDING_BUCKET, Key=one["Key"])["Body"].read() for one in broken] == []


def test_every_body_has_an_outcome_beside_unreadable_objects_and_missing_parts(fresh_stack):
    """What S3 refuses is counted and stops nothing, and so is a body without its first part. When S3 answers, the rest lands."""
    stack = fresh_stack()
    put_rejected(stack, 1, ("small", 1, 1, b'{"id":"small"}'), ("large", 1, 2, b'{"id":'))
    refused = put_rejected(stack, 2, ("large", 2, 2, b'"large"}'))
    orphan = put_rejected(stack, 3, ("orphan", 2, 3, b'"x"'), ("orphan", 3, 3, b"}"))
    command = redrive.rejected("rejected/dt=2026-11-21/", "--reasons", "unsupported_content_type",
                               "--content-type", "application/x-ndjson")
    with redrive.between(stack, lambda method, path: 503 if method == "GET" and refused in path else None) as address:
        code, output = redrive.run(stack, *command, address=address)
    assert code == 1 and f"{refused}: FAILED" in output and "1 objects failed" in output, output
    assert "3 bodies: 1 events landed" in output and "2 lack parts" in output, output
    code, output = redrive.run(stack, *command)
    assert "1 events landed, 1 were already there" in output and "1 lack parts" in output and orphan in output, output
    assert code == 1 and sorted(line.json["id"] for line in redriven(stack)) == ["large", "small"]


def test_a_line_that_is_not_ours_is_named_and_stops_nothing(fresh_stack):
    """Another producer can write lines that look rejected and are not in our form."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=1")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    odd = f'{{"v":1,"received_at":"{now}","rejected":{{"reason":"made up"}}}}\n'.encode()
    stack.kinesis().put_record(StreamName=STREAM, Data=odd * 2, PartitionKey="k")
    stack.wait_for_lines(lambda line: True, 2, prefix="rejected")
    assert stack.post(body=b'{"id":"good"}', headers={"content-type": "application/vnd.player"}).status == 415
    stack.wait_for_lines(lambda line: True, 3, prefix="rejected")
    stack.s3().put_object(Bucket=LANDING_BUCKET, Body=b"no bzip2", Key=broken_key(stack))
    code, output = redrive.run(stack, *redrive.rejected(
        today(), "--reasons", "unsupported_content_type", "--content-type", "application/json"))
    assert [line.json["id"] for line in redriven(stack)] == ["good"], output
    assert code == 1 and "line 1" in output and "line 2" in output, output
    assert "2 lines are not our rejected lines; 1 objects failed" in output, output


def broken_key(stack):
    first = stack.landed_files("rejected")[0]
    return first.key.replace(first.parts["shard"], "shardId-000000000009")


def test_two_who_redrive_rejected_input_at_once_lose_none_of_it(fresh_stack):
    """They read for different reasons, from one object into one other; one is stopped after it has looked at that."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=3 ShardCount=1")
    assert stack.post(body=b'{"id":"by type"}', headers={"content-type": "application/vnd.player"}).status == 415
    assert stack.post(body=b'sid="a report"', headers={"content-type": "application/json"}).status == 400
    stack.wait_for_lines(lambda line: True, 2, prefix="rejected")
    assert len(stack.landed_files("rejected")) == 1, "both were to be in one batch"

    def command(reason, content_type):
        return redrive.rejected(today(), "--reasons", reason, "--content-type", content_type)

    looked = lambda method, path: method == "GET" and path.split("?")[0].endswith("-redriven.jsonl.bz2")
    with redrive.Stopped(stack, command("unsupported_content_type", "application/json"), looked) as stopped:
        code, output = redrive.run(stack, *command("invalid_json", "application/cmcd"))
        assert code == 0 and len(redriven(stack)) == 1, output
        time.sleep(LONG_SECONDS)
        code, output = stopped.go_on()
    assert code == 0, output
    assert [line.json["event"] for line in redriven(stack)] == [{"sid": "a report"}, {"id": "by type"}]


def test_bad_reasons_prefixes_and_documents_are_named_and_nothing_is_removed(fresh_stack):
    """Reasons that are none, prefixes that hold something else, and documents that are no batches are said plainly,
    and are left where they are."""
    stack = fresh_stack()
    code, output = redrive.run(stack, *redrive.rejected("rejected/dt=2026-11-21/", "--reasons", "no_such_reason"))
    assert code == 2 and "no_such_reason" in output and "invalid_json" in output
    code, output = redrive.run(stack, *redrive.rejected("events/", "--reasons", "invalid_json"))
    assert code == 1 and "--prefix" in output
    key = "aws/lambda/mapping/shardId-000000000000/2026/11/21/x"
    stack.s3().put_object(Bucket=redrive.FAILED_BATCHES_BUCKET, Key=key, Body=b"{}")
    code, output = redrive.run(stack, *redrive.BATCHES)
    assert code == 1 and key in output and "LEFT" in output
    assert len(stack.s3().list_objects_v2(Bucket=redrive.FAILED_BATCHES_BUCKET)["Contents"]) == 1
