"""What delete-viewer works on, in memory: a bucket, and functions that seal, compact and load its hours."""

import bz2
import hashlib
import io
import json

import pyarrow
import pyarrow.parquet
from botocore.exceptions import ClientError

FIELDS = "session_id:session_id"


def line_of(number, viewer):
    return b'{"v":1,"id":"%d","received_at":"2026-11-16T09:00:00.000Z","request_id":"r","client":{},"event":{"session_id":"%s"}}\n' % (number, viewer)


def events_of(body):
    return [json.loads(line)["event"] for line in bz2.decompress(body).splitlines()]


class MemoryS3:
    def __init__(self):
        self.objects, self.metadata, self.on_put = {}, {}, lambda key: None

    def etag(self, key):
        return f'"{hashlib.md5(self.objects[key]).hexdigest()}"'

    def check(self, key, etag):
        if etag is not None and key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "Conditional")
        if etag is not None and etag != self.etag(key):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "Conditional")

    def put_object(self, Key, Body, IfMatch=None, IfNoneMatch=None, Metadata=None, **_):
        self.check(Key, IfMatch)
        if IfNoneMatch and Key in self.objects:
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "Conditional")
        self.objects[Key], self.metadata[Key] = Body, Metadata or {}
        etag = self.etag(Key)
        self.on_put(Key)
        return {"ETag": etag}

    def get_object(self, Key, Range=None, IfMatch=None, **_):
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        self.check(Key, IfMatch)
        first, last = map(int, Range.removeprefix("bytes=").split("-")) if Range else (0, len(self.objects[Key]))
        # As botocore's, it has lines.
        body = io.BytesIO(self.objects[Key][first:last + 1])
        return {"Body": Body(body), "ETag": self.etag(Key), "Metadata": self.metadata[Key], "ContentType": "x"}

    def delete_object(self, Key, IfMatch=None, **_):
        self.check(Key, IfMatch)
        self.objects.pop(Key, None)

    def delete_objects(self, Delete, **_):
        for one in Delete["Objects"]:
            self.objects.pop(one["Key"], None)
        return {}

    def list_objects_v2(self, **_):
        return {"KeyCount": 0}

    def get_paginator(self, _):
        return self

    def paginate(self, Prefix, Delimiter=None, **_):
        keys = [key for key in sorted(self.objects) if key.startswith(Prefix)]
        if Delimiter:
            folders = {Prefix + key.removeprefix(Prefix).split(Delimiter)[0] + Delimiter for key in keys}
            return [{"CommonPrefixes": [{"Prefix": folder} for folder in sorted(folders)]}]
        return [{"Contents": [{"Key": key, "Size": len(self.objects[key]), "ETag": self.etag(key)} for key in keys]}]


class Body:
    def __init__(self, content):
        self.content = content

    def read(self):
        return self.content.read()

    def iter_lines(self):
        return iter(self.content.read().splitlines())


