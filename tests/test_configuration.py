"""The functions' environment: what is missing or wrong stops the start and is named."""

import subprocess

import pytest

from support.stack import BINARY

INGEST = {"STREAM_NAME": "event-stream", "BUCKET_NAME": "landing"}


def start(binary, variables):
    """Starts a function with these variables alone and returns how it ended and what it said."""
    runtime = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "AWS_REGION": "us-east-1"}
    path = BINARY.with_name(binary)
    done = subprocess.run([path], env=runtime | variables, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("binary", "variables", "named"),
    [
        ("ingest-lambda", {}, "STREAM_NAME"),
        ("ingest-lambda", {"STREAM_NAME": ""}, "STREAM_NAME"),
        ("ingest-lambda", {"STREAM_NAME": "event-stream"}, "BUCKET_NAME"),
        ("ingest-lambda", INGEST | {"KINESIS_RETRY_MS": "1501"}, "KINESIS_RETRY_MS"),
        ("ingest-lambda", INGEST | {"EVENT_FORMAT": "csv"}, "EVENT_FORMAT"),
        ("ingest-lambda", INGEST | {"CLIENT_IP": "yes"}, "CLIENT_IP"),
        ("ingest-lambda", INGEST | {"ALLOWED_ORIGINS": " , "}, "ALLOWED_ORIGINS"),
        ("ingest-lambda", INGEST | {"ALLOWED_ORIGINS": "https://a.example, https://b.example/"}, "ALLOWED_ORIGINS"),
        ("ingest-lambda", INGEST | {"ALLOWED_ORIGINS": "b.example"}, "ALLOWED_ORIGINS"),
        ("ingest-lambda", INGEST | {"ALLOWED_ORIGINS": "https://b.example:443"}, "ALLOWED_ORIGINS"),
        ("ingest-lambda", INGEST | {"ALLOWED_ORIGINS": "https://B.example"}, "ALLOWED_ORIGINS"),
        ("ingest-lambda", INGEST | {"ALLOWED_ORIGINS": "https://b.*.example"}, "ALLOWED_ORIGINS"),
        ("ingest-lambda", INGEST | {"ALLOWED_ORIGINS": "file://"}, "ALLOWED_ORIGINS"),
        ("ingest-lambda", INGEST | {"PARTITION_KEY_FIELDS": ","}, "PARTITION_KEY_FIELDS"),
        ("ingest-lambda", INGEST | {"KEY_BUCKETS": "3"}, "KEY_BUCKETS"),
        ("ingest-lambda", INGEST | {"KEY_BUCKETS": "512"}, "KEY_BUCKETS"),
        ("ingest-lambda", INGEST | {"RECORD_COMPRESSION": "gzip"}, "RECORD_COMPRESSION"),
        ("ingest-lambda", INGEST | {"MAX_BODY_BYTES": "0"}, "MAX_BODY_BYTES"),
        ("ingest-lambda", INGEST | {"MAX_BODY_BYTES": "6291457"}, "MAX_BODY_BYTES"),
        ("ingest-lambda", INGEST | {"MAX_RECORD_BYTES": "16383"}, "MAX_RECORD_BYTES"),
        ("ingest-lambda", INGEST | {"MAX_RECORD_BYTES": "4194305"}, "MAX_RECORD_BYTES"),
        ("ingest-lambda", INGEST | {"EVENT_SCHEMA": "events/a.json"}, "EVENT_SCHEMA"),
        ("ingest-lambda", INGEST | {"EVENT_SCHEMA": "schemas/a b.json"}, "EVENT_SCHEMA"),
        ("ingest-lambda", INGEST | {"EVENT_SCHEMA": "schemas/" + "a" * 121}, "EVENT_SCHEMA"),
        ("ingest-lambda", INGEST | {"EVENT_SCHEMA_MODE": "refuse"}, "EVENT_SCHEMA_MODE"),
        ("kinesis-to-s3-lambda", {}, "BUCKET_NAME"),
        ("kinesis-to-s3-lambda", {"BUCKET_NAME": "landing", "EVENT_FORMAT": "csv"}, "EVENT_FORMAT"),
    ],
)
def test_a_bad_variable_stops_the_start_and_is_named(binary, variables, named):
    """A missing or bad value stops the start and names the variable."""
    code, said = start(binary, variables)
    assert code != 0
    assert f"environment variable {named}" in said, said


def test_an_origin_that_could_never_match_is_named():
    """Of several origins the error names the one that is wrong."""
    _, said = start("ingest-lambda", INGEST | {"ALLOWED_ORIGINS": "https://a.example,https://b.example/"})
    assert "https://b.example/" in said and "https://a.example" not in said, said
