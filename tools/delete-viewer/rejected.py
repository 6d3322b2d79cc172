"""Searches what was rejected: whole inputs of which nothing could be parsed, so a value is looked for as text.

It counts where it stands by itself: s-1 is not in s-10. Bodies are searched as they came, without their compression, and with the escapes
of JSON and of URLs undone, twice.
"""

import base64
import json
import re
import zlib
from urllib.parse import unquote_to_bytes

# As much as redrive reads of a body.
MAX_BODY_BYTES = 16 * 1024 * 1024
# Of bodies in several parts that are held at once.
MAX_JOINED_BYTES = 256 * 1024 * 1024
# Members of a gzip body: each costs a copy of what follows it.
MAX_MEMBERS = 100
ROUNDS = 2
# gzip or zlib, and deflate without a header.
WINDOWS = (47, -15)
ESCAPE = re.compile(rb'(?:\\u[0-9a-fA-F]{4})+|\\["\\/bfnrt]')
SIMPLE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
# What ids are made of; all that is not ASCII counts as a letter.
PART_OF_AN_ID = rb"[0-9A-Za-z_\x80-\xff-]"


class TooMuch(Exception):
    """More than can be searched."""


class Search:
    """For any of several values."""

    def __init__(self, values):
        values = b"|".join(re.escape(value.encode()) for value in values)
        self.pattern = re.compile(rb"(?<!%s)(?:%s)(?!%s)" % (PART_OF_AN_ID, values, PART_OF_AN_ID))

    def finds(self, content):
        return any(self.pattern.search(form) for form in forms(content))

    def finds_in_body(self, body):
        """Raises TooMuch if it is not found as far as the limits, and there is more."""
        if self.finds(body):
            return True
        inflated = [inflate(body, window) for window in WINDOWS]
        if any(content and self.finds(content) for content, _ in inflated):
            return True
        if any(is_more for _, is_more in inflated):
            raise TooMuch(f"a body has more than {MAX_BODY_BYTES} bytes after decompression, or more than {MAX_MEMBERS} members")
        return False


def forms(content):
    """The content, and what it says with its escapes undone."""
    found = {content}
    for _ in range(ROUNDS):
        escaped, quoted = ({form for form in found if mark in form} for mark in (b"\\", b"%"))
        found |= {ESCAPE.sub(unescaped, form) for form in escaped} | {unquote_to_bytes(form) for form in quoted}
    return found


def unescaped(match):
    escape = match[0]
    if escape[1:2] != b"u":
        return SIMPLE.get(escape[1:], escape[1:])
    units = bytes.fromhex(escape.replace(b"\\u", b"").decode())
    return units.decode("utf-16-be", errors="replace").encode()


def inflate(body, window):
    """What a body holds that is compressed, of all its members, and whether there is more than the limits; what of it can be read, if it is
    damaged."""
    content, rest = bytearray(), body
    for _ in range(MAX_MEMBERS):
        decoder = zlib.decompressobj(window)
        try:
            content += decoder.decompress(rest, MAX_BODY_BYTES + 1 - len(content))
        except zlib.error:
            return bytes(content), False
        if len(content) > MAX_BODY_BYTES:
            return bytes(content), True
        rest = decoder.unused_data
        # Deflate without a header has one.
        if not rest or window < 0:
            return bytes(content), False
    return bytes(content), True


def parse(line):
    """A line's id, the number of parts, its body, and the line without the body; None for what is not as ours."""
    try:
        found = json.loads(line, parse_int=str, parse_float=str)
        body = base64.b64decode(found["rejected"].pop("body_base64"), validate=True)
        part, parts = (int(found["rejected"].get(name, 1)) for name in ("part", "parts"))
        return str(found.get("id")), (part, parts), body, json.dumps(found, ensure_ascii=False).encode(errors="replace")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None


class RejectedLines:
    """Which rejected lines of an hour hold one of the values. A body in several parts is searched whole: `add` each line first."""

    def __init__(self, search):
        self.search = search
        self.parts, self.bytes, self.ids = {}, 0, set()
        # Why not all was searched that is in several parts, if so.
        self.problem = None

    def add(self, line):
        parsed = parse(line)
        if parsed is None or parsed[1][1] == 1:
            return
        line_id, (part, _), body, _ = parsed
        if self.bytes + len(body) > MAX_JOINED_BYTES:
            self.problem = TooMuch(f"an hour has bodies in several parts with more than {MAX_JOINED_BYTES} bytes")
            return
        self.bytes += len(body)
        self.parts.setdefault(line_id, {})[part] = body

    def join(self):
        """Once all lines were added."""
        for line_id, parts in self.parts.items():
            try:
                if self.search.finds_in_body(b"".join(parts[part] for part in sorted(parts))):
                    self.ids.add(line_id)
            except TooMuch as problem:
                self.problem = problem
        self.parts.clear()

    def has_line(self, line):
        parsed = parse(line)
        if parsed is None:
            return self.search.finds(line)
        line_id, (_, parts), body, rest = parsed
        return (parts > 1 and line_id in self.ids) or self.search.finds(rest) or self.search.finds_in_body(body)
