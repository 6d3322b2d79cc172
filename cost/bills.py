"""What a month of the pipeline costs, and of others that would do some of the same.

A bill is a dictionary of US dollars by what they are for. Each constant says where it was measured, or that it is assumed.
"""

from math import ceil

import charges
import monitoring
from prices import DAYS_A_MONTH, GB, LAMBDA_REQUEST, LOG_EVENT_OVERHEAD, LOG_GB_BYTES, S3_READ, S3_WRITE
from stream import SECONDS_A_DAY, Records, batches, packed

FRONT_DOORS = {"FunctionUrl": "Function URL", "HttpApi": "HTTP API", "Alb": "ALB"}

# Seconds on the CPU, as `make bench` measured them on a core of an AMD EPYC (Zen 4) on 2026-11-24: 218 µs for a POST of one
# event of 290 bytes, 259 µs for twenty.
INGEST_CPU = 216e-6
INGEST_CPU_A_BYTE = 7.4e-9
# 3,869 µs for 51,893 bytes of lines, 3,141 µs of them bzip2. The same binary, given one to a hundred records of one event or
# of twenty by hand, took 0.6 ms for 0.6 KB, 7.6 for 114, 41 for 549, and 87 for 1,144.
LANDING_CPU = 500e-6
LANDING_CPU_A_BYTE = 75e-9
# Assumed: Lambda's processors, of either architecture, take half as long again as that core.
SLOWER = 1.5
# A whole vCPU: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
VCPU_MB = 1_769
# template.yaml's MemorySize.
INGEST_MB = 256
LANDING_MB = 512
# Assumed: what the functions wait for, and what Lambda itself takes of an invocation.
PUT_RECORDS_SECONDS = 0.015
PUT_OBJECT_SECONDS = 0.040
INVOCATION_SECONDS = 0.001

# `make bench`: 51,893 bytes, a hundred lines of 25 viewers, become 8,576. The recorded sessions in tests/fixtures, which are
# fewer and so more alike, have 7.8, and 1 MB of lines 12. gzip, which Firehose writes, is about as good.
COMPRESSION = 6.0
# Assumed: batches of which S3 is asked twice, with a HEAD and another PUT.
RETRIED = 0.001
# Assumed: an answer with its headers, and the headers of a browser's request.
ANSWER_BYTES = 500
REQUEST_HEADER_BYTES = 700
# Lambda's own lines of an invocation, in its text format.
REQUEST_ID = "8f507cfc-1234-4697-b07a-ac58fc914c95"
PLATFORM_LINES = (
    f"START RequestId: {REQUEST_ID} Version: 12\n",
    f"END RequestId: {REQUEST_ID}\n",
    f"REPORT RequestId: {REQUEST_ID}\tDuration: 18.23 ms\tBilled Duration: 19 ms\tMemory Size: 256 MB\t"
    "Max Memory Used: 30 MB\t\n",
)
# A line of the HTTP API's access log, in template.yaml's format.
ACCESS_LOG_LINE = (
    '{"requestId":"JKJaXmPLvHcESHA=","time":"1795253528006","method":"POST", "path":"/events","status":"200",'
    '"responseLatency":"19", "error":"-","integrationError":"-"}\n'
)
# Firehose's defaults: https://docs.aws.amazon.com/firehose/latest/APIReference/API_BufferingHints.html
FIREHOSE_BUFFER_BYTES = 5 * 2**20
FIREHOSE_BUFFER_SECONDS = 300


def playhead(traffic, deployment):
    return data_path(traffic, deployment) | logs_and_monitoring(traffic, deployment)


def playhead_without_monitoring(traffic, deployment):
    invocations = traffic.posts + batches(packed(traffic, deployment), traffic, deployment)
    return data_path(traffic, deployment) | platform_logs(invocations * DAYS_A_MONTH)


def firehose_behind_function(traffic, deployment):
    """The same ingest, which puts the same records into Firehose. Its files are gzip: it knows no bzip2."""
    records = packed(traffic, deployment)
    objects = max(records.bytes / FIREHOSE_BUFFER_BYTES, SECONDS_A_DAY / FIREHOSE_BUFFER_SECONDS) * DAYS_A_MONTH
    return (front_door(traffic, deployment) | ingest(traffic, deployment)
            | {"Firehose": charges.firehose(records), "S3: PUT": objects * S3_WRITE}
            | files(records) | answers(traffic) | platform_logs(traffic.posts * DAYS_A_MONTH))


def http_api_to_kinesis(traffic, deployment):
    """A POST becomes one record, as it is: an HTTP API can't take bodies apart."""
    usd = {"HTTP API": charges.http_api(traffic.posts * DAYS_A_MONTH, traffic.body_bytes)}
    return usd | behind_api(Records(traffic.posts, traffic.body_bytes), traffic, deployment)


def rest_api_to_kinesis(traffic, deployment):
    """A REST API's mapping template makes each event a record, with a line feed."""
    usd = {"REST API": charges.rest_api(traffic.posts * DAYS_A_MONTH)}
    return usd | behind_api(Records(traffic.events, traffic.bytes_an_event + 1), traffic, deployment)


