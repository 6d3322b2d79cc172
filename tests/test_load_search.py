"""load-search as Lambda runs it, against a cluster that behaves as a real one: each event is one document, whatever goes wrong."""

import bz2
import hashlib
import json
import time
from urllib.parse import urlsplit

import pytest
from opensearchpy import OpenSearch

from support.fast_clock import FastClock
from support.function import KEY, REGION, SECRET, Bucket, refused_start, running
from support.search_cluster import (
    ERROR_OF_A_BREAKER, ERROR_OF_A_FULL_QUEUE, SearchCluster, busy_for_a_third, cut_off_after_storing, serving_cluster,
    signed_with, status, unreadable_after_storing, with_password,
)
from support.stack import FAST, wait_for
from support.traffic import JSON

FUNCTION = "load-search"
OPEN = {"SEARCH_AUTH": "none"}


def line(number, **event):
    """An event's line."""
    return json.dumps({
        "v": 1, "id": f"e-{number}", "received_at": f"2026-11-21T09:32:{number % 60:02}.006Z", "request_id": f"r-{number}",
        "client": {"user_agent": "UA"}, "event": {"type": "play", "sessionId": f"s-{number % 3}", "number": number} | event,
    }, separators=(",", ":"))


def land(bucket, name, lines, date="2026-11-21", streams=1):
    """An object of these lines, in so many bzip2 streams."""
    key = f"events/dt={date}/hour=09/shardId-000000000000-{name}.jsonl.bz2"
    parts = [lines[start::streams] for start in range(streams)]
    bucket.objects[key] = b"".join(bz2.compress("".join(f"{one}\n" for one in part).encode()) for part in parts)
    return key


def s3_event(bucket, key):
    entity = {"bucket": {"name": bucket.name}, "object": {"key": key.replace("=", "%3D")}}
    return json.dumps({"Records": [{"eventTime": "2026-11-21T09:33:00.000Z", "eventName": "ObjectCreated:Put", "s3": entity}]})


def message(number, body):
    return {"messageId": f"m-{number}", "receiptHandle": "r", "body": body, "eventSource": "aws:sqs"}


def load(function, messages, rounds=1):
    """As a queue does: what fails is sent again. What still fails after so many rounds."""
    waiting = messages
    for _ in range(rounds):
        answer = function.invoke({"Records": waiting})
        failed = [one["itemIdentifier"] for one in answer["batchItemFailures"]]
        waiting = [one for one in waiting if one["messageId"] in failed]
        if not waiting:
            break
    return [one["messageId"] for one in waiting]


def documents(address, query=None, index="playhead-*"):
    """By their ids, as a reader's client has them."""
    url = urlsplit(address)
    client = OpenSearch([{"host": url.hostname, "port": url.port}], use_ssl=False)
    found = client.search(index=index, body={"size": 10_000, "query": query or {"match_all": {}}})
    assert client.count(index=index)["count"] >= found["hits"]["total"]["value"]
    return {hit["_id"]: hit for hit in found["hits"]["hits"]}


def digest(one):
    return hashlib.sha256(one.encode()).hexdigest()


def test_each_event_is_one_document_of_its_day():
    """Two objects of two days, one of them in three bzip2 streams: envelopes, promoted fields, ids, and the index template."""
    bucket, cluster = Bucket(), SearchCluster()
    lines = [line(number) for number in range(30)]
    keys = [land(bucket, 1, lines, streams=3), land(bucket, 2, [line(99, type=None, e="pause")], date="2026-11-22")]
    with serving_cluster(cluster) as address, running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **OPEN) as function:
        messages = [message(number, s3_event(bucket, key)) for number, key in enumerate(keys)]
        assert load(function, messages) == []
        assert load(function, messages) == [], "what is sent again changes nothing"
        found = documents(address, index="playhead-2026.11.21")
        assert found.keys() == {digest(one) for one in lines}
        one = found[digest(lines[4])]["_source"]
        assert one == json.loads(lines[4]) | {"type": "play", "session_id": "s-1"}
        assert documents(address, {"term": {"session_id": "s-1"}}, "playhead-2026.11.21").keys() == {
            digest(one) for number, one in enumerate(lines) if number % 3 == 1}
        later, = documents(address, index="playhead-2026.11.22").values()
        assert later["_source"]["type"] == "pause"
        # What a function prints comes a little after its answer.
        wait_for(lambda: sum(function.metrics("LoadedDocuments")) == 31, 10, lambda: function.lines)
        wait_for(lambda: function.metrics("PresentDocuments") == [0, 31], 10, lambda: function.lines)
        wait_for(lambda: len(function.metrics("LoadLag")) == 2, 10, lambda: function.lines)
    mappings = cluster.templates["playhead"]["template"]["mappings"]
    assert mappings["dynamic"] is False and mappings["properties"]["event"] == {"type": "flat_object"}
    assert [one.path for one in cluster.requests if "_index_template" in one.path] == ["/_index_template/playhead"]


