"""What did not land as it should have is landed again by a command, once, however often that is run."""

import json
import time

import landed
import redrive
from account import settle
from failed_batches import THREE_SECONDS, failed_batches, template_with
from faults import Faults, read_stream
from players import Players
from stack import wait_for

QUICK_TO_FAIL = "BatchSize=5 BatchingWindowSeconds=0 ShardCount=2 LandingTimeoutSeconds=5"


def settled(stack, players):
    """The account of everything on the stream, when it has landed or nothing more comes."""
    records = read_stream(stack)
    return settle(players, records, Faults(stack).stored_untold(), stack.lines("events"), stack.lines("rejected"))


def fail_for_a_while(stack, faults, plan):
    """Traffic while nothing can land, until batches are given up; then everything works again."""
    faults.set(plan)
    with Players(stack, players=4, pause=0.2) as players:
        wait_for(lambda: len(failed_batches(stack)) >= 6, 60, lambda: f"six failed batches\n{stack.tail()}")
        faults.end()
        answered = len(players.accepted)
        wait_for(lambda: len(players.accepted) > answered + 100, what="traffic after the faults")
    return players


def test_batches_that_were_given_up_are_landed_once_also_when_killed_half_way_and_run_twice(fresh_stack, tmp_path):
    """A batch that could not land for six days is kept whole, the next ones go on, and redriving it lands its records exactly once.

    The limit is three seconds here, and the mapping restarts now and then, so that batches are given up more than
    once and cut at different places."""
    stack = fresh_stack(template=template_with(tmp_path, THREE_SECONDS), parameters=QUICK_TO_FAIL)
    faults = Faults(stack)
    players = fail_for_a_while(stack, faults, "seed=7 s3.error=1 mapping.restart=0.3")
    last = players.accepted[-1]
    stack.wait_for_lines(lambda line: line.json["id"] == last, 1, timeout=60)
    assert settled(stack, players).missing, "the given-up batches should not have landed yet"
    kill_half_way(stack)
    # Right after an attempt it is not yet certain which came later; the command then says "redrive again".
    wait_for(lambda: redrive.run(stack, *redrive.BATCHES)[0] == 0, 60, lambda: redrive.run(stack, *redrive.BATCHES))
    assert redrive.run(stack, *redrive.BATCHES) == (0, "0 of 0 batches are landed and removed, 0 are left\n")
    assert failed_batches(stack) == {}
    account = settled(stack, players)
    assert account.is_good, account
    landed.verify_all(stack)


def kill_half_way(stack):
    with redrive.start(stack, *redrive.BATCHES) as process:
        for _ in range(2):
            print(process.stdout.readline(), end="")
        process.kill()
    assert failed_batches(stack), "it was killed too late to prove anything"


def redriven(stack):
    return [line for file in stack.landed_files("events") if file.key.endswith("-redriven.jsonl.bz2")
            for line in landed.read_lines(file.path)]


def test_rejected_bodies_are_landed_after_a_fix_and_stay_where_they_are(fresh_stack):
    """Rejected input can be read again after a fix, and what is found in it lands once, beside what stays rejected.

    Players called JSON lines by a name of their own; one body is so large that it is kept in parts."""
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 ShardCount=4")
    small = [{"id": f"small-{number}", "n": number} for number in range(3)] + [{"without": "an id"}]
    large = [{"id": f"large-{number}", "text": "x" * 50_000} for number in range(40)]
    for events in (small, large):
        body = "\n".join(map(json.dumps, events)).encode()
        assert stack.post(body=body, headers={"content-type": "application/vnd.player+lines"}).status == 415
    before = stack.wait_for_lines(lambda line: True, 4, prefix="rejected")
    time.sleep(1)
    date = before[0].json["received_at"][:10]
    command = redrive.rejected(
        f"rejected/dt={date}/", "--reasons", "unsupported_content_type", "--content-type", "application/x-ndjson"
    )
    texts = []
    for _ in range(2):
        code, output = redrive.run(stack, *command)
        assert code == 0, output
        texts.append(sorted(line.text for line in redriven(stack)))
    assert texts[0] == texts[1]
    events = [line.json["event"] for line in redriven(stack)]
    assert sorted(map(json.dumps, events)) == sorted(map(json.dumps, small + large))
    ids = {line.json["id"] for line in redriven(stack)}
    assert len(ids) == 44 and {"small-0", "large-39"} < ids
    assert {one.reason for one in landed.rejected(stack.lines("rejected"))} == {"unsupported_content_type"}
    for file in stack.landed_files("events"):
        head = stack.s3().head_object(Bucket="landing-bucket", Key=file.key)["Metadata"]
        assert head["event-count"] == str(len(landed.read_lines(file.path)))


def test_what_is_no_good_is_named_and_nothing_is_removed(fresh_stack):
    """Reasons that are none, prefixes that hold something else, and documents that are no batches are said plainly,
    and are left where they are."""
    stack = fresh_stack()
    code, output = redrive.run(stack, *redrive.rejected("rejected/dt=2026-11-21/", "--reasons", "no_such_reason"))
    assert code == 1 and "no_such_reason" in output and "invalid_json" in output
    code, output = redrive.run(stack, *redrive.rejected("events/", "--reasons", "invalid_json"))
    assert code == 1 and "--prefix" in output
    key = "aws/lambda/mapping/shardId-000000000000/2026/11/21/x"
    stack.s3().put_object(Bucket=redrive.FAILED_BATCHES_BUCKET, Key=key, Body=b"{}")
    code, output = redrive.run(stack, *redrive.BATCHES)
    assert code == 1 and key in output and "LEFT" in output
    assert len(stack.s3().list_objects_v2(Bucket=redrive.FAILED_BATCHES_BUCKET)["Contents"]) == 1
