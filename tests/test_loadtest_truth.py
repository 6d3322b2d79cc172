"""The load test's account of what landed, beside what a reader that shares no code with it finds in the same
files."""

import base64
import json
import re
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from support import landed
from support.loadtest import BINARY, FAIL, PASS, finish, start
from support.stack import INGEST, LANDING_BUCKET, Stack, wait_for

RATE, SECONDS, EVENTS_PER_POST = 50, 5, 3
# The machine may be as slow as it likes: what is tried here is not the generator.
PATIENT = ("--max-lag", "60s", "--settle", "2s", "--landing-timeout", "30s")


def start_run(stack, directory, run_id, *more):
    """Starts a load test of the stack, which writes its result and its report into the directory."""
    return start(
        "run", stack.port, "--rate", RATE, "--duration", f"{SECONDS}s", "--events-per-post", EVENTS_PER_POST, "--seed", 7,
        "--run-id", run_id, "--bucket", LANDING_BUCKET, "--endpoint-url", stack.aws_address,
        "--result", directory / f"{run_id}.json", "--report", directory / f"{run_id}.html",
        "--threshold", "missing=0,doubled=0,misplaced=0", *more,
    )


def result_of(directory, run_id):
    return json.loads((directory / f"{run_id}.json").read_text())


def ids_in(text, run_id):
    return re.findall(f"lt-{run_id}-[0-9]{{10}}", text)


def landed_ids(stack, run_id):
    """How often each id of the run is in the lines of events, and in the bodies of rejected lines."""
    events = Counter(line.json["event"]["id"] for line in stack.lines("events"))
    bodies = (base64.b64decode(line.json["rejected"]["body_base64"]) for line in stack.lines("rejected"))
    rejected = Counter(one for body in bodies for one in set(ids_in(body.decode(errors="replace"), run_id)))
    return Counter({one: count for one, count in events.items() if ids_in(one, run_id)}), rejected


def first_landed_file(stack, run_id):
    """A file with events of the run, while the run goes on; and its ids."""

    def found():
        for file in stack.landed_files("events"):
            ids = {line.json["event"]["id"] for line in landed.read_lines(file.path)}
            if any(ids_in(one, run_id) for one in ids):
                return file, ids
        return None

    return wait_for(found, what="a landed file of the run")


class Whole:
    """A stack of its own, and a run on it in which nothing went wrong."""

    def __init__(self, directory, run_id):
        self.directory, self.run_id = directory, run_id
        self.stack = Stack(directory / "stack")
        self.ran = finish(start_run(self.stack, directory, run_id, "--bad", "20%", *PATIENT))
        self.result = result_of(directory, run_id)
        self.truth = self.result["truth"]
        self.page = (directory / f"{run_id}.html").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = Whole(tmp_path_factory.mktemp("loadtest"), "whole")
    yield run
    assert run.stack.stop() == 0, run.stack.tail()


def test_each_event_that_was_answered_as_stored_is_found_by_its_id(whole):
    assert whole.ran.code == PASS, whole.ran
    events, rejected = landed_ids(whole.stack, whole.run_id)
    assert (whole.truth["missing"], whole.truth["doubled"], whole.truth["misplaced"]) == (0, 0, 0)
    assert set(events.values()) == set(rejected.values()) == {1}
    said = whole.result["events"]
    assert (said["accepted"], said["rejected"]) == (len(events), len(rejected))
    assert whole.truth["expected"] == whole.truth["landed"] == len(events) + len(rejected)
    assert whole.truth["landed_by_second"][-1] == len(events)
    assert whole.truth["end_to_end"]["count"] == whole.truth["landed"]
    assert whole.truth["examples"] == []


def test_bad_input_is_found_under_rejected(whole):
    events, rejected = landed_ids(whole.stack, whole.run_id)
    assert len(rejected) > RATE * SECONDS * 0.1
    assert not set(events) & set(rejected)


def test_files_are_counted_as_they_are_on_disk(whole):
    files = [*whole.stack.landed_files("events"), *whole.stack.landed_files("rejected")]
    lengths = [sum(len(line.text.encode()) + 1 for line in landed.read_lines(file.path)) for file in files]
    assert whole.truth["files"] == len(files)
    assert whole.truth["compressed_bytes"] == sum(file.path.stat().st_size for file in files)
    assert whole.truth["uncompressed_bytes"] == sum(lengths)


def test_the_systems_own_metrics_say_the_same(whole):
    def total(name):
        series = [one for one in whole.result["system_metrics"] if one["name"] == name and one["statistic"] == "Sum"]
        assert len(series) == 1, whole.result["system_metrics"]
        return sum(value for _, value in series[0]["points"])

    said = whole.result["events"]
    # Environments of ingest still hold back what they counted in the last seconds.
    assert 0 < total("Playhead AcceptedEvents (ingest-lambda)") <= said["accepted"]
    counted = lambda: [sum(whole.stack.metric(name, yesterday, "Sum", FunctionName=INGEST)) for name in ("AcceptedEvents", "RejectedLines")]
    yesterday = datetime.now(UTC) - timedelta(days=1)
    wait_for(lambda: counted() == [said["accepted"], said["rejected"]], what=lambda: f"{said} in {counted()}")
    assert total("Playhead LandedEvents (kinesis-to-s3-lambda)") == said["accepted"]
    assert total("AWS/Lambda Invocations (ingest-lambda)") >= RATE * SECONDS


