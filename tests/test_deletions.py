"""check-deletions on the one-machine stack: what is deleted after its hour was sealed is reported until it is restored."""

import json
from datetime import UTC, datetime, timedelta

from support.stack import LANDING_BUCKET


def run(stack, function, at):
    done = stack.run_script("invoke", function, "--at", f"{at:%Y-%m-%dT%H:%M:%SZ}")
    assert done.returncode == 0, done.stdout + done.stderr


def keys(stack, prefix):
    return [found["Key"] for found in stack.s3().list_objects_v2(Bucket=LANDING_BUCKET, Prefix=prefix).get("Contents", [])]


def test_what_is_deleted_after_the_seal_is_reported_until_it_is_restored(fresh_stack):
    """A file of a sealed hour is deleted: its key is in the report, the log and the metric. When it is back, with the same
    bytes and metadata, the report is gone."""
    stack = fresh_stack()
    assert stack.post(body=b'[{"n":1},{"n":2}]', headers={"content-type": "application/json"}).status == 200
    stack.wait_for_lines(lambda line: line.json["event"]["n"] > 0, 2)
    key = keys(stack, "events/")[0]
    hour = key.removeprefix("events/").rsplit("/", 1)[0]
    start = datetime.strptime(hour, "dt=%Y-%m-%d/hour=%H").replace(tzinfo=UTC)
    # By then the hour is over, and CloudWatch takes no time that is two hours ahead.
    later = lambda hours: start + timedelta(hours=hours)
    run(stack, "seal-partition", later(1.5))
    run(stack, "check-deletions", later(1.6))
    kept = stack.s3().get_object(Bucket=LANDING_BUCKET, Key=key)
    body, metadata = kept["Body"].read(), kept["Metadata"]

    stack.s3().delete_object(Bucket=LANDING_BUCKET, Key=key)
    run(stack, "check-deletions", later(1.7))
    report = json.loads(stack.s3().get_object(Bucket=LANDING_BUCKET, Key=f"deleted/{hour}.json")["Body"].read())
    assert (report["partition"], report["missing_objects"]) == (hour, 1)
    assert report["missing"] == [{"key": key, "what": "deleted"}]
    assert key in stack.function_log("check-deletions")

    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=body, Metadata=metadata)
    run(stack, "check-deletions", later(1.8))
    assert keys(stack, "deleted/dt=") == []
    # Not those of the schedule, which may come at any time.
    assert stack.metric("DeletedObjects", later(1.6), FunctionName="check-deletions") == [0, 1, 0]

    # Between two seals.
    stack.s3().delete_object(Bucket=LANDING_BUCKET, Key=key)
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=f"late/{hour}", Body=b"")
    run(stack, "seal-partition", later(1.83))
    assert len(keys(stack, f"replaced/{hour}/")) == 1
    run(stack, "check-deletions", later(1.87))
    report = json.loads(stack.s3().get_object(Bucket=LANDING_BUCKET, Key=f"deleted/{hour}.json")["Body"].read())
    assert report["missing"] == [{"key": key, "what": "deleted"}]
    assert keys(stack, "replaced/") == []