class Deployment:
    """Also what stands for its stack. Functions of `broken` hours do nothing."""

    def __init__(self, has_loader=True):
        self.s3, self.landing_bucket, self.name = MemoryS3(), "landing", "playhead-test"
        self.resources = {"CompactPartitionFunction": "compact", **({"LoadWarehouseFunction": "load"} if has_loader else {})}
        self.unsealed, self.uncompacted, self.unloaded, self.seals, self.warehouse = set(), set(), set(), 0, {}
        # Compactions that are left without time, and the function's words for it.
        self.unfinished, self.says = 0, "the time was over before all parts were written, and dt=… is too old for the schedule to go on with"
        self.s3.on_put = self.on_put

    def client(self, service, _=None):
        return self.s3 if service == "s3" else self

    def physical(self, name):
        return self.resources[name]

    # ---- What was there before ----

    def land(self, hour, viewers):
        """One object, sealed, in Parquet and in the warehouse."""
        content = b"".join(line_of(number, viewer) for number, viewer in enumerate(viewers))
        times = dict.fromkeys(("earliest-received-at", "latest-received-at"), f"{hour[3:13]}T{hour[-2:]}:00:00.000Z")
        count, received = str(len(viewers)), "previous=0,this=%d,next=0,elsewhere=0"
        content = content.replace(b"2026-11-16T09", f"{hour[3:13]}T{hour[-2:]}".encode())
        self.s3.put_object(f"events/{hour}/shardId-000000000000-1.jsonl.bz2", bz2.compress(content), Metadata=times | {
            "event-count": count, "uncompressed-sha256": hashlib.sha256(content).hexdigest(), "received-in": received % len(viewers)})
        self.seal(hour)
        self.compact(hour)
        for _ in range(2):
            self.load(hour)

    # ---- The functions ----

    def on_put(self, key):
        kind, hour = key.split("/", 1)
        if kind == "late" and hour not in self.unsealed:
            self.seal(hour)

    def seal(self, hour):
        self.seals += 1
        folders = tuple(f"{kind}/{hour}/shard" for kind in ("events", "rejected"))
        objects = [{"key": key, "bytes": len(body)} for key, body in self.s3.objects.items() if key.startswith(folders)]
        manifest = self.s3.put_object(f"events/{hour}/_MANIFEST.json", json.dumps({"objects": objects}).encode())["ETag"]
        self.s3.put_object(f"events/{hour}/_SUCCESS", json.dumps({
            "sealed_at": f"2026-11-17T00:00:00.{self.seals:03}Z", "manifest": manifest, "totals": {"objects": 1}}).encode())
        if hour not in self.uncompacted:
            self.compact(hour)

    def compact(self, hour):
        folder, sealed = f"columnar/{hour}", json.loads(self.s3.objects[f"events/{hour}/_SUCCESS"])
        landed = [body for key, body in self.s3.objects.items() if key.startswith(f"events/{hour}/shard")]
        rows = [{"session_id": event["session_id"]} for body in landed for event in events_of(body)]
        part = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema([("session_id", pyarrow.string())])), part)
        etag = self.s3.put_object(f"{folder}/part-00000.parquet", part.getvalue())["ETag"]
        self.s3.put_object(f"{folder}/_PLAN-0", json.dumps({"promoted_fields": FIELDS}).encode())
        totals = {"objects": len(landed), "lines": len(rows), "expected_lines": len(rows), "missing_objects": 0, "unreadable_objects": 0, "not_json": 0}
        self.s3.put_object(f"{folder}/_SUCCESS", json.dumps({
            "sealed_at": sealed["sealed_at"], "manifest": sealed["manifest"], "totals": totals, "plans": 1,
            "parts": [{"key": f"{folder}/part-00000.parquet", "etag": etag}]}).encode())

    def load(self, hour):
        """Sends the hour, and once that was done finds it committed."""
        key, etag = f"warehouse/{hour}/_LOAD.json", self.s3.etag(f"columnar/{hour}/_SUCCESS").strip('"')
        is_sent = json.loads(self.s3.objects.get(key, b"{}")).get("etag") == etag
        if is_sent:
            self.warehouse[hour] = pyarrow.parquet.read_table(io.BytesIO(self.s3.objects[f"columnar/{hour}/part-00000.parquet"])).to_pylist()
        self.s3.put_object(key, json.dumps({"etag": etag, "is_committed": is_sent}).encode())

    def invoke(self, FunctionName, Payload):
        function, broken = {"compact": (self.compact, self.uncompacted), "load": (self.load, self.unloaded)}[FunctionName]
        for record in json.loads(Payload)["Records"]:
            _, hour = record["s3"]["object"]["key"].removesuffix("/_SUCCESS").split("/", 1)
            if FunctionName == "compact" and self.unfinished:
                self.unfinished -= 1
                return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps({"errorMessage": self.says}).encode())}
            if hour not in broken:
                function(hour)
        return {}
