"""Lands batches of Kinesis records in S3, as bzip2-compressed JSON lines."""

import base64
import bz2
import hashlib
import json
import os
import time
from datetime import datetime, timezone

import boto3
from botocore.exceptions import BotoCoreError, ClientError

BUCKET_NAME = os.environ["BUCKET_NAME"]
FUNCTION_NAME = os.environ["AWS_LAMBDA_FUNCTION_NAME"]

s3 = boto3.client("s3")


def handler(batch, context):
    records = batch["Records"]
    groups = group(records)
    try:
        stored = [store(*name, group) for name, group in groups.items()]
    except (BotoCoreError, ClientError) as problem:
        print(f"batch not landed; it will be sent again: {problem}")
        return {"batchItemFailures": [{"itemIdentifier": records[0]["kinesis"]["sequenceNumber"]}]}
    log(records, groups, stored)
    return {"batchItemFailures": []}


def group(records):
    """The lines by kind and hour of arrival: what becomes one object each."""
    groups = {}
    for record in records:
        kinesis = record["kinesis"]
        arrival = datetime.fromtimestamp(kinesis["approximateArrivalTimestamp"], timezone.utc)
        hour = arrival.strftime("dt=%Y-%m-%d/hour=%H")
        shard_id = record["eventID"].partition(":")[0]
        for line in base64.b64decode(kinesis["data"]).splitlines():
            kind, line, received_at = read(line, arrival)
            found = groups.setdefault(
                (kind, hour, shard_id), {"lines": [], "received_at": [], "sequence_numbers": {}}
            )
            found["lines"].append(line)
            found["received_at"].append(received_at)
            found["sequence_numbers"][kinesis["sequenceNumber"]] = None
    return groups


def read(line, arrival):
    """What a line is: an event, something rejected, or no JSON object, which is kept as rejected."""
    try:
        parsed = json.loads(line)
        if isinstance(parsed, dict):
            kind = "rejected" if "rejected" in parsed else "events"
            return kind, line, parsed.get("received_at") or timestamp(arrival)
    except (ValueError, RecursionError):
        pass
    rejected = {"reason": "foreign_record", "body_base64": base64.b64encode(line).decode()}
    line = json.dumps({"v": 1, "received_at": timestamp(arrival), "rejected": rejected}, separators=(",", ":"))
    return "rejected", line.encode(), timestamp(arrival)


def timestamp(time):
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def store(kind, hour, shard_id, group):
    """Writes a group's object. One that is there is of an earlier attempt, and is replaced if it is still the same."""
    sequence_numbers = list(group["sequence_numbers"])
    lines = b"\n".join(group["lines"]) + b"\n"
    body = bz2.compress(lines)
    key = f"{kind}/{hour}/{shard_id}-{sequence_numbers[0]}.jsonl.bz2"
    put = {
        "Bucket": BUCKET_NAME,
        "Key": key,
        "Body": body,
        "ContentType": "application/x-bzip2",
        "Metadata": {
            "last-sequence-number": sequence_numbers[-1],
            "record-count": str(len(sequence_numbers)),
            "event-count": str(len(group["lines"])),
            "uncompressed-bytes": str(len(lines)),
            "uncompressed-sha256": hashlib.sha256(lines).hexdigest(),
            "earliest-received-at": min(group["received_at"]),
            "latest-received-at": max(group["received_at"]),
        },
    }
    try:
        s3.put_object(**put, IfNoneMatch="*")
    except ClientError as problem:
        if problem.response["ResponseMetadata"]["HTTPStatusCode"] != 412:
            raise
        s3.put_object(**put, IfMatch=s3.head_object(Bucket=BUCKET_NAME, Key=key)["ETag"])
    return len(lines), len(body)


def log(records, groups, stored):
    """One line of metrics in CloudWatch's embedded format."""
    metrics = {
        "LandedRecords": len(records),
        "LandedEvents": sum(len(group["lines"]) for group in groups.values()),
        "LandedObjects": len(groups),
        "UncompressedBytes": sum(uncompressed for uncompressed, _ in stored),
        "CompressedBytes": sum(compressed for _, compressed in stored),
    }
    directive = {
        "Namespace": "Playhead",
        "Dimensions": [["FunctionName"]],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in metrics],
    }
    aws = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    print(json.dumps({"_aws": aws, "FunctionName": FUNCTION_NAME, **metrics}))
