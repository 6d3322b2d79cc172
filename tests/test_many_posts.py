"""Much traffic at once."""

import json
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

from support import landed
from support.stack import INGEST

POSTS, EVENTS_PER_POST, VIEWERS, THREADS = 1_000, 20, 50, 64


def body_of(post):
    viewer = f"viewer-{post % VIEWERS}"
    events = [
        {"id": f"{post}/{n}", "session_id": viewer, "post": post, "n": n, "type": "heartbeat", "ms": n * 250}
        for n in range(EVENTS_PER_POST)
    ]
    return json.dumps(events).encode()


def post_all(stack):
    """The status of each post, sent by many threads on connections that are kept alive."""
    own = threading.local()

    def post(number):
        if not hasattr(own, "connection"):
            own.connection = stack.connect()
        headers = {"content-type": "application/json"}
        return stack.post(body=body_of(number), headers=headers, connection=own.connection).status

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(post, range(POSTS)))


def test_a_thousand_posts_at_once_land_whole_in_few_records_and_full_objects(fresh_stack, stalls):
    """1,000 POSTs of 20 events from 50 viewers at once: 20,000 lines, none twice by id, none lost, each
    POST's in their order, in far fewer records than events, and in objects of about 100 records. The
    window is the deployed one."""
    stack = fresh_stack(parameters="")
    assert Counter(post_all(stack)) == {200: POSTS}
    lines = stack.wait_for_lines(lambda line: True, POSTS * EVENTS_PER_POST, timeout=60)
    assert len(lines) == POSTS * EVENTS_PER_POST
    landed.assert_once(lines, [f"{post}/{n}" for post in range(POSTS) for n in range(EVENTS_PER_POST)], stalls)
    assert_order_within_posts(lines)
    metadata = landed.verify_all(stack)
    assert_few_records(metadata)
    assert_full_objects(stack, metadata)
    print("environments of ingest at once:", len(stack.function_processes(INGEST)))


def assert_order_within_posts(lines):
    seen = defaultdict(list)
    for line in lines:
        seen[line.json["event"]["post"]].append(line.json["event"]["n"])
    assert all(numbers == list(range(EVENTS_PER_POST)) for numbers in seen.values())


def assert_few_records(metadata):
    """The events of a POST share a viewer, hence a record; a little more is allowed for entries that were
    retried."""
    records = sum(int(entry["record-count"]) for entry in metadata.values())
    print(f"{records} records for {POSTS * EVENTS_PER_POST} events")
    assert POSTS <= records <= POSTS * 1.05


def assert_full_objects(stack, metadata):
    """The last object of a shard holds what was left when the traffic ended: it says nothing."""
    counts = defaultdict(list)
    for file in stack.landed_files("events"):
        counts[file.parts["shard"]].append(int(metadata[file.key]["record-count"]))
    print("records in each object:", dict(counts))
    assert all(count <= 100 for shard in counts.values() for count in shard)
    full = [count for shard in counts.values() for count in shard[:-1]]
    assert sum(full) / len(full) >= 50
