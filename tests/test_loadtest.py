"""The load test against the one-machine stack, and against servers that misbehave on purpose.

Lag is allowed for but where it is what is tested: tests run beside others, and a busy machine is none of theirs.
"""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support import loadtest_servers as servers
from support.loadtest import BINARY, COULD_NOT_RUN, FAIL, INVALID, PASS, finish, in_the_bucket, start
from support.stack import INGEST, wait_for

FIXTURES = Path(__file__).parent / "fixtures"
LENIENT = ["--max-lag", "10s"]
ONE_EVENT = ["--events-per-post", "1", *LENIENT]


def loadtest(command, port, tmp_path, *arguments, scheme="http"):
    """Runs it to its end, and reads the result that it wrote."""
    result = tmp_path / "result.json"
    result.unlink(missing_ok=True)
    return finish(start(command, port, "--result", result, *arguments, scheme=scheme), result)


# ---- Against the whole pipeline ----


def test_a_run_passes_and_its_result_adds_up(stack, tmp_path):
    report = tmp_path / "report.html"
    ran = loadtest("run", stack.port, tmp_path, "--rate", 100, "--duration", "3s", "--events-per-post", "1..20",
                   "--report", report, *LENIENT, *in_the_bucket(stack))
    assert ran.code == PASS, ran
    result = ran.result
    posts, events, truth = result["posts"], result["events"], result["truth"]
    assert result["version"] == 1 and result["verdict"]["outcome"] == "PASS"
    assert posts == {"planned": 300, "as_expected": 300, "unexpected": {}, "unanswered": {}}
    assert events["accepted"] == events["sent"] == truth["expected"] == truth["landed"] > 1_000
    assert (truth["missing"], truth["doubled"], truth["misplaced"], truth["landed_unknown"]) == (0, 0, 0, 0)
    assert [second["planned"] for second in result["seconds"][:3]] == [100, 100, 100]
    for count in ("sent", "answered"):
        assert sum(second[count] for second in result["seconds"]) == 300
    for times in (result["latency"], result["service_time"], result["generator"]["lag"]):
        assert times["count"] == 300 == sum(count for _, count in times["buckets"])
        assert 0 < times["p50_us"] <= times["p99_us"] <= times["p99_99_us"] <= times["max_us"]
    assert truth["end_to_end"]["count"] == events["sent"]
    assert 0 < result["generator"]["cpu_seconds"] < 3 and result["generator"]["held_back"] == 0
    assert {outcome["threshold"] for outcome in result["verdict"]["thresholds"]} == {
        "errors<0.1%", "missing=0", "doubled=0", "misplaced=0"}
    assert "PASS: Every threshold holds." in ran.stdout and len(ran.stdout.splitlines()) < 30
    assert report.read_text().startswith("<!DOCTYPE html>")


def test_events_are_recognised_by_their_ids_and_others_in_the_bucket_are_not_counted(stack, tmp_path):
    """Two runs into one bucket: each finds its own."""
    for run in ("first", "second"):
        ran = loadtest("run", stack.port, tmp_path, "--rate", 50, "--duration", "1s", "--run-id", run, *LENIENT,
                       *in_the_bucket(stack))
        assert (ran.code, ran.result["truth"]["landed"]) == (PASS, 1_000), ran


def test_bad_input_is_answered_as_expected_and_lands_as_rejected(stack, tmp_path):
    ran = loadtest("run", stack.port, tmp_path, "--rate", 100, "--duration", "3s", "--bad", "30%", *LENIENT,
                   *in_the_bucket(stack), "--threshold", "errors=0%,missing=0,misplaced=0,doubled=0,unknown=0")
    assert ran.code == PASS, ran
    events = ran.result["events"]
    assert 40 < events["rejected"] < 150 and events["accepted"] + events["rejected"] == events["sent"]
    assert ran.result["truth"]["landed"] == events["sent"]


@pytest.mark.parametrize("name, requests, events", [
    ("mux-embed-session.jsonl", 4, 21), ("dashjs-cmcd-v2-session.jsonl", 38, 38), ("made-up-session.jsonl", 6, 10)])
def test_a_recorded_session_is_replayed_in_copies_that_land(stack, tmp_path, name, requests, events):
    ran = loadtest("run", stack.port, tmp_path, "--replay", FIXTURES / name, "--speed", 100, "--rate", 5,
                   "--duration", "2s", *LENIENT, *in_the_bucket(stack), "--threshold",
                   "errors=0%,missing=0,misplaced=0,doubled=0")
    assert ran.code == PASS, ran
    # Ten sessions begin; those that begin last are cut off by the end.
    assert requests * 7 <= ran.result["posts"]["planned"] <= requests * 10
    assert events * 7 <= ran.result["truth"]["landed"] == ran.result["events"]["sent"] <= events * 10


