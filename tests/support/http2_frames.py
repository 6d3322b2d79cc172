"""HTTP/2 frames as bytes, good and bad: what no library lets a test send. https://www.rfc-editor.org/rfc/rfc9113"""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
# HPACK's index of `:status: 200`, which an answer begins with.
STATUS_200 = b"\x88"
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header that HPACK neither shortens nor remembers."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


POST_HEAD = b"".join(
    literal(name, value)
    for name, value in [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/events"), (b":authority", b"a")]
)


def begin():
    return PREFACE + frame(SETTINGS)


def post(stream, body):
    return frame(HEADERS, END_HEADERS, stream, POST_HEAD) + frame(DATA, END_STREAM, stream, body)


def frames(data):
    """The whole frames in some bytes, as (kind, flags, stream, payload)."""
    while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
        yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]
        data = data[9 + length :]
