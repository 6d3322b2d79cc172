"""Finds what is a viewer's in the bucket, hour by hour, and deletes it.

An hour that is begun has a marker under `deletions/pending/` until it is sealed, in Parquet and in the warehouse again, with what was deleted
of it: whoever runs the command after it was killed finishes it, and records that too.
"""

import base64
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import columnar
import landed_object
from botocore.config import Config
from botocore.exceptions import ClientError
from landed_object import GONE, KEY, Problem
from lease import Lease
from lines import members
from rejected import RejectedLines, Search, TooMuch

PENDING = "deletions/pending/"
UNLOADABLE = "unloadable/search/"
# Objects and hours that are read at once.
READERS, HOURS_AT_ONCE = 16, 4
# A seal comes every ten minutes, a compaction takes fifteen at most, and goes on each quarter of an hour.
WAIT_SECONDS = 2400
# The loader is asked this many times less often than S3.
LOADER_POLLS = 3
# Each finds what landed or came back during the one before.
PASSES = 5
# How often the lease is written, at least: locally S3 is asked more often than a process can be relied upon to run.
MIN_BEAT_SECONDS = 0.5


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
    def __init__(self, stack, viewer, poll_seconds, reference=None):
        self.stack, self.viewer, self.poll_seconds, self.reference = stack, viewer, poll_seconds, reference
        self.s3, self.bucket = stack.client("s3"), stack.landing_bucket
        self.search = Search(viewer.wanted.values())
        # What can't be read, by key, and what can't be rewritten, by hour and key: a pass leaves such hours to a person.
        self.problems, self.refused = {}, {}
        # The markers of hours that are begun, and the ETags that they were last written with.
        self.run, self.markers, self.etags = uuid.uuid4().hex, {}, {}
        beat_seconds = max(poll_seconds / 2, MIN_BEAT_SECONDS)
        in_time = Config(connect_timeout=beat_seconds, read_timeout=beat_seconds, retries={"total_max_attempts": 1})
        self.lease = Lease(self.s3, stack.client("s3", in_time), self.bucket, self.run, beat_seconds)
        # How many lines and rows were deleted of each hour, by kind, and the references of the runs that this one finishes.
        self.begun, self.deleted, self.finishes = set(), {}, set()
        # Those within the dates that were asked for, and those that a run has begun.
        self.searched = set()
        self.readers = ThreadPoolExecutor(READERS)

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
        begun = {item["Key"].removeprefix(PENDING) for item in self.listing(PENDING)}
        self.searched |= hours | begun
        return sorted(hours | begun)

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

    def find_all(self, hours):
        """What there is of hours, without those that have nothing."""
        with ThreadPoolExecutor(HOURS_AT_ONCE) as finders:
            return [found for found in finders.map(self.find, hours) if not found.is_clean()]

    def find(self, hour):
        folder, found = self.columnar(hour), Found(hour)
        found.pending = self.json(PENDING + hour)
        rows = [columnar.rows_of(self.s3, self.bucket, part, self.viewer) for part in folder.parts + self.copies(hour)]
        found.rows, of_lookalikes = sum(certain for certain, _ in rows), sum(uncertain for _, uncertain in rows)
        events = self.objects("events", hour)
        if found.rows or of_lookalikes or not self.is_all_in_parquet(hour, folder, events):
            found.lines = self.count(events, self.viewer.has_line)
        # Whether such a row is the viewer's is said by its line, as long as there are lines.
        found.rows += of_lookalikes if found.lines or not events else 0
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

        counts = dict(zip((item["Key"] for item in objects), self.readers.map(count_in, objects)))
        return {key: count for key, count in counts.items() if count}

    def refuse(self, hour, key, problem):
        """Leaves it to a person, and does not keep the others from being deleted."""
        self.refused.setdefault(hour, {})[key] = problem

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
        folder = objects[0]["Key"].rsplit("/", 1)[0] if objects else ""
        if rejected.problem:
            self.problems[f"rejected lines of {folder}, in parts"] = rejected.problem

        def is_viewers(line, _):
            try:
                return rejected.has_line(line)
            except TooMuch as problem:
                self.problems[f"rejected lines of {folder}"] = problem
                return False

        return is_viewers

    # ---- Deleting ----

    def delete_all(self, found):
        """Deletes what was found; the hours that are done. One that is refused does not keep the others from it."""
        stuck = self.settle([one.hour for one in found if one.pending is None])
        return self.finish({one.hour: self.delete(one) for one in found if one.hour not in stuck})

    def delete(self, found):
        """Everything of an hour but its Parquet, which follows once the hour is sealed again. What is to be done then."""
        hour = found.hour
        pending = self.begin(found)
        rejected = self.rejected_lines(self.objects("rejected", hour)) if found.rejected else None
        for objects, is_viewers in ((found.lines, self.viewer.has_line), (found.rejected, rejected)):
            for key in objects:
                self.delete_from(hour, key, partial(landed_object.delete_lines, self.s3, self.bucket, is_viewers=is_viewers))
        for key in found.unloadable:
            self.delete_from(hour, key, self.delete_unloadable)
        return pending

    def begin(self, found):
        """Marks an hour. What a run before has deleted of it is this one's to record."""
        self.lease.check()
        hour, before = found.hour, found.pending or {}
        has_parquet = bool(found.rows or found.lines) and bool(self.listing(f"columnar/{hour}/") or self.copies(hour))
        has_parquet = has_parquet or before.get("columnar", False)
        is_anothers = before.get("run") != self.run
        for kind, count in before.get("deleted", {}).items() if is_anothers else []:
            self.add(hour, kind, count)
        references = set(before.get("references", []))
        self.finishes |= references if is_anothers else set()
        references_now = references | ({self.reference} if self.reference else set())
        self.markers[hour] = {
            # A seal also has a folder that is half deleted made whole, so that it can settle.
            "reseal": bool(found.lines or found.rejected or has_parquet) or before.get("reseal", False), "columnar": has_parquet,
            # Those of a run that was killed are found again, unless it was writing them again.
            "rows": max(found.rows, before.get("rows", 0)), "run": self.run, "references": sorted(references_now),
        }
        self.etags.pop(hour, None)
        self.mark(hour)
        self.begun.add(hour)
        return self.markers[hour]

    def mark(self, hour):
        """Keeps the marker of an hour that this run has begun up to date, unless another run has marked the hour since."""
        body = json.dumps(self.markers[hour] | {"deleted": self.deleted.get(hour, {})}).encode()
        condition = {"IfMatch": self.etags[hour]} if hour in self.etags else {}
        try:
            self.etags[hour] = self.s3.put_object(Bucket=self.bucket, Key=PENDING + hour, Body=body, **condition)["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in (*landed_object.CHANGED, *GONE):
                raise

    def unmark(self, hour):
        """Unless another run has marked the hour since: then that one does so, or the next pass, which finds it pending."""
        del self.markers[hour]
        try:
            self.s3.delete_object(Bucket=self.bucket, Key=PENDING + hour, IfMatch=self.etags.pop(hour))
        except ClientError as error:
            if error.response["Error"]["Code"] not in (*landed_object.CHANGED, *GONE):
                raise

    def forget_others(self):
        """An hour that another run has taken over is that one's to record, with what the marker said."""
        for hour in self.markers:
            if (self.json(PENDING + hour) or {}).get("run") != self.run:
                self.deleted.pop(hour, None)

    def recorded(self):
        """What was deleted is in a record now, so that no other run records it again."""
        for hour in self.markers:
            self.deleted.pop(hour, None)
            self.mark(hour)

    def delete_from(self, hour, key, delete):
        """What can't be rewritten does not keep the others from it."""
        try:
            count = delete(key)
        except Problem as problem:
            self.refuse(hour, key, problem)
            return
        kind = "unloadable_lines" if key.startswith(UNLOADABLE) else "rejected_lines" if key.startswith("rejected/") else "lines"
        self.add(hour, kind, count)
        if count:
            self.mark(hour)

    def add(self, hour, kind, count):
        counts = self.deleted.setdefault(hour, {})
        counts[kind] = counts.get(kind, 0) + count

    def delete_unloadable(self, key, is_dry=False):
        """Lines that a search cluster refused: `{"type":…,"reason":…,"line":…}`. How many are the viewer's."""
        for _ in range(landed_object.ATTEMPTS):
            found = self.get(key)
            if found is None:
                return 0
            lines = found["Body"].read().split(b"\n")[:-1]
            kept = [line for line in lines if not self.is_unloadable(key, line)]
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

    def is_unloadable(self, key, line):
        """Whether such a line is the viewer's. What is not as load-search writes it is searched as text."""
        try:
            kept = dict(members(line.decode()))
            if '"line"' in kept:
                return self.viewer.has_line(kept['"line"'].encode())
            body = base64.b64decode(json.loads(kept['"line_base64"']), validate=True)
        except (KeyError, TypeError, ValueError):
            return self.search.finds(line)
        try:
            return self.search.finds_in_body(body)
        except TooMuch as problem:
            self.problems[key] = problem
            return False

    # ---- Sealing, Parquet and the warehouse ----

    def finish(self, pending):
        """Has hours sealed, written and loaded again; `pending` has what each needs. The hours that are done: the others keep their markers.
        An hour that is not sealed yet may be listed by seal-partition now, so it is asked for another seal, too."""
        before = {hour: (self.sealed(hour) or {}).get("sealed_at") for hour in pending}
        reseals = [hour for hour, needs in pending.items() if needs["reseal"]]
        self.lease.check()
        for hour in reseals:
            self.s3.put_object(Bucket=self.bucket, Key=f"late/{hour}", Body=b"")
        if reseals := [hour for hour in reseals if before[hour]]:
            print(f"{len(reseals)} hours are sealed again, which seal-partition does within ten minutes …", flush=True)
        stuck = self.wait(reseals, lambda hour: self.is_resealed(hour, before[hour]), "{} is not sealed again: is seal-partition running?")
        hours = [hour for hour in reseals if pending[hour]["columnar"]]
        stuck |= self.settle([hour for hour in hours if hour not in stuck])
        stuck |= {hour for hour in hours if hour not in stuck and not self.write_again(hour)}
        stuck |= self.load_again([hour for hour in hours if hour not in stuck])
        return pending.keys() - stuck

    def write_again(self, hour):
        """Whether it was."""
        self.lease.check()
        print(f"columnar/{hour}/ is written from the beginning; until then readers find no rows of it …", flush=True)
        try:
            columnar.write_again(self.stack, hour, self.listing, self.sealed)
        except Problem as problem:
            self.refuse(hour, f"columnar/{hour}/", problem)
            return False
        self.add(hour, "rows", self.markers[hour]["rows"])
        self.markers[hour]["rows"] = 0
        self.mark(hour)
        return True

    def load_again(self, hours):
        """Has load-warehouse replace hours in its tables, if there is one; those that it did not."""
        if not hours or not columnar.has_loader(self.stack):
            return set()
        print(f"{len(hours)} hours are loaded into the warehouse again …", flush=True)
        problem = "warehouse/{}/_LOAD.json does not say that the hour is loaded again: the rows may still be there; see load-warehouse in docs/RUNBOOK.md."
        return self.wait(hours, self.is_loaded, problem, LOADER_POLLS * self.poll_seconds)

    def is_loaded(self, hour):
        """Whether the warehouse has an hour as Parquet has it now. If not, the loader sends it, or asks what became of what it sent."""
        key = f"columnar/{hour}/_SUCCESS"
        success, load = self.get(key), self.json(f"warehouse/{hour}/_LOAD.json")
        if success and load and load["etag"] == success["ETag"].strip('"') and load["is_committed"]:
            return True
        try:
            columnar.invoke(self.stack, columnar.LOADER, key, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}")
        except Problem as problem:
            print(f"{problem}; it is asked again …", flush=True)
        return False

    def is_resealed(self, hour, before):
        sealed = self.sealed(hour)
        manifest = self.get(f"events/{hour}/_MANIFEST.json")
        if not sealed or sealed["sealed_at"] == before or not manifest or manifest["ETag"] != sealed["manifest"]:
            return False
        entries = {entry["key"]: entry["bytes"] for entry in json.load(manifest["Body"])["objects"]}
        there = {item["Key"]: item["Size"] for kind in ("events", "rejected") for item in self.objects(kind, hour)}
        return {key: entries.get(key) for key in there} == there

    def settle(self, hours):
        """Waits until no compaction is at work on hours: it might write rows that it read before they were deleted. The hours of which
        that is not so."""
        def is_settled(hour):
            sealed, folder = self.sealed(hour), self.columnar(hour)
            return not sealed or not folder.plans or bool(folder.success and folder.success["sealed_at"] >= sealed["sealed_at"])

        return self.wait(hours, is_settled, "columnar/{} is not compacted as its hour is sealed; see compact-partition in docs/RUNBOOK.md.")

    def wait(self, hours, is_done, problem, seconds=None):
        """Waits for all of some hours at once; those of which it was in vain, and which are refused."""
        waiting, until = set(hours), time.monotonic() + WAIT_SECONDS
        while waiting := {hour for hour in sorted(waiting) if not is_done(hour)}:
            if time.monotonic() > until:
                for hour in waiting:
                    self.refuse(hour, hour, Problem(f"{problem.format(hour)} Run this again: it goes on"))
                break
            time.sleep(seconds or self.poll_seconds)
        return waiting
