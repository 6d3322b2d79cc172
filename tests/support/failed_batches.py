"""The on-failure destination, and templates whose batches end there."""

import base64
import json
import shutil

from support.frames import text_of
from support.stack import FAILED_BATCHES_BUCKET, REPOSITORY

TWO_RETRIES = {"MaximumRetryAttempts: -1": "MaximumRetryAttempts: 2"}
THREE_SECONDS = {"MaximumRecordAgeInSeconds: !Ref MaximumRecordAgeSeconds": "MaximumRecordAgeInSeconds: 3"}
TEN_SECONDS = {"MaximumRecordAgeInSeconds: !Ref MaximumRecordAgeSeconds": "MaximumRecordAgeInSeconds: 10"}


def template_with(directory, changes):
    """The project's template with other lines, each of which it has once."""
    text = (REPOSITORY / "template.yaml").read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old} is in the template {text.count(old)} times; adapt this test"
        text = text.replace(old, new)
    path = directory / "template.yaml"
    path.write_text(text)
    # Nested in it.
    shutil.copy(REPOSITORY / "alarms.yaml", directory)
    return path


def put_failed_batch(stack, name, records, shard="shardId-000000000000"):
    """Puts records, as Kinesis gives them, into the bucket for failed batches, as Lambda does."""
    numbers = [record["SequenceNumber"] for record in records]
    event = [
        {"kinesis": {"partitionKey": record["PartitionKey"], "sequenceNumber": record["SequenceNumber"],
                     "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
                     "data": base64.b64encode(record["Data"]).decode()},
         "eventID": f"{shard}:{record['SequenceNumber']}", "eventSource": "aws:kinesis"} for record in records
    ]
    document = {
        "KinesisBatchInfo": {"shardId": shard, "startSequenceNumber": numbers[0], "endSequenceNumber": numbers[-1],
                             "batchSize": len(records)},
        "payload": json.dumps({"Records": event}),
    }
    key = f"aws/lambda/mapping/{shard}/2026/11/21/{name}"
    stack.s3().put_object(Bucket=FAILED_BATCHES_BUCKET, Key=key, Body=json.dumps(document).encode())


def failed_batches(stack):
    """The documents in the bucket for failed batches, by key."""
    s3 = stack.s3()
    listed = s3.list_objects_v2(Bucket=FAILED_BATCHES_BUCKET).get("Contents", [])
    keys = [entry["Key"] for entry in listed]
    return {key: json.load(s3.get_object(Bucket=FAILED_BATCHES_BUCKET, Key=key)["Body"]) for key in keys}


def data_of(document):
    """The text of the records of a failed batch. Lambda gives the event as a string of JSON."""
    payload = document["payload"]
    event = json.loads(payload) if isinstance(payload, str) else payload
    return b"".join(text_of(base64.b64decode(record["kinesis"]["data"])) for record in event["Records"])


def holding(stack, text):
    """The failed batches that hold a text."""
    return {key: document for key, document in failed_batches(stack).items() if text in data_of(document)}
