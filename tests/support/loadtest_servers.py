"""Servers that the load test is pointed at: each does one thing that the whole pipeline can't be made to do."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h2.config
import h2.connection
import h2.events

ONE_ACCEPTED = b'{"accepted":1,"rejected":[]}'


@dataclass
class Received:
    """One POST as it came."""

    at: float
    path: str
    headers: dict
    body: bytes


@dataclass
class Server:
    """What a server's POSTs are handed to: it remembers each, and answers when `serve` returns."""

    serve: callable = lambda number: None
    received: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0
    # Whether it closes each connection after its first answer, without saying so.
    closes: bool = False

    def take(self, path, headers, body):
        with self.lock:
            number = len(self.received)
            self.received.append(Received(time.monotonic(), path, headers, body))
        self.serve(number)

    @property
    def bodies(self):
        return [post.body for post in self.received]


class Http1Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            server.take(self.path, dict(self.headers), body)
            # One write: a second one would wait for the client's acknowledgement of the first.
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ONE_ACCEPTED)}\r\n\r\n".encode()
            self.wfile.write(head + ONE_ACCEPTED)
            self.close_connection = server.closes

        def log_message(self, *_):
            pass

    return Handler


@contextlib.contextmanager
def http1(serve=lambda number: None, tls=None):
    """A server of HTTP/1.1 that says of each POST that its one event is accepted."""
    server = Server(serve)
    listener = Http1Server(("127.0.0.1", 0), handler(server))
    if tls:
        listener.socket = tls.wrap_socket(listener.socket, server_side=True)
    server.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


@contextlib.contextmanager
def http2(tls=None):
    """The same of HTTP/2: by prior knowledge, or with TLS by ALPN."""
    server = Server()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server.port = listener.getsockname()[1]
    threading.Thread(target=accept, args=(listener, server, tls), daemon=True).start()
    try:
        yield server
    finally:
        listener.close()


def accept(listener, server, tls):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=speak_http2, args=(connection, server, tls), daemon=True).start()


def speak_http2(connection, server, tls):
    # A client that goes away, or does not trust the certificate, ends its connection and nothing else.
    with contextlib.suppress(OSError), (tls.wrap_socket(connection, server_side=True) if tls else connection) as stream:
        if tls:
            assert stream.selected_alpn_protocol() == "h2"
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        stream.sendall(http.data_to_send())
        posts = {}
        while data := stream.recv(65536):
            for event in http.receive_data(data):
                take_http2_event(http, event, posts, server)
            stream.sendall(http.data_to_send())


def take_http2_event(http, event, posts, server):
    if isinstance(event, h2.events.RequestReceived):
        posts[event.stream_id] = (dict(event.headers), bytearray())
    elif isinstance(event, h2.events.DataReceived):
        posts[event.stream_id][1].extend(event.data)
        http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    elif isinstance(event, h2.events.StreamEnded):
        headers, body = posts.pop(event.stream_id)
        server.take(headers[":path"], headers, bytes(body))
        http.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(ONE_ACCEPTED)))])
        http.send_data(event.stream_id, ONE_ACCEPTED, end_stream=True)


def certificate(directory, protocols):
    """A TLS context with a certificate that it has signed itself, and the certificate's file."""
    key, file = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         # What openssl makes is else a certificate authority, which rustls takes for no server.
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", file],
        check=True, capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    context.set_alpn_protocols(protocols)
    return context, file


def one_at_a_time(seconds):
    """Serves one POST after the other, each for so long: so much is the server's capacity."""
    lock = threading.Lock()

    def serve(_):
        with lock:
            time.sleep(seconds)

    return serve


def stall(at, seconds):
    """Serves at once, one POST after the other, but the one with the number `at` takes `seconds`."""
    lock = threading.Lock()

    def serve(number):
        with lock:
            if number == at:
                time.sleep(seconds)

    return serve
