"""Finds rows in the Parquet of an hour, and has an hour written from the beginning."""

import io
import json
import time
from functools import reduce

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from botocore.config import Config
from botocore.exceptions import ClientError
from landed_object import Problem
from lines import promoted_fields

# Attempts at an hour that others write at the same time, and invocations that one may take: fifteen minutes each.
ATTEMPTS, INVOCATIONS = 5, 40
READ_AHEAD_BYTES = 1024 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
MAX_DELETED = 1_000
# A little longer than a function may run.
COMPACTION, LOADER = "CompactPartitionFunction", "LoadWarehouseFunction"
# What compact-partition says of an old hour when its time is over: it goes on when it is invoked again.
UNFINISHED = "the time was over before all parts were written"
PATIENT = Config(read_timeout=910, retries={"total_max_attempts": 1}, tcp_keepalive=True)


class Unfinished(Problem):
    """A function had no time for all of it."""


class RangeFile(io.RawIOBase):
    """An object of which only what is asked for is read."""

    def __init__(self, s3, bucket, part):
        self.s3, self.bucket, self.part, self.at = s3, bucket, part, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.part["Size"]}
        self.at = base[whence] + offset
        return self.at

    def readinto(self, buffer):
        end = min(self.at + len(buffer), self.part["Size"])
        if end <= self.at:
            return 0
        got = self.s3.get_object(Bucket=self.bucket, Key=self.part["Key"], Range=f"bytes={self.at}-{end - 1}", IfMatch=self.part["ETag"])
        content = got["Body"].read()
        buffer[:len(content)] = content
        self.at += len(content)
        return len(content)


class Columnar:
    """An hour's folder under `columnar/`."""

    def __init__(self, s3, bucket, hour, listed):
        self.s3, self.bucket, self.hour = s3, bucket, hour
        self.folder, self.objects = f"columnar/{hour}/", listed
        by_name = {item["Key"].removeprefix(self.folder): item for item in listed}
        self.parts = [item for name, item in by_name.items() if name.startswith("part-")]
        self.plans = [item["Key"] for name, item in by_name.items() if name.startswith("_PLAN-")]
        self.success = self.read_json("_SUCCESS") if "_SUCCESS" in by_name else None

    def read_json(self, name):
        return json.load(self.s3.get_object(Bucket=self.bucket, Key=self.folder + name)["Body"])

    def is_of(self, sealed):
        """Whether all that a seal names is here, and nothing else."""
        if not self.success or self.success["sealed_at"] != sealed["sealed_at"] or self.success["manifest"] != sealed.get("manifest"):
            return False
        named = {part["key"]: part["etag"] for part in self.success["parts"]}
        return named == {part["Key"]: part["ETag"] for part in self.parts}

    def is_whole(self):
        """Whether each line became a row, or equals one."""
        totals = self.success["totals"]
        return not any(totals[name] for name in ("missing_objects", "unreadable_objects", "not_json"))

    def fields(self):
        """The promoted fields that its parts were made with, of each plan."""
        found = []
        for key in self.plans:
            first = next(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].iter_lines())
            found.append(promoted_fields(json.loads(first)["promoted_fields"]))
        return found


def rows_of(s3, bucket, part, viewer):
    """How many rows of a part are the viewer's, and of how many more that is so only if a member of the event is what readers take for it:
    rows of lines that resemble an envelope."""
    file = pyarrow.parquet.ParquetFile(io.BufferedReader(RangeFile(s3, bucket, part), READ_AHEAD_BYTES))
    columns = {name: place for place, name in enumerate(file.schema_arrow.names)}
    wanted = {field: value for field, value in viewer.wanted.items() if field in columns}
    count = of_lookalikes = 0
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group)
        fields = [field for field, value in wanted.items() if may_hold(statistics.column(columns[field]), value)]
        if len(wanted) < len(viewer.wanted):
            # Made before a field was promoted.
            events = file.read_row_group(group, columns=["event"])["event"]
            count += sum(viewer.may_be_in(event.encode()) and viewer.has_event(event) for event in events.to_pylist())
        elif fields:
            table = file.read_row_group(group, columns=fields)
            found = [pyarrow.compute.equal(table[field], wanted[field]) for field in fields]
            count += pyarrow.compute.sum(reduce(pyarrow.compute.or_kleene, found)).as_py() or 0
        if "v" in columns and may_have_nulls(statistics.column(columns["v"])):
            of_lookalikes += lookalikes_in(file.read_row_group(group, columns=["v", "event"]), viewer)
    return count, of_lookalikes


