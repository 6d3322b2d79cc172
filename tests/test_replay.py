"""An hour whose files are lost is landed again from the stream, each record once."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from support import landed, redrive
from support.failed_batches import put_failed_batch
from support.faults import read_stream
from support.redrive import GONE
from support.spilled import put_spilled
from support.stack import FAILED_BATCHES_BUCKET, LANDING_BUCKET, STREAM, wait_for
from support.traffic import JSON



@pytest.fixture
def hour():
    """The hour of a test, which it does not leave."""
    if time.time() % 3600 > 3560:
        time.sleep(40)
    return f"{datetime.now(UTC):dt=%Y-%m-%d/hour=%H}"


def post(stack, begin, posts=8):
    """Two events of a session and something rejected, each post in a batch of its own."""
    for number in range(begin, begin + posts):
        lines = {prefix: len(stack.lines(prefix)) for prefix in ("events", "rejected")}
        body = json.dumps([{"id": f"{number}-{n}", "session_id": f"s-{number}"} for n in range(2)] + [number])
        assert stack.post(body=body.encode(), headers=JSON).status == 200
        stack.wait_for_lines(lambda line: True, lines["events"] + 2)
        stack.wait_for_lines(lambda line: True, lines["rejected"] + 1, prefix="rejected")


def seal(stack, hour):
    """seal-partition, as of the time at which the hour is due; S3 gives times to the second."""
    time.sleep(1)
    at = datetime.strptime(hour, "dt=%Y-%m-%d/hour=%H") + timedelta(hours=1, minutes=40)
    event = json.dumps({"source": "aws.events", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
    answer = stack.functions().invoke(FunctionName="seal-partition", Payload=event)
    assert "FunctionError" not in answer, answer["Payload"].read()
    stack.s3().head_object(Bucket=LANDING_BUCKET, Key=f"events/{hour}/_SUCCESS")


def contents(stack):
    """The lines of each landed file."""
    files = [file for prefix in ("events", "rejected") for file in stack.landed_files(prefix)]
    return {file.key: [line.text for line in landed.read_lines(file.path)] for file in files}


def all_lines(files):
    return sorted(line for lines in files.values() for line in lines)


def delete(stack, keys):
    for key in keys:
        stack.s3().delete_object(Bucket=LANDING_BUCKET, Key=key)


def replay(stack, hour, *arguments):
    return redrive.run(stack, *redrive.replay(hour, *arguments))


def split_a_shard(stack):
    """Closes a shard; its records stay readable."""
    kinesis = stack.kinesis()
    shard = kinesis.list_shards(StreamName=STREAM)["Shards"][0]
    keys = shard["HashKeyRange"]
    middle = (int(keys["StartingHashKey"]) + int(keys["EndingHashKey"])) // 2
    kinesis.split_shard(StreamName=STREAM, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))
    active = lambda: kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
    wait_for(active, what="an active stream")


def test_files_of_a_sealed_hour_that_are_lost_are_as_they_were(fresh_stack, hour):
    """Each file that the manifest names is made again, also of a closed shard; and a second replay finds all of it there."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=2")
    post(stack, 0)
    split_a_shard(stack)
    post(stack, 8)
    seal(stack, hour)
    before = contents(stack)
    # Neighbours too, and one of each kind stays to say how events look.
    lost = [key for number, key in enumerate(before) if number % 4 != 0]
    delete(stack, lost)
    code, output = replay(stack, hour)
    assert code == 0 and f"{lost[0]}: " in output, output
    assert contents(stack) == before
    landed.verify_all(stack)
    code, output = replay(stack, hour)
    assert code == 0 and " 0 were missing, 0 objects landed" in output, output
    assert contents(stack) == before


def test_an_hour_of_a_stack_that_is_gone_is_landed_without_a_seal(fresh_stack, hour):
    """Nothing seals it any more, and nothing else lands what is on the stream."""
    stack = fresh_stack()
    post(stack, 0)
    before = contents(stack)
    delete(stack, list(before)[1::2])
    there = contents(stack)
    code, output = replay(stack, hour)
    assert code == 1 and contents(stack) == there, output
    code, output = replay(stack, hour, GONE)
    assert code == 0, output
    assert all_lines(contents(stack)) == all_lines(before)
    landed.verify_all(stack)


