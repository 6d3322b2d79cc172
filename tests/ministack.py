"""MiniStack: the AWS that the whole template is deployed to, as a process of this test's own on the loopback interface."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import zipfile

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from stack import REPOSITORY, wait_for

BINARIES = REPOSITORY / "target/release"
REGION = "us-east-1"
# What MiniStack takes for the account that it plays.
ACCOUNT = "000000000000"
START_SECONDS = 30
CODE_BUCKET = "code"
STUB = b"#!/bin/sh\necho 'this function has no binary here' >&2\nexit 1\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MiniStack:
    """A running MiniStack with nothing in it."""

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / "ministack.log"
        self.process = self._start()
        try:
            wait_for(self._answers, START_SECONDS, lambda: f"an answer of MiniStack\n{self.tail()}")
        except AssertionError:
            self.stop()
            raise

    def _start(self):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MINISTACK_"))}
        own = {
            "GATEWAY_PORT": str(self.port), "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1",
            # What the functions inherit: MiniStack is their AWS.
            "AWS_ENDPOINT_URL": self.address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION, "TMPDIR": str(self.directory), "LAMBDA_EXECUTOR": "local",
            "SFTP_ENABLED": "0", "S3_PERSIST": "0", "PERSIST_STATE": "0",
            "S3_DATA_DIR": str(self.directory / "s3"), "STATE_DIR": str(self.directory / "state"),
        }
        with self.log_path.open("w") as log:
            # A group of its own: the functions that it runs end with it.
            return subprocess.Popen([sys.executable, "-m", "ministack"], cwd=self.directory, env=inherited | own,
                                    stdout=log, stderr=subprocess.STDOUT, process_group=0)

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"MiniStack ended with {self.process.returncode}\n{self.tail()}")
        try:
            self.client("sts").get_caller_identity()
            return True
        except (BotoCoreError, ClientError):
            return False

    def stop(self):
        """Ends it, and what it started."""
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        except ProcessLookupError:
            self.process.wait(10)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # Nobody of the group is left.

    def tail(self, lines=60):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def client(self, service):
        options = {"s3": {"addressing_style": "path"}} if service == "s3" else {}
        return boto3.client(
            service, endpoint_url=self.address, region_name=REGION, aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(proxies={}, retries={"max_attempts": 0}, **options),
        )

    def deploy(self, name, template, parameters, binaries):
        """Creates the stack from the template as it is, but for the code: a zip of the function's binary for those that
        are named, and for all others one that fails."""
        s3 = self.client("s3")
        s3.create_bucket(Bucket=CODE_BUCKET)
        for binary in {function["Metadata"]["BuildProperties"]["Binary"] for function in functions(template)}:
            code = (BINARIES / binary).read_bytes() if binary in binaries else STUB
            s3.put_object(Bucket=CODE_BUCKET, Key=f"{binary}.zip", Body=zipped(code))
        for function in functions(template):
            key = function["Metadata"]["BuildProperties"]["Binary"] + ".zip"
            function["Properties"]["CodeUri"] = {"Bucket": CODE_BUCKET, "Key": key}
        # On AWS they run on arm64; here on whatever this machine is.
        s3.put_object(Bucket=CODE_BUCKET, Key="template.json", Body=json.dumps(template).encode())
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=name, TemplateURL=f"{self.address}/{CODE_BUCKET}/template.json",
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
        return wait_for(lambda: self._created(name), 120, lambda: f"the stack\n{self._failures(name)}\n{self.tail()}")

    def _created(self, name):
        stack, = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        if stack["StackStatus"].endswith(("FAILED", "ROLLBACK_COMPLETE")):
            raise AssertionError(f"{stack['StackStatus']}\n{self._failures(name)}\n{self.tail()}")
        if stack["StackStatus"] != "CREATE_COMPLETE":
            return None
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def _failures(self, name):
        events = self.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
        return [(event["LogicalResourceId"], event.get("ResourceStatusReason")) for event in events
                if "FAILED" in event["ResourceStatus"]]

    def resources(self, name):
        """Physical ids by logical ids."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=name)
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"]
                for page in pages for resource in page["StackResourceSummaries"]}


def functions(template):
    return [resource for resource in template["Resources"].values()
            if isinstance(resource, dict) and resource["Type"] == "AWS::Serverless::Function"]


def zipped(bootstrap):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo("bootstrap")
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, bootstrap)
    return buffer.getvalue()
