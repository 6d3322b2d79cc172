"""The promises of docs/DELIVERY.md that are about the whole, under injected faults; each test quotes its own."""

import json
import os
import time
import urllib.parse
from collections import defaultdict

import pytest

from support import landed
from support.account import settle
from support.faults import Faults, read_stream
from support.players import Players
from support.stack import INGEST, LANDING, LANDING_BUCKET, LANDING_SECONDS, wait_for

# How long Kinesis, and then S3, are away. `make outage` has them away for two minutes each.
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", 12))


def assert_settled(stack, players, patience=3 * LANDING_SECONDS):
    """Everything on the stream has landed once, and every answer was right."""
    faults = Faults(stack)
    faults.wait_for_held_writes()
    records = read_stream(stack)
    lines = sum(len(record.lines) for record in records)
    wait_for(lambda: landed.from_stream(stack.lines("events"), stack.lines("rejected")) >= lines, patience,
             lambda: f"{lines} lines in files\n{stack.tail()}")
    landed.verify_all(stack)
    account = settle(players, records, faults.stored_unacknowledged(), stack.lines("events"), stack.lines("rejected"))
    print(account)
    assert account.is_good and not account.given_up, account
    return account


def ids_on_stream(stack):
    return {json.loads(line)["id"] for record in read_stream(stack) for line in record.lines}


def test_what_a_2xx_counts_is_on_the_stream_or_in_s3_when_the_answer_comes(fresh_stack):
    """An answer of 2xx means durable in Kinesis or in S3; 503 means that both are away.

    First S3 is away and Kinesis fails in every way it can, so that nothing but the stream can hold the events; then Kinesis
    alone is away, and nothing but S3 can; then both."""
    plan = "seed=3 s3.error=1 kinesis.partial=0.2 kinesis.throttled=0.2 kinesis.error=0.2 kinesis.unanswered=0.1"
    stack = fresh_stack(FAULTS=plan, parameters="BatchingWindowSeconds=0 LandingTimeoutSeconds=5")
    faults, accepted = Faults(stack), 0
    for number in range(30):
        events = [{"id": f"{number}/{n}", "sid": f"s{n}"} for n in range(5)] + [7]
        answer = stack.post(body=json.dumps(events).encode())
        if answer.status == 503:
            continue  # Kinesis failed through all of its time.
        assert (answer.status, answer.json["accepted"], len(answer.json["rejected"])) == (200, 5, 1)
        on_stream = ids_on_stream(stack)
        assert {event["id"] for event in events[:5]} <= on_stream
        accepted += 1
    fired = faults.fired
    assert accepted >= 15, f"only {accepted} of 30 requests were accepted: that is next to nothing"
    for fault in ("kinesis.partial", "kinesis.throttled", "kinesis.error", "kinesis.unanswered"):
        assert fired[fault] > 0, f"{fault} did not fire: {fired}"

    before = ids_on_stream(stack)
    faults.set("kinesis.error=1")
    answer = stack.post(body=json.dumps([{"id": f"spilled/{n}", "sid": f"s{n}"} for n in range(5)] + [7]).encode())
    assert (answer.status, answer.json["accepted"], len(answer.json["rejected"])) == (200, 5, 1)
    in_s3 = {line.json["id"] for line in stack.lines("events") if line.is_spilled}
    assert {f"spilled/{n}" for n in range(5)} == in_s3
    assert [line.json["rejected"]["reason"] for line in stack.lines("rejected") if line.is_spilled] == ["not_an_object"]
    assert ids_on_stream(stack) == before

    faults.set("kinesis.error=1 s3.error=1")
    sent = time.monotonic()
    answer = stack.post(body=b'[{"id":"lost"},7]')
    assert (answer.status, answer.json["not_stored"]) == (503, [0, 1]) and time.monotonic() - sent < 3


