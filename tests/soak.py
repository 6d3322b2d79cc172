"""The soak: traffic while every fault of the one-machine stack fires, and an account of every event at the end.

    make soak MINUTES=10 SEED=1                   (FRONT_DOOR=server: with ingest-server in ingest's place)

First every fault fires; then, for a fifth of that time, all but those that kill functions, so that the memory of processes
which live can be seen. It exits 1 when an event is missing, doubled or out of order beyond what docs/DELIVERY.md allows,
when a fault did not fire, or when the memory of a function grows.
"""

import os
import re
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from support.account import WRONG, Account, settle
from support.faults import Faults, read_stream
from support.landed import from_stream, verify_all
from support.players import Players
from support.stack import LANDING, Stack, wait_for

# Middling batches and a short window: many writes, so that many of them can go wrong, and no backlog that lands only when
# the faults are over.
PARAMETERS = "BatchSize=50 BatchingWindowSeconds=1 ShardCount=3 LandingTimeoutSeconds=20"
# Calls of PutRecords are several times as many as writes to S3; the rates of resharding are per second. In a minute each
# fault is expected some ten times.
KILLS = ("kinesis.kill", "s3.kill-before", "s3.kill-during", "s3.kill-after")
RATES = {"all": 0.06, "mapping.restart": 0.1, "shard.split": 0.25, "shard.merge": 0.25} | {
    f"kinesis.{fault}": 0.012 for fault in ("partial", "throttled", "error", "slow", "late", "unanswered", "kill")
} | dict.fromkeys(("s3.kill-before", "s3.kill-during", "s3.kill-after"), 0.1)
# Some five hundred events a second: as many as a small machine accounts for.
TRAFFIC = {"events_per_post": (1, 20), "pause": 0.2, "bad_share": 0.03}
# How often each fault must have fired, and how much traffic there must have been, in a soak of ten minutes or more.
LONG_MINUTES = 10
LONG_FIRED, LONG_SENT = 50, 100_000
# How much longer each part goes on at most when it has not shown what it is for: draws can be unlucky.
EXTRA_SECONDS = 60
# The part without kills: first until what was killed last is there again, then this share of the time under all faults,
# and never less than a curve needs.
WARM_UP_SECONDS = 5
STEADY_SHARE, STEADY_SECONDS = 1 / 5, 20
MOST_GROWTH, GROWTH_MIB = 1.5, 2
LANDING_SECONDS = 180
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MemoryCurve(threading.Thread):
    """The resident memory of each function's processes, sampled until it is over; how it grew in the last `seconds` of that."""

    INTERVAL_SECONDS = 0.5

    def __init__(self, stack, seconds):
        super().__init__(daemon=True)
        self.stack, self.over, self.samples = stack, threading.Event(), {function: [] for function in (stack.ingest, LANDING)}
        self.window = int(seconds / self.INTERVAL_SECONDS)
        self.start()

    def run(self):
        while not self.over.wait(self.INTERVAL_SECONDS):
            for function, samples in self.samples.items():
                sizes = {pid: size for pid in self.stack.function_processes(function) if (size := resident_mib(pid))}
                samples.append(sizes)

    def end(self):
        self.over.set()
        self.join()
        return self.grown()

    def grown(self):
        return {function: growth(samples[-self.window:]) for function, samples in self.samples.items()}

    def is_known(self):
        return all(grown.first is not None for grown in self.grown().values())


@dataclass
class Growth:
    """The process that grew most of those that were there in the first fifth of the samples and in the last: its medians
    then, MiB. Both are None when there was no such process."""

    first: float | None
    last: float | None
    processes: int

    @property
    def is_good(self):
        return self.first is not None and self.last <= self.first * MOST_GROWTH + GROWTH_MIB

    def __str__(self):
        if self.first is None:
            return "no process lived that long"
        return f"{self.first:.1f} -> {self.last:.1f} ({self.processes} processes)"


