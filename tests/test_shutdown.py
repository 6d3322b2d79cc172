"""How the stack starts and stops."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from support import landed
from support.stack import BINARY, INGEST, LANDING, REPOSITORY, children, command, environment, run_to_the_end, signal_if_alive, wait_for
from support.traffic import Traffic


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_a_stack_stopped_in_the_middle_of_traffic_lands_all_that_was_answered_200(fresh_stack, stalls, number):
    """Ctrl-C (to the whole process group, as a terminal sends it) or SIGTERM in the middle of traffic
    still lands all that was answered 200, and the stack exits 0."""
    stack = fresh_stack(parameters="")
    with Traffic(stack, viewers=16) as traffic:
        wait_for(lambda: len(traffic.answers) > 200, what="200 answers")
        functions = stack.function_processes(INGEST) + stack.function_processes(LANDING)
        code = stack.stop(number)
    assert code == 0, stack.tail()
    print(f"{traffic.statuses}; {len(traffic.accepted)} events accepted")
    assert traffic.statuses[200] > 200
    landed.assert_once(stack.lines(), traffic.accepted, stalls)
    assert functions and not any(command(pid) for pid in functions), "functions outlive their stack"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["ctrl_c", "sigterm", "sighup"])
def test_a_stop_that_is_signalled_twice_still_lands_all_that_was_answered_200(fresh_stack, stalls, number):
    """A shell and the kernel both report a closed terminal, `make` passes on what its group has got already: signals of
    one stop come in twos, and lose nothing."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=300")
    ids = [f"twice-{count}" for count in range(50)]
    for one in ids:
        assert stack.post(body=json.dumps({"id": one}).encode()).status == 200
    stack.process.send_signal(number)
    time.sleep(0.02)
    assert stack.stop(number) == 0, stack.tail()
    landed.assert_once(stack.lines(), ids, stalls)


def test_a_stack_stopped_with_a_batch_still_filling_does_not_wait_for_the_window(fresh_stack):
    """Ctrl-C lands what there is, however long the window that a batch may wait to fill."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=300")
    assert stack.post(body=b'{"id":"the last"}').status == 200
    assert stack.stop() == 0, stack.tail()
    assert [line.json["id"] for line in stack.lines()] == ["the last"]


def test_a_stack_stopped_without_any_traffic_leaves_nothing(fresh_stack):
    """Ctrl-C with nothing to land exits 0 and lands nothing."""
    stack = fresh_stack()
    assert stack.stop() == 0, stack.tail()
    assert stack.landed_files("events") == [] and stack.landed_files("rejected") == []


def test_a_stack_is_ready_soon_at_a_free_port_that_it_prints(fresh_stack):
    """Once built it is ready within two seconds (here with room for a busy machine), PORT=0 picks a free
    port and prints it, and what is printed as ready takes requests."""
    stacks = [fresh_stack(), fresh_stack()]
    print("seconds to ready:", *(f"{stack.seconds_to_ready:.2f}" for stack in stacks))
    assert all(stack.seconds_to_ready < 10 for stack in stacks)
    assert 0 not in {stack.port for stack in stacks} and len({stack.port for stack in stacks}) == 2
    for stack in stacks:
        health = stack.post("/health", method="GET")
        assert (health.status, health.json) == (200, {"status": "ok"})


@pytest.mark.parametrize("front_door", ["lambda", "server"])
def test_a_port_that_is_in_use_is_a_clear_error(tmp_path, front_door):
    """A port that another program has keeps the stack from starting: it exits with an error that names
    PORT and the number, and never says that it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = run_to_the_end(tmp_path, PORT=port, FRONT_DOOR=front_door)
    assert code != 0
    assert "PORT" in output and str(port) in output and "ready:" not in output, output


@pytest.mark.parametrize(
    "variables, named",
    [
        ({"PORT": "eighty"}, "PORT"),
        ({"AWS_PORT": "70000"}, "AWS_PORT"),
        ({"template": "no-such-template.yaml"}, "no-such-template.yaml"),
        ({"parameters": "BatchSzie=10"}, "BatchSzie"),
        ({"parameters": "BatchSize=many"}, "BatchSize"),
    ],
    ids=["port", "aws_port", "template", "unknown_parameter", "bad_parameter"],
)
def test_a_bad_setting_stops_the_start_and_is_named(tmp_path, variables, named):
    """A missing or bad value stops the start, and the message names it."""
    code, output = run_to_the_end(tmp_path, **variables)
    assert code != 0 and named in output, output


