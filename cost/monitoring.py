"""What monitoring costs a day, from counted requests and listed prices: the table of docs/COST.md.

    python3 cost/monitoring.py                        the table, at 100 million events a day
    python3 cost/monitoring.py --events-a-post 1      the same for players that post each event by itself

Requests a run or an object are those that the checks' tests count, bytes of log lines those that the functions write
(tests/test_cost.py). Durations are assumed: a few milliseconds of ours, and S3's answers.
"""

import argparse
from dataclasses import dataclass

from prices import (ALARM_MONTH, DASHBOARD_MONTH, DAYS_A_MONTH, LAMBDA_GB_SECOND, LAMBDA_REQUEST, LOG_EVENT_OVERHEAD, LOG_GB,
                    LOG_GB_BYTES, METRIC_MONTH, METRICS_REQUEST, S3_READ, S3_WRITE)
from stream import Deployment, Traffic, batches, open_shards, packed

HOURS = 24
MINUTES = 24 * 60

# Lines of metrics as the functions write them (tests/test_cost.py measures them), with a deployed function's longer name.
FUNCTION_NAME = 45
INGEST_LINE = 375 + FUNCTION_NAME
LANDING_LINE = 935 + FUNCTION_NAME
# 128 MB. Seconds with S3's answers, some 30 ms each, which are most of it.
GB = 128 / 1024
CHECK_OBJECT_SECONDS = 0.050
SEAL_HEADS_AT_ONCE = 64
SEAL_HEAD_SECONDS = 0.030
# Each looks at two days, with a GET and a HEAD an hour.
SEAL_RUNS = HOURS * 6
SEAL_RUN_SECONDS = 0.5
# Metrics with data in every hour: ingest's, landing's, the checks' (docs/METRICS.md). Sparse ones are left out.
STEADY_METRICS = 35
# check-deletions: runs a day, hours that each compares, and what a page of a listing takes it.
DELETION_RUNS, WINDOW_HOURS, DELETION_LIST_SECONDS, DELETIONS_GB = 4, 168, 0.2, 0.25
# CloudWatch bills an alarm for each metric that it watches.
ALARMS, ALARM_METRICS = 60, 72


@dataclass
class Row:
    what: str
    counted: str
    usd: float


def rows(traffic, deployment, log_gb=LOG_GB):
    """A day's costs; a month's volume of logs may make a GB of them cheaper."""
    records = packed(traffic, deployment)
    shards = open_shards(records, traffic, deployment)
    posts, objects = traffic.posts, batches(records, traffic, deployment)
    seal_seconds = objects * SEAL_HEAD_SECONDS / SEAL_HEADS_AT_ONCE + SEAL_RUNS * SEAL_RUN_SECONDS
    lists = objects / 1_000 + HOURS * 5 + SEAL_RUNS * 6
    heads, gets = objects + SEAL_RUNS * 50 + HOURS * 2, SEAL_RUNS * 50 + HOURS * 2
    # Each hour of the last seven days, both kinds.
    deletions = DELETION_RUNS * (7 * objects / 1_000 + WINDOW_HOURS * 2)
    # Ten partitions beside each of an hour and a date; each hour of the last fourteen days.
    size_gets, balance_gets = (HOURS + 1) * 10, HOURS * 14 * HOURS
    recency = {"lists": MINUTES * (2 + shards), "reads": MINUTES * shards + HOURS * 50}
    return [
        Row("ingest's lines of metrics", f"{posts:,.0f} lines of {INGEST_LINE} bytes", log(posts, INGEST_LINE, log_gb)),
        Row("landing's lines of metrics", f"{objects:,.0f} lines of {LANDING_LINE} bytes",
            log(objects, LANDING_LINE, log_gb)),
        Row("check-object", f"{objects:,.0f} invocations of {CHECK_OBJECT_SECONDS * 1000:.0f} ms, one GET each",
            objects * (LAMBDA_REQUEST + S3_READ + CHECK_OBJECT_SECONDS * GB * LAMBDA_GB_SECOND)),
        Row("seal-partition", f"{SEAL_RUNS} runs, {heads:,.0f} HEAD, {gets:,} GET, {lists:,.0f} LIST, {HOURS * 2 + 2} PUT",
            (heads + gets) * S3_READ + (lists + HOURS * 2 + 2) * S3_WRITE + (SEAL_RUNS + HOURS * 7) * METRICS_REQUEST
            + SEAL_RUNS * LAMBDA_REQUEST + seal_seconds * GB * LAMBDA_GB_SECOND),
        Row("check-size, check-completeness", f"{HOURS * 2 + 1} runs, {size_gets + balance_gets:,} GET, 72 metrics read, 49 puts",
            (size_gets + balance_gets) * S3_READ + (72 + 49) * METRICS_REQUEST
            + (HOURS * 2 + 1) * (LAMBDA_REQUEST + GB * LAMBDA_GB_SECOND)),
        Row("check-deletions",
            f"{DELETION_RUNS} runs, {DELETION_RUNS * WINDOW_HOURS:,} GET, {deletions:,.0f} LIST",
            DELETION_RUNS * (LAMBDA_REQUEST + METRICS_REQUEST + 2 * S3_WRITE + WINDOW_HOURS * S3_READ) + deletions * S3_WRITE
            + deletions * DELETION_LIST_SECONDS * DELETIONS_GB * LAMBDA_GB_SECOND),
        Row("check-recency",
            f"{MINUTES:,} runs, {recency['lists']:,} LIST, {recency['reads']:,} HEAD and GET, {MINUTES:,} puts",
            MINUTES * (LAMBDA_REQUEST + METRICS_REQUEST + 0.5 * GB * LAMBDA_GB_SECOND)
            + recency["lists"] * S3_WRITE + recency["reads"] * S3_READ),
        Row("notify", f"{MINUTES // 5} runs, one GET each",
            MINUTES // 5 * (LAMBDA_REQUEST + S3_READ + 0.1 * GB * LAMBDA_GB_SECOND)),
        Row("custom metrics", f"{STEADY_METRICS} with data in every hour", STEADY_METRICS * METRIC_MONTH / DAYS_A_MONTH),
        Row("alarms and a dashboard", f"{ALARMS} alarms on {ALARM_METRICS} metrics", (ALARM_METRICS * ALARM_MONTH + DASHBOARD_MONTH) / DAYS_A_MONTH),
    ]


def log(lines, size, gb=LOG_GB):
    """US dollars for so many lines of so many bytes."""
    return lines * (size + LOG_EVENT_OVERHEAD) / LOG_GB_BYTES * gb


def table(events=100_000_000, events_a_post=20, records_a_batch=100):
    """The table as Markdown, and its sum in US dollars."""
    found = rows(Traffic(events, events_a_post), Deployment(batch_size=records_a_batch))
    total = sum(row.usd for row in found)
    lines = ["| what | counted, a day | USD a day |", "| --- | --- | ---: |"]
    lines += [f"| {row.what} | {row.counted} | {row.usd:.2f} |" for row in found]
    return "\n".join([*lines, f"| all monitoring | | {total:.2f} |"]), total


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=100_000_000, help="events a day (%(default)s)")
    arguments.add_argument("--events-a-post", type=int, default=20, help="events in one request (%(default)s)")
    arguments.add_argument("--records-a-batch", type=int, default=100, help="records in one landed object (%(default)s)")
    given = arguments.parse_args()
    print(table(given.events, given.events_a_post, given.records_a_batch)[0])


if __name__ == "__main__":
    main()
