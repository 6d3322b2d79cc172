"""A port for a program that can't choose its own."""

import socket


def hold():
    """A socket that holds a free port of the loopback interface until it is closed: nobody else is given it meanwhile, and a
    server binds it all the same, as servers do, with SO_REUSEADDR."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def number(held):
    return held.getsockname()[1]
