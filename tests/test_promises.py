"""Each promise of docs/DELIVERY.md is quoted by the doc comment of a test, and that test fails when the promise is broken.

They run again here, and must fail by their own assertion: end-to-end tests with one of support/sabotages.py at work, tests
in Rust with one of the faults that their model of the world knows (generators/src/sabotage.rs).
"""

import ast
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

import test_template
from support.failed_batches import template_with
from support.stack import BINARY, REPOSITORY, run_to_the_end

TESTS = REPOSITORY / "tests"


@dataclass(frozen=True)
class Broken:
    """A promise, known by its first words; the tests that stand for it, of which the first quotes it; a way to break it; and the
    assertion that notices this, by its code or by its message."""

    promise: str
    tests: str
    sabotage: str
    noticed: str
    # Less patience, traffic and shorter outages than while the promise is kept.
    settings: tuple = ()

    def __str__(self):
        return f"{self.promise}-{self.sabotage}"


# What is missing is noticed when the test has waited long enough for it.
SOON = ("LANDING_SECONDS", "5")
# Enough that a viewer's events are on both sides of a split.
FEW = ("RESHARD_EVENTS", "100")

def rows(test, *names):
    return " ".join(f"test_rejected_input.py::{test}[lambda-{name}]" for name in names)


# A row of each kind of bad input.
REJECTED = rows("test_each_row_is_answered_with_its_reason_and_kept_whole", "not_json", "only_bad_members", "invalid_utf8",
                "gzip_corrupt", "unknown_encoding", "binary_content_type", "invalid_cmcd", "event_larger_than_a_record",
                "10001_events", "put", "unknown_path")
BESIDE_REJECTED = rows("test_good_pieces_land_and_bad_ones_beside_them_are_named_and_kept", "array", "number-array", "not_utf8-frame",
                       "raw_line_feed-cut_off")
RESHARD = "test_reshard.py::test_split_and_merge_under_traffic_lose_double_and_reorder_nothing"

REDRIVE_REJECTED = "test_redrive.py::test_rejected_bodies_are_landed_after_a_fix_and_stay_where_they_are"
UNREADABLE = "test_incomplete_hours.py::test_an_hour_with_an_unreadable_object_waits_until_it_is_mended_or_accepted"
SEALED_SOON = ("SEALED_SECONDS", "10")

