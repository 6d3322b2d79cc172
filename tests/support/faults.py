"""Switches the running stack's faults, and reads what they did."""

import json
import urllib.request
from dataclasses import dataclass

from support.frames import is_frame, text_of
from support.stack import wait_for

# A write that is held back takes place within this many seconds, and some for a busy machine.
HELD_SECONDS = 40


class Faults:
    """The faults of one stack, over HTTP as a person would switch them."""

    def __init__(self, stack):
        self.stack = stack
        self.address = f"{stack.aws_address}/_faults"

    def set(self, plan):
        return self._call("PUT", plan.encode())

    def end(self):
        return self._call("DELETE")

    def state(self):
        return self._call("GET")

    @property
    def fired(self):
        """How often each fault has fired."""
        return self.state()["fired"]

    def wait_for_held_writes(self):
        """Until every write that was held back has reached S3 at last."""
        wait_for(lambda: self.state()["held_writes"] == 0, HELD_SECONDS, "the end of all held writes")

    def _call(self, method, body=None):
        call = urllib.request.Request(self.address, body, method=method)
        with urllib.request.urlopen(call, timeout=30) as answer:
            return json.load(answer)

    def journal(self):
        """What was done, an entry each."""
        text = (self.stack.data / "logs/faults.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def stored_unacknowledged(self):
        """The sequence numbers of records that are on the stream though their sender got no answer."""
        return {number for entry in self.journal() for number in entry.get("stored_unacknowledged", [])}


@dataclass
class StreamRecord:
    sequence_number: str
    shard: str
    lines: list
    is_frame: bool


def read_stream(stack, name="event-stream"):
    """All records of the stream, with their lines, as any consumer may read them."""
    kinesis = stack.kinesis()
    shards = [shard["ShardId"] for page in kinesis.get_paginator("list_shards").paginate(StreamName=name)
              for shard in page["Shards"]]
    return [record for shard in shards for record in read_shard(kinesis, name, shard)]


def read_shard(kinesis, name, shard):
    position = kinesis.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    iterator = position["ShardIterator"]
    while iterator:
        page = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
        for record in page["Records"]:
            lines = text_of(record["Data"]).decode().removesuffix("\n").split("\n")
            yield StreamRecord(record["SequenceNumber"], shard, lines, is_frame(record["Data"]))
        iterator = page.get("NextShardIterator") if page["Records"] else None
