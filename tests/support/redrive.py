"""Runs the redrive command as an operator would, against a running stack."""

import os
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from support import proxy
from support.stack import FAILED_BATCHES_BUCKET, LANDING, LANDING_BUCKET, STREAM, built, without_aws

BINARY = Path(os.environ.get("REDRIVE_BIN") or built("redrive")).resolve()
SECONDS = 120


def start(stack, *arguments, address=None):
    aws = {
        "AWS_ENDPOINT_URL": address or stack.aws_address, "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "operator", "AWS_SECRET_ACCESS_KEY": "operator",
    }
    return subprocess.Popen(
        [BINARY, *arguments], env=without_aws() | aws, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )


def run(stack, *arguments, address=None):
    """The exit code and what it printed."""
    with start(stack, *arguments, address=address) as process:
        output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output


BATCHES = ["batches", "--from", FAILED_BATCHES_BUCKET, "--to", LANDING_BUCKET]


def rejected(prefix, *arguments):
    return ["rejected", "--bucket", LANDING_BUCKET, "--prefix", prefix, *arguments]


GONE = "--landing-is-gone"


def replay(hour, *arguments):
    landing = arguments if GONE in arguments else ("--landing-function", LANDING, *arguments)
    return [
        "replay", "--stream", STREAM, "--bucket", LANDING_BUCKET, "--failed-batches", FAILED_BATCHES_BUCKET, "--hour", hour,
        *landing,
    ]


@contextmanager
def between(stack, answer_instead=lambda method, path: None, before_answer=lambda method, path: None):
    """The address of something that hands requests on to the stack's S3.

    answer_instead: the status of an answer that is given in its place, or None. before_answer: called when the stack has
    answered and the sender has not heard it yet.
    """
    target = urlsplit(stack.aws_address).netloc

    def reply_to(request):
        path = unquote(request.path)
        if status := answer_instead(request.method, path):
            return proxy.Reply(status)
        reply = proxy.forward(request, target)
        before_answer(request.method, path)
        return reply

    with proxy.serving(reply_to) as address:
        yield f"http://{address}"


class Stopped:
    """A redrive that is stopped, as by a Ctrl-Z, when it has looked at something and before it acts on it."""

    def __init__(self, stack, arguments, looked_at):
        """looked_at: whether a request (method, path) is the one after whose answer it is stopped."""
        self.stack, self.arguments, self.looked_at = stack, arguments, looked_at
        self.reached, self.released = threading.Event(), threading.Event()

    def __enter__(self):
        self.between = between(self.stack, before_answer=self._stop)
        self.process = start(self.stack, *self.arguments, address=self.between.__enter__())
        assert self.reached.wait(SECONDS), "it did not get there"
        self.process.send_signal(signal.SIGSTOP)
        return self

    def _stop(self, method, path):
        if not self.reached.is_set() and self.looked_at(method, path):
            self.reached.set()
            self.released.wait(SECONDS)

    def go_on(self):
        """The exit code and what it printed, after it was continued."""
        self.released.set()
        self.process.send_signal(signal.SIGCONT)
        output, _ = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, output

    def __exit__(self, *problem):
        self.released.set()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.between.__exit__(*problem)
