"""Days of traffic on a stack whose clock runs fast, and what the checks say of them.

The counts that the seals are compared with are taken from the landed files by Python alone.
"""

import hashlib
import json
import time
import urllib.request
from collections import Counter
from datetime import timedelta
from functools import cache

import pyarrow.parquet
import pytest

from support import landed
from support.fast_clock import START, FastClock, partition
from support.sessions import event_texts, replay, requests
from support.stack import LANDING_BUCKET, Stack, wait_for

SPEED = 1440
DAYS = 3
# A grace of an hour is 2.5 s of this clock: time enough for what was posted in the last second of an hour to land.
PARAMETERS = "BatchingWindowSeconds=0 SealGraceMinutes=60 RecencyDueMinutes=150 MinimumHourBytes=200 MinimumDateBytes=20000"
HOURS = [START + timedelta(hours=hour) for hour in range(24 * DAYS)]
# What each hour gets, but the last day's, which get half of it.
POSTS, EVENTS_A_POST = 6, 5
# What real players sent, once a day.
RECORDED, RECORDED_HOUR = ("mux-embed-session.jsonl", "dashjs-cmcd-v2-session.jsonl"), 12
SEALED_SECONDS = 60

CHECK_OBJECT, SEAL, SIZE, RECENCY = "check-object", "seal-partition", "check-size", "check-recency"


