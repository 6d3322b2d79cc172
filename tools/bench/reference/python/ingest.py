"""Takes the events that players post and puts them on the Kinesis stream."""

import base64
import json
import os
import random
import time
import uuid
from datetime import datetime, timezone

import boto3

STREAM_NAME = os.environ["STREAM_NAME"]
FUNCTION_NAME = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
KEY_FIELDS = ("session_id", "sessionId", "viewer_id", "viewerId", "xid", "sid")

# PutRecords takes 500 records and 5 MiB a call, and a record holds 1 MiB with its key.
MAX_RECORDS = 500
MAX_CALL_BYTES = 5 * 1024 * 1024
MAX_RECORD_BYTES = 1024 * 1024
MAX_ATTEMPTS = 5

kinesis = boto3.client("kinesis")


def handler(request, context):
    body = request.get("body") or ""
    if request.get("isBase64Encoded"):
        body = base64.b64decode(body)
    try:
        items = events_of(json.loads(body))
    except (ValueError, RecursionError) as problem:
        return answer(400, {"error": {"code": "invalid_json", "message": str(problem)}})
    if not items:
        return answer(400, {"error": {"code": "no_events", "message": "the body holds no event"}})

    events = [(index, item) for index, item in enumerate(items) if isinstance(item, dict)]
    rejected = [
        {"index": index, "reason": "not_an_object"} for index, item in enumerate(items) if not isinstance(item, dict)
    ]
    records, too_large = pack(events, envelope(request, context), context.aws_request_id)
    rejected += [{"index": index, "reason": "event_too_large"} for index in too_large]
    not_stored = put(records)
    accepted = len(items) - len(rejected) - len(not_stored)
    log(accepted, len(rejected), len(not_stored), len(records), len(body))
    if not_stored:
        error = {"code": "not_stored", "message": "send the events at these indexes again"}
        return answer(
            503, {"accepted": accepted, "not_stored": sorted(not_stored), "rejected": rejected, "error": error}
        )
    return answer(200 if accepted else 400, {"accepted": accepted, "rejected": rejected})


def events_of(body):
    """One object is one event, unless its member `events` is an array."""
    if isinstance(body, list):
        return body
    if isinstance(body, dict) and isinstance(body.get("events"), list):
        return body["events"]
    return [body]


def envelope(request, context):
    """What the lines of one request have in common."""
    received_at = datetime.fromtimestamp(request["requestContext"]["timeEpoch"] / 1000, timezone.utc)
    return {
        "received_at": received_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": context.aws_request_id,
        "client": {"user_agent": request["headers"].get("user-agent")},
    }


def pack(events, common, request_id):
    """Records of the lines of one key each, as full as they may be, and the indexes of events that fit in none."""
    records, open_records, too_large = [], {}, []
    for index, event in events:
        key = next((event[field] for field in KEY_FIELDS if isinstance(event.get(field), str)), request_id)
        key = f"e-{key}"[:256]
        line = {"v": 1, "id": event.get("id") or str(uuid.uuid4()), **common, "event": event}
        data = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        size = len(data) + len(key.encode())
        if size > MAX_RECORD_BYTES:
            too_large.append(index)
            continue
        record = open_records.get(key)
        if record is None or record["size"] + len(data) > MAX_RECORD_BYTES:
            record = open_records[key] = {"key": key, "size": size, "lines": [data], "indexes": [index]}
            records.append(record)
        else:
            record["lines"].append(data)
            record["indexes"].append(index)
            record["size"] += len(data)
    return records, too_large


def put(records):
    """Puts all records; returns the indexes of the events in those that Kinesis did not take."""
    not_stored = []
    for call in calls(records):
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, 0.05 * 2**attempt))
            entries = [{"Data": b"".join(record["lines"]), "PartitionKey": record["key"]} for record in call]
            response = kinesis.put_records(StreamName=STREAM_NAME, Records=entries)
            if not response["FailedRecordCount"]:
                call = []
                break
            call = [record for record, result in zip(call, response["Records"]) if "ErrorCode" in result]
        not_stored += [index for record in call for index in record["indexes"]]
    return not_stored


def calls(records):
    call, size = [], 0
    for record in records:
        if call and (len(call) == MAX_RECORDS or size + record["size"] > MAX_CALL_BYTES):
            yield call
            call, size = [], 0
        call.append(record)
        size += record["size"]
    if call:
        yield call


def log(accepted, rejected, not_stored, records, request_bytes):
    """One line of metrics in CloudWatch's embedded format."""
    metrics = {
        "AcceptedEvents": accepted,
        "RejectedLines": rejected,
        "NotStoredEvents": not_stored,
        "PutRecords": records,
        "RequestBytes": request_bytes,
    }
    directive = {
        "Namespace": "Playhead",
        "Dimensions": [["FunctionName"]],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in metrics],
    }
    aws = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    print(json.dumps({"_aws": aws, "FunctionName": FUNCTION_NAME, **metrics}))


def answer(status, body):
    headers = {"content-type": "application/json", "access-control-allow-origin": "*"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body), "isBase64Encoded": False}
