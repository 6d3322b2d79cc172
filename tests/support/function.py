"""A single function as Lambda runs it: the binary behind a Runtime API, with what it needs of S3 in memory."""

import hashlib
import json
import queue
import re
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from support.proxy import Reply, serving
from support.stack import built, without_aws

REGION, ACCOUNT = "us-east-1", "123456789012"
# Of credentials, as the function gets them and as signatures are checked.
KEY, SECRET = "AKIDEXAMPLE", "a-secret"
ANSWER_SECONDS = 60


class Bucket:
    """Objects of one bucket, by key, as S3 returns them: GET and PUT alone."""

    def __init__(self, name="landing-bucket"):
        self.name, self.objects = name, {}

    def reply_to(self, request):
        bucket, _, key = unquote(urlsplit(request.path).path).lstrip("/").partition("/")
        assert bucket == self.name and request.headers["content-encoding"] != "aws-chunked", request
        if request.method == "PUT":
            self.objects[key] = request.body
            return Reply(200, [("ETag", etag(request.body))])
        assert request.method == "GET", request
        if key not in self.objects:
            return Reply(404, body=b"<Error><Code>NoSuchKey</Code></Error>")
        body = self.objects[key]
        return Reply(200, [("ETag", etag(body)), ("Last-Modified", formatdate(usegmt=True))], body)


def etag(body):
    return f'"{hashlib.md5(body).hexdigest()}"'


class Function:
    """A running function."""

    def __init__(self, name, timeout):
        self.name, self.timeout = name, timeout
        self.events, self.answers = queue.Queue(), queue.Queue()
        self.lines = []
        self.process = None

    def reply_to(self, request):
        """As the Runtime API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html"""
        if request.path.endswith("/invocation/next"):
            event, deadline = self.events.get(), int(1000 * (time.time() + self.timeout))
            return Reply(200, [
                ("Lambda-Runtime-Aws-Request-Id", str(uuid.uuid4())), ("Lambda-Runtime-Deadline-Ms", str(deadline)),
                ("Lambda-Runtime-Invoked-Function-Arn", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.name}"),
            ], json.dumps(event).encode())
        self.answers.put((request.path.rsplit("/", 1)[1], json.loads(request.body)))
        return Reply(202, body=b"{}")

    def invoke(self, event):
        """The function's answer."""
        self.events.put(event)
        outcome, answer = self.answers.get(timeout=max(ANSWER_SECONDS, self.timeout))
        assert outcome == "response", answer
        return answer

    def metrics(self, name):
        """A metric's values so far."""
        found = [json.loads(line) for line in self.lines if '"_aws"' in line]
        return [line[name] for line in found if name in line]


def environment(runtime_api, s3, name, variables):
    return without_aws() | {
        "AWS_LAMBDA_RUNTIME_API": runtime_api, "AWS_LAMBDA_FUNCTION_NAME": name, "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512", "AWS_LAMBDA_LOG_GROUP_NAME": name, "AWS_LAMBDA_LOG_STREAM_NAME": name,
        "AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": s3,
    } | variables


@contextmanager
def running(name, bucket, timeout=30, **variables):
    """The function, until the end of the block."""
    function = Function(name, timeout)
    with serving(function.reply_to) as runtime_api, serving(bucket.reply_to) as s3:
        process = subprocess.Popen(
            [built(name)], env=environment(runtime_api, f"http://{s3}", name, variables), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        function.process = process
        reader = threading.Thread(target=lambda: function.lines.extend(process.stdout), daemon=True)
        reader.start()
        try:
            yield function
        finally:
            process.kill()
            process.wait()
            reader.join()
            # It still waits for an event.
            function.events.put({})


def refused_start(name, **variables):
    """What a function says that can't start."""
    done = subprocess.run([built(name)], env=environment("127.0.0.1:9", "http://127.0.0.1:9", name, variables), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=False)
    assert done.returncode != 0
    return re.sub(r"\s+", " ", done.stdout)
