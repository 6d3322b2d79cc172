"""delete-viewer where something does not go on: the other hours are done, and what was deleted is recorded once."""

import base64
import bz2
import gzip
import hashlib
import io
import json
import sys
import threading
import time
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from botocore.exceptions import ClientError

from support.deletion_model import FIELDS, Deployment, events_of
from support.stack import REPOSITORY, wait_for

sys.path.insert(0, str(REPOSITORY / "tools/delete-viewer"))
sys.path.insert(0, str(REPOSITORY / "tools/scripts"))
import deletion as deletions  # noqa: E402
import lease  # noqa: E402
from landed_object import Problem  # noqa: E402
from lines import Viewer, promoted_fields  # noqa: E402
from rejected import MAX_BODY_BYTES  # noqa: E402

HOURS = [f"dt=2026-11-16/hour={hour:02}" for hour in (9, 10, 11)]
# The module that `python3 tools/delete-viewer` runs.
command = spec_from_file_location("delete_viewer", REPOSITORY / "tools/delete-viewer/__main__.py")
delete_viewer = module_from_spec(command)
command.loader.exec_module(delete_viewer)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    # What is waited for is there within two looks, and a run that holds the lease must get a processor once in four seconds.
    monkeypatch.setattr(deletions, "WAIT_SECONDS", 1)
    monkeypatch.setattr(deletions, "MIN_BEAT_SECONDS", 1)


@pytest.fixture
def deployment():
    deployment = Deployment()
    for hour in HOURS:
        deployment.land(hour, [b"s-1", b"s-2", b"s-1"])
    return deployment


def begun(deployment, reference=None):
    return deletions.Deletion(deployment, Viewer({"session_id": "s-1"}, promoted_fields(FIELDS)), 0.01, reference)


def run(deployment, reference=None):
    """The deletion, and its record."""
    deletion = begun(deployment, reference)
    options = SimpleNamespace(first=None, last=None, yes=True, reference=reference, wanted=deletion.viewer.wanted)
    before = set(records(deployment))
    try:
        delete_viewer.run_recorded(deletion, options)
    finally:
        new, = set(records(deployment)) - before
    return deletion, json.loads(deployment.s3.objects[new])


def finish(deletion, needs):
    for hour in deletion.finish(needs):
        deletion.unmark(hour)


def records(deployment):
    return [key for key in deployment.s3.objects if key.startswith("deletions/2")]


def pending(deployment):
    return [key.removeprefix("deletions/pending/") for key in deployment.s3.objects if key.startswith("deletions/pending/")]


def viewers_in(deployment, hour):
    return [event["session_id"] for event in events_of(deployment.s3.objects[f"events/{hour}/shardId-000000000000-1.jsonl.bz2"])]


def rows_in(deployment, hour):
    return [row["session_id"] for row in deployment.warehouse[hour]]


def test_each_hour_is_deleted_from_lines_parquet_and_the_warehouse(deployment):
    deletion, record = run(deployment, "request 1")
    assert not deletion.refused and not pending(deployment)
    assert [(viewers_in(deployment, hour), rows_in(deployment, hour)) for hour in HOURS] == [(["s-2"], ["s-2"])] * 3
    # Sealing writes Parquet again here, before the hour's is deleted: its rows were found all the same.
    assert record["hours"] == [{"hour": hour, "lines": 2, "rows": 2} for hour in HOURS]
    assert (record["reference"], record["finishes"], record["not_finished"], record["not_deleted"]) == ("request 1", [], [], [])


@pytest.mark.parametrize("broken", ["unsealed", "unloaded"])
def test_an_hour_that_does_not_go_on_keeps_no_other_from_it_and_is_finished_by_the_next_run(deployment, broken):
    getattr(deployment, broken).add(HOURS[1])
    deletion, record = run(deployment, "request 1")
    assert list(deletion.refused) == record["not_finished"] == pending(deployment) == [HOURS[1]]
    assert [rows_in(deployment, hour) for hour in HOURS] == [["s-2"], ["s-1", "s-2", "s-1"], ["s-2"]]
    assert viewers_in(deployment, HOURS[1]) == ["s-2"]

    getattr(deployment, broken).clear()
    deletion, second = run(deployment)
    assert not deletion.refused and not pending(deployment) and rows_in(deployment, HOURS[1]) == ["s-2"]
    assert second["finishes"] == ["request 1"]
    found = [hour for one in (record, second) for hour in one["hours"] if hour["hour"] == HOURS[1]]
    assert (sum(hour.get("lines", 0) for hour in found), sum(hour["rows"] for hour in found)) == (2, 2)


