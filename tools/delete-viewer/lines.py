"""Reads lines as the functions do: what of a line is its event, whose it is, and what an object's metadata counts of it.

JSON is taken apart into slices of its text: a promoted field is compared as compact-partition writes it, so a number is the digits that
the player sent, and `\\u0061bc` is abc.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from json.decoder import scanstring

HOUR = timedelta(hours=1)
ENVELOPE = "envelope"
FOREIGN = "foreign_record"
# Those that compact-partition reads.
ENVELOPE_MEMBERS = ("v", "id", "received_at", "request_id", "app", "client", "event")
CLIENT_MEMBERS = ("user_agent", "ip")
RECEIVED_IN = ("previous", "this", "next", "elsewhere")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
SPACE = re.compile(r"[ \t\n\r]*")


def refuse(name):
    raise ValueError(f"{name} is not JSON")


# Numbers stay text: they may have thousands of digits.
DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=refuse)


def members(text):
    """Each member's name as it is written, quotes included, and its value's text. Raises ValueError unless it is one JSON object."""
    at = skip(text, 0)
    if text[at:at + 1] != "{":
        raise ValueError("not an object")
    found, at = [], skip(text, at + 1)
    is_over = text[at:at + 1] == "}"
    while not is_over:
        name, value, at = member(text, at)
        found.append((name, value))
        if text[at:at + 1] not in (",", "}"):
            raise ValueError("neither a comma nor the end")
        is_over = text[at] == "}"
        at = at if is_over else skip(text, at + 1)
    if skip(text, at + 1) != len(text):
        raise ValueError("something follows the object")
    return found


def member(text, at):
    """A member that begins here, and where what follows it begins."""
    if text[at:at + 1] != '"':
        raise ValueError("not a name")
    _, end = scanstring(text, at + 1)
    colon = skip(text, end)
    if text[colon:colon + 1] != ":":
        raise ValueError("no colon")
    begin = skip(text, colon + 1)
    try:
        _, after = DECODER.raw_decode(text, begin)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return text[at:end], text[begin:after], skip(text, after)


def skip(text, at):
    return SPACE.match(text, at).end()


def text_of(literal):
    """A string's content; any other value's JSON text. A string with half of a surrogate pair stays as it is written."""
    if not literal.startswith('"'):
        return literal
    # Most have no escapes.
    return json.loads(literal) if "\\" in literal and is_text(literal) else literal[1:-1]


def is_text(literal):
    """Whether it is a string without half of a surrogate pair, which Rust's strings can't have."""
    if not literal.startswith('"') or "\\" not in literal:
        return literal.startswith('"')
    try:
        return json.loads(literal).encode() is not None
    except UnicodeEncodeError:
        return False


# ---- Promoted fields ----

def promoted_fields(text):
    """The paths of each field of PROMOTED_FIELDS: `name:path|path,…`."""
    fields = (field.split(":", 1) for field in text.split(","))
    return {name.strip(): [path.strip().split(".") for path in paths.split("|")] for name, paths in fields}


def promoted(event, paths):
    """The first path that an event has; of a repeated member the last counts, and null is absent."""
    return next((text_of(value) for path in paths if (value := at_path(event, path)) is not None), None)


def at_path(text, path):
    for name in path:
        if not text.startswith("{"):
            return None
        values = [value for key, value in members(text) if text_of(key) == name]
        if not values:
            return None
        text = values[-1]
    return None if text == "null" else text


class Viewer:
    """Whose events are to be deleted: those of which a promoted field has the value, or one of several has."""

    def __init__(self, wanted, paths):
        """`wanted` has values by field, `paths` the paths of each."""
        self.wanted, self.paths = wanted, paths
        self.needles = [value.encode() for value in wanted.values()]

    def may_be_in(self, content):
        """False where parsing finds nothing: a value stands there as it is, unless something is escaped."""
        return b"\\" in content or any(needle in content for needle in self.needles)

    def has_event(self, event):
        try:
            return any(promoted(event.strip(), self.paths[field]) == value for field, value in self.wanted.items())
        except ValueError:
            return False

    def has_line(self, line, event_format=ENVELOPE):
        """Whether a landed line under `events/` is the viewer's."""
        if not self.may_be_in(line):
            return False
        text = line.decode(errors="replace")
        return any(map(self.has_event, events_of(text, event_format)))


