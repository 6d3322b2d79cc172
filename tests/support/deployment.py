"""A deployment to MiniStack by the README's own commands: `make build`'s packages, tools/scripts/deploy, tools/scripts/destroy."""

import bz2
import http.client
import importlib.util
import json
import platform
import re
import socket
import ssl
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from urllib.parse import urlsplit

from support.cloud import REGION
from support.landed import KEY, LandedFile, Line
from support.stack import REPOSITORY, request, wait_for, without_aws

# The packages that this machine can run.
ARCHITECTURE = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
PACKAGES = REPOSITORY / ".aws-sam" / ARCHITECTURE
DEPLOY_SECONDS = 300
LANDING_SECONDS = 90


class Connection(http.client.HTTPSConnection):
    """A connection to a Function URL: its name leads nowhere here, and MiniStack goes by the Host header."""

    def __init__(self, host, cloud):
        context = ssl.create_default_context(cafile=cloud.certificate)
        super().__init__(host, cloud.port, timeout=60, context=context)
        self.tls = context

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self.tls.wrap_socket(plain, server_hostname="localhost")


class Deployment:
    """A stack that was deployed to an environment of samconfig.toml. Speaks as support/stack.py's Stack does."""

    def __init__(self, cloud, environment, stack, parameters="", recipients=None, variables=None):
        self.cloud, self.environment, self.stack = cloud, environment, stack
        self.deploy(parameters, recipients, variables)

    def deploy(self, parameters="", recipients=None, variables=None):
        """`make deploy`, but for the build."""
        own = {"PARAMETERS": parameters, "RECIPIENTS": recipients or "", "ARCHITECTURE": ARCHITECTURE, "YES": "1"}
        self.said = self.run("deploy", own | (variables or {}))
        self.look()

    @classmethod
    def existing(cls, cloud, environment, stack):
        """A stack that something else deployed."""
        one = cls.__new__(cls)
        one.cloud, one.environment, one.stack = cloud, environment, stack
        one.look()
        return one

    def look(self):
        """Finds out what the stack has."""
        self.outputs = self.cloud.outputs(self.stack)
        self.resources = self.cloud.resources(self.stack)

    def run(self, script, variables, answer=""):
        """`make SCRIPT ENV=…`; its output."""
        done = self.run_by_hand(f"tools/scripts/{script}", self.environment, variables={"STACK": self.stack} | variables, answer=answer)
        if done.returncode != 0:
            raise AssertionError(f"tools/scripts/{script} {self.environment} exited with {done.returncode}\n{done.stdout}\n"
                                 f"{self.cloud.failures(self.stack)}\n{self.cloud.tail()}")
        return done.stdout

    def run_by_hand(self, script, *arguments, variables=None, answer=""):
        """Runs a script as somebody with access to the account would, and answers what it asks."""
        own = self.variables(self.cloud) | (variables or {})
        return subprocess.run([sys.executable, script, *arguments], cwd=REPOSITORY, env=without_aws() | own,
                              input=answer, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=DEPLOY_SECONDS, check=False)

    @staticmethod
    def variables(cloud):
        """What leads to a MiniStack as to an AWS account."""
        return {"AWS_ENDPOINT_URL": cloud.address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": REGION, "AWS_CA_BUNDLE": str(cloud.certificate), "SAM_CLI_POLL_DELAY": "1",
                "ARCHITECTURE": ARCHITECTURE}

    # ---- What players do ----

    @property
    def host(self):
        """Of the front door itself: an own domain leads there by DNS, which is not here."""
        if api := self.resources.get("HttpApi"):
            return urlsplit(self.cloud.client("apigatewayv2").get_api(ApiId=api)["ApiEndpoint"]).hostname
        return urlsplit(self.outputs["EventsUrl"]).hostname

    def connect(self):
        return Connection(self.host, self.cloud)

    def post(self, path="/events", body=b"", headers=None, method="POST"):
        connection = self.connect()
        try:
            return request(connection, method, path, body, headers or {})
        finally:
            connection.close()

    # ---- What landed ----

    @property
    def bucket(self):
        return self.outputs["LandingBucketName"]

    def keys(self, prefix=""):
        pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def object(self, key):
        return self.cloud.client("s3").get_object(Bucket=self.bucket, Key=key)

    def lines(self, prefix="events/"):
        """The landed lines in the order of their shards' records."""
        keys = [key for key in self.keys(prefix) if KEY.fullmatch(key)]
        keys.sort(key=lambda key: LandedFile(None, key).position)
        texts = [(key, bz2.decompress(self.object(key)["Body"].read()).decode()) for key in keys]
        return [Line(text, json.loads(text), is_spilled=bool(KEY.fullmatch(key)["spill"]))
                for key, content in texts for text in content.removesuffix("\n").split("\n")]

    def wait_for_lines(self, wanted, count, prefix="events/", timeout=LANDING_SECONDS):
        """The landed lines that are wanted, once there are so many."""
        def enough():
            found = [line for line in self.lines(prefix) if wanted(line)]
            return found if len(found) >= count else None
        return wait_for(enough, timeout, lambda: f"{count} lines; {len(self.lines(prefix))} landed\n{self.cloud.tail()}")

    # ---- What the functions say ----

    def invoke(self, function, event):
        """A function's answer to an event, by its logical id."""
        answer = self.cloud.client("lambda").invoke(FunctionName=self.resources[function], Payload=json.dumps(event).encode())
        payload = answer["Payload"].read().decode()
        assert "FunctionError" not in answer, f"{function}: {payload}\n{self.log(function)}"
        return json.loads(payload)

    def live_version(self, function):
        """The version that the function's alias leads to."""
        return self.cloud.client("lambda").get_alias(FunctionName=self.resources[function], Name="live")["FunctionVersion"]

    def log(self, function):
        logs = self.cloud.client("logs")
        group = self.resources[f"{function.removesuffix('Function')}LogGroup"]
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        return "\n".join(event["message"] for page in pages for event in page["events"])

    def metric(self, name, statistic, **dimensions):
        """The values of a metric of ours, whatever their time."""
        found = self.cloud.client("cloudwatch").get_metric_statistics(
            Namespace="Playhead", MetricName=name, StartTime="2026-01-01T00:00:00Z", EndTime="2100-01-01T00:00:00Z",
            Period=3600, Statistics=[statistic], Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()])
        return [point[statistic] for point in found["Datapoints"]]


def script(name):
    """One of tools/scripts/, as a module."""
    if (folder := str(REPOSITORY / "tools/scripts")) not in sys.path:
        sys.path.append(folder)
    loader = SourceFileLoader(name, str(REPOSITORY / "tools/scripts" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def binaries():
    """Of each function of template.yaml: the binary that its package holds."""
    template = (REPOSITORY / "template.yaml").read_text()
    pairs = re.findall(r"^  (\w+):\n    Type: AWS::Serverless::Function\n(?:.*\n)*?        Binary: (\S+)$", template, re.M)
    assert len(pairs) == 13
    return dict(pairs)