def test_ingest_that_is_throttled_while_s3_is_away_names_what_is_not_stored(fresh_stack):
    """An answer of 503 comes before the function's time is up and names the events that are not known to be stored; sending exactly those again stores them.

    Some buckets of keys are on a shard that takes nothing."""
    stack = fresh_stack(FAULTS="kinesis.partial=1 s3.error=1")
    events = [{"id": str(n), "sid": f"session {n}"} for n in range(40)]
    answer = stack.post(body=json.dumps(events).encode())
    assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0, answer
    not_stored = answer.json["not_stored"]
    assert 0 < len(not_stored) < 40 and answer.json["accepted"] == 40 - len(not_stored)
    Faults(stack).end()
    again = stack.post(body=json.dumps([events[index] for index in not_stored]).encode())
    assert (again.status, again.json) == (200, {"accepted": len(not_stored), "rejected": []})
    lines = stack.wait_for_lines(lambda line: True, 40)
    assert sorted(line.json["id"] for line in lines) == sorted(event["id"] for event in events)


def environments_within(stack, function, seconds):
    """The processes that a function has had in this time: those that are idle end, and others begin."""
    until, processes = time.monotonic() + seconds, set()
    while time.monotonic() < until:
        processes.update(stack.function_processes(function))
        time.sleep(0.5)
    return processes


@pytest.mark.parametrize(("fault", "front_door"), [
    pytest.param("kinesis.error=1", "lambda", id="fails"),
    # It stores records all the same, so that they are in both places.
    pytest.param("kinesis.late=1", "lambda", id="answers_too_late"),
    pytest.param("kinesis.late=1", "server", id="answers_the_server_too_late"),
])
def test_kinesis_away_and_then_s3_away_under_traffic(fresh_stack, stalls, fault, front_door):
    """While Kinesis is away events go to S3, and while S3 is away the stream keeps what came: nothing that was answered 2xx is lost.

    Of each environment the first request alone waits for Kinesis, and of the server those of the first records and of the
    probes; with both away players get a 503."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=1 LandingTimeoutSeconds=5", FRONT_DOOR=front_door)
    faults = Faults(stack)
    with Players(stack, players=8, pause=0.2) as players:
        undisturbed = lambda since: [one for one in list(players.times) if one[0] > since and not stalls.disturbed(*one[:2])]
        wait_for(lambda: len(players.accepted) > 200, 60, "traffic")
        began = time.monotonic()
        faults.set(fault)
        environments = environments_within(stack, INGEST, OUTAGE_SECONDS)
        faults.end()
        times = [seconds for _, seconds, _ in undisturbed(began)]
        faults.set("s3.error=1")
        time.sleep(OUTAGE_SECONDS)
        assert {status for _, _, status in undisturbed(began)} == {200}
        both_away = time.monotonic()
        faults.set(f"{fault} s3.error=1")
        time.sleep(min(OUTAGE_SECONDS, 5))
        # Of players that were disturbed all the while, nothing would be known.
        if stalls.disturbed(both_away, time.monotonic() - both_away):
            time.sleep(10)
        faults.end()
        refused = [seconds for _, seconds, status in undisturbed(both_away) if status == 503]
        answered = len(players.accepted)
        wait_for(lambda: len(players.accepted) > answered + 200, 60, "traffic after the outages")
    assert len(times) > 2 * OUTAGE_SECONDS and max(times) < 2.5, (len(times), max(times))
    # Who waits for Kinesis waits 0.68 s; a probe 0.35.
    slow = [seconds for seconds in times if seconds > 0.65]
    # The first records and two probes hold at most a request of each player.
    allowed = len(environments) if front_door == "lambda" else 3 * 8
    assert len(slow) <= allowed, f"{slow} of {len(times)}"
    account = assert_settled(stack, players)
    assert any(line.is_spilled for line in stack.lines("events"))
    # Ingest's patience is 2.9 s, and the last in a row use all of it; the start of a process and this client come on top.
    assert refused and max(refused) < 4, refused


def test_landing_says_at_once_that_s3_is_away(fresh_stack):
    """At the first try that fails, not when the invocation's minute is over, and not again at each of the next."""
    stack = fresh_stack(FAULTS="s3.error=1")
    assert stack.post(body=b"{}").status == 200
    warnings = lambda: [line for line in stack.function_log(LANDING).splitlines() if "WARN" in line and "events/dt=" in line]
    wait_for(warnings, 10, lambda: f"a warning\n{stack.tail()}")
    faults = Faults(stack)
    wait_for(lambda: faults.fired["s3.error"] >= 10, what="more tries that fail")
    assert len(warnings()) == 1, warnings()
    faults.end()
    stack.wait_for_lines(lambda line: True, 1)


