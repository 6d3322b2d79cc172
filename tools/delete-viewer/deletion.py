"""Finds what is a viewer's in the bucket, hour by hour, and deletes it.

An hour that is begun has a marker under `deletions/pending/` until it is sealed and in Parquet again: whoever runs the command after it was
killed finishes it.
"""

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import columnar
import landed_object
from botocore.exceptions import ClientError
from landed_object import GONE, KEY, Problem
from lines import members
from rejected import RejectedLines, Search, TooMuch

PENDING = "deletions/pending/"
UNLOADABLE = "unloadable/search/"
# Objects that are read at once.
READERS = 16
# A seal comes every ten minutes, a compaction takes fifteen at most, and goes on each quarter of an hour.
WAIT_SECONDS = 2400
# Each finds what landed or came back during the one before.
PASSES = 5


@dataclass
class Found:
    """What of an hour is the viewer's: lines by object, and rows."""

    hour: str
    lines: dict = field(default_factory=dict)
    rejected: dict = field(default_factory=dict)
    unloadable: dict = field(default_factory=dict)
    rows: int = 0
    pending: dict | None = None

    def is_clean(self):
        return not (self.lines or self.rejected or self.unloadable or self.rows or self.pending is not None)

    def counts(self):
        kinds = {"lines": self.lines, "rejected_lines": self.rejected, "unloadable_lines": self.unloadable}
        counts = {name: sum(objects.values()) for name, objects in kinds.items()}
        return {"hour": self.hour, "objects": sum(map(len, kinds.values())), **counts, "rows": self.rows}


