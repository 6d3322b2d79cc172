"""Recorded sessions of real players, and a made-up one, land as they were sent."""

import json
import re

from support import landed
from support.sessions import event_texts, replay, requests
from support.structured_fields import Reader

UUID_7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def session_lines(stack, member, value, count):
    """The lines of one partition key in the order of the stream, once there are so many; there must not be
    more."""
    found = stack.wait_for_lines(lambda line: line.json.get("event", {}).get(member) == value, count)
    assert len(found) == count
    return found


def exactly(value):
    """JSON with its order and types: to Python, True is 1 and dicts have no order."""
    return json.dumps(value)


def test_the_mux_session_lands_whole_in_order_and_unchanged(stack):
    """The recorded mux-embed session, replayed with its own headers, is answered 200 and lands: 21 events,
    in order within their partition key, each as the player sent it, to the letter."""
    session = requests("mux-embed-session.jsonl")
    replay(stack, session)
    sent = [text for request in session for text in event_texts(request)]
    assert len(sent) == 21
    lines = session_lines(stack, "xid", json.loads(sent[0])["xid"], 21)
    assert [line.event_text for line in lines] == sent
    user_agent = session[0]["headers"]["user-agent"]
    assert all(line.json["client"] == {"user_agent": user_agent} for line in lines)
    assert len({line.json["request_id"] for line in lines}) == len(session)
    assert all(UUID_7.fullmatch(line.json["id"]) for line in lines)


def test_the_dash_js_session_lands_whole_in_order_and_unchanged(stack):
    """The recorded dash.js session (CMCD, event mode), replayed with its own headers, is answered 200 and
    lands: 38 events, in order, each saying what the player's report said."""
    session = requests("dashjs-cmcd-v2-session.jsonl")
    replay(stack, session)
    sent = [Reader(text).dictionary() for request in session for text in event_texts(request)]
    assert len(sent) == 38
    lines = session_lines(stack, "sid", sent[0]["sid"], 38)
    assert [exactly(line.json["event"]) for line in lines] == [exactly(report) for report in sent]
    assert [line.json["event"]["sn"] for line in lines] == list(range(38))


# Pairs, surrogates that have no partner, and all other escapes, so that none is taken for the start of another.
ESCAPES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<lone>\\u[dD][89a-fA-F]..)|\\.")


def without_lone_surrogates(text):
    return ESCAPES.sub(lambda escape: r"\ufffd" if escape["lone"] else escape[0], text)


def test_text_that_is_not_ascii_and_hostile_json_land_to_the_letter(stack):
    """A session with text that is not ASCII and with escaped quotes lands too: scripts, emoji, U+2028,
    numbers that no float holds, duplicate members. Line breaks between tokens become spaces, and lone surrogates in
    escapes U+FFFD; nothing else changes."""
    session = requests("made-up-session.jsonl")
    replay(stack, session)
    sent = [text for request in session for text in event_texts(request)]
    lines = session_lines(stack, "session_id", "made-up-4d0c9b52", len(sent))
    expected = [without_lone_surrogates(text.replace("\r", " ").replace("\n", " ")) for text in sent]
    assert [line.event_text for line in lines] == expected
    assert sum(text != other for text, other in zip(expected, sent)) > 1
    assert lines[0].json["id"] == "café-1" and '"id":"caf\\u00e9-1","received_at"' in lines[0].text
    client = {"user_agent": 'Made-up/1.0 ("quoted"; \\ backslash)'}
    assert all(line.json["client"] == client for line in lines)


def test_an_id_from_the_client_is_kept_and_a_missing_one_is_made(stack):
    """The envelope's id is the client's, if it has one that serves, else a UUID version 7."""
    session = "session-of-ids"
    ids = ["client-1", 42, "", None, {"a": 1}]
    body = json.dumps([{"session_id": session, "id": value} for value in ids]).encode()
    assert stack.post(body=body, headers={"content-type": "application/json"}).status == 200
    landed_ids = [line.json["id"] for line in session_lines(stack, "session_id", session, len(ids))]
    assert landed_ids[:2] == ["client-1", "42"]
    assert all(UUID_7.fullmatch(value) for value in landed_ids[2:]) and len(set(landed_ids)) == len(ids)


def test_every_file_is_what_its_metadata_says(stack):
    """Any bzip2 and JSON-lines reader reads the files, and their metadata is a count that others can
    check."""
    body = json.dumps({"session_id": "session-of-metadata"}).encode()
    assert stack.post(body=body).status == 200
    session_lines(stack, "session_id", "session-of-metadata", 1)
    assert landed.verify_all(stack)
