"""Every form of body that players send, over the real front door."""

import gzip
import json
import uuid
import zlib

import pytest

OBJECT = '{"session_id":"SESSION","type":"play"}'
PAIR = ['{"session_id":"SESSION","n":1}', '{"session_id":"SESSION", "n":2.0}']
ARRAY = f"[{PAIR[0]},\n {PAIR[1]}]"
EVENTS = f'{{"metadata":{{"rtt_ms":9}},"events":[{PAIR[0]},{PAIR[1]}]}}'
LINES = f"{PAIR[0]}\n{PAIR[1]}\n"
CRLF_LINES = f"{PAIR[0]}\r\n\r\n{PAIR[1]}"
PRETTY = '{\n  "session_id": "SESSION",\r\n  "type": "play"\n}\n'
PRETTY_FOLDED = '{   "session_id": "SESSION",    "type": "play" }'
FRAMES = f'{{"v":1,"events":[{PAIR[0]}]}}\n{{"events":[{PAIR[1]}],"v":2}}\n'
MARKED_LINES = f"\ufeff{PAIR[0]}\n\ufeff{PAIR[1]}"
WIDE_CMCD = 'cid="Café 日本 🎬 \\"100%\\"",sid="SESSION"\n'
CMCD = 'e=t,sid="SESSION",sn=0,su\nbl=(0;v 12;a),e=ps,pr=1.5,sid="SESSION",sn=1\n'
CMCD_EVENTS = [
    '{"e":"t","sid":"SESSION","sn":0,"su":true}',
    '{"bl":[{"value":0,"params":{"v":true}},{"value":12,"params":{"a":true}}],'
    '"e":"ps","pr":1.5,"sid":"SESSION","sn":1}',
]

FORMS = {
    "object": ("application/json", OBJECT, [OBJECT]),
    "object_over_several_lines": ("application/json", PRETTY, [PRETTY_FOLDED]),
    "object_with_charset": ("application/json; charset=utf-8", OBJECT, [OBJECT]),
    "object_with_byte_order_mark": ("application/json", "\ufeff" + OBJECT, [OBJECT]),
    "object_without_content_type": (None, OBJECT, [OBJECT]),
    "array": ("application/json", ARRAY, PAIR),
    "array_as_text": ("text/plain;charset=UTF-8", ARRAY, PAIR),
    "events_member": ("application/json", EVENTS, PAIR),
    "events_member_as_text": ("text/plain", EVENTS, PAIR),
    "lines": ("application/x-ndjson", LINES, PAIR),
    "lines_as_json": ("application/json", LINES, PAIR),
    "lines_as_text": ("text/plain", LINES, PAIR),
    "lines_ended_by_crlf": ("application/x-ndjson", CRLF_LINES, PAIR),
    "frames": ("application/x-ndjson", FRAMES, PAIR),
    "frames_as_text": ("text/plain", FRAMES, PAIR),
    "lines_with_byte_order_marks": ("text/plain", MARKED_LINES, PAIR),
    "array_whose_content_type_comes_twice": ("application/json; charset=utf-8, application/json", ARRAY, PAIR),
    "cmcd": ("application/cmcd", CMCD, CMCD_EVENTS),
    "cmcd_beyond_ascii": ("application/cmcd", WIDE_CMCD, ['{"cid":"Café 日本 🎬 \\"100%\\"","sid":"SESSION"}']),
}

ENCODINGS = {
    "plain": (None, bytes),
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw_deflate": ("deflate", lambda body: zlib.compress(body, wbits=-15)),
    # API Gateway's REST API decompresses bodies and leaves the header.
    "said_to_be_gzip": ("gzip", bytes),
    "said_to_be_deflate": ("deflate", bytes),
}


def post_and_read(stack, content_type, content_encoding, body, session, path="/events"):
    """The texts of the events that landed of a body, in the order of the stream."""
    names = {"content-type": content_type, "content-encoding": content_encoding}
    headers = {name: value for name, value in names.items() if value}
    answer = stack.post(path, body, headers)
    assert (answer.status, answer.json["rejected"]) == (200, []), answer.body
    lines = stack.wait_for_lines(lambda line: f'"{session}"' in line.text, answer.json["accepted"])
    return [line.event_text for line in lines]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_lands_in_every_encoding(stack, form, encoding):
    """JSON object, array, events member, NDJSON, text/plain and application/cmcd, each bare and compressed
    (compressed bodies reach the function as base64): the events land as they were sent."""
    content_type, body, events = FORMS[form]
    content_encoding, compress = ENCODINGS[encoding]
    session = str(uuid.uuid4())
    body = compress(body.replace("SESSION", session).encode())
    expected = [event.replace("SESSION", session) for event in events]
    assert post_and_read(stack, content_type, content_encoding, body, session) == expected


@pytest.mark.parametrize("path", ["/events", "/events/", "/events/cmcd", "/events?player=web", "/", "/?a=b", "//", "//events", "/events//x/"])
def test_players_may_post_to_the_root_and_below_events(stack, path):
    """Players add what they like to the path: dash.js posts to /events/cmcd, mux-embed to the root, and an address that ends
    in a slash makes two of one."""
    session = str(uuid.uuid4())
    body = OBJECT.replace("SESSION", session)
    assert post_and_read(stack, "application/json", None, body.encode(), session, path) == [body]


def test_several_gzip_members_are_one_body(stack):
    """A gzip file may be several put together; all of it is read."""
    session = str(uuid.uuid4())
    events = [event.replace("SESSION", session) for event in PAIR]
    body = b"".join(gzip.compress(f"{event}\n".encode()) for event in events)
    assert post_and_read(stack, "application/x-ndjson", "gzip", body, session) == events


def test_a_body_in_chunks_is_read_whole(stack):
    """Some clients don't know a body's length beforehand and send it in chunks."""
    session = str(uuid.uuid4())
    body = ARRAY.replace("SESSION", session).encode()
    chunks = iter([body[:10], body[10:11], body[11:]])
    events = [event.replace("SESSION", session) for event in PAIR]
    assert post_and_read(stack, "application/json", None, chunks, session) == events


def test_halves_of_surrogate_pairs_land_as_the_replacement_character(stack):
    """A text that was cut in the middle of an emoji is JSON, but no Unicode; many readers refuse a whole file for it."""
    session = str(uuid.uuid4())
    body = r'[{"id":"\ud83d-ID","session_id":"ID","t":"a \uD83D b","u":"\udc00\ud83d"},{"session_id":"ID","t":"\ud83d\ude00 \\ud83d"}]'
    landed = [
        r'{"id":"\ufffd-ID","session_id":"ID","t":"a \ufffd b","u":"\ufffd\ufffd"}',
        r'{"session_id":"ID","t":"\ud83d\ude00 \\ud83d"}',
    ]
    texts = post_and_read(stack, "application/json", None, body.replace("ID", session).encode(), session)
    assert texts == [text.replace("ID", session) for text in landed]
    lines = stack.wait_for_lines(lambda line: session in line.text, 2)
    assert lines[0].json["id"] == f"\ufffd-{session}"
    # Encoding what was read raises an error for half a pair.
    assert all(json.dumps(line.json, ensure_ascii=False).encode() for line in lines)
