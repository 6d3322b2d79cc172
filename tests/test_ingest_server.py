"""The server in place of the Lambda: what it answers, what it keeps, how it ends, and what it does not put up with."""

import gzip
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from support import http2_frames as h2
from support import landed, open_files
from support.stack import INGEST_SERVER, LANDING_BUCKET, STREAM, built, signal_if_alive, wait_for, without_aws

POST = b"POST /events HTTP/1.1\r\nhost: a\r\n"
EVENT = b'{"type":"play","session_id":"s-1"}'


class Server:
    """An `ingest-server` of its own beside a stack, whose Kinesis and S3 it uses."""

    def __init__(self, stack, directory, **settings):
        own = {
            "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_ENDPOINT_URL": stack.aws_address, "STREAM_NAME": STREAM, "BUCKET_NAME": LANDING_BUCKET,
            "LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0", "MAX_CONNECTIONS": 4_000, "DRAIN_SECONDS": 0,
        }
        self.stack = stack
        self.output = open(directory / f"server-{uuid.uuid4()}.log", "w+")
        self.process = subprocess.Popen(
            [built(INGEST_SERVER)], env=without_aws() | {name: str(value) for name, value in (own | settings).items()},
            stdout=self.output, stderr=subprocess.STDOUT, text=True,
        )
        self.port = int(self._line("listening: http").rpartition(":")[2])
        self.admin = self._line("metrics: http://").removeprefix("metrics: http://").partition("/")[0].split(":")

    def log(self):
        with open(self.output.name) as file:
            return file.read()

    def _line(self, start):
        lines = lambda: [line for line in self.log().splitlines() if line.startswith(start)]
        return wait_for(lines, 10, lambda: f"{start}\n{self.log()}")[0]

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self, data, seconds=30):
        """Sends bytes and reads until the server closes the connection, or for so long."""
        with self.connect() as connection:
            connection.settimeout(seconds)
            return exchange(connection, data)

    def post(self, body=EVENT, seconds=30, **headers):
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"POST /events HTTP/1.1\r\nhost: a\r\n{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        return self.ask(head.encode() + body, seconds)

    def peak_memory(self):
        status = open(f"/proc/{self.process.pid}/status").read()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def metrics(self):
        host, port = self.admin
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            return exchange(connection, b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").decode().splitlines()

    def stop(self, timeout=60):
        signal_if_alive(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout)


def exchange(connection, data):
    answer = b""
    try:
        connection.sendall(data)
        while received := connection.recv(65536):
            answer += received
    except (TimeoutError, ConnectionResetError, BrokenPipeError):
        pass
    return answer


def has_ended(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def exchange_by_http_2(connection, data, streams):
    """Sends bytes and reads until so many streams have been answered to their ends."""
    answer, ended = b"", 0
    connection.sendall(data)
    while ended < streams:
        received = connection.recv(65536)
        assert received, f"closed after {ended} answers"
        answer += received
        ended = sum(stream > 0 and kind in (h2.DATA, h2.HEADERS) and flags & h2.END_STREAM for kind, flags, stream, _ in h2.frames(answer))
    return answer


def landed_once(server, names, stalls):
    names = set(names)
    lines = lambda: [line for line in server.stack.lines() if line.json.get("id") in names]
    wait_for(lambda: {line.json["id"] for line in lines()} == names, what=server.log)
    landed.assert_once(lines(), names, stalls)


@pytest.fixture
def servers(stack, tmp_path):
    """Starts servers beside the shared stack."""
    started = []

    def start(**settings):
        started.append(Server(stack, tmp_path, **settings))
        return started[-1]

    yield start
    for server in started:
        assert server.stop() == 0, server.log()


@pytest.fixture
def server(servers):
    return servers()


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def event(name):
    return json.dumps({"id": name, "type": "play", "session_id": name}).encode()


# ---- Answers ----


def test_where_all_is_well_an_answer_has_at_most_200_bytes(server):
    """What goes out is a third of the bill of single POSTs."""
    request = b"POST /events HTTP/1.1\r\nhost: a\r\norigin: https://player.example\r\ncontent-length: %d\r\n\r\n" % len(EVENT)
    with server.connect() as connection:
        connection.sendall(request + EVENT)
        answer = connection.recv(4096)
    assert status(answer) == 200 and answer.endswith(b'{"accepted":1,"rejected":[]}')
    assert len(answer) <= 200, answer


def test_health_readiness_and_metrics_answer(server):
    """For the load balancer, for whoever starts it, and for Prometheus."""
    get = "GET {} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    assert status(server.ask(get.format("/health").encode())) == 200
    assert status(server.ask(get.format("/ready").encode())) == 200
    posted = server.ask(POST.replace(b"/events", b"/ready") + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(EVENT) + EVENT)
    assert status(posted) == 404, "events there are not taken, and so not answered 200"
    assert status(server.post()) == 200
    samples = wait_for(lambda: "playhead_connections 0" in (found := server.metrics()) and found, 10, "the end of the connections")
    assert "playhead_accepted_events_total 1" in samples and "playhead_in_flight_bytes 0" in samples


def test_http_2_with_prior_knowledge(server):
    """A hundred requests at once on one connection, each answered 200."""
    with server.connect() as connection:
        answer = exchange_by_http_2(connection, h2.begin() + b"".join(h2.post(stream, EVENT) for stream in range(1, 200, 2)), 100)
    heads = {stream: payload for kind, _, stream, payload in h2.frames(answer) if kind == h2.HEADERS}
    assert heads.keys() == set(range(1, 200, 2))
    assert all(head.startswith(h2.STATUS_200) for head in heads.values())


@pytest.mark.parametrize(
    ("settings", "prefix", "headers", "ip"),
    [
        ({}, b"", {}, "127.0.0.1"),
        ({}, b"", {"x_forwarded_for": "203.0.113.9"}, "127.0.0.1"),
        ({"TRUSTED_PROXIES": "127.0.0.0/8"}, b"", {"x_forwarded_for": "192.0.2.1, 203.0.113.9"}, "203.0.113.9"),
        (
            {"PROXY_PROTOCOL": "v2"},
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 9, 10, 0, 0, 1, 192, 0, 0, 80]), {}, "203.0.113.9",
        ),
    ],
)
def test_the_client_is_who_the_connection_or_a_trusted_proxy_says(servers, settings, prefix, headers, ip):
    """The address from the connection, from the header that a balancer puts before it, or from X-Forwarded-For."""
    server, name = servers(CLIENT_IP="full", **settings), str(uuid.uuid4())
    head = "".join(f"{header.replace('_', '-')}: {value}\r\n" for header, value in headers.items())
    body = event(name)
    head = f"POST /events HTTP/1.1\r\n{head}host: a\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    assert status(server.ask(prefix + head.encode() + body)) == 200
    line = server.stack.wait_for_lines(lambda line: line.json.get("id") == name, 1)[0]
    assert line.json["client"]["ip"] == ip


