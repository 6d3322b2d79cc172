"""What a day's traffic becomes on its way: requests, records, shards, batches."""

from dataclasses import dataclass
from math import ceil

SECONDS_A_DAY = 24 * 60 * 60
# Bytes that the envelope and the line feed add to an event, with ids of 36 bytes and the user agent of Chrome on a desktop,
# 101 bytes. ingest-lambda added 250 where the request's id had 5 bytes; tests/test_cost.py counts such a line.
ENVELOPE_BYTES = 280
MAX_RECORD_BYTES = 2**20
# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
SHARD_BYTES_A_SECOND = 2**20
SHARD_RECORDS_A_SECOND = 1_000
# The mapping hands over 6 MiB at most, which base64 makes of three quarters.
# https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-create.html
MAX_BATCH_BYTES = 6 * 2**20 * 3 / 4


@dataclass(frozen=True)
class Traffic:
    """What players send in a day."""
    events: float = 100_000_000
    events_a_post: int = 20
    # Those recorded in tests/fixtures are posted as 280 on average: dash.js 240 (CMCD, which lands as 451 of JSON), mux-embed
    # 392, made up 196. Those of `make bench` are 290.
    bytes_an_event: int = 300
    # The busiest second against the mean: what the stream is made for.
    peak: float = 10

    @property
    def posts(self):
        return self.events / self.events_a_post

    @property
    def body_bytes(self):
        """A JSON array."""
        return self.events_a_post * (self.bytes_an_event + 1) + 1


@dataclass(frozen=True)
class Deployment:
    """Parameters of template.yaml that cost or save, with its defaults."""
    front_door: str = "FunctionUrl"
    stream_mode: str = "PROVISIONED"
    batch_size: int = 100
    window_seconds: float = 5
    event_format: str = "envelope"
    architecture: str = "arm64"


@dataclass(frozen=True)
class Records:
    """What is put on a stream in a day."""
    count: float
    size: float  # bytes of one

    @property
    def bytes(self):
        return self.count * self.size


def packed(traffic, deployment):
    """As ingest does: the events of a POST, which are of one session, in as few records as fit."""
    line = traffic.bytes_an_event + (ENVELOPE_BYTES if deployment.event_format == "envelope" else 1)
    records_a_post = ceil(traffic.events_a_post / max(1, MAX_RECORD_BYTES // line))
    return Records(traffic.posts * records_a_post, traffic.events_a_post * line / records_a_post)


def shards(records, traffic):
    """As many as the peak needs."""
    a_second = traffic.peak / SECONDS_A_DAY
    return max(1, ceil(records.count * a_second / SHARD_RECORDS_A_SECOND),
               ceil(records.bytes * a_second / SHARD_BYTES_A_SECOND))


def batches(records, traffic, deployment):
    """A batch ends when it is full or its window is over, whichever comes first; none is empty."""
    full = records.count / min(deployment.batch_size, max(1, MAX_BATCH_BYTES // records.size))
    # Without a window the mapping still looks once a second.
    windows = open_shards(records, traffic, deployment) * SECONDS_A_DAY / max(1, deployment.window_seconds)
    return min(records.count, max(full, windows))


def open_shards(records, traffic, deployment):
    """On demand, a stream is made for twice its peak and never has fewer than four.
    https://docs.aws.amazon.com/streams/latest/dev/how-do-i-size-a-stream.html"""
    needed = shards(records, traffic)
    return max(4, 2 * needed) if deployment.stream_mode == "ON_DEMAND" else needed
