"""The example in docs/LOCAL.md of a fast clock, with the template's parameters for all that looks for losses: nothing is lost, and
nobody says so."""

import json
import os
import re
import time
from datetime import UTC, datetime

from support import landed
from support.stack import INGEST, LANDING, REPOSITORY, wait_for

PAGE = re.compile(r"`CLOCK`.*?`\"(\S+)Z x(\d+)\"`")
# 30 hours of that clock, with a midnight among them. CLOCK_SECONDS=180 is three days.
SECONDS = int(os.environ.get("CLOCK_SECONDS", 75))
POSTS_A_SECOND = 25


def example():
    """The start and the factor that docs/LOCAL.md names."""
    start, factor = PAGE.search((REPOSITORY / "docs/LOCAL.md").read_text()).groups()
    return datetime.fromisoformat(start).replace(tzinfo=UTC), int(factor)


def event(number):
    # As long as a real one, and with little that compresses: a date must have 195,000 bytes.
    return {"id": f"clock-{number}", "session_id": f"s-{number % 7}", "type": "heartbeat", "filler": os.urandom(200).hex()}


def post_steadily(stack, seconds):
    """How many events were accepted."""
    connection, began, number = stack.connect(), time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        while number < now * POSTS_A_SECOND:
            answer = stack.post(body=json.dumps(event(number)).encode(), connection=connection)
            assert answer.json == {"accepted": 1, "rejected": []}, answer
            number += 1
        time.sleep(0.005)
    connection.close()
    return number


def errors(stack):
    return [line for line in stack.errors_path.read_text().splitlines() if "ERROR" in line]


def test_the_documented_fast_clock_reports_no_loss_and_no_error_under_steady_traffic(fresh_stack, stalls):
    start, factor = example()
    # The 40 minutes of the template are 1.7 s of this clock: a busy machine seals later, and has lost nothing.
    stack = fresh_stack(parameters="RecencyDueMinutes=150", CLOCK=f"{start:%Y-%m-%dT%H:%M:%S}Z x{factor}")
    accepted = post_steadily(stack, SECONDS)
    hours = SECONDS * factor // 3600
    for name in ("LostEvents", "DoubledEvents", "LostRecords", "DoubledRecords"):
        found = stack.metric(name, start, period=3600, FunctionName="check-completeness")
        assert len(found) >= hours - 5 and set(found) == {0}, (name, found, stack.tail())
    landed_events = lambda: sum(stack.metric("LandedEvents", start, "Sum", 3600, FunctionName=LANDING))
    wait_for(lambda: landed_events() == accepted, what=lambda: f"{accepted} in LandedEvents, but {landed_events()}")
    assert errors(stack) == []
    sealed = [line for line in stack.errors_path.read_text().splitlines() if " sealed " in line]
    assert len(sealed) >= hours - 3 and all(line.endswith(("files, complete", "files, all hours sealed")) for line in sealed), sealed
    # Until its environments end ingest holds back some counts: days of silence on this clock, of which the checks complain.
    counted = lambda: sum(stack.metric("AcceptedEvents", start, "Sum", 3600, FunctionName=INGEST))
    wait_for(lambda: counted() == accepted, what=lambda: f"{accepted} in AcceptedEvents, but {counted()}")
    assert stack.stop() == 0, stack.tail()
    landed.assert_once(stack.lines(), [f"clock-{number}" for number in range(accepted)], stalls)