def test_many_posts_share_records(server, stalls):
    """A thousand POSTs of one event within a second are some dozens of records."""
    connections = [server.connect() for _ in range(50)]
    head = "POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n"
    names = [str(uuid.uuid4()) for _ in range(1000)]
    for turn in range(0, len(names), len(connections)):
        for connection, name in zip(connections, names[turn:], strict=False):
            connection.sendall(head.format(len(event(name))).encode() + event(name))
        for connection in connections:
            assert status(connection.recv(4096)) == 200
    for connection in connections:
        connection.close()
    server.stop()
    values = [json.loads(line) for line in server.log().splitlines() if '"PutRecords"' in line]
    assert sum(value.get("AcceptedEvents", 0) for value in values) == len(names)
    assert sum(value["PutRecords"] for value in values) <= 200
    assert all(value["front_door"] == "server" for value in values)
    landed_once(server, names, stalls)


def certificate(directory, name):
    """A certificate that signs itself, in the files that the server reads."""
    files = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )
    return files


def handshake(server, protocols):
    """The protocol that the server chose, and the connection. Who it says it is, is for the caller to look at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(protocols)
    connection = context.wrap_socket(server.connect(), server_hostname="a.example")
    return connection.selected_alpn_protocol(), connection


def test_tls_takes_both_protocols_and_a_new_certificate(servers, tmp_path):
    """The protocol is agreed on in the handshake; a certificate that is renewed is taken without a restart."""
    chain, key = certificate(tmp_path, "a.example")
    server = servers(TLS_CERTIFICATE=chain, TLS_KEY=key)
    protocol, connection = handshake(server, ["http/1.1"])
    with connection:
        answer = exchange(connection, POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(EVENT) + EVENT)
        assert (protocol, status(answer)) == ("http/1.1", 200)
    protocol, connection = handshake(server, ["h2", "http/1.1"])
    with connection:
        answer = exchange_by_http_2(connection, h2.begin() + h2.post(1, EVENT), 1)
        assert protocol == "h2" and [payload[:1] for kind, *_, payload in h2.frames(answer) if kind == h2.HEADERS] == [h2.STATUS_200]

    def shown():
        _, connection = handshake(server, ["http/1.1"])
        with connection:
            return connection.getpeercert(binary_form=True)

    before = shown()
    certificate(tmp_path, "b.example")
    wait_for(lambda: shown() != before, 20, "the new certificate")


# ---- Ends ----


class Traffic:
    """Clients that send one event after another, each on a connection that it keeps while it can."""

    def __init__(self, port, clients=20):
        self.port, self.accepted, self.failed, self.stopped = port, [], [], threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self):
        connection = None
        while not self.stopped.is_set():
            name = str(uuid.uuid4())
            body = event(name)
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                head = f"POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                answer = connection.recv(4096)
                (self.accepted if status(answer) == 200 else self.failed).append(name)
                if not answer or b"connection: close" in answer:
                    connection.close()
                    connection = None
            except OSError:
                self.failed.append(name)
                connection = None
                time.sleep(0.05)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def test_killed_again_and_again_under_load_nothing_that_was_answered_200_is_missing(fresh_stack):
    """An answer of 200 means stored, whenever the process dies."""
    stack = fresh_stack(FRONT_DOOR="server")
    with Traffic(stack.port) as traffic:
        for _ in range(8):
            time.sleep(0.7)
            for pid in stack.function_processes(INGEST_SERVER):
                signal_if_alive(pid, signal.SIGKILL)
        time.sleep(1)
    assert len(traffic.accepted) > 100 and traffic.failed
    assert stack.stop() == 0, stack.tail()
    ids = {line.json["id"] for line in stack.lines()}
    assert not set(traffic.accepted) - ids


def test_while_a_balancer_sends_on_after_sigterm_no_request_fails_and_all_of_them_land(servers, stalls):
    """It says that it is not ready, asks clients to go elsewhere, serves on, and ends when its time is over."""
    server = servers(DRAIN_SECONDS=10)
    with Traffic(server.port) as traffic:
        time.sleep(1)
        signalled = time.monotonic()
        signal_if_alive(server.process.pid, signal.SIGTERM)
        time.sleep(1)
        answer = server.ask(b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n")
        assert status(answer) == 503 and b"connection: close" in answer
        time.sleep(max(0, signalled + 4 - time.monotonic()))
    assert traffic.failed == [] and len(traffic.accepted) > 100
    assert server.process.wait(30) == 0, server.log()
    landed_once(server, traffic.accepted, stalls)


def test_a_request_of_which_a_byte_was_read_is_answered_though_the_server_stops(server):
    """The rest of its head, and its body, may come later."""
    name = str(uuid.uuid4())
    body = event(name)
    request = f"POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    connections = [(cut, server.connect()) for cut in (1, 20, len(request) - 5)]
    for cut, connection in connections:
        connection.sendall(request[:cut])
    wait_for(lambda: "playhead_connections 3" in server.metrics(), 10, server.log)
    time.sleep(0.3)
    signal_if_alive(server.process.pid, signal.SIGTERM)
    time.sleep(0.5)
    for cut, connection in connections:
        answer = exchange(connection, request[cut:])
        assert status(answer) == 200 and b"connection: close" in answer, (cut, answer)


def test_what_a_client_that_went_away_had_sent_is_stored_and_counted(servers, stalls):
    """Players leave the page right after their last event."""
    server, names = servers(), [str(uuid.uuid4()) for _ in range(100)]
    for name in names:
        body = event(name)
        with server.connect() as connection:
            connection.sendall(b"POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    landed_once(server, names, stalls)
    server.stop()
    values = [json.loads(line) for line in server.log().splitlines() if "AcceptedEvents" in line]
    assert sum(value["AcceptedEvents"] for value in values) == len(names)


# ---- What it does not put up with ----

SMUGGLED = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "data", "statuses"),
    [
        ("a_length_beside_chunks", POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, [400]),
        ("chunks_beside_a_length", POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED, [400]),
        ("two_lengths", POST + b"content-length: 2\r\ncontent-length: 40\r\n\r\n{}" + SMUGGLED, [400]),
        ("a_list_of_lengths", POST + b"content-length: 2, 40\r\n\r\n{}" + SMUGGLED, [400]),
        ("a_signed_length", POST + b"content-length: +2\r\n\r\n{}" + SMUGGLED, [400]),
        ("an_unknown_coding", POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, [400]),
        ("chunks_that_are_not_last", POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED, [400]),
        ("a_folded_header", POST + b"a: b\r\n transfer-encoding: chunked\r\n\r\n" + SMUGGLED, [400]),
        ("a_space_before_the_colon", POST + b"content-length : 2\r\n\r\n{}" + SMUGGLED, [400]),
        ("a_bad_chunk_size", POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" + SMUGGLED, [400]),
        ("a_huge_chunk_size", POST + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n{}" + SMUGGLED, [400]),
        ("a_zero_in_a_header", POST + b"a: \0\r\ncontent-length: 2\r\n\r\n{}" + SMUGGLED, [400]),
        ("chunks_in_http_1_0", b"POST /events HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, [400]),
        ("a_head_that_is_too_long", POST + b"a: " + b"x" * 20_000 + b"\r\n\r\n" + SMUGGLED, [431]),
        ("too_many_headers", POST + b"a: b\r\n" * 150 + b"\r\n" + SMUGGLED, [431]),
        ("pipelined", (POST + b"content-length: 2\r\n\r\n{}") * 3 + b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [200] * 4),
        ("equal_lengths", POST + b"content-length: 2\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", [200]),
        ("a_body_that_is_too_large", POST + b"content-length: 6291457\r\n\r\n", [413]),
        ("no_http", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 30 + b"\r\n\r\n", [400]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_odd_request_has_its_answer_and_nothing_behind_it_passes_as_another(server, name, data, statuses):
    """Request smuggling, damaged framing, limits: what follows a request that is refused is never read as a request."""
    answer = server.ask(data)
    found = [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert found == statuses, answer
    assert status(server.post()) == 200


def test_two_content_types_that_differ_are_refused_and_equal_ones_are_one(server):
    """Where a player and a library on its page both set it, it arrives twice."""
    post = lambda *types: POST + b"".join(b"content-type: %s\r\n" % kind for kind in types) + b"connection: close\r\ncontent-length: 2\r\n\r\n{}"
    assert status(server.ask(post(b"application/json", b"application/json"))) == 200
    assert status(server.ask(post(b"application/json", b"application/cmcd"))) == 415


def test_half_sent_heads_and_slow_bodies_time_out_and_hinder_nobody(server):
    """Two thousand heads that never end; a body that never comes; one that comes a byte at a time."""
    open_files.raise_limit()
    began = time.monotonic()
    heads = [server.connect() for _ in range(2_000)]
    for connection in heads:
        connection.sendall(POST)
    for _ in range(10):
        assert status(server.post()) == 200
    assert not any(has_ended(connection) for connection in heads), "the posts waited for the end of the others"
    with server.connect() as silent, server.connect() as slow, ThreadPoolExecutor(2) as pool:
        never = pool.submit(exchange, silent, POST + b"content-length: 100\r\n\r\n{")
        slow.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        sent = time.monotonic()
        try:
            while time.monotonic() - sent < 30:
                slow.sendall(b"1\r\n \r\n")
                time.sleep(0.2)
        except OSError:
            pass
        assert 15 < time.monotonic() - sent < 29
        assert status(never.result()) == 408
    for connection in heads:
        connection.settimeout(max(1, 40 - (time.monotonic() - began)))
        assert connection.recv(100) == b"", "closed"
        connection.close()
    assert server.peak_memory() < 300 << 20


def test_a_refusal_reaches_a_client_that_still_sends(server):
    """A connection that is closed while bytes wait on it is reset, and some systems then drop the answer before it is read."""
    with server.connect() as connection:
        connection.sendall(POST + b"content-length: 7000000\r\n\r\n" + b" " * 7_000_000)
        assert status(connection.recv(4096)) == 413 and connection.recv(4096) == b""


def test_whoever_takes_all_connections_neither_makes_it_look_dead_nor_keeps_the_others_out(servers):
    """Where others wait, connections without a request end within seconds, not after the 75 that they may last."""
    server = servers(MAX_CONNECTIONS=50)
    idle = [server.connect() for _ in range(50)]
    for connection in idle:
        connection.sendall(POST + b"content-length: %d\r\n\r\n" % len(EVENT) + EVENT)
    assert all(status(connection.recv(4096)) == 200 for connection in idle)
    silent = [server.connect() for _ in range(10)]
    host, port = server.admin
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        assert status(exchange(connection, b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")) == 200
    # Each looks for a crowd every five seconds, and the silent ones every two: a round of both, and one more for a slow machine.
    assert status(server.post(seconds=15)) == 200
    for connection in idle + silent:
        connection.close()


def test_one_client_with_the_worst_bodies_takes_neither_the_others_answers_nor_the_memory(servers):
    """Bombs, deep JSON, 4 MB of events and 9,000 sessions at once, one after the other; others post small events meanwhile."""
    server = servers(MAX_IN_FLIGHT_BYTES=64 << 20)
    idle = server.peak_memory()
    many = json.dumps([{"type": "play", "session_id": str(uuid.uuid4())} for _ in range(9_000)]).encode()
    large = json.dumps([{"type": "play", "text": uuid.uuid4().hex * 28} for _ in range(4_500)]).encode()
    bodies = [(gzip.compress(b" " * 4_000_000 + EVENT), {"content_encoding": "gzip"}), (gzip.compress(b" " * (100 << 20)), {"content_encoding": "gzip"}),
              (b"[" * 9_000 + b"]" * 9_000, {}), (large, {}), (many, {})]
    assert 4_000_000 < len(large) < 4 << 20
    over = time.monotonic() + 10

    def worst():
        found = []
        while time.monotonic() < over:
            found += [(number, status(server.post(body, **headers))) for number, (body, headers) in enumerate(bodies)]
        return found

    with ThreadPoolExecutor(1) as pool:
        answers, good = pool.submit(worst), []
        while time.monotonic() < over:
            sent = time.monotonic()
            good.append((status(server.post()), time.monotonic() - sent))
        found = set(answers.result())
    assert {answer for answer, _ in good} == {200} and len(good) > 10
    # The usual time is the commit interval, a fifth of a second.
    assert sorted(seconds for _, seconds in good)[len(good) // 2] < 0.5, good
    assert found <= {(0, 200), (0, 503), (1, 413), (2, 400), (3, 200), (3, 503), (4, 200), (4, 503)} and len(found) >= 5, found
    assert server.peak_memory() - idle < 200 << 20, (server.peak_memory(), idle)


def test_endless_bodies_are_cut_and_memory_is_bounded(servers):
    """Bodies without end from many connections, and bombs, while others post."""
    server = servers(MAX_IN_FLIGHT_BYTES=64 << 20)
    idle = server.peak_memory()
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"

    def endless():
        with server.connect() as connection:
            return status(exchange(connection, POST + b"transfer-encoding: chunked\r\n\r\n" + chunk * 200))

    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(endless) for _ in range(80)]
        good = [status(server.post()) for _ in range(20)]
        found = {answer.result() for answer in answers}
    assert good == [200] * 20
    # Some clients hear nothing, because they still send when the connection is closed.
    assert found <= {413, 503, None} and found, found
    assert server.peak_memory() - idle < 200 << 20, (server.peak_memory(), idle)


@pytest.mark.parametrize(
    ("name", "flood"),
    [
        ("rapid_reset", lambda stream: h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.POST_HEAD) + h2.frame(h2.RST_STREAM, 0, stream, b"\0\0\0\x08")),
        ("settings", lambda _: h2.frame(h2.SETTINGS, 0, 0, b"\0\x03\0\0\0\x64" * 100)),
        ("pings", lambda _: h2.frame(h2.PING, 0, 0, b"12345678")),
        ("empty_data", lambda _: h2.frame(h2.DATA, 0, 1, b"")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_http_2_floods_cost_their_connection_and_nobody_else(server, name, flood):
    """CVE-2023-44487 and its kin: the server's memory stays, and others are served."""
    idle = server.peak_memory()
    with server.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.settimeout(5)
        opened = h2.begin() + (h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.POST_HEAD) if name == "empty_data" else b"")
        attack = b"".join(flood(stream) for stream in range(1, 20_001, 2))
        answer = pool.submit(exchange, connection, opened + attack)
        assert [status(server.post()) for _ in range(5)] == [200] * 5
        kinds = [kind for kind, *_ in h2.frames(answer.result())]
    if name == "rapid_reset":
        assert h2.GOAWAY in kinds, kinds
    assert server.peak_memory() - idle < 32 << 20


