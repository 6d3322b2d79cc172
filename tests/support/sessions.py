"""Recorded sessions of players: their requests, and the events in them."""

import json
import re

from support.stack import REPOSITORY

FIXTURES = REPOSITORY / "tests/fixtures"
WHITE_SPACE = re.compile(r"[ \t\r\n]*")


def requests(name):
    return [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").split("\n") if line]


def replay(stack, session):
    """Posts a session request by request with its own headers; each must be answered 200, for all its
    events."""
    for request in session:
        answer = stack.post(request["path"], request["body"].encode(), request["headers"], request["method"])
        assert (answer.status, answer.json["rejected"]) == (200, []), answer.body
        assert answer.json["accepted"] == len(event_texts(request))
        # The page that the player runs in must be able to read the answer.
        assert answer.headers["access-control-allow-origin"] == request["headers"]["origin"]


def event_texts(request):
    """The events of a request, each as the text that the player sent."""
    body = request["body"]
    if request["headers"]["content-type"] in ("application/cmcd", "application/x-ndjson"):
        return [line.strip() for line in body.split("\n") if line.strip()]
    if body.startswith("["):
        return member_texts(body, 1)
    if '"events":[' in body and body.startswith('{"metadata"'):
        return member_texts(body, body.index('"events":[') + len('"events":['))
    return [body.strip()]


def member_texts(text, at):
    """The members of the JSON array whose inside begins there."""
    found, decoder = [], json.JSONDecoder()
    while True:
        at = WHITE_SPACE.match(text, at).end()
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end])
        at = WHITE_SPACE.match(text, end).end()
        if text[at] == "]":
            return found
        assert text[at] == ","
        at += 1
