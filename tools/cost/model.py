"""What traffic becomes on its way, and what it costs there.

A bill is a dictionary of US dollars a month by what they are for. CPU times and compression are what `make bench` measured
(docs/measured.json); everything else says where it comes from, or that it is assumed.
"""

import json
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import charges
import server
from prices import (ALARM_MONTH, DASHBOARD_MONTH, DAYS_A_MONTH, GB, LAMBDA_GB_SECOND, LAMBDA_REQUEST, LOG_EVENT_OVERHEAD,
                    LOG_GB_BYTES, METRIC_MONTH, METRICS_REQUEST, S3_READ, S3_WRITE, SNS_PUBLISH, SQS_REQUEST)

SECONDS_A_DAY = 24 * 60 * 60

# ---- Measured by `make bench` ----

_ROWS = {row["workload"]: row for row in json.loads(
    (Path(__file__).parents[2] / "docs/measured.json").read_text())["rows"]}


def line_through(small, large):
    """What an invocation costs that is given nothing, and what each byte adds, from two points."""
    (few, little), (many, much) = small, large
    a_byte = (much - little) / (many - few)
    return little - few * a_byte, a_byte


def cpu(workload):
    """Bytes of the input, and seconds of CPU."""
    row = _ROWS[workload]
    return row["input_bytes"], row["costs"]["rust"]["cpu_us"] / 1e6


def on_stream(workload):
    """Bytes of the lines that a POST became, and of the record that holds them, compressed."""
    row = _ROWS[workload]
    return row["input_bytes"] + row["events"] * ENVELOPE_BYTES, row["costs"]["rust"]["stored_bytes"]


# The envelope and the line feed, with ids of 36 bytes and a desktop browser's user agent of 101 bytes. Counted by a test.
ENVELOPE_BYTES = 280
INGEST_CPU, INGEST_CPU_A_BYTE = line_through(cpu("ingest_one"), cpu("ingest_twenty"))
LANDING_CPU, LANDING_CPU_A_BYTE = line_through(cpu("landing_small"), cpu("landing_frames"))
RECORD_BYTES, RECORD_BYTES_A_BYTE = line_through(on_stream("ingest_one"), on_stream("ingest_twenty"))
COMPRESSION = _ROWS["landing_small"]["input_bytes"] / _ROWS["landing_small"]["costs"]["rust"]["stored_bytes"]

# ---- Counted by tests ----

# Lines of metrics, with the long name of a deployed function.
FUNCTION_NAME = 45
INGEST_LINE, LANDING_LINE = 375 + FUNCTION_NAME, 955 + FUNCTION_NAME
# A line of the HTTP API's access log in template.yaml's format.
ACCESS_LOG_LINE = 164
# Seconds between an environment's lines of metrics, while it is busy.
METRICS_SECONDS = 10
# CloudWatch bills an alarm for each metric that it watches.
ALARMS, ALARM_METRICS = 72, 89
# Custom metrics with data in every hour (docs/METRICS.md).
STEADY_METRICS = 41
# Hours that are sealed, and their date.
PARTITIONS_A_DAY = 25

# ---- Measured by `make large-compaction` (docs/PERFORMANCE.md) ----

# Of lines, decompression included.
COMPACTION_CPU_A_BYTE = 20.4e-9
PARQUET_TO_BZIP2 = 1.1

# ---- Measured beside the tests' search cluster, without TLS ----

# Of load-search for lines, decompression included.
SEARCH_CPU_A_BYTE = 61e-9

# ---- Assumed ----

# Until a search cluster answers a _bulk request: of many MB, and of the least.
SEARCH_SECONDS_A_BYTE, SEARCH_SECONDS = 0.1e-6, 0.05

# Of load-warehouse for lines: it decodes the Parquet that compaction made of them, and writes none.
WAREHOUSE_CPU_A_BYTE = COMPACTION_CPU_A_BYTE / 4
# GETs of COPY for each hour, billed to the bucket.
COPY_READS = 200

# Lambda's processors, of either architecture, take half as long again as the bench's.
SLOWER = 1.5
PUT_RECORDS_SECONDS = 0.015
PUT_OBJECT_SECONDS = 0.040
# What Lambda itself takes of an invocation.
INVOCATION_SECONDS = 0.001
# Batches of which S3 is asked twice, with a HEAD and another PUT.
RETRIED = 0.001
# An answer with its headers.
ANSWER_BYTES = 500

# ---- Limits of AWS, and template.yaml's sizes ----