def test_an_hour_whose_compaction_never_ends_is_left_alone_and_the_others_are_done(deployment):
    deployment.uncompacted.add(HOURS[0])
    deployment.seal(HOURS[0])
    deletion, record = run(deployment)
    assert list(deletion.refused) == record["not_deleted"] == [HOURS[0]]
    assert [rows_in(deployment, hour) for hour in HOURS[1:]] == [["s-2"], ["s-2"]]


def test_what_a_killed_run_has_deleted_is_recorded_by_the_next_one(deployment):
    killed = begun(deployment, "request 1")
    killed.delete(killed.find(HOURS[0]))
    _, record = run(deployment, "request 2")
    assert record["hours"] == [{"hour": hour, "lines": 2, "rows": 2} for hour in HOURS]
    assert (record["reference"], record["finishes"]) == ("request 2", ["request 1"])


def test_hours_that_a_run_finished_before_it_was_killed_are_in_its_record(deployment, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    deletion = begun(deployment)
    monkeypatch.setattr(deletion, "unmark", die)
    options = SimpleNamespace(first=None, last=None, yes=True, reference="request 1", wanted={"session_id": "s-1"})
    with pytest.raises(KeyboardInterrupt):
        delete_viewer.run(deletion, options, datetime.now(UTC))
    deletion.lease.stop()
    key, = records(deployment)
    record = json.loads(deployment.s3.objects[key])
    assert record["hours"] == [{"hour": hour, "lines": 2, "rows": 2} for hour in HOURS] and record["not_finished"] == []


def test_a_run_that_fails_records_what_it_deleted(deployment, monkeypatch):
    def fail(*_):
        raise OSError("no network")

    monkeypatch.setattr(deletions.columnar, "write_again", fail)
    with pytest.raises(OSError):
        run(deployment, "request 1")
    key, = records(deployment)
    record = json.loads(deployment.s3.objects[key])
    assert record["hours"] == [{"hour": hour, "rows": 0, "lines": 2} for hour in HOURS] and record["not_finished"] == HOURS
    monkeypatch.undo()
    _, second = run(deployment)
    assert second["hours"] == [{"hour": hour, "rows": 2} for hour in HOURS]


def test_of_two_deletions_at_once_the_one_that_marked_last_unmarks(deployment):
    one, other = begun(deployment), begun(deployment)
    found = one.find(HOURS[0])
    needs = one.delete(found)
    other.begin(other.find(HOURS[0]))
    finish(one, {HOURS[0]: needs})
    assert pending(deployment) == [HOURS[0]]
    finish(other, {HOURS[0]: other.delete(other.find(HOURS[0]))})
    assert pending(deployment) == []


def test_a_second_deletion_at_the_same_time_is_refused_and_what_was_deleted_is_recorded_once(deployment, monkeypatch):
    """It begins while the first is at its first hour, and has deleted lines."""
    refused, write_again = [], deletions.columnar.write_again

    def second(*arguments):
        monkeypatch.setattr(deletions.columnar, "write_again", write_again)
        with pytest.raises(Problem) as problem:
            run_again(deployment)
        refused.append(str(problem.value))
        write_again(*arguments)

    monkeypatch.setattr(deletions.columnar, "write_again", second)
    _, record = run(deployment, "request 1")
    assert len(refused) == 1 and "another deletion is running" in refused[0]
    assert record["hours"] == [{"hour": hour, "lines": 2, "rows": 2} for hour in HOURS] and len(records(deployment)) == 1
    assert lease.KEY not in deployment.s3.objects and pending(deployment) == []


def test_a_run_that_lost_its_lease_touches_no_hour_any_more_and_records_only_its_own(deployment, monkeypatch):
    """Another takes over while it is at its first hour's Parquet."""
    write_again, first, was_written = deletions.columnar.write_again, begun(deployment, "request 1"), []

    def overtaken(stack, hour, *arguments):
        was_written.append(hour)
        monkeypatch.setattr(deletions.columnar, "write_again", write_again)
        first.lease.stop()
        first.lease.is_lost = True
        run_again(deployment)
        write_again(stack, hour, *arguments)

    monkeypatch.setattr(deletions.columnar, "write_again", overtaken)
    options = SimpleNamespace(first=None, last=None, yes=True, reference="request 1", wanted={"session_id": "s-1"})
    with pytest.raises(Problem, match="another may have taken over"):
        delete_viewer.run_recorded(first, options)
    assert was_written == HOURS[:1]
    recorded = [json.loads(deployment.s3.objects[key]) for key in records(deployment)]
    hours = [hour for record in recorded for hour in record["hours"]]
    assert {hour: sum(one.get("lines", 0) for one in hours if one["hour"] == hour) for hour in HOURS} == dict.fromkeys(HOURS, 2)
    assert pending(deployment) == []


def test_a_lease_that_could_not_be_written_in_time_is_not_relied_upon(deployment):
    (held,) = leases(deployment, 1)
    with held:
        held.take()
        put, hangs = deployment.s3.put_object, threading.Event()
        deployment.s3.put_object = lambda **arguments: hangs.wait(10) and put(**arguments)
        time.sleep(lease.CERTAINTY * held.beat_seconds + 0.2)
        with pytest.raises(Problem):
            held.check()
        deployment.s3.put_object = put
        hangs.set()


def run_again(deployment):
    deletion = begun(deployment, "request 2")
    options = SimpleNamespace(first=None, last=None, yes=True, reference="request 2", wanted=deletion.viewer.wanted)
    delete_viewer.run_recorded(deletion, options)


def leases(deployment, count):
    return [lease.Lease(deployment.s3, deployment.s3, "landing", f"run-{number}", 0.2) for number in range(count)]


def test_the_lease_of_a_killed_run_is_taken_over_and_the_killed_one_notices_if_it_lives(deployment):
    killed, other = leases(deployment, 2)
    killed.take()
    killed.stop()
    began = time.monotonic()
    with other:
        other.take()
        assert lease.PATIENCE * other.beat_seconds <= time.monotonic() - began < 10
        killed.over.clear()
        killed.keep()
        with pytest.raises(Problem):
            killed.check()
        other.check()
        killed.__exit__()
        assert other.found()[1] == "run-1", "gave up what another holds"
    assert lease.KEY not in deployment.s3.objects


def test_a_lease_is_kept_over_failures_and_lost_answers(deployment):
    (held,) = leases(deployment, 1)
    put, failures = deployment.s3.put_object, ["500", None]

    def fail(**arguments):
        failure = failures.pop(0) if failures else ""
        if failure:
            raise ClientError({"Error": {"Code": failure}}, "PutObject")
        answer = put(**arguments)
        # The client's second attempt, after an answer that was lost.
        return put(**arguments) if failure is None else answer

    with held:
        held.take()
        deployment.s3.put_object = fail
        wait_for(lambda: held.beats >= 5 or held.is_lost, 10, "beats")
        held.check()
        assert not failures
    assert lease.KEY not in deployment.s3.objects


def test_of_two_that_take_a_lease_at_the_same_moment_one_has_it(deployment):
    first, second = leases(deployment, 2)
    second.found = lambda: (None, None)
    with first, second:
        first.take()
        with pytest.raises(Problem):
            second.take()
        first.check()
        assert first.found()[1] == "run-0"


def test_a_run_that_fails_or_deletes_nothing_leaves_no_lease(deployment, monkeypatch):
    monkeypatch.setattr(deletions.columnar, "write_again", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(deployment)
    assert lease.KEY not in deployment.s3.objects
    monkeypatch.setattr(delete_viewer, "confirm", lambda _: sys.exit("no"))
    with pytest.raises(SystemExit):
        run_again(deployment)
    assert lease.KEY not in deployment.s3.objects


@pytest.mark.parametrize("versions, expected", [([1, 1], (1, 0)), ([1, None], (1, 1))])
def test_events_are_read_from_parquet_only_where_a_row_has_no_envelope(deployment, versions, expected):
    """The second row is of a line that resembles an envelope with one of the viewer's events."""
    events = ['{"session_id":"s-1"}', '{"v":1,"id":7,"event":{"session_id":"s-1"}}']
    rows = [{"v": version, "session_id": viewer, "event": event} for version, viewer, event in zip(versions, ["s-1", None], events)]
    columns = pyarrow.schema([("v", pyarrow.int32()), ("session_id", pyarrow.string()), ("event", pyarrow.string())])
    part = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, columns), part)
    deployment.s3.put_object("columnar/part", part.getvalue())
    listed, = deployment.s3.paginate("columnar/part")[0]["Contents"]
    assert deletions.columnar.rows_of(deployment.s3, "landing", listed, begun(deployment).viewer) == expected


