"""Runs the redrive command as an operator would, against a running stack."""

import http.client
import os
import signal
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stack import FAILED_BATCHES_BUCKET, LANDING_BUCKET, REPOSITORY

BINARY = Path(os.environ.get("REDRIVE_BIN", REPOSITORY / "target/release/redrive")).resolve()
SECONDS = 120


def start(stack, *arguments, address=None):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    aws = {
        "AWS_ENDPOINT_URL": address or stack.aws_address, "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "operator", "AWS_SECRET_ACCESS_KEY": "operator",
    }
    return subprocess.Popen(
        [BINARY, *arguments], env=inherited | aws, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )


def run(stack, *arguments, address=None):
    """The exit code and what it printed."""
    with start(stack, *arguments, address=address) as process:
        output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output


BATCHES = ["batches", "--from", FAILED_BATCHES_BUCKET, "--to", LANDING_BUCKET]


def rejected(prefix, *arguments):
    return ["rejected", "--bucket", LANDING_BUCKET, "--prefix", prefix, *arguments]


@contextmanager
def between(stack, answer_instead=lambda method, path: None, before_answer=lambda method, path: None):
    """The address of something that hands requests on to the stack's S3.

    answer_instead: the status of an answer that is given in its place, or None. before_answer: called when the stack has
    answered and the sender has not heard it yet.
    """
    target = urlsplit(stack.aws_address).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status = answer_instead(self.command, unquote(self.path))
            if status:
                return self.answer(status, [], b"")
            connection = http.client.HTTPConnection(target, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            before_answer(self.command, unquote(self.path))
            self.answer(answer.status, answer.getheaders(), content, answer.getheader("content-length"))
            connection.close()

        def answer(self, status, headers, content, length=None):
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            # An answer to HEAD has the length of what it leaves out.
            self.send_header("content-length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = handle_request

        def log_message(self, *_):
            """Says nothing: a test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