MAX_RECORD_BYTES = 2**20
# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
SHARD_BYTES_A_SECOND = 2**20
SHARD_RECORDS_A_SECOND = 1_000
# What landing, which takes one batch of a shard at a time, takes a second of the worst lines (docs/PERFORMANCE.md).
SHARD_LINE_BYTES_A_SECOND = 5_000_000
# The mapping hands over at most 6 MiB of base64.
# https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-create.html
MAX_BATCH_BYTES = 6 * 2**20 * 3 / 4
# A whole vCPU: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
VCPU_MB = 1_769
INGEST_MB, LANDING_MB, COMPACTION_MB, SEARCH_MB, WAREHOUSE_MB = 256, VCPU_MB, 3_008, 512, 3_008
HOURS_A_DAY = 24
# cron(5/15 * * * ? *)
RUNS_OF_COMPACTION_A_DAY = 96
# load-search takes so many objects an invocation, or what comes in its window; Lambda's five pollers ask the queue every 20 s.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
SEARCH_BATCH, SEARCH_WINDOW_SECONDS = 10, 5
POLLS_A_DAY = 5 * SECONDS_A_DAY / 20
# Each unit of concurrency takes ten requests a second, however short they are:
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
REQUESTS_A_UNIT = 10
# Firehose's defaults: https://docs.aws.amazon.com/firehose/latest/APIReference/API_BufferingHints.html
FIREHOSE_BUFFER_BYTES = 5 * 2**20
FIREHOSE_BUFFER_SECONDS = 300
# The shortest, and the default: https://docs.aws.amazon.com/streams/latest/dev/data-delivery-concepts.html
DELIVERY_SECONDS = 300


@dataclass(frozen=True)
class Traffic:
    """What players send in a day."""
    events: float = 100_000_000
    events_a_post: int = 20
    # As posted. The recorded sessions in tests/fixtures have 280 on average.
    bytes_an_event: int = 300
    # The busiest second against the mean: what the stream is sized for.
    peak: float = 10

    @property
    def posts(self):
        return self.events / self.events_a_post

    @property
    def posts_a_second(self):
        """On average."""
        return self.posts / SECONDS_A_DAY

    @property
    def body_bytes(self):
        """A JSON array."""
        return self.events_a_post * (self.bytes_an_event + 1) + 1


@dataclass(frozen=True)
class Deployment:
    """Parameters of template.yaml that change the bill, with its defaults."""
    front_door: str = "FunctionUrl"  # or HttpApi, or Server
    stream_mode: str = "PROVISIONED"
    batch_size: int = 100
    window_seconds: float = 5
    compression: str = "zstd"
    event_format: str = "envelope"
    architecture: str = "arm64"


@dataclass(frozen=True)
class Records:
    """What is put on a stream in a day."""
    count: float
    size: float  # bytes of one
    lines: float  # bytes of one's lines

    @property
    def bytes(self):
        return self.count * self.size

    @property
    def line_bytes(self):
        return self.count * self.lines


# ---- What traffic becomes ----