def test_streams_that_wait_for_their_bodies_are_as_few_as_connections_and_soon_give_way(servers):
    """Otherwise each connection could hold a hundred requests in memory for twenty seconds."""
    server = servers(MAX_CONNECTIONS=100)
    idle = server.peak_memory()
    opened = b"".join(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.POST_HEAD) for stream in range(1, 200, 2))
    with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        connections = [stack.enter_context(server.connect()) for _ in range(20)]
        for connection in connections:
            connection.settimeout(10)
        answers = [pool.submit(exchange, connection, h2.begin() + opened) for connection in connections]
        assert status(server.post()) == 200, "HTTP/1.1 has its connections"
        assert wait_for(lambda: posted_by_http_2(server), 15, "a stream for somebody else")
        heads = [payload for answer in answers for kind, *_, payload in h2.frames(answer.result()) if kind == h2.HEADERS]
    # A tenth at least of those that waited have given way.
    assert len(heads) >= 1_910 and not any(head.startswith(h2.STATUS_200) for head in heads), len(heads)
    assert server.peak_memory() - idle < 16 << 20


def posted_by_http_2(server):
    with server.connect() as connection:
        connection.settimeout(1)
        answer = exchange(connection, h2.begin() + h2.post(1, EVENT))
    return [payload for kind, *_, payload in h2.frames(answer) if kind == h2.HEADERS and payload.startswith(h2.STATUS_200)]


