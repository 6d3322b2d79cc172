"""An hour that is not whole has no `_SUCCESS`: on a stack whose clock runs fast, an hour is 2.5 seconds."""

import json
import os
from datetime import datetime, timedelta

from support import landed, redrive
from support.failed_batches import THREE_SECONDS, failed_batches, template_with
from support.fast_clock import START, FastClock, partition
from support.faults import Faults
from support.players import Players
from support.stack import LANDING_BUCKET, wait_for

SPEED = 1440
QUICK = "BatchSize=5 BatchingWindowSeconds=0 LandingTimeoutSeconds=5 SealGraceMinutes=60 RecencyDueMinutes=120"
SEALED_SECONDS = int(os.environ.get("SEALED_SECONDS", "60"))


def read(stack, hour, name):
    path = stack.data / "s3" / LANDING_BUCKET / "events" / partition(hour) / name
    return json.loads(path.read_text()) if path.exists() else None


def full_hour(time):
    return time.replace(minute=0, second=0, microsecond=0)


def next_hour(clock):
    """The next full hour, which a stack that started after the clock does not reach before now."""
    return full_hour(clock.now()) + timedelta(hours=1)


def hours_of(batch):
    """The hours that the records of a failed batch arrived in."""
    info = batch["KinesisBatchInfo"]
    first, last = (datetime.fromisoformat(info[f"approximateArrivalOf{which}Record"]) for which in ("First", "Last"))
    hour = full_hour(first)
    while hour <= last:
        yield hour
        hour += timedelta(hours=1)


def failed_in(incomplete):
    """What an `_INCOMPLETE` says of failed batches: it is written again when the hour's first one came after it."""
    return [missing for missing in (incomplete or {"missing": []})["missing"] if missing["what"] == "failed_batches"]


def test_hours_whose_batches_failed_are_sealed_by_themselves_once_they_are_redriven(fresh_stack, tmp_path):
    """`_SUCCESS` of an hour means that every record which arrived in it has landed and can be read, or that a person has accepted the hour as it is."""
    template = template_with(tmp_path, THREE_SECONDS)
    stack = fresh_stack(template=template, parameters=QUICK, CLOCK=FastClock(SPEED).setting)
    faults = Faults(stack)
    faults.set("seed=7 s3.error=1")
    with Players(stack, players=4, pause=0.2) as players:
        wait_for(lambda: len(failed_batches(stack)) >= 6, 60, lambda: f"six failed batches\n{stack.tail()}")
        faults.end()
        answered = len(players.accepted)
        wait_for(lambda: len(players.accepted) > answered + 50, what="traffic after the faults")
    hours = sorted({hour for batch in failed_batches(stack).values() for hour in hours_of(batch)})
    for hour in hours:
        failed, = wait_for(lambda hour=hour: failed_in(read(stack, hour, "_INCOMPLETE")), SEALED_SECONDS, lambda: stack.tail())
        assert set(failed["keys"]) <= set(failed_batches(stack)), failed
    assert [read(stack, hour, "_SUCCESS") for hour in hours] == [None] * len(hours)
    # On a fast clock, nothing may have landed in the days around a batch: then the format must be given.
    batches = [*redrive.BATCHES, "--event-format", "envelope"]
    wait_for(lambda: redrive.run(stack, *batches)[0] == 0, 60, lambda: redrive.run(stack, *batches))
    for hour in hours:
        success = wait_for(lambda hour=hour: read(stack, hour, "_SUCCESS"), SEALED_SECONDS, lambda: stack.tail())
        folder = stack.data / "s3" / LANDING_BUCKET / "events" / partition(hour)
        lines = sum(len(landed.read_lines(path)) for path in folder.glob("*.jsonl.bz2"))
        assert (success["totals"]["events"], success["late_objects"]) == (lines, 0), success
        wait_for(lambda folder=folder: not (folder / "_INCOMPLETE").exists(), what=f"{folder} without _INCOMPLETE")
    assert {line.json["id"] for line in stack.lines("events")} >= set(players.accepted)


