"""Runs the redrive command as an operator would, against a running stack."""

import os
import subprocess

from stack import FAILED_BATCHES_BUCKET, LANDING_BUCKET, REPOSITORY

BINARY = REPOSITORY / "target/release/redrive"
SECONDS = 120


def start(stack, *arguments):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    aws = {
        "AWS_ENDPOINT_URL": stack.aws_address, "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "operator", "AWS_SECRET_ACCESS_KEY": "operator",
    }
    return subprocess.Popen(
        [BINARY, *arguments], env=inherited | aws, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )


def run(stack, *arguments):
    """The exit code and what it printed."""
    with start(stack, *arguments) as process:
        output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output


BATCHES = ["batches", "--from", FAILED_BATCHES_BUCKET, "--to", LANDING_BUCKET]


def rejected(prefix, *arguments):
    return ["rejected", "--bucket", LANDING_BUCKET, "--prefix", prefix, *arguments]