class Fetches(HTMLParser):
    """What a page would have a browser fetch, beside the page itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag in ("link", "img", "iframe", "object", "embed", "image", "use"):
            self.found.append(tag)
        self.found += [name for name, _ in attributes if name in ("src", "href", "xlink:href", "srcset", "data")]


def test_the_report_opens_offline_and_has_its_charts(whole):
    fetches = Fetches()
    fetches.feed(whole.page)
    assert fetches.found == []
    assert "url(" not in whole.page and "@import" not in whole.page
    captions = re.findall(r"<figure data-chart=[^>]*><figcaption>([^<]+)", whole.page)
    expected = {"Rate", "Latency over time", "Latency by percentile", "Histogram", "Landed over accepted"}
    assert expected <= set(captions)
    assert any(caption.startswith("Playhead LandedEvents") for caption in captions)
    assert len(captions) == whole.page.count("<figure")


def test_the_report_has_the_result_as_json(whole):
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', whole.page, re.DOTALL)
    assert json.loads(data[1])["runs"] == [whole.result]


def test_the_report_is_made_again_from_the_result(whole):
    again = whole.directory / "again.html"
    command = [BINARY, "report", whole.directory / f"{whole.run_id}.json"]
    page = subprocess.run([*command, "--report", again], capture_output=True, text=True)
    assert page.returncode == 0, page.stderr
    assert again.read_text() == whole.page


def test_two_results_are_compared(whole):
    mine = whole.directory / f"{whole.run_id}.json"
    other = whole.directory / "other.json"
    changed = json.loads(mine.read_text())
    changed["plan"]["rate"], changed["latency"]["p99_us"] = "99", whole.result["latency"]["p99_us"] * 2
    other.write_text(json.dumps(changed))
    same = subprocess.run([BINARY, "compare", mine, mine], capture_output=True, text=True)
    different = subprocess.run([BINARY, "compare", mine, other], capture_output=True, text=True)
    assert (same.returncode, different.returncode) == (0, 0), same.stderr + different.stderr
    assert "different plans" not in same.stdout and "different plans; what differs: rate." in different.stdout
    assert re.search(r"^p99 .* 2\.00$", different.stdout, re.MULTILINE), different.stdout


def test_events_of_a_file_that_is_deleted_are_missing(fresh_stack, tmp_path):
    stack = fresh_stack()
    process = start_run(stack, tmp_path, "deleted", *PATIENT[:4], "--landing-timeout", "15s")
    file, ids = first_landed_file(stack, "deleted")
    stack.s3().delete_object(Bucket=LANDING_BUCKET, Key=file.key)
    ran = finish(process)
    truth = result_of(tmp_path, "deleted")["truth"]
    assert ran.code == FAIL, ran
    assert (truth["missing"], truth["doubled"], truth["misplaced"]) == (len(ids), 0, 0)
    assert truth["examples"] == [f"missing {one}" for one in sorted(ids)[:20]]
    assert truth["landed"] == truth["expected"] - len(ids)
    assert sorted(ids)[0] in (tmp_path / "deleted.html").read_text()


def test_events_of_a_file_that_is_there_twice_are_doubled(fresh_stack, tmp_path):
    stack = fresh_stack()
    process = start_run(stack, tmp_path, "copied", *PATIENT)
    file, ids = first_landed_file(stack, "copied")
    copy = file.key.replace(".jsonl.bz2", "-redriven.jsonl.bz2")
    stack.s3().copy_object(Bucket=LANDING_BUCKET, Key=copy, CopySource={"Bucket": LANDING_BUCKET, "Key": file.key})
    ran = finish(process)
    truth = result_of(tmp_path, "copied")["truth"]
    assert ran.code == FAIL, ran
    assert (truth["missing"], truth["doubled"], truth["misplaced"]) == (0, len(ids), 0)
    assert truth["examples"] == [f"doubled {one} (2 times)" for one in sorted(ids)[:20]]


def test_with_a_file_that_cannot_be_read_nothing_is_known(fresh_stack, tmp_path):
    stack = fresh_stack()
    process = start_run(stack, tmp_path, "broken", *PATIENT)
    file, _ = first_landed_file(stack, "broken")
    key = file.key.replace(".jsonl.bz2", "-broken.jsonl.bz2")
    stack.s3().put_object(Bucket=LANDING_BUCKET, Key=key, Body=file.path.read_bytes()[:-7])
    ran = finish(process)
    assert ran.code == FAIL, ran
    assert f"what landed is not known: the content of {key}" in ran.stdout + ran.stderr
    result = result_of(tmp_path, "broken")
    assert result["truth"] is None
    found = {one["threshold"]: one["found"] for one in result["verdict"]["thresholds"]}
    assert [found[threshold] for threshold in ("missing=0", "doubled=0", "misplaced=0")] == [None, None, None]
