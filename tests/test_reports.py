"""`make report`: the figures of recorded and made-up playbacks, checked by hand."""

import argparse
import bz2
import csv
import importlib.util
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import sqlglot

from support.sessions import replay, requests
from support.stack import REPOSITORY

DUCKDB = Path(sys.executable).parent / "duckdb"
REPORTS = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("reports", REPOSITORY / "tools/reports/__main__.py"))
spec.loader.exec_module(REPORTS)

# 2026-11-21T09:00:00Z
HOUR = 1_795_251_600_000


def run_reports(data, *arguments):
    return subprocess.run([sys.executable, REPOSITORY / "tools/reports", "--data", data, *arguments], capture_output=True, text=True, timeout=60)


def report(data, name, *arguments):
    run = run_reports(data, "--csv", name, *arguments)
    assert run.returncode == 0, run.stderr
    return list(csv.DictReader(io.StringIO(run.stdout)))


def figures(data, name, *arguments):
    """A report of one line."""
    line, = report(data, name, *arguments)
    return {column: float(value) if value else None for column, value in line.items()}


def cpu_seconds():
    """Of all children that have ended, and of theirs: other than the clock, it does not go by what else runs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Landed:
    """The one-machine stack's DATA_DIR, with what a test writes into the hours of 2026-11-21."""

    def __init__(self, data):
        self.data, self.bucket = data, data / "s3/landing-bucket"

    def hour(self, number, kind="events", day="2026-11-21"):
        folder = self.bucket / kind / f"dt={day}/hour={number:02}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def lines(self, *lines, hour=9, day="2026-11-21"):
        folder = self.hour(hour, day=day)
        file = folder / f"{len(list(folder.iterdir()))}.jsonl.bz2"
        file.write_bytes(bz2.compress(b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines)))
        return file

    def parquet(self, *lines, hour):
        """A sealed hour, as compact-partition leaves it."""
        part = self.hour(hour, "columnar") / "part-00000.parquet"
        rows = self.data / "rows.json"
        rows.write_text("\n".join(json.dumps({"id": None, "received_at": None} | line | {"event": json.dumps(line["event"])}) for line in map(json.loads, lines)))
        sql = f"""COPY (SELECT id, received_at::TIMESTAMPTZ AS received_at, event FROM
            read_json('{rows}', columns = {{id: 'VARCHAR', received_at: 'VARCHAR', event: 'VARCHAR'}})) TO '{part}'"""
        subprocess.run([DUCKDB, "-init", "/dev/null", "-c", f"SET TimeZone = 'UTC'; {sql}"], check=True, timeout=60)
        rows.unlink()
        (self.hour(hour) / "_SUCCESS").write_text(json.dumps({"sealed_at": "t"}))
        (part.parent / "_SUCCESS").write_text(json.dumps({"sealed_at": "t", "parts": [{"key": str(part.relative_to(self.bucket))}]}))
        return self.data


def line(at, event, **members):
    """An envelope, received at so many milliseconds from the hour nine on."""
    hours, rest = divmod(at, 3_600_000)
    received = f"2026-11-21T{9 + hours:02}:{rest // 60_000:02}:{rest // 1000 % 60:02}.{rest % 1000:03}Z"
    return json.dumps({"v": 1, "id": f"id-{at}", "received_at": received, "request_id": "r", "client": {}, "event": event} | members)


@pytest.fixture
def stored(tmp_path):
    return Landed(tmp_path)


@pytest.fixture
def landed(stored):
    """Writes events as landed lines: each received at so many milliseconds of the hour, in a file of its own."""
    def land(*events):
        for at, event in events:
            stored.lines(line(at, event))
        return stored.data

    return land


def ours(session, *states):
    return [(at, {"session_id": session, "type": kind}) for at, kind in states]


def test_recorded_sessions_of_mux_embed_and_dash_js(fresh_stack):
    """mux-embed: play at …7996, playing at …8427, 7.490 and 10.072 s played, as its own counter says but for 15 ms. dash.js: starting
    at …2132, playing at …2598, 8.537 and 12.040 s played."""
    stack = fresh_stack()
    for name in ("mux-embed-session.jsonl", "dashjs-cmcd-v2-session.jsonl"):
        replay(stack, requests(name))
    stack.wait_for_lines(lambda line: True, 59)
    assert stack.stop() == 0
    assert figures(stack.data, "starts") == {
        "plays": 2, "started": 2, "exits_before_start": 0, "start_failures": 0, "median_start_ms": 448.5, "p95_start_ms": 464.25}
    assert figures(stack.data, "rebuffering") == {"playing_s": pytest.approx(38.139), "rebuffering_s": 0, "rebuffering_ratio": 0, "rebufferings": 0}
    kinds = {line["kind"]: int(line["events"]) for line in report(stack.data, "events_a_minute")}
    assert sum(kinds.values()) == 59 and report(stack.data, "ads") == []
    before = cpu_seconds()
    assert run_reports(stack.data).returncode == 0
    assert cpu_seconds() - before < 2


