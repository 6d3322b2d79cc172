"""The stream may be resharded while events flow."""

import os
from collections import defaultdict

from support import landed
from support.stack import LANDING_SECONDS, STREAM, wait_for
from support.traffic import Traffic


# That are accepted before the next reshard.
EVENTS = int(os.environ.get("RESHARD_EVENTS", 300))


def shards(stack):
    return stack.kinesis().describe_stream(StreamName=STREAM)["StreamDescription"]["Shards"]


def open_shards(stack):
    """The shards that take records, by the keys that they take."""
    still_open = [one for one in shards(stack) if "EndingSequenceNumber" not in one["SequenceNumberRange"]]
    return sorted(still_open, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))


def wait_until_active(stack):
    def active():
        described = stack.kinesis().describe_stream(StreamName=STREAM)["StreamDescription"]
        return described["StreamStatus"] == "ACTIVE"

    wait_for(active, 60, "an active stream")


def split_first(stack):
    shard = open_shards(stack)[0]
    start, end = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    middle = str((start + end) // 2)
    stack.kinesis().split_shard(StreamName=STREAM, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
    wait_until_active(stack)


def merge_last_two(stack):
    first, second = (shard["ShardId"] for shard in open_shards(stack)[-2:])
    stack.kinesis().merge_shards(StreamName=STREAM, ShardToMerge=first, AdjacentShardToMerge=second)
    wait_until_active(stack)


def generations(stack):
    """For each shard how many came before it: records of a key move from a shard to its children, never
    back."""
    by_id = {shard["ShardId"]: shard for shard in shards(stack)}

    def generation(shard):
        parents = [by_id[shard[name]] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard]
        return 1 + max(map(generation, parents), default=0)

    return {name: generation(shard) for name, shard in by_id.items()}


def test_split_and_merge_under_traffic_lose_double_and_reorder_nothing(fresh_stack, stalls):
    """Splitting and merging shards loses, doubles and reorders nothing. Events of one key that are posted one after the other land in the order that the stream gave them.

    Shards that are split and merged under traffic: everything that was answered 200 lands once, in
    order for each viewer, parents before children."""
    stack = fresh_stack(parameters="BatchSize=20 BatchingWindowSeconds=1")
    with Traffic(stack, viewers=12, events_per_post=3) as traffic:
        for step in (split_first, merge_last_two, split_first):
            before = len(traffic.accepted)
            step(stack)
            wait_for(lambda: len(traffic.accepted) > before + EVENTS, 60, "traffic after a reshard")
    print(f"{traffic.statuses}; {len(traffic.accepted)} events accepted")
    assert set(traffic.statuses) == {200}
    assert len(shards(stack)) == 2 + 2 + 1 + 2
    accepted = set(traffic.accepted)
    stack.wait_for_lines(lambda line: line.json["id"] in accepted, len(accepted), timeout=2 * LANDING_SECONDS)
    landed.verify_all(stack)
    assert_order(stack)
    assert_parents_first(stack)
    assert stack.stop() == 0, stack.tail()
    landed.assert_once(stack.lines(), traffic.accepted, stalls)


def files_by_generation(stack):
    generation = generations(stack)
    # What was spilled never was on the stream.
    files = [file for file in stack.landed_files("events") if not file.parts["spill"]]
    return sorted(files, key=lambda file: (generation[file.parts["shard"]], *file.position))


def assert_order(stack):
    """Each viewer's events have the order in which the viewer sent them."""
    seen = defaultdict(list)
    for file in files_by_generation(stack):
        for line in landed.read_lines(file.path):
            seen[line.json["event"]["viewer_id"]].append(line.json["event"]["n"])
    assert len(seen) == 12
    for viewer, numbers in seen.items():
        assert numbers == sorted(numbers), f"the events of {viewer} are not in order"


def assert_parents_first(stack):
    """A child's first file is written after its parents' last: who follows the files sees each viewer in
    order."""
    written = defaultdict(list)
    for file in stack.landed_files("events"):
        written[file.parts["shard"]].append(file.path.stat().st_mtime_ns)
    for shard in shards(stack):
        parents = [shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard]
        for parent in parents:
            if written[parent] and written[shard["ShardId"]]:
                assert max(written[parent]) <= min(written[shard["ShardId"]]), f"{shard} before {parent}"


def test_update_shard_count_keeps_the_order_of_each_viewer(fresh_stack, stalls):
    """The old shards are read to their end first, and those in between too."""
    stack = fresh_stack(parameters="BatchSize=20 BatchingWindowSeconds=1")
    with Traffic(stack, viewers=12, events_per_post=3) as traffic:
        wait_for(lambda: len(traffic.accepted) > 300, what="traffic")
        old = {shard["ShardId"] for shard in shards(stack)}
        stack.kinesis().update_shard_count(
            StreamName=STREAM, TargetShardCount=3, ScalingType="UNIFORM_SCALING",
        )
        wait_until_active(stack)
        before = len(traffic.accepted)
        wait_for(lambda: len(traffic.accepted) > before + 300, what="traffic after the change")
    assert stack.stop() == 0, stack.tail()
    landed.assert_once(stack.lines(), traffic.accepted, stalls)
    written = {"old": defaultdict(list), "new": defaultdict(list)}
    seen = defaultdict(list)
    files = stack.landed_files("events")
    for file in sorted(files, key=lambda file: (file.parts["shard"] not in old, *file.position)):
        generation = "old" if file.parts["shard"] in old else "new"
        for line in landed.read_lines(file.path):
            viewer = line.json["event"]["viewer_id"]
            seen[viewer].append(line.json["event"]["n"])
            written[generation][viewer].append(file.path.stat().st_mtime_ns)
    assert len(seen) == 12
    for viewer, numbers in seen.items():
        assert numbers == sorted(set(numbers)), f"the events of {viewer} are not in order"
        assert max(written["old"][viewer]) <= min(written["new"][viewer]), f"{viewer}: new shards before old ones"
