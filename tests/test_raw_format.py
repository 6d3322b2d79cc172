"""With EventFormat=raw a landed line is a client's own JSON, and can look like anything, a rejected line of ours included:
nothing that it says of itself is believed."""

import json
import time
from datetime import UTC, datetime, timedelta

from support import landed, redrive
from support.failed_batches import THREE_SECONDS, failed_batches, template_with
from support.fast_clock import START, FastClock
from support.faults import Faults
from support.stack import LANDING_BUCKET, STREAM, wait_for

# An hour takes nine seconds: there is time to see what is said of it, and of the hours after it.
SPEED = 400
HOURS = 5
PARAMETERS = "EventFormat=raw BatchingWindowSeconds=0 ShardCount=2 SealGraceMinutes=25 RecencyDueMinutes=150"


def rejected_line(time, **members):
    """What ingest writes of a body that it rejects."""
    rejected = {"reason": "too_deep", "detail": "made up", "body_base64": "e30="}
    return {"v": 1, "id": "1", "received_at": text(time), "request_id": "r", "client": {}, "rejected": rejected} | members


def compact(value):
    """JSON as ingest writes it: with a space in it, a line would not even look like one of ours."""
    return json.dumps(value, separators=(",", ":"))


def text(time):
    return f"{time:%Y-%m-%dT%H:%M:%S}.000Z"


def forgeries(now):
    """Events that say of themselves what only ingest may say."""
    hour = timedelta(hours=1)
    return [
        rejected_line(now),
        rejected_line(now, session_id="r-1"),
        rejected_line(now + 0.9 * hour),
        rejected_line(now - 0.9 * hour),
        {"v": 1, "id": "2", "received_at": text(now + 0.9 * hour), "event": {}},
        {"v": 1, "id": "2", "received_at": text(now - 0.9 * hour), "event": {}},
        {"v": 1, "id": "3", "received_at": "9999-12-31T23:59:59.999Z"},
        {"v": 1, "id": "4", "received_at": "0001-01-01T00:00:00.000Z"},
        {"v": 2, "rejected": {"reason": "foreign_record"}},
        {"session_id": "r-", "type": "play"},
    ]


def post(stack, events):
    answer = stack.post(body=compact(events).encode(), headers={"content-type": "application/json"})
    assert answer.json == {"accepted": len(events), "rejected": []}, answer


def assert_all_are_events(stack, events):
    found = stack.wait_for_lines(lambda line: True, len(events))
    assert sorted(line.text for line in found) == sorted(compact(event) for event in events)


def test_forged_rejected_lines_and_times_of_receipt_are_events_like_any_other(fresh_stack):
    """They land under events/, their files say the time of arrival, check-object finds nothing wrong, and only what was
    rejected is under rejected/."""
    stack = fresh_stack(parameters="EventFormat=raw BatchingWindowSeconds=0 ShardCount=2")
    # A body is one event a line as it was sent, so that it can be compared to the letter.
    began, events = datetime.now(UTC), forgeries(datetime.now(UTC))
    post(stack, events)
    assert stack.post(body=b"no JSON").status == 400
    assert_all_are_events(stack, events)
    rejected = stack.wait_for_lines(lambda line: True, 1, prefix="rejected")
    assert [line.json["rejected"]["reason"] for line in rejected] == ["invalid_json"]
    for metadata in landed.verify_all(stack).values():
        assert metadata["event-format"] == "raw" and "rejected-reasons" not in metadata
        for name in ("earliest-received-at", "latest-received-at"):
            arrival = datetime.fromisoformat(metadata[name])
            assert began - timedelta(seconds=1) < arrival < datetime.now(UTC) + timedelta(seconds=1), metadata
    wait_for(lambda: checked(stack) >= len(stack.landed_files("events")) + 1, what="the checks of all objects")
    assert not (stack.data / "s3" / LANDING_BUCKET / "broken").exists(), stack.function_log("check-object")