END_TO_END = [
    Broken("An answer of 2xx means",
           "test_delivery.py::test_what_a_2xx_counts_is_on_the_stream_or_in_s3_when_the_answer_comes",
           "confirm_and_forget", "<= on_stream"),
    Broken("An answer of 2xx means",
           "test_delivery.py::test_what_a_2xx_counts_is_on_the_stream_or_in_s3_when_the_answer_comes",
           "forget_what_is_spilled", "== in_s3"),
    Broken("An answer of 503 comes before",
           "test_delivery.py::test_ingest_that_is_throttled_while_s3_is_away_names_what_is_not_stored",
           "hide_a_failure", "40 lines in events/ but", (SOON,)),
    Broken("An answer of 503 comes before",
           "test_delivery.py::test_ingest_that_is_throttled_while_s3_is_away_names_what_is_not_stored",
           "freeze_the_sender", "answer.status == 503"),
    Broken("What ingest put on the stream twice",
           "test_delivery.py::test_what_is_twice_on_the_stream_has_one_id",
           "give_new_ids", r"== 20"),
    Broken("A player that sends an event again doubles it",
           "test_delivery.py::test_a_retry_by_a_player_is_recognised_by_the_id_of_the_event",
           "give_new_ids", "sent twice"),
    Broken("Rejected input is kept whole", REJECTED, "cut_rejected_bodies", "in row.kept"),
    Broken("Rejected input is kept whole", " ".join(REJECTED.split()[:4]), "give_another_reason", "== {row.reason}"),
    Broken("Rejected input is kept whole", BESIDE_REJECTED, "drop_events_beside_rejected", "lines in events/ but 0", (SOON,)),
    Broken("Whatever bytes a request or a record holds",
           "test_crashes.py::test_a_panic_costs_one_request_and_no_batch",
           "acknowledge_what_failed", "2 lines in events/ but 1", (SOON,)),
    Broken("While a batch is sent again its object holds",
           "test_delivery.py::test_an_object_is_whole_at_any_moment",
           "drop_a_line_undescribed", "event-count"),
    Broken("While a batch is sent again its object holds",
           "test_delivery.py::test_an_object_is_whole_at_any_moment",
           "acknowledge_some_that_failed", r"assert_settled\(", (SOON,)),
    Broken("Events of one key", RESHARD, "reverse_lines", "are not in order", (FEW,)),
    Broken("Events of one key", RESHARD, "move_a_line_to_a_later_file", "are not in order", (FEW,)),
    Broken("Splitting and merging shards", RESHARD, "drop_lines_of_child_shards", "lines in events/ but", (SOON, FEW)),
    Broken("Splitting and merging shards", RESHARD, "double_lines_of_child_shards", "events landed twice", (FEW,)),
    Broken("Splitting and merging shards", RESHARD, "move_a_line_behind_a_split", "are not in order", (FEW,)),
    Broken("While Kinesis is away events go to S3",
           "test_delivery.py::test_kinesis_away_and_then_s3_away_under_traffic[fails]",
           "call_failures_stored", "assert account.is_good", (("OUTAGE_SECONDS", "1"),)),
    Broken("While Kinesis is away events go to S3",
           "test_delivery.py::test_kinesis_away_and_then_s3_away_under_traffic[fails]",
           "acknowledge_what_failed", "lines in files", (("OUTAGE_SECONDS", "6"), SOON)),
    Broken("A batch that could not land for six days",
           "test_redrive.py::test_batches_that_were_given_up_are_landed_once_also_when_killed_half_way_and_run_twice",
           "drop_a_line_of_redrive", "assert account.is_good", (SOON,)),
    Broken("A batch that could not land for six days",
           "test_redrive.py::test_batches_that_were_given_up_are_landed_once_also_when_killed_half_way_and_run_twice",
           "double_a_line_of_redrive", "assert account.is_good", (SOON,)),
    Broken("A batch that could not land for six days",
           "test_crashes.py::test_a_batch_that_never_lands_is_kept_whole_and_later_ones_go_on[no_bucket]",
           "acknowledge_what_failed", "the-first' kept", (SOON,)),
    Broken("Rejected input can be read again", REDRIVE_REJECTED, "drop_a_line_of_redrive", r"assert texts|sorted"),
    Broken("Rejected input can be read again", REDRIVE_REJECTED, "double_a_line_of_redrive", r"assert texts|sorted"),
    Broken("Rejected input can be read again", REDRIVE_REJECTED, "remove_what_is_redriven", "landed.rejected"),
    Broken("`_SUCCESS` of an hour means",
           "test_incomplete_hours.py::test_hours_whose_batches_failed_are_sealed_by_themselves_once_they_are_redriven",
           "hide_failed_batches", '"_INCOMPLETE"', (SEALED_SOON,)),
    Broken("`_SUCCESS` of an hour means", UNREADABLE, "hide_unreadable_objects", '"_INCOMPLETE"', (SEALED_SOON,)),
    Broken("`_SUCCESS` of an hour means", UNREADABLE, "hide_acceptances", 'accepted, "_SUCCESS"', (("SEALED_SECONDS", "20"),)),
]
EXACTLY_ONCE = ("A record that is on the stream lands in exactly one object",
                "kinesis-to-s3-lambda/tests/exactly_once/main.rs::each_record_is_in_exactly_one_object_whatever_happens")
HOSTILE_REQUESTS = ("Whatever bytes a request or a record holds",
                    "ingest-lambda/tests/hostile_requests/main.rs::every_piece_of_a_body_is_accepted_or_rejected")
HOSTILE_RECORDS = ("Whatever bytes a request or a record holds",
                   "kinesis-to-s3-lambda/tests/hostile_records/main.rs::every_byte_of_a_batch_lands_once")
ARRIVALS = ("An object that lands at any moment",
            "monitoring-lambdas/src/seal_partition/tests/arrivals.rs"
            "::objects_that_land_during_stopped_killed_and_doubled_runs_are_in_the_final_manifest")