def put_plain(stack, hour):
    """An object without metadata, as a stranger's copy would be."""
    key = f"events/{partition(hour)}/shardId-000000000000-1.jsonl.bz2"
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=b"x")
    return key


def accept(stack, hour, *arguments):
    done = stack.run_script("accept-hour", partition(hour), *arguments)
    return done.returncode, done.stdout + done.stderr


def test_an_hour_with_an_unreadable_object_waits_until_it_is_mended_or_accepted(fresh_stack):
    """`_SUCCESS` of an hour means that every record which arrived in it has landed and can be read, or that a person has accepted the hour as it is."""
    clock = FastClock(SPEED)
    stack = fresh_stack(parameters=QUICK, CLOCK=clock.setting)
    mended, accepted = next_hour(clock), next_hour(clock) + timedelta(hours=1)
    keys = {hour: put_plain(stack, hour) for hour in (mended, accepted)}
    for hour, key in keys.items():
        incomplete = wait_for(lambda hour=hour: read(stack, hour, "_INCOMPLETE"), SEALED_SECONDS, lambda: stack.tail())
        # check-object may have found it first: then it is known to be broken before the hour is listed.
        assert [missing["keys"] for missing in incomplete["missing"]] == [[key]] * len(incomplete["missing"]), incomplete
        assert read(stack, hour, "_SUCCESS") is None
    assert max(stack.metric("IncompletePartitions", START, FunctionName="seal-partition")) >= 1

    for key in (keys[mended], f"broken/{keys[mended]}.json"):
        stack.s3().delete_object(Bucket=LANDING_BUCKET, Key=key)
    success = wait_for(lambda: read(stack, mended, "_SUCCESS"), SEALED_SECONDS, lambda: stack.tail())
    assert success["totals"]["objects"] == 0 and "accepted" not in success
    code, output = accept(stack, mended, "--reason", "too late")
    assert code == 1 and "_SUCCESS" in output

    assert accept(stack, accepted, "--reason", "a copy by mistake", "--by", "kim")[0] == 0
    success = wait_for(lambda: read(stack, accepted, "_SUCCESS"), SEALED_SECONDS, lambda: stack.tail())
    assert (success["accepted"]["by"], success["accepted"]["reason"]) == ("kim", "a copy by mistake")
    assert success["accepted"]["missing"][0]["what"] in ("broken_objects", "unreadable_objects")
    def shown(hour, state):
        lines = stack.errors_path.read_text().splitlines()
        return len([line for line in lines if f"sealed {hour:%Y-%m-%d %H}:00" in line and line.endswith(f", {state}")])

    # The terminal has it once the function's line came through, which is after its `_SUCCESS`.
    wait_for(lambda: shown(accepted, "accepted as it is"), what=lambda: stack.tail())
    assert [shown(mended, "complete"), shown(accepted, "accepted as it is"), shown(accepted, "complete")] == [1, 1, 0]
    held = [line for line in stack.errors_path.read_text().splitlines() if "due, and not whole" in line]
    assert all(any(f"partition={partition(hour)}, missing=" in line and key in line for line in held) for hour, key in keys.items())
    wait_for(lambda: all(read(stack, hour, "_INCOMPLETE") is None for hour in keys))


def test_hours_without_traffic_are_sealed_on_time(fresh_stack):
    clock = FastClock(SPEED)
    stack = fresh_stack(parameters=QUICK, CLOCK=clock.setting)
    stack.post(body=b'{"type":"play"}')
    hours = [next_hour(clock) + timedelta(hours=more) for more in range(1, 4)]
    for hour in hours:
        success = wait_for(lambda hour=hour: read(stack, hour, "_SUCCESS"), SEALED_SECONDS, lambda: stack.tail())
        assert success["totals"]["objects"] == 0
        late = datetime.fromisoformat(success["first_sealed_at"]) - (hour + timedelta(hours=1))
        assert late <= timedelta(minutes=120), success