def test_a_broken_threshold_is_a_failure(stack, tmp_path):
    ran = loadtest("run", stack.port, tmp_path, "--rate", 20, "--duration", "1s", *LENIENT, "--threshold", "p50<1us")
    assert (ran.code, ran.result["verdict"]["outcome"]) == (FAIL, "FAIL"), ran
    assert re.search(r"p50<1us .* does not hold", ran.stdout)


def test_a_threshold_without_a_value_is_a_failure(stack, tmp_path):
    file = tmp_path / "thresholds"
    file.write_text("# Without a bucket nobody knows.\nmissing=0\n")
    ran = loadtest("run", stack.port, tmp_path, "--rate", 20, "--duration", "1s", *LENIENT, "--thresholds", file)
    assert ran.code == FAIL and ran.result["verdict"]["thresholds"][0]["found"] is None, ran


def test_what_a_stopped_stack_did_not_answer_is_counted(fresh_stack, tmp_path):
    """A stack that is killed in the middle: every POST still has one outcome, and no answer is made up."""
    stack = fresh_stack()
    result = tmp_path / "result.json"
    process = start("run", stack.port, "--rate", 100, "--duration", "10s", "--timeout", "2s", "--result", result, *LENIENT)
    # Written with the first answer.
    wait_for(lambda: "AcceptedEvents" in stack.function_log(INGEST), what="the first answer")
    time.sleep(0.5)
    stack.kill()
    ran = finish(process, result)
    posts = ran.result["posts"]
    assert ran.code == FAIL and posts["planned"] == 1_000, ran
    unanswered = sum(posts["unanswered"].values())
    assert posts["as_expected"] + sum(posts["unexpected"].values()) + unanswered == 1_000
    assert posts["unanswered"]["refused"] > 0 and posts["as_expected"] > 0
    events = ran.result["events"]
    assert events["accepted"] + events["not_stored"] + events["unknown"] == events["sent"] and events["unknown"] > 0


# ---- What it measures ----


def test_a_stall_shows_in_full_though_one_request_alone_was_slow(tmp_path):
    """No coordinated omission: a server that stands still for 1.5 seconds of 6 makes a quarter of the POSTs late, and they
    leave at their times meanwhile."""
    with servers.http1(servers.stall(at=100, seconds=1.5)) as server:
        ran = loadtest("run", server.port, tmp_path, "--rate", 100, "--duration", "6s", "--threshold", "errors=0%",
                       *ONE_EVENT)
        stalled = server.received[100].at
        meanwhile = [post for post in server.received if stalled < post.at < stalled + 1.4]
    assert ran.code == PASS, ran
    assert ran.result["latency"]["p99_us"] > 1_200_000
    # A closed loop would have seen it once in 600, and called the median of that second good.
    assert ran.result["latency"]["p90_us"] > 500_000
    assert len(meanwhile) > 100


@pytest.mark.parametrize("stop, code", [(False, PASS), (True, INVALID)])
def test_a_generator_that_stood_still_does_not_judge_the_system(tmp_path, stop, code):
    result = tmp_path / "result.json"
    with servers.http1() as server:
        process = start("run", server.port, "--rate", 100, "--duration", "8s", "--events-per-post", 1, "--max-lag", "3s",
                        "--result", result)
        if stop:
            wait_for(lambda: len(server.received) > 50)
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(6)
            os.kill(process.pid, signal.SIGCONT)
        ran = finish(process, result)
    assert (ran.code, ran.result["posts"]["as_expected"]) == (code, 800), ran
    if stop:
        assert ran.result["latency"]["p99_us"] > 4_500_000
        assert ran.result["verdict"]["outcome"] == "INVALID" and "INVALID: " in ran.stdout
        assert "behind its plan" in ran.stdout and re.search(r"it used \d\.\d\d cores", ran.stdout)


def test_too_few_connections_are_reported(tmp_path):
    """Two connections at a server that needs a tenth of a second carry 20 POSTs a second, not 60."""
    with servers.http1(lambda _: time.sleep(0.1)) as server:
        ran = loadtest("run", server.port, tmp_path, "--rate", 60, "--duration", "2s", "--connections", 1,
                       "--max-connections", 2, *ONE_EVENT)
    assert ran.code == INVALID and "--max-connections" in ran.stdout, ran
    assert ran.result["generator"]["held_back"] > 50 and ran.result["generator"]["connections_opened"] == 2
    # What waits for a connection is late, though each was answered as fast as the first once it had left.
    assert ran.result["latency"]["p50_us"] > 500_000 > ran.result["service_time"]["p50_us"]


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with servers.http1(lambda _: time.sleep(30)) as server:
        ran = loadtest("run", server.port, tmp_path, "--rate", 20, "--duration", "1s", "--timeout", "1s", *ONE_EVENT)
    assert (ran.code, ran.result["posts"]["unanswered"]) == (FAIL, {"timeout": 20}), ran
    assert ran.result["latency"]["p50_us"] >= 900_000