FAULTS = {
    "a third is refused": [busy_for_a_third(429, ERROR_OF_A_FULL_QUEUE, start) for start in range(3)],
    "the breaker": [busy_for_a_third(429, ERROR_OF_A_BREAKER, 1), busy_for_a_third(400, ERROR_OF_A_BREAKER, 0)],
    "a full disk": [busy_for_a_third(403, {"type": "cluster_block_exception", "reason": "disk usage exceeded"}, 0)],
    "no answer after storing": [cut_off_after_storing, cut_off_after_storing],
    "half an answer after storing": [unreadable_after_storing],
    "the gateway": [status(502), status(503), status(429)],
    "no permission at first": [status(403)],
    "everything": [status(503), busy_for_a_third(429, ERROR_OF_A_FULL_QUEUE, 2), cut_off_after_storing, status(401),
                   busy_for_a_third(503, {"type": "unavailable_shards_exception", "reason": "r"}, 1), unreadable_after_storing],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("distribution", ["opensearch", "elasticsearch"])
def test_whatever_goes_wrong_each_event_is_one_document(distribution, faults):
    bucket, cluster = Bucket(), SearchCluster(distribution)
    cluster.faults = list(faults)
    objects = [[line(number) for number in range(start, start + 20)] for start in (0, 10, 100)]
    keys = [land(bucket, number, lines) for number, lines in enumerate(objects)]
    with serving_cluster(cluster) as address, running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **OPEN) as function:
        messages = [message(number, s3_event(bucket, key)) for number, key in enumerate(keys)]
        assert load(function, messages, rounds=5) == []
        found = documents(address)
    assert not cluster.faults
    assert found.keys() == {digest(one) for lines in objects for one in lines}
    assert all(found[digest(one)]["_source"]["event"] == json.loads(one)["event"] for lines in objects for one in lines)
    assert bucket.objects.keys() == set(keys)


def test_what_the_cluster_refuses_is_kept_with_the_reason():
    bucket, cluster = Bucket(), SearchCluster()
    lines = [line(1), line(2, text="x" * 40_000), line(3).replace('"id":"e-3"', '"id":{}'), "no JSON", line(4)]
    key = land(bucket, 1, lines)
    with serving_cluster(cluster) as address, running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **OPEN) as function:
        for _ in range(2):
            assert load(function, [message(1, s3_event(bucket, key))]) == []
            kept = [json.loads(one) for one in bucket.objects[f"unloadable/search/{key}.jsonl"].splitlines()]
            assert [one["type"] for one in kept] == ["illegal_argument_exception", "mapper_parsing_exception", "not_an_event"]
            assert [one.get("line") for one in kept] == [json.loads(lines[1]), json.loads(lines[2]), None]
        assert documents(address).keys() == {digest(lines[0]), digest(lines[4])}
        wait_for(lambda: function.metrics("UnloadableDocuments") == [3, 3], 10, lambda: function.lines)
    assert bucket.objects.keys() == {key, f"unloadable/search/{key}.jsonl"}