def test_a_stack_started_again_on_its_folder_keeps_what_had_landed(fresh_stack, stalls, tmp_path):
    """Files of earlier runs stay what they are, however soon the next run begins: `make run` may be
    stopped and started at will."""
    events = [f"run-{number}" for number in range(5)]
    for event in events:
        stack = fresh_stack(tmp_path / "again", parameters="ShardCount=1")
        assert stack.post(body=b'{"id":"%s"}' % event.encode()).status == 200
        assert stack.stop() == 0, stack.tail()
    landed.assert_once(stack.lines(), events, stalls)


def test_the_page_ends_with_a_stack_that_is_killed(fresh_stack):
    """And so gives its port back to the next one."""
    stack = fresh_stack()
    page, = stack.function_processes("status")
    all_of_it = children(stack.process.pid)
    stack.killed = True
    try:
        stack.process.kill()
        wait_for(lambda: not command(page), 10, "the end of the page")
    finally:
        for pid in all_of_it:
            signal_if_alive(pid, signal.SIGKILL)
        stack.process.wait()


def test_a_page_that_ended_is_soon_where_it_was(fresh_stack):
    stack = fresh_stack()
    page, = stack.function_processes("status")
    os.kill(page, signal.SIGKILL)
    wait_for(lambda: page not in stack.function_processes("status"), 10)
    again, = wait_for(lambda: stack.function_processes("status"), 10)

    def answers():
        try:
            with urllib.request.urlopen(stack.page, timeout=20) as answer:
                return answer.status == 200
        except urllib.error.URLError:
            return False

    wait_for(answers, 10, f"the page of {again} at {stack.page}")


def test_functions_log_to_files_of_their_own(fresh_stack):
    """The functions' logs stand under DATA_DIR/logs/, and their numbers are in them as embedded metrics."""
    stack = fresh_stack()
    assert stack.post(body=b'[{"id":"a"},{"id":"b"}]').status == 200
    stack.wait_for_lines(lambda line: True, 2)
    wait_for(lambda: metric(stack, INGEST, "AcceptedEvents") == [2], what="AcceptedEvents in ingest's log")
    wait_for(lambda: sum(metric(stack, LANDING, "LandedEvents")) == 2, what="LandedEvents in the landing log")


def metric(stack, function, name):
    """The values of a metric in a function's log, wherever in a line its JSON begins."""
    lines = stack.function_log(function).splitlines()
    found = [json.loads(line[line.index("{"):]) for line in lines if '"_aws"' in line]
    return [entry[name] for entry in found if name in entry]


def test_a_killed_stack_leaves_no_function_behind(fresh_stack):
    """Nothing that the stack started outlives it, even if it could not say goodbye."""
    stack = fresh_stack()
    assert stack.post(body=b"{}").status == 200
    functions = wait_for(lambda: stack.function_processes(INGEST), what="a process of ingest")
    stack.killed = True
    os.kill(stack.process.pid, signal.SIGKILL)
    stack.process.wait()
    deadline = time.monotonic() + 15
    while left := [pid for pid in functions if command(pid).endswith(f"/{INGEST}")]:
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{len(left)} processes of {INGEST} live on")
        time.sleep(0.1)


def test_a_ctrl_c_that_also_ends_the_reader_still_lands_everything(tmp_path):
    """`make run | tee log` loses its reader to the same Ctrl-C: what was answered 200 lands all the same."""
    with subprocess.Popen(
        [BINARY], cwd=REPOSITORY, env=environment(tmp_path, parameters="BatchingWindowSeconds=300"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:
        ready = next(line for line in process.stdout if line.startswith("ready"))
        port = int(ready.split(":")[3].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/events", b'{"id":"heard by nobody"}', {"content-type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    files = landed.files(tmp_path / "data/s3/landing-bucket", "events")
    assert [line.json["id"] for file in files for line in landed.read_lines(file.path)] == ["heard by nobody"]


def test_a_stack_stopped_right_after_a_reshard_lands_what_came_to_the_new_shards(fresh_stack, stalls):
    """A shard that was split a moment before Ctrl-C: what its children took lands too."""
    stack = fresh_stack(parameters="ShardCount=1 BatchingWindowSeconds=300")
    stack.kinesis().split_shard(
        StreamName="event-stream", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127),
    )
    stack.kinesis().get_waiter("stream_exists").wait(StreamName="event-stream", WaiterConfig={"Delay": 1})
    ids = [str(number) for number in range(20)]
    for one in ids:
        assert stack.post(body=json.dumps({"id": one, "sid": one}).encode()).status == 200
    assert stack.stop() == 0, stack.tail()
    landed.assert_once(stack.lines(), ids, stalls)
