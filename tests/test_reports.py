"""`make report`: the figures of recorded and made-up playbacks, checked by hand."""

import bz2
import csv
import importlib.util
import io
import json
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


def report(data, name):
    run = subprocess.run([sys.executable, REPOSITORY / "tools/reports", "--data", data, "--csv", name], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return list(csv.DictReader(io.StringIO(run.stdout)))


def figures(data, name):
    """A report of one line."""
    line, = report(data, name)
    return {column: float(value) if value else None for column, value in line.items()}


@pytest.fixture
def landed(tmp_path):
    """Writes events as landed lines: each received at so many milliseconds of the hour, in a file of its own."""
    hour = tmp_path / "s3/landing-bucket/events/dt=2026-11-21/hour=09"
    hour.mkdir(parents=True)

    def land(*events):
        for number, (at, event) in enumerate(events):
            received = f"2026-11-21T09:{at // 60_000:02}:{at // 1000 % 60:02}.{at % 1000:03}Z"
            line = {"v": 1, "id": f"id-{at}", "received_at": received, "request_id": "r", "client": {}, "event": event}
            (hour / f"{len(list(hour.iterdir()))}-{number}.jsonl.bz2").write_bytes(bz2.compress(json.dumps(line).encode() + b"\n"))
        return tmp_path

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


def test_starts_exits_and_failures(landed):
    data = landed(*ours("starts", (1_000, "play"), (1_400, "playing")), *ours("starts late", (2_000, "play"), (4_000, "playing"), (9_000, "play")),
                  *ours("leaves", (3_001, "play")), *ours("fails", (3_002, "play"), (3_500, "error")),
                  *ours("fails later", (5_001, "play"), (5_301, "playing"), (6_000, "error")))
    assert figures(data, "starts") == {
        "plays": 5, "started": 3, "exits_before_start": 1, "start_failures": 1, "median_start_ms": 400, "p95_start_ms": pytest.approx(1_840)}


def test_what_stalls_before_the_first_picture_is_starting_and_afterwards_rebuffering(landed):
    data = landed(*ours("a", (0, "play"), (1_000, "rebuffer"), (2_000, "playing"), (10_000, "rebuffer"), (12_000, "playing"), (20_000, "ended")))
    assert figures(data, "rebuffering") == {"playing_s": 16, "rebuffering_s": 2, "rebuffering_ratio": pytest.approx(2 / 18), "rebufferings": 1}


def test_viewers_are_counted_in_each_minute_in_which_they_play(landed):
    data = landed(*ours("a", (30_000, "playing"), (150_000, "pause"), (200_000, "ended")), *ours("b", (61_000, "playing"), (62_000, "ended")))
    assert [int(line["viewers"]) for line in report(data, "viewers")] == [1, 2, 1]


def test_a_line_that_is_there_twice_counts_once_and_another_event_under_its_id_counts(landed):
    ad = {"type": "ad_impression", "session_id": "a"}
    landed((0, ad))
    data = landed((0, ad), (0, ad | {"ad": 2}))
    assert [int(line["impressions"]) for line in report(data, "ads")] == [2]


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


def test_the_sql_is_athena_s_too(landed):
    """Another parser reads each report as Athena's and writes it anew as DuckDB's: the figures are the same."""
    data = landed(*ours("a", (0, "play"), (1_000, "playing"), (10_000, "rebuffer"), (12_000, "playing"), (70_000, "ended")),
                  *ours("b", (61_000, "play"), (62_000, "error"), (63_000, "ad_impression")))
    lines = [json.loads(bz2.decompress(file.read_bytes())) for file in data.rglob("*.bz2")]
    lines = [{"received_at": line["received_at"], "event": json.dumps(line["event"])} for line in lines]
    (data / "lines.json").write_text("\n".join(map(json.dumps, lines)))
    for name in ("events_a_minute", "starts", "rebuffering", "viewers", "ads"):
        sql = REPORTS.statement(name, f"SELECT received_at, event FROM \"db\".\"events_columnar\" WHERE dt = '2026-11-21'").rstrip().rstrip(";")
        rewritten, = sqlglot.transpile(sql, read="athena", write="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)
        table = f"(SELECT received_at::TIMESTAMP AS received_at, event, '2026-11-21' AS dt FROM read_json('{data}/lines.json', columns = {{received_at: 'VARCHAR', event: 'VARCHAR'}}))"
        rewritten = "SET TimeZone = 'UTC';\n" + rewritten.replace('"db"."events_columnar"', table)
        run = subprocess.run([DUCKDB, "-init", "/dev/null", "-csv", "-c", rewritten], capture_output=True, text=True, timeout=60)
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
    assert {line["kind"]: int(line["events"]) for line in report(data, "events_a_minute")} == {"?[31mr?ed?": 1, "a?b": 1, "7": 1, "é": 1, "NULL": 3}


def test_where_nothing_landed_it_says_what_to_do(tmp_path):
    run = subprocess.run([sys.executable, REPOSITORY / "tools/reports", "--data", tmp_path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "make run" in run.stderr and str(tmp_path) in run.stderr
