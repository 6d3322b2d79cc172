"""What a person reads on the terminal of the one-machine stack, and what is in the logs instead."""

import http.client
import json
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from support.stack import BINARY, LANDING_BUCKET, REPOSITORY, wait_for

MIB = 1024 * 1024
TIMED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z +(INFO|WARN|ERROR) ")


def terminal(stack):
    return stack.errors_path.read_text().splitlines()


def client(stack, service, secret):
    config = Config(proxies={}, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(service, endpoint_url=stack.aws_address, region_name="us-east-1", aws_access_key_id="local",
                        aws_secret_access_key=secret, config=config)


def test_client_errors_do_not_reach_the_terminal(fresh_stack):
    """`curl` on the AWS port, a wrong secret, an operation that is not there, a misspelt bucket, a body that is too large or breaks off."""
    stack = fresh_stack()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(stack.aws_address, timeout=20)
    for service, call in [("s3", lambda s3: s3.list_buckets()), ("kinesis", lambda kinesis: kinesis.list_streams())]:
        try:
            call(client(stack, service, "wrong"))
        except ClientError:
            pass  # Whether a service checks the secret is not the point here.
    for call in [lambda: client(stack, "lambda", "local").list_functions(),
                 lambda: client(stack, "s3", "local").get_object(Bucket="no-bucket", Key="a"),
                 lambda: client(stack, "s3", "local").get_object(Bucket=LANDING_BUCKET, Key="no-key"),
                 lambda: client(stack, "kinesis", "local").describe_stream(StreamName="no-stream")]:
        with pytest.raises(ClientError):
            call()
    with sending(stack, 64 * MIB + 1, bytes(64 * MIB + 1)) as connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, "67108864 bytes" in response.read().decode()) == (413, True)
    with sending(stack, 9, b"x"):
        pass
    assert stack.stop() == 0
    assert terminal(stack) == []


def sending(stack, announced, sent):
    """A connection with a PUT to S3 whose body is announced, and sent as far as this."""
    address = urllib.parse.urlsplit(stack.aws_address)
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    connection.sendall(f"PUT /{LANDING_BUCKET}/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {announced}\r\n\r\n".encode() + sent)
    return connection


def test_a_stop_without_faults_prints_nothing_about_faults(fresh_stack):
    stack = fresh_stack()
    assert stack.post(body=b"{}").status == 200
    assert stack.stop() == 0
    assert [line for line in [*terminal(stack), *stack.output] if "faults changed" in line or "faults:" in line] == []


def test_a_check_that_fails_is_one_short_line_with_its_time_and_whole_in_its_log(fresh_stack):
    stack = fresh_stack()
    key = "events/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2"
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=b"no bzip2")
    line, = wait_for(lambda: [line for line in terminal(stack) if "ERROR" in line], what="an ERROR line")
    assert TIMED.match(line) and "[check-object]" in line and key in line and "{" not in line and len(line) <= 401, line
    logged = [json.loads(line) for line in stack.function_log("check-object").splitlines() if '"ERROR"' in line]
    assert logged[0]["fields"]["key"] == key and re.match(r"\d{4}-.*\.\d{3}Z$", logged[0]["timestamp"])


def test_every_line_of_the_stack_itself_has_its_time(fresh_stack):
    stack = fresh_stack(FAULTS="seed=1 s3.error=1")
    assert stack.post(body=b"{}").status == 200
    wait_for(lambda: any("WARN" in line for line in terminal(stack)), what="a warning")
    assert stack.stop() == 0
    assert all(TIMED.match(line) for line in terminal(stack)), terminal(stack)


def test_help_needs_no_template_and_names_every_variable(tmp_path):
    run = subprocess.run([BINARY, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    variables = re.findall(r"^\| `([A-Z_]+)` \|", (REPOSITORY / "docs/LOCAL.md").read_text(), re.M)
    assert run.returncode == 0 and "CLOCK" in variables
    assert [name for name in variables if f"  {name} " not in run.stdout] == []
    wrong = subprocess.run([BINARY, "--port=1"], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert wrong.returncode == 2 and "--port=1" in wrong.stderr
    assert list(tmp_path.iterdir()) == []


def test_counters_are_there_at_zero_before_the_first_event(fresh_stack):
    """What appears with its first value has no rate of it."""
    stack = fresh_stack()
    page = lambda: urllib.request.urlopen(f"{stack.aws_address}/metrics", timeout=20).read().decode().splitlines()
    before = page()
    for name in ('playhead_accepted_events_sum{function_name="ingest-lambda"}',
                 'playhead_accepted_events_count{function_name="ingest-lambda"}',
                 'playhead_rejected_invalid_json_sum{function_name="ingest-lambda"}',
                 'playhead_landed_events_sum{function_name="kinesis-to-s3-lambda"}',
                 'playhead_given_back_batches_sum{function_name="kinesis-to-s3-lambda"}',
                 'playhead_landed_events_sum{function_name="redrive"}',
                 'playhead_landed_rejected_sum{function_name="redrive"}',
                 'playhead_landed_records_sum{function_name="redrive"}',
                 'playhead_replaced_surrogates_sum{function_name="ingest-lambda"}',
                 'playhead_replaced_surrogates_sum{function_name="kinesis-to-s3-lambda"}',
                 'playhead_cold_starts_sum{function_name="ingest-lambda"}',
                 'aws_kinesis_incoming_bytes_sum{stream_name="event-stream"}',
                 'aws_lambda_errors_sum{function_name="notify"}',
                 'aws_kinesis_incoming_records_sum{stream_name="event-stream"}'):
        assert f"{name} 0" in before, name
    assert stack.cloudwatch().list_metrics(Namespace="Playhead")["Metrics"] == []
    assert stack.post(body=b"[{},{}]").status == 200
    wait_for(lambda: 'playhead_landed_events_sum{function_name="kinesis-to-s3-lambda"} 2' in page())
    gone = [line.split(" ")[0] for line in before if not line.startswith("#")]
    assert set(gone) <= {line.split(" ")[0] for line in page()}


def test_invoke_shows_what_the_function_logged(stack):
    """The last of its lines, as Lambda's LogType=Tail gives them."""
    run = stack.run_script("invoke", "kinesis-to-s3-lambda")
    assert run.returncode == 0 and "LandedEvents" in run.stderr, run
    # Each invocation has its own.
    again = stack.run_script("invoke", "kinesis-to-s3-lambda")
    assert again.stderr.count("LandedEvents\":") == 1, again


def test_an_invocation_that_does_not_ask_for_the_log_gets_none(stack):
    assert "LogResult" not in stack.functions().invoke(FunctionName="check-recency", Payload=b"{}")


@pytest.mark.parametrize("front_door", ["lambda", "server"])
def test_the_line_of_traffic_counts_what_the_front_door_accepted(fresh_stack, front_door):
    stack = fresh_stack(FRONT_DOOR=front_door)
    assert stack.post(body=json.dumps([{}] * 1_000).encode()).status == 200
    # The server counts every ten seconds, and where it is no terminal a line is for ten.
    line = wait_for(lambda: next(filter(re.compile(r"\d\d:\d\d:\d\d [1-9]\d* events/s, ").match, stack.output), None), 40, stack.tail)
    # Of ten seconds, or of more on a machine that has no time to say it.
    assert 75 <= int(line.split()[1]) <= 110, line