def test_starts_exits_and_failures(landed):
    data = landed(*ours("starts", (1_000, "play"), (1_400, "playing")), *ours("starts late", (2_000, "play"), (4_000, "playing"), (9_000, "play")),
                  *ours("leaves", (3_001, "play")), *ours("fails", (3_002, "play"), (3_500, "error")),
                  *ours("fails later", (5_001, "play"), (5_301, "playing"), (6_000, "error")))
    assert figures(data, "starts") == {
        "plays": 5, "started": 3, "exits_before_start": 1, "start_failures": 1, "median_start_ms": 400, "p95_start_ms": pytest.approx(1_840)}


def test_what_stalls_before_the_first_picture_is_starting_and_afterwards_rebuffering(landed):
    data = landed(*ours("a", (0, "play"), (1_000, "rebuffer"), (2_000, "playing"), (10_000, "rebuffer"), (12_000, "playing"), (20_000, "ended")))
    assert figures(data, "rebuffering") == {"playing_s": 16, "rebuffering_s": 2, "rebuffering_ratio": pytest.approx(2 / 18), "rebufferings": 1}


def test_a_heartbeat_in_a_stall_does_not_end_it(landed):
    data = landed(*ours("a", (0, "play"), (2_000, "playing"), (20_000, "rebuffer"), (22_000, "heartbeat"), (32_000, "heartbeat"),
                        (50_000, "playing"), (55_000, "heartbeat"), (60_000, "ended")))
    assert figures(data, "rebuffering") == {"playing_s": 28, "rebuffering_s": 30, "rebuffering_ratio": pytest.approx(30 / 58), "rebufferings": 1}


def test_a_heartbeat_before_the_first_picture_is_no_picture(landed):
    data = landed(*ours("slow", (0, "play"), (10_000, "heartbeat"), (20_000, "heartbeat"), (25_000, "playing")),
                  *ours("leaves", (1, "play"), (10_001, "heartbeat"), (20_001, "heartbeat")))
    assert figures(data, "starts") == {
        "plays": 2, "started": 1, "exits_before_start": 1, "start_failures": 0, "median_start_ms": 25_000, "p95_start_ms": 25_000}


def test_a_heartbeat_while_paused_does_not_play_and_the_next_one_after_playing_does(landed):
    data = landed(*ours("a", (0, "play"), (1_000, "playing"), (5_000, "pause"), (6_000, "heartbeat"), (10_000, "play"),
                        (11_000, "playing"), (15_000, "heartbeat"), (21_000, "ended"), (25_000, "heartbeat"), (99_000, "heartbeat")))
    assert figures(data, "rebuffering")["playing_s"] == 14


def test_what_began_before_the_data_plays_and_rebuffers_but_is_no_play(landed):
    data = landed(*ours("a", (0, "heartbeat"), (600_000, "pause"), (900_000, "play"), (901_000, "playing"), (902_000, "rebuffer"), (905_000, "playing"), (906_000, "ended")),
                  *ours("b", (1, "play"), (301, "playing")))
    assert figures(data, "starts") == {
        "plays": 1, "started": 1, "exits_before_start": 0, "start_failures": 0, "median_start_ms": 300, "p95_start_ms": 300}
    assert figures(data, "rebuffering") == {"playing_s": 602, "rebuffering_s": 3, "rebuffering_ratio": pytest.approx(3 / 605), "rebufferings": 1}


def cmcd(session, *reports):
    return [(at, {"sid": session, "e": event, "ts": HOUR + at, "v": 2} | more) for at, event, more in reports]


def mux(session, *events):
    return [(at, {"xid": session, "e": event, "uti": HOUR + at, "xsqno": number}) for at, event, number in events]


# What Chromium's video element said while a clip was paused and played again every 400 ms.
CHROMIUM = (
    (0, "play"), (0, "rebuffer"), (14, "playing"), (615, "pause"), (766, "play"), (766, "playing"), (1_016, "pause"), (1_167, "play"), (1_167, "playing"),
    (1_418, "pause"), (1_568, "play"), (1_568, "playing"), (1_819, "pause"), (1_970, "play"), (1_970, "playing"), (2_220, "pause"), (2_371, "play"),
    (2_371, "playing"), (2_621, "pause"), (2_773, "play"), (2_773, "playing"), (3_328, "pause"), (3_328, "ended"))


