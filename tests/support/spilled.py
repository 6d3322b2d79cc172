"""Objects as ingest writes them to S3 while Kinesis does not take records, put by hand."""

import bz2
import hashlib
import json
import secrets
import time

from support.stack import LANDING_BUCKET


def spill_id():
    """A UUIDv7 as 32 hexadecimal digits."""
    return f"{int(time.time() * 1000):012x}7{secrets.token_hex(8)[1:4]}8{secrets.token_hex(8)[:15]}"


def put_spilled(stack, prefix, hour, lines):
    """Puts an object of envelopes that were received in its own hour; its key."""
    # Compact, as ingest writes them.
    content = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    received = sorted(line["received_at"] for line in lines)
    reasons = [line["rejected"]["reason"] for line in lines if "rejected" in line]
    metadata = {
        "event-format": "envelope", "record-count": "0", "event-count": str(len(lines)), "uncompressed-bytes": str(len(content)),
        "uncompressed-sha256": hashlib.sha256(content).hexdigest(),
        "received-in": f"previous=0,this={len(lines)},next=0,elsewhere=0",
        "earliest-received-at": received[0], "latest-received-at": received[-1], "bzip2-block-size": "1",
        "attempt-began": received[0], "attempt-deadline": received[-1], "attempt-request-id": "r",
    }
    if reasons:
        metadata["rejected-reasons"] = ",".join(f"{one}={reasons.count(one)}" for one in sorted(set(reasons)))
    key = f"{prefix}/{hour}/spill-{spill_id()}.jsonl.bz2"
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=bz2.compress(content, 1), Metadata=metadata)
    return key
