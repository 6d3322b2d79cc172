"""MiniStack: the AWS that the whole template is deployed to, as a process of this test's own on the loopback interface."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from support import held_port
from support.stack import wait_for

RUN = Path(__file__).with_name("run_ministack.py")
REGION = "us-east-1"
# What MiniStack takes for the account that it plays.
ACCOUNT = "000000000000"
# It imports all of its services before it answers.
START_SECONDS = 90


class MiniStack:
    """A running MiniStack with nothing in it."""

    def __init__(self, directory):
        self.directory = directory
        # TLS, as in AWS: the buckets take nothing else. MiniStack makes the certificate.
        self.certificate = directory / "ministack-tls/server.crt"
        self.log_path = directory / "ministack.log"
        with held_port.hold() as held:
            self.port = held_port.number(held)
            self.address = f"https://127.0.0.1:{self.port}"
            self._start()

    def _start(self):
        self.process = self._run()
        try:
            wait_for(self._answers, START_SECONDS, lambda: f"an answer of MiniStack\n{self.tail()}")
        except AssertionError:
            self.stop()
            raise

    def _run(self):
        inherited = {name: value for name, value in os.environ.items() 
                     if not name.startswith(("AWS_", "MINISTACK_", "RUST_LOG"))}
        own = {
            "GATEWAY_PORT": str(self.port), "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1",
            # What the functions inherit: MiniStack is their AWS.
            "AWS_ENDPOINT_URL": self.address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION, "TMPDIR": str(self.directory), "LAMBDA_EXECUTOR": "local",
            # Functions may do what their roles allow, and nothing else.
            "AUTH": "true", "USE_SSL": "1", "SSL_CERT_FILE": str(self.certificate),
            "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0", "S3_PERSIST": "0", "PERSIST_STATE": "0",
            "S3_DATA_DIR": str(self.directory / "s3"), "STATE_DIR": str(self.directory / "state"),
        }
        with self.log_path.open("w") as log:
            # A group of its own: the functions that it runs end with it.
            return subprocess.Popen([sys.executable, str(RUN)], cwd=self.directory, env=inherited | own,
                                    stdout=log, stderr=subprocess.STDOUT, process_group=0)

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"MiniStack ended with {self.process.returncode}\n{self.tail()}")
        try:
            if not self.certificate.exists():
                return False
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
            service, endpoint_url=self.address, region_name=REGION, verify=str(self.certificate), aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(proxies={}, retries={"max_attempts": 0}, **options),
        )

    def outputs(self, stack):
        found, = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}

    def failures(self, stack):
        """What CloudFormation says went wrong; nothing, if it never heard of the stack."""
        try:
            events = self.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
        except ClientError as problem:
            return str(problem)
        return "\n".join(f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}" for event in events
                         if "FAILED" in event["ResourceStatus"])

    def functions(self):
        pages = self.client("lambda").get_paginator("list_functions").paginate()
        return [function["FunctionName"] for page in pages for function in page["Functions"]]

    def resources(self, stack):
        """Physical ids by logical ids."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"]
                for page in pages for resource in page["StackResourceSummaries"]}