def test_an_event_that_repeats_a_member_is_kept():
    """Clusters refuse such a document, at any depth, and not its request."""
    bucket, cluster = Bucket(), SearchCluster()
    lines = [line(1), line(2).replace('"number":2', '"number":1,"number":2'), line(3, deep=[{"a": 1}]).replace('"a":1', '"a":1,"a":1')]
    key = land(bucket, 1, lines)
    with serving_cluster(cluster) as address, running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **OPEN) as function:
        assert load(function, [message(1, s3_event(bucket, key))]) == []
        assert documents(address).keys() == {digest(lines[0])}
    kept = bucket.objects[f"unloadable/search/{key}.jsonl"].decode().splitlines()
    assert [json.loads(one)["type"] for one in kept] == ["mapper_parsing_exception"] * 2
    assert all(one.endswith(f'"line":{sent}}}') for one, sent in zip(kept, lines[1:], strict=True)), "the lines are as they were"


def test_two_stacks_share_a_cluster():
    bucket, cluster = Bucket(), SearchCluster()
    key = land(bucket, 1, [line(1)])
    with serving_cluster(cluster) as address:
        for prefix in ("playhead", "playhead-dev"):
            with running(FUNCTION, bucket, SEARCH_ENDPOINT=address, SEARCH_INDEX_PREFIX=prefix, **OPEN) as function:
                assert load(function, [message(1, s3_event(bucket, key))]) == []
    assert cluster.indexes.keys() == {"playhead-2026.11.21", "playhead-dev-2026.11.21"}
    assert cluster.templates.keys() == {"playhead", "playhead-dev"}


def test_messages_come_with_and_without_the_envelope_of_sns():
    bucket, cluster = Bucket(), SearchCluster()
    key = land(bucket, 1, [line(1)])
    envelope = {"Type": "Notification", "MessageId": "m", "TopicArn": "t", "Message": s3_event(bucket, key)}
    with serving_cluster(cluster) as address, running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **OPEN) as function:
        test = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket.name})
        assert load(function, [message(1, test), message(2, "hello"), message(3, json.dumps(envelope))]) == ["m-2"]
        assert documents(address).keys() == {digest(line(1))}


def test_other_objects_are_passed_over():
    bucket, cluster = Bucket(), SearchCluster()
    keys = ["events/dt=2026-11-21/hour=09/_SUCCESS", "rejected/dt=2026-11-21/hour=09/shardId-000000000000-1.jsonl.bz2",
            "events/dt=2026-11-21/hour=09/shardId-000000000000-7.jsonl.bz2"]
    with serving_cluster(cluster) as address, running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **OPEN) as function:
        assert load(function, [message(number, s3_event(bucket, key)) for number, key in enumerate(keys)]) == []
        wait_for(lambda: all(any(key in one and "WARN" in one for one in function.lines) for key in keys), 10, lambda: function.lines)
    assert not cluster.indexes


@pytest.mark.parametrize(("authorized", "variables"), [
    pytest.param(signed_with(KEY, SECRET, REGION), {}, id="sigv4"),
    pytest.param(with_password("loader", "se:cret"),
                 {"SEARCH_AUTH": "basic", "SEARCH_USER": "loader", "SEARCH_PASSWORD": "se:cret"}, id="basic"),
])
def test_the_cluster_knows_who_is_calling(authorized, variables):
    bucket, cluster = Bucket(), SearchCluster(authorized=authorized)
    key = land(bucket, 1, [line(1)])
    with serving_cluster(cluster) as address:
        with running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **variables) as function:
            assert load(function, [message(1, s3_event(bucket, key))]) == []
        said = function.lines
        with running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **OPEN) as function:
            assert load(function, [message(1, s3_event(bucket, key))]) == ["m-1"]
            wait_for(lambda: any("401" in one and "WARN" in one for one in function.lines), 10, lambda: function.lines)
    assert len(cluster.indexes) == 1
    assert not any(secret in one for one in said for secret in (SECRET, "se:cret", "bG9hZGVyOnNlOmNyZXQ="))