class Days:
    """A stack that has been through some days."""

    def __init__(self, stack, clock=None):
        self.stack, self.clock, self.posted = stack, clock, []

    def live(self):
        """Posts in each hour, until the last is over."""
        with_connection = self.stack.connect()
        for hour in HOURS:
            while self.clock.now() < hour + timedelta(minutes=15):
                time.sleep(0.01)
            is_last_day = hour >= START + timedelta(days=DAYS - 1)
            for post in range(POSTS // 2 if is_last_day else POSTS):
                events = [event(hour, post, number) for number in range(EVENTS_A_POST)]
                answer = self.stack.post(
                    body=json.dumps(events).encode(), headers={"content-type": "application/json"},
                    connection=with_connection,
                )
                assert answer.json == {"accepted": EVENTS_A_POST, "rejected": []}, answer
                self.posted += [event["id"] for event in events]
            answer = self.stack.post(body=b"no JSON", connection=with_connection)
            assert answer.status == 400
            for session in RECORDED if hour.hour == RECORDED_HOUR else ():
                replay(self.stack, requests(session))
        with_connection.close()

    def read(self, key):
        path = self.stack.data / "s3" / LANDING_BUCKET / key
        return path.read_text() if path.exists() else None

    def metric(self, name, **of):
        """The largest value that a metric has in each minute."""
        return self.stack.metric(name, START, **of)

    def success(self, name):
        text = self.read(f"events/{name}/_SUCCESS")
        return json.loads(text) if text else None


def event(hour, post, number):
    return {"id": f"{hour:%d-%H}-{post}-{number}", "session_id": f"s-{post}", "type": "heartbeat",
            # Nothing that compresses: half the events are half the bytes.
            "filler": "".join(hashlib.sha512(f"{hour}{post}{number}{part}".encode()).hexdigest() for part in range(4))}


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    # Made first, it is as far as the stack's: what is posted by it is of the hour that it is to be of, however long the start takes.
    clock = FastClock(SPEED)
    stack = Stack(tmp_path_factory.mktemp("days"), parameters=PARAMETERS, CLOCK=clock.setting)
    days = Days(stack, clock)
    try:
        days.live()
        dates = [f"dt={START + timedelta(days=day):%Y-%m-%d}" for day in range(DAYS)]
        wait_for(lambda: all(map(days.success, dates)), SEALED_SECONDS, lambda: f"dates are not sealed\n{stack.tail()}")
        yield days
    finally:
        if stack.process.poll() is None and not stack.killed:
            assert stack.stop() == 0, stack.tail()


# Each file is read once: hours, dates and manifests are all compared with it.
lines_of = cache(landed.read_lines)


def uncompressed_bytes(path):
    return sum(len(line.text.encode()) + 1 for line in lines_of(path))


def objects_in(days, hour, prefixes=("events", "rejected")):
    """An hour's objects in the order of their keys, events first."""
    bucket = days.stack.data / "s3" / LANDING_BUCKET
    return [path for prefix in prefixes for path in sorted((bucket / prefix / partition(hour)).glob("*.jsonl.bz2"))]


def entry_of(days, path):
    """What a manifest should say of an object: counted in the file, but for what only the stream knows."""
    key = str(path.relative_to(days.stack.data / "s3" / LANDING_BUCKET))
    received = [line.json["received_at"] for line in lines_of(path)]
    metadata = days.stack.s3().head_object(Bucket=LANDING_BUCKET, Key=key)["Metadata"]
    return {
        "key": key, "bytes": path.stat().st_size, "records": int(metadata["record-count"]), "lines": len(received),
        "uncompressed_bytes": uncompressed_bytes(path),
        "first_sequence_number": path.name.removesuffix(".jsonl.bz2").split("-", 2)[2],
        "last_sequence_number": metadata["last-sequence-number"],
        "earliest_received_at": min(received), "latest_received_at": max(received),
    }


def independent_totals(days, hour):
    """An hour's sums, from the files on disk."""
    events, rejected = objects_in(days, hour, ["events"]), objects_in(days, hour, ["rejected"])
    size = lambda paths: sum(path.stat().st_size for path in paths)
    lines = lambda paths: sum(len(lines_of(path)) for path in paths)
    return {
        "objects": len(events), "rejected_objects": len(rejected), "events": lines(events), "rejected": lines(rejected),
        "bytes": size(events), "rejected_bytes": size(rejected),
        "uncompressed_bytes": sum(map(uncompressed_bytes, events + rejected)),
    }


def test_every_hour_and_date_is_sealed_and_says_what_is_there_to_the_byte(days):
    """Three days of 24 hours: manifests and `_SUCCESS` of all, right against a count of the files."""
    for hour in HOURS:
        success, manifest = days.success(partition(hour)), json.loads(days.read(f"events/{partition(hour)}/_MANIFEST.json"))
        counted = independent_totals(days, hour)
        assert success["totals"] == manifest["totals"]
        assert {name: success["totals"][name] for name in counted} == counted, partition(hour)
        assert success["totals"]["overlaps"] == success["totals"]["unreadable_objects"] == 0
        assert manifest["objects"] == [entry_of(days, path) for path in objects_in(days, hour)]
    landed.assert_once([line for hour in HOURS for path in objects_in(days, hour, ["events"]) for line in lines_of(path)], days.posted)
    for day in range(DAYS):
        date = START + timedelta(days=day)
        totals = days.success(f"dt={date:%Y-%m-%d}")["totals"]
        hours = [independent_totals(days, date + timedelta(hours=hour)) for hour in range(24)]
        for name in ("objects", "events", "bytes", "rejected"):
            assert totals[name] == sum(hour[name] for hour in hours), (date, name)


def test_every_hour_is_in_parquet_as_it_landed(days):
    """Three days: the rows of each hour are its distinct lines, by id and event."""
    bucket = days.stack.data / "s3" / LANDING_BUCKET
    for hour in HOURS:
        success = wait_for(lambda name=partition(hour): days.read(f"columnar/{name}/_SUCCESS"), SEALED_SECONDS, days.stack.tail)
        files = [bucket / part["key"] for part in json.loads(success)["parts"]]
        rows = [(row["id"], row["event"]) for file in files for row in pyarrow.parquet.read_table(file, columns=["id", "event"]).to_pylist()]
        lines = [line for path in objects_in(days, hour, ["events"]) for line in lines_of(path)]
        assert sorted(rows) == sorted({(line.json["id"], line.event_text) for line in lines}), partition(hour)
        if hour.hour == RECORDED_HOUR:
            recorded = Counter(text for session in RECORDED for request in requests(session) if request["body"][0] == "{" for text in event_texts(request))
            assert not recorded - Counter(event for _, event in rows), partition(hour)


def test_half_a_day_missing_shows_in_the_metric_that_the_size_alarm_watches(days):
    """The last day got half of the traffic: its size is below the day before, and a rule is broken."""
    dimensions = {"BucketName": LANDING_BUCKET, "Key": "events/dt=*/", "FunctionName": SIZE}
    sizes = wait_for(lambda: (found := days.metric("TotalFileSize", **dimensions)) and len(found) == DAYS and found)
    assert sizes == [days.success(f"dt={START + timedelta(days=day):%Y-%m-%d}")["totals"]["bytes"] for day in range(DAYS)]
    differences = days.metric("TotalFileSizeDifference", **dimensions)
    assert differences == [sizes[1] - sizes[0], sizes[2] - sizes[1]] and differences[1] < -0.3 * sizes[1]
    violations = days.metric("SizeViolations", **dimensions)
    assert violations[1] == 0 and violations[2] >= 1, violations
    assert f"dt={START + timedelta(days=DAYS - 1):%Y-%m-%d}" in days.stack.function_log(SIZE)


def test_completeness_finds_neither_loss_nor_doubles_in_any_hour(days):
    """What ingest accepted, what the stream took and what landed are the same numbers, hour by hour."""
    for name in ("LostEvents", "DoubledEvents", "LostRecords", "DoubledRecords"):
        values = wait_for(lambda: days.metric(name, FunctionName="check-completeness"), what=name)
        assert len(values) > 24 and set(values) == {0}, (name, values)


def test_freshness_is_there_each_minute_and_all_metrics_are_prometheus_text(days):
    """The age of the newest event is put also when nothing arrives; GET /metrics gives all metrics."""
    ages = days.metric("DataFreshness", period=3600, FunctionName=RECENCY)
    assert len(ages) > 72 and ages[-1] > max(ages[1:72]), ages
    text = urllib.request.urlopen(f"{days.stack.aws_address}/metrics", timeout=20).read().decode()
    for name in ("playhead_accepted_events", "playhead_total_file_size", "playhead_data_freshness", "aws_kinesis_incoming_records"):
        assert name in text, name


def test_an_hour_without_success_is_named_by_recency_and_sealed_again(days):
    """One hour's `_SUCCESS` is gone: recency says which, fails loudly, and the next run of the sealer mends it."""
    hour = HOURS[-10]

    def is_missed():
        # Recency looks at all anew at the full hour, and the sealer may be faster: until then it is taken away again.
        days.stack.s3().delete_object(Bucket=LANDING_BUCKET, Key=f"events/{partition(hour)}/_SUCCESS")
        return said(days, RECENCY, "NOT_RUN", partition(hour))

    wait_for(is_missed, what=lambda: days.stack.tail())
    # On the terminal too, with the check's name.
    wait_for(lambda: any(RECENCY in line and partition(hour) in line
                         for line in days.stack.errors_path.read_text().splitlines()))
    wait_for(lambda: max(days.metric("MissingPartitions", period=3600, FunctionName=RECENCY)) >= 1)
    wait_for(lambda: days.success(partition(hour)), SEALED_SECONDS)


def said(days, function, *words):
    """Whether one line of a function's log has all the words."""
    return any(all(word in line for word in words) for line in days.stack.function_log(function).splitlines())


def put(days, key, body, metadata):
    days.stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=body, Metadata=metadata)