def may_have_nulls(column):
    """Of the version of the envelope, rows of all lines without one are null; ingest writes none."""
    statistics = column.statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


def lookalikes_in(table, viewer):
    lines = table.filter(pyarrow.compute.is_null(table["v"]))["event"].to_pylist()
    return sum(viewer.has_line(line.encode()) and not viewer.has_event(line) for line in lines)


def may_hold(column, value):
    """False if a row group's smallest and largest value say that it has no such value."""
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max or not isinstance(statistics.min, str):
        return True
    return statistics.min <= value <= statistics.max


def write_again(stack, hour, listing, sealed_of):
    """Deletes an hour's folder and has compact-partition write it from what landed. Readers find the hour gone meanwhile.

    `listing` lists a prefix, and `sealed_of` reads the hour's seal.
    """
    for attempt in range(ATTEMPTS):
        # What load-warehouse had of the hour goes with it: it loads what is written now.
        for folder in ("columnar", "warehouse"):
            delete_folder(stack, [item["Key"] for item in listing(f"{folder}/{hour}/")])
        if is_compacted(stack, hour, listing, sealed_of):
            return
        time.sleep(attempt)
    raise Problem(f"columnar/{hour}/ is not what was sealed, after {ATTEMPTS} attempts: does somebody else write it? Run this again")


def delete_folder(stack, keys):
    """In one request, so that no run finds half of it. `_SUCCESS` goes first, and plans last: what a run makes by an old plan is made of
    the objects as they are now."""
    keys = sorted(keys, key=lambda key: (not key.endswith("_SUCCESS"), "/_PLAN-" in key, key))
    for begin in range(0, len(keys), MAX_DELETED):
        objects = [{"Key": key} for key in keys[begin:begin + MAX_DELETED]]
        answer = stack.client("s3").delete_objects(Bucket=stack.landing_bucket, Delete={"Objects": objects, "Quiet": True})
        if errors := answer.get("Errors"):
            raise Problem(f"{errors[0]['Key']} was not deleted: {errors[0].get('Message')}. Run this again: it goes on")


def is_compacted(stack, hour, listing, sealed_of):
    s3, bucket = stack.client("s3"), stack.landing_bucket
    for _ in range(INVOCATIONS):
        sealed = sealed_of(hour)
        try:
            invoke(stack, COMPACTION, f"events/{hour}/_SUCCESS", sealed["sealed_at"])
        except Unfinished:
            continue
        columnar = Columnar(s3, bucket, hour, listing(f"columnar/{hour}/"))
        if columnar.success:
            totals = columnar.success["totals"]
            has_all = totals["objects"] == sealed["totals"]["objects"] and totals["lines"] == totals["expected_lines"]
            return columnar.is_of(sealed) and len(columnar.plans) == 1 and (has_all or not columnar.is_whole())
    return False


def invoke(stack, function, key, time_of_event):
    """Has a function do what it does when a `_SUCCESS` is written."""
    record = {"eventTime": time_of_event, "s3": {"bucket": {"name": stack.landing_bucket}, "object": {"key": key}}}
    answer = stack.client("lambda", PATIENT).invoke(FunctionName=stack.physical(function), Payload=json.dumps({"Records": [record]}))
    if "FunctionError" in answer:
        said = answer["Payload"].read().decode()
        raise (Unfinished if UNFINISHED in said else Problem)(f"{function} failed at {key}: {said}")


def has_loader(stack):
    """Whether the deployment has load-warehouse. The one-machine stack has the names of all functions, so an event without records asks."""
    if not stack.resources.get(LOADER):
        return False
    try:
        stack.client("lambda", PATIENT).invoke(FunctionName=stack.physical(LOADER), Payload=json.dumps({"Records": []}))
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return False
    return True
