"""The soak: traffic while every fault of the one-machine stack fires, and an account of every event at the end.

    make soak MINUTES=10 SEED=1

It exits 1 when an event is missing or doubled beyond what docs/DELIVERY.md allows.
"""

import os
import re
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from account import settle
from faults import Faults, read_stream
from landed import verify_all
from players import Players
from stack import INGEST, LANDING, Stack, wait_for

# Middling batches and a short window: many writes, so that many of them can go wrong, and no backlog that lands only when
# the faults are over.
PARAMETERS = "BatchSize=50 BatchingWindowSeconds=1 ShardCount=3 LandingTimeoutSeconds=20"
# Calls of PutRecords are ten times as many as writes to S3; the rates of resharding are per second.
RATES = {"all": 0.04, "mapping.restart": 0.1, "shard.split": 0.15, "shard.merge": 0.15} | {
    f"kinesis.{fault}": 0.006 for fault in ("partial", "throttled", "error", "slow", "late", "unanswered", "kill")
}
LANDING_SECONDS = 180
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MemoryCurve(threading.Thread):
    """The resident memory of each function's processes, sampled until it is over."""

    INTERVAL_SECONDS = 1

    def __init__(self, stack):
        super().__init__(daemon=True)
        self.stack, self.over, self.samples = stack, threading.Event(), defaultdict(list)
        self.start()

    def run(self):
        while not self.over.wait(self.INTERVAL_SECONDS):
            for function in (INGEST, LANDING):
                sizes = [size for pid in self.stack.function_processes(function) if (size := resident_mib(pid))]
                if sizes:
                    self.samples[function].append(max(sizes))

    def ends(self, function):
        """The median of the largest process in the first and in the last fifth of the time, MiB."""
        samples = self.samples[function]
        fifth = max(1, len(samples) // 5)
        return median(samples[:fifth]), median(samples[-fifth:])


def resident_mib(pid):
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
    except (FileNotFoundError, ProcessLookupError):
        return None


def soak(directory, minutes, seed, progress=print):
    """Runs it; the account, the lines of the table, and the memory curve."""
    plan = " ".join([f"seed={seed}", *(f"{name}={rate}" for name, rate in RATES.items())])
    stack = Stack(directory, parameters=PARAMETERS, FAULTS=plan)
    try:
        return observe(stack, minutes, seed, progress)
    finally:
        if stack.process.poll() is None:
            stack.kill()


def observe(stack, minutes, seed, progress):
    faults, memory = Faults(stack), MemoryCurve(stack)
    with Players(stack, seed=seed, bad_share=0.03) as players:
        end = time.monotonic() + minutes * 60
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(10, left))
            progress(f"{max(0, end - time.monotonic()):4.0f} s left: {len(players.accepted):,} events answered 2xx, "
                     f"{sum(faults.fired.values()):,} faults")
        memory.over.set()
        faults.end()
    faults.wait_for_held_writes()
    progress("faults and traffic are over: waiting until all is landed")
    records = read_stream(stack)
    wait_until_landed(stack, sum(len(record.lines) for record in records))
    metadata = verify_all(stack)
    fired, untold = faults.fired, faults.stored_untold()
    assert stack.stop() == 0, stack.tail()
    account = settle(players, records, untold, stack.lines("events"), stack.lines("rejected"))
    return account, [*table(account), *details(stack, players, fired, len(metadata), memory)], memory


def wait_until_landed(stack, lines):
    """Until there are as many lines as the stream has, or too many; what they say is looked at later."""
    def count():
        return len(stack.lines("events")) + len(stack.lines("rejected"))

    try:
        wait_for(lambda: count() >= lines, LANDING_SECONDS)
    except AssertionError:
        print(f"only {count():,} of {lines:,} lines landed in {LANDING_SECONDS} s")


def table(account):
    rows = {
        "sent": account.sent,
        "answered 2xx": account.accepted,
        "refused (503, named as not stored; then sent again)": account.told_not_stored,
        "given up by their players": account.given_up,
        "landed": account.landed,
        "missing": len(account.missing),
        "doubled": len(account.doubled) + len(account.unexplained),
        "twice on the stream under one id, an answer was lost": account.told_by_id,
        "rejected bodies answered 400": account.rejected,
        "of these not kept whole": len(account.rejected_missing),
    }
    return ["events", *(f"  {name:<56}{count:>9,}" for name, count in rows.items())]


def details(stack, players, fired, objects, memory):
    log = stack.errors_path.read_text(errors="replace")
    recoveries = {
        "entries put on the stream again by ingest": metric_sum(stack, INGEST, "RetriedEntries"),
        "POSTs sent again by players": sum(players.answers.values()) - players.answers[200] - players.answers[400],
        "batches sent again": len(re.findall("sent again|asked for again", log)) + fired["mapping.restart"],
        "objects replaced": metric_sum(stack, LANDING, "ReplacedObjects"),
        "objects with events at the end": objects,
    }
    return [
        "faults", *(f"  {name:<56}{count:>9,}" for name, count in fired.items()),
        "recoveries", *(f"  {name:<56}{count:>9,}" for name, count in recoveries.items()),
        "memory of the largest process, MiB, first and last fifth",
        *(f"  {name:<56}{first:>9.1f}{last:>9.1f}"
          for name, (first, last) in ((name, memory.ends(name)) for name in (INGEST, LANDING))),
        f"answers: {dict(players.answers)}",
    ]


def metric_sum(stack, function, name):
    return sum(map(int, re.findall(rf'"{name}":(\d+)', stack.function_log(function))))


def main():
    minutes, seed = float(os.environ.get("MINUTES", 10)), int(os.environ.get("SEED", 1))
    print(f"soak of {minutes:g} minutes, SEED={seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        account, lines, _ = soak(Path(directory), minutes, seed)
    print(*lines, sep="\n")
    for name in ("missing", "doubled", "unexplained", "rejected_missing"):
        for one in getattr(account, name)[:5]:
            print(f"{name}: {one}")
    print(f"{'good' if account.is_good else 'NOT GOOD'}: SEED={seed}")
    return 0 if account.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
