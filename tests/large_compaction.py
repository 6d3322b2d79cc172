"""Compacts one hour with many events, and compares it with DuckDB's COPY of the same lines and with queries on both.

    make large-compaction EVENTS=5000000

The hour's objects are as landing writes them, 2,000 players' events each, one in a hundred of them twice; an S3 in memory has them. What is printed
of CPU is of the whole process, decompression and S3 included; for DuckDB, which reads no bzip2, that of bzcat is added. Where pyspark is installed, Spark counts, too.
"""

import bz2
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet

from support.function import Bucket, etag, running
from support.proxy import Reply
from support.stack import cpu_seconds

PARTITION = "dt=2026-11-16/hour=09"
EVENTS_AN_OBJECT = 2_000
MEMORY_MIB = 3_008
USER_AGENT = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
DUCKDB = Path(sys.executable).parent / "duckdb"
KINDS = ("heartbeat",) * 12 + ("play", "playing", "pause", "rebuffer", "seek", "ad_impression", "ended")


def landed(number):
    """A landed object, its lines and their bytes; the same for the same number."""
    chance = random.Random(number)
    lines = []
    for n in range(EVENTS_AN_OBJECT):
        if n % 100 == 99:
            lines.append(lines[-1])
            continue
        session = f"{chance.getrandbits(64):016x}" if n % 20 == 0 else session
        event = {"type": chance.choice(KINDS), "session_id": session, "position": round(chance.uniform(0, 7200), 3), "bitrate": chance.choice((800, 1600, 3200)) * 1000,
                 "buffer_ms": chance.randrange(30_000), "title": f"title-{chance.randrange(5_000)}", "player": {"name": "example", "version": "4.2.1"}}
        line = {"v": 1, "id": f"01a1f3c2-{chance.getrandbits(16):04x}-7{chance.getrandbits(12):03x}-8{chance.getrandbits(12):03x}-{chance.getrandbits(48):012x}",
                "received_at": f"2026-11-16T09:{n * 60 // EVENTS_AN_OBJECT:02}:{n % 60:02}.{chance.randrange(1_000):03}Z",
                "request_id": f"{chance.getrandbits(128):032x}" if n % 20 == 0 else lines and request, "client": {"user_agent": USER_AGENT}, "event": event}
        request = line["request_id"]
        lines.append(json.dumps(line, separators=(",", ":")))
    text = ("\n".join(lines) + "\n").encode()
    return f"events/{PARTITION}/shardId-000000000000-{10**55 + number}.jsonl.bz2", bz2.compress(text), len(text)


class Hour(Bucket):
    """A bucket that can be listed, and whose objects can't be written twice."""

    def reply_to(self, request):
        url = urlsplit(request.path)
        if "list-type" in url.query:
            prefix = parse_qs(url.query)["prefix"][0]
            entry = "<Contents><Key>{}</Key><ETag>{}</ETag><Size>{}</Size><LastModified>2026-11-16T10:20:00.000Z</LastModified></Contents>"
            listed = "".join(entry.format(key, etag(body), len(body)) for key, body in sorted(self.objects.items()) if key.startswith(prefix))
            return Reply(200, body=f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode())
        key = url.path.split("/", 2)[2]
        if request.method == "PUT" and request.headers.get("if-none-match") and key in self.objects:
            return Reply(412, body=b"<Error><Code>PreconditionFailed</Code></Error>")
        return super().reply_to(request)


def sealed(objects):
    hour = Hour()
    entries = [{"key": key, "bytes": len(body), "records": 100, "lines": EVENTS_AN_OBJECT, "uncompressed_bytes": size,
                "earliest_received_at": "2026-11-16T09:00:00.000Z", "latest_received_at": "2026-11-16T09:59:59.999Z"} for key, body, size in objects]
    manifest = json.dumps({"v": 1, "partition": PARTITION, "objects": entries}).encode()
    received = dict.fromkeys(("previous", "this", "next", "elsewhere"), 0)
    counts = ("objects", "rejected_objects", "unreadable_objects", "overlaps", "records", "events", "rejected", "bytes", "rejected_bytes", "uncompressed_bytes")
    totals = dict.fromkeys(counts, 0) | {"rejected_by_reason": {}, "earliest_received_at": None, "latest_received_at": None,
                                         "events_received_in": received, "rejected_received_in": received}
    success = {"v": 1, "partition": PARTITION, "first_sealed_at": "2026-11-16T10:20:00.000Z", "sealed_at": "2026-11-16T10:20:00.000Z", "late_objects": 0,
               "manifest": etag(manifest), "totals": totals}
    hour.objects = {key: body for key, body, _ in objects} | {f"events/{PARTITION}/_MANIFEST.json": manifest, f"events/{PARTITION}/_SUCCESS": json.dumps(success).encode()}
    return hour


def cpu_of_children(work):
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    found = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - began


