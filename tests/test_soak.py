"""A minute of the soak: every fault fires while players post, and every event is accounted for."""

import os
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from soak import Growth, Soaked, growth, soak

from support.account import WRONG, Account, out_of_order, settle
from support.stack import INGEST, LANDING

MINUTES = float(os.environ.get("SOAK_MINUTES", 1))


def test_under_every_fault_each_record_lands_in_exactly_one_object(tmp_path):
    """A record that is on the stream lands in exactly one object, whatever crashes, times out, is sent again or arrives late.

    Events of one key that are posted one after the other land in the order that the stream gave them."""
    soaked = soak(tmp_path, MINUTES, seed=11)
    print(*soaked.table(), sep="\n")
    assert soaked.is_good, soaked
    assert soaked.account.accepted == soaked.account.sent > 1_000


GOOD = Account(sent=200_000, accepted=200_000, reported_not_stored=9, given_up=0, on_stream=200_100, landed=200_000, missing=[],
               doubled=[], unexplained=[], doubled_under_one_id=3, rejected=5, rejected_missing=[], ordered=100_000, out_of_order=[])
FIRED = {"s3.late": 50, "shard.split": 70}
MEMORY = {INGEST: Growth(10, 17, 3), LANDING: Growth(20, 20, 3)}


def soaked(minutes=10, account=GOOD, fired=FIRED, memory=MEMORY, frames=1):
    return Soaked(minutes, 1, account, frames, fired, memory, [])


def test_a_soak_on_every_bound_is_good():
    """The verdicts stand on their bounds."""
    assert soaked().is_good
    assert soaked(1, replace(GOOD, sent=1, accepted=1), {"s3.late": 1}).is_good


@pytest.mark.parametrize("bad", [
    soaked(account=replace(GOOD, sent=99_999)),
    soaked(account=replace(GOOD, given_up=1)),
    soaked(account=replace(GOOD, ordered=0)),
    *(soaked(account=replace(GOOD, **{name: ["one"]})) for name in WRONG),
    soaked(frames=0),
    soaked(fired=FIRED | {"s3.late": 49}),
    soaked(1, fired=FIRED | {"s3.late": 0}),
    soaked(fired={}),
    soaked(memory=MEMORY | {INGEST: Growth(10, 17.1, 3)}),
    soaked(memory={INGEST: Growth(10, 10, 3)}),
    soaked(memory=MEMORY | {LANDING: growth([])}),
])
def test_each_verdict_can_fail(bad):
    """Whatever is wrong makes the whole not good, and the table says what."""
    assert not bad.is_good
    assert sum(line.startswith("  NOT GOOD") for line in bad.table()) == 1, bad.table()
    assert bad.table()[-1] == "NOT GOOD: SEED=1"


def test_growth_is_of_processes_that_live():
    """One that was killed and another that began say nothing; the one that grew most counts."""
    samples = [{1: 10, 2: 10 + second, 3: 50} for second in range(9)] + 2 * [{1: 10, 2: 20, 4: 500}]
    assert growth(samples) == Growth(10.5, 20, 2)
    assert not growth([{1: 10}, {2: 10}]).is_good


def test_out_of_order_is_found():
    """The first place of each event counts, and events under other keys may be anywhere."""
    posted = {"k": ["a", "b", "c"], "other": ["x"]}
    assert out_of_order(posted, ["a", "x", "b", "a", "c"]) == []
    assert out_of_order(posted, ["b", "a", "c", "x"]) == ["b"]
    players = SimpleNamespace(sent=["a", "b"], accepted=["a", "b"], reported_not_stored=0, given_up=[], bad_refused=[],
                              sent_again_unanswered=Counter(), in_order={"k": ["a", "b"]})
    records = [SimpleNamespace(sequence_number=one, lines=[line(one).text]) for one in "ba"]
    account = settle(players, records, set(), [line("b"), line("a")], [])
    assert (account.ordered, account.out_of_order, account.is_good) == (2, ["b"], False)


def test_spilled_events_land_once_and_have_no_order():
    """They are not on the stream. One that is on it too is explained: Kinesis stored it, and its answer was lost or too late."""
    players = SimpleNamespace(sent=["a", "b"], accepted=["a", "b"], reported_not_stored=0, given_up=[], bad_refused=[],
                              sent_again_unanswered=Counter(), in_order={"k": ["a", "b"]})
    record = SimpleNamespace(sequence_number="1", lines=[line("b").text])
    files = [line("b"), line("a", is_spilled=True)]
    assert settle(players, [record], set(), files, []).is_good
    assert settle(players, [record], set(), files[:1], []).missing == ["a"]
    both = [*files, line("b", is_spilled=True)]
    assert settle(players, [record], set(), both, []).is_good
    twice = [*both, line("b", is_spilled=True), line("b")]
    assert settle(players, [record, record], set(), twice, []).unexplained == ["b"]
    assert settle(players, [record], set(), [*files, line("b")], []).doubled == [line("b").text]


def line(one, is_spilled=False):
    return SimpleNamespace(text=f'{{"id":"{one}"}}', json={"id": one}, is_spilled=is_spilled)
