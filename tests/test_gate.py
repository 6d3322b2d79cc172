"""Who may speak to the one-machine stack, and for how long it listens: in raw sockets."""

import http.client
import json
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from support import open_files
from support.stack import INGEST

PAGE = "https://evil.example"
# What a connection may be silent for, and what a busy machine needs.
IDLE_SECONDS, PATIENCE = 20, 15
# More than each port serves at once.
CROWD = {"events": 2_100, "aws": 250}


def ports(stack):
    return {"events": stack.port, "aws": urllib.parse.urlsplit(stack.aws_address).port}


def ask(port, request):
    """The status line and the body of an answer to exactly these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read().decode()


def get(path, *headers):
    return "\r\n".join([f"GET {path} HTTP/1.1", *headers, "Connection: close", "", ""]).encode()


def path_of(door):
    return "/health" if door == "events" else "/metrics"


@pytest.mark.parametrize("door", ["events", "aws"])
@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.nip.io:{port}", "0.0.0.0:{port}",
    "192.168.0.1", "[fe80::1]:{port}", "127.0.0.1@evil.example", "[::ffff:7f00:1]:{port}", "[::ffff:127.0.0.1]:{port}",
    "localhost.:{port}",
])
def test_a_host_that_is_not_this_machine_is_refused_on_both_ports(stack, door, host):
    """After DNS rebinding a page's requests come from this machine, under the page's own host name."""
    port = ports(stack)[door]
    status, body = ask(port, get(path_of(door), "Host: " + host.format(port=port)))
    assert status == 403 and host.split(":{")[0] in body and "127.0.0.1" in body, body


@pytest.mark.parametrize("door", ["events", "aws"])
@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "x.localhost", "127.1.2.3"])
def test_every_name_of_this_machine_is_let_in_on_both_ports(stack, door, host):
    port = ports(stack)[door]
    assert ask(port, get(path_of(door), "Host: " + host.format(port=port)))[0] == 200


@pytest.mark.parametrize("door", ["events", "aws"])
def test_each_host_that_a_request_names_counts(stack, door):
    port, path = ports(stack)[door], path_of(door)
    assert ask(port, get(path, "Host: 127.0.0.1", "Host: evil.example"))[0] in (400, 403)
    assert ask(port, get(f"http://evil.example{path}", "Host: 127.0.0.1"))[0] == 403
    assert ask(port, get(path))[0] in (400, 403)


@pytest.mark.parametrize("origin", [PAGE, "null", "http://localhost.evil.example", "http://10.0.0.1:8080"])
@pytest.mark.parametrize("method, path", [("PUT", "/_faults"), ("GET", "/_faults"), ("GET", "/metrics"),
                                          ("GET", "/landing-bucket?list-type=2"), ("POST", "/")])
def test_a_page_of_another_origin_may_not_use_the_aws_port(stack, method, path, origin):
    request = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {origin}\r\nContent-Length: 7\r\n\r\ns3.slow"
    status, body = ask(ports(stack)["aws"], request.encode())
    assert status == 403 and origin in body


@pytest.mark.parametrize("site, status", [("cross-site", 403), ("none", 200), ("same-site", 200)])
def test_a_page_of_another_site_may_not_embed_the_metrics(stack, site, status):
    """Images, scripts and links come without an origin."""
    request = get("/metrics", "Host: 127.0.0.1", f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: no-cors")
    assert ask(ports(stack)["aws"], request)[0] == status


def test_a_page_on_this_machine_is_let_in(stack):
    request = get("/metrics", "Host: 127.0.0.1", "Origin: http://localhost:3000")
    assert ask(ports(stack)["aws"], request)[0] == 200


def test_a_page_of_any_origin_posts_events(stack):
    headers = {"Host": f"localhost:{stack.port}", "Origin": PAGE, "Content-Type": "application/json"}
    answer = stack.post(body=b'{"id":"from a page"}', headers=headers)
    assert answer.status == 200 and answer.json == {"accepted": 1, "rejected": []}


def is_closed(connection):
    """Whether the server ends it, whatever it says before."""
    connection.settimeout(IDLE_SECONDS + PATIENCE)
    try:
        while connection.recv(4096):
            pass
        return True
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


HALF_SENT = {
    "nothing": b"", "a byte": b"P", "half the headers": b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    "half a preface": b"PRI * HTTP/2.0\r\n\r\nSM", "HTTP/2 without a frame": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


# What a client begins with, and what it then sends again and again: a header's next byte; after a preface and its settings, a PING.
DRIPS = {
    "headers": (HALF_SENT["half the headers"], b"x"),
    "HTTP/2 PINGs": (HALF_SENT["HTTP/2 without a frame"] + b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)),
}


def drip(port, begin, more):
    """Sends a little at a time until the server closes the connection; how many seconds that took."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(begin)
        connection.settimeout(0.5)
        while time.monotonic() - began < IDLE_SECONDS + PATIENCE:
            try:
                connection.sendall(more)
                if connection.recv(4096) == b"":
                    break
                time.sleep(0.5)
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break
    return time.monotonic() - began