def cpu_and_peak(process):
    """Seconds of CPU that a process has used, and its largest resident memory in MiB."""
    peak, = (line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return cpu_seconds(process.pid), int(peak.split()[1]) / 1024


def compact(hour):
    """What `_SUCCESS` says, and CPU, seconds, invocations and peak memory of the function."""
    with running("compact-partition", hour, timeout=900, BUCKET_NAME=hour.name) as function:
        began, invocations = time.monotonic(), 0
        while f"columnar/{PARTITION}/_SUCCESS" not in hour.objects and invocations < 20:
            function.invoke({"time": "2026-11-16T10:35:00Z"})
            invocations += 1
        cpu, peak = cpu_and_peak(function.process)
        return json.loads(hour.objects[f"columnar/{PARTITION}/_SUCCESS"]), cpu, time.monotonic() - began, invocations, peak


def files_in(hour, folder):
    for key, body in hour.objects.items():
        if key.endswith((".bz2", ".parquet")):
            (folder / key.rsplit("/", 1)[1]).write_bytes(body)


COLUMNS = "{v: 'INTEGER', id: 'VARCHAR', received_at: 'TIMESTAMP', request_id: 'VARCHAR', client: 'STRUCT(user_agent VARCHAR, ip VARCHAR)', event: 'JSON'}"
LINES = f"read_json('/dev/stdin', format = 'newline_delimited', columns = {COLUMNS})"


def duckdb(folder, sql, lines=False):
    """Of lines, by bzcat: CPU and seconds of both."""
    command = f"{DUCKDB} -init /dev/null -csv -noheader -c \"{sql}\""
    feed = f"find {folder} -name '*.bz2' -exec bzcat {{}} + | " if lines else ""
    run = lambda: subprocess.run(["bash", "-o", "pipefail", "-c", feed + command], capture_output=True, text=True, check=True).stdout
    return cpu_of_children(run)


BY_SPARK = """
import sys, time
from pyspark.sql import SparkSession
from pyspark.sql.functions import get_json_object
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.driver.memory", "2g").getOrCreate()
spark.range(1000).groupBy("id").count().collect()
lines = spark.read.schema("id STRING, received_at TIMESTAMP, event STRING").json(sys.argv[1] + "/*.bz2")
parquet = spark.read.parquet(sys.argv[1] + "/*.parquet")
for kinds in (lines.groupBy(get_json_object("event", "$.type").alias("type")), parquet.groupBy("type")):
    began = time.monotonic()
    found = kinds.count().collect()
    print(time.monotonic() - began, sum(row["count"] for row in found))
"""


def spark(folder):
    """Seconds and events of the lines, and of Parquet, in one session; None where there is no Spark."""
    if not importlib.util.find_spec("pyspark"):
        return None
    done = subprocess.run([sys.executable, "-c", BY_SPARK, folder], capture_output=True, text=True, check=True)
    return [(float(seconds), int(count)) for seconds, count in map(str.split, done.stdout.splitlines()[-2:])]


def main(events):
    numbers = range(events // EVENTS_AN_OBJECT)
    with Pool() as pool:
        objects = []
        for done, one in enumerate(pool.imap(landed, numbers), 1):
            objects.append(one)
            if done % 250 == 0:
                print(f"\r{done * EVENTS_AN_OBJECT:,} of {events:,} events made", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    lines, size, compressed = len(objects) * EVENTS_AN_OBJECT, sum(one[2] for one in objects), sum(len(one[1]) for one in objects)
    hour = sealed(objects)
    compacted, cpu, seconds, invocations, peak = compact(hour)
    totals, written = compacted["totals"], sum(part["bytes"] for part in compacted["parts"])
    print(f"{lines:,} lines of {size / 2**20:,.0f} MiB, {compressed / 2**20:,.0f} MiB as bzip2 in {len(objects):,} objects")
    print(f"compact-partition: {cpu:.1f} s of CPU, {seconds:.1f} s, {invocations} invocations, peak {peak:,.0f} MiB; {totals['rows']:,} rows, "
          f"{totals['doubled']:,} doubled, {written / 2**20:,.0f} MiB in {len(compacted['parts'])} parts")
    assert totals["lines"] == lines and totals["doubled"] == lines // 100 and totals["rows"] == lines - lines // 100, totals
    assert peak < MEMORY_MIB, peak
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        files_in(hour, folder)
        copy = ("COPY (SELECT v, id, received_at, request_id, client.user_agent, client.ip, event->>'type' AS type, event->>'session_id' AS session_id, event::VARCHAR AS event "
                f"FROM {LINES}) TO '{folder}/floor' (FORMAT parquet, COMPRESSION zstd)")
        _, floor, floor_seconds = duckdb(folder, copy, lines=True)
        print(f"bzcat and DuckDB's COPY, which looks for no doubles: {floor:.1f} s of CPU, {floor_seconds:.1f} s; {(folder / 'floor').stat().st_size / 2**20:,.0f} MiB")
        count = "SELECT {0}, count(*) FROM {1} GROUP BY ALL ORDER BY ALL"
        # Of few events the start of the processes is most of it.
        assert lines < 1_000_000 or cpu < 2 * floor, (cpu, floor)
        by_lines = duckdb(folder, count.format("event->>'type'", LINES), lines=True)
        by_parquet = duckdb(folder, count.format("type", f"'{folder}/*.parquet'"))
        assert lines < 1_000_000 or by_lines[2] > 10 * by_parquet[2], (by_lines[2], by_parquet[2])
        print(f"events by type, DuckDB: lines by bzcat {by_lines[2]:.2f} s, Parquet {by_parquet[2]:.2f} s")
        if by_spark := spark(folder):
            assert [count for _, count in by_spark] == [lines, totals["rows"]], by_spark
            print(f"events by type, Spark, without its start: lines {by_spark[0][0]:.2f} s, Parquet {by_spark[1][0]:.2f} s")
        whole = sum(pyarrow.parquet.ParquetFile(file).metadata.num_rows for file in folder.glob("*.parquet"))
        assert whole == totals["rows"], whole


if __name__ == "__main__":
    main(int(os.environ.get("EVENTS", 5_000_000)))
