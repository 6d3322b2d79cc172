"""Days of traffic on a stack whose clock runs fast, and what the checks say of them.

The counts that the seals are compared with are taken from the landed files by Python alone.
"""

import bz2
import hashlib
import json
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from support import landed
from support.stack import LANDING_BUCKET, wait_for

SPEED = 1440
START = datetime(2026, 11, 16, tzinfo=UTC)
DAYS = 3
HOUR_SECONDS = 3600 / SPEED
# A grace of an hour is 2.5 s of this clock: time enough for what was posted in the last second of an hour to land.
PARAMETERS = "BatchingWindowSeconds=0 SealGraceMinutes=60 RecencyDueMinutes=150 MinimumHourBytes=200 MinimumDateBytes=20000"
HOURS = [START + timedelta(hours=hour) for hour in range(24 * DAYS)]
# What each hour gets, but the last day's, which get half of it.
POSTS, EVENTS_A_POST = 6, 5
SEALED_SECONDS = 60

CHECK_OBJECT, SEAL, SIZE, RECENCY = "check-object", "seal-partition", "check-size", "check-recency"


def partition(hour):
    return f"dt={hour:%Y-%m-%d}/hour={hour:%H}"


class Days:
    """A stack that has been through some days."""

    def __init__(self, stack):
        self.stack, self.began, self.posted = stack, time.monotonic(), Counter()

    def now(self):
        """The time of the stack's clock; a little behind it, because the stack was there first."""
        return START + timedelta(seconds=(time.monotonic() - self.began) * SPEED)

    def live(self):
        """Posts in each hour, until the last is over."""
        with_connection = self.stack.connect()
        for hour in HOURS:
            while self.now() < hour + timedelta(minutes=5):
                time.sleep(0.01)
            is_last_day = hour >= START + timedelta(days=DAYS - 1)
            for post in range(POSTS // 2 if is_last_day else POSTS):
                events = [event(hour, post, number) for number in range(EVENTS_A_POST)]
                answer = self.stack.post(
                    body=json.dumps(events).encode(), headers={"content-type": "application/json"},
                    connection=with_connection,
                )
                assert answer.json == {"accepted": EVENTS_A_POST, "rejected": []}, answer
                self.posted[partition(hour)] += EVENTS_A_POST
            answer = self.stack.post(body=b"no JSON", connection=with_connection)
            assert answer.status == 400
        with_connection.close()

    def read(self, key):
        path = self.stack.data / "s3" / LANDING_BUCKET / key
        return path.read_text() if path.exists() else None

    def success(self, name):
        text = self.read(f"events/{name}/_SUCCESS")
        return json.loads(text) if text else None


def event(hour, post, number):
    return {"id": f"{hour:%d-%H}-{post}-{number}", "session_id": f"s-{post}", "type": "heartbeat",
            # Nothing that compresses: half the events are half the bytes.
            "filler": "".join(hashlib.sha512(f"{hour}{post}{number}{part}".encode()).hexdigest() for part in range(4))}


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    from support.stack import Stack

    stack = Stack(tmp_path_factory.mktemp("days"), parameters=PARAMETERS, CLOCK=f"{START:%Y-%m-%dT%H:%M:%SZ} x{SPEED}")
    days = Days(stack)
    try:
        days.live()
        dates = [f"dt={START + timedelta(days=day):%Y-%m-%d}" for day in range(DAYS)]
        wait_for(lambda: all(map(days.success, dates)), SEALED_SECONDS, lambda: f"dates are not sealed\n{stack.tail()}")
        yield days
    finally:
        if stack.process.poll() is None and not stack.killed:
            assert stack.stop() == 0, stack.tail()


def objects_in(days, hour):
    """An hour's objects in the order of their keys, events first."""
    bucket = days.stack.data / "s3" / LANDING_BUCKET
    return [path for prefix in ("events", "rejected") for path in sorted((bucket / prefix / partition(hour)).glob("*.jsonl.bz2"))]


def entry_of(days, path):
    """What a manifest should say of an object: counted in the file, but for what only the stream knows."""
    key = str(path.relative_to(days.stack.data / "s3" / LANDING_BUCKET))
    lines = landed.read_lines(path)
    received = [line.json["received_at"] for line in lines]
    metadata = days.stack.s3().head_object(Bucket=LANDING_BUCKET, Key=key)["Metadata"]
    return {
        "key": key, "bytes": path.stat().st_size, "records": int(metadata["record-count"]), "lines": len(lines),
        "uncompressed_bytes": len(bz2.decompress(path.read_bytes())),
        "first_sequence_number": path.name.removesuffix(".jsonl.bz2").split("-", 2)[2],
        "last_sequence_number": metadata["last-sequence-number"],
        "earliest_received_at": min(received), "latest_received_at": max(received),
    }


def independent_totals(days, hour):
    """An hour's sums, from the files on disk."""
    totals = Counter()
    for prefix in ("events", "rejected"):
        folder = days.stack.data / "s3" / LANDING_BUCKET / prefix / partition(hour)
        for path in sorted(folder.glob("*.jsonl.bz2")):
            lines = landed.read_lines(path)
            name = "objects" if prefix == "events" else "rejected_objects"
            totals[name] += 1
            totals["events" if prefix == "events" else "rejected"] += len(lines)
            totals["bytes" if prefix == "events" else "rejected_bytes"] += path.stat().st_size
            totals["uncompressed_bytes"] += len(bz2.decompress(path.read_bytes()))
    return totals


def test_every_hour_and_date_is_sealed_and_says_what_is_there_to_the_byte(days):
    """Three days of 24 hours: manifests and `_SUCCESS` of all, right against a count of the files."""
    for hour in HOURS:
        success, manifest = days.success(partition(hour)), json.loads(days.read(f"events/{partition(hour)}/_MANIFEST.json"))
        counted = independent_totals(days, hour)
        assert success["totals"] == manifest["totals"]
        assert {name: success["totals"][name] for name in counted} == dict(counted), partition(hour)
        assert success["totals"]["overlaps"] == success["totals"]["unreadable_objects"] == 0
        assert manifest["objects"] == [entry_of(days, path) for path in objects_in(days, hour)]
    received = Counter()
    for hour in HOURS:
        for file in (days.stack.data / "s3" / LANDING_BUCKET / "events" / partition(hour)).glob("*.jsonl.bz2"):
            received.update(line.json["id"] for line in landed.read_lines(file))
    assert set(received.values()) == {1}
    assert received.total() == days.posted.total()
    for day in range(DAYS):
        date = START + timedelta(days=day)
        totals = days.success(f"dt={date:%Y-%m-%d}")["totals"]
        hours = [independent_totals(days, date + timedelta(hours=hour)) for hour in range(24)]
        for name in ("objects", "events", "bytes", "rejected"):
            assert totals[name] == sum(hour[name] for hour in hours), (date, name)


def metric(days, name, period=60, **dimensions):
    """The largest value that a metric has in each period that it has any in, oldest first."""
    result = days.stack.cloudwatch().get_metric_statistics(
        Namespace="Playhead", MetricName=name, Period=period, Statistics=["Maximum"],
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=START, EndTime=START + timedelta(days=DAYS + 2),
    )
    points = sorted(result["Datapoints"], key=lambda point: point["Timestamp"])
    return [point["Maximum"] for point in points]


def test_half_a_day_missing_shows_in_the_metric_that_the_size_alarm_watches(days):
    """The last day got half of the traffic: its size is below the day before, and a rule is broken."""
    dimensions = {"BucketName": LANDING_BUCKET, "Key": "events/dt=*/", "FunctionName": SIZE}
    sizes = wait_for(lambda: (found := metric(days, "TotalFileSize", **dimensions)) and len(found) == DAYS and found)
    assert sizes == [days.success(f"dt={START + timedelta(days=day):%Y-%m-%d}")["totals"]["bytes"] for day in range(DAYS)]
    differences = metric(days, "TotalFileSizeDifference", **dimensions)
    assert differences == [sizes[1] - sizes[0], sizes[2] - sizes[1]] and differences[1] < -0.3 * sizes[1]
    violations = metric(days, "SizeViolations", **dimensions)
    assert violations[1] == 0 and violations[2] >= 1, violations
    assert f"dt={START + timedelta(days=DAYS - 1):%Y-%m-%d}" in days.stack.function_log(SIZE)


def test_completeness_finds_neither_loss_nor_doubles_in_any_hour(days):
    """What ingest accepted, what the stream took and what landed are the same numbers, hour by hour."""
    for name in ("LostEvents", "DoubledEvents", "LostRecords"):
        values = wait_for(lambda: metric(days, name, FunctionName="check-completeness"), what=name)
        assert len(values) > 24 and set(values) == {0}, (name, values)


def test_freshness_is_there_each_minute_and_all_metrics_are_prometheus_text(days):
    """The age of the newest event is put also when nothing arrives; GET /metrics gives all metrics."""
    ages = metric(days, "DataFreshness", period=3600, FunctionName=RECENCY)
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
    wait_for(lambda: max(metric(days, "MissingPartitions", period=3600, FunctionName=RECENCY)) >= 1)
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
    assert max(metric(days, "BrokenObjects", FunctionName=CHECK_OBJECT)) == 1
    put(days, keys["truncated"], body[:-7], metadata | {"last-sequence-number": str(number + 1)})
    count = days.stack.function_log(CHECK_OBJECT).count(keys["truncated"])
    wait_for(lambda: days.stack.function_log(CHECK_OBJECT).count(keys["truncated"]) > count)
    assert days.read(f"broken/{keys['truncated']}.json") == verdicts["truncated"]
    # What is late is noticed too: they landed days after their hour was sealed.
    name = folder.removeprefix("events/")
    wait_for(lambda: days.success(name)["late_objects"] == 3, SEALED_SECONDS, lambda: str(days.success(name)))
    wait_for(lambda: said(days, SEAL, "ERROR", name), what=lambda: days.stack.tail())
    wait_for(lambda: max(metric(days, "LateObjects", FunctionName=SEAL)) >= 1)


def test_an_hour_with_a_third_rejected_is_reported_with_both_numbers(fresh_stack):
    """On one machine, where there are no alarms: check-size's ERROR line on the terminal, and the share by reason as metrics."""
    stack = fresh_stack(parameters=PARAMETERS.replace("MinimumHourBytes=200", "MinimumHourBytes=0"), CLOCK=f"{START:%Y-%m-%dT%H:%M:%SZ} x{SPEED}")
    body = json.dumps([{"type": "heartbeat", "n": number} for number in range(70)] + list(range(30))).encode()
    assert stack.post(body=body, headers={"content-type": "application/json"}).json["accepted"] == 70
    errors = lambda: [line for line in stack.errors_path.read_text().splitlines() if all(word in line for word in (SIZE, "RejectedShare", "hour=00"))]
    line, = wait_for(errors, SEALED_SECONDS, stack.tail)
    assert "30.0 %: 30 rejected lines beside 70 events" in line and "at most 5 %" in line, line
    days = Days(stack)
    dimensions = {"BucketName": LANDING_BUCKET, "Key": "events/dt=*/hour=*/", "FunctionName": SIZE}
    for more in ({}, {"Reason": "not_an_object"}):
        shares = wait_for(lambda more=more: metric(days, "RejectedShare", period=3600, **dimensions, **more), what=str(more))
        assert max(shares) == 30, (more, shares)
    assert max(metric(days, "SizeViolations", period=3600, **dimensions)) == 1
