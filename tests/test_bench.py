"""The bench measures real functions that do their work, and what it compares them with does the same work."""

import json
import shutil
import subprocess

import pytest

from support.stack import BINARY, REPOSITORY

BENCH = BINARY.with_name("bench")
REFERENCE = REPOSITORY / "tools/bench/reference"
QUICK = ["--quick", "--rust-only"]
SERVERS = {(events, interval_ms, 200, None) for events in (1, 20) for interval_ms in (10, 200)}
SERVERS |= {(1, 200, 4_000, None), (1, 200, 400, 1_000)}
EVENTS = {"ingest_one": 1, "ingest_twenty": 20, "landing_small": 100, "landing_large": 2_000,
          "landing_small_frames": 100, "landing_frames": 2_000}


def bench(*arguments):
    return subprocess.run([BENCH, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    docs = tmp_path_factory.mktemp("docs")
    shutil.copy(REPOSITORY / "docs/PERFORMANCE.md", docs)
    run = bench(*QUICK, "--docs", docs)
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads((docs / "measured.json").read_text()), (docs / "PERFORMANCE.md").read_text()


def test_each_workload_has_its_numbers(quick_run):
    _, results, _ = quick_run
    rows = {row["workload"]: row for row in results["rows"]}
    assert {name: row["events"] for name, row in rows.items()} == EVENTS
    for name, row in rows.items():
        assert row["costs"].keys() == {"rust", "empty_handler"}
        assert row["costs"]["rust"]["records"] == (1 if name.startswith("ingest") else 0)
        assert row["costs"]["rust"]["stored_bytes"] > 300
        for cost in row["costs"].values():
            for number in ("start_up_ms", "first_answer_ms", "cpu_us", "peak_rss_mib"):
                assert cost[number] > 0, (name, number)


def test_each_load_of_the_server_has_its_numbers(quick_run):
    _, results, _ = quick_run
    rows = {(row["events"], row["server"]["ingest"]["commit_interval_ms"], row["connections"], row["rate"]): row
            for row in results["servers"]}
    assert rows.keys() == SERVERS
    for (events, interval_ms, _, _), row in rows.items():
        for number in ("posts_a_second", "cpu_us", "peak_rss_mib", "answer_bytes"):
            assert row[number] > 0, number
        if events == 1:
            assert row["p99_ms"] >= interval_ms, "a record waits for its first POST's interval"
        assert row["events_a_record"] > events, "POSTs share records"
        assert 0 < row["stored_bytes_an_event"] < 300


def test_a_function_that_stores_takes_more_memory_than_one_that_does_not(quick_run):
    _, results, _ = quick_run
    for row in results["rows"]:
        assert row["costs"]["rust"]["peak_rss_mib"] > row["costs"]["empty_handler"]["peak_rss_mib"]


def test_the_page_holds_the_costs_that_are_printed_and_nothing_else_of_it_changes(quick_run):
    output, _, page = quick_run
    *costs, targets = output.strip().split("\n\n")
    assert "\n\n".join(costs) in page
    assert "ingest, 1 event: peak memory, MiB" in targets and targets not in page, "targets are for the terminal"
    before = (REPOSITORY / "docs/PERFORMANCE.md").read_text()
    for part in (0, -1):
        assert page.split("<!--")[part] == before.split("<!--")[part]


def functions(folder, ingest="ingest-lambda", landing="kinesis-to-s3-lambda"):
    """A folder of functions in which others stand under their names."""
    folder.mkdir()
    shutil.copy(BINARY.with_name(ingest), folder / "ingest-lambda")
    shutil.copy(BINARY.with_name(landing), folder / "kinesis-to-s3-lambda")
    for name in ("empty-handler", "ingest-server"):
        shutil.copy(BINARY.with_name(name), folder)
    return folder


@pytest.mark.parametrize(
    ("replaced", "error"),
    [
        # They answer that all is well, and store nothing.
        ({"ingest": "empty-handler"}, "0 records on the stream"),
        ({"landing": "empty-handler"}, "0 objects in the bucket"),
        # They can't read what they are given.
        ({"ingest": "kinesis-to-s3-lambda"}, "the function failed"),
        ({"landing": "ingest-lambda"}, "the function failed"),
    ],
)
def test_a_function_that_does_not_do_its_work_is_not_measured(tmp_path, replaced, error):
    run = bench(*QUICK, "--functions", functions(tmp_path / "functions", **replaced))
    assert run.returncode == 1
    assert error in run.stderr
    assert not run.stdout


def test_a_function_that_is_missing_is_named(tmp_path):
    run = bench(*QUICK, "--functions", tmp_path)
    assert run.returncode == 1
    assert "ingest-lambda; `make bench` builds and installs what is measured" in run.stderr


def test_python_libbz2_and_nginx_do_the_same_work():
    """The bench counts what nginx logs."""
    subprocess.run([REFERENCE / "install.sh", "python", "floor", "nginx"], check=True, timeout=300)
    run = bench("--quick")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(": Python ") == len(EVENTS) - 2, "the reference in Python knows no frames"
    assert run.stdout.count(": libbz2 alone ") == 4
    assert run.stdout.count(" event: nginx, ") == 5 and run.stdout.count(" events: nginx, ") == 3


@pytest.mark.parametrize(
    ("file", "old", "new", "error"),
    [
        ("ingest.py", '"event": event', '"event": {}', "not those that were posted"),
        ("ingest.py", '"request_id": context.aws_request_id,', "", "no complete envelope"),
        ("landing.py", 'b"\\n".join(group["lines"])', 'b"\\n".join(group["lines"][:9])', "does not hold the lines"),
    ],
)
def test_a_reference_that_does_something_else_is_an_error(tmp_path, file, old, new, error):
    subprocess.run([REFERENCE / "install.sh", "python", "floor"], check=True, timeout=300)
    changed = tmp_path / "reference"
    shutil.copytree(REFERENCE / "python", changed / "python")
    for link in (".venv", "bin"):
        (changed / link).symlink_to(REFERENCE / link)
    text = (changed / "python" / file).read_text()
    assert old in text
    (changed / "python" / file).write_text(text.replace(old, new))
    run = bench("--quick", "--reference", changed)
    assert run.returncode == 1
    assert error in run.stderr