WHOLE_HOURS = ("`_SUCCESS` of an hour means",
               "monitoring-lambdas/src/seal_partition/tests/incomplete.rs"
               "::an_incomplete_hour_is_held_back_until_it_is_whole")
LACKS = ("UnreadRecords", "UnlandedRecords", "GivenBack", "FailedInvocation", "ThrottledInvocation", "FailedBatch",
         "UnreadableObject", "BrokenObject", "MissingRecords")
IN_RUST = [
    Broken(*EXACTLY_ONCE, "PlainOverwriting", "is in no object|is in \\["),
    Broken(*EXACTLY_ONCE, "EtagOfTheLines", "is in no object|is in \\["),
    Broken(*EXACTLY_ONCE, "AnotherFirstRecord", "is in no object|is in \\["),
    Broken(*HOSTILE_REQUESTS, "Never", "minimal failing input"),
    Broken(*HOSTILE_RECORDS, "Twice", "minimal failing input"),
    Broken(*ARRIVALS, "LeavingMarkers", "should be"),
    Broken(*ARRIVALS, "Conditions", "should be"),
    *(Broken(*WHOLE_HOURS, lack, "not due yet") for lack in LACKS),
]
# Settings that break exactly-once, and what they are in the template.
SETTINGS = {
    "ParallelizationFactor: 2": "ParallelizationFactor: 1",
    "BisectBatchOnFunctionError: true": "BisectBatchOnFunctionError: false",
    # Landing's.
    "FunctionResponseTypes: []\n            MaximumRetryAttempts:": "FunctionResponseTypes: [ReportBatchItemFailures]\n            MaximumRetryAttempts:",
    "MaximumRetryAttempts: 100": "MaximumRetryAttempts: -1",
    "MaxValue: 604800": "MaxValue: 518400",
    # The landing bucket's.
    "SSEAlgorithm: aws:kms\n  LandingBucketPolicy:": "SSEAlgorithm: AES256\n  LandingBucketPolicy:",
}
REFUSED = list(SETTINGS)[:3]
IN_THE_TEMPLATE = [
    Broken("The settings that exactly-once rests on",
           "test_template.py::test_the_settings_of_exactly_once_are_right", setting, "") for setting in SETTINGS
]


# ---- Each promise has its tests ----

def promises():
    text = (REPOSITORY / "docs/DELIVERY.md").read_text()
    return re.findall(r"^### (.+)$", text, re.MULTILINE)


def one_line(text):
    return " ".join(text.split())


def python_tests():
    """The name and the docstring of each test function."""
    for path in TESTS.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.name}::{node.name}", one_line(ast.get_docstring(node) or "")


RUST_TEST = re.compile(
    r"((?:^[ \t]*///.*\n)*)(?:[ \t]*#\[.*\n)*?[ \t]*#\[(?:test|tokio::test|rstest).*\n(?:[ \t]*#\[.*\n)*[ \t]*(?:async )?fn (\w+)",
    re.MULTILINE,
)


def rust_tests():
    """The name and the doc comment of each test function."""
    for path in REPOSITORY.glob("[!.]*/**/*.rs"):
        if "target" not in path.relative_to(REPOSITORY).parts:
            for comment, name in RUST_TEST.findall(path.read_text()):
                yield f"{path.relative_to(REPOSITORY)}::{name}", one_line(re.sub(r"^\s*///", "", comment, flags=re.MULTILINE))


def test_each_promise_is_broken_below():
    """A promise without a test that quotes it, and that is shown to fail, is a wish."""
    found = promises()
    assert len(found) >= 14
    broken = [*END_TO_END, *IN_RUST, *IN_THE_TEMPLATE]
    without = [promise for promise in found if not any(promise.startswith(one.promise) for one in broken)]
    assert not without, f"add them to END_TO_END or IN_RUST: {without}"
    docs = dict([*python_tests(), *rust_tests()])
    for one in broken:
        promise, = [promise for promise in found if promise.startswith(one.promise)]
        first = re.split(r"[\[ ]", one.tests)[0]
        assert promise in docs[first], f"{first} does not quote: {promise}"


# ---- Each promise, broken ----