def test_what_players_post_can_be_searched_for(fresh_stack):
    """The whole way on the one-machine stack: a POST, the stream, an object, its topic, the queue, a document. The cluster refuses
    the function's first request, and the queue sends the message again."""
    cluster = SearchCluster()
    cluster.faults = [status(401)]
    with serving_cluster(cluster) as address:
        stack = fresh_stack(parameters=f"{FAST} SearchEndpoint={address} SearchAuth=none", CLOCK=FastClock(100).setting)
        body = json.dumps([{"id": f"e-{number}", "type": "play", "session_id": "s-1"} for number in range(20)] + [7])
        assert stack.post(body=body.encode(), headers=JSON).status == 200
        wait_for(lambda: cluster.indexes and len(documents(address)) == 20, 60, "20 documents")
        found = documents(address, {"term": {"type": "play"}})
        assert not cluster.faults, "nothing was refused"
        assert sorted(one["_source"]["id"] for one in found.values()) == sorted(f"e-{number}" for number in range(20))
    assert "401" in stack.function_log(FUNCTION)
    assert "passed over" not in stack.function_log(FUNCTION), "the topic's filter leaves out what is rejected"


def is_away(request):
    """No answer to anything."""
    raise OSError("away")


def test_an_hour_without_the_cluster_loses_and_doubles_nothing(fresh_stack):
    """Players post on while the cluster is away for an hour of the clock, and when it is back it is too busy for a third of all items, again
    and again."""
    clock = FastClock(300)
    cluster = SearchCluster()
    with serving_cluster(cluster) as address:
        cluster.authorized = is_away
        stack = fresh_stack(parameters=f"{FAST} SearchEndpoint={address} SearchAuth=none", CLOCK=clock.setting)
        began, posted = time.monotonic(), 0
        while time.monotonic() - began < 3_600 / clock.speed:
            body = json.dumps([{"id": f"e-{posted + number}", "type": "play"} for number in range(50)])
            assert stack.post(body=body.encode(), headers=JSON).status == 200
            posted += 50
            time.sleep(0.25)
        assert not cluster.indexes and len(cluster.requests) > 10, "it is asked again and again"
        cluster.faults = [busy_for_a_third(429, ERROR_OF_A_FULL_QUEUE, number % 3) for number in range(1_000)]
        cluster.authorized = lambda request: True
        wait_for(lambda: cluster.indexes and len(documents(address)) >= posted, 120, f"{posted} documents")
        ids = [one["_source"]["id"] for one in documents(address).values()]
        assert sorted(ids) == sorted(f"e-{number}" for number in range(posted))
        assert 0 < len(cluster.faults) < 990, "the busy cluster was met all the time, and more than a few times"
    assert "dead letter" not in stack.tail(1_000)


@pytest.mark.parametrize(("variables", "named"), [
    ({}, "SEARCH_ENDPOINT"), ({"SEARCH_ENDPOINT": "search.example"}, "SEARCH_ENDPOINT"),
    ({"SEARCH_ENDPOINT": "http://127.0.0.1:9", "SEARCH_AUTH": "magic"}, "SEARCH_AUTH"),
    ({"SEARCH_ENDPOINT": "http://127.0.0.1:9", "SEARCH_AUTH": "basic"}, "SEARCH_USER"),
    ({"SEARCH_ENDPOINT": "http://127.0.0.1:9", "SEARCH_INDEX_PREFIX": "-"}, "SEARCH_INDEX_PREFIX"),
    ({"SEARCH_ENDPOINT": "http://127.0.0.1:9", "PROMOTED_FIELDS": "event:x"}, "PROMOTED_FIELDS"),
])
def test_a_bad_variable_stops_the_start_and_is_named(variables, named):
    assert named in refused_start(FUNCTION, **variables)


def test_an_object_that_lost_all_of_its_lines_is_done():
    """As delete-viewer leaves it."""
    bucket, cluster = Bucket(), SearchCluster()
    key = land(bucket, 1, [])
    with serving_cluster(cluster) as address, running(FUNCTION, bucket, SEARCH_ENDPOINT=address, **OPEN) as function:
        assert load(function, [message(1, s3_event(bucket, key))]) == []
    assert not [key for key in bucket.objects if key.startswith("unloadable/")]
