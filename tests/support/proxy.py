"""A proxy for HTTP between a program and the stack: what passes can be seen, changed, or answered in the stack's place."""

import http.client
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

# They belong to one connection, and the proxy has two.
OWN_HEADERS = ("content-length", "transfer-encoding", "connection")
# What a client made of the body and of the time: they are made anew when another body is signed.
SIGNED_HEADERS = re.compile(
    r"authorization|content-(length|md5|encoding)|x-amz-(date|content-sha256|checksum-.*|sdk-checksum-algorithm|trailer"
    r"|decoded-content-length)", re.IGNORECASE,
)


@dataclass
class Request:
    method: str
    # With its query, as it was sent.
    path: str
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Reply:
    status: int
    headers: list = field(default_factory=list)
    body: bytes = b""
    # Of an answer to HEAD, which has the length of what it leaves out.
    length: str | None = None


def forward(request, address):
    """The reply of `host:port` to a request."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            if name.lower() not in OWN_HEADERS:
                connection.putheader(name, value)
        connection.putheader("content-length", str(len(request.body)))
        connection.endheaders(request.body)
        answer = connection.getresponse()
        return Reply(answer.status, answer.getheaders(), answer.read(), answer.getheader("content-length"))
    finally:
        connection.close()


def signed(request, body, headers):
    """The request with another body and other headers, signed by whoever signed it: on one machine keys are their own secrets."""
    scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/", request.headers["authorization"])
    key, region, service = scope.groups()
    kept = {name: value for name, value in request.headers.items() if not SIGNED_HEADERS.fullmatch(name)}
    url = f"http://{request.headers['host']}{request.path}"
    again = AWSRequest(request.method, url, headers=kept | headers, data=body)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials(key, key), service, region).add_auth(again)
    return replace(request, headers=again.headers, body=body)


class Server(ThreadingHTTPServer):
    # What connects at once, as a function that reads 64 objects: Python's 5 would be refused, and tried again seconds later.
    request_queue_size = 128


@contextmanager
def serving(reply_to):
    """The `host:port` at which each request gets what `reply_to(request)` returns."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                reply = reply_to(Request(self.command, self.path, self.headers, body))
            except (http.client.HTTPException, OSError):
                # There was no answer, so there is none here either.
                self.close_connection = True
                return
            self.send_response_only(reply.status)
            for name, value in reply.headers:
                if name.lower() not in OWN_HEADERS:
                    self.send_header(name, value)
            self.send_header("content-length", reply.length or str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = do_OPTIONS = handle_request

        def log_message(self, *_):
            """Says nothing: a test's output is its own."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
