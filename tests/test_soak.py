"""A minute of the soak: every fault fires while players post, and every event is accounted for."""

import os

from soak import soak

MINUTES = float(os.environ.get("SOAK_MINUTES", 1))


def test_under_every_fault_each_record_lands_in_exactly_one_object(tmp_path):
    """A record that is on the stream lands in exactly one object, whatever crashes, times out, is sent again or arrives late."""
    account, lines, memory = soak(tmp_path, MINUTES, seed=11)
    print(*lines, sep="\n")
    assert account.is_good and not account.given_up, account
    assert account.accepted == account.sent > 1_000
    for function in memory.samples:
        first, last = memory.ends(function)
        assert last < 1.5 * first + 4, f"{function} grew from {first:.1f} to {last:.1f} MiB"
