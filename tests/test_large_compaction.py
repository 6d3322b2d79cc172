"""A compaction of some events, in small; `make large-compaction EVENTS=5000000` does it in earnest."""

from large_compaction import main


def test_an_hour_of_many_events_is_compacted_and_read():
    main(20_000)
