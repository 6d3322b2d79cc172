"""compact-partition on the one-machine stack: sealed hours as Parquet, read by those who know nothing of the code."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas
import polars
import pyarrow.parquet
import pytest

from support.fast_clock import START, FastClock, partition
from support.sessions import replay, requests
from support.stack import LANDING_BUCKET, REPOSITORY, Stack, wait_for

REPORTS = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("reports", REPOSITORY / "tools/reports/__main__.py"))
spec.loader.exec_module(REPORTS)
JSON = {"content-type": "application/json"}
DUCKDB = Path(sys.executable).parent / "duckdb"
COLUMNS = ["v", "id", "received_at", "request_id", "user_agent", "ip", "app", "type", "session_id", "event"]
# What breaks readers that infer types, as text: Python's json writes neither number.
HOSTILE = ("""[{"type": "play", "title": "one\u2028line"}, {"type": "play", "n": 1000000000000000000000000000000}, {"Type": 1, "type": 2},
    {"type": ["play"]}, {"type": {"a": 1}}, {"type": null, "e": "x"}, {"n": 1e400, "session_id": 7}, {"id": "", "n": 1.50},
    {"unnamed": true, "digits": %s}]""" % ("1" * 4_000)).encode()


def start_of(hour):
    return datetime.strptime(hour, "dt=%Y-%m-%d/hour=%H").replace(tzinfo=UTC)


def invoke(stack, function, hour, hours):
    """So long after an hour began. By then it is over, and CloudWatch takes no time that is two hours ahead."""
    done = stack.run_script("invoke", function, "--at", f"{start_of(hour) + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}")
    assert done.returncode == 0, done.stdout + done.stderr


def compacted(stack, hour):
    path = stack.data / "s3" / LANDING_BUCKET / "columnar" / hour / "_SUCCESS"
    return json.loads(path.read_text()) if path.exists() else None


def sealed(stack, hour):
    path = stack.data / "s3" / LANDING_BUCKET / "events" / hour / "_SUCCESS"
    return json.loads(path.read_text()) if path.exists() else None


def is_compacted(stack, hour):
    """Whether the newest seal of an hour is in Parquet."""
    seal, columnar = sealed(stack, hour), compacted(stack, hour)
    return seal and columnar and columnar["sealed_at"] == seal["sealed_at"] and columnar


def distinct(lines):
    """The rows that there must be: each id with each of its events."""
    return Counter({(line.json["id"], line.event_text): 1 for line in lines})


def parts(stack, hour):
    return sorted((stack.data / "s3" / LANDING_BUCKET / "columnar" / hour).glob("*.parquet"))


def rows(files):
    """By pyarrow."""
    tables = [pyarrow.parquet.read_table(file).to_pylist() for file in files]
    return Counter((row["id"], row["event"]) for table in tables for row in table)


@pytest.fixture(scope="module")
def hour_of(tmp_path_factory):
    """A stack on which an hour was posted to, sealed and compacted; and which hour."""
    # All of it in one hour.
    left = 3600 - time.time() % 3600
    time.sleep(left if left < 30 else 0)
    stack = Stack(tmp_path_factory.mktemp("compaction"))
    try:
        assert stack.post(body=HOSTILE, headers=JSON).json["accepted"] == 9
        for name in ("mux-embed-session.jsonl", "dashjs-cmcd-v2-session.jsonl"):
            replay(stack, requests(name))
        twice = [{"id": "twice", "n": 1}, {"id": "twice", "n": 1}, {"id": "twice", "n": 2}]
        assert stack.post(body=json.dumps(twice).encode(), headers=JSON | {"user-agent": "a player"}).json["accepted"] == 3
        lines = stack.wait_for_lines(lambda line: True, 9 + 59 + 3)
        hour = stack.landed_files("events")[0].key.removeprefix("events/").rsplit("/", 1)[0]
        invoke(stack, "seal-partition", hour, 1.5)
        wait_for(lambda: is_compacted(stack, hour), what=stack.tail)
        yield stack, hour, lines
    finally:
        assert stack.stop() == 0, stack.tail()


def of_hour(stack, hour):
    return [line for file in stack.landed_files("events") if f"/{hour}/" in file.key for line in stack._lines_of(file)]


def test_rows_are_the_distinct_lines_to_the_byte(hour_of):
    stack, hour, _ = hour_of
    lines, totals = of_hour(stack, hour), compacted(stack, hour)["totals"]
    assert rows(parts(stack, hour)) == distinct(lines)
    assert totals["lines"] == len(lines) and totals["rows"] == len(distinct(lines)) and totals["doubled"] == len(lines) - totals["rows"]
    assert totals["clashing"] == 1 and totals["missing_objects"] == totals["unreadable_objects"] == totals["not_json"] == 0


def test_success_names_each_part_with_its_etag_and_length(hour_of):
    stack, hour, _ = hour_of
    for part in compacted(stack, hour)["parts"]:
        head = stack.s3().head_object(Bucket=LANDING_BUCKET, Key=part["key"])
        assert (head["ETag"], head["ContentLength"]) == (part["etag"], part["bytes"])
        assert head["ContentType"] == "application/vnd.apache.parquet"


def test_the_file_is_what_engines_want(hour_of):
    """zstd, times in UTC, statistics, and a Bloom filter on id."""
    stack, hour, _ = hour_of
    file = pyarrow.parquet.ParquetFile(parts(stack, hour)[0])
    assert file.schema_arrow.names == COLUMNS
    assert str(file.schema_arrow.field("received_at").type) == "timestamp[ms, tz=UTC]"
    group = file.metadata.row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        assert column.compression == "ZSTD" and column.is_stats_set, column.path_in_schema
    out = duckdb(f"SELECT count(*) FROM parquet_metadata('{file_of(stack, hour)}') WHERE bloom_filter_offset IS NOT NULL AND path_in_schema = 'id'")
    assert out == [{"count_star()": file.metadata.num_row_groups}]


def file_of(stack, hour):
    return stack.data / "s3" / LANDING_BUCKET / "columnar" / hour / "*.parquet"


def duckdb(sql):
    done = subprocess.run([DUCKDB, "-init", "/dev/null", "-json", "-c", sql], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "[]")


def test_each_reader_counts_the_same(hour_of):
    """DuckDB, polars, pandas and pyarrow: rows by type. `type` is the promoted field: `type`, else `event`, else mux-embed's and CMCD's `e`."""
    stack, hour, _ = hour_of
    found = duckdb(f"SELECT type, count(*) AS n FROM read_parquet('{file_of(stack, hour)}', hive_partitioning = true) GROUP BY type")
    counts = {row["type"]: row["n"] for row in found}
    files = parts(stack, hour)
    by_polars = dict(polars.concat([polars.read_parquet(file) for file in files]).group_by("type").len().iter_rows())
    by_pandas = pandas.concat([pandas.read_parquet(file) for file in files]).groupby("type", dropna=False).size()
    by_pandas = {None if isinstance(kind, float) else kind: count for kind, count in by_pandas.items()}
    assert counts == by_polars == by_pandas
    assert {"play", "2", '["play"]', "viewstart", "ps"} <= counts.keys() and counts["x"] == 1, counts
    where, = duckdb(f"SELECT DISTINCT dt, hour FROM read_parquet('{file_of(stack, hour)}', hive_partitioning = true)")
    assert f"dt={where['dt']}/hour={int(where['hour']):02}" == hour


def test_the_examples_of_the_page_count_the_same(hour_of, tmp_path):
    stack, hour, _ = hour_of
    page = (REPOSITORY / "docs/READING.md").read_text().split("## Parquet")[1].split("## Lines")[0]
    expected = Counter(row["type"] for file in parts(stack, hour) for row in pyarrow.parquet.read_table(file).to_pylist())
    (tmp_path / "data").symlink_to(stack.data)
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for language, text in blocks:
        command = ["bash", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        path = {"PATH": f"{DUCKDB.parent}:{os.environ['PATH']}", "POLARS_FMT_MAX_ROWS": "-1"}
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for kind in ("viewstart", "ps", "t"):
            assert re.search(rf"\b{kind}\b\W+{expected[kind]}\b", done.stdout), done.stdout


BY_SPARK = """
import json, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
rows = spark.read.parquet(sys.argv[1])
print(json.dumps({"columns": rows.columns, "times": rows.schema["received_at"].dataType.simpleString(),
    "kinds": [[row.type, row["count"]] for row in rows.groupBy("type").count().collect()],
    "events": [row.event for row in rows.select("event").collect()]}))