def test_an_hour_that_was_not_sealed_yet_is_sealed_again(deployment):
    """seal-partition may be listing it."""
    for name in ("events", "columnar"):
        deployment.s3.delete_object(f"{name}/{HOURS[0]}/_SUCCESS")
    deployment.unsealed.add(HOURS[0])
    deletion = begun(deployment)
    finish(deletion, {HOURS[0]: deletion.delete(deletion.find(HOURS[0]))})
    assert f"late/{HOURS[0]}" in deployment.s3.objects and pending(deployment) == []


@pytest.mark.parametrize(("says", "invocations", "not_finished"), [(None, 39, []), (None, 40, HOURS[:1]), ("Task timed out", 1, HOURS[:1])])
def test_an_old_hour_that_takes_several_invocations_is_invoked_until_it_is_written(deployment, monkeypatch, says, invocations, not_finished):
    monkeypatch.setattr(deletions.columnar, "ATTEMPTS", 1)
    deployment.unfinished, deployment.says = invocations, says or deployment.says
    deletion, record = run(deployment)
    assert list(deletion.refused) == record["not_finished"] == not_finished
    assert [rows_in(deployment, hour) for hour in HOURS[1:]] == [["s-2"]] * 2


@pytest.mark.parametrize(("said", "source"), [
    (deletions.columnar.UNFINISHED, "loader-lambdas/src/compact_partition.rs"), ("landed-etag", "shared/src/object/metadata.rs")])
