"""The bench measures real functions that do their work, and what it compares them with does the same work."""

import json
import shutil
import subprocess

import pytest

from support.stack import BINARY, REPOSITORY

BENCH = BINARY.with_name("bench")
REFERENCE = REPOSITORY / "bench/reference"
QUICK = ["--quick", "--without", "python", "--without", "node"]
ROWS = {
    "ingest_one": (1, 1),
    "ingest_twenty_of_one_key": (20, 1),
    "ingest_twenty_of_twenty_keys": (20, 20),
    "landing_hundred": (100, 0),
}


def bench(*arguments):
    return subprocess.run([BENCH, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    page = folder / "PERFORMANCE.md"
    shutil.copy(REPOSITORY / "docs/PERFORMANCE.md", page)
    run = bench(*QUICK, "--json", folder / "bench.json", "--page", page)
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads((folder / "bench.json").read_text()), page.read_text()


def test_each_row_has_its_numbers(quick_run):
    _, results, _ = quick_run
    rows = {row["name"]: row for row in results["rows"]}
    assert rows.keys() == ROWS.keys()
    for name, (events, records) in ROWS.items():
        row = rows[name]
        assert row["events"] == events
        assert row["costs"].keys() == {"rust", "empty"}
        assert row["costs"]["rust"]["records"] == records
        assert row["costs"]["rust"]["stored_bytes"] > 500
        for cost in row["costs"].values():
            for number in ("start_up_ms", "first_answer_ms", "cpu_us", "invocations_per_second", "peak_rss_mib"):
                assert cost[number] > 0, (name, number)


def test_an_event_costs_more_than_nothing(quick_run):
    """The floor is one: a function that stores takes more than one that does not."""
    _, results, _ = quick_run
    for row in results["rows"]:
        assert row["costs"]["rust"]["peak_rss_mib"] > row["costs"]["empty"]["peak_rss_mib"]


def test_bars_are_in_the_output_and_on_the_page(quick_run):
    output, results, page = quick_run
    assert {bar["what"] for bar in results["bars"]} >= {
        "ingest, 1 event: CPU, of the empty handler's",
        "ingest, 20 events of one key: records",
        "landing: peak memory, MiB",
    }
    for bar in results["bars"]:
        verdict = "holds" if bar["holds"] else "missed"
        assert any(bar["what"] in line and verdict in line for line in output.splitlines())
        assert f"| {bar['what']} | {verdict} |" in page
    assert "the numbers mean nothing" in page


def functions(folder, ingest="ingest-lambda", landing="kinesis-to-s3-lambda"):
    """A folder of functions in which others stand under their names."""
    folder.mkdir()
    shutil.copy(BINARY.with_name(ingest), folder / "ingest-lambda")
    shutil.copy(BINARY.with_name(landing), folder / "kinesis-to-s3-lambda")
    shutil.copy(BINARY.with_name("empty-handler"), folder)
    return folder


@pytest.mark.parametrize(
    ("replaced", "problem"),
    [
        # They answer that all is well, and store nothing.
        ({"ingest": "empty-handler"}, "0 records on the stream"),
        ({"landing": "empty-handler"}, "0 objects in the bucket"),
        # They can't make anything of what they are given.
        ({"ingest": "kinesis-to-s3-lambda"}, "the function failed"),
        ({"landing": "ingest-lambda"}, "the function failed"),
    ],
)
def test_a_function_that_does_not_do_its_work_is_not_measured(tmp_path, replaced, problem):
    run = bench(*QUICK, "--functions", functions(tmp_path / "functions", **replaced))
    assert run.returncode == 1
    assert problem in run.stderr
    assert "holds" not in run.stdout


def test_a_function_that_is_missing_is_named(tmp_path):
    run = bench(*QUICK, "--functions", tmp_path)
    assert run.returncode == 1
    assert "ingest-lambda; `make bench` builds and installs what is measured" in run.stderr


def test_the_python_reference_does_the_same_job():
    """`make bench` asks the same of Node.js's, whose runtime client takes two minutes to compile."""
    subprocess.run([REFERENCE / "install.sh", "python"], check=True, timeout=300)
    run = bench("--verify", "--without", "node")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("Python as Rust") == 10
    assert "Node.js" not in run.stdout


def test_a_reference_that_does_something_else_is_found_out(tmp_path):
    """The comparison can fail: here the reference takes another field for its key."""
    subprocess.run([REFERENCE / "install.sh", "python"], check=True, timeout=300)
    changed = tmp_path / "reference"
    shutil.copytree(REFERENCE / "python", changed / "python")
    (changed / ".venv").symlink_to(REFERENCE / ".venv")
    ingest = changed / "python/ingest.py"
    ingest.write_text(ingest.read_text().replace('("session_id",', '("video_id",'))
    run = bench("--verify", "--without", "node", "--reference", changed)
    assert run.returncode == 1
    assert "1 event: Python differs" in run.stderr