def an_object(days):
    """A landed object's bytes, metadata, and a key under which a copy can stand beside it."""
    file = days.stack.landed_files("events")[0]
    head = days.stack.s3().head_object(Bucket=LANDING_BUCKET, Key=file.key)
    return file.path.read_bytes(), head["Metadata"], file.key


def test_broken_objects_are_each_named_with_what_is_wrong_and_a_second_event_changes_nothing(days):
    """A corrupted, a truncated and a falsely counted object: check-object names each."""
    body, metadata, key = an_object(days)
    flipped = bytearray(body)
    flipped[len(body) // 2] ^= 0x40
    wrong = {
        "corrupted": (bytes(flipped), metadata),
        "truncated": (body[:-7], metadata),
        "false-count": (body, metadata | {"event-count": "4711"}),
    }
    folder, number = key.rsplit("/", 1)[0], 10**55
    keys = {}
    for index, (name, (content, entries)) in enumerate(wrong.items()):
        keys[name] = f"{folder}/shardId-00000000000{index}-{number + index}.jsonl.bz2"
        put(days, keys[name], content, entries | {"last-sequence-number": str(number + index)})
    verdicts = {
        name: wait_for(lambda key=key: days.read(f"broken/{key}.json"), what=lambda: days.stack.tail())
        for name, key in keys.items()
    }
    assert "4711" in verdicts["false-count"], verdicts
    assert len(set(verdicts.values())) == 3
    for key in keys.values():
        wait_for(lambda key=key: said(days, CHECK_OBJECT, "ERROR", key), what=key)
    assert max(days.metric("BrokenObjects", FunctionName=CHECK_OBJECT)) == 1
    put(days, keys["truncated"], body[:-7], metadata | {"last-sequence-number": str(number + 1)})
    count = days.stack.function_log(CHECK_OBJECT).count(keys["truncated"])
    wait_for(lambda: days.stack.function_log(CHECK_OBJECT).count(keys["truncated"]) > count)
    assert days.read(f"broken/{keys['truncated']}.json") == verdicts["truncated"]
    # What is late is noticed too: they landed days after their hour was sealed.
    name = folder.removeprefix("events/")
    wait_for(lambda: days.success(name)["late_objects"] == 3, SEALED_SECONDS, lambda: str(days.success(name)))
    wait_for(lambda: said(days, SEAL, "ERROR", name), what=lambda: days.stack.tail())
    wait_for(lambda: max(days.metric("LateObjects", FunctionName=SEAL)) >= 1)


def test_an_hour_with_a_third_rejected_is_reported_with_both_numbers(fresh_stack):
    """On one machine, where there are no alarms: check-size's ERROR line on the terminal, and the share by reason as metrics."""
    stack = fresh_stack(parameters=PARAMETERS.replace("MinimumHourBytes=200", "MinimumHourBytes=0"), CLOCK=FastClock(SPEED).setting)
    body = json.dumps([{"type": "heartbeat", "n": number} for number in range(70)] + list(range(30))).encode()
    assert stack.post(body=body, headers={"content-type": "application/json"}).json["accepted"] == 70
    # After a slow start they are of a later hour.
    errors = lambda: [line for line in stack.errors_path.read_text().splitlines() if all(word in line for word in (SIZE, "RejectedShare", "hour=0"))]
    line, = wait_for(errors, SEALED_SECONDS, stack.tail)
    assert "30.0 %: 30 rejected lines beside 70 events" in line and "at most 5 %" in line, line
    days = Days(stack)
    dimensions = {"BucketName": LANDING_BUCKET, "Key": "events/dt=*/hour=*/", "FunctionName": SIZE}
    for more in ({}, {"Reason": "not_an_object"}):
        shares = wait_for(lambda more=more: days.metric("RejectedShare", period=3600, **dimensions, **more), what=str(more))
        assert max(shares) == 30, (more, shares)
    assert max(days.metric("SizeViolations", period=3600, **dimensions)) == 1