def test_the_functions_say_what_is_looked_for(said, source):
    assert f'"{said}"' in (REPOSITORY / source).read_text()


def test_without_a_loader_no_warehouse_is_waited_for():
    deployment = Deployment(has_loader=False)
    deployment.land(HOURS[0], [b"s-1", b"s-2"])
    deletion, _ = run(deployment)
    assert not deletion.refused and not pending(deployment)


def test_a_body_that_can_t_be_searched_is_named_and_all_else_is_deleted(deployment):
    """Anybody may post one."""
    def line(body):
        member = {"reason": "not_json", "body_base64": base64.b64encode(body).decode()}
        return json.dumps({"v": 1, "id": "i", "received_at": "2026-11-16T09:00:00.000Z", "rejected": member}, separators=(",", ":")).encode() + b"\n"

    key = f"rejected/{HOURS[0]}/shardId-000000000000-1.jsonl.bz2"
    bomb, content = line(gzip.compress(bytes(MAX_BODY_BYTES + 1))), line(b"s-1")
    content += bomb
    deployment.s3.put_object(key, bz2.compress(content), Metadata={
        "event-count": "2", "uncompressed-sha256": hashlib.sha256(content).hexdigest(), "received-in": "previous=0,this=2,next=0,elsewhere=0",
        "rejected-reasons": "not_json=2", "earliest-received-at": "2026-11-16T09:00:00.000Z", "latest-received-at": "2026-11-16T09:00:00.000Z"})
    deletion, record = run(deployment)
    assert bz2.decompress(deployment.s3.objects[key]) == bomb
    assert [rows_in(deployment, hour) for hour in HOURS] == [["s-2"]] * 3 and not pending(deployment)
    assert record["not_deleted"] and all(HOURS[0] in name for name in record["not_deleted"])


@pytest.mark.parametrize("value, condition", [
    ("s-1", """DELETE FROM "own"."events" WHERE "session_id" = 's-1';"""),
    ("o'Neil \\", """DELETE FROM "own"."events" WHERE "session_id" = 'o''Neil \\\\';"""),
])
def test_the_statement_for_rows_that_no_hour_in_s3_has_is_printed(deployment, value, condition):
    deployment.output = lambda _: "failed"
    said = delete_viewer.not_reached(deployment, {"WarehouseSchema": "own"}, {"session_id": value})
    assert any(condition in one for one in said), said


@pytest.mark.parametrize("line, is_found", [
    (b'{"type":"t","line_base64":"!"}', False),
    (b'{"type":"t","line_base64":null,"x":"s-1"}', True),
    (b'{"type":"t","x":"s-1"}', True),
    (b'{"type":"t","line_base64":"cy0x"}', True),
    (b"\xff s-1", True),
])
def test_what_a_cluster_refused_is_searched_as_text_if_it_is_not_as_load_search_writes_it(deployment, line, is_found):
    key = f"unloadable/search/events/{HOURS[0]}/x.jsonl.bz2.jsonl"
    deployment.s3.put_object(key, line + b"\n" + b'{"type":"t","line_base64":"eA=="}\n')
    deletion = begun(deployment)
    assert deletion.delete_unloadable(key) == int(is_found)
    assert deployment.s3.objects[key].count(b"\n") == 2 - int(is_found)
    assert deletion.problems == {}