@pytest.mark.parametrize("numbered", [True, False])
def test_what_a_player_says_in_the_same_millisecond_is_in_its_order(stored, numbered):
    """601 + 250 + 251 + 251 + 250 + 250 + 555 ms."""
    lines = [line(at, {"session_id": f"s{session}", "type": kind, "time": HOUR + at} | ({"sequence": number} if numbered else {}))
             for session in range(200) for number, (at, kind) in enumerate(CHROMIUM)]
    for seed in range(3):
        random.Random(seed).shuffle(lines)
        stored.hour(9).joinpath("0.jsonl.bz2").unlink(missing_ok=True)
        stored.lines(*lines)
        assert figures(stored.data, "rebuffering") == {"playing_s": 481.6, "rebuffering_s": 0, "rebuffering_ratio": 0, "rebufferings": 0}
        starts = figures(stored.data, "starts")
        assert (starts["plays"], starts["started"], starts["median_start_ms"], starts["p95_start_ms"]) == (200, 200, 14, 14)


def test_what_is_added_up_in_any_order_is_exact(stored):
    """Whole milliseconds, though clocks may have fractions of them."""
    stored.lines(*(line(at, {"session_id": f"s{session}", "type": kind, "time": HOUR + at + fraction}) for session in range(999)
                   for at, kind, fraction in ((session * 7 + 1, "playing", 0.4), (session * 13 + 60_003, "ended", 0.1))))
    assert figures(stored.data, "rebuffering")["playing_s"] == sum(session * 6 + 60_002 for session in range(999)) / 1000


def test_what_has_no_time_of_its_own_is_in_the_likely_order_within_a_request(stored):
    lines = [line(at, {"session_id": f"s{session}", "type": kind}) for session in range(200)
             for at, kind in ((0, "playing"), (0, "play"), (60_000, "ended"), (60_000, "pause"))]
    stored.lines(*lines)
    assert figures(stored.data, "rebuffering")["playing_s"] == 12_000
    assert figures(stored.data, "starts") == {
        "plays": 200, "started": 200, "exits_before_start": 0, "start_failures": 0, "median_start_ms": 0, "p95_start_ms": 0}
    assert [int(found["viewers"]) for found in report(stored.data, "viewers")] == [200, 200]


STALLS_AT_ONCE = {
    "our own": [(at, {"session_id": "a", "type": kind, "time": HOUR + at, "sequence": number})
                for at, kind, number in ((0, "play", 8), (1_000, "playing", 9), (1_000, "rebuffer", 10), (5_000, "ended", 11))],
    "mux-embed": mux("a", (0, "play", 8), (1_000, "playing", 9), (1_000, "rebufferstart", 10), (5_000, "viewend", 11)),
    "CMCD": cmcd("a", (0, "ps", {"sn": 8, "sta": "s"}), (1_000, "ps", {"sn": 9, "sta": "p"}), (1_000, "ps", {"sn": 10, "sta": "r"}), (5_000, "ps", {"sn": 11, "sta": "e"}))}


@pytest.mark.parametrize("events", STALLS_AT_ONCE.values(), ids=STALLS_AT_ONCE)
def test_a_players_own_numbers_tell_the_order_within_a_millisecond(landed, events):
    """Without them, a stall that is over would be the likely one."""
    expected = {"playing_s": 0, "rebuffering_s": 4, "rebuffering_ratio": 1, "rebufferings": 1}
    assert figures(landed(*reversed(events)), "rebuffering") == expected


def test_what_stalls_until_the_very_millisecond_of_the_first_picture_is_no_rebuffering(landed):
    data = landed(*ours("a", (0, "play"), (500, "rebuffer"), (500, "playing"), (1_500, "ended")))
    assert figures(data, "rebuffering") == {"playing_s": 1, "rebuffering_s": 0, "rebuffering_ratio": 0, "rebufferings": 0}


def test_a_heartbeat_of_mux_embed_continues_what_was_said_last(landed):
    data = landed(*mux("a", (0, "play", 1), (1_000, "playing", 2), (11_000, "hb", 3), (15_000, "rebufferstart", 4), (21_000, "hb", 5), (25_000, "rebufferend", 6),
                       (31_000, "hb", 7), (35_000, "pause", 8), (41_000, "hb", 9), (45_000, "viewend", 10)),
                  *mux("began before the data", (1, "hb", 71), (10_001, "hb", 72), (15_001, "pause", 73)))
    assert figures(data, "rebuffering") == {"playing_s": 39, "rebuffering_s": 10, "rebuffering_ratio": pytest.approx(10 / 49), "rebufferings": 1}
    assert figures(data, "starts")["plays"] == 1


def test_an_interval_of_cmcd_that_says_no_state_continues_the_last_one(landed):
    minutes = [(at, "t", {}) for at in range(0, 600_000, 60_000)]
    data = landed(*cmcd("a", *minutes, (590_000, "t", {"sta": "p"}), (1_000, "ps", {"sta": "s"}), (2_000, "ps", {"sta": "p"}), (600_000, "ps", {"sta": "a"})))
    assert figures(data, "rebuffering")["playing_s"] == 598
    assert figures(data, "starts")["median_start_ms"] == 1_000