def test_the_highest_rate_is_found(tmp_path):
    """A server that serves one POST at a time, each for 20 ms, carries fewer than 50 a second."""
    with servers.http1(servers.one_at_a_time(0.02)) as server:
        ran = loadtest("find-max", server.port, tmp_path, "--from", 8, "--to", 1_000, "--duration", "6s",
                       "--threshold", "p99<1500ms", *ONE_EVENT)
    assert ran.code == PASS, ran
    found = ran.result
    assert 24 <= found["highest_passing"] <= 60 and found["limit"] == "system", ran
    assert 1 < found["lowest_not_passing"] / found["highest_passing"] <= 1.05
    rates = [step["rate"] for step in found["steps"]]
    assert rates[:3] == [8, 16, 32] and len(ran.stdout.splitlines()) == len(rates) + 1
    assert {step["result"]["verdict"]["outcome"] for step in found["steps"]} == {"PASS", "FAIL"}


# ---- What it sends ----


def bodies(tmp_path, *arguments):
    with servers.http1() as server:
        # On one connection what was sent first is received first.
        loadtest("run", server.port, tmp_path, "--rate", 100, "--duration", "2s", "--connections", 1, "--max-connections", 1,
                 "--events-per-post", "1..5", "--bad", "10%", "--run-id", "same", *arguments)
        assert len(server.received) == 200
        return server.bodies


def test_the_same_seed_and_run_id_send_the_same_bytes_in_the_same_order(tmp_path):
    first = bodies(tmp_path, "--seed", 7)
    assert bodies(tmp_path, "--seed", 7) == first
    assert bodies(tmp_path, "--seed", 8) != first


def test_posts_are_those_of_players(tmp_path):
    with servers.http1() as server:
        loadtest("run", server.port, tmp_path, "--rate", 200, "--duration", "2s", "--viewers", 40, *ONE_EVENT)
    types = {post.headers["content-type"] for post in server.received}
    assert types == {"application/json", "text/plain;charset=UTF-8", "application/x-ndjson"}
    assert len({post.headers["user-agent"] for post in server.received}) > 5
    sent = b"".join(server.bodies).decode()
    assert len(set(re.findall(r'"viewer_id":"([^"]+)"', sent))) == 40
    assert {"heartbeat", "player_setup", "ad_impression"} <= set(re.findall(r'"type":"([a-z_]+)"', sent))


# ---- How it speaks ----


def test_http_2_by_prior_knowledge_carries_many_posts_on_few_connections(tmp_path):
    with servers.http2() as server:
        ran = loadtest("run", server.port, tmp_path, "--http2", "--rate", 100, "--duration", "2s", "--connections", 2,
                       "--max-connections", 2, *ONE_EVENT)
        assert ran.code == PASS and len(server.received) == 200, ran
    assert (ran.result["plan"]["protocol"], ran.result["generator"]["connections_opened"]) == ("HTTP/2", 2)
    assert {(post.path, post.headers[":scheme"]) for post in server.received} == {("/events", "http")}


@pytest.mark.parametrize("http2", [False, True])
def test_certificates_are_trusted_only_as_configured(tmp_path, http2):
    tls, file = servers.certificate(tmp_path, ["h2"] if http2 else ["http/1.1"])
    few = ["--rate", 50, "--duration", "1s", "--connections", 2, *ONE_EVENT, *(["--http2"] if http2 else [])]
    with servers.http2(tls) if http2 else servers.http1(tls=tls) as server:
        for trust in (["--cacert", file], ["--insecure"]):
            ran = loadtest("run", server.port, tmp_path, *few, *trust, scheme="https")
            assert ran.code == PASS and ran.result["posts"]["as_expected"] == 50, ran
        stranger = loadtest("run", server.port, tmp_path, *few, scheme="https")
    assert stranger.code == COULD_NOT_RUN and "certificate" in stranger.stderr, stranger
    assert len(server.received) == 100


def test_a_connection_that_the_server_closes_after_each_answer_is_no_error(tmp_path):
    """What was kept alive and is closed is replaced: nothing of a POST was sent on it."""
    with servers.http1() as server:
        server.closes = True
        ran = loadtest("run", server.port, tmp_path, "--rate", 50, "--duration", "2s", "--threshold", "errors=0%",
                       *ONE_EVENT)
    assert (ran.code, len(server.received)) == (PASS, 100), ran
    assert ran.result["generator"]["connections_opened"] >= 100


# ---- What it says when it can't ----