def whole_objects(stack):
    """Every object as it is at this moment, with the metadata that belongs to it."""
    s3 = stack.s3()
    for entry in s3.list_objects_v2(Bucket=LANDING_BUCKET, Prefix="events/").get("Contents", []):
        read = s3.get_object(Bucket=LANDING_BUCKET, Key=entry["Key"])
        yield urllib.parse.unquote(entry["Key"]), read["Metadata"], read["Body"].read()


def test_an_object_is_whole_at_any_moment(fresh_stack):
    """While a batch is sent again its object holds the lines of one attempt, whole, as its metadata says; once the batch is acknowledged it holds exactly that batch."""
    plan = "seed=5 mapping.restart=0.5 s3.kill-after=0.05 s3.kill-during=0.05 s3.late=0.05 s3.unanswered=0.1"
    # An attempt replaces other lines only when it is certainly the later one, after ten seconds: many shards at once.
    stack = fresh_stack(FAULTS=plan, parameters="BatchSize=10 BatchingWindowSeconds=0 ShardCount=8")
    versions = defaultdict(set)
    changed = []
    with Players(stack, players=4, pause=0.1) as players:
        started = time.monotonic()
        # For fifteen seconds, and on until some were seen to change: usually that is sooner.
        while (passed := time.monotonic() - started) < 15 or (len(changed) < 3 and passed < 90):
            for key, metadata, body in whole_objects(stack):
                landed.verify_content(metadata, body)
                versions[key].add(metadata["uncompressed-sha256"])
            changed = [key for key, contents in versions.items() if len(contents) > 1]
        Faults(stack).end()
    assert len(changed) >= 3, f"of {len(versions)} objects only {changed} were seen to change: nothing is shown by that"
    assert_settled(stack, players)


def test_what_is_twice_on_the_stream_has_one_id(fresh_stack):
    """What ingest put on the stream twice, because an answer of Kinesis was lost, has one id in both places.

    The events have no ids of their own. Kinesis stores them, and again when ingest makes the call once more; then S3 does."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0")
    # A call that fails is made once more if it failed within 0.1 s, which the first one of a process may not.
    assert stack.post(body=b'{"first":true}').status == 200
    Faults(stack).set("kinesis.unanswered=1")
    assert stack.post(body=json.dumps([{"n": number} for number in range(20)]).encode()).status == 200
    on_stream = [line for record in read_stream(stack) for line in record.lines if "n" in json.loads(line)["event"]]
    assert len(on_stream) == 40, "two answers were lost"
    lines = stack.wait_for_lines(lambda line: "n" in line.json["event"], 60)
    assert sorted(line.json["event"]["n"] for line in lines) == sorted([*range(20)] * 3)
    assert len({line.json["id"] for line in lines}) == 20


def test_a_retry_by_a_player_is_recognised_by_the_id_of_the_event(fresh_stack):
    """A player that sends an event again doubles it, and the event's own id tells."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0")
    for _ in range(2):
        assert stack.post(body=b'{"id":"sent twice"}').status == 200
    assert [line.json["id"] for line in stack.wait_for_lines(lambda line: True, 2)] == ["sent twice"] * 2
