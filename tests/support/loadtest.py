"""Runs the load test as its users do."""

import json
import os
import subprocess
from pathlib import Path

from support.stack import LANDING_BUCKET, built, without_aws

BINARY = Path(os.environ.get("LOADTEST_BIN") or built("loadtest")).resolve()
PASS, FAIL, COULD_NOT_RUN, INVALID = range(4)
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": "us-east-1"}


class Finished:
    def __init__(self, code, stdout, stderr, result=None):
        self.code, self.stdout, self.stderr = code, stdout, stderr
        self.result = json.loads(result.read_text()) if result and result.exists() else None

    def __repr__(self):
        return f"exit {self.code}\n{self.stdout}\n{self.stderr}"


def start(command, port, *arguments, scheme="http"):
    url = ["--url", f"{scheme}://127.0.0.1:{port}/events"]
    return subprocess.Popen([BINARY, command, *url, *map(str, arguments)], env=without_aws() | ENVIRONMENT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, result=None):
    stdout, stderr = process.communicate(timeout=180)
    return Finished(process.returncode, stdout, stderr, result)


def in_the_bucket(stack):
    """Looks for what landed of the events, and once more two seconds later."""
    return ["--bucket", LANDING_BUCKET, "--endpoint-url", stack.aws_address, "--landing-timeout", "60s", "--settle", "2s"]
