"""What ingest counts, as its log says it: few lines, and the sums of what was sent."""

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from support.faults import Faults
from support.stack import INGEST, wait_for

CONNECTIONS, POSTS_A_SECOND, SECONDS = 8, 100, 12
EVENTS = b'[{"id":"a"},{"id":"b"},7]'


def log_lines(stack):
    return [json.loads(line) for line in stack.function_log(INGEST).splitlines()]


def sums(stack):
    """The sum of each metric under the function alone, over all lines."""
    total = Counter()
    for line in log_lines(stack):
        if "_aws" in line and "ExecutedVersion" not in line:
            total.update({name: value for name, value in line.items() if isinstance(value, int)})
    return total


def post_steadily(stack, seconds):
    """The statuses of POSTs at a steady rate over several connections at once."""
    def post(_):
        connection, statuses, began = stack.connect(), Counter(), time.monotonic()
        for number in range(seconds * POSTS_A_SECOND // CONNECTIONS):
            time.sleep(max(0, began + number * CONNECTIONS / POSTS_A_SECOND - time.monotonic()))
            statuses[stack.post(body=EVENTS, connection=connection).status] += 1
        connection.close()
        return statuses

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(post, range(CONNECTIONS)), Counter())


def test_a_steady_hundred_posts_a_second_are_less_than_a_line_a_second_an_environment_and_none_is_missing_after_the_stop(fresh_stack):
    """START, END and REPORT would be three lines a request, and metrics by request a fourth."""
    stack = fresh_stack()
    statuses = post_steadily(stack, SECONDS)
    lines, environments = len(log_lines(stack)), sums(stack)["ColdStarts"]
    print(f"{statuses}: {lines} lines of {environments} environments in {SECONDS} s")
    assert lines / SECONDS / environments < 1
    for _ in range(3):
        stack.post(method="OPTIONS", headers={"origin": "https://a.example", "access-control-request-method": "POST"})
    assert stack.post(body=b"no JSON").status == 400
    assert stack.stop() == 0, stack.tail()
    posts, counted = statuses[200], sums(stack)
    assert statuses == {200: SECONDS * POSTS_A_SECOND // CONNECTIONS * CONNECTIONS}
    expected = {"Requests": posts + 4, "Preflights": 3, "AcceptedEvents": 2 * posts, "RejectedLines": posts + 1,
                "RejectedNotAnObject": posts, "RejectedInvalidJson": 1, "RequestBytes": len(EVENTS) * posts + len(b"no JSON")}
    assert {name: counted[name] for name in expected} == expected
    assert counted["HandlingTime"] > 0 and max(line.get("LargestRequest", 0) for line in log_lines(stack)) == len(EVENTS)
    assert all(line["_aws"]["Timestamp"] % 60_000 == 0 for line in log_lines(stack) if "_aws" in line)


def test_counts_of_killed_processes_are_missing_and_never_too_many(fresh_stack):
    stack = fresh_stack()
    faults = Faults(stack)
    faults.set("seed=1 kinesis.kill=0.02")
    statuses = post_steadily(stack, 5)
    killed = faults.fired["kinesis.kill"]
    faults.end()
    assert stack.stop() == 0, stack.tail()
    counted = sums(stack)
    print(f"{statuses}: {killed} killed; {counted['AcceptedEvents']} of {2 * statuses[200]} events are counted")
    assert killed > 0 and 0 < counted["AcceptedEvents"] < 2 * statuses[200]
    assert counted["Requests"] < statuses.total()


def test_an_environment_that_is_idle_ends_and_writes_what_it_held_back(fresh_stack):
    stack = fresh_stack()
    for _ in range(3):
        assert stack.post(body=EVENTS).status == 200
    assert sums(stack)["AcceptedEvents"] < 6, "the second and third are held back"
    wait_for(lambda: sums(stack)["AcceptedEvents"] == 6, what=lambda: f"6 events in {sums(stack)}")
    # It ends a little after it has written.
    wait_for(lambda: not stack.function_processes(INGEST), 10, "the end of its process")