def events_of(text, event_format):
    """All that may be the event of a line: the member of an envelope; of a line that only resembles one, that member and the line itself,
    since readers differ in which they take. compact-partition does not ask for the format of an object."""
    try:
        found = [(text_of(name), value) for name, value in members(text)]
    except ValueError:
        return []
    is_raw, is_certain = event_format != ENVELOPE, is_envelope(found)
    events = [value for name, value in found if name == "event" and (is_certain or not is_raw)]
    return events if is_certain and not is_raw else [*events, text]


def is_envelope(found):
    """Whether compact-partition takes these members for an envelope: loader-lambdas/src/compact_partition/row.rs."""
    last = dict(found)
    received_at, client = last.get("received_at", ""), last.get("client", "{}")
    if last.get("v") != "1" or "event" not in last or not is_text(last.get("id", "")):
        return False
    if not received_at.startswith('"') or parse_time(received_at[1:-1]) is None or not client.startswith("{"):
        return False
    of_client = [(text_of(name), value) for name, value in members(client)]
    return is_sound(found, ENVELOPE_MEMBERS, ["request_id"]) and is_sound(of_client, CLIENT_MEMBERS, CLIENT_MEMBERS)


def is_sound(found, known, texts):
    """Whether no member that is known occurs twice, those that are to be texts are, or null, and no name has half of a surrogate pair."""
    names = [name for name, _ in found if name in known]
    has_texts = all(value == "null" or is_text(value) for name, value in found if name in texts)
    return has_texts and len(set(names)) == len(names) and not any("\\" in name for name, _ in found)


# ---- What metadata counts ----

def parse_time(text):
    if not TIME.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def format_time(time):
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def receipt(line, is_believed):
    """When a line says that it was received, and why it was rejected; None where it has no envelope, or no such member. Members whose
    names are escaped are none of ingest's."""
    if not is_believed:
        return None, None
    last = dict(members(line.decode()))
    received_at = parse_time(last.get('"received_at"', "").strip('"')) if last.get('"v"') == "1" else None
    reason = re.match(r'\{"reason":"([^"]*)', last.get('"rejected"', ""))
    is_rejected = reason and received_at and '"event"' not in last
    return received_at, reason[1] if is_rejected else None


class Counted:
    """What an object's metadata says of lines."""

    def __init__(self, hour, is_redriven, reasons):
        """`hour` is when the object's hour begins; `reasons` are those that the object has."""
        self.hour, self.is_redriven, self.known = hour, is_redriven, reasons
        self.received_in = dict.fromkeys(RECEIVED_IN, 0)
        self.reasons = {}
        # Between which times the earliest and the latest receipt must be.
        self.earliest, self.latest = None, None

    def add(self, received_at, reason):
        if reason is not None:
            reason = reason if reason in self.known else FOREIGN
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.received_in[self.place(received_at, reason)] += 1
        if self.is_redriven and received_at is None:
            return
        low, high = self.bounds(received_at)
        earliest, latest = self.earliest or (low, high), self.latest or (low, high)
        self.earliest = min(earliest[0], low), min(earliest[1], high)
        self.latest = max(latest[0], low), max(latest[1], high)

    def place(self, received_at, reason):
        if self.is_redriven or received_at is None or reason == FOREIGN:
            return "elsewhere"
        hours = {-1: "previous", 0: "this", 1: "next"}
        return hours.get((received_at.replace(minute=0, second=0, microsecond=0) - self.hour) // HOUR, "elsewhere")

    def bounds(self, received_at):
        """Landing takes a line's own time if it is at most an hour from its arrival, else the arrival, which is within the hour."""
        start, end = self.hour, self.hour + HOUR - timedelta(milliseconds=1)
        if received_at and (self.is_redriven or start <= received_at <= end):
            return received_at, received_at
        if received_at and start - HOUR <= received_at <= end + HOUR:
            return min(received_at, start), max(received_at, end)
        return start, end


def counts_text(counts):
    return ",".join(f"{name}={count}" for name, count in counts.items())


def read_counts(text):
    pairs = (piece.split("=") for piece in (text or "").split(",") if piece)
    return {name: int(count) for name, count in pairs}