SLEEPERS = {
    "our own": lambda wakes: ours("a", (0, "play"), (500, "playing"), *((at, "heartbeat") for at in range(10_000, 70_000, 10_000)), (wakes, "pause")),
    "one heartbeat": lambda wakes: ours("a", (0, "play"), (500, "playing"), (60_000, "heartbeat"), (wakes, "pause")),
    "mux-embed": lambda wakes: mux("a", (0, "play", 1), (500, "playing", 2), *((at, "hb", at) for at in range(10_000, 70_000, 10_000)), (wakes, "pause", wakes)),
    "CMCD": lambda wakes: cmcd("a", (0, "ps", {"sta": "s"}), (500, "ps", {"sta": "p"}), (30_000, "t", {"sta": "p"}), (60_000, "t", {"sta": "p"}), (wakes, "ps", {"sta": "a"}))}


@pytest.mark.parametrize("events", SLEEPERS.values(), ids=SLEEPERS)
@pytest.mark.parametrize("wakes, played", [(5 * 3_600_000, 179.5), (180_001, 179.5), (180_000, 179.5), (179_999, 179.499)])
def test_a_player_that_sends_heartbeats_and_is_silent_for_two_minutes_sleeps(landed, events, wakes, played):
    data = landed(*events(wakes))
    assert figures(data, "rebuffering")["playing_s"] == played
    assert len(report(data, "viewers")) == (3 if wakes < 180_000 else 4)


def test_a_player_of_which_no_heartbeat_has_followed_anything_may_be_silent(landed):
    data = landed(*ours("sends none", (0, "playing"), (600_000, "pause")), *ours("began before the data", (1, "heartbeat"), (600_001, "pause")))
    assert figures(data, "rebuffering")["playing_s"] == 1_200


@pytest.mark.parametrize("since, played", [(946_684_805_000, 86_400), (HOUR - 86_400_001, 86_400), (HOUR - 86_400_000, 86_400), (HOUR - 86_399_999, 86_399.999)])
def test_nothing_lasts_longer_than_a_day_whatever_a_clock_says(stored, since, played):
    """Lines without an envelope have no other time than their players'."""
    stored.lines(json.dumps({"session_id": "a", "type": "playing", "time": since}), json.dumps({"session_id": "a", "type": "ended", "time": HOUR}))
    assert figures(stored.data, "rebuffering")["playing_s"] == played
    assert len(report(stored.data, "viewers")) <= 1_441


@pytest.mark.parametrize("session, kind", [
    (session, kind) for session in ("session_id", "sessionId", "viewer_id", "viewerId", "xid", "sid") for kind in ("type", "event", "e")
    # These are mux-embed's and CMCD's.
    if session not in ("xid", "sid") or kind != "e"])
def test_our_own_players_may_name_session_and_type_as_promoted_fields_do(landed, session, kind):
    data = landed(*((at, {session: "a", kind: state}) for at, state in ((0, "play"), (500, "playing"), (60_500, "ad_impression"), (60_500, "ended"))))
    assert figures(data, "starts")["median_start_ms"] == 500 and figures(data, "rebuffering")["playing_s"] == 60
    assert impressions(data) == 1


def test_the_names_are_those_that_promoted_fields_have_by_default():
    default, = re.findall(r"Default: type:(\S+),session_id:(\S+)", (REPOSITORY / "template.yaml").read_text())
    states = (REPOSITORY / "tools/reports/states.sql").read_text()
    kinds, sessions = (names.split("|") for names in default)
    assert re.findall(r"'\$\.(\w+)'", re.search(r"coalesce\((.*)\) AS type", states)[1]) == kinds
    assert [*re.findall(r"'\$\.(\w+)'", re.search(r"coalesce\(([^;]*?)\) AS session_id", states.split("AS type,")[1])[1]), "xid", "sid"] == sessions


def test_the_other_kinds_are_told_apart_whatever_else_an_event_has(landed):
    ours_too = {"session_id": "b", "sessionId": "b", "viewer_id": "b", "event": "playing", "type": "play"}
    data = landed(*((at, event | ours_too) for at, event in (*mux("a", (0, "play", 1), (500, "playing", 2), (10_500, "ended", 3)),
                    *cmcd("a", (20_000, "ps", {"sta": "s"}), (21_000, "ps", {"sta": "p"}), (41_000, "ps", {"sta": "e"})))),
                  *((at, {"sid": "a", "e": kind}) for at, kind in ((50_000, "rr"), (51_000, "play"), (52_000, "playing"), (53_000, "ended"))))
    assert figures(data, "rebuffering")["playing_s"] == 30