"""


def test_spark_reads_the_same_rows(hour_of):
    """Spark is too large a download for every run: this is for machines that have it, and Java."""
    pytest.importorskip("pyspark")
    stack, hour, _ = hour_of
    command = [sys.executable, "-c", BY_SPARK, stack.data / "s3" / LANDING_BUCKET / "columnar"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = duckdb(f"SELECT type, event FROM read_parquet('{file_of(stack, hour)}')")
    assert found["columns"] == [*COLUMNS, "dt", "hour"] and found["times"] == "timestamp"
    assert {kind: count for kind, count in found["kinds"]} == Counter(row["type"] for row in expected)
    assert Counter(found["events"]) == Counter(row["event"] for row in expected)


def test_columns_have_what_the_envelope_says(hour_of):
    stack, hour, _ = hour_of
    lines = {(line.json["id"], line.event_text): line.json for line in of_hour(stack, hour)}
    for file in parts(stack, hour):
        for row in pyarrow.parquet.read_table(file).to_pylist():
            line = lines[row["id"], row["event"]]
            assert row["v"] == 1 and row["request_id"] == line["request_id"] and row["app"] is None
            assert row["user_agent"] == line["client"].get("user_agent") and row["ip"] == line["client"].get("ip")
            if row["id"] != "twice":
                assert f"{row['received_at']:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z" == line["received_at"]


def test_what_comes_late_is_added_and_nothing_that_was_read_changes(hour_of):
    """A player's retry and a new event come into the sealed hour: the hour is sealed again, and a part with the new row alone is added."""
    stack, hour, _ = hour_of
    before = {file.name: file.read_bytes() for file in parts(stack, hour)}
    late = [{"id": "twice", "n": 1}, {"id": "late", "n": 1}]
    assert stack.post(body=json.dumps(late).encode(), headers=JSON).json["accepted"] == 2
    stack.wait_for_lines(lambda line: line.json["id"] == "late", 1)
    file, = (file for file in stack.landed_files("events") if any(line.json["id"] == "late" for line in stack._lines_of(file)))
    if f"/{hour}/" not in file.key:
        # The hour is over by now: then it is copied, as whoever restores a file does.
        metadata = stack.s3().head_object(Bucket=LANDING_BUCKET, Key=file.key)["Metadata"]
        key = f"events/{hour}/{file.key.rsplit('/', 1)[1]}"
        stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=file.path.read_bytes(), Metadata=metadata)
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=f"late/{hour}", Body=b"")
    invoke(stack, "seal-partition", hour, 1.6)
    wait_for(lambda: is_compacted(stack, hour), what=stack.tail)
    after = {file.name: file.read_bytes() for file in parts(stack, hour)}
    assert len(after) == len(before) + 1 and before.items() <= after.items()
    assert rows(parts(stack, hour)) == distinct(of_hour(stack, hour))
    added, = pyarrow.parquet.read_table(parts(stack, hour)[-1]).to_pylist()
    assert added["id"] == "late"


