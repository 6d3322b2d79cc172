"""load-warehouse as Lambda runs it, against PostgreSQL behind Redshift's Data API: each hour is there once, whatever is killed."""

import io
import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime

import psycopg
import pyarrow
import pyarrow.parquet
import pytest

from support.fast_clock import FastClock
from support.function import KEY, REGION, SECRET, Bucket, etag, refused_start, running
from support.redshift_data import (
    MAX_TEXT_BYTES, RedshiftData, Statement, cut_off_after_taking, refused, running_database, serving_warehouse,
)
from support.stack import FAST, LANDING_BUCKET, REPOSITORY, wait_for, without_aws
from support.traffic import JSON

FUNCTION = "load-warehouse"
WORKGROUP = f"arn:aws:redshift-serverless:{REGION}:123456789012:workgroup/0b1c2d3e-0000-4000-8000-000000000000"
HOUR = "dt=2026-11-21/hour=09"
SUCCESS = f"columnar/{HOUR}/_SUCCESS"
LOAD = f"warehouse/{HOUR}/_LOAD.json"
ROLE = "IAMR:playhead-LoadWarehouseRole-1"
# With one group of parts: LOCK, CREATE, COPY, the check of its rows, DELETE, INSERT, DELETE, INSERT, DROP, and then the commit.
STATEMENTS = 9
TEXTS = ["request_id", "user_agent", "ip", "app"]


@pytest.fixture(scope="module")
def postgres():
    with running_database() as database:
        yield database


@pytest.fixture(scope="module")
def statements():
    """What tools/scripts/warehouse-schema runs on an empty warehouse."""
    return [line.removesuffix(";") for line in schema("http://127.0.0.1:9", "--print").splitlines()]