def test_an_error_of_cmcd_that_says_no_state_changes_none(landed):
    """A player may go on after it. Before the first picture it is a failure."""
    data = landed(*cmcd("goes on", (0, "ps", {"sta": "s"}), (1_000, "ps", {"sta": "p"}), (5_000, "e", {}), (15_000, "t", {"sta": "p"}), (20_000, "ps", {"sta": "e"})),
                  *cmcd("stalls", (0, "ps", {"sta": "s"}), (1_000, "ps", {"sta": "p"}), (5_000, "ps", {"sta": "r"}), (6_000, "e", {"ec": ["404"]}),
                        (20_000, "ps", {"sta": "p"}), (21_000, "ps", {"sta": "e"})),
                  *cmcd("fails", (0, "ps", {"sta": "s"}), (500, "e", {})))
    assert figures(data, "rebuffering") == {
        "playing_s": pytest.approx(24), "rebuffering_s": pytest.approx(15), "rebuffering_ratio": pytest.approx(15 / 39), "rebufferings": 1}
    starts = figures(data, "starts")
    assert (starts["plays"], starts["started"], starts["start_failures"]) == (3, 2, 1)


def test_intervals_of_cmcd_in_a_stall_are_one_stall(landed):
    data = landed(*cmcd("a", (0, "ps", {"sta": "s"}), (500, "ps", {"sta": "r"}), (1_000, "ps", {"sta": "p"}), (10_000, "ps", {"sta": "r"}), (12_000, "t", {"sta": "r"}),
                        (22_000, "t", {"sta": "r"}), (30_000, "ps", {"sta": "p"}), (32_000, "t", {"sta": "p"}), (40_000, "ps", {"sta": "r"}),
                        (42_000, "ps", {"sta": "p"}), (50_000, "ps", {"sta": "e"})))
    assert figures(data, "rebuffering") == {"playing_s": 27, "rebuffering_s": 22, "rebuffering_ratio": pytest.approx(22 / 49), "rebufferings": 2}


def test_an_error_of_cmcd_before_the_first_picture_is_a_start_failure_and_later_none(landed):
    failed = {"ec": ["manifestLoadError"]}
    data = landed(*cmcd("with its state", (0, "ps", {"sta": "s"}), (100, "e", failed | {"sta": "s"})), *cmcd("without", (1, "ps", {"sta": "s"}), (101, "e", failed)),
                  *cmcd("fatal", (2, "ps", {"sta": "s"}), (102, "ps", {"sta": "f"})), *cmcd("leaves", (3, "ps", {"sta": "s"})),
                  *cmcd("recovers", (4, "ps", {"sta": "s"}), (104, "e", failed | {"sta": "s"}), (1_004, "ps", {"sta": "p"}), (5_004, "e", failed | {"sta": "p"}),
                        (11_004, "ps", {"sta": "e"})))
    assert figures(data, "starts") == {
        "plays": 5, "started": 1, "exits_before_start": 1, "start_failures": 3, "median_start_ms": 1_000, "p95_start_ms": 1_000}
    assert figures(data, "rebuffering")["playing_s"] == 10


def test_a_start_delay_that_cmcd_says_is_not_believed(landed):
    """dash.js sends it twice before the first picture, with what it is till then."""
    data = landed(*cmcd("a", (0, "ps", {"sta": "s", "msd": 4}), (466, "ps", {"sta": "p"})))
    assert figures(data, "starts")["median_start_ms"] == 466


def test_viewers_are_counted_in_each_minute_in_which_they_play(landed):
    data = landed(*ours("a", (30_000, "playing"), (150_000, "pause"), (200_000, "ended")), *ours("b", (61_000, "playing"), (62_000, "ended")))
    assert [int(line["viewers"]) for line in report(data, "viewers")] == [1, 2, 1]


def test_a_line_that_is_there_twice_counts_once_and_another_event_under_its_id_counts(landed):
    ad = {"type": "ad_impression", "session_id": "a"}
    landed((0, ad))
    data = landed((0, ad), (0, ad | {"ad": 2}))
    assert [int(line["impressions"]) for line in report(data, "ads")] == [2]


AD = {"type": "ad_impression", "session_id": "a", "n": 1.50, "text": "é  "}


def impressions(data):
    return sum(int(found["impressions"]) for found in report(data, "ads"))


def test_an_event_that_comes_again_in_another_hour_counts_once(stored):
    stored.lines(line(0, AD))
    stored.lines(line(3_600_000, AD, id="id-0"), line(3_600_001, AD | {"n": 2}, id="id-0"), hour=10)
    assert impressions(stored.data) == 2


def test_an_event_of_a_sealed_hour_that_comes_again_in_an_open_or_a_sealed_one_counts_once(stored):
    stored.parquet(line(0, AD), line(1, AD), hour=9)
    stored.lines(line(3_600_000, AD, id="id-0"), line(3_600_001, AD), hour=10)
    assert impressions(stored.data) == 3
    stored.parquet(line(3_600_000, AD, id="id-0"), line(3_600_001, AD), hour=10)
    assert impressions(stored.data) == 3


def test_events_without_an_id_are_never_doubles(stored):
    for hour in (9, 10):
        stored.lines(json.dumps(AD), json.dumps(AD), hour=hour)
    assert impressions(stored.data) == 4
    stored.parquet(*[json.dumps({"event": AD})] * 2, hour=9)
    assert impressions(stored.data) == 4


