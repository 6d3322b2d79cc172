"""ingest-server on Fargate behind a Network Load Balancer (nested/server.yaml): how many tasks, what records they make of POSTs, what they
and the balancer cost."""

import json
from bisect import bisect_left
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import charges
from prices import DAYS_A_MONTH, GB, NLCU_ACTIVE, NLCU_NEW

# ---- Measured: CPU by `make bench` ----


def cpu(events):
    """Seconds of CPU of a POST, with the default interval between commits and 200 connections."""
    measured = json.loads((Path(__file__).parents[2] / "docs/measured.json").read_text())
    is_meant = {"server": {"ingest": {"commit_interval_ms": 200}}, "events": events, "connections": 200, "rate": None}
    return next(row["cpu_us"] / 1e6 for row in measured["servers"] if is_meant.items() <= row.items())


CPU_AN_EVENT = (cpu(20) - cpu(1)) / 19
CPU_A_POST = cpu(1) - CPU_AN_EVENT
# Bytes of a compressed record by how many events of 300 bytes, each of another session, are in it; zstd level 1.
GROUPED_LINE_BYTES = 580
GROUPED = ((1, 432), (15, 1_920), (60, 5_700), (250, 21_500))

# ---- Assumed ----

POSTS_A_CONNECTION = 10
# Ten POSTs ten seconds apart, and the 75 s after which the server closes an idle connection.
CONNECTION_SECONDS = 165
# Of a browser over HTTP/1.1; HTTP/2 has fewer.
REQUEST_HEADER_BYTES = 500
# A whole handshake sends 4 KB, most of it certificates, and one that is resumed 300 bytes; three of four are resumed.
HANDSHAKE_BYTES_OUT, HANDSHAKE_BYTES_IN = 1_225, 700

# ---- What the issue of the server fixed, and nested/server.yaml's sizes ----

ANSWER_BYTES = 200
MINIMUM_TASKS, TASK_VCPU, TASK_GB = 2, 0.25, 1
# The share of a task's CPU, and its connections, at which another task is started.
BUSY, CROWDED = 0.5, 10_000
SUBNETS = 2
KEY_BUCKETS = 4
COMMIT_SECONDS = 0.2
COMMIT_LINE_BYTES = 256 * 1024
# Alarms of nested/server.yaml, and the metrics that they watch.
ALARMS, ALARM_METRICS = 3, 5


def cpu_seconds(traffic):
    """What all tasks together use of a CPU in a second, where the server was measured."""
    return traffic.posts_a_second * (CPU_A_POST + traffic.events_a_post * CPU_AN_EVENT)


def tasks(cpu, active_connections):
    return max(MINIMUM_TASKS, ceil(cpu / (TASK_VCPU * BUSY)), ceil(active_connections / CROWDED))


def posts_a_record(traffic, line_bytes, running):
    """A record is put when its first POST has waited for COMMIT_SECONDS, or when it is full."""
    waiting = traffic.posts_a_second / (running * KEY_BUCKETS) * COMMIT_SECONDS
    return min(1 + waiting, max(1, COMMIT_LINE_BYTES / (traffic.events_a_post * line_bytes)))


def grouped_bytes(events, line_bytes):
    """Of a compressed record that holds so many events, each of another session: between the measured points, and on behind them."""
    last = len(GROUPED) - 1
    at = min(max(1, bisect_left(GROUPED, (events,))), last)
    (few, little), (many, much) = GROUPED[at - 1], GROUPED[at]
    return (little + (events - few) * (much - little) / (many - few)) * line_bytes / GROUPED_LINE_BYTES


@dataclass(frozen=True)
class Connections:
    """What the load balancer counts."""
    new_a_second: float
    active: float
    gb_an_hour: float

    @property
    def units(self):
        """The largest of the three is billed."""
        return max(self.new_a_second / NLCU_NEW, self.active / NLCU_ACTIVE, self.gb_an_hour)


def connections(traffic):
    new = traffic.posts_a_second / POSTS_A_CONNECTION
    a_second = (traffic.posts_a_second * (REQUEST_HEADER_BYTES + traffic.body_bytes + ANSWER_BYTES)
                + new * (HANDSHAKE_BYTES_OUT + HANDSHAKE_BYTES_IN))
    return Connections(new, new * CONNECTION_SECONDS, a_second * 3_600 / GB)


def front_door(traffic, running):
    return {
        "front door: load balancer": charges.load_balancer(connections(traffic).units),
        "front door: public addresses": charges.public_addresses(SUBNETS + running),
    }


def ingest(running, architecture):
    return {"ingest: tasks": charges.tasks(running, TASK_VCPU, TASK_GB, architecture)}


def sent_gb(traffic):
    """To the Internet in a month: answers, and handshakes."""
    bytes_a_post = ANSWER_BYTES + HANDSHAKE_BYTES_OUT / POSTS_A_CONNECTION
    return traffic.posts * DAYS_A_MONTH * bytes_a_post / GB

