"""Reads landed files with nothing but Python's own bz2 and json, and checks what their metadata claims.

It shares no code with the project on purpose: what it reads, any bzip2 and JSON-lines reader can.
"""

import base64
import bz2
import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

KEY = re.compile(
    r"(?P<kind>events|rejected)/dt=(?P<date>\d{4}-\d\d-\d\d)/hour=(?P<hour>\d\d)"
    r"/(?:(?P<shard>shardId-\d{12})-(?P<first>\d+)|spill-(?P<spill>[0-9a-f]{32}))(?P<redriven>-redriven)?\.jsonl\.bz2"
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
EVENT_MEMBER = ',"event":'


@dataclass
class Line:
    """A landed line: its text and what it says. A spilled one did not come from the stream."""

    text: str
    json: dict = field(repr=False)
    is_spilled: bool = False

    @property
    def event_text(self):
        """The event's own text. In a string its quotes would be escaped, so the first such member is the
        real one."""
        start = self.text.index(EVENT_MEMBER) + len(EVENT_MEMBER)
        assert self.text.endswith("}")
        return self.text[start:-1]


@dataclass
class LandedFile:
    path: Path
    key: str

    @property
    def parts(self):
        match = KEY.fullmatch(self.key)
        assert match, f"{self.key} is no key of a landed file"
        return match

    @property
    def position(self):
        """Sorts files by shard and, within it, by their records; spilled ones come last, by their ids."""
        if self.parts["spill"]:
            return "spill", int(self.parts["spill"], 16)
        return self.parts["shard"], int(self.parts["first"])


def files(bucket, prefix):
    """The files on disk under a prefix; those that S3 keeps for itself have other names."""
    paths = bucket.glob(f"{prefix}/**/*.jsonl.bz2")
    found = [LandedFile(path, str(path.relative_to(bucket))) for path in paths]
    return sorted(found, key=lambda file: file.position)


def read_lines(path):
    """The lines of a file. Only a line feed ends one: U+2028 and the like are part of the text."""
    content = bz2.decompress(path.read_bytes()).decode("utf-8")
    assert content.endswith("\n"), f"{path} does not end with a line feed"
    is_spilled = path.name.startswith("spill-")
    return [Line(text, json.loads(text), is_spilled) for text in content[:-1].split("\n")]


def from_stream(*lines):
    """How many of the lines came from the stream."""
    return sum(not line.is_spilled for one in lines for line in one)


def id_of(line):
    """The id of a line's envelope."""
    return json.loads(line)["id"]


def verify_content(metadata, compressed):
    """Checks an object's bytes against its metadata; returns its lines."""
    content = bz2.decompress(compressed)
    assert content.endswith(b"\n")
    lines = [json.loads(line) for line in content[:-1].split(b"\n")]
    assert all(isinstance(line, dict) for line in lines)
    assert metadata["event-count"] == str(len(lines))
    assert 0 <= int(metadata["record-count"]) <= len(lines)
    assert metadata["uncompressed-bytes"] == str(len(content))
    assert metadata["uncompressed-sha256"] == hashlib.sha256(content).hexdigest()
    assert compressed[:3] == b"BZh" and metadata["bzip2-block-size"] == chr(compressed[3])
    return lines


def verify(stack, file):
    """Checks a file against its key and its S3 metadata; returns the metadata."""
    head = stack.s3().head_object(Bucket="landing-bucket", Key=file.key)
    metadata, compressed = head["Metadata"], file.path.read_bytes()
    lines = verify_content(metadata, compressed)
    assert head["ETag"].strip('"') == hashlib.md5(compressed).hexdigest()
    assert head["ContentLength"] == len(compressed)
    if file.parts["spill"]:
        assert metadata["record-count"] == "0" and "last-sequence-number" not in metadata
    else:
        assert int(metadata["last-sequence-number"]) >= int(file.parts["first"])
    verify_times(file, metadata, lines)
    return metadata


def has_envelope(line):
    """Lines of other producers and raw lines have none; they count as received when the stream took them."""
    return line.get("v") == 1 and TIME.fullmatch(str(line.get("received_at")))


def verify_times(file, metadata, lines):
    is_client_s = metadata["event-format"] == "raw" and file.parts["kind"] == "events"
    received = [line["received_at"] for line in lines if has_envelope(line) and not is_client_s]
    earliest, latest = metadata["earliest-received-at"], metadata["latest-received-at"]
    assert TIME.fullmatch(earliest) and TIME.fullmatch(latest)
    if len(received) == len(lines):
        assert (earliest, latest) == (min(received), max(received))
    else:
        assert all(earliest <= time <= latest for time in received)
    # The partition is the hour in which the stream took the records: after they were received, and not in the
    # future.
    hour = datetime.fromisoformat(f"{file.parts['date']}T{file.parts['hour']}:00:00+00:00")
    assert datetime.fromisoformat(latest) < hour + timedelta(hours=1)
    assert hour <= datetime.now(UTC)


def verify_all(stack):
    """Checks every file, and that no two of a shard and kind reach into each other; returns the events'
    metadata."""
    metadata = {}
    for prefix in ("events", "rejected"):
        last = defaultdict(int)
        for file in stack.landed_files(prefix):
            metadata[file.key] = verify(stack, file)
            if file.parts["redriven"] or file.parts["spill"]:
                continue
            shard, first = file.position
            assert first > last[shard], f"{file.key} begins before the file before it ends"
            last[shard] = int(metadata[file.key]["last-sequence-number"])
    return {key: value for key, value in metadata.items() if key.startswith("events/")}


def assert_once(lines, accepted, stalls=None):
    """Nothing that was accepted is missing, and nothing at all is there twice.

    Where the machine stood still, once more among the spilled: what Kinesis stores but does not confirm in time is spilled as well."""
    counts = Counter((line.json["id"], line.is_spilled and bool(stalls and stalls.found)) for line in lines)
    there = {event for event, _ in counts}
    missing = [event for event in accepted if event not in there]
    doubled = [event for (event, _), count in counts.items() if count > 1]
    assert not missing, f"{len(missing)} of {len(accepted)} accepted events did not land: {missing[:5]} …"
    assert not doubled, f"{len(doubled)} events landed twice: {doubled[:5]} …"


@dataclass
class Rejected:
    """Something rejected, put together from its parts."""

    reason: str
    body: bytes
    line: dict = field(repr=False)


def rejected(lines):
    """What was rejected, in order; what is not there with all its parts is left out."""
    by_id = defaultdict(dict)
    for line in lines:
        # What was put on the stream twice, because an answer was lost, has the same id and number.
        by_id[line.json["id"]][line.json["rejected"].get("part", 1)] = line.json
    complete = (parts for parts in by_id.values() if len(parts) == parts[min(parts)]["rejected"].get("parts", 1))
    return [join(list(parts.values())) for parts in complete]


def join(parts):
    parts = sorted(parts, key=lambda line: line["rejected"].get("part", 1))
    assert [line["rejected"].get("part", 1) for line in parts] == list(range(1, len(parts) + 1))
    body = b"".join(base64.b64decode(line["rejected"]["body_base64"], validate=True) for line in parts)
    return Rejected(parts[0]["rejected"]["reason"], body, parts[0])