NO_ENVELOPES = {
    "foreign": {"id": None, "received_at": None, "v": None, "event": None, "type": "foreign"}, "another version": {"v": 2}, "version as a decimal": {"v": 1.0},
    "no time": {"received_at": "yesterday"}, "a number for a time": {"received_at": 123}, "an empty time": {"received_at": ""},
    "a time of a month 13": {"received_at": "2026-13-21T09:00:00.000Z"}, "a time to the second": {"received_at": "2026-11-21T09:00:00Z"},
    "an id that is no text": {"id": 7}, "client": {"client": None}, "user agent": {"client": {"user_agent": 7}}, "request id": {"request_id": 7}}


@pytest.mark.parametrize("members", NO_ENVELOPES.values(), ids=NO_ENVELOPES)
def test_a_line_that_is_no_envelope_is_an_event_as_a_whole_and_stops_no_report(stored, members):
    """As in compact-partition, whose tests have the same cases."""
    foreign = json.dumps({name: value for name, value in (json.loads(line(0, {"type": "inside"})) | {"type": "outside"} | members).items()
                          if value is not None or "type" not in members})
    stored.lines(line(1, {"type": "play"}), foreign, foreign)
    kinds = [(found["kind"], found["minute"] != "", int(found["events"])) for found in report(stored.data, "events_a_minute")]
    assert sorted(kinds) == [(members.get("type", "outside"), False, 2), ("play", True, 1)]


def test_lines_that_are_not_json_objects_are_counted_or_left_out(stored):
    stored.lines(line(0, AD), '{"v":1,"v":1,' + line(1, AD)[8:], "7", '"text"', "[1]", "null", "not json", b'{"a":"\xff"}\n', "", '{"a":1} x')
    run = run_reports(stored.data, "--csv", "events_a_minute")
    assert run.returncode == 0 and " 3 lines " in run.stderr and " 5 of all events " in run.stderr
    assert {(found["kind"], found["events"]) for found in csv.DictReader(io.StringIO(run.stdout))} == {("ad_impression", "1"), ("", "5")}


def test_lines_of_the_format_raw_count_by_their_players_clocks_and_the_report_says_what_is_missing(stored):
    events = [event | {"time": HOUR + at} for at, event in ours("a", (0, "play"), (700, "playing"), (61_000, "rebuffer"), (63_000, "playing"), (64_000, "ended"))]
    stored.lines(*map(json.dumps, [*events, {"session_id": "b", "type": "play"}]))
    assert figures(stored.data, "starts") == {
        "plays": 1, "started": 1, "exits_before_start": 0, "start_failures": 0, "median_start_ms": 700, "p95_start_ms": 700}
    assert figures(stored.data, "rebuffering")["rebuffering_s"] == 2
    assert [found["minute"] for found in report(stored.data, "viewers")] == ["2026-11-21 09:00:00", "2026-11-21 09:01:00"]
    assert " 6 of all events " in run_reports(stored.data, "starts").stderr


@pytest.mark.parametrize("damage", [lambda body: body[:-7], lambda body: b"BZh9 what is this", lambda body: b"", lambda body: body[:40] + b"x" * 9 + body[49:], lambda body: body + b"more"],
                         ids=["cut off", "no bzip2", "empty", "overwritten", "with something behind it"])
def test_a_damaged_object_is_named_and_left_out_and_no_figures_look_whole(stored, damage):
    stored.lines(*(line(at, AD) for at in range(2)))
    damaged = stored.lines(*(line(at, AD) for at in range(1_000, 9_000, 7)))
    stored.lines(line(60_000, AD))
    damaged.write_bytes(damage(damaged.read_bytes()))
    run = run_reports(stored.data, "ads", "starts")
    message, = run.stderr.splitlines()
    assert run.returncode == 1 and str(damaged) in message
    assert run.stdout.count("INCOMPLETE") == 2 and "    2 │" in run.stdout and "    1 │" in run.stdout
    run = run_reports(stored.data, "--csv", "ads")
    assert run.returncode == 1 and run.stdout == "" and len(run.stderr.splitlines()) == 2
    run = run_reports(stored.data, "--csv", "ads", "--partial")
    assert run.returncode == 1 and [found["impressions"] for found in csv.DictReader(io.StringIO(run.stdout))] == ["2", "1"]


def test_what_is_not_whole_says_what_to_type(stored, monkeypatch):
    stored.lines(line(0, AD)).write_bytes(b"damaged")
    assert "--partial (make report … PARTIAL=1)" in run_reports(stored.data, "--csv", "ads").stderr

    class Deployment:
        name, landing_bucket, parameters = "playhead-prod", "b", {}

        def client(self, service):
            return self

    monkeypatch.syspath_prepend(REPOSITORY / "tools/scripts")
    import stack

    monkeypatch.setattr(stack, "deployed", lambda name: Deployment())
    monkeypatch.setattr(REPORTS, "hours_not_in_parquet", lambda s3, bucket, day: ["07", "08"])
    with pytest.raises(SystemExit) as ended:
        REPORTS.by_athena(argparse.Namespace(stack="playhead-prod", date="2026-11-21", partial=False, csv=False), ["starts"])
    assert "07, 08" in ended.value.code and "--partial (make report … PARTIAL=1)" in ended.value.code