@pytest.fixture(scope="module")
def dripping(stack):
    """Drips while the test before waits for other connections, too."""
    with ThreadPoolExecutor(len(DRIPS)) as pool:
        yield {name: pool.submit(drip, stack.port, *drips) for name, drips in DRIPS.items()}


@pytest.mark.usefixtures("dripping")
def test_a_connection_that_never_sends_its_headers_is_closed(stack):
    """All at once: each is idle for as long as it may be."""
    doors = ports(stack)
    connections = {(door, name): socket.create_connection(("127.0.0.1", doors[door])) for door in doors for name in HALF_SENT}
    began = time.monotonic()
    try:
        for (_, name), connection in connections.items():
            connection.sendall(HALF_SENT[name])
        assert [case for case, connection in connections.items() if not is_closed(connection)] == []
        assert time.monotonic() - began < IDLE_SECONDS + PATIENCE
    finally:
        for connection in connections.values():
            connection.close()


@pytest.mark.parametrize("drips", DRIPS)
def test_a_connection_that_sends_bytes_and_no_whole_request_is_closed_too(dripping, drips):
    assert dripping[drips].result() < IDLE_SECONDS + PATIENCE


@contextmanager
def crowd(port, count, request):
    """So many connections that each have sent this."""
    open_files.raise_limit()
    with ExitStack() as connections:
        for _ in range(count):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(request)
        yield


def test_a_crowd_of_half_sent_headers_keeps_nobody_out_for_long(fresh_stack):
    stack = fresh_stack()
    with crowd(stack.port, CROWD["events"], b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\n"):
        began = time.monotonic()
        assert stack.post(body=json.dumps({"id": "in a crowd"}).encode()).status == 200
        assert time.monotonic() - began < PATIENCE
        stack.wait_for_lines(lambda line: "in a crowd" in line.text, 1)


def test_outsiders_who_hold_the_whole_aws_port_do_not_keep_the_functions_out(fresh_stack):
    stack = fresh_stack()
    upload = b"PUT /landing-bucket/never HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nx"
    with crowd(ports(stack)["aws"], CROWD["aws"], upload):
        assert stack.post(body=json.dumps({"id": "beside a crowd"}).encode()).status == 200
        stack.wait_for_lines(lambda line: "beside a crowd" in line.text, 1, timeout=PATIENCE)


def test_a_thousand_connections_are_kept_alive(fresh_stack):
    """As many as `loadtest` opens."""
    stack = fresh_stack()
    open_files.raise_limit()
    connections = [stack.connect() for _ in range(1_000)]
    try:
        # One that was closed would fail: `http.client` does not ask again.
        for _ in range(2):
            assert {stack.post("/health", method="GET", connection=each).status for each in connections} == {200}
            time.sleep(2)
    finally:
        for connection in connections:
            connection.close()


def test_an_upload_that_takes_too_long_is_answered_408(stack):
    request = b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n[{}"
    status, body = ask(stack.port, request)
    assert status == 408 and "10 s" in body


def test_while_events_queue_health_is_answered_at_once_and_players_get_429(fresh_stack):
    stack = fresh_stack(FAULTS="kinesis.late=1 s3.late=1")
    with ThreadPoolExecutor(100) as players:
        answers = [players.submit(stack.post, body=b'{"n":1}') for _ in range(100)]
        time.sleep(1)
        assert stack.post("/health", method="GET").status == 200
        # Behind the events it would wait until their five seconds in the queue are over, when the first of them are refused.
        assert not any(answer.done() and answer.result().status == 429 for answer in answers)
        answers = [answer.result() for answer in answers]
    throttled = [answer for answer in answers if answer.status == 429]
    assert throttled and all(answer.json["Type"] == "User" for answer in throttled)
    assert all(answer.headers["x-amzn-ErrorType"] == "TooManyRequestsException" for answer in throttled)
    assert {answer.status for answer in answers} <= {200, 429, 503}
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    throttles = stack.metric("Throttles", an_hour_ago, "Sum", namespace="AWS/Lambda", FunctionName=INGEST)
    assert sum(throttles) == len(throttled)


def test_a_stack_with_half_sent_headers_stops_at_once(fresh_stack):
    stack = fresh_stack()
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        began = time.monotonic()
        assert stack.stop() == 0
        assert time.monotonic() - began < PATIENCE