def test_files_that_no_manifest_names_are_landed_once_also_when_killed_half_way_and_run_twice_at_once(fresh_stack, hour):
    """They were lost before the seal: the files beside a gap say where it begins and ends. CloudWatch has no
    values of the time at which this hour is sealed nor of a quarter of an hour ago, so nothing but GONE says that landing is done."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=2")
    post(stack, 0)
    before = contents(stack)
    delete(stack, [key for number, key in enumerate(before) if number % 3 != 0])
    accept_and_seal(stack, hour)
    kill_half_way(stack, hour)
    assert all_lines(contents(stack)) != all_lines(before), "it was killed too late to prove anything"
    with ThreadPoolExecutor(2) as pool:
        print(list(pool.map(lambda _: replay(stack, hour, GONE), range(2))))
    code, output = replay(stack, hour, GONE)
    assert code == 0, output
    assert all_lines(contents(stack)) == all_lines(before)
    landed.verify_all(stack)


def kill_half_way(stack, hour):
    """Kills a replay when S3 has its third object and it has not heard that."""
    puts = itertools.count(1)

    def kill(method, path):
        if method == "PUT" and next(puts) == 3:
            process.kill()

    with redrive.between(stack, before_answer=kill) as address:
        with redrive.start(stack, *redrive.replay(hour, GONE), address=address) as process:
            process.communicate(timeout=60)
    assert process.returncode < 0


def spilled_event(hour, name):
    """An event that was received at the start of an hour."""
    received_at = hour.removeprefix("dt=").replace("/hour=", "T") + ":00:00.000Z"
    return {"v": 1, "id": name, "received_at": received_at, "request_id": "r", "client": {}, "event": {"id": name}}


def test_what_was_spilled_counts_as_landed_and_a_spilled_file_that_is_lost_is_named(fresh_stack, hour):
    """It is not on the stream: a replay neither lands it again nor can bring it back. The manifest lists it."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=1")
    post(stack, 0, posts=2)
    kept, gone = (put_spilled(stack, "events", hour, [spilled_event(hour, name)]) for name in ("kept", "gone"))
    seal(stack, hour)
    manifest = json.loads(stack.s3().get_object(Bucket=LANDING_BUCKET, Key=f"events/{hour}/_MANIFEST.json")["Body"].read())
    assert {kept, gone} < {entry["key"] for entry in manifest["objects"]}
    assert (manifest["totals"]["spilled_events"], manifest["totals"]["events"], manifest["totals"]["overlaps"]) == (2, 6, 0)
    before = contents(stack)
    lost, *_ = (key for key in before if "/shardId-" in key)
    delete(stack, [lost])
    code, output = replay(stack, hour)
    assert code == 0 and contents(stack) == before, output
    assert "2 spilled objects" in output, output
    delete(stack, [gone])
    code, output = replay(stack, hour)
    assert code == 1 and f"LEFT: {gone} " in output and kept not in output, output
    landed.verify_all(stack)


def test_an_hour_of_nothing_but_spilled_events_is_sealed_whole(fresh_stack, hour):
    """While Kinesis is away nothing arrives on the stream, and the hour is not taken for an empty one."""
    stack = fresh_stack()
    put_spilled(stack, "events", hour, [spilled_event(hour, name) for name in ("a", "b")])
    seal(stack, hour)
    success = json.loads(stack.s3().get_object(Bucket=LANDING_BUCKET, Key=f"events/{hour}/_SUCCESS")["Body"].read())
    assert (success["totals"]["events"], success["totals"]["spilled_events"]) == (2, 2)
    assert "accepted" not in success
    landed.verify_all(stack)


def accept_and_seal(stack, hour):
    """Has the hour sealed although records are missing, as a person may."""
    missing = [{"what": "missing_records", "arrived": 10**9, "landed": 0}, {"what": "unknown_progress"}]
    acceptance = {"by": "test", "reason": "test", "missing": missing}
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=f"accepted/{hour}.json", Body=json.dumps(acceptance).encode())
    seal(stack, hour)


def test_nothing_lands_while_landing_may_still_land_it(fresh_stack, hour):
    """Without a seal, and with one that a person had made while landing was behind."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=1")
    post(stack, 0, posts=3)
    lost, *_ = before = contents(stack)
    delete(stack, [lost])
    code, output = replay(stack, hour)
    assert code == 1 and contents(stack).keys() == before.keys() - {lost}, output
    success = {"v": 1, "partition": hour, "first_sealed_at": "", "sealed_at": "", "late_objects": 0, "totals": empty_totals(),
               "accepted": {"by": "", "reason": "", "missing": [{"what": "failing_batches"}]}}
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=f"events/{hour}/_SUCCESS", Body=json.dumps(success).encode())
    code, output = replay(stack, hour)
    assert code == 1 and contents(stack).keys() == before.keys() - {lost}, output


def empty_totals():
    received = {"previous": 0, "this": 0, "next": 0, "elsewhere": 0}
    numbers = ("objects", "rejected_objects", "unreadable_objects", "overlaps", "records", "events", "rejected", "bytes",
               "rejected_bytes", "uncompressed_bytes")
    return dict.fromkeys(numbers, 0) | {
        "rejected_by_reason": {}, "earliest_received_at": None, "latest_received_at": None,
        "events_received_in": received, "rejected_received_in": received,
    }


def test_records_in_failed_batches_are_left_to_be_redriven(fresh_stack, hour):
    """They land when the batch is redriven, once, and a replay after that finds them there."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=1")
    post(stack, 0, posts=6)
    seal(stack, hour)
    before = contents(stack)
    lost = [key for key in before if key.startswith("events/")][1:4]
    last = int(stack.s3().head_object(Bucket=LANDING_BUCKET, Key=lost[1])["Metadata"]["last-sequence-number"])
    first = int(lost[1].removesuffix(".jsonl.bz2").rsplit("-", 1)[1])
    delete(stack, lost)
    put_failed_batch(stack, "1", [record for record in stream_records(stack) if first <= int(record["SequenceNumber"]) <= last])
    code, output = replay(stack, hour)
    assert code == 1 and "are in failed batches" in output, output
    assert contents(stack).keys() == before.keys() - {lost[1]}
    code, output = redrive.run(stack, *redrive.BATCHES)
    assert code == 0, output
    code, output = replay(stack, hour)
    assert code == 0, output
    assert contents(stack) == before
    assert "Contents" not in stack.s3().list_objects_v2(Bucket=FAILED_BATCHES_BUCKET)


def stream_records(stack):
    kinesis = stack.kinesis()
    shard = {record.shard for record in read_stream(stack)}.pop()
    position = {"StreamName": STREAM, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    iterator = kinesis.get_shard_iterator(**position)["ShardIterator"]
    return kinesis.get_records(ShardIterator=iterator)["Records"]