class Deletion:
    def __init__(self, stack, viewer, poll_seconds):
        self.stack, self.viewer, self.poll_seconds = stack, viewer, poll_seconds
        self.s3, self.bucket = stack.client("s3"), stack.landing_bucket
        self.search = Search(viewer.wanted.values())
        # What can't be read, by key, and what can't be rewritten, by hour and key: a pass leaves such hours to a person.
        self.problems, self.refused = {}, {}
        # The hours that were begun, and how many lines were deleted of each, by kind.
        self.begun, self.deleted = set(), {}

    def forget_problems(self):
        """Those of hours that the next pass reads again."""
        self.problems = {key: problem for key, problem in self.problems.items() if any(hour in key for hour in self.refused)}

    # ---- What is there ----

    def listing(self, prefix):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item for page in pages for item in page.get("Contents", [])]

    def get(self, key):
        try:
            return self.s3.get_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in GONE:
                return None
            raise

    def json(self, key):
        found = self.get(key)
        return found and json.load(found["Body"])

    def sealed(self, hour):
        return self.json(f"events/{hour}/_SUCCESS")

    def hours(self, first, last):
        """Those that have anything, within two dates, and those that a run before has left unfinished."""
        prefixes = [f"{kind}dt=" for kind in ("events/", "rejected/", "columnar/", f"{UNLOADABLE}events/")]
        dates = [date for prefix in prefixes for date in self.folders(prefix)]
        within = (date for date in dates if str(first or "") <= date.rsplit("dt=", 1)[1][:10] <= str(last or "9"))
        hours = {hour[hour.index("dt="):-1] for date in within for hour in self.folders(f"{date}hour=")}
        return sorted(hours | {item["Key"].removeprefix(PENDING) for item in self.listing(PENDING)})

    def folders(self, prefix):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        return [folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes", [])]

    def objects(self, kind, hour):
        return [item for item in self.listing(f"{kind}/{hour}/") if KEY.fullmatch(item["Key"])]

    def columnar(self, hour):
        return columnar.Columnar(self.s3, self.bucket, hour, self.listing(f"columnar/{hour}/"))

    def copies(self, hour):
        """Parts with texts that were cut, which load-warehouse had COPY read."""
        return [item for item in self.listing(f"warehouse/{hour}/") if item["Key"].endswith(".parquet")]

    # ---- Finding ----

    def find(self, hour):
        folder, found = self.columnar(hour), Found(hour)
        found.pending = self.json(PENDING + hour)
        found.rows = sum(columnar.rows_of(self.s3, self.bucket, part, self.viewer) for part in folder.parts + self.copies(hour))
        events = self.objects("events", hour)
        if found.rows or not self.is_all_in_parquet(hour, folder, events):
            found.lines = self.count(events, self.viewer.has_line)
        rejected = self.objects("rejected", hour)
        found.rejected = self.count(rejected, self.rejected_lines(rejected))
        unloadable = [item["Key"] for item in self.listing(f"{UNLOADABLE}events/{hour}/")]
        found.unloadable = {key: count for key in unloadable if (count := self.delete_unloadable(key, is_dry=True))}
        return found

    def is_all_in_parquet(self, hour, folder, events):
        """Whether an hour's Parquet has each line that is there now, with the fields as they are now: then none needs to be read."""
        sealed = self.sealed(hour)
        if not sealed or not folder.is_of(sealed) or not folder.is_whole():
            return False
        paths = self.viewer.paths
        if any(fields.get(name) != paths[name] for fields in folder.fields() for name in self.viewer.wanted):
            return False
        manifest = self.json(f"events/{hour}/_MANIFEST.json") or {"objects": []}
        entries = {entry["key"]: entry["bytes"] for entry in manifest["objects"] if entry["key"].startswith("events/")}
        return entries == {item["Key"]: item["Size"] for item in events}

    def count(self, objects, is_viewers):
        """Lines by object. What can't be read is a problem, and the others are read."""
        def count_in(item):
            try:
                landed = landed_object.read(self.s3, self.bucket, item["Key"])
            except Problem as problem:
                self.problems[item["Key"]] = problem
                return 0
            return sum(is_viewers(line[:-1], landed.event_format) for line in landed.lines) if landed else 0

        with ThreadPoolExecutor(READERS) as readers:
            counts = dict(zip((item["Key"] for item in objects), readers.map(count_in, objects)))
        return {key: count for key, count in counts.items() if count}

    def rejected_lines(self, objects):
        """Which of an hour's rejected lines are the viewer's."""
        rejected = RejectedLines(self.search)
        for item in objects:
            try:
                landed = landed_object.read(self.s3, self.bucket, item["Key"])
            except Problem as problem:
                self.problems[item["Key"]] = problem
                continue
            for line in landed.lines if landed else []:
                rejected.add(line)
        rejected.join()

        def is_viewers(line, _):
            try:
                return rejected.has_line(line)
            except TooMuch as problem:
                self.problems[f"rejected lines of {objects[0]['Key'].rsplit('/', 1)[0]}"] = problem
                return False

        return is_viewers

    # ---- Deleting ----

    def delete(self, found):
        """Everything of an hour but its Parquet, which follows once the hour is sealed again."""
        hour, before = found.hour, found.pending or {}
        has_parquet = bool(found.rows or found.lines) and bool(self.listing(f"columnar/{hour}/") or self.copies(hour))
        has_parquet = has_parquet or before.get("columnar", False)
        # A seal also has a folder that is half deleted made whole, so that it can settle.
        pending = {"reseal": bool(found.lines or found.rejected or has_parquet) or before.get("reseal", False), "columnar": has_parquet}
        if found.pending is None:
            self.settle(hour)
        self.s3.put_object(Bucket=self.bucket, Key=PENDING + hour, Body=json.dumps(pending).encode())
        self.begun.add(hour)
        rejected = self.rejected_lines(self.objects("rejected", hour)) if found.rejected else None
        for objects, is_viewers in ((found.lines, self.viewer.has_line), (found.rejected, rejected)):
            for key in objects:
                self.delete_lines(hour, key, is_viewers)
        for key in found.unloadable:
            self.note(hour, key, self.delete_unloadable(key))
        return pending

    def delete_lines(self, hour, key, is_viewers):
        """What can't be rewritten does not keep the others from it."""
        try:
            self.note(hour, key, landed_object.delete_lines(self.s3, self.bucket, key, is_viewers))
        except Problem as problem:
            self.refused.setdefault(hour, {})[key] = problem

    def note(self, hour, key, count):
        kind = "unloadable_lines" if key.startswith(UNLOADABLE) else "rejected_lines" if key.startswith("rejected/") else "lines"
        counts = self.deleted.setdefault(hour, {})
        counts[kind] = counts.get(kind, 0) + count

    def delete_unloadable(self, key, is_dry=False):
        """Lines that a search cluster refused: `{"type":…,"reason":…,"line":…}`. How many are the viewer's."""
        for _ in range(landed_object.ATTEMPTS):
            found = self.get(key)
            if found is None:
                return 0
            lines = found["Body"].read().split(b"\n")[:-1]
            kept = [line for line in lines if not self.is_unloadable(line)]
            if is_dry or len(kept) == len(lines):
                return len(lines) - len(kept)
            try:
                if kept:
                    body = b"".join(line + b"\n" for line in kept)
                    self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=found["ContentType"], IfMatch=found["ETag"])
                else:
                    self.s3.delete_object(Bucket=self.bucket, Key=key, IfMatch=found["ETag"])
                return len(lines) - len(kept)
            except ClientError as error:
                if error.response["Error"]["Code"] not in landed_object.CHANGED:
                    raise
        raise Problem(f"{key} keeps changing; run this again")

    def is_unloadable(self, line):
        try:
            kept = dict(members(line.decode()))
        except ValueError:
            return self.search.finds(line)
        if '"line"' not in kept:
            return self.search.finds_in_body(base64.b64decode(json.loads(kept['"line_base64"'])))
        return self.viewer.has_line(kept['"line"'].encode())

    # ---- Sealing and Parquet ----

    def finish(self, pending):
        """Has hours sealed and written again; `pending` has what each needs. An hour that is not sealed yet needs nothing."""
        seals = {hour: self.sealed(hour) for hour in pending}
        reseals = {hour: sealed["sealed_at"] for hour, sealed in seals.items() if sealed and pending[hour]["reseal"]}
        for hour in reseals:
            self.s3.put_object(Bucket=self.bucket, Key=f"late/{hour}", Body=b"")
        if reseals:
            print(f"{len(reseals)} hours are sealed again, which seal-partition does within ten minutes …", flush=True)
        for hour, before in reseals.items():
            self.wait(partial(self.is_resealed, hour, before), f"{hour} is not sealed again: is seal-partition running?")
        for hour, needs in pending.items():
            if seals[hour] and needs["columnar"]:
                self.settle(hour)
                print(f"columnar/{hour}/ is written from the beginning; until then readers find no rows of it …", flush=True)
                columnar.write_again(self.stack, hour, self.listing, self.sealed)
            self.s3.delete_object(Bucket=self.bucket, Key=PENDING + hour)

    def is_resealed(self, hour, before):
        sealed = self.sealed(hour)
        manifest = self.get(f"events/{hour}/_MANIFEST.json")
        if not sealed or sealed["sealed_at"] == before or not manifest or manifest["ETag"] != sealed["manifest"]:
            return False
        entries = {entry["key"]: entry["bytes"] for entry in json.load(manifest["Body"])["objects"]}
        there = {item["Key"]: item["Size"] for kind in ("events", "rejected") for item in self.objects(kind, hour)}
        return {key: entries.get(key) for key in there} == there

    def settle(self, hour):
        """Waits until no compaction is at work on an hour: it might write rows that it read before they were deleted."""
        def is_settled():
            sealed, folder = self.sealed(hour), self.columnar(hour)
            return not sealed or not folder.plans or bool(folder.success and folder.success["sealed_at"] >= sealed["sealed_at"])

        self.wait(is_settled, f"columnar/{hour}/ is not compacted as its hour is sealed; see compact-partition in docs/RUNBOOK.md")

    def wait(self, is_done, problem):
        until = time.monotonic() + WAIT_SECONDS
        while not is_done():
            if time.monotonic() > until:
                raise Problem(f"{problem} Run this again: it goes on")
            time.sleep(self.poll_seconds)