def growth(samples):
    """How the memory of processes grew. samples: at each time the sizes of all processes, by their ids."""
    fifth = max(1, len(samples) // 5)
    first, last = sizes_by_process(samples[:fifth]), sizes_by_process(samples[-fifth:])
    ends = [(median(first[pid]), median(last[pid])) for pid in first.keys() & last.keys()]
    first, last = max(ends, key=lambda ends: ends[1] / ends[0], default=(None, None))
    return Growth(first, last, len(ends))


def sizes_by_process(samples):
    sizes = defaultdict(list)
    for sample in samples:
        for pid, size in sample.items():
            sizes[pid].append(size)
    return sizes


def resident_mib(pid):
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
    except (FileNotFoundError, ProcessLookupError):
        return None


@dataclass
class Soaked:
    """What became of a soak."""

    minutes: float
    seed: int
    account: Account
    frames: int
    fired: dict
    memory: dict
    details: list = field(repr=False)

    def verdicts(self):
        """(whether it is good, what is judged), in the order of the table."""
        account = self.account
        fired, sent = least_counts(self.minutes)
        least = min(self.fired, key=self.fired.get, default=None)
        yield account.sent >= sent, f"events sent: {account.sent:,} (at least {sent:,})"
        yield not account.given_up, f"events given up by their players: {account.given_up:,}"
        for name in WRONG:
            yield not getattr(account, name), f"{name.replace('_', ' ')}: {len(getattr(account, name)):,}"
        yield account.ordered > 0, f"events whose order is promised: {account.ordered:,} (at least 1)"
        yield self.frames > 0, f"records that are zstd frames: {self.frames:,} (at least 1)"
        yield (least is not None and self.fired[least] >= fired,
               f"least frequent fault: {least}, {self.fired.get(least, 0):,} times (at least {fired})")
        yield len(self.memory) == 2, f"whose memory was watched: {', '.join(self.memory)} (ingest and landing)"
        for function, grown in self.memory.items():
            yield grown.is_good, f"memory of {function}, MiB: {grown} (at most {MOST_GROWTH:g} times and {GROWTH_MIB})"

    @property
    def is_good(self):
        return all(good for good, _ in self.verdicts())

    def table(self):
        return [
            *counts(self.account), *self.details,
            "verdicts", *(f"  {'good    ' if good else 'NOT GOOD'}  {judged}" for good, judged in self.verdicts()),
            f"{'good' if self.is_good else 'NOT GOOD'}: SEED={self.seed}",
        ]


def least_counts(minutes):
    """How often each fault must fire, and how many events must be sent."""
    return (LONG_FIRED, LONG_SENT) if minutes >= LONG_MINUTES else (1, 1)


def soak(directory, minutes, seed, progress=print):
    """Runs it."""
    front_door = os.environ.get("FRONT_DOOR", "lambda")
    stack = Stack(directory, parameters=PARAMETERS, FAULTS=plan(seed, RATES), FRONT_DOOR=front_door)
    try:
        return observe(stack, minutes, seed, progress)
    finally:
        if stack.process.poll() is None:
            stack.kill()


def plan(seed, rates):
    return " ".join([f"seed={seed}", *(f"{name}={rate}" for name, rate in rates.items())])


def observe(stack, minutes, seed, progress):
    faults = Faults(stack)
    with Players(stack, seed=seed, **TRAFFIC) as players:
        def play(seconds, what, is_over=lambda: False):
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0 and not is_over():
                time.sleep(min(10, left))
                progress(f"{what}, {max(0, end - time.monotonic()):4.0f} s left: {len(players.accepted):,} events answered "
                         f"2xx, {sum(faults.fired.values()):,} faults")

        play(minutes * 60, "all faults")
        enough, _ = least_counts(minutes)
        play(EXTRA_SECONDS, "all faults, until each has fired", lambda: min(faults.fired.values()) >= enough)
        faults.set(plan(seed, RATES | dict.fromkeys(KILLS, 0)))
        play(WARM_UP_SECONDS, "no kills")
        steady = max(STEADY_SECONDS, minutes * 60 * STEADY_SHARE)
        memory = MemoryCurve(stack, steady)
        play(steady, "no kills")
        # A machine that is busy lets functions run out of time, which ends their processes, too.
        play(EXTRA_SECONDS, "no kills, until a process of each function lived so long", memory.is_known)
        grown = memory.end()
        faults.end()
    faults.wait_for_held_writes()
    progress("faults and traffic are over: waiting until all is landed")
    records = read_stream(stack)
    wait_until_landed(stack, sum(len(record.lines) for record in records))
    metadata = verify_all(stack)
    fired, unacknowledged = faults.fired, faults.stored_unacknowledged()
    assert stack.stop() == 0, stack.tail()
    account = settle(players, records, unacknowledged, stack.lines("events"), stack.lines("rejected"))
    frames = sum(record.is_frame for record in records)
    return Soaked(minutes, seed, account, frames, fired, grown, details(stack, players, fired, len(metadata), grown))


def wait_until_landed(stack, lines):
    """Until as many lines landed from the stream as it has, or too many; what they say is looked at later."""
    def count():
        return from_stream(stack.lines("events"), stack.lines("rejected"))

    try:
        wait_for(lambda: count() >= lines, LANDING_SECONDS)
    except AssertionError:
        print(f"only {count():,} of {lines:,} lines landed in {LANDING_SECONDS} s")


def counts(account):
    rows = {
        "sent": account.sent,
        "answered 2xx": account.accepted,
        "refused (503, named as not stored; then sent again)": account.reported_not_stored,
        "given up by their players": account.given_up,
        "landed": account.landed,
        "missing": len(account.missing),
        "doubled": len(account.doubled) + len(account.unexplained),
        "twice on the stream under one id, an answer was lost": account.doubled_under_one_id,
        "whose order is promised": account.ordered,
        "of these out of order": len(account.out_of_order),
        "rejected: bodies answered 400": account.rejected,
        "of these not kept whole": len(account.rejected_missing),
    }
    return ["events", *(f"  {name:<56}{count:>9,}" for name, count in rows.items())]


def details(stack, players, fired, objects, memory):
    log = stack.errors_path.read_text(errors="replace")
    recoveries = {
        "entries put on the stream again by ingest": metric_sum(stack, stack.ingest, "RetriedEntries"),
        "POSTs sent again by players": sum(players.answers.values()) - players.answers[200] - players.answers[400],
        "batches sent again": len(re.findall("sent again", log)) + fired["mapping.restart"],
        "objects replaced": metric_sum(stack, LANDING, "ReplacedObjects"),
        "objects with events at the end": objects,
    }
    return [
        "faults", *(f"  {name:<56}{count:>9,}" for name, count in fired.items()),
        "recoveries", *(f"  {name:<56}{count:>9,}" for name, count in recoveries.items()),
        "memory without kills: the process that grew most, MiB, first and last fifth",
        *(f"  {name:<56}{grown}" for name, grown in memory.items()),
        f"answers: {dict(players.answers)}",
    ]


def metric_sum(stack, function, name):
    return sum(map(int, re.findall(rf'"{name}":(\d+)', stack.function_log(function))))


def main():
    minutes, seed = float(os.environ.get("MINUTES", 10)), int(os.environ.get("SEED", 1))
    print(f"soak of {minutes:g} minutes, SEED={seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        soaked = soak(Path(directory), minutes, seed)
    for name in WRONG:
        for one in getattr(soaked.account, name)[:5]:
            print(f"{name}: {one}")
    print(*soaked.table(), sep="\n")
    return 0 if soaked.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