def test_what_is_not_there_is_empty_in_comma_separated_values(landed):
    """As by Athena; the text NULL is something that a player says."""
    data = landed(*ours("a", (0, "play")), (1, {}), (2, {"type": "NULL"}))
    text = run_reports(data, "--csv", "starts").stdout
    assert text.splitlines() == ["plays,started,exits_before_start,start_failures,median_start_ms,p95_start_ms", "1,0,1,0,,"]
    assert [(found["kind"], found["events"]) for found in report(data, "events_a_minute")] == [("NULL", "1"), ("play", "1"), ("", "1")]


def test_an_object_that_holds_more_than_one_can_is_damaged(stored, monkeypatch):
    file = stored.lines(line(0, AD))
    length = len(bz2.decompress(file.read_bytes()))
    monkeypatch.setattr(REPORTS, "MAX_OBJECT_BYTES", length)
    assert len(REPORTS.lines_of(file)) == length
    monkeypatch.setattr(REPORTS, "MAX_OBJECT_BYTES", length - 1)
    with pytest.raises(ValueError):
        REPORTS.lines_of(file)


def test_an_object_of_two_streams_is_read_whole(stored):
    file = stored.lines(line(0, AD))
    file.write_bytes(file.read_bytes() + bz2.compress(line(1, AD).encode()))
    assert impressions(stored.data) == 2


def test_an_object_without_lines_is_read_too(stored):
    stored.lines(line(0, AD))
    stored.lines()
    assert impressions(stored.data) == 1


def test_a_stack_of_raw_lines_says_that_it_has_no_reports(monkeypatch):
    class Deployment:
        name, landing_bucket, parameters = "playhead-raw", "b", {"EventFormat": "raw"}

        def client(self, service):
            return self

    monkeypatch.syspath_prepend(REPOSITORY / "tools/scripts")
    import stack

    monkeypatch.setattr(stack, "deployed", lambda name: Deployment())
    with pytest.raises(SystemExit) as ended:
        REPORTS.by_athena(argparse.Namespace(stack="playhead-raw", date=None, partial=True, csv=False), ["starts"])
    assert "playhead-raw" in ended.value.code and "EventFormat=raw" in ended.value.code


def test_an_object_bound_is_the_pipeline_s():
    """As shared/src/limits.rs computes it."""
    numbers = dict(re.findall(r"pub(?:\(crate\))? const (\w+): \w+ = ([^;]*);", (REPOSITORY / "shared/src/limits.rs").read_text()))
    assert int(numbers["MAX_BATCH_RECORDS"]) == 200 and numbers["MAX_LAMBDA_PAYLOAD_BYTES"] == "6 * 1024 * 1024"
    assert numbers["MAX_LANDED_FRAME_BYTES"] == "MAX_LINES_BYTES.div_ceil(3) * 4 + 256 * 1024"
    assert REPORTS.MAX_OBJECT_BYTES == 200 * (1_398_104 + 262_144) + 6 * 1024 * 1024


def test_on_this_machine_a_date_is_all_that_counts_if_one_is_given(stored):
    stored.lines(line(0, AD))
    stored.lines(line(0, AD, id="other", received_at="2026-11-22T09:00:00.000Z"), day="2026-11-22")
    assert [impressions(stored.data), len(report(stored.data, "ads", "--date", "2026-11-22"))] == [2, 1]
    run = run_reports(stored.data, "--date", "2026-11-23")
    assert run.returncode == 1 and "2026-11-23" in run.stderr


@pytest.mark.parametrize("given, wanted", [
    ([], "--data ${DATA_DIR:-data}"), (["DATE=2026-11-21"], "--data ${DATA_DIR:-data} --date 2026-11-21"), (["STACK=mine"], "--stack mine"),
    (["ENV=prod"], "--stack playhead-prod"), (["ENV=prod", "STACK=mine", "DATE=2026-11-21"], "--stack mine --date 2026-11-21"),
    (["PARTIAL=1"], "--data ${DATA_DIR:-data} --partial"), (["ENV=prod", "PARTIAL=1"], "--stack playhead-prod --partial"),
    (["ENV=prod", "DATE=2026-11-21", "PARTIAL=1"], "--stack playhead-prod --date 2026-11-21 --partial"), (["ENV=prod", "PARTIAL="], "--stack playhead-prod")])