@pytest.mark.parametrize("arguments, expected", [
    (["--rate", "fast"], "100..2000"),
    (["--threshold", "p99<50"], "a time has a unit"),
    (["--threshold", "p98<50ms"], "p99.99"),
    (["--thresholds", "/nowhere"], "/nowhere"),
    (["--replay", "/nowhere"], "/nowhere"),
    (["--run-id", "a b"], "letters and digits"),
    (["--rate", "0.001", "--duration", "1s"], "make --duration or --rate larger"),
])
def test_wrong_usage_is_answered_with_what_to_write(tmp_path, arguments, expected):
    ran = loadtest("run", 9, tmp_path, *arguments)
    assert ran.code == COULD_NOT_RUN and expected in ran.stderr and "panicked" not in ran.stderr, ran


def test_an_unreadable_bucket_is_reported_before_anything_is_sent(stack, tmp_path):
    with servers.http1() as server:
        ran = loadtest("run", server.port, tmp_path, "--bucket", "no-such-bucket", "--endpoint-url", stack.aws_address)
    assert ran.code == COULD_NOT_RUN and "no-such-bucket" in ran.stderr and not server.received, ran


def test_without_a_server_there_is_no_verdict(tmp_path):
    with servers.http1() as server:
        port = server.port
    ran = loadtest("run", port, tmp_path)
    assert ran.code == COULD_NOT_RUN and f"127.0.0.1:{port}" in ran.stderr, ran


@pytest.mark.parametrize("command", [[], ["run"], ["find-max"], ["compare"], ["report"]])
def test_help_has_examples(command):
    ran = subprocess.run([BINARY, *command, "--help"], capture_output=True, text=True, check=True)
    assert "Usage" in ran.stdout
    if command in (["run"], ["find-max"]):
        assert "Exit codes" in ran.stdout and "Example" in ran.stdout


def saved(tmp_path, name, command, *arguments, serve=lambda _: None):
    """The result of a run or a search against a server that answers as `serve` lets it."""
    result = tmp_path / f"{name}.json"
    with servers.http1(serve) as server:
        ran = finish(start(command, server.port, "--result", result, "--duration", "1s", *ONE_EVENT, *arguments))
    assert ran.code == PASS, ran
    return result


def compare(*arguments):
    process = subprocess.Popen([BINARY, "compare", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return finish(process)


def test_a_comparison_fails_when_the_ratio_breaks_a_threshold(tmp_path):
    fast = saved(tmp_path, "fast", "run", "--rate", 50)
    slow = saved(tmp_path, "slow", "run", "--rate", 50, serve=lambda _: time.sleep(3))
    page = tmp_path / "comparison.html"
    compared = compare(fast, slow, "--report", page)
    assert compared.code == PASS and "verdict" in compared.stdout, compared
    assert page.read_text().startswith("<!DOCTYPE html>")
    limits = tmp_path / "limits"
    limits.write_text("rate>50%\n")
    assert compare(fast, slow, "--threshold", "p50<1.5", "--thresholds", limits).code == FAIL
    better = compare(slow, fast, "--threshold", "p50<0.9,errors<=1", "--thresholds", limits)
    assert better.code == PASS and "p50<0.9" in better.stdout, better
    invalid = json.loads(fast.read_text())
    invalid["verdict"]["outcome"] = "INVALID"
    (tmp_path / "invalid.json").write_text(json.dumps(invalid))
    assert compare(fast, tmp_path / "invalid.json", "--threshold", "p50<100").code == INVALID
    wrong = compare(fast, slow, "--threshold", "p50<50ms")
    assert wrong.code == COULD_NOT_RUN and "1.1" in wrong.stderr, wrong


def test_searches_are_reported_and_compared_by_their_highest_rate(tmp_path):
    low = saved(tmp_path, "low", "find-max", "--from", 20, "--to", 20)
    high = saved(tmp_path, "high", "find-max", "--from", 20, "--to", 60)
    assert json.loads(high.read_text())["highest_passing"] == 60
    assert compare(low, high, "--threshold", "rate>2").code == PASS
    compared = compare(high, low, "--threshold", "rate>0.9")
    assert compared.code == FAIL and re.search(r"^highest rate that passed +60/s +20/s +0.33$", compared.stdout, re.M), compared
    reported = subprocess.run([BINARY, "report", high], capture_output=True, text=True, check=True)
    page = Path(reported.stdout.strip()).read_text()
    assert page.startswith("<!DOCTYPE html>") and "the highest rate that passed: 60 POSTs/s" in page


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"steps": []}'])
def test_a_file_that_is_not_a_result_is_named(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    for command in (["report", tmp_path / "other.json"], ["compare", tmp_path / "other.json", tmp_path / "other.json"]):
        ran = subprocess.run([BINARY, *command], capture_output=True, text=True)
        assert ran.returncode == COULD_NOT_RUN and "other.json is not a result" in ran.stderr, ran.stderr