@pytest.fixture
def warehouse(postgres, statements):
    """An empty warehouse whose COPY reads the test's bucket."""
    bucket = Bucket()
    warehouse = RedshiftData(postgres, lambda name, key: bucket.objects.get(key) if name == bucket.name else None)
    warehouse.bucket = bucket
    with postgres.connect(autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS playhead CASCADE")
        connection.execute(f'DROP USER IF EXISTS "{ROLE}"')
        for sql in statements:
            warehouse.execute(connection, Statement("schema", [sql], None), sql)
    with serving_warehouse(warehouse) as address:
        warehouse.address = address
        yield warehouse


def schema(address, *arguments):
    """Runs tools/scripts/warehouse-schema; what it says."""
    variables = without_aws() | {"AWS_ENDPOINT_URL_REDSHIFT_DATA": address, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
                                 "AWS_DEFAULT_REGION": REGION}
    script = [sys.executable, REPOSITORY / "tools/scripts/warehouse-schema", "--workgroup", WORKGROUP, "--user", ROLE]
    done = subprocess.run([*script, *arguments], env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def loader(warehouse, **variables):
    own = {"BUCKET_NAME": warehouse.bucket.name, "WAREHOUSE_ENDPOINT": warehouse.address, "WAREHOUSE_WORKGROUP": WORKGROUP}
    return running(FUNCTION, warehouse.bucket, **(own | variables))


def event(number, **values):
    return {"v": 1, "id": f"e-{number}", "received_at": datetime(2026, 11, 21, 9, 32, number % 60, 6000, UTC), "type": "play",
            "session_id": f"s-{number % 3}", "event": json.dumps({"number": number})} | values


def part(events, promoted=("type", "session_id")):
    """A part as compact-partition writes it."""
    text = pyarrow.string()
    columns = [("v", pyarrow.int32()), ("id", text), ("received_at", pyarrow.timestamp("ms", tz="UTC")), *((name, text) for name in TEXTS),
               *((name, text) for name in promoted)]
    fields = [pyarrow.field(*column) for column in columns] + [pyarrow.field("event", text, nullable=False)]
    table = pyarrow.Table.from_pylist([{field.name: one.get(field.name) for field in fields} for one in events], pyarrow.schema(fields))
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def compact(bucket, *parts, hour=HOUR, sealed_at="2026-11-21T10:20:00.000Z", **options):
    """An hour as compact-partition leaves it."""
    named, nothing = [], {name: 0 for name in ("doubled", "clashing", "not_json", "lines", "expected_lines", "objects", "missing_objects",
                                               "unreadable_objects")}
    for number, events in enumerate(parts):
        key, file = f"columnar/{hour}/part-{number:05}.parquet", part(events, **options)
        bucket.objects[key] = file
        named.append({"key": key, "etag": etag(file), "bytes": len(file), "rows": len(events)} | nothing)
    rows = sum(one["rows"] for one in named)
    content = {"v": 1, "partition": hour, "sealed_at": sealed_at, "manifest": f'"of-{sealed_at}"', "plans": 1, "parts": named,
               "totals": {"rows": rows} | nothing}
    bucket.objects[f"columnar/{hour}/_SUCCESS"] = json.dumps(content).encode()


def s3_event(bucket, key=SUCCESS):
    entity = {"bucket": {"name": bucket.name}, "object": {"key": key.replace("=", "%3D")}}
    return {"Records": [{"eventTime": "2026-11-21T10:33:00.000Z", "eventName": "ObjectCreated:Put", "s3": entity}]}


def scheduled(at="2026-11-21T10:40:00Z"):
    return {"time": at}


def said(function, metric, values):
    """What a function prints comes a little after its answer."""
    wait_for(lambda: function.metrics(metric) == values, 10, lambda: f"{metric} {values} but {function.metrics(metric)}")


def ids(warehouse):
    """What is in the table of events, and how often."""
    return Counter(one for one, in warehouse.query("SELECT id FROM playhead.events"))


def once(*events):
    return Counter(one["id"] for part in events for one in part)


def loads(warehouse):
    return warehouse.query("SELECT dt::text, hour, etag, rows FROM playhead.loads")


EVENTS = [event(number) for number in range(20)]
LATE = [event(number) for number in range(100, 107)]


def test_a_compacted_hour_is_in_the_table_as_it_is_in_parquet(warehouse):
    """Two parts and one without rows: all columns, and one row of the loads table. What is there is not sent again."""
    bucket = warehouse.bucket
    compact(bucket, EVENTS, LATE, [])
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
        assert warehouse.wait() == ["FINISHED"]
        for _ in range(2):
            function.invoke(scheduled())
        said(function, "FailedLoads", [0, 0])
        said(function, "UnloadedHours", [0, 0])
    names = ["v", "id", "received_at", *TEXTS, "type", "session_id", "event"]
    found = warehouse.query(f"SELECT dt::text, hour, _cut, {', '.join(names)} FROM playhead.events ORDER BY id")
    expected = [("2026-11-21", 9, False, *(one.get(name) for name in names)) for one in sorted(EVENTS + LATE, key=lambda one: one["id"])]
    assert found == [tuple(value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in one) for one in expected]
    assert loads(warehouse) == [("2026-11-21", 9, etag(bucket.objects[SUCCESS]).strip('"'), 27)]
    assert json.loads(bucket.objects[LOAD])["is_committed"] is True
    assert warehouse.calls == ["BatchExecuteStatement", "DescribeStatement"], "the warehouse is left alone"


@pytest.mark.parametrize("killed", range(STATEMENTS + 1))
def test_a_transaction_that_is_killed_at_any_statement_leaves_nothing_and_is_sent_again(warehouse, killed):
    """The connection ends before each statement in turn, and before the commit. The hour was loaded before, with other rows."""
    bucket, postgres = warehouse.bucket, warehouse.database
    compact(bucket, EVENTS)

    def kill(statement):
        with postgres.connect(autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", [statement.backend])

    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
        assert warehouse.wait() == ["FINISHED"]
        compact(bucket, EVENTS, LATE, sealed_at="2026-11-21T11:20:00.000Z")
        warehouse.before = {killed: kill}
        function.invoke(s3_event(bucket))
        assert warehouse.wait() == ["FINISHED", "FAILED"]
        assert ids(warehouse) == once(EVENTS) and [row[-1] for row in loads(warehouse)] == [20]
        warehouse.before = {}
        function.invoke(scheduled())
        said(function, "FailedLoads", [1])
        assert any("the warehouse did not load the hour" in line and "ERROR" in line for line in function.lines)
        assert warehouse.wait()[2:] == ["FINISHED"]
        function.invoke(s3_event(bucket))
    assert ids(warehouse) == once(EVENTS, LATE) and [row[-1] for row in loads(warehouse)] == [27]
    assert json.loads(bucket.objects[LOAD])["is_committed"] is True


@pytest.mark.parametrize("fault", [
    pytest.param(refused("ActiveStatementsExceededException"), id="too many statements"),
    pytest.param(refused("ThrottlingException"), id="throttled"), pytest.param(cut_off_after_taking, id="no answer"),
])
@pytest.mark.parametrize("times", [1, 4])
def test_calls_that_fail_are_made_again(warehouse, fault, times):
    """By the SDK, or by the schedule. A transaction that was taken without an answer is not another one."""
    bucket = warehouse.bucket
    compact(bucket, EVENTS)
    warehouse.faults = [fault] * times
    with loader(warehouse) as function:
        outcomes = []
        for made in [s3_event(bucket), *[scheduled()] * (times + 1)]:
            function.events.put(made)
            outcomes.append(function.answers.get(timeout=60)[0])
        assert outcomes[-2:] == ["response"] * 2
        assert set(warehouse.wait()) == {"FINISHED"} and len(warehouse.statements) == 1
        function.invoke(s3_event(bucket))
    assert not warehouse.faults
    assert ids(warehouse) == once(EVENTS) and len(loads(warehouse)) == 1


def test_a_function_that_is_killed_after_it_sent_sends_the_same(warehouse):
    """Its `_LOAD.json` is missing: the token says that it is the same transaction, and once that is forgotten, the loads table does."""
    bucket = warehouse.bucket
    compact(bucket, EVENTS)
    with loader(warehouse) as function:
        for forgotten in (False, False, True):
            if forgotten:
                warehouse.wait()
                warehouse.forget()
            function.invoke(s3_event(bucket))
            assert warehouse.wait() == ["FINISHED"]
            del bucket.objects[LOAD]
    assert ids(warehouse) == once(EVENTS) and len(loads(warehouse)) == 1


def test_what_the_warehouse_forgot_is_sent_again_and_changes_nothing(warehouse):
    bucket = warehouse.bucket
    compact(bucket, EVENTS)
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
        warehouse.wait()
        before = warehouse.query("SELECT xmin::text FROM playhead.events")
        warehouse.forget()
        function.invoke(scheduled())
        assert warehouse.wait() == ["FINISHED"]
    assert warehouse.query("SELECT xmin::text FROM playhead.events") == before
    assert len(loads(warehouse)) == 1


def at_once(warehouse):
    """An older and a newer transaction for the same hour, sent one after the other; their ends."""
    bucket = warehouse.bucket
    compact(bucket, EVENTS)
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
        compact(bucket, EVENTS, LATE, sealed_at="2026-11-21T11:20:00.000Z")
        function.invoke(s3_event(bucket))
        return warehouse.wait()


class Held:
    """Keeps the transaction that comes first before a statement, until the other one waits or is done."""

    def __init__(self, warehouse, newer_first):
        self.warehouse, self.newer_first = warehouse, newer_first

    def __call__(self, statement):
        sent = list(self.warehouse.statements.values())
        is_first = statement is sent[0]
        if is_first != self.newer_first:
            wait_for(lambda: len(self.warehouse.statements) == 2 and self.other_stands(statement), 30, "the other one")

    def other_stands(self, statement):
        other, = (one for one in self.warehouse.statements.values() if one is not statement)
        if other.status in ("FINISHED", "FAILED"):
            return True
        waiting = self.warehouse.query(f"SELECT wait_event_type FROM pg_stat_activity WHERE pid = {other.backend or 0}")
        return waiting == [("Lock",)]


@pytest.mark.parametrize("newer_first", [False, True])
@pytest.mark.parametrize("statement", [0, 1, 4, 8])
def test_of_two_transactions_at_once_the_newer_one_stays(warehouse, statement, newer_first):
    """The one that has the lock stands still before a statement, while the other waits for it."""
    warehouse.before = {statement: Held(warehouse, newer_first)}
    assert at_once(warehouse) == ["FINISHED", "FINISHED"]
    assert ids(warehouse) == once(EVENTS, LATE) and [row[-1] for row in loads(warehouse)] == [27]


def test_without_the_lock_two_at_once_load_twice(warehouse):
    """That test can fail."""
    warehouse.without = "LOCK TABLE"
    warehouse.before = {STATEMENTS - 1: Held(warehouse, False)}
    statuses = at_once(warehouse)
    assert statuses == ["FINISHED", "FINISHED"] and (ids(warehouse) != once(EVENTS, LATE) or len(loads(warehouse)) > 1)


def test_readers_of_loads_and_loads_do_not_wait_for_each_other(warehouse):
    """One reads for as long as the load takes, and another one while it is under way."""
    bucket, seen = warehouse.bucket, []
    compact(bucket, EVENTS)
    warehouse.before = {STATEMENTS: lambda _: seen.extend(warehouse.query("SELECT count(*) FROM playhead.loads"))}
    with warehouse.database.connect() as reader, loader(warehouse) as function:
        reader.execute("SELECT * FROM playhead.loads")
        function.invoke(s3_event(bucket))
        assert warehouse.wait() == ["FINISHED"] and seen == [(0,)]
    assert len(loads(warehouse)) == 1


def test_an_hour_is_loaded_again_though_it_is_there(warehouse):
    """Rows were changed by hand. The service still knows the first transaction by its token; the hour is months old."""
    bucket = warehouse.bucket
    compact(bucket, EVENTS)
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
        assert warehouse.wait() == ["FINISHED"]
        with warehouse.database.connect(autocommit=True) as connection:
            connection.execute("DELETE FROM playhead.events WHERE id = 'e-1'")
        function.invoke(scheduled())
        function.invoke({"reload": HOUR})
        assert warehouse.wait() == ["FINISHED", "FINISHED"]
        function.invoke(s3_event(bucket))
    assert ids(warehouse) == once(EVENTS) and len(loads(warehouse)) == 1
    load = json.loads(bucket.objects[LOAD])
    assert (load["is_committed"], load["attempt"], load["target"]) == (True, 2, f"{WORKGROUP}/dev/playhead")


def test_an_older_compaction_never_replaces_a_newer_one(warehouse):
    bucket = warehouse.bucket
    compact(bucket, EVENTS, LATE, sealed_at="2026-11-21T11:20:00.000Z")
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
        warehouse.wait()
        compact(bucket, EVENTS)
        function.invoke(s3_event(bucket))
        assert warehouse.wait() == ["FINISHED", "FINISHED"]
    assert ids(warehouse) == once(EVENTS, LATE) and [row[-1] for row in loads(warehouse)] == [27]


def test_other_hours_stay(warehouse):
    bucket = warehouse.bucket
    other = "dt=2026-11-21/hour=08"
    undated = [event(number, received_at=None) for number in range(100, 107)]
    compact(bucket, undated, hour=other)
    compact(bucket, EVENTS)
    with loader(warehouse) as function:
        function.invoke(scheduled())
        assert warehouse.wait() == ["FINISHED", "FINISHED"]
        compact(bucket, EVENTS[:3], sealed_at="2026-11-21T11:20:00.000Z")
        function.invoke(s3_event(bucket))
        warehouse.wait()
    assert ids(warehouse) == once(EVENTS[:3], undated)
    assert warehouse.query("SELECT hour, count(*) FROM playhead.events GROUP BY 1 ORDER BY 1") == [(8, 7), (9, 3)]


def test_texts_that_redshift_does_not_take_are_cut_and_marked(warehouse):
    """65,535 bytes at most, at a character, and no NUL; beside them a part that is loaded as it is."""
    bucket = warehouse.bucket
    long = [event(1, event="é" * MAX_TEXT_BYTES), event(2, type="x" * (MAX_TEXT_BYTES + 1)), event(3, session_id="a\0b"),
            event(4, event="y" * (MAX_TEXT_BYTES - 4)), event(5)]
    compact(bucket, long, LATE)
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
        assert warehouse.wait() == ["FINISHED"]
    found = dict((row[0], row[1:]) for row in warehouse.query("SELECT id, event, type, session_id, _cut FROM playhead.events"))
    assert found["e-1"][0] == "é" * (MAX_TEXT_BYTES // 2) and found["e-1"][-1] is True
    assert found["e-2"][1] == "x" * MAX_TEXT_BYTES and found["e-2"][-1] is True
    assert found["e-3"][2:] == ("a\ufffdb", False)
    assert found["e-4"][0] == long[3]["event"] and found["e-4"][-1] is False
    assert found["e-5"][-1] is False and len(found) == 12
    manifest = json.loads(next(body for key, body in bucket.objects.items() if "/COPY-" in key))
    assert [entry["url"].split("/")[3] for entry in manifest["entries"]] == ["warehouse", "columnar"]
    assert json.loads(bucket.objects[LOAD])["changed_texts"] == 3


def test_a_copy_that_fails_is_reported_and_made_again(warehouse):
    """A part was deleted behind the loader's back; and a column is missing in the table."""
    bucket = warehouse.bucket
    compact(bucket, EVENTS, promoted=("type", "session_id", "title"))
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
        assert warehouse.wait() == ["FAILED"]
        function.invoke(scheduled("2026-11-21T14:40:00Z"))
        said(function, "UnloadedHours", [1])
        assert any("the warehouse did not load the hour" in line and "title" in line for line in function.lines)
        warehouse.wait()
        schema(warehouse.address, "--promoted", "type:type,session_id:session_id,title:media.title")
        function.invoke(scheduled("2026-11-21T14:55:00Z"))
        assert warehouse.wait()[-1] == "FINISHED"
        function.invoke(scheduled("2026-11-21T15:10:00Z"))
        said(function, "UnloadedHours", [1, 1, 0])
    assert ids(warehouse) == once(EVENTS)


def test_rows_that_copy_does_not_take_undo_it(warehouse):
    """COPY says nothing of it: the transaction counts."""
    bucket = warehouse.bucket
    compact(bucket, EVENTS, LATE)
    read = warehouse.read

    def short(name, key):
        body = read(name, key)
        if "/COPY-" in key:
            manifest = json.loads(body)
            return json.dumps({"entries": manifest["entries"][:1]}).encode()
        return body

    warehouse.read = short
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
    assert warehouse.wait() == ["FAILED"]
    assert not ids(warehouse) and not loads(warehouse)


def test_times_that_copy_reads_in_another_unit_undo_it(warehouse):
    """As a COPY would that takes milliseconds for microseconds: as many rows, and other values."""
    bucket = warehouse.bucket
    compact(bucket, EVENTS)
    warehouse.misread = lambda at: datetime.fromtimestamp(at.timestamp() / 1_000, UTC)
    with loader(warehouse) as function:
        function.invoke(s3_event(bucket))
    assert warehouse.wait() == ["FAILED"]
    assert not ids(warehouse) and not loads(warehouse)


def test_the_tables_are_made_once_and_get_new_columns(warehouse):
    """Again without a change, and with a promoted field more; the function's user may do what it needs and no more."""
    with warehouse.database.connect(autocommit=True) as connection:
        connection.execute("DROP SCHEMA playhead CASCADE")
        connection.execute(f'DROP USER "{ROLE}"')
    secret = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:admin-AbCdEf"
    assert "CREATE USER" in schema(warehouse.address, "--secret-arn", secret)
    assert warehouse.logins == {secret}
    before = warehouse.query("SELECT column_name FROM information_schema.columns WHERE table_name = 'events' ORDER BY ordinal_position")
    assert [name for name, in before] == ["dt", "hour", "v", "id", "received_at", *TEXTS, "event", "_cut", "type", "session_id"]
    again = schema(warehouse.address)
    assert "ADD COLUMN" not in again and "CREATE USER" not in again
    assert schema(warehouse.address, "--promoted", "type:type,order:a.b").count("ADD COLUMN") == 1
    after = warehouse.query("SELECT column_name FROM information_schema.columns WHERE table_name = 'events' ORDER BY ordinal_position")
    assert after == [*before, ("order",)]
    with warehouse.database.connect() as connection:
        connection.execute(f'SET ROLE "{ROLE}"')
        connection.execute("LOCK TABLE playhead.load_lock")
        connection.execute("DELETE FROM playhead.events")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP TABLE playhead.events")


@pytest.mark.parametrize(("variables", "named"), [
    ({}, "BUCKET_NAME"), ({"BUCKET_NAME": "b"}, "WAREHOUSE_WORKGROUP"),
    ({"BUCKET_NAME": "b", "WAREHOUSE_WORKGROUP": "w", "WAREHOUSE_CLUSTER": "c"}, "WAREHOUSE_CLUSTER"),
    ({"BUCKET_NAME": "b", "WAREHOUSE_CLUSTER": "c", "WAREHOUSE_SCHEMA": "A b"}, "WAREHOUSE_SCHEMA"),
    ({"BUCKET_NAME": "b", "WAREHOUSE_CLUSTER": "c", "WAREHOUSE_COPY_ROLE": "role"}, "WAREHOUSE_COPY_ROLE"),
    ({"BUCKET_NAME": "b", "WAREHOUSE_CLUSTER": "c", "PROMOTED_FIELDS": "oid:x"}, "PROMOTED_FIELDS"),
])
def test_a_bad_variable_stops_the_start_and_is_named(variables, named):
    assert named in refused_start(FUNCTION, **variables)


def test_what_players_post_is_in_the_warehouse(fresh_stack, postgres):
    """The whole way on the one-machine stack: POSTs, the stream, objects, the seal, Parquet, and rows."""
    stack = None

    def read(name, key):
        path = stack.data / "s3" / name / key
        return path.read_bytes() if name == LANDING_BUCKET and path.is_file() else None

    warehouse = RedshiftData(postgres, read)
    with postgres.connect(autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS playhead CASCADE")
    with serving_warehouse(warehouse) as address:
        schema(address)
        warehouse.statements.clear()
        parameters = f"{FAST} WarehouseWorkgroup={WORKGROUP} WarehouseEndpoint={address}"
        stack = fresh_stack(parameters=parameters, CLOCK=FastClock(360).setting)
        body = json.dumps([{"id": f"e-{number}", "type": "play", "session_id": "s-1"} for number in range(20)] + [7])
        assert stack.post(body=body.encode(), headers=JSON).status == 200
        wait_for(lambda: sum(ids(warehouse).values()) >= 20, 90, lambda: f"20 rows\n{stack.tail()}")
        assert ids(warehouse) == Counter(f"e-{number}" for number in range(20))
        assert warehouse.query("SELECT DISTINCT type, session_id, _cut FROM playhead.events") == [("play", "s-1", False)]