def test_what_nobody_asked_for_is_found_by_schedule(hour_of):
    """As if the notice of the seal had been lost, with all that was made of it."""
    stack, hour, _ = hour_of
    made = {file.name: file.read_bytes() for file in parts(stack, hour)}
    for key in [found["Key"] for found in stack.s3().list_objects_v2(Bucket=LANDING_BUCKET, Prefix="columnar/")["Contents"]]:
        if key.endswith(("_SUCCESS", ".parquet")):
            stack.s3().delete_object(Bucket=LANDING_BUCKET, Key=key)
    invoke(stack, "compact-partition", hour, 1.7)
    assert is_compacted(stack, hour)
    assert {file.name: file.read_bytes() for file in parts(stack, hour)} == made
    values = wait_for(lambda: stack.metric("UncompactedHours", start_of(hour), FunctionName="compact-partition"), what=stack.tail)
    assert values[-1] == 0


SPEED = 1440
# COMPACTION_DAYS=3 takes four minutes.
DAYS = int(os.environ.get("COMPACTION_DAYS", 1))
RECORDED = {10: "mux-embed-session.jsonl", 19: "dashjs-cmcd-v2-session.jsonl"}


def test_days_of_doubles_and_late_objects_are_in_parquet_hour_by_hour(fresh_stack):
    """24 hours in a minute. Each hour gets events, some of them sent twice, and clashing ids; some get recorded sessions, twice; landed
    objects are copied into hours that were sealed. Each hour's rows are the distinct lines of its files."""
    clock = FastClock(SPEED)
    stack = fresh_stack(parameters="BatchingWindowSeconds=0 SealGraceMinutes=60 RecencyDueMinutes=150", CLOCK=clock.setting)
    hours = [START + timedelta(hours=number) for number in range(24 * DAYS)]
    connection = stack.connect()
    for number, hour in enumerate(hours):
        while clock.now() < hour + timedelta(minutes=15):
            time.sleep(0.01)
        events = [{"id": f"{number}-{n % 7}", "session_id": f"s-{n % 3}", "n": n % 2} for n in range(20)]
        for _ in range(2):
            assert stack.post(body=json.dumps(events).encode(), headers=JSON, connection=connection).status == 200
        if number % 24 in RECORDED:
            for _ in range(2):
                replay(stack, requests(RECORDED[number % 24]))
    connection.close()
    names = [partition(hour) for hour in hours]
    wait_for(lambda: all(is_compacted(stack, name) for name in names), 60, stack.tail)
    # Objects that come long after: what landed in one hour is copied into another.
    source = stack.landed_files("events")[0]
    body, metadata = source.path.read_bytes(), stack.s3().head_object(Bucket=LANDING_BUCKET, Key=source.key)["Metadata"]
    resealed = [name for day in range(DAYS) for name in names[24 * day + 5:24 * day + 8]]
    for name in resealed:
        key = f"events/{name}/{source.key.rsplit('/', 1)[1]}"
        stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=body, Metadata=metadata)
    late = lambda name: sealed(stack, name)["late_objects"] >= 1 and is_compacted(stack, name)
    wait_for(lambda: all(map(late, resealed)), 60, stack.tail)
    for name in names:
        lines = of_hour(stack, name)
        assert rows(parts(stack, name)) == distinct(lines) and len(lines) > len(distinct(lines)), name
        assert compacted(stack, name)["totals"]["lines"] == len(lines)
    missing = lambda day: REPORTS.hours_not_in_parquet(stack.s3(), LANDING_BUCKET, f"{day:%Y-%m-%d}")
    assert missing(START) == [] and missing(START + timedelta(days=30)) == [f"{number:02}" for number in range(24)]