def test_make_report_passes_on_what_is_given(given, wanted):
    # A make in a make names its folder behind all else.
    make = ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/installed", "report", *given]
    made = subprocess.run(make, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
                          env={name: value for name, value in os.environ.items() if name not in ("ENV", "STACK", "DATE", "PARTIAL", "MAKEFLAGS")})
    assert made.stdout.splitlines()[-1].split("tools/reports ")[1].strip() == wanted


def test_a_clock_that_is_hours_wrong_still_tells_how_long_things_took(landed):
    times = ((5_000, "play", HOUR - 9e6), (5_001, "playing", HOUR - 9e6 + 700), (9_000, "ended", HOUR - 9e6 + 3_700))
    data = landed(*((at, {"session_id": "a", "type": kind, "time": time}) for at, kind, time in times))
    assert figures(data, "starts")["median_start_ms"] == 700
    assert figures(data, "rebuffering")["playing_s"] == 3 and len(report(data, "viewers")) == 1


@pytest.mark.parametrize("time", [0, 1e300, -1e300, HOUR * 1000, "soon", None, [1], {"a": 1}])
def test_a_clock_that_can_t_be_right_is_not_believed(landed, time):
    events = [(at, {"session_id": "a", "type": kind, "time": time}) for at, kind in ((1_000, "play"), (1_500, "playing"), (61_000, "ended"))]
    data = landed(*events)
    assert figures(data, "starts")["median_start_ms"] == 500
    assert len(report(data, "viewers")) == 2


def test_the_sql_is_athena_s_too(stored, landed):
    """Another parser reads each report as Athena's and writes it anew as DuckDB's: the figures are the same."""
    data = landed(*ours("a", (0, "play"), (1_000, "playing"), (10_000, "rebuffer"), (12_000, "playing"), (70_000, "ended")),
                  *ours("b", (61_000, "play"), (61_500, "heartbeat"), (62_000, "error"), (63_000, "ad_impression")),
                  *cmcd("c", (64_000, "ps", {"sta": "s"}), (64_100, "e", {"ec": ["x"]})),
                  *mux("d", (65_000, "play", 1), (65_500, "playing", 10), (65_500, "waiting", 9), (75_500, "hb", 11), (900_000, "pause", 12)),
                  *((at, {"sessionId": "e", "event": kind, "time": HOUR + 66_000, "sequence": at}) for at, kind in ((66_000, "play"), (66_001, "playing"), (66_002, "rebuffer"))),
                  (200_000, {"sessionId": "e", "event": "ended", "time": HOUR + 86_400_000 * 3}))
    lines = [json.loads(bz2.decompress(file.read_bytes())) for file in data.rglob("*.bz2")]
    lines = [{"id": line["id"], "received_at": line["received_at"], "event": json.dumps(line["event"])} for line in lines]
    # One that comes again, and two of another producer.
    lines += [lines[0], *[{"id": None, "received_at": None, "event": json.dumps({"type": "foreign"})}] * 2]
    stored.lines(*[json.dumps({"type": "foreign"})] * 2)
    (data / "lines.json").write_text("\n".join(map(json.dumps, lines)))
    for name in ("events_a_minute", "starts", "rebuffering", "viewers", "ads"):
        sql = REPORTS.statement(name, f"SELECT id, received_at, event FROM \"db\".\"events_columnar\" WHERE dt = '2026-11-21'").rstrip().rstrip(";")
        rewritten, = sqlglot.transpile(sql, read="athena", write="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)
        table = f"(SELECT id, received_at::TIMESTAMP AS received_at, event, '2026-11-21' AS dt FROM read_json('{data}/lines.json', columns = {{id: 'VARCHAR', received_at: 'VARCHAR', event: 'VARCHAR'}}))"
        rewritten = "SET TimeZone = 'UTC';\n" + rewritten.replace('"db"."events_columnar"', table)
        run = subprocess.run([DUCKDB, "-init", "/dev/null", "-csv", "-nullvalue", "", "-c", rewritten], capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        found = list(csv.DictReader(io.StringIO(run.stdout.replace("+00", ""))))
        if name == "starts":
            # Athena's percentiles are approximate, and so are these.
            found = [{column: line[column] for column in line if "_ms" not in column} for line in found]
        expected = [{column: line[column] for column in found[0]} for line in report(data, name)]
        assert found == expected, name


def test_whatever_players_send_is_a_kind_and_nothing_that_a_terminal_obeys(landed):
    kinds = ["\x1b[31mr\x1bed\x1b", "a\nb", 7, [1], {"a": 1}, None, "é"]
    data = landed(*((at, {"type": kind}) for at, kind in enumerate(kinds)))
    assert {line["kind"]: int(line["events"]) for line in report(data, "events_a_minute")} == {"?[31mr?ed?": 1, "a?b": 1, "7": 1, "é": 1, "": 3}


def test_where_nothing_landed_it_says_what_to_do(tmp_path):
    run = subprocess.run([sys.executable, REPOSITORY / "tools/reports", "--data", tmp_path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "make run" in run.stderr and str(tmp_path) in run.stderr
