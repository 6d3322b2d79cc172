"""Functions that are killed or fail lose and double nothing."""

import json
import random
import re
import signal
import time

import pytest

from support import landed
from support.failed_batches import TEN_SECONDS, TWO_RETRIES, data_of, holding, template_with
from support.faults import Faults
from support.panics import Panics
from support.stack import INGEST, LANDING, command, signal_if_alive, wait_for
from support.traffic import Traffic

KILLS = 20
# Small batches at once, so that the landing function is at work most of the time and a kill hits it there.
BUSY = "BatchSize=5 BatchingWindowSeconds=0"


def kill_again_and_again(stack, function):
    """Kills a function's processes, all that there are, at moments drawn at random."""
    killed, deadline = 0, time.monotonic() + 60
    while killed < KILLS:
        assert time.monotonic() < deadline, f"just {killed} to kill in a minute\n{stack.tail()}"
        time.sleep(random.uniform(0.05, 0.4))
        killed += sum(signal_if_alive(pid, signal.SIGKILL) for pid in stack.function_processes(function))


def landed_once(stack, traffic, stalls):
    """All that was accepted is landed, and stopping brings nothing twice; files are checked while S3 is
    there."""
    print(f"{traffic.statuses}; {len(traffic.accepted)} events accepted")
    accepted = set(traffic.accepted)
    assert accepted
    stack.wait_for_lines(lambda line: line.json["id"] in accepted, len(accepted), timeout=90)
    landed.verify_all(stack)
    assert stack.stop() == 0, stack.tail()
    landed.assert_once(stack.lines(), traffic.accepted, stalls)


def test_killing_the_landing_function_while_it_works_loses_and_doubles_nothing(fresh_stack, stalls):
    """SIGKILL of the landing function's processes, again and again while traffic flows: all that was
    answered 200 is landed exactly once, by id, over all files on disk."""
    stack = fresh_stack(parameters=BUSY)
    with Traffic(stack) as traffic:
        kill_again_and_again(stack, LANDING)
    assert set(traffic.statuses) == {200}
    landed_once(stack, traffic, stalls)
    replaced = re.findall(r'"ReplacedObjects":([1-9]\d*)', stack.function_log(LANDING))
    print(f"objects of killed attempts that were written anew: {sum(map(int, replaced))}")


def test_killing_ingest_while_it_works_loses_nothing_that_was_answered_200(fresh_stack, stalls):
    """SIGKILL of ingest's processes while traffic flows: what they had in hand may be answered 502, but
    what was answered 200 lands, and nothing lands twice."""
    stack = fresh_stack()
    with Traffic(stack, viewers=16, pause=0) as traffic:
        kill_again_and_again(stack, INGEST)
        after = len(traffic.accepted)
        wait_for(lambda: len(traffic.accepted) > after, what="events that are accepted after the last kill")
    assert set(traffic.statuses) <= {200, 502}
    landed_once(stack, traffic, stalls)


def test_stopping_right_after_a_kill_still_lands_everything(fresh_stack, stalls):
    """A kill of the landing function just before Ctrl-C: what was answered 200 still lands before the
    stack is gone."""
    stack = fresh_stack(parameters=BUSY)
    with Traffic(stack) as traffic:
        wait_for(lambda: len(traffic.answers) > 100, what="100 answers")
        for pid in wait_for(lambda: stack.function_processes(LANDING), what="a landing process"):
            signal_if_alive(pid, signal.SIGKILL)
        assert stack.stop() == 0, stack.tail()
    landed.assert_once(stack.lines(), traffic.accepted, stalls)


def test_a_landing_function_that_hangs_is_killed_and_its_batch_sent_again(fresh_stack, stalls):
    """A function that runs past its timeout is killed, and what it had in hand is handed to another one."""
    stack = fresh_stack(parameters="BatchSize=5 BatchingWindowSeconds=0 LandingTimeoutSeconds=5")
    with Traffic(stack) as traffic:
        hanging = wait_for(lambda: stack.function_processes(LANDING), what="a landing process")
        for pid in hanging:
            signal_if_alive(pid, signal.SIGSTOP)
        wait_for(lambda: not any(map(command, hanging)), timeout=20, what="the end of those that hang")
    assert set(traffic.statuses) == {200}
    landed_once(stack, traffic, stalls)