def behind_api(records, traffic, deployment):
    """No ingest, but the same landing."""
    invocations = batches(records, traffic, deployment) * DAYS_A_MONTH
    return (kinesis(records, traffic, deployment, credentials=2) | landing(records, traffic, deployment)
            | files(records) | answers(traffic) | platform_logs(invocations))


def data_path(traffic, deployment):
    records = packed(traffic, deployment)
    # Those of ingest's environments, and the mapping's.
    credentials = ceil(traffic.posts / SECONDS_A_DAY * ingest_seconds(traffic)) + 1
    return (front_door(traffic, deployment) | ingest(traffic, deployment)
            | kinesis(records, traffic, deployment, credentials) | landing(records, traffic, deployment)
            | files(records) | answers(traffic))


# ---- The parts ----

def front_door(traffic, deployment):
    posts = traffic.posts * DAYS_A_MONTH
    usd = {
        "FunctionUrl": 0,
        "HttpApi": charges.http_api(posts, traffic.body_bytes) + charges.logs(log_gb(posts, (ACCESS_LOG_LINE,))),
        "Alb": charges.load_balancer(posts, REQUEST_HEADER_BYTES + traffic.body_bytes + ANSWER_BYTES),
    }
    return {f"front door: {FRONT_DOORS[deployment.front_door]}": usd[deployment.front_door]}


def ingest(traffic, deployment):
    posts = traffic.posts * DAYS_A_MONTH
    return {
        "ingest: requests": posts * LAMBDA_REQUEST,
        "ingest: duration": charges.duration(posts, ingest_seconds(traffic), INGEST_MB, deployment.architecture),
    }


def concurrency(traffic):
    """What ingest needs at the busiest second: each unit of concurrency takes ten requests a second, however short they are.
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html"""
    a_second = requests_a_second(traffic)
    return ceil(max(a_second * ingest_seconds(traffic), a_second / 10))


def requests_a_second(traffic):
    return traffic.posts * traffic.peak / SECONDS_A_DAY


def ingest_seconds(traffic):
    on_cpu = (INGEST_CPU + INGEST_CPU_A_BYTE * traffic.body_bytes) * SLOWER * VCPU_MB / INGEST_MB
    return on_cpu + PUT_RECORDS_SECONDS + INVOCATION_SECONDS


def kinesis(records, traffic, deployment, credentials):
    """The stream, and its key for so many holders of credentials."""
    on_demand = deployment.stream_mode == "ON_DEMAND"
    stream = charges.on_demand_stream(records) if on_demand else charges.provisioned_stream(records, traffic)
    return stream | {"Kinesis: key": charges.stream_key(credentials)}


def landing(records, traffic, deployment):
    count = batches(records, traffic, deployment) * DAYS_A_MONTH
    seconds = landing_seconds(records.bytes * DAYS_A_MONTH / count)
    return {
        "landing: requests and duration":
            count * LAMBDA_REQUEST + charges.duration(count, seconds, LANDING_MB, deployment.architecture),
        "S3: PUT, and a HEAD now and then": count * ((1 + RETRIED) * S3_WRITE + RETRIED * S3_READ),
    }


def landing_seconds(batch_bytes):
    on_cpu = (LANDING_CPU + LANDING_CPU_A_BYTE * batch_bytes) * SLOWER * VCPU_MB / LANDING_MB
    return on_cpu + PUT_OBJECT_SECONDS + INVOCATION_SECONDS


def files(records):
    return {"S3: a month's files": charges.storage(records.bytes * DAYS_A_MONTH / COMPRESSION / GB)}


def answers(traffic):
    return {"answers to the Internet": charges.internet(traffic.posts * DAYS_A_MONTH * ANSWER_BYTES / GB)}


def platform_logs(invocations):
    return {"Lambda's own log lines": charges.logs(platform_log_gb(invocations))}


def platform_log_gb(invocations):
    return log_gb(invocations, PLATFORM_LINES)


def log_gb(times, lines):
    return times * sum(len(line) + LOG_EVENT_OVERHEAD for line in lines) / LOG_GB_BYTES


def logs_and_monitoring(traffic, deployment):
    """Both write logs, and a GB costs by their sum. check-object runs once for each object, as landing does."""
    posts = traffic.posts * DAYS_A_MONTH
    objects = batches(packed(traffic, deployment), traffic, deployment) * DAYS_A_MONTH
    platform = platform_log_gb(posts + 2 * objects)
    metrics = (posts * (monitoring.INGEST_LINE + LOG_EVENT_OVERHEAD)
               + objects * (monitoring.LANDING_LINE + LOG_EVENT_OVERHEAD)) / LOG_GB_BYTES
    log_gb = charges.logs(platform + metrics) / (platform + metrics)
    watched = sum(row.usd for row in monitoring.rows(traffic, deployment, log_gb))
    return {"Lambda's own log lines": platform * log_gb, "monitoring": watched * DAYS_A_MONTH}