def run_sabotaged(one, directory):
    """How tests end while their promise is broken."""
    report = directory / "report.json"
    own = {"SABOTAGE": one.sabotage, "SABOTAGE_REPORT": str(report), "PYTHONPATH": str(TESTS), **dict(one.settings)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "support.sabotaged_run", "-p", "no:cacheprovider",
               "--basetemp", directory / "pytest", *(f"{TESTS}/{test}" for test in one.tests.split())]
    done = subprocess.run(command, env=inherited | own, capture_output=True, text=True, timeout=240)
    assert report.exists(), done.stdout + done.stderr
    return json.loads(report.read_text()) | {"output": done.stdout + done.stderr}


def binary_of(path):
    """The newest build of the tests that a file of Rust is a part of; `make test-e2e` builds them all."""
    crate, kind, *rest = Path(path).parts
    name = rest[0] if kind == "tests" else crate.replace("-", "_")
    built = [file for file in (BINARY.parent / "deps").glob(f"{name}-*") if not file.suffix]
    assert built, f"{name} is not built: cargo build --release --locked --workspace --tests"
    return max(built, key=lambda file: file.stat().st_mtime)


def run_rust(one):
    """The exit code and the output of a test in Rust while its promise is broken."""
    path, name = one.tests.split("::")
    done = subprocess.run([binary_of(path), name], env=os.environ | {"SABOTAGE": one.sabotage}, capture_output=True, text=True,
                          timeout=240)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def ends(request, tmp_path_factory):
    """The ends of the sabotaged tests that are asked for. They run side by side: they wait more than they work."""
    asked = [item.callspec.params["one"] for item in request.session.items if "ends" in item.fixturenames]
    with ThreadPoolExecutor(8) as pool:
        yield {one: pool.submit(run_rust, one) if one in IN_RUST
               else pool.submit(run_sabotaged, one, tmp_path_factory.mktemp("sabotaged")) for one in asked}


@pytest.mark.parametrize("one", END_TO_END, ids=str)
def test_it_fails_while_its_promise_is_broken(ends, one):
    """By an assertion about the promise, not because nothing works any more."""
    end = ends[one].result()
    assert end["at_work"] > 0, f"the sabotage changed nothing\n{end['output']}"
    assert end["ends"], end["output"]
    for name, test in end["ends"].items():
        assert (test["outcome"], test["error"]) == ("failed", "AssertionError"), f"{name}: {end['output']}"
        assert re.search(one.noticed, test["noticed"]), test["noticed"]


@pytest.mark.parametrize("one", IN_RUST, ids=str)
def test_it_fails_while_its_model_breaks_the_promise(ends, one):
    """A test in Rust finds the fault, and says what was lost or doubled."""
    code, output = ends[one].result()
    assert code == 101 and re.search(r"test result: FAILED\. \d+ passed; 1 failed", output), output
    assert re.search(one.noticed, output), output


@pytest.mark.parametrize("one", [Broken("", tests, "change_nothing", "", (FEW,)) for tests in (RESHARD, BESIDE_REJECTED)],
                         ids=["reshard", "beside_rejected"])
def test_it_passes_while_nothing_is_broken(ends, one):
    """What fails above fails by what the sabotage does, not by the proxy that does it."""
    end = ends[one].result()
    assert end["at_work"] > 0 and {test["outcome"] for test in end["ends"].values()} == {"passed"}, end["output"]


@pytest.mark.parametrize("one", IN_THE_TEMPLATE, ids=str)
def test_a_setting_that_breaks_exactly_once_is_noticed(monkeypatch, tmp_path, one):
    """The template's own test fails for each row of the promise's table, and the one-machine stack starts with none of the first
    three."""
    path = template_with(tmp_path, {SETTINGS[one.sabotage]: one.sabotage})
    changed = yaml_parse(path.read_text())
    monkeypatch.setattr(test_template, "document", lambda: changed)
    with pytest.raises(AssertionError):
        test_template.test_the_settings_of_exactly_once_are_right()
    if one.sabotage in REFUSED:
        code, output = run_to_the_end(tmp_path, template=path)
        assert code == 1 and one.sabotage.partition(":")[0] in output, output