def test_a_panic_costs_one_request_and_no_batch(fresh_stack, tmp_path):
    """Whatever bytes a request or a record holds, every event in them ends in one outcome, and a function that panics loses one invocation and no batch.

    Landing panics with a batch in hand that S3 does not take, and ingest at a request: this one is answered 502, the next one
    is served, and the batch is sent again."""
    panics = Panics(tmp_path / "functions", {INGEST, LANDING})
    stack = fresh_stack(FUNCTIONS_DIR=panics.functions_dir, FAULTS="s3.error=1")
    assert stack.post(body=b'{"id":"in the batch"}').status == 200
    wait_for(lambda: "WARN" in stack.function_log(LANDING), 60, "a try at landing it")
    panics.arm(LANDING)
    wait_for(lambda: not panics.is_armed(LANDING), 60, "landing to panic")
    Faults(stack).end()
    panics.arm(INGEST)
    assert stack.post(body=b'{"id":"of the request that is lost"}').status == 502
    assert not panics.is_armed(INGEST)
    assert stack.post(body=b'{"id":"of the next one"}').status == 200
    lines = stack.wait_for_lines(lambda line: True, 2)
    assert sorted(line.json["id"] for line in lines) == ["in the batch", "of the next one"]
    assert all("panicked" in stack.function_log(function) for function in (INGEST, LANDING))


def broken_template(directory, bucket_name, limit):
    """The template with a landing function that can never land, and a small limit for it."""
    of_landing = "BUCKET_NAME: *landing_bucket\n          EVENT_FORMAT:"
    return template_with(directory, {of_landing: of_landing.replace("*landing_bucket", f'"{bucket_name}"')} | limit)


@pytest.mark.parametrize("bucket_name", ["no-such-bucket", ""], ids=["no_bucket", "function_cannot_start"])
def test_a_batch_that_never_lands_is_kept_whole_and_later_ones_go_on(fresh_stack, tmp_path, bucket_name):
    """A batch that could not land for six days is kept whole, the next ones go on, and redriving it lands its records exactly once.

    After the last retry the on-failure destination keeps it in S3, in Lambda's form."""
    stack = fresh_stack(template=broken_template(tmp_path, bucket_name, TWO_RETRIES))
    for event in (b"the-first", b"the-second"):
        assert stack.post(body=b'{"id":"%s","session_id":"one shard"}' % event).status == 200
        kept = wait_for(lambda: holding(stack, event), what=lambda: f"{event} kept\n{stack.tail()}")
        (key, document), = kept.items()
        assert re.match(r"aws/lambda/[^/]+/shardId-\d{12}/\d{4}/\d\d/\d\d/", key)
        lines = [json.loads(line) for line in data_of(document).splitlines()]
        assert [line["id"] for line in lines] == [event.decode()]
        assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert document["requestContext"]["approximateInvokeCount"] == 3
        assert document["KinesisBatchInfo"]["batchSize"] == 1
    assert stack.lines("events") == []


def test_a_batch_that_is_too_old_is_kept_whole_too(fresh_stack, tmp_path):
    """A batch that could not land before its records are too old ends in the on-failure destination,
    however many retries it would still have."""
    stack = fresh_stack(template=broken_template(tmp_path, "no-such-bucket", TEN_SECONDS))
    assert stack.post(body=b'{"id":"old"}').status == 200
    document, = wait_for(lambda: holding(stack, b'"old"'), 60, lambda: f"it kept\n{stack.tail()}").values()
    assert document["requestContext"]["condition"] == "RecordAgeExceeded"
    assert document["requestContext"]["approximateInvokeCount"] > 1
