"""Rewrites a landed object without some of its lines.

Its name stays, and with it what landing, redrive and replay know of it: its records count as landed, so none of them lands them again.
An object that loses all of its lines stays as an empty one, for the same reason. `deleted-in` in its metadata has the lines that are gone,
which check-completeness counts as landed; `landed-etag` has the ETag that it landed with, by which load-search knows a rewriting.
"""

import bz2
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from botocore.exceptions import ClientError
from lines import ENVELOPE, RECEIVED_IN, Counted, counts_text, format_time, parse_time, read_counts, receipt

KEY = re.compile(r"(events|rejected)/(dt=(\d{4}-\d\d-\d\d)/hour=(\d\d))/([^/]+)\.jsonl\.bz2")
# shared/src/limits.rs, rounded up.
MAX_OBJECT_BYTES = 256 * 1024 * 1024
ATTEMPTS = 5
GONE = ("404", "NoSuchKey")
CHANGED = ("412", "PreconditionFailed", "409", "ConditionalRequestConflict")


class Problem(Exception):
    """Something that a person must look at; what is stored is as it was."""


@dataclass
class Landed:
    key: str
    etag: str
    content_type: str
    metadata: dict
    lines: list

    @property
    def event_format(self):
        return self.metadata.get("event-format", ENVELOPE)


def read(s3, bucket, key):
    """An object and its lines, each with its line feed; None if it is gone."""
    try:
        found = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in GONE:
            return None
        raise
    lines = decompress(key, found["Body"].read())
    return Landed(key, found["ETag"], found.get("ContentType", "binary/octet-stream"), found["Metadata"], lines)


def decompress(key, body):
    decoder = bz2.BZ2Decompressor()
    try:
        content = decoder.decompress(body, MAX_OBJECT_BYTES + 1)
    except (OSError, ValueError) as problem:
        raise Problem(f"{key} can't be read: {problem}") from problem
    if len(content) > MAX_OBJECT_BYTES or not decoder.eof or decoder.unused_data:
        raise Problem(f"{key} can't be read: not one bzip2 stream of at most {MAX_OBJECT_BYTES} bytes")
    # Only line feeds end lines.
    *lines, rest = content.split(b"\n")
    if rest:
        raise Problem(f"{key} does not end with a line feed")
    return [line + b"\n" for line in lines]


def delete_lines(s3, bucket, key, is_viewers):
    """Rewrites an object without the lines that are the viewer's; how many they were. Landing may replace it meanwhile: then it is read
    again."""
    for _ in range(ATTEMPTS):
        landed = read(s3, bucket, key)
        if landed is None:
            return 0
        kept = [line for line in landed.lines if not is_viewers(line[:-1], landed.event_format)]
        deleted = len(landed.lines) - len(kept)
        if not deleted:
            return 0
        try:
            body, metadata = rewritten(landed, kept)
        except (KeyError, TypeError, ValueError) as error:
            raise Problem(f"{key} is not as landing writes objects: {error!r}; see broken-objects in docs/RUNBOOK.md") from error
        try:
            put = s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata, ContentType=landed.content_type, IfMatch=landed.etag)
        except ClientError as error:
            if error.response["Error"]["Code"] in (*CHANGED, *GONE):
                continue
            raise
        verify(s3, bucket, key, put["ETag"], kept)
        return deleted
    raise Problem(f"{key} changed {ATTEMPTS} times while it was rewritten; run this again")


def rewritten(landed, kept):
    """The object's new content and metadata."""
    old, content = landed.metadata, b"".join(kept)
    before, after = counted(landed, landed.lines), counted(landed, kept)
    said = read_counts(old.get("received-in")), read_counts(old.get("rejected-reasons"))
    is_intact = old.get("event-count") == str(len(landed.lines)) and old.get("uncompressed-sha256") == sha256(b"".join(landed.lines))
    if not is_intact or said != (before.received_in, before.reasons):
        raise Problem(f"{landed.key} is not what its metadata says; see broken-objects in docs/RUNBOOK.md")
    deleted = read_counts(old.get("deleted-in"))
    deleted = {name: deleted.get(name, 0) + before.received_in[name] - after.received_in[name] for name in RECEIVED_IN}
    block_size = min(max(-(-len(content) // 100_000), 1), 9)
    new = old | {
        "event-count": str(len(kept)), "uncompressed-bytes": str(len(content)), "uncompressed-sha256": sha256(content),
        "received-in": counts_text(after.received_in), "deleted-in": counts_text(deleted), "rejected-reasons": counts_text(after.reasons),
        "landed-etag": old.get("landed-etag", landed.etag.strip('"')),
        "earliest-received-at": within(old["earliest-received-at"], after.earliest),
        "latest-received-at": within(old["latest-received-at"], after.latest), "bzip2-block-size": str(block_size),
    }
    # S3 takes no entry without a value.
    return bz2.compress(content, block_size), {name: value for name, value in new.items() if value}


def counted(landed, lines):
    kind, _, date, hour, name = KEY.fullmatch(landed.key).groups()
    known = read_counts(landed.metadata.get("rejected-reasons"))
    begins = datetime.fromisoformat(f"{date}T{hour}:00:00").replace(tzinfo=UTC)
    counts = Counted(begins, name.endswith("-redriven"), known)
    is_believed = landed.event_format == ENVELOPE or kind == "rejected"
    for line in lines:
        counts.add(*receipt(line, is_believed))
    # In the order of the metadata.
    counts.reasons = {name: counts.reasons[name] for name in known if name in counts.reasons}
    return counts


def within(time, bounds):
    """The time, moved into the bounds of the lines that are left."""
    if bounds is None:
        return time
    low, high = bounds
    return format_time(min(max(parse_time(time), low), high))


def verify(s3, bucket, key, etag, kept):
    """What is stored are the other lines, to the byte, and nothing else."""
    found = read(s3, bucket, key)
    if found is None or found.etag != etag:
        # Landing has replaced it since: the next pass reads it.
        return
    if found.lines != kept:
        raise Problem(f"{key} does not hold the {len(kept)} lines that were to be kept; restore it with `ops revert {key}`")


def sha256(content):
    return hashlib.sha256(content).hexdigest()
