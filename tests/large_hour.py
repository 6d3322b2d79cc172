"""Seals one hour with many objects, with the function killed half way, and looks at the manifest and at the memory it took.

    make large-hour OBJECTS=200000

The objects are put straight into the stack's folder, as its S3 keeps them: their content does not matter to the sealer,
which looks at their metadata. The function is given so little time that it has to call itself again and again.
"""

import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.failed_batches import template_with
from support.fast_clock import START
from support.stack import LANDING_BUCKET, Stack, signal_if_alive, wait_for

SEAL = "seal-partition"
PARTITION = "dt=2026-11-16/hour=09"
# The schedule is each ten minutes, and what was killed waits for the next: by a faster clock than ours.
CLOCK = "2026-11-16T10:19:50Z x60"
SHARDS = 8
# A process runs for the first of these seconds, then stands still for the second.
RUNS, STANDS_STILL = 0.01, 0.09
FIRST = 49_680_526_688_183_764_996_402_631_907_123_007_237_603_964_584_147_812_354
MEMORY_MIB = 128


@dataclass
class Result:
    seconds: float
    invocations: int
    kills: int
    peak_mib: float
    manifest: dict
    success: dict


def fill(root, objects):
    """As many objects in the hour, each of one record with two events."""
    folder, descriptions = root / LANDING_BUCKET / "events" / PARTITION, root / ".objects" / LANDING_BUCKET
    folder.mkdir(parents=True)
    descriptions.mkdir(parents=True)
    body = b"BZh1"
    for number in range(objects):
        first = FIRST + number * 10
        key = f"events/{PARTITION}/shardId-{number % SHARDS:012}-{first}.jsonl.bz2"
        file = root / LANDING_BUCKET / key
        file.write_bytes(body)
        description = {
            "key": key, "etag": f'"{md5(body)}"', "md5": md5(body), "place": "Key", "size": len(body),
            "modified_ns": file.stat().st_mtime_ns, "attributes": {"metadata": metadata(first)},
        }
        (descriptions / f"{md5(key.encode())}.json").write_text(json.dumps(description))


def md5(data):
    return hashlib.md5(data).hexdigest()


def metadata(first):
    return {
        "last-sequence-number": str(first + 1), "record-count": "1", "event-count": "2", "uncompressed-bytes": "300",
        "uncompressed-sha256": "0" * 64, "received-in": "previous=0,this=2,next=0,elsewhere=0",
        "earliest-received-at": "2026-11-16T09:10:00.000Z", "latest-received-at": "2026-11-16T09:11:00.000Z",
        "bzip2-block-size": "1", "attempt-began": "2026-11-16T09:11:00.000Z", "attempt-deadline": "2026-11-16T09:12:00.000Z",
        "attempt-request-id": "large-hour",
    }


class PeakMemory(threading.Thread):
    """The largest resident memory that any process of a function ever had."""

    def __init__(self, stack):
        super().__init__(daemon=True)
        self.stack, self.mib, self.over = stack, 0.0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            for pid in self.stack.function_processes(SEAL):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
                self.mib = max(self.mib, int(peak.split()[1]) / 1024)


@contextmanager
def slowed(stack):
    """The sealer at a tenth of its speed, so that no machine is fast enough to end a seal within one invocation."""
    over = threading.Event()

    def slow():
        while not over.wait(RUNS):
            pids = stack.function_processes(SEAL)
            for pid in pids:
                signal_if_alive(pid, signal.SIGSTOP)
            over.wait(STANDS_STILL)
            for pid in pids:
                signal_if_alive(pid, signal.SIGCONT)

    thread = threading.Thread(target=slow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def seal(directory, objects, timeout_seconds, progress=print):
    """Fills the hour, seals it, kills the sealer once on the way; what came of it."""
    fill(directory / "data/s3", objects)
    progress(f"{objects:,} objects are there")
    template = template_with(directory, {
        "MemorySize: 128\n      Timeout: 900": f"MemorySize: 128\n      Timeout: {timeout_seconds}"})
    stack = Stack(directory, template=template, CLOCK=CLOCK)
    memory, bucket, kills, began = PeakMemory(stack), directory / "data/s3" / LANDING_BUCKET, 0, time.monotonic()
    try:
        checkpoint, success = bucket / f"sealing/{PARTITION}.json", bucket / f"events/{PARTITION}/_SUCCESS"
        with slowed(stack):
            wait_for(lambda: checkpoint.exists() or success.exists(), 600, lambda: f"nothing is sealed\n{stack.tail()}")
            if not success.exists():
                time.sleep(timeout_seconds / 8)
                # One whose time is up has just ended, and the next begins with the schedule.
                wait_for(lambda: stack.function_processes(SEAL) or success.exists(), 60, "a sealer to kill")
                for pid in stack.function_processes(SEAL):
                    signal_if_alive(pid, signal.SIGKILL)
                    kills += 1
        wait_for(success.exists, 1200, lambda: f"not sealed\n{stack.tail()}")
        seconds = time.monotonic() - began
        memory.over.set()
        invocations = invocations_of(stack)
        manifest = json.loads((bucket / f"events/{PARTITION}/_MANIFEST.json").read_text())
        result = Result(seconds, invocations, kills, memory.mib, manifest, json.loads(success.read_text()))
        assert stack.stop() == 0, stack.tail()
        return result
    finally:
        memory.over.set()
        if stack.process.poll() is None:
            stack.kill()


def invocations_of(stack):
    return int(sum(stack.metric("Invocations", START, "Sum", namespace="AWS/Lambda", FunctionName=SEAL)))


def check(result, objects):
    """That the manifest names each object once, and its sums are right."""
    keys = [entry["key"] for entry in result.manifest["objects"]]
    assert len(keys) == len(set(keys)) == objects, len(keys)
    totals = result.manifest["totals"]
    assert totals == result.success["totals"]
    expected = {"objects": objects, "records": objects, "events": 2 * objects, "bytes": 4 * objects, "overlaps": 0,
                "unreadable_objects": 0, "uncompressed_bytes": 300 * objects}
    assert {name: totals[name] for name in expected} == expected, totals
    assert result.peak_mib < MEMORY_MIB, result.peak_mib
    assert result.kills > 0, "it was sealed before anything could be killed: more objects are needed"


def main():
    objects, timeout = int(os.environ.get("OBJECTS", 200_000)), int(os.environ.get("TIMEOUT", 60))
    with tempfile.TemporaryDirectory(prefix="large-hour-") as directory:
        result = seal(Path(directory), objects, timeout)
    check(result, objects)
    print(f"{objects:,} objects sealed in {result.seconds:.0f} s by {result.invocations} invocations of at most {timeout} s, "
          f"{result.kills} killed; at most {result.peak_mib:.1f} MiB; manifest and totals right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
