"""The stack that these scripts talk to: the one-machine stack (`make run`), or one in AWS."""

import argparse
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# boto3 and sam look at AWS_DEFAULT_REGION alone; AWS's other SDKs and its command line go by AWS_REGION.
if region := os.environ.get("AWS_REGION"):
    os.environ["AWS_DEFAULT_REGION"] = region
try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ModuleNotFoundError:
    python = ROOT / ".venv/bin/python"
    if Path(sys.prefix) == ROOT / ".venv" or not python.exists():
        sys.exit(f"{Path(sys.argv[0]).name}: boto3 is needed; `make .venv/installed` installs it")
    os.execv(python, [python, *sys.argv])

# What ends a script with a message instead of a traceback.
PROBLEMS = (BotoCoreError, ClientError, OSError)
# The one-machine stack's own; local/src/template has them.
REGION, ACCOUNT = "us-east-1", "000000000000"


@dataclass
class Stack:
    # Its name in AWS; None on this machine.
    name: str | None
    region: str
    account: str
    outputs: dict
    # Those of a deployment; none on this machine.
    parameters: dict
    # Physical ids by logical ids.
    resources: dict
    connection: dict
    config: Config

    def client(self, service, config=None):
        return boto3.client(service, config=self.config.merge(config or Config()), **self.connection)

    def output(self, name):
        return self._named(self.outputs, name, "output")

    def physical(self, name):
        return self._named(self.resources, name, "resource")

    def _named(self, names, name, kind):
        if name not in names:
            sys.exit(f"{self.name or 'the one-machine stack'} has no {kind} {name}; it has {', '.join(sorted(names))}")
        return names[name]

    @property
    def landing_bucket(self):
        return self.output("LandingBucketName")


def functions():
    """The functions' logical ids by their binaries."""
    template = (ROOT / "template.yaml").read_text()
    function = r"^  (\w+):\n    Type: AWS::Serverless::Function\n(?:.*\n)*?        Binary: (\S+)$"
    return {binary: logical_id for logical_id, binary in re.findall(function, template, re.M)}


def this_machine():
    connection = {"endpoint_url": os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"), "region_name": REGION,
                  "aws_access_key_id": "local", "aws_secret_access_key": "local"}
    outputs = {"LandingBucketName": "landing-bucket", "FailedBatchesBucketName": "failed-batches-bucket",
               "StreamName": "event-stream", "AlarmsTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms-topic"}
    resources = {logical_id: binary for binary, logical_id in functions().items()} | {
        "EventStream": "event-stream", "FailedBatchesBucket": "failed-batches-bucket",
        # These have metrics only in AWS.
        "LandingFunctionStream": "none", "NotifyFunctionReminders": "none", "LandedTopic": "none", "SealedTopic": "none"}
    return Stack(None, REGION, ACCOUNT, outputs, {}, resources, connection, Config(proxies={}, s3={"addressing_style": "path"}))


def deployed(name):
    cloudformation = boto3.client("cloudformation")
    found, = cloudformation.describe_stacks(StackName=name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    parameters = {one["ParameterKey"]: one.get("ParameterValue", "") for one in found.get("Parameters", [])}
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
    resources = {one["LogicalResourceId"]: one.get("PhysicalResourceId")
                 for page in pages for one in page["StackResourceSummaries"]}
    region, account = found["StackId"].split(":")[3:5]
    return Stack(name, region, account, outputs, parameters, resources, {}, Config())


def hour(text):
    """dt=2026-11-21/hour=09"""
    if not re.fullmatch(r"dt=\d{4}-\d\d-\d\d/hour=([01]\d|2[0-3])", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an hour like dt=2026-11-21/hour=09")
    return text


def add_stack_option(parser):
    parser.add_argument("--stack", default=os.environ.get("STACK"),
                        help="a stack in AWS (default: the variable STACK); without it, the one-machine stack")


def of(given):
    """The stack that --stack names."""
    return deployed(given.stack) if given.stack else this_machine()