def packed(traffic, deployment):
    """The events of a POST, which are of one session, in as few records as fit, compressed where that is smaller. The server's records
    hold several POSTs."""
    line = line_bytes(traffic, deployment)
    records_a_post = ceil(traffic.events_a_post / max(1, MAX_RECORD_BYTES // line))
    if deployment.front_door == "Server" and records_a_post == 1:
        return grouped(traffic, deployment)
    lines = traffic.events_a_post * line / records_a_post
    compressed = min(lines, compressed_bytes(lines))
    return Records(traffic.posts * records_a_post, compressed if deployment.compression == "zstd" else lines, lines)


def line_bytes(traffic, deployment):
    return traffic.bytes_an_event + (ENVELOPE_BYTES if deployment.event_format == "envelope" else 1)


def compressed_bytes(lines):
    """Of lines of one session."""
    return RECORD_BYTES + RECORD_BYTES_A_BYTE * lines


def grouped(traffic, deployment):
    """Records of several POSTs, each of another session."""
    line = line_bytes(traffic, deployment)
    posts = server.posts_a_record(traffic, line, server_tasks(traffic))
    lines = posts * traffic.events_a_post * line
    firsts, others = server.grouped_bytes(posts, line), posts * RECORD_BYTES_A_BYTE * (traffic.events_a_post - 1) * line
    compressed = min(lines, firsts + others)
    return Records(traffic.posts / posts, compressed if deployment.compression == "zstd" else lines, lines)


def server_tasks(traffic):
    """That run on average. Fargate's processors are as slow as Lambda's."""
    return server.tasks(server.cpu_seconds(traffic) * SLOWER, server.connections(traffic).active)


def at_peak(traffic):
    return replace(traffic, events=traffic.events * traffic.peak, peak=1)


def shards_needed(traffic, deployment):
    """For the peak, at which the server's records are larger."""
    peak = at_peak(traffic)
    return shards(packed(peak, deployment), peak)


def shards(records, traffic):
    """As many as the peak needs."""
    a_second = traffic.peak / SECONDS_A_DAY
    return max(1, ceil(records.count * a_second / SHARD_RECORDS_A_SECOND),
               ceil(records.bytes * a_second / SHARD_BYTES_A_SECOND),
               ceil(records.line_bytes * a_second / SHARD_LINE_BYTES_A_SECOND))


def open_shards(needed, deployment):
    """On demand, a stream has room for twice its peak and never fewer than four shards.
    https://docs.aws.amazon.com/streams/latest/dev/how-do-i-size-a-stream.html"""
    return max(4, 2 * needed) if deployment.stream_mode == "ON_DEMAND" else needed


def batches(records, needed, deployment):
    """A batch ends when it is full or its window is over, whichever comes first; none is empty."""
    full = records.count / min(deployment.batch_size, max(1, MAX_BATCH_BYTES // records.size))
    # Without a window the mapping still looks once a second.
    windows = open_shards(needed, deployment) * SECONDS_A_DAY / max(1, deployment.window_seconds)
    return min(records.count, max(full, windows))


def requests_a_second(traffic):
    """At the peak."""
    return traffic.posts_a_second * traffic.peak


def concurrency(traffic):
    """What ingest needs at the peak."""
    a_second = requests_a_second(traffic)
    return ceil(max(a_second * ingest_seconds(traffic), a_second / REQUESTS_A_UNIT))


def ingest_seconds(traffic):
    on_cpu = (INGEST_CPU + INGEST_CPU_A_BYTE * traffic.body_bytes) * SLOWER * VCPU_MB / INGEST_MB
    return on_cpu + PUT_RECORDS_SECONDS + INVOCATION_SECONDS


def landing_seconds(batch_bytes):
    on_cpu = (LANDING_CPU + LANDING_CPU_A_BYTE * batch_bytes) * SLOWER * VCPU_MB / LANDING_MB
    return on_cpu + PUT_OBJECT_SECONDS + INVOCATION_SECONDS


# ---- Bills ----

def playhead(traffic, deployment):
    return data_path(traffic, deployment) | {"monitoring": monitoring(traffic, deployment) * DAYS_A_MONTH}


def playhead_without_monitoring(traffic, deployment):
    return data_path(traffic, deployment)


def break_even(traffic, deployment, other):
    """Events a day from which the other is cheaper: between what it is too small for and far more than anybody has."""
    low, high = 1e5, 1e11
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        found = replace(traffic, events=middle)
        is_cheaper = sum(playhead(found, other).values()) < sum(playhead(found, deployment).values())
        low, high = (low, middle) if is_cheaper else (middle, high)
    return high


def firehose_behind_function(traffic, deployment):
    """The same ingest, which puts the lines into Firehose as they are: it knows neither frames nor bzip2. Its files are gzip."""
    records = packed(traffic, replace(deployment, compression="off"))
    objects = max(records.bytes / FIREHOSE_BUFFER_BYTES, SECONDS_A_DAY / FIREHOSE_BUFFER_SECONDS) * DAYS_A_MONTH
    return (front_door(traffic, deployment) | ingest(traffic, deployment)
            | {"Firehose": charges.firehose(records), "S3: PUT": objects * S3_WRITE}
            | files(records) | answers(traffic, deployment))


def delivery_behind_function(traffic, deployment):
    """The same ingest, and Kinesis' own delivery of a stream on demand to S3, of lines as they are."""
    records = packed(traffic, replace(deployment, compression="off"))
    objects = SECONDS_A_DAY / DELIVERY_SECONDS * DAYS_A_MONTH
    return (front_door(traffic, deployment) | ingest(traffic, deployment) | charges.delivered_stream(records)
            | {"S3: PUT": objects * S3_WRITE} | files(records) | answers(traffic, deployment))


def data_path(traffic, deployment):
    records = packed(traffic, deployment)
    return (front_door(traffic, deployment) | ingest(traffic, deployment) | kinesis(records, traffic, deployment)
            | landing(records, traffic, deployment) | files(records) | answers(traffic, deployment))


def in_clickstream_scope(traffic, deployment):
    """What AWS' figure for Clickstream Analytics counts: load balancer, servers, stream and S3. Landing is ours alone."""
    counted = ("front door", "ingest", "Kinesis", "landing", "S3")
    return {part: usd for part, usd in data_path(traffic, deployment).items() if part.startswith(counted)}


# ---- Parts of bills ----

def front_door(traffic, deployment):
    if deployment.front_door == "FunctionUrl":
        return {"front door": 0}
    if deployment.front_door == "Server":
        return server.front_door(traffic, server_tasks(traffic))
    posts = traffic.posts * DAYS_A_MONTH
    return {"front door": charges.http_api(posts, traffic.body_bytes) + charges.logs(log_gb(posts, (ACCESS_LOG_LINE,)))}


def ingest(traffic, deployment):
    if deployment.front_door == "Server":
        return server.ingest(server_tasks(traffic), deployment.architecture)
    posts = traffic.posts * DAYS_A_MONTH
    return {
        "ingest: requests": posts * LAMBDA_REQUEST,
        "ingest: duration": charges.duration(posts, ingest_seconds(traffic), INGEST_MB, deployment.architecture),
    }


def kinesis(records, traffic, deployment):
    if deployment.stream_mode == "ON_DEMAND":
        return charges.on_demand_stream(records)
    return charges.provisioned_stream(records, shards_needed(traffic, deployment))


def landing(records, traffic, deployment):
    count = batches(records, shards_needed(traffic, deployment), deployment) * DAYS_A_MONTH
    seconds = landing_seconds(records.line_bytes * DAYS_A_MONTH / count)
    return {
        "landing: requests and duration":
            count * LAMBDA_REQUEST + charges.duration(count, seconds, LANDING_MB, deployment.architecture),
        "S3: PUT, and a HEAD now and then": count * ((1 + RETRIED) * S3_WRITE + RETRIED * S3_READ),
    }


def files(records):
    return {"S3: a month's files": charges.storage(records.line_bytes * DAYS_A_MONTH / COMPRESSION / GB)}


def parquet(traffic, deployment):
    """What compact-partition adds. It is in no bill beside it: Firehose's and Kinesis' deliveries in these numbers write none."""
    records = packed(traffic, deployment)
    objects = batches(records, shards_needed(traffic, deployment), deployment)
    # Both of its processors work, but for the ends of parts.
    seconds = records.line_bytes * COMPACTION_CPU_A_BYTE * SLOWER / (COMPACTION_MB / VCPU_MB) / HOURS_A_DAY
    # Each run of the schedule reads two _SUCCESS of every hour of two days, each hour's first of eight.
    reads = objects + 2 * (HOURS_A_DAY * 192 + (RUNS_OF_COMPACTION_A_DAY - HOURS_A_DAY) * 48)
    stored = records.line_bytes * DAYS_A_MONTH / COMPRESSION * PARQUET_TO_BZIP2 / GB
    return {
        "Parquet: duration": charges.duration(HOURS_A_DAY * DAYS_A_MONTH, seconds, COMPACTION_MB, deployment.architecture),
        "Parquet: GETs of the files, and runs": (reads * S3_READ + RUNS_OF_COMPACTION_A_DAY * 2 * LAMBDA_REQUEST) * DAYS_A_MONTH,
        "Parquet: a month's files": charges.storage(stored),
    }


def search(traffic, deployment):
    """What load-search adds, without the cluster. In no bill beside it."""
    records = packed(traffic, deployment)
    objects = batches(records, shards_needed(traffic, deployment), deployment)
    count = max(objects / SEARCH_BATCH, min(objects, SECONDS_A_DAY / SEARCH_WINDOW_SECONDS))
    on_cpu = records.line_bytes * SEARCH_CPU_A_BYTE * SLOWER * VCPU_MB / SEARCH_MB
    waits = objects * SEARCH_SECONDS + records.line_bytes * SEARCH_SECONDS_A_BYTE
    seconds = (on_cpu + waits) / count + INVOCATION_SECONDS
    # A message is sent, received and deleted; the last two for all of an invocation at once.
    requests = objects + 2 * count + POLLS_A_DAY
    count, requests = count * DAYS_A_MONTH, requests * DAYS_A_MONTH
    return {
        "search: requests and duration": count * LAMBDA_REQUEST + charges.duration(count, seconds, SEARCH_MB, deployment.architecture),
        "search: the queue's requests": requests * SQS_REQUEST,
        "search: GETs of the files": objects * DAYS_A_MONTH * S3_READ,
    }


def warehouse(traffic, deployment):
    """What load-warehouse adds, without the warehouse. In no bill beside it."""
    line_bytes = packed(traffic, deployment).line_bytes
    # On one of its processors.
    seconds = line_bytes * WAREHOUSE_CPU_A_BYTE * SLOWER / HOURS_A_DAY
    # The schedule reads _SUCCESS and _LOAD.json as compaction's reads two _SUCCESS.
    reads = 2 * (HOURS_A_DAY * 192 + (RUNS_OF_COMPACTION_A_DAY - HOURS_A_DAY) * 48) + HOURS_A_DAY * COPY_READS
    # COPY's manifest, and _LOAD.json when it is sent and when it is there.
    writes, runs = 3 * HOURS_A_DAY, HOURS_A_DAY + RUNS_OF_COMPACTION_A_DAY
    return {
        "warehouse: duration": charges.duration(HOURS_A_DAY * DAYS_A_MONTH, seconds, WAREHOUSE_MB, deployment.architecture),
        "warehouse: GETs, PUTs and runs": (reads * S3_READ + writes * S3_WRITE + runs * LAMBDA_REQUEST) * DAYS_A_MONTH,
    }


def answers(traffic, deployment):
    if deployment.front_door == "Server":
        return {"answers to the Internet": charges.internet(server.sent_gb(traffic))}
    return {"answers to the Internet": charges.internet(traffic.posts * DAYS_A_MONTH * ANSWER_BYTES / GB)}


def log_gb(times, line_bytes):
    return times * sum(size + LOG_EVENT_OVERHEAD for size in line_bytes) / LOG_GB_BYTES


# ---- Monitoring, a day ----

@dataclass(frozen=True)
class Check:
    """What a check does in a day. The checks' own tests count its requests; its seconds, mostly S3's answers, are assumed."""
    name: str
    runs: float
    seconds: float  # of a run
    reads: float  # GET and HEAD
    lists: float  # LIST and PUT
    metrics: float  # requests to CloudWatch
    gb: float = 128 / 1024

    @property
    def usd(self):
        return (self.runs * (LAMBDA_REQUEST + self.seconds * self.gb * LAMBDA_GB_SECOND) + self.reads * S3_READ
                + self.lists * S3_WRITE + self.metrics * METRICS_REQUEST)


def checks(objects, shards_open):
    minutes, week = 24 * 60, 7 * 24
    deletion_lists = 4 * (7 * objects / 1_000 + 2 * week)
    return [
        Check("check-object", objects, 0.050, objects, 0, 0, gb=512 / 1024),
        # Each run looks at every hour of two days; each object costs a HEAD, 64 at once.
        Check("seal-partition", 144, 0.5 + objects * 0.030 / 64 / 144, objects + 144 * 100 + 96,
              objects / 1_000 + 120 + 144 * 6 + 50, 144 + 24 * 7),
        # Ten partitions beside each hour's and date's; every hour of the last fourteen days, each hour.
        Check("check-size, check-completeness", 49, 1, 25 * 10 + 24 * 14 * 24, 0, 121),
        Check("check-deletions", 4, deletion_lists / 4 * 0.2, 4 * week, deletion_lists + 8, 4, gb=256 / 1024),
        Check("check-recency", minutes, 0.5, minutes * shards_open + 1_200, minutes * (2 + shards_open), minutes),
        Check("notify", minutes / 5, 0.1, minutes / 5, 0, 0),
    ]


def monitoring(traffic, deployment):
    """US dollars a day: lines of metrics, checks, custom metrics, alarms and a dashboard."""
    needed = shards_needed(traffic, deployment)
    objects = batches(packed(traffic, deployment), needed, deployment)
    lines = log_gb(ingest_lines(traffic, deployment), (INGEST_LINE,)) + log_gb(objects, (LANDING_LINE,))
    # S3 publishes each object and each _SUCCESS; a message has far less than the 64 KB that are billed as one.
    published = (objects + PARTITIONS_A_DAY) * SNS_PUBLISH
    watching = published + sum(check.usd for check in checks(objects, open_shards(needed, deployment)))
    alarm_metrics = ALARM_METRICS + (server.ALARM_METRICS if deployment.front_door == "Server" else 0)
    fixed = STEADY_METRICS * METRIC_MONTH + alarm_metrics * ALARM_MONTH + DASHBOARD_MONTH
    return charges.logs(lines * DAYS_A_MONTH) / DAYS_A_MONTH + watching + fixed / DAYS_A_MONTH


def ingest_lines(traffic, deployment):
    """Each environment writes one a METRICS_SECONDS; as many run as are busy on average. So does each task of the server."""
    if deployment.front_door == "Server":
        environments = server_tasks(traffic)
    else:
        environments = ceil(traffic.posts_a_second * ingest_seconds(traffic))
    return min(traffic.posts, environments * SECONDS_A_DAY / METRICS_SECONDS)