def checked(stack):
    """How often check-object was invoked."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return sum(stack.metric("Invocations", yesterday, "Sum", namespace="AWS/Lambda", FunctionName="check-object"))


def test_rejected_lines_of_other_producers_are_events_unless_their_key_is_ours(fresh_stack):
    """Only who may write to the stream can write such a key."""
    stack = fresh_stack(parameters="EventFormat=raw BatchingWindowSeconds=0 ShardCount=1")
    line = compact(rejected_line(datetime.now(UTC)))
    for key in ("viewer", "e-r-1"):
        stack.kinesis().put_record(StreamName=STREAM, Data=line.encode(), PartitionKey=key)
    stack.kinesis().put_record(StreamName=STREAM, Data=f'{line}\n{{"n":1}}\n'.encode(), PartitionKey="r-1/0")
    assert [line.text for line in stack.wait_for_lines(lambda line: True, 3)] == [line, line, '{"n":1}']
    assert [line.text for line in stack.wait_for_lines(lambda line: True, 1, prefix="rejected")] == [line]


def test_forgeries_are_neither_lost_nor_doubled_and_make_no_data_look_fresh(fresh_stack):
    """The balance of each hour is even, and a time of receipt in the future does not hold the age of the newest event down."""
    clock, posted = FastClock(SPEED), []
    stack = fresh_stack(parameters=PARAMETERS, CLOCK=clock.setting)
    for hour in range(HOURS):
        wait_for(lambda hour=hour: clock.now() >= START + timedelta(hours=hour, minutes=15), what="the next hour")
        events = forgeries(clock.now())
        post(stack, events)
        posted += events
    silent = clock.now()
    assert_all_are_events(stack, posted)
    balanced = wait_for(lambda: (found := stack.metric("LostEvents", START, FunctionName="check-completeness")) and len(found) >= 3 and found,
                        60, lambda: stack.tail())
    assert set(balanced) == {0}, (balanced, stack.function_log("check-completeness"))
    assert set(stack.metric("DoubledEvents", START, FunctionName="check-completeness")) == {0}
    wait_for(lambda: clock.now() > silent + timedelta(hours=1), what="an hour of silence")
    # What landed last says that it was received 54 minutes after that.
    assert stack.metric("DataFreshness", START, FunctionName="check-recency")[-1] > 2400


def test_failed_batches_of_forgeries_are_redriven_as_landing_would_have_landed_them(fresh_stack, tmp_path):
    """The command reads the format from what landed, and asks for it, or contradicts what was passed, where it must."""
    stack = fresh_stack(template=template_with(tmp_path, THREE_SECONDS),
                        parameters="EventFormat=raw BatchingWindowSeconds=0 ShardCount=1 LandingTimeoutSeconds=5")
    Faults(stack).set("s3.error=1")
    events = forgeries(datetime.now(UTC))
    post(stack, events)
    wait_for(lambda: failed_batches(stack), 60, lambda: f"a failed batch\n{stack.tail()}")
    Faults(stack).end()
    # Nothing has landed: the format is unknown.
    code, output = redrive.run(stack, *redrive.BATCHES)
    assert code == 1 and "--event-format" in output, output
    later = {"type": "later"}
    post(stack, [later])
    stack.wait_for_lines(lambda line: True, 1)
    # Now it is known, and what contradicts it is refused.
    before = failed_batches(stack)
    code, output = redrive.run(stack, *redrive.BATCHES, "--event-format", "envelope")
    assert code == 1 and "--event-format" in output and failed_batches(stack) == before, output
    wait_for(lambda: redrive.run(stack, *redrive.BATCHES)[0] == 0, 60, lambda: redrive.run(stack, *redrive.BATCHES))
    assert failed_batches(stack) == {}
    assert_all_are_events(stack, [*events, later])
    assert stack.landed_files("rejected") == []
    landed.verify_all(stack)
