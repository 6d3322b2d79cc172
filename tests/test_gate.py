"""Who may speak to the one-machine stack, and for how long it listens: in raw sockets."""

import http.client
import json
import socket
import time
import urllib.parse

import pytest

from support.stack import wait_for

PAGE = "https://evil.example"
# What a connection may be silent for, and what a busy machine needs.
IDLE_SECONDS, PATIENCE = 20, 15
# More than the door for events serves at once.
CROWD = 700


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
    "192.168.0.1", "[fe80::1]:{port}", "127.0.0.1@evil.example",
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


def test_a_page_on_this_machine_may_read_the_metrics(stack):
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


def test_a_request_that_comes_byte_by_byte_is_closed_too(stack):
    """Each byte is no progress: only a whole request is."""
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")

        def drip():
            try:
                connection.sendall(b"x")
                connection.settimeout(0.5)
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True

        wait_for(drip, IDLE_SECONDS + PATIENCE, "the end of a connection that drips")


def test_a_crowd_of_half_sent_headers_keeps_nobody_out_for_long(fresh_stack):
    stack = fresh_stack()
    crowd = [socket.create_connection(("127.0.0.1", stack.port)) for _ in range(CROWD)]
    try:
        for connection in crowd:
            connection.sendall(b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        began = time.monotonic()
        assert stack.post(body=json.dumps({"id": "in a crowd"}).encode()).status == 200
        assert time.monotonic() - began < PATIENCE
        stack.wait_for_lines(lambda line: "in a crowd" in line.text, 1)
    finally:
        for connection in crowd:
            connection.close()


def test_a_stack_with_half_sent_headers_stops_at_once(fresh_stack):
    stack = fresh_stack()
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        began = time.monotonic()
        assert stack.stop() == 0
        assert time.monotonic() - began < PATIENCE