def test_a_header_block_that_never_ends_is_cut(server):
    """CONTINUATION frames without end: https://kb.cert.org/vuls/id/421644"""
    idle = server.peak_memory()
    piece = b"".join(h2.literal(b"a%d" % number, b"x" * 100) for number in range(100))
    attack = h2.begin() + h2.frame(h2.HEADERS, 0, 1, h2.POST_HEAD) + h2.frame(h2.CONTINUATION, 0, 1, piece) * 5_000
    answer = server.ask(attack, 10)
    kinds = [kind for kind, *_ in h2.frames(answer)]
    assert h2.GOAWAY in kinds or not answer, kinds
    assert server.peak_memory() - idle < 16 << 20
    assert status(server.post()) == 200


# ---- Starts ----


class Credentials(BaseHTTPRequestHandler):
    """What ECS answers. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html"""

    def do_GET(self):
        expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = json.dumps({"AccessKeyId": "of-ecs", "SecretAccessKey": "of-ecs", "Token": "t", "Expiration": expires}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_task_of_ecs_has_its_role_s_credentials(servers):
    """They come from an address that ECS names, and are fetched anew before they expire."""
    ecs = HTTPServer(("127.0.0.1", 0), Credentials)
    threading.Thread(target=ecs.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{ecs.server_port}/credentials"
    server = servers(AWS_CONTAINER_CREDENTIALS_FULL_URI=address, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    answer = server.post()
    ecs.shutdown()
    assert status(answer) == 200, server.log()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LISTEN", "8080"), ("COMMIT_INTERVAL_MS", "501"), ("TRUSTED_PROXIES", "10.0.0.0/33"), ("MAX_IN_FLIGHT_BYTES", "1"), ("PROXY_PROTOCOL", "v1")],
)
def test_a_bad_value_stops_the_start_and_is_named(variable, value):
    """The error says what to change."""
    variables = {"AWS_REGION": "us-east-1", "STREAM_NAME": "s", "BUCKET_NAME": "b", variable: value}
    run = subprocess.run([built(INGEST_SERVER)], env=without_aws() | variables, capture_output=True, text=True, timeout=20)
    assert run.returncode == 1 and variable in run.stderr
